package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// campaign returns one that no other collides with.
func campaign(f store.CertificateFilter, edit ...func(*store.Campaign)) store.Campaign {
	n := counter.Add(1)
	c := store.Campaign{
		ID: fmt.Sprintf("campaign-%d", n), State: store.CampaignRunning, Selection: f, Query: `{ "profile":"dévice" }`, Reason: pki.Superseded,
		InvalidityDate: base.Add(-time.Hour).Truncate(time.Second), Expected: 7, CreatedAt: base.Add(time.Duration(n) * time.Millisecond),
		CreatedBy: "token:operator", Role: "operator", Source: "192.0.2.3", RequestID: "r-1",
	}
	for _, f := range edit {
		f(&c)
	}
	c.ChangedAt = c.CreatedAt
	return c
}

func (e *env) begin(c store.Campaign) store.Campaign {
	e.t.Helper()
	if err := e.CreateCampaign(e.t.Context(), c, record("revocation.begin", c.CreatedAt)); err != nil {
		e.t.Fatalf("CreateCampaign: %v", err)
	}
	return c
}

func (e *env) campaign(id string) store.Campaign {
	e.t.Helper()
	c, err := e.Campaign(e.t.Context(), id)
	if err != nil {
		e.t.Fatalf("Campaign: %v", err)
	}
	return c
}

// step prepares the next step of a campaign, as a worker does.
func step(t *testing.T, s store.Store, c store.Campaign, limit int) (store.CampaignStep, error) {
	t.Helper()
	page, err := s.NextCertificates(t.Context(), c.Selection, c.Position, limit)
	next := store.CampaignStep{ID: c.ID, Step: c.Step, Position: c.Position, At: base.Add(2 * time.Hour)}
	for _, cert := range page {
		ch := change(cert, pki.ActionRevoke, pki.Revocation{Reason: c.Reason, RevokedAt: base.Truncate(time.Second), InvalidityDate: c.InvalidityDate})
		ch.Record.Target, ch.KeepRevoked = "certificate/"+cert.Fingerprint.String(), !c.ChangeReasons
		next.Changes, next.Position = append(next.Changes, ch), store.PositionOf(cert)
	}
	if len(page) == 0 {
		end := record("revocation.end", next.At)
		end.Target = "revocation/" + c.ID
		next.End = &end
	}
	return next, err
}

