package profile_test

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/profile"
	"go.yaml.in/yaml/v3"
)

// TestDocument: docs/profiles.md has every field and variable, and its examples are profiles.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/profiles.md")
	if err != nil {
		t.Fatal(err)
	}
	document := string(text)
	var walk func(typ reflect.Type, path string)
	walk = func(typ reflect.Type, path string) {
		for typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			if !strings.Contains(document, "`"+path+"`") {
				t.Errorf("docs/profiles.md lacks %s", path)
			}
			return
		}
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if path != "" {
				name = path + "." + name
			}
			if name != "ca" { // told in words
				walk(typ.Field(i).Type, name)
			}
		}
	}
	walk(reflect.TypeFor[profile.Config](), "")

	requests := map[string]func(in *profile.Input){ // what the cookbook's profiles are for
		"web":      func(in *profile.Input) { in.CSR.SANs = names(t, "www.example.com") },
		"workload": func(in *profile.Input) { in.CSR.SANs, in.Device = names(t, "a.svc.cluster.local"), "ns/prod" },
		"sensor":   func(in *profile.Input) { in.Device = "0017" },
		"staff": func(in *profile.Input) {
			in.Subject, in.SANs = subject(t, "CN=Ada,O=Acme,emailAddress=ada@example.com"), names(t, "ada@example.com")
			in.Role, in.Source = "enroller", "192.0.2.9"
		},
		"code": func(in *profile.Input) {
			in.PublicKey, in.Subject, in.Role, in.Requester = keyP384, subject(t, "CN=Acme releases"), "administrator", "token:release-1"
		},
		"database": func(in *profile.Input) { in.CSR.SANs = names(t, "pg_1.db.example.com", "10.20.1.1") },
	}
	made := 0
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(document, -1) {
		var file struct {
			Profiles []map[string]any
		}
		if err := yaml.Unmarshal([]byte(block[1]), &file); err != nil {
			t.Errorf("%v:\n%s", err, block[1])
		}
		if file.Profiles == nil { // a profile alone
			file.Profiles = make([]map[string]any, 1)
			if err := yaml.Unmarshal([]byte(block[1]), &file.Profiles[0]); err != nil {
				t.Errorf("%v:\n%s", err, block[1])
			}
		}
		for _, p := range file.Profiles {
			config, err := profile.ParseConfig(must(json.Marshal(p)))
			var built *profile.Profile
			if err == nil {
				built, err = profile.New(config)
			}
			if err != nil {
				t.Errorf("%v: %v", p["name"], err)
				continue
			}
			made++
			if w := built.Warnings(); len(w) > 0 {
				t.Errorf("%s: %q", built.Name(), w)
			}
			if request := requests[built.Name()]; request != nil {
				in := input(t, "")
				request(&in)
				if _, err := built.Contents(in); err != nil {
					t.Errorf("%s: %v", built.Name(), err)
				}
			}
		}
	}
	if made < 9 {
		t.Errorf("the document has %d profiles", made)
	}
}
