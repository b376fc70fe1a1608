package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// op is one verb that writes, on its way through the group commit.
type op struct {
	// apply writes the rows. A refusal is a fault, and unless whole is set it comes before anything is written. Any
	// other error ends the whole batch. It may be called twice, when a batch is taken apart.
	apply func(*tx) error
	// records are what the verb adds to the chain.
	records []record
	// whole has the writer undo a refused operation that has written something.
	whole bool
	// quiet marks what is no change in the sense of the contract: leases and the text index.
	quiet bool
	// closed marks what is done to a store that is not in use; everything else is refused there, but for what is quiet.
	closed bool
}

// record is an audit record with its canonical bytes, which are made outside the writer.
type record struct {
	audit.Record
	bytes []byte
}

func sealed(records ...audit.Record) []record {
	out := make([]record, len(records))
	for i, r := range records {
		out[i] = record{r, r.Canonical()}
	}
	return out
}

// write does an operation durably.
func (s *Store) write(ctx context.Context, o *op) error {
	if s.closed.Load() {
		return errClosed()
	}
	if s.group == nil {
		return fault.New(fault.Conflict, "the database was opened for reading only")
	}
	return s.group.Do(ctx, o)
}

// writer is the one connection that writes. Only the group commit's writer uses it, and Open and Close when that one
// does not run. It talks to the driver itself: package sql costs as much as a simple statement.
type writer struct {
	conn       *sql.Conn
	path       string
	statements map[string]driver.Stmt
	args       []driver.NamedValue
	keys       map[int64]int64 // issuer of each issuer key that has been seen
	added      func(rows int)  // is told how many certificates a commit added
	fallbacks  atomic.Int64
}

// Close frees the statements and gives the connection back. A nil writer has nothing to close.
func (w *writer) Close() error {
	if w == nil {
		return nil
	}
	var err error
	for _, st := range w.statements {
		err = errors.Join(err, st.Close())
	}
	w.statements = nil
	return errors.Join(err, w.conn.Close())
}

// flush is the group commit's: one transaction for all operations, or, when one of them breaks it, one for each.
func (s *Store) flush(_ context.Context, ops []*op) []error {
	errs, err := s.writer.commit(ops)
	if err == nil {
		return errs
	}
	if len(ops) > 1 && !isDiskTrouble(err) {
		s.writer.fallbacks.Add(1)
		s.log.Warn("a batch was taken apart", "operations", len(ops), "err", err)
		errs = make([]error, len(ops))
		for i := range ops {
			one, err := s.writer.commit(ops[i : i+1])
			if err != nil {
				errs[i] = writeFault(err, s.path)
				continue
			}
			errs[i] = one[0]
		}
		return errs
	}
	s.log.Error("a batch was not written", "operations", len(ops), "err", err)
	errs = make([]error, len(ops))
	for i := range errs {
		errs[i] = writeFault(err, s.path)
	}
	return errs
}

// writeFault classifies what kept a transaction from being committed.
func writeFault(err error, path string) error {
	if errors.Is(err, store.ErrUnknownOutcome) {
		return fault.Wrap(fault.Unavailable, err, "the disk failed while writing").WithRetryAfter(retryAfter)
	}
	return classify(err, path, "writing")
}

// commit does the operations in one transaction. It returns one refusal, or nil, for each; or an error when nothing was
// written.
func (w *writer) commit(ops []*op) (refusals []error, err error) {
	rawErr := w.conn.Raw(func(dc any) error {
		refusals, err = w.transact(dc.(driverConn), ops)
		return nil
	})
	if rawErr != nil {
		return nil, rawErr
	}
	return refusals, err
}

// driverConn is what the driver's connection can do.
type driverConn interface {
	driver.ConnPrepareContext
	driver.ExecerContext
}

// tx is a transaction of the writer. It must not outlive the operation that it is passed to.
type tx struct {
	w     *writer
	dc    driverConn
	head  store.Head // as it will be
	ord   int        // of the next status event
	added int        // certificates

	config, status, crl bool // what kinds of change there are
	close               bool // the head is closed with this change
}

