package profile

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
)

// Wishes are what a CSR asks for; see package csr, whose fields have the same names.
type Wishes struct {
	Subject     []der.Attribute
	SANs        []der.GeneralName
	KeyUsage    x509.KeyUsage
	ExtKeyUsage []asn1.ObjectIdentifier
	IsCA        bool
}

// Issuer is what a certificate's contents depend on in its issuer. The zero value bounds nothing, as for a root that
// signs itself.
type Issuer struct {
	// NotBefore and NotAfter are those of the issuer's certificate; zero: no bound.
	NotBefore, NotAfter time.Time
	// PathLen is its pathLenConstraint; nil: no limit.
	PathLen *int
	// Constraints are the name constraints of it and of the CAs above it.
	Constraints []*Constraints
}

// Input is what a certificate is made from. Nothing of it is changed; the result may share its strings.
type Input struct {
	// PublicKey is the key to certify, checked by package keys. Required.
	PublicKey crypto.PublicKey
	// CSR is what the PKCS #10 request says; zero without one.
	CSR Wishes

	// Subject, if not nil, stands in place of the CSR's; empty asks for an empty subject. [ParseSubject] makes it.
	Subject []der.Attribute
	// SANs, if not nil, stand in place of the CSR's; empty asks for none. [ParseSANs] makes them.
	SANs []der.GeneralName
	// ExtKeyUsage are purposes that the requester names outright. Each must be the profile's; the certificate has all
	// of the profile's.
	ExtKeyUsage []asn1.ObjectIdentifier

	// Requester, Role, Protocol and Source say who asks and how, for conditions; Device is the identity of the device, for
	// conditions and templates.
	Requester, Role, Protocol, Source, Device string
	// Renewal says that Subject and SANs are those of a certificate of this profile, which templates have made already.
	Renewal bool

	// Undecided says that somebody will decide later whether there is to be a certificate: conditions on who that is, when,
	// and for how long are left aside.
	Undecided bool

	// Validity is the life asked for, from Now; zero: the profile's default. Not beside NotAfter.
	Validity time.Duration
	// MaxValidity, if not zero, ends the certificate after so long from Now, whatever it would have been otherwise.
	MaxValidity time.Duration
	// NotBefore and NotAfter, if not zero, are the certificate's own, as they will stand in it.
	NotBefore, NotAfter time.Time

	// Now is the moment of issuance. Required.
	Now time.Time
	// Issuer bounds the certificate.
	Issuer Issuer
	// Reserved are the names of the server's own listeners: DNS names as lower-case A-labels, IP addresses as
	// netip.Addr prints them. Only internal profiles certify them.
	Reserved []string
}

// Contents are what a certificate will say, but for serial number, issuer and key identifiers. What is the same for
// all certificates of a profile is in [Profile.CertificateConfig] too.
type Contents struct {
	// Subject holds one attribute for each RDN, most significant first. It may be empty if SANs is not.
	Subject []der.Attribute
	// SubjectString is Subject by [FormatSubject].
	SubjectString string
	// SANs are in normal form, without repetitions; the critical bit follows from an empty Subject (RFC 5280, Section
	// 4.2.1.6).
	SANs []der.GeneralName
	// SANStrings are SANs as pki.Certificate has them: "DNS:...", "IP:...", "URI:...", "email:...", "UPN:...",
	// "HMN:type/serial".
	SANStrings []string
	// NotBefore and NotAfter are in UTC and whole seconds; NotAfter is inclusive (RFC 5280, Section 4.1.2.5).
	NotBefore, NotAfter time.Time

	KeyAlgorithm keys.Algorithm
	KeyUsage     x509.KeyUsage
	ExtKeyUsage  []asn1.ObjectIdentifier // shared: read only
	IsCA         bool
	PathLen      *int

	// Warnings are for the requester: what was left out or shortened, what looks odd. They hold no secret.
	Warnings []string
}

// builder makes one Contents.
type builder struct {
	p  *Profile
	in *Input
	c  Contents

	explicitSubject, explicitSANs bool
	has                           [len(sanBits)]int // names of each kind
	onlyDerived                   bool              // the first name is a URN of our making
}

// sanBits are indexes into builder.has.
var sanBits = [...]string{"dns", "ip", "email", "uri", "upn", "hardwareModuleName"}

const (
	hasDNS = iota
	hasIP
	hasEmail
	hasURI
	hasUPN
	hasHardwareModuleName
)

