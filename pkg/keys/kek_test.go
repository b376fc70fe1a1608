package keys_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/keys"
)

func newKEK(t testing.TB) *keys.KEK {
	t.Helper()
	var secret [32]byte
	rand.Read(secret[:])
	return keys.KEKOf(secret)
}

// folder is a new folder of mode 0700, whatever the umask.
func folder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// weakParams are as fast as allowed.
func weakParams() keys.Argon2Params {
	return keys.Argon2Params{Salt: []byte("sixteen octets!!"), MemoryKiB: keys.MinArgon2MemoryKiB, Time: 1, Threads: 1}
}

func TestFromPassphrase(t *testing.T) {
	params := weakParams()
	kek, err := keys.FromPassphrase([]byte("correct horse"), params)
	if err != nil {
		t.Fatal(err)
	}
	if kek.Kind() != keys.PassphraseKEK {
		t.Errorf("Kind = %v", kek.Kind())
	}
	// A stable value: it changes only when old stores cannot be opened.
	if got, want := kek.ID(), "164436528225930d"; got != want {
		t.Errorf("ID = %s, want %s", got, want)
	}
	other := params
	other.Salt = []byte("sixteen octets!?")
	longer := params
	longer.Time = 2
	for _, tc := range []struct {
		name       string
		passphrase string
		params     keys.Argon2Params
		same       bool
	}{
		{"same", "correct horse", params, true},
		{"line end", "correct horse\n", params, false},
		{"other salt", "correct horse", other, false},
		{"other time", "correct horse", longer, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			again, err := keys.FromPassphrase([]byte(tc.passphrase), tc.params)
			if err != nil {
				t.Fatal(err)
			}
			if same := again.ID() == kek.ID(); same != tc.same {
				t.Errorf("same KEK: %v, want %v", same, tc.same)
			}
		})
	}
	for _, bad := range [][]byte{nil, {}, make([]byte, keys.MaxPassphraseBytes+1)} {
		if _, err := keys.FromPassphrase(bad, params); !errors.Is(err, keys.ErrPassphrase) {
			t.Errorf("FromPassphrase of %d octets = %v, want ErrPassphrase", len(bad), err)
		}
	}
}

func TestArgon2Bounds(t *testing.T) {
	fresh := keys.NewArgon2Params()
	if err := fresh.Validate(); err != nil {
		t.Errorf("NewArgon2Params are refused: %v", err)
	}
	if fresh.MemoryKiB != 64<<10 || fresh.Time != 3 || fresh.Threads != 4 {
		t.Errorf("NewArgon2Params = %+v", fresh)
	}
	if bytes.Equal(fresh.Salt, keys.NewArgon2Params().Salt) {
		t.Error("NewArgon2Params gives the same salt twice")
	}
	for _, tc := range []struct {
		name string
		edit func(*keys.Argon2Params)
	}{
		{"zero value", func(p *keys.Argon2Params) { *p = keys.Argon2Params{} }},
		{"no salt", func(p *keys.Argon2Params) { p.Salt = nil }},
		{"short salt", func(p *keys.Argon2Params) { p.Salt = make([]byte, 15) }},
		{"long salt", func(p *keys.Argon2Params) { p.Salt = make([]byte, 65) }},
		{"little memory", func(p *keys.Argon2Params) { p.MemoryKiB = keys.MinArgon2MemoryKiB - 1 }},
		{"much memory", func(p *keys.Argon2Params) { p.MemoryKiB = keys.MaxArgon2MemoryKiB + 1 }},
		{"all memory", func(p *keys.Argon2Params) { p.MemoryKiB = 1<<32 - 1 }},
		{"no time", func(p *keys.Argon2Params) { p.Time = 0 }},
		{"much time", func(p *keys.Argon2Params) { p.Time = keys.MaxArgon2Time + 1 }},
		{"no threads", func(p *keys.Argon2Params) { p.Threads = 0 }},
		{"many threads", func(p *keys.Argon2Params) { p.Threads = keys.MaxArgon2Threads + 1 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			params := weakParams()
			tc.edit(&params)
			if _, err := keys.FromPassphrase([]byte("x"), params); !errors.Is(err, keys.ErrArgon2Params) {
				t.Errorf("FromPassphrase = %v, want ErrArgon2Params", err)
			}
		})
	}
}

