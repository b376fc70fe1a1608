package profile

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
)

// Bounds of names in text.
const (
	maxSubjectText       = 8192
	maxSubjectAttributes = 32
)

// ParseSubject reads a distinguished name as people write it: RFC 4514 ("CN=host,O=Acme,C=DE", most significant last)
// or OpenSSL's -subj ("/C=DE/O=Acme/CN=host", most significant first). The result begins with the most significant
// attribute, as certificates do, with the attributes of a multi-valued RDN (+) one after the other. Types are names in
// any letter case, or dotted numbers. Empty text is the empty subject, not nil. Values are not judged here.
//
// Errors are faults of the kind BadRequest with the field "subject".
func ParseSubject(text string) ([]der.Attribute, error) {
	refuse := func(format string, args ...any) error {
		return fault.New(fault.BadRequest, "the subject: "+format, args...).WithField("subject").
			WithHint(`write it as "CN=host.example.com,O=Example" or "/O=Example/CN=host.example.com"`)
	}
	if len(text) > maxSubjectText {
		return nil, refuse("more than %d octets", maxSubjectText)
	}
	if !utf8.ValidString(text) {
		return nil, refuse("not valid UTF-8")
	}
	text = strings.TrimLeft(text, " ")
	slashes := strings.HasPrefix(text, "/")
	separator := byte(',')
	if slashes {
		text, separator = text[1:], '/'
	}
	attributes := []der.Attribute{}
	if text == "" {
		return attributes, nil
	}
	var starts []int // of each RDN in attributes
	newRDN := true
	for {
		name, rest, found := strings.Cut(text, "=")
		if !found {
			return nil, refuse("%q is not of the form type=value", clip(text))
		}
		t, err := attributeTypeByName(strings.TrimSpace(name))
		if err != nil {
			return nil, refuse("%v", err)
		}
		value, end, err := cutValue(rest, separator)
		if err != nil {
			return nil, refuse("%s: %v", t.name, err)
		}
		if newRDN {
			starts = append(starts, len(attributes))
		}
		attributes = append(attributes, der.Attribute{Type: t.oid, Value: value})
		if len(attributes) > maxSubjectAttributes {
			return nil, refuse("more than %d attributes", maxSubjectAttributes)
		}
		if end == len(rest) {
			break
		}
		newRDN = rest[end] != '+'
		text = rest[end+1:]
	}
	if slashes {
		return attributes, nil
	}
	reversed := make([]der.Attribute, 0, len(attributes)) // RFC 4514, Section 2.1
	end := len(attributes)
	for i := len(starts) - 1; i >= 0; i-- {
		reversed = append(reversed, attributes[starts[i]:end]...)
		end = starts[i]
	}
	return reversed, nil
}

