package rest

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/store"
)

// EnrollmentStore is the part of a store that enrollment uses.
type EnrollmentStore interface {
	store.Points
	store.Challenges
	store.Enrollments
	NotificationBacklogs(ctx context.Context) ([]store.NotificationBacklog, error)
	// DevicesByID is that of store.Devices.
	DevicesByID(ctx context.Context, ids []string) (map[string]pki.Device, error)
}

// Decisions settle requests that wait for a person.
type Decisions interface {
	// Approve issues the certificate. Errors are faults: NotFound, Conflict when it was decided before or has waited too
	// long, and those of issuing.
	Approve(ctx context.Context, by pki.Principal, requestID, id string) (pki.Enrollment, error)
	// Deny refuses it, with a reason for the device.
	Deny(ctx context.Context, by pki.Principal, requestID, id, reason string) (pki.Enrollment, error)
}

// RAs are the registration authorities that devices' messages are encrypted to.
type RAs interface {
	// Certificate returns the one in use for an issuer; nil before a device has asked for it.
	Certificate(issuerID int64) *x509.Certificate
	// Rotate gives an issuer's RA a new key.
	Rotate(ctx context.Context, i *issuer.Issuer, by pki.Principal) error
}

// deviceProfile returns a profile, and refuses one that no device can enroll for.
func (a *api) deviceProfile(name string) (*ca.Profile, error) {
	p, err := a.CA.Profile(name)
	if err != nil {
		return nil, err
	}
	if p.IsCA() {
		return nil, fault.New(fault.PolicyRefused, "devices cannot enroll for CA certificates").WithField("profile")
	}
	return p, nil
}

type rotateRAInput struct {
	Issuer string `path:"issuer" doc:"The issuer's name" maxLength:"100"`
}

type raOutput struct{ Body RACertificate }

func (a *api) rotateRA(ctx context.Context, in *rotateRAInput) (*raOutput, error) {
	i, err := a.Issuers.Current().Issuer(in.Issuer)
	if err != nil {
		return nil, err
	}
	if err := auth.MayUse(principal(ctx), i.Name, ""); err != nil {
		return nil, err
	}
	if err := a.RAs.Rotate(ctx, i, principal(ctx)); err != nil {
		return nil, err
	}
	c := a.RAs.Certificate(i.ID)
	return &raOutput{Body: RACertificate{Serial: hex.EncodeToString(c.SerialNumber.Bytes()), NotAfter: c.NotAfter, PEM: string(issuer.EncodePEM(c))}}, nil
}

// wholly refuses principals that are limited: what is asked for is not of one issuer or profile.
func wholly(p pki.Principal) error {
	if len(p.Issuers) > 0 || len(p.Profiles) > 0 {
		return fault.New(fault.Forbidden, "this token is limited to some issuers or profiles, and this is about all")
	}
	return nil
}

// mayDecide refuses principals that are limited to other issuers or profiles than a point's.
func (a *api) mayDecide(ctx context.Context, pointName, profileName string) error {
	point, err := a.Points.Point(pointName)
	if err != nil {
		return wholly(principal(ctx))
	}
	i, err := a.Issuers.Current().Issuer(point.Issuer())
	if err != nil {
		return err
	}
	if profileName == "" {
		profileName = point.Profile()
	}
	return auth.MayUse(principal(ctx), i.Name, profileName)
}

// Enrollment is a device's request that waits, or has waited, for a person, as the API shows it.
type Enrollment struct {
	ID            string    `json:"id"`
	Point         string    `json:"point"`
	State         string    `json:"state" enum:"pending,issued,denied,expired"`
	Subject       string    `json:"subject" doc:"As requested"`
	SANs          []string  `json:"sans"`
	Profile       string    `json:"profile"`
	Device        string    `json:"device,omitempty"`
	Source        string    `json:"source,omitempty" doc:"Network address of the request"`
	TransactionID string    `json:"transaction_id"`
	SPKISHA256    string    `json:"spki_sha256" doc:"SHA-256 of the key's SubjectPublicKeyInfo, to be compared with the device's"`
	Challenge     string    `json:"challenge,omitempty" doc:"Id of the one-time challenge"`
	Replaces      string    `json:"replaces,omitempty" doc:"Id of the certificate that it renews"`
	Certificate   string    `json:"certificate,omitempty" doc:"Id of the certificate that was issued"`
	Reason        string    `json:"reason,omitempty" doc:"Why it waits, or was denied"`
	DecidedBy     string    `json:"decided_by,omitempty"`
	CreatedAt     time.Time `json:"created_at"`
	UpdatedAt     time.Time `json:"updated_at"`
	ExpiresAt     time.Time `json:"expires_at"`
}

