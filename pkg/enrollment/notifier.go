package enrollment

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// How notifications are delivered.
const (
	// notifyEvery is how often a replica looks for what another one has left, or what has to be tried again.
	notifyEvery = 2 * time.Second
	// countEvery is how old the figures of Backlogs may be.
	countEvery = 15 * time.Second
	// notifyBatch is how many are claimed at once, and notifyTogether how many are on their way at a time.
	notifyBatch    = 32
	notifyTogether = 8
	// After a failure the next attempt is after firstBackoff, twice that, and so on, at most maxBackoff. A webhook of which
	// nothing in a batch was taken is left alone for a while, at most maxRest.
	firstBackoff = 5 * time.Second
	maxBackoff   = time.Hour
	maxRest      = time.Minute
	// keepNotification is how long a notification is tried.
	keepNotification = 7 * 24 * time.Hour
)

// NotifierConfig is what a Notifier is made of. All but Logger are required.
type NotifierConfig struct {
	Store  store.Notifications
	Points *Points
	// Now is the time, which must not go back for long.
	Now    func() time.Time
	Logger *slog.Logger // nil discards
}

// Notifier tells webhooks what they are to be told, from what the store keeps for them: each notification at least once.
// Several replicas do it at once, each with those that it has claimed. It is safe for concurrent use.
type Notifier struct {
	cfg  NotifierConfig
	wake chan struct{}

	mu       sync.Mutex
	busy     map[string]bool      // points at work; guarded by mu, as what follows
	rest     map[string]time.Time // until when a webhook that takes nothing is left alone
	pause    map[string]time.Duration
	counts   map[NotificationCount]int64
	backlogs []store.NotificationBacklog
}

// NotificationCount names a figure of a Notifier.
type NotificationCount struct {
	Point   string
	Outcome string // delivered, failed, or given-up
}

// The outcomes of a NotificationCount.
const (
	notifyDelivered = "delivered"
	notifyFailed    = "failed"
	notifyGivenUp   = "given-up"
)

// NewNotifier returns a notifier that tells nothing until Run is called.
func NewNotifier(cfg NotifierConfig) (*Notifier, error) {
	if cfg.Store == nil || cfg.Points == nil || cfg.Now == nil {
		return nil, errors.New("enrollment: incomplete config of a notifier")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Notifier{
		cfg: cfg, wake: make(chan struct{}, 1), busy: map[string]bool{}, rest: map[string]time.Time{}, pause: map[string]time.Duration{},
		counts: map[NotificationCount]int64{},
	}, nil
}

// Wake has the notifier look for what has just been written.
func (n *Notifier) Wake() {
	select {
	case n.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// Counts returns how many attempts ended how since the process started.
func (n *Notifier) Counts() map[NotificationCount]int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.counts)
}

// Backlogs returns what waited at each point when the store was last asked, which is a quarter of a minute ago at most.
func (n *Notifier) Backlogs() []store.NotificationBacklog {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.backlogs)
}

// Run delivers until the context ends; what is on its way then is tried again by the next process.
func (n *Notifier) Run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	look, count := time.NewTicker(notifyEvery), time.NewTicker(countEvery)
	defer look.Stop()
	defer count.Stop()
	n.count(ctx)
	for {
		for _, point := range n.cfg.Points.All() {
			if point.hook != nil && n.begin(point.Name()) {
				work.Go(func() {
					defer n.end(point.Name())
					n.deliver(ctx, point)
				})
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		case <-n.wake:
		case <-count.C:
			n.count(ctx)
			n.abandon(ctx)
		}
	}
}

// begin reports whether a point is to be served now, and takes it.
func (n *Notifier) begin(point string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.busy[point] || time.Now().Before(n.rest[point]) {
		return false
	}
	n.busy[point] = true
	return true
}

func (n *Notifier) end(point string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.busy, point)
}

func (n *Notifier) add(point, outcome string, number int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if number > 0 {
		n.counts[NotificationCount{point, outcome}] += int64(number)
	}
}

// restAfter leaves a webhook alone that has taken nothing, each time longer; and no longer when it has taken something.
func (n *Notifier) restAfter(point string, failed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !failed {
		delete(n.pause, point)
		delete(n.rest, point)
		return
	}
	n.pause[point] = min(max(2*n.pause[point], time.Second), maxRest)
	n.rest[point] = time.Now().Add(n.pause[point])
}

// deliver delivers what is due at a point, until there is nothing or nothing is taken.
func (n *Notifier) deliver(ctx context.Context, point *Point) {
	for ctx.Err() == nil {
		now := n.cfg.Now()
		// Time enough for all of a batch, and for the store; then another replica takes them over.
		until := now.Add(time.Duration(point.Webhook().Timeout)*(notifyBatch/notifyTogether+1) + time.Minute)
		batch, err := n.cfg.Store.ClaimNotifications(ctx, point.Name(), now, until, notifyBatch)
		if err != nil {
			if ctx.Err() == nil {
				n.cfg.Logger.Warn("notifications cannot be read now", "point", point.Name(), "err", err)
			}
			return
		}
		if len(batch) == 0 {
			return
		}
		if !n.tell(ctx, point, batch) {
			return
		}
	}
}

