package csr

import (
	"crypto/x509"
	"encoding/asn1"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of what a request may hold. They keep the work small; profiles have tighter ones.
const (
	maxAttributes = 64  // of the subject, and of the attributes field
	maxExtensions = 64  // in the extension request
	maxNames      = 512 // in the subjectAltName
	maxPurposes   = 64  // in the extKeyUsage
	maxOID        = 64  // octets of an object identifier; those in use have less than 30
)

// Tags that cryptobyte does not name.
const (
	tagNumericString   = cbasn1.Tag(18)
	tagVisibleString   = cbasn1.Tag(26)
	tagUniversalString = cbasn1.Tag(28)
	tagBMPString       = cbasn1.Tag(30)
)

var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidUPN              = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}
	// oidMSExtensions is szOID_CERT_EXTENSIONS, which old Windows uses for the extension request.
	oidMSExtensions = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 14}
)

// parse reads the structure (RFC 2986, Section 4.2). Key and signature are not looked into.
func parse(raw []byte) (*Request, signature, error) {
	r := &Request{DER: raw}
	var sig signature

	input := cryptobyte.String(raw)
	var request, tbs, algorithm cryptobyte.String
	if !input.ReadASN1(&request, cbasn1.SEQUENCE) || !input.Empty() {
		return nil, sig, malformed("the outer structure")
	}
	if !request.ReadASN1Element(&tbs, cbasn1.SEQUENCE) {
		return nil, sig, malformed("certificationRequestInfo")
	}
	sig.tbs = tbs
	if !request.ReadASN1(&algorithm, cbasn1.SEQUENCE) || !readOID(&algorithm, &sig.oid) || !oneOrNone(algorithm) {
		return nil, sig, malformed("signatureAlgorithm")
	}
	sig.params = algorithm
	if !request.ReadASN1BitStringAsBytes(&sig.value) || !request.Empty() {
		return nil, sig, malformed("signature")
	}

	var info, subject, spki cryptobyte.String
	var version int
	if !tbs.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1Integer(&version) {
		return nil, sig, malformed("version")
	}
	if version < 0 || version > 2 { // v1(0); some devices count as certificates do
		return nil, sig, bad("the request has version %d, want 0", version)
	}
	if !info.ReadASN1(&subject, cbasn1.SEQUENCE) {
		return nil, sig, malformed("subject")
	}
	var err error
	if r.Subject, err = parseName(subject); err != nil {
		return nil, sig, err
	}
	if !info.ReadASN1Element(&spki, cbasn1.SEQUENCE) {
		return nil, sig, malformed("subjectPKInfo")
	}
	r.SPKI = spki
	// attributes [0] IMPLICIT SET OF is not OPTIONAL, but old clients leave an empty one out.
	if !info.Empty() {
		var attributes cryptobyte.String
		if !info.ReadASN1(&attributes, cbasn1.Tag(0).Constructed().ContextSpecific()) || !info.Empty() {
			return nil, sig, malformed("attributes")
		}
		if err := r.parseAttributes(attributes); err != nil {
			return nil, sig, err
		}
	}
	return r, sig, nil
}

// oneOrNone says that s holds one element at the most.
func oneOrNone(s cryptobyte.String) bool {
	if s.Empty() {
		return true
	}
	var element cryptobyte.String
	var tag cbasn1.Tag
	return s.ReadAnyASN1Element(&element, &tag) && s.Empty()
}

