package profile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/profile"
)

// withCondition is a profile that allows nearly everything but what the expression is not true of.
func withCondition(expr string) profile.Config {
	return profile.Config{
		Name: "web", Kind: profile.KindClient, Conditions: []profile.Condition{{Expr: expr, Message: "as it should be"}},
		SANs: &profile.SANRules{
			DNS: &profile.DNSRules{Wildcards: true}, IP: &profile.IPRules{}, Email: &profile.EmailRules{}, URI: &profile.URIRules{},
			UPN: &profile.UPNRules{}, HardwareModuleName: &profile.HardwareModuleNameRules{},
		},
	}
}

func TestConditions(t *testing.T) {
	tests := []struct {
		expr string
		want string // empty: true; else part of the refusal
	}{
		{`cn == "ada"`, ""},
		{`cn == "bob"`, "as it should be"},
		{`subject.O == ["Acme", "Acme Labs"]`, ""},
		{`"O" in subject && subject.O[0] == "Acme"`, ""},
		{`has(subject.title)`, "as it should be"},
		{`subject.title[0] == "Dr"`, "conditions[0]"}, // no such key: refused, whatever the message says
		{`subject.O[7] == "Acme"`, "conditions[0]"},
		{`subject.all(k, k in ["CN", "O"])`, ""},
		{`sans.dns.all(n, n.endsWith(".example.com"))`, ""},
		{`sans.dns.exists(n, n == "a.example.com") && size(sans.dns) == 2`, ""},
		{`sans.ip == ["10.1.2.3"] && inNetwork(sans.ip[0], "10.0.0.0/8")`, ""},
		{`sans.ip.all(a, inNetwork(a, "192.168.0.0/16"))`, "as it should be"},
		{`sans.email == ["ada@example.com"] && sans.uri.size() == 1 && sans.upn == ["ada@corp.example"]`, ""},
		{`sans.hardwareModuleName == ["1.2.3/SN-1"]`, ""},
		{`sans["dns"].size() > 0`, ""},
		{`keyType == "ecdsa" && keyAlgorithm == "p-256" && keyBits == 256`, ""},
		{`requester == "token:deploy" && role == "operator" && device == "sensor-17" && protocol == "rest" && !renewal`, ""},
		{`inNetwork(source, "192.0.2.0/24")`, ""},
		{`inNetwork(source, "10.0.0.0/8") || role == "administrator"`, "as it should be"},
		{`inNetwork(device, "10.0.0.0/8")`, "as it should be"}, // no address
		{`validity <= duration("8760h") && notAfter - notBefore < duration("8761h")`, ""},
		{`validity < duration("24h")`, "as it should be"},
		{`now.getFullYear() == 2026 && notBefore < now`, ""},
		{`cn.matches("^[a-z]+$")`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			p, err := profile.New(withCondition(tt.expr))
			if err != nil {
				t.Fatal(err)
			}
			in := input(t, "CN=ada,O=Acme Labs,O=Acme", "a.example.com", "DNS:*.b.example.com", "10.1.2.3", "ada@example.com", "urn:a:b", "UPN:ada@corp.example", "HMN:1.2.3/SN-1")
			in.Requester, in.Role, in.Device, in.Protocol, in.Source = "token:deploy", "operator", "sensor-17", "rest", "192.0.2.7"
			_, err = p.Contents(in)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantFault(t, err, fault.PolicyRefused, "profile", tt.want)
		})
	}
}

// TestConditionsSeeTheCertificate: not the CSR.
func TestConditionsSeeTheCertificate(t *testing.T) {
	p := must(profile.New(profile.Config{
		Name: "web", Kind: profile.KindServer, Subject: profile.SubjectRules{Fixed: []profile.FixedAttribute{{Type: "O", Value: "Acme"}}},
		Conditions: []profile.Condition{{Expr: `subject.O == ["Acme"] && cn == "a.example.com" && sans.dns == ["a.example.com"] && validity == duration("1h")`}},
	}))
	in := input(t, "O=Other", "DNS:A.Example.com")
	in.Validity = time.Hour
	if _, err := p.Contents(in); err != nil {
		t.Error(err)
	}
	in.Validity = 2 * time.Hour
	_, err := p.Contents(in)
	wantFault(t, err, fault.PolicyRefused, "profile", `wants: subject.O == ["Acme"]`) // the expression stands in for a message
}

