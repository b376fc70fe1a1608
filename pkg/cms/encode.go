package cms

import (
	"bytes"
	"slices"

	"github.com/certwright/certwright/pkg/der"
)

// Encoders. Inner parts are made first and wrapped; messages are a few KiB, and the private key operations around them
// cost a thousand times more than the copies.

func appendTLV(dst []byte, tag byte, content []byte) []byte { return der.AppendTLV(dst, tag, content) }

// wrap returns one element around parts.
func wrap(tag byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := der.AppendHeader(make([]byte, 0, der.SizeTLV(n)), tag, n)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func sequence(parts ...[]byte) []byte { return wrap(tagSequence, parts...) }

// setOf returns a SET OF in the order of parts, which the caller has sorted.
func setOf(parts [][]byte) []byte { return wrap(tagSet, parts...) }

// sortSet brings elements into the order of a DER SET OF (X.690, Section 11.6). Comparing without padding is the same:
// no encoding is a prefix of another.
func sortSet(parts [][]byte) { slices.SortFunc(parts, bytes.Compare) }

func octetString(b []byte) []byte { return wrap(tagOctetString, b) }

func integer(v int) []byte { return der.AppendInt(nil, int64(v)) }

func (o oid) encode() []byte { return wrap(tagOID, []byte(o)) }

var null = []byte{tagNull, 0}

// explicit returns content in an explicit or implicit constructed context tag.
func contextTag(n byte, parts ...[]byte) []byte { return wrap(0xa0|n, parts...) }

// encodeContentInfo wraps the body of a message (RFC 5652, Section 3).
func encodeContentInfo(id oid, body []byte) []byte {
	return sequence(id.encode(), contextTag(0, body))
}
