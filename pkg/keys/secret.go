package keys

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
)

// MaxSecretBytes bounds what [SealSecret] takes.
const MaxSecretBytes = MaxSealedBytes - 1024

// secretMagic begins a sealed secret, so that it is never taken for a sealed
// key. The rest has the form of one, with the digest of the secret's name in
// place of the key's.
const secretMagic = "CWSS"

// purposeSecret is the purpose in a sealed secret.
const purposeSecret Purpose = "secret"

// SealSecret encrypts a secret that is no private key, such as a challenge
// chosen by people, under a KEK. The name says where it belongs: bytes moved
// to another place in the database do not open there. No octets, and more than
// [MaxSecretBytes], are refused. SealSecret keeps nothing and is safe for
// concurrent use.
func SealSecret(kek *KEK, name string, secret []byte) ([]byte, error) {
	k, err := kek.state()
	if err != nil {
		return nil, fmt.Errorf("sealing secret: %w", err)
	}
	if len(secret) == 0 || len(secret) > MaxSecretBytes {
		return nil, fmt.Errorf("sealing secret: it has %d octets", len(secret))
	}
	dataKey := make([]byte, secretSize)
	defer clear(dataKey)
	rand.Read(dataKey) // never fails
	aead, err := newAEAD(dataKey)
	if err != nil {
		return nil, fmt.Errorf("sealing secret: %w", err)
	}
	prefix := appendPrefix(nil, secretMagic, purposeSecret, sha256.Sum256([]byte(name)))
	return assemble(k, prefix, dataKey, aead.Seal(nil, nil, secret, prefix)), nil
}

// OpenSecret decrypts what [SealSecret] made under this name. The error is
// ErrWrongKEK if it is sealed under another KEK, ErrWrongPurpose if it has
// another name, ErrVersion, or ErrCorrupt.
func OpenSecret(kek *KEK, name string, sealedSecret []byte) ([]byte, error) {
	s, err := parseSealedAs(secretMagic, sealedSecret)
	if err != nil {
		return nil, err
	}
	if s.spkiHash != sha256.Sum256([]byte(name)) {
		return nil, fmt.Errorf("sealed secret: %w: it is not %q", ErrWrongPurpose, name)
	}
	secret, dataKey, err := s.openSecret(kek)
	clear(dataKey)
	return secret, err
}

// openSecret returns the secret, and the data key for the caller to clear.
func (s sealed) openSecret(kek *KEK) (secret, dataKey []byte, err error) {
	k, err := kek.state()
	if err != nil {
		return nil, nil, fmt.Errorf("opening sealed secret: %w", err)
	}
	if subtle.ConstantTimeCompare(s.kekID[:], k.id[:]) != 1 {
		return nil, nil, fmt.Errorf("sealed secret: %w: it is sealed under %x, %s was given", ErrWrongKEK, s.kekID, kek.ID())
	}
	if dataKey, err = k.wrap.Open(nil, nil, s.wrapped, s.header); err != nil {
		return nil, nil, fmt.Errorf("sealed secret is %w: header or data key", ErrCorrupt)
	}
	aead, err := newAEAD(dataKey)
	if err != nil {
		return nil, dataKey, fmt.Errorf("opening sealed secret: %w", err)
	}
	if secret, err = aead.Open(nil, nil, s.payload, s.prefix); err != nil {
		return nil, dataKey, fmt.Errorf("sealed secret is %w: payload", ErrCorrupt)
	}
	return secret, dataKey, nil
}

// RewrapSecret moves a sealed secret from one KEK to another, as [Rewrap] does
// with a sealed key.
func RewrapSecret(oldKEK, newKEK *KEK, sealedSecret []byte) ([]byte, error) {
	s, err := parseSealedAs(secretMagic, sealedSecret)
	if err != nil {
		return nil, err
	}
	k, err := newKEK.state()
	if err != nil {
		return nil, fmt.Errorf("rewrapping secret: %w", err)
	}
	before, dataKey, err := s.openSecret(oldKEK)
	defer clear(dataKey)
	defer clear(before)
	if err != nil {
		return nil, err
	}
	out := assemble(k, s.prefix, dataKey, s.payload)
	t, err := parseSealedAs(secretMagic, out)
	if err != nil {
		return nil, fmt.Errorf("testing rewrapped secret: %w", err)
	}
	after, again, err := t.openSecret(newKEK)
	clear(again)
	defer clear(after)
	if err != nil {
		return nil, fmt.Errorf("testing rewrapped secret: %w", err)
	}
	if !bytes.Equal(before, after) {
		return nil, errors.New("testing rewrapped secret: it became another")
	}
	return out, nil
}
