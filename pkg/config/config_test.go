package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/config"
)

func env(kv map[string]string) (environ []string) {
	for k, v := range kv {
		environ = append(environ, k+"="+v)
	}
	return environ
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
	write("http: 127.0.0.1:1\nhttps: 127.0.0.1:2\nmtls: 127.0.0.1:3\ncrl:\n  interval: 30m\nocsp:\n  next_update: 1d12h\ninit:\n  key_algorithm: p-384\nmigrate: false\n")
	e := env(map[string]string{"CERTWRIGHT_DATA": dir, "CERTWRIGHT_HTTPS": "127.0.0.1:22", "CERTWRIGHT_MTLS": "127.0.0.1:33", "CERTWRIGHT_CRL_NEXT_UPDATE": "48h", "CERTWRIGHT_NAMES": "a.example,192.0.2.1"})
	c, err := config.Load("", e, func(c *config.Config) { c.MTLS = "off" })
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.HTTP, c.HTTPS, c.MTLS, time.Duration(c.CRL.Interval), time.Duration(c.CRL.NextUpdate), time.Duration(c.OCSP.NextUpdate), c.Names, c.Init.KeyAlgorithm.String(), *c.Migrate}
	want := []any{"127.0.0.1:1", "127.0.0.1:22", "off", 30 * time.Minute, 48 * time.Hour, 36 * time.Hour, []string{"a.example", "192.0.2.1"}, "p-384", false}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRefused(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"unknown key", "htpp: :80\n", "c.yaml: line 1: there is no setting htpp"},
		{"unknown nested key", "crl:\n  intervall: 1h\n", "c.yaml: line 2: there is no setting crl.intervall"},
		{"twice", "http: :80\nhttps: :443\nhttp: :81\n", "c.yaml: line 3: http: it stands in line 1 already"},
		{"no group", "crl: 1h\n", "c.yaml: line 1: crl: this is a group of settings, such as crl.aliases"},
		{"no mapping", "- http\n", "c.yaml: line 1: want settings"},
		{"list for a text", "http: [a, b]\n", "c.yaml: line 1: http: want one value"},
		{"number for a list", "names:\n  a: b\n", "c.yaml: line 2: names: want a list"},
		{"neither true nor false", "migrate: perhaps\n", "c.yaml: line 1: migrate: want true or false"},
		{"no YAML", "http: a: b\n", "c.yaml: "},
		{"two documents", "http: :80\n---\nhttp: :81\n", "more than one"},
		{"address", "\nhttp: eighty\n", `c.yaml: line 2: http: "eighty" is not an address`},
		{"https cannot be off", "https: \"off\"\n", "https:"},
		{"public_url with TLS", "public_url: https://pki.example.com\n", "plain http"},
		{"public_url without host", "public_url: pki.example.com\n", "public_url"},
		{"duration", "crl:\n  interval: soon\n", `c.yaml: line 2: crl.interval: "soon" is not a duration`},
		{"negative duration", "crl:\n  interval: -1h\n", "above zero"},
		{"alias of nothing", "crl:\n  aliases: [/old.crl]\n", "PATH=ISSUER"},
		{"alias without a scope", "crl:\n  aliases: [/old.crl=issuing/]\n", "PATH=ISSUER"},
		{"alias that is no path", "crl:\n  aliases: [old.crl=issuing]\n", "is not a path"},
		{"alias with a pattern", "crl:\n  aliases: [\"/{old}.crl=issuing\"]\n", "is not a path"},
		{"alias of the API", "crl:\n  aliases: [/api/v1/x=issuing]\n", "is in use"},
		{"alias twice", "crl:\n  aliases: [/a=issuing, /a=root]\n", "twice"},
		{"one missed CRL locks out", "crl:\n  interval: 1h\n  next_update: 90m\n", "crl.next_update"},
		{"two key sources", "key:\n  file: /a\n  credential: b\n", "key:"},
		{"log level", "log:\n  level: loud\n", "log.level"},
		{"algorithm", "init:\n  key_algorithm: rsa-1024\n", `c.yaml: line 2: init.key_algorithm: key algorithm "rsa-1024" is none of p-256, p-384,`},
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
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("Load: %q, want one line", err)
			}
		})
	}
	if _, err := config.Load("/does/not/exist.yaml", env(map[string]string{"HOME": "/h"}), nil); err == nil {
		t.Error("a file that was named and does not exist is no error")
	}
}

