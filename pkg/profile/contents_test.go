package profile_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/google/go-cmp/cmp"
)

var (
	now         = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	issuerStart = now.AddDate(-1, 0, 0)
	issuerEnd   = now.AddDate(9, 0, 0)

	keyEC   = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public()
	keyP384 = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)).Public()
	keyRSA  = must(rsa.GenerateKey(rand.Reader, 2048)).Public()
	keyEd   = ed25519.NewKeyFromSeed(make([]byte, 32)).Public()
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// builtin makes a built-in profile, changed.
func builtin(t testing.TB, name string, changes ...func(*profile.Config)) *profile.Profile {
	t.Helper()
	for _, c := range profile.Builtins() {
		if c.Name == name {
			for _, change := range changes {
				change(&c)
			}
			p, err := profile.NewBuiltin(c)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return p
		}
	}
	t.Fatalf("no built-in profile is called %s", name)
	return nil
}

func subject(t testing.TB, text string) []der.Attribute {
	t.Helper()
	attributes, err := profile.ParseSubject(text)
	if err != nil {
		t.Fatalf("ParseSubject(%q): %v", text, err)
	}
	return attributes
}

func names(t testing.TB, texts ...string) []der.GeneralName {
	t.Helper()
	n, err := profile.ParseSANs(texts...)
	if err != nil {
		t.Fatalf("ParseSANs(%q): %v", texts, err)
	}
	return n
}

// input is a request by CSR at an unremarkable moment.
func input(t testing.TB, dn string, sans ...string) profile.Input {
	in := profile.Input{
		PublicKey: keyEC, Now: now, Issuer: profile.Issuer{NotBefore: issuerStart, NotAfter: issuerEnd},
		CSR: profile.Wishes{Subject: subject(t, dn)},
	}
	if len(sans) > 0 {
		in.CSR.SANs = names(t, sans...)
	}
	return in
}

func wantFault(t *testing.T, err error, kind fault.Kind, field, detail string) {
	t.Helper()
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Kind != kind || e.Field != field || !strings.Contains(e.Detail, detail) {
		t.Errorf("got %v (%+v); want %v of %s with %q", err, e, kind, field, detail)
	}
}

// nameCase is a request and what becomes of its names.
type nameCase struct {
	name    string
	profile string
	change  func(*profile.Config)
	in      func(*profile.Input) // after dn and sans
	dn      string
	sans    []string

	subject string // RFC 4514
	want    []string
	warning string // part of the only one; "" for none
	kind    fault.Kind
	field   string
	detail  string
}

func (c nameCase) run(t *testing.T) {
	t.Helper()
	var changes []func(*profile.Config)
	if c.change != nil {
		changes = append(changes, c.change)
	}
	p := builtin(t, c.profile, changes...)
	in := input(t, c.dn, c.sans...)
	if c.in != nil {
		c.in(&in)
	}
	got, err := p.Contents(in)
	if c.detail != "" {
		wantFault(t, err, c.kind, c.field, c.detail)
		return
	}
	if err != nil {
		t.Fatalf("Contents: %v", err)
	}
	if got.SubjectString != c.subject {
		t.Errorf("subject %q, want %q", got.SubjectString, c.subject)
	}
	if diff := cmp.Diff(c.want, got.SANStrings); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	warnings := strings.Join(got.Warnings, "\n")
	if (c.warning == "") != (warnings == "") || !strings.Contains(warnings, c.warning) {
		t.Errorf("warnings %q, want %q", got.Warnings, c.warning)
	}
}

func sansOf(change func(*profile.SANRules)) func(*profile.Config) {
	return func(c *profile.Config) {
		c.SANs = &profile.SANRules{DNS: &profile.DNSRules{}, IP: &profile.IPRules{}, Email: &profile.EmailRules{}, URI: &profile.URIRules{}, UPN: &profile.UPNRules{}}
		change(c.SANs)
	}
}

