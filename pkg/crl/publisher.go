package crl

import (
	"context"
	"errors"
	"log/slog"
	"slices"
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
	DefaultCoalesce   = 500 * time.Millisecond
	DefaultBackdate   = 5 * time.Minute
	DefaultLeaseTTL   = 2 * time.Second
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
	Head(ctx context.Context) (store.Head, error)
	StatusEvents(ctx context.Context, after int64, limit int) ([]store.StatusEvent, error)
	Revocations(ctx context.Context, issuerKeyID int64, scope string) (int64, iterEntries, error)
	ListCRLAddress(ctx context.Context, issuerKeyID int64, set, url string, at time.Time) error
}

// Config is what a Publisher needs. Store, Issuers, Clock, Leases and Holder are required.
type Config struct {
	Store   Store
	Issuers *issuer.Set
	Clock   *clock.Guard
	Leases  store.Leases
	Holder  string // this replica's name among those that compete for the lease
	// PublicURL is where lists are published, without a slash at its end: the addresses of delta lists begin with it. Empty:
	// complete lists do not say where those are.
	PublicURL string

	// What issuers' settings leave open.
	Interval   time.Duration // between scheduled lists; 0 means DefaultInterval
	NextUpdate time.Duration // how long verifiers may use a list; 0 means DefaultNextUpdate
	Coalesce   time.Duration // least time between lists that changes ask for; 0 means DefaultCoalesce
	Backdate   time.Duration // how far thisUpdate lies back, for verifiers whose clock is behind; 0 means DefaultBackdate
	LeaseTTL   time.Duration // how long a dead holder blocks the others; 0 means DefaultLeaseTTL

	// Served, if not nil, is told of each list when it begins to be served here; made says that this replica made it. It
	// must be quick, and must not call the publisher.
	Served func(key *issuer.Key, l *Published, made bool)

	Logger *slog.Logger // nil discards
}

// Publisher makes lists, when it holds the lease, and serves the newest of each issuer key. It is safe for concurrent
// use. Its owner calls Run once and has Follow told of the store's heads, after the issuers have been.
type Publisher struct {
	cfg  Config
	wake chan struct{} // of capacity 1

	work sync.Mutex // held while lists are made and entries change; before turn

	turn       sync.Mutex // held by Follow, and while events are read; before mu
	seenCRL    int64      // guarded by turn; -1 before the first head
	seenStatus int64      // guarded by turn; -1 before the first head

	mu      sync.Mutex
	keys    map[string]*keyState // guarded by mu; by key id
	bundles map[string]*Bundle   // guarded by mu; by the key ids asked for
	until   time.Time            // guarded by mu; the lease's end, monotonic
	held    *store.Lease         // guarded by mu; nil: not taken yet
	maker   string               // guarded by mu; who held the lease when it was last asked for; empty: nobody knows

	built, failed, stale atomic.Int64
}

// keyState is what is known of the lists of one issuer key. All fields but entries are guarded by Publisher.mu.
type keyState struct {
	loaded bool             // the store has been asked, since the lease was taken if it is
	lists  map[string]*list // by scope, delta lists among them
	listed map[string]bool  // URLs of sets of shards that were noted in the store as listed

	entries   *entries            // used under Publisher.work, and set under mu too; nil: not read yet
	following bool                // events are put aside for entries
	pending   []store.StatusEvent // what entries have not taken in yet

	wanted int64 // newest status event that was seen of a certificate whose list is not known: every list may be behind
	marks  int64 // calls of Dirty
	shown  int64 // calls of Dirty that came before the newest events were read

	err      error     // of the last try; nil when it succeeded
	failures int       // in a row
	notFor   time.Time // no build before this instant, monotonic
}

// list is what is known of the lists of one scope. All fields are guarded by Publisher.mu.
type list struct {
	latest    *Published // nil when there is none yet
	change    int64      // the change that latest shows
	want      int64      // newest status event of the scope that was seen
	scheduled milestone  // the newest list that the timer made
	base      milestone  // the newest list that delta lists build on
}

// milestone is a list of the past; the zero value is none.
type milestone struct {
	carried
	number int64
	at     time.Time // when it was made
}

