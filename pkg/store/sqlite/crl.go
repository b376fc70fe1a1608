package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// crlGenerations is how many CRLs of a scope are kept, beside the newest that the timer made.
const crlGenerations = 3

// NextCRLNumber returns the lowest number that the next CRL may carry.
func (s *Store) NextCRLNumber(ctx context.Context, issuerKeyID int64, scope string, unixSeconds int64) (int64, error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	var newest int64
	err := s.read.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) FROM crl WHERE issuer_key_id = ? AND scope = ?`, issuerKeyID, scope).Scan(&newest)
	if err != nil {
		return 0, s.asFault(ctx, err, "reading the newest CRL number")
	}
	return max(newest+1, unixSeconds), nil
}

// RecordCRL publishes a CRL.
func (s *Store) RecordCRL(ctx context.Context, c pki.CRL) error {
	return s.write(ctx, &op{apply: func(t *tx) error {
		if _, err := t.issuerOf(c.IssuerKeyID); err != nil {
			return err
		}
		var number, change int64
		err := t.row(`SELECT number, change FROM crl WHERE issuer_key_id = ? AND scope = ? ORDER BY number DESC LIMIT 1`, []any{c.IssuerKeyID, c.Scope},
			func(scan func(...any) error) error { return scan(&number, &change) })
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return err
		case c.Number <= number || c.Change < change:
			return fault.Wrap(fault.Conflict, store.ErrStale, "a newer CRL has been published: number %d of change %d", number, change)
		}
		err = t.exec(`
			INSERT INTO crl (issuer_key_id, scope, number, shard, this_update, next_update, scheduled, change, entries, created_at, der)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			c.IssuerKeyID, c.Scope, c.Number, c.Shard, micros(c.ThisUpdate), micros(c.NextUpdate), c.Scheduled, c.Change, c.Entries, micros(c.CreatedAt), blob(c.DER))
		if err != nil {
			return err
		}
		t.crl = true
		return t.exec(`
			DELETE FROM crl WHERE issuer_key_id = ?1 AND scope = ?2
				AND number <= (SELECT number FROM crl WHERE issuer_key_id = ?1 AND scope = ?2 ORDER BY number DESC LIMIT 1 OFFSET ?3)
				AND number <> coalesce((SELECT max(number) FROM crl WHERE issuer_key_id = ?1 AND scope = ?2 AND scheduled), -1)`,
			c.IssuerKeyID, c.Scope, crlGenerations)
	}})
}

// LatestCRL returns the newest CRL.
func (s *Store) LatestCRL(ctx context.Context, issuerKeyID int64, scope string) (pki.CRL, error) {
	return s.latestCRL(ctx, `
		SELECT issuer_key_id, scope, number, shard, this_update, next_update, scheduled, change, entries, created_at, der
		FROM crl WHERE issuer_key_id = ? AND scope = ? ORDER BY number DESC LIMIT 1`, issuerKeyID, scope)
}

// LatestScheduledCRL returns the newest CRL that the timer made, without its DER.
func (s *Store) LatestScheduledCRL(ctx context.Context, issuerKeyID int64, scope string) (pki.CRL, error) {
	return s.latestCRL(ctx, `
		SELECT issuer_key_id, scope, number, shard, this_update, next_update, scheduled, change, entries, created_at, NULL
		FROM crl WHERE issuer_key_id = ? AND scope = ? AND scheduled ORDER BY number DESC LIMIT 1`, issuerKeyID, scope)
}

func (s *Store) latestCRL(ctx context.Context, query string, issuerKeyID int64, scope string) (pki.CRL, error) {
	if err := s.begin(ctx); err != nil {
		return pki.CRL{}, err
	}
	var c pki.CRL
	var thisUpdate, nextUpdate, createdAt int64
	err := s.read.QueryRowContext(ctx, query, issuerKeyID, scope).Scan(
		&c.IssuerKeyID, &c.Scope, &c.Number, &c.Shard, &thisUpdate, &nextUpdate, &c.Scheduled, &c.Change, &c.Entries, &createdAt, &c.DER)
	if errors.Is(err, sql.ErrNoRows) {
		return pki.CRL{}, fault.New(fault.NotFound, "no such CRL has been published yet")
	}
	if err != nil {
		return pki.CRL{}, s.asFault(ctx, err, "reading a CRL")
	}
	c.ThisUpdate, c.NextUpdate, c.CreatedAt = timeOf(thisUpdate), timeOf(nextUpdate), timeOf(createdAt)
	return c, nil
}
