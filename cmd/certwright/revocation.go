package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/pki"
)

// watchEvery is how often a campaign is looked at.
const watchEvery = 500 * time.Millisecond

func newRevocationCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "revocation",
		GroupID: groupCertificates,
		Short:   "Revoke many certificates at once, and see how far that is",
		Long: `Revoke many certificates at once, and see how far that is.

A campaign runs in the server, also when nobody watches it, and goes on by itself after a crash. One certificate is
revoked with «cert revoke»; all certificates of a stolen key with «key block».`,
		Example: `  certwright revocation start --profile device --issued-since 2d --reason superseded
  certwright revocation list`,
	}
	conn := connect(env, cmd)
	return group(cmd,
		newRevocationStartCommand(env, conn), newRevocationListCommand(env, conn), newRevocationShowCommand(env, conn), newRevocationWatchCommand(env, conn),
		newRevocationSetCommand(env, conn, "pause", "Pause a campaign", "Pause a campaign. «revocation resume» has it go on where it was.", (*client.Client).PauseRevocation),
		newRevocationSetCommand(env, conn, "resume", "Have a paused campaign go on", "Have a paused campaign go on where it was.", (*client.Client).ResumeRevocation),
		newRevocationSetCommand(env, conn, "cancel", "End a campaign for good",
			"End a campaign for good. Certificates that it has revoked stay revoked: a revocation cannot be taken back.", (*client.Client).CancelRevocation),
	)
}

// begun are the flags of commands that begin a campaign.
type begun struct {
	env         *environment
	request     client.RevocationRequest
	since       *instant
	dry, detach bool
	expect      int64 // -1: somebody confirms
	output      *records
}

func beginFlags(env *environment, cmd *cobra.Command, reason string) *begun {
	b := &begun{env: env}
	f := cmd.Flags()
	f.StringVar(&b.request.Reason, "reason", reason, "`why` (RFC 5280, Section 5.3.1)")
	complete(cmd, "reason", pki.ReasonNames()...)
	b.since = instantFlag(env, cmd, "invalidity-date", "since when they are thought not to be trustworthy, as in 2026-11-20")
	f.BoolVar(&b.dry, "dry-run", false, "count and show them, and change nothing")
	f.Int64Var(&b.expect, "expect", -1, "do not ask: begin if it is this `number` that would be revoked, and else fail")
	f.Lookup("expect").DefValue = "0" // which is not shown: -1 is no number for people
	f.BoolVar(&b.detach, "detach", false, "do not wait for the end")
	b.output = outputFlag(cmd)
	return b
}

// check reads the flags.
func (b *begun) check(cmd *cobra.Command) error {
	reason, err := pki.ParseReason(b.request.Reason)
	if err != nil {
		return misuse(cmd, "", "--reason: %s", err)
	}
	if b.request.Reason = reason.String(); !b.since.IsZero() {
		b.request.InvalidityDate = &b.since.Time
	}
	if cmd.Flags().Changed("expect") && b.expect < 0 {
		return misuse(cmd, "", "--expect cannot be negative")
	}
	if b.dry && (b.detach || b.expect >= 0) {
		return misuse(cmd, "", "--dry-run changes nothing: leave --expect and --detach out")
	}
	return nil
}

// run makes the dry run, has it confirmed, begins, and watches.
func (b *begun) run(ctx context.Context, api *client.Client, plan func() (client.RevocationPlan, error), begin func(confirm string) (client.RevocationCampaign, error)) error {
	p, err := plan()
	if err != nil {
		return err
	}
	if b.dry {
		if b.output.forPeople() {
			return writePlan(b.env, b.env.out, p, b.request.Reason)
		}
		return b.output.write(b.env.out, p, namesOf(p.Sample, func(c client.Certificate) string { return c.ID })...)
	}
	if err := b.confirm(ctx, p); err != nil {
		return err
	}
	c, err := begin(p.Confirm)
	if err != nil {
		return err
	}
	if !b.detach {
		if c, err = watchRevocation(ctx, b.env, api, c); err != nil {
			return err
		}
	}
	return writeRevocation(b.env, c, b.output)
}

