package storetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// challenge returns an open challenge.
func challenge(edit ...func(*pki.Challenge)) pki.Challenge {
	c := pki.Challenge{
		ID: fmt.Sprintf("CH%08d", counter.Add(1)), Hash: [32]byte(randomBytes(32)), Point: "default", CreatedAt: base, CreatedBy: "token:test",
		ExpiresAt: base.Add(24 * time.Hour),
	}
	for _, f := range edit {
		f(&c)
	}
	return c
}

func (e *env) challenge(edit ...func(*pki.Challenge)) pki.Challenge {
	e.t.Helper()
	c := challenge(edit...)
	if err := e.CreateChallenges(e.t.Context(), []pki.Challenge{c}, record("challenge.create", base)); err != nil {
		e.t.Fatalf("CreateChallenges: %v", err)
	}
	return c
}

// enrollment returns the first row of a new key.
func enrollment(edit ...func(*pki.Enrollment)) pki.Enrollment {
	n := counter.Add(1)
	e := pki.Enrollment{
		Point: "default", TransactionID: fmt.Sprint("tx", n), SPKIHash: [32]byte(randomBytes(32)), Version: 1, State: pki.EnrollmentPending,
		ID: fmt.Sprintf("EN%08d", n), CSRHash: [32]byte(randomBytes(32)), SignerHash: [32]byte(randomBytes(32)),
		CreatedAt: base, UpdatedAt: base, ExpiresAt: base.Add(24 * time.Hour),
	}
	for _, f := range edit {
		f(&e)
	}
	return e
}

func (e *env) wantEnrollment(what string, want pki.Enrollment) {
	e.t.Helper()
	got, err := e.Enrollment(e.t.Context(), want.Point, want.TransactionID, want.SPKIHash)
	if err != nil {
		e.t.Fatalf("%s: %v", what, err)
	}
	equal(e.t, what, got, want)
}

func testPoints(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	put := func(name string, version int, secret []byte) error {
		var webhook []byte // nil with it
		if secret != nil {
			webhook = bytes.ToUpper(secret)
		}
		return e.PutPoint(ctx, store.PointChange{
			Point:  pki.PointVersion{Name: name, Version: version, Config: fmt.Appendf(nil, `{"v": %d}`, version), CreatedAt: base, CreatedBy: "test"},
			Secret: secret, WebhookSecret: webhook, Record: record("point.put", base),
		})
	}
	wantFault(t, "version 2 of nothing", put("default", 2, nil), fault.Conflict, store.ErrStale)
	for _, p := range []struct {
		name    string
		version int
		secret  []byte
		want    string
	}{
		{"default", 1, nil, ""},
		{"default", 2, []byte("sealed"), "sealed"},
		{"default", 3, nil, "sealed"},
		{"another", 1, []byte("other"), "other"},
		{"another", 2, []byte{}, ""},
	} {
		before := e.head()
		if err := put(p.name, p.version, p.secret); err != nil {
			t.Fatalf("PutPoint %s %d: %v", p.name, p.version, err)
		}
		if after := e.head(); after.Change != before.Change+1 || after.ConfigChange != after.Change {
			t.Errorf("Head after PutPoint = %+v, before it %+v", after, before)
		}
		got, err := e.Secret(ctx, pki.SecretPoint(p.name))
		if p.want == "" {
			wantFault(t, "secret of "+p.name, err, fault.NotFound, nil)
		} else if err != nil || string(got) != p.want {
			t.Errorf("secret of %s after version %d = %q, %v; want %q", p.name, p.version, got, err, p.want)
		}
		got, err = e.Secret(ctx, pki.SecretWebhook(p.name))
		if p.want == "" {
			wantFault(t, "webhook secret of "+p.name, err, fault.NotFound, nil)
		} else if err != nil || string(got) != strings.ToUpper(p.want) {
			t.Errorf("webhook secret of %s after version %d = %q, %v; want %q in capitals", p.name, p.version, got, err, p.want)
		}
	}
	history, err := e.PointHistory(ctx, "another")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "PointHistory", history, []pki.PointVersion{
		{Name: "another", Version: 2, Config: []byte(`{"v": 2}`), CreatedAt: base, CreatedBy: "test"},
		{Name: "another", Version: 1, Config: []byte(`{"v": 1}`), CreatedAt: base, CreatedBy: "test"},
	})
	_, err = e.PointHistory(ctx, "none")
	wantFault(t, "the history of no point", err, fault.NotFound, nil)
	wantFault(t, "version 3 again", put("default", 3, nil), fault.Conflict, store.ErrStale)
	all, err := e.AllPoints(ctx)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "AllPoints", all, []pki.PointVersion{
		{Name: "another", Version: 2, Config: []byte(`{"v": 2}`), CreatedAt: base, CreatedBy: "test"},
		{Name: "default", Version: 3, Config: []byte(`{"v": 3}`), CreatedAt: base, CreatedBy: "test"},
	})
	e.verifyChain()
}