// Contents returns what the certificate for a request will say, or why there will be none. Errors are faults with the
// input's field: PolicyRefused where the profile or the issuer forbids it, BadPublicKey for a key of a kind that the
// profile does not certify, BadRequest and BadCSR for names that are none.
func (p *Profile) Contents(in Input) (Contents, error) {
	if p.config.Disabled {
		return Contents{}, refused("profile", "the profile %s is disabled: nothing is issued with it", p.Name())
	}
	b := builder{p: p, in: &in, explicitSubject: in.Subject != nil, explicitSANs: in.SANs != nil}
	for _, step := range [...]func() error{b.key, b.wishes, b.subject, b.names, b.validity} {
		if err := step(); err != nil {
			return Contents{}, err
		}
	}
	for _, constraints := range in.Issuer.Constraints {
		if err := constraints.check(b.c.Subject, b.c.SANs); err != nil {
			return Contents{}, err
		}
	}
	b.c.SubjectString = FormatSubject(b.c.Subject)
	return b.c, b.conditions()
}

func refused(field, format string, args ...any) *fault.Error {
	return fault.New(fault.PolicyRefused, format, args...).WithField(field)
}

// malformed blames whoever wrote the name.
func malformed(explicit bool, field, format string, args ...any) *fault.Error {
	kind := fault.BadCSR
	if explicit {
		kind = fault.BadRequest
	}
	return fault.New(kind, format, args...).WithField(field)
}

func (b *builder) warn(format string, args ...any) {
	b.c.Warnings = append(b.c.Warnings, fmt.Sprintf(format, args...))
}

func (b *builder) key() error {
	algorithm, err := keys.AlgorithmOf(b.in.PublicKey)
	if err != nil {
		return fault.Wrap(fault.BadPublicKey, err, "the key is of a kind that is not certified here").WithField("publicKey")
	}
	if !b.p.AllowsKey(algorithm) {
		return fault.New(fault.BadPublicKey, "the profile %s does not certify %s keys", b.p.Name(), algorithm).WithField("publicKey").
			WithHint("make a key of one of %v", b.p.KeyAlgorithms())
	}
	b.c.KeyAlgorithm = algorithm
	b.c.KeyUsage = b.p.KeyUsage(algorithm)
	b.c.ExtKeyUsage = b.p.extKeyUsage
	b.c.IsCA = b.p.IsCA()
	b.c.PathLen = b.p.pathLen
	if algorithm == keys.Ed25519 {
		b.warn("browsers and several TLS libraries do not read certificates with Ed25519 keys")
	}
	return nil
}

// wishes judges what the request wants beyond names and an end.
func (b *builder) wishes() error {
	p, in := b.p, b.in
	if in.CSR.IsCA && !p.IsCA() {
		return refused("csr", "the CSR asks for a CA certificate (CA:TRUE), which the profile %s does not make", p.Name()).
			WithHint("leave basicConstraints out of the CSR; openssl's section v3_ca puts it there")
	}
	if p.IsCA() && in.Issuer.PathLen != nil && (*in.Issuer.PathLen == 0 || p.pathLen == nil || *p.pathLen >= *in.Issuer.PathLen) {
		// RFC 5280, Section 6.1.4 (l), (m). No limit below a limit would be cut by verifiers, not by us.
		return refused("issuer", "the issuer's path length, %d, leaves no room for this CA", *in.Issuer.PathLen).
			WithHint("let the root sign it")
	}
	for _, oid := range in.ExtKeyUsage {
		if !containsOID(p.extKeyUsage, oid) {
			return refused("extKeyUsage", "the profile %s does not give %s", p.Name(), ExtKeyUsageName(oid)).
				WithHint("it gives %s", purposeNames(p.extKeyUsage))
		}
	}
	for _, oid := range in.CSR.ExtKeyUsage {
		if containsOID(p.extKeyUsage, oid) {
			continue
		}
		if builtinPurpose(oid) || p.config.StrictExtKeyUsage {
			return refused("csr", "the CSR asks for the extended key usage %s, which the profile %s does not give", ExtKeyUsageName(oid), p.Name()).
				WithHint("leave it out of the CSR; the profile sets %s", purposeNames(p.extKeyUsage))
		}
		b.warn("the CSR asks for the extended key usage %s; the profile %s does not give it", ExtKeyUsageName(oid), p.Name())
	}
	if beyond := in.CSR.KeyUsage &^ b.c.KeyUsage; beyond != 0 {
		b.warn("the CSR asks for the key usage %s; the profile %s does not give it to a %s key",
			strings.Join(KeyUsageNames(beyond), ", "), p.Name(), b.c.KeyAlgorithm)
	}
	return nil
}

func purposeNames(oids []asn1.ObjectIdentifier) string {
	if len(oids) == 0 {
		return "none"
	}
	names := make([]string, len(oids))
	for i, oid := range oids {
		names[i] = ExtKeyUsageName(oid)
	}
	return strings.Join(names, ", ")
}

