package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// keptCRLs is how many generations of a scope stay, beside the newest scheduled one.
const keptCRLs = 8

// NextCRLNumber implements store.CRLs.
func (s *Store) NextCRLNumber(ctx context.Context, issuerKeyID int64, scope string, unixSeconds int64) (int64, error) {
	return read(ctx, s, "reading the newest CRL number", func(conn *pgxpool.Conn) (n int64, err error) {
		err = conn.QueryRow(ctx, `
			SELECT greatest(max(number) + 1, $3::bigint)
			FROM crl
			WHERE issuer_key_id = $1 AND scope = $2`, issuerKeyID, text(scope), unixSeconds).Scan(&n)
		return n, err
	})
}

// RecordCRL implements store.CRLs. The issuer key's row is held, so that of several replicas one publishes at a time.
func (s *Store) RecordCRL(ctx context.Context, c pki.CRL) error {
	known := false
	var number, change int64
	scope := text(c.Scope)
	first := func(b *pgx.Batch) {
		known, number, change = false, -1, -1
		b.Queue(`SELECT 1 FROM issuer_key WHERE id = $1 FOR NO KEY UPDATE`, c.IssuerKeyID).Query(func(rows pgx.Rows) error {
			known = rows.Next()
			return nil
		})
		b.Queue(`
			SELECT number, change
			FROM crl
			WHERE issuer_key_id = $1 AND scope = $2
			ORDER BY number DESC
			LIMIT 1`, c.IssuerKeyID, scope).QueryRow(func(row pgx.Row) error {
			if err := row.Scan(&number, &change); !isNoRows(err) {
				return err
			}
			return nil
		})
	}
	return s.write(ctx, "publishing a CRL", first, func(t *tx) error {
		switch {
		case !known:
			return fault.New(fault.NotFound, "there is no such issuer key")
		case number >= c.Number:
			return fault.Wrap(fault.Conflict, store.ErrStale, "CRL number %d has been published, %d comes too late", number, c.Number)
		case change > c.Change:
			return fault.Wrap(fault.Conflict, store.ErrStale, "a CRL that shows change %d has been published, this one shows %d", change, c.Change)
		}
		b := &pgx.Batch{}
		b.Queue(`
			INSERT INTO crl (issuer_key_id, scope, number, shard, this_update, next_update, scheduled, change, entries, created_at, der)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
			c.IssuerKeyID, scope, c.Number, c.Shard, cut(c.ThisUpdate), cut(c.NextUpdate), c.Scheduled, c.Change, c.Entries,
			cut(c.CreatedAt), notNull(c.DER))
		b.Queue(`
			DELETE FROM crl
			WHERE issuer_key_id = $1 AND scope = $2
			  AND number <= (SELECT number FROM crl WHERE issuer_key_id = $1 AND scope = $2 ORDER BY number DESC OFFSET $3 LIMIT 1)
			  AND number IS DISTINCT FROM (SELECT max(number) FROM crl WHERE issuer_key_id = $1 AND scope = $2 AND scheduled)`,
			c.IssuerKeyID, scope, keptCRLs)
		t.seals = sealing{crl: true}
		return t.SendBatch(ctx, b).Close()
	})
}

// LatestCRL implements store.CRLs.
func (s *Store) LatestCRL(ctx context.Context, issuerKeyID int64, scope string) (pki.CRL, error) {
	return s.latestCRL(ctx, issuerKeyID, scope, false)
}

// LatestScheduledCRL implements store.CRLs.
func (s *Store) LatestScheduledCRL(ctx context.Context, issuerKeyID int64, scope string) (pki.CRL, error) {
	return s.latestCRL(ctx, issuerKeyID, scope, true)
}

// latestCRL leaves the DER out when only the scheduled are asked for.
func (s *Store) latestCRL(ctx context.Context, issuerKeyID int64, scope string, scheduled bool) (pki.CRL, error) {
	return read(ctx, s, "reading a CRL", func(conn *pgxpool.Conn) (pki.CRL, error) {
		c := pki.CRL{IssuerKeyID: issuerKeyID, Scope: scope}
		err := conn.QueryRow(ctx, `
			SELECT shard, number, this_update, next_update, scheduled, change, entries, created_at, CASE WHEN $3 THEN NULL ELSE der END
			FROM crl
			WHERE issuer_key_id = $1 AND scope = $2 AND (scheduled OR NOT $3)
			ORDER BY number DESC
			LIMIT 1`, issuerKeyID, text(scope), scheduled,
		).Scan(&c.Shard, &c.Number, &c.ThisUpdate, &c.NextUpdate, &c.Scheduled, &c.Change, &c.Entries, &c.CreatedAt, &c.DER)
		if isNoRows(err) {
			return pki.CRL{}, fault.New(fault.NotFound, "no CRL of this scope has been published")
		}
		for _, t := range []*time.Time{&c.ThisUpdate, &c.NextUpdate, &c.CreatedAt} {
			*t = t.UTC()
		}
		return c, err
	})
}

// notNull turns nil into no octets.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