func testChallenges(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	_, err := e.Challenge(ctx, "none")
	wantFault(t, "a challenge that is not there", err, fault.NotFound, nil)
	var all []pki.Challenge
	for i := range 7 {
		all = append(all, challenge(func(c *pki.Challenge) {
			c.CreatedAt = base.Add(time.Duration(i/2) * time.Second)
			if i == 3 {
				c.Subject, c.SANs, c.Device, c.Profile, c.Note = "CN=ü", []string{"DNS:a.example.com", `URI:"{,}`}, "d1", "device", "for Ü"
			}
			if i == 5 || i == 6 {
				c.Batch = "b1"
			}
			if i == 4 {
				c.Point, c.ExpiresAt = "other", base.Add(-time.Hour)
			}
		}))
	}
	if err := e.CreateChallenges(ctx, all, record("challenge.create", base)); err != nil {
		t.Fatalf("CreateChallenges: %v", err)
	}
	again := []pki.Challenge{challenge(), all[2]}
	wantFault(t, "an id that exists", e.CreateChallenges(ctx, again, record("challenge.create", base)), fault.Conflict, nil)
	_, err = e.Challenge(ctx, again[0].ID)
	wantFault(t, "all or none", err, fault.NotFound, nil)
	got, err := e.Challenge(ctx, all[3].ID)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "Challenge", got, all[3])

	list := func(f store.ChallengeFilter) (cs []pki.Challenge) {
		cursor := ""
		for {
			page, next, err := e.ListChallenges(ctx, f, store.Page{Limit: 2, Cursor: cursor})
			if err != nil {
				t.Fatal(err)
			}
			cs = append(cs, page...)
			if cursor = next; next == "" {
				return cs
			}
		}
	}
	want := slices.Clone(all)
	slices.Reverse(want) // ids and times both grow
	equal(t, "ListChallenges", list(store.ChallengeFilter{}), want)
	equal(t, "of a device", list(store.ChallengeFilter{Device: "d1"}), []pki.Challenge{all[3]})
	equal(t, "of a batch", list(store.ChallengeFilter{Batch: "b1"}), want[:2])
	equal(t, "of a point", list(store.ChallengeFilter{Point: "other"}), []pki.Challenge{all[4]})
	_, _, err = e.ListChallenges(ctx, store.ChallengeFilter{}, store.Page{Cursor: "nonsense"})
	wantFault(t, "a made-up cursor", err, fault.BadRequest, nil)

	if err := e.RevokeChallenge(ctx, all[0].ID, base.Add(time.Minute), record("challenge.revoke", base)); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "revoked twice", e.RevokeChallenge(ctx, all[0].ID, base, record("challenge.revoke", base)), fault.Conflict, nil)
	wantFault(t, "none revoked", e.RevokeChallenge(ctx, "none", base, record("challenge.revoke", base)), fault.NotFound, nil)
	if err := e.FailChallenge(ctx, all[1].ID, record("challenge.fail", base)); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "none failed", e.FailChallenge(ctx, "none", record("challenge.fail", base)), fault.NotFound, nil)
	if c, err := e.Challenge(ctx, all[1].ID); err != nil || c.Failures != 1 {
		t.Errorf("after a failure: %+v, %v", c, err)
	}
	if open := list(store.ChallengeFilter{OpenAt: base}); len(open) != 5 {
		t.Errorf("%d challenges are open, want 5: without the revoked and the ended one", len(open))
	}
	revoke := func(f store.ChallengeFilter, want int) {
		t.Helper()
		n, err := e.RevokeChallenges(ctx, f, base.Add(time.Hour), record("challenge.revoke", base))
		if err != nil || n != want {
			t.Errorf("RevokeChallenges(%+v) = %d, %v; want %d", f, n, err, want)
		}
		records, _, err := e.AuditEvents(ctx, store.AuditFilter{}, store.Page{Limit: 1})
		if err != nil || len(records) != 1 || !strings.Contains(string(records[0].Bytes), fmt.Sprintf(`"challenges":"%d"`, want)) {
			t.Errorf("audited as %+v, %v; want %d challenges", records, err, want)
		}
	}
	revoke(store.ChallengeFilter{Batch: "none"}, 0)
	revoke(store.ChallengeFilter{Batch: "b1", Point: "other"}, 0)
	revoke(store.ChallengeFilter{Batch: "b1"}, 2)
	revoke(store.ChallengeFilter{Device: "d1", Point: "default"}, 1)
	revoke(store.ChallengeFilter{Point: "other", OpenAt: base}, 0)
	revoke(store.ChallengeFilter{}, 3)
	if c, err := e.Challenge(ctx, all[0].ID); err != nil || !c.RevokedAt.Equal(base.Add(time.Minute)) {
		t.Errorf("what was revoked before was revoked again: %+v, %v", c, err)
	}
	if open := list(store.ChallengeFilter{OpenAt: base}); len(open) != 0 {
		t.Errorf("open after all were revoked: %+v", open)
	}
	e.verifyChain()
}

