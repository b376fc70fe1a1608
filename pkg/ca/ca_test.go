package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/sqlite"
)

const publicURL = "http://pki.example.com"

// bench is an authority on a real store, with a clock that the test sets.
type bench struct {
	t       *testing.T
	ca      *ca.Authority
	store   store.Store
	issuers *issuer.Set
	now     time.Time
	random  *stuck

	changing *sync.Mutex // guards changed
	changed  []pki.Fingerprint
}

// stuck is a random source that can be made to repeat itself.
type stuck struct{ on bool }

func (s *stuck) Read(b []byte) (int, error) {
	if s.on {
		clear(b)
		return len(b), nil
	}
	return rand.Read(b)
}

func newBench(t *testing.T, alg keys.Algorithm) *bench {
	t.Helper()
	path := filepath.Join(t.TempDir(), "certwright.db")
	if _, _, err := sqlite.Migrate(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return newBenchOn(t, alg, s)
}

func newBenchOn(t *testing.T, alg keys.Algorithm, s store.Store) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), random: &stuck{}, store: s, changing: new(sync.Mutex)}
	// Sealing is package keys' matter; here a key is kept as it is, in the test's own memory.
	sealed := map[string]crypto.Signer{}
	err := ca.Bootstrap(t.Context(), s, ca.Hierarchy{
		Organization: "Example", Algorithm: alg, PublicURL: publicURL, Now: b.now, KEKInfo: []byte("{}"),
		Seal: func(k crypto.Signer) ([]byte, error) {
			spki, err := x509.MarshalPKIXPublicKey(k.Public())
			sealed[keys.KeyID(spki)] = k
			return []byte(keys.KeyID(spki)), err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.issuers, err = issuer.Load(t.Context(), issuer.Config{Store: s, Open: func(id []byte) (crypto.Signer, error) { return sealed[string(id)], nil }})
	if err != nil {
		t.Fatal(err)
	}
	start := b.now
	guard := clock.New(func() time.Time { return b.now }, func() time.Duration { return b.now.Sub(start) })
	b.ca, err = ca.New(ca.Config{
		Store: s, Issuers: b.issuers, Clock: guard, PublicURL: publicURL, Reserved: []string{"pki.example.com"}, Random: b.random,
		StatusChanged: func(c pki.Certificate) {
			b.changing.Lock()
			defer b.changing.Unlock()
			b.changed = append(b.changed, c.Fingerprint)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.follow()
	return b
}

func (b *bench) follow() {
	b.t.Helper()
	h, err := b.store.Head(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.ca.Follow(b.t.Context(), h); err != nil {
		b.t.Fatal(err)
	}
	if err := b.issuers.Reload(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := keys.Generate(keys.P256)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func request(t *testing.T, k crypto.Signer, cn string, names ...string) *csr.Request {
	t.Helper()
	raw, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}, DNSNames: names}, k)
	if err != nil {
		t.Fatal(err)
	}
	r, err := csr.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var someone = pki.Principal{Name: "token:someone", Role: pki.RoleOperator, Source: "192.0.2.1"}

func (b *bench) issue(profile, cn string, names ...string) *ca.Issued {
	b.t.Helper()
	i, err := b.ca.Issue(b.t.Context(), ca.Request{Principal: someone, Protocol: "rest", Profile: profile, CSR: request(b.t, newKey(b.t), cn, names...)})
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

func want(t *testing.T, err error, kind fault.Kind, says string) {
	t.Helper()
	if !fault.Is(err, kind) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v (%v), want %v that says %q", err, fault.KindOf(err), kind, says)
	}
}

func TestIssue(t *testing.T) {
	for _, alg := range keys.Algorithms() {
		if testing.Short() && alg.IsRSA() {
			continue
		}
		t.Run(alg.String(), func(t *testing.T) {
			b := newBench(t, alg)
			i := b.issue("server", "www.example.com", "www.example.com")
			c, err := x509.ParseCertificate(i.Record.DER)
			if err != nil {
				t.Fatal(err)
			}
			inter, roots := x509.NewCertPool(), x509.NewCertPool()
			inter.AddCert(i.Chain[0])
			roots.AddCert(i.Chain[1])
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, DNSName: "www.example.com", CurrentTime: b.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
				t.Error(err)
			}
			id := b.issuers.Current().Issuers[1].Current.KeyID
			if !slices.Equal(c.CRLDistributionPoints, []string{publicURL + "/crl/" + id + ".crl"}) || !slices.Equal(c.OCSPServer, []string{publicURL + "/ocsp/" + id}) || !slices.Equal(c.IssuingCertificateURL, []string{publicURL + "/ca/" + id + ".cer"}) {
				t.Errorf("addresses: %v %v %v", c.CRLDistributionPoints, c.OCSPServer, c.IssuingCertificateURL)
			}
			if !bytes.Equal(c.RawIssuer, i.Chain[0].RawSubject) || !bytes.Equal(c.AuthorityKeyId, i.Chain[0].SubjectKeyId) {
				t.Error("issuer or authority key id is not copied from the issuer's certificate")
			}
			if got := []any{c.NotBefore, c.NotAfter}; got[0] != b.now.Add(-5*time.Minute) || got[1] != b.now.AddDate(0, 0, 90).Add(-time.Second) {
				t.Errorf("validity %v", got)
			}
			stored, err := b.store.Certificate(t.Context(), i.Record.Fingerprint)
			if err != nil || !bytes.Equal(stored.DER, i.Record.DER) || stored.Requester != "token:someone" || stored.Source != "192.0.2.1" || stored.ProfileVersion != 1 {
				t.Errorf("stored: %+v, %v", stored, err)
			}
		})
	}
}

func TestIssueRefuses(t *testing.T) {
	b := newBench(t, keys.P256)
	key := newKey(t)
	good := request(t, key, "a.example.com")
	tests := []struct {
		name string
		r    ca.Request
		kind fault.Kind
		says string
	}{
		{"no profile", ca.Request{CSR: good}, fault.BadRequest, "profile"},
		{"unknown profile", ca.Request{CSR: good, Profile: "sever"}, fault.NotFound, "sever"},
		{"internal profile", ca.Request{CSR: good, Profile: "ocsp"}, fault.NotFound, "ocsp"},
		{"no request", ca.Request{Profile: "server"}, fault.BadRequest, "signing request"},
		{"unknown issuer", ca.Request{CSR: good, Profile: "server", Issuer: "isuing"}, fault.NotFound, "isuing"},
		{"leaf from the root", ca.Request{CSR: good, Profile: "server", Issuer: "root"}, fault.PolicyRefused, "CA certificates only"},
		{"CA from one that may not", ca.Request{CSR: good, Profile: "sub-ca"}, fault.PolicyRefused, ""},
		{"our own name", ca.Request{CSR: request(t, key, "pki.example.com"), Profile: "server"}, fault.PolicyRefused, "pki.example.com"},
		{"longer than allowed", ca.Request{CSR: good, Profile: "server", Validity: 1000 * 24 * time.Hour}, fault.PolicyRefused, ""},
	}
	for _, tt := range tests {
		tt.r.Principal = someone
		_, err := b.ca.Issue(t.Context(), tt.r)
		if !fault.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v (%v), want %v that says %q", tt.name, err, fault.KindOf(err), tt.kind, tt.says)
		}
	}
	n, err := b.store.CountCertificates(t.Context(), store.CertificateFilter{Requester: someone.Name}, 10)
	if err != nil || n != 0 {
		t.Errorf("%d certificates were recorded, %v; want none", n, err)
	}
}

func TestKeysOfOursAreRefused(t *testing.T) {
	b := newBench(t, keys.P256)
	responder := newKey(t)
	key := b.issuers.Current().Issuers[1].Current
	c, err := b.ca.IssueInternal(t.Context(), ca.InternalRequest{Profile: ca.ProfileOCSP, Key: key, PublicKey: responder.Public(), CommonName: "responder"})
	if err != nil {
		t.Fatal(err)
	}
	if c.ExtKeyUsage[0] != x509.ExtKeyUsageOCSPSigning || len(c.ExtKeyUsage) != 1 {
		t.Errorf("responder's purposes: %v", c.ExtKeyUsage)
	}
	b.follow()
	for name, signer := range map[string]crypto.Signer{"responder": responder, "issuing CA": key.Signer, "root": b.issuers.Current().Issuers[0].Current.Signer} {
		_, err := b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "client", CSR: request(t, signer, "thief")})
		if !fault.Is(err, fault.BadPublicKey) {
			t.Errorf("a certificate for the key of the %s: %v, want BadPublicKey", name, err)
		}
	}
}

func TestStuckRandomSource(t *testing.T) {
	b := newBench(t, keys.P256)
	b.random.on = true
	if _, err := b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "client", CSR: request(t, newKey(t), "first")}); err != nil {
		t.Fatal(err)
	}
	_, err := b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "client", CSR: request(t, newKey(t), "second")})
	if !fault.Is(err, fault.Internal) || !errors.Is(err, store.ErrSerialTaken) {
		t.Errorf("second certificate within the second: %v, want Internal after three draws", err)
	}
	b.random.on = false
	b.issue("client", "third")
}

