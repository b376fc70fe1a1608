package cms

import (
	"errors"

	"github.com/certwright/certwright/pkg/fault"
)

// What errors about the input wrap, for errors.Is.
var (
	// ErrMalformed says that the octets are not what the standard describes, or exceed [Limits].
	ErrMalformed = errors.New("malformed message")
	// ErrAlgorithm says that an algorithm is unknown, or is one that only a legacy option allows.
	ErrAlgorithm = errors.New("unsupported algorithm")
	// ErrSignature says that the signature, or one of the attributes that tie it to the content, is wrong.
	ErrSignature = errors.New("signature does not verify")
	// ErrNoRecipient says that a message is not encrypted to any of the keys at hand.
	ErrNoRecipient = errors.New("no recipientInfo for this key")
	// ErrDecryption is everything that can be wrong with an encrypted message once the recipient is known.
	ErrDecryption = errors.New("decryption failed")
	// ErrAbsent says that a message has no such attribute.
	ErrAbsent = errors.New("no such attribute")
)

// Limits bound what is read from a stranger. The zero value of a field stands for its default.
type Limits struct {
	// MaxBytes is the size of a message in octets; default 64 KiB.
	MaxBytes int
	// MaxDepth is how deep elements nest; default 32.
	MaxDepth int
	// MaxElements is the number of ASN.1 elements, those of certificates included; default 8192.
	MaxElements int
	// MaxCertificates is the number of certificates in a SignedData; default 10.
	MaxCertificates int
	// MaxCRLs is the number of CRLs in a SignedData; default 4.
	MaxCRLs int
	// MaxAttributes is the number of signed attributes; default 32.
	MaxAttributes int
	// MaxRecipients is the number of recipientInfos, and of signerInfos; default 10.
	MaxRecipients int
}

// hardMaxBytes keeps offsets in 32 bits.
const hardMaxBytes = 1 << 28

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.MaxBytes, 64<<10)
	def(&l.MaxDepth, 32)
	def(&l.MaxElements, 8192)
	def(&l.MaxCertificates, 10)
	def(&l.MaxCRLs, 4)
	def(&l.MaxAttributes, 32)
	def(&l.MaxRecipients, 10)
	l.MaxBytes = min(l.MaxBytes, hardMaxBytes)
	return l
}

func malformed(format string, args ...any) error {
	return fault.Wrap(fault.BadRequest, ErrMalformed, format, args...)
}

func unsupported(format string, args ...any) error {
	return fault.Wrap(fault.BadRequest, ErrAlgorithm, format, args...)
}

func badSignature(format string, args ...any) error {
	return fault.Wrap(fault.BadRequest, ErrSignature, format, args...)
}
