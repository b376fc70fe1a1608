package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/keys"
)

func TestPrepareData(t *testing.T) {
	base := t.TempDir()
	tests := []struct {
		name string
		make func(dir string)
		want string // part of the error; empty: accepted
	}{
		{"absent", func(string) {}, ""},
		{"absent with its parents", func(string) {}, ""},
		{"ours", func(d string) { os.Mkdir(d, 0o700) }, ""},
		{"open but empty", func(d string) { os.Mkdir(d, 0o755) }, ""},
		{"open and in use", func(d string) {
			os.Mkdir(d, 0o755)
			os.WriteFile(filepath.Join(d, "kek.key"), []byte("x"), 0o600)
		}, "open to others"},
		{"a file", func(d string) { os.WriteFile(d, nil, 0o600) }, "not a folder"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(base, strings.ReplaceAll(tt.name, " ", "/"))
			if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
				t.Fatal(err)
			}
			tt.make(dir)
			err := prepareData(dir)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want an error that says %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(dir)
			if err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("mode %v, %v; want 0700", info.Mode(), err)
			}
		})
	}
}

func TestReadSecretLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for contents, want := range map[string]string{"secret\n": "secret", "secret": "secret", "secret\r\nsecond": "secret", " spaces stay ": " spaces stay ", "": "", "\nsecond": ""} {
		if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readSecretLine(path)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", contents, got, err, want)
		}
	}
}

func TestKEKSources(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	file := config.Config{Data: dir}
	kek, made, err := newKEK(&file)
	if err != nil || !made {
		t.Fatalf("a key file: made %v, %v", made, err)
	}
	described, err := describeKEK(kek)
	if err != nil {
		t.Fatal(err)
	}
	phrase := config.Config{Data: dir, Key: config.Key{Passphrase: "correct horse battery staple"}}
	phraseKEK, made, err := newKEK(&phrase)
	if err != nil || made {
		t.Fatalf("a passphrase: made %v, %v", made, err)
	}
	phraseDescribed, err := describeKEK(phraseKEK)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file.KEKFile()); err != nil || os.WriteFile(filepath.Join(dir, "cred"), b, 0o600) != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name      string
		key       config.Key
		described []byte
		want      string
	}{
		{"the key file", config.Key{}, described, ""},
		{"the same key as a credential", config.Key{Credential: "cred"}, described, ""},
		{"a missing key file", config.Key{File: filepath.Join(dir, "none")}, described, "not there"},
		{"a passphrase for a key file", config.Key{Passphrase: "x"}, described, ""}, // the key file beside the data is used
		{"the passphrase", config.Key{Passphrase: "correct horse battery staple"}, phraseDescribed, ""},
		{"a wrong passphrase", config.Key{Passphrase: "wrong"}, phraseDescribed, "not the key"},
		{"no passphrase", config.Key{}, phraseDescribed, "passphrase"},
		{"a description that is none", config.Key{}, []byte("{"), "description"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config.Config{Data: dir, Key: tt.key}
			got, err := openKEK(&cfg, tt.described)
			if tt.want == "" {
				if err != nil || got == nil {
					t.Errorf("openKEK: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error that says %q", err, tt.want)
			}
		})
	}
	other := filepath.Join(dir, "other.key")
	if _, err := keys.CreateKeyFile(other); err != nil {
		t.Fatal(err)
	}
	if _, err := openKEK(&config.Config{Data: dir, Key: config.Key{File: other}}, described); err == nil || !strings.Contains(err.Error(), "not the key") {
		t.Errorf("another key file: %v", err)
	}
}
