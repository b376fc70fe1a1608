package enrollment

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"github.com/certwright/certwright/pkg/pki"
)

// A challenge's text is ID-SECRET, both of them base32 letters and digits, so that it fits a PrintableString and can be
// typed. The secret has 130 random bits.
const (
	challengeIDLen     = 10
	challengeSecretLen = 26
)

// NewChallenge draws a one-time challenge. The text is for the device and must not be kept; the record keeps the digest
// of the secret. Only ID and Hash of the record are set.
func NewChallenge() (text string, record pki.Challenge) {
	id, secret := rand.Text()[:challengeIDLen], rand.Text()
	record.ID, record.Hash = id, sha256.Sum256([]byte(secret))
	return id + "-" + secret, record
}

// ParseChallenge takes a challenge's text apart, in any letter case. ok says that it has the form of one; whether it is
// one, only the record with this ID tells.
func ParseChallenge(text string) (id string, hash [sha256.Size]byte, ok bool) {
	text = strings.ToUpper(strings.TrimSpace(text))
	if len(text) != challengeIDLen+1+challengeSecretLen || text[challengeIDLen] != '-' {
		return "", hash, false
	}
	id, secret := text[:challengeIDLen], text[challengeIDLen+1:]
	for _, part := range []string{id, secret} {
		for _, c := range []byte(part) {
			if (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
				return "", hash, false
			}
		}
	}
	return id, sha256.Sum256([]byte(secret)), true
}

// Matches reports whether a digest is that of a challenge's secret, in constant time. An empty record matches nothing.
func Matches(c pki.Challenge, hash [sha256.Size]byte) bool {
	return c.ID != "" && c.Hash != [sha256.Size]byte{} && subtle.ConstantTimeCompare(c.Hash[:], hash[:]) == 1
}
