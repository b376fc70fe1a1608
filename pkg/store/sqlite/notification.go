package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// PutNotifications writes notifications.
func (s *Store) PutNotifications(ctx context.Context, ns []pki.Notification) error {
	if len(ns) == 0 {
		return nil
	}
	return s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		if t.head.Closed {
			return errNotInUse()
		}
		return t.putNotifications(ns)
	}})
}

func (t *tx) putNotifications(ns []pki.Notification) error {
	for i := range ns {
		n := &ns[i]
		err := t.exec(`
			INSERT INTO notification (id, point, body, created_at, next_at, attempts, error) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO NOTHING`,
			n.ID, n.Point, blob(n.Body), micros(n.CreatedAt), micros(n.NextAt), n.Attempts, n.Error)
		if err != nil {
			return err
		}
	}
	return nil
}

// ClaimNotifications takes what is due.
func (s *Store) ClaimNotifications(ctx context.Context, point string, now, until time.Time, limit int) (ns []pki.Notification, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	// Mostly there is nothing, and the writer need not be asked.
	var one int
	err = s.read.QueryRowContext(ctx, `SELECT 1 FROM notification WHERE point = ? AND next_at <= ? LIMIT 1`, point, micros(now)).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, s.asFault(ctx, err, "looking for notifications")
	}
	err = s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		if t.head.Closed {
			return errNotInUse()
		}
		ns = nil
		err := t.rows(`
			SELECT id, point, body, created_at, attempts, error FROM notification
			WHERE point = ? AND next_at <= ? ORDER BY next_at, id LIMIT ?`, []any{point, micros(now), max(limit, 0)}, func(scan func(...any) error) error {
			var n pki.Notification
			var created int64
			err := scan(&n.ID, &n.Point, &n.Body, &created, &n.Attempts, &n.Error)
			n.CreatedAt, n.NextAt = timeOf(created), timeOf(micros(until))
			n.Attempts++
			ns = append(ns, n)
			return err
		})
		if err != nil {
			return err
		}
		for _, n := range ns {
			if err := t.exec(`UPDATE notification SET next_at = ?, attempts = ? WHERE id = ?`, micros(until), n.Attempts, n.ID); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return ns, nil
}

// SettleNotifications notes what became of notifications.
func (s *Store) SettleNotifications(ctx context.Context, delivered []string, failed []pki.Notification) error {
	if len(delivered)+len(failed) == 0 {
		return nil
	}
	return s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		if t.head.Closed {
			return errNotInUse()
		}
		for _, n := range failed {
			if err := t.exec(`UPDATE notification SET next_at = ?, error = ? WHERE id = ?`, micros(n.NextAt), n.Error, n.ID); err != nil {
				return err
			}
		}
		return t.forgetNotifications(delivered)
	}})
}

// DropNotifications forgets what nobody will be told.
func (s *Store) DropNotifications(ctx context.Context, ids []string, r audit.Record) error {
	return s.write(ctx, &op{records: sealed(r), apply: func(t *tx) error { return t.forgetNotifications(ids) }})
}

func (t *tx) forgetNotifications(ids []string) error {
	for _, id := range ids {
		if err := t.exec(`DELETE FROM notification WHERE id = ?`, id); err != nil {
			return err
		}
	}
	return nil
}

// NotificationBacklogs returns what waits at each point.
func (s *Store) NotificationBacklogs(ctx context.Context) (all []store.NotificationBacklog, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	// SQLite takes the bare columns from the row that has the minimum.
	err = each(ctx, s.read, `SELECT point, count(*), min(created_at), attempts, error FROM notification GROUP BY point ORDER BY point`, nil, func(scan func(...any) error) error {
		var b store.NotificationBacklog
		var oldest int64
		err := scan(&b.Point, &b.Waiting, &oldest, &b.Attempts, &b.Error)
		b.Oldest = timeOf(oldest)
		all = append(all, b)
		return err
	})
	if err != nil {
		return nil, s.asFault(ctx, err, "counting notifications")
	}
	return all, nil
}
