package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// tx is a transaction that changes something. It has begun, and ends with seal or is rolled back.
type tx struct {
	*pgxpool.Conn
	xid   string // the server's name of the transaction
	since int64  // the newest change before it: its own is a later one
	nonce []byte // finds its batch when the answer to COMMIT is lost
	seals sealing
}

// sealing is what the head statement of a transaction is told.
type sealing struct {
	config, status, crl bool // what kind of change it is
	records             []audit.Record
	canonical           [][]byte      // of records; made by seal when nil
	events              *statusEvents // nil: none
	last                string        // a statement behind that of the head; empty: none
}

// errAborted says that COMMIT ended the transaction without effect.
var errAborted = errors.New("the server rolled the transaction back")

// write runs one transaction: body does the work with the first round trip's statements queued by first, which may be
// nil, and fills t.seals; then the transaction is sealed and committed. It is tried again after a deadlock, and when the
// connection was dead before COMMIT was sent. A body that returns an error leaves nothing.
func (s *Store) write(ctx context.Context, doing string, first func(*pgx.Batch), body func(t *tx) error) error {
	for try := 1; ; try++ {
		err := s.writeOnce(ctx, first, body)
		if err == nil {
			return nil
		}
		again := ctx.Err() == nil && (isCodeClass(err, "40") && try < 5 ||
			connectionLost(err) && !isConnectError(err) && try <= writerConns+1)
		if _, decided := errors.AsType[*fault.Error](err); decided || !again {
			return fail(withContext(ctx, err), doing)
		}
		s.log.DebugContext(ctx, "writing again", "doing", doing, "err", err)
	}
}

func (s *Store) writeOnce(ctx context.Context, first func(*pgx.Batch), body func(t *tx) error) error {
	conn, err := s.writers.Acquire(ctx)
	if err != nil {
		return err
	}
	defer s.rollback(conn)
	t := &tx{Conn: conn, nonce: make([]byte, 16)}
	rand.Read(t.nonce)
	b := &pgx.Batch{}
	b.Queue(`BEGIN ISOLATION LEVEL READ COMMITTED`)
	b.Queue(`SELECT pg_current_xact_id()::text, change FROM head WHERE strand = 0`).QueryRow(func(row pgx.Row) error {
		return row.Scan(&t.xid, &t.since)
	})
	if first != nil {
		first(b)
	}
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	if err := body(t); err != nil {
		return err
	}
	return s.seal(t)
}

// sqlSeal moves the head, and writes the batch and its records. It is the last statement of every transaction.
const sqlSeal = `
	WITH h AS (
		UPDATE head SET
			change        = change + 1,
			config_change = CASE WHEN $1 THEN change + 1 ELSE config_change END,
			status_change = CASE WHEN $2 THEN change + 1 ELSE status_change END,
			crl_change    = CASE WHEN $3 THEN change + 1 ELSE crl_change END,
			audit_seq     = audit_seq + $4::integer,
			hash          = sha256(hash || int8send(change + 1) || $5::bytea),
			newest_time   = greatest(newest_time, $6)
		WHERE strand = 0
		RETURNING change, audit_seq, hash
	), b AS (
		INSERT INTO audit_batch (change, first_seq, count, root, hash, nonce)
		SELECT h.change, h.audit_seq - $4::integer + 1, $4::integer, $5::bytea, h.hash, $7::bytea
		FROM h
	), r AS (
		INSERT INTO audit_record (seq, change, record, time, actor, action, target)
		SELECT h.audit_seq - $4::integer + u.ord, h.change, u.record, u.time, u.actor, u.action, u.target
		FROM h, unnest($8::bytea[], $9::timestamptz[], $10::text[], $11::text[], $12::text[])
			WITH ORDINALITY AS u (record, time, actor, action, target, ord)
	)`

const sqlSealPlain = sqlSeal + `
	SELECT change FROM h`

