package cms_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"testing"

	"github.com/certwright/certwright/pkg/cms"
	raw "github.com/certwright/certwright/pkg/internal/scepraw"
)

// RFC 5280, Section 7.1: string types, letter case and space do not count; types of attributes, their order and all else do.
func TestEqualNames(t *testing.T) {
	t.Parallel()
	attribute := func(id string, tag byte, text string) []byte {
		return raw.Sequence(raw.OID(id), raw.TLV(tag, []byte(text)))
	}
	const cn, o = "2.5.4.3", "2.5.4.10"
	name := func(rdns ...[]byte) []byte { return raw.Sequence(rdns...) }
	base := name(raw.Set(attribute(o, 0x0c, "Example")), raw.Set(attribute(cn, 0x0c, "Issuing CA é")))
	for why, c := range map[string]struct {
		a, b []byte
		want bool
	}{
		"itself":       {base, base, true},
		"other types":  {base, name(raw.Set(attribute(o, 0x13, "Example")), raw.Set(attribute(cn, 0x1e, "\x00I\x00s\x00s\x00u\x00i\x00n\x00g\x00 \x00C\x00A\x00 \x00\xe9"))), true},
		"letter case":  {base, name(raw.Set(attribute(o, 0x0c, "EXAMPLE")), raw.Set(attribute(cn, 0x0c, "issuing ca É"))), true},
		"space":        {base, name(raw.Set(attribute(o, 0x0c, " Example ")), raw.Set(attribute(cn, 0x0c, "Issuing   CA é"))), true},
		"another text": {base, name(raw.Set(attribute(o, 0x0c, "Example")), raw.Set(attribute(cn, 0x0c, "Issuing CA e"))), false},
		"another type": {base, name(raw.Set(attribute("2.5.4.11", 0x0c, "Example")), raw.Set(attribute(cn, 0x0c, "Issuing CA é"))), false},
		"order":        {base, name(raw.Set(attribute(cn, 0x0c, "Issuing CA é")), raw.Set(attribute(o, 0x0c, "Example"))), false},
		"less":         {base, name(raw.Set(attribute(o, 0x0c, "Example"))), false},
		"nothing":      {base, name(), false},
		"one RDN":      {base, name(raw.Set(attribute(o, 0x0c, "Example"), attribute(cn, 0x0c, "Issuing CA é"))), false},
		"more in an RDN": {
			name(raw.Set(attribute(o, 0x0c, "x"))), name(raw.Set(attribute(o, 0x13, "x"), attribute(cn, 0x0c, "y"))), false,
		},
		"numbers":          {name(raw.Set(raw.Sequence(raw.OID(cn), raw.Int(1)))), name(raw.Set(raw.Sequence(raw.OID(cn), raw.Int(2)))), false},
		"a number, a text": {name(raw.Set(attribute(cn, 2, "a"))), name(raw.Set(attribute(cn, 0x0c, "a"))), false},
		"octets behind":    {base, raw.Join(name(raw.Set(attribute(o, 0x13, "Example")), raw.Set(attribute(cn, 0x0c, "Issuing CA é"))), raw.Null()), false},
		"no name":          {base, []byte("x"), false},
	} {
		if got := cms.EqualNames(c.a, c.b); got != c.want {
			t.Errorf("%s: %v", why, got)
		}
		if got := cms.EqualNames(c.b, c.a); got != c.want {
			t.Errorf("%s, the other way round: %v", why, got)
		}
	}
}

