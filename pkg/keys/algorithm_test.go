package keys_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/big"
	"sync"
	"testing"

	"github.com/certwright/certwright/pkg/keys"
)

// rsaKey is one RSA key for all tests: making one is slow.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func generate(t testing.TB, alg keys.Algorithm) crypto.Signer {
	t.Helper()
	if alg == keys.RSA2048 {
		return rsaKey()
	}
	signer, err := keys.Generate(alg)
	if err != nil {
		t.Fatalf("Generate(%v): %v", alg, err)
	}
	return signer
}

// fastAlgorithms is one of each kind and curve.
var fastAlgorithms = []keys.Algorithm{keys.P256, keys.P384, keys.P521, keys.Ed25519, keys.RSA2048}

func TestGenerate(t *testing.T) {
	for _, alg := range keys.Algorithms() {
		t.Run(alg.String(), func(t *testing.T) {
			if testing.Short() && alg > keys.RSA2048 {
				t.Skip("slow")
			}
			signer, err := keys.Generate(alg)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := keys.AlgorithmOf(signer.Public()); err != nil || got != alg {
				t.Errorf("AlgorithmOf = %v, %v, want %v", got, err, alg)
			}
			if err := keys.CheckPublicKey(signer.Public(), keys.Rules{}); err != nil {
				t.Errorf("CheckPublicKey = %v for a key of ours", err)
			}
		})
	}
	for _, alg := range []keys.Algorithm{4, 1024, 2432, 8192, 65535} {
		if _, err := keys.Generate(alg); !errors.Is(err, keys.ErrUnsupportedKey) {
			t.Errorf("Generate(%v) = %v, want ErrUnsupportedKey", alg, err)
		}
	}
}

func TestAlgorithmText(t *testing.T) {
	var zero keys.Algorithm
	if zero != keys.P256 || zero.String() != "p-256" {
		t.Errorf("zero value is %v, want p-256", zero)
	}
	want := []string{"p-256", "p-384", "p-521", "ed25519", "rsa-2048", "rsa-3072", "rsa-4096"}
	for i, alg := range keys.Algorithms() {
		if alg.String() != want[i] {
			t.Errorf("String = %q, want %q", alg, want[i])
		}
		got, err := keys.ParseAlgorithm(want[i])
		if err != nil || got != alg {
			t.Errorf("ParseAlgorithm(%q) = %v, %v", want[i], got, err)
		}
		text, err := json.Marshal(alg)
		if err != nil {
			t.Fatal(err)
		}
		var back keys.Algorithm
		if err := json.Unmarshal(text, &back); err != nil || back != alg {
			t.Errorf("JSON %s gives %v, %v", text, back, err)
		}
	}
	for _, bad := range []string{"", "P-256", "rsa", "rsa-1024", "rsa-2432", "rsa-02048", "p256", "ed25519 "} {
		if got, err := keys.ParseAlgorithm(bad); err == nil {
			t.Errorf("ParseAlgorithm(%q) = %v, want an error", bad, got)
		}
	}
	if got := keys.Algorithm(8192).String(); got != "rsa-8192" {
		t.Errorf("String = %q, want rsa-8192", got)
	}
	if got := keys.Algorithm(1024).String(); got != "algorithm(1024)" {
		t.Errorf("String = %q, want algorithm(1024)", got)
	}
	if _, err := keys.Algorithm(1024).MarshalText(); err == nil {
		t.Error("MarshalText of an unnamed value, want an error")
	}
}

func TestAlgorithmTitle(t *testing.T) {
	for name, want := range map[string]string{
		"p-256": "ECDSA P-256", "p-384": "ECDSA P-384", "p-521": "ECDSA P-521", "ed25519": "Ed25519", "rsa-2048": "RSA 2048", "rsa-2432": "RSA 2432",
		"": "", "p-224": "p-224", "algorithm(9)": "algorithm(9)",
	} {
		if got := keys.Title(name); got != want {
			t.Errorf("Title(%q) = %q, want %q", name, got, want)
		}
	}
	const want = `key algorithm "rsa-1024" is none of p-256, p-384, p-521, ed25519, rsa-2048, rsa-3072, rsa-4096`
	if _, err := keys.ParseAlgorithm("rsa-1024"); err == nil || err.Error() != want {
		t.Errorf("ParseAlgorithm: %v, want %s", err, want)
	}
}

func TestAlgorithmOf(t *testing.T) {
	p224, err := ecdsa.GenerateKey(keys.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	odd := func(bits uint) *rsa.PublicKey {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}
	}
	for _, tc := range []struct {
		name string
		pub  crypto.PublicKey
		want string // empty: ErrUnsupportedKey
	}{
		{"rsa 2048", odd(2048), "rsa-2048"},
		{"rsa 2432", odd(2432), "rsa-2432"},
		{"rsa 8192", odd(8192), "rsa-8192"},
		{"rsa 2047", odd(2047), ""},
		{"rsa 8193", odd(8193), ""},
		{"rsa 67584 would overflow", odd(65536 + 2048), ""},
		{"rsa nil", (*rsa.PublicKey)(nil), ""},
		{"rsa empty", &rsa.PublicKey{}, ""},
		{"ecdsa nil", (*ecdsa.PublicKey)(nil), ""},
		{"ecdsa empty", &ecdsa.PublicKey{}, ""},
		{"p-224", p224.Public(), ""},
		{"p-384", &ecdsa.PublicKey{Curve: elliptic.P384()}, "p-384"},
		{"x25519", x25519.Public(), ""},
		{"ed25519 by pointer", new(ed25519.PublicKey), ""},
		{"nil", nil, ""},
		{"text", "key", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := keys.AlgorithmOf(tc.pub)
			if tc.want == "" {
				if !errors.Is(err, keys.ErrUnsupportedKey) {
					t.Errorf("AlgorithmOf = %v, %v, want ErrUnsupportedKey", got, err)
				}
			} else if err != nil || got.String() != tc.want {
				t.Errorf("AlgorithmOf = %v, %v, want %s", got, err, tc.want)
			}
		})
	}
}

func TestKeyID(t *testing.T) {
	// printf '' | sha256sum
	if got, want := keys.KeyID(nil), "e3b0c44298fc1c14"; got != want {
		t.Errorf("KeyID = %s, want %s", got, want)
	}
	signer := generate(t, keys.P256)
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.New(keys.PurposeIssuer, signer)
	if err != nil {
		t.Fatal(err)
	}
	if key.KeyID() != keys.KeyID(spki) || key.SPKIHash() != keys.SPKIHash(spki) || string(key.SPKI()) != string(spki) {
		t.Errorf("Key names %s, functions name %s", key.KeyID(), keys.KeyID(spki))
	}
}
