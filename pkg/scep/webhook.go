package scep

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/webhook"
)

// Failures that webhooks are told of come from requests that something has authorised; all the same, devices that try again
// and again must not fill the store.
const (
	failureNotesPerSecond = 10
	failureNotesBurst     = 1000
)

// hooks counts what webhooks have said.
type hooks struct {
	limit *rate.Limiter // of failures to tell

	mu     sync.Mutex
	counts map[WebhookCount]int64 // guarded by mu
	left   int64                  // failures that were not told since the last one that was; guarded by mu
}

// WebhookCount names how often a webhook has said the same.
type WebhookCount struct {
	Point   string
	Outcome string // "allow", "deny", "pending", or the webhook.Cause of there being no answer
}

// The outcomes that are no decisions and no causes.
const (
	hookUnusable = "unusable" // the answer names what cannot be
	hookSecret   = "no-secret"
)

func (h *hooks) add(point, outcome string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counts == nil {
		h.counts = map[WebhookCount]int64{}
	}
	h.counts[WebhookCount{point, outcome}]++
}

// Webhooks returns how often each point's webhook has said what, since the process started.
func (h *Handler) Webhooks() map[WebhookCount]int64 {
	h.hooks.mu.Lock()
	defer h.hooks.mu.Unlock()
	return maps.Clone(h.hooks.counts)
}

// turn is a message's place among those that are processed at a time. It is not safe for concurrent use.
type turn struct {
	turns chan struct{}
	held  bool
}

// take waits for a place; it is false when the context ends before.
func (t *turn) take(ctx context.Context) bool {
	select {
	case t.turns <- struct{}{}:
		t.held = true
	case <-ctx.Done():
	}
	return t.held
}

func (t *turn) give() {
	if t.held {
		t.held = false
		<-t.turns
	}
}

// busyRetry is when a device may try again whose request a webhook has no time for.
const busyRetry = 5 * time.Second

// ask has the point's webhook decide. Without an answer it has refused; the error is a fault that has the device try again,
// or of the store. The webhook is asked once about a message, however often it is decided on.
func (t *transaction) ask(request *csr.Request, facts *enrollment.Facts, v enrollment.Verdict) (enrollment.WebhookAnswer, error) {
	if t.said != nil {
		return *t.said, nil
	}
	event, err := t.event(request, facts, v)
	if err != nil {
		return enrollment.WebhookAnswer{}, err
	}
	// A webhook may be slow: others go on meanwhile.
	t.turn.give()
	said, err := t.point.AskWebhook(t.ctx, event)
	if !t.turn.take(t.ctx) {
		return enrollment.WebhookAnswer{}, fault.New(fault.Unavailable, "too many requests at a time").WithRetryAfter(busyRetry)
	}
	answer, outcome := answerOf(said, err)
	t.h.hooks.add(t.point.Name(), outcome)
	if outcome == string(webhook.CauseBusy) {
		return answer, fault.Wrap(fault.Unavailable, err, "too many requests at a time").WithRetryAfter(busyRetry)
	}
	if answer.Allow {
		answer.Event = event.ID
	}
	if err != nil {
		t.h.log.Warn("a webhook has not decided: the request is refused", "point", t.point.Name(), "event", event.ID, "cause", outcome, "err", err, "behind", errors.Unwrap(err),
			"transaction_id", t.request.TransactionID, "source", t.source, "request_id", t.id)
	} else {
		t.h.log.Info("a webhook has decided", "point", t.point.Name(), "event", event.ID, "decision", outcome, "text", answer.Text,
			"transaction_id", t.request.TransactionID, "source", t.source, "request_id", t.id)
	}
	t.said = &answer
	return answer, nil
}

