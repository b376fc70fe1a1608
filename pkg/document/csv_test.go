package document_test

import (
	"testing"

	"github.com/certwright/certwright/pkg/document"
)

func TestCells(t *testing.T) {
	for in, want := range map[string]string{
		"":              "",
		"CN=a":          "CN=a",
		"=1+1":          "'=1+1",
		"+49":           "'+49",
		"-1":            "'-1",
		"@SUM(A1)":      "'@SUM(A1)",
		"\t=1":          "'\t=1",
		"\r=1":          "'\r=1",
		"\n=1":          "'\n=1",
		"＝1":            "'＝1",
		"'=1":           "''=1",
		"a=b":           "a=b",
		"O=x,CN=\"=1\"": "O=x,CN=\"=1\"",
	} {
		if got := document.Cell(in); got != want {
			t.Errorf("Cell(%q) = %q, want %q", in, got, want)
		}
		if got := document.Value(want); got != in {
			t.Errorf("Value(%q) = %q, want %q", want, got, in)
		}
	}
	for _, cell := range []string{"'quoted'", "a'", "x"} {
		if got := document.Value(cell); got != cell {
			t.Errorf("Value(%q) = %q", cell, got)
		}
	}
}
