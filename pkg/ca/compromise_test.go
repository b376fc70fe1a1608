package ca_test

import (
	"context"
	"crypto"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
)

// patience is longer than a test holds a lock on a slow machine.
const patience = 2 * time.Minute

// postgresStore opens a new database, and returns its address too.
func postgresStore(t *testing.T) (*postgres.Store, string) {
	t.Helper()
	dsn := pgtest.Template(t, "certwright", func(dsn string) error {
		_, _, err := postgres.Migrate(context.Background(), dsn)
		return err
	})
	s, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, StatementTimeout: patience, LockTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, dsn
}

func (b *bench) issueTo(key crypto.Signer, profile, device string) pki.Certificate {
	b.t.Helper()
	i, err := b.ca.Issue(b.t.Context(), ca.Request{Principal: someone, Profile: profile, Device: device, CSR: request(b.t, key, "someone")})
	if err != nil {
		b.t.Fatal(err)
	}
	return i.Record
}

func (b *bench) record(c pki.Certificate) pki.Certificate {
	b.t.Helper()
	got, err := b.store.Certificate(b.t.Context(), c.Fingerprint)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

// wantCompromised fails unless the certificate is revoked for keyCompromise.
func (b *bench) wantCompromised(what string, c pki.Certificate) {
	b.t.Helper()
	if r := b.record(c).Revocation; r == nil || r.Status != pki.Revoked || r.Reason != pki.KeyCompromise {
		b.t.Errorf("%s is %+v, want it revoked for keyCompromise", what, r)
	}
}

func onBothStores(t *testing.T, test func(t *testing.T, s store.Store)) {
	t.Run("SQLite", func(t *testing.T) { test(t, certtest.SQLite(t)) })
	t.Run("Postgres", func(t *testing.T) {
		s, _ := postgresStore(t)
		test(t, s)
	})
}

// A compromised key takes all of its certificates with it, and no others.
func TestCompromiseTakesTheWholeKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, s store.Store) {
		b := newBenchOn(t, keys.P256, s)
		key := newKey(t)
		reported, device := b.issueTo(key, "client", ""), b.issueTo(key, "device", "sensor-1")
		held, superseded, stranger := b.issueTo(key, "client", ""), b.issueTo(key, "client", ""), b.issueTo(newKey(t), "client", "")
		ask := func(c pki.Certificate, reason pki.Reason) ca.StatusRequest {
			return ca.StatusRequest{Principal: someone, RequestID: "r-1", Certificate: c.Fingerprint, Reason: reason, InvalidityDate: b.now.Add(-time.Hour)}
		}
		if _, err := b.ca.Hold(t.Context(), ca.StatusRequest{Principal: someone, Certificate: held.Fingerprint}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ca.Revoke(t.Context(), ask(superseded, pki.Superseded)); err != nil {
			t.Fatal(err)
		}
		limited := ask(reported, pki.KeyCompromise)
		limited.Most = 2
		_, err := b.ca.Revoke(t.Context(), limited)
		want(t, err, fault.Forbidden, "more than 2")
		if r := b.record(reported).Revocation; r != nil {
			t.Errorf("a refused request has left %+v", r)
		}

		own := ask(b.issueTo(key, "client", ""), pki.KeyCompromise)
		own.Alone, own.Most = true, 1
		if _, err := b.ca.Revoke(t.Context(), own); err != nil {
			t.Fatal(err)
		}
		if r := b.record(reported).Revocation; r != nil {
			t.Errorf("a holder's own revocation has left %+v of another certificate", r)
		}
		if blocked, err := s.BlockedKeys(t.Context()); err != nil || !blocked[reported.SPKIHash].Compromised {
			t.Errorf("the key that its holder has reported is not blocked (%v)", err)
		}

		b.changed = nil
		limited.Most = 3
		if _, err := b.ca.Revoke(t.Context(), limited); err != nil {
			t.Fatal(err)
		}
		for what, c := range map[string]pki.Certificate{"the reported one": reported, "the device's": device, "the held one": held} {
			b.wantCompromised(what, c)
		}
		if r := b.record(superseded).Revocation; r == nil || r.Reason != pki.Superseded {
			t.Errorf("what was revoked before is %+v", r)
		}
		if r := b.record(stranger).Revocation; r != nil {
			t.Errorf("another key's certificate is %+v", r)
		}
		if len(b.changed) != 3 {
			t.Errorf("told of %d changes, want 3", len(b.changed))
		}
		events, _, err := s.AuditEvents(t.Context(), store.AuditFilter{Target: "certificate/" + device.Fingerprint.String(), Action: "certificate.revoke"}, store.Page{})
		if err != nil || len(events) != 1 {
			t.Fatalf("the device's certificate has the records %+v (%v)", events, err)
		}
		r, err := audit.Parse(events[0].Bytes)
		if err != nil || r.Detail["same_key_as"] != reported.Fingerprint.String() || r.RequestID != "r-1" || r.Actor != someone.Name {
			t.Errorf("the device's certificate has the record %+v (%v)", r, err)
		}
		_, err = b.ca.Revoke(t.Context(), ask(reported, pki.KeyCompromise))
		want(t, err, fault.AlreadyRevoked, "")
	})
}

