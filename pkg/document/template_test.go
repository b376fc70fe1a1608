package document_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/certwright/certwright/pkg/document"
)

func TestPercentEncode(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "", "aZ09-._~": "aZ09-._~", "a b/%": "a%20b%2F%25", "\xffä": "%FF%C3%A4"} {
		if got := document.PercentEncode(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestScanTemplate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                     "",
		"plain":                `"plain" `,
		"{a}":                  "<a> ",
		"x{a}y{b c}":           `"x" <a> "y" <b c> `,
		"{a}{b}":               "<a> <b> ",
		"{}":                   "<> ",
		"{{a}} {{{a}}}":        `"{a} {" <a> "}" `,
		"}}{{":                 `"}{" `,
		"x}y":                  "! a closing brace without an opening one; write }} for the character",
		"x{a":                  "! an opening brace without a closing one; write {{ for the character",
		"x{bad}{":              `"x" ! no`,
		"\xff{a}\x00":          `"\xff" <a> "\x00" `,
		"{a}} and no more{{":   "<a> ! a closing brace without an opening one; write }} for the character",
		"a literal, {{ quoted": `"a literal, { quoted" `,
	} {
		got := ""
		err := document.ScanTemplate(text, func(s string) { got += fmt.Sprintf("%q ", s) }, func(s string) error {
			if s == "bad" {
				return errors.New("no")
			}
			got += "<" + s + "> "
			return nil
		})
		if err != nil {
			got += "! " + err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