// cutValue unescapes a value (RFC 4514, Section 3) up to the separator or a plus sign, whose place it returns.
func cutValue(s string, separator byte) (value string, end int, err error) {
	var b strings.Builder
	b.Grow(len(s))
	kept := 0 // up to here spaces were escaped and stay
	s, cut := strings.TrimLeft(s, " "), len(s)
	cut -= len(s)
	if strings.HasPrefix(s, "#") {
		return "", 0, errors.New("values in hexadecimal DER (#...) are not read")
	}
	i := 0
	for ; i < len(s) && s[i] != separator && s[i] != '+'; i++ {
		switch c := s[i]; {
		case c == '\\' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			octet, _ := hex.DecodeString(s[i+1 : i+3])
			b.Write(octet)
			i += 2
			kept = b.Len()
		case c == '\\' && i+1 < len(s) && strings.IndexByte(` "#+,;<=>\/`, s[i+1]) >= 0:
			b.WriteByte(s[i+1])
			i++
			kept = b.Len()
		case c == '\\':
			return "", 0, errors.New("a backslash that escapes nothing")
		case separator == ',' && strings.IndexByte(`";<>`, c) >= 0:
			return "", 0, fmt.Errorf("%q stands without a backslash", c)
		default:
			b.WriteByte(c)
		}
	}
	value = b.String()
	value = value[:kept] + strings.TrimRight(value[kept:], " ")
	if !utf8.ValidString(value) {
		return "", 0, errors.New("not valid UTF-8")
	}
	return value, cut + i, nil
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

// FormatSubject writes a distinguished name as RFC 4514 has it, most significant attribute last, every attribute an RDN
// of its own. The types beyond the RFC's list keep the names that people know ("serialNumber", "emailAddress").
// ParseSubject reads it back.
func FormatSubject(attributes []der.Attribute) string {
	size := 0
	for i := range attributes {
		size += len(attributes[i].Value) + 16
	}
	var b strings.Builder
	b.Grow(size)
	for i := len(attributes) - 1; i >= 0; i-- {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(typeOf(attributes[i].Type).name)
		b.WriteByte('=')
		writeEscaped(&b, attributes[i].Value)
	}
	return b.String()
}

// writeEscaped writes a value with the escapes of RFC 4514, Section 2.4.
func writeEscaped(b *strings.Builder, value string) {
	const special = "\"+,;<>\\"
	if !strings.ContainsAny(value, special+"\x00") && (value == "" || value[0] != ' ' && value[0] != '#' && value[len(value)-1] != ' ') {
		b.WriteString(value)
		return
	}
	for i := range len(value) {
		switch c := value[i]; {
		case c == 0:
			b.WriteString(`\00`)
			continue
		case strings.IndexByte(special, c) >= 0, i == 0 && (c == ' ' || c == '#'), i == len(value)-1 && c == ' ':
			b.WriteByte('\\')
		}
		b.WriteByte(value[i])
	}
}

// ParseSAN reads a name as people write it: "DNS:host.example.com", "IP:192.0.2.1", "email:a@example.com",
// "URI:spiffe://example.com/a", "UPN:a@corp.example" or, for a hardware module name, "HMN:1.3.6.1.4.1.99999.1/SN-0017" or
// "HMN:1.3.6.1.4.1.99999.1/0x00A7" with the serial number's octets, the prefix in any letter case. Without prefix it is an IP
// address, a URI (with "://" or "urn:"), an email address or, otherwise, a DNS name. Domain names may be
// internationalized. Values are judged by [Profile.Contents].
//
// Errors are faults of the kind BadRequest with the field "sans".
func ParseSAN(text string) (der.GeneralName, error) {
	refuse := func(format string, args ...any) error {
		return fault.New(fault.BadRequest, format, args...).WithField("sans").
			WithHint(`write a name as "DNS:host.example.com", "IP:192.0.2.1", "email:a@example.com", "URI:..." or "UPN:..."`)
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return der.GeneralName{}, refuse("an empty name")
	}
	if len(text) > maxURI+len("URI:") {
		return der.GeneralName{}, refuse("a name of more than %d characters", maxURI)
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		return der.GeneralName{Tag: der.TagIPAddress, Raw: addr.WithZone("").AsSlice()}, zoneless(addr, refuse)
	}
	prefix, value, found := strings.Cut(text, ":")
	if found {
		value = strings.TrimSpace(value)
		if value == "" {
			return der.GeneralName{}, refuse("%q names nothing", clip(text))
		}
		switch strings.ToLower(prefix) {
		case "dns":
			return der.DNSName(value), nil
		case "email":
			return der.EmailAddress(value), nil
		case "uri":
			return der.URI(value), nil
		case "upn":
			return der.UPN(value), nil
		case "ip", "ip address":
			addr, err := netip.ParseAddr(value)
			if err != nil {
				return der.GeneralName{}, refuse("%q is not an IP address", clip(value))
			}
			return der.GeneralName{Tag: der.TagIPAddress, Raw: addr.WithZone("").AsSlice()}, zoneless(addr, refuse)
		case "hmn":
			m, err := readHardwareModule(value)
			if err != nil {
				return der.GeneralName{}, refuse("%v", err)
			}
			name, err := m.name()
			if err != nil {
				return der.GeneralName{}, refuse("%q: a type that cannot be encoded", clip(value))
			}
			return name, nil
		case "urn":
			return der.URI(text), nil
		}
		if strings.HasPrefix(value, "//") {
			return der.URI(text), nil
		}
		return der.GeneralName{}, refuse("%q is no kind of name", clip(prefix))
	}
	if strings.Contains(text, "@") {
		return der.EmailAddress(text), nil
	}
	return der.DNSName(text), nil
}

func zoneless(addr netip.Addr, refuse func(string, ...any) error) error {
	if addr.Zone() != "" {
		return refuse("an IP address with a zone, which only one machine understands")
	}
	return nil
}

// ParseSANs reads a list of names with [ParseSAN]. An empty list is not nil: it asks for no names.
func ParseSANs(texts ...string) ([]der.GeneralName, error) {
	names := make([]der.GeneralName, 0, len(texts))
	for _, text := range texts {
		name, err := ParseSAN(text)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}
