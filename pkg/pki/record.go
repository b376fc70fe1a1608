package pki

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"time"
)

// Issuer is a CA as people know it: a name and its policy. It has one or more keys, of which the current one signs
// (RFC 5280, Section 3.2; a key has one or more certificates). Serial numbers are unique per issuer.
type Issuer struct {
	ID      int64  // internal; never leaves the process
	Name    string // how REST and the command line call it, as in "issuing"
	Root    bool   // a trust anchor of ours: its certificate is self-signed
	Created time.Time
}

// IssuerKey is a key that signs for an issuer. The addresses that certificates carry name the key, by KeyID.
type IssuerKey struct {
	ID        int64 // internal
	IssuerID  int64
	KeyID     string // first 16 hexadecimal digits of SHA-256 of the SubjectPublicKeyInfo
	Current   bool   // signs new certificates; older keys still sign CRLs and OCSP answers
	SealedKey []byte // the private key, sealed; see package keys
	Created   time.Time
}

// IssuerCertificate is a certificate of an issuer's key: self-signed, signed by another issuer, or a link.
type IssuerCertificate struct {
	ID          int64 // internal
	IssuerKeyID int64
	ParentKeyID int64 // the issuer key that signed it; its own IssuerKeyID when self-signed; 0 when a stranger's
	Fingerprint Fingerprint
	Current     bool // the one that is copied into new certificates' issuer and chain
	DER         []byte
}

// Fingerprint is the SHA-256 hash of a certificate's DER. It is the certificate's id towards clients.
type Fingerprint [32]byte

// String returns the hash in lower-case hexadecimal without separators.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// ParseFingerprint reads 64 hexadecimal digits in either case, with or without colons.
func ParseFingerprint(text string) (Fingerprint, error) {
	var f Fingerprint
	b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(text))
	if err != nil || len(b) != len(f) {
		return Fingerprint{}, errors.New("not a SHA-256 fingerprint: want 64 hexadecimal digits")
	}
	copy(f[:], b)
	return f, nil
}

// Certificate is the record of an issued certificate.
type Certificate struct {
	IssuerID       int64
	IssuerKeyID    int64
	Serial         SerialNumber
	Fingerprint    Fingerprint
	SPKIHash       [32]byte // SHA-256 of the SubjectPublicKeyInfo
	Subject        string   // RFC 4514, for people and search
	SANs           []string // "DNS:...", "IP:...", "URI:...", "email:...", "UPN:...", "HMN:...", in the order of the extension
	Profile        string
	ProfileVersion int
	Requester      string      // the principal's name
	Protocol       string      // "rest", "scep", "internal", ...
	Device         string      // the device's text identity; empty if none
	Source         string      // the requester's network address, without port; empty if internal
	TransactionID  string      // SCEP's; empty otherwise
	Replaces       Fingerprint // the certificate that this one renews; zero if none
	CRLScope       string      // the narrowest CRL that speaks of it: ScopeFull, ScopeCA, or that of a shard; ScopeUnknown
	CRLShard       int         // the shard's number, as in CRLScope; 0 if it is none
	NotBefore      time.Time   // whole seconds, UTC
	NotAfter       time.Time   // inclusive (RFC 5280, Section 4.1.2.5)
	IssuedAt       time.Time   // microseconds, UTC
	DER            []byte      // nil for imports that lack it

	Revocation *Revocation // nil while good
	// When this replica's CA first showed that it is not good; zero while it is good, not yet, or not known. See
	// store.Visibility.
	FirstCRLAt, FirstOCSPAt time.Time
}

// CRL is a published certificate revocation list (RFC 5280, Section 5).
type CRL struct {
	IssuerKeyID int64
	Scope       string // ScopeFull, ScopeCA, or that of a shard
	Shard       int    // the shard's number, as in Scope; 0 if it is none
	Number      int64  // cRLNumber: max(stored + 1, Unix seconds)
	ThisUpdate  time.Time
	NextUpdate  time.Time
	Scheduled   bool  // made by the timer: entries of ended certificates may leave after it
	Change      int64 // the store's change number whose state it shows
	Entries     int
	CreatedAt   time.Time
	// Base marks a complete list that delta CRLs build on: it is kept until the next one of its scope is marked
	// (RFC 5280, Section 5.2.4).
	Base bool
	// Parts are the DER, cut at will. What a list has in common with the one before it, cut in the same way, is stored
	// once.
	Parts []CRLPart
}

// CRLPart is a piece of a CRL. Its data never changes.
type CRLPart struct {
	Hash [32]byte // SHA-256 of Data
	Data []byte
}

// NewCRLPart returns a part that holds data, which must not be written to any more.
func NewCRLPart(data []byte) CRLPart { return CRLPart{sha256.Sum256(data), data} }

// Size returns how many octets the DER has.
func (c CRL) Size() (n int64) {
	for _, p := range c.Parts {
		n += int64(len(p.Data))
	}
	return n
}

// DER returns the list in one piece; nil when Parts is empty. It is the part itself when there is only one.
func (c CRL) DER() []byte {
	if len(c.Parts) == 1 {
		return c.Parts[0].Data
	}
	var der []byte
	for _, p := range c.Parts {
		der = append(der, p.Data...)
	}
	return der
}

// ProfileVersion is one version of a profile's configuration, as the administrator wrote it.
type ProfileVersion struct {
	Name      string
	Version   int    // counts from 1
	Config    []byte // JSON; see package profile
	Builtin   bool
	CreatedAt time.Time
	CreatedBy string
}
