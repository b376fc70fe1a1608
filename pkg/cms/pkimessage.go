package cms

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Attributes of SCEP (RFC 8894, Sections 3.2.1 and 3.2.1.4.1).
var (
	OIDMessageType    = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 2}
	OIDPKIStatus      = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 3}
	OIDFailInfo       = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 4}
	OIDSenderNonce    = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 5}
	OIDRecipientNonce = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 6}
	OIDTransactionID  = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 7}
	OIDFailInfoText   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 24, 1}
)

// NonceBytes is the length of senderNonce and recipientNonce (RFC 8894, Section 3.2.1.5).
const NonceBytes = 16

// maxNonceBytes bounds a nonce of a wrong length that an answer repeats.
const maxNonceBytes = 64

// maxTransactionIDBytes is far beyond what clients send: hashes in hexadecimal or base64.
const maxTransactionIDBytes = 255

// MessageType is the messageType of a pkiMessage (RFC 8894, Section 3.2.1.2).
type MessageType int

// The message types. Other numbers are to be refused.
const (
	CertRep    MessageType = 3
	RenewalReq MessageType = 17
	PKCSReq    MessageType = 19
	CertPoll   MessageType = 20
	GetCert    MessageType = 21
	GetCRL     MessageType = 22
)

// String returns the RFC's name, or "messageType(N)".
func (t MessageType) String() string {
	switch t {
	case CertRep:
		return "CertRep"
	case RenewalReq:
		return "RenewalReq"
	case PKCSReq:
		return "PKCSReq"
	case CertPoll:
		return "CertPoll"
	case GetCert:
		return "GetCert"
	case GetCRL:
		return "GetCRL"
	}
	return "messageType(" + strconv.Itoa(int(t)) + ")"
}

// PKIStatus is the pkiStatus of a CertRep (RFC 8894, Section 3.2.1.3).
type PKIStatus int

// The states. 1 is not used by the RFC.
const (
	Success PKIStatus = 0
	Failure PKIStatus = 2
	Pending PKIStatus = 3
)

// String returns the RFC's word, or "pkiStatus(N)".
func (s PKIStatus) String() string {
	switch s {
	case Success:
		return "SUCCESS"
	case Failure:
		return "FAILURE"
	case Pending:
		return "PENDING"
	}
	return "pkiStatus(" + strconv.Itoa(int(s)) + ")"
}

// FailInfo is the failInfo of a CertRep (RFC 8894, Section 3.2.1.4).
type FailInfo int

// The reasons for a failure; there are no others.
const (
	BadAlg          FailInfo = 0 // unrecognized or unsupported algorithm
	BadMessageCheck FailInfo = 1 // integrity check failed: signature, or decryption
	BadRequest      FailInfo = 2 // transaction not permitted or supported
	BadTime         FailInfo = 3 // signingTime too far from the server's time
	BadCertID       FailInfo = 4 // no certificate matches
)

// String returns the RFC's name, or "failInfo(N)".
func (f FailInfo) String() string {
	names := [...]string{"badAlg", "badMessageCheck", "badRequest", "badTime", "badCertId"}
	if f >= 0 && int(f) < len(names) {
		return names[f]
	}
	return "failInfo(" + strconv.Itoa(int(f)) + ")"
}

// PKIMessage is a parsed pkiMessage (RFC 8894, Section 3). Nothing of it is verified before [PKIMessage.Verify].
type PKIMessage struct {
	// Signed is the message as SignedData. Its Content is the pkcsPKIEnvelope, empty or nil if there is none.
	Signed *SignedData

	// TransactionID is never empty, at most 255 characters of PrintableString.
	TransactionID string
	// MessageType is whatever number was sent, and 0 if it is absent or no number.
	MessageType MessageType
	// SenderNonce is what was sent, for an answer to repeat: 16 octets, else [PKIMessage.Verify] fails. It is nil if it is
	// absent, or nothing that can be repeated.
	SenderNonce []byte
	// RecipientNonce has 16 octets, or is nil if it is absent or wrong.
	RecipientNonce []byte
	// SigningTime is in UTC, and zero if it is absent or wrong.
	SigningTime time.Time

	// PKIStatus, FailInfo and FailInfoText are those of a CertRep. FailInfo means something with Failure only.
	PKIStatus    PKIStatus
	FailInfo     FailInfo
	FailInfoText string

	signer   *x509.Certificate // nil if unsigned is not
	unsigned error             // why there is no signature that could be verified
	problem  error             // the first thing that is wrong with the attributes
}

