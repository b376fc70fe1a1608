package server

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
)

func TestWeakKeysAreRefused(t *testing.T) {
	k, err := keys.Generate(keys.P256)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	hash := keys.SPKIHash(spki)
	path := filepath.Join(t.TempDir(), "weak")
	if err := os.WriteFile(path, []byte(hex.EncodeToString(hash[:])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := keyRules(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (csr.Parser{KeyRules: rules}).Parse(raw); !fault.Is(err, fault.BadPublicKey) {
		t.Errorf("a listed key: %v, want BadPublicKey", err)
	}
	if _, err := csr.Parse(raw); err != nil {
		t.Errorf("the same without the list: %v", err)
	}
	if err := os.WriteFile(path, []byte("not hexadecimal\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{path, path + ".none"} {
		if _, err := keyRules(bad); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}
