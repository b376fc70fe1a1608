package der_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/der"
)

// The fuzz targets hold the promise of the package comment: what is accepted is
// read back by Go, what is not is a *ValueError.

func refused(t *testing.T, err error) bool {
	t.Helper()
	if err == nil {
		return false
	}
	var ve *der.ValueError
	if !errors.As(err, &ve) {
		t.Fatalf("got %v, want a *ValueError", err)
	}
	return true
}

// parseTBS wraps a TBSCertificate with a signature of no meaning and parses it.
func parseTBS(t *testing.T, tbs []byte, a *der.SignatureAlgorithm) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der.AppendSigned(nil, tbs, a, []byte{1}))
	if err != nil {
		t.Fatalf("accepted, but does not parse: %v\n%x", err, tbs)
	}
	return c
}

func FuzzName(f *testing.F) {
	f.Add(uint8(3), "Example CA", uint8(10), "Example & Söhne", true)
	f.Add(uint8(6), "DE", uint8(5), "SN-0001", false)
	f.Add(uint8(46), "", uint8(255), "\xff\x00", true)
	f.Fuzz(func(t *testing.T, typeA uint8, a string, typeB uint8, b string, oneRDN bool) {
		oid := func(n uint8) asn1.ObjectIdentifier {
			switch n {
			case 200:
				return asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
			case 201:
				return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
			}
			return asn1.ObjectIdentifier{2, 5, 4, int(n)}
		}
		x, y := der.Attribute{Type: oid(typeA), Value: a}, der.Attribute{Type: oid(typeB), Value: b}
		rdns := [][]der.Attribute{{x}, {y}}
		if oneRDN {
			rdns = [][]der.Attribute{{x, y}}
		}
		raw, err := der.AppendName(nil, rdns)
		if refused(t, err) {
			return
		}
		template, fields := serverTemplate(t, ed25519Key())
		fields.Subject = raw
		tbs, err := template.AppendTBS(nil, fields)
		if err != nil {
			t.Fatalf("AppendName's own name is refused: %v\n%x", err, raw)
		}
		c := parseTBS(t, tbs, template.SignatureAlgorithm())
		values := map[string]bool{}
		for _, v := range c.Subject.Names {
			values[v.Type.String()+"="+v.Value.(string)] = true
		}
		if !values[x.Type.String()+"="+a] || !values[y.Type.String()+"="+b] {
			t.Fatalf("got %v, want %v and %v", values, x, y)
		}
	})
}

func FuzzGeneralNames(f *testing.F) {
	f.Add(uint8(2), "*.example.com", []byte(nil))
	f.Add(uint8(1), "alice@example.com", []byte(nil))
	f.Add(uint8(6), "http://[::1]:8080/%41?q#f", []byte(nil))
	f.Add(uint8(7), "", []byte{192, 0, 2, 1})
	f.Add(uint8(4), "", []byte("\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01a"))
	f.Add(uint8(0), "alice", []byte(nil))
	f.Add(uint8(0), "", []byte{0x30, 6, 6, 1, 0x2a, 4, 1, 9})
	f.Fuzz(func(t *testing.T, tag uint8, text string, raw []byte) {
		names := []der.GeneralName{der.DNSName("example.com"), {
			Tag: der.GeneralNameTag(tag), Text: text, Raw: raw, TypeID: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3},
		}}
		encoded, err := der.AppendGeneralNames(nil, names)
		if refused(t, err) {
			return
		}
		template, fields := serverTemplate(t, ed25519Key())
		fields.SubjectAltName = encoded
		tbs, err := template.AppendTBS(nil, fields)
		if err != nil {
			t.Fatalf("AppendGeneralNames' own names are refused: %v\n%x", err, encoded)
		}
		c := parseTBS(t, tbs, template.SignatureAlgorithm())
		if len(c.DNSNames) < 1 || c.DNSNames[0] != "example.com" {
			t.Fatalf("got DNS names %q", c.DNSNames)
		}
	})
}

