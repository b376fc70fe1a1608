package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// Free space below these is worth a word.
const (
	lowSpace     = 1 << 30
	seriousSpace = 64 << 20
)

// Check looks for what is unsafe or broken.
func (s *Store) Check(ctx context.Context) ([]store.Finding, error) {
	var found []store.Finding
	add := func(serious bool, mend, what string, args ...any) {
		found = append(found, store.Finding{Serious: serious, What: fmt.Sprintf(what, args...), Mend: mend})
	}
	tx, err := s.snapshot(ctx)
	if err != nil {
		return nil, s.asFault(ctx, err, "checking the store")
	}
	defer tx.Rollback()

	const restore = "stop the server, keep the file and its -wal as they are, and restore the newest backup"
	for _, p := range []struct{ pragma, good, what string }{
		{`PRAGMA integrity_check(10)`, "ok", "The database file is damaged"},
		{`SELECT 'table ' || "table" || ', row ' || coalesce(rowid, 0) FROM pragma_foreign_key_check LIMIT 10`, "", "A row refers to one that is not there"},
	} {
		err := each(ctx, tx, p.pragma, nil, func(scan func(...any) error) error {
			var line string
			if err := scan(&line); err != nil {
				return err
			}
			if line != p.good {
				add(true, restore, "%s: %s.", p.what, line)
			}
			return nil
		})
		if err != nil {
			return nil, s.asFault(ctx, err, "checking the file")
		}
	}

	var mode, synchronous string
	if err := tx.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode); err != nil {
		return nil, s.asFault(ctx, err, "checking the settings")
	}
	if err := tx.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&synchronous); err != nil {
		return nil, s.asFault(ctx, err, "checking the settings")
	}
	if !strings.EqualFold(mode, "wal") || synchronous != "2" {
		add(true, "restart the server", "The journal mode is %s and synchronous is %s, which can lose what was acknowledged; they should be wal and 2.", mode, synchronous)
	}
	have, dirty, err := readVersion(ctx, tx)
	if err != nil {
		return nil, s.asFault(ctx, err, "checking the schema version")
	}
	if dirty {
		add(true, "certwright store migrate", "A migration was cut off after version %d.", have)
	}

	state, err := readState(tx.QueryRowContext(ctx, selectState).Scan)
	if err != nil {
		return nil, s.asFault(ctx, err, "checking the store's state")
	}
	if f, ok := errors.AsType[*fault.Error](state.Err()); ok {
		add(true, f.Hint, "%s.", f.Detail)
	}

	// Each query counts rows that contradict each other.
	for _, q := range []struct{ query, what string }{
		{
			`SELECT count(*) FROM head WHERE strand = 0 AND (change <> (SELECT coalesce(max(change), 0) FROM audit_batch) OR change <> (SELECT count(*) FROM audit_batch))`,
			"The head's change number is not that of the newest batch, or batches are missing (%d).",
		},
		{
			`SELECT count(*) FROM head WHERE strand = 0 AND (audit_seq <> (SELECT coalesce(max(seq), 0) FROM audit_record) OR audit_seq <> (SELECT count(*) FROM audit_record))`,
			"The head's audit number is not that of the newest record, or records are missing (%d).",
		},
		{
			`SELECT count(*) FROM head h JOIN audit_batch b ON b.change = h.change WHERE h.strand = 0 AND b.hash <> h.hash`,
			"The head's hash is not that of the newest batch (%d).",
		},
		{
			`SELECT count(*) FROM audit_batch b WHERE b.count <> (SELECT count(*) FROM audit_record r WHERE r.seq >= b.first_seq AND r.seq < b.first_seq + b.count AND r.change = b.change)`,
			"%d batches do not have the audit records that they were sealed with.",
		},
		{
			`SELECT count(*) FROM revocation r WHERE NOT EXISTS (
			SELECT 1 FROM certificate c WHERE c.issuer_id = r.issuer_id AND c.bucket = r.bucket AND c.serial = r.serial AND c.issuer_key_id = r.issuer_key_id)`,
			"%d revocations are of no certificate.",
		},
		{
			`SELECT count(*) FROM revocation r WHERE r.status NOT IN (1, 2) OR (r.status = 2) <> (r.reason = 6)`,
			"%d revocations have a status that does not agree with their reason.",
		},
		{
			`SELECT count(*) FROM revocation r WHERE NOT EXISTS (
			SELECT 1 FROM status_event e WHERE e.change = r.change AND e.issuer_key_id = r.issuer_key_id AND e.serial = r.serial AND e.status = r.status)`,
			"%d revocations are not in the history of changes.",
		},
		{
			`SELECT count(*) FROM certificate c WHERE NOT EXISTS (SELECT 1 FROM issuer_key k WHERE k.id = c.issuer_key_id AND k.issuer_id = c.issuer_id)`,
			"%d certificates are of no issuer key.",
		},
		{
			`SELECT count(*) FROM issuer_key k WHERE NOT EXISTS (SELECT 1 FROM sealed_key s WHERE s.issuer_key_id = k.id)`,
			"%d issuer keys have no private key.",
		},
	} {
		var n int
		if err := tx.QueryRowContext(ctx, q.query).Scan(&n); err != nil {
			return nil, s.asFault(ctx, err, "checking the rows")
		}
		if n > 0 {
			add(true, restore, q.what, n)
		}
	}

	var v audit.Verifier
	for b, err := range s.AuditChain(ctx) {
		if err != nil {
			return nil, err
		}
		if err := v.Add(b.Batch, b.Records); err != nil {
			add(true, "compare with the signed checkpoints outside, then restore the newest backup that verifies", "The audit chain is broken: %v.", err)
			break
		}
	}

	if free, err := freeSpace(s.path); err == nil && free < lowSpace {
		add(free < seriousSpace, "free some space, or move the data folder", "The disk that holds the database has %d MiB left.", free>>20)
	}
	for _, name := range []string{s.path, s.path + "-wal", s.path + "-shm"} {
		if info, err := os.Stat(name); err == nil && info.Mode().Perm()&0o077 != 0 {
			add(true, "chmod 600 "+name, "Others than the owner have access to %s.", filepath.Base(name))
		}
	}
	return found, nil
}
