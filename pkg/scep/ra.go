package scep

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/cms"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// DefaultRAKeyAge is how long an RA key that was replaced still decrypts: devices that were off for months have its
// certificate, and know no other.
const DefaultRAKeyAge = 2 * 365 * 24 * time.Hour

// raLease has one replica make or renew RA certificates at a time.
const (
	raLease    = "scep-ra"
	raLeaseTTL = time.Minute
)

// RAConfig is what an RA is made of. All but KeyAge and Logger are required.
type RAConfig struct {
	Store   RAStore
	Issuers *issuer.Set
	CA      *ca.Authority
	// Seal and Open keep private keys of keys.PurposeRA.
	Seal   func(crypto.Signer) ([]byte, error)
	Open   func(sealed []byte) (*keys.Key, error)
	Holder string // names this replica among those that share the store
	Now    func() time.Time
	// KeyAge is how long a key that was replaced still decrypts; 0 means DefaultRAKeyAge.
	KeyAge time.Duration
	Logger *slog.Logger // nil discards
}

// RAStore is the part of a store that an RA uses.
type RAStore interface {
	store.RACertificates
	store.Leases
	Secret(ctx context.Context, name string) ([]byte, error)
}

// RA keeps the registration authorities that sign and decrypt for the issuers: an RSA certificate for each, whatever the
// issuer's own key is, since a device encrypts to it (RFC 8894, Sections 2.1.2 and 3.1), and since an issuer's key that
// decrypted for strangers could be made to sign. They are shared by all replicas, made when the first device asks, and
// renewed by themselves with the key they have. It is safe for concurrent use.
type RA struct {
	cfg   RAConfig
	mu    sync.Mutex // serializes Renew
	known atomic.Pointer[authorities]
}

// authorities is what Follow loads: replaced whole, never edited.
type authorities struct {
	change   int64
	all      []pki.RACertificate    // those of superseded keys too
	dead     int                    // how many keys are superseded
	byIssuer map[int64][]*authority // newest first
	keys     map[string]*keys.Key
}

// authority is an RA certificate with its key, ready to work.
type authority struct {
	record      pki.RACertificate
	certificate *x509.Certificate
	signer      *cms.Signer
	recipient   *cms.Recipient
}

