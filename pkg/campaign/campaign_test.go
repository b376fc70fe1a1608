package campaign_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/campaign"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
)

// env is a store with an issuing CA, for any number of runners, which stand for replicas.
type env struct {
	*certtest.Hierarchy
	t       testing.TB
	store   store.Store
	issuers *issuer.Set
	now     time.Time
}

func setup(t testing.TB, s store.Store) *env {
	t.Helper()
	e := &env{t: t, store: s, now: time.Now().UTC().Truncate(time.Microsecond)}
	e.Hierarchy = certtest.Setup(t, s, e.now)
	var err error
	if e.issuers, err = issuer.Load(t.Context(), issuer.Config{Store: s, Open: certtest.Open}); err != nil {
		t.Fatal(err)
	}
	return e
}

// postgresStores opens a new database twice, as two replicas do.
func postgresStores(t testing.TB) (a, b *postgres.Store) {
	t.Helper()
	dsn := pgtest.Template(t, "certwright", func(dsn string) error {
		_, _, err := postgres.Migrate(t.Context(), dsn)
		return err
	})
	open := func() *postgres.Store {
		s, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	return open(), open()
}

// fill records n certificates of a profile, without the work of making them.
func (e *env) fill(profile string, n int, edit ...func(*pki.Certificate)) []pki.Certificate {
	e.t.Helper()
	all := make([]pki.Certificate, n)
	for i := range all {
		c := pki.Certificate{
			IssuerID: e.Issuing.IssuerID, IssuerKeyID: e.Issuing.IssuerKeyID, Subject: fmt.Sprintf("CN=%s-%07d", profile, i), Profile: profile, ProfileVersion: 1,
			Requester: "token:ra", Protocol: "rest", Device: "d", CRLScope: pki.ScopeFull, NotBefore: e.now.Truncate(time.Second),
			NotAfter: e.now.AddDate(1, 0, 0).Truncate(time.Second), IssuedAt: e.now.Add(-time.Hour + time.Duration(i/3)*time.Microsecond),
		}
		rand.Read(c.Fingerprint[:])
		rand.Read(c.SPKIHash[:])
		for _, f := range edit {
			f(&c)
		}
		var err error
		if c.Serial, err = pki.NewSerialNumber(rand.Reader, c.NotAfter, e.now); err != nil {
			e.t.Fatal(err)
		}
		all[i] = c
	}
	var wg sync.WaitGroup
	next := make(chan pki.Certificate)
	for range min(n, 256) {
		wg.Go(func() {
			for c := range next {
				err := e.store.RecordIssuance(e.t.Context(), store.Issuance{Certificate: c, Record: audit.Record{Time: c.IssuedAt, Action: audit.ActionIssue}})
				if err != nil {
					e.t.Error(err)
				}
			}
		})
	}
	for _, c := range all {
		next <- c
	}
	close(next)
	wg.Wait()
	return all
}

// runner returns one that works until the returned function is called, if it is to work at all.
func (e *env) runner(holder string, edit ...func(*campaign.Config)) *campaign.Runner {
	e.t.Helper()
	cfg := campaign.Config{Store: e.store, Issuers: e.issuers, Clock: clock.New(nil, nil), Leases: e.store, Holder: holder, Batch: 10}
	for _, f := range edit {
		f(&cfg)
	}
	r, err := campaign.New(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	return r
}

func run(r *campaign.Runner) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	return sync.OnceFunc(func() {
		cancel()
		<-done
	})
}

var operator = pki.Principal{Name: "token:operator", Role: pki.RoleOperator, Source: "192.0.2.1"}

func query(profile string) campaign.Request {
	return campaign.Request{
		Principal: operator, RequestID: "r-1", Query: `{"profile":"` + profile + `"}`, Selection: store.CertificateFilter{
			Profiles: []string{profile}, Status: []pki.Status{pki.Good, pki.OnHold},
		}, Reason: pki.Superseded,
	}
}

// begin makes a dry run and begins.
func (e *env) begin(r *campaign.Runner, q campaign.Request) store.Campaign {
	e.t.Helper()
	p, err := r.Plan(e.t.Context(), q)
	if err != nil {
		e.t.Fatalf("Plan: %v", err)
	}
	c, err := r.Begin(e.t.Context(), q, p.Confirm)
	if err != nil {
		e.t.Fatalf("Begin: %v", err)
	}
	return c
}

// wait polls until a campaign satisfies.
func (e *env) wait(id string, what string, ok func(store.Campaign) bool) store.Campaign {
	e.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		c, err := e.store.Campaign(e.t.Context(), id)
		if err != nil {
			e.t.Fatal(err)
		}
		if ok(c) {
			return c
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("after a minute the campaign is %+v, want it %s", c, what)
		}
	}
}