func (w *writer) transact(dc driverConn, ops []*op) (refusals []error, err error) {
	t := &tx{w: w, dc: dc}
	if err := t.exec(`BEGIN IMMEDIATE`); err != nil {
		return nil, err
	}
	open := true
	defer func() {
		if open { // an error, or nothing to commit
			w.keys = nil
			_ = t.exec(`ROLLBACK`) // fails when SQLite has rolled back by itself
		}
	}()
	err = t.row(selectHead, nil, func(scan func(...any) error) (err error) {
		t.head, err = readHead(scan)
		return err
	})
	if err != nil {
		return nil, err
	}
	t.head.Change++
	before := t.head

	refusals = make([]error, len(ops))
	var records []record
	done, loud := 0, 0
	for i, o := range ops {
		refusal, err := t.apply(o)
		if err != nil {
			return nil, err
		}
		if refusals[i] = refusal; refusal != nil {
			continue
		}
		done++
		if !o.quiet {
			loud++
			records = append(records, o.records...)
		}
	}
	if done == 0 {
		return refusals, nil
	}
	if loud > 0 {
		if err := t.seal(records); err != nil {
			return nil, err
		}
	}
	if err := t.exec(`COMMIT`); err != nil {
		// When the disk fails at the fsync nobody knows what a machine that dies now will find.
		if _, extended := code(err); extended == sqlite3.SQLITE_IOERR_FSYNC || extended == sqlite3.SQLITE_IOERR_DIR_FSYNC {
			err = fmt.Errorf("change %d: %w: %w", before.Change, store.ErrUnknownOutcome, err)
		}
		return nil, err
	}
	open = false
	if t.added > 0 {
		w.added(t.added)
	}
	return refusals, nil
}

// apply does one operation. The first error is a refusal, of which nothing remains; the second ends the batch.
func (t *tx) apply(o *op) (refusal, err error) {
	if t.head.Closed && !o.quiet && !o.closed {
		return errNotInUse(), nil
	}
	was := *t
	if o.whole {
		if err := t.exec(`SAVEPOINT op`); err != nil {
			return nil, err
		}
	}
	err = t.call(o)
	_, refused := errors.AsType[*fault.Error](err)
	switch {
	case err != nil && !refused:
		return nil, err
	case refused:
		*t = was
		if o.whole {
			t.w.keys = nil
			if err := t.exec(`ROLLBACK TO op`); err != nil {
				return nil, err
			}
		}
		refusal = err
	}
	if o.whole {
		if err := t.exec(`RELEASE op`); err != nil {
			return nil, err
		}
	}
	return refusal, nil
}

// call turns a panic into an error: package sql would take the connection away, and the other operations are not at
// fault.
func (t *tx) call(o *op) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic while writing: %v\n%s", r, debug.Stack())
		}
	}()
	return o.apply(t)
}

