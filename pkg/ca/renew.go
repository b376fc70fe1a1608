package ca

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// RenewRequest asks for a successor of a certificate: the same profile, names and device, a new serial number and a new
// life.
type RenewRequest struct {
	Principal   pki.Principal
	Source      string // as in Request
	RequestID   string
	Protocol    string
	Certificate pki.Fingerprint
	CSR         *csr.Request  // with a new key; nil keeps the key. Its names are ignored.
	Validity    time.Duration // zero means the profile's default
	MaxValidity time.Duration // as in Request
	Device      string        // of the successor, where the certificate names none
	// DeviceCertificate is as in Request.
	DeviceCertificate *pki.Fingerprint
	Idempotency       *store.Idempotency // as in Request

	TransactionID string
	Enrollment    *store.EnrollmentChange                  // as in Request
	Notify        func(pki.Certificate) []pki.Notification // as in Request
	Detail        map[string]string                        // as in Request
	// Ended allows the renewal of a certificate that has ended: somebody has decided so.
	Ended bool
}

// Renew makes the successor of a certificate that is in force. One that is revoked, on hold or has ended is refused with
// PolicyRefused: what proved its holder's right then proves nothing now. Names are checked against the profile as it is
// today, so a profile that was narrowed stops what it no longer allows.
func (a *Authority) Renew(ctx context.Context, r RenewRequest) (_ *Issued, err error) {
	var s successor
	defer func() { a.countIssue(s.old.Profile, r.Protocol, err) }()
	if s, err = a.successor(ctx, r); err != nil {
		return nil, err
	}
	return a.issue(ctx, s.key, s.profile, s.request, s.pub, s.spki, s.hash)
}

// successor is what a renewal asks for.
type successor struct {
	old     pki.Certificate
	request Request
	profile *Profile
	key     *issuer.Key // that is to sign
	pub     crypto.PublicKey
	spki    []byte
	hash    [32]byte // of spki
}

// successor settles what a renewal asks for, or why there is none. The old certificate is set as soon as it is known.
func (a *Authority) successor(ctx context.Context, r RenewRequest) (s successor, err error) {
	if s.old, err = a.cfg.Store.Certificate(ctx, r.Certificate); err != nil {
		return s, err
	}
	old := &s.old
	switch {
	case old.Revocation != nil:
		return s, store.RefusePredecessor(old.Revocation.Status)
	case a.cfg.Clock.Now().After(old.NotAfter) && !r.Ended:
		return s, fault.New(fault.PolicyRefused, "the certificate ended on %s and cannot be renewed", old.NotAfter.Format(time.RFC3339)).WithHint("issue a new one")
	case old.DER == nil:
		return s, fault.New(fault.PolicyRefused, "the certificate was imported without its contents and cannot be renewed").WithHint("issue a new one")
	}
	if s.profile, err = a.Profile(old.Profile); err != nil {
		if fault.Is(err, fault.NotFound) {
			return s, fault.New(fault.PolicyRefused, "the certificate is of the profile %q, which cannot be renewed", old.Profile)
		}
		return s, err
	}
	if s.profile.IsCA() {
		return s, fault.New(fault.PolicyRefused, "CA certificates are not renewed this way").WithHint("issue a new one")
	}
	by := a.cfg.Issuers.Current().ByID(old.IssuerID)
	if by == nil {
		return s, fault.New(fault.PolicyRefused, "the certificate's issuer is not served here")
	}
	s.key = by.Current
	c, err := x509.ParseCertificate(old.DER)
	if err != nil {
		return s, fault.Wrap(fault.Internal, err, "reading a certificate of ours")
	}
	s.request = Request{
		Principal: r.Principal, Source: r.Source, RequestID: r.RequestID, Protocol: r.Protocol, Validity: r.Validity, MaxValidity: r.MaxValidity, Device: cmp.Or(old.Device, r.Device),
		DeviceCertificate: r.DeviceCertificate,
		Idempotency:       r.Idempotency, TransactionID: r.TransactionID, Enrollment: r.Enrollment, Notify: r.Notify, Detail: r.Detail, replaces: old.Fingerprint, predecessor: store.PredecessorOf(*old), action: audit.ActionRenew,
	}
	if s.request.Subject, s.request.SANs, err = csr.Names(c); err != nil {
		return s, fault.Wrap(fault.Internal, err, "reading the names of a certificate of ours")
	}
	s.pub, s.spki, s.hash = c.PublicKey, c.RawSubjectPublicKeyInfo, old.SPKIHash
	if r.CSR != nil {
		if r.CSR.KeyErr != nil {
			return s, r.CSR.KeyErr
		}
		s.pub, s.spki, s.hash = r.CSR.PublicKey, r.CSR.SPKI, r.CSR.SPKIHash
	}
	return s, a.CheckKey(s.hash)
}