// note takes a list into account that the timer made, or that delta lists build on.
func (l *list) note(number, change int64, at, thisUpdate time.Time, scheduled, base bool) {
	m := milestone{carried{thisUpdate, change}, number, at}
	if scheduled && number > l.scheduled.number {
		l.scheduled = m
	}
	if base && number > l.base.number {
		l.base = m
	}
}

// serve serves a list that the store holds, unless a newer one is served already.
func (l *list) serve(made *Published) {
	if l.latest == nil || made.Number > l.latest.Number {
		l.latest, l.change = made, made.Change
	}
	l.note(made.Number, made.Change, made.CreatedAt, made.ThisUpdate, made.Scheduled, made.base)
}

func (k *keyState) list(scope string) *list {
	l := k.lists[scope]
	if l == nil {
		l = &list{}
		k.lists[scope] = l
	}
	return l
}

// behind reports whether there is a list of the scope, and it does not show what was seen.
func (k *keyState) behind(l *list) bool { return l.latest != nil && max(l.want, k.wanted) > l.change }

// dirty reports whether a certificate's status changed after the state that the newest lists show.
func (k *keyState) dirty() bool {
	if k.marks > k.shown {
		return true
	}
	for scope, l := range k.lists {
		if !isDelta(scope) && k.behind(l) {
			return true
		}
	}
	return false
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
		keys: map[string]*keyState{}, bundles: map[string]*Bundle{},
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
	p.key(key.KeyID).marks++
	p.mu.Unlock()
	p.nudge()
}

// Follow takes over what changed in the store up to this head: lists that another replica made, and status events that
// ask for new ones. It is a watch.Follower.
func (p *Publisher) Follow(ctx context.Context, head store.Head) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	snap := p.cfg.Issuers.Current()
	if head.CRLChange != p.seenCRL || !p.allLoaded(snap) {
		if err := p.refresh(ctx, snap); err != nil {
			return err
		}
		p.seenCRL = head.CRLChange
	}
	defer p.nudge()
	if p.seenStatus < 0 || head.StatusChange < p.seenStatus {
		p.seenStatus = p.oldestShown(head.StatusChange)
	}
	if p.seenStatus < head.StatusChange {
		if err := p.readEvents(ctx); err != nil {
			return err
		}
		p.seenStatus = max(p.seenStatus, head.StatusChange)
	}
	return nil
}

// refresh takes over from the store what other replicas have published.
func (p *Publisher) refresh(ctx context.Context, snap *issuer.Snapshot) error {
	numbers, err := p.cfg.Store.CRLNumbers(ctx)
	if err != nil {
		return err
	}
	for _, key := range snap.Keys() {
		if err := p.refreshKey(ctx, key, numbers[key.ID]); err != nil {
			return err
		}
	}
	return nil
}

// readEvents reads what has happened to certificates since it was last asked. The caller holds turn.
func (p *Publisher) readEvents(ctx context.Context) error {
	if p.seenStatus < 0 {
		head, err := p.cfg.Store.Head(ctx)
		if err != nil {
			return err
		}
		p.seenStatus = p.oldestShown(head.StatusChange)
	}
	snap := p.cfg.Issuers.Current()
	for {
		events, err := p.cfg.Store.StatusEvents(ctx, p.seenStatus, eventPage)
		if err != nil || len(events) == 0 {
			return err
		}
		p.mu.Lock()
		for _, e := range events {
			p.seenStatus = max(p.seenStatus, e.Change)
			key := snap.KeyByInternalID(e.IssuerKeyID)
			if key == nil {
				continue
			}
			k := p.key(key.KeyID)
			narrow := e.Scope
			if narrow == pki.ScopeUnknown {
				k.wanted, narrow = max(k.wanted, e.Change), pki.ScopeFull
			}
			for _, scope := range []string{pki.ScopeFull, narrow} {
				l := k.list(scope)
				l.want = max(l.want, e.Change)
			}
			if k.following {
				k.pending = append(k.pending, e)
			}
		}
		p.mu.Unlock()
	}
}

