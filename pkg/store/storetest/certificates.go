package storetest

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

func testIssuance(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	whole := func(at time.Time) time.Time { return at.UTC().Truncate(time.Microsecond) }
	for name, c := range map[string]pki.Certificate{
		"plain": certificate(e.issuing),
		"renewal": certificate(e.issuing, func(c *pki.Certificate) {
			c.TransactionID, c.Replaces, c.CRLScope, c.CRLShard = "tx-1", pki.Fingerprint{1, 2, 3}, "set-1", 7
		}),
		"no DER, no text": certificate(e.issuing, func(c *pki.Certificate) {
			c.DER, c.SANs, c.Subject, c.Profile, c.ProfileVersion, c.Requester, c.Protocol, c.Device, c.Source, c.CRLScope = nil, nil, "", "", 0, "", "", "", "", ""
		}),
		"unicode": certificate(e.issuing, func(c *pki.Certificate) {
			c.Subject, c.SANs, c.Device = "CN=Größe 東京 %_\\ \"',O=İß", []string{"URI:https://exämple/%41_?\"'\\", "", "email:ü@x"}, "Gerät №1"
		}),
		"long":          certificate(e.issuing, func(c *pki.Certificate) { c.Subject, c.DER = strings.Repeat("ä", 4000), randomBytes(70000) }),
		"20 octets":     certificate(e.issuing, func(c *pki.Certificate) { c.Serial = pki.SerialNumber("\x7f" + strings.Repeat("\xff", 19)) }),
		"one octet":     certificate(e.issuing, func(c *pki.Certificate) { c.Serial = "\x01" }),
		"zero":          certificate(e.issuing, func(c *pki.Certificate) { c.Serial = "\x00" }),
		"zero octets":   certificate(e.issuing, func(c *pki.Certificate) { c.Serial = pki.SerialNumber("\x01" + strings.Repeat("\x00", 15)) }),
		"no end":        certificate(e.issuing, func(c *pki.Certificate) { c.NotAfter = pki.NoExpiry }),
		"long ago":      certificate(e.issuing, func(c *pki.Certificate) { c.NotBefore = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC) }),
		"nanoseconds":   certificate(e.issuing, func(c *pki.Certificate) { c.IssuedAt = base.Add(1234567*time.Nanosecond + 999) }),
		"another zone":  certificate(e.issuing, func(c *pki.Certificate) { c.IssuedAt = base.In(time.FixedZone("X", 7200)) }),
		"revoked stub":  certificate(e.issuing, func(c *pki.Certificate) { c.DER = nil }),
		"another key":   certificate(e.devices),
		"not yet named": certificate(e.root, func(c *pki.Certificate) { c.CRLScope = "" }),
	} {
		before := e.head()
		i := issuance(c)
		if err := e.RecordIssuance(ctx, i); err != nil {
			t.Fatalf("%s: RecordIssuance: %v", name, err)
		}
		after := e.head()
		if after.Change != before.Change+1 || after.AuditSeq != before.AuditSeq+1 || after.ConfigChange != before.ConfigChange || after.StatusChange != before.StatusChange || after.CRLChange != before.CRLChange {
			t.Errorf("%s: Head %+v became %+v", name, before, after)
		}
		c.IssuedAt = whole(c.IssuedAt)
		got, err := e.Certificate(ctx, c.Fingerprint)
		if err != nil {
			t.Fatalf("%s: Certificate: %v", name, err)
		}
		equal(t, name+": Certificate", got, c)
		if len(c.DER) == 0 && got.DER != nil {
			t.Errorf("%s: the DER is %v, want nil", name, got.DER)
		}
		if got.IssuedAt.Location() != time.UTC || got.NotAfter.Location() != time.UTC {
			t.Errorf("%s: times are not in UTC: %v, %v", name, got.IssuedAt, got.NotAfter)
		}
		if got, err = e.CertificateBySerial(ctx, c.IssuerID, c.Serial); err != nil {
			t.Fatalf("%s: CertificateBySerial: %v", name, err)
		}
		equal(t, name+": CertificateBySerial", got, c)
		list, _, err := e.ListCertificates(ctx, store.CertificateFilter{Serial: c.Serial}, store.Page{})
		if err != nil {
			t.Fatalf("%s: ListCertificates: %v", name, err)
		}
		equal(t, name+": ListCertificates", list, withoutDER(c))
		events, _, err := e.AuditEvents(ctx, store.AuditFilter{Target: i.Record.Target}, store.Page{})
		if err != nil || len(events) != 1 || events[0].Change != after.Change || events[0].Seq != after.AuditSeq || string(events[0].Bytes) != string(i.Record.Canonical()) {
			t.Errorf("%s: AuditEvents = %+v, %v", name, events, err)
		}
	}
	_, err := e.Certificate(ctx, pki.Fingerprint{1})
	wantFault(t, "Certificate of none", err, fault.NotFound, nil)
	_, err = e.CertificateBySerial(ctx, e.issuing.issuer, "\x41none")
	wantFault(t, "CertificateBySerial of none", err, fault.NotFound, nil)
	_, err = e.CertificateBySerial(ctx, 1<<40, "\x01")
	wantFault(t, "CertificateBySerial of no issuer", err, fault.NotFound, nil)
	e.verifyChain()
}

