package cms

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// oidSubjectKeyIdentifier is RFC 5280, Section 4.2.1.2.
var oidSubjectKeyIdentifier = asn1.ObjectIdentifier{2, 5, 29, 14}

// parseCertificate reads a client's certificate. What a device has made to sign its first request with is a wrapping for
// its key and its name, and old ones are made badly: negative serial numbers, underscores and Latin-1 in a
// PrintableString, extensions twice or critical against RFC 5280, Section 4.2 (Windows), times with an offset.
// crypto/x509 refuses them all. Of those that it refuses what is needed for an answer is read, and nothing else is set:
// Raw and the other raw fields, SerialNumber, PublicKey, Extensions and SubjectKeyId. The times are zero.
func parseCertificate(raw []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(raw)
	if err == nil {
		return c, nil
	}
	if c = readCertificate(raw); c == nil {
		return nil, err
	}
	return c, nil
}

// readCertificate is parseCertificate for what crypto/x509 refuses; nil if there is no certificate in it.
func readCertificate(raw []byte) *x509.Certificate {
	c := &x509.Certificate{Raw: raw}
	s := cryptobyte.String(raw)
	var certificate, tbs, body, serial, issuer, subject, spki cryptobyte.String
	if !s.ReadASN1(&certificate, cbasn1.SEQUENCE) || !s.Empty() || !certificate.ReadASN1Element(&tbs, cbasn1.SEQUENCE) ||
		!certificate.SkipASN1(cbasn1.SEQUENCE) || !certificate.ReadASN1BitStringAsBytes(&c.Signature) || !certificate.Empty() {
		return nil
	}
	c.RawTBSCertificate = tbs
	if !tbs.ReadASN1(&body, cbasn1.SEQUENCE) || !body.SkipOptionalASN1(tag0Constructed) || // version
		!body.ReadASN1(&serial, cbasn1.INTEGER) || len(serial) == 0 || !body.SkipASN1(cbasn1.SEQUENCE) ||
		!body.ReadASN1Element(&issuer, cbasn1.SEQUENCE) || !body.SkipASN1(cbasn1.SEQUENCE) ||
		!body.ReadASN1Element(&subject, cbasn1.SEQUENCE) || !body.ReadASN1Element(&spki, cbasn1.SEQUENCE) {
		return nil
	}
	c.RawIssuer, c.RawSubject, c.RawSubjectPublicKeyInfo = issuer, subject, spki
	c.SerialNumber = new(big.Int).SetBytes(serial)
	if serial[0] >= 0x80 {
		c.SerialNumber.Sub(c.SerialNumber, new(big.Int).Lsh(big.NewInt(1), uint(8*len(serial))))
	}
	c.PublicKey, _ = x509.ParsePKIXPublicKey(spki) // nil for a curve that is not known, which Verify tells
	// issuerUniqueID and subjectUniqueID mean nothing.
	var extensions cryptobyte.String
	if body.SkipOptionalASN1(cbasn1.Tag(1).ContextSpecific()) && body.SkipOptionalASN1(cbasn1.Tag(2).ContextSpecific()) &&
		body.ReadASN1(&extensions, cbasn1.Tag(3).ContextSpecific().Constructed()) {
		c.Extensions = readExtensions(extensions)
	}
	for _, e := range c.Extensions {
		value := cryptobyte.String(e.Value)
		var id cryptobyte.String
		if e.Id.Equal(oidSubjectKeyIdentifier) && value.ReadASN1(&id, cbasn1.OCTET_STRING) && c.SubjectKeyId == nil {
			c.SubjectKeyId = id
		}
	}
	return c
}

// readExtensions reads an Extensions as far as it can be read.
func readExtensions(s cryptobyte.String) []pkix.Extension {
	var list cryptobyte.String
	if !s.ReadASN1(&list, cbasn1.SEQUENCE) {
		return nil
	}
	var extensions []pkix.Extension
	for !list.Empty() {
		var extension, critical, value cryptobyte.String
		var present bool
		var id asn1.ObjectIdentifier
		if !list.ReadASN1(&extension, cbasn1.SEQUENCE) || !extension.ReadASN1ObjectIdentifier(&id) ||
			!extension.ReadOptionalASN1(&critical, &present, cbasn1.BOOLEAN) || !extension.ReadASN1(&value, cbasn1.OCTET_STRING) {
			break
		}
		extensions = append(extensions, pkix.Extension{Id: id, Critical: present && !bytes.Equal(critical, []byte{0}), Value: value})
	}
	return extensions
}

// EqualNames compares two distinguished names in DER, as RFC 5280, Section 7.1, does: without regard to the type of a
// string, to letter case and to space. Some clients take the names of certificates apart and write them anew.
func EqualNames(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, y := cryptobyte.String(a), cryptobyte.String(b)
	var xs, ys cryptobyte.String
	if !x.ReadASN1(&xs, cbasn1.SEQUENCE) || !y.ReadASN1(&ys, cbasn1.SEQUENCE) || !x.Empty() || !y.Empty() {
		return false
	}
	for !xs.Empty() && !ys.Empty() {
		var xr, yr cryptobyte.String
		if !xs.ReadASN1(&xr, cbasn1.SET) || !ys.ReadASN1(&yr, cbasn1.SET) {
			return false
		}
		for !xr.Empty() && !yr.Empty() {
			var xa, ya, xt, yt cryptobyte.String
			if !xr.ReadASN1(&xa, cbasn1.SEQUENCE) || !yr.ReadASN1(&ya, cbasn1.SEQUENCE) ||
				!xa.ReadASN1(&xt, cbasn1.OBJECT_IDENTIFIER) || !ya.ReadASN1(&yt, cbasn1.OBJECT_IDENTIFIER) ||
				!bytes.Equal(xt, yt) || foldValue(xa) != foldValue(ya) {
				return false
			}
		}
		if !xr.Empty() || !yr.Empty() {
			return false
		}
	}
	return xs.Empty() && ys.Empty()
}

// foldValue returns the text of an attribute's value for comparison; of what is no string, and of strings that nobody
// agrees about, the octets.
func foldValue(s cryptobyte.String) string {
	whole := string(s)
	var content cryptobyte.String
	var tag cbasn1.Tag
	if !s.ReadAnyASN1(&content, &tag) || !s.Empty() {
		return whole
	}
	text := string(content)
	switch tag {
	case cbasn1.UTF8String, cbasn1.PrintableString, cbasn1.IA5String, cbasn1.T61String, 26: // VisibleString
	case 30: // BMPString
		units := make([]uint16, len(content)/2)
		for i := range units {
			units[i] = uint16(content[2*i])<<8 | uint16(content[2*i+1])
		}
		text = string(utf16.Decode(units))
	default:
		return whole
	}
	return strings.ToLower(strings.Join(strings.Fields(text), " "))
}
