package transfer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/transfer"
)

// authority is a CA with one issuer, which really signs.
type authority struct {
	t           *testing.T
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	issuer      pki.IssuerKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

// bootstrap sets a store up with this CA.
func (a *authority) bootstrap(s store.Store) {
	a.t.Helper()
	spki := sha256.Sum256(a.certificate.RawSubjectPublicKeyInfo)
	fingerprint := pki.Fingerprint(sha256.Sum256(a.certificate.Raw))
	err := s.Bootstrap(a.t.Context(), store.Bootstrap{
		KEKInfo: []byte("kek"),
		Issuers: []store.NewIssuer{{
			Issuer:      pki.Issuer{Name: "issuing", Root: true, Created: now},
			Key:         pki.IssuerKey{KeyID: hex.EncodeToString(spki[:8]), Current: true, SealedKey: []byte("sealed"), Created: now},
			Certificate: pki.IssuerCertificate{Fingerprint: fingerprint, Current: true, DER: a.certificate.Raw},
			Record: pki.Certificate{
				Serial: "\x01", Fingerprint: fingerprint, SPKIHash: spki, Profile: "root", CRLScope: pki.ScopeFull,
				NotBefore: now, NotAfter: now.AddDate(10, 0, 0), IssuedAt: now, DER: a.certificate.Raw,
			},
		}},
		Tokens: []pki.Token{
			{ID: "first", Name: "admin", Role: pki.RoleAdministrator, CreatedAt: now},
			{ID: "second", Name: "ci", Role: pki.RoleEnroller, CreatedAt: now},
		},
		Records: []audit.Record{{Time: now, Action: audit.ActionBootstrap, Actor: "host"}},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	set, err := s.AllIssuers(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	a.issuer = set.Keys[0]
}

func (a *authority) issue(s store.Store) pki.Certificate {
	a.t.Helper()
	c := pki.Certificate{
		IssuerID: a.issuer.IssuerID, IssuerKeyID: a.issuer.ID, Subject: fmt.Sprintf("CN=device %d", grown.Add(1)), Profile: "device",
		CRLScope: pki.ScopeFull, NotBefore: now, NotAfter: now.AddDate(1, 0, 0), IssuedAt: now, DER: []byte("a certificate"),
	}
	rand.Read(c.Fingerprint[:])
	rand.Read(c.SPKIHash[:])
	var err error
	if c.Serial, err = pki.NewSerialNumber(rand.Reader, c.NotAfter, now); err != nil {
		a.t.Fatal(err)
	}
	if err := s.RecordIssuance(a.t.Context(), store.Issuance{Certificate: c, Record: audit.Record{Time: now, Action: audit.ActionIssue, Actor: "test"}}); err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *authority) change(s store.Store, c pki.Certificate, action pki.Action, r pki.Revocation) {
	a.t.Helper()
	_, err := s.ChangeStatus(a.t.Context(), store.StatusChange{
		IssuerID: c.IssuerID, Serial: c.Serial, Action: action, Revocation: r,
		Record: audit.Record{Time: now, Action: audit.ActionRevoke, Actor: "test"},
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// publish signs what the store says now, and records it there.
func (a *authority) publish(s store.Store, number int64, edit ...func(*x509.RevocationList)) []byte {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, 7)}
	change, entries, err := s.Revocations(a.t.Context(), a.issuer.ID, pki.ScopeFull)
	if err != nil {
		a.t.Fatal(err)
	}
	for e, err := range entries {
		if err != nil {
			a.t.Fatal(err)
		}
		entry := x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(e.Serial.Bytes()), RevocationTime: e.Revocation.RevokedAt, ReasonCode: int(e.Revocation.Reason)}
		if d := e.Revocation.InvalidityDate; !d.IsZero() {
			value, err := asn1.MarshalWithParams(d, "generalized")
			if err != nil {
				a.t.Fatal(err)
			}
			entry.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: value}}
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, entry)
	}
	for _, f := range edit {
		f(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.certificate, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	if len(edit) == 0 {
		err = s.RecordCRL(a.t.Context(), nil, pki.CRL{
			IssuerKeyID: a.issuer.ID, Scope: pki.ScopeFull, Number: number, ThisUpdate: now, NextUpdate: list.NextUpdate,
			Scheduled: true, Change: change, Entries: len(list.RevokedCertificateEntries), CreatedAt: now, Parts: []pki.CRLPart{pki.NewCRLPart(der)},
		})
		if err != nil {
			a.t.Fatal(err)
		}
	}
	return der
}

func (a *authority) status(s store.Store, n pki.SerialNumber) *pki.Revocation {
	a.t.Helper()
	r, err := s.Status(a.t.Context(), a.issuer.ID, n)
	if err != nil {
		a.t.Fatalf("Status of %s: %v", n, err)
	}
	return r
}

// backup is all rows of a store, to be had again: what a backup of either store comes to.
func backup(t *testing.T, from, to store.Movable) {
	t.Helper()
	if err := to.BeginImport(t.Context(), store.CopyID{1}, "backup", now); err != nil {
		t.Fatal(err)
	}
	for _, table := range store.Tables() {
		rows, err := from.ExportRows(t.Context(), table, nil, 10000)
		if err == nil && len(rows) > 0 {
			err = to.ImportRows(t.Context(), store.CopyID{1}, table, rows)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	head, err := from.Head(t.Context())
	if err == nil {
		err = to.FinishImport(t.Context(), store.CopyID{1}, head, now)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The story: a backup is made, more happens, a CRL is published, the store is lost, the backup is restored.
func TestFinishRestore(t *testing.T) {
	for name, pair := range map[string]func() (place, place){
		"sqlite":   func() (place, place) { return newSQLite(t), newSQLite(t) },
		"postgres": func() (place, place) { return newPostgres(t), newPostgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			live, restored := pair()
			use(t, live, false, func(s store.Movable) {
				use(t, restored, false, func(r store.Movable) { restoreStory(t, s, r) })
			})
		})
	}
}

func restoreStory(t *testing.T, live, s store.Movable) {
	ctx := t.Context()
	a := newAuthority(t, "Test CA")
	a.bootstrap(live)
	before, lost, held, upgraded, releasedSince, changed, good := a.issue(live), a.issue(live), a.issue(live), a.issue(live), a.issue(live), a.issue(live), a.issue(live)
	early := pki.Revocation{Reason: pki.Superseded, RevokedAt: now.Add(-time.Hour)}
	a.change(live, before, pki.ActionRevoke, early)
	a.change(live, upgraded, pki.ActionHold, pki.Revocation{RevokedAt: now.Add(-time.Hour)})
	a.change(live, releasedSince, pki.ActionHold, pki.Revocation{RevokedAt: now.Add(-time.Hour)})
	a.change(live, changed, pki.ActionRevoke, early)
	a.publish(live, 1000)

	backup(t, live, s)
	atBackup, err := s.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}

	// What the backup does not know.
	late := pki.Revocation{Reason: pki.KeyCompromise, RevokedAt: now.Add(-time.Minute), InvalidityDate: now.AddDate(0, -1, 0)}
	a.change(live, lost, pki.ActionRevoke, late)
	a.change(live, held, pki.ActionHold, pki.Revocation{RevokedAt: now.Add(-time.Minute)})
	a.change(live, upgraded, pki.ActionRevoke, pki.Revocation{Reason: pki.AffiliationChanged, RevokedAt: now})
	a.change(live, releasedSince, pki.ActionRelease, pki.Revocation{})
	a.change(live, changed, pki.ActionRevoke, pki.Revocation{Reason: pki.CACompromise, RevokedAt: now})
	unknown, unknownHeld := a.issue(live), a.issue(live)
	a.change(live, unknown, pki.ActionRevoke, late)
	a.change(live, unknownHeld, pki.ActionHold, pki.Revocation{RevokedAt: now.Add(-time.Minute)})
	const highest = 4102444800 // ahead of the clock
	der := a.publish(live, highest)
	liveHead, err := live.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	checkpoint := &transfer.Checkpoint{Change: liveHead.Change, Head: liveHead.Hash}

	crl := func(name string, data []byte) []transfer.CRLFile { return []transfer.CRLFile{{Name: name, Data: data}} }
	finish := func(c transfer.RestoreConfig) (transfer.Restored, error) {
		c.Store, c.Now = s, clock
		return transfer.FinishRestore(ctx, c)
	}

	// What must be refused, before anything is written.
	stranger := newAuthority(t, "Test CA")
	stranger.issuer = a.issuer
	for what, c := range map[string]transfer.RestoreConfig{
		"no CRL":                       {CRLs: crl("x", []byte("hello"))},
		"a certificate":                {CRLs: crl("x", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}))},
		"another CA's CRL":             {CRLs: crl("x", stranger.publish(live, 5, func(*x509.RevocationList) {}))},
		"a good one and a bad one":     {CRLs: append(crl("good", der), crl("bad", der[:len(der)-9])...)},
		"another history's checkpoint": {CRLs: crl("good", der), Checkpoint: &transfer.Checkpoint{Change: 3, Head: audit.Hash{1}}},
		"a delta CRL": {CRLs: crl("x", a.publish(live, 7, func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}}
		}))},
	} {
		if _, err := finish(c); !fault.Is(err, fault.BadRequest) && !fault.Is(err, fault.Conflict) {
			t.Errorf("%s: got %v, want a refusal", what, err)
		}
	}
	if h, err := s.Head(ctx); err != nil || h != atBackup {
		t.Fatalf("refusals have written: %+v, %v", h, err)
	}

	text := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	got, err := finish(transfer.RestoreConfig{CRLs: crl("last.crl", text), Checkpoint: checkpoint})
	if err != nil {
		t.Fatalf("FinishRestore: %v", err)
	}
	if l := got.Lists; len(l) != 1 || l[0].Revoked != 4 || l[0].Stubs != 2 || l[0].Unchanged != 1 || l[0].Number != highest || got.Lost != liveHead.Change-atBackup.Change {
		t.Errorf("FinishRestore = %+v", got)
	}
	if notes := strings.Join(got.Notes, "\n"); len(got.Notes) != 1 || !strings.Contains(notes, releasedSince.Serial.String()) {
		t.Errorf("notes are %q, want one of the certificate that was released since", got.Notes)
	}
	for what, c := range map[string]pki.Certificate{"before": before, "lost": lost, "held": held, "upgraded": upgraded, "changed": changed, "unknown": unknown, "unknownHeld": unknownHeld} {
		if got, want := a.status(s, c.Serial), a.status(live, c.Serial); got == nil || *got != *want {
			t.Errorf("%s: status %+v, want %+v", what, got, want)
		}
	}
	if r := a.status(s, good.Serial); r != nil {
		t.Errorf("a good certificate is %+v", r)
	}
	blocked, err := s.BlockedKeys(ctx)
	if _, ok := blocked[lost.SPKIHash]; !ok || err != nil {
		t.Errorf("the compromised key is not blocked, %v", err)
	}

	// A stub can be listed, shown, and its status changed.
	stubs, _, err := s.ListCertificates(ctx, store.CertificateFilter{Profiles: []string{transfer.StubProfile}}, store.Page{})
	if err != nil || len(stubs) != 2 {
		t.Fatalf("ListCertificates = %d stubs, %v", len(stubs), err)
	}
	stub, err := s.CertificateBySerial(ctx, a.issuer.IssuerID, unknownHeld.Serial)
	if err != nil || stub.DER != nil || stub.NotAfter.Before(unknownHeld.NotAfter) || stub.NotAfter.After(unknownHeld.NotAfter.AddDate(0, 1, 0)) || !stub.IssuedAt.Equal(now.Add(-time.Minute)) { // of the revocation, which the test dates before the issuance
		t.Errorf("the stub is %+v, %v", stub, err)
	}
	a.change(s, stub, pki.ActionRevoke, pki.Revocation{Reason: pki.CessationOfOperation, RevokedAt: now})

	// Numbers go on, and the newest list is the one that verifiers have.
	if n, err := s.NextCRLNumber(ctx, a.issuer.ID, pki.ScopeFull, now.Unix()); err != nil || n != highest+1 {
		t.Errorf("NextCRLNumber = %d, %v; want %d", n, err, int64(highest+1))
	}
	latest, err := s.LatestCRL(ctx, a.issuer.ID, pki.ScopeFull, nil)
	if h, _ := s.Head(ctx); err != nil || string(latest.DER()) != string(der) || latest.Change >= h.StatusChange {
		t.Errorf("LatestCRL = number %d of change %d, %v", latest.Number, latest.Change, err)
	}

	// The break stands in the chain, which is whole and does not pass through the lost head.
	events, _, err := s.AuditEvents(ctx, store.AuditFilter{Action: transfer.ActionRestore}, store.Page{})
	if err != nil || len(events) != 1 || events[0].Change != atBackup.Change+1 {
		t.Fatalf("AuditEvents = %+v, %v", events, err)
	}
	r, err := audit.Parse(events[0].Bytes)
	if err != nil || r.Actor != "host" || r.Detail["checkpoint_head"] != fmt.Sprintf("%x", liveHead.Hash[:]) || r.Detail["restored_change"] != fmt.Sprint(atBackup.Change) {
		t.Errorf("the record of the break is %+v, %v", r, err)
	}
	if v, err := transfer.VerifyChain(ctx, s, transfer.Checkpoint{Change: atBackup.Change, Head: atBackup.Hash}); err != nil || v.Problem != "" {
		t.Errorf("VerifyChain = %+v, %v", v, err)
	}
	if v, err := transfer.VerifyChain(ctx, s, *checkpoint); err != nil || v.Problem == "" {
		t.Errorf("the chain passes through a head that was lost: %+v, %v", v, err)
	}

	// Again it changes nothing, not even the stub's status that was changed since.
	head, err := s.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	again, err := finish(transfer.RestoreConfig{CRLs: crl("last.crl", der), Checkpoint: checkpoint})
	if err != nil || again.Lists[0].Unchanged != 7 {
		t.Errorf("FinishRestore again = %+v, %v", again, err)
	}
	if h, err := s.Head(ctx); err != nil || h != head {
		t.Errorf("FinishRestore again has written: %+v, %v", h, err)
	}

	if n, err := transfer.RevokeTokens(ctx, s, "first", now); err != nil || n != 1 {
		t.Errorf("RevokeTokens = %d, %v; want 1", n, err)
	}
	if found, err := s.Check(ctx); err != nil {
		t.Error(err)
	} else {
		for _, f := range found {
			if f.Serious && !strings.Contains(f.What, "disk") {
				t.Errorf("Check: %s", f.What)
			}
		}
	}
}

// Without a CRL the break is noted, and what is missing is said.
func TestFinishRestoreWithoutCRL(t *testing.T) {
	use(t, newSQLite(t), false, func(s store.Movable) {
		a := newAuthority(t, "Test CA")
		if _, err := transfer.FinishRestore(t.Context(), transfer.RestoreConfig{Store: s, Now: clock}); !fault.Is(err, fault.Conflict) {
			t.Errorf("an empty store: %v", err)
		}
		a.bootstrap(s)
		got, err := transfer.FinishRestore(t.Context(), transfer.RestoreConfig{Store: s, Now: clock})
		if err != nil || len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "no CRL was given for issuer issuing") {
			t.Errorf("FinishRestore = %+v, %v", got, err)
		}
	})
}

