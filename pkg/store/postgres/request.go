package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/store"
)

const sqlKeyDevices = `SELECT DISTINCT device COLLATE "C" FROM certificate WHERE spki_hash = $1 AND device <> '' ORDER BY 1 LIMIT 2`

// Request implements store.Requests: one round trip, in which the database finds the challenge's device itself.
func (s *Store) Request(ctx context.Context, q store.RequestQuery) (store.RequestFacts, error) {
	return read(ctx, s, "reading what is known of a request", func(conn *pgxpool.Conn) (f store.RequestFacts, err error) {
		b := new(pgx.Batch)
		b.Queue(`SELECT `+enrollmentColumns+` FROM enrollment WHERE point = $1 AND transaction_id = $2 AND spki_hash = $3`,
			text(q.Point), text(q.TransactionID), q.SPKIHash[:]).Query(orNone(&f.Enrollment, scanEnrollment))
		switch {
		case q.Challenge != "":
			b.Queue(`SELECT `+challengeColumns+` FROM challenge WHERE id = $1`, text(q.Challenge)).Query(orNone(&f.Challenge, scanChallenge))
			b.Queue(`SELECT `+deviceColumns+` FROM device WHERE id = coalesce((SELECT nullif(device, '') FROM challenge WHERE id = $1), $2)`,
				text(q.Challenge), text(q.Device)).Query(orNone(&f.Device, scanDevice))
		case q.Device != "":
			b.Queue(`SELECT `+deviceColumns+` FROM device WHERE id = $1`, text(q.Device)).Query(orNone(&f.Device, scanDevice))
		}
		if q.KeyDevices {
			b.Queue(sqlKeyDevices, q.SPKIHash[:]).Query(func(rows pgx.Rows) (err error) {
				f.KeyDevices, err = keyDevices(rows)
				return err
			})
		}
		err = conn.SendBatch(ctx, b).Close()
		return f, err
	})
}

// orNone reads one row into a place, which stays nil when there is none.
func orNone[T any](into **T, scan pgx.RowToFunc[T]) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		v, err := pgx.CollectExactlyOneRow(rows, scan)
		if isNoRows(err) {
			return nil
		}
		*into = &v
		return err
	}
}

func keyDevices(rows pgx.Rows) ([]string, error) {
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if ids == nil {
		ids = []string{}
	}
	return ids, err
}

// KeyDevices implements store.Requests.
func (s *Store) KeyDevices(ctx context.Context, spkiHash [32]byte) ([]string, error) {
	return read(ctx, s, "reading the devices of a key", func(conn *pgxpool.Conn) ([]string, error) {
		rows, err := conn.Query(ctx, sqlKeyDevices, spkiHash[:])
		if err != nil {
			return nil, err
		}
		return keyDevices(rows)
	})
}
