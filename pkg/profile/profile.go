package profile

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
)

// Profile is a validated configuration. It does not change and is safe for concurrent use. The slices and pointers it
// hands out are shared: read them only.
type Profile struct {
	config Config

	keyAlgorithms []keys.Algorithm
	anyRSA        bool
	minRSABits    int

	keyUsage            x509.KeyUsage // the override; 0: by kind
	extKeyUsage         []asn1.ObjectIdentifier
	extKeyUsageCritical bool
	policies            []der.PolicyInformation
	nameConstraints     *der.NameConstraints
	pathLen             *int

	subjectAllowed  []asn1.ObjectIdentifier
	subjectRequired []asn1.ObjectIdentifier
	subjectFixed    []der.Attribute

	subjectTemplates []subjectTemplate
	subjectValues    []subjectValues

	sans                          SANRules // lists in normal form
	networks, deniedNetworks      []netip.Prefix
	hardwareTypes, hardwareDenied []asn1.ObjectIdentifier
	deniedURIs                    []string // by foldURI
	sanTemplates                  []sanTemplate

	conditions []condition

	defaultLife, maxLife, backdate Duration
}

// subjectValues are the only values of a type.
type subjectValues struct {
	oid    asn1.ObjectIdentifier
	values []string
}

// kindDefaults are what a configuration leaves out.
type kindDefaults struct {
	life, max, backdate Duration
	purposes            []string
	subject, required   []string
	sans                SANRules
}

var hostSANs = SANRules{DNS: &DNSRules{}, IP: &IPRules{}, URI: &URIRules{}, RequireOneOf: []string{"dns", "ip"}}

func defaultsOf(k Kind) (kindDefaults, bool) {
	const minute = Duration(60e9)
	common := []string{"CN", "O", "OU", "C", "ST", "L", "serialNumber"}
	personal := []string{"DC", "UID", "emailAddress", "givenName", "surname", "title"}
	anyName := SANRules{DNS: &DNSRules{}, IP: &IPRules{}, Email: &EmailRules{}, URI: &URIRules{}, UPN: &UPNRules{}}
	switch k {
	case KindServer:
		return kindDefaults{90 * day, 397 * day, 5 * minute, []string{"serverAuth"}, common, nil, hostSANs}, true
	case KindPeer:
		return kindDefaults{90 * day, 397 * day, 5 * minute, []string{"serverAuth", "clientAuth"}, common, nil, hostSANs}, true
	case KindClient:
		return kindDefaults{year, 825 * day, 5 * minute, []string{"clientAuth"}, slices.Concat(common, personal), []string{"CN"}, anyName}, true
	case KindDevice:
		return kindDefaults{year, 10 * year, 5 * minute, []string{"clientAuth"}, slices.Concat(common, []string{"DC", "UID", "dnQualifier"}), nil, anyName}, true
	case KindEmail:
		sans := SANRules{Email: &EmailRules{}, UPN: &UPNRules{}, RequireOneOf: []string{"email"}}
		return kindDefaults{year, 825 * day, 5 * minute, []string{"emailProtection"}, slices.Concat(common, personal), nil, sans}, true
	case KindOther:
		sans := SANRules{DNS: &DNSRules{}, IP: &IPRules{}, Email: &EmailRules{}, URI: &URIRules{}}
		return kindDefaults{90 * day, year, 5 * minute, nil, common, nil, sans}, true
	case KindCA:
		return kindDefaults{5 * year, 10 * year, day, nil, slices.Concat(common, []string{"DC", "organizationIdentifier"}), []string{"CN"}, SANRules{}}, true
	case KindOCSP:
		return kindDefaults{7 * day, 30 * day, 60 * minute, []string{"OCSPSigning"}, common, nil, SANRules{}}, true
	case KindRA:
		return kindDefaults{year, 2 * year, 60 * minute, []string{"cmcRA"}, common, nil, SANRules{}}, true
	}
	return kindDefaults{}, false
}

// New validates the configuration of a custom profile. Errors are faults whose Field names the configuration's field:
// BadRequest for what cannot be read or does not fit together, PolicyRefused for what only built-in profiles have.
func New(c Config) (*Profile, error) {
	only := func(field, what string) *fault.Error {
		return fault.New(fault.PolicyRefused, "%s is for built-in profiles only", what).WithField(field)
	}
	switch {
	case privileged(c.Kind):
		return nil, only("kind", "the kind "+string(c.Kind))
	case c.CA != nil:
		return nil, only("ca", "making CAs").WithHint("use the profile sub-ca, as an administrator")
	case c.OCSPNoCheck:
		return nil, only("ocspNoCheck", "id-pkix-ocsp-nocheck")
	case c.Internal:
		return nil, only("internal", "internal use")
	}
	if _, found := builtin(c.Name); found {
		return nil, only("name", fmt.Sprintf("the name %q", c.Name)).WithHint("choose another name")
	}
	return build(c)
}

