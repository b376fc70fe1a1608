package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// RecordAudit implements store.Audit.
func (s *Store) RecordAudit(ctx context.Context, records ...audit.Record) error {
	if len(records) == 0 {
		return nil
	}
	return s.write(ctx, "writing audit records", nil, func(t *tx) error {
		t.seals = sealing{records: records}
		return nil
	})
}

// AuditEvents implements store.Audit.
func (s *Store) AuditEvents(ctx context.Context, f store.AuditFilter, p store.Page) ([]audit.Event, string, error) {
	limit, err := limitOf(p.Limit)
	if err != nil {
		return nil, "", err
	}
	var w where
	if f.Actor != "" {
		w.and(`actor = ?`, text(f.Actor))
	}
	switch {
	case strings.HasSuffix(f.Action, "."):
		w.and(`starts_with(action, ?)`, text(f.Action))
	case f.Action != "":
		w.and(`action = ?`, text(f.Action))
	}
	if f.Target != "" {
		w.and(`target = ?`, text(f.Target))
	}
	if !f.From.IsZero() {
		w.and(`time >= ?`, ceil(f.From))
	}
	if !f.To.IsZero() {
		w.and(`time < ?`, ceil(f.To))
	}
	if p.Cursor != "" {
		place, err := parseCursor(auditList, p.Cursor)
		if err != nil {
			return nil, "", err
		}
		if len(place) != 8 {
			return nil, "", fault.New(fault.BadRequest, "the cursor is not one of this list").WithField("cursor")
		}
		w.and(`seq < ?`, int64(binary.BigEndian.Uint64(place)))
	}
	sql := `SELECT seq, change, record FROM audit_record` + w.String() + ` ORDER BY seq DESC LIMIT ` + strconv.Itoa(limit+1)
	list, err := readOn(ctx, s, s.lists, "listing audit events", func(conn *pgxpool.Conn) ([]audit.Event, error) {
		rows, err := conn.Query(ctx, sql, append([]any{pgx.QueryExecModeDescribeExec}, w.args...)...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e audit.Event, err error) {
			return e, row.Scan(&e.Seq, &e.Change, &e.Bytes)
		})
	})
	if err != nil || len(list) <= limit {
		return list, "", err
	}
	return list[:limit], cursor(auditList, binary.BigEndian.AppendUint64(nil, uint64(list[limit-1].Seq))), nil
}

// sqlChain gives one row for each record, and one for a batch without any.
const sqlChain = `
	SELECT b.change, b.first_seq, b.count, b.root, b.hash, r.record
	FROM audit_batch b
	LEFT JOIN LATERAL (
		SELECT seq, record
		FROM audit_record
		WHERE seq >= b.first_seq AND seq < b.first_seq + b.count
		ORDER BY seq
	) r ON true
	ORDER BY b.change, r.seq`

// AuditChain implements store.Audit.
func (s *Store) AuditChain(ctx context.Context) iter.Seq2[store.SealedBatch, error] {
	const doing = "reading the audit chain"
	return func(yield func(store.SealedBatch, error) bool) {
		conn, release, err := s.snapshot(ctx)
		if err != nil {
			yield(store.SealedBatch{}, fail(err, doing))
			return
		}
		defer release()
		// Two scans side by side, each by its primary key: nothing is sorted or hashed, and the first row comes at once.
		for _, off := range []string{`SET LOCAL enable_hashjoin = off`, `SET LOCAL enable_seqscan = off`, `SET LOCAL enable_bitmapscan = off`} {
			if _, err := conn.Exec(ctx, off); err != nil {
				yield(store.SealedBatch{}, fail(withContext(ctx, err), doing))
				return
			}
		}
		rows, err := conn.Query(ctx, sqlChain)
		if err != nil {
			yield(store.SealedBatch{}, fail(withContext(ctx, err), doing))
			return
		}
		defer rows.Close()
		var current store.SealedBatch
		for rows.Next() {
			var b audit.Batch
			var root, hash, record []byte
			err := rows.Scan(&b.Change, &b.FirstSeq, &b.Count, &root, &hash, &record)
			if err == nil {
				err = errors.Join(setHash(b.Root[:], root, "audit_batch.root"), setHash(b.Head[:], hash, "audit_batch.hash"))
			}
			if err != nil {
				yield(store.SealedBatch{}, fail(err, doing))
				return
			}
			if b.Change != current.Batch.Change {
				if current.Batch.Change != 0 && !yield(current, nil) {
					return
				}
				current = store.SealedBatch{Batch: b}
			}
			if record != nil {
				current.Records = append(current.Records, record)
			}
		}
		if err := rows.Err(); err != nil {
			yield(store.SealedBatch{}, fail(withContext(ctx, err), doing))
			return
		}
		if current.Batch.Change != 0 {
			yield(current, nil)
		}
	}
}

// AcquireLease implements store.Leases. The row outlives the lease, so that the token never falls.
func (s *Store) AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (store.Lease, error) {
	if name == "" || holder == "" || ttl <= 0 {
		return store.Lease{}, fault.New(fault.BadRequest, "a lease needs a name, a holder and a duration")
	}
	return readOn(ctx, s, s.writers, "acquiring a lease", func(conn *pgxpool.Conn) (store.Lease, error) {
		l := store.Lease{Name: name, Holder: holder}
		var remaining int64
		err := conn.QueryRow(ctx, `
			INSERT INTO lease (name, holder, token, expires_at)
			VALUES ($1, $2, 1, clock_timestamp() + $3::bigint * interval '1 microsecond')
			ON CONFLICT (name) DO UPDATE SET
				token      = lease.token + CASE WHEN lease.holder = excluded.holder THEN 0 ELSE 1 END,
				holder     = excluded.holder,
				expires_at = clock_timestamp() + $3::bigint * interval '1 microsecond'
			WHERE lease.holder = excluded.holder OR lease.expires_at <= clock_timestamp()
			RETURNING token, (extract(epoch FROM expires_at - clock_timestamp()) * 1000000)::bigint`,
			text(name), text(holder), ttl.Microseconds()).Scan(&l.Token, &remaining)
		if isNoRows(err) {
			var other string
			if err := conn.QueryRow(ctx, `SELECT holder FROM lease WHERE name = $1`, text(name)).Scan(&other); err != nil {
				return l, err
			}
			return l, store.Held(name, other)
		}
		l.Remaining = time.Duration(remaining) * time.Microsecond
		return l, err
	})
}

// ReleaseLease implements store.Leases.
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	_, err := readOn(ctx, s, s.writers, "releasing a lease", func(conn *pgxpool.Conn) (any, error) {
		_, err := conn.Exec(ctx, `
			UPDATE lease SET holder = '', expires_at = clock_timestamp()
			WHERE name = $1 AND holder = $2 AND holder <> ''`, text(name), text(holder))
		return nil, err
	})
	return err
}