// parseAttributes reads the two attributes that mean something here; others are passed over.
func (r *Request) parseAttributes(attributes cryptobyte.String) error {
	var haveExtensions, havePassword bool
	for n := 0; !attributes.Empty(); n++ {
		var attribute, values cryptobyte.String
		var oid asn1.ObjectIdentifier
		if n == maxAttributes {
			return bad("the request has more than %d attributes", maxAttributes)
		}
		if !attributes.ReadASN1(&attribute, cbasn1.SEQUENCE) || !readOID(&attribute, &oid) ||
			!attribute.ReadASN1(&values, cbasn1.SET) || !attribute.Empty() {
			return malformed("attributes")
		}
		switch {
		case oid.Equal(pki.OIDExtensionRequest), oid.Equal(oidMSExtensions):
			// Two of them, or two values in one, would let two readers see two requests.
			if haveExtensions {
				return bad("the request has two extension requests")
			}
			haveExtensions = true
			var extensions cryptobyte.String
			if !values.ReadASN1(&extensions, cbasn1.SEQUENCE) || !values.Empty() {
				return bad("the extension request does not have exactly one value")
			}
			if err := r.parseExtensions(extensions); err != nil {
				return err
			}
		case oid.Equal(pki.OIDChallengePassword): // RFC 2985, Section 5.4.1: SINGLE VALUE TRUE
			if havePassword {
				return bad("the request has two challengePassword attributes")
			}
			havePassword = true
			password, err := readString(&values, "challengePassword")
			if err != nil {
				return err
			}
			if !values.Empty() {
				return bad("the challengePassword does not have exactly one value")
			}
			r.ChallengePassword = NewSecret(password)
		}
	}
	return nil
}

