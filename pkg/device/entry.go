package device

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

// Limits on what people say of a device.
const (
	MaxGroup      = 100 // octets, as the next three
	MaxOwner      = 200
	MaxNote       = 1000
	MaxReason     = 200
	MaxLabels     = 32
	MaxLabelName  = 63
	MaxLabelValue = 200
	MaxSubject    = 1000
	MaxSANs       = 100
	// MaxLine is the longest line, or row, of an import.
	MaxLine = 64 << 10
)

// Entry is what people say of a device: a line of an import. Only ID is required.
type Entry struct {
	ID      string            `json:"id"`
	Group   string            `json:"group,omitempty"`
	Owner   string            `json:"owner,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Subject string            `json:"subject,omitempty"` // RFC 4514
	SANs    []string          `json:"sans,omitempty"`    // as in "DNS:a.example.com"
	Note    string            `json:"note,omitempty"`
}

// apply writes an entry to a record.
func (e *Entry) apply(d *pki.Device) {
	d.ID, d.Group, d.Owner, d.Labels, d.Subject, d.SANs, d.Note = e.ID, e.Group, e.Owner, e.Labels, e.Subject, e.SANs, e.Note
}

// Complete checks an entry and puts its subject into the form in which it is kept. Errors are faults of the kind
// BadRequest with the field's name.
func (e *Entry) Complete() error {
	if err := pki.CheckDeviceID(e.ID); err != nil {
		return fault.Wrap(fault.BadRequest, err, "%v", err).WithField("id")
	}
	for _, f := range []struct {
		field, text string
		most        int
	}{{"group", e.Group, MaxGroup}, {"owner", e.Owner, MaxOwner}, {"note", e.Note, MaxNote}, {"subject", e.Subject, MaxSubject}} {
		if err := checkText(f.field, f.text, f.most); err != nil {
			return err
		}
	}
	if len(e.Labels) > MaxLabels {
		return fault.New(fault.BadRequest, "a device has at most %d labels", MaxLabels).WithField("labels")
	}
	for _, name := range slices.Sorted(maps.Keys(e.Labels)) {
		if !labelName(name) {
			return fault.New(fault.BadRequest, "the name of a label has 1 to %d letters, digits and . _ - /", MaxLabelName).WithField("labels")
		}
		if err := checkText("labels."+name, e.Labels[name], MaxLabelValue); err != nil {
			return err
		}
	}
	if e.Subject != "" {
		subject, err := profile.ParseSubject(e.Subject)
		if err != nil {
			return err
		}
		e.Subject = profile.FormatSubject(subject)
	}
	if len(e.SANs) > MaxSANs {
		return fault.New(fault.BadRequest, "a device has at most %d names", MaxSANs).WithField("sans")
	}
	unfit := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }
	if slices.ContainsFunc(e.SANs, func(name string) bool { return strings.ContainsFunc(name, unfit) }) {
		return fault.New(fault.BadRequest, "a name of a device has no spaces and no control characters").WithField("sans")
	}
	_, err := profile.ParseSANs(e.SANs...)
	return err
}

func labelName(name string) bool {
	return name != "" && len(name) <= MaxLabelName && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-/", r)
	})
}

// checkText refuses what does not fit a line of a table.
func checkText(field, text string, most int) error {
	switch {
	case len(text) > most:
		return fault.New(fault.BadRequest, "it has %d octets; %d are allowed", len(text), most).WithField(field)
	case !utf8.ValidString(text):
		return fault.New(fault.BadRequest, "it is not UTF-8").WithField(field)
	case strings.ContainsFunc(text, unicode.IsControl):
		return fault.New(fault.BadRequest, "it has a control character").WithField(field)
	}
	return nil
}

// LineError is what is wrong with a line of an import.
type LineError struct {
	Line int // counts from 1
	Err  error
}

func (e *LineError) Error() string {
	if f, ok := errors.AsType[*fault.Error](e.Err); ok && f.Field != "" {
		return fmt.Sprintf("line %d: %s: %s", e.Line, f.Field, f.Detail)
	}
	return fmt.Sprintf("line %d: %v", e.Line, e.Err)
}

func (e *LineError) Unwrap() error { return e.Err }

// ReadLines reads entries, one JSON object a line; blank lines are left out. Every line that is wrong comes as a
// LineError, and the next is read all the same; after an error of r nothing comes. Entries are complete.
func ReadLines(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		s := bufio.NewScanner(r)
		s.Buffer(make([]byte, 0, 4096), MaxLine)
		n := 0
		for s.Scan() {
			n++
			line := bytes.TrimSpace(s.Bytes())
			if n == 1 {
				line = bytes.TrimPrefix(line, []byte("\ufeff"))
			}
			if len(line) == 0 {
				continue
			}
			e, err := document.Parse[Entry](line, "device")
			if err == nil {
				err = e.Complete()
			}
			if err != nil {
				err = &LineError{n, err}
			}
			if !yield(e, err) {
				return
			}
		}
		if err := s.Err(); errors.Is(err, bufio.ErrTooLong) {
			yield(Entry{}, &LineError{n + 1, fmt.Errorf("it is longer than %d octets", MaxLine)})
		} else if err != nil {
			yield(Entry{}, err)
		}
	}
}

// importColumns are those of CSV that say something of a device. A column "label:NAME" is a label of its own.
var importColumns = []string{"id", "group", "owner", "labels", "subject", "sans", "note"}

// Columns are those of an export. The first are read by an import, the others left alone: a file that was exported can be
// imported elsewhere. New ones come at the end.
func Columns() []string {
	return append(slices.Clone(importColumns), "status", "reason", "created_at", "created_by", "changed_at", "changed_by", "first_seen_at", "last_seen_at", "last_source", "last_point",
		"certificate", "serial", "not_after", "failures", "renewal_failures", "failed_at", "failure", "returns")
}

const labelPrefix = "label:"

// ReadCSV reads entries from CSV (RFC 4180) whose first row names the columns, in any order and letter case; «;» and the
// tab may stand for the comma. Errors are as those of ReadLines; one about the heading ends the reading.
func ReadCSV(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		in := bufio.NewReader(&lineLimit{r: r, left: MaxLine})
		begin, _ := in.Peek(3)
		if bytes.Equal(begin, []byte("\ufeff")) {
			_, _ = in.Discard(len(begin)) // they are there
		}
		c := csv.NewReader(in)
		c.FieldsPerRecord, c.ReuseRecord = -1, true
		begin, _ = in.Peek(in.Size())
		c.Comma = document.Separator(begin)
		heading, err := c.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		var columns []string
		if err == nil {
			columns, err = readHeading(heading)
		}
		if err != nil {
			yield(Entry{}, &LineError{1, err})
			return
		}
		for {
			row, err := c.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if bad, ok := errors.AsType[*csv.ParseError](err); ok {
				// What follows an open quotation mark cannot be told from what is in it.
				yield(Entry{}, &LineError{bad.StartLine, bad.Err})
				return
			} else if err != nil {
				yield(Entry{}, err)
				return
			}
			if len(row) == 1 && row[0] == "" {
				continue
			}
			line, _ := c.FieldPos(0)
			e, err := readRow(columns, row)
			if err == nil {
				err = e.Complete()
			}
			if err != nil {
				err = &LineError{line, err}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// lineLimit refuses lines that are too long.
type lineLimit struct {
	r    io.Reader
	left int
}

func (l *lineLimit) Read(b []byte) (int, error) {
	n, err := l.r.Read(b[:min(len(b), MaxLine)])
	if i := bytes.IndexByte(b[:n], '\n'); i >= 0 {
		if i > l.left {
			return 0, fmt.Errorf("a line is longer than %d octets", MaxLine)
		}
		l.left = MaxLine - (n - 1 - bytes.LastIndexByte(b[:n], '\n'))
	} else {
		l.left -= n
	}
	if l.left < 0 {
		return 0, fmt.Errorf("a line is longer than %d octets", MaxLine)
	}
	return n, err
}

func readHeading(heading []string) ([]string, error) {
	columns := make([]string, len(heading))
	known := Columns()
	for i, name := range heading {
		name = strings.TrimSpace(document.Value(name))
		if label, ok := cutPrefixFold(name, labelPrefix); ok {
			if !labelName(label) {
				return nil, fmt.Errorf("column %d, %q: the name of a label has 1 to %d letters, digits and . _ - /", i+1, name, MaxLabelName)
			}
			name = labelPrefix + label
		} else if name = strings.ToLower(name); !slices.Contains(known, name) {
			return nil, fmt.Errorf("column %d, %q, is not known: there are %s, and label:NAME", i+1, name, strings.Join(importColumns, ", "))
		}
		if slices.Contains(columns[:i], name) {
			return nil, fmt.Errorf("the column %q stands twice", name)
		}
		columns[i] = name
	}
	if !slices.Contains(columns, "id") {
		return nil, errors.New("there is no column «id»; the first line must name the columns")
	}
	return columns, nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

func readRow(columns, row []string) (Entry, error) {
	var e Entry
	if len(row) != len(columns) {
		return e, fmt.Errorf("it has %d cells; the heading has %d", len(row), len(columns))
	}
	for i, name := range columns {
		text := document.Value(row[i])
		if text == "" {
			continue
		}
		switch name {
		case "id":
			e.ID = text
		case "group":
			e.Group = text
		case "owner":
			e.Owner = text
		case "subject":
			e.Subject = text
		case "sans":
			e.SANs = strings.Fields(text)
		case "note":
			e.Note = text
		case "labels":
			labels, err := ParseLabels(text)
			if err != nil {
				return e, err
			}
			for label, value := range labels {
				if err := e.setLabel(label, value); err != nil {
					return e, err
				}
			}
		default:
			if label, ok := strings.CutPrefix(name, labelPrefix); ok {
				if err := e.setLabel(label, text); err != nil {
					return e, err
				}
			}
		}
	}
	return e, nil
}

func (e *Entry) setLabel(name, value string) error {
	if _, ok := e.Labels[name]; ok {
		return fault.New(fault.BadRequest, "the label %q stands twice", name).WithField("labels")
	}
	if e.Labels == nil {
		e.Labels = map[string]string{}
	}
	e.Labels[name] = value
	return nil
}

var escapeLabel = strings.NewReplacer(`\`, `\\`, `;`, `\;`)

// FormatLabels writes labels in one line, as in "rack=7;site=B", with a backslash before «;» and «\» in values.
func FormatLabels(labels map[string]string) string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, name+"="+escapeLabel.Replace(labels[name]))
	}
	return strings.Join(pairs, ";")
}

// ParseLabels reads what FormatLabels wrote. Errors are faults of the kind BadRequest with the field "labels".
func ParseLabels(text string) (map[string]string, error) {
	labels := map[string]string{}
	var pair strings.Builder
	end := func() error {
		p := pair.String()
		pair.Reset()
		if strings.TrimSpace(p) == "" {
			return nil
		}
		name, value, ok := strings.Cut(p, "=")
		name = strings.TrimSpace(name)
		if _, twice := labels[name]; !ok || twice || !labelName(name) {
			return fault.New(fault.BadRequest, "labels are written as in rack=7;site=B, each name once").WithField("labels")
		}
		labels[name] = value
		return nil
	}
	escaped := false
	for _, r := range text {
		switch {
		case escaped:
			pair.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped = true
		case r == ';':
			if err := end(); err != nil {
				return nil, err
			}
		default:
			pair.WriteRune(r)
		}
	}
	if escaped {
		return nil, fault.New(fault.BadRequest, "a backslash ends the labels").WithField("labels")
	}
	if err := end(); err != nil {
		return nil, err
	}
	return labels, nil
}
