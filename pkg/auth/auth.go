// Package auth tells who asks and what they may: API tokens, and the rule that nobody hands out more than he has.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// A token's text is cwt_ID_SECRET: 8 random octets in hexadecimal that name it, and 32 in base64url that prove it. The
// prefix lets scanners for leaked secrets find it.
const (
	tokenPrefix  = "cwt_"
	tokenIDLen   = 16
	tokenTextLen = len(tokenPrefix) + tokenIDLen + 1 + 43
)

// NewToken draws a token. The text is for its owner and must not be kept; the record keeps the hash of the secret. Only
// ID and Hash of the record are set.
func NewToken() (text string, record pki.Token) {
	var id [tokenIDLen / 2]byte
	var secret [32]byte
	rand.Read(id[:])
	rand.Read(secret[:])
	record.ID = hex.EncodeToString(id[:])
	encoded := base64.RawURLEncoding.EncodeToString(secret[:])
	record.Hash = sha256.Sum256([]byte(encoded))
	return tokenPrefix + record.ID + "_" + encoded, record
}

// Tokens authenticates API tokens against a snapshot of the store that Follow keeps current. It is safe for concurrent
// use.
type Tokens struct {
	store Source
	now   func() time.Time
	known atomic.Pointer[snapshot]
}

type snapshot struct {
	byID   map[string]*entry
	change int64
}

type entry struct {
	token     pki.Token
	principal pki.Principal
}

// Source is the part of a store that tokens are loaded from.
type Source interface {
	AllTokens(ctx context.Context) ([]pki.Token, error)
}

// NewTokens returns an authenticator that knows no token until Follow is called.
func NewTokens(s Source, now func() time.Time) (*Tokens, error) {
	if s == nil || now == nil {
		return nil, errors.New("auth: incomplete config")
	}
	t := &Tokens{store: s, now: now}
	t.known.Store(&snapshot{change: -1})
	return t, nil
}

// Follow reloads the tokens when the configuration has changed.
func (t *Tokens) Follow(ctx context.Context, head store.Head) error {
	if t.known.Load().change == head.ConfigChange {
		return nil
	}
	all, err := t.store.AllTokens(ctx)
	if err != nil {
		return fmt.Errorf("loading tokens: %w", err)
	}
	next := &snapshot{byID: make(map[string]*entry, len(all)), change: head.ConfigChange}
	for _, token := range all {
		next.byID[token.ID] = &entry{token: token, principal: pki.Principal{
			Name: "token:" + token.Name, Role: token.Role, Issuers: token.Issuers, Profiles: token.Profiles, Names: token.Names, Rate: token.Rate,
			ExpiresAt: token.ExpiresAt,
		}}
	}
	t.known.Store(next)
	return nil
}

// Authenticate returns the principal of a token's text. Every refusal is Unauthenticated and says why only to one who
// proved that he has the secret.
func (t *Tokens) Authenticate(text string) (pki.Principal, error) {
	refused := fault.New(fault.Unauthenticated, "the token is not valid").
		WithHint("send a valid API token as «Authorization: Bearer cwt_...»")
	if len(text) != tokenTextLen || !strings.HasPrefix(text, tokenPrefix) || text[len(tokenPrefix)+tokenIDLen] != '_' {
		return pki.Principal{}, refused
	}
	id, secret := text[len(tokenPrefix):len(tokenPrefix)+tokenIDLen], text[len(tokenPrefix)+tokenIDLen+1:]
	e, ok := t.known.Load().byID[id]
	if !ok {
		return pki.Principal{}, refused
	}
	if hash := sha256.Sum256([]byte(secret)); subtle.ConstantTimeCompare(hash[:], e.token.Hash[:]) != 1 {
		return pki.Principal{}, refused
	}
	if !e.token.RevokedAt.IsZero() {
		return pki.Principal{}, fault.New(fault.Unauthenticated, "the token %q was revoked on %s", e.token.Name, e.token.RevokedAt.Format(time.RFC3339))
	}
	if !e.token.ExpiresAt.IsZero() && !t.now().Before(e.token.ExpiresAt) {
		return pki.Principal{}, fault.New(fault.Unauthenticated, "the token %q expired on %s", e.token.Name, e.token.ExpiresAt.Format(time.RFC3339))
	}
	return e.principal, nil
}

