package cms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/certwright/certwright/pkg/keys"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	tag0            = cbasn1.Tag(0).ContextSpecific()
	tag0Constructed = tag0.Constructed()
	tag1Constructed = cbasn1.Tag(1).ContextSpecific().Constructed()
)

// SignedData is a parsed SignedData (RFC 5652, Section 5.1). Nothing of it is verified before [SignedData.Verify]. It
// may share memory with the octets it was parsed from.
type SignedData struct {
	// Content is the eContent: nil if it is absent, empty if it is an empty OCTET STRING.
	Content []byte
	// Certificates holds the DER of each Certificate, in their order; attribute certificates and other formats are left
	// out.
	Certificates [][]byte
	// CRLs holds the DER of each CertificateList, in their order.
	CRLs [][]byte
	// Signers are the signerInfos, in their order.
	Signers []SignerInfo

	contentType oid
}

// SignerInfo is one signature (RFC 5652, Section 5.3).
type SignerInfo struct {
	// Attributes are the signed attributes. They are as trustworthy as the message until it is verified.
	Attributes Attributes

	sid       identifier
	digest    algorithm
	signature algorithm
	value     []byte
}

// identifier is a SignerIdentifier or a RecipientIdentifier: issuer and serialNumber, or a subjectKeyIdentifier.
type identifier struct {
	issuer []byte // DER
	serial []byte // content octets
	keyID  []byte
}

// Digest returns the digest of the signature, MD5 among them, and 0 for an unknown one.
func (s *SignerInfo) Digest() crypto.Hash { return digestOf(s.digest.id) }

// ParseSignedData reads a ContentInfo that holds SignedData, in BER or DER. Errors are faults that wrap ErrMalformed.
func ParseSignedData(b []byte, l Limits) (*SignedData, error) {
	l = l.withDefaults()
	body, err := contentInfo(b, l, oidSignedData)
	if err != nil {
		return nil, err
	}
	sd := &SignedData{}
	var version int
	var digests, encap, id cryptobyte.String
	if !body.ReadASN1Integer(&version) || version < 0 || version > 5 || !body.ReadASN1(&digests, cbasn1.SET) {
		return nil, malformed("version or digestAlgorithms of the SignedData cannot be read")
	}
	if !body.ReadASN1(&encap, cbasn1.SEQUENCE) || !encap.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) {
		return nil, malformed("encapContentInfo cannot be read")
	}
	sd.contentType = oid(id)
	if !encap.Empty() {
		var explicit, content cryptobyte.String
		if !encap.ReadASN1(&explicit, tag0Constructed) || !encap.Empty() {
			return nil, malformed("encapContentInfo cannot be read")
		}
		// An empty [0] is not the standard's way to leave the content out, but seen.
		if !explicit.Empty() {
			if !explicit.ReadASN1(&content, cbasn1.OCTET_STRING) || !explicit.Empty() {
				return nil, malformed("eContent is not an OCTET STRING")
			}
			sd.Content = content
		}
	}
	if sd.Certificates, err = readChoices(&body, tag0Constructed, l.MaxCertificates, "certificates"); err != nil {
		return nil, err
	}
	if sd.CRLs, err = readChoices(&body, tag1Constructed, l.MaxCRLs, "crls"); err != nil {
		return nil, err
	}
	var infos cryptobyte.String
	if !body.ReadASN1(&infos, cbasn1.SET) || !body.Empty() {
		return nil, malformed("signerInfos cannot be read")
	}
	for !infos.Empty() {
		if len(sd.Signers) == l.MaxRecipients {
			return nil, malformed("the message has more than %d signerInfos", l.MaxRecipients)
		}
		si, err := parseSignerInfo(&infos, l)
		if err != nil {
			return nil, err
		}
		sd.Signers = append(sd.Signers, si)
	}
	return sd, nil
}

