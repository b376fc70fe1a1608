package scep_test

import (
	"crypto/rsa"
	"crypto/x509"
	"flag"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

// simulatedKeys are for devices that are simulated.
var simulatedKeys = sync.OnceValue(func() *scepraw.Keys { return new(scepraw.Keys) })

// TestPolicy plays random histories of small fleets against the server: devices enroll and renew in every form, at any
// point, with any key, certificate and challenge that exists; messages are repeated and sent elsewhere; challenges,
// devices, certificates and settings change, requests are approved and denied, time passes. Whoever asks may be a thief:
// everybody has everything. Each answer is held to the policy (judge_test.go): no certificate is issued that it forbids,
// and none is refused that it allows.
//
// With -rapid.checks unchanged it ends after some seconds. More: -run TestPolicy -rapid.checks=5000.
func TestPolicy(t *testing.T) {
	t.Parallel()
	fresh := func() *stage { return newStage(newRigAt(t, keys.P256, time.Now().UTC().Truncate(time.Second))) }
	s := fresh()
	deadline := time.Now().Add(12 * time.Second)
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() != f.DefValue {
		deadline = time.Now().Add(24 * time.Hour)
	}
	number, steps, issued, fallen, rules := 0, 0, 0, 0, map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		if time.Now().After(deadline) {
			return
		}
		// Certificates must not outlive their issuer, and a server's clock never goes back: a new one now and then.
		if time.Duration(s.shift.Load()) > 6*365*day || s.revoked {
			s = fresh()
		}
		number++
		h := &history{stage: s, rt: rt, rules: rules}
		h.begin(number)
		for range rapid.IntRange(5, 40).Draw(rt, "steps") {
			if time.Now().After(deadline) {
				break
			}
			h.later(time.Second)
			h.step()
			steps++
		}
		h.fail(h.rise())
		issued, fallen = issued+s.world.issued, fallen+h.fallen
	})
	t.Logf("%d histories, %d steps, %d certificates, %d falls of the issuer", number, steps, issued, fallen)
	for _, rule := range slices.Sorted(maps.Keys(rules)) {
		t.Logf("%6d %s", rules[rule], rule)
	}
}

// history is one run: a few devices, keys and points.
type history struct {
	*stage
	rt         *rapid.T
	rules      map[string]int // how often each was used
	ids        []string
	keys       []*rsa.PrivateKey
	tokens     []*token
	certs      []*held
	rows       []*memory
	past       []pastAsk
	points     []string
	fallen     int // how often the issuer fell
	ra, issuer *x509.Certificate
}

// pastAsk is a message that was sent.
type pastAsk struct {
	ask  ask
	sent scepraw.Sent
}

func (h *history) fail(err error) {
	h.rt.Helper()
	if err != nil {
		h.rt.Fatal(err)
	}
}

func (h *history) chance(label string, percent int) bool {
	return rapid.IntRange(1, 100).Draw(h.rt, label) <= percent
}

func pick[T any](h *history, label string, list ...T) T {
	return rapid.SampledFrom(list).Draw(h.rt, label)
}

func (h *history) begin(number int) {
	h.stage.world = newWorld()
	h.later(time.Hour)
	for i := range 4 {
		h.ids = append(h.ids, fmt.Sprintf("d%d.f%d.example.com", i, number))
		h.keys = append(h.keys, simulatedKeys().Next())
	}
	h.keys = append(h.keys, simulatedKeys().Next(), simulatedKeys().Next())
	for _, name := range []string{"default", "second", "third"}[:rapid.IntRange(1, 3).Draw(h.rt, "points")] {
		h.points = append(h.points, name)
		h.settings(name)
	}
	h.meet()
}

// meet asks for the CA's certificates.
func (h *history) meet() {
	var err error
	h.ra, h.issuer, err = h.raCertificate()
	h.fail(err)
}

