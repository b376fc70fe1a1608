package publication_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/publication"
	"github.com/certwright/certwright/pkg/store"
)

// env is a store with a CA, and trackers on it which stand for replicas.
type env struct {
	*certtest.Hierarchy
	t     *testing.T
	store store.Store
}

func setup(t *testing.T) *env {
	t.Helper()
	e := &env{t: t, store: certtest.SQLite(t)}
	e.Hierarchy = certtest.Setup(t, e.store, time.Now())
	return e
}

// replica is a tracker with what it has told.
type replica struct {
	*publication.Tracker
	e *env

	mu        sync.Mutex
	crl, ocsp []time.Duration
}

// told returns what was told since the last call.
func (r *replica) told() (crl, ocsp []time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	crl, ocsp = r.crl, r.ocsp
	r.crl, r.ocsp = nil, nil
	return crl, ocsp
}

func (e *env) replica(edit ...func(*publication.Config)) *replica {
	e.t.Helper()
	r := &replica{e: e}
	keep := func(list *[]time.Duration) func(time.Duration) {
		return func(d time.Duration) {
			r.mu.Lock()
			defer r.mu.Unlock()
			*list = append(*list, d)
		}
	}
	cfg := publication.Config{Store: e.store, Now: func() time.Time { return time.Now().UTC() }, CRL: keep(&r.crl), OCSP: keep(&r.ocsp)}
	for _, f := range edit {
		f(&cfg)
	}
	var err error
	if r.Tracker, err = publication.New(cfg); err != nil {
		e.t.Fatal(err)
	}
	r.follow()
	return r
}

// follow tells a replica of the store's head, as its watcher does.
func (r *replica) follow() {
	r.e.t.Helper()
	head, err := r.e.store.Head(r.e.t.Context())
	if err == nil {
		err = r.Follow(r.e.t.Context(), head)
	}
	if err != nil {
		r.e.t.Fatal(err)
	}
}

func (e *env) head() int64 {
	e.t.Helper()
	head, err := e.store.Head(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	return head.Change
}

// change changes a certificate's status now. certtest cuts to whole seconds.
func (e *env) change(c pki.Certificate, a pki.Action) {
	e.t.Helper()
	certtest.Change(e.t, e.store, c, a, pki.Superseded, time.Now())
}

func (e *env) issue() pki.Certificate {
	e.t.Helper()
	return e.Issuing.Stub(e.t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
}

func (e *env) want(what string, c pki.Certificate, crl, ocsp time.Time) {
	e.t.Helper()
	got, err := e.store.Certificate(e.t.Context(), c.Fingerprint)
	if err != nil {
		e.t.Fatal(err)
	}
	if !got.FirstCRLAt.Equal(crl) || !got.FirstOCSPAt.Equal(ocsp) {
		e.t.Errorf("%s: on a CRL at %v and in OCSP at %v, want %v and %v", what, got.FirstCRLAt, got.FirstOCSPAt, crl, ocsp)
	}
}

func equal(t *testing.T, what string, got []time.Duration, want ...time.Duration) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: %v, want %v", what, got, want)
			return
		}
	}
}

