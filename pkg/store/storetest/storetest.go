// Package storetest is the one suite that every store must pass. It defines the contract of package store where words
// leave room: what passes here behaves alike under everything above the store.
package storetest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// Harness opens the stores under test.
type Harness struct {
	// Open returns a fresh, migrated and empty store, which is closed at the test's cleanup. Tests call it at the
	// same time.
	Open func(t *testing.T) store.Store
	// Reopen closes s and opens the same data again.
	Reopen func(t *testing.T, s store.Store) store.Store
	// Second opens another replica on the data of s. It is nil for a store that serves one process only.
	Second func(t *testing.T, s store.Store) store.Store
	// Closed closes s and opens the same data again, in use or not. It is nil where the suite runs under a role that may
	// not copy.
	Closed func(t *testing.T, s store.Store) store.Store
	// Harmless, if not nil, names findings of Check that the test's own set-up causes.
	Harmless func(store.Finding) bool
}

// Run runs the suite as subtests of t.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"Empty", testEmpty},
		{"Bootstrap", testBootstrap},
		{"BootstrapRace", testBootstrapRace},
		{"BootstrapAllOrNothing", testBootstrapAllOrNothing},
		{"Reopen", testReopen},
		{"SealedKeys", testSealedKeys},
		{"Profiles", testProfiles},
		{"IssuerSettings", testIssuerSettings},
		{"CRLAddresses", testCRLAddresses},
		{"Scopes", testScopes},
		{"Tokens", testTokens},
		{"LastAdministrator", testLastAdministrator},
		{"LastAdministratorRace", testLastAdministratorRace},
		{"Leases", testLeases},
		{"LeaseRace", testLeaseRace},
		{"Issuance", testIssuance},
		{"IssuanceRefused", testIssuanceRefused},
		{"StuckRandom", testStuckRandom},
		{"BadOperationInBatch", testBadOperationInBatch},
		{"BlockedKeys", testBlockedKeys},
		{"BlockedKeysRefused", testBlockedKeysRefused},
		{"Predecessors", testPredecessors},
		{"PredecessorRace", testPredecessorRace},
		{"Idempotency", testIdempotency},
		{"IdempotencyTwins", testIdempotencyTwins},
		{"IdempotencyPruned", testIdempotencyPruned},
		{"Transitions", testTransitions},
		{"Status", testStatus},
		{"StatusEvents", testStatusEvents},
		{"Visibility", testVisibility},
		{"Revocations", testRevocations},
		{"RevocationsWhileWriting", testRevocationsWhileWriting},
		{"ReadersDoNotBlockWriters", testReadersDoNotBlockWriters},
		{"ListOrder", testListOrder},
		{"ListWhileInserting", testListWhileInserting},
		{"ListFilters", testListFilters},
		{"ListLimits", testListLimits},
		{"Cursors", testCursors},
		{"Campaigns", testCampaigns},
		{"CampaignSteps", testCampaignSteps},
		{"CampaignPaused", testCampaignPaused},
		{"CampaignWorkers", testCampaignWorkers},
		{"Settle", testSettle},
		{"CampaignBlocksKeys", testCampaignBlocksKeys},
		{"NextCertificates", testNextCertificates},
		{"BlockAndUnblock", testBlockAndUnblock},
		{"CRLs", testCRLs},
		{"CRLRecorders", testCRLRecorders},
		{"Points", testPoints},
		{"Challenges", testChallenges},
		{"Enrollments", testEnrollments},
		{"ChallengeRace", testChallengeRace},
		{"RACertificates", testRACertificates},
		{"Notifications", testNotifications},
		{"NotificationWithEnrollment", testNotificationWithEnrollment},
		{"NotificationClaims", testNotificationClaims},
		{"Devices", testDevices},
		{"DeviceFilters", testDeviceFilters},
		{"DeviceIssuance", testDeviceIssuance},
		{"DeviceRefused", testDeviceRefused},
		{"DeviceBlockRace", testDeviceBlockRace},
		{"DeviceSuperseded", testDeviceSuperseded},
		{"DeviceContacts", testDeviceContacts},
		{"RefusalsPruned", testRefusalsPruned},
		{"Fleet", testFleet},
		{"Requests", testRequests},
		{"DeviceNewest", testDeviceNewest},
		{"CRLParts", testCRLParts},
		{"CRLTogether", testCRLTogether},
		{"CRLsDropped", testCRLsDropped},
		{"AuditEvents", testAuditEvents},
		{"AuditChainWhileWriting", testAuditChainWhileWriting},
		{"ClockSteps", testClockSteps},
		{"Storm", testStorm},
		{"CancelledBefore", testCancelledBefore},
		{"CancelledDuring", testCancelledDuring},
		{"Closed", testClosed},
		{"Replicas", testReplicas},
		{"Copy", copies(testCopy)},
		{"CopyAgain", copies(testCopyAgain)},
		{"Fence", copies(testFence)},
		{"FenceWhileWriting", copies(testFenceWhileWriting)},
		{"FenceStopsNotes", copies(testFenceStopsNotes)},
		{"ImportRefused", copies(testImportRefused)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, h)
		})
	}
}

