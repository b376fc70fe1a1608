package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"iter"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// ChangeStatus changes what the CA says of a certificate.
func (s *Store) ChangeStatus(ctx context.Context, c store.StatusChange) (pki.Certificate, error) {
	var after pki.Certificate
	err := s.write(ctx, &op{records: sealed(c.Record), apply: func(t *tx) (err error) {
		after, err = t.changeStatus(c)
		return err
	}})
	if err != nil {
		return pki.Certificate{}, err
	}
	return after, nil
}

func (t *tx) changeStatus(c store.StatusChange) (cert pki.Certificate, err error) {
	bucket := c.Serial.Bucket()
	err = t.row(`
		SELECT `+certificateColumns+` FROM certificate c `+joinRevocation+`
		WHERE c.issuer_id = ? AND c.bucket = ? AND c.serial = ?`, []any{c.IssuerID, bucket, c.Serial.Bytes()},
		func(scan func(...any) error) error {
			cert, err = scanCertificate(scan)
			return err
		})
	if errors.Is(err, sql.ErrNoRows) {
		return cert, fault.New(fault.NotFound, "the issuer has no certificate with the serial number %s", c.Serial)
	}
	if err != nil {
		return cert, err
	}
	if err := c.Refuse(cert.Revocation); err != nil {
		return cert, err
	}
	next, err := pki.Transition(cert.Revocation, c.Action, c.Revocation)
	if err != nil {
		return cert, err
	}
	var status, reason int
	var revokedAt, invalid any
	if next == nil {
		err = t.exec(`DELETE FROM revocation WHERE issuer_key_id = ? AND serial = ?`, cert.IssuerKeyID, c.Serial.Bytes())
	} else {
		next.RevokedAt, next.InvalidityDate = timeOf(micros(next.RevokedAt)), timeOf(micros(next.InvalidityDate))
		status, reason, revokedAt, invalid = int(next.Status), int(next.Reason), micros(next.RevokedAt), optionalMicros(next.InvalidityDate)
		err = t.exec(`
			INSERT INTO revocation (issuer_key_id, serial, issuer_id, bucket, status, reason, revoked_at, invalidity_date, not_after, change, crl_scope)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (issuer_key_id, serial) DO UPDATE SET status = excluded.status, reason = excluded.reason,
				revoked_at = excluded.revoked_at, invalidity_date = excluded.invalidity_date, change = excluded.change`,
			cert.IssuerKeyID, c.Serial.Bytes(), cert.IssuerID, bucket, status, reason, revokedAt, invalid, micros(cert.NotAfter), t.head.Change, cert.CRLScope)
	}
	if err != nil {
		return cert, err
	}
	err = t.exec(`
		INSERT INTO status_event (change, ord, issuer_key_id, serial, status, reason, revoked_at, invalidity_date, not_after, crl_scope)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		t.head.Change, t.ord, cert.IssuerKeyID, c.Serial.Bytes(), status, reason, revokedAt, invalid, micros(cert.NotAfter), cert.CRLScope)
	if err != nil {
		return cert, err
	}
	t.ord++
	t.status = true
	if c.BlockKey {
		if err := t.reportKey(cert.SPKIHash, c.Record.Time, c.Record.Actor, ""); err != nil {
			return cert, err
		}
	}
	if cert.Revocation = next; next == nil {
		cert.FirstCRLAt, cert.FirstOCSPAt = time.Time{}, time.Time{}
	}
	return cert, nil
}

// Status tells what the issuer key says of a serial number.
func (s *Store) Status(ctx context.Context, issuerKeyID int64, n pki.SerialNumber) (*pki.Revocation, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	var status, reason, revokedAt, invalid sql.NullInt64
	err := s.statusQuery.QueryRowContext(ctx, issuerKeyID, n.Bucket(), n.Bytes()).Scan(&status, &reason, &revokedAt, &invalid)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "the issuer key has not issued the serial number %s", n)
	}
	if err != nil {
		return nil, s.asFault(ctx, err, "reading a status")
	}
	return revocationOf(status, reason, revokedAt, invalid), nil
}

const selectStatus = `
	SELECT r.status, r.reason, r.revoked_at, r.invalidity_date
	FROM issuer_key k
	JOIN certificate c ON c.issuer_id = k.issuer_id AND c.bucket = ?2 AND c.serial = ?3 AND c.issuer_key_id = k.id
	` + joinRevocation + `
	WHERE k.id = ?1`

// StatusEvents returns what changed after a change, in whole changes.
func (s *Store) StatusEvents(ctx context.Context, after int64, limit int) ([]store.StatusEvent, error) {
	tx, err := s.snapshot(ctx)
	if err != nil {
		return nil, s.asFault(ctx, err, "reading changes of status")
	}
	defer tx.Rollback()
	limit = max(limit, 1)
	// The last change that fits: the one before the first event that does not. When the first change alone is too large
	// it comes nevertheless.
	upTo := int64(1<<63 - 1)
	var first, beyond int64
	err = tx.QueryRowContext(ctx, `SELECT change FROM status_event WHERE change > ? ORDER BY change, ord LIMIT 1`, after).Scan(&first)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		err = tx.QueryRowContext(ctx, `SELECT change FROM status_event WHERE change > ? ORDER BY change, ord LIMIT 1 OFFSET ?`, after, limit).Scan(&beyond)
		switch {
		case err == nil:
			upTo = max(beyond-1, first)
		case errors.Is(err, sql.ErrNoRows):
			err = nil
		}
	}
	if err != nil {
		return nil, s.asFault(ctx, err, "reading changes of status")
	}
	rows, err := tx.QueryContext(ctx, `
		SELECT change, issuer_key_id, serial, status, reason, revoked_at, invalidity_date, not_after, crl_scope
		FROM status_event WHERE change > ? AND change <= ? ORDER BY change, ord`, after, upTo)
	if err != nil {
		return nil, s.asFault(ctx, err, "reading changes of status")
	}
	defer rows.Close()
	var events []store.StatusEvent
	for rows.Next() {
		var e store.StatusEvent
		var serial []byte
		var notAfter int64
		var status, reason, revokedAt, invalid sql.NullInt64
		if err := rows.Scan(&e.Change, &e.IssuerKeyID, &serial, &status, &reason, &revokedAt, &invalid, &notAfter, &e.Scope); err != nil {
			return nil, s.asFault(ctx, err, "reading changes of status")
		}
		e.Serial, e.NotAfter, e.Revocation = pki.SerialNumber(serial), timeOf(notAfter), revocationOf(status, reason, revokedAt, invalid)
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, s.asFault(ctx, err, "reading changes of status")
	}
	return events, nil
}

const selectRevocations = `
	SELECT serial, status, reason, revoked_at, invalidity_date, not_after, change, crl_scope
	FROM revocation WHERE issuer_key_id = ? ORDER BY serial`

// selectRevocationsOfScope reads the partial index, hence its second condition on the scope.
const selectRevocationsOfScope = `
	SELECT serial, status, reason, revoked_at, invalidity_date, not_after, change, crl_scope
	FROM revocation WHERE issuer_key_id = ? AND crl_scope = ? AND crl_scope <> 'full' ORDER BY serial`

// Revocations streams what is not good, as one state. The end of ctx frees the connection of a sequence that nobody
// ranges over.
func (s *Store) Revocations(ctx context.Context, issuerKeyID int64, scope string) (int64, iter.Seq2[store.RevokedEntry, error], error) {
	tx, err := s.snapshot(ctx)
	if err != nil {
		return 0, nil, s.asFault(ctx, err, "reading revocations")
	}
	head, err := readHead(tx.QueryRowContext(ctx, selectHead).Scan) // the first read takes the snapshot
	if err != nil {
		tx.Rollback()
		return 0, nil, s.asFault(ctx, err, "reading revocations")
	}
	return head.Change, func(yield func(store.RevokedEntry, error) bool) {
		defer tx.Rollback()
		query, args := selectRevocations, []any{issuerKeyID}
		if scope != pki.ScopeFull {
			query, args = selectRevocationsOfScope, append(args, scope)
		}
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			yield(store.RevokedEntry{}, s.asFault(ctx, err, "reading revocations"))
			return
		}
		defer rows.Close()
		var serial, scope sql.RawBytes
		scopes := store.Scopes{}
		for rows.Next() {
			var e store.RevokedEntry
			var status, reason int
			var revokedAt, notAfter int64
			var invalid sql.NullInt64
			if err := rows.Scan(&serial, &status, &reason, &revokedAt, &invalid, &notAfter, &e.Change, &scope); err != nil {
				yield(store.RevokedEntry{}, s.asFault(ctx, err, "reading revocations"))
				return
			}
			e.Serial, e.Scope, e.NotAfter = pki.SerialNumber(serial), scopes.Of(scope), timeOf(notAfter)
			e.Revocation = pki.Revocation{Status: pki.Status(status), Reason: pki.Reason(reason), RevokedAt: timeOf(revokedAt), InvalidityDate: optionalTime(invalid)}
			if !yield(e, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(store.RevokedEntry{}, s.asFault(ctx, err, "reading revocations"))
		}
	}, nil
}
