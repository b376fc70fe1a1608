package rest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestIdempotencyKey(t *testing.T) {
	now := time.Now().UTC()
	r := newRig(t).with(func(c *Config) { c.Now = func() time.Time { return now } })
	r.newToken("other", map[string]any{"role": "enroller"})
	const path = "/certificates"
	body := mustJSON(t, map[string]any{"csr": newCSR(t, "one"), "profile": "client"})
	ask := func(who, path, body, key string) *httptest.ResponseRecorder {
		t.Helper()
		return r.send(who, "POST", path, body, "Idempotency-Key", key)
	}
	id := func(w *httptest.ResponseRecorder) string {
		t.Helper()
		if w.Code != http.StatusCreated {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return decode[Certificate](t, w).ID
	}
	first := ask("enroller", path, body, "k")
	again := ask("enroller", path, body, "k")
	if id(first) != id(again) || again.Body.String() != first.Body.String() || again.Header().Get("Location") != first.Header().Get("Location") {
		t.Errorf("the repetition got %d %s, the first %s", again.Code, again.Body, first.Body)
	}
	if first.Header().Get("Idempotency-Replayed") != "" || again.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("Idempotency-Replayed: %q and %q", first.Header().Get("Idempotency-Replayed"), again.Header().Get("Idempotency-Replayed"))
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"another key":      ask("enroller", path, body, "K"),
		"another who asks": ask("other", path, body, "k"),
		"no key":           r.send("enroller", "POST", path, body),
	} {
		if id(w) == id(first) {
			t.Errorf("%s: got the same certificate", name)
		}
	}
	other := mustJSON(t, map[string]any{"csr": newCSR(t, "two"), "profile": "client"})
	operated := id(ask("operator", path, body, "k"))
	for name, w := range map[string]*httptest.ResponseRecorder{
		"another body":                      ask("enroller", path, other, "k"),
		"the same body in other words":      ask("enroller", path, body+"\n", "k"),
		"another address":                   ask("operator", "/certificates/"+operated+"/renew", `{}`, "k"),
		"another address with the key made": r.withTLS("operator", "/certificates/with-key", `{"profile":"client","subject":"CN=x"}`, "k"),
	} {
		if d := decode[map[string]any](t, w); w.Code != http.StatusUnprocessableEntity || d["field"] != "Idempotency-Key" {
			t.Errorf("%s: %d %s, want 422", name, w.Code, w.Body)
		}
	}
	for _, bad := range []string{"", strings.Repeat("x", 256), "a\tb", "ü"} {
		if w := ask("enroller", path, body, bad); w.Code != http.StatusBadRequest && w.Code != http.StatusUnprocessableEntity {
			t.Errorf("key %q: %d %s, want it refused", bad, w.Code, w.Body)
		}
	}
	req := httptest.NewRequestWithContext(t.Context(), "POST", Root+path, strings.NewReader(body))
	req.Header = http.Header{"Authorization": {"Bearer " + r.tokens["enroller"]}, "Content-Type": {"application/json"}, "Idempotency-Key": {"a", "b"}}
	two := httptest.NewRecorder()
	if r.handler.ServeHTTP(two, req); two.Code != http.StatusBadRequest {
		t.Errorf("two keys: %d %s, want 400", two.Code, two.Body)
	}

	// A refused request leaves its key free; one that was answered gets its answer whatever has changed since.
	if w := ask("enroller", path, mustJSON(t, map[string]any{"csr": newCSR(t, "x"), "profile": "client", "validity": "9000d", "not_after": now}), "refused"); w.Code < 400 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	id(ask("enroller", path, body, "refused"))
	r.must("operator", "POST", "/certificates/"+id(first)+"/revoke", map[string]any{"reason": "keyCompromise"}, nil)
	if w := ask("enroller", path, body, "k"); id(w) != id(first) || decode[Certificate](t, w).Status != "revoked" {
		t.Errorf("after the revocation: %s", w.Body)
	}
	if w := ask("enroller", path, body, "after the revocation"); w.Code != http.StatusBadRequest {
		t.Errorf("a request of its own for a blocked key: %d %s, want 400", w.Code, w.Body)
	}

	// The key is remembered for a day.
	if w := ask("operator", path, other, "day"); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	now = now.Add(idempotencyLife - time.Second)
	if w := ask("operator", path, other, "day"); w.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("just before its end the key is not known: %s", w.Body)
	}
}

