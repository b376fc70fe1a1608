package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/enrollment"
)

// kindPoint is what a step of an enrollment point is called.
const kindPoint = "point"

// pointSection are enrollment points in a file for «apply».
var pointSection = section{key: "enrollmentPoints", kind: kindPoint, plan: func(ctx context.Context, api *client.Client, settings json.RawMessage) (step, error) {
	return planPoint(ctx, api, settings, nil)
}}

// planPoint plans settings and, unless nil, a static challenge.
func planPoint(ctx context.Context, api *client.Client, settings json.RawMessage, static *string) (step, error) {
	check, err := api.CheckEnrollmentPoint(ctx, settings)
	if err != nil {
		return step{}, err
	}
	if static != nil {
		value := `"set"`
		if *static == "" {
			value = `"taken away"`
		}
		check.Changes = append(check.Changes, client.ProfileChange{Field: "static challenge", New: json.RawMessage(value)})
	}
	return step{
		Kind: kindPoint, Name: check.Name, Version: check.Version, Changes: check.Changes, Warnings: check.Warnings,
		apply: func(ctx context.Context) (int, error) {
			p, err := api.PutEnrollmentPoint(ctx, check.Name, client.PutPointRequest{Version: check.Version, Settings: settings, StaticChallenge: static})
			return p.Version, err
		},
	}, nil
}

func newPointCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "point",
		GroupID: groupDevices,
		Short:   "Show and change enrollment points, the addresses at which devices enroll",
		Long: `Devices enroll and renew by SCEP (RFC 8894) at an enrollment point: an address such as http://HOST/scep/default, with
an issuer, a profile and rules. There can be any number.

Nothing is open by default. A device needs a one-time challenge («certwright challenge new»), or the static challenge of
the point, which is off until it is set. A point is not deleted, since devices have its address: it is disabled.`,
		Example: "  certwright point show\n  certwright point set --static-challenge-file challenge.txt\n  certwright point set phones --profile device --approval",
	}
	conn := connect(env, cmd)
	return group(cmd, newPointListCommand(env, conn), newPointShowCommand(env, conn), newPointSetCommand(env, conn),
		newPointSwitchCommand(env, conn, "disable", "Refuse every request at an enrollment point", true),
		newPointSwitchCommand(env, conn, "enable", "Serve an enrollment point again that was disabled", false), newPointHistoryCommand(env, conn),
		newWebhookSecretCommand(env, conn))
}

func newWebhookSecretCommand(env *environment, conn *connection) *cobra.Command {
	var overlap span
	cmd := &cobra.Command{
		Use: "webhook-secret [POINT]", Short: "Make a new secret for a point's webhook, which is shown once", Args: takes("[POINT]"),
		Long: `Make the secret with which the messages to a point's webhook are authenticated, and print it alone on the standard
output, once: it cannot be had again. Give it to the receiver. Until there is one the webhook is not asked, and what it
decides on is refused.

A new secret takes the place of the one before. With --overlap that one signs messages along for a while, so that the
receiver can be told without a gap.`,
		Example: "  certwright point webhook-secret\n  certwright point webhook-secret phones --overlap 1d",
	}
	cmd.Flags().Var(&overlap, "overlap", "how long the secret before signs messages, too, a `time` (at most 30d)")
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		text := ""
		if cmd.Flags().Changed("overlap") {
			text = overlap.String()
		}
		s, err := api.NewWebhookSecret(cmd.Context(), pointName(args), text)
		switch {
		case err != nil:
			return err
		case !output.forPeople():
			return output.write(env.out, s, s.Point)
		}
		_, err = fmt.Fprintln(env.out, s.Secret)
		return err
	})
	return cmd
}

func newPointListCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the enrollment points", Example: "  certwright point list", Args: takes()}
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
			state := "serving"
			if p.Disabled {
				state = "disabled"
			}
			rows = append(rows, []string{p.Name, state, p.Issuer, p.Profile, onOff(p.StaticChallenge), p.URL})
		}
		return table(env.out, []string{"NAME", "STATE", "ISSUER", "PROFILE", "STATIC CHALLENGE", "ADDRESS"}, rows)
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

