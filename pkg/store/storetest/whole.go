package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

func testAuditEvents(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	if err := e.RecordAudit(ctx); err != nil {
		t.Errorf("RecordAudit of nothing: %v", err)
	}
	if head := e.head(); head.Change != 1 {
		t.Errorf("RecordAudit of nothing made change %d", head.Change)
	}
	all := append([]audit.Record(nil), e.boot.Records...)
	actions := []string{"login.ok", "login.failed", "login", "loginx.ok", "export.csv", "a%b.c", "axb.c", "a_b.d"}
	for i := range 60 {
		r := record(actions[i%len(actions)], base.Add(time.Duration(i%9)*time.Minute+time.Duration(i)))
		r.Actor = []string{"token:a", "token:b", "ü"}[i%3]
		r.Detail = map[string]string{"z": "1", "a": "<&>\"ü\u2028", "": ""}
		r.RequestID, r.Role = "req", "auditor"
		if i%2 == 0 {
			if err := e.RecordAudit(ctx, r); err != nil {
				t.Fatalf("RecordAudit: %v", err)
			}
			all = append(all, r)
			continue
		}
		more := record("login.ok", base)
		if err := e.RecordAudit(ctx, r, more); err != nil {
			t.Fatalf("RecordAudit: %v", err)
		}
		all = append(all, r, more)
	}
	match := func(f store.AuditFilter, r audit.Record) bool {
		at := r.Time.Truncate(time.Microsecond)
		return (f.Actor == "" || r.Actor == f.Actor) && (f.Target == "" || r.Target == f.Target) &&
			(f.Action == "" || r.Action == f.Action || strings.HasSuffix(f.Action, ".") && strings.HasPrefix(r.Action, f.Action)) &&
			(f.From.IsZero() || !at.Before(f.From)) && (f.To.IsZero() || at.Before(f.To))
	}
	for _, f := range []store.AuditFilter{
		{},
		{Actor: "token:a"},
		{Actor: "ü"},
		{Actor: "none"},
		{Action: "login.ok"},
		{Action: "login."},
		{Action: "login"},
		{Action: "."},
		{Action: "log"},
		{Action: "a%b."},
		{Action: "a_b."},
		{Action: "%."},
		{Target: all[5].Target},
		{Target: "test/%"},
		{From: base.Add(3 * time.Minute)},
		{To: base.Add(3 * time.Minute)},
		{From: base.Add(2 * time.Minute), To: base.Add(4 * time.Minute)},
		{Actor: "token:b", Action: "login.", From: base.Add(time.Minute), To: base.Add(8 * time.Minute)},
	} {
		var want []string
		for i, r := range slices.Backward(all) {
			if match(f, r) {
				want = append(want, fmt.Sprintf("%d %s", i+1, r.Canonical()))
			}
		}
		for _, limit := range []int{1, 7, 1000} {
			var got []string
			for p := (store.Page{Limit: limit}); ; {
				page, next, err := e.AuditEvents(ctx, f, p)
				if err != nil || len(page) > limit {
					t.Fatalf("AuditEvents(%+v, %+v): %d events, %v", f, p, len(page), err)
				}
				for _, ev := range page {
					got = append(got, fmt.Sprintf("%d %s", ev.Seq, ev.Bytes))
				}
				if next == "" {
					break
				}
				p.Cursor = next
			}
			equal(t, fmt.Sprintf("AuditEvents(%+v) in pages of %d", f, limit), got, want)
		}
	}
	targets := e.verifyChain()
	if len(targets) != len(all) {
		t.Errorf("the chain has %d records, want %d", len(targets), len(all))
	}

	// The life of a certificate, by the target that names it.
	c := certificate(e.issuing)
	target := fmt.Sprintf("certificate/%x", c.Fingerprint)
	issued, revoked := record(audit.ActionIssue, base), record(audit.ActionRevoke, base)
	issued.Target, revoked.Target = target, target
	if err := e.RecordIssuance(ctx, store.Issuance{Certificate: c, Record: issued}); err != nil {
		t.Fatalf("RecordIssuance: %v", err)
	}
	ch := change(c, pki.ActionRevoke, revocation(pki.Superseded, base))
	ch.Record = revoked
	if _, err := e.ChangeStatus(ctx, ch); err != nil {
		t.Fatalf("ChangeStatus: %v", err)
	}
	e.issue(e.issuing)
	events, _, err := e.AuditEvents(ctx, store.AuditFilter{Target: target}, store.Page{})
	if err != nil {
		t.Errorf("AuditEvents: %v", err)
	}
	var got []string
	for _, ev := range events {
		got = append(got, string(ev.Bytes))
	}
	equal(t, "AuditEvents of a certificate", got, []string{string(revoked.Canonical()), string(issued.Canonical())})
	for _, none := range []string{strings.ToUpper(target), target + "0", "certificate/", target[:40]} {
		if events, _, err := e.AuditEvents(ctx, store.AuditFilter{Target: none}, store.Page{}); err != nil || len(events) != 0 {
			t.Errorf("AuditEvents of %q = %d events, %v; want none", none, len(events), err)
		}
	}
}

