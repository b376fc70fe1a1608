package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

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
		Example: "  certwright request list\n  certwright request show VZ5KXQJ2T3M4A6BC\n  certwright request approve VZ5KXQJ2T3M4A6BC",
	}
	conn := connect(env, cmd)
	return group(cmd, newRequestListCommand(env, conn), newRequestShowCommand(env, conn), newRequestApproveCommand(env, conn), newRequestDenyCommand(env, conn))
}

func newRequestListCommand(env *environment, conn *connection) *cobra.Command {
	var q client.EnrollmentQuery
	var limit int
	state := &choice{value: "pending", allowed: []string{"pending", "expired", "issued", "denied", "all"}}
	cmd := &cobra.Command{
		Use: "list", Short: "List requests that wait, or have waited", Args: takes(),
		Long: `List requests that wait for a person, newest first. SUBJECT and NAMES are what is asked for, DEVICE whom a
challenge, a signature or the names say that it is. Compare KEY with what the device shows of its own: the first octets
of the SHA-256 digest of its public key.`,
		Example: "  certwright request list\n  certwright request list --state expired --point phones\n  certwright request list --state all --output json",
	}
	f := cmd.Flags()
	f.Var(state, "state", "only those in this `state`: pending, expired, issued, denied or all")
	complete(cmd, "state", state.allowed...)
	f.StringVar(&q.Point, "point", "", "only those of the enrollment point with this `name`")
	f.StringVar(&q.Device, "device", "", "only those of the device with this `id`")
	limitFlag(cmd, &limit, 50, "show at most this `number`; 0 shows all")
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
				rows = append(rows, []string{e.ID, e.State, e.Point, clip(e.Subject, 40), clip(strings.Join(e.SANs, " "), 40), clip(e.Device, 40), e.Source, e.SPKISHA256[:min(16, len(e.SPKISHA256))], stamp(e.CreatedAt), e.Reason})
			}
			err = table(env.out, []string{"ID", "STATE", "POINT", "SUBJECT", "NAMES", "DEVICE", "FROM", "KEY", "ASKED (UTC)", "REASON"}, rows)
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

func newRequestShowCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show a request that waits, or has waited: all that is asked for, and why it waits", Args: takes("ID"),
		Example: "  certwright request show VZ5KXQJ2T3M4A6BC",
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		e, err := api.Enrollment(cmd.Context(), args[0])
		switch {
		case err != nil:
			return err
		case !output.forPeople():
			return output.write(env.out, e, e.ID)
		}
		var f fields
		f.add("Request", e.ID)
		f.add("State", e.State)
		f.add("Reason", e.Reason)
		f.add("Decided by", e.DecidedBy)
		f.add("Certificate", e.Certificate)
		f.add("Point", e.Point)
		f.add("Profile", e.Profile)
		f.add("Subject", e.Subject)
		f.add("Names", e.SANs...)
		f.add("Device", e.Device)
		f.add("Key, SHA-256", e.SPKISHA256)
		f.add("Challenge", e.Challenge)
		f.add("Renews", e.Replaces)
		f.add("From", e.Source)
		f.add("Transaction", e.TransactionID)
		f.add("Asked", stampFor(e.CreatedAt, env.now()))
		if e.State == "pending" {
			f.add("Waits until", stampFor(e.ExpiresAt, env.now()))
		} else {
			f.add("Changed", stampFor(e.UpdatedAt, env.now()))
		}
		return f.write(env.out)
	})
	return cmd
}

func newRequestApproveCommand(env *environment, conn *connection) *cobra.Command {
	d := decision{env: env, approve: true}
	cmd := &cobra.Command{
		Use: "approve [ID]...", Short: "Approve requests that wait: their certificates are issued", Args: takes("[ID]..."),
		Example: "  certwright request approve VZ5KXQJ2T3M4A6BC\n  certwright request approve --all --point phones",
	}
	d.flags(cmd, conn)
	return cmd
}

func newRequestDenyCommand(env *environment, conn *connection) *cobra.Command {
	d := decision{env: env}
	cmd := &cobra.Command{
		Use: "deny [ID]...", Short: "Deny requests that wait", Args: takes("[ID]..."),
		Example: "  certwright request deny VZ5KXQJ2T3M4A6BC --reason \"not one of ours\"\n  certwright request deny --all --point phones --yes",
	}
	cmd.Flags().StringVar(&d.reason, "reason", "", "a `text` for the device")
	d.flags(cmd, conn)
	return cmd
}

