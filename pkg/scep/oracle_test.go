package scep_test

import (
	"bytes"
	"crypto/rsa"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/store"
)

var oracleRounds = flag.Int("oracle", 0, "malformed envelopes of each kind, and compare their times; 0: few, and do not")

// oracleKinds are what an envelope may hide: all that cannot be decrypted, and all that can and leads nowhere.
func oracleKinds(d *device) []scepraw.BadEnvelope {
	good := scepraw.CSR{Key: d.key, Challenges: []string{staticText}}
	inside := func(name string, edit func(*scepraw.CSR)) scepraw.BadEnvelope {
		c := good
		edit(&c)
		b := c.Bytes()
		return scepraw.BadEnvelope{Name: "inside: " + name, Edit: func(e *scepraw.Envelope, _ *rsa.PublicKey) { e.Plaintext = b }}
	}
	return append(scepraw.BadEnvelopes(),
		inside("a wrong challenge", func(c *scepraw.CSR) { c.Challenges = []string{"A static challenge"} }),
		inside("no challenge", func(c *scepraw.CSR) { c.Challenges = nil }),
		inside("two challenges", func(c *scepraw.CSR) { c.Challenges = []string{staticText, "another"} }),
		inside("a wrong signature", func(c *scepraw.CSR) { c.EditSignature = func(b []byte) []byte { b[9] ^= 1; return b } }),
		inside("another key than the signer's", func(c *scepraw.CSR) { c.Key = otherKey() }),
	)
}

// TestOracle sends what an attacker has caught and bent: no answer says why it fails, in status, headers, failInfo or
// text, and none is longer than another (RFC 3218). With -oracle the times
// are compared too, on a quiet machine.
func TestOracle(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	kinds := oracleKinds(d)
	public := d.ra.PublicKey.(*rsa.PublicKey)
	message := func(k scepraw.BadEnvelope) scepraw.Message {
		e := d.envelope(d.csr(staticText))
		e.SessionKey = scepraw.Random(16)
		k.Edit(&e, public)
		m := d.message("19", e.Bytes())
		m.SenderNonce = scepraw.Random(16)
		return m
	}
	rounds := 2
	if *oracleRounds > 0 {
		rounds = *oracleRounds
	}
	mux := chi.NewRouter()
	r.handler.Routes(mux)
	ask := func(b []byte) (*httptest.ResponseRecorder, time.Duration) {
		request := httptest.NewRequest(http.MethodPost, "/scep/default?operation=PKIOperation", bytes.NewReader(b))
		request.RemoteAddr = "127.0.0.1:1" // is not throttled
		w := httptest.NewRecorder()
		start := time.Now()
		mux.ServeHTTP(w, request)
		return w, time.Since(start)
	}
	times := make([][]float64, len(kinds))
	var all string
	for round := range rounds {
		for _, k := range rand.Perm(len(kinds)) {
			m := message(kinds[k])
			b := m.Bytes()
			w, took := ask(b)
			times[k] = append(times[k], float64(took))
			body, err := io.ReadAll(w.Result().Body)
			if err != nil {
				t.Fatal(err)
			}
			got := d.open(m, body)
			header := w.Header().Clone()
			header.Del("Date")
			seen := fmt.Sprint(w.Code, header, got.status, got.info, got.text, len(got.Certificates), len(body))
			if all == "" {
				all = seen
			}
			if seen != all {
				t.Fatalf("%s, round %d: the answer is\n%s, elsewhere\n%s", kinds[k].Name, round, seen, all)
			}
			if got.status != "2" || got.info != "2" {
				t.Fatalf("%s: status %s, failInfo %s", kinds[k].Name, got.status, got.info)
			}
		}
	}
	if n := r.count(); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
	// A record in the audit trail takes a commit's time: every kind leaves one, or none does.
	if *oracleRounds == 0 {
		events, _, err := r.store.AuditEvents(t.Context(), store.AuditFilter{Action: audit.ActionRefuse}, store.Page{Limit: 200})
		if want := rounds * len(kinds); err != nil || len(events) != want {
			t.Errorf("%d refusals in the audit trail, want %d; %v", len(events), want, err)
		}
	}
	d.ask("19", d.csr(staticText)).success(t) // the same is good if nothing is bent
	if *oracleRounds == 0 {
		return
	}
	mean := func(v []float64) (mean, stderr float64) {
		slices.Sort(v)
		v = v[:len(v)*9/10]
		for _, x := range v {
			mean += x / float64(len(v))
		}
		for _, x := range v {
			stderr += (x - mean) * (x - mean)
		}
		return mean, math.Sqrt(stderr) / float64(len(v))
	}
	at := slices.IndexFunc(kinds, func(k scepraw.BadEnvelope) bool { return strings.HasPrefix(k.Name, "v1.5: garbage") })
	base, baseErr := mean(times[at])
	for k := range kinds {
		m, e := mean(times[k])
		t.Logf("%-45s %9.1f us, %+7.1f us, t = %+.1f", kinds[k].Name, m/1e3, (m-base)/1e3, (m-base)/math.Hypot(e, baseErr))
	}
}
