package postgres

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// whileInUse runs a transaction that is no change in the sense of the contract. The head is held last, as in every
// transaction, and here only so that a store which is being fenced is left alone.
func whileInUse[T any](ctx context.Context, s *Store, doing string, body func(pgx.Tx) (T, error)) (T, error) {
	return readOn(ctx, s, s.writers, doing, func(conn *pgxpool.Conn) (T, error) {
		var none T
		tx, err := conn.Begin(ctx)
		if err != nil {
			return none, err
		}
		defer tx.Rollback(context.WithoutCancel(ctx))
		v, err := body(tx)
		if err != nil {
			return none, err
		}
		var closed bool
		if err := tx.QueryRow(ctx, `SELECT closed_at IS NOT NULL FROM head WHERE strand = 0 FOR SHARE`).Scan(&closed); err != nil {
			return none, err
		}
		if closed {
			return none, fault.Wrap(fault.Unavailable, store.ErrNotInUse, "the store is fenced: nothing is written to it any more").WithRetryAfter(retryAfter)
		}
		return v, tx.Commit(ctx)
	})
}

const sqlPutNotifications = `
	INSERT INTO notification (id, point, body, created_at, next_at, attempts, error)
	SELECT u.id, u.point, u.body, u.created_at, u.next_at, u.attempts, u.error
	FROM unnest($1::text[], $2::text[], $3::bytea[], $4::timestamptz[], $5::timestamptz[], $6::integer[], $7::text[])
		AS u (id, point, body, created_at, next_at, attempts, error)
	ON CONFLICT (id) DO NOTHING`

// notificationColumns are the arguments of sqlPutNotifications.
func notificationColumns(ns []*pki.Notification) []any {
	// In one order, so that two transactions with the same ones do not wait for each other in a circle.
	ns = slices.SortedFunc(slices.Values(ns), func(a, b *pki.Notification) int { return cmp.Compare(a.ID, b.ID) })
	ids, points, errs := make([]string, len(ns)), make([]string, len(ns)), make([]string, len(ns))
	bodies, attempts := make([][]byte, len(ns)), make([]int32, len(ns))
	created, next := make([]time.Time, len(ns)), make([]time.Time, len(ns))
	for i, n := range ns {
		ids[i], points[i], errs[i], bodies[i], attempts[i] = text(n.ID), text(n.Point), text(n.Error), notNull(n.Body), int32(n.Attempts)
		created[i], next[i] = cut(n.CreatedAt), cut(n.NextAt)
	}
	return []any{ids, points, bodies, created, next, attempts, errs}
}

// queueNotifications queues what writes the notifications that enrollments bring along.
func queueNotifications(b *pgx.Batch, changes []*store.EnrollmentChange) {
	var ns []*pki.Notification
	for _, c := range changes {
		for i := range c.Notifications {
			ns = append(ns, &c.Notifications[i])
		}
	}
	if len(ns) > 0 {
		b.Queue(sqlPutNotifications, notificationColumns(ns)...)
	}
}

// PutNotifications implements store.Notifications.
func (s *Store) PutNotifications(ctx context.Context, ns []pki.Notification) error {
	if len(ns) == 0 {
		return nil
	}
	all := make([]*pki.Notification, len(ns))
	for i := range ns {
		all[i] = &ns[i]
	}
	_, err := whileInUse(ctx, s, "writing notifications", func(tx pgx.Tx) (struct{}, error) {
		_, err := tx.Exec(ctx, sqlPutNotifications, notificationColumns(all)...)
		return struct{}{}, err
	})
	return err
}

const sqlClaimNotifications = `
	WITH due AS (
		SELECT id, next_at FROM notification WHERE point = $1 AND next_at <= $2 ORDER BY next_at, id LIMIT $4 FOR UPDATE SKIP LOCKED
	), claimed AS (
		UPDATE notification n SET next_at = $3, attempts = n.attempts + 1
		FROM due WHERE n.id = due.id
		RETURNING n.id, n.point, n.body, n.created_at, n.next_at, n.attempts, n.error, due.next_at AS was_due
	)
	SELECT id, point, body, created_at, next_at, attempts, error FROM claimed ORDER BY was_due, id COLLATE "C"`

