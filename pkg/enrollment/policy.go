package enrollment

import (
	"crypto"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

// The policy of enrollment is written down in docs/policy.md, and is decided here, in [Decide]: a function of facts, which
// reads no clock and no store. Where it lacks a fact it says which, and is asked again.

// Reason is why a request was refused: one of few, for counts. The text says more.
type Reason string

// The reasons.
const (
	ReasonMalformed     Reason = "malformed"
	ReasonSignature     Reason = "signature"
	ReasonAlgorithm     Reason = "algorithm"
	ReasonChallenge     Reason = "challenge"
	ReasonWebhook       Reason = "webhook"
	ReasonDeviceBlocked Reason = "device-blocked"
	ReasonDeviceUnknown Reason = "device-unknown"
	ReasonNames         Reason = "names"
	ReasonProfile       Reason = "profile"
	ReasonKey           Reason = "key"
	ReasonNotYet        Reason = "not-yet-renewable"
	ReasonRevoked       Reason = "revoked"
	ReasonEnded         Reason = "ended"
	ReasonReturnBudget  Reason = "return-budget"
	ReasonReplacement   Reason = "replacement"
	ReasonThrottled     Reason = "throttled"
	ReasonExpired       Reason = "pending-expired"
	ReasonDenied        Reason = "denied"
	ReasonSuperseded    Reason = "superseded"
	ReasonOther         Reason = "other"
)

// Reasons returns every reason.
func Reasons() []Reason {
	return []Reason{
		ReasonMalformed, ReasonSignature, ReasonAlgorithm, ReasonChallenge, ReasonWebhook, ReasonDeviceBlocked, ReasonDeviceUnknown,
		ReasonNames, ReasonProfile, ReasonKey, ReasonNotYet, ReasonRevoked, ReasonEnded, ReasonReturnBudget, ReasonReplacement,
		ReasonThrottled, ReasonExpired, ReasonDenied, ReasonSuperseded, ReasonOther,
	}
}

// Facts are what a verdict rests on. Those in the first part are always set; of the second, what a verdict has said that it
// needs.
type Facts struct {
	Point    *Point
	Protocol string // as certificates record it: "scep"
	IssuerID int64  // of the point
	Now      time.Time
	// Waited is the request as it began to wait, when a person has approved it; else nil.
	Waited *pki.Enrollment

	Digest     crypto.Hash // of the message's signature
	SignerKey  [32]byte    // SHA-256 of the SubjectPublicKeyInfo that signed the message
	SelfSigned bool        // the certificate that signed the message is self-signed
	Signer     *Signer     // the certificate of ours that signed it; nil if none did

	Key     [32]byte // SHA-256 of the SubjectPublicKeyInfo in the request
	Subject []der.Attribute
	SANs    []der.GeneralName

	// Challenge is that there is one, which may be anything. OneTime is the record that it names, with the right secret;
	// nil if there is none. WrongSecret is that it names one, with another secret. Static is that it is the point's.
	Challenge   bool
	OneTime     *pki.Challenge
	WrongSecret bool
	Static      bool

	// Devices has what the registry says of a device; nil when it does not have it.
	Devices map[string]*pki.Device
	// Newer has when a certificate of a line was issued after the signer's, or has renewed it; the zero time when that is
	// the newest.
	Newer map[Line]time.Time
	// Standing has whether some certificate of a line is good and has not ended.
	Standing map[Line]bool
	// KeyDevices are the devices with a certificate of the request's key, in whatever state: none, one, or two of them when
	// there are more. Nil is not known.
	KeyDevices []string
	// Webhook is what the point's webhook has said. Nil is that it was not asked.
	Webhook *WebhookAnswer
}

// Line names the certificates of one device and one profile. Without a device it stands for the signer and what renews it.
type Line struct{ Device, Profile string }

// Signer is a certificate of ours that signs a message.
type Signer struct {
	*pki.Certificate
	Subject []der.Attribute   // of the certificate
	SANs    []der.GeneralName // likewise
	// Void is that its signature proves nothing: its issuer's key is not good, or its own key is blocked.
	Void bool
	// Makes, when not nil, returns the names that the profile would make of bound ones, which are among them.
	Makes func(Binding) ([]der.Attribute, []der.GeneralName)
}

// WebhookAnswer is what a webhook has said of a request. The zero value is a refusal.
type WebhookAnswer struct {
	Allow   bool   `json:"-"`
	Pending bool   `json:"-"` // with Allow: a person is to decide
	Text    string `json:"-"` // why not, for the log; or why a person is to decide

	// What it knows better than the request; empty: nothing. Names, in RFC 4514 form and as in "DNS:a.example.com", stand in
	// place of those of an enrollment. Validity is the longest life.
	Device   string        `json:"device,omitempty"`
	Subject  string        `json:"subject,omitempty"`
	SANs     []string      `json:"sans,omitempty"`
	Validity time.Duration `json:"validity,omitempty"`
	// Group is that of a device which the registry does not have.
	Group string `json:"group,omitempty"`
	// Event is the id under which it was asked.
	Event string `json:"event,omitempty"`
}

// Overrides returns, as pki.Enrollment keeps it, what the webhook knows better; empty if there is nothing.
func (w *WebhookAnswer) Overrides() (string, error) {
	if w.Device == "" && w.Subject == "" && len(w.SANs) == 0 && w.Validity == 0 && w.Group == "" && w.Event == "" {
		return "", nil
	}
	text, err := json.Marshal(w)
	return string(text), err
}

// ParseOverrides returns the answer of which Overrides has kept the text: one that allows. Nil stands for an empty text.
func ParseOverrides(text string) (*WebhookAnswer, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // an enrollment that no webhook has said anything of
	}
	w := &WebhookAnswer{Allow: true}
	if err := json.Unmarshal([]byte(text), w); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "reading what the webhook has said of a request that waits")
	}
	return w, nil
}

