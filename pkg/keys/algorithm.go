package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Bounds of an RSA modulus, in bits.
const (
	MinRSABits = 2048
	MaxRSABits = 8192
)

// ErrUnsupportedKey says that a key is of a kind or size that this package
// does not work with. It never says that the key is damaged.
var ErrUnsupportedKey = errors.New("unsupported key")

// Algorithm is the kind and size of a key. The zero value is [P256].
//
// An RSA algorithm has the bits of its modulus as its value, so that an
// imported key of an unusual size (2432, 8192) has a name too; only the named
// ones can be generated and parsed.
type Algorithm uint16

// Algorithms that can be generated.
const (
	P256    Algorithm = 0 // ECDSA on secp256r1, RFC 5480, Section 2.1.1.1
	P384    Algorithm = 1 // ECDSA on secp384r1
	P521    Algorithm = 2 // ECDSA on secp521r1
	Ed25519 Algorithm = 3 // RFC 8410

	RSA2048 Algorithm = 2048
	RSA3072 Algorithm = 3072
	RSA4096 Algorithm = 4096
)

var generable = [...]Algorithm{P256, P384, P521, Ed25519, RSA2048, RSA3072, RSA4096}

// Algorithms returns what [Generate] can make, in a fixed order, the default
// first. The slice is the caller's.
func Algorithms() []Algorithm {
	return slices.Clone(generable[:])
}

// String returns the text name: "p-256", "p-384", "p-521", "ed25519" or
// "rsa-" and the bits; "algorithm(N)" for a value that is none of them.
func (a Algorithm) String() string {
	switch {
	case a == P256:
		return "p-256"
	case a == P384:
		return "p-384"
	case a == P521:
		return "p-521"
	case a == Ed25519:
		return "ed25519"
	case a.IsRSA():
		return "rsa-" + strconv.Itoa(int(a))
	}
	return "algorithm(" + strconv.Itoa(int(a)) + ")"
}

// IsRSA tells whether a is RSA of any accepted size.
func (a Algorithm) IsRSA() bool {
	return a >= MinRSABits && a <= MaxRSABits
}

// ParseAlgorithm reads the text name of an algorithm that can be generated.
// Names are lower case; the error lists them.
func ParseAlgorithm(name string) (Algorithm, error) {
	names := make([]string, 0, len(generable))
	for _, a := range generable {
		if a.String() == name {
			return a, nil
		}
		names = append(names, a.String())
	}
	return 0, fmt.Errorf("key algorithm %q is none of %s", name, strings.Join(names, ", "))
}

// Title returns what people call the algorithm with this text name: "ECDSA P-256"
// for "p-256", "RSA 2048" for "rsa-2048", "Ed25519". Other names stay as they are.
func Title(name string) string {
	if bits, ok := strings.CutPrefix(name, "rsa-"); ok {
		return "RSA " + bits
	}
	switch name {
	case P256.String(), P384.String(), P521.String():
		return "ECDSA " + strings.ToUpper(name)
	case Ed25519.String():
		return "Ed25519"
	}
	return name
}

// MarshalText is String for encoders; it refuses values without a name.
func (a Algorithm) MarshalText() ([]byte, error) {
	if a > Ed25519 && !a.IsRSA() {
		return nil, fmt.Errorf("%v: %w", a, ErrUnsupportedKey)
	}
	return []byte(a.String()), nil
}

// UnmarshalText is [ParseAlgorithm] for decoders.
func (a *Algorithm) UnmarshalText(text []byte) error {
	parsed, err := ParseAlgorithm(string(text))
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}

// Generate makes a private key with crypto/rand. RSA takes from a tenth of a
// second to some seconds. The result is a plain key of the standard library:
// it prints its secret, so [Seal] it, or hold it as a [Key] by [New].
//
// It fails with ErrUnsupportedKey for an algorithm that [Algorithms] does not
// name. It is safe for concurrent use.
func Generate(alg Algorithm) (crypto.Signer, error) {
	switch alg {
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case P521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case Ed25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case RSA2048, RSA3072, RSA4096:
		return rsa.GenerateKey(rand.Reader, int(alg))
	}
	return nil, fmt.Errorf("generating %v: %w", alg, ErrUnsupportedKey)
}

// AlgorithmOf names the algorithm of a public key: *rsa.PublicKey of
// [MinRSABits] to [MaxRSABits], *ecdsa.PublicKey on a NIST curve of 256 bits
// and up, or ed25519.PublicKey; else ErrUnsupportedKey. It looks at kind and
// size only; [CheckPublicKey] looks at the key.
func AlgorithmOf(pub crypto.PublicKey) (Algorithm, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k == nil || k.Curve == nil {
			break
		}
		switch k.Curve {
		case elliptic.P256():
			return P256, nil
		case elliptic.P384():
			return P384, nil
		case elliptic.P521():
			return P521, nil
		}
		return 0, fmt.Errorf("%w: curve %s", ErrUnsupportedKey, k.Curve.Params().Name)
	case ed25519.PublicKey:
		return Ed25519, nil
	case *rsa.PublicKey:
		if k == nil || k.N == nil {
			break
		}
		if n := k.N.BitLen(); n >= MinRSABits && n <= MaxRSABits {
			return Algorithm(n), nil
		}
		return 0, fmt.Errorf("%w: RSA of %d bits", ErrUnsupportedKey, k.N.BitLen())
	}
	return 0, fmt.Errorf("%w: %T", ErrUnsupportedKey, pub)
}

// SPKIHash is the SHA-256 digest of a DER SubjectPublicKeyInfo (RFC 5280,
// Section 4.1.2.7).
func SPKIHash(spki []byte) [sha256.Size]byte {
	return sha256.Sum256(spki)
}

// KeyID is the name of a key in addresses and logs: the first 16 lower-case
// hex digits of its [SPKIHash].
func KeyID(spki []byte) string {
	hash := SPKIHash(spki)
	return keyID(hash)
}

func keyID(hash [sha256.Size]byte) string {
	return hex.EncodeToString(hash[:8])
}
