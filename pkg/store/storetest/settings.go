package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

func (e *env) settings() ([]pki.SettingsVersion, []pki.CRLAddress) {
	e.t.Helper()
	set, err := e.AllIssuers(e.t.Context())
	if err != nil {
		e.t.Fatalf("AllIssuers: %v", err)
	}
	return set.Settings, set.Addresses
}

func testIssuerSettings(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	version := func(by signer, n int) pki.SettingsVersion {
		return pki.SettingsVersion{
			IssuerID: by.issuer, Version: n, Config: fmt.Appendf(nil, `{ "n" : %d, "ü":"\u00fc" }`, n),
			CreatedAt: base.Add(time.Duration(n) * time.Minute), CreatedBy: "token:administrator",
		}
	}
	put := func(v pki.SettingsVersion, addresses ...pki.CRLAddress) error {
		return e.PutIssuerSettings(ctx, v, addresses, record(audit.ActionIssuer, base))
	}
	if history, err := e.IssuerSettingsHistory(ctx, e.issuing.issuer); err != nil || len(history) != 0 {
		t.Errorf("IssuerSettingsHistory before the first = %v, %v; want none", history, err)
	}
	for _, v := range []pki.SettingsVersion{version(e.issuing, 1), version(e.issuing, 2), version(e.root, 1), version(e.issuing, 3)} {
		if err := put(v); err != nil {
			t.Fatalf("PutIssuerSettings(%d, %d): %v", v.IssuerID, v.Version, err)
		}
		if head := e.head(); head.ConfigChange != head.Change {
			t.Errorf("Head after PutIssuerSettings = %+v", head)
		}
	}
	before := e.head()
	for _, v := range []pki.SettingsVersion{version(e.issuing, 3), version(e.issuing, 5), version(e.issuing, 1), version(e.devices, 2), version(e.devices, 0)} {
		wantFault(t, fmt.Sprintf("PutIssuerSettings(%d, %d)", v.IssuerID, v.Version), put(v), fault.Conflict, store.ErrStale)
	}
	wantFault(t, "PutIssuerSettings of nobody", put(version(signer{issuer: 1 << 40}, 1)), fault.NotFound, nil)
	address := pki.CRLAddress{IssuerKeyID: 1 << 40, Set: "s4", URL: "http://a.example/", RecordedAt: base, Until: base}
	wantFault(t, "PutIssuerSettings with the address of no key", put(version(e.devices, 1), address), fault.NotFound, nil)
	equal(t, "Head after refusals", e.head(), before)

	history, err := e.IssuerSettingsHistory(ctx, e.issuing.issuer)
	if err != nil {
		t.Errorf("IssuerSettingsHistory: %v", err)
	}
	equal(t, "IssuerSettingsHistory", history, []pki.SettingsVersion{version(e.issuing, 3), version(e.issuing, 2), version(e.issuing, 1)})
	newest, addresses := e.settings()
	equal(t, "the newest settings", newest, []pki.SettingsVersion{version(e.root, 1), version(e.issuing, 3)})
	equal(t, "the addresses", addresses, []pki.CRLAddress(nil))

	// An address that comes with the settings is there with them, and none without.
	address.IssuerKeyID = e.issuing.key
	if err := put(version(e.issuing, 4), address); err != nil {
		t.Fatalf("PutIssuerSettings with an address: %v", err)
	}
	wantFault(t, "PutIssuerSettings", put(version(e.issuing, 4), pki.CRLAddress{IssuerKeyID: e.issuing.key, Set: "s8", URL: "x", RecordedAt: base, Until: base}), fault.Conflict, store.ErrStale)
	_, addresses = e.settings()
	equal(t, "the addresses", addresses, []pki.CRLAddress{address})

	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = put(version(e.issuing, 5), address) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			wantFault(t, "PutIssuerSettings that lost", err, fault.Conflict, store.ErrStale)
		}
	}
	if won != 1 {
		t.Errorf("%d writers of one version succeeded, want 1", won)
	}
	e.verifyChain()
}

