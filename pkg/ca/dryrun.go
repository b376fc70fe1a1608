package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"sync"
	"time"

	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

// What marks the certificate of a dry run: a name that no CA has, and a serial number that NewSerialNumber never draws,
// since it begins with another octet.
const (
	dryRunIssuer = "Dry run: this certificate was not issued"
	dryRunSerial = "DRY-RUN-NOT-REAL" // 16 octets
)

// DryRun is what Issue would make.
type DryRun struct {
	Profile  *Profile
	Contents profile.Contents
	// Issuer is the CA certificate that would sign.
	Issuer *x509.Certificate
	// Certificate is signed by a key that is gone by now, in the name of nobody. It differs from the one that Issue
	// would make in issuer, serial number, authority key identifier and signature.
	Certificate *x509.Certificate
}

// DryRun goes the way of Issue up to the signature, with the same refusals, and records nothing. With a configuration it
// takes that in place of the profile in force; the request's profile is then ignored.
func (a *Authority) DryRun(ctx context.Context, r Request, c *profile.Config) (*DryRun, error) {
	var p *Profile
	var err error
	if c != nil {
		var plan ProfilePlan
		if plan, err = a.PlanProfile(ctx, *c); err != nil {
			return nil, err
		}
		p = &Profile{Profile: plan.Profile, Record: plan.Current}
	} else if p, err = a.Profile(r.Profile); err != nil {
		return nil, err
	}
	key, err := a.admit(p, r)
	if err != nil {
		return nil, err
	}
	now, err := a.cfg.Clock.Check()
	if err != nil {
		return nil, err
	}
	contents, fields, err := a.prepare(key, p, r, r.CSR.PublicKey, r.CSR.SPKI, now)
	if err != nil {
		return nil, err
	}
	at, _ := a.distributionOf(key, p)
	_, _, fields.CRLDistributionPoint = at.of(dryRunSerial)
	raw, err := a.signDryRun(p, contents, fields, key.KeyID)
	if err != nil {
		return nil, err
	}
	made, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "reading the certificate of a dry run")
	}
	return &DryRun{Profile: p, Contents: contents, Issuer: key.Certificate, Certificate: made}, nil
}

func (a *Authority) signDryRun(p *Profile, c profile.Contents, fields der.CertificateFields, keyID string) ([]byte, error) {
	signer, err := keys.Generate(keys.P256)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	name, err := der.AppendName(nil, [][]der.Attribute{{{Type: pki.OIDCommonName, Value: dryRunIssuer}}})
	if err != nil {
		return nil, err
	}
	by := &x509.Certificate{RawSubject: name, SubjectKeyId: der.SubjectKeyID(spki), PublicKey: signer.Public()}
	t, err := newTemplate(p.Profile, c.KeyAlgorithm, by, a.cfg.PublicURL, keyID)
	if err != nil {
		return nil, err
	}
	fields.SerialNumber = []byte(dryRunSerial)
	return sign(t, &fields, signer)
}

// CheckNames goes the way of Issue as far as the profile and the issuer judge names, for a request without CSR whose subject
// and alternative names are settled beforehand. A nil subject or nil names are left to the request: whatever fits the others
// is taken for it. What a request's key or origin would be refused for is left aside. Errors are faults of the kinds
// BadRequest, PolicyRefused and NotFound.
func (a *Authority) CheckNames(r Request) error {
	p, err := a.Profile(r.Profile)
	if err != nil {
		return err
	}
	i, err := a.cfg.Issuers.Current().Issuer(r.Issuer)
	if err != nil {
		return err
	}
	now, err := a.cfg.Clock.Check()
	if err != nil {
		return err
	}
	var first error
	for _, wish := range likely(r) {
		r.CSR = wish
		err := a.checkNames(i.Current, p, r, now)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// likely are requests that a device with these names may send.
func likely(r Request) []*csr.Request {
	list := []*csr.Request{{}}
	switch {
	case r.SANs == nil:
		for _, attribute := range r.Subject {
			if attribute.Type.Equal(pki.OIDCommonName) {
				list = append(list, &csr.Request{SANs: []der.GeneralName{der.DNSName(attribute.Value)}})
			}
		}
	case r.Subject == nil:
		for _, n := range r.SANs {
			if n.Text != "" {
				list = append(list, &csr.Request{Subject: []der.Attribute{{Type: pki.OIDCommonName, Value: n.Text}}})
				break
			}
		}
	}
	return list
}

func (a *Authority) checkNames(key *issuer.Key, p *Profile, r Request, now time.Time) error {
	for _, pub := range sampleKeys() {
		_, _, err := a.prepare(key, p, r, pub, nil, now)
		if fault.Is(err, fault.BadPublicKey) {
			continue
		}
		if f, ok := errors.AsType[*fault.Error](err); ok && (f.Kind == fault.PolicyRefused || f.Kind == fault.BadRequest || f.Kind == fault.BadCSR) && (f.Field == "subject" || f.Field == "sans") {
			return err
		}
		return nil
	}
	return nil
}

// sampleKeys are public keys of the kinds that profiles certify. Nobody signs anything for them.
var sampleKeys = sync.OnceValue(func() []crypto.PublicKey {
	var list []crypto.PublicKey
	for _, a := range []keys.Algorithm{keys.P256, keys.RSA2048, keys.Ed25519} {
		if k, err := keys.Generate(a); err == nil {
			list = append(list, k.Public())
		}
	}
	return list
})
