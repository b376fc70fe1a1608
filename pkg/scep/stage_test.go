package scep_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/webhook"
)

// stage is where simulated devices meet the server: the front-end on a real store, and the world as the policy sees it
// (judge_test.go). Every message is judged before it is sent. Its methods are safe for concurrent use, as long as each
// device is one goroutine's.
type stage struct {
	*rig
	front http.Handler
	tap   *tap
	mu    sync.Mutex
	world *world // guarded by mu
	// What the webhook says when it is asked next. It is one for all: with webhooks, messages are not sent at once.
	opinion atomic.Pointer[opinion]
	hooks   *httptest.Server // nil until the first point has one
	// The names of points' latest versions; guarded by mu.
	versions map[string]int
	revoked  bool // the issuer's certificate; guarded by mu
}

// tap is a store that tells what was issued.
type tap struct {
	store.Store
	mu     sync.Mutex
	issued []pki.Certificate // guarded by mu
}

// panics is the transactionID of a message that comes upon a mistake of ours.
const panics = "panics"

// Request implements store.Store.
func (t *tap) Request(ctx context.Context, q store.RequestQuery) (store.RequestFacts, error) {
	if q.TransactionID == panics {
		panic("a mistake of ours, about " + panics)
	}
	return t.Store.Request(ctx, q)
}

// RecordIssuance implements store.Store.
func (t *tap) RecordIssuance(ctx context.Context, i store.Issuance) error {
	err := t.Store.RecordIssuance(ctx, i)
	if err == nil && i.Certificate.Protocol == "scep" {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.issued = append(t.issued, i.Certificate)
	}
	return err
}

// of returns the certificates that were issued for a key since the last call, and forgets them.
func (t *tap) of(key *rsa.PrivateKey) []pki.Certificate {
	t.mu.Lock()
	defer t.mu.Unlock()
	var own []pki.Certificate
	t.issued = slices.DeleteFunc(t.issued, func(c pki.Certificate) bool {
		x, err := x509.ParseCertificate(c.DER)
		if err != nil {
			panic(err)
		}
		if !key.PublicKey.Equal(x.PublicKey) {
			return false
		}
		own = append(own, c)
		return true
	})
	return own
}

func newStage(r *rig) *stage {
	return &stage{rig: r, front: front(r), tap: r.store.(*tap), world: newWorld(), versions: map[string]int{}}
}

// raCertificate is what devices encrypt to, and the issuer's certificate.
func (s *stage) raCertificate() (ra, issuer *x509.Certificate, err error) {
	w := httptest.NewRecorder()
	s.front.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/scep/default?operation=GetCACert", http.NoBody))
	ra, cas, err := scepraw.CACertificates(w.Body.Bytes())
	if err != nil {
		return nil, nil, fmt.Errorf("GetCACert: %d: %w", w.Code, err)
	}
	return ra, cas[0], nil
}

// setPoint gives a point these settings.
func (s *stage) setPoint(name string, g *gate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.config.Name = name
	version := s.versions[name]
	if p, err := s.points.Point(name); err == nil {
		version = p.Version()
	}
	change := enrollment.Change{Principal: pki.System(), Now: s.now(), Config: g.config, Version: version, Static: &g.static}
	if secret := hookSecret; g.config.Webhook != nil {
		change.WebhookSecret = &secret
	}
	v, err := s.points.Put(s.t.Context(), change)
	if err != nil {
		return fmt.Errorf("settings of %s: %w", name, err)
	}
	s.versions[name], s.world.gates[name] = v.Version, g
	return s.sync(s.t.Context())
}

