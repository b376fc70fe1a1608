package cms

import "github.com/certwright/certwright/pkg/der"

// The normaliser: BER in, DER out, as far as the structure goes. Definite minimal lengths replace all others, and an
// OCTET STRING in pieces becomes whole (X.690, Sections 8.1.3, 8.7.3 and 10). Contents of primitive elements stay what
// they are; whoever reads them checks them. Some clients, Apple's among them, send indefinite lengths, and so does the
// example of RFC 8894, Section 4.1.

// Identifier octets.
const (
	tagInteger         = 0x02
	tagOctetString     = 0x04
	tagNull            = 0x05
	tagOID             = 0x06
	tagUTF8String      = 0x0c
	tagPrintableString = 0x13
	tagSequence        = 0x30
	tagSet             = 0x31

	constructed = 0x20
)

// element is one element of the input. Offsets are into the input.
type element struct {
	tag, tagLen  int32 // the identifier octets
	content, end int32 // a primitive's content; empty for the rest
	parent       int32 // index of the element around it, -1 for none
	size         int32 // content octets of the output
	piece        bool  // of an OCTET STRING: only its content is written
}

// encodedSize returns the octets of the element in the output.
func (e *element) encodedSize() int32 {
	if e.piece {
		return e.size
	}
	return e.tagLen - 1 + int32(der.SizeTLV(int(e.size)))
}

// frame is a constructed element that is being read.
type frame struct {
	index      int32
	limit      int // nothing inside reaches beyond it
	indefinite bool
	octets     bool // an OCTET STRING in pieces
}

// normalise returns the one element that b holds in DER, b itself if it is DER already. Time and memory are linear in
// len(b), whatever it holds.
func normalise(b []byte, l Limits) ([]byte, error) {
	if len(b) == 0 {
		return nil, malformed("the message is empty")
	}
	if len(b) > l.MaxBytes {
		return nil, malformed("the message is longer than %d octets", l.MaxBytes)
	}
	elements, isDER, err := readElements(b, l)
	if err != nil {
		return nil, err
	}
	if isDER {
		return b, nil
	}
	// Children follow their parent, so backwards each size is complete when it is added to the one above.
	for i := len(elements) - 1; i > 0; i-- {
		e := &elements[i]
		elements[e.parent].size += e.encodedSize()
	}
	out := make([]byte, 0, elements[0].encodedSize())
	for i := range elements {
		e := &elements[i]
		if !e.piece {
			identifier := b[e.tag]
			if identifier == tagOctetString|constructed {
				identifier = tagOctetString
			}
			out = append(out, identifier)
			out = append(out, b[e.tag+1:e.tag+e.tagLen]...)
			out = der.AppendLength(out, int(e.size))
		}
		out = append(out, b[e.content:e.end]...)
	}
	return out, nil
}

// readElements lists the elements of b in the order of their identifiers. isDER says that every length is definite and
// minimal and no string is in pieces.
func readElements(b []byte, l Limits) (elements []element, isDER bool, err error) {
	elements = make([]element, 0, 192) // a message of one certificate has about 120
	stack := make([]frame, 0, 16)
	isDER = true
	for off := 0; ; {
		// Close what ends here.
		for len(stack) > 0 {
			top := stack[len(stack)-1]
			if top.indefinite {
				if top.limit-off < 2 {
					return nil, false, malformed("an element of indefinite length does not end")
				}
				if b[off] != 0 || b[off+1] != 0 {
					break
				}
				off += 2
			} else if off < top.limit {
				break
			}
			stack = stack[:len(stack)-1]
		}
		parent := frame{index: -1, limit: len(b)}
		if len(stack) > 0 {
			parent = stack[len(stack)-1]
		} else if len(elements) > 0 {
			if off != len(b) {
				return nil, false, malformed("octets follow the message")
			}
			return elements, isDER, nil
		}
		if len(elements) == l.MaxElements {
			return nil, false, malformed("the message has more than %d elements", l.MaxElements)
		}
		h, ok := readHeader(b[off:parent.limit])
		if !ok {
			return nil, false, malformed("an element's header cannot be read")
		}
		content := off + h.tagLen + h.lengthLen
		e := element{tag: int32(off), tagLen: int32(h.tagLen), content: int32(content), end: int32(content), parent: parent.index}
		isConstructed := b[off]&constructed != 0
		if parent.octets {
			// X.690, Section 8.7.3.2: the pieces are OCTET STRINGs, perhaps in pieces themselves.
			if b[off]&^constructed != tagOctetString {
				return nil, false, malformed("a piece of an OCTET STRING is something else")
			}
			e.piece = true
		}
		isDER = isDER && h.minimal
		switch {
		case !isConstructed:
			if h.length < 0 {
				return nil, false, malformed("a primitive element has an indefinite length")
			}
			e.size = int32(h.length)
			e.end = int32(content + h.length)
			off = content + h.length
		default:
			octets := b[off] == tagOctetString|constructed
			if number := b[off] & 0x1f; b[off]&0xc0 == 0 && number != 0x10 && number != 0x11 && !octets {
				return nil, false, malformed("a string other than OCTET STRING is in pieces")
			}
			if len(stack) >= l.MaxDepth {
				return nil, false, malformed("elements nest deeper than %d", l.MaxDepth)
			}
			f := frame{index: int32(len(elements)), limit: parent.limit, indefinite: h.length < 0, octets: octets}
			if !f.indefinite {
				f.limit = content + h.length
			}
			isDER = isDER && !f.indefinite && !octets
			stack = append(stack, f)
			off = content
		}
		elements = append(elements, e)
	}
}

// header is what precedes the content of an element.
type header struct {
	tagLen, lengthLen int
	length            int // -1 for indefinite
	minimal           bool
}

// readHeader reads identifier and length octets. ok is false when they are cut off or wrong, the tag is the one of
// end-of-contents, or the content would reach beyond b.
func readHeader(b []byte) (h header, ok bool) {
	if len(b) < 2 || b[0]&^constructed == 0 {
		return h, false
	}
	h.tagLen = 1
	if b[0]&0x1f == 0x1f { // high tag number, X.690, Section 8.1.2.4
		for {
			// Four octets make 28 bits; the first is not padding.
			if h.tagLen == 5 || h.tagLen >= len(b) || h.tagLen == 1 && b[1] == 0x80 {
				return h, false
			}
			h.tagLen++
			if b[h.tagLen-1] < 0x80 {
				break
			}
		}
	}
	rest := b[h.tagLen:]
	if len(rest) == 0 {
		return h, false
	}
	first := rest[0]
	h.lengthLen = 1
	switch {
	case first < 0x80:
		h.length, h.minimal = int(first), true
	case first == 0x80:
		h.length = -1
		return h, true
	default:
		// Leading zeros are allowed in BER, and Microsoft's encoder has written them.
		n := int(first & 0x7f)
		if n > 8 || n >= len(rest) {
			return h, false
		}
		for _, c := range rest[1 : 1+n] {
			if h.length > hardMaxBytes>>8 {
				return h, false
			}
			h.length = h.length<<8 | int(c)
		}
		h.lengthLen = 1 + n
		h.minimal = h.length >= 0x80 && rest[1] != 0
	}
	return h, h.length <= len(rest)-h.lengthLen
}
