package scep_test

import (
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/pki"
)

// This file says docs/policy.md once more, for tests that compare what the server does with it. It knows the world from
// what the tests have done themselves, and shares no code with the server but the form of settings. Sections are those
// of the document.

// held is a certificate as its device has it.
type held struct {
	cert      *x509.Certificate
	key       *rsa.PrivateKey
	cn        string
	sans      []string // DNS names, sorted
	profile   string
	device    string // empty: none
	requester string
	at        int // its place among all that were issued
	renewed   bool
	void      bool // revoked or on hold
}

func (h *held) ended(now time.Time) bool { return now.After(h.cert.NotAfter) }

// known is a device in the registry.
type known struct {
	status  pki.DeviceStatus
	group   string
	owner   string
	site    string   // a label
	subject string   // common name; empty: not bound
	sans    []string // DNS names; empty: not bound
	tries   int      // of coming back with an ended certificate, since the newest
}

// token is a one-time challenge.
type token struct {
	text, id, point, profile, device string
	cn                               string   // empty: not bound
	sans                             []string // empty: not bound
	ends                             time.Time
	gone                             bool // used or revoked
}

// gate is an enrollment point.
type gate struct {
	config enrollment.Config
	static string
}

// ask is a request for a certificate.
type ask struct {
	point     string
	kind      string // messageType
	id        string // transactionID
	key       *rsa.PrivateKey
	signer    *held // nil: a certificate that the device made itself, with the key of the request
	cn        string
	sans      []string // DNS names
	challenge string
	sha1      bool     // the message's signature
	says      *opinion // of the point's webhook, when it is asked; nil: it does not answer
}

// opinion is what a webhook says of a request. What is empty it does not say.
type opinion struct {
	deny, pending bool
	device, group string
	cn            string
	sans          []string // DNS names
	longest       time.Duration
}

// octets tells whether two requests have the same CSR.
func (a ask) octets() string {
	return fmt.Sprintf("%x %s %q %s", a.key.N, a.cn, a.sans, a.challenge)
}

// memory is what a point remembers of a request.
type memory struct {
	ask       ask
	id        string // of a request that waits or has waited
	state     pki.EnrollmentState
	verdict   verdict // with which it began
	issued    *held
	challenge *token
	replaces  *held
	said      *opinion // of the webhook, that counts; nil: none
	ends      time.Time
}

type memoryKey struct {
	point, id, key string
}

// world is what there is. Its methods are not safe for concurrent use.
type world struct {
	gates   map[string]*gate
	devices map[string]*known
	tokens  map[string]*token // by text
	rows    map[memoryKey]*memory
	byKey   map[string][]*held // by modulus
	lines   map[string][]*held // by device and profile
	blocked map[string]bool    // keys, by modulus
	issued  int
	// fallen is that the issuer's certificate is revoked or on hold.
	fallen bool
}

func newWorld() *world {
	return &world{
		gates: map[string]*gate{}, devices: map[string]*known{}, tokens: map[string]*token{}, rows: map[memoryKey]*memory{},
		byKey: map[string][]*held{}, lines: map[string][]*held{}, blocked: map[string]bool{},
	}
}

func keyName(k *rsa.PrivateKey) string { return string(k.N.Bytes()) }

func (w *world) row(a ask) memoryKey { return memoryKey{a.point, a.id, keyName(a.key)} }

// answer is what may become of a request.
type answer int

const (
	refused answer = iota
	waits
	granted
)

func (a answer) String() string { return [...]string{"refused", "waits", "granted"}[a] }

// verdict is what the policy says of a request.
type verdict struct {
	answer  answer
	rule    string // the section and what it says
	device  string
	profile string
	cn      string
	sans    []string // of the certificate
	renews  *held
	token   *token        // used up by it
	longest time.Duration // of the certificate's life; 0: what the profile says
	comesby bool          // by offline return
	revokes bool          // the device's older certificates of the profile
	either  bool          // the document is silent: refused is right, too
	asks    bool          // the webhook, before anything else can be said
	said    *opinion      // of the webhook, if it has allowed the request

	last bool // it is refused for its key, or for the issuer, when all else was settled and it would have been granted
}