func TestKeyFile(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "kek")
	kek, err := keys.CreateKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 || info.Size() != 32 {
		t.Errorf("file has mode %v and %d octets", info.Mode(), info.Size())
	}
	again, err := keys.FromKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if again.ID() != kek.ID() || again.Kind() != keys.KeyFileKEK {
		t.Errorf("FromKeyFile = %v, want %v", again, kek)
	}
	before, _ := os.ReadFile(path)
	if _, err := keys.CreateKeyFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second CreateKeyFile = %v, want ErrExist", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("second CreateKeyFile changed the file")
	}

	// The same secret as a credential, raw and in hex, is the same KEK.
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for name, data := range map[string][]byte{
		"raw":     before,
		"hex":     []byte(hex.EncodeToString(before)),
		"hex-lf":  []byte(hex.EncodeToString(before) + "\n"),
		"HEX-lf":  []byte(strings.ToUpper(hex.EncodeToString(before)) + "\r\n"),
		"raw-500": before,
	} {
		mode := fs.FileMode(0o600)
		if name == "raw-500" {
			mode = 0o440 // what an ACL of systemd looks like
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
		got, err := keys.FromCredential(name)
		if err != nil || got.ID() != kek.ID() {
			t.Errorf("FromCredential(%s) = %v, %v, want %v", name, got, err, kek)
		}
	}
}

func TestKeyFileRefused(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	for _, tc := range []struct {
		name    string
		data    []byte
		prepare func(t *testing.T, path string)
		want    error
	}{
		{"empty", nil, nil, keys.ErrKeyFile},
		{"short", secret[:31], nil, keys.ErrKeyFile},
		{"33 octets", append(slices.Clone(secret), '\n'), nil, keys.ErrKeyFile},
		{"zeros", make([]byte, 32), nil, keys.ErrKeyFile},
		{"zeros in hex", bytes.Repeat([]byte{'0'}, 64), nil, keys.ErrKeyFile},
		{"not hex", bytes.Repeat([]byte{'g'}, 64), nil, keys.ErrKeyFile},
		{"group may read", secret, func(t *testing.T, path string) { chmod(t, path, 0o640) }, keys.ErrUnsafeFile},
		{"world may read", secret, func(t *testing.T, path string) { chmod(t, path, 0o604) }, keys.ErrUnsafeFile},
		{"group may write", secret, func(t *testing.T, path string) { chmod(t, path, 0o620) }, keys.ErrUnsafeFile},
		{"world may write folder", secret, func(t *testing.T, path string) { chmod(t, filepath.Dir(path), 0o777) }, keys.ErrUnsafeFile},
		{"group may write folder", secret, func(t *testing.T, path string) { chmod(t, filepath.Dir(path), 0o770) }, keys.ErrUnsafeFile},
		{"symbolic link", secret, func(t *testing.T, path string) {
			if err := os.Rename(path, path+".real"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(path+".real", path); err != nil {
				t.Fatal(err)
			}
		}, keys.ErrUnsafeFile},
		{"folder", secret, func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, keys.ErrUnsafeFile},
		{"other owner", secret, func(t *testing.T, path string) {
			if os.Geteuid() != 0 {
				t.Skip("only root can give files away")
			}
			if err := os.Chown(path, 4711, -1); err != nil {
				t.Fatal(err)
			}
		}, keys.ErrUnsafeFile},
		{"missing", secret, func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, fs.ErrNotExist},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(folder(t), "kek")
			if err := os.WriteFile(path, tc.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if tc.prepare != nil {
				tc.prepare(t, path)
			}
			kek, err := keys.FromKeyFile(path)
			if !errors.Is(err, tc.want) {
				t.Errorf("FromKeyFile = %v, %v, want %v", kek, err, tc.want)
			}
		})
	}
	t.Run("long", func(t *testing.T) {
		path := filepath.Join(folder(t), "kek")
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if kek, err := keys.FromKeyFile(path); err == nil {
			t.Errorf("FromKeyFile = %v, want an error", kek)
		}
	})
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestFromCredentialRefused(t *testing.T) {
	dir := folder(t)
	if err := os.WriteFile(filepath.Join(dir, "kek"), bytes.Repeat([]byte{7}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "open"), bytes.Repeat([]byte{7}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	chmod(t, filepath.Join(dir, "open"), 0o444)
	for _, tc := range []struct {
		name, dir, file string
		want            error
	}{
		{"no variable", "", "kek", keys.ErrNoCredential},
		{"relative folder", "credentials", "kek", keys.ErrNoCredential},
		{"missing", dir, "other", keys.ErrNoCredential},
		{"empty name", dir, "", keys.ErrNoCredential},
		{"parent", dir, "..", keys.ErrNoCredential},
		{"path", dir, "../" + filepath.Base(dir) + "/kek", keys.ErrNoCredential},
		{"absolute", dir, filepath.Join(dir, "kek"), keys.ErrNoCredential},
		{"world may read", dir, "open", keys.ErrUnsafeFile},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("CREDENTIALS_DIRECTORY", tc.dir)
			if kek, err := keys.FromCredential(tc.file); !errors.Is(err, tc.want) {
				t.Errorf("FromCredential = %v, %v, want %v", kek, err, tc.want)
			}
		})
	}
}

// prints shows v in every way a careless program might.
func prints(t *testing.T, v any) string {
	t.Helper()
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
		fmt.Fprintf(&out, verb+"\n", v)
	}
	handlers := []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)}
	for _, h := range handlers {
		slog.New(h).Info("m", "v", v)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	return out.String()
}