// build validates what all profiles have in common.
func build(c Config) (*Profile, error) {
	c, err := clone(c)
	if err != nil {
		return nil, err
	}
	p := &Profile{config: c}
	if !isName(c.Name) {
		return nil, badField("name", "%q is not 1 to 63 characters of a-z, 0-9 and hyphen", clip(c.Name))
	}
	if utf8.RuneCountInString(c.Description) > 500 {
		return nil, badField("description", "more than 500 characters")
	}
	if _, _, err := normalizeText(c.Description); err != nil {
		return nil, badField("description", "%v", err)
	}
	defaults, known := defaultsOf(c.Kind)
	if !known {
		return nil, badField("kind", "%q is no kind; there are server, client, device, peer, email, other", clip(string(c.Kind)))
	}
	for _, step := range []func(kindDefaults) error{
		p.buildKeys, p.buildUsage, p.buildValidity, p.buildSubject, p.buildSANs, p.buildTemplates, p.buildNames, p.buildExtensions,
		p.buildConditions,
	} {
		if err := step(defaults); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func clone(c Config) (Config, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return Config{}, fmt.Errorf("copying a profile's configuration: %w", err)
	}
	var copied Config
	if err := json.Unmarshal(b, &copied); err != nil {
		return Config{}, fmt.Errorf("copying a profile's configuration: %w", err)
	}
	return copied, nil
}

func badField(field, format string, args ...any) *fault.Error {
	return fault.New(fault.BadRequest, format, args...).WithField(field)
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 63
}

func (p *Profile) buildKeys(kindDefaults) error {
	c := &p.config
	p.minRSABits = max(c.MinRSABits, keys.MinRSABits)
	if c.MinRSABits < 0 || c.MinRSABits != 0 && c.MinRSABits < keys.MinRSABits || c.MinRSABits > keys.MaxRSABits {
		return badField("minRSABits", "%d is not from %d to %d", c.MinRSABits, keys.MinRSABits, keys.MaxRSABits)
	}
	names := c.KeyAlgorithms
	if len(names) == 0 {
		switch c.Kind {
		case KindRA:
			names = []string{"rsa"} // it decrypts
		case KindEmail:
			names = []string{"p-256", "p-384", "p-521", "rsa"}
		default:
			names = []string{"p-256", "p-384", "p-521", "ed25519", "rsa"}
		}
	}
	for i, name := range names {
		if name == "rsa" {
			p.anyRSA = true
			continue
		}
		field := fmt.Sprintf("keyAlgorithms[%d]", i)
		algorithm, err := keys.ParseAlgorithm(name)
		if err != nil {
			return badField(field, "%q is none of rsa, %v", clip(name), keys.Algorithms())
		}
		if algorithm.IsRSA() && int(algorithm) < p.minRSABits {
			return badField(field, "%s is shorter than minRSABits", name)
		}
		if c.Kind == KindRA && !algorithm.IsRSA() {
			return badField(field, "an RA decrypts, which takes an RSA key")
		}
		if slices.Contains(p.keyAlgorithms, algorithm) {
			return badField(field, "%s stands twice", name)
		}
		p.keyAlgorithms = append(p.keyAlgorithms, algorithm)
	}
	if c.MinRSABits != 0 && !p.anyRSA && !slices.ContainsFunc(p.keyAlgorithms, keys.Algorithm.IsRSA) {
		return badField("minRSABits", "keyAlgorithms has no RSA")
	}
	return nil
}

func (p *Profile) buildUsage(defaults kindDefaults) error {
	c := &p.config
	usage, err := parseKeyUsage(c.KeyUsage)
	if err != nil {
		return badField("keyUsage", "%v", err)
	}
	if usage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return fault.New(fault.PolicyRefused, "keyCertSign and cRLSign are for built-in profiles only").WithField("keyUsage")
	}
	if usage&(x509.KeyUsageEncipherOnly|x509.KeyUsageDecipherOnly) != 0 && usage&x509.KeyUsageKeyAgreement == 0 {
		return badField("keyUsage", "encipherOnly and decipherOnly mean something beside keyAgreement only") // RFC 5280, Section 4.2.1.3
	}
	p.keyUsage = usage
	for _, algorithm := range keys.Algorithms() {
		if p.AllowsKey(algorithm) && p.KeyUsage(algorithm) == 0 {
			return badField("keyUsage", "leaves nothing that a %s key is allowed (RFC 8813, RFC 8410)", algorithm).
				WithHint("add digitalSignature, or name the keys in keyAlgorithms")
		}
	}

	names := c.ExtKeyUsage
	if len(names) == 0 {
		names = defaults.purposes
	}
	if len(names) == 0 && c.Kind == KindOther {
		return badField("extKeyUsage", "the kind other names its purposes").WithHint(`for example ["codeSigning"]`)
	}
	for i, name := range names {
		field := fmt.Sprintf("extKeyUsage[%d]", i)
		oid, err := ParseExtKeyUsage(name)
		if err != nil {
			return badField(field, "%v", err)
		}
		if !privileged(c.Kind) && builtinPurpose(oid) {
			return fault.New(fault.PolicyRefused, "%s is for built-in profiles only", ExtKeyUsageName(oid)).WithField(field)
		}
		if containsOID(p.extKeyUsage, oid) {
			return badField(field, "%s stands twice", ExtKeyUsageName(oid))
		}
		p.extKeyUsage = append(p.extKeyUsage, oid)
	}
	if err := p.checkPurposes(); err != nil {
		return err
	}
	if containsOID(p.extKeyUsage, pki.OIDTimeStamping) {
		if len(p.extKeyUsage) > 1 {
			return badField("extKeyUsage", "timeStamping stands alone (RFC 3161, Section 2.3)")
		}
		p.extKeyUsageCritical = true
	}
	return nil
}

