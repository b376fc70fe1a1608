package ca_test

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/settings"
	"github.com/certwright/certwright/pkg/store"
)

// settle puts settings of the issuing CA into force and has the authority hear of them.
func (b *bench) settle(rules settings.CRLRules) ca.SettingsPlan {
	b.t.Helper()
	_, plan, err := b.ca.PutSettings(b.t.Context(), ca.SettingsChange{
		Principal: someone, Config: settings.Config{Name: "issuing", CRL: rules}, Version: ca.AnyVersion,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.follow()
	return plan
}

// list says of all addresses that the CRLs name them.
func (b *bench) list() {
	b.t.Helper()
	for _, a := range b.issuing().Current.Addresses {
		if err := b.store.ListCRLAddress(b.t.Context(), a.IssuerKeyID, a.Set, a.URL, b.now); err != nil {
			b.t.Fatal(err)
		}
	}
	b.follow()
}

func (b *bench) addressRecords() int {
	b.t.Helper()
	events, _, err := b.store.AuditEvents(b.t.Context(), store.AuditFilter{Action: audit.ActionCRLAddress}, store.Page{})
	if err != nil {
		b.t.Fatal(err)
	}
	return len(events)
}

func crlAddress(t *testing.T, i *ca.Issued) string {
	t.Helper()
	c, err := x509.ParseCertificate(i.Record.DER)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.CRLDistributionPoints) != 1 {
		t.Fatalf("the certificate names the CRLs %v, want one", c.CRLDistributionPoints)
	}
	return c.CRLDistributionPoints[0]
}

func TestSharded(t *testing.T) {
	b := newBench(t, keys.P256)
	before := b.issue("server", "a.example.com")
	full := publicURL + "/crl/" + b.issuing().Current.KeyID + ".crl"
	if got := crlAddress(t, before); got != full || before.Record.CRLScope != pki.ScopeFull {
		t.Errorf("before: %s, scope %s", got, before.Record.CRLScope)
	}
	b.settle(settings.CRLRules{Form: settings.Sharded, Shards: 8})
	// No CRL names the shards' address yet: a verifier would refuse it.
	waiting := b.issue("server", "a.example.com")
	if got := crlAddress(t, waiting); got != full || waiting.Record.CRLScope != pki.ScopeFull {
		t.Errorf("before the CRLs are there: %s, scope %s", got, waiting.Record.CRLScope)
	}
	b.list()

	seen := map[string]bool{}
	for range 64 {
		i := b.issue("server", "a.example.com")
		shard := pki.ShardOf(i.Record.Serial, 8)
		scope := pki.ShardScope("s8", shard)
		if want := publicURL + pki.CRLPath(b.issuing().Current.KeyID, scope); crlAddress(t, i) != want || i.Record.CRLScope != scope || i.Record.CRLShard != shard {
			t.Errorf("%s has the address %s and the scope %s, want %s", i.Record.Serial, crlAddress(t, i), i.Record.CRLScope, want)
		}
		stored, err := b.store.Certificate(t.Context(), i.Record.Fingerprint)
		if err != nil || stored.CRLScope != scope || stored.CRLShard != shard {
			t.Errorf("stored with the scope %s, shard %d: %v", stored.CRLScope, stored.CRLShard, err)
		}
		seen[scope] = true
	}
	if len(seen) != 8 { // by chance once in 600
		t.Logf("64 certificates are in %d of 8 shards", len(seen))
	}
	if len(seen) < 5 {
		t.Errorf("64 certificates are in %d of 8 shards", len(seen))
	}

	run, err := b.ca.DryRun(t.Context(), ca.Request{Principal: someone, Protocol: "rest", Profile: "server", CSR: request(t, newKey(t), "a.example.com")}, nil)
	if err != nil || !strings.Contains(run.Certificate.CRLDistributionPoints[0], "/s8/") {
		t.Errorf("a dry run shows %v, %v", run.Certificate.CRLDistributionPoints, err)
	}

	// Another layout is another set; the old one's certificates stay in theirs.
	plan := b.settle(settings.CRLRules{Form: settings.Sharded, Shards: 4})
	if len(plan.Warnings) == 0 || !strings.Contains(plan.Warnings[0], "keep their CRL") {
		t.Errorf("a new number of shards comes with the warnings %q", plan.Warnings)
	}
	b.list()
	if i := b.issue("server", "a.example.com"); !strings.HasPrefix(i.Record.CRLScope, "s4/") {
		t.Errorf("with four shards a certificate has the scope %s", i.Record.CRLScope)
	}
	b.settle(settings.CRLRules{})
	if i := b.issue("server", "a.example.com"); i.Record.CRLScope != pki.ScopeFull || crlAddress(t, i) != full {
		t.Errorf("back at the full form: scope %s", i.Record.CRLScope)
	}
	var sets []string
	for _, a := range b.issuing().Current.Addresses {
		sets = append(sets, a.Set)
	}
	slices.Sort(sets)
	if !slices.Equal(sets, []string{"full", "s4", "s8"}) {
		t.Errorf("addresses of the sets %v are kept", sets)
	}
}

// TestAddressesComeFirst has several authorities, which stand for replicas with addresses of their own.
func TestAddressesComeFirst(t *testing.T) {
	b := newBench(t, keys.P256)
	b.issue("server", "a.example.com")
	if n := b.addressRecords(); n != 0 {
		t.Fatalf("the first certificate leaves %d records of addresses, want none: a new store knows them", n)
	}
	b.settle(settings.CRLRules{Form: settings.Sharded, Shards: 2})
	b.list()
	shards := func() pki.CRLAddress {
		t.Helper()
		a := b.issuing().Current.Addresses
		if b.follow(); len(a) != 2 || a[1].Set != "s2" {
			t.Fatalf("the addresses %+v, want one of the full CRL and one of shards", a)
		}
		return b.issuing().Current.Addresses[1]
	}
	for range 5 {
		b.issue("server", "a.example.com")
	}
	if n, until := b.addressRecords(), b.now.AddDate(0, 0, 90); n != 1 || shards().Until.Before(until) {
		t.Errorf("%d records of addresses, and the shards' %+v; want one until %v or later", n, shards(), until)
	}
	// A longer life extends it, at once for many.
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { b.issue("client", "someone") })
	}
	all.Wait()
	if n, until := b.addressRecords(), b.now.AddDate(1, 0, 0); n != 2 || shards().Until.Before(until) {
		t.Errorf("%d records of addresses, and the shards' %+v; want two and one until %v or later", n, shards(), until)
	}

	for _, url := range []string{"http://b.example.com", "http://c.example.com"} {
		other := *b
		var err error
		other.ca, err = ca.New(ca.Config{Store: b.store, Issuers: b.issuers, Clock: clock.New(func() time.Time { return b.now }, nil), PublicURL: url})
		if err != nil {
			t.Fatal(err)
		}
		other.follow()
		first := other.issue("server", "a.example.com")
		if got := crlAddress(t, first); !strings.HasPrefix(got, url) || first.Record.CRLScope != pki.ScopeFull {
			t.Errorf("at %s the first certificate names %s, scope %s: no CRL of a shard names that address", url, got, first.Record.CRLScope)
		}
		other.follow()
		if err := other.ca.RecordAddresses(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.follow()
		other.list()
		if i := other.issue("server", "a.example.com"); !strings.HasPrefix(crlAddress(t, i), url) || !strings.HasPrefix(i.Record.CRLScope, "s2/") {
			t.Errorf("at %s a certificate names %s", url, crlAddress(t, i))
		}
	}
	b.follow()
	if got := len(b.issuing().Current.Addresses); got != 6 {
		t.Errorf("%d addresses are kept, want 6: %+v", got, b.issuing().Current.Addresses)
	}
}