// ClaimNotifications implements store.Notifications.
func (s *Store) ClaimNotifications(ctx context.Context, point string, now, until time.Time, limit int) ([]pki.Notification, error) {
	// Mostly there is nothing, and nothing need be written.
	due, err := read(ctx, s, "looking for notifications", func(conn *pgxpool.Conn) (due bool, err error) {
		err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM notification WHERE point = $1 AND next_at <= $2)`, text(point), cut(now)).Scan(&due)
		return due, err
	})
	if err != nil || !due {
		return nil, err
	}
	return whileInUse(ctx, s, "taking notifications", func(tx pgx.Tx) ([]pki.Notification, error) {
		rows, err := tx.Query(ctx, sqlClaimNotifications, text(point), cut(now), cut(until), max(limit, 0))
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (n pki.Notification, err error) {
			err = row.Scan(&n.ID, &n.Point, &n.Body, &n.CreatedAt, &n.NextAt, &n.Attempts, &n.Error)
			n.CreatedAt, n.NextAt = n.CreatedAt.UTC(), n.NextAt.UTC()
			return n, err
		})
	})
}

// Rows are held in one order, so that two transactions with the same ones do not wait for each other in a circle.
const (
	sqlForgetNotifications = `
		WITH held AS (SELECT id FROM notification WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE)
		DELETE FROM notification n USING held WHERE n.id = held.id`
	sqlPostponeNotifications = `
		WITH u AS (
			SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[]) AS u (id, next_at, error)
		), held AS (
			SELECT n.id FROM notification n JOIN u ON u.id = n.id ORDER BY n.id FOR UPDATE OF n
		)
		UPDATE notification n SET next_at = u.next_at, error = u.error
		FROM u, held WHERE n.id = u.id AND n.id = held.id`
)

// SettleNotifications implements store.Notifications.
func (s *Store) SettleNotifications(ctx context.Context, delivered []string, failed []pki.Notification) error {
	if len(delivered)+len(failed) == 0 {
		return nil
	}
	ids, next, errs := make([]string, len(failed)), make([]time.Time, len(failed)), make([]string, len(failed))
	for i, n := range failed {
		ids[i], next[i], errs[i] = text(n.ID), cut(n.NextAt), text(n.Error)
	}
	_, err := whileInUse(ctx, s, "settling notifications", func(tx pgx.Tx) (none struct{}, err error) {
		if len(delivered) > 0 {
			if _, err := tx.Exec(ctx, sqlForgetNotifications, delivered); err != nil {
				return none, err
			}
		}
		if len(failed) > 0 {
			_, err = tx.Exec(ctx, sqlPostponeNotifications, ids, next, errs)
		}
		return none, err
	})
	return err
}

// DropNotifications implements store.Notifications.
func (s *Store) DropNotifications(ctx context.Context, ids []string, record audit.Record) error {
	first := func(b *pgx.Batch) { b.Queue(sqlForgetNotifications, append([]string{}, ids...)) }
	return s.write(ctx, "dropping notifications", first, func(t *tx) error {
		t.seals = sealing{records: []audit.Record{record}}
		return nil
	})
}

// NotificationBacklogs implements store.Notifications.
func (s *Store) NotificationBacklogs(ctx context.Context) ([]store.NotificationBacklog, error) {
	return readOn(ctx, s, s.lists, "counting notifications", func(conn *pgxpool.Conn) ([]store.NotificationBacklog, error) {
		rows, err := conn.Query(ctx, `
			SELECT DISTINCT ON (point COLLATE "C") point, count(*) OVER (PARTITION BY point), created_at, attempts, error
			FROM notification
			ORDER BY point COLLATE "C", created_at`)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (b store.NotificationBacklog, err error) {
			err = row.Scan(&b.Point, &b.Waiting, &b.Oldest, &b.Attempts, &b.Error)
			b.Oldest = b.Oldest.UTC()
			return b, err
		})
	})
}
