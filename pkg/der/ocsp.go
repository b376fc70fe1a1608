package der

import (
	"crypto"
	_ "crypto/sha1" // registers SHA-1, the KeyHash of RFC 6960
	"fmt"
	"slices"
	"time"
)

// Unsigned OCSP answers, complete OCSPResponses in DER (RFC 6960, Section
// 4.2.1). Code 4 is unused by the RFC.
const (
	OCSPMalformedRequest = "\x30\x03\x0a\x01\x01"
	OCSPInternalError    = "\x30\x03\x0a\x01\x02"
	OCSPTryLater         = "\x30\x03\x0a\x01\x03"
	OCSPSigRequired      = "\x30\x03\x0a\x01\x05"
	OCSPUnauthorized     = "\x30\x03\x0a\x01\x06"
)

// CertStatus is the status in an OCSP answer: the identifier octet of the
// choice in RFC 6960, Section 4.2.1. The zero value is none of them and is
// refused, so that a forgotten field never says good.
type CertStatus uint8

// The choices of CertStatus.
const (
	CertStatusGood    CertStatus = 0x80
	CertStatusRevoked CertStatus = 0xa1
	CertStatusUnknown CertStatus = 0x82
)

// String returns the RFC's name of the status.
func (s CertStatus) String() string {
	switch s {
	case CertStatusGood:
		return "good"
	case CertStatusRevoked:
		return "revoked"
	case CertStatusUnknown:
		return "unknown"
	}
	return fmt.Sprintf("CertStatus %#x", uint8(s))
}

// PublicKeyHash returns the hash of a public key as OCSP uses it: of the
// subjectPublicKey without tag, length and number of unused bits (RFC 6960,
// Section 4.1.1). Other hashes than SHA-1, SHA-256, SHA-384 and SHA-512, and
// what is no SubjectPublicKeyInfo, are a *ValueError.
func PublicKeyHash(hash crypto.Hash, spki []byte) ([]byte, error) {
	if _, err := hashIdentifier(hash); err != nil {
		return nil, err
	}
	key, ok := publicKeyBits(spki)
	if !ok {
		return nil, invalid("subjectPublicKeyInfo", "not the DER of a SubjectPublicKeyInfo")
	}
	h := hash.New()
	h.Write(key)
	return h.Sum(nil), nil
}

// hashIdentifier returns the DER of an AlgorithmIdentifier with NULL
// parameters, which is how OpenSSL, Go and most clients write a CertID.
func hashIdentifier(hash crypto.Hash) (string, error) {
	switch hash {
	case crypto.SHA1:
		return "\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00", nil
	case crypto.SHA256:
		return "\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00", nil
	case crypto.SHA384:
		return "\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00", nil
	case crypto.SHA512:
		return "\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00", nil
	}
	return "", invalid("hashAlgorithm", "not SHA-1, SHA-256, SHA-384 or SHA-512")
}

// CertID names a certificate in OCSP (RFC 6960, Section 4.1.1).
type CertID struct {
	Hash crypto.Hash
	// IssuerNameHash is the hash of the DER of the issuer's Name,
	// IssuerKeyHash that of its key (see [PublicKeyHash]).
	IssuerNameHash, IssuerKeyHash []byte
	// SerialNumber holds content octets as in [CertificateFields].
	SerialNumber []byte
}

// AppendCertID appends a CertID. Hashes of another length than the algorithm's
// and a bad serial number are a *ValueError.
func AppendCertID(dst []byte, id *CertID) ([]byte, error) {
	algorithm, err := hashIdentifier(id.Hash)
	if err != nil {
		return nil, err
	}
	if len(id.IssuerNameHash) != id.Hash.Size() || len(id.IssuerKeyHash) != id.Hash.Size() {
		return nil, invalid("issuerNameHash, issuerKeyHash", "not of the hash's length")
	}
	if err := checkSerialNumber(id.SerialNumber); err != nil {
		return nil, err
	}
	dst = AppendHeader(dst, tagSequence, len(algorithm)+2*SizeTLV(id.Hash.Size())+SizeTLV(len(id.SerialNumber)))
	dst = append(dst, algorithm...)
	dst = AppendOctetString(dst, id.IssuerNameHash)
	dst = AppendOctetString(dst, id.IssuerKeyHash)
	return AppendTLV(dst, tagInteger, id.SerialNumber), nil
}

// SingleResponse is the answer for one certificate (RFC 6960, Section 4.2.1).
type SingleResponse struct {
	// CertID is DER: the octets of the request, copied, or from AppendCertID.
	CertID []byte
	// Status must be one of the three.
	Status CertStatus
	// RevocationTime in whole seconds and Reason, a CRLReason by its number (0
	// to 10 without 7), are written only for a revoked certificate. Reason 0,
	// unspecified, is left out, as in CRLs.
	RevocationTime time.Time
	Reason         int
	// ThisUpdate in whole seconds, and NextUpdate, later, or zero for none.
	ThisUpdate, NextUpdate time.Time
}

