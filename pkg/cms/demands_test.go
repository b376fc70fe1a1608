package cms_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/cms"
	raw "github.com/certwright/certwright/pkg/internal/scepraw"
)

// What RFC 8894 demands of messages and what breaks real clients, with messages that share no code with this package.

// TestPKIMessageDemands: each row bends a good PKCSReq in one way. err nil: it must be read and verified.
func TestPKIMessageDemands(t *testing.T) {
	t.Parallel()
	ids := signers(t)
	id, other := ids["RSA"], selfSigned(t, newRSA(2048))
	withKeyID := selfSigned(t, id.key, func(c *x509.Certificate) { c.SubjectKeyId = []byte("key id") })
	attribute := func(typ string, values ...[]byte) map[string][]byte {
		return map[string][]byte{typ: raw.Attribute(typ, values...)}
	}
	replace := func(typ string, values ...[]byte) func(*raw.Message) {
		return func(m *raw.Message) { m.Replace = attribute(typ, values...) }
	}
	omit := func(typ string) func(*raw.Message) { return func(m *raw.Message) { m.Omit = []string{typ} } }
	by := func(i identity) func(*raw.Message) {
		return func(m *raw.Message) { m.Signer, m.Key = i.certificate, i.key }
	}
	pss := func(h crypto.Hash, salt int, params []byte) func(*raw.Message) {
		return func(m *raw.Message) {
			m.Digest = h
			m.SignatureAlgorithm = raw.Sequence(raw.OID(raw.PSS), params)
			m.Sign = func(b []byte) []byte {
				s, err := rsa.SignPSS(rand.Reader, id.key.(*rsa.PrivateKey), h, raw.Sum(h, b), &rsa.PSSOptions{SaltLength: salt})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
		}
	}
	pssParams := func(h, mgf crypto.Hash, salt int) []byte {
		return raw.Sequence(raw.Context(0, raw.Sequence(raw.OID(raw.DigestOIDs[h]), raw.Null())),
			raw.Context(1, raw.Sequence(raw.OID(raw.MGF1), raw.Sequence(raw.OID(raw.DigestOIDs[mgf]), raw.Null()))), raw.Context(2, raw.Int(salt)))
	}
	extra := func(n int) func(*raw.Message) {
		return func(m *raw.Message) {
			for i := range n {
				m.Extra = append(m.Extra, raw.Attribute(fmt.Sprintf("1.2.3.%d", i), raw.Int(i)))
			}
		}
	}
	certificates := func(n int) func(*raw.Message) {
		return func(m *raw.Message) {
			for range n - 1 {
				m.Certificates = append(m.Certificates, other.certificate.Raw)
			}
			m.Certificates = append(m.Certificates, id.certificate.Raw)
		}
	}
	// A key of 16,384 bits, which nobody wants to verify with.
	sha256RSA := raw.Sequence(raw.OID(raw.RSAWith[crypto.SHA256]), raw.Null())
	of := func(spki []byte) []byte {
		return raw.Sequence(raw.Sequence(raw.Context(0, raw.Int(2)), raw.Int(9), sha256RSA, raw.Name("x"),
			raw.Sequence(raw.TLV(0x17, []byte("250101000000Z")), raw.TLV(0x17, []byte("350101000000Z"))), raw.Name("x"), spki), sha256RSA, raw.Bits(raw.Random(256)))
	}
	ofSize := func(octets int) []byte {
		return of(raw.Sequence(raw.Sequence(raw.OID(raw.RSAEncryption), raw.Null()),
			raw.Bits(raw.Sequence(raw.BigInt(new(big.Int).SetBytes(raw.Join([]byte{0xff}, raw.Random(octets-2), []byte{1}))), raw.Int(65537)))))
	}
	unknownCurve := of(raw.Sequence(raw.Sequence(raw.OID("1.2.840.10045.2.1"), raw.OID("1.3.36.3.3.2.8.1.1.7")), raw.Bits(raw.Join([]byte{4}, raw.Random(64)))))
	hugeCertificate, tinyCertificate := ofSize(2048), ofSize(64)

	tests := []struct {
		name string // section of RFC 8894, unless it says otherwise
		edit func(*raw.Message)
		err  error
	}{
		{"3: as it should be", func(*raw.Message) {}, nil},
		{"2.9: SHA-1", func(m *raw.Message) { m.Digest = crypto.SHA1 }, nil},
		{"2.9: SHA-384", func(m *raw.Message) { m.Digest = crypto.SHA384 }, nil},
		{"2.9: SHA-512", func(m *raw.Message) { m.Digest = crypto.SHA512 }, nil},
		{"2.9: MD5", func(m *raw.Message) { m.Digest = crypto.MD5 }, cms.ErrAlgorithm},
		{"2.9: SHA-224", func(m *raw.Message) { m.Digest = crypto.SHA224 }, cms.ErrAlgorithm},
		{"RFC 5754, 2: digest without parameters", func(m *raw.Message) {
			m.DigestAlgorithm = raw.Sequence(raw.OID(raw.DigestOIDs[crypto.SHA256]))
		}, nil},
		{"digest with other parameters", func(m *raw.Message) {
			m.DigestAlgorithm = raw.Sequence(raw.OID(raw.DigestOIDs[crypto.SHA256]), raw.Int(1))
		}, cms.ErrAlgorithm},

		{"3.1: two signerInfos", func(m *raw.Message) { m.SignerInfos = func(b []byte) [][]byte { return [][]byte{b, b} } }, cms.ErrMalformed},
		{"3.1: no signerInfo", func(m *raw.Message) { m.SignerInfos = func([]byte) [][]byte { return nil } }, cms.ErrMalformed},
		{"3.1: content type other than data", func(m *raw.Message) { m.EContentType = raw.EnvelopedData }, cms.ErrMalformed},
		{"3.1: not SignedData", func(m *raw.Message) { m.OuterType = raw.EnvelopedData }, cms.ErrMalformed},
		{"3.1: eContent is no OCTET STRING", func(m *raw.Message) { m.EContent = raw.Context(0, raw.Sequence()) }, cms.ErrMalformed},
		{"3.1: no messageDigest", omit(raw.MessageDigest), cms.ErrSignature},
		{"3.1: wrong messageDigest", replace(raw.MessageDigest, raw.Octets(make([]byte, 32))), cms.ErrSignature},
		{"3.1: messageDigest cut", replace(raw.MessageDigest, raw.Octets(raw.Sum(crypto.SHA256, content)[:31])), cms.ErrSignature},
		{"3.1: messageDigest twice in one", replace(raw.MessageDigest, raw.Octets(raw.Sum(crypto.SHA256, content)), raw.Octets(nil)), cms.ErrSignature},
		{"3.1: no contentType", omit(raw.ContentType), cms.ErrSignature},
		{"3.1: wrong contentType", replace(raw.ContentType, raw.OID(raw.EnvelopedData)), cms.ErrSignature},
		{"3.1: content changed", func(m *raw.Message) { m.EContent = raw.Context(0, raw.Octets([]byte("other"))) }, cms.ErrSignature},
		{"3.1: no content, signed so", func(m *raw.Message) { m.Content, m.NoEContent = nil, true }, nil},
		{"3.1: empty content", func(m *raw.Message) { m.Content = nil }, nil},
		{"3.1: empty [0]", func(m *raw.Message) { m.Content, m.EContent = nil, raw.Context(0) }, nil},
		{"3.2: no signed attributes", func(m *raw.Message) { m.NoAttributes = true }, cms.ErrMalformed},

		{"3.2.1.1: no transactionID", omit(raw.TransactionID), cms.ErrMalformed},
		{"3.2.1.1: empty transactionID", replace(raw.TransactionID, raw.Printable("")), cms.ErrMalformed},
		{"3.2.1.1: transactionID of 255", replace(raw.TransactionID, raw.Printable(strings.Repeat("a", 255))), nil},
		{"3.2.1.1: transactionID of 256", replace(raw.TransactionID, raw.Printable(strings.Repeat("a", 256))), cms.ErrMalformed},
		{"table 1: transactionID as UTF8String", replace(raw.TransactionID, raw.UTF8("1")), cms.ErrMalformed},
		{"table 1: transactionID as OCTET STRING", replace(raw.TransactionID, raw.Octets([]byte("1"))), cms.ErrMalformed},
		{"table 1: transactionID with an underscore", replace(raw.TransactionID, raw.Printable("a_b")), cms.ErrMalformed},
		{"table 1: transactionID with NUL", replace(raw.TransactionID, raw.Printable("a\x00")), cms.ErrMalformed},
		{"transactionID with * and &, as encoding/asn1 reads", replace(raw.TransactionID, raw.Printable("*&")), nil},
		{"RFC 5652, 5.3: two values of transactionID", replace(raw.TransactionID, raw.Printable("1"), raw.Printable("2")), cms.ErrMalformed},
		{"RFC 5652, 5.3: no value of transactionID", replace(raw.TransactionID), cms.ErrMalformed},
		{"RFC 5652, 5.3: two transactionIDs", func(m *raw.Message) {
			m.Extra = [][]byte{raw.Attribute(raw.TransactionID, raw.Printable("2"))}
		}, cms.ErrMalformed},
		{"RFC 5652, 5.3: two equal unknown attributes", func(m *raw.Message) {
			m.Extra = [][]byte{raw.Attribute("1.2.3", raw.Int(1)), raw.Attribute("1.2.3", raw.Int(1))}
		}, cms.ErrMalformed},
		{"an unknown attribute of two values", func(m *raw.Message) { m.Extra = [][]byte{raw.Attribute("1.2.3", raw.Int(1), raw.Int(2))} }, nil},

		{"3.2.1.2: no messageType", omit(raw.MessageType), cms.ErrMalformed},
		{"3.2.1.2: unknown messageType is for the front-end", func(m *raw.Message) { m.MessageType = "99" }, nil},
		{"3.2.1.2: messageType 019", func(m *raw.Message) { m.MessageType = "019" }, cms.ErrMalformed},
		{"3.2.1.2: messageType +19", func(m *raw.Message) { m.MessageType = "+19" }, cms.ErrMalformed},
		{"3.2.1.2: messageType -19", func(m *raw.Message) { m.MessageType = "-19" }, cms.ErrMalformed},
		{"3.2.1.2: messageType with a space", func(m *raw.Message) { m.MessageType = "19 " }, cms.ErrMalformed},
		{"3.2.1.2: messageType of 30 digits", func(m *raw.Message) { m.MessageType = strings.Repeat("9", 30) }, cms.ErrMalformed},
		{"3.2.1.2: empty messageType", replace(raw.MessageType, raw.Printable("")), cms.ErrMalformed},
		{"table 1: messageType as INTEGER", replace(raw.MessageType, raw.Int(19)), cms.ErrMalformed},
		{"table 1: messageType as UTF8String", replace(raw.MessageType, raw.UTF8("19")), cms.ErrMalformed},
		{"3.2.1.2: messageType twice", func(m *raw.Message) { m.Extra = [][]byte{raw.Attribute(raw.MessageType, raw.Printable("19"))} }, cms.ErrMalformed},

		{"3.2.1.5: no senderNonce", omit(raw.SenderNonce), cms.ErrMalformed},
		{"3.2.1.5: senderNonce of 15 octets", func(m *raw.Message) { m.SenderNonce = raw.Random(15) }, cms.ErrMalformed},
		{"3.2.1.5: senderNonce of 17 octets", func(m *raw.Message) { m.SenderNonce = raw.Random(17) }, cms.ErrMalformed},
		{"table 1: senderNonce as PrintableString", replace(raw.SenderNonce, raw.Printable("0123456789abcdef")), cms.ErrMalformed},
		{"3.2.1.5: recipientNonce of 3 octets", func(m *raw.Message) { m.Extra = [][]byte{raw.Attribute(raw.RecipientNonce, raw.Octets([]byte("abc")))} }, cms.ErrMalformed},
		{"RFC 5652, 11.3: signingTime", func(m *raw.Message) {
			m.Extra = [][]byte{raw.Attribute(raw.SigningTime, raw.TLV(0x17, []byte("250101000000Z")))}
		}, nil},
		{"RFC 5652, 11.3: signingTime of 2050", func(m *raw.Message) {
			m.Extra = [][]byte{raw.Attribute(raw.SigningTime, raw.TLV(0x18, []byte("20500101000000Z")))}
		}, nil},
		{"RFC 5652, 11.3: no time", func(m *raw.Message) {
			m.Extra = [][]byte{raw.Attribute(raw.SigningTime, raw.TLV(0x17, []byte("tomorrow")))}
		}, cms.ErrMalformed},

		{"signature changed", func(m *raw.Message) { m.EditSignature = func(b []byte) []byte { b[7] ^= 1; return b } }, cms.ErrSignature},
		{"signature cut", func(m *raw.Message) { m.EditSignature = func(b []byte) []byte { return b[:255] } }, cms.ErrSignature},
		{"no signature", func(m *raw.Message) { m.EditSignature = func([]byte) []byte { return nil } }, cms.ErrSignature},
		{"signed by another key", func(m *raw.Message) { m.Key = other.key }, cms.ErrSignature},
		{"no certificate", func(m *raw.Message) { m.Certificates = [][]byte{} }, cms.ErrMalformed},
		{"another's certificate", func(m *raw.Message) { m.Certificates = [][]byte{other.certificate.Raw} }, cms.ErrMalformed},
		{"the signer's certificate comes last", certificates(3), nil},
		{"10 certificates", certificates(10), nil},
		{"11 certificates", certificates(11), cms.ErrMalformed},
		{"a certificate that cannot be read, beside the signer's", func(m *raw.Message) {
			m.Certificates = [][]byte{raw.Sequence(raw.Int(1)), id.certificate.Raw}
		}, nil},
		{"an attribute certificate beside the signer's", func(m *raw.Message) { m.Certificates = [][]byte{raw.Context(1, raw.Int(1)), id.certificate.Raw} }, nil},
		{"a CRL comes along", func(m *raw.Message) { m.CRLs = [][]byte{raw.Sequence(raw.Int(1))} }, nil},
		{"RFC 5652, 5.3: sid is a key identifier", func(m *raw.Message) {
			m.Signer, m.SID, m.Version = withKeyID.certificate, raw.TLV(0x80, []byte("key id")), raw.Int(3)
		}, nil},
		{"sid is another key identifier", func(m *raw.Message) { m.Signer, m.SID = withKeyID.certificate, raw.TLV(0x80, []byte("other")) }, cms.ErrMalformed},
		{"sid is empty", func(m *raw.Message) { m.SID = raw.TLV(0x80) }, cms.ErrMalformed},
		{"unsigned attributes", func(m *raw.Message) { m.UnsignedAttrs = raw.Context(1, raw.Attribute("1.2.3", raw.Int(1))) }, nil},
		{"26 more attributes", extra(26), nil},
		{"28 more attributes", extra(28), cms.ErrMalformed},
		{"an RSA key of 512 bits", func(m *raw.Message) {
			m.SID, m.Certificates = raw.Sequence(raw.Name("x"), raw.Int(9)), [][]byte{tinyCertificate}
		}, cms.ErrAlgorithm},
		{"a key on a curve that nobody knows", func(m *raw.Message) {
			m.SID, m.Certificates = raw.Sequence(raw.Name("x"), raw.Int(9)), [][]byte{unknownCurve}
		}, cms.ErrAlgorithm},
		{"an RSA key of 16,384 bits", func(m *raw.Message) {
			m.SID, m.Certificates = raw.Sequence(raw.Name("x"), raw.Int(9)), [][]byte{hugeCertificate}
		}, cms.ErrAlgorithm},

		{"RFC 3370, 3.2: sha256WithRSAEncryption", func(m *raw.Message) { m.SignatureAlgorithm = sha256RSA }, nil},
		{"rsaEncryption without parameters", func(m *raw.Message) { m.SignatureAlgorithm = raw.Sequence(raw.OID(raw.RSAEncryption)) }, nil},
		{"signature algorithm of another digest", func(m *raw.Message) {
			m.SignatureAlgorithm = raw.Sequence(raw.OID(raw.RSAWith[crypto.SHA1]), raw.Null())
		}, cms.ErrAlgorithm},
		{"signature algorithm of another key", func(m *raw.Message) {
			m.SignatureAlgorithm = raw.Sequence(raw.OID(raw.ECDSAWith[crypto.SHA256]))
		}, cms.ErrAlgorithm},
		{"RFC 4056: PSS", pss(crypto.SHA256, 32, pssParams(crypto.SHA256, crypto.SHA256, 32)), nil},
		{"RFC 4056: PSS with its defaults", pss(crypto.SHA1, 20, raw.Sequence()), nil},
		{"PSS with another salt", pss(crypto.SHA256, 20, pssParams(crypto.SHA256, crypto.SHA256, 32)), cms.ErrSignature},
		{"PSS with another MGF", pss(crypto.SHA256, 32, pssParams(crypto.SHA256, crypto.SHA1, 32)), cms.ErrAlgorithm},
		{"PSS of another digest", pss(crypto.SHA256, 32, pssParams(crypto.SHA384, crypto.SHA384, 32)), cms.ErrAlgorithm},
		{"PSS without parameters", pss(crypto.SHA1, 20, nil), cms.ErrAlgorithm},
		{"3.1: ECDSA", by(ids["P-256"]), nil},
		{"ECDSA, named as its key", func(m *raw.Message) {
			by(ids["P-256"])(m)
			m.SignatureAlgorithm = raw.Sequence(raw.OID("1.2.840.10045.2.1"))
		}, nil},
		{"ECDSA, changed", func(m *raw.Message) {
			by(ids["P-256"])(m)
			m.EditSignature = func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
		}, cms.ErrSignature},
		{"RFC 8419: Ed25519", func(m *raw.Message) { by(ids["Ed25519"])(m); m.Digest = crypto.SHA512 }, nil},
		{"Ed25519, changed", func(m *raw.Message) {
			by(ids["Ed25519"])(m)
			m.EditSignature = func(b []byte) []byte { b[0] ^= 1; return b }
		}, cms.ErrSignature},

		{"4.1: BER, indefinite lengths, pieces", func(m *raw.Message) { m.BER = true }, nil},
		{"RFC 5652, 5.4: attributes sent in another order, signed in DER's", func(m *raw.Message) { m.Unsorted, m.SignSorted = true, true }, nil},
		{"attributes sent and signed in another order", func(m *raw.Message) { m.Unsorted = true }, nil},
		{"64 KiB", func(m *raw.Message) { m.Content = make([]byte, 62<<10) }, nil},
		{"more than 64 KiB", func(m *raw.Message) { m.Content = make([]byte, 64<<10) }, cms.ErrMalformed},
		{"octets behind", func(m *raw.Message) { m.Trailing = []byte{0} }, cms.ErrMalformed},
	}
	for _, tt := range tests {
		m := raw.Message{Signer: id.certificate, Key: id.key, Content: content, TransactionID: "a transaction", MessageType: "19"}
		tt.edit(&m)
		parsed, err := cms.ParsePKIMessage(m.Bytes(), cms.Limits{})
		var c *x509.Certificate
		if err == nil {
			c, err = parsed.Verify(cms.VerifyOptions{})
		}
		if tt.err != nil {
			if err == nil {
				t.Errorf("%s: accepted, want %v", tt.name, tt.err)
				continue
			}
			isBad(t, err, tt.err)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if !c.Equal(m.Signer) || !bytes.Equal(parsed.Signed.Content, m.Content) || m.Replace == nil && parsed.TransactionID != m.TransactionID ||
			fmt.Sprint(int(parsed.MessageType)) != m.MessageType || len(parsed.SenderNonce) != 16 {
			t.Errorf("%s: read wrongly: %+v", tt.name, parsed)
		}
		if (parsed.Signed.Content == nil) != (m.NoEContent || m.EContent != nil) {
			t.Errorf("%s: content is absent: %v", tt.name, parsed.Signed.Content == nil)
		}
	}
	// The switch for MD5.
	m := raw.Message{Signer: id.certificate, Key: id.key, TransactionID: "1", MessageType: "19", Digest: crypto.MD5}
	parsed, err := cms.ParsePKIMessage(m.Bytes(), cms.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parsed.Verify(cms.VerifyOptions{AllowMD5: true}); err != nil || parsed.Digest() != crypto.MD5 {
		t.Errorf("MD5, allowed: %v, %v", parsed.Digest(), err)
	}
}

// An identifier can fill a message. Errors that name it stay short, and cheap: they go into logs, and are made for strangers.
func TestLongIdentifiers(t *testing.T) {
	t.Parallel()
	id := selfSigned(t, rsaKey())
	long := raw.TLV(6, bytes.Repeat([]byte{1}, 50_000))
	whole := raw.Sequence(long, raw.Context(0, raw.Sequence()))
	message := raw.Message{Signer: id.certificate, Key: id.key, Content: []byte("content"), TransactionID: "1", MessageType: "19", SignatureAlgorithm: raw.Sequence(long)}
	twice := message
	attribute := raw.Sequence(raw.TLV(6, bytes.Repeat([]byte{1}, 25_000)), raw.TLV(0x31, raw.Int(1)))
	twice.Extra = [][]byte{attribute, attribute}
	for name, b := range map[string][]byte{"ContentInfo": whole, "signatureAlgorithm": message.Bytes(), "attribute": twice.Bytes()} {
		m, err := cms.ParsePKIMessage(b, cms.Limits{})
		if err == nil {
			_, err = m.Verify(cms.VerifyOptions{})
		}
		switch {
		case err == nil:
			t.Errorf("%s: accepted", name)
		case len(err.Error()) > 300:
			t.Errorf("%s: an error of %d octets, %.100q", name, len(err.Error()), err)
		}
	}
	e := raw.Envelope{To: id.certificate, Plaintext: []byte("content"), ContentAlgorithm: raw.Sequence(long)}
	if _, err := cms.ParseEnvelopedData(e.Bytes(), cms.Limits{}); err == nil || len(err.Error()) > 300 {
		t.Errorf("contentEncryptionAlgorithm: %.100v", err)
	}
}

func TestEnvelopeDemands(t *testing.T) {
	t.Parallel()
	id := selfSigned(t, rsaKey(), func(c *x509.Certificate) { c.SubjectKeyId = []byte("key id") })
	other := selfSigned(t, newRSA(2048))
	r := id.recipient(t)
	to := func(c *x509.Certificate) []byte {
		return raw.Envelope{To: c, SessionKey: raw.Random(16)}.RecipientInfo()
	}
	key := raw.Random(16)
	ours := raw.Envelope{To: id.certificate, SessionKey: key}.RecipientInfo()
	oaep := func(params ...[]byte) func(*raw.Envelope) {
		return func(e *raw.Envelope) {
			e.OAEP, e.KeyAlgorithm = crypto.SHA1, raw.Sequence(raw.Join(append([][]byte{raw.OID(raw.OAEP)}, params...)...))
		}
	}
	// Kinds that are no key transport: kari [1], kekri [2], ori [4].
	kari, kekri, ori := raw.Context(1, raw.Int(3)), raw.Context(2, raw.Int(4)), raw.Context(4, raw.OID("1.2.3"))
	tests := []struct {
		name string // section of RFC 8894, unless it says otherwise
		edit func(*raw.Envelope)
		err  error
	}{
		{"3.2.2: as it should be", func(*raw.Envelope) {}, nil},
		{"2.9: AES-192", func(e *raw.Envelope) { e.Cipher = raw.AES192 }, nil},
		{"2.9: AES-256", func(e *raw.Envelope) { e.Cipher = raw.AES256 }, nil},
		{"2.9: 3DES", func(e *raw.Envelope) { e.Cipher = raw.DES3 }, nil},
		{"2.9: DES", func(e *raw.Envelope) { e.Cipher = raw.DES }, cms.ErrAlgorithm},
		{"AES-GCM in EnvelopedData", func(e *raw.Envelope) {
			e.ContentAlgorithm = raw.Sequence(raw.OID(raw.AES128GCM), raw.Sequence(raw.Octets(raw.Random(12))))
		}, cms.ErrAlgorithm},
		{"3.2.2: content type other than data", func(e *raw.Envelope) { e.ContentType = raw.SignedData }, cms.ErrMalformed},
		{"3.2.2: not EnvelopedData", func(e *raw.Envelope) { e.OuterType = raw.Data }, cms.ErrMalformed},
		{"4.1: BER, indefinite lengths, encryptedContent in pieces", func(e *raw.Envelope) { e.BER = true }, nil},
		{"encryptedContent in pieces of definite length", func(e *raw.Envelope) {
			c := raw.Random(64)
			e.Ciphertext, e.EncryptedContent = c, raw.Context(0, raw.Octets(c[:1]), raw.Octets(c[1:]))
		}, cms.ErrDecryption}, // read, though it is garbage
		{"a piece of encryptedContent is no OCTET STRING", func(e *raw.Envelope) { e.EncryptedContent = raw.Context(0, raw.Int(1)) }, cms.ErrMalformed},
		{"no encryptedContent", func(e *raw.Envelope) { e.NoEncryptedContent = true }, cms.ErrMalformed},
		{"no IV", func(e *raw.Envelope) { e.ContentAlgorithm = raw.Sequence(raw.OID(raw.AES128)) }, cms.ErrMalformed},
		{"IV of 8 octets for AES", func(e *raw.Envelope) {
			e.ContentAlgorithm = raw.Sequence(raw.OID(raw.AES128), raw.Octets(raw.Random(8)))
		}, cms.ErrMalformed},
		{"IV is NULL", func(e *raw.Envelope) { e.ContentAlgorithm = raw.Sequence(raw.OID(raw.AES128), raw.Null()) }, cms.ErrMalformed},
		{"originatorInfo and unprotectedAttrs", func(e *raw.Envelope) {
			e.Originator, e.UnprotectedAttrs = raw.Context(0), raw.Context(1, raw.Attribute("1.2.3", raw.Int(1)))
		}, nil},
		{"something behind", func(e *raw.Envelope) { e.TrailingInEnveloped = raw.Int(1) }, cms.ErrMalformed},

		{"smallstep/certificates: recipient by key identifier", func(e *raw.Envelope) { e.RecipientID = raw.TLV(0x80, []byte("key id")) }, nil},
		{"key identifier in pieces", func(e *raw.Envelope) { e.RecipientID = raw.Pieces(0xa0, []byte("key id"), 2) }, nil},
		{"another key identifier", func(e *raw.Envelope) { e.RecipientID = raw.TLV(0x80, []byte("other")) }, cms.ErrNoRecipient},
		{"another serial number", func(e *raw.Envelope) { e.RecipientID = raw.Sequence(id.certificate.RawIssuer, raw.Int(7)) }, cms.ErrNoRecipient},
		{"another issuer", func(e *raw.Envelope) {
			e.RecipientID = raw.Sequence(raw.Name("CA"), raw.BigInt(id.certificate.SerialNumber))
		}, cms.ErrNoRecipient},
		{"another recipient", func(e *raw.Envelope) { e.To = other.certificate }, cms.ErrNoRecipient},
		{"no recipients", func(e *raw.Envelope) { e.Recipients = [][]byte{} }, cms.ErrNoRecipient},
		{"the third recipient", func(e *raw.Envelope) {
			e.SessionKey, e.Recipients = key, [][]byte{to(other.certificate), to(other.certificate), ours}
		}, nil},
		{"behind other kinds of recipients", func(e *raw.Envelope) { e.SessionKey, e.Recipients = key, [][]byte{kari, kekri, ori, ours} }, nil},
		{"10 recipients", func(e *raw.Envelope) {
			e.SessionKey, e.Recipients = key, append(bytesTimes(kekri, 9), ours)
		}, nil},
		{"11 recipients", func(e *raw.Envelope) { e.SessionKey, e.Recipients = key, append(bytesTimes(kekri, 10), ours) }, cms.ErrMalformed},
		{"a recipient that cannot be read", func(e *raw.Envelope) { e.Recipients = [][]byte{raw.Sequence(raw.Int(0)), ours} }, cms.ErrMalformed},

		{"rsaEncryption without NULL", func(e *raw.Envelope) { e.KeyAlgorithm = raw.Sequence(raw.OID(raw.RSAEncryption)) }, nil},
		{"unknown key transport", func(e *raw.Envelope) { e.KeyAlgorithm = raw.Sequence(raw.OID("1.2.3")) }, cms.ErrAlgorithm},
		{"Windows: OAEP, SHA-1, no parameters", oaep(), nil},
		{"OAEP, SHA-1, empty parameters", oaep(raw.Sequence()), nil},
		{"OAEP, SHA-1, NULL", oaep(raw.Null()), nil},
		{"OAEP, SHA-256", func(e *raw.Envelope) { e.OAEP = crypto.SHA256 }, nil},
		{"OAEP, SHA-512 and MGF1 with SHA-1", func(e *raw.Envelope) { e.OAEP, e.MGF = crypto.SHA512, crypto.SHA1 }, nil},
		{"OAEP with a label", func(e *raw.Envelope) { e.OAEP, e.Label = crypto.SHA256, []byte("label") }, nil},
		{"OAEP with MD5", oaep(raw.Sequence(raw.Context(0, raw.Sequence(raw.OID(raw.DigestOIDs[crypto.MD5]))))), cms.ErrAlgorithm},
		{"OAEP with an unknown mask", oaep(raw.Sequence(raw.Context(1, raw.Sequence(raw.OID("1.2.3"))))), cms.ErrAlgorithm},
		{"OAEP with something behind", oaep(raw.Sequence(raw.Int(1))), cms.ErrAlgorithm},
	}
	for _, tt := range tests {
		e := raw.Envelope{To: id.certificate, Plaintext: content}
		tt.edit(&e)
		parsed, err := cms.ParseEnvelopedData(e.Bytes(), cms.Limits{})
		var got []byte
		if err == nil {
			got, err = parsed.Decrypt(r, cms.DecryptOptions{})
		}
		switch {
		case tt.err != nil && err == nil:
			t.Errorf("%s: accepted, want %v", tt.name, tt.err)
		case tt.err != nil:
			isBad(t, err, tt.err)
		case err != nil || !bytes.Equal(got, content):
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
	e, err := cms.ParseEnvelopedData(raw.Envelope{To: id.certificate, Plaintext: content, Cipher: raw.DES}.Bytes(), cms.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Decrypt(r, cms.DecryptOptions{AllowDES: true}); err != nil || !bytes.Equal(got, content) {
		t.Errorf("DES, allowed: %q, %v", got, err)
	}
	// Old RA keys stay: the recipientInfo chooses.
	e, err = cms.ParseEnvelopedData(raw.Envelope{To: id.certificate, Plaintext: content}.Bytes(), cms.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Recipient(other.recipient(t), r); got != r || err != nil {
		t.Errorf("of two recipients: %v, %v", got, err)
	}
}

func bytesTimes(b []byte, n int) [][]byte {
	var list [][]byte
	for range n {
		list = append(list, b)
	}
	return list
}

// TestCertRepDemands reads our answers with the reader that shares no code.
func TestCertRepDemands(t *testing.T) {
	t.Parallel()
	id, client := selfSigned(t, newRSA(2048)), device()
	signer := id.signer(t)
	nonce := raw.Random(16)
	issued := selfSigned(t, client.key).certificate
	for _, digest := range digests {
		for _, status := range []cms.PKIStatus{cms.Success, cms.Failure, cms.Pending} {
			config := cms.PKIMessageConfig{
				TransactionID: "*42*", MessageType: cms.CertRep, RecipientNonce: nonce, PKIStatus: status, Digest: digest,
				SigningTime: time.Unix(1e9, 0),
			}
			switch status {
			case cms.Success:
				var err error
				if config.Envelope, err = cms.Encrypt(cms.CertificatesOnly(issued.Raw), client.certificate, cms.Encryption{}); err != nil {
					t.Fatal(err)
				}
			case cms.Failure:
				config.FailInfo, config.FailInfoText = cms.BadCertID, strings.Repeat("é", 200)
			}
			b, err := signer.SignPKIMessage(config)
			if err != nil {
				t.Fatal(err)
			}
			r, err := raw.ReadCertRep(b, id.certificate)
			if err != nil {
				t.Fatalf("%v, %v: %v", digest, status, err)
			}
			if !r.SignatureAlgorithm.Is(raw.RSAEncryption) { // strongSwan takes nothing else
				t.Errorf("%v, %v: signatureAlgorithm %x", digest, status, r.SignatureAlgorithm.Body)
			}
			if !r.DigestAlgorithm.Is(raw.DigestOIDs[digest]) {
				t.Errorf("%v, %v: digestAlgorithm %x", digest, status, r.DigestAlgorithm.Body)
			}
			if r.Text(raw.TransactionID, 0x13) != "*42*" || r.Text(raw.MessageType, 0x13) != "3" ||
				r.Text(raw.RecipientNonce, 4) != string(nonce) || len(r.Text(raw.SenderNonce, 4)) != 16 || r.Text(raw.SigningTime, 0x17) != "010909014640Z" {
				t.Errorf("%v, %v: attributes %x", digest, status, r.Attributes)
			}
			gotStatus, failInfo, text := r.Status()
			if gotStatus != fmt.Sprint(int(status)) || !r.HasContent { // certmonger breaks without content
				t.Errorf("%v, %v: status %q, content %v", digest, status, gotStatus, r.HasContent)
			}
			if len(r.Certificates) != 1 || !r.Certificates[0].Equal(id.certificate) {
				t.Errorf("%v, %v: %d certificates", digest, status, len(r.Certificates))
			}
			if status == cms.Failure {
				if failInfo != "4" || text != strings.Repeat("é", 127) {
					t.Errorf("%v: failInfo %q, %q", digest, failInfo, text)
				}
			} else if failInfo != "" || text != "" {
				t.Errorf("%v, %v: failInfo %q, %q", digest, status, failInfo, text)
			}
			if status != cms.Success {
				if len(r.Content) != 0 {
					t.Errorf("%v, %v: content %x", digest, status, r.Content)
				}
				continue
			}
			opened, err := raw.Open(r.Content, client.certificate, client.key.(*rsa.PrivateKey))
			if err != nil {
				t.Fatal(err)
			}
			certificates, crls, err := raw.Degenerate(opened.Plaintext)
			if err != nil || len(certificates) != 1 || len(crls) != 0 || !bytes.Equal(certificates[0].Full, issued.Raw) {
				t.Errorf("%v: %d certificates, %d CRLs, %v", digest, len(certificates), len(crls), err)
			}
		}
	}
	ciphers := map[cms.Cipher]string{cms.AES128CBC: raw.AES128, cms.AES192CBC: raw.AES192, cms.AES256CBC: raw.AES256, cms.DES3CBC: raw.DES3, cms.DESCBC: raw.DES}
	for c, id := range ciphers {
		for _, k := range transports() {
			b, err := cms.Encrypt(content, client.certificate, cms.Encryption{Cipher: c, KeyTransport: k})
			if err != nil {
				t.Fatal(err)
			}
			opened, err := raw.Open(b, client.certificate, client.key.(*rsa.PrivateKey))
			if err != nil || opened.Cipher != id || !bytes.Equal(opened.Plaintext, content) {
				t.Errorf("%v, %v: %+v, %v", c, k, opened, err)
			}
			if want := map[bool]string{true: raw.RSAEncryption, false: raw.OAEP}[k.OAEPHash == 0]; !opened.KeyAlgorithm.Is(want) {
				t.Errorf("%v, %v: key transport %x", c, k, opened.KeyAlgorithm.Body)
			}
		}
	}
}

// TestPasswordDemands: RFC 8894, Section 3.1, for keys that cannot encrypt; RFC 3211; RFC 8018.
func TestPasswordDemands(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(*raw.Password)
		err  error
	}{
		{"as it should be", func(*raw.Password) {}, nil},
		{"3DES", func(p *raw.Password) { p.Cipher = raw.DES3 }, nil},
		{"AES-256, HMAC with SHA-256", func(p *raw.Password) { p.Cipher, p.PRF = raw.AES256, crypto.SHA256 }, nil},
		{"the default PRF, written", func(p *raw.Password) { p.PRF = crypto.SHA1 }, nil},
		{"keyLength", func(p *raw.Password) { p.KeyLength = raw.Int(16) }, nil},
		{"another keyLength", func(p *raw.Password) { p.KeyLength = raw.Int(17) }, cms.ErrAlgorithm},
		{"HMAC with MD5", func(p *raw.Password) { p.PRF = crypto.MD5 }, cms.ErrAlgorithm},
		{"single DES", func(p *raw.Password) { p.Cipher = raw.DES }, cms.ErrAlgorithm},
		{"a million iterations and one", func(p *raw.Password) {
			p.Derivation = raw.Context(0, raw.OID(raw.PBKDF2), raw.Sequence(raw.Octets(nil), raw.Int(1_000_001)))
		}, cms.ErrAlgorithm},
		{"2^62 iterations", func(p *raw.Password) {
			p.Derivation = raw.Context(0, raw.OID(raw.PBKDF2), raw.Sequence(raw.Octets(nil), raw.Int(1<<62)))
		}, cms.ErrAlgorithm},
		{"no iterations", func(p *raw.Password) {
			p.Derivation = raw.Context(0, raw.OID(raw.PBKDF2), raw.Sequence(raw.Octets(nil), raw.Int(0)))
		}, cms.ErrAlgorithm},
		{"a salt of 257 octets", func(p *raw.Password) { p.Salt = raw.Random(257) }, cms.ErrAlgorithm},
		{"another derivation", func(p *raw.Password) { p.Derivation = raw.Context(0, raw.OID("1.2.3")) }, cms.ErrAlgorithm},
		{"another wrapping", func(p *raw.Password) { p.Wrapping = raw.Sequence(raw.OID("1.2.3")) }, cms.ErrAlgorithm},
		{"another password", func(p *raw.Password) { p.Text = "Secret" }, cms.ErrDecryption},
		{"first check octet", func(p *raw.Password) { p.EditBlock = func(b []byte) []byte { b[1] ^= 1; return b } }, cms.ErrDecryption},
		{"last check octet", func(p *raw.Password) { p.EditBlock = func(b []byte) []byte { b[3] ^= 1; return b } }, cms.ErrDecryption},
		{"length octet", func(p *raw.Password) { p.EditBlock = func(b []byte) []byte { b[0]++; return b } }, cms.ErrDecryption},
		{"one block", func(p *raw.Password) {
			p.EditBlock = func(b []byte) []byte { return b[:16] }
			p.Wrapped = raw.Random(16)
		}, cms.ErrDecryption},
		{"nothing", func(p *raw.Password) { p.Wrapped = []byte{} }, cms.ErrDecryption},
		{"no whole block", func(p *raw.Password) { p.Wrapped = raw.Random(33) }, cms.ErrDecryption},
	}
	for _, tt := range tests {
		p := raw.Password{Text: "secret", Key: raw.Random(16)}
		tt.edit(&p)
		b := raw.Envelope{SessionKey: p.Key, Plaintext: content, Recipients: [][]byte{p.RecipientInfo()}, Version: raw.Int(3)}.Bytes()
		e, err := cms.ParseEnvelopedData(b, cms.Limits{})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got, err := e.DecryptWithPassword([]byte("secret"), cms.PasswordOptions{})
		switch {
		case tt.err != nil && err == nil:
			t.Errorf("%s: accepted, want %v", tt.name, tt.err)
		case tt.err != nil:
			isBad(t, err, tt.err)
		case err != nil || !bytes.Equal(got, content):
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
	for c, id := range map[cms.Cipher]string{cms.AES128CBC: raw.AES128, cms.AES192CBC: raw.AES192, cms.AES256CBC: raw.AES256, cms.DES3CBC: raw.DES3} {
		b, err := cms.EncryptToPassword(content, []byte("secret"), cms.PasswordEncryption{Cipher: c, Iterations: 100})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := raw.OpenWithPassword(b, "secret"); err != nil || got.Cipher != id || !bytes.Equal(got.Plaintext, content) {
			t.Errorf("%v: %+v, %v", c, got, err)
		}
	}
}

// TestRefusesToWrite: a caller's mistake does not become a message.
func TestRefusesToWrite(t *testing.T) {
	t.Parallel()
	id := device()
	good := cms.PKIMessageConfig{TransactionID: "1", MessageType: cms.CertRep, RecipientNonce: make([]byte, 16), PKIStatus: cms.Pending}
	for name, edit := range map[string]func(*cms.PKIMessageConfig){
		"no transactionID":               func(c *cms.PKIMessageConfig) { c.TransactionID = "" },
		"transactionID not printable":    func(c *cms.PKIMessageConfig) { c.TransactionID = "é" },
		"no recipientNonce":              func(c *cms.PKIMessageConfig) { c.RecipientNonce = nil },
		"short senderNonce":              func(c *cms.PKIMessageConfig) { c.SenderNonce = []byte{1} },
		"recipientNonce in a request":    func(c *cms.PKIMessageConfig) { c.MessageType = cms.PKCSReq },
		"PENDING with an envelope":       func(c *cms.PKIMessageConfig) { c.Envelope = content },
		"SUCCESS without an envelope":    func(c *cms.PKIMessageConfig) { c.PKIStatus = cms.Success },
		"unknown status":                 func(c *cms.PKIMessageConfig) { c.PKIStatus = 1 },
		"unknown failInfo":               func(c *cms.PKIMessageConfig) { c.PKIStatus, c.FailInfo = cms.Failure, 5 },
		"failInfoText that is not UTF-8": func(c *cms.PKIMessageConfig) { c.PKIStatus, c.FailInfoText = cms.Failure, "\xff" },
		"MD5":                            func(c *cms.PKIMessageConfig) { c.Digest = crypto.MD5 },
	} {
		c := good
		edit(&c)
		if b, err := id.signer(t).SignPKIMessage(c); err == nil {
			t.Errorf("%s: written: %x", name, b)
		}
	}
	ec := signers(t)["P-256"]
	if _, err := cms.Encrypt(content, ec.certificate, cms.Encryption{}); err == nil {
		t.Error("encrypted to an ECDSA key")
	} else {
		isBad(t, err, cms.ErrAlgorithm)
	}
	if _, err := cms.EncryptToPassword(content, nil, cms.PasswordEncryption{}); err == nil {
		t.Error("encrypted to an empty password")
	}
	if _, err := cms.NewSigner(id.certificate, ec.key); err == nil {
		t.Error("a signer with another's certificate")
	}
	if _, err := cms.NewRecipient(ec.certificate, id.key.(crypto.Decrypter)); err == nil {
		t.Error("a recipient with another's certificate")
	}
}
