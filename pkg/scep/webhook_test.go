package scep_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/scep"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/webhook"
)

const (
	hookSecret = "cwh_SECRET"
	pin        = "a pin of the broker's"
)

// broker is a webhook on a real HTTPS server, which remembers what it was asked.
type broker struct {
	*rig
	server *httptest.Server

	mu     sync.Mutex
	answer func(http.ResponseWriter, *http.Request) // guarded by mu, as what follows
	asked  []webhook.Event
}

// broker sets the default point up with a webhook.
func (r *rig) broker(edit func(*enrollment.Config)) *broker {
	r.t.Helper()
	b := &broker{rig: r}
	b.server = httptest.NewUnstartedServer(b)
	b.server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	b.server.StartTLS()
	r.t.Cleanup(b.server.Close)
	b.says(`{"decision":"allow"}`)
	b.set(func(c *enrollment.Config) {
		c.Challenges = []enrollment.ChallengeKind{enrollment.ChallengeOneTime, enrollment.ChallengeStatic, enrollment.ChallengeWebhook}
		c.Webhook = &enrollment.WebhookRules{
			URL: b.server.URL, Allow: []string{"127.0.0.1"}, Timeout: document.Duration(20 * time.Second), Retries: new(int),
			CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.server.Certificate().Raw})),
		}
		if edit != nil {
			edit(c)
		}
	})
	return b
}

// set changes the point, and gives its webhook the secret.
func (b *broker) set(edit func(*enrollment.Config)) {
	b.t.Helper()
	p, err := b.points.Point(enrollment.DefaultPoint)
	if err != nil {
		b.t.Fatal(err)
	}
	c := p.Config()
	if c.Webhook != nil { // what is in force must not change
		own := *c.Webhook
		c.Webhook = &own
	}
	edit(&c)
	secret, static := hookSecret, staticText
	if _, err := b.points.Put(b.t.Context(), enrollment.Change{
		Principal: pki.System(), Now: b.now(), Config: c, Version: p.Version(), Static: &static, WebhookSecret: &secret,
	}); err != nil {
		b.t.Fatal(err)
	}
	if err := b.sync(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *broker) does(h func(http.ResponseWriter, *http.Request)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = h
}

func (b *broker) says(text string) {
	b.does(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
}

func (b *broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	stamp, rest, _ := strings.Cut(strings.TrimPrefix(r.Header.Get(webhook.SignatureHeader), "t="), ",v1=")
	mac := hmac.New(sha256.New, []byte(hookSecret))
	_, _ = io.WriteString(mac, stamp+"."+string(body))
	if hex.EncodeToString(mac.Sum(nil)) != rest {
		b.t.Errorf("the message is not authenticated: %q", r.Header)
	}
	var e webhook.Event
	if err := json.Unmarshal(body, &e); err != nil {
		b.t.Errorf("%s: %v", body, err)
	}
	b.mu.Lock()
	b.asked = append(b.asked, e)
	answer := b.answer
	b.mu.Unlock()
	answer(w, r)
}

// one returns the one event that came since the last call.
func (b *broker) one() webhook.Event {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.asked) != 1 {
		b.t.Fatalf("the webhook was asked %d times, want once", len(b.asked))
	}
	e := b.asked[0]
	b.asked = nil
	return e
}

// none checks that the webhook was not asked.
func (b *broker) none(what string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.asked) != 0 {
		b.t.Errorf("%s: the webhook was asked: %+v", what, b.asked)
	}
	b.asked = nil
}

// told returns what waits for the webhook.
func (b *broker) told() (events []webhook.Event) {
	b.t.Helper()
	all, err := b.store.ClaimNotifications(b.t.Context(), enrollment.DefaultPoint, b.now(), b.now().Add(time.Hour), 100)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, n := range all {
		var e webhook.Event
		if err := json.Unmarshal(n.Body, &e); err != nil || e.ID != n.ID || e.Point != n.Point {
			b.t.Errorf("notification %s: %s, %v", n.ID, n.Body, err)
		}
		events = append(events, e)
	}
	return events
}

