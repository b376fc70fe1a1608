package der

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"
)

// CertificateConfig is everything the certificates of one profile under one
// issuer have in common. [NewCertificateTemplate] copies what it needs.
type CertificateConfig struct {
	// SignatureAlgorithm of the issuer's key. Required.
	SignatureAlgorithm *SignatureAlgorithm
	// Issuer is the DER of the issuer's subject Name, copied byte for byte.
	// Required, not empty.
	Issuer []byte
	// AuthorityKeyID is the issuer's subject key identifier. Empty leaves the
	// extension out, as only a self-signed certificate may (RFC 5280, Section
	// 4.2.1.1).
	AuthorityKeyID []byte

	// KeyUsage is critical; 0 leaves the extension out.
	KeyUsage x509.KeyUsage
	// ExtKeyUsage holds the KeyPurposeIds in order; none leaves the extension
	// out. ExtKeyUsageCritical marks it critical, which time-stamping needs
	// (RFC 3161, Section 2.3).
	ExtKeyUsage         []asn1.ObjectIdentifier
	ExtKeyUsageCritical bool

	// IsCA sets cA in basicConstraints. The extension is always present and
	// critical. In an end-entity certificate it is the empty SEQUENCE, which
	// RFC 5280, Section 4.2.1.9, allows: old device stacks look for it.
	IsCA bool
	// PathLen is pathLenConstraint; nil sets no limit. Only with IsCA.
	PathLen *int

	// CRLDistributionPoints are the addresses of the one CRL that covers the
	// certificate. CertificateFields.CRLDistributionPoint replaces them.
	CRLDistributionPoints []string
	// FreshestCRL are the addresses of its delta CRL (never critical).
	FreshestCRL []string
	// OCSPServers and CAIssuers are the addresses of authorityInfoAccess.
	OCSPServers []string
	CAIssuers   []string

	// Policies are the certificate policies, not critical.
	Policies []PolicyInformation
	// NameConstraints is critical; nil leaves it out. Only with IsCA.
	NameConstraints *NameConstraints

	// MustStaple adds the TLS feature status_request (RFC 7633).
	MustStaple bool
	// OCSPNoCheck adds id-pkix-ocsp-nocheck (RFC 6960, Section 4.2.2.2.1).
	OCSPNoCheck bool
	// NoRevAvail adds noRevAvail (RFC 9608). It excludes IsCA, CRL and OCSP
	// addresses and MustStaple.
	NoRevAvail bool

	// ExtraExtensions are copied after the others. Values must be one DER
	// element. Extensions that a field above or CertificateFields stands for
	// are refused, so that no rule here can be gone around.
	ExtraExtensions []pkix.Extension
}

// CertificateFields is what differs from certificate to certificate. Nothing
// is kept after [CertificateTemplate.AppendTBS] returns.
type CertificateFields struct {
	// SerialNumber holds the content octets of the INTEGER: positive, minimal,
	// at most 20 (see [AppendSerialNumber]).
	SerialNumber []byte
	// NotBefore and NotAfter are both inclusive and in whole seconds, from 1950
	// to 9999.
	NotBefore, NotAfter time.Time
	// Subject is the DER of a Name. The empty Name needs a SubjectAltName,
	// which is then critical, and is refused for a CA (RFC 5280, Section
	// 4.1.2.6).
	Subject []byte
	// SubjectPublicKeyInfo is DER, copied byte for byte. The key in it is the
	// caller's to check.
	SubjectPublicKeyInfo []byte
	// SubjectKeyID is the key identifier; empty leaves the extension out, which
	// is refused for a CA (RFC 5280, Section 4.2.1.2).
	SubjectKeyID []byte
	// SubjectAltName is the DER of a GeneralNames, as [AppendGeneralNames]
	// makes it; nil for none.
	SubjectAltName []byte
	// CRLDistributionPoint, when not "", stands in place of the template's.
	CRLDistributionPoint string
}

// CertificateTemplate encodes the certificates of one profile under one
// issuer. It does not change once made and is safe for concurrent use.
type CertificateTemplate struct {
	algorithm      *SignatureAlgorithm
	algorithmAndCA []byte // signature AlgorithmIdentifier, issuer
	extensions     []byte // those that never change
	distribution   []byte // cRLDistributionPoints, may be empty
	isCA           bool
	noRevAvail     bool
}

