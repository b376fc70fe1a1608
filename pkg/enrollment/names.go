package enrollment

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

// names are a point's templates of the names in certificates. The zero value has none.
type names struct {
	subject []attributeTemplate
	sans    []sanTemplate
}

type attributeTemplate struct {
	der.Attribute // Value is empty
	template
}

// sanTemplate is a template of an alternative name.
type sanTemplate struct {
	template
	prefix string // as in "DNS:"
}

// template is text with placeholders for what the registry says of a device.
type template []templatePart

type templatePart struct {
	literal     string
	placeholder string // as written between the braces; empty for a literal
}

// maxTemplate is the longest template in octets.
const maxTemplate = 1000

const labelPrefix = "label:"

func parseTemplate(text string) (template, error) {
	var t template
	err := document.ScanTemplate(text, func(literal string) {
		t = append(t, templatePart{literal: literal})
	}, func(name string) error {
		if label, ok := strings.CutPrefix(name, labelPrefix); !slices.Contains([]string{"device", "group", "owner"}, name) && (!ok || label == "") {
			return fmt.Errorf("{%s} stands for nothing; there are {device}, {group}, {owner} and {label:NAME}", cut(name, 60))
		}
		t = append(t, templatePart{placeholder: name})
		return nil
	})
	if err == nil && len(t) == 0 {
		err = errors.New("it is empty")
	}
	return t, err
}

// whole says that the template is a placeholder and nothing else.
func (t template) whole() bool { return len(t) == 1 && t[0].placeholder != "" }

func (t template) fixed() bool {
	return !slices.ContainsFunc(t, func(p templatePart) bool { return p.placeholder != "" })
}

// expand puts a device's own values in. put makes each of them fit its place.
func (t template) expand(d *pki.Device, put func(string) (string, error)) (string, error) {
	var out strings.Builder
	for _, part := range t {
		if part.placeholder == "" {
			out.WriteString(part.literal)
			continue
		}
		value := ""
		switch part.placeholder {
		case "device":
			value = d.ID
		case "group":
			value = d.Group
		case "owner":
			value = d.Owner
		default:
			value = d.Labels[strings.TrimPrefix(part.placeholder, labelPrefix)]
		}
		if value == "" {
			return "", fault.New(fault.PolicyRefused, "the enrollment point makes names of {%s}, and nothing is known of that", part.placeholder)
		}
		value, err := put(value)
		if err != nil {
			return "", fault.New(fault.PolicyRefused, "the enrollment point makes names of {%s}, and %v", part.placeholder, err)
		}
		out.WriteString(value)
	}
	return out.String(), nil
}

// The kinds of names that a template can make, by their prefixes.
var sanPrefixes = []string{"DNS:", "IP:", "email:", "URI:", "UPN:"}

// parseNames reads the templates of a point. Errors are faults of the kind BadRequest with the field.
func parseNames(subject string, sans []string) (names, error) {
	var n names
	if len(subject) > maxTemplate {
		return n, bad("subject", "it has more than %d octets", maxTemplate)
	}
	if subject != "" {
		// The text is taken apart before anything is put in: what a device is called stays within its attribute.
		attributes, err := profile.ParseSubject(subject)
		if err != nil {
			return n, err
		}
		for _, a := range attributes {
			t, err := parseTemplate(a.Value)
			if err != nil {
				return n, bad("subject", "%v", err)
			}
			n.subject = append(n.subject, attributeTemplate{Attribute: der.Attribute{Type: a.Type}, template: t})
		}
		if len(n.subject) == 0 {
			return n, bad("subject", "it has no attribute; write it as in CN={device},O=Example")
		}
	}
	if len(sans) > maxSANs {
		return n, bad("sans", "there are more than %d", maxSANs)
	}
	for i, text := range sans {
		t, err := parseSANTemplate(text)
		if err != nil {
			return n, bad(fmt.Sprintf("sans[%d]", i), "%v", err)
		}
		n.sans = append(n.sans, t)
	}
	return n, nil
}

