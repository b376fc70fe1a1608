// Package campaign revokes many certificates: all that a query finds, or all of a public key that was compromised.
//
// A campaign is begun after a dry run, whose count the beginner sends back. From then on it stands in the store, and one
// replica at a time works on it under a lease, in steps: a step revokes some hundred certificates, each with its own
// audit record, and moves the campaign on, in one transaction. A replica that dies has lost nothing and left nothing half
// done; another one takes over. Between steps there is a pause, a third as long as they took, so that other revocations and
// issuances go on.
//
// # What is revoked
//
// A query selects as of the dry run: what is issued afterwards is not revoked by it, so that the count which was confirmed
// is the count that goes. What is good then and has ended or was revoked when its turn comes is left as it is. Certificates
// of our own keys (CAs, responders, listeners) are never among them.
//
// A key is blocked in the transaction that begins its campaign. Every certificate for it goes, also those that were being
// issued at that moment: before the campaign ends it waits until whoever had not seen the block is through, and looks
// again. Certificates that were revoked for another reason get keyCompromise.
package campaign

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// Actions of audit records.
const (
	ActionBegin   = "revocation.begin"
	ActionPause   = "revocation.pause"
	ActionResume  = "revocation.resume"
	ActionCancel  = "revocation.cancel"
	ActionEnd     = "revocation.end"
	ActionBlock   = "key.block"
	ActionUnblock = "key.unblock"
)

const (
	// sampleSize is how many certificates a dry run shows.
	sampleSize = 10
	// confirmWithin is how old a dry run may be.
	confirmWithin = time.Hour
	// countUpTo bounds what a dry run counts.
	countUpTo = 100_000_000
	// DefaultBatch is how many certificates a step revokes.
	DefaultBatch = 500
	// DefaultLeaseTTL is how long a dead replica keeps the others from going on.
	DefaultLeaseTTL = 5 * time.Second
)

// Store is the part of a store that campaigns use.
type Store interface {
	store.Campaigns
	ListCertificates(ctx context.Context, f store.CertificateFilter, p store.Page) ([]pki.Certificate, string, error)
	CountCertificates(ctx context.Context, f store.CertificateFilter, limit int) (int, error)
}

// Config is what a Runner is made of. Store, Issuers, Clock, Leases and Holder are required.
type Config struct {
	Store   Store
	Issuers *issuer.Set
	Clock   *clock.Guard
	Leases  store.Leases
	Holder  string // this replica's name among those that compete for the lease
	// LeaseTTL is how long a dead holder blocks the others; 0 means DefaultLeaseTTL.
	LeaseTTL time.Duration
	// Changed is told of certificates whose status a step has changed, once it is durable. It must be quick.
	Changed func([]pki.Certificate)
	Batch   int          // certificates in a step; 0 means DefaultBatch
	Logger  *slog.Logger // nil discards
}

// Runner begins and steers campaigns, and works on them when it holds the lease. It is safe for concurrent use. Its owner
// calls Run once and has Follow told of the store's heads.
type Runner struct {
	cfg  Config
	wake chan struct{} // of capacity 1

	// Run's own.
	heldUntil time.Time // the lease's end, monotonic; zero when it is not held
	failures  int       // in a row
}

// New returns a runner that does nothing yet.
func New(cfg Config) (*Runner, error) {
	if cfg.Store == nil || cfg.Issuers == nil || cfg.Clock == nil || cfg.Leases == nil || cfg.Holder == "" {
		return nil, errors.New("campaign: incomplete config")
	}
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = DefaultLeaseTTL
	}
	if cfg.Batch == 0 {
		cfg.Batch = DefaultBatch
	}
	if cfg.LeaseTTL < 0 || cfg.Batch < 0 {
		return nil, errors.New("campaign: negative number in config")
	}
	if cfg.Changed == nil {
		cfg.Changed = func([]pki.Certificate) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Runner{cfg: cfg, wake: make(chan struct{}, 1)}, nil
}

// Request says what to revoke. Either Key is set, or Selection selects something.
type Request struct {
	Principal pki.Principal
	RequestID string
	// Selection is what the query finds now, narrowed to what the principal may touch.
	Selection store.CertificateFilter
	// Query is the selection as people see it: a JSON object, the same in the dry run and at the beginning.
	Query string
	// Key is the SHA-256 of the SubjectPublicKeyInfo that was compromised, in place of a selection.
	Key            *[32]byte
	Reason         pki.Reason
	InvalidityDate time.Time // zero: unknown
	// Most is how many certificates the principal may revoke in one campaign; 0 is no bound.
	Most int64
}

