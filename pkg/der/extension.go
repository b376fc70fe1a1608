package der

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"
)

// OBJECT IDENTIFIERs in DER.
const (
	extSubjectKeyID          = "\x06\x03\x55\x1d\x0e"
	extKeyUsage              = "\x06\x03\x55\x1d\x0f"
	extSubjectAltName        = "\x06\x03\x55\x1d\x11"
	extBasicConstraints      = "\x06\x03\x55\x1d\x13"
	extCRLNumber             = "\x06\x03\x55\x1d\x14"
	extReasonCode            = "\x06\x03\x55\x1d\x15"
	extInvalidityDate        = "\x06\x03\x55\x1d\x18"
	extDeltaCRLIndicator     = "\x06\x03\x55\x1d\x1b"
	extIssuingDistribution   = "\x06\x03\x55\x1d\x1c"
	extNameConstraints       = "\x06\x03\x55\x1d\x1e"
	extCRLDistributionPoints = "\x06\x03\x55\x1d\x1f"
	extCertificatePolicies   = "\x06\x03\x55\x1d\x20"
	extAuthorityKeyID        = "\x06\x03\x55\x1d\x23"
	extExtKeyUsage           = "\x06\x03\x55\x1d\x25"
	extFreshestCRL           = "\x06\x03\x55\x1d\x2e"
	extNoRevAvail            = "\x06\x03\x55\x1d\x38"                     // RFC 9608, Section 2
	extAuthorityInfoAccess   = "\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x01" // RFC 5280, Section 4.2.2.1
	extTLSFeature            = "\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x18" // RFC 7633, Section 6
	extOCSPNoCheck           = "\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x05"
	extOCSPNonce             = "\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x02"

	oidOCSPBasic = "\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x01"
	oidADOCSP    = "\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x01"
	oidADIssuers = "\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02"
	oidCPS       = "\x06\x08\x2b\x06\x01\x05\x05\x07\x02\x01" // id-qt-cps
)

// derNull is the NULL of the extensions that say everything by being there.
const derNull = "\x05\x00"

// derTrue is BOOLEAN TRUE.
const derTrue = "\x01\x01\xff"

// sizeExtension returns the octets of an Extension whose value has n octets.
func sizeExtension(oid string, critical bool, n int) int {
	content := len(oid) + SizeTLV(n)
	if critical {
		content += len(derTrue)
	}
	return SizeTLV(content)
}

// appendExtensionHeader appends an Extension up to the header of extnValue,
// whose n octets follow. critical is DEFAULT FALSE, so false is not written.
func appendExtensionHeader(dst []byte, oid string, critical bool, n int) []byte {
	content := len(oid) + SizeTLV(n)
	if critical {
		content += len(derTrue)
	}
	dst = AppendHeader(dst, tagSequence, content)
	dst = append(dst, oid...)
	if critical {
		dst = append(dst, derTrue...)
	}
	return AppendHeader(dst, tagOctetString, n)
}

func appendExtension[V []byte | string](dst []byte, oid string, critical bool, value V) []byte {
	return append(appendExtensionHeader(dst, oid, critical, len(value)), value...)
}

// appendKeyUsage appends the value of a KeyUsage extension (RFC 5280, Section
// 4.2.1.3). x509.KeyUsage counts its bits as the RFC does.
func appendKeyUsage(dst []byte, usage x509.KeyUsage) ([]byte, error) {
	if usage <= 0 || bits.Len(uint(usage)) > 9 {
		return nil, invalid("keyUsage", "bit that is not defined")
	}
	return AppendNamedBits(dst, uint32(usage)), nil
}

// appendURLs appends a GeneralName URI for each address. Their use needs a
// scheme a verifier can fetch, so they are checked like any URI.
func appendURLs(dst []byte, urls []string) ([]byte, error) {
	for _, u := range urls {
		if err := checkURI(u); err != nil {
			return nil, err
		}
		dst = appendText(dst, classContext|byte(TagURI), u)
	}
	return dst, nil
}

// appendDistributionPoints appends the value of cRLDistributionPoints or
// freshestCRL: one DistributionPoint with all addresses as names, since they
// are ways to the same CRL (RFC 5280, Section 4.2.1.13).
func appendDistributionPoints(dst []byte, urls []string) ([]byte, error) {
	names, err := appendURLs(nil, urls)
	if err != nil {
		return nil, err
	}
	point := AppendTLV(nil, 0xa0, AppendTLV(nil, 0xa0, names)) // distributionPoint, fullName
	return AppendTLV(dst, tagSequence, AppendTLV(nil, tagSequence, point)), nil
}

// PolicyInformation is one certificate policy (RFC 5280, Section 4.2.1.4).
type PolicyInformation struct {
	Identifier asn1.ObjectIdentifier
	// CPS is the address of the practice statement; "" for none, which the RFC
	// recommends.
	CPS string
}

