package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/keys"
)

func newChallengeCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "challenge",
		GroupID: groupDevices,
		Short:   "Make, list and revoke one-time challenges, with which devices enroll",
		Example: `  certwright challenge new --subject CN=sensor-17 --device sensor-17
  certwright challenge import devices.csv --out challenges.csv
  certwright challenge list --open`,
	}
	conn := connect(env, cmd)
	return group(cmd, newChallengeNewCommand(env, conn), newChallengeImportCommand(env, conn), newChallengeListCommand(env, conn), newChallengeRevokeCommand(env, conn))
}

func newChallengeNewCommand(env *environment, conn *connection) *cobra.Command {
	var r client.CreateChallengeRequest
	var out string
	var count int
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make a one-time challenge, whose text is shown once",
		Long: `Make a one-time challenge: whoever has its text can have one certificate by SCEP. The text is printed alone on the
standard output, once: it cannot be had again.

With --subject or --san the certificate gets exactly these names, and a request for others is refused. Without them the
device can have every name that the profile allows. A challenge lives a day unless --validity says otherwise.

With --count so many are made for devices that are not known yet, and written to a CSV file; see «certwright challenge
import» for many devices that are.`,
		Example: `  certwright challenge new --subject CN=sensor-17 --san DNS:sensor-17.example.com --device sensor-17
  certwright challenge new --count 500 --point phones --validity 30d --out challenges.csv
  certwright challenge new --validity 7d --note "spare part for hall 3" --out challenge.txt
  pki --scep --password "$(certwright challenge new)" --url http://pki.example.com/scep/default ...`,
		Args: takes(),
	}
	f := cmd.Flags()
	f.StringVar(&r.Point, "point", "", "the enrollment point with this `name` (default «default»)")
	f.StringVar(&r.Subject, "subject", "", "allow this `subject` alone, as in CN=sensor-17,O=Example")
	f.StringArrayVar(&r.SANs, "san", nil, "give the certificate this `name`, as in DNS:sensor-17.example.com; may be given several times")
	f.StringVar(&r.Device, "device", "", "record this `name` of the device with the certificate")
	f.StringVar(&r.Profile, "profile", "", "issue by the profile with this `name` instead of the point's")
	f.StringVar(&r.Note, "note", "", "a `text` for people")
	f.StringVar(&r.Validity, "validity", "", "how long it can be used, a `time` as in 7d (default 24h)")
	f.StringVar(&out, "out", "", "write the challenge to this new `file`, mode 0600, instead of printing it")
	f.IntVar(&count, "count", 0, "make this `number` of them, and write them to --out as CSV")
	output := outputFlag(cmd)
	create := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		c, err := api.CreateChallenge(cmd.Context(), r)
		if err != nil {
			return err
		}
		secret := c.Challenge
		if out != "" {
			if err := keys.WriteFile(out, []byte(secret+"\n"), false); err != nil {
				return &hintError{
					err:  fmt.Errorf("the challenge was made, but not written: %w", err),
					hint: "nobody has its text now: «certwright challenge revoke " + c.ID + "», and make another",
				}
			}
			c.Challenge = ""
		}
		switch {
		case !output.forPeople():
			return output.write(env.out, c, c.ID)
		case out == "":
			fmt.Fprintln(env.out, visible(secret))
		}
		var f fields
		f.add("File", out)
		f.add("Point", c.Point)
		f.add("Profile", c.Profile)
		f.add("Subject", c.Subject)
		f.add("Names", c.SANs...)
		f.add("Device", c.Device)
		f.add("Ends", stampFor(c.ExpiresAt, env.now()))
		f.add("Id", c.ID)
		return f.write(env.err)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if r.Validity != "" {
			if err := new(span).Set(r.Validity); err != nil {
				return misuse(cmd, "", "--validity: %s", err)
			}
		}
		if f.Changed("count") {
			switch {
			case count < 1 || count > maxImport:
				return misuse(cmd, "", "--count: 1 to %d", maxImport)
			case out == "":
				return misuse(cmd, "", "--count goes with --out, the file that they are written to")
			case r.Device != "" || r.Subject != "" || len(r.SANs) > 0:
				return misuse(cmd, "«certwright challenge import» makes one for each device of a file", "--count is for challenges that name no device")
			}
			return conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
				point := r.Point
				r.Point = ""
				return (&challengeJob{env: env, api: api, point: point, out: out, wishes: slices.Repeat([]client.CreateChallengeRequest{r}, count)}).run(cmd.Context())
			})(cmd, args)
		}
		if err := newOut(out); err != nil {
			return err
		}
		return create(cmd, args)
	}
	return cmd
}