func TestCheckpoint(t *testing.T) {
	hash := strings.Repeat("0f", 32)
	c, err := transfer.ParseCheckpoint(" 12:" + hash + "\n")
	if err != nil || c.Change != 12 || c.String() != "12:"+hash {
		t.Errorf("ParseCheckpoint = %v, %v", c, err)
	}
	for _, bad := range []string{"", "12", "12:", ":" + hash, "0:" + hash, "-1:" + hash, "x:" + hash, "12:" + hash[2:], "12:" + hash + "00", "12:zz" + hash[2:]} {
		if c, err := transfer.ParseCheckpoint(bad); err == nil {
			t.Errorf("ParseCheckpoint(%q) = %v, want an error", bad, c)
		}
	}
	use(t, newSQLite(t), false, func(s store.Movable) {
		if v, err := transfer.VerifyChain(t.Context(), s); err != nil || v.Problem != "" {
			t.Errorf("VerifyChain of an empty store = %+v, %v", v, err)
		}
		if v, err := transfer.VerifyChain(t.Context(), s, c); err != nil || !strings.Contains(v.Problem, "cut off") {
			t.Errorf("VerifyChain of an empty store = %+v, %v", v, err)
		}
		newAuthority(t, "CA").bootstrap(s)
		if v, err := transfer.VerifyChain(t.Context(), s, transfer.Checkpoint{Change: 1}); err != nil || !strings.Contains(v.Problem, "not that of the checkpoint") {
			t.Errorf("VerifyChain = %+v, %v", v, err)
		}
	})
}
