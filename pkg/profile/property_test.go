package profile_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
	"pgregory.net/rapid"
)

// narrow is a custom profile with a rule of every sort.
var narrow = profile.Config{
	Name: "narrow", Kind: profile.KindPeer, KeyAlgorithms: []string{"p-256", "rsa"},
	Validity: profile.ValidityRules{Default: profile.Duration(24 * time.Hour), Max: profile.Duration(48 * time.Hour), Clamp: true},
	Subject: profile.SubjectRules{
		Allowed: []string{"CN", "OU"}, Fixed: []profile.FixedAttribute{{Type: "C", Value: "DE"}, {Type: "O", Value: "Acme"}},
	},
	SANs: &profile.SANRules{
		DNS: &profile.DNSRules{Suffixes: []string{"example.com"}, Denied: []string{"secret.example.com"}, Wildcards: true},
		IP:  &profile.IPRules{Networks: []string{"10.0.0.0/8"}}, Max: 4,
	},
}

// templated makes names of nearly anything.
var templated = profile.Config{
	Name: "templated", Kind: profile.KindOther, ExtKeyUsage: []string{"clientAuth"},
	Subject: profile.SubjectRules{
		Templates: []profile.FixedAttribute{{Type: "CN", Value: "{device|CN|san.dns|san.email|san.ip|san.upn}"}, {Type: "O", Value: "{O[1]|O|OU|serialNumber|CN} Inc"}},
	},
	SANs: &profile.SANRules{
		DNS: &profile.DNSRules{Suffixes: []string{"example.com"}, Wildcards: true, Underscores: true}, IP: &profile.IPRules{}, Email: &profile.EmailRules{},
		URI: &profile.URIRules{Prefixes: []string{"urn:acme:"}}, UPN: &profile.UPNRules{}, HardwareModuleName: &profile.HardwareModuleNameRules{},
		Templates: []string{"URI:urn:acme:{device|CN}/{CN|device}", "HMN:1.2.3/{device|CN}"},
	},
}

// What requests are full of, good and evil.
var (
	nameTexts = []string{
		"a.example.com", "A.EXAMPLE.com", "*.example.com", "example.com", "badexample.com", "x.secret.example.com",
		"secret.example.com", "*.com", "*", "a*.example.com", "ca.example.com", "localhost", "db1", "a_b.example.com",
		"10.1.2.3", "11.1.2.3", "127.0.0.1", "::ffff:10.0.0.1", "fd00::1", "0.0.0.0", "müller.example.com", "xn--a.example.com",
		"a.example.com.", "", " ", "a@example.com", "a@evil.org", "\"a b\"@example.com", "https://a.example.com/x",
		"spiffe://ca.example.com/", "urn:a:b", "/relative", "a\x00.example.com", "a\n.example.com", "\u202ea.example.com",
		"Ada Lovelace", "\u0410cme", strings.Repeat("a", 64), strings.Repeat("a.", 140), strings.Repeat("ü", 70), "\xff",
	}
	attributeOIDs = []asn1.ObjectIdentifier{
		pki.OIDCommonName, pki.OIDOrganization, pki.OIDOrganizationalUnit, pki.OIDCountry, pki.OIDSerialNumber,
		pki.OIDEmailAddress, pki.OIDUserID, pki.OIDDomainComponent, pki.OIDTitle,
		{1, 2, 3, 4},
		{2, 5, 4, 45},
	}
	purposeOIDs = []asn1.ObjectIdentifier{
		pki.OIDServerAuth, pki.OIDClientAuth, pki.OIDOCSPSigning, pki.OIDAnyEKU, pki.OIDCMCRA, pki.OIDCodeSigning, {1, 2, 3},
	}
	reservedNames = []string{"ca.example.com", "localhost", "127.0.0.1"}
)

// drawText is tame most of the time, so that requests with several names are accepted often enough to mean something.
func drawText(t *rapid.T) string {
	if rapid.IntRange(0, 9).Draw(t, "tame") > 0 {
		return rapid.SampledFrom(nameTexts[:4]).Draw(t, "text")
	}
	return rapid.OneOf(rapid.SampledFrom(nameTexts), rapid.String(), rapid.StringMatching(`[a-z*._@-]{0,12}\.example\.com`)).Draw(t, "text")
}

func drawAttributes(t *rapid.T) []der.Attribute {
	attributes := []der.Attribute{}
	for range rapid.IntRange(0, 4).Draw(t, "attributes") {
		a := der.Attribute{Type: rapid.SampledFrom(attributeOIDs).Draw(t, "type"), Value: drawText(t)}
		if a.Type.Equal(pki.OIDCountry) && rapid.IntRange(0, 9).Draw(t, "country") > 0 {
			a.Value = "fr"
		}
		if a.Type.Equal(pki.OIDEmailAddress) && rapid.IntRange(0, 9).Draw(t, "email") > 0 {
			a.Value = "a@Example.com"
		}
		attributes = append(attributes, a)
	}
	return attributes
}

