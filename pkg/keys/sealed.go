package keys

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
)

// MaxSealedBytes bounds a sealed key; that of RSA-8192 has under 5 KiB.
const MaxSealedBytes = 16 << 10

const (
	sealedMagic   = "CWSK"
	sealedVersion = 1

	aeadOverhead = 12 + 16 // nonce and tag
	wrappedSize  = aeadOverhead + secretSize

	maxPurposeBytes = 32
)

var (
	// ErrVersion says that a sealed key was written by a newer program.
	ErrVersion = errors.New("sealed key of an unknown version")

	// ErrWrongPurpose says that a sound key was asked for another purpose
	// than it was sealed for.
	ErrWrongPurpose = errors.New("wrong purpose of key")
)

// Purpose is what a key is for. It is sealed with the key, so that a row
// moved in the database does not make an RA key of an issuer key. The zero
// value is invalid.
//
// Values are 1 to 32 of a-z, 0-9 and "-", a letter first; readers keep
// values that they do not know.
type Purpose string

// Purposes in use.
const (
	PurposeIssuer Purpose = "issuer" // signs certificates and CRLs
	PurposeRA     Purpose = "ra"     // signs and decrypts SCEP messages
)

// Valid tells whether p has the form of a purpose.
func (p Purpose) Valid() bool {
	if len(p) == 0 || len(p) > maxPurposeBytes {
		return false
	}
	for i, c := range []byte(p) {
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return true
}

// SealedHeader is what a sealed key says about itself without the KEK.
// Nothing of it is authenticated until [Open].
type SealedHeader struct {
	Purpose  Purpose
	SPKIHash [sha256.Size]byte
	KeyID    string // as the function KeyID
	KEKID    string // as KEK.ID
}

// sealed is a sealed key, cut in its parts. All slices alias the input.
type sealed struct {
	purpose  Purpose
	spkiHash [sha256.Size]byte
	kekID    [kekIDSize]byte

	prefix  []byte // additional data of payload
	header  []byte // prefix and KEK id: additional data of wrapped
	wrapped []byte
	payload []byte
}

func appendPrefix(b []byte, magic string, purpose Purpose, spkiHash [sha256.Size]byte) []byte {
	b = append(b, magic...)
	b = append(b, sealedVersion, byte(len(purpose)))
	b = append(b, purpose...)
	return append(b, spkiHash[:]...)
}

func parseSealed(data []byte) (sealed, error) { return parseSealedAs(sealedMagic, data) }

func parseSealedAs(magic string, data []byte) (s sealed, err error) {
	bad := func(what string) (sealed, error) {
		return sealed{}, fmt.Errorf("sealed key is %w: %s", ErrCorrupt, what)
	}
	if len(data) > MaxSealedBytes {
		return bad("too long")
	}
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok || len(rest) < 2 {
		return bad("not a sealed key")
	}
	if version := rest[0]; version != sealedVersion {
		return sealed{}, fmt.Errorf("%w %d", ErrVersion, version)
	}
	n := int(rest[1])
	rest = rest[2:]
	if n > maxPurposeBytes || len(rest) < n+sha256.Size+kekIDSize+wrappedSize+aeadOverhead+1 {
		return bad("truncated")
	}
	s.purpose, rest = Purpose(rest[:n]), rest[n:]
	if !s.purpose.Valid() {
		return bad("purpose is malformed")
	}
	rest = rest[copy(s.spkiHash[:], rest):]
	s.prefix = data[:len(data)-len(rest)]
	rest = rest[copy(s.kekID[:], rest):]
	s.header = data[:len(data)-len(rest)]
	s.wrapped, s.payload = rest[:wrappedSize], rest[wrappedSize:]
	return s, nil
}

// Header reads the header of a sealed key without the KEK. The error is
// ErrCorrupt or ErrVersion.
func Header(sealedKey []byte) (SealedHeader, error) {
	s, err := parseSealed(sealedKey)
	if err != nil {
		return SealedHeader{}, err
	}
	return SealedHeader{
		Purpose:  s.purpose,
		SPKIHash: s.spkiHash,
		KeyID:    keyID(s.spkiHash),
		KEKID:    hex.EncodeToString(s.kekID[:]),
	}, nil
}

// Seal encrypts a private key under a KEK for one purpose, and opens the
// result before returning it. The signer is a private key of the standard
// library or a [Key], whose purpose must be the same (ErrWrongPurpose); other
// signers, and algorithms that [AlgorithmOf] does not name, are
// ErrUnsupportedKey. Two calls never give the same bytes. Seal keeps nothing
// and is safe for concurrent use.
func Seal(kek *KEK, purpose Purpose, signer crypto.Signer) ([]byte, error) {
	k, err := kek.state()
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	key, err := New(purpose, signer)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key.k().signer)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	defer clear(pkcs8)

	dataKey := make([]byte, secretSize)
	defer clear(dataKey)
	rand.Read(dataKey) // never fails
	aead, err := newAEAD(dataKey)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	prefix := appendPrefix(nil, sealedMagic, purpose, key.k().spkiHash)
	payload := aead.Seal(nil, nil, pkcs8, prefix)
	out := assemble(k, prefix, dataKey, payload)
	if _, err := Open(kek, purpose, out); err != nil {
		return nil, fmt.Errorf("testing sealed key: %w", err)
	}
	return out, nil
}

