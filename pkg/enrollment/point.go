package enrollment

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/webhook"
)

// Point is an enrollment point in force. It does not change.
type Point struct {
	config  Config
	version int
	created time.Time
	by      string
	names   names
	static  *[sha256.Size]byte // digest of the static challenge; nil: none
	hook    *webhook.Client    // nil: there is none, or it has no secret
}

// Name returns the point's name.
func (p *Point) Name() string { return p.config.Name }

// Version counts from 1.
func (p *Point) Version() int { return p.version }

// Changed tells when and by whom this version was written.
func (p *Point) Changed() (time.Time, string) { return p.created, p.by }

// Config returns the settings as they were written. It must not be changed.
func (p *Point) Config() Config { return p.config }

// Issuer returns the name of the issuer, empty for the only one.
func (p *Point) Issuer() string { return p.config.Issuer }

// Profile returns the name of the profile.
func (p *Point) Profile() string {
	if p.config.Profile == "" {
		return profile.Device
	}
	return p.config.Profile
}

// CACertificates returns the form of GetCACert.
func (p *Point) CACertificates() string {
	if p.config.CACertificates == "" {
		return ChainWithRoot
	}
	return p.config.CACertificates
}

// PendingLife is how long a request waits for a person.
func (p *Point) PendingLife() time.Duration {
	return time.Duration(orDefault(p.config.PendingLife, defaultPendingLife))
}

