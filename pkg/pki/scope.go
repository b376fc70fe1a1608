package pki

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The scopes that a CRL can have, besides shards: what certificates of its issuer key it speaks of. A certificate has
// the scope of the narrowest CRL that speaks of it; the complete one speaks of all.
const (
	ScopeFull = "full" // every certificate
	ScopeCA   = "ca"   // CA certificates alone (RFC 5280, Section 5.2.5: onlyContainsCACerts)
)

// ScopeUnknown is the scope of a certificate of which no more is known than that it was issued, as after a restored
// backup. It is that of no CRL: every CRL that its address may name speaks of it, which are the complete one, that of CA
// certificates, and of each set of shards the one that ShardOf says.
const ScopeUnknown = "unknown"

// MaxShards is the largest number of shards that a set may have.
const MaxShards = 1024

// ShardSet returns the name of the set of n shards, as in "s64". It stands in the scope and in the address of each of
// its shards, so that sets of different sizes never share one.
func ShardSet(n int) string { return "s" + strconv.Itoa(n) }

// ShardScope returns the scope of one shard of a set, as in "s64/17".
func ShardScope(set string, shard int) string { return set + "/" + strconv.Itoa(shard) }

// ParseShardScope takes a shard's scope apart. It returns false for every other text, those of the other scopes
// included.
func ParseShardScope(scope string) (set string, shard int, ok bool) {
	set, number, found := strings.Cut(scope, "/")
	n, err := strconv.Atoi(number)
	if size := ShardSetSize(set); !found || err != nil || size == 0 || n < 0 || n >= size || ShardScope(set, n) != scope {
		return "", 0, false
	}
	return set, n, true
}

// ShardSetSize returns how many shards a set has; 0 when there is no set of that name.
func ShardSetSize(set string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(set, "s"))
	if err != nil || n < 2 || n > MaxShards || ShardSet(n) != set {
		return 0
	}
	return n
}

// ShardOf returns which of n shards a certificate belongs to. It is the same for ever: the certificate's address names
// it. Our serial numbers end in nine random octets, so the shards are of one size.
func ShardOf(s SerialNumber, n int) int {
	var last [8]byte
	b := s.Bytes()
	copy(last[max(0, len(last)-len(b)):], b[max(0, len(b)-len(last)):])
	return int(binary.BigEndian.Uint64(last[:]) % uint64(n))
}

// ShardPlace stands for the number of the shard in the address of a set of shards.
const ShardPlace = "{shard}"

// CRLAddress is an address that certificates carry in cRLDistributionPoints (RFC 5280, Section 4.2.1.13), or of a whole
// set of shards, those that they carry. Once recorded it stays: certificates that carry it are checked against it for as
// long as they live.
type CRLAddress struct {
	IssuerKeyID int64
	// Set is ScopeFull, or the name of a set of shards.
	Set string
	// URL is that of the CRL; for a set of shards it has ShardPlace where the number of the shard stands.
	URL string
	// RecordedAt is when it was recorded first.
	RecordedAt time.Time
	// Until is a time that every certificate which carries the address ends before, or at. It only grows.
	Until time.Time
	// ListedAt is since when every CRL of the set that is served names the address in its issuingDistributionPoint, so
	// that certificates may carry it; zero: not yet, and none does. A complete CRL has no such extension, and its
	// addresses are listed from the start.
	ListedAt time.Time
}

// Of returns the address of one shard. For the complete CRL the number has no meaning.
func (a CRLAddress) Of(shard int) string {
	return strings.Replace(a.URL, ShardPlace, strconv.Itoa(shard), 1)
}

// CRLPath returns where the CRL of a scope is published, below the public address: "/crl/KEYID.crl" for the complete
// one, "/crl/KEYID/SCOPE.crl" for the others. keyID is IssuerKey.KeyID.
func CRLPath(keyID, scope string) string {
	if scope == ScopeFull {
		return "/crl/" + keyID + ".crl"
	}
	return "/crl/" + keyID + "/" + scope + ".crl"
}

// CRLAddressOf returns the address that certificates of an issuer key get for a set, without the key's internal id and
// without times. publicURL has no slash at its end.
func CRLAddressOf(publicURL, keyID, set string) CRLAddress {
	scope := set
	if set != ScopeFull {
		scope = fmt.Sprintf("%s/%s", set, ShardPlace)
	}
	return CRLAddress{Set: set, URL: publicURL + CRLPath(keyID, scope)}
}

// SettingsVersion is one version of what an administrator has settled for an issuer.
type SettingsVersion struct {
	IssuerID  int64
	Version   int    // counts from 1
	Config    []byte // JSON; see package settings
	CreatedAt time.Time
	CreatedBy string
}
