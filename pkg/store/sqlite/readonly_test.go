package sqlite_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store/sqlite"
)

func TestReadOnlyBesideTheOwner(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "certwright.db")
	if _, _, err := sqlite.Migrate(ctx, path); err != nil {
		t.Fatal(err)
	}
	owner, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	reader, err := sqlite.Open(ctx, sqlite.Config{Path: path, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	record := audit.Record{Time: time.Now(), Action: "test", Actor: "test"}
	if err := owner.RecordAudit(ctx, record); err != nil {
		t.Fatal(err)
	}
	if h, err := reader.Head(ctx); err != nil || h.AuditSeq != 1 {
		t.Errorf("the reader sees %+v, %v; want the owner's record", h, err)
	}
	if found, err := reader.Check(ctx); err != nil {
		t.Errorf("check: %+v, %v", found, err)
	}
	if err := reader.RecordAudit(ctx, record); !fault.Is(err, fault.Conflict) {
		t.Errorf("writing: %v, want Conflict", err)
	}
	reader.Stats()
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
	if err := owner.RecordAudit(ctx, record); err != nil {
		t.Errorf("the owner, after the reader has gone: %v", err)
	}
}
