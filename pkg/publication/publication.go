// Package publication notes when revocations become visible: from which moment on this replica's OCSP answers and CRLs say
// what was decided. It tells the times since the decision, for histograms, and writes into the store when the first CRL
// and the first OCSP responder had a revocation (see store.Visibility).
//
// All of it is worked out beside the way of a revocation, from what other parts tell, and nothing waits for it. What was
// decided or published while the process was ending, or in a minute in which the store was away, may never be noted: a
// time that is missing means that it is not known.
package publication

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

const (
	// flushEvery is how long times are gathered, so that both of a revocation are mostly written at once.
	flushEvery = time.Second
	// flushTimeout ends a write whose store does not answer.
	flushTimeout = 15 * time.Second
	// eventPage is how many status events are read at a time.
	eventPage = 1000
	// maxWaiting bounds what is kept of revocations that are on no CRL yet, and of times that cannot be written.
	maxWaiting = 500_000
	// maxMarks is how many lists of a scope are remembered: those that were served before their events were read.
	maxMarks = 64
	// keepOwn is how long a decision made here is remembered while its event has not been read.
	keepOwn = time.Minute
	// slack is how far the clocks of replicas may be apart for a decision to be told from an old one that is repeated.
	slack = 5 * time.Second
)

// Store is the part of a store that is needed.
type Store interface {
	store.Visibility
	StatusEvents(ctx context.Context, after int64, limit int) ([]store.StatusEvent, error)
}

// Config is what a Tracker needs. All but Logger are required.
type Config struct {
	Store Store
	Now   func() time.Time
	// OCSP and CRL are told how long after the decision a revocation was in answers, and on a served CRL of its scope.
	OCSP, CRL func(time.Duration)
	Logger    *slog.Logger // nil discards
}

// Tracker notes. It is safe for concurrent use. Its owner calls Run once, and has Follow told of heads after the responder
// and the publisher of CRLs have been.
type Tracker struct {
	cfg Config

	turn   sync.Mutex // held by Follow
	seen   int64      // guarded by turn; -1 before the first head
	polled time.Time  // guarded by turn: when the last call of Follow that went through began

	mu      sync.Mutex
	own     map[certificate]time.Time // guarded by mu: when answers changed, of decisions made here
	marks   map[scope][]mark          // guarded by mu: newest last
	waiting map[scope][]decision      // guarded by mu: on no CRL here yet, in the order of changes
	waits   int                       // guarded by mu: all of waiting
	due     map[certificate]times     // guarded by mu: to be written
}

type certificate struct {
	issuerKeyID int64
	serial      pki.SerialNumber
}

type scope struct {
	issuerKeyID int64
	name        string
}

// mark says that from an instant on a list that shows a change was served here.
type mark struct {
	change int64
	at     time.Time
	made   bool // here
}

type decision struct {
	certificate
	change  int64
	decided time.Time
}

type times struct{ crl, ocsp time.Time }

// New returns a tracker that has seen nothing.
func New(cfg Config) (*Tracker, error) {
	if cfg.Store == nil || cfg.Now == nil || cfg.OCSP == nil || cfg.CRL == nil {
		return nil, errors.New("publication: incomplete config")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Tracker{
		cfg: cfg, seen: -1, own: map[certificate]time.Time{}, marks: map[scope][]mark{}, waiting: map[scope][]decision{}, due: map[certificate]times{},
	}, nil
}

// Decided says that the status of a certificate was changed by this replica, and that its OCSP answers tell from now on.
func (t *Tracker) Decided(issuerKeyID int64, serial pki.SerialNumber) {
	now := t.cfg.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.own) < maxWaiting {
		t.own[certificate{issuerKeyID, serial}] = now
	}
}

// Served says that a list of this scope, which shows the store's state at a change, is served from now on; made, that this
// replica made it.
func (t *Tracker) Served(issuerKeyID int64, name string, change int64, made bool) {
	m := mark{change, t.cfg.Now(), made}
	at := scope{issuerKeyID, name}
	t.mu.Lock()
	defer t.mu.Unlock()
	marks := t.marks[at]
	if len(marks) > 0 && marks[len(marks)-1].change >= change {
		return
	}
	if len(marks) == maxMarks {
		marks = append(marks[:0:0], marks[1:]...)
	}
	t.marks[at] = append(marks, m)
	waiting := t.waiting[at]
	n := 0
	for n < len(waiting) && waiting[n].change <= change {
		t.onCRL(waiting[n], m)
		n++
	}
	t.waits -= n
	if n == len(waiting) {
		delete(t.waiting, at)
	} else {
		t.waiting[at] = waiting[n:]
	}
}

