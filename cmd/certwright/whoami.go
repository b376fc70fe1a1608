package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
)

// holder is what a token stands for.
type holder struct {
	Name     string   `json:"name"`
	Role     string   `json:"role"`
	Issuers  []string `json:"issuers,omitempty"`
	Profiles []string `json:"profiles,omitempty"`
}

func newWhoAmICommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "whoami",
		GroupID: groupServer,
		Short:   "Show who the token says you are, and which server answers",
		Example: "  certwright whoami\n  certwright whoami --token-file deploy.token",
		Args:    takes(),
	}
	conn := connect(env, cmd)
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		text, err := api.File(cmd.Context(), "whoami")
		if err != nil {
			return err
		}
		var h holder
		if err := json.Unmarshal(text, &h); err != nil {
			return fmt.Errorf("reading the server's answer: %w", err)
		}
		if output.json() {
			return writeJSON(env.out, h)
		}
		server, err := api.Server(cmd.Context())
		if err != nil {
			return err
		}
		limits := func(names []string) string {
			if len(names) == 0 {
				return "all"
			}
			return strings.Join(names, ", ")
		}
		var f fields
		f.add("Name", h.Name)
		f.add("Role", h.Role)
		f.add("Issuers", limits(h.Issuers))
		f.add("Profiles", limits(h.Profiles))
		f.add("Server", "Certwright "+server.Version+" with "+server.Store+", started "+stampFor(server.Started, env.now()))
		f.add("Published at", server.PublicURL)
		return f.write(env.out)
	})
	return cmd
}
