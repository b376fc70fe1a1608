package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/config"
)

func env(kv map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) { v, ok := kv[k]; return v, ok }
}

func TestEmptyIsAWorkingServer(t *testing.T) {
	c, err := config.Load("", env(map[string]string{"HOME": "/home/someone"}), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Data != "/home/someone/.local/share/certwright" || c.HTTP != "127.0.0.1:8080" || c.HTTPS != "127.0.0.1:8443" || c.MTLS != "127.0.0.1:8444" {
		t.Errorf("defaults: %+v", c)
	}
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "certwright.yaml"), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("http: 127.0.0.1:1\nhttps: 127.0.0.1:2\nmtls: 127.0.0.1:3\ncrl:\n  interval: 30m\ninit:\n  key_algorithm: p-384\nmigrate: false\n")
	e := env(map[string]string{"CERTWRIGHT_DATA": dir, "CERTWRIGHT_HTTPS": "127.0.0.1:22", "CERTWRIGHT_MTLS": "127.0.0.1:33", "CERTWRIGHT_CRL_NEXT_UPDATE": "48h", "CERTWRIGHT_NAMES": "a.example,192.0.2.1"})
	c, err := config.Load("", e, func(c *config.Config) { c.MTLS = "off" })
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.HTTP, c.HTTPS, c.MTLS, time.Duration(c.CRL.Interval), time.Duration(c.CRL.NextUpdate), c.Names, c.Init.KeyAlgorithm.String(), *c.Migrate}
	want := []any{"127.0.0.1:1", "127.0.0.1:22", "off", 30 * time.Minute, 48 * time.Hour, []string{"a.example", "192.0.2.1"}, "p-384", false}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRefused(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"unknown key", "htpp: :80\n", "htpp"},
		{"unknown nested key", "crl:\n  intervall: 1h\n", "intervall"},
		{"two documents", "http: :80\n---\nhttp: :81\n", "more than one"},
		{"address", "http: eighty\n", "http:"},
		{"https cannot be off", "https: \"off\"\n", "https:"},
		{"public_url with TLS", "public_url: https://pki.example.com\n", "plain http"},
		{"public_url without host", "public_url: pki.example.com\n", "public_url"},
		{"duration", "crl:\n  interval: soon\n", "duration"},
		{"negative duration", "crl:\n  interval: -1h\n", "above zero"},
		{"one missed CRL locks out", "crl:\n  interval: 1h\n  next_update: 90m\n", "crl.next_update"},
		{"two key sources", "key:\n  file: /a\n  credential: b\n", "key:"},
		{"log level", "log:\n  level: loud\n", "log.level"},
		{"algorithm", "init:\n  key_algorithm: rsa-1024\n", "rsa-1024"},
		{"passphrase in the file", "key:\n  passphrase: secret\n", "passphrase"},
		{"names", "names: [\"*.example.com\"]\n", "names"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.yaml")
			if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := config.Load(path, env(map[string]string{"HOME": "/h"}), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Load: %v, want an error that says %q", err, tt.want)
			}
		})
	}
	if _, err := config.Load("/does/not/exist.yaml", env(map[string]string{"HOME": "/h"}), nil); err == nil {
		t.Error("a file that was named and does not exist is no error")
	}
}

func TestEverySettingCanComeFromTheEnvironment(t *testing.T) {
	// A setting of a type that walkEnv does not know would fail as soon as its variable is set.
	var walk func(t reflect.Type, prefix string) []string
	walk = func(rt reflect.Type, prefix string) (names []string) {
		for i := range rt.NumField() {
			f := rt.Field(i)
			key := f.Tag.Get("yaml")
			if key == "-" {
				continue
			}
			name := prefix + strings.ToUpper(key)
			if f.Type.Kind() == reflect.Struct {
				names = append(names, walk(f.Type, name+"_")...)
			} else {
				names = append(names, name)
			}
		}
		return names
	}
	for _, name := range walk(reflect.TypeOf(config.Config{}), config.EnvPrefix) {
		_, err := config.Load("", env(map[string]string{"HOME": "/h", name: "x"}), nil)
		if err != nil && strings.Contains(err.Error(), "cannot come from") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoopback(t *testing.T) {
	for u, want := range map[string]bool{"http://127.0.0.1:8080": true, "http://localhost": true, "http://[::1]:80": true, "http://pki.example.com": false, "http://192.0.2.1": false} {
		if got := config.Loopback(u); got != want {
			t.Errorf("Loopback(%s) = %v, want %v", u, got, want)
		}
	}
}