// answerOf makes facts of what a webhook has said, and a word for counts. What cannot be used is a refusal.
func answerOf(said webhook.Answer, err error) (answer enrollment.WebhookAnswer, outcome string) {
	if failure, ok := errors.AsType[*webhook.Error](err); ok {
		return enrollment.WebhookAnswer{Text: failure.Error()}, string(failure.Cause)
	}
	if err != nil {
		return enrollment.WebhookAnswer{Text: fault.Public(err).Detail}, hookSecret
	}
	reason := cmp.Or(said.Reason, "it gave no reason")
	if said.Decision == webhook.Deny {
		return enrollment.WebhookAnswer{Text: reason}, string(webhook.Deny)
	}
	if said.Device != "" {
		if err := enrollment.CheckDeviceID(said.Device); err != nil {
			return enrollment.WebhookAnswer{Text: "it names a device that cannot be: " + err.Error()}, hookUnusable
		}
	}
	if _, err := enrollment.ParseBinding("the webhook", said.Subject, said.SANs); err != nil {
		return enrollment.WebhookAnswer{Text: "it gives names that cannot be: " + fault.Public(err).Detail}, hookUnusable
	}
	answer = enrollment.WebhookAnswer{
		Allow: true, Device: said.Device, Group: said.Group, Subject: said.Subject, SANs: said.SANs, Validity: time.Duration(said.Validity),
	}
	if said.Decision == webhook.Pending {
		answer.Pending, answer.Text = true, reason
	}
	return answer, string(said.Decision)
}

// The kinds of challenges, as webhooks are told.
const (
	challengeNone    = "none"
	challengeUnknown = "unknown" // none that is accepted here, as of devices that send their first one for ever
)

// event describes a request to the point's webhook. A challenge that is not the webhook's is not for it to see, nor is the
// request that holds it.
func (t *transaction) event(request *csr.Request, facts *enrollment.Facts, v enrollment.Verdict) (webhook.Event, error) {
	subject, sans := asked(request)
	e := webhook.Event{
		ID: rand.Text()[:16], Time: t.now, Protocol: Protocol, TransactionID: t.request.TransactionID, Source: t.source,
		Request: &webhook.Request{
			Message: known(t.request.MessageType), Key: request.KeyAlgorithm.String(), Subject: subject, SANs: notNil(sans), Profile: t.point.Profile(),
			PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: request.SPKI})), ChallengeKind: challengeUnknown,
		},
	}
	text := strings.TrimSpace(request.ChallengePassword.Reveal())
	switch r := e.Request; {
	case text == "":
		r.ChallengeKind = challengeNone
	case facts.OneTime != nil || facts.WrongSecret:
		r.ChallengeKind = string(enrollment.ChallengeOneTime)
		if c := facts.OneTime; c != nil && c.Profile != "" {
			r.Profile = c.Profile
		}
	case facts.Static:
		r.ChallengeKind = string(enrollment.ChallengeStatic)
	case facts.Challenge && t.point.Accepts(enrollment.ChallengeWebhook):
		r.ChallengeKind, r.Challenge = string(enrollment.ChallengeWebhook), text
	}
	if text == "" || e.Request.Challenge != "" {
		e.Request.CSR = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request.DER}))
	}
	device := v.Device
	if s := facts.Signer; s != nil && !s.Void {
		device = cmp.Or(device, s.Device)
		e.Renews = certificateOf(*s.Certificate)
	}
	if device == "" {
		device, _ = t.point.DeviceIn(request.Subject, request.SANs) // the verdict says what is wrong with it
	}
	if device == "" {
		return e, nil
	}
	if _, known := facts.Devices[device]; !known {
		if err := t.h.lookUpDevice(t.ctx, facts, device); err != nil {
			return e, err
		}
	}
	e.Device = &webhook.Device{ID: device}
	if d := facts.Devices[device]; d != nil {
		*e.Device = webhook.Device{ID: device, Registered: true, Status: d.Status.String(), Group: d.Group, Owner: d.Owner, Labels: d.Labels}
	}
	return e, nil
}

