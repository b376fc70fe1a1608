// Package store is the storage contract: what the rest of Certwright may ask of a store, and what it may rely on.
// Packages store/postgres and store/sqlite fulfil it, and package storetest holds the suite that both must pass.
//
// # What every verb promises
//
// A verb is one transaction. When a verb that writes returns nil, its rows are durable: they survive the death of the
// process and of the machine. When it returns an error of any kind but ErrUnknownOutcome, nothing of it was written.
// ErrUnknownOutcome means that the connection was lost after COMMIT was sent and the store could not find out by
// reading again; bytes that depend on the write must not be released.
//
// Errors are faults (package fault): NotFound for what is absent, Conflict for a constraint or a lost race, Unavailable
// with a RetryAfter when the store is away, overloaded or out of space; Internal else. They wrap the sentinels below
// where callers must tell them apart.
//
// Every change carries its audit records, written in the same transaction and sealed into the chain with it. Changes
// are numbered without gaps in the order in which they commit: whoever has seen change n has seen all up to n.
//
// Times are UTC and cut to microseconds at the store's door. No verb reads the clock, save for leases, which use the
// database's. All verbs are safe for concurrent use and end early when their context does.
package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

var (
	// ErrSerialTaken says that the issuer has used this serial number before. The caller draws another.
	ErrSerialTaken = errors.New("serial number taken")
	// ErrUnknownOutcome says that nobody can tell whether the write happened.
	ErrUnknownOutcome = errors.New("the outcome of the commit is unknown")
	// ErrNotEmpty says that the store was set up before, by this process or by another replica.
	ErrNotEmpty = errors.New("the store is not empty")
	// ErrStale says that a conditional write found a newer state than the caller had read.
	ErrStale = errors.New("the state has changed in between")
	// ErrLeaseLost says that the lease has passed to another holder.
	ErrLeaseLost = errors.New("the lease is lost")
	// ErrSchemaOld says that the store was made by an earlier release and must be migrated first.
	ErrSchemaOld = errors.New("the store's schema is older than this program")
	// ErrSchemaNew says that a later release has migrated the store.
	ErrSchemaNew = errors.New("the store's schema is newer than this program")
	// ErrSchemaDirty says that a migration was cut off in the middle.
	ErrSchemaDirty = errors.New("a migration of the store's schema was interrupted")
)

// Store is everything. Callers take the smallest role that serves them.
type Store interface {
	Certificates
	Idempotencies
	Statuses
	Campaigns
	CRLs
	Issuers
	IssuerSettings
	Profiles
	Tokens
	Audit
	Leases
	Visibility
	Points
	Challenges
	Enrollments
	Requests
	RACertificates
	Secrets
	Notifications
	Devices
	io.Closer

	// Head returns the newest change. It is cheap enough to be polled several times a second.
	Head(ctx context.Context) (Head, error)
	// Bootstrap sets an empty store up in one transaction. Of several replicas that try, one succeeds; the others
	// get ErrNotEmpty and load what it wrote.
	Bootstrap(ctx context.Context, b Bootstrap) error
	// Check looks for what is unsafe or broken: settings that lose data, rows that contradict each other, schema
	// versions. It reads only, and may take long on a large store.
	Check(ctx context.Context) ([]Finding, error)
	// Stats returns figures about the store itself, for the log and for metrics.
	Stats() Stats
}

// Head is the end of the chain. The zero value is an empty store.
type Head struct {
	Change       int64      // of the newest batch; 0 when there is none
	ConfigChange int64      // newest change of issuers, keys, profiles, tokens, enrollment points or blocked keys
	StatusChange int64      // newest change of a certificate's status
	CRLChange    int64      // newest change that published a CRL
	AuditSeq     int64      // of the newest record
	Hash         audit.Hash // of the chain
	NewestTime   time.Time  // newest time of any record; the clock must not fall far behind it
	Closed       bool       // the store is not in use: nothing is written; see Exporter.State
}

// Finding is something that Check found, with what to do about it.
type Finding struct {
	Serious bool   // data or safety is at stake; else it is advice
	What    string // one sentence
	Mend    string // a command or a setting
}