func appendPolicies(dst []byte, policies []PolicyInformation) ([]byte, error) {
	var content []byte
	for i, p := range policies {
		for _, q := range policies[:i] {
			if p.Identifier.Equal(q.Identifier) { // RFC 5280, Section 4.2.1.4
				return nil, invalid("policyIdentifier", "used twice")
			}
		}
		information, err := AppendOID(nil, p.Identifier)
		if err != nil {
			return nil, err
		}
		if p.CPS != "" {
			if err := checkURI(p.CPS); err != nil {
				return nil, fmt.Errorf("cPSuri: %w", err)
			}
			qualifier := appendText([]byte(oidCPS), tagIA5String, p.CPS)
			information = AppendTLV(information, tagSequence, AppendTLV(nil, tagSequence, qualifier))
		}
		content = AppendTLV(content, tagSequence, information)
	}
	return AppendTLV(dst, tagSequence, content), nil
}

// Subtrees is one side of [NameConstraints]. A kind without entries is not
// constrained by it.
type Subtrees struct {
	// DNS names: each covers itself and everything below. "" covers all names;
	// a leading dot is not RFC 5280's form and is refused.
	DNS []string
	// IP ranges; host bits must be zero. An IPv4-mapped prefix is refused.
	IP []netip.Prefix
	// Email is a mailbox, a host, or with a leading dot all hosts below a
	// domain.
	Email []string
	// URI is a host, or with a leading dot all hosts below a domain; never an
	// IP address.
	URI []string
	// Directory holds Names in DER; each covers the names that begin with it.
	Directory [][]byte
}

// NameConstraints is the critical extension of RFC 5280, Section 4.2.1.10, for
// CA certificates. Permitting names of one kind leaves the other kinds open.
type NameConstraints struct {
	Permitted, Excluded Subtrees
}

func appendNameConstraints(dst []byte, c *NameConstraints) ([]byte, error) {
	permitted, err := appendSubtrees(nil, &c.Permitted)
	if err != nil {
		return nil, fmt.Errorf("permittedSubtrees: %w", err)
	}
	excluded, err := appendSubtrees(nil, &c.Excluded)
	if err != nil {
		return nil, fmt.Errorf("excludedSubtrees: %w", err)
	}
	if len(permitted)+len(excluded) == 0 {
		return nil, invalid("nameConstraints", "empty")
	}
	var content []byte
	if len(permitted) > 0 {
		content = AppendTLV(content, 0xa0, permitted)
	}
	if len(excluded) > 0 {
		content = AppendTLV(content, 0xa1, excluded)
	}
	return AppendTLV(dst, tagSequence, content), nil
}

// appendSubtrees appends GeneralSubtrees without their header. minimum is
// DEFAULT 0 and maximum absent (RFC 5280, Section 4.2.1.10).
func appendSubtrees(dst []byte, s *Subtrees) ([]byte, error) {
	add := func(tag byte, base []byte) {
		dst = AppendTLV(dst, tagSequence, AppendTLV(nil, tag, base))
	}
	for _, name := range s.DNS {
		if name != "" && !isDNSName(name) {
			return nil, invalid("dNSName", "not a domain name without leading dot")
		}
		add(classContext|byte(TagDNSName), []byte(name))
	}
	for _, prefix := range s.IP {
		if !prefix.IsValid() || prefix.Addr().Is4In6() || prefix != prefix.Masked() {
			return nil, invalid("iPAddress", "not an address range with zero host bits")
		}
		base := prefix.Addr().AsSlice()
		for i := range len(base) {
			base = append(base, ^byte(0xff>>min(8, max(0, prefix.Bits()-8*i))))
		}
		add(classContext|byte(TagIPAddress), base)
	}
	for _, name := range s.Email {
		if !isMailbox(name) && !isDNSName(strings.TrimPrefix(name, ".")) {
			return nil, invalid("rfc822Name", "not a mailbox, host or .domain")
		}
		add(classContext|byte(TagRFC822Name), []byte(name))
	}
	for _, name := range s.URI {
		_, err := netip.ParseAddr(name)
		if err == nil || !isDNSName(strings.TrimPrefix(name, ".")) {
			return nil, invalid("uniformResourceIdentifier", "not a host or .domain")
		}
		add(classContext|byte(TagURI), []byte(name))
	}
	for _, name := range s.Directory {
		if !checkName(name) {
			return nil, invalid("directoryName", "not the DER of a Name")
		}
		add(classContext|constructed|byte(TagDirectoryName), name)
	}
	return dst, nil
}

// appendAuthorityKeyID appends the value of an authorityKeyIdentifier with the
// keyIdentifier only (RFC 5280, Section 4.2.1.1).
func appendAuthorityKeyID(dst, keyID []byte) []byte {
	return AppendTLV(dst, tagSequence, AppendTLV(nil, classContext, keyID))
}

func appendInfoAccess(dst []byte, ocspServers, caIssuers []string) ([]byte, error) {
	var content []byte
	for _, list := range []struct {
		method string
		urls   []string
	}{{oidADOCSP, ocspServers}, {oidADIssuers, caIssuers}} {
		for _, u := range list.urls {
			if err := checkURI(u); err != nil {
				return nil, err
			}
			content = AppendTLV(content, tagSequence, appendText([]byte(list.method), classContext|byte(TagURI), u))
		}
	}
	return AppendTLV(dst, tagSequence, content), nil
}
