package server

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/pki"
)

// startForCerts opens a server on the folder without running it.
func startForCerts(t *testing.T, data string) *Server {
	t.Helper()
	cfg := config.Config{Data: data, HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", MTLS: "127.0.0.1:0"}
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestListenerCertificateWithoutIssuingCA: the listeners have a certificate while the issuing CA may not issue, at a
// start, too. Without it nobody could be told what is revoked.
func TestListenerCertificateWithoutIssuingCA(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s := startForCerts(t, data)
	issuing, err := s.issuers.Current().Issuer("issuing")
	if err != nil {
		t.Fatal(err)
	}
	wantBy := func(s *Server, name string) {
		t.Helper()
		i, err := s.issuers.Current().Issuer(name)
		if err != nil {
			t.Fatal(err)
		}
		leaf := s.own.current.Load().Leaf
		if err := leaf.CheckSignatureFrom(i.Current.Certificate); err != nil {
			t.Errorf("the listeners' certificate is not from %s: %v", name, err)
		}
	}
	change := func(do func(context.Context, ca.StatusRequest) (pki.Certificate, error), reason pki.Reason) {
		t.Helper()
		r := ca.StatusRequest{Principal: pki.System(), Certificate: issuing.Current.Fingerprint, Reason: reason}
		if _, err := do(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if err := s.own.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantBy(s, "issuing")
	change(s.ca.Hold, 0)
	wantBy(s, "root")
	change(s.ca.Release, 0)
	wantBy(s, "issuing")
	change(s.ca.Revoke, pki.CACompromise)
	wantBy(s, "root")
	s.Close()
	wantBy(startForCerts(t, data), "root")
}
