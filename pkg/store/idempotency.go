package store

import (
	"context"
	"errors"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

// Idempotency is what makes a request for a certificate safe to repeat: it is written in the transaction that records
// the certificate, and of all issuances with one ID one succeeds.
type Idempotency struct {
	ID          [32]byte        // names the request: a hash of who asks, and of the key that he chose
	Request     [32]byte        // a hash of what is asked for, to tell a repetition from another request under the same key
	Fingerprint pki.Fingerprint // of the certificate; RecordIssuance takes the one that it records
	Warnings    []string        // that the requester got with it
	ExpiresAt   time.Time       // the ID may be used again from then on; required
}

// IssuedBeforeError says that an ID has been used before, and for what. RecordIssuance returns it in a Conflict.
type IssuedBeforeError struct {
	First Idempotency
}

// Error names the certificate.
func (e *IssuedBeforeError) Error() string {
	return "the certificate " + e.First.Fingerprint.String() + " was issued for this request before"
}

// IssuedBefore returns what RecordIssuance says when an ID has been used before.
func IssuedBefore(first Idempotency) error {
	return fault.Wrap(fault.Conflict, &IssuedBeforeError{first}, "this request was answered before")
}

// Idempotencies tells which requests have got their certificate.
type Idempotencies interface {
	// Idempotency returns what was written under an ID that has not ended at the given time. NotFound if there is none.
	Idempotency(ctx context.Context, id [32]byte, at time.Time) (Idempotency, error)
	// PruneIdempotency deletes at most limit of those that have ended at the given time and returns how many. It is no
	// change in the sense of the contract, and is refused like one when the store is not in use.
	PruneIdempotency(ctx context.Context, at time.Time, limit int) (int, error)
}

// Predecessor names the certificate that a new one renews.
type Predecessor struct {
	IssuerID    int64
	IssuerKeyID int64
	Serial      pki.SerialNumber
}

// PredecessorOf returns the name of a certificate that is renewed.
func PredecessorOf(c pki.Certificate) *Predecessor {
	return &Predecessor{c.IssuerID, c.IssuerKeyID, c.Serial}
}

// ErrPredecessor says that the certificate to renew is not good.
var ErrPredecessor = errors.New("the certificate to renew is revoked or on hold")

// RefusePredecessor returns the refusal to renew a certificate that is not good, and nil for one that is.
func RefusePredecessor(status pki.Status) error {
	if status == pki.Good {
		return nil
	}
	said := "revoked"
	if status == pki.OnHold {
		said = "on hold"
	}
	return fault.Wrap(fault.PolicyRefused, ErrPredecessor, "the certificate is %s and cannot be renewed", said)
}

// Refuse returns the refusal to certify a blocked key; nil if it is for ourselves and the key is of our own, which was
// never reported compromised.
func (b BlockedKey) Refuse(forOurselves bool) error {
	switch {
	case b.Compromised || !b.Own:
		return fault.New(fault.BadPublicKey, "this public key is blocked: it was reported compromised").WithField("csr").
			WithHint("generate a new key")
	case !forOurselves:
		return fault.New(fault.BadPublicKey, "this public key is one of the CA's own").WithField("csr")
	}
	return nil
}
