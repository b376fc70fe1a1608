package scep

import (
	"context"
	"sync"
	"time"

	"github.com/certwright/certwright/pkg/cms"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// What is noted of devices and refusals is collected, and written a few seconds later, all at once.
const (
	noteEvery = 2 * time.Second
	// maxContacts bounds what is collected while the store is slow or away; what is beyond it is not noted.
	maxContacts = 20_000
	// lastNotes is how long the last writing may take when the server ends.
	lastNotes = 5 * time.Second
	// maxFailure is how many octets of a reason are noted.
	maxFailure = 300
)

// RefusalKey is what refusals are counted by. Kind is "enroll", "renew", "poll" or "get".
type RefusalKey struct {
	Point, Kind string
	Reason      enrollment.Reason
}

// notes collects sightings of devices and counts of refusals. The zero value is ready, and safe for concurrent use.
type notes struct {
	mu       sync.Mutex
	contacts []store.Contact      // guarded by mu, as all below
	left     int                  // contacts that were left out
	refusals map[noteKey]int64    // not written yet
	total    map[RefusalKey]int64 // since the process started
}

type noteKey struct {
	RefusalKey
	day int // since 1970-01-01, UTC
}

func (n *notes) contact(c store.Contact) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.contacts) >= maxContacts {
		n.left++
		return
	}
	n.contacts = append(n.contacts, c)
}

func (n *notes) refusal(k RefusalKey, at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.total == nil {
		n.total, n.refusals = map[RefusalKey]int64{}, map[noteKey]int64{}
	}
	n.total[k]++
	n.refusals[noteKey{k, dayOf(at)}]++
}

// dayOf returns the day since 1970-01-01, in UTC.
func dayOf(at time.Time) int { return int(at.Unix() / (24 * 60 * 60)) }

// take returns what was collected, and how many contacts were left out, and begins anew.
func (n *notes) take() (contacts []store.Contact, refusals []store.Refusal, left int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, number := range n.refusals {
		refusals = append(refusals, store.Refusal{Day: k.day, Point: k.Point, Kind: k.Kind, Reason: string(k.Reason), Number: number})
	}
	clear(n.refusals)
	contacts, n.contacts, left, n.left = n.contacts, nil, n.left, 0
	return contacts, refusals, left
}

// putBack keeps what could not be written, as far as there is room.
func (n *notes) putBack(contacts []store.Contact, refusals []store.Refusal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range refusals {
		n.refusals[noteKey{RefusalKey{r.Point, r.Kind, enrollment.Reason(r.Reason)}, r.Day}] += r.Number
	}
	if room := maxContacts - len(n.contacts); len(contacts) > room {
		n.left += len(contacts) - room
		contacts = contacts[len(contacts)-room:]
	}
	n.contacts = append(contacts, n.contacts...)
}

// Run writes down what was seen of devices, every few seconds and once more at the end, until ctx ends.
func (h *Handler) Run(ctx context.Context) {
	ticker := time.NewTicker(noteEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			h.Flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastNotes)
			defer cancel()
			h.Flush(last)
			return
		}
	}
}

// Flush writes down what was seen of devices since the last time. What cannot be written now is kept for the next one.
func (h *Handler) Flush(ctx context.Context) {
	contacts, refusals, left := h.notes.take()
	if left > 0 {
		h.log.Warn("sightings of devices were left out: the store is too slow for them", "number", left)
	}
	if len(contacts) == 0 && len(refusals) == 0 {
		return
	}
	if err := h.cfg.Store.NoteContacts(ctx, contacts, refusals); err != nil {
		h.notes.putBack(contacts, refusals)
		h.log.Warn("sightings of devices were not written yet", "number", len(contacts), "err", err)
	}
}

// Refusals returns how many requests were refused since the process started, by point, kind and reason.
func (h *Handler) Refusals() map[RefusalKey]int64 {
	h.notes.mu.Lock()
	defer h.notes.mu.Unlock()
	out := make(map[RefusalKey]int64, len(h.notes.total))
	for k, n := range h.notes.total {
		out[k] = n
	}
	return out
}

// refuse counts a refusal of a message that was not looked into.
func (h *Handler) refuse(point *enrollment.Point, reason enrollment.Reason) {
	h.notes.refusal(RefusalKey{point.Name(), "enroll", reason}, h.cfg.Clock.Now())
}

// contact is what is noted of a message beside what the transaction has anyway.
type contact struct {
	key       string // of the request
	userAgent string
	known     *pki.Device // the device's record, as it was read
	issued    bool        // the issuance has noted the device already
}

// kind returns what the message is, for counts.
func (t *transaction) kind() string {
	switch t.request.MessageType {
	case cms.CertPoll:
		return "poll"
	case cms.GetCert, cms.GetCRL:
		return "get"
	}
	if t.own != nil {
		return "renew"
	}
	return "enroll"
}

// note takes down what became of the message. r is nil when it was not refused.
func (t *transaction) note(r *refusal) {
	if r != nil {
		t.h.notes.refusal(RefusalKey{t.point.Name(), t.kind(), r.reason}, t.now)
	}
	device := t.device
	if device == "" && t.own != nil {
		device = t.own.Device
	}
	if device == "" {
		return
	}
	t.device = device
	c := t.sighting(r)
	if d := t.contact.known; r == nil && t.contact.issued && d != nil && d.ID == device && d.Protocol == c.Protocol {
		return // the issuance has noted the rest
	}
	t.h.notes.contact(c)
}

func (t *transaction) sighting(r *refusal) store.Contact {
	c := store.Contact{
		Device: t.device, At: t.now, Source: t.source, Point: t.point.Name(), Renewal: t.kind() == "renew",
		Protocol: pki.DeviceProtocol{
			Message: known(t.request.MessageType), Digest: t.request.Digest().String(), Key: t.contact.key, UserAgent: clean(cut(t.contact.userAgent, 200)),
		},
	}
	if c.Protocol.Key == "" { // no request: the key that signs
		if a, err := keys.AlgorithmOf(t.signer.PublicKey); err == nil {
			c.Protocol.Key = a.String()
		}
	}
	if t.envelope != nil {
		c.Protocol.Cipher, c.Protocol.KeyTransport = t.envelope.Cipher.String(), t.envelope.KeyTransport(t.by.recipient).String()
	}
	if r != nil {
		why := r.text
		if r.cause != nil {
			why = r.cause.Error()
		}
		c.Failure = clean(cut(string(r.reason)+": "+why, maxFailure))
	}
	return c
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
