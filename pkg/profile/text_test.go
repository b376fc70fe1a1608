package profile_test

import (
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseSubject(t *testing.T) {
	cn := func(v string) der.Attribute { return der.Attribute{Type: pki.OIDCommonName, Value: v} }
	o := func(v string) der.Attribute { return der.Attribute{Type: pki.OIDOrganization, Value: v} }
	ou := func(v string) der.Attribute { return der.Attribute{Type: pki.OIDOrganizationalUnit, Value: v} }
	tests := []struct {
		name, text string
		want       []der.Attribute
		detail     string
	}{
		{"empty", "", []der.Attribute{}, ""},
		{"root of a path", "/", []der.Attribute{}, ""},
		{"RFC 4514", "CN=a,OU=b,O=c", []der.Attribute{o("c"), ou("b"), cn("a")}, ""},
		{"OpenSSL", "/O=c/OU=b/CN=a", []der.Attribute{o("c"), ou("b"), cn("a")}, ""},
		{"spaces", " CN = a , O = b c ", []der.Attribute{o("b c"), cn("a")}, ""},
		{"letter case and long names", "commonname=a,organizationName=b", []der.Attribute{o("b"), cn("a")}, ""},
		{"numbers", "2.5.4.3=a", []der.Attribute{cn("a")}, ""},
		{"multi-valued", "CN=a+OU=b,O=c", []der.Attribute{o("c"), cn("a"), ou("b")}, ""},
		{"multi-valued path", "/O=c/CN=a+OU=b", []der.Attribute{o("c"), cn("a"), ou("b")}, ""},
		{"empty value", "CN=", []der.Attribute{cn("")}, ""},
		{"equals sign", "CN=a=b", []der.Attribute{cn("a=b")}, ""},
		{"escapes", `CN=a\,b\+c\=d\\e\"f\#g\;h\<i\>`, []der.Attribute{cn(`a,b+c=d\e"f#g;h<i>`)}, ""},
		{"escaped spaces", `CN=\ a \ ,O=b`, []der.Attribute{o("b"), cn(" a  ")}, ""},
		{"hexadecimal pairs", `CN=M\C3\bcller`, []der.Attribute{cn("Müller")}, ""},
		{"slash in a path", `/CN=a\/b`, []der.Attribute{cn("a/b")}, ""},
		{"slash in RFC 4514", `CN=a/b`, []der.Attribute{cn("a/b")}, ""},
		{"comma in a path", `/CN=a,b`, []der.Attribute{cn("a,b")}, ""},

		{"no type", "a", nil, "type=value"},
		{"unknown type", "XX=a", nil, "no attribute type"},
		{"no type after a comma", "CN=a,", nil, "type=value"},
		{"double comma", "CN=a,,O=b", nil, "no attribute type"},
		{"backslash at the end", `CN=a\`, nil, "escapes nothing"},
		{"backslash before a letter", `CN=a\z`, nil, "escapes nothing"},
		{"quotation marks", `CN="a"`, nil, "without a backslash"},
		{"DER", "CN=#0c0161", nil, "hexadecimal DER"},
		{"octets that are no text", `CN=\ff`, nil, "UTF-8"},
		{"not UTF-8", "CN=\xff", nil, "UTF-8"},
		{"33 attributes", strings.Repeat("OU=a,", 32) + "OU=a", nil, "more than 32"},
		{"long", "CN=" + strings.Repeat("a", 8190), nil, "octets"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := profile.ParseSubject(tt.text)
			if tt.detail != "" {
				wantFault(t, err, fault.BadRequest, "subject", tt.detail)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ParseSubject(%q) (-want +got):\n%s", tt.text, diff)
			}
		})
	}
}

func TestFormatSubjectRoundTrips(t *testing.T) {
	types := []string{"CN", "O", "OU", "C", "DC", "UID", "serialNumber", "emailAddress", "surname", "1.2.3.4"}
	rapid.Check(t, func(t *rapid.T) {
		var want []der.Attribute
		for range rapid.IntRange(0, 6).Draw(t, "n") {
			one := must(profile.ParseSubject(rapid.SampledFrom(types).Draw(t, "type") + "=x"))
			one[0].Value = rapid.OneOf(rapid.String(), rapid.StringMatching(`[ #,+"\\<>;=a/]{0,6}`)).Draw(t, "value")
			want = append(want, one[0])
		}
		text := profile.FormatSubject(want)
		got, err := profile.ParseSubject(text)
		if err != nil {
			t.Fatalf("ParseSubject(%q): %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
			t.Fatalf("%q (-want +got):\n%s", text, diff)
		}
	})
}

func TestParseSAN(t *testing.T) {
	ip := func(octets ...byte) der.GeneralName { return der.GeneralName{Tag: der.TagIPAddress, Raw: octets} }
	tests := []struct {
		text   string
		want   der.GeneralName
		detail string
	}{
		{"DNS:a.example.com", der.DNSName("a.example.com"), ""},
		{"dns: a.example.com ", der.DNSName("a.example.com"), ""},
		{"a.example.com", der.DNSName("a.example.com"), ""},
		{"*.example.com", der.DNSName("*.example.com"), ""},
		{"müller.example", der.DNSName("müller.example"), ""},
		{"IP:192.0.2.1", ip(192, 0, 2, 1), ""},
		{"IP Address:192.0.2.1", ip(192, 0, 2, 1), ""},
		{"192.0.2.1", ip(192, 0, 2, 1), ""},
		{"::1", ip(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), ""},
		{"IP:::1", ip(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), ""},
		{"email:a@example.com", der.EmailAddress("a@example.com"), ""},
		{"a@example.com", der.EmailAddress("a@example.com"), ""},
		{"URI:https://example.com/", der.URI("https://example.com/"), ""},
		{"spiffe://example.com/a", der.URI("spiffe://example.com/a"), ""},
		{"urn:uuid:1", der.URI("urn:uuid:1"), ""},
		{"uri:urn:uuid:1", der.URI("urn:uuid:1"), ""},
		{"UPN:a@corp.example", der.UPN("a@corp.example"), ""},
		{"", der.GeneralName{}, "empty"},
		{"DNS:", der.GeneralName{}, "names nothing"},
		{"IP:300.0.2.1", der.GeneralName{}, "not an IP address"},
		{"IP:fe80::1%eth0", der.GeneralName{}, "zone"},
		{"fe80::1%eth0", der.GeneralName{}, "zone"},
		{"host:8443", der.GeneralName{}, "no kind of name"},
		{"dirName:x", der.GeneralName{}, "no kind of name"},
		{strings.Repeat("a", 3000), der.GeneralName{}, "characters"},
	}
	for _, tt := range tests {
		got, err := profile.ParseSAN(tt.text)
		if tt.detail != "" {
			wantFault(t, err, fault.BadRequest, "sans", tt.detail)
			continue
		}
		if err != nil {
			t.Errorf("ParseSAN(%q): %v", tt.text, err)
		} else if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("ParseSAN(%q) (-want +got):\n%s", tt.text, diff)
		}
	}
	if got, err := profile.ParseSANs(); err != nil || got == nil || len(got) != 0 {
		t.Errorf("ParseSANs() = %#v, %v; want no names, not nil", got, err)
	}
	if _, err := profile.ParseSANs("a", ""); err == nil {
		t.Error("ParseSANs passes over a name that is none")
	}
}

func FuzzParseSubject(f *testing.F) {
	for _, s := range []string{"CN=a,O=b", "/C=DE/CN=x", `CN=\C3\BC+OU=\,`, "CN=#04", "=", ",", "CN=a\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		attributes, err := profile.ParseSubject(text)
		if err != nil {
			return
		}
		again, err := profile.ParseSubject(profile.FormatSubject(attributes))
		if err != nil || !cmp.Equal(attributes, again) {
			t.Errorf("%q became %q: %v, %v", text, profile.FormatSubject(attributes), again, err)
		}
	})
}