// subject copies the attributes that the profile allows. The common name is settled by names, which knows the others.
func (b *builder) subject() error {
	p, in, from := b.p, b.in, b.requestedSubject()
	if len(from) > maxSubjectAttributes {
		return refused("subject", "the subject has more than %d attributes", maxSubjectAttributes)
	}
	b.c.Subject = append(make([]der.Attribute, 0, len(p.subjectFixed)+len(p.subjectTemplates)+len(from)+1), p.subjectFixed...)
	if err := b.subjectTemplates(); err != nil {
		return err
	}
	for i := range from {
		oid := from[i].Type
		t := typeOf(oid)
		if from[i].Value == "" {
			continue // some devices send their whole form, filled in or not
		}
		isFixed := p.isFixed(oid) || p.isTemplated(oid) && !in.Renewal
		if !isFixed && !p.allowsAttribute(oid) && !p.isTemplated(oid) {
			if p.consumes(oid) {
				continue
			}
			if b.explicitSubject || p.config.StrictSubject {
				return refused("subject", "the profile %s does not allow %s in the subject", p.Name(), t.name)
			}
			b.warn("the profile %s does not allow %s in the subject; it was left out", p.Name(), t.name)
			continue
		}
		value, warning, err := normalizeAttribute(t, from[i].Value)
		if err != nil {
			return malformed(b.explicitSubject, "subject", "%s in the subject: %v", t.name, err)
		}
		if value == "" {
			continue
		}
		if isFixed {
			switch same := slices.ContainsFunc(b.c.Subject, func(a der.Attribute) bool { return a.Type.Equal(oid) && a.Value == value }); {
			case same, p.consumes(oid):
			case b.explicitSubject:
				return refused("subject", "the profile %s sets %s in the subject itself", p.Name(), t.name)
			default:
				b.warn("the profile %s sets %s in the subject itself; the CSR's was left out", p.Name(), t.name)
			}
			continue
		}
		if warning != "" {
			b.warn("%s in the subject: %s", t.name, warning)
		}
		if !t.many && b.attribute(oid) >= 0 {
			// Of two common names one verifier reads the first and another the last.
			return refused("subject", "%s stands twice in the subject", t.name)
		}
		b.c.Subject = append(b.c.Subject, der.Attribute{Type: oid, Value: value})
	}
	return nil
}

// subjectTemplates appends what the profile makes of the request.
func (b *builder) subjectTemplates() error {
	if b.in.Renewal {
		return nil
	}
	for i := range b.p.subjectTemplates {
		t := &b.p.subjectTemplates[i]
		text, err := b.expand(&t.template, func(value string) (string, error) { return value, nil })
		if err != nil {
			return err
		}
		value, warning, err := normalizeAttribute(t.attribute, text)
		if err == nil && value == "" {
			err = errors.New("empty")
		}
		if err != nil {
			return refused("subject", "the profile %s makes %s of the request as %q: %v", b.p.Name(), t.attribute.name, clip(text), err)
		}
		if warning != "" {
			b.warn("%s in the subject: %s", t.attribute.name, warning)
		}
		b.c.Subject = append(b.c.Subject, der.Attribute{Type: t.attribute.oid, Value: value})
	}
	return nil
}

// allowsAttribute says whether requests may bring the type. An emailAddress needs its twin among the alternative names
// (RFC 5280, Section 4.1.2.6).
func (p *Profile) allowsAttribute(oid asn1.ObjectIdentifier) bool {
	return containsOID(p.subjectAllowed, oid) && (p.sans.Email != nil || !oid.Equal(pki.OIDEmailAddress))
}

// attribute returns the place of the first attribute of a type, or -1.
func (b *builder) attribute(oid asn1.ObjectIdentifier) int {
	for i := range b.c.Subject {
		if b.c.Subject[i].Type.Equal(oid) {
			return i
		}
	}
	return -1
}

func (b *builder) removeAttribute(i int) { b.c.Subject = slices.Delete(b.c.Subject, i, i+1) }