// ResponseData is what differs from answer to answer. Nothing is kept after
// [OCSPTemplate.AppendResponseData] returns.
type ResponseData struct {
	// ProducedAt in whole seconds.
	ProducedAt time.Time
	// Responses, in the order of the request; at least one.
	Responses []SingleResponse
	// Nonce is the value (the content of extnValue) of the request's nonce
	// extension, echoed byte for byte; nil for none. A nonce has 1 to 128
	// octets (RFC 9654, Section 2.1), so its value at most 131.
	Nonce []byte
}

// OCSPConfig is everything the answers of one responder key have in common.
// [NewOCSPTemplate] copies what it needs.
type OCSPConfig struct {
	// SignatureAlgorithm of the responder's key. Required.
	SignatureAlgorithm *SignatureAlgorithm
	// ResponderPublicKeyInfo is the SubjectPublicKeyInfo of the responder, from
	// which the responderID byKey is made. Required.
	ResponderPublicKeyInfo []byte
	// Certificates in DER are embedded in each answer, the responder's own
	// first; none leaves the field out.
	Certificates [][]byte
}

// OCSPTemplate encodes the answers of one responder key. It does not change
// once made and is safe for concurrent use.
type OCSPTemplate struct {
	algorithm    *SignatureAlgorithm
	responderID  []byte
	certificates []byte // [0] EXPLICIT SEQUENCE OF Certificate, may be empty
}

// NewOCSPTemplate checks the configuration and encodes what is constant. What
// does not fit is a *ValueError.
func NewOCSPTemplate(c OCSPConfig) (*OCSPTemplate, error) {
	if c.SignatureAlgorithm == nil {
		return nil, invalid("signatureAlgorithm", "absent")
	}
	// RFC 6960, Section 4.2.1: KeyHash is the SHA-1 of the responder's key.
	keyHash, err := PublicKeyHash(crypto.SHA1, c.ResponderPublicKeyInfo)
	if err != nil {
		return nil, err
	}
	t := &OCSPTemplate{
		algorithm:   c.SignatureAlgorithm,
		responderID: AppendTLV(nil, 0xa2, AppendOctetString(nil, keyHash)),
	}
	var certificates []byte
	for _, certificate := range c.Certificates {
		if content, ok := onlyElement(certificate, tagSequence); !ok || !wellFormed(content, 1) {
			return nil, invalid("certs", "not the DER of a Certificate")
		}
		certificates = append(certificates, certificate...)
	}
	if len(certificates) > 0 {
		t.certificates = AppendTLV(nil, 0xa0, AppendTLV(nil, tagSequence, certificates))
	}
	return t, nil
}

// SignatureAlgorithm returns the algorithm the template names, which must be
// the one that signs.
func (t *OCSPTemplate) SignatureAlgorithm() *SignatureAlgorithm { return t.algorithm }

// AppendResponseData appends a ResponseData, the signed part of an answer (RFC
// 6960, Section 4.2.1). Nothing to answer, or a value its comment does not
// allow, is a *ValueError. It allocates only when dst has no room.
func (t *OCSPTemplate) AppendResponseData(dst []byte, d *ResponseData) ([]byte, error) {
	if len(d.Responses) == 0 {
		return nil, invalid("responses", "none")
	}
	responses := 0
	for i := range d.Responses {
		if err := d.Responses[i].check(); err != nil {
			return nil, err
		}
		responses += SizeTLV(d.Responses[i].size())
	}
	const generalizedTime = 17
	n := len(t.responderID) + generalizedTime + SizeTLV(responses)
	nonce := 0
	if d.Nonce != nil {
		if len(d.Nonce) < 1 || len(d.Nonce) > 131 {
			return nil, invalid("nonce", "value is not 1 to 131 octets")
		}
		nonce = sizeExtension(extOCSPNonce, false, len(d.Nonce))
		n += SizeTLV(SizeTLV(nonce))
	}

	dst = slices.Grow(dst, SizeTLV(n))
	dst = AppendHeader(dst, tagSequence, n) // version is DEFAULT v1
	dst = append(dst, t.responderID...)
	dst, err := AppendGeneralizedTime(dst, d.ProducedAt)
	if err != nil {
		return nil, fmt.Errorf("producedAt: %w", err)
	}
	dst = AppendHeader(dst, tagSequence, responses)
	for i := range d.Responses {
		if dst, err = d.Responses[i].append(dst); err != nil {
			return nil, err
		}
	}
	if d.Nonce != nil {
		dst = AppendHeader(dst, 0xa1, SizeTLV(nonce))
		dst = AppendHeader(dst, tagSequence, nonce)
		dst = appendExtension(dst, extOCSPNonce, false, d.Nonce)
	}
	return dst, nil
}