// Stats are figures since the process started.
type Stats struct {
	Batches     int64 // group commits
	BatchedOps  int64 // operations in them
	Fallbacks   int64 // batches that were taken apart after an error
	Connections int   // open now
	// BatchSizes counts the batches of at most 1, 2, 4, 8, ... operations, each at the least of these bounds.
	BatchSizes []int64
	Pool       Pool
}

// Pool are figures about the connections to the database, all of them together.
type Pool struct {
	Max    int // so many may be open
	InUse  int
	Idle   int
	Waits  int64         // for a free one, since the process started
	Waited time.Duration // in all of them
}

// Bootstrap is all that a new store begins with. The references between issuers, keys and certificates are by index.
type Bootstrap struct {
	KEKInfo  []byte
	Issuers  []NewIssuer
	Profiles []pki.ProfileVersion
	Tokens   []pki.Token
	Records  []audit.Record
}

// NewIssuer is an issuer with its first key and that key's certificate.
type NewIssuer struct {
	Issuer      pki.Issuer            // ID is ignored
	Key         pki.IssuerKey         // ID and IssuerID are ignored
	Certificate pki.IssuerCertificate // IDs are ignored
	// Parent is the index in Bootstrap.Issuers of the issuer that signed Certificate; its own index when self-signed.
	Parent int
	// Record is the certificate as its parent issued it, so that it can be found, revoked and answered for.
	// IssuerID and IssuerKeyID are set by the store.
	Record pki.Certificate
	// Addresses are those of this issuer's CRLs that certificates carry. IssuerKeyID is set by the store.
	Addresses []pki.CRLAddress
}

// Certificates records issuance and finds what was issued.
type Certificates interface {
	// RecordIssuance writes the certificate, its audit record, and what else the issuance says, after it has looked in
	// the same transaction whether the certificate may be issued. ErrSerialTaken when the issuer has used the serial
	// number; Conflict when the fingerprint exists, and with an IssuedBeforeError when Idempotency's ID has been used;
	// BadPublicKey when the key is blocked; PolicyRefused when Predecessor is not good, and with ErrDeviceRefused when
	// Certificate.Device is blocked or retired.
	RecordIssuance(ctx context.Context, i Issuance) error
	// Certificate returns the record with this fingerprint, with its DER.
	Certificate(ctx context.Context, f pki.Fingerprint) (pki.Certificate, error)
	// CertificateBySerial returns the record of this issuer and serial number, with its DER.
	CertificateBySerial(ctx context.Context, issuerID int64, s pki.SerialNumber) (pki.Certificate, error)
	// ListCertificates returns a page of records without their DER, newest first: in the order of IssuedAt, then
	// serial number (as octets), then issuer, all descending. It returns the cursor of the next page, empty when there
	// is none.
	ListCertificates(ctx context.Context, f CertificateFilter, p Page) ([]pki.Certificate, string, error)
	// CountCertificates counts up to limit and then stops: a result of limit means "that many or more".
	CountCertificates(ctx context.Context, f CertificateFilter, limit int) (int, error)
}

// Issuance is what is written when a certificate is issued.
type Issuance struct {
	Certificate pki.Certificate
	// ReserveKey blocks the certificate's key for everybody else: it is a key of a CA, an RA, a responder or a
	// listener of ours.
	// Such a key may have further certificates of that kind, unless it was reported compromised.
	ReserveKey bool
	// Idempotency, when not nil, makes the request safe to repeat.
	Idempotency *Idempotency
	// Predecessor, when not nil, is the certificate that this one renews: it must be good.
	Predecessor *Predecessor
	// Enrollment, when not nil, is written with the certificate, which its Issued names. RecordIssuance then also returns
	// ErrStale and ErrChallengeUsed, as PutEnrollment.
	Enrollment *EnrollmentChange
	// SupersedeDevice has the certificates of Certificate.Device that are of the same profile and were issued before this
	// one revoked as superseded: the device's RevokeUntil says so with this issuance. Unavailable, to be tried again, while
	// others of its certificates are still to be revoked.
	SupersedeDevice bool
	// DeviceCertificate, when not nil, is what the newest certificate of Certificate.Device must be still, zero for none:
	// who decided by it has come too late otherwise. ErrStale.
	DeviceCertificate *pki.Fingerprint
	Record            audit.Record
}