// signer is an issuer's ids.
type signer struct{ issuer, key int64 }

// env is a store that has been set up, and what the tests need to know of it.
type env struct {
	store.Store
	t       *testing.T
	boot    store.Bootstrap
	root    signer
	issuing signer
	devices signer
}

// base is when the tests begin.
var base = time.Date(2026, 11, 3, 10, 0, 0, 123456000, time.UTC)

var counter atomic.Int64

func open(t *testing.T, h Harness) *env {
	t.Helper()
	e := &env{Store: h.Open(t), t: t, boot: bootstrap()}
	if err := e.Bootstrap(t.Context(), e.boot); err != nil {
		t.Fatalf("Bootstrap: %v", err)
	}
	e.load()
	return e
}

// load reads the ids that the store has given.
func (e *env) load() {
	e.t.Helper()
	set, err := e.AllIssuers(e.t.Context())
	if err != nil {
		e.t.Fatalf("AllIssuers: %v", err)
	}
	at := map[string]*signer{"root": &e.root, "issuing": &e.issuing, "devices": &e.devices}
	for _, i := range set.Issuers {
		for _, k := range set.Keys {
			if k.IssuerID == i.ID && at[i.Name] != nil {
				*at[i.Name] = signer{i.ID, k.ID}
			}
		}
	}
	if e.root.key == 0 || e.issuing.key == 0 || e.devices.key == 0 {
		e.t.Fatalf("AllIssuers = %+v, want root, issuing and devices with a key each", set)
	}
}

