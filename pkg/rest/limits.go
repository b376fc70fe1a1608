package rest

import (
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

// Limits bounds requests of each principal; a flood of one leaves the others what they need. Each replica counts for itself.
type Limits struct {
	// Token is for each API token, reads and writes alike. The default is no limit: whoever makes a token trusts its
	// holder with the role, and the server's turns bound what is expensive.
	Token Limit
	// Holder is for each client certificate on the self-service routes. The default is 10 a second, 100 at once.
	Holder Limit
	// Source is for each network address that sends no credentials, or wrong ones; IPv6 addresses count by their /64. The
	// default is 100 a second, 500 at once. Loopback addresses are exempt: a proxy on this machine is one address for all.
	Source Limit
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
}

func newLimits(cfg Limits, now func() time.Time) *limits {
	return &limits{
		tokens:  newBuckets(cfg.Token, Limit{}, now),
		holders: newBuckets(cfg.Holder, defaultHolderLimit, now),
		sources: newBuckets(cfg.Source, defaultSourceLimit, now),
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
	now := b.now()
	b.mu.Lock()
	bucket, ok := b.young[key]
	if !ok {
		if bucket, ok = b.old[key]; !ok {
			bucket = rate.NewLimiter(b.limit, b.burst)
		}
		if len(b.young) >= maxBuckets {
			b.young, b.old = make(map[string]*rate.Limiter, maxBuckets), b.young
		}
		b.young[key] = bucket
	}
	b.mu.Unlock()
	r := bucket.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now) // a refused request costs nothing
	}
	return wait
}
