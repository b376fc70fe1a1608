package ca

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

// templateKey names what all certificates of one template have in common. Old templates, of profile versions and issuer
// certificates gone by, stay: there are few, and each is a kilobyte.
type templateKey struct {
	issuer  pki.Fingerprint
	profile string
	version int
	usage   x509.KeyUsage // follows from the type of the public key
}

// template returns the encoder for a profile under an issuer key, made once.
func (a *Authority) template(key *issuer.Key, p *Profile, alg keys.Algorithm) (*der.CertificateTemplate, error) {
	k := templateKey{issuer: key.Fingerprint, profile: p.Name(), version: p.Version, usage: p.KeyUsage(alg)}
	if t, ok := a.templates.Load(k); ok {
		return t.(*der.CertificateTemplate), nil
	}
	t, err := newTemplate(p.Profile, alg, key.Certificate, a.cfg.PublicURL, key.KeyID)
	if err != nil {
		return nil, fmt.Errorf("profile %q under issuer %q: %w", p.Name(), key.Issuer.Name, err)
	}
	a.templates.Store(k, t)
	return t, nil
}

// newTemplate prepares certificates that the given CA certificate issues. Its addresses name the key, not the issuer, so
// that they stay right when the issuer is renamed or gets another key.
func newTemplate(p *profile.Profile, alg keys.Algorithm, by *x509.Certificate, publicURL, keyID string) (*der.CertificateTemplate, error) {
	c := p.CertificateConfig(alg)
	var err error
	if c.SignatureAlgorithm, err = der.SignatureAlgorithmFor(by.PublicKey); err != nil {
		return nil, err
	}
	// Copied byte for byte: verifiers compare the encodings (RFC 5280, Section 4.1.2.4, and Section 4.2.1.1).
	c.Issuer, c.AuthorityKeyID = by.RawSubject, by.SubjectKeyId
	if p.CRLAddress() {
		c.CRLDistributionPoints = []string{publicURL + pki.CRLPath(keyID, pki.ScopeFull)}
	}
	if p.OCSPAddress() {
		c.OCSPServers = []string{publicURL + "/ocsp/" + keyID}
	}
	c.CAIssuers = []string{publicURL + "/ca/" + keyID + ".cer"}
	return der.NewCertificateTemplate(c)
}

func parseProfile(r pki.ProfileVersion) (*profile.Profile, error) {
	c, err := profile.ParseConfig(r.Config)
	if err != nil {
		return nil, err
	}
	if c.Name != r.Name {
		return nil, fault.New(fault.PolicyRefused, "the configuration names the profile %q, and is kept as %q", c.Name, r.Name)
	}
	if r.Builtin {
		return profile.NewBuiltin(c)
	}
	return profile.New(c)
}

// internalProfile returns a profile of the server's own. They are part of the program, not of the store.
func internalProfile(name string) (*Profile, error) {
	for _, c := range profile.Builtins() {
		if c.Name != name || !c.Internal {
			continue
		}
		p, err := profile.NewBuiltin(c)
		if err != nil {
			return nil, fmt.Errorf("internal profile %q: %w", name, err)
		}
		return &Profile{Profile: p, Version: 1}, nil
	}
	return nil, fmt.Errorf("there is no internal profile %q", name)
}

// bounds returns what an issuer key's certificate allows below it, with the name constraints of every CA above.
func (a *Authority) bounds(key *issuer.Key) (profile.Issuer, error) {
	if b, ok := a.issuers.Load(key.Fingerprint); ok {
		return b.(profile.Issuer), nil
	}
	c := key.Certificate
	b := profile.Issuer{NotBefore: c.NotBefore, NotAfter: c.NotAfter}
	if c.MaxPathLen > 0 || c.MaxPathLenZero {
		b.PathLen = &c.MaxPathLen
	}
	for _, above := range key.Chain() {
		for _, e := range above.Extensions {
			if !e.Id.Equal(oidNameConstraints) {
				continue
			}
			n, err := profile.ParseConstraints(e.Value)
			if err != nil {
				return profile.Issuer{}, fmt.Errorf("name constraints of issuer %q: %w", key.Issuer.Name, err)
			}
			b.Constraints = append(b.Constraints, n)
		}
	}
	a.issuers.Store(key.Fingerprint, b)
	return b, nil
}

var oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
