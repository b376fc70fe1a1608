package storetest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// movable returns the part of a store that copies use.
func movable(t *testing.T, s store.Store) store.Movable {
	t.Helper()
	m, ok := s.(store.Movable)
	if !ok {
		t.Fatalf("%T is no store.Movable", s)
	}
	return m
}

// copies leaves a test out where nothing can be copied.
func copies(run func(*testing.T, Harness)) func(*testing.T, Harness) {
	return func(t *testing.T, h Harness) {
		if h.Closed == nil {
			t.Skip("this role may not copy")
		}
		run(t, h)
	}
}

// Fill gives every table of a store rows, of every kind that it can hold.
func Fill(t *testing.T, s store.Store) {
	t.Helper()
	e := &env{Store: s, t: t, boot: bootstrap()}
	if err := e.Bootstrap(t.Context(), e.boot); err != nil {
		t.Fatalf("Bootstrap: %v", err)
	}
	e.load()
	e.fill()
}

func (e *env) fill() {
	e.t.Helper()
	t, ctx := e.t, e.t.Context()
	first := e.issue(e.issuing)
	e.issue(e.devices, func(c *pki.Certificate) {
		c.DER, c.SANs, c.Subject, c.Device, c.Replaces = nil, nil, "", "", first.Fingerprint
	})
	e.issue(e.issuing, func(c *pki.Certificate) {
		c.Serial, c.NotAfter, c.SANs = pki.SerialNumber([]byte{7}), pki.NoExpiry, []string{`DNS:"quoted" \ {a,b}`, "email:ü@example.com", ""}
	})
	for _, warnings := range [][]string{nil, {`with "quotes" and {braces}`, "ü", ""}} {
		i := issuance(certificate(e.issuing))
		i.Idempotency = idempotency("kept", i.Certificate.IssuedAt.Add(time.Hour))
		i.Idempotency.Warnings = warnings
		if err := e.RecordIssuance(ctx, i); err != nil {
			t.Fatalf("RecordIssuance: %v", err)
		}
	}
	invalid := revocation(pki.KeyCompromise, base)
	invalid.InvalidityDate = base.Add(-time.Hour).Truncate(time.Second)
	e.change(first, pki.ActionRevoke, invalid)
	e.change(e.issue(e.devices), pki.ActionHold, revocation(pki.CertificateHold, base))
	released := e.change(e.issue(e.devices), pki.ActionHold, revocation(pki.CertificateHold, base))
	e.change(released, pki.ActionRelease, pki.Revocation{RevokedAt: base})
	compromised := change(e.issue(e.issuing), pki.ActionRevoke, revocation(pki.KeyCompromise, base))
	compromised.BlockKey = true
	if _, err := e.ChangeStatus(ctx, compromised); err != nil {
		t.Fatalf("ChangeStatus: %v", err)
	}
	for i := range 3 {
		c := pki.CRL{
			IssuerKeyID: e.issuing.key, Scope: pki.ScopeFull, Number: 100 + int64(i), ThisUpdate: base, NextUpdate: base.Add(time.Hour),
			Scheduled: i == 1, Change: e.head().Change, Entries: 2, CreatedAt: base, Parts: parts(randomBytes(3000), randomBytes(100_000)),
		}
		if err := e.RecordCRL(ctx, nil, c); err != nil {
			t.Fatalf("RecordCRL: %v", err)
		}
	}
	if err := e.PutProfile(ctx, pki.ProfileVersion{Name: "device", Version: 2, Config: []byte(`{"ü":1}`), CreatedAt: base, CreatedBy: "test"}, record(audit.ActionProfile, base)); err != nil {
		t.Fatalf("PutProfile: %v", err)
	}
	address := pki.CRLAddress{IssuerKeyID: e.issuing.key, Set: "s64", URL: "http://pki.example/{shard}.crl", RecordedAt: base, Until: base.AddDate(1, 0, 0)}
	settings := pki.SettingsVersion{IssuerID: e.issuing.issuer, Version: 1, Config: []byte(`{"ü":1}`), CreatedAt: base, CreatedBy: "test"}
	if err := e.PutIssuerSettings(ctx, settings, []pki.CRLAddress{address}, record(audit.ActionIssuer, base)); err != nil {
		t.Fatalf("PutIssuerSettings: %v", err)
	}
	if err := e.ListCRLAddress(ctx, address.IssuerKeyID, address.Set, address.URL, base); err != nil {
		t.Fatalf("ListCRLAddress: %v", err)
	}
	e.change(e.issue(e.issuing, func(c *pki.Certificate) { c.CRLScope, c.CRLShard = "s64/3", 3 }), pki.ActionHold, revocation(pki.CertificateHold, base))
	tok := pki.Token{
		ID: "second", Name: "second", Role: pki.RoleEnroller, Issuers: []string{"issuing", "devices"}, Profiles: []string{"device"},
		Names: []string{"DNS:*.example.com", "CN:ü"}, Rate: 60, CreatedAt: base, CreatedBy: "test", ExpiresAt: base.AddDate(1, 0, 0),
	}
	if err := e.CreateToken(ctx, tok, record(audit.ActionToken, base)); err != nil {
		t.Fatalf("CreateToken: %v", err)
	}
	if err := e.RevokeToken(ctx, "second", base.Add(time.Hour), record(audit.ActionTokenEnd, base)); err != nil {
		t.Fatalf("RevokeToken: %v", err)
	}
	e.fillEnrollments()
	e.fillNotifications()
	e.fillDevices()
	if err := e.RecordAudit(ctx, record("test.one", base.Add(2*time.Hour)), record("test.two", base)); err != nil {
		t.Fatalf("RecordAudit: %v", err)
	}
	e.fillCampaigns()
	if _, err := e.AcquireLease(ctx, "not copied", "one", time.Hour); err != nil {
		t.Fatalf("AcquireLease: %v", err)
	}
}

