package server_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/campaign"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
	"github.com/certwright/certwright/pkg/watch"
)

// BenchmarkCampaign revokes b.N certificates in one campaign, until the CRL has them all, while one caller issues and
// revokes others all the time: beside-ms are what that takes. Run it with -benchtime=100000x.
func BenchmarkCampaign(b *testing.B) {
	b.Run("store=sqlite", func(b *testing.B) { benchmarkCampaign(b, certtest.SQLite(b), func() error { return nil }) })
	b.Run("store=postgres", func(b *testing.B) {
		dsn := pgtest.Template(b, "certwright", func(dsn string) error {
			_, _, err := postgres.Migrate(b.Context(), dsn)
			return err
		})
		s, err := postgres.Open(b.Context(), postgres.Config{DSN: dsn})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		benchmarkCampaign(b, s, func() error { // as the database does by itself, within a minute of so many rows
			conn, err := pgx.Connect(b.Context(), dsn)
			if err != nil {
				return err
			}
			_, err = conn.Exec(b.Context(), "VACUUM (ANALYZE)")
			return errors.Join(err, conn.Close(b.Context()))
		})
	})
}

func benchmarkCampaign(b *testing.B, s store.Store, filled func() error) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	h := certtest.Setup(b, s, now)
	issuers, err := issuer.Load(b.Context(), issuer.Config{Store: s, Open: certtest.Open})
	if err != nil {
		b.Fatal(err)
	}
	certificate := func(profile string) pki.Certificate {
		c := pki.Certificate{
			IssuerID: h.Issuing.IssuerID, IssuerKeyID: h.Issuing.IssuerKeyID, Subject: "CN=device-0123456.plant-7.example.com,O=Example", Profile: profile, ProfileVersion: 1,
			SANs: []string{"DNS:device-0123456.plant-7.example.com"}, Requester: "token:ra", Protocol: "scep", Device: "device", Source: "192.0.2.1", CRLScope: pki.ScopeFull,
			NotBefore: now.Truncate(time.Second), NotAfter: now.AddDate(1, 0, 0).Truncate(time.Second), IssuedAt: time.Now().Add(-time.Minute), DER: make([]byte, 650),
		}
		rand.Read(c.Fingerprint[:])
		rand.Read(c.SPKIHash[:])
		var err error
		if c.Serial, err = pki.NewSerialNumber(rand.Reader, c.NotAfter, now); err != nil {
			b.Error(err)
		}
		return c
	}
	issue := func(c pki.Certificate) {
		err := s.RecordIssuance(b.Context(), store.Issuance{Certificate: c, Record: audit.Record{Time: now, Action: audit.ActionIssue, Target: "certificate/" + c.Fingerprint.String()}})
		if err != nil {
			b.Error(err)
		}
	}
	var filling sync.WaitGroup
	left := make(chan struct{}, b.N)
	for range b.N {
		left <- struct{}{}
	}
	close(left)
	for range 256 {
		filling.Go(func() {
			for range left {
				issue(certificate("bad"))
			}
		})
	}
	filling.Wait()
	if err := filled(); err != nil {
		b.Fatal(err)
	}

	guard := clock.New(nil, nil)
	lists, err := crl.New(crl.Config{Store: s, Issuers: issuers, Clock: guard, Leases: s, Holder: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	runner, err := campaign.New(campaign.Config{Store: s, Issuers: issuers, Clock: guard, Leases: s, Holder: "bench", Changed: func(certs []pki.Certificate) { lists.Dirty(certs[0].IssuerKeyID) }})
	if err != nil {
		b.Fatal(err)
	}
	watcher, err := watch.New(watch.Config{Store: s})
	if err != nil {
		b.Fatal(err)
	}
	watcher.Follow("crl", lists.Follow)
	watcher.Follow("campaigns", runner.Follow())
	ctx, stop := context.WithCancel(b.Context())
	var jobs sync.WaitGroup
	for _, run := range []func(context.Context){watcher.Run, lists.Run, runner.Run} {
		jobs.Go(func() { run(ctx) })
	}
	defer jobs.Wait()
	defer stop()

	cpuTime := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			return 0
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := cpuTime()

	// Others go on with their work.
	var beside []time.Duration
	busy, done := make(chan struct{}), make(chan struct{})
	b.ResetTimer()
	go func() {
		defer close(done)
		for {
			select {
			case <-busy:
				return
			case <-time.After(10 * time.Millisecond):
			}
			c := certificate("other")
			began := time.Now()
			issue(c)
			_, err := s.ChangeStatus(b.Context(), store.StatusChange{
				IssuerID: c.IssuerID, Serial: c.Serial, Action: pki.ActionRevoke, Revocation: pki.Revocation{Reason: pki.Superseded, RevokedAt: now.Truncate(time.Second)},
				Record: audit.Record{Time: now, Action: audit.ActionRevoke, Target: "certificate/" + c.Fingerprint.String()},
			})
			if err != nil {
				b.Error(err)
			}
			beside = append(beside, time.Since(began)/2)
		}
	}()
	q := campaign.Request{
		Principal: pki.Principal{Name: "token:bench", Role: pki.RoleAdministrator}, Query: `{"profile":"bad"}`, Reason: pki.Superseded,
		Selection: store.CertificateFilter{Profiles: []string{"bad"}, Status: []pki.Status{pki.Good, pki.OnHold}},
	}
	plan, err := runner.Plan(ctx, q)
	if err != nil || plan.Count != int64(b.N) {
		b.Fatalf("Plan = %d, %v", plan.Count, err)
	}
	planned := b.Elapsed()
	c, err := runner.Begin(ctx, q, plan.Confirm)
	if err != nil {
		b.Fatal(err)
	}
	var through time.Duration
	for c.State == store.CampaignRunning {
		time.Sleep(10 * time.Millisecond)
		if c, err = s.Campaign(ctx, c.ID); err != nil {
			b.Fatal(err)
		}
	}
	through = b.Elapsed()
	end, err := s.Head(ctx)
	if err != nil {
		b.Fatal(err)
	}
	for {
		if l, ok := lists.Latest(h.Issuing.KeyID); ok && l.Change >= end.Change {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-us/op") // of this process, without a database's
	close(busy)
	<-done
	if c.Revoked != int64(b.N) {
		b.Fatalf("the campaign has revoked %d of %d", c.Revoked, b.N)
	}
	slices.Sort(beside)
	b.ReportMetric(planned.Seconds(), "plan-s")
	b.ReportMetric(through.Seconds(), "revoked-s")
	b.ReportMetric(b.Elapsed().Seconds(), "published-s")
	for name, share := range map[string]float64{"p50": 0.5, "p99": 0.99, "max": 1} {
		if n := len(beside); n > 0 {
			b.ReportMetric(float64(beside[min(int(share*float64(n)), n-1)].Microseconds())/1000, fmt.Sprintf("beside-%s-ms", name))
		}
	}
}
