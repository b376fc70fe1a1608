package storetest

import (
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// idempotency returns one with an ID of its own.
func idempotency(request string, until time.Time) *store.Idempotency {
	return &store.Idempotency{ID: [32]byte(randomBytes(32)), Request: sha256.Sum256([]byte(request)), ExpiresAt: until}
}

// wantIssuedBefore reports an error that does not name the first issuance of a request.
func wantIssuedBefore(t *testing.T, what string, err error, first store.Idempotency) {
	t.Helper()
	wantFault(t, what, err, fault.Conflict, nil)
	if before, ok := errors.AsType[*store.IssuedBeforeError](err); ok {
		equal(t, what, before.First, first)
	} else {
		t.Errorf("%s: got error %v, want an IssuedBeforeError", what, err)
	}
}

func testIdempotency(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	record := func(i store.Issuance, with store.Idempotency) error {
		i.Idempotency = &with
		return e.RecordIssuance(ctx, i)
	}
	first := issuance(certificate(e.issuing))
	end := first.Certificate.IssuedAt.Add(24 * time.Hour)
	asked := *idempotency("one", end)
	asked.Warnings = []string{`a "warning", with {braces}`, ""}
	_, err := e.Store.Idempotency(ctx, asked.ID, base)
	wantFault(t, "Idempotency before the first issuance", err, fault.NotFound, nil)
	if err := record(first, asked); err != nil {
		t.Fatalf("RecordIssuance: %v", err)
	}
	written := asked
	written.Fingerprint = first.Certificate.Fingerprint
	got, err := e.Store.Idempotency(ctx, asked.ID, end.Add(-time.Microsecond))
	if err != nil {
		t.Fatalf("Idempotency: %v", err)
	}
	equal(t, "Idempotency", got, written)
	_, err = e.Store.Idempotency(ctx, asked.ID, end)
	wantFault(t, "Idempotency at its end", err, fault.NotFound, nil)

	before := e.head()
	again := issuance(certificate(e.issuing))
	wantIssuedBefore(t, "the same request again", record(again, asked), written)
	other := asked
	other.Request, other.Warnings = sha256.Sum256([]byte("another")), nil
	wantIssuedBefore(t, "another request under the same ID", record(again, other), written)
	_, err = e.Certificate(ctx, again.Certificate.Fingerprint)
	wantFault(t, "Certificate of the refused issuance", err, fault.NotFound, nil)
	if after := e.head(); after != before {
		t.Errorf("refused issuances moved the head from %+v to %+v", before, after)
	}

	// What is refused for another reason leaves the ID free, in every order of the batch.
	fresh := *idempotency("three", end)
	taken := issuance(certificate(e.issuing, func(c *pki.Certificate) { c.Serial = first.Certificate.Serial }))
	wantFault(t, "taken serial number", record(taken, fresh), fault.Conflict, store.ErrSerialTaken)
	blocked := issuance(certificate(e.issuing, func(c *pki.Certificate) { c.SPKIHash = e.boot.Issuers[0].Record.SPKIHash }))
	wantFault(t, "blocked key", record(blocked, fresh), fault.BadPublicKey, nil)
	if err := record(again, fresh); err != nil {
		t.Errorf("RecordIssuance after refusals: %v", err)
	}

	// An ID that has ended may be used again.
	late := issuance(certificate(e.issuing, func(c *pki.Certificate) { c.IssuedAt = end }))
	asked.ExpiresAt = end.Add(time.Hour)
	if err := record(late, asked); err != nil {
		t.Errorf("RecordIssuance under an ID that has ended: %v", err)
	}
	if got, err := e.Store.Idempotency(ctx, asked.ID, end); err != nil || got.Fingerprint != late.Certificate.Fingerprint {
		t.Errorf("Idempotency = %+v, %v; want the later certificate", got, err)
	}
	e.verifyChain()
}

// testIdempotencyTwins has many ask at once, over all replicas that there can be, with other issuances in between.
func testIdempotencyTwins(t *testing.T, h Harness) {
	e := open(t, h)
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	const requests, twins = 4, 64
	var keys [requests]*store.Idempotency
	for i := range keys {
		keys[i] = idempotency("the same", base.Add(time.Hour))
	}
	before := e.head()
	var certs [requests * twins]pki.Certificate
	var errs [requests * twins]error
	var plain [twins]error
	var wg sync.WaitGroup
	for i := range errs {
		certs[i] = certificate(e.issuing)
		wg.Go(func() {
			one := issuance(certs[i])
			one.Idempotency = keys[i%requests]
			errs[i] = stores[i/requests%len(stores)].RecordIssuance(t.Context(), one)
		})
		if i < twins {
			wg.Go(func() { plain[i] = stores[i%len(stores)].RecordIssuance(t.Context(), issuance(certificate(e.issuing))) })
		}
	}
	wg.Wait()
	if err := errors.Join(plain[:]...); err != nil {
		t.Errorf("issuances beside the twins: %v", err)
	}
	for k, key := range keys {
		want, err := e.Store.Idempotency(t.Context(), key.ID, base)
		if err != nil {
			t.Fatalf("Idempotency: %v", err)
		}
		issued := 0
		for i := k; i < len(errs); i += requests {
			if errs[i] == nil {
				issued++
				equal(t, "the certificate issued", certs[i].Fingerprint, want.Fingerprint)
				continue
			}
			wantIssuedBefore(t, "a twin", errs[i], want)
		}
		if issued != 1 {
			t.Errorf("%d of %d twins issued a certificate, want 1", issued, twins)
		}
	}
	if after := e.head(); after.AuditSeq != before.AuditSeq+requests+twins {
		t.Errorf("%d records were added, want %d", after.AuditSeq-before.AuditSeq, requests+twins)
	}
	e.verifyChain()
}

func testIdempotencyPruned(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	var ids [][32]byte
	for i := range 5 {
		one := issuance(certificate(e.issuing))
		one.Idempotency = idempotency("one", base.Add(time.Duration(i+1)*time.Hour))
		ids = append(ids, one.Idempotency.ID)
		if err := e.RecordIssuance(ctx, one); err != nil {
			t.Fatalf("RecordIssuance: %v", err)
		}
	}
	before := e.head()
	for _, step := range []struct {
		at    time.Time
		limit int
		want  int
	}{
		{base.Add(time.Hour - time.Microsecond), 10, 0},
		{base.Add(3 * time.Hour), 2, 2}, // the oldest two
		{base.Add(3 * time.Hour), 2, 1},
		{base.Add(3 * time.Hour), 2, 0},
	} {
		if n, err := e.PruneIdempotency(ctx, step.at, step.limit); err != nil || n != step.want {
			t.Errorf("PruneIdempotency(%v, %d) = %d, %v; want %d", step.at, step.limit, n, err, step.want)
		}
	}
	for i, id := range ids {
		_, err := e.Store.Idempotency(ctx, id, base)
		if kept := i >= 3; kept != (err == nil) {
			t.Errorf("Idempotency %d: %v; want it kept: %v", i, err, kept)
		}
	}
	if after := e.head(); after != before {
		t.Errorf("pruning moved the head from %+v to %+v", before, after)
	}
	if h.Closed == nil {
		return
	}
	id, fenced := fence(9)
	if err := movable(t, e.Store).Fence(ctx, id, "elsewhere", base, fenced); err != nil {
		t.Fatalf("Fence: %v", err)
	}
	_, err := e.PruneIdempotency(ctx, base.AddDate(1, 0, 0), 10)
	wantFault(t, "PruneIdempotency of a fenced store", err, fault.Unavailable, store.ErrNotInUse)
}

// testBlockedKeysRefused has keys blocked after the caller looked: the transaction looks again.
func testBlockedKeysRefused(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	issue := func(spki [32]byte, ourselves bool) error {
		i := issuance(certificate(e.issuing, func(c *pki.Certificate) { c.SPKIHash = spki }))
		i.ReserveKey = ourselves
		return e.RecordIssuance(ctx, i)
	}
	compromise := func(c pki.Certificate) {
		t.Helper()
		r := change(c, pki.ActionRevoke, revocation(pki.KeyCompromise, base))
		r.BlockKey = true
		if _, err := e.ChangeStatus(ctx, r); err != nil {
			t.Fatalf("ChangeStatus: %v", err)
		}
	}
	theirs, root := e.issue(e.issuing), e.boot.Issuers[0].Record.SPKIHash
	ours := certificate(e.issuing)
	if err := issue(ours.SPKIHash, true); err != nil {
		t.Fatalf("RecordIssuance of a key of ours: %v", err)
	}
	page := e.list(store.CertificateFilter{SPKIHash: &ours.SPKIHash}, 10)
	if len(page) != 1 {
		t.Fatalf("ListCertificates: %d certificates of the key, want 1", len(page))
	}
	if err := issue(theirs.SPKIHash, false); err != nil {
		t.Errorf("RecordIssuance of a key before it is blocked: %v", err)
	}
	compromise(theirs)
	before := e.head()
	wantFault(t, "a compromised key", issue(theirs.SPKIHash, false), fault.BadPublicKey, nil)
	wantFault(t, "a compromised key, for ourselves", issue(theirs.SPKIHash, true), fault.BadPublicKey, nil)
	wantFault(t, "an issuer's key", issue(root, false), fault.BadPublicKey, nil)
	wantFault(t, "a key of ours", issue(ours.SPKIHash, false), fault.BadPublicKey, nil)
	if after := e.head(); after != before {
		t.Errorf("refused issuances moved the head from %+v to %+v", before, after)
	}
	if err := issue(ours.SPKIHash, true); err != nil {
		t.Errorf("RecordIssuance of a key of ours for ourselves: %v", err)
	}
	// A key of ours that is compromised is refused to ourselves too, and reserving one does not make it good.
	compromise(page[0])
	wantFault(t, "a compromised key of ours", issue(ours.SPKIHash, true), fault.BadPublicKey, nil)
	blocked, err := e.BlockedKeys(ctx)
	if err != nil || !blocked[ours.SPKIHash].Compromised || blocked[root] != (store.BlockedKey{Own: true}) {
		t.Errorf("BlockedKeys: %+v and %+v, %v; want the first reported compromised", blocked[ours.SPKIHash], blocked[root], err)
	}

	// Among many at once, the blocked ones alone are refused.
	const n = 60
	var errs [n]error
	var wg sync.WaitGroup
	for i := range n {
		spki := [32]byte(randomBytes(32))
		if i%6 == 0 {
			spki = theirs.SPKIHash
		}
		wg.Go(func() { errs[i] = issue(spki, false) })
	}
	wg.Wait()
	for i, err := range errs {
		if i%6 == 0 {
			wantFault(t, "a blocked key among others", err, fault.BadPublicKey, nil)
		} else if err != nil {
			t.Errorf("RecordIssuance beside blocked keys: %v", err)
		}
	}
	e.verifyChain()
}

func testPredecessors(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	renew := func(old pki.Certificate) error {
		i := issuance(certificate(e.issuing, func(c *pki.Certificate) { c.Replaces = old.Fingerprint }))
		i.Predecessor = store.PredecessorOf(old)
		return e.RecordIssuance(ctx, i)
	}
	good, held, revoked := e.issue(e.issuing), e.issue(e.issuing), e.issue(e.issuing)
	imported := e.issue(e.devices, func(c *pki.Certificate) { c.Serial = pki.SerialNumber([]byte{5}) })
	e.change(held, pki.ActionHold, revocation(pki.CertificateHold, base))
	e.change(revoked, pki.ActionRevoke, revocation(pki.Superseded, base))
	for _, c := range []struct {
		name string
		cert pki.Certificate
		kind fault.Kind // Internal: none
	}{
		{"good", good, fault.Internal},
		{"imported", imported, fault.Internal},
		{"on hold", held, fault.PolicyRefused},
		{"revoked", revoked, fault.PolicyRefused},
		{"of another issuer", func() pki.Certificate {
			c := good
			c.IssuerID, c.IssuerKeyID = e.devices.issuer, e.devices.key
			return c
		}(), fault.NotFound},
		{"of another key", func() pki.Certificate { c := good; c.IssuerKeyID = e.devices.key; return c }(), fault.NotFound},
		{"never issued", certificate(e.issuing), fault.NotFound},
	} {
		before := e.head()
		err := renew(c.cert)
		if c.kind == fault.Internal {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		wantFault(t, c.name, err, c.kind, nil)
		if after := e.head(); after != before {
			t.Errorf("%s: the refusal moved the head", c.name)
		}
	}
	e.change(held, pki.ActionRelease, pki.Revocation{RevokedAt: base})
	if err := renew(held); err != nil {
		t.Errorf("released: %v", err)
	}
	e.verifyChain()
}

// testPredecessorRace renews certificates while they are revoked: in the chain no renewal stands behind the revocation.
func testPredecessorRace(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	const certificates, renewals = 8, 12
	var wg sync.WaitGroup
	for range certificates {
		old := e.issue(e.issuing)
		target := "certificate/" + old.Fingerprint.String()
		for i := range renewals {
			wg.Go(func() {
				one := issuance(certificate(e.issuing, func(c *pki.Certificate) { c.Replaces = old.Fingerprint }))
				one.Predecessor = store.PredecessorOf(old)
				one.Record.Action = audit.ActionRenew
				one.Record.Detail = map[string]string{"replaces": target}
				if err := stores[i%len(stores)].RecordIssuance(ctx, one); err != nil {
					wantFault(t, "a renewal", err, fault.PolicyRefused, nil)
				}
			})
			if i == renewals/2 {
				wg.Go(func() {
					c := change(old, pki.ActionRevoke, revocation(pki.Superseded, base))
					c.Record.Target = target
					if _, err := stores[1%len(stores)].ChangeStatus(ctx, c); err != nil {
						t.Errorf("ChangeStatus: %v", err)
					}
				})
			}
		}
	}
	wg.Wait()
	revoked := map[string]int64{} // by target, the change
	renewed := 0
	for b, err := range e.AuditChain(ctx) {
		if err != nil {
			t.Fatalf("AuditChain: %v", err)
		}
		for _, raw := range b.Records {
			r, err := audit.Parse(raw)
			if err != nil {
				t.Fatalf("AuditChain: %v", err)
			}
			switch {
			case r.Action == audit.ActionRevoke:
				revoked[r.Target] = b.Batch.Change
			case r.Action == audit.ActionRenew:
				renewed++
				if at := revoked[r.Detail["replaces"]]; at != 0 && at < b.Batch.Change {
					t.Errorf("%s was revoked with change %d and renewed with change %d", r.Detail["replaces"], at, b.Batch.Change)
				}
			}
		}
	}
	if len(revoked) != certificates || renewed == 0 {
		t.Errorf("%d certificates revoked, %d renewals; want %d and some", len(revoked), renewed, certificates)
	}
	e.verifyChain()
}