// consistent are the key usages of which a purpose takes one at the least (RFC 5280, Section 4.2.1.12).
var consistent = map[string]x509.KeyUsage{
	"serverAuth":      x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
	"clientAuth":      x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
	"codeSigning":     x509.KeyUsageDigitalSignature,
	"emailProtection": x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
	"timeStamping":    x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
	"OCSPSigning":     x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
}

// checkPurposes refuses a purpose that no verifier would grant beside the key usage.
func (p *Profile) checkPurposes() error {
	for _, algorithm := range keys.Algorithms() {
		if !p.AllowsKey(algorithm) {
			continue
		}
		for _, oid := range p.extKeyUsage {
			name := ExtKeyUsageName(oid)
			if wanted, known := consistent[name]; known && p.KeyUsage(algorithm)&wanted == 0 {
				return badField("keyUsage", "of a %s key it is %s, with which %s is good for nothing (RFC 5280, Section 4.2.1.12)", algorithm,
					strings.Join(KeyUsageNames(p.KeyUsage(algorithm)), ", "), name).
					WithHint("it takes one of %s", strings.Join(KeyUsageNames(wanted), ", "))
			}
		}
	}
	return nil
}

func (p *Profile) buildValidity(defaults kindDefaults) error {
	v := p.config.Validity
	const longest, longestBackdate = 100 * year, 2 * year
	for _, f := range []struct {
		field string
		value Duration
		most  Duration
	}{{"validity.default", v.Default, longest}, {"validity.max", v.Max, longest}, {"validity.backdate", deref(v.Backdate), longestBackdate}} {
		if f.value < 0 || f.value > f.most || f.value%1e9 != 0 {
			return badField(f.field, "%s is not whole seconds up to %s", f.value, f.most)
		}
	}
	p.maxLife = v.Max
	if p.maxLife == 0 {
		p.maxLife = max(defaults.max, v.Default)
	}
	p.defaultLife = v.Default
	if p.defaultLife == 0 {
		p.defaultLife = min(defaults.life, p.maxLife)
	}
	if p.defaultLife > p.maxLife {
		return badField("validity.default", "%s is more than validity.max, %s", p.defaultLife, p.maxLife)
	}
	p.backdate = defaults.backdate
	if v.Backdate != nil {
		p.backdate = *v.Backdate
	}
	if v.NoExpiry && p.config.Kind != KindDevice {
		return badField("validity.noExpiry", "only devices can be without an end")
	}
	if v.NoExpiry && v.Default != 0 {
		return badField("validity.default", "beside validity.noExpiry, which is the default then")
	}
	if v.NoExpiry && p.config.NoRevAvail {
		return badField("noRevAvail", "beside validity.noExpiry: such a certificate could never be taken back")
	}
	return nil
}

func deref(d *Duration) Duration {
	if d == nil {
		return 0
	}
	return *d
}