func TestStatus(t *testing.T) {
	b := newBench(t, keys.P256)
	ctx := t.Context()
	f := b.issue("client", "someone").Record.Fingerprint
	r := ca.StatusRequest{Principal: someone, Certificate: f}
	with := func(reason pki.Reason) ca.StatusRequest { c := r; c.Reason = reason; return c }

	_, err := b.ca.Release(ctx, r)
	want(t, err, fault.Conflict, "not on hold")
	if c, err := b.ca.Hold(ctx, r); err != nil || c.Revocation.Status != pki.OnHold || c.Revocation.Reason != pki.CertificateHold {
		t.Fatalf("hold: %+v, %v", c.Revocation, err)
	}
	_, err = b.ca.Hold(ctx, r)
	want(t, err, fault.Conflict, "on hold since")
	_, err = b.ca.Renew(ctx, ca.RenewRequest{Principal: someone, Certificate: f})
	want(t, err, fault.PolicyRefused, "on hold")
	if c, err := b.ca.Release(ctx, r); err != nil || c.Revocation != nil {
		t.Fatalf("release: %+v, %v", c.Revocation, err)
	}
	for _, reason := range []pki.Reason{pki.CertificateHold, pki.RemoveFromCRL, pki.CACompromise, 7, 11, -1} {
		_, err = b.ca.Revoke(ctx, with(reason))
		want(t, err, fault.BadRevocationReason, "")
	}
	late := with(pki.Superseded)
	late.InvalidityDate = b.now.Add(time.Hour)
	_, err = b.ca.Revoke(ctx, late)
	want(t, err, fault.BadRequest, "future")
	if c, err := b.ca.Revoke(ctx, with(pki.Superseded)); err != nil || c.Revocation.Reason != pki.Superseded {
		t.Fatalf("revoke: %+v, %v", c.Revocation, err)
	}
	for _, act := range []func(context.Context, ca.StatusRequest) (pki.Certificate, error){b.ca.Hold, b.ca.Release, b.ca.Revoke} {
		_, err = act(ctx, with(pki.Superseded))
		want(t, err, fault.AlreadyRevoked, "")
	}
	if c, err := b.ca.Revoke(ctx, with(pki.KeyCompromise)); err != nil || c.Revocation.Reason != pki.KeyCompromise {
		t.Fatalf("change of reason: %+v, %v", c.Revocation, err)
	}
	_, err = b.ca.Renew(ctx, ca.RenewRequest{Principal: someone, Certificate: f})
	want(t, err, fault.PolicyRefused, "revoked")
	_, err = b.ca.Revoke(ctx, ca.StatusRequest{Principal: someone, Certificate: pki.Fingerprint{1}})
	want(t, err, fault.NotFound, "")
	if len(b.changed) != 4 {
		t.Errorf("told of %d changes, want 4", len(b.changed))
	}
}

