package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"path/filepath"
	"slices"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/ocsp"
	"github.com/certwright/certwright/pkg/pki"
)

// TestDelegates follows the certificates of OCSP responders: one for each issuer key, the root's too, renewed while the
// process runs, another one in each process.
func TestDelegates(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s := startForCerts(t, data)
	now := time.Now()
	s.signers.now = func() time.Time { return now }

	// delegateOf returns who signs for a key, having checked that he may.
	delegateOf := func(s *Server, key *issuer.Key) *x509.Certificate {
		t.Helper()
		d, err := s.signers.Delegate(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.signers.Delegate(t.Context(), key); err != nil || again != d {
			t.Errorf("%s: another delegate, though nothing has changed: %v", key.Issuer.Name, err)
		}
		c, err := x509.ParseCertificate(d.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.CheckSignatureFrom(key.Certificate); err != nil {
			t.Errorf("%s: not issued by that very CA: %v", key.Issuer.Name, err)
		}
		noCheck := func(e pkix.Extension) bool { return e.Id.String() == "1.3.6.1.5.5.7.48.1.5" }
		pub, ok := c.PublicKey.(*ecdsa.PublicKey)
		if !ok || pub.Curve != elliptic.P256() || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}) || !slices.ContainsFunc(c.Extensions, noCheck) {
			t.Errorf("%s: key %T, purposes %v, extensions %v", key.Issuer.Name, c.PublicKey, c.ExtKeyUsage, c.Extensions)
		}
		return c
	}
	// answered returns the certificate inside an answer that was made just now.
	answered := func(s *Server, key *issuer.Key) *x509.Certificate {
		t.Helper()
		// What every key has certified: its responder.
		subject := delegateOf(s, key)
		request, err := xocsp.CreateRequest(subject, key.Certificate, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.ocsp.Forget(key.ID, pki.SerialNumber(subject.SerialNumber.Bytes()))
		a := s.ocsp.Respond(t.Context(), request)
		if a.Status != ocsp.Successful {
			t.Fatalf("%s: %s", key.Issuer.Name, a.Status)
		}
		r, err := xocsp.ParseResponseForCert(a.DER(), subject, key.Certificate)
		if err != nil || r.Status != xocsp.Good {
			t.Fatalf("%s: %+v, %v", key.Issuer.Name, r, err)
		}
		return r.Certificate
	}

	keys := s.issuers.Current().Keys()
	if len(keys) != 2 {
		t.Fatalf("%d keys, want the root's and the issuing CA's", len(keys))
	}
	first := map[int64]*x509.Certificate{}
	for _, key := range keys {
		first[key.ID] = delegateOf(s, key)
		if got := answered(s, key); !got.Equal(first[key.ID]) {
			t.Errorf("%s: the answer carries another certificate than the delegate's", key.Issuer.Name)
		}
	}
	if first[keys[0].ID].PublicKey.(*ecdsa.PublicKey).Equal(first[keys[1].ID].PublicKey) {
		t.Error("two issuers share a responder's key")
	}

	// Just before two thirds of its life nothing happens, then a new one is there, and signs.
	life := first[keys[0].ID].NotAfter.Sub(first[keys[0].ID].NotBefore)
	now = first[keys[0].ID].NotBefore.Add(life*2/3 - time.Minute)
	if err := s.signers.renewAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !delegateOf(s, keys[0]).Equal(first[keys[0].ID]) {
		t.Error("renewed too early")
	}
	now = now.Add(10 * time.Minute)
	if err := s.signers.renewAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := map[int64]*x509.Certificate{}
	for _, key := range keys {
		second[key.ID] = delegateOf(s, key)
		if second[key.ID].Equal(first[key.ID]) {
			t.Errorf("%s: not renewed after two thirds of its life", key.Issuer.Name)
		}
		if got := answered(s, key); !got.Equal(second[key.ID]) {
			t.Errorf("%s: the old one still signs", key.Issuer.Name)
		}
	}
	// A process that slept through its end has one made at the next question.
	now = second[keys[0].ID].NotAfter.Add(time.Hour)
	if s.signers.missing() == "" {
		t.Error("nobody tells that the responders' certificates have ended")
	}
	for _, key := range keys {
		d, err := s.signers.Delegate(t.Context(), key)
		if err != nil || bytes.Equal(d.Certificate, second[key.ID].Raw) {
			t.Errorf("%s: a delegate that has ended, %v", key.Issuer.Name, err)
		}
	}

	// A CA that may not certify any more signs by itself, and its own certificate is in the answer.
	now = time.Now()
	issuing, err := s.issuers.Current().Issuer("issuing")
	if err != nil {
		t.Fatal(err)
	}
	last := delegateOf(s, issuing.Current)
	if _, err := s.ca.Revoke(t.Context(), ca.StatusRequest{Principal: pki.System(), Certificate: issuing.Current.Fingerprint, Reason: pki.CACompromise}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = startForCerts(t, data)
	if issuing, err = s.issuers.Current().Issuer("issuing"); err != nil {
		t.Fatal(err)
	}
	d, err := s.signers.Delegate(t.Context(), issuing.Current)
	if err != nil || !bytes.Equal(d.Certificate, issuing.Current.Certificate.Raw) {
		t.Errorf("a revoked CA does not sign by itself: %v", err)
	}
	request, err := xocsp.CreateRequest(last, issuing.Current.Certificate, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := s.ocsp.Respond(t.Context(), request)
	// Without the issuer: x/crypto takes whatever is embedded for a delegate.
	if r, err := xocsp.ParseResponseForCert(a.DER(), last, nil); err != nil || r.Certificate == nil || !r.Certificate.Equal(issuing.Current.Certificate) {
		t.Errorf("its answer: %v, %v; want the CA's certificate inside", a.Status, err)
	}
	root, err := s.issuers.Current().Issuer("root")
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []map[int64]*x509.Certificate{first, second} {
		if of[root.Current.ID].Equal(delegateOf(s, root.Current)) {
			t.Error("the next process has the same responder's certificate")
		}
	}
}