func TestConditionsThatAreRefused(t *testing.T) {
	tests := []struct{ name, expr, detail string }{
		{"empty", " ", "empty"},
		{"syntax", "cn ==", "does not compile: line 1, column 6"},
		{"unknown variable", `hostname == "a"`, "undeclared reference to 'hostname'"},
		{"unknown function", `cn.reverse() == "a"`, "reverse"},
		{"wrong types", `cn == 7`, "no matching overload"},
		{"a string", `cn`, "gives string"},
		{"a list", `sans.dns`, "gives list"},
		{"dynamic", `dyn(cn)`, "gives dyn"},
		{"always true", `true`, "says the same"},
		{"always false", `1 + 1 == 3`, "says the same"},
		{"pattern of the requester", `"ada".matches(cn)`, "written out"},
		{"pattern of the requester, as a function", `matches(cn, device)`, "written out"},
		{"pattern that is none", `cn.matches("(")`, "matches argument"},
		{"network of the requester", `inNetwork("10.0.0.1", device)`, "written out"},
		{"network that is none", `inNetwork(source, "10.0.0.1/8")`, "10.0.0.0/8 was meant"},
		{"duration that is none", `validity < duration("90d")`, "duration"},
		{"too long", `cn == "` + strings.Repeat("a", 2000) + `"`, "2000 octets"},
		{"nested too deep", strings.Repeat("(", 60) + "cn == device" + strings.Repeat(")", 60), "does not compile"},
		{"all with all", `sans.uri.all(a, sans.uri.all(b, a == b || a.startsWith(b)))`, "costs too much"},
		{"all with all with all", `sans.dns.all(a, sans.dns.all(b, sans.dns.exists(c, a + b == c)))`, "costs too much"},
		{"lists that grow", `[1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, [1,2,3,4,5,6,7,8,9,10].map(c, [1,2,3,4,5,6,7,8,9,10].map(d, [1,2,3,4,5,6,7,8,9,10].map(e, cn + device))))).size() > 1`, "costs too much"},
		{"a pattern over many names", `sans.uri.all(n, n.matches("` + strings.Repeat("(a|b|c)*", 100) + `"))`, "costs too much"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := profile.New(withCondition(tt.expr))
			wantFault(t, err, fault.BadRequest, "conditions[0].expr", tt.detail)
		})
	}
	c := withCondition(`cn == "a"`)
	for range 20 {
		c.Conditions = append(c.Conditions, c.Conditions[0])
	}
	_, err := profile.New(c)
	wantFault(t, err, fault.BadRequest, "conditions", "more than 20")
	// Each is cheap enough alone; all of them are not.
	c = withCondition(`sans.uri.all(n, n.matches("^abc.*d"))`)
	for range 19 {
		c.Conditions = append(c.Conditions, c.Conditions[0])
	}
	_, err = profile.New(c)
	if e, ok := err.(*fault.Error); !ok || !strings.HasPrefix(e.Field, "conditions[") || e.Field == "conditions[0].expr" || !strings.Contains(e.Detail, "costs too much") {
		t.Errorf("twenty conditions: %v", err)
	}
	c = withCondition(`cn == "a"`)
	c.Conditions[0].Message = strings.Repeat("a", 301)
	_, err = profile.New(c)
	wantFault(t, err, fault.BadRequest, "conditions[0].message", "300")
	c.Conditions[0].Message = "a\x1b[2J"
	_, err = profile.New(c)
	wantFault(t, err, fault.BadRequest, "conditions[0].message", "U+001B")
}

// TestCostAtRunTime: the estimate is of the worst case, and what is estimated as affordable ends in time.
func TestCostAtRunTime(t *testing.T) {
	p := must(profile.New(withCondition(`sans.dns.all(a, !a.matches("^(x+x+)+y"))`)))
	var sans []string
	for i := range 100 {
		sans = append(sans, "DNS:"+strings.Repeat("x", 40)+"."+strings.Repeat("x", 1+i%60)+"."+strings.Repeat("x", 1+i/60)+".example.com")
	}
	began := time.Now()
	if _, err := p.Contents(input(t, "CN=ada", sans...)); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func BenchmarkConditions(b *testing.B) {
	p := must(profile.New(withCondition(`sans.dns.all(n, n.endsWith(".example.com")) || role == "administrator"`)))
	in := input(b, "CN=ada", "a.example.com", "b.example.com")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Contents(in); err != nil {
			b.Fatal(err)
		}
	}
}