func (p *Profile) buildSubject(defaults kindDefaults) error {
	s := &p.config.Subject
	types := func(field string, names []string) ([]asn1.ObjectIdentifier, error) {
		oids := make([]asn1.ObjectIdentifier, 0, len(names))
		for i, name := range names {
			t, err := attributeTypeByName(name)
			if err != nil {
				return nil, badField(fmt.Sprintf("subject.%s[%d]", field, i), "%v", err)
			}
			oids = append(oids, t.oid)
		}
		return oids, nil
	}
	allowed, required := s.Allowed, s.Required
	if allowed == nil {
		allowed = defaults.subject
	}
	if required == nil {
		required = defaults.required
	}
	var err error
	if p.subjectAllowed, err = types("allowed", allowed); err != nil {
		return err
	}
	if p.subjectRequired, err = types("required", required); err != nil {
		return err
	}
	for i, a := range s.Fixed {
		field := fmt.Sprintf("subject.fixed[%d]", i)
		t, err := attributeTypeByName(a.Type)
		if err != nil {
			return badField(field+".type", "%v", err)
		}
		value, _, err := normalizeAttribute(t, a.Value)
		if err != nil {
			return badField(field+".value", "%s: %v", t.name, err)
		}
		if value == "" {
			return badField(field+".value", "%s: empty", t.name)
		}
		if !t.many && slices.ContainsFunc(p.subjectFixed, func(b der.Attribute) bool { return b.Type.Equal(t.oid) }) {
			return badField(field+".type", "%s stands twice", t.name)
		}
		if t.oid.Equal(pki.OIDCommonName) && (p.config.Kind == KindServer || p.config.Kind == KindPeer) {
			return badField(field+".type", "the CN of a server is one of its names")
		}
		p.subjectFixed = append(p.subjectFixed, der.Attribute{Type: t.oid, Value: value})
	}
	if len(p.subjectFixed) > maxSubjectAttributes/2 {
		return badField("subject.fixed", "more than %d attributes", maxSubjectAttributes/2)
	}
	return nil
}

// sets says that the profile settles attributes of this type itself.
func (p *Profile) sets(oid asn1.ObjectIdentifier) bool { return p.isFixed(oid) || p.isTemplated(oid) }

// canHave says whether a subject can have an attribute of this type.
func (p *Profile) canHave(oid asn1.ObjectIdentifier) bool {
	return p.sets(oid) || p.allowsAttribute(oid)
}

// buildNames refuses what cannot come together in subject and names.
func (p *Profile) buildNames(kindDefaults) error {
	s := &p.config.Subject
	for i, oid := range p.subjectRequired {
		if p.canHave(oid) {
			continue
		}
		if s.Required == nil {
			return badField("subject.allowed", "%s is required by the kind %s, but not allowed", typeOf(oid).name, p.config.Kind).
				WithHint("allow it, or set subject.required to an empty list")
		}
		return badField(fmt.Sprintf("subject.required[%d]", i), "%s is neither allowed nor fixed", typeOf(oid).name)
	}
	if p.config.Kind == KindDevice && !p.canHave(pki.OIDCommonName) && !p.canHave(pki.OIDSerialNumber) {
		return badField("subject.allowed", "a device needs CN or serialNumber, and neither is allowed")
	}
	if p.sans.Email == nil && p.sets(pki.OIDEmailAddress) {
		field := "subject.templates"
		if p.isFixed(pki.OIDEmailAddress) {
			field = "subject.fixed"
		}
		return badField(field, "emailAddress needs its twin among the alternative names; allow sans.email") // RFC 5280, Section 4.1.2.6
	}
	if len(p.subjectAllowed)+len(p.subjectFixed)+len(p.subjectTemplates) == 0 && !slices.ContainsFunc(sanKinds, p.sans.allows) {
		return badField("subject.allowed", "nothing can be named: neither attributes nor alternative names are allowed")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Values)) {
		field := "subject.values." + clip(name)
		t, err := attributeTypeByName(name)
		switch {
		case err != nil:
			return badField(field, "%v", err)
		case p.isFixed(t.oid):
			return badField(field, "%s is fixed", t.name)
		case !p.canHave(t.oid):
			return badField(field, "%s is not allowed in the subject", t.name)
		case len(s.Values[name]) == 0:
			return badField(field, "no value; leave %s out of subject.allowed instead", t.name)
		case slices.ContainsFunc(p.subjectValues, func(v subjectValues) bool { return v.oid.Equal(t.oid) }):
			return badField(field, "%s stands twice", t.name)
		}
		v := subjectValues{oid: t.oid}
		for i, text := range s.Values[name] {
			value, _, err := normalizeAttribute(t, text)
			if err == nil && value == "" {
				err = errors.New("empty")
			}
			if err != nil {
				return badField(fmt.Sprintf("%s[%d]", field, i), "%v", err)
			}
			v.values = append(v.values, value)
		}
		p.subjectValues = append(p.subjectValues, v)
	}
	return nil
}

