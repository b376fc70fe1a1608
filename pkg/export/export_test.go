package export_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/export"
)

// signer issues CRLs of one key.
type signer struct {
	t    testing.TB
	key  crypto.Signer
	cert *x509.Certificate
}

func newSigner(t testing.TB) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte(rand.Text()),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{t, key, cert}
}

// crl returns a CRL in DER with this number and so many entries.
func (s *signer) crl(number int64, entries int) []byte {
	s.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for i := range entries {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(int64(i + 1)), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, s.cert, s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return der
}

func asPEM(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	return out
}

// site is what a server publishes; paths are escaped, as in its index.
type site struct {
	mu    sync.Mutex
	files map[string][]byte // guarded by mu
	fail  bool              // guarded by mu
	index []string          // guarded by mu; nil: the paths of the files
}

func (s *site) set(path string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		s.files = map[string][]byte{}
	}
	s.files[path] = content
}

var modified = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	if r.URL.Path == export.IndexPath {
		paths := s.index
		if paths == nil {
			for p := range s.files {
				paths = append(paths, p)
			}
		}
		fmt.Fprintf(w, `{"paths": ["%s"]}`, strings.Join(paths, `", "`))
		return
	}
	content, ok := s.files[r.URL.EscapedPath()]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl")
	w.Header().Set("Cache-Control", "max-age=60, public")
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(content)))
	http.ServeContent(w, r, "", modified, bytes.NewReader(content))
}

// exporter exports the site into the target and notes what becomes of each file.
func exporter(t *testing.T, s *site, target export.Target, edit ...func(*export.Config)) (*export.Exporter, func() string) {
	t.Helper()
	var mu sync.Mutex
	var done []string
	cfg := export.Config{Source: export.HandlerSource(s), Target: target, Done: func(name string, o export.Outcome) {
		mu.Lock()
		defer mu.Unlock()
		done = append(done, name+" "+o.String())
	}}
	for _, f := range edit {
		f(&cfg)
	}
	e, err := export.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e, func() string {
		mu.Lock()
		defer mu.Unlock()
		all := strings.Join(done, ", ")
		done = nil
		return all
	}
}

func folder(t *testing.T) (*export.Folder, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new", "site")
	f, err := export.NewFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, dir
}