// contentInfo normalises b and returns the content of the SEQUENCE inside its ContentInfo.
func contentInfo(b []byte, l Limits, want oid) (cryptobyte.String, error) {
	b, err := normalise(b, l)
	if err != nil {
		return nil, err
	}
	s := cryptobyte.String(b)
	var info, id, explicit, body cryptobyte.String
	if !s.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) {
		return nil, malformed("the message is not a ContentInfo")
	}
	switch oid(id) {
	case want:
	case oidAuthEnvelopedData: // RFC 8894, Section 3.2.2, has EnvelopedData
		return nil, unsupported("AuthEnvelopedData is not supported")
	default:
		return nil, malformed("the message has content type %v, want %v", oid(id), want)
	}
	if !info.ReadASN1(&explicit, tag0Constructed) || !info.Empty() ||
		!explicit.ReadASN1(&body, cbasn1.SEQUENCE) || !explicit.Empty() {
		return nil, malformed("the content of the ContentInfo cannot be read")
	}
	return body, nil
}

// readChoices reads an optional IMPLICIT SET OF CHOICE and returns the elements that are SEQUENCEs: certificates or
// lists. All count towards the limit.
func readChoices(s *cryptobyte.String, tag cbasn1.Tag, limit int, name string) ([][]byte, error) {
	var set cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&set, &present, tag) {
		return nil, malformed("%s cannot be read", name)
	}
	var list [][]byte
	for n := 0; !set.Empty(); n++ {
		var e cryptobyte.String
		var tag cbasn1.Tag
		if n == limit {
			return nil, malformed("the message has more than %d %s", limit, name)
		}
		if !set.ReadAnyASN1Element(&e, &tag) {
			return nil, malformed("%s cannot be read", name)
		}
		if tag == cbasn1.SEQUENCE {
			list = append(list, e)
		}
	}
	return list, nil
}

func parseSignerInfo(s *cryptobyte.String, l Limits) (si SignerInfo, err error) {
	var info, attributes, value cryptobyte.String
	var version int
	var ok, present bool
	if !s.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1Integer(&version) || version < 0 || version > 5 {
		return si, malformed("a signerInfo cannot be read")
	}
	if si.sid, ok = readIdentifier(&info); !ok {
		return si, malformed("a signerInfo's sid cannot be read")
	}
	if si.digest, ok = readAlgorithm(&info, cbasn1.SEQUENCE); !ok {
		return si, malformed("a signerInfo's digestAlgorithm cannot be read")
	}
	if !info.ReadOptionalASN1(&attributes, &present, tag0Constructed) {
		return si, malformed("signedAttrs cannot be read")
	}
	if present {
		if si.Attributes, err = parseAttributes(attributes, l); err != nil {
			return si, err
		}
	}
	if si.signature, ok = readAlgorithm(&info, cbasn1.SEQUENCE); !ok {
		return si, malformed("a signerInfo's signatureAlgorithm cannot be read")
	}
	// unsignedAttrs mean nothing here.
	if !info.ReadASN1(&value, cbasn1.OCTET_STRING) || !info.SkipOptionalASN1(tag1Constructed) || !info.Empty() {
		return si, malformed("a signerInfo's signature cannot be read")
	}
	si.value = value
	return si, nil
}

// readIdentifier reads SignerIdentifier and RecipientIdentifier, which are of one form (RFC 5652, Sections 5.3, 6.2.1).
func readIdentifier(s *cryptobyte.String) (id identifier, ok bool) {
	var body, v cryptobyte.String
	switch {
	case s.PeekASN1Tag(cbasn1.SEQUENCE):
		var issuer cryptobyte.String
		if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1Element(&issuer, cbasn1.SEQUENCE) ||
			!body.ReadASN1(&v, cbasn1.INTEGER) || !body.Empty() || len(v) == 0 {
			return id, false
		}
		return identifier{issuer: issuer, serial: v}, true
	case s.PeekASN1Tag(tag0):
		ok = s.ReadASN1(&v, tag0)
		return identifier{keyID: v}, ok && len(v) > 0
	case s.PeekASN1Tag(tag0Constructed):
		keyID, ok := implicitOctets(s, 0)
		return identifier{keyID: keyID}, ok && len(keyID) > 0
	}
	return id, false
}