func TestRevocationForCompromiseBlocksTheKey(t *testing.T) {
	b := newBench(t, keys.P256)
	key := newKey(t)
	i, err := b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "client", CSR: request(t, key, "someone")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ca.Revoke(t.Context(), ca.StatusRequest{Principal: someone, Certificate: i.Record.Fingerprint, Reason: pki.KeyCompromise}); err != nil {
		t.Fatal(err)
	}
	b.follow()
	_, err = b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "client", CSR: request(t, key, "someone")})
	want(t, err, fault.BadPublicKey, "compromised")
	other := b.issue("client", "someone")
	_, err = b.ca.Renew(t.Context(), ca.RenewRequest{Principal: someone, Certificate: other.Record.Fingerprint, CSR: request(t, key, "x")})
	want(t, err, fault.BadPublicKey, "compromised")
}

func TestRenew(t *testing.T) {
	b := newBench(t, keys.P256)
	for _, profile := range []string{"server", "client", "device", "peer"} {
		old := b.issue(profile, "host.example.com", "host.example.com", "b.example.com")
		b.now = b.now.Add(24 * time.Hour)
		same, err := b.ca.Renew(t.Context(), ca.RenewRequest{Principal: someone, Certificate: old.Record.Fingerprint})
		if err != nil {
			t.Fatalf("%s: %v", profile, err)
		}
		fresh, err := b.ca.Renew(t.Context(), ca.RenewRequest{Principal: someone, Certificate: old.Record.Fingerprint, CSR: request(t, newKey(t), "evil.example.com", "evil.example.com")})
		if err != nil {
			t.Fatalf("%s: %v", profile, err)
		}
		for name, r := range map[string]pki.Certificate{"same key": same.Record, "new key": fresh.Record} {
			if r.Subject != old.Record.Subject || !slices.Equal(r.SANs, old.Record.SANs) || r.Profile != profile || r.Replaces != old.Record.Fingerprint || r.Serial == old.Record.Serial {
				t.Errorf("%s, %s: %+v, want the names of %+v", profile, name, r, old.Record)
			}
		}
		if same.Record.SPKIHash != old.Record.SPKIHash || fresh.Record.SPKIHash == old.Record.SPKIHash {
			t.Errorf("%s: the same key must stay, the new one must come", profile)
		}
	}
	old := b.issue("server", "host.example.com")
	b.now = b.now.AddDate(0, 4, 0)
	_, err := b.ca.Renew(t.Context(), ca.RenewRequest{Principal: someone, Certificate: old.Record.Fingerprint})
	want(t, err, fault.PolicyRefused, "ended")
}

