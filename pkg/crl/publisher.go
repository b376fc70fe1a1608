package crl

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// What Config's zero values stand for.
const (
	DefaultInterval   = time.Hour
	DefaultNextUpdate = 7 * 24 * time.Hour
	DefaultCoalesce   = 200 * time.Millisecond
	DefaultBackdate   = 5 * time.Minute
	DefaultLeaseTTL   = 5 * time.Second
)

const (
	leaseName = "crl"

	// maxSleep bounds how long a changed wall clock goes unnoticed: timers run by the monotonic clock.
	maxSleep = 30 * time.Second
	// Failures are retried after firstRetry, then twice as long each time, up to lastRetry.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	// buildTimeout ends a build whose store neither answers nor fails. A million entries take seconds.
	buildTimeout = 5 * time.Minute
	// eventPage is how many status events are read at a time.
	eventPage = 1000
)

// Store is the part of a store that lists are made from and kept in.
type Store interface {
	store.CRLs
	StatusEvents(ctx context.Context, after int64, limit int) ([]store.StatusEvent, error)
	Revocations(ctx context.Context, issuerKeyID int64, scope string) (int64, iterEntries, error)
}

// Config is what a Publisher needs. Store, Issuers, Clock, Leases and Holder are required.
type Config struct {
	Store   Store
	Issuers *issuer.Set
	Clock   *clock.Guard
	Leases  store.Leases
	Holder  string // this replica's name among those that compete for the lease

	Interval   time.Duration // between scheduled lists; 0 means DefaultInterval
	NextUpdate time.Duration // how long verifiers may use a list; 0 means DefaultNextUpdate
	Coalesce   time.Duration // least time between lists that changes ask for; 0 means DefaultCoalesce
	Backdate   time.Duration // how far thisUpdate lies back, for verifiers whose clock is behind; 0 means DefaultBackdate
	LeaseTTL   time.Duration // how long a dead holder blocks the others; 0 means DefaultLeaseTTL

	Logger *slog.Logger // nil discards
}

// Publisher makes lists, when it holds the lease, and serves the newest of each issuer key. It is safe for concurrent
// use. Its owner calls Run once and has Follow told of the store's heads, after the issuers have been.
type Publisher struct {
	cfg  Config
	wake chan struct{} // of capacity 1

	turn       sync.Mutex // held by Follow
	seenCRL    int64      // guarded by turn; -1 before the first head
	seenStatus int64      // guarded by turn; -1 before the first head

	mu        sync.Mutex
	lists     map[string]*list   // guarded by mu; by key id
	bundles   map[string]*Bundle // guarded by mu; by the key ids asked for
	heldUntil time.Time          // guarded by mu; the lease's end, monotonic

	built, failed, stale atomic.Int64
}

// list is what is known of the complete list of one issuer key. All fields are guarded by Publisher.mu.
type list struct {
	loaded    bool       // the store has been asked at least once
	latest    *Published // nil when there is none yet
	change    int64      // the change that latest shows
	scheduled time.Time  // when the newest list that the timer made was made; zero when there is none

	want  int64 // newest status event of this key that was seen
	marks int64 // calls of Dirty
	shown int64 // calls of Dirty that came before the newest list's state was read

	err      error     // of the last try; nil when it succeeded
	failures int       // in a row
	notFor   time.Time // no build before this instant, monotonic
}

// New returns a publisher that has nothing to serve yet.
func New(cfg Config) (*Publisher, error) {
	if cfg.Store == nil || cfg.Issuers == nil || cfg.Clock == nil || cfg.Leases == nil || cfg.Holder == "" {
		return nil, errors.New("crl: incomplete config")
	}
	for _, d := range []struct {
		value *time.Duration
		zero  time.Duration
	}{
		{&cfg.Interval, DefaultInterval},
		{&cfg.NextUpdate, DefaultNextUpdate},
		{&cfg.Coalesce, DefaultCoalesce},
		{&cfg.Backdate, DefaultBackdate},
		{&cfg.LeaseTTL, DefaultLeaseTTL},
	} {
		if *d.value == 0 {
			*d.value = d.zero
		}
		if *d.value < 0 {
			return nil, errors.New("crl: negative duration in config")
		}
	}
	if cfg.NextUpdate <= cfg.Interval {
		return nil, errors.New("crl: NextUpdate must be longer than Interval, or lists end before the next one is made")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Publisher{
		cfg: cfg, wake: make(chan struct{}, 1), seenCRL: -1, seenStatus: -1,
		lists: map[string]*list{}, bundles: map[string]*Bundle{},
	}, nil
}

// Dirty says that the status of a certificate of this issuer key has changed in the store: its list is made anew at
// once. The id is the store's internal one. Another replica's changes are noticed by Follow.
func (p *Publisher) Dirty(issuerKeyID int64) {
	key := p.cfg.Issuers.Current().KeyByInternalID(issuerKeyID)
	if key == nil {
		return // Follow marks it when the issuers have been reloaded
	}
	p.mu.Lock()
	p.list(key.KeyID).marks++
	p.mu.Unlock()
	p.nudge()
}

// Follow takes over what changed in the store up to this head: lists that another replica made, and status events that
// ask for new ones. It is a watch.Follower.
func (p *Publisher) Follow(ctx context.Context, head store.Head) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	snap := p.cfg.Issuers.Current()
	for _, key := range snap.Keys() {
		if head.CRLChange == p.seenCRL && p.isLoaded(key) {
			continue
		}
		if err := p.refresh(ctx, key); err != nil {
			return err
		}
	}
	p.seenCRL = head.CRLChange

	if p.seenStatus < 0 || head.StatusChange < p.seenStatus {
		p.seenStatus = p.oldestShown(head.StatusChange)
	}
	defer p.nudge()
	for p.seenStatus < head.StatusChange {
		events, err := p.cfg.Store.StatusEvents(ctx, p.seenStatus, eventPage)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			p.seenStatus = head.StatusChange
			break
		}
		p.mu.Lock()
		for _, e := range events {
			if key := snap.KeyByInternalID(e.IssuerKeyID); key != nil {
				l := p.list(key.KeyID)
				l.want = max(l.want, e.Change)
			}
			p.seenStatus = max(p.seenStatus, e.Change)
		}
		p.mu.Unlock()
	}
	return nil
}