func testIssuanceRefused(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	c := e.issue(e.issuing)
	imported := e.issue(e.issuing, func(c *pki.Certificate) { c.Serial = "\x05" })
	before := e.head()
	for _, o := range []pki.Certificate{c, imported} {
		same := certificate(e.issuing, func(n *pki.Certificate) { n.Serial = o.Serial })
		wantFault(t, "RecordIssuance with a serial number that exists", e.RecordIssuance(ctx, issuance(same)), fault.Conflict, store.ErrSerialTaken)
		_, err := e.Certificate(ctx, same.Fingerprint)
		wantFault(t, "Certificate that was refused", err, fault.NotFound, nil)
	}
	twin := certificate(e.issuing, func(n *pki.Certificate) { n.Fingerprint = c.Fingerprint })
	err := e.RecordIssuance(ctx, issuance(twin))
	wantFault(t, "RecordIssuance with a fingerprint that exists", err, fault.Conflict, nil)
	if err != nil && strings.Contains(err.Error(), store.ErrSerialTaken.Error()) {
		t.Errorf("RecordIssuance with a fingerprint that exists says %v", err)
	}
	for name, bad := range map[string]pki.Certificate{
		"no such issuer": certificate(signer{1 << 40, e.issuing.key}),
		"no such key":    certificate(signer{e.issuing.issuer, 1 << 40}),
	} {
		err := e.RecordIssuance(ctx, issuance(bad))
		if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Conflict) {
			t.Errorf("RecordIssuance with %s: got %v error %v, want not_found or conflict", name, fault.KindOf(err), err)
		}
	}
	equal(t, "Head after refusals", e.head(), before)
	other := certificate(e.devices, func(n *pki.Certificate) { n.Serial = c.Serial })
	if err := e.RecordIssuance(ctx, issuance(other)); err != nil {
		t.Errorf("RecordIssuance with another issuer's serial number: %v", err)
	}
	for _, want := range []pki.Certificate{c, other} {
		got, err := e.CertificateBySerial(ctx, want.IssuerID, want.Serial)
		if err != nil {
			t.Errorf("CertificateBySerial: %v", err)
		}
		equal(t, "CertificateBySerial", got, want)
	}
	e.verifyChain()
}

