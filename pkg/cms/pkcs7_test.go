package cms_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"testing"

	"github.com/smallstep/pkcs7"

	"github.com/certwright/certwright/pkg/cms"
	raw "github.com/certwright/certwright/pkg/internal/scepraw"
)

// smallstep/pkcs7 is what other servers and the Go clients are made of: a peer to read and be read by.

func TestPKCS7Reads(t *testing.T) {
	t.Parallel()
	for name, id := range signers(t) {
		if name == "Ed25519" {
			continue // pkcs7 does not know RFC 8419
		}
		for _, digest := range digests {
			b, err := id.signer(t).SignPKIMessage(cms.PKIMessageConfig{
				TransactionID: "1", MessageType: cms.CertRep, RecipientNonce: make([]byte, 16), PKIStatus: cms.Failure, FailInfo: cms.BadTime,
				FailInfoText: "the clock is wrong", Digest: digest,
			})
			if err != nil {
				t.Fatal(err)
			}
			p, err := pkcs7.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Verify(); err != nil {
				t.Errorf("%s, %v: %v", name, digest, err)
			}
			var text string
			if err := p.UnmarshalSignedAttribute(cms.OIDFailInfoText, &text); err != nil || text != "the clock is wrong" {
				t.Errorf("%s, %v: failInfoText %q, %v", name, digest, text, err)
			}
		}
	}
	for _, c := range cms.Ciphers() {
		if c == cms.AES192CBC {
			continue // nor that
		}
		b, err := cms.Encrypt(content, device().certificate, cms.Encryption{Cipher: c})
		if err != nil {
			t.Fatal(err)
		}
		p, err := pkcs7.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Decrypt(device().certificate, device().key); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%v: got %q, %v", c, got, err)
		}
	}
}