// hook returns the rules of the webhook, which says what opinion has.
func (s *stage) hook() *enrollment.WebhookRules {
	if s.hooks == nil {
		s.hooks = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			o := s.opinion.Load()
			if o == nil {
				http.Error(w, "it has none", http.StatusInternalServerError)
				return
			}
			answer := webhook.Answer{Decision: webhook.Allow, Device: o.device, Group: o.group, Validity: document.Duration(o.longest)}
			switch {
			case o.deny:
				answer = webhook.Answer{Decision: webhook.Deny}
			case o.pending:
				answer.Decision = webhook.Pending
			}
			if o.cn != "" {
				answer.Subject = "CN=" + o.cn
			}
			for _, n := range o.sans {
				answer.SANs = append(answer.SANs, "DNS:"+n)
			}
			if err := json.NewEncoder(w).Encode(answer); err != nil {
				s.t.Error(err)
			}
		}))
		s.t.Cleanup(s.hooks.Close)
	}
	return &enrollment.WebhookRules{
		URL: s.hooks.URL, Allow: []string{"127.0.0.1"}, Timeout: document.Duration(20 * time.Second), Retries: new(int),
		CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.hooks.Certificate().Raw})),
	}
}

// newToken makes a challenge in the store. Its text is new.
func (s *stage) newToken(t *token) error {
	text, c := enrollment.NewChallenge()
	t.text, t.id = text, c.ID
	c.Point, c.Profile, c.Device, c.CreatedAt, c.ExpiresAt = t.point, t.profile, t.device, s.now(), t.ends
	if t.cn != "" {
		c.Subject = "CN=" + t.cn
	}
	for _, n := range t.sans {
		c.SANs = append(c.SANs, "DNS:"+n)
	}
	err := s.store.CreateChallenges(s.t.Context(), []pki.Challenge{c}, audit.Record{Time: s.now(), Action: audit.ActionChallenge})
	s.mu.Lock()
	defer s.mu.Unlock()
	if served := s.world.served(t.device); served != (err == nil) {
		return fmt.Errorf("a challenge for the device %q, served %v: %w", t.device, served, err)
	}
	if err != nil {
		t.gone = true
		return nil
	}
	s.world.tokens[text] = t
	if t.device != "" && s.world.devices[t.device] == nil {
		s.world.devices[t.device] = &known{status: pki.DeviceExpected}
	}
	return nil
}

// changeDevice writes a device's record, and makes it if there is none. status 0 leaves it.
func (s *stage) changeDevice(id string, status pki.DeviceStatus, want known) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	record := audit.Record{Time: s.now(), Action: audit.ActionChallenge, Target: "device/" + id}
	d := pki.Device{
		ID: id, Version: 1, Status: pki.DeviceExpected, Group: want.group, Owner: want.owner, CreatedAt: s.now(), CreatedBy: "test", ChangedAt: s.now(), ChangedBy: "test",
	}
	if want.site != "" {
		d.Labels = map[string]string{"site": want.site}
	}
	if want.subject != "" {
		d.Subject = "CN=" + want.subject
	}
	for _, n := range want.sans {
		d.SANs = append(d.SANs, "DNS:"+n)
	}
	k := s.world.devices[id]
	if k == nil {
		if status != 0 {
			d.Status = status
		}
		if err := s.store.CreateDevices(s.t.Context(), []pki.Device{d}, record); err != nil {
			return err
		}
		want.status = d.Status
		s.world.devices[id] = &want
		return nil
	}
	old, err := s.store.Device(s.t.Context(), id)
	if err != nil {
		return err
	}
	if old.Status != k.status {
		return fmt.Errorf("device %s is %s in the registry, want %s", id, old.Status, k.status)
	}
	old.Version++
	old.Group, old.Owner, old.Labels, old.Subject, old.SANs, old.ChangedAt = d.Group, d.Owner, d.Labels, d.Subject, d.SANs, d.ChangedAt
	if status != 0 {
		old.Status = status
	}
	if err := s.store.ChangeDevice(s.t.Context(), store.DeviceChange{Device: old, Record: record}); err != nil {
		return err
	}
	want.status, want.tries = old.Status, k.tries
	*k = want
	return nil
}

