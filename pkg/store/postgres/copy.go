package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// Copies are the one place where statements are put together from names: those of store.Tables, so that no column is
// forgotten on one side.

var _ store.Movable = (*Store)(nil)

const sqlState = `SELECT state, copy_id, peer, since FROM store_state WHERE strand = 0`

func readState(ctx context.Context, q querier, sql string) (st store.State, err error) {
	var id []byte
	var since *time.Time
	if err := q.QueryRow(ctx, sql).Scan((*int)(&st.Use), &id, &st.Peer, &since); err != nil {
		return store.State{}, err
	}
	st.Since = fromNull(since)
	copy(st.Copy[:], id)
	return st, nil
}

// State implements store.Exporter.
func (s *Store) State(ctx context.Context) (store.State, error) {
	return readOn(ctx, s, s.lists, "reading the store's state", func(conn *pgxpool.Conn) (store.State, error) {
		return readState(ctx, conn, sqlState)
	})
}

// holdState reads the state and keeps others from changing it. Its row is always held before that of head.
func holdState(ctx context.Context, q querier) (store.State, error) {
	return readState(ctx, q, sqlState+` FOR UPDATE`)
}

func setState(ctx context.Context, t *tx, use store.Use, id store.CopyID, peer string, at time.Time) error {
	_, err := t.Exec(ctx, `UPDATE store_state SET state = $1, copy_id = $2, peer = $3, since = $4 WHERE strand = 0`,
		int16(use), id[:], text(peer), cut(at))
	return err
}

// Fence implements store.Exporter. The head is closed in the transaction that moves it for the last time, so that every
// transaction after it fails at its end.
func (s *Store) Fence(ctx context.Context, id store.CopyID, peer string, at time.Time, record audit.Record) error {
	return s.write(ctx, "fencing the store", nil, func(t *tx) error {
		st, err := holdState(ctx, t)
		if err == nil {
			err = st.Err()
		}
		if err != nil {
			return err
		}
		t.seals = sealing{config: true, records: []audit.Record{record}, last: `UPDATE head SET closed_at = change WHERE strand = 0`}
		return setState(ctx, t, store.Fenced, id, peer, at)
	})
}

// Unfence implements store.Exporter.
func (s *Store) Unfence(ctx context.Context, at time.Time, record audit.Record) error {
	return s.write(ctx, "taking the fence away", nil, func(t *tx) error {
		st, err := holdState(ctx, t)
		if err != nil {
			return err
		}
		if st.Use != store.Fenced && st.Use != store.Left {
			return fault.New(fault.Conflict, "the store is not fenced, it is %s", st.Use)
		}
		if _, err := t.Exec(ctx, `UPDATE head SET closed_at = NULL WHERE strand = 0`); err != nil {
			return err
		}
		t.seals = sealing{config: true, records: []audit.Record{record}}
		return setState(ctx, t, store.InUse, store.CopyID{}, "", at)
	})
}

// Leave implements store.Exporter.
func (s *Store) Leave(ctx context.Context, id store.CopyID, at time.Time) error {
	return s.quietly(ctx, "leaving the store", func(t *tx) error {
		st, err := holdState(ctx, t)
		switch {
		case err != nil:
			return err
		case st.Copy == id && st.Use == store.Left:
			return nil
		case st.Copy != id || st.Use != store.Fenced:
			return fault.Wrap(fault.Conflict, store.ErrStale, "the store is not fenced for this copy any more")
		}
		return setState(ctx, t, store.Left, id, st.Peer, at)
	})
}

// quietly runs a transaction that is no change in the sense of the contract and does not move the head. It is not tried
// again: whoever copies looks at what is there.
func (s *Store) quietly(ctx context.Context, doing string, body func(t *tx) error) error {
	conn, err := s.writers.Acquire(ctx)
	if err != nil {
		return fail(withContext(ctx, err), doing)
	}
	defer s.rollback(conn)
	t := &tx{Conn: conn}
	b := &pgx.Batch{}
	b.Queue(`BEGIN ISOLATION LEVEL READ COMMITTED`)
	b.Queue(`SET LOCAL statement_timeout = 0`)
	b.Queue(`SET LOCAL idle_in_transaction_session_timeout = 0`)
	if err = conn.SendBatch(ctx, b).Close(); err == nil {
		err = body(t)
	}
	if err == nil {
		_, err = conn.Exec(ctx, `COMMIT`)
	}
	return fail(withContext(ctx, err), doing)
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// keyOf returns the key's columns in the order of octets, whatever the database's collation.
func keyOf(t store.Table, after string) string {
	names := make([]string, len(t.Key))
	for i, c := range t.KeyColumns() {
		names[i] = quoted(c.Name)
		if c.Kind == store.Text {
			names[i] += ` COLLATE "C"`
		}
		names[i] += after
	}
	return strings.Join(names, ", ")
}

func columnsOf(columns []store.Column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = quoted(c.Name)
	}
	return strings.Join(names, ", ")
}