func TestNamesOfServers(t *testing.T) {
	wildcards := sansOf(func(s *profile.SANRules) { s.DNS.Wildcards = true })
	long := strings.Repeat("a", 60) + ".example.com"
	reserve := func(in *profile.Input) { in.Reserved = []string{"ca.example.com", "192.0.2.1", "localhost"} }
	tests := []nameCase{
		{name: "plain", dn: "CN=a.example.com", sans: []string{"DNS:a.example.com"}, subject: "CN=a.example.com", want: []string{"DNS:a.example.com"}},
		{name: "CN from the first name", dn: "", sans: []string{"b.example.com", "a.example.com"}, subject: "CN=b.example.com", want: []string{"DNS:b.example.com", "DNS:a.example.com"}},
		{name: "CN follows the others", dn: "O=Acme,C=DE", sans: []string{"b.example.com"}, subject: "CN=b.example.com,O=Acme,C=DE", want: []string{"DNS:b.example.com"}},
		{name: "CN from an address", dn: "", sans: []string{"192.0.2.7"}, subject: "CN=192.0.2.7", want: []string{"IP:192.0.2.7"}},
		{name: "CN is not taken from a URI", dn: "", sans: []string{"spiffe://example.com/a", "a.example.com"}, subject: "CN=a.example.com", want: []string{"URI:spiffe://example.com/a", "DNS:a.example.com"}},
		{name: "no CN from a long name", dn: "", sans: []string{long}, subject: "", want: []string{"DNS:" + long}},
		{name: "no CN when the profile wants none", dn: "", sans: []string{"a.example.com"}, change: func(c *profile.Config) { c.Subject.NoCNFromSAN = true }, want: []string{"DNS:a.example.com"}},
		{name: "name from CN", dn: "CN=A.Example.COM", subject: "CN=a.example.com", want: []string{"DNS:a.example.com"}},
		{name: "name from a single label", dn: "CN=db1", subject: "CN=db1", want: []string{"DNS:db1"}},
		{name: "address from CN", dn: "CN=2001:DB8::1", subject: "CN=2001:db8::1", want: []string{"IP:2001:db8::1"}},
		{name: "CN is no host", dn: "CN=Our Web Server", kind: fault.PolicyRefused, field: "sans", detail: "needs a name of the kind dns or ip"},
		{name: "free CN beside names", dn: "CN=Our Web Server", sans: []string{"a.example.com"}, subject: "CN=Our Web Server", want: []string{"DNS:a.example.com"}},
		{name: "CN is not among the names", dn: "CN=b.example.com", sans: []string{"a.example.com"}, kind: fault.PolicyRefused, field: "subject", detail: "none of the alternative names"},
		{name: "CN is the end of a name", dn: "CN=example.com", sans: []string{"a.example.com"}, kind: fault.PolicyRefused, field: "subject", detail: "none of the alternative names"},
		{name: "CN is an address elsewhere", dn: "CN=192.0.2.8", sans: []string{"192.0.2.7"}, kind: fault.PolicyRefused, field: "subject", detail: "none of the alternative names"},
		{name: "CN is an address as URI", dn: "CN=a.example.com", sans: []string{"b.example.com", "https://a.example.com/"}, kind: fault.PolicyRefused, field: "subject", detail: "none of the alternative names"},
		{name: "nothing at all", dn: "", kind: fault.PolicyRefused, field: "sans", detail: "needs a name"},
		{name: "names in one form, once", dn: "CN=A.example.com", sans: []string{"A.example.com", "a.EXAMPLE.com", "::ffff:192.0.2.7", "192.0.2.7"}, subject: "CN=a.example.com", want: []string{"DNS:a.example.com", "IP:192.0.2.7"}},
		{name: "international name", dn: "", sans: []string{"Müller.example"}, subject: "CN=xn--mller-kva.example", want: []string{"DNS:xn--mller-kva.example"}},
		{name: "international CN", dn: "CN=müller.example", subject: "CN=xn--mller-kva.example", want: []string{"DNS:xn--mller-kva.example"}},
		{name: "mixed scripts", dn: "", sans: []string{"p\u0430ypal.example"}, subject: "CN=xn--pypal-4ve.example", want: []string{"DNS:xn--pypal-4ve.example"}, warning: "mixes Latin and Cyrillic"},
		{name: "mixed scripts behind an A-label", dn: "", sans: []string{"xn--pypal-4ve.example"}, subject: "CN=xn--pypal-4ve.example", want: []string{"DNS:xn--pypal-4ve.example"}, warning: "mixes Latin and Cyrillic"},
		{name: "Japanese is no mixture", dn: "", sans: []string{"東京タワー.example"}, subject: "CN=xn--5ck2eqb538s34z.example", want: []string{"DNS:xn--5ck2eqb538s34z.example"}},
		{name: "A-label of nothing", dn: "", sans: []string{"xn--a.example"}, kind: fault.BadCSR, field: "sans", detail: "A-label"},
		{name: "A-label not in normal form", dn: "", sans: []string{"xn--Mller-Kva.example"}, subject: "CN=xn--mller-kva.example", want: []string{"DNS:xn--mller-kva.example"}},
		{name: "underscore", dn: "", sans: []string{"a_b.example.com"}, kind: fault.BadCSR, field: "sans", detail: "underscore"},
		{name: "underscore allowed", dn: "", sans: []string{"a_b.example.com"}, change: sansOf(func(s *profile.SANRules) { s.DNS.Underscores = true }), subject: "CN=a_b.example.com", want: []string{"DNS:a_b.example.com"}},
		{name: "trailing dot", dn: "", sans: []string{"a.example.com."}, kind: fault.BadCSR, field: "sans", detail: "ends with a dot"},
		{name: "empty label", dn: "", sans: []string{"a..example.com"}, kind: fault.BadCSR, field: "sans", detail: "empty label"},
		{name: "label of 64", dn: "", sans: []string{strings.Repeat("a", 64) + ".example"}, kind: fault.BadCSR, field: "sans", detail: "63 characters"},
		{name: "name of 254", dn: "", sans: []string{strings.Repeat("a.", 126) + "ab"}, kind: fault.BadCSR, field: "sans", detail: "253"},
		{name: "hyphen first", dn: "", sans: []string{"-a.example"}, kind: fault.BadCSR, field: "sans", detail: "hyphen"},
		{name: "hyphens in the third place", dn: "", sans: []string{"ab--c.example"}, kind: fault.BadCSR, field: "sans", detail: "third and fourth"},
		{name: "address as DNS name", dn: "", sans: []string{"DNS:192.0.2.7"}, kind: fault.BadCSR, field: "sans", detail: "ends in numbers"},
		{name: "space", dn: "", sans: []string{"DNS:a example.com"}, kind: fault.BadCSR, field: "sans", detail: "character that DNS names do not have"},
		{name: "newline from the API", dn: "CN=a.example.com", in: func(in *profile.Input) { in.SANs = []der.GeneralName{der.DNSName("a\n.example")} }, kind: fault.BadRequest, field: "sans", detail: "character that DNS names do not have"},

		{name: "wildcard", dn: "", sans: []string{"*.example.com"}, kind: fault.PolicyRefused, field: "sans", detail: "does not allow wildcards"},
		{name: "wildcard by CN", dn: "CN=*.example.com", kind: fault.PolicyRefused, field: "sans", detail: "does not allow wildcards"},
		{name: "wildcard allowed", dn: "", sans: []string{"*.example.com", "example.com"}, change: wildcards, subject: "CN=*.example.com", want: []string{"DNS:*.example.com", "DNS:example.com"}},
		{name: "wildcard by CN allowed", dn: "CN=*.Example.com", change: wildcards, subject: "CN=*.example.com", want: []string{"DNS:*.example.com"}},
		{name: "wildcard before one label", dn: "", sans: []string{"*.com"}, change: wildcards, kind: fault.PolicyRefused, field: "sans", detail: "two labels"},
		{name: "wildcard in a label", dn: "", sans: []string{"a*.example.com"}, change: wildcards, kind: fault.BadCSR, field: "sans", detail: "whole leftmost label"},
		{name: "wildcard further right", dn: "", sans: []string{"a.*.example.com"}, change: wildcards, kind: fault.BadCSR, field: "sans", detail: "whole leftmost label"},
		{name: "two wildcards", dn: "", sans: []string{"*.*.example.com"}, change: wildcards, kind: fault.BadCSR, field: "sans", detail: "whole leftmost label"},
		{name: "wildcard inside CN", dn: "CN=a*.example.com", sans: []string{"a.example.com"}, change: wildcards, kind: fault.PolicyRefused, field: "subject", detail: "wildcard"},

		{name: "in the suffix", dn: "", sans: []string{"a.example.com", "example.com"}, change: sansOf(func(s *profile.SANRules) { s.DNS.Suffixes = []string{"Example.com"} }), subject: "CN=a.example.com", want: []string{"DNS:a.example.com", "DNS:example.com"}},
		{name: "beside the suffix", dn: "", sans: []string{"badexample.com"}, change: sansOf(func(s *profile.SANRules) { s.DNS.Suffixes = []string{"example.com"} }), kind: fault.PolicyRefused, field: "sans", detail: "none of the domains"},
		{name: "below a dotted suffix only", dn: "", sans: []string{"example.com"}, change: sansOf(func(s *profile.SANRules) { s.DNS.Suffixes = []string{".example.com"} }), kind: fault.PolicyRefused, field: "sans", detail: "none of the domains"},
		{name: "denied", dn: "", sans: []string{"x.secret.example.com"}, change: sansOf(func(s *profile.SANRules) { s.DNS.Denied = []string{"secret.example.com"} }), kind: fault.PolicyRefused, field: "sans", detail: "denies"},
		{name: "denied behind a wildcard", dn: "", sans: []string{"*.example.com"}, change: sansOf(func(s *profile.SANRules) { s.DNS.Wildcards, s.DNS.Denied = true, []string{"secret.example.com"} }), kind: fault.PolicyRefused, field: "sans", detail: "denies"},
		{name: "wildcard wider than the suffix", dn: "", sans: []string{"*.example.com"}, change: sansOf(func(s *profile.SANRules) { s.DNS.Wildcards, s.DNS.Suffixes = true, []string{"a.example.com"} }), kind: fault.PolicyRefused, field: "sans", detail: "none of the domains"},
		{name: "CN outside the suffix", dn: "CN=evil.org", change: sansOf(func(s *profile.SANRules) { s.DNS.Suffixes = []string{"example.com"} }), kind: fault.PolicyRefused, field: "sans", detail: "none of the domains"},
		{name: "inside the network", dn: "", sans: []string{"10.1.2.3", "fd00::1"}, change: sansOf(func(s *profile.SANRules) { s.IP.Networks = []string{"10.0.0.0/8", "fd00::/8"} }), subject: "CN=10.1.2.3", want: []string{"IP:10.1.2.3", "IP:fd00::1"}},
		{name: "outside the network", dn: "", sans: []string{"11.1.2.3"}, change: sansOf(func(s *profile.SANRules) { s.IP.Networks = []string{"10.0.0.0/8"} }), kind: fault.PolicyRefused, field: "sans", detail: "none of the networks"},
		{name: "mapped address outside the network", dn: "", sans: []string{"::ffff:11.1.2.3"}, change: sansOf(func(s *profile.SANRules) { s.IP.Networks = []string{"10.0.0.0/8"} }), kind: fault.PolicyRefused, field: "sans", detail: "none of the networks"},
		{name: "unspecified address", dn: "", sans: []string{"0.0.0.0"}, kind: fault.BadCSR, field: "sans", detail: "no single host"},
		{name: "multicast address", dn: "", sans: []string{"ff02::1"}, kind: fault.BadCSR, field: "sans", detail: "no single host"},
		{name: "address of five octets", dn: "", in: func(in *profile.Input) {
			in.CSR.SANs = []der.GeneralName{{Tag: der.TagIPAddress, Raw: make([]byte, 5)}}
		}, kind: fault.BadCSR, field: "sans", detail: "4 or 16 octets"},
		{name: "a kind that is not allowed", dn: "", sans: []string{"a.example.com", "email:a@example.com"}, kind: fault.PolicyRefused, field: "sans", detail: "does not allow email addresses"},
		{name: "UPN is not allowed", dn: "", sans: []string{"UPN:a@example.com"}, kind: fault.PolicyRefused, field: "sans", detail: "does not allow user principal names"},
		{name: "otherName", dn: "", in: func(in *profile.Input) {
			in.CSR.SANs = []der.GeneralName{der.OtherName(asn1.ObjectIdentifier{1, 2, 3}, []byte{5, 0})}
		}, kind: fault.PolicyRefused, field: "sans", detail: "otherNames"},
		{name: "UPN with a value of another type", dn: "", change: sansOf(func(*profile.SANRules) {}), in: func(in *profile.Input) {
			in.CSR.SANs = []der.GeneralName{{Tag: der.TagOtherName, TypeID: der.UPN("").TypeID, Text: "a@b", Raw: []byte{5, 0}}}
		}, kind: fault.PolicyRefused, field: "sans", detail: "otherNames"},
		{name: "directoryName", dn: "", in: func(in *profile.Input) { in.CSR.SANs = []der.GeneralName{der.DirectoryName([]byte{0x30, 0})} }, kind: fault.PolicyRefused, field: "sans", detail: "directoryName"},
		{name: "too many", dn: "", sans: []string{"a.example", "b.example", "c.example"}, change: sansOf(func(s *profile.SANRules) { s.Max = 2 }), kind: fault.PolicyRefused, field: "sans", detail: "3 names"},

		{name: "reserved", dn: "", sans: []string{"CA.example.com"}, in: reserve, kind: fault.PolicyRefused, field: "sans", detail: "this server itself"},
		{name: "reserved address", dn: "", sans: []string{"192.0.2.1"}, in: reserve, kind: fault.PolicyRefused, field: "sans", detail: "this server itself"},
		{name: "reserved, by CN", dn: "CN=ca.example.com", in: reserve, kind: fault.PolicyRefused, field: "sans", detail: "this server itself"},
		{name: "reserved, in a URI", dn: "", sans: []string{"a.example.com", "https://CA.example.com/"}, in: reserve, kind: fault.PolicyRefused, field: "sans", detail: "this server itself"},
		{name: "reserved, behind a wildcard", dn: "", sans: []string{"*.example.com"}, change: wildcards, in: reserve, kind: fault.PolicyRefused, field: "sans", detail: "this server itself"},
		{name: "a wildcard beside it", dn: "", sans: []string{"*.ca.example.com"}, change: wildcards, in: reserve, subject: "CN=*.ca.example.com", want: []string{"DNS:*.ca.example.com"}},
		{name: "reserved for us", profile: "https", dn: "", sans: []string{"ca.example.com", "192.0.2.1", "localhost"}, in: reserve, subject: "CN=ca.example.com", want: []string{"DNS:ca.example.com", "IP:192.0.2.1", "DNS:localhost"}},

		{name: "URI with dot segments", dn: "", sans: []string{"a.example.com", "spiffe://example.com/a/%2e%2e/b"}, kind: fault.BadCSR, field: "sans", detail: "dot segments"},
		{name: "URI without host", dn: "", sans: []string{"a.example.com", "URI:https:///x"}, subject: "CN=a.example.com", want: []string{"DNS:a.example.com", "URI:https:///x"}},
		{name: "relative URI", dn: "", sans: []string{"a.example.com", "URI:/x"}, kind: fault.BadCSR, field: "sans", detail: "not an absolute URI"},
		{name: "URI beyond ASCII", dn: "", sans: []string{"a.example.com", "URI:https://example.com/ä"}, kind: fault.BadCSR, field: "sans", detail: "percent-encoded"},
		{name: "URI in the prefix", dn: "", sans: []string{"a.example.com", "spiffe://example.com/a"}, change: sansOf(func(s *profile.SANRules) { s.URI.Prefixes = []string{"spiffe://example.com/"} }), subject: "CN=a.example.com", want: []string{"DNS:a.example.com", "URI:spiffe://example.com/a"}},
		{name: "URI beside the prefix", dn: "", sans: []string{"a.example.com", "spiffe://example.com.evil/a"}, change: sansOf(func(s *profile.SANRules) { s.URI.Prefixes = []string{"spiffe://example.com/"} }), kind: fault.PolicyRefused, field: "sans", detail: "none of the prefixes"},

		{name: "override of the names", dn: "CN=old.example.com,O=Acme", sans: []string{"old.example.com"}, in: func(in *profile.Input) { in.SANs = names(t, "new.example.com") }, subject: "CN=new.example.com,O=Acme", want: []string{"DNS:new.example.com"}, warning: "old.example.com"},
		{name: "override of the subject", dn: "CN=old.example.com,O=Acme", sans: []string{"a.example.com"}, in: func(in *profile.Input) { in.Subject = subject(t, "O=Other") }, subject: "CN=a.example.com,O=Other", want: []string{"DNS:a.example.com"}},
		{name: "override by an empty subject", dn: "CN=a.example.com", sans: []string{"a.example.com"}, in: func(in *profile.Input) { in.Subject = subject(t, "") }, subject: "", want: []string{"DNS:a.example.com"}},
		{name: "override by no names", dn: "CN=a.example.com", sans: []string{"a.example.com"}, in: func(in *profile.Input) { in.SANs = names(t) }, kind: fault.PolicyRefused, field: "sans", detail: "needs a name"},
		{name: "override of both, at odds", dn: "", in: func(in *profile.Input) {
			in.Subject, in.SANs = subject(t, "CN=a.example.com"), names(t, "b.example.com")
		}, kind: fault.PolicyRefused, field: "subject", detail: "none of the alternative names"},
		{name: "override by text that is no name", dn: "", in: func(in *profile.Input) { in.SANs = names(t, "a_b.example.com") }, kind: fault.BadRequest, field: "sans", detail: "underscore"},
	}
	for _, tt := range tests {
		if tt.profile == "" {
			tt.profile = "server"
		}
		t.Run(tt.name, tt.run)
	}
}