// CertificateFilter narrows a list. The zero value matches everything; several fields must all match.
type CertificateFilter struct {
	IssuerIDs    []int64 // any of
	Profiles     []string
	Status       []pki.Status // any of; a certificate's status whether or not it has ended
	Text         string       // substring of subject or SANs, letter case ignored; %, _ and \ have no meaning
	Serial       pki.SerialNumber
	Fingerprint  *pki.Fingerprint
	SPKIHash     *[32]byte
	Requester    string
	Protocol     string
	Device       string
	NotAfterFrom time.Time // inclusive
	NotAfterTo   time.Time // exclusive
	IssuedFrom   time.Time // inclusive
	IssuedTo     time.Time // exclusive
	// WithoutReserved leaves out certificates of keys that are our own: of CAs, responders and listeners.
	WithoutReserved bool

	// GoodFrom and GoodTo narrow the certificates that are pki.Good alone, by NotAfter, the first inclusive and the second
	// exclusive: with Status they tell «valid or revoked» from «expired or revoked».
	GoodFrom, GoodTo time.Time
}

// Page says which part of a list. The zero value is the first page of the default size.
type Page struct {
	Limit  int    // 0 means 100; more than 1000 means 1000
	Cursor string // as the page before returned it; BadRequest when it was made up
}

// Statuses changes and tells what the CA says of certificates.
type Statuses interface {
	// ChangeStatus applies pki.Transition to the certificate as it stands when the transaction holds it. NotFound
	// when there is no such certificate, and Transition's own refusals. It returns the record after the change,
	// without its DER.
	ChangeStatus(ctx context.Context, c StatusChange) (pki.Certificate, error)
	// Status tells whether the issuer key issued this serial number and what it says of it: NotFound if it did not.
	// A nil revocation is good. It reads an index only.
	Status(ctx context.Context, issuerKeyID int64, s pki.SerialNumber) (*pki.Revocation, error)
	// StatusEvents returns what changed after the given change number, oldest first, at most limit events, never
	// splitting one change over two calls: a change that alone holds more than limit events comes whole.
	StatusEvents(ctx context.Context, after int64, limit int) ([]StatusEvent, error)
	// Revocations streams the certificates of the issuer key and the scope that are not good, in the order of serial
	// numbers, as one consistent state, and the change number of that state: with pki.ScopeFull those of every scope, with
	// another one those that were issued with it. The sequence must be ranged over once, to its end or not; it holds a
	// connection while it runs.
	Revocations(ctx context.Context, issuerKeyID int64, scope string) (change int64, entries iter.Seq2[RevokedEntry, error], err error)
}

// StatusChange asks for a change of one certificate's status.
type StatusChange struct {
	IssuerID   int64
	Serial     pki.SerialNumber
	Action     pki.Action
	Revocation pki.Revocation // Status is ignored; RevokedAt is when the CA decides
	// BlockKey refuses the certificate's public key from then on, in every protocol. Issuances that had begun before may
	// still be recorded; see Campaigns.Settle.
	BlockKey bool
	// KeepRevoked refuses a certificate that is revoked already with AlreadyRevoked, whatever the reason.
	KeepRevoked bool
	Record      audit.Record
}

// Refuse returns what the change itself has against the state that it finds; nil leaves the word to pki.Transition.
func (c StatusChange) Refuse(current *pki.Revocation) error {
	if c.KeepRevoked && current != nil && current.Status == pki.Revoked {
		return fault.New(fault.AlreadyRevoked, "the certificate has been revoked since %s", current.RevokedAt.UTC().Format(time.RFC3339))
	}
	return nil
}

// StatusEvent is a change of one certificate's status.
type StatusEvent struct {
	Change      int64
	IssuerKeyID int64
	Serial      pki.SerialNumber
	Scope       string          // the narrowest CRL that speaks of it; see pki.Certificate
	Revocation  *pki.Revocation // nil: released
	NotAfter    time.Time
}

