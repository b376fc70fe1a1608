package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestVisible(t *testing.T) {
	tests := []struct {
		name, in, want string
	}{
		{"plain", "CN=www.example.com, O=Bücher & Söhne 東京", "CN=www.example.com, O=Bücher & Söhne 東京"},
		{"escape sequence", "a\x1b[2Jb", "a⟨U+001B⟩[2Jb"},
		{"C1 control sequence introducer", "a\u009b2Jb", "a⟨U+009B⟩2Jb"},
		{"line feed and return", "CN=a\r\nerror: b", "CN=a⟨U+000D⟩⟨U+000A⟩error: b"},
		{"tab", "a\tb", "a⟨U+0009⟩b"},
		{"bidirectional override", "\u202emoc.elpmaxe\u202c", "⟨U+202E⟩moc.elpmaxe⟨U+202C⟩"},
		{"isolate", "\u2066x\u2069", "⟨U+2066⟩x⟨U+2069⟩"},
		{"zero width", "exam\u200bple\ufeff", "exam⟨U+200B⟩ple⟨U+FEFF⟩"},
		{"no-break space", "a\u00a0b", "a⟨U+00A0⟩b"},
		{"Hangul filler", "a\u3164b", "a⟨U+3164⟩b"},
		{"variation selector", "a\ufe0fb", "a⟨U+FE0F⟩b"},
		{"tag character", "a\U000e0041", "a⟨U+E0041⟩"},
		{"not UTF-8", "a\xff\xc3b", "a⟨xFF⟩⟨xC3⟩b"},
		{"delete", "a\x7f", "a⟨U+007F⟩"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := visible(tt.in); got != tt.want {
				t.Errorf("visible(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestWriteJSONShowsWhatItWrites(t *testing.T) {
	const hostile = "a\x1b[2J\u009b\u202e\x7f\u200b\U000e0041<&>é"
	var b strings.Builder
	if err := writeJSON(&b, map[string]string{"subject": hostile}); err != nil {
		t.Fatal(err)
	}
	for _, r := range b.String() {
		if r != '\n' && !shown(r) {
			t.Errorf("the document %q holds %U", b.String(), r)
		}
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil {
		t.Fatalf("reading %q: %v", b.String(), err)
	}
	if back["subject"] != hostile {
		t.Errorf("reading it back: got %q, want %q", back["subject"], hostile)
	}
	if !strings.Contains(b.String(), "<&>é") {
		t.Errorf("got %q: it escapes what shows", b.String())
	}
}