// ExportRows implements store.Exporter.
func (s *Store) ExportRows(ctx context.Context, t store.Table, after store.Row, limit int) ([]store.Row, error) {
	sql := `SELECT ` + columnsOf(t.Columns) + ` FROM ` + quoted(t.Name)
	if after != nil {
		if len(after) != len(t.Key) {
			return nil, fault.New(fault.BadRequest, "a key of table %s has %d values, want %d", t.Name, len(after), len(t.Key))
		}
		places := make([]string, len(after))
		for i := range after {
			places[i] = "$" + strconv.Itoa(i+1)
		}
		sql += ` WHERE (` + keyOf(t, "") + `) > (` + strings.Join(places, ", ") + `)`
	}
	return s.exportRows(ctx, t.Columns, sql+` ORDER BY `+keyOf(t, "")+` LIMIT `+strconv.Itoa(limit), after)
}

// LastKey implements store.Exporter.
func (s *Store) LastKey(ctx context.Context, t store.Table) (store.Row, error) {
	key := t.KeyColumns()
	rows, err := s.exportRows(ctx, key, `SELECT `+columnsOf(key)+` FROM `+quoted(t.Name)+` ORDER BY `+keyOf(t, " DESC")+` LIMIT 1`, nil)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows[0], nil
}

// exportRows reads rows on a connection that finds them by their keys.
func (s *Store) exportRows(ctx context.Context, columns []store.Column, sql string, args []any) ([]store.Row, error) {
	return read(ctx, s, "reading rows to be copied", func(conn *pgxpool.Conn) ([]store.Row, error) {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (store.Row, error) {
			into := make([]any, len(columns))
			for i, c := range columns {
				into[i] = destination(c.Kind)
			}
			if err := row.Scan(into...); err != nil {
				return nil, err
			}
			out := make(store.Row, len(columns))
			for i, c := range columns {
				if out[i] = exported(into[i]); out[i] == nil && !c.Null {
					return nil, fmt.Errorf("column %s holds NULL", c.Name)
				}
			}
			return out, nil
		})
	})
}

// destination is what a column is scanned into.
func destination(k store.Kind) any {
	switch k {
	case store.Bool:
		return new(*bool)
	case store.Text:
		return new(*string)
	case store.Texts:
		return new([]string)
	case store.Octets:
		return new([]byte)
	case store.Time:
		return new(*time.Time)
	}
	return new(*int64)
}

// exported is what a Row has of it.
func exported(into any) any {
	switch v := into.(type) {
	case **int64:
		if *v != nil {
			return **v
		}
	case **bool:
		if *v != nil {
			return **v
		}
	case **string:
		if *v != nil {
			return **v
		}
	case **time.Time:
		if *v != nil {
			return (*v).UTC()
		}
	case *[]string:
		if *v != nil {
			return *v
		}
	case *[]byte:
		if *v != nil {
			return *v
		}
	}
	return nil
}

// CountRows implements store.Exporter.
func (s *Store) CountRows(ctx context.Context, t store.Table) (n int64, err error) {
	const doing = "counting rows"
	conn, release, err := s.snapshot(ctx)
	if err != nil {
		return 0, fail(err, doing)
	}
	defer release()
	err = conn.QueryRow(ctx, `SELECT count(*) FROM `+quoted(t.Name)).Scan(&n)
	return n, fail(withContext(ctx, err), doing)
}

// BeginImport implements store.Importer.
func (s *Store) BeginImport(ctx context.Context, id store.CopyID, peer string, at time.Time) error {
	return s.quietly(ctx, "beginning to fill the store", func(t *tx) error {
		st, err := holdState(ctx, t)
		if err != nil {
			return err
		}
		switch {
		case st.Use == store.Filling && st.Copy == id:
			return nil
		case st.Use == store.Filling:
			var names []string
			for _, table := range store.Tables() {
				names = append(names, quoted(table.Name))
			}
			if _, err := t.Exec(ctx, `TRUNCATE `+strings.Join(names, ", ")); err != nil {
				return err
			}
		case st.Use != store.InUse:
			return st.Err()
		default:
			var change int64
			var rows bool
			err := t.QueryRow(ctx, `SELECT change, EXISTS (SELECT 1 FROM issuer) OR EXISTS (SELECT 1 FROM kek) FROM head WHERE strand = 0 FOR UPDATE`).Scan(&change, &rows)
			if err != nil {
				return err
			}
			if change > 0 || rows {
				return fault.Wrap(fault.Conflict, store.ErrNotEmpty, "the store to be filled is not empty").
					WithHint("name a folder or a database that no Certwright has used")
			}
		}
		if _, err := t.Exec(ctx, `UPDATE head SET closed_at = change WHERE strand = 0`); err != nil {
			return err
		}
		return setState(ctx, t, store.Filling, id, peer, at)
	})
}

