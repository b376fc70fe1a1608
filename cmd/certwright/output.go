package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// records is the flag --output of a command that prints records: one way for all of them.
type records struct{ choice }

// outputFlag adds --output to a command.
func outputFlag(cmd *cobra.Command) *records {
	return outputsFlag(cmd, "table for people, json or yaml for programs, name for the ids alone, one on a line",
		"table", "json", "yaml", "name")
}

// documentFlag is outputFlag for a command whose document has no ids.
func documentFlag(cmd *cobra.Command) *records {
	return outputsFlag(cmd, "table for people, json or yaml for programs", "table", "json", "yaml")
}

func outputsFlag(cmd *cobra.Command, usage string, allowed ...string) *records {
	o := &records{choice{value: allowed[0], allowed: allowed}}
	cmd.Flags().Var(o, "output", usage)
	complete(cmd, "output", allowed...)
	return o
}

// forPeople reports whether the command lays the records out itself.
func (o *records) forPeople() bool { return o.value == "table" }

// write writes records for programs: a document, or its names, each on a line.
func (o *records) write(w io.Writer, document any, names ...string) error {
	switch o.value {
	case "yaml":
		return writeYAML(w, document)
	case "name":
		var b strings.Builder
		for _, n := range names {
			b.WriteString(visible(n) + "\n")
		}
		_, err := io.WriteString(w, b.String())
		return err
	}
	return writeJSON(w, document)
}

// namesOf returns a name of each.
func namesOf[T any](list []T, name func(T) string) []string {
	var names []string
	for _, v := range list {
		names = append(names, name(v))
	}
	return names
}

// writeYAML writes what writeJSON does as a document of YAML, with the fields in the same order and under the same names.
func writeYAML(w io.Writer, v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	document, err := nodeOf(text.Bytes())
	if err != nil {
		return err
	}
	return encodeYAML(w, document)
}

// nodeOf reads a document of JSON as a node of YAML, with the fields in their order. Most JSON is YAML, but not all of it.
func nodeOf(document []byte) (*yaml.Node, error) {
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	return nextNode(d)
}

func nextNode(d *json.Decoder) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.MappingNode}
		if t == '[' {
			n.Kind = yaml.SequenceNode
		}
		for d.More() {
			child, err := nextNode(d) // of a mapping: the key, then the value
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		_, err := d.Token() // the end
		return n, err
	case string:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: t}, nil
	case json.Number:
		tag := "!!int"
		if strings.ContainsAny(t.String(), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: t.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(t)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

// encodeYAML writes a node of nodeOf. What does not show is written as an escape, which every reader of YAML takes for the
// character itself.
func encodeYAML(w io.Writer, n *yaml.Node) error {
	lay(n)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return err
	}
	return writeShown(w, b.String(), func(r rune) string {
		if r > 0xFFFF {
			return fmt.Sprintf(`\U%08X`, r)
		}
		return fmt.Sprintf(`\u%04X`, r)
	})
}

// lay gives each part the form in which it is read best. A text with something that does not show is put between quotation
// marks: only there are escapes.
func lay(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && strings.ContainsFunc(n.Value, func(r rune) bool { return r != '\n' && !shown(r) }) {
		n.Style = yaml.DoubleQuotedStyle
	}
	short := true
	for _, c := range n.Content {
		lay(c)
		short = short && c.Kind == yaml.ScalarNode && !strings.Contains(c.Value, "\n")
	}
	if n.Kind == yaml.SequenceNode && short || n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
}