func testAuditChainWhileWriting(t *testing.T, h Harness) {
	e := open(t, h)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if err := e.RecordIssuance(t.Context(), issuance(certificate(e.issuing))); err != nil {
					t.Errorf("RecordIssuance: %v", err)
				}
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		before := e.head()
		v, _ := walkChain(t, e.Store)
		after := e.head()
		if v.Change < before.Change || v.Change > after.Change {
			t.Errorf("AuditChain shows change %d between the heads %d and %d", v.Change, before.Change, after.Change)
		}
	}
	for b, err := range e.AuditChain(t.Context()) { // left early
		if err != nil || b.Batch.Change != 1 {
			t.Errorf("AuditChain begins with %+v, %v", b.Batch, err)
		}
		break
	}
	e.verifyChain()
}

func testClockSteps(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	newest := base
	for _, at := range []time.Time{base.Add(time.Hour), base.Add(-time.Hour), base.Add(-24 * time.Hour), base.Add(time.Hour + time.Microsecond + 999), base, {}, base.AddDate(50, 0, 0), base} {
		r := record("clock.step", at)
		if err := e.RecordAudit(ctx, r, record("clock.step", base)); err != nil {
			t.Fatalf("RecordAudit: %v", err)
		}
		if at = at.Truncate(time.Microsecond); at.After(newest) {
			newest = at
		}
		if head := e.head(); !head.NewestTime.Equal(newest) {
			t.Errorf("NewestTime = %v, want %v", head.NewestTime, newest)
		}
		events, _, err := e.AuditEvents(ctx, store.AuditFilter{Target: r.Target}, store.Page{})
		if err != nil || len(events) != 1 || string(events[0].Bytes) != string(r.Canonical()) {
			t.Errorf("AuditEvents = %+v, %v; want the record as it was", events, err)
		}
		c := e.issue(e.issuing, func(c *pki.Certificate) { c.IssuedAt = at })
		if at.After(newest) {
			newest = at
		}
		got, err := e.Certificate(ctx, c.Fingerprint)
		if err != nil || !got.IssuedAt.Equal(at) {
			t.Errorf("IssuedAt = %v, %v; want %v", got.IssuedAt, err, at)
		}
	}
	e.verifyChain()
}

