package profile

import "github.com/certwright/certwright/pkg/document"

// Kind is what the certificates of a profile are for. It gives key usage, purposes, rules for names and validity their
// defaults.
type Kind string

// The kinds. The last three are of built-in profiles only.
const (
	KindServer Kind = "server" // TLS servers: serverAuth, needs a DNS name or an IP address
	KindClient Kind = "client" // people and services towards TLS servers: clientAuth
	KindDevice Kind = "device" // machines that enroll by themselves: clientAuth, long life
	KindPeer   Kind = "peer"   // both ends of TLS: serverAuth and clientAuth
	KindEmail  Kind = "email"  // S/MIME: emailProtection, needs an address
	KindOther  Kind = "other"  // anything else: names its own purposes

	KindCA   Kind = "ca"   // signs certificates and CRLs
	KindOCSP Kind = "ocsp" // signs OCSP answers for its issuer
	KindRA   Kind = "ra"   // signs and decrypts for a registration protocol
)

// Config is what an administrator writes. Every field but Name, Kind and, for KindOther, ExtKeyUsage may be left out.
type Config struct {
	// Name is how requests call the profile: 1 to 63 of a-z, 0-9 and hyphen, not first or last a hyphen. Required.
	Name string `json:"name"`
	// Description is for people; at most 500 characters.
	Description string `json:"description,omitempty"`
	// Kind gives the other fields their defaults. Required.
	Kind Kind `json:"kind"`
	// Disabled retires the profile: nothing is issued or renewed with it. Its certificates stay as they are, and it can
	// come back. Profiles are not deleted, since certificates name the version that made them.
	Disabled bool `json:"disabled,omitempty"`

	// KeyUsage replaces the rule of the kind: names of RFC 5280, Section 4.2.1.3, such as "digitalSignature". Bits that
	// a key's type does not allow are left out of its certificates (RFC 8813, RFC 8410). Default: by kind and key
	// type; see [Profile.KeyUsage].
	KeyUsage []string `json:"keyUsage,omitempty"`
	// ExtKeyUsage holds the purposes by name ("serverAuth") or dotted numbers. Default: by kind. timeStamping stands
	// alone and is critical (RFC 3161, Section 2.3).
	ExtKeyUsage []string `json:"extKeyUsage,omitempty"`

	// Validity bounds the certificates' life.
	Validity ValidityRules `json:"validity,omitzero"`

	// KeyAlgorithms are the keys that are certified: "p-256", "p-384", "p-521", "ed25519", "rsa-2048", "rsa-3072",
	// "rsa-4096", or "rsa" for RSA of any size. Default: all of them; without ed25519 for KindEmail, whose programs
	// cannot use it; "rsa" for KindRA.
	KeyAlgorithms []string `json:"keyAlgorithms,omitempty"`
	// MinRSABits is the shortest RSA modulus. Default and least: 2048.
	MinRSABits int `json:"minRSABits,omitempty"`

	// Subject bounds the distinguished name.
	Subject SubjectRules `json:"subject,omitzero"`
	// SANs bounds the subject alternative names. Default: by kind; see [SANRules].
	SANs *SANRules `json:"sans,omitempty"`

	// Conditions are what the lists cannot say; each must be true for a certificate to be made. Default: none, most 20.
	Conditions []Condition `json:"conditions,omitempty"`

	// Policies are certificate policies in dotted numbers (RFC 5280, Section 4.2.1.4). anyPolicy is refused.
	Policies []string `json:"policies,omitempty"`
	// MustStaple adds the TLS feature status_request (RFC 7633). For TLS servers: it takes the purpose serverAuth.
	MustStaple bool `json:"mustStaple,omitempty"`
	// NoRevAvail says that nobody will tell of a revocation (RFC 9608): short life instead. No addresses of CRLs and
	// OCSP responders then, no MustStaple, not for a CA.
	NoRevAvail bool `json:"noRevAvail,omitempty"`
	// NoCRLAddress leaves cRLDistributionPoints out.
	NoCRLAddress bool `json:"noCRLAddress,omitempty"`
	// NoOCSPAddress leaves the OCSP responder out of authorityInfoAccess.
	NoOCSPAddress bool `json:"noOCSPAddress,omitempty"`

	// StrictSubject refuses a CSR with an attribute type in its subject beyond the profile. Otherwise the attribute is
	// left out of the certificate with a warning: CSRs made with openssl's defaults are full of them. What an API
	// request names outright is always refused, and so is an alternative name beyond the profile, wherever it stands.
	StrictSubject bool `json:"strictSubject,omitempty"`
	// StrictExtKeyUsage does the same for purposes in a CSR. The built-in profile device has it, so that SCEP refuses
	// what it does not give. Purposes of built-in profiles only, such as anyExtendedKeyUsage, are refused in any case.
	StrictExtKeyUsage bool `json:"strictExtKeyUsage,omitempty"`

	// CA makes certificates of CAs. Built-in profiles only.
	CA *CARules `json:"ca,omitempty"`
	// OCSPNoCheck adds id-pkix-ocsp-nocheck (RFC 6960, Section 4.2.2.2.1). Built-in profiles only.
	OCSPNoCheck bool `json:"ocspNoCheck,omitempty"`
	// Internal marks a profile that only the server itself can use. Built-in profiles only.
	Internal bool `json:"internal,omitempty"`
}

