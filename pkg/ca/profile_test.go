package ca_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/certwright/certwright/pkg/store"
)

var administrator = pki.Principal{Name: "token:admin", Role: pki.RoleAdministrator, Source: "192.0.2.2"}

func (b *bench) put(version int, c profile.Config) (pki.ProfileVersion, ca.ProfilePlan, error) {
	v, plan, err := b.ca.PutProfile(b.t.Context(), ca.ProfileChange{Principal: administrator, RequestID: "r1", Config: c, Version: version})
	b.follow()
	return v, plan, err
}

func TestPutProfile(t *testing.T) {
	b := newBench(t, keys.P256)
	web := profile.Config{Name: "web", Kind: profile.KindServer}
	if v, plan, err := b.put(0, web); err != nil || v.Version != 1 || len(plan.Changes) != 2 {
		t.Fatalf("a new profile: %+v, %+v, %v", v, plan.Changes, err)
	}
	first := b.issue("web", "", "www.example.com")
	web.Validity.Max = profile.Duration(24 * time.Hour)
	if v, _, err := b.put(1, web); err != nil || v.Version != 2 || v.CreatedBy != "token:admin" {
		t.Fatalf("changed: %+v, %v", v, err)
	}
	second := b.issue("web", "", "www.example.com")
	if first.Record.ProfileVersion != 1 || second.Record.ProfileVersion != 2 || second.Record.NotAfter.After(b.now.Add(24*time.Hour)) {
		t.Errorf("versions %d, %d on certificates; the second ends %s", first.Record.ProfileVersion, second.Record.ProfileVersion, second.Record.NotAfter)
	}

	head, err := b.store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if v, plan, err := b.put(2, web); err != nil || v.Version != 2 || len(plan.Changes) != 0 {
		t.Errorf("the same again: %+v, %+v, %v", v, plan.Changes, err)
	}
	// What is refused changes nothing either.
	stale := web
	stale.Validity.Max = profile.Duration(48 * time.Hour)
	for version, kind := range map[int]fault.Kind{1: fault.Conflict, 3: fault.Conflict, 0: fault.Conflict} {
		if _, _, err := b.put(version, stale); !fault.Is(err, kind) || !errors.Is(err, store.ErrStale) {
			t.Errorf("on version %d: %v", version, err)
		}
	}
	if _, _, err := b.put(1, profile.Config{Name: "none", Kind: profile.KindServer}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a change of nothing: %v", err)
	}
	if _, _, err := b.put(ca.AnyVersion, profile.Config{Name: "none", Kind: profile.KindServer}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a change of nothing: %v", err)
	}
	stale.MustStaple, stale.NoRevAvail = true, true
	if _, _, err := b.put(2, stale); !fault.Is(err, fault.BadRequest) {
		t.Errorf("a contradiction: %v", err)
	}
	if after, err := b.store.Head(t.Context()); err != nil || after != head {
		t.Errorf("head %+v, %v; want %+v", after, err, head)
	}

	events, _, err := b.store.AuditEvents(t.Context(), store.AuditFilter{Action: audit.ActionProfile}, store.Page{})
	if err != nil || len(events) != 2 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	r, err := audit.Parse(events[0].Bytes)
	if err != nil || r.Actor != "token:admin" || r.Target != "profile/web" || r.Detail["fields"] != "validity.max" || r.Detail["version"] != "2" || r.RequestID != "r1" || r.Source != "192.0.2.2" {
		t.Errorf("audit record %+v, %v", r, err)
	}

	web.Disabled = true
	if _, _, err := b.put(ca.AnyVersion, web); err != nil {
		t.Fatal(err)
	}
	_, err = b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "web", CSR: request(t, newKey(t), "", "www.example.com")})
	want(t, err, fault.PolicyRefused, "disabled")
	_, err = b.ca.Renew(t.Context(), ca.RenewRequest{Principal: someone, Certificate: second.Record.Fingerprint})
	want(t, err, fault.PolicyRefused, "disabled")
}

