package auth

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

// Bounds of a name rule's text.
const (
	maxRuleText  = 256
	maxRuleStars = 8
)

// NameRule says which names of one kind somebody may have certified: KIND:PATTERN, as in DNS:*.dev.example.com or
// IP:10.0.0.0/8. A kind is one of the alternative names' (DNS, IP, URI, email, UPN, HMN), or an attribute type of
// subjects (CN, O, OU, ...). In a pattern a star stands for any run of characters, none and dots included; IP takes an
// address, a network, or a star. Letter case does not matter, save in URI and HMN. The zero value allows nothing.
type NameRule struct {
	kind    string
	pattern string
	network netip.Prefix // of IP, unless the pattern is a star
}

var sanKinds = []string{"DNS", "IP", "URI", "email", "UPN", "HMN"}

// ParseNameRule reads a rule. Errors are faults of the kind BadRequest.
func ParseNameRule(text string) (NameRule, error) {
	refuse := func(format string, args ...any) (NameRule, error) {
		return NameRule{}, fault.New(fault.BadRequest, "the name rule: "+format, args...).
			WithHint("write it as DNS:*.dev.example.com, IP:10.0.0.0/8, email:*@example.com, CN:* or O:Example")
	}
	if len(text) > maxRuleText || !utf8.ValidString(text) || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return refuse("it has more than %d octets, or characters that cannot be printed", maxRuleText)
	}
	kind, pattern, ok := strings.Cut(text, ":")
	if !ok || pattern == "" {
		return refuse("%q is not of the form KIND:PATTERN", text)
	}
	if i := slices.IndexFunc(sanKinds, func(k string) bool { return strings.EqualFold(k, kind) }); i >= 0 {
		kind = sanKinds[i]
	} else if name, ok := profile.AttributeType(kind); ok {
		kind = name
	} else {
		return refuse("there is no kind of name %q; there are %s, and the attributes of subjects such as CN and O", kind, strings.Join(sanKinds, ", "))
	}
	if strings.Count(pattern, "*") > maxRuleStars {
		return refuse("more than %d stars", maxRuleStars)
	}
	r := NameRule{kind: kind, pattern: fold(kind, pattern)}
	if kind == "IP" && pattern != "*" {
		var err error
		if r.network, err = parseNetwork(pattern); err != nil {
			return refuse("%q is no address, network or star", pattern)
		}
		r.pattern = r.network.String()
	}
	if kind == "DNS" && strings.ContainsFunc(r.pattern, func(c rune) bool {
		return c != '*' && c != '.' && c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z')
	}) {
		return refuse("%q has characters that no DNS name has; write A-labels (xn--...)", pattern)
	}
	return r, nil
}

// parseNetwork reads an address or a network. Bits behind the prefix are a mistake.
func parseNetwork(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err == nil && (p.Masked() != p || p.Addr().Is4In6()) {
		err = fmt.Errorf("%q is not the beginning of a network", text)
	}
	return p, err
}

// fold makes names of a kind comparable octet by octet.
func fold(kind, name string) string {
	if kind == "URI" || kind == "HMN" {
		return name
	}
	return strings.ToLower(name)
}

// String returns the rule as ParseNameRule reads it.
func (r NameRule) String() string { return r.kind + ":" + r.pattern }

// Allows reports whether a name of this kind is one of the rule's.
func (r NameRule) Allows(kind, name string) bool {
	if r.kind == "" || kind != r.kind {
		return false
	}
	if kind == "IP" && r.network.IsValid() {
		ip, err := netip.ParseAddr(name)
		return err == nil && r.network.Contains(ip.Unmap())
	}
	return glob(r.pattern, fold(kind, name))
}

// Covers reports whether every name that the other rule allows is one of this rule's. It never says so wrongly; of two
// patterns with several stars it may overlook it.
func (r NameRule) Covers(other NameRule) bool {
	switch {
	case r.kind == "" || r.kind != other.kind:
		return false
	case r.network.IsValid():
		return other.network.IsValid() && r.network.Bits() <= other.network.Bits() && r.network.Contains(other.network.Addr())
	}
	// A star of the other pattern is matched by a star of this one alone, as whatever it stands for then is, too. The same
	// holds for the star of a wildcard name.
	return glob(r.pattern, other.pattern)
}

// glob matches a name with a pattern whose stars stand for any run of characters. A star in the name is matched by a star
// only.
func glob(pattern, name string) bool {
	p, n := 0, 0
	star, mark := -1, 0 // the last star seen, and where the name goes on after what it has taken
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// MayName refuses names that are outside the principal's rules, if he has any: of alternative names and of the subject's
// attributes each must be allowed by one of the rules. A CN that repeats an alternative name needs none of its own. Names
// are given as KIND:NAME. A rule that cannot be read allows nothing.
func MayName(p pki.Principal, subject, sans []string) error {
	if len(p.Names) == 0 {
		return nil
	}
	rules := make([]NameRule, 0, len(p.Names))
	for _, text := range p.Names {
		if r, err := ParseNameRule(text); err == nil {
			rules = append(rules, r)
		}
	}
	allowed := func(name string) bool {
		kind, name, _ := strings.Cut(name, ":")
		return slices.ContainsFunc(rules, func(r NameRule) bool { return r.Allows(kind, name) })
	}
	refuse := func(field, name string) error {
		return fault.New(fault.Forbidden, "this token may not have %q certified", name).WithField(field).
			WithHint("it may name %s", strings.Join(p.Names, ", "))
	}
	for _, name := range sans {
		if !allowed(name) {
			return refuse("sans", name)
		}
	}
	for _, name := range subject {
		cn, isCN := strings.CutPrefix(name, "CN:")
		repeats := isCN && slices.ContainsFunc(sans, func(san string) bool {
			_, value, _ := strings.Cut(san, ":")
			return value == cn
		})
		if !repeats && !allowed(name) {
			return refuse("subject", name)
		}
	}
	return nil
}

// widerNames reports whether some of the names that want allows are outside those that have allows.
func widerNames(have, want []string) bool {
	if len(have) == 0 {
		return false
	}
	return len(want) == 0 || slices.ContainsFunc(want, func(w string) bool {
		rule, err := ParseNameRule(w)
		return err != nil || !slices.ContainsFunc(have, func(h string) bool {
			mine, err := ParseNameRule(h)
			return err == nil && mine.Covers(rule)
		})
	})
}
