package pki

import (
	"fmt"
	"time"
)

// Role is what a principal may do. The zero value may do nothing. Each role may do what the ones before it may,
// except that an enroller reads only what it issued.
type Role int

// The roles, in the order of their authority.
const (
	RoleNone          Role = iota
	RoleAuditor            // reads everything, changes nothing
	RoleEnroller           // issues, and reads what it issued
	RoleOperator           // also renews, revokes, holds, releases, approves, manages devices and challenges
	RoleAdministrator      // also issuers, profiles, tokens, keys
)

var roleNames = [...]string{"none", "auditor", "enroller", "operator", "administrator"}

// String returns the role's name in lower case.
func (r Role) String() string { return roleNames[min(max(r, 0), RoleAdministrator)] }

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	for r := RoleAuditor; r <= RoleAdministrator; r++ {
		if roleNames[r] == s {
			return r, nil
		}
	}
	return RoleNone, fmt.Errorf("no role is called %q; there are auditor, enroller, operator, administrator", s)
}

// Principal is who asks: a token, a certificate's holder, or the server itself. The zero value is nobody, who may do
// nothing.
type Principal struct {
	Name string // as audit records and certificates name it: "token:NAME", "system", "cert:FINGERPRINT"
	Role Role
	// Issuers and Profiles limit what the principal may ask for; empty means all that the role allows.
	Issuers  []string
	Profiles []string
	// Names are rules for what certificates may name, as package auth reads them; empty means whatever the profile allows.
	Names []string
	// Rate is how many requests a minute the principal may make; 0: as many as the server allows.
	Rate   int
	Source string // network address without port
	// ExpiresAt is when the principal's right ends; zero: it does not.
	ExpiresAt time.Time
}

// System is the principal of work that the server does for itself.
func System() Principal { return Principal{Name: "system", Role: RoleAdministrator} }

// Token is an API token's record. The secret itself is kept by nobody but its owner.
type Token struct {
	ID        string   // public part, as it appears in the token's text
	Name      string   // unique among tokens that are not revoked
	Hash      [32]byte // SHA-256 of the secret
	Role      Role
	Issuers   []string // empty: all
	Profiles  []string // empty: all
	Names     []string // rules for what certificates may name, as package auth reads them; empty: what the profile allows
	Rate      int      // requests a minute; 0: as many as the server allows
	CreatedAt time.Time
	CreatedBy string
	ExpiresAt time.Time // zero: never
	RevokedAt time.Time // zero: not revoked
}