// settings draws those of a point.
func (h *history) settings(name string) {
	c := enrollment.Config{}
	c.Approval = h.chance("approval", 10)
	if h.chance("profile", 15) {
		c.Profile = profile.Client
	}
	c.Device.Registered = h.chance("registered", 10)
	c.Device.Identity = pick(h, "identity", "", "", enrollment.IdentityNone, enrollment.IdentityCommonName, enrollment.IdentityDNSName)
	if h.chance("templates", 12) {
		c.Subject = pick(h, "subject", "", "CN={device}")
		c.SANs = pick(h, "sans", nil, []string{"DNS:{device}"}, []string{"DNS:{device}", "DNS:{group}.example.com"}, []string{"DNS:{device}", "DNS:{label:site}.{owner}.example.com"})
	}
	c.Challenges = pick(h, "kinds", nil, nil, nil, nil, nil, nil, []enrollment.ChallengeKind{enrollment.ChallengeOneTime}, []enrollment.ChallengeKind{enrollment.ChallengeStatic})
	if h.chance("webhook", 25) {
		c.Webhook = h.hook()
		if c.Webhook.When = pick(h, "when", "", enrollment.WhenAlways); c.Webhook.When == "" || h.chance("its challenges, too", 50) {
			c.Challenges = append(slices.Clone(c.Challenges), enrollment.ChallengeWebhook)
			if h.chance("and others", 70) {
				c.Challenges = []enrollment.ChallengeKind{enrollment.ChallengeOneTime, enrollment.ChallengeStatic, enrollment.ChallengeWebhook}
			}
		}
	}
	c.Renewal.Percent = pick(h, "percent", 0, 0, 10, 30, 100)
	c.Renewal.Challenge = h.chance("challenge too", 10)
	c.Renewal.NewKey = h.chance("new key", 10)
	c.Return.Policy = pick(h, "return", "", enrollment.ReturnPending, enrollment.ReturnGrace, enrollment.ReturnGrace, enrollment.ReturnGrace, enrollment.ReturnRefuse)
	if c.Return.Policy == enrollment.ReturnGrace {
		c.Return.Grace = profile.Duration(pick(h, "grace", 0, 5*day, 90*day))
		c.Return.Attempts = pick(h, "attempts", 0, 1, 2)
		c.Return.Validity = profile.Duration(pick(h, "validity", 0, day, 300*day))
		c.Return.NewKey = h.chance("new key on return", 15)
	}
	c.Replacement = pick(h, "replacement", "", enrollment.ReplaceSupersede, enrollment.ReplaceRevoke, enrollment.ReplacePending, enrollment.ReplaceRefuse)
	c.RetryWindow = profile.Duration(pick(h, "retry window", 0, time.Hour, 30*day))
	c.PendingLife = profile.Duration(pick(h, "pending life", 0, time.Hour, 60*day))
	for _, s := range []enrollment.Switch{enrollment.LegacySharedKeys, enrollment.LegacySHA1Renewal} {
		if h.chance(string(s), 15) {
			if c.Legacy == nil {
				c.Legacy = map[enrollment.Switch]enrollment.Date{}
			}
			c.Legacy[s] = enrollment.Date{Time: h.now().Truncate(day).Add(pick(h, "until", 10*day, 400*day))}
		}
	}
	h.fail(h.setPoint(name, &gate{config: c, static: pick(h, "static", "", "", "correct horse "+name)}))
}

// step does one thing.
func (h *history) step() {
	if h.world.fallen && h.chance("the issuer rises", 20) {
		h.fail(h.rise())
	}
	switch what := rapid.IntRange(0, 99).Draw(h.rt, "what"); {
	case what < 26:
		h.enroll()
	case what < 52:
		h.renewal()
	case what < 60:
		h.repeat()
	case what < 63:
		h.token(h.ids[0], h.points[0])
	case what < 65:
		if t := h.some("revoked token"); t != nil && !t.gone && h.now().Before(t.ends) {
			h.fail(h.store.RevokeChallenge(h.rt.Context(), t.id, h.now(), audit.Record{Time: h.now(), Action: audit.ActionChallengeEnd}))
			t.gone = true
		}
	case what < 72:
		h.device()
	case what < 77:
		h.status()
	case what < 87:
		h.later(pick(h, "time", time.Hour, 25*time.Hour, 6*day, 40*day, 100*day, 200*day))
		h.meet()
	case what < 90:
		h.settings(pick(h, "point", h.points...))
	case what < 92:
		if !h.world.fallen {
			h.fallen++
			h.fail(h.fall(pick(h, "the issuer becomes", pki.OnHold, pki.OnHold, pki.OnHold, pki.Revoked)))
		}
	default:
		h.decideOne()
	}
}

func (h *history) some(label string) *token {
	if len(h.tokens) == 0 {
		return nil
	}
	return rapid.SampledFrom(h.tokens).Draw(h.rt, label)
}