// allowsValue says whether an attribute has one of the values of its type.
func (p *Profile) allowsValue(a *der.Attribute) bool {
	for i := range p.subjectValues {
		if p.subjectValues[i].oid.Equal(a.Type) {
			return slices.Contains(p.subjectValues[i].values, a.Value)
		}
	}
	return true
}

func (p *Profile) isFixed(oid asn1.ObjectIdentifier) bool {
	for i := range p.subjectFixed {
		if p.subjectFixed[i].Type.Equal(oid) {
			return true
		}
	}
	return false
}

// sanKinds are the names of kinds in configurations, in the order of RFC 5280's choices that they stand for.
var sanKinds = []string{"upn", "hardwareModuleName", "email", "dns", "uri", "ip"}

func (p *Profile) buildSANs(defaults kindDefaults) error {
	p.sans = defaults.sans
	if p.config.SANs != nil {
		p.sans = *p.config.SANs
	}
	s := &p.sans
	if s.Max < 0 || s.Max > 1000 {
		return badField("sans.max", "%d is not from 1 to 1000", s.Max)
	}
	if s.Max == 0 {
		s.Max = 100
	}
	for i, kind := range s.RequireOneOf {
		if !slices.Contains(sanKinds, kind) {
			return badField(fmt.Sprintf("sans.requireOneOf[%d]", i), "%q is none of dns, ip, email, uri, upn, hardwareModuleName", clip(kind))
		}
		if !s.allows(kind) {
			return badField(fmt.Sprintf("sans.requireOneOf[%d]", i), "%s is required, but not allowed", kind)
		}
	}
	domains := func(field string, in []string) ([]string, error) {
		out := make([]string, 0, len(in))
		for i, domain := range in {
			bare, below := strings.CutPrefix(domain, ".")
			host, _, err := normalizeHost(bare, true)
			if err != nil {
				return nil, badField(fmt.Sprintf("sans.%s[%d]", field, i), "%v", err)
			}
			if below {
				host = "." + host
			}
			out = append(out, host)
		}
		return out, nil
	}
	var err error
	if s.DNS != nil {
		rules := *s.DNS
		if rules.Suffixes, err = domains("dns.suffixes", rules.Suffixes); err != nil {
			return err
		}
		if rules.Denied, err = domains("dns.denied", rules.Denied); err != nil {
			return err
		}
		if err := allDenied("sans.dns.suffixes", rules.Suffixes, rules.Denied, within); err != nil {
			return err
		}
		s.DNS = &rules
	}
	if s.Email != nil {
		rules := *s.Email
		if rules.Domains, err = domains("email.domains", rules.Domains); err != nil {
			return err
		}
		if rules.Denied, err = domains("email.denied", rules.Denied); err != nil {
			return err
		}
		if err := allDenied("sans.email.domains", rules.Domains, rules.Denied, hostWithin); err != nil {
			return err
		}
		s.Email = &rules
	}
	if s.UPN != nil {
		rules := *s.UPN
		if rules.Suffixes, err = domains("upn.suffixes", rules.Suffixes); err != nil {
			return err
		}
		if rules.Denied, err = domains("upn.denied", rules.Denied); err != nil {
			return err
		}
		if err := allDenied("sans.upn.suffixes", rules.Suffixes, rules.Denied, hostWithin); err != nil {
			return err
		}
		s.UPN = &rules
	}
	if s.URI != nil {
		if err := checkPrefixes("sans.uri.prefixes", s.URI.Prefixes); err != nil {
			return err
		}
		if err := checkPrefixes("sans.uri.denied", s.URI.Denied); err != nil {
			return err
		}
		for _, prefix := range s.URI.Denied {
			p.deniedURIs = append(p.deniedURIs, foldURI(prefix))
		}
		for i, prefix := range s.URI.Prefixes {
			if p.deniesURI(prefix) {
				return badField(fmt.Sprintf("sans.uri.prefixes[%d]", i), "%q is allowed and denied", clip(prefix))
			}
		}
	}
	if s.IP != nil {
		if p.networks, err = networks("sans.ip.networks", s.IP.Networks); err != nil {
			return err
		}
		if p.deniedNetworks, err = networks("sans.ip.denied", s.IP.Denied); err != nil {
			return err
		}
		for i, n := range p.networks {
			if slices.ContainsFunc(p.deniedNetworks, func(d netip.Prefix) bool { return d.Bits() <= n.Bits() && d.Contains(n.Addr()) }) {
				return badField(fmt.Sprintf("sans.ip.networks[%d]", i), "%s is allowed and denied", n)
			}
		}
	}
	if s.HardwareModuleName != nil {
		if p.hardwareTypes, err = hardwareTypes("sans.hardwareModuleName.types", s.HardwareModuleName.Types); err != nil {
			return err
		}
		if p.hardwareDenied, err = hardwareTypes("sans.hardwareModuleName.denied", s.HardwareModuleName.Denied); err != nil {
			return err
		}
		for i, oid := range p.hardwareTypes {
			if containsOID(p.hardwareDenied, oid) {
				return badField(fmt.Sprintf("sans.hardwareModuleName.types[%d]", i), "%s is allowed and denied", oid)
			}
		}
	}
	return nil
}