// RevokedEntry is what a CRL needs to know of a certificate.
type RevokedEntry struct {
	Serial     pki.SerialNumber
	Scope      string // as in StatusEvent
	Revocation pki.Revocation
	NotAfter   time.Time
	Change     int64 // of the newest change of its status
}

// CRLs keeps published certificate revocation lists.
type CRLs interface {
	// NextCRLNumber returns the number that the next CRL of this scope must carry at the least:
	// max(newest + 1, unixSeconds).
	NextCRLNumber(ctx context.Context, issuerKeyID int64, scope string, unixSeconds int64) (int64, error)
	// CRLNumbers returns the number of the newest CRL of each scope of each issuer key.
	CRLNumbers(ctx context.Context) (map[int64]map[string]int64, error)
	// RecordCRL publishes CRLs of one issuer key, of a scope each, all or none. ErrStale when for one of the scopes a
	// list with the same or a higher number has been published, or one that shows a later change: the caller throws its
	// own away. ErrLeaseLost when a lease is given and another holder has taken it since. Older CRLs of a scope are kept
	// for a few generations and then dropped, but for the newest that the timer made and the newest base.
	RecordCRL(ctx context.Context, under *Lease, cs ...pki.CRL) error
	// LatestCRL returns the newest CRL of the scope. NotFound before the first. known may be nil; a part whose data it
	// returns is not read, and the data is returned instead. Parts may be cut differently from what was recorded.
	LatestCRL(ctx context.Context, issuerKeyID int64, scope string, known func(hash [32]byte) []byte) (pki.CRL, error)
	// LatestScheduledCRL returns the newest CRL of the scope that the timer made, without its parts. NotFound before
	// the first.
	LatestScheduledCRL(ctx context.Context, issuerKeyID int64, scope string) (pki.CRL, error)
	// BaseCRL returns the newest CRL of the scope that is marked as a base, without its parts. NotFound before the first.
	BaseCRL(ctx context.Context, issuerKeyID int64, scope string) (pki.CRL, error)
	// DropCRLs removes all lists of those of the scopes that nobody can use any more at the given time, and returns which
	// scopes that were, in their order. A scope stays whole while one of its lists ends later, or has a number above that
	// time's Unix seconds: another list could get it again; and the scope of a shard stays while certificates that end later
	// may carry an address of its set. ErrLeaseLost as from RecordCRL. It is no change in the sense of the contract.
	// Unavailable with ErrNotInUse when the store is out of use.
	DropCRLs(ctx context.Context, under *Lease, issuerKeyID int64, scopes []string, at time.Time) ([]string, error)
}

// Issuers keeps issuers, their keys and certificates, and the wrapped private keys.
type Issuers interface {
	// AllIssuers returns everything, in one consistent state.
	AllIssuers(ctx context.Context) (IssuerSet, error)
	// KEKInfo returns the description of the key that wraps the private keys. NotFound on an empty store.
	KEKInfo(ctx context.Context) ([]byte, error)
	// ReplaceSealedKeys puts rewrapped keys and secrets and a new KEK description in place of the old, all or nothing.
	// ErrStale when the old description is not the one in place, or the keys and secrets are not exactly those of the store.
	ReplaceSealedKeys(ctx context.Context, oldKEKInfo, newKEKInfo []byte, sealed Sealed, record audit.Record) error
	// BlockedKeys returns the SHA-256 hashes of the public keys that are refused, those of our own keys included.
	BlockedKeys(ctx context.Context) (map[[32]byte]BlockedKey, error)
}

// BlockedKey says why a public key is refused: it is one of ours, or was reported compromised, or both.
type BlockedKey struct {
	Own         bool // a key of a CA, an RA, a responder or a listener of ours; it stays one
	Compromised bool
	At          time.Time // when it was reported; zero: not, or before this was kept
	By          string    // the principal who reported it
	Campaign    string    // id of the campaign that began with it; empty: none
}