func (r *Request) parseExtensions(extensions cryptobyte.String) error {
	for !extensions.Empty() {
		var extension, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		var critical bool
		if len(r.Extensions) == maxExtensions {
			return bad("the request asks for more than %d extensions", maxExtensions)
		}
		// A critical FALSE that is written out is not DER, and common.
		if !extensions.ReadASN1(&extension, cbasn1.SEQUENCE) || !readOID(&extension, &oid) ||
			extension.PeekASN1Tag(cbasn1.BOOLEAN) && !extension.ReadASN1Boolean(&critical) ||
			!extension.ReadASN1(&value, cbasn1.OCTET_STRING) || !extension.Empty() {
			return malformed("the extension request")
		}
		for _, seen := range r.Extensions {
			if seen.Equal(oid) { // RFC 5280, Section 4.2
				return bad("the extension %s is requested twice", oid)
			}
		}
		r.Extensions = append(r.Extensions, oid)
		var err error
		switch {
		case oid.Equal(pki.OIDSubjectAltName):
			r.SANs, err = parseNames(value)
		case oid.Equal(oidKeyUsage):
			r.KeyUsage, err = parseKeyUsage(value)
		case oid.Equal(oidExtKeyUsage):
			r.ExtKeyUsage, err = parsePurposes(value)
		case oid.Equal(oidBasicConstraints):
			r.IsCA, err = parseBasicConstraints(value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseName flattens a Name (RFC 5280, Section 4.1.2.4).
func parseName(rdns cryptobyte.String) ([]der.Attribute, error) {
	var attributes []der.Attribute
	for !rdns.Empty() {
		var rdn cryptobyte.String
		if !rdns.ReadASN1(&rdn, cbasn1.SET) || rdn.Empty() {
			return nil, malformed("subject")
		}
		for !rdn.Empty() {
			var attribute cryptobyte.String
			var a der.Attribute
			if !rdn.ReadASN1(&attribute, cbasn1.SEQUENCE) || !readOID(&attribute, &a.Type) {
				return nil, malformed("subject")
			}
			var err error
			if a.Value, err = readString(&attribute, "subject attribute "+a.Type.String()); err != nil {
				return nil, err
			}
			if !attribute.Empty() {
				return nil, malformed("subject")
			}
			if len(attributes) == maxAttributes {
				return nil, bad("the subject has more than %d attributes", maxAttributes)
			}
			attributes = append(attributes, a)
		}
	}
	return attributes, nil
}

// readString reads a DirectoryString or one of the other string types of old names, as valid UTF-8 without NUL. NUL
// ends names for verifiers written in C, so that "good.example\x00.evil.example" would be two names.
func readString(s *cryptobyte.String, what string) (string, error) {
	var content cryptobyte.String
	var tag cbasn1.Tag
	if !s.ReadAnyASN1(&content, &tag) {
		return "", malformed(what)
	}
	var text string
	switch tag {
	case cbasn1.UTF8String:
		text = string(content)
		if !utf8.ValidString(text) {
			return "", bad("%s: not valid UTF-8", what)
		}
	case cbasn1.PrintableString, cbasn1.IA5String, tagNumericString, tagVisibleString:
		// Many clients put * @ & _ into a PrintableString; the certificate gets a string type that fits.
		if text = string(content); !isASCII(text) {
			return "", bad("%s: not ASCII, though its string type says so", what)
		}
	case cbasn1.T61String:
		// T.61 in name, Latin-1 or UTF-8 in practice: only its ASCII part means one thing.
		if text = string(content); !isASCII(text) {
			return "", bad("%s: a T61String with characters beyond ASCII, which have no agreed meaning", what).
				WithHint("make the request with UTF8String, such as: openssl req -utf8")
		}
	case tagBMPString:
		if len(content)%2 != 0 {
			return "", bad("%s: a BMPString of an odd length", what)
		}
		units := make([]uint16, len(content)/2)
		for i := range units {
			units[i] = uint16(content[2*i])<<8 | uint16(content[2*i+1])
			if utf16.IsSurrogate(rune(units[i])) { // UCS-2 has none
				return "", bad("%s: a BMPString with surrogates", what)
			}
		}
		text = string(utf16.Decode(units))
	case tagUniversalString:
		if len(content)%4 != 0 {
			return "", bad("%s: a UniversalString whose length is not divisible by four", what)
		}
		var b strings.Builder
		for ; len(content) > 0; content = content[4:] {
			c := uint32(content[0])<<24 | uint32(content[1])<<16 | uint32(content[2])<<8 | uint32(content[3])
			if c > utf8.MaxRune || !utf8.ValidRune(rune(c)) {
				return "", bad("%s: a UniversalString with what is no character", what)
			}
			b.WriteRune(rune(c))
		}
		text = b.String()
	default:
		return "", bad("%s: not a string (tag %d)", what, tag)
	}
	if strings.IndexByte(text, 0) >= 0 {
		return "", bad("%s: has a NUL character", what)
	}
	return text, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// parseNames reads a GeneralNames (RFC 5280, Section 4.2.1.6).
func parseNames(value cryptobyte.String) ([]der.GeneralName, error) {
	var content cryptobyte.String
	if !value.ReadASN1(&content, cbasn1.SEQUENCE) || !value.Empty() {
		return nil, malformed("subjectAltName")
	}
	names := []der.GeneralName{}
	for !content.Empty() {
		var name cryptobyte.String
		var tag cbasn1.Tag
		if !content.ReadAnyASN1(&name, &tag) {
			return nil, malformed("subjectAltName")
		}
		if len(names) == maxNames {
			return nil, bad("the request has more than %d names", maxNames)
		}
		n, err := parseGeneralName(tag, name)
		if err != nil {
			return nil, err
		}
		names = append(names, n)
	}
	return names, nil
}

func parseGeneralName(tag cbasn1.Tag, content cryptobyte.String) (der.GeneralName, error) {
	switch tag {
	case cbasn1.Tag(1).ContextSpecific(), cbasn1.Tag(2).ContextSpecific(), cbasn1.Tag(6).ContextSpecific():
		n := der.GeneralName{Tag: der.GeneralNameTag(tag &^ 0x80), Text: string(content)}
		if !isASCII(n.Text) || strings.IndexByte(n.Text, 0) >= 0 {
			return n, bad("subjectAltName: a %s with characters beyond ASCII or with NUL", n.Tag).
				WithHint("write international domain names as xn--...")
		}
		return n, nil
	case cbasn1.Tag(7).ContextSpecific():
		if len(content) != 4 && len(content) != 16 {
			return der.GeneralName{}, bad("subjectAltName: an iPAddress of %d octets, want 4 or 16", len(content))
		}
		return der.GeneralName{Tag: der.TagIPAddress, Raw: content}, nil
	case cbasn1.Tag(0).Constructed().ContextSpecific():
		return parseOtherName(content)
	case cbasn1.Tag(4).Constructed().ContextSpecific():
		name := content
		var rdns cryptobyte.String
		if !content.ReadASN1(&rdns, cbasn1.SEQUENCE) || !content.Empty() {
			return der.GeneralName{}, malformed("subjectAltName: directoryName")
		}
		if _, err := parseName(rdns); err != nil {
			return der.GeneralName{}, err
		}
		return der.DirectoryName(name), nil
	case cbasn1.Tag(8).ContextSpecific():
		var oid asn1.ObjectIdentifier
		element := cryptobyte.String(der.AppendTLV(nil, 0x06, content))
		if !readOID(&element, &oid) {
			return der.GeneralName{}, malformed("subjectAltName: registeredID")
		}
		return der.GeneralName{Tag: der.TagRegisteredID, TypeID: oid}, nil
	}
	return der.GeneralName{}, bad("subjectAltName: a kind of name (tag %d) that is not certified here", tag&0x1f)
}

func parseOtherName(content cryptobyte.String) (der.GeneralName, error) {
	var oid asn1.ObjectIdentifier
	var value cryptobyte.String
	if !readOID(&content, &oid) || !content.ReadASN1(&value, cbasn1.Tag(0).Constructed().ContextSpecific()) || !content.Empty() {
		return der.GeneralName{}, malformed("subjectAltName: otherName")
	}
	if oid.Equal(oidUPN) {
		text, err := readString(&value, "subjectAltName: user principal name")
		if err != nil {
			return der.GeneralName{}, err
		}
		if !value.Empty() || text == "" {
			return der.GeneralName{}, malformed("subjectAltName: user principal name")
		}
		return der.UPN(text), nil
	}
	if value.Empty() || !oneOrNone(value) {
		return der.GeneralName{}, malformed("subjectAltName: otherName")
	}
	return der.OtherName(oid, value), nil
}

// parseKeyUsage reads a KeyUsage (RFC 5280, Section 4.2.1.3).
func parseKeyUsage(value cryptobyte.String) (x509.KeyUsage, error) {
	var flags asn1.BitString
	if !value.ReadASN1BitString(&flags) || !value.Empty() {
		return 0, malformed("keyUsage")
	}
	var usage x509.KeyUsage
	for i := range 9 {
		if flags.At(i) != 0 {
			usage |= 1 << i
		}
	}
	return usage, nil
}

// readOID reads an object identifier of a sane length: it is going to stand in messages and records.
func readOID(from *cryptobyte.String, oid *asn1.ObjectIdentifier) bool {
	element := *from
	var body cryptobyte.String
	return element.ReadASN1(&body, cbasn1.OBJECT_IDENTIFIER) && len(body) <= maxOID && from.ReadASN1ObjectIdentifier(oid)
}

func parsePurposes(value cryptobyte.String) ([]asn1.ObjectIdentifier, error) {
	var content cryptobyte.String
	if !value.ReadASN1(&content, cbasn1.SEQUENCE) || !value.Empty() || content.Empty() {
		return nil, malformed("extKeyUsage")
	}
	var purposes []asn1.ObjectIdentifier
	for !content.Empty() {
		var oid asn1.ObjectIdentifier
		if !readOID(&content, &oid) {
			return nil, malformed("extKeyUsage")
		}
		if len(purposes) == maxPurposes {
			return nil, bad("the request has more than %d extended key usages", maxPurposes)
		}
		purposes = append(purposes, oid)
	}
	return purposes, nil
}

// parseBasicConstraints reads cA. Windows writes cA FALSE out, and a pathLenConstraint beside it; neither is refused,
// since neither asks for anything.
func parseBasicConstraints(value cryptobyte.String) (bool, error) {
	var content cryptobyte.String
	var isCA bool
	var pathLen int
	if !value.ReadASN1(&content, cbasn1.SEQUENCE) || !value.Empty() ||
		content.PeekASN1Tag(cbasn1.BOOLEAN) && !content.ReadASN1Boolean(&isCA) ||
		content.PeekASN1Tag(cbasn1.INTEGER) && !content.ReadASN1Integer(&pathLen) ||
		!content.Empty() || pathLen < 0 {
		return false, malformed("basicConstraints")
	}
	return isCA, nil
}

func malformed(what string) *fault.Error {
	return bad("the request is malformed at %s", what).WithHint("make the request anew, such as: openssl req -new -key key.pem")
}
