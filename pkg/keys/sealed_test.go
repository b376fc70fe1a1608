//lint:file-ignore SA1019 SCEP clients use PKCS #1 v1.5 encryption, so it is tested.

package keys_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/keys"
)

// headerSize is what is in front of the wrapped data key.
func headerSize(purpose keys.Purpose) int { return 4 + 1 + 1 + len(purpose) + 32 + 8 }

func seal(t testing.TB, kek *keys.KEK, purpose keys.Purpose, signer crypto.Signer) []byte {
	t.Helper()
	sealed, err := keys.Seal(kek, purpose, signer)
	if err != nil {
		t.Fatalf("Seal: %v", err)
	}
	return sealed
}

// verify signs with key and verifies with pub.
func verify(t testing.TB, key crypto.Signer, pub crypto.PublicKey) {
	t.Helper()
	message := []byte("message")
	digest := sha256.Sum256(message)
	var ok bool
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		ok = err == nil && ecdsa.VerifyASN1(pub, digest[:], sig)
	case ed25519.PublicKey:
		sig, err := key.Sign(rand.Reader, message, crypto.Hash(0))
		ok = err == nil && ed25519.Verify(pub, message, sig)
	case *rsa.PublicKey:
		sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		ok = err == nil && rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], sig) == nil
		pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		sig, err = key.Sign(rand.Reader, digest[:], pss)
		ok = ok && err == nil && rsa.VerifyPSS(pub, crypto.SHA256, digest[:], sig, pss) == nil
	}
	if !ok {
		t.Errorf("signature of %v does not verify", key)
	}
}

func TestSealOpen(t *testing.T) {
	kek := newKEK(t)
	for _, alg := range fastAlgorithms {
		t.Run(alg.String(), func(t *testing.T) {
			signer := generate(t, alg)
			sealed := seal(t, kek, keys.PurposeIssuer, signer)
			if again := seal(t, kek, keys.PurposeIssuer, signer); bytes.Equal(sealed, again) {
				t.Error("sealing twice gives the same bytes")
			}
			key, err := keys.Open(kek, keys.PurposeIssuer, sealed)
			if err != nil {
				t.Fatal(err)
			}
			spki, err := x509.MarshalPKIXPublicKey(signer.Public())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(key.SPKI(), spki) || key.KeyID() != keys.KeyID(spki) ||
				key.Algorithm() != alg || key.Purpose() != keys.PurposeIssuer {
				t.Errorf("Open = %v, want the key %s that was sealed", key, keys.KeyID(spki))
			}
			verify(t, key, signer.Public())

			got, err := keys.Header(sealed)
			want := keys.SealedHeader{
				Purpose: keys.PurposeIssuer, SPKIHash: sha256.Sum256(spki),
				KeyID: keys.KeyID(spki), KEKID: kek.ID(),
			}
			if err != nil || got != want {
				t.Errorf("Header = %+v, %v, want %+v", got, err, want)
			}
			pkcs8, err := x509.MarshalPKCS8PrivateKey(signer)
			if err != nil {
				t.Fatal(err)
			}
			if want := headerSize(keys.PurposeIssuer) + keys.WrappedSize + keys.AEADOverhead + len(pkcs8); len(sealed) != want {
				t.Errorf("sealed key has %d octets, want %d", len(sealed), want)
			}
			if bytes.Contains(sealed, pkcs8[len(pkcs8)/2:]) {
				t.Error("sealed key shows the private key")
			}
		})
	}
}