// NewCertificateTemplate checks the configuration and encodes what is constant.
// What RFC 5280 or RFC 9608 forbid is a *ValueError.
func NewCertificateTemplate(c CertificateConfig) (*CertificateTemplate, error) {
	if c.SignatureAlgorithm == nil {
		return nil, invalid("signatureAlgorithm", "absent")
	}
	if !checkName(c.Issuer) || string(c.Issuer) == emptyName {
		// RFC 5280, Section 4.1.2.4: a non-empty distinguished name.
		return nil, invalid("issuer", "not the DER of a non-empty Name")
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	t := &CertificateTemplate{
		algorithm:      c.SignatureAlgorithm,
		algorithmAndCA: append([]byte(c.SignatureAlgorithm.identifier), c.Issuer...),
		isCA:           c.IsCA,
		noRevAvail:     c.NoRevAvail,
	}
	var err error
	if t.extensions, err = c.appendConstant(nil); err != nil {
		return nil, err
	}
	if len(c.CRLDistributionPoints) > 0 {
		value, err := appendDistributionPoints(nil, c.CRLDistributionPoints)
		if err != nil {
			return nil, fmt.Errorf("cRLDistributionPoints: %w", err)
		}
		t.distribution = appendExtension(nil, extCRLDistributionPoints, false, value)
	}
	return t, nil
}

// check refuses what cannot stand together.
func (c *CertificateConfig) check() error {
	certSign := c.KeyUsage&x509.KeyUsageCertSign != 0
	switch {
	case c.IsCA && !certSign:
		return invalid("keyUsage", "a CA certificate without keyCertSign") // RFC 5280, Section 4.2.1.3
	case !c.IsCA && certSign:
		return invalid("keyUsage", "keyCertSign without cA") // RFC 5280, Section 4.2.1.9
	case c.PathLen != nil && (!c.IsCA || *c.PathLen < 0):
		return invalid("pathLenConstraint", "negative or without cA") // RFC 5280, Section 4.2.1.9
	case c.NameConstraints != nil && !c.IsCA:
		return invalid("nameConstraints", "only in a CA certificate") // RFC 5280, Section 4.2.1.10
	case c.ExtKeyUsageCritical && len(c.ExtKeyUsage) == 0:
		return invalid("extKeyUsage", "critical but empty")
	}
	if c.NoRevAvail {
		// RFC 9608, Sections 2 and 3. Must-Staple asks for a status that, by the same
		// certificate, nobody gives.
		switch {
		case c.IsCA:
			return invalid("noRevAvail", "in a CA certificate")
		case len(c.CRLDistributionPoints)+len(c.FreshestCRL)+len(c.OCSPServers) > 0:
			return invalid("noRevAvail", "beside addresses of revocation information")
		case c.MustStaple:
			return invalid("noRevAvail", "beside the TLS feature status_request")
		}
	}
	return nil
}

// appendConstant appends the Extensions that every certificate has.
func (c *CertificateConfig) appendConstant(dst []byte) ([]byte, error) {
	if c.KeyUsage != 0 {
		value, err := appendKeyUsage(nil, c.KeyUsage)
		if err != nil {
			return nil, err
		}
		dst = appendExtension(dst, extKeyUsage, true, value)
	}
	if len(c.ExtKeyUsage) > 0 {
		var content []byte
		for i, purpose := range c.ExtKeyUsage {
			var err error
			if slices.ContainsFunc(c.ExtKeyUsage[:i], purpose.Equal) {
				return nil, invalid("extKeyUsage", "purpose named twice")
			}
			if content, err = AppendOID(content, purpose); err != nil {
				return nil, fmt.Errorf("extKeyUsage: %w", err)
			}
		}
		dst = appendExtension(dst, extExtKeyUsage, c.ExtKeyUsageCritical, AppendTLV(nil, tagSequence, content))
	}
	dst = appendExtension(dst, extBasicConstraints, true, c.basicConstraints())
	if len(c.AuthorityKeyID) > 0 {
		dst = appendExtension(dst, extAuthorityKeyID, false, appendAuthorityKeyID(nil, c.AuthorityKeyID))
	}
	if len(c.OCSPServers)+len(c.CAIssuers) > 0 {
		value, err := appendInfoAccess(nil, c.OCSPServers, c.CAIssuers)
		if err != nil {
			return nil, fmt.Errorf("authorityInfoAccess: %w", err)
		}
		dst = appendExtension(dst, extAuthorityInfoAccess, false, value)
	}
	if len(c.Policies) > 0 {
		value, err := appendPolicies(nil, c.Policies)
		if err != nil {
			return nil, fmt.Errorf("certificatePolicies: %w", err)
		}
		dst = appendExtension(dst, extCertificatePolicies, false, value)
	}
	if c.NameConstraints != nil {
		value, err := appendNameConstraints(nil, c.NameConstraints)
		if err != nil {
			return nil, err
		}
		dst = appendExtension(dst, extNameConstraints, true, value) // critical: RFC 5280, Section 4.2.1.10
	}
	if len(c.FreshestCRL) > 0 {
		value, err := appendDistributionPoints(nil, c.FreshestCRL)
		if err != nil {
			return nil, fmt.Errorf("freshestCRL: %w", err)
		}
		dst = appendExtension(dst, extFreshestCRL, false, value) // RFC 5280, Section 4.2.1.15
	}
	if c.MustStaple {
		dst = appendExtension(dst, extTLSFeature, false, "\x30\x03\x02\x01\x05") // status_request, RFC 7633, Section 4.1
	}
	if c.OCSPNoCheck {
		dst = appendExtension(dst, extOCSPNoCheck, false, derNull)
	}
	if c.NoRevAvail {
		dst = appendExtension(dst, extNoRevAvail, false, derNull) // RFC 9608, Section 2: not critical
	}
	return appendExtra(dst, c.ExtraExtensions)
}

func (c *CertificateConfig) basicConstraints() []byte {
	if !c.IsCA {
		return []byte{tagSequence, 0} // cA is DEFAULT FALSE
	}
	content := []byte(derTrue)
	if c.PathLen != nil {
		content = AppendInt(content, int64(*c.PathLen))
	}
	return AppendTLV(nil, tagSequence, content)
}

func appendExtra(dst []byte, extra []pkix.Extension) ([]byte, error) {
	for i, e := range extra {
		oid, err := AppendOID(nil, e.Id)
		if err != nil {
			return nil, fmt.Errorf("extnID: %w", err)
		}
		switch string(oid) {
		case extSubjectKeyID, extKeyUsage, extSubjectAltName, extBasicConstraints, extNameConstraints,
			extCRLDistributionPoints, extCertificatePolicies, extAuthorityKeyID, extExtKeyUsage,
			extFreshestCRL, extNoRevAvail, extAuthorityInfoAccess, extTLSFeature, extOCSPNoCheck:
			return nil, invalid("extension "+e.Id.String(), "has a field of its own")
		}
		for _, f := range extra[:i] {
			if e.Id.Equal(f.Id) { // RFC 5280, Section 4.2
				return nil, invalid("extension "+e.Id.String(), "used twice")
			}
		}
		if !isOneElement(e.Value) {
			return nil, invalid("extension "+e.Id.String(), "value is not one DER element")
		}
		dst = appendExtension(dst, string(oid), e.Critical, e.Value)
	}
	return dst, nil
}

// SignatureAlgorithm returns the algorithm the template names, which must be
// the one that signs.
func (t *CertificateTemplate) SignatureAlgorithm() *SignatureAlgorithm { return t.algorithm }

// AppendTBS appends the TBSCertificate (RFC 5280, Section 4.1), version 3, with
// the template's extensions first, then subject key identifier, subject
// alternative name and CRL distribution point. A field its comment does not
// allow is a *ValueError. It allocates only when dst has no room, and to check
// URIs.
func (t *CertificateTemplate) AppendTBS(dst []byte, f *CertificateFields) ([]byte, error) {
	if err := t.check(f); err != nil {
		return nil, err
	}

	// Validity in a small array first: its times have two possible lengths.
	var room [2 * 17]byte
	validity, err := AppendTime(room[:0], f.NotBefore)
	if err != nil {
		return nil, fmt.Errorf("notBefore: %w", err)
	}
	if validity, err = AppendTime(validity, f.NotAfter); err != nil {
		return nil, fmt.Errorf("notAfter: %w", err)
	}

	extensions := len(t.extensions)
	keyIDValue := SizeTLV(len(f.SubjectKeyID))
	if len(f.SubjectKeyID) > 0 {
		extensions += sizeExtension(extSubjectKeyID, false, keyIDValue)
	}
	// RFC 5280, Section 4.2.1.6: critical if and only if the subject is empty.
	sanCritical := string(f.Subject) == emptyName
	if f.SubjectAltName != nil {
		extensions += sizeExtension(extSubjectAltName, sanCritical, len(f.SubjectAltName))
	}
	var cdp cdpSizes
	if f.CRLDistributionPoint == "" {
		extensions += len(t.distribution)
	} else {
		cdp = sizesOfCDP(len(f.CRLDistributionPoint))
		extensions += sizeExtension(extCRLDistributionPoints, false, SizeTLV(cdp.point))
	}

	const version = "\xa0\x03\x02\x01\x02" // [0] EXPLICIT INTEGER 2: v3
	n := len(version) + SizeTLV(len(f.SerialNumber)) + len(t.algorithmAndCA) + SizeTLV(len(validity)) +
		len(f.Subject) + len(f.SubjectPublicKeyInfo) + SizeTLV(SizeTLV(extensions))
	dst = slices.Grow(dst, SizeTLV(n))
	dst = AppendHeader(dst, tagSequence, n)
	dst = append(dst, version...)
	dst = AppendTLV(dst, tagInteger, f.SerialNumber)
	dst = append(dst, t.algorithmAndCA...)
	dst = AppendTLV(dst, tagSequence, validity)
	dst = append(dst, f.Subject...)
	dst = append(dst, f.SubjectPublicKeyInfo...)
	dst = AppendHeader(dst, 0xa3, SizeTLV(extensions))
	dst = AppendHeader(dst, tagSequence, extensions)
	dst = append(dst, t.extensions...)
	if len(f.SubjectKeyID) > 0 {
		dst = appendExtensionHeader(dst, extSubjectKeyID, false, keyIDValue)
		dst = AppendOctetString(dst, f.SubjectKeyID)
	}
	if f.SubjectAltName != nil {
		dst = appendExtension(dst, extSubjectAltName, sanCritical, f.SubjectAltName)
	}
	if f.CRLDistributionPoint == "" {
		return append(dst, t.distribution...), nil
	}
	dst = appendExtensionHeader(dst, extCRLDistributionPoints, false, SizeTLV(cdp.point))
	dst = AppendHeader(dst, tagSequence, cdp.point)
	dst = AppendHeader(dst, tagSequence, cdp.name)
	dst = AppendHeader(dst, 0xa0, cdp.fullName)
	dst = AppendHeader(dst, 0xa0, cdp.uri)
	return appendText(dst, classContext|byte(TagURI), f.CRLDistributionPoint), nil
}

// cdpSizes are the content lengths of the nested headers of a
// cRLDistributionPoints with one URI.
type cdpSizes struct{ uri, fullName, name, point int }

func sizesOfCDP(n int) cdpSizes {
	s := cdpSizes{uri: SizeTLV(n)}
	s.fullName = SizeTLV(s.uri)
	s.name = SizeTLV(s.fullName)
	s.point = SizeTLV(s.name)
	return s
}

// check refuses fields that may not stand in a certificate of this template.
func (t *CertificateTemplate) check(f *CertificateFields) error {
	if err := checkSerialNumber(f.SerialNumber); err != nil {
		return err
	}
	if f.NotAfter.Before(f.NotBefore) {
		return invalid("notAfter", "before notBefore")
	}
	if !checkName(f.Subject) {
		return invalid("subject", "not the DER of a Name")
	}
	if f.SubjectAltName != nil && !checkGeneralNames(f.SubjectAltName) {
		return invalid("subjectAltName", "not the DER of a GeneralNames")
	}
	if string(f.Subject) == emptyName && (t.isCA || f.SubjectAltName == nil) {
		return invalid("subject", "empty in a CA certificate or without subjectAltName") // RFC 5280, Section 4.1.2.6
	}
	if _, ok := publicKeyBits(f.SubjectPublicKeyInfo); !ok {
		return invalid("subjectPublicKeyInfo", "not the DER of a SubjectPublicKeyInfo")
	}
	if t.isCA && len(f.SubjectKeyID) == 0 {
		return invalid("subjectKeyIdentifier", "absent in a CA certificate") // RFC 5280, Section 4.2.1.2
	}
	if f.CRLDistributionPoint != "" {
		if t.noRevAvail {
			return invalid("cRLDistributionPoints", "beside noRevAvail") // RFC 9608, Section 3
		}
		if err := checkURI(f.CRLDistributionPoint); err != nil {
			return fmt.Errorf("cRLDistributionPoints: %w", err)
		}
	}
	return nil
}