// Plan is what a campaign would do.
type Plan struct {
	AsOf    time.Time
	Count   int64             // certificates that would be looked at
	Revoked int64             // of which are revoked already, and would at most get another reason
	Sample  []pki.Certificate // the newest, without their DER
	Confirm string            // what Begin wants to hear
}

// selection returns the filter of a campaign as of a moment, and whether it also changes reasons.
func (r Request) selection(asOf time.Time) (f store.CertificateFilter, changeReasons bool) {
	f = r.Selection
	if r.Key != nil {
		return store.CertificateFilter{SPKIHash: r.Key}, true
	}
	f.WithoutReserved = true
	if f.IssuedTo.IsZero() || asOf.Before(f.IssuedTo) {
		f.IssuedTo = asOf
	}
	return f, slices.Contains(f.Status, pki.Revoked)
}

// confirmation binds a count to what was counted, when, and for whom. It keeps a client from confirming by mistake what
// nobody has looked at; it is no secret.
func (r Request) confirmation(asOf time.Time, count int64) string {
	b, err := json.Marshal([]any{
		r.Principal.Name, r.Principal.Issuers, r.Principal.Profiles, r.Query, r.Key, r.Reason, r.InvalidityDate.Unix(), asOf.UnixMicro(), count,
	})
	if err != nil {
		panic("campaign: a confirmation does not encode: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%d-%d-%s", asOf.UnixMicro(), count, hex.EncodeToString(sum[:8]))
}

// check refuses what no campaign can do, with BadRevocationReason and BadRequest.
func (r Request) check(now time.Time) error {
	if err := pki.CheckReason(r.Reason); err != nil {
		return err
	}
	// RFC 5280, Section 5.3.1: cACompromise speaks of CA certificates only, and campaigns leave ours out.
	if r.Reason == pki.CACompromise {
		return fault.New(fault.BadRevocationReason, "cACompromise is for CA certificates, which are revoked one by one").WithField("reason")
	}
	return pki.CheckInvalidityDate(r.InvalidityDate, now)
}

// Plan counts what a campaign would revoke, and changes nothing.
func (r *Runner) Plan(ctx context.Context, q Request) (Plan, error) {
	now, err := r.cfg.Clock.Check()
	if err != nil {
		return Plan{}, err
	}
	if err := q.check(now); err != nil {
		return Plan{}, err
	}
	p := Plan{AsOf: now.UTC().Truncate(time.Microsecond)}
	f, changeReasons := q.selection(p.AsOf)
	if p.Count, err = r.count(ctx, f); err != nil {
		return Plan{}, err
	}
	if changeReasons {
		revoked := f
		revoked.Status = []pki.Status{pki.Revoked}
		if p.Revoked, err = r.count(ctx, revoked); err != nil {
			return Plan{}, err
		}
	}
	if p.Sample, _, err = r.cfg.Store.ListCertificates(ctx, f, store.Page{Limit: sampleSize}); err != nil {
		return Plan{}, err
	}
	p.Confirm = q.confirmation(p.AsOf, p.Count)
	return p, nil
}

func (r *Runner) count(ctx context.Context, f store.CertificateFilter) (int64, error) {
	n, err := r.cfg.Store.CountCertificates(ctx, f, countUpTo)
	return int64(n), err
}

// Begin begins the campaign of a plan: confirm is the plan's, for the same request by the same principal. It is durable when
// Begin returns, and so is the block of its key; certificates are revoked in the background.
//
// Conflict says that the dry run must be made again: it was for something else, is too old, or its count no longer holds.
func (r *Runner) Begin(ctx context.Context, q Request, confirm string) (store.Campaign, error) {
	now, err := r.cfg.Clock.Check()
	if err != nil {
		return store.Campaign{}, err
	}
	if err := q.check(now); err != nil {
		return store.Campaign{}, err
	}
	asOf, planned, ok := parseConfirmation(confirm)
	again := "make the dry run again, look at what it says, and send its confirmation back"
	switch {
	case !ok || q.confirmation(asOf, planned) != confirm:
		return store.Campaign{}, fault.New(fault.Conflict, "this does not confirm a dry run of the same request by the same token").WithField("confirm").WithHint("%s", again)
	case now.Sub(asOf) > confirmWithin || asOf.Sub(now) > confirmWithin:
		return store.Campaign{}, fault.New(fault.Conflict, "the dry run is of %s, which is more than an hour away", asOf.Format(time.RFC3339)).WithField("confirm").WithHint("%s", again)
	}
	f, changeReasons := q.selection(asOf)
	count, err := r.count(ctx, f)
	if err != nil {
		return store.Campaign{}, err
	}
	// Certificates end and are revoked in the meantime; a few that were being issued may have come.
	if q.Key == nil && count > planned+planned/100+10 {
		return store.Campaign{}, fault.New(fault.Conflict, "the dry run counted %d certificates, and now there are %d", planned, count).WithField("confirm").WithHint("%s", again)
	}
	if q.Key == nil && count == 0 {
		return store.Campaign{}, fault.New(fault.Conflict, "no certificate matches: there is nothing to revoke")
	}
	if q.Most > 0 && count > q.Most {
		return store.Campaign{}, fault.New(fault.Forbidden, "this would revoke %d certificates; more than %d at once take an administrator", count, q.Most)
	}
	c := store.Campaign{
		ID: strings.ToLower(rand.Text()[:12]), State: store.CampaignRunning, Selection: f, Query: q.Query, Key: q.Key, Reason: q.Reason,
		InvalidityDate: q.InvalidityDate.UTC().Truncate(time.Second), ChangeReasons: changeReasons, Expected: count,
		CreatedAt: now.UTC().Truncate(time.Microsecond), CreatedBy: q.Principal.Name, Role: q.Principal.Role.String(), Source: q.Principal.Source,
		RequestID: q.RequestID,
	}
	c.ChangedAt = c.CreatedAt
	detail := map[string]string{"query": c.Query, "reason": c.Reason.String(), "expected": strconv.FormatInt(count, 10)}
	if !c.InvalidityDate.IsZero() {
		detail["invalidity_date"] = c.InvalidityDate.Format(time.RFC3339)
	}
	records := []audit.Record{record(now, q.Principal, q.RequestID, ActionBegin, target(c.ID), detail)}
	if c.Key != nil {
		records = append(records, record(now, q.Principal, q.RequestID, ActionBlock, keyTarget(*c.Key), map[string]string{"campaign": c.ID, "reason": c.Reason.String()}))
	}
	if err := r.cfg.Store.CreateCampaign(ctx, c, records...); err != nil {
		return store.Campaign{}, err
	}
	r.nudge()
	return c, nil
}

func parseConfirmation(s string) (asOf time.Time, count int64, ok bool) {
	parts := strings.Split(s, "-")
	if len(parts) != 3 {
		return time.Time{}, 0, false
	}
	micros, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil {
		return time.Time{}, 0, false
	}
	count, err = strconv.ParseInt(parts[1], 10, 64)
	return time.UnixMicro(micros).UTC(), count, err == nil && count >= 0
}

// Set pauses, resumes or cancels a campaign. What it has revoked stays revoked. Conflict when its state does not allow it.
func (r *Runner) Set(ctx context.Context, p pki.Principal, requestID, id string, to store.CampaignState) (store.Campaign, error) {
	action := map[store.CampaignState]string{
		store.CampaignRunning: ActionResume, store.CampaignPaused: ActionPause, store.CampaignCancelled: ActionCancel,
	}[to]
	now := r.cfg.Clock.Stamp()
	c, err := r.cfg.Store.SetCampaignState(ctx, id, to, now, record(now, p, requestID, action, target(id), nil))
	if err == nil {
		r.nudge()
	}
	return c, err
}

// Unblock admits a public key again. The refusals are NotFound, PolicyRefused for a key of ours, and Conflict while a
// campaign for it has not ended.
func (r *Runner) Unblock(ctx context.Context, p pki.Principal, requestID string, key [32]byte) error {
	return r.cfg.Store.UnblockKey(ctx, key, record(r.cfg.Clock.Stamp(), p, requestID, ActionUnblock, keyTarget(key), nil))
}

func target(id string) string { return "revocation/" + id }

func keyTarget(key [32]byte) string { return "key/" + hex.EncodeToString(key[:]) }

func record(at time.Time, p pki.Principal, requestID, action, target string, detail map[string]string) audit.Record {
	return audit.Record{
		Time: at, Action: action, Actor: p.Name, Role: p.Role.String(), Source: p.Source, RequestID: requestID, Target: target, Detail: detail,
	}
}

func (r *Runner) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
