package enrollment_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
	"github.com/certwright/certwright/pkg/store/sqlite"
	"github.com/certwright/certwright/pkg/webhook"
)

// patience is how long a test waits for what must come.
const patience = 3 * time.Minute

// plainSealer keeps secrets as they are, under their names.
type plainSealer struct{}

func (plainSealer) Seal(name string, secret []byte) ([]byte, error) {
	return slices.Concat([]byte(name+"\x00"), secret), nil
}

func (plainSealer) Open(name string, sealed []byte) ([]byte, error) {
	secret, ok := bytes.CutPrefix(sealed, []byte(name+"\x00"))
	if !ok {
		return nil, errors.New("sealed under another name")
	}
	return bytes.Clone(secret), nil
}

// hooks is a store with points, and a clock that tests move.
type hooks struct {
	t      *testing.T
	store  store.Store
	points *enrollment.Points
	shift  atomic.Int64
}

func (h *hooks) now() time.Time { return time.Now().Add(time.Duration(h.shift.Load())).UTC() }

// eachStore runs a test on both stores.
func eachStore(t *testing.T, run func(*hooks)) {
	t.Parallel()
	stores := []struct {
		name string
		open func(*testing.T) (store.Store, error)
	}{
		// The server is started first: a process that is being forked holds the locks of open databases for a moment.
		{"Postgres", func(t *testing.T) (store.Store, error) {
			dsn := pgtest.DSN(t)
			if _, _, err := postgres.Migrate(t.Context(), dsn); err != nil {
				return nil, err
			}
			return postgres.Open(t.Context(), postgres.Config{DSN: dsn})
		}},
		{"SQLite", func(t *testing.T) (store.Store, error) {
			path := filepath.Join(t.TempDir(), "certwright.db")
			if _, _, err := sqlite.Migrate(t.Context(), path); err != nil {
				return nil, err
			}
			return sqlite.Open(t.Context(), sqlite.Config{Path: path})
		}},
	}
	for _, kind := range stores {
		t.Run(kind.name, func(t *testing.T) {
			s, err := kind.open(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			h := &hooks{t: t, store: s}
			if h.points, err = enrollment.NewPoints(enrollment.PointsConfig{Store: s, Sealer: plainSealer{}}); err != nil {
				t.Fatal(err)
			}
			run(h)
		})
	}
}

func (h *hooks) follow() {
	h.t.Helper()
	head, err := h.store.Head(h.t.Context())
	if err == nil {
		err = h.points.Follow(h.t.Context(), head)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// put writes a point, and returns it as it is served.
func (h *hooks) put(ch enrollment.Change) *enrollment.Point {
	h.t.Helper()
	ch.Principal, ch.Now = pki.Principal{Name: "admin"}, h.now()
	if p, err := h.points.Point(ch.Config.Name); err == nil {
		ch.Version = p.Version()
	}
	if _, err := h.points.Put(h.t.Context(), ch); err != nil {
		h.t.Fatal(err)
	}
	h.follow()
	p, err := h.points.Point(ch.Config.Name)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

const hookSecret = "cwh_TEST"

// point makes a point that tells a receiver of everything.
func (h *hooks) point(name string, r *receiver) *enrollment.Point {
	h.t.Helper()
	secret := hookSecret
	return h.put(enrollment.Change{Config: enrollment.Config{Name: name, Webhook: r.rules()}, WebhookSecret: &secret})
}

// tell puts events into the store, and returns their ids.
func (h *hooks) tell(p *enrollment.Point, number int) (ids []string) {
	h.t.Helper()
	var ns []pki.Notification
	for i := range number {
		n, err := p.Notification(h.now(), webhook.Event{Type: webhook.TypeSuccess, TransactionID: fmt.Sprint(i)})
		if err != nil || n == nil {
			h.t.Fatalf("Notification = %v, %v", n, err)
		}
		ns, ids = append(ns, *n), append(ids, n.ID)
	}
	if err := h.store.PutNotifications(h.t.Context(), ns); err != nil {
		h.t.Fatal(err)
	}
	return ids
}

// run runs a notifier until the returned function is called, or the test ends.
func (h *hooks) run() (*enrollment.Notifier, func()) {
	h.t.Helper()
	n, err := enrollment.NewNotifier(enrollment.NotifierConfig{Store: h.store, Points: h.points, Now: h.now})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { n.Run(ctx) })
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	h.t.Cleanup(stop)
	return n, stop
}

// until waits for something that the store will say.
func (h *hooks) until(what string, done func([]store.NotificationBacklog) bool) {
	h.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		all, err := h.store.NotificationBacklogs(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		if done(all) {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("%s: the store has %+v", what, all)
		}
	}
}

func none(all []store.NotificationBacklog) bool { return len(all) == 0 }

func (h *hooks) recordOf(e audit.Event) (r audit.Record) {
	h.t.Helper()
	if err := json.Unmarshal(e.Bytes, &r); err != nil {
		h.t.Fatal(err)
	}
	return r
}

// receiver is a webhook on a real HTTPS server.
type receiver struct {
	t      *testing.T
	server *httptest.Server
	answer func(http.ResponseWriter, *http.Request, webhook.Event)

	mu    sync.Mutex
	taken map[string]int // by id; guarded by mu
}

func newReceiver(t *testing.T, answer func(http.ResponseWriter, *http.Request, webhook.Event)) *receiver {
	t.Helper()
	r := &receiver{t: t, taken: map[string]int{}, answer: answer}
	r.server = httptest.NewUnstartedServer(r)
	r.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // the sender has gone
	}
	if !signedWith(request.Header.Get(webhook.SignatureHeader), body, hookSecret) {
		r.t.Errorf("the message is not authenticated: %q", request.Header.Get(webhook.SignatureHeader))
	}
	var e webhook.Event
	if err := json.Unmarshal(body, &e); err != nil {
		r.t.Errorf("the receiver gets %q: %v", body, err)
	}
	if r.answer != nil {
		r.answer(w, request, e)
		return
	}
	r.take(e)
}

func (r *receiver) take(e webhook.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken[e.ID]++
}

// has reports whether every event was taken, and nothing else.
func (r *receiver) has(ids []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.taken) == len(ids) && !slices.ContainsFunc(ids, func(id string) bool { return r.taken[id] == 0 })
}

func (r *receiver) rules() *enrollment.WebhookRules {
	return &enrollment.WebhookRules{
		URL: r.server.URL, Allow: []string{"127.0.0.0/8"}, Timeout: enrollmentTimeout, Retries: new(int),
		CA:     string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})),
		Notify: []enrollment.WebhookEvent{enrollment.NotifySuccess, enrollment.NotifyFailure},
	}
}