// implicitOctets reads an IMPLICIT OCTET STRING with context tag n, whole or in pieces: the normaliser cannot know
// that a context tag hides a string.
func implicitOctets(s *cryptobyte.String, n uint8) ([]byte, bool) {
	tag := cbasn1.Tag(n).ContextSpecific()
	var v cryptobyte.String
	if s.PeekASN1Tag(tag) {
		ok := s.ReadASN1(&v, tag)
		return v, ok
	}
	if !s.ReadASN1(&v, tag.Constructed()) {
		return nil, false
	}
	whole := make([]byte, 0, len(v))
	for !v.Empty() {
		var piece cryptobyte.String
		if !v.ReadASN1(&piece, cbasn1.OCTET_STRING) {
			return nil, false
		}
		whole = append(whole, piece...)
	}
	return whole, true
}

// names tells whether the identifier is the one of a certificate.
func (id identifier) names(c *x509.Certificate) bool {
	if id.keyID == nil {
		return bytes.Equal(id.serial, serialOctets(c.Raw)) && EqualNames(id.issuer, c.RawIssuer)
	}
	if len(c.SubjectKeyId) > 0 {
		return bytes.Equal(id.keyID, c.SubjectKeyId)
	}
	// A certificate without the extension: RFC 5280, Section 4.2.1.2, method 1.
	return bytes.Equal(id.keyID, sha1OfKey(c.RawSubjectPublicKeyInfo))
}

func sha1OfKey(spki []byte) []byte {
	s := cryptobyte.String(spki)
	var body, bits cryptobyte.String
	var key []byte
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !body.SkipASN1(cbasn1.SEQUENCE) ||
		!body.ReadASN1Element(&bits, cbasn1.BIT_STRING) || !bits.ReadASN1BitStringAsBytes(&key) {
		return nil
	}
	sum := sha1.Sum(key)
	return sum[:]
}

// issuerAndSerial finds the issuer's DER and the serial number's content octets in a certificate.
func issuerAndSerial(certificate []byte) (issuer, serial []byte, ok bool) {
	s := cryptobyte.String(certificate)
	var body, tbs, i, n cryptobyte.String
	ok = s.ReadASN1(&body, cbasn1.SEQUENCE) && body.ReadASN1(&tbs, cbasn1.SEQUENCE) &&
		tbs.SkipOptionalASN1(tag0Constructed) && tbs.ReadASN1(&n, cbasn1.INTEGER) && len(n) > 0 &&
		tbs.SkipASN1(cbasn1.SEQUENCE) && tbs.ReadASN1Element(&i, cbasn1.SEQUENCE)
	return i, n, ok
}

func serialOctets(certificate []byte) []byte {
	_, serial, _ := issuerAndSerial(certificate)
	return serial
}

// IsData tells whether the content is of type id-data, as everything in SCEP is (RFC 8894, Section 3.1).
func (sd *SignedData) IsData() bool { return sd.contentType == oidData }

// Signer returns the only signerInfo and its certificate, which must be in the message. Nothing is verified. Another
// number of signerInfos than one, or no certificate, is a fault that wraps ErrMalformed.
func (sd *SignedData) Signer() (*SignerInfo, *x509.Certificate, error) {
	if len(sd.Signers) != 1 {
		return nil, nil, malformed("the message has %d signerInfos, want 1", len(sd.Signers))
	}
	si := &sd.Signers[0]
	for _, raw := range sd.Certificates {
		if si.sid.keyID == nil {
			issuer, serial, ok := issuerAndSerial(raw)
			if !ok || !bytes.Equal(serial, si.sid.serial) || !EqualNames(issuer, si.sid.issuer) {
				continue
			}
			c, err := parseCertificate(raw)
			if err != nil {
				return nil, nil, malformed("the signer's certificate cannot be read")
			}
			return si, c, nil
		}
		if c, err := parseCertificate(raw); err == nil && si.sid.names(c) {
			return si, c, nil
		}
	}
	return nil, nil, malformed("the signer's certificate is not in the message")
}

// VerifyOptions relax what [SignedData.Verify] accepts. The zero value is the safe default.
type VerifyOptions struct {
	// AllowMD5 accepts MD5, against RFC 8894, Section 2.9, for devices that can do nothing else.
	AllowMD5 bool
}

