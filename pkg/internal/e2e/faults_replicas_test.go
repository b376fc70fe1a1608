package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/internal/pgtest"
)

// TestKillReplica has 64 clients issue and revoke on two replicas, and kills the one that makes the CRLs. Verifiers fetch
// from both all the while.
func TestKillReplica(t *testing.T) {
	t.Parallel()
	a, b := StartReplicas(t, pgtest.DSN(t))
	book, watch := newLedger(), newCRLWatch(t)
	ids := issuerKeyIDs(t, a)
	watch.follow(t, ids, a, b)
	const holds = "this replica makes the CRLs"
	for range 2 {
		victim, survivor := a, b
		if held, other := strings.LastIndex(a.Log(), holds), strings.Contains(b.Log(), holds); held < 0 && other {
			victim, survivor = b, a
		}
		before := strings.Count(survivor.Log(), holds)
		load := startLoad(t, book, 64, a, b)
		load.reach(t, 20*time.Second, 60)
		<-time.After(killMoment())
		victim.Kill()
		killed := time.Now()
		eventually(t, 10*time.Second, "the other replica makes the CRLs", func() error {
			if strings.Count(survivor.Log(), holds) == before {
				return errors.New("not yet")
			}
			return nil
		})
		took := time.Since(killed)
		load.reach(t, 10*time.Second, 30) // the survivor's clients go on
		load.stop()
		book.verify(t, survivor, watch, crlSoon)
		victim.Again()
		for _, s := range []*Server{a, b} {
			book.verify(t, s, watch, crlSoon)
		}
		t.Logf("the lease moved after %s; %d connections broke, %d answers of 503; %d CRLs fetched", took, load.broken.Load(), load.away.Load(), watch.fetched())
		if load.away.Load() > 0 {
			t.Errorf("%d answers of 503, though the database was there", load.away.Load())
		}
		if t.Failed() {
			return
		}
	}
	// In good order the lease is given back, and moves at once.
	holder, other := a, b
	if strings.Count(a.Log(), holds) == 0 {
		holder, other = b, a
	}
	before := strings.Count(other.Log(), holds)
	holder.Stop()
	eventually(t, 4*time.Second, "the lease moves", func() error {
		if strings.Count(other.Log(), holds) == before {
			return errors.New("not yet")
		}
		return nil
	})
	checkStore(t, other)
}
