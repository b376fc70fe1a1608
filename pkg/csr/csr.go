// Package csr reads certificate signing requests: PKCS #10 (RFC 2986) with the extension request of RFC 2985, Section
// 5.4.2, as DER or PEM (RFC 7468, Section 7).
//
// A request is a stranger's bytes. [Parse] accepts one request and nothing else, checks that its key may be certified
// (package keys) and that the sender holds the private half, once, and hands out named fields. It never hands out
// extensions: what of the request reaches a certificate is for package profile to decide.
//
// Structure is read strictly, since two readings of one request are an attack; what is merely old (T61String names, an
// absent attributes field, Microsoft's extension request) is read as far as its meaning is plain.
//
// Errors are faults: BadCSR when the request cannot be read or its signature is wrong, BadPublicKey when it is the key.
package csr

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"log/slog"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
)

// MaxBytes is the size of the largest request that is read, in either form. An RSA-8192 request with a hundred names
// is below 8 KiB.
const MaxBytes = 64 << 10

// Request is a parsed request whose key and proof of possession have been checked. It shares no memory with the bytes
// it was read from. What it says of names, usages and CA rights is what the requester would like.
type Request struct {
	// DER is the whole request.
	DER []byte
	// SPKI is the DER of the SubjectPublicKeyInfo, as the requester encoded it.
	SPKI []byte
	// SPKIHash is the SHA-256 digest of SPKI.
	SPKIHash [32]byte
	// PublicKey is an *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
	PublicKey crypto.PublicKey
	// KeyAlgorithm is the kind and size of PublicKey; 0 with KeyErr.
	KeyAlgorithm keys.Algorithm
	// KeyErr is why the key must not be certified: a fault of the kind BadPublicKey. Nil unless [Parser.DeferKey] is set.
	KeyErr error
	// SignatureAlgorithm is what the request is signed with.
	SignatureAlgorithm x509.SignatureAlgorithm

	// Subject holds the attributes of the distinguished name in their order, those of a multi-valued RDN one after the
	// other, as valid UTF-8 without NUL. Values may be empty.
	Subject []der.Attribute
	// SANs are the names of the requested subjectAltName, in their order: dNSName, rfc822Name and
	// uniformResourceIdentifier in ASCII, iPAddress of 4 or 16 octets, otherName (a UPN has Text, others Raw),
	// directoryName and registeredID. Nil without the extension.
	SANs []der.GeneralName

	// KeyUsage is the requested keyUsage, 0 if none. For information.
	KeyUsage x509.KeyUsage
	// ExtKeyUsage is the requested extKeyUsage, nil if none. For information.
	ExtKeyUsage []asn1.ObjectIdentifier
	// IsCA says that the request has basicConstraints with cA TRUE.
	IsCA bool
	// Extensions names every extension of the extension request, in its order. For information.
	Extensions []asn1.ObjectIdentifier

	// ChallengePassword is the challengePassword attribute (RFC 2985, Section 5.4.1).
	ChallengePassword Secret
}

// Parser reads requests. The zero value refuses SHA-1 signatures and knows no list of weak keys. It is safe for
// concurrent use.
type Parser struct {
	// AllowSHA1 accepts SHA-1 in the proof of possession, for old devices. It proves that the sender had the key, unless
	// someone can find a collision under it; MD5 is never accepted.
	AllowSHA1 bool
	// KeyRules are added to the fixed rules for public keys.
	KeyRules keys.Rules
	// DeferKey reads a request whose RSA key must not be certified, if its signature can be checked all the same, and leaves
	// it to the caller to refuse it by [Request.KeyErr]: for those who say nothing of a request before they know who asks.
	DeferKey bool
}

// Parse reads one request with the zero [Parser].
func Parse(b []byte) (*Request, error) { return Parser{}.Parse(b) }

// Parse reads one request, DER or PEM, of at most [MaxBytes]. Before PEM there may be any text, after it white space
// only; nothing may follow DER. Errors are faults of the kind BadCSR or BadPublicKey.
func (p Parser) Parse(b []byte) (*Request, error) {
	raw, err := decode(b)
	if err != nil {
		return nil, err
	}
	r, sig, err := parse(raw)
	if err != nil {
		return nil, err
	}
	// The key first: an RSA key of absurd size or exponent makes the signature check itself expensive.
	if r.PublicKey, err = x509.ParsePKIXPublicKey(r.SPKI); err != nil {
		return nil, fault.Wrap(fault.BadPublicKey, err, "the request's public key cannot be read").
			WithHint("use an ECDSA key on P-256, an RSA key of at least %d bits, or Ed25519", keys.MinRSABits)
	}
	switch err := keys.CheckPublicKey(r.PublicKey, p.KeyRules); {
	case err == nil:
		if r.KeyAlgorithm, err = keys.AlgorithmOf(r.PublicKey); err != nil {
			return nil, badKey(err)
		}
	case p.DeferKey && verifies(r.PublicKey):
		r.KeyErr = badKey(err)
	default:
		return nil, badKey(err)
	}
	// One key, one encoding: blocked keys and keys of ours are known by the hash of these octets, and the parser is lenient
	// in places (octets behind an RSA key, parameters behind a curve), so that a blocked key could come back in another coat.
	if normal, err := x509.MarshalPKIXPublicKey(r.PublicKey); err != nil || !bytes.Equal(normal, r.SPKI) {
		return nil, fault.New(fault.BadPublicKey, "the request's public key is not encoded as it should be").WithField("csr").
			WithHint("make the request with a current version of OpenSSL or another standard tool")
	}
	if err := p.checkSignature(r, sig); err != nil {
		return nil, err
	}
	r.SPKIHash = keys.SPKIHash(r.SPKI)
	return r, nil
}

// verifies tells whether signatures of an RSA key are checked that is no good for a certificate: from 1024 bits on, and up
// to where it gets expensive.
func verifies(public crypto.PublicKey) bool {
	k, ok := public.(*rsa.PublicKey)
	return ok && k.N.BitLen() >= 1024 && k.N.BitLen() <= keys.MaxRSABits
}

// String describes the request in a line without anything secret.
func (r Request) String() string {
	return fmt.Sprintf("PKCS #10 request, %s key, %d subject attributes, %d names", r.KeyAlgorithm, len(r.Subject), len(r.SANs))
}

// Format prints String under every verb: the DER of a request holds its challenge password.
func (r Request) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(r.String())) }

// LogValue keeps logs to what String says: never a challenge password, never a whole request.
func (r Request) LogValue() slog.Value { return slog.StringValue(r.String()) }

// Secret is a text that does not print: not with fmt in any form, not in logs, not in JSON. The zero value is no
// secret.
type Secret struct{ text *string } // behind a pointer, since fmt reaches unexported fields

// NewSecret returns a secret with this text; empty text is no secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the text, empty if there is none. Compare it in constant time.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Empty says that there is no secret. A challengePassword of no characters counts as absent.
func (s Secret) Empty() bool { return s.text == nil }

// String returns "[redacted]", or nothing for no secret.
func (s Secret) String() string {
	if s.Empty() {
		return ""
	}
	return "[redacted]"
}

// Format prints String under every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText returns String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

func bad(format string, args ...any) *fault.Error { return fault.New(fault.BadCSR, format, args...) }
