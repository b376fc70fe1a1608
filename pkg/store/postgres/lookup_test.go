package postgres

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

// TestLookups has many look-ups wait while a query is under way: they share the next one, get each their own answer, and
// whoever stops waiting does so at once.
func TestLookups(t *testing.T) {
	const callers = 100
	entered, let := make(chan int), make(chan struct{})
	failing := pki.Fingerprint{255}
	l := &lookups{
		context: func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) },
		query: func(_ context.Context, all []pki.Fingerprint) (map[pki.Fingerprint]pki.Certificate, error) {
			entered <- len(all)
			<-let
			found := map[pki.Fingerprint]pki.Certificate{}
			for _, f := range all {
				if f == failing {
					return nil, errors.New("it failed")
				}
				if f[0]%2 == 0 {
					found[f] = pki.Certificate{Fingerprint: f, Revocation: &pki.Revocation{Reason: pki.Superseded}}
				}
			}
			return found, nil
		},
	}
	var wg sync.WaitGroup
	get := func(f pki.Fingerprint, check func(pki.Certificate, bool, error)) {
		wg.Go(func() { check(l.get(t.Context(), f)) })
	}
	fails := func(_ pki.Certificate, found bool, err error) {
		if err == nil || found {
			t.Errorf("found %v, %v; want an error", found, err)
		}
	}
	// Both queries are at it.
	for range lookupQueries {
		get(failing, fails)
		if n := <-entered; n != 1 {
			t.Errorf("a look-up alone is one of %d", n)
		}
	}
	for i := range callers {
		f := pki.Fingerprint{byte(i / 2)} // each asked for twice
		get(f, func(c pki.Certificate, found bool, err error) {
			if err != nil || found != (f[0]%2 == 0) || found && c.Fingerprint != f {
				t.Errorf("%v: got %v, %v, %v", f[0], c.Fingerprint[0], found, err)
			}
			if found {
				c.Revocation.Reason = pki.KeyCompromise // nobody else sees it
			}
		})
	}
	for waiting := 0; waiting < callers; {
		l.mu.Lock()
		waiting = len(l.waiting)
		l.mu.Unlock()
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := l.get(gone, failing); !errors.Is(err, context.Canceled) {
		t.Errorf("who has left: %v", err)
	}
	go func() { // all that wait are in the next one
		if n := <-entered; n != callers/2 {
			t.Errorf("the next query is for %d, want %d", n, callers/2)
		}
		close(let)
	}()
	let <- struct{}{}
	wg.Wait()
	l.close()
	if _, _, err := l.get(t.Context(), failing); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after the end: %v", err)
	}
}
