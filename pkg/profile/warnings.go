package profile

import "fmt"

// Warnings say what in the profile is allowed, but odd enough to be a mistake. They are for whoever wrote it.
func (p *Profile) Warnings() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	c := &p.config
	if c.NoRevAvail && p.maxLife > 7*day {
		add("noRevAvail with a life of up to %s: nobody can learn that a certificate was revoked; RFC 9608 is for short lives", p.maxLife)
	}
	if !c.NoRevAvail && c.NoCRLAddress && c.NoOCSPAddress && c.CA == nil && !c.OCSPNoCheck {
		add("neither the address of a CRL nor of an OCSP responder: verifiers cannot learn that a certificate was revoked")
	}
	if c.NoRevAvail && (c.NoCRLAddress || c.NoOCSPAddress) {
		add("noCRLAddress and noOCSPAddress say nothing beside noRevAvail")
	}
	if c.Kind == KindServer && p.maxLife > 825*day {
		add("lives of more than 825 days are refused by Apple's programs, even for private CAs")
	}
	if p.sans.DNS != nil && p.sans.DNS.Wildcards && len(p.sans.DNS.Suffixes) == 0 {
		add("wildcards in any domain; sans.dns.suffixes would bound them")
	}
	if len(c.Subject.Required) == 0 && len(p.sans.RequireOneOf) == 0 && c.Kind == KindServer && len(p.sanTemplates) == 0 {
		add("a server that no name is required of: sans.requireOneOf [\"dns\", \"ip\"] is the default of this kind")
	}
	return out
}