func TestSealErrors(t *testing.T) {
	kek := newKEK(t)
	signer := generate(t, keys.P256)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ra, err := keys.New(keys.PurposeRA, signer)
	if err != nil {
		t.Fatal(err)
	}
	mismatch := *signer.(*ecdsa.PrivateKey)
	mismatch.PublicKey = *generate(t, keys.P256).Public().(*ecdsa.PublicKey)
	for _, tc := range []struct {
		name    string
		kek     *keys.KEK
		purpose keys.Purpose
		signer  crypto.Signer
		want    error // nil: any
	}{
		{"no kek", nil, "issuer", signer, nil},
		{"zero kek", new(keys.KEK), "issuer", signer, nil},
		{"no purpose", kek, "", signer, keys.ErrWrongPurpose},
		{"malformed purpose", kek, "RA", signer, keys.ErrWrongPurpose},
		{"other purpose", kek, "issuer", ra, keys.ErrWrongPurpose},
		{"no key", kek, "issuer", nil, keys.ErrUnsupportedKey},
		{"nil key", kek, "issuer", (*keys.Key)(nil), keys.ErrUnsupportedKey},
		{"nil ecdsa key", kek, "issuer", (*ecdsa.PrivateKey)(nil), keys.ErrUnsupportedKey},
		{"nil rsa key", kek, "issuer", (*rsa.PrivateKey)(nil), keys.ErrUnsupportedKey},
		{"short ed25519 key", kek, "issuer", ed25519.PrivateKey{1}, keys.ErrUnsupportedKey},
		{"p-224", kek, "issuer", p224, keys.ErrUnsupportedKey},
		{"foreign signer", kek, "issuer", struct{ crypto.Signer }{signer}, keys.ErrUnsupportedKey},
		{"halves of two keys", kek, "issuer", &mismatch, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sealed, err := keys.Seal(tc.kek, tc.purpose, tc.signer)
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("Seal = %x, %v, want %v", sealed, err, tc.want)
			}
		})
	}
	if sealed := seal(t, kek, keys.PurposeRA, ra); len(sealed) == 0 {
		t.Error("a Key cannot be sealed")
	}
}

