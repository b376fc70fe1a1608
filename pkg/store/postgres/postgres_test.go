package postgres_test

import (
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
	"github.com/certwright/certwright/pkg/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// migrated returns the address of a new database with the schema.
func migrated(t testing.TB) string {
	t.Helper()
	return pgtest.Template(t, "certwright", func(dsn string) error {
		_, _, err := postgres.Migrate(t.Context(), dsn)
		return err
	})
}

// open opens a store, which is closed with the test.
func open(t testing.TB, dsn string) *postgres.Store {
	t.Helper()
	return openWith(t, postgres.Config{DSN: dsn})
}

func openWith(t testing.TB, c postgres.Config) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), c)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	var addresses sync.Map // of store.Store: its address
	openedWith := func(t *testing.T, c postgres.Config) store.Store {
		s := openWith(t, c)
		addresses.Store(store.Store(s), c.DSN)
		return s
	}
	opened := func(t *testing.T, dsn string) store.Store { return openedWith(t, postgres.Config{DSN: dsn}) }
	address := func(s store.Store) string {
		dsn, _ := addresses.Load(s)
		return dsn.(string)
	}
	storetest.Run(t, storetest.Harness{
		Open: func(t *testing.T) store.Store { return opened(t, migrated(t)) },
		Reopen: func(t *testing.T, s store.Store) store.Store {
			if err := s.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			return opened(t, address(s))
		},
		Closed: func(t *testing.T, s store.Store) store.Store {
			if err := s.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			return openedWith(t, postgres.Config{DSN: address(s), Closed: true})
		},
		Second: func(t *testing.T, s store.Store) store.Store { return opened(t, address(s)) },
	})
}