func TestKEKDoesNotPrint(t *testing.T) {
	var secret [32]byte
	for i := range secret {
		secret[i] = 0xa0 | byte(i&15)
	}
	kek := keys.KEKOf(secret)
	type holder struct {
		private *keys.KEK
		inner   keys.KEK
		Public  *keys.KEK
	}
	for name, v := range map[string]any{
		"pointer": kek, "value": *kek, "holder": holder{kek, *kek, kek}, "holder pointer": &holder{kek, *kek, kek},
		"slice": []any{kek, *kek}, "map": map[string]keys.KEK{"k": *kek},
	} {
		out := prints(t, v)
		for _, leak := range []string{"a0a1a2", "A0A1A2", "160 161 162", "0xa0, 0xa1", "wrap:", "cipher", "{["} {
			if strings.Contains(out, leak) {
				t.Errorf("%s shows %q:\n%s", name, leak, out)
			}
		}
	}
	if got := fmt.Sprintf("%+v", kek); got != "KEK(keyfile "+kek.ID()+", secret not shown)" {
		t.Errorf("%%+v shows %s", got)
	}
	if got := fmt.Sprint(new(keys.KEK), (*keys.KEK)(nil)); got != "KEK(none) <nil>" {
		t.Errorf("empty KEKs show %q", got)
	}
}

func TestKEKInfo(t *testing.T) {
	kek, err := keys.FromPassphrase([]byte("correct horse"), weakParams())
	if err != nil {
		t.Fatal(err)
	}
	info, err := keys.NewKEKInfo(kek)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	// A stable form: it changes only when old stores cannot be read.
	const want = `{"id":"164436528225930d","kind":"passphrase","argon2":{"salt":"c2l4dGVlbiBvY3RldHMhIQ==","memory_kib":8192,"time":1,"threads":1},"check":"tMJLHav+xS1ysJX5ELkXD2eh3eikL8kgDuCo+jS4kbQ="}`
	if string(text) != want {
		t.Errorf("JSON is\n%s, want\n%s", text, want)
	}
	parsed, err := keys.ParseKEKInfo(text)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := parsed.Open([]byte("correct horse"))
	if err != nil || opened.ID() != kek.ID() {
		t.Fatalf("Open = %v, %v", opened, err)
	}
	if _, err := parsed.Open([]byte("incorrect horse")); !errors.Is(err, keys.ErrWrongKEK) {
		t.Errorf("Open with another passphrase = %v, want ErrWrongKEK", err)
	}
	if err := parsed.Verify(newKEK(t)); !errors.Is(err, keys.ErrWrongKEK) {
		t.Errorf("Verify of another KEK = %v, want ErrWrongKEK", err)
	}
	if err := parsed.Verify(nil); err == nil {
		t.Error("Verify(nil) = nil")
	}
	if err := new(keys.KEKInfo).Verify(kek); !errors.Is(err, keys.ErrWrongKEK) {
		t.Errorf("Verify by the zero value = %v, want ErrWrongKEK", err)
	}
	if _, err := keys.NewKEKInfo(new(keys.KEK)); err == nil {
		t.Error("NewKEKInfo of the zero KEK = nil")
	}

	// Whoever can write the store cannot alter the description unseen.
	for name, edit := range map[string]func(*keys.KEKInfo){
		"kind":   func(i *keys.KEKInfo) { i.Kind, i.Argon2 = keys.KeyFileKEK, nil },
		"memory": func(i *keys.KEKInfo) { i.Argon2.MemoryKiB++ },
		"time":   func(i *keys.KEKInfo) { i.Argon2.Time++ },
		"lanes":  func(i *keys.KEKInfo) { i.Argon2.Threads++ },
		"salt":   func(i *keys.KEKInfo) { i.Argon2.Salt[0]++ },
		"check":  func(i *keys.KEKInfo) { i.Check[31]++ },
	} {
		t.Run("altered "+name, func(t *testing.T) {
			altered, err := keys.ParseKEKInfo(text)
			if err != nil {
				t.Fatal(err)
			}
			edit(&altered)
			if err := altered.Verify(kek); !errors.Is(err, keys.ErrCorrupt) {
				t.Errorf("Verify = %v, want ErrCorrupt", err)
			}
			if _, err := altered.Open([]byte("correct horse")); err == nil {
				t.Error("Open = nil, want an error")
			}
		})
	}
	// The description does not share memory with the KEK.
	info.Argon2.Salt[0]++
	if again, _ := keys.NewKEKInfo(kek); again.Verify(kek) != nil {
		t.Error("a change of the description reached the KEK")
	}
}

