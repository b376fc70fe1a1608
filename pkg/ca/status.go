package ca

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// StatusRequest asks for a change of a certificate's status.
type StatusRequest struct {
	Principal   pki.Principal
	RequestID   string
	Certificate pki.Fingerprint
	// Known is the certificate's record, of a caller who has read it; nil: it is read. Its status does not matter.
	Known *pki.Certificate
	// Reason and InvalidityDate are for Revoke. The zero date is unknown.
	Reason         pki.Reason
	InvalidityDate time.Time
}

// Revoke revokes for good. It is durable when it returns, and OCSP on this replica says so at once. A hold becomes a
// revocation; the reason of a revocation may be changed. keyCompromise also blocks the public key, in every protocol.
//
// The refusals are NotFound, AlreadyRevoked, BadRevocationReason and BadRequest.
func (a *Authority) Revoke(ctx context.Context, r StatusRequest) (pki.Certificate, error) {
	if err := pki.CheckReason(r.Reason); err != nil {
		return pki.Certificate{}, err
	}
	return a.change(ctx, r, pki.ActionRevoke, audit.ActionRevoke)
}

// Hold revokes for the time being, with the reason certificateHold.
func (a *Authority) Hold(ctx context.Context, r StatusRequest) (pki.Certificate, error) {
	r.Reason = pki.CertificateHold
	return a.change(ctx, r, pki.ActionHold, audit.ActionHold)
}

// Release ends a hold. Conflict when the certificate is not on hold.
func (a *Authority) Release(ctx context.Context, r StatusRequest) (pki.Certificate, error) {
	return a.change(ctx, r, pki.ActionRelease, audit.ActionRelease)
}

func (a *Authority) change(ctx context.Context, r StatusRequest, action pki.Action, name string) (_ pki.Certificate, err error) {
	defer func() { a.countChange(action, err) }()
	now, err := a.cfg.Clock.Check()
	if err != nil {
		return pki.Certificate{}, err
	}
	c, err := a.known(ctx, r)
	if err != nil {
		return pki.Certificate{}, err
	}
	key := a.cfg.Issuers.Current().KeyByInternalID(c.IssuerKeyID)
	if key == nil {
		return pki.Certificate{}, fault.New(fault.Conflict, "the certificate's issuer is not served here")
	}
	own := a.issuerOf(c)
	isCA := own != "" || IsCA(c)
	// RFC 5280, Section 5.3.1: cACompromise speaks of CA certificates only.
	if r.Reason == pki.CACompromise && !isCA {
		return pki.Certificate{}, fault.New(fault.BadRevocationReason, "cACompromise is for CA certificates; this one is not").WithField("reason").
			WithHint("use keyCompromise")
	}
	if own != "" && key.Issuer.Name == own {
		return pki.Certificate{}, fault.New(fault.PolicyRefused, "a root cannot revoke itself: no verifier would ask it").
			WithHint("take the root out of the trust stores of the relying parties")
	}
	if err := pki.CheckInvalidityDate(r.InvalidityDate, now); err != nil {
		return pki.Certificate{}, err
	}
	detail := map[string]string{"issuer": key.Issuer.Name, "serial": c.Serial.String(), "subject": c.Subject}
	if action == pki.ActionRevoke {
		detail["reason"] = r.Reason.String()
		if !r.InvalidityDate.IsZero() {
			detail["invalidity_date"] = r.InvalidityDate.UTC().Format(time.RFC3339)
		}
	}
	after, err := a.cfg.Store.ChangeStatus(ctx, store.StatusChange{
		IssuerID: c.IssuerID, Serial: c.Serial, Action: action,
		Revocation: pki.Revocation{Reason: r.Reason, RevokedAt: now.Truncate(time.Microsecond), InvalidityDate: r.InvalidityDate.UTC().Truncate(time.Second)},
		BlockKey:   action == pki.ActionRevoke && r.Reason == pki.KeyCompromise,
		Record: audit.Record{
			Time: now, Action: name, Actor: r.Principal.Name, Role: r.Principal.Role.String(), Source: r.Principal.Source,
			RequestID: r.RequestID, Target: "certificate/" + c.Fingerprint.String(), Detail: detail,
		},
	})
	if err != nil {
		return pki.Certificate{}, err
	}
	a.cfg.StatusChanged(after)
	return after, nil
}

func (a *Authority) known(ctx context.Context, r StatusRequest) (pki.Certificate, error) {
	if r.Known != nil && r.Known.Fingerprint == r.Certificate {
		return *r.Known, nil
	}
	return a.cfg.Store.Certificate(ctx, r.Certificate)
}

// IsCA reports whether a record is that of a CA's certificate: one of ours, or one below them.
func IsCA(c pki.Certificate) bool {
	parsed, err := x509.ParseCertificate(c.DER)
	return err == nil && parsed.IsCA
}

// issuerOf returns the name of the issuer of ours whose certificate this is, empty if it is not an issuer's.
func (a *Authority) issuerOf(c pki.Certificate) string {
	for _, k := range a.cfg.Issuers.Current().Keys() {
		if k.Fingerprint == c.Fingerprint {
			return k.Issuer.Name
		}
	}
	return ""
}
