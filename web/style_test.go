package web_test

import (
	"encoding/hex"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func hexOf(sum [32]byte) string { return hex.EncodeToString(sum[:]) }

// schemes reads the custom properties of the light and the dark scheme out of the style sheet.
func schemes(t *testing.T, css string) map[string]map[string]string {
	t.Helper()
	roots := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(css, 2)
	if len(roots) != 2 {
		t.Fatal("style sheet lacks a :root for each scheme")
	}
	m := map[string]map[string]string{}
	for i, name := range []string{"light", "dark"} {
		m[name] = map[string]string{}
		for _, p := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(roots[i][1], -1) {
			m[name][p[1]] = p[2]
		}
	}
	return m
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(t *testing.T, colour string) float64 {
	n, err := strconv.ParseUint(strings.TrimPrefix(colour, "#"), 16, 24)
	if err != nil {
		t.Fatalf("colour %q: %v", colour, err)
	}
	var l float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		c := float64(n>>(16-8*i)&0xff) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		l += weight * c
	}
	return l
}

// TestContrast holds every pair of colours that the page puts together to WCAG AA, 4.5 to 1, in both schemes.
func TestContrast(t *testing.T) {
	css, err := os.ReadFile("static/style.css")
	if err != nil {
		t.Fatal(err)
	}
	pairs := [][2]string{
		{"text", "page"},
		{"text", "panel"},
		{"text", "sunk"},
		{"text", "warn-back"},
		{"quiet", "page"},
		{"quiet", "panel"},
		{"quiet", "sunk"},
		{"quiet", "warn-back"},
		{"accent", "page"},
		{"accent", "panel"},
		{"accent", "warn-back"},
		{"ok", "ok-back"},
		{"warn", "warn-back"},
		{"bad", "bad-back"},
		{"warn", "panel"},
		{"bad", "panel"},
	}
	for name, colours := range schemes(t, string(css)) {
		for _, p := range pairs {
			a, b := luminance(t, colours[p[0]]), luminance(t, colours[p[1]])
			if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < 4.5 {
				t.Errorf("%s: %s on %s has contrast %.2f, want 4.5", name, p[0], p[1], ratio)
			}
		}
	}
}

func TestStyleSheet(t *testing.T) {
	b, err := os.ReadFile("static/style.css")
	if err != nil {
		t.Fatal(err)
	}
	css := string(b)
	for _, want := range []string{"color-scheme: light dark", "@media (prefers-color-scheme: dark)", "@media print", ":focus-visible"} {
		if !strings.Contains(css, want) {
			t.Errorf("style sheet lacks %q", want)
		}
	}
	for _, bad := range []string{"url(", "@import", "!important", "expression("} {
		if strings.Contains(css, bad) {
			t.Errorf("style sheet holds %q", bad)
		}
	}
	if open, closed := strings.Count(css, "{"), strings.Count(css, "}"); open != closed {
		t.Errorf("style sheet has %d { and %d }", open, closed)
	}
}