// newest is the newest audit record of an action.
func (r *rig) newest(action string) (record audit.Record) {
	r.t.Helper()
	events, _, err := r.store.AuditEvents(r.t.Context(), store.AuditFilter{Action: action}, store.Page{Limit: 1})
	if err != nil || len(events) != 1 || json.Unmarshal(events[0].Bytes, &record) != nil {
		r.t.Fatalf("the newest %s: %v, %v", action, events, err)
	}
	return record
}

func TestWebhookAllows(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	b := r.broker(func(c *enrollment.Config) {
		c.Device.Identity = enrollment.IdentityCommonName
		c.Webhook.Notify = []enrollment.WebhookEvent{enrollment.NotifySuccess, enrollment.NotifyFailure}
	})
	d := r.device(deviceKey())
	request := d.csr(pin)
	got := d.ask("19", request).success(t)
	e := b.one()
	if e.Version != 1 || e.Type != "request" || e.ID == "" || e.Point != "default" || e.Protocol != "scep" || e.TransactionID != d.id || e.Source == "" || e.Renews != nil ||
		e.Request.Message != "PKCSReq" || e.Request.Challenge != pin || e.Request.ChallengeKind != "webhook" || e.Request.Subject != "CN=device" ||
		e.Request.Profile != "device" || e.Request.Key != "rsa-2048" || e.Device == nil || e.Device.ID != "device" || e.Device.Registered {
		t.Errorf("the webhook was asked %+v, %+v, %+v", e, e.Request, e.Device)
	}
	block, _ := pem.Decode([]byte(e.Request.CSR))
	key, _ := pem.Decode([]byte(e.Request.PublicKey))
	if block == nil || !bytes.Equal(block.Bytes, request) || key == nil || !bytes.Equal(key.Bytes, got.RawSubjectPublicKeyInfo) {
		t.Errorf("the webhook was shown %q and %q", e.Request.CSR, e.Request.PublicKey)
	}
	if record := r.newest(audit.ActionIssue); record.Detail["webhook"] != e.ID || record.Detail["by"] != "webhook" {
		t.Errorf("the audit trail has %+v", record)
	}
	told := b.told()
	if len(told) != 1 || told[0].Type != "success" || told[0].Decision != e.ID || told[0].TransactionID != d.id || told[0].Device.ID != "device" || told[0].Certificate == nil {
		t.Fatalf("the webhook is told %+v", told)
	}
	if c, _ := pem.Decode([]byte(told[0].Certificate.PEM)); c == nil || !bytes.Equal(c.Bytes, got.Raw) || told[0].Certificate.Serial != serialOf(got).String() {
		t.Errorf("the webhook is told of %+v", told[0].Certificate)
	}

	// The same again is the same certificate, and no question.
	if again := d.ask("19", request).success(t); !again.Equal(got) {
		t.Error("the same request has got another certificate")
	}
	b.none("a request that is repeated")
	if n := r.handler.Webhooks()[scep.WebhookCount{Point: "default", Outcome: "allow"}]; n != 1 {
		t.Errorf("%d decisions were counted, want 1", n)
	}
}