// stolen revokes a certificate since its key is known to others, and with it all that have this key. The key is refused from
// now on.
func (s *stage) stolen(h *held) error {
	_, err := s.ca.Revoke(s.t.Context(), ca.StatusRequest{Principal: pki.System(), Certificate: fingerprint(h.cert), Reason: pki.KeyCompromise})
	if err == nil {
		err = s.sync(s.t.Context())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.world.blocked[keyName(h.key)] = true
	for _, h := range s.world.byKey[keyName(h.key)] {
		h.void = true
	}
	return err
}

// setStatus revokes a certificate, holds it, or lets it go again.
func (s *stage) setStatus(h *held, status pki.Status) error {
	r := ca.StatusRequest{Principal: pki.System(), Certificate: fingerprint(h.cert), Reason: pki.Superseded}
	var err error
	switch status {
	case pki.Revoked:
		_, err = s.ca.Revoke(s.t.Context(), r)
	case pki.OnHold:
		_, err = s.ca.Hold(s.t.Context(), r)
	default:
		_, err = s.ca.Release(s.t.Context(), r)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h.void = status != pki.Good
	return nil
}

// fall has the issuer's certificate be on hold, or revoked, which is for good.
func (s *stage) fall(status pki.Status) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.world.fallen, s.revoked = true, status == pki.Revoked
	return s.issuerIs(status)
}

// rise has the issuer's certificate be good again, if it was on hold.
func (s *stage) rise() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.world.fallen || s.revoked {
		return nil
	}
	s.world.fallen = false
	return s.issuerIs(pki.Good)
}

// outcome is what became of a message.
type outcome struct {
	scepraw.Answer
	verdict verdict
	again   bool  // the certificate was given before
	got     *held // of a SUCCESS
	sent    scepraw.Sent
}

// request is a, as a device sends it.
func (a ask) request(ra *x509.Certificate) scepraw.Request {
	r := scepraw.Request{
		RA: ra, MessageType: a.kind, TransactionID: a.id, Key: a.key, CommonName: a.cn, DNSNames: a.sans, Challenge: a.challenge,
	}
	if a.signer != nil {
		r.Signer, r.SignKey = a.signer.cert, a.signer.key
	}
	if a.sha1 {
		r.Digest = crypto.SHA1
	}
	return r
}

// post sends octets to a point and reads the answer.
func (s *stage) post(point string, sent scepraw.Sent, ra *x509.Certificate) (scepraw.Answer, error) {
	r := httptest.NewRequest(http.MethodPost, "/scep/"+point+"?operation=PKIOperation", bytes.NewReader(sent.Body))
	r.RemoteAddr = "127.0.0.1:1"
	w := httptest.NewRecorder()
	s.front.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return scepraw.Answer{}, fmt.Errorf("PKIOperation: %d: %s", w.Code, w.Body)
	}
	return sent.Read(w.Body.Bytes(), ra)
}

// errOldRA says that the RA has not the key any more to which a message is encrypted.
var errOldRA = errors.New("badMessageCheck: the message is encrypted to another certificate")