// oldestShown returns the change from which on status events must be read: what the list that is furthest behind
// shows. An issuer key without a list needs no event to get one.
func (p *Publisher) oldestShown(newest int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lists {
		if l.latest != nil {
			newest = min(newest, l.change)
		}
	}
	return newest
}

// Run makes lists until the context ends, when it holds the lease, and competes for the lease. It returns when nothing
// of it runs any more and the lease is given back.
func (p *Publisher) Run(ctx context.Context) {
	leasing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var lease sync.WaitGroup
	lease.Go(func() { p.keepLease(leasing) })
	defer lease.Wait()
	defer stop()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
		timer.Reset(p.pass(ctx))
	}
}

// keepLease takes the lease and renews it at a third of its time. It gives it back when the context ends.
func (p *Publisher) keepLease(ctx context.Context) {
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.LeaseTTL)
		defer cancel()
		if p.holds() {
			if err := p.cfg.Leases.ReleaseLease(ctx, leaseName, p.cfg.Holder); err != nil {
				p.cfg.Logger.Warn("cannot give the lease for CRLs back; it ends by itself", "err", err)
			}
		}
	}()
	tick := time.NewTicker(p.cfg.LeaseTTL / 3)
	defer tick.Stop()
	failing := false
	for {
		before := p.holds()
		call, cancel := context.WithTimeout(ctx, p.cfg.LeaseTTL)
		asked := time.Now() // the lease began no earlier
		lease, err := p.cfg.Leases.AcquireLease(call, leaseName, p.cfg.Holder, p.cfg.LeaseTTL)
		cancel()
		switch {
		case err == nil:
			p.hold(asked.Add(lease.Remaining))
			if !before {
				p.cfg.Logger.Info("this replica makes the CRLs", "holder", p.cfg.Holder)
				p.nudge()
			}
		case fault.Is(err, fault.Conflict):
			p.hold(time.Time{})
			if before {
				p.cfg.Logger.Info("another replica makes the CRLs", "holder", p.cfg.Holder)
			}
			err = nil
		}
		if ctx.Err() != nil {
			return
		}
		if failing != (err != nil) {
			if failing = err != nil; failing {
				p.cfg.Logger.Error("cannot take the lease for CRLs", "err", err)
			} else {
				p.cfg.Logger.Info("the lease for CRLs can be taken again")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pass makes every list that is due, and returns how long to wait for the next.
func (p *Publisher) pass(ctx context.Context) time.Duration {
	wait := maxSleep
	for _, key := range p.cfg.Issuers.Current().Keys() {
		if !p.holds() {
			return wait
		}
		if !p.isLoaded(key) {
			if w := p.waiting(key); w > 0 {
				wait = min(wait, w)
				continue
			}
			if err := p.refresh(ctx, key); err != nil {
				wait = min(wait, p.fail(ctx, key, err))
				continue
			}
		}
		if due, scheduled, w := p.due(key); !due {
			wait = min(wait, w)
		} else {
			wait = min(wait, p.make(ctx, key, scheduled))
		}
		if ctx.Err() != nil {
			return wait
		}
	}
	return wait
}

// due tells whether the key's list must be made now, whether the timer asks for it, and else how long to wait.
func (p *Publisher) due(key *issuer.Key) (due, scheduled bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.list(key.KeyID)
	wait = p.cfg.Interval
	if l.latest != nil && !l.scheduled.IsZero() {
		wait = min(wait, p.cfg.Interval-p.cfg.Clock.Now().Sub(l.scheduled))
	} else {
		wait = 0
	}
	scheduled = wait <= 0
	if !scheduled && !l.dirty() {
		return false, false, wait
	}
	if w := time.Until(l.notFor); w > 0 {
		return false, false, w
	}
	return true, scheduled, 0
}

// dirty reports whether a certificate's status changed after the state that the newest list shows.
func (l *list) dirty() bool { return l.want > l.change || l.marks > l.shown }

// make makes the key's list, and returns how long to leave it alone.
func (p *Publisher) make(ctx context.Context, key *issuer.Key, scheduled bool) time.Duration {
	p.mu.Lock()
	l := p.list(key.KeyID)
	marks, recovered := l.marks, l.failures > 0
	p.mu.Unlock()

	began := time.Now()
	call, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	made, err := p.build(call, key, scheduled)
	for try := 0; try < 2 && errors.Is(err, store.ErrStale); try++ {
		// Another replica was faster: the lease has passed on, or this one's renewal is late. Its list may show all
		// that ours would have; if not, there is a next number.
		p.stale.Add(1)
		if err = p.refresh(call, key); err != nil {
			break
		}
		var due bool
		if due, scheduled, _ = p.due(key); !due {
			return 0
		}
		made, err = p.build(call, key, scheduled)
	}
	if err != nil {
		return p.fail(ctx, key, err)
	}
	p.publish(key, made)
	p.built.Add(1)

	took := time.Since(began)
	pause := max(p.cfg.Coalesce, took)
	p.mu.Lock()
	l.shown = max(l.shown, marks)
	l.notFor = time.Now().Add(pause)
	dirty := l.dirty()
	p.mu.Unlock()

	level := slog.LevelDebug
	if scheduled || recovered {
		level = slog.LevelInfo
	}
	p.cfg.Logger.Log(ctx, level, "CRL published", "issuer", key.Issuer.Name, "key", key.KeyID, "number", made.Number,
		"entries", made.Entries, "scheduled", scheduled, "took", took)
	if dirty {
		return pause
	}
	return p.cfg.Interval
}

// fail notes a failed try and returns when the next one is due. The mark that asked for the list stays.
func (p *Publisher) fail(ctx context.Context, key *issuer.Key, err error) time.Duration {
	if ctx.Err() != nil {
		return maxSleep // the process ends
	}
	p.failed.Add(1)
	p.mu.Lock()
	l := p.list(key.KeyID)
	delay := min(firstRetry<<min(l.failures, 10), lastRetry)
	first := l.failures == 0
	l.err, l.failures, l.notFor = err, l.failures+1, time.Now().Add(delay)
	p.mu.Unlock()
	if first {
		p.cfg.Logger.Error("cannot make a CRL; the last one is served, and it is tried again",
			"issuer", key.Issuer.Name, "key", key.KeyID, "err", err)
	}
	return delay
}

// refresh takes the key's newest list over from the store, if that is newer than what is served.
func (p *Publisher) refresh(ctx context.Context, key *issuer.Key) error {
	next, err := p.nextNumber(ctx, key)
	if err != nil {
		return err
	}
	if at := p.latest(key); at != nil && next == at.Number+1 {
		return nil
	}
	_, err = p.load(ctx, key)
	return err
}

// load reads the key's newest lists and serves them. It returns nil when there is none yet.
func (p *Publisher) load(ctx context.Context, key *issuer.Key) (*Published, error) {
	var scheduled time.Time
	switch s, err := p.cfg.Store.LatestScheduledCRL(ctx, key.ID, pki.ScopeFull); {
	case err == nil:
		scheduled = s.CreatedAt
	case !fault.Is(err, fault.NotFound):
		return nil, err
	}
	c, err := p.cfg.Store.LatestCRL(ctx, key.ID, pki.ScopeFull)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	var stored *Published
	if err == nil {
		stored = newPublished(key.KeyID, c, p.cfg.Backdate)
		p.publish(key, stored)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.list(key.KeyID)
	l.loaded = true
	if scheduled.After(l.scheduled) {
		l.scheduled = scheduled
	}
	return stored, nil
}

// publish serves a list that the store holds, unless a newer one is served already.
func (p *Publisher) publish(key *issuer.Key, made *Published) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.list(key.KeyID)
	l.loaded = true
	if l.latest == nil || made.Number > l.latest.Number {
		l.latest, l.change = made, made.Change
		l.err, l.failures = nil, 0 // it was made, whoever did it
	}
	if made.Scheduled && made.CreatedAt.After(l.scheduled) {
		l.scheduled = made.CreatedAt
	}
}

// list returns what is known of a key's list. The caller holds mu.
func (p *Publisher) list(keyID string) *list {
	l := p.lists[keyID]
	if l == nil {
		l = &list{}
		p.lists[keyID] = l
	}
	return l
}

func (p *Publisher) isLoaded(key *issuer.Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list(key.KeyID).loaded
}

func (p *Publisher) latest(key *issuer.Key) *Published {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list(key.KeyID).latest
}

func (p *Publisher) waiting(key *issuer.Key) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.list(key.KeyID).notFor)
}

func (p *Publisher) holds() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.heldUntil)
}

func (p *Publisher) hold(until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heldUntil = until
}

func (p *Publisher) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
