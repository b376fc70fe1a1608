package postgres_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/certwright/certwright/migrations"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
)

// withSecond returns the real migrations and one more.
func withSecond(t *testing.T, up string) fs.FS {
	t.Helper()
	files := fstest.MapFS{"postgres/9001_more.up.sql": {Data: []byte(up)}}
	names, err := fs.Glob(migrations.FS, "postgres/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := migrations.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: b}
	}
	return files
}

// latest returns the newest version that this program knows.
func latest(t *testing.T) uint {
	t.Helper()
	n, err := migrations.Latest(migrations.FS, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func wantVersion(t *testing.T, dsn string, want uint, wantDirty bool) {
	t.Helper()
	version, dirty, err := postgres.Version(t.Context(), dsn)
	if err != nil || version != want || dirty != wantDirty {
		t.Errorf("Version = %d, %v, %v; want %d, %v", version, dirty, err, want, wantDirty)
	}
}

func TestMigrate(t *testing.T) {
	dsn := pgtest.DSN(t)
	latest := latest(t)
	wantVersion(t, dsn, 0, false)
	if _, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn}); !errors.Is(err, store.ErrSchemaOld) {
		t.Errorf("Open without a schema: got %v, want %v", err, store.ErrSchemaOld)
	}
	var wg sync.WaitGroup
	for range 4 { // replicas that start together
		wg.Go(func() {
			if _, to, err := postgres.Migrate(t.Context(), dsn); err != nil || to != latest {
				t.Errorf("Migrate = %d, %v; want %d", to, err, latest)
			}
		})
	}
	wg.Wait()
	if from, to, err := postgres.Migrate(t.Context(), dsn); err != nil || from != latest || to != latest {
		t.Errorf("Migrate again = %d, %d, %v", from, to, err)
	}
	wantVersion(t, dsn, latest, false)
	s := open(t, dsn)
	setUp(t, s)
}

// A migration that fails leaves the schema as it was, the servers of the release before go on, and the error says what
// failed and how to go on.
func TestMigrateFails(t *testing.T) {
	dsn := migrated(t)
	const begin = "BEGIN;\nCREATE TABLE extra (id BIGINT);\nINSERT INTO schema_step (version) VALUES (9001);\n"
	bad := withSecond(t, begin+"SELECT 1 / (SELECT count(*) FROM extra);\nCOMMIT;\n")
	good := withSecond(t, begin+"COMMIT;\n")
	latest := latest(t)
	s := open(t, dsn)
	issuerID, keyID := setUp(t, s)
	for range 2 {
		_, to, err := postgres.MigrateFrom(t.Context(), dsn, bad, time.Second)
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || to != latest || !strings.Contains(e.Detail, "migration 9001") || !strings.Contains(e.Error(), "division by zero") || !strings.Contains(e.Hint, "certwright store migrate") {
			t.Fatalf("Migrate = %d, %v", to, err)
		}
		wantVersion(t, dsn, latest, false)
		open(t, dsn)
		if err := s.RecordIssuance(t.Context(), issuance(issuerID, keyID)); err != nil {
			t.Errorf("RecordIssuance after a migration that failed: %v", err)
		}
	}
	if from, to, err := postgres.MigrateFrom(t.Context(), dsn, good, time.Second); err != nil || from != latest || to != 9001 {
		t.Fatalf("Migrate with the cause mended = %d, %d, %v", from, to, err)
	}
	if _, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn}); !errors.Is(err, store.ErrSchemaNew) {
		t.Errorf("Open of a newer schema: got %v, want %v", err, store.ErrSchemaNew)
	}
	if _, _, err := postgres.Migrate(t.Context(), dsn); !errors.Is(err, store.ErrSchemaNew) {
		t.Errorf("Migrate of a newer schema: got %v, want %v", err, store.ErrSchemaNew)
	}
	wantVersion(t, dsn, 9001, false)
}

// A process that died during a migration leaves a mark, before the transaction or after it. The next one finds out which.
func TestMigrateBrokenOff(t *testing.T) {
	latest := latest(t)
	for name, marked := range map[string]string{
		"before its commit": `UPDATE schema_migrations SET version = version + 1, dirty = true`,
		"after its commit":  `UPDATE schema_migrations SET dirty = true`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := migrated(t)
			execute(t, dsn, marked)
			if _, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn}); !errors.Is(err, store.ErrSchemaDirty) {
				t.Errorf("Open: got %v, want %v", err, store.ErrSchemaDirty)
			}
			if from, to, err := postgres.Migrate(t.Context(), dsn); err != nil || from != latest || to != latest {
				t.Errorf("Migrate = %d, %d, %v; want %d twice", from, to, err, latest)
			}
			wantVersion(t, dsn, latest, false)
			open(t, dsn)
		})
	}
	t.Run("the first", func(t *testing.T) {
		t.Parallel()
		dsn := pgtest.DSN(t)
		execute(t, dsn, `CREATE TABLE schema_migrations (version BIGINT PRIMARY KEY, dirty BOOLEAN NOT NULL); INSERT INTO schema_migrations VALUES (1, true)`)
		if from, to, err := postgres.Migrate(t.Context(), dsn); err != nil || from != 0 || to != latest {
			t.Errorf("Migrate = %d, %d, %v; want 0, %d", from, to, err, latest)
		}
		open(t, dsn)
	})
}

// A migration that cannot get a lock gives up instead of holding up everybody behind it.
func TestMigrateLocked(t *testing.T) {
	dsn := migrated(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `BEGIN; SELECT 1 FROM lease`); err != nil {
		t.Fatal(err)
	}
	alter := withSecond(t, "BEGIN;\nALTER TABLE lease ADD COLUMN note TEXT;\nINSERT INTO schema_step (version) VALUES (9001);\nCOMMIT;\n")
	_, _, err = postgres.MigrateFrom(t.Context(), dsn, alter, 100*time.Millisecond)
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.Unavailable || e.Hint == "" {
		t.Errorf("Migrate: got %v, want Unavailable with a hint", err)
	}
	wantVersion(t, dsn, latest(t), false)
	if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if _, to, err := postgres.MigrateFrom(t.Context(), dsn, alter, time.Second); err != nil || to != 9001 {
		t.Errorf("Migrate when the lock is free = %d, %v", to, err)
	}
}