// A front-end may shorten a life, and never lengthen it; and tell whose certificate the successor of one without device is.
func TestMaxValidityAndDevice(t *testing.T) {
	b := newBench(t, keys.P256)
	old := b.issue("device", "host.example.com")
	whole := old.Record.NotAfter.Sub(old.Record.IssuedAt)
	for limit, want := range map[time.Duration]time.Duration{0: whole, time.Hour: time.Hour, 100 * whole: whole} {
		renewed, err := b.ca.Renew(t.Context(), ca.RenewRequest{Principal: someone, Certificate: old.Record.Fingerprint, MaxValidity: limit, Device: "d1"})
		if err != nil {
			t.Fatal(err)
		}
		if got := renewed.Record.NotAfter.Sub(renewed.Record.IssuedAt); got > want || got < want-2*time.Second {
			t.Errorf("at most %s: it lives for %s, want %s", limit, got, want)
		}
		if renewed.Record.Device != "d1" {
			t.Errorf("the successor is of device %q", renewed.Record.Device)
		}
		again, err := b.ca.Renew(t.Context(), ca.RenewRequest{Principal: someone, Certificate: renewed.Record.Fingerprint, Device: "d2"})
		if err != nil || again.Record.Device != "d1" {
			t.Errorf("a renewal changed the device: %v", err)
		}
	}
}