// testTarget is what every target must do. read returns what is there, nil if nothing is; put is somebody else's hand.
func testTarget(t *testing.T, target func() export.Target, read func(name string) []byte, put func(name string, content []byte)) {
	ctx := t.Context()
	ca, other := newSigner(t), newSigner(t)
	s := &site{}
	e, done := exporter(t, s, target(), func(c *export.Config) { c.Verify = time.Hour })
	step := func(what, want string) {
		t.Helper()
		if err := e.Once(ctx); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := done(); got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	holds := func(what, name string, want []byte) {
		t.Helper()
		if got := read(name); !bytes.Equal(got, want) {
			t.Errorf("%s: %s has %d octets, want %d", what, name, len(got), len(want))
		}
	}
	seventh := ca.crl(7, 3)
	s.set("/crl/key.crl", seventh)
	step("first", "crl/key.crl written")
	step("nothing has changed", "")
	holds("first", "crl/key.crl", seventh)

	// A second exporter, as after a restart, finds it there.
	again, doneAgain := exporter(t, s, target())
	if err := again.Once(ctx); err != nil || doneAgain() != "crl/key.crl unchanged" {
		t.Errorf("a second exporter: %v", err)
	}
	s.set("/crl/key.crl", ca.crl(6, 2))
	step("an older one", "crl/key.crl kept")
	holds("an older one", "crl/key.crl", seventh)
	eighth := ca.crl(8, 4)
	s.set("/crl/key.crl", eighth)
	step("a newer one", "crl/key.crl written")
	holds("a newer one", "crl/key.crl", eighth)

	// Somebody else's exporter was faster; and a number beyond 64 bits.
	theirs := ca.crl(1<<62, 1)
	put("crl/key.crl", theirs)
	s.set("/crl/key.crl", ca.crl(9, 5))
	step("somebody has put a newer one there", "crl/key.crl kept")
	holds("somebody has put a newer one there", "crl/key.crl", theirs)

	// A bundle goes on when none of its CRLs goes back; one of another CA is none of its numbers.
	s.set("/crls/issuing.pem", asPEM(ca.crl(5, 1), other.crl(100, 0)))
	delete(s.files, "/crl/key.crl")
	step("a bundle", "crls/issuing.pem written")
	s.set("/crls/issuing.pem", asPEM(ca.crl(6, 1), other.crl(99, 0)))
	step("a bundle of which one goes back", "crls/issuing.pem kept")
	newer := asPEM(ca.crl(6, 1), other.crl(100, 0))
	s.set("/crls/issuing.pem", newer)
	step("a newer bundle", "crls/issuing.pem written")
	holds("a newer bundle", "crls/issuing.pem", newer)
	holds("what is published no more", "crl/key.crl", theirs) // stays

	// What is no CRL is replaced, whatever was there.
	put("roots.pem", []byte("something"))
	s.set("/roots.pem", []byte("-----BEGIN CERTIFICATE-----"))
	step("no CRL", "roots.pem written")

	// A name that has to be escaped in addresses.
	s.set("/chain/A%20%C3%BC%25.pem", []byte("chain"))
	step("an escaped path", "chain/A ü%.pem written")
	holds("an escaped path", "chain/A ü%.pem", []byte("chain"))

	// What others break is found in time.
	put("roots.pem", []byte("broken"))
	e, done = exporter(t, s, target(), func(c *export.Config) { c.Verify = time.Nanosecond })
	s.index = []string{"/roots.pem"}
	step("broken by others", "roots.pem written")
	if st := e.State(); st.Files[export.Written] != 1 || st.Err != nil || st.Success.IsZero() || st.Failed != 0 {
		t.Errorf("State = %+v", st)
	}
}

func TestFolder(t *testing.T) {
	_, dir := folder(t)
	testTarget(t, func() export.Target {
		f, err := export.NewFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}, func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil
		}
		return b
	}, func(name string, content []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	info, err := os.Stat(filepath.Join(dir, "roots.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o644 || !info.ModTime().Equal(modified) {
		t.Errorf("roots.pem has mode %v and time %v, want 0644 and %v", info.Mode(), info.ModTime(), modified)
	}
}

// TestFolderLeavesNothingHalf: a write that cannot end leaves the old file, and what earlier processes left is swept up.
func TestFolderLeavesNothingHalf(t *testing.T) {
	f, dir := folder(t)
	if err := os.MkdirAll(filepath.Join(dir, "crl", "key.crl", "x"), 0o755); err != nil { // a folder in its place
		t.Fatal(err)
	}
	old, young, foreign := filepath.Join(dir, "crl", ".certwright-OLD.tmp"), filepath.Join(dir, "crl", ".certwright-NEW.tmp"), filepath.Join(dir, "crl", "old.tmp")
	for _, name := range []string{old, young, foreign} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if name != young {
			past := time.Now().Add(-24 * time.Hour)
			if err := os.Chtimes(name, past, past); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := f.Put(t.Context(), export.File{Name: "crl/key.crl", Content: []byte("x")}); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if _, err := f.Put(t.Context(), export.File{Name: "crl/other.crl", Content: []byte("x")}); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "crl"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), ".certwright-NEW.tmp key.crl old.tmp other.crl"; got != want {
		t.Errorf("the folder holds %s, want %s", got, want)
	}
}

// TestFolderIsNotLeft: neither by the names in an index, nor by a symbolic link in the folder.
func TestFolderIsNotLeft(t *testing.T) {
	f, dir := folder(t)
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "ca")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/../x", "/a/../../x", "/%2e%2e/x", "/a/%2e%2e%2f%2e%2e/x", "//x", "/a//x", "x", "", "/", "/.htaccess", "/a/.git/x", "/a%00", `/a\\b`, "/%zz", "/ca/x.cer",
	} {
		s := &site{index: []string{path}, files: map[string][]byte{path: []byte("evil")}}
		e, _ := exporter(t, s, f)
		if err := e.Once(t.Context()); err == nil {
			t.Errorf("%q was exported", path)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("outside: %v, %v", entries, err)
	}
}

// TestFoldersExportersTakeTurns has many write growing CRLs into one folder: the newest is there in the end.
func TestFoldersExportersTakeTurns(t *testing.T) {
	_, dir := folder(t)
	ca := newSigner(t)
	var all sync.WaitGroup
	for g := range 4 {
		f, err := export.NewFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		all.Go(func() {
			for n := range 10 {
				if _, err := f.Put(t.Context(), export.File{Name: "a.crl", Content: ca.crl(int64(1+n*4+g), 1)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	b, err := os.ReadFile(filepath.Join(dir, "a.crl"))
	if err != nil {
		t.Fatal(err)
	}
	if l, err := x509.ParseRevocationList(b); err != nil || l.Number.Int64() != 40 {
		t.Errorf("number %v, %v; want 40", l.Number, err)
	}
}

// TestRun: failures are told and got over, and the end of the context is none.
func TestRun(t *testing.T) {
	f, dir := folder(t)
	s := &site{fail: true}
	s.set("/roots.pem", []byte("first"))
	e, _ := exporter(t, s, f, func(c *export.Config) { c.Every = time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { e.Run(ctx) })
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, e.State())
			}
		}
	}
	until("failing", func() bool { st := e.State(); return st.Err != nil && !st.Since.IsZero() && st.Failed > 0 })
	s.mu.Lock()
	s.fail = false
	s.mu.Unlock()
	has := func(want string) func() bool {
		return func() bool {
			b, err := os.ReadFile(filepath.Join(dir, "roots.pem"))
			return err == nil && string(b) == want
		}
	}
	until("recovered", has("first"))
	until("well", func() bool { st := e.State(); return st.Err == nil && st.Since.IsZero() })
	s.set("/roots.pem", []byte("second"))
	until("changed", has("second"))
	cancel()
	running.Wait()
	if st := e.State(); st.Err != nil {
		t.Errorf("after the end: %v", st.Err)
	}
}

// TestHTTPSource takes everything over a network.
func TestHTTPSource(t *testing.T) {
	f, dir := folder(t)
	s := &site{}
	s.set("/roots.pem", []byte("roots"))
	server := httptest.NewServer(s)
	defer server.Close()
	e, _ := exporter(t, s, f, func(c *export.Config) { c.Source = export.Source{Base: server.URL, Client: server.Client()} })
	if err := e.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "roots.pem")); err != nil || string(b) != "roots" {
		t.Errorf("got %q, %v", b, err)
	}
	server.Close()
	if err := e.Once(t.Context()); err == nil {
		t.Error("a server that is away is no error")
	}
}
