// Package ca is the certification authority: the only package that signs certificates, and the one through which their
// status changes. It checks nobody's authority save his rules about names, which only the profile settles; the front-ends
// have done the rest when they call.
//
// Nothing that it signs is released before the store has it durably (decision «sign, commit, then release bytes»): Issue
// returns a certificate only after its row is committed, and an error otherwise, even when the signature exists.
package ca

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/certwright/certwright/pkg/settings"
	"github.com/certwright/certwright/pkg/store"
)

// serialDraws is how often a serial number is drawn for one certificate. A second draw needs 72 random bits to repeat
// within a second; a third says that the random source is broken.
const serialDraws = 3

// Store is the part of a store that the authority uses.
type Store interface {
	store.Certificates
	ChangeStatus(ctx context.Context, c store.StatusChange) (pki.Certificate, error)
	store.Profiles
	store.IssuerSettings
	BlockedKeys(ctx context.Context) (map[[32]byte]store.BlockedKey, error)
	NextCertificates(ctx context.Context, f store.CertificateFilter, after store.CertificatePosition, limit int) ([]pki.Certificate, error)
	Settle(ctx context.Context) error
}

// Config is what an Authority is made of. Store, Issuers, Clock and PublicURL are required.
type Config struct {
	Store   Store
	Issuers *issuer.Set
	Clock   *clock.Guard
	// PublicURL is where verifiers reach CRLs, OCSP and CA certificates, without a slash at the end.
	PublicURL string
	// Process is what the process has settled for issuers whose own settings leave it open. The zero value means
	// settings.Default.
	Process settings.InForce
	// Reserved are the names of our own listeners: nobody but the server gets a certificate for them.
	Reserved []string
	// StatusChanged is told of a change of status once it is durable and before the caller is. It must be quick.
	StatusChanged func(c pki.Certificate)
	Random        io.Reader // nil means crypto/rand
	Logger        *slog.Logger
}

// Authority issues certificates and changes their status. It is safe for concurrent use.
type Authority struct {
	cfg       Config
	policy    atomic.Pointer[policy]
	templates sync.Map // templateKey -> *der.CertificateTemplate
	issuers   sync.Map // pki.Fingerprint of an issuer's certificate -> profile.Issuer

	carried  sync.Map   // addressKey -> time.Time: until when the store knows that certificates carry it
	carrying sync.Mutex // held while an address is recorded
	figures  figures
}

// policy is what Follow loads: replaced whole, never edited.
type policy struct {
	change   int64
	profiles map[string]*Profile
	blocked  map[[32]byte]store.BlockedKey
}

// Profile is a profile in force, with the version that is stamped on its certificates.
type Profile struct {
	*profile.Profile
	Version int
	Record  pki.ProfileVersion
}

