// Package certtest makes certification authorities and certificates for tests, and records them in a store as the server
// would. Its keys are not sealed, and it signs with crypto/x509, so that tests do not judge our encoders by themselves.
package certtest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/sqlite"
)

// SQLite returns a fresh and empty store on SQLite, which is closed at the test's cleanup.
func SQLite(t testing.TB) *sqlite.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "certwright.db")
	if _, _, err := sqlite.Migrate(t.Context(), path); err != nil {
		t.Fatalf("migrating: %v", err)
	}
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("opening the store: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return s
}

// Hierarchy is a root and an issuing CA below it.
type Hierarchy struct {
	Root, Issuing *CA
}

// CA is an issuer with its one key.
type CA struct {
	Name        string
	Certificate *x509.Certificate
	Signer      crypto.Signer
	KeyID       string // see pki.IssuerKey
	IssuerID    int64  // of the store
	IssuerKeyID int64  // of the store
}

// Open reads the private key as Setup has "sealed" it: PKCS #8.
func Open(sealed []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(sealed)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("not a key that signs")
	}
	return signer, nil
}

// Setup makes a root and an issuing CA, both with P-256 keys, and sets the empty store up with them. They are named
// "root" and "issuing".
func Setup(t testing.TB, s store.Store, now time.Time) *Hierarchy {
	t.Helper()
	now = now.UTC().Truncate(time.Second)
	root := newCA(t, "root", nil, now)
	issuing := newCA(t, "issuing", root, now)
	b := store.Bootstrap{
		KEKInfo: []byte("none"),
		Issuers: []store.NewIssuer{root.record(t, now), issuing.record(t, now)},
		Records: []audit.Record{{Time: now, Action: audit.ActionBootstrap, Actor: "system"}},
	}
	b.Issuers[0].Issuer.Root = true
	if err := s.Bootstrap(t.Context(), b); err != nil {
		t.Fatalf("setting the store up: %v", err)
	}
	all, err := s.AllIssuers(t.Context())
	if err != nil {
		t.Fatalf("reading the issuers back: %v", err)
	}
	for _, key := range all.Keys {
		for _, ca := range []*CA{root, issuing} {
			if ca.KeyID == key.KeyID {
				ca.IssuerID, ca.IssuerKeyID = key.IssuerID, key.ID
			}
		}
	}
	return &Hierarchy{Root: root, Issuing: issuing}
}

func newCA(t testing.TB, name string, parent *CA, now time.Time) *CA {
	t.Helper()
	ca := &CA{Name: name, Signer: NewKey(t)}
	template := &x509.Certificate{
		SerialNumber: newSerial(t, now.AddDate(10, 0, 0), now),
		Subject:      pkix.Name{CommonName: "Test " + name, Organization: []string{"Certwright"}},
		NotBefore:    now.Add(-24 * time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true,
	}
	by := ca
	if parent != nil {
		by, template.MaxPathLenZero = parent, true
	}
	ca.Certificate = create(t, template, by, ca.Signer.Public())
	sum := sha256.Sum256(ca.Certificate.RawSubjectPublicKeyInfo)
	ca.KeyID = hex.EncodeToString(sum[:8])
	return ca
}

// NewKey returns a P-256 key.
func NewKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSerial(t testing.TB, notAfter, now time.Time) *big.Int {
	t.Helper()
	s, err := pki.NewSerialNumber(rand.Reader, notAfter, now)
	if err != nil {
		t.Fatal(err)
	}
	return new(big.Int).SetBytes(s.Bytes())
}

// create signs a certificate; by is the CA itself, without a certificate yet, when it is self-signed.
func create(t testing.TB, template *x509.Certificate, by *CA, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	parent := by.Certificate
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by.Signer)
	if err != nil {
		t.Fatalf("making a certificate: %v", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("reading a certificate back: %v", err)
	}
	return c
}

func (ca *CA) record(t testing.TB, now time.Time) store.NewIssuer {
	t.Helper()
	sealed, err := x509.MarshalPKCS8PrivateKey(ca.Signer)
	if err != nil {
		t.Fatal(err)
	}
	r := recordOf(ca.Certificate, now)
	r.Profile = "ca"
	return store.NewIssuer{
		Issuer:      pki.Issuer{Name: ca.Name, Created: now},
		Key:         pki.IssuerKey{KeyID: ca.KeyID, Current: true, SealedKey: sealed, Created: now},
		Certificate: pki.IssuerCertificate{Fingerprint: r.Fingerprint, Current: true, DER: ca.Certificate.Raw},
		Record:      r,
	}
}

func recordOf(c *x509.Certificate, now time.Time) pki.Certificate {
	return pki.Certificate{
		Serial: pki.SerialNumber(c.SerialNumber.Bytes()), Fingerprint: sha256.Sum256(c.Raw),
		SPKIHash: sha256.Sum256(c.RawSubjectPublicKeyInfo), Subject: c.Subject.String(), Profile: "test", ProfileVersion: 1,
		Requester: "system", Protocol: "internal", CRLScope: pki.ScopeFull,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, IssuedAt: now, DER: c.Raw,
	}
}

// Issued is a certificate with its key.
type Issued struct {
	CA          *CA
	Certificate *x509.Certificate
	Key         crypto.Signer
	Record      pki.Certificate
}

// Recorder is the part of a store that issuing needs.
type Recorder interface {
	RecordIssuance(ctx context.Context, i store.Issuance) error
}

// Issue makes a certificate of the CA and records it. The template may be nil; what it lacks is filled in: names, a year
// of validity from an hour before now, key usage, and serverAuth and clientAuth.
func (ca *CA) Issue(t testing.TB, s Recorder, now time.Time, template *x509.Certificate) *Issued {
	t.Helper()
	return ca.IssueIn(t, s, now, template, nil)
}

// IssueIn is Issue for a certificate whose CRL depends on its serial number: in returns the scope, and the address that
// the certificate names.
func (ca *CA) IssueIn(t testing.TB, s Recorder, now time.Time, template *x509.Certificate, in func(pki.SerialNumber) (scope, url string)) *Issued {
	t.Helper()
	now = now.UTC()
	if template == nil {
		template = &x509.Certificate{}
	}
	if template.Subject.CommonName == "" {
		template.Subject, template.DNSNames = pkix.Name{CommonName: "device.example"}, []string{"device.example"}
	}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.AddDate(1, 0, 0)
	}
	if template.KeyUsage == 0 {
		template.KeyUsage = x509.KeyUsageDigitalSignature
	}
	if template.ExtKeyUsage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	template.SerialNumber = newSerial(t, template.NotAfter, now)
	scope := pki.ScopeFull
	if in != nil {
		var url string
		scope, url = in(pki.SerialNumber(template.SerialNumber.Bytes()))
		template.CRLDistributionPoints = []string{url}
	}
	key := NewKey(t)
	i := &Issued{CA: ca, Key: key, Certificate: create(t, template, ca, key.Public())}
	i.Record = recordOf(i.Certificate, now)
	i.Record.CRLScope = scope
	i.Record.IssuerID, i.Record.IssuerKeyID = ca.IssuerID, ca.IssuerKeyID
	if err := s.RecordIssuance(t.Context(), store.Issuance{
		Certificate: i.Record, Record: audit.Record{Time: now, Action: audit.ActionIssue, Actor: "system"},
	}); err != nil {
		t.Fatalf("recording a certificate: %v", err)
	}
	return i
}