func TestNoCertificateWithoutItsAddress(t *testing.T) {
	b := newBench(t, keys.P256)
	b.settle(settings.CRLRules{Form: settings.Sharded})
	b.list()
	broken, err := ca.New(ca.Config{
		Store: refuseAddresses{b.store}, Issuers: b.issuers, Clock: clock.New(func() time.Time { return b.now }, nil), PublicURL: publicURL,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.ca = broken
	b.follow()
	_, err = b.ca.Issue(t.Context(), ca.Request{Principal: someone, Protocol: "rest", Profile: "server", CSR: request(t, newKey(t), "a.example.com")})
	want(t, err, fault.Unavailable, "recording the address")
	if n, err := b.store.CountCertificates(t.Context(), store.CertificateFilter{Requester: someone.Name}, 10); err != nil || n != 0 {
		t.Errorf("%d certificates were recorded, %v; want none", n, err)
	}
}

func TestAddressOfCACertificates(t *testing.T) {
	b := newBench(t, keys.P256)
	root := b.issuers.Current().Issuers[0]
	record, err := b.store.Certificate(t.Context(), b.issuing().Current.Fingerprint)
	if err != nil || record.CRLScope != pki.ScopeCA {
		t.Errorf("the issuing CA's certificate has the scope %q, %v", record.CRLScope, err)
	}
	if a := root.Current.Addresses; len(a) != 1 || a[0].Of(0) != b.issuing().Current.Certificate.CRLDistributionPoints[0] || a[0].Until.Before(record.NotAfter) {
		t.Errorf("the root's addresses are %+v, the issuing CA's certificate names %v", a, b.issuing().Current.Certificate.CRLDistributionPoints)
	}
	_, _, err = b.ca.PutSettings(t.Context(), ca.SettingsChange{Principal: someone, Config: settings.Config{Name: "root", CRL: settings.CRLRules{Form: settings.Sharded}}})
	want(t, err, fault.PolicyRefused, "one CRL speaks of")
	issued, err := b.ca.Issue(t.Context(), ca.Request{Principal: someone, Protocol: "rest", Profile: "sub-ca", Issuer: "root", CSR: request(t, newKey(t), "Branch CA")})
	if err != nil || issued.Record.CRLScope != pki.ScopeCA {
		t.Errorf("a CA's certificate has the scope %q, %v", issued.Record.CRLScope, err)
	}
}

func TestPutSettings(t *testing.T) {
	b := newBench(t, keys.P256)
	put := func(version int, c settings.Config) (pki.SettingsVersion, error) {
		v, _, err := b.ca.PutSettings(t.Context(), ca.SettingsChange{Principal: someone, Config: c, Version: version})
		return v, err
	}
	daily := settings.Config{Name: "issuing", CRL: settings.CRLRules{NextUpdate: settings.Duration(48 * time.Hour)}}
	if v, err := put(0, settings.Config{Name: "issuing"}); err != nil || v.Version != 0 {
		t.Errorf("settings that settle nothing became version %d, %v", v.Version, err)
	}
	if v, err := put(0, daily); err != nil || v.Version != 1 || strings.Contains(string(v.Config), "issuing") {
		t.Errorf("the first settings: %+v, %v", v, err)
	}
	if v, err := put(1, daily); err != nil || v.Version != 1 {
		t.Errorf("the same again: %+v, %v", v, err)
	}
	for _, version := range []int{0, 2} {
		_, err := put(version, settings.Config{Name: "issuing"})
		if want(t, err, fault.Conflict, "somebody else"); !errors.Is(err, store.ErrStale) {
			t.Errorf("on version %d: %v, want ErrStale", version, err)
		}
	}
	_, err := put(0, settings.Config{})
	want(t, err, fault.BadRequest, "name no issuer")
	_, err = put(0, settings.Config{Name: "isuing"})
	want(t, err, fault.NotFound, "isuing")
	b.follow()
	if i := b.issuing(); i.SettingsVersion.Version != 1 || i.Settings.CRL != daily.CRL {
		t.Errorf("in force is version %d: %+v", i.SettingsVersion.Version, i.Settings)
	}
	// What a later release wrote leaves the issuer with what was read last.
	if err := b.store.PutIssuerSettings(t.Context(), pki.SettingsVersion{IssuerID: b.issuing().ID, Version: 2, Config: []byte(`{"later":1}`), CreatedAt: b.now}, nil,
		audit.Record{Time: b.now, Action: audit.ActionIssuer}); err != nil {
		t.Fatal(err)
	}
	b.follow()
	if i := b.issuing(); i.SettingsErr == nil || i.SettingsVersion.Version != 2 || i.Settings.CRL != daily.CRL {
		t.Errorf("with settings that cannot be read: %+v, %v", i.Settings, i.SettingsErr)
	}
	b.issue("server", "a.example.com")
}

// refuseAddresses is a store that is away when an address is to be recorded.
type refuseAddresses struct{ store.Store }

func (refuseAddresses) RecordCRLAddress(context.Context, pki.CRLAddress, audit.Record) error {
	return fault.New(fault.Unavailable, "the disk is full")
}

func (b *bench) issuing() *issuer.Issuer {
	b.t.Helper()
	i, err := b.issuers.Current().Issuer("issuing")
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}