func testCRLAddresses(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	e.Store = h.Reopen(t, e.Store)
	a := pki.CRLAddress{IssuerKeyID: e.issuing.key, Set: "s64", URL: "http://a.example/{shard}.crl", RecordedAt: base, Until: base.AddDate(1, 0, 0)}
	b, c := a, a
	b.URL, b.RecordedAt = "http://b.example/{shard}.crl", base.Add(time.Minute)
	c.IssuerKeyID, c.Set, c.URL, c.ListedAt = e.root.key, pki.ScopeFull, "http://a.example/", base.Add(time.Second)
	put := func(a pki.CRLAddress) error { return e.RecordCRLAddress(ctx, a, record(audit.ActionCRLAddress, base)) }
	for _, a := range []pki.CRLAddress{c, b, a} {
		if err := put(a); err != nil {
			t.Fatalf("RecordCRLAddress(%v): %v", a, err)
		}
		if head := e.head(); head.ConfigChange != head.Change {
			t.Errorf("Head after RecordCRLAddress = %+v", head)
		}
	}
	_, got := e.settings()
	equal(t, "the addresses", got, []pki.CRLAddress{c, a, b})

	// Nothing is taken back, and nothing is written that is there.
	before := e.head()
	earlier := a
	earlier.Until, earlier.RecordedAt = base, base.Add(time.Hour)
	for _, a := range []pki.CRLAddress{a, c, earlier} {
		if err := put(a); err != nil {
			t.Errorf("RecordCRLAddress again: %v", err)
		}
	}
	wantFault(t, "ListCRLAddress of one that was not recorded", e.ListCRLAddress(ctx, e.issuing.key, "s32", a.URL, base), fault.NotFound, nil)
	strange := a
	strange.IssuerKeyID = 1 << 40
	wantFault(t, "RecordCRLAddress of no key", put(strange), fault.NotFound, nil)
	equal(t, "Head after what changes nothing", e.head(), before)

	later := a
	later.Until, later.RecordedAt, later.ListedAt = base.AddDate(2, 0, 0), base.Add(time.Hour), base
	if err := put(later); err != nil {
		t.Errorf("RecordCRLAddress with a later end: %v", err)
	}
	a.Until = later.Until
	_, got = e.settings()
	equal(t, "the addresses", got, []pki.CRLAddress{c, a, b})

	listed := base.Add(time.Minute)
	before = e.head()
	for range 2 {
		if err := e.ListCRLAddress(ctx, a.IssuerKeyID, a.Set, a.URL, listed); err != nil {
			t.Errorf("ListCRLAddress: %v", err)
		}
		if head := e.head(); head.Change != before.Change+1 || head.ConfigChange != head.Change || head.AuditSeq != before.AuditSeq {
			t.Errorf("Head after ListCRLAddress = %+v, before %+v", head, before)
		}
	}
	a.ListedAt = listed
	_, got = e.settings()
	equal(t, "the addresses", got, []pki.CRLAddress{c, a, b})

	// One that has lapsed begins anew.
	a.Until, a.ListedAt = a.Until.AddDate(1, 0, 0), time.Time{}
	revived := a
	revived.RecordedAt = later.Until.Add(time.Second)
	if err := put(revived); err != nil {
		t.Errorf("RecordCRLAddress of one that had lapsed: %v", err)
	}
	_, got = e.settings()
	equal(t, "the addresses", got, []pki.CRLAddress{c, a, b})

	// Many replicas that find out at the same time.
	d := b
	d.Set = "s2"
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			d := d
			d.Until = base.AddDate(0, i, 0)
			if err := put(d); err != nil {
				t.Errorf("RecordCRLAddress at the same time: %v", err)
			}
		})
	}
	wg.Wait()
	_, got = e.settings()
	if len(got) != 4 || !got[2].Until.Equal(base.AddDate(0, 15, 0)) {
		t.Errorf("the addresses after concurrent records: %+v", got)
	}
	e.Store = h.Reopen(t, e.Store)
	_, again := e.settings()
	equal(t, "the addresses after reopening", again, got)
	e.verifyChain()
}

func testScopes(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	scopes := []string{pki.ScopeFull, pki.ScopeCA, "s64/1", "s64/2", "s32/1", ""}
	var all []pki.Certificate
	for i := range 30 {
		c := e.issue(e.issuing, func(c *pki.Certificate) { c.CRLScope = scopes[i%len(scopes)] })
		all = append(all, c)
		e.change(c, pki.ActionHold, revocation(pki.Unspecified, base))
	}
	e.change(all[2], pki.ActionRelease, pki.Revocation{RevokedAt: base})
	e.change(all[3], pki.ActionRevoke, revocation(pki.Superseded, base))
	other := e.issue(e.devices, func(c *pki.Certificate) { c.CRLScope = "s64/1" })
	e.change(other, pki.ActionRevoke, revocation(pki.Superseded, base))

	for i, ev := range e.events(100) {
		want := "s64/1"
		if i < len(all) {
			want = all[i].CRLScope
		} else if i == len(all)+1 {
			want = "s64/2"
		}
		if ev.Scope != want {
			t.Errorf("event %d has the scope %q, want %q", i, ev.Scope, want)
		}
	}
	for _, scope := range append(scopes, "s64/3", "s64") {
		change, seq, err := e.Revocations(ctx, e.issuing.key, scope)
		if err != nil {
			t.Fatalf("Revocations: %v", err)
		}
		want := map[pki.SerialNumber]string{}
		for i, c := range all {
			if i != 2 && (c.CRLScope == scope || scope == pki.ScopeFull) {
				want[c.Serial] = c.CRLScope
			}
		}
		got, last := map[pki.SerialNumber]string{}, pki.SerialNumber("")
		for entry, err := range seq {
			if err != nil {
				t.Fatalf("Revocations: %v", err)
			}
			if entry.Serial <= last {
				t.Errorf("%s comes after %s", entry.Serial, last)
			}
			last, got[entry.Serial] = entry.Serial, entry.Scope
		}
		equal(t, "the revocations of the scope "+scope, got, want)
		equal(t, "their change", change, e.head().Change)
	}
}
