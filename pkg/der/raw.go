package der

import (
	"math"
	"unicode/utf8"
)

// The checks on raw DER that a caller passes in. They guarantee that what is
// copied keeps the whole well-formed; they do not judge what it says.

// maxDepth bounds the recursion of wellFormed; RFC 5280's deepest structures
// stay below ten.
const maxDepth = 32

// readElement splits the first element from b. ok is false when b does not
// start with a complete element with a minimal definite length.
func readElement(b []byte) (tag byte, content, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, nil, false
	}
	tag, b = b[0], b[1:]
	if tag&0x1f == 0x1f { // high tag number, X.690, Section 8.1.2.4
		number := 0
		for i := 0; ; i++ {
			if i == 4 || i >= len(b) || i == 0 && b[0] == 0x80 {
				return 0, nil, nil, false
			}
			number = number<<7 | int(b[i]&0x7f)
			if b[i] < 0x80 {
				b = b[i+1:]
				break
			}
		}
		if number < 0x1f || len(b) == 0 {
			return 0, nil, nil, false
		}
	}
	n := int(b[0])
	b = b[1:]
	if n >= 0x80 {
		octets := n & 0x7f
		// Four octets of length are 4 GiB: no raw value comes near.
		if octets < 1 || octets > 4 || octets > len(b) || b[0] == 0 {
			return 0, nil, nil, false
		}
		n = 0
		for _, c := range b[:octets] {
			n = n<<8 | int(c)
		}
		if n < 0x80 || n < 0 {
			return 0, nil, nil, false
		}
		b = b[octets:]
	}
	if n > len(b) {
		return 0, nil, nil, false
	}
	return tag, b[:n], b[n:], true
}

// onlyElement returns the content of b when it is exactly one element with
// this tag.
func onlyElement(b []byte, tag byte) ([]byte, bool) {
	got, content, rest, ok := readElement(b)
	if !ok || got != tag || len(rest) != 0 {
		return nil, false
	}
	return content, true
}

// wellFormed reports whether b is a sequence of well-formed elements, all the
// way down.
func wellFormed(b []byte, depth int) bool {
	if depth > maxDepth {
		return false
	}
	for len(b) > 0 {
		tag, content, rest, ok := readElement(b)
		if !ok || !contentOK(tag, content, depth) {
			return false
		}
		b = rest
	}
	return true
}

func contentOK(tag byte, content []byte, depth int) bool {
	if tag&0xc0 == 0 { // universal class
		isConstructed := tag&constructed != 0
		if number := tag & 0x1f; number == 0 || isConstructed != (number == 0x10 || number == 0x11 || number == 8 || number == 11) {
			return false // end-of-contents, a constructed string, a primitive SEQUENCE
		}
	}
	if tag&constructed != 0 {
		return wellFormed(content, depth+1)
	}
	switch tag {
	case tagBoolean:
		return len(content) == 1 && (content[0] == 0 || content[0] == 0xff)
	case tagInteger, tagEnumerated:
		return len(content) == 1 || len(content) > 1 &&
			!(content[0] == 0 && content[1] < 0x80) && !(content[0] == 0xff && content[1] >= 0x80)
	case tagBitString:
		if len(content) == 0 || content[0] > 7 || len(content) == 1 && content[0] != 0 {
			return false
		}
		return content[0] == 0 || content[len(content)-1]&(1<<content[0]-1) == 0
	case tagNull:
		return len(content) == 0
	case tagOID:
		return oidContentOK(content)
	case tagUTF8String:
		return utf8.Valid(content)
	case tagPrintableString:
		return isPrintableString(content)
	case tagIA5String:
		return isIA5String(content)
	case tagBMPString:
		return len(content)%2 == 0
	}
	return true
}

func oidContentOK(content []byte) bool {
	if len(content) == 0 || content[len(content)-1] >= 0x80 {
		return false
	}
	start := true
	for _, c := range content {
		if start && c == 0x80 {
			return false
		}
		start = c < 0x80
	}
	return true
}