// FuzzCertificate puts raw octets wherever a certificate's fields take them.
func FuzzCertificate(f *testing.F) {
	_, good := serverTemplate(f, ed25519Key())
	f.Add(good.SerialNumber, good.NotBefore.Unix(), good.NotAfter.Unix(), good.Subject, good.SubjectAltName, good.SubjectKeyID, "")
	f.Add([]byte{1}, int64(2524607999), int64(253402300799), []byte{0x30, 0}, good.SubjectAltName, []byte{}, "http://a/b.crl")
	f.Add([]byte{0}, int64(-1<<62), int64(1<<62), []byte{0x30, 0x80}, []byte{0x30, 2, 0x87, 0}, []byte(nil), "x")
	f.Fuzz(func(t *testing.T, serial []byte, notBefore, notAfter int64, subject, san, keyID []byte, cdp string) {
		template, fields := serverTemplate(t, ed25519Key())
		fields.SerialNumber, fields.Subject, fields.SubjectAltName = serial, subject, san
		fields.NotBefore, fields.NotAfter = time.Unix(notBefore, 0), time.Unix(notAfter, 0)
		fields.SubjectKeyID, fields.CRLDistributionPoint = keyID, cdp
		tbs, err := template.AppendTBS(nil, fields)
		if refused(t, err) {
			return
		}
		c := parseTBS(t, tbs, template.SignatureAlgorithm())
		if c.SerialNumber.Cmp(new(big.Int).SetBytes(serial)) != 0 || c.NotBefore.Unix() != notBefore || c.NotAfter.Unix() != notAfter ||
			!bytes.Equal(c.RawSubject, subject) || !bytes.Equal(c.SubjectKeyId, keyID) {
			t.Fatalf("reads differently: %x", tbs)
		}
		if cdp != "" && c.CRLDistributionPoints[0] != cdp {
			t.Fatalf("CDP: got %q, want %q", c.CRLDistributionPoints, cdp)
		}
	})
}

// FuzzTemplate does it with the configuration of a CA certificate.
func FuzzTemplate(f *testing.F) {
	f.Add([]byte("issuer"), []byte{1}, 6, 0, "http://a/", "example.com", "example.com", "example.com", []byte{10, 0, 0, 0}, 8, []byte{5, 0}, 55555)
	f.Add([]byte(nil), []byte{}, 0x1ff, 400, "", "", ".", "10.0.0.1", []byte{0, 0, 0, 0}, 99, []byte{0x30, 0x80}, -1)
	f.Fuzz(func(t *testing.T, issuer, keyID []byte, usage, pathLen int, url, dns, email, host string, ip []byte, bits int, value []byte, arc int) {
		addr, _ := netip.AddrFromSlice(ip)
		signer := ed25519Key()
		a := algorithmOf(t, signer)
		c := der.CertificateConfig{
			SignatureAlgorithm: a, Issuer: name(t, cn("x")), AuthorityKeyID: keyID,
			KeyUsage: x509.KeyUsage(usage) | x509.KeyUsageCertSign, IsCA: true, PathLen: &pathLen,
			ExtKeyUsage:           []asn1.ObjectIdentifier{{1, 3, arc}},
			CRLDistributionPoints: []string{url}, OCSPServers: []string{url}, CAIssuers: []string{url}, FreshestCRL: []string{url},
			Policies: []der.PolicyInformation{{Identifier: asn1.ObjectIdentifier{1, 2, arc}, CPS: url}},
			NameConstraints: &der.NameConstraints{Permitted: der.Subtrees{
				DNS: []string{dns}, Email: []string{email}, URI: []string{host}, IP: []netip.Prefix{netip.PrefixFrom(addr, bits)},
			}},
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, arc}, Value: value}},
		}
		if len(issuer) > 0 && issuer[0] == 0x30 {
			c.Issuer = issuer
		}
		template, err := der.NewCertificateTemplate(c)
		if refused(t, err) {
			return
		}
		_, fields := serverTemplate(t, signer)
		tbs, err := template.AppendTBS(nil, fields)
		if err != nil {
			t.Fatal(err)
		}
		// Go keeps pathLenConstraint in an int and refuses none that fits.
		parseTBS(t, tbs, a)
	})
}