// Outcome is what becomes of a request.
type Outcome int

// The outcomes. The zero value is none: a fact is missing.
const (
	Issue  Outcome = iota + 1
	Wait           // for a person
	Refuse         // for the reason given
)

// String returns "issue", "wait" or "refuse".
func (o Outcome) String() string {
	return [...]string{"undecided", "issue", "wait", "refuse"}[min(max(o, 0), Refuse)]
}

// Need is a fact that is missing.
type Need int

// The needs.
const (
	NeedDevice     Need = iota + 1 // Facts.Devices of Verdict.Line.Device
	NeedNewer                      // Facts.Newer of Verdict.Line
	NeedStanding                   // Facts.Standing of Verdict.Line
	NeedKeyDevices                 // Facts.KeyDevices
	NeedWebhook                    // Facts.Webhook
)

// Credential is what authorises a request.
type Credential string

// The credentials.
const (
	BySignature Credential = "signature" // of the certificate that is renewed
	ByOneTime   Credential = "one-time"
	ByStatic    Credential = "static"
	ByWebhook   Credential = "webhook"
	ByPerson    Credential = "person" // what has waited
)

// Verdict is what becomes of a request. What is beside Outcome has a meaning for some outcomes only.
type Verdict struct {
	Outcome Outcome
	Need    Need // when Outcome is 0

	// Line has the device, empty if none is known, and the profile; of a refusal as far as they were known.
	Line

	// Reason and Text are of a refusal; Text is also why a request waits. A Hidden refusal must look like every other one
	// to whoever has sent the message; its Text is for the log.
	Reason Reason
	Text   string
	Hidden bool
	// Err is a fault behind the refusal; nil if there is none.
	Err error

	Credential   Credential
	UseChallenge bool // it uses up Facts.OneTime
	// Renewal is that the certificate renews the signer's, whose names it gets. Else Subject and SANs are what it gets, nil
	// for those of the request.
	Renewal bool
	Subject []der.Attribute
	SANs    []der.GeneralName
	// MaxValidity is the longest life that it may have; 0: what the profile says.
	MaxValidity time.Duration
	// Revoke is that the older certificates of the line are to be revoked as superseded.
	Revoke bool
	// Return is that a certificate which has ended is renewed by the point's grace: the try is to be counted before it is
	// answered, and audited.
	Return bool
}

// Decide applies the policy of docs/policy.md to a request for a certificate.
func Decide(f *Facts) Verdict {
	d := decision{f: f}
	for _, rule := range []func() *Verdict{d.signer, d.authority, d.identity, d.device, d.key, d.names, d.replacement, d.webhook} {
		if v := rule(); v != nil {
			v.Line = Line{orDefault(v.Device, d.Device), orDefault(v.Profile, d.Profile)}
			v.Renewal = v.Renewal || d.Renewal
			return *v
		}
	}
	d.Outcome = Issue
	if d.wait != "" && f.Waited == nil {
		d.Outcome, d.Reason, d.Text = Wait, d.waitReason, d.wait
		d.Return, d.MaxValidity, d.Revoke = false, 0, false
	}
	return d.Verdict
}