// onCRL notes that a decision is on a served list. The caller holds mu.
func (t *Tracker) onCRL(d decision, m mark) {
	at := later(m.at, d.decided)
	t.cfg.CRL(at.Sub(d.decided))
	if m.made {
		due := t.due[d.certificate]
		due.crl = at
		t.put(d.certificate, due)
	}
}

// put has times written. The caller holds mu.
func (t *Tracker) put(c certificate, due times) {
	if len(t.due) < maxWaiting {
		t.due[c] = due
	}
}

// later keeps a clock that is a little behind another replica's from putting an effect before its cause.
func later(at, decided time.Time) time.Time {
	if at.Before(decided) {
		return decided
	}
	return at
}

// Follow takes over what was decided, here and elsewhere. It is a watch.Follower.
func (t *Tracker) Follow(ctx context.Context, head store.Head) error {
	t.turn.Lock()
	defer t.turn.Unlock()
	began := t.cfg.Now()
	if t.seen < 0 || head.StatusChange < t.seen {
		t.seen = head.StatusChange
	}
	for t.seen < head.StatusChange {
		events, err := t.cfg.Store.StatusEvents(ctx, t.seen, eventPage)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			t.seen = head.StatusChange
			break
		}
		t.take(events)
		t.seen = max(t.seen, events[len(events)-1].Change)
	}
	t.polled = began
	t.mu.Lock()
	defer t.mu.Unlock()
	for c, at := range t.own {
		if began.Sub(at) > keepOwn {
			delete(t.own, c)
		}
	}
	return nil
}

func (t *Tracker) take(events []store.StatusEvent) {
	now := t.cfg.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range events {
		c := certificate{e.IssuerKeyID, e.Serial}
		at, here := t.own[c]
		delete(t.own, c)
		if e.Revocation == nil {
			delete(t.due, c) // what is good again has no times
			continue
		}
		decided := e.Revocation.RevokedAt
		if decided.Before(t.polled.Add(-slack)) {
			continue // another reason, or a revocation after a hold: seen as not good long since
		}
		if !here {
			at = now
		}
		at = later(at, decided)
		t.cfg.OCSP(at.Sub(decided))
		if here {
			due := t.due[c]
			due.ocsp = at
			t.put(c, due)
		}
		d, list := decision{c, e.Change, decided}, scope{e.IssuerKeyID, e.Scope}
		if e.Scope == pki.ScopeUnknown { // no CRL is that narrow
			list.name = pki.ScopeFull
		}
		if m, ok := t.shown(list, e.Change); ok {
			t.onCRL(d, m)
		} else if t.waits < maxWaiting {
			t.waiting[list] = append(t.waiting[list], d)
			t.waits++
		}
	}
}

// shown returns the first list known that shows a change. The caller holds mu.
func (t *Tracker) shown(at scope, change int64) (mark, bool) {
	for _, m := range t.marks[at] {
		if m.change >= change {
			return m, true
		}
	}
	return mark{}, false
}

// Run writes what is noted until the context ends, and once more then.
func (t *Tracker) Run(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			t.report(t.Flush(context.WithoutCancel(ctx)), &failing)
			return
		case <-tick.C:
			t.report(t.Flush(ctx), &failing)
		}
	}
}

func (t *Tracker) report(err error, failing *bool) {
	if (err != nil) != *failing {
		if *failing = err != nil; *failing {
			t.cfg.Logger.Warn("cannot note when revocations were published; it is tried again", "err", err)
		}
	}
}

// Flush writes what is noted now. What cannot be written stays, unless the store takes nothing any more.
func (t *Tracker) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	for {
		page := t.page()
		if len(page) == 0 {
			return nil
		}
		err := t.cfg.Store.NoteVisible(ctx, page)
		switch {
		case errors.Is(err, store.ErrNotInUse):
			return nil
		case err != nil:
			t.back(page)
			return err
		}
	}
}

// page takes what is due, as much as the store takes at once.
func (t *Tracker) page() []store.Visible {
	t.mu.Lock()
	defer t.mu.Unlock()
	page := make([]store.Visible, 0, min(len(t.due), store.MaxVisible))
	for c, at := range t.due {
		if len(page) == store.MaxVisible {
			break
		}
		page = append(page, store.Visible{IssuerKeyID: c.issuerKeyID, Serial: c.serial, CRLAt: at.crl, OCSPAt: at.ocsp})
		delete(t.due, c)
	}
	return page
}

// back puts a page back that was not written. Times that came meanwhile stay.
func (t *Tracker) back(page []store.Visible) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, v := range page {
		c := certificate{v.IssuerKeyID, v.Serial}
		at := t.due[c]
		if at.crl.IsZero() {
			at.crl = v.CRLAt
		}
		if at.ocsp.IsZero() {
			at.ocsp = v.OCSPAt
		}
		t.put(c, at)
	}
}
