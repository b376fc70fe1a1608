package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
)

func newRequestCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "request",
		GroupID: groupDevices,
		Short:   "List, approve and deny devices' requests that wait for a person",
		Long: `List, approve and deny devices' requests that wait for a person. They wait where an enrollment point wants approval
(«certwright point set --approval»), or where its policy does not decide by itself. Devices poll for the answer.`,
		Example: "  certwright request list\n  certwright request approve VZ5KXQJ2T3M4A6BC",
	}
	conn := connect(env, cmd)
	return group(cmd, newRequestListCommand(env, conn), newRequestApproveCommand(env, conn), newRequestDenyCommand(env, conn))
}

func newRequestListCommand(env *environment, conn *connection) *cobra.Command {
	var q client.EnrollmentQuery
	var limit int
	state := &choice{value: "pending", allowed: []string{"pending", "issued", "denied", "all"}}
	cmd := &cobra.Command{
		Use: "list", Short: "List requests that wait, or have waited", Args: takes(),
		Long: `List requests that wait for a person, newest first. Compare KEY with what the device shows of its own: the first
octets of the SHA-256 digest of its public key.`,
		Example: "  certwright request list\n  certwright request list --state all --output json",
	}
	f := cmd.Flags()
	f.Var(state, "state", "only those in this state")
	complete(cmd, "state", state.allowed...)
	f.StringVar(&q.Point, "point", "", "only those of the enrollment point with this `name`")
	f.IntVar(&limit, "limit", 50, "show at most this `many`; 0 shows all")
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		if q.State = state.value; q.State == "all" {
			q.State = ""
		}
		list, more, err := pages(limit, func(n int, cursor string) ([]client.Enrollment, string, error) {
			q.Limit, q.Cursor = n, cursor
			return api.Enrollments(cmd.Context(), q)
		})
		if err != nil {
			return err
		}
		if output.forPeople() {
			var rows [][]string
			for _, e := range list {
				rows = append(rows, []string{e.ID, e.State, e.Point, e.Subject, e.Source, e.SPKISHA256[:min(16, len(e.SPKISHA256))], stamp(e.CreatedAt), e.Reason})
			}
			err = table(env.out, []string{"ID", "STATE", "POINT", "SUBJECT", "FROM", "KEY", "ASKED (UTC)", "REASON"}, rows)
		} else {
			err = output.write(env.out, struct {
				Enrollments []client.Enrollment `json:"enrollments"`
			}{list}, namesOf(list, func(e client.Enrollment) string { return e.ID })...)
		}
		if err == nil && more {
			note(env, "there are more: --limit 0 shows all")
		}
		return err
	})
	return cmd
}

func newRequestApproveCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "approve ID...", Short: "Approve requests that wait: their certificates are issued", Args: takes("ID..."),
		Example: "  certwright request approve VZ5KXQJ2T3M4A6BC",
	}
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		for _, id := range args {
			e, err := api.ApproveEnrollment(cmd.Context(), id)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.out, "request %s is approved: certificate %s\n", visible(e.ID), visible(e.Certificate))
		}
		return nil
	})
	return cmd
}

func newRequestDenyCommand(env *environment, conn *connection) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "deny ID...", Short: "Deny requests that wait", Args: takes("ID..."),
		Example: `  certwright request deny VZ5KXQJ2T3M4A6BC --reason "not one of ours"`,
	}
	cmd.Flags().StringVar(&reason, "reason", "", "a `text` for the device")
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		for _, id := range args {
			e, err := api.DenyEnrollment(cmd.Context(), id, reason)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.out, "request %s is denied\n", visible(e.ID))
		}
		return nil
	})
	return cmd
}
