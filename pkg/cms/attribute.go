package cms

import (
	"encoding/asn1"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Attributes are the signed attributes of a message. There is at most one of a type; more make the message malformed
// (RFC 5652, Section 5.3). The zero value has none.
type Attributes struct {
	list []attribute
	der  []byte // content of the SET, in the order it came
}

type attribute struct {
	id     oid
	values cryptobyte.String // content of the SET
	raw    []byte            // the whole element
}

// Len returns their number.
func (a Attributes) Len() int { return len(a.list) }

// Has tells whether there is an attribute of this type.
func (a Attributes) Has(typ asn1.ObjectIdentifier) bool { return a.find(oidOf(typ)) != nil }

// PrintableString returns the value of an attribute that has one PrintableString. Without the attribute the error is
// ErrAbsent; another type, a character outside the alphabet, or another number of values than one is a fault.
func (a Attributes) PrintableString(typ asn1.ObjectIdentifier) (string, error) {
	v, err := a.value(oidOf(typ), cbasn1.PrintableString)
	if err != nil {
		return "", err
	}
	for _, c := range v {
		// * and & are outside the alphabet (X.680, Section 41.4), but most readers let them pass, so devices have them.
		if !isPrintable(c) && c != '*' && c != '&' {
			return "", malformed("attribute %v has a character that no PrintableString has", typ)
		}
	}
	return string(v), nil
}

// OctetString returns a copy of the value of an attribute that has one OCTET STRING. Errors are those of
// [Attributes.PrintableString].
func (a Attributes) OctetString(typ asn1.ObjectIdentifier) ([]byte, error) {
	v, err := a.value(oidOf(typ), cbasn1.OCTET_STRING)
	if err != nil {
		return nil, err
	}
	return append([]byte{}, v...), nil
}

// UTF8String returns the value of an attribute that has one UTF8String. Errors are those of
// [Attributes.PrintableString].
func (a Attributes) UTF8String(typ asn1.ObjectIdentifier) (string, error) {
	v, err := a.value(oidOf(typ), cbasn1.UTF8String)
	if err != nil {
		return "", err
	}
	if !utf8.Valid(v) {
		return "", malformed("attribute %v is not valid UTF-8", typ)
	}
	return string(v), nil
}

// SigningTime returns the signingTime in UTC (RFC 5652, Section 11.3). Without it the error is ErrAbsent.
func (a Attributes) SigningTime() (time.Time, error) {
	at := a.find(oidSigningTime)
	if at == nil {
		return time.Time{}, ErrAbsent
	}
	s := at.values
	var t time.Time
	ok := false
	switch {
	case s.PeekASN1Tag(cbasn1.UTCTime):
		ok = s.ReadASN1UTCTime(&t)
	case s.PeekASN1Tag(cbasn1.GeneralizedTime):
		ok = s.ReadASN1GeneralizedTime(&t)
	}
	if !ok || !s.Empty() {
		return time.Time{}, malformed("signingTime cannot be read")
	}
	return t.UTC(), nil
}

func (a Attributes) find(id oid) *attribute {
	for i := range a.list {
		if a.list[i].id == id {
			return &a.list[i]
		}
	}
	return nil
}

// value returns the content of the one value of an attribute.
func (a Attributes) value(id oid, tag cbasn1.Tag) (cryptobyte.String, error) {
	at := a.find(id)
	if at == nil {
		return nil, ErrAbsent
	}
	s := at.values
	var v cryptobyte.String
	if !s.ReadASN1(&v, tag) || !s.Empty() {
		return nil, malformed("attribute %v is not one value of the type it should have", id)
	}
	return v, nil
}

func parseAttributes(set cryptobyte.String, l Limits) (Attributes, error) {
	a := Attributes{der: set}
	for !set.Empty() {
		var raw, body, id cryptobyte.String
		var at attribute
		if len(a.list) == l.MaxAttributes {
			return a, malformed("the message has more than %d attributes", l.MaxAttributes)
		}
		if !set.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
			return a, malformed("an attribute cannot be read")
		}
		at.raw = raw
		if !raw.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) ||
			!body.ReadASN1(&at.values, cbasn1.SET) || !body.Empty() {
			return a, malformed("an attribute cannot be read")
		}
		at.id = oid(id)
		if a.find(at.id) != nil {
			return a, malformed("attribute %v appears twice", at.id)
		}
		a.list = append(a.list, at)
	}
	return a, nil
}

func isPrintable(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return c == ' ' || c >= '\'' && c <= ')' || c >= '+' && c <= '/' || c == ':' || c == '=' || c == '?'
}