func TestNamesOfOthers(t *testing.T) {
	uris := func(prefixes ...string) *profile.Constraints {
		return &profile.Constraints{NameConstraints: der.NameConstraints{Permitted: der.Subtrees{URI: prefixes}}}
	}
	tests := []nameCase{
		{name: "person", profile: "client", dn: "CN=Ada Lovelace,O=Acme", subject: "CN=Ada Lovelace,O=Acme", want: []string{"URI:urn:certwright:client:Ada%20Lovelace"}},
		{name: "person with a dot", profile: "client", dn: "CN=ada.lovelace", subject: "CN=ada.lovelace", want: []string{"URI:urn:certwright:client:ada.lovelace"}},
		{name: "person by address", profile: "client", dn: "CN=ada@Example.com", subject: "CN=ada@Example.com", want: []string{"email:ada@example.com"}},
		{name: "person with emailAddress", profile: "client", dn: "CN=Ada,emailAddress=ada@example.com", subject: "CN=Ada,emailAddress=ada@example.com", want: []string{"email:ada@example.com"}},
		{name: "emailAddress beside another address", profile: "client", dn: "CN=Ada,E=ada@example.com", sans: []string{"email:a@example.org"}, subject: "CN=Ada,emailAddress=ada@example.com", want: []string{"email:a@example.org", "email:ada@example.com"}},
		{name: "emailAddress overridden", profile: "client", dn: "CN=Ada,E=ada@example.com", in: func(in *profile.Input) { in.SANs = names(t, "email:a@example.org") }, subject: "CN=Ada", want: []string{"email:a@example.org"}, warning: "emailAddress"},
		{name: "emailAddress that is none", profile: "client", dn: "CN=Ada,E=ada", kind: fault.BadCSR, field: "subject", detail: "not an email address"},
		{name: "emailAddress where no address may be", profile: "client", change: sansOf(func(s *profile.SANRules) { s.Email = nil }), dn: "CN=Ada,E=ada@example.com", subject: "CN=Ada", want: []string{"URI:urn:certwright:client:Ada"}, warning: "emailAddress"},
		{name: "service", profile: "client", dn: "CN=billing.prod.example.com", subject: "CN=billing.prod.example.com", want: []string{"DNS:billing.prod.example.com"}},
		{name: "service outside the suffix", profile: "client", change: sansOf(func(s *profile.SANRules) { s.DNS.Suffixes = []string{"example.com"} }), dn: "CN=billing.prod.example.org", kind: fault.PolicyRefused, field: "sans", detail: "none of the domains"},
		{name: "international person", profile: "client", dn: "CN=Jürgen/x:y", subject: "CN=Jürgen/x:y", want: []string{"URI:urn:certwright:client:J%C3%BCrgen%2Fx:y"}},
		{name: "no URIs in the profile", profile: "client", change: sansOf(func(s *profile.SANRules) { s.URI = nil }), dn: "CN=Ada", subject: "CN=Ada"},
		{name: "no URNs in the profile", profile: "client", change: sansOf(func(s *profile.SANRules) { s.URI.Prefixes = []string{"spiffe://a/"} }), dn: "CN=Ada", subject: "CN=Ada"},
		{name: "an issuer that constrains URIs", profile: "client", dn: "CN=Ada", in: func(in *profile.Input) { in.Issuer.Constraints = []*profile.Constraints{uris("example.com")} }, subject: "CN=Ada"},
		{name: "client without CN", profile: "client", dn: "O=Acme", kind: fault.PolicyRefused, field: "subject", detail: "needs CN"},
		{name: "CN from the address", profile: "client", dn: "", sans: []string{"email:ada@example.com"}, subject: "CN=ada@example.com", want: []string{"email:ada@example.com"}},
		{name: "CN from the UPN", profile: "client", dn: "", sans: []string{"UPN:Ada@CORP.example"}, subject: "CN=Ada@CORP.example", want: []string{"UPN:Ada@CORP.example"}},
		{name: "wildcard for a client", profile: "client", dn: "CN=*.example.com", kind: fault.PolicyRefused, field: "subject", detail: "none of the alternative names"},
		{name: "wildcards in a client's CN", profile: "client", dn: "CN=ada*", kind: fault.PolicyRefused, field: "subject", detail: "wildcard"},
		{name: "client with our name", profile: "client", dn: "CN=localhost", in: func(in *profile.Input) { in.Reserved = []string{"localhost"} }, kind: fault.PolicyRefused, field: "sans", detail: "this server itself"},
		{name: "UPN in the realm", profile: "client", change: sansOf(func(s *profile.SANRules) { s.UPN.Suffixes = []string{".example"} }), dn: "CN=a", sans: []string{"UPN:a@CORP.Example"}, subject: "CN=a", want: []string{"UPN:a@CORP.Example"}},
		{name: "UPN in another realm", profile: "client", change: sansOf(func(s *profile.SANRules) { s.UPN.Suffixes = []string{"corp.example"} }), dn: "CN=a", sans: []string{"UPN:a@evil.example"}, kind: fault.PolicyRefused, field: "sans", detail: "none of the domains"},
		{name: "UPN without realm", profile: "client", dn: "CN=a", sans: []string{"UPN:a"}, kind: fault.BadCSR, field: "sans", detail: "user@realm"},

		{name: "device", profile: "device", dn: "CN=sensor-7", subject: "CN=sensor-7", want: []string{"URI:urn:certwright:device:sensor-7"}},
		{name: "device by number", profile: "device", dn: "serialNumber=FGL2340,O=Acme", subject: "serialNumber=FGL2340,O=Acme", want: []string{"URI:urn:certwright:device:FGL2340"}},
		{name: "device by name", profile: "device", dn: "CN=printer.example", subject: "CN=printer.example", want: []string{"DNS:printer.example"}},
		{name: "device with neither", profile: "device", dn: "O=Acme", sans: []string{"URI:urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"}, kind: fault.PolicyRefused, field: "subject", detail: "CN or serialNumber"},
		{name: "device with an odd attribute", profile: "device", dn: "CN=r1,1.2.840.113549.1.9.2=r1.example", subject: "CN=r1", want: []string{"URI:urn:certwright:device:r1"}, warning: "1.2.840.113549.1.9.2"},
		{name: "device with an odd attribute, strictly", profile: "device", change: func(c *profile.Config) { c.StrictSubject = true }, dn: "CN=r1,1.2.840.113549.1.9.2=r1.example", kind: fault.PolicyRefused, field: "subject", detail: "1.2.840.113549.1.9.2"},

		{name: "email", profile: "email", dn: "CN=Ada", sans: []string{"ada@example.com"}, subject: "CN=Ada", want: []string{"email:ada@example.com"}},
		{name: "email by CN", profile: "email", dn: "CN=ada@example.com", subject: "CN=ada@example.com", want: []string{"email:ada@example.com"}},
		{name: "email without address", profile: "email", dn: "CN=Ada", kind: fault.PolicyRefused, field: "sans", detail: "email"},
		{name: "email to a domain", profile: "email", change: func(c *profile.Config) {
			c.SANs = &profile.SANRules{Email: &profile.EmailRules{Domains: []string{"example.com"}}}
		}, dn: "CN=Ada", sans: []string{"ada@sub.example.com"}, kind: fault.PolicyRefused, field: "sans", detail: "none of the domains"},
		{name: "quoted local part", profile: "email", dn: "CN=Ada", sans: []string{`email:"ada l"@example.com`}, kind: fault.BadCSR, field: "sans", detail: "before the @"},
		{name: "local part beyond ASCII", profile: "email", dn: "CN=Ada", sans: []string{"email:jürgen@example.com"}, kind: fault.BadCSR, field: "sans", detail: "before the @"},
		{name: "domain beyond ASCII", profile: "email", dn: "CN=Ada", sans: []string{"email:ada@müller.example"}, subject: "CN=Ada", want: []string{"email:ada@xn--mller-kva.example"}},
		{name: "two dots", profile: "email", dn: "CN=Ada", sans: []string{"email:a..b@example.com"}, kind: fault.BadCSR, field: "sans", detail: "not an email address"},

		{name: "CA", profile: "sub-ca", dn: "CN=Plant CA,O=Acme", in: func(in *profile.Input) { in.CSR.IsCA = true }, subject: "CN=Plant CA,O=Acme"},
		{name: "CA without name", profile: "sub-ca", dn: "O=Acme", kind: fault.PolicyRefused, field: "subject", detail: "needs CN"},
		{name: "CA with names", profile: "sub-ca", dn: "CN=Plant CA", sans: []string{"a.example"}, kind: fault.PolicyRefused, field: "sans", detail: "does not allow DNS names"},
		{name: "OCSP", profile: "ocsp", dn: "CN=Acme OCSP", subject: "CN=Acme OCSP"},
		{name: "OCSP without subject", profile: "ocsp", dn: "", kind: fault.PolicyRefused, field: "subject", detail: "names nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, tt.run)
	}
}

func TestSubjects(t *testing.T) {
	fixed := func(c *profile.Config) {
		c.Subject.Fixed = []profile.FixedAttribute{{Type: "C", Value: "de"}, {Type: "O", Value: "Acme"}}
	}
	const san = "a.example.com"
	tests := []nameCase{
		{name: "openssl's defaults", dn: "/C=AU/ST=Some-State/O=Internet Widgits Pty Ltd", subject: "CN=a.example.com,O=Internet Widgits Pty Ltd,ST=Some-State,C=AU"},
		{name: "several units", dn: "/OU=A/OU=B", subject: "CN=a.example.com,OU=B,OU=A"},
		{name: "two common names", dn: "/CN=a.example.com/CN=b.example.com", kind: fault.PolicyRefused, field: "subject", detail: "CN stands twice"},
		{name: "an attribute beyond the profile", dn: "/UID=x", subject: "CN=a.example.com", warning: "UID"},
		{name: "an attribute beyond the profile, outright", in: func(in *profile.Input) { in.Subject = subject(t, "/UID=x") }, kind: fault.PolicyRefused, field: "subject", detail: "does not allow UID"},
		{name: "an attribute beyond the profile, strictly", dn: "/UID=x", change: func(c *profile.Config) { c.StrictSubject = true }, kind: fault.PolicyRefused, field: "subject", detail: "does not allow UID"},
		{name: "an odd attribute allowed", dn: "/1.2.3.4=x", change: func(c *profile.Config) { c.Subject.Allowed = []string{"1.2.3.4"} }, subject: "1.2.3.4=x"},
		{name: "nothing allowed", dn: "/O=x", change: func(c *profile.Config) { c.Subject.Allowed = []string{} }, subject: "", warning: "does not allow O"},
		{name: "required", dn: "/O=x", change: func(c *profile.Config) { c.Subject.Required = []string{"OU"} }, kind: fault.PolicyRefused, field: "subject", detail: "needs OU"},
		{name: "required and given", dn: "/OU=x", change: func(c *profile.Config) { c.Subject.Required = []string{"OU", "CN"} }, subject: "CN=a.example.com,OU=x"},
		{name: "fixed", dn: "", change: fixed, subject: "CN=a.example.com,O=Acme,C=DE"},
		{name: "fixed, the same in the CSR", dn: "/O=Acme/OU=x", change: fixed, subject: "CN=a.example.com,OU=x,O=Acme,C=DE"},
		{name: "fixed, another in the CSR", dn: "/O=Evil", change: fixed, subject: "CN=a.example.com,O=Acme,C=DE", warning: "sets O"},
		{name: "fixed, another outright", in: func(in *profile.Input) { in.Subject = subject(t, "/O=Evil") }, change: fixed, kind: fault.PolicyRefused, field: "subject", detail: "sets O"},
		{name: "empty values", dn: "/O=/OU= /L=x", subject: "CN=a.example.com,L=x"},
		{name: "country in lower case", dn: "/C=de", subject: "CN=a.example.com,C=DE"},
		{name: "country in letters", dn: "/C=Germany", kind: fault.BadCSR, field: "subject", detail: "two letters"},
		{name: "country of digits", dn: "/C=49", kind: fault.BadCSR, field: "subject", detail: "two letters"},
		{name: "serialNumber", dn: "/serialNumber=A-7 (b)", subject: "CN=a.example.com,serialNumber=A-7 (b)"},
		{name: "serialNumber with an underscore", dn: "/serialNumber=A_7", kind: fault.BadCSR, field: "subject", detail: "PrintableString"},
		{name: "escape character", dn: "/O=a\x1b[31m", kind: fault.BadCSR, field: "subject", detail: "U+001B"},
		{name: "NUL", in: func(in *profile.Input) {
			in.CSR.Subject = []der.Attribute{{Type: pki.OIDOrganization, Value: "a\x00b"}}
		}, kind: fault.BadCSR, field: "subject", detail: "U+0000"},
		{name: "right-to-left override", dn: "/O=a\u202eb", kind: fault.BadCSR, field: "subject", detail: "U+202E"},
		{name: "isolate", dn: "/O=a\u2066b", kind: fault.BadCSR, field: "subject", detail: "U+2066"},
		{name: "zero-width space", dn: "/O=a\u200bb", kind: fault.BadCSR, field: "subject", detail: "U+200B"},
		{name: "line separator", dn: "/O=a\u2028b", kind: fault.BadCSR, field: "subject", detail: "U+2028"},
		{name: "newline", dn: "/O=a\nb", kind: fault.BadCSR, field: "subject", detail: "U+000A"},
		{name: "C1 control", dn: "/O=a\u0085b", kind: fault.BadCSR, field: "subject", detail: "U+0085"},
		{name: "no character", dn: "/O=a\uffffb", kind: fault.BadCSR, field: "subject", detail: "U+FFFF"},
		{name: "bad UTF-8", in: func(in *profile.Input) {
			in.CSR.Subject = []der.Attribute{{Type: pki.OIDOrganization, Value: "a\xff"}}
		}, kind: fault.BadCSR, field: "subject", detail: "UTF-8"},
		{name: "NFC", dn: "/O=Mu\u0308ller", subject: "CN=a.example.com,O=M\u00fcller"},
		{name: "Hebrew", dn: "/O=שלום", subject: "CN=a.example.com,O=שלום"},
		{name: "mixed scripts", dn: "/O=\u0410cme", subject: "CN=a.example.com,O=\u0410cme", warning: "mixes Cyrillic and Latin"},
		{name: "O of 64 characters", dn: "/O=" + strings.Repeat("ü", 64), subject: "CN=a.example.com,O=" + strings.Repeat("ü", 64)},
		{name: "O of 65 characters", dn: "/O=" + strings.Repeat("ü", 65), kind: fault.BadCSR, field: "subject", detail: "more than 64"},
		{name: "L of 129 characters", dn: "/L=" + strings.Repeat("x", 129), kind: fault.BadCSR, field: "subject", detail: "more than 128"},
		{name: "CN of 65 characters", dn: "/CN=" + strings.Repeat("x y", 22), kind: fault.BadCSR, field: "subject", detail: "more than 64"},
		{name: "spaces around", dn: "/O=\\ Acme\\ ", subject: "CN=a.example.com,O=Acme"},
		{name: "33 attributes", in: func(in *profile.Input) {
			in.CSR.Subject = slices.Repeat([]der.Attribute{{Type: pki.OIDOrganizationalUnit, Value: "x"}}, 33)
		}, kind: fault.PolicyRefused, field: "subject", detail: "more than 32"},
	}
	for _, tt := range tests {
		tt.profile, tt.sans, tt.want = "server", []string{san}, []string{"DNS:" + san}
		t.Run(tt.name, tt.run)
	}
}

func TestValidity(t *testing.T) {
	const day = 24 * time.Hour
	end := func(d time.Duration) time.Time { return now.Add(d - time.Second) }
	clamp := func(c *profile.Config) { c.Validity.Clamp = true }
	young := profile.Issuer{NotBefore: now.Add(-time.Minute), NotAfter: now.Add(10 * day)}
	tests := []struct {
		name          string
		profile       string
		change        func(*profile.Config)
		in            func(*profile.Input)
		notBefore     time.Time // zero: five minutes ago
		notAfter      time.Time
		field, detail string
		warning       string
		kind          fault.Kind
	}{
		{name: "default", notAfter: end(90 * day)},
		{name: "client", profile: "client", notAfter: end(365 * day)},
		{name: "fractions are cut", in: func(in *profile.Input) { in.Now = now.Add(999 * time.Millisecond) }, notAfter: end(90 * day)},
		{name: "another zone", in: func(in *profile.Input) { in.Now = now.In(time.FixedZone("", 3600)) }, notAfter: end(90 * day)},
		{name: "asked for", in: func(in *profile.Input) { in.Validity = time.Hour }, notAfter: end(time.Hour)},
		{name: "asked for the longest", in: func(in *profile.Input) { in.Validity = 397 * day }, notAfter: end(397 * day)},
		{name: "a second too long", in: func(in *profile.Input) { in.Validity = 397*day + time.Second }, field: "validity", detail: "397d at the most"},
		{name: "a second too long, clamped", change: clamp, in: func(in *profile.Input) { in.Validity = 397*day + time.Second }, notAfter: end(397 * day), warning: "397d at the most"},
		{name: "an end", in: func(in *profile.Input) { in.NotAfter = now.Add(day) }, notAfter: now.Add(day)},
		{name: "an end too late", in: func(in *profile.Input) { in.NotAfter = now.Add(397 * day) }, field: "notAfter", detail: "397d"},
		{name: "both", in: func(in *profile.Input) { in.NotAfter, in.Validity = now.Add(day), day }, field: "notAfter", detail: "two ways", kind: fault.BadRequest},
		{name: "negative", in: func(in *profile.Input) { in.Validity = -day }, field: "validity", detail: "less than a second", kind: fault.BadRequest},
		{name: "an end in the past", in: func(in *profile.Input) { in.NotAfter = now.Add(-time.Second) }, field: "notAfter", detail: "before it begins", kind: fault.BadRequest},
		{name: "the end of time", in: func(in *profile.Input) { in.NotAfter = pki.NoExpiry }, field: "notAfter", detail: "397d"},

		{name: "default beyond the issuer", in: func(in *profile.Input) { in.Issuer = young }, notBefore: now.Add(-time.Minute), notAfter: now.Add(10 * day), warning: "ends with its issuer"},
		{name: "beyond the issuer", in: func(in *profile.Input) { in.Issuer, in.Validity = young, 11*day }, field: "validity", detail: "issuer itself ends"},
		{name: "beyond the issuer, clamped", change: clamp, in: func(in *profile.Input) { in.Issuer, in.Validity = young, 11*day }, notBefore: now.Add(-time.Minute), notAfter: now.Add(10 * day), warning: "ends with its issuer"},
		{name: "exactly the issuer's end", in: func(in *profile.Input) { in.Issuer, in.NotAfter = young, young.NotAfter }, notBefore: now.Add(-time.Minute), notAfter: now.Add(10 * day)},
		{name: "an issuer that has ended", in: func(in *profile.Input) { in.Issuer.NotAfter = now.Add(-time.Second) }, field: "issuer", detail: "ended"},
		{name: "an issuer of tomorrow", in: func(in *profile.Input) { in.Issuer.NotBefore = now.Add(time.Second) }, field: "issuer", detail: "begins"},
		{name: "no issuer", in: func(in *profile.Input) { in.Issuer = profile.Issuer{} }, notAfter: end(90 * day)},

		{name: "backdated by profile", change: func(c *profile.Config) { c.Validity.Backdate = new(profile.Duration(48 * time.Hour)) }, notBefore: now.Add(-2 * day), notAfter: end(90 * day)},
		{name: "not backdated", change: func(c *profile.Config) { c.Validity.Backdate = new(profile.Duration(0)) }, notBefore: now, notAfter: end(90 * day)},
		{name: "a beginning", in: func(in *profile.Input) { in.NotBefore = now.Add(day) }, notBefore: now.Add(day), notAfter: end(90 * day)},
		{name: "a beginning too early", in: func(in *profile.Input) { in.NotBefore = now.Add(-time.Hour) }, field: "notBefore", detail: "5m"},
		{name: "a beginning before the issuer's", in: func(in *profile.Input) { in.Issuer, in.NotBefore = young, now.Add(-2*time.Minute) }, field: "notBefore", detail: "issuer itself begins"},
		{name: "a beginning after the end", in: func(in *profile.Input) { in.NotBefore = now.Add(91 * day) }, field: "validity", detail: "before it begins", kind: fault.BadRequest},

		{name: "root", profile: "root", in: func(in *profile.Input) { in.Issuer = profile.Issuer{} }, notBefore: now.Add(-day), notAfter: end(20 * 365 * day)},
		{name: "no end", profile: "device", change: func(c *profile.Config) { c.Validity.NoExpiry = true }, in: func(in *profile.Input) { in.Issuer.NotAfter = pki.NoExpiry }, notAfter: pki.NoExpiry},
		{name: "no end, but the issuer's", profile: "device", change: func(c *profile.Config) { c.Validity.NoExpiry = true }, notAfter: issuerEnd, warning: "ends with its issuer"},
		{name: "no end, but an end asked for", profile: "device", change: func(c *profile.Config) { c.Validity.NoExpiry = true }, in: func(in *profile.Input) { in.Issuer.NotAfter, in.Validity = pki.NoExpiry, day }, notAfter: end(day)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.profile == "" {
				tt.profile = "server"
			}
			var changes []func(*profile.Config)
			if tt.change != nil {
				changes = append(changes, tt.change)
			}
			in := input(t, "CN=host.a.example.com")
			if tt.in != nil {
				tt.in(&in)
			}
			got, err := builtin(t, tt.profile, changes...).Contents(in)
			if tt.detail != "" {
				if tt.kind == 0 {
					tt.kind = fault.PolicyRefused
				}
				wantFault(t, err, tt.kind, tt.field, tt.detail)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.notBefore.IsZero() {
				tt.notBefore = now.Add(-5 * time.Minute)
			}
			if got.NotBefore != tt.notBefore || got.NotAfter != tt.notAfter {
				t.Errorf("%v to %v, want %v to %v", got.NotBefore, got.NotAfter, tt.notBefore, tt.notAfter)
			}
			if warnings := strings.Join(got.Warnings, "\n"); !strings.Contains(warnings, tt.warning) || tt.warning == "" && warnings != "" {
				t.Errorf("warnings %q, want %q", warnings, tt.warning)
			}
		})
	}
}

func TestWishes(t *testing.T) {
	eku := func(oids ...asn1.ObjectIdentifier) []asn1.ObjectIdentifier { return oids }
	tests := []struct {
		name    string
		profile string
		in      func(*profile.Input)
		kind    fault.Kind
		field   string
		detail  string
		warning string
	}{
		{name: "CA:TRUE for a leaf", in: func(in *profile.Input) { in.CSR.IsCA = true }, kind: fault.PolicyRefused, field: "csr", detail: "CA:TRUE"},
		{name: "purposes of the profile", in: func(in *profile.Input) { in.CSR.ExtKeyUsage = eku(pki.OIDServerAuth) }},
		{name: "purposes beyond the profile", in: func(in *profile.Input) { in.CSR.ExtKeyUsage = eku(pki.OIDServerAuth, pki.OIDClientAuth) }, warning: "clientAuth"},
		{name: "unknown purpose", in: func(in *profile.Input) { in.CSR.ExtKeyUsage = eku(asn1.ObjectIdentifier{1, 2, 3}) }, warning: "1.2.3"},
		{name: "unknown purpose for a device", profile: "device", in: func(in *profile.Input) { in.CSR.ExtKeyUsage = eku(asn1.ObjectIdentifier{1, 2, 3}) }, kind: fault.PolicyRefused, field: "csr", detail: "1.2.3"},
		{name: "any purpose", in: func(in *profile.Input) { in.CSR.ExtKeyUsage = eku(pki.OIDAnyEKU) }, kind: fault.PolicyRefused, field: "csr", detail: "anyExtendedKeyUsage"},
		{name: "OCSPSigning", in: func(in *profile.Input) { in.CSR.ExtKeyUsage = eku(pki.OIDOCSPSigning) }, kind: fault.PolicyRefused, field: "csr", detail: "OCSPSigning"},
		{name: "cmcRA", in: func(in *profile.Input) { in.CSR.ExtKeyUsage = eku(pki.OIDCMCRA) }, kind: fault.PolicyRefused, field: "csr", detail: "cmcRA"},
		{name: "purpose outright", in: func(in *profile.Input) { in.ExtKeyUsage = eku(pki.OIDServerAuth) }},
		{name: "purpose outright, beyond the profile", in: func(in *profile.Input) { in.ExtKeyUsage = eku(pki.OIDClientAuth) }, kind: fault.PolicyRefused, field: "extKeyUsage", detail: "clientAuth"},
		{name: "keyCertSign", in: func(in *profile.Input) { in.CSR.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature }, warning: "keyCertSign"},
		{name: "keyEncipherment on ECDSA", in: func(in *profile.Input) { in.CSR.KeyUsage = x509.KeyUsageKeyEncipherment }, warning: "keyEncipherment"},
		{name: "keyEncipherment on RSA", in: func(in *profile.Input) { in.PublicKey, in.CSR.KeyUsage = keyRSA, x509.KeyUsageKeyEncipherment }},
		{name: "Ed25519", in: func(in *profile.Input) { in.PublicKey = keyEd }, warning: "Ed25519"},
		{name: "Ed25519 for email", profile: "email", in: func(in *profile.Input) { in.PublicKey = keyEd }, kind: fault.BadPublicKey, field: "publicKey", detail: "ed25519"},
		{name: "ECDSA for an RA", profile: "ra", in: func(*profile.Input) {}, kind: fault.BadPublicKey, field: "publicKey", detail: "p-256"},
		{name: "no key", in: func(in *profile.Input) { in.PublicKey = nil }, kind: fault.BadPublicKey, field: "publicKey", detail: "kind"},
		{name: "CA below a path length of none", profile: "sub-ca", in: func(in *profile.Input) { in.Issuer.PathLen = new(0) }, kind: fault.PolicyRefused, field: "issuer", detail: "no room"},
		{name: "CA below a path length of one", profile: "sub-ca", in: func(in *profile.Input) { in.Issuer.PathLen = new(1) }},
		{name: "leaf below a path length of none", in: func(in *profile.Input) { in.Issuer.PathLen = new(0) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.profile == "" {
				tt.profile = "server"
			}
			p := builtin(t, tt.profile)
			in := input(t, "CN=host.a.example.com")
			tt.in(&in)
			got, err := p.Contents(in)
			if tt.detail != "" {
				wantFault(t, err, tt.kind, tt.field, tt.detail)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(p.ExtKeyUsage(), got.ExtKeyUsage); diff != "" {
				t.Errorf("purposes (-want +got):\n%s", diff)
			}
			if got.KeyUsage != p.KeyUsage(got.KeyAlgorithm) || got.IsCA != p.IsCA() {
				t.Errorf("key usage %v, CA %v", profile.KeyUsageNames(got.KeyUsage), got.IsCA)
			}
			if warnings := strings.Join(got.Warnings, "\n"); !strings.Contains(warnings, tt.warning) || tt.warning == "" && warnings != "" {
				t.Errorf("warnings %q, want %q", warnings, tt.warning)
			}
		})
	}
}

func TestIssuerConstraints(t *testing.T) {
	name := func(dn string) []byte {
		var rdns [][]der.Attribute
		for _, a := range subject(t, dn) {
			rdns = append(rdns, []der.Attribute{a})
		}
		return must(der.AppendName(nil, rdns))
	}
	net := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	permit := func(s der.Subtrees) *profile.Constraints {
		return &profile.Constraints{NameConstraints: der.NameConstraints{Permitted: s}}
	}
	exclude := func(s der.Subtrees) *profile.Constraints {
		return &profile.Constraints{NameConstraints: der.NameConstraints{Excluded: s}}
	}
	tests := []struct {
		name        string
		constraints *profile.Constraints
		dn          string
		sans        []string
		ok          bool
	}{
		{"DNS inside", permit(der.Subtrees{DNS: []string{"example.com"}}), "", []string{"a.example.com", "example.com"}, true},
		{"DNS outside", permit(der.Subtrees{DNS: []string{"example.com"}}), "", []string{"a.example.com", "example.org"}, false},
		{"DNS beside", permit(der.Subtrees{DNS: []string{"example.com"}}), "", []string{"badexample.com"}, false},
		{"DNS by CN alone", permit(der.Subtrees{DNS: []string{"example.com"}}), "CN=a.example.org", nil, false},
		{"a person's CN is a host to OpenSSL", permit(der.Subtrees{DNS: []string{"example.com"}}), "CN=john.doe", []string{"email:j@example.org"}, false},
		{"a person's CN beside DNS", permit(der.Subtrees{DNS: []string{"example.com"}}), "CN=John Doe", []string{"email:j@example.org"}, true},
		{"wildcard inside", permit(der.Subtrees{DNS: []string{"example.com"}}), "", []string{"*.example.com"}, true},
		{"wildcard too wide", permit(der.Subtrees{DNS: []string{"a.example.com"}}), "", []string{"*.example.com"}, false},
		{"wildcard over what is excluded", exclude(der.Subtrees{DNS: []string{"a.example.com"}}), "", []string{"*.example.com"}, false},
		{"wildcard above what is excluded", exclude(der.Subtrees{DNS: []string{"b.a.example.com"}}), "", []string{"*.example.com"}, true},
		{"DNS excluded", exclude(der.Subtrees{DNS: []string{"example.com"}}), "", []string{"a.example.com"}, false},
		{"all DNS excluded", exclude(der.Subtrees{DNS: []string{""}}), "", []string{"a"}, false},
		{"permitted DNS leaves addresses open", permit(der.Subtrees{DNS: []string{"example.com"}}), "", []string{"192.0.2.1"}, true},
		{"IP inside", permit(der.Subtrees{IP: []netip.Prefix{net("10.0.0.0/8")}}), "", []string{"10.1.1.1"}, true},
		{"IP outside", permit(der.Subtrees{IP: []netip.Prefix{net("10.0.0.0/8")}}), "", []string{"11.1.1.1"}, false},
		{"IPv6 where only IPv4 is permitted", permit(der.Subtrees{IP: []netip.Prefix{net("10.0.0.0/8")}}), "", []string{"fd00::1"}, false},
		{"IP excluded", exclude(der.Subtrees{IP: []netip.Prefix{net("::/0")}}), "", []string{"fd00::1"}, false},
		{"IPv4 where IPv6 is excluded", exclude(der.Subtrees{IP: []netip.Prefix{net("::/0")}}), "", []string{"10.0.0.1"}, true},
		{"address at the host", permit(der.Subtrees{Email: []string{"example.com"}}), "CN=a", []string{"email:a@example.com"}, true},
		{"address below the host", permit(der.Subtrees{Email: []string{"example.com"}}), "CN=a", []string{"email:a@b.example.com"}, false},
		{"address below the domain", permit(der.Subtrees{Email: []string{".example.com"}}), "CN=a", []string{"email:a@b.example.com"}, true},
		{"this address", permit(der.Subtrees{Email: []string{"a@example.com"}}), "CN=a", []string{"email:a@example.com"}, true},
		{"this address in other letters", permit(der.Subtrees{Email: []string{"a@example.com"}}), "CN=a", []string{"email:A@example.com"}, false},
		{"address excluded", exclude(der.Subtrees{Email: []string{"example.com"}}), "CN=a", []string{"email:a@example.com"}, false},
		{"URI at the host", permit(der.Subtrees{URI: []string{"example.com"}}), "CN=a", []string{"https://example.com/x"}, true},
		{"URI elsewhere", permit(der.Subtrees{URI: []string{"example.com"}}), "CN=a", []string{"https://a.example.com/x"}, false},
		{"URI below the domain", permit(der.Subtrees{URI: []string{".example.com"}}), "CN=a", []string{"https://a.example.com/x"}, true},
		{"URI without host", permit(der.Subtrees{URI: []string{"example.com"}}), "CN=a", []string{"urn:a:b"}, false},
		{"URI with an address", exclude(der.Subtrees{URI: []string{"example.com"}}), "CN=a", []string{"https://10.0.0.1/"}, false},
		{"UPN", &profile.Constraints{OtherNames: true}, "CN=a", []string{"UPN:a@b"}, false},
		{"no UPN", &profile.Constraints{OtherNames: true}, "CN=a", []string{"email:a@example.com"}, true},
		{"directory inside", permit(der.Subtrees{Directory: [][]byte{name("/C=DE/O=Acme  corp")}}), "/C=DE/O=ACME Corp/CN=x", []string{"a.example"}, true},
		{"directory in another order", permit(der.Subtrees{Directory: [][]byte{name("/C=DE/O=Acme")}}), "/O=Acme/C=DE/CN=x", []string{"a.example"}, false},
		{"directory outside", permit(der.Subtrees{Directory: [][]byte{name("/C=DE/O=Acme")}}), "/C=DE/CN=x", []string{"a.example"}, false},
		{"directory excluded", exclude(der.Subtrees{Directory: [][]byte{name("/C=DE")}}), "/C=DE/CN=x", []string{"a.example"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := must(profile.New(profile.Config{
				Name: "any", Kind: profile.KindOther, ExtKeyUsage: []string{"serverAuth"},
				SANs: &profile.SANRules{
					DNS: &profile.DNSRules{Wildcards: true}, IP: &profile.IPRules{}, Email: &profile.EmailRules{},
					URI: &profile.URIRules{}, UPN: &profile.UPNRules{},
				},
			}))
			in := input(t, tt.dn, tt.sans...)
			in.Issuer.Constraints = []*profile.Constraints{tt.constraints}
			_, err := p.Contents(in)
			if tt.ok && err != nil {
				t.Errorf("refused: %v", err)
			}
			if !tt.ok {
				wantFault(t, err, fault.PolicyRefused, "sans", "name constraints")
			}

			// The same constraints, read from the certificate that carries them.
			if tt.constraints.OtherNames {
				return
			}
			parsed, err := profile.ParseConstraints(constraintsValue(t, &tt.constraints.NameConstraints))
			if err != nil {
				t.Fatal(err)
			}
			in.Issuer.Constraints = []*profile.Constraints{parsed}
			if _, err := p.Contents(in); (err == nil) != tt.ok {
				t.Errorf("by the certificate: %v, want ok %v", err, tt.ok)
			}
		})
	}
}

// constraintsValue is the extension as package der writes it.
func constraintsValue(t *testing.T, c *der.NameConstraints) []byte {
	t.Helper()
	cert := certificate(t, der.CertificateConfig{KeyUsage: x509.KeyUsageCertSign, IsCA: true, NameConstraints: c}, profile.Contents{
		Subject: subject(t, "CN=x"), NotBefore: now, NotAfter: now,
	}, keyEC)
	for _, e := range cert.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 30}) {
			return e.Value
		}
	}
	t.Fatal("no nameConstraints")
	return nil
}