func testStuckRandom(t *testing.T, h Harness) {
	e := open(t, h)
	stores := []store.Store{e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	serials := make([]pki.SerialNumber, 5)
	for i := range serials {
		serials[i] = certificate(e.issuing).Serial
	}
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		won = map[pki.SerialNumber][]pki.Certificate{}
	)
	for g := range 32 {
		wg.Go(func() {
			for i := range 15 {
				c := certificate(e.issuing, func(c *pki.Certificate) { c.Serial = serials[(g+i)%len(serials)] })
				err := stores[g%len(stores)].RecordIssuance(t.Context(), issuance(c))
				if err == nil {
					mu.Lock()
					won[c.Serial] = append(won[c.Serial], c)
					mu.Unlock()
					continue
				}
				wantFault(t, "RecordIssuance with a taken serial number", err, fault.Conflict, store.ErrSerialTaken)
			}
		})
	}
	wg.Wait()
	for _, s := range serials {
		if len(won[s]) != 1 {
			t.Errorf("%d certificates with the serial number %v were recorded, want 1", len(won[s]), s)
			continue
		}
		got, err := e.CertificateBySerial(t.Context(), e.issuing.issuer, s)
		if err != nil {
			t.Errorf("CertificateBySerial: %v", err)
		}
		equal(t, "the winner", got, won[s][0])
	}
	if n := len(e.list(store.CertificateFilter{IssuerIDs: []int64{e.issuing.issuer}}, 100)); n != len(serials)+1 { // and the CA that issuing signed
		t.Errorf("the issuer has %d certificates, want %d", n, len(serials)+1)
	}
	if head := e.head(); head.AuditSeq != int64(len(e.boot.Records)+len(serials)) {
		t.Errorf("there are %d audit records, want %d", head.AuditSeq, len(e.boot.Records)+len(serials))
	}
	e.verifyChain()
}

// testBadOperationInBatch has many operations wait together, some of which must fail.
func testBadOperationInBatch(t *testing.T, h Harness) {
	e := open(t, h)
	taken := e.issue(e.issuing)
	revoked := e.change(e.issue(e.issuing), pki.ActionRevoke, revocation(pki.Superseded, base))
	before := e.head()
	const n = 300
	errs := make([]error, n)
	certs := make([]pki.Certificate, n)
	var wg sync.WaitGroup
	for i := range n {
		certs[i] = certificate(e.issuing)
		switch i % 5 {
		case 1:
			certs[i].Serial = taken.Serial
		case 2:
			certs[i].Fingerprint = taken.Fingerprint
		case 4:
			certs[i].IssuerKeyID = 1 << 40
		}
		wg.Go(func() {
			if i%5 == 3 {
				_, errs[i] = e.ChangeStatus(t.Context(), change(revoked, pki.ActionHold, revocation(0, base)))
				return
			}
			errs[i] = e.RecordIssuance(t.Context(), issuance(certs[i]))
		})
	}
	wg.Wait()
	good := 0
	for i, err := range errs {
		switch i % 5 {
		case 0:
			good++
			if err != nil {
				t.Errorf("a good operation failed beside bad ones: %v", err)
				continue
			}
			if _, err := e.Certificate(t.Context(), certs[i].Fingerprint); err != nil {
				t.Errorf("Certificate: %v", err)
			}
		case 1:
			wantFault(t, "taken serial number", err, fault.Conflict, store.ErrSerialTaken)
		case 2:
			wantFault(t, "taken fingerprint", err, fault.Conflict, nil)
		case 3:
			wantFault(t, "hold of a revoked certificate", err, fault.AlreadyRevoked, nil)
		case 4:
			if err == nil {
				t.Error("a certificate of no issuer key was recorded")
			}
		}
	}
	if after := e.head(); after.AuditSeq != before.AuditSeq+int64(good) || after.StatusChange != before.StatusChange {
		t.Errorf("Head %+v became %+v, want %d records more", before, after, good)
	}
	e.verifyChain()
}