// Verify checks the signature of the only signer with the key of its certificate in the message, and the attributes
// that tie it to the content: contentType and messageDigest (RFC 5652, Section 5.6). Who the signer is, is not judged.
// A signature without attributes is refused, since it could be made from one with them, and the other way round.
//
// Errors are faults that wrap ErrMalformed, ErrAlgorithm or ErrSignature.
func (sd *SignedData) Verify(o VerifyOptions) (*SignerInfo, *x509.Certificate, error) {
	si, c, err := sd.Signer()
	if err != nil {
		return nil, nil, err
	}
	if err := si.verify(c, sd, o); err != nil {
		return nil, nil, err
	}
	return si, c, nil
}

func (s *SignerInfo) verify(c *x509.Certificate, sd *SignedData, o VerifyOptions) error {
	hash := s.Digest()
	if hash == 0 || !s.digest.hasNoParams() {
		return unsupported("digest algorithm %v is not supported", s.digest.id)
	}
	if hash == crypto.MD5 && !o.AllowMD5 {
		return unsupported("MD5 is not accepted")
	}
	if s.Attributes.Len() == 0 {
		return badSignature("the message has no signed attributes")
	}
	contentType, err := s.Attributes.value(oidContentType, cbasn1.OBJECT_IDENTIFIER)
	if err != nil || oid(contentType) != sd.contentType {
		return badSignature("the contentType attribute is absent or wrong")
	}
	digest, err := s.Attributes.value(oidMessageDigest, cbasn1.OCTET_STRING)
	if err != nil || !bytes.Equal(digest, sum(hash, sd.Content)) {
		return badSignature("the messageDigest attribute is absent or wrong")
	}
	// RFC 5652, Section 5.4: signed is the DER of the SET, so in DER's order.
	sorted := make([][]byte, len(s.Attributes.list))
	for i, a := range s.Attributes.list {
		sorted[i] = a.raw
	}
	isSorted := slices.IsSortedFunc(sorted, bytes.Compare)
	slices.SortFunc(sorted, bytes.Compare)
	err = s.verifySignature(c.PublicKey, hash, setOf(sorted))
	if err != nil && !isSorted && errors.Is(err, ErrSignature) {
		// Some clients sign the order that they send, which is not DER's. It is the same set.
		err = s.verifySignature(c.PublicKey, hash, appendTLV(nil, tagSet, s.Attributes.der))
	}
	return err
}

// verifySignature checks the signature over a message with the algorithm that signerInfo names.
func (s *SignerInfo) verifySignature(public crypto.PublicKey, hash crypto.Hash, message []byte) error {
	wrong := badSignature("the signature is wrong")
	switch key := public.(type) {
	case *rsa.PublicKey:
		// The key is the client's choice, and so is what its modulus and exponent cost.
		if bits := key.N.BitLen(); bits < minRSABits || bits > keys.MaxRSABits {
			return unsupported("the signer's RSA key has %d bits, want %d to %d", bits, minRSABits, keys.MaxRSABits)
		}
		if s.signature.id == oidPSS {
			options, ok := parsePSS(s.signature.params)
			if !ok || options.Hash != hash {
				return unsupported("RSASSA-PSS parameters are not supported")
			}
			if rsa.VerifyPSS(key, hash, sum(hash, message), s.value, options) != nil {
				return wrong
			}
			return nil
		}
		if !s.signature.hasNoParams() || !isRSAWith(s.signature.id, hash) {
			return unsupported("signature algorithm %v is not supported", s.signature.id)
		}
		if rsa.VerifyPKCS1v15(key, hash, sum(hash, message), s.value) != nil {
			return wrong
		}
		return nil
	case *ecdsa.PublicKey:
		if !s.signature.hasNoParams() || !isECDSAWith(s.signature.id, hash) {
			return unsupported("signature algorithm %v is not supported", s.signature.id)
		}
		if !ecdsa.VerifyASN1(key, sum(hash, message), s.value) {
			return wrong
		}
		return nil
	case ed25519.PublicKey:
		if !s.signature.hasNoParams() || s.signature.id != oidEd25519 {
			return unsupported("signature algorithm %v is not supported", s.signature.id)
		}
		if !ed25519.Verify(key, message, s.value) {
			return wrong
		}
		return nil
	}
	return unsupported("the signer's key is not RSA, ECDSA or Ed25519")
}

