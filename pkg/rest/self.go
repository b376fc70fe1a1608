package rest

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

func fingerprint(der []byte) pki.Fingerprint { return sha256.Sum256(der) }

// mayAuthenticate reports whether the certificate is for clients, and nobody's CA.
func mayAuthenticate(c *x509.Certificate) bool {
	return !c.IsCA && slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
}

// own returns the record of the certificate that the holder presented.
func (a *api) own(ctx context.Context) (pki.Certificate, error) {
	f, err := pki.ParseFingerprint(strings.TrimPrefix(principal(ctx).Name, "certificate:"))
	if err != nil {
		return pki.Certificate{}, fault.New(fault.Unauthenticated, "this takes a client certificate")
	}
	return a.Store.Certificate(ctx, f)
}

func (a *api) getSelf(ctx context.Context, _ *struct{}) (*certificateOutput, error) {
	c, err := a.own(ctx)
	if err != nil {
		return nil, err
	}
	return &certificateOutput{Body: a.certificate(c)}, nil
}

type renewSelfInput struct {
	IdempotencyInput
	Body struct {
		CSR      string `json:"csr,omitempty" doc:"PKCS #10 request with a new key; the names stay. Absent: the same key" maxLength:"131072"`
		Validity string `json:"validity,omitempty" doc:"How long, as in 90d; at most, and if absent, as long as the old one" maxLength:"32"`
	}
}

func (a *api) renewSelf(ctx context.Context, in *renewSelfInput) (*issuedOutput, error) {
	c, err := a.own(ctx)
	if err != nil {
		return nil, err
	}
	// Holders do not widen what they were given: a certificate for a day is renewed for a day at the most.
	return a.renewCertificate(ctx, c, in.Body.CSR, in.Body.Validity, c.NotAfter.Add(time.Second).Sub(c.IssuedAt.Truncate(time.Second)))
}

type revokeSelfInput struct {
	Body struct {
		Reason string `json:"reason,omitempty" doc:"unspecified (default), keyCompromise, affiliationChanged, superseded, cessationOfOperation. keyCompromise also blocks the key; other certificates for it stay as they are" maxLength:"40"`
	}
}

func (a *api) revokeSelf(ctx context.Context, in *revokeSelfInput) (*certificateOutput, error) {
	reason, err := pki.ParseReason(in.Body.Reason)
	if err != nil {
		return nil, fault.New(fault.BadRevocationReason, "%s", err).WithField("reason")
	}
	switch reason {
	case pki.Unspecified, pki.KeyCompromise, pki.AffiliationChanged, pki.Superseded, pki.CessationOfOperation:
	default:
		return nil, fault.New(fault.BadRevocationReason, "holders cannot give the reason %s", reason).WithField("reason")
	}
	c, err := a.own(ctx)
	if err != nil {
		return nil, err
	}
	return a.changeStatusOf(ctx, c, ca.StatusRequest{Reason: reason, Alone: true}, a.CA.Revoke)
}
