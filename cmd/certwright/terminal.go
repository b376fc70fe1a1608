package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// visible makes every character of s one that a reader can see and that a terminal does not obey: control, format,
// bidirectional, private and unassigned characters and all spaces but the common one become a mark with their code
// point, ⟨U+202E⟩, and bytes that are not UTF-8 become ⟨xFF⟩. The fields of a certificate can hold all of these.
func visible(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, "⟨x%02X⟩", s[i])
		case shown(r):
			b.WriteString(s[i : i+n])
		default:
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		}
		i += n
	}
	return b.String()
}

// shown reports characters that show. Some that Unicode counts as letters, marks or symbols do not.
func shown(r rune) bool {
	return unicode.IsPrint(r) && r != 0x2800 &&
		!unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) && !unicode.Is(unicode.Variation_Selector, r)
}

// writeJSON writes one indented document. What does not show is written as \u and four digits, which every reader of
// JSON takes for the character itself.
func writeJSON(w io.Writer, v any) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	var safe strings.Builder
	for _, r := range b.String() {
		switch {
		case r == '\n' || shown(r):
			safe.WriteRune(r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&safe, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&safe, `\u%04x`, r)
		}
	}
	_, err := io.WriteString(w, safe.String())
	return err
}