func testBlockedKeys(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	own, plain := certificate(e.issuing), e.issue(e.issuing)
	i := issuance(own)
	i.ReserveKey = true
	if err := e.RecordIssuance(ctx, i); err != nil {
		t.Fatalf("RecordIssuance: %v", err)
	}
	if head := e.head(); head.ConfigChange != head.Change {
		t.Errorf("Head after ReserveKey = %+v", head)
	}
	// The same key in another certificate of ours is no contradiction.
	i = issuance(certificate(e.issuing, func(c *pki.Certificate) { c.SPKIHash = own.SPKIHash }))
	i.ReserveKey = true
	if err := e.RecordIssuance(ctx, i); err != nil {
		t.Fatalf("RecordIssuance with a reserved key again: %v", err)
	}
	bad := e.issue(e.issuing)
	c := change(bad, pki.ActionRevoke, revocation(pki.KeyCompromise, base))
	c.BlockKey = true
	if _, err := e.ChangeStatus(ctx, c); err != nil {
		t.Fatalf("ChangeStatus: %v", err)
	}
	if head := e.head(); head.ConfigChange != head.Change || head.StatusChange != head.Change {
		t.Errorf("Head after BlockKey = %+v", head)
	}
	c = change(plain, pki.ActionRelease, pki.Revocation{})
	c.BlockKey = true
	_, err := e.ChangeStatus(ctx, c)
	wantFault(t, "release of a good certificate", err, fault.Conflict, nil)
	got, err := e.BlockedKeys(ctx)
	if err != nil {
		t.Fatalf("BlockedKeys: %v", err)
	}
	want := map[[32]byte]store.BlockedKey{own.SPKIHash: {Own: true}, bad.SPKIHash: {Compromised: true, At: base.Add(time.Hour), By: "token:test"}}
	for _, n := range e.boot.Issuers {
		want[n.Record.SPKIHash] = store.BlockedKey{Own: true}
	}
	equal(t, "BlockedKeys", got, want)
}

// order is the order of lists: newest first, then the higher serial number, then the higher issuer.
func order(a, b pki.Certificate) int {
	return cmp.Or(b.IssuedAt.Compare(a.IssuedAt), cmp.Compare(b.Serial, a.Serial), cmp.Compare(b.IssuerID, a.IssuerID))
}

func testListOrder(t *testing.T, h Harness) {
	e := open(t, h)
	want := e.list(store.CertificateFilter{}, 100)
	for i := range 60 {
		at := base.Add(time.Duration(i%3) * time.Hour)
		c := e.issue(e.issuing, func(c *pki.Certificate) { c.IssuedAt = at })
		want = append(want, withoutDER(c)...)
		if i%4 == 0 { // the same serial number and time under another issuer
			twin := e.issue(e.devices, func(n *pki.Certificate) { n.IssuedAt, n.Serial = at, c.Serial })
			want = append(want, withoutDER(twin)...)
		}
	}
	slices.SortFunc(want, order)
	for _, limit := range []int{1, 2, 7, 100} {
		equal(t, fmt.Sprintf("pages of %d", limit), e.list(store.CertificateFilter{}, limit), want)
	}
}

func testListWhileInserting(t *testing.T, h Harness) {
	e := open(t, h)
	for i := range 40 {
		e.issue(e.issuing, func(c *pki.Certificate) { c.IssuedAt = base.Add(time.Duration(i) * time.Hour) })
	}
	want := e.list(store.CertificateFilter{}, 100)
	var got []pki.Certificate
	late := map[pki.Fingerprint]bool{}
	p := store.Page{Limit: 6}
	for {
		page, next, err := e.ListCertificates(t.Context(), store.CertificateFilter{}, p)
		if err != nil {
			t.Fatalf("ListCertificates: %v", err)
		}
		for _, c := range page {
			if !late[c.Fingerprint] {
				got = append(got, c)
			}
		}
		if next == "" {
			break
		}
		p.Cursor = next
		// One comes in before the cursor, one behind it, one beside it.
		last := page[len(page)-1]
		for _, at := range []time.Time{base.Add(100 * time.Hour), base.Add(-100 * time.Hour), last.IssuedAt} {
			late[e.issue(e.issuing, func(c *pki.Certificate) { c.IssuedAt = at }).Fingerprint] = true
		}
		if len(late) > 300 {
			t.Fatal("the list does not end")
		}
	}
	equal(t, "the records that were there from the beginning", got, want)
}

var textParts = []string{"device", "DEVICE", "%", "_", "\\", "'", "\"", "ä", "Ä", "ß", "ДОМ", "дом", "東京", "İ", "ς", "Σ", "😀", "*", "^", "AND", "OR", "NEAR(", "a b", "-", ":", "x"}

