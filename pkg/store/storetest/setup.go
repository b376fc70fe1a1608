package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

func testEmpty(t *testing.T, h Harness) {
	s, ctx := h.Open(t), t.Context()
	head, err := s.Head(ctx)
	if err != nil || head != (store.Head{}) {
		t.Errorf("Head of an empty store = %+v, %v; want the zero value", head, err)
	}
	_, err = s.KEKInfo(ctx)
	wantFault(t, "KEKInfo", err, fault.NotFound, nil)
	set, err := s.AllIssuers(ctx)
	if err != nil || len(set.Issuers)+len(set.Keys)+len(set.Certificates) != 0 {
		t.Errorf("AllIssuers = %+v, %v; want none", set, err)
	}
	if ps, err := s.AllProfiles(ctx); err != nil || len(ps) != 0 {
		t.Errorf("AllProfiles = %v, %v; want none", ps, err)
	}
	if ts, err := s.AllTokens(ctx); err != nil || len(ts) != 0 {
		t.Errorf("AllTokens = %v, %v; want none", ts, err)
	}
	if cs, next, err := s.ListCertificates(ctx, store.CertificateFilter{}, store.Page{}); err != nil || len(cs) != 0 || next != "" {
		t.Errorf("ListCertificates = %v, %q, %v; want none", cs, next, err)
	}
	if n, err := s.CountCertificates(ctx, store.CertificateFilter{}, 10); err != nil || n != 0 {
		t.Errorf("CountCertificates = %d, %v; want 0", n, err)
	}
	if es, next, err := s.AuditEvents(ctx, store.AuditFilter{}, store.Page{}); err != nil || len(es) != 0 || next != "" {
		t.Errorf("AuditEvents = %v, %q, %v; want none", es, next, err)
	}
	if es, err := s.StatusEvents(ctx, 0, 10); err != nil || len(es) != 0 {
		t.Errorf("StatusEvents = %v, %v; want none", es, err)
	}
	for b, err := range s.AuditChain(ctx) {
		t.Errorf("AuditChain yields %+v, %v; want nothing", b, err)
	}
	noSeriousFindings(t, h, s)
}

func noSeriousFindings(t *testing.T, h Harness, s store.Store) {
	t.Helper()
	fs, err := s.Check(t.Context())
	if err != nil {
		t.Errorf("Check: %v", err)
	}
	for _, f := range fs {
		if f.Serious && (h.Harmless == nil || !h.Harmless(f)) {
			t.Errorf("Check finds: %s Mend: %s", f.What, f.Mend)
		}
	}
}

func testBootstrap(t *testing.T, h Harness) {
	e := open(t, h)
	e.checkBootstrapped()
	wantFault(t, "Bootstrap again", e.Bootstrap(t.Context(), bootstrap()), fault.Conflict, store.ErrNotEmpty)
	e.checkBootstrapped()
	noSeriousFindings(t, h, e)
}