// decision is a verdict in the making.
type decision struct {
	f *Facts
	Verdict
	renews     *Signer // the signer, if its signature is worth something
	wait       string  // why a person has to decide; empty if nobody has
	waitReason Reason
}

func refuse(r Reason, format string, args ...any) *Verdict {
	return &Verdict{Outcome: Refuse, Reason: r, Text: fmt.Sprintf(format, args...)}
}

func hide(r Reason, format string, args ...any) *Verdict {
	v := refuse(r, format, args...)
	v.Hidden = true
	return v
}

func refuseNames(err error) *Verdict {
	public := fault.Public(err)
	text := public.Detail
	if public.Hint != "" {
		text += " (" + public.Hint + ")"
	}
	return &Verdict{Outcome: Refuse, Reason: ReasonNames, Text: text, Err: err}
}

func needDevice(id string) *Verdict { return &Verdict{Need: NeedDevice, Line: Line{Device: id}} }

// mustWait has the request wait for a person, unless one has said yes already. The first reason counts.
func (d *decision) mustWait(r Reason, format string, args ...any) {
	if d.wait == "" {
		d.waitReason, d.wait = r, fmt.Sprintf(format, args...)
	}
}

// signer is section 1.
func (d *decision) signer() *Verdict {
	f := d.f
	if s := f.Signer; s != nil && s.Revocation != nil {
		return refuse(ReasonRevoked, "the certificate is %s", s.Revocation.Status)
	}
	if s := f.Signer; s != nil && !s.Void {
		d.renews = s
		if s.Device == "" {
			return nil
		}
		record, known := f.Devices[s.Device]
		if !known {
			return needDevice(s.Device)
		}
		return Served(s.Device, record)
	}
	switch {
	case f.Waited != nil && f.Waited.Replaces != pki.Fingerprint{}:
		return refuse(ReasonRevoked, "the CA's key that signed the certificate is not good, or its own key is blocked")
	case f.Waited == nil && (f.SignerKey != f.Key || !f.SelfSigned && f.Signer == nil):
		// RFC 8894, Section 2.3: who captured an envelope could sign it anew otherwise.
		return hide(ReasonChallenge, "the message is signed neither with the key of the request nor with a certificate of ours")
	}
	return nil
}

// Served refuses a device that is blocked or retired; nil for others, and those that the registry does not have.
func Served(id string, record *pki.Device) *Verdict {
	if record == nil || record.Status.Served() {
		return nil
	}
	v := refuse(ReasonDeviceBlocked, "the device is %s", record.Status)
	v.Device = id
	return v
}

// authority is sections 2 to 4: what gives the request its right, and to which profile.
func (d *decision) authority() *Verdict {
	f := d.f
	if w := f.Waited; w != nil {
		d.Credential, d.Device, d.Profile, d.Renewal = ByPerson, w.Device, w.Profile, w.Replaces != pki.Fingerprint{}
		switch {
		case !d.Renewal:
			return nil
		case f.Now.After(d.renews.NotAfter) && f.Point.Return().Policy == ReturnRefuse:
			return d.ended()
		}
		return d.renewable()
	}
	var stands *Verdict // what is said of the renewal
	if d.renews != nil {
		stands = d.mayRenew()
		if stands != nil && stands.Outcome == 0 {
			return stands
		}
		if stands == nil && d.wait == "" {
			d.Renewal = true
			return nil
		}
	}
	renewal := d.Verdict
	refused := d.challenge()
	if refused == nil { // better than waiting
		d.wait, d.Return, d.MaxValidity, d.UseChallenge = "", false, 0, d.Credential == ByOneTime
		return nil
	}
	if refused.Outcome == 0 || d.renews == nil {
		return refused
	}
	d.Verdict = renewal
	switch {
	case stands != nil:
		return stands
	case f.Point.Renewal().Challenge:
		return hide(ReasonChallenge, "a renewal needs a one-time challenge here: %s", refused.Text)
	}
	d.Renewal = true
	return nil
}