func done(c store.Campaign) bool { return c.State == store.CampaignDone }

// records counts the audit records of certificates by whether a campaign made them.
func (e *env) records(action string) (n int) {
	e.t.Helper()
	for p := (store.Page{Limit: 1000}); ; {
		events, next, err := e.store.AuditEvents(e.t.Context(), store.AuditFilter{Action: action}, p)
		if err != nil {
			e.t.Fatal(err)
		}
		n += len(events)
		if p.Cursor = next; next == "" {
			return n
		}
	}
}

func TestQuery(t *testing.T) {
	e := setup(t, certtest.SQLite(t))
	bad := e.fill("bad", 37)
	spared := e.fill("fine", 3)
	// A certificate of ours under the same profile, and one that was issued after the dry run.
	own := e.fill("bad", 1)[0]
	own.Serial, _ = pki.NewSerialNumber(rand.Reader, own.NotAfter, e.now)
	rand.Read(own.Fingerprint[:])
	rand.Read(own.SPKIHash[:])
	if err := e.store.RecordIssuance(t.Context(), store.Issuance{Certificate: own, ReserveKey: true, Record: audit.Record{Time: e.now, Action: audit.ActionIssue}}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	told := 0
	r := e.runner("one", func(c *campaign.Config) {
		c.Changed = func(certs []pki.Certificate) {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range certs {
				if c.Revocation == nil || c.Revocation.Status != pki.Revoked {
					t.Errorf("told of %+v", c)
				}
			}
			told += len(certs)
		}
	})
	stop := run(r)
	defer stop()
	q := query("bad")
	q.InvalidityDate = e.now.Add(-24 * time.Hour).Truncate(time.Second)
	p, err := r.Plan(t.Context(), q)
	if err != nil || p.Count != 38 || p.Revoked != 0 || len(p.Sample) != 10 {
		t.Fatalf("Plan = %+v, %v; want 38", p, err)
	}
	late := e.fill("bad", 2, func(c *pki.Certificate) { c.IssuedAt = p.AsOf.Add(time.Microsecond) })
	c, err := r.Begin(t.Context(), q, p.Confirm)
	if err != nil {
		t.Fatalf("Begin: %v", err)
	}
	c = e.wait(c.ID, "done", done)
	if c.Revoked != 38 || c.Skipped != 0 {
		t.Errorf("the campaign is %+v, want 38 revoked", c)
	}
	for _, cert := range bad {
		got, err := e.store.Certificate(t.Context(), cert.Fingerprint)
		if err != nil || got.Revocation == nil || got.Revocation.Reason != pki.Superseded || !got.Revocation.InvalidityDate.Equal(q.InvalidityDate) {
			t.Fatalf("%s is %+v, %v", cert.Subject, got.Revocation, err)
		}
	}
	for _, cert := range append(append(spared, late...), own) {
		if got, err := e.store.Certificate(t.Context(), cert.Fingerprint); err != nil || got.Revocation != nil {
			t.Errorf("%s is %+v, %v; want it good", cert.Subject, got.Revocation, err)
		}
	}
	mu.Lock()
	if told != 38 {
		t.Errorf("told of %d certificates, want 38", told)
	}
	mu.Unlock()
	for action, want := range map[string]int{audit.ActionRevoke: 38, campaign.ActionBegin: 1, campaign.ActionEnd: 1} {
		if n := e.records(action); n != want {
			t.Errorf("%d records of %s, want %d", n, action, want)
		}
	}
	events, _, err := e.store.AuditEvents(t.Context(), store.AuditFilter{Target: "certificate/" + bad[3].Fingerprint.String()}, store.Page{})
	if err != nil || len(events) != 1 {
		t.Fatalf("AuditEvents = %d, %v", len(events), err)
	}
	record, err := audit.Parse(events[0].Bytes)
	if err != nil || record.Actor != operator.Name || record.Source != operator.Source || record.Detail["campaign"] != c.ID || record.Detail["issuer"] != "issuing" {
		t.Errorf("the record of a certificate is %+v, %v", record, err)
	}
}

func TestConfirmation(t *testing.T) {
	e := setup(t, certtest.SQLite(t))
	e.fill("bad", 30)
	start := time.Now()
	now := start
	r := e.runner("one", func(c *campaign.Config) {
		c.Clock = clock.New(func() time.Time { return now }, func() time.Duration { return now.Sub(start) })
	})
	plan := func(q campaign.Request) campaign.Plan {
		t.Helper()
		p, err := r.Plan(t.Context(), q)
		if err != nil {
			t.Fatalf("Plan: %v", err)
		}
		return p
	}
	p := plan(query("bad"))
	changed := func(edit func(*campaign.Request)) campaign.Request {
		q := query("bad")
		edit(&q)
		return q
	}
	for name, test := range map[string]struct {
		q       campaign.Request
		confirm string
		want    fault.Kind
	}{
		"nothing":            {query("bad"), "", fault.Conflict},
		"made up":            {query("bad"), strings.Replace(p.Confirm, "-30-", "-31-", 1), fault.Conflict},
		"of another query":   {query("other"), p.Confirm, fault.Conflict},
		"of another reason":  {changed(func(q *campaign.Request) { q.Reason = pki.Unspecified }), p.Confirm, fault.Conflict},
		"of another date":    {changed(func(q *campaign.Request) { q.InvalidityDate = e.now.Add(-time.Hour) }), p.Confirm, fault.Conflict},
		"of somebody else":   {changed(func(q *campaign.Request) { q.Principal.Name = "token:other" }), p.Confirm, fault.Conflict},
		"of a narrower self": {changed(func(q *campaign.Request) { q.Principal.Profiles = []string{"bad"} }), p.Confirm, fault.Conflict},
		"of too many":        {changed(func(q *campaign.Request) { q.Most = 29 }), p.Confirm, fault.Forbidden},
		"of nothing":         {query("none"), plan(query("none")).Confirm, fault.Conflict},
		"hold":               {changed(func(q *campaign.Request) { q.Reason = pki.CertificateHold }), p.Confirm, fault.BadRevocationReason},
		"cACompromise":       {changed(func(q *campaign.Request) { q.Reason = pki.CACompromise }), p.Confirm, fault.BadRevocationReason},
		"the future":         {changed(func(q *campaign.Request) { q.InvalidityDate = now.Add(time.Hour) }), p.Confirm, fault.BadRequest},
	} {
		if _, err := r.Begin(t.Context(), test.q, test.confirm); !fault.Is(err, test.want) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	// The selection grows: a condition may depend on what is not fixed by the moment of the dry run.
	more := query("bad")
	more.Selection.Profiles = append(more.Selection.Profiles, "worse")
	e.fill("worse", 11)
	if _, err := r.Begin(t.Context(), more, p.Confirm); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "counted 30") {
		t.Errorf("a selection that has grown: %v, want a Conflict", err)
	}
	now = start.Add(61 * time.Minute)
	if _, err := r.Begin(t.Context(), query("bad"), p.Confirm); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "more than an hour") {
		t.Errorf("an old dry run: %v, want a Conflict", err)
	}
	now = start.Add(59 * time.Minute)
	c, err := r.Begin(t.Context(), query("bad"), p.Confirm)
	if err != nil {
		t.Fatalf("Begin: %v", err)
	}
	// Nobody runs: nothing happens, and the state can be changed all the same.
	for _, to := range []store.CampaignState{store.CampaignPaused, store.CampaignRunning, store.CampaignCancelled} {
		if c, err = r.Set(t.Context(), operator, "r-2", c.ID, to); err != nil || c.State != to {
			t.Errorf("Set(%s) = %s, %v", to, c.State, err)
		}
	}
	if _, err := r.Set(t.Context(), operator, "r-2", c.ID, store.CampaignRunning); !fault.Is(err, fault.Conflict) {
		t.Errorf("Set of a campaign that was cancelled: %v", err)
	}
	for _, action := range []string{campaign.ActionBegin, campaign.ActionPause, campaign.ActionResume, campaign.ActionCancel} {
		if n := e.records(action); n != 1 {
			t.Errorf("%d records of %s, want 1", n, action)
		}
	}
}