// What a webhook says of the certificate comes in place of what the request says, and must fit what else binds.
func TestWebhookOverrides(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	b := r.broker(func(c *enrollment.Config) {
		c.Webhook.Notify = []enrollment.WebhookEvent{enrollment.NotifyFailure}
		c.Subject, c.SANs = "CN={device},OU={group}", []string{"DNS:{device}.example.com"}
	})
	d := r.device(deviceKey())
	b.says(`{"decision":"allow","device":"d1","group":"g1","subject":"CN=d1,OU=g1","sans":["DNS:d1.example.com"],"validity":"2d"}`)
	got := d.ask("19", d.csr(pin)).success(t)
	if got.Subject.String() != "CN=d1,OU=g1" || !slices.Equal(got.DNSNames, []string{"d1.example.com"}) || got.NotAfter.After(r.now().Add(2*24*time.Hour)) {
		t.Errorf("the certificate has %s, %v, until %s", got.Subject, got.DNSNames, got.NotAfter)
	}
	record, err := r.store.Device(t.Context(), "d1")
	if err != nil || record.Group != "g1" || record.Status != pki.DeviceEnrolled {
		t.Errorf("the registry has %+v, %v", record, err)
	}
	if told := b.told(); len(told) != 0 {
		t.Errorf("the webhook is told %+v", told)
	}
	_ = b.one()

	count := r.count()
	for name, tt := range map[string]struct{ says, reason, detail string }{
		"a name that the point does not allow":  {`{"decision":"allow","device":"d2","sans":["DNS:d1.example.com"]}`, "names", ""},
		"a name that the profile does not know": {`{"decision":"allow","device":"d2","subject":"CN=d2\u202e"}`, "names", ""},
	} {
		next := r.device(otherKey())
		b.says(tt.says)
		next.ask("19", next.csr(pin)).failure(t, "2")
		e := b.one()
		told := b.told()
		if len(told) != 1 || told[0].Type != "failure" || told[0].Reason != tt.reason || told[0].Decision != e.ID || told[0].Certificate != nil {
			t.Errorf("%s: the webhook is told %+v", name, told)
		}
	}
	for name, says := range map[string]string{
		"a subject that is none": `{"decision":"allow","subject":"CN"}`, "a name that is none": `{"decision":"allow","sans":["IP:nonsense"]}`,
		"something unknown": `{"decision":"allow","devise":"d1"}`,
	} {
		next := r.device(otherKey())
		b.says(says)
		next.ask("19", next.csr(pin)).failure(t, "2", "cannot be decrypted")
		_ = b.one()
		if told := b.told(); len(told) != 0 {
			t.Errorf("%s: the webhook is told %+v", name, told)
		}
	}
	if n := r.count(); n != count {
		t.Errorf("%d certificates were issued", n-count)
	}
}

