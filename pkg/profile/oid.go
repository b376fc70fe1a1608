package profile

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/pki"
)

// stringType is the alphabet of an attribute's value.
type stringType int

const (
	utf8String stringType = iota
	printableString
	ia5String
)

// attributeType is what RFC 5280, Appendix A, and X.520 say of an attribute type.
type attributeType struct {
	name    string // as RFC 4514 and OpenSSL print it
	aliases []string
	oid     asn1.ObjectIdentifier
	max     int // characters
	kind    stringType
	many    bool // may stand several times in a subject
}

// The upper bounds are those of RFC 5280, Appendix A.1 (ub-...); where it has none or 32768, ours.
var attributeTypes = []attributeType{
	{name: "CN", aliases: []string{"commonName"}, oid: pki.OIDCommonName, max: 64},
	{name: "O", aliases: []string{"organization", "organizationName"}, oid: pki.OIDOrganization, max: 64, many: true},
	{name: "OU", aliases: []string{"organizationalUnit", "organizationalUnitName"}, oid: pki.OIDOrganizationalUnit, max: 64, many: true},
	{name: "C", aliases: []string{"country", "countryName"}, oid: pki.OIDCountry, max: 2, kind: printableString},
	{name: "ST", aliases: []string{"S", "state", "stateOrProvinceName"}, oid: pki.OIDState, max: 128},
	{name: "L", aliases: []string{"locality", "localityName"}, oid: pki.OIDLocality, max: 128},
	{name: "STREET", aliases: []string{"streetAddress"}, oid: pki.OIDStreet, max: 128, many: true},
	{name: "DC", aliases: []string{"domainComponent"}, oid: pki.OIDDomainComponent, max: 63, kind: ia5String, many: true},
	{name: "UID", aliases: []string{"userID", "userId"}, oid: pki.OIDUserID, max: 256},
	{name: "serialNumber", oid: pki.OIDSerialNumber, max: 64, kind: printableString},
	{name: "emailAddress", aliases: []string{"E", "email"}, oid: pki.OIDEmailAddress, max: 255, kind: ia5String},
	{name: "givenName", aliases: []string{"GN"}, oid: pki.OIDGivenName, max: 64},
	{name: "surname", aliases: []string{"SN"}, oid: pki.OIDSurname, max: 64},
	{name: "title", aliases: []string{"T"}, oid: pki.OIDTitle, max: 64},
	{name: "initials", oid: asn1.ObjectIdentifier{2, 5, 4, 43}, max: 64},
	{name: "dnQualifier", oid: asn1.ObjectIdentifier{2, 5, 4, 46}, max: 64, kind: printableString},
	{name: "pseudonym", oid: asn1.ObjectIdentifier{2, 5, 4, 65}, max: 128},
	{name: "organizationIdentifier", oid: asn1.ObjectIdentifier{2, 5, 4, 97}, max: 256},
}

// typeOf returns the row of an attribute type; one that the table lacks is a UTF8String of at most 256 characters.
func typeOf(oid asn1.ObjectIdentifier) attributeType {
	for i := range attributeTypes {
		if attributeTypes[i].oid.Equal(oid) {
			return attributeTypes[i]
		}
	}
	return attributeType{name: oid.String(), oid: oid, max: 256, many: true}
}

// AttributeType returns the name under which FormatSubject writes an attribute type, which is given by one of its names
// in any letter case or in dotted numbers. ok is false for what is neither.
func AttributeType(text string) (name string, ok bool) {
	t, err := attributeTypeByName(text)
	return t.name, err == nil
}

// AttributeTypeOf is AttributeType of an object identifier.
func AttributeTypeOf(oid asn1.ObjectIdentifier) string { return typeOf(oid).name }

// attributeTypeByName reads a name in any letter case, or dotted numbers.
func attributeTypeByName(name string) (attributeType, error) {
	for i := range attributeTypes {
		t := &attributeTypes[i]
		if strings.EqualFold(t.name, name) {
			return *t, nil
		}
		for _, alias := range t.aliases {
			if strings.EqualFold(alias, name) {
				return *t, nil
			}
		}
	}
	if oid, ok := parseOID(name); ok {
		return typeOf(oid), nil
	}
	return attributeType{}, fmt.Errorf("no attribute type is called %q; use a name such as CN, O, OU, C, serialNumber, or dotted numbers", clip(name))
}