// Dump returns every row of a store, in pages of the given size.
func Dump(t *testing.T, s store.Exporter, page int) map[string][]store.Row {
	t.Helper()
	all := map[string][]store.Row{}
	for _, table := range store.Tables() {
		var after store.Row
		for {
			rows, err := s.ExportRows(t.Context(), table, after, page)
			if err != nil {
				t.Fatalf("ExportRows of %s: %v", table.Name, err)
			}
			if len(rows) == 0 {
				break
			}
			if len(rows) > page {
				t.Fatalf("ExportRows of %s: %d rows, want %d at most", table.Name, len(rows), page)
			}
			all[table.Name] = append(all[table.Name], rows...)
			after = table.KeyOf(rows[len(rows)-1])
		}
		n, err := s.CountRows(t.Context(), table)
		if err != nil || n != int64(len(all[table.Name])) {
			t.Errorf("CountRows of %s = %d, %v; %d were exported", table.Name, n, err, len(all[table.Name]))
		}
		last, err := s.LastKey(t.Context(), table)
		if err != nil {
			t.Errorf("LastKey of %s: %v", table.Name, err)
		}
		equal(t, "LastKey of "+table.Name, last, after)
	}
	return all
}

func fence(id byte) (store.CopyID, audit.Record) {
	return store.CopyID{id}, record("store.fence", base.Add(24*time.Hour))
}

