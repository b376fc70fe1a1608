package device_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/sqlite"
)

// rig is a registry on a real store.
type rig struct {
	t     *testing.T
	store *sqlite.Store
	ca    *certtest.CA
	reg   *device.Registry
	now   atomic.Int64 // seconds since 1970
	fail  atomic.Bool  // revoking fails, as if the process ended there
	by    device.By
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, store: certtest.SQLite(t), by: device.By{Principal: pki.Principal{Name: "token:op", Role: pki.RoleOperator, Source: "192.0.2.1"}, RequestID: "r1"}}
	r.now.Store(time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC).Unix())
	r.ca = certtest.Setup(t, r.store, r.time()).Issuing
	r.reg = r.registry()
	return r
}

func (r *rig) time() time.Time { return time.Unix(r.now.Load(), 0).UTC() }

func (r *rig) registry() *device.Registry {
	r.t.Helper()
	reg, err := device.New(device.Config{Store: r.store, Clock: clock.New(r.time, func() time.Duration { return time.Duration(r.now.Load()) * time.Second }), Revoke: r.revoke, Every: time.Hour})
	if err != nil {
		r.t.Fatal(err)
	}
	return reg
}

// revoke does what the authority does, on the store alone.
func (r *rig) revoke(ctx context.Context, v device.Revocation) error {
	if r.fail.Load() {
		return fault.New(fault.Unavailable, "the process has ended")
	}
	c, err := r.store.Certificate(ctx, v.Certificate)
	if err != nil {
		return err
	}
	_, err = r.store.ChangeStatus(ctx, store.StatusChange{
		IssuerID: c.IssuerID, Serial: c.Serial, Action: pki.ActionRevoke, Revocation: pki.Revocation{Reason: v.Reason, RevokedAt: r.time()},
		Record: audit.Record{Time: r.time(), Action: audit.ActionRevoke, Actor: v.Principal.Name, RequestID: v.RequestID, Target: "certificate/" + c.Fingerprint.String()},
	})
	return err
}

// issue records a certificate that ends after so long.
func (r *rig) issue(id string, life time.Duration, edit ...func(*store.Issuance)) (pki.Certificate, error) {
	r.now.Add(1)
	c := pki.Certificate{
		IssuerID: r.ca.IssuerID, IssuerKeyID: r.ca.IssuerKeyID, Fingerprint: pki.Fingerprint(random(32)), SPKIHash: [32]byte(random(32)), Subject: "CN=" + id,
		Profile: "device", Requester: "scep", Protocol: "scep", Device: id, CRLScope: pki.ScopeFull, NotBefore: r.time(), NotAfter: r.time().Add(life), IssuedAt: r.time(),
	}
	serial, err := pki.NewSerialNumber(rand.Reader, c.NotAfter, c.IssuedAt)
	if err != nil {
		r.t.Fatal(err)
	}
	c.Serial = serial
	i := store.Issuance{Certificate: c, Record: audit.Record{Time: r.time(), Action: audit.ActionIssue, Actor: "scep", Target: "certificate/" + c.Fingerprint.String()}}
	for _, f := range edit {
		f(&i)
	}
	return i.Certificate, r.store.RecordIssuance(r.t.Context(), i)
}

