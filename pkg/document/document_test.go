package document_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/fault"
)

type sample struct {
	Name  string `json:"name,omitempty"`
	Rules struct {
		Life *document.Duration `json:"life,omitempty"`
		List []string           `json:"list,omitempty"`
	} `json:"rules,omitzero"`
	Switch *struct {
		On bool `json:"on,omitempty"`
	} `json:"switch,omitempty"`
}

func TestParse(t *testing.T) {
	for text, field := range map[string]string{
		`{"name":"x","rules":{"life":"1y30d","list":["a"]},"switch":{}}`: "-",
		`{"nam":"x"}`:                   "nam",
		`{"rules":{"lives":"1d"}}`:      "rules.lives",
		`{"rules":{"life":"long"}}`:     "rules.life",
		`{"rules":{"list":[1]}}`:        "rules.list",
		`{"name":"x","Name":"y"}`:       "Name",
		`{"rules":{},"rules":{}}`:       "rules",
		`{"switch":{"on":1}}`:           "switch.on",
		`{}{}`:                          "",
		`{`:                             "",
		`"text"`:                        "",
		`{"rules":{"life":1}}`:          "rules.life",
		"{\"name\":\"x\"} // a comment": "",
	} {
		_, err := document.Parse[sample]([]byte(text), "sample")
		if field == "-" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.BadRequest || f.Field != field {
			t.Errorf("%s: got %v, want a refusal of %q", text, err, field)
		}
	}
}

func TestDiff(t *testing.T) {
	parse := func(text string) sample {
		t.Helper()
		s, err := document.Parse[sample]([]byte(text), "sample")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, tt := range []struct {
		before, after string
		want          []string
	}{
		{`{}`, `{}`, nil},
		{`{}`, `{"name":"x","switch":{}}`, []string{"name: -> \"x\"", "switch: -> {}"}},
		{`{"rules":{"life":"24h"}}`, `{"rules":{"life":"1d"}}`, nil},
		{`{"rules":{"life":"24h","list":["a","b"]}}`, `{"rules":{"list":["b","a"]}}`, []string{`rules.life: "1d" ->`, `rules.list: ["a","b"] -> ["b","a"]`}},
		{`{"name":"x"}`, `{}`, []string{"name: \"x\" ->"}},
	} {
		changes, err := document.Diff(parse(tt.before), parse(tt.after))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range changes {
			line := c.Field + ":"
			for _, word := range []string{string(c.Old), "->", string(c.New)} {
				if word != "" {
					line += " " + word
				}
			}
			got = append(got, line)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("from %s to %s: %q, want %q", tt.before, tt.after, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{}`, `{"rules":{"life":"1y"}}`, `{"a":[{"b":{}}]}`, `[`, `{"switch":null}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := document.Parse[sample](text, "sample")
		if err != nil {
			if !fault.Is(err, fault.BadRequest) {
				t.Errorf("%q: %v is no BadRequest", text, err)
			}
			return
		}
		if changes, err := document.Diff(s, s); err != nil || len(changes) != 0 {
			t.Errorf("%q differs from itself in %v, %v", text, changes, err)
		}
	})
}
