package profile

import (
	"bytes"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/certwright/certwright/pkg/keys"
)

// Effective returns the configuration with every default written out, lists in normal form. A profile made of it does
// the same. KeyUsage stays out unless it was set: its default depends on the type of each key, see [Profile.KeyUsage].
func (p *Profile) Effective() Config {
	c := p.Config()
	if len(c.ExtKeyUsage) == 0 {
		for _, oid := range p.extKeyUsage {
			c.ExtKeyUsage = append(c.ExtKeyUsage, ExtKeyUsageName(oid))
		}
	}
	if privileged(c.Kind) {
		c.ExtKeyUsage = nil // theirs cannot be named
	}
	c.Validity.Max, c.Validity.Backdate = p.maxLife, new(p.backdate)
	if !c.Validity.NoExpiry {
		c.Validity.Default = p.defaultLife
	}
	c.KeyAlgorithms = nil
	for _, algorithm := range p.keyAlgorithms {
		c.KeyAlgorithms = append(c.KeyAlgorithms, algorithm.String())
	}
	if p.anyRSA {
		c.KeyAlgorithms = append(c.KeyAlgorithms, "rsa")
	}
	if p.anyRSA || slices.ContainsFunc(p.keyAlgorithms, keys.Algorithm.IsRSA) {
		c.MinRSABits = p.minRSABits
	}
	typeNames := func(oids []asn1.ObjectIdentifier) []string {
		names := make([]string, 0, len(oids))
		for _, oid := range oids {
			names = append(names, typeOf(oid).name)
		}
		return names
	}
	c.Subject.Allowed, c.Subject.Required = typeNames(p.subjectAllowed), typeNames(p.subjectRequired)
	for i, a := range p.subjectFixed {
		c.Subject.Fixed[i] = FixedAttribute{Type: typeOf(a.Type).name, Value: a.Value}
	}
	if len(p.subjectValues) > 0 {
		c.Subject.Values = map[string][]string{}
		for _, v := range p.subjectValues {
			c.Subject.Values[typeOf(v.oid).name] = slices.Clone(v.values)
		}
	}
	sans := p.sans
	c.SANs = &sans
	if copied, err := clone(c); err == nil { // nothing is shared with the profile
		c = copied
	}
	return c
}

// Change is a difference between two configurations. Old and New are JSON; nil where the field is not there.
type Change struct {
	Field string
	Old   json.RawMessage
	New   json.RawMessage
}

// Diff returns the fields in which two configurations differ, by their paths ("validity.max"), in alphabetical order.
// Lists are compared as a whole, since their order can matter.
func Diff(before, after Config) ([]Change, error) {
	was, err := fieldsOf(before)
	if err != nil {
		return nil, err
	}
	is, err := fieldsOf(after)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(was)
	maps.Copy(all, is)
	var changes []Change
	for _, field := range slices.Sorted(maps.Keys(all)) {
		if !bytes.Equal(was[field], is[field]) {
			changes = append(changes, Change{Field: field, Old: was[field], New: is[field]})
		}
	}
	return changes, nil
}

// fieldsOf flattens a configuration. An empty object stays: sans.dns allows DNS names by being there.
func fieldsOf(c Config) (map[string]json.RawMessage, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("comparing configurations: %w", err)
	}
	out := map[string]json.RawMessage{}
	var walk func(path string, value json.RawMessage) error
	walk = func(path string, value json.RawMessage) error {
		object := map[string]json.RawMessage{}
		if len(value) == 0 || value[0] != '{' || bytes.Equal(value, []byte("{}")) {
			out[path] = value
			return nil
		}
		if err := json.Unmarshal(value, &object); err != nil {
			return fmt.Errorf("comparing configurations: %w", err)
		}
		for name, v := range object {
			field := name
			if path != "" {
				field = path + "." + name
			}
			if err := walk(field, v); err != nil {
				return err
			}
		}
		return nil
	}
	return out, walk("", text)
}