// TestTracker has one replica revoke and make the CRLs, and another follow.
func TestTracker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := setup(t)
		a, b := e.replica(), e.replica()
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // certtest cuts to seconds
		const ms = time.Millisecond

		c := e.issue()
		e.change(c, pki.ActionRevoke)
		time.Sleep(10 * ms)
		a.Decided(c.IssuerKeyID, c.Serial)
		ocsp := time.Now()
		time.Sleep(40 * ms)
		a.Served(c.IssuerKeyID, pki.ScopeFull, e.head(), true) // before its watcher has heard of the change
		onCRL := time.Now()
		time.Sleep(50 * ms)
		a.follow()
		crls, answers := a.told()
		equal(t, "the decider's CRL", crls, 50*ms)
		equal(t, "the decider's OCSP", answers, 10*ms)
		b.follow()
		crls, answers = b.told()
		equal(t, "the other's CRL, not yet", crls)
		equal(t, "the other's OCSP", answers, 100*ms)
		time.Sleep(50 * ms)
		b.Served(c.IssuerKeyID, pki.ScopeFull, e.head(), false)
		crls, _ = b.told()
		equal(t, "the other's CRL", crls, 150*ms)

		e.want("before it is written", c, time.Time{}, time.Time{})
		for _, r := range []*replica{b, a} { // the follower has nothing to write
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		e.want("written", c, onCRL, ocsp)

		// A list of another scope, or of an earlier state, does not show it.
		c = e.issue()
		before := e.head()
		e.change(c, pki.ActionHold)
		a.follow()
		a.told()
		a.Served(c.IssuerKeyID, "2/1", e.head(), true)
		a.Served(c.IssuerKeyID, pki.ScopeFull, before, true)
		crls, _ = a.told()
		equal(t, "lists that do not show it", crls)
		time.Sleep(time.Second)
		a.Served(c.IssuerKeyID, pki.ScopeFull, e.head(), true)
		if crls, _ = a.told(); len(crls) != 1 || crls[0] < time.Second {
			t.Errorf("the list that shows it: %v", crls)
		}

		// A hold that becomes a revocation later was seen before, and a release has no time.
		time.Sleep(time.Minute)
		a.follow()
		a.told()
		e.change(c, pki.ActionRevoke)
		a.follow()
		if crls, answers := a.told(); len(crls)+len(answers) != 0 {
			t.Errorf("a hold that became a revocation: %v, %v", crls, answers)
		}
		c = e.issue()
		e.change(c, pki.ActionHold)
		a.Decided(c.IssuerKeyID, c.Serial)
		a.follow()
		e.change(c, pki.ActionRelease)
		a.follow()
		if err := a.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.want("released", c, time.Time{}, time.Time{})
	})
}

// broken is a store that cannot write for a while.
type broken struct {
	store.Store
	mu  sync.Mutex
	err error
}

func (b *broken) NoteVisible(ctx context.Context, all []store.Visible) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	return b.Store.NoteVisible(ctx, all)
}

// TestRun writes thousands, also after the store was away, and gives up on one that is out of use.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := setup(t)
		s := &broken{Store: e.store, err: errors.New("away")}
		a := e.replica(func(c *publication.Config) { c.Store = s })
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { a.Run(ctx) })
		var all []pki.Certificate
		for range store.MaxVisible + 500 {
			c := e.issue()
			e.change(c, pki.ActionRevoke)
			a.Decided(c.IssuerKeyID, c.Serial)
			all = append(all, c)
		}
		a.follow()
		a.Served(all[0].IssuerKeyID, pki.ScopeFull, e.head(), true)
		at := time.Now()
		time.Sleep(5 * time.Second)
		e.want("while the store is away", all[7], time.Time{}, time.Time{})
		s.mu.Lock()
		s.err = nil
		s.mu.Unlock()
		time.Sleep(5 * time.Second)
		for _, i := range []int{0, 7, len(all) - 1} {
			got, err := e.store.Certificate(t.Context(), all[i].Fingerprint)
			if err != nil || !got.FirstCRLAt.Equal(at) || got.FirstOCSPAt.IsZero() {
				t.Errorf("certificate %d: on a CRL at %v, want %v; in OCSP at %v, %v", i, got.FirstCRLAt, at, got.FirstOCSPAt, err)
			}
		}
		// What is due at the end is written.
		c := e.issue()
		e.change(c, pki.ActionRevoke)
		a.Decided(c.IssuerKeyID, c.Serial)
		a.follow()
		cancel()
		running.Wait()
		if got, err := e.store.Certificate(t.Context(), c.Fingerprint); err != nil || got.FirstOCSPAt.IsZero() {
			t.Errorf("at the end: %+v, %v", got, err)
		}
		s.err = store.ErrNotInUse
		d := e.issue()
		e.change(d, pki.ActionRevoke)
		a.Decided(d.IssuerKeyID, d.Serial)
		a.follow()
		if err := a.Flush(t.Context()); err != nil {
			t.Errorf("a store that is out of use: %v", err)
		}
	})
}
