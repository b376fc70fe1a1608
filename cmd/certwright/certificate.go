package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

// maxFileBytes is the longest certificate file that is read.
const maxFileBytes = 1 << 20

// readInput reads a file, or the standard input for "-".
func readInput(env *environment, name string) ([]byte, error) {
	in := env.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	} else {
		name = "the standard input"
	}
	b, err := io.ReadAll(io.LimitReader(in, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(b) > maxFileBytes {
		return nil, fmt.Errorf("%s is longer than %d bytes: that is no certificate", name, maxFileBytes)
	}
	return b, nil
}

// readCertificates reads the certificates of a file or the standard input: PEM, in which other blocks are passed over,
// or one in DER. There is at least one.
func readCertificates(env *environment, name string) ([]*x509.Certificate, error) {
	b, err := readInput(env, name)
	if err != nil {
		return nil, err
	}
	if name == "-" {
		name = "the standard input"
	}
	var certs []*x509.Certificate
	found := ""
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			found = strings.ToLower(block.Type)
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in %s: %w", len(certs)+1, name, err)
		}
		certs = append(certs, cert)
	}
	switch {
	case len(certs) > 0:
		return certs, nil
	case found != "":
		return nil, fmt.Errorf("%s holds a %s, but no certificate", name, found)
	case len(b) == 0:
		return nil, fmt.Errorf("%s is empty", name)
	}
	cert, err := x509.ParseCertificate(b)
	if err != nil {
		return nil, fmt.Errorf("%s is no certificate, neither PEM nor DER: %w", name, err)
	}
	return []*x509.Certificate{cert}, nil
}

// parsePEM reads the certificates of a PEM text from the server.
func parsePEM(text string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return certs, nil
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
}

// encodePEM is the reverse of parsePEM.
func encodePEM(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer takes everything
	}
	return b.Bytes()
}

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

// contents is what stands in a certificate.
type contents struct {
	Subject            string    `json:"subject"`
	SANs               []string  `json:"sans,omitempty"`
	Issuer             string    `json:"issuer"`
	Serial             string    `json:"serial"`
	NotBefore          time.Time `json:"not_before"`
	NotAfter           time.Time `json:"not_after"`
	Key                string    `json:"key"`
	KeyUsage           []string  `json:"key_usage,omitempty"`
	ExtKeyUsage        []string  `json:"ext_key_usage,omitempty"`
	CA                 bool      `json:"ca"`
	PathLen            *int      `json:"path_len,omitempty"`
	SubjectKeyID       string    `json:"subject_key_id,omitempty"`
	AuthorityKeyID     string    `json:"authority_key_id,omitempty"`
	CRLs               []string  `json:"crls,omitempty"`
	OCSP               []string  `json:"ocsp,omitempty"`
	CAIssuers          []string  `json:"ca_issuers,omitempty"`
	Policies           []string  `json:"policies,omitempty"`
	OtherExtensions    []string  `json:"other_extensions,omitempty"` // those that no field above shows, dotted numbers
	SignatureAlgorithm string    `json:"signature_algorithm"`
	SHA256             string    `json:"sha256"`
	SHA1               string    `json:"sha1"`
	SPKISHA256         string    `json:"spki_sha256"`
}

// The extensions that contents has a field for.
var (
	oidSubjectKeyID   = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage       = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasic          = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidCRLs           = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidPolicies       = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidAuthorityKeyID = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidInfoAccess     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}

	oidUPN            = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}
	oidHardwareModule = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 4} // RFC 4108, Section 5
)