// confirm has somebody type how many are revoked, or compares with what a script expects.
func (b *begun) confirm(ctx context.Context, p client.RevocationPlan) error {
	switch {
	case b.expect >= 0 && b.expect != p.Count:
		return failure("look with --dry-run, and say --expect "+strconv.FormatInt(p.Count, 10)+" if that is right",
			"%d certificates match and not %d: nothing was changed", p.Count, b.expect)
	case b.expect >= 0:
		return nil
	case !interactive(b.env.in):
		return failure("look with --dry-run, and then say --expect "+strconv.FormatInt(p.Count, 10), "nobody is here to confirm that %d certificates are revoked", p.Count)
	}
	if err := writePlan(b.env, b.env.err, p, b.request.Reason); err != nil {
		return err
	}
	if p.Administrator {
		return failure("", "so many take an administrator's token: nothing was changed")
	}
	fmt.Fprintf(b.env.err, "Type the number of certificates to revoke them for good [%d]: ", p.Count)
	typed, err := typedLine(ctx, b.env)
	if err != nil {
		return err
	}
	if typed != strconv.FormatInt(p.Count, 10) {
		return failure("", "not confirmed, nothing was changed")
	}
	return nil
}

func writePlan(env *environment, w io.Writer, p client.RevocationPlan, reason string) error {
	var f fields
	f.add("Certificates", strconv.FormatInt(p.Count, 10))
	if p.Revoked > 0 {
		f.add("Revoked already", strconv.FormatInt(p.Revoked, 10)+", which get the reason as well")
	}
	f.add("Reason", reason)
	if p.Administrator {
		f.add("Takes", "an administrator")
	}
	if err := f.write(w); err != nil || len(p.Sample) == 0 {
		return err
	}
	newest := "All of them:"
	if int64(len(p.Sample)) < p.Count {
		newest = "The newest of them:"
	}
	fmt.Fprintf(w, "\n%s\n", newest)
	sample := *env
	sample.out = w
	return writeCertificates(&sample, p.Sample)
}

// watchRevocation shows how far a campaign is until it has ended or rests.
func watchRevocation(ctx context.Context, env *environment, api *client.Client, c client.RevocationCampaign) (client.RevocationCampaign, error) {
	m := newMeter(env)
	defer m.end()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		if total := max(c.Expected, c.Revoked+c.Skipped); c.State != "done" || !first {
			m.show("revoked", min(c.Revoked+c.Skipped, total), total)
		}
		if c.State != "running" {
			return c, nil
		}
		select {
		case <-ctx.Done():
			m.end()
			note(env, "the campaign goes on in the server: «certwright revocation watch %s» shows how far it is, «certwright revocation pause %s» has it rest", c.ID, c.ID)
			return c, ctx.Err()
		case <-tick.C:
		}
		next, err := api.Revocation(ctx, c.ID)
		switch {
		case ctx.Err() != nil: // told above
		case err != nil:
			return c, &hintError{err: err, hint: "the campaign goes on in the server: «certwright revocation watch " + c.ID + "» shows how far it is"}
		default:
			c = next
		}
	}
}

func newRevocationStartCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "start [TEXT]",
		Short: "Revoke all certificates that a query finds",
		Long: `Revoke all certificates that a query finds, for good. The query is that of «cert list», and needs a condition; without
--status it finds what is valid or on hold.

First the server counts, and shows the newest. On a terminal the number has to be typed; a script names it with
--expect. What is issued after that is not revoked. Then a campaign begins in the server, and this command shows how
far it is: an interrupt ends the command and not the campaign. Certificates of the CA itself are never among them.

More than 1000 certificates take an administrator's token. A revocation cannot be taken back.`,
		Example: `  certwright revocation start --profile device --issued-since 2d --dry-run
  certwright revocation start --profile device --issued-since 2d --reason superseded --expect 1204
  certwright revocation start plant-7.example.com --reason cessationOfOperation`,
		Args: takes("[TEXT]"),
	}
	s := selectionFlags(env, cmd)
	b := beginFlags(env, cmd, "unspecified")
	start := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		ctx := cmd.Context()
		return b.run(ctx, api,
			func() (client.RevocationPlan, error) { return api.PlanRevocation(ctx, b.request) },
			func(confirm string) (client.RevocationCampaign, error) {
				return api.BeginRevocation(ctx, b.request, confirm)
			})
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q, err := s.query(cmd, args)
		if err != nil {
			return err
		}
		b.request.Query = q
		if err := b.check(cmd); err != nil {
			return err
		}
		return start(cmd, args)
	}
	return cmd
}

