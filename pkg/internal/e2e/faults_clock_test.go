package e2e

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/server"
)

// wrongClock is the server's clock, which the test sets.
type wrongClock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *wrongClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *wrongClock) set(off time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = off
}

// startInside starts a server within the test process, so that its clock can be set. Ending it is the test's part.
func startInside(t *testing.T, clock *wrongClock, o Options) (s *Server, end func()) {
	t.Helper()
	cfg := config.Config{Data: o.Data, Database: o.Database, HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", MTLS: "127.0.0.1:0"}
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	inside, err := server.New(t.Context(), cfg, server.Options{Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() {
		if err := inside.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	end = sync.OnceFunc(func() { cancel(); run.Wait() })
	t.Cleanup(end)
	s = &Server{t: t, Data: o.Data, HTTP: inside.HTTPURL, HTTPS: inside.HTTPSURL, MTLS: inside.MTLSURL, PublicURL: inside.PublicURL}
	s.Root = parseCertificate(t, readFile(t, filepath.Join(o.Data, "root.pem")))
	s.Roots = x509.NewCertPool()
	s.Roots.AddCert(s.Root)
	s.Token = strings.TrimSpace(string(readFile(t, filepath.Join(o.Data, "admin.token"))))
	s.Client = s.ClientFor(s.Token)
	return s, end
}

// TestWrongClock sets the clock of a running server wrong in both directions. It signs nothing meanwhile, serves what it
// has, and goes on when the clock is right again: nothing that was done with the wrong time is left behind.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	clock := &wrongClock{}
	s, _ := startInside(t, clock, Options{Data: filepath.Join(t.TempDir(), "data")})
	watch := newCRLWatch(t)
	issuing, ids := faultIssuer(t, s, "issuing"), []string(nil)
	eventually(t, 10*time.Second, "ready", func() error {
		if !s.IsReady() {
			return errors.New("not ready")
		}
		return nil
	})
	ids = issuerKeyIDs(t, s)
	watch.follow(t, ids, s)
	request := newFaultCSR(t, "clock.example.com")
	issue := func() (client.Certificate, error) {
		return s.Client.Issue(t.Context(), client.IssueRequest{CSR: request, Profile: "server"})
	}
	first, err := issue()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := askOCSP(s, issuing, serialOfPEM(t, first)); err != nil || got != ocsp.Good {
		t.Fatalf("OCSP = %d, %v", got, err)
	}
	for _, name := range []string{"spare-behind", "spare-ahead"} {
		if _, err := s.Client.CreateToken(t.Context(), client.CreateTokenRequest{Name: name, Role: "auditor"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name         string
		off          time.Duration
		detail, hint string
	}{
		{"behind", -10 * time.Minute, "behind the newest record", "set the clock"},
		{"ahead", 2 * time.Hour, "jumped ahead", "restart the server to confirm"},
	} {
		clock.set(row.off)
		refused := func(doing string, err error) {
			t.Helper()
			e, ok := errors.AsType[*client.Error](err)
			if !ok || e.Status != http.StatusServiceUnavailable || e.Kind() != "unavailable" || !strings.Contains(e.Detail, row.detail) || !strings.Contains(e.Hint, row.hint) {
				t.Errorf("%s, %s: want 503 with the clock's error and %q, got %v", row.name, doing, row.hint, err)
			}
		}
		_, err := issue()
		refused("issuing", err)
		_, err = s.Client.Revoke(t.Context(), first.ID, client.RevokeRequest{Reason: "superseded"})
		refused("revoking", err)
		_, err = s.Client.Renew(t.Context(), first.ID, client.RenewRequest{})
		refused("renewing", err)
		_, err = s.Client.CreateToken(t.Context(), client.CreateTokenRequest{Name: "clock-" + row.name, Role: "auditor"})
		refused("making a token", err)
		// A token may be ended at any time; the record of it must not carry the wrong one.
		if err := s.Client.RevokeToken(t.Context(), "spare-"+row.name); err != nil {
			refused("revoking a token", err)
		}
		for _, id := range ids {
			if watch.fetch(s, id) == nil {
				t.Errorf("%s: no CRL", row.name)
			}
		}
		// What OCSP says must be true, or it must say nothing.
		if got, err := askOCSP(s, issuing, serialOfPEM(t, first)); err == nil && got != ocsp.Good || err != nil && !errors.Is(err, errTryLater) {
			t.Errorf("%s: OCSP = %d, %v", row.name, got, err)
		}
		if got, err := s.Client.Certificate(t.Context(), first.ID); err != nil || got.Status != "valid" {
			t.Errorf("%s: reading = %s, %v", row.name, got.Status, err)
		}
		if res, err := plainHTTP.Get(s.HTTP + "/readyz"); err != nil || res.StatusCode != 503 {
			t.Errorf("%s: /readyz: %v", row.name, err)
		} else {
			res.Body.Close()
		}
		fetch(t, s.HTTP+"/healthz")
		fetch(t, s.HTTP+"/")

		clock.set(0)
		if _, err := issue(); err != nil {
			t.Errorf("%s, and right again: %v", row.name, err)
		}
		eventually(t, 5*time.Second, "ready again", func() error {
			if !s.IsReady() {
				return errors.New("not ready")
			}
			_, err := askOCSP(s, issuing, serialOfPEM(t, first))
			return err
		})
	}
	// CRLs and revocation work, and thisUpdate has not gone back: the watch would tell.
	if _, err := s.Client.Revoke(t.Context(), first.ID, client.RevokeRequest{Reason: "superseded"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, crlSoon, "the revocation in the CRL", func() error {
		if l := watch.fetch(s, issuing.keyID); l == nil || len(l.RevokedCertificateEntries) != 1 {
			return errors.New("not there")
		}
		return nil
	})
	if got, err := askOCSP(s, issuing, serialOfPEM(t, first)); err != nil || got != ocsp.Revoked {
		t.Errorf("OCSP = %d, %v", got, err)
	}
	// A clock that is a little behind is bridged: time in records and lists never goes back.
	clock.set(-2 * time.Minute)
	second, err := issue()
	if err != nil {
		t.Fatalf("two minutes behind: %v", err)
	}
	if second.IssuedAt.Before(first.IssuedAt) {
		t.Errorf("issued at %s, after one that was issued at %s", second.IssuedAt, first.IssuedAt)
	}
	if v, err := s.Client.VerifyAudit(t.Context()); err != nil || !v.Whole {
		t.Errorf("the audit chain: %+v, %v", v, err)
	}
}
