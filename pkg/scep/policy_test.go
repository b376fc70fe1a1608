package scep_test

import (
	"context"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/certwright/certwright/pkg/scep"
	"github.com/certwright/certwright/pkg/store"
)

// The stories of docs/scep.md, each on a real store; every rule by itself is in package enrollment's TestPolicy.

const day = 24 * time.Hour

// operator is who decides and blocks.
var operator = pki.Principal{Name: "token:op", Role: pki.RoleOperator}

// of has a challenge made for a device.
func of(id string) func(*pki.Challenge) { return func(c *pki.Challenge) { c.Device = id } }

// record returns what the registry has of a device.
func (r *rig) record(id string) pki.Device {
	r.t.Helper()
	d, err := r.store.Device(r.t.Context(), id)
	if err != nil {
		r.t.Fatalf("device %q: %v", id, err)
	}
	return d
}

// change changes a device as a person does.
func (r *rig) change(id string, edit func(*pki.Device)) {
	r.t.Helper()
	d := r.record(id)
	d.Version++
	edit(&d)
	if err := r.store.ChangeDevice(r.t.Context(), store.DeviceChange{Device: d, Record: audit.Record{Time: r.now(), Action: "device.change"}}); err != nil {
		r.t.Fatal(err)
	}
}

// events returns how often something is in the audit trail.
func (r *rig) events(action string) int {
	r.t.Helper()
	list, _, err := r.store.AuditEvents(r.t.Context(), store.AuditFilter{Action: action}, store.Page{Limit: 1000})
	if err != nil {
		r.t.Fatal(err)
	}
	return len(list)
}

// waits checks that an answer is PENDING, and returns the request that waits.
func (d *device) waits(got *rep, why string) pki.Enrollment {
	d.t.Helper()
	if got.status != "3" {
		d.t.Fatalf("status %s, failInfo %s, %q; want PENDING", got.status, got.info, got.text)
	}
	e, err := d.store.EnrollmentBySigner(d.t.Context(), enrollment.DefaultPoint, d.id, keys.SPKIHash(d.signer.RawSubjectPublicKeyInfo))
	if err != nil {
		d.t.Fatal(err)
	}
	if e.State != pki.EnrollmentPending || !strings.Contains(e.Reason, why) {
		d.t.Errorf("it waits because %q, want %q", e.Reason, why)
	}
	return e
}

// named gives a device a certificate by a challenge of its id.
func (d *device) named(id string) *x509.Certificate {
	d.t.Helper()
	c := d.ask("19", d.csr(d.challenge(of(id)))).success(d.t)
	d.signer, d.id = c, d.id+"-next"
	return c
}

func life(c *x509.Certificate) time.Duration { return c.NotAfter.Sub(c.NotBefore) }

var poll = scepraw.Sequence(scepraw.Name("a"), scepraw.Name("b"))

// A device comes into the registry with its challenge, and what it does is seen there; what it is refused is counted.
func TestDeviceIsSeen(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, r *rig) {
		d := r.device(deviceKey())
		text := r.challenge(of("d1"))
		if got := r.record("d1"); got.Status != pki.DeviceExpected {
			t.Errorf("a device with a challenge is %s", got.Status)
		}
		c := d.ask("19", d.csr(text)).success(t)
		d.signer, d.id = c, "early"
		d.ask("17", d.csr()).failure(t, "2", "renewed from")
		d.id = "none"
		d.ask("21", scepraw.IssuerAndSerial(d.ra)).failure(t, "4")
		stranger := r.device(otherKey())
		stranger.ask("19", stranger.csr("wrong")).failure(t, "2")
		r.handler.Flush(t.Context())
		got := r.record("d1")
		if got.Status != pki.DeviceEnrolled || got.Certificate != fingerprint(c) || got.FirstSeenAt.IsZero() || got.LastSource != "127.0.0.1" || got.LastPoint != "default" {
			t.Errorf("the registry has %+v", got)
		}
		if got.Failures != 2 || got.RenewalFailures != 1 {
			t.Errorf("%d failures, %d of renewals; want 2 and 1: %s", got.Failures, got.RenewalFailures, got.Failure)
		}
		want := pki.DeviceProtocol{Message: "GetCert", Digest: "SHA-256", Cipher: "AES-128-CBC", KeyTransport: "RSA-PKCS1v1.5", Key: "rsa-2048", UserAgent: "Go-http-client/1.1"}
		if got.Protocol != want {
			t.Errorf("it was seen with %+v, want %+v", got.Protocol, want)
		}
		counted, err := r.store.Refusals(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, c := range counted {
			if c.Point == enrollment.DefaultPoint && c.Number == 1 {
				list = append(list, c.Kind+" "+c.Reason)
			}
		}
		slices.Sort(list)
		if want := []string{"enroll challenge", "get malformed", "renew not-yet-renewable"}; !slices.Equal(list, want) {
			t.Errorf("counted %q, want %q", list, want)
		}
		if n := r.handler.Refusals()[scep.RefusalKey{Point: "default", Kind: "renew", Reason: enrollment.ReasonNotYet}]; n != 1 {
			t.Errorf("metrics have %d refused renewals", n)
		}
	})
}

