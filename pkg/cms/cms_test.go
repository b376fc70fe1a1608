package cms_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/cms"
	"github.com/certwright/certwright/pkg/fault"
)

// identity is a key with a self-signed certificate.
type identity struct {
	key         crypto.Signer
	certificate *x509.Certificate
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(2048) })

func newRSA(bits int) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return k
}

func selfSigned(t testing.TB, key crypto.Signer, edit ...func(*x509.Certificate)) identity {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "device", Organization: []string{"Example"}},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	for _, e := range edit {
		e(template)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return identity{key, c}
}

var device = sync.OnceValue(func() identity { return selfSigned(&testing.B{}, rsaKey()) })

func (i identity) signer(t testing.TB) *cms.Signer {
	t.Helper()
	s, err := cms.NewSigner(i.certificate, i.key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (i identity) recipient(t testing.TB) *cms.Recipient {
	t.Helper()
	r, err := cms.NewRecipient(i.certificate, i.key.(crypto.Decrypter))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func signers(t testing.TB) map[string]identity {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]identity{"RSA": device(), "P-256": selfSigned(t, p256), "Ed25519": selfSigned(t, ed)}
}

var digests = []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512}

// isBad checks that an error is a BadRequest that wraps a sentinel.
func isBad(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || !fault.Is(err, fault.BadRequest) {
		t.Fatalf("got %v, want a BadRequest that wraps %q", err, want)
	}
}

func TestSignedRoundTrip(t *testing.T) {
	for name, id := range signers(t) {
		for _, digest := range digests {
			for _, content := range [][]byte{nil, []byte("content")} {
				raw, err := id.signer(t).Sign(cms.SignedDataConfig{Content: content, Digest: digest, Attributes: []cms.Attribute{
					cms.PrintableStringAttribute(cms.OIDTransactionID, "a*b"),
					cms.SigningTimeAttribute(time.Unix(1234567890, 5)),
				}})
				if err != nil {
					t.Fatal(err)
				}
				sd, err := cms.ParseSignedData(raw, cms.Limits{})
				if err != nil {
					t.Fatal(err)
				}
				si, c, err := sd.Verify(cms.VerifyOptions{})
				if err != nil {
					t.Fatalf("%s, %v: %v", name, digest, err)
				}
				if !c.Equal(id.certificate) || sd.Content == nil || !bytes.Equal(sd.Content, content) {
					t.Errorf("%s: other certificate or content %q", name, sd.Content)
				}
				if got, err := si.Attributes.PrintableString(cms.OIDTransactionID); got != "a*b" || err != nil {
					t.Errorf("%s: transactionID %q, %v", name, got, err)
				}
				if got, err := si.Attributes.SigningTime(); !got.Equal(time.Unix(1234567890, 0)) || err != nil {
					t.Errorf("%s: signingTime %v, %v", name, got, err)
				}
			}
		}
	}
}

func transports() []cms.KeyTransport {
	list := []cms.KeyTransport{{}}
	for _, h := range digests {
		list = append(list, cms.KeyTransport{OAEPHash: h, MGFHash: h})
	}
	return append(list, cms.KeyTransport{OAEPHash: crypto.SHA256, MGFHash: crypto.SHA1})
}

func TestEnvelopedRoundTrip(t *testing.T) {
	r := device().recipient(t)
	for _, c := range cms.Ciphers() {
		for _, k := range transports() {
			for n := range 34 {
				if n > 2 && k.OAEPHash != 0 {
					break
				}
				content := bytes.Repeat([]byte{7}, n)
				raw, err := cms.Encrypt(content, r.Certificate(), cms.Encryption{Cipher: c, KeyTransport: k})
				if err != nil {
					t.Fatal(err)
				}
				e, err := cms.ParseEnvelopedData(raw, cms.Limits{})
				if err != nil {
					t.Fatal(err)
				}
				if e.Cipher != c || e.KeyTransport(r) != k {
					t.Errorf("got %v, %v, want %v, %v", e.Cipher, e.KeyTransport(r), c, k)
				}
				if c.Legacy() {
					_, err := e.Decrypt(r, cms.DecryptOptions{})
					isBad(t, err, cms.ErrAlgorithm)
				}
				got, err := e.Decrypt(r, cms.DecryptOptions{AllowDES: true})
				if err != nil || !bytes.Equal(got, content) {
					t.Fatalf("%v, %v, %d octets: got %x, %v", c, k, n, got, err)
				}
			}
		}
	}
}

func TestPasswordRoundTrip(t *testing.T) {
	for _, c := range cms.Ciphers()[:4] {
		for _, prf := range digests {
			content := []byte("content")
			raw, err := cms.EncryptToPassword(content, []byte("secret"), cms.PasswordEncryption{Cipher: c, PRF: prf, Iterations: 1000})
			if err != nil {
				t.Fatal(err)
			}
			e, err := cms.ParseEnvelopedData(raw, cms.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := e.DecryptWithPassword([]byte("secret"), cms.PasswordOptions{})
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("%v, %v: got %x, %v", c, prf, got, err)
			}
			_, err = e.DecryptWithPassword([]byte("Secret"), cms.PasswordOptions{})
			isBad(t, err, cms.ErrDecryption)
			_, err = e.DecryptWithPassword([]byte("secret"), cms.PasswordOptions{MaxIterations: 999})
			isBad(t, err, cms.ErrAlgorithm)
		}
	}
}
