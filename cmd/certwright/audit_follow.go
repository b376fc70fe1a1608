package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
)

func newAuditFollowCommand(env *environment, conn *connection) *cobra.Command {
	var q client.FollowQuery
	var limit int
	cmd := &cobra.Command{
		Use:   "follow",
		Short: "Show audit events as they happen",
		Long: `Show audit events as they happen, oldest first, until you interrupt it.

It begins now, or with --after behind an event that is known by its number; --after 0 shows the whole trail first. No
event is left out: when the connection is lost it is made anew, and goes on where it was.`,
		Example: `  certwright audit follow
  certwright audit follow --action certificate.revoke
  certwright audit follow --after 0 --output json > audit.jsonl`,
		Args: takes(),
	}
	f := cmd.Flags()
	f.Int64Var(&q.After, "after", client.FromNow, "begin behind the event with this `number`; 0 is the whole trail (default: now)")
	f.Lookup("after").DefValue = "0" // which is not shown: the default is said in words
	f.StringVar(&q.Actor, "actor", "", "by this `actor`, as in token:deploy")
	f.StringVar(&q.Action, "action", "", "of this `kind`, as in certificate.issue; a group ends in a dot, as in certificate.")
	f.StringVar(&q.Target, "target", "", "on this `target`, as in certificate/ID")
	limitFlag(cmd, &limit, 0, "end after this `number`; 0 does not end")
	output := outputsFlag(cmd, "table for people, json for programs: a document in each line, name for the numbers alone", "table", "json", "name")
	follow := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		q.Lost = func(err error) {
			warn(env, "the connection is lost, and will be made anew: %s", err)
		}
		seen := 0
		for e, err := range api.FollowAudit(cmd.Context(), q) {
			if err != nil && cmd.Context().Err() != nil {
				return nil // interrupted, as it is meant to be
			}
			if err != nil {
				return err
			}
			if err := writeEvent(env, e, output); err != nil {
				return err
			}
			if seen++; seen == limit {
				break
			}
		}
		return nil
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case limit < 0:
			return misuse(cmd, "", "--limit cannot be negative")
		case cmd.Flags().Changed("after") && q.After < 0:
			return misuse(cmd, "without --after it begins now", "--after cannot be negative")
		}
		err := follow(cmd, args)
		if e, ok := errors.AsType[*client.Error](err); ok && e.Kind() == "conflict" {
			return failure("another store, or an older state of it, is behind this server: «certwright audit verify» tells its head", "%s", e.Error())
		}
		return err
	}
	return cmd
}

// writeEvent writes one line.
func writeEvent(env *environment, e client.Event, output *records) error {
	switch {
	case output.value == "name":
		return output.write(env.out, e, fmt.Sprint(e.Seq))
	case !output.forPeople():
		var document, line bytes.Buffer
		if err := writeJSON(&document, e); err != nil {
			return err
		}
		if err := json.Compact(&line, document.Bytes()); err != nil {
			return err
		}
		_, err := fmt.Fprintln(env.out, line.String())
		return err
	}
	line := fmt.Sprintf("%d  %s  %-20s  %s", e.Seq, e.Time.UTC().Format("2006-01-02 15:04:05"), e.Action, e.Actor)
	if e.Target != "" {
		line += "  " + e.Target
	}
	if d := detailText(e.Detail); d != "" {
		line += "  " + clip(d, 200)
	}
	_, err := fmt.Fprintln(env.out, visible(line))
	return err
}