// withTLS is send as over TLS.
func (r *rig) withTLS(who, path, body, key string) *httptest.ResponseRecorder {
	req := httptest.NewRequestWithContext(r.t.Context(), "POST", Root+path, strings.NewReader(body))
	req.TLS = &tls.ConnectionState{HandshakeComplete: true}
	req.Header = http.Header{"Authorization": {"Bearer " + r.tokens[who]}, "Content-Type": {"application/json"}, "Idempotency-Key": {key}}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w
}

func TestIdempotencyKeyHandsOutNoKeyTwice(t *testing.T) {
	r := newRig(t)
	const body = `{"profile":"client","subject":"CN=Ada"}`
	first := r.withTLS("operator", "/certificates/with-key", body, "k")
	c := decode[CertificateWithKey](t, first)
	if first.Code != http.StatusCreated || c.PrivateKey == "" {
		t.Fatalf("%d %s", first.Code, first.Body)
	}
	again := r.withTLS("operator", "/certificates/with-key", body, "k")
	if want := Root + "/certificates/" + c.ID; again.Code != http.StatusConflict || again.Header().Get("Location") != want || decode[map[string]any](t, again)["location"] != want {
		t.Errorf("%d, Location %q: %s; want 409 and %q", again.Code, again.Header().Get("Location"), again.Body, want)
	}
	if strings.Contains(again.Body.String(), "PRIVATE KEY") {
		t.Error("the key was handed out again")
	}
	var list struct{ Certificates []Certificate }
	r.must("operator", "GET", "/certificates?protocol=rest-key", nil, &list)
	if len(list.Certificates) != 1 {
		t.Errorf("%d certificates, want 1", len(list.Certificates))
	}
}

func TestTwinsWait(t *testing.T) {
	var tw twins
	leave, err := tw.enter(t.Context(), [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tw.enter(ended, [32]byte{1}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a twin that gives up: %v", err)
	}
	if other, err := tw.enter(t.Context(), [32]byte{2}); err != nil {
		t.Errorf("another ID: %v", err)
	} else {
		other()
	}
	entered := make(chan func())
	go func() {
		leave, err := tw.enter(t.Context(), [32]byte{1})
		if err != nil {
			t.Error(err)
		}
		entered <- leave
	}()
	select {
	case <-entered:
		t.Error("two work at once")
	default:
	}
	leave()
	(<-entered)()
	if len(tw.work) != 0 {
		t.Errorf("%d IDs are remembered for nothing", len(tw.work))
	}
}

// FuzzIdempotencyKey: whatever the header holds, it is refused or stands for one ID, that of nobody else.
func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{"", "a", "8e03978e-40d5-43dd-bc93-6894a57f9324", `"quoted"`, strings.Repeat("x", 300), "\x00", "ü", " "} {
		f.Add(s, "token:a", "token:b")
	}
	f.Fuzz(func(t *testing.T, key, a, b string) {
		one := func(name string) ([32]byte, error) {
			r := httptest.NewRequest("POST", "/x", strings.NewReader(""))
			r.Header["Idempotency-Key"] = []string{key}
			of, _ := withAsked(t.Context(), r).Value(askedKey{}).(*asked)
			i, err := of.idempotency(pki.Principal{Name: name}, time.Now())
			if err != nil {
				if !fault.Is(err, fault.BadRequest) {
					t.Fatalf("%q: %v", key, err)
				}
				return [32]byte{}, err
			}
			return i.ID, nil
		}
		idA, errA := one(a)
		idB, errB := one(b)
		if (errA == nil) != (errB == nil) || errA == nil && (idA == idB) != (a == b) {
			t.Errorf("%q of %q and %q: %x, %v; %x, %v", key, a, b, idA, errA, idB, errB)
		}
	})
}