// New returns an authority that knows no profile until Follow is called.
func New(cfg Config) (*Authority, error) {
	switch {
	case cfg.Store == nil, cfg.Issuers == nil, cfg.Clock == nil:
		return nil, errors.New("ca: incomplete config")
	case cfg.PublicURL == "" || strings.HasSuffix(cfg.PublicURL, "/"):
		return nil, fmt.Errorf("ca: public URL %q must be set and not end in a slash", cfg.PublicURL)
	}
	if cfg.Process == (settings.InForce{}) {
		cfg.Process = settings.Default()
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.StatusChanged == nil {
		cfg.StatusChanged = func(pki.Certificate) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Authority{cfg: cfg}
	a.policy.Store(&policy{change: -1})
	return a, nil
}

// Follow reloads profiles and blocked keys when the configuration has changed (see watch.Follower). A profile in the
// store that this version does not accept keeps its name, and issuing with it is refused: the others go on.
func (a *Authority) Follow(ctx context.Context, head store.Head) error {
	if a.policy.Load().change == head.ConfigChange {
		return nil
	}
	all, err := a.cfg.Store.AllProfiles(ctx)
	if err != nil {
		return fmt.Errorf("loading profiles: %w", err)
	}
	blocked, err := a.cfg.Store.BlockedKeys(ctx)
	if err != nil {
		return fmt.Errorf("loading blocked keys: %w", err)
	}
	next := &policy{change: head.ConfigChange, profiles: make(map[string]*Profile, len(all)), blocked: blocked}
	for _, record := range all {
		p, err := parseProfile(record)
		if err != nil {
			a.cfg.Logger.Error("a profile in the store is not valid: nothing is issued with it", "profile", record.Name, "version", record.Version, "err", err)
			continue
		}
		next.profiles[record.Name] = &Profile{Profile: p, Version: record.Version, Record: record}
	}
	a.policy.Store(next)
	return nil
}

// Profiles returns the profiles in force, in the order of their names.
func (a *Authority) Profiles() []*Profile {
	return slices.SortedFunc(maps.Values(a.policy.Load().profiles), func(x, y *Profile) int {
		return strings.Compare(x.Name(), y.Name())
	})
}

// Profile returns the profile in force under this name. The internal ones are not found.
func (a *Authority) Profile(name string) (*Profile, error) {
	profiles := a.policy.Load().profiles
	if p, ok := profiles[name]; ok {
		return p, nil
	}
	names := slices.Sorted(maps.Keys(profiles))
	return nil, fault.New(fault.NotFound, "there is no profile %q", name).WithField("profile").
		WithHint("there are %s", strings.Join(names, ", "))
}

// Request asks for a certificate. Either CSR or PublicKey is set.
type Request struct {
	Principal pki.Principal
	// Source is the network address that the request came from, where that is not the principal's: of what a person has
	// approved.
	Source    string
	RequestID string
	Protocol  string // "rest", "scep", "internal"
	Issuer    string // empty: the only issuing CA
	Profile   string
	CSR       *csr.Request
	PublicKey crypto.PublicKey
	// Subject and SANs, when not nil, replace what the CSR asks for.
	Subject []der.Attribute
	SANs    []der.GeneralName
	// Validity or NotAfter ask for a certain life; both zero mean the profile's default.
	Validity time.Duration
	NotAfter time.Time
	// MaxValidity, if not zero, is the longest life that the certificate may have, whatever the profile gives.
	MaxValidity time.Duration
	Device      string
	// SupersedeDevice has the older certificates of the device and this profile revoked; see store.Issuance.
	SupersedeDevice bool
	// DeviceCertificate, when not nil, is what the device's newest certificate must be still; see store.Issuance.
	DeviceCertificate *pki.Fingerprint
	TransactionID     string
	// Idempotency, when not nil, makes the request safe to repeat; its fingerprint and warnings are set here. When the
	// request has got its certificate before, the error is a Conflict with a store.IssuedBeforeError.
	Idempotency *store.Idempotency
	// Enrollment, when not nil, is written with the certificate, whose fingerprint is set here. The errors are those of
	// store.Certificates.
	Enrollment *store.EnrollmentChange
	// Notify, when not nil, returns what the webhook of Enrollment's point is to be told of the certificate, beside what
	// Enrollment has for it.
	Notify func(pki.Certificate) []pki.Notification
	// Detail is added to the audit record.
	Detail map[string]string

	replaces    pki.Fingerprint
	predecessor *store.Predecessor // of what replaces names
	action      string
	undecided   bool // see Judge
}

func (r *Request) source() string { return cmp.Or(r.Source, r.Principal.Source) }

// Issued is a certificate that the store has durably.
type Issued struct {
	Record   pki.Certificate     // with DER
	Chain    []*x509.Certificate // the issuer's certificate first, up to the root
	Warnings []string            // what the profile changed or found odd, for the requester
}

// Issue makes a certificate. Refusals are faults of the kinds BadRequest, BadCSR, BadPublicKey, PolicyRefused and NotFound;
// Unavailable means that the store or the clock does not allow it now, and that nothing was issued.
func (a *Authority) Issue(ctx context.Context, r Request) (_ *Issued, err error) {
	defer func() { a.countIssue(r.Profile, r.Protocol, err) }()
	if r.Profile == "" {
		return nil, fault.New(fault.BadRequest, "the request names no profile").WithField("profile")
	}
	p, err := a.Profile(r.Profile)
	if err != nil {
		return nil, err
	}
	key, err := a.admit(p, r)
	if err != nil {
		return nil, err
	}
	if r.action == "" {
		r.action = audit.ActionIssue
	}
	return a.issue(ctx, key, p, r, r.CSR.PublicKey, r.CSR.SPKI, r.CSR.SPKIHash)
}

// admit returns the issuer key that a request from outside is for, or why there is none for it.
func (a *Authority) admit(p *Profile, r Request) (*issuer.Key, error) {
	i, err := a.cfg.Issuers.Current().Issuer(r.Issuer)
	if err != nil {
		return nil, err
	}
	if i.Root && !p.IsCA() {
		return nil, fault.New(fault.PolicyRefused, "the root %q issues CA certificates only", i.Name).WithField("issuer")
	}
	if r.CSR == nil {
		return nil, fault.New(fault.BadRequest, "there is no certificate signing request").WithField("csr")
	}
	if r.CSR.KeyErr != nil {
		return nil, r.CSR.KeyErr
	}
	if err := a.CheckKey(r.CSR.SPKIHash); err != nil && !(p.IsCA() && a.subordinate(r.CSR.SPKIHash)) {
		return nil, err
	}
	return i.Current, nil
}

// subordinate reports whether a key that is kept for ourselves is that of a CA below ours, which may have a new
// certificate, and not of one of our own issuers, responders or listeners.
func (a *Authority) subordinate(hash [32]byte) bool {
	if b := a.policy.Load().blocked[hash]; !b.Own || b.Compromised {
		return false
	}
	for _, k := range a.cfg.Issuers.Current().Keys() {
		if keys.SPKIHash(k.Certificate.RawSubjectPublicKeyInfo) == hash {
			return false
		}
	}
	return true
}

// CheckKey refuses keys that nobody may have a certificate for: those that were reported compromised, and our own. The hash
// is the SHA-256 of the SubjectPublicKeyInfo. Errors are faults of the kind BadPublicKey.
func (a *Authority) CheckKey(hash [32]byte) error {
	if b, ok := a.policy.Load().blocked[hash]; ok {
		return b.Refuse(false)
	}
	return nil
}

// issue signs with the given issuer key and records. All checks of who may have what are behind it, save the profile's.
func (a *Authority) issue(ctx context.Context, key *issuer.Key, p *Profile, r Request, pub crypto.PublicKey, spki []byte, hash [32]byte) (*Issued, error) {
	now, err := a.cfg.Clock.Check()
	if err != nil {
		return nil, err
	}
	c, fields, err := a.prepare(key, p, r, pub, spki, now)
	if err != nil {
		return nil, err
	}
	t, err := a.template(key, p, c.KeyAlgorithm)
	if err != nil {
		return nil, err
	}
	at, err := a.distribute(ctx, key, p, c.NotAfter, now)
	if err != nil {
		return nil, err
	}
	record := pki.Certificate{
		IssuerID: key.IssuerID, IssuerKeyID: key.ID, SPKIHash: hash,
		Subject: c.SubjectString, SANs: c.SANStrings, Profile: p.Name(), ProfileVersion: p.Version,
		Requester: r.Principal.Name, Protocol: r.Protocol, Device: r.Device, Source: r.source(),
		TransactionID: r.TransactionID, Replaces: r.replaces,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, IssuedAt: now.Truncate(time.Microsecond),
	}
	idempotency := r.Idempotency
	if idempotency != nil {
		own := *idempotency
		own.Warnings = c.Warnings
		idempotency = &own
	}
	enrollment := r.Enrollment
	if enrollment != nil {
		own := *enrollment
		enrollment = &own
	}
	for draw := 1; ; draw++ {
		serial, err := pki.NewSerialNumber(a.cfg.Random, c.NotAfter, now)
		if err != nil {
			return nil, err
		}
		fields.SerialNumber = serial.Bytes()
		record.Serial = serial
		record.CRLScope, record.CRLShard, fields.CRLDistributionPoint = at.of(serial)
		if record.DER, err = sign(t, &fields, key.Signer); err != nil {
			return nil, err
		}
		record.Fingerprint = sha256.Sum256(record.DER)
		if enrollment != nil {
			enrollment.Enrollment.Issued = record.Fingerprint
			if r.Notify != nil {
				enrollment.Notifications = slices.Concat(r.Enrollment.Notifications, r.Notify(record))
			}
		}
		err = a.cfg.Store.RecordIssuance(ctx, store.Issuance{
			Certificate: record, ReserveKey: p.Internal() || p.IsCA(), Idempotency: idempotency, Predecessor: r.predecessor, Enrollment: enrollment,
			SupersedeDevice: r.SupersedeDevice, DeviceCertificate: r.DeviceCertificate,
			Record: auditRecord(now, r, record, key),
		})
		if errors.Is(err, store.ErrSerialTaken) {
			if draw < serialDraws {
				continue
			}
			return nil, fault.Wrap(fault.Internal, err, "%d serial numbers in a row were taken: the random source is stuck", draw)
		}
		if err != nil {
			return nil, fmt.Errorf("recording the certificate: %w", err)
		}
		return &Issued{Record: record, Chain: key.Chain(), Warnings: c.Warnings}, nil
	}
}

// prepare settles what the certificate will say, but for its serial number.
func (a *Authority) prepare(key *issuer.Key, p *Profile, r Request, pub crypto.PublicKey, spki []byte, now time.Time) (profile.Contents, der.CertificateFields, error) {
	fail := func(err error) (profile.Contents, der.CertificateFields, error) {
		return profile.Contents{}, der.CertificateFields{}, err
	}
	bounds, err := a.bounds(key)
	if err != nil {
		return fail(err)
	}
	if r.undecided { // by then it may issue, and another key may
		bounds.NotBefore, bounds.NotAfter = time.Time{}, time.Time{}
	} else if err := usable(key, now); err != nil {
		return fail(err)
	}
	in := profile.Input{
		Subject: r.Subject, SANs: r.SANs, PublicKey: pub, Validity: r.Validity, MaxValidity: r.MaxValidity, NotAfter: r.NotAfter, Now: now, Issuer: bounds,
		Requester: r.Principal.Name, Role: r.Principal.Role.String(), Protocol: r.Protocol, Source: r.source(), Device: r.Device,
		Renewal: r.replaces != pki.Fingerprint{}, Undecided: r.undecided,
	}
	if r.CSR != nil {
		in.CSR = profile.Wishes{Subject: r.CSR.Subject, SANs: r.CSR.SANs, KeyUsage: r.CSR.KeyUsage, ExtKeyUsage: r.CSR.ExtKeyUsage, IsCA: r.CSR.IsCA}
	}
	if !p.Internal() {
		in.Reserved = a.cfg.Reserved
	}
	c, err := p.Contents(in)
	if err != nil {
		return fail(err)
	}
	if err := mayName(r.Principal, p, c); err != nil {
		return fail(err)
	}
	subject, san, err := encodeNames(c)
	if err != nil {
		return fail(err)
	}
	return c, der.CertificateFields{
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Subject: subject, SubjectAltName: san,
		SubjectPublicKeyInfo: spki, SubjectKeyID: der.SubjectKeyID(spki),
	}, nil
}

// mayName holds the names that the profile has settled against the principal's rules: nobody else knows them before.
func mayName(who pki.Principal, p *Profile, c profile.Contents) error {
	switch {
	case len(who.Names) == 0:
		return nil
	case p.IsCA():
		return fault.New(fault.Forbidden, "this token is limited to certain names, and a CA could name anything").WithField("profile")
	}
	subject := make([]string, len(c.Subject))
	for i, attribute := range c.Subject {
		subject[i] = profile.AttributeTypeOf(attribute.Type) + ":" + attribute.Value
	}
	return auth.MayName(who, subject, c.SANStrings)
}

// Usable refuses an issuer that can issue nothing to anybody now: its certificate has ended, or is revoked or on hold. Errors
// are faults of the kinds NotFound, PolicyRefused and, when the clock cannot be trusted, Unavailable.
func (a *Authority) Usable(issuerName string) error {
	i, err := a.cfg.Issuers.Current().Issuer(issuerName)
	if err != nil {
		return err
	}
	now, err := a.cfg.Clock.Check()
	if err != nil {
		return err
	}
	return usable(i.Current, now)
}

// usable refuses an issuer key that must not issue: its certificate has ended, or is revoked or on hold.
func usable(key *issuer.Key, now time.Time) error {
	if r := key.Revocation; r != nil {
		status := r.Status.String()
		if r.Status == pki.OnHold {
			status = "on hold"
		}
		return fault.New(fault.PolicyRefused, "the issuer %q cannot issue: its certificate has been %s since %s", key.Issuer.Name,
			status, r.RevokedAt.UTC().Format(time.RFC3339)).WithField("issuer")
	}
	if now.After(key.Certificate.NotAfter) {
		return fault.New(fault.PolicyRefused, "the issuer %q cannot issue: its certificate ended on %s", key.Issuer.Name,
			key.Certificate.NotAfter.Format(time.RFC3339)).WithField("issuer")
	}
	return nil
}

func auditRecord(now time.Time, r Request, c pki.Certificate, key *issuer.Key) audit.Record {
	detail := map[string]string{
		"issuer": key.Issuer.Name, "serial": c.Serial.String(), "profile": c.Profile,
		"subject": c.Subject, "not_after": c.NotAfter.Format(time.RFC3339), "protocol": c.Protocol,
	}
	if len(c.SANs) > 0 {
		detail["sans"] = strings.Join(c.SANs, ", ")
	}
	if c.Device != "" {
		detail["device"] = c.Device
	}
	if c.Replaces != (pki.Fingerprint{}) {
		detail["replaces"] = c.Replaces.String()
	}
	maps.Copy(detail, r.Detail)
	return audit.Record{
		Time: now, Action: r.action, Actor: r.Principal.Name, Role: r.Principal.Role.String(), Source: r.Principal.Source,
		RequestID: r.RequestID, Target: "certificate/" + c.Fingerprint.String(), Detail: detail,
	}
}

// sign encodes and signs once. Software keys check their own RSA results; ECDSA results are not verified again.
func sign(t *der.CertificateTemplate, f *der.CertificateFields, signer crypto.Signer) ([]byte, error) {
	tbs, err := t.AppendTBS(make([]byte, 0, 1024), f)
	if err != nil {
		return nil, badValue(err)
	}
	alg := t.SignatureAlgorithm()
	sig, err := alg.Sign(rand.Reader, signer, tbs)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	return der.AppendSigned(make([]byte, 0, len(tbs)+len(sig)+32), tbs, alg, sig), nil
}

func encodeNames(c profile.Contents) (subject, san []byte, err error) {
	rdns := make([][]der.Attribute, len(c.Subject))
	for i := range c.Subject {
		rdns[i] = c.Subject[i : i+1]
	}
	if subject, err = der.AppendName(nil, rdns); err != nil {
		return nil, nil, badValue(err)
	}
	if len(c.SANs) > 0 {
		if san, err = der.AppendGeneralNames(nil, c.SANs); err != nil {
			return nil, nil, badValue(err)
		}
	}
	return subject, san, nil
}

// badValue turns an encoder's refusal into the requester's mistake: everything of ours in a certificate was checked
// before, so what cannot be encoded came with the request.
func badValue(err error) error {
	if v, ok := errors.AsType[*der.ValueError](err); ok {
		return fault.Wrap(fault.PolicyRefused, err, "the certificate cannot carry this: %s", v.Error())
	}
	return err
}
