package scep_test

import (
	"bytes"
	"crypto/rsa"
	"flag"
	"fmt"
	"io"
	"math"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/scep"
)

var (
	oracleRounds = flag.Int("oracle", 0, "malformed envelopes of each kind, whose times are compared; 0: a few, and only what they say")
	oracleAtOnce = flag.Int("oracle-at-once", 4, "with -oracle: requests on their way at once, since each waits for its tick")
)

// oracleKind is a way in which an envelope is bad.
type oracleKind struct {
	name string
	make func() scepraw.Envelope
	took []time.Duration // of each request; guarded by the test's mutex
}

// oracleKinds are the kinds of package scepraw, and those that only a front-end can tell: it reads what was decrypted.
func oracleKinds(d *device) []*oracleKind {
	public := d.ra.PublicKey.(*rsa.PublicKey)
	// All are made beforehand: what the client does just before it asks is in its times.
	good, weak, other, none := d.csr(staticText), weakCSR(), d.csr("another challenge"), d.csr()
	tampered := bytes.Clone(good)
	tampered[len(tampered)-1] ^= 1
	kinds := []*oracleKind{
		{name: "a tampered CSR", make: func() scepraw.Envelope { return d.envelope(tampered) }},
		{name: "a wrong challenge", make: func() scepraw.Envelope { return d.envelope(other) }},
		{name: "no challenge", make: func() scepraw.Envelope { return d.envelope(none) }},
		{name: "a weak key in it", make: func() scepraw.Envelope { return d.envelope(weak) }},
	}
	for _, b := range scepraw.BadEnvelopes() {
		kinds = append(kinds, &oracleKind{name: b.Name, make: func() scepraw.Envelope {
			e := d.envelope(good)
			e.SessionKey = scepraw.Random(16)
			b.Edit(&e, public)
			return e
		}})
	}
	return kinds
}

// oracleAnswer is what a stranger sees of an answer.
type oracleAnswer struct {
	http               int
	status, info, text string
	header             http.Header
	took               time.Duration
}

func (a *oracleAnswer) same(b *oracleAnswer) bool {
	return a.http == b.http && a.status == b.status && a.info == b.info && a.text == b.text && equalHeaders(a.header, b.header)
}

