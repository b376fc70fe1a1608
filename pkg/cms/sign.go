package cms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"github.com/certwright/certwright/pkg/der"
)

// Signer signs messages with one key and its certificate. Make one with [NewSigner]. It is safe for concurrent use if
// its key is.
type Signer struct {
	key         crypto.Signer
	certificate []byte
	sid         []byte // DER of issuerAndSerialNumber
}

// NewSigner returns a signer for a key and its certificate. It keeps both. The key is RSA, ECDSA or Ed25519 and the one
// of the certificate, else it is an error.
func NewSigner(certificate *x509.Certificate, key crypto.Signer) (*Signer, error) {
	if certificate == nil || key == nil {
		return nil, errors.New("cms: a signer needs a certificate and a key")
	}
	sid, err := encodeIssuerAndSerial(certificate.Raw)
	if err != nil {
		return nil, err
	}
	switch public := key.Public().(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		if !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(certificate.PublicKey) {
			return nil, errors.New("cms: the signer's key is not the one of its certificate")
		}
	default:
		return nil, fmt.Errorf("cms: a %T does not sign", public)
	}
	return &Signer{key: key, certificate: certificate.Raw, sid: sid}, nil
}

func encodeIssuerAndSerial(certificate []byte) ([]byte, error) {
	issuer, serial, ok := issuerAndSerial(certificate)
	if !ok {
		return nil, errors.New("cms: a certificate's issuer and serial number cannot be read")
	}
	return sequence(issuer, appendTLV(nil, tagInteger, serial)), nil
}

// Attribute is a signed attribute to write.
type Attribute struct {
	typ   asn1.ObjectIdentifier
	value []byte // DER
	err   error
}

// PrintableStringAttribute returns an attribute of one PrintableString. Besides its alphabet * and & are written, since
// [Attributes.PrintableString] reads them and a transactionID goes back as it came.
func PrintableStringAttribute(typ asn1.ObjectIdentifier, value string) Attribute {
	a := Attribute{typ: typ, value: appendTLV(nil, tagPrintableString, []byte(value))}
	for i := range len(value) {
		if c := value[i]; !isPrintable(c) && c != '*' && c != '&' {
			a.err = fmt.Errorf("cms: attribute %v has a character that no PrintableString has", typ)
		}
	}
	return a
}

// OctetStringAttribute returns an attribute of one OCTET STRING.
func OctetStringAttribute(typ asn1.ObjectIdentifier, value []byte) Attribute {
	return Attribute{typ: typ, value: octetString(value)}
}

// UTF8StringAttribute returns an attribute of one UTF8String.
func UTF8StringAttribute(typ asn1.ObjectIdentifier, value string) Attribute {
	b, err := der.AppendUTF8String(nil, value)
	return Attribute{typ: typ, value: b, err: err}
}

// SigningTimeAttribute returns signingTime, in whole seconds.
func SigningTimeAttribute(t time.Time) Attribute {
	b, err := der.AppendTime(nil, t.Truncate(time.Second))
	return Attribute{typ: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}, value: b, err: err}
}

// SignedDataConfig is a message to sign.
type SignedDataConfig struct {
	// Content is the eContent, of type id-data. Nil and empty both make an empty OCTET STRING: certmonger and others break
	// on an absent one.
	Content []byte
	// Digest is SHA-1, SHA-256, SHA-384 or SHA-512; 0 is SHA-256. An Ed25519 key signs with SHA-512 whatever it is (RFC
	// 8419, Section 3.1).
	Digest crypto.Hash
	// Attributes are signed along with contentType and messageDigest, which are added.
	Attributes []Attribute
	// Certificates are the DER of the certificates to send, in this order. Nil sends the signer's alone; an empty slice
	// sends none.
	Certificates [][]byte
}

