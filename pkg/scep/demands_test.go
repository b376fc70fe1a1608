package scep_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
)

// extensions is the extensionRequest attribute.
func extensions(list ...[]byte) []byte {
	return scepraw.Attribute(scepraw.ExtensionRequest, scepraw.Sequence(list...))
}

func extension(id string, critical bool, value ...[]byte) []byte {
	parts := [][]byte{scepraw.OID(id)}
	if critical {
		parts = append(parts, []byte{1, 1, 0xff})
	}
	return scepraw.Sequence(append(parts, scepraw.Octets(scepraw.Join(value...)))...)
}

func sans(names ...[]byte) []byte {
	return extension("2.5.29.17", false, scepraw.Sequence(names...))
}

func dns(s string) []byte { return scepraw.TLV(0x82, []byte(s)) }

// TestRequestPolicy: what a CSR asks for beyond the profile is not in the certificate, and what it must not ask for is
// refused (docs/scep.md; RFC 8894, Section 2.4). An empty failInfo wants a certificate.
func TestRequestPolicy(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	weak := newRSAKey(1024)
	basicConstraints := func(parts ...[]byte) []byte { return extension("2.5.29.19", true, scepraw.Sequence(parts...)) }
	isTrue := []byte{1, 1, 0xff}
	challenge := scepraw.Attribute(scepraw.ChallengePassword, scepraw.Printable(staticText))
	for _, c := range []struct {
		name  string
		edit  func(*scepraw.CSR)
		info  string
		check func(*x509.Certificate) bool
	}{
		{"Windows: CA:FALSE with a path length", func(c *scepraw.CSR) {
			c.Attributes = append(c.Attributes, extensions(basicConstraints(scepraw.Int(0))))
		}, "", nil},
		{"Windows: CA:FALSE", func(c *scepraw.CSR) { c.Attributes = append(c.Attributes, extensions(basicConstraints())) }, "", nil},
		{"CA:TRUE", func(c *scepraw.CSR) { c.Attributes = append(c.Attributes, extensions(basicConstraints(isTrue))) }, "2", nil},
		{"keyCertSign is left out", func(c *scepraw.CSR) {
			c.Attributes = append(c.Attributes, extensions(extension("2.5.29.15", true, scepraw.TLV(3, []byte{1, 0x06}))))
		}, "", func(c *x509.Certificate) bool { return c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) == 0 }},
		{"an unknown extension is left out", func(c *scepraw.CSR) {
			c.Attributes = append(c.Attributes, extensions(extension("1.2.3.4", true, scepraw.Null())))
		}, "", func(c *x509.Certificate) bool {
			return !slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(asn1.ObjectIdentifier{1, 2, 3, 4}) })
		}},
		{"OCSP signing is left out, or refused", func(c *scepraw.CSR) {
			c.Attributes = append(c.Attributes, extensions(extension("2.5.29.37", false, scepraw.Sequence(scepraw.OID("1.3.6.1.5.5.7.3.9")))))
		}, "*", func(c *x509.Certificate) bool { return !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) }},
		{"anyExtendedKeyUsage is left out, or refused", func(c *scepraw.CSR) {
			c.Attributes = append(c.Attributes, extensions(extension("2.5.29.37", false, scepraw.Sequence(scepraw.OID("2.5.29.37.0")))))
		}, "*", func(c *x509.Certificate) bool { return !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) }},
		{"the server's own name", func(c *scepraw.CSR) { c.Attributes = append(c.Attributes, extensions(sans(dns("pki.example.com")))) }, "2", nil},
		{"a wildcard", func(c *scepraw.CSR) { c.Attributes = append(c.Attributes, extensions(sans(dns("*.example.com")))) }, "2", nil},
		{"NUL in a name", func(c *scepraw.CSR) {
			c.Attributes = append(c.Attributes, extensions(sans(dns("a.example.com\x00.b"))))
		}, "2", nil},
		{"NUL in the subject", func(c *scepraw.CSR) { c.Subject = scepraw.Name("a\x00b") }, "2", nil},
		{"ESC in the subject", func(c *scepraw.CSR) { c.Subject = scepraw.Name("a\x1b[31mb") }, "2", nil},
		{"bidirectional characters in the subject", func(c *scepraw.CSR) { c.Subject = scepraw.Name("a\u202eb") }, "2", nil},
		{"a challenge of two values", func(c *scepraw.CSR) {
			c.Challenges, c.Attributes = nil, [][]byte{scepraw.Attribute(scepraw.ChallengePassword, scepraw.Printable(staticText), scepraw.Printable("b"))}
		}, "2", nil},
		{"the same challenge twice", func(c *scepraw.CSR) { c.Challenges, c.Attributes = nil, [][]byte{challenge, challenge} }, "2", nil},
		{"a challenge as UTF8String", func(c *scepraw.CSR) {
			c.Challenges, c.Attributes = nil, [][]byte{scepraw.Attribute(scepraw.ChallengePassword, scepraw.UTF8(staticText))}
		}, "", nil},
		{"a challenge as INTEGER", func(c *scepraw.CSR) {
			c.Challenges, c.Attributes = nil, [][]byte{scepraw.Attribute(scepraw.ChallengePassword, scepraw.Int(7))}
		}, "2", nil},
		{"an RSA key of 1024 bits", func(c *scepraw.CSR) { c.Key = weak }, "0", nil},
		{"SHA-1 in the CSR", func(c *scepraw.CSR) { c.Digest = crypto.SHA1 }, "", nil},
		{"MD5 in the CSR", func(c *scepraw.CSR) { c.Digest = crypto.MD5 }, "2", nil},
		{"SHA-512 in the CSR", func(c *scepraw.CSR) { c.Digest = crypto.SHA512 }, "", nil},
	} {
		csr := scepraw.CSR{Key: d.key, Challenges: []string{staticText}}
		c.edit(&csr)
		dev := *d
		dev.id = "tx-" + scepraw.DigestOIDs[crypto.SHA1] + "-" + strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' {
				return r
			}
			return '-'
		}, c.name)
		if csr.Key != d.key {
			dev.key, dev.sign = csr.Key, csr.Key
			dev.signer = selfSigned(csr.Key, "device")
		}
		got := dev.ask("19", csr.Bytes())
		switch {
		case got.status == "0":
			if c.info != "" && c.info != "*" || c.check != nil && !c.check(got.success(t)) {
				t.Errorf("%s: issued %+v", c.name, got.certificates)
			}
			if got.success(t).IsCA {
				t.Errorf("%s: issued a CA", c.name)
			}
		case got.status != "2" || c.info == "" || c.info != "*" && got.info != c.info:
			t.Errorf("%s: status %s, failInfo %s, %q; want %q", c.name, got.status, got.info, got.text, c.info)
		}
	}
}

// TestAnswerIsForTheSigner: an answer goes to the certificate that signs, whatever other certificates a message has (trap
// 5: "encrypted to the signer only"); an ID that another key used blocks nobody, and gives nobody another's certificate
// (trap 4).
func TestAnswerIsForTheSigner(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	stranger := selfSigned(otherKey(), "stranger")
	for name, order := range map[string][][]byte{
		"first": {stranger.Raw, d.signer.Raw}, "last": {d.signer.Raw, stranger.Raw}, "between": {stranger.Raw, d.signer.Raw, d.ra.Raw},
	} {
		m := d.message("19", d.envelope(d.csr(staticText)).Bytes())
		m.Certificates = order
		if got := d.send(m).success(t); !got.PublicKey.(*rsa.PublicKey).Equal(d.key.Public()) {
			t.Errorf("%s: another's certificate", name)
		}
	}
	e := r.device(otherKey())
	e.id = d.id
	if got := e.ask("19", e.csr(staticText)).success(t); !got.PublicKey.(*rsa.PublicKey).Equal(e.key.Public()) {
		t.Error("the ID of another key gives its certificate")
	}
	if n := r.count(); n != 2 {
		t.Errorf("two devices and their retries have %d certificates", n)
	}
}