func TestWhereAWrongValueCameFrom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("http: one\nlog:\n  level: info\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		env   map[string]string
		apply func(*config.Config)
		want  config.Error
	}{
		{"file", nil, nil, config.Error{Key: "http", Where: path + ": line 1"}},
		{"environment over file", map[string]string{"CERTWRIGHT_HTTP": "two"}, nil, config.Error{Key: "http", Where: "CERTWRIGHT_HTTP"}},
		{"flag over both", map[string]string{"CERTWRIGHT_HTTP": ":2"}, func(c *config.Config) { c.HTTP = "three" }, config.Error{Key: "http", Flag: true}},
		{"another flag", nil, func(c *config.Config) { c.Log.Format = "json" }, config.Error{Key: "http", Where: path + ": line 1"}},
		{"flag mends the file", nil, func(c *config.Config) { c.HTTP, c.Log.Level = ":3", "loud" }, config.Error{Key: "log.level", Flag: true}},
		{"text that cannot be read", map[string]string{"CERTWRIGHT_CRL_INTERVAL": "soon"}, nil, config.Error{Key: "crl.interval", Where: "CERTWRIGHT_CRL_INTERVAL"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Load(path, env(tt.env), func(c *config.Config) {
				c.Data = "/d"
				if tt.apply != nil {
					tt.apply(c)
				}
			})
			got, ok := errors.AsType[*config.Error](err)
			if !ok {
				t.Fatalf("Load: %v, want a config.Error", err)
			}
			if got.Key != tt.want.Key || got.Where != tt.want.Where || got.Flag != tt.want.Flag {
				t.Errorf("Load: %+v, want %+v", *got, tt.want)
			}
		})
	}
}

