package profile

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// The functions of this file turn a name into its one written form or say what is wrong with it. Their errors may be
// shown to the requester; whoever calls them puts the fault's kind and field to it.

// hostNames maps U-labels as people type them to A-labels, and checks A-labels (RFC 5891, Section 4; UTS #46,
// non-transitional).
var hostNames = idna.New(
	idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.CheckHyphens(true), idna.CheckJoiners(true),
	idna.StrictDomainName(true), idna.VerifyDNSLength(true),
)

// normalizeHost returns a host name as lower-case A-labels (RFC 5280, Section 7.2). warning is not empty when a label
// mixes scripts.
func normalizeHost(name string, underscores bool) (host, warning string, err error) {
	if !isASCII(name) {
		if !utf8.ValidString(name) {
			return "", "", errors.New("not valid UTF-8")
		}
		if err := checkRunes(name); err != nil {
			return "", "", err
		}
		ascii, err := hostNames.ToASCII(name)
		if err != nil {
			return "", "", fmt.Errorf("%q is not an internationalized domain name", clip(name))
		}
		host, warning = ascii, mixedScripts(norm.NFC.String(name))
	} else {
		host = strings.ToLower(name)
	}
	if err := checkHost(host, underscores); err != nil {
		return "", "", err
	}
	if warning == "" && strings.Contains(host, "xn--") {
		// An A-label that is none, or not in the form its U-label maps to, reads differently to different programs.
		unicode, err := hostNames.ToUnicode(host)
		if err != nil {
			return "", "", fmt.Errorf("%q has an A-label (xn--) that stands for no name", clip(host))
		}
		if again, err := hostNames.ToASCII(unicode); err != nil || again != host {
			return "", "", fmt.Errorf("%q has an A-label (xn--) that is not in its normal form", clip(host))
		}
		warning = mixedScripts(unicode)
	}
	return host, warning, nil
}

// checkHost checks the preferred name syntax (RFC 1034, Section 3.5; RFC 1123, Section 2.1) of a lower-case name.
func checkHost(s string, underscores bool) error {
	if s == "" {
		return errors.New("an empty DNS name")
	}
	if len(s) > 253 {
		return fmt.Errorf("%q is a DNS name of more than 253 characters", clip(s))
	}
	start, digits := 0, true
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			switch c := s[i]; {
			case c >= '0' && c <= '9':
			case c >= 'a' && c <= 'z', c == '-':
				digits = false
			case c == '_':
				if !underscores {
					return fmt.Errorf("%q has an underscore, which host names do not have", clip(s))
				}
				digits = false
			case c == '*':
				return fmt.Errorf("%q has a wildcard that is not the whole leftmost label", clip(s))
			default:
				return fmt.Errorf("%q has a character that DNS names do not have", clip(s))
			}
			continue
		}
		label := s[start:i]
		switch {
		case label == "" && i == len(s) && i > 0:
			return fmt.Errorf("%q ends with a dot", clip(s))
		case label == "":
			return fmt.Errorf("%q has an empty label", clip(s))
		case len(label) > 63:
			return fmt.Errorf("%q has a label of more than 63 characters", clip(s))
		case label[0] == '-' || label[len(label)-1] == '-':
			return fmt.Errorf("%q has a label that begins or ends with a hyphen", clip(s))
		case len(label) >= 4 && label[2:4] == "--" && label[:2] != "xn": // RFC 5891, Section 4.2.3.1
			return fmt.Errorf("%q has hyphens in the third and fourth place of a label", clip(s))
		case i == len(s) && digits:
			return fmt.Errorf("%q ends in numbers as IP addresses do", clip(s))
		}
		start, digits = i+1, true
	}
	return nil
}

// looksLikeHost says whether text could be taken for a host name by a verifier that reads the common name, and returns
// it in normal form; a wildcard is included.
func looksLikeHost(text string) (string, bool) {
	host, _, err := normalizeHost(strings.TrimPrefix(text, "*."), true)
	if err != nil {
		return "", false
	}
	if strings.HasPrefix(text, "*.") {
		host = "*." + host
	}
	return host, true
}