// seal writes the records and moves the head.
func (t *tx) seal(records []record) error {
	h := &t.head
	first, newest := h.AuditSeq+1, h.NewestTime
	bytes := make([][]byte, len(records))
	for i, r := range records {
		h.AuditSeq++
		bytes[i] = r.bytes
		if at := r.Time.UTC().Truncate(time.Microsecond); at.After(newest) {
			newest = at
		}
		if err := t.exec(`INSERT INTO audit_record (seq, change, time, actor, action, target, record) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			h.AuditSeq, h.Change, micros(r.Time), r.Actor, r.Action, r.Target, r.bytes); err != nil {
			return err
		}
	}
	root := audit.Root(bytes)
	h.Hash, h.NewestTime = audit.Next(h.Hash, h.Change, root), newest
	if t.config {
		h.ConfigChange = h.Change
	}
	if t.status {
		h.StatusChange = h.Change
	}
	if t.crl {
		h.CRLChange = h.Change
	}
	var closedAt any
	if t.close {
		closedAt = h.Change
	}
	if err := t.exec(`INSERT INTO audit_batch (change, first_seq, count, root, hash) VALUES (?, ?, ?, ?, ?)`,
		h.Change, first, len(records), root[:], h.Hash[:]); err != nil {
		return err
	}
	return t.exec(`UPDATE head SET change = ?, config_change = ?, status_change = ?, crl_change = ?, audit_seq = ?, hash = ?, newest_time = ?, closed_at = ? WHERE strand = 0`,
		h.Change, h.ConfigChange, h.StatusChange, h.CRLChange, h.AuditSeq, h.Hash[:], optionalMicros(h.NewestTime), closedAt)
}

// statement returns the prepared statement of a query. Queries are constants, so that there are few.
func (t *tx) statement(query string) (driver.Stmt, error) {
	if st := t.w.statements[query]; st != nil {
		return st, nil
	}
	st, err := t.dc.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	if t.w.statements == nil {
		t.w.statements = map[string]driver.Stmt{}
	}
	t.w.statements[query] = st
	return st, nil
}

// bind puts arguments in the form that the driver takes. The slice is good until the next call.
func (t *tx) bind(args []any) []driver.NamedValue {
	out := t.w.args[:0]
	for i, a := range args {
		switch v := a.(type) {
		case int:
			a = int64(v)
		case nil, int64, bool, string, []byte:
		default:
			panic(fmt.Sprintf("sqlite: argument %d is a %T", i, a))
		}
		out = append(out, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	t.w.args = out
	return out
}

// exec runs a statement that returns no rows.
func (t *tx) exec(query string, args ...any) error {
	_, err := t.execResult(query, args...)
	return err
}

func (t *tx) execResult(query string, args ...any) (driver.Result, error) {
	st, err := t.statement(query)
	if err != nil {
		return nil, err
	}
	return st.(driver.StmtExecContext).ExecContext(context.Background(), t.bind(args))
}

// rows calls each for every row.
func (t *tx) rows(query string, args []any, each func(scan func(...any) error) error) (err error) {
	st, err := t.statement(query)
	if err != nil {
		return err
	}
	rows, err := st.(driver.StmtQueryContext).QueryContext(context.Background(), t.bind(args))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	values := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(values); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := each(func(dest ...any) error { return assign(dest, values) }); err != nil {
			return err
		}
	}
}

// row reads the first row. It returns sql.ErrNoRows when there is none.
func (t *tx) row(query string, args []any, read func(scan func(...any) error) error) error {
	found := false
	err := t.rows(query, args, func(scan func(...any) error) error {
		if found {
			return nil
		}
		found = true
		return read(scan)
	})
	if err == nil && !found {
		return sql.ErrNoRows
	}
	return err
}

// assign copies a row's values out, as package sql's Scan would.
func assign(dest []any, values []driver.Value) error {
	if len(dest) != len(values) {
		return fmt.Errorf("a row has %d columns, want %d", len(values), len(dest))
	}
	for i, d := range dest {
		ok := true
		switch d := d.(type) {
		case *sql.NullInt64:
			d.Int64, d.Valid = values[i].(int64)
			ok = d.Valid || values[i] == nil
		case *int64:
			*d, ok = values[i].(int64)
		case *int:
			var n int64
			n, ok = values[i].(int64)
			*d = int(n)
		case *string:
			*d, ok = values[i].(string)
		case *[]byte:
			*d, ok = values[i].([]byte)
			ok = ok || values[i] == nil
		default:
			ok = false
		}
		if !ok {
			return fmt.Errorf("column %d is a %T, want %T", i+1, values[i], d)
		}
	}
	return nil
}

// issuerOf returns the issuer of a key.
func (t *tx) issuerOf(key int64) (int64, error) {
	if issuer, ok := t.w.keys[key]; ok {
		return issuer, nil
	}
	var issuer int64
	err := t.row(`SELECT issuer_id FROM issuer_key WHERE id = ?`, []any{key}, func(scan func(...any) error) error { return scan(&issuer) })
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fault.New(fault.NotFound, "there is no such issuer key")
	}
	if err != nil {
		return 0, err
	}
	if t.w.keys == nil {
		t.w.keys = map[int64]int64{}
	}
	t.w.keys[key] = issuer
	return issuer, nil
}

// sortedKeys makes loops over maps repeatable.
func sortedKeys[V any](m map[int64]V) []int64 { return slices.Sorted(maps.Keys(m)) }
