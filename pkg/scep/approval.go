package scep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// waiting opens the request of an enrollment that waits or has waited.
func (h *Handler) waiting(ctx context.Context, e pki.Enrollment) (*csr.Request, error) {
	name := pki.SecretEnrollment(e.ID)
	sealed, err := h.cfg.Store.Secret(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("reading a request that waits: %w", err)
	}
	raw, err := h.cfg.Sealer.Open(name, sealed)
	if err != nil {
		return nil, fmt.Errorf("opening a request that waits: %w", err)
	}
	// It was accepted once; a switch that has ended since does not void it.
	parser := h.cfg.CSRParser
	parser.AllowSHA1 = true
	return parser.Parse(raw)
}

// waitedFacts are those of a request that a person has approved.
func (h *Handler) waitedFacts(ctx context.Context, point *enrollment.Point, issuerID int64, e pki.Enrollment, request *csr.Request) (*enrollment.Facts, error) {
	f := newFacts(point, issuerID, request)
	f.Waited, f.SignerKey = &e, e.SignerHash
	var err error
	if f.Webhook, err = enrollment.ParseOverrides(e.Overrides); err != nil {
		return nil, err
	}
	if e.Challenge != "" {
		c, err := h.cfg.Store.Challenge(ctx, e.Challenge)
		if err != nil {
			return nil, err
		}
		f.OneTime = &c
	}
	if e.Replaces == (pki.Fingerprint{}) {
		return f, nil
	}
	old, err := h.cfg.Store.Certificate(ctx, e.Replaces)
	if err != nil {
		return nil, err
	}
	f.Signer, err = h.signerOf(&old, nil, request)
	return f, err
}

// kindOf names a request that waits, for counts.
func kindOf(e pki.Enrollment) string {
	if e.Replaces != (pki.Fingerprint{}) {
		return "renew"
	}
	return "enroll"
}

// Approve issues the certificate that a request waits for, if the policy still allows it: the device may have been blocked
// meanwhile. The device gets it when it asks again. Errors are faults: NotFound, Conflict when it was decided before or has
// waited too long, PolicyRefused, and those of issuing.
func (h *Handler) Approve(ctx context.Context, by pki.Principal, requestID, id string) (pki.Enrollment, error) {
	e, point, now, err := h.decidable(ctx, id)
	if err != nil {
		return e, err
	}
	i, err := h.cfg.Issuers.Current().Issuer(point.Issuer())
	if err != nil {
		return e, err
	}
	request, err := h.waiting(ctx, e)
	if err != nil {
		return e, err
	}
	facts, err := h.waitedFacts(ctx, point, i.ID, e, request)
	if err != nil {
		return e, err
	}
	facts.Now = now
	v, err := h.settle(ctx, facts, func(enrollment.Verdict) (enrollment.WebhookAnswer, error) { return enrollment.WebhookAnswer{}, nil })
	switch {
	case err != nil:
		return e, err
	case v.Outcome != enrollment.Issue:
		h.notes.refusal(RefusalKey{point.Name(), kindOf(e), v.Reason}, now)
		return e, fault.Wrap(fault.PolicyRefused, v.Err, "the request cannot be approved: %s", v.Text).WithHint("deny it; see who gets a certificate in docs/policy.md")
	}
	next := e
	next.Version, next.State, next.DecidedBy, next.UpdatedAt = e.Version+1, pki.EnrollmentIssued, by.Name, now
	next.ExpiresAt = later(e.ExpiresAt, now.Add(point.RetryWindow()))
	if err := h.introduce(ctx, facts, v, by, requestID); err != nil {
		return e, err
	}
	issued, err := h.grant(ctx, grant{
		point: point, issuer: i, request: request, change: &store.EnrollmentChange{Enrollment: next}, verdict: v, by: by, requestID: requestID,
	})
	if errors.Is(err, store.ErrStale) {
		return e, decided(err)
	}
	next.Issued = issued.Fingerprint
	return next, err
}

// Deny refuses a request that waits. The device learns of it, with the reason, when it asks again.
func (h *Handler) Deny(ctx context.Context, by pki.Principal, requestID, id, reason string) (pki.Enrollment, error) {
	e, point, now, err := h.decidable(ctx, id)
	if err != nil {
		return e, err
	}
	next := e
	next.Version, next.State, next.DecidedBy, next.UpdatedAt, next.Reason = e.Version+1, pki.EnrollmentDenied, by.Name, now, reason
	next.ExpiresAt = later(e.ExpiresAt, now.Add(point.RetryWindow()))
	told := h.notifications(point, now, failureOf(next, enrollment.ReasonDenied, cmp.Or(reason, "a person has denied the request")))
	err = h.cfg.Store.PutEnrollment(ctx, store.EnrollmentChange{Enrollment: next, Notifications: told, Record: audit.Record{
		Time: now, Action: audit.ActionDeny, Actor: by.Name, Role: by.Role.String(), Source: by.Source, RequestID: requestID, Target: "enrollment/" + e.ID,
		Detail: map[string]string{"reason": reason, "subject": e.Subject, "transaction_id": e.TransactionID},
	}})
	if errors.Is(err, store.ErrStale) {
		return e, decided(err)
	}
	h.wake(len(told) > 0)
	return next, err
}

