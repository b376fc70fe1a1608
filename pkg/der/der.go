package der

import (
	"encoding/asn1"
	"math"
	"math/big"
	"math/bits"
	"time"
	"unicode/utf8"
)

// Identifier octets, X.690, Section 8.1.2.
const (
	tagBoolean         = 0x01
	tagInteger         = 0x02
	tagBitString       = 0x03
	tagOctetString     = 0x04
	tagNull            = 0x05
	tagOID             = 0x06
	tagEnumerated      = 0x0a
	tagUTF8String      = 0x0c
	tagNumericString   = 0x12
	tagPrintableString = 0x13
	tagT61String       = 0x14
	tagIA5String       = 0x16
	tagUTCTime         = 0x17
	tagGeneralizedTime = 0x18
	tagBMPString       = 0x1e
	tagSequence        = 0x30
	tagSet             = 0x31

	classContext = 0x80 // context-specific, primitive
	constructed  = 0x20
)

// ValueError says that a value cannot be encoded, or may not stand where it
// was put. It is the only kind of error the encoders return for their input;
// errors of a signer, a writer or an entry source are passed on as they are.
type ValueError struct {
	// Field is the name of the value in the RFC's spelling.
	Field string
	// Problem says what is wrong with it; it never repeats the value.
	Problem string
}

// Error returns "field: problem".
func (e *ValueError) Error() string { return e.Field + ": " + e.Problem }

func invalid(field, problem string) error { return &ValueError{Field: field, Problem: problem} }

// AppendLength appends the definite, minimal form of a length in octets
// (X.690, Section 10.1). A negative n counts as zero.
func AppendLength(dst []byte, n int) []byte {
	switch {
	case n <= 0:
		return append(dst, 0)
	case n < 0x80:
		return append(dst, byte(n))
	case n <= 0xff:
		return append(dst, 0x81, byte(n))
	case n <= 0xffff:
		return append(dst, 0x82, byte(n>>8), byte(n))
	}
	octets := (bits.Len64(uint64(n)) + 7) / 8
	dst = append(dst, 0x80|byte(octets))
	for i := octets - 1; i >= 0; i-- {
		dst = append(dst, byte(uint64(n)>>(8*i)))
	}
	return dst
}

// AppendHeader appends an identifier octet and the length of n content octets.
func AppendHeader(dst []byte, tag byte, n int) []byte {
	return AppendLength(append(dst, tag), n)
}

// AppendTLV appends one element: identifier octet, length and content.
func AppendTLV(dst []byte, tag byte, content []byte) []byte {
	return append(AppendHeader(dst, tag, len(content)), content...)
}

// SizeTLV returns the octets of an element with n content octets and a
// one-octet identifier: what [AppendTLV] would append.
func SizeTLV(n int) int {
	switch {
	case n < 0x80:
		return 2 + n
	case n <= 0xff:
		return 3 + n
	case n <= 0xffff:
		return 4 + n
	}
	return 2 + (bits.Len64(uint64(n))+7)/8 + n
}

// AppendInt appends an INTEGER.
func AppendInt(dst []byte, v int64) []byte {
	n := 1
	for i := v; i > math.MaxInt8 || i < math.MinInt8; i >>= 8 {
		n++
	}
	dst = append(dst, tagInteger, byte(n))
	for i := n - 1; i >= 0; i-- {
		dst = append(dst, byte(v>>(8*i)))
	}
	return dst
}

// maxNumberBits keeps the content of an INTEGER within 20 octets
// (RFC 5280, Sections 4.1.2.2 and 5.2.3).
const maxNumberBits = 159