// Sign returns a ContentInfo with SignedData in DER (RFC 5652, Section 5). The signatureAlgorithm of an RSA key is
// rsaEncryption (RFC 3370, Section 3.2): strongSwan accepts nothing else. Errors are the configuration's or the key's.
func (s *Signer) Sign(c SignedDataConfig) ([]byte, error) {
	hash := c.Digest
	if hash == 0 {
		hash = crypto.SHA256
	}
	if _, ok := s.key.Public().(ed25519.PublicKey); ok {
		hash = crypto.SHA512
	}
	digest, ok := digestOID(hash)
	if !ok {
		return nil, fmt.Errorf("cms: %v is not a digest to sign with", hash)
	}
	attributes := make([][]byte, 0, len(c.Attributes)+2)
	attributes = append(attributes,
		encodeAttribute(oidContentType.encode(), oidData.encode()),
		encodeAttribute(oidMessageDigest.encode(), octetString(sum(hash, c.Content))))
	seen := map[oid]bool{oidContentType: true, oidMessageDigest: true}
	for _, a := range c.Attributes {
		if a.err != nil {
			return nil, a.err
		}
		id := oidOf(a.typ)
		if id == "" || seen[id] {
			return nil, fmt.Errorf("cms: attribute %v twice or not an OID", a.typ)
		}
		seen[id] = true
		attributes = append(attributes, encodeAttribute(id.encode(), a.value))
	}
	sortSet(attributes)
	set := setOf(attributes)
	signature, algorithm, err := s.sign(set, hash)
	if err != nil {
		return nil, err
	}
	set[0] = 0xa0 // from here on it is [0] IMPLICIT

	// RFC 5754, Section 2: parameters of SHA-2 are absent.
	digestAlgorithm := sequence(digest.encode())
	certificates := c.Certificates
	if certificates == nil {
		certificates = [][]byte{s.certificate}
	}
	parts := [][]byte{
		integer(1), // RFC 5652, Section 5.1: only X.509 certificates, issuerAndSerialNumber, id-data
		wrap(tagSet, digestAlgorithm),
		sequence(oidData.encode(), contextTag(0, octetString(c.Content))),
	}
	if len(certificates) > 0 {
		parts = append(parts, contextTag(0, certificates...))
	}
	info := sequence(integer(1), s.sid, digestAlgorithm, set, algorithm, octetString(signature))
	parts = append(parts, wrap(tagSet, info))
	return encodeContentInfo(oidSignedData, sequence(parts...)), nil
}

func encodeAttribute(id, value []byte) []byte { return sequence(id, wrap(tagSet, value)) }

// sign returns the signature over a message and the AlgorithmIdentifier that goes with it.
func (s *Signer) sign(message []byte, hash crypto.Hash) (signature, identifier []byte, err error) {
	toSign, options := sum(hash, message), crypto.SignerOpts(hash)
	switch s.key.Public().(type) {
	case *rsa.PublicKey:
		identifier = sequence(oidRSA.encode(), null)
	case *ecdsa.PublicKey:
		identifier = sequence(ecdsaWith(hash).encode())
	default: // Ed25519, see NewSigner
		identifier = sequence(oidEd25519.encode())
		toSign, options = message, crypto.Hash(0)
	}
	if signature, err = s.key.Sign(rand.Reader, toSign, options); err != nil {
		return nil, nil, fmt.Errorf("signing a CMS message: %w", err)
	}
	return signature, identifier, nil
}

func ecdsaWith(hash crypto.Hash) oid {
	switch hash {
	case crypto.SHA1:
		return oidECDSAWithSHA1
	case crypto.SHA384:
		return oidECDSAWithSHA384
	case crypto.SHA512:
		return oidECDSAWithSHA512
	}
	return oidECDSAWithSHA256
}

// CertificatesOnly returns a degenerate SignedData with certificates given as DER, in this order (RFC 5652, Section 5.1;
// RFC 8894, Section 3.4). For a CertRep the issued certificate comes first, or is the only one: some clients take the
// first.
func CertificatesOnly(certificates ...[]byte) []byte { return degenerate(0, certificates) }

// CRLsOnly returns a degenerate SignedData with CRLs given as DER (RFC 8894, Section 4.6.1).
func CRLsOnly(crls ...[]byte) []byte { return degenerate(1, crls) }

func degenerate(tag byte, list [][]byte) []byte {
	return encodeContentInfo(oidSignedData, sequence(
		integer(1),
		[]byte{tagSet, 0},
		sequence(oidData.encode()),
		contextTag(tag, list...),
		[]byte{tagSet, 0},
	))
}