func testCopy(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	e.fill()
	from := movable(t, e.Store)
	id, r := fence(1)
	at := base.Add(24*time.Hour + time.Microsecond)
	if err := from.Fence(ctx, id, "there", at, r); err != nil {
		t.Fatalf("Fence: %v", err)
	}
	head, want := e.head(), Dump(t, from, 100)
	equal(t, "a page of one row each", Dump(t, from, 1), want)
	for _, table := range store.Tables() {
		if len(want[table.Name]) == 0 {
			t.Errorf("nothing was exported of table %s", table.Name)
		}
	}
	to := movable(t, h.Open(t))
	page := func(table store.Table, rows []store.Row) {
		t.Helper()
		if err := to.ImportRows(ctx, id, table, rows); err != nil {
			t.Fatalf("ImportRows of %s: %v", table.Name, err)
		}
	}
	if err := to.BeginImport(ctx, id, "here", at); err != nil {
		t.Fatalf("BeginImport: %v", err)
	}
	for n, table := range store.Tables() {
		rows := want[table.Name]
		page(table, rows[:1])
		if n%2 == 0 {
			to = movable(t, h.Closed(t, to))
		}
		if err := to.BeginImport(ctx, id, "here", at); err != nil {
			t.Fatalf("BeginImport again: %v", err)
		}
		if last, err := to.LastKey(ctx, table); err != nil {
			t.Errorf("LastKey: %v", err)
		} else {
			equal(t, "LastKey of "+table.Name, last, table.KeyOf(rows[0]))
		}
		wantFault(t, "ImportRows of rows that are there", to.ImportRows(ctx, id, table, rows[:1]), fault.Conflict, nil)
		wantFault(t, "ImportRows of another copy", to.ImportRows(ctx, store.CopyID{9}, table, rows[1:]), fault.Conflict, store.ErrStale)
		if len(rows) > 1 { // all or none
			err := to.ImportRows(ctx, id, table, append(append([]store.Row{}, rows[1:]...), rows[0]))
			wantFault(t, "ImportRows with one that is there", err, fault.Conflict, nil)
			page(table, rows[1:])
		}
	}
	st, err := to.State(ctx)
	if err != nil {
		t.Errorf("State: %v", err)
	}
	equal(t, "State of the store that is filled", st, store.State{Use: store.Filling, Copy: id, Peer: "here", Since: at})
	wantFault(t, "RecordAudit while filling", to.RecordAudit(ctx, record("test", base)), fault.Unavailable, store.ErrNotInUse)
	equal(t, "what was imported", Dump(t, to, 100), want)
	wantFault(t, "FinishImport of another copy", to.FinishImport(ctx, store.CopyID{9}, head, at), fault.Conflict, store.ErrStale)
	open := head
	open.Closed = false
	if err := to.FinishImport(ctx, id, open, at); err != nil {
		t.Fatalf("FinishImport: %v", err)
	}
	copied := &env{Store: to, t: t, boot: e.boot}
	copied.load()
	equal(t, "Head of the copy", copied.head(), open)
	if copied.root != e.root || copied.issuing != e.issuing || copied.devices != e.devices {
		t.Errorf("the issuers of the copy have other ids")
	}
	copied.verifyChain()
	noSeriousFindings(t, h, to)
	equal(t, "ListCertificates of the copy", copied.list(store.CertificateFilter{}, 10), e.list(store.CertificateFilter{}, 10))
	equal(t, "a search in the copy", copied.list(store.CertificateFilter{Text: "DEVICE"}, 10), e.list(store.CertificateFilter{Text: "device"}, 10))
	equal(t, "StatusEvents of the copy", copied.events(2), e.events(100))

	// It goes on as if it had always been the one.
	copied.change(copied.issue(copied.issuing), pki.ActionRevoke, revocation(pki.Superseded, base))
	copied.verifyChain()
	wantFault(t, "Bootstrap of the copy", copied.Bootstrap(ctx, bootstrap()), fault.Conflict, store.ErrNotEmpty)
	wantFault(t, "BeginImport into the copy", to.BeginImport(ctx, store.CopyID{2}, "x", at), fault.Conflict, store.ErrNotEmpty)
	if err := from.Leave(ctx, id, at); err != nil {
		t.Errorf("Leave: %v", err)
	}
	if err := from.Leave(ctx, id, at); err != nil {
		t.Errorf("Leave again: %v", err)
	}
	if st, err := from.State(ctx); err != nil || st.Use != store.Left {
		t.Errorf("State = %+v, %v; want left", st, err)
	}
}

// A copy that another one follows is thrown away.
func testCopyAgain(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	e.fill()
	from, to := movable(t, e.Store), movable(t, h.Open(t))
	old, id := store.CopyID{1}, store.CopyID{2}
	rows := Dump(t, from, 1000)
	if err := to.BeginImport(ctx, old, "here", base); err != nil {
		t.Fatalf("BeginImport: %v", err)
	}
	for _, table := range store.Tables() {
		if err := to.ImportRows(ctx, old, table, rows[table.Name]); err != nil {
			t.Fatalf("ImportRows of %s: %v", table.Name, err)
		}
	}
	if err := to.BeginImport(ctx, id, "here", base); err != nil {
		t.Fatalf("BeginImport of another copy: %v", err)
	}
	for _, table := range store.Tables() {
		if n, err := to.CountRows(ctx, table); err != nil || n != 0 {
			t.Errorf("%d rows of %s are left, %v", n, table.Name, err)
		}
	}
	wantFault(t, "ImportRows of the old copy", to.ImportRows(ctx, old, store.Tables()[0], rows["issuer"]), fault.Conflict, store.ErrStale)
	for _, table := range store.Tables() {
		if err := to.ImportRows(ctx, id, table, rows[table.Name]); err != nil {
			t.Fatalf("ImportRows of %s: %v", table.Name, err)
		}
	}
	if err := to.FinishImport(ctx, id, e.head(), base); err != nil {
		t.Fatalf("FinishImport: %v", err)
	}
	copied := &env{Store: to, t: t, boot: e.boot}
	copied.load()
	copied.verifyChain()
	equal(t, "a search in the copy", copied.list(store.CertificateFilter{Text: "device-"}, 10), e.list(store.CertificateFilter{Text: "device-"}, 10))
}