// AppendBigInt appends an INTEGER from 0 to 2^159-1, which is what fits the 20
// octets RFC 5280 allows to serial and CRL numbers. nil, negative and larger
// numbers are a *ValueError.
func AppendBigInt(dst []byte, v *big.Int) ([]byte, error) {
	if v == nil || v.Sign() < 0 || v.BitLen() > maxNumberBits {
		return nil, invalid("INTEGER", "absent, negative or longer than 20 octets")
	}
	n := v.BitLen()/8 + 1
	dst = append(dst, tagInteger, byte(n))
	start := len(dst)
	dst = append(dst, make([]byte, n)...)
	v.FillBytes(dst[start:])
	return dst, nil
}

// AppendSerialNumber appends a CertificateSerialNumber from its content
// octets: positive, 1 to 20 octets, minimal, that is, no leading zero octet
// unless the next one has its high bit set (RFC 5280, Section 4.1.2.2).
func AppendSerialNumber(dst, content []byte) ([]byte, error) {
	if err := checkSerialNumber(content); err != nil {
		return nil, err
	}
	return AppendTLV(dst, tagInteger, content), nil
}

func checkSerialNumber(content []byte) error {
	switch n := len(content); {
	case n < 1 || n > 20:
		return invalid("serialNumber", "not 1 to 20 octets")
	case content[0] >= 0x80:
		return invalid("serialNumber", "negative")
	case n == 1 && content[0] == 0:
		return invalid("serialNumber", "zero")
	case content[0] == 0 && content[1] < 0x80:
		return invalid("serialNumber", "not minimal")
	}
	return nil
}

// AppendOID appends an OBJECT IDENTIFIER. The first arc is 0, 1 or 2, the
// second at most 39 under 0 and 1 (X.690, Section 8.19.4), and no encoded
// subidentifier exceeds 2^31-1: larger ones are not read by Go and several
// other parsers.
func AppendOID(dst []byte, oid asn1.ObjectIdentifier) ([]byte, error) {
	if len(oid) < 2 || oid[0] < 0 || oid[0] > 2 || oid[1] < 0 || oid[0] < 2 && oid[1] > 39 ||
		oid[1] > math.MaxInt32-80 {
		return nil, invalid("OBJECT IDENTIFIER", "first two arcs out of range")
	}
	n := sizeBase128(oid[0]*40 + oid[1])
	for _, arc := range oid[2:] {
		if arc < 0 || arc > math.MaxInt32 {
			return nil, invalid("OBJECT IDENTIFIER", "arc out of range")
		}
		n += sizeBase128(arc)
	}
	dst = AppendHeader(dst, tagOID, n)
	dst = appendBase128(dst, oid[0]*40+oid[1])
	for _, arc := range oid[2:] {
		dst = appendBase128(dst, arc)
	}
	return dst, nil
}

func sizeBase128(v int) int { return max(1, (bits.Len(uint(v))+6)/7) }

func appendBase128(dst []byte, v int) []byte {
	for i := sizeBase128(v) - 1; i > 0; i-- {
		dst = append(dst, 0x80|byte(v>>(7*i)))
	}
	return append(dst, byte(v&0x7f))
}

// AppendBitString appends a BIT STRING of whole octets.
func AppendBitString(dst, content []byte) []byte {
	dst = append(AppendHeader(dst, tagBitString, len(content)+1), 0)
	return append(dst, content...)
}

// AppendOctetString appends an OCTET STRING.
func AppendOctetString(dst, content []byte) []byte {
	return AppendTLV(dst, tagOctetString, content)
}

// AppendNamedBits appends a named bit list, such as KeyUsage or ReasonFlags:
// named bit i is set when set has 1<<i. Trailing zero bits are left out, as
// DER demands (X.690, Section 11.2.2); no bits at all make the empty string.
func AppendNamedBits(dst []byte, set uint32) []byte {
	return appendNamedBits(dst, tagBitString, set)
}

func appendNamedBits(dst []byte, tag byte, set uint32) []byte {
	length := bits.Len32(set)
	octets := (length + 7) / 8
	dst = append(dst, tag, byte(1+octets), byte(8*octets-length))
	reversed := bits.Reverse32(set) // named bit 0 is the most significant
	for i := range octets {
		dst = append(dst, byte(reversed>>(24-8*i)))
	}
	return dst
}

