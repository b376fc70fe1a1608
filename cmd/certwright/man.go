package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newManCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "man FOLDER",
		GroupID: groupHere,
		Short:   "Write manual pages of all commands",
		Long: `Write manual pages of all commands into a folder, which is made if it does not exist: certwright.1,
certwright-cert-issue.1 and so on. They hold no date: the same version always writes the same pages.`,
		Example: "  certwright man /usr/local/share/man/man1\n  certwright man pages && man pages/certwright-cert-issue.1",
		Args:    takes("FOLDER"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return err
		}
		root := cmd.Root()
		root.InitDefaultCompletionCmd()
		n := 0
		var walk func(*cobra.Command) error
		walk = func(c *cobra.Command) error {
			if c.Hidden || c.Name() == "help" {
				return nil
			}
			if err := writePublic(filepath.Join(args[0], pageName(c)+".1"), manPage(c), true); err != nil {
				return err
			}
			n++
			for _, child := range c.Commands() {
				if err := walk(child); err != nil {
					return err
				}
			}
			return nil
		}
		if err := walk(root); err != nil {
			return err
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d pages are in %s\n", n, visible(args[0]))
		return err
	}
	return cmd
}

// pageName is what a command's page is called.
func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// roff writes text as man(7) takes it: a backslash and a hyphen would be read as something else, and a line that begins with
// a dot or an apostrophe as a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

// manPage returns the page of a command, in the macros of man(7).
func manPage(c *cobra.Command) []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(`.TH "%s" "1" "" "certwright" "Certwright"`, strings.ToUpper(pageName(c)))
	p(".nh\n.ad l") // names of files and flags are not to be broken
	p(".SH NAME\n%s \\- %s", roff(pageName(c)), roff(c.Short))
	p(".SH SYNOPSIS")
	line := c.UseLine()
	if c.HasSubCommands() {
		line = c.CommandPath() + " COMMAND [flags]"
	}
	p(".B %s", roff(line))
	p(".SH DESCRIPTION")
	for i, paragraph := range strings.Split(strings.TrimSpace(cmp.Or(c.Long, c.Short+".")), "\n\n") {
		if i > 0 {
			p(".PP")
		}
		if strings.Contains("\n"+paragraph, "\n  ") { // laid out by hand
			p(".nf\n%s\n.fi", roff(paragraph))
		} else {
			p("%s", roff(paragraph))
		}
	}
	if c.HasAvailableSubCommands() {
		p(".SH COMMANDS")
		for _, child := range c.Commands() {
			if child.IsAvailableCommand() && child.Name() != "help" {
				p(".TP\n.BR %s (1)\n%s", roff(pageName(child)), roff(child.Short))
			}
		}
	}
	flags(p, "OPTIONS", c.NonInheritedFlags())
	flags(p, "OPTIONS OF THE COMMANDS ABOVE", c.InheritedFlags())
	if c.Example != "" {
		p(".SH EXAMPLES\n.nf\n%s\n.fi", roff(c.Example))
	}
	if !c.HasParent() {
		p(".SH EXIT STATUS\n.TP\n0\nit worked\n.TP\n1\nit did not\n.TP\n2\nthe command line is wrong")
	}
	if c.HasParent() {
		p(".SH SEE ALSO\n.BR %s (1)", roff(pageName(c.Parent())))
	}
	return b.Bytes()
}

// flags writes a section of flags, if there are any.
func flags(p func(string, ...any), heading string, set *pflag.FlagSet) {
	first := true
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		if first {
			p(".SH %s", heading)
			first = false
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + value
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" {
			usage += " (default " + f.DefValue + ")"
		}
		p(".TP\n.B %s\n%s", roff(name), roff(usage))
	})
}
