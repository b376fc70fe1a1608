package main

import (
	"cmp"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is what the linker knows about this program.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Date     string `json:"date,omitempty"` // of the commit
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuild() build {
	b := build{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = cmp.Or(info.Main.Version, b.Version)
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Date = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func newVersionCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this program",
		Long:    "Show the version of this program. The server's stands in the answer of GET /api/v1/server.",
		Example: "  certwright version\n  certwright version --output json",
		Args:    takes(),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		b := readBuild()
		if output.json() {
			return writeJSON(env.out, b)
		}
		var f fields
		f.add("Version", b.Version)
		commit := b.Commit
		if commit != "" && b.Modified {
			commit += ", with changes"
		}
		f.add("Commit", commit)
		f.add("Date", b.Date)
		f.add("Go", b.Go+" "+b.Platform)
		return f.write(env.out)
	}
	return cmd
}
