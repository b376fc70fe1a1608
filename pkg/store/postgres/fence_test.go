package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
)

// openPatient opens a store that waits for the locks which a test holds, however slow the machine is.
func openPatient(t *testing.T, dsn string) *postgres.Store {
	t.Helper()
	const patience = 2 * time.Minute
	s, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, StatementTimeout: patience, LockTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// What is no change in the sense of the contract waits for a fence that is just being put up, and is not done then: the copy
// that follows must find what the fence found.
func TestNotesWaitForTheFence(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	s := openPatient(t, dsn)
	issuerID, keyID := setUp(t, s)
	revoked := issuance(issuerID, keyID)
	if err := s.RecordIssuance(t.Context(), revoked); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ChangeStatus(t.Context(), revoke(revoked.Certificate)); err != nil {
		t.Fatal(err)
	}
	later := base.AddDate(10, 0, 0)
	ended := pki.Enrollment{Point: "one", TransactionID: "t", Version: 1, State: pki.EnrollmentDenied, CreatedAt: base, UpdatedAt: base, ExpiresAt: base}
	told := pki.Notification{ID: "n", Point: "one", Body: []byte("{}"), CreatedAt: base, NextAt: base}
	err := s.PutEnrollment(t.Context(), store.EnrollmentChange{Enrollment: ended, Notifications: []pki.Notification{told}, Record: audit.Record{Time: base, Action: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.NoteContacts(t.Context(), nil, []store.Refusal{{Day: 1, Point: "one", Kind: "enroll", Reason: "x", Number: 1}}); err != nil {
		t.Fatal(err)
	}
	used := issuance(issuerID, keyID)
	used.Idempotency = &store.Idempotency{ID: [32]byte{1}, Fingerprint: used.Certificate.Fingerprint, ExpiresAt: base.Add(time.Hour)}
	if err := s.RecordIssuance(t.Context(), used); err != nil {
		t.Fatal(err)
	}

	fencer, watcher := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	for name, note := range map[string]func(context.Context) error{
		"PruneEnrollments": func(ctx context.Context) error { _, err := s.PruneEnrollments(ctx, later, 10); return err },
		"PruneIdempotency": func(ctx context.Context) error { _, err := s.PruneIdempotency(ctx, later, 10); return err },
		"PruneRefusals":    func(ctx context.Context) error { _, err := s.PruneRefusals(ctx, 20_000, 10); return err },
		"NoteContacts": func(ctx context.Context) error {
			return s.NoteContacts(ctx, []store.Contact{{Device: used.Certificate.Device, At: later}}, nil)
		},
		"DeviceRevoked": func(ctx context.Context) error { return s.DeviceRevoked(ctx, used.Certificate.Device, later) },
		"ClaimNotifications": func(ctx context.Context) error {
			_, err := s.ClaimNotifications(ctx, "one", later, later, 10)
			return err
		},
		"SettleNotifications": func(ctx context.Context) error { return s.SettleNotifications(ctx, []string{"n"}, nil) },
		"NoteVisible": func(ctx context.Context) error {
			return s.NoteVisible(ctx, []store.Visible{{IssuerKeyID: keyID, Serial: revoked.Certificate.Serial, OCSPAt: later}})
		},
	} {
		pgtest.Exec(t, fencer, `BEGIN`)
		pgtest.Exec(t, fencer, `UPDATE head SET closed_at = change`)
		done := make(chan error, 1)
		go func() { done <- note(t.Context()) }()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			var waits bool
			if err := watcher.QueryRow(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits); err != nil {
				t.Fatal(err)
			}
			if waits {
				break
			}
			if len(done) > 0 || time.Now().After(deadline) {
				t.Errorf("%s does not wait for the fence", name)
				break
			}
		}
		pgtest.Exec(t, fencer, `COMMIT`)
		if err := <-done; !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s when the fence is up: %v, want %v", name, err, store.ErrNotInUse)
		}
		pgtest.Exec(t, fencer, `UPDATE head SET closed_at = NULL`)
	}
}
