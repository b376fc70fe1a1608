package device

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// figuresLast is how long figures about the fleet are told again: they are counted over every device.
const figuresLast = 15 * time.Second

// figures are the newest figures about the fleet.
type figures struct {
	mu    sync.Mutex
	fleet store.Fleet // guarded by mu, as the rest
	at    time.Time
	began bool // by the monotonic clock in at
}

// Fleet returns figures about the fleet that are some seconds old at the most, and when they were counted. Those who ask
// at the same time wait for one count.
func (r *Registry) Fleet(ctx context.Context) (store.Fleet, time.Time, error) {
	f := &r.figures
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.began && time.Since(f.at) < figuresLast {
		return f.fleet, f.at, nil
	}
	at := time.Now()
	fleet, err := r.cfg.Store.Fleet(ctx, r.cfg.Clock.Now())
	if err != nil {
		return store.Fleet{}, time.Time{}, err
	}
	f.fleet, f.at, f.began = fleet, at, true
	return fleet, at, nil
}

// MaxGroups is how many groups Largest tells apart.
const MaxGroups = 100

// Largest returns the figures of at most MaxGroups groups: the largest ones, and the sum of the others as one group that
// is called "(others)". It is what metrics show, whose series must be few.
func Largest(fleet store.Fleet) []store.GroupFigures {
	size := func(g store.GroupFigures) (n int) {
		for _, k := range g.Status {
			n += k
		}
		return n
	}
	groups := slices.Clone(fleet.Groups)
	if len(groups) <= MaxGroups {
		return groups
	}
	slices.SortStableFunc(groups, func(a, b store.GroupFigures) int { return size(b) - size(a) })
	others := store.FleetFigures{}
	for _, g := range groups[MaxGroups-1:] {
		for status, n := range g.Status {
			others.Add("(others)", status, n, store.GroupFigures{})
		}
		others.Add("(others)", pki.DeviceEnrolled, 0, g)
	}
	return append(groups[:MaxGroups-1:MaxGroups-1], others.Fleet().Groups...)
}

// Refusals returns how many requests were refused on the last days, today among them.
func (r *Registry) Refusals(ctx context.Context, days int) ([]store.Refusal, error) {
	const day = 24 * time.Hour
	today := int(r.cfg.Clock.Now().Unix() / int64(day/time.Second))
	return r.cfg.Store.Refusals(ctx, today-days+1)
}