func newPointShowCommand(env *environment, conn *connection) *cobra.Command {
	var version int
	var asYAML bool
	cmd := &cobra.Command{
		Use: "show [POINT]", Short: "Show an enrollment point with its settings", Args: takes("[POINT]"),
		Example: "  certwright point show\n  certwright point show phones --version 2\n  certwright point show phones --yaml > phones.yaml",
	}
	cmd.Flags().IntVar(&version, "version", 0, "a `number`: the settings of that version instead of those in force")
	cmd.Flags().BoolVar(&asYAML, "yaml", false, "print the settings alone, as «certwright apply» takes them")
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		if cmd.Flags().Changed("version") {
			if version < 1 {
				return misuse(cmd, "", "--version: versions count from 1")
			}
			v, err := api.EnrollmentPointVersion(cmd.Context(), pointName(args), version)
			switch {
			case err != nil:
				return err
			case asYAML:
				return writePointYAML(env, v.Settings)
			case !output.forPeople():
				return output.write(env.out, v, v.Name)
			}
			var f fields
			f.add("Point", v.Name)
			f.add("Version", fmt.Sprintf("%d, of %s by %s", v.Version, stamp(v.Changed), v.ChangedBy))
			addSettings(&f, "Settings", v.Settings)
			return f.write(env.out)
		}
		p, err := api.EnrollmentPoint(cmd.Context(), pointName(args))
		switch {
		case err != nil:
			return err
		case asYAML:
			return writePointYAML(env, p.Settings)
		case !output.forPeople():
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
	if p.Webhook != nil {
		f.add("Webhook", webhookState(*p.Webhook)...)
	}
	if p.RA != nil {
		f.add("RA certificate", "ends "+stampFor(p.RA.NotAfter, env.now()))
	}
	f.add("Version", fmt.Sprintf("%d, of %s by %s", p.Version, stamp(p.ChangedAt), p.ChangedBy))
	addSettings(&f, "Settings", p.Settings)
	return f.write(env.out)
}

// webhookState says how a webhook is doing.
func webhookState(w client.PointWebhook) []string {
	if !w.Secret {
		return []string{"has no secret, and is not asked: see «certwright point webhook-secret»"}
	}
	switch {
	case w.Waiting == 0:
		return []string{"nothing waits to be told"}
	case w.Error == "":
		return []string{fmt.Sprintf("%d notifications wait", w.Waiting)}
	}
	lines := []string{fmt.Sprintf("%d notifications wait", w.Waiting), w.Error}
	if w.Oldest != nil {
		lines[0] += ", the oldest since " + stamp(*w.Oldest)
	}
	return lines
}

// addSettings adds settings in the form of the files of «apply».
func addSettings(f *fields, name string, settings json.RawMessage) {
	var text bytes.Buffer
	if err := writeYAML(&text, settings); err == nil {
		f.add(name, strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")...)
	}
}

// writePointYAML writes a file for «apply».
func writePointYAML(env *environment, settings json.RawMessage) error {
	node, err := nodeOf(settings)
	if err != nil {
		return fmt.Errorf("the settings cannot be read: %w", err)
	}
	return encodeYAML(env.out, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Value: pointSection.key}, {Kind: yaml.SequenceNode, Content: []*yaml.Node{node}},
	}})
}

func newPointHistoryCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "history [POINT]", Short: "List the versions of an enrollment point, newest first", Args: takes("[POINT]"),
		Example: "  certwright point history phones",
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		versions, err := api.EnrollmentPointHistory(cmd.Context(), pointName(args))
		if err != nil {
			return err
		}
		return writeVersions(env, output, versions)
	})
	return cmd
}

// changePoint changes a point's settings on what they are, or makes a point of this name if it may.
func changePoint(env *environment, cmd *cobra.Command, api *client.Client, name string, create, dryRun bool, output *records, static *string, edit func(settings map[string]any) error) error {
	settings := map[string]any{}
	p, err := api.EnrollmentPoint(cmd.Context(), name)
	switch {
	case err == nil:
		if err := json.Unmarshal(p.Settings, &settings); err != nil {
			return fmt.Errorf("the settings of %s cannot be read: %w", name, err)
		}
	case !create || !absent(err):
		return err
	}
	settings["name"] = name
	if err := edit(settings); err != nil {
		return err
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	with := pointSection
	with.plan = func(ctx context.Context, api *client.Client, settings json.RawMessage) (step, error) {
		return planPoint(ctx, api, settings, static)
	}
	return applyAll(env, cmd, api, []entry{{section: with, place: with.kind + " " + name, config: text}}, dryRun, output)
}

func newPointSwitchCommand(env *environment, conn *connection, verb, short string, disabled bool) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " POINT", Short: short, Args: takes("POINT"), Example: "  certwright point " + verb + " phones"}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		return changePoint(env, cmd, api, args[0], false, false, output, nil, func(settings map[string]any) error {
			if disabled {
				settings["disabled"] = true
			} else {
				delete(settings, "disabled")
			}
			return nil
		})
	})
	return cmd
}

