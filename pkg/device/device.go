// Package device is the registry of devices: who they are, what people say of them, and whether they may have
// certificates. A device that is blocked or retired gets nothing, and its certificates are revoked; the store says so in
// one transaction, so that a process that ends in between leaves the revoking to the next, or to another replica.
//
// What a device asks for, and how often it fails, packages scep and enrollment settle; they tell the store.
package device

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// MaxBulk is how many devices one request creates.
const MaxBulk = 1000

const (
	// sweepEvery is how often what is left to be revoked is looked for.
	sweepEvery = 5 * time.Second
	sweepStep  = 100 // devices at a time
	revokePage = 100 // certificates at a time
)

// Store is the part of a store that the registry uses.
type Store interface {
	store.Devices
	ListCertificates(ctx context.Context, f store.CertificateFilter, p store.Page) ([]pki.Certificate, string, error)
}

// Revocation asks for the end of a device's certificate.
type Revocation struct {
	Principal   pki.Principal
	RequestID   string
	Certificate pki.Fingerprint
	Reason      pki.Reason
}

// Config is what a Registry is made of. All fields but Logger and Every are required.
type Config struct {
	Store Store
	Clock *clock.Guard
	// Revoke revokes a certificate for good, with everything that hangs on it. AlreadyRevoked when somebody was faster.
	Revoke func(ctx context.Context, r Revocation) error
	Logger *slog.Logger
	Every  time.Duration // how often Run looks for what is left to be revoked; 0: sweepEvery
}

// Registry changes devices. It is safe for concurrent use.
type Registry struct {
	cfg     Config
	wake    chan struct{}
	figures figures
}

