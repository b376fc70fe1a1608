package store

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
)

// ErrChallengeUsed says that the one-time challenge was used, was revoked or has ended in between.
var ErrChallengeUsed = errors.New("the challenge cannot be used any more")

// Points keeps enrollment points and their history.
type Points interface {
	// AllPoints returns the newest version of each point, by name.
	AllPoints(ctx context.Context) ([]pki.PointVersion, error)
	// PointHistory returns every version of a point, newest first. NotFound when there is no such point.
	PointHistory(ctx context.Context, name string) ([]pki.PointVersion, error)
	// PutPoint writes a new version. Its number must be one more than the newest, or 1 for a new point; else ErrStale.
	PutPoint(ctx context.Context, c PointChange) error
}

// PointChange is a new version of an enrollment point.
type PointChange struct {
	Point pki.PointVersion
	// Secret, when not nil, is the point's static challenge, sealed; empty takes it away.
	Secret []byte
	// WebhookSecret is likewise what authenticates messages to its webhook.
	WebhookSecret []byte
	Record        audit.Record
}

// Challenges keeps one-time enrollment challenges.
type Challenges interface {
	// CreateChallenges writes challenges, all or none. Conflict when an id exists, PolicyRefused with ErrDeviceRefused when a
	// device is blocked or retired; one that nobody knows becomes expected.
	CreateChallenges(ctx context.Context, cs []pki.Challenge, record audit.Record) error
	// Challenge returns one by its id; NotFound if there is none.
	Challenge(ctx context.Context, id string) (pki.Challenge, error)
	// ListChallenges returns a page, newest first: in the order of CreatedAt, then id (as octets), both descending.
	ListChallenges(ctx context.Context, f ChallengeFilter, p Page) ([]pki.Challenge, string, error)
	// RevokeChallenge ends one. NotFound when there is none, Conflict when it was used or revoked.
	RevokeChallenge(ctx context.Context, id string, at time.Time, record audit.Record) error
	// RevokeChallenges ends every one that matches and was neither used nor revoked, and tells how many. The record gets
	// that number, as "challenges".
	RevokeChallenges(ctx context.Context, f ChallengeFilter, at time.Time, record audit.Record) (int, error)
	// FailChallenge counts a wrong secret. NotFound when there is no such challenge.
	FailChallenge(ctx context.Context, id string, record audit.Record) error
}

// ChallengeFilter narrows a list. The zero value matches everything.
type ChallengeFilter struct {
	Point  string
	Device string
	Batch  string
	// OpenAt, when not zero, leaves out those that cannot be used at this time.
	OpenAt time.Time
}

// Enrollments keeps what was asked and answered, for clients that ask again.
type Enrollments interface {
	// Enrollment returns the row of a key; NotFound if there is none.
	Enrollment(ctx context.Context, point, transactionID string, spkiHash [32]byte) (pki.Enrollment, error)
	// EnrollmentBySigner returns the newest row of a transactionID whose SignerHash is this; NotFound if there is none.
	EnrollmentBySigner(ctx context.Context, point, transactionID string, signerHash [32]byte) (pki.Enrollment, error)
	// EnrollmentByID returns a request that waits or has waited; NotFound if there is none.
	EnrollmentByID(ctx context.Context, id string) (pki.Enrollment, error)
	// ListEnrollments returns a page of the requests that wait or have waited, newest first: in the order of CreatedAt,
	// then id (as octets), both descending.
	ListEnrollments(ctx context.Context, f EnrollmentFilter, p Page) ([]pki.Enrollment, string, error)
	// Successor returns the newest certificate that renews the one with this fingerprint, without its DER; NotFound if
	// there is none.
	Successor(ctx context.Context, f pki.Fingerprint) (pki.Certificate, error)
	// PutEnrollment writes a request that is to wait, or a person's decision; the secret of a request whose place it takes
	// is forgotten. ErrStale when the row has another version than the one before; ErrChallengeUsed; PolicyRefused with
	// ErrDeviceRefused when it is to wait and its device is blocked or retired.
	PutEnrollment(ctx context.Context, c EnrollmentChange) error
	// PruneEnrollments forgets rows that ended before the given time, with their secrets, at most limit, and tells how
	// many. Those that nobody decided on stay until KeepExpired later, and pending ones for ever: they are to be ended
	// first. It is no change in the sense of the contract. Unavailable with ErrNotInUse when the store is out of use.
	PruneEnrollments(ctx context.Context, before time.Time, limit int) (int, error)
}

// KeepExpired is how long a request that nobody decided on is shown after its end.
const KeepExpired = 7 * 24 * time.Hour

// EnrollmentFilter narrows a list. The zero value matches everything that has an id.
type EnrollmentFilter struct {
	Point  string
	Device string
	States []pki.EnrollmentState // any of
	// OpenAt is a time before the rows' end, OverAt one that is not: of what is pending, whether it still waits. A request
	// that nobody decided on keeps its end.
	OpenAt, OverAt time.Time
}

// CountedChallenges returns a copy of the record of RevokeChallenges with the number of challenges. It is for stores.
func CountedChallenges(r audit.Record, n int) audit.Record {
	detail := maps.Clone(r.Detail)
	if detail == nil {
		detail = map[string]string{}
	}
	detail["challenges"] = strconv.Itoa(n)
	r.Detail = detail
	return r
}

// EnrollmentChange writes the row of an enrollment.
type EnrollmentChange struct {
	Enrollment pki.Enrollment
	// UseChallenge uses up the one-time challenge that the enrollment names, at its UpdatedAt: by Issued, or, when that is
	// zero, by a request that waits.
	UseChallenge bool
	// Request, when not empty, is the request that waits, sealed. It is kept as pki.SecretEnrollment.
	Request []byte
	// Notifications are what the point's webhook is to be told of it; see [Notifications].
	Notifications []pki.Notification
	// Record is ignored in an Issuance, which has its own.
	Record audit.Record
}

// RACertificates keeps the certificates of registration authorities.
type RACertificates interface {
	// AllRACertificates returns every one, by issuer and number.
	AllRACertificates(ctx context.Context) ([]pki.RACertificate, error)
	// PutRACertificate puts a certificate into use. Its number must be one more than the newest of its issuer; else
	// ErrStale.
	PutRACertificate(ctx context.Context, c RAChange) error
}

// RAChange puts an RA certificate into use.
type RAChange struct {
	Certificate pki.RACertificate
	// Key is the private key, sealed, when it is a new one; nil when the store has it.
	Key []byte
	// Drop names keys that are not needed any more.
	Drop   []string
	Record audit.Record
}

// Secrets keeps what is sealed under the key-encryption key beside the issuers' private keys.
type Secrets interface {
	// Secret returns one by its name; NotFound if there is none.
	Secret(ctx context.Context, name string) ([]byte, error)
	// AllSecrets returns every one. There may be one for each request that waits.
	AllSecrets(ctx context.Context) (map[string][]byte, error)
}

// Sealed is everything that is sealed under the key-encryption key.
type Sealed struct {
	Keys    map[int64][]byte  // issuers' private keys, by the key's internal id
	Secrets map[string][]byte // by name
}