func TestPurposeValid(t *testing.T) {
	for p, want := range map[keys.Purpose]bool{
		"issuer": true, "ra": true, "a": true, "ocsp-2": true, keys.Purpose(strings.Repeat("a", 32)): true,
		"": false, "RA": false, "2a": false, "-a": false, "a b": false, "a_b": false, "é": false, "a\x00": false,
		keys.Purpose(strings.Repeat("a", 33)): false,
	} {
		if got := p.Valid(); got != want {
			t.Errorf("Purpose(%q).Valid = %v, want %v", p, got, want)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	kek := newKEK(t)
	sealed := seal(t, kek, keys.PurposeRA, generate(t, keys.P256))
	newer := slices.Clone(sealed)
	newer[4]++
	for _, tc := range []struct {
		name    string
		kek     *keys.KEK
		purpose keys.Purpose
		sealed  []byte
		want    error
	}{
		{"other kek", newKEK(t), keys.PurposeRA, sealed, keys.ErrWrongKEK},
		{"other purpose", kek, keys.PurposeIssuer, sealed, keys.ErrWrongPurpose},
		{"no purpose", kek, "", sealed, keys.ErrWrongPurpose},
		{"empty", kek, keys.PurposeRA, nil, keys.ErrCorrupt},
		{"magic only", kek, keys.PurposeRA, []byte("CWSK"), keys.ErrCorrupt},
		{"text", kek, keys.PurposeRA, []byte("-----BEGIN PRIVATE KEY-----"), keys.ErrCorrupt},
		{"newer version", kek, keys.PurposeRA, newer, keys.ErrVersion},
		{"too long", kek, keys.PurposeRA, append(slices.Clone(sealed), make([]byte, keys.MaxSealedBytes)...), keys.ErrCorrupt},
		{"longer", kek, keys.PurposeRA, append(slices.Clone(sealed), 0), keys.ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if key, err := keys.Open(tc.kek, tc.purpose, tc.sealed); !errors.Is(err, tc.want) {
				t.Errorf("Open = %v, %v, want %v", key, err, tc.want)
			}
		})
	}
	for n := range sealed {
		if key, err := keys.Open(kek, keys.PurposeRA, sealed[:n]); !errors.Is(err, keys.ErrCorrupt) {
			t.Errorf("Open of the first %d octets = %v, %v, want ErrCorrupt", n, key, err)
		}
	}
	if key, err := keys.Open(nil, keys.PurposeRA, sealed); err == nil {
		t.Errorf("Open without KEK = %v", key)
	}
}

// Every bit of a sealed key is authenticated.
func TestTamper(t *testing.T) {
	kek := newKEK(t)
	sealed := seal(t, kek, keys.PurposeRA, generate(t, keys.P256))
	kekID := headerSize(keys.PurposeRA) - 8
	for i := range sealed {
		for bit := range 8 {
			bad := slices.Clone(sealed)
			bad[i] ^= 1 << bit
			want := keys.ErrCorrupt
			switch {
			case i == 4:
				want = keys.ErrVersion
			case i >= kekID && i < kekID+8:
				want = keys.ErrWrongKEK
			}
			if i == 5 { // the length moves the KEK id, if the purpose stays well-formed
				if _, err := keys.Open(kek, keys.PurposeRA, bad); errors.Is(err, keys.ErrWrongKEK) {
					want = keys.ErrWrongKEK
				}
			}
			if key, err := keys.Open(kek, keys.PurposeRA, bad); !errors.Is(err, want) {
				t.Fatalf("octet %d, bit %d flipped: Open = %v, %v, want %v", i, bit, key, err, want)
			}
			if out, err := keys.Rewrap(kek, kek, bad); !errors.Is(err, want) {
				t.Fatalf("octet %d, bit %d flipped: Rewrap = %x, %v, want %v", i, bit, out, err, want)
			}
		}
	}
}

// Parts of two sealed keys under one KEK do not go together.
func TestTransplant(t *testing.T) {
	kek := newKEK(t)
	signer := generate(t, keys.P256)
	a := seal(t, kek, keys.PurposeRA, signer)
	b := seal(t, kek, keys.PurposeRA, signer)
	c := seal(t, kek, "io", generate(t, keys.P256))
	head, wrap := headerSize(keys.PurposeRA), headerSize(keys.PurposeRA)+keys.WrappedSize
	for name, parts := range map[string][][]byte{
		"header of another key":       {c[:head], a[head:]},
		"data key of another sealing": {a[:head], b[head:wrap], a[wrap:]},
		"payload of another sealing":  {a[:wrap], b[wrap:]},
		"body of another key":         {a[:head], c[head:]},
		"purpose of another key":      {c[:8], a[8:]},
	} {
		for _, purpose := range []keys.Purpose{keys.PurposeRA, "io"} {
			if key, err := keys.Open(kek, purpose, bytes.Join(parts, nil)); !errors.Is(err, keys.ErrCorrupt) {
				t.Errorf("%s: Open = %v, %v, want ErrCorrupt", name, key, err)
			}
		}
	}
}

func TestRewrap(t *testing.T) {
	from, to := newKEK(t), newKEK(t)
	for _, alg := range fastAlgorithms {
		t.Run(alg.String(), func(t *testing.T) {
			signer := generate(t, alg)
			sealed := seal(t, from, keys.PurposeIssuer, signer)
			before := slices.Clone(sealed)
			moved, err := keys.Rewrap(from, to, sealed)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(sealed, before) {
				t.Error("Rewrap changed its input")
			}
			key, err := keys.Open(to, keys.PurposeIssuer, moved)
			if err != nil {
				t.Fatal(err)
			}
			verify(t, key, signer.Public())
			if _, err := keys.Open(from, keys.PurposeIssuer, moved); !errors.Is(err, keys.ErrWrongKEK) {
				t.Errorf("the old KEK: Open = %v, want ErrWrongKEK", err)
			}
			payload := headerSize(keys.PurposeIssuer) + keys.WrappedSize
			if !bytes.Equal(moved[payload:], sealed[payload:]) {
				t.Error("Rewrap encrypted the payload again")
			}
			// The new header does not go with the old data key, nor the
			// other way round.
			head := headerSize(keys.PurposeIssuer)
			for _, parts := range [][]byte{
				slices.Concat(moved[:head], sealed[head:]),
				slices.Concat(sealed[:head], moved[head:]),
			} {
				for _, kek := range []*keys.KEK{from, to} {
					if key, err := keys.Open(kek, keys.PurposeIssuer, parts); err == nil {
						t.Errorf("mixed parts: Open = %v", key)
					}
				}
			}
		})
	}
	sealed := seal(t, from, keys.PurposeIssuer, generate(t, keys.P256))
	if _, err := keys.Rewrap(to, from, sealed); !errors.Is(err, keys.ErrWrongKEK) {
		t.Errorf("Rewrap from a wrong KEK = %v, want ErrWrongKEK", err)
	}
	for _, none := range []*keys.KEK{nil, new(keys.KEK)} {
		if _, err := keys.Rewrap(from, none, sealed); err == nil {
			t.Error("Rewrap to no KEK = nil")
		}
		if _, err := keys.Rewrap(none, to, sealed); err == nil {
			t.Error("Rewrap from no KEK = nil")
		}
	}
}

func TestSealProperty(t *testing.T) {
	kek, to := newKEK(t), newKEK(t)
	rapid.Check(t, func(t *rapid.T) {
		purpose := keys.Purpose(rapid.StringMatching(`[a-z][a-z0-9-]{0,31}`).Draw(t, "purpose"))
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")
		signer := ed25519.NewKeyFromSeed(seed)
		sealed, err := keys.Seal(kek, purpose, signer)
		if err != nil {
			t.Fatalf("Seal: %v", err)
		}
		if sealed, err = keys.Rewrap(kek, to, sealed); err != nil {
			t.Fatalf("Rewrap: %v", err)
		}
		key, err := keys.Open(to, purpose, sealed)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		if !signer.Public().(ed25519.PublicKey).Equal(key.Public()) || key.Purpose() != purpose {
			t.Errorf("Open = %v, want %x for %q", key, signer.Public(), purpose)
		}
	})
}

// A key sealed by the first version opens with every later one.
func TestSealedGolden(t *testing.T) {
	var secret [32]byte
	for i := range secret {
		secret[i] = byte(i)
	}
	kek := keys.KEKOf(secret)
	if got, want := kek.ID(), "bc806da9d5a3c212"; got != want {
		t.Errorf("KEK id = %s, want %s", got, want)
	}
	text, err := os.ReadFile("testdata/sealed-v1.hex")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.Open(kek, keys.PurposeIssuer, sealed)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := key.String(), "Key(issuer p-256 0cd068b53607851d, secret not shown)"; got != want {
		t.Errorf("Open = %s, want %s", got, want)
	}
	verify(t, key, key.Public())
}

func TestKeyDoesNotPrint(t *testing.T) {
	type holder struct {
		private *keys.Key
		inner   keys.Key
		Public  *keys.Key
	}
	for _, alg := range fastAlgorithms {
		signer := generate(t, alg)
		key, err := keys.New(keys.PurposeIssuer, signer)
		if err != nil {
			t.Fatal(err)
		}
		var secret []byte
		switch s := signer.(type) {
		case *ecdsa.PrivateKey:
			if secret, err = s.Bytes(); err != nil {
				t.Fatal(err)
			}
		case ed25519.PrivateKey:
			secret = s.Seed()
		case *rsa.PrivateKey:
			secret = s.Primes[0].Bytes()
		}
		secret = secret[4:16] // far enough from leading zeros
		leaks := []string{
			hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
			strings.Trim(fmt.Sprint(secret), "[]"), strings.Trim(fmt.Sprintf("%#v", secret), "[]byte{}"),
			"signer:", "Primes", "PrivateKey", "issuer 3",
		}
		if s, ok := signer.(*rsa.PrivateKey); ok {
			leaks = append(leaks, s.Primes[0].String(), s.D.String())
		}
		for name, v := range map[string]any{
			"pointer": key, "value": *key, "holder": holder{key, *key, key}, "slice": []any{key, *key},
		} {
			out := prints(t, v)
			for _, leak := range leaks {
				if strings.Contains(out, leak) {
					t.Errorf("%v, %s shows %q:\n%s", alg, name, leak, out)
				}
			}
		}
	}
	if got := fmt.Sprint(new(keys.Key), (*keys.Key)(nil)); got != "Key(none) <nil>" {
		t.Errorf("empty keys show %q", got)
	}
}

func TestSignRefused(t *testing.T) {
	digest := make([]byte, 32)
	for _, alg := range fastAlgorithms {
		key, err := keys.New(keys.PurposeIssuer, generate(t, alg))
		if err != nil {
			t.Fatal(err)
		}
		if sig, err := key.Sign(nil, digest, nil); err == nil {
			t.Errorf("%v: Sign without options = %x", alg, sig)
		}
		if sig, err := key.Sign(nil, digest[:31], crypto.SHA256); err == nil {
			t.Errorf("%v: Sign of a short digest = %x", alg, sig)
		}
		if sig, err := key.Sign(nil, digest, crypto.Hash(0)); err == nil && alg != keys.Ed25519 {
			t.Errorf("%v: Sign without hash = %x", alg, sig)
		}
	}
}

// A deterministic signature would be open to fault attacks.
func TestSignIsRandomized(t *testing.T) {
	key, err := keys.New(keys.PurposeIssuer, generate(t, keys.P256))
	if err != nil {
		t.Fatal(err)
	}
	digest := make([]byte, 32)
	one, err := key.Sign(nil, digest, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	two, err := key.Sign(nil, digest, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(one, two) {
		t.Error("two signatures of one digest are equal")
	}
}

func TestDecrypt(t *testing.T) {
	signer := rsaKey()
	message := []byte("a content key of 32 octets, yes.")
	encrypted, err := rsa.EncryptPKCS1v15(rand.Reader, &signer.PublicKey, message)
	if err != nil {
		t.Fatal(err)
	}
	oaep, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &signer.PublicKey, message, nil)
	if err != nil {
		t.Fatal(err)
	}
	session := &rsa.PKCS1v15DecryptOptions{SessionKeyLen: len(message)}
	ra, err := keys.New(keys.PurposeRA, signer)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ra.Decrypt(nil, encrypted, session); err != nil || !bytes.Equal(got, message) {
		t.Errorf("Decrypt PKCS1v15 = %q, %v", got, err)
	}
	if got, err := ra.Decrypt(nil, oaep, &rsa.OAEPOptions{Hash: crypto.SHA256}); err != nil || !bytes.Equal(got, message) {
		t.Errorf("Decrypt OAEP = %q, %v", got, err)
	}
	if got, err := ra.Decrypt(nil, oaep, session); err != nil || len(got) != len(message) || bytes.Equal(got, message) {
		t.Errorf("Decrypt of bad padding = %q, %v, want a random key", got, err)
	}
	key := []byte("a preset key of 32 octets, maybe")
	if err := ra.DecryptSessionKey(oaep, key); err != nil || string(key) != "a preset key of 32 octets, maybe" {
		t.Errorf("DecryptSessionKey of bad padding = %q, %v, want the preset key", key, err)
	}
	if err := ra.DecryptSessionKey(encrypted, key[:16]); err != nil || string(key) != "a preset key of 32 octets, maybe" {
		t.Errorf("DecryptSessionKey of another length = %q, %v, want the preset key", key, err)
	}
	if err := ra.DecryptSessionKey(encrypted, key); err != nil || !bytes.Equal(key, message) {
		t.Errorf("DecryptSessionKey = %q, %v", key, err)
	}
	if got, err := ra.Decrypt(nil, encrypted, nil); err == nil {
		t.Errorf("Decrypt without options = %q", got)
	}
	issuer, err := keys.New(keys.PurposeIssuer, signer)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := issuer.Decrypt(nil, encrypted, session); !errors.Is(err, keys.ErrCannotDecrypt) {
		t.Errorf("Decrypt with an issuer key = %q, %v, want ErrCannotDecrypt", got, err)
	}
	if err := issuer.DecryptSessionKey(encrypted, key); !errors.Is(err, keys.ErrCannotDecrypt) {
		t.Errorf("DecryptSessionKey with an issuer key: %v, want ErrCannotDecrypt", err)
	}
	ec, err := keys.New(keys.PurposeRA, generate(t, keys.P256))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ec.Decrypt(nil, encrypted, session); !errors.Is(err, keys.ErrCannotDecrypt) {
		t.Errorf("Decrypt with an EC key = %q, %v, want ErrCannotDecrypt", got, err)
	}
}

// The race detector watches.
func TestConcurrentUse(t *testing.T) {
	kek := newKEK(t)
	for _, alg := range []keys.Algorithm{keys.P256, keys.Ed25519, keys.RSA2048} {
		sealed := seal(t, kek, keys.PurposeRA, generate(t, alg))
		key, err := keys.Open(kek, keys.PurposeRA, sealed)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				verify(t, key, key.Public())
				if _, err := keys.Rewrap(kek, kek, sealed); err != nil {
					t.Error(err)
				}
				_ = fmt.Sprint(key, kek)
			})
		}
		wg.Wait()
	}
}

