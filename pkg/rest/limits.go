package rest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

// Limit is how many requests one principal may make: Burst at once, and PerSecond again with each second. The zero value
// is the default of its place; a negative PerSecond is no limit.
type Limit struct {
	PerSecond float64
	Burst     int // 0 means four seconds' worth, and one at the least
}

// Limits bounds requests of each principal, so that a flood of one leaves the others what they need, and what is expensive,
// whoever asks. Each replica counts for itself. The zero value of a field is its default.
type Limits struct {
	// Token is for each API token, reads and writes alike. The default is no limit: whoever makes a token trusts its
	// holder with the role, and the server's turns bound what is expensive.
	Token Limit
	// Holder is for each client certificate on the self-service routes. The default is 10 a second, 100 at once.
	Holder Limit
	// Source is for each network address that sends no credentials, or wrong ones; IPv6 addresses count by their /64. The
	// default is 100 a second, 500 at once. Loopback addresses are exempt: a proxy on this machine is one address for all.
	Source Limit

	// Searches is how many lists and searches run at the same time. The store has connections for more, which serve status
	// requests and CRLs, and must not be had by whoever has a token that reads. The default is 3.
	Searches int
	// Exports is how many exports run at the same time, each of them one search after another. The default is 2.
	Exports int
	// Followers is how many follow the audit trail at the same time. The default is 16.
	Followers int
	// KeyMaking is how many keys are made at the same time: a long RSA key takes seconds of a processor. The default is 2.
	KeyMaking int
	// Wait is how long an expensive request waits for its turn before it is told to come back. The default is 10 seconds;
	// it is below MaxWait.
	Wait time.Duration
	// BodyBytes is the longest body of a request. The default is 256 KiB.
	BodyBytes int64
}

// maxWalks is how many walks over the whole audit trail run at the same time.
const maxWalks = 1

// MaxWait is above every Limits.Wait: a request that has waited must still have time for its work.
const MaxWait = requestTimeout

// complete fills in the defaults.
func (l *Limits) complete() error {
	for _, f := range []struct {
		field     *int
		otherwise int
	}{{&l.Searches, 3}, {&l.Exports, 2}, {&l.Followers, 16}, {&l.KeyMaking, 2}} {
		if *f.field < 0 {
			return errors.New("rest: a limit below zero")
		}
		if *f.field == 0 {
			*f.field = f.otherwise
		}
	}
	if l.Wait == 0 {
		l.Wait = 10 * time.Second
	}
	if l.BodyBytes == 0 {
		l.BodyBytes = 256 << 10
	}
	if l.Wait < 0 || l.Wait >= MaxWait || l.BodyBytes < 0 {
		return fmt.Errorf("rest: limits of %s and %d octets, want less than %s and more than nothing", l.Wait, l.BodyBytes, MaxWait)
	}
	return nil
}

// turns lets a few expensive requests run at a time.
type turns struct {
	free chan struct{}
	wait time.Duration
}

func newTurns(n int, wait time.Duration) turns { return turns{make(chan struct{}, n), wait} }