// normalizeAttribute returns the value in the alphabet and length of its type; empty if nothing is left.
func normalizeAttribute(t attributeType, value string) (text, warning string, err error) {
	if text, warning, err = normalizeText(value); err != nil || text == "" {
		return "", "", err
	}
	switch t.kind {
	case printableString:
		for i := range len(text) {
			if c := text[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(" '()+,-./:=?", c) < 0 {
				return "", "", errors.New("characters beyond a PrintableString (letters, digits, space and '()+,-./:=?)")
			}
		}
	case ia5String:
		if !isASCII(text) {
			return "", "", errors.New("characters beyond ASCII")
		}
	}
	switch {
	case t.oid.Equal(pki.OIDCountry):
		text = strings.ToUpper(text)
		if len(text) != 2 || text[0] < 'A' || text[0] > 'Z' || text[1] < 'A' || text[1] > 'Z' {
			return "", "", errors.New("not the two letters of a country (ISO 3166-1)")
		}
	case t.oid.Equal(pki.OIDEmailAddress):
		if text, _, _, err = normalizeEmail(text); err != nil {
			return "", "", err
		}
	}
	if len(text) > t.max && utf8.RuneCountInString(text) > t.max { // RFC 5280, Appendix A.1
		return "", "", fmt.Errorf("more than %d characters", t.max)
	}
	return text, warning, nil
}

// names settles the alternative names and the common name, each of which may give the other.
func (b *builder) names() error {
	p, from := b.p, b.requestedSANs()
	made, err := b.sanTemplates()
	if err != nil {
		return err
	}
	if p.sans.OnlyTemplates && !b.in.Renewal {
		if from, err = b.onlyTemplates(from, made); err != nil {
			return err
		}
	}
	from = slices.Concat(from, made)
	if n := len(from); n > 0 {
		if n > p.sans.Max {
			return refused("sans", "%d names; the profile %s allows %d", n, p.Name(), p.sans.Max)
		}
		b.c.SANs = make([]der.GeneralName, 0, n+1)
		b.c.SANStrings = make([]string, 0, n+1)
	}
	for i := range from {
		if err := b.add(&from[i]); err != nil {
			return err
		}
	}
	if err := b.emailAttribute(); err != nil {
		return err
	}
	if len(b.c.SANs) == 0 && !b.explicitSANs {
		if err := b.derive(); err != nil {
			return err
		}
	}
	if len(b.c.SANs) > p.sans.Max {
		return refused("sans", "%d names; the profile %s allows %d", len(b.c.SANs), p.Name(), p.sans.Max)
	}
	if err := b.commonName(); err != nil {
		return err
	}
	return b.complete()
}

// sanTemplates returns the names that the profile makes of the request.
func (b *builder) sanTemplates() ([]der.GeneralName, error) {
	if b.in.Renewal || len(b.p.sanTemplates) == 0 {
		return nil, nil
	}
	names := make([]der.GeneralName, 0, len(b.p.sanTemplates))
	for i := range b.p.sanTemplates {
		t := &b.p.sanTemplates[i]
		text, err := b.expand(&t.template, t.put)
		if err != nil {
			return nil, err
		}
		name, err := ParseSAN(t.prefix + text)
		if err != nil {
			return nil, refused("sans", "the profile %s makes a name of the request as %q: %v", b.p.Name(), clip(t.prefix+text), err)
		}
		names = append(names, name)
	}
	return names, nil
}

// onlyTemplates drops or refuses the names that a request brings itself. Those that the profile makes too are no matter.
func (b *builder) onlyTemplates(from, made []der.GeneralName) ([]der.GeneralName, error) {
	for i := range from {
		same := slices.ContainsFunc(made, func(n der.GeneralName) bool {
			return n.Tag == from[i].Tag && n.Text == from[i].Text && slices.Equal(n.Raw, from[i].Raw) && n.TypeID.Equal(from[i].TypeID)
		})
		switch {
		case same:
		case b.explicitSANs:
			return nil, refused("sans", "the profile %s makes the names itself", b.p.Name()).WithHint("leave sans out of the request")
		default:
			b.warn("the profile %s makes the names itself; those of the CSR were left out", b.p.Name())
			return nil, nil
		}
	}
	return nil, nil
}

// complete refuses what lacks something.
func (b *builder) complete() error {
	p := b.p
	for i := range b.c.Subject {
		if a := &b.c.Subject[i]; !p.allowsValue(a) {
			return refused("subject", "the profile %s does not allow %q as %s", p.Name(), clip(a.Value), typeOf(a.Type).name)
		}
	}
	for _, oid := range p.subjectRequired {
		if b.attribute(oid) < 0 {
			return refused("subject", "the profile %s needs %s in the subject", p.Name(), typeOf(oid).name)
		}
	}
	if p.config.Kind == KindDevice && b.attribute(pki.OIDCommonName) < 0 && b.attribute(pki.OIDSerialNumber) < 0 {
		return refused("subject", "the profile %s needs CN or serialNumber in the subject", p.Name())
	}
	if len(p.sans.RequireOneOf) > 0 {
		found := false
		for i, kind := range sanBits {
			found = found || b.has[i] > 0 && slices.Contains(p.sans.RequireOneOf, kind)
		}
		if !found {
			return refused("sans", "the profile %s needs a name of the kind %s", p.Name(), strings.Join(p.sans.RequireOneOf, " or ")).
				WithHint("put it into the CSR (openssl req -addext subjectAltName=...) or give sans in the request")
		}
	}
	if len(b.c.Subject) == 0 && (len(b.c.SANs) == 0 || privileged(p.config.Kind)) {
		return refused("subject", "the request names nothing: subject and alternative names are empty") // RFC 5280, Section 4.1.2.6
	}
	return nil
}

// add checks one name and appends its normal form.
func (b *builder) add(n *der.GeneralName) error {
	p := b.p
	bad := func(err error) error { return malformed(b.explicitSANs, "sans", "%v", err) }
	disallowed := func(what string) error {
		return refused("sans", "the profile %s does not allow %s", p.Name(), what)
	}
	var name der.GeneralName
	var text string
	var kind int
	switch n.Tag {
	case der.TagDNSName:
		if p.sans.DNS == nil {
			return disallowed("DNS names")
		}
		host, err := b.host(n.Text)
		if err != nil {
			return err
		}
		name, text, kind = der.DNSName(host), "DNS:"+host, hasDNS
	case der.TagIPAddress:
		if p.sans.IP == nil {
			return disallowed("IP addresses")
		}
		addr, _ := netip.AddrFromSlice(n.Raw)
		addr, err := normalizeIP(addr)
		if err != nil {
			return bad(err)
		}
		if len(p.networks) > 0 && !slices.ContainsFunc(p.networks, func(n netip.Prefix) bool { return n.Contains(addr) }) {
			return refused("sans", "%s is in none of the networks of the profile %s", addr, p.Name())
		}
		if slices.ContainsFunc(p.deniedNetworks, func(n netip.Prefix) bool { return n.Contains(addr) }) {
			return refused("sans", "the profile %s denies %s", p.Name(), addr)
		}
		written := addr.String()
		if err := b.checkReserved(written); err != nil {
			return err
		}
		name, text, kind = der.IPAddress(addr), "IP:"+written, hasIP
	case der.TagRFC822Name:
		if p.sans.Email == nil {
			return disallowed("email addresses")
		}
		address, domain, warning, err := normalizeEmail(n.Text)
		if err != nil {
			return bad(err)
		}
		if err := b.domain(domain, p.sans.Email.Domains, p.sans.Email.Denied); err != nil {
			return err
		}
		if warning != "" {
			b.warn("email address: %s", warning)
		}
		name, text, kind = der.EmailAddress(address), "email:"+address, hasEmail
	case der.TagURI:
		if p.sans.URI == nil {
			return disallowed("URIs")
		}
		host, err := normalizeURI(n.Text)
		if err != nil {
			return bad(err)
		}
		if !p.allowsURI(n.Text) {
			return refused("sans", "%q begins with none of the prefixes of the profile %s", clip(n.Text), p.Name())
		}
		if p.deniesURI(n.Text) {
			return refused("sans", "the profile %s denies %q", p.Name(), clip(n.Text))
		}
		if err := b.checkReserved(host); err != nil {
			return err
		}
		name, text, kind = der.URI(n.Text), "URI:"+n.Text, hasURI
	case der.TagOtherName:
		if isHardwareModule(n) {
			if p.sans.HardwareModuleName == nil {
				return disallowed("hardware module names")
			}
			var err error
			if name, text, err = b.hardwareModuleName(n); err != nil {
				return err
			}
			kind = hasHardwareModuleName
			break
		}
		if n.Raw != nil || n.Text == "" || !isUPN(n) {
			return disallowed("otherNames but for user principal and hardware module names")
		}
		if p.sans.UPN == nil {
			return disallowed("user principal names")
		}
		upn, realm, warning, err := normalizeUPN(n.Text)
		if err != nil {
			return bad(err)
		}
		if err := b.domain(realm, p.sans.UPN.Suffixes, p.sans.UPN.Denied); err != nil {
			return err
		}
		if warning != "" {
			b.warn("user principal name: %s", warning)
		}
		name, text, kind = der.UPN(upn), "UPN:"+upn, hasUPN
	default:
		return disallowed("names of the kind " + n.Tag.String())
	}
	if slices.Contains(b.c.SANStrings, text) {
		return nil
	}
	b.c.SANs = append(b.c.SANs, name)
	b.c.SANStrings = append(b.c.SANStrings, text)
	b.has[kind]++
	return nil
}

var upnType = der.UPN("").TypeID

func isUPN(n *der.GeneralName) bool { return n.TypeID.Equal(upnType) }

// hardwareModuleName checks a name against the profile's rules and returns its normal form.
func (b *builder) hardwareModuleName(n *der.GeneralName) (der.GeneralName, string, error) {
	m, err := parseHardwareModule(n)
	if err != nil {
		return der.GeneralName{}, "", malformed(b.explicitSANs, "sans", "%v", err)
	}
	p := b.p
	if len(p.hardwareTypes) > 0 && !containsOID(p.hardwareTypes, m.kind) || containsOID(p.hardwareDenied, m.kind) {
		return der.GeneralName{}, "", refused("sans", "%s is none of the hardware types of the profile %s", m.kind, p.Name())
	}
	name, err := m.name()
	return name, "HMN:" + m.String(), err
}

// host checks a DNS name or wildcard against the profile's rules and returns its normal form.
func (b *builder) host(text string) (string, error) {
	rules := b.p.sans.DNS
	bare, wildcard := strings.CutPrefix(text, "*.")
	host, warning, err := normalizeHost(bare, rules.Underscores)
	if err != nil {
		return "", malformed(b.explicitSANs, "sans", "%v", err)
	}
	if wildcard {
		if !rules.Wildcards {
			return "", refused("sans", "the profile %s does not allow wildcards such as %q", b.p.Name(), clip(text))
		}
		if !strings.Contains(host, ".") {
			return "", refused("sans", "%q: a wildcard stands before two labels at least", clip(text))
		}
		host = "*." + host
	}
	if len(rules.Suffixes) > 0 && !slices.ContainsFunc(rules.Suffixes, func(s string) bool { return within(host, s) }) {
		return "", refused("sans", "%q is in none of the domains of the profile %s", clip(host), b.p.Name())
	}
	for _, denied := range rules.Denied {
		if touches(host, denied) {
			return "", refused("sans", "the profile %s denies %q", b.p.Name(), clip(host))
		}
	}
	if warning != "" {
		b.warn("DNS name: %s", warning)
	}
	return host, b.checkReserved(host)
}

// domain checks the domain of an address.
func (b *builder) domain(domain string, allowed, denied []string) error {
	if len(allowed) > 0 && !slices.ContainsFunc(allowed, func(a string) bool { return hostMatches(domain, a) }) {
		return refused("sans", "%q is none of the domains of the profile %s", clip(domain), b.p.Name())
	}
	if slices.ContainsFunc(denied, func(d string) bool { return hostMatches(domain, d) }) {
		return refused("sans", "the profile %s denies %q", b.p.Name(), clip(domain))
	}
	return nil
}

func (p *Profile) allowsURI(uri string) bool {
	return len(p.sans.URI.Prefixes) == 0 || slices.ContainsFunc(p.sans.URI.Prefixes, func(prefix string) bool { return strings.HasPrefix(uri, prefix) })
}

func (p *Profile) deniesURI(uri string) bool {
	folded := foldURI(uri)
	return slices.ContainsFunc(p.deniedURIs, func(prefix string) bool { return strings.HasPrefix(folded, prefix) })
}

// foldURI takes from a URI what different writings of the same have apart: letter case, percent-encoding, user and port.
// It is for refusing, where too much is better than too little.
func foldURI(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return strings.ToLower(uri)
	}
	if u.Opaque != "" || u.Host == "" {
		text, err := url.PathUnescape(uri)
		if err != nil {
			text = uri
		}
		return strings.ToLower(text)
	}
	path := u.Path // decoded
	if path == "" {
		path = "/"
	}
	return strings.ToLower(u.Scheme + "://" + u.Hostname() + path)
}

