// Package issuer holds the issuers that this replica has loaded: their records, settings, keys ready to sign, certificates
// and chains, kept current with the store. It signs nothing itself.
package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha1" // CertID of RFC 6960 names issuers by SHA-1 too
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/settings"
	"github.com/certwright/certwright/pkg/store"
)

// Config is what Load needs. All fields but Logger are required.
type Config struct {
	Store Source
	// Open unseals a private key.
	Open   func(sealed []byte) (crypto.Signer, error)
	Logger *slog.Logger // nil discards
}

// Source is the part of a store that issuers are loaded from.
type Source interface {
	AllIssuers(ctx context.Context) (store.IssuerSet, error)
	Status(ctx context.Context, issuerKeyID int64, s pki.SerialNumber) (*pki.Revocation, error)
}

// Set is the issuers of this replica. It is safe for concurrent use: readers take a Snapshot, which never changes.
type Set struct {
	cfg     Config
	mu      sync.Mutex // serializes Reload
	current atomic.Pointer[Snapshot]
}

// Snapshot is one state of all issuers. It must not be changed.
type Snapshot struct {
	Issuers []*Issuer // roots first, then by name
	byName  map[string]*Issuer
	byID    map[int64]*Issuer
	byKeyID map[string]*Key
	keys    []*Key
}

// Issuer is a CA: the record, and its keys.
type Issuer struct {
	pki.Issuer
	Current *Key   // signs new certificates
	Keys    []*Key // newest first, Current among them

	// Settings are what an administrator has settled; the zero value when nobody has.
	Settings settings.Config
	// SettingsVersion is the newest version of them in the store; 0 when there is none. SettingsErr is why this program
	// cannot read it, and Settings are then those that it read last; nil when it can.
	SettingsVersion pki.SettingsVersion
	SettingsErr     error
}

// Key is an issuer's key, ready to sign, with its current certificate.
type Key struct {
	pki.IssuerKey
	Issuer      *Issuer
	Signer      crypto.Signer
	Certificate *x509.Certificate // the current one
	Parent      *Key              // whose key signed Certificate; the key itself when self-signed; nil when a stranger's
	Fingerprint pki.Fingerprint   // of Certificate
	Revocation  *pki.Revocation   // of Certificate, as its parent says; nil while good
	ChainPEM    string            // Chain, as PEM
	// Addresses are those of the key's CRLs that certificates carry, the first to be recorded first.
	Addresses []pki.CRLAddress

	// The hashes that OCSP's CertID names the issuer by (RFC 6960, Section 4.1.1).
	NameHashSHA1, KeyHashSHA1     [20]byte
	NameHashSHA256, KeyHashSHA256 [32]byte
}

// Load reads all issuers. It fails when a private key does not open or does not belong to its certificate: a server that
// cannot sign for one of its issuers must not start.
func Load(ctx context.Context, cfg Config) (*Set, error) {
	if cfg.Store == nil || cfg.Open == nil {
		return nil, errors.New("issuer: incomplete config")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Set{cfg: cfg}
	s.current.Store(&Snapshot{})
	return s, s.Reload(ctx)
}

// Current returns the newest snapshot.
func (s *Set) Current() *Snapshot { return s.current.Load() }

// Reload reads the store again and replaces the snapshot whole. Keys that were open stay open. On error the old snapshot
// stays.
func (s *Set) Reload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := s.cfg.Store.AllIssuers(ctx)
	if err != nil {
		return fmt.Errorf("loading issuers: %w", err)
	}
	snap, err := s.build(ctx, all)
	if err != nil {
		return fmt.Errorf("loading issuers: %w", err)
	}
	s.current.Store(snap)
	return nil
}

