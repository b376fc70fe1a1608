package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/profile"
)

// choice is a flag that takes one of some words.
type choice struct {
	value   string
	allowed []string
}

func (c *choice) String() string { return c.value }

// Type names the value in help texts: the words themselves, unless they are many.
func (c *choice) Type() string {
	if len(c.allowed) > 4 {
		return "type"
	}
	return strings.Join(c.allowed, "|")
}

func (c *choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("want %s", strings.Join(c.allowed, " or "))
	}
	c.value = s
	return nil
}

// complete tells shells the words that a flag takes. It fails only for a flag that does not exist.
func complete(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
}

// howMany is a flag that takes a number that is not negative.
type howMany int

func (n *howMany) Type() string { return "number" }

func (n *howMany) String() string { return strconv.Itoa(int(*n)) }

func (n *howMany) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 0 {
		return errors.New("want a number from 0 up")
	}
	*n = howMany(v)
	return nil
}

// limitFlag adds --limit.
func limitFlag(cmd *cobra.Command, limit *int, value int, usage string) {
	*limit = value
	cmd.Flags().Var((*howMany)(limit), "limit", usage)
}

// span is a flag that takes a time such as 90d or 12h.
type span time.Duration

func (s *span) Type() string { return "time" }

func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return profile.Duration(*s).String()
}

func (s *span) Set(text string) error {
	d, err := profile.ParseDuration(text)
	if err != nil || d <= 0 {
		return fmt.Errorf("want a time such as 90d, 12h or 1y")
	}
	*s = span(d)
	return nil
}

// instant is a flag that takes a day, a moment, or a time before now.
type instant struct {
	time.Time
	now func() time.Time
}

func (i *instant) Type() string { return "moment" }

func (i *instant) String() string {
	if i.IsZero() {
		return ""
	}
	return i.Format(time.RFC3339)
}

func (i *instant) Set(text string) error {
	for _, layout := range []string{time.DateOnly, "2006-01-02 15:04", "2006-01-02T15:04", time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			i.Time = t.UTC()
			return nil
		}
	}
	if d, err := profile.ParseDuration(text); err == nil && d > 0 {
		i.Time = i.now().UTC().Add(-time.Duration(d))
		return nil
	}
	return fmt.Errorf(`want a day such as 2026-11-22, a moment in UTC such as "2026-11-22 14:00" or 2026-11-22T14:00:00Z, or a time before now such as 24h or 30d`)
}

// instantFlag adds a flag of that kind.
func instantFlag(env *environment, cmd *cobra.Command, name, usage string) *instant {
	i := &instant{now: env.now}
	cmd.Flags().Var(i, name, usage)
	return i
}

// newOut refuses an --out that exists, before a secret is made that could then not be written. Empty is the standard
// output.
func newOut(out string) error {
	if out == "" {
		return nil
	}
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		return failure("--out takes a file that does not exist", "%s exists already", out)
	}
	return nil
}