// ValidityRules bound a certificate's life, which is counted from the moment of issuance: backdating makes it longer,
// not what is left of it shorter.
//
//	kind    default  max   backdate
//	server  90d      397d  5m
//	client  1y       825d  5m
//	device  1y       10y   5m
//	peer    90d      397d  5m
//	email   1y       825d  5m
//	other   90d      1y    5m
//	ca      5y       10y   1d   (root 20y, 30y; issuing 10y, 20y)
//	ocsp    7d       30d   1h
//	ra      1y       2y    1h
type ValidityRules struct {
	// Default is the life of a certificate whose request names none. It ends with the issuer at the latest.
	Default Duration `json:"default,omitempty"`
	// Max is the longest life that can be asked for. A Default beyond the kind's Max raises it.
	Max Duration `json:"max,omitempty"`
	// Backdate is how far before issuance notBefore lies, for verifiers whose clock is slow; up to 2 years, for devices
	// that have none. Never before the issuer's notBefore.
	Backdate *Duration `json:"backdate,omitempty"`
	// Clamp shortens a request that asks for more than Max, or more than the issuer has left, instead of refusing it.
	Clamp bool `json:"clamp,omitempty"`
	// NoExpiry makes the default end 99991231235959Z, "no well-defined expiration date" (RFC 5280, Section 4.1.2.5),
	// if the issuer has none either; otherwise the issuer's end. For KindDevice (IEEE 802.1AR) only.
	NoExpiry bool `json:"noExpiry,omitempty"`
}

// SubjectRules bound the distinguished name. Attribute types are given by name (CN, O, OU, C, ST, L, STREET, DC, UID,
// serialNumber, emailAddress, givenName, surname, title, ...) or in dotted numbers.
type SubjectRules struct {
	// Allowed are the types that may come from a request. Default, by kind: CN, O, OU, C, ST, L, serialNumber; for
	// client and email also DC, UID, emailAddress, givenName, surname, title; for device also DC, UID, dnQualifier; for
	// ca also DC, organizationIdentifier. An empty list, unlike an absent one, allows none.
	Allowed []string `json:"allowed,omitzero"`
	// Required are types that must be in the certificate, from the request, Fixed or the rule for CN. Default: CN for
	// client and ca; a device needs CN or serialNumber whatever stands here. An empty list requires none.
	Required []string `json:"required,omitzero"`
	// Fixed attributes stand first in every subject, in this order; a request cannot change them.
	Fixed []FixedAttribute `json:"fixed,omitempty"`
	// Templates are attributes that are made from the request, such as {"type": "CN", "value": "{device}"}; they stand
	// after Fixed, in this order. A request cannot set them otherwise. In a value {CN}, or any other type, is the
	// request's own attribute of that type, {OU[1]} its second OU, {device} the device, {san.dns[0]} the first DNS name
	// of the request; {device|CN} is the first of them that the request has, {{ and }} are braces. A request that lacks
	// what a template needs is refused. A renewal keeps what the template made.
	Templates []FixedAttribute `json:"templates,omitempty"`
	// Values are the only values that attributes of these types may have, by type, as in {"O": ["Acme", "Acme Labs"]}.
	Values map[string][]string `json:"values,omitempty"`
	// NoCNFromSAN leaves CN out when the request has none. Otherwise CN is then the first DNS name, IP address, email
	// address or UPN, if it has at most 64 characters.
	NoCNFromSAN bool `json:"noCNFromSAN,omitempty"`
}