// RFC 8017, Section 7.1.1: RSAES-OAEP takes two octets and two digests of the modulus. Where what is left is too little for
// the key, the nearest shorter digest is used.
func TestEncryptToShortKeys(t *testing.T) {
	t.Parallel()
	short, long := selfSigned(t, newRSA(1024)), selfSigned(t, rsaKey())
	for _, c := range []struct {
		to           identity
		cipher       cms.Cipher
		oaep, mgf    crypto.Hash
		want, wanted crypto.Hash
	}{
		{short, cms.AES128CBC, crypto.SHA512, crypto.SHA512, crypto.SHA384, crypto.SHA384},
		{short, cms.AES192CBC, crypto.SHA512, crypto.SHA512, crypto.SHA384, crypto.SHA384},
		{short, cms.AES256CBC, crypto.SHA512, crypto.SHA512, crypto.SHA256, crypto.SHA256},
		{short, cms.AES256CBC, crypto.SHA384, 0, crypto.SHA256, crypto.SHA256},
		{short, cms.AES256CBC, crypto.SHA512, crypto.SHA1, crypto.SHA256, crypto.SHA1},
		{short, cms.AES256CBC, crypto.SHA256, crypto.SHA256, crypto.SHA256, crypto.SHA256},
		{short, cms.AES256CBC, 0, 0, 0, 0},
		{long, cms.AES256CBC, crypto.SHA512, crypto.SHA512, crypto.SHA512, crypto.SHA512},
	} {
		b, err := cms.Encrypt(content, c.to.certificate, cms.Encryption{Cipher: c.cipher, KeyTransport: cms.KeyTransport{OAEPHash: c.oaep, MGFHash: c.mgf}})
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		e, err := cms.ParseEnvelopedData(b, cms.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		r := c.to.recipient(t)
		if got := e.KeyTransport(r); got.OAEPHash != c.want || got.MGFHash != c.wanted {
			t.Errorf("%v with %v for %d bits: %v", c.oaep, c.cipher, c.to.certificate.PublicKey.(interface{ Size() int }).Size()*8, got)
		}
		if got, err := e.Decrypt(r, cms.DecryptOptions{}); err != nil || string(got) != string(content) {
			t.Errorf("%v with %v: %q, %v", c.oaep, c.cipher, got, err)
		}
	}
}

// oddCertificate has a negative serial number, an extension twice, and TRUE as no DER has it.
func oddCertificate(id identity) []byte {
	spki, err := x509.MarshalPKIXPublicKey(id.key.Public())
	if err != nil {
		panic(err)
	}
	keyID := raw.Sequence(raw.OID("2.5.29.14"), raw.Octets(raw.Octets([]byte("key id"))))
	usage := raw.Sequence(raw.OID("2.5.29.15"), []byte{1, 1, 1}, raw.Octets([]byte{3, 2, 5, 0xa0}))
	algorithm := raw.Sequence(raw.OID(raw.RSAWith[crypto.SHA256]), raw.Null())
	validity := raw.Sequence(raw.TLV(0x17, []byte("250101000000Z")), raw.TLV(0x17, []byte("350101000000Z")))
	tbs := raw.Sequence(raw.Context(0, raw.Int(2)), raw.TLV(2, []byte{0xff, 0x01}), algorithm, raw.Name("device"), validity, raw.Name("device"), spki,
		raw.Context(3, raw.Sequence(usage, keyID, usage)))
	return raw.Sequence(tbs, algorithm, raw.Bits(raw.Signature(id.key, crypto.SHA256, tbs)))
}

// oddIdentifier is the IssuerAndSerialNumber of an oddCertificate.
func oddIdentifier() []byte { return raw.Sequence(raw.Name("device"), raw.TLV(2, []byte{0xff, 0x01})) }

// A certificate that crypto/x509 refuses is read as far as an answer needs it, and judged by its own signature where that can be checked.
func TestOddCertificate(t *testing.T) {
	t.Parallel()
	id := device()
	certificate := oddCertificate(id)
	if _, err := x509.ParseCertificate(certificate); err == nil {
		t.Fatal("crypto/x509 reads it")
	}
	for _, sid := range [][]byte{oddIdentifier(), raw.TLV(0x80, []byte("key id"))} {
		m, err := cms.ParsePKIMessage(raw.Message{
			Key: id.key, Content: content, TransactionID: "1", MessageType: "19", SID: sid, Certificates: [][]byte{certificate},
		}.Bytes(), cms.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := m.Verify(cms.VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if c.SerialNumber.Int64() != -255 || len(c.Extensions) != 3 || !c.Extensions[0].Critical || c.Extensions[1].Critical || !cms.IsSelfSigned(c) {
			t.Errorf("read as %+v", c)
		}
		b, err := cms.Encrypt(content, c, cms.Encryption{})
		if err != nil {
			t.Fatal(err)
		}
		opened, err := raw.OpenFor(b, oddIdentifier(), id.key.(*rsa.PrivateKey))
		if err != nil || string(opened.Plaintext) != string(content) {
			t.Errorf("an answer cannot be opened: %v", err)
		}
	}
}