// normalizeIP returns the address without zone, IPv4-mapped ones as IPv4 (RFC 5280, Section 4.2.1.6).
func normalizeIP(addr netip.Addr) (netip.Addr, error) {
	addr = addr.Unmap()
	switch {
	case !addr.IsValid():
		return addr, errors.New("not an IP address of 4 or 16 octets")
	case addr.Zone() != "":
		return addr, errors.New("an IP address with a zone")
	case addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return addr, fmt.Errorf("%s is the address of no single host", addr)
	}
	return addr, nil
}

// normalizeEmail returns a Mailbox (RFC 5321, Section 4.1.2) with its domain as lower-case A-labels, and that domain.
// Quoted local parts, address literals and local parts beyond ASCII are refused: verifiers compare them in different
// ways, and SmtpUTF8Mailbox (RFC 9598) hardly any of them reads.
func normalizeEmail(s string) (address, domain, warning string, err error) {
	at := strings.LastIndexByte(s, '@')
	if at < 1 {
		return "", "", "", fmt.Errorf("%q is not an email address", clip(s))
	}
	local := s[:at]
	if len(local) > 64 || local[0] == '.' || local[at-1] == '.' || strings.Contains(local, "..") {
		return "", "", "", fmt.Errorf("%q is not an email address", clip(s))
	}
	for i := range len(local) {
		if c := local[i]; c <= ' ' || c > '~' || strings.IndexByte(`"(),:;<>@[\]`, c) >= 0 {
			return "", "", "", fmt.Errorf("%q has characters before the @ that an email address here may not have", clip(s))
		}
	}
	domain, warning, err = normalizeHost(s[at+1:], false)
	if err != nil {
		return "", "", "", fmt.Errorf("%q is not an email address: %w", clip(s), err)
	}
	if len(local)+1+len(domain) > 254 { // RFC 5321, Section 4.5.3.1.3, without the angle brackets
		return "", "", "", fmt.Errorf("%q is an email address of more than 254 characters", clip(s))
	}
	return local + "@" + domain, domain, warning, nil
}

// maxURI is the longest URI; browsers and proxies stop at 2 to 8 KiB.
const maxURI = 2048

// normalizeURI checks an absolute URI in ASCII (RFC 5280, Section 4.2.1.6; RFC 3986, Section 4.3) and returns its host
// in normal form, empty if it has none. The text stays as it is: URIs are compared octet by octet.
func normalizeURI(s string) (host string, err error) {
	if len(s) > maxURI {
		return "", fmt.Errorf("%q is a URI of more than %d characters", clip(s), maxURI)
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || strings.IndexByte("<>\"\\^`{|}", c) >= 0 {
			return "", fmt.Errorf("%q has characters that a URI writes percent-encoded", clip(s))
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || strings.HasSuffix(s, ":") || u.Opaque == "" && u.Host == "" && u.Path == "" {
		return "", fmt.Errorf("%q is not an absolute URI", clip(s))
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." { // would step out of what a prefix allows
			return "", fmt.Errorf("%q has dot segments", clip(s))
		}
	}
	if u.Host == "" {
		if strings.Contains(s, "://") && u.Opaque == "" && !strings.HasPrefix(s, u.Scheme+":///") {
			return "", fmt.Errorf("%q is a URI whose host is empty", clip(s))
		}
		return "", nil
	}
	name := u.Hostname()
	if addr, err := netip.ParseAddr(name); err == nil {
		if addr, err = normalizeIP(addr); err != nil {
			return "", fmt.Errorf("%q: %w", clip(s), err)
		}
		return addr.String(), nil
	}
	host, _, err = normalizeHost(name, true)
	if err != nil {
		return "", fmt.Errorf("the host of the URI: %w", err)
	}
	return host, nil
}

// normalizeUPN returns a user principal name, user@realm in NFC, and its realm in lower case.
func normalizeUPN(s string) (name, realm, warning string, err error) {
	if name, warning, err = normalizeText(s); err != nil {
		return "", "", "", err
	}
	user, realm, found := strings.Cut(name, "@")
	if !found || user == "" || len(name) > 1024 || strings.ContainsAny(user, ` "*`) {
		return "", "", "", fmt.Errorf("%q is not a user principal name, user@realm", clip(s))
	}
	if realm, _, err = normalizeHost(realm, false); err != nil {
		return "", "", "", fmt.Errorf("%q is not a user principal name, user@realm: %w", clip(s), err)
	}
	return name, realm, warning, nil
}

// normalizeText returns text in NFC without spaces around it. Control and format characters, which hide or reorder
// what a person reads, are refused. warning is not empty when a word mixes scripts.
func normalizeText(s string) (text, warning string, err error) {
	s = strings.Trim(s, " ")
	plain := true
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return s, "", nil
	}
	if !utf8.ValidString(s) {
		return "", "", errors.New("not valid UTF-8")
	}
	if err := checkRunes(s); err != nil {
		return "", "", err
	}
	s = norm.NFC.String(s)
	return s, mixedScripts(s), nil
}

