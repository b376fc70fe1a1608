package enrollment_test

import (
	"crypto"
	"encoding/asn1"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

var (
	policyNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ownKey    = [32]byte{1}
	newKey    = [32]byte{2}
)

const day = 24 * time.Hour

// world is what the store and a webhook would say; it answers what a verdict needs.
type world struct {
	devices    map[string]*pki.Device
	newer      time.Time
	standing   bool
	keyDevices []string
	webhook    *enrollment.WebhookAnswer
}

// settle decides as the front-ends do. asked are the needs, in their order.
func (w *world) settle(t *testing.T, f *enrollment.Facts) (v enrollment.Verdict, asked []enrollment.Need) {
	t.Helper()
	f.Devices, f.Newer, f.Standing = map[string]*pki.Device{}, map[enrollment.Line]time.Time{}, map[enrollment.Line]bool{}
	for range 20 {
		if v = enrollment.Decide(f); v.Outcome != 0 {
			return v, asked
		}
		asked = append(asked, v.Need)
		switch v.Need {
		case enrollment.NeedDevice:
			f.Devices[v.Device] = w.devices[v.Device]
		case enrollment.NeedNewer:
			f.Newer[v.Line] = w.newer
		case enrollment.NeedStanding:
			f.Standing[v.Line] = w.standing
		case enrollment.NeedKeyDevices:
			f.KeyDevices = append([]string{}, w.keyDevices...)
		case enrollment.NeedWebhook:
			if f.Webhook = w.webhook; f.Webhook == nil {
				t.Fatal("the webhook was asked")
			}
		default:
			t.Fatalf("it needs %d", v.Need)
		}
	}
	t.Fatal("it does not come to an end")
	return v, asked
}

func names(cn string, sans ...string) ([]der.Attribute, []der.GeneralName) {
	list, err := profile.ParseSANs(sans...)
	if err != nil {
		panic(err)
	}
	if cn == "" {
		return nil, list
	}
	return []der.Attribute{{Type: pki.OIDCommonName, Value: cn}}, list
}

// first is a first enrollment of CN=d1 with a one-time challenge for the device d1.
func first() *enrollment.Facts {
	f := &enrollment.Facts{
		Protocol: "scep", IssuerID: 1, Now: policyNow, Digest: crypto.SHA256, SignerKey: ownKey, SelfSigned: true, Key: ownKey, Challenge: true,
		OneTime: &pki.Challenge{ID: "C", Point: "default", Device: "d1", ExpiresAt: policyNow.Add(day)},
	}
	f.Subject, f.SANs = names("d1")
	return f
}

// renewal is one by a certificate of d1 with two thirds of its life behind it.
func renewal() *enrollment.Facts {
	f := first()
	f.SelfSigned, f.Challenge, f.OneTime = false, false, nil
	f.Signer = &enrollment.Signer{Certificate: &pki.Certificate{
		IssuerID: 1, Fingerprint: pki.Fingerprint{7}, SPKIHash: ownKey, Profile: "device", Protocol: "scep", Requester: "scep:default", Device: "d1",
		NotBefore: policyNow.Add(-60 * day), NotAfter: policyNow.Add(30 * day),
	}}
	f.Signer.Subject, f.Signer.SANs = names("d1")
	return f
}

// ended is a renewal by a certificate that ended so long ago.
func ended(ago time.Duration) *enrollment.Facts {
	f := renewal()
	f.Signer.NotBefore, f.Signer.NotAfter = policyNow.Add(-ago-90*day), policyNow.Add(-ago)
	return f
}

// TestPolicy holds each rule of docs/policy.md against a request that it is about.
func TestPolicy(t *testing.T) {
	t.Parallel()
	type facts = enrollment.Facts
	device := func(edit func(*pki.Device)) map[string]*pki.Device {
		d := &pki.Device{ID: "d1", Status: pki.DeviceEnrolled, Group: "pumps"}
		if edit != nil {
			edit(d)
		}
		return map[string]*pki.Device{"d1": d}
	}
	blocked := device(func(d *pki.Device) { d.Status = pki.DeviceBlocked })
	legacy := func(s enrollment.Switch) enrollment.Config {
		return enrollment.Config{Legacy: map[enrollment.Switch]enrollment.Date{s: {Time: policyNow}}}
	}
	grace := enrollment.Config{Return: enrollment.ReturnRules{Policy: enrollment.ReturnGrace}}
	hook := func(when enrollment.WebhookWhen) enrollment.Config {
		return enrollment.Config{
			Challenges: []enrollment.ChallengeKind{enrollment.ChallengeOneTime, enrollment.ChallengeWebhook},
			Webhook:    &enrollment.WebhookRules{URL: "https://broker.example.com/", When: when},
		}
	}
	with := func(f *facts, edit func(*facts)) *facts { edit(f); return f }
	const issue, wait = "issue", "wait"
	for name, c := range map[string]struct {
		config enrollment.Config
		facts  *facts
		world  world
		want   string // "issue", "wait", or a reason; "hidden REASON"
		check  func(enrollment.Verdict) bool
	}{
		// Section 1.
		"held signer, though a challenge comes with it": {facts: with(first(), func(f *facts) {
			f.Signer, f.SelfSigned = renewal().Signer, false
			f.Signer.Revocation = &pki.Revocation{Status: pki.OnHold}
		}), want: "revoked"},
		"revoked signer that ended, within grace": {config: grace, facts: with(ended(day), func(f *facts) { f.Signer.Revocation = &pki.Revocation{Status: pki.Revoked} }), want: "revoked"},
		"signer of a CA key that is not good":     {facts: with(renewal(), func(f *facts) { f.Signer.Void = true }), want: "hidden challenge"},
		"signer of a CA key that is not good, with a challenge": {facts: with(first(), func(f *facts) {
			f.Signer, f.SelfSigned = renewal().Signer, false
			f.Signer.Void = true
		}), want: issue, check: func(v enrollment.Verdict) bool { return !v.Renewal && v.UseChallenge }},
		"blocked signer":                    {facts: renewal(), world: world{devices: blocked}, want: "device-blocked"},
		"retired signer":                    {facts: renewal(), world: world{devices: device(func(d *pki.Device) { d.Status = pki.DeviceRetired })}, want: "device-blocked"},
		"captured envelope":                 {facts: with(first(), func(f *facts) { f.SignerKey = newKey }), want: "hidden challenge"},
		"signed by a certificate of others": {facts: with(first(), func(f *facts) { f.SelfSigned = false }), want: "hidden challenge"},

		// Section 2.
		"renewal with the same key": {facts: renewal(), world: world{devices: device(nil)}, want: issue, check: func(v enrollment.Verdict) bool {
			return v.Renewal && v.Device == "d1" && v.Profile == "device" && v.MaxValidity == 0 && v.Subject == nil && !v.Return
		}},
		"renewal with a new key":           {facts: with(renewal(), func(f *facts) { f.Key = newKey }), want: issue, check: func(v enrollment.Verdict) bool { return v.Renewal }},
		"renewal, other names asked for":   {facts: with(renewal(), func(f *facts) { f.Subject, _ = names("d2") }), want: issue, check: func(v enrollment.Verdict) bool { return v.Subject == nil }},
		"another issuer":                   {facts: with(renewal(), func(f *facts) { f.Signer.IssuerID = 2 }), want: "profile"},
		"another profile":                  {facts: with(renewal(), func(f *facts) { f.Signer.Profile, f.Signer.Protocol, f.Signer.Requester = "server", "rest", "token:x" }), want: "profile"},
		"another profile of another point": {facts: with(renewal(), func(f *facts) { f.Signer.Profile, f.Signer.Requester = "phone", "scep:phones" }), want: "profile"},
		"another profile, given here":      {facts: with(renewal(), func(f *facts) { f.Signer.Profile = "phone" }), want: issue, check: func(v enrollment.Verdict) bool { return v.Profile == "phone" }},
		"another profile, approved":        {facts: with(renewal(), func(f *facts) { f.Signer.Profile, f.Signer.Requester = "phone", "token:op" }), want: issue},
		"another profile, with a challenge": {facts: with(first(), func(f *facts) {
			f.Signer, f.SelfSigned = renewal().Signer, false
			f.Signer.Profile, f.Signer.Protocol = "server", "rest"
		}), want: issue, check: func(v enrollment.Verdict) bool { return !v.Renewal && v.Profile == "device" }},
		"too early": {facts: with(renewal(), func(f *facts) { f.Signer.NotAfter = policyNow.Add(61 * day) }), want: "not-yet-renewable"},
		"too early, with a challenge": {facts: with(first(), func(f *facts) {
			f.Signer, f.SelfSigned = renewal().Signer, false
			f.Signer.NotAfter = policyNow.Add(61 * day)
		}), want: issue, check: func(v enrollment.Verdict) bool { return !v.Renewal && v.UseChallenge }},
		"too early, with an old challenge": {facts: with(renewal(), func(f *facts) {
			f.Signer.NotAfter, f.Challenge = policyNow.Add(61*day), true
		}), want: "not-yet-renewable"},
		"SHA-1":                            {facts: with(renewal(), func(f *facts) { f.Digest = crypto.SHA1 }), want: "algorithm"},
		"SHA-1 with its switch":            {config: legacy(enrollment.LegacySHA1Renewal), facts: with(renewal(), func(f *facts) { f.Digest = crypto.SHA1 }), want: issue},
		"renewal.newKey, the same key":     {config: enrollment.Config{Renewal: enrollment.RenewalRules{NewKey: true}}, facts: renewal(), want: "key"},
		"renewal.newKey, a new key":        {config: enrollment.Config{Renewal: enrollment.RenewalRules{NewKey: true}}, facts: with(renewal(), func(f *facts) { f.Key = newKey }), want: issue},
		"not the newest":                   {facts: renewal(), world: world{newer: policyNow.Add(-day)}, want: wait},
		"not the newest, with a challenge": {facts: with(renewal(), func(f *facts) { f.Challenge, f.OneTime = true, first().OneTime }), world: world{newer: policyNow.Add(-day)}, want: issue},
		"renewal.challenge, none":          {config: enrollment.Config{Renewal: enrollment.RenewalRules{Challenge: true}}, facts: renewal(), want: "hidden challenge"},
		"renewal.challenge, one": {config: enrollment.Config{Renewal: enrollment.RenewalRules{Challenge: true}}, facts: with(renewal(), func(f *facts) { f.Challenge, f.OneTime = true, first().OneTime }), want: issue, check: func(v enrollment.Verdict) bool {
			return v.Renewal && v.UseChallenge
		}},
		"renewal.challenge, another device's": {config: enrollment.Config{Renewal: enrollment.RenewalRules{Challenge: true}}, facts: with(renewal(), func(f *facts) {
			f.Challenge, f.OneTime = true, first().OneTime
			f.OneTime.Device = "d2"
		}), want: "hidden challenge"},
		"renewal.challenge, not the newest": {config: enrollment.Config{Renewal: enrollment.RenewalRules{Challenge: true}}, facts: renewal(), world: world{newer: policyNow}, want: "hidden challenge"},
		"renewal of a signer without device": {config: enrollment.Config{Device: enrollment.DeviceRules{Identity: enrollment.IdentityCommonName}}, facts: with(renewal(), func(f *facts) { f.Signer.Device = "" }), want: issue, check: func(v enrollment.Verdict) bool {
			return v.Device == "d1"
		}},
		"renewal of a signer without device, which is blocked": {
			config: enrollment.Config{Device: enrollment.DeviceRules{Identity: enrollment.IdentityCommonName}}, facts: with(renewal(), func(f *facts) { f.Signer.Device = "" }),
			world: world{devices: blocked}, want: "device-blocked",
		},

		// Section 3.
		"ended":                   {facts: ended(day), want: wait},
		"ended, with a challenge": {facts: with(ended(day), func(f *facts) { f.Challenge, f.OneTime = true, first().OneTime }), want: issue, check: func(v enrollment.Verdict) bool { return !v.Renewal && !v.Return }},
		"ended, refused":          {config: enrollment.Config{Return: enrollment.ReturnRules{Policy: enrollment.ReturnRefuse}}, facts: ended(day), want: "ended"},
		"ended, within grace": {config: grace, facts: ended(29 * day), world: world{devices: device(func(d *pki.Device) { d.Returns = 2 })}, want: issue, check: func(v enrollment.Verdict) bool {
			return v.Return && v.Renewal && v.MaxValidity == 7*day
		}},
		"ended, within grace, without a device": {config: grace, facts: with(ended(day), func(f *facts) { f.Signer.Device = "" }), want: issue, check: func(v enrollment.Verdict) bool { return v.Return && v.Device == "" }},
		"ended, on the last second of grace":    {config: grace, facts: ended(30 * day), want: issue},
		"ended, beyond grace":                   {config: grace, facts: ended(30*day + time.Second), want: wait, check: func(v enrollment.Verdict) bool { return !v.Return }},
		"ended, tried too often":                {config: grace, facts: ended(day), world: world{devices: device(func(d *pki.Device) { d.Returns = 3 })}, want: wait, check: func(v enrollment.Verdict) bool { return v.Reason == enrollment.ReasonReturnBudget }},
		"ended, not the newest":                 {config: grace, facts: ended(day), world: world{newer: policyNow}, want: wait, check: func(v enrollment.Verdict) bool { return !v.Return }},
		"ended, return.newKey":                  {config: enrollment.Config{Return: enrollment.ReturnRules{Policy: enrollment.ReturnGrace, NewKey: true}}, facts: ended(day), want: "key"},
		"ended, blocked, within grace":          {config: grace, facts: ended(day), world: world{devices: blocked}, want: "device-blocked"},
		"ended, issuer compromised":             {config: grace, facts: with(ended(day), func(f *facts) { f.Signer.Void = true }), want: "hidden challenge"},
		"ended, SHA-1, within grace":            {config: grace, facts: with(ended(day), func(f *facts) { f.Digest = crypto.SHA1 }), want: "algorithm"},

		// Section 4.
		"first enrollment": {facts: first(), want: issue, check: func(v enrollment.Verdict) bool {
			return !v.Renewal && v.UseChallenge && v.Device == "d1" && v.Profile == "device" && v.Credential == enrollment.ByOneTime
		}},
		"no challenge":               {facts: with(first(), func(f *facts) { f.Challenge, f.OneTime = false, nil }), want: "hidden challenge"},
		"unknown challenge":          {facts: with(first(), func(f *facts) { f.OneTime = nil }), want: "hidden challenge"},
		"wrong secret":               {facts: with(first(), func(f *facts) { f.OneTime, f.WrongSecret = nil, true }), want: "hidden challenge"},
		"expired challenge":          {facts: with(first(), func(f *facts) { f.OneTime.ExpiresAt = policyNow }), want: "hidden challenge"},
		"used challenge":             {facts: with(first(), func(f *facts) { f.OneTime.UsedAt = policyNow }), want: "hidden challenge"},
		"revoked challenge":          {facts: with(first(), func(f *facts) { f.OneTime.RevokedAt = policyNow }), want: "hidden challenge"},
		"challenge of another point": {facts: with(first(), func(f *facts) { f.OneTime.Point = "phones" }), want: "hidden challenge"},
		"one-time is not accepted":   {config: enrollment.Config{Challenges: []enrollment.ChallengeKind{enrollment.ChallengeStatic}}, facts: first(), want: "hidden challenge"},
		"static":                     {facts: with(first(), func(f *facts) { f.OneTime, f.Static = nil, true }), want: issue, check: func(v enrollment.Verdict) bool { return v.Device == "" && !v.UseChallenge }},
		"static is not accepted":     {config: enrollment.Config{Challenges: []enrollment.ChallengeKind{enrollment.ChallengeOneTime}}, facts: with(first(), func(f *facts) { f.OneTime, f.Static = nil, true }), want: "hidden challenge"},
		"challenge for a profile":    {facts: with(first(), func(f *facts) { f.OneTime.Profile = "phone" }), want: issue, check: func(v enrollment.Verdict) bool { return v.Profile == "phone" }},
		"signed by another subject, another key": {facts: with(renewal(), func(f *facts) {
			f.Challenge, f.OneTime, f.Key = true, first().OneTime, newKey
			f.Signer.NotAfter = policyNow.Add(61 * day)
			f.Subject, _ = names("d2")
		}), want: "not-yet-renewable"},
		"signed by another device": {facts: with(renewal(), func(f *facts) {
			f.Challenge, f.OneTime = true, first().OneTime
			f.OneTime.Device, f.Signer.NotAfter = "d2", policyNow.Add(61*day)
		}), want: "not-yet-renewable"},
		"webhook says yes": {config: hook(""), facts: with(first(), func(f *facts) { f.OneTime = nil }), world: world{webhook: &enrollment.WebhookAnswer{Allow: true, Device: "d1", Validity: day}}, want: issue, check: func(v enrollment.Verdict) bool {
			return v.Credential == enrollment.ByWebhook && v.Device == "d1" && v.MaxValidity == day
		}},
		"webhook says no":                  {config: hook(""), facts: with(first(), func(f *facts) { f.OneTime = nil }), world: world{webhook: &enrollment.WebhookAnswer{Text: "no"}}, want: "hidden webhook"},
		"webhook, without a challenge":     {config: hook(""), facts: with(first(), func(f *facts) { f.Challenge, f.OneTime = false, nil }), want: "hidden challenge"},
		"webhook is not asked of one-time": {config: hook(""), facts: first(), want: issue},
		"webhook is not accepted":          {config: enrollment.Config{Webhook: &enrollment.WebhookRules{URL: "https://broker.example.com/"}}, facts: with(first(), func(f *facts) { f.OneTime = nil }), want: "hidden challenge"},
		"webhook's device is blocked":      {config: hook(""), facts: with(first(), func(f *facts) { f.OneTime = nil }), world: world{devices: blocked, webhook: &enrollment.WebhookAnswer{Allow: true, Device: "d1"}}, want: "device-blocked"},
		"webhook's names": {config: hook(""), facts: with(first(), func(f *facts) { f.OneTime = nil }), world: world{webhook: &enrollment.WebhookAnswer{Allow: true, Subject: "CN=other"}}, want: issue, check: func(v enrollment.Verdict) bool {
			return len(v.Subject) == 1 && v.Subject[0].Value == "other"
		}},
		"webhook's names against the template": {
			config: func() enrollment.Config { c := hook(""); c.Subject = "CN={device}"; return c }(), facts: with(first(), func(f *facts) { f.OneTime = nil }),
			world: world{webhook: &enrollment.WebhookAnswer{Allow: true, Device: "d1", Subject: "CN=other"}}, want: "names",
		},

		// Section 5.
		"blocked device with a challenge": {facts: first(), world: world{devices: blocked}, want: "device-blocked"},
		"not registered":                  {config: enrollment.Config{Device: enrollment.DeviceRules{Registered: true}}, facts: first(), want: "device-unknown"},
		"registered":                      {config: enrollment.Config{Device: enrollment.DeviceRules{Registered: true}}, facts: first(), world: world{devices: device(func(d *pki.Device) { d.Status = pki.DeviceExpected })}, want: issue},
		"only registered, no device":      {config: enrollment.Config{Device: enrollment.DeviceRules{Registered: true}}, facts: with(first(), func(f *facts) { f.OneTime.Device = "" }), want: "device-unknown"},
		"renewal, not registered":         {config: enrollment.Config{Device: enrollment.DeviceRules{Registered: true}}, facts: renewal(), want: "device-unknown"},
		"identity": {config: enrollment.Config{Device: enrollment.DeviceRules{Identity: enrollment.IdentityDNSName}}, facts: with(first(), func(f *facts) {
			f.OneTime.Device = ""
			f.Subject, f.SANs = names("", "URI:urn:x", "DNS:D1.example.com", "DNS:d2.example.com")
		}), want: issue, check: func(v enrollment.Verdict) bool { return v.Device == "d1.example.com" }},
		"identity is not asked when the challenge says it": {config: enrollment.Config{Device: enrollment.DeviceRules{Identity: enrollment.IdentityURI}}, facts: first(), want: issue, check: func(v enrollment.Verdict) bool { return v.Device == "d1" }},
		"identity finds nothing":                           {config: enrollment.Config{Device: enrollment.DeviceRules{Identity: enrollment.IdentityURI}}, facts: with(first(), func(f *facts) { f.OneTime.Device = "" }), want: "names"},
		"identity is none":                                 {config: enrollment.Config{Device: enrollment.DeviceRules{Identity: enrollment.IdentityCommonName}}, facts: with(first(), func(f *facts) { f.OneTime.Device = ""; f.Subject, _ = names("d1\x01") }), want: "names"},
		"identity of another than the signer": {config: enrollment.Config{Device: enrollment.DeviceRules{Identity: enrollment.IdentityCommonName}}, facts: with(renewal(), func(f *facts) {
			f.Challenge, f.Static, f.Signer.NotAfter = true, true, policyNow.Add(61*day)
			f.Subject, _ = names("d2")
		}), want: "names"},
		"device by its key":                 {facts: with(first(), func(f *facts) { f.OneTime.Device = "" }), world: world{keyDevices: []string{"d1"}}, want: issue, check: func(v enrollment.Verdict) bool { return v.Device == "d1" }},
		"device by its key, blocked":        {facts: with(first(), func(f *facts) { f.OneTime, f.Static = nil, true }), world: world{keyDevices: []string{"d1"}, devices: blocked}, want: "device-blocked"},
		"several devices by their key":      {facts: with(first(), func(f *facts) { f.OneTime.Device = "" }), world: world{keyDevices: []string{"d1", "d2"}}, want: "key"},
		"another device's key":              {facts: first(), world: world{keyDevices: []string{"d2"}}, want: "key"},
		"another device's key, by switch":   {config: legacy(enrollment.LegacySharedKeys), facts: first(), world: world{keyDevices: []string{"d2"}}, want: issue},
		"another device's key in a renewal": {facts: with(renewal(), func(f *facts) { f.Key = newKey }), world: world{keyDevices: []string{"d1", "d2"}}, want: "key"},
		"shared key that is renewed":        {facts: renewal(), world: world{keyDevices: []string{"d1", "d2"}}, want: issue},

		// Section 6.
		"template": {config: enrollment.Config{Subject: "CN={device},OU={group}"}, facts: with(first(), func(f *facts) {
			f.Subject = append(f.Subject, der.Attribute{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "pumps"})
		}), world: world{devices: device(nil)}, want: issue, check: func(v enrollment.Verdict) bool { return len(v.Subject) == 2 }},
		"template, other names":        {config: enrollment.Config{Subject: "CN={device},OU={group}"}, facts: first(), world: world{devices: device(nil)}, want: "names"},
		"template, nothing known":      {config: enrollment.Config{Subject: "CN={device},OU={owner}"}, facts: first(), world: world{devices: device(nil)}, want: "names"},
		"record":                       {facts: first(), world: world{devices: device(func(d *pki.Device) { d.Subject, d.SANs = "CN=d1", []string{"DNS:d1.example.com"} })}, want: issue, check: func(v enrollment.Verdict) bool { return len(v.SANs) == 1 }},
		"record, other names":          {facts: first(), world: world{devices: device(func(d *pki.Device) { d.Subject = "CN=d2" })}, want: "names"},
		"record against challenge":     {facts: with(first(), func(f *facts) { f.OneTime.Subject = "CN=d1" }), world: world{devices: device(func(d *pki.Device) { d.Subject = "CN=d2" })}, want: "names"},
		"challenge's names":            {facts: with(first(), func(f *facts) { f.OneTime.Subject = "CN=d3" }), want: "names"},
		"renewal against the record":   {facts: renewal(), world: world{devices: device(func(d *pki.Device) { d.Subject = "CN=d2" })}, want: "names"},
		"renewal without a bound name": {facts: renewal(), world: world{devices: device(func(d *pki.Device) { d.Subject, d.SANs = "CN=d1", []string{"DNS:d1.example.com"} })}, want: "names"},
		"renewal with what the profile adds": {facts: with(renewal(), func(f *facts) {
			organization := asn1.ObjectIdentifier{2, 5, 4, 10}
			f.Signer.Subject = append(f.Signer.Subject, der.Attribute{Type: organization, Value: "Example"})
			_, f.Signer.SANs = names("", "DNS:d1.devices.example.com")
			made, madeSANs := f.Signer.Subject[1:], f.Signer.SANs
			f.Signer.Makes = func(b enrollment.Binding) ([]der.Attribute, []der.GeneralName) {
				return append(slices.Clone(b.Subject), made...), madeSANs
			}
		}), world: world{devices: device(func(d *pki.Device) { d.Subject = "CN=d1" })}, want: issue},
		"renewal with what nobody binds": {facts: with(renewal(), func(f *facts) {
			_, f.Signer.SANs = names("", "DNS:other.example.com")
		}), world: world{devices: device(func(d *pki.Device) { d.Subject = "CN=d1" })}, want: "names"},

		// Section 7.
		"replacement":                             {facts: first(), world: world{standing: true, devices: device(nil)}, want: issue, check: func(v enrollment.Verdict) bool { return !v.Revoke }},
		"replacement, revoke":                     {config: enrollment.Config{Replacement: enrollment.ReplaceRevoke}, facts: first(), world: world{standing: true}, want: issue, check: func(v enrollment.Verdict) bool { return v.Revoke }},
		"nothing to replace, revoke":              {config: enrollment.Config{Replacement: enrollment.ReplaceRevoke}, facts: first(), want: issue, check: func(v enrollment.Verdict) bool { return !v.Revoke }},
		"replacement, pending":                    {config: enrollment.Config{Replacement: enrollment.ReplacePending}, facts: first(), world: world{standing: true}, want: wait},
		"replacement, refuse":                     {config: enrollment.Config{Replacement: enrollment.ReplaceRefuse}, facts: first(), world: world{standing: true}, want: "replacement"},
		"renewal is no replacement":               {config: enrollment.Config{Replacement: enrollment.ReplaceRefuse}, facts: renewal(), world: world{standing: true}, want: issue},
		"approval":                                {config: enrollment.Config{Approval: true}, facts: first(), want: wait, check: func(v enrollment.Verdict) bool { return v.UseChallenge }},
		"approval of a renewal":                   {config: enrollment.Config{Approval: true}, facts: renewal(), want: issue},
		"webhook asked always":                    {config: hook(enrollment.WhenAlways), facts: renewal(), world: world{webhook: &enrollment.WebhookAnswer{}}, want: "webhook"},
		"webhook asked always, of another device": {config: hook(enrollment.WhenAlways), facts: renewal(), world: world{webhook: &enrollment.WebhookAnswer{Allow: true, Device: "d2"}}, want: "webhook"},
		"webhook asked always, says yes":          {config: hook(enrollment.WhenAlways), facts: first(), world: world{webhook: &enrollment.WebhookAnswer{Allow: true}}, want: issue},

		// Section 8.
		"approved": {config: enrollment.Config{Approval: true}, facts: with(first(), func(f *facts) {
			f.OneTime.UsedAt = policyNow
			f.Waited = &pki.Enrollment{Challenge: "C", Device: "d1", Profile: "phone"}
		}), want: issue, check: func(v enrollment.Verdict) bool { return v.Profile == "phone" && !v.UseChallenge }},
		"approved, blocked meanwhile":         {facts: with(first(), func(f *facts) { f.Waited = &pki.Enrollment{Challenge: "C", Device: "d1", Profile: "device"} }), world: world{devices: blocked}, want: "device-blocked"},
		"approved, bound otherwise meanwhile": {facts: with(first(), func(f *facts) { f.Waited = &pki.Enrollment{Challenge: "C", Device: "d1", Profile: "device"} }), world: world{devices: device(func(d *pki.Device) { d.Subject = "CN=d2" })}, want: "names"},
		"approved return": {config: grace, facts: with(ended(200*day), func(f *facts) {
			f.Waited = &pki.Enrollment{Replaces: f.Signer.Fingerprint, Device: "d1", Profile: "device"}
		}), world: world{newer: policyNow}, want: issue, check: func(v enrollment.Verdict) bool { return v.Renewal && v.MaxValidity == 0 && !v.Return }},
		"approved, revoked meanwhile": {facts: with(ended(day), func(f *facts) {
			f.Signer.Revocation = &pki.Revocation{Status: pki.Revoked}
			f.Waited = &pki.Enrollment{Replaces: f.Signer.Fingerprint, Device: "d1", Profile: "device"}
		}), want: "revoked"},
		"approved, issuer compromised meanwhile": {facts: with(ended(day), func(f *facts) {
			f.Signer.Void = true
			f.Waited = &pki.Enrollment{Replaces: f.Signer.Fingerprint, Device: "d1", Profile: "device"}
		}), want: "revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.facts.Point = enrollment.PointOf(c.config)
			got, _ := c.world.settle(t, c.facts)
			said := got.Outcome.String()
			if got.Outcome == enrollment.Refuse {
				if said = string(got.Reason); got.Hidden {
					said = "hidden " + said
				}
				if !slices.Contains(enrollment.Reasons(), got.Reason) || got.Text == "" {
					t.Errorf("refused for %q, %q", got.Reason, got.Text)
				}
			}
			if said != c.want {
				t.Errorf("got %s (%s), want %s", said, got.Text, c.want)
			} else if c.check != nil && !c.check(got) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// What has a price is asked only when it matters.
func TestPolicyNeeds(t *testing.T) {
	t.Parallel()
	static := first()
	static.OneTime, static.Static = nil, true
	shared := enrollment.Config{Legacy: map[enrollment.Switch]enrollment.Date{enrollment.LegacySharedKeys: {Time: policyNow}}}
	for name, c := range map[string]struct {
		config enrollment.Config
		facts  *enrollment.Facts
		want   []enrollment.Need
	}{
		"first":               {facts: first(), want: []enrollment.Need{enrollment.NeedDevice, enrollment.NeedKeyDevices}},
		"first, shared keys":  {config: shared, facts: first(), want: []enrollment.Need{enrollment.NeedDevice}},
		"static":              {facts: static, want: []enrollment.Need{enrollment.NeedKeyDevices}},
		"static, shared keys": {config: shared, facts: static},
		"renewal":             {facts: renewal(), want: []enrollment.Need{enrollment.NeedDevice, enrollment.NeedNewer}},
	} {
		c.facts.Point = enrollment.PointOf(c.config)
		w := world{}
		if v, asked := w.settle(t, c.facts); v.Outcome != enrollment.Issue || !slices.Equal(asked, c.want) {
			t.Errorf("%s: %s (%s), having asked for %v, want %v", name, v.Outcome, v.Text, asked, c.want)
		}
	}
}

func TestDeviceID(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "Sensor 17", "urn:uuid:1", "é", strings.Repeat("x", 200)} {
		if err := enrollment.CheckDeviceID(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", " a", "a ", "a\n", "\x7f", "\xff", "a\u0085b", strings.Repeat("x", 201)} {
		if enrollment.CheckDeviceID(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