func testFence(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	c := e.issue(e.issuing)
	m := movable(t, e.Store)
	wantFault(t, "Unfence of a store in use", m.Unfence(ctx, base, record("store.unfence", base)), fault.Conflict, nil)
	wantFault(t, "Leave of a store in use", m.Leave(ctx, store.CopyID{1}, base), fault.Conflict, store.ErrStale)
	before := e.head()
	id, r := fence(1)
	if err := m.Fence(ctx, id, "there", base, r); err != nil {
		t.Fatalf("Fence: %v", err)
	}
	fenced := e.head()
	if fenced.Change != before.Change+1 || !fenced.Closed || fenced.AuditSeq != before.AuditSeq+1 {
		t.Errorf("Head = %+v, after %+v", fenced, before)
	}
	st, err := m.State(ctx)
	if err != nil {
		t.Errorf("State: %v", err)
	}
	equal(t, "State", st, store.State{Use: store.Fenced, Copy: id, Peer: "there", Since: base})
	wantFault(t, "State.Err", st.Err(), fault.Conflict, store.ErrNotInUse)

	for what, err := range map[string]error{
		"RecordIssuance":   e.RecordIssuance(ctx, issuance(certificate(e.issuing))),
		"RecordAudit":      e.RecordAudit(ctx, record("test", base)),
		"CreateToken":      e.CreateToken(ctx, pki.Token{ID: "x", Name: "x", CreatedAt: base}, record(audit.ActionToken, base)),
		"PutProfile":       e.PutProfile(ctx, pki.ProfileVersion{Name: "x", Version: 1, CreatedAt: base}, record(audit.ActionProfile, base)),
		"PutNotifications": e.PutNotifications(ctx, []pki.Notification{notification()}),
		"RecordCRL":        e.RecordCRL(ctx, nil, pki.CRL{IssuerKeyID: e.issuing.key, Scope: pki.ScopeFull, Number: 1, ThisUpdate: base, NextUpdate: base, CreatedAt: base}),
	} {
		wantFault(t, what+" on a fenced store", err, fault.Unavailable, store.ErrNotInUse)
	}
	_, err = e.ChangeStatus(ctx, change(c, pki.ActionRevoke, revocation(pki.Superseded, base)))
	wantFault(t, "ChangeStatus on a fenced store", err, fault.Unavailable, store.ErrNotInUse)
	_, again := fence(2)
	wantFault(t, "Fence again", m.Fence(ctx, store.CopyID{2}, "elsewhere", base, again), fault.Conflict, store.ErrNotInUse)
	wantFault(t, "BeginImport into a fenced store", m.BeginImport(ctx, id, "x", base), fault.Conflict, store.ErrNotInUse)
	wantFault(t, "Leave for another copy", m.Leave(ctx, store.CopyID{2}, base), fault.Conflict, store.ErrStale)
	equal(t, "Head after refusals", e.head(), fenced)
	e.Store = h.Closed(t, e.Store)
	m = movable(t, e.Store)
	equal(t, "Head after opening again", e.head(), fenced)

	if err := m.Unfence(ctx, base.Add(time.Hour), record("store.unfence", base.Add(time.Hour))); err != nil {
		t.Fatalf("Unfence: %v", err)
	}
	if head := e.head(); head.Change != fenced.Change+1 || head.Closed {
		t.Errorf("Head = %+v after Unfence", head)
	}
	if st, err := m.State(ctx); err != nil || st.Err() != nil || st.Copy != (store.CopyID{}) {
		t.Errorf("State after Unfence = %+v, %v", st, err)
	}
	e.change(c, pki.ActionRevoke, revocation(pki.Superseded, base))
	e.verifyChain()
}