func newChallengeListCommand(env *environment, conn *connection) *cobra.Command {
	var q client.ChallengeQuery
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List one-time challenges, newest first",
		Example: "  certwright challenge list --open\n  certwright challenge list --device sensor-17 --output json",
		Args:    takes(),
	}
	f := cmd.Flags()
	f.BoolVar(&q.Open, "open", false, "only those that can be used")
	f.StringVar(&q.Point, "point", "", "only those of the enrollment point with this `name`")
	f.StringVar(&q.Device, "device", "", "only those of the device with this `name`")
	f.StringVar(&q.Batch, "batch", "", "only those of the batch with this `name`")
	limitFlag(cmd, &limit, 50, "show at most this `number`; 0 shows all")
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		list, more, err := pages(limit, func(n int, cursor string) ([]client.Challenge, string, error) {
			q.Limit, q.Cursor = n, cursor
			return api.Challenges(cmd.Context(), q)
		})
		if err != nil {
			return err
		}
		if output.forPeople() {
			var rows [][]string
			for _, c := range list {
				rows = append(rows, []string{c.ID, c.Status, c.Point, c.Subject, c.Device, stamp(c.ExpiresAt), fmt.Sprint(c.Failures), c.Note})
			}
			err = table(env.out, []string{"ID", "STATUS", "POINT", "SUBJECT", "DEVICE", "ENDS (UTC)", "FAILED", "NOTE"}, rows)
		} else {
			err = output.write(env.out, struct {
				Challenges []client.Challenge `json:"challenges"`
			}{list}, namesOf(list, func(c client.Challenge) string { return c.ID })...)
		}
		if err == nil && more {
			note(env, "there are more: --limit 0 shows all")
		}
		return err
	})
	return cmd
}

// pages collects up to limit items of a list that comes in pages, or all for 0, and tells whether there are more.
func pages[T any](limit int, page func(n int, cursor string) ([]T, string, error)) (all []T, more bool, err error) {
	all = []T{}
	for cursor := ""; ; {
		n := maxPage
		if limit > 0 {
			n = min(n, limit-len(all))
		}
		list, next, err := page(n, cursor)
		if err != nil {
			return nil, false, err
		}
		all = append(all, list...)
		if next == "" || limit > 0 && len(all) >= limit {
			return all, next != "", nil
		}
		cursor = next
	}
}

func newChallengeRevokeCommand(env *environment, conn *connection) *cobra.Command {
	var some client.ChallengeSelection
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke [ID]...",
		Short: "Revoke one-time challenges that were not used",
		Long: `Revoke one-time challenges that were not used: some by their ids, or all of a batch, a device or an enrollment point.
Of the last three all that are given must match.`,
		Example: `  certwright challenge revoke K7Q2M4XAZ3
  certwright challenge revoke --batch HALL-3
  certwright challenge revoke --point phones --yes`,
		Args: takes("[ID]..."),
	}
	f := cmd.Flags()
	f.StringVar(&some.Batch, "batch", "", "all of the batch with this `name`")
	f.StringVar(&some.Device, "device", "", "all of the device with this `name`")
	f.StringVar(&some.Point, "point", "", "all of the enrollment point with this `name`")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	revoke := conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		if len(args) == 0 {
			if !yes && interactive(env.in) {
				ok, err := confirm(cmd.Context(), env, "Revoke every open challenge of "+some.String()+"?")
				if err != nil {
					return err
				}
				if !ok {
					return failure("", "not confirmed, nothing was changed")
				}
			}
			n, err := api.RevokeChallenges(cmd.Context(), some)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.out, "%d challenges are revoked\n", n)
			return nil
		}
		for _, text := range args {
			id, _, _ := strings.Cut(text, "-") // the text of a challenge names it as well
			if err := api.RevokeChallenge(cmd.Context(), id); err != nil {
				return err
			}
			fmt.Fprintf(env.out, "challenge %s is revoked\n", visible(id))
		}
		return nil
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch selected := some != (client.ChallengeSelection{}); {
		case len(args) == 0 && !selected:
			return misuse(cmd, "", "ID is missing, or one of --batch, --device and --point")
		case len(args) > 0 && selected:
			return misuse(cmd, "", "ids and --batch, --device, --point exclude each other")
		}
		return revoke(cmd, args)
	}
	return cmd
}