func newRevocationListCommand(env *environment, conn *connection) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List campaigns, newest first",
		Example: "  certwright revocation list",
		Args:    takes(),
	}
	limitFlag(cmd, &limit, 50, "show at most this `number`, up to 1000")
	output := outputFlag(cmd)
	list := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		all, err := api.Revocations(cmd.Context(), limit)
		if err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, struct {
				Revocations []client.RevocationCampaign `json:"revocations"`
			}{all}, namesOf(all, func(c client.RevocationCampaign) string { return c.ID })...)
		}
		if len(all) == 0 {
			note(env, "there is no campaign")
			return nil
		}
		var rows [][]string
		for _, c := range all {
			rows = append(rows, []string{c.ID, c.State, fmt.Sprintf("%d of %d", c.Revoked+c.Skipped, max(c.Expected, c.Revoked+c.Skipped)), c.Reason, stamp(c.CreatedAt), c.CreatedBy, clip(queryText(c), 60)})
		}
		return table(env.out, []string{"ID", "STATE", "THROUGH", "REASON", "BEGUN (UTC)", "BY", "WHAT"}, rows)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 || limit > 1000 {
			return misuse(cmd, "", "--limit is 1 to 1000")
		}
		return list(cmd, args)
	}
	return cmd
}

func newRevocationShowCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a campaign",
		Example: "  certwright revocation show 6xjo4l73tk7k",
		Args:    takes("ID"),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		c, err := api.Revocation(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return writeRevocation(env, c, output)
	})
	return cmd
}

func newRevocationWatchCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "watch ID",
		Short:   "Show how far a campaign is, until it has ended or rests",
		Example: "  certwright revocation watch 6xjo4l73tk7k",
		Args:    takes("ID"),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		c, err := api.Revocation(cmd.Context(), args[0])
		if err == nil {
			c, err = watchRevocation(cmd.Context(), env, api, c)
		}
		if err != nil {
			return err
		}
		return writeRevocation(env, c, output)
	})
	return cmd
}

func newRevocationSetCommand(env *environment, conn *connection, name, short, long string, set func(*client.Client, context.Context, string) (client.RevocationCampaign, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:     name + " ID",
		Short:   short,
		Long:    long,
		Example: "  certwright revocation " + name + " 6xjo4l73tk7k",
		Args:    takes("ID"),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		c, err := set(api, cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return writeRevocation(env, c, output)
	})
	return cmd
}

// queryText says what a campaign revokes.
func queryText(c client.RevocationCampaign) string {
	if c.SPKISHA256 != "" {
		return "key " + c.SPKISHA256
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(c.Query)) {
		parts = append(parts, fmt.Sprintf("%s %v", strings.ReplaceAll(name, "_", " "), c.Query[name]))
	}
	return strings.Join(parts, ", ")
}

func writeRevocation(env *environment, c client.RevocationCampaign, output *records) error {
	if !output.forPeople() {
		return output.write(env.out, c, c.ID)
	}
	var f fields
	f.add("Campaign", c.ID)
	f.add("State", c.State)
	f.add("Revokes", queryText(c))
	f.add("Reason", c.Reason)
	if c.InvalidityDate != nil {
		f.add("Not to be trusted since", stamp(*c.InvalidityDate)+" UTC")
	}
	f.add("Revoked", fmt.Sprintf("%d of %d", c.Revoked, max(c.Expected, c.Revoked+c.Skipped)))
	if c.Skipped > 0 {
		f.add("Skipped", strconv.FormatInt(c.Skipped, 10)+", revoked before their turn came")
	}
	f.add("Begun", stampFor(c.CreatedAt, env.now())+" by "+cmp.Or(c.CreatedBy, "-"))
	if c.EndedAt != nil {
		f.add("Ended", stampFor(*c.EndedAt, env.now()))
	}
	return f.write(env.out)
}