// checkName reports whether raw is a Name: a SEQUENCE of non-empty SETs of
// AttributeTypeAndValue (RFC 5280, Section 4.1.2.4). The order inside a SET is
// left alone: an issuer's name is copied byte for byte, whoever made it.
func checkName(raw []byte) bool {
	rdns, ok := onlyElement(raw, tagSequence)
	for ok && len(rdns) > 0 {
		var tag byte
		var set []byte
		tag, set, rdns, ok = readElement(rdns)
		if !ok || tag != tagSet || len(set) == 0 {
			return false
		}
		for len(set) > 0 {
			var attribute, value []byte
			tag, attribute, set, ok = readElement(set)
			if !ok || tag != tagSequence {
				return false
			}
			tag, value, attribute, ok = readElement(attribute)
			if !ok || tag != tagOID || !readableOID(value) {
				return false
			}
			tag, value, attribute, ok = readElement(attribute)
			if !ok || len(attribute) != 0 || !directoryStringOK(tag, value) {
				return false
			}
		}
	}
	return ok
}

// directoryStringOK reports whether an attribute value is a string that
// verifiers read. It is wider than what AppendName writes, for the names of
// issuers that were made elsewhere: the old string types are let through, and
// PrintableString may have the * and & that some CAs put in it.
func directoryStringOK(tag byte, value []byte) bool {
	switch tag {
	case tagPrintableString:
		for _, c := range value {
			if c != '*' && c != '&' && !isPrintableString([]byte{c}) {
				return false
			}
		}
		return true
	case tagNumericString:
		for _, c := range value {
			if c != ' ' && (c < '0' || c > '9') {
				return false
			}
		}
		return true
	case tagBMPString:
		return bmpStringOK(value)
	case tagUTF8String:
		return utf8.Valid(value)
	case tagIA5String:
		return isIA5String(value)
	case tagT61String:
		return true
	}
	return false
}

// bmpStringOK reports whether value is UCS-2: two octets a character, without
// surrogates and noncharacters, as Go reads it.
func bmpStringOK(value []byte) bool {
	if len(value)%2 != 0 {
		return false
	}
	for i := 0; i < len(value); i += 2 {
		c := uint16(value[i])<<8 | uint16(value[i+1])
		if c >= 0xd800 && c <= 0xdfff || c >= 0xfdd0 && c <= 0xfdef || c >= 0xfffe {
			return false
		}
	}
	return true
}

// readableOID reports whether the subidentifiers of an OID are within the
// bounds of AppendOID.
func readableOID(content []byte) bool {
	if !oidContentOK(content) {
		return false
	}
	v := uint64(0)
	for _, c := range content {
		if v = v<<7 | uint64(c&0x7f); v > math.MaxInt32 {
			return false
		}
		if c < 0x80 {
			v = 0
		}
	}
	return true
}

// emptyName is the Name without RDNs.
const emptyName = "\x30\x00"

// publicKeyBits returns the subjectPublicKey of a SubjectPublicKeyInfo: the
// BIT STRING without tag, length and number of unused bits.
func publicKeyBits(spki []byte) ([]byte, bool) {
	content, ok := onlyElement(spki, tagSequence)
	if !ok {
		return nil, false
	}
	tag, algorithm, rest, ok := readElement(content)
	if !ok || tag != tagSequence || !wellFormed(algorithm, 2) {
		return nil, false
	}
	if tag, oid, _, ok := readElement(algorithm); !ok || tag != tagOID || !readableOID(oid) {
		return nil, false
	}
	key, ok := onlyElement(rest, tagBitString)
	if !ok || len(key) < 2 || key[0] != 0 { // every key type in use has whole octets
		return nil, false
	}
	return key[1:], true
}

// checkGeneralNames reports whether raw is a non-empty GeneralNames whose names
// are of the form their kind demands (RFC 5280, Section 4.2.1.6).
func checkGeneralNames(raw []byte) bool {
	content, ok := onlyElement(raw, tagSequence)
	if !ok || len(content) == 0 || !wellFormed(content, 1) {
		return false
	}
	for len(content) > 0 {
		var tag byte
		var value []byte
		tag, value, content, _ = readElement(content)
		switch tag {
		case classContext | byte(TagRFC822Name), classContext | byte(TagDNSName):
			ok = isIA5String(value)
		case classContext | byte(TagURI):
			ok = checkURI(string(value)) == nil
		case classContext | byte(TagIPAddress):
			ok = len(value) == 4 || len(value) == 16
		case classContext | byte(TagRegisteredID):
			ok = oidContentOK(value)
		case classContext | constructed | byte(TagDirectoryName):
			ok = checkName(value)
		case classContext | constructed | byte(TagOtherName), 0xa3, 0xa5: // x400Address, ediPartyName
		default:
			ok = false
		}
		if !ok {
			return false
		}
	}
	return true
}