// FixedAttribute is an attribute that every subject of a profile has.
type FixedAttribute struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// SANRules bound the subject alternative names. A kind of name is allowed when its rules are there, though they be
// empty. Without any SANRules in the configuration:
//
//	server, peer    dns, ip, uri; one of dns, ip
//	client, device  dns, ip, email, uri, upn
//	email           email, upn; one of email
//	other           dns, ip, email, uri
//	ca, ocsp, ra    none
//
// A request without names gets some from its subject. server, peer: CN, if it is a DNS name or an IP address. email:
// emailAddress, or CN if it is an address. client, device: emailAddress, or CN if it is an address; CN if it is a DNS
// name (of three labels for a client, since j.smith is a person); otherwise the URI urn:certwright:client:CN or
// urn:certwright:device:CN (or :serialNumber), percent-encoded, because some verifiers refuse a client without any
// subjectAltName, and a URN, unlike other names, means nothing to the rest.
type SANRules struct {
	DNS   *DNSRules   `json:"dns,omitempty"`
	IP    *IPRules    `json:"ip,omitempty"`
	Email *EmailRules `json:"email,omitempty"`
	URI   *URIRules   `json:"uri,omitempty"`
	UPN   *UPNRules   `json:"upn,omitempty"`
	// HardwareModuleName allows id-on-hardwareModuleName (RFC 4108, Section 5), by which IEEE 802.1AR devices are known.
	HardwareModuleName *HardwareModuleNameRules `json:"hardwareModuleName,omitempty"`
	// RequireOneOf names kinds ("dns", "ip", "email", "uri", "upn", "hardwareModuleName"), one of which must be there.
	// Empty: none.
	RequireOneOf []string `json:"requireOneOf,omitempty"`
	// Templates are names that every certificate gets beside those of the request, such as
	// "URI:spiffe://example.com/{device}" or "DNS:{CN}.devices.example.com"; see SubjectRules.Templates for what stands in
	// braces. What is put in cannot leave its place: in a DNS name it is one label, in an address it has no @, in a URI
	// it is percent-encoded. The result must obey the other rules as every name does.
	Templates []string `json:"templates,omitempty"`
	// OnlyTemplates leaves the names of CSRs out, with a warning, and refuses those that an API request names outright.
	OnlyTemplates bool `json:"onlyTemplates,omitempty"`
	// Max is the largest number of names. Default 100, most 1000.
	Max int `json:"max,omitempty"`
}

// DNSRules bound DNS names. "example.com" in a list stands for itself and all names below, ".example.com" for those
// below only.
type DNSRules struct {
	// Suffixes, if there are any, are the only domains allowed.
	Suffixes []string `json:"suffixes,omitempty"`
	// Denied domains are refused, also when a wildcard would cover them.
	Denied []string `json:"denied,omitempty"`
	// Wildcards allows *.example.com: the whole leftmost label, before two others at least.
	Wildcards bool `json:"wildcards,omitempty"`
	// Underscores allows _ in labels, which host names do not have (RFC 1123, Section 2.1).
	Underscores bool `json:"underscores,omitempty"`
}

// IPRules bound IP addresses.
type IPRules struct {
	// Networks, if there are any, are the only ones allowed, as in "10.0.0.0/8".
	Networks []string `json:"networks,omitempty"`
	// Denied networks are refused.
	Denied []string `json:"denied,omitempty"`
}

// EmailRules bound email addresses.
type EmailRules struct {
	// Domains, if there are any, are the only ones allowed: "example.com" for itself, ".example.com" for those below.
	Domains []string `json:"domains,omitempty"`
	// Denied domains are refused, in the same form.
	Denied []string `json:"denied,omitempty"`
}