func no(rule string) verdict { return verdict{answer: refused, rule: rule} }

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (w *world) served(device string) bool {
	d := w.devices[device]
	return device == "" || d == nil || d.status == pki.DeviceExpected || d.status == pki.DeviceEnrolled
}

func (g *gate) takes(kind enrollment.ChallengeKind) bool {
	if len(g.config.Challenges) == 0 {
		return kind == enrollment.ChallengeOneTime || kind == enrollment.ChallengeStatic
	}
	return slices.Contains(g.config.Challenges, kind)
}

// always tells whether the webhook is asked about every request.
func (g *gate) always() bool {
	return g.config.Webhook != nil && g.config.Webhook.When == enrollment.WhenAlways
}

// oneTimeForm is what only one-time challenges look like.
var oneTimeForm = regexp.MustCompile(`^[A-Z2-7]{10}-[A-Z2-7]{26}$`)

func (g *gate) on(s enrollment.Switch, now time.Time) bool {
	until, ok := g.config.Legacy[s]
	return ok && now.Before(until.End())
}

// accepted returns the one-time challenge of a request, if it is good, and whether any challenge is. asks: the webhook says so.
func (w *world) accepted(g *gate, a ask, now time.Time) (t *token, good, asks bool) {
	switch t := w.tokens[a.challenge]; {
	case t != nil && g.takes(enrollment.ChallengeOneTime) && t.point == a.point && !t.gone && now.Before(t.ends):
		return t, true, false
	case t != nil, a.challenge == "":
		return nil, false, false
	case a.challenge == g.static && g.takes(enrollment.ChallengeStatic):
		return nil, true, false
	}
	return nil, false, g.takes(enrollment.ChallengeWebhook) && !oneTimeForm.MatchString(a.challenge)
}

// newest tells whether a certificate is the newest of its line. device is whose it is: one that has none in its record may
// turn out to be of a device all the same.
func (w *world) newest(h *held, device string) bool {
	line := w.lines[device+" "+h.profile]
	return !h.renewed && (device == "" || len(line) == 0 || line[len(line)-1].at <= h.at)
}

// identity finds a device in names.
func (g *gate) identity(cn string, sans []string) string {
	switch g.config.Device.Identity {
	case enrollment.IdentityCommonName:
		return cn
	case enrollment.IdentityDNSName:
		if len(sans) > 0 {
			return sans[0]
		}
	}
	return ""
}

// judge is the policy, without section 9.
func (w *world) judge(a ask, now time.Time) verdict {
	g := w.gates[a.point]
	v, asked := w.judgeBy(g, a, nil, now), false
	if v.asks {
		v, asked = w.judgeBy(g, a, a.answer(), now), true
	}
	if g.always() && v.answer != refused {
		if !asked {
			v = w.judgeBy(g, a, a.answer(), now)
		}
		switch said := a.answer(); {
		case v.answer == refused:
		case said.deny:
			return no("7.3 the webhook says no")
		case said.device != "" && said.device != v.device:
			return no("7.3 the webhook means another device")
		}
	}
	return w.key(a, v)
}

// key is the end of section 5, and what only comes out when a certificate is made: whether the issuer can.
func (w *world) key(a ask, v verdict) verdict {
	switch {
	case v.answer == refused:
	case w.blocked[keyName(a.key)]: // what would wait is refused at once (8)
		v.rule, v.last, v.answer = "5 the key is blocked", v.answer == granted, refused
	case w.fallen && v.answer == granted:
		v.rule, v.last, v.answer = "the issuer cannot issue", true, refused
	}
	return v
}

// proves tells whether a signature by a certificate that is good proves anything (1.2).
func (w *world) proves(s *held) bool { return !w.fallen && !w.blocked[keyName(s.key)] }

// answer is what the webhook says of a request. Without an answer it has said no.
func (a ask) answer() *opinion {
	if a.says == nil {
		return &opinion{deny: true}
	}
	return a.says
}