func (r *rig) mustIssue(id string, life time.Duration, edit ...func(*store.Issuance)) pki.Certificate {
	r.t.Helper()
	c, err := r.issue(id, life, edit...)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// wantReason says with which reason a certificate is to be revoked; "" if it is good.
func (r *rig) wantReason(what string, c pki.Certificate, want string) {
	r.t.Helper()
	got, err := r.store.Certificate(r.t.Context(), c.Fingerprint)
	if err != nil {
		r.t.Fatal(err)
	}
	reason := ""
	if got.Revocation != nil {
		reason = got.Revocation.Reason.String()
	}
	if reason != want {
		r.t.Errorf("%s is revoked with %q, want %q", what, reason, want)
	}
}

func (r *rig) device(id string) pki.Device {
	r.t.Helper()
	d, err := r.store.Device(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// events are the audit records of an action, newest first.
func (r *rig) events(action string) (all []audit.Record, err error) {
	events, _, err := r.store.AuditEvents(r.t.Context(), store.AuditFilter{Action: action}, store.Page{})
	for _, e := range events {
		record, parseErr := audit.Parse(e.Bytes)
		all, err = append(all, record), errors.Join(err, parseErr)
	}
	return all, err
}

func wantKind(t *testing.T, what string, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func TestCreate(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	ds, skipped, err := r.reg.Create(ctx, r.by, []device.Entry{{ID: "a", Group: "g", Subject: "CN=a, O=x"}, {ID: "b"}}, false)
	if err != nil || skipped != 0 || len(ds) != 2 {
		t.Fatalf("Create = %v, %d, %v", ds, skipped, err)
	}
	if d := r.device("a"); d.Status != pki.DeviceExpected || d.Subject != "CN=a,O=x" || d.CreatedBy != "token:op" || !d.CreatedAt.Equal(r.time()) || d.Version != 1 {
		t.Errorf("device = %+v", d)
	}
	_, _, err = r.reg.Create(ctx, r.by, []device.Entry{{ID: "c"}, {ID: "b"}}, false)
	wantKind(t, "an id that exists", err, fault.Conflict)
	_, err = r.store.Device(ctx, "c")
	wantKind(t, "all or none", err, fault.NotFound)
	ds, skipped, err = r.reg.Create(ctx, r.by, []device.Entry{{ID: "c"}, {ID: "b", Group: "new"}}, true)
	if err != nil || skipped != 1 || len(ds) != 1 || r.device("b").Group != "" {
		t.Errorf("Create with skip = %v, %d, %v", ds, skipped, err)
	}
	if ds, skipped, err = r.reg.Create(ctx, r.by, []device.Entry{{ID: "b"}}, true); err != nil || skipped != 1 || len(ds) != 0 {
		t.Errorf("Create of what is there = %v, %d, %v", ds, skipped, err)
	}
	for field, entries := range map[string][]device.Entry{
		"id": {{ID: ""}}, "devices.1.id": {{ID: "x"}, {ID: "x"}}, "devices.1.group": {{ID: "x"}, {ID: "y", Group: "\n"}}, "devices": make([]device.Entry, device.MaxBulk+1),
	} {
		_, _, err := r.reg.Create(ctx, r.by, entries, true)
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.BadRequest || f.Field != field {
			t.Errorf("want a refusal of %s, got %v", field, err)
		}
	}
	events, err := r.events(audit.ActionDevice)
	if err != nil || len(events) != 2 || events[1].Detail["count"] != "2" || events[0].Target != "device/c" {
		t.Errorf("audit events: %+v, %v", events, err)
	}
}

func TestChange(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	if _, _, err := r.reg.Create(ctx, r.by, []device.Entry{{ID: "a", Group: "g", Note: "n"}}, false); err != nil {
		t.Fatal(err)
	}
	d, err := r.reg.Change(ctx, r.by, 1, device.Entry{ID: "a", Group: "h", Labels: map[string]string{"k": "v"}})
	if err != nil || d.Version != 2 || r.device("a").Group != "h" || r.device("a").Note != "" {
		t.Errorf("Change = %+v, %v", d, err)
	}
	_, err = r.reg.Change(ctx, r.by, 1, device.Entry{ID: "a"})
	if !errors.Is(err, store.ErrStale) {
		t.Errorf("a change of an old version: %v", err)
	}
	_, err = r.reg.Change(ctx, r.by, 0, device.Entry{ID: "none"})
	wantKind(t, "no such device", err, fault.NotFound)
	events, err := r.events(audit.ActionDeviceChange)
	if err != nil || len(events) != 1 || fmt.Sprint(events[0].Detail) != "map[group:h labels:k=v note:]" {
		t.Errorf("audit events: %+v, %v", events, err)
	}
	// Changes of whichever version, all at once: none is lost.
	var wg sync.WaitGroup
	var refused atomic.Int64
	const n = 4
	for i := range n {
		wg.Go(func() {
			if _, err := r.reg.Change(ctx, r.by, 0, device.Entry{ID: "a", Owner: fmt.Sprint(i)}); errors.Is(err, store.ErrStale) {
				refused.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := r.device("a").Version; got != 2+n-int(refused.Load()) {
		t.Errorf("version %d after %d changes, of which %d were refused", got, n, refused.Load())
	}
}

func TestBlock(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	const day = 24 * time.Hour
	ended, good, held, other := r.mustIssue("a", time.Minute), r.mustIssue("a", day), r.mustIssue("a", day), r.mustIssue("b", day)
	certtest.Change(t, r.store, held, pki.ActionHold, pki.CertificateHold, r.time())
	superseded := r.mustIssue("a", day)
	certtest.Change(t, r.store, superseded, pki.ActionRevoke, pki.Superseded, r.time())
	r.now.Add(3600)
	d, err := r.reg.Block(ctx, r.by, "a", device.End{Why: "stolen from hall 3"})
	if err != nil || d.Status != pki.DeviceBlocked || !d.RevokeUntil.IsZero() {
		t.Fatalf("Block = %+v, %v", d, err)
	}
	if got := r.device("a"); !got.RevokeUntil.IsZero() || got.Reason != "stolen from hall 3" || got.Status != pki.DeviceBlocked {
		t.Errorf("device = %+v", got)
	}
	if d, err := r.reg.Block(ctx, r.by, "a", device.End{}); err != nil || d.Reason != "stolen from hall 3" {
		t.Errorf("blocked again without a word = %+v, %v", d, err)
	}
	r.wantReason("what has ended", ended, "keyCompromise")
	r.wantReason("a good one", good, "keyCompromise")
	r.wantReason("one on hold", held, "keyCompromise")
	r.wantReason("one that was revoked before", superseded, "superseded")
	r.wantReason("another device's", other, "")
	if _, err := r.issue("a", day); !errors.Is(err, store.ErrDeviceRefused) {
		t.Errorf("issued to a blocked device: %v", err)
	}

	// Back into use, and out of it for good.
	d, err = r.reg.Unblock(ctx, r.by, "a", 0)
	if err != nil || d.Status != pki.DeviceEnrolled || d.Reason != "" {
		t.Errorf("Unblock = %+v, %v", d, err)
	}
	_, err = r.reg.Unblock(ctx, r.by, "a", 0)
	wantKind(t, "Unblock of a device in use", err, fault.Conflict)
	again, short := r.mustIssue("a", day), r.mustIssue("a", time.Minute)
	r.now.Add(3600)
	if _, err := r.reg.Retire(ctx, r.by, "a", device.End{}); err != nil {
		t.Fatal(err)
	}
	r.wantReason("a retired device's", again, "cessationOfOperation")
	r.wantReason("what had ended before", short, "")
	// Retired, and then found to be stolen.
	if _, err := r.reg.Block(ctx, r.by, "a", device.End{}); err != nil {
		t.Fatal(err)
	}
	r.wantReason("a device's that was retired before it was blocked", again, "keyCompromise")
	r.wantReason("what had ended before", short, "keyCompromise")
	r.wantReason("one that was revoked before", superseded, "superseded")
	if _, err := r.reg.Retire(ctx, r.by, "a", device.End{}); err != nil {
		t.Fatal(err)
	}
	r.wantReason("a device's that was blocked before it was retired", again, "keyCompromise")

	for _, reason := range []pki.Reason{pki.CertificateHold, pki.CACompromise, pki.RemoveFromCRL} {
		_, err := r.reg.Block(ctx, r.by, "b", device.End{Revoke: reason})
		wantKind(t, reason.String(), err, fault.BadRevocationReason)
	}
	_, err = r.reg.Block(ctx, r.by, "b", device.End{Version: 7})
	if !errors.Is(err, store.ErrStale) {
		t.Errorf("Block of an old version: %v", err)
	}
	_, err = r.reg.Block(ctx, r.by, "b", device.End{Why: strings.Repeat("x", device.MaxReason+1)})
	wantKind(t, "a long story", err, fault.BadRequest)
	_, err = r.reg.Block(ctx, r.by, "none", device.End{})
	wantKind(t, "no such device", err, fault.NotFound)
	r.wantReason("what nobody blocked", other, "")
}

// TestCrash: the process ends between the block and the revocations. Another one, or another replica, does the rest, and
// until then nobody makes less of it.
func TestCrash(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	const day = 24 * time.Hour
	good := r.mustIssue("a", day)
	ahead := r.mustIssue("a", day, func(i *store.Issuance) { i.Certificate.IssuedAt = r.time().Add(time.Minute) }) // by a replica whose clock is ahead
	r.fail.Store(true)
	d, err := r.reg.Block(ctx, r.by, "a", device.End{})
	if err != nil || d.Status != pki.DeviceBlocked || d.RevokeUntil.IsZero() {
		t.Fatalf("Block = %+v, %v; it is blocked, with something left to do", d, err)
	}
	r.wantReason("before the sweep", good, "")
	_, err = r.reg.Unblock(ctx, r.by, "a", 0)
	wantKind(t, "Unblock before the revocations", err, fault.Unavailable)
	_, err = r.reg.Retire(ctx, r.by, "a", device.End{})
	wantKind(t, "Retire before the revocations", err, fault.Unavailable)

	r.fail.Store(false)
	runs, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for range 2 { // two replicas, which begin at once
		reg := r.registry()
		wg.Go(func() { reg.Run(runs) })
	}
	deadline := time.Now().Add(time.Minute)
	for !r.device("a").RevokeUntil.IsZero() {
		if time.Now().After(deadline) {
			t.Fatal("nobody has revoked the certificates within a minute")
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	wg.Wait()
	r.wantReason("after the sweep", good, "keyCompromise")
	r.wantReason("of a clock that is ahead", ahead, "keyCompromise")
	if _, err := r.reg.Unblock(ctx, r.by, "a", 0); err != nil {
		t.Error(err)
	}
}

// TestStuck: a device whose certificates cannot be revoked does not keep others from it.
func TestStuck(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	var all []pki.Certificate
	for i := range 5 {
		all = append(all, r.mustIssue(fmt.Sprint("d", i), time.Hour))
	}
	r.fail.Store(true)
	for i := range all {
		if _, err := r.reg.Block(ctx, r.by, fmt.Sprint("d", i), device.End{}); err != nil {
			t.Fatal(err)
		}
	}
	stuck := all[2].Fingerprint
	reg, err := device.New(device.Config{Store: r.store, Clock: clock.New(r.time, nil), Revoke: func(ctx context.Context, v device.Revocation) error {
		if v.Certificate == stuck {
			return fault.New(fault.Conflict, "the certificate's issuer is not served here")
		}
		return r.revoke(ctx, v)
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.fail.Store(false)
	if err := reg.Sweep(ctx); err == nil {
		t.Error("Sweep says nothing of the device that is left")
	}
	left, err := r.store.DevicesToRevoke(ctx, 10)
	if err != nil || len(left) != 1 || left[0].ID != "d2" {
		t.Errorf("left are %+v, %v; want d2", left, err)
	}
	if err := r.reg.Sweep(ctx); err != nil {
		t.Error(err)
	}
	for i, c := range all {
		r.wantReason(fmt.Sprint("d", i), c, "keyCompromise")
	}
}

// TestSuperseded: what a new certificate supersedes is revoked, and no other.
func TestSuperseded(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	const day = 24 * time.Hour
	old, ended := r.mustIssue("a", day), r.mustIssue("a", time.Second)
	other := r.mustIssue("a", day, func(i *store.Issuance) { i.Certificate.Profile = "other" })
	supersede := func(i *store.Issuance) { i.SupersedeDevice = true }
	first := r.mustIssue("a", day, supersede)
	second := r.mustIssue("a", day, supersede) // before the first has had its effect
	if err := r.reg.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	third := r.mustIssue("a", day)
	if err := r.reg.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	r.wantReason("the old one", old, "superseded")
	r.wantReason("the first", first, "superseded")
	r.wantReason("the newest", second, "")
	r.wantReason("what came later", third, "")
	r.wantReason("another profile's", other, "")
	r.wantReason("what has ended", ended, "")
	if !slices.Contains(device.EndReasons(), pki.Superseded) || !r.device("a").RevokeUntil.IsZero() {
		t.Errorf("device = %+v", r.device("a"))
	}
}
