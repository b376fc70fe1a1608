package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"sync"
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
	// Most bounds how many certificates a revocation for keyCompromise may take with it, that of the request among them;
	// 0: no bound.
	Most int
	// Alone has a revocation for keyCompromise block the key, and leave other certificates for it as they are: holders speak
	// of their own.
	Alone bool
}

// Revoke revokes for good. It is durable when it returns, and OCSP on this replica says so at once. A hold becomes a
// revocation; the reason of a revocation may be changed.
//
// keyCompromise speaks of the key: it is blocked, in every protocol, and all other certificates for it are revoked too,
// whatever their issuer, also those that were being issued at that moment. When Revoke returns nil, none is left that is
// good or on hold, and none will follow. Keys of ours are the exception: their certificates are revoked one by one.
//
// The refusals are NotFound, AlreadyRevoked, BadRevocationReason, BadRequest, and Forbidden when it would be more than
// Most. Unavailable may come when the certificate is revoked and its key blocked already, and others are still to be
// revoked: the error says so, and the same request again goes on with them, even though its answer is AlreadyRevoked then.
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
	blocks := action == pki.ActionRevoke && r.Reason == pki.KeyCompromise
	takesOthers := blocks && !r.Alone
	if takesOthers && r.Most > 0 {
		n, err := a.cfg.Store.CountCertificates(ctx, sameKey(c), r.Most+1)
		if err != nil {
			return pki.Certificate{}, err
		}
		if n > r.Most {
			return pki.Certificate{}, fault.New(fault.Forbidden, "more than %d certificates have this key, and keyCompromise revokes all of them: that takes an administrator", r.Most).
				WithHint("certwright key block --dry-run shows them")
		}
	}
	change := a.statusChange(r, c, action, name, now)
	change.BlockKey = blocks
	after, err := a.cfg.Store.ChangeStatus(ctx, change)
	if err == nil {
		a.cfg.StatusChanged(after)
	}
	again := takesOthers && fault.Is(err, fault.AlreadyRevoked) && a.stillBlocked(ctx, c.SPKIHash)
	if takesOthers && err == nil || again { // again: the first time may have ended in the middle
		if failed := a.revokeSameKey(ctx, r, c, now); failed != nil {
			return pki.Certificate{}, failed
		}
	}
	if err != nil {
		return pki.Certificate{}, err
	}
	return after, nil
}

// stillBlocked reports whether a key is refused as compromised. What cannot be read counts as such.
func (a *Authority) stillBlocked(ctx context.Context, spki [32]byte) bool {
	blocked, err := a.cfg.Store.BlockedKeys(ctx)
	return err != nil || blocked[spki].Compromised
}

// statusChange is what a request does to a certificate, with its record.
func (a *Authority) statusChange(r StatusRequest, c pki.Certificate, action pki.Action, name string, now time.Time) store.StatusChange {
	detail := map[string]string{"serial": c.Serial.String(), "subject": c.Subject}
	if key := a.cfg.Issuers.Current().KeyByInternalID(c.IssuerKeyID); key != nil {
		detail["issuer"] = key.Issuer.Name
	}
	if action == pki.ActionRevoke {
		detail["reason"] = r.Reason.String()
		if !r.InvalidityDate.IsZero() {
			detail["invalidity_date"] = r.InvalidityDate.UTC().Format(time.RFC3339)
		}
	}
	return store.StatusChange{
		IssuerID: c.IssuerID, Serial: c.Serial, Action: action,
		Revocation: pki.Revocation{Reason: r.Reason, RevokedAt: now.Truncate(time.Microsecond), InvalidityDate: r.InvalidityDate.UTC().Truncate(time.Second)},
		Record: audit.Record{
			Time: now, Action: name, Actor: r.Principal.Name, Role: r.Principal.Role.String(), Source: r.Principal.Source,
			RequestID: r.RequestID, Target: "certificate/" + c.Fingerprint.String(), Detail: detail,
		},
	}
}

const (
	// sameKeyPage is how many certificates for a compromised key are read at once, and sameKeyAtOnce how many are changed at
	// once: the store commits those together.
	sameKeyPage, sameKeyAtOnce = 500, 64
	// settleTimeout bounds the wait for those who had not seen that a key is blocked.
	settleTimeout = 15 * time.Second
)

// sameKey finds what is not revoked of a certificate's key, and leaves our own keys alone.
func sameKey(c pki.Certificate) store.CertificateFilter {
	return store.CertificateFilter{SPKIHash: &c.SPKIHash, Status: []pki.Status{pki.Good, pki.OnHold}, WithoutReserved: true}
}

// revokeSameKey revokes the other certificates for the key of one that was compromised. The key is blocked: issuances that
// have not seen that are waited for first, so that theirs are among those that are found, as a campaign does it.
func (a *Authority) revokeSameKey(ctx context.Context, r StatusRequest, c pki.Certificate, now time.Time) error {
	failed := func(err error) error {
		return fault.Wrap(fault.Unavailable, err, "the certificate is revoked and its key is blocked, but others with this key may be left").
			WithHint("send the request again, or use: certwright key block").WithRetryAfter(time.Second)
	}
	wait, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := a.cfg.Store.Settle(wait); err != nil {
		return failed(err)
	}
	for at := (store.CertificatePosition{}); ; {
		page, err := a.cfg.Store.NextCertificates(ctx, sameKey(c), at, sameKeyPage)
		if err != nil {
			return failed(err)
		}
		var group sync.WaitGroup
		errs, turns := make([]error, len(page)), make(chan struct{}, sameKeyAtOnce)
		for i, other := range page {
			at = store.PositionOf(other)
			turns <- struct{}{}
			group.Go(func() {
				defer func() { <-turns }()
				errs[i] = a.revokeOther(ctx, r, other, c, now)
			})
		}
		group.Wait()
		if err := errors.Join(errs...); err != nil {
			return failed(err)
		}
		if len(page) < sameKeyPage {
			return nil
		}
	}
}

// revokeOther revokes a certificate whose key is that of one which was reported.
func (a *Authority) revokeOther(ctx context.Context, r StatusRequest, c, reported pki.Certificate, now time.Time) (err error) {
	change := a.statusChange(r, c, pki.ActionRevoke, audit.ActionRevoke, now)
	change.KeepRevoked = true
	change.Record.Detail["same_key_as"] = reported.Fingerprint.String()
	after, err := a.cfg.Store.ChangeStatus(ctx, change)
	if fault.Is(err, fault.AlreadyRevoked) { // somebody else was faster
		return nil
	}
	a.countChange(pki.ActionRevoke, err)
	if err == nil {
		a.cfg.StatusChanged(after)
	}
	return err
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
