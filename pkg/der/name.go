package der

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Attribute is one AttributeTypeAndValue of a name. The string type is chosen
// by its type: PrintableString for countryName, serialNumber and dnQualifier,
// IA5String for domainComponent and emailAddress, UTF8String for all others
// (RFC 5280, Section 4.1.2.4 and Appendix A.1).
type Attribute struct {
	Type  asn1.ObjectIdentifier
	Value string
}

// stringRule is how the value of an attribute type is written.
type stringRule struct {
	tag byte
	max int // characters, 0 for no bound
}

// ruleFor returns the string type and upper bound of RFC 5280, Appendix A.1,
// and of X.520 for the types the appendix does not have.
func ruleFor(oid asn1.ObjectIdentifier) stringRule {
	switch {
	case len(oid) == 4 && oid[0] == 2 && oid[1] == 5 && oid[2] == 4:
		switch oid[3] {
		case 6: // countryName
			return stringRule{tagPrintableString, 2}
		case 5: // serialNumber
			return stringRule{tagPrintableString, 64}
		case 46: // dnQualifier
			return stringRule{tagPrintableString, 0}
		case 3, 10, 11, 12: // commonName, organizationName, organizationalUnitName, title
			return stringRule{tagUTF8String, 64}
		case 7, 8, 65: // localityName, stateOrProvinceName, pseudonym
			return stringRule{tagUTF8String, 128}
		case 4, 41, 42, 43, 44: // surname, name, givenName, initials, generationQualifier
			return stringRule{tagUTF8String, 32768}
		}
	case slices.Equal(oid, oidDomainComponent):
		return stringRule{tagIA5String, 0}
	case slices.Equal(oid, oidEmailAddress):
		return stringRule{tagIA5String, 255}
	}
	return stringRule{tagUTF8String, 0}
}

var (
	oidDomainComponent = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
	oidEmailAddress    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

// AppendName appends a Name from its relative distinguished names, most
// significant (country, domain) first. An RDN of several attributes is sorted
// as DER wants a SET OF (X.690, Section 11.6). No RDNs make the empty name.
//
// It is a *ValueError when an RDN is empty or has a type twice, when a value is
// empty, longer than its upper bound or outside its string type's alphabet, or
// when a countryName is not two letters.
func AppendName(dst []byte, rdns [][]Attribute) ([]byte, error) {
	// Sizes first: an attribute costs at most its value and 20 octets of
	// headers, so that one allocation serves nearly every name.
	estimate := 4
	for _, rdn := range rdns {
		for _, a := range rdn {
			estimate += len(a.Value) + 24
		}
	}
	content := make([]byte, 0, estimate)
	for _, rdn := range rdns {
		var err error
		if content, err = appendRDN(content, rdn); err != nil {
			return nil, err
		}
	}
	return AppendTLV(dst, tagSequence, content), nil
}

func appendRDN(dst []byte, rdn []Attribute) ([]byte, error) {
	if len(rdn) == 0 {
		return nil, invalid("RelativeDistinguishedName", "empty") // SET SIZE (1..MAX)
	}
	if len(rdn) == 1 {
		var room [128]byte
		attribute, err := appendAttribute(room[:0], rdn[0])
		if err != nil {
			return nil, err
		}
		return AppendTLV(dst, tagSet, attribute), nil
	}
	encoded := make([][]byte, 0, len(rdn))
	for i, a := range rdn {
		for _, b := range rdn[:i] {
			if a.Type.Equal(b.Type) { // X.501, Section 9.3
				return nil, invalid("RelativeDistinguishedName", "attribute type used twice")
			}
		}
		attribute, err := appendAttribute(nil, a)
		if err != nil {
			return nil, err
		}
		encoded = append(encoded, attribute)
	}
	slices.SortFunc(encoded, bytes.Compare)
	return AppendTLV(dst, tagSet, bytes.Join(encoded, nil)), nil
}

func appendAttribute(dst []byte, a Attribute) ([]byte, error) {
	rule := ruleFor(a.Type)
	if a.Value == "" {
		return nil, attributeError(a, "empty")
	}
	if rule.max > 0 && utf8.RuneCountInString(a.Value) > rule.max {
		return nil, attributeError(a, fmt.Sprintf("longer than %d characters", rule.max))
	}
	switch rule.tag {
	case tagPrintableString:
		if !isPrintableString(a.Value) {
			return nil, attributeError(a, "not a PrintableString")
		}
		if rule.max == 2 && !isCountryCode(a.Value) {
			return nil, attributeError(a, "not two letters")
		}
	case tagIA5String:
		if !isIA5String(a.Value) {
			return nil, attributeError(a, "not an IA5String")
		}
	default:
		if !utf8.ValidString(a.Value) {
			return nil, attributeError(a, "not valid UTF-8")
		}
	}
	var room [32]byte
	oid, err := AppendOID(room[:0], a.Type)
	if err != nil {
		return nil, err
	}
	dst = AppendHeader(dst, tagSequence, len(oid)+SizeTLV(len(a.Value)))
	dst = append(dst, oid...)
	return append(AppendHeader(dst, rule.tag, len(a.Value)), a.Value...), nil
}

func attributeError(a Attribute, problem string) error {
	return invalid("attribute "+a.Type.String(), problem)
}

func isCountryCode(s string) bool {
	return len(s) == 2 && isLetter(s[0]) && isLetter(s[1])
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// GeneralNameTag is the choice of a GeneralName, with the numbers of RFC 5280,
// Section 4.2.1.6. Unused here: x400Address (3) and ediPartyName (5).
type GeneralNameTag uint8

// The choices of GeneralName.
const (
	TagOtherName     GeneralNameTag = 0
	TagRFC822Name    GeneralNameTag = 1
	TagDNSName       GeneralNameTag = 2
	TagDirectoryName GeneralNameTag = 4
	TagURI           GeneralNameTag = 6
	TagIPAddress     GeneralNameTag = 7
	TagRegisteredID  GeneralNameTag = 8
)

// String returns the RFC's name of the choice.
func (t GeneralNameTag) String() string {
	switch t {
	case TagOtherName:
		return "otherName"
	case TagRFC822Name:
		return "rfc822Name"
	case TagDNSName:
		return "dNSName"
	case TagDirectoryName:
		return "directoryName"
	case TagURI:
		return "uniformResourceIdentifier"
	case TagIPAddress:
		return "iPAddress"
	case TagRegisteredID:
		return "registeredID"
	}
	return fmt.Sprintf("GeneralName [%d]", uint8(t))
}

// GeneralName is one GeneralName of RFC 5280, Section 4.2.1.6, made by the
// functions below and checked by [AppendGeneralNames]. The zero value is an
// otherName without type and is refused.
type GeneralName struct {
	Tag GeneralNameTag
	// Text of an rfc822Name, dNSName or uniformResourceIdentifier, or of an
	// otherName whose value is a UTF8String.
	Text string
	// Raw holds the 4 or 16 octets of an iPAddress, the DER of a directoryName
	// or the DER of an otherName's value.
	Raw []byte
	// TypeID is the type-id of an otherName, or the registeredID.
	TypeID asn1.ObjectIdentifier
}

var (
	oidUPN                = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}
	oidHardwareModuleName = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 4}
)