func isRSAWith(id oid, hash crypto.Hash) bool {
	switch id {
	case oidRSA:
		return true
	case oidMD5WithRSA:
		return hash == crypto.MD5
	case oidSHA1WithRSA:
		return hash == crypto.SHA1
	case oidSHA256WithRSA:
		return hash == crypto.SHA256
	case oidSHA384WithRSA:
		return hash == crypto.SHA384
	case oidSHA512WithRSA:
		return hash == crypto.SHA512
	}
	return false
}

func isECDSAWith(id oid, hash crypto.Hash) bool {
	switch id {
	case oidECPublicKey: // some name the key, as rsaEncryption does
		return true
	case oidECDSAWithSHA1:
		return hash == crypto.SHA1
	case oidECDSAWithSHA256:
		return hash == crypto.SHA256
	case oidECDSAWithSHA384:
		return hash == crypto.SHA384
	case oidECDSAWithSHA512:
		return hash == crypto.SHA512
	}
	return false
}

// parsePSS reads RSASSA-PSS-params (RFC 4055, Section 3.1). MGF1 must have the hash of the signature.
func parsePSS(params cryptobyte.String) (*rsa.PSSOptions, bool) {
	var body cryptobyte.String
	if !params.ReadASN1(&body, cbasn1.SEQUENCE) {
		return nil, false
	}
	hash, mgf, ok := readHashAndMGF(&body)
	if !ok || hash != mgf {
		return nil, false
	}
	salt, trailer := 20, 1
	if !readExplicitInt(&body, 2, &salt) || !readExplicitInt(&body, 3, &trailer) || !body.Empty() {
		return nil, false
	}
	if salt < 0 || salt > 512 || trailer != 1 {
		return nil, false
	}
	if salt == 0 {
		// 0 is "any length" to crypto/rsa, and a salt of no octets nobody uses.
		return nil, false
	}
	return &rsa.PSSOptions{SaltLength: salt, Hash: hash}, true
}

func readExplicitInt(s *cryptobyte.String, n uint8, v *int) bool {
	var e cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&e, &present, cbasn1.Tag(n).ContextSpecific().Constructed()) {
		return false
	}
	return !present || e.ReadASN1Integer(v) && e.Empty()
}

// readHashAndMGF reads the first two fields of RSASSA-PSS-params and RSAES-OAEP-params, each SHA-1 when absent.
func readHashAndMGF(s *cryptobyte.String) (hash, mgf crypto.Hash, ok bool) {
	hash, mgf = crypto.SHA1, crypto.SHA1
	var e cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&e, &present, tag0Constructed) {
		return 0, 0, false
	}
	if present {
		a, ok := readAlgorithm(&e, cbasn1.SEQUENCE)
		if !ok || !e.Empty() || !a.hasNoParams() {
			return 0, 0, false
		}
		hash = digestOf(a.id)
	}
	if !s.ReadOptionalASN1(&e, &present, tag1Constructed) {
		return 0, 0, false
	}
	if present {
		a, ok := readAlgorithm(&e, cbasn1.SEQUENCE)
		if !ok || !e.Empty() || a.id != oidMGF1 {
			return 0, 0, false
		}
		h, ok := readAlgorithm(&a.params, cbasn1.SEQUENCE)
		if !ok || !a.params.Empty() || !h.hasNoParams() {
			return 0, 0, false
		}
		mgf = digestOf(h.id)
	}
	good := func(h crypto.Hash) bool { return h != 0 && h != crypto.MD5 }
	return hash, mgf, good(hash) && good(mgf)
}

func sum(h crypto.Hash, b []byte) []byte {
	w := h.New()
	w.Write(b)
	return w.Sum(nil)
}
