package store

import (
	"context"
	"time"

	"github.com/certwright/certwright/pkg/pki"
)

// Visibility keeps when the world could first see that a certificate is not good any more. These times say how fast this
// CA is and decide nothing: they are no part of the audit chain, move no change number, and a store that is out of use
// takes none.
type Visibility interface {
	// NoteVisible writes times of certificates that are not good, in one transaction. A time that is written already stays,
	// and so does everything about a certificate that is good, or that was revoked after the time. Unavailable with
	// ErrNotInUse when the store is out of use.
	NoteVisible(ctx context.Context, all []Visible) error
}

// MaxVisible is how many may be noted at once: the head is held meanwhile.
const MaxVisible = 1000

// Visible tells when a certificate's revocation, or hold, was first seen.
type Visible struct {
	IssuerKeyID int64
	Serial      pki.SerialNumber
	CRLAt       time.Time // on a CRL of its scope; zero: nothing to say
	OCSPAt      time.Time // in OCSP answers of the replica that made the change; zero: nothing to say
}
