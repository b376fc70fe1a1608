package profile_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// devices is a profile that makes all names itself.
var devices = profile.Config{
	Name: "sensors", Kind: profile.KindDevice,
	Subject: profile.SubjectRules{
		Allowed: []string{"OU"}, Fixed: []profile.FixedAttribute{{Type: "O", Value: "Acme"}},
		Templates: []profile.FixedAttribute{{Type: "CN", Value: "{device|CN}.sensors"}, {Type: "serialNumber", Value: "{serialNumber}"}},
		Values:    map[string][]string{"OU": {"North", "South"}},
	},
	SANs: &profile.SANRules{
		DNS: &profile.DNSRules{Suffixes: []string{"sensors.example.com"}}, URI: &profile.URIRules{Prefixes: []string{"urn:acme:"}},
		HardwareModuleName: &profile.HardwareModuleNameRules{Types: []string{"1.3.6.1.4.1.99999.1"}},
		Templates:          []string{"DNS:{device|CN}.sensors.example.com", "URI:urn:acme:{device|CN}", "HMN:1.3.6.1.4.1.99999.1/{serialNumber}"},
		OnlyTemplates:      true,
	},
}

func TestTemplates(t *testing.T) {
	tests := []struct {
		name    string
		change  func(*profile.Config)
		in      func(*profile.Input)
		subject string // as openssl writes it, most significant first
		sans    string
		kind    fault.Kind // Internal: accepted
		field   string
		says    string // part of the detail, or of a warning
	}{
		{
			name: "of the device", in: func(in *profile.Input) { in.Device = "Sensor-17" },
			subject: "serialNumber=SN1,CN=Sensor-17.sensors,O=Acme",
			sans:    "DNS:sensor-17.sensors.example.com URI:urn:acme:Sensor-17 HMN:1.3.6.1.4.1.99999.1/SN1",
		},
		{
			name:    "of the CN, when there is no device",
			subject: "serialNumber=SN1,CN=s1.sensors,O=Acme", sans: "DNS:s1.sensors.example.com URI:urn:acme:s1 HMN:1.3.6.1.4.1.99999.1/SN1",
		},
		{
			name: "of neither", in: func(in *profile.Input) { in.CSR.Subject = in.CSR.Subject[:1] },
			kind: fault.PolicyRefused, field: "device", says: "{device|CN}",
		},
		{
			name: "without serial number", in: func(in *profile.Input) { in.CSR.Subject = in.CSR.Subject[1:] },
			kind: fault.PolicyRefused, field: "subject", says: "{serialNumber}",
		},
		{
			name: "names of the CSR are left out", in: func(in *profile.Input) { in.CSR.SANs = names(t, "www.example.com") },
			subject: "serialNumber=SN1,CN=s1.sensors,O=Acme", sans: "DNS:s1.sensors.example.com URI:urn:acme:s1 HMN:1.3.6.1.4.1.99999.1/SN1", says: "left out",
		},
		{
			name: "names of the request are refused", in: func(in *profile.Input) { in.SANs = names(t, "www.sensors.example.com") },
			kind: fault.PolicyRefused, field: "sans", says: "itself",
		},
		{
			name: "the same names are no matter", in: func(in *profile.Input) { in.SANs = names(t, "s1.sensors.example.com") },
			subject: "serialNumber=SN1,CN=s1.sensors,O=Acme", sans: "DNS:s1.sensors.example.com URI:urn:acme:s1 HMN:1.3.6.1.4.1.99999.1/SN1",
		},
		{
			name: "a device that is two labels", in: func(in *profile.Input) { in.Device = "evil.com" },
			kind: fault.PolicyRefused, field: "device", says: "one label",
		},
		{
			name: "a device that is a wildcard", in: func(in *profile.Input) { in.Device = "*" },
			kind: fault.PolicyRefused, field: "device", says: "one label",
		},
		{
			name: "a device with braces is not expanded again", in: func(in *profile.Input) { in.Device = "{serialNumber}" },
			kind: fault.BadCSR, field: "sans", says: "character",
		},
		{
			name: "a device with control characters", in: func(in *profile.Input) { in.Device = "a\nb" },
			kind: fault.BadRequest, field: "device", says: "control character",
		},
		{
			name:    "what is put into a URI is percent-encoded",
			change:  func(c *profile.Config) { c.SANs.Templates = []string{"URI:urn:acme:{device}:x"} },
			in:      func(in *profile.Input) { in.Device = "a/../b?c#d:e@f g" },
			subject: "serialNumber=SN1,CN=a/../b?c#d:e@f g.sensors,O=Acme", sans: "URI:urn:acme:a%2F..%2Fb%3Fc%23d%3Ae%40f%20g:x",
		},
		{
			name: "dot segments do not step out", change: func(c *profile.Config) {
				c.SANs.URI.Prefixes, c.SANs.Templates = []string{"spiffe://example.com/device/"}, []string{"URI:spiffe://example.com/device/{device}"}
			},
			in:   func(in *profile.Input) { in.Device = ".." },
			kind: fault.BadCSR, field: "sans", says: "dot segments",
		},
		{
			name: "an attribute that is not allowed", in: func(in *profile.Input) { in.Subject = subject(t, "CN=s1,serialNumber=SN1,L=Bonn") },
			kind: fault.PolicyRefused, field: "subject", says: "L in the subject",
		},
		{
			name: "values", in: func(in *profile.Input) { in.Subject = subject(t, "CN=s1,serialNumber=SN1,OU=South") },
			subject: "OU=South,serialNumber=SN1,CN=s1.sensors,O=Acme", sans: "DNS:s1.sensors.example.com URI:urn:acme:s1 HMN:1.3.6.1.4.1.99999.1/SN1",
		},
		{
			name: "another value", in: func(in *profile.Input) { in.CSR.Subject = subject(t, "CN=s1,serialNumber=SN1,OU=West") },
			kind: fault.PolicyRefused, field: "subject", says: `does not allow "West" as OU`,
		},
		{
			name: "a name of the request and literal braces", change: func(c *profile.Config) {
				c.Subject.Templates[0].Value, c.SANs.Templates = "{{{san.uri[1]}}}", []string{"URI:urn:acme:x"}
			},
			in:      func(in *profile.Input) { in.CSR.SANs = names(t, "a.example.com", "urn:acme:a", "urn:acme:b") },
			subject: "serialNumber=SN1,CN={urn:acme:b},O=Acme", sans: "URI:urn:acme:x", says: "left out",
		},
		{
			name:    "the second OU",
			change:  func(c *profile.Config) { c.Subject.Values, c.Subject.Templates[0].Value = nil, "{OU[1]}-{device}" },
			in:      func(in *profile.Input) { in.Device, in.Subject = "s1", subject(t, "OU=b,OU=a,serialNumber=SN1") },
			subject: "OU=b,OU=a,serialNumber=SN1,CN=b-s1,O=Acme", sans: "DNS:s1.sensors.example.com URI:urn:acme:s1 HMN:1.3.6.1.4.1.99999.1/SN1",
		},
		{
			name: "too long for its type", in: func(in *profile.Input) { in.Device = strings.Repeat("a", 60) },
			kind: fault.PolicyRefused, field: "subject", says: "more than 64",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := profile.ParseConfig(must(json.Marshal(devices)))
			if err != nil {
				t.Fatal(err)
			}
			if tt.change != nil {
				tt.change(&c)
			}
			p, err := profile.New(c)
			if err != nil {
				t.Fatal(err)
			}
			in := input(t, "CN=s1,serialNumber=SN1")
			if tt.in != nil {
				tt.in(&in)
			}
			got, err := p.Contents(in)
			if tt.kind != fault.Internal {
				wantFault(t, err, tt.kind, tt.field, tt.says)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.SubjectString != tt.subject || strings.Join(got.SANStrings, " ") != tt.sans {
				t.Errorf("got %s, %s\nwant %s, %s", got.SubjectString, got.SANStrings, tt.subject, tt.sans)
			}
			if !strings.Contains(strings.Join(got.Warnings, "\n"), tt.says) {
				t.Errorf("warnings %q, want %q", got.Warnings, tt.says)
			}
			// Its renewal has the same names, though templates made them of something else.
			renewal := profile.Input{
				PublicKey: keyEC, Now: now, Issuer: in.Issuer, Renewal: true, Subject: got.Subject, SANs: got.SANs,
			}
			again, err := p.Contents(renewal)
			if err != nil {
				t.Fatal(err)
			}
			if again.SubjectString != got.SubjectString || !slices.Equal(again.SANStrings, got.SANStrings) {
				t.Errorf("renewed: %s, %s", again.SubjectString, again.SANStrings)
			}
		})
	}
}

