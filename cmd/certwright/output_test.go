package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// TestWriteYAMLIsTheSameDocument: what a program reads from YAML is what it reads from JSON, and a terminal obeys none of it.
func TestWriteYAMLIsTheSameDocument(t *testing.T) {
	hostile := rapid.SampledFrom([]string{
		"", "true", "null", "~", "12", "0x10", "1e3", "2026-11-22", "2026-11-22T14:00:00Z", "yes", "- a", "a: b", "#", "a #b", " a", "a ", "'", `"`, `\`, "|", ">", "&a", "*a", "!!int 1", "%a", "@", "`",
		"line\nline", "line\n", "\n", " \n a\n", "a\x1b[2J", "\u009b", "\u202e", "\x7f", "\u200b", "\U000e0041", "<&>é東京", "\r\n", "\t", "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n", "\x00", "\ufeff", "\u2028a", "\u0085",
	})
	text := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(hostile, 1, 3).Draw(t, "parts"), "") })
	rapid.Check(t, func(t *rapid.T) {
		in := struct {
			Name  string            `json:"name"`
			Long  []string          `json:"long"`
			Count int64             `json:"count"`
			Map   map[string]string `json:"map"`
			None  *string           `json:"none"`
			Empty []struct{}        `json:"empty"`
			Whole bool              `json:"whole"`
		}{
			Name: text.Draw(t, "name"), Long: rapid.SliceOfN(text, 0, 3).Draw(t, "long"), Count: rapid.Int64().Draw(t, "count"),
			Map: rapid.MapOf(text, text).Draw(t, "map"), Empty: []struct{}{},
		}
		var b, j strings.Builder
		if err := writeYAML(&b, in); err != nil {
			t.Fatal(err)
		}
		if err := writeJSON(&j, in); err != nil {
			t.Fatal(err)
		}
		for _, r := range b.String() {
			if r != '\n' && !shown(r) {
				t.Fatalf("%U is in the output %q", r, b.String())
			}
		}
		var got, want any
		if err := yaml.Unmarshal([]byte(b.String()), &got); err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		fromJSON := json.NewDecoder(strings.NewReader(j.String()))
		fromJSON.UseNumber()
		if err := fromJSON.Decode(&want); err != nil {
			t.Fatal(err)
		}
		gotJSON, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		wantJSON, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if string(gotJSON) != string(wantJSON) {
			t.Fatalf("got  %s\nwant %s\nfrom\n%s", gotJSON, wantJSON, b.String())
		}
	})
}

// TestOutputsAreOfOneKind: every command that has --output has it from one place, with the same words.
func TestOutputsAreOfOneKind(t *testing.T) {
	everyCommand(func(cmd *cobra.Command) {
		f := cmd.Flags().Lookup("output")
		if f == nil {
			return
		}
		o, ok := f.Value.(*records)
		if !ok || o.allowed[0] != "table" || o.allowed[1] != "json" || f.DefValue != "table" {
			t.Errorf("%s has an --output of its own: %s", cmd.CommandPath(), f.Value.Type())
		}
		words, _ := cmd.GetFlagCompletionFunc("output")
		if words == nil {
			t.Errorf("%s: --output is not completed", cmd.CommandPath())
		}
	})
}