func checkRunes(s string) error {
	for _, r := range s {
		switch {
		case unicode.IsControl(r): // with NUL and ESC
			return fmt.Errorf("a control character (U+%04X)", r)
		case r == '\u200c' || r == '\u200d': // joiners, which Persian and Indic scripts need
		case unicode.Is(unicode.Cf, r): // bidirectional controls, zero-width spaces, tags
			return fmt.Errorf("an invisible character (U+%04X)", r)
		case unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			return fmt.Errorf("a line separator (U+%04X)", r)
		case r == utf8.RuneError, r&0xfffe == 0xfffe, r >= 0xfdd0 && r <= 0xfdef, unicode.Is(unicode.Co, r):
			return fmt.Errorf("a code point that is no character (U+%04X)", r)
		}
	}
	return nil
}

// mixedScripts warns when one word or label has letters of scripts that are not written together, as in a Latin word
// with a Cyrillic a. It is a hint to the reader, no protection.
func mixedScripts(s string) string {
	if isASCII(s) {
		return ""
	}
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) }) {
		first := ""
		for _, r := range word {
			script := scriptOf(r)
			if script == "" || script == first {
				continue
			}
			if first != "" {
				return fmt.Sprintf("%q mixes %s and %s letters", clip(word), first, script)
			}
			first = script
		}
	}
	return ""
}

// scriptOf returns the name of a letter's script, empty for common and inherited ones. The scripts of Chinese, Japanese
// and Korean are written together (UTS #39, Section 5.1).
func scriptOf(r rune) string {
	if r < utf8.RuneSelf {
		return "Latin"
	}
	for _, s := range [...]struct {
		name  string
		table *unicode.RangeTable
	}{
		{"Latin", unicode.Latin},
		{"Cyrillic", unicode.Cyrillic},
		{"Greek", unicode.Greek},
		{"East Asian", unicode.Han},
		{"East Asian", unicode.Hiragana},
		{"East Asian", unicode.Katakana},
		{"East Asian", unicode.Hangul},
		{"East Asian", unicode.Bopomofo},
		{"", unicode.Common},
		{"", unicode.Inherited},
	} {
		if unicode.Is(s.table, r) {
			return s.name
		}
	}
	for name, table := range unicode.Scripts {
		if unicode.Is(table, r) {
			return name
		}
	}
	return ""
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// within says whether name is what pattern stands for: "example.com" is itself and all names below, ".example.com"
// those below only, "" all. Both are in normal form. A wildcard is within when all names it covers are.
func within(name, pattern string) bool {
	name = strings.TrimPrefix(name, "*")
	// "*.example.com" has become ".example.com", which ends like the names it covers.
	if below, found := strings.CutPrefix(pattern, "."); found {
		return len(name) > len(below)+1 && strings.HasSuffix(name, pattern) || name == pattern
	}
	return pattern == "" || name == pattern || strings.HasSuffix(name, pattern) && name[len(name)-len(pattern)-1] == '.'
}

// touches says whether name, or a name that it covers as a wildcard, is what pattern stands for.
func touches(name, pattern string) bool {
	if within(name, pattern) {
		return true
	}
	base, wildcard := strings.CutPrefix(name, "*.")
	if !wildcard || strings.HasPrefix(pattern, ".") {
		return false
	}
	// *.example.com covers one more label: it touches host.example.com, not a.host.example.com.
	_, parent, found := strings.Cut(pattern, ".")
	return found && parent == base
}

// hostMatches is the rule for the hosts of addresses and URIs (RFC 5280, Section 4.2.1.10): "example.com" is that host
// alone, ".example.com" all hosts below.
func hostMatches(host, pattern string) bool {
	if strings.HasPrefix(pattern, ".") {
		return len(host) > len(pattern) && strings.HasSuffix(host, pattern)
	}
	return host == pattern
}
