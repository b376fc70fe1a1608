package store

import (
	"context"

	"github.com/certwright/certwright/pkg/pki"
)

// Requests tells what is known of a device's request for a certificate.
type Requests interface {
	// Request reads what a verdict mostly needs in one go, since each look costs the device time.
	Request(ctx context.Context, q RequestQuery) (RequestFacts, error)
	// KeyDevices returns devices with a certificate of this key (the SHA-256 of its SubjectPublicKeyInfo), whatever has
	// become of it: in the order of ids, two at the most. It is never nil.
	KeyDevices(ctx context.Context, spkiHash [32]byte) ([]string, error)
}

// RequestQuery says what to read.
type RequestQuery struct {
	// The key of the enrollment's row.
	Point, TransactionID string
	SPKIHash             [32]byte
	Challenge            string // id; empty: none
	Device               string // the id of the device if the challenge names none; empty: none
	KeyDevices           bool   // read them
}

// RequestFacts is what was found; nil is what was not.
type RequestFacts struct {
	Enrollment *pki.Enrollment
	Challenge  *pki.Challenge
	Device     *pki.Device // the challenge's; if that names none, the query's
	KeyDevices []string    // see Requests; nil when they were not asked for
}