func fuzzSeeds(f *testing.F, kek *keys.KEK) {
	f.Helper()
	for _, alg := range []keys.Algorithm{keys.P256, keys.Ed25519, keys.RSA2048} {
		for _, purpose := range []keys.Purpose{keys.PurposeIssuer, keys.PurposeRA, "a"} {
			sealed := seal(f, kek, purpose, generate(f, alg))
			f.Add(sealed)
			f.Add(sealed[:headerSize(purpose)])
		}
	}
	text, err := os.ReadFile("testdata/sealed-v1.hex")
	if err != nil {
		f.Fatal(err)
	}
	golden, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte("CWSK\x01\xff"))
	f.Add([]byte("CWSK\x02\x02ra"))
}

func FuzzHeader(f *testing.F) {
	fuzzSeeds(f, newKEK(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := slices.Clone(data)
		h, err := keys.Header(data)
		if !bytes.Equal(data, before) {
			t.Error("Header changed its input")
		}
		if err != nil {
			if !errors.Is(err, keys.ErrCorrupt) && !errors.Is(err, keys.ErrVersion) {
				t.Errorf("Header = %v, want ErrCorrupt or ErrVersion", err)
			}
			return
		}
		// One way only to write a header.
		again := append([]byte("CWSK\x01"), byte(len(h.Purpose)))
		again = append(again, h.Purpose...)
		again = append(again, h.SPKIHash[:]...)
		id, err := hex.DecodeString(h.KEKID)
		if err != nil {
			t.Fatal(err)
		}
		again = append(again, id...)
		if !h.Purpose.Valid() || !bytes.HasPrefix(data, again) || h.KeyID != hex.EncodeToString(h.SPKIHash[:8]) {
			t.Errorf("Header = %+v of %x", h, data)
		}
	})
}