// mayRenew says why the signer does not authorise its own renewal; nil if it does, or if it has to wait.
func (d *decision) mayRenew() *Verdict {
	f, s := d.f, d.renews
	if v := d.renewable(); v != nil {
		return v
	}
	rules := f.Point.Renewal()
	from, ended := f.Point.RenewableFrom(s.NotBefore, s.NotAfter), f.Now.After(s.NotAfter)
	switch {
	case f.Now.Before(from):
		return refuse(ReasonNotYet, "the certificate can be renewed from %s on", from.Format(time.RFC3339))
	case WeakDigest(f.Digest) && !f.Point.Legacy(LegacySHA1Renewal, f.Now): // RFC 8894, Section 7.9
		return refuse(ReasonAlgorithm, "a renewal is signed with SHA-256 or better")
	case f.Key == s.SPKIHash && (rules.NewKey || ended && f.Point.Return().NewKey):
		return refuse(ReasonKey, "a renewal needs a new key here")
	}
	if v := d.successor(); v != nil {
		return v
	}
	// A challenge helps when the names have changed.
	if v := d.renewedNames(); v != nil {
		return v
	}
	line := Line{d.Device, d.Profile}
	newer, known := f.Newer[line]
	if !known {
		return &Verdict{Need: NeedNewer, Line: line}
	}
	if ended {
		if v := d.comeback(newer.IsZero()); v != nil {
			return v
		}
	}
	if !newer.IsZero() {
		d.mustWait("", "its certificate was renewed or replaced on %s already", newer.Format(time.RFC3339))
	}
	d.Credential = BySignature
	if rules.Challenge && d.wait == "" {
		switch v := d.oneTime(); {
		case v != nil:
			return hide(ReasonChallenge, "a renewal needs a one-time challenge here: %s", v.Text)
		default:
			d.UseChallenge = true
		}
	}
	return nil
}

// WeakDigest reports whether a signature over a digest authorises no renewal by itself (RFC 8894, Section 7.9).
func WeakDigest(h crypto.Hash) bool { return h == crypto.SHA1 || h == crypto.MD5 }

// renewable refuses a signer that is not this point's to renew.
func (d *decision) renewable() *Verdict {
	f, s := d.f, d.renews
	by, elsewhere := strings.CutPrefix(s.Requester, f.Protocol+":")
	here := s.Protocol == f.Protocol && (!elsewhere || by == f.Point.Name())
	if s.IssuerID != f.IssuerID || s.Profile != f.Point.Profile() && !here {
		return refuse(ReasonProfile, "the certificate is of another issuer or profile than this enrollment point")
	}
	return nil
}

// successor settles whose certificate a renewal will be: the signer's device, or one that a signer without device turns out
// to be of.
func (d *decision) successor() *Verdict {
	f, s := d.f, d.renews
	d.Profile, d.Device = s.Profile, s.Device
	if d.Device != "" {
		return nil
	}
	if f.Point.Renewal().Challenge && d.oneTime() == nil {
		d.Device = f.OneTime.Device
	}
	if f.Webhook != nil && d.Device == "" {
		d.Device = f.Webhook.Device
	}
	if d.Device == "" {
		var err error
		if d.Device, err = f.Point.DeviceIn(s.Subject, s.SANs); err != nil {
			return refuseNames(err)
		}
	}
	return nil
}

// comeback is section 3: the signer has ended.
func (d *decision) comeback(newest bool) *Verdict {
	f, s := d.f, d.renews
	rules := f.Point.Return()
	ended := s.NotAfter.Format(time.RFC3339)
	switch {
	case rules.Policy == ReturnRefuse:
		return d.ended()
	case rules.Policy != ReturnGrace:
		d.mustWait(ReasonEnded, "its certificate ended on %s", ended)
		return nil
	case f.Now.After(s.NotAfter.Add(time.Duration(rules.Grace))):
		d.mustWait(ReasonEnded, "its certificate ended on %s, longer ago than the grace of %s", ended, rules.Grace)
		return nil
	case !newest:
		return nil
	}
	if d.Device != "" {
		record, known := f.Devices[d.Device]
		if !known {
			return needDevice(d.Device)
		}
		if record != nil && record.Returns >= rules.Attempts {
			d.mustWait(ReasonReturnBudget, "its certificate ended on %s, and it has tried %d times to come back", ended, record.Returns)
			return nil
		}
	}
	d.Return, d.MaxValidity = true, time.Duration(rules.Validity)
	return nil
}

func (d *decision) ended() *Verdict {
	return refuse(ReasonEnded, "the certificate ended on %s: enroll again with a challenge", d.renews.NotAfter.Format(time.RFC3339))
}

