package campaign

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

const (
	leaseName = "campaign"

	// idle is how long nothing is looked at while nobody has said that there is a campaign.
	idle = time.Minute
	// callTimeout ends a call whose store neither answers nor fails.
	callTimeout = 30 * time.Second
	// The pause after steps is a third of the time that they took, within these bounds.
	leastPause, mostPause = 5 * time.Millisecond, time.Second
	// Failures are retried after firstRetry, then twice as long each time, up to lastRetry.
	firstRetry, lastRetry = 200 * time.Millisecond, 15 * time.Second
	// lookBack is how far before its beginning a query's campaign looks again at its end: for certificates that were being
	// recorded while it passed their place.
	lookBack = 10 * time.Minute
)

// Follow has the runner look whether there is work: beginning, pausing and resuming a campaign moves the configuration's
// change, whichever replica does it. It is a watch.Follower.
func (r *Runner) Follow() func(context.Context, store.Head) error {
	seen := int64(-1)
	return func(_ context.Context, head store.Head) error {
		if head.ConfigChange != seen {
			seen = head.ConfigChange
			r.nudge()
		}
		return nil
	}
}

// Run works on campaigns until the context ends, whenever there are some and this replica has the lease for them. It
// returns when nothing of it runs any more and the lease is given back.
func (r *Runner) Run(ctx context.Context) {
	defer r.release(context.WithoutCancel(ctx))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		timer.Reset(r.pass(ctx))
	}
}

// pass does a step of each running campaign, and returns how long to wait for the next pass. A campaign that came later
// does not wait for the end of those before it.
func (r *Runner) pass(ctx context.Context) time.Duration {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	running, err := r.cfg.Store.RunningCampaigns(call)
	cancel()
	if err != nil {
		return r.fail(ctx, "", err)
	}
	if len(running) == 0 {
		r.release(ctx)
		return idle
	}
	if err := r.lease(ctx); err != nil {
		if fault.Is(err, fault.Conflict) { // another replica is at it
			return max(r.cfg.LeaseTTL/3, firstRetry)
		}
		return r.fail(ctx, "", err)
	}
	began, worked := time.Now(), false
	for _, c := range running {
		if c.Foreign {
			r.cfg.Logger.Warn("a campaign was begun by a later release, which has to go on with it", "campaign", c.ID)
			continue
		}
		worked = true
		for short := true; short; {
			if !time.Now().Before(r.heldUntil) || ctx.Err() != nil {
				return leastPause
			}
			if c, short, err = r.step(ctx, c); err != nil {
				if errors.Is(err, store.ErrStale) { // paused, or another replica was faster
					break
				}
				return r.fail(ctx, c.ID, err)
			}
		}
	}
	if r.failures > 0 {
		r.failures = 0
		r.cfg.Logger.Info("campaigns go on")
	}
	if !worked {
		return idle
	}
	return min(max(time.Since(began)/3, leastPause), mostPause)
}

// lease takes the lease, or extends it when half of it is gone.
func (r *Runner) lease(ctx context.Context) error {
	if time.Until(r.heldUntil) > r.cfg.LeaseTTL/2 {
		return nil
	}
	call, cancel := context.WithTimeout(ctx, min(r.cfg.LeaseTTL, callTimeout))
	defer cancel()
	asked := time.Now() // the lease began no earlier
	held := !r.heldUntil.IsZero()
	l, err := r.cfg.Leases.AcquireLease(call, leaseName, r.cfg.Holder, r.cfg.LeaseTTL)
	if err != nil {
		r.heldUntil = time.Time{}
		return err
	}
	r.heldUntil = asked.Add(l.Remaining)
	if !held {
		r.cfg.Logger.Info("this replica works on the revocation campaigns", "holder", r.cfg.Holder)
	}
	return nil
}

// release gives the lease back, if it is held.
func (r *Runner) release(ctx context.Context) {
	if r.heldUntil.IsZero() {
		return
	}
	r.heldUntil = time.Time{}
	call, cancel := context.WithTimeout(ctx, DefaultLeaseTTL)
	defer cancel()
	if err := r.cfg.Leases.ReleaseLease(call, leaseName, r.cfg.Holder); err != nil {
		r.cfg.Logger.Warn("cannot give the lease for campaigns back; it ends by itself", "err", err)
	}
}

