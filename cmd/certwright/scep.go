package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/enrollment"
)

func newSCEPCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "scep",
		GroupID: groupDevices,
		Short:   "Look at and change where devices enroll, and decide on requests that wait",
		Long: `Devices enroll and renew by SCEP (RFC 8894) at an enrollment point: an address such as http://HOST/scep/default.

Nothing is open by default. A device needs a one-time challenge («certwright challenge new»), or the static challenge of
the point, which is off until it is set.`,
		Example: "  certwright scep show\n  certwright scep set --static-challenge-file challenge.txt\n  certwright scep requests",
	}
	conn := connect(env, cmd)
	return group(cmd, newSCEPListCommand(env, conn), newSCEPShowCommand(env, conn), newSCEPSetCommand(env, conn),
		newSCEPRequestsCommand(env, conn), newSCEPApproveCommand(env, conn), newSCEPDenyCommand(env, conn), newSCEPRotateCommand(env, conn))
}

func newSCEPListCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the enrollment points", Example: "  certwright scep list", Args: takes()}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		list, err := api.EnrollmentPoints(cmd.Context())
		if err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, struct {
				Points []client.EnrollmentPoint `json:"points"`
			}{list}, namesOf(list, func(p client.EnrollmentPoint) string { return p.Name })...)
		}
		var rows [][]string
		for _, p := range list {
			rows = append(rows, []string{p.Name, p.Issuer, p.Profile, onOff(p.StaticChallenge), p.URL})
		}
		return table(env.out, []string{"NAME", "ISSUER", "PROFILE", "STATIC CHALLENGE", "ADDRESS"}, rows)
	})
	return cmd
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// pointName is the point that a command is for.
func pointName(args []string) string {
	if len(args) == 0 {
		return enrollment.DefaultPoint
	}
	return args[0]
}

func newSCEPShowCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show [POINT]", Short: "Show an enrollment point with its settings", Args: takes("[POINT]"),
		Example: "  certwright scep show\n  certwright scep show --output json",
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		p, err := api.EnrollmentPoint(cmd.Context(), pointName(args))
		if err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, p, p.Name)
		}
		return writePoint(env, p)
	})
	return cmd
}

func writePoint(env *environment, p client.EnrollmentPoint) error {
	var f fields
	f.add("Point", p.Name)
	f.add("Address", p.URL)
	f.add("Issuer", p.Issuer)
	f.add("Profile", p.Profile)
	f.add("Static challenge", onOff(p.StaticChallenge))
	if p.RA != nil {
		f.add("RA certificate", "ends "+stampFor(p.RA.NotAfter, env.now()))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Settings)) {
		if slices.Contains([]string{"name", "issuer", "profile"}, name) {
			continue
		}
		text, err := json.Marshal(p.Settings[name])
		if err != nil {
			return err
		}
		f.add("Setting "+name, strings.Trim(string(text), `"`))
	}
	f.add("Version", fmt.Sprintf("%d, of %s by %s", p.Version, stamp(p.ChangedAt), p.ChangedBy))
	return f.write(env.out)
}