func TestKEKInfoKeyFile(t *testing.T) {
	kek := newKEK(t)
	info, err := keys.NewKEKInfo(kek)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := keys.ParseKEKInfo(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.Verify(kek); err != nil {
		t.Errorf("Verify = %v", err)
	}
	if _, err := parsed.Open([]byte("x")); !errors.Is(err, keys.ErrWrongKEK) {
		t.Errorf("Open with a passphrase = %v, want ErrWrongKEK", err)
	}
}

func TestParseKEKInfoRefused(t *testing.T) {
	id, check := `"id":"0011223344556677"`, `"check":"`+strings.Repeat("A", 43)+`="`
	if _, err := keys.ParseKEKInfo([]byte(`{` + id + `,"kind":"keyfile",` + check + `}`)); err != nil {
		t.Fatalf("the model of this test is refused: %v", err)
	}
	for name, text := range map[string]string{
		"empty":             ``,
		"null":              `null`,
		"list":              `[]`,
		"no id":             `{"kind":"keyfile",` + check + `}`,
		"upper-case id":     `{"id":"001122334455667A","kind":"keyfile",` + check + `}`,
		"no kind":           `{` + id + `,` + check + `}`,
		"unknown kind":      `{` + id + `,"kind":"tpm",` + check + `}`,
		"kind as number":    `{` + id + `,"kind":2,` + check + `}`,
		"no check":          `{` + id + `,"kind":"keyfile"}`,
		"unknown field":     `{` + id + `,"kind":"keyfile","x":1,` + check + `}`,
		"two values":        `{` + id + `,"kind":"keyfile",` + check + `}{}`,
		"no parameters":     `{` + id + `,"kind":"passphrase",` + check + `}`,
		"extra parameters":  `{` + id + `,"kind":"keyfile","argon2":{},` + check + `}`,
		"huge memory":       `{` + id + `,"kind":"passphrase","argon2":{"salt":"AAAAAAAAAAAAAAAAAAAAAA==","memory_kib":4294967295,"time":1,"threads":1},` + check + `}`,
		"threads overflow":  `{` + id + `,"kind":"passphrase","argon2":{"salt":"AAAAAAAAAAAAAAAAAAAAAA==","memory_kib":65536,"time":1,"threads":257},` + check + `}`,
		"longer than limit": `{` + id + `,"kind":"keyfile",` + check + `}` + strings.Repeat(" ", keys.MaxKEKInfoBytes),
	} {
		t.Run(name, func(t *testing.T) {
			if info, err := keys.ParseKEKInfo([]byte(text)); !errors.Is(err, keys.ErrCorrupt) {
				t.Errorf("ParseKEKInfo = %+v, %v, want ErrCorrupt", info, err)
			}
		})
	}
}

func FuzzParseKEKInfo(f *testing.F) {
	for _, kind := range []string{"keyfile", "passphrase", "?"} {
		f.Add([]byte(`{"id":"0011223344556677","kind":"` + kind + `","argon2":{"salt":"AAAAAAAAAAAAAAAAAAAAAA==","memory_kib":65536,"time":3,"threads":4},"check":"` + strings.Repeat("A", 43) + `="}`))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := keys.ParseKEKInfo(data)
		if err != nil {
			return
		}
		text, err := json.Marshal(info)
		if err != nil {
			t.Fatalf("Marshal(%+v): %v", info, err)
		}
		if _, err := keys.ParseKEKInfo(text); err != nil {
			t.Errorf("ParseKEKInfo of %s: %v", text, err)
		}
	})
}

func BenchmarkFromPassphrase(b *testing.B) {
	params := keys.NewArgon2Params()
	for b.Loop() {
		if _, err := keys.FromPassphrase([]byte("correct horse"), params); err != nil {
			b.Fatal(err)
		}
	}
}