// filling refuses what is not of the copy that fills the store, and keeps the state as it is.
func filling(ctx context.Context, t *tx, id store.CopyID) (store.State, error) {
	st, err := holdState(ctx, t)
	if err == nil && (st.Use != store.Filling || st.Copy != id) {
		err = fault.Wrap(fault.Conflict, store.ErrStale, "the store is not being filled by this copy any more")
	}
	return st, err
}

// ImportRows implements store.Importer.
func (s *Store) ImportRows(ctx context.Context, id store.CopyID, table store.Table, rows []store.Row) error {
	names := make([]string, len(table.Columns), len(table.Columns)+2)
	for i, c := range table.Columns {
		names[i] = c.Name
	}
	// What is derived, and kept beside what was given.
	derived := func(store.Row) []any { return nil }
	bucket := func(r store.Row) int32 {
		b, _ := r[table.Index("serial")].([]byte)
		return int32(pki.SerialNumber(b).Bucket())
	}
	switch table.Name {
	case "certificate":
		names = append(names, "bucket", "search_text")
		derived = func(r store.Row) []any {
			subject, _ := r[table.Index("subject")].(string)
			sans, _ := r[table.Index("sans")].([]string)
			return []any{bucket(r), searchText(&pki.Certificate{Subject: subject, SANs: sans})}
		}
	case "revocation":
		names = append(names, "bucket")
		derived = func(r store.Row) []any { return []any{bucket(r)} }
	case "audit_batch":
		names = append(names, "nonce") // of a transaction whose outcome is known
		derived = func(store.Row) []any { return []any{[]byte{}} }
	}
	list := make([][]any, len(rows))
	for i, r := range rows {
		if len(r) != len(table.Columns) {
			return fault.New(fault.BadRequest, "a row of table %s has %d values, want %d", table.Name, len(r), len(table.Columns))
		}
		row := make([]any, len(r), len(names))
		for j, v := range r {
			switch v := v.(type) {
			case string:
				row[j] = text(v)
			case []string:
				row[j] = texts(v)
			case time.Time:
				row[j] = cut(v)
			default:
				row[j] = v
			}
		}
		list[i] = append(row, derived(r)...)
	}
	return s.quietly(ctx, "filling table "+table.Name, func(t *tx) error {
		if _, err := filling(ctx, t, id); err != nil {
			return err
		}
		// COPY takes the numbers of identity columns as they are.
		n, err := t.Conn.Conn().CopyFrom(ctx, pgx.Identifier{table.Name}, names, pgx.CopyFromRows(list))
		if err == nil && n != int64(len(list)) {
			err = fmt.Errorf("the server took %d of %d rows", n, len(list))
		}
		return err
	})
}

// FinishImport implements store.Importer. Numbers that the database gives go on behind the highest.
func (s *Store) FinishImport(ctx context.Context, id store.CopyID, h store.Head, at time.Time) error {
	err := s.quietly(ctx, "putting the store into use", func(t *tx) error {
		st, err := filling(ctx, t, id)
		if err != nil {
			return err
		}
		for _, table := range []string{"issuer", "issuer_key", "issuer_certificate"} {
			_, err := t.Exec(ctx, `SELECT setval(pg_get_serial_sequence($1, 'id'), max(id)) FROM `+quoted(table)+` HAVING max(id) IS NOT NULL`, table)
			if err != nil {
				return err
			}
		}
		_, err = t.Exec(ctx, `
			UPDATE head SET change = $1, config_change = $2, status_change = $3, crl_change = $4, audit_seq = $5, hash = $6, newest_time = $7, closed_at = NULL
			WHERE strand = 0`,
			h.Change, h.ConfigChange, h.StatusChange, h.CRLChange, h.AuditSeq, h.Hash[:], orNull(h.NewestTime))
		if err != nil {
			return err
		}
		return setState(ctx, t, store.InUse, id, st.Peer, at)
	})
	if err != nil {
		return err
	}
	// Statistics, and which pages need no second look. Until the server gathers them by itself, lists would be slow.
	if err := s.analyze(ctx); err != nil {
		s.log.Warn("the new store was not analyzed; the server will do so by itself", "err", err)
	}
	return nil
}

func (s *Store) analyze(ctx context.Context) error {
	conn, err := s.lists.Acquire(ctx)
	if err != nil {
		return err
	}
	// The connection is not given back with these settings.
	own := conn.Hijack()
	defer own.Close(context.WithoutCancel(ctx))
	if _, err := own.Exec(ctx, `SET statement_timeout = 0`); err != nil {
		return err
	}
	_, err = own.Exec(ctx, `VACUUM (ANALYZE) certificate, revocation, status_event, audit_batch, audit_record`)
	return err
}

// Name tells where a database is, without user and password.
func Name(dsn string) string {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return "postgres"
	}
	return fmt.Sprintf("postgres://%s:%d/%s", c.Host, c.Port, c.Database)
}
