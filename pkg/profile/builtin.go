package profile

import (
	"slices"

	"github.com/certwright/certwright/pkg/fault"
)

// Names of the built-in profiles.
const (
	Server  = "server"
	Client  = "client"
	Device  = "device"
	Peer    = "peer"
	Email   = "email"
	SubCA   = "sub-ca"
	Root    = "root"
	Issuing = "issuing"
	OCSP    = "ocsp"
	RA      = "ra"
	HTTPS   = "https"
)

// Builtins returns the configurations of the built-in profiles: server, client, device, peer, email and sub-ca, which
// requests can name (sub-ca: see [Profile.RequiresAdministrator]), then root, issuing, ocsp, ra and https, which only
// the server uses. Everything in them that is not said here is the kind's default. The slice is the caller's.
func Builtins() []Config {
	return []Config{
		{Name: Server, Kind: KindServer, Description: "TLS servers: web, mail, database, message broker"},
		{Name: Client, Kind: KindClient, Description: "People and services that prove themselves to TLS servers"},
		{Name: Device, Kind: KindDevice, Description: "Devices that enroll and renew by themselves", StrictExtKeyUsage: true},
		{Name: Peer, Kind: KindPeer, Description: "Servers that are TLS clients of each other"},
		{Name: Email, Kind: KindEmail, Description: "Signed and encrypted email (S/MIME)"},
		{Name: SubCA, Kind: KindCA, Description: "A CA below one of ours whose key is elsewhere", CA: &CARules{PathLen: new(0)}},
		{
			Name: Root, Kind: KindCA, Description: "A trust anchor, signed by itself", Internal: true, CA: &CARules{},
			Validity: ValidityRules{Default: 20 * year, Max: 30 * year},
			// A root is trusted by being there; nothing below it can revoke it (RFC 5280, Section 6.1).
			NoCRLAddress: true, NoOCSPAddress: true,
		},
		{
			Name: Issuing, Kind: KindCA, Description: "The CA that signs everything but CAs", Internal: true,
			CA: &CARules{PathLen: new(0)}, Validity: ValidityRules{Default: 10 * year, Max: 20 * year},
		},
		{
			Name: OCSP, Kind: KindOCSP, Description: "Signs OCSP answers for an issuer", Internal: true,
			// Whose status nobody asks for: short life instead (RFC 6960, Section 4.2.2.2.1).
			OCSPNoCheck: true, NoCRLAddress: true, NoOCSPAddress: true,
		},
		{Name: RA, Kind: KindRA, Description: "Signs and decrypts SCEP messages", Internal: true},
		{
			Name: HTTPS, Kind: KindServer, Description: "The server's own HTTPS listeners", Internal: true,
			Validity: ValidityRules{Default: 30 * day, Max: 90 * day},
			SANs:     &SANRules{DNS: &DNSRules{Wildcards: true, Underscores: true}, IP: &IPRules{}, RequireOneOf: []string{"dns", "ip"}},
		},
	}
}

func builtin(name string) (Config, bool) {
	for _, c := range Builtins() {
		if c.Name == name {
			return c, true
		}
	}
	return Config{}, false
}

// NewBuiltin makes a built-in profile. Its configuration is that of [Builtins], in which an administrator may change
// what any profile can say (description, validity, keys, names, policies, addresses), and name constraints and, but
// for issuing, the path length of a CA; kind, key usage and purposes of the CA, OCSP and RA profiles, ocspNoCheck and
// internal stay. Errors are as those of [New]; NotFound when no built-in profile has this name.
func NewBuiltin(c Config) (*Profile, error) {
	base, found := builtin(c.Name)
	if !found {
		return nil, fault.New(fault.NotFound, "no built-in profile is called %q", clip(c.Name)).WithField("name")
	}
	fixed := func(field string) error {
		return fault.New(fault.PolicyRefused, "the built-in profile %s cannot change this", c.Name).WithField(field)
	}
	switch {
	case c.Kind != base.Kind:
		return nil, fixed("kind")
	case c.Internal != base.Internal:
		return nil, fixed("internal")
	case c.OCSPNoCheck != base.OCSPNoCheck:
		return nil, fixed("ocspNoCheck")
	case (c.CA == nil) != (base.CA == nil):
		return nil, fixed("ca")
	case privileged(c.Kind) && len(c.KeyUsage) > 0:
		return nil, fixed("keyUsage")
	case privileged(c.Kind) && len(c.ExtKeyUsage) > 0:
		return nil, fixed("extKeyUsage")
	case c.Name == Root && (!c.NoCRLAddress || !c.NoOCSPAddress):
		return nil, fixed("noCRLAddress")
	}
	if c.CA != nil && base.CA.PathLen != nil {
		// A CA of ours that may sign CAs is one more certificate that can do harm; a stranger's may, when told to.
		if c.CA.PathLen == nil || c.Name == Issuing && *c.CA.PathLen != 0 {
			return nil, fixed("ca.pathLen")
		}
	}
	return build(c)
}

// privileged says that a kind is of built-in profiles only.
func privileged(k Kind) bool { return slices.Contains([]Kind{KindCA, KindOCSP, KindRA}, k) }