// tryOracle sends an envelope. It may be called from many goroutines.
func (d *device) tryOracle(client *http.Client, e scepraw.Envelope) (*oracleAnswer, error) {
	m := d.message("19", e.Bytes())
	m.SenderNonce = scepraw.Random(16)
	message := m.Bytes()
	began := time.Now()
	answer, err := client.Post(d.server.URL+"/scep/default?operation=PKIOperation", "application/x-pki-message", bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	out := &oracleAnswer{http: answer.StatusCode, header: answer.Header, took: time.Since(began)}
	if err != nil {
		return nil, err
	}
	answer.Header.Del("Date")
	answer.Header.Del("X-Request-Id")
	rep, err := scepraw.ReadCertRep(body, d.ra, d.issuer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", answer.Status, err)
	}
	out.status, out.info, out.text = rep.Status()
	return out, nil
}

// TestNoDecryptionOracle: what is wrong with an envelope cannot be told from the answer: not from its text, its status, its
// headers, nor from when it leaves (RFC 3218, Section 2.3; RFC 8894, Section 7). With -oracle it tells of the times of each
// kind, which a test cannot judge on any machine: go test ./pkg/scep -run NoDecryptionOracle -v -timeout 0 -args -oracle 10000.
func TestNoDecryptionOracle(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	kinds := oracleKinds(d)
	rounds, atOnce := 4, 4
	switch {
	case *oracleRounds > 0:
		rounds, atOnce = *oracleRounds, *oracleAtOnce
	case testing.Short():
		rounds = 1
	}
	client := r.server.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = atOnce

	// Each round sends all kinds in an order of its own, so that what else the machine does falls on all of them.
	var mu sync.Mutex
	var first *oracleAnswer
	var queue []*oracleKind
	next := func() *oracleKind {
		mu.Lock()
		defer mu.Unlock()
		if len(queue) == 0 {
			if rounds == 0 || t.Failed() {
				return nil
			}
			rounds--
			queue = slices.Clone(kinds)
			mathrand.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
		}
		k := queue[0]
		queue = queue[1:]
		return k
	}
	var asking sync.WaitGroup
	for range atOnce {
		asking.Go(func() {
			for k := next(); k != nil; k = next() {
				a, err := d.tryOracle(client, k.make())
				if err != nil {
					t.Errorf("%s: %v", k.name, err)
					return
				}
				mu.Lock()
				if first == nil {
					first = a
				}
				k.took = append(k.took, a.took)
				if a.http != http.StatusOK || a.status != "2" || a.info != "2" || !a.same(first) {
					t.Errorf("%s: %+v, another got %+v", k.name, a, first)
				}
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	for _, k := range kinds {
		if len(k.took) > 0 && slices.Min(k.took) < scep.ReplyQuantum {
			t.Errorf("%s was answered after %s: it did not wait for the tick", k.name, slices.Min(k.took))
		}
	}
	if n := r.count(); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
	if *oracleRounds > 0 {
		tellOracleTimes(t, kinds)
	}
}

// tellOracleTimes compares the times of all kinds with those of a message that is decrypted well, and has garbage in it.
func tellOracleTimes(t *testing.T, kinds []*oracleKind) {
	t.Helper()
	type figures struct{ mean, spread, median, late float64 }
	of := func(took []time.Duration) (f figures) {
		slices.Sort(took)
		n := float64(len(took))
		for _, d := range took {
			f.mean += d.Seconds() / n
			if d > 2*scep.ReplyQuantum {
				f.late += 1 / n
			}
		}
		for _, d := range took {
			f.spread += (d.Seconds() - f.mean) * (d.Seconds() - f.mean)
		}
		f.spread = math.Sqrt(f.spread/(n-1)) / math.Sqrt(n)
		f.median = took[len(took)/2].Seconds()
		return f
	}
	yardsticks := map[bool]figures{}
	for _, k := range kinds {
		if strings.Contains(k.name, "garbage") {
			yardsticks[strings.HasPrefix(k.name, "OAEP")] = of(k.took)
		}
	}
	for _, k := range kinds {
		f, base := of(k.took), yardsticks[strings.HasPrefix(k.name, "OAEP")]
		t.Logf("%-40s n %d, median %.3f ms, mean %.3f ms (%+.3f), t = %+.1f; after two ticks %.2f %% (%+.2f)", k.name, len(k.took), 1e3*f.median, 1e3*f.mean,
			1e3*(f.mean-base.mean), (f.mean-base.mean)/math.Hypot(f.spread, base.spread), 100*f.late, 100*(f.late-base.late))
	}
}

func equalHeaders(a, b http.Header) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if !slices.Equal(v, b[k]) {
			return false
		}
	}
	return true
}

// weakCSR has a key that nobody may have, and a right signature.
func weakCSR() []byte {
	return scepraw.CSR{Key: newRSAKey(1024), Challenges: []string{staticText}}.Bytes()
}

// TestGarbage: arbitrary octets and real messages with changes anywhere never lead to a 5xx or a certificate, and leave the
// server serving.
func TestGarbage(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	real := [][]byte{d.message("19", d.envelope(d.csr("another challenge")).Bytes()).Bytes()}
	d.ber = true
	real = append(real, d.message("17", d.envelope(d.csr()).Bytes()).Bytes(), d.message("20", d.envelope(scepraw.Sequence(scepraw.Name("a"), scepraw.Name("b"))).Bytes()).Bytes())
	d.ber = false
	random := mathrand.New(mathrand.NewPCG(1, 2))
	n := 600
	if testing.Short() {
		n = 100
	}
	for i := range n {
		b := bytes.Clone(real[i%len(real)])
		switch i % 7 {
		case 0:
			b = scepraw.Random(random.IntN(400))
		case 1:
			b = b[:random.IntN(len(b))]
		case 2:
			at := random.IntN(len(b))
			b = slices.Insert(b, at, scepraw.Random(1+random.IntN(8))...)
		case 3:
			at := random.IntN(len(b) - 1)
			b = slices.Delete(b, at, at+1+random.IntN(min(8, len(b)-at-1)))
		default:
			for range 1 + random.IntN(4) {
				b[random.IntN(len(b))] ^= byte(1 << random.IntN(8))
			}
		}
		if status, _, body := r.post(b); status >= 500 || len(body) == 0 {
			t.Fatalf("message %d: %d %q\n%x", i, status, body, b)
		}
	}
	if n := r.count(); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
	d.ask("19", d.csr(staticText)).success(t)
}
