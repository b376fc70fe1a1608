// Package clock guards against a wrong clock. A CA that signs with one does lasting harm: certificates that are not
// valid yet or end too late, CRLs that verifiers refuse, audit records out of order.
package clock

import (
	"sync"
	"time"

	"github.com/certwright/certwright/pkg/fault"
)

// How far the clock may be off before signing stops.
const (
	MaxBehind = 5 * time.Minute // behind the newest record of the store
	MaxAhead  = time.Hour       // ahead of where it should be by the machine's own count since the process began
	// MaxGap is how long after the newest record a process may begin without a person's word that the clock is right. A
	// server may be off for a holiday; a clock that is years ahead must not become the mark that right ones are held against.
	MaxGap = 30 * 24 * time.Hour
)

// Guard compares the wall clock with what it knows of time: the newest record in the store, which may come from
// another replica or from before a restart, and the machine's count of elapsed time, which no one can set. It is safe
// for concurrent use.
type Guard struct {
	now     func() time.Time
	elapsed func() time.Duration

	mu      sync.Mutex
	newest  time.Time     // guarded by mu
	wall    time.Time     // guarded by mu: what the wall clock said ...
	counted time.Duration // guarded by mu: ... when the machine's count stood here

	trusted   bool // guarded by mu: a person says that the clock is right
	confirmed bool // guarded by mu: so it is, or the newest record was near enough when the process began
}

// New returns a guard that trusts the clock as it is now: starting the process is how a person confirms it. A nil now
// is time.Now; a nil elapsed is the machine's count, time in sleep included where the system tells.
func New(now func() time.Time, elapsed func() time.Duration) *Guard {
	if now == nil {
		now = time.Now
	}
	if elapsed == nil {
		elapsed = sinceBoot
	}
	return &Guard{now: now, elapsed: elapsed, wall: now(), counted: elapsed()}
}

// Confirm says that a person has looked at the clock and found it right, whatever the time of the newest record is.
func (g *Guard) Confirm() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trusted, g.confirmed = true, true
}

// Now returns the wall clock's time in UTC, without the monotonic reading.
func (g *Guard) Now() time.Time { return g.now().UTC().Round(0) }

// Saw tells the guard the time of a record in the store. Older ones than it knows change nothing.
func (g *Guard) Saw(t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.After(g.newest) {
		g.newest = t
	}
}

// Stamp returns a time for a record that must be written even while the clock cannot be trusted, such as that of a token's
// end: the clock's if Check accepts it, else that of the newest record, so that a wrong clock does not become the mark
// that right ones are held against.
func (g *Guard) Stamp() time.Time {
	if now, err := g.Check(); err == nil {
		return now
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.newest.IsZero() {
		return g.Now()
	}
	return g.newest
}

// Check returns the time to sign with, or Unavailable when the clock cannot be trusted. A clock that is a little behind
// the newest record is taken for that record's time, so that time never goes back.
func (g *Guard) Check() (time.Time, error) {
	now, count := g.Now(), g.elapsed()
	g.mu.Lock()
	defer g.mu.Unlock()
	if behind := g.newest.Sub(now); behind > MaxBehind && !g.trusted {
		return time.Time{}, fault.New(fault.Unavailable, "the server's clock is %s behind the newest record in its store; nothing is signed until it is right", behind.Round(time.Second)).
			WithHint("set the clock (timedatectl, chrony); if it is the newest record, of %s, that is wrong, start the server with --confirm-clock", g.newest.Format(time.RFC3339)).
			WithRetryAfter(time.Minute)
	}
	if ahead := now.Sub(g.wall) - (count - g.counted); ahead > MaxAhead {
		return time.Time{}, fault.New(fault.Unavailable, "the server's clock jumped ahead by %s while it ran; nothing is signed until that is confirmed", ahead.Round(time.Second)).
			WithHint("if the clock is right now, restart the server to confirm it; else set it back").
			WithRetryAfter(time.Minute)
	}
	if gap := now.Sub(g.newest); !g.confirmed && !g.newest.IsZero() {
		if gap > MaxGap {
			return time.Time{}, fault.New(fault.Unavailable, "the newest record in the store is %d days old: is the server's clock ahead? Nothing is signed until that is confirmed", int(gap.Hours()/24)).
				WithHint("set the clock, or if it is right, start the server with --confirm-clock").
				WithRetryAfter(time.Minute)
		}
		g.confirmed = true // it began near enough; from now on the machine's count tells
	}
	if now.Before(g.newest) && !g.trusted {
		return g.newest, nil
	}
	return now, nil
}
