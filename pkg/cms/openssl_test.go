package cms_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/cms"
)

// OpenSSL is the second opinion, as writer and as reader.

type openssl struct {
	t   testing.TB
	dir string
}

func newOpenSSL(t testing.TB) *openssl {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CERTWRIGHT_TEST_REQUIRE") != "" {
			t.Fatal("openssl is not installed")
		}
		t.Skip("openssl is not installed")
	}
	return &openssl{t, t.TempDir()}
}

func (o *openssl) write(name string, b []byte) string {
	o.t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		o.t.Fatal(err)
	}
	return path
}

// identity writes the files id.crt and id.key.
func (o *openssl) identity(id identity) {
	o.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(id.key)
	if err != nil {
		o.t.Fatal(err)
	}
	o.write("id.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	o.write("id.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.certificate.Raw}))
}

// run runs a line of arguments on input and returns what comes out.
func (o *openssl) run(input []byte, line string) []byte {
	o.t.Helper()
	cmd := exec.Command("openssl", strings.Fields(line)...)
	cmd.Dir, cmd.Stdin = o.dir, bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		o.t.Fatalf("openssl %s: %v\n%s", line, err, stderr.Bytes())
	}
	return out
}

const legacyProviders = " -provider legacy -provider default"

var content = []byte("content\x00\xff of a message that fills more than one block\n")

func TestReadsOpenSSLEnveloped(t *testing.T) {
	t.Parallel()
	o := newOpenSSL(t)
	id := selfSigned(t, rsaKey(), func(c *x509.Certificate) { c.SubjectKeyId = []byte{1, 2, 3, 4} })
	o.identity(id)
	r := id.recipient(t)
	tests := []struct {
		flags     string
		cipher    cms.Cipher
		transport cms.KeyTransport
	}{
		{"-aes128", cms.AES128CBC, cms.KeyTransport{}},
		{"-aes192", cms.AES192CBC, cms.KeyTransport{}},
		{"-aes256", cms.AES256CBC, cms.KeyTransport{}},
		{"-des3", cms.DES3CBC, cms.KeyTransport{}},
		{"-des-cbc" + legacyProviders, cms.DESCBC, cms.KeyTransport{}},
		{"-aes128 -stream", cms.AES128CBC, cms.KeyTransport{}}, // indefinite lengths, encryptedContent in pieces
		{"-aes128 -keyid", cms.AES128CBC, cms.KeyTransport{}},
		{"-aes128 -recip id.crt -keyopt rsa_padding_mode:oaep", cms.AES128CBC, cms.KeyTransport{crypto.SHA1, crypto.SHA1}},
		{"-aes256 -recip id.crt -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256", cms.AES256CBC, cms.KeyTransport{crypto.SHA256, crypto.SHA256}},
		{"-des3 -recip id.crt -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha384 -keyopt rsa_mgf1_md:sha1", cms.DES3CBC, cms.KeyTransport{crypto.SHA384, crypto.SHA1}},
		{"-aes192 -recip id.crt -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha512 -keyopt rsa_oaep_label:6c6162656c", cms.AES192CBC, cms.KeyTransport{crypto.SHA512, crypto.SHA512}},
	}
	for _, tt := range tests {
		flags := tt.flags
		if !strings.Contains(flags, "-recip") {
			flags += " -recip id.crt"
		}
		raw := o.run(content, "cms -encrypt -binary -outform DER "+flags)
		e, err := cms.ParseEnvelopedData(raw, cms.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", tt.flags, err)
		}
		if e.Cipher != tt.cipher || e.KeyTransport(r) != tt.transport {
			t.Errorf("%s: got %v, %v", tt.flags, e.Cipher, e.KeyTransport(r))
		}
		if got, err := e.Decrypt(r, cms.DecryptOptions{AllowDES: true}); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: got %q, %v", tt.flags, got, err)
		}
		_, err = e.Recipient(device().recipient(t)) // same key, other certificate
		if strings.Contains(tt.flags, "-keyid") && err == nil {
			t.Errorf("%s: another key identifier is found", tt.flags)
		}
	}
	for _, flags := range []string{"-aes128", "-aes256", "-des3", "-aes192 -stream"} {
		raw := o.run(content, "cms -encrypt -binary -outform DER -pwri_password secret "+flags)
		e, err := cms.ParseEnvelopedData(raw, cms.Limits{})
		if err != nil {
			t.Fatalf("password, %s: %v", flags, err)
		}
		if got, err := e.DecryptWithPassword([]byte("secret"), cms.PasswordOptions{}); err != nil || !bytes.Equal(got, content) {
			t.Errorf("password, %s: got %q, %v", flags, got, err)
		}
	}
}

func TestOpenSSLReadsEnveloped(t *testing.T) {
	t.Parallel()
	o := newOpenSSL(t)
	o.identity(device())
	list := transports()
	for i, c := range cms.Ciphers() {
		for j, k := range list {
			if c != cms.AES128CBC && j != i { // all transports once, all ciphers at least twice
				if j != 0 {
					continue
				}
			}
			raw, err := cms.Encrypt(content, device().certificate, cms.Encryption{Cipher: c, KeyTransport: k})
			if err != nil {
				t.Fatal(err)
			}
			got := o.run(raw, "cms -decrypt -binary -inform DER -recip id.crt -inkey id.key"+legacyProviders)
			if !bytes.Equal(got, content) {
				t.Errorf("%v, %v: got %q", c, k, got)
			}
		}
	}
	for i, c := range cms.Ciphers()[:4] {
		raw, err := cms.EncryptToPassword(content, []byte("secret"), cms.PasswordEncryption{Cipher: c, PRF: digests[i]})
		if err != nil {
			t.Fatal(err)
		}
		if got := o.run(raw, "cms -decrypt -binary -inform DER -pwri_password secret"); !bytes.Equal(got, content) {
			t.Errorf("password, %v: got %q", c, got)
		}
	}
}