// judgeBy is judge with what the webhook has said, if it was asked.
func (w *world) judgeBy(g *gate, a ask, said *opinion, now time.Time) verdict {
	s := a.signer
	if s != nil {
		// Section 1.
		switch {
		case s.void:
			return no("1.1 the signer is revoked or on hold")
		case !w.proves(s) && !a.key.Equal(s.key):
			return no("1.2 the signer's key is blocked, or its issuer's is not good, and it is not the request's")
		case !w.proves(s):
			s = nil
		case !w.served(s.device):
			return no("1.3 the signer's device is not served")
		}
	}
	if s == nil {
		return w.enroll(g, a, nil, said, now)
	}
	t, good, asks := w.accepted(g, a, now)
	v := w.renew(g, a, s, t, said, now)
	const challengeToo = "2.8 a renewal takes a one-time challenge, too"
	if v.answer == granted && g.config.Renewal.Challenge && t == nil {
		v = no(challengeToo)
	}
	if v.answer != granted && (good || asks) {
		e := w.enroll(g, a, s, said, now)
		if !strings.HasPrefix(e.rule, "4.") { // its refusals let section 2 stand
			return e
		}
		// Whether a challenge that is somebody else's is one for 2.8 is not said.
		v.either = g.config.Renewal.Challenge
	}
	if v.answer == refused {
		return v
	}
	if g.config.Renewal.Challenge && t == nil {
		return no(challengeToo)
	}
	if g.config.Renewal.Challenge {
		v.token = t
		v.either = v.either || t.device != "" && t.device != s.device
	}
	return w.finish(g, a, v, said, now)
}

// renew is sections 2 and 3.
func (w *world) renew(g *gate, a ask, s *held, t *token, said *opinion, now time.Time) verdict {
	c := g.config
	v := verdict{answer: granted, rule: "2 renewal", device: s.device, profile: s.profile, cn: s.cn, sans: s.sans, renews: s}
	if v.device == "" && t != nil && c.Renewal.Challenge {
		v.device = t.device
	}
	if said != nil {
		v.device = orElse(v.device, said.device)
	}
	v.device = orElse(v.device, g.identity(s.cn, s.sans))
	profile := orElse(c.Profile, "device")
	if byPoint := strings.HasPrefix(s.requester, "scep:"); s.profile != profile && byPoint && s.requester != "scep:"+a.point {
		return no("2.1 another profile")
	}
	percent := c.Renewal.Percent
	if percent == 0 {
		percent = 50
	}
	life := s.cert.NotAfter.Sub(s.cert.NotBefore)
	if percent != 100 && now.Before(s.cert.NotAfter.Add(-life/100*time.Duration(percent))) {
		return no("2.2 too early")
	}
	if a.sha1 && !g.on(enrollment.LegacySHA1Renewal, now) {
		return no("2.3 SHA-1")
	}
	same := a.key.Equal(s.key)
	if same && (c.Renewal.NewKey || c.Return.NewKey && c.Return.Policy == enrollment.ReturnGrace && s.ended(now)) {
		return no("2.4 the key must be new")
	}
	if said != nil && !said.deny {
		v.said = said
	}
	if n := w.names(g, v); n.answer == refused {
		return no("2.5 " + n.rule)
	}
	if s.ended(now) {
		switch c.Return.Policy {
		case enrollment.ReturnRefuse:
			return no("3 it has ended")
		case enrollment.ReturnGrace:
			grace, attempts, validity := time.Duration(c.Return.Grace), c.Return.Attempts, time.Duration(c.Return.Validity)
			if grace == 0 {
				grace = 30 * 24 * time.Hour
			}
			if attempts == 0 {
				attempts = 3
			}
			if validity == 0 {
				validity = 7 * 24 * time.Hour
			}
			switch d := w.devices[s.device]; {
			case now.After(s.cert.NotAfter.Add(grace)):
				v.answer, v.rule = waits, "3.1 beyond grace"
			case !w.newest(s, v.device):
				v.answer, v.rule = waits, "3.2 not the newest"
			case d != nil && d.tries >= attempts:
				v.answer, v.rule = waits, "3.3 too many tries"
			default:
				v.rule, v.longest, v.comesby = "3 within grace", validity, true
			}
		default:
			v.answer, v.rule = waits, "3 it has ended"
		}
	} else if !w.newest(s, v.device) {
		v.answer, v.rule = waits, "2.7 not the newest"
	}
	return v
}