func drawNames(t *rapid.T) []der.GeneralName {
	names := []der.GeneralName{}
	if rapid.IntRange(0, 2).Draw(t, "no names") == 0 {
		return names
	}
	if rapid.IntRange(0, 3).Draw(t, "mailbox") == 0 {
		return append(names, der.EmailAddress("A@Example.com"))
	}
	for range rapid.IntRange(0, 4).Draw(t, "names") {
		text := drawText(t)
		kind := rapid.IntRange(0, 9).Draw(t, "kind")
		if rapid.IntRange(0, 9).Draw(t, "tame") > 0 {
			if kind = 0; rapid.IntRange(0, 3).Draw(t, "address") == 0 {
				text, kind = "10.1.2.3", 3
			}
		}
		switch kind {
		case 0, 1, 2:
			names = append(names, der.DNSName(text))
		case 3:
			addr, err := netip.ParseAddr(text)
			if err != nil {
				names = append(names, der.GeneralName{Tag: der.TagIPAddress, Raw: []byte(text)})
			} else {
				names = append(names, der.GeneralName{Tag: der.TagIPAddress, Raw: addr.AsSlice()})
			}
		case 4:
			names = append(names, der.EmailAddress(text))
		case 5:
			names = append(names, der.URI(text))
		case 6:
			names = append(names, der.UPN(text))
		case 7:
			names = append(names, der.OtherName(asn1.ObjectIdentifier{1, 2, 3}, []byte{5, 0}))
		case 8:
			names = append(names, der.HardwareModuleName([]byte(text)))
		case 9:
			if n, err := profile.ParseSAN(text); err == nil {
				names = append(names, n)
			}
		}
	}
	return names
}

func drawInput(t *rapid.T) profile.Input {
	seconds := func(label string, lo, hi int64) time.Duration {
		return time.Duration(rapid.Int64Range(lo, hi).Draw(t, label)) * time.Second
	}
	in := profile.Input{
		PublicKey: rapid.SampledFrom([]crypto.PublicKey{keyEC, keyP384, keyRSA, keyEd}).Draw(t, "key"),
		Now:       now.Add(time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "now"))),
		Reserved:  reservedNames,
		CSR: profile.Wishes{
			Subject: drawAttributes(t), SANs: drawNames(t), IsCA: rapid.Float64Range(0, 1).Draw(t, "ca") > 0.9,
			KeyUsage: x509.KeyUsage(rapid.IntRange(0, 511).Draw(t, "usage")),
		},
	}
	if rapid.IntRange(0, 1).Draw(t, "with device") == 0 {
		in.Device = drawText(t)
	}
	if rapid.IntRange(0, 4).Draw(t, "purposes") == 0 {
		in.CSR.ExtKeyUsage = rapid.SliceOfN(rapid.SampledFrom(purposeOIDs), 1, 2).Draw(t, "wished purposes")
	}
	if rapid.IntRange(0, 3).Draw(t, "override subject") == 0 {
		in.Subject = drawAttributes(t)
	}
	if rapid.IntRange(0, 3).Draw(t, "override names") == 0 {
		in.SANs = drawNames(t)
	}
	if rapid.IntRange(0, 9).Draw(t, "purposes outright") == 0 {
		in.ExtKeyUsage = rapid.SliceOfN(rapid.SampledFrom(purposeOIDs), 1, 2).Draw(t, "named purposes")
	}
	most := rapid.SampledFrom([]int64{86400, 86400, 15 * 365 * 86400}).Draw(t, "most")
	switch rapid.IntRange(0, 3).Draw(t, "end") {
	case 0:
		in.Validity = seconds("life", -10, most)
	case 1:
		in.NotAfter = in.Now.Add(seconds("notAfter", -10, most))
	}
	if rapid.IntRange(0, 3).Draw(t, "begin") == 0 {
		in.NotBefore = in.Now.Add(seconds("notBefore", -600, 86400))
	}
	if rapid.IntRange(0, 5).Draw(t, "issuer") > 0 {
		in.Issuer.NotBefore = in.Now.Add(-seconds("issuer's age", -2, 3600))
		in.Issuer.NotAfter = in.Now.Add(seconds("issuer's rest", -2, 15*365*86400))
	}
	if rapid.IntRange(0, 3).Draw(t, "constrained") == 0 {
		in.Issuer.Constraints = []*profile.Constraints{{NameConstraints: der.NameConstraints{
			Permitted: der.Subtrees{DNS: []string{"example.com"}}, Excluded: der.Subtrees{DNS: []string{"a.example.com"}},
		}}}
	}
	return in
}

