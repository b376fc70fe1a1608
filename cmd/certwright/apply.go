package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/certwright/certwright/pkg/client"
)

// step is one thing of a file: what applying it would change, and how to do that.
type step struct {
	Kind     string                 `json:"kind"` // as in profile
	Name     string                 `json:"name"`
	Version  int                    `json:"version"` // in force; 0 for a new one
	Changes  []client.ProfileChange `json:"changes"`
	Warnings []string               `json:"warnings,omitempty"`
	Applied  bool                   `json:"applied"`

	apply func(ctx context.Context) (version int, err error)
}

// section is a list in a file for «apply».
type section struct {
	key, kind string
	// plan asks the server about one entry; nothing changes.
	plan func(ctx context.Context, api *client.Client, config json.RawMessage) (step, error)
}

// sections are in the order in which they are applied.
var sections = []section{{key: "profiles", kind: "profile", plan: planProfile}, issuerSection, pointSection}

func planProfile(ctx context.Context, api *client.Client, config json.RawMessage) (step, error) {
	check, err := api.CheckProfile(ctx, config)
	if err != nil {
		return step{}, err
	}
	return step{
		Kind: "profile", Name: check.Name, Version: check.Version, Changes: check.Changes, Warnings: check.Warnings,
		apply: func(ctx context.Context) (int, error) {
			p, err := api.PutProfile(ctx, check.Name, check.Version, config)
			return p.Version, err
		},
	}, nil
}

// entry is a configuration in a file.
type entry struct {
	section section
	place   string // for messages: the file, and the name if there is one
	config  json.RawMessage
}

// readEntries reads the entries of files, YAML or JSON, of one or more documents each. With a bare section, a document
// that has none of the sections' keys is an entry of that section itself.
func readEntries(env *environment, bare string, files ...string) ([]entry, error) {
	var entries []entry
	seen := map[string]string{}
	for _, file := range files {
		documents, err := readDocuments(env, file)
		if err != nil {
			return nil, err
		}
		if file == "-" {
			file = "the standard input"
		}
		for _, d := range documents {
			found, err := entriesOf(d, bare)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			for _, e := range found {
				var named struct {
					Name any `json:"name"`
				}
				e.place = file
				// Whatever is wrong with the rest, the server says it better.
				if json.Unmarshal(e.config, &named) == nil && named.Name != nil {
					e.place = fmt.Sprintf("%s: %s %v", file, e.section.kind, named.Name)
					key := e.section.kind + " " + fmt.Sprint(named.Name)
					if before, twice := seen[key]; twice {
						return nil, failure("each has one place: in one file, once", "%s stands in %s already", e.place, before)
					}
					seen[key] = file
				}
				entries = append(entries, e)
			}
		}
	}
	if len(entries) == 0 {
		return nil, failure("a file lists them under profiles:, issuers: and enrollmentPoints:, as in «profiles: [{name: web, kind: server}]»", "%s: nothing to apply", strings.Join(files, ", "))
	}
	return entries, nil
}