func TestKey(t *testing.T) {
	e := setup(t, certtest.SQLite(t))
	key := [32]byte{1, 2, 3}
	with := func(c *pki.Certificate) { c.SPKIHash = key }
	e.fill("a", 12, with)
	ended := e.fill("b", 1, with, func(c *pki.Certificate) { c.NotAfter = e.now.AddDate(0, -1, 0) })[0]
	before := e.fill("c", 1, with)[0]
	if _, err := e.store.ChangeStatus(t.Context(), store.StatusChange{
		IssuerID: before.IssuerID, Serial: before.Serial, Action: pki.ActionRevoke, Revocation: pki.Revocation{Reason: pki.Superseded, RevokedAt: e.now.Truncate(time.Second)},
		Record: audit.Record{Time: e.now, Action: audit.ActionRevoke},
	}); err != nil {
		t.Fatal(err)
	}
	r := e.runner("one")
	stop := run(r)
	defer stop()
	q := campaign.Request{Principal: operator, Key: &key, Reason: pki.KeyCompromise, Query: "{}"}
	p, err := r.Plan(t.Context(), q)
	if err != nil || p.Count != 14 || p.Revoked != 1 {
		t.Fatalf("Plan = %+v, %v; want 14, 1 of them revoked", p, err)
	}
	c, err := r.Begin(t.Context(), q, p.Confirm)
	if err != nil {
		t.Fatalf("Begin: %v", err)
	}
	issuance := store.Issuance{Certificate: e.fill("x", 1)[0], Record: audit.Record{Time: e.now, Action: audit.ActionIssue}}
	rand.Read(issuance.Certificate.Fingerprint[:])
	issuance.Certificate.Serial, _ = pki.NewSerialNumber(rand.Reader, issuance.Certificate.NotAfter, e.now)
	issuance.Certificate.SPKIHash = key
	if err := e.store.RecordIssuance(t.Context(), issuance); !fault.Is(err, fault.BadPublicKey) {
		t.Errorf("issuing for the key: %v, want BadPublicKey", err)
	}
	if c = e.wait(c.ID, "done", done); c.Revoked != 14 {
		t.Errorf("the campaign is %+v, want 14", c)
	}
	for _, cert := range []pki.Certificate{ended, before} {
		if got, err := e.store.Certificate(t.Context(), cert.Fingerprint); err != nil || got.Revocation == nil || got.Revocation.Reason != pki.KeyCompromise {
			t.Errorf("%s is %+v, %v; want keyCompromise", cert.Subject, got.Revocation, err)
		}
	}
	if n := e.records(campaign.ActionBlock); n != 1 {
		t.Errorf("%d records of the block, want 1", n)
	}
	// A key without certificates is blocked all the same.
	other := [32]byte{9}
	q.Key = &other
	if c = e.begin(r, q); e.wait(c.ID, "done", done).Revoked != 0 {
		t.Error("a key without certificates had some")
	}
	if err := r.Unblock(t.Context(), operator, "r", other); err != nil {
		t.Errorf("Unblock: %v", err)
	}
	blocked, err := e.store.BlockedKeys(t.Context())
	if err != nil || !blocked[key].Compromised || blocked[other] != (store.BlockedKey{}) {
		t.Errorf("BlockedKeys = %+v, %v", blocked, err)
	}
}