// checkReserved keeps the names of our own listeners to ourselves, also from wildcards: whoever had a certificate for
// them could read what clients send to the CA.
func (b *builder) checkReserved(host string) error {
	if host == "" || b.p.Internal() {
		return nil
	}
	base, wildcard := strings.CutPrefix(host, "*.")
	for _, reserved := range b.in.Reserved {
		covered := reserved == host
		if wildcard && !covered {
			_, parent, found := strings.Cut(reserved, ".")
			covered = found && parent == base
		}
		if covered {
			return refused("sans", "%q is a name of this server itself", clip(host))
		}
	}
	return nil
}

// emailAttribute gives every emailAddress of the subject its twin among the names.
func (b *builder) emailAttribute() error {
	i := b.attribute(pki.OIDEmailAddress)
	if i < 0 || b.p.sans.Email == nil {
		return nil
	}
	address := b.c.Subject[i].Value
	if slices.Contains(b.c.SANStrings, "email:"+address) {
		return nil
	}
	if b.explicitSANs && !b.explicitSubject && !b.p.sets(pki.OIDEmailAddress) {
		b.warn("the emailAddress of the CSR's subject is none of the names of the request; it was left out")
		b.removeAttribute(i)
		return nil
	}
	name := der.EmailAddress(address)
	return b.add(&name)
}