func TestRenewKeepsOddNames(t *testing.T) {
	b := newBench(t, keys.P256)
	i, err := b.ca.Issue(t.Context(), ca.Request{
		Principal: someone, Profile: "client", CSR: request(t, newKey(t), "x"),
		Subject: []der.Attribute{{Type: pki.OIDOrganization, Value: "Müller & Söhne"}, {Type: pki.OIDCommonName, Value: "Jörg"}},
		SANs:    []der.GeneralName{der.UPN("joerg@corp.example"), der.URI("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), der.EmailAddress("joerg@example.com")},
	})
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.ca.Renew(t.Context(), ca.RenewRequest{Principal: someone, Certificate: i.Record.Fingerprint})
	if err != nil {
		t.Fatal(err)
	}
	if again.Record.Subject != i.Record.Subject || !slices.Equal(again.Record.SANs, i.Record.SANs) {
		t.Errorf("renewed as %q %q, was %q %q", again.Record.Subject, again.Record.SANs, i.Record.Subject, i.Record.SANs)
	}
}

func TestCAsAreRevokedByTheirParentOnly(t *testing.T) {
	b := newBench(t, keys.P256)
	root, issuing := b.issuers.Current().Issuers[0].Current, b.issuers.Current().Issuers[1].Current
	_, err := b.ca.Revoke(t.Context(), ca.StatusRequest{Principal: someone, Certificate: root.Fingerprint})
	want(t, err, fault.PolicyRefused, "revoke itself")
	if _, err := b.ca.Revoke(t.Context(), ca.StatusRequest{Principal: someone, Certificate: issuing.Fingerprint, Reason: pki.CACompromise}); err != nil {
		t.Fatal(err)
	}
	b.follow()
	_, err = b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "client", CSR: request(t, newKey(t), "late")})
	want(t, err, fault.PolicyRefused, "revoked")
	if n := len(b.issuers.Current().ClientCAs()); n != 1 {
		t.Errorf("the trust file for servers has %d certificates, want the root alone", n)
	}
}

func TestSubordinateCA(t *testing.T) {
	b := newBench(t, keys.P256)
	i, err := b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "sub-ca", Issuer: "root", CSR: request(t, newKey(t), "Plant CA")})
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(i.Record.DER)
	if err != nil {
		t.Fatal(err)
	}
	if !c.IsCA || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || len(c.ExtKeyUsage) != 0 {
		t.Errorf("CA %v, path length %d, key usage %v, purposes %v", c.IsCA, c.MaxPathLen, c.KeyUsage, c.ExtKeyUsage)
	}
}

func TestKeysOfSubordinateCAsAreKept(t *testing.T) {
	b := newBench(t, keys.P256)
	key := newKey(t)
	sub := func() error {
		_, err := b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "sub-ca", Issuer: "root", CSR: request(t, key, "Plant CA")})
		b.follow()
		return err
	}
	if err := sub(); err != nil {
		t.Fatal(err)
	}
	_, err := b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "server", CSR: request(t, key, "www.example.com")})
	want(t, err, fault.BadPublicKey, "one of the CA's own")
	if err := sub(); err != nil {
		t.Errorf("a new certificate for the same CA: %v", err)
	}
	root := b.issuers.Current().Issuers[0].Current
	_, err = b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "sub-ca", Issuer: "root", CSR: request(t, root.Signer, "Root again")})
	want(t, err, fault.BadPublicKey, "one of the CA's own")
}

func TestWrongClockStopsSigning(t *testing.T) {
	b := newBench(t, keys.P256)
	guard := clock.New(func() time.Time { return b.now.Add(-10 * time.Minute) }, nil)
	guard.Saw(b.now)
	a, err := ca.New(ca.Config{Store: b.store, Issuers: b.issuers, Clock: guard, PublicURL: publicURL})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Follow(t.Context(), store.Head{ConfigChange: 1}); err != nil {
		t.Fatal(err)
	}
	_, err = a.Issue(t.Context(), ca.Request{Principal: someone, Profile: "client", CSR: request(t, newKey(t), "x")})
	want(t, err, fault.Unavailable, "clock")
}

// lost is a store whose commits have an outcome that nobody knows.
type lost struct{ store.Store }

func (lost) RecordIssuance(context.Context, store.Issuance) error {
	return fault.Wrap(fault.Unavailable, store.ErrUnknownOutcome, "the store is away")
}

func TestNothingIsReleasedUnlessItIsStored(t *testing.T) {
	b := newBench(t, keys.P256)
	a, err := ca.New(ca.Config{Store: lost{b.store}, Issuers: b.issuers, Clock: clock.New(func() time.Time { return b.now }, nil), PublicURL: publicURL})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Follow(t.Context(), store.Head{ConfigChange: 1}); err != nil {
		t.Fatal(err)
	}
	i, err := a.Issue(t.Context(), ca.Request{Principal: someone, Profile: "client", CSR: request(t, newKey(t), "x")})
	if i != nil || !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v, %v; want no certificate and Unavailable", i, err)
	}
}