// challenge is section 4: whether the request brings a challenge that is accepted, and what that gives it.
func (d *decision) challenge() *Verdict {
	f := d.f
	d.Credential, d.Profile, d.Device = "", f.Point.Profile(), ""
	switch {
	case !f.Challenge:
		return hide(ReasonChallenge, "there is no challenge")
	case f.Static && f.Point.Accepts(ChallengeStatic):
		d.Credential = ByStatic
	case f.OneTime != nil || f.WrongSecret:
		if v := d.oneTime(); v != nil {
			return v
		}
		d.Credential, d.Device = ByOneTime, f.OneTime.Device
		d.Profile = orDefault(f.OneTime.Profile, d.Profile)
	case !f.Point.Accepts(ChallengeWebhook) || f.Point.Webhook() == nil:
		return hide(ReasonChallenge, "the challenge is unknown")
	case f.Webhook == nil:
		return &Verdict{Need: NeedWebhook}
	case !f.Webhook.Allow:
		return hide(ReasonWebhook, "the webhook refused the request: %s", f.Webhook.Text)
	default:
		d.Credential = ByWebhook
	}
	if f.Webhook != nil && f.Webhook.Allow {
		if d.Device != "" && f.Webhook.Device != "" && d.Device != f.Webhook.Device {
			return hide(ReasonChallenge, "the challenge is of device %q, and the webhook says %q", d.Device, f.Webhook.Device)
		}
		d.Device = orDefault(d.Device, f.Webhook.Device)
	}
	s := d.renews
	if s == nil {
		return nil
	}
	if f.SignerKey != f.Key {
		// A challenge in an envelope that somebody else signs: it must be the same device.
		same := slices.EqualFunc(s.Subject, f.Subject, func(a, b der.Attribute) bool { return a.Type.Equal(b.Type) && a.Value == b.Value })
		if !same {
			return hide(ReasonChallenge, "the certificate that signs has another subject than the request")
		}
	}
	if s.Device != "" && d.Device != "" && s.Device != d.Device {
		return hide(ReasonChallenge, "the certificate that signs is of device %q, the challenge of %q", s.Device, d.Device)
	}
	return nil
}

// oneTime says what is wrong with the one-time challenge; nil if it is accepted.
func (d *decision) oneTime() *Verdict {
	f, c := d.f, d.f.OneTime
	switch {
	case f.WrongSecret:
		return hide(ReasonChallenge, "the challenge has another secret")
	case c == nil:
		return hide(ReasonChallenge, "there is no one-time challenge")
	case !f.Point.Accepts(ChallengeOneTime):
		return hide(ReasonChallenge, "the point takes no one-time challenges")
	case c.Point != f.Point.Name():
		return hide(ReasonChallenge, "challenge %s is for another point", c.ID)
	case !c.Open(f.Now):
		v := hide(ReasonChallenge, "challenge %s was used, was revoked or has ended", c.ID)
		v.Device = c.Device
		return v
	}
	return nil
}

// identity settles the device: the second half of section 4.
func (d *decision) identity() *Verdict {
	f := d.f
	if d.Renewal && d.UseChallenge && f.OneTime.Device != "" && f.OneTime.Device != d.Device {
		return hide(ReasonChallenge, "the certificate that signs is of device %q, the challenge of %q", d.Device, f.OneTime.Device)
	}
	if d.Renewal || d.Device != "" {
		return nil
	}
	id, err := f.Point.DeviceIn(f.Subject, f.SANs)
	if err != nil {
		return refuseNames(err)
	}
	if s := d.renews; s != nil && s.Device != "" {
		if id != "" && id != s.Device {
			return refuse(ReasonNames, "the names are of another device than the certificate that signs")
		}
		id = s.Device
	}
	if d.Device = id; id != "" || f.Point.Legacy(LegacySharedKeys, f.Now) {
		return nil
	}
	switch {
	case f.KeyDevices == nil:
		return &Verdict{Need: NeedKeyDevices}
	case len(f.KeyDevices) > 1:
		return refuse(ReasonKey, "several devices have this key")
	case len(f.KeyDevices) == 1:
		d.Device = f.KeyDevices[0]
	}
	return nil
}

