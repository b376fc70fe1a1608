package postgres

import (
	"context"
	"runtime"
	"sync"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

const (
	// lookupQueries is how many queries look certificates up at the same time.
	lookupQueries = 2
	// maxLookup is how many certificates one of them looks up at the most.
	maxLookup = 256
)

// lookups gathers the look-ups of certificates that wait at the same time into one query. There is no timer: alone, a
// look-up is a query at once; under load, the query before is the delay. It is safe for concurrent use.
type lookups struct {
	query   func(context.Context, []pki.Fingerprint) (map[pki.Fingerprint]pki.Certificate, error)
	context func() (context.Context, context.CancelFunc) // of a query: it is not one caller's

	mu      sync.Mutex
	waiting []*lookup // guarded by mu
	running int       // guarded by mu: queries
	closed  bool      // guarded by mu
	queries sync.WaitGroup
}

var errClosed = fault.New(fault.Unavailable, "the server is shutting down").WithRetryAfter(retryAfter)

// lookup is a look-up on its way.
type lookup struct {
	fingerprint pki.Fingerprint
	done        chan struct{} // closed when the fields below are set
	certificate pki.Certificate
	found       bool
	err         error
}

// get looks one certificate up. It returns when ctx ends, whatever becomes of the query.
func (l *lookups) get(ctx context.Context, f pki.Fingerprint) (pki.Certificate, bool, error) {
	if err := ctx.Err(); err != nil {
		return pki.Certificate{}, false, err
	}
	w := &lookup{fingerprint: f, done: make(chan struct{})}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return pki.Certificate{}, false, errClosed
	}
	l.waiting = append(l.waiting, w)
	if l.running < lookupQueries {
		l.running++
		l.queries.Go(l.run)
	}
	l.mu.Unlock()
	select {
	case <-w.done:
		return w.certificate, w.found, w.err
	case <-ctx.Done():
		return pki.Certificate{}, false, ctx.Err()
	}
}

// run queries until nothing waits.
func (l *lookups) run() {
	for {
		// Callers that the last query woke are about to come back: see groupcommit.
		runtime.Gosched()
		l.mu.Lock()
		batch := l.waiting[:min(len(l.waiting), maxLookup)]
		l.waiting = l.waiting[len(batch):]
		if len(batch) == 0 {
			l.waiting = nil
			l.running--
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.look(batch)
	}
}

func (l *lookups) look(batch []*lookup) {
	seen := make(map[pki.Fingerprint]bool, len(batch))
	all := make([]pki.Fingerprint, 0, len(batch))
	for _, w := range batch {
		if !seen[w.fingerprint] {
			seen[w.fingerprint] = true
			all = append(all, w.fingerprint)
		}
	}
	ctx, cancel := l.context()
	defer cancel()
	found, err := l.query(ctx, all)
	for _, w := range batch {
		w.certificate, w.found = found[w.fingerprint]
		if r := w.certificate.Revocation; r != nil { // each caller gets one of its own
			own := *r
			w.certificate.Revocation = &own
		}
		w.err = err
		close(w.done)
	}
}

// close refuses what comes, and returns when nothing waits any more.
func (l *lookups) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.queries.Wait()
}