// assemble wraps the data key and puts the parts together.
func assemble(k *kek, prefix, dataKey, payload []byte) []byte {
	out := make([]byte, 0, len(prefix)+kekIDSize+wrappedSize+len(payload))
	out = append(out, prefix...)
	out = append(out, k.id[:]...)
	header := out[:len(out):len(out)]
	out = k.wrap.Seal(out, nil, dataKey, header)
	return append(out, payload...)
}

// Open decrypts a sealed key. The caller says what the key is for: the
// purpose in the sealed bytes is authentic, but only the caller knows which
// one is right in this place.
//
// The error is ErrWrongKEK if the key is sealed under another KEK,
// ErrWrongPurpose if it is for something else, ErrVersion, or ErrCorrupt. The
// key keeps nothing of sealedKey. Open is safe for concurrent use.
func Open(kek *KEK, purpose Purpose, sealedKey []byte) (*Key, error) {
	s, err := parseSealed(sealedKey)
	if err != nil {
		return nil, err
	}
	key, dataKey, err := s.open(kek)
	clear(dataKey)
	if err != nil {
		return nil, err
	}
	if key.k().purpose != purpose {
		return nil, fmt.Errorf("key %s: %w: it is %q, not %q", key.KeyID(), ErrWrongPurpose, key.k().purpose, purpose)
	}
	return key, nil
}

// open returns the key, and the data key for the caller to clear.
func (s sealed) open(kek *KEK) (_ *Key, dataKey []byte, err error) {
	k, err := kek.state()
	if err != nil {
		return nil, nil, fmt.Errorf("opening sealed key: %w", err)
	}
	id := keyID(s.spkiHash)
	if subtle.ConstantTimeCompare(s.kekID[:], k.id[:]) != 1 {
		return nil, nil, fmt.Errorf("key %s: %w: it is sealed under %x, %s was given", id, ErrWrongKEK, s.kekID, kek.ID())
	}
	dataKey, err = k.wrap.Open(nil, nil, s.wrapped, s.header)
	if err != nil {
		return nil, nil, fmt.Errorf("sealed key %s is %w: header or data key", id, ErrCorrupt)
	}
	aead, err := newAEAD(dataKey)
	if err != nil {
		return nil, dataKey, fmt.Errorf("opening sealed key %s: %w", id, err)
	}
	pkcs8, err := aead.Open(nil, nil, s.payload, s.prefix)
	if err != nil {
		return nil, dataKey, fmt.Errorf("sealed key %s is %w: payload", id, ErrCorrupt)
	}
	defer clear(pkcs8)
	// From here on the bytes are ours, so an error is a bug or a fault of the
	// memory, and the causes are not worth telling apart.
	private, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, dataKey, fmt.Errorf("sealed key %s is %w: not PKCS#8", id, ErrCorrupt)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, dataKey, fmt.Errorf("sealed key %s is %w: it cannot sign", id, ErrCorrupt)
	}
	key, err := New(s.purpose, signer)
	if err != nil {
		return nil, dataKey, fmt.Errorf("sealed key %s: %w", id, err)
	}
	if key.k().spkiHash != s.spkiHash {
		return nil, dataKey, fmt.Errorf("sealed key %s is %w: it is key %s", id, ErrCorrupt, key.KeyID())
	}
	return key, dataKey, nil
}

// Rewrap moves a sealed key from one KEK to another: the data key is wrapped
// anew, the payload stays. The old bytes are opened in full before and the
// new ones after, and both must be the same key; on error the old bytes are
// what to keep. The errors are those of [Open], ErrWrongKEK for the old KEK.
//
// Since the payload stays, who has the old KEK and the old bytes can still
// read the key: a KEK that leaked calls for new keys, not for Rewrap.
func Rewrap(oldKEK, newKEK *KEK, sealedKey []byte) ([]byte, error) {
	s, err := parseSealed(sealedKey)
	if err != nil {
		return nil, err
	}
	k, err := newKEK.state()
	if err != nil {
		return nil, fmt.Errorf("rewrapping key: %w", err)
	}
	before, dataKey, err := s.open(oldKEK)
	defer clear(dataKey)
	if err != nil {
		return nil, err
	}
	out := assemble(k, s.prefix, dataKey, s.payload)
	after, err := Open(newKEK, s.purpose, out)
	if err != nil {
		return nil, fmt.Errorf("testing rewrapped key: %w", err)
	}
	if !bytes.Equal(before.k().spki, after.k().spki) {
		return nil, fmt.Errorf("testing rewrapped key: it became key %s", after.KeyID())
	}
	return out, nil
}
