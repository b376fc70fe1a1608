package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/certwright/certwright/pkg/client"
)

func newProfileCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "profile",
		GroupID: groupAuthority,
		Short:   "Show and change the profiles: what certificates are for",
		Example: "  certwright profile list\n  certwright profile show server\n  certwright profile apply web.yaml --dry-run",
	}
	conn := connect(env, cmd)
	return group(cmd,
		newProfileListCommand(env, conn), newProfileShowCommand(env, conn), newProfileHistoryCommand(env, conn),
		newProfileCheckCommand(env, conn), newProfileDiffCommand(env, conn), newProfileApplyCommand(env, conn),
		newProfileDryRunCommand(env, conn),
	)
}

func newProfileListCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the profiles that the token may use",
		Example: "  certwright profile list",
		Args:    takes(),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		profiles, err := api.Profiles(cmd.Context())
		if err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, struct {
				Profiles []client.Profile `json:"profiles"`
			}{profiles}, namesOf(profiles, func(p client.Profile) string { return p.Name })...)
		}
		var rows [][]string
		for _, p := range profiles {
			rows = append(rows, []string{p.Name, fmt.Sprint(p.Version), originOf(p), clip(p.Description, 90)})
		}
		return table(env.out, []string{"NAME", "VERSION", "ORIGIN", "DESCRIPTION"}, rows)
	})
	return cmd
}

func newProfileShowCommand(env *environment, conn *connection) *cobra.Command {
	var version int
	var asYAML bool
	cmd := &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a profile with its configuration",
		Example: "  certwright profile show server\n  certwright profile show web --version 3\n  certwright profile show web --yaml > web.yaml",
		Args:    takes("NAME"),
	}
	cmd.Flags().IntVar(&version, "version", 0, "a `number`: that version instead of the one in force")
	cmd.Flags().BoolVar(&asYAML, "yaml", false, "print the configuration alone, as «certwright apply» takes it")
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		if cmd.Flags().Changed("version") && version < 1 {
			return misuse(cmd, "", "--version: versions count from 1")
		}
		var p client.Profile
		var err error
		if version > 0 {
			p, err = api.ProfileVersion(cmd.Context(), args[0], version)
		} else {
			p, err = api.Profile(cmd.Context(), args[0])
		}
		switch {
		case err != nil:
			return err
		case asYAML:
			return writeProfileYAML(env, p)
		case !output.forPeople():
			return output.write(env.out, p, p.Name)
		}
		var f fields
		f.add("Name", p.Name)
		f.add("Description", p.Description)
		f.add("Version", fmt.Sprint(p.Version))
		f.add("Origin", originOf(p))
		f.add("Changed", stampFor(p.Changed, env.now())+" by "+p.ChangedBy)
		addSettings(&f, "Configuration", p.Config)
		return f.write(env.out)
	})
	return cmd
}

// writeProfileYAML writes a file for «apply», the fields in the order of the configuration.
func writeProfileYAML(env *environment, p client.Profile) error {
	config, err := nodeOf(p.Config)
	if err != nil {
		return fmt.Errorf("the configuration of %s cannot be read: %w", p.Name, err)
	}
	file := yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Value: "profiles"}, {Kind: yaml.SequenceNode, Content: []*yaml.Node{config}},
	}}
	return encodeYAML(env.out, &file)
}

func originOf(p client.Profile) string {
	origin := "custom"
	if p.Builtin {
		origin = "built in"
	}
	if p.CA {
		origin += ", for CAs"
	}
	if p.Disabled {
		origin += ", disabled"
	}
	return origin
}

func newProfileHistoryCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "history NAME",
		Short:   "List the versions of a profile, newest first",
		Example: "  certwright profile history web",
		Args:    takes("NAME"),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		versions, err := api.ProfileHistory(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return writeVersions(env, output, versions)
	})
	return cmd
}

// writeVersions writes the versions of a profile, or of what has versions like one.
func writeVersions(env *environment, output *records, versions []client.ProfileVersion) error {
	if !output.forPeople() {
		return output.write(env.out, struct {
			Versions []client.ProfileVersion `json:"versions"`
		}{versions}, namesOf(versions, func(v client.ProfileVersion) string { return fmt.Sprint(v.Version) })...)
	}
	var rows [][]string
	for _, v := range versions {
		rows = append(rows, []string{fmt.Sprint(v.Version), stamp(v.Changed), v.ChangedBy, strings.Join(v.Fields, ", ")})
	}
	return table(env.out, []string{"VERSION", "CHANGED (UTC)", "BY", "FIELDS"}, rows)
}

const profileFileHelp = `FILE is YAML or JSON and holds one profile, a list of them, or documents with profiles: as «certwright apply» takes
them; - reads the standard input.`

func newProfileCheckCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "check FILE",
		Short:   "Check the profiles of a file, and compare them with those in force",
		Long:    "Check the profiles of a file, and compare them with those in force. Nothing changes.\n\n" + profileFileHelp,
		Example: "  certwright profile check web.yaml",
		Args:    takes("FILE"),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		entries, err := readEntries(env, "profile", args[0])
		if err != nil {
			return err
		}
		return applyAll(env, cmd, api, entries, true, output)
	})
	return cmd
}

func newProfileDiffCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "diff NAME FILE",
		Short:   "Show what a file would change of one profile",
		Long:    "Show what a file would change of one profile. Nothing changes.\n\n" + profileFileHelp,
		Example: "  certwright profile diff web web.yaml",
		Args:    takes("NAME", "FILE"),
	}
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		config, err := readProfile(env, args[0], args[1])
		if err != nil {
			return err
		}
		steps, err := planAll(env, cmd, api, []entry{{section: sections[0], place: args[1], config: config}})
		if err != nil {
			return err
		}
		return steps[0].write(env.out)
	})
	return cmd
}

// readProfile returns the profile of this name in a file. A single one may lack its name.
func readProfile(env *environment, name, file string) (json.RawMessage, error) {
	entries, err := readEntries(env, "profile", file)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		var config map[string]json.RawMessage
		if json.Unmarshal(e.config, &config) != nil || e.section.kind != "profile" {
			continue
		}
		var own string
		if json.Unmarshal(config["name"], &own) != nil && len(entries) == 1 && config["name"] == nil {
			if config["name"], err = json.Marshal(name); err != nil {
				return nil, err
			}
			return json.Marshal(config)
		}
		if own == name {
			return e.config, nil
		}
		names = append(names, own)
	}
	return nil, failure("it has "+strings.Join(names, ", "), "%s has no profile %q", file, name)
}

func newProfileApplyCommand(env *environment, conn *connection) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Create or change the profiles of a file",
		Long: `Create or change the profiles of a file. What would change is shown first; the server checks all of them before any is
changed. What would change nothing makes no new version.

` + profileFileHelp,
		Example: "  certwright profile apply web.yaml --dry-run\n  certwright profile apply web.yaml",
		Args:    takes("FILE"),
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change, and change nothing")
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		entries, err := readEntries(env, "profile", args[0])
		if err != nil {
			return err
		}
		return applyAll(env, cmd, api, entries, dryRun, output)
	})
	return cmd
}

func newProfileDryRunCommand(env *environment, conn *connection) *cobra.Command {
	var r client.DryRunRequest
	var csr, config, subject string
	var validity span
	var asPEM bool
	cmd := &cobra.Command{
		Use:   "dry-run NAME --csr FILE",
		Short: "Show the certificate that a CSR would get; nothing is issued",
		Long: `Show the certificate that a CSR would get from a profile, or why it would get none. Nothing is issued or recorded.

--config tries a profile that is in a file only, which takes an administrator. --pem prints the certificate as it would
look, for other programs to read; it is signed by a key that nobody has, in the name of nobody.`,
		Example: `  certwright profile dry-run server --csr request.pem
  certwright profile dry-run web --csr request.pem --config web.yaml
  certwright profile dry-run sensors --csr request.pem --device sensor-17 --pem | openssl x509 -noout -text`,
		Args: takes("NAME"),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&csr, "csr", "", "`file` with the CSR, PEM or DER; - reads the standard input (required)")
	f.StringVar(&config, "config", "", "`file` with the profile to try in place of the one in force")
	f.StringVar(&subject, "subject", "", "whole `subject` in place of the CSR's (RFC 4514)")
	f.StringArrayVar(&r.SANs, "san", nil, "`name` in place of the CSR's; may be given several times")
	f.Var(&validity, "validity", "how long, as in 90d or 12h (default: the profile's)")
	f.StringVar(&r.Issuer, "issuer", "", "`name` of the issuer (default: the only one)")
	f.StringVar(&r.Device, "device", "", "`identity` of the device")
	f.BoolVar(&asPEM, "pem", false, "print the certificate alone, PEM")
	output := documentFlag(cmd)
	run := conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		var err error
		if r.CSR, _, err = readRequest(env, csr); err != nil {
			return err
		}
		if config != "" {
			if r.Config, err = readProfile(env, args[0], config); err != nil {
				return err
			}
		}
		if cmd.Flags().Changed("subject") {
			r.Subject = &subject
		}
		r.Validity = validity.String()
		d, err := api.DryRunProfile(cmd.Context(), args[0], r)
		if err != nil {
			return err
		}
		for _, w := range d.Warnings {
			warn(env, "%s", w)
		}
		switch {
		case !output.forPeople():
			return output.write(env.out, d)
		case asPEM:
			_, err := fmt.Fprint(env.out, d.PEM)
			return err
		}
		return writeDryRun(env, d)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case csr == "":
			return misuse(cmd, "", "--csr is missing")
		case csr == "-" && config == "-":
			return misuse(cmd, "", "--csr and --config cannot both read the standard input")
		}
		return run(cmd, args)
	}
	return cmd
}

func writeDryRun(env *environment, d client.DryRun) error {
	version := "not in force"
	if d.ProfileVersion > 0 {
		version = fmt.Sprintf("version %d", d.ProfileVersion)
	}
	var f fields
	f.add("Profile", d.Profile+", "+version)
	f.add("Issuer", d.Issuer)
	f.add("Subject", d.Subject)
	f.add("Names", d.SANs...)
	f.add("Not before", d.NotBefore.UTC().Format(time.RFC3339))
	f.add("Not after", d.NotAfter.UTC().Format(time.RFC3339)+" ("+distance(d.NotAfter, env.now())+")")
	f.add("Key", d.KeyAlgorithm)
	var extensions []string
	for _, e := range d.Extensions {
		name := e.Name
		if name == "" {
			name = e.OID
		}
		if e.Critical {
			name += " (critical)"
		}
		extensions = append(extensions, name+": "+e.Value)
	}
	f.add("Extensions", extensions...)
	if err := f.write(env.out); err != nil {
		return err
	}
	note(env, "nothing was issued")
	return nil
}