// token makes a challenge: mostly for this device and this point.
func (h *history) token(device, point string) *token {
	t := &token{point: point, ends: h.now().Add(pick(h, "token's life", day, 7*day, 300*day))}
	if h.chance("another point", 5) {
		t.point = pick(h, "token's point", h.points...)
	}
	if h.chance("of a device", 60) {
		if t.device = device; h.chance("another device", 10) {
			t.device = pick(h, "token's device", h.ids...)
		}
	}
	if h.chance("binds the subject", 30) {
		t.cn = device
	}
	if h.chance("binds names", 30) {
		t.sans = []string{device}
		if h.chance("two", 15) {
			t.sans = append(t.sans, "x."+device)
		}
	}
	if h.chance("token's profile", 10) {
		t.profile = pick(h, "profile", profile.Device, profile.Client)
	}
	h.fail(h.newToken(t))
	if !t.gone {
		h.tokens = append(h.tokens, t)
	}
	return t
}

// names draws what a request for a device asks for.
func (h *history) names(a *ask, device string) {
	if a.cn = device; h.chance("another's name", 7) {
		a.cn = pick(h, "name", h.ids...)
	}
	switch rapid.IntRange(0, 19).Draw(h.rt, "names") {
	default:
		a.sans = []string{a.cn}
	case 0, 1, 2, 3:
	case 4, 5:
		a.sans = []string{a.cn, "x." + a.cn}
	case 6:
		a.sans = []string{a.cn, pick(h, "second name", h.ids...)}
	}
	slices.Sort(a.sans)
	a.sans = slices.Compact(a.sans)
}

// secret draws a challenge for a request.
func (h *history) secret(device, point string) string {
	switch rapid.IntRange(0, 19).Draw(h.rt, "secret") {
	case 0:
		return ""
	case 1:
		return pick(h, "word", "correct horse default", "correct horse second", "wrong", "AAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAAAAAA")
	case 2, 3:
		if g := h.world.gates[point]; g.static != "" {
			return g.static
		}
	case 4, 5, 6:
		if t := h.some("token"); t != nil {
			return t.text
		}
	}
	return h.token(device, point).text
}

func (h *history) key(label string, i int) *rsa.PrivateKey {
	if h.chance(label, 80) {
		return h.keys[i]
	}
	return rapid.SampledFrom(h.keys).Draw(h.rt, label+" of")
}

func (h *history) enroll() {
	i := rapid.IntRange(0, len(h.ids)-1).Draw(h.rt, "device")
	a := ask{point: pick(h, "point", h.points...), kind: pick(h, "type", "19", "19", "19", "17"), id: newID(), key: h.key("key", i)}
	h.names(&a, h.ids[i])
	a.challenge = h.secret(h.ids[i], a.point)
	a.sha1 = h.chance("SHA-1", 5)
	h.ask(a)
}

func (h *history) renewal() {
	if len(h.certs) == 0 {
		h.enroll()
		return
	}
	c := h.certs[len(h.certs)-1-min(len(h.certs)-1, rapid.IntRange(0, 5).Draw(h.rt, "certificate"))]
	a := ask{point: pick(h, "point", h.points...), kind: pick(h, "type", "19", "17"), id: newID(), signer: c, key: c.key}
	if h.chance("new key", 40) {
		a.key = rapid.SampledFrom(h.keys).Draw(h.rt, "key")
		if h.chance("really new", 50) {
			a.key = simulatedKeys().Next()
		}
	}
	h.names(&a, c.cn)
	if h.chance("with a challenge", 25) {
		a.challenge = h.secret(orElse(c.device, c.cn), a.point)
	}
	a.sha1 = h.chance("SHA-1", 8)
	// Mostly when it is time.
	if from := c.cert.NotAfter.Add(-c.cert.NotAfter.Sub(c.cert.NotBefore) / 100 * 9); h.chance("in time", 35) && h.now().Before(from) {
		h.later(from.Sub(h.now()).Truncate(time.Hour) + time.Hour)
		h.meet()
	} else if end := c.cert.NotAfter; h.chance("late", 40) && h.now().Before(end) {
		h.later(end.Sub(h.now()).Truncate(time.Hour) + pick(h, "by", time.Hour, 3*day, 20*day, 80*day))
		h.meet()
	}
	h.ask(a)
}