// Stub records a certificate of which there is only the record, as imports bring them: tests that need many have no time
// to sign them.
func (ca *CA) Stub(t testing.TB, s Recorder, now, notAfter time.Time) pki.Certificate {
	t.Helper()
	serial, err := pki.NewSerialNumber(rand.Reader, notAfter, now)
	if err != nil {
		t.Fatal(err)
	}
	r := pki.Certificate{
		IssuerID: ca.IssuerID, IssuerKeyID: ca.IssuerKeyID, Serial: serial,
		Subject: "CN=stub", Profile: "test", ProfileVersion: 1, Requester: "system", Protocol: "internal", CRLScope: pki.ScopeFull,
		NotBefore: now.Add(-time.Hour).UTC().Truncate(time.Second), NotAfter: notAfter.UTC().Truncate(time.Second), IssuedAt: now.UTC(),
		Fingerprint: sha256.Sum256([]byte("certificate " + serial.String())),
		SPKIHash:    sha256.Sum256([]byte("key " + serial.String())),
	}
	if err := s.RecordIssuance(t.Context(), store.Issuance{
		Certificate: r, Record: audit.Record{Time: now.UTC(), Action: audit.ActionIssue, Actor: "system"},
	}); err != nil {
		t.Fatalf("recording a stub: %v", err)
	}
	return r
}

// Changer is the part of a store that changes of a status need.
type Changer interface {
	ChangeStatus(ctx context.Context, c store.StatusChange) (pki.Certificate, error)
}

// Change changes a certificate's status at the given time.
func Change(t testing.TB, s Changer, c pki.Certificate, action pki.Action, reason pki.Reason, at time.Time) {
	t.Helper()
	if _, err := s.ChangeStatus(t.Context(), store.StatusChange{
		IssuerID: c.IssuerID, Serial: c.Serial, Action: action,
		Revocation: pki.Revocation{Reason: reason, RevokedAt: at.UTC().Truncate(time.Second)},
		Record:     audit.Record{Time: at.UTC(), Action: "certificate." + action.String(), Actor: "system"},
	}); err != nil {
		t.Fatalf("%s: %v", action, err)
	}
}

// Delegate makes a key and the certificate of an OCSP responder for the CA (RFC 6960, Section 4.2.2.2), without
// recording it.
func (ca *CA) Delegate(t testing.TB, now, notAfter time.Time) (crypto.Signer, *x509.Certificate) {
	t.Helper()
	key := NewKey(t)
	return key, create(t, &x509.Certificate{
		SerialNumber: newSerial(t, notAfter, now),
		Subject:      pkix.Name{CommonName: "OCSP " + ca.Name},
		NotBefore:    now.Add(-time.Hour), NotAfter: notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{
			Id: pki.OIDOCSPNoCheck, Value: asn1.NullBytes,
		}},
	}, ca, key.Public())
}