func naiveMatch(f store.CertificateFilter, c pki.Certificate) bool {
	status := pki.Good
	if c.Revocation != nil {
		status = c.Revocation.Status
	}
	switch {
	case len(f.IssuerIDs) > 0 && !slices.Contains(f.IssuerIDs, c.IssuerID),
		len(f.Profiles) > 0 && !slices.Contains(f.Profiles, c.Profile),
		len(f.Status) > 0 && !slices.Contains(f.Status, status),
		!naiveText(c, f.Text),
		f.Serial != "" && f.Serial != c.Serial,
		f.Fingerprint != nil && *f.Fingerprint != c.Fingerprint,
		status == pki.Good && !f.GoodFrom.IsZero() && c.NotAfter.Before(f.GoodFrom),
		status == pki.Good && !f.GoodTo.IsZero() && !c.NotAfter.Before(f.GoodTo),
		f.SPKIHash != nil && *f.SPKIHash != c.SPKIHash,
		f.Requester != "" && f.Requester != c.Requester,
		f.Protocol != "" && f.Protocol != c.Protocol,
		f.Device != "" && f.Device != c.Device,
		!f.NotAfterFrom.IsZero() && c.NotAfter.Before(f.NotAfterFrom),
		!f.NotAfterTo.IsZero() && !c.NotAfter.Before(f.NotAfterTo),
		!f.IssuedFrom.IsZero() && c.IssuedAt.Before(f.IssuedFrom),
		!f.IssuedTo.IsZero() && !c.IssuedAt.Before(f.IssuedTo):
		return false
	}
	return true
}