// testStorm runs everything at once and then counts.
func testStorm(t *testing.T, h Harness) {
	e := open(t, h)
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	type done struct {
		cert    pki.Certificate
		records []audit.Record
	}
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		written []done
	)
	const goroutines, rounds = 64, 8
	for g := range goroutines {
		s := stores[g%len(stores)]
		wg.Go(func() {
			for i := range rounds {
				c := certificate([]signer{e.issuing, e.devices}[g%2])
				is := issuance(c)
				d := done{records: []audit.Record{is.Record}}
				if err := s.RecordIssuance(t.Context(), is); err != nil {
					t.Errorf("RecordIssuance: %v", err)
					continue
				}
				if (g+i)%3 == 0 {
					ch := change(c, pki.ActionRevoke, revocation(pki.Superseded, base))
					after, err := s.ChangeStatus(t.Context(), ch)
					if err != nil {
						t.Errorf("ChangeStatus: %v", err)
						continue
					}
					c.Revocation = after.Revocation
					d.records = append(d.records, ch.Record)
				}
				if (g+i)%4 == 0 {
					r := record("test.note", base)
					if err := s.RecordAudit(t.Context(), r); err != nil {
						t.Errorf("RecordAudit: %v", err)
						continue
					}
					d.records = append(d.records, r)
				}
				if (g+i)%5 == 0 {
					if _, _, err := s.ListCertificates(t.Context(), store.CertificateFilter{Text: "device"}, store.Page{Limit: 20}); err != nil {
						t.Errorf("ListCertificates: %v", err)
					}
				}
				if got, err := s.CertificateBySerial(t.Context(), c.IssuerID, c.Serial); err != nil || got.Fingerprint != c.Fingerprint {
					t.Errorf("CertificateBySerial right after the write: %v", err)
				}
				d.cert = c
				mu.Lock()
				written = append(written, d)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	targets := e.verifyChain()
	count := len(e.boot.Records)
	for _, d := range written {
		got, err := e.Certificate(t.Context(), d.cert.Fingerprint)
		if err != nil {
			t.Errorf("an acknowledged certificate is missing: %v", err)
			continue
		}
		equal(t, "Certificate", got, d.cert)
		for _, r := range d.records {
			count++
			if targets[r.Target] != r.Action {
				t.Errorf("the chain lacks %s of %s", r.Action, r.Target)
			}
		}
	}
	if len(targets) != count {
		t.Errorf("the chain has %d records, want %d", len(targets), count)
	}
	if all := e.list(store.CertificateFilter{}, 100); len(all) != len(written)+len(e.boot.Issuers) {
		t.Errorf("the store lists %d certificates, want %d", len(all), len(written)+len(e.boot.Issuers))
	}
	events := e.events(10)
	for _, k := range []int64{e.issuing.key, e.devices.key} {
		at, entries := collect(t, e, k)
		equal(t, "Revocations", entries, replay(events, k, at))
	}
	var st store.Stats
	for _, s := range stores {
		one := s.Stats()
		st.Batches, st.BatchedOps = st.Batches+one.Batches, st.BatchedOps+one.BatchedOps
		var sized int64
		for _, n := range one.BatchSizes {
			sized += n
		}
		if p := one.Pool; sized != one.Batches || p.Max == 0 || p.InUse+p.Idle > p.Max {
			t.Errorf("Stats = %+v: %d batches have a size", one, sized)
		}
	}
	if st.Batches == 0 || st.BatchedOps < int64(len(written)) || st.Batches > st.BatchedOps {
		t.Errorf("Stats = %+v after %d issuances", st, len(written))
	}
	noSeriousFindings(t, h, e)
}

// verb is one verb of the contract, called with arguments that are right.
type verb struct {
	name string
	call func(context.Context) error
}

func (e *env) verbs() []verb {
	c := e.issue(e.issuing)
	return append(slices.Concat(e.enrollmentVerbs(), e.notificationVerbs(), e.deviceVerbs(), e.requestVerbs()), []verb{
		{"Head", func(ctx context.Context) error { _, err := e.Head(ctx); return err }},
		{"Bootstrap", func(ctx context.Context) error { return e.Bootstrap(ctx, bootstrap()) }},
		{"Check", func(ctx context.Context) error { _, err := e.Check(ctx); return err }},
		{"RecordIssuance", func(ctx context.Context) error { return e.RecordIssuance(ctx, issuance(certificate(e.issuing))) }},
		{"Certificate", func(ctx context.Context) error { _, err := e.Certificate(ctx, c.Fingerprint); return err }},
		{"CertificateBySerial", func(ctx context.Context) error {
			_, err := e.CertificateBySerial(ctx, c.IssuerID, c.Serial)
			return err
		}},
		{"ListCertificates", func(ctx context.Context) error {
			_, _, err := e.ListCertificates(ctx, store.CertificateFilter{}, store.Page{})
			return err
		}},
		{"CountCertificates", func(ctx context.Context) error {
			_, err := e.CountCertificates(ctx, store.CertificateFilter{}, 10)
			return err
		}},
		{"ChangeStatus", func(ctx context.Context) error {
			_, err := e.ChangeStatus(ctx, change(c, pki.ActionRevoke, revocation(0, base)))
			return err
		}},
		{"NoteVisible", func(ctx context.Context) error {
			return e.NoteVisible(ctx, []store.Visible{{IssuerKeyID: c.IssuerKeyID, Serial: c.Serial, CRLAt: base}})
		}},
		{"Status", func(ctx context.Context) error { _, err := e.Status(ctx, c.IssuerKeyID, c.Serial); return err }},
		{"StatusEvents", func(ctx context.Context) error { _, err := e.StatusEvents(ctx, 0, 10); return err }},
		{"Revocations", func(ctx context.Context) error {
			_, seq, err := e.Revocations(ctx, e.issuing.key, pki.ScopeFull)
			if err != nil {
				return err
			}
			for _, err := range seq {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"NextCRLNumber", func(ctx context.Context) error {
			_, err := e.NextCRLNumber(ctx, e.issuing.key, pki.ScopeFull, 1)
			return err
		}},
		{"CRLNumbers", func(ctx context.Context) error { _, err := e.CRLNumbers(ctx); return err }},
		{"RecordCRL", func(ctx context.Context) error {
			return e.RecordCRL(ctx, nil, pki.CRL{IssuerKeyID: e.issuing.key, Scope: pki.ScopeFull, Number: counter.Add(1), Change: 1, Parts: parts([]byte{1})})
		}},
		{"DropCRLs", func(ctx context.Context) error {
			_, err := e.DropCRLs(ctx, nil, e.issuing.key, []string{"s2/0"}, base)
			return err
		}},
		{"LatestCRL", func(ctx context.Context) error { _, err := e.LatestCRL(ctx, e.issuing.key, "full", nil); return err }},
		{"BaseCRL", func(ctx context.Context) error {
			_, err := e.BaseCRL(ctx, e.issuing.key, "full")
			return err
		}},
		{"LatestScheduledCRL", func(ctx context.Context) error {
			_, err := e.LatestScheduledCRL(ctx, e.issuing.key, "full")
			return err
		}},
		{"AllIssuers", func(ctx context.Context) error { _, err := e.AllIssuers(ctx); return err }},
		{"KEKInfo", func(ctx context.Context) error { _, err := e.KEKInfo(ctx); return err }},
		{"ReplaceSealedKeys", func(ctx context.Context) error {
			return e.ReplaceSealedKeys(ctx, e.boot.KEKInfo, []byte("x"), store.Sealed{Keys: map[int64][]byte{e.root.key: {1}, e.issuing.key: {2}, e.devices.key: {3}}}, record("key.rewrap", base))
		}},
		{"BlockedKeys", func(ctx context.Context) error { _, err := e.BlockedKeys(ctx); return err }},
		{"AllProfiles", func(ctx context.Context) error { _, err := e.AllProfiles(ctx); return err }},
		{"PutProfile", func(ctx context.Context) error {
			return e.PutProfile(ctx, pki.ProfileVersion{Name: fmt.Sprint("p", counter.Add(1)), Version: 1, Config: []byte("{}"), CreatedAt: base}, record("profile.put", base))
		}},
		{"ProfileHistory", func(ctx context.Context) error { _, err := e.ProfileHistory(ctx, "server"); return err }},
		{"AllTokens", func(ctx context.Context) error { _, err := e.AllTokens(ctx); return err }},
		{"CreateToken", func(ctx context.Context) error {
			id := fmt.Sprint("t", counter.Add(1))
			return e.CreateToken(ctx, pki.Token{ID: id, Name: id, Role: pki.RoleAdministrator, CreatedAt: base}, record("token.create", base))
		}},
		{"RevokeToken", func(ctx context.Context) error {
			return e.RevokeToken(ctx, "spare", base, record("token.revoke", base))
		}},
		{"RecordAudit", func(ctx context.Context) error { return e.RecordAudit(ctx, record("test.note", base)) }},
		{"AuditEvents", func(ctx context.Context) error {
			_, _, err := e.AuditEvents(ctx, store.AuditFilter{}, store.Page{})
			return err
		}},
		{"AuditChain", func(ctx context.Context) error {
			for _, err := range e.AuditChain(ctx) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"AcquireLease", func(ctx context.Context) error { _, err := e.AcquireLease(ctx, "l", "h", time.Second); return err }},
		{"ReleaseLease", func(ctx context.Context) error { return e.ReleaseLease(ctx, "l", "h") }},
	}...)
}

func testCancelledBefore(t *testing.T, h Harness) {
	e := open(t, h)
	e.administrator("spare", time.Time{})
	verbs := e.verbs()
	before := e.head()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, v := range verbs {
		if err := v.call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s under a cancelled context: got error %v, want %v", v.name, err, context.Canceled)
		}
	}
	equal(t, "Head", e.head(), before)
	for _, v := range verbs { // and nothing is left behind that blocks them
		err := v.call(soon(t))
		switch {
		case v.name == "Bootstrap":
			wantFault(t, v.name, err, fault.Conflict, store.ErrNotEmpty)
		case v.name == "LatestScheduledCRL" || v.name == "BaseCRL":
			wantFault(t, v.name, err, fault.NotFound, nil)
		case err != nil:
			t.Errorf("%s after it was cancelled: %v", v.name, err)
		}
	}
	e.verifyChain()
}

// testCancelledDuring ends contexts at any moment: what was acknowledged is there, what failed is not.
func testCancelledDuring(t *testing.T, h Harness) {
	e := open(t, h)
	const n = 400
	certs, errs := make([]pki.Certificate, n), make([]error, n)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := g; i < n; i += 16 {
				certs[i] = certificate(e.issuing)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%40)*100*time.Microsecond)
				errs[i] = e.RecordIssuance(ctx, issuance(certs[i]))
				cancel()
				if errs[i] != nil && !errors.Is(errs[i], context.DeadlineExceeded) && !errors.Is(errs[i], store.ErrUnknownOutcome) {
					t.Errorf("RecordIssuance under a context that ends: got error %v, want %v", errs[i], context.DeadlineExceeded)
				}
				ctx, cancel = context.WithTimeout(t.Context(), time.Duration(i%40)*50*time.Microsecond)
				_, _, err := e.ListCertificates(ctx, store.CertificateFilter{Text: "device"}, store.Page{})
				cancel()
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("ListCertificates under a context that ends: got error %v, want %v", err, context.DeadlineExceeded)
				}
			}
		})
	}
	wg.Wait()
	// A write that nobody waits for any more is decided before a later one is acknowledged.
	e.issue(e.issuing)
	for i, c := range certs {
		_, err := e.Certificate(t.Context(), c.Fingerprint)
		switch {
		case errs[i] == nil && err != nil:
			t.Errorf("an acknowledged certificate is missing: %v", err)
		case errs[i] != nil && !errors.Is(errs[i], store.ErrUnknownOutcome) && !fault.Is(err, fault.NotFound):
			t.Errorf("a certificate that failed with %v is there (%v)", errs[i], err)
		}
	}
	e.verifyChain()
}