// checkBootstrapped compares all that the store holds with what it was set up with.
func (e *env) checkBootstrapped() {
	e.t.Helper()
	t, ctx := e.t, e.t.Context()
	head := e.head()
	if head.Change != 1 || head.ConfigChange != 1 || head.StatusChange != 0 || head.CRLChange != 0 || head.AuditSeq != int64(len(e.boot.Records)) || !head.NewestTime.Equal(base) {
		t.Errorf("Head after Bootstrap = %+v", head)
	}
	kek, err := e.KEKInfo(ctx)
	if err != nil || !bytes.Equal(kek, e.boot.KEKInfo) {
		t.Errorf("KEKInfo = %q, %v; want %q", kek, err, e.boot.KEKInfo)
	}
	set, err := e.AllIssuers(ctx)
	if err != nil {
		t.Fatalf("AllIssuers: %v", err)
	}
	var want store.IssuerSet
	ids := []signer{e.root, e.issuing, e.devices}
	for i, n := range e.boot.Issuers {
		n.Issuer.ID, n.Key.ID, n.Key.IssuerID = ids[i].issuer, ids[i].key, ids[i].issuer
		n.Certificate.IssuerKeyID, n.Certificate.ParentKeyID = ids[i].key, ids[n.Parent].key
		for _, c := range set.Certificates {
			if c.IssuerKeyID == ids[i].key {
				n.Certificate.ID = c.ID
			}
		}
		want.Issuers, want.Keys, want.Certificates = append(want.Issuers, n.Issuer), append(want.Keys, n.Key), append(want.Certificates, n.Certificate)
		n.Record.IssuerID, n.Record.IssuerKeyID = ids[n.Parent].issuer, ids[n.Parent].key
		got, err := e.Certificate(ctx, n.Record.Fingerprint)
		if err != nil {
			t.Errorf("Certificate: %v", err)
		}
		equal(t, "the record of "+n.Issuer.Name, got, n.Record)
	}
	equal(t, "AllIssuers", set, want)
	profiles, err := e.AllProfiles(ctx)
	if err != nil || len(profiles) != len(e.boot.Profiles) {
		t.Errorf("AllProfiles = %v, %v", profiles, err)
	}
	for _, p := range e.boot.Profiles {
		history, err := e.ProfileHistory(ctx, p.Name)
		if err != nil {
			t.Errorf("ProfileHistory: %v", err)
		}
		equal(t, "ProfileHistory", history, []pki.ProfileVersion{p})
	}
	tokens, err := e.AllTokens(ctx)
	if err != nil {
		t.Errorf("AllTokens: %v", err)
	}
	equal(t, "AllTokens", tokens, e.boot.Tokens)
	blocked, err := e.BlockedKeys(ctx)
	if err != nil {
		t.Errorf("BlockedKeys: %v", err)
	}
	for _, n := range e.boot.Issuers {
		if !blocked[n.Record.SPKIHash].Own {
			t.Errorf("BlockedKeys lacks the key of %s, or does not call it ours", n.Issuer.Name)
		}
	}
	targets := e.verifyChain()
	for _, r := range e.boot.Records {
		if targets[r.Target] != r.Action {
			t.Errorf("the chain lacks %s of %s", r.Action, r.Target)
		}
	}
}

func testBootstrapRace(t *testing.T, h Harness) {
	s := h.Open(t)
	replicas := []store.Store{s}
	if h.Second != nil {
		replicas = append(replicas, h.Second(t, s))
	}
	boots := make([]store.Bootstrap, 8)
	errs := make([]error, len(boots))
	var wg sync.WaitGroup
	for i := range boots {
		boots[i] = bootstrap()
		wg.Go(func() { errs[i] = replicas[i%len(replicas)].Bootstrap(t.Context(), boots[i]) })
	}
	wg.Wait()
	e := &env{Store: s, t: t}
	won := 0
	for i, err := range errs {
		if err == nil {
			won++
			e.boot = boots[i]
			continue
		}
		wantFault(t, "Bootstrap that lost", err, fault.Conflict, store.ErrNotEmpty)
	}
	if won != 1 {
		t.Fatalf("%d of %d Bootstraps succeeded, want 1", won, len(boots))
	}
	e.load()
	e.checkBootstrapped()
}

func testBootstrapAllOrNothing(t *testing.T, h Harness) {
	e := &env{Store: h.Open(t), t: t, boot: bootstrap()}
	bad := bootstrap()
	bad.Issuers[2].Issuer.Name = bad.Issuers[1].Issuer.Name
	wantFault(t, "Bootstrap with two issuers of one name", e.Bootstrap(t.Context(), bad), fault.Conflict, nil)
	if head := e.head(); head != (store.Head{}) {
		t.Errorf("Head after a Bootstrap that failed = %+v, want the zero value", head)
	}
	if err := e.Bootstrap(t.Context(), e.boot); err != nil {
		t.Fatalf("Bootstrap after one that failed: %v", err)
	}
	e.load()
	e.checkBootstrapped()
}

