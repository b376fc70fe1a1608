package storetest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

func testTransitions(t *testing.T, h Harness) {
	e := open(t, h)
	t0, t1, t2 := base.Truncate(time.Second), base.Truncate(time.Second).Add(time.Hour), base.Truncate(time.Second).Add(2*time.Hour)
	bad := base.Truncate(time.Second).Add(-time.Hour)
	type step struct {
		action pki.Action
		next   pki.Revocation
		want   *pki.Revocation
		refuse fault.Kind // if not Internal
	}
	revoked := func(r pki.Reason, at, invalid time.Time) *pki.Revocation {
		return &pki.Revocation{Status: pki.Revoked, Reason: r, RevokedAt: at, InvalidityDate: invalid}
	}
	held := func(at time.Time) *pki.Revocation {
		return &pki.Revocation{Status: pki.OnHold, Reason: pki.CertificateHold, RevokedAt: at}
	}
	for name, steps := range map[string][]step{
		"revoke": {
			{pki.ActionRevoke, revocation(pki.Superseded, t0), revoked(pki.Superseded, t0, time.Time{}), 0},
			{pki.ActionRevoke, revocation(pki.Superseded, t1), nil, fault.AlreadyRevoked},
			{pki.ActionRevoke, revocation(pki.Unspecified, t1), nil, fault.AlreadyRevoked},
			{pki.ActionHold, revocation(0, t1), nil, fault.AlreadyRevoked},
			{pki.ActionRelease, pki.Revocation{}, nil, fault.AlreadyRevoked},
			{pki.ActionRevoke, pki.Revocation{Reason: pki.KeyCompromise, RevokedAt: t2, InvalidityDate: bad}, revoked(pki.KeyCompromise, t0, bad), 0},
			{pki.ActionRevoke, revocation(pki.PrivilegeWithdrawn, t2), revoked(pki.PrivilegeWithdrawn, t0, bad), 0},
		},
		"unspecified": {
			{pki.ActionRevoke, revocation(pki.Unspecified, t0), revoked(pki.Unspecified, t0, time.Time{}), 0},
			{pki.ActionRevoke, revocation(pki.Unspecified, t1), nil, fault.AlreadyRevoked},
		},
		"hold and release": {
			{pki.ActionRelease, pki.Revocation{}, nil, fault.Conflict},
			{pki.ActionHold, revocation(0, t0), held(t0), 0},
			{pki.ActionHold, revocation(0, t1), nil, fault.Conflict},
			{pki.ActionRelease, pki.Revocation{}, nil, 0},
			{pki.ActionRelease, pki.Revocation{}, nil, fault.Conflict},
			{pki.ActionHold, revocation(0, t2), held(t2), 0},
			{pki.ActionRelease, pki.Revocation{}, nil, 0},
			{pki.ActionRevoke, revocation(pki.AACompromise, t2), revoked(pki.AACompromise, t2, time.Time{}), 0},
		},
		"hold, then revoke": {
			{pki.ActionHold, revocation(0, t0), held(t0), 0},
			{pki.ActionRevoke, revocation(pki.KeyCompromise, t1), revoked(pki.KeyCompromise, t0, time.Time{}), 0},
			{pki.ActionRelease, pki.Revocation{}, nil, fault.AlreadyRevoked},
		},
		"no action": {
			{0, revocation(0, t0), nil, fault.BadRequest},
			{99, revocation(0, t0), nil, fault.BadRequest},
		},
	} {
		c := e.issue(e.issuing)
		var history []store.StatusEvent
		start := e.head().Change
		for i, s := range steps {
			what := fmt.Sprintf("%s, step %d", name, i)
			before := e.head()
			got, err := e.ChangeStatus(t.Context(), change(c, s.action, s.next))
			after := e.head()
			if s.refuse != fault.Internal {
				wantFault(t, what, err, s.refuse, nil)
				equal(t, what+": Head after a refusal", after, before)
			} else {
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				c.Revocation = s.want
				equal(t, what+": the record after the change", withoutDER(got), withoutDER(c))
				if after.Change != before.Change+1 || after.StatusChange != after.Change || after.AuditSeq != before.AuditSeq+1 || after.ConfigChange != before.ConfigChange {
					t.Errorf("%s: Head %+v became %+v", what, before, after)
				}
				history = append(history, store.StatusEvent{Change: after.Change, IssuerKeyID: c.IssuerKeyID, Serial: c.Serial, Scope: c.CRLScope, Revocation: s.want, NotAfter: c.NotAfter})
			}
			now, err := e.Certificate(t.Context(), c.Fingerprint)
			if err != nil {
				t.Fatalf("%s: Certificate: %v", what, err)
			}
			equal(t, what+": Certificate", now, c)
			status, err := e.Status(t.Context(), c.IssuerKeyID, c.Serial)
			if err != nil {
				t.Fatalf("%s: Status: %v", what, err)
			}
			equal(t, what+": Status", status, c.Revocation)
		}
		events, err := e.StatusEvents(t.Context(), start, 1000)
		if err != nil {
			t.Fatalf("StatusEvents: %v", err)
		}
		equal(t, name+": StatusEvents", events, history)
	}
	none := certificate(e.issuing)
	for _, a := range []pki.Action{pki.ActionRevoke, pki.ActionHold, pki.ActionRelease} {
		_, err := e.ChangeStatus(t.Context(), change(none, a, revocation(0, t0)))
		wantFault(t, a.String()+" of no certificate", err, fault.NotFound, nil)
	}
	other := e.issue(e.issuing)
	other.IssuerID = e.devices.issuer
	_, err := e.ChangeStatus(t.Context(), change(other, pki.ActionRevoke, revocation(0, t0)))
	wantFault(t, "revoke under another issuer", err, fault.NotFound, nil)
	e.verifyChain()
}