// What the server collects is written when it ends.
func TestNotesAtTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(deviceKey())
	d.named("d1")
	d.ask("17", d.csr()).failure(t, "2")
	ended, end := context.WithCancel(t.Context())
	end()
	r.handler.Run(ended)
	if got := r.record("d1"); got.Failures != 1 {
		t.Errorf("%d failures are noted", got.Failures)
	}
}

// A blocked or retired device gets nothing, whatever it shows; put back into use it goes on.
func TestBlockedDevice(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, r *rig) {
		d := r.device(deviceKey())
		text := r.challenge(of("d1"))
		c := d.ask("19", d.csr(text)).success(t)
		r.later(life(c) * 2 / 3)
		unused := r.challenge(of("d1"))
		for _, status := range []pki.DeviceStatus{pki.DeviceBlocked, pki.DeviceRetired} {
			r.change("d1", func(d *pki.Device) { d.Status = status })
			d.ask("19", d.csr(text)).failure(t, "2") // the same again
			fresh := r.device(otherKey())
			fresh.ask("19", fresh.csr(unused)).failure(t, "2", status.String())
			own := *d
			own.signer, own.id = c, "own"
			own.ask("17", own.csr()).failure(t, "2", status.String())
			own.ask("19", own.csr(unused)).failure(t, "2", status.String())
			own.ask("21", scepraw.IssuerAndSerial(c)).failure(t, "2", status.String())
			own.ask("20", poll).failure(t, "2", status.String())
			// Its key is known, though the challenge names nobody.
			fresh = r.device(deviceKey())
			fresh.ask("19", fresh.csr(r.challenge())).failure(t, "2", status.String())
		}
		if n := r.count(); n != 1 {
			t.Errorf("%d certificates, want the one from before", n)
		}
		r.change("d1", func(d *pki.Device) { d.Status = pki.DeviceEnrolled })
		d.signer, d.id = c, "back"
		d.ask("17", d.csr()).success(t)
	})
}

// Names are those of the point's template, the record and the challenge, all of them.
func TestBoundNames(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure("", func(c *enrollment.Config) { c.Subject = "CN={device},O={label:company}" })
	ask := func(d *device, cn, text string) *rep {
		t.Helper()
		name := scepraw.Sequence(scepraw.Set(scepraw.Sequence(scepraw.OID("2.5.4.3"), scepraw.UTF8(cn))), scepraw.Set(scepraw.Sequence(scepraw.OID("2.5.4.10"), scepraw.UTF8("Example"))))
		return d.ask("19", scepraw.CSR{Key: d.key, Challenges: []string{text}, Subject: name}.Bytes())
	}
	d := r.device(deviceKey())
	text := r.challenge(of("d1"))
	ask(d, "d1", text).failure(t, "2", "label:company")
	r.change("d1", func(d *pki.Device) { d.Labels = map[string]string{"company": "Example"} })
	ask(d, "d2", text).failure(t, "2", "another device")
	got := ask(d, "D1", text).success(t)
	if got.Subject.CommonName != "d1" || !slices.Equal(got.Subject.Organization, []string{"Example"}) {
		t.Errorf("got %s", got.Subject)
	}
	// The profile gave it a URN, which is no other name.
	d.signer, d.id = got, "renewal"
	r.later(life(got) * 2 / 3)
	renewed := d.ask("17", d.csr()).success(t)
	if len(renewed.URIs) != 1 {
		t.Errorf("renewed with %v", renewed.URIs)
	}
	// The record says another name now.
	r.change("d1", func(d *pki.Device) { d.SANs = []string{"DNS:d1.example.com"} })
	d.signer, d.id = renewed, "renewal 2"
	r.later(life(got) * 2 / 3)
	d.ask("17", d.csr()).failure(t, "2", "enroll anew")
	d.id = "anew"
	if got := ask(d, "d1", r.challenge(of("d1"))).success(t); !slices.Equal(got.DNSNames, []string{"d1.example.com"}) {
		t.Errorf("enrolled anew with %v", got.DNSNames)
	}
}