func newSCEPSetCommand(env *environment, conn *connection) *cobra.Command {
	var file, issuer, profile, description, pendingLife, retryWindow string
	var noStatic, approval, disabled bool
	var percent int
	var legacy []string
	form := &choice{allowed: []string{enrollment.Chain, enrollment.ChainWithRoot, enrollment.Single}}
	cmd := &cobra.Command{
		Use:   "set [POINT]",
		Short: "Change the settings of an enrollment point",
		Long: `Change the settings of an enrollment point; what no flag names stays as it is. A point that does not exist is made.

The static challenge is read from a file and never shown again. Everybody who has it can have every name that the
profile allows: prefer one-time challenges.

Legacy switches let in what is refused otherwise, for old devices, until the end of a day:
  des           messages encrypted with single DES, against RFC 8894
  md5           messages signed with MD5, against RFC 8894
  sha1CSR       requests whose own signature is made with SHA-1
  sha1Renewal   renewals that only a signature with SHA-1 authorises
  issuerKey     the issuer's own RSA key decrypts and signs messages, for clients that know no RA
  sharedKeys    several devices have certificates for one key`,
		Example: `  certwright scep set --static-challenge-file challenge.txt
  certwright scep set --no-static-challenge
  certwright scep set --approval
  certwright scep set --legacy des=2027-03-31
  certwright scep set --legacy des=off`,
		Args: takes("[POINT]"),
	}
	f := cmd.Flags()
	f.StringVar(&file, "static-challenge-file", "", "set the static challenge to the first line of this `file`; - reads the standard input")
	f.BoolVar(&noStatic, "no-static-challenge", false, "take the static challenge away")
	f.BoolVar(&approval, "approval", false, "have each enrollment wait for a person; renewals go on by themselves")
	f.BoolVar(&disabled, "disabled", false, "refuse every request")
	f.StringVar(&issuer, "issuer", "", "the issuer with this `name` signs")
	f.StringVar(&profile, "profile", "", "the profile with this `name` says what certificates hold")
	f.StringVar(&description, "description", "", "a `text` for people")
	f.Var(form, "ca-certificates", "what GetCACert answers")
	f.IntVar(&percent, "renewal-percent", 0, "certificates are renewed in the last so many `hundredths` of their life (default 50)")
	f.StringVar(&pendingLife, "pending-life", "", "how long a request waits for a person, a `time` (default 7d)")
	f.StringVar(&retryWindow, "retry-window", "", "how long the same request gets the same certificate, a `time` (default 1d)")
	f.StringArrayVar(&legacy, "legacy", nil, "turn a legacy `switch` on until a day, as in des=2027-03-31, or off, as in des=off")
	output := outputFlag(cmd)
	set := conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		name := pointName(args)
		r := client.PutPointRequest{Settings: map[string]any{"name": name}}
		p, err := api.EnrollmentPoint(cmd.Context(), name)
		switch {
		case err == nil:
			r.Version, r.Settings = p.Version, p.Settings
		case !absent(err):
			return err
		}
		change := func(flag, setting string, value any) {
			if !cmd.Flags().Changed(flag) {
				return
			}
			if value == "" || value == false || value == 0 {
				delete(r.Settings, setting)
			} else {
				r.Settings[setting] = value
			}
		}
		change("approval", "approval", approval)
		change("disabled", "disabled", disabled)
		change("issuer", "issuer", issuer)
		change("profile", "profile", profile)
		change("description", "description", description)
		change("ca-certificates", "caCertificates", form.value)
		if cmd.Flags().Changed("renewal-percent") {
			if percent == 0 {
				setField(r.Settings, "renewal.percent", nil)
			} else {
				setField(r.Settings, "renewal.percent", percent)
			}
		}
		change("pending-life", "pendingLife", pendingLife)
		change("retry-window", "retryWindow", retryWindow)
		if err := setLegacy(r.Settings, legacy); err != nil {
			return err
		}
		if noStatic {
			r.StaticChallenge = new("")
		} else if file != "" {
			text, err := readInput(env, file)
			if err != nil {
				return err
			}
			line, _, _ := strings.Cut(string(text), "\n")
			line = strings.TrimSuffix(line, "\r")
			if line == "" {
				return failure("to take the challenge away, use --no-static-challenge", "the first line of %s is empty", file)
			}
			r.StaticChallenge = &line
		}
		if p, err = api.PutEnrollmentPoint(cmd.Context(), name, r); err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, p, p.Name)
		}
		if len(legacy) > 0 && p.Settings["legacy"] != nil {
			warn(env, "legacy switches are holes with an end date: each use is logged and counted")
		}
		return writePoint(env, p)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file != "" && noStatic {
			return misuse(cmd, "", "--static-challenge-file and --no-static-challenge contradict each other")
		}
		for name, text := range map[string]string{"pending-life": pendingLife, "retry-window": retryWindow} {
			if text != "" {
				if err := new(span).Set(text); err != nil {
					return misuse(cmd, "", "--%s: %s", name, err)
				}
			}
		}
		return set(cmd, args)
	}
	return cmd
}

// absent reports whether the server says that there is no such thing.
func absent(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Status == http.StatusNotFound
}

// setLegacy changes switches in a settings document.
func setLegacy(settings map[string]any, changes []string) error {
	if len(changes) == 0 {
		return nil
	}
	switches, ok := settings["legacy"].(map[string]any)
	if !ok {
		switches = map[string]any{}
	}
	for _, c := range changes {
		name, day, found := strings.Cut(c, "=")
		if !found || !slices.Contains(enrollment.Switches(), enrollment.Switch(name)) {
			return failure("write it as in --legacy des=2027-03-31 or --legacy des=off", "--legacy %s is none of the switches with a day", c)
		}
		if day == "off" {
			delete(switches, name)
			continue
		}
		if _, err := time.Parse(time.DateOnly, day); err != nil {
			return failure("write it as in --legacy des=2027-03-31 or --legacy des=off", "--legacy %s: %q is no day", name, day)
		}
		switches[name] = day
	}
	settings["legacy"] = switches
	if len(switches) == 0 {
		delete(settings, "legacy")
	}
	return nil
}

func newSCEPRequestsCommand(env *environment, conn *connection) *cobra.Command {
	var q client.EnrollmentQuery
	var limit int
	state := &choice{value: "pending", allowed: []string{"pending", "issued", "denied", "all"}}
	cmd := &cobra.Command{
		Use: "requests", Short: "List requests that wait for a person", Args: takes(),
		Long: `List requests that wait for a person, newest first. Compare KEY with what the device shows of its own: the first
octets of the SHA-256 digest of its public key.`,
		Example: "  certwright scep requests\n  certwright scep requests --state all --output json",
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

func newSCEPApproveCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "approve ID...", Short: "Approve requests that wait: their certificates are issued", Args: takes("ID..."),
		Example: "  certwright scep approve VZ5KXQJ2T3M4A6BC",
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

func newSCEPDenyCommand(env *environment, conn *connection) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "deny ID...", Short: "Deny requests that wait", Args: takes("ID..."),
		Example: `  certwright scep deny VZ5KXQJ2T3M4A6BC --reason "not one of ours"`,
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

func newSCEPRotateCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate-ra ISSUER", Short: "Give the registration authority of an issuer a new key", Args: takes("ISSUER"),
		Long: `Give the registration authority (RA) of an issuer a new key. Its certificate is renewed by itself, with the key it has:
a new one is for when the old may be known to others. The old key still decrypts for a time (scep.ra_key_age), since
devices keep the certificate that they know.`,
		Example: "  certwright scep rotate-ra issuing",
	}
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		ra, err := api.RotateRA(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(env.out, "the RA of issuer %s has a new key; its certificate ends %s\n", visible(args[0]), stampFor(ra.NotAfter, env.now()))
		return nil
	})
	return cmd
}