func FuzzOpen(f *testing.F) {
	var secret [32]byte
	for i := range secret {
		secret[i] = byte(i)
	}
	kek := keys.KEKOf(secret)
	fuzzSeeds(f, kek)
	f.Fuzz(func(t *testing.T, data []byte) {
		h, headerErr := keys.Header(data)
		key, err := keys.Open(kek, h.Purpose, data)
		switch {
		case err == nil && (headerErr != nil || key.KeyID() != h.KeyID || key.Purpose() != h.Purpose):
			t.Errorf("Open = %v, Header = %+v, %v", key, h, headerErr)
		case err != nil && !errors.Is(err, keys.ErrCorrupt) && !errors.Is(err, keys.ErrVersion) && !errors.Is(err, keys.ErrWrongKEK):
			t.Errorf("Open = %v, want one of the three", err)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	digest := make([]byte, 32)
	for _, alg := range fastAlgorithms {
		signer := generate(b, alg)
		key, err := keys.New(keys.PurposeIssuer, signer)
		if err != nil {
			b.Fatal(err)
		}
		var opts crypto.SignerOpts = crypto.SHA256
		if alg == keys.Ed25519 {
			opts = crypto.Hash(0)
		}
		b.Run(alg.String(), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := key.Sign(nil, digest, opts); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	kek := newKEK(b)
	for _, alg := range fastAlgorithms {
		sealed := seal(b, kek, keys.PurposeIssuer, generate(b, alg))
		b.Run(alg.String(), func(b *testing.B) {
			for b.Loop() {
				if _, err := keys.Open(kek, keys.PurposeIssuer, sealed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