// Which device a request is of, and who is served at all.
func TestIdentity(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, r *rig) {
		r.configure(staticText, func(c *enrollment.Config) { c.Device.Identity = enrollment.IdentityCommonName })
		d := r.device(deviceKey())
		c := d.ask("19", d.csr(staticText)).success(t)
		if record := r.record("device"); record.Certificate != fingerprint(c) || record.Status != pki.DeviceEnrolled {
			t.Errorf("the registry has %+v", record)
		}
		clone := r.device(deviceKey())
		request := func(cn string) []byte {
			return scepraw.CSR{Key: clone.key, Challenges: []string{staticText}, Subject: scepraw.Name(cn)}.Bytes()
		}
		clone.ask("19", request("clone")).failure(t, "2", "another device has this key")
		until := enrollment.Date{Time: r.now().Truncate(day)}
		r.configure(staticText, func(c *enrollment.Config) {
			c.Device.Registered, c.Legacy = true, map[enrollment.Switch]enrollment.Date{enrollment.LegacySharedKeys: until}
		})
		clone.ask("19", request("clone")).failure(t, "2", "not registered")
		clone.id = "registered"
		clone.ask("19", request("device")).success(t)
		if n := r.count(); n != 2 {
			t.Errorf("%d certificates", n)
		}
	})
}

// A wiped device enrolls anew; the point says what becomes of its old certificate.
func TestReplacement(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, r *rig) {
		old := r.device(deviceKey())
		first := old.named("d1")
		wiped := r.device(otherKey())
		second := wiped.named("d1")
		r.later(life(first) * 2 / 3)
		// Superseded: it is good, and renews no more.
		old.waits(old.ask("17", old.csr()), "renewed or replaced")
		wiped.id = "renewal"
		third := wiped.ask("17", wiped.csr()).success(t)

		r.configure("", func(c *enrollment.Config) { c.Replacement = enrollment.ReplaceRefuse })
		again := r.device(newRSAKey(2048))
		text := r.challenge(of("d1"))
		again.ask("19", again.csr(text)).failure(t, "2", "good certificate")
		r.configure("", func(c *enrollment.Config) { c.Replacement = enrollment.ReplacePending })
		again.waits(again.ask("19", again.csr(text)), "good certificate")
		r.configure("", func(c *enrollment.Config) { c.Replacement = enrollment.ReplaceRevoke })
		again.id = "revoke"
		fourth := again.ask("19", again.csr(r.challenge(of("d1")))).success(t)
		d := r.record("d1")
		newest, err := r.store.Certificate(t.Context(), fingerprint(fourth))
		if err != nil {
			t.Fatal(err)
		}
		if d.RevokeReason != pki.Superseded || d.RevokeProfile != profile.Device || d.RevokeUntil.IsZero() || !d.RevokeUntil.Before(newest.IssuedAt) {
			t.Errorf("to be revoked up to %s for %s of %q, want what was issued before %s", d.RevokeUntil, d.RevokeReason, d.RevokeProfile, newest.IssuedAt)
		}
		for _, c := range []*x509.Certificate{first, second, third} {
			if record, err := r.store.Certificate(t.Context(), fingerprint(c)); err != nil || record.IssuedAt.After(d.RevokeUntil) {
				t.Errorf("a certificate of %s stays, %v", record.IssuedAt, err)
			}
		}
	})
}

// What is replaced where the point says revoke is revoked at once, long before anybody would look for it again.
func TestReplacedIsRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.registry.Run(ctx) }()
	defer func() { end(); <-done }()
	r.configure("", func(c *enrollment.Config) { c.Replacement = enrollment.ReplaceRevoke })
	old := r.device(deviceKey()).named("d1")
	wiped := r.device(otherKey()).named("d1")
	select {
	case f := <-r.revoked:
		if f != fingerprint(old) {
			t.Errorf("%s was revoked, want %s", f, fingerprint(old))
		}
	case <-time.After(time.Minute):
		t.Fatal("nothing was revoked")
	}
	record, err := r.store.Certificate(t.Context(), fingerprint(old))
	if err != nil || record.Revocation == nil || record.Revocation.Reason != pki.Superseded {
		t.Errorf("the old certificate: %+v, %v", record.Revocation, err)
	}
	if record, err := r.store.Certificate(t.Context(), fingerprint(wiped)); err != nil || record.Revocation != nil {
		t.Errorf("the new certificate: %+v, %v", record.Revocation, err)
	}
}