func testStatus(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	good := e.issue(e.issuing)
	odd := e.issue(e.issuing, func(c *pki.Certificate) { c.Serial = "\x02" })
	r := pki.Revocation{Status: pki.Revoked, Reason: pki.KeyCompromise, RevokedAt: base.Truncate(time.Second), InvalidityDate: base.Truncate(time.Second).Add(-time.Hour)}
	revoked := e.change(e.issue(e.issuing), pki.ActionRevoke, r)
	held := e.change(e.issue(e.issuing), pki.ActionHold, revocation(0, base))
	for _, c := range []pki.Certificate{good, odd, revoked, held} {
		got, err := e.Status(ctx, c.IssuerKeyID, c.Serial)
		if err != nil {
			t.Errorf("Status: %v", err)
		}
		equal(t, "Status", got, c.Revocation)
		_, err = e.Status(ctx, e.devices.key, c.Serial)
		wantFault(t, "Status under another key", err, fault.NotFound, nil)
		_, err = e.Status(ctx, 1<<40, c.Serial)
		wantFault(t, "Status under no key", err, fault.NotFound, nil)
	}
	for _, s := range []pki.SerialNumber{"\x7f", certificate(e.issuing).Serial, ""} {
		_, err := e.Status(ctx, e.issuing.key, s)
		wantFault(t, "Status of none", err, fault.NotFound, nil)
	}
	equal(t, "revoked", revoked.Revocation, &r)
	twin := e.issue(e.devices, func(c *pki.Certificate) { c.Serial = revoked.Serial })
	if got, err := e.Status(ctx, twin.IssuerKeyID, twin.Serial); err != nil || got != nil {
		t.Errorf("Status of another issuer's certificate with a revoked serial number = %v, %v; want good", got, err)
	}
}

