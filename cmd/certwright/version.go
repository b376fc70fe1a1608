package main

import (
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
	b := build{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = versionOf(info)
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

// versionOf is the module's version, else the commit that the program was built from, else "unknown".
func versionOf(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	commit, changes := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			if s.Value == "true" {
				changes = "+changes"
			}
		}
	}
	if commit == "" {
		return "unknown"
	}
	return commit + changes
}

func newVersionCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		GroupID: groupHere,
		Short:   "Show the version of this program",
		Long:    "Show the version of this program. The server's stands in the answer of GET /api/v1/server.",
		Example: "  certwright version\n  certwright version --output json",
		Args:    takes(),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		b := readBuild()
		if !output.forPeople() {
			return output.write(env.out, b, b.Version)
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
