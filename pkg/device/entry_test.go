package device_test

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/fault"
)

// outcome is what reading says, in a form that can be compared: an entry as JSON, or the error.
func outcome(e device.Entry, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	b, _ := json.Marshal(e)
	return string(b)
}

func TestReadLines(t *testing.T) {
	in := "\ufeff" + `{"id":"a","group":"g","labels":{"k":"v"},"sans":["DNS:a.example"],"subject":"CN=a, O=x"}

  {"id":"b"}
{"id":"c","colour":"red"}
{"id":""}
{"id":"d","sans":["IP:nonsense"]}
not JSON
{"id":"e"} {"id":"f"}
{"id":"g","note":"é"}`
	want := []string{
		`{"id":"a","group":"g","labels":{"k":"v"},"subject":"CN=a,O=x","sans":["DNS:a.example"]}`, `{"id":"b"}`,
		"error: line 4: colour:", "error: line 5: id:", "error: line 6: sans", "error: line 7:", "error: line 8:", `{"id":"g","note":"é"}`,
	}
	var got []string
	for e, err := range device.ReadLines(strings.NewReader(in)) {
		got = append(got, outcome(e, err))
	}
	same(t, got, want)
	for _, err := range device.ReadLines(strings.NewReader(`{"id":"a"}` + "\n" + strings.Repeat(" ", device.MaxLine+1))) {
		if l, ok := errors.AsType[*device.LineError](err); err != nil && (!ok || l.Line != 2) {
			t.Errorf("a line that is too long: %v", err)
		}
	}
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing: %s", want[i])
		case i >= len(want):
			t.Errorf("too much: %s", got[i])
		case got[i] != want[i] && !(strings.HasPrefix(want[i], "error:") && strings.HasPrefix(got[i], want[i])):
			t.Errorf("%d: got %s, want %s", i, got[i], want[i])
		}
	}
}

func TestReadCSV(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want []string
	}{
		"empty":   {"", nil},
		"heading": {"id\n", nil},
		"all": {
			"id,group,owner,labels,subject,sans,note,label:site\na,g,o,rack=7,CN=a,DNS:a.example IP:192.0.2.1,n,B\nb,,,,,,,\n",
			[]string{`{"id":"a","group":"g","owner":"o","labels":{"rack":"7","site":"B"},"subject":"CN=a","sans":["DNS:a.example","IP:192.0.2.1"],"note":"n"}`, `{"id":"b"}`},
		},
		"a spreadsheet's":      {"\ufeffGroup;ID\r\n'=g;\"a;b\"\r\n\r\n", []string{`{"id":"a;b","group":"=g"}`}},
		"tabs":                 {"id\tgroup\na\tg\n", []string{`{"id":"a","group":"g"}`}},
		"columns of an export": {"id,status,not_after\na,enrolled,2030-01-01T00:00:00Z\n", []string{`{"id":"a"}`}},
		"unknown column":       {"id,colour\na,red\n", []string{`error: line 1: column 2, "colour", is not known`}},
		"a column twice":       {"id,ID\na,b\n", []string{`error: line 1: the column "id" stands twice`}},
		"no id":                {"a,b\n1,2\n", []string{`error: line 1: column 1, "a", is not known`}},
		"no column id":         {"group\nx\n", []string{"error: line 1: there is no column «id»"}},
		"a cell too many":      {"id,group\na\nb,g\nc,g,x\n", []string{"error: line 2: it has 1 cells; the heading has 2", `{"id":"b","group":"g"}`, "error: line 4:"}},
		"lines in cells":       {"id,note\n\"a\",\"x\"\"y\"\n\"b\nc\",\nd,\n", []string{`{"id":"a","note":"x\"y"}`, "error: line 3: id:", `{"id":"d"}`}},
		"an open quote":        {"id,note\na,\"x\nb,\n", []string{"error: line 2:"}},
		"a label twice":        {"id,labels,label:site\na,site=A,B\n", []string{"error: line 2: labels:"}},
		"a bad label":          {"id,label:a b\na,B\n", []string{"error: line 1: column 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for e, err := range device.ReadCSV(strings.NewReader(test.in)) {
				got = append(got, outcome(e, err))
			}
			same(t, got, test.want)
		})
	}
}