// repeat sends an old request once more: as it was, in a new envelope, to another point, or with another key under its
// transactionID.
func (h *history) repeat() {
	if len(h.past) == 0 {
		h.enroll()
		return
	}
	old := h.past[len(h.past)-1-min(len(h.past)-1, rapid.IntRange(0, 4).Draw(h.rt, "message"))]
	a := old.ask
	switch rapid.IntRange(0, 6).Draw(h.rt, "how") {
	case 0, 1:
		h.asked(a, &old.sent)
		return
	case 2:
		a.point = pick(h, "point", h.points...)
		h.asked(a, &old.sent)
		return
	case 3:
		a.key = rapid.SampledFrom(h.keys).Draw(h.rt, "key")
	case 4:
		a.challenge = h.secret(a.cn, a.point)
	case 5:
		h.names(&a, a.cn)
	}
	h.ask(a)
}

func (h *history) ask(a ask) {
	if h.world.gates[a.point].config.Webhook != nil {
		a.says = h.opinionOf(a)
	}
	h.asked(a, nil)
}

// opinionOf draws what the webhook says of a request.
func (h *history) opinionOf(a ask) *opinion {
	var o opinion
	switch rapid.IntRange(0, 19).Draw(h.rt, "webhook says") {
	case 0:
		return nil
	case 1, 2:
		o.deny = true
	case 3, 4:
		o.pending = true
	}
	if h.chance("which device", 40) {
		if o.device = orElse(a.cn, h.ids[0]); h.chance("another", 10) {
			o.device = pick(h, "device", h.ids...)
		}
	}
	o.group = pick(h, "its group", "", "", "g1")
	if h.chance("other names", 20) {
		o.cn = pick(h, "its subject", "", a.cn, a.cn, h.ids[0])
		o.sans = pick(h, "its names", nil, []string{a.cn}, []string{"y." + a.cn})
	}
	o.longest = pick(h, "its life", 0, 0, 20*day, 3000*day)
	return &o
}

func (h *history) asked(a ask, sent *scepraw.Sent) {
	out, err := h.try(a, h.ra, sent)
	h.rules[out.verdict.rule]++
	h.fail(err)
	h.past = append(h.past, pastAsk{a, out.sent})
	switch {
	case out.got != nil && !out.again:
		h.certs = append(h.certs, out.got)
	case out.Status == "3":
		if m := h.world.rows[h.world.row(a)]; !slices.Contains(h.rows, m) {
			h.rows = append(h.rows, m)
		}
	}
}

func (h *history) device() {
	id := pick(h, "device", h.ids...)
	var status pki.DeviceStatus
	if h.world.devices[id] != nil {
		status = pick(h, "status", 0, 0, pki.DeviceBlocked, pki.DeviceRetired, pki.DeviceEnrolled, pki.DeviceEnrolled)
	}
	h.fail(h.changeDevice(id, status, known{
		group: pick(h, "group", "", "g1", "g2"), owner: pick(h, "owner", "", "o1", "o2"), site: pick(h, "site", "", "s1"),
		subject: pick(h, "bound subject", "", "", id), sans: pick(h, "bound names", nil, nil, nil, []string{id}, []string{id}, []string{id, "x." + id}),
	}))
}

func (h *history) status() {
	if len(h.certs) == 0 {
		return
	}
	c := rapid.SampledFrom(h.certs).Draw(h.rt, "certificate")
	r, err := h.store.Certificate(h.rt.Context(), fingerprint(c.cert))
	h.fail(err)
	switch {
	case r.Revocation == nil && h.chance("key compromise", 25):
		h.fail(h.stolen(c))
	case r.Revocation == nil:
		h.fail(h.setStatus(c, pick(h, "becomes", pki.Revoked, pki.OnHold)))
	case r.Revocation.Status == pki.OnHold:
		h.fail(h.setStatus(c, pki.Good))
	}
}

func (h *history) decideOne() {
	if len(h.rows) == 0 {
		h.renewal()
		return
	}
	m := h.rows[len(h.rows)-1-min(len(h.rows)-1, rapid.IntRange(0, 2).Draw(h.rt, "request"))]
	if h.chance("poll", 30) {
		_, err := h.poll(m, h.ra, h.issuer)
		h.fail(err)
		return
	}
	c, err := h.decide(m, h.chance("approve", 75))
	h.fail(err)
	if c != nil {
		h.certs = append(h.certs, c)
	}
	_, err = h.poll(m, h.ra, h.issuer)
	h.fail(err)
}