// device is section 5 but for its last rule.
func (d *decision) device() *Verdict {
	f := d.f
	if d.Device == "" {
		switch {
		case f.Point.RegisteredOnly():
			return refuse(ReasonDeviceUnknown, "the request names no device, and only registered ones are served")
		case f.Point.Identity() != IdentityNone && !d.Renewal:
			return refuse(ReasonNames, "the request names no device: that is its %s", f.Point.Identity())
		}
		return nil
	}
	record, known := f.Devices[d.Device]
	if !known {
		return needDevice(d.Device)
	}
	if record == nil && f.Point.RegisteredOnly() {
		return refuse(ReasonDeviceUnknown, "the device is not registered")
	}
	return Served(d.Device, record)
}

// key refuses a key of another device. A renewal with the key that it has is no new sharing.
func (d *decision) key() *Verdict {
	f := d.f
	// An enrollment without a device has a key that no device has: it would be that one's.
	if d.Device == "" && !d.Renewal || f.Point.Legacy(LegacySharedKeys, f.Now) || d.Renewal && d.renews != nil && d.renews.SPKIHash == f.Key {
		return nil
	}
	if f.KeyDevices == nil {
		return &Verdict{Need: NeedKeyDevices}
	}
	if slices.ContainsFunc(f.KeyDevices, func(id string) bool { return id != d.Device }) {
		return refuse(ReasonKey, "another device has this key: make a new one")
	}
	return nil
}

// bound returns what the names must be: by the point, the device's record and the challenge, all of them.
func (d *decision) bound() (Binding, *Verdict) {
	f := d.f
	record, known := f.Devices[d.Device]
	if !known && d.Device != "" {
		return Binding{}, needDevice(d.Device)
	}
	if record == nil {
		record = &pki.Device{ID: d.Device}
		if f.Webhook != nil {
			record.Group = f.Webhook.Group
		}
	}
	point, err := f.Point.Render(*record)
	if err != nil {
		return Binding{}, refuseNames(err)
	}
	own, err := ParseBinding("the device's record", record.Subject, record.SANs)
	if err != nil {
		return Binding{}, refuseNames(fault.Wrap(fault.Internal, err, "the names of device %q", d.Device))
	}
	var challenge Binding
	if c := f.OneTime; c != nil && (d.UseChallenge || f.Waited != nil && f.Waited.Challenge == c.ID) {
		if challenge, err = ParseBinding("the challenge", c.Subject, c.SANs); err != nil {
			return Binding{}, refuseNames(fault.Wrap(fault.Internal, err, "the names of challenge %s", c.ID))
		}
	}
	all, err := Combine(point, own, challenge)
	if err != nil {
		return Binding{}, refuseNames(err)
	}
	return all, nil
}

// renewedNames is the third rule of section 6.
func (d *decision) renewedNames() *Verdict {
	all, v := d.bound()
	if v != nil {
		return v
	}
	if err := d.renews.has(all); err != nil {
		return refuseNames(err)
	}
	return nil
}

// names is section 6.
func (d *decision) names() *Verdict {
	f := d.f
	if d.Renewal {
		return d.renewedNames()
	}
	all, v := d.bound()
	if v != nil {
		return v
	}
	subject, sans := f.Subject, f.SANs
	if w := f.Webhook; w != nil {
		b, err := ParseBinding("the webhook", w.Subject, w.SANs)
		if err != nil {
			return refuse(ReasonWebhook, "the webhook gives names that are none: %s", fault.Public(err).Detail)
		}
		if b.Subject != nil {
			subject, d.Subject = b.Subject, b.Subject
		}
		if b.SANs != nil {
			sans, d.SANs = b.SANs, b.SANs
		}
	}
	boundSubject, boundSANs, err := all.Admit(subject, sans)
	if err != nil {
		return refuseNames(err)
	}
	if boundSubject != nil {
		d.Subject = boundSubject
	}
	if boundSANs != nil {
		d.SANs = boundSANs
	}
	return nil
}

// has refuses a certificate that has other names than it must, beside those that its profile itself makes.
func (s *Signer) has(b Binding) error {
	if !b.Binds() {
		return nil
	}
	for _, n := range b.SANs {
		if !slices.ContainsFunc(s.SANs, func(m der.GeneralName) bool { return sameName(n, m) }) {
			return fault.New(fault.PolicyRefused, "the certificate lacks a name that %s says", b.Of).WithHint("enroll anew with a challenge")
		}
	}
	subject, sans := slices.Clone(s.Subject), slices.Clone(s.SANs)
	if s.Makes != nil {
		attributes, names := s.Makes(b)
		subject = slices.DeleteFunc(subject, func(a der.Attribute) bool { return !hasAttribute(b.Subject, a) && hasAttribute(attributes, a) })
		sans = slices.DeleteFunc(sans, func(n der.GeneralName) bool {
			return slices.ContainsFunc(names, func(m der.GeneralName) bool { return sameName(n, m) })
		})
	}
	if _, _, err := b.Admit(subject, sans); err != nil {
		return fault.Wrap(fault.PolicyRefused, err, "%s", fault.Public(err).Detail).WithHint("enroll anew with a challenge")
	}
	return nil
}

