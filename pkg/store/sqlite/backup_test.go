package sqlite_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/sqlite"
)

func TestBackup(t *testing.T) {
	path := fresh(t)
	owner := open(t, path)
	issuer, key := setUp(t, owner)
	// Another process than the server makes the backup: one that only reads.
	reader := openWith(t, sqlite.Config{Path: path, ReadOnly: true})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var confirmed []pki.Fingerprint
	issue := func(n int) {
		i := newIssuance(issuer, key, n)
		if err := owner.RecordIssuance(t.Context(), i); err != nil {
			t.Error(err)
		}
		mu.Lock()
		confirmed = append(confirmed, i.Certificate.Fingerprint)
		mu.Unlock()
	}
	for n := range 500 {
		issue(n)
	}
	for worker := range 4 {
		wg.Go(func() {
			for n := 100000 * (worker + 1); ctx.Err() == nil; n++ {
				issue(n)
			}
		})
	}
	folder := t.TempDir()
	for _, name := range []string{"first.db", "second %41#?.db"} {
		mu.Lock()
		before := confirmed
		mu.Unlock()
		to, calls := filepath.Join(folder, name), 0
		err := reader.Backup(t.Context(), to, func(done, total int) {
			if calls++; done > total || total == 0 {
				t.Errorf("progress: %d of %d", done, total)
			}
		})
		if err != nil || calls == 0 {
			t.Fatalf("Backup: %v, %d calls", err, calls)
		}
		if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the backup has mode %v, %v", info.Mode(), err)
		}
		b, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		restored := filepath.Join(t.TempDir(), "restored.db")
		if err := os.WriteFile(restored, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, restored)
		for _, f := range before {
			if _, err := s.Certificate(t.Context(), f); err != nil {
				t.Fatalf("a certificate from before the backup: %v", err)
			}
		}
		found, err := s.Check(t.Context())
		if err != nil {
			t.Error(err)
		}
		for _, f := range found {
			if f.Serious && f.What[:8] != "The disk" {
				t.Errorf("Check: %s", f.What)
			}
		}
		if err := s.RecordIssuance(t.Context(), newIssuance(issuer, key, 1<<30)); err != nil {
			t.Errorf("issuing after the restoration: %v", err)
		}
		if err := reader.Backup(t.Context(), to, nil); !fault.Is(err, fault.Conflict) {
			t.Errorf("Backup over a file: %v, want Conflict", err)
		}
	}
	if err := owner.Backup(t.Context(), filepath.Join(folder, "own.db"), nil); err != nil {
		t.Errorf("Backup by the owner: %v", err)
	}
	cancel()
	wg.Wait()
	broken, stop := context.WithCancel(t.Context())
	err := reader.Backup(broken, filepath.Join(folder, "broken.db"), func(int, int) { stop() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Backup that was cancelled: %v", err)
	}
	if err := reader.Backup(t.Context(), filepath.Join(folder, "none", "x.db"), nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("Backup into a folder that is not there: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(folder, "*"))
	hidden, _ := filepath.Glob(filepath.Join(folder, ".*"))
	if err != nil || len(left) != 3 || len(hidden) != 0 {
		t.Errorf("the folder holds %v and %v", left, hidden)
	}
}

// A damaged store gives no backup.
func TestBackupOfBrokenChain(t *testing.T) {
	path := fresh(t)
	s := open(t, path)
	issuer, key := setUp(t, s)
	if err := s.RecordIssuance(t.Context(), newIssuance(issuer, key, 1)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	raw(t, path, `UPDATE audit_record SET record = CAST(replace(CAST(record AS TEXT), 'certificate.issue', 'certificate.inssu') AS BLOB)`)
	to := filepath.Join(t.TempDir(), "x.db")
	if err := openWith(t, sqlite.Config{Path: path, ReadOnly: true}).Backup(t.Context(), to, nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("Backup: %v, want Conflict", err)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("there is a backup of a broken chain")
	}
}

// Whoever opens a store that is not in use is told why, and may read it.
func TestOpenOfStoreNotInUse(t *testing.T) {
	path := fresh(t)
	s := open(t, path)
	setUp(t, s)
	if err := s.Fence(t.Context(), store.CopyID{1}, "postgres://db.example.com/ca", start, audit.Record{Time: start, Action: "store.fence"}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}); !errors.Is(err, store.ErrNotInUse) || !fault.Is(err, fault.Conflict) {
		t.Errorf("Open of a fenced store: %v", err)
	}
	openWith(t, sqlite.Config{Path: path, ReadOnly: true})
	openWith(t, sqlite.Config{Path: path, Closed: true})
}