// Prefixes of the URNs that stand for a client or device that has no other name.
const (
	urnClient = "urn:certwright:client:"
	urnDevice = "urn:certwright:device:"
)

// derive makes a name from the subject of a request that has none; see [SANRules].
func (b *builder) derive() error {
	p := b.p
	cn := ""
	if i := b.attribute(pki.OIDCommonName); i >= 0 {
		cn = b.c.Subject[i].Value
	}
	var name der.GeneralName
	switch kind := p.config.Kind; kind {
	case KindServer, KindPeer:
		if addr, err := netip.ParseAddr(cn); err == nil && p.sans.IP != nil {
			name = der.IPAddress(addr)
		} else if _, ok := looksLikeHost(cn); ok && p.sans.DNS != nil {
			name = der.DNSName(cn)
		} else {
			return nil
		}
	case KindEmail:
		if !strings.Contains(cn, "@") || p.sans.Email == nil {
			return nil
		}
		name = der.EmailAddress(cn)
	case KindClient, KindDevice:
		dots := 2
		if kind == KindDevice {
			dots = 1
		}
		urn := ""
		if strings.Contains(cn, "@") && p.sans.Email != nil {
			if _, _, _, err := normalizeEmail(cn); err == nil {
				name = der.EmailAddress(cn)
				break
			}
		}
		if p.sans.DNS != nil && strings.Count(cn, ".") >= dots {
			if _, _, err := normalizeHost(cn, p.sans.DNS.Underscores); err == nil {
				name = der.DNSName(cn)
				break
			}
		}
		switch i := b.attribute(pki.OIDSerialNumber); {
		case kind == KindClient && cn != "":
			urn = urnClient + url.PathEscape(cn)
		case kind == KindDevice && cn != "":
			urn = urnDevice + url.PathEscape(cn)
		case kind == KindDevice && i >= 0:
			urn = urnDevice + url.PathEscape(b.c.Subject[i].Value)
		default:
			return nil
		}
		if p.sans.URI == nil || !p.allowsURI(urn) || p.deniesURI(urn) || slices.ContainsFunc(b.in.Issuer.Constraints, (*Constraints).constrainsURIs) {
			return nil
		}
		name, b.onlyDerived = der.URI(urn), true
	default:
		return nil
	}
	return b.add(&name)
}

