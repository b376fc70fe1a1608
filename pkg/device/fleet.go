package device

import (
	"context"
	"sync"
	"time"

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

// Refusals returns how many requests were refused on the last days, today among them.
func (r *Registry) Refusals(ctx context.Context, days int) ([]store.Refusal, error) {
	const day = 24 * time.Hour
	today := int(r.cfg.Clock.Now().Unix() / int64(day/time.Second))
	return r.cfg.Store.Refusals(ctx, today-days+1)
}