const enrollmentTimeout = document.Duration(20 * time.Second)

// signedWith checks a message as a receiver does.
func signedWith(header string, body []byte, secret string) bool {
	stamp, rest, _ := strings.Cut(strings.TrimPrefix(header, "t="), ",")
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = io.WriteString(mac, stamp+".")
	mac.Write(body)
	return slices.Contains(strings.Split(rest, ","), "v1="+hex.EncodeToString(mac.Sum(nil)))
}

// Everything is delivered, and then forgotten; more than a batch, and what has failed at first, too.
func TestNotifier(t *testing.T) {
	eachStore(t, func(h *hooks) {
		var mended atomic.Bool
		r := newReceiver(h.t, nil)
		r.answer = func(w http.ResponseWriter, _ *http.Request, e webhook.Event) {
			if !mended.Load() && e.TransactionID[len(e.TransactionID)-1] == '7' {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			r.take(e)
		}
		p := h.point("default", r)
		ids := h.tell(p, 80)
		before, err := h.store.Head(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		n, stop := h.run()
		const slow = 8 // 7, 17, ... 77
		h.until("the others", func(all []store.NotificationBacklog) bool {
			return len(all) == 1 && all[0].Waiting == slow && strings.Contains(all[0].Error, "503") && all[0].Attempts > 0
		})
		mended.Store(true)
		h.shift.Add(int64(2 * time.Hour))
		n.Wake()
		h.until("all of them", none)
		stop()
		if !r.has(ids) {
			h.t.Errorf("the receiver has taken %d events, want %d", len(r.taken), len(ids))
		}
		got := n.Counts()
		if got[enrollment.NotificationCount{Point: "default", Outcome: "delivered"}] != int64(len(ids)) || got[enrollment.NotificationCount{Point: "default", Outcome: "failed"}] < slow {
			h.t.Errorf("Counts = %v after %d were delivered and %d failed at first", got, len(ids), slow)
		}
		if after, err := h.store.Head(h.t.Context()); err != nil || after != before {
			h.t.Errorf("Head = %+v, %v; want %+v", after, err, before)
		}
	})
}

// What a process held that died is sent by another; and a webhook that hangs holds up no other.
func TestNotifierTakesOver(t *testing.T) {
	eachStore(t, func(h *hooks) {
		hung := make(chan struct{}, 1)
		hang := newReceiver(h.t, func(_ http.ResponseWriter, r *http.Request, _ webhook.Event) {
			select {
			case hung <- struct{}{}:
			default:
			}
			<-r.Context().Done()
		})
		good := newReceiver(h.t, nil)
		h.tell(h.point("a", hang), 3)
		p := h.point("b", good)
		ids := h.tell(p, 3)
		if held, err := h.store.ClaimNotifications(h.t.Context(), "b", h.now(), h.now().Add(time.Hour), 2); err != nil || len(held) != 2 {
			h.t.Fatalf("ClaimNotifications = %v, %v", held, err)
		}
		n, _ := h.run()
		<-hung
		h.until("what nobody held", func(all []store.NotificationBacklog) bool { return len(all) == 2 && all[1].Waiting == 2 })
		h.shift.Add(int64(2 * time.Hour))
		n.Wake()
		h.until("what the dead held", func(all []store.NotificationBacklog) bool { return len(all) == 1 && all[0].Point == "a" })
		if !good.has(ids) {
			h.t.Errorf("the receiver has %v, want %v", good.taken, ids)
		}
	})
}

// What is not taken for a week is given up, with a record; at a point without a webhook, too.
func TestNotifierGivesUp(t *testing.T) {
	eachStore(t, func(h *hooks) {
		r := newReceiver(h.t, func(w http.ResponseWriter, _ *http.Request, _ webhook.Event) {
			w.WriteHeader(http.StatusInternalServerError)
		})
		ids := h.tell(h.point("default", r), 2)
		lost := h.tell(h.point("gone", r), 1)
		h.put(enrollment.Change{Config: enrollment.Config{Name: "gone"}})
		h.shift.Add(int64(8 * 24 * time.Hour))
		n, stop := h.run()
		h.until("the first", func(all []store.NotificationBacklog) bool {
			return !slices.ContainsFunc(all, func(b store.NotificationBacklog) bool { return b.Point == "default" })
		})
		n.Abandon(h.t.Context())
		h.until("the other", none)
		stop()
		events, _, err := h.store.AuditEvents(h.t.Context(), store.AuditFilter{Action: audit.ActionWebhookGiveUp}, store.Page{})
		if err != nil || len(events) != 2 {
			h.t.Fatalf("the audit trail has %+v, %v", events, err)
		}
		gone, tried := h.recordOf(events[0]), h.recordOf(events[1])
		if gone.Target != "enrollment_point/gone" {
			gone, tried = tried, gone
		}
		if d := gone.Detail; gone.Target != "enrollment_point/gone" || d["events"] != lost[0] || d["number"] != "1" || !strings.Contains(d["error"], "no webhook") {
			h.t.Errorf("the record of what has no webhook is %+v", gone)
		}
		if d := tried.Detail; tried.Target != "enrollment_point/default" || d["number"] != "2" || !strings.Contains(d["events"], ids[0]) || !strings.Contains(d["events"], ids[1]) || !strings.Contains(d["error"], "500") {
			h.t.Errorf("the record of what was tried is %+v", tried)
		}
	})
}

// A webhook's secret is sealed, can be changed without a gap, and goes with the webhook.
func TestWebhookSecret(t *testing.T) {
	eachStore(t, func(h *hooks) {
		var header string
		var body []byte
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			header = r.Header.Get(webhook.SignatureHeader)
			body, _ = io.ReadAll(r.Body)
			_, _ = io.WriteString(w, `{"decision":"allow","device":"d1"}`)
		}))
		s.StartTLS()
		h.t.Cleanup(s.Close)
		rules := (&receiver{server: s}).rules()
		cfg := enrollment.Config{Name: "default", Webhook: rules}
		p := h.put(enrollment.Change{Config: cfg})
		if _, err := p.AskWebhook(h.t.Context(), webhook.Event{}); p.HasWebhookSecret() || !fault.Is(err, fault.PolicyRefused) || header != "" {
			h.t.Errorf("a webhook without a secret was asked: %v", err)
		}
		first, second, third := enrollment.NewWebhookSecret(), enrollment.NewWebhookSecret(), enrollment.NewWebhookSecret()
		if first == second || len(first) < 30 {
			h.t.Errorf("the secrets are %q and %q", first, second)
		}
		for _, step := range []struct {
			secret      string
			overlap     time.Duration
			want, never []string
		}{
			{first, 0, []string{first}, nil},
			{second, time.Hour, []string{first, second}, nil},
			{third, 0, []string{third}, []string{first, second}},
		} {
			p = h.put(enrollment.Change{Config: cfg, WebhookSecret: &step.secret, WebhookOverlap: step.overlap})
			answer, err := p.AskWebhook(h.t.Context(), webhook.Event{ID: "E"})
			if err != nil || answer.Device != "d1" {
				h.t.Fatalf("AskWebhook = %+v, %v", answer, err)
			}
			for _, secret := range step.want {
				if !signedWith(header, body, secret) {
					h.t.Errorf("%q has no signature by %q", header, secret)
				}
			}
			for _, secret := range step.never {
				if signedWith(header, body, secret) {
					h.t.Errorf("%q has a signature by %q", header, secret)
				}
			}
		}
		kept := h.put(enrollment.Change{Config: cfg})
		if !kept.HasWebhookSecret() {
			h.t.Error("a change of other settings has taken the secret away")
		}
		h.put(enrollment.Change{Config: enrollment.Config{Name: "other"}})
		if same, err := h.points.Point("default"); err != nil || same != kept {
			h.t.Error("a point that has not changed was loaded anew")
		}
		events, _, err := h.store.AuditEvents(h.t.Context(), store.AuditFilter{}, store.Page{})
		if err != nil {
			h.t.Fatal(err)
		}
		for _, e := range events {
			if bytes.Contains(e.Bytes, []byte(third)) {
				h.t.Errorf("the secret is in the audit trail: %s", e.Bytes)
			}
		}
		_, err = h.points.Put(h.t.Context(), enrollment.Change{Config: enrollment.Config{Name: "other"}, Version: 1, WebhookSecret: &first})
		if !fault.Is(err, fault.BadRequest) {
			h.t.Errorf("a secret without a webhook: %v", err)
		}
		h.put(enrollment.Change{Config: enrollment.Config{Name: "default"}})
		if _, err := h.store.Secret(h.t.Context(), pki.SecretWebhook("default")); !fault.Is(err, fault.NotFound) {
			h.t.Errorf("the secret of a webhook that is gone: %v", err)
		}
	})
}

func TestNotificationsThatNobodyWants(t *testing.T) {
	t.Parallel()
	rules := &enrollment.WebhookRules{URL: "https://hook.example.com", Notify: []enrollment.WebhookEvent{enrollment.NotifyFailure}}
	for name, tt := range map[string]struct {
		config enrollment.Config
		event  string
		want   bool
	}{
		"no webhook":      {enrollment.Config{}, webhook.TypeFailure, false},
		"another type":    {enrollment.Config{Webhook: rules}, webhook.TypeSuccess, false},
		"what it is told": {enrollment.Config{Webhook: rules}, webhook.TypeFailure, true},
	} {
		n, err := enrollment.PointOf(tt.config).Notification(policyNow, webhook.Event{Type: tt.event})
		if err != nil || (n != nil) != tt.want {
			t.Errorf("%s: %v, %v", name, n, err)
		}
	}
}