// Require refuses a principal whose role is below the one needed. An enroller does not outrank an auditor: he reads only
// what he issued, so where an auditor's reading is needed he is refused unless own is set, which says that the caller
// will narrow what is read to what the principal issued.
func Require(p pki.Principal, need pki.Role, own bool) error {
	if p.Role == pki.RoleNone {
		return fault.New(fault.Unauthenticated, "nobody is authenticated").WithHint("send an API token as «Authorization: Bearer cwt_...»")
	}
	if p.Role < need || need == pki.RoleAuditor && p.Role == pki.RoleEnroller && !own {
		return fault.New(fault.Forbidden, "the role %s may not do this; it takes %s", p.Role, need)
	}
	return nil
}

// MayUse refuses an issuer or a profile outside the principal's limits. Empty names are not checked.
func MayUse(p pki.Principal, issuer, profile string) error {
	if issuer != "" && len(p.Issuers) > 0 && !slices.Contains(p.Issuers, issuer) {
		return fault.New(fault.Forbidden, "this token may not use the issuer %q", issuer).WithField("issuer").
			WithHint("it may use %s", strings.Join(p.Issuers, ", "))
	}
	if profile != "" && len(p.Profiles) > 0 && !slices.Contains(p.Profiles, profile) {
		return fault.New(fault.Forbidden, "this token may not use the profile %q", profile).WithField("profile").
			WithHint("it may use %s", strings.Join(p.Profiles, ", "))
	}
	return nil
}

// MayGrant refuses to hand out a token that is wider than the principal himself: a higher role, an issuer, a profile or a
// name that he may not use, a higher rate, no limit where he has one, or a later end than his own.
func MayGrant(p pki.Principal, t pki.Token) error {
	if !p.ExpiresAt.IsZero() && (t.ExpiresAt.IsZero() || t.ExpiresAt.After(p.ExpiresAt)) {
		return fault.New(fault.Forbidden, "a token cannot last longer than its maker's, which ends on %s", p.ExpiresAt.Format(time.RFC3339)).WithField("validity")
	}
	return Covers(p, t)
}

// Covers refuses a token that may do more than the principal, whatever their ends.
func Covers(p pki.Principal, t pki.Token) error {
	if t.Role > p.Role {
		return fault.New(fault.Forbidden, "the role %s cannot hand out the role %s", p.Role, t.Role).WithField("role")
	}
	if wider(p.Issuers, t.Issuers) {
		return fault.New(fault.Forbidden, "a token cannot be wider than its maker, who is limited to the issuers %s", strings.Join(p.Issuers, ", ")).WithField("issuers")
	}
	if wider(p.Profiles, t.Profiles) {
		return fault.New(fault.Forbidden, "a token cannot be wider than its maker, who is limited to the profiles %s", strings.Join(p.Profiles, ", ")).WithField("profiles")
	}
	if widerNames(p.Names, t.Names) {
		return fault.New(fault.Forbidden, "a token cannot be wider than its maker, who is limited to the names %s", strings.Join(p.Names, ", ")).WithField("names")
	}
	if p.Rate > 0 && (t.Rate == 0 || t.Rate > p.Rate) {
		return fault.New(fault.Forbidden, "a token cannot be faster than its maker's, which may make %d requests a minute", p.Rate).WithField("rate")
	}
	return nil
}

func wider(have, want []string) bool {
	if len(have) == 0 {
		return false
	}
	return len(want) == 0 || slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(have, w) })
}
