package keys_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/keys"
)

func encodePEM(label string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
}

func TestPrivateKeyPEM(t *testing.T) {
	for _, alg := range fastAlgorithms {
		t.Run(alg.String(), func(t *testing.T) {
			signer := generate(t, alg)
			text, err := keys.MarshalPrivateKeyPEM(signer)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(text, []byte("-----BEGIN PRIVATE KEY-----\n")) {
				t.Errorf("MarshalPrivateKeyPEM = %.30s", text)
			}
			path := filepath.Join(folder(t), "key.pem")
			if err := keys.WriteFile(path, text, false); err != nil {
				t.Fatal(err)
			}
			back, err := keys.ReadPrivateKeyPEM(path)
			if err != nil {
				t.Fatal(err)
			}
			if !signer.(interface{ Equal(crypto.PrivateKey) bool }).Equal(back) {
				t.Error("another key came back")
			}
		})
	}
	key, err := keys.New(keys.PurposeIssuer, generate(t, keys.P256))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := keys.MarshalPrivateKeyPEM(key); !errors.Is(err, keys.ErrUnsupportedKey) {
		t.Errorf("MarshalPrivateKeyPEM of a Key = %s, %v, want ErrUnsupportedKey", text, err)
	}
}

func TestParsePrivateKeyPEM(t *testing.T) {
	ec := generate(t, keys.P256).(*ecdsa.PrivateKey)
	must := func(der []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	sec1 := encodePEM("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ec)))
	pkcs1 := encodePEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey()))
	pkcs8 := encodePEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ec)))
	certificate := encodePEM("CERTIFICATE", []byte{0x30, 0})
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	legacy := string(pem.EncodeToMemory(&pem.Block{
		Type:    "RSA PRIVATE KEY",
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"},
		Bytes:   []byte{1, 2, 3},
	}))
	anyError := errors.New("any")
	for _, tc := range []struct {
		name string
		text string
		want error // nil: parses
		says string
	}{
		{"pkcs#8", pkcs8, nil, ""},
		{"sec 1", sec1, nil, ""},
		{"pkcs#1", pkcs1, nil, ""},
		{"sec 1 after parameters", encodePEM("EC PARAMETERS", []byte{6, 8}) + sec1, nil, ""},
		{"after certificate and text", "subject=CN = a\n" + certificate + "text\n" + pkcs8, nil, ""},
		{"line ends of DOS", strings.ReplaceAll(pkcs8, "\n", "\r\n"), nil, ""},
		{"two keys", pkcs8 + pkcs1, anyError, "more than one"},
		{"empty", "", keys.ErrNoPrivateKey, "not PEM"},
		{"DER", string(must(x509.MarshalPKCS8PrivateKey(ec))), keys.ErrNoPrivateKey, "not PEM"},
		{"certificate", certificate, keys.ErrNoPrivateKey, "holds certificate"},
		{"public key", encodePEM("PUBLIC KEY", []byte{0x30, 0}), keys.ErrNoPrivateKey, "holds public key"},
		{"request", encodePEM("CERTIFICATE REQUEST", []byte{0x30, 0}), keys.ErrNoPrivateKey, "holds certificate request"},
		{"parameters only", encodePEM("EC PARAMETERS", []byte{6, 8}), keys.ErrNoPrivateKey, ""},
		{"encrypted pkcs#8", encodePEM("ENCRYPTED PRIVATE KEY", []byte{0x30, 0}), keys.ErrEncryptedKey, "openssl"},
		{"encrypted in the old way", legacy, keys.ErrEncryptedKey, ""},
		{"openssh", encodePEM("OPENSSH PRIVATE KEY", []byte("openssh-key-v1")), keys.ErrUnsupportedKey, "PKCS#8"},
		{"x25519", encodePEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(x25519))), keys.ErrUnsupportedKey, ""},
		{"p-224", encodePEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(p224))), keys.ErrUnsupportedKey, "P-224"},
		{"rsa-1024", encodePEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(small))), keys.ErrUnsupportedKey, "1024 bits"},
		{"damaged", encodePEM("PRIVATE KEY", []byte{0x30, 1}), anyError, "parsing private key"},
		{"too long", strings.Repeat("\n", keys.MaxPEMBytes) + pkcs8, anyError, "longer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			signer, err := keys.ParsePrivateKeyPEM([]byte(tc.text))
			if tc.want == nil {
				if err != nil {
					t.Fatalf("ParsePrivateKeyPEM = %v", err)
				}
				verify(t, signer, signer.Public())
				return
			}
			if err == nil || tc.want != anyError && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("ParsePrivateKeyPEM = %v, want %v that says %q", err, tc.want, tc.says)
			}
		})
	}
	dir := folder(t)
	long := filepath.Join(dir, "long")
	if err := os.WriteFile(long, make([]byte, keys.MaxPEMBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{long, dir, filepath.Join(dir, "missing"), os.DevNull} {
		if _, err := keys.ReadPrivateKeyPEM(path); err == nil {
			t.Errorf("ReadPrivateKeyPEM(%s) = nil", path)
		}
	}
}

func FuzzParsePrivateKeyPEM(f *testing.F) {
	for _, alg := range fastAlgorithms {
		text, err := keys.MarshalPrivateKeyPEM(generate(f, alg))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMAA=\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		signer, err := keys.ParsePrivateKeyPEM(data)
		if err != nil {
			return
		}
		text, err := keys.MarshalPrivateKeyPEM(signer)
		if err != nil {
			t.Fatalf("MarshalPrivateKeyPEM: %v", err)
		}
		if _, err := keys.ParsePrivateKeyPEM(text); err != nil {
			t.Errorf("ParsePrivateKeyPEM of what was marshalled: %v", err)
		}
	})
}