func testReopen(t *testing.T, h Harness) {
	e := open(t, h)
	e.Store = h.Reopen(t, e.Store)
	e.checkBootstrapped()
	a, b := e.issue(e.issuing), e.issue(e.devices)
	e.change(b, pki.ActionRevoke, revocation(pki.KeyCompromise, base))
	head, events, all := e.head(), e.events(100), e.list(store.CertificateFilter{}, 10)
	lease, err := e.AcquireLease(t.Context(), "job", "one", time.Hour)
	if err != nil {
		t.Fatalf("AcquireLease: %v", err)
	}
	e.Store = h.Reopen(t, e.Store)
	equal(t, "Head", e.head(), head)
	equal(t, "StatusEvents", e.events(100), events)
	equal(t, "ListCertificates", e.list(store.CertificateFilter{}, 10), all)
	got, err := e.CertificateBySerial(t.Context(), a.IssuerID, a.Serial)
	if err != nil {
		t.Errorf("CertificateBySerial: %v", err)
	}
	equal(t, "CertificateBySerial", got, a)
	_, err = e.AcquireLease(t.Context(), "job", "two", time.Hour)
	wantFault(t, "AcquireLease of another's", err, fault.Conflict, nil)
	again, err := e.AcquireLease(t.Context(), "job", "one", time.Hour)
	if err != nil || again.Token != lease.Token {
		t.Errorf("AcquireLease = %+v, %v; want the token %d", again, err, lease.Token)
	}
	e.issue(e.issuing)
	if got := e.head(); got.Change != head.Change+1 {
		t.Errorf("the change after reopening is %d, want %d", got.Change, head.Change+1)
	}
	e.verifyChain()
}

func testSealedKeys(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	sealed := store.Sealed{Keys: map[int64][]byte{e.root.key: []byte("r"), e.issuing.key: []byte("i"), e.devices.key: {}}}
	without := store.Sealed{Keys: map[int64][]byte{e.root.key: []byte("r"), e.issuing.key: []byte("i")}}
	strange := store.Sealed{Keys: map[int64][]byte{e.root.key: []byte("r"), e.issuing.key: []byte("i"), 1 << 40: []byte("x")}}
	more := store.Sealed{Keys: map[int64][]byte{e.root.key: []byte("r"), e.issuing.key: []byte("i"), e.devices.key: {}, 1 << 40: []byte("x")}}
	before := e.head()
	for name, err := range map[string]error{
		"wrong old description": e.ReplaceSealedKeys(ctx, []byte("other"), []byte("new"), sealed, record(audit.ActionRewrap, base)),
		"a key is missing":      e.ReplaceSealedKeys(ctx, e.boot.KEKInfo, []byte("new"), without, record(audit.ActionRewrap, base)),
		"a strange key":         e.ReplaceSealedKeys(ctx, e.boot.KEKInfo, []byte("new"), strange, record(audit.ActionRewrap, base)),
		"a key too many":        e.ReplaceSealedKeys(ctx, e.boot.KEKInfo, []byte("new"), more, record(audit.ActionRewrap, base)),
	} {
		wantFault(t, name, err, fault.Conflict, store.ErrStale)
	}
	equal(t, "Head after refusals", e.head(), before)
	e.checkBootstrapped()
	if err := e.ReplaceSealedKeys(ctx, e.boot.KEKInfo, []byte("new"), sealed, record(audit.ActionRewrap, base)); err != nil {
		t.Fatalf("ReplaceSealedKeys: %v", err)
	}
	if after := e.head(); after.ConfigChange != after.Change || after.Change != before.Change+1 {
		t.Errorf("Head after ReplaceSealedKeys = %+v", after)
	}
	set, err := e.AllIssuers(ctx)
	if err != nil {
		t.Fatalf("AllIssuers: %v", err)
	}
	for _, k := range set.Keys {
		if !bytes.Equal(k.SealedKey, sealed.Keys[k.ID]) {
			t.Errorf("key %d is sealed as %q, want %q", k.ID, k.SealedKey, sealed.Keys[k.ID])
		}
	}
	if kek, err := e.KEKInfo(ctx); err != nil || string(kek) != "new" {
		t.Errorf("KEKInfo = %q, %v; want new", kek, err)
	}
	wantFault(t, "ReplaceSealedKeys again", e.ReplaceSealedKeys(ctx, e.boot.KEKInfo, []byte("x"), sealed, record(audit.ActionRewrap, base)), fault.Conflict, store.ErrStale)
	e.verifyChain()
}

