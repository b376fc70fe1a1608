package main

import (
	"strings"
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	draw := func(bar bool) string {
		var out strings.Builder
		m := &meter{w: &out, bar: bar, now: func() time.Time { return now }}
		for done := int64(0); done <= 100; done++ {
			m.show("copying\x1b", done, 100)
			now = now.Add(70 * time.Millisecond)
		}
		m.show("nothing", 0, 0)
		m.end()
		return out.String()
	}
	lines := draw(false)
	if want := "copying⟨U+001B⟩: 72 of 100 (72%)\ncopying⟨U+001B⟩: 100 of 100 (100%)\n"; lines != want {
		t.Errorf("lines are %q, want %q", lines, want)
	}
	bar := draw(true)
	if n := strings.Count(bar, "\r"); n < 40 || n > 60 || strings.Contains(bar, "\n") || !strings.Contains(bar, "[##############################] 100%") || !strings.HasSuffix(bar, "\r\x1b[K") {
		t.Errorf("the bar is drawn %d times: %q", n, bar)
	}
}
