package profile

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/document"
)

// template is text with placeholders; see [SubjectRules].
type template struct {
	parts []templatePart
}

// templatePart is a literal, or a placeholder: the first of its sources that the request has is put in.
type templatePart struct {
	literal string
	name    string // as written between the braces
	sources []templateSource
}

// templateSource is the device, an attribute, or a name of a kind.
type templateSource struct {
	attribute asn1.ObjectIdentifier
	san       string // a kind
	index     int
}

// maxTemplate is the longest template in octets.
const maxTemplate = 500

func parseTemplate(text string) (template, error) {
	var t template
	if len(text) > maxTemplate {
		return t, fmt.Errorf("more than %d octets", maxTemplate)
	}
	err := document.ScanTemplate(text, func(literal string) {
		t.parts = append(t.parts, templatePart{literal: literal})
	}, func(names string) error {
		part := templatePart{name: names}
		for name := range strings.SplitSeq(names, "|") {
			source, err := parseTemplateSource(strings.TrimSpace(name))
			if err != nil {
				return err
			}
			part.sources = append(part.sources, source)
		}
		t.parts = append(t.parts, part)
		return nil
	})
	if err == nil && len(t.parts) == 0 {
		err = errors.New("empty")
	}
	return t, err
}

func parseTemplateSource(name string) (templateSource, error) {
	const hint = `write {device}, an attribute type as in {CN} or {OU[1]}, or a name as in {san.dns[0]}`
	var s templateSource
	base, rest, indexed := strings.Cut(name, "[")
	if indexed {
		digits, ok := strings.CutSuffix(rest, "]")
		n, err := strconv.Atoi(digits)
		if !ok || err != nil || n < 0 || n > 99 || strings.TrimLeft(digits, "0123456789") != "" {
			return s, fmt.Errorf("{%s} does not end in a place from [0] to [99]; %s", clip(name), hint)
		}
		s.index = n
	}
	if base == "device" && !indexed {
		return s, nil
	}
	if kind, ok := strings.CutPrefix(base, "san."); ok {
		if !slices.Contains(sanKinds, kind) {
			return s, fmt.Errorf("{%s}: no kind of name is called %q; there are %s", clip(name), clip(kind), strings.Join(sanKinds, ", "))
		}
		s.san = kind
		return s, nil
	}
	t, err := attributeTypeByName(base)
	if err != nil {
		return s, fmt.Errorf("{%s} stands for nothing; %s", clip(name), hint)
	}
	s.attribute = t.oid
	return s, nil
}

// needs says whether the request's attribute of a type is put in somewhere.
func (t *template) needs(oid asn1.ObjectIdentifier) bool {
	for _, part := range t.parts {
		for _, s := range part.sources {
			if s.attribute.Equal(oid) {
				return true
			}
		}
	}
	return false
}

// whole says that the template is a placeholder and nothing else.
func (t *template) whole() bool { return len(t.parts) == 1 && t.parts[0].sources != nil }

// sanTemplate is a template of an alternative name.
type sanTemplate struct {
	template
	prefix string // "DNS:", "IP:", ...
	kind   string // of sanKinds
}

var sanPrefixes = []struct{ prefix, kind string }{
	{"DNS:", "dns"}, {"IP:", "ip"}, {"email:", "email"}, {"URI:", "uri"}, {"UPN:", "upn"}, {"HMN:", "hardwareModuleName"},
}

func parseSANTemplate(text string) (sanTemplate, error) {
	for _, p := range sanPrefixes {
		if len(text) > len(p.prefix) && strings.EqualFold(text[:len(p.prefix)], p.prefix) {
			t, err := parseTemplate(text[len(p.prefix):])
			if err == nil && p.kind == "ip" && !t.whole() && slices.ContainsFunc(t.parts, func(part templatePart) bool { return part.sources != nil }) {
				err = errors.New("an IP address is not put together from parts")
			}
			return sanTemplate{template: t, prefix: p.prefix, kind: p.kind}, err
		}
	}
	return sanTemplate{}, errors.New(`does not begin with the kind of name: "DNS:", "IP:", "email:", "URI:", "UPN:" or "HMN:"`)
}