// certificate encodes contents, with a signature of nobody.
func certificate(t testing.TB, config der.CertificateConfig, c profile.Contents, key crypto.PublicKey) *x509.Certificate {
	t.Helper()
	rdns := make([][]der.Attribute, 0, len(c.Subject))
	for _, a := range c.Subject {
		rdns = append(rdns, []der.Attribute{a})
	}
	config.SignatureAlgorithm = must(der.SignatureAlgorithmFor(keyEC))
	config.Issuer = must(der.AppendName(nil, [][]der.Attribute{{{Type: pki.OIDCommonName, Value: "issuer"}}}))
	template, err := der.NewCertificateTemplate(config)
	if err != nil {
		t.Fatalf("NewCertificateTemplate: %v", err)
	}
	spki := must(x509.MarshalPKIXPublicKey(key))
	fields := &der.CertificateFields{
		SerialNumber: []byte{0x41}, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		SubjectPublicKeyInfo: spki, SubjectKeyID: der.SubjectKeyID(spki),
	}
	if fields.Subject, err = der.AppendName(nil, rdns); err != nil {
		t.Fatalf("AppendName(%s): %v", c.SubjectString, err)
	}
	if len(c.SANs) > 0 {
		if fields.SubjectAltName, err = der.AppendGeneralNames(nil, c.SANs); err != nil {
			t.Fatalf("AppendGeneralNames(%q): %v", c.SANStrings, err)
		}
	}
	tbs, err := template.AppendTBS(nil, fields)
	if err != nil {
		t.Fatalf("AppendTBS: %v", err)
	}
	cert, err := x509.ParseCertificate(der.AppendSigned(nil, tbs, config.SignatureAlgorithm, []byte{1}))
	if err != nil {
		t.Fatalf("crypto/x509 does not read the certificate of %s, %q: %v", c.SubjectString, c.SANStrings, err)
	}
	return cert
}

