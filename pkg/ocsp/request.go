package ocsp

import (
	"bytes"
	"crypto"
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certwright/certwright/pkg/pki"
)

// Limits of a request.
const (
	MaxRequestBytes = 4 << 10
	MaxCertIDs      = 8
	MaxNonce        = 128 // octets (RFC 9654, Section 2.1)
)

// ErrTooManyCertIDs says that a request is well formed and asks for more than MaxCertIDs certificates at once.
var ErrTooManyCertIDs = errors.New("too many CertIDs in one OCSP request")

// ParseError says that bytes are no OCSP request, or one that must be refused as malformed.
type ParseError struct {
	Problem string
}

// Error returns the problem.
func (e *ParseError) Error() string { return "malformed OCSP request: " + e.Problem }

func malformed(problem string) error { return &ParseError{Problem: problem} }

// Request is an OCSPRequest (RFC 6960, Section 4.1.1). Who asks and the request's signature are not kept: everybody may
// ask. Its slices point into the bytes that were parsed.
type Request struct {
	CertIDs []CertID // 1 to MaxCertIDs
	// Nonce is the value of the nonce extension, the content of extnValue; nil when there is none.
	Nonce []byte
}

// CertID names a certificate.
type CertID struct {
	// Raw is the whole DER, as answers repeat it.
	Raw []byte
	// Hash is SHA-1 or SHA-256; 0 for any other, which nobody here answers to.
	Hash           crypto.Hash
	IssuerNameHash []byte
	IssuerKeyHash  []byte
	// SerialNumber is the zero value when the request's is longer than 20 octets or negative: well formed, but nothing
	// that a CA may issue (RFC 5280, Section 4.1.2.2).
	SerialNumber pki.SerialNumber

	noParams bool // the AlgorithmIdentifier has no parameters, instead of NULL
}

// Identifier octets of explicit tags.
const (
	tagVersion       = asn1.Tag(0xa0)
	tagRequestorName = asn1.Tag(0xa1)
	tagExtensions    = asn1.Tag(0xa2)
	tagSignature     = asn1.Tag(0xa0)
	tagSingleExt     = asn1.Tag(0xa0)
)

// Contents of OBJECT IDENTIFIERs.
var (
	oidSHA1   = []byte{0x2b, 0x0e, 0x03, 0x02, 0x1a}
	oidSHA256 = []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01}
	oidNonce  = []byte{0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x02}
)

// ParseRequest reads an OCSPRequest in DER. What is malformed is a *ParseError: bytes that are not DER of that form, an
// extension that is critical and unknown, a nonce of other than 1 to 128 octets (RFC 9654, Section 2.1). More than
// MaxCertIDs is ErrTooManyCertIDs.
func ParseRequest(der []byte) (*Request, error) {
	r := &Request{}
	if err := r.parse(der); err != nil {
		return nil, err
	}
	return r, nil
}

// parse is ParseRequest into a Request whose memory is used again.
func (r *Request) parse(der []byte) error {
	if len(der) > MaxRequestBytes {
		return malformed("longer than 4096 octets")
	}
	var outer, tbs, list cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&outer, asn1.SEQUENCE) || !in.Empty() {
		return malformed("not one SEQUENCE")
	}
	if !outer.ReadASN1(&tbs, asn1.SEQUENCE) {
		return malformed("no tbsRequest")
	}
	if !outer.Empty() && (!outer.SkipASN1(tagSignature) || !outer.Empty()) {
		return malformed("not an optionalSignature after tbsRequest")
	}
	if err := readVersion(&tbs); err != nil {
		return err
	}
	if !tbs.SkipOptionalASN1(tagRequestorName) {
		return malformed("requestorName")
	}
	if !tbs.ReadASN1(&list, asn1.SEQUENCE) || list.Empty() {
		return malformed("no requestList")
	}
	r.CertIDs, r.Nonce = r.CertIDs[:0], nil
	tooMany := false
	for !list.Empty() {
		id, err := readSingle(&list)
		if err != nil {
			return err
		}
		if len(r.CertIDs) == MaxCertIDs {
			tooMany = true // and the rest must be well formed all the same
			continue
		}
		r.CertIDs = append(r.CertIDs, id)
	}
	if !tbs.Empty() {
		var err error
		if r.Nonce, err = readExtensions(&tbs, tagExtensions, true); err != nil {
			return err
		}
		if !tbs.Empty() {
			return malformed("data after requestExtensions")
		}
	}
	if tooMany {
		return ErrTooManyCertIDs
	}
	return nil
}

// readVersion reads version [0] EXPLICIT INTEGER DEFAULT v1. DER leaves the default out; some clients write it.
func readVersion(tbs *cryptobyte.String) error {
	if !tbs.PeekASN1Tag(tagVersion) {
		return nil
	}
	var explicit cryptobyte.String
	var version int
	if !tbs.ReadASN1(&explicit, tagVersion) || !explicit.ReadASN1Integer(&version) || !explicit.Empty() || version != 0 {
		return malformed("version is not v1")
	}
	return nil
}

