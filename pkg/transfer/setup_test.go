package transfer_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
	"github.com/certwright/certwright/pkg/store/sqlite"
)

func TestMain(m *testing.M) {
	if killedCopy() {
		return
	}
	goleak.VerifyTestMain(m)
}

// place is where a store is: a file, or a database.
type place struct{ path, dsn string }

func (p place) String() string {
	if p.dsn != "" {
		return "postgres"
	}
	return p.path
}

func (p place) open(ctx context.Context, closed bool) (store.Movable, error) {
	if p.dsn != "" {
		return movable(postgres.Open(ctx, postgres.Config{DSN: p.dsn, Closed: closed}))
	}
	return movable(sqlite.Open(ctx, sqlite.Config{Path: p.path, Closed: closed, Logger: slog.New(slog.DiscardHandler)}))
}

func movable[S store.Movable](s S, err error) (store.Movable, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

func newSQLite(t testing.TB) place {
	t.Helper()
	p := place{path: filepath.Join(t.TempDir(), "certwright.db")}
	if _, _, err := sqlite.Migrate(t.Context(), p.path); err != nil {
		t.Fatal(err)
	}
	return p
}

func newPostgres(t testing.TB) place {
	t.Helper()
	return place{dsn: pgtest.Template(t, "transfer", func(dsn string) error {
		_, _, err := postgres.Migrate(t.Context(), dsn)
		return err
	})}
}

// use opens a store for the length of f.
func use(t testing.TB, p place, closed bool, f func(store.Movable)) {
	t.Helper()
	s, err := p.open(t.Context(), closed)
	if err != nil {
		t.Fatalf("opening %s: %v", p, err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing %s: %v", p, err)
		}
	}()
	f(s)
}

var grown atomic.Int64

// grow issues n certificates, and revokes each tenth.
func grow(t testing.TB, s store.Store, n int) {
	t.Helper()
	set, err := s.AllIssuers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key := set.Keys[len(set.Keys)-1]
	base := time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC)
	var wg sync.WaitGroup
	work := make(chan int)
	for range 512 {
		wg.Go(func() {
			for i := range work {
				at := base.Add(time.Duration(i) * time.Millisecond)
				c := pki.Certificate{
					IssuerID: key.IssuerID, IssuerKeyID: key.ID, Fingerprint: sha256.Sum256(fmt.Append(nil, "c", i)), SPKIHash: sha256.Sum256(fmt.Append(nil, "k", i)),
					Subject: fmt.Sprintf("CN=device-%07d.fleet.example.com,O=Example Corp", i), SANs: []string{fmt.Sprintf("DNS:device-%07d.fleet.example.com", i)},
					Profile: "device", ProfileVersion: 1, Requester: "token:ra", Protocol: "scep", Device: fmt.Sprintf("%012x", i), Source: "192.0.2.9", CRLScope: pki.ScopeFull,
					NotBefore: at.Truncate(time.Second), NotAfter: at.Truncate(time.Second).AddDate(1, i%18, 0), IssuedAt: at, DER: make([]byte, 650),
				}
				rand.Read(c.DER)
				var err error
				if c.Serial, err = pki.NewSerialNumber(rand.Reader, c.NotAfter, at); err != nil {
					t.Error(err)
				}
				record := audit.Record{Time: at, Action: audit.ActionIssue, Actor: c.Requester, Target: "certificate/" + c.Fingerprint.String(), Detail: map[string]string{"serial": c.Serial.String()}}
				if err := s.RecordIssuance(t.Context(), store.Issuance{Certificate: c, Record: record}); err != nil {
					t.Error(err)
					continue
				}
				if i%10 == 0 {
					record.Action = audit.ActionRevoke
					change := store.StatusChange{IssuerID: c.IssuerID, Serial: c.Serial, Action: pki.ActionRevoke, Revocation: pki.Revocation{Reason: pki.Superseded, RevokedAt: at.Truncate(time.Second)}, Record: record}
					if _, err := s.ChangeStatus(t.Context(), change); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range n {
		work <- int(grown.Add(1))
	}
	close(work)
	wg.Wait()
}
