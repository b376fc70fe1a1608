package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// Copies are the one place where statements are put together from names: those of store.Tables, so that no column is
// forgotten on one side.

var _ store.Movable = (*Store)(nil)

const selectState = `SELECT state, copy_id, peer, since FROM store_state WHERE strand = 0`

func readState(scan func(...any) error) (st store.State, err error) {
	var use int
	var id []byte
	var since sql.NullInt64
	if err := scan(&use, &id, &st.Peer, &since); err != nil {
		return store.State{}, err
	}
	st.Use, st.Since = store.Use(use), optionalTime(since)
	copy(st.Copy[:], id)
	return st, nil
}

// State tells what the store may be used for.
func (s *Store) State(ctx context.Context) (store.State, error) {
	if err := s.begin(ctx); err != nil {
		return store.State{}, err
	}
	st, err := readState(s.read.QueryRowContext(ctx, selectState).Scan)
	return st, s.asFault(ctx, err, "reading the store's state")
}

func (t *tx) state() (st store.State, err error) {
	err = t.row(selectState, nil, func(scan func(...any) error) error {
		st, err = readState(scan)
		return err
	})
	return st, err
}

func (t *tx) setState(use store.Use, id store.CopyID, peer string, at time.Time) error {
	return t.exec(`UPDATE store_state SET state = ?, copy_id = ?, peer = ?, since = ? WHERE strand = 0`, int(use), id[:], peer, micros(at))
}

// Fence takes the store out of use.
func (s *Store) Fence(ctx context.Context, id store.CopyID, peer string, at time.Time, r audit.Record) error {
	return s.write(ctx, &op{closed: true, records: sealed(r), apply: func(t *tx) error {
		st, err := t.state()
		if err != nil {
			return err
		}
		if err := st.Err(); err != nil {
			return err
		}
		t.close, t.config = true, true
		return t.setState(store.Fenced, id, peer, at)
	}})
}

// Unfence puts the store back into use.
func (s *Store) Unfence(ctx context.Context, at time.Time, r audit.Record) error {
	return s.write(ctx, &op{closed: true, records: sealed(r), apply: func(t *tx) error {
		st, err := t.state()
		if err != nil {
			return err
		}
		if st.Use != store.Fenced && st.Use != store.Left {
			return fault.New(fault.Conflict, "the store is not fenced, it is %s", st.Use)
		}
		t.config = true
		return t.setState(store.InUse, store.CopyID{}, "", at)
	}})
}

// Leave notes that the copy of the store is finished.
func (s *Store) Leave(ctx context.Context, id store.CopyID, at time.Time) error {
	return s.write(ctx, &op{closed: true, quiet: true, apply: func(t *tx) error {
		st, err := t.state()
		switch {
		case err != nil:
			return err
		case st.Copy == id && st.Use == store.Left:
			return nil
		case st.Copy != id || st.Use != store.Fenced:
			return fault.Wrap(fault.Conflict, store.ErrStale, "the store is not fenced for this copy any more")
		}
		return t.setState(store.Left, id, st.Peer, at)
	}})
}

// source names what a table's rows are read from.
func source(t store.Table) (columns, from string) {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = `t."` + c.Name + `"`
	}
	from = `"` + t.Name + `" t`
	if t.Name == "certificate" {
		names[t.Index("der")] = `d.der`
		from += ` LEFT JOIN certificate_der d ON d.id = t.id`
	}
	return strings.Join(names, ", "), from
}

// keyOf returns the names of a key's columns.
func keyOf(t store.Table, after string) string {
	names := make([]string, len(t.Key))
	for i, k := range t.Key {
		names[i] = `t."` + k + `"` + after
	}
	return strings.Join(names, ", ")
}

// ExportRows returns the rows behind a key.
func (s *Store) ExportRows(ctx context.Context, t store.Table, after store.Row, limit int) ([]store.Row, error) {
	columns, from := source(t)
	query := `SELECT ` + columns + ` FROM ` + from
	var args []any
	if after != nil {
		query += ` WHERE (` + keyOf(t, "") + `) > (?` + strings.Repeat(", ?", len(t.Key)-1) + `)`
		var err error
		if args, err = bound(t.KeyColumns(), after); err != nil {
			return nil, err
		}
	}
	return s.exportRows(ctx, t.Columns, query+` ORDER BY `+keyOf(t, "")+` LIMIT ?`, append(args, limit)...)
}