func testStatusEvents(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	var want []store.StatusEvent
	for i := range 30 {
		by := e.issuing
		if i%2 == 0 {
			by = e.devices
		}
		c := e.change(e.issue(by), pki.ActionRevoke, revocation(pki.Superseded, base.Add(time.Duration(i)*time.Minute)))
		want = append(want, store.StatusEvent{Change: e.head().Change, IssuerKeyID: c.IssuerKeyID, Serial: c.Serial, Scope: c.CRLScope, Revocation: c.Revocation, NotAfter: c.NotAfter})
	}
	for _, limit := range []int{1, 4, 29, 30, 31, 1000} {
		equal(t, fmt.Sprintf("StatusEvents in pages of %d", limit), e.events(limit), want)
		first, err := e.Store.StatusEvents(ctx, 0, limit)
		if err != nil || len(first) != min(limit, len(want)) {
			t.Errorf("StatusEvents(0, %d) returned %d events, %v; want %d", limit, len(first), err, min(limit, len(want)))
		}
	}
	if got, err := e.Store.StatusEvents(ctx, e.head().Change, 10); err != nil || len(got) != 0 {
		t.Errorf("StatusEvents after the newest = %v, %v; want none", got, err)
	}
	if got, err := e.Store.StatusEvents(ctx, 1<<40, 10); err != nil || len(got) != 0 {
		t.Errorf("StatusEvents after a change to come = %v, %v; want none", got, err)
	}

	// Many certificates at once, so that one change holds several events, and the same certificate again and again.
	certs := make([]pki.Certificate, 60)
	for i := range certs {
		certs[i] = e.issue(e.issuing)
	}
	flip := e.issue(e.issuing)
	var (
		wg    sync.WaitGroup
		flips [2]int
		mu    sync.Mutex
	)
	for _, c := range certs {
		wg.Go(func() {
			if _, err := e.ChangeStatus(ctx, change(c, pki.ActionRevoke, revocation(pki.Superseded, base))); err != nil {
				t.Errorf("ChangeStatus: %v", err)
			}
			for k, a := range []pki.Action{pki.ActionHold, pki.ActionRelease} {
				_, err := e.ChangeStatus(ctx, change(flip, a, revocation(0, base)))
				if err == nil {
					mu.Lock()
					flips[k]++
					mu.Unlock()
				} else {
					wantFault(t, a.String()+" of one that is in that state", err, fault.Conflict, nil)
				}
			}
		})
	}
	wg.Wait()
	if d := flips[0] - flips[1]; d != 0 && d != 1 {
		t.Errorf("%d holds and %d releases of one certificate succeeded", flips[0], flips[1])
	}
	all := e.events(1000)
	for _, limit := range []int{1, 2, 5, 17} {
		equal(t, fmt.Sprintf("StatusEvents in pages of %d after the storm", limit), e.events(limit), all)
	}
	seen, state := map[pki.SerialNumber]int{}, false
	for _, ev := range all[len(want):] {
		seen[ev.Serial]++
		if ev.Serial == flip.Serial {
			if state == (ev.Revocation != nil) {
				t.Fatalf("two events in a row say that the certificate is on hold: %v", state)
			}
			state = !state
		}
	}
	for _, c := range certs {
		if seen[c.Serial] != 1 {
			t.Errorf("there are %d events of %v, want 1", seen[c.Serial], c.Serial)
		}
	}
	if seen[flip.Serial] != flips[0]+flips[1] {
		t.Errorf("there are %d events of the certificate that was held and released, want %d", seen[flip.Serial], flips[0]+flips[1])
	}
}

// collect reads a snapshot to its end.
func collect(t *testing.T, s store.Store, key int64) (int64, []store.RevokedEntry) {
	t.Helper()
	at, seq, err := s.Revocations(t.Context(), key, pki.ScopeFull)
	if err != nil {
		t.Errorf("Revocations: %v", err)
		return 0, nil
	}
	var all []store.RevokedEntry
	for r, err := range seq {
		if err != nil {
			t.Errorf("Revocations: %v", err)
			break
		}
		all = append(all, r)
	}
	return at, all
}

// replay returns the state that the events up to a change leave behind.
func replay(events []store.StatusEvent, key, upTo int64) []store.RevokedEntry {
	state := map[pki.SerialNumber]store.RevokedEntry{}
	for _, ev := range events {
		if ev.IssuerKeyID != key || ev.Change > upTo {
			continue
		}
		if ev.Revocation == nil {
			delete(state, ev.Serial)
			continue
		}
		state[ev.Serial] = store.RevokedEntry{Serial: ev.Serial, Scope: ev.Scope, Revocation: *ev.Revocation, NotAfter: ev.NotAfter, Change: ev.Change}
	}
	var all []store.RevokedEntry
	for _, r := range state {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b store.RevokedEntry) int { return cmp.Compare(a.Serial, b.Serial) })
	return all
}

