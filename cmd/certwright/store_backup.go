package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/server"
	"github.com/certwright/certwright/pkg/transfer"
)

func newStoreBackupCommand(env *environment) *cobra.Command {
	var f settings
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Back the embedded store up, while the server runs",
		Long: `Write the embedded store, as it is at this moment, into a new file of mode 0600. The server may run. The file is looked
through before it gets its name: its pages, and the whole audit chain.

The key-encryption key is not in it, and must be kept elsewhere: without it the private keys in the backup are lost, and
with it whoever has the backup has the CA.

To restore: stop the server, put the file into an empty data folder as certwright.db, give the server its key, and run
«certwright store restore-finish» before anything else. A store on Postgres is backed up with Postgres' own tools;
docs/operations.md has the commands.`,
		Example: "  certwright store backup /backup/certwright-2026-11-22.db\n  certwright store backup --data /var/lib/certwright /backup/ca.db",
		Args:    takes("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := f.load(env, nil)
			if err != nil {
				return err
			}
			progress := newMeter(env)
			defer progress.end()
			err = server.BackupStore(cmd.Context(), cfg, args[0], func(done, total int) { progress.show("copying pages", int64(done), int64(total)) })
			progress.end()
			if err != nil {
				return err
			}
			size := ""
			if info, err := os.Stat(args[0]); err == nil {
				size = fmt.Sprintf(" (%.1f MiB)", float64(info.Size())/(1<<20))
			}
			fmt.Fprintf(env.out, "The store is in %s%s. Its pages are sound, and its audit chain is whole.\n", visible(args[0]), size)
			note(env, "the key-encryption key is not in it: keep that elsewhere")
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func newStoreRestoreFinishCommand(env *environment) *cobra.Command {
	var f settings
	var o server.RestoreOptions
	var checkpoint string
	cmd := &cobra.Command{
		Use: "restore-finish --crl FILE|URL", Short: "Bring back what a restored backup has forgotten",
		Long: `Bring back what a restored backup has forgotten and the world has not. Run it on the restored store before any server
has it.

Give the last CRL of every issuer that was published, as a file or an address; a relying server's copy or a cache will
do. Of a sharded issuer that is the full one, and if its shards were changed since the backup, any one of the new shards
as well. Each is checked against the issuers' certificates. What is revoked or on hold on it is so in the store again,
with reason and dates. Certificates that the store does not know are recorded by their serial numbers alone: they are
listed under the profile «unknown», answered for, on every CRL that they may name, and can be revoked or released. CRL
numbers go on behind the highest.

The audit trail says where it was broken off. With --checkpoint, the last «audit checkpoint» of the collected log, it
says how much was lost, and a store of another history is refused.

What no CRL knows does not come back. Certificates that were issued since the backup and are good are unknown: OCSP does
not answer for them. Tokens, profiles and settings are those of the backup, and tokens that were revoked since are
valid again, unless --revoke-tokens ends them all; a new administrator's token is then written to --token-file.`,
		Example: `  certwright store restore-finish --crl issuing.crl --crl root.crl
  certwright store restore-finish --crl http://pki.example.com/crl/0123456789abcdef.crl --revoke-tokens
  certwright store restore-finish --crl issuing.crl --checkpoint "$(cat last-checkpoint)"`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if checkpoint != "" {
				c, err := transfer.ParseCheckpoint(checkpoint)
				if err != nil {
					return misuse(cmd, "the log has it as «audit checkpoint», with change and head", "--checkpoint: %s", err)
				}
				o.Checkpoint = &c
			}
			cfg, err := f.load(env, nil)
			if err != nil {
				return err
			}
			if o.TokenFile == "" {
				o.TokenFile = filepath.Join(cfg.Data, "rescue.token")
			}
			r, err := server.FinishRestore(cmd.Context(), cfg, o)
			if err != nil {
				return err
			}
			switch {
			case r.Again:
				fmt.Fprintln(env.out, "The break with this checkpoint was noted before.")
			case r.Lost > 0:
				fmt.Fprintf(env.out, "The backup ended with change %d. %d changes are lost.\n", r.Before.Change, r.Lost)
			default:
				fmt.Fprintf(env.out, "The backup ended with change %d.\n", r.Before.Change)
			}
			for _, l := range r.Lists {
				fmt.Fprintf(env.out, "%s: CRL %d of issuer %s, %d entries: %d revoked or on hold again, %d known by number alone, %d as they were.\n",
					visible(l.Name), l.Number, visible(l.Issuer), l.Entries, l.Revoked, l.Stubs, l.Unchanged)
			}
			if o.RevokeTokens {
				fmt.Fprintf(env.out, "%d tokens are revoked. A new administrator's token, for a day: %s\n", r.Tokens, visible(o.TokenFile))
			}
			for _, n := range r.Notes {
				warn(env, "%s", n)
			}
			if !o.RevokeTokens {
				note(env, "tokens are those of the backup: what was revoked since is valid again; --revoke-tokens ends all")
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&o.CRLs, "crl", nil, "a last published CRL, `file` or URL, DER or PEM; may be given several times")
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "last known head of the audit chain, `CHANGE:HEAD`")
	cmd.Flags().BoolVar(&o.RevokeTokens, "revoke-tokens", false, "revoke every API token, after a new administrator's was made")
	cmd.Flags().StringVar(&o.TokenFile, "token-file", "", "new `file` for that token (default rescue.token in the data folder)")
	return cmd
}
