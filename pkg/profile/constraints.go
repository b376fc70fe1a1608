package profile

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/text/unicode/norm"
)

// Constraints are the name constraints of an issuer's certificate, ready to be checked against (RFC 5280, Section
// 4.2.1.10). Safe for concurrent use.
type Constraints struct {
	der.NameConstraints
	// OtherNames says that there are constraints on otherNames. They are not evaluated: no UPN is certified then.
	OtherNames bool
}

// ParseConstraints reads the value of a nameConstraints extension. Constraints on kinds of names that no profile
// certifies (x400Address, ediPartyName, registeredID) are passed over; a minimum or maximum is an error, as is
// anything malformed.
func ParseConstraints(value []byte) (*Constraints, error) {
	errMalformed := errors.New("malformed nameConstraints")
	input := cryptobyte.String(value)
	var content, permitted, excluded cryptobyte.String
	var havePermitted, haveExcluded bool
	if !input.ReadASN1(&content, cbasn1.SEQUENCE) || !input.Empty() ||
		!content.ReadOptionalASN1(&permitted, &havePermitted, cbasn1.Tag(0).Constructed().ContextSpecific()) ||
		!content.ReadOptionalASN1(&excluded, &haveExcluded, cbasn1.Tag(1).Constructed().ContextSpecific()) ||
		!content.Empty() || !havePermitted && !haveExcluded {
		return nil, errMalformed
	}
	c := &Constraints{}
	for _, side := range []struct {
		input cryptobyte.String
		out   *der.Subtrees
	}{{permitted, &c.Permitted}, {excluded, &c.Excluded}} {
		for !side.input.Empty() {
			var subtree, base cryptobyte.String
			var tag cbasn1.Tag
			if !side.input.ReadASN1(&subtree, cbasn1.SEQUENCE) || !subtree.ReadAnyASN1(&base, &tag) {
				return nil, errMalformed
			}
			if !subtree.Empty() { // minimum is DEFAULT 0, maximum absent
				return nil, errors.New("nameConstraints with a minimum or maximum")
			}
			text := strings.ToLower(string(base))
			switch tag {
			case cbasn1.Tag(0).Constructed().ContextSpecific():
				c.OtherNames = true
			case cbasn1.Tag(1).ContextSpecific():
				if at := strings.LastIndexByte(string(base), '@'); at >= 0 {
					text = string(base[:at]) + text[at:] // only the domain has no letter case
				}
				side.out.Email = append(side.out.Email, text)
			case cbasn1.Tag(2).ContextSpecific():
				side.out.DNS = append(side.out.DNS, text)
			case cbasn1.Tag(4).Constructed().ContextSpecific():
				if _, err := parseDirectoryName(base); err != nil {
					return nil, err
				}
				side.out.Directory = append(side.out.Directory, base)
			case cbasn1.Tag(6).ContextSpecific():
				side.out.URI = append(side.out.URI, text)
			case cbasn1.Tag(7).ContextSpecific():
				prefix, ok := prefixOf(base)
				if !ok {
					return nil, errors.New("nameConstraints: iPAddress is not an address and a mask")
				}
				side.out.IP = append(side.out.IP, prefix)
			}
		}
	}
	return c, nil
}

// prefixOf reads an address followed by its mask.
func prefixOf(b []byte) (netip.Prefix, bool) {
	if len(b) != 8 && len(b) != 32 {
		return netip.Prefix{}, false
	}
	addr, _ := netip.AddrFromSlice(b[:len(b)/2])
	length, ended := 0, false
	for _, octet := range b[len(b)/2:] {
		for bit := 7; bit >= 0; bit-- {
			one := octet>>bit&1 == 1
			if one && ended {
				return netip.Prefix{}, false
			}
			if one {
				length++
			}
			ended = !one
		}
	}
	return netip.PrefixFrom(addr, length).Masked(), true
}

// constrainsURIs says that URIs without a host are refused (RFC 5280, Section 4.2.1.10).
func (c *Constraints) constrainsURIs() bool { return len(c.Permitted.URI)+len(c.Excluded.URI) > 0 }

// check refuses a name that a verifier of the issuer's chain would refuse.
func (c *Constraints) check(subject []der.Attribute, sans []der.GeneralName) error {
	hasDNS := false
	for i := range sans {
		var err error
		switch n := &sans[i]; n.Tag {
		case der.TagDNSName:
			hasDNS = true
			err = c.checkDNS(n.Text)
		case der.TagRFC822Name:
			err = c.checkText("the address", n.Text, c.Permitted.Email, c.Excluded.Email, emailMatches)
		case der.TagURI:
			err = c.checkURI(n.Text)
		case der.TagIPAddress:
			err = c.checkIP(n.Raw)
		case der.TagOtherName:
			if c.OtherNames {
				err = outside("the user principal name", n.Text)
			}
		}
		if err != nil {
			return err
		}
	}
	if !hasDNS {
		// OpenSSL holds a common name that looks like a host name to the constraints on DNS names when there are none.
		for i := range subject {
			if !subject[i].Type.Equal(pki.OIDCommonName) {
				continue
			}
			if host, ok := looksLikeHost(subject[i].Value); ok && strings.Contains(host, ".") {
				if err := c.checkDNS(host); err != nil {
					return err
				}
			}
		}
	}
	if len(subject) == 0 || len(c.Permitted.Directory)+len(c.Excluded.Directory) == 0 {
		return nil
	}
	ok := len(c.Permitted.Directory) == 0
	for _, name := range c.Permitted.Directory {
		ok = ok || beginsWith(subject, name)
	}
	for _, name := range c.Excluded.Directory {
		ok = ok && !beginsWith(subject, name)
	}
	if !ok {
		return outside("the subject", FormatSubject(subject))
	}
	return nil
}

