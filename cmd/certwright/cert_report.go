package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/certwright/certwright/pkg/client"
)

func newCertReportCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "report [TEXT]",
		Short: "Write all certificates that match as CSV or JSON lines, however many",
		Long: `Write all certificates that match, newest first, as CSV for spreadsheets or as JSON lines for programs. There may be any
number: they are passed on as they come.

TEXT is a part of the subject or of an alternative name, in any letter case. All filters have to match.

With -o the file appears when it is complete: a report that breaks off leaves none. In CSV a cell that a spreadsheet
could take for a formula has an apostrophe before it.`,
		Example: `  certwright cert report -o certificates.csv
  certwright cert report example.com --status valid --expires-in 30d > soon.csv
  certwright cert report --profile server --format jsonl -o servers.jsonl`,
		Args: takes("[TEXT]"),
	}
	s := selectionFlags(env, cmd)
	r := reportFlags(cmd)
	var q client.CertificateQuery
	write := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		return r.write(env, func(format string, w io.Writer) error { return api.Export(cmd.Context(), format, q, w) })
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if q, err = s.query(cmd, args); err != nil {
			return err
		}
		return write(cmd, args)
	}
	return cmd
}

// reportTarget is where a list goes that may be long, and in which form.
type reportTarget struct {
	format *choice
	out    string
	force  bool
}

func reportFlags(cmd *cobra.Command) *reportTarget {
	r := &reportTarget{format: &choice{value: "csv", allowed: []string{"csv", "jsonl"}}}
	f := cmd.Flags()
	f.Var(r.format, "format", "csv for spreadsheets, jsonl for programs: a JSON document in each line")
	complete(cmd, "format", r.format.allowed...)
	f.StringVarP(&r.out, "out", "o", "", "write this `file` (default: the standard output)")
	f.BoolVar(&r.force, "force", false, "overwrite a file that exists")
	return r
}

// write writes what fetch passes on.
func (r *reportTarget) write(env *environment, fetch func(format string, w io.Writer) error) error {
	count := &lineCounter{env: env, bar: newMeter(env).bar, began: env.now()}
	defer count.end()
	if r.out == "" || r.out == "-" {
		count.w = env.out
		if f, ok := env.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			count.w, count.bar, count.silent = visibleLines{env.out}, false, true // the lines themselves are the progress
		}
		return fetch(r.format.value, count)
	}
	lines, err := writeReport(r.out, r.force, count, func() error { return fetch(r.format.value, count) })
	if err != nil {
		return err
	}
	count.end()
	var all fields
	all.add("Report", r.out)
	all.add("Lines", fmt.Sprint(lines))
	return all.write(env.out)
}

// writeReport writes a file that appears when it is complete, and returns how many lines it has.
func writeReport(path string, force bool, count *lineCounter, write func() error) (lines int64, err error) {
	if _, err := os.Lstat(path); !force && !errors.Is(err, fs.ErrNotExist) {
		return 0, exists(path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return 0, err
	}
	count.w = f
	if err = write(); err == nil {
		err = f.Chmod(0o644)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		if force {
			err = os.Rename(f.Name(), path)
		} else if err = os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) { // made by somebody meanwhile
			err = exists(path)
		}
	}
	if err != nil || !force {
		_ = os.Remove(f.Name())
	}
	return count.lines, err
}

// lineCounter passes text on and tells on the error output how many lines have come, when it takes long.
type lineCounter struct {
	env         *environment
	w           io.Writer
	bar, silent bool
	began, last time.Time
	lines       int64
	drawn       bool
}

func (c *lineCounter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.lines += int64(bytes.Count(p[:n], []byte("\n")))
	every := lineEvery
	if c.bar {
		every = barEvery
	}
	now := c.env.now()
	if c.silent || now.Sub(c.began) < 2*time.Second || now.Sub(c.last) < every {
		return n, err
	}
	c.last = now
	if c.bar {
		fmt.Fprintf(c.env.err, "\r\x1b[K%d lines", c.lines)
		c.drawn = true
	} else {
		fmt.Fprintf(c.env.err, "%d lines so far\n", c.lines)
	}
	return n, err
}

// end leaves the line of the counter.
func (c *lineCounter) end() {
	if c.drawn {
		fmt.Fprint(c.env.err, "\r\x1b[K")
		c.drawn = false
	}
}

// visibleLines writes text to a terminal, which obeys none of it.
type visibleLines struct{ w io.Writer }

func (v visibleLines) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		text, ended := strings.CutSuffix(string(line), "\n")
		if text = visible(text); ended {
			text += "\n"
		}
		if _, err := io.WriteString(v.w, text); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
