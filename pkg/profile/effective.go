package profile

import (
	"encoding/asn1"
	"slices"

	"github.com/certwright/certwright/pkg/document"
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

// Change is a difference between two configurations.
type Change = document.Change

// Diff returns the fields in which two configurations differ; see [document.Diff].
func Diff(before, after Config) ([]Change, error) { return document.Diff(before, after) }