func testProfiles(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	version := func(name string, n int) pki.ProfileVersion {
		return pki.ProfileVersion{Name: name, Version: n, Config: fmt.Appendf(nil, `{ "n" : %d, "ü":"\u00fc" }`, n), CreatedAt: base.Add(time.Duration(n) * time.Minute), CreatedBy: "token:administrator"}
	}
	for _, p := range []pki.ProfileVersion{version("new", 1), version("new", 2), version("new", 3), version("server", 2)} {
		if err := e.PutProfile(ctx, p, record(audit.ActionProfile, base)); err != nil {
			t.Fatalf("PutProfile(%s, %d): %v", p.Name, p.Version, err)
		}
		if head := e.head(); head.ConfigChange != head.Change {
			t.Errorf("Head after PutProfile = %+v", head)
		}
	}
	before := e.head()
	for _, p := range []pki.ProfileVersion{version("new", 3), version("new", 5), version("new", 1), version("other", 2), version("other", 0)} {
		wantFault(t, fmt.Sprintf("PutProfile(%s, %d)", p.Name, p.Version), e.PutProfile(ctx, p, record(audit.ActionProfile, base)), fault.Conflict, store.ErrStale)
	}
	equal(t, "Head after refusals", e.head(), before)
	history, err := e.ProfileHistory(ctx, "new")
	if err != nil {
		t.Errorf("ProfileHistory: %v", err)
	}
	equal(t, "ProfileHistory", history, []pki.ProfileVersion{version("new", 3), version("new", 2), version("new", 1)})
	_, err = e.ProfileHistory(ctx, "other")
	wantFault(t, "ProfileHistory", err, fault.NotFound, nil)
	all, err := e.AllProfiles(ctx)
	if err != nil {
		t.Errorf("AllProfiles: %v", err)
	}
	got := map[string]pki.ProfileVersion{}
	for _, p := range all {
		got[p.Name] = p
	}
	equal(t, "AllProfiles", got, map[string]pki.ProfileVersion{"new": version("new", 3), "server": version("server", 2), "device": e.boot.Profiles[1]})

	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = e.PutProfile(ctx, version("new", 4), record(audit.ActionProfile, base)) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			wantFault(t, "PutProfile that lost", err, fault.Conflict, store.ErrStale)
		}
	}
	if won != 1 {
		t.Errorf("%d writers of one version succeeded, want 1", won)
	}
	e.verifyChain()
}

func testTokens(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	token := func(id, name string, edit ...func(*pki.Token)) pki.Token {
		tok := pki.Token{
			ID: id, Name: name, Hash: [32]byte{1, 2, 3}, Role: pki.RoleEnroller, Issuers: []string{"issuing", "ü,\"'"}, Profiles: []string{"device"},
			Names: []string{"DNS:*.example.com", `CN:"{\}"`}, Rate: 60,
			CreatedAt: base.Add(time.Duration(counter.Add(1)) * time.Second), CreatedBy: "token:administrator", ExpiresAt: base.AddDate(1, 0, 0),
		}
		for _, f := range edit {
			f(&tok)
		}
		return tok
	}
	a, b := token("a", "phone"), token("b", "laptop", func(tok *pki.Token) {
		tok.Issuers, tok.Profiles, tok.Names, tok.Rate, tok.ExpiresAt = nil, nil, nil, 0, time.Time{}
	})
	old := token("c", "ended", func(tok *pki.Token) { tok.ExpiresAt = base.Add(-time.Hour) })
	for _, tok := range []pki.Token{a, b, old} {
		if err := e.CreateToken(ctx, tok, record(audit.ActionToken, base)); err != nil {
			t.Fatalf("CreateToken: %v", err)
		}
	}
	if head := e.head(); head.ConfigChange != head.Change {
		t.Errorf("Head after CreateToken = %+v", head)
	}
	before := e.head()
	wantFault(t, "CreateToken with a name in force", e.CreateToken(ctx, token("d", "phone"), record(audit.ActionToken, base)), fault.Conflict, nil)
	wantFault(t, "CreateToken with the name of an expired token", e.CreateToken(ctx, token("d", "ended"), record(audit.ActionToken, base)), fault.Conflict, nil)
	wantFault(t, "CreateToken with an id that exists", e.CreateToken(ctx, token("a", "other"), record(audit.ActionToken, base)), fault.Conflict, nil)
	wantFault(t, "RevokeToken of none", e.RevokeToken(ctx, "none", base, record(audit.ActionTokenEnd, base)), fault.NotFound, nil)
	equal(t, "Head after refusals", e.head(), before)
	at := base.Add(time.Hour)
	if err := e.RevokeToken(ctx, "a", at, record(audit.ActionTokenEnd, base)); err != nil {
		t.Fatalf("RevokeToken: %v", err)
	}
	if head := e.head(); head.ConfigChange != head.Change {
		t.Errorf("Head after RevokeToken = %+v", head)
	}
	wantFault(t, "RevokeToken twice", e.RevokeToken(ctx, "a", at.Add(time.Hour), record(audit.ActionTokenEnd, base)), fault.Conflict, nil)
	a.RevokedAt = at
	again := token("d", "phone")
	if err := e.CreateToken(ctx, again, record(audit.ActionToken, base)); err != nil {
		t.Errorf("CreateToken with the name of a revoked one: %v", err)
	}
	all, err := e.AllTokens(ctx)
	if err != nil {
		t.Errorf("AllTokens: %v", err)
	}
	equal(t, "AllTokens", all, []pki.Token{again, old, b, a, e.boot.Tokens[0]})

	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		tok := token(fmt.Sprintf("race-%d", i), "race")
		wg.Go(func() { errs[i] = e.CreateToken(ctx, tok, record(audit.ActionToken, base)) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			wantFault(t, "CreateToken that lost", err, fault.Conflict, nil)
		}
	}
	if won != 1 {
		t.Errorf("%d tokens of one name were made, want 1", won)
	}
	e.verifyChain()
}

