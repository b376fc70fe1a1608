package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// A change of status holds the head before it touches these rows, so the head comes first here too, and short: only what
// is not written yet is written.
const sqlNoteVisible = `
	UPDATE revocation r SET
		first_crl_at  = coalesce(r.first_crl_at, CASE WHEN u.crl_at >= r.revoked_at THEN u.crl_at END),
		first_ocsp_at = coalesce(r.first_ocsp_at, CASE WHEN u.ocsp_at >= r.revoked_at THEN u.ocsp_at END)
	FROM unnest($1::bigint[], $2::bytea[], $3::timestamptz[], $4::timestamptz[]) AS u (issuer_key_id, serial, crl_at, ocsp_at)
	WHERE r.issuer_key_id = u.issuer_key_id AND r.serial = u.serial
	  AND (r.first_crl_at IS NULL AND u.crl_at >= r.revoked_at OR r.first_ocsp_at IS NULL AND u.ocsp_at >= r.revoked_at)`

// NoteVisible implements store.Visibility.
func (s *Store) NoteVisible(ctx context.Context, all []store.Visible) error {
	if len(all) == 0 {
		return nil
	}
	if len(all) > store.MaxVisible {
		return fault.New(fault.BadRequest, "at most %d certificates at once", store.MaxVisible)
	}
	keys, serials, crl, ocsp := make([]int64, len(all)), make([][]byte, len(all)), make([]*time.Time, len(all)), make([]*time.Time, len(all))
	for i, v := range all {
		keys[i], serials[i], crl[i], ocsp[i] = v.IssuerKeyID, v.Serial.Bytes(), orNull(v.CRLAt), orNull(v.OCSPAt)
	}
	_, err := readOn(ctx, s, s.writers, "noting when revocations were seen", func(conn *pgxpool.Conn) (struct{}, error) {
		var none struct{}
		tx, err := conn.Begin(ctx)
		if err != nil {
			return none, err
		}
		defer tx.Rollback(context.WithoutCancel(ctx))
		var closed bool
		if err := tx.QueryRow(ctx, `SELECT closed_at IS NOT NULL FROM head WHERE strand = 0 FOR NO KEY UPDATE`).Scan(&closed); err != nil {
			return none, err
		}
		if closed {
			return none, fault.Wrap(fault.Unavailable, store.ErrNotInUse, "the store is fenced: nothing is written to it any more").WithRetryAfter(retryAfter)
		}
		if _, err := tx.Exec(ctx, sqlNoteVisible, keys, serials, crl, ocsp); err != nil {
			return none, err
		}
		return none, tx.Commit(ctx)
	})
	return err
}
