package e2e

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/client"
)

// fill takes all the space that is left of a file system, and returns the file to remove.
func fill(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for b := make([]byte, size); err == nil; {
			_, err = f.Write(b)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("filling the disk: %v", err)
		}
		err = nil
	}
	return path
}

// TestDiskFull takes the space away under the embedded store. Nothing may be half written, what was said stays so, and
// verifiers notice nothing.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	mount := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	if err := mountTmpfs(mount, "size=24m,mode=0700"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unmount(mount); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	s := Start(t, Options{Data: filepath.Join(mount, "data")})
	t.Cleanup(s.Kill) // before the file system goes
	book, watch := newLedger(), newCRLWatch(t)
	ids, issuing := listsOfForms(t, s), faultIssuer(t, s, "issuing")
	watch.follow(t, ids, s)
	load := startLoad(t, book, 4, s)
	load.reach(t, 20*time.Second, 30)

	ballast := fill(t, mount)
	// Pages that SQLite has taken before are still written to.
	eventually(t, 30*time.Second, "issuing fails", func() error {
		if load.away.Load() == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	load.stop()
	request := newFaultCSR(t, "full.example.com")
	var refusal *client.Error
	eventually(t, 20*time.Second, "issuing fails", func() error {
		// The ballast takes what SQLite gives back.
		fill(t, mount)
		c, err := s.Client.Issue(t.Context(), client.IssueRequest{CSR: request, Profile: "server"})
		if err == nil {
			return errors.Join(book.issued(c), errors.New("it was issued"))
		}
		var ok bool
		if refusal, ok = errors.AsType[*client.Error](err); !ok {
			t.Fatal(err)
		}
		return nil
	})
	if refusal.Status != http.StatusServiceUnavailable || !strings.Contains(refusal.Detail, "disk") || !strings.Contains(refusal.Hint, "space") {
		t.Errorf("a full disk is told as %d: %s (hint: %s)", refusal.Status, refusal.Detail, refusal.Hint)
	}

	// What was issued can be read, verifiers are served.
	certs, revoked := book.counts()
	t.Logf("the disk is full after %d certificates and %d revocations", certs, revoked)
	inParallel(t, book.order, func(id string) error {
		_, err := s.Client.Certificate(t.Context(), id)
		return err
	})
	for _, id := range book.order[max(0, len(book.order)-100):] {
		want := ocsp.Good
		if book.revoked[id] {
			want = ocsp.Revoked
		}
		if got, err := askOCSP(s, issuing, serialOf(t, book.certs[id])); !book.asked[id] && got != want || book.revoked[id] && got != want || err != nil {
			t.Errorf("OCSP = %d, %v; want %d", got, err, want)
		}
	}
	for _, id := range ids {
		fetch(t, s.HTTP+"/crl/"+id+".crl")
		fetch(t, s.HTTP+"/crl/"+id+".pem")
	}
	fetch(t, s.HTTP+"/healthz")

	// A server that starts now says what is wrong, or starts; it does not hang, and does no harm.
	s.Kill()
	if err := s.TryAgain(); err == nil {
		t.Log("a start on a full disk works")
	} else if log := s.Log(); !strings.Contains(log, "disk") || strings.Contains(log, "panic") {
		t.Errorf("a start on a full disk does not say so:\n%s", log)
	}
	s.Kill()

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.Again()
	ballast = fill(t, mount)
	eventually(t, 30*time.Second, "issuing fails again", func() error {
		c, err := s.Client.Issue(t.Context(), client.IssueRequest{CSR: request, Profile: "server"})
		if err != nil {
			return nil
		}
		return errors.Join(book.issued(c), errors.New("it was issued"))
	})
	// Space comes back while the server runs: everything works again without a restart, CRLs included.
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, 10*time.Second, "issuing works again", func() error {
		c, err := s.Client.Issue(t.Context(), client.IssueRequest{CSR: request, Profile: "server"})
		if err != nil {
			return err
		}
		return book.issued(c)
	})
	t.Logf("issuing works again after %s", took)
	load = startLoad(t, book, 4, s)
	load.reach(t, 20*time.Second, 10)
	load.stop()
	if load.away.Load() > 0 {
		t.Errorf("%d answers of 503 after there was space again", load.away.Load())
	}
	// A CRL that failed is tried again after 5 seconds at the latest.
	book.verify(t, s, watch, crlLease)
	s.Stop()
	// It says rightly that this disk is small, and must find nothing else.
	if r := s.CLI("store", "check"); !strings.HasPrefix(r.Out, "SERIOUS  The disk that holds") || strings.Count(r.Out, "mend:") != 1 {
		t.Errorf("store check: code %d\n%s%s", r.Code, r.Out, r.Err)
	}
}

// TestShutdownUnderLoad ends the server in good order while 32 clients issue: each gets an answer or a closed
// connection, never a certificate that the store does not have.
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	book, watch := newLedger(), newCRLWatch(t)
	ids := issuerKeyIDs(t, s)
	for round := range 3 {
		stopWatching := watch.follow(t, ids, s)
		load := startLoad(t, book, 32, s)
		load.reach(t, 20*time.Second, 50)
		// A client that says nothing must not keep the server.
		var limit time.Duration
		idle, err := http.NewRequestWithContext(t.Context(), "POST", s.HTTPS+"/api/v1/certificates", neverEnding{t.Context().Done()})
		if err != nil {
			t.Fatal(err)
		}
		idle.Header.Set("Authorization", "Bearer "+s.Token)
		idle.Header.Set("Content-Type", "application/json")
		if limit = 5 * time.Second; round == 2 {
			limit = stopTimeout
			go func() {
				if res, err := s.Browser(nil).Do(idle); err == nil {
					res.Body.Close()
				}
			}()
		}
		<-time.After(killMoment() / 3)
		began := time.Now()
		if code := s.process.Signal(syscall.SIGTERM, limit); code != 0 {
			t.Errorf("the server ended with code %d", code)
		}
		took := time.Since(began)
		load.stop()
		stopWatching()
		if log := s.Log(); strings.Contains(log, "panic") || strings.Contains(log, "level=ERROR") {
			t.Errorf("the end was not clean:\n%s", log)
		}
		s.Again()
		book.verify(t, s, watch, crlSoon)
		t.Logf("ended within %s: %d answers of 503, %d connections broke", took, load.away.Load(), load.broken.Load())
	}
}

// neverEnding is a body that never comes.
type neverEnding struct{ done <-chan struct{} }

func (n neverEnding) Read([]byte) (int, error) {
	<-n.done
	return 0, io.ErrUnexpectedEOF
}