func testRevocations(t *testing.T, h Harness) {
	e := open(t, h)
	if at, all := collect(t, e, e.issuing.key); at != e.head().Change || len(all) != 0 {
		t.Errorf("Revocations of a new issuer = %d, %v", at, all)
	}
	serials := []pki.SerialNumber{"\x01", "\x02", "\x01\x00", "\x7f", "\x41\x00\x01", "\x01\x00\x00"}
	for i := range 20 {
		c := e.issue(e.issuing, func(c *pki.Certificate) {
			if i < len(serials) {
				c.Serial = serials[i]
			}
			if i%4 == 0 {
				c.NotAfter = pki.NoExpiry
			}
		})
		e.issue(e.issuing)
		switch i % 3 {
		case 0:
			e.change(c, pki.ActionRevoke, pki.Revocation{Reason: pki.KeyCompromise, RevokedAt: base.Truncate(time.Second), InvalidityDate: base.Truncate(time.Second).Add(-time.Minute)})
		case 1:
			e.change(c, pki.ActionHold, revocation(0, base))
		case 2:
			e.change(c, pki.ActionHold, revocation(0, base))
			e.change(c, pki.ActionRelease, pki.Revocation{})
		}
	}
	e.change(e.issue(e.devices), pki.ActionRevoke, revocation(pki.Superseded, base))
	e.issue(e.issuing)
	events := e.events(100)
	for _, k := range []int64{e.root.key, e.issuing.key, e.devices.key, 1 << 40} {
		at, got := collect(t, e, k)
		if at != e.head().Change {
			t.Errorf("Revocations show change %d, want %d", at, e.head().Change)
		}
		equal(t, "Revocations", got, replay(events, k, at))
	}
	for range 50 { // a sequence that is left early gives back what it holds
		_, seq, err := e.Revocations(t.Context(), e.issuing.key, pki.ScopeFull)
		if err != nil {
			t.Fatalf("Revocations: %v", err)
		}
		for range seq {
			break
		}
	}
	e.issue(e.issuing)
}

