package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/profile"
)

// kindIssuer is what a step of an issuer's settings is called.
const kindIssuer = "issuer"

var issuerSection = section{key: "issuers", kind: kindIssuer, plan: planIssuer}

func planIssuer(ctx context.Context, api *client.Client, config json.RawMessage) (step, error) {
	var named struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(config, &named); err != nil || named.Name == "" {
		return step{}, &client.Error{Status: 400, Detail: "an issuer's settings without its name", Field: "name", Hint: "«certwright issuer list» shows the names"}
	}
	check, err := api.CheckIssuerSettings(ctx, named.Name, config)
	if err != nil {
		return step{}, err
	}
	return step{
		Kind: kindIssuer, Name: check.Issuer, Version: check.Version, Changes: check.Changes, Warnings: check.Warnings,
		apply: func(ctx context.Context) (int, error) {
			s, err := api.PutIssuerSettings(ctx, check.Issuer, check.Version, config)
			return s.Version, err
		},
	}, nil
}

// setting is a flag of «issuer set» for one field.
type setting struct {
	flag, field, usage string
	value              *string
}

// defaultWord gives a field back to the process.
const defaultWord = "default"

// period is a flag that takes a time, or the word that gives it back.
type period struct{ text *string }

func (p period) Type() string { return "time" }

func (p period) String() string {
	if p.text == nil {
		return ""
	}
	return *p.text
}

func (p period) Set(text string) error {
	if d, err := profile.ParseDuration(text); text != defaultWord && (err != nil || d <= 0) {
		return errors.New("want a time such as 1h, 7d or 500ms, or the word default")
	}
	*p.text = text
	return nil
}

func newIssuerSetCommand(env *environment, conn *connection) *cobra.Command {
	form := &choice{allowed: []string{"full", "sharded"}}
	delta := &choice{allowed: []string{"on", "off"}}
	var shards int
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change how an issuer's CRLs and OCSP answers are made",
		Long: `Change how an issuer's CRLs and OCSP answers are made. What is not named stays as it is; the word default gives a time
back to the configuration of the process. What would change, and what follows from it, is shown first.

Certificates keep the CRL that they were issued with: a change of the form or of the number of shards is for new ones.
The others' CRLs are made and served until the last of them has ended. docs/crl.md tells when which form is right.`,
		Example: `  certwright issuer set issuing --crl-form sharded --shards 64 --dry-run
  certwright issuer set issuing --crl-next-update 14d --ocsp-next-update 1h
  certwright issuer set issuing --crl-form full --delta off --crl-interval default`,
		Args: takes("NAME"),
	}
	f := cmd.Flags()
	f.Var(form, "crl-form", "one full CRL, or sharded: each certificate names one of many")
	complete(cmd, "crl-form", form.allowed...)
	f.IntVar(&shards, "shards", 0, "how many CRLs the certificates of a sharded issuer are spread over, a `number` from 2 to 1024")
	f.Var(delta, "delta", "have delta CRLs made, for verifiers that ask for them")
	complete(cmd, "delta", delta.allowed...)
	var periods []setting
	for _, s := range []setting{
		{flag: "delta-base-interval", field: "crl.delta.baseInterval", usage: "how often delta CRLs begin anew from a complete one"},
		{flag: "delta-next-update", field: "crl.delta.nextUpdate", usage: "how long verifiers may use a delta CRL"},
		{flag: "crl-interval", field: "crl.interval", usage: "how often every CRL is made anew"},
		{flag: "crl-next-update", field: "crl.nextUpdate", usage: "how long verifiers may use a CRL: the longest outage that they survive"},
		{flag: "crl-coalesce", field: "crl.coalesce", usage: "how long a revocation waits for others"},
		{flag: "crl-max-age", field: "crl.maxAge", usage: "how long HTTP caches may keep a CRL"},
		{flag: "ocsp-next-update", field: "ocsp.nextUpdate", usage: "how long verifiers may use an OCSP answer"},
		{flag: "ocsp-max-age", field: "ocsp.maxAge", usage: "how long HTTP caches may keep an OCSP answer"},
	} {
		s.value = new(string)
		f.Var(period{s.value}, s.flag, s.usage)
		periods = append(periods, s)
	}
	f.BoolVar(&dryRun, "dry-run", false, "show what would change, and change nothing")
	output := documentFlag(cmd)
	set := conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		now, err := api.IssuerSettings(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		config := map[string]any{}
		if err := json.Unmarshal(now.Config, &config); err != nil {
			return fmt.Errorf("the settings of %s cannot be read: %w", now.Issuer, err)
		}
		if form.value != "" {
			setField(config, "crl.form", form.value)
			if form.value == "full" && !f.Changed("shards") {
				setField(config, "crl.shards", nil)
			}
		}
		if f.Changed("shards") {
			setField(config, "crl.shards", shards)
		}
		switch delta.value {
		case "on":
			if crl, _ := config["crl"].(map[string]any); crl["delta"] == nil {
				setField(config, "crl.delta", map[string]any{})
			}
		case "off":
			setField(config, "crl.delta", nil)
		}
		for _, s := range periods {
			switch *s.value {
			case "":
			case defaultWord:
				setField(config, s.field, nil)
			default:
				setField(config, s.field, *s.value)
			}
		}
		config["name"] = now.Issuer
		text, err := json.Marshal(config)
		if err != nil {
			return err
		}
		return applyAll(env, cmd, api, []entry{{section: issuerSection, place: kindIssuer + " " + now.Issuer, config: text}}, dryRun, output)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		named := form.value != "" || delta.value != "" || f.Changed("shards")
		for _, s := range periods {
			named = named || *s.value != ""
		}
		if !named {
			return misuse(cmd, "", "nothing to change: name a setting, such as --crl-form or --crl-next-update")
		}
		return set(cmd, args)
	}
	return cmd
}