func TestTemplatesThatAreRefused(t *testing.T) {
	for text, detail := range map[string]string{
		"":                          "empty",
		"{":                         "without a closing",
		"{device":                   "without a closing",
		"device}":                   "opening one",
		"{}":                        "stands for nothing",
		"{colour}":                  "stands for nothing",
		"{device|}":                 "stands for nothing",
		"{san.fax[0]}":              "fax",
		"{CN[x]}":                   "place",
		"{CN[-1]}":                  "place",
		"{CN[100]}":                 "place",
		"{CN[1}":                    "place",
		"{CN[+1]}":                  "place",
		"{requester}":               "stands for nothing",
		strings.Repeat("{CN}", 126): "500",
	} {
		_, err := profile.New(profile.Config{
			Name: "web", Kind: profile.KindServer, Subject: profile.SubjectRules{Templates: []profile.FixedAttribute{{Type: "L", Value: text}}},
		})
		wantFault(t, err, fault.BadRequest, "subject.templates[0].value", detail)
	}
}

func TestHardwareModuleNames(t *testing.T) {
	p := must(profile.New(profile.Config{
		Name: "modules", Kind: profile.KindDevice, SANs: &profile.SANRules{
			HardwareModuleName: &profile.HardwareModuleNameRules{Denied: []string{"1.2.9"}}, RequireOneOf: []string{"hardwareModuleName"},
		},
	}))
	for text, want := range map[string]string{
		"HMN:1.2.3/SN-1": "HMN:1.2.3/SN-1", "hmn: 1.2.3/0x00ff": "HMN:1.2.3/0x00ff", "HMN:1.2.3/0x534E": "HMN:1.2.3/SN", "HMN:1.2.3/a/b": "HMN:1.2.3/a/b",
	} {
		got, err := p.Contents(input(t, "CN=a", text))
		if err != nil || !slices.Equal(got.SANStrings, []string{want}) {
			t.Errorf("%s: %q, %v; want %q", text, got.SANStrings, err, want)
			continue
		}
		if back := names(t, got.SANStrings...); !cmp.Equal(back, got.SANs) {
			t.Errorf("%s reads back as %+v", want, back)
		}
	}
	for _, text := range []string{"HMN:1.2.3", "HMN:1.2.3/", "HMN:router/1", "HMN:1.2.3/a b", "HMN:1.2.3/0xf", "HMN:1.2.3/" + strings.Repeat("a", 65), "HMN:1.2.3/\u00fc"} {
		if _, err := profile.ParseSAN(text); !fault.Is(err, fault.BadRequest) {
			t.Errorf("ParseSAN(%q) = %v", text, err)
		}
	}
	_, err := p.Contents(input(t, "CN=a", "HMN:1.2.9/1"))
	wantFault(t, err, fault.PolicyRefused, "sans", "1.2.9")
	_, err = p.Contents(input(t, "CN=a"))
	wantFault(t, err, fault.PolicyRefused, "sans", "hardwareModuleName")
	_, err = builtin(t, "device").Contents(input(t, "CN=a", "HMN:1.2.3/1"))
	wantFault(t, err, fault.PolicyRefused, "sans", "hardware module names")
	for _, value := range [][]byte{nil, {0x30, 0}, {0x30, 3, 6, 1, 42}, {0x30, 5, 6, 1, 42, 4, 0}, {0x30, 6, 6, 1, 42, 4, 1, 1, 0}, {0x30, 8, 6, 1, 42, 4, 1, 1, 5, 0}} {
		in := input(t, "CN=a")
		in.CSR.SANs = []der.GeneralName{der.HardwareModuleName(value)}
		_, err := p.Contents(in)
		wantFault(t, err, fault.BadCSR, "sans", "hardware module name")
	}
}