// readSingle reads a Request of the list.
func readSingle(list *cryptobyte.String) (CertID, error) {
	var single cryptobyte.String
	if !list.ReadASN1(&single, asn1.SEQUENCE) {
		return CertID{}, malformed("not a Request in requestList")
	}
	id, err := readCertID(&single)
	if err != nil {
		return CertID{}, err
	}
	if !single.Empty() {
		// A nonce belongs to the whole request (RFC 6960, Section 4.4.1); here it is an extension like any other.
		if _, err := readExtensions(&single, tagSingleExt, false); err != nil {
			return CertID{}, err
		}
		if !single.Empty() {
			return CertID{}, malformed("data after singleRequestExtensions")
		}
	}
	return id, nil
}

func readCertID(in *cryptobyte.String) (CertID, error) {
	var raw, content, algorithm, oid, serial cryptobyte.String
	if !in.ReadASN1Element(&raw, asn1.SEQUENCE) {
		return CertID{}, malformed("no CertID")
	}
	id := CertID{Raw: raw}
	if !raw.ReadASN1(&content, asn1.SEQUENCE) ||
		!content.ReadASN1(&algorithm, asn1.SEQUENCE) ||
		!content.ReadASN1((*cryptobyte.String)(&id.IssuerNameHash), asn1.OCTET_STRING) ||
		!content.ReadASN1((*cryptobyte.String)(&id.IssuerKeyHash), asn1.OCTET_STRING) ||
		!content.ReadASN1(&serial, asn1.INTEGER) || !content.Empty() ||
		!algorithm.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
		return CertID{}, malformed("not a CertID")
	}

	id.noParams = algorithm.Empty()
	var null cryptobyte.String
	plain := id.noParams || algorithm.ReadASN1(&null, asn1.NULL) && null.Empty() && algorithm.Empty()
	switch {
	case bytes.Equal(oid, oidSHA1) && plain:
		id.Hash = crypto.SHA1
	case bytes.Equal(oid, oidSHA256) && plain:
		id.Hash = crypto.SHA256
	case bytes.Equal(oid, oidSHA1), bytes.Equal(oid, oidSHA256):
		return CertID{}, malformed("hashAlgorithm has parameters") // RFC 4055, Section 2.1
	}
	if id.Hash != 0 && (len(id.IssuerNameHash) != id.Hash.Size() || len(id.IssuerKeyHash) != id.Hash.Size()) {
		return CertID{}, malformed("issuerNameHash or issuerKeyHash is not of the hash's length")
	}

	if len(serial) == 0 || len(serial) > 1 && (serial[0] == 0 && serial[1] < 0x80 || serial[0] == 0xff && serial[1] >= 0x80) {
		return CertID{}, malformed("serialNumber is not a DER INTEGER")
	}
	if s, err := pki.SerialNumberFromBytes(serial); err == nil {
		id.SerialNumber = s
	}
	return id, nil
}

// readExtensions reads Extensions in an explicit tag, and returns the value of the nonce, if one may be there.
func readExtensions(in *cryptobyte.String, tag asn1.Tag, nonceAllowed bool) (nonce []byte, err error) {
	var explicit, list cryptobyte.String
	if !in.ReadASN1(&explicit, tag) || !explicit.ReadASN1(&list, asn1.SEQUENCE) || !explicit.Empty() || list.Empty() {
		return nil, malformed("not Extensions")
	}
	var seen [][]byte
	for !list.Empty() {
		var extension, oid, value cryptobyte.String
		var critical bool
		if !list.ReadASN1(&extension, asn1.SEQUENCE) || !extension.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
			return nil, malformed("not an Extension")
		}
		if extension.PeekASN1Tag(asn1.BOOLEAN) && !extension.ReadASN1Boolean(&critical) {
			return nil, malformed("critical is not a BOOLEAN")
		}
		if !extension.ReadASN1(&value, asn1.OCTET_STRING) || !extension.Empty() {
			return nil, malformed("not an Extension")
		}
		// RFC 5280, Section 4.2: no extension twice.
		if slices.ContainsFunc(seen, func(o []byte) bool { return bytes.Equal(o, oid) }) {
			return nil, malformed("an extension occurs twice")
		}
		seen = append(seen, oid)
		switch {
		case nonceAllowed && bytes.Equal(oid, oidNonce):
			if !validNonce(value) {
				return nil, malformed("the nonce has not 1 to 128 octets")
			}
			nonce = value
		case critical:
			return nil, malformed("an extension is critical and unknown")
		}
	}
	return nonce, nil
}

// validNonce checks the value of a nonce extension. It is the DER of an OCTET STRING of 1 to 128 octets (RFC 9654,
// Section 2.1). Clients older than RFC 6960 put the octets there without that wrapping, which is let pass.
func validNonce(value cryptobyte.String) bool {
	inner, n := value, 0
	var octets cryptobyte.String
	if inner.ReadASN1(&octets, asn1.OCTET_STRING) && inner.Empty() {
		n = len(octets)
	} else {
		n = len(value)
	}
	return n >= 1 && n <= MaxNonce
}