func TestReadsPKCS7(t *testing.T) {
	t.Parallel()
	sd, err := pkcs7.NewSignedData(content)
	if err != nil {
		t.Fatal(err)
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	attributes := []pkcs7.Attribute{{Type: cms.OIDTransactionID, Value: "42"}, {Type: cms.OIDSenderNonce, Value: make([]byte, 16)}}
	if err := sd.AddSigner(device().certificate, device().key, pkcs7.SignerInfoConfig{ExtraSignedAttributes: attributes}); err != nil {
		t.Fatal(err)
	}
	b, err := sd.Finish()
	if err != nil {
		t.Fatal(err)
	}
	got, err := cms.ParseSignedData(b, cms.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	si, _, err := got.Verify(cms.VerifyOptions{}) // signatureAlgorithm is sha256WithRSAEncryption
	if err != nil || !bytes.Equal(got.Content, content) {
		t.Fatalf("got %q, %v", got.Content, err)
	}
	if id, err := si.Attributes.PrintableString(cms.OIDTransactionID); id != "42" || err != nil {
		t.Errorf("transactionID %q, %v", id, err)
	}
	b, err = pkcs7.Encrypt(content, []*x509.Certificate{device().certificate}) // DES, its default
	if err != nil {
		t.Fatal(err)
	}
	e, err := cms.ParseEnvelopedData(b, cms.Limits{})
	if err != nil || e.Cipher != cms.DESCBC {
		t.Fatalf("%v, %v", e, err)
	}
	if got, err := e.Decrypt(device().recipient(t), cms.DecryptOptions{AllowDES: true}); err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestWhyNotPKCS7 shows what pkcs7 0.2.3 does with messages of strangers, and that we do not: the reasons for parsers of
// our own. When a new version of it fails here, it has improved.
func TestWhyNotPKCS7(t *testing.T) {
	t.Parallel()
	id, r := device(), device().recipient(t)
	public := id.certificate.PublicKey.(*rsa.PublicKey)
	message := raw.Message{Signer: id.certificate, Key: id.key, Content: content, TransactionID: "1", MessageType: "19"}
	theirs := func(b []byte) (outcome string) {
		defer func() {
			if p := recover(); p != nil {
				outcome = "panic"
			}
		}()
		p, err := pkcs7.Parse(b)
		if err == nil && p.Signers != nil {
			err = p.Verify()
		} else if err == nil {
			_, err = p.Decrypt(id.certificate, id.key)
		}
		if err != nil {
			return err.Error()
		}
		return "accepted"
	}
	ours := func(b []byte) error {
		e, err := cms.ParseEnvelopedData(b, cms.Limits{})
		if err == nil {
			_, err = e.Decrypt(r, cms.DecryptOptions{})
			return err
		}
		sd, serr := cms.ParseSignedData(b, cms.Limits{})
		if serr == nil {
			_, _, serr = sd.Verify(cms.VerifyOptions{})
		}
		return serr
	}
	envelope := func(edit func(*raw.Envelope)) []byte {
		e := raw.Envelope{To: id.certificate, Plaintext: content}
		edit(&e)
		return e.Bytes()
	}
	bent := func(edit func(*raw.Message)) []byte {
		m := message
		edit(&m)
		return m.Bytes()
	}
	twice := raw.Attribute(raw.TransactionID, raw.Printable("2"))
	tests := []struct {
		name   string
		b      []byte
		theirs string // "": depends on what follows
		ours   error
	}{
		{"ciphertext of no whole block", envelope(func(e *raw.Envelope) { e.Ciphertext = raw.Random(17) }), "panic", cms.ErrDecryption},
		{"padding longer than the content", envelope(func(e *raw.Envelope) { e.Padded = bytes.Repeat([]byte{200}, 32) }), "panic", cms.ErrDecryption},
		{"padding of CBC", envelope(func(e *raw.Envelope) { e.Padded = bytes.Repeat([]byte{1, 2}, 16) }), "pkcs7: invalid padding", cms.ErrDecryption},
		{"padding of RSA", envelope(func(e *raw.Envelope) { e.EncryptedKey = raw.PKCS1Block(public, func([]byte) {}) }), "crypto/rsa: decryption error", cms.ErrDecryption},
		{"length of the key", envelope(func(e *raw.Envelope) { e.SessionKey = raw.Random(15) }), "crypto/aes: invalid key size 15", cms.ErrDecryption},
		{"an attribute twice", bent(func(m *raw.Message) { m.Extra = [][]byte{twice} }), "accepted", cms.ErrMalformed},
		{"no contentType", bent(func(m *raw.Message) { m.Omit = []string{raw.ContentType} }), "accepted", cms.ErrSignature},
		{"no attributes", bent(func(m *raw.Message) { m.NoAttributes = true }), "accepted", cms.ErrSignature},
		{"octets after the message", bent(func(m *raw.Message) { m.Trailing = []byte{5, 0} }), "accepted", cms.ErrMalformed},
		{
			"a child beyond its parent", // the SET of certificates ends within the certificate
			bytes.Replace(message.Bytes(), id.certificate.Raw[:4], append([]byte{0x30, 0x82, id.certificate.Raw[2]}, id.certificate.Raw[3]+1), 1),
			"", cms.ErrMalformed,
		},
	}
	for _, tt := range tests {
		if got := theirs(tt.b); got != tt.theirs && tt.theirs != "" {
			t.Errorf("pkcs7: %s: %s, want %s", tt.name, got, tt.theirs)
		}
		isBad(t, ours(tt.b), tt.ours)
	}
	// It signs with what strongSwan refuses.
	sd, err := pkcs7.NewSignedData(content)
	if err != nil {
		t.Fatal(err)
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := sd.AddSigner(id.certificate, id.key, pkcs7.SignerInfoConfig{}); err != nil {
		t.Fatal(err)
	}
	b, err := sd.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, raw.OID(raw.RSAWith[crypto.SHA256])) {
		t.Error("pkcs7 signs with rsaEncryption")
	}
}

// BenchmarkDeepNesting is the other reason: pkcs7's time grows with the square of the depth.
func BenchmarkDeepNesting(b *testing.B) {
	for _, depth := range []int{1000, 2000, 4000, 8000} {
		in := raw.Join(bytes.Repeat([]byte{0x30, 0x80}, depth), raw.Null(), bytes.Repeat([]byte{0, 0}, depth))
		b.Run(fmt.Sprintf("pkcs7/%d", depth), func(b *testing.B) {
			for b.Loop() {
				_, _ = pkcs7.Parse(in)
			}
		})
		b.Run(fmt.Sprintf("cms/%d", depth), func(b *testing.B) {
			for b.Loop() {
				_, _ = cms.ParseSignedData(in, cms.Limits{})
			}
		})
	}
}

// TestCriticalAuthorityKeyIdentifier: Windows signs its first request with a certificate that crypto/x509 refuses.
func TestCriticalAuthorityKeyIdentifier(t *testing.T) {
	t.Parallel()
	id := device()
	// AKI, critical, of eight octets; the certificate is made again around it and signed anew.
	aki := raw.Sequence(raw.OID("2.5.29.35"), []byte{1, 1, 0xff}, raw.Octets(raw.Sequence(raw.TLV(0x80, []byte("8 octets")))))
	spki, err := x509.MarshalPKIXPublicKey(id.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	algorithm := raw.Sequence(raw.OID(raw.RSAWith[crypto.SHA256]), raw.Null())
	validity := raw.Sequence(raw.TLV(0x17, []byte("250101000000Z")), raw.TLV(0x17, []byte("350101000000Z")))
	tbs := raw.Sequence(raw.Context(0, raw.Int(2)), raw.Int(77), algorithm, raw.Name("device"), validity, raw.Name("device"), spki,
		raw.Context(3, raw.Sequence(aki)))
	certificate := raw.Sequence(tbs, algorithm, raw.Bits(raw.Signature(id.key, crypto.SHA256, tbs)))
	if _, err := x509.ParseCertificate(certificate); err == nil {
		t.Fatal("crypto/x509 accepts it now: the detour is not needed any more")
	}
	m := raw.Message{
		Key: id.key, Content: content, TransactionID: "1", MessageType: "19",
		SID: raw.Sequence(raw.Name("device"), raw.Int(77)), Certificates: [][]byte{certificate},
	}
	parsed, err := cms.ParsePKIMessage(m.Bytes(), cms.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := parsed.Verify(cms.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.Raw, certificate) || !cms.IsSelfSigned(c) {
		t.Errorf("got %x", c.Raw)
	}
	// An answer can be encrypted to it.
	b, err := cms.Encrypt(content, c, cms.Encryption{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, m.SID) {
		t.Error("the answer is encrypted to another recipient")
	}
}