// commonName holds the common name to the names, or takes it from them.
func (b *builder) commonName() error {
	p := b.p
	i := b.attribute(pki.OIDCommonName)
	if i < 0 {
		b.commonNameFromSAN()
		return nil
	}
	cn := b.c.Subject[i].Value
	host, looks := "", false
	if addr, err := netip.ParseAddr(cn); err == nil {
		host, looks = addr.Unmap().String(), true
	} else if host, looks = looksLikeHost(cn); !looks && strings.Contains(cn, "*") {
		return refused("subject", "the CN %q has a wildcard that is not the whole leftmost label", clip(cn))
	}
	if !looks {
		return nil
	}
	if err := b.checkReserved(host); err != nil {
		return err
	}
	// Programs that read the common name would take it for a host that nobody has checked.
	server := p.config.Kind == KindServer || p.config.Kind == KindPeer
	if !server && !strings.HasPrefix(host, "*.") {
		return nil
	}
	for j := range b.c.SANs {
		if tag := b.c.SANs[j].Tag; (tag == der.TagDNSName || tag == der.TagIPAddress) && strings.HasSuffix(b.c.SANStrings[j], ":"+host) &&
			len(b.c.SANStrings[j])-len(host) <= len("DNS:") {
			if server && len(host) > 64 {
				b.removeAttribute(i) // its A-labels are longer than what was typed
			} else if server {
				b.c.Subject[i].Value = host
			}
			return nil
		}
	}
	if b.explicitSANs && !b.explicitSubject && !p.sets(pki.OIDCommonName) {
		b.warn("the CN of the CSR, %q, is none of the names of the request; it was left out", clip(cn))
		b.removeAttribute(i)
		b.commonNameFromSAN()
		return nil
	}
	return refused("subject", "the CN %q is a host name, but none of the alternative names", clip(cn)).
		WithHint("add it to the alternative names, or leave CN out: it becomes the first of them")
}