// put returns a value as it may stand inside a name of this kind, so that it cannot leave its place.
func (t *sanTemplate) put(value string) (string, error) {
	if t.whole() {
		return value, nil
	}
	switch t.kind {
	case "dns":
		if strings.ContainsAny(value, ".*") {
			return "", fmt.Errorf("%q is not one label of a DNS name", clip(value))
		}
	case "email", "upn":
		if strings.Contains(value, "@") {
			return "", fmt.Errorf("%q has an @", clip(value))
		}
	case "uri":
		return document.PercentEncode(value), nil
	}
	return value, nil
}

// sample is a name that the template makes, for checks of the rules that all such names have in common; ok is false
// when there is no telling.
func (t *sanTemplate) sample() (name string, ok bool) {
	var b strings.Builder
	for _, part := range t.parts {
		switch {
		case part.sources == nil:
			b.WriteString(part.literal)
		case t.whole() || t.kind == "hardwareModuleName" && b.Len() == 0:
			return "", false
		default:
			b.WriteString("x")
		}
	}
	return t.prefix + b.String(), true
}

// buildTemplates parses the templates of subject and names, and holds them to the rules that can be told now.
func (p *Profile) buildTemplates(kindDefaults) error {
	for i, a := range p.config.Subject.Templates {
		field := fmt.Sprintf("subject.templates[%d]", i)
		t, err := attributeTypeByName(a.Type)
		if err != nil {
			return badField(field+".type", "%v", err)
		}
		if p.isFixed(t.oid) {
			return badField(field+".type", "%s is fixed", t.name)
		}
		if !t.many && p.isTemplated(t.oid) {
			return badField(field+".type", "%s stands twice", t.name)
		}
		parsed, err := parseTemplate(a.Value)
		if err != nil {
			return badField(field+".value", "%v", err)
		}
		if !slices.ContainsFunc(parsed.parts, func(part templatePart) bool { return part.sources != nil }) {
			return badField(field+".value", "the same in every certificate; put it into subject.fixed")
		}
		p.subjectTemplates = append(p.subjectTemplates, subjectTemplate{attribute: t, template: parsed})
	}
	if n := len(p.subjectFixed) + len(p.subjectTemplates); n > maxSubjectAttributes/2 {
		return badField("subject.templates", "more than %d attributes together with subject.fixed", maxSubjectAttributes/2)
	}
	for i, text := range p.sans.Templates {
		field := fmt.Sprintf("sans.templates[%d]", i)
		t, err := parseSANTemplate(text)
		if err != nil {
			return badField(field, "%v", err)
		}
		if !p.sans.allows(t.kind) {
			return badField(field, "makes a name of the kind %s, which is not allowed", t.kind).WithHint("add sans.%s", t.kind)
		}
		if sample, ok := t.sample(); ok {
			name, err := ParseSAN(sample)
			if err == nil {
				b := builder{p: p, in: &Input{}}
				err = b.add(&name)
			}
			if err != nil {
				return badField(field, "makes names that the profile refuses: %v", err)
			}
		}
		p.sanTemplates = append(p.sanTemplates, t)
	}
	if len(p.sanTemplates) > p.sans.Max {
		return badField("sans.templates", "more than sans.max, %d", p.sans.Max)
	}
	if p.sans.OnlyTemplates && len(p.sanTemplates) == 0 {
		return badField("sans.onlyTemplates", "without sans.templates there would be no names; leave the kinds of names out instead")
	}
	return nil
}

type subjectTemplate struct {
	attribute attributeType
	template  template
}

func (p *Profile) isTemplated(oid asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(p.subjectTemplates, func(t subjectTemplate) bool { return t.attribute.oid.Equal(oid) })
}