func (s *Set) build(ctx context.Context, all store.IssuerSet) (*Snapshot, error) {
	old := s.current.Load()
	snap := &Snapshot{byName: map[string]*Issuer{}, byID: map[int64]*Issuer{}, byKeyID: map[string]*Key{}}
	for _, r := range all.Issuers {
		i := &Issuer{Issuer: r}
		snap.Issuers = append(snap.Issuers, i)
		snap.byName[r.Name], snap.byID[r.ID] = i, i
	}
	byID := map[int64]*Key{}
	for _, r := range all.Keys {
		i := snap.byID[r.IssuerID]
		if i == nil {
			return nil, fmt.Errorf("key %s belongs to no issuer", r.KeyID)
		}
		k := &Key{IssuerKey: r, Issuer: i}
		if before, ok := old.byKeyID[r.KeyID]; ok {
			k.Signer = before.Signer
		} else {
			signer, err := s.cfg.Open(r.SealedKey)
			if err != nil {
				return nil, fmt.Errorf("opening the private key %s of issuer %q: %w", r.KeyID, i.Name, err)
			}
			k.Signer = signer
		}
		i.Keys = append(i.Keys, k)
		if r.Current {
			i.Current = k
		}
		byID[r.ID], snap.byKeyID[r.KeyID] = k, k
		snap.keys = append(snap.keys, k)
	}
	for _, v := range all.Settings {
		if i := snap.byID[v.IssuerID]; i != nil {
			s.settle(i, v, old.byID[v.IssuerID])
		}
	}
	for _, a := range all.Addresses {
		if k := byID[a.IssuerKeyID]; k != nil {
			k.Addresses = append(k.Addresses, a)
		}
	}
	for _, r := range all.Certificates {
		k := byID[r.IssuerKeyID]
		if k == nil || !r.Current {
			continue
		}
		if err := k.setCertificate(r, byID[r.ParentKeyID]); err != nil {
			return nil, err
		}
	}
	for _, k := range snap.keys {
		if k.Certificate == nil {
			return nil, fmt.Errorf("key %s of issuer %q has no current certificate", k.KeyID, k.Issuer.Name)
		}
		if k.Parent == nil || k.Parent == k {
			continue
		}
		serial, err := pki.SerialNumberFromBytes(integerBytes(k.Certificate))
		if err != nil {
			return nil, fmt.Errorf("certificate of issuer %q: %w", k.Issuer.Name, err)
		}
		k.Revocation, err = s.cfg.Store.Status(ctx, k.Parent.ID, serial)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return nil, fmt.Errorf("status of the certificate of issuer %q: %w", k.Issuer.Name, err)
		}
	}
	for _, k := range snap.keys {
		k.ChainPEM = string(EncodePEM(k.Chain()...))
	}
	for _, i := range snap.Issuers {
		if i.Current == nil {
			return nil, fmt.Errorf("issuer %q has no current key", i.Name)
		}
	}
	slices.SortFunc(snap.Issuers, func(a, b *Issuer) int {
		if a.Root != b.Root {
			if a.Root {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return snap, nil
}

// settle gives an issuer its settings. Those that this program cannot read, because a later release wrote them, leave it
// with those that were read last: issuing and publishing go on.
func (s *Set) settle(i *Issuer, v pki.SettingsVersion, old *Issuer) {
	i.SettingsVersion = v
	if i.Settings, i.SettingsErr = settings.Parse(v.Config); i.SettingsErr == nil {
		return
	}
	if old != nil {
		i.Settings = old.Settings
	}
	if old == nil || old.SettingsVersion.Version != v.Version {
		s.cfg.Logger.Error("the settings of an issuer cannot be read: the last ones that could are in force",
			"issuer", i.Name, "version", v.Version, "err", i.SettingsErr)
	}
}

// Address returns the address of the key's CRLs of a set with this URL; false when it has not been recorded.
func (k *Key) Address(set, url string) (pki.CRLAddress, bool) {
	i := slices.IndexFunc(k.Addresses, func(a pki.CRLAddress) bool { return a.Set == set && a.URL == url })
	if i < 0 {
		return pki.CRLAddress{}, false
	}
	return k.Addresses[i], true
}

// integerBytes returns the content octets of the certificate's serial number. big.Int drops the leading zero that keeps
// a number positive.
func integerBytes(c *x509.Certificate) []byte {
	b := c.SerialNumber.Bytes()
	if len(b) == 0 || b[0]&0x80 != 0 {
		return append([]byte{0}, b...)
	}
	return b
}

// SerialNumber returns the serial number of the key's current certificate.
func (k *Key) SerialNumber() pki.SerialNumber { return pki.SerialNumber(integerBytes(k.Certificate)) }

func (k *Key) setCertificate(r pki.IssuerCertificate, parent *Key) error {
	c, err := x509.ParseCertificate(r.DER)
	if err != nil {
		return fmt.Errorf("certificate of issuer %q: %w", k.Issuer.Name, err)
	}
	if pub, ok := k.Signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(c.PublicKey) {
		return fmt.Errorf("the private key %s of issuer %q does not belong to its certificate", k.KeyID, k.Issuer.Name)
	}
	bits, err := publicKeyBits(c.RawSubjectPublicKeyInfo)
	if err != nil {
		return fmt.Errorf("public key of issuer %q: %w", k.Issuer.Name, err)
	}
	k.Certificate, k.Parent, k.Fingerprint = c, parent, r.Fingerprint
	k.NameHashSHA1, k.NameHashSHA256 = sha1.Sum(c.RawSubject), sha256.Sum256(c.RawSubject)
	k.KeyHashSHA1, k.KeyHashSHA256 = sha1.Sum(bits), sha256.Sum256(bits)
	return nil
}

// publicKeyBits returns the contents of the subjectPublicKey BIT STRING, without tag, length and unused bits.
func publicKeyBits(spki []byte) ([]byte, error) {
	var s struct {
		Algorithm asn1.RawValue
		PublicKey asn1.BitString
	}
	if rest, err := asn1.Unmarshal(spki, &s); err != nil || len(rest) != 0 {
		return nil, errors.New("malformed SubjectPublicKeyInfo")
	}
	return s.PublicKey.Bytes, nil
}

// Chain returns the certificates from this key's own up to the root, in the order that TLS sends them.
func (k *Key) Chain() []*x509.Certificate {
	var chain []*x509.Certificate
	for at := k; at != nil && len(chain) < 10; at = at.Parent {
		chain = append(chain, at.Certificate)
		if at.Parent == at {
			break
		}
	}
	return chain
}

// SelfSigned reports whether the key's certificate is a trust anchor of ours.
func (k *Key) SelfSigned() bool { return k.Parent == k }

// Issuer returns the issuer of this name; NotFound if there is none. The empty name is the only issuer that is not a
// root, when there is just one.
func (s *Snapshot) Issuer(name string) (*Issuer, error) {
	if name == "" {
		var found *Issuer
		for _, i := range s.Issuers {
			if i.Root {
				continue
			}
			if found != nil {
				return nil, fault.New(fault.BadRequest, "there are several issuers: say which").
					WithField("issuer").WithHint("one of %s", strings.Join(s.names(), ", "))
			}
			found = i
		}
		if found != nil {
			return found, nil
		}
	}
	if i, ok := s.byName[name]; ok {
		return i, nil
	}
	return nil, fault.New(fault.NotFound, "there is no issuer %q", name).
		WithField("issuer").WithHint("there are %s", strings.Join(s.names(), ", "))
}

func (s *Snapshot) names() []string {
	var names []string
	for _, i := range s.Issuers {
		names = append(names, i.Name)
	}
	return names
}

// ByID returns the issuer with the store's internal id, nil if there is none.
func (s *Snapshot) ByID(id int64) *Issuer { return s.byID[id] }

// Key returns the key with this key id (see pki.IssuerKey), nil if there is none.
func (s *Snapshot) Key(keyID string) *Key { return s.byKeyID[keyID] }

// KeyByInternalID returns the key with the store's internal id, nil if there is none.
func (s *Snapshot) KeyByInternalID(id int64) *Key {
	for _, k := range s.keys {
		if k.ID == id {
			return k
		}
	}
	return nil
}

// Keys returns every key of every issuer. The slice must not be changed.
func (s *Snapshot) Keys() []*Key { return s.keys }

// ByCertID returns the key that OCSP's issuerNameHash and issuerKeyHash name, nil if none of ours. The hashes are SHA-1
// when they have 20 octets and SHA-256 when they have 32.
func (s *Snapshot) ByCertID(nameHash, keyHash []byte) *Key {
	for _, k := range s.keys {
		switch len(nameHash) {
		case 20:
			if bytes.Equal(nameHash, k.NameHashSHA1[:]) && bytes.Equal(keyHash, k.KeyHashSHA1[:]) {
				return k
			}
		case 32:
			if bytes.Equal(nameHash, k.NameHashSHA256[:]) && bytes.Equal(keyHash, k.KeyHashSHA256[:]) {
				return k
			}
		}
	}
	return nil
}

// Roots returns our trust anchors' certificates: what a relying party should trust.
func (s *Snapshot) Roots() []*x509.Certificate {
	var all []*x509.Certificate
	for _, k := range s.keys {
		if k.SelfSigned() {
			all = append(all, k.Certificate)
		}
	}
	return all
}

// ClientCAs returns the certificates that servers need to check client certificates which come without intermediates:
// live intermediates and roots. A revoked intermediate is not among them: with partial chains some verifiers would
// trust it although it is revoked.
func (s *Snapshot) ClientCAs() []*x509.Certificate {
	var all []*x509.Certificate
	for _, k := range s.keys {
		if !k.SelfSigned() && k.Revocation == nil {
			all = append(all, k.Certificate)
		}
	}
	return append(all, s.Roots()...)
}

// EncodePEM returns the certificates as PEM, one after the other.
func EncodePEM(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		// Writing to a bytes.Buffer does not fail.
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.Bytes()
}