// try sends a request that has been judged, and holds the answer to the verdict. An error says that the server has broken
// the policy. sent, when not nil, are the octets of an earlier message.
func (s *stage) try(a ask, ra *x509.Certificate, sent *scepraw.Sent) (outcome, error) {
	s.mu.Lock()
	now := s.now()
	v := s.world.judge(a, now)
	before, surely := s.world.again(a, now)
	s.mu.Unlock()
	s.opinion.Store(a.says)
	if sent == nil {
		m := a.request(ra).Send()
		sent = &m
	}
	out := outcome{verdict: v, sent: *sent}
	var err error
	if out.Answer, err = s.post(a.point, *sent, ra); err != nil {
		return out, err
	}
	if out.Status == "2" && out.FailInfo == "1" {
		return out, errOldRA
	}
	fresh := s.tap.of(a.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.comesby && !surely {
		if d := s.world.devices[v.device]; d != nil {
			d.tries++
		}
	}
	if !surely {
		s.world.introduce(v)
	}
	broken := func(format string, args ...any) error {
		return fmt.Errorf("%s\nasked: %s\nverdict: %s (%s), as of %s\nanswer: %s", fmt.Sprintf(format, args...), a.describe(), v.answer, v.rule, now.Format(time.DateTime), out.Answer)
	}
	switch {
	case len(fresh) > 1:
		return out, broken("%d certificates were issued", len(fresh))
	case len(fresh) == 1 && (out.Status != "0" || !bytes.Equal(out.Certificate.Raw, fresh[0].DER)):
		return out, broken("a certificate was issued, and the device does not have it")
	case len(fresh) == 1:
		if v.answer != granted {
			return out, broken("a certificate was issued that the policy forbids")
		}
		if surely && s.world.served(before.deviceOf()) && before.state != pki.EnrollmentDenied {
			return out, broken("the same request was answered anew")
		}
		h, err := s.take(a, v, fresh[0])
		if err != nil {
			return out, broken("%v", err)
		}
		out.got = h
		s.world.remember(&memory{
			ask: a, state: pki.EnrollmentIssued, issued: h, challenge: v.token, replaces: v.renews, said: v.said, ends: now.Add(s.world.gates[a.point].retryWindow()),
		})
		return out, nil
	case out.Status == "0":
		// A certificate from before: of the same key and point, and good.
		if before == nil || before.issued == nil || !before.issued.cert.Equal(out.Certificate) || !now.Before(before.ends) {
			return out, broken("a certificate was given that is of another request")
		}
		if h := before.issued; h.void || h.ended(now) || !s.world.served(h.device) {
			return out, broken("a certificate was given again that is not good, or to a device that is not served")
		}
		out.again, out.got = true, before.issued
		return out, nil
	case out.Status == "3":
		if before != nil && before.state == pki.EnrollmentPending && now.Before(before.ends) && surely {
			return out, nil
		}
		if v.answer != waits {
			return out, broken("the request waits, against the policy")
		}
		m := &memory{ask: a, state: pki.EnrollmentPending, verdict: v, challenge: v.token, replaces: v.renews, said: v.said, ends: now.Add(s.world.gates[a.point].pendingLife())}
		if v.token != nil {
			v.token.gone = true
		}
		if m.id, err = s.waitingID(a); err != nil {
			return out, broken("%v", err)
		}
		s.world.remember(m)
		return out, nil
	}
	switch {
	case v.either:
	case surely && before.state == pki.EnrollmentDenied:
	case surely && s.world.served(before.deviceOf()) && (a.signer == nil || !a.signer.void && s.world.served(a.signer.device)):
		return out, broken("the same request is not answered as before: %+v", before)
	case surely:
	case v.answer == granted, v.answer == waits && !expired(before, now):
		return out, broken("a request was refused that the policy allows")
	}
	return out, nil
}

// expired tells whether a request has waited for too long.
func expired(m *memory, now time.Time) bool {
	return m != nil && m.state == pki.EnrollmentPending && !now.Before(m.ends)
}

// deviceOf is whose request was remembered.
func (m *memory) deviceOf() string {
	if m.issued != nil {
		return m.issued.device
	}
	return m.verdict.device
}

func (g *gate) retryWindow() time.Duration {
	if g.config.RetryWindow == 0 {
		return 24 * time.Hour
	}
	return time.Duration(g.config.RetryWindow)
}

func (g *gate) pendingLife() time.Duration {
	if g.config.PendingLife == 0 {
		return 7 * 24 * time.Hour
	}
	return time.Duration(g.config.PendingLife)
}

// waitingID finds the request that waits.
func (s *stage) waitingID(a ask) (string, error) {
	public, err := x509.MarshalPKIXPublicKey(&a.key.PublicKey)
	if err != nil {
		return "", err
	}
	e, err := s.store.Enrollment(s.t.Context(), a.point, a.id, keys.SPKIHash(public))
	if err == nil && e.State != pki.EnrollmentPending {
		err = fmt.Errorf("it is %s in the store", e.State)
	}
	return e.ID, err
}

// take checks that a certificate is what the verdict says, and notes it. The caller holds mu.
func (s *stage) take(a ask, v verdict, c pki.Certificate) (*held, error) {
	x, err := x509.ParseCertificate(c.DER)
	if err != nil {
		return nil, err
	}
	h := &held{cert: x, key: a.key, cn: x.Subject.CommonName, sans: slices.Sorted(slices.Values(x.DNSNames)), profile: c.Profile, device: c.Device, requester: c.Requester}
	var wrong []string
	check := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			wrong = append(wrong, fmt.Sprintf("%s is %v, want %v", what, got, want))
		}
	}
	check("common name", h.cn, v.cn)
	check("DNS names", h.sans, v.names())
	check("other names", len(x.EmailAddresses)+len(x.URIs)+len(x.IPAddresses), 0)
	check("profile", h.profile, v.profile)
	check("device", h.device, v.device)
	check("is a CA", x.IsCA, false)
	if life := x.NotAfter.Sub(s.now()); v.longest > 0 && life > v.longest {
		check("life", life, v.longest)
	}
	if v.renews != nil {
		check("what it replaces", c.Replaces, fingerprint(v.renews.cert))
	} else {
		check("what it replaces", c.Replaces, pki.Fingerprint{})
	}
	if v.token != nil {
		t, err := s.store.Challenge(s.t.Context(), v.token.id)
		check("reading its challenge", err, nil)
		if v.token.gone != (v.rule == "8 approved") {
			check("challenge used before", v.token.gone, false)
		}
		check("the challenge's certificate", t.UsedBy, c.Fingerprint)
	}
	if len(wrong) > 0 {
		return nil, errors.New("the certificate is not the one that was allowed: " + strings.Join(wrong, "; "))
	}
	older := slices.Clone(s.world.lines[h.device+" "+h.profile])
	s.world.issue(h, v.renews, v.token)
	if v.revokes {
		if err := s.replaced(h, older); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// describe is for people who read a failure.
func (a ask) describe() string {
	signer := "itself"
	if h := a.signer; h != nil {
		signer = fmt.Sprintf("the certificate %d (%s, device %q, profile %s, until %s, renewed %v, void %v)", h.at, h.cn, h.device, h.profile, h.cert.NotAfter.Format(time.DateTime), h.renewed, h.void)
	}
	return fmt.Sprintf("%s at %s, transactionID %s, key %.8x, names %s %q, challenge %.10s, signed by %s, SHA-1 %v, webhook %+v",
		a.kind, a.point, a.id, a.key.N.Bytes()[:4], a.cn, a.sans, a.challenge, signer, a.sha1, a.says)
}

// decide approves or denies a request that waits, and holds the outcome to the policy.
func (s *stage) decide(m *memory, approve bool) (*held, error) {
	by := pki.Principal{Name: "operator", Role: pki.RoleOperator}
	s.mu.Lock()
	v := s.world.approve(m, s.now())
	s.mu.Unlock()
	if !approve {
		_, err := s.handler.Deny(s.t.Context(), by, "", m.id, "no")
		s.mu.Lock()
		defer s.mu.Unlock()
		if waiting := m.state == pki.EnrollmentPending && s.now().Before(m.ends); waiting != (err == nil) {
			return nil, fmt.Errorf("denying a request that waits, %v: %w", waiting, err)
		}
		if err == nil {
			m.state, m.ends = pki.EnrollmentDenied, laterOf(m.ends, s.now().Add(s.world.gates[m.ask.point].retryWindow()))
		}
		return nil, nil
	}
	_, err := s.handler.Approve(s.t.Context(), by, "", m.id)
	fresh := s.tap.of(m.ask.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.world.introduce(v)
	broken := func(format string, args ...any) error {
		return fmt.Errorf("%s\napproved: %s\nverdict: %s (%s), as of %s\nerror: %w", fmt.Sprintf(format, args...), m.ask.describe(), v.answer, v.rule, s.now().Format(time.DateTime), err)
	}
	switch {
	case len(fresh) != 0 && v.answer != granted:
		return nil, broken("a certificate was issued by approval that the policy forbids")
	case len(fresh) == 0 && v.answer == granted && !v.either:
		return nil, broken("an approval was refused that the policy allows")
	case len(fresh) == 0:
		if k := fault.KindOf(err); k == fault.Internal || k == fault.Unavailable {
			return nil, broken("an approval failed")
		}
		return nil, nil
	case len(fresh) > 1 || err != nil:
		return nil, broken("%d certificates were issued", len(fresh))
	}
	h, err := s.take(m.ask, v, fresh[0])
	if err != nil {
		return nil, broken("%v", err)
	}
	m.state, m.issued, m.ends = pki.EnrollmentIssued, h, laterOf(m.ends, s.now().Add(s.world.gates[m.ask.point].retryWindow()))
	return h, nil
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// poll asks for the answer to a request that has waited. Whatever comes must be the certificate of that very request.
func (s *stage) poll(m *memory, ra, issuer *x509.Certificate) (scepraw.Answer, error) {
	sent := m.ask.request(ra).Poll(issuer)
	answer, err := s.post(m.ask.point, sent, ra)
	if err != nil {
		return answer, err
	}
	fresh := s.tap.of(m.ask.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	switch {
	case len(fresh) > 0:
		return answer, fmt.Errorf("a poll issued a certificate: %s", m.ask.describe())
	case s.world.several(m): // whose answer it is, nothing tells
	case answer.Status == "0" && (m.issued == nil || !m.issued.cert.Equal(answer.Certificate)):
		return answer, fmt.Errorf("a poll brought another request's certificate: %s", m.ask.describe())
	case answer.Status == "0" && (m.issued.void || m.issued.ended(now) || !s.world.served(m.issued.device)):
		return answer, fmt.Errorf("a poll brought a certificate that is not good: %s", m.ask.describe())
	case answer.Status == "3" && (m.state != pki.EnrollmentPending || !now.Before(m.ends)):
		return answer, fmt.Errorf("a poll is told to wait for what does not wait any more: %s", m.ask.describe())
	}
	return answer, nil
}

func newID() string { return rand.Text() }

// replaced has the device's older certificates revoked, as its point says. The caller holds mu.
func (s *stage) replaced(h *held, older []*held) error {
	d, err := s.store.Device(s.t.Context(), h.device)
	if err != nil {
		return err
	}
	if len(older) > 0 && (d.RevokeUntil.IsZero() || d.RevokeReason != pki.Superseded) {
		return fmt.Errorf("the older certificates of %s are not to be revoked: until %s for %s", d.ID, d.RevokeUntil, d.RevokeReason)
	}
	for _, o := range older {
		if o.void || o.ended(s.now()) {
			continue
		}
		if _, err := s.ca.Revoke(s.t.Context(), ca.StatusRequest{Principal: pki.System(), Certificate: fingerprint(o.cert), Reason: pki.Superseded}); err != nil {
			return err
		}
		o.void = true
	}
	return s.store.DeviceRevoked(s.t.Context(), d.ID, d.RevokeUntil)
}

// block blocks a device, and has its certificates revoked.
func (s *stage) block(id string) error {
	if err := s.changeDevice(id, pki.DeviceBlocked, known{}); err != nil {
		return err
	}
	s.mu.Lock()
	var good []*held
	for line, all := range s.world.lines {
		if strings.HasPrefix(line, id+" ") {
			for _, h := range all {
				if !h.void {
					good = append(good, h)
				}
			}
		}
	}
	s.mu.Unlock()
	for _, h := range good {
		if err := s.setStatus(h, pki.Revoked); err != nil {
			return err
		}
	}
	return nil
}
