package server

import (
	"context"
	"time"
)

// Requests that were answered are forgotten once their Idempotency-Keys have ended: some at a time, so that nothing else
// waits long. Every replica does it, each with rows of its own.
const (
	forgetEvery = 5 * time.Minute
	forgetStep  = 1000
)

// forgetRequests runs until the context ends.
func (s *Server) forgetRequests(ctx context.Context) {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := s.clock.Check(); err == nil {
			if err := s.scep.Expire(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("requests that nobody decided on in time cannot be ended now", "err", err)
			}
			if err := s.scep.Prune(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("old enrollments cannot be forgotten now", "err", err)
			}
		}
		for n := forgetStep; n == forgetStep && ctx.Err() == nil; {
			// While the clock is not trusted it may be ahead, and a key must not end early.
			now, err := s.clock.Check()
			if err != nil {
				break
			}
			if n, err = s.store.PruneIdempotency(ctx, now, forgetStep); err != nil && ctx.Err() == nil {
				s.log.Warn("old requests cannot be forgotten now", "err", err)
			}
		}
	}
}