// URIRules bound URIs.
type URIRules struct {
	// Prefixes, if there are any: a URI must begin with one of them, each of which has a scheme and, if it goes on,
	// ends at a whole part, as in "spiffe://example.com/" or "urn:".
	Prefixes []string `json:"prefixes,omitempty"`
	// Denied prefixes are refused, in the same form.
	Denied []string `json:"denied,omitempty"`
}

// UPNRules bound Microsoft's user principal names.
type UPNRules struct {
	// Suffixes, if there are any, are the only realms allowed, in the form of EmailRules.Domains.
	Suffixes []string `json:"suffixes,omitempty"`
	// Denied realms are refused, in the same form.
	Denied []string `json:"denied,omitempty"`
}

// HardwareModuleNameRules bound hardware module names.
type HardwareModuleNameRules struct {
	// Types, if there are any, are the only hardware types allowed, in dotted numbers.
	Types []string `json:"types,omitempty"`
	// Denied types are refused.
	Denied []string `json:"denied,omitempty"`
}

// Condition is a rule in the Common Expression Language (https://cel.dev), such as
//
//	sans.dns.all(n, n.endsWith(".eu.example.com")) || role == "administrator"
//
// It sees the certificate as it would be made, and who asks:
//
//	cn            string                     the CN, or ""
//	subject       map(string, list(string))  attributes by type, as in subject.O[0]; has(subject.O) asks for one
//	sans          map(string, list(string))  names by kind: dns, ip, email, uri, upn, hardwareModuleName; all are there
//	keyAlgorithm  string                     "p-256", "rsa-3072", ...
//	keyType       string                     "ecdsa", "rsa", "ed25519"
//	keyBits       int
//	requester     string                     as in "token:deploy"
//	role          string                     "enroller", "operator", "administrator"; "none" for a certificate's holder
//	device        string
//	protocol      string                     "rest", "scep", ...
//	source        string                     network address of the request, or ""
//	renewal       bool
//	validity      duration                   from now to the end
//	now, notBefore, notAfter  timestamp
//
// inNetwork(address, "10.0.0.0/8") says whether an address is in a network; the network is written out, as is the
// pattern of matches.
//
// The expression is compiled with the profile. What does not compile, is not a bool, or can cost more than the limit is
// refused; the limit holds at run time too. A condition that fails to be evaluated refuses the request.
type Condition struct {
	Expr string `json:"expr"`
	// Message tells the requester what is wanted; at most 300 characters. Default: the expression.
	Message string `json:"message,omitempty"`
}

// CARules are what only CA certificates have.
type CARules struct {
	// PathLen is how many CAs may stand below (RFC 5280, Section 4.2.1.9); absent: any number.
	PathLen *int `json:"pathLen,omitempty"`
	// NameConstraints bound the names that CAs below and their certificates may have. Permitting DNS names leaves other
	// kinds open: exclude IP addresses by 0.0.0.0/0 and ::/0.
	NameConstraints *ConstraintRules `json:"nameConstraints,omitempty"`
}

// ConstraintRules are name constraints as RFC 5280, Section 4.2.1.10, writes them.
type ConstraintRules struct {
	Permitted SubtreeRules `json:"permitted,omitzero"`
	Excluded  SubtreeRules `json:"excluded,omitzero"`
}

// SubtreeRules are one side of ConstraintRules.
type SubtreeRules struct {
	DNS   []string `json:"dns,omitempty"`   // "example.com": itself and all names below
	IP    []string `json:"ip,omitempty"`    // "10.0.0.0/8"
	Email []string `json:"email,omitempty"` // an address, a host, or ".domain"
	URI   []string `json:"uri,omitempty"`   // a host, or ".domain"
}

// ParseConfig reads the JSON of a configuration. Unknown and repeated fields, and anything after the object, are
// refused. The result has not been validated; that is for [New]. Errors are faults of the kind BadRequest.
func ParseConfig(b []byte) (Config, error) { return document.Parse[Config](b, "profile") }