func parseSANTemplate(text string) (sanTemplate, error) {
	if len(text) > maxTemplate {
		return sanTemplate{}, fmt.Errorf("it has more than %d octets", maxTemplate)
	}
	i := slices.IndexFunc(sanPrefixes, func(p string) bool { return len(text) >= len(p) && strings.EqualFold(text[:len(p)], p) })
	if i < 0 {
		return sanTemplate{}, errors.New("it does not begin with the kind of name: " + strings.Join(sanPrefixes, ", "))
	}
	s := sanTemplate{prefix: sanPrefixes[i]}
	var err error
	if s.template, err = parseTemplate(strings.TrimSpace(text[len(s.prefix):])); err != nil {
		return s, err
	}
	if s.prefix == "IP:" && !s.whole() && !s.fixed() {
		return s, errors.New("an IP address is not put together from parts")
	}
	if s.whole() {
		return s, nil
	}
	sample, err := s.expand(s.sample(), func(v string) (string, error) { return v, nil })
	if err != nil {
		return s, err
	}
	if _, err := profile.ParseSAN(s.prefix + sample); err != nil {
		return s, errors.New(fault.Public(err).Detail)
	}
	return s, nil
}

// sample is a device of which everything is known that the template names.
func (t template) sample() *pki.Device {
	d := &pki.Device{ID: "x", Group: "x", Owner: "x", Labels: map[string]string{}}
	for _, part := range t {
		if label, ok := strings.CutPrefix(part.placeholder, labelPrefix); ok {
			d.Labels[label] = "x"
		}
	}
	return d
}

// put returns a value as it may stand inside a name of this kind, so that it cannot leave its place.
func (s *sanTemplate) put(value string) (string, error) {
	if s.whole() {
		return value, nil
	}
	switch s.prefix {
	case "DNS:":
		if strings.ContainsAny(value, ".*") {
			return "", fmt.Errorf("%q is not one label of a DNS name", cut(value, 60))
		}
	case "email:", "UPN:":
		if strings.Contains(value, "@") {
			return "", fmt.Errorf("%q has an @", cut(value, 60))
		}
	case "URI:":
		return document.PercentEncode(value), nil
	}
	return value, nil
}

func (n *names) render(d pki.Device) (Binding, error) {
	b := Binding{Of: "the enrollment point"}
	for _, a := range n.subject {
		value, err := a.expand(&d, func(v string) (string, error) { return v, nil })
		if err != nil {
			return Binding{}, err
		}
		b.Subject = append(b.Subject, der.Attribute{Type: a.Type, Value: value})
	}
	for i := range n.sans {
		s := &n.sans[i]
		value, err := s.expand(&d, s.put)
		if err != nil {
			return Binding{}, err
		}
		name, err := profile.ParseSAN(s.prefix + value)
		if err != nil {
			return Binding{}, fault.Wrap(fault.PolicyRefused, err, "the enrollment point makes a name of %q that is none", cut(d.ID, 60))
		}
		b.SANs = append(b.SANs, name)
	}
	return b, nil
}

// Binding is what the names of a certificate must be. The zero value binds nothing.
type Binding struct {
	// Subject and SANs are all there may be. Nil leaves open what the other does not say: with a subject alone, the only
	// alternative name is its common name as a DNS name; with names alone, a subject has common names that are among them.
	Subject []der.Attribute
	SANs    []der.GeneralName
	// Of is who binds, for messages, as in "the challenge".
	Of string
}

// ParseBinding reads names as the store keeps them: in RFC 4514 form, and as in "DNS:a.example.com". An empty subject and no
// names bind nothing. Errors are faults of the kind BadRequest with the field.
func ParseBinding(of, subject string, sans []string) (Binding, error) {
	b := Binding{Of: of}
	var err error
	if subject != "" {
		if b.Subject, err = profile.ParseSubject(subject); err != nil {
			return Binding{}, err
		}
	}
	if len(sans) > 0 {
		b.SANs, err = profile.ParseSANs(sans...)
	}
	return b, err
}