// pointFlag is a flag of «point set» for one field.
type pointFlag struct {
	flag, field string
	value       func() any // nil, empty, false and 0 give the field back to its default
}

func newPointSetCommand(env *environment, conn *connection) *cobra.Command {
	var file, anchors string
	var noStatic, dryRun bool
	var legacy []string
	var flags []pointFlag
	cmd := &cobra.Command{
		Use:   "set [POINT]",
		Short: "Change the settings of an enrollment point, or make one",
		Long: `Change the settings of an enrollment point; what no flag names stays as it is. A point that does not exist is made. What
would change is shown first. An empty text, 0 or =false gives a setting back to its default.

The static challenge is read from a file and never shown again. Everybody who has it can have every name that profile
and --subject allow: prefer one-time challenges.

--subject and --san are templates of the names that certificates must have. The registry of devices says what {device},
{group}, {owner} and {label:NAME} are; a device that lacks one of them is refused.

Legacy switches let in what is refused otherwise, for old devices, until the end of a day:
  des           messages encrypted with single DES, against RFC 8894
  md5           messages signed with MD5, against RFC 8894
  sha1Renewal   renewals that only a signature with SHA-1 authorises
  issuerKey     the issuer's own RSA key decrypts and signs messages, for clients that know no RA
  sharedKeys    several devices have certificates for one key`,
		Example: `  certwright point set --static-challenge-file challenge.txt
  certwright point set phones --subject CN={device},O=Example --san DNS:{device}.example.com --dry-run
  certwright point set phones --return grace --return-grace 60d --replacement revoke
  certwright point set --legacy des=2027-03-31
  certwright point set --legacy des=off`,
		Args: takes("[POINT]"),
	}
	f := cmd.Flags()
	f.SortFlags = false
	text := func(flag, field, usage string) {
		v := f.String(flag, "", usage)
		flags = append(flags, pointFlag{flag, field, func() any { return *v }})
	}
	word := func(flag, field, usage string, allowed ...string) {
		v := &choice{allowed: allowed}
		f.Var(v, flag, usage)
		complete(cmd, flag, allowed...)
		flags = append(flags, pointFlag{flag, field, func() any { return v.value }})
	}
	number := func(flag, field, usage string) {
		v := f.Int(flag, 0, usage)
		flags = append(flags, pointFlag{flag, field, func() any { return *v }})
	}
	onOff := func(flag, field, usage string) {
		v := f.Bool(flag, false, usage)
		flags = append(flags, pointFlag{flag, field, func() any { return *v }})
	}
	var times []string
	period := func(flag, field, usage string) {
		text(flag, field, usage)
		times = append(times, flag)
	}
	text("description", "description", "a `text` for people")
	text("issuer", "issuer", "the issuer with this `name` signs")
	text("profile", "profile", "the profile with this `name` says what certificates hold")
	text("subject", "subject", "`template` of the subject that certificates must have")
	sans := f.StringArray("san", nil, "`template` of a name that they must have; may be given several times, in place of those before")
	flags = append(flags, pointFlag{"san", "sans", func() any { return slices.DeleteFunc(*sans, func(s string) bool { return s == "" }) }})
	f.StringVar(&file, "static-challenge-file", "", "set the static challenge to the first line of this `file`; - reads the standard input")
	f.BoolVar(&noStatic, "no-static-challenge", false, "take the static challenge away")
	list := func(flag, field, usage string) {
		v := f.StringSlice(flag, nil, usage)
		flags = append(flags, pointFlag{flag, field, func() any { return slices.DeleteFunc(*v, func(s string) bool { return s == "" }) }})
	}
	list("challenges", "challenges", "the `kinds` that let a device in: one-time, static, webhook (default one-time,static)")
	word("identity", "device.identity", "what in a request names its device when its challenge does not",
		string(enrollment.IdentityNone), string(enrollment.IdentityCommonName), string(enrollment.IdentitySerialNumber), string(enrollment.IdentityDNSName), string(enrollment.IdentityURI))
	onOff("registered", "device.registered", "serve only devices that are in the registry")
	onOff("approval", "approval", "have each enrollment wait for a person; renewals go on by themselves")
	period("pending-life", "pendingLife", "how long a request waits for a person, a `time` (default 7d)")
	period("retry-window", "retryWindow", "how long the same request gets the same certificate, a `time` (default 1d)")
	number("renewal-percent", "renewal.percent", "certificates are renewed in the last part of their life, a `percentage` (default 50)")
	onOff("renewal-challenge", "renewal.challenge", "ask for a one-time challenge beside the signature that renews")
	onOff("renewal-new-key", "renewal.newKey", "ask for a new key with each renewal")
	word("return", "return.policy", "what becomes of a device whose certificate has ended",
		string(enrollment.ReturnPending), string(enrollment.ReturnGrace), string(enrollment.ReturnRefuse))
	period("return-grace", "return.grace", "how long after its end a certificate is renewed, a `time` (default 30d, at most 90d)")
	number("return-attempts", "return.attempts", "a `number`: how often a device may try to come back; then a person decides (default 3)")
	period("return-validity", "return.validity", "life of the first certificate of a device that came back, a `time` (default 7d)")
	onOff("return-new-key", "return.newKey", "ask for a new key of a device that comes back")
	word("replacement", "replacement", "what becomes of the good certificates of a device that enrolls anew",
		string(enrollment.ReplaceSupersede), string(enrollment.ReplaceRevoke), string(enrollment.ReplacePending), string(enrollment.ReplaceRefuse))
	number("per-minute", "limits.perMinute", "take this `number` of messages a minute, on each replica (default: all)")
	number("burst", "limits.burst", "take this `number` at once (default: those of a minute)")
	number("failures-per-minute", "limits.failuresPerMinute", "refuse a network address this `number` of times before it has to wait (default 120)")
	text("webhook", "webhook.url", "the `URL` of a webhook that decides on requests, https; empty takes it away (see docs/webhook.md)")
	word("webhook-when", "webhook.when", "what the webhook decides on: its own challenges, or everything",
		string(enrollment.WhenWebhook), string(enrollment.WhenAlways))
	period("webhook-timeout", "webhook.timeout", "how long it may take to decide, a `time` (default 5s, at most 30s)")
	list("webhook-allow", "webhook.allow", "`networks` and host names whose addresses may be private")
	list("webhook-notify", "webhook.notify", "`what` it is told of afterwards: success, failure or both")
	f.StringVar(&anchors, "webhook-ca-file", "", "a `file` with the trust anchors of its certificate, in PEM (default: the system's)")
	word("ca-certificates", "caCertificates", "what GetCACert answers", enrollment.Chain, enrollment.ChainWithRoot, enrollment.Single)
	f.StringArrayVar(&legacy, "legacy", nil, "turn a legacy `switch` on until a day, as in des=2027-03-31, or off, as in des=off")
	f.BoolVar(&dryRun, "dry-run", false, "show what would change, and change nothing")
	output := outputFlag(cmd)
	set := conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		var static *string
		if noStatic {
			static = new("")
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
			static = &line
		}
		var pem []byte
		if anchors != "" {
			var err error
			if pem, err = readInput(env, anchors); err != nil {
				return err
			}
		}
		return changePoint(env, cmd, api, pointName(args), true, dryRun, output, static, func(settings map[string]any) error {
			for _, s := range flags {
				if !f.Changed(s.flag) {
					continue
				}
				switch v := s.value(); v := v.(type) {
				case []string:
					if len(v) == 0 {
						setField(settings, s.field, nil)
					} else {
						setField(settings, s.field, v)
					}
				default:
					if v == "" || v == false || v == 0 {
						v = nil
					}
					setField(settings, s.field, v)
				}
				if policy := s.value(); s.flag == "return" && policy != string(enrollment.ReturnGrace) {
					for _, field := range []string{"grace", "attempts", "validity", "newKey"} { // for that policy alone
						setField(settings, "return."+field, nil)
					}
				}
			}
			if pem != nil {
				setField(settings, "webhook.ca", string(pem))
			}
			if f.Changed("webhook") && f.Lookup("webhook").Value.String() == "" {
				delete(settings, "webhook")
			}
			return setLegacy(settings, legacy)
		})
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file != "" && noStatic {
			return misuse(cmd, "", "--static-challenge-file and --no-static-challenge contradict each other")
		}
		for _, name := range times {
			if text := f.Lookup(name).Value.String(); text != "" {
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
