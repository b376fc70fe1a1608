package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// databaseNow is SQLite's clock in microseconds.
const databaseNow = `CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000`

// AcquireLease takes or extends a lease.
func (s *Store) AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (store.Lease, error) {
	if holder == "" || ttl <= 0 {
		return store.Lease{}, fault.New(fault.BadRequest, "a lease needs a holder and a duration")
	}
	l := store.Lease{Name: name, Holder: holder, Remaining: ttl}
	err := s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		var now, expires int64
		var current string
		err := t.row(`SELECT `+databaseNow, nil, func(scan func(...any) error) error { return scan(&now) })
		if err != nil {
			return err
		}
		l.Token = 0
		err = t.row(`SELECT holder, token, expires_at FROM lease WHERE name = ?`, []any{name}, func(scan func(...any) error) error {
			return scan(&current, &l.Token, &expires)
		})
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if current != holder {
			if current != "" && now < expires {
				return store.Held(name, current).WithRetryAfter(time.Duration(expires-now) * time.Microsecond)
			}
			l.Token++
		}
		return t.exec(`
			INSERT INTO lease (name, holder, token, expires_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = excluded.token, expires_at = excluded.expires_at`,
			name, holder, l.Token, now+ttl.Microseconds())
	}})
	if err != nil {
		return store.Lease{}, err
	}
	return l, nil
}

// ReleaseLease gives a lease back.
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	return s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		return t.exec(`UPDATE lease SET holder = '', expires_at = 0 WHERE name = ? AND holder = ?`, name, holder)
	}})
}