// oldestShown returns the change from which on status events must be read: what the list that is furthest behind
// shows. A scope without a list needs no event to get one.
func (p *Publisher) oldestShown(newest int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.keys {
		for scope, l := range k.lists {
			if l.latest != nil && !isDelta(scope) {
				newest = min(newest, l.change)
			}
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

// keepLease takes the lease and renews it at a quarter of its time. Who does not hold it asks as often, so that a holder's
// death is noticed soon after its lease has ended. It gives the lease back when the context ends.
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
	tick := time.NewTicker(p.cfg.LeaseTTL / 4)
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
			p.hold(&lease, asked.Add(lease.Remaining))
			p.made(p.cfg.Holder)
			if !before {
				p.cfg.Logger.Info("this replica makes the CRLs", "holder", p.cfg.Holder)
				p.nudge()
			}
		case fault.Is(err, fault.Conflict):
			p.hold(nil, time.Time{})
			maker := ""
			if other, ok := errors.AsType[*store.HeldError](err); ok {
				maker = other.Holder
			}
			p.made(maker)
			if before {
				p.cfg.Logger.Info("another replica makes the CRLs", "holder", maker)
			}
			err = nil
		default:
			p.made("")
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
	p.work.Lock()
	defer p.work.Unlock()
	wait := maxSleep
	for _, key := range p.cfg.Issuers.Current().Keys() {
		wait = min(wait, p.passKey(ctx, key))
		if ctx.Err() != nil {
			break
		}
	}
	return wait
}

func (p *Publisher) passKey(ctx context.Context, key *issuer.Key) time.Duration {
	pl := p.plan(key)
	under := p.lease()
	if under == nil {
		return p.standBy(ctx, key, pl)
	}
	if w := p.waiting(key); w > 0 {
		return w
	}
	if !p.isLoaded(key) {
		// What others have published is asked for once more when the lease has passed on: not only the newest lists
		// matter, but also which of them the timer made.
		numbers, err := p.cfg.Store.CRLNumbers(ctx)
		if err == nil {
			err = p.refreshKey(ctx, key, numbers[key.ID])
		}
		if err != nil {
			return p.fail(ctx, key, err)
		}
	}
	if wait := p.wait(key, pl); wait > 0 {
		return wait
	}
	return p.make(ctx, key, pl, under)
}

// standBy keeps the entries of a replica that makes no lists current, so that it can go on at once when the one that does
// ends.
func (p *Publisher) standBy(ctx context.Context, key *issuer.Key, pl plan) time.Duration {
	if p.waiting(key) > 0 || !p.isLoaded(key) {
		return maxSleep
	}
	now := p.cfg.Clock.Now()
	k := p.state(key)
	var err error
	if k.entries == nil {
		err = p.loadEntries(ctx, key, pl, p.thisUpdate(key, now))
	} else if p.pendingEvents(k) > maxPending {
		err = p.applyPending(key, pl, 0, p.thisUpdate(key, now))
	}
	if err != nil && ctx.Err() == nil {
		p.cfg.Logger.Debug("cannot keep CRL entries ready", "issuer", key.Issuer.Name, "err", err)
		p.mu.Lock()
		k.notFor = time.Now().Add(lastRetry)
		p.mu.Unlock()
	}
	return maxSleep
}

func (p *Publisher) pendingEvents(k *keyState) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(k.pending)
}

// make makes the lists of the key that are due, and returns how long to leave it alone.
func (p *Publisher) make(ctx context.Context, key *issuer.Key, pl plan, under *store.Lease) time.Duration {
	k := p.state(key)
	p.mu.Lock()
	recovered := k.failures > 0
	p.mu.Unlock()
	choose := func() ([]planned, bool) { return p.due(key, pl) }

	began := time.Now()
	call, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	made, err := p.build(call, key, pl, choose, under)
	for try := 0; try < 2 && errors.Is(err, store.ErrStale); try++ {
		// Another replica was faster: the lease has passed on, or this one's renewal is late. Its lists may show all
		// that ours would have; if not, there is a next number.
		p.stale.Add(1)
		made, err = p.build(call, key, pl, choose, under)
	}
	switch {
	case errors.Is(err, store.ErrLeaseLost):
		p.hold(nil, time.Time{})
		return maxSleep
	case err != nil:
		return p.fail(ctx, key, err)
	case len(made) == 0:
		return p.wait(key, pl)
	}
	p.built.Add(int64(len(made)))

	took := time.Since(began)
	pause := max(pl.Coalesce, took)
	p.mu.Lock()
	k.notFor = time.Now().Add(pause)
	dirty := k.dirty()
	p.mu.Unlock()

	for _, m := range made {
		level := slog.LevelDebug
		if m.Scheduled || recovered {
			level = slog.LevelInfo
		}
		p.cfg.Logger.Log(ctx, level, "CRL published", "issuer", key.Issuer.Name, "key", key.KeyID, "scope", m.Scope, "number", m.Number,
			"entries", m.Entries, "scheduled", m.Scheduled, "took", took)
	}
	if slices.ContainsFunc(made, func(m *Published) bool { return m.Scheduled }) {
		if err := p.dropEnded(call, key, pl, under); err != nil && ctx.Err() == nil {
			p.cfg.Logger.Warn("CRLs that have ended cannot be dropped now", "issuer", key.Issuer.Name, "key", key.KeyID, "err", err)
		}
	}
	if dirty {
		return pause
	}
	return p.wait(key, pl)
}

// fail notes a failed try and returns when the next one is due. The mark that asked for the list stays.
func (p *Publisher) fail(ctx context.Context, key *issuer.Key, err error) time.Duration {
	if ctx.Err() != nil {
		return maxSleep // the process ends
	}
	p.failed.Add(1)
	p.mu.Lock()
	k := p.key(key.KeyID)
	delay := min(firstRetry<<min(k.failures, 10), lastRetry)
	first := k.failures == 0
	k.err, k.failures, k.notFor = err, k.failures+1, time.Now().Add(delay)
	p.mu.Unlock()
	if first {
		p.cfg.Logger.Error("cannot make a CRL; the last one is served, and it is tried again",
			"issuer", key.Issuer.Name, "key", key.KeyID, "err", err)
	}
	return delay
}

// publish serves lists that the store holds.
func (p *Publisher) publish(key *issuer.Key, made []*Published) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.key(key.KeyID)
	for _, m := range made {
		p.serve(key, k.list(m.Scope), m, true)
	}
	k.err, k.failures = nil, 0
}