func TestBuiltinProfilesKeepTheirRights(t *testing.T) {
	b := newBench(t, keys.P256)
	c := profile.Builtins()[0]
	c.Validity.Max, c.Validity.Default = profile.Duration(48*time.Hour), profile.Duration(time.Hour)
	if v, _, err := b.put(1, c); err != nil || !v.Builtin || v.Version != 2 {
		t.Fatalf("%+v, %v", v, err)
	}
	if i := b.issue("server", "", "www.example.com"); i.Record.NotAfter.After(b.now.Add(time.Hour)) {
		t.Errorf("it ends %s", i.Record.NotAfter)
	}
	c.Kind = profile.KindClient
	_, _, err := b.put(2, c)
	want(t, err, fault.PolicyRefused, "cannot change")
	for _, name := range []string{"root", "issuing", "ocsp", "ra", "https"} {
		all := profile.Builtins()
		internal := all[slices.IndexFunc(all, func(c profile.Config) bool { return c.Name == name })]
		internal.Description = "mine"
		if _, _, err := b.put(0, internal); !fault.Is(err, fault.PolicyRefused) {
			t.Errorf("putting %s: %v", name, err)
		}
	}
}

func TestEditorsOfOneProfile(t *testing.T) {
	b := newBench(t, keys.P256)
	if _, _, err := b.put(0, profile.Config{Name: "web", Kind: profile.KindServer}); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			c := profile.Config{Name: "web", Kind: profile.KindServer, Description: fmt.Sprint("editor ", i)}
			_, _, errs[i] = b.ca.PutProfile(t.Context(), ca.ProfileChange{Principal: administrator, Config: c, Version: 1})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, store.ErrStale) || !strings.Contains(err.Error(), "somebody else") {
			t.Errorf("an editor that lost: %v", err)
		}
	}
	if history, err := b.store.ProfileHistory(t.Context(), "web"); won != 1 || err != nil || len(history) != 2 {
		t.Errorf("%d editors won, %d versions, %v", won, len(history), err)
	}
}