func testListFilters(t *testing.T, h Harness) {
	e := open(t, h)
	all := e.list(store.CertificateFilter{}, 100)
	pick := func(i int, of ...string) string { return of[i%len(of)] }
	for i := range 240 {
		// Text is put together so that every part occurs, in many combinations.
		text := textParts[i%len(textParts)] + textParts[(i*7+3)%len(textParts)] + textParts[(i*11+5)%len(textParts)]
		by := e.issuing
		if i%3 == 0 {
			by = e.devices
		}
		c := e.issue(by, func(c *pki.Certificate) {
			c.Subject = "CN=" + text
			c.SANs = []string{"DNS:" + pick(i, "a.example", "B.example", "ü.example"), "URI:" + textParts[(i*5+1)%len(textParts)]}[:i%3]
			c.Profile, c.Protocol = pick(i, "device", "server", "client%"), pick(i/2, "rest", "scep")
			c.Requester, c.Device = pick(i/3, "token:a", "token:b"), pick(i/5, "", "dev-1", "dev-2", "Dev-2")
			c.NotAfter = base.Truncate(time.Second).AddDate(0, 0, i%17)
			c.IssuedAt = base.Add(time.Duration(i%23) * time.Second)
			c.SPKIHash = sha256.Sum256([]byte{byte(i % 50)})
			c.Serial, _ = pki.NewSerialNumber(rand.Reader, c.NotAfter, c.IssuedAt)
		})
		switch i % 6 {
		case 1:
			c = e.change(c, pki.ActionRevoke, revocation(pki.Superseded, base))
		case 2:
			c = e.change(c, pki.ActionHold, revocation(0, base))
		}
		all = append(all, withoutDER(c)...)
	}
	slices.SortFunc(all, order)

	check := func(t *rapid.T, f store.CertificateFilter) {
		var want []pki.Certificate
		for _, c := range all {
			if naiveMatch(f, c) {
				want = append(want, c)
			}
		}
		limit := rapid.SampledFrom([]int{1000, 1000, 60}).Draw(t, "limit")
		var got []pki.Certificate
		p := store.Page{Limit: limit}
		for {
			page, next, err := e.ListCertificates(e.t.Context(), f, p)
			if err != nil {
				t.Fatalf("ListCertificates(%+v): %v", f, err)
			}
			got = append(got, page...)
			if next == "" {
				break
			}
			p.Cursor = next
		}
		if !slices.EqualFunc(got, want, func(a, b pki.Certificate) bool { return a.Fingerprint == b.Fingerprint }) {
			t.Fatalf("ListCertificates(%+v) returned %d records, want %d", f, len(got), len(want))
		}
		bound := rapid.IntRange(1, 300).Draw(t, "bound")
		n, err := e.CountCertificates(e.t.Context(), f, bound)
		if err != nil || n != min(bound, len(want)) {
			t.Fatalf("CountCertificates(%+v, %d) = %d, %v; want %d", f, bound, n, err, min(bound, len(want)))
		}
	}
	some := rapid.Custom(func(t *rapid.T) pki.Certificate { return all[rapid.IntRange(0, len(all)-1).Draw(t, "record")] })
	const textField = 3
	fields := []func(*rapid.T, *store.CertificateFilter){
		func(t *rapid.T, f *store.CertificateFilter) {
			f.IssuerIDs = rapid.SliceOfN(rapid.SampledFrom([]int64{e.root.issuer, e.issuing.issuer, e.devices.issuer, 1 << 40}), 1, 3).Draw(t, "issuers")
		},
		func(t *rapid.T, f *store.CertificateFilter) {
			f.Profiles = rapid.SliceOfN(rapid.SampledFrom([]string{"device", "server", "client%", "none"}), 1, 3).Draw(t, "profiles")
		},
		func(t *rapid.T, f *store.CertificateFilter) {
			f.Status = rapid.SliceOfN(rapid.SampledFrom([]pki.Status{pki.Good, pki.Revoked, pki.OnHold}), 1, 3).Draw(t, "status")
		},
		func(t *rapid.T, f *store.CertificateFilter) {
			if rapid.Bool().Draw(t, "made up") {
				f.Text = strings.Join(rapid.SliceOfN(rapid.SampledFrom(textParts), 1, 3).Draw(t, "parts"), "")
			} else {
				c := some.Draw(t, "of")
				text := []rune(strings.Join(append([]string{c.Subject}, c.SANs[:min(len(c.SANs), 1)]...), "")) // the seam matches nothing
				from := rapid.IntRange(0, len(text)-1).Draw(t, "from")
				f.Text = string(text[from:min(len(text), from+rapid.IntRange(1, 8).Draw(t, "length"))])
			}
			switch rapid.IntRange(0, 2).Draw(t, "case") {
			case 1:
				f.Text = strings.ToUpper(f.Text)
			case 2:
				f.Text = strings.ToLower(f.Text)
			}
		},
		func(t *rapid.T, f *store.CertificateFilter) { f.Serial = some.Draw(t, "serial of").Serial },
		func(t *rapid.T, f *store.CertificateFilter) {
			spki := some.Draw(t, "spki of").SPKIHash
			f.SPKIHash = &spki
		},
		func(t *rapid.T, f *store.CertificateFilter) {
			f.Requester = rapid.SampledFrom([]string{"token:a", "token:b", "token:%"}).Draw(t, "requester")
		},
		func(t *rapid.T, f *store.CertificateFilter) {
			f.Protocol = rapid.SampledFrom([]string{"rest", "scep", "REST"}).Draw(t, "protocol")
		},
		func(t *rapid.T, f *store.CertificateFilter) {
			f.Device = rapid.SampledFrom([]string{"dev-1", "dev-2", "Dev-2", "dev"}).Draw(t, "device")
		},
		func(t *rapid.T, f *store.CertificateFilter) { f.NotAfterFrom = some.Draw(t, "from").NotAfter },
		func(t *rapid.T, f *store.CertificateFilter) { f.NotAfterTo = some.Draw(t, "to").NotAfter },
		func(t *rapid.T, f *store.CertificateFilter) { f.IssuedFrom = some.Draw(t, "issued from").IssuedAt },
		func(t *rapid.T, f *store.CertificateFilter) { f.IssuedTo = some.Draw(t, "issued to").IssuedAt },
		func(t *rapid.T, f *store.CertificateFilter) {
			fingerprint := some.Draw(t, "fingerprint of").Fingerprint
			f.Fingerprint = &fingerprint
		},
		func(t *rapid.T, f *store.CertificateFilter) { f.GoodFrom = some.Draw(t, "good from").NotAfter },
		func(t *rapid.T, f *store.CertificateFilter) { f.GoodTo = some.Draw(t, "good to").NotAfter },
	}
	rapidRun(t, "one field", func(t *rapid.T) {
		var f store.CertificateFilter
		rapid.SampledFrom(fields).Draw(t, "field")(t, &f)
		check(t, f)
	})
	rapidRun(t, "text", func(t *rapid.T) {
		var f store.CertificateFilter
		fields[textField](t, &f)
		check(t, f)
	})
	rapidRun(t, "combinations", func(t *rapid.T) {
		var f store.CertificateFilter
		for i, field := range fields {
			if rapid.IntRange(0, 3).Draw(t, fmt.Sprint("field ", i)) == 0 {
				field(t, &f)
			}
		}
		check(t, f)
	})
}