func outside(what, name string) error {
	return fault.New(fault.PolicyRefused, "the issuer's name constraints do not allow %s %q", what, clip(name)).
		WithField("sans").WithHint("choose another issuer, or a name within its constraints")
}

func (c *Constraints) checkText(what, name string, permitted, excluded []string, match func(name, pattern string) bool) error {
	ok := len(permitted) == 0
	for _, pattern := range permitted {
		ok = ok || match(name, pattern)
	}
	for _, pattern := range excluded {
		ok = ok && !match(name, pattern)
	}
	if !ok {
		return outside(what, name)
	}
	return nil
}

// checkDNS wants all names that a wildcard covers inside what is permitted, and none inside what is excluded.
func (c *Constraints) checkDNS(name string) error {
	if err := c.checkText("the DNS name", name, c.Permitted.DNS, nil, within); err != nil {
		return err
	}
	return c.checkText("the DNS name", name, nil, c.Excluded.DNS, touches)
}

func (c *Constraints) checkURI(uri string) error {
	if !c.constrainsURIs() {
		return nil
	}
	host, err := normalizeURI(uri)
	if err != nil {
		return outside("the URI", uri)
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return outside("the URI", uri)
	}
	return c.checkText("the URI", host, c.Permitted.URI, c.Excluded.URI, hostMatches)
}

func (c *Constraints) checkIP(raw []byte) error {
	addr, _ := netip.AddrFromSlice(raw)
	ok := len(c.Permitted.IP) == 0
	for _, prefix := range c.Permitted.IP {
		ok = ok || prefix.Contains(addr)
	}
	for _, prefix := range c.Excluded.IP {
		ok = ok && !prefix.Contains(addr)
	}
	if !ok {
		return outside("the IP address", addr.String())
	}
	return nil
}

func emailMatches(address, pattern string) bool {
	if strings.Contains(pattern, "@") {
		return address == pattern
	}
	return hostMatches(address[strings.LastIndexByte(address, '@')+1:], pattern)
}

// rdnAttribute is an attribute in the form in which it is compared.
type rdnAttribute struct {
	oid   asn1.ObjectIdentifier
	value string
}

// parseDirectoryName reads a Name for comparison, one slice for each RDN.
func parseDirectoryName(name []byte) ([][]rdnAttribute, error) {
	errMalformed := errors.New("nameConstraints: malformed directoryName")
	input := cryptobyte.String(name)
	var content cryptobyte.String
	if !input.ReadASN1(&content, cbasn1.SEQUENCE) || !input.Empty() {
		return nil, errMalformed
	}
	var rdns [][]rdnAttribute
	for !content.Empty() {
		var set cryptobyte.String
		if !content.ReadASN1(&set, cbasn1.SET) || set.Empty() {
			return nil, errMalformed
		}
		var rdn []rdnAttribute
		for !set.Empty() {
			var attribute, value cryptobyte.String
			var a rdnAttribute
			var tag cbasn1.Tag
			if !set.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&a.oid) ||
				!attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() {
				return nil, errMalformed
			}
			switch tag {
			case cbasn1.UTF8String, cbasn1.PrintableString, cbasn1.IA5String:
			default:
				return nil, fmt.Errorf("nameConstraints: directoryName with a string type (%d) that is not compared", tag)
			}
			a.value = foldForComparison(string(value))
			rdn = append(rdn, a)
		}
		rdns = append(rdns, rdn)
	}
	return rdns, nil
}

// foldForComparison prepares a value as RFC 5280, Section 7.1, compares it: without letter case, spaces collapsed.
func foldForComparison(s string) string {
	return strings.Join(strings.Fields(strings.ToLower(norm.NFKC.String(s))), " ")
}

// beginsWith says whether the subject, each attribute an RDN of its own, begins with a Name.
func beginsWith(subject []der.Attribute, name []byte) bool {
	rdns, err := parseDirectoryName(name)
	if err != nil || len(rdns) > len(subject) {
		return false
	}
	for i, rdn := range rdns {
		if len(rdn) != 1 || !rdn[0].oid.Equal(subject[i].Type) || rdn[0].value != foldForComparison(subject[i].Value) {
			return false
		}
	}
	return true
}