// allDenied refuses an allowed pattern that a denied one leaves nothing of.
func allDenied(field string, allowed, denied []string, within func(name, pattern string) bool) error {
	for i, a := range allowed {
		for _, d := range denied {
			if within(a, d) {
				return badField(fmt.Sprintf("%s[%d]", field, i), "%q is allowed and denied", clip(a))
			}
		}
	}
	return nil
}

// hostWithin says whether a pattern of hostMatches is part of another.
func hostWithin(a, d string) bool {
	return a == d || !strings.HasPrefix(a, ".") && hostMatches(a, d) || strings.HasPrefix(d, ".") && strings.HasSuffix(a, d)
}

func checkPrefixes(field string, prefixes []string) error {
	for i, prefix := range prefixes {
		scheme, rest, found := strings.Cut(prefix, ":")
		authority, hierarchical := strings.CutPrefix(rest, "//")
		// A prefix that ends inside a host would let spiffe://example.com.evil through.
		if _, err := normalizeURI(prefix + "x"); !found || scheme == "" || err != nil || hierarchical && !strings.Contains(authority, "/") {
			return badField(fmt.Sprintf("%s[%d]", field, i), "%q is not the beginning of an absolute URI", clip(prefix)).
				WithHint(`for example "spiffe://example.com/" or "urn:"; the host ends with a slash`)
		}
	}
	return nil
}

func networks(field string, texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, text := range texts {
		prefix, err := parseNetwork(text)
		if err != nil {
			return nil, badField(fmt.Sprintf("%s[%d]", field, i), "%v", err)
		}
		out = append(out, prefix)
	}
	return out, nil
}

func hardwareTypes(field string, texts []string) ([]asn1.ObjectIdentifier, error) {
	var out []asn1.ObjectIdentifier
	for i, text := range texts {
		oid, ok := parseOID(text)
		if !ok {
			return nil, badField(fmt.Sprintf("%s[%d]", field, i), "%q is not an object identifier in dotted numbers", clip(text))
		}
		out = append(out, oid)
	}
	return out, nil
}

// allows says whether a kind of name has rules.
func (s *SANRules) allows(kind string) bool {
	switch kind {
	case "dns":
		return s.DNS != nil
	case "ip":
		return s.IP != nil
	case "email":
		return s.Email != nil
	case "uri":
		return s.URI != nil
	case "upn":
		return s.UPN != nil
	case "hardwareModuleName":
		return s.HardwareModuleName != nil
	}
	return false
}

func parseNetwork(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix.Addr().Is4In6() {
		return prefix, fmt.Errorf(`%q is not a network such as "10.0.0.0/8"`, clip(text))
	}
	if prefix != prefix.Masked() {
		return prefix, fmt.Errorf("%q has address bits beyond its length; %s was meant, perhaps", clip(text), prefix.Masked())
	}
	return prefix, nil
}