// fail notes a failed pass and returns when the next is due.
func (r *Runner) fail(ctx context.Context, id string, err error) time.Duration {
	if ctx.Err() != nil {
		return idle // the process ends
	}
	delay := min(firstRetry<<min(r.failures, 10), lastRetry)
	if r.failures++; r.failures == 1 {
		r.cfg.Logger.Error("a revocation campaign cannot go on now; it is tried again", "campaign", id, "err", err)
	}
	return delay
}

// step does one step of a campaign. short says that it was less than a whole one, so that the next may follow at once.
func (r *Runner) step(ctx context.Context, c store.Campaign) (after store.Campaign, short bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now, err := r.cfg.Clock.Check()
	if err != nil {
		return c, false, err
	}
	s := store.CampaignStep{ID: c.ID, Step: c.Step, Position: c.Position, LookBack: c.LookBack, At: now}
	page, err := r.next(ctx, c)
	if err != nil {
		return c, false, err
	}
	for _, cert := range page {
		s.Changes = append(s.Changes, r.change(c, cert, now))
		s.Position = store.PositionOf(cert)
	}
	switch {
	case c.LookBack && len(page) == 0:
		end := record(now, pki.System(), c.RequestID, ActionEnd, target(c.ID), map[string]string{
			"revoked": strconv.FormatInt(c.Revoked, 10), "skipped": strconv.FormatInt(c.Skipped, 10), "expected": strconv.FormatInt(c.Expected, 10),
		})
		s.End = &end
	case !c.LookBack && len(page) < r.cfg.Batch: // once through
		s.LookBack, s.Position = true, store.CertificatePosition{}
		if c.Key == nil {
			s.Position.IssuedAt = c.CreatedAt.Add(-lookBack)
		}
	}
	out, err := r.cfg.Store.StepCampaign(ctx, s)
	if err != nil {
		return c, false, err
	}
	if len(out.Changed) > 0 {
		r.cfg.Changed(out.Changed)
	}
	if out.Campaign.State.Ended() {
		r.cfg.Logger.Info("a revocation campaign is done", "campaign", c.ID, "revoked", c.Revoked, "skipped", c.Skipped,
			"took", out.Campaign.EndedAt.Sub(c.CreatedAt).Round(time.Millisecond))
		return out.Campaign, false, nil
	}
	return out.Campaign, len(page) < r.cfg.Batch, nil
}

// next reads the certificates of the next step. Looking back, it first waits until those have ended who began to write
// before a key was blocked, or before the campaign had passed; what is revoked is of no interest any more.
func (r *Runner) next(ctx context.Context, c store.Campaign) ([]pki.Certificate, error) {
	f := c.Selection
	if c.LookBack {
		some := false
		if f, some = f.NotRevoked(); !some {
			return nil, nil
		}
		if err := r.cfg.Store.Settle(ctx); err != nil {
			return nil, err
		}
	}
	return r.cfg.Store.NextCertificates(ctx, f, c.Position, r.cfg.Batch)
}

// change is what a campaign does to a certificate, with the record of it: as if who began the campaign had revoked it.
func (r *Runner) change(c store.Campaign, cert pki.Certificate, now time.Time) store.StatusChange {
	detail := map[string]string{"serial": cert.Serial.String(), "subject": cert.Subject, "reason": c.Reason.String(), "campaign": c.ID}
	if i := r.cfg.Issuers.Current().ByID(cert.IssuerID); i != nil {
		detail["issuer"] = i.Name
	}
	if !c.InvalidityDate.IsZero() {
		detail["invalidity_date"] = c.InvalidityDate.Format(time.RFC3339)
	}
	return store.StatusChange{
		IssuerID: cert.IssuerID, Serial: cert.Serial, Action: pki.ActionRevoke,
		Revocation:  pki.Revocation{Reason: c.Reason, RevokedAt: now.Truncate(time.Microsecond), InvalidityDate: c.InvalidityDate},
		BlockKey:    c.Reason == pki.KeyCompromise && c.Key == nil, // else it is blocked already
		KeepRevoked: !c.ChangeReasons,
		Record: audit.Record{
			Time: now, Action: audit.ActionRevoke, Actor: c.CreatedBy, Role: c.Role, Source: c.Source, RequestID: c.RequestID,
			Target: "certificate/" + cert.Fingerprint.String(), Detail: detail,
		},
	}
}