// DNSName is a dNSName: letters, digits, hyphens and underscores in labels of
// at most 63 and 253 characters in all, the first label may be "*".
// Internationalized names are given as A-labels (RFC 5280, Section 7.2).
func DNSName(name string) GeneralName { return GeneralName{Tag: TagDNSName, Text: name} }

// EmailAddress is an rfc822Name: local-part@domain in ASCII, without quoting
// and without spaces.
func EmailAddress(mailbox string) GeneralName {
	return GeneralName{Tag: TagRFC822Name, Text: mailbox}
}

// URI is a uniformResourceIdentifier: absolute, in ASCII.
func URI(uri string) GeneralName { return GeneralName{Tag: TagURI, Text: uri} }

// IPAddress is an iPAddress of 4 or 16 octets; an IPv4-mapped IPv6 address is
// written as IPv4. An address with a zone, or the zero Addr, is refused.
func IPAddress(addr netip.Addr) GeneralName {
	if addr.Zone() != "" {
		return GeneralName{Tag: TagIPAddress}
	}
	return GeneralName{Tag: TagIPAddress, Raw: addr.Unmap().AsSlice()}
}

// DirectoryName is a directoryName holding this Name in DER.
func DirectoryName(name []byte) GeneralName {
	return GeneralName{Tag: TagDirectoryName, Raw: name}
}

// OtherName is an otherName of this type whose value is the given DER.
func OtherName(typeID asn1.ObjectIdentifier, value []byte) GeneralName {
	return GeneralName{Tag: TagOtherName, TypeID: typeID, Raw: value}
}

// UPN is an otherName with Microsoft's User Principal Name
// (1.3.6.1.4.1.311.20.2.3), a UTF8String.
func UPN(name string) GeneralName {
	return GeneralName{Tag: TagOtherName, TypeID: oidUPN, Text: name}
}

// HardwareModuleName is an otherName id-on-hardwareModuleName (RFC 4108,
// Section 5) whose value is the given DER, a SEQUENCE of hwType and
// hwSerialNum.
func HardwareModuleName(value []byte) GeneralName {
	return OtherName(oidHardwareModuleName, value)
}