func testClosed(t *testing.T, h Harness) {
	e := open(t, h)
	e.administrator("spare", time.Time{})
	verbs := e.verbs()
	var wg sync.WaitGroup
	for range 16 { // writers at work while it closes
		wg.Go(func() {
			for {
				if err := e.RecordIssuance(t.Context(), issuance(certificate(e.issuing))); err != nil {
					wantFault(t, "RecordIssuance while the store closes", err, fault.Unavailable, nil)
					return
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	if err := e.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
	for _, v := range verbs {
		wantFault(t, v.name+" on a closed store", v.call(soon(t)), fault.Unavailable, nil)
	}
	if err := e.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	e.Stats()
}

// testReplicas has one replica follow what others write.
func testReplicas(t *testing.T, h Harness) {
	if h.Second == nil {
		t.Skip("this store serves one process only")
	}
	e := open(t, h)
	b := h.Second(t, e.Store)
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		made   = map[pki.SerialNumber]int{}
		ended  = make(chan struct{})
		polled []store.StatusEvent
	)
	for g := range 16 {
		s := []store.Store{e.Store, b}[g/12]
		wg.Go(func() {
			for range 15 {
				c := certificate(e.issuing)
				if err := s.RecordIssuance(t.Context(), issuance(c)); err != nil {
					t.Errorf("RecordIssuance: %v", err)
					continue
				}
				for _, a := range []pki.Action{pki.ActionHold, pki.ActionRelease, pki.ActionRevoke} {
					if _, err := s.ChangeStatus(t.Context(), change(c, a, revocation(pki.Superseded, base))); err != nil {
						t.Errorf("ChangeStatus: %v", err)
						continue
					}
					mu.Lock()
					made[c.Serial]++
					mu.Unlock()
				}
			}
		})
	}
	go func() { wg.Wait(); close(ended) }()
	seen := store.Head{}
	for last := false; ; {
		head, err := b.Head(t.Context())
		if err != nil {
			t.Fatalf("Head: %v", err)
		}
		if head.Change < seen.Change || head.StatusChange < seen.StatusChange || head.NewestTime.Before(seen.NewestTime) {
			t.Fatalf("the head goes back from %+v to %+v", seen, head)
		}
		for after := seen.StatusChange; after < head.StatusChange; {
			page, err := b.StatusEvents(t.Context(), after, 7)
			if err != nil {
				t.Fatalf("StatusEvents: %v", err)
			}
			if len(page) == 0 {
				t.Fatalf("StatusEvents after %d = none, the head says %d", after, head.StatusChange)
			}
			polled = append(polled, page...)
			after = page[len(page)-1].Change
			head.StatusChange = max(head.StatusChange, after)
		}
		seen = head
		if last {
			break
		}
		select {
		case <-ended:
			last = true
		case <-time.After(time.Millisecond):
		}
	}
	equal(t, "what the poller saw", polled, e.events(1000))
	got := map[pki.SerialNumber]int{}
	for _, ev := range polled {
		got[ev.Serial]++
	}
	equal(t, "events by certificate", got, made)
	(&env{Store: b, t: t}).verifyChain()
}
