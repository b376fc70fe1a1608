package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// testVisibility: the first times stay, those from before the decision are none, and nothing else changes.
func testVisibility(t *testing.T, h Harness) {
	e := open(t, h)
	good, revoked, held := e.issue(e.issuing), e.issue(e.issuing), e.issue(e.devices)
	decided := base.Truncate(time.Second)
	e.change(revoked, pki.ActionRevoke, revocation(pki.Superseded, decided))
	e.change(held, pki.ActionHold, revocation(pki.CertificateHold, decided))
	before := e.head()
	note := func(c pki.Certificate, crl, ocsp time.Time) {
		t.Helper()
		all := []store.Visible{{IssuerKeyID: c.IssuerKeyID, Serial: c.Serial, CRLAt: crl, OCSPAt: ocsp}, {IssuerKeyID: c.IssuerKeyID, Serial: "A never issued.", CRLAt: crl}}
		if err := e.NoteVisible(t.Context(), all); err != nil {
			t.Fatalf("NoteVisible: %v", err)
		}
	}
	want := func(what string, c pki.Certificate, crl, ocsp time.Time) {
		t.Helper()
		got, err := e.Certificate(t.Context(), c.Fingerprint)
		if err != nil {
			t.Fatal(err)
		}
		if !got.FirstCRLAt.Equal(crl) || !got.FirstOCSPAt.Equal(ocsp) {
			t.Errorf("%s: on a CRL at %v and in OCSP at %v, want %v and %v", what, got.FirstCRLAt, got.FirstOCSPAt, crl, ocsp)
		}
	}
	none, first, second := time.Time{}, decided.Add(123456*time.Microsecond), decided.Add(time.Minute)
	want("nothing noted", revoked, none, none)
	note(good, first, first)
	want("a good one", good, none, none)
	note(revoked, none, decided.Add(-time.Second))
	want("before the decision", revoked, none, none)
	note(revoked, none, first)
	want("OCSP first", revoked, none, first)
	note(revoked, second, second)
	want("then the CRL", revoked, second, first)
	note(revoked, first, none)
	want("and nothing more", revoked, second, first)
	note(held, first, second)
	want("a hold", held, first, second)
	equal(t, "Head", e.head(), before)

	// A hold that becomes a revocation has been seen since; one that is released and comes back has not.
	e.change(held, pki.ActionRevoke, revocation(pki.KeyCompromise, decided.Add(time.Hour)))
	want("a hold that became a revocation", held, first, second)
	again := e.issue(e.devices)
	e.change(again, pki.ActionHold, revocation(pki.CertificateHold, decided))
	note(again, first, first)
	if after := e.change(again, pki.ActionRelease, revocation(0, decided.Add(time.Hour))); !after.FirstCRLAt.IsZero() || !after.FirstOCSPAt.IsZero() {
		t.Errorf("released: %+v", after)
	}
	want("released", again, none, none)
	e.change(again, pki.ActionHold, revocation(pki.CertificateHold, decided.Add(2*time.Hour)))
	note(again, first, first)
	want("held again", again, none, none)

	// All at once, and lists have the times too.
	var all []store.Visible
	for range store.MaxVisible {
		all = append(all, store.Visible{IssuerKeyID: revoked.IssuerKeyID, Serial: revoked.Serial, CRLAt: first})
	}
	if err := e.NoteVisible(t.Context(), all); err != nil {
		t.Error(err)
	}
	wantFault(t, "too many", e.NoteVisible(t.Context(), append(all, all[0])), fault.BadRequest, nil)
	if err := e.NoteVisible(t.Context(), nil); err != nil {
		t.Error(err)
	}
	list, _, err := e.ListCertificates(t.Context(), store.CertificateFilter{Serial: revoked.Serial}, store.Page{})
	if err != nil || len(list) != 1 || !list[0].FirstCRLAt.Equal(second) {
		t.Errorf("ListCertificates = %+v, %v", list, err)
	}
	e.verifyChain()

	if m, ok := e.Store.(store.Movable); ok && h.Closed != nil {
		if err := m.Fence(t.Context(), store.CopyID{1}, "elsewhere", base, record("store.fence", base)); err != nil {
			t.Fatal(err)
		}
		if err := e.NoteVisible(t.Context(), all[:1]); !errors.Is(err, store.ErrNotInUse) {
			t.Errorf("NoteVisible of a store that is out of use: %v", err)
		}
	}
}
