package main

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/server"
	"github.com/certwright/certwright/pkg/transfer"
)

func newAuditCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "audit",
		GroupID: groupAuthority,
		Short:   "Read the audit trail, and check that it is whole",
		Example: "  certwright audit list --action certificate. --since 24h\n  certwright audit verify",
	}
	conn := connect(env, cmd)
	return group(cmd, newAuditListCommand(env, conn), newAuditFollowCommand(env, conn), newAuditVerifyCommand(env, conn))
}

func newAuditListCommand(env *environment, conn *connection) *cobra.Command {
	var q client.AuditQuery
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List audit events, newest first",
		Example: `  certwright audit list
  certwright audit list --action certificate. --since 24h
  certwright audit list --actor token:deploy --limit 0 --output json`,
		Args: takes(),
	}
	f := cmd.Flags()
	f.StringVar(&q.Actor, "actor", "", "by this `actor`, as in token:deploy")
	f.StringVar(&q.Action, "action", "", "of this `kind`, as in certificate.issue; a group ends in a dot, as in certificate.")
	f.StringVar(&q.Target, "target", "", "on this `target`, as in certificate/ID")
	since := instantFlag(env, cmd, "since", "at this moment or later, as in 2026-11-22; 24h is a day ago")
	before := instantFlag(env, cmd, "before", "before this moment")
	limitFlag(cmd, &limit, 50, "show at most this `number`; 0 shows all")
	output := outputFlag(cmd)
	list := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		events := []client.Event{}
		for {
			page, err := api.Audit(cmd.Context(), q)
			if err != nil {
				return err
			}
			events, q.Cursor = append(events, page.Events...), page.Next
			if q.Cursor == "" || limit > 0 && len(events) > limit {
				break
			}
		}
		more := limit > 0 && len(events) > limit
		if more {
			events = events[:limit]
		}
		switch {
		case !output.forPeople():
			err := output.write(env.out, struct {
				Events []client.Event `json:"events"`
			}{events}, namesOf(events, func(e client.Event) string { return fmt.Sprint(e.Seq) })...)
			if err != nil {
				return err
			}
		case len(events) == 0:
			note(env, "no event matches")
		default:
			var rows [][]string
			for _, e := range events {
				rows = append(rows, []string{e.Time.UTC().Format("2006-01-02 15:04:05"), e.Action, e.Actor, clip(e.Target, 40), clip(detailText(e.Detail), 100)})
			}
			if err := table(env.out, []string{"TIME (UTC)", "ACTION", "ACTOR", "TARGET", "DETAIL"}, rows); err != nil {
				return err
			}
		}
		if more {
			note(env, "there are more: --limit 0 shows all")
		}
		return nil
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return misuse(cmd, "", "--limit cannot be negative")
		}
		if q.Limit = maxPage; limit > 0 {
			q.Limit = min(limit+1, maxPage)
		}
		q.From, q.To = since.Time, before.Time
		return list(cmd, args)
	}
	return cmd
}

// telling are the details that say most, in this order; the others follow by name.
var telling = []string{"subject", "sans", "name", "role", "reason", "serial", "profile"}

func detailText(detail map[string]string) string {
	var parts []string
	add := func(key string) {
		if v := detail[key]; v != "" {
			parts = append(parts, key+"="+v)
		}
	}
	for _, key := range telling {
		add(key)
	}
	for _, key := range slices.Sorted(maps.Keys(detail)) {
		if !slices.Contains(telling, key) {
			add(key)
		}
	}
	return strings.Join(parts, " ")
}

func newAuditVerifyCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Have the server check that the audit trail is whole",
		Long: `Have the server walk the whole chain of audit records and tell whether any was changed, dropped or moved. The exit code
is 1 if so.

Note down the checkpoint and name it later with --checkpoint: a chain that was cut off at its end, or made anew, is
whole as well, but does not pass through the checkpoint that you know. The server's log has one for each minute with a
change, as «audit checkpoint».

With --store, on the host, the store itself is read, whether a server runs or not: use it where the server is not to be
believed.`,
		Example: `  certwright audit verify
  certwright audit verify --store
  certwright audit verify --checkpoint 1234:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08`,
		Args: takes(),
	}
	var f settings
	var offline bool
	var heads []string
	cmd.Flags().BoolVar(&offline, "store", false, "read the store on this host, and ask no server")
	cmd.Flags().StringArrayVar(&heads, "checkpoint", nil, "a known head, `CHANGE:HEAD`, that the chain must pass through; may be given several times")
	cmd.Flags().StringVar(&f.database, "database", "", "with --store: Postgres connection string (default: the embedded store in the data folder)")
	cmd.Flags().StringVar(&f.file, "config", "", "with --store: configuration file (default certwright.yaml in the data folder, if it is there)")
	output := outputFlag(cmd)
	ask := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		v, err := api.VerifyAudit(cmd.Context(), heads...)
		if err != nil {
			return err
		}
		return writeVerification(env, v, output)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		checkpoints := make([]transfer.Checkpoint, len(heads))
		for i, text := range heads {
			var err error
			if checkpoints[i], err = transfer.ParseCheckpoint(text); err != nil {
				return misuse(cmd, "«certwright audit verify» prints one, and the server's log has it as «audit checkpoint», with change and head", "--checkpoint: %s", err)
			}
		}
		if !offline {
			if f.database != "" || f.file != "" {
				return misuse(cmd, "--store reads the store on this host", "--database and --config go with --store")
			}
			for i, c := range checkpoints {
				heads[i] = c.String()
			}
			return ask(cmd, args)
		}
		f.data = conn.data
		cfg, err := f.load(env, nil)
		if err != nil {
			return err
		}
		got, err := server.VerifyAudit(cmd.Context(), cfg, checkpoints)
		if err != nil {
			return err
		}
		return writeVerification(env, client.Verification{
			Whole: got.Problem == "", Problem: got.Problem, Changes: got.Changes, Records: got.Records, Head: hex.EncodeToString(got.Head[:]),
		}, output)
	}
	return cmd
}

// writeVerification writes the outcome, which is an error when the chain is not whole.
func writeVerification(env *environment, v client.Verification, output *records) (err error) {
	if !output.forPeople() {
		err = output.write(env.out, v, fmt.Sprintf("%d:%s", v.Changes, v.Head))
	} else {
		var f fields
		whole := "yes"
		if !v.Whole {
			whole = "NO"
		}
		f.add("Whole", whole)
		f.add("Changes", fmt.Sprint(v.Changes))
		f.add("Records", fmt.Sprint(v.Records))
		f.add("Checkpoint", fmt.Sprintf("%d:%s", v.Changes, v.Head))
		err = f.write(env.out)
	}
	if err == nil && !v.Whole {
		return failure("keep the store as it is, and compare it with a backup", "the audit trail is broken: %s", v.Problem)
	}
	return err
}