// TestContentsNeverLeaveTheProfile: whatever a request says, what comes out is within the profile, the issuer and RFC
// 5280, and can be encoded and read by another program.
func TestContentsNeverLeaveTheProfile(t *testing.T) {
	profiles := []*profile.Profile{
		must(profile.New(narrow)), must(profile.New(templated)), must(profile.New(withCondition(`!cn.contains("evil") && sans.dns.all(n, n != "example.com")`))),
	}
	for _, c := range profile.Builtins() {
		profiles = append(profiles, must(profile.NewBuiltin(c)))
	}
	for _, p := range profiles {
		t.Run(p.Name(), func(t *testing.T) { checkProfile(t, p) })
	}
}

func checkProfile(t *testing.T, p *profile.Profile) {
	accepted := 0
	property := func(r *rapid.T) {
		in := drawInput(r)
		got, err := p.Contents(in)
		if err != nil {
			switch fault.KindOf(err) {
			case fault.PolicyRefused, fault.BadRequest, fault.BadCSR, fault.BadPublicKey:
				return
			}
			r.Fatalf("%v, which blames nobody", err)
		}
		accepted++
		for _, problem := range problems(p, in, got) {
			r.Errorf("%s, %q: %s", got.SubjectString, got.SANStrings, problem)
		}
		cert := certificate(t, p.CertificateConfig(got.KeyAlgorithm), got, in.PublicKey)
		if cert.IsCA != p.IsCA() || cert.KeyUsage != got.KeyUsage || !cert.NotAfter.Equal(got.NotAfter) || !cert.NotBefore.Equal(got.NotBefore) {
			r.Errorf("the certificate says CA %v, %v, %v to %v", cert.IsCA, cert.KeyUsage, cert.NotBefore, cert.NotAfter)
		}
		for _, e := range cert.Extensions {
			if e.Id.Equal(pki.OIDSubjectAltName) && e.Critical != (len(got.Subject) == 0) {
				r.Errorf("subjectAltName critical %v with the subject %q", e.Critical, got.SubjectString)
			}
		}
	}
	// A check costs 20 us, and most requests are refused.
	for i := 0; i < 40 || accepted < 20 && i < 2000; i++ {
		rapid.Check(t, property)
	}
	if accepted < 20 {
		t.Errorf("%d requests were accepted: the property says nothing", accepted)
	}
}

