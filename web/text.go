package web

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// visible makes every character of s one that a reader can see: control, format, bidirectional, private and
// unassigned characters and all spaces but the common one become a mark with their code point, ⟨U+202E⟩, and bytes
// that are not UTF-8 become ⟨xFF⟩. Escaping for HTML is left to html/template.
func visible(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, "⟨x%02X⟩", s[i])
		case unicode.IsPrint(r) && !blank(r):
			b.WriteString(s[i : i+n])
		default:
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		}
		i += n
	}
	return b.String()
}

// blank reports characters that Unicode counts as letters, marks or symbols and that show nothing all the same.
func blank(r rune) bool {
	return unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) || unicode.Is(unicode.Variation_Selector, r) || r == 0x2800
}

// shellWord makes s one word of a POSIX shell, quoted only where it must be.
func shellWord(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._/:-", r))
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// slug makes a file name of s that needs no quoting anywhere, at most 40 characters long; empty when nothing is left.
func slug(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case b.Len() == 40:
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	return strings.TrimSuffix(b.String(), "-")
}

// fingerprint writes a SHA-256 value as OpenSSL and the browsers do, AB:CD:..., cut into eight groups of four octets.
// The groups put together are the whole value, colons included.
func fingerprint(sum [32]byte) []string {
	groups := make([]string, 8)
	for i, c := range sum {
		if i > 0 {
			groups[(i-1)/4] += ":"
		}
		groups[i/4] += strings.ToUpper(hex.EncodeToString([]byte{c}))
	}
	return groups
}

// comma writes n with its thousands apart.
func comma(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span says a number of seconds in one unit, rounded to the nearest: "under a minute", "3 hours", "90 days", "20 years".
// Seconds and not a time.Duration, which ends at 292 years.
func span(seconds int64) string {
	const (
		minute = 60
		hour   = 60 * minute
		day    = 24 * hour
		year   = 31556952 // of the Gregorian calendar, on average
	)
	in := func(unit int64) int64 { return (seconds + unit/2) / unit }
	say := func(n int64, name string) string {
		if n == 1 {
			return "1 " + name
		}
		return comma(n) + " " + name + "s"
	}
	switch {
	case seconds < minute:
		return "under a minute"
	case in(minute) < 60:
		return say(in(minute), "minute")
	case in(hour) < 48:
		return say(in(hour), "hour")
	case in(day) < 3*365:
		return say(in(day), "day")
	}
	return say(in(year), "year")
}

// keyName is what people call a key algorithm, for the names that the rest of the program uses.
func keyName(s string) string {
	if bits, ok := strings.CutPrefix(s, "rsa-"); ok {
		return "RSA " + bits
	}
	switch s {
	case "p-256", "p-384", "p-521":
		return "ECDSA " + strings.ToUpper(s)
	case "ed25519":
		return "Ed25519"
	}
	return s
}

func stamp(t time.Time) string { return minute(t) + " UTC" }

// minute is for where the zone stands elsewhere.
func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

func iso(t time.Time) string { return t.UTC().Format(time.RFC3339) }