func rapidRun(t *testing.T, name string, f func(*rapid.T)) {
	t.Run(name, func(t *testing.T) { rapid.Check(t, f) })
}

func testListLimits(t *testing.T, h Harness) {
	e := open(t, h)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 70 {
				if err := e.RecordIssuance(t.Context(), issuance(certificate(e.issuing))); err != nil {
					t.Errorf("RecordIssuance: %v", err)
				}
			}
		})
	}
	wg.Wait()
	total := 16*70 + len(e.boot.Issuers)
	for limit, want := range map[int]int{0: 100, 1: 1, 1000: 1000, 1001: 1000, 1 << 30: 1000} {
		page, next, err := e.ListCertificates(t.Context(), store.CertificateFilter{}, store.Page{Limit: limit})
		if err != nil || len(page) != want || next == "" {
			t.Errorf("a page with the limit %d has %d records and the cursor %q, %v; want %d", limit, len(page), next, err, want)
		}
		events, next, err := e.AuditEvents(t.Context(), store.AuditFilter{}, store.Page{Limit: limit})
		if err != nil || len(events) != want || next == "" {
			t.Errorf("a page with the limit %d has %d events and the cursor %q, %v; want %d", limit, len(events), next, err, want)
		}
	}
	for _, limit := range []int{1, 100, total - 1, total, total + 1, 1 << 30} {
		n, err := e.CountCertificates(t.Context(), store.CertificateFilter{}, limit)
		if err != nil || n != min(limit, total) {
			t.Errorf("CountCertificates up to %d = %d, %v; want %d", limit, n, err, min(limit, total))
		}
	}
	if got := e.list(store.CertificateFilter{}, 1000); len(got) != total {
		t.Errorf("all pages have %d records, want %d", len(got), total)
	}
	if got := e.list(store.CertificateFilter{}, total/2+total%2); len(got) != total {
		t.Errorf("two full pages have %d records, want %d", len(got), total)
	}
}

func testCursors(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	_, certificates, err := e.ListCertificates(ctx, store.CertificateFilter{}, store.Page{Limit: 1})
	if err != nil || certificates == "" {
		t.Fatalf("ListCertificates: %q, %v", certificates, err)
	}
	_, events, err := e.AuditEvents(ctx, store.AuditFilter{}, store.Page{Limit: 1})
	if err != nil || events == "" {
		t.Fatalf("AuditEvents: %q, %v", events, err)
	}
	madeUp := []string{"x", "!", "0", "-1", "' OR 1=1 --", "bm90IGEgY3Vyc29y", "\x00", "ü", strings.Repeat("A", 10000), certificates + "A", " " + certificates, events + "!"}
	for _, c := range append(madeUp, events) {
		_, _, err := e.ListCertificates(ctx, store.CertificateFilter{}, store.Page{Cursor: c})
		wantFault(t, fmt.Sprintf("ListCertificates with the cursor %.40q", c), err, fault.BadRequest, nil)
	}
	for _, c := range append(madeUp, certificates) {
		_, _, err := e.AuditEvents(ctx, store.AuditFilter{}, store.Page{Cursor: c})
		wantFault(t, fmt.Sprintf("AuditEvents with the cursor %.40q", c), err, fault.BadRequest, nil)
	}
}
