package scep_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// A panic costs the message that caused it, and neither the next one nor its place among those that are processed at a time.
func TestPanicCostsOneMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.handler.SetTurns(1)
	d := r.device(deviceKey())
	text := r.challenge()
	for range 2 {
		m := d.message("19", d.envelope(d.csr(text)).Bytes())
		m.TransactionID, m.SenderNonce = panics, scepraw.Random(16)
		if status, _, body := r.post(m.Bytes()); status != http.StatusBadRequest || bytes.Contains(body, []byte(panics)) {
			t.Errorf("a message that panics: %d %q, want 400 that says nothing of it", status, body)
		}
	}
	d.ask("19", d.csr(text)).success(t)
}

// A wrong secret for a challenge that exists is counted with it and audited, as a wrong word is; neither is told apart from
// a message that does not decrypt, and the right one is good as before.
func TestWrongSecret(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, r *rig) {
		d := r.device(deviceKey())
		text := r.challenge()
		id, secret, _ := strings.Cut(text, "-")
		first := "A"
		if secret[0] == 'A' {
			first = "B"
		}
		wrong := d.ask("19", d.csr(id+"-"+first+secret[1:]))
		if wrong.failure(t, "2"); wrong.text != d.ask("19", []byte("garbage")).text || wrong.text != d.ask("19", d.csr("a word")).text {
			t.Errorf("a wrong secret is refused in words of its own: %q", wrong.text)
		}
		if c, err := r.store.Challenge(t.Context(), id); err != nil || c.Failures != 1 || !c.UsedAt.IsZero() {
			t.Errorf("the challenge is %+v, %v; want one failure", c, err)
		}
		if fails, refusals := r.events(audit.ActionChallengeFail), r.events(audit.ActionRefuse); fails != 1 || refusals != 2 {
			t.Errorf("%d wrong secrets and %d refusals are in the audit trail, want 1 and 2", fails, refusals)
		}
		d.ask("19", d.csr(text)).success(t)
	})
}

// GetCert gives a device the certificates that it had under other keys, and nobody else's; not to a certificate on hold (RFC
// 8894, Sections 2.6 and 4.5).
func TestGetCertOfTheDevice(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(deviceKey())
	old := d.ask("19", d.csr(r.challenge(of("d1")))).success(t)
	r.later(life(old) * 2 / 3)
	d.signer, d.key, d.id = old, otherKey(), "a new key"
	renewed := d.ask("17", d.csr()).success(t)
	d.signer, d.sign, d.id = renewed, otherKey(), "get"
	if got := d.ask("21", scepraw.IssuerAndSerial(old)).success(t); !got.Equal(old) {
		t.Error("GetCert brings another certificate")
	}

	third := newRSAKey(2048)
	other := r.device(third)
	other.signer = other.ask("19", other.csr(r.challenge(of("d2")))).success(t)
	other.id = "get"
	other.ask("21", scepraw.IssuerAndSerial(old)).failure(t, "4", "you have no certificate")
	stranger := r.device(third) // the same key, and no certificate of ours
	stranger.ask("21", scepraw.IssuerAndSerial(old)).failure(t, "4", "you have no certificate")

	record, err := r.store.Certificate(t.Context(), fingerprint(renewed))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.ChangeStatus(t.Context(), store.StatusChange{
		IssuerID: record.IssuerID, Serial: record.Serial, Action: pki.ActionHold, Revocation: pki.Revocation{Reason: pki.CertificateHold, RevokedAt: r.now().Truncate(time.Second)},
	}); err != nil {
		t.Fatal(err)
	}
	d.ask("21", scepraw.IssuerAndSerial(old)).failure(t, "4", "you have no certificate")
}

// Other methods enroll nobody: who sends a HEAD would not get what was issued.
func TestMethods(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	message := base64.StdEncoding.EncodeToString(d.message("19", d.envelope(d.csr(staticText)).Bytes()).Bytes())
	for method, allow := range map[string]string{http.MethodHead: "GET, POST", http.MethodPut: "GET, HEAD, POST", http.MethodDelete: "GET, HEAD, POST"} {
		request := httptest.NewRequestWithContext(t.Context(), method, "/scep/default?operation=PKIOperation&message="+url.QueryEscape(message), http.NoBody)
		w := httptest.NewRecorder()
		front(r).ServeHTTP(w, request)
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != allow {
			t.Errorf("%s: %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
	if n := r.count(); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
	if status, _, _ := r.get("?operation=PKIOperation&message=" + url.QueryEscape(message)); status != http.StatusOK || r.count() != 1 {
		t.Errorf("GET: %d, and %d certificates", status, r.count())
	}
}
