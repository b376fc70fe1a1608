package scep_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
)

// TestNoDecryptionOracle: what is wrong with an envelope cannot be told from the answer: not from its text, its status, its
// headers, nor from when it leaves (RFC 3218, Section 2.3; scep.md, Security).
func TestNoDecryptionOracle(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	public := d.ra.PublicKey.(*rsa.PublicKey)
	good := d.csr(staticText)
	weak := weakCSR()
	block := bytes.Repeat([]byte{'x'}, 16)
	kinds := map[string]func() scepraw.Envelope{
		"bad RSA padding": func() scepraw.Envelope {
			e := d.envelope(good)
			e.EncryptedKey = scepraw.RSA(public, append([]byte{0, 1}, scepraw.Random(public.Size()-2)...))
			return e
		},
		"a key of another length": func() scepraw.Envelope {
			e := d.envelope(good)
			//lint:ignore SA1019 it is what SCEP uses
			encrypted, err := rsa.EncryptPKCS1v15(rand.Reader, public, scepraw.Random(7))
			if err != nil {
				t.Fatal(err)
			}
			e.EncryptedKey = encrypted
			return e
		},
		"another key": func() scepraw.Envelope {
			e := d.envelope(good)
			//lint:ignore SA1019 it is what SCEP uses
			encrypted, err := rsa.EncryptPKCS1v15(rand.Reader, public, scepraw.Random(16))
			if err != nil {
				t.Fatal(err)
			}
			e.EncryptedKey = encrypted
			return e
		},
		"bad CBC padding":   func() scepraw.Envelope { e := d.envelope(nil); e.Padded = block; return e },
		"half a block":      func() scepraw.Envelope { e := d.envelope(good); e.Ciphertext = scepraw.Random(40); return e },
		"garbage plaintext": func() scepraw.Envelope { return d.envelope(scepraw.Random(len(good))) },
		"a tampered CSR":    func() scepraw.Envelope { b := bytes.Clone(good); b[len(b)-1] ^= 1; return d.envelope(b) },
		"a wrong challenge": func() scepraw.Envelope { return d.envelope(d.csr("another challenge")) },
		"no challenge":      func() scepraw.Envelope { return d.envelope(d.csr()) },
		"a weak key in it":  func() scepraw.Envelope { return d.envelope(weak) },
	}
	n := 12
	if testing.Short() {
		n = 3
	}
	var first http.Header
	var text string
	took := map[string][]time.Duration{}
	names := make([]string, 0, len(kinds))
	for name := range kinds {
		names = append(names, name)
	}
	for range n {
		mathrand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			m := d.message("19", kinds[name]().Bytes())
			m.SenderNonce = scepraw.Random(16)
			b := m.Bytes()
			began := time.Now()
			status, header, body := r.post(b)
			took[name] = append(took[name], time.Since(began))
			if status != http.StatusOK {
				t.Fatalf("%s: %d %q", name, status, body)
			}
			got := d.open(m, body)
			got.failure(t, "2")
			header.Del("Date")
			header.Del("X-Request-Id")
			if first == nil {
				first, text = header, got.text
			}
			if got.text != text || !equalHeaders(header, first) {
				t.Errorf("%s: %q %v, others say %q %v", name, got.text, header, text, first)
			}
		}
	}
	for name, all := range took {
		// Each leaves at a tick, so that none is before the first one; how late a busy machine makes it says nothing.
		if least := slices.Min(all); least < 2*time.Millisecond {
			t.Errorf("%s was answered after %s: it did not wait for the tick", name, least)
		}
	}
	if n := r.count(); n != 0 {
		t.Errorf("%d certificates were issued", n)
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
