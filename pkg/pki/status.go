package pki

import (
	"time"

	"github.com/certwright/certwright/pkg/fault"
)

// Status is what the CA says of a certificate, apart from the passing of time. The zero value is good.
type Status int

// A certificate's states. Expired is not one of them: it follows from notAfter.
const (
	Good    Status = 0
	Revoked Status = 1
	OnHold  Status = 2 // revoked with certificateHold; may be released
)

// String returns "good", "revoked" or "hold".
func (s Status) String() string {
	switch s {
	case Good:
		return "good"
	case Revoked:
		return "revoked"
	case OnHold:
		return "hold"
	}
	return "unknown"
}

// Revocation is the state of a certificate that is not good.
type Revocation struct {
	Status         Status    // Revoked or OnHold
	Reason         Reason    // CertificateHold exactly when OnHold
	RevokedAt      time.Time // revocationDate: when the CA decided; whole seconds in CRLs and OCSP
	InvalidityDate time.Time // when the key is thought to have been compromised (RFC 5280, Section 5.3.2); zero if unknown
}

// Action is something done to a certificate's status.
type Action int

// The actions. The zero value is none of them.
const (
	ActionRevoke Action = iota + 1
	ActionHold
	ActionRelease
)

// String returns "revoke", "hold" or "release".
func (a Action) String() string {
	return [...]string{"none", "revoke", "hold", "release"}[min(max(a, 0), 3)]
}

// Transition returns the state after an action, or why the action is refused. A nil state is good. Revocation is
// final; a hold may become a revocation, and a revocation may change its reason; only a hold can be released.
//
// The revocation date of a certificate that is revoked already, or was on hold, stays what it was: verifiers may have
// acted on it. An invalidity date that the change does not give stays as well.
func Transition(current *Revocation, action Action, next Revocation) (*Revocation, error) {
	switch action {
	case ActionRevoke:
		if current == nil {
			next.Status = Revoked
			return &next, nil
		}
		if current.Status == Revoked && current.Reason == next.Reason && (next.InvalidityDate.IsZero() || next.InvalidityDate.Equal(current.InvalidityDate)) {
			return nil, fault.New(fault.AlreadyRevoked, "the certificate has been revoked since %s, with the reason %s",
				current.RevokedAt.UTC().Format(time.RFC3339), current.Reason)
		}
		if current.Status == Revoked && next.Reason == Unspecified {
			return nil, fault.New(fault.AlreadyRevoked, "the certificate has been revoked since %s, with the reason %s",
				current.RevokedAt.UTC().Format(time.RFC3339), current.Reason).
				WithHint("to change the reason, name the new one")
		}
		changed := next
		changed.Status, changed.RevokedAt = Revoked, current.RevokedAt
		if changed.InvalidityDate.IsZero() {
			changed.InvalidityDate = current.InvalidityDate
		}
		return &changed, nil
	case ActionHold:
		if current == nil {
			next.Status, next.Reason = OnHold, CertificateHold
			return &next, nil
		}
		if current.Status == OnHold {
			return nil, fault.New(fault.Conflict, "the certificate has been on hold since %s", current.RevokedAt.UTC().Format(time.RFC3339))
		}
		return nil, fault.New(fault.AlreadyRevoked, "the certificate is revoked, which is final; it cannot be put on hold")
	case ActionRelease:
		if current == nil {
			return nil, fault.New(fault.Conflict, "the certificate is not on hold")
		}
		if current.Status == Revoked {
			return nil, fault.New(fault.AlreadyRevoked, "the certificate is revoked, which is final; only a hold can be released")
		}
		return nil, nil
	}
	return nil, fault.New(fault.BadRequest, "no such action")
}