// Binds reports whether the binding says anything.
func (b Binding) Binds() bool { return len(b.Subject) > 0 || len(b.SANs) > 0 }

// Combine returns what several bindings say together: all of them hold, and none widens another. Two that say different
// things are a fault of the kind PolicyRefused.
func Combine(all ...Binding) (Binding, error) {
	var out Binding
	var subject, sans string // who has said it
	for _, b := range all {
		if len(b.Subject) > 0 {
			if out.Subject == nil {
				out.Subject, subject = b.Subject, b.Of
			} else if !sameSubject(out.Subject, b.Subject) {
				return Binding{}, fault.New(fault.PolicyRefused, "%s and %s name different subjects: %s, and %s",
					subject, b.Of, profile.FormatSubject(out.Subject), profile.FormatSubject(b.Subject)).WithField("subject")
			}
		}
		if len(b.SANs) > 0 {
			if out.SANs == nil {
				out.SANs, sans = b.SANs, b.Of
			} else if !sameNames(out.SANs, b.SANs) {
				return Binding{}, fault.New(fault.PolicyRefused, "%s and %s name different subject alternative names", sans, b.Of).WithField("sans")
			}
		}
	}
	if out.Of = subject; subject == "" {
		out.Of = sans
	}
	return out, nil
}

// Admit returns the names that a request's certificate gets, or why it gets none. Nil stands for those of the request.
// Errors are faults of the kind PolicyRefused.
func (b Binding) Admit(subject []der.Attribute, sans []der.GeneralName) ([]der.Attribute, []der.GeneralName, error) {
	if !b.Binds() {
		return nil, nil, nil
	}
	refuse := func(what string) error {
		return fault.New(fault.PolicyRefused, "%s does not allow this %s: it is another device's", b.Of, what)
	}
	var own []string // common names: a DNS name that says the same is no other name
	for _, a := range b.Subject {
		if a.Type.Equal(pki.OIDCommonName) {
			own = append(own, strings.ToLower(a.Value))
		}
	}
	if b.Subject != nil {
		if !sameSubject(b.Subject, subject) {
			return nil, nil, refuse("subject")
		}
	} else {
		for _, a := range subject {
			named := slices.ContainsFunc(b.SANs, func(n der.GeneralName) bool { return strings.EqualFold(n.Text, a.Value) })
			if !a.Type.Equal(pki.OIDCommonName) || !named {
				return nil, nil, refuse("subject")
			}
		}
	}
	for _, n := range sans {
		asked := func(b der.GeneralName) bool { return sameName(n, b) }
		if !slices.ContainsFunc(b.SANs, asked) && (n.Tag != der.TagDNSName || !slices.Contains(own, strings.ToLower(n.Text))) {
			return nil, nil, refuse("subject alternative name")
		}
	}
	return b.Subject, b.SANs, nil
}

// sameSubject compares subjects without regard to letter case, space and order (RFC 5280, Section 7.1).
func sameSubject(a, b []der.Attribute) bool {
	return slices.Equal(normal(a), normal(b))
}

func normal(attributes []der.Attribute) []string {
	list := make([]string, 0, len(attributes))
	for _, a := range attributes {
		if a.Value != "" {
			list = append(list, a.Type.String()+"="+strings.ToLower(strings.Join(strings.Fields(a.Value), " ")))
		}
	}
	slices.Sort(list)
	return list
}

// sameNames compares sets of names.
func sameNames(a, b []der.GeneralName) bool {
	within := func(a, b []der.GeneralName) bool {
		return !slices.ContainsFunc(a, func(n der.GeneralName) bool {
			return !slices.ContainsFunc(b, func(m der.GeneralName) bool { return sameName(n, m) })
		})
	}
	return within(a, b) && within(b, a)
}

func sameName(a, b der.GeneralName) bool {
	return a.Tag == b.Tag && strings.EqualFold(a.Text, b.Text) && slices.Equal(a.Raw, b.Raw) && a.TypeID.Equal(b.TypeID)
}