// TestDryRunIsWhatIssuingMakes: but for what a certificate that was not issued must not have.
func TestDryRunIsWhatIssuingMakes(t *testing.T) {
	b := newBench(t, keys.P256)
	k := newKey(t)
	r := ca.Request{Principal: someone, Protocol: "rest", Profile: "server", CSR: request(t, k, "www.example.com", "www.example.com", "example.com"), Validity: time.Hour}
	head, err := b.store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run, err := b.ca.DryRun(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := b.store.Head(t.Context()); err != nil || after != head {
		t.Errorf("a dry run left something: head %+v, %v; want %+v", after, err, head)
	}
	issued, err := b.ca.Issue(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	real, err := x509.ParseCertificate(issued.Record.DER)
	if err != nil {
		t.Fatal(err)
	}
	dry := run.Certificate
	if !bytes.Equal(dry.RawSubject, real.RawSubject) || !dry.NotAfter.Equal(real.NotAfter) || !dry.NotBefore.Equal(real.NotBefore) || !bytes.Equal(dry.RawSubjectPublicKeyInfo, real.RawSubjectPublicKeyInfo) {
		t.Errorf("a dry run of %s, %s is %s, %s", real.Subject, real.NotAfter, dry.Subject, dry.NotAfter)
	}
	for i, e := range real.Extensions {
		same := dry.Extensions[i].Id.Equal(e.Id) && dry.Extensions[i].Critical == e.Critical && bytes.Equal(dry.Extensions[i].Value, e.Value)
		if isAKI := e.Id.String() == "2.5.29.35"; same == isAKI {
			t.Errorf("extension %s: same %v", e.Id, same)
		}
	}
	if string(dry.SerialNumber.Bytes()) != "DRY-RUN-NOT-REAL" || !strings.Contains(dry.Issuer.CommonName, "not issued") || bytes.Equal(dry.RawIssuer, real.RawIssuer) {
		t.Errorf("the dry run could be taken for real: %s by %s", dry.SerialNumber, dry.Issuer)
	}
	if dry.CheckSignatureFrom(run.Issuer) == nil {
		t.Error("the issuer has signed a dry run")
	}
	if run.Issuer.Subject.String() != real.Issuer.String() {
		t.Errorf("it would be signed by %s", run.Issuer.Subject)
	}

	// A configuration that is not in force, and the refusals of issuing.
	c := profile.Config{Name: "short", Kind: profile.KindServer, Validity: profile.ValidityRules{Max: profile.Duration(time.Minute)}}
	_, err = b.ca.DryRun(t.Context(), r, &c)
	want(t, err, fault.PolicyRefused, "at the most")
	r.Validity = 0
	if run, err := b.ca.DryRun(t.Context(), r, &c); err != nil || run.Certificate.NotAfter.After(b.now.Add(time.Minute)) {
		t.Errorf("with a configuration: %v", err)
	}
	c.MustStaple, c.NoOCSPAddress = true, true
	_, err = b.ca.DryRun(t.Context(), r, &c)
	want(t, err, fault.BadRequest, "staple")
	_, err = b.ca.DryRun(t.Context(), ca.Request{Profile: "nothing", CSR: r.CSR}, nil)
	want(t, err, fault.NotFound, "nothing")
	_, err = b.ca.DryRun(t.Context(), ca.Request{Profile: "server"}, nil)
	want(t, err, fault.BadRequest, "signing request")
	_, err = b.ca.DryRun(t.Context(), ca.Request{Profile: "server", Issuer: "root", CSR: r.CSR}, nil)
	want(t, err, fault.PolicyRefused, "root")
	_, err = b.ca.Revoke(t.Context(), ca.StatusRequest{Principal: someone, Certificate: issued.Record.Fingerprint, Reason: pki.KeyCompromise})
	if err != nil {
		t.Fatal(err)
	}
	b.follow()
	_, err = b.ca.DryRun(t.Context(), r, nil)
	want(t, err, fault.BadPublicKey, "blocked")
}

// TestConditionsAndTemplatesWhenIssuing: who asks reaches the profile, and a renewal keeps the names.
func TestConditionsAndTemplatesWhenIssuing(t *testing.T) {
	b := newBench(t, keys.P256)
	if _, _, err := b.put(0, profile.Config{
		Name: "sensors", Kind: profile.KindDevice,
		Subject: profile.SubjectRules{Templates: []profile.FixedAttribute{{Type: "CN", Value: "{device}.sensors"}}},
		SANs:    &profile.SANRules{URI: &profile.URIRules{}, Templates: []string{"URI:urn:acme:{device}"}, OnlyTemplates: true},
		Conditions: []profile.Condition{
			{Expr: `renewal || requester == "token:someone" && role == "operator" && protocol == "rest"`, Message: "someone"},
			{Expr: `source == "192.0.2.1" && device.startsWith("sensor-")`, Message: "a sensor"},
		},
	}); err != nil {
		t.Fatal(err)
	}
	r := ca.Request{Principal: someone, Protocol: "rest", Profile: "sensors", Device: "sensor-17", CSR: request(t, newKey(t), "whatever", "www.example.com")}
	i, err := b.ca.Issue(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if i.Record.Subject != "CN=sensor-17.sensors" || !slices.Equal(i.Record.SANs, []string{"URI:urn:acme:sensor-17"}) {
		t.Errorf("%s, %s", i.Record.Subject, i.Record.SANs)
	}
	r.Device = "pump-1"
	_, err = b.ca.Issue(t.Context(), r)
	want(t, err, fault.PolicyRefused, "a sensor")
	r.Device, r.Principal.Name = "sensor-17", "token:other"
	_, err = b.ca.Issue(t.Context(), r)
	want(t, err, fault.PolicyRefused, "someone")
	again, err := b.ca.Renew(t.Context(), ca.RenewRequest{Principal: r.Principal, Protocol: "rest", Certificate: i.Record.Fingerprint})
	if err != nil {
		t.Fatal(err)
	}
	if again.Record.Subject != i.Record.Subject || !slices.Equal(again.Record.SANs, i.Record.SANs) {
		t.Errorf("renewed as %s, %s", again.Record.Subject, again.Record.SANs)
	}
}