func (e *env) administrator(id string, expires time.Time) {
	e.t.Helper()
	tok := pki.Token{ID: id, Name: id, Role: pki.RoleAdministrator, CreatedAt: base, CreatedBy: "test", ExpiresAt: expires}
	if err := e.CreateToken(e.t.Context(), tok, record(audit.ActionToken, base)); err != nil {
		e.t.Fatalf("CreateToken: %v", err)
	}
}

func testLastAdministrator(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	revoke := func(id string, at time.Time) error {
		return e.RevokeToken(ctx, id, at, record(audit.ActionTokenEnd, at))
	}
	wantFault(t, "RevokeToken of the only administrator", revoke("first", base), fault.Conflict, nil)
	e.administrator("short", base.Add(time.Hour))
	wantFault(t, "RevokeToken when the other has expired", revoke("first", base.Add(2*time.Hour)), fault.Conflict, nil)
	wantFault(t, "RevokeToken when the other expires at that time", revoke("first", base.Add(time.Hour)), fault.Conflict, nil)
	if err := e.CreateToken(ctx, pki.Token{ID: "op", Name: "op", Role: pki.RoleOperator, CreatedAt: base}, record(audit.ActionToken, base)); err != nil {
		t.Fatalf("CreateToken: %v", err)
	}
	wantFault(t, "RevokeToken when the other is an operator", revoke("first", base.Add(2*time.Hour)), fault.Conflict, nil)
	if err := revoke("op", base.Add(2*time.Hour)); err != nil {
		t.Errorf("RevokeToken of an operator: %v", err)
	}
	for name, limit := range map[string]func(*pki.Token){
		"issuers":  func(tok *pki.Token) { tok.Issuers = []string{"issuing"} },
		"profiles": func(tok *pki.Token) { tok.Profiles = []string{"device"} },
		"names":    func(tok *pki.Token) { tok.Names = []string{"DNS:*"} },
		"an hour":  func(tok *pki.Token) { tok.ExpiresAt = base.Add(store.AdministratorRemains) },
	} {
		tok := pki.Token{ID: name, Name: name, Role: pki.RoleAdministrator, CreatedAt: base}
		limit(&tok)
		if err := e.CreateToken(ctx, tok, record(audit.ActionToken, base)); err != nil {
			t.Fatalf("CreateToken: %v", err)
		}
		wantFault(t, "RevokeToken when the other is limited to "+name, revoke("first", base), fault.Conflict, nil)
		if err := revoke(name, base); err != nil {
			t.Errorf("RevokeToken of an administrator limited to %s: %v", name, err)
		}
	}
	if err := revoke("short", base.Add(2*time.Hour)); err != nil {
		t.Errorf("RevokeToken of an expired administrator: %v", err)
	}
	e.administrator("second", base.AddDate(1, 0, 0))
	if err := revoke("first", base.Add(time.Hour)); err != nil {
		t.Errorf("RevokeToken with another administrator: %v", err)
	}
	wantFault(t, "RevokeToken of the last administrator", revoke("second", base.Add(time.Hour)), fault.Conflict, nil)
	e.verifyChain()
}

