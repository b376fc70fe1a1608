package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/keys"
)

func TestFileName(t *testing.T) {
	tests := []struct {
		name  string
		names []string
		want  string
	}{
		{"DNS name", []string{"", "DNS:www.example.com", "DNS:example.com"}, "www.example.com"},
		{"wildcard", []string{"DNS:*.example.com"}, "_.example.com"},
		{"common name first", []string{"Ada Lovelace", "email:ada@example.com"}, "Ada-Lovelace"},
		{"address", []string{"email:ada@example.com"}, "ada@example.com"},
		{"IPv6", []string{"IP:2001:db8::1"}, "2001-db8-1"},
		{"URI", []string{"URI:spiffe://example.com/web"}, "spiffe-example.com-web"},
		{"out of the folder", []string{"../../etc/passwd"}, "etc-passwd"},
		{"hidden file", []string{".bashrc"}, "bashrc"},
		{"an option", []string{"--force"}, "force"},
		{"nothing left of the first", []string{"東京", "DNS:tokyo.example.com"}, "tokyo.example.com"},
		{"nothing left", []string{"..", "///"}, "certificate"},
		{"none", nil, "certificate"},
		{"control characters", []string{"a\x00b\x1bc\nd"}, "a-b-c-d"},
		{"long", []string{strings.Repeat("a", 300)}, strings.Repeat("a", maxFileName)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := fileName(tt.names); got != tt.want {
				t.Errorf("fileName(%q) = %q, want %q", tt.names, got, tt.want)
			}
		})
	}
}

func TestSANOf(t *testing.T) {
	for in, want := range map[string]string{
		"www.example.com":          "DNS:www.example.com",
		"*.example.com":            "DNS:*.example.com",
		"192.0.2.7":                "IP:192.0.2.7",
		"2001:db8::1":              "IP:2001:db8::1",
		"ada@example.com":          "email:ada@example.com",
		"spiffe://example.com/web": "URI:spiffe://example.com/web",
		"urn:uuid:0":               "URI:urn:uuid:0",
		"dns:a.example.com":        "dns:a.example.com",
		"UPN:ada@example.com":      "UPN:ada@example.com",
		"IP:192.0.2.7":             "IP:192.0.2.7",
	} {
		if got := sanOf(in); got != want {
			t.Errorf("sanOf(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCommonName(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "",
		"CN=www.example.com":             "www.example.com",
		"O=Example,CN=a":                 "a",
		`O=CN\=x\,CN=y,CN=z`:             "z",
		`CN=Ada\, Countess,O=Example`:    "Ada, Countess",
		`CN=a\\,O=b`:                     `a\`,
		`O=Example\, Inc.`:               "",
		`serialNumber=7+CN=both`:         "both",
		`CN=B\c3\bccher`:                 "Bücher",
		`CN=` + escapeValue(` #a,b+c" `): ` #a,b+c" `,
	} {
		if got := commonName(in); got != want {
			t.Errorf("commonName(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestNameText(t *testing.T) {
	name := pkix.Name{CommonName: "www.example.com", Organization: []string{"Example, Inc."}, Country: []string{"SE"}}
	raw, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := nameText(raw), `CN=www.example.com,O=Example\, Inc.,C=SE`; got != want {
		t.Errorf("nameText = %q, want %q", got, want)
	}
	if got, want := nameText([]byte{0x30, 0x00}), ""; got != want {
		t.Errorf("nameText of an empty name = %q, want %q", got, want)
	}
	if got, want := nameText([]byte{0x30, 0x05, 0x31}), "#300531"; got != want {
		t.Errorf("nameText of a broken name = %q, want %q", got, want)
	}
}

func TestSANTexts(t *testing.T) {
	tests := []struct {
		name, der, want string
	}{
		{"UPN", "3021a01f060a2b060104018237140203a0110c0f616461406578616d706c652e636f6d", "UPN:ada@example.com"},
		{"other name", "300aa00806022a03a0020500", "otherName:1.2.3=#0500"},
		{"registered id", "3005880 32a0304", "[8]:#2a0304"},
		{"directory name", "3011a40f300d310b3009060355040613025345", "dirName:C=SE"},
		{"address of no length", "300387 0101", "[7]:#01"},
		{"cut off", "300382 0561", "#820561"},
		{"no sequence", "0500", "#0500"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			der, err := hex.DecodeString(strings.ReplaceAll(tt.der, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(sanTexts(der), " "); got != tt.want {
				t.Errorf("sanTexts(%x) = %q, want %q", der, got, tt.want)
			}
		})
	}
}

func FuzzTexts(f *testing.F) {
	f.Add([]byte{0x30, 0x00})
	f.Add([]byte{0x30, 0x03, 0x82, 0x01, 0x61})
	f.Fuzz(func(t *testing.T, der []byte) {
		_, _ = nameText(der), sanTexts(der)
	})
}

func TestNeverSent(t *testing.T) {
	call := func(err error) error { return &url.Error{Op: "Post", URL: "https://127.0.0.1:8443/", Err: err} }
	tests := []struct {
		name string
		err  error
		want bool
	}{
		{"refused by the server", &client.Error{Status: 400}, true},
		{"the server failed", &client.Error{Status: 500}, false},
		{"the server was not available", &client.Error{Status: 503}, false},
		{"nobody there", call(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), true},
		{"broken off", call(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), false},
		{"unknown", errors.New("unexpected EOF"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := neverSent(fmt.Errorf("issuing: %w", tt.err)); got != tt.want {
				t.Errorf("neverSent(%v) = %t, want %t", tt.err, got, tt.want)
			}
		})
	}
}

func TestExplainTarget(t *testing.T) {
	target := target{server: "https://ca.example.com:8443", token: "cwt_x"}
	call := func(err error) error { return &url.Error{Op: "Get", URL: "https://ca.example.com:8443/", Err: err} }
	tests := []struct {
		name          string
		err           error
		message, hint string
	}{
		{
			"no such host", call(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "ca.example.com"}}),
			"no Certwright server answers at https://ca.example.com:8443: lookup ca.example.com: no such host", "certwright serve",
		},
		{
			"another name", call(x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"localhost"}}, Host: "ca.example.com"}),
			"is for another name", "names in the server's configuration",
		},
		{
			"ours to tell", &client.Error{Status: 500, Detail: "the server failed to do this", RequestID: "r1"},
			"the server failed to do this", "under request id r1",
		},
		{"its own hint", &client.Error{Type: "urn:certwright:problem:policy_refused", Status: 403, Detail: "no", Hint: "ask"}, "no", "ask"},
		{
			"another kind of server", &client.Error{Status: 404, Detail: "the server answered 404 Not Found"},
			"404 Not Found", "is https://ca.example.com:8443 a Certwright server's HTTPS address?",
		},
		{"cut off", call(errors.New("unexpected EOF")), "talking to https://ca.example.com:8443: unexpected EOF", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			message, hint := explain(target.explain(tt.err))
			if !strings.Contains(message, tt.message) || !strings.Contains(hint, tt.hint) || tt.hint == "" && hint != "" {
				t.Errorf("explain(%v) = %q, %q; want %q, %q", tt.err, message, hint, tt.message, tt.hint)
			}
		})
	}
}