// NewRA returns an RA that knows none until Follow is called.
func NewRA(cfg RAConfig) (*RA, error) {
	if cfg.Store == nil || cfg.Issuers == nil || cfg.CA == nil || cfg.Seal == nil || cfg.Open == nil || cfg.Holder == "" || cfg.Now == nil {
		return nil, errors.New("scep: incomplete RA config")
	}
	if cfg.KeyAge == 0 {
		cfg.KeyAge = DefaultRAKeyAge
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &RA{cfg: cfg}
	r.known.Store(&authorities{change: -1})
	return r, nil
}

// Follow reloads the RA certificates when the configuration has changed (see watch.Follower).
func (r *RA) Follow(ctx context.Context, head store.Head) error {
	if r.known.Load().change == head.ConfigChange {
		return nil
	}
	return r.load(ctx, head.ConfigChange)
}

func (r *RA) load(ctx context.Context, change int64) error {
	all, err := r.cfg.Store.AllRACertificates(ctx)
	if err != nil {
		return fmt.Errorf("loading RA certificates: %w", err)
	}
	old := r.known.Load()
	dead := r.superseded(all)
	next := &authorities{change: change, all: all, dead: len(dead), byIssuer: map[int64][]*authority{}, keys: map[string]*keys.Key{}}
	for _, c := range slices.Backward(all) { // the highest number first
		if _, gone := dead[c.KeyID]; gone {
			continue
		}
		a, err := r.open(ctx, c, old, next)
		if fault.Is(err, fault.Unavailable) {
			return fmt.Errorf("loading RA certificates: %w", err)
		}
		if err != nil {
			r.cfg.Logger.Error("an RA certificate in the store cannot be used", "key", c.KeyID, "number", c.Number, "err", err)
			continue
		}
		next.byIssuer[c.IssuerID] = append(next.byIssuer[c.IssuerID], a)
	}
	r.known.Store(next)
	return nil
}

// superseded returns the ids of keys that were replaced longer ago than they are kept.
func (r *RA) superseded(all []pki.RACertificate) map[string]bool {
	newest := map[int64]pki.RACertificate{}
	for _, c := range all {
		if c.Number > newest[c.IssuerID].Number {
			newest[c.IssuerID] = c
		}
	}
	// A key is replaced when the first certificate with another key follows its last one.
	replaced := map[string]time.Time{}
	for i, c := range all {
		if newest[c.IssuerID].KeyID == c.KeyID {
			continue
		}
		if i+1 < len(all) && all[i+1].IssuerID == c.IssuerID && all[i+1].KeyID != c.KeyID {
			replaced[c.KeyID] = all[i+1].CreatedAt
		}
	}
	dead := map[string]bool{}
	for id, at := range replaced {
		if r.cfg.Now().After(at.Add(r.cfg.KeyAge)) {
			dead[id] = true
		}
	}
	return dead
}

func (r *RA) open(ctx context.Context, c pki.RACertificate, old, next *authorities) (*authority, error) {
	for _, a := range old.byIssuer[c.IssuerID] {
		if a.record.Fingerprint == c.Fingerprint {
			next.keys[c.KeyID] = old.keys[c.KeyID]
			return a, nil
		}
	}
	key := next.keys[c.KeyID]
	if key == nil {
		key = old.keys[c.KeyID]
	}
	if key == nil {
		sealed, err := r.cfg.Store.Secret(ctx, pki.SecretRA(c.KeyID))
		if err != nil {
			return nil, err
		}
		if key, err = r.cfg.Open(sealed); err != nil {
			return nil, err
		}
	}
	certificate, err := x509.ParseCertificate(c.DER)
	if err != nil {
		return nil, err
	}
	a, err := newAuthority(certificate, key)
	if err != nil {
		return nil, err
	}
	a.record, next.keys[c.KeyID] = c, key
	return a, nil
}

func newAuthority(certificate *x509.Certificate, key *keys.Key) (*authority, error) {
	signer, err := cms.NewSigner(certificate, key)
	if err != nil {
		return nil, err
	}
	recipient, err := cms.NewRecipient(certificate, key)
	if err != nil {
		return nil, err
	}
	return &authority{certificate: certificate, signer: signer, recipient: recipient}, nil
}

// of returns the authorities of an issuer, the one in use first.
func (r *RA) of(issuerID int64) []*authority { return r.known.Load().byIssuer[issuerID] }

// Certificate returns the certificate that an issuer's RA uses now; nil if there is none.
func (r *RA) Certificate(issuerID int64) *x509.Certificate {
	if all := r.of(issuerID); len(all) > 0 {
		return all[0].certificate
	}
	return nil
}

// due reports whether an issuer's RA must be made, or its certificate renewed: two thirds of its life have passed, or it
// is of another key of the issuer than the one that signs now.
func (r *RA) due(i *issuer.Issuer) bool {
	all := r.of(i.ID)
	if len(all) == 0 {
		return true
	}
	c := all[0].certificate
	life := c.NotAfter.Sub(c.NotBefore)
	return r.cfg.Now().After(c.NotBefore.Add(life*2/3)) || string(c.AuthorityKeyId) != string(i.Current.Certificate.SubjectKeyId)
}

// ensure returns the authorities of an issuer, and makes the first one if there is none.
func (r *RA) ensure(ctx context.Context, i *issuer.Issuer) ([]*authority, error) {
	if all := r.of(i.ID); len(all) > 0 {
		return all, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for try := 1; ; try++ {
		if all := r.of(i.ID); len(all) > 0 { // somebody else was faster
			return all, nil
		}
		err := r.renew(ctx, i, false, pki.System())
		switch {
		case err == nil && len(r.of(i.ID)) > 0:
		case err == nil, errors.Is(err, store.ErrStale):
			// Another replica is at it.
			if try == ensureTries {
				return nil, fault.New(fault.Unavailable, "the RA of issuer %q is being made", i.Name).WithRetryAfter(time.Second)
			}
			select {
			case <-ctx.Done():
				return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "the request ended first")
			case <-time.After(ensureWait):
			}
			if err := r.load(ctx, r.known.Load().change); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("making the RA of issuer %q: %w", i.Name, err)
		}
	}
}

// How long another replica is waited for that makes an RA.
const (
	ensureTries = 100
	ensureWait  = 100 * time.Millisecond
)

// Renew renews what is due, if this replica gets to do so, and lets go of keys that have decrypted for long enough. Another
// that is at it is no error. RAs that no device has asked for are not made.
func (r *RA) Renew(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first error
	if known := r.known.Load(); len(r.superseded(known.all)) > known.dead {
		first = r.load(ctx, known.change)
	}
	for _, i := range r.candidates() {
		if len(r.of(i.ID)) == 0 || !r.due(i) {
			continue
		}
		if err := r.renew(ctx, i, false, pki.System()); err != nil && first == nil {
			first = fmt.Errorf("RA of issuer %q: %w", i.Name, err)
		}
	}
	return first
}

// candidates are the issuers that sign for devices.
func (r *RA) candidates() []*issuer.Issuer {
	var list []*issuer.Issuer
	for _, i := range r.cfg.Issuers.Current().Issuers {
		if !i.Root && i.Current.Revocation == nil && r.cfg.Now().Before(i.Current.Certificate.NotAfter) {
			list = append(list, i)
		}
	}
	return list
}

// Rotate gives an issuer's RA a new key. The old one still decrypts for KeyAge.
func (r *RA) Rotate(ctx context.Context, i *issuer.Issuer, by pki.Principal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i.Root {
		return fault.New(fault.PolicyRefused, "the root %q signs no devices' certificates and has no RA", i.Name).WithField("issuer")
	}
	return r.renew(ctx, i, true, by)
}

// renew works on what the store says, not on what this replica knows: another may have been faster.
func (r *RA) renew(ctx context.Context, i *issuer.Issuer, newKey bool, by pki.Principal) error {
	if _, err := r.cfg.Store.AcquireLease(ctx, raLease, r.cfg.Holder, raLeaseTTL); err != nil {
		if fault.Is(err, fault.Conflict) && !newKey {
			return nil
		}
		return err
	}
	defer func() {
		// It ends by itself.
		_ = r.cfg.Store.ReleaseLease(context.WithoutCancel(ctx), raLease, r.cfg.Holder)
	}()
	if err := r.load(ctx, r.known.Load().change); err != nil {
		return err
	}
	if !newKey && !r.due(i) {
		return nil
	}
	all, err := r.cfg.Store.AllRACertificates(ctx)
	if err != nil {
		return err
	}
	number := 0
	for _, c := range all {
		if c.IssuerID == i.ID {
			number = max(number, c.Number)
		}
	}
	change := store.RAChange{}
	var key *keys.Key
	if current := r.of(i.ID); len(current) > 0 && current[0].record.Number == number && !newKey {
		key = r.known.Load().keys[current[0].record.KeyID]
	} else {
		signer, err := keys.Generate(keys.RSA2048)
		if err != nil {
			return err
		}
		if change.Key, err = r.cfg.Seal(signer); err != nil {
			return err
		}
		if key, err = keys.New(keys.PurposeRA, signer); err != nil {
			return err
		}
	}
	c, err := r.cfg.CA.IssueInternal(ctx, ca.InternalRequest{Profile: ca.ProfileRA, Key: i.Current, PublicKey: key.Public(), CommonName: i.Name + " SCEP RA"})
	if err != nil {
		return err
	}
	now := r.cfg.Now().Truncate(time.Microsecond)
	change.Drop = slices.Sorted(maps.Keys(r.superseded(all)))
	change.Certificate = pki.RACertificate{
		IssuerID: i.ID, Number: number + 1, KeyID: key.KeyID(), Fingerprint: sha256.Sum256(c.Raw), DER: c.Raw, CreatedAt: now,
	}
	kind := "renewed"
	if change.Key != nil {
		kind = "new key"
	}
	change.Record = audit.Record{
		Time: now, Action: audit.ActionRA, Actor: by.Name, Role: by.Role.String(), Source: by.Source, Target: "issuer/" + i.Name,
		Detail: map[string]string{"kind": kind, "key": key.KeyID(), "certificate": change.Certificate.Fingerprint.String(), "not_after": c.NotAfter.Format(time.RFC3339)},
	}
	if err := r.cfg.Store.PutRACertificate(ctx, change); err != nil {
		return err
	}
	r.cfg.Logger.Info("new RA certificate", "issuer", i.Name, "kind", kind, "key", key.KeyID(), "not_after", c.NotAfter)
	return r.load(ctx, r.known.Load().change)
}

// issuerKey lets an issuer's own key work as an RA's.
func (r *RA) issuerKey(k *issuer.Key) (*authority, error) {
	own, ok := k.Signer.(*keys.Key)
	if !ok {
		return nil, fmt.Errorf("a %T does not decrypt", k.Signer)
	}
	key, err := own.ForRA()
	if err != nil {
		return nil, err
	}
	return newAuthority(k.Certificate, key)
}
