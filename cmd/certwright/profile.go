package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
)

func newProfileCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "profile",
		GroupID: groupAuthority,
		Short:   "List and show the profiles: what certificates are for",
		Example: "  certwright profile list\n  certwright profile show server",
	}
	conn := connect(env, cmd)
	return group(cmd, newProfileListCommand(env, conn), newProfileShowCommand(env, conn))
}

func newProfileListCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the profiles that the token may use",
		Example: "  certwright profile list",
		Args:    takes(),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		profiles, err := api.Profiles(cmd.Context())
		if err != nil {
			return err
		}
		if output.json() {
			return writeJSON(env.out, struct {
				Profiles []client.Profile `json:"profiles"`
			}{profiles})
		}
		var rows [][]string
		for _, p := range profiles {
			rows = append(rows, []string{p.Name, fmt.Sprint(p.Version), originOf(p), clip(p.Description, 90)})
		}
		return table(env.out, []string{"NAME", "VERSION", "ORIGIN", "DESCRIPTION"}, rows)
	})
	return cmd
}

func newProfileShowCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a profile with its configuration",
		Example: "  certwright profile show server",
		Args:    takes("NAME"),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		p, err := api.Profile(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if output.json() {
			return writeJSON(env.out, p)
		}
		var f fields
		f.add("Name", p.Name)
		f.add("Description", p.Description)
		f.add("Version", fmt.Sprint(p.Version))
		f.add("Origin", originOf(p))
		f.add("Changed", stampFor(p.Changed, env.now())+" by "+p.ChangedBy)
		var indented bytes.Buffer
		if err := json.Indent(&indented, p.Config, "", "  "); err == nil {
			f.add("Configuration", strings.Split(indented.String(), "\n")...)
		}
		return f.write(env.out)
	})
	return cmd
}

func originOf(p client.Profile) string {
	origin := "custom"
	if p.Builtin {
		origin = "built in"
	}
	if p.CA {
		origin += ", for CAs"
	}
	return origin
}