// tell sends a batch, writes what became of it, and reports whether any was taken.
func (n *Notifier) tell(ctx context.Context, point *Point, batch []pki.Notification) bool {
	errs := make([]error, len(batch))
	var wg sync.WaitGroup
	turns := make(chan struct{}, notifyTogether)
	for i := range batch {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			errs[i] = point.hook.Tell(ctx, batch[i].Body)
		})
	}
	wg.Wait()
	now := n.cfg.Now()
	var delivered []string
	var failed, old []pki.Notification
	for i, one := range batch {
		switch err := errs[i]; {
		case err == nil:
			delivered = append(delivered, one.ID)
		case ctx.Err() != nil: // it was our end, not the webhook's
			one.NextAt = now
			failed = append(failed, one)
		default:
			one.Error, one.NextAt = err.Error(), now.Add(backoff(one.Attempts))
			if now.Sub(one.CreatedAt) > keepNotification {
				old = append(old, one)
			} else {
				failed = append(failed, one)
			}
		}
	}
	// What was delivered is to be noted though the process is about to end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := n.cfg.Store.SettleNotifications(ctx, delivered, failed); err != nil {
		n.cfg.Logger.Warn("what became of notifications was not written: they will be sent again", "point", point.Name(), "notifications", len(batch), "err", err)
	}
	n.giveUp(ctx, point.Name(), old)
	n.add(point.Name(), notifyDelivered, len(delivered))
	n.add(point.Name(), notifyFailed, len(failed)+len(old))
	if len(delivered) < len(batch) {
		i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
		n.cfg.Logger.Warn("a webhook was not told", "point", point.Name(), "notifications", len(batch)-len(delivered), "err", errs[i], "cause", errors.Unwrap(errs[i]))
	}
	n.restAfter(point.Name(), len(delivered) == 0)
	return len(delivered) > 0
}

// backoff is how long after so many attempts the next one is.
func backoff(attempts int) time.Duration {
	return min(firstBackoff<<min(max(attempts, 1)-1, 20), maxBackoff)
}

// maxGivenUp is how many ids a record of the audit trail names.
const maxGivenUp = 50

// giveUp forgets what was tried for long enough, and leaves a record.
func (n *Notifier) giveUp(ctx context.Context, point string, old []pki.Notification) {
	if len(old) == 0 {
		return
	}
	ids := make([]string, len(old))
	for i, one := range old {
		ids[i] = one.ID
	}
	by := pki.System()
	err := n.cfg.Store.DropNotifications(ctx, ids, audit.Record{
		Time: n.cfg.Now(), Action: audit.ActionWebhookGiveUp, Actor: by.Name, Role: by.Role.String(), Target: "enrollment_point/" + point,
		Detail: map[string]string{
			"number": strconv.Itoa(len(old)), "events": strings.Join(ids[:min(len(ids), maxGivenUp)], " "), "oldest": old[0].CreatedAt.Format(time.RFC3339), "error": old[0].Error,
		},
	})
	if err != nil {
		n.cfg.Logger.Warn("notifications that nobody takes cannot be forgotten now", "point", point, "err", err)
		return
	}
	n.add(point, notifyGivenUp, len(old))
	n.cfg.Logger.Error("a webhook was not told for so long that it was given up", "point", point, "notifications", len(old), "error", old[0].Error)
}

// count asks the store what waits.
func (n *Notifier) count(ctx context.Context) {
	all, err := n.cfg.Store.NotificationBacklogs(ctx)
	if err != nil {
		if ctx.Err() == nil {
			n.cfg.Logger.Warn("notifications cannot be counted now", "err", err)
		}
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.backlogs = all
}

// abandon gives up what has waited for long enough at points that have no webhook any more.
func (n *Notifier) abandon(ctx context.Context) {
	now := n.cfg.Now()
	for _, b := range n.Backlogs() {
		if point, err := n.cfg.Points.Point(b.Point); err == nil && point.hook != nil || now.Sub(b.Oldest) <= keepNotification {
			continue
		}
		batch, err := n.cfg.Store.ClaimNotifications(ctx, b.Point, now, now.Add(maxBackoff), notifyBatch)
		if err != nil {
			return // it will be tried again
		}
		old := slices.DeleteFunc(batch, func(one pki.Notification) bool { return now.Sub(one.CreatedAt) <= keepNotification })
		for i := range old {
			old[i].Error = "the enrollment point has no webhook, or it has no secret"
		}
		n.giveUp(ctx, b.Point, old)
	}
}