func testEnrollments(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	put := func(r pki.Enrollment, use bool, request []byte) error {
		return e.PutEnrollment(ctx, store.EnrollmentChange{Enrollment: r, UseChallenge: use, Request: request, Record: record("enrollment.pending", base)})
	}
	_, err := e.Enrollment(ctx, "default", "tx", [32]byte{})
	wantFault(t, "an enrollment that is not there", err, fault.NotFound, nil)
	_, err = e.EnrollmentByID(ctx, "")
	wantFault(t, "no id", err, fault.NotFound, nil)

	c := e.challenge()
	r := enrollment(func(r *pki.Enrollment) {
		r.Challenge, r.Subject, r.SANs, r.Profile, r.Device, r.Source, r.Reason = c.ID, "CN=d", []string{"DNS:d"}, "device", "d", "192.0.2.1", "approval"
	})
	if err := put(r, true, []byte("sealed request")); err != nil {
		t.Fatal(err)
	}
	e.wantEnrollment("a request that waits", r)
	if got, err := e.EnrollmentByID(ctx, r.ID); err != nil {
		t.Error(err)
	} else {
		equal(t, "EnrollmentByID", got, r)
	}
	if s, err := e.Secret(ctx, pki.SecretEnrollment(r.ID)); err != nil || string(s) != "sealed request" {
		t.Errorf("Secret = %q, %v", s, err)
	}
	if got, err := e.Challenge(ctx, c.ID); err != nil || !got.UsedAt.Equal(base) || got.UsedBy != (pki.Fingerprint{}) {
		t.Errorf("the challenge of a request that waits: %+v, %v", got, err)
	}
	wantFault(t, "a used challenge revoked", e.RevokeChallenge(ctx, c.ID, base, record("challenge.revoke", base)), fault.Conflict, nil)
	newer := enrollment(func(n *pki.Enrollment) {
		n.TransactionID, n.SignerHash, n.UpdatedAt = r.TransactionID, r.SignerHash, base.Add(time.Second)
	})
	if err := put(newer, false, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := e.EnrollmentBySigner(ctx, r.Point, r.TransactionID, r.SignerHash); err != nil || got.ID != newer.ID {
		t.Errorf("EnrollmentBySigner = %+v, %v; want the newer of two", got, err)
	}
	if n, err := e.PruneEnrollments(ctx, base.Add(-time.Second), 10); err != nil || n != 0 {
		t.Errorf("PruneEnrollments of nothing = %d, %v", n, err)
	}
	_, err = e.EnrollmentBySigner(ctx, r.Point, r.TransactionID, r.SPKIHash)
	wantFault(t, "another signer", err, fault.NotFound, nil)
	first := e.issue(e.issuing)
	_, err = e.Successor(ctx, first.Fingerprint)
	wantFault(t, "a certificate that was not renewed", err, fault.NotFound, nil)
	e.issue(e.issuing, func(c *pki.Certificate) { c.Replaces = first.Fingerprint })
	second := e.issue(e.issuing, func(c *pki.Certificate) { c.Replaces, c.IssuedAt = first.Fingerprint, base.Add(time.Hour) })
	if got, err := e.Successor(ctx, first.Fingerprint); err != nil || got.Fingerprint != second.Fingerprint {
		t.Errorf("Successor = %v, %v; want %v", got.Fingerprint, err, second.Fingerprint)
	}
	wantFault(t, "version 1 again", put(r, false, nil), fault.Conflict, store.ErrStale)
	late := r
	late.Version = 3
	wantFault(t, "version 3 after 1", put(late, false, nil), fault.Conflict, store.ErrStale)
	absent := enrollment(func(r *pki.Enrollment) { r.Version = 2 })
	wantFault(t, "version 2 of nothing", put(absent, false, nil), fault.Conflict, store.ErrStale)
	other := enrollment(func(r *pki.Enrollment) { r.Challenge = c.ID })
	wantFault(t, "a used challenge", put(other, true, nil), fault.Conflict, store.ErrChallengeUsed)
	_, err = e.Enrollment(ctx, other.Point, other.TransactionID, other.SPKIHash)
	wantFault(t, "an enrollment with a used challenge", err, fault.NotFound, nil)

	// The certificate comes with the row's next version, and is named by the challenge.
	cert := certificate(e.issuing)
	issued := r
	issued.Version, issued.State, issued.Issued, issued.DecidedBy, issued.UpdatedAt = 2, pki.EnrollmentIssued, cert.Fingerprint, "token:test", base.Add(time.Minute)
	i := issuance(cert)
	i.Enrollment = &store.EnrollmentChange{Enrollment: issued}
	if err := e.RecordIssuance(ctx, i); err != nil {
		t.Fatalf("RecordIssuance: %v", err)
	}
	e.wantEnrollment("issued", issued)
	if got, err := e.Challenge(ctx, c.ID); err != nil || got.UsedBy != cert.Fingerprint || !got.UsedAt.Equal(base) {
		t.Errorf("the challenge after issuing: %+v, %v", got, err)
	}

	// What comes too late leaves no certificate.
	stale := certificate(e.issuing)
	i = issuance(stale)
	i.Enrollment = &store.EnrollmentChange{Enrollment: issued}
	wantFault(t, "issued on an old version", e.RecordIssuance(ctx, i), fault.Conflict, store.ErrStale)
	for name, id := range map[string]string{
		"used":    c.ID,
		"ended":   e.challenge(func(c *pki.Challenge) { c.ExpiresAt = base }).ID,
		"revoked": e.challenge(func(c *pki.Challenge) { c.RevokedAt = base }).ID,
		"none":    "none",
	} {
		i.Enrollment = &store.EnrollmentChange{UseChallenge: true, Enrollment: enrollment(func(r *pki.Enrollment) {
			r.ID, r.State, r.Challenge, r.Issued = "", pki.EnrollmentIssued, id, stale.Fingerprint
		})}
		wantFault(t, "a challenge that is "+name, e.RecordIssuance(ctx, i), fault.Conflict, store.ErrChallengeUsed)
		_, err = e.Enrollment(ctx, "default", i.Enrollment.Enrollment.TransactionID, i.Enrollment.Enrollment.SPKIHash)
		wantFault(t, "an enrollment with a challenge that is "+name, err, fault.NotFound, nil)
	}
	_, err = e.Certificate(ctx, stale.Fingerprint)
	wantFault(t, "a certificate that came too late", err, fault.NotFound, nil)

	// Lists hold what has an id.
	denied := enrollment(func(r *pki.Enrollment) {
		r.State, r.CreatedAt, r.Point, r.Device, r.ExpiresAt = pki.EnrollmentDenied, base.Add(time.Second), "other", "wanted", base.Add(time.Hour)
	})
	direct := enrollment(func(r *pki.Enrollment) { r.ID, r.State, r.ExpiresAt = "", pki.EnrollmentIssued, base.Add(time.Hour) })
	for _, r := range []pki.Enrollment{denied, direct} {
		if err := put(r, false, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	list := func(f store.EnrollmentFilter) (all []pki.Enrollment) {
		cursor := ""
		for {
			page, next, err := e.ListEnrollments(ctx, f, store.Page{Limit: 1, Cursor: cursor})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page...)
			if cursor = next; next == "" {
				return all
			}
		}
	}
	equal(t, "ListEnrollments", list(store.EnrollmentFilter{}), []pki.Enrollment{denied, newer, issued})
	equal(t, "of a state", list(store.EnrollmentFilter{States: []pki.EnrollmentState{pki.EnrollmentDenied}}), []pki.Enrollment{denied})
	equal(t, "of a point", list(store.EnrollmentFilter{Point: "default"}), []pki.Enrollment{newer, issued})
	equal(t, "what is open", list(store.EnrollmentFilter{OpenAt: denied.ExpiresAt}), []pki.Enrollment{newer, issued})
	equal(t, "what was open just before", list(store.EnrollmentFilter{OpenAt: denied.ExpiresAt.Add(-time.Microsecond)}), []pki.Enrollment{denied, newer, issued})
	equal(t, "what is over", list(store.EnrollmentFilter{OverAt: denied.ExpiresAt}), []pki.Enrollment{denied})
	equal(t, "of a device", list(store.EnrollmentFilter{Device: "wanted"}), []pki.Enrollment{denied})

	before := e.head()
	if n, err := e.PruneEnrollments(ctx, base.Add(2*time.Hour), 1); err != nil || n != 1 {
		t.Errorf("PruneEnrollments = %d, %v; want 1", n, err)
	}
	if n, err := e.PruneEnrollments(ctx, base.Add(2*time.Hour), 10); err != nil || n != 1 {
		t.Errorf("PruneEnrollments = %d, %v; want 1", n, err)
	}
	equal(t, "Head after forgetting", e.head(), before)
	e.wantEnrollment("what has not ended", issued)
	_, err = e.Secret(ctx, pki.SecretEnrollment(denied.ID))
	wantFault(t, "the secret of what was forgotten", err, fault.NotFound, nil)

	// What nobody decided on is kept: until somebody has noted that, and a while longer.
	waits := enrollment(func(r *pki.Enrollment) { r.ExpiresAt = base.Add(time.Hour) })
	if err := put(waits, false, []byte("x")); err != nil {
		t.Fatal(err)
	}
	forget := func(what string, before time.Time, want int) {
		t.Helper()
		if n, err := e.PruneEnrollments(ctx, before, 10); err != nil || n != want {
			t.Errorf("%s: PruneEnrollments = %d, %v; want %d", what, n, err, want)
		}
	}
	forget("what was issued, and not what waits", base.Add(10*24*time.Hour), 1)
	over := waits
	over.Version, over.State = 2, pki.EnrollmentExpired
	if err := put(over, false, nil); err != nil {
		t.Fatal(err)
	}
	e.wantEnrollment("what nobody decided on", over)
	forget("what nobody decided on", waits.ExpiresAt.Add(store.KeepExpired), 0)
	equal(t, "what is over", list(store.EnrollmentFilter{
		States: []pki.EnrollmentState{pki.EnrollmentPending, pki.EnrollmentExpired}, OverAt: waits.ExpiresAt,
	}), []pki.Enrollment{over})
	forget("what nobody decided on long ago", waits.ExpiresAt.Add(store.KeepExpired+time.Second), 1)

	// A request that takes the place of another one leaves no secret behind.
	place := enrollment()
	if err := put(place, false, []byte("first")); err != nil {
		t.Fatal(err)
	}
	another := place
	another.Version, another.ID = 2, enrollment().ID
	if err := put(another, false, []byte("second")); err != nil {
		t.Fatal(err)
	}
	_, err = e.Secret(ctx, pki.SecretEnrollment(place.ID))
	wantFault(t, "the secret of a request that was replaced", err, fault.NotFound, nil)
	another.Version, another.State = 3, pki.EnrollmentDenied
	if err := put(another, false, nil); err != nil {
		t.Fatal(err)
	}
	if s, err := e.Secret(ctx, pki.SecretEnrollment(another.ID)); err != nil || string(s) != "second" {
		t.Errorf("the secret of a request that was denied: %q, %v", s, err)
	}
	e.verifyChain()
}

// testChallengeRace: a challenge that is used on all sides at once gives one certificate, and so does a request that is
// repeated before its answer.
func testChallengeRace(t *testing.T, h Harness) {
	e := open(t, h)
	stores := []store.Store{e.Store, e.Store}
	if h.Second != nil {
		stores = append(stores, h.Second(t, e.Store))
	}
	const rounds = 8
	for range rounds {
		c := e.challenge()
		repeated := enrollment(func(r *pki.Enrollment) { r.ID, r.State = "", pki.EnrollmentIssued })
		var mu sync.Mutex
		var used, same int
		var wg sync.WaitGroup
		for i := range 12 {
			s := stores[i%len(stores)]
			wg.Go(func() {
				cert := certificate(e.issuing)
				r, use := repeated, false
				if i%2 == 0 {
					r, use = enrollment(func(r *pki.Enrollment) { r.ID, r.State, r.Challenge = "", pki.EnrollmentIssued, c.ID }), true
				}
				r.Issued = cert.Fingerprint
				i := issuance(cert)
				i.Enrollment = &store.EnrollmentChange{Enrollment: r, UseChallenge: use}
				err := s.RecordIssuance(t.Context(), i)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && use:
					used++
				case err == nil:
					same++
				case use:
					wantFault(t, "a challenge that somebody else has used", err, fault.Conflict, store.ErrChallengeUsed)
				default:
					wantFault(t, "a request that was answered", err, fault.Conflict, store.ErrStale)
				}
			})
		}
		wg.Wait()
		if used != 1 || same != 1 {
			t.Errorf("%d certificates for one challenge and %d for one request, want 1 and 1", used, same)
		}
	}
	if n := len(e.list(store.CertificateFilter{Profiles: []string{certificate(e.issuing).Profile}}, 1000)); n < 2*rounds {
		t.Errorf("%d certificates, want %d at least", n, 2*rounds)
	}
	e.verifyChain()
}

func testRACertificates(t *testing.T, h Harness) {
	e, ctx := open(t, h), t.Context()
	put := func(issuer int64, number int, keyID string, key []byte, drop ...string) error {
		return e.PutRACertificate(ctx, store.RAChange{
			Certificate: pki.RACertificate{IssuerID: issuer, Number: number, KeyID: keyID, Fingerprint: pki.Fingerprint(randomBytes(32)), DER: []byte("der"), CreatedAt: base},
			Key:         key, Drop: drop, Record: record("ra.put", base),
		})
	}
	wantFault(t, "number 2 first", put(e.issuing.issuer, 2, "a", []byte("A")), fault.Conflict, store.ErrStale)
	for i, err := range []error{
		put(e.issuing.issuer, 1, "a", []byte("A")), put(e.issuing.issuer, 2, "a", nil), put(e.devices.issuer, 1, "b", []byte("B")), put(e.issuing.issuer, 3, "c", []byte("C"), "a"),
	} {
		if err != nil {
			t.Errorf("PutRACertificate, the %d. time: %v", i+1, err)
		}
	}
	wantFault(t, "number 3 again", put(e.issuing.issuer, 3, "d", []byte("D")), fault.Conflict, store.ErrStale)
	wantFault(t, "no such issuer", put(1<<40, 1, "d", []byte("D")), fault.Conflict, nil)
	all, err := e.AllRACertificates(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range all {
		got = append(got, fmt.Sprintf("%v %d %s %s %v", c.IssuerID == e.issuing.issuer, c.Number, c.KeyID, c.DER, c.CreatedAt.Equal(base)))
	}
	slices.Sort(got)
	equal(t, "AllRACertificates", got, []string{"false 1 b der true", "true 1 a der true", "true 2 a der true", "true 3 c der true"})
	secrets, err := e.AllSecrets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "AllSecrets", secrets, map[string][]byte{"ra/b": []byte("B"), "ra/c": []byte("C")})

	// A new key-encryption key takes all of them along, or none.
	keys := map[int64][]byte{e.root.key: []byte("r"), e.issuing.key: []byte("i"), e.devices.key: []byte("d")}
	for name, bad := range map[string]map[string][]byte{
		"one is missing": {"ra/b": []byte("2")}, "a strange one": {"ra/b": []byte("2"), "ra/x": []byte("3")}, "none": nil,
	} {
		err := e.ReplaceSealedKeys(ctx, e.boot.KEKInfo, []byte("new"), store.Sealed{Keys: keys, Secrets: bad}, record("key.rewrap", base))
		wantFault(t, name, err, fault.Conflict, store.ErrStale)
	}
	want := map[string][]byte{"ra/b": []byte("B2"), "ra/c": []byte("C2")}
	if err := e.ReplaceSealedKeys(ctx, e.boot.KEKInfo, []byte("new"), store.Sealed{Keys: keys, Secrets: want}, record("key.rewrap", base)); err != nil {
		t.Fatal(err)
	}
	if secrets, err = e.AllSecrets(ctx); err != nil {
		t.Fatal(err)
	}
	equal(t, "AllSecrets after the rewrap", secrets, want)
	e.verifyChain()
}

// enrollmentVerbs are those of this file.
func (e *env) enrollmentVerbs() []verb {
	c := e.challenge()
	spare := e.challenge()
	r := enrollment()
	if err := e.PutEnrollment(e.t.Context(), store.EnrollmentChange{Enrollment: r, Record: record("enrollment.pending", base)}); err != nil {
		e.t.Fatalf("PutEnrollment: %v", err)
	}
	var ra int
	if all, err := e.AllRACertificates(e.t.Context()); err == nil {
		ra = len(all)
	}
	return []verb{
		{"AllPoints", func(ctx context.Context) error { _, err := e.AllPoints(ctx); return err }},
		{"PutPoint", func(ctx context.Context) error {
			p := pki.PointVersion{Name: fmt.Sprint("p", counter.Add(1)), Version: 1, Config: []byte("{}"), CreatedAt: base}
			return e.PutPoint(ctx, store.PointChange{Point: p, Record: record("point.put", base)})
		}},
		{"CreateChallenges", func(ctx context.Context) error {
			return e.CreateChallenges(ctx, []pki.Challenge{challenge()}, record("challenge.create", base))
		}},
		{"Challenge", func(ctx context.Context) error { _, err := e.Challenge(ctx, c.ID); return err }},
		{"ListChallenges", func(ctx context.Context) error {
			_, _, err := e.ListChallenges(ctx, store.ChallengeFilter{}, store.Page{})
			return err
		}},
		{"FailChallenge", func(ctx context.Context) error { return e.FailChallenge(ctx, c.ID, record("challenge.fail", base)) }},
		{"RevokeChallenge", func(ctx context.Context) error {
			return e.RevokeChallenge(ctx, spare.ID, base, record("challenge.revoke", base))
		}},
		{"RevokeChallenges", func(ctx context.Context) error {
			_, err := e.RevokeChallenges(ctx, store.ChallengeFilter{}, base, record("challenge.revoke", base))
			return err
		}},
		{"Enrollment", func(ctx context.Context) error {
			_, err := e.Enrollment(ctx, r.Point, r.TransactionID, r.SPKIHash)
			return err
		}},
		{"EnrollmentBySigner", func(ctx context.Context) error {
			_, err := e.EnrollmentBySigner(ctx, r.Point, r.TransactionID, r.SignerHash)
			return err
		}},
		{"Successor", func(ctx context.Context) error {
			if _, err := e.Successor(ctx, pki.Fingerprint{1}); !fault.Is(err, fault.NotFound) {
				return err
			}
			return nil
		}},
		{"EnrollmentByID", func(ctx context.Context) error { _, err := e.EnrollmentByID(ctx, r.ID); return err }},
		{"ListEnrollments", func(ctx context.Context) error {
			_, _, err := e.ListEnrollments(ctx, store.EnrollmentFilter{}, store.Page{})
			return err
		}},
		{"PutEnrollment", func(ctx context.Context) error {
			return e.PutEnrollment(ctx, store.EnrollmentChange{Enrollment: enrollment(), Record: record("enrollment.pending", base)})
		}},
		{"PruneEnrollments", func(ctx context.Context) error {
			_, err := e.PruneEnrollments(ctx, base.Add(-time.Hour), 10)
			return err
		}},
		{"AllRACertificates", func(ctx context.Context) error { _, err := e.AllRACertificates(ctx); return err }},
		{"PutRACertificate", func(ctx context.Context) error {
			ra++
			c := pki.RACertificate{IssuerID: e.issuing.issuer, Number: ra, KeyID: "ra", Fingerprint: pki.Fingerprint(randomBytes(32)), CreatedAt: base}
			err := e.PutRACertificate(ctx, store.RAChange{Certificate: c, Record: record("ra.put", base)})
			if err != nil {
				ra--
			}
			return err
		}},
		{"Secret", func(ctx context.Context) error {
			if _, err := e.Secret(ctx, "none"); !fault.Is(err, fault.NotFound) {
				return err
			}
			return nil
		}},
		{"AllSecrets", func(ctx context.Context) error { _, err := e.AllSecrets(ctx); return err }},
	}
}

// fillEnrollments gives the tables of enrollment rows of every kind.
func (e *env) fillEnrollments() {
	e.t.Helper()
	t, ctx := e.t, e.t.Context()
	for version := 1; version <= 2; version++ {
		p := pki.PointVersion{Name: "default", Version: version, Config: []byte(`{"ü":1}`), CreatedAt: base, CreatedBy: "test"}
		if err := e.PutPoint(ctx, store.PointChange{Point: p, Secret: []byte("sealed"), Record: record("point.put", base)}); err != nil {
			t.Fatalf("PutPoint: %v", err)
		}
	}
	used := e.challenge(func(c *pki.Challenge) {
		c.Subject, c.SANs, c.Device, c.Profile, c.Note = "CN=ü", []string{`DNS:"{,}`}, "d", "device", "n"
	})
	e.challenge(func(c *pki.Challenge) { c.RevokedAt, c.Failures, c.Batch = base, 3, "b" })
	waiting := enrollment(func(r *pki.Enrollment) {
		r.Subject, r.SANs, r.Profile, r.Device, r.Source, r.Reason, r.DecidedBy, r.Replaces, r.Overrides = "CN=ü", []string{"DNS:d", ""}, "device", "d", "::1", "why", "who", pki.Fingerprint{1}, "{}"
	})
	if err := e.PutEnrollment(ctx, store.EnrollmentChange{Enrollment: waiting, Request: []byte("sealed"), Record: record("enrollment.pending", base)}); err != nil {
		t.Fatalf("PutEnrollment: %v", err)
	}
	cert := certificate(e.issuing)
	i := issuance(cert)
	i.Enrollment = &store.EnrollmentChange{UseChallenge: true, Enrollment: enrollment(func(r *pki.Enrollment) {
		r.ID, r.State, r.Challenge, r.Issued = "", pki.EnrollmentIssued, used.ID, cert.Fingerprint
	})}
	if err := e.RecordIssuance(ctx, i); err != nil {
		t.Fatalf("RecordIssuance: %v", err)
	}
	ra := pki.RACertificate{IssuerID: e.issuing.issuer, Number: 1, KeyID: "ra", Fingerprint: pki.Fingerprint{2}, DER: []byte{1}, CreatedAt: base}
	if err := e.PutRACertificate(ctx, store.RAChange{Certificate: ra, Key: []byte("sealed"), Record: record("ra.put", base)}); err != nil {
		t.Fatalf("PutRACertificate: %v", err)
	}
}