func TestNearestName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	for key, want := range map[string]string{
		"htpp": "did you mean http?", "public-url": "did you mean public_url?", "publicURL": "did you mean public_url?",
		"interval": "did you mean crl.interval?", "next_update": "did you mean crl.next_update or ocsp.next_update?",
		"crl.intervall": "did you mean crl.interval?", "elephants": "",
	} {
		text := key + ": x\n"
		if group, leaf, nested := strings.Cut(key, "."); nested {
			text = group + ":\n  " + leaf + ": x\n"
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := config.Load(path, env(map[string]string{"HOME": "/h"}), nil)
		if e, ok := errors.AsType[*config.Error](err); !ok || e.Hint != want {
			t.Errorf("%s: got %+v, want the hint %q", key, err, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	for _, entry := range []string{
		"CERTWRIGHT_HTTP=:80", "CERTWRIGHT_CRL_NEXT_UPDATE=48h", "CERTWRIGHT_CONFIG=x", "CERTWRIGHT_SERVER=x", "CERTWRIGHT_TOKEN=x",
		"CERTWRIGHT_TOKEN_FILE=x", "CERTWRIGHT_CA_FILE=x", "CERTWRIGHT_KEY_PASSPHRASE=x", "CERTWRIGHT_TEST_POSTGRES=x", "PATH=x", "=C:=C",
		// What Kubernetes sets for services named certwright and certwright-http.
		"CERTWRIGHT_SERVICE_HOST=10.0.0.7", "CERTWRIGHT_SERVICE_PORT=80", "CERTWRIGHT_SERVICE_PORT_HTTPS=443", "CERTWRIGHT_PORT=tcp://10.0.0.7:80",
		"CERTWRIGHT_PORT_80_TCP=tcp://10.0.0.7:80", "CERTWRIGHT_PORT_80_TCP_PROTO=tcp", "CERTWRIGHT_PORT_80_TCP_PORT=80", "CERTWRIGHT_PORT_80_TCP_ADDR=10.0.0.7",
		"CERTWRIGHT_HTTP_SERVICE_HOST=10.0.0.7", "CERTWRIGHT_HTTP_PORT=tcp://10.0.0.7:80",
	} {
		if err := config.CheckEnvironment([]string{entry}); err != nil {
			t.Errorf("%s: %v", entry, err)
		}
	}
	for entry, hint := range map[string]string{
		"CERTWRIGHT_HTPP=:80":             "did you mean CERTWRIGHT_HTTP?",
		"CERTWRIGHT_PUBLICURL=http://x":   "did you mean CERTWRIGHT_PUBLIC_URL?",
		"CERTWRIGHT_INTERVAL=1h":          "did you mean CERTWRIGHT_CRL_INTERVAL?",
		"CERTWRIGHT_NEXT_UPDATE=48h":      "did you mean CERTWRIGHT_CRL_NEXT_UPDATE or CERTWRIGHT_OCSP_NEXT_UPDATE?",
		"CERTWRIGHT_TOKENFILE=x":          "did you mean CERTWRIGHT_TOKEN_FILE?",
		"CERTWRIGHT_HTTP_PORT=80":         "",
		"CERTWRIGHT_IMAGE=x":              "",
		"CERTWRIGHT_CRL_NEXT_UPDATES=48h": "did you mean CERTWRIGHT_CRL_NEXT_UPDATE?",
	} {
		_, err := config.Load("", []string{"HOME=/h", entry}, nil)
		name, _, _ := strings.Cut(entry, "=")
		if e, ok := errors.AsType[*config.Error](err); !ok || e.Error() != name+": there is no such setting" || e.Hint != hint {
			t.Errorf("%s: got %+v, want the hint %q", entry, err, hint)
		}
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

func TestLimits(t *testing.T) {
	for text, want := range map[string]struct {
		perSecond float64
		burst     int
	}{"off": {-1, 0}, "10/s": {10, 0}, "0.5/s": {0.5, 0}, " 10/s  burst 100 ": {10, 100}} {
		var r config.Rate
		if err := r.UnmarshalText([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if perSecond, burst := r.Limit(); perSecond != want.perSecond || burst != want.burst {
			t.Errorf("%q is %v and %d, want %v", text, perSecond, burst, want)
		}
	}
	for _, bad := range []string{"", "10", "/s", "-1/s", "0/s", "NaN/s", "Inf/s", "1e9/s", "10/m", "10/s burst", "10/s burst 0", "10/s burst x", "10/s burst 1 2", "burst 1", "on"} {
		if err := new(config.Rate).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is taken as a rate", bad)
		}
	}
	for file, want := range map[string]string{
		"limits: {searches: 0}":        "limits.searches",
		"limits: {searches: 101}":      "limits.searches",
		"limits: {body_bytes: 100}":    "limits.body_bytes",
		"limits: {body_bytes: 64KiB}":  "limits.body_bytes",
		"limits: {wait: 20s}":          "limits.wait",
		"limits: {token: fast}":        "limits.token",
		"limits: {tokens: 10/s}":       "limits.tokens",
		"limits: {followers: 1000000}": "limits.followers",
	} {
		c := config.Config{Data: "data"}
		err := config.Decode(strings.NewReader(file), &c)
		if err == nil {
			err = c.Complete()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error about %s", file, err, want)
		}
	}
	c, err := config.Load(os.DevNull, []string{"HOME=/home/x", "CERTWRIGHT_LIMITS_TOKEN=50/s burst 200", "CERTWRIGHT_LIMITS_SEARCHES=5"}, nil)
	if perSecond, burst := c.Limits.Token.Limit(); err != nil || perSecond != 50 || burst != 200 || c.Limits.Searches != 5 {
		t.Errorf("from the environment: %+v, %v", c.Limits, err)
	}
}
