package profile_test

import (
	"crypto/x509"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/google/go-cmp/cmp"
)

func TestParseConfig(t *testing.T) {
	c, err := profile.ParseConfig([]byte(`{
		"name": "web", "kind": "server", "description": "for the web",
		"validity": {"default": "30d", "max": "1y", "backdate": "0s"},
		"keyAlgorithms": ["p-256", "rsa"], "minRSABits": 3072,
		"subject": {"allowed": [], "fixed": [{"type": "O", "value": "Acme"}]},
		"sans": {"dns": {"suffixes": ["example.com"], "wildcards": true}, "ip": {"networks": ["10.0.0.0/8"]}, "requireOneOf": ["dns"], "max": 5}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	want := profile.Config{
		Name: "web", Kind: profile.KindServer, Description: "for the web",
		Validity: profile.ValidityRules{
			Default: profile.Duration(30 * 24 * time.Hour), Max: profile.Duration(365 * 24 * time.Hour), Backdate: new(profile.Duration(0)),
		},
		KeyAlgorithms: []string{"p-256", "rsa"}, MinRSABits: 3072,
		Subject: profile.SubjectRules{Allowed: []string{}, Fixed: []profile.FixedAttribute{{Type: "O", Value: "Acme"}}},
		SANs: &profile.SANRules{
			DNS: &profile.DNSRules{Suffixes: []string{"example.com"}, Wildcards: true},
			IP:  &profile.IPRules{Networks: []string{"10.0.0.0/8"}}, RequireOneOf: []string{"dns"}, Max: 5,
		},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("ParseConfig (-want +got):\n%s", diff)
	}
	p, err := profile.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, p.Config()); diff != "" {
		t.Errorf("Config (-want +got):\n%s", diff)
	}
	want.SANs.DNS.Suffixes[0] = "changed"
	if p.Config().SANs.DNS.Suffixes[0] != "example.com" {
		t.Error("the profile shares its configuration")
	}
	written, err := json.Marshal(p.Config())
	if err != nil {
		t.Fatal(err)
	}
	again, err := profile.ParseConfig(written)
	if diff := cmp.Diff(p.Config(), again); err != nil || diff != "" {
		t.Errorf("written and read again: %v (-want +got):\n%s", err, diff)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	tests := []struct{ name, text, field, detail string }{
		{"unknown field", `{"name":"a","colour":"red"}`, "colour", "no such field"},
		{"unknown field inside", `{"name":"a","sans":{"dns":{"colour":1}}}`, "sans.dns.colour", "no such field"},
		{"unknown field in a list", `{"name":"a","conditions":[{"expr":"true"},{"expression":"true"}]}`, "conditions[1].expression", "no such field"},
		{"wrong type", `{"name":7}`, "name", "wrong type"},
		{"number for a duration", `{"validity":{"max":7}}`, "validity.max", "wrong type"},
		{"no duration", `{"validity":{"max":"soon"}}`, "validity.max", "not a duration"},
		{"a field twice", `{"name":"a","name":"b"}`, "name", "twice"},
		{"a field twice in other letters", `{"kind":"server","Kind":"client"}`, "Kind", "twice"},
		{"a field twice inside", `{"subject":{"fixed":[{"type":"O","type":"C"}]}}`, "subject.fixed[0].type", "twice"},
		{"something after", `{"name":"a"} {}`, "", "follows"},
		{"no object", `[]`, "", "wrong type"},
		{"cut off", `{"name":`, "", "not the JSON"},
		{"array cut off", `{"policies":[x`, "", "not the JSON"},
		{"empty", ``, "", "not the JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := profile.ParseConfig([]byte(tt.text))
			wantFault(t, err, fault.BadRequest, tt.field, tt.detail)
		})
	}
}

func TestNewRefuses(t *testing.T) {
	dns := func(d profile.DNSRules) *profile.SANRules { return &profile.SANRules{DNS: &d} }
	tests := []struct {
		name   string
		change func(*profile.Config)
		kind   fault.Kind
		field  string
		detail string
	}{
		{"no name", func(c *profile.Config) { c.Name = "" }, fault.BadRequest, "name", "characters"},
		{"capital name", func(c *profile.Config) { c.Name = "Web" }, fault.BadRequest, "name", "characters"},
		{"hyphen at the end", func(c *profile.Config) { c.Name = "web-" }, fault.BadRequest, "name", "characters"},
		{"long name", func(c *profile.Config) { c.Name = strings.Repeat("a", 64) }, fault.BadRequest, "name", "characters"},
		{"name of a built-in profile", func(c *profile.Config) { c.Name = "ocsp" }, fault.PolicyRefused, "name", "built-in"},
		{"control character in the description", func(c *profile.Config) { c.Description = "a\x1b[2J" }, fault.BadRequest, "description", "U+001B"},
		{"no kind", func(c *profile.Config) { c.Kind = "" }, fault.BadRequest, "kind", "no kind"},
		{"unknown kind", func(c *profile.Config) { c.Kind = "toaster" }, fault.BadRequest, "kind", "no kind"},
		{"kind ca", func(c *profile.Config) { c.Kind = profile.KindCA }, fault.PolicyRefused, "kind", "built-in"},
		{"kind ocsp", func(c *profile.Config) { c.Kind = profile.KindOCSP }, fault.PolicyRefused, "kind", "built-in"},
		{"kind ra", func(c *profile.Config) { c.Kind = profile.KindRA }, fault.PolicyRefused, "kind", "built-in"},
		{"CA", func(c *profile.Config) { c.CA = &profile.CARules{} }, fault.PolicyRefused, "ca", "built-in"},
		{"nocheck", func(c *profile.Config) { c.OCSPNoCheck = true }, fault.PolicyRefused, "ocspNoCheck", "built-in"},
		{"internal", func(c *profile.Config) { c.Internal = true }, fault.PolicyRefused, "internal", "built-in"},
		{"keyCertSign", func(c *profile.Config) { c.KeyUsage = []string{"digitalSignature", "keycertsign"} }, fault.PolicyRefused, "keyUsage", "built-in"},
		{"cRLSign", func(c *profile.Config) { c.KeyUsage = []string{"cRLSign"} }, fault.PolicyRefused, "keyUsage", "built-in"},
		{"unknown key usage", func(c *profile.Config) { c.KeyUsage = []string{"flying"} }, fault.BadRequest, "keyUsage", "flying"},
		{"key usage that leaves nothing", func(c *profile.Config) { c.KeyUsage = []string{"keyEncipherment"} }, fault.BadRequest, "keyUsage", "p-256"},
		{"encipherOnly alone", func(c *profile.Config) { c.KeyUsage = []string{"digitalSignature", "encipherOnly"} }, fault.BadRequest, "keyUsage", "keyAgreement"},
		{"OCSPSigning", func(c *profile.Config) { c.ExtKeyUsage = []string{"OCSPSigning"} }, fault.PolicyRefused, "extKeyUsage[0]", "built-in"},
		{"OCSPSigning in numbers", func(c *profile.Config) { c.ExtKeyUsage = []string{"serverAuth", "1.3.6.1.5.5.7.3.9"} }, fault.PolicyRefused, "extKeyUsage[1]", "OCSPSigning"},
		{"any purpose", func(c *profile.Config) { c.ExtKeyUsage = []string{"2.5.29.37.0"} }, fault.PolicyRefused, "extKeyUsage[0]", "anyExtendedKeyUsage"},
		{"RA", func(c *profile.Config) { c.ExtKeyUsage = []string{"cmcRA"} }, fault.PolicyRefused, "extKeyUsage[0]", "built-in"},
		{"unknown purpose", func(c *profile.Config) { c.ExtKeyUsage = []string{"flying"} }, fault.BadRequest, "extKeyUsage[0]", "flying"},
		{"leading zero in numbers", func(c *profile.Config) { c.ExtKeyUsage = []string{"1.3.6.1.5.5.7.3.09"} }, fault.BadRequest, "extKeyUsage[0]", "no extended key usage"},
		{"a purpose twice", func(c *profile.Config) { c.ExtKeyUsage = []string{"serverAuth", "1.3.6.1.5.5.7.3.1"} }, fault.BadRequest, "extKeyUsage[1]", "twice"},
		{"timeStamping beside another", func(c *profile.Config) { c.ExtKeyUsage = []string{"timeStamping", "serverAuth"} }, fault.BadRequest, "extKeyUsage", "alone"},
		{"other without purpose", func(c *profile.Config) { c.Kind = profile.KindOther }, fault.BadRequest, "extKeyUsage", "names its purposes"},
		{"default beyond max", func(c *profile.Config) { c.Validity.Default, c.Validity.Max = 2e9, 1e9 }, fault.BadRequest, "validity.default", "more than"},
		{"negative max", func(c *profile.Config) { c.Validity.Max = -1e9 }, fault.BadRequest, "validity.max", "whole seconds"},
		{"fraction of a second", func(c *profile.Config) { c.Validity.Default = 15e8 }, fault.BadRequest, "validity.default", "whole seconds"},
		{"backdated too far", func(c *profile.Config) {
			c.Validity.Backdate = new(profile.Duration(3 * 365 * 24 * time.Hour))
		}, fault.BadRequest, "validity.backdate", "2y"},
		{"no end for a server", func(c *profile.Config) { c.Validity.NoExpiry = true }, fault.BadRequest, "validity.noExpiry", "devices"},
		{"unknown key", func(c *profile.Config) { c.KeyAlgorithms = []string{"rsa", "dsa"} }, fault.BadRequest, "keyAlgorithms[1]", "dsa"},
		{"short key", func(c *profile.Config) { c.MinRSABits = 1024 }, fault.BadRequest, "minRSABits", "2048"},
		{"key shorter than allowed", func(c *profile.Config) { c.MinRSABits, c.KeyAlgorithms = 3072, []string{"rsa-2048"} }, fault.BadRequest, "keyAlgorithms[0]", "shorter"},
		{"unknown attribute", func(c *profile.Config) { c.Subject.Allowed = []string{"CN", "colour"} }, fault.BadRequest, "subject.allowed[1]", "colour"},
		{"required, not allowed", func(c *profile.Config) { c.Subject.Allowed, c.Subject.Required = []string{"CN"}, []string{"O"} }, fault.BadRequest, "subject.required[0]", "neither"},
		{"fixed country", func(c *profile.Config) {
			c.Subject.Fixed = []profile.FixedAttribute{{Type: "C", Value: "Germany"}}
		}, fault.BadRequest, "subject.fixed[0].value", "two letters"},
		{"fixed twice", func(c *profile.Config) {
			c.Subject.Fixed = []profile.FixedAttribute{{Type: "C", Value: "DE"}, {Type: "country", Value: "FR"}}
		}, fault.BadRequest, "subject.fixed[1].type", "twice"},
		{"fixed nothing", func(c *profile.Config) { c.Subject.Fixed = []profile.FixedAttribute{{Type: "O"}} }, fault.BadRequest, "subject.fixed[0].value", "empty"},
		{"fixed CN of a server", func(c *profile.Config) { c.Subject.Fixed = []profile.FixedAttribute{{Type: "CN", Value: "a"}} }, fault.BadRequest, "subject.fixed[0].type", "CN"},
		{"fixed emailAddress without twin", func(c *profile.Config) {
			c.Subject.Fixed = []profile.FixedAttribute{{Type: "E", Value: "a@example.com"}}
		}, fault.BadRequest, "subject.fixed", "twin"},
		{"suffix that is none", func(c *profile.Config) { c.SANs = dns(profile.DNSRules{Suffixes: []string{"*.example.com"}}) }, fault.BadRequest, "sans.dns.suffixes[0]", "wildcard"},
		{"denied that is none", func(c *profile.Config) { c.SANs = dns(profile.DNSRules{Denied: []string{"a", ""}}) }, fault.BadRequest, "sans.dns.denied[1]", "empty"},
		{"network with host bits", func(c *profile.Config) {
			c.SANs = &profile.SANRules{IP: &profile.IPRules{Networks: []string{"10.0.0.1/8"}}}
		}, fault.BadRequest, "sans.ip.networks[0]", "10.0.0.0/8"},
		{"network that is none", func(c *profile.Config) {
			c.SANs = &profile.SANRules{IP: &profile.IPRules{Networks: []string{"10.0.0.1"}}}
		}, fault.BadRequest, "sans.ip.networks[0]", "not a network"},
		{"prefix inside a host", func(c *profile.Config) {
			c.SANs = &profile.SANRules{URI: &profile.URIRules{Prefixes: []string{"spiffe://example.com"}}}
		}, fault.BadRequest, "sans.uri.prefixes[0]", "beginning"},
		{"prefix without scheme", func(c *profile.Config) {
			c.SANs = &profile.SANRules{URI: &profile.URIRules{Prefixes: []string{"example.com/"}}}
		}, fault.BadRequest, "sans.uri.prefixes[0]", "beginning"},
		{"required kind that is not allowed", func(c *profile.Config) { c.SANs = &profile.SANRules{RequireOneOf: []string{"dns"}} }, fault.BadRequest, "sans.requireOneOf[0]", "not allowed"},
		{"required kind that is none", func(c *profile.Config) { c.SANs = &profile.SANRules{RequireOneOf: []string{"fax"}} }, fault.BadRequest, "sans.requireOneOf[0]", "fax"},
		{"too many names", func(c *profile.Config) { c.SANs = &profile.SANRules{Max: 1001} }, fault.BadRequest, "sans.max", "1000"},
		{"policy that is none", func(c *profile.Config) { c.Policies = []string{"1.2.3", "gold"} }, fault.BadRequest, "policies[1]", "gold"},
		{"any policy", func(c *profile.Config) { c.Policies = []string{"2.5.29.32.0"} }, fault.BadRequest, "policies[0]", "anyPolicy"},
		{"a policy twice", func(c *profile.Config) { c.Policies = []string{"1.2.3", "1.2.3"} }, fault.BadRequest, "policies[1]", "twice"},
		{"noRevAvail and no expiry", func(c *profile.Config) {
			c.Kind, c.NoRevAvail, c.Validity.NoExpiry = profile.KindDevice, true, true
		}, fault.BadRequest, "noRevAvail", "noExpiry"},
		{"no expiry and a default", func(c *profile.Config) {
			c.Kind, c.Validity.NoExpiry, c.Validity.Default = profile.KindDevice, true, profile.Duration(time.Hour)
		}, fault.BadRequest, "validity.default", "noExpiry"},
		{"algorithm twice", func(c *profile.Config) { c.KeyAlgorithms = []string{"p-256", "P-256"} }, fault.BadRequest, "keyAlgorithms[1]", ""},
		{"RSA bits without RSA", func(c *profile.Config) { c.KeyAlgorithms, c.MinRSABits = []string{"p-256"}, 3072 }, fault.BadRequest, "minRSABits", "no RSA"},
		{"key usage that the purpose has no use for", func(c *profile.Config) { c.KeyUsage = []string{"contentCommitment"} }, fault.BadRequest, "keyUsage", "serverAuth"},
		{"mustStaple without servers", func(c *profile.Config) { c.Kind, c.MustStaple = profile.KindClient, true }, fault.BadRequest, "mustStaple", "serverAuth"},
		{"the kind's CN is not allowed", func(c *profile.Config) {
			c.Kind, c.Subject.Allowed = profile.KindClient, []string{"O"}
		}, fault.BadRequest, "subject.allowed", "CN is required"},
		{"required CN that is not allowed", func(c *profile.Config) {
			c.Subject.Allowed, c.Subject.Required = []string{"O"}, []string{"CN"}
		}, fault.BadRequest, "subject.required[0]", "neither"},
		{"a device that cannot be named", func(c *profile.Config) {
			c.Kind, c.Subject.Allowed = profile.KindDevice, []string{"O"}
		}, fault.BadRequest, "subject.allowed", "serialNumber"},
		{"nothing can be named", func(c *profile.Config) {
			c.Kind, c.ExtKeyUsage, c.Subject.Allowed, c.SANs = profile.KindOther, []string{"codeSigning"}, []string{}, &profile.SANRules{}
		}, fault.BadRequest, "subject.allowed", "nothing can be named"},
		{"suffix that is denied", func(c *profile.Config) {
			c.SANs = dns(profile.DNSRules{Suffixes: []string{"b.example.org", "a.example.com"}, Denied: []string{"example.com"}})
		}, fault.BadRequest, "sans.dns.suffixes[1]", "denied"},
		{"network that is denied", func(c *profile.Config) {
			c.SANs = &profile.SANRules{IP: &profile.IPRules{Networks: []string{"10.1.0.0/16"}, Denied: []string{"10.0.0.0/8"}}}
		}, fault.BadRequest, "sans.ip.networks[0]", "denied"},
		{"denied network that is none", func(c *profile.Config) {
			c.SANs = &profile.SANRules{IP: &profile.IPRules{Denied: []string{"ten"}}}
		}, fault.BadRequest, "sans.ip.denied[0]", "not a network"},
		{"email domain that is denied", func(c *profile.Config) {
			c.SANs = &profile.SANRules{Email: &profile.EmailRules{Domains: []string{"a.example.com"}, Denied: []string{".example.com"}}}
		}, fault.BadRequest, "sans.email.domains[0]", "denied"},
		{"realm that is denied", func(c *profile.Config) {
			c.SANs = &profile.SANRules{UPN: &profile.UPNRules{Suffixes: []string{"corp.example"}, Denied: []string{"corp.example"}}}
		}, fault.BadRequest, "sans.upn.suffixes[0]", "denied"},
		{"prefix that is denied", func(c *profile.Config) {
			c.SANs = &profile.SANRules{URI: &profile.URIRules{Prefixes: []string{"spiffe://example.com/a/"}, Denied: []string{"SPIFFE://Example.com/"}}}
		}, fault.BadRequest, "sans.uri.prefixes[0]", "denied"},
		{"denied prefix that is none", func(c *profile.Config) {
			c.SANs = &profile.SANRules{URI: &profile.URIRules{Denied: []string{"https://example.com"}}}
		}, fault.BadRequest, "sans.uri.denied[0]", "beginning"},
		{"hardware type that is none", func(c *profile.Config) {
			c.SANs = &profile.SANRules{HardwareModuleName: &profile.HardwareModuleNameRules{Types: []string{"1.2.3", "router"}}}
		}, fault.BadRequest, "sans.hardwareModuleName.types[1]", "router"},
		{"hardware type that is denied", func(c *profile.Config) {
			c.SANs = &profile.SANRules{HardwareModuleName: &profile.HardwareModuleNameRules{Types: []string{"1.2.3"}, Denied: []string{"1.2.3"}}}
		}, fault.BadRequest, "sans.hardwareModuleName.types[0]", "denied"},
		{"values of a type that is not allowed", func(c *profile.Config) { c.Subject.Values = map[string][]string{"title": {"Dr"}} }, fault.BadRequest, "subject.values.title", "not allowed"},
		{"values of a fixed type", func(c *profile.Config) {
			c.Subject.Fixed, c.Subject.Values = []profile.FixedAttribute{{Type: "O", Value: "Acme"}}, map[string][]string{"O": {"Other"}}
		}, fault.BadRequest, "subject.values.O", "fixed"},
		{"values of no type", func(c *profile.Config) { c.Subject.Values = map[string][]string{"colour": {"red"}} }, fault.BadRequest, "subject.values.colour", "no attribute"},
		{"no values", func(c *profile.Config) { c.Subject.Values = map[string][]string{"O": {}} }, fault.BadRequest, "subject.values.O", "no value"},
		{"a value that is none", func(c *profile.Config) { c.Subject.Values = map[string][]string{"C": {"DE", "Germany"}} }, fault.BadRequest, "subject.values.C[1]", "two letters"},
		{"values twice", func(c *profile.Config) {
			c.Subject.Values = map[string][]string{"O": {"a"}, "organization": {"b"}}
		}, fault.BadRequest, "subject.values.organization", "twice"},
		{"template of no type", func(c *profile.Config) {
			c.Subject.Templates = []profile.FixedAttribute{{Type: "colour", Value: "{device}"}}
		}, fault.BadRequest, "subject.templates[0].type", "colour"},
		{"template of a fixed type", func(c *profile.Config) {
			c.Subject.Fixed = []profile.FixedAttribute{{Type: "OU", Value: "a"}}
			c.Subject.Templates = []profile.FixedAttribute{{Type: "OU", Value: "{device}"}}
		}, fault.BadRequest, "subject.templates[0].type", "fixed"},
		{"two templates of a type", func(c *profile.Config) {
			c.Subject.Templates = []profile.FixedAttribute{{Type: "L", Value: "{device}"}, {Type: "L", Value: "{CN}"}}
		}, fault.BadRequest, "subject.templates[1].type", "twice"},
		{"template without placeholder", func(c *profile.Config) { c.Subject.Templates = []profile.FixedAttribute{{Type: "L", Value: "Bonn"}} }, fault.BadRequest, "subject.templates[0].value", "subject.fixed"},
		{"template of emailAddress without twin", func(c *profile.Config) {
			c.Subject.Templates = []profile.FixedAttribute{{Type: "E", Value: "{device}@example.com"}}
		}, fault.BadRequest, "subject.templates", "twin"},
		{"SAN template of a kind that is not allowed", func(c *profile.Config) {
			c.SANs = dns(profile.DNSRules{})
			c.SANs.Templates = []string{"URI:urn:x:{device}"}
		}, fault.BadRequest, "sans.templates[0]", "not allowed"},
		{"SAN template without kind", func(c *profile.Config) {
			c.SANs = dns(profile.DNSRules{})
			c.SANs.Templates = []string{"{CN}"}
		}, fault.BadRequest, "sans.templates[0]", "kind of name"},
		{"SAN template beyond the suffixes", func(c *profile.Config) {
			c.SANs = dns(profile.DNSRules{Suffixes: []string{"example.com"}})
			c.SANs.Templates = []string{"DNS:{CN}.example.com", "DNS:{CN}.example.org"}
		}, fault.BadRequest, "sans.templates[1]", "none of the domains"},
		{"SAN template that is no name", func(c *profile.Config) {
			c.SANs = dns(profile.DNSRules{})
			c.SANs.Templates = []string{"DNS:{CN}..example.com"}
		}, fault.BadRequest, "sans.templates[0]", "empty label"},
		{"IP address in parts", func(c *profile.Config) {
			c.SANs = &profile.SANRules{IP: &profile.IPRules{}, Templates: []string{"IP:10.0.0.{CN}"}}
		}, fault.BadRequest, "sans.templates[0]", "parts"},
		{"only templates and none", func(c *profile.Config) {
			c.SANs = dns(profile.DNSRules{})
			c.SANs.OnlyTemplates = true
		}, fault.BadRequest, "sans.onlyTemplates", "no names"},
		{"more templates than names", func(c *profile.Config) {
			c.SANs = dns(profile.DNSRules{})
			c.SANs.Max, c.SANs.Templates = 1, []string{"DNS:a.{CN}", "DNS:b.{CN}"}
		}, fault.BadRequest, "sans.templates", "sans.max"},
		{"noRevAvail and mustStaple", func(c *profile.Config) { c.NoRevAvail, c.MustStaple = true, true }, fault.BadRequest, "mustStaple", "noRevAvail"},
		{"mustStaple without responder", func(c *profile.Config) { c.NoOCSPAddress, c.MustStaple = true, true }, fault.BadRequest, "mustStaple", "staple"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := profile.Config{Name: "web", Kind: profile.KindServer}
			tt.change(&c)
			_, err := profile.New(c)
			wantFault(t, err, tt.kind, tt.field, tt.detail)
		})
	}
}

func TestNewBuiltinKeepsItsRights(t *testing.T) {
	tests := []struct {
		name, profile string
		change        func(*profile.Config)
		kind          fault.Kind
		field         string
	}{
		{"unknown", "server", func(c *profile.Config) { c.Name = "web" }, fault.NotFound, "name"},
		{"kind", "server", func(c *profile.Config) { c.Kind = profile.KindCA }, fault.PolicyRefused, "kind"},
		{"internal made public", "ocsp", func(c *profile.Config) { c.Internal = false }, fault.PolicyRefused, "internal"},
		{"public made internal", "server", func(c *profile.Config) { c.Internal = true }, fault.PolicyRefused, "internal"},
		{"nocheck", "server", func(c *profile.Config) { c.OCSPNoCheck = true }, fault.PolicyRefused, "ocspNoCheck"},
		{"CA", "server", func(c *profile.Config) { c.CA = &profile.CARules{} }, fault.PolicyRefused, "ca"},
		{"CA that is none", "issuing", func(c *profile.Config) { c.CA = nil }, fault.PolicyRefused, "ca"},
		{"issuing with a path", "issuing", func(c *profile.Config) { c.CA.PathLen = new(1) }, fault.PolicyRefused, "ca.pathLen"},
		{"sub-ca without limit", "sub-ca", func(c *profile.Config) { c.CA.PathLen = nil }, fault.PolicyRefused, "ca.pathLen"},
		{"negative path", "sub-ca", func(c *profile.Config) { c.CA.PathLen = new(-1) }, fault.BadRequest, "ca.pathLen"},
		{"purpose of a CA", "issuing", func(c *profile.Config) { c.ExtKeyUsage = []string{"serverAuth"} }, fault.PolicyRefused, "extKeyUsage"},
		{"purpose of a delegate", "ocsp", func(c *profile.Config) { c.ExtKeyUsage = []string{"OCSPSigning", "serverAuth"} }, fault.PolicyRefused, "extKeyUsage"},
		{"key usage of a CA", "root", func(c *profile.Config) { c.KeyUsage = []string{"digitalSignature"} }, fault.PolicyRefused, "keyUsage"},
		{"OCSPSigning for a server", "server", func(c *profile.Config) { c.ExtKeyUsage = []string{"OCSPSigning"} }, fault.PolicyRefused, "extKeyUsage[0]"},
		{"ECDSA for an RA", "ra", func(c *profile.Config) { c.KeyAlgorithms = []string{"p-256"} }, fault.BadRequest, "keyAlgorithms[0]"},
		{"addresses on a root", "root", func(c *profile.Config) { c.NoCRLAddress = false }, fault.PolicyRefused, "noCRLAddress"},
		{"noRevAvail on a CA", "issuing", func(c *profile.Config) { c.NoRevAvail = true }, fault.BadRequest, "noRevAvail"},
		{"empty constraints", "issuing", func(c *profile.Config) { c.CA.NameConstraints = &profile.ConstraintRules{} }, fault.BadRequest, "ca.nameConstraints"},
		{"constraint that permits nothing", "issuing", func(c *profile.Config) {
			c.CA.NameConstraints = &profile.ConstraintRules{
				Permitted: profile.SubtreeRules{DNS: []string{"example.org", "a.example.com"}}, Excluded: profile.SubtreeRules{DNS: []string{"example.com"}},
			}
		}, fault.BadRequest, "ca.nameConstraints.permitted.dns[1]"},
		{"network that is permitted and excluded", "issuing", func(c *profile.Config) {
			c.CA.NameConstraints = &profile.ConstraintRules{
				Permitted: profile.SubtreeRules{IP: []string{"10.0.0.0/8"}}, Excluded: profile.SubtreeRules{IP: []string{"0.0.0.0/0"}},
			}
		}, fault.BadRequest, "ca.nameConstraints.permitted.ip[0]"},
		{"constraint that is none", "issuing", func(c *profile.Config) {
			c.CA.NameConstraints = &profile.ConstraintRules{Excluded: profile.SubtreeRules{IP: []string{"0.0.0.1/0"}}}
		}, fault.BadRequest, "ca.nameConstraints.excluded.ip[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all := profile.Builtins()
			c := all[slices.IndexFunc(all, func(c profile.Config) bool { return c.Name == tt.profile })]
			tt.change(&c)
			_, err := profile.NewBuiltin(c)
			wantFault(t, err, tt.kind, tt.field, "")
		})
	}
	constrained := builtin(t, "issuing", func(c *profile.Config) {
		c.CA.NameConstraints = &profile.ConstraintRules{
			Permitted: profile.SubtreeRules{DNS: []string{"Example.com"}, Email: []string{"a@Example.com", ".example.com"}, URI: []string{".example.com"}},
			Excluded:  profile.SubtreeRules{IP: []string{"0.0.0.0/0", "::/0"}},
		}
	})
	in := input(t, "CN=Constrained CA")
	got := must(constrained.Contents(in))
	cert := certificate(t, constrained.CertificateConfig(got.KeyAlgorithm), got, keyEC)
	if diff := cmp.Diff([]string{"example.com"}, cert.PermittedDNSDomains); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(cert.ExcludedIPRanges) != 2 || !slices.Equal(cert.PermittedEmailAddresses, []string{"a@example.com", ".example.com"}) {
		t.Errorf("constraints: %v, %v", cert.ExcludedIPRanges, cert.PermittedEmailAddresses)
	}
}

// TestBuiltins is the table of what the built-in profiles give, by type of key.
func TestBuiltins(t *testing.T) {
	const (
		sign     = x509.KeyUsageDigitalSignature
		encipher = x509.KeyUsageKeyEncipherment
		agree    = x509.KeyUsageKeyAgreement
		ca       = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		no       = 0 // not certified
	)
	tests := []struct {
		name        string
		rsa, ec, ed x509.KeyUsage
		purposes    string
		standard    string
		longest     string
		internal    bool
		admin       bool
		crl, ocsp   bool
		pathLen     int // -1: none
	}{
		{"server", sign | encipher, sign, sign, "serverAuth", "90d", "397d", false, false, true, true, -1},
		{"client", sign, sign, sign, "clientAuth", "1y", "825d", false, false, true, true, -1},
		{"device", sign | encipher, sign, sign, "clientAuth", "1y", "10y", false, false, true, true, -1},
		{"peer", sign | encipher, sign, sign, "serverAuth clientAuth", "90d", "397d", false, false, true, true, -1},
		{"email", sign | encipher, sign | agree, no, "emailProtection", "1y", "825d", false, false, true, true, -1},
		{"sub-ca", ca, ca, ca, "", "5y", "10y", false, true, true, true, 0},
		{"root", ca, ca, ca, "", "20y", "30y", true, true, false, false, -1},
		{"issuing", ca, ca, ca, "", "10y", "20y", true, true, true, true, 0},
		{"ocsp", sign, sign, sign, "OCSPSigning", "7d", "30d", true, false, false, false, -1},
		{"ra", sign | encipher, no, no, "cmcRA", "1y", "2y", true, false, true, true, -1},
		{"https", sign | encipher, sign, sign, "serverAuth", "30d", "90d", true, false, true, true, -1},
	}
	if len(profile.Builtins()) != len(tests) {
		t.Fatalf("%d built-in profiles, %d tests", len(profile.Builtins()), len(tests))
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := profile.Builtins()[i].Name; got != tt.name {
				t.Errorf("profile %d is %s", i, got)
			}
			p := builtin(t, tt.name)
			for _, k := range []struct {
				algorithm keys.Algorithm
				want      x509.KeyUsage
			}{{keys.RSA2048, tt.rsa}, {keys.RSA4096, tt.rsa}, {2432, tt.rsa}, {keys.P256, tt.ec}, {keys.P384, tt.ec}, {keys.P521, tt.ec}, {keys.Ed25519, tt.ed}} {
				if p.AllowsKey(k.algorithm) != (k.want != no) {
					t.Errorf("AllowsKey(%v) = %v", k.algorithm, p.AllowsKey(k.algorithm))
				}
				if got := p.KeyUsage(k.algorithm); k.want != no && got != k.want {
					t.Errorf("KeyUsage(%v) = %v, want %v", k.algorithm, profile.KeyUsageNames(got), profile.KeyUsageNames(k.want))
				}
				config := p.CertificateConfig(k.algorithm)
				if config.KeyUsage != p.KeyUsage(k.algorithm) || config.IsCA != tt.admin || config.OCSPNoCheck != (tt.name == "ocsp") {
					t.Errorf("CertificateConfig(%v) = %+v", k.algorithm, config)
				}
			}
			var purposes []string
			for _, oid := range p.ExtKeyUsage() {
				purposes = append(purposes, profile.ExtKeyUsageName(oid))
			}
			if got := strings.Join(purposes, " "); got != tt.purposes {
				t.Errorf("purposes %s, want %s", got, tt.purposes)
			}
			if standard, longest := p.Validity(); standard.String() != tt.standard || longest.String() != tt.longest {
				t.Errorf("validity %s, %s; want %s, %s", standard, longest, tt.standard, tt.longest)
			}
			if p.Internal() != tt.internal || p.RequiresAdministrator() != tt.admin || p.IsCA() != tt.admin || p.CRLAddress() != tt.crl || p.OCSPAddress() != tt.ocsp {
				t.Errorf("internal %v, administrator %v, crl %v, ocsp %v", p.Internal(), p.RequiresAdministrator(), p.CRLAddress(), p.OCSPAddress())
			}
			if tt.pathLen < 0 != (p.PathLen() == nil) || p.PathLen() != nil && *p.PathLen() != tt.pathLen {
				t.Errorf("path length %v, want %d", p.PathLen(), tt.pathLen)
			}
			if p.Name() != tt.name || p.Description() == "" {
				t.Errorf("name %q, description %q", p.Name(), p.Description())
			}
			// What is stored can be read back and made again.
			c, err := profile.ParseConfig(must(json.Marshal(p.Config())))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := profile.NewBuiltin(c); err != nil {
				t.Errorf("made again: %v", err)
			}
		})
	}
}

func TestKeyUsageOverride(t *testing.T) {
	p := must(profile.New(profile.Config{
		Name: "sign", Kind: profile.KindEmail,
		KeyUsage: []string{"digitalSignature", "contentCommitment", "keyEncipherment", "keyAgreement", "encipherOnly"},
	}))
	for algorithm, want := range map[keys.Algorithm]string{
		keys.RSA3072: "digitalSignature nonRepudiation keyEncipherment",
		keys.P256:    "digitalSignature nonRepudiation keyAgreement encipherOnly",
		keys.Ed25519: "digitalSignature nonRepudiation",
	} {
		if got := strings.Join(profile.KeyUsageNames(p.KeyUsage(algorithm)), " "); got != want {
			t.Errorf("%v: %s, want %s", algorithm, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		text string
		want time.Duration
		back string // empty when refused
	}{
		{"90d", 90 * day, "90d"},
		{"1y", 365 * day, "1y"},
		{"365d", 365 * day, "1y"},
		{"8760h", 365 * day, "1y"},
		{"1y30d", 395 * day, "395d"},
		{"1d12h", 36 * time.Hour, "36h0m0s"},
		{"5m", 5 * time.Minute, "5m0s"},
		{"0s", 0, "0s"},
		{"0d", 0, "0s"},
		{"292y", 292 * 365 * day, "292y"},
		{"293y", 0, ""},
		{"292y200d", 0, ""},
		{"1d9223372036s", 0, ""},
		{"", 0, ""},
		{"d", 0, ""},
		{"90", 0, ""},
		{"1d1y", 0, ""},
		{"1.5d", 0, ""},
		{"-1d", 0, ""},
		{"1d-1h", 0, ""},
		{"+1d", 0, ""},
		{"1 d", 0, ""},
	}
	for _, tt := range tests {
		got, err := profile.ParseDuration(tt.text)
		if tt.back == "" {
			if err == nil {
				t.Errorf("ParseDuration(%q) = %v, want an error", tt.text, got)
			}
			continue
		}
		if err != nil || time.Duration(got) != tt.want || got.String() != tt.back {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", tt.text, got, err, tt.back)
		}
		if again, err := profile.ParseDuration(got.String()); err != nil || again != got {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", got.String(), again, err, got)
		}
	}
}