func TestParseConstraintsRefuses(t *testing.T) {
	for name, value := range map[string][]byte{
		"nothing":        nil,
		"empty":          {0x30, 0},
		"trailing":       {0x30, 2, 0xa0, 0, 5, 0},
		"minimum":        {0x30, 9, 0xa0, 7, 0x30, 5, 0x82, 0, 0x80, 1, 1},
		"mask with hole": {0x30, 14, 0xa0, 12, 0x30, 10, 0x87, 8, 10, 0, 0, 0, 255, 0, 255, 0},
		"odd mask":       {0x30, 11, 0xa0, 9, 0x30, 7, 0x87, 5, 10, 0, 0, 0, 255},
	} {
		if c, err := profile.ParseConstraints(value); err == nil {
			t.Errorf("%s: ParseConstraints = %+v, want an error", name, c)
		}
	}
}

func BenchmarkContents(b *testing.B) {
	server := builtin(b, "server")
	device := builtin(b, "device")
	cases := []struct {
		name string
		p    *profile.Profile
		in   profile.Input
	}{
		{"server", server, input(b, "CN=host.example.com,O=Acme,C=DE", "host.example.com", "192.0.2.7")},
		{"server by CN", server, input(b, "CN=host.example.com")},
		{"device", device, input(b, "CN=sensor-7,serialNumber=FGL2340")},
		{"international", server, input(b, "", "müller.example")},
	}
	cases[0].in.Reserved = []string{"ca.example.com", "localhost", "127.0.0.1"}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.p.Contents(c.in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
