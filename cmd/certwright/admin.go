package main

import (
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/server"
)

func newAdminCommand(env *environment) *cobra.Command {
	return group(&cobra.Command{
		Use: "admin", GroupID: groupServer, Short: "Help yourself on the host",
		Long:    "Commands for whoever is in charge of the host and locked out of the server.",
		Example: "  certwright admin rescue",
	}, newAdminRescueCommand(env))
}

func newAdminRescueCommand(env *environment) *cobra.Command {
	var f settings
	var name, out string
	var life span
	cmd := &cobra.Command{
		Use: "rescue", Short: "Make an administrator's token when all are lost",
		Long: `Make a new administrator's token when all are lost, and write it to a new file of mode 0600. It ends in a day: make
lasting ones with it. The audit trail says that it was made on the host.

With the embedded store stop the server first. Servers on Postgres learn of the token within a second.`,
		Example: "  certwright admin rescue\n  certwright admin rescue --out /root/rescue.token --validity 1h",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.load(env, nil)
			if err != nil {
				return err
			}
			if out == "" {
				out = filepath.Join(cfg.Data, "rescue.token")
			}
			t, err := server.RescueAdmin(cmd.Context(), cfg, name, time.Duration(life), out)
			if err != nil {
				return err
			}
			var rows fields
			rows.add("File", out)
			rows.add("Name", t.Name)
			rows.add("Role", t.Role.String())
			rows.add("Ends", stampFor(t.ExpiresAt, env.now()))
			if err := rows.write(env.out); err != nil {
				return err
			}
			note(env, "use it with --token-file %s, make lasting tokens, revoke it and remove the file", out)
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "new `file` for the token (default rescue.token in the data folder)")
	cmd.Flags().StringVar(&name, "name", "", "`name` of the token (default rescue- and some digits)")
	cmd.Flags().Var(&life, "validity", "how long it lives, as in 1h (default 24h)")
	return cmd
}