func TestEntries(t *testing.T) {
	long := strings.Repeat("x", 2000)
	for field, e := range map[string]device.Entry{
		"id":       {ID: long},
		"id ":      {ID: "a\n"},
		"id  ":     {ID: " a"},
		"id   ":    {ID: ".."},
		"id    ":   {ID: "a\u202eb"},
		"group":    {ID: "a", Group: long},
		"owner":    {ID: "a", Owner: "\x1b[31m"},
		"note":     {ID: "a", Note: "\xff"},
		"labels":   {ID: "a", Labels: map[string]string{"a b": "c"}},
		"labels.k": {ID: "a", Labels: map[string]string{"k": long}},
		"subject":  {ID: "a", Subject: "CN"},
		"sans":     {ID: "a", SANs: []string{"DNS:a b"}},
		"sans ":    {ID: "a", SANs: []string{"URI:http://x/\x00"}},
	} {
		field = strings.TrimSpace(field)
		err := e.Complete()
		f, ok := errors.AsType[*fault.Error](err)
		if !ok || f.Kind != fault.BadRequest || f.Field != field {
			t.Errorf("%s: %+v: got %v (field %q)", field, e, err, f.Field)
		}
	}
}

func TestLabels(t *testing.T) {
	for _, labels := range []map[string]string{{}, {"a": "b"}, {"a": "", "b/c.d-e_f": `x;y\z=1`, "c": " spaced "}} {
		got, err := device.ParseLabels(device.FormatLabels(labels))
		if err != nil || !reflect.DeepEqual(got, labels) {
			t.Errorf("%v comes back as %v, %v", labels, got, err)
		}
	}
	for _, text := range []string{"a", "=b", "a=b;a=c", `a=b\`, "a b=c"} {
		if got, err := device.ParseLabels(text); err == nil {
			t.Errorf("ParseLabels(%q) = %v", text, got)
		}
	}
}

// FuzzRead: no input makes the readers panic, and what they accept comes back from both forms as it was.
func FuzzRead(f *testing.F) {
	f.Add([]byte("id,group,labels,label:site\na,=g,k=v,\"B, C\"\n"))
	f.Add([]byte("\ufeffid;note\r\n'-a;\"x\"\"y\"\r\n"))
	f.Add([]byte(`{"id":"a","labels":{"k":"v;\\"},"sans":["DNS:a.example"]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var all []device.Entry
		for e, err := range device.ReadLines(strings.NewReader(string(in))) {
			if err == nil {
				all = append(all, e)
			}
		}
		for e, err := range device.ReadCSV(strings.NewReader(string(in))) {
			if err == nil {
				all = append(all, e)
			}
		}
		for _, e := range all {
			line, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			for got, err := range device.ReadLines(strings.NewReader(string(line))) {
				if err != nil || outcome(got, nil) != string(line) {
					t.Errorf("%s comes back as %s", line, outcome(got, err))
				}
			}
			var b strings.Builder
			w := csv.NewWriter(&b)
			_ = w.Write([]string{"id", "group", "owner", "labels", "subject", "sans", "note"})
			_ = w.Write([]string{
				document.Cell(e.ID), document.Cell(e.Group), document.Cell(e.Owner), document.Cell(device.FormatLabels(e.Labels)), document.Cell(e.Subject),
				document.Cell(strings.Join(e.SANs, " ")), document.Cell(e.Note),
			})
			w.Flush()
			for got, err := range device.ReadCSV(strings.NewReader(b.String())) {
				if err != nil || outcome(got, nil) != string(line) {
					t.Errorf("%s comes back from %q as %s", line, b.String(), outcome(got, err))
				}
			}
		}
	})
}

// BenchmarkReadCSV reads an import.
func BenchmarkReadCSV(b *testing.B) {
	var text strings.Builder
	text.WriteString("id,group,label:site,subject\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, "sensor-%05d,hall-3,B,\"CN=sensor-%05d,O=Example\"\n", i, i)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		for _, err := range device.ReadCSV(strings.NewReader(text.String())) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
