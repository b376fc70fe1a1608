package auth_test

import (
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

func TestParseNameRule(t *testing.T) {
	for text, want := range map[string]string{
		"DNS:*.Example.com":       "DNS:*.example.com",
		"dns:www.example.com":     "DNS:www.example.com",
		"IP:10.0.0.0/8":           "IP:10.0.0.0/8",
		"IP:192.0.2.7":            "IP:192.0.2.7/32",
		"IP:2001:db8::/32":        "IP:2001:db8::/32",
		"IP:*":                    "IP:*",
		"email:*@example.com":     "email:*@example.com",
		"commonName:sensor-*":     "CN:sensor-*",
		"O:Example":               "O:example",
		"URI:https://Example/*":   "URI:https://Example/*",
		"1.2.3.4:x":               "1.2.3.4:x",
		"HMN:1.2.3/*":             "HMN:1.2.3/*",
		"DNS:*.xn--bcher-kva.com": "DNS:*.xn--bcher-kva.com",
	} {
		if r, err := auth.ParseNameRule(text); err != nil || r.String() != want {
			t.Errorf("%q: %v, %v; want %s", text, r, err, want)
		}
	}
	for _, text := range []string{
		"", "DNS", "DNS:", ":x", "nothing:x", "IP:10.0.0.1/8", "IP:10.*", "IP:fe80::1%eth0", "DNS:bücher.com", "DNS:a b", "DNS:a\n", "CN:\x00",
		"CN:" + strings.Repeat("x", 300), "CN:" + strings.Repeat("*a", 9), "CN:\xff",
	} {
		if r, err := auth.ParseNameRule(text); !fault.Is(err, fault.BadRequest) {
			t.Errorf("%q: %v, %v; want BadRequest", text, r, err)
		}
	}
}

func TestMayName(t *testing.T) {
	dev := []string{"DNS:*.dev.example.com", "DNS:localhost", "IP:10.0.0.0/8", "email:*@example.com", "O:Example*"}
	for _, c := range []struct {
		name          string
		rules         []string
		subject, sans []string
		ok            bool
	}{
		{"no rules", nil, []string{"CN:x"}, []string{"DNS:anything"}, true},
		{"below", dev, nil, []string{"DNS:a.dev.example.com", "DNS:a.b.dev.example.com"}, true},
		{"the domain itself", dev, nil, []string{"DNS:dev.example.com"}, false},
		{"a domain that ends alike", dev, nil, []string{"DNS:evildev.example.com"}, false},
		{"letter case", dev, nil, []string{"DNS:A.DEV.example.com"}, true},
		{"a wildcard within", dev, nil, []string{"DNS:*.dev.example.com"}, true},
		{"a wildcard beyond", dev, nil, []string{"DNS:*.example.com"}, false},
		{"a wildcard where one name is allowed", []string{"DNS:www.example.com"}, nil, []string{"DNS:*.example.com"}, false},
		{"one of several beyond", dev, nil, []string{"DNS:a.dev.example.com", "DNS:www.example.com"}, false},
		{"CN that repeats a SAN", dev, []string{"CN:a.dev.example.com"}, []string{"DNS:a.dev.example.com"}, true},
		{"CN of its own", dev, []string{"CN:root"}, []string{"DNS:a.dev.example.com"}, false},
		{"an attribute", dev, []string{"O:Example Corp"}, nil, true},
		{"another attribute", dev, []string{"O:Example", "OU:Admins"}, nil, false},
		{"another value", dev, []string{"O:Evil"}, nil, false},
		{"network", dev, nil, []string{"IP:10.1.2.3"}, true},
		{"beyond the network", dev, nil, []string{"IP:11.1.2.3"}, false},
		{"IPv6 where IPv4 is allowed", dev, nil, []string{"IP:2001:db8::1"}, false},
		{"a kind without rule", dev, nil, []string{"URI:https://a.dev.example.com/"}, false},
		{"kind and kind", []string{"DNS:*"}, []string{"CN:x"}, nil, false},
		{"a rule that cannot be read", []string{"future:*"}, nil, []string{"DNS:x"}, false},
		{"no names at all", dev, nil, nil, true},
	} {
		err := auth.MayName(pki.Principal{Names: c.rules}, c.subject, c.sans)
		if (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Forbidden) {
			t.Errorf("%s: %v, want allowed = %v", c.name, err, c.ok)
		}
	}
}

func TestNameRulesCover(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"DNS:*.example.com", "DNS:*.dev.example.com", true},
		{"DNS:*.example.com", "DNS:www.example.com", true},
		{"DNS:*.dev.example.com", "DNS:*.example.com", false},
		{"DNS:www.example.com", "DNS:*.example.com", false},
		{"DNS:*", "DNS:*.example.com", true},
		{"DNS:a*", "DNS:*a", false},
		{"DNS:*a*", "DNS:b*ab*", true},
		{"DNS:*", "IP:*", false},
		{"IP:*", "IP:10.0.0.0/8", true},
		{"IP:10.0.0.0/8", "IP:*", false},
		{"IP:10.0.0.0/8", "IP:10.1.0.0/16", true},
		{"IP:10.1.0.0/16", "IP:10.0.0.0/8", false},
		{"IP:0.0.0.0/0", "IP:::/0", false},
		{"CN:*", "O:*", false},
	} {
		a, errA := auth.ParseNameRule(c.a)
		b, errB := auth.ParseNameRule(c.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if got := a.Covers(b); got != c.want {
			t.Errorf("%s covers %s: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

// FuzzNameRule: a rule that covers another allows whatever that one allows.
func FuzzNameRule(f *testing.F) {
	for _, s := range [][3]string{
		{"DNS:*.example.com", "DNS:*.dev.example.com", "a.dev.example.com"},
		{"CN:*a*", "CN:b*ab*", "bxaby"},
		{"IP:10.0.0.0/8", "IP:10.1.0.0/16", "10.1.2.3"},
		{"URI:https://*", "URI:*", "https://x"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, one, other, name string) {
		a, err := auth.ParseNameRule(one)
		if err != nil {
			return
		}
		if again, err := auth.ParseNameRule(a.String()); err != nil || again != a {
			t.Fatalf("%q: %v is read as %v, %v", one, a, again, err)
		}
		b, err := auth.ParseNameRule(other)
		if err != nil {
			return
		}
		kind, _, _ := strings.Cut(b.String(), ":")
		if a.Covers(b) && b.Allows(kind, name) && !a.Allows(kind, name) {
			t.Errorf("%s covers %s, which alone allows %q", a, b, name)
		}
		if !a.Covers(a) {
			t.Errorf("%s does not cover itself", a)
		}
	})
}
