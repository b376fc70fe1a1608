// Package watch keeps the parts of a replica current with the store. It polls the store's head, which every change
// moves, and tells those who asked to be told. Since changes are numbered in commit order, nobody misses one.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/certwright/certwright/pkg/store"
)

// DefaultInterval is how often the head is polled. It bounds how long another replica's change goes unnoticed.
const DefaultInterval = 250 * time.Millisecond

// pollTimeout ends a poll whose store neither answers nor fails, as behind a network that has gone silent: the next one may
// find another connection. Followers go on from where they were.
const pollTimeout = 15 * time.Second

// Header is the part of a store that is polled.
type Header interface {
	Head(ctx context.Context) (store.Head, error)
}

// Follower is told of a new head. It must be able to be told of the same head twice. When it fails, it is told again
// at the next poll, of whatever the head is then.
type Follower func(ctx context.Context, head store.Head) error

// Config is what a Watcher needs. Only Store is required.
type Config struct {
	Store    Header
	Interval time.Duration // 0 means DefaultInterval
	Logger   *slog.Logger
	Now      func() time.Time // for the age of the last poll; nil means time.Now, whose readings are monotonic
}

// Watcher polls a store's head. It is safe for concurrent use.
type Watcher struct {
	cfg Config

	turn sync.Mutex // held during a poll; polls do not overlap

	mu        sync.Mutex
	followers []*follower // guarded by mu
	head      store.Head  // guarded by mu
	polled    time.Time   // guarded by mu: when the last successful poll began; zero before the first
	failing   bool        // guarded by mu
}

type follower struct {
	name string
	call Follower
	seen int64 // change number last told without error; guarded by turn
}

// New returns a watcher that has not polled yet.
func New(cfg Config) (*Watcher, error) {
	if cfg.Store == nil {
		return nil, errors.New("watch: no store")
	}
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Watcher{cfg: cfg}, nil
}

// Follow has f told of every new head from the next poll on. The name is for the log.
func (w *Watcher) Follow(name string, f Follower) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.followers = append(w.followers, &follower{name: name, call: f, seen: -1})
}

// Sync polls now and returns when every follower has been told. The poll begins after the call, so it sees whatever the
// caller has written. The error is the store's or the first follower's.
func (w *Watcher) Sync(ctx context.Context) error {
	w.turn.Lock()
	defer w.turn.Unlock()
	began := w.cfg.Now()
	head, err := w.poll(ctx)
	if err != nil {
		return fmt.Errorf("reading the store's head: %w", err)
	}
	w.mu.Lock()
	followers := append([]*follower(nil), w.followers...)
	w.mu.Unlock()
	var first error
	for _, f := range followers {
		if f.seen == head.Change {
			continue
		}
		if err := f.tell(ctx, head); err != nil {
			if first == nil {
				first = fmt.Errorf("telling %s of change %d: %w", f.name, head.Change, err)
			}
			continue
		}
		f.seen = head.Change
	}
	if first != nil {
		return first
	}
	w.mu.Lock()
	w.head, w.polled = head, began
	w.mu.Unlock()
	return nil
}

func (w *Watcher) poll(ctx context.Context) (store.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	return w.cfg.Store.Head(ctx)
}

// tell has a time limit of its own, so that a follower that waits does not take those behind it along.
func (f *follower) tell(ctx context.Context, head store.Head) error {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	return f.call(ctx, head)
}

// Head returns the newest head of which every follower has been told.
func (w *Watcher) Head() store.Head {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.head
}

// Age returns how long ago the last successful poll began: what this replica knows is no older than that. It is very
// large before the first.
func (w *Watcher) Age() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.polled.IsZero() {
		return 1<<63 - 1
	}
	return w.cfg.Now().Sub(w.polled)
}

// Run polls until the context ends. It logs when the store goes away and when it is back, not at every poll.
func (w *Watcher) Run(ctx context.Context) {
	tick := time.NewTicker(w.cfg.Interval)
	defer tick.Stop()
	for {
		err := w.Sync(ctx)
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		changed := w.failing != (err != nil)
		w.failing = err != nil
		w.mu.Unlock()
		switch {
		case changed && err != nil:
			w.cfg.Logger.Error("cannot follow the store", "err", err)
		case changed:
			w.cfg.Logger.Info("following the store again", "change", w.Head().Change)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