func TestReadsOpenSSLSigned(t *testing.T) {
	t.Parallel()
	o := newOpenSSL(t)
	for name, id := range signers(t) {
		if name == "Ed25519" {
			continue // OpenSSL 3.0 does not know RFC 8419
		}
		o.identity(id)
		for _, flags := range []string{
			"-md sha1", "-md sha256", "-md sha384", "-md sha512", "-md sha256 -stream", "-md sha256 -keyid",
			"-md sha256 -keyopt rsa_padding_mode:pss", "-md sha1 -keyopt rsa_padding_mode:pss -keyopt rsa_pss_saltlen:20", "-md md5",
		} {
			if strings.Contains(flags, "rsa_") && name != "RSA" {
				continue
			}
			md5 := strings.Contains(flags, "md5")
			if md5 && name != "RSA" {
				continue // there is no ECDSA with MD5
			}
			if strings.Contains(flags, "-keyid") && len(id.certificate.SubjectKeyId) == 0 {
				id = selfSigned(t, id.key, func(c *x509.Certificate) { c.SubjectKeyId = []byte{1, 2, 3, 4} })
				o.identity(id)
			}
			raw := o.run(content, "cms -sign -nodetach -binary -outform DER -signer id.crt -inkey id.key "+flags)
			sd, err := cms.ParseSignedData(raw, cms.Limits{})
			if err != nil {
				t.Fatalf("%s, %s: %v", name, flags, err)
			}
			if md5 {
				_, _, err := sd.Verify(cms.VerifyOptions{})
				isBad(t, err, cms.ErrAlgorithm)
			}
			_, c, err := sd.Verify(cms.VerifyOptions{AllowMD5: md5})
			if err != nil {
				t.Errorf("%s, %s: %v", name, flags, err)
				continue
			}
			if !c.Equal(id.certificate) || !bytes.Equal(sd.Content, content) {
				t.Errorf("%s, %s: other certificate or content %q", name, flags, sd.Content)
			}
		}
	}
}

func TestOpenSSLReadsSigned(t *testing.T) {
	t.Parallel()
	o := newOpenSSL(t)
	for name, id := range signers(t) {
		if name == "Ed25519" {
			continue // OpenSSL 3.0 does not know RFC 8419
		}
		o.identity(id)
		for _, digest := range digests {
			raw, err := id.signer(t).Sign(cms.SignedDataConfig{Content: content, Digest: digest, Attributes: []cms.Attribute{
				cms.SigningTimeAttribute(time.Now()), cms.UTF8StringAttribute(cms.OIDFailInfoText, "é"),
			}})
			if err != nil {
				t.Fatal(err)
			}
			got := o.run(raw, "cms -verify -noverify -binary -inform DER -signer out.crt")
			if !bytes.Equal(got, content) {
				t.Errorf("%s, %v: got %q", name, digest, got)
			}
		}
	}
}

func TestOpenSSLReadsDegenerate(t *testing.T) {
	t.Parallel()
	o := newOpenSSL(t)
	var want, list [][]byte
	for range 3 {
		id := selfSigned(t, device().key)
		list = append(list, id.certificate.Raw)
		want = append(want, bytes.TrimSpace(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.certificate.Raw})))
	}
	raw := cms.CertificatesOnly(list...)
	got := o.run(raw, "pkcs7 -inform DER -print_certs")
	at := 0
	for i, w := range want {
		n := bytes.Index(got[at:], w)
		if n < 0 {
			t.Fatalf("certificate %d is not there, or not in its order:\n%s", i, got)
		}
		at += n
	}
	sd, err := cms.ParseSignedData(raw, cms.Limits{})
	if err != nil || sd.Content != nil || len(sd.Signers) != 0 || len(sd.Certificates) != 3 {
		t.Fatalf("own reading: %+v, %v", sd, err)
	}
	for i := range list {
		if !bytes.Equal(sd.Certificates[i], list[i]) {
			t.Errorf("own reading: certificate %d differs", i)
		}
	}

	ca := selfSigned(t, device().key, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.SubjectKeyId = true, true, x509.KeyUsageCRLSign, []byte{1}
	})
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: time.Now()}},
	}, ca.certificate, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	raw = cms.CRLsOnly(crl)
	if got := o.run(raw, "pkcs7 -inform DER -print_certs"); !bytes.Contains(got, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl})) {
		t.Errorf("OpenSSL does not find the CRL:\n%s", got)
	}
	if sd, err := cms.ParseSignedData(raw, cms.Limits{}); err != nil || len(sd.CRLs) != 1 || !bytes.Equal(sd.CRLs[0], crl) {
		t.Errorf("own reading: %+v, %v", sd, err)
	}
}
