package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

// ErrCannotDecrypt says that a key does not decrypt: it is not RSA, or not
// for [PurposeRA].
var ErrCannotDecrypt = errors.New("key does not decrypt")

// Key is an opened private key: a [crypto.Signer] and [crypto.Decrypter] that
// knows what it is for and does not print its secret. Only [Seal] and the
// runtime can get at the secret. It does not change, and signing and
// decrypting take no lock: it is safe for concurrent use. Get one from [Open]
// or [New]; the zero value prints, and panics on the rest.
type Key struct {
	// A function, since fmt and its like follow pointers in the unexported
	// fields of other structs (%s does), but never look into a function.
	k func() *key
}

type key struct {
	signer    crypto.Signer
	purpose   Purpose
	algorithm Algorithm
	spki      []byte
	spkiHash  [sha256.Size]byte
	keyID     string
}

var (
	_ crypto.Signer    = (*Key)(nil)
	_ crypto.Decrypter = (*Key)(nil)
)

// New holds a private key of the standard library, which it keeps, as a Key.
// A signer that is a Key already is returned if the purpose is the same, else
// ErrWrongPurpose. Other signers, and algorithms that [AlgorithmOf] does not
// name, are ErrUnsupportedKey.
func New(purpose Purpose, signer crypto.Signer) (*Key, error) {
	if !purpose.Valid() {
		return nil, fmt.Errorf("%w: %q is malformed", ErrWrongPurpose, purpose)
	}
	switch s := signer.(type) {
	case *Key:
		if s == nil || s.k == nil {
			return nil, fmt.Errorf("%w: it is empty", ErrUnsupportedKey)
		}
		if s.k().purpose != purpose {
			return nil, fmt.Errorf("%w: it is %q, not %q", ErrWrongPurpose, s.k().purpose, purpose)
		}
		return s, nil
	case *ecdsa.PrivateKey:
		if s == nil {
			return nil, fmt.Errorf("%w: it is empty", ErrUnsupportedKey)
		}
	case *rsa.PrivateKey:
		if s == nil {
			return nil, fmt.Errorf("%w: it is empty", ErrUnsupportedKey)
		}
	case ed25519.PrivateKey:
		if len(s) != ed25519.PrivateKeySize {
			return nil, fmt.Errorf("%w: Ed25519 key of %d octets", ErrUnsupportedKey, len(s))
		}
	default:
		return nil, fmt.Errorf("%w: %T", ErrUnsupportedKey, signer)
	}
	algorithm, err := AlgorithmOf(signer.Public())
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding public key: %w", err)
	}
	hash := SPKIHash(spki)
	state := &key{
		signer:    signer,
		purpose:   purpose,
		algorithm: algorithm,
		spki:      spki,
		spkiHash:  hash,
		keyID:     keyID(hash),
	}
	return &Key{func() *key { return state }}, nil
}

// Public returns the public key: *rsa.PublicKey, *ecdsa.PublicKey or
// ed25519.PublicKey.
func (k Key) Public() crypto.PublicKey { return k.k().signer.Public() }

// Purpose tells what the key is for.
func (k Key) Purpose() Purpose { return k.k().purpose }

// Algorithm tells kind and size.
func (k Key) Algorithm() Algorithm { return k.k().algorithm }

// KeyID is the key's name, as the function [KeyID].
func (k Key) KeyID() string { return k.k().keyID }

// SPKI returns a copy of the DER SubjectPublicKeyInfo.
func (k Key) SPKI() []byte { return slices.Clone(k.k().spki) }

// SPKIHash is the SHA-256 digest of SPKI.
func (k Key) SPKIHash() [sha256.Size]byte { return k.k().spkiHash }

// Sign signs a digest, or with Ed25519 and a zero hash a message, as
// [crypto.Signer] says. The reader is ignored and crypto/rand used: with a
// nil one crypto/ecdsa would sign deterministically (RFC 6979), which is open
// to fault attacks.
func (k Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil {
		return nil, errors.New("signing: no hash function given")
	}
	if h := opts.HashFunc(); h != 0 && len(digest) != h.Size() {
		return nil, fmt.Errorf("signing: digest of %d octets is not of %v", len(digest), h)
	}
	if opts.HashFunc() == 0 && k.k().algorithm != Ed25519 {
		return nil, fmt.Errorf("signing: %v signs digests only", k.k().algorithm)
	}
	return k.k().signer.Sign(rand.Reader, digest, opts)
}

// Decrypt decrypts with an RSA key of [PurposeRA], as [rsa.PrivateKey.Decrypt]
// says; every other key is ErrCannotDecrypt, since whoever could make an
// issuer decrypt could make it sign. The reader is ignored and crypto/rand
// used.
//
// Options must be given. With *rsa.PKCS1v15DecryptOptions set SessionKeyLen:
// bad padding then gives a random key instead of an error, which would be an
// oracle (RFC 3218, Section 2.3.2).
func (k Key) Decrypt(_ io.Reader, msg []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	decrypter, ok := k.k().signer.(*rsa.PrivateKey)
	if !ok || k.k().purpose != PurposeRA {
		return nil, fmt.Errorf("%w: it is %v for %q", ErrCannotDecrypt, k.k().algorithm, k.k().purpose)
	}
	if opts == nil {
		return nil, errors.New("decrypting: no options given")
	}
	return decrypter.Decrypt(rand.Reader, msg, opts)
}

// DecryptSessionKey decrypts PKCS #1 v1.5 with an RSA key of [PurposeRA] into
// a preset key, as [rsa.DecryptPKCS1v15SessionKey] says: if the ciphertext
// holds a well-padded key of that length it overwrites key, else it leaves
// key as it was, in the same time. An error is about what everybody can see,
// such as the length of the ciphertext; every other key is ErrCannotDecrypt.
// Unlike Decrypt it lets the caller choose what a bad padding gives.
func (k Key) DecryptSessionKey(ciphertext, key []byte) error {
	decrypter, ok := k.k().signer.(*rsa.PrivateKey)
	if !ok || k.k().purpose != PurposeRA {
		return fmt.Errorf("%w: it is %v for %q", ErrCannotDecrypt, k.k().algorithm, k.k().purpose)
	}
	//lint:ignore SA1019 most SCEP clients know no other key transport
	return rsa.DecryptPKCS1v15SessionKey(rand.Reader, decrypter, ciphertext, key)
}

// ForRA returns the same key as one of [PurposeRA], which decrypts. It is for
// an issuer's RSA key that has to serve devices which know no RA: whoever finds
// a way to have it decrypt what he likes can make it sign what he likes, so
// that nothing but an administrator's express wish leads here.
func (k Key) ForRA() (*Key, error) { return New(PurposeRA, k.k().signer) }

// String shows purpose, algorithm and key id.
func (k Key) String() string {
	if k.k == nil {
		return "Key(none)"
	}
	return fmt.Sprintf("Key(%s %v %s, secret not shown)", k.k().purpose, k.k().algorithm, k.k().keyID)
}

// GoString is String.
func (k Key) GoString() string { return k.String() }

// Format writes String for every verb and flag.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// LogValue is String for log/slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is String for encoders, so that no encoder looks inside.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
