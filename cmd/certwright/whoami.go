package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
)

func newWhoAmICommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "whoami",
		GroupID: groupHere,
		Short:   "Show who the token says you are, and which server answers",
		Example: "  certwright whoami\n  certwright whoami --token-file deploy.token",
		Args:    takes(),
	}
	conn := connect(env, cmd)
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		h, err := api.WhoAmI(cmd.Context())
		if err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, h, h.Name)
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
		f.add("Names", strings.Join(h.Names, ", "))
		if h.Rate > 0 {
			f.add("Rate", perMinute(h.Rate))
		}
		f.add("Server", "Certwright "+server.Version+" with "+server.Store+", started "+stampFor(server.Started, env.now()))
		if t, err := conn.target(false); err == nil {
			f.add("Address", t.server)
			f.add("Login", t.context)
		}
		f.add("Published at", server.PublicURL)
		return f.write(env.out)
	})
	return cmd
}