// A device comes back after its certificate has ended.
func TestReturn(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, r *rig) {
		r.configure("", func(c *enrollment.Config) {
			c.Return = enrollment.ReturnRules{Policy: enrollment.ReturnGrace, Attempts: 2}
		})
		device := func(id string) (*device, *x509.Certificate) {
			d := r.device(newRSAKey(2048))
			return d, d.named(id)
		}
		d, first := device("d1")
		beyond, _ := device("d2")
		tries, _ := device("d3")
		stolen, theirs := device("d4")
		older, _ := device("d5")
		newer := r.device(newRSAKey(2048))
		newer.named("d5")
		record, err := r.store.Certificate(t.Context(), fingerprint(theirs))
		if err != nil {
			t.Fatal(err)
		}
		revoke := func(c pki.Certificate, blockKey bool) {
			t.Helper()
			if _, err := r.store.ChangeStatus(t.Context(), store.StatusChange{
				IssuerID: c.IssuerID, Serial: c.Serial, Action: pki.ActionRevoke, Revocation: pki.Revocation{Reason: pki.KeyCompromise, RevokedAt: r.now().Truncate(time.Second)},
				BlockKey: blockKey, Record: audit.Record{Time: r.now(), Action: audit.ActionRevoke},
			}); err != nil {
				t.Fatal(err)
			}
			if err := r.sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		revoke(record, false)
		blocked := r.device(newRSAKey(2048))
		reported := blocked.enrolled()
		record.Serial = serialOf(reported)
		revoke(record, true)
		r.later(first.NotAfter.Sub(r.now()) + 29*day)

		back := d.ask("17", d.csr()).success(t)
		if left := back.NotAfter.Sub(r.now()); left > 7*day || left < 7*day-time.Hour {
			t.Errorf("its first certificate lasts for %s, want 7 days", left)
		}
		if again := d.ask("17", d.csr()).success(t); !again.Equal(back) { // the answer was lost
			t.Error("a second certificate")
		}
		if n := r.events(audit.ActionReturn); n != 1 {
			t.Errorf("%d records of returns, want 1", n)
		}
		if got := r.record("d1"); got.Returns != 0 || got.Certificate != fingerprint(back) {
			t.Errorf("the registry has %d tries and certificate %s", got.Returns, got.Certificate)
		}
		other := *d
		other.id, other.key = "other key", newRSAKey(2048)
		other.waits(other.ask("17", other.csr()), "renewed or replaced")

		stolen.ask("17", stolen.csr()).failure(t, "2", "revoked")
		older.waits(older.ask("17", older.csr()), "renewed or replaced")
		newer.ask("17", newer.csr()).success(t)

		// Tries that come to nothing are counted.
		for range 2 {
			tries.id += "."
			own := *tries
			own.key = blocked.key
			own.ask("17", own.csr()).failure(t, "0", "blocked")
		}
		if got := r.record("d3"); got.Returns != 2 {
			t.Errorf("%d tries are counted, want 2", got.Returns)
		}
		tries.id = "third"
		e := tries.waits(tries.ask("17", tries.csr()), "2 times")
		if _, err := r.handler.Approve(t.Context(), operator, "", e.ID); err != nil {
			t.Fatal(err)
		}
		if c := tries.ask("20", poll).success(t); c.NotAfter.Sub(r.now()) < 30*day {
			t.Errorf("what a person approves lasts until %s", c.NotAfter)
		}

		// The short one renews as every other.
		d.signer, d.id = back, "whole life"
		r.later(4 * day)
		if c := d.ask("17", d.csr()).success(t); life(c) < life(first)-time.Hour {
			t.Errorf("the next one lasts for %s", life(c))
		}
		beyond.waits(beyond.ask("17", beyond.csr()), "longer ago than the grace")
		beyond.id = "a challenge helps"
		beyond.ask("19", beyond.csr(r.challenge(of("d2")))).success(t)

		r.configure("", func(c *enrollment.Config) { c.Return = enrollment.ReturnRules{Policy: enrollment.ReturnRefuse} })
		older.id = "refuse"
		older.ask("17", older.csr()).failure(t, "2", "ended")
	})
}

