package postgres_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

var (
	base    = time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC)
	counter atomic.Int64
)

func octets(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// setUp fills an empty store with one issuer and returns its ids.
func setUp(t testing.TB, s store.Store) (issuerID, keyID int64) {
	t.Helper()
	n := store.NewIssuer{
		Issuer: pki.Issuer{Name: "issuing", Root: true, Created: base},
		Key:    pki.IssuerKey{KeyID: hex.EncodeToString(octets(8)), Current: true, SealedKey: octets(200), Created: base},
		Record: issuance(0, 0).Certificate,
	}
	n.Certificate = pki.IssuerCertificate{Fingerprint: n.Record.Fingerprint, Current: true, DER: n.Record.DER}
	boot := store.Bootstrap{KEKInfo: []byte("kek"), Issuers: []store.NewIssuer{n}, Records: []audit.Record{{Time: base, Action: audit.ActionBootstrap}}}
	if err := s.Bootstrap(t.Context(), boot); err != nil {
		t.Fatalf("Bootstrap: %v", err)
	}
	return ids(t, s)
}

func ids(t testing.TB, s store.Store) (issuerID, keyID int64) {
	t.Helper()
	set, err := s.AllIssuers(t.Context())
	if err != nil || len(set.Keys) != 1 {
		t.Fatalf("AllIssuers = %+v, %v", set, err)
	}
	return set.Keys[0].IssuerID, set.Keys[0].ID
}

// issuance returns one like those of a fleet of devices: about a kilobyte.
func issuance(issuerID, keyID int64) store.Issuance {
	n := counter.Add(1)
	at := base.Add(time.Duration(n) * 50 * time.Microsecond)
	c := pki.Certificate{
		IssuerID: issuerID, IssuerKeyID: keyID, Fingerprint: pki.Fingerprint(octets(32)), SPKIHash: sha256.Sum256(octets(8)),
		Subject: fmt.Sprintf("CN=device-%07d.fleet.example.com,OU=Manufacturing,O=Example Corp,C=DE", n),
		SANs:    []string{fmt.Sprintf("DNS:device-%07d.fleet.example.com", n)}, Profile: "device", ProfileVersion: 3,
		Requester: "token:ra", Protocol: "scep", Device: hex.EncodeToString(octets(6)), Source: "192.0.2.9", CRLScope: pki.ScopeFull,
		NotBefore: at.Truncate(time.Second), NotAfter: at.Truncate(time.Second).AddDate(1, 0, 0), IssuedAt: at, DER: octets(650),
	}
	var err error
	if c.Serial, err = pki.NewSerialNumber(rand.Reader, c.NotAfter, at); err != nil {
		panic(err)
	}
	return store.Issuance{Certificate: c, Record: audit.Record{
		Time: at, Action: audit.ActionIssue, Actor: c.Requester, Role: "enroller", Source: c.Source, RequestID: hex.EncodeToString(octets(8)),
		Target: "certificate/" + hex.EncodeToString(c.Fingerprint[:]),
		Detail: map[string]string{"serial": c.Serial.String(), "profile": "device", "issuer": "issuing"},
	}}
}

func revoke(c pki.Certificate) store.StatusChange {
	return store.StatusChange{
		IssuerID: c.IssuerID, Serial: c.Serial, Action: pki.ActionRevoke,
		Revocation: pki.Revocation{Reason: pki.Superseded, RevokedAt: base},
		Record:     audit.Record{Time: base, Action: audit.ActionRevoke, Target: "certificate/" + hex.EncodeToString(c.Fingerprint[:])},
	}
}

// verifyChain walks the chain to the head.
func verifyChain(t testing.TB, s store.Store) {
	t.Helper()
	var v audit.Verifier
	for b, err := range s.AuditChain(t.Context()) {
		if err == nil {
			err = v.Add(b.Batch, b.Records)
		}
		if err != nil {
			t.Fatalf("AuditChain: %v", err)
		}
	}
	head, err := s.Head(t.Context())
	if err != nil || v.Head != head.Hash || v.Change != head.Change || v.Records != head.AuditSeq {
		t.Fatalf("the chain ends at change %d, record %d; the head says %d, %d (%v)", v.Change, v.Records, head.Change, head.AuditSeq, err)
	}
}