func TestPauseAndResume(t *testing.T) {
	e := setup(t, certtest.SQLite(t))
	e.fill("bad", 400)
	steps := make(chan struct{})
	r := e.runner("one", func(c *campaign.Config) { c.Changed = func([]pki.Certificate) { steps <- struct{}{} } })
	stop := run(r)
	defer stop()
	c := e.begin(r, query("bad"))
	for range 3 {
		<-steps
	}
	paused, err := r.Set(t.Context(), operator, "r", c.ID, store.CampaignPaused)
	if err != nil {
		t.Fatal(err)
	}
	// A step that was on its way has ended before the pause, or is refused; whenever it tells, it is heard.
	heard := make(chan struct{})
	defer close(heard)
	go func() {
		for {
			select {
			case <-steps:
			case <-heard:
				return
			}
		}
	}()
	at := e.wait(c.ID, "paused", func(c store.Campaign) bool { return c.State == store.CampaignPaused })
	if at.Revoked != paused.Revoked || at.Revoked < 30 || at.Revoked > 40 {
		t.Errorf("paused at %d, and then %d were revoked", paused.Revoked, at.Revoked)
	}
	stop()
	// The next process goes on where this one was.
	second := e.runner("one")
	defer run(second)()
	if _, err := second.Set(t.Context(), operator, "r", c.ID, store.CampaignRunning); err != nil {
		t.Fatal(err)
	}
	if got := e.wait(c.ID, "done", done); got.Revoked != 400 || got.Skipped != 0 {
		t.Errorf("the campaign is %+v, want 400 revoked", got)
	}
	if n := e.records(audit.ActionRevoke); n != 400 {
		t.Errorf("%d records, want 400", n)
	}
}