func hasAttribute(list []der.Attribute, a der.Attribute) bool {
	return slices.ContainsFunc(list, func(b der.Attribute) bool { return sameSubject([]der.Attribute{a}, []der.Attribute{b}) })
}

// replacement is section 7 but for the webhook.
func (d *decision) replacement() *Verdict {
	f := d.f
	if d.Renewal {
		return nil
	}
	rule := f.Point.Replacement()
	if d.Device != "" && rule != ReplaceSupersede {
		standing, known := f.Standing[Line{d.Device, d.Profile}]
		switch {
		case !known:
			return &Verdict{Need: NeedStanding}
		case !standing:
		case rule == ReplaceRefuse:
			return refuse(ReasonReplacement, "the device has a good certificate: renew that, or have it revoked")
		case rule == ReplacePending:
			d.mustWait(ReasonReplacement, "the device has a good certificate")
		default:
			d.Revoke = true
		}
	}
	if f.Point.Config().Approval {
		d.mustWait("", "the enrollment point wants approval")
	}
	return nil
}

// webhook asks the webhook where it decides on every request.
func (d *decision) webhook() *Verdict {
	f := d.f
	rules := f.Point.Webhook()
	if rules != nil && rules.When == WhenAlways && f.Waited == nil {
		switch {
		case f.Webhook == nil:
			return &Verdict{Need: NeedWebhook}
		case !f.Webhook.Allow:
			return refuse(ReasonWebhook, "the webhook refused the request: %s", f.Webhook.Text)
		case f.Webhook.Device != "" && f.Webhook.Device != d.Device:
			return refuse(ReasonWebhook, "the request is of device %q, and the webhook says %q", d.Device, f.Webhook.Device)
		}
	}
	if f.Webhook != nil && f.Webhook.Pending {
		d.mustWait(ReasonWebhook, "the webhook wants a person to decide: %s", f.Webhook.Text)
	}
	if v := d.webhookValidity(); v > 0 && (d.MaxValidity == 0 || v < d.MaxValidity) {
		d.MaxValidity = v
	}
	return nil
}

// webhookValidity is the longest life that the webhook allows; 0: any.
func (d *decision) webhookValidity() time.Duration {
	if d.f.Webhook == nil {
		return 0
	}
	return max(0, d.f.Webhook.Validity)
}

// CheckDeviceID returns pki.ErrDeviceID for what is no device's id.
func CheckDeviceID(id string) error { return pki.CheckDeviceID(id) }

// DeviceIn returns the device that names are of, as the point's settings say; empty if they say or find none. What cannot
// be a device's id is a fault of the kind PolicyRefused.
func (p *Point) DeviceIn(subject []der.Attribute, sans []der.GeneralName) (string, error) {
	id := ""
	attribute := func(t asn1.ObjectIdentifier) {
		if i := slices.IndexFunc(subject, func(a der.Attribute) bool { return a.Type.Equal(t) }); i >= 0 {
			id = subject[i].Value
		}
	}
	name := func(tag der.GeneralNameTag) {
		if i := slices.IndexFunc(sans, func(n der.GeneralName) bool { return n.Tag == tag }); i >= 0 {
			id = sans[i].Text
		}
	}
	switch p.Identity() {
	case IdentityCommonName:
		attribute(pki.OIDCommonName)
	case IdentitySerialNumber:
		attribute(pki.OIDSerialNumber)
	case IdentityDNSName:
		name(der.TagDNSName)
		id = strings.ToLower(id) // as certificates have it
	case IdentityURI:
		name(der.TagURI)
	}
	if id == "" {
		return "", nil
	}
	if err := CheckDeviceID(id); err != nil {
		return "", fault.Wrap(fault.PolicyRefused, err, "the %s of the request: %v", p.Identity(), err)
	}
	return id, nil
}