func contentsOf(c *x509.Certificate) contents {
	sha256sum, sha1sum, spki := sha256.Sum256(c.Raw), sha1.Sum(c.Raw), sha256.Sum256(c.RawSubjectPublicKeyInfo)
	out := contents{
		Subject: nameText(c.RawSubject), Issuer: nameText(c.RawIssuer), Serial: serialText(c),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), Key: keyText(c),
		KeyUsage: profile.KeyUsageNames(c.KeyUsage), CA: c.BasicConstraintsValid && c.IsCA,
		SubjectKeyID: hex.EncodeToString(c.SubjectKeyId), AuthorityKeyID: hex.EncodeToString(c.AuthorityKeyId),
		CRLs: c.CRLDistributionPoints, OCSP: c.OCSPServer, CAIssuers: c.IssuingCertificateURL,
		SignatureAlgorithm: c.SignatureAlgorithm.String(),
		SHA256:             hex.EncodeToString(sha256sum[:]), SHA1: hex.EncodeToString(sha1sum[:]), SPKISHA256: hex.EncodeToString(spki[:]),
	}
	if out.CA && (c.MaxPathLen > 0 || c.MaxPathLenZero) {
		out.PathLen = &c.MaxPathLen
	}
	for _, p := range c.Policies {
		out.Policies = append(out.Policies, p.String())
	}
	for _, e := range c.Extensions {
		switch {
		case e.Id.Equal(oidSubjectAltName):
			out.SANs = sanTexts(e.Value)
		case e.Id.Equal(oidExtKeyUsage):
			var purposes []asn1.ObjectIdentifier
			if _, err := asn1.Unmarshal(e.Value, &purposes); err == nil {
				for _, oid := range purposes {
					out.ExtKeyUsage = append(out.ExtKeyUsage, profile.ExtKeyUsageName(oid))
				}
			}
		case e.Id.Equal(oidSubjectKeyID), e.Id.Equal(oidKeyUsage), e.Id.Equal(oidBasic), e.Id.Equal(oidCRLs),
			e.Id.Equal(oidPolicies), e.Id.Equal(oidAuthorityKeyID), e.Id.Equal(oidInfoAccess):
		default:
			out.OtherExtensions = append(out.OtherExtensions, e.Id.String())
		}
	}
	return out
}

// fields lays the contents out for people. Whether the certificate is revoked is not among them.
func (c contents) fields(now time.Time) fields {
	var f fields
	f.add("Subject", c.subject())
	f.add("Names", c.SANs...)
	f.add("Issuer", c.Issuer)
	f.add("Not before", stampFor(c.NotBefore, now))
	f.add("Not after", stampFor(c.NotAfter, now)+c.outside(now))
	f.add("Serial", c.Serial)
	f.add("Key", c.Key)
	f.add("Key usage", strings.Join(c.KeyUsage, ", "))
	f.add("Purposes", strings.Join(c.ExtKeyUsage, ", "))
	if c.CA {
		ca := "yes"
		if c.PathLen != nil {
			ca = fmt.Sprintf("yes, with at most %d below it", *c.PathLen)
		}
		f.add("CA", ca)
	}
	f.add("CRL", c.CRLs...)
	f.add("OCSP", c.OCSP...)
	f.add("CA issuers", c.CAIssuers...)
	f.add("Policies", c.Policies...)
	f.add("Key id", c.SubjectKeyID)
	f.add("Issuer key id", c.AuthorityKeyID)
	f.add("Signature", c.SignatureAlgorithm)
	f.add("Extensions", c.OtherExtensions...)
	f.add("SHA-256", fingerprintOf(c.SHA256))
	f.add("SHA-1", strings.ReplaceAll(fingerprintOf(c.SHA1), " ", ""))
	f.add("SPKI SHA-256", c.SPKISHA256)
	return f
}

func (c contents) subject() string {
	if c.Subject == "" {
		return "(empty)"
	}
	return c.Subject
}

// outside says that now lies outside of the certificate's life.
func (c contents) outside(now time.Time) string {
	switch {
	case now.Before(c.NotBefore):
		return ", not valid yet"
	case now.After(c.NotAfter):
		return ", expired"
	}
	return ""
}

// serialText writes a serial number as the server does.
func serialText(c *x509.Certificate) string {
	if s, err := pki.ParseSerialNumber(c.SerialNumber.Text(16)); err == nil {
		return s.String()
	}
	return c.SerialNumber.Text(16)
}

func keyText(c *x509.Certificate) string {
	if alg, err := keys.AlgorithmOf(c.PublicKey); err == nil {
		return keys.Title(alg.String())
	}
	switch k := c.PublicKey.(type) { // of a kind that we refuse
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	}
	return c.PublicKeyAlgorithm.String()
}

