package scepraw

import (
	"bytes"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// Join returns the parts one after the other.
func Join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// TLV returns an element in DER.
func TLV(tag byte, parts ...[]byte) []byte {
	body := Join(parts...)
	n := len(body)
	head := []byte{tag}
	switch {
	case n < 1<<7:
		head = append(head, byte(n))
	case n < 1<<8:
		head = append(head, 0x81, byte(n))
	case n < 1<<16:
		head = append(head, 0x82, byte(n>>8), byte(n))
	case n < 1<<24:
		head = append(head, 0x83, byte(n>>16), byte(n>>8), byte(n))
	default:
		panic("scepraw: too long")
	}
	return Join(head, body)
}

// Indefinite returns a constructed element of indefinite length (X.690, Section 8.1.3.6).
func Indefinite(tag byte, parts ...[]byte) []byte {
	return Join([]byte{tag | 0x20, 0x80}, Join(parts...), []byte{0, 0})
}

// Padded returns an element whose length has leading zeros, as BER allows and Microsoft's encoder has written.
func Padded(tag byte, parts ...[]byte) []byte {
	body := Join(parts...)
	n := len(body)
	return Join([]byte{tag, 0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, body)
}

// Pieces returns an OCTET STRING, or another string type, in pieces of at most size octets and of indefinite length.
func Pieces(tag byte, b []byte, size int) []byte {
	var pieces [][]byte
	for c := range slices.Chunk(b, size) {
		pieces = append(pieces, TLV(4, c))
	}
	return Indefinite(tag, pieces...)
}

// Shorthands for types.
func Sequence(parts ...[]byte) []byte        { return TLV(0x30, parts...) }
func Set(parts ...[]byte) []byte             { return TLV(0x31, parts...) }
func Octets(b []byte) []byte                 { return TLV(4, b) }
func UTF8(s string) []byte                   { return TLV(0x0c, []byte(s)) }
func Printable(s string) []byte              { return TLV(0x13, []byte(s)) }
func Context(n byte, parts ...[]byte) []byte { return TLV(0xa0|n, parts...) }
func Bits(b []byte) []byte                   { return TLV(3, []byte{0}, b) }
func Int(v int) []byte                       { return BigInt(big.NewInt(int64(v))) }

// Null is NULL.
func Null() []byte { return []byte{5, 0} }

// BigInt returns an INTEGER that is not negative.
func BigInt(v *big.Int) []byte {
	b := v.Bytes()
	if len(b) == 0 || b[0] >= 0x80 {
		b = Join([]byte{0}, b)
	}
	return TLV(2, b)
}

// OID returns an OBJECT IDENTIFIER from its dotted form.
func OID(dotted string) []byte {
	var body []byte
	first := 0
	for i, arc := range strings.Split(dotted, ".") {
		v, err := strconv.Atoi(arc)
		if err != nil {
			panic(err)
		}
		switch i {
		case 0:
			first = v
			continue
		case 1:
			v += 40 * first
		}
		group := []byte{byte(v & 0x7f)}
		for v >>= 7; v > 0; v >>= 7 {
			group = append([]byte{0x80 | byte(v&0x7f)}, group...)
		}
		body = append(body, group...)
	}
	return TLV(6, body)
}

// SetOf returns a SET OF in DER's order.
func SetOf(parts ...[]byte) []byte {
	sorted := slices.Clone(parts)
	slices.SortFunc(sorted, bytes.Compare)
	return Set(sorted...)
}

// Element is one element read from DER.
type Element struct {
	Tag  byte
	Body []byte
	Full []byte
}

// Read takes the first element off b.
func Read(b []byte) (e Element, rest []byte, err error) {
	if len(b) < 2 || b[0]&0x1f == 0x1f {
		return e, nil, fmt.Errorf("scepraw: no element in %d octets", len(b))
	}
	n, head := int(b[1]), 2
	if n == 0x80 || n > 0x83 {
		return e, nil, fmt.Errorf("scepraw: length octet %#x", n)
	}
	if n > 0x80 {
		octets := n & 0x7f
		if len(b) < 2+octets {
			return e, nil, fmt.Errorf("scepraw: length is cut off")
		}
		n, head = 0, 2+octets
		for _, c := range b[2:head] {
			n = n<<8 | int(c)
		}
		if n < 0x80 || b[2] == 0 {
			return e, nil, fmt.Errorf("scepraw: length is not minimal")
		}
	}
	if len(b)-head < n {
		return e, nil, fmt.Errorf("scepraw: element of %d octets in %d", n, len(b)-head)
	}
	return Element{b[0], b[head : head+n], b[:head+n]}, b[head+n:], nil
}

// All reads elements to the end of b.
func All(b []byte) ([]Element, error) {
	var list []Element
	for len(b) > 0 {
		e, rest, err := Read(b)
		if err != nil {
			return nil, err
		}
		list, b = append(list, e), rest
	}
	return list, nil
}

// Is tells whether the element is this OID.
func (e Element) Is(dotted string) bool { return bytes.Equal(e.Full, OID(dotted)) }