// ParsePKIMessage reads a pkiMessage. An error, a fault that wraps ErrMalformed, says that there is nothing that could
// be answered: no SignedData, or no signerInfo with a transactionID. Whatever else is wrong [PKIMessage.Verify] tells.
func ParsePKIMessage(b []byte, l Limits) (*PKIMessage, error) {
	sd, err := ParseSignedData(b, l)
	if err != nil {
		return nil, err
	}
	if len(sd.Signers) == 0 {
		return nil, malformed("the message has no signerInfo")
	}
	m := &PKIMessage{Signed: sd}
	a := sd.Signers[0].Attributes
	if m.TransactionID, err = a.PrintableString(OIDTransactionID); err != nil {
		return nil, malformed("the transactionID is absent or no PrintableString")
	}
	if n := len(m.TransactionID); n == 0 || n > maxTransactionIDBytes {
		return nil, malformed("the transactionID has %d characters, want 1 to %d", n, maxTransactionIDBytes)
	}
	m.readAttributes(a)
	// RFC 8894, Section 3.1: one signer, whose certificate comes along, and content of type id-data.
	if _, m.signer, m.unsigned = sd.Signer(); m.unsigned == nil && !sd.IsData() {
		m.unsigned = malformed("the content type of the pkiMessage is %v, want %v", sd.contentType, oidData)
	}
	return m, nil
}

func (m *PKIMessage) readAttributes(a Attributes) {
	note := func(err error) {
		if err != nil && m.problem == nil {
			m.problem = err
		}
	}
	// number reads a decimal number in a PrintableString.
	number := func(typ asn1.ObjectIdentifier, name string, required bool) int {
		s, err := a.PrintableString(typ)
		if errors.Is(err, ErrAbsent) && !required {
			return 0
		}
		n, convErr := strconv.Atoi(s)
		// No signs, no leading zeros: one number has one form.
		if err != nil || convErr != nil || n < 0 || strconv.Itoa(n) != s {
			note(malformed("%s is absent or no number in a PrintableString", name))
			return 0
		}
		return n
	}
	nonce := func(typ asn1.ObjectIdentifier, name string, required bool) []byte {
		b, err := a.OctetString(typ)
		if errors.Is(err, ErrAbsent) && !required {
			return nil
		}
		if err != nil || len(b) != NonceBytes {
			note(malformed("%s is absent or not %d octets", name, NonceBytes))
		}
		if len(b) == 0 || len(b) > maxNonceBytes {
			return nil
		}
		return b
	}
	var err error
	m.MessageType = MessageType(number(OIDMessageType, "messageType", true))
	isCertRep := m.MessageType == CertRep
	m.SenderNonce = nonce(OIDSenderNonce, "senderNonce", true)
	m.RecipientNonce = nonce(OIDRecipientNonce, "recipientNonce", isCertRep)
	if m.SigningTime, err = a.SigningTime(); err != nil && !errors.Is(err, ErrAbsent) {
		note(err)
	}
	if !isCertRep {
		return
	}
	m.PKIStatus = PKIStatus(number(OIDPKIStatus, "pkiStatus", true))
	switch m.PKIStatus {
	case Success, Pending:
	case Failure:
		m.FailInfo = FailInfo(number(OIDFailInfo, "failInfo", true))
		if m.FailInfo < BadAlg || m.FailInfo > BadCertID {
			note(malformed("%v is not one of the RFC's", m.FailInfo))
		}
		if m.FailInfoText, err = a.UTF8String(OIDFailInfoText); err != nil && !errors.Is(err, ErrAbsent) {
			note(err)
		}
	default:
		note(malformed("%v is not one of the RFC's", m.PKIStatus))
	}
}

// Verify checks the signature as [SignedData.Verify] does, and then that the attributes that the RFC demands are there
// and of the right form. It returns the signer's certificate, which nobody has judged. Errors are faults that wrap
// ErrMalformed, ErrAlgorithm or ErrSignature.
func (m *PKIMessage) Verify(o VerifyOptions) (*x509.Certificate, error) {
	if m.unsigned != nil {
		return nil, m.unsigned
	}
	if err := m.Signed.Signers[0].verify(m.signer, m.Signed, o); err != nil {
		return nil, err
	}
	if m.problem != nil {
		return nil, m.problem
	}
	return m.signer, nil
}

// SignerCertificate returns the certificate that came with the signature. Nobody has verified either. It is nil if
// [PKIMessage.Verify] fails for lack of one.
func (m *PKIMessage) SignerCertificate() *x509.Certificate { return m.signer }