func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func certificateOf(c pki.Certificate) *webhook.Certificate {
	return &webhook.Certificate{
		Serial: c.Serial.String(), Fingerprint: c.Fingerprint.String(), Subject: c.Subject, SANs: notNil(c.SANs), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
}

// introduce has the registry know a device whose group the webhook has told, before its first certificate.
func (h *Handler) introduce(ctx context.Context, facts *enrollment.Facts, v enrollment.Verdict, by pki.Principal, requestID string) error {
	w := facts.Webhook
	if w == nil || !w.Allow || w.Group == "" || v.Device == "" || facts.Devices[v.Device] != nil {
		return nil
	}
	d := pki.Device{
		ID: v.Device, Version: 1, Status: pki.DeviceExpected, Group: w.Group, CreatedAt: facts.Now, CreatedBy: by.Name, ChangedAt: facts.Now, ChangedBy: by.Name,
	}
	err := h.cfg.Store.CreateDevices(ctx, []pki.Device{d}, audit.Record{
		Time: facts.Now, Action: audit.ActionDevice, Actor: by.Name, Role: by.Role.String(), Source: by.Source, RequestID: requestID, Target: "device/" + d.ID,
		Detail: map[string]string{"group": d.Group, "webhook": w.Event, "enrollment_point": facts.Point.Name()},
	})
	if fault.Is(err, fault.Conflict) { // it has come into the registry meanwhile
		return nil
	}
	return err
}

// decisionOf returns the id under which a webhook was asked about an enrollment; empty if it was not.
func decisionOf(e pki.Enrollment) string {
	w, err := enrollment.ParseOverrides(e.Overrides)
	if err != nil || w == nil {
		return ""
	}
	return w.Event
}

func aboutEnrollment(kind string, e pki.Enrollment, device string) webhook.Event {
	about := webhook.Event{Type: kind, Protocol: Protocol, TransactionID: e.TransactionID, Source: e.Source, Decision: decisionOf(e)}
	if device = cmp.Or(device, e.Device); device != "" {
		about.Device = &webhook.Device{ID: device}
	}
	return about
}

// successOf tells of a certificate.
func successOf(e pki.Enrollment, device string, c pki.Certificate) webhook.Event {
	about := aboutEnrollment(webhook.TypeSuccess, e, device)
	about.Certificate = certificateOf(c)
	about.Certificate.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER}))
	return about
}

// failureOf tells of a request that waited, and got nothing.
func failureOf(e pki.Enrollment, reason enrollment.Reason, detail string) webhook.Event {
	about := aboutEnrollment(webhook.TypeFailure, e, "")
	about.Reason, about.Detail = string(reason), clean(detail)
	return about
}

// notifications returns what the point's webhook is to be told of an event: one, or none if it is not for it.
func (h *Handler) notifications(point *enrollment.Point, now time.Time, e webhook.Event) []pki.Notification {
	n, err := point.Notification(now, e)
	if err != nil { // of text and times alone, it does not come about
		h.log.Error("a webhook cannot be told", "point", point.Name(), "type", e.Type, "err", err)
	}
	if n == nil {
		return nil
	}
	return []pki.Notification{*n}
}

// wake has notifications delivered at once, if there are any.
func (h *Handler) wake(told bool) {
	if told && h.cfg.Notifier != nil {
		h.cfg.Notifier.Wake()
	}
}

// tellFailure has the point's webhook told of a refusal, when the request was authorised: what strangers send is not for
// it. Its own refusals it knows.
func (t *transaction) tellFailure(r *refusal) {
	allowed := t.said != nil && t.said.Allow
	if t.contact.key == "" || r.reason == enrollment.ReasonWebhook || r.text == textRefused && !allowed {
		return
	}
	e := webhook.Event{Type: webhook.TypeFailure, Protocol: Protocol, TransactionID: t.request.TransactionID, Source: t.source, Reason: string(r.reason), Detail: clean(r.text)}
	if r.cause != nil && r.text == textRefused {
		e.Detail = clean(r.cause.Error())
	}
	if allowed {
		e.Decision = t.said.Event
	}
	if device := cmp.Or(t.device, t.signerDevice()); device != "" {
		e.Device = &webhook.Device{ID: device}
	}
	if t.own != nil {
		e.Renews = certificateOf(*t.own)
	}
	told := t.h.notifications(t.point, t.now, e)
	if len(told) == 0 {
		return
	}
	h := &t.h.hooks
	if !h.limit.Allow() {
		h.mu.Lock()
		h.left++
		h.mu.Unlock()
		return
	}
	h.mu.Lock()
	left := h.left
	h.left = 0
	h.mu.Unlock()
	if left > 0 {
		t.h.log.Warn("webhooks were not told of failures: there were too many", "number", left)
	}
	if err := t.h.cfg.Store.PutNotifications(t.ctx, told); err != nil {
		t.h.log.Warn("a webhook will not be told of a failure", "point", t.point.Name(), "request_id", t.id, "err", err)
		return
	}
	t.h.wake(true)
}

func (t *transaction) signerDevice() string {
	if t.own == nil {
		return ""
	}
	return t.own.Device
}