// stateExpired is that of a request which has waited for too long.
const stateExpired = "expired"

func (a *api) enrollment(e pki.Enrollment) Enrollment {
	out := Enrollment{
		ID: e.ID, Point: e.Point, State: e.State.String(), Subject: e.Subject, SANs: e.SANs, Profile: e.Profile, Device: e.Device, Source: e.Source,
		TransactionID: e.TransactionID, SPKISHA256: hex.EncodeToString(e.SPKIHash[:]), Challenge: e.Challenge, Reason: e.Reason, DecidedBy: e.DecidedBy,
		CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt, ExpiresAt: e.ExpiresAt,
	}
	if out.SANs == nil {
		out.SANs = []string{}
	}
	if e.Replaces != (pki.Fingerprint{}) {
		out.Replaces = e.Replaces.String()
	}
	if e.Issued != (pki.Fingerprint{}) {
		out.Certificate = e.Issued.String()
	}
	if e.State == pki.EnrollmentPending && !a.Now().Before(e.ExpiresAt) {
		out.State = stateExpired
	}
	return out
}

type listEnrollmentsInput struct {
	Point  string `query:"point" doc:"Of this enrollment point" maxLength:"63"`
	Device string `query:"device" doc:"Of the device with this id" maxLength:"200"`
	State  string `query:"state" enum:"pending,expired,issued,denied" doc:"In this state: pending ones wait, expired ones have waited for too long; absent: all"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Requests on a page"`
	Cursor string `query:"cursor" doc:"As the page before gave it in next" maxLength:"512"`
}

type enrollmentsOutput struct {
	Body struct {
		Enrollments []Enrollment `json:"enrollments"`
		Next        string       `json:"next,omitempty" doc:"Cursor of the next page; absent on the last"`
	}
}

func (a *api) listEnrollments(ctx context.Context, in *listEnrollmentsInput) (*enrollmentsOutput, error) {
	if err := wholly(principal(ctx)); err != nil {
		return nil, err
	}
	done, err := a.searches.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	f := store.EnrollmentFilter{Point: in.Point, Device: in.Device}
	switch in.State {
	case "pending":
		f.States, f.OpenAt = []pki.EnrollmentState{pki.EnrollmentPending}, a.Now()
	case stateExpired:
		f.States, f.OverAt = []pki.EnrollmentState{pki.EnrollmentPending, pki.EnrollmentExpired}, a.Now()
	case "issued":
		f.States = []pki.EnrollmentState{pki.EnrollmentIssued}
	case "denied":
		f.States = []pki.EnrollmentState{pki.EnrollmentDenied}
	}
	list, next, err := a.Enrollments.ListEnrollments(ctx, f, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, err
	}
	out := &enrollmentsOutput{}
	out.Body.Enrollments, out.Body.Next = shown(list, a.enrollment), next
	return out, nil
}

// EnrollmentIDInput names a request that waits, or has waited.
type EnrollmentIDInput struct {
	ID string `path:"id" doc:"The request's id" maxLength:"64"`
}

type enrollmentOutput struct{ Body Enrollment }