// check refuses what may not stand in an answer, except for the form of times.
func (r *SingleResponse) check() error {
	if content, ok := onlyElement(r.CertID, tagSequence); !ok || !wellFormed(content, 1) {
		return invalid("certID", "not the DER of a CertID")
	}
	switch r.Status {
	case CertStatusGood, CertStatusUnknown:
	case CertStatusRevoked:
		if r.Reason < 0 || r.Reason == 7 || r.Reason > 10 {
			return invalid("revocationReason", "not defined")
		}
	default:
		return invalid("certStatus", "none of good, revoked, unknown")
	}
	if !r.NextUpdate.IsZero() && !r.NextUpdate.After(r.ThisUpdate) {
		return invalid("nextUpdate", "not after thisUpdate")
	}
	return nil
}

// size returns the number of content octets.
func (r *SingleResponse) size() int {
	n := len(r.CertID) + 2 + 17 // status without content, thisUpdate
	if r.Status == CertStatusRevoked {
		n += r.revokedSize()
	}
	if !r.NextUpdate.IsZero() {
		n += SizeTLV(17)
	}
	return n
}

func (r *SingleResponse) revokedSize() int {
	if r.Reason == 0 {
		return 17
	}
	return 17 + 5
}

func (r *SingleResponse) append(dst []byte) ([]byte, error) {
	var err error
	dst = AppendHeader(dst, tagSequence, r.size())
	dst = append(dst, r.CertID...)
	if r.Status != CertStatusRevoked {
		dst = append(dst, byte(r.Status), 0)
	} else {
		dst = AppendHeader(dst, byte(r.Status), r.revokedSize())
		if dst, err = AppendGeneralizedTime(dst, r.RevocationTime); err != nil {
			return nil, fmt.Errorf("revocationTime: %w", err)
		}
		if r.Reason != 0 {
			dst = append(dst, 0xa0, 3, tagEnumerated, 1, byte(r.Reason))
		}
	}
	if dst, err = AppendGeneralizedTime(dst, r.ThisUpdate); err != nil {
		return nil, fmt.Errorf("thisUpdate: %w", err)
	}
	if r.NextUpdate.IsZero() {
		return dst, nil
	}
	dst = AppendHeader(dst, 0xa0, 17)
	if dst, err = AppendGeneralizedTime(dst, r.NextUpdate); err != nil {
		return nil, fmt.Errorf("nextUpdate: %w", err)
	}
	return dst, nil
}

func (t *OCSPTemplate) basicSize(data, signature []byte) int {
	return len(data) + len(t.algorithm.identifier) + SizeTLV(len(signature)+1) + len(t.certificates)
}

// AppendBasicOCSPResponse appends a BasicOCSPResponse (RFC 6960, Section 4.2.1):
// the ResponseData, the signature over exactly these octets and the embedded
// certificates.
func (t *OCSPTemplate) AppendBasicOCSPResponse(dst, data, signature []byte) []byte {
	return append(t.appendSigned(dst, data, signature), t.certificates...)
}

// appendSigned appends a BasicOCSPResponse up to the embedded certificates.
func (t *OCSPTemplate) appendSigned(dst, data, signature []byte) []byte {
	dst = AppendHeader(dst, tagSequence, t.basicSize(data, signature))
	dst = append(dst, data...)
	dst = append(dst, t.algorithm.identifier...)
	return AppendBitString(dst, signature)
}

// AppendOCSPResponse appends a complete, successful OCSPResponse around the
// BasicOCSPResponse of the same arguments: what goes to the client.
func (t *OCSPTemplate) AppendOCSPResponse(dst, data, signature []byte) []byte {
	return append(t.AppendOCSPResponseHead(dst, data, signature), t.certificates...)
}

// AppendOCSPResponseHead appends an OCSPResponse without its end, which is the
// same for all of a template: see [OCSPTemplate.Certificates]. Who keeps many
// keeps that only once.
func (t *OCSPTemplate) AppendOCSPResponseHead(dst, data, signature []byte) []byte {
	const successful = "\x0a\x01\x00"
	basic := SizeTLV(t.basicSize(data, signature))
	responseBytes := len(oidOCSPBasic) + SizeTLV(basic)
	n := len(successful) + SizeTLV(SizeTLV(responseBytes))
	dst = slices.Grow(dst, SizeTLV(n)-len(t.certificates))
	dst = AppendHeader(dst, tagSequence, n)
	dst = append(dst, successful...)
	dst = AppendHeader(dst, 0xa0, SizeTLV(responseBytes))
	dst = AppendHeader(dst, tagSequence, responseBytes)
	dst = append(dst, oidOCSPBasic...)
	dst = AppendHeader(dst, tagOctetString, basic)
	return t.appendSigned(dst, data, signature)
}

// Certificates returns the last octets of each OCSPResponse, certs of
// BasicOCSPResponse with its tag. They are the template's own and must not be
// written to.
func (t *OCSPTemplate) Certificates() []byte { return t.certificates }