func problems(p *profile.Profile, in profile.Input, got profile.Contents) (out []string) {
	c := p.Config()
	bad := func(ok bool, what string) {
		if !ok {
			out = append(out, what)
		}
	}
	// Rights.
	const caUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	isCA := c.Kind == profile.KindCA
	bad(got.KeyUsage == p.KeyUsage(got.KeyAlgorithm) && got.KeyUsage != 0, "key usage")
	bad((got.KeyUsage&caUsage != 0) == isCA && got.IsCA == isCA, "CA rights")
	bad(got.KeyAlgorithm.IsRSA() || got.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageDataEncipherment) == 0, "encipherment without RSA")
	bad(got.KeyAlgorithm != keys.Ed25519 || isCA || got.KeyUsage == x509.KeyUsageDigitalSignature, "Ed25519 does more than sign")
	bad(p.AllowsKey(got.KeyAlgorithm), "key algorithm")
	bad(slices.EqualFunc(got.ExtKeyUsage, p.ExtKeyUsage(), asn1.ObjectIdentifier.Equal), "purposes")
	bad(!in.CSR.IsCA || isCA, "CA:TRUE was accepted")

	// Life.
	_, longest := p.Validity()
	bad(!got.NotAfter.Before(got.NotBefore) && !got.NotAfter.Before(in.Now.Truncate(time.Second)), "ends before it begins")
	bad(got.NotAfter.Before(in.Now.Add(time.Duration(longest))), "lives too long")
	bad(in.Issuer.NotAfter.IsZero() || !got.NotAfter.After(in.Issuer.NotAfter), "outlives its issuer")
	bad(!got.NotBefore.Before(in.Issuer.NotBefore), "begins before its issuer")
	bad(got.NotBefore.Nanosecond() == 0 && got.NotAfter.Nanosecond() == 0 && got.NotAfter.Location() == time.UTC, "whole seconds in UTC")

	// Subject.
	seen := map[string]int{}
	for _, a := range got.Subject {
		seen[a.Type.String()]++
		bad(a.Value != "" && utf8.ValidString(a.Value) && utf8.RuneCountInString(a.Value) <= 256, "value of an attribute")
		bad(!strings.ContainsFunc(a.Value, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }), "control character")
		bad(!a.Type.Equal(asn1.ObjectIdentifier{1, 2, 3, 4}) && !a.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 45}), "attribute that nobody allows")
		if a.Type.Equal(pki.OIDEmailAddress) {
			bad(slices.Contains(got.SANStrings, "email:"+a.Value), "emailAddress without its twin")
		}
		if a.Type.Equal(pki.OIDCommonName) {
			bad(utf8.RuneCountInString(a.Value) <= 64, "long CN")
			bad(p.Internal() || !slices.Contains(reservedNames, strings.ToLower(a.Value)), "CN is reserved")
		}
	}
	bad(seen[pki.OIDCommonName.String()] <= 1 && seen[pki.OIDCountry.String()] <= 1, "attribute twice")
	bad(len(got.Subject)+len(got.SANs) > 0, "names nothing")
	if p.Name() == "narrow" {
		bad(len(got.Subject) >= 2 && got.Subject[0].Value == "DE" && got.Subject[1].Value == "Acme" && seen[pki.OIDOrganization.String()] == 1, "fixed attributes")
		bad(len(got.SANs) <= 4, "too many names")
	}

	// Names.
	bad(len(got.SANs) == len(got.SANStrings), "names and their texts")
	hosts := 0
	if p.Name() == "templated" && !in.Renewal {
		bad(slices.ContainsFunc(got.SANStrings, func(s string) bool { return strings.HasPrefix(s, "HMN:1.2.3/") }), "no name of the template")
		bad(seen[pki.OIDOrganization.String()] == 1 && strings.HasSuffix(got.Subject[1].Value, " Inc"), "no attribute of the template")
	}
	if p.Name() == "web" {
		evil := slices.ContainsFunc(got.Subject, func(a der.Attribute) bool {
			return a.Type.Equal(pki.OIDCommonName) && strings.Contains(a.Value, "evil")
		})
		bad(!evil && !slices.Contains(got.SANStrings, "DNS:example.com"), "against the condition")
	}
	for i, n := range got.SANs {
		kind, text, _ := strings.Cut(got.SANStrings[i], ":")
		bad(p.Internal() || !slices.Contains(reservedNames, text), "a reserved name: "+text)
		bad(p.Internal() || text != "*.example.com", "a wildcard over a reserved name")
		switch n.Tag {
		case der.TagDNSName:
			hosts++
			bad(kind == "DNS" && n.Text == text && text == strings.ToLower(text) && len(text) <= 253, "DNS name: "+text)
			bad(!strings.Contains(text, "*") || slices.Contains([]string{"narrow", "https", "templated", "web"}, p.Name()), "wildcard: "+text)
			bad(p.Name() != "narrow" || text == "example.com" || strings.HasSuffix(text, ".example.com"), "outside the suffix: "+text)
			bad(p.Name() != "narrow" || !strings.HasSuffix(text, "secret.example.com") || strings.HasSuffix(text, "xsecret.example.com"), "denied: "+text)
			for range in.Issuer.Constraints {
				bad(text == "example.com" || strings.HasSuffix(text, ".example.com"), "outside the issuer's constraints: "+text)
			}
		case der.TagIPAddress:
			hosts++
			addr, ok := netip.AddrFromSlice(n.Raw)
			bad(kind == "IP" && ok && addr.String() == text && !addr.Is4In6(), "IP address: "+text)
			bad(p.Name() != "narrow" || bytes.HasPrefix(n.Raw, []byte{10}) && len(n.Raw) == 4, "outside the network: "+text)
		case der.TagRFC822Name:
			bad(kind == "email" && n.Text == text, "email: "+text)
		case der.TagURI:
			bad(kind == "URI" && n.Text == text, "URI: "+text)
			bad(p.Name() != "templated" || strings.HasPrefix(text, "urn:acme:"), "outside the prefix: "+text)
		case der.TagOtherName:
			bad(kind == "UPN" && n.Text == text && n.Raw == nil || kind == "HMN" && n.Text == "" && n.Raw != nil, "otherName: "+text)
		default:
			bad(false, "a name of the kind "+n.Tag.String())
		}
	}
	if c.Kind == profile.KindServer {
		bad(hosts > 0, "a server without name")
	}
	if slices.Contains([]profile.Kind{profile.KindCA, profile.KindOCSP, profile.KindRA}, c.Kind) {
		bad(len(got.SANs) == 0 && len(got.Subject) > 0, "names of a CA")
	}
	return out
}