// TestReplicas has two replicas at several campaigns, of which the one that works is stopped in the middle: the other takes
// over, no certificate is revoked twice, and a dead replica's lease ends by itself.
func TestReplicas(t *testing.T) {
	a, b := postgresStores(t)
	e := setup(t, a)
	e.fill("bad", 300)
	e.fill("worse", 200)
	var mu sync.Mutex
	by := map[string]int{}
	replica := func(name string, s store.Store) *campaign.Runner {
		return e.runner(name, func(c *campaign.Config) {
			c.Store, c.Leases, c.LeaseTTL = s, s, time.Second
			c.Changed = func(certs []pki.Certificate) {
				mu.Lock()
				defer mu.Unlock()
				by[name] += len(certs)
			}
		})
	}
	// A replica that was killed holds the lease until it ends.
	if _, err := a.AcquireLease(t.Context(), "campaign", "dead", 500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	one, two := replica("one", a), replica("two", b)
	first, second := e.begin(one, query("bad")), e.begin(two, query("worse"))
	stop := run(one)
	defer stop()
	e.wait(first.ID, "in the middle", func(c store.Campaign) bool { return c.Revoked >= 50 })
	defer run(two)()
	stop()
	got, also := e.wait(first.ID, "done", done), e.wait(second.ID, "done", done)
	if got.Revoked != 300 || also.Revoked != 200 || got.Skipped+also.Skipped != 0 {
		t.Errorf("the campaigns are %+v and %+v, want 300 and 200 revoked", got, also)
	}
	if n := e.records(audit.ActionRevoke); n != 500 {
		t.Errorf("%d records, want 500", n)
	}
	mu.Lock()
	defer mu.Unlock()
	// What the stopped one did last it may not have learned of: then nobody is told, and followers of the store are.
	if by["one"] < 40 || by["two"] == 0 || by["one"]+by["two"] < 480 || by["one"]+by["two"] > 500 {
		t.Errorf("the replicas were told of %v certificates, want 500 in all", by)
	}
}