// RetryWindow is how long the same request gets the same certificate.
func (p *Point) RetryWindow() time.Duration {
	return time.Duration(orDefault(p.config.RetryWindow, defaultRetryWindow))
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Renewal returns how a certificate is renewed by its own signature.
func (p *Point) Renewal() RenewalRules {
	r := p.config.Renewal
	r.Percent = orDefault(r.Percent, defaultRenewalPercent)
	return r
}

// Return returns what becomes of a device whose certificate has ended. Only the policy grace has the other fields.
func (p *Point) Return() ReturnRules {
	r := p.config.Return
	if r.Policy != ReturnGrace {
		return ReturnRules{Policy: orDefault(r.Policy, ReturnPending)}
	}
	r.Grace, r.Attempts, r.Validity = orDefault(r.Grace, defaultGrace), orDefault(r.Attempts, defaultReturnAttempts), orDefault(r.Validity, defaultReturnValidity)
	return r
}

// Replacement returns what becomes of a device's good certificates when it enrolls anew.
func (p *Point) Replacement() Replacement { return orDefault(p.config.Replacement, ReplaceSupersede) }

// Accepts reports whether challenges of a kind let a device in. Whether there are any is another question.
func (p *Point) Accepts(kind ChallengeKind) bool { return slices.Contains(p.Challenges(), kind) }

// Challenges returns the kinds that let a device in.
func (p *Point) Challenges() []ChallengeKind {
	if len(p.config.Challenges) == 0 {
		return []ChallengeKind{ChallengeOneTime, ChallengeStatic}
	}
	return p.config.Challenges
}

// Identity returns what in a request names its device.
func (p *Point) Identity() Identity { return orDefault(p.config.Device.Identity, IdentityNone) }

// RegisteredOnly reports whether only devices that are in the registry are served.
func (p *Point) RegisteredOnly() bool { return p.config.Device.Registered }

// Limits returns how many messages the point takes. PerMinute is 0 when there is no bound.
func (p *Point) Limits() LimitRules {
	l := p.config.Limits
	l.Burst, l.FailuresPerMinute = orDefault(l.Burst, l.PerMinute), orDefault(l.FailuresPerMinute, defaultFailuresPerMinute)
	return l
}

// Webhook returns the system that decides on requests or is told of them, with the defaults filled in; nil if there is none.
func (p *Point) Webhook() *WebhookRules {
	if p.config.Webhook == nil {
		return nil
	}
	w := p.config.Webhook.withDefaults()
	return &w
}

// Render returns the names that a device's certificates must have by the point's templates; the zero Binding if there are
// none. A placeholder of which the record says nothing is a fault of the kind PolicyRefused. The device need not be in the
// registry: only what the templates name is looked at.
func (p *Point) Render(d pki.Device) (Binding, error) { return p.names.render(d) }

// RenewableFrom returns when a certificate with this life may be renewed.
func (p *Point) RenewableFrom(notBefore, notAfter time.Time) time.Time {
	percent := int64(p.Renewal().Percent)
	if percent == 100 {
		return notBefore
	}
	// In seconds: a life without end does not fit a time.Duration.
	return time.Unix(notAfter.Unix()-(notAfter.Unix()-notBefore.Unix())/100*percent, 0).UTC()
}

// Legacy reports whether a switch is on at the given time.
func (p *Point) Legacy(s Switch, now time.Time) bool {
	until, ok := p.config.Legacy[s]
	return ok && now.Before(until.End())
}

// HasStatic reports whether the point has a static challenge.
func (p *Point) HasStatic() bool { return p.static != nil }

// IsStatic reports whether text is the point's static challenge, in constant time. Without one, or where the point does not
// accept this kind, nothing is.
func (p *Point) IsStatic(text string) bool {
	if p.static == nil || text == "" || !p.Accepts(ChallengeStatic) {
		return false
	}
	sum := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(sum[:], p.static[:]) == 1
}

// Store is the part of a store that points and challenges are kept in.
type Store interface {
	store.Points
	store.Challenges
	Secret(ctx context.Context, name string) ([]byte, error)
}

// Sealer keeps secrets under the key-encryption key.
type Sealer interface {
	// Seal seals a secret that belongs to this name.
	Seal(name string, secret []byte) ([]byte, error)
	// Open opens what Seal has made for this name.
	Open(name string, sealed []byte) ([]byte, error)
}

// PointsConfig is what Points are made of. All but Logger are required.
type PointsConfig struct {
	Store  Store
	Sealer Sealer
	Logger *slog.Logger // nil discards
}

// Points are the enrollment points of this replica, kept current with the store. It is safe for concurrent use.
type Points struct {
	cfg   PointsConfig
	known atomic.Pointer[points]
}

// points is what Follow loads: replaced whole, never edited.
type points struct {
	change int64
	byName map[string]*Point
}

// NewPoints returns points that are none until Follow is called.
func NewPoints(cfg PointsConfig) (*Points, error) {
	if cfg.Store == nil || cfg.Sealer == nil {
		return nil, errors.New("enrollment: incomplete config")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Points{cfg: cfg}
	p.known.Store(&points{change: -1})
	return p, nil
}

// Follow reloads the points when the configuration has changed (see watch.Follower). One that this version does not
// accept, or whose static challenge does not open, is not served; the others go on.
func (p *Points) Follow(ctx context.Context, head store.Head) error {
	if p.known.Load().change == head.ConfigChange {
		return nil
	}
	all, err := p.cfg.Store.AllPoints(ctx)
	if err != nil {
		return fmt.Errorf("loading enrollment points: %w", err)
	}
	before := p.known.Load()
	next := &points{change: head.ConfigChange, byName: make(map[string]*Point, len(all))}
	for _, v := range all {
		// A point that has not changed keeps the connections to its webhook.
		if same := before.byName[v.Name]; same != nil && same.version == v.Version && same.created.Equal(v.CreatedAt) {
			next.byName[v.Name] = same
			continue
		}
		point, err := p.load(ctx, v)
		if fault.Is(err, fault.Unavailable) {
			return fmt.Errorf("loading enrollment points: %w", err)
		}
		if err != nil {
			p.cfg.Logger.Error("an enrollment point in the store is not valid: it serves nobody", "point", v.Name, "version", v.Version, "err", err)
			continue
		}
		next.byName[v.Name] = point
	}
	p.known.Store(next)
	for name, old := range before.byName {
		if old.hook != nil && next.byName[name] != old {
			old.hook.Close()
		}
	}
	return nil
}

func (p *Points) load(ctx context.Context, v pki.PointVersion) (*Point, error) {
	c, err := ReadConfig(v.Config)
	if err == nil {
		err = c.Validate(time.Time{})
	}
	if err != nil {
		return nil, err
	}
	if c.Name != v.Name {
		return nil, fmt.Errorf("the settings name the point %q", c.Name)
	}
	point := &Point{config: c, version: v.Version, created: v.CreatedAt, by: v.CreatedBy}
	if point.names, err = parseNames(c.Subject, c.SANs); err != nil {
		return nil, err
	}
	if point.hook, err = p.hook(ctx, point); err != nil {
		return nil, err
	}
	sealed, err := p.cfg.Store.Secret(ctx, pki.SecretPoint(v.Name))
	if fault.Is(err, fault.NotFound) {
		return point, nil
	}
	if err != nil {
		return nil, err
	}
	secret, err := p.cfg.Sealer.Open(pki.SecretPoint(v.Name), sealed)
	if err != nil {
		return nil, fmt.Errorf("its static challenge: %w", err)
	}
	sum := sha256.Sum256(secret)
	clear(secret)
	point.static = &sum
	return point, nil
}

// Point returns the point of this name; NotFound if there is none.
func (p *Points) Point(name string) (*Point, error) {
	if point, ok := p.known.Load().byName[name]; ok {
		return point, nil
	}
	return nil, fault.New(fault.NotFound, "there is no enrollment point %q", cut(name, 70)).WithField("point")
}

// All returns the points in the order of their names.
func (p *Points) All() []*Point {
	return slices.SortedFunc(maps.Values(p.known.Load().byName), func(a, b *Point) int { return strings.Compare(a.Name(), b.Name()) })
}

// EnsureDefault makes the default point if the store has none.
func (p *Points) EnsureDefault(ctx context.Context, now time.Time) error {
	all, err := p.cfg.Store.AllPoints(ctx)
	if err != nil || slices.ContainsFunc(all, func(v pki.PointVersion) bool { return v.Name == DefaultPoint }) {
		return err
	}
	_, err = p.Put(ctx, Change{Principal: pki.System(), Now: now, Config: Config{Name: DefaultPoint, Description: "Devices that enroll by SCEP"}})
	if errors.Is(err, store.ErrStale) { // another replica was faster
		return nil
	}
	return err
}

// Change asks for a new version of a point.
type Change struct {
	Principal pki.Principal
	RequestID string
	Now       time.Time
	Config    Config
	// Version is the one that the change was made on; 0 for a new point.
	Version int
	// Static, when not nil, is the new static challenge; empty takes it away.
	Static *string
	// WebhookSecret, when not nil, is the new secret of the point's webhook, from NewWebhookSecret. The one before it signs
	// along for WebhookOverlap, so that the receiver can be told.
	WebhookSecret  *string
	WebhookOverlap time.Duration
}

// MinStatic is the shortest static challenge.
const MinStatic = 8

// maxStatic is the longest one: what fits a challengePassword (RFC 2985, Section 5.4.1).
const maxStatic = 255

// Put writes a new version of a point. It is durable when Put returns, and other replicas see it within a second. An
// error that wraps store.ErrStale says that somebody else was faster. Whether issuer and profile exist is the caller's to
// know.
func (p *Points) Put(ctx context.Context, ch Change) (pki.PointVersion, error) {
	if err := ch.Config.Validate(ch.Now); err != nil {
		return pki.PointVersion{}, err
	}
	text, err := json.Marshal(ch.Config)
	if err != nil {
		return pki.PointVersion{}, fmt.Errorf("encoding the settings of a point: %w", err)
	}
	v := pki.PointVersion{Name: ch.Config.Name, Version: ch.Version + 1, Config: text, CreatedAt: ch.Now.Truncate(time.Microsecond), CreatedBy: ch.Principal.Name}
	detail := map[string]string{"version": strconv.Itoa(v.Version), "settings": string(text)}
	change := store.PointChange{Point: v}
	if ch.Static != nil {
		if change.Secret, err = p.sealStatic(v.Name, *ch.Static); err != nil {
			return v, err
		}
		detail["static_challenge"] = "set"
		if *ch.Static == "" {
			detail["static_challenge"] = "removed"
		}
	}
	switch {
	case ch.Config.Webhook == nil && ch.WebhookSecret != nil:
		return v, bad("webhook", "the point has none that could have a secret")
	case ch.Config.Webhook == nil:
		change.WebhookSecret = []byte{}
	case ch.WebhookSecret != nil:
		if change.WebhookSecret, err = p.sealWebhookSecret(ctx, v.Name, *ch.WebhookSecret, ch.Now, ch.Now.Add(ch.WebhookOverlap)); err != nil {
			return v, err
		}
		detail["webhook_secret"] = "set"
	}
	change.Record = audit.Record{
		Time: ch.Now, Action: audit.ActionPoint, Actor: ch.Principal.Name, Role: ch.Principal.Role.String(), Source: ch.Principal.Source,
		RequestID: ch.RequestID, Target: "enrollment_point/" + v.Name, Detail: detail,
	}
	return v, p.cfg.Store.PutPoint(ctx, change)
}

func (p *Points) sealStatic(name, static string) ([]byte, error) {
	if static == "" {
		return []byte{}, nil
	}
	bad := func(format string, args ...any) *fault.Error {
		return fault.New(fault.BadRequest, "the static challenge "+format, args...).WithField("static_challenge")
	}
	switch {
	case strings.TrimSpace(static) != static:
		return nil, bad("begins or ends with a space")
	case len(static) < MinStatic:
		return nil, bad("has fewer than %d characters", MinStatic).WithHint("everybody who has it can have certificates: take a long random one")
	case len(static) > maxStatic:
		return nil, bad("has more than %d octets", maxStatic)
	}
	for _, r := range static {
		if r < ' ' || r == 0x7f || r == 0xFFFD {
			return nil, bad("has a control character, or is not UTF-8")
		}
	}
	return p.cfg.Sealer.Seal(pki.SecretPoint(name), []byte(static))
}