func testLastAdministratorRace(t *testing.T, h Harness) {
	e := open(t, h)
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	ids := []string{"first"}
	for i := range 7 {
		ids = append(ids, fmt.Sprintf("admin-%d", i))
		e.administrator(ids[i+1], time.Time{})
	}
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			errs[i] = stores[i%len(stores)].RevokeToken(t.Context(), id, base, record(audit.ActionTokenEnd, base))
		})
	}
	wg.Wait()
	refused := 0
	for _, err := range errs {
		if err != nil {
			refused++
			wantFault(t, "RevokeToken of the last", err, fault.Conflict, nil)
		}
	}
	if refused != 1 {
		t.Errorf("%d of %d administrators were kept, want 1: %v", refused, len(ids), errors.Join(errs...))
	}
}

func testLeases(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	before := e.head()
	first, err := e.AcquireLease(ctx, "crl", "one", time.Hour)
	if err != nil {
		t.Fatalf("AcquireLease: %v", err)
	}
	if first.Name != "crl" || first.Holder != "one" || first.Remaining <= 59*time.Minute || first.Remaining > time.Hour {
		t.Errorf("AcquireLease = %+v", first)
	}
	_, err = e.AcquireLease(ctx, "crl", "two", time.Hour)
	wantFault(t, "AcquireLease of another's", err, fault.Conflict, nil)
	if held, ok := errors.AsType[*store.HeldError](err); !ok || held.Holder != "one" {
		t.Errorf("AcquireLease of another's says %v, want that one holds it", err)
	}
	if _, err := e.AcquireLease(ctx, "other", "two", time.Hour); err != nil {
		t.Errorf("AcquireLease of another job: %v", err)
	}
	again, err := e.AcquireLease(ctx, "crl", "one", 2*time.Hour)
	if err != nil || again.Token != first.Token || again.Remaining <= time.Hour {
		t.Errorf("extending AcquireLease = %+v, %v; want the token %d and two hours", again, err, first.Token)
	}
	if err := e.ReleaseLease(ctx, "crl", "two"); err != nil {
		t.Errorf("ReleaseLease of another's: %v", err)
	}
	_, err = e.AcquireLease(ctx, "crl", "two", time.Hour)
	wantFault(t, "AcquireLease after the wrong one released it", err, fault.Conflict, nil)
	if err := e.ReleaseLease(ctx, "crl", "one"); err != nil {
		t.Errorf("ReleaseLease: %v", err)
	}
	if err := e.ReleaseLease(ctx, "none", "one"); err != nil {
		t.Errorf("ReleaseLease of none: %v", err)
	}
	second, err := e.AcquireLease(ctx, "crl", "two", 200*time.Millisecond)
	if err != nil || second.Token <= first.Token {
		t.Fatalf("AcquireLease after release = %+v, %v; want a token above %d", second, err, first.Token)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		third, err := e.AcquireLease(ctx, "crl", "three", time.Hour)
		if err == nil {
			if third.Token <= second.Token {
				t.Errorf("AcquireLease after the end = %+v, want a token above %d", third, second.Token)
			}
			break
		}
		wantFault(t, "AcquireLease before the end", err, fault.Conflict, nil)
		if time.Now().After(deadline) {
			t.Fatal("a lease of 200 ms has not ended after 30 s")
		}
		time.Sleep(20 * time.Millisecond)
	}
	equal(t, "Head after leases", e.head(), before)
}

func testLeaseRace(t *testing.T, h Harness) {
	e := open(t, h)
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		tokens = map[int64]string{}
		won    int
	)
	for i := range 16 {
		wg.Go(func() {
			holder := fmt.Sprintf("holder-%d", i)
			for range 10 {
				l, err := stores[i%len(stores)].AcquireLease(t.Context(), "race", holder, time.Hour)
				if err != nil {
					wantFault(t, "AcquireLease", err, fault.Conflict, nil)
					continue
				}
				mu.Lock()
				if other, ok := tokens[l.Token]; ok && other != holder {
					t.Errorf("the token %d was given to %s and %s", l.Token, other, holder)
				}
				tokens[l.Token] = holder
				won++
				mu.Unlock()
				if err := stores[i%len(stores)].ReleaseLease(t.Context(), "race", holder); err != nil {
					t.Errorf("ReleaseLease: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if won == 0 {
		t.Error("nobody got the lease")
	}
}
