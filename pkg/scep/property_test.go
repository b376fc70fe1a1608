package scep_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
)

// corpus returns messages of real clients (pkg/cms records them) and of our own, to this server and signed rightly.
func corpus(t testing.TB, d *device) [][]byte {
	t.Helper()
	files, err := filepath.Glob("../cms/testdata/clients/*.der")
	if err != nil || len(files) == 0 {
		t.Fatalf("no messages of clients: %v", err)
	}
	var all [][]byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	for _, messageType := range []string{"17", "19", "20", "21", "22"} {
		d.ber = messageType == "20"
		plaintext := scepraw.IssuerAndSerial(d.issuer)
		if messageType < "20" {
			plaintext = d.csr(staticText)
		}
		all = append(all, d.message(messageType, d.envelope(plaintext).Bytes()).Bytes())
	}
	d.ber = false
	return all
}

// front is a handler without a network.
func front(r *rig) http.Handler {
	mux := chi.NewRouter()
	r.handler.Routes(mux)
	return mux
}

// neverOurFault sends a request and checks what holds for every one: no 5xx, no panic, no empty 200, and an answer soon.
func neverOurFault(t interface{ Fatalf(string, ...any) }, h http.Handler, request *http.Request) {
	request.RemoteAddr = "127.0.0.1:1"
	w := httptest.NewRecorder()
	start := time.Now()
	h.ServeHTTP(w, request)
	if w.Code >= 500 || w.Code == http.StatusOK && w.Body.Len() == 0 || w.Body.Len() > 1<<20 {
		t.Fatalf("%s %s: %d, %d octets", request.Method, request.URL, w.Code, w.Body.Len())
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Fatalf("%s %s took %v", request.Method, request.URL, took)
	}
}

// TestBentMessages mutates messages of real clients: octets changed, left out, doubled, parts exchanged.
func TestBentMessages(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	messages := corpus(t, d)
	h := front(r)
	deadline := time.Now().Add(5 * time.Second) // failures leave at a tick of 10 ms: some hundred messages
	rapid.Check(t, func(rt *rapid.T) {
		if time.Now().After(deadline) {
			return
		}
		m := bytes.Clone(rapid.SampledFrom(messages).Draw(rt, "message"))
		for range rapid.IntRange(1, 4).Draw(rt, "changes") {
			at := rapid.IntRange(0, max(0, len(m)-1)).Draw(rt, "at")
			switch rapid.IntRange(0, 4).Draw(rt, "kind") {
			case 0:
				if len(m) > 0 {
					m[at] ^= rapid.Byte().Draw(rt, "xor")
				}
			case 1:
				m = m[:at]
			case 2:
				m = append(m[:at:at], m[min(len(m), at+rapid.IntRange(1, 40).Draw(rt, "cut")):]...)
			case 3:
				m = append(append(m[:at:at], rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(rt, "more")...), m[at:]...)
			case 4:
				other := rapid.SampledFrom(messages).Draw(rt, "other")
				m = append(m[:at:at], other[min(len(other), at):]...)
			}
		}
		neverOurFault(rt, h, httptest.NewRequest(http.MethodPost, "/scep/default?operation=PKIOperation", bytes.NewReader(m)))
		query := url.Values{"operation": {"PKIOperation"}, "message": {base64.StdEncoding.EncodeToString(m)}}
		neverOurFault(rt, h, httptest.NewRequest(http.MethodGet, "/scep/default?"+query.Encode(), http.NoBody))
	})
}

// TestBentContents puts anything into an envelope that is encrypted and signed as it should be: this is as far as a
// stranger gets without a challenge.
func TestBentContents(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	h := front(r)
	csr := d.csr(staticText)
	deadline := time.Now().Add(5 * time.Second)
	rapid.Check(t, func(rt *rapid.T) {
		if time.Now().After(deadline) {
			return
		}
		plaintext := rapid.SampledFrom([][]byte{csr, scepraw.IssuerAndSerial(d.issuer), scepraw.Sequence(scepraw.Name("a"), scepraw.Name("b")), nil}).Draw(rt, "plaintext")
		plaintext = bytes.Clone(plaintext)
		if len(plaintext) > 0 {
			plaintext[rapid.IntRange(0, len(plaintext)-1).Draw(rt, "at")] ^= rapid.ByteRange(1, 255).Draw(rt, "xor")
		}
		d.id = rapid.StringMatching(`[A-Za-z0-9]{1,40}`).Draw(rt, "transactionID")
		m := d.message(rapid.SampledFrom([]string{"17", "19", "20", "21", "22"}).Draw(rt, "messageType"), d.envelope(plaintext).Bytes())
		neverOurFault(rt, h, httptest.NewRequest(http.MethodPost, "/scep/default?operation=PKIOperation", bytes.NewReader(m.Bytes())))
	})
	if n := r.count(); n != 0 {
		t.Errorf("%d certificates were made of bent requests", n)
	}
}

// FuzzPKIOperation is the front-end as a whole, as a stranger sees it.
func FuzzPKIOperation(f *testing.F) {
	r := newRig(f, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	for _, m := range corpus(f, d) {
		f.Add(m)
	}
	h := front(r)
	f.Fuzz(func(t *testing.T, m []byte) {
		neverOurFault(t, h, httptest.NewRequest(http.MethodPost, "/scep/default?operation=PKIOperation", bytes.NewReader(m)))
	})
}

// FuzzQuery is the address as a stranger writes it.
func FuzzQuery(f *testing.F) {
	r := newRig(f, keys.P256)
	h := front(r)
	for _, q := range []string{"operation=GetCACaps", "operation=GetCACert&message=x", "operation=PKIOperation&message=MAA%3D", "operation=GetNextCACert", "message=%zz&operation=PKIOperation", "&&==&operation"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		request := httptest.NewRequest(http.MethodGet, "/scep/default", http.NoBody)
		request.URL.RawQuery = query
		neverOurFault(t, h, request)
	})
}