// setField sets a field by its path, or takes it away when the value is nil.
func setField(config map[string]any, path string, value any) {
	first, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		if value == nil {
			delete(config, first)
		} else {
			config[first] = value
		}
		return
	}
	inner, ok := config[first].(map[string]any)
	if !ok {
		if value == nil {
			return
		}
		inner = map[string]any{}
		config[first] = inner
	}
	setField(inner, rest, value)
	if first != "delta" && len(inner) == 0 { // an empty delta means that there are some
		delete(config, first)
	}
}

func newIssuerSettingsCommand(env *environment, conn *connection) *cobra.Command {
	var version int
	var asYAML bool
	cmd := &cobra.Command{
		Use:   "settings NAME",
		Short: "Show the settings of an issuer, and the CRL addresses in its certificates",
		Example: `  certwright issuer settings issuing
  certwright issuer settings issuing --version 2
  certwright issuer settings issuing --yaml > issuing.yaml`,
		Args: takes("NAME"),
	}
	cmd.Flags().IntVar(&version, "version", 0, "a `number`: that version instead of the one in force")
	cmd.Flags().BoolVar(&asYAML, "yaml", false, "print the settings alone, as «certwright apply» takes them")
	output := documentFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		if cmd.Flags().Changed("version") && version < 1 {
			return misuse(cmd, "", "--version: versions count from 1")
		}
		var s client.IssuerSettings
		var err error
		if version > 0 {
			s, err = api.IssuerSettingsVersion(cmd.Context(), args[0], version)
		} else {
			s, err = api.IssuerSettings(cmd.Context(), args[0])
		}
		switch {
		case err != nil:
			return err
		case asYAML:
			return writeIssuerYAML(env, s)
		case !output.forPeople():
			return output.write(env.out, s)
		}
		var f fields
		f.add("Issuer", s.Issuer)
		if s.Version == 0 {
			f.add("Version", "none: the process's configuration is in force")
		} else {
			f.add("Version", fmt.Sprint(s.Version))
			if s.Changed != nil {
				f.add("Changed", stampFor(*s.Changed, env.now())+" by "+s.ChangedBy)
			}
			addSettings(&f, "Settings", s.Config)
		}
		if s.InForce != nil {
			f.add("In force", inForceLines(*s.InForce)...)
		}
		var addresses []string
		for _, a := range s.Addresses {
			line := fmt.Sprintf("%s (%s, until %s", a.URL, a.Set, a.Until.Format("2006-01-02"))
			if a.Listed == nil {
				line += ", being made"
			}
			addresses = append(addresses, line+")")
		}
		f.add("CRL addresses", addresses...)
		return f.write(env.out)
	})
	return cmd
}

// inForceLines words how CRLs and OCSP answers are made.
func inForceLines(in client.SettingsInForce) []string {
	form := "one full CRL"
	if in.CRL.Form != "full" {
		form = fmt.Sprintf("%d sharded CRLs beside the full one", in.CRL.Shards)
	}
	if in.Pending != nil {
		form += " (being made: new certificates name the full one)"
	}
	lines := []string{
		form,
		fmt.Sprintf("made every %s and %s after a revocation, good for %s, cached for %s", in.CRL.Interval, in.CRL.Coalesce, in.CRL.NextUpdate, in.CRL.MaxAge),
	}
	if in.CRL.Delta {
		lines = append(lines, fmt.Sprintf("delta CRLs good for %s, from a complete CRL of every %s", in.CRL.DeltaNextUpdate, in.CRL.BaseInterval))
	}
	return append(lines, fmt.Sprintf("OCSP answers good for %s, cached for %s", in.OCSP.NextUpdate, in.OCSP.MaxAge))
}

// writeIssuerYAML writes a file for «apply».
func writeIssuerYAML(env *environment, s client.IssuerSettings) error {
	config, err := nodeOf(s.Config)
	if err != nil {
		return fmt.Errorf("the settings of %s cannot be read: %w", s.Issuer, err)
	}
	config.Style = 0
	config.Content = append([]*yaml.Node{{Kind: yaml.ScalarNode, Value: "name"}, {Kind: yaml.ScalarNode, Value: s.Issuer}}, config.Content...)
	file := yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Value: "issuers"}, {Kind: yaml.SequenceNode, Content: []*yaml.Node{config}},
	}}
	return encodeYAML(env.out, &file)
}

func newIssuerHistoryCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "history NAME",
		Short:   "List the versions of an issuer's settings, newest first",
		Example: "  certwright issuer history issuing",
		Args:    takes("NAME"),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		versions, err := api.IssuerSettingsHistory(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if len(versions) == 0 && output.forPeople() {
			note(env, "nobody has settled anything for %s: the process's configuration is in force", args[0])
		}
		return writeVersions(env, output, versions)
	})
	return cmd
}