// limit puts the condition into the profile of devices; none takes it away.
func (r *rig) limit(conditions ...profile.Condition) {
	r.t.Helper()
	p, err := r.ca.Profile(profile.Device)
	if err != nil {
		r.t.Fatal(err)
	}
	c := p.Config()
	c.Conditions = conditions
	if _, _, err := r.ca.PutProfile(r.t.Context(), ca.ProfileChange{Principal: pki.System(), Config: c, Version: ca.AnyVersion}); err != nil {
		r.t.Fatal(err)
	}
	if err := r.sync(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// issuerIs has the issuer of devices be revoked, on hold, or good.
func (r *rig) issuerIs(status pki.Status) error {
	i, err := r.issuers.Current().Issuer("")
	if err != nil {
		return err
	}
	ask := ca.StatusRequest{Principal: pki.System(), Certificate: i.Current.Fingerprint, Reason: pki.CACompromise}
	switch status {
	case pki.Revoked:
		_, err = r.ca.Revoke(r.t.Context(), ask)
	case pki.OnHold:
		_, err = r.ca.Hold(r.t.Context(), ask)
	default:
		_, err = r.ca.Release(r.t.Context(), ask)
	}
	if err != nil {
		return err
	}
	return r.issuers.Reload(r.t.Context())
}

// What nobody could approve does not wait: it is refused at once, and uses nothing up. What may depend on who approves,
// and when, waits.
func TestNothingWaitsInVain(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	blocked := r.device(newRSAKey(2048))
	stolen := fingerprint(r.device(blocked.key).enrolled())
	if _, err := r.ca.Revoke(t.Context(), ca.StatusRequest{Principal: pki.System(), Certificate: stolen, Reason: pki.KeyCompromise}); err != nil {
		t.Fatal(err)
	}
	r.configure("", func(c *enrollment.Config) { c.Approval = true })
	d := r.device(deviceKey())
	text := r.challenge(of("d1"))
	d.ask("19", scepraw.CSR{Key: d.key, Challenges: []string{text}, Subject: scepraw.Name("pki.example.com")}.Bytes()).failure(t, "2", "a name of this server itself")
	r.limit(profile.Condition{Expr: `inNetwork(source, "192.0.2.0/24")`, Message: "another place"})
	d.ask("19", d.csr(text)).failure(t, "2", "another place")
	r.limit(profile.Condition{Expr: `cn != "device"`, Message: "another name"})
	d.ask("19", d.csr(text)).failure(t, "2", "another name")
	if n := r.handler.Refusals()[scep.RefusalKey{Point: "default", Kind: "enroll", Reason: enrollment.ReasonNames}]; n != 3 {
		t.Errorf("%d refusals of names are counted, want 3", n)
	}
	r.limit()
	blocked.ask("19", blocked.csr(r.challenge())).failure(t, "0", "blocked")
	waiting, _, err := r.store.ListEnrollments(t.Context(), store.EnrollmentFilter{}, store.Page{Limit: 10})
	if err != nil || len(waiting) != 0 {
		t.Errorf("%+v wait, %v", waiting, err)
	}

	// Who approves, and when, is not known yet; nor whether the issuer can issue by then.
	r.limit(profile.Condition{Expr: `role == "administrator"`}, profile.Condition{Expr: `requester != "scep:default" && inNetwork(source, "127.0.0.0/8")`},
		profile.Condition{Expr: `validity < duration("1h") || now > timestamp("2020-01-01T00:00:00Z")`})
	if err := r.issuerIs(pki.OnHold); err != nil {
		t.Fatal(err)
	}
	e := d.waits(d.ask("19", d.csr(text)), "approval")
	if _, err := r.handler.Approve(t.Context(), operator, "", e.ID); !fault.Is(err, fault.PolicyRefused) || !strings.Contains(err.Error(), "on hold") {
		t.Errorf("approved while the issuer is on hold: %v", err)
	}
	if err := r.issuerIs(pki.Good); err != nil {
		t.Fatal(err)
	}
	if _, err := r.handler.Approve(t.Context(), operator, "", e.ID); !fault.Is(err, fault.PolicyRefused) {
		t.Errorf("approved by whom the profile does not take: %v", err)
	}
	if _, err := r.handler.Approve(t.Context(), pki.Principal{Name: "token:admin", Role: pki.RoleAdministrator, Source: "192.0.2.7"}, "", e.ID); err != nil {
		t.Error(err)
	}
	c := d.ask("20", poll).success(t)
	// The device was where it asked from, when it did, and not where the person sat who has approved.
	if got, err := r.store.Certificate(t.Context(), fingerprint(c)); err != nil || got.Source != "127.0.0.1" || got.Requester != "token:admin" {
		t.Errorf("the certificate is from %q by %q, %v", got.Source, got.Requester, err)
	}
	if got := r.record("d1"); got.LastSource != "127.0.0.1" || got.FirstSeenAt.After(e.CreatedAt) {
		t.Errorf("the device was first seen at %s, last at %s; it asked at %s", got.FirstSeenAt, got.LastSource, e.CreatedAt)
	}

	// So with a renewal: the profile has been narrowed since.
	r.limit(profile.Condition{Expr: `cn != "device"`, Message: "another name"})
	r.later(c.NotAfter.Sub(r.now()) + day)
	d.signer, d.id = c, "late"
	d.ask("17", d.csr()).failure(t, "2", "another name")
	r.limit()
	d.waits(d.ask("17", d.csr()), "ended")
}

// What would refuse a request when it comes refuses it when a person approves it.
func TestApprovalLooksAgain(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, r *rig) {
		r.configure("", func(c *enrollment.Config) { c.Approval = true })
		d := r.device(deviceKey())
		e := d.waits(d.ask("19", d.csr(r.challenge(of("d1")))), "approval")
		r.change("d1", func(d *pki.Device) { d.Status = pki.DeviceBlocked })
		approve := func() error {
			_, err := r.handler.Approve(t.Context(), operator, "", e.ID)
			return err
		}
		if err := approve(); !fault.Is(err, fault.PolicyRefused) || !strings.Contains(fault.Public(err).Detail, "blocked") {
			t.Errorf("approving for a blocked device: %v", err)
		}
		d.ask("20", poll).failure(t, "2", "blocked")
		r.change("d1", func(d *pki.Device) { d.Status, d.Subject = pki.DeviceExpected, "CN=another" })
		if err := approve(); !fault.Is(err, fault.PolicyRefused) {
			t.Errorf("approving another name: %v", err)
		}
		r.change("d1", func(d *pki.Device) { d.Subject = "CN=device" })
		if err := approve(); err != nil {
			t.Error(err)
		}
		d.ask("20", poll).success(t)
		if n := r.count(); n != 1 {
			t.Errorf("%d certificates", n)
		}
	})
}