// serve serves a list, and tells of it. The caller holds mu.
func (p *Publisher) serve(key *issuer.Key, l *list, m *Published, made bool) {
	l.serve(m)
	if l.latest == m && p.cfg.Served != nil {
		p.cfg.Served(key, m, made)
	}
}

// key returns what is known of an issuer key. The caller holds mu.
func (p *Publisher) key(keyID string) *keyState {
	k := p.keys[keyID]
	if k == nil {
		k = &keyState{lists: map[string]*list{}, listed: map[string]bool{}}
		p.keys[keyID] = k
	}
	return k
}

func (p *Publisher) state(key *issuer.Key) *keyState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key(key.KeyID)
}

func (p *Publisher) isLoaded(key *issuer.Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key(key.KeyID).loaded
}

func (p *Publisher) allLoaded(snap *issuer.Snapshot) bool {
	for _, key := range snap.Keys() {
		if !p.isLoaded(key) {
			return false
		}
	}
	return true
}

func (p *Publisher) waiting(key *issuer.Key) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.key(key.KeyID).notFor)
}

func (p *Publisher) holds() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.until)
}

// lease returns the lease, if this replica holds it, else nil.
func (p *Publisher) lease() *store.Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().Before(p.until) {
		return p.held
	}
	return nil
}

// made notes who makes the lists.
func (p *Publisher) made(by string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.maker = by
}

// hold notes that the lease is held until an instant, or that it is not.
func (p *Publisher) hold(lease *store.Lease, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if lease != nil && (p.held == nil || p.held.Token != lease.Token) {
		for _, k := range p.keys {
			k.loaded = false // others may have published
		}
	}
	if lease == nil {
		p.until = time.Time{}
		return
	}
	p.held, p.until = lease, until
}

func (p *Publisher) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