func TestDistance(t *testing.T) {
	now := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2026-11-22T14:00:00Z": "now",
		"2026-11-22T14:00:30Z": "in less than a minute",
		"2026-11-22T14:00:59Z": "in less than a minute",
		"2026-11-22T14:01:29Z": "in 1 minute",
		"2026-11-22T14:01:59Z": "in 2 minutes",
		"2026-11-22T14:59:45Z": "in 1 hour",
		"2026-11-22T16:00:00Z": "in 2 hours",
		"2026-11-24T13:45:00Z": "in 2 days",
		"2027-02-20T13:59:58Z": "in 90 days", // issued for 90 days two seconds ago
		"2027-11-22T13:59:58Z": "in 365 days",
		"2029-11-20T14:00:00Z": "in 1094 days",
		"2029-11-22T14:00:00Z": "in 3 years",
		"2046-11-22T13:59:58Z": "in 20 years",
		"9998-12-31T00:00:00Z": "in 7972 years",
		"2026-11-20T13:00:00Z": "2 days ago",
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := distance(at, now); got != want {
			t.Errorf("distance(%s) = %q, want %q", text, got, want)
		}
	}
}

func TestInstant(t *testing.T) {
	now := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2026-11-20":                "2026-11-20T00:00:00Z",
		"2026-11-20 07:30":          "2026-11-20T07:30:00Z",
		"2026-11-20T07:30":          "2026-11-20T07:30:00Z",
		"2026-11-20T07:30:01Z":      "2026-11-20T07:30:01Z",
		"2026-11-20T07:30:01+02:00": "2026-11-20T05:30:01Z",
		"24h":                       "2026-11-21T14:00:00Z",
		"30d":                       "2026-10-23T14:00:00Z",
		"-1h":                       "",
		"tomorrow":                  "",
		"22.11.2026":                "",
	} {
		i := instant{now: func() time.Time { return now }}
		if err := i.Set(text); (err == nil) != (want != "") || i.String() != want {
			t.Errorf("Set(%q) = %q, %v; want %q", text, i.String(), err, want)
		}
	}
}

// TestNewKeyIsNeverLost: a key goes away only when the server surely issued nothing for it, and an old key only when
// there is a certificate for the new one.
func TestNewKeyIsNeverLost(t *testing.T) {
	refused, unknown := &client.Error{Status: 403}, errors.New("unexpected EOF")
	tests := []struct {
		name        string
		old, force  bool
		err         error
		wantKey     string // what is at NAME.key: new, old or nothing
		wantBeside  bool   // whether NAME.key.new is there
		wantMention string
	}{
		{"issued", false, false, nil, "new", false, ""},
		{"refused", false, false, refused, "", false, ""},
		{"outcome unknown", false, false, unknown, "new", false, "stays in"},
		{"issued over an old one", true, true, nil, "new", false, ""},
		{"refused over an old one", true, true, refused, "old", false, ""},
		{"outcome unknown over an old one", true, true, unknown, "old", true, "www.key.new"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "www.key")
			if tt.old {
				if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var said strings.Builder
			env := testEnvironment()
			env.err = &said
			key, err := makeKey(keys.P256, path, tt.force)
			if err != nil {
				t.Fatal(err)
			}
			if err := key.settle(env, tt.err); !errors.Is(err, tt.err) {
				t.Errorf("settle = %v, want %v", err, tt.err)
			}
			got := ""
			if text, err := os.ReadFile(path); err == nil {
				got = "new"
				if string(text) == "old" {
					got = "old"
				}
			}
			if got != tt.wantKey {
				t.Errorf("at NAME.key is the %q key, want %q", got, tt.wantKey)
			}
			if _, err := os.Lstat(path + ".new"); (err == nil) != tt.wantBeside {
				t.Errorf("NAME.key.new: %v, want it there: %t", err, tt.wantBeside)
			}
			if !strings.Contains(said.String(), tt.wantMention) || tt.wantMention == "" && said.Len() > 0 {
				t.Errorf("said %q, want a mention of %q", said.String(), tt.wantMention)
			}
		})
	}
}