// attributeNames are the types that RFC 4514 and OpenSSL call by a name.
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "surname", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST",
	"2.5.4.9": "STREET", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title", "2.5.4.42": "givenName",
	"2.5.4.43": "initials", "2.5.4.46": "dnQualifier", "2.5.4.65": "pseudonym", "2.5.4.97": "organizationIdentifier",
	"0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC", "1.2.840.113549.1.9.1": "emailAddress",
}

// nameText writes a distinguished name as RFC 4514 does, the last RDN first.
func nameText(raw []byte) string {
	var rdns []string
	outer := cryptobyte.String(raw)
	var name, set, attribute, value cryptobyte.String
	if !outer.ReadASN1(&name, cryptobyteasn1.SEQUENCE) {
		return "#" + hex.EncodeToString(raw)
	}
	for !name.Empty() {
		var parts []string
		if !name.ReadASN1(&set, cryptobyteasn1.SET) {
			return "#" + hex.EncodeToString(raw)
		}
		for !set.Empty() {
			var oid asn1.ObjectIdentifier
			var tag cryptobyteasn1.Tag
			if !set.ReadASN1(&attribute, cryptobyteasn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&oid) {
				return "#" + hex.EncodeToString(raw)
			}
			element := attribute
			if !attribute.ReadAnyASN1(&value, &tag) {
				return "#" + hex.EncodeToString(raw)
			}
			label, known := attributeNames[oid.String()]
			if !known {
				label = oid.String()
			}
			switch tag {
			case cryptobyteasn1.UTF8String, cryptobyteasn1.PrintableString, cryptobyteasn1.IA5String, cryptobyteasn1.T61String:
				parts = append(parts, label+"="+escapeValue(string(value)))
			default:
				parts = append(parts, label+"=#"+hex.EncodeToString(element))
			}
		}
		rdns = append([]string{strings.Join(parts, "+")}, rdns...)
	}
	return strings.Join(rdns, ",")
}

// escapeValue writes an attribute's value as RFC 4514, Section 2.4, does.
func escapeValue(s string) string {
	var b strings.Builder
	for i, c := range []byte(s) {
		switch {
		case c == 0:
			b.WriteString(`\00`)
			continue
		case strings.IndexByte(`"+,;<>\`, c) >= 0, i == 0 && (c == ' ' || c == '#'), i == len(s)-1 && c == ' ':
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// sanTexts writes each name of a subjectAltName extension with its kind before it. What cannot be read is in
// hexadecimal.
func sanTexts(der []byte) []string {
	var names []string
	outer := cryptobyte.String(der)
	var list cryptobyte.String
	if !outer.ReadASN1(&list, cryptobyteasn1.SEQUENCE) {
		return []string{"#" + hex.EncodeToString(der)}
	}
	for !list.Empty() {
		var value cryptobyte.String
		var tag cryptobyteasn1.Tag
		if !list.ReadAnyASN1(&value, &tag) {
			return append(names, "#"+hex.EncodeToString(list))
		}
		names = append(names, generalNameText(int(tag&0x1f), value))
	}
	return names
}

// generalNameText writes one GeneralName (RFC 5280, Section 4.2.1.6), of which tag is the number of the choice.
func generalNameText(tag int, value cryptobyte.String) string {
	switch tag {
	case 0:
		var oid asn1.ObjectIdentifier
		var explicit, text cryptobyte.String
		rest := value
		if !rest.ReadASN1ObjectIdentifier(&oid) || !rest.ReadASN1(&explicit, cryptobyteasn1.Tag(0).ContextSpecific().Constructed()) {
			break
		}
		if oid.Equal(oidUPN) && explicit.ReadASN1(&text, cryptobyteasn1.UTF8String) {
			return "UPN:" + string(text)
		}
		if oid.Equal(oidHardwareModule) {
			if text, ok := profile.HardwareModuleText(explicit); ok {
				return "HMN:" + text
			}
		}
		return "otherName:" + oid.String() + "=#" + hex.EncodeToString(explicit)
	case 1:
		return "email:" + string(value)
	case 2:
		return "DNS:" + string(value)
	case 4:
		return "dirName:" + nameText(value)
	case 6:
		return "URI:" + string(value)
	case 7:
		if len(value) == net.IPv4len || len(value) == net.IPv6len {
			return "IP:" + net.IP(value).String()
		}
	}
	return fmt.Sprintf("[%d]:#%s", tag, hex.EncodeToString(value))
}
