package rest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gopkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/certwright/certwright/pkg/keys"
)

// newChain makes a root, an issuing CA and a certificate for the key.
func newChain(t *testing.T, key crypto.Signer) []*x509.Certificate {
	t.Helper()
	now := time.Now()
	var chain []*x509.Certificate
	var parent *x509.Certificate
	var parentKey crypto.Signer
	for i, name := range []string{"Test Root", "Test Issuing", "Zoë of Test"} {
		k := key
		if i < 2 {
			var err error
			if k, err = keys.Generate(keys.P256); err != nil {
				t.Fatal(err)
			}
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			BasicConstraintsValid: true, IsCA: i < 2,
		}
		if parent == nil {
			parent, parentKey = template, k
		}
		raw, err := x509.CreateCertificate(rand.Reader, template, parent, k.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		chain = append([]*x509.Certificate{c}, chain...)
		parent, parentKey = c, k
	}
	return chain
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" || os.Getenv("CERTWRIGHT_TEST_REQUIRE") == "1" {
			t.Fatalf("%s is missing: scripts/test installs what the tests need", name)
		}
		t.Skipf("SKIPPED, NOT TESTED: %s is not installed here; PKCS #12 files were not opened with it", name)
	}
	return path
}

func runTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestPKCS12(t *testing.T) {
	const password = "correct horse <battery>"
	for _, alg := range []keys.Algorithm{keys.P256, keys.RSA2048, keys.Ed25519} {
		key, err := keys.Generate(alg)
		if err != nil {
			t.Fatal(err)
		}
		chain := newChain(t, key)
		for _, compat := range []bool{false, true} {
			form := map[bool]string{false: "modern", true: "compat"}[compat]
			t.Run(alg.String()+"/"+form, func(t *testing.T) {
				file, err := PKCS12{Key: key, Chain: chain, FriendlyName: "Zoë 🐈", Password: password, Compat: compat}.Encode()
				if err != nil {
					t.Fatal(err)
				}
				// Another implementation reads it.
				got, leaf, issuers, err := gopkcs12.DecodeChain(file, password)
				if err != nil {
					t.Fatal(err)
				}
				if k, ok := got.(interface{ Equal(crypto.PrivateKey) bool }); !ok || !k.Equal(key) {
					t.Error("the key came back as another")
				}
				if !leaf.Equal(chain[0]) || len(issuers) != 2 || !issuers[0].Equal(chain[1]) || !issuers[1].Equal(chain[2]) {
					t.Error("the chain came back as another")
				}
				if _, _, _, err := gopkcs12.DecodeChain(file, "correct horse  battery"); err == nil {
					t.Error("another password opens it")
				}
				path := filepath.Join(t.TempDir(), "file.p12")
				if err := os.WriteFile(path, file, 0o600); err != nil {
					t.Fatal(err)
				}
				t.Run("openssl", func(t *testing.T) {
					openssl := tool(t, "openssl")
					legacy := []string{}
					if compat {
						legacy = append(legacy, "-legacy")
					}
					out := runTool(t, openssl, append([]string{"pkcs12", "-in", path, "-passin", "pass:" + password, "-nodes", "-info"}, legacy...)...)
					want := []string{"MAC: sha256, Iteration 100000", "PBES2, PBKDF2, AES-256-CBC, Iteration 100000, PRF hmacWithSHA256"}
					if compat {
						want = []string{"MAC: sha1, Iteration 2048", "pbeWithSHA1And3-KeyTripleDES-CBC, Iteration 2048"}
					}
					for _, w := range append(want, "friendlyName: Zo", "BEGIN PRIVATE KEY") {
						if !strings.Contains(out, w) {
							t.Errorf("openssl does not say %q:\n%s", w, out)
						}
					}
					if n := strings.Count(out, "BEGIN CERTIFICATE"); n != 3 {
						t.Errorf("openssl finds %d certificates, want 3", n)
					}
					if n := strings.Count(out, "friendlyName"); n != 2 {
						t.Errorf("%d friendly names, want the key's and its certificate's", n)
					}
					if strings.Contains(out, "RC2-") { // as in RC2-CBC; base64 may well have the letters
						t.Error("something is encrypted with RC2")
					}
				})
				if alg == keys.P256 { // Java takes a second to start: one kind of key tells
					t.Run("keytool", func(t *testing.T) {
						out := runTool(t, tool(t, "keytool"), "-list", "-v", "-storetype", "PKCS12", "-keystore", path, "-storepass", password)
						for _, w := range []string{"Entry type: PrivateKeyEntry", "Certificate chain length: 3", "Alias name: zo"} {
							if !strings.Contains(out, w) {
								t.Errorf("keytool does not say %q:\n%s", w, out)
							}
						}
					})
				}
				if alg != keys.Ed25519 { // NSS does not read such keys from PKCS #12
					t.Run("pk12util", func(t *testing.T) {
						pk12util := tool(t, "pk12util")
						db := "sql:" + t.TempDir()
						runTool(t, pk12util, "-i", path, "-d", db, "-K", "", "-W", password)
						if out := runTool(t, pk12util, "-l", path, "-d", db, "-K", "", "-W", password); !strings.Contains(out, "Friendly Name: Zo") {
							t.Errorf("pk12util does not tell the friendly name:\n%s", out)
						}
					})
				}
			})
		}
	}
}

func TestPKCS12Refuses(t *testing.T) {
	key, err := keys.Generate(keys.P256)
	if err != nil {
		t.Fatal(err)
	}
	other, err := keys.Generate(keys.P256)
	if err != nil {
		t.Fatal(err)
	}
	chain := newChain(t, key)
	for _, tt := range []struct {
		name, want string
		p          PKCS12
	}{
		{"no password", "0 characters", PKCS12{Key: key, Chain: chain}},
		{"a short password", "11 characters", PKCS12{Key: key, Chain: chain, Password: strings.Repeat("x", 11)}},
		{"a long password", "129 characters", PKCS12{Key: key, Chain: chain, Password: strings.Repeat("x", 129)}},
		{"a password beyond ASCII", "ASCII", PKCS12{Key: key, Chain: chain, Password: "pässword-pässword"}},
		{"another's key", "not the key's", PKCS12{Key: other, Chain: chain, Password: strings.Repeat("x", 12)}},
		{"no certificate", "no certificate", PKCS12{Key: key, Password: strings.Repeat("x", 12)}},
		{"no key", "no key", PKCS12{Chain: chain, Password: strings.Repeat("x", 12)}},
	} {
		out, err := tt.p.Encode()
		if err == nil || !strings.Contains(err.Error(), tt.want) || out != nil {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	// The longest is taken; nothing is the same twice.
	p := PKCS12{Key: key, Chain: chain, Password: strings.Repeat("x", 128)}
	one, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	two, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(one, two) {
		t.Error("two files of one key are the same: salts repeat")
	}
}