// New returns a registry.
func New(cfg Config) (*Registry, error) {
	if cfg.Store == nil || cfg.Clock == nil || cfg.Revoke == nil {
		return nil, errors.New("device: incomplete config")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Every == 0 {
		cfg.Every = sweepEvery
	}
	return &Registry{cfg: cfg, wake: make(chan struct{}, 1)}, nil
}

// By is who asks for a change.
type By struct {
	Principal pki.Principal
	RequestID string
}

func (by By) record(now time.Time, action, target string, detail map[string]string) audit.Record {
	return audit.Record{
		Time: now, Action: action, Actor: by.Principal.Name, Role: by.Principal.Role.String(), Source: by.Principal.Source, RequestID: by.RequestID,
		Target: target, Detail: detail,
	}
}

// Create registers devices as expected, all or none. With skip, those whose ids exist are left as they are, and it tells
// how many these are. Errors are faults: BadRequest with the field, as in "devices.3.group" when there are several;
// Conflict when an id exists.
func (r *Registry) Create(ctx context.Context, by By, entries []Entry, skip bool) (created []pki.Device, skipped int, err error) {
	now, err := r.cfg.Clock.Check()
	if err != nil {
		return nil, 0, err
	}
	now = now.Truncate(time.Microsecond)
	if len(entries) > MaxBulk {
		return nil, 0, fault.New(fault.BadRequest, "at most %d devices at once", MaxBulk).WithField("devices")
	}
	seen := make(map[string]bool, len(entries))
	for i := range entries {
		e := &entries[i]
		err := e.Complete()
		if err == nil && seen[e.ID] {
			err = fault.New(fault.BadRequest, "the id %q stands twice", e.ID).WithField("id")
		}
		if f, ok := errors.AsType[*fault.Error](err); ok && len(entries) > 1 {
			err = f.WithField("devices." + strconv.Itoa(i) + "." + f.Field)
		}
		if err != nil {
			return nil, 0, err
		}
		seen[e.ID] = true
	}
	for range 5 { // somebody else may register the same ones
		created = make([]pki.Device, 0, len(entries))
		for i := range entries {
			if skip {
				_, err := r.cfg.Store.Device(ctx, entries[i].ID)
				if err == nil {
					continue
				}
				if !fault.Is(err, fault.NotFound) {
					return nil, 0, err
				}
			}
			d := pki.Device{Version: 1, Status: pki.DeviceExpected, CreatedAt: now, CreatedBy: by.Principal.Name, ChangedAt: now, ChangedBy: by.Principal.Name}
			entries[i].apply(&d)
			created = append(created, d)
		}
		if len(created) == 0 {
			return nil, len(entries), nil
		}
		if err = r.cfg.Store.CreateDevices(ctx, created, by.record(now, audit.ActionDevice, target(created), detail(created))); err == nil {
			return created, len(entries) - len(created), nil
		}
		if !skip || !fault.Is(err, fault.Conflict) {
			return nil, 0, err
		}
	}
	return nil, 0, err
}

// target names one device, or the registry.
func target(ds []pki.Device) string {
	if len(ds) == 1 {
		return "device/" + ds[0].ID
	}
	return "devices"
}

// detail tells of devices that were created together: the first ids, and how many there are.
func detail(ds []pki.Device) map[string]string {
	if len(ds) == 1 {
		return describe(&ds[0])
	}
	const shown = 20
	ids := make([]string, 0, shown)
	for _, d := range ds[:min(shown, len(ds))] {
		ids = append(ids, strconv.Quote(d.ID))
	}
	return map[string]string{"count": strconv.Itoa(len(ds)), "first": strings.Join(ids, " ")}
}

func describe(d *pki.Device) map[string]string {
	m := map[string]string{"status": d.Status.String()}
	for name, text := range map[string]string{
		"group": d.Group, "owner": d.Owner, "labels": FormatLabels(d.Labels), "subject": d.Subject, "sans": strings.Join(d.SANs, " "), "note": d.Note, "reason": d.Reason,
	} {
		if text != "" {
			m[name] = text
		}
	}
	return m
}

// Change writes what people say of a device in place of what they said before. version is the one that the change was
// made on; 0 is whichever. NotFound; Conflict with store.ErrStale.
func (r *Registry) Change(ctx context.Context, by By, version int, e Entry) (pki.Device, error) {
	if err := e.Complete(); err != nil {
		return pki.Device{}, err
	}
	return r.change(ctx, by, e.ID, version, func(d *pki.Device, _ time.Time) (store.DeviceChange, error) {
		before := describe(d)
		e.apply(d)
		detail := map[string]string{}
		for name, text := range describe(d) {
			if before[name] != text {
				detail[name] = text
			}
		}
		for name := range before {
			if describe(d)[name] == "" {
				detail[name] = ""
			}
		}
		return store.DeviceChange{Record: audit.Record{Action: audit.ActionDeviceChange, Detail: detail}}, nil
	})
}

// change reads a device, has edit make the change, and writes it; again when somebody else was faster and version is 0.
func (r *Registry) change(ctx context.Context, by By, id string, version int, edit func(d *pki.Device, now time.Time) (store.DeviceChange, error)) (pki.Device, error) {
	for try := 1; ; try++ {
		now, err := r.cfg.Clock.Check()
		if err != nil {
			return pki.Device{}, err
		}
		now = now.Truncate(time.Microsecond)
		d, err := r.cfg.Store.Device(ctx, id)
		if err != nil {
			return d, err
		}
		if version != 0 && d.Version != version {
			return d, fault.Wrap(fault.Conflict, store.ErrStale, "the device has version %d by now", d.Version)
		}
		c, err := edit(&d, now)
		if err != nil {
			return d, err
		}
		d.Version++
		d.ChangedAt, d.ChangedBy = now, by.Principal.Name
		c.Device, c.Record = d, by.record(now, c.Record.Action, "device/"+d.ID, c.Record.Detail)
		err = r.cfg.Store.ChangeDevice(ctx, c)
		if err == nil {
			return d, nil
		}
		if version != 0 || try == 5 || !errors.Is(err, store.ErrStale) {
			return d, err
		}
	}
}

// End is how a device is taken out of service.
type End struct {
	Version int    // as in Change
	Why     string // for people
	// Revoke is the reason with which its certificates are revoked. The zero value stands for keyCompromise when the device
	// is blocked, which also blocks its keys, and for cessationOfOperation when it is retired.
	Revoke pki.Reason
}

// Block refuses everything that a device sends from now on, and revokes its certificates: with keyCompromise those that
// have ended, too, for whoever has its key has had it before, and those that were revoked with cessationOfOperation, as when
// it was retired. Its open challenges end. All that is durable when Block
// returns, but for revocations that could not be made at once: RevokeUntil of the device says so, and Run goes on with
// them. A device that is blocked may be blocked again, for another reason.
func (r *Registry) Block(ctx context.Context, by By, id string, end End) (pki.Device, error) {
	if end.Revoke == pki.Unspecified {
		end.Revoke = pki.KeyCompromise
	}
	return r.end(ctx, by, id, end, pki.DeviceBlocked, audit.ActionDeviceBlock)
}

// Retire takes a device out of use: as Block, with another reason.
func (r *Registry) Retire(ctx context.Context, by By, id string, end End) (pki.Device, error) {
	if end.Revoke == pki.Unspecified {
		end.Revoke = pki.CessationOfOperation
	}
	return r.end(ctx, by, id, end, pki.DeviceRetired, audit.ActionDeviceRetire)
}

// EndReasons are those with which a device's certificates can be revoked.
func EndReasons() []pki.Reason {
	return []pki.Reason{pki.KeyCompromise, pki.AffiliationChanged, pki.Superseded, pki.CessationOfOperation, pki.PrivilegeWithdrawn}
}

func (r *Registry) end(ctx context.Context, by By, id string, end End, status pki.DeviceStatus, action string) (pki.Device, error) {
	if err := checkText("reason", end.Why, MaxReason); err != nil {
		return pki.Device{}, err
	}
	if !slices.Contains(EndReasons(), end.Revoke) {
		return pki.Device{}, fault.New(fault.BadRevocationReason, "a device's certificates cannot be revoked with %s", end.Revoke).WithField("revocation_reason")
	}
	// What is still to be revoked for another reason comes first: nobody may turn a compromise into something milder.
	if err := r.settle(ctx, id); err != nil {
		return pki.Device{}, err
	}
	d, err := r.change(ctx, by, id, end.Version, func(d *pki.Device, now time.Time) (store.DeviceChange, error) {
		if d.Status != status || end.Why != "" {
			d.Reason = end.Why // said again without a word, what was said before stays
		}
		d.Status = status
		d.RevokeReason, d.RevokeUntil, d.RevokeProfile = end.Revoke, now, ""
		detail := map[string]string{"revocation_reason": end.Revoke.String()}
		if end.Why != "" {
			detail["reason"] = end.Why
		}
		return store.DeviceChange{EndChallenges: true, Record: audit.Record{Action: action, Detail: detail}}, nil
	})
	if err != nil {
		return d, err
	}
	if err := r.sweep(ctx, by, d); err != nil {
		// The device is blocked, which is what was asked for; Run does the rest.
		r.cfg.Logger.WarnContext(ctx, "not every certificate of the device is revoked yet; that is tried again", "device", d.ID, "err", err)
		r.Wake()
		return d, nil
	}
	d.RevokeUntil, d.RevokeReason = time.Time{}, 0
	return d, nil
}

// settle revokes what is left of a device that is out of service.
func (r *Registry) settle(ctx context.Context, id string) error {
	d, err := r.cfg.Store.Device(ctx, id)
	if err != nil || d.RevokeUntil.IsZero() || d.Status.Served() {
		return err
	}
	if err := r.sweep(ctx, system(), d); err != nil {
		return fault.Wrap(fault.Unavailable, err, "certificates of the device are still to be revoked").WithRetryAfter(r.cfg.Every)
	}
	return nil
}

func system() By { return By{Principal: pki.System()} }

// Unblock puts a device that is blocked or retired back into use. Its certificates stay revoked: it needs a challenge.
// Conflict when it is in use; Unavailable while its certificates are still to be revoked.
func (r *Registry) Unblock(ctx context.Context, by By, id string, version int) (pki.Device, error) {
	if err := r.settle(ctx, id); err != nil {
		return pki.Device{}, err
	}
	return r.change(ctx, by, id, version, func(d *pki.Device, _ time.Time) (store.DeviceChange, error) {
		switch {
		case d.Status.Served():
			return store.DeviceChange{}, fault.New(fault.Conflict, "the device is %s, and neither blocked nor retired", d.Status)
		case !d.RevokeUntil.IsZero():
			return store.DeviceChange{}, fault.New(fault.Unavailable, "certificates of the device are still to be revoked").WithRetryAfter(r.cfg.Every)
		}
		was := d.Status.String()
		d.Status, d.Reason = pki.DeviceExpected, ""
		if d.Certificate != (pki.Fingerprint{}) {
			d.Status = pki.DeviceEnrolled
		}
		return store.DeviceChange{Record: audit.Record{Action: audit.ActionDeviceUnblock, Detail: map[string]string{"was": was, "status": d.Status.String()}}}, nil
	})
}

// sweep revokes what a device's RevokeUntil asks for, and notes that it is done. Another replica may do the same at the
// same time.
func (r *Registry) sweep(ctx context.Context, by By, d pki.Device) error {
	f := store.CertificateFilter{Device: d.ID, Status: []pki.Status{pki.Good, pki.OnHold}}
	if d.RevokeProfile != "" {
		f.Profiles = []string{d.RevokeProfile}
	}
	if d.Status.Served() {
		f.IssuedTo = d.RevokeUntil.Add(time.Microsecond)
	} // else nothing is issued to it any more, whatever the clocks of replicas say
	if d.RevokeReason == pki.KeyCompromise {
		f.Status = append(f.Status, pki.Revoked) // for what was revoked when the device was retired
	} else {
		f.NotAfterFrom = r.cfg.Clock.Now()
	}
	var failed error
	for p := (store.Page{Limit: revokePage}); ; {
		page, next, err := r.cfg.Store.ListCertificates(ctx, f, p)
		if err != nil {
			return err
		}
		for _, c := range page {
			if c.Revocation != nil && c.Revocation.Status == pki.Revoked && c.Revocation.Reason != pki.CessationOfOperation {
				continue // for a reason of its own
			}
			if c.IssuedAt.After(d.RevokeUntil) {
				// By a clock that is ahead; or since the device was put back into use, after others have revoked the rest.
				now, err := r.cfg.Store.Device(ctx, d.ID)
				if err != nil {
					return err
				}
				if now.Status.Served() || !now.RevokeUntil.Equal(d.RevokeUntil) {
					continue
				}
			}
			err := r.cfg.Revoke(ctx, Revocation{Principal: by.Principal, RequestID: by.RequestID, Certificate: c.Fingerprint, Reason: d.RevokeReason})
			if err != nil && !fault.Is(err, fault.AlreadyRevoked) {
				failed = errors.Join(failed, err)
			}
			if ctx.Err() != nil {
				return errors.Join(failed, ctx.Err())
			}
		}
		if p.Cursor = next; next == "" {
			break
		}
	}
	if failed != nil {
		return failed
	}
	return r.cfg.Store.DeviceRevoked(ctx, d.ID, d.RevokeUntil)
}

// Wake has Run look at once for what is to be revoked, after an issuance that supersedes others.
func (r *Registry) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run revokes what is left to be revoked, from its beginning until the context ends. Every replica may run it.
func (r *Registry) Run(ctx context.Context) {
	tick := time.NewTicker(r.cfg.Every)
	defer tick.Stop()
	for {
		if err := r.Sweep(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.WarnContext(ctx, "certificates of devices are still to be revoked", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.wake:
		}
	}
}

// Sweep revokes what is left to be revoked now. One device whose certificates cannot be revoked does not keep the others
// from it.
func (r *Registry) Sweep(ctx context.Context) error {
	var failed error
	stuck := map[string]bool{}
	for {
		ds, err := r.cfg.Store.DevicesToRevoke(ctx, sweepStep+len(stuck))
		if err != nil {
			return err
		}
		ds = slices.DeleteFunc(ds, func(d pki.Device) bool { return stuck[d.ID] })
		if len(ds) == 0 {
			return failed
		}
		for _, d := range ds {
			if err := r.sweep(ctx, system(), d); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				failed = errors.Join(failed, err)
			}
			stuck[d.ID] = true // done, or for the next time
		}
		if len(stuck) > 100*sweepStep {
			return failed
		}
	}
}