// enroll is section 4.
func (w *world) enroll(g *gate, a ask, s *held, said *opinion, now time.Time) verdict {
	t, good, asks := w.accepted(g, a, now)
	switch {
	case asks && said == nil:
		return verdict{asks: true, rule: "to be asked"}
	case asks && said.deny:
		return no("4.1 the webhook says no")
	case !good && !asks:
		return no("4.1 no accepted challenge")
	}
	v := verdict{answer: granted, rule: "4 by a challenge", profile: orElse(g.config.Profile, "device"), cn: a.cn, sans: a.sans, token: t}
	named := g.identity(a.cn, a.sans)
	own := ""
	if s != nil {
		own = s.device
		if !a.key.Equal(s.key) && a.cn != s.cn {
			return no("4.2 another subject than the signer's")
		}
	}
	if t != nil {
		v.profile, v.device = orElse(t.profile, v.profile), t.device
	}
	if said != nil {
		if v.device != "" && said.device != "" && v.device != said.device {
			return no("4.3 another device than the challenge's")
		}
		v.device = orElse(v.device, said.device)
	}
	if v.device != "" && own != "" && v.device != own {
		return no("4.3 another device than the signer's")
	}
	if v.device == "" && named != "" && own != "" && named != own {
		return no("4 the names are of another device than the signer")
	}
	v.device = orElse(v.device, orElse(named, own))
	if v.device == "" && !g.on(enrollment.LegacySharedKeys, now) {
		for _, h := range w.byKey[keyName(a.key)] {
			if h.device != "" && v.device != "" && h.device != v.device {
				return no("4 the key is of several devices")
			}
			v.device = orElse(v.device, h.device)
		}
	}
	return w.finish(g, a, v, said, now)
}

// finish is sections 5 to 7, but for what of 7.3 refuses.
func (w *world) finish(g *gate, a ask, v verdict, said *opinion, now time.Time) verdict {
	if said != nil && !said.deny {
		v.said = said
	}
	if v = w.check(g, a, v, now); v.answer == refused {
		return v
	}
	// Section 7.
	if v.renews == nil && v.device != "" {
		line := w.lines[v.device+" "+v.profile]
		if slices.ContainsFunc(line, func(h *held) bool { return !h.void && !h.ended(now) }) {
			switch g.config.Replacement {
			case enrollment.ReplaceRefuse:
				return no("7.1 the device has a good certificate")
			case enrollment.ReplacePending:
				v.answer, v.rule = waits, "7.1 the device has a good certificate"
			case enrollment.ReplaceRevoke:
				v.revokes = true
			}
		}
	}
	if v.renews == nil && g.config.Approval && v.answer == granted {
		v.answer, v.rule = waits, "7.2 approval"
	}
	if o := v.said; o != nil {
		if o.pending {
			v.answer, v.rule, v.comesby = waits, "7.3 the webhook wants a person to decide", false
		}
		if o.longest > 0 && (v.longest == 0 || o.longest < v.longest) {
			v.longest = o.longest
		}
	}
	return v
}

// check is sections 5 and 6.
func (w *world) check(g *gate, a ask, v verdict, now time.Time) verdict {
	d := w.devices[v.device]
	switch {
	case !w.served(v.device):
		return no("5.1 the device is not served")
	case g.config.Device.Registered && (v.device == "" || d == nil):
		return no("5.2 the device is not registered")
	case g.config.Device.Identity != "" && g.config.Device.Identity != enrollment.IdentityNone && v.renews == nil && v.device == "":
		return no("5.3 no device")
	}
	if !g.on(enrollment.LegacySharedKeys, now) && !(v.renews != nil && a.key.Equal(v.renews.key)) {
		for _, h := range w.byKey[keyName(a.key)] {
			if h.device != "" && h.device != v.device {
				return no("5.4 the key is of another device")
			}
		}
	}
	return w.names(g, v)
}