// A webhook that does not allow, or does not answer, has nothing issued; the device cannot tell one from the other, nor from
// a wrong challenge.
func TestWebhookRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	b := r.broker(func(c *enrollment.Config) { c.Webhook.Notify = []enrollment.WebhookEvent{enrollment.NotifyFailure} })
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("a redirect was followed")
		_, _ = io.WriteString(w, `{"decision":"allow"}`)
	}))
	t.Cleanup(elsewhere.Close)
	count := r.count()
	for _, tt := range []struct {
		name, outcome, why string
		does               func(http.ResponseWriter, *http.Request)
		edit               func(*enrollment.WebhookRules)
		unasked            bool
	}{
		{name: "deny", outcome: "deny", why: "stolen?[2J", does: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"decision":"deny","reason":"stolen\u001b[2J"}`)
		}},
		{name: "broken", outcome: "status", why: "500", does: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }},
		{name: "garbage", outcome: "answer", why: "not one", does: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "allow") }},
		{name: "a redirect", outcome: "status", why: "redirects", does: http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect).ServeHTTP},
		{name: "cut", outcome: "connection", why: "cut", does: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{name: "slow", outcome: "timeout", why: "did not answer", unasked: true, does: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, edit: func(w *enrollment.WebhookRules) {
			w.Timeout = document.Duration(200 * time.Millisecond)
		}},
		{name: "a certificate of somebody else", outcome: "tls", why: "trust anchor", unasked: true, edit: func(w *enrollment.WebhookRules) {
			w.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.device(deviceKey()).issuer.Raw}))
		}},
		{name: "a name that is not the certificate's", outcome: "tls", why: "another name", unasked: true, edit: func(w *enrollment.WebhookRules) {
			w.URL, w.Allow = strings.Replace(w.URL, "127.0.0.1", "localhost", 1), []string{"localhost"}
		}},
		{name: "an address that is not listed", outcome: "address", why: "webhook.allow", unasked: true, edit: func(w *enrollment.WebhookRules) { w.Allow = nil }},
	} {
		if tt.does != nil {
			b.does(tt.does)
		}
		before, err := r.points.Point(enrollment.DefaultPoint)
		if err != nil {
			t.Fatal(err)
		}
		rules := *before.Config().Webhook
		if tt.edit != nil {
			edited := rules
			tt.edit(&edited)
			b.set(func(c *enrollment.Config) { c.Webhook = &edited })
		}
		d := r.device(otherKey())
		d.ask("19", d.csr(pin)).failure(t, "2", "cannot be decrypted, is no valid certificate request, or has no challenge")
		if !tt.unasked {
			_ = b.one()
		}
		if n := r.handler.Webhooks()[scep.WebhookCount{Point: "default", Outcome: tt.outcome}]; n == 0 {
			t.Errorf("%s: the outcomes are %v, want %s", tt.name, r.handler.Webhooks(), tt.outcome)
		}
		if record := r.newest(audit.ActionRefuse); !strings.Contains(record.Detail["why"], tt.why) {
			t.Errorf("%s: the audit trail has %+v, want %q", tt.name, record, tt.why)
		}
		b.mu.Lock()
		b.asked = nil
		b.mu.Unlock()
		b.set(func(c *enrollment.Config) { c.Webhook = &rules })
	}
	if n := r.count(); n != count {
		t.Errorf("%d certificates were issued", n-count)
	}
	if told := b.told(); len(told) != 0 {
		t.Errorf("the webhook is told of its own refusals: %+v", told)
	}
	b.says(`{"decision":"allow"}`)
	d := r.device(otherKey())
	d.ask("19", d.csr(pin)).success(t)
}

// A webhook sees its own challenges, and no others.
func TestWebhookSeesNoOtherChallenge(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	b := r.broker(nil)
	text := r.challenge()
	wrong := text[:len(text)-1] + "A"
	if wrong == text {
		wrong = text[:len(text)-1] + "B"
	}
	unknown, _ := enrollment.NewChallenge()
	d := r.device(deviceKey())
	for name, challenge := range map[string]string{"a wrong secret": wrong, "an unknown one-time challenge": unknown, "none": ""} {
		d.ask("19", d.csr(challenge)).failure(t, "2")
		b.none(name)
	}
	d.ask("19", d.csr(text)).success(t)
	b.none("a one-time challenge")
	r.device(otherKey()).ask("19", r.device(otherKey()).csr(staticText)).success(t)
	b.none("a static challenge")

	// When it decides on everything, it is told of which kind they are.
	b.set(func(c *enrollment.Config) { c.Webhook.When = enrollment.WhenAlways })
	secret := func(what, kind string, e webhook.Event, texts ...string) {
		t.Helper()
		all, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if e.Request.ChallengeKind != kind || e.Request.Challenge != "" || e.Request.CSR != "" || e.Request.PublicKey == "" {
			t.Errorf("%s: the webhook is asked %+v", what, e.Request)
		}
		for _, text := range texts {
			if bytes.Contains(all, []byte(text)) {
				t.Errorf("%s: the challenge is in %s", what, all)
			}
		}
	}
	d = r.device(newRSAKey(2048))
	text = r.challenge(func(c *pki.Challenge) { c.Device = "d9" })
	b.says(`{"decision":"deny","reason":"not yet"}`)
	d.ask("19", d.csr(text)).failure(t, "2", "the webhook refused the request: not yet")
	e := b.one()
	secret("one-time", "one-time", e, text)
	if e.Device == nil || e.Device.ID != "d9" || e.Device.Registered != (e.Device.Status != "") {
		t.Errorf("the device is %+v", e.Device)
	}
	b.says(`{"decision":"allow"}`)
	first := d.ask("19", d.csr(text)).success(t)
	secret("one-time", "one-time", b.one(), text)
	other := r.device(newRSAKey(2048))
	other.ask("19", other.csr(staticText)).success(t)
	secret("static", "static", b.one(), staticText)

	// So it is asked about renewals, with the certificate.
	r.later(first.NotAfter.Sub(r.now()) - 24*time.Hour)
	if err := r.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.ra = r.certificates()[0]
	d.signer = first
	b.says(`{"decision":"deny"}`)
	d.ask("17", d.csr()).failure(t, "2", "the webhook refused the request")
	if e = b.one(); e.Renews == nil || e.Renews.Serial != serialOf(first).String() || e.Request.ChallengeKind != "none" || e.Request.CSR == "" || !e.Device.Registered || e.Device.Status != "enrolled" {
		t.Errorf("the webhook is asked %+v, %+v, %+v", e, e.Request, e.Renews)
	}
	b.says(`{"decision":"allow","device":"another"}`)
	d.ask("17", d.csr()).failure(t, "2", "the webhook says")
	_ = b.one()
	b.says(`{"decision":"allow"}`)
	d.ask("17", d.csr()).success(t)
	if e = b.one(); e.Request.Message != "RenewalReq" {
		t.Errorf("the webhook is asked %+v", e.Request)
	}
}

// What a webhook leaves to a person waits, and gets what the webhook has said.
func TestWebhookLeavesItToAPerson(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	b := r.broker(func(c *enrollment.Config) {
		c.Webhook.Notify = []enrollment.WebhookEvent{enrollment.NotifySuccess, enrollment.NotifyFailure}
	})
	operator := pki.Principal{Name: "token:op", Role: pki.RoleOperator}
	poll := scepraw.Sequence(scepraw.Name("Issuing CA"), scepraw.Name("device"))
	waits := func(d *device) pki.Enrollment {
		t.Helper()
		if got := d.ask("19", d.csr(pin)); got.status != "3" {
			t.Fatalf("status %s %q, want PENDING", got.status, got.text)
		}
		list, _, err := r.store.ListEnrollments(t.Context(), store.EnrollmentFilter{States: []pki.EnrollmentState{pki.EnrollmentPending}}, store.Page{Limit: 1})
		if err != nil || len(list) != 1 {
			t.Fatalf("waiting: %v, %v", list, err)
		}
		return list[0]
	}
	b.says(`{"decision":"pending","reason":"who is that","device":"d1","group":"g1","subject":"CN=d1","validity":"3d"}`)
	d := r.device(deviceKey())
	e := waits(d)
	asked := b.one()
	if !strings.Contains(e.Reason, "who is that") || e.Device != "d1" {
		t.Errorf("it waits as %+v", e)
	}
	if again := waits(d); again.ID != e.ID {
		t.Error("the same request waits twice")
	}
	b.none("a request that waits")
	if _, err := r.handler.Approve(t.Context(), operator, "", e.ID); err != nil {
		t.Fatal(err)
	}
	b.none("a request that a person approves")
	got := d.ask("20", poll).success(t)
	if got.Subject.String() != "CN=d1" || got.NotAfter.After(r.now().Add(3*24*time.Hour)) {
		t.Errorf("the certificate is for %s until %s", got.Subject, got.NotAfter)
	}
	if record, err := r.store.Device(t.Context(), "d1"); err != nil || record.Group != "g1" {
		t.Errorf("the registry has %+v, %v", record, err)
	}
	if told := b.told(); len(told) != 1 || told[0].Type != "success" || told[0].Decision != asked.ID || told[0].Device.ID != "d1" {
		t.Errorf("the webhook is told %+v", told)
	}

	d = r.device(otherKey())
	b.says(`{"decision":"pending","device":"d2"}`)
	e = waits(d)
	asked = b.one()
	if _, err := r.handler.Deny(t.Context(), operator, "", e.ID, "nobody knows it"); err != nil {
		t.Fatal(err)
	}
	d.ask("20", poll).failure(t, "2", "nobody knows it")
	if told := b.told(); len(told) != 1 || told[0].Type != "failure" || told[0].Reason != "denied" || told[0].Detail != "nobody knows it" || told[0].Decision != asked.ID || told[0].Device.ID != "d2" {
		t.Errorf("the webhook is told %+v", told)
	}

	// What nobody could approve, since the names are none that the profile gives, does not wait.
	d = r.device(otherKey())
	b.says(`{"decision":"pending","device":"d3","sans":["DNS:pki.example.com"]}`)
	d.ask("19", d.csr(pin)).failure(t, "2", "a name of this server itself")
	asked = b.one()
	if told := b.told(); len(told) != 1 || told[0].Type != "failure" || told[0].Reason != "names" || told[0].Decision != asked.ID || told[0].Device.ID != "d3" {
		t.Errorf("the webhook is told %+v", told)
	}
}

// A request that waits and that the device sends another one in place of is over: the webhook is told, once, with the other.
func TestWebhookIsToldWhatIsSuperseded(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, r *rig) {
		b := r.broker(func(c *enrollment.Config) {
			c.Webhook.Notify = []enrollment.WebhookEvent{enrollment.NotifySuccess, enrollment.NotifyFailure}
		})
		superseded := func(what string, e webhook.Event, decision string) {
			t.Helper()
			if e.Type != "failure" || e.Reason != "superseded" || e.Detail == "" || e.Decision != decision || e.TransactionID == "" || e.Device == nil || e.Device.ID != "d1" {
				t.Errorf("%s: the webhook is told %+v", what, e)
			}
		}
		d := r.device(deviceKey())
		b.says(`{"decision":"pending","device":"d1"}`)
		d.waits(d.ask("19", d.csr(pin)), "a person")
		first := b.one()
		d.waits(d.ask("19", d.csr(pin)), "a person") // the same again
		if told := b.told(); len(told) != 0 {
			t.Errorf("the webhook is told %+v", told)
		}
		d.waits(d.ask("19", d.csr(pin+" 2")), "a person")
		second := b.one()
		told := b.told()
		if len(told) != 1 {
			t.Fatalf("the webhook is told %+v", told)
		}
		superseded("another one waits", told[0], first.ID)

		b.says(`{"decision":"allow","device":"d1"}`)
		d.ask("19", d.csr(pin+" 3")).success(t)
		third := b.one()
		told = b.told()
		if len(told) != 2 {
			t.Fatalf("the webhook is told %+v", told)
		}
		if told[0].Type == "success" {
			told[0], told[1] = told[1], told[0]
		}
		superseded("another one is issued", told[0], second.ID)
		if told[1].Type != "success" || told[1].Decision != third.ID {
			t.Errorf("the webhook is told %+v", told[1])
		}
	})
}

// A webhook that is slow takes no place from other messages.
func TestSlowWebhookHoldsUpNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.handler.SetTurns(2)
	b := r.broker(nil)
	began, release := make(chan struct{}, 4), make(chan struct{})
	b.does(func(w http.ResponseWriter, _ *http.Request) {
		began <- struct{}{}
		<-release
		_, _ = io.WriteString(w, `{"decision":"allow"}`)
	})
	var wg sync.WaitGroup
	statuses := make([]int, 4)
	for i := range statuses {
		d := r.device(newRSAKey(2048))
		m := d.message("19", d.envelope(d.csr(pin)).Bytes())
		m.SenderNonce = scepraw.Random(16)
		body := m.Bytes()
		wg.Go(func() {
			answer, err := r.server.Client().Post(r.server.URL+"/scep/default?operation=PKIOperation", "application/x-pki-message", bytes.NewReader(body))
			if err != nil {
				t.Errorf("Post: %v", err)
				return
			}
			statuses[i] = answer.StatusCode
			_ = answer.Body.Close()
		})
	}
	for range statuses {
		<-began
	}
	d := r.device(deviceKey())
	d.ask("19", d.csr(r.challenge())).success(t)
	close(release)
	wg.Wait()
	if !slices.Equal(statuses, []int{200, 200, 200, 200}) || r.count() != 5 {
		t.Errorf("the others got %v, and %d have certificates", statuses, r.count())
	}
}

// Strangers and their garbage are nothing that a webhook is told of.
func TestWebhookIsNotToldOfStrangers(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	b := r.broker(func(c *enrollment.Config) {
		c.Challenges = nil
		c.Webhook.Notify = []enrollment.WebhookEvent{enrollment.NotifySuccess, enrollment.NotifyFailure}
	})
	d := r.device(deviceKey())
	d.ask("19", d.csr("wrong")).failure(t, "2")
	d.ask("19", []byte("garbage")).failure(t, "2")
	d.ask("17", d.csr()).failure(t, "2")
	if told := b.told(); len(told) != 0 {
		t.Errorf("the webhook is told %+v", told)
	}
	first := d.enrolled()
	if told := b.told(); len(told) != 1 || told[0].Type != "success" || told[0].Decision != "" {
		t.Errorf("the webhook is told %+v", told)
	}
	d.ask("17", d.csr()).failure(t, "2", "renewed from")
	told := b.told()
	if len(told) != 1 || told[0].Reason != "not-yet-renewable" || told[0].Renews == nil || told[0].Renews.Fingerprint != fingerprint(first).String() {
		t.Errorf("the webhook is told %+v", told)
	}
	b.none("it only listens")
}
