package sqlite

import (
	"context"
	"encoding/binary"
	"iter"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/store"
)

// RecordAudit writes records of their own.
func (s *Store) RecordAudit(ctx context.Context, records ...audit.Record) error {
	if len(records) == 0 {
		return s.begin(ctx)
	}
	return s.write(ctx, &op{records: sealed(records...), apply: func(*tx) error { return nil }})
}

// AuditEvents returns a page of events.
func (s *Store) AuditEvents(ctx context.Context, f store.AuditFilter, p store.Page) (page []audit.Event, next string, err error) {
	limit := pageLimit(p)
	c := &clauses{from: `FROM audit_record`}
	if p.Cursor != "" {
		b, err := parseCursor('a', p.Cursor)
		if err != nil {
			return nil, "", err
		}
		if len(b) != 8 {
			return nil, "", errCursor()
		}
		c.add(`seq < ?`, int64(binary.BigEndian.Uint64(b)))
	}
	if err := s.begin(ctx); err != nil {
		return nil, "", err
	}
	if f.Actor != "" {
		c.add(`actor = ?`, f.Actor)
	}
	if prefix, ok := strings.CutSuffix(f.Action, "."); ok {
		c.add(`action >= ? AND action < ?`, f.Action, prefix+"/") // the octet after "."
	} else if f.Action != "" {
		c.add(`action = ?`, f.Action)
	}
	if f.Target != "" {
		c.add(`substr(target, 1, 28) = substr(?, 1, 28) AND target = ?`, f.Target, f.Target)
	}
	if !f.From.IsZero() {
		c.add(`time >= ?`, micros(f.From.Add(time.Microsecond-1)))
	}
	if !f.To.IsZero() {
		c.add(`time < ?`, micros(f.To.Add(time.Microsecond-1)))
	}
	rows, err := s.read.QueryContext(ctx, `SELECT seq, change, record `+c.String()+` ORDER BY seq DESC LIMIT ?`, append(c.args, limit+1)...)
	if err != nil {
		return nil, "", s.asFault(ctx, err, "reading audit records")
	}
	defer rows.Close()
	for rows.Next() {
		if len(page) == limit { // there is one more
			return page, newCursor('a', binary.BigEndian.AppendUint64(nil, uint64(page[limit-1].Seq))), nil
		}
		var e audit.Event
		if err := rows.Scan(&e.Seq, &e.Change, &e.Bytes); err != nil {
			return nil, "", s.asFault(ctx, err, "reading audit records")
		}
		page = append(page, e)
	}
	if err := rows.Err(); err != nil {
		return nil, "", s.asFault(ctx, err, "reading audit records")
	}
	return page, "", nil
}

// AuditChain streams the chain as one state. Records that belong to no batch come with the batch after them, or in one
// without a root at the end, so that a verifier stumbles over them.
func (s *Store) AuditChain(ctx context.Context) iter.Seq2[store.SealedBatch, error] {
	return func(yield func(store.SealedBatch, error) bool) {
		fail := func(err error) {
			if err != nil {
				yield(store.SealedBatch{}, s.asFault(ctx, err, "reading the audit chain"))
			}
		}
		tx, err := s.snapshot(ctx)
		if err != nil {
			fail(err)
			return
		}
		defer tx.Rollback()
		batches, err := tx.QueryContext(ctx, `SELECT change, first_seq, count, root, hash FROM audit_batch ORDER BY change`)
		if err != nil {
			fail(err)
			return
		}
		defer batches.Close()
		records, err := tx.QueryContext(ctx, `SELECT change, record FROM audit_record ORDER BY seq`)
		if err != nil {
			fail(err)
			return
		}
		defer records.Close()
		var change int64
		var bytes []byte
		advance := func() (bool, error) {
			if !records.Next() {
				return false, records.Err()
			}
			bytes = nil
			return true, records.Scan(&change, &bytes)
		}
		more, err := advance()
		for err == nil && batches.Next() {
			var b store.SealedBatch
			var root, head []byte
			if err = batches.Scan(&b.Batch.Change, &b.Batch.FirstSeq, &b.Batch.Count, &root, &head); err != nil {
				break
			}
			b.Batch.Root, b.Batch.Head = hash32(root), hash32(head)
			for more && err == nil && change <= b.Batch.Change {
				b.Records = append(b.Records, bytes)
				more, err = advance()
			}
			if err == nil && !yield(b, nil) {
				return
			}
		}
		if err == nil {
			err = batches.Err()
		}
		if err != nil {
			fail(err)
			return
		}
		if more {
			yield(store.SealedBatch{Batch: audit.Batch{Change: change}, Records: [][]byte{bytes}}, nil)
		}
	}
}