// AppendGeneralNames appends a GeneralNames: the content of a subjectAltName.
// No names, or a name its kind does not allow, is a *ValueError.
func AppendGeneralNames(dst []byte, names []GeneralName) ([]byte, error) {
	if len(names) == 0 {
		return nil, invalid("GeneralNames", "empty") // SIZE (1..MAX)
	}
	estimate := 0
	for i := range names {
		estimate += len(names[i].Text) + len(names[i].Raw) + 24
	}
	content := make([]byte, 0, estimate)
	for i := range names {
		var err error
		if content, err = appendGeneralName(content, &names[i]); err != nil {
			return nil, err
		}
	}
	return AppendTLV(dst, tagSequence, content), nil
}

func appendGeneralName(dst []byte, n *GeneralName) ([]byte, error) {
	tag := classContext | byte(n.Tag)
	switch n.Tag {
	case TagDNSName:
		if !isDNSName(strings.TrimPrefix(n.Text, "*.")) {
			return nil, invalid("dNSName", "not a host name")
		}
		return appendText(dst, tag, n.Text), nil
	case TagRFC822Name:
		if !isMailbox(n.Text) {
			return nil, invalid("rfc822Name", "not local-part@domain")
		}
		return appendText(dst, tag, n.Text), nil
	case TagURI:
		if err := checkURI(n.Text); err != nil {
			return nil, err
		}
		return appendText(dst, tag, n.Text), nil
	case TagIPAddress:
		if len(n.Raw) != 4 && len(n.Raw) != 16 {
			return nil, invalid("iPAddress", "not 4 or 16 octets")
		}
		return AppendTLV(dst, tag, n.Raw), nil
	case TagDirectoryName:
		if !checkName(n.Raw) {
			return nil, invalid("directoryName", "not the DER of a Name")
		}
		// Name is a CHOICE, so the tag is explicit (X.680, Section 31.2.7).
		return AppendTLV(dst, tag|constructed, n.Raw), nil
	case TagRegisteredID:
		oid, err := AppendOID(nil, n.TypeID)
		if err != nil {
			return nil, fmt.Errorf("registeredID: %w", err)
		}
		oid[0] = tag
		return append(dst, oid...), nil
	case TagOtherName:
		return appendOtherName(dst, n)
	}
	return nil, invalid("GeneralName", "choice not supported")
}

func appendOtherName(dst []byte, n *GeneralName) ([]byte, error) {
	content, err := AppendOID(nil, n.TypeID)
	if err != nil {
		return nil, fmt.Errorf("otherName: %w", err)
	}
	value := n.Raw
	if value == nil {
		if n.Text == "" {
			return nil, invalid("otherName", "no value")
		}
		if value, err = AppendUTF8String(nil, n.Text); err != nil {
			return nil, fmt.Errorf("otherName: %w", err)
		}
	}
	if !isOneElement(value) {
		return nil, invalid("otherName", "value is not one DER element")
	}
	content = AppendTLV(content, classContext|constructed, value) // [0]
	return AppendTLV(dst, classContext|constructed|byte(TagOtherName), content), nil
}

func appendText(dst []byte, tag byte, s string) []byte {
	return append(AppendHeader(dst, tag, len(s)), s...)
}

// isOneElement reports whether raw is exactly one well-formed element.
func isOneElement(raw []byte) bool {
	_, _, rest, ok := readElement(raw)
	return ok && len(rest) == 0 && wellFormed(raw, 0)
}

// isDNSName reports whether s is a host name in the preferred syntax (RFC
// 1034, Section 3.5; RFC 1123, Section 2.1). An underscore is let through:
// devices and Windows domains have them, and refusing is a profile's choice.
func isDNSName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			c := s[i]
			if !isLetter(c) && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
			continue
		}
		if n := i - start; n < 1 || n > 63 || s[start] == '-' || s[i-1] == '-' {
			return false
		}
		start = i + 1
	}
	return true
}

// isMailbox reports whether s is a Mailbox of RFC 5321 without quoted strings
// and address literals, which verifiers compare in different ways.
func isMailbox(s string) bool {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || !isDNSName(s[at+1:]) {
		return false
	}
	local := s[:at]
	if len(local) > 64 || local[0] == '.' || local[at-1] == '.' || strings.Contains(local, "..") {
		return false
	}
	for i := range len(local) {
		if c := local[i]; c <= ' ' || c > '~' || strings.IndexByte(`"(),:;<>@[\]`, c) >= 0 {
			return false
		}
	}
	return true
}

// checkURI refuses what is no absolute URI (RFC 5280, Section 4.2.1.6; RFC
// 3986) or what Go's own parser, and so every Go verifier, would refuse.
func checkURI(s string) error {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '<' || c == '>' || c == '"' || c == '\\' {
			return invalid("uniformResourceIdentifier", "character not allowed in a URI")
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || strings.HasSuffix(s, ":") {
		return invalid("uniformResourceIdentifier", "not an absolute URI")
	}
	if u.Host != "" && (strings.HasSuffix(u.Host, ".") || strings.HasPrefix(u.Host, ".") || strings.Contains(u.Host, "..")) {
		return invalid("uniformResourceIdentifier", "host has an empty label")
	}
	return nil
}
