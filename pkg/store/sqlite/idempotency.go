package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

const selectIdempotency = `SELECT request, fingerprint, warnings, expires_at FROM idempotency WHERE id = ?`

func readIdempotency(id [32]byte, scan func(...any) error) (store.Idempotency, error) {
	var request, fingerprint []byte
	var warnings string
	var expires int64
	if err := scan(&request, &fingerprint, &warnings, &expires); err != nil {
		return store.Idempotency{}, err
	}
	i := store.Idempotency{ID: id, Request: hash32(request), Fingerprint: hash32(fingerprint), ExpiresAt: timeOf(expires)}
	var err error
	i.Warnings, err = decodeStrings(warnings)
	return i, err
}

// checkIdempotency refuses an issuance whose request has got its certificate.
func (t *tx) checkIdempotency(i *store.Issuance) error {
	if i.Idempotency == nil {
		return nil
	}
	var first store.Idempotency
	err := t.row(selectIdempotency, []any{i.Idempotency.ID[:]}, func(scan func(...any) error) (err error) {
		first, err = readIdempotency(i.Idempotency.ID, scan)
		return err
	})
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && !first.ExpiresAt.After(timeOf(micros(i.Certificate.IssuedAt))):
		return nil
	case err != nil:
		return err
	}
	return store.IssuedBefore(first)
}

// claimIdempotency notes that the request has got its certificate.
func (t *tx) claimIdempotency(i *store.Issuance) error {
	if i.Idempotency == nil {
		return nil
	}
	warnings, err := encodeStrings(i.Idempotency.Warnings)
	if err != nil {
		return err
	}
	return t.exec(`INSERT OR REPLACE INTO idempotency (id, request, fingerprint, warnings, expires_at) VALUES (?, ?, ?, ?, ?)`,
		i.Idempotency.ID[:], i.Idempotency.Request[:], i.Certificate.Fingerprint[:], warnings, micros(i.Idempotency.ExpiresAt))
}

// Idempotency returns what was written under an ID.
func (s *Store) Idempotency(ctx context.Context, id [32]byte, at time.Time) (store.Idempotency, error) {
	if err := s.begin(ctx); err != nil {
		return store.Idempotency{}, err
	}
	i, err := readIdempotency(id, s.read.QueryRowContext(ctx, selectIdempotency, id[:]).Scan)
	if errors.Is(err, sql.ErrNoRows) || err == nil && !i.ExpiresAt.After(at) {
		return store.Idempotency{}, fault.New(fault.NotFound, "this request has not been answered")
	}
	return i, s.asFault(ctx, err, "reading what a request got")
}

// PruneIdempotency deletes what has ended.
func (s *Store) PruneIdempotency(ctx context.Context, at time.Time, limit int) (int, error) {
	return s.forget(ctx, `
		DELETE FROM idempotency
		WHERE id IN (SELECT id FROM idempotency WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)`, micros(at), max(limit, 0))
}

// forget deletes rows by one statement, and returns how many there were. It is no change in the sense of the contract.
func (s *Store) forget(ctx context.Context, deletion string, args ...any) (n int, err error) {
	err = s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		if t.head.Closed {
			return errNotInUse()
		}
		res, err := t.execResult(deletion, args...)
		if err != nil {
			return err
		}
		rows, err := res.RowsAffected()
		n = int(rows)
		return err
	}})
	return n, err
}