// A certificate that is on its way into the store when its key is reported is revoked before the report is answered; and
// when that takes too long, who reports is told, and may report again.
func TestCompromiseWaitsForIssuances(t *testing.T) {
	s, dsn := postgresStore(t)
	b := newBenchOn(t, keys.P256, s)
	key := newKey(t)
	reported := b.issueTo(key, "device", "sensor-1")
	report := ca.StatusRequest{Principal: someone, Certificate: reported.Fingerprint, Reason: pki.KeyCompromise}

	// The issuance has seen that its key is not blocked, and waits for its device's row.
	holder, watcher := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn) // in a transaction, pg_stat_activity stays as it was
	pgtest.Exec(t, holder, `BEGIN`)
	pgtest.Exec(t, holder, `SELECT 1 FROM device WHERE id = 'sensor-1' FOR UPDATE`)
	late := make(chan *ca.Issued, 1)
	go func() {
		i, err := b.ca.Issue(t.Context(), ca.Request{Principal: someone, Profile: "device", Device: "sensor-1", CSR: request(t, key, "someone")})
		if err != nil {
			t.Errorf("the late issuance: %v", err)
		}
		late <- i
	}()
	until(t, "the issuance waits", func() (waits bool, err error) {
		err = watcher.QueryRow(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits)
		return waits, err
	})

	// The first report is cut off while it waits.
	cut, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := b.ca.Revoke(cut, report)
		answer <- err
	}()
	until(t, "the reported certificate is revoked", func() (bool, error) {
		b.changing.Lock()
		defer b.changing.Unlock()
		return len(b.changed) > 0, nil
	})
	cancel()
	want(t, <-answer, fault.Unavailable, "others with this key may be left")

	// The second one is answered after the issuance has ended, and has revoked it then. Once it is seen to wait, the
	// issuance goes on.
	var began time.Time
	if err := watcher.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&began); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := b.ca.Revoke(t.Context(), report)
		answer <- err
	}()
	until(t, "the report waits", func() (waits bool, err error) {
		if len(answer) > 0 {
			t.Error("the report was answered while an issuance for its key was under way")
			return true, nil
		}
		err = watcher.QueryRow(t.Context(), `
			SELECT EXISTS (
				SELECT 1 FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid() AND query_start > $1 AND query LIKE '%backend_xid%')`, began).Scan(&waits)
		return waits, err
	})
	pgtest.Exec(t, holder, `ROLLBACK`)
	want(t, <-answer, fault.AlreadyRevoked, "")
	i := <-late
	if i == nil {
		t.FailNow()
	}
	b.wantCompromised("the certificate that was on its way", i.Record)
}

// until waits for a condition.
func until(t *testing.T, what string, met func() (bool, error)) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		ok, err := met()
		if err != nil {
			t.Fatalf("waiting until %s: %v", what, err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute until %s", what)
		}
	}
}
