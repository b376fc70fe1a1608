package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// MaxPEMBytes bounds a private key file, chain and comments included.
const MaxPEMBytes = 1 << 20

var (
	// ErrNoPrivateKey says that PEM text holds no private key that can be
	// read; the message says what it holds instead.
	ErrNoPrivateKey = errors.New("no private key")

	// ErrEncryptedKey says that the private key is protected by a passphrase.
	ErrEncryptedKey = errors.New("private key is encrypted")
)

// MarshalPrivateKeyPEM encodes a private key of the standard library as
// PKCS#8 in PEM (RFC 7468, Section 10). A [Key] is refused with
// ErrUnsupportedKey: what was sealed stays in this package. The result is
// secret; the caller clears it after use.
func MarshalPrivateKeyPEM(signer crypto.Signer) ([]byte, error) {
	switch signer.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
	default:
		return nil, fmt.Errorf("encoding private key: %w: %T", ErrUnsupportedKey, signer)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, fmt.Errorf("encoding private key: %w", err)
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParsePrivateKeyPEM reads the one private key in PEM text: PKCS#8, SEC 1
// (RFC 5915) or PKCS#1 (RFC 8017, Appendix A.1.2). EC parameters,
// certificates and text beside it are passed over. Two private keys are an
// error. No key is ErrNoPrivateKey, an encrypted one ErrEncryptedKey, a kind
// that [AlgorithmOf] does not name ErrUnsupportedKey. Whether the key is a
// good one is for [CheckPublicKey].
func ParsePrivateKeyPEM(data []byte) (crypto.Signer, error) {
	if len(data) > MaxPEMBytes {
		return nil, fmt.Errorf("PEM text is longer than %d octets", MaxPEMBytes)
	}
	var found crypto.Signer
	var others []string
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		signer, err := parsePrivateKeyBlock(block)
		clear(block.Bytes)
		if err != nil {
			return nil, err
		}
		switch {
		case signer == nil:
			if block.Type != "EC PARAMETERS" {
				others = append(others, block.Type)
			}
		case found != nil:
			return nil, errors.New("PEM text holds more than one private key")
		default:
			found = signer
		}
	}
	switch {
	case found != nil:
		return found, nil
	case len(others) > 0:
		return nil, fmt.Errorf("%w: PEM text holds %s", ErrNoPrivateKey, strings.ToLower(others[0]))
	}
	return nil, fmt.Errorf("%w: this is not PEM text", ErrNoPrivateKey)
}

// parsePrivateKeyBlock returns a nil signer for a block that is no private
// key.
func parsePrivateKeyBlock(block *pem.Block) (crypto.Signer, error) {
	var private any
	var err error
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, fmt.Errorf("%w: decrypt it first, for example with openssl pkey", ErrEncryptedKey)
	case block.Type == "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, fmt.Errorf("%w: %s is not read, convert it to PKCS#8", ErrUnsupportedKey, strings.ToLower(block.Type))
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("parsing private key: %w", err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: %T cannot sign", ErrUnsupportedKey, private)
	}
	if _, err := AlgorithmOf(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}

// ReadPrivateKeyPEM reads a private key file as [ParsePrivateKeyPEM] does.
// It must be a regular file of at most [MaxPEMBytes]. Links are followed and
// rights not looked at: it is for files that a person brings.
func ReadPrivateKeyPEM(path string) (crypto.Signer, error) {
	data, err := readFile(path, MaxPEMBytes, nil)
	if err != nil {
		return nil, fmt.Errorf("reading private key: %w", err)
	}
	defer clear(data)
	signer, err := ParsePrivateKeyPEM(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return signer, nil
}
