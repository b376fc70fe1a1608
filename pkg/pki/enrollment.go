package pki

import "time"

// PointVersion is one version of an enrollment point's settings, as the administrator wrote them. An enrollment point is
// an address at which devices enroll, as in /scep/NAME.
type PointVersion struct {
	Name      string
	Version   int    // counts from 1
	Config    []byte // JSON; see package enrollment
	CreatedAt time.Time
	CreatedBy string
}

// Challenge is a one-time enrollment challenge's record: who has its text may have one certificate. The text itself is
// kept by nobody but the device it was made for.
type Challenge struct {
	ID      string   // public part, as it appears in the challenge's text
	Hash    [32]byte // SHA-256 of the secret part
	Point   string   // the enrollment point that it opens
	Profile string   // empty: the point's
	// Subject and SANs, when not empty, are exactly those that the certificate must have: in RFC 4514 form, and as in
	// "DNS:a.example.com".
	Subject string
	SANs    []string
	Device  string // recorded with the certificate; empty if none
	Note    string // for people
	Batch   string // what was made together has the same one; empty if alone

	CreatedAt time.Time
	CreatedBy string
	ExpiresAt time.Time
	UsedAt    time.Time   // zero: not used
	UsedBy    Fingerprint // the certificate; zero while it is unused, or its request is pending
	RevokedAt time.Time   // zero: not revoked
	Failures  int         // how often somebody gave its ID with a wrong secret
}

// Open reports whether the challenge can be used at the given time.
func (c Challenge) Open(now time.Time) bool {
	return c.UsedAt.IsZero() && c.RevokedAt.IsZero() && now.Before(c.ExpiresAt)
}

// EnrollmentState is how far an enrollment has come. The zero value is invalid.
type EnrollmentState int

// The states of an enrollment.
const (
	EnrollmentIssued  EnrollmentState = 1
	EnrollmentPending EnrollmentState = 2 // waits for a person
	EnrollmentDenied  EnrollmentState = 3 // by a person
	EnrollmentExpired EnrollmentState = 4 // nobody decided in time
)

// String returns "issued", "pending", "denied" or "expired".
func (s EnrollmentState) String() string {
	return [...]string{"none", "issued", "pending", "denied", "expired"}[min(max(s, 0), EnrollmentExpired)]
}

// Enrollment is what a point remembers of a device's request: what it answers when the device asks again. Point,
// TransactionID and SPKIHash together are its key, so that a stranger's use of a transactionID blocks nobody.
type Enrollment struct {
	Point         string
	TransactionID string
	SPKIHash      [32]byte // of the key in the request
	// Version counts the changes of the row from 1. Who changes it says the next one, and comes too late if somebody else
	// has done so.
	Version int
	// ID names a request that waits, or has waited, for a person; empty for others.
	ID         string
	State      EnrollmentState
	CSRHash    [32]byte    // SHA-256 of the whole request
	SignerHash [32]byte    // SHA-256 of the SubjectPublicKeyInfo that signed the message
	Challenge  string      // ID of the one-time challenge; empty if none
	Issued     Fingerprint // zero while there is none
	Replaces   Fingerprint // the certificate that it renews; zero if none
	Subject    string      // as requested; only of requests with an ID, as the two below
	SANs       []string
	Profile    string
	Device     string
	Source     string // network address
	Reason     string // why it waits, or was denied
	DecidedBy  string // the principal's name; empty if nobody has
	Overrides  string // JSON: what the point's webhook has said that the certificate is to hold; empty: nothing
	CreatedAt  time.Time
	UpdatedAt  time.Time
	ExpiresAt  time.Time // until when it waits, or is remembered
}

// RACertificate is a certificate of the registration authority that signs and decrypts SCEP messages for an issuer
// (RFC 8894, Section 2.1.2). Its private key is a sealed secret of the store, under SecretRA.
type RACertificate struct {
	IssuerID    int64
	Number      int    // counts from 1 for each issuer; the highest one is in use
	KeyID       string // as IssuerKey's
	Fingerprint Fingerprint
	DER         []byte
	CreatedAt   time.Time
}

// SecretRA, SecretPoint, SecretWebhook and SecretEnrollment name sealed secrets: the private key of an RA, the static
// challenge of a point, the key with which messages to its webhook are authenticated, and the request of an enrollment that
// waits.
func SecretRA(keyID string) string { return "ra/" + keyID }

// SecretPoint: see SecretRA.
func SecretPoint(point string) string { return "point/" + point }

// SecretWebhook: see SecretRA.
func SecretWebhook(point string) string { return "webhook/" + point }

// SecretEnrollment: see SecretRA.
func SecretEnrollment(id string) string { return "enrollment/" + id }