// parts cuts what a CRL is made of, as its builder would.
func parts(of ...[]byte) []pki.CRLPart {
	out := make([]pki.CRLPart, len(of))
	for i, data := range of {
		out[i] = pki.NewCRLPart(data)
	}
	return out
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func record(action string, at time.Time) audit.Record {
	return audit.Record{Time: at, Action: action, Actor: "token:test", Source: "192.0.2.7", Target: fmt.Sprintf("test/%d", counter.Add(1))}
}

// certificate returns a record that no other one collides with.
func certificate(by signer, edit ...func(*pki.Certificate)) pki.Certificate {
	n := counter.Add(1)
	c := pki.Certificate{
		IssuerID: by.issuer, IssuerKeyID: by.key,
		Subject: fmt.Sprintf("CN=device-%d,O=Certwright", n), SANs: []string{fmt.Sprintf("DNS:device-%d.example", n), "IP:192.0.2.1"},
		Profile: "device", ProfileVersion: 3, Requester: "token:enroller", Protocol: "rest", Device: fmt.Sprintf("device-%d", n),
		Source: "192.0.2.9", CRLScope: pki.ScopeFull,
		NotBefore: base.Truncate(time.Second), NotAfter: base.Truncate(time.Second).AddDate(1, 0, 0),
		IssuedAt: base.Add(time.Duration(n) * time.Microsecond),
		DER:      randomBytes(700),
	}
	for _, f := range edit {
		f(&c)
	}
	if c.Serial == "" {
		s, err := pki.NewSerialNumber(rand.Reader, c.NotAfter, c.IssuedAt)
		if err != nil {
			panic(err)
		}
		c.Serial = s
	}
	if c.Fingerprint == (pki.Fingerprint{}) {
		c.Fingerprint = sha256.Sum256(randomBytes(32))
	}
	if c.SPKIHash == ([32]byte{}) {
		c.SPKIHash = sha256.Sum256(randomBytes(32))
	}
	return c
}

func bootstrap() store.Bootstrap {
	issuer := func(name string, parent int) store.NewIssuer {
		spki := sha256.Sum256(randomBytes(32))
		c := certificate(signer{}, func(c *pki.Certificate) {
			c.Subject, c.SANs, c.Profile, c.Protocol, c.SPKIHash = "CN=Test "+name, nil, name, "internal", spki
			c.Device, c.Source = "", ""
		})
		return store.NewIssuer{
			Issuer: pki.Issuer{Name: name, Root: name == "root", Created: base},
			Key:    pki.IssuerKey{KeyID: hex.EncodeToString(spki[:8]), Current: true, SealedKey: randomBytes(200), Created: base},
			Certificate: pki.IssuerCertificate{
				Fingerprint: c.Fingerprint, Current: true, DER: c.DER,
			},
			Parent: parent, Record: c,
		}
	}
	return store.Bootstrap{
		KEKInfo: []byte("kek \x00\xff"),
		Issuers: []store.NewIssuer{issuer("root", 0), issuer("issuing", 0), issuer("devices", 1)},
		Profiles: []pki.ProfileVersion{
			{Name: "server", Version: 1, Config: []byte(`{ "b": 1,  "a": 2 }`), Builtin: true, CreatedAt: base, CreatedBy: "system"},
			{Name: "device", Version: 1, Config: []byte(`{}`), CreatedAt: base, CreatedBy: "system"},
		},
		Tokens: []pki.Token{
			{ID: "first", Name: "administrator", Hash: sha256.Sum256([]byte("first")), Role: pki.RoleAdministrator, CreatedAt: base, CreatedBy: "system"},
		},
		Records: []audit.Record{record(audit.ActionBootstrap, base), record(audit.ActionToken, base)},
	}
}

func (e *env) issue(by signer, edit ...func(*pki.Certificate)) pki.Certificate {
	e.t.Helper()
	c := certificate(by, edit...)
	if err := e.RecordIssuance(e.t.Context(), issuance(c)); err != nil {
		e.t.Fatalf("RecordIssuance: %v", err)
	}
	return c
}

func issuance(c pki.Certificate) store.Issuance {
	return store.Issuance{Certificate: c, Record: record(audit.ActionIssue, c.IssuedAt)}
}

func change(c pki.Certificate, a pki.Action, r pki.Revocation) store.StatusChange {
	return store.StatusChange{IssuerID: c.IssuerID, Serial: c.Serial, Action: a, Revocation: r, Record: record("certificate."+a.String(), base.Add(time.Hour))}
}

func (e *env) change(c pki.Certificate, a pki.Action, r pki.Revocation) pki.Certificate {
	e.t.Helper()
	after, err := e.ChangeStatus(e.t.Context(), change(c, a, r))
	if err != nil {
		e.t.Fatalf("ChangeStatus(%v, %v): %v", a, r, err)
	}
	return after
}

func revocation(reason pki.Reason, at time.Time) pki.Revocation {
	return pki.Revocation{Reason: reason, RevokedAt: at.Truncate(time.Second)}
}

func (e *env) head() store.Head {
	e.t.Helper()
	h, err := e.Head(e.t.Context())
	if err != nil {
		e.t.Fatalf("Head: %v", err)
	}
	return h
}

// events returns the whole history of statuses, in pages of the given size.
func (e *env) events(limit int) []store.StatusEvent {
	e.t.Helper()
	var all []store.StatusEvent
	for after := int64(0); ; {
		page, err := e.Store.StatusEvents(e.t.Context(), after, limit)
		if err != nil {
			e.t.Fatalf("StatusEvents(%d, %d): %v", after, limit, err)
		}
		if len(page) == 0 {
			return all
		}
		if page[0].Change <= after {
			e.t.Fatalf("StatusEvents(%d, %d) begins with change %d", after, limit, page[0].Change)
		}
		if n := page[len(page)-1].Change; len(page) > limit && page[0].Change != n {
			e.t.Fatalf("StatusEvents(%d, %d) returned %d events of several changes", after, limit, len(page))
		}
		all = append(all, page...)
		after = page[len(page)-1].Change
	}
}

// list returns all pages of a list.
func (e *env) list(f store.CertificateFilter, limit int) []pki.Certificate {
	e.t.Helper()
	var all []pki.Certificate
	for p := (store.Page{Limit: limit}); ; {
		page, next, err := e.ListCertificates(e.t.Context(), f, p)
		if err != nil {
			e.t.Fatalf("ListCertificates(%+v, %+v): %v", f, p, err)
		}
		if len(page) > limit {
			e.t.Fatalf("ListCertificates(%+v, %+v) returned %d records", f, p, len(page))
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		if len(page) == 0 {
			e.t.Fatalf("ListCertificates(%+v, %+v) returned an empty page that is not the last", f, p)
		}
		p.Cursor = next
	}
}

// verifyChain walks the whole chain, compares it with the head, and returns the actions of its records by target.
func (e *env) verifyChain() map[string]string {
	e.t.Helper()
	v, targets := walkChain(e.t, e.Store)
	h := e.head()
	if v.Change != h.Change || v.Records != h.AuditSeq || v.Head != h.Hash {
		e.t.Fatalf("the chain ends at change %d, record %d, %x; the head says %d, %d, %x", v.Change, v.Records, v.Head, h.Change, h.AuditSeq, h.Hash)
	}
	return targets
}

func walkChain(t *testing.T, s store.Store) (audit.Verifier, map[string]string) {
	t.Helper()
	var v audit.Verifier
	targets := map[string]string{}
	for b, err := range s.AuditChain(t.Context()) {
		if err != nil {
			t.Fatalf("AuditChain: %v", err)
		}
		if err := v.Add(b.Batch, b.Records); err != nil {
			t.Fatalf("AuditChain: %v", err)
		}
		for _, raw := range b.Records {
			r, err := audit.Parse(raw)
			if err != nil {
				t.Fatalf("AuditChain: %v", err)
			}
			if targets[r.Target] != "" {
				t.Fatalf("AuditChain: the record of %s is there twice", r.Target)
			}
			targets[r.Target] = r.Action
		}
	}
	return v, targets
}

// wantFault reports an error that is not a fault of this kind, or does not wrap the sentinel if there is one.
func wantFault(t *testing.T, what string, err error, kind fault.Kind, sentinel error) {
	t.Helper()
	if _, ok := errors.AsType[*fault.Error](err); !ok {
		t.Errorf("%s: got error %v, want a fault of kind %v", what, err, kind)
		return
	}
	if fault.KindOf(err) != kind {
		t.Errorf("%s: got %v error %v, want %v", what, fault.KindOf(err), err, kind)
	}
	if sentinel != nil && !errors.Is(err, sentinel) {
		t.Errorf("%s: got error %v, want one that wraps %q", what, err, sentinel)
	}
}

// equal reports a difference. Nil and empty slices are equal.
func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if reflect.DeepEqual(want, got) { // so are most, and cmp takes its time
		return
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func withoutDER(cs ...pki.Certificate) []pki.Certificate {
	out := make([]pki.Certificate, len(cs))
	for i, c := range cs {
		c.DER = nil
		out[i] = c
	}
	return out
}

// naiveText is what the text filter means.
func naiveText(c pki.Certificate, needle string) bool {
	needle = strings.ToLower(needle)
	for _, s := range append([]string{c.Subject}, c.SANs...) {
		if strings.Contains(strings.ToLower(s), needle) {
			return true
		}
	}
	return false
}

// soon bounds what must not block.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
