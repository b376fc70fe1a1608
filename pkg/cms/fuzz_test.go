package cms_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/certwright/certwright/pkg/cms"
	"github.com/certwright/certwright/pkg/fault"
	raw "github.com/certwright/certwright/pkg/internal/scepraw"
)

// The corpora are the messages of real clients (testdata/clients), and BER.

// wrong checks an error about a stranger's octets: a BadRequest that says what is wrong, never an Internal.
func wrong(t *testing.T, err error) {
	t.Helper()
	if !fault.Is(err, fault.BadRequest) {
		t.Fatalf("got %v, want a BadRequest", err)
	}
	for _, sentinel := range []error{cms.ErrMalformed, cms.ErrAlgorithm, cms.ErrSignature, cms.ErrNoRecipient, cms.ErrDecryption} {
		if errors.Is(err, sentinel) {
			return
		}
	}
	t.Fatalf("%v wraps none of the package's errors", err)
}

func FuzzNormalise(f *testing.F) {
	f.Add([]byte{0x30, 0x80, 0x24, 0x80, 4, 1, 'a', 0, 0, 0, 0})
	f.Add([]byte{0xbf, 0x81, 0, 0x80, 5, 0, 0, 0})
	f.Add([]byte{0x30, 0x84, 0, 0, 0, 2, 5, 0})
	f.Add(bytes.Repeat([]byte{0x30, 0x80}, 40))
	for _, b := range clientMessages(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		der, err := cms.Normalise(b, cms.Limits{})
		if err != nil {
			wrong(t, err)
			return
		}
		again, err := cms.Normalise(der, cms.Limits{MaxBytes: 1 << 20})
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("%x becomes %x, and that %x, %v", b, der, again, err)
		}
		if len(der) > 2*len(b) {
			t.Fatalf("%d octets become %d", len(b), len(der))
		}
	})
}

func FuzzPKIMessage(f *testing.F) {
	id := device()
	good := raw.Message{Signer: id.certificate, Key: id.key, Content: []byte("x"), TransactionID: "1", MessageType: "3"}
	f.Add(good.Bytes())
	good.BER = true
	f.Add(good.Bytes())
	good.BER, good.SID, good.Certificates = false, oddIdentifier(), [][]byte{oddCertificate(id)}
	f.Add(good.Bytes())
	for _, b := range clientMessages(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := cms.ParsePKIMessage(b, cms.Limits{})
		if err != nil {
			wrong(t, err)
			return
		}
		if m.TransactionID == "" || m.Signed == nil {
			t.Fatalf("incomplete: %+v", m)
		}
		m.Digest()
		c, err := m.Verify(cms.VerifyOptions{AllowMD5: true})
		if err != nil {
			wrong(t, err)
			return
		}
		if c == nil || len(m.SenderNonce) != 16 {
			t.Fatalf("verified, with senderNonce %x", m.SenderNonce)
		}
		// What can be read can be answered.
		if _, err := id.signer(t).SignPKIMessage(cms.PKIMessageConfig{
			TransactionID: m.TransactionID, MessageType: cms.CertRep, RecipientNonce: m.SenderNonce, PKIStatus: cms.Pending, Digest: m.Digest(),
		}); err != nil && m.Digest().String() != "MD5" {
			t.Fatal(err)
		}
		if _, err := cms.Encrypt([]byte("x"), c, cms.Encryption{}); err != nil {
			wrong(t, err)
		}
	})
}

func FuzzEnvelopedData(f *testing.F) {
	ra := loadRA(f)
	r := ra.recipient(f)
	for _, e := range []raw.Envelope{{}, {BER: true}, {OAEP: 5}, {Cipher: raw.DES3}, {Cipher: raw.DES}, {RecipientID: raw.TLV(0x80, ra.certificate.SubjectKeyId)}} {
		e.To, e.Plaintext = ra.certificate, []byte("content")
		f.Add(e.Bytes())
	}
	password, err := cms.EncryptToPassword([]byte("x"), []byte("secret"), cms.PasswordEncryption{Iterations: 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(password)
	for _, b := range clientMessages(f) {
		if m, err := cms.ParsePKIMessage(b, cms.Limits{}); err == nil {
			f.Add(m.Signed.Content)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := cms.ParseEnvelopedData(b, cms.Limits{})
		if err != nil {
			wrong(t, err)
			return
		}
		if c, err := e.Decrypt(r, cms.DecryptOptions{AllowDES: true}); err != nil {
			wrong(t, err)
			if errors.Is(err, cms.ErrDecryption) && c == nil {
				t.Fatal("nothing to parse after a failure")
			}
		}
		if _, err := e.DecryptWithPassword([]byte("secret"), cms.PasswordOptions{MaxIterations: 10}); err != nil {
			wrong(t, err)
		}
	})
}
