package der

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // registers SHA-384 and SHA-512
	"errors"
	"fmt"
	"io"
)

// SignatureAlgorithm is how an issuer key signs. [SignatureAlgorithmFor]
// returns the one of a key; there is one value per algorithm, so == compares
// them, and all are safe for concurrent use.
type SignatureAlgorithm struct {
	name       string
	identifier string      // DER of the AlgorithmIdentifier
	hash       crypto.Hash // 0: the whole message is signed
}

// The algorithm table. A further one, such as ML-DSA (RFC 9881: pure mode,
// parameters absent, so hash is 0), is a row here and a case in
// SignatureAlgorithmFor.
var (
	// RFC 4055, Section 5: sha256WithRSAEncryption, parameters NULL.
	sha256WithRSA = &SignatureAlgorithm{"SHA256-RSA", "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00", crypto.SHA256}
	// RFC 5758, Section 3.2: ecdsa-with-SHA256, -SHA384, -SHA512, parameters absent.
	ecdsaWithSHA256 = &SignatureAlgorithm{"ECDSA-SHA256", "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", crypto.SHA256}
	ecdsaWithSHA384 = &SignatureAlgorithm{"ECDSA-SHA384", "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03", crypto.SHA384}
	ecdsaWithSHA512 = &SignatureAlgorithm{"ECDSA-SHA512", "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04", crypto.SHA512}
	// RFC 8410, Section 3: id-Ed25519, parameters absent.
	pureEd25519 = &SignatureAlgorithm{"Ed25519", "\x30\x05\x06\x03\x2b\x65\x70", 0}
)

// SignatureAlgorithmFor returns the algorithm a key of this type signs with:
// RSA PKCS #1 v1.5 with SHA-256, ECDSA with the hash of the curve's strength
// (P-256 SHA-256, P-384 SHA-384, P-521 SHA-512), or Ed25519. Other keys are a
// *ValueError. The key itself is not judged; that is for the profile.
func SignatureAlgorithmFor(pub crypto.PublicKey) (*SignatureAlgorithm, error) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub == nil {
			break
		}
		switch pub.Curve {
		case elliptic.P256():
			return ecdsaWithSHA256, nil
		case elliptic.P384():
			return ecdsaWithSHA384, nil
		case elliptic.P521():
			return ecdsaWithSHA512, nil
		}
	case *rsa.PublicKey:
		return sha256WithRSA, nil
	case ed25519.PublicKey:
		return pureEd25519, nil
	}
	return nil, invalid("signatureAlgorithm", fmt.Sprintf("no algorithm for a %T", pub))
}

// String returns the name crypto/x509 prints, such as "ECDSA-SHA256".
func (a *SignatureAlgorithm) String() string { return a.name }

// Identifier returns a copy of the DER of the AlgorithmIdentifier.
func (a *SignatureAlgorithm) Identifier() []byte { return []byte(a.identifier) }

// Hash returns the hash that is signed, or 0 when the whole message is.
func (a *SignatureAlgorithm) Hash() crypto.Hash { return a.hash }

// Sign hashes tbs and signs it, once: the signature is not verified afterwards,
// which is two thirds of what crypto/x509 spends on a certificate. (crypto/rsa
// itself checks its result against faults.) It is an error when the signer's
// public key is not of this algorithm. rand is handed to the signer.
func (a *SignatureAlgorithm) Sign(rand io.Reader, signer crypto.Signer, tbs []byte) ([]byte, error) {
	switch a.hash {
	case 0:
		return a.sign(rand, signer, tbs)
	case crypto.SHA256:
		digest := sha256.Sum256(tbs)
		return a.sign(rand, signer, digest[:])
	}
	h := a.hash.New()
	h.Write(tbs)
	return a.sign(rand, signer, h.Sum(nil))
}

// sign signs a digest, or the message when the algorithm hashes none.
func (a *SignatureAlgorithm) sign(rand io.Reader, signer crypto.Signer, message []byte) ([]byte, error) {
	if signer == nil {
		return nil, invalid("signer", "absent")
	}
	// A certificate that names another algorithm than its signature's would be
	// refused everywhere, and nothing after this line would notice.
	if own, err := SignatureAlgorithmFor(signer.Public()); err != nil {
		return nil, err
	} else if own != a {
		return nil, invalid("signatureAlgorithm", a.name+" does not fit the signer's key")
	}
	signature, err := signer.Sign(rand, message, a.hash)
	if err != nil {
		return nil, fmt.Errorf("signing with %s: %w", a.name, err)
	}
	if len(signature) == 0 {
		return nil, errors.New("signing with " + a.name + ": the signer returned no signature")
	}
	return signature, nil
}

// AppendSigned appends SEQUENCE { tbs, signatureAlgorithm, BIT STRING }: a
// Certificate (RFC 5280, Section 4.1) or a CertificateList from its signed
// part and the signature over exactly these octets.
func AppendSigned(dst, tbs []byte, a *SignatureAlgorithm, signature []byte) []byte {
	dst = AppendHeader(dst, tagSequence, len(tbs)+len(a.identifier)+SizeTLV(len(signature)+1))
	dst = append(dst, tbs...)
	dst = append(dst, a.identifier...)
	return AppendBitString(dst, signature)
}

// SubjectKeyID returns the 20 octets of a key identifier by RFC 7093, Section
// 2, method 1: the leftmost 160 bits of the SHA-256 of the subjectPublicKey's
// content. It is nil when spki is not the DER of a SubjectPublicKeyInfo.
func SubjectKeyID(spki []byte) []byte {
	key, ok := publicKeyBits(spki)
	if !ok {
		return nil
	}
	sum := sha256.Sum256(key)
	return append([]byte(nil), sum[:20]...)
}