// AppendTime appends a Time of RFC 5280, Section 4.1.2.5: UTCTime for the
// years 1950 to 2049, GeneralizedTime from 2050 to 9999. The instant is
// written in UTC; an earlier year, a later one or a fraction of a second is a
// *ValueError. 9999-12-31 23:59:59 is "no well-defined expiration date"
// (Section 4.1.2.5.0).
func AppendTime(dst []byte, t time.Time) ([]byte, error) {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 1950 {
		// RFC 5280, Section 4.1.2.5.1: UTCTime says 1950 to 2049, and
		// GeneralizedTime is for 2050 or later only.
		return nil, invalid("Time", "before 1950")
	}
	if year >= 2050 {
		return AppendGeneralizedTime(dst, t)
	}
	if t.Nanosecond() != 0 {
		return nil, invalid("Time", "not whole seconds")
	}
	dst = append(dst, tagUTCTime, 13)
	dst = appendTwoDigits(dst, year%100)
	return appendMonthToSecond(dst, t, month, day), nil
}

// AppendGeneralizedTime appends a GeneralizedTime in UTC without fraction
// (RFC 5280, Section 4.1.2.5.2; RFC 6960, Section 4.2.2.1). Years outside 0 to
// 9999 and fractions of a second are a *ValueError.
func AppendGeneralizedTime(dst []byte, t time.Time) ([]byte, error) {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return nil, invalid("Time", "year is not 0 to 9999")
	}
	if t.Nanosecond() != 0 {
		return nil, invalid("Time", "not whole seconds")
	}
	dst = append(dst, tagGeneralizedTime, 15)
	dst = appendTwoDigits(dst, year/100)
	dst = appendTwoDigits(dst, year%100)
	return appendMonthToSecond(dst, t, month, day), nil
}

func appendMonthToSecond(dst []byte, t time.Time, month time.Month, day int) []byte {
	hour, minute, second := t.Clock()
	dst = appendTwoDigits(dst, int(month))
	dst = appendTwoDigits(dst, day)
	dst = appendTwoDigits(dst, hour)
	dst = appendTwoDigits(dst, minute)
	dst = appendTwoDigits(dst, second)
	return append(dst, 'Z')
}

func appendTwoDigits(dst []byte, v int) []byte {
	return append(dst, byte('0'+v/10), byte('0'+v%10))
}

// AppendUTF8String appends a UTF8String; invalid UTF-8 is a *ValueError.
func AppendUTF8String(dst []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, invalid("UTF8String", "not valid UTF-8")
	}
	return append(AppendHeader(dst, tagUTF8String, len(s)), s...), nil
}

// AppendPrintableString appends a PrintableString; characters outside
// A-Z a-z 0-9 space ' ( ) + , - . / : = ? are a *ValueError (X.680, Section
// 41.4: neither * nor @ nor & nor _).
func AppendPrintableString(dst []byte, s string) ([]byte, error) {
	if !isPrintableString(s) {
		return nil, invalid("PrintableString", "character outside its alphabet")
	}
	return append(AppendHeader(dst, tagPrintableString, len(s)), s...), nil
}

// AppendIA5String appends an IA5String; octets above 0x7f are a *ValueError.
func AppendIA5String(dst []byte, s string) ([]byte, error) {
	if !isIA5String(s) {
		return nil, invalid("IA5String", "not ASCII")
	}
	return append(AppendHeader(dst, tagIA5String, len(s)), s...), nil
}

func isPrintableString[S string | []byte](s S) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == ' ', c >= '\'' && c <= ')', c >= '+' && c <= '/', c == ':', c == '=', c == '?':
		default:
			return false
		}
	}
	return true
}

func isIA5String[S string | []byte](s S) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
