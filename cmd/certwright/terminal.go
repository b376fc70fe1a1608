package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/certwright/certwright/pkg/pki"
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
	return writeShown(w, b.String(), func(r rune) string {
		if r > 0xFFFF {
			high, low := utf16.EncodeRune(r)
			return fmt.Sprintf(`\u%04x\u%04x`, high, low)
		}
		return fmt.Sprintf(`\u%04x`, r)
	})
}

// writeShown writes a document, and in place of each character that does not show its escape in the document's language.
func writeShown(w io.Writer, document string, escape func(rune) string) error {
	var safe strings.Builder
	for _, r := range document {
		if r == '\n' || shown(r) {
			safe.WriteRune(r)
		} else {
			safe.WriteString(escape(r))
		}
	}
	_, err := io.WriteString(w, safe.String())
	return err
}

// warn tells of something that is no reason to stop.
func warn(env *environment, format string, args ...any) {
	fmt.Fprintf(env.err, "warning: %s\n", visible(fmt.Sprintf(format, args...)))
}

// note tells something beside what was asked for.
func note(env *environment, format string, args ...any) {
	fmt.Fprintf(env.err, "note: %s\n", visible(fmt.Sprintf(format, args...)))
}

// interactive reports whether somebody sits in front of the input.
func interactive(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks a question that only a yes answers with yes.
func confirm(ctx context.Context, env *environment, question string) (bool, error) {
	fmt.Fprintf(env.err, "%s [y/N] ", visible(question))
	text, err := typedLine(ctx, env)
	if err != nil {
		return false, err
	}
	answer := strings.ToLower(text)
	return answer == "y" || answer == "yes", nil
}

// typedLine returns a line that somebody types, without the white space around it. The end of the input is an empty line.
func typedLine(ctx context.Context, env *environment) (string, error) {
	type line struct {
		text string
		err  error
	}
	lines := make(chan line, 1)
	// Reading a terminal cannot be cancelled: after an interrupt this goroutine ends with the process.
	go func() {
		text, err := bufio.NewReader(env.in).ReadString('\n')
		lines <- line{text, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(env.err)
		return "", ctx.Err()
	case l := <-lines:
		if l.err != nil {
			fmt.Fprintln(env.err)
		}
		if l.err != nil && !errors.Is(l.err, io.EOF) {
			return "", l.err
		}
		return strings.TrimSpace(l.text), nil
	}
}

// table writes rows below a heading, in columns.
func table(w io.Writer, heading []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, visible(cmp.Or(cell, "-")))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// fields is a list of labels with their values, shown one below the other. Fields without a value are left out.
type fields [][]string

func (f *fields) add(label string, values ...string) {
	values = slices.DeleteFunc(values, func(v string) bool { return v == "" })
	if len(values) > 0 {
		*f = append(*f, append([]string{label}, values...))
	}
}

func (f fields) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, field := range f {
		label := field[0] + ":"
		for _, value := range field[1:] {
			fmt.Fprintf(t, "%s\t%s\n", label, visible(value))
			label = ""
		}
	}
	return t.Flush()
}

// clip shortens what would make a column too wide.
func clip(s string, limit int) string {
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit-1]) + "…"
}

// stamp writes a moment in UTC, to the minute.
func stamp(t time.Time) string {
	if !t.Before(pki.NoExpiry) {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// stampFor writes a moment and how far off it is.
func stampFor(t, now time.Time) string {
	if !t.Before(pki.NoExpiry) {
		return stamp(t)
	}
	return stamp(t) + " UTC (" + distance(t, now) + ")"
}

// distance says how far t is from now, in one unit, rounded: "in 90 days", "3 hours ago".
func distance(t, now time.Time) string {
	seconds := t.Unix() - now.Unix() // a time.Duration would end at 292 years
	switch {
	case seconds == 0:
		return "now"
	case seconds < 0:
		return length(-seconds) + " ago"
	}
	return "in " + length(seconds)
}

// length says a number of seconds in one unit, rounded to the nearest.
func length(seconds int64) string {
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
		return strconv.FormatInt(n, 10) + " " + name + "s"
	}
	switch {
	case seconds < minute:
		return "less than a minute"
	case in(minute) < 60:
		return say(in(minute), "minute")
	case in(hour) < 48:
		return say(in(hour), "hour")
	case in(day) < 3*365:
		return say(in(day), "day")
	}
	return say(in(year), "year")
}

// fingerprint writes a hash as OpenSSL and browsers do, in eight groups: AB:CD:EF:01: 23:...
func fingerprint(hash []byte) string {
	var b strings.Builder
	for i, c := range hash {
		if i > 0 {
			b.WriteByte(':')
			if i%4 == 0 {
				b.WriteByte(' ')
			}
		}
		fmt.Fprintf(&b, "%02X", c)
	}
	return b.String()
}

// fingerprintOf is fingerprint for a hash in hexadecimal, which it returns as it is when it is none.
func fingerprintOf(text string) string {
	hash, err := hex.DecodeString(text)
	if err != nil {
		return text
	}
	return fingerprint(hash)
}
