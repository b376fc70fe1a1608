package sqlite_test

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/sqlite"
	"github.com/certwright/certwright/pkg/store/storetest"
)

// opened remembers where a store is, so that it can be opened again.
type opened struct {
	*sqlite.Store
	path string
}

func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	return openWith(t, sqlite.Config{Path: path})
}

func openWith(t testing.TB, c sqlite.Config) *sqlite.Store {
	t.Helper()
	c.Logger = slog.New(slog.DiscardHandler)
	s, err := sqlite.Open(t.Context(), c)
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

func fresh(t testing.TB) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ca #1 %41.db") // a name that a careless URL would break
	if from, to, err := sqlite.Migrate(t.Context(), path); err != nil || from != 0 || to == 0 {
		t.Fatalf("Migrate = %d, %d, %v", from, to, err)
	}
	return path
}

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		Open: func(t *testing.T) store.Store {
			path := fresh(t)
			return opened{open(t, path), path}
		},
		Reopen: func(t *testing.T, s store.Store) store.Store {
			o := s.(opened)
			if err := o.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			return opened{open(t, o.path), o.path}
		},
		Closed: func(t *testing.T, s store.Store) store.Store {
			o := s.(opened)
			if err := o.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			return opened{openWith(t, sqlite.Config{Path: o.path, Closed: true}), o.path}
		},
	})
}