func (p *Profile) buildExtensions(kindDefaults) error {
	c := &p.config
	for i, text := range c.Policies {
		field := fmt.Sprintf("policies[%d]", i)
		oid, ok := parseOID(text)
		if !ok {
			return badField(field, "%q is not an object identifier in dotted numbers", clip(text))
		}
		if oid.Equal(asn1.ObjectIdentifier{2, 5, 29, 32, 0}) {
			return badField(field, "anyPolicy says nothing")
		}
		if slices.ContainsFunc(p.policies, func(q der.PolicyInformation) bool { return q.Identifier.Equal(oid) }) {
			return badField(field, "%s stands twice", text)
		}
		p.policies = append(p.policies, der.PolicyInformation{Identifier: oid})
	}
	if c.NoRevAvail { // RFC 9608, Section 2
		switch {
		case c.CA != nil:
			return badField("noRevAvail", "not for a CA")
		case c.OCSPNoCheck:
			return badField("noRevAvail", "beside ocspNoCheck, which says the same")
		case c.MustStaple:
			return badField("mustStaple", "beside noRevAvail: there is no status to staple")
		}
	}
	if c.MustStaple && !containsOID(p.extKeyUsage, pki.OIDServerAuth) {
		return badField("mustStaple", "without the purpose serverAuth: TLS servers staple") // RFC 7633, Section 4
	}
	if c.MustStaple && c.NoOCSPAddress {
		return badField("mustStaple", "without the address of the OCSP responder a server has nothing to staple")
	}
	if c.CA == nil {
		return nil
	}
	p.pathLen = c.CA.PathLen
	if p.pathLen != nil && (*p.pathLen < 0 || *p.pathLen > 10) {
		return badField("ca.pathLen", "%d is not from 0 to 10", *p.pathLen)
	}
	if c.CA.NameConstraints == nil {
		return nil
	}
	permitted, err := subtrees("ca.nameConstraints.permitted", c.CA.NameConstraints.Permitted)
	if err != nil {
		return err
	}
	excluded, err := subtrees("ca.nameConstraints.excluded", c.CA.NameConstraints.Excluded)
	if err != nil {
		return err
	}
	p.nameConstraints = &der.NameConstraints{Permitted: permitted, Excluded: excluded}
	if err := allDenied("ca.nameConstraints.permitted.dns", permitted.DNS, excluded.DNS, within); err != nil {
		return err
	}
	if err := allDenied("ca.nameConstraints.permitted.email", permitted.Email, excluded.Email, func(a, d string) bool {
		return a == d || strings.Contains(a, "@") && emailMatches(a, d) || !strings.Contains(a, "@") && !strings.Contains(d, "@") && hostWithin(a, d)
	}); err != nil {
		return err
	}
	if err := allDenied("ca.nameConstraints.permitted.uri", permitted.URI, excluded.URI, hostWithin); err != nil {
		return err
	}
	for i, n := range permitted.IP {
		if slices.ContainsFunc(excluded.IP, func(d netip.Prefix) bool { return d.Bits() <= n.Bits() && d.Contains(n.Addr()) }) {
			return badField(fmt.Sprintf("ca.nameConstraints.permitted.ip[%d]", i), "%s is allowed and denied", n)
		}
	}
	if isEmpty(&permitted) && isEmpty(&excluded) {
		return badField("ca.nameConstraints", "neither permits nor excludes anything") // RFC 5280, Section 4.2.1.10
	}
	return nil
}

func subtrees(field string, rules SubtreeRules) (der.Subtrees, error) {
	var s der.Subtrees
	for i, name := range rules.DNS {
		host, _, err := normalizeHost(name, true)
		if err != nil && name != "" { // "" is all names
			return s, badField(fmt.Sprintf("%s.dns[%d]", field, i), "%v", err)
		}
		s.DNS = append(s.DNS, host)
	}
	for i, network := range rules.IP {
		prefix, err := parseNetwork(network)
		if err != nil {
			return s, badField(fmt.Sprintf("%s.ip[%d]", field, i), "%v", err)
		}
		s.IP = append(s.IP, prefix)
	}
	hosts := func(kind string, names []string, addresses bool) ([]string, error) {
		var out []string
		for i, name := range names {
			if addresses && strings.Contains(name, "@") {
				address, _, _, err := normalizeEmail(name)
				if err != nil {
					return nil, badField(fmt.Sprintf("%s.%s[%d]", field, kind, i), "%v", err)
				}
				out = append(out, address)
				continue
			}
			bare, below := strings.CutPrefix(name, ".")
			host, _, err := normalizeHost(bare, true)
			if err != nil {
				return nil, badField(fmt.Sprintf("%s.%s[%d]", field, kind, i), "%v", err)
			}
			if below {
				host = "." + host
			}
			out = append(out, host)
		}
		return out, nil
	}
	var err error
	if s.Email, err = hosts("email", rules.Email, true); err != nil {
		return s, err
	}
	s.URI, err = hosts("uri", rules.URI, false)
	return s, err
}

func isEmpty(s *der.Subtrees) bool {
	return len(s.DNS)+len(s.IP)+len(s.Email)+len(s.URI)+len(s.Directory) == 0
}

func containsOID(list []asn1.ObjectIdentifier, oid asn1.ObjectIdentifier) bool {
	for _, o := range list {
		if o.Equal(oid) {
			return true
		}
	}
	return false
}

// Config returns a copy of the configuration, as it was written.
func (p *Profile) Config() Config {
	c, err := clone(p.config)
	if err != nil {
		return Config{Name: p.config.Name, Kind: p.config.Kind} // it has been copied before
	}
	return c
}

// Name is how requests call the profile.
func (p *Profile) Name() string { return p.config.Name }

// Description is for people.
func (p *Profile) Description() string { return p.config.Description }