// seal sends the head statement and COMMIT in one round trip, and finds out what became of them. From here on the
// caller's context ends nothing.
func (s *Store) seal(t *tx) error {
	z := &t.seals
	if z.canonical == nil {
		z.canonical = canonical(z.records)
	}
	n := len(z.records)
	times := make([]time.Time, n)
	texts := make([]string, 3*n)
	actors, actions, targets := texts[:n:n], texts[n:2*n:2*n], texts[2*n:]
	var newest *time.Time
	for i, r := range z.records {
		times[i] = cut(r.Time)
		actors[i], actions[i], targets[i] = text(r.Actor), text(r.Action), text(r.Target)
		if newest == nil || newest.Before(times[i]) {
			newest = &times[i]
		}
	}
	root := audit.Root(z.canonical)
	sql, args := sqlSealPlain, []any{z.config, z.status, z.crl, n, root[:], newest, t.nonce, z.canonical, times, actors, actions, targets}
	if z.events != nil {
		sql, args = sqlSealStatus, append(args, z.events.args()...)
	}

	ctx, cancel := context.WithTimeout(context.Background(), s.c.StatementTimeout+s.c.ConnectTimeout)
	defer cancel()
	sealed, committed := false, false
	b := &pgx.Batch{}
	b.Queue(sql, args...).QueryRow(func(row pgx.Row) error {
		var change int64
		err := row.Scan(&change)
		sealed = err == nil
		return err
	})
	if z.last != "" {
		b.Queue(z.last)
	}
	b.Queue(`COMMIT`).Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" { // ROLLBACK
			return errAborted
		}
		committed = true
		return nil
	})
	custom := t.Conn.Conn().PgConn().CustomData()
	delete(custom, noticeKey)
	err := t.SendBatch(ctx, b).Close()
	if warning, ok := custom[noticeKey]; ok && committed {
		return unknown(fmt.Errorf("COMMIT came with the warning: %v", warning))
	}
	if err == nil && sealed && committed {
		return nil
	}
	if err == nil {
		err = errors.New("the server did not answer COMMIT")
	}
	// An error that the server reports before it ends the connection means that nothing was committed.
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.SeverityUnlocalized == "ERROR" || errors.Is(err, errAborted) {
		return err
	}
	return s.resolve(t, err)
}

func canonical(records []audit.Record) [][]byte {
	c := make([][]byte, len(records))
	for i, r := range records {
		c[i] = r.Canonical()
	}
	return c
}

func unknown(cause error) error {
	return fault.Wrap(fault.Unavailable, fmt.Errorf("%w: %w", store.ErrUnknownOutcome, cause), "nobody can tell yet whether this was written").
		WithRetryAfter(retryAfter)
}

// resolve finds out on other connections whether a transaction was committed whose connection broke with cause after
// COMMIT was sent. A server may still be at it, so it is first asked whether the transaction runs; when it does not, the
// batch is there or never will be. The number alone proves nothing: after a crash the server may give it out again.
func (s *Store) resolve(t *tx, cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.c.ResolveTimeout)
	defer cancel()
	s.log.Warn("connection lost during COMMIT, looking for the outcome", "err", cause)
	for {
		there, err := s.outcome(ctx, t)
		switch {
		case err == nil && there:
			s.log.Info("the transaction whose COMMIT got no answer was committed", "transaction", t.xid)
			return nil
		case err == nil:
			return fault.Wrap(fault.Unavailable, cause, "the database went away before this was written").WithRetryAfter(retryAfter)
		}
		select {
		case <-ctx.Done():
			return unknown(errors.Join(cause, err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

var errRunning = errors.New("the transaction is still running")

func (s *Store) outcome(ctx context.Context, t *tx) (there bool, err error) {
	conn, err := s.writers.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	var status *string
	err = conn.QueryRow(ctx, `SELECT pg_xact_status($1::text::xid8)`, t.xid).Scan(&status)
	switch {
	case isCode(err, "22023"): // "in the future": the server crashed and never kept the number
	case err != nil:
		return false, err
	case status != nil && *status == "in progress":
		return false, errRunning
	}
	err = conn.QueryRow(ctx, `
		SELECT EXISTS (SELECT 1 FROM audit_batch WHERE change > $1 AND nonce = $2)`, t.since, t.nonce).Scan(&there)
	return there, err
}

func isCodeClass(err error, class string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && strings.HasPrefix(e.Code, class)
}

func isConnectError(err error) bool {
	_, ok := errors.AsType[*pgconn.ConnectError](err)
	return ok
}

// arrayLiteral writes a text[] as the server reads it, for arrays that differ in length inside an array of rows.
func arrayLiteral(elements []string) string {
	if len(elements) == 0 {
		return "{}"
	}
	b := make([]byte, 0, 64)
	b = append(b, '{')
	for i, e := range elements {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		for _, c := range []byte(e) {
			if c == '"' || c == '\\' {
				b = append(b, '\\')
			}
			b = append(b, c)
		}
		b = append(b, '"')
	}
	return string(append(b, '}'))
}

// limitOf is the size of a page: n up to 1000, and 100 for none.
func limitOf(n int) (int, error) {
	switch {
	case n < 0:
		return 0, fault.New(fault.BadRequest, "a page cannot have %s records", strconv.Itoa(n))
	case n == 0:
		return 100, nil
	}
	return min(n, 1000), nil
}
