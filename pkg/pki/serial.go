package pki

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// SerialNumber is a certificate's serial number: the content octets of the DER INTEGER, as a string so that it can be
// compared and be the key of a map. Ours are always 16 octets; imported ones have 1 to 20 (RFC 5280, Section 4.1.2.2).
// The zero value is no serial number at all.
type SerialNumber string

// The form of serial numbers made here: a constant octet, the bucket, the second of issuance, and 72 bits of the
// random source. It is positive and of one length, so that every entry of a CRL has one size; it begins with what the
// store partitions by; and it holds more than the 64 random bits that make a chosen-prefix collision hopeless.
const (
	serialPrefix = 0x41
	serialLen    = 16
	serialRandom = 9

	// BucketNever is the bucket of certificates that have no end (RFC 5280, Section 4.1.2.5).
	BucketNever = 0xFFFF
	// BucketImported is the bucket of serial numbers that were not made here.
	BucketImported = 0
)

var (
	serialEpoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

	// NoExpiry is the notAfter that says a certificate has no well-defined end (RFC 5280, Section 4.1.2.5).
	NoExpiry = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

	// ErrSerialNumber says that octets or text are no serial number.
	ErrSerialNumber = errors.New("not a serial number")
)

// NewSerialNumber draws a serial number for a certificate that ends at notAfter and is issued at now. The error is
// random's alone.
func NewSerialNumber(random io.Reader, notAfter, now time.Time) (SerialNumber, error) {
	var b [serialLen]byte
	b[0] = serialPrefix
	binary.BigEndian.PutUint16(b[1:], uint16(BucketOf(notAfter)))
	binary.BigEndian.PutUint32(b[3:], uint32(max(now.Unix()-serialEpoch.Unix(), 0)))
	if _, err := io.ReadFull(random, b[serialLen-serialRandom:]); err != nil {
		return "", fmt.Errorf("drawing a serial number: %w", err)
	}
	return SerialNumber(b[:]), nil
}

// BucketOf returns the bucket of certificates that end at notAfter: its month counted from January 2000, at least 1
// and below BucketNever, which stands for no end.
func BucketOf(notAfter time.Time) int {
	notAfter = notAfter.UTC()
	if !notAfter.Before(NoExpiry) {
		return BucketNever
	}
	return min(max((notAfter.Year()-2000)*12+int(notAfter.Month())-1, 1), BucketNever-1)
}

// Bucket returns the part of the certificate table that holds this serial number. It is a pure function of the octets.
// An imported serial that happens to have our form lands in the bucket it names, which is as good as any.
func (s SerialNumber) Bucket() int {
	if len(s) != serialLen || s[0] != serialPrefix {
		return BucketImported
	}
	return int(s[1])<<8 | int(s[2])
}

// Bytes returns the content octets, in a new slice.
func (s SerialNumber) Bytes() []byte { return []byte(s) }

// String returns the octets in lower-case hexadecimal, two digits each, as in "4101...".
func (s SerialNumber) String() string { return hex.EncodeToString([]byte(s)) }

// SerialNumberFromBytes checks the content octets of a DER INTEGER: 1 to 20 of them, positive, without needless
// leading zeros (RFC 5280, Section 4.1.2.2). Zero is accepted, since imported certificates carry it.
func SerialNumberFromBytes(b []byte) (SerialNumber, error) {
	switch {
	case len(b) == 0 || len(b) > 20:
		return "", fmt.Errorf("%w: %d octets, want 1 to 20", ErrSerialNumber, len(b))
	case b[0]&0x80 != 0:
		return "", fmt.Errorf("%w: negative", ErrSerialNumber)
	case len(b) > 1 && b[0] == 0 && b[1]&0x80 == 0:
		return "", fmt.Errorf("%w: needless leading zero", ErrSerialNumber)
	}
	return SerialNumber(b), nil
}

// ParseSerialNumber reads a serial number as people and tools write it: hexadecimal in either case, with or without
// 0x, colons, spaces or leading zeros.
func ParseSerialNumber(text string) (SerialNumber, error) {
	t := strings.NewReplacer(":", "", " ", "").Replace(strings.TrimSpace(text))
	t = strings.TrimPrefix(strings.TrimPrefix(t, "0x"), "0X")
	t = strings.TrimLeft(t, "0")
	if len(t)%2 == 1 {
		t = "0" + t
	}
	b, err := hex.DecodeString(t)
	if err != nil || text == "" {
		return "", fmt.Errorf("%w: want hexadecimal digits", ErrSerialNumber)
	}
	if len(b) == 0 || b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return SerialNumberFromBytes(b)
}