// Kind is what the certificates are for.
func (p *Profile) Kind() Kind { return p.config.Kind }

// Disabled says that nothing is issued with the profile.
func (p *Profile) Disabled() bool { return p.config.Disabled }

// Internal says that only the server itself may use the profile.
func (p *Profile) Internal() bool { return p.config.Internal }

// RequiresAdministrator says that whoever names the profile must be an administrator: its certificates are CAs.
func (p *Profile) RequiresAdministrator() bool { return p.config.CA != nil }

// IsCA says that the certificates are those of CAs.
func (p *Profile) IsCA() bool { return p.config.CA != nil }

// CRLAddress says that certificates carry the address of a CRL.
func (p *Profile) CRLAddress() bool { return !p.config.NoCRLAddress && !p.config.NoRevAvail }

// OCSPAddress says that certificates carry the address of an OCSP responder.
func (p *Profile) OCSPAddress() bool { return !p.config.NoOCSPAddress && !p.config.NoRevAvail }

// Validity returns the life of a certificate whose request names none, and the longest one.
func (p *Profile) Validity() (standard, longest Duration) { return p.defaultLife, p.maxLife }

// AllowsKey says whether keys of this algorithm are certified.
func (p *Profile) AllowsKey(a keys.Algorithm) bool {
	if a.IsRSA() && int(a) < p.minRSABits {
		return false
	}
	return p.anyRSA && a.IsRSA() || slices.Contains(p.keyAlgorithms, a)
}

// KeyAlgorithms returns the algorithms that are certified, of those that can be generated.
func (p *Profile) KeyAlgorithms() []keys.Algorithm {
	return slices.DeleteFunc(keys.Algorithms(), func(a keys.Algorithm) bool { return !p.AllowsKey(a) })
}

// What each type of key may do: RSA does not agree on keys, ECDSA does not encipher (RFC 8813, Section 3), Ed25519
// signs only (RFC 8410, Section 5).
const (
	signing    = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	rsaUsage   = signing | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment
	ecUsage    = signing | x509.KeyUsageKeyAgreement | x509.KeyUsageEncipherOnly | x509.KeyUsageDecipherOnly
	ed25519Use = signing
)

// KeyUsage returns the key usage of certificates for keys of this algorithm, which depends on its type only: RSA, ECDSA
// or Ed25519. Unless the configuration has its own: digitalSignature; for RSA keys of a server, device, peer or RA also
// keyEncipherment; for email also keyEncipherment (RSA) or keyAgreement (ECDSA); for a CA keyCertSign and cRLSign alone.
func (p *Profile) KeyUsage(a keys.Algorithm) x509.KeyUsage {
	usage := p.keyUsage
	if usage == 0 {
		usage = x509.KeyUsageDigitalSignature
		switch p.config.Kind {
		case KindServer, KindDevice, KindPeer, KindRA:
			usage |= x509.KeyUsageKeyEncipherment // for RSA key exchange, and for SCEP answers
		case KindEmail:
			usage |= x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement
		case KindCA:
			usage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		}
	}
	switch {
	case a.IsRSA():
		return usage & rsaUsage
	case a == keys.Ed25519:
		return usage & ed25519Use
	}
	usage &= ecUsage
	if usage&x509.KeyUsageKeyAgreement == 0 {
		usage &^= x509.KeyUsageEncipherOnly | x509.KeyUsageDecipherOnly
	}
	return usage
}

// ExtKeyUsage returns the purposes, in order; none for CAs.
func (p *Profile) ExtKeyUsage() []asn1.ObjectIdentifier { return p.extKeyUsage }

// PathLen is the pathLenConstraint of a CA; nil for no limit.
func (p *Profile) PathLen() *int { return p.pathLen }

// CertificateConfig returns what all certificates of the profile have in common for keys of this algorithm; there are
// three of them at the most, one for each value of KeyUsage. The signature algorithm, issuer, authority key identifier
// and addresses are the caller's to add; see CRLAddress and OCSPAddress.
func (p *Profile) CertificateConfig(a keys.Algorithm) der.CertificateConfig {
	return der.CertificateConfig{
		KeyUsage:            p.KeyUsage(a),
		ExtKeyUsage:         p.extKeyUsage,
		ExtKeyUsageCritical: p.extKeyUsageCritical,
		IsCA:                p.IsCA(),
		PathLen:             p.pathLen,
		Policies:            p.policies,
		NameConstraints:     p.nameConstraints,
		MustStaple:          p.config.MustStaple,
		OCSPNoCheck:         p.config.OCSPNoCheck,
		NoRevAvail:          p.config.NoRevAvail,
	}
}
