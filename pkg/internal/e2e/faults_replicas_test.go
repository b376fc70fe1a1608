package e2e

import (
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/internal/pgtest"
)

// TestReplicasPublish revokes, holds and releases 200 certificates at two replicas at random, and kills the one that makes
// the lists in the middle. Each change must be in OCSP of both, and in every list that speaks of the certificate.
func TestReplicasPublish(t *testing.T) {
	t.Parallel()
	a, b := StartReplicas(t, pgtest.DSN(t))
	servers := []*Server{a, b}
	watch := newCRLWatch(t)
	names := listsOfForms(t, a)
	watch.follow(t, names, a, b)
	issuing := faultIssuer(t, a, "issuing")
	const n = 200
	certs := make([]*x509.Certificate, n)
	ids := make([]string, n)
	csr := newFaultCSR(t, "replicas.example.com")
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := g; i < n; i += 8 {
				c, err := a.Client.Issue(t.Context(), client.IssueRequest{CSR: csr, Profile: "server"})
				if err != nil {
					t.Error(err)
					return
				}
				ids[i], certs[i] = c.ID, parseCertificate(t, []byte(c.PEM))
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	const holds = "this replica makes the CRLs"
	var (
		mu       sync.Mutex // guards worst
		worst    = map[string]time.Duration{}
		alive    atomic.Int32 // replicas: 0 both, 1 only a, 2 only b
		done     atomic.Int32
		half     = make(chan struct{})
		halfOnce sync.Once
	)
	running := func() []*Server {
		switch alive.Load() {
		case 1:
			return servers[:1]
		case 2:
			return servers[1:]
		}
		return servers
	}
	note := func(what string, d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if alive.Load() > 0 {
			what += " after the kill"
		}
		worst[what] = max(worst[what], d)
	}
	// see waits until every replica that runs says of the certificate what it is.
	see := func(i int, revoked bool) {
		for _, s := range running() {
			began := time.Now()
			for ; ; time.Sleep(20 * time.Millisecond) {
				status, err := askOCSP(s, issuing, certs[i].SerialNumber)
				if err == nil && (status == ocsp.Revoked) == revoked {
					note("OCSP", time.Since(began))
					break
				}
				if !slices.Contains(running(), s) {
					break
				}
				if time.Since(began) > 20*time.Second {
					t.Errorf("OCSP of certificate %d: %d, %v; want revoked %v", i, status, err, revoked)
					return
				}
			}
		}
		for _, s := range running() {
			for _, name := range []string{issuing.keyID, listOf(certs[i])} {
				began := time.Now()
				for ; ; time.Sleep(20 * time.Millisecond) {
					l := watch.fetch(s, name)
					if l != nil && slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(certs[i].SerialNumber) == 0 }) == revoked {
						note("CRL", time.Since(began))
						break
					}
					if !slices.Contains(running(), s) {
						break
					}
					if time.Since(began) > 20*time.Second {
						t.Errorf("the list %s does not show in time that certificate %d is revoked: %v", name, i, revoked)
						return
					}
				}
			}
		}
	}
	for g := range 8 {
		r := rand.New(rand.NewPCG(uint64(g), 4))
		wg.Go(func() {
			for i := g; i < n; i += 8 {
				change := func(what string, f func(c *client.Client) error, revoked bool) {
					for {
						on := running()
						err := f(on[r.IntN(len(on))].Client)
						if err == nil {
							break
						}
						if alive.Load() == 0 && done.Load() < n/2 {
							t.Errorf("%s: %v", what, err)
							return
						}
						// The one that was killed may have done it.
						if e, ok := errors.AsType[*client.Error](err); ok && e.Status == 409 {
							break
						}
						time.Sleep(50 * time.Millisecond)
					}
					see(i, revoked)
				}
				hold := func(c *client.Client) error { _, err := c.Hold(t.Context(), ids[i]); return err }
				release := func(c *client.Client) error { _, err := c.Release(t.Context(), ids[i]); return err }
				revoke := func(c *client.Client) error {
					_, err := c.Revoke(t.Context(), ids[i], client.RevokeRequest{Reason: "superseded"})
					return err
				}
				switch r.IntN(3) {
				case 0:
					change("revoke", revoke, true)
				case 1:
					change("hold", hold, true)
					change("revoke", revoke, true)
				case 2:
					change("hold", hold, true)
					change("release", release, false)
				}
				if done.Add(1) >= n/2 {
					halfOnce.Do(func() { close(half) })
				}
			}
		})
	}
	<-half
	if a.logged(holds) >= b.logged(holds) && a.logged(holds) > 0 {
		alive.Store(2)
		a.Kill()
	} else {
		alive.Store(1)
		b.Kill()
	}
	wg.Wait()
	t.Logf("at most: %v; %d lists fetched", worst, watch.fetched())
}

// logged returns how often the server's log has a text.
func (s *Server) logged(text string) int { return strings.Count(s.Log(), text) }

// TestKillReplica has 64 clients issue and revoke on two replicas, and kills the one that makes the CRLs. Verifiers fetch
// from both all the while.
func TestKillReplica(t *testing.T) {
	t.Parallel()
	a, b := StartReplicas(t, pgtest.DSN(t))
	book, watch := newLedger(), newCRLWatch(t)
	ids := listsOfForms(t, a)
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