// IssuerSet is everything about issuers.
type IssuerSet struct {
	Issuers      []pki.Issuer
	Keys         []pki.IssuerKey
	Certificates []pki.IssuerCertificate
	Settings     []pki.SettingsVersion // the newest of each issuer that has any
	Addresses    []pki.CRLAddress      // by issuer key, the first to be recorded first
}

// Profiles keeps profiles and their history.
type Profiles interface {
	// AllProfiles returns the newest version of each profile.
	AllProfiles(ctx context.Context) ([]pki.ProfileVersion, error)
	// PutProfile writes a new version. Its number must be one more than the newest, or 1 for a new profile; else
	// ErrStale.
	PutProfile(ctx context.Context, p pki.ProfileVersion, record audit.Record) error
	// ProfileHistory returns every version of a profile, newest first. NotFound when there is no such profile.
	ProfileHistory(ctx context.Context, name string) ([]pki.ProfileVersion, error)
}

// Tokens keeps API tokens.
type Tokens interface {
	// AllTokens returns every token, revoked and expired ones included, newest first.
	AllTokens(ctx context.Context) ([]pki.Token, error)
	// CreateToken writes a token. Conflict when a token of that name has not been revoked, whether or not it has
	// expired, or when the id exists.
	CreateToken(ctx context.Context, t pki.Token, record audit.Record) error
	// RevokeToken ends a token at the given time. NotFound when there is none, Conflict when it has been revoked, or
	// when it is the last administrator's. Only tokens that nothing but a rate limits count, that are not revoked, and that
	// last for AdministratorRemains from that time.
	RevokeToken(ctx context.Context, id string, at time.Time, record audit.Record) error
}

// AdministratorRemains is how long some other administrator's token must last for one to be revoked: time enough to make
// one that lasts. Tokens of a rescue and of a restoration, which last for hours, are enough.
const AdministratorRemains = time.Hour

// LastAdministrator returns the refusal to revoke the last administrator's token.
func LastAdministrator() error {
	return fault.New(fault.Conflict, "this is the last administrator's token").
		WithHint("create another first: an administrator's, without limits, that lasts for more than an hour")
}

// Audit reads the chain of records, and adds records that no other verb carries.
type Audit interface {
	// RecordAudit writes records of their own, for acts that change nothing else.
	RecordAudit(ctx context.Context, records ...audit.Record) error
	// AuditEvents returns a page of events, newest first.
	AuditEvents(ctx context.Context, f AuditFilter, p Page) ([]audit.Event, string, error)
	// AuditChain streams every batch with its records' canonical bytes, from the first, as one consistent state.
	AuditChain(ctx context.Context) iter.Seq2[SealedBatch, error]
}

// SealedBatch is a batch with what it sealed.
type SealedBatch struct {
	Batch   audit.Batch
	Records [][]byte
}

// AuditFilter narrows a list of events. The zero value matches everything.
type AuditFilter struct {
	Actor  string
	Action string    // exact, or a prefix that ends in "."
	Target string    // exact
	From   time.Time // inclusive
	To     time.Time // exclusive
}

// Leases decide which replica does a job. They hold by the database's clock.
type Leases interface {
	// AcquireLease takes the lease, or extends it when the holder has it already. Conflict when another holds it, which
	// wraps a HeldError.
	// The token grows with every change of holder: a write under an older token must be refused.
	AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (Lease, error)
	// ReleaseLease gives the lease back before its end. It is no error if another holds it.
	ReleaseLease(ctx context.Context, name, holder string) error
}

// HeldError says who holds a lease.
type HeldError struct{ Holder string }

// Error names the holder.
func (e *HeldError) Error() string { return e.Holder + " holds the lease" }

// Held returns what AcquireLease says when another holds the lease.
func Held(name, holder string) *fault.Error {
	return fault.Wrap(fault.Conflict, &HeldError{holder}, "another holds the lease %q", name)
}

// Lease is a job's lease.
type Lease struct {
	Name   string
	Holder string
	Token  int64 // fencing token
	// Remaining is how long the lease holds from when it was granted. Measure it with the monotonic clock.
	Remaining time.Duration
}
