package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// meter tells how far long work is, on the error output: a bar on a terminal, else a line now and then.
type meter struct {
	w     io.Writer
	bar   bool
	now   func() time.Time
	last  time.Time
	what  string
	drawn bool
}

// How often a bar is drawn, and a line written.
const (
	barEvery  = 100 * time.Millisecond
	lineEvery = 5 * time.Second
)

func newMeter(env *environment) *meter {
	f, ok := env.err.(*os.File)
	return &meter{w: env.err, bar: ok && term.IsTerminal(int(f.Fd())), now: env.now}
}

// show says that done of total are through.
func (m *meter) show(what string, done, total int64) {
	now := m.now()
	every := lineEvery
	if m.bar {
		every = barEvery
	}
	same := what == m.what
	if same && done < total && now.Sub(m.last) < every {
		return
	}
	if !same && !m.bar && done == 0 && total > 0 { // the first line of something says more when it is through, or takes long
		m.what, m.last = what, now
		return
	}
	m.what, m.last = what, now
	if total == 0 {
		return
	}
	percent := done * 100 / total
	if !m.bar {
		fmt.Fprintf(m.w, "%s: %d of %d (%d%%)\n", visible(what), done, total, percent)
		return
	}
	const width = 30
	filled := int(done * width / total)
	fmt.Fprintf(m.w, "\r\x1b[K[%s%s] %3d%%  %s: %d of %d", strings.Repeat("#", filled), strings.Repeat(" ", width-filled), percent, visible(what), done, total)
	m.drawn = true
}

// end leaves the line of the bar.
func (m *meter) end() {
	if m.drawn {
		fmt.Fprint(m.w, "\r\x1b[K")
		m.drawn = false
	}
}
