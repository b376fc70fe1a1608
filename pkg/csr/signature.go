package csr

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
)

// signature is the request's own signature, unchecked.
type signature struct {
	oid    asn1.ObjectIdentifier
	params []byte // DER of the AlgorithmIdentifier's parameters, empty if absent
	tbs    []byte
	value  []byte
}

type parameters int

const (
	paramsAbsent       parameters = iota // RFC 5758, Section 3.2; RFC 8410, Section 3
	paramsNullOrAbsent                   // RFC 4055, Section 5
)

var algorithms = []struct {
	oid    asn1.ObjectIdentifier
	alg    x509.SignatureAlgorithm
	params parameters
}{
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, x509.ECDSAWithSHA256, paramsAbsent},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, x509.SHA256WithRSA, paramsNullOrAbsent},
	{asn1.ObjectIdentifier{1, 3, 101, 112}, x509.PureEd25519, paramsAbsent},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, x509.ECDSAWithSHA384, paramsAbsent},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, x509.ECDSAWithSHA512, paramsAbsent},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, x509.SHA384WithRSA, paramsNullOrAbsent},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, x509.SHA512WithRSA, paramsNullOrAbsent},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, x509.SHA1WithRSA, paramsNullOrAbsent},
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 29}, x509.SHA1WithRSA, paramsNullOrAbsent}, // OIW's name of it, old devices
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}, x509.ECDSAWithSHA1, paramsAbsent},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}, x509.MD5WithRSA, paramsNullOrAbsent},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 2}, x509.MD2WithRSA, paramsNullOrAbsent},
}

var oidRSAPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}

// algorithmOf returns what the request is signed with, or UnknownSignatureAlgorithm.
func algorithmOf(raw []byte, sig signature) x509.SignatureAlgorithm {
	if sig.oid.Equal(oidRSAPSS) {
		// PSS carries hash, mask and salt in its parameters (RFC 4055, Section 3.1); crypto/x509 knows the three sane
		// combinations.
		if request, err := x509.ParseCertificateRequest(raw); err == nil {
			return request.SignatureAlgorithm
		}
		return x509.UnknownSignatureAlgorithm
	}
	for _, row := range algorithms {
		if !row.oid.Equal(sig.oid) {
			continue
		}
		if len(sig.params) == 0 || row.params == paramsNullOrAbsent && string(sig.params) == "\x05\x00" {
			return row.alg
		}
		break
	}
	return x509.UnknownSignatureAlgorithm
}

// checkSignature is the proof of possession (RFC 2986, Section 3). It runs once, here.
func (p Parser) checkSignature(r *Request, sig signature) error {
	r.SignatureAlgorithm = algorithmOf(r.DER, sig)
	switch r.SignatureAlgorithm {
	case x509.UnknownSignatureAlgorithm:
		return bad("the request is signed with an unknown algorithm (%s)", sig.oid).
			WithHint("sign it with SHA-256, such as: openssl req -new -sha256")
	case x509.MD2WithRSA, x509.MD5WithRSA:
		return bad("the request is signed with %s, which proves nothing", r.SignatureAlgorithm).
			WithHint("sign it with SHA-256, such as: openssl req -new -sha256")
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1:
		if !p.AllowSHA1 {
			return bad("the request is signed with %s, which is not accepted here", r.SignatureAlgorithm).
				WithHint("sign it with SHA-256; for old devices an administrator can allow SHA-1 requests")
		}
	}
	request := x509.CertificateRequest{
		PublicKey:                r.PublicKey,
		SignatureAlgorithm:       r.SignatureAlgorithm,
		RawTBSCertificateRequest: sig.tbs,
		Signature:                sig.value,
	}
	if err := request.CheckSignature(); err != nil {
		return fault.Wrap(fault.BadCSR, err, "the request's signature is not by the key in it").
			WithHint("the request was changed on its way, or made with another key: make it anew")
	}
	return nil
}

// badKey classifies what package keys says of a key.
func badKey(err error) error {
	hint := "use an ECDSA key on P-256, an RSA key of at least %d bits, or Ed25519"
	if refused, ok := errors.AsType[*keys.RefusedError](err); ok {
		return fault.Wrap(fault.BadPublicKey, err, "the request's public key is refused: %s", refused.Detail).WithHint(hint, keys.MinRSABits)
	}
	return fault.Wrap(fault.BadPublicKey, err, "the request's public key is of a kind that is not certified here").WithHint(hint, keys.MinRSABits)
}