// Digest returns the digest of the signature, for an answer in kind; 0 for an unknown one.
func (m *PKIMessage) Digest() crypto.Hash { return m.Signed.Signers[0].Digest() }

// IsSelfSigned tells whether a certificate names itself as its issuer and is signed by its own key: what a client
// makes to sign its first request with (RFC 8894, Section 2.3). A signature that cannot be checked is not looked at: old
// devices make it with MD5, and it would prove no more than the message's does, which is by the same key.
func IsSelfSigned(c *x509.Certificate) bool {
	if !bytes.Equal(c.RawSubject, c.RawIssuer) {
		return false
	}
	err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	_, insecure := errors.AsType[x509.InsecureAlgorithmError](err)
	return err == nil || insecure || errors.Is(err, x509.ErrUnsupportedAlgorithm)
}

// PKIMessageConfig is a pkiMessage to sign.
type PKIMessageConfig struct {
	// TransactionID is copied from the request in an answer. Required.
	TransactionID string
	// MessageType is required.
	MessageType MessageType
	// SenderNonce has 16 octets; nil draws them.
	SenderNonce []byte
	// RecipientNonce is the senderNonce of the request, whatever its length. Required in a CertRep, forbidden elsewhere.
	RecipientNonce []byte
	// SigningTime is sent if it is not zero.
	SigningTime time.Time

	// PKIStatus is sent in a CertRep.
	PKIStatus PKIStatus
	// FailInfo is sent with Failure.
	FailInfo FailInfo
	// FailInfoText is sent with Failure if it is not empty; it is cut to 255 octets.
	FailInfoText string

	// Envelope is the pkcsPKIEnvelope: required in a CertRep with Success, forbidden with Failure and Pending, which have an
	// empty OCTET STRING instead (RFC 8894, Section 3: it is left out; certmonger breaks if nothing takes its place).
	Envelope []byte
	// Digest as in [SignedDataConfig].
	Digest crypto.Hash
	// Certificates as in [SignedDataConfig].
	Certificates [][]byte
}

// SignPKIMessage returns a pkiMessage in DER. Errors are those of the configuration or the key.
func (s *Signer) SignPKIMessage(c PKIMessageConfig) ([]byte, error) {
	if n := len(c.TransactionID); n == 0 || n > maxTransactionIDBytes {
		return nil, errors.New("cms: a pkiMessage needs a transactionID")
	}
	nonce := c.SenderNonce
	if nonce == nil {
		nonce = make([]byte, NonceBytes)
		_, _ = rand.Read(nonce)
	}
	isCertRep := c.MessageType == CertRep
	if len(nonce) != NonceBytes || isCertRep && (len(c.RecipientNonce) == 0 || len(c.RecipientNonce) > maxNonceBytes) || !isCertRep && c.RecipientNonce != nil {
		return nil, fmt.Errorf("cms: the nonces of a %v are not as they must be", c.MessageType)
	}
	if hasEnvelope := len(c.Envelope) > 0; isCertRep && hasEnvelope != (c.PKIStatus == Success) {
		return nil, fmt.Errorf("cms: a CertRep with %v and an envelope of %d octets", c.PKIStatus, len(c.Envelope))
	}
	attributes := []Attribute{
		PrintableStringAttribute(OIDTransactionID, c.TransactionID),
		PrintableStringAttribute(OIDMessageType, strconv.Itoa(int(c.MessageType))),
		OctetStringAttribute(OIDSenderNonce, nonce),
	}
	if !c.SigningTime.IsZero() {
		attributes = append(attributes, SigningTimeAttribute(c.SigningTime))
	}
	if isCertRep {
		attributes = append(attributes,
			OctetStringAttribute(OIDRecipientNonce, c.RecipientNonce),
			PrintableStringAttribute(OIDPKIStatus, strconv.Itoa(int(c.PKIStatus))))
		switch c.PKIStatus {
		case Success, Pending:
		case Failure:
			if c.FailInfo < BadAlg || c.FailInfo > BadCertID {
				return nil, fmt.Errorf("cms: no %v", c.FailInfo)
			}
			attributes = append(attributes, PrintableStringAttribute(OIDFailInfo, strconv.Itoa(int(c.FailInfo))))
			if c.FailInfoText != "" {
				attributes = append(attributes, UTF8StringAttribute(OIDFailInfoText, cut(c.FailInfoText, 255)))
			}
		default:
			return nil, fmt.Errorf("cms: no %v", c.PKIStatus)
		}
	}
	return s.Sign(SignedDataConfig{Content: c.Envelope, Digest: c.Digest, Attributes: attributes, Certificates: c.Certificates})
}

// cut shortens s to n octets, between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