func testCampaigns(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	_, err := e.Campaign(ctx, "none")
	wantFault(t, "Campaign", err, fault.NotFound, nil)
	_, err = e.SetCampaignState(ctx, "none", store.CampaignPaused, base, record("x", base))
	wantFault(t, "SetCampaignState of none", err, fault.NotFound, nil)
	_, err = e.StepCampaign(ctx, store.CampaignStep{ID: "none"})
	wantFault(t, "StepCampaign of none", err, fault.NotFound, nil)

	hash := [32]byte{1, 2, 3}
	full := store.CertificateFilter{
		IssuerIDs: []int64{1, 2}, Profiles: []string{"a", "ü\"'"}, Status: []pki.Status{pki.Good, pki.OnHold}, Text: `%_\`, Serial: pki.SerialNumber([]byte{0xff, 0}),
		SPKIHash: &hash, Requester: "r", Protocol: "p", Device: "d", NotAfterFrom: base, NotAfterTo: base.Add(time.Nanosecond), IssuedFrom: base, IssuedTo: base, WithoutReserved: true, GoodFrom: base, GoodTo: base,
		Fingerprint: &pki.Fingerprint{5},
	}
	a := e.begin(campaign(full))
	b := e.begin(campaign(store.CertificateFilter{}, func(c *store.Campaign) {
		c.InvalidityDate, c.Source, c.RequestID, c.ChangeReasons = time.Time{}, "", "", true
	}))
	if head := e.head(); head.ConfigChange != head.Change || head.StatusChange == head.Change {
		t.Errorf("Head after CreateCampaign = %+v", head)
	}
	equal(t, "Campaign", e.campaign(a.ID), a)
	equal(t, "Campaign", e.campaign(b.ID), b)
	wantFault(t, "CreateCampaign with an id that exists", e.CreateCampaign(ctx, a, record("x", base)), fault.Conflict, nil)
	list := func(limit int, want ...store.Campaign) {
		t.Helper()
		got, err := e.ListCampaigns(ctx, limit)
		if err != nil {
			t.Errorf("ListCampaigns: %v", err)
		}
		equal(t, "ListCampaigns", got, want)
	}
	running := func(want ...store.Campaign) {
		t.Helper()
		got, err := e.RunningCampaigns(ctx)
		if err != nil {
			t.Errorf("RunningCampaigns: %v", err)
		}
		equal(t, "RunningCampaigns", got, want)
	}
	list(10, b, a)
	list(1, b)
	running(a, b)

	at := base.Add(time.Hour)
	set := func(c *store.Campaign, to store.CampaignState) {
		t.Helper()
		got, err := e.SetCampaignState(ctx, c.ID, to, at, record("revocation."+to.String(), at))
		if err != nil {
			t.Fatalf("SetCampaignState(%s): %v", to, err)
		}
		c.State, c.ChangedAt = to, at
		if to.Ended() {
			c.EndedAt = at
		}
		equal(t, "SetCampaignState", got, *c)
		equal(t, "Campaign", e.campaign(c.ID), *c)
	}
	refuse := func(c store.Campaign, to store.CampaignState) {
		t.Helper()
		before := e.head()
		_, err := e.SetCampaignState(ctx, c.ID, to, at, record("x", at))
		wantFault(t, "SetCampaignState from "+c.State.String()+" to "+to.String(), err, fault.Conflict, nil)
		equal(t, "Head after a refusal", e.head(), before)
	}
	set(&a, store.CampaignPaused)
	if head := e.head(); head.ConfigChange != head.Change {
		t.Errorf("Head after SetCampaignState = %+v", head)
	}
	refuse(a, store.CampaignPaused)
	running(b)
	set(&a, store.CampaignRunning)
	refuse(a, store.CampaignRunning)
	set(&a, store.CampaignPaused)
	set(&a, store.CampaignCancelled)
	for _, to := range []store.CampaignState{store.CampaignRunning, store.CampaignPaused, store.CampaignCancelled} {
		refuse(a, to)
	}
	e.Store = h.Reopen(t, e.Store)
	list(10, b, a)
	e.verifyChain()
}

// testCampaignSteps goes through a campaign and looks at every row that it leaves.
func testCampaignSteps(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	var want []pki.Certificate
	for i := range 23 {
		want = append(want, e.issue(e.issuing, func(c *pki.Certificate) { c.Profile, c.IssuedAt = "doomed", base.Add(time.Duration(i/3)*time.Second) }))
	}
	spared := e.issue(e.issuing)
	revokedBefore := e.change(want[4], pki.ActionRevoke, revocation(pki.CessationOfOperation, base))
	held := e.change(want[5], pki.ActionHold, revocation(pki.CertificateHold, base.Add(-time.Hour)))
	c := e.begin(campaign(store.CertificateFilter{Profiles: []string{"doomed"}}))
	events, before := len(e.events(100)), e.head()

	var beside pki.Fingerprint // revoked by somebody else between reading and step
	for range 100 {
		s, err := step(t, e, c, 5)
		if err != nil {
			t.Fatalf("NextCertificates: %v", err)
		}
		if c.Step == 2 { // one is gone in the meantime, and one was never there
			other := pki.Certificate{IssuerID: s.Changes[1].IssuerID, Serial: s.Changes[1].Serial}
			beside = e.change(other, pki.ActionRevoke, revocation(pki.AffiliationChanged, base)).Fingerprint
			events++
			s.Changes = append(s.Changes, change(certificate(e.issuing), pki.ActionRevoke, revocation(pki.Superseded, base)))
		}
		head := e.head()
		out, err := e.StepCampaign(ctx, s)
		if err != nil {
			t.Fatalf("StepCampaign: %v", err)
		}
		equal(t, "the campaign after the step", e.campaign(c.ID), out.Campaign)
		after := e.head()
		records := len(out.Changed)
		if s.End != nil {
			records = 1
		}
		if after.Change != head.Change+1 || after.AuditSeq != head.AuditSeq+int64(records) {
			t.Errorf("a step that changed %d certificates moved the head from %+v to %+v", len(out.Changed), head, after)
		}
		if (len(out.Changed) > 0) != (after.StatusChange == after.Change) || (s.End != nil) != (after.ConfigChange == after.Change) {
			t.Errorf("Head after a step that changed %d certificates = %+v", len(out.Changed), after)
		}
		if out.Campaign.Step != c.Step+1 || out.Campaign.Revoked != c.Revoked+int64(len(out.Changed)) || out.Campaign.Skipped != c.Skipped+int64(len(s.Changes)-len(out.Changed)) {
			t.Errorf("the step of %d changes, %d of them done, made %+v of %+v", len(s.Changes), len(out.Changed), out.Campaign, c)
		}
		// What was read before the step is of no use any more.
		_, err = e.StepCampaign(ctx, s)
		wantFault(t, "the same step again", err, fault.Conflict, store.ErrStale)
		if c = out.Campaign; c.State != store.CampaignRunning {
			break
		}
	}
	if c.State != store.CampaignDone || c.Revoked != 21 || c.Skipped != 3 || !c.EndedAt.Equal(base.Add(2*time.Hour)) {
		t.Errorf("the campaign ended as %+v, want 21 revoked and 3 skipped", c)
	}
	if n := len(e.events(100)) - events; n != 21 {
		t.Errorf("the campaign left %d status events, want 21", n)
	}
	for i, w := range want {
		got, err := e.Certificate(ctx, w.Fingerprint)
		if err != nil {
			t.Fatalf("Certificate: %v", err)
		}
		reason, revokedAt := pki.Superseded, base.Truncate(time.Second)
		switch {
		case i == 4:
			reason, revokedAt = revokedBefore.Revocation.Reason, revokedBefore.Revocation.RevokedAt
		case i == 5:
			revokedAt = held.Revocation.RevokedAt // stays
		case w.Fingerprint == beside:
			reason = pki.AffiliationChanged
		}
		if r := got.Revocation; r == nil || r.Status != pki.Revoked || r.Reason != reason || !r.RevokedAt.Equal(revokedAt) {
			t.Errorf("certificate %d: %+v, want %s since %s", i, r, reason, revokedAt)
		}
	}
	if got, err := e.Certificate(ctx, spared.Fingerprint); err != nil || got.Revocation != nil {
		t.Errorf("a certificate that was not selected: %+v, %v", got.Revocation, err)
	}
	if after := e.head(); after.AuditSeq != before.AuditSeq+21+1+1 {
		t.Errorf("%d records, want one for each of 21 certificates, of one revoked beside, and of the end", after.AuditSeq-before.AuditSeq)
	}
	targets := e.verifyChain()
	if targets["revocation/"+c.ID] != "revocation.end" || targets["certificate/"+want[0].Fingerprint.String()] == "" {
		t.Error("the chain lacks the records of the campaign")
	}
	noSeriousFindings(t, h, e)
}

func testCampaignPaused(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	cert := e.issue(e.issuing)
	c := e.begin(campaign(store.CertificateFilter{Device: cert.Device}))
	s, err := step(t, e, c, 5)
	if err != nil {
		t.Fatalf("NextCertificates: %v", err)
	}
	for _, to := range []store.CampaignState{store.CampaignPaused, store.CampaignCancelled} {
		if _, err := e.SetCampaignState(ctx, c.ID, to, base, record("x", base)); err != nil {
			t.Fatalf("SetCampaignState: %v", err)
		}
		before := e.head()
		_, err = e.StepCampaign(ctx, s)
		wantFault(t, "a step of a campaign that is "+to.String(), err, fault.Conflict, store.ErrStale)
		equal(t, "Head after a refusal", e.head(), before)
	}
	if got, err := e.Certificate(ctx, cert.Fingerprint); err != nil || got.Revocation != nil {
		t.Errorf("the certificate is %+v, %v; want good", got.Revocation, err)
	}
}

// testCampaignWorkers has several workers at one campaign, on several replicas where there are any, of which some are
// thrown out in the middle: every certificate is revoked once, with one event and one record.
func testCampaignWorkers(t *testing.T, h Harness) {
	e := open(t, h)
	const certificates, workers = 60, 4
	for i := range certificates {
		e.issue(e.issuing, func(c *pki.Certificate) { c.Profile, c.IssuedAt = "doomed", base.Add(time.Duration(i/7)*time.Second) })
	}
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	c := e.begin(campaign(store.CertificateFilter{Profiles: []string{"doomed"}}))
	events, before := len(e.events(100)), e.head()
	work := func(s store.Store, steps int) (stale int) {
		for range steps {
			at, err := s.Campaign(t.Context(), c.ID)
			if err != nil {
				t.Errorf("Campaign: %v", err)
				return stale
			}
			if at.State != store.CampaignRunning {
				return stale
			}
			next, err := step(t, s, at, 7)
			if err == nil {
				_, err = s.StepCampaign(t.Context(), next)
			}
			if errors.Is(err, store.ErrStale) {
				stale++
			} else if err != nil {
				t.Errorf("StepCampaign: %v", err)
				return stale
			}
		}
		return stale
	}
	work(e.Store, 3)
	if h.Second == nil { // the process dies, and another goes on
		e.Store = h.Reopen(t, e.Store)
		stores[0] = e.Store
	}
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { work(stores[i%len(stores)], 1000) })
	}
	wg.Wait()
	got := e.campaign(c.ID)
	if got.State != store.CampaignDone || got.Revoked != certificates || got.Skipped != 0 || got.Step != 10 {
		t.Errorf("the campaign is %+v, want %d revoked in 10 steps", got, certificates)
	}
	if n := len(e.events(100)) - events; n != certificates {
		t.Errorf("%d status events, want %d", n, certificates)
	}
	if n := e.head().AuditSeq - before.AuditSeq; n != certificates+1 {
		t.Errorf("%d records, want %d and that of the end", n, certificates)
	}
	e.verifyChain()
}

func testNextCertificates(t *testing.T, h Harness) {
	e := open(t, h)
	for i := range 20 {
		c := e.issue(e.issuing, func(c *pki.Certificate) {
			c.IssuedAt = base.Add(time.Duration(i%4) * time.Hour)
			if i%2 == 0 {
				c.Profile = "even"
			}
		})
		if i%5 == 0 {
			e.issue(e.devices, func(n *pki.Certificate) { n.IssuedAt, n.Serial = c.IssuedAt, c.Serial })
			e.change(c, pki.ActionRevoke, revocation(pki.Superseded, base))
		}
	}
	own := issuance(certificate(e.issuing, func(c *pki.Certificate) { c.Profile, c.IssuedAt = "even", base.Add(time.Hour) }))
	own.ReserveKey = true
	if err := e.RecordIssuance(t.Context(), own); err != nil {
		t.Fatalf("RecordIssuance: %v", err)
	}
	all := e.list(store.CertificateFilter{}, 100)
	for name, f := range map[string]store.CertificateFilter{
		"all":         {},
		"profile":     {Profiles: []string{"even"}},
		"not revoked": {Status: []pki.Status{pki.Good, pki.OnHold}, IssuerIDs: []int64{e.issuing.issuer}},
		"time":        {IssuedFrom: base.Add(time.Hour), IssuedTo: base.Add(3 * time.Hour)},
		"key":         {SPKIHash: &all[3].SPKIHash},
		"text":        {Text: "DEVICE-"},
		"not ours":    {WithoutReserved: true, Text: "cn="},
	} {
		want := e.list(f, 7)
		slices.Reverse(want)
		var got []pki.Certificate
		for at := (store.CertificatePosition{}); ; at = store.PositionOf(got[len(got)-1]) {
			page, err := e.NextCertificates(t.Context(), f, at, 3)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
		}
		equal(t, name, got, want)
		if name == "not ours" {
			for _, c := range got {
				if c.Fingerprint == own.Certificate.Fingerprint || c.Protocol == "internal" {
					t.Errorf("%s is one of ours", c.Subject)
				}
			}
			if len(got) != 24 {
				t.Errorf("%d certificates of others, want 24", len(got))
			}
		}
		if n, err := e.CountCertificates(t.Context(), f, 1000); err != nil || n != len(want) {
			t.Errorf("%s: CountCertificates = %d, %v; want %d", name, n, err, len(want))
		}
	}
}

func testBlockAndUnblock(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	cert := e.issue(e.issuing)
	blocked := func(hash [32]byte) (store.BlockedKey, bool) {
		t.Helper()
		all, err := e.BlockedKeys(ctx)
		if err != nil {
			t.Fatalf("BlockedKeys: %v", err)
		}
		b, ok := all[hash]
		return b, ok
	}
	unblock := func(hash [32]byte) error { return e.UnblockKey(ctx, hash, record("key.unblock", base)) }
	withKey := func(hash [32]byte) store.Campaign {
		return campaign(store.CertificateFilter{SPKIHash: &hash}, func(c *store.Campaign) { c.Key, c.ChangeReasons, c.Reason = &hash, true, pki.KeyCompromise })
	}
	wantFault(t, "UnblockKey of one that is not blocked", unblock(cert.SPKIHash), fault.NotFound, nil)
	before := e.head()
	ours := e.boot.Issuers[1].Record.SPKIHash
	wantFault(t, "CreateCampaign against a key of ours", e.CreateCampaign(ctx, withKey(ours), record("x", base)), fault.PolicyRefused, nil)
	if b, _ := blocked(ours); b.Compromised {
		t.Error("a refused campaign has blocked its key")
	}
	wantFault(t, "UnblockKey of ours", unblock(ours), fault.PolicyRefused, nil)
	equal(t, "Head after refusals", e.head(), before)

	c := e.begin(withKey(cert.SPKIHash))
	want := store.BlockedKey{Compromised: true, At: c.CreatedAt, By: c.CreatedBy, Campaign: c.ID}
	if b, _ := blocked(cert.SPKIHash); b != want {
		t.Errorf("BlockedKeys has %+v, want %+v", b, want)
	}
	if got := e.campaign(c.ID); got.Key == nil || *got.Key != cert.SPKIHash {
		t.Errorf("Campaign = %+v, want its key", got)
	}
	// Reported again, it stays as it was reported first.
	again := e.begin(withKey(cert.SPKIHash))
	if b, _ := blocked(cert.SPKIHash); b != want {
		t.Errorf("BlockedKeys after another report has %+v, want %+v", b, want)
	}
	for _, c := range []store.Campaign{c, again} {
		wantFault(t, "UnblockKey during a campaign", unblock(cert.SPKIHash), fault.Conflict, nil)
		if _, err := e.SetCampaignState(ctx, c.ID, store.CampaignPaused, base, record("x", base)); err != nil {
			t.Fatalf("SetCampaignState: %v", err)
		}
		wantFault(t, "UnblockKey during a pause", unblock(cert.SPKIHash), fault.Conflict, nil)
		if _, err := e.SetCampaignState(ctx, c.ID, store.CampaignCancelled, base, record("x", base)); err != nil {
			t.Fatalf("SetCampaignState: %v", err)
		}
	}
	if err := unblock(cert.SPKIHash); err != nil {
		t.Fatalf("UnblockKey: %v", err)
	}
	if head := e.head(); head.ConfigChange != head.Change {
		t.Errorf("Head after UnblockKey = %+v", head)
	}
	if b, ok := blocked(cert.SPKIHash); ok {
		t.Errorf("the key is still blocked: %+v", b)
	}

	// A key of ours that is reported with a revocation stays ours, and reserving a reported key does not admit it.
	own := issuance(certificate(e.issuing))
	own.ReserveKey = true
	if err := e.RecordIssuance(ctx, own); err != nil {
		t.Fatalf("RecordIssuance: %v", err)
	}
	report := change(own.Certificate, pki.ActionRevoke, revocation(pki.KeyCompromise, base))
	report.BlockKey = true
	if _, err := e.ChangeStatus(ctx, report); err != nil {
		t.Fatalf("ChangeStatus: %v", err)
	}
	want = store.BlockedKey{Own: true, Compromised: true, At: report.Record.Time, By: report.Record.Actor}
	if b, _ := blocked(own.Certificate.SPKIHash); b != want {
		t.Errorf("BlockedKeys has %+v, want %+v", b, want)
	}
	wantFault(t, "UnblockKey of ours that was reported", unblock(own.Certificate.SPKIHash), fault.PolicyRefused, nil)
	e.verifyChain()
}

// testSettle has a key blocked while certificates for it are issued on every replica: once what had begun is settled, no
// further one appears.
func testSettle(t *testing.T, h Harness) {
	for way, block := range map[string]func(e *env, first pki.Certificate){
		"campaign": func(e *env, first pki.Certificate) {
			e.begin(campaign(store.CertificateFilter{SPKIHash: &first.SPKIHash}, func(c *store.Campaign) { c.Key = &first.SPKIHash }))
		},
		"revocation": func(e *env, first pki.Certificate) {
			r := change(first, pki.ActionRevoke, revocation(pki.KeyCompromise, base))
			r.BlockKey = true
			if _, err := e.ChangeStatus(e.t.Context(), r); err != nil {
				e.t.Errorf("ChangeStatus: %v", err)
			}
		},
	} {
		t.Run(way, func(t *testing.T) { settle(t, h, block) })
	}
}

func settle(t *testing.T, h Harness, block func(e *env, first pki.Certificate)) {
	e := open(t, h)
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	first := e.issue(e.issuing)
	key := first.SPKIHash
	var wg sync.WaitGroup
	begun := make(chan struct{}, 1)
	for i := range 8 {
		wg.Go(func() {
			for range 10000 {
				err := stores[i%len(stores)].RecordIssuance(t.Context(), issuance(certificate(e.issuing, func(c *pki.Certificate) { c.SPKIHash = key })))
				if err != nil {
					wantFault(t, "RecordIssuance for a blocked key", err, fault.BadPublicKey, nil)
					return
				}
				select {
				case begun <- struct{}{}:
				default:
				}
			}
			t.Error("the key was never refused")
		})
	}
	<-begun
	block(e, first)
	if err := e.Settle(t.Context()); err != nil {
		t.Fatalf("Settle: %v", err)
	}
	f := store.CertificateFilter{SPKIHash: &key}
	seen, err := e.CountCertificates(t.Context(), f, 1<<20)
	if err != nil {
		t.Fatalf("CountCertificates: %v", err)
	}
	wg.Wait()
	if all, err := e.CountCertificates(t.Context(), f, 1<<20); err != nil || all != seen || all == 0 {
		t.Errorf("%d certificates for the key were there when it was settled, and %d are (%v)", seen, all, err)
	}
}

// testCampaignBlocksKeys: a campaign for keyCompromise blocks the key of each certificate in the step that revokes it.
func testCampaignBlocksKeys(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	for range 4 {
		e.issue(e.issuing, func(c *pki.Certificate) { c.Profile = "doomed" })
	}
	twin := e.issue(e.devices, func(c *pki.Certificate) { c.Profile = "doomed" })
	e.issue(e.devices, func(c *pki.Certificate) { c.Profile, c.SPKIHash = "doomed", twin.SPKIHash })
	c := e.begin(campaign(store.CertificateFilter{Profiles: []string{"doomed"}}))
	s, err := step(t, e, c, 100)
	if err != nil {
		t.Fatalf("NextCertificates: %v", err)
	}
	for i := range s.Changes {
		s.Changes[i].BlockKey = true
	}
	out, err := e.StepCampaign(ctx, s)
	if err != nil || len(out.Changed) != 6 {
		t.Fatalf("StepCampaign changed %d, %v; want 6", len(out.Changed), err)
	}
	all, err := e.BlockedKeys(ctx)
	if err != nil {
		t.Fatalf("BlockedKeys: %v", err)
	}
	for _, cert := range out.Changed {
		if !all[cert.SPKIHash].Compromised {
			t.Errorf("the key of %s is not blocked", cert.Subject)
		}
	}
	if head := e.head(); head.ConfigChange != head.Change {
		t.Errorf("Head = %+v", head)
	}
}

// fillCampaigns leaves one in every state, and one in the middle.
func (e *env) fillCampaigns() {
	e.t.Helper()
	hash := [32]byte{9}
	e.begin(campaign(store.CertificateFilter{SPKIHash: &hash}, func(c *store.Campaign) { c.Key, c.InvalidityDate, c.ChangeReasons = &hash, time.Time{}, true }))
	for _, state := range []store.CampaignState{store.CampaignPaused, store.CampaignCancelled} {
		c := e.begin(campaign(store.CertificateFilter{Text: "no certificate has this"}))
		if _, err := e.SetCampaignState(e.t.Context(), c.ID, state, base, record("x", base)); err != nil {
			e.t.Fatalf("SetCampaignState: %v", err)
		}
	}
	c := e.begin(campaign(store.CertificateFilter{WithoutReserved: true, IssuedTo: base.Add(time.Hour)}))
	s, err := step(e.t, e, c, 1)
	if err != nil {
		e.t.Fatalf("NextCertificates: %v", err)
	}
	s.LookBack = true
	if _, err := e.StepCampaign(e.t.Context(), s); err != nil {
		e.t.Fatalf("StepCampaign: %v", err)
	}
	done := e.begin(campaign(store.CertificateFilter{}))
	end := audit.Record{Time: base, Action: "revocation.end", Actor: "system", Target: "revocation/" + done.ID}
	if _, err := e.StepCampaign(e.t.Context(), store.CampaignStep{ID: done.ID, At: base, End: &end}); err != nil {
		e.t.Fatalf("StepCampaign: %v", err)
	}
}