// names is section 6.
func (w *world) names(g *gate, v verdict) verdict {
	d := w.devices[v.device]
	var subjects []string
	var names [][]string
	bind := func(cn string, sans []string) {
		if cn != "" {
			subjects = append(subjects, cn)
		}
		if len(sans) > 0 {
			sans = slices.Clone(sans)
			slices.Sort(sans)
			names = append(names, sans)
		}
	}
	if g.config.Subject != "" || len(g.config.SANs) > 0 {
		var of known
		if d != nil {
			of = *d
		} else if v.said != nil {
			of.group = v.said.group
		}
		fill := func(template string) (string, bool) {
			for place, value := range map[string]string{"{device}": v.device, "{group}": of.group, "{owner}": of.owner, "{label:site}": of.site} {
				if strings.Contains(template, place) && value == "" {
					return "", false
				}
				template = strings.ReplaceAll(template, place, value)
			}
			return template, true
		}
		var sans []string
		for _, t := range g.config.SANs {
			name, ok := fill(strings.TrimPrefix(t, "DNS:"))
			if !ok {
				return no("6 a template has nothing to put in")
			}
			sans = append(sans, name)
		}
		cn, ok := fill(strings.TrimPrefix(g.config.Subject, "CN="))
		if !ok {
			return no("6 a template has nothing to put in")
		}
		bind(cn, sans)
	}
	if d != nil {
		bind(d.subject, d.sans)
	}
	if v.token != nil {
		bind(v.token.cn, v.token.sans)
	}
	// What a webhook says stands in place of the request's.
	if o := v.said; o != nil && v.renews == nil {
		v.cn = orElse(o.cn, v.cn)
		if len(o.sans) > 0 {
			v.sans = o.sans
		}
	}
	for _, cn := range subjects {
		if cn != subjects[0] {
			return no("6.1 two subjects are bound")
		}
	}
	for _, sans := range names {
		if !slices.Equal(sans, names[0]) {
			return no("6.1 two sets of names are bound")
		}
	}
	if len(subjects)+len(names) == 0 {
		return v
	}
	if v.renews != nil { // 6.3
		if len(subjects) > 0 && v.cn != subjects[0] {
			return no("6.3 the signer has another subject")
		}
		if len(names) == 0 { // what the profile makes of the common name is its own
			if slices.ContainsFunc(v.sans, func(n string) bool { return n != v.cn }) {
				return no("6.3 the signer has more names")
			}
			return v
		}
		sans := slices.Clone(v.sans)
		slices.Sort(sans)
		if !slices.Equal(sans, names[0]) {
			return no("6.3 the signer has other names")
		}
		return v
	}
	var sans []string
	if len(names) > 0 {
		sans = names[0]
	}
	switch {
	case len(subjects) > 0 && v.cn != subjects[0]:
		return no("6.2 another subject")
	case len(subjects) == 0 && !slices.Contains(sans, v.cn):
		return no("6.2 another common name")
	}
	for _, n := range v.sans {
		if !slices.Contains(sans, n) && (len(subjects) == 0 || n != subjects[0]) {
			return no("6.2 another name")
		}
	}
	v.sans = sans
	return v
}

// names are those of the certificate: without any, the profile makes one of the common name.
func (v verdict) names() []string {
	sans := slices.Clone(v.sans)
	if len(sans) == 0 {
		sans = []string{v.cn}
	}
	slices.Sort(sans)
	return slices.Compact(sans)
}