func (h *Handler) decidable(ctx context.Context, id string) (e pki.Enrollment, point *enrollment.Point, now time.Time, err error) {
	if now, err = h.cfg.Clock.Check(); err != nil {
		return e, nil, now, err
	}
	if e, err = h.cfg.Store.EnrollmentByID(ctx, id); err != nil {
		return e, nil, now, err
	}
	switch {
	case e.State == pki.EnrollmentExpired, e.State == pki.EnrollmentPending && !now.Before(e.ExpiresAt):
		return e, nil, now, fault.New(fault.Conflict, "the request has waited too long; the device has to ask again")
	case e.State != pki.EnrollmentPending:
		return e, nil, now, decided(nil)
	}
	point, err = h.cfg.Points.Point(e.Point)
	return e, point, now, err
}

func decided(cause error) error {
	return fault.Wrap(fault.Conflict, cause, "the request was decided before")
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// expireAtOnce is how many requests that nobody decided on are read at a time.
const expireAtOnce = 100

// Expire ends the requests that have waited for too long: each once, however many replicas do it, with a record in the
// audit trail, and with what the point's webhook is to be told.
func (h *Handler) Expire(ctx context.Context) error {
	now := h.cfg.Clock.Now()
	f := store.EnrollmentFilter{States: []pki.EnrollmentState{pki.EnrollmentPending}, OverAt: now}
	for p := (store.Page{Limit: expireAtOnce}); ; {
		list, next, err := h.cfg.Store.ListEnrollments(ctx, f, p)
		if err != nil {
			return err
		}
		for _, e := range list {
			// Another replica, or the device itself by asking again, may be faster.
			if err := h.expire(ctx, e, now); err != nil && !errors.Is(err, store.ErrStale) {
				return err
			}
		}
		if p.Cursor = next; next == "" {
			return nil
		}
	}
}

// expire ends a request that has waited for too long. ErrStale when it has changed in between.
func (h *Handler) expire(ctx context.Context, e pki.Enrollment, now time.Time) error {
	next := e
	next.Version, next.State, next.UpdatedAt = e.Version+1, pki.EnrollmentExpired, now
	var told []pki.Notification
	if point, err := h.cfg.Points.Point(e.Point); err == nil {
		told = h.notifications(point, now, failureOf(next, enrollment.ReasonExpired, "nobody has decided on the request in time"))
	}
	by := pki.System()
	err := h.cfg.Store.PutEnrollment(ctx, store.EnrollmentChange{Enrollment: next, Notifications: told, Record: audit.Record{
		Time: now, Action: audit.ActionExpire, Actor: by.Name, Role: by.Role.String(), Target: "enrollment/" + e.ID,
		Detail: map[string]string{
			"enrollment_point": e.Point, "why": e.Reason, "subject": e.Subject, "transaction_id": e.TransactionID, "device": e.Device,
			"since": e.CreatedAt.UTC().Format(time.RFC3339),
		},
	}})
	if err != nil {
		return err
	}
	h.wake(len(told) > 0)
	h.log.Info("nobody has decided on a device's request in time", "point", e.Point, "request", e.ID, "subject", e.Subject, "device", e.Device)
	return nil
}

// pruneAtOnce bounds what one transaction forgets.
const pruneAtOnce = 1000

// Prune forgets enrollments that have ended, and how often requests were refused long ago.
func (h *Handler) Prune(ctx context.Context) error {
	now := h.cfg.Clock.Now()
	err := inSteps(func() (int, error) { return h.cfg.Store.PruneEnrollments(ctx, now, pruneAtOnce) })
	return errors.Join(err, inSteps(func() (int, error) {
		return h.cfg.Store.PruneRefusals(ctx, dayOf(now)-store.KeepRefusals, pruneAtOnce)
	}))
}

// inSteps calls step until it finds less than a whole one to do.
func inSteps(step func() (int, error)) error {
	for {
		if n, err := step(); err != nil || n < pruneAtOnce {
			return err
		}
	}
}