// commonNameFromSAN appends the first name that people would call the holder by, if it fits.
func (b *builder) commonNameFromSAN() {
	p := b.p
	if p.config.Subject.NoCNFromSAN || privileged(p.config.Kind) || b.onlyDerived || !containsOID(p.subjectAllowed, pki.OIDCommonName) ||
		b.explicitSubject && len(b.in.Subject) == 0 {
		return
	}
	for i, text := range b.c.SANStrings {
		if b.c.SANs[i].Tag == der.TagURI {
			continue
		}
		_, value, _ := strings.Cut(text, ":")
		if len(value) <= 64 || utf8.RuneCountInString(value) <= 64 {
			b.c.Subject = append(b.c.Subject, der.Attribute{Type: pki.OIDCommonName, Value: value})
		}
		return
	}
}

// validity computes notBefore and notAfter. Arithmetic is in seconds: times may lie further apart than a time.Duration
// reaches.
func (b *builder) validity() error {
	p, in := b.p, b.in
	v := p.config.Validity
	now := in.Now.UTC().Truncate(time.Second)
	issuerEnd := in.Issuer.NotAfter.UTC()
	if !in.Issuer.NotAfter.IsZero() && issuerEnd.Before(now) {
		return refused("issuer", "the issuer's certificate ended on %s", issuerEnd.Format(time.RFC3339)).WithHint("renew the issuer, or choose another")
	}
	if !in.Issuer.NotBefore.IsZero() && in.Issuer.NotBefore.After(now) {
		return refused("issuer", "the issuer's certificate begins on %s only", in.Issuer.NotBefore.UTC().Format(time.RFC3339))
	}

	notBefore := now.Add(-time.Duration(p.backdate))
	if !in.NotBefore.IsZero() {
		asked := in.NotBefore.UTC().Truncate(time.Second)
		if asked.Before(notBefore) {
			return refused("notBefore", "the profile %s backdates certificates by %s at the most", p.Name(), p.backdate)
		}
		notBefore = asked
	}
	if notBefore.Before(in.Issuer.NotBefore) {
		if !in.NotBefore.IsZero() {
			return refused("notBefore", "the issuer itself begins on %s", in.Issuer.NotBefore.UTC().Format(time.RFC3339))
		}
		notBefore = in.Issuer.NotBefore.UTC().Truncate(time.Second)
		if notBefore.Before(in.Issuer.NotBefore) {
			notBefore = notBefore.Add(time.Second)
		}
	}

	// notAfter is inclusive: a life of n seconds ends with the second n-1 (RFC 5280, Section 4.1.2.5).
	longest := now.Add(time.Duration(p.maxLife)).Add(-time.Second)
	explicit := in.Validity != 0 || !in.NotAfter.IsZero()
	var notAfter time.Time
	field := "validity"
	switch {
	case in.Validity != 0 && !in.NotAfter.IsZero():
		return fault.New(fault.BadRequest, "a life and an end are two ways to say the same").WithField("notAfter").WithHint("give one of validity and notAfter")
	case in.Validity != 0:
		if in.Validity < time.Second {
			return fault.New(fault.BadRequest, "a life of less than a second").WithField("validity")
		}
		notAfter = now.Add(in.Validity.Truncate(time.Second)).Add(-time.Second)
	case !in.NotAfter.IsZero():
		field, notAfter = "notAfter", in.NotAfter.UTC().Truncate(time.Second)
	case v.NoExpiry:
		notAfter = pki.NoExpiry
	default:
		notAfter = now.Add(time.Duration(p.defaultLife)).Add(-time.Second)
	}
	if explicit && notAfter.After(longest) {
		if !v.Clamp {
			return refused(field, "the profile %s gives %s at the most", p.Name(), p.maxLife)
		}
		b.warn("the profile %s gives %s at the most; the certificate ends with that", p.Name(), p.maxLife)
		notAfter = longest
	}
	if end := now.Add(in.MaxValidity.Truncate(time.Second)).Add(-time.Second); in.MaxValidity > 0 && notAfter.After(end) {
		notAfter = end
	}
	if !in.Issuer.NotAfter.IsZero() && notAfter.After(issuerEnd) {
		if explicit && !v.Clamp {
			return refused(field, "the issuer itself ends on %s", issuerEnd.Format(time.RFC3339)).WithHint("ask for an earlier end, or choose another issuer")
		}
		b.warn("the certificate ends with its issuer, on %s", issuerEnd.Format(time.RFC3339))
		notAfter = issuerEnd.Truncate(time.Second)
	}
	if notAfter.Before(now) || notAfter.Before(notBefore) {
		return fault.New(fault.BadRequest, "the certificate would end before it begins").WithField(field)
	}
	if notBefore.Year() < 1950 || notAfter.After(pki.NoExpiry) {
		return refused(field, "the certificate's time is not from 1950 to 9999") // RFC 5280, Section 4.1.2.5
	}
	b.c.NotBefore, b.c.NotAfter = notBefore, notAfter
	return nil
}
