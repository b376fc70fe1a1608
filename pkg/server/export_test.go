package server

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/export"
	"github.com/certwright/certwright/pkg/publish"
)

// TestExport: the folder that the server exports to is what it serves, octet by octet, and follows it.
func TestExport(t *testing.T) {
	if publish.IndexPath != export.IndexPath {
		t.Fatalf("the index is published at %s and looked for at %s", publish.IndexPath, export.IndexPath)
	}
	dir := filepath.Join(t.TempDir(), "site")
	s := runServer(t, func(c *config.Config) { c.Export.To = dir })
	issuing, err := s.issuers.Current().Issuer("issuing")
	if err != nil {
		t.Fatal(err)
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, s.export.State())
			}
		}
	}
	entries := func() int {
		b, err := os.ReadFile(filepath.Join(dir, "crl", issuing.Current.KeyID+".crl"))
		if err != nil {
			return -1
		}
		l, err := x509.ParseRevocationList(b)
		if err != nil {
			t.Fatalf("what is exported is no CRL: %v", err)
		}
		return len(l.RevokedCertificateEntries)
	}
	id := s.issue()
	until("the first export", func() bool { return entries() == 0 })
	s.api("POST", "/certificates/"+id+"/revoke", map[string]any{"reason": "superseded"})
	until("the revocation", func() bool { return entries() == 1 })

	// When nothing changes any more every file is as it is served, and nothing else is there.
	_, _, answer := s.ask("GET", s.HTTPURL+publish.IndexPath, "", nil)
	var index struct{ Paths []string }
	if err := json.Unmarshal(answer, &index); err != nil {
		t.Fatal(err)
	}
	until("the same", func() bool {
		for _, path := range index.Paths {
			status, _, served := s.ask("GET", s.HTTPURL+path, "", nil)
			if status != http.StatusOK {
				t.Fatalf("%s is in the index: %d", path, status)
			}
			name, err := url.PathUnescape(path)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(b, served) {
				return false
			}
		}
		return true
	})
	var files []string
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(d.Name(), ".") {
			files = append(files, "/"+filepath.ToSlash(strings.TrimPrefix(path, dir+"/")))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	slices.Sort(index.Paths)
	if !slices.Equal(files, index.Paths) || len(files) < 12 {
		t.Errorf("the folder holds %v, the index says %v", files, index.Paths)
	}
	// Every address in certificates is among them, but for OCSP's.
	for _, k := range s.issuers.Current().Keys() {
		for _, a := range append(slices.Clone(k.Certificate.CRLDistributionPoints), k.Certificate.IssuingCertificateURL...) {
			if u, err := url.Parse(a); err != nil || !slices.Contains(files, u.Path) {
				t.Errorf("%s stands in a certificate and is not exported", a)
			}
		}
	}
	if h := s.health(); h.Checks["export"] != healthOK {
		t.Errorf("readyz: %v", h.Checks)
	}
	_, _, scrape := s.ask("GET", s.MetricsURL, "", nil)
	for _, want := range []string{"certwright_export_failing 0", `certwright_export_files_total{result="written"}`, "certwright_export_success_timestamp_seconds "} {
		if !bytes.Contains(scrape, []byte("\n"+want)) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