func (a *api) getEnrollment(ctx context.Context, in *EnrollmentIDInput) (*enrollmentOutput, error) {
	e, err := a.waiting(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &enrollmentOutput{Body: a.enrollment(e)}, nil
}

func (a *api) approveEnrollment(ctx context.Context, in *EnrollmentIDInput) (*enrollmentOutput, error) {
	e, err := a.waiting(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if e, err = a.Decisions.Approve(ctx, principal(ctx), problem.RequestID(ctx), e.ID); err != nil {
		return nil, err
	}
	return &enrollmentOutput{Body: a.enrollment(e)}, nil
}

type denyEnrollmentInput struct {
	EnrollmentIDInput
	Body struct {
		Reason string `json:"reason,omitempty" doc:"For the device" maxLength:"200"`
	}
}

func (a *api) denyEnrollment(ctx context.Context, in *denyEnrollmentInput) (*enrollmentOutput, error) {
	if err := oneLine("reason", in.Body.Reason); err != nil {
		return nil, err
	}
	e, err := a.waiting(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if e, err = a.Decisions.Deny(ctx, principal(ctx), problem.RequestID(ctx), e.ID, in.Body.Reason); err != nil {
		return nil, err
	}
	return &enrollmentOutput{Body: a.enrollment(e)}, nil
}

// decideAtOnce is how many decisions of one call are made at a time: what is written together is committed together.
const decideAtOnce = 16

type decideEnrollmentsInput struct {
	Body struct {
		Decision string   `json:"decision" enum:"approve,deny"`
		IDs      []string `json:"ids" doc:"Of requests that wait" minItems:"1" maxItems:"500"`
		Reason   string   `json:"reason,omitempty" doc:"With deny: for the devices" maxLength:"200"`
	}
}

// DecidedEnrollment is what became of one of several requests that were decided at once.
type DecidedEnrollment struct {
	ID         string            `json:"id" doc:"As asked for"`
	Enrollment *Enrollment       `json:"enrollment,omitempty" doc:"Absent if it was not decided"`
	Problem    *problem.Document `json:"problem,omitempty" doc:"Why it was not; absent if it was"`
}

type decideEnrollmentsOutput struct {
	Body struct {
		Results []DecidedEnrollment `json:"results" doc:"One for each id, in the order of ids"`
		Decided int                 `json:"decided" doc:"How many were decided"`
	}
}

// decideEnrollments decides on each request by itself: that one cannot be decided holds up no other.
func (a *api) decideEnrollments(ctx context.Context, in *decideEnrollmentsInput) (*decideEnrollmentsOutput, error) {
	if in.Body.Decision == "approve" && in.Body.Reason != "" {
		return nil, fault.New(fault.BadRequest, "a reason goes with deny").WithField("reason")
	}
	if err := oneLine("reason", in.Body.Reason); err != nil {
		return nil, err
	}
	out := &decideEnrollmentsOutput{}
	out.Body.Results = make([]DecidedEnrollment, len(in.Body.IDs))
	turns := make(chan struct{}, decideAtOnce)
	var all sync.WaitGroup
	for i, id := range in.Body.IDs {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			result := &out.Body.Results[i]
			result.ID = id
			e, err := a.waiting(ctx, id)
			switch {
			case err != nil:
			case in.Body.Decision == "approve":
				e, err = a.Decisions.Approve(ctx, principal(ctx), problem.RequestID(ctx), e.ID)
			default:
				e, err = a.Decisions.Deny(ctx, principal(ctx), problem.RequestID(ctx), e.ID, in.Body.Reason)
			}
			if err != nil {
				result.Problem = problem.Of(err)
				if result.Problem.Status == http.StatusInternalServerError {
					a.Logger.ErrorContext(ctx, "a request that waits was not decided", "request", id, "err", err)
				}
				return
			}
			decided := a.enrollment(e)
			result.Enrollment = &decided
		})
	}
	all.Wait()
	for _, r := range out.Body.Results {
		if r.Problem == nil {
			out.Body.Decided++
		}
	}
	return out, nil
}

// waiting returns a request of an issuer and a profile that the principal may use.
func (a *api) waiting(ctx context.Context, id string) (pki.Enrollment, error) {
	e, err := a.Enrollments.EnrollmentByID(ctx, strings.ToUpper(id))
	if err != nil {
		return e, err
	}
	return e, a.mayDecide(ctx, e.Point, e.Profile)
}