// What was confirmed before the fence is there, what was not is not, and nothing comes after it.
// testFenceStopsNotes: what is no change in the sense of the contract is not written to a fenced store either, and nothing
// is taken away: the copy would lack it, or have too much.
func testFenceStopsNotes(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	d := device()
	e.create(d)
	old := enrollment(func(r *pki.Enrollment) { r.State, r.ExpiresAt = pki.EnrollmentDenied, base })
	if err := e.PutEnrollment(ctx, store.EnrollmentChange{Enrollment: old, Request: []byte("x"), Record: record("enrollment.deny", base)}); err != nil {
		t.Fatalf("PutEnrollment: %v", err)
	}
	count := []store.Refusal{refused(1, "one", "enroll", "x", 1)}
	if err := e.NoteContacts(ctx, nil, count); err != nil {
		t.Fatalf("NoteContacts: %v", err)
	}
	id, r := fence(1)
	if err := movable(t, e.Store).Fence(ctx, id, "there", base, r); err != nil {
		t.Fatalf("Fence: %v", err)
	}
	later := base.AddDate(10, 0, 0)
	for what, err := range map[string]error{
		"PruneEnrollments": second(e.PruneEnrollments(ctx, later, 10)),
		"PruneIdempotency": second(e.PruneIdempotency(ctx, later, 10)),
		"DropCRLs":         second(e.DropCRLs(ctx, nil, e.issuing.key, []string{"s2/0"}, later)),
		"PruneRefusals":    second(e.PruneRefusals(ctx, 20_000, 10)),
		"NoteContacts":     e.NoteContacts(ctx, []store.Contact{{Device: d.ID, At: later}}, count),
		"DeviceRevoked":    e.DeviceRevoked(ctx, d.ID, later),
	} {
		wantFault(t, what+" of a fenced store", err, fault.Unavailable, store.ErrNotInUse)
	}
	e.wantEnrollment("what had ended before the fence", old)
	equal(t, "the device", e.device(d.ID), d)
	got, err := e.Refusals(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the counts", got, count)
}

func second[T any](_ T, err error) error { return err }

func testFenceWhileWriting(t *testing.T, h Harness) {
	e := open(t, h)
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var confirmed atomic.Int64
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			for {
				err := stores[n%len(stores)].RecordIssuance(ctx, issuance(certificate(e.issuing)))
				if err != nil {
					wantFault(t, "RecordIssuance", err, fault.Unavailable, store.ErrNotInUse)
					return
				}
				confirmed.Add(1)
			}
		})
	}
	for confirmed.Load() < 100 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	id, r := fence(1)
	if err := movable(t, e.Store).Fence(ctx, id, "there", base, r); err != nil {
		t.Fatalf("Fence: %v", err)
	}
	head := e.head()
	wg.Wait()
	equal(t, "Head after the last writer", e.head(), head)
	n, err := movable(t, e.Store).CountRows(ctx, store.Table{Name: "certificate"})
	if want := confirmed.Load() + int64(len(e.boot.Issuers)); err != nil || n != want {
		t.Errorf("there are %d certificates, %v; %d were confirmed", n, err, want)
	}
	e.verifyChain()
}

func testImportRefused(t *testing.T, h Harness) {
	ctx := t.Context()
	to := movable(t, h.Open(t))
	issuer := store.Tables()[0]
	row := store.Row{int64(1), "root", true, base}
	wantFault(t, "ImportRows into a store in use", to.ImportRows(ctx, store.CopyID{1}, issuer, []store.Row{row}), fault.Conflict, store.ErrStale)
	wantFault(t, "FinishImport of a store in use", to.FinishImport(ctx, store.CopyID{1}, store.Head{}, base), fault.Conflict, store.ErrStale)
	if err := to.BeginImport(ctx, store.CopyID{1}, "x", base); err != nil {
		t.Fatalf("BeginImport: %v", err)
	}
	for _, bad := range []store.Row{{int64(1), "root", true}, {int64(1), nil, true, base}, {int64(1), 5.5, true, base}} {
		if err := to.ImportRows(ctx, store.CopyID{1}, issuer, []store.Row{bad}); err == nil {
			t.Errorf("ImportRows(%v) succeeds", bad)
		}
	}
	wantFault(t, "Fence of a store that is filled", to.Fence(ctx, store.CopyID{3}, "x", base, record("x", base)), fault.Conflict, store.ErrNotInUse)
	wantFault(t, "Unfence of a store that is filled", to.Unfence(ctx, base, record("x", base)), fault.Conflict, nil)
	wantFault(t, "Bootstrap of a store that is filled", to.Bootstrap(ctx, bootstrap()), fault.Unavailable, store.ErrNotInUse)
	if n, err := to.CountRows(ctx, issuer); err != nil || n != 0 {
		t.Errorf("there are %d issuers, %v", n, err)
	}
}