// consumes says whether a template puts the request's attribute of this type somewhere.
func (p *Profile) consumes(oid asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(p.subjectTemplates, func(t subjectTemplate) bool { return t.template.needs(oid) }) ||
		slices.ContainsFunc(p.sanTemplates, func(t sanTemplate) bool { return t.needs(oid) })
}

// expand puts the request's own values into a template.
func (b *builder) expand(t *template, put func(string) (string, error)) (string, error) {
	var out strings.Builder
	for _, part := range t.parts {
		if part.sources == nil {
			out.WriteString(part.literal)
			continue
		}
		value := ""
		for _, s := range part.sources {
			var err error
			if value, err = b.requested(s); err != nil {
				return "", err
			}
			if value != "" {
				break
			}
		}
		if value == "" {
			return "", refused(part.sources[0].field(), "the profile %s needs {%s}, which the request does not have", b.p.Name(), part.name)
		}
		value, err := put(value)
		if err != nil {
			return "", refused(part.sources[0].field(), "{%s} of the profile %s: %v", part.name, b.p.Name(), err)
		}
		out.WriteString(value)
	}
	return out.String(), nil
}

// field names the request's field that the value comes from.
func (s templateSource) field() string {
	switch {
	case s.san != "":
		return "sans"
	case s.attribute != nil:
		return "subject"
	}
	return "device"
}

// requested returns what the request itself says, in normal form; empty if nothing.
func (b *builder) requested(s templateSource) (string, error) {
	switch {
	case s.san != "":
		n := 0
		for i, from := 0, b.requestedSANs(); i < len(from); i++ {
			if sanKindOf(&from[i]) != s.san {
				continue
			}
			if n++; n <= s.index {
				continue
			}
			text, err := nameText(&from[i])
			if err != nil {
				return "", malformed(b.explicitSANs, "sans", "%v", err)
			}
			return text, nil
		}
		return "", nil
	case s.attribute != nil:
		n := 0
		for i, from := 0, b.requestedSubject(); i < len(from); i++ {
			if !from[i].Type.Equal(s.attribute) || from[i].Value == "" {
				continue
			}
			if n++; n <= s.index {
				continue
			}
			text, _, err := normalizeAttribute(typeOf(s.attribute), from[i].Value)
			if err != nil {
				return "", malformed(b.explicitSubject, "subject", "%s in the subject: %v", typeOf(s.attribute).name, err)
			}
			return text, nil
		}
		return "", nil
	}
	text, _, err := normalizeText(b.in.Device)
	if err != nil {
		return "", badField("device", "%v", err)
	}
	return text, nil
}

func (b *builder) requestedSubject() []der.Attribute {
	if b.explicitSubject {
		return b.in.Subject
	}
	return b.in.CSR.Subject
}

func (b *builder) requestedSANs() []der.GeneralName {
	if b.explicitSANs {
		return b.in.SANs
	}
	return b.in.CSR.SANs
}

// nameText returns the normal form of a name without its prefix, whatever the profile thinks of it.
func nameText(n *der.GeneralName) (string, error) {
	switch sanKindOf(n) {
	case "dns":
		bare, wildcard := strings.CutPrefix(n.Text, "*.")
		host, _, err := normalizeHost(bare, true)
		if wildcard {
			host = "*." + host
		}
		return host, err
	case "ip":
		addr, _ := netip.AddrFromSlice(n.Raw)
		addr, err := normalizeIP(addr)
		return addr.String(), err
	case "email":
		address, _, _, err := normalizeEmail(n.Text)
		return address, err
	case "uri":
		_, err := normalizeURI(n.Text)
		return n.Text, err
	case "upn":
		if n.Raw != nil {
			return "", errors.New("not a user principal name")
		}
		upn, _, _, err := normalizeUPN(n.Text)
		return upn, err
	}
	module, err := parseHardwareModule(n)
	return module.String(), err
}
