package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/server"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/transfer"
)

func newStoreCopyCommand(env *environment) *cobra.Command {
	var f settings
	var from, to string
	cmd := &cobra.Command{
		Use: "copy --to STORE", Short: "Copy the store into another, SQLite or Postgres",
		Long: `Copy everything that the store holds into another one: from SQLite to Postgres, back, or between databases. A STORE is
a data folder or a Postgres connection string. The target must be empty; its schema is made.

The source is fenced first: from then on nothing is written to it, and no server starts on it, so that there are never
two live stores with one CA. With the embedded store stop the server first; replicas on Postgres refuse whatever would
write, and should be stopped when the copy has begun. Every row is then copied and compared, the audit chain is walked
in the copy, and only then can the copy be served.

Broken off at any point, the same command goes on where it was. «store unfence» gives the copy up.

On Postgres both sides need the role that owns the tables. Give passwords in PGPASSWORD or ~/.pgpass, since others on
this machine can see command lines.`,
		Example: `  certwright store copy --to postgres://owner@db.example.com/certwright
  certwright store copy --from postgres://owner@db.example.com/certwright --to /var/lib/certwright-new`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return misuse(cmd, "it is a data folder or a postgres:// address", "--to is missing")
			}
			source, err := f.load(env, nil)
			if err != nil {
				return err
			}
			target, err := server.AtStore(source, to)
			if err != nil {
				return err
			}
			if from != "" {
				if source, err = server.AtStore(source, from); err != nil {
					return err
				}
			}
			progress := newMeter(env)
			defer progress.end()
			result, err := server.CopyStore(cmd.Context(), source, target, func(s transfer.Step) {
				what := s.Phase
				if s.Table != "audit_batch" || s.Phase != "verifying the audit chain" {
					what += " table " + s.Table
				}
				progress.show(what, s.Done, s.Total)
			})
			progress.end()
			if err != nil {
				return err
			}
			if result.Finished {
				fmt.Fprintf(env.out, "The copy in %s was finished before.\n", visible(server.StoreName(target)))
			} else {
				fmt.Fprintf(env.out, "Copied %s to %s: %d certificates, %d audit records.\nEvery row was compared, and the audit chain is whole.\n",
					visible(server.StoreName(source)), visible(server.StoreName(target)), result.Rows["certificate"], result.Rows["audit_record"])
			}
			flag := "--data " + quote(target.Data)
			if target.Database != "" {
				flag = "--database " + quote(server.StoreName(target))
			}
			fmt.Fprintf(env.out, `
The copy is in use from now on; the source will not be served again. The private keys in the copy are sealed under the
same key-encryption key: give it to the copy's server as the source's server had it, then start that:
  certwright serve %s
`, visible(flag))
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&from, "from", "", "the `store` to be copied (default: the one that the settings name)")
	cmd.Flags().StringVar(&to, "to", "", "the empty `store` to be filled (required)")
	return cmd
}

func newStoreUnfenceCommand(env *environment) *cobra.Command {
	var f settings
	var yes, force bool
	cmd := &cobra.Command{
		Use: "unfence", Short: "Give a copy up, and put its source back into use",
		Long: `Give a copy up that «store copy» has begun, and put its source back into use. What was copied so far is worthless from
then on, and is thrown away by the next copy into the same target. The audit trail says that it was done.

A source whose copy was finished stays fenced without --force: if that copy is in use, or ever was, there would be two
live stores of one CA, which contradict each other on serial numbers, revocations and CRL numbers.`,
		Example: "  certwright store unfence\n  certwright store unfence --database postgres://owner@db.example.com/certwright --yes",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.load(env, nil)
			if err != nil {
				return err
			}
			st, err := server.StoreState(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if st.Use == store.Fenced || st.Use == store.Left && force {
				question := fmt.Sprintf("Give the copy to %s up and put %s back into use?", st.Peer, server.StoreName(cfg))
				if st.Use == store.Left {
					question = fmt.Sprintf("The copy to %s was finished. Is it certain that it was never served, and never will be?", st.Peer)
				}
				switch {
				case yes:
				case !interactive(env.in):
					return misuse(cmd, "in a script, say so with --yes", "%s", strings.TrimSpace(question))
				default:
					if ok, err := confirm(cmd.Context(), env, question); err != nil {
						return err
					} else if !ok {
						return failure("", "not confirmed, nothing was changed")
					}
				}
			}
			if err := server.UnfenceStore(cmd.Context(), cfg, force); err != nil {
				return err
			}
			fmt.Fprintf(env.out, "%s is in use again.\n", visible(server.StoreName(cfg)))
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&force, "force", false, "also when the copy was finished, and was never served")
	return cmd
}

func newStoreGrantCommand(env *environment) *cobra.Command {
	var f settings
	var role string
	var print bool
	cmd := &cobra.Command{
		Use: "grant --role NAME", Short: "Give a Postgres role what servers need, and no more",
		Long: `Give a Postgres role what servers need, and take from it what they do not, so that whoever takes a server over can add
to the audit trail, and neither change nor delete it. Connect as the role that owns the tables; the servers' role must
exist. Set «migrate: false» for the servers. «store migrate» gives the role what later releases need.`,
		Example: `  certwright store grant --database postgres://owner@db.example.com/certwright --role certwright_server
  certwright store grant --database postgres://owner@db.example.com/certwright --role certwright_server --print`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if role == "" {
				return misuse(cmd, "", "--role is missing")
			}
			cfg, err := f.load(env, nil)
			if err != nil {
				return err
			}
			statements, err := server.GrantStore(cmd.Context(), cfg, role, print)
			if err != nil {
				return err
			}
			if print {
				for _, s := range statements {
					fmt.Fprintln(env.out, s+";")
				}
				return nil
			}
			fmt.Fprintf(env.out, "The role %s has what servers need in %s: %d statements.\n", visible(role), visible(server.StoreName(cfg)), len(statements))
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&role, "role", "", "`name` of the servers' role (required)")
	cmd.Flags().BoolVar(&print, "print", false, "print the statements and execute none")
	return cmd
}