// A renewal may need a one-time challenge beside the signature, and a new key.
func TestStrictRenewal(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, func(c *enrollment.Config) {
		c.Renewal = enrollment.RenewalRules{Challenge: true, NewKey: true, Percent: 100}
	})
	d := r.device(deviceKey())
	first := d.named("d1")
	d.ask("17", d.csr(r.challenge(of("d2")))).failure(t, "2") // another device's
	d.ask("17", d.csr()).failure(t, "2", "new key")
	d.key = otherKey()
	d.ask("17", d.csr()).failure(t, "2", "no challenge that is accepted")
	second := d.ask("17", d.csr(r.challenge(of("d1")))).success(t)
	if c, err := r.store.Certificate(t.Context(), fingerprint(second)); err != nil || c.Replaces != fingerprint(first) || c.Device != "d1" {
		t.Errorf("the renewal is %+v, %v", c, err)
	}
}

// Two at once with the same certificate, a device and a thief: one is served, for the other there is a newer one.
func TestRenewalsAtOnce(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, r *rig) {
		d := r.device(deviceKey())
		c := d.named("d1")
		r.later(life(c) * 2 / 3)
		const n = 4
		answers := make(chan string, n)
		for i := range n {
			own := *d
			own.id, own.key = string(rune('a'+i)), newRSAKey(2048)
			m := own.message("17", own.envelope(own.csr()).Bytes())
			m.SenderNonce = scepraw.Random(16)
			go func() {
				_, _, body := r.post(m.Bytes())
				answer, err := scepraw.ReadCertRep(body, own.ra, own.issuer)
				if err != nil {
					answers <- err.Error()
					return
				}
				status, info, text := answer.Status()
				answers <- strings.TrimSpace(status + " " + info + " " + text)
			}()
		}
		got := map[string]int{}
		for range n {
			got[<-answers]++
		}
		if got["0"] != 1 || got["3"] != n-1 {
			t.Errorf("answered %v, want one SUCCESS, and PENDING", got)
		}
		if n := r.count(); n != 2 {
			t.Errorf("%d certificates, want 2", n)
		}
	})
}