// decision decides on requests that wait: some, or all of a point.
type decision struct {
	env      *environment
	approve  bool // else deny
	reason   string
	all, yes bool
	point    string
}

// decisionsAtOnce is how many requests are decided by one call: few enough for their lines to show that something happens.
const decisionsAtOnce = 100

// tell says what was decided.
func (d *decision) tell(e client.Enrollment) {
	text := fmt.Sprintf("request %s is denied", e.ID)
	if d.approve {
		text = fmt.Sprintf("request %s is approved: certificate %s", e.ID, e.Certificate)
	}
	fmt.Fprintln(d.env.out, visible(text))
}

// one decides on one request.
func (d *decision) one(ctx context.Context, api *client.Client, id string) (err error) {
	var e client.Enrollment
	if d.approve {
		e, err = api.ApproveEnrollment(ctx, id)
	} else {
		e, err = api.DenyEnrollment(ctx, id, d.reason)
	}
	if err == nil {
		d.tell(e)
	}
	return err
}

// many decides on several, each by itself, and returns how many could not be decided.
func (d *decision) many(ctx context.Context, api *client.Client, ids []string) (failed int, err error) {
	for some := range slices.Chunk(ids, decisionsAtOnce) {
		results, err := api.DecideEnrollments(ctx, d.approve, d.reason, some...)
		if err != nil {
			return failed, err
		}
		for _, r := range results {
			if r.Enrollment != nil {
				d.tell(*r.Enrollment)
				continue
			}
			failed++
			if r.Problem != nil {
				report(d.env.err, fmt.Errorf("request %s: %s", visible(r.ID), r.Problem.Error()))
			}
		}
	}
	return failed, nil
}

// flags adds the flags to a command, and has it decide.
func (d *decision) flags(cmd *cobra.Command, conn *connection) {
	f := cmd.Flags()
	f.BoolVar(&d.all, "all", false, "all that wait now")
	f.StringVar(&d.point, "point", "", "with --all: of the enrollment point with this `name` alone")
	f.BoolVarP(&d.yes, "yes", "y", false, "do not ask, with --all")
	run := conn.call(func(cmd *cobra.Command, api *client.Client, ids []string) error {
		if d.all {
			list, _, err := pages(0, func(n int, cursor string) ([]client.Enrollment, string, error) {
				return api.Enrollments(cmd.Context(), client.EnrollmentQuery{Point: d.point, State: "pending", Limit: n, Cursor: cursor})
			})
			if err == nil && len(list) == 0 && d.point != "" {
				_, err = api.EnrollmentPoint(cmd.Context(), d.point) // a slip in its name is no empty list
			}
			if err != nil {
				return err
			}
			for _, e := range list {
				if e.State == "pending" { // and has not ended meanwhile
					ids = append(ids, e.ID)
				}
			}
			if len(ids) > 0 && !d.yes && interactive(d.env.in) {
				ok, err := confirm(cmd.Context(), d.env, fmt.Sprintf("%d requests wait. %s all of them?", len(ids), map[bool]string{true: "Approve", false: "Deny"}[d.approve]))
				if err != nil {
					return err
				}
				if !ok {
					return failure("", "not confirmed, nothing was changed")
				}
			}
		}
		switch len(ids) {
		case 0:
			fmt.Fprintln(d.env.out, "nothing waits")
			return nil
		case 1:
			return d.one(cmd.Context(), api, ids[0])
		}
		failed, err := d.many(cmd.Context(), api, ids)
		if err == nil && failed > 0 {
			err = failure("", "%d of %d requests were not decided", failed, len(ids))
		}
		return err
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0 && !d.all:
			return misuse(cmd, "", "ID... is missing, or --all")
		case len(args) > 0 && d.all:
			return misuse(cmd, "", "ids and --all exclude each other")
		case d.point != "" && !d.all:
			return misuse(cmd, "", "--point goes with --all")
		}
		return run(cmd, args)
	}
}