func entriesOf(document json.RawMessage, bare string) ([]entry, error) {
	var list []json.RawMessage
	if json.Unmarshal(document, &list) == nil {
		var out []entry
		for _, d := range list {
			entries, err := entriesOf(d, bare)
			if err != nil {
				return nil, err
			}
			out = append(out, entries...)
		}
		return out, nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(document, &object); err != nil {
		return nil, failure("a document is a mapping with profiles:, issuers: or enrollmentPoints:, or a list of such", "neither a mapping nor a list")
	}
	var out []entry
	known := 0
	for _, s := range sections {
		text, ok := object[s.key]
		if !ok {
			continue
		}
		known++
		var configs []json.RawMessage
		if err := json.Unmarshal(text, &configs); err != nil {
			return nil, failure("every entry begins with a hyphen, as in «- name: web»", "%s is not a list", s.key)
		}
		for _, c := range configs {
			out = append(out, entry{section: s, config: c})
		}
	}
	if known == 0 && bare != "" {
		i := slices.IndexFunc(sections, func(s section) bool { return s.kind == bare })
		return []entry{{section: sections[i], config: document}}, nil
	}
	if known != len(object) {
		var keys []string
		for key := range object {
			if !slices.ContainsFunc(sections, func(s section) bool { return s.key == key }) {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		return nil, failure("a document has profiles:, issuers: and enrollmentPoints:; a profile alone is for «certwright profile apply FILE»", "no section is called %s", strings.Join(keys, ", "))
	}
	return out, nil
}

// readDocuments returns the documents of a file as JSON. What is JSON already stays as it is.
func readDocuments(env *environment, file string) ([]json.RawMessage, error) {
	text, err := readInput(env, file)
	if err != nil {
		return nil, err
	}
	if file == "-" {
		file = "the standard input"
	}
	var documents []json.RawMessage
	if trimmed := bytes.TrimSpace(text); bytes.HasPrefix(trimmed, []byte("{")) || bytes.HasPrefix(trimmed, []byte("[")) {
		d := json.NewDecoder(bytes.NewReader(text))
		for {
			var document json.RawMessage
			if err := d.Decode(&document); errors.Is(err, io.EOF) {
				return documents, nil
			} else if err != nil {
				documents = nil // YAML in braces, perhaps
				break
			}
			documents = append(documents, document)
		}
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document any
		if err := d.Decode(&document); errors.Is(err, io.EOF) {
			return documents, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %s", file, strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " "))
		}
		if document == nil {
			continue // nothing between two lines of ---
		}
		converted, err := json.Marshal(withDays(document))
		if err != nil {
			return nil, fmt.Errorf("%s: a mapping whose keys are not all text", file)
		}
		documents = append(documents, converted)
	}
}

// withDays turns what YAML takes for an instant, as in 2027-03-31 without quotation marks, back into the text of a day.
func withDays(value any) any {
	switch v := value.(type) {
	case time.Time:
		if v.Equal(v.UTC().Truncate(24 * time.Hour)) {
			return v.UTC().Format(time.DateOnly)
		}
	case map[string]any:
		for k := range v {
			v[k] = withDays(v[k])
		}
	case []any:
		for i := range v {
			v[i] = withDays(v[i])
		}
	}
	return value
}

// planAll asks the server about everything before anything is changed. All refusals are told at once.
func planAll(env *environment, cmd *cobra.Command, api *client.Client, entries []entry) ([]step, error) {
	var steps []step
	var refusals []error
	for _, e := range entries {
		s, err := e.section.plan(cmd.Context(), api, e.config)
		if err == nil {
			steps = append(steps, s)
			continue
		}
		refusal, ok := errors.AsType[*client.Error](err)
		if !ok || refusal.Status >= 500 || refusal.Status == 401 {
			return nil, err
		}
		refusals = append(refusals, refusalOf(e.place, refusal))
	}
	switch len(refusals) {
	case 0:
		return steps, nil
	case 1:
		return nil, refusals[0]
	}
	for _, r := range refusals {
		report(env.err, r)
	}
	return nil, failure("nothing was changed", "%d of %d are refused", len(refusals), len(entries))
}

// refusalOf names the place and the field.
func refusalOf(place string, e *client.Error) error {
	message := place + ": " + e.Error()
	if e.Field != "" {
		message = place + ": " + e.Field + ": " + e.Error()
	}
	return &hintError{err: errors.New(message), hint: e.Hint}
}

// changes reports whether applying a step changes anything. An issuer is there already, with or without settings.
func (s *step) changes() bool { return len(s.Changes) > 0 || s.Version == 0 && s.Kind != kindIssuer }

// write shows what a step changes.
func (s *step) write(w io.Writer) error {
	state := fmt.Sprintf("version %d", s.Version)
	switch {
	case s.Version == 0 && s.Kind == kindIssuer:
		state = "no settings of its own yet"
		if len(s.Changes) == 0 {
			state = "no settings of its own, unchanged"
		}
	case s.Version == 0:
		state = "new"
	case len(s.Changes) == 0:
		state += ", unchanged"
	}
	fmt.Fprintf(w, "%s %s: %s\n", s.Kind, visible(s.Name), state)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range s.Changes {
		switch {
		case c.Old == nil:
			fmt.Fprintf(t, "  + %s\t%s\n", visible(c.Field), visible(string(c.New)))
		case c.New == nil:
			fmt.Fprintf(t, "  - %s\t%s\n", visible(c.Field), visible(string(c.Old)))
		default:
			fmt.Fprintf(t, "  ~ %s\t%s -> %s\n", visible(c.Field), visible(string(c.Old)), visible(string(c.New)))
		}
	}
	return t.Flush()
}

// applyAll shows what would change and, unless it is a dry run, changes it.
func applyAll(env *environment, cmd *cobra.Command, api *client.Client, entries []entry, dryRun bool, output *records) error {
	steps, err := planAll(env, cmd, api, entries)
	if err != nil {
		return err
	}
	changes := 0
	for i := range steps {
		for _, w := range steps[i].Warnings {
			warn(env, "%s %s: %s", steps[i].Kind, steps[i].Name, w)
		}
		if steps[i].changes() {
			changes++
		}
		if output.forPeople() {
			if err := steps[i].write(env.out); err != nil {
				return err
			}
		}
	}
	done := 0
	for i := range steps {
		s := &steps[i]
		if dryRun || !s.changes() {
			continue
		}
		version, err := s.apply(cmd.Context())
		if err != nil {
			return s.failed(env, err, done, changes)
		}
		s.Applied = true
		done++
		if output.forPeople() {
			fmt.Fprintf(env.out, "%s %s is at version %d\n", s.Kind, visible(s.Name), version)
		}
	}
	switch {
	case !output.forPeople():
		return output.write(env.out, struct {
			DryRun bool   `json:"dry_run"`
			Steps  []step `json:"steps"`
		}{dryRun, steps}, namesOf(steps, func(s step) string { return s.Kind + "/" + s.Name })...)
	case changes == 0:
		fmt.Fprintln(env.out, "nothing to change")
	case dryRun:
		fmt.Fprintf(env.out, "dry run: %d would change, nothing was\n", changes)
	}
	return nil
}

// failed says how far the steps before came.
func (s *step) failed(env *environment, err error, done, changes int) error {
	const hint = "run it again: what was applied stays as it is"
	if e, ok := errors.AsType[*client.Error](err); ok && changes == 1 {
		return &hintError{err: fmt.Errorf("%s %s: %s", s.Kind, s.Name, e.Error()), hint: e.Hint}
	} else if ok {
		message := fmt.Sprintf("%s %s: %s; %d of %d were applied", s.Kind, s.Name, e.Error(), done, changes)
		return &hintError{err: errors.New(message), hint: hint}
	}
	if done > 0 {
		note(env, "%d of %d were applied before", done, changes)
	}
	return err
}

func newApplyCommand(env *environment) *cobra.Command {
	var files []string
	var dryRun bool
	cmd := &cobra.Command{
		Use:     "apply -f FILE",
		GroupID: groupAuthority,
		Short:   "Bring profiles, issuers' settings and enrollment points to what a file says",
		Long: `Bring profiles, issuers' settings and enrollment points to what a file says. What would change is shown first. The
server checks everything before anything is changed: one mistake, and nothing is. What a file does not name stays as it
is; a second run changes nothing.

The file is YAML or JSON of one or more documents:

  profiles:
    - name: web
      kind: server
      sans: {dns: {suffixes: [example.com]}}
    - name: sensors
      kind: device
  issuers:
    - name: issuing
      crl: {form: sharded, shards: 64, nextUpdate: 7d}
  enrollmentPoints:
    - name: sensors
      profile: sensors
      subject: CN={device},O=Example
      return: {policy: grace, grace: 60d}

«certwright profile show NAME --yaml», «certwright issuer settings NAME --yaml» and «certwright point show NAME --yaml»
print one in this form. An issuer or a point gets exactly the settings that the file says; a point's static challenge
stays as it is («certwright point set --static-challenge-file FILE»).`,
		Example: "  certwright apply -f pki.yaml --dry-run\n  certwright apply -f pki.yaml\n  ssh ca certwright apply -f - < pki.yaml",
		Args:    takes(),
	}
	f := cmd.Flags()
	f.StringArrayVarP(&files, "file", "f", nil, "`file` to apply; - reads the standard input; may be given several times (required)")
	f.BoolVar(&dryRun, "dry-run", false, "show what would change, and change nothing")
	output := outputFlag(cmd)
	conn := connect(env, cmd)
	apply := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		entries, err := readEntries(env, "", files...)
		if err != nil {
			return err
		}
		return applyAll(env, cmd, api, entries, dryRun, output)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(files) == 0 {
			return misuse(cmd, "", "-f is missing")
		}
		return apply(cmd, args)
	}
	return cmd
}