// parseOID reads dotted numbers that can be encoded.
func parseOID(text string) (asn1.ObjectIdentifier, bool) {
	if len(text) == 0 || len(text) > 128 || text[0] < '0' || text[0] > '2' {
		return nil, false
	}
	var oid asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil || len(arc) > 1 && arc[0] == '0' || n > math.MaxInt32 {
			return nil, false
		}
		oid = append(oid, int(n))
	}
	_, err := der.AppendOID(nil, oid)
	return oid, err == nil
}

// purposes are the names of extended key usages.
var purposes = []struct {
	name string
	oid  asn1.ObjectIdentifier
}{
	{"serverAuth", pki.OIDServerAuth},
	{"clientAuth", pki.OIDClientAuth},
	{"codeSigning", pki.OIDCodeSigning},
	{"emailProtection", pki.OIDEmailProtection},
	{"timeStamping", pki.OIDTimeStamping},
	{"ipsecIKE", asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 17}},            // RFC 4945, Section 5.1.3.12
	{"documentSigning", asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 36}},     // RFC 9336
	{"smartcardLogon", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 2}}, // Microsoft
	{"pkinitKDC", asn1.ObjectIdentifier{1, 3, 6, 1, 5, 2, 3, 5}},               // RFC 4556, Section 3.2.4
	{"OCSPSigning", pki.OIDOCSPSigning},
	{"cmcRA", pki.OIDCMCRA},
	{"cmcCA", oidCMCCA},
	{"anyExtendedKeyUsage", pki.OIDAnyEKU},
}

var oidCMCCA = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 27} // RFC 6402, Section 2.10

// builtinPurpose says that a purpose exists in built-in profiles only.
func builtinPurpose(oid asn1.ObjectIdentifier) bool {
	return oid.Equal(pki.OIDOCSPSigning) || oid.Equal(pki.OIDCMCRA) || oid.Equal(oidCMCCA) || oid.Equal(pki.OIDAnyEKU)
}

// ParseExtKeyUsage reads a purpose: a name such as "serverAuth" in any letter case, or dotted numbers. Reading one
// gives no right to it.
func ParseExtKeyUsage(text string) (asn1.ObjectIdentifier, error) {
	for _, p := range purposes {
		if strings.EqualFold(p.name, text) {
			return p.oid, nil
		}
	}
	if oid, ok := parseOID(text); ok {
		return oid, nil
	}
	return nil, fmt.Errorf("no extended key usage is called %q; use a name such as serverAuth, clientAuth, emailProtection, or dotted numbers", clip(text))
}

// ExtKeyUsageName returns the name of a purpose, or dotted numbers.
func ExtKeyUsageName(oid asn1.ObjectIdentifier) string {
	for _, p := range purposes {
		if p.oid.Equal(oid) {
			return p.name
		}
	}
	return oid.String()
}

// keyUsageNames are the named bits of RFC 5280, Section 4.2.1.3, in their order.
var keyUsageNames = [...]string{
	"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement",
	"keyCertSign", "cRLSign", "encipherOnly", "decipherOnly",
}

// KeyUsageNames returns the names of the bits in usage, in the order of RFC 5280, Section 4.2.1.3.
func KeyUsageNames(usage x509.KeyUsage) []string {
	var names []string
	for i, name := range keyUsageNames {
		if usage&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// parseKeyUsage reads names of bits. contentCommitment is the newer name of nonRepudiation.
func parseKeyUsage(names []string) (x509.KeyUsage, error) {
	var usage x509.KeyUsage
next:
	for _, name := range names {
		if strings.EqualFold(name, "contentCommitment") {
			name = "nonRepudiation"
		}
		for i, known := range keyUsageNames {
			if strings.EqualFold(name, known) {
				usage |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("no key usage is called %q; there are %s", clip(name), strings.Join(keyUsageNames[:5], ", "))
	}
	return usage, nil
}

// clip bounds what of an input is repeated in a message.
func clip(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}
