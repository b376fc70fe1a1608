package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// The insert waits for a transaction that holds the same ID. What is there afterwards is read by a statement of its own,
// which sees what that transaction has committed.
const sqlClaimIdempotency = `
	INSERT INTO idempotency (id, request, fingerprint, warnings, expires_at)
	SELECT u.id, u.request, u.fingerprint, u.warnings::text[], u.expires_at
	FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::text[], $5::timestamptz[])
		AS u (id, request, fingerprint, warnings, expires_at)
	ORDER BY u.id
	ON CONFLICT (id) DO UPDATE SET
		request = excluded.request, fingerprint = excluded.fingerprint, warnings = excluded.warnings, expires_at = excluded.expires_at
	WHERE idempotency.expires_at <= $6`

const sqlReadIdempotency = `
	SELECT id, request, fingerprint, warnings, expires_at
	FROM idempotency
	WHERE id = ANY($1::bytea[])`

func scanIdempotency(row pgx.CollectableRow) (i store.Idempotency, err error) {
	var id, request, fingerprint []byte
	if err := row.Scan(&id, &request, &fingerprint, &i.Warnings, &i.ExpiresAt); err != nil {
		return i, err
	}
	i.ExpiresAt = i.ExpiresAt.UTC()
	for _, h := range []struct {
		to, from []byte
		column   string
	}{
		{i.ID[:], id, "idempotency.id"},
		{i.Request[:], request, "idempotency.request"},
		{i.Fingerprint[:], fingerprint, "idempotency.fingerprint"},
	} {
		if err := setHash(h.to, h.from, h.column); err != nil {
			return i, err
		}
	}
	return i, nil
}

// queueIdempotency queues the statements that note which requests get their certificates with this transaction, and that
// refuse those which have got theirs. No two of ops may have the same ID.
func queueIdempotency(b *pgx.Batch, ops []*issuance) {
	claims := make(map[[32]byte]*issuance)
	var ids, requests, fingerprints [][]byte
	var warnings []string
	var expires []time.Time
	var now time.Time // the earliest: what is in force for one of them is in force
	for _, op := range ops {
		i := op.Idempotency
		if i == nil {
			continue
		}
		claims[i.ID] = op
		ids, requests, fingerprints = append(ids, i.ID[:]), append(requests, i.Request[:]), append(fingerprints, op.Certificate.Fingerprint[:])
		warnings, expires = append(warnings, text(arrayLiteral(i.Warnings))), append(expires, cut(i.ExpiresAt))
		if at := cut(op.Certificate.IssuedAt); now.IsZero() || at.Before(now) {
			now = at
		}
	}
	if len(claims) == 0 {
		return
	}
	b.Queue(sqlClaimIdempotency, ids, requests, fingerprints, warnings, expires, now)
	b.Queue(sqlReadIdempotency, ids).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, scanIdempotency)
		if err != nil {
			return err
		}
		for _, first := range found {
			op := claims[first.ID]
			delete(claims, first.ID)
			if first.Fingerprint != op.Certificate.Fingerprint {
				op.refuse(store.IssuedBefore(first))
			}
		}
		for _, op := range claims { // it was there, and is pruned by a replica whose clock is ahead
			op.refuse(fault.New(fault.Unavailable, "this request is repeated just when its key ends").WithRetryAfter(retryAfter))
		}
		return nil
	})
}

// apart takes out the operations whose ID is that of an earlier one, and those that supersede what an earlier one issues
// to their device or the other way round: they can be decided only when that one has been.
func apart(ops []*issuance) (first, twins []*issuance) {
	seen := make(map[[32]byte]bool)
	devices := make(map[string]bool) // whether others are superseded, or must be the newest
	for i, op := range ops {
		supersedes, known := devices[op.Certificate.Device]
		twin := op.Idempotency != nil && seen[op.Idempotency.ID] || known && (supersedes || alone(op))
		if op.Certificate.Device != "" {
			devices[op.Certificate.Device] = supersedes || alone(op)
		}
		switch {
		case twin && twins == nil:
			first = slices.Clone(ops[:i])
			twins = append(twins, op)
		case twin:
			twins = append(twins, op)
		case twins != nil:
			first = append(first, op)
		}
		if op.Idempotency != nil {
			seen[op.Idempotency.ID] = true
		}
	}
	if twins == nil {
		return ops, nil
	}
	return first, twins
}

// alone reports whether an issuance must not be in one transaction with others of its device.
func alone(op *issuance) bool { return op.SupersedeDevice || op.DeviceCertificate != nil }

// Idempotency implements store.Idempotencies.
func (s *Store) Idempotency(ctx context.Context, id [32]byte, at time.Time) (store.Idempotency, error) {
	return read(ctx, s, "reading what a request got", func(conn *pgxpool.Conn) (store.Idempotency, error) {
		rows, err := conn.Query(ctx, sqlReadIdempotency, [][]byte{id[:]})
		if err != nil {
			return store.Idempotency{}, err
		}
		i, err := pgx.CollectExactlyOneRow(rows, scanIdempotency)
		if isNoRows(err) || err == nil && !i.ExpiresAt.After(at) {
			return store.Idempotency{}, fault.New(fault.NotFound, "this request has not been answered")
		}
		return i, err
	})
}

// PruneIdempotency implements store.Idempotencies. Several replicas may do it at once: each takes rows of its own.
func (s *Store) PruneIdempotency(ctx context.Context, at time.Time, limit int) (int, error) {
	return s.forget(ctx, "forgetting old requests", `
		DELETE FROM idempotency
		WHERE id IN (
			SELECT id FROM idempotency WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)`, cut(at), max(limit, 0))
}
