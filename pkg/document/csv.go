package document

import (
	"bytes"
	"strings"
)

// formulas begin what a spreadsheet could take for a formula, the full-width forms that some fold among them; and an
// apostrophe, so that taking one away always gives the value back.
var formulas = []string{"=", "+", "-", "@", "\t", "\r", "\n", "'", "＝", "＋", "－", "＠"}

// Cell makes a text fit for a cell of CSV that a person may open in a spreadsheet: what could be a formula gets an
// apostrophe before it. Value takes it away.
func Cell(text string) string {
	for _, prefix := range formulas {
		if strings.HasPrefix(text, prefix) {
			return "'" + text
		}
	}
	return text
}

// Value returns what Cell was given. A cell with an apostrophe that Cell would not have set is taken as it is.
func Value(cell string) string {
	if text, ok := strings.CutPrefix(cell, "'"); ok && Cell(text) == cell {
		return text
	}
	return cell
}

// Separator guesses what stands between the columns of a file that begins like this: the comma, «;» or the tab, whichever
// its first line has. It is for headings of names that have none of them.
func Separator(begin []byte) rune {
	heading, _, _ := bytes.Cut(begin, []byte("\n"))
	for _, c := range []byte{',', ';', '\t'} {
		if bytes.IndexByte(heading, c) >= 0 {
			return rune(c)
		}
	}
	return ','
}