// take waits for a turn and returns what gives it back. RateLimited when there is none for too long.
func (t turns) take(ctx context.Context) (done func(), err error) {
	timer := time.NewTimer(t.wait)
	defer timer.Stop()
	select {
	case t.free <- struct{}{}:
		return func() { <-t.free }, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil, fault.New(fault.RateLimited, "too many expensive requests are running").WithRetryAfter(t.wait)
}

// tryTake is take without waiting.
func (t turns) tryTake() (done func(), err error) {
	select {
	case t.free <- struct{}{}:
		return func() { <-t.free }, nil
	default:
		return nil, fault.New(fault.RateLimited, "too many of these are open").WithRetryAfter(t.wait)
	}
}

// The defaults.
var (
	defaultHolderLimit = Limit{PerSecond: 10, Burst: 100}
	defaultSourceLimit = Limit{PerSecond: 100, Burst: 500}
)

// maxBuckets is how many principals of a kind are remembered, at the least; twice as many at the most. Whoever is forgotten
// begins with a full bucket, so that a flood of addresses hurts nobody.
const maxBuckets = 10_000

// limits holds the buckets. It is safe for concurrent use.
type limits struct {
	tokens, holders, sources *buckets
	rates                    *buckets // of tokens that have a rate of their own
}

func newLimits(cfg Limits, now func() time.Time) *limits {
	return &limits{
		tokens:  newBuckets(cfg.Token, Limit{}, now),
		holders: newBuckets(cfg.Holder, defaultHolderLimit, now),
		sources: newBuckets(cfg.Source, defaultSourceLimit, now),
		rates:   newBuckets(Limit{PerSecond: 1}, Limit{}, now),
	}
}

// spend takes a request off what its principal has left: RateLimited if there is nothing. err is what admitting it came to.
func (l *limits) spend(acc access, p pki.Principal, source string, err error) error {
	b, key := l.sources, source
	switch {
	case acc == open, p.Name == "", fault.Is(err, fault.Unauthenticated):
		ip, e := netip.ParseAddr(source)
		if e == nil && ip.Unmap().IsLoopback() {
			return nil
		}
		if e == nil {
			key = network(ip.Unmap())
		}
	case acc.self:
		b, key = l.holders, p.Name
	default:
		b, key = l.tokens, p.Name
	}
	if wait := b.take(key); wait > 0 {
		return fault.New(fault.RateLimited, "too many requests").WithRetryAfter(wait)
	}
	if b == l.tokens && p.Rate > 0 {
		if wait := l.rates.takeOf(key, rate.Limit(float64(p.Rate)/60), p.Rate); wait > 0 {
			return fault.New(fault.RateLimited, "too many requests: this token may make %d a minute", p.Rate).WithRetryAfter(wait)
		}
	}
	return nil
}

// network returns what an address counts as: itself, or an IPv6 network that one host commonly has to itself.
func network(ip netip.Addr) string {
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}

// buckets are the token buckets of one kind of principals. When the young map is full it becomes the old one, and the old
// one is forgotten: memory is bounded without looking for what is oldest.
type buckets struct {
	limit rate.Limit
	burst int
	now   func() time.Time

	mu         sync.Mutex
	young, old map[string]*rate.Limiter // guarded by mu
}

// newBuckets returns nil, which takes everything, for no limit.
func newBuckets(l, otherwise Limit, now func() time.Time) *buckets {
	if l == (Limit{}) {
		l = otherwise
	}
	if l.PerSecond <= 0 {
		return nil
	}
	if l.Burst <= 0 {
		l.Burst = max(1, int(4*l.PerSecond))
	}
	return &buckets{limit: rate.Limit(l.PerSecond), burst: l.Burst, now: now, young: map[string]*rate.Limiter{}}
}

// take returns 0 if the request may go on, and else how long until one may.
func (b *buckets) take(key string) time.Duration {
	if b == nil {
		return 0
	}
	return b.takeOf(key, b.limit, b.burst)
}

// takeOf is take from a bucket of the given size.
func (b *buckets) takeOf(key string, limit rate.Limit, burst int) time.Duration {
	now := b.now()
	b.mu.Lock()
	bucket, ok := b.young[key]
	if !ok {
		if bucket, ok = b.old[key]; !ok {
			bucket = rate.NewLimiter(limit, burst)
		}
		if len(b.young) >= maxBuckets {
			b.young, b.old = make(map[string]*rate.Limiter, maxBuckets), b.young
		}
		b.young[key] = bucket
	}
	b.mu.Unlock()
	if bucket.Limit() != limit || bucket.Burst() != burst { // of an earlier token of this name
		bucket.SetLimitAt(now, limit)
		bucket.SetBurstAt(now, burst)
	}
	r := bucket.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now) // a refused request costs nothing
	}
	return wait
}