// approve is section 8: what a person's approval makes of a request that waits.
func (w *world) approve(m *memory, now time.Time) verdict {
	a, v := m.ask, m.verdict
	g := w.gates[a.point]
	if m.state != pki.EnrollmentPending || !now.Before(m.ends) {
		return no("8 it does not wait")
	}
	if s := a.signer; s != nil {
		switch {
		case s.void:
			return no("1.1 the signer is revoked or on hold")
		case !w.proves(s) && v.renews != nil:
			return no("1.2 the signer's key is blocked, or its issuer's is not good")
		case w.proves(s) && !w.served(s.device):
			return no("1.3 the signer's device is not served")
		}
	}
	if s := v.renews; s != nil {
		if byPoint := strings.HasPrefix(s.requester, "scep:"); s.profile != orElse(g.config.Profile, "device") && byPoint && s.requester != "scep:"+a.point {
			return no("2.1 another profile")
		}
		if s.ended(now) && g.config.Return.Policy == enrollment.ReturnRefuse {
			return no("3 it has ended")
		}
	} else {
		v.cn, v.sans = a.cn, a.sans
	}
	v.answer, v.rule, v.longest, v.said = granted, "8 approved", 0, m.said
	if m.said != nil {
		v.longest = m.said.longest
	}
	return w.key(a, w.check(g, a, v, now))
}

// again is section 9: the certificate or the answer that the same request has got already. surely says that nothing else
// may become of it.
func (w *world) again(a ask, now time.Time) (m *memory, surely bool) {
	m = w.rows[w.row(a)]
	if m == nil || !now.Before(m.ends) {
		return m, false
	}
	sameSigner := (a.signer == nil) == (m.ask.signer == nil) && (a.signer == nil || a.signer.key.Equal(m.ask.signer.key))
	if a.signer != nil && m.ask.signer == nil || a.signer == nil && m.ask.signer != nil {
		// A device that signs with the key of the request, by itself or with its certificate, is one signer's key.
		sameSigner = w.signingKey(a).Equal(w.signingKey(m.ask))
	}
	if !sameSigner || a.signer != nil && a.signer == m.issued {
		return m, false
	}
	same := a.octets() == m.ask.octets()
	switch {
	case same:
	case m.challenge != nil && a.challenge != m.challenge.text:
	case m.replaces != nil:
		same = a.signer == m.replaces
	case m.challenge != nil || a.challenge != "" && a.challenge == w.gates[a.point].static:
		same = a.cn == m.ask.cn && slices.Equal(a.sans, m.ask.sans)
	}
	if !same {
		return m, false
	}
	if m.state == pki.EnrollmentIssued && (m.issued.void || m.issued.ended(now)) {
		return m, false
	}
	return m, true
}

// remember puts a request in the place of what the point remembered under its key before: that waits no more.
func (w *world) remember(m *memory) {
	key := w.row(m.ask)
	if old := w.rows[key]; old != nil && old.state == pki.EnrollmentPending {
		old.state = 0
	}
	w.rows[key] = m
}

// several tells whether a poll for a request may mean another one, of the same transactionID.
func (w *world) several(m *memory) bool {
	for key, other := range w.rows {
		if key.point == m.ask.point && key.id == m.ask.id && other != m {
			return true
		}
	}
	return false
}

func (w *world) signingKey(a ask) *rsa.PrivateKey {
	if a.signer != nil {
		return a.signer.key
	}
	return a.key
}

// introduce notes the device of which a webhook has told the group. It is in the registry before its first certificate, even
// if it does not get one.
func (w *world) introduce(v verdict) {
	allowed := v.answer == granted || v.last
	if allowed && v.said != nil && v.said.group != "" && v.device != "" && w.devices[v.device] == nil {
		w.devices[v.device] = &known{status: pki.DeviceExpected, group: v.said.group}
	}
}

// issue notes a certificate.
func (w *world) issue(h *held, renews *held, t *token) {
	w.issued++
	h.at = w.issued
	if renews != nil {
		renews.renewed = true
	}
	if t != nil {
		t.gone = true
	}
	w.byKey[keyName(h.key)] = append(w.byKey[keyName(h.key)], h)
	if h.device == "" {
		return
	}
	w.lines[h.device+" "+h.profile] = append(w.lines[h.device+" "+h.profile], h)
	d := w.devices[h.device]
	if d == nil {
		d = &known{status: pki.DeviceEnrolled}
		w.devices[h.device] = d
	}
	d.tries = 0
	if d.status == pki.DeviceExpected {
		d.status = pki.DeviceEnrolled
	}
}
