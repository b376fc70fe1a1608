package ca

import (
	"context"
	"crypto/x509"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
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