func testRevocationsWhileWriting(t *testing.T, h Harness) {
	e := open(t, h)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for g := range 8 {
		wg.Go(func() {
			for i := range 25 {
				c := certificate(e.issuing)
				if err := e.RecordIssuance(t.Context(), issuance(c)); err != nil {
					t.Errorf("RecordIssuance: %v", err)
					return
				}
				actions := []pki.Action{pki.ActionHold, pki.ActionRelease, pki.ActionRevoke}
				for _, a := range actions[(g+i)%2*2:] {
					if _, err := e.ChangeStatus(t.Context(), change(c, a, revocation(pki.Superseded, base))); err != nil {
						t.Errorf("ChangeStatus: %v", err)
					}
				}
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	type snapshot struct {
		change  int64
		entries []store.RevokedEntry
	}
	var shots []snapshot
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		at, entries := collect(t, e, e.issuing.key)
		if len(shots) > 0 && at < shots[len(shots)-1].change {
			t.Errorf("a snapshot of change %d follows one of change %d", at, shots[len(shots)-1].change)
		}
		if len(shots) == 0 || shots[len(shots)-1].change != at {
			shots = append(shots, snapshot{at, entries})
		}
	}
	events := e.events(100)
	for _, s := range shots {
		equal(t, fmt.Sprintf("the snapshot of change %d", s.change), s.entries, replay(events, e.issuing.key, s.change))
	}
}

func testReadersDoNotBlockWriters(t *testing.T, h Harness) {
	e := open(t, h)
	for range 20 {
		e.change(e.issue(e.issuing), pki.ActionRevoke, revocation(pki.Superseded, base))
	}
	ctx := soon(t)
	at, seq, err := e.Revocations(ctx, e.issuing.key, pki.ScopeFull)
	if err != nil {
		t.Fatalf("Revocations: %v", err)
	}
	n := 0
	for r, err := range seq {
		if err != nil {
			t.Fatalf("Revocations: %v", err)
		}
		if r.Change > at {
			t.Errorf("the snapshot of change %d shows change %d", at, r.Change)
		}
		n++
		c := certificate(e.issuing)
		if err := e.RecordIssuance(ctx, issuance(c)); err != nil {
			t.Fatalf("RecordIssuance while a reader runs: %v", err)
		}
		if _, err := e.ChangeStatus(ctx, change(c, pki.ActionRevoke, revocation(pki.Superseded, base))); err != nil {
			t.Fatalf("ChangeStatus while a reader runs: %v", err)
		}
	}
	if n != 20 {
		t.Errorf("the snapshot has %d entries, want 20", n)
	}
	batches := 0
	for _, err := range e.AuditChain(ctx) {
		if err != nil {
			t.Fatalf("AuditChain: %v", err)
		}
		if batches++; batches%10 == 0 {
			if err := e.RecordAudit(ctx, record("test.note", base)); err != nil {
				t.Fatalf("RecordAudit while a reader runs: %v", err)
			}
		}
	}
	e.verifyChain()
}

func testCRLs(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	crl := func(number, change int64, edit ...func(*pki.CRL)) pki.CRL {
		c := pki.CRL{
			IssuerKeyID: e.issuing.key, Scope: pki.ScopeFull, Number: number, Change: change, ThisUpdate: base.Truncate(time.Second),
			NextUpdate: base.Truncate(time.Second).Add(24 * time.Hour), Entries: 3, Parts: parts(randomBytes(300)), CreatedAt: base,
		}
		for _, f := range edit {
			f(&c)
		}
		return c
	}
	next := func(scope string, unix, want int64) {
		t.Helper()
		got, err := e.NextCRLNumber(ctx, e.issuing.key, scope, unix)
		if err != nil || got != want {
			t.Errorf("NextCRLNumber(%s, %d) = %d, %v; want %d", scope, unix, got, err, want)
		}
	}
	scheduled := func(c *pki.CRL) { c.Scheduled = true }
	_, err := e.LatestCRL(ctx, e.issuing.key, pki.ScopeFull, nil)
	wantFault(t, "LatestCRL before the first", err, fault.NotFound, nil)
	_, err = e.LatestScheduledCRL(ctx, e.issuing.key, pki.ScopeFull)
	wantFault(t, "LatestScheduledCRL before the first", err, fault.NotFound, nil)
	next(pki.ScopeFull, 1000, 1000)

	first := crl(1000, 10, func(c *pki.CRL) { c.CreatedAt = base.Add(999 * time.Nanosecond) }, func(c *pki.CRL) { c.Shard = 3 })
	before := e.head()
	if err := e.RecordCRL(ctx, nil, first); err != nil {
		t.Fatalf("RecordCRL: %v", err)
	}
	first.CreatedAt = base
	if after := e.head(); after.Change != before.Change+1 || after.CRLChange != after.Change || after.AuditSeq != before.AuditSeq || after.StatusChange != before.StatusChange {
		t.Errorf("RecordCRL: Head %+v became %+v", before, after)
	}
	got, err := e.LatestCRL(ctx, e.issuing.key, pki.ScopeFull, nil)
	if err != nil {
		t.Errorf("LatestCRL: %v", err)
	}
	equal(t, "LatestCRL", got, first)
	_, err = e.LatestScheduledCRL(ctx, e.issuing.key, pki.ScopeFull)
	wantFault(t, "LatestScheduledCRL with none scheduled", err, fault.NotFound, nil)
	next(pki.ScopeFull, 500, 1001)
	next(pki.ScopeFull, 1000, 1001)
	next(pki.ScopeFull, 2000, 2000)
	next("set-1", 500, 500)

	before = e.head()
	for name, c := range map[string]pki.CRL{
		"the same number":            crl(1000, 11),
		"a lower number":             crl(999, 11),
		"an earlier change":          crl(1001, 9),
		"the same number, scheduled": crl(1000, 11, scheduled),
	} {
		wantFault(t, "RecordCRL with "+name, e.RecordCRL(ctx, nil, c), fault.Conflict, store.ErrStale)
	}
	equal(t, "Head after refusals", e.head(), before)
	timed := crl(1001, 10, scheduled)
	for _, c := range []pki.CRL{timed, crl(5, 3, func(c *pki.CRL) { c.Scope = "set-1" }), crl(5, 3, func(c *pki.CRL) { c.IssuerKeyID = e.devices.key })} {
		if err := e.RecordCRL(ctx, nil, c); err != nil {
			t.Fatalf("RecordCRL: %v", err)
		}
	}
	var last pki.CRL
	for i := range int64(30) {
		last = crl(1002+2*i, 10+i)
		if err := e.RecordCRL(ctx, nil, last); err != nil {
			t.Fatalf("RecordCRL: %v", err)
		}
	}
	if got, err = e.LatestCRL(ctx, e.issuing.key, pki.ScopeFull, nil); err != nil {
		t.Errorf("LatestCRL: %v", err)
	}
	equal(t, "LatestCRL", got, last)
	if got, err = e.LatestScheduledCRL(ctx, e.issuing.key, pki.ScopeFull); err != nil {
		t.Errorf("LatestScheduledCRL after many that were not: %v", err)
	}
	timed.Parts = nil
	equal(t, "LatestScheduledCRL", got, timed)
	if got, err = e.LatestCRL(ctx, e.devices.key, pki.ScopeFull, nil); err != nil || got.Number != 5 {
		t.Errorf("LatestCRL of another key = %v, %v; want the number 5", got.Number, err)
	}
	next(pki.ScopeFull, 0, last.Number+1)
	err = e.RecordCRL(ctx, nil, crl(1, 1, func(c *pki.CRL) { c.IssuerKeyID = 1 << 40 }))
	if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Conflict) {
		t.Errorf("RecordCRL of no key: got error %v, want not_found or conflict", err)
	}
	e.verifyChain()
	noSeriousFindings(t, h, e)
}

// testCRLParts publishes large lists that change little, as a CA with many revoked certificates does.
func testCRLParts(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	leaves := make([][]byte, 60)
	for i := range leaves {
		leaves[i] = randomBytes(40_000)
	}
	leaves[7] = leaves[8] // the same content twice
	var latest pki.CRL
	publish := func(n int64, edit ...func(*pki.CRL)) {
		t.Helper()
		latest = pki.CRL{
			IssuerKeyID: e.issuing.key, Scope: "s64/5", Shard: 5, Number: n, Change: n, ThisUpdate: base.Truncate(time.Second), NextUpdate: base.Truncate(time.Second).Add(time.Hour),
			Entries: 1, CreatedAt: base, Parts: parts(append(append([][]byte{randomBytes(200)}, leaves...), randomBytes(300))...),
		}
		for _, f := range edit {
			f(&latest)
		}
		if err := e.RecordCRL(ctx, nil, latest); err != nil {
			t.Fatalf("RecordCRL: %v", err)
		}
	}
	read := func(known func([32]byte) []byte) pki.CRL {
		t.Helper()
		got, err := e.LatestCRL(ctx, e.issuing.key, "s64/5", known)
		if err != nil {
			t.Fatalf("LatestCRL: %v", err)
		}
		if !bytes.Equal(got.DER(), latest.DER()) {
			t.Errorf("LatestCRL: %d octets, not the %d that were recorded last", got.Size(), latest.Size())
		}
		about, want := got, latest
		about.Parts, want.Parts = nil, nil
		equal(t, "LatestCRL", about, want)
		return got
	}
	publish(1, func(c *pki.CRL) { c.Base, c.Scheduled = true, true })
	before := read(nil)
	pinned := latest
	for n := range int64(8) {
		leaves[n] = randomBytes(40_000 + int(n))
		publish(n + 2)
		asked := 0
		after := read(func(h [32]byte) []byte {
			asked++
			for _, p := range before.Parts {
				if p.Hash == h {
					return p.Data
				}
			}
			return nil
		})
		shared := 0
		for i := range after.Parts {
			if &after.Parts[i].Data[0] == &before.Parts[i].Data[0] {
				shared++
			}
		}
		if asked != len(leaves) || shared < len(leaves)-2 {
			t.Errorf("list %d: asked for %d parts, and %d are those of the list before; want %d and %d", n+2, asked, shared, len(leaves), len(leaves)-1)
		}
		before = after
	}
	for what, get := range map[string]func() (pki.CRL, error){
		"LatestScheduledCRL": func() (pki.CRL, error) { return e.LatestScheduledCRL(ctx, e.issuing.key, "s64/5") },
		"BaseCRL":            func() (pki.CRL, error) { return e.BaseCRL(ctx, e.issuing.key, "s64/5") },
	} {
		got, err := get()
		if err != nil {
			t.Errorf("%s after many lists: %v", what, err)
		}
		pinned.Parts = nil
		equal(t, what, got, pinned)
	}
	if _, err := e.BaseCRL(ctx, e.issuing.key, pki.ScopeFull); !fault.Is(err, fault.NotFound) {
		t.Errorf("BaseCRL of a scope without one: got error %v, want not_found", err)
	}

	// What no list refers to any more is not kept: the base, and the last three or so.
	if m, ok := e.Store.(store.Movable); ok {
		for _, table := range store.Tables() {
			if table.Name != "crl_part" {
				continue
			}
			n, err := m.CountRows(ctx, table)
			if want := int64(len(leaves) + 8); err != nil || n > want {
				t.Errorf("%d parts are kept, %v; want at most %d", n, err, want)
			}
		}
	}
	leaves = leaves[:1] // a small list again: whole
	publish(100)
	read(nil)
	err := e.RecordCRL(ctx, nil, pki.CRL{IssuerKeyID: 1 << 40, Scope: "s64/5", Number: 1, ThisUpdate: base, NextUpdate: base, CreatedAt: base, Parts: parts(randomBytes(1<<20), randomBytes(1<<20))})
	wantFault(t, "RecordCRL of no key", err, fault.NotFound, nil)
	e.verifyChain()
}

// testCRLTogether: lists of several scopes go out together or not at all, and only by the holder of the lease.
func testCRLTogether(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	crl := func(scope string, number int64) pki.CRL {
		return pki.CRL{
			IssuerKeyID: e.issuing.key, Scope: scope, Number: number, Change: 1, ThisUpdate: base.Truncate(time.Second), NextUpdate: base.Truncate(time.Second).Add(time.Hour),
			CreatedAt: base, Parts: parts(randomBytes(300)),
		}
	}
	mine, err := e.AcquireLease(ctx, "crl", "one", time.Hour)
	if err != nil {
		t.Fatalf("AcquireLease: %v", err)
	}
	before := e.head()
	if err := e.RecordCRL(ctx, &mine, crl("s2/0", 5), crl("s2/1", 5), crl(pki.ScopeFull, 5)); err != nil {
		t.Fatalf("RecordCRL: %v", err)
	}
	if after := e.head(); after.Change != before.Change+1 || after.CRLChange != after.Change {
		t.Errorf("three lists together: Head %+v became %+v", before, after)
	}
	before = e.head()
	wantFault(t, "RecordCRL with one that is stale", e.RecordCRL(ctx, &mine, crl("s2/0", 6), crl("s2/1", 5)), fault.Conflict, store.ErrStale)
	other := crl("s2/1", 6)
	other.IssuerKeyID = e.devices.key
	wantFault(t, "RecordCRL of two keys", e.RecordCRL(ctx, &mine, crl("s2/0", 6), other), fault.BadRequest, nil)
	if err := e.ReleaseLease(ctx, "crl", "one"); err != nil {
		t.Fatalf("ReleaseLease: %v", err)
	}
	next, err := e.AcquireLease(ctx, "crl", "two", time.Hour)
	if err != nil {
		t.Fatalf("AcquireLease: %v", err)
	}
	wantFault(t, "RecordCRL under a lost lease", e.RecordCRL(ctx, &mine, crl("s2/0", 7)), fault.Conflict, store.ErrLeaseLost)
	equal(t, "Head after refusals", e.head(), before)
	for _, scope := range []string{"s2/0", "s2/1"} {
		if got, err := e.LatestCRL(ctx, e.issuing.key, scope, nil); err != nil || got.Number != 5 {
			t.Errorf("LatestCRL of %s = %d, %v; want 5", scope, got.Number, err)
		}
	}
	if err := e.RecordCRL(ctx, &next, crl("s2/0", 7)); err != nil {
		t.Errorf("RecordCRL under the new lease: %v", err)
	}
	numbers, err := e.CRLNumbers(ctx)
	if err != nil {
		t.Errorf("CRLNumbers: %v", err)
	}
	equal(t, "CRLNumbers", numbers, map[int64]map[string]int64{e.issuing.key: {"s2/0": 7, "s2/1": 5, pki.ScopeFull: 5}})
	e.verifyChain()
}

// testCRLsDropped: lists of scopes go with their parts when they have ended, their numbers lie in the past, and no
// certificate that is still good may name them.
func testCRLsDropped(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	const day = 24 * time.Hour
	start := base.Truncate(time.Second)
	publish := func(by signer, scope string, number int64, ends time.Time, octets int) {
		t.Helper()
		c := pki.CRL{
			IssuerKeyID: by.key, Scope: scope, Number: number, Change: 1, ThisUpdate: start, NextUpdate: ends, CreatedAt: base,
			Parts: parts(randomBytes(octets), randomBytes(octets)),
		}
		if err := e.RecordCRL(ctx, nil, c); err != nil {
			t.Fatalf("RecordCRL: %v", err)
		}
	}
	address := func(set string, until time.Time) {
		t.Helper()
		a := pki.CRLAddress{IssuerKeyID: e.issuing.key, Set: set, URL: "http://x/" + set + "/" + pki.ShardPlace, RecordedAt: base, Until: until}
		if err := e.RecordCRLAddress(ctx, a, record("crl.address", base)); err != nil {
			t.Fatalf("RecordCRLAddress: %v", err)
		}
	}
	address("s2", base.Add(30*day))
	address("s2", base.Add(20*day)) // does not shorten it
	address("s3", base.Add(5*day))
	address(pki.ScopeFull, base.AddDate(10, 0, 0))
	n := start.Unix()
	for _, scope := range []string{"s2/0", "s2/1", "s2/1/delta", "s3/0", "full", "full/delta"} {
		publish(e.issuing, scope, n, start.Add(7*day), 100)
	}
	publish(e.issuing, "s3/1", n, start.Add(7*day), 200_000) // has parts of its own
	publish(e.issuing, "s3/2", n, start.Add(7*day), 100)
	publish(e.issuing, "s3/2", n+1, start.Add(9*day), 100)
	publish(e.issuing, "ca", start.Add(100*day).Unix(), start.Add(7*day), 100) // the clock was wrong once
	publish(e.devices, "s3/0", n, start.Add(7*day), 100)
	mine, err := e.AcquireLease(ctx, "crl", "one", time.Hour)
	if err != nil {
		t.Fatalf("AcquireLease: %v", err)
	}
	before := e.head()
	asked := []string{"s2/1/delta", "s2/1", "s2/0", "s3/2", "s3/1", "s3/0", "s3/0", "ca", "full/delta", "s9/1"}
	for _, step := range []struct {
		at   time.Time
		want []string
	}{
		{start.Add(7*day - time.Second), nil},
		{start.Add(7 * day), []string{"full/delta", "s2/1/delta", "s3/0", "s3/1"}},
		{start.Add(7 * day), nil},
		{start.Add(9 * day), []string{"s3/2"}},
		{base.Add(30*day - time.Microsecond), nil},
		{base.Add(30 * day), []string{"s2/0", "s2/1"}},
		{start.Add(100*day - time.Second), nil},
		{start.Add(100 * day), []string{"ca"}},
	} {
		got, err := e.DropCRLs(ctx, &mine, e.issuing.key, asked, step.at)
		if err != nil {
			t.Fatalf("DropCRLs at %v: %v", step.at, err)
		}
		equal(t, fmt.Sprint("DropCRLs at ", step.at), got, step.want)
	}
	numbers, err := e.CRLNumbers(ctx)
	if err != nil {
		t.Errorf("CRLNumbers: %v", err)
	}
	equal(t, "CRLNumbers", numbers, map[int64]map[string]int64{e.issuing.key: {"full": n}, e.devices.key: {"s3/0": n}})
	for scope := range map[string]bool{"s3/1": true, "s2/0": true} {
		_, err := e.LatestCRL(ctx, e.issuing.key, scope, nil)
		wantFault(t, "LatestCRL of what was dropped", err, fault.NotFound, nil)
	}
	equal(t, "Head after dropping", e.head(), before)
	if d := Dump(t, movable(t, e.Store), 100); len(d["crl_part"]) != 0 {
		t.Errorf("%d parts of lists are left", len(d["crl_part"]))
	}
	if err := e.ReleaseLease(ctx, "crl", "one"); err != nil {
		t.Fatalf("ReleaseLease: %v", err)
	}
	if _, err := e.AcquireLease(ctx, "crl", "two", time.Hour); err != nil {
		t.Fatalf("AcquireLease: %v", err)
	}
	_, err = e.DropCRLs(ctx, &mine, e.devices.key, []string{"s3/0"}, start.Add(7*day))
	wantFault(t, "DropCRLs under a lost lease", err, fault.Conflict, store.ErrLeaseLost)
	if _, err := e.LatestCRL(ctx, e.devices.key, "s3/0", nil); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
}

func testCRLRecorders(t *testing.T, h Harness) {
	e := open(t, h)
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[int64]bool{}
	)
	for g := range 8 {
		s := stores[g%len(stores)]
		wg.Go(func() {
			for range 10 {
				n, err := s.NextCRLNumber(t.Context(), e.issuing.key, pki.ScopeFull, 100)
				if err != nil {
					t.Errorf("NextCRLNumber: %v", err)
					return
				}
				err = s.RecordCRL(t.Context(), nil, pki.CRL{IssuerKeyID: e.issuing.key, Scope: pki.ScopeFull, Number: n, Change: 1, ThisUpdate: base, NextUpdate: base, Parts: parts([]byte{1}), CreatedAt: base})
				if errors.Is(err, store.ErrStale) {
					continue
				}
				if err != nil {
					t.Errorf("RecordCRL: %v", err)
					continue
				}
				mu.Lock()
				if seen[n] {
					t.Errorf("the number %d was published twice", n)
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	last, err := e.LatestCRL(t.Context(), e.issuing.key, pki.ScopeFull, nil)
	if err != nil || last.Number != 100+int64(len(seen))-1 {
		t.Errorf("LatestCRL has the number %d, %v; want %d", last.Number, err, 100+int64(len(seen))-1)
	}
	e.verifyChain()
}