// LastKey returns the highest key.
func (s *Store) LastKey(ctx context.Context, t store.Table) (store.Row, error) {
	rows, err := s.exportRows(ctx, t.KeyColumns(), `SELECT `+keyOf(t, "")+` FROM "`+t.Name+`" t ORDER BY `+keyOf(t, " DESC")+` LIMIT 1`)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows[0], nil
}

func (s *Store) exportRows(ctx context.Context, columns []store.Column, query string, args ...any) (list []store.Row, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	values := make([]any, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	err = each(ctx, s.read, query, args, func(scan func(...any) error) error {
		if err := scan(into...); err != nil {
			return err
		}
		row := make(store.Row, len(columns))
		for i, c := range columns {
			v, ok := exported(c, values[i])
			if !ok {
				return fmt.Errorf("column %s holds a %T", c.Name, values[i])
			}
			row[i] = v
		}
		list = append(list, row)
		return nil
	})
	if err != nil {
		return nil, s.asFault(ctx, err, "reading rows to be copied")
	}
	return list, nil
}

// exported turns what SQLite holds into what a Row has.
func exported(c store.Column, v any) (any, bool) {
	if v == nil {
		return nil, c.Null
	}
	switch c.Kind {
	case store.Int:
		n, ok := v.(int64)
		return n, ok
	case store.Bool:
		n, ok := v.(int64)
		return n != 0, ok
	case store.Time:
		n, ok := v.(int64)
		return timeOf(n), ok
	case store.Text:
		s, ok := v.(string)
		return s, ok
	case store.Texts:
		s, ok := v.(string)
		if !ok {
			return nil, false
		}
		list, err := decodeStrings(s)
		if list == nil {
			list = []string{}
		}
		return list, err == nil
	case store.Octets:
		b, ok := v.([]byte)
		return blob(b), ok
	}
	return nil, false
}

// bound is the way back.
func bound(columns []store.Column, row store.Row) ([]any, error) {
	if len(row) != len(columns) {
		return nil, fault.New(fault.BadRequest, "a row has %d values, want %d", len(row), len(columns))
	}
	args := make([]any, len(row))
	for i, c := range columns {
		ok := true
		switch v := row[i].(type) {
		case nil:
			ok = c.Null
		case int64:
			args[i], ok = v, c.Kind == store.Int
		case bool:
			args[i], ok = v, c.Kind == store.Bool
		case string:
			args[i], ok = v, c.Kind == store.Text
		case []byte:
			args[i], ok = blob(v), c.Kind == store.Octets
		case time.Time:
			args[i], ok = micros(v), c.Kind == store.Time
		case []string:
			text, err := encodeStrings(v)
			args[i], ok = text, c.Kind == store.Texts && err == nil
		default:
			ok = false
		}
		if !ok {
			return nil, fault.New(fault.BadRequest, "column %s cannot hold a %T", c.Name, row[i])
		}
	}
	return args, nil
}

// CountRows counts the rows of a table.
func (s *Store) CountRows(ctx context.Context, t store.Table) (n int64, err error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	err = s.read.QueryRowContext(ctx, `SELECT count(*) FROM "`+t.Name+`"`).Scan(&n)
	return n, s.asFault(ctx, err, "counting rows")
}

// BeginImport takes an empty store out of use, to be filled.
func (s *Store) BeginImport(ctx context.Context, id store.CopyID, peer string, at time.Time) error {
	return s.write(ctx, &op{closed: true, quiet: true, whole: true, apply: func(t *tx) error {
		st, err := t.state()
		if err != nil {
			return err
		}
		switch {
		case st.Use == store.Filling && st.Copy == id:
			return nil
		case st.Use == store.Filling:
			if err := t.empty(); err != nil {
				return err
			}
		case st.Use != store.InUse:
			return st.Err()
		default:
			var rows int
			err := t.row(`SELECT (SELECT count(*) FROM issuer) + (SELECT count(*) FROM kek) + (SELECT change FROM head WHERE strand = 0)`, nil,
				func(scan func(...any) error) error { return scan(&rows) })
			if err != nil {
				return err
			}
			if rows > 0 {
				return errNotEmpty()
			}
		}
		if err := t.exec(`UPDATE head SET closed_at = change WHERE strand = 0`); err != nil {
			return err
		}
		return t.setState(store.Filling, id, peer, at)
	}})
}

func errNotEmpty() error {
	return fault.Wrap(fault.Conflict, store.ErrNotEmpty, "the store to be filled is not empty").
		WithHint("name a folder or a database that no Certwright has used")
}

// empty throws away what another copy has left.
func (t *tx) empty() error {
	tables := store.Tables()
	for i := len(tables) - 1; i >= 0; i-- {
		if err := t.exec(`DELETE FROM "` + tables[i].Name + `"`); err != nil {
			return err
		}
	}
	for _, also := range []string{
		`DELETE FROM certificate_der`,
		`INSERT INTO certificate_search (certificate_search) VALUES ('delete-all')`,
		`UPDATE search_progress SET certificate_id = 0 WHERE strand = 0`,
	} {
		if err := t.exec(also); err != nil {
			return err
		}
	}
	return nil
}

// filling refuses what is not of the copy that fills the store.
func (t *tx) filling(id store.CopyID) error {
	st, err := t.state()
	if err == nil && (st.Use != store.Filling || st.Copy != id) {
		err = fault.Wrap(fault.Conflict, store.ErrStale, "the store is not being filled by this copy any more")
	}
	return err
}

// ImportRows writes rows.
func (s *Store) ImportRows(ctx context.Context, id store.CopyID, table store.Table, rows []store.Row) error {
	names, place := make([]string, 0, len(table.Columns)+2), strings.Repeat(", ?", len(table.Columns)+1)
	der := -1
	for i, c := range table.Columns {
		if table.Name == "certificate" && c.Name == "der" {
			der = i // which has its own table
			continue
		}
		names = append(names, `"`+c.Name+`"`)
	}
	// What is derived, and kept beside what was given.
	var derived func(store.Row) []any
	serial := func(r store.Row) pki.SerialNumber {
		b, _ := r[table.Index("serial")].([]byte)
		return pki.SerialNumber(b)
	}
	switch table.Name {
	case "certificate":
		names = append(names, "bucket", "search_text")
		derived = func(r store.Row) []any {
			subject, _ := r[table.Index("subject")].(string)
			sans, _ := r[table.Index("sans")].([]string)
			return []any{serial(r).Bucket(), searchText(&pki.Certificate{Subject: subject, SANs: sans})}
		}
	case "revocation":
		names = append(names, "bucket")
		derived = func(r store.Row) []any { return []any{serial(r).Bucket()} }
	default:
		derived = func(store.Row) []any { return nil }
	}
	insert := `INSERT INTO "` + table.Name + `" (` + strings.Join(names, ", ") + `) VALUES (` + strings.TrimPrefix(place[:3*len(names)], ", ") + `)`
	list := make([][]any, len(rows))
	ders := make([][]byte, len(rows))
	for i, r := range rows {
		args, err := bound(table.Columns, r)
		if err != nil {
			return err
		}
		if der >= 0 {
			ders[i], _ = args[der].([]byte)
			args = append(args[:der:der], args[der+1:]...)
		}
		list[i] = append(args, derived(r)...)
	}
	return s.write(ctx, &op{closed: true, quiet: true, whole: true, apply: func(t *tx) error {
		if err := t.filling(id); err != nil {
			return err
		}
		for i, args := range list {
			res, err := t.execResult(insert, args...)
			if err != nil {
				if primary, _ := code(err); primary == sqlite3.SQLITE_CONSTRAINT {
					return fault.Wrap(fault.Conflict, err, "a row of table %s does not fit to what was copied before", table.Name)
				}
				return err
			}
			if len(ders[i]) > 0 {
				rowid, err := res.LastInsertId()
				if err != nil {
					return err
				}
				if err := t.exec(`INSERT INTO certificate_der (id, der) VALUES (?, ?)`, rowid, ders[i]); err != nil {
					return err
				}
			}
			if table.Name == "certificate" {
				t.added++
			}
		}
		return nil
	}})
}

// FinishImport sets the head and puts the store into use.
func (s *Store) FinishImport(ctx context.Context, id store.CopyID, h store.Head, at time.Time) error {
	return s.write(ctx, &op{closed: true, quiet: true, whole: true, apply: func(t *tx) error {
		if err := t.filling(id); err != nil {
			return err
		}
		st, err := t.state()
		if err != nil {
			return err
		}
		err = t.exec(`
			UPDATE head SET change = ?, config_change = ?, status_change = ?, crl_change = ?, audit_seq = ?, hash = ?, newest_time = ?, closed_at = NULL
			WHERE strand = 0`,
			h.Change, h.ConfigChange, h.StatusChange, h.CRLChange, h.AuditSeq, h.Hash[:], optionalMicros(h.NewestTime))
		if err != nil {
			return err
		}
		return t.setState(store.InUse, id, st.Peer, at)
	}})
}