func TestDeniedNames(t *testing.T) {
	p := must(profile.New(profile.Config{
		Name: "people", Kind: profile.KindClient, SANs: &profile.SANRules{
			IP:    &profile.IPRules{Networks: []string{"10.0.0.0/8"}, Denied: []string{"10.9.0.0/16"}},
			Email: &profile.EmailRules{Denied: []string{"evil.example", ".evil.example"}},
			UPN:   &profile.UPNRules{Denied: []string{"evil.example"}},
			URI:   &profile.URIRules{Denied: []string{"https://evil.example/secret", "urn:evil:"}},
		},
	}))
	for _, text := range []string{
		"IP:10.9.1.1", "IP:::ffff:10.9.1.1", "email:a@evil.example", "email:a@b.EVIL.example", "UPN:a@Evil.example",
		"URI:https://evil.example/secret/1", "URI:HTTPS://EVIL.example/Secret", "URI:https://evil.example:8443/secret", "URI:https://a@evil.example/secret",
		"URI:https://evil.example/%73ecret", "URI:urn:evil:a", "URI:URN:EVIL:a", "URI:urn:%65vil:a",
	} {
		_, err := p.Contents(input(t, "CN=a", text))
		wantFault(t, err, fault.PolicyRefused, "sans", "denies")
	}
	for _, text := range []string{"IP:10.8.1.1", "email:a@good.example", "UPN:a@good.example", "URI:https://evil.example/public", "URI:urn:good:a"} {
		if _, err := p.Contents(input(t, "CN=a", text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestDisabled(t *testing.T) {
	p := builtin(t, "client", func(c *profile.Config) { c.Disabled = true })
	_, err := p.Contents(input(t, "CN=a"))
	wantFault(t, err, fault.PolicyRefused, "profile", "disabled")
	if !p.Disabled() {
		t.Error("not disabled")
	}
}

// TestEffectiveIsTheSameProfile: with its defaults written out a profile gives and refuses the same.
func TestEffectiveIsTheSameProfile(t *testing.T) {
	configs := append(profile.Builtins(), narrow, devices, withCondition(`cn != "a"`))
	for _, kind := range []profile.Kind{profile.KindServer, profile.KindClient, profile.KindDevice, profile.KindPeer, profile.KindEmail} {
		configs = append(configs, profile.Config{Name: "custom", Kind: kind})
	}
	for _, c := range configs {
		made := profile.New
		if slices.ContainsFunc(profile.Builtins(), func(b profile.Config) bool { return b.Name == c.Name }) {
			made = profile.NewBuiltin
		}
		p := must(made(c))
		effective := p.Effective()
		again, err := made(effective)
		if err != nil {
			t.Errorf("%s: %v\n%s", c.Name, err, must(json.Marshal(effective)))
			continue
		}
		if diff := cmp.Diff(effective, again.Effective()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.Name, diff)
		}
		rapid.Check(t, func(r *rapid.T) {
			in := drawInput(r)
			want, wantErr := p.Contents(in)
			got, gotErr := again.Contents(in)
			if diff := cmp.Diff(want, got); diff != "" || (wantErr == nil) != (gotErr == nil) {
				r.Errorf("%v, %v (-want +got):\n%s", wantErr, gotErr, diff)
			}
		})
	}
}

func TestDiff(t *testing.T) {
	a := profile.Config{Name: "web", Kind: profile.KindServer, SANs: &profile.SANRules{DNS: &profile.DNSRules{}}}
	b := a
	b.Validity.Max = 90 * 24 * 3600e9
	b.MustStaple = true
	b.SANs = &profile.SANRules{DNS: &profile.DNSRules{Suffixes: []string{"example.com"}}, IP: &profile.IPRules{}}
	changes := must(profile.Diff(a, b))
	var got []string
	for _, c := range changes {
		got = append(got, c.Field+": "+string(c.Old)+" -> "+string(c.New))
	}
	want := []string{
		"mustStaple:  -> true", "sans.dns: {} -> ", `sans.dns.suffixes:  -> ["example.com"]`, "sans.ip:  -> {}", `validity.max:  -> "90d"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if changes := must(profile.Diff(b, b)); len(changes) != 0 {
		t.Errorf("%+v", changes)
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range profile.Builtins() {
		if w := must(profile.NewBuiltin(c)).Warnings(); len(w) > 0 && !c.Internal {
			t.Errorf("%s: %q", c.Name, w)
		}
	}
	p := must(profile.New(profile.Config{
		Name: "web", Kind: profile.KindServer, NoRevAvail: true, NoCRLAddress: true, Validity: profile.ValidityRules{Max: 900 * 24 * 3600e9},
		SANs: &profile.SANRules{DNS: &profile.DNSRules{Wildcards: true}},
	}))
	if w := p.Warnings(); len(w) != 5 {
		t.Errorf("%q", w)
	}
}
