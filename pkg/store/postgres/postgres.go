package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/migrations"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/groupcommit"
	"github.com/certwright/certwright/pkg/store"
)

// Config says how to reach the database. Only DSN is required.
type Config struct {
	// DSN is a connection URL or a list of keywords, as libpq reads them.
	DSN string
	// MaxConns bounds the connections of this process; 16 by default, at least 12. Six of them are for changes, four for
	// lists and streams, the others for look-ups.
	MaxConns int
	// ConnectTimeout bounds the making of one connection; 5 seconds by default.
	ConnectTimeout time.Duration
	// StatementTimeout ends a statement in the server; 15 seconds by default. Streams have none.
	StatementTimeout time.Duration
	// LockTimeout ends a statement that waits for a lock; 10 seconds by default.
	LockTimeout time.Duration
	// ResolveTimeout bounds how long a write whose COMMIT got no answer waits to learn its outcome; 5 seconds by default.
	ResolveTimeout time.Duration
	// ApplicationName is what the server's own tools show; "certwright" by default.
	ApplicationName string
	// Closed opens also a store that is not in use: one that is fenced or was left, or that is being filled.
	Closed bool
	// Logger takes what no caller learns: lost connections, batches taken apart. Nil: none of it.
	Logger *slog.Logger
}

// Writers' connections: two for issuance, two for status, two for the rare verbs. Lists and streams have their own, so
// that neither a revocation nor the look-up for an OCSP answer waits behind them.
const (
	writerConns  = 6
	listConns    = 4
	groupWriters = 2
	maxBatch     = 256
)

// byKey are the settings of connections that look rows up by their keys and by nothing else. A plan made while the tables
// were small must not scan them when they have grown, before the statistics have. And the plan of a look-up is the same
// for all values: planning anew would cost 0.2 ms of 0.28, since every partition counts (measured: 3500 look-ups of a
// status a second on one connection, and 11500 without).
var byKey = map[string]string{
	"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "plan_cache_mode": "force_generic_plan",
}

// retryAfter is what callers are told when the database is away.
const retryAfter = 2 * time.Second

// Store is a store.Store on PostgreSQL. Make one with Open.
type Store struct {
	c       Config
	log     *slog.Logger
	writers *pgxpool.Pool
	readers *pgxpool.Pool // look-ups by key
	lists   *pgxpool.Pool // lists and streams

	lookups   *lookups
	issuances *groupcommit.Committer[*issuance]
	statuses  *groupcommit.Committer[*statusOp]
	fallbacks atomic.Int64
	keys      sync.Map // of issuerKey: those known to exist
}

var _ store.Store = (*Store)(nil)

// Open connects to a database whose schema Migrate has brought up to date. It refuses with a hint what would lose data
// or rows: a server with fsync or full_page_writes off, a schema of another version (store.ErrSchemaOld,
// store.ErrSchemaNew, store.ErrSchemaDirty), a role of servers that lacks rights (Forbidden), and a store that is not in use
// (store.ErrNotInUse). A server that cannot be reached is Unavailable. After Open the store connects again by itself whenever
// the server was away.
func Open(ctx context.Context, c Config) (*Store, error) {
	c.MaxConns = max(orDefault(c.MaxConns, 16), writerConns+listConns+2)
	c.ConnectTimeout = orDefault(c.ConnectTimeout, 5*time.Second)
	c.StatementTimeout = orDefault(c.StatementTimeout, 15*time.Second)
	c.LockTimeout = orDefault(c.LockTimeout, 10*time.Second)
	c.ResolveTimeout = orDefault(c.ResolveTimeout, 5*time.Second)
	c.ApplicationName = orDefault(c.ApplicationName, "certwright")
	s := &Store{c: c, log: c.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	ok := false
	defer func() {
		if !ok {
			s.closePools()
		}
	}()
	var err error
	if s.lists, err = s.pool(ctx, listConns, nil); err != nil {
		return nil, err
	}
	if err := s.checkServer(ctx); err != nil {
		return nil, err
	}
	if s.readers, err = s.pool(ctx, int32(c.MaxConns-writerConns-listConns), byKey); err != nil {
		return nil, err
	}
	if s.writers, err = s.pool(ctx, writerConns, byKey); err != nil {
		return nil, err
	}
	s.lookups = &lookups{query: s.certificatesOf, context: func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), s.c.StatementTimeout+s.c.ConnectTimeout)
	}}
	if s.issuances, err = groupcommit.New(groupcommit.Config[*issuance]{
		Writers: groupWriters, MaxBatch: maxBatch, Flush: s.flushIssuances,
	}); err != nil {
		return nil, err
	}
	if s.statuses, err = groupcommit.New(groupcommit.Config[*statusOp]{
		Writers: groupWriters, MaxBatch: maxBatch, Flush: s.flushStatuses,
	}); err != nil {
		s.issuances.Close()
		return nil, err
	}
	ok = true
	return s, nil
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// pool makes a pool whose connections carry our settings; it opens none yet.
func (s *Store) pool(ctx context.Context, size int32, settings map[string]string) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(s.c.DSN)
	if err != nil {
		// The cause repeats the DSN, with the password masked by pgx.
		return nil, fault.Wrap(fault.BadRequest, err, "the database's address cannot be read").
			WithHint("it looks like postgres://USER:PASSWORD@HOST:5432/DATABASE")
	}
	c.MaxConns = size
	c.MinConns, c.MinIdleConns = 0, 0
	c.MaxConnLifetimeJitter = 10 * time.Minute
	c.PingTimeout = s.c.ConnectTimeout
	c.ConnConfig.ConnectTimeout = s.c.ConnectTimeout
	c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	c.ConnConfig.OnNotice = onNotice
	p := c.ConnConfig.RuntimeParams
	if p["synchronous_commit"] != "remote_apply" { // which is stricter
		p["synchronous_commit"] = "on"
	}
	p["statement_timeout"] = milliseconds(s.c.StatementTimeout)
	p["lock_timeout"] = milliseconds(s.c.LockTimeout)
	p["idle_in_transaction_session_timeout"] = milliseconds(s.c.StatementTimeout)
	p["default_transaction_isolation"] = "read committed"
	p["TimeZone"] = "UTC"
	p["application_name"] = s.c.ApplicationName
	for name, value := range settings {
		p[name] = value
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, fail(err, "opening the database")
	}
	return pool, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(max(d.Milliseconds(), 1), 10) }

const noticeKey = "certwright.warning"

// onNotice remembers warnings. One that comes with a COMMIT says that the transaction was committed here and may not
// have reached the standby it must reach (SyncRepWaitForLSN in the server's source): COMMIT then succeeds nevertheless.
func onNotice(conn *pgconn.PgConn, n *pgconn.Notice) {
	if n.SeverityUnlocalized == "WARNING" {
		conn.CustomData()[noticeKey] = n.Message
	}
}

// checkServer refuses servers and schemas that Open must not accept.
func (s *Store) checkServer(ctx context.Context) error {
	var version int
	var fsync, pages, readOnly string
	err := s.lists.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('fsync'), current_setting('full_page_writes'),
		       current_setting('transaction_read_only')`,
	).Scan(&version, &fsync, &pages, &readOnly)
	if err != nil {
		return fail(err, "connecting to the database")
	}
	switch {
	case version < 140000:
		return fault.New(fault.Conflict, "the database server is PostgreSQL %d", version/10000).
			WithHint("Certwright needs PostgreSQL 14 or newer")
	case fsync != "on":
		return fault.New(fault.Conflict, "the database server runs with fsync = off and would lose certificates in a crash").
			WithHint("run: ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();")
	case pages != "on":
		return fault.New(fault.Conflict, "the database server runs with full_page_writes = off and may be left unreadable by a crash").
			WithHint("run: ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();")
	case readOnly != "off":
		return fault.New(fault.Unavailable, "the database server is read-only: it is a standby, or default_transaction_read_only is on").
			WithHint("point the address at the primary, for example with target_session_attrs=read-write").WithRetryAfter(retryAfter)
	}
	want, err := migrations.Latest(migrations.FS, folder)
	if err != nil {
		return err
	}
	have, dirty, err := schemaVersion(ctx, s.lists)
	if err != nil {
		return fail(err, "reading the schema's version")
	}
	if err := judgeSchema(have, dirty, want); err != nil || s.c.Closed {
		return err
	}
	if err := judgeRights(ctx, s.lists); err != nil {
		return err
	}
	state, err := s.State(ctx)
	if err != nil {
		return err
	}
	return state.Err()
}

// judgeSchema says why a program of version want must not work on a schema of version have; nil if it may.
func judgeSchema(have uint, dirty bool, want uint) error {
	switch {
	case dirty:
		return fault.Wrap(fault.Conflict, store.ErrSchemaDirty, "migration %d of the database was broken off", have).
			WithHint("run: certwright store migrate")
	case have == 0:
		return fault.Wrap(fault.Conflict, store.ErrSchemaOld, "the database has no Certwright schema").
			WithHint("run: certwright store migrate")
	case have < want:
		return fault.Wrap(fault.Conflict, store.ErrSchemaOld, "the database has schema version %d, this program needs %d", have, want).
			WithHint("run: certwright store migrate")
	case have > want:
		return fault.Wrap(fault.Conflict, store.ErrSchemaNew, "the database has schema version %d, this program knows %d", have, want).
			WithHint("run the newer certwright that migrated it, or restore a backup from before")
	}
	return nil
}

// Close writes what waits, refuses what comes, and returns when every connection is closed. Streams in progress are
// waited for.
func (s *Store) Close() error {
	s.issuances.Close()
	s.statuses.Close()
	s.lookups.close()
	s.closePools()
	return nil
}

func (s *Store) closePools() {
	for _, p := range []*pgxpool.Pool{s.lists, s.readers, s.writers} {
		if p != nil {
			p.Close()
		}
	}
}

// Stats implements store.Store.
func (s *Store) Stats() store.Stats {
	b1, o1 := s.issuances.Stats()
	b2, o2 := s.statuses.Stats()
	sizes := s.issuances.Sizes()
	for i, n := range s.statuses.Sizes() {
		sizes[i] += n
	}
	var pool store.Pool
	for _, p := range []*pgxpool.Pool{s.readers, s.writers, s.lists} {
		at := p.Stat()
		pool.Max += int(at.MaxConns())
		pool.InUse += int(at.AcquiredConns())
		pool.Idle += int(at.IdleConns())
		pool.Waits += at.EmptyAcquireCount()
		pool.Waited += at.EmptyAcquireWaitTime()
	}
	return store.Stats{
		BatchSizes: sizes, Pool: pool,
		Batches: b1 + b2, BatchedOps: o1 + o2, Fallbacks: s.fallbacks.Load(),
		Connections: int(s.readers.Stat().TotalConns() + s.writers.Stat().TotalConns() + s.lists.Stat().TotalConns()),
	}
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context) (store.Head, error) {
	return read(ctx, s, "reading the head", func(conn *pgxpool.Conn) (store.Head, error) { return readHead(ctx, conn) })
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func readHead(ctx context.Context, q querier) (h store.Head, err error) {
	var hash []byte
	var newest *time.Time
	err = q.QueryRow(ctx, `
		SELECT change, config_change, status_change, crl_change, audit_seq, hash, newest_time, closed_at IS NOT NULL
		FROM head WHERE strand = 0`,
	).Scan(&h.Change, &h.ConfigChange, &h.StatusChange, &h.CRLChange, &h.AuditSeq, &hash, &newest, &h.Closed)
	if err != nil {
		return store.Head{}, err
	}
	h.NewestTime = fromNull(newest)
	return h, setHash(h.Hash[:], hash, "head.hash")
}

// read runs a query on a reader's connection. It is tried again on another one when the connection turns out to be dead,
// as every pooled one is after the server was restarted.
func read[T any](ctx context.Context, s *Store, doing string, query func(*pgxpool.Conn) (T, error)) (T, error) {
	return readOn(ctx, s, s.readers, doing, query)
}

// readOn is read on a pool's connection, for queries that may be run twice.
func readOn[T any](ctx context.Context, s *Store, pool *pgxpool.Pool, doing string, query func(*pgxpool.Conn) (T, error)) (T, error) {
	for try := 1; ; try++ {
		v, err := func() (v T, err error) {
			conn, err := pool.Acquire(ctx)
			if err != nil {
				return v, err
			}
			defer conn.Release()
			return query(conn)
		}()
		if err == nil {
			return v, nil
		}
		if try > s.c.MaxConns || ctx.Err() != nil || !connectionLost(err) || isConnectError(err) {
			var zero T
			return zero, fail(withContext(ctx, err), doing)
		}
	}
}

// snapshot is a read-only transaction that sees one state of the database and has no statement timeout. release must be
// called; it may be called from another goroutine only while nothing else uses the connection.
func (s *Store) snapshot(ctx context.Context) (conn *pgxpool.Conn, release func(), err error) {
	for try := 1; ; try++ {
		if conn, err = s.lists.Acquire(ctx); err != nil {
			return nil, nil, err
		}
		b := &pgx.Batch{}
		b.Queue(`BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY`)
		b.Queue(`SET LOCAL statement_timeout = 0`)
		b.Queue(`SET LOCAL idle_in_transaction_session_timeout = 0`)
		err = conn.SendBatch(ctx, b).Close()
		if err == nil {
			return conn, func() { s.rollback(conn) }, nil
		}
		s.rollback(conn)
		if try > s.c.MaxConns || ctx.Err() != nil || !connectionLost(err) || isConnectError(err) {
			return nil, nil, withContext(ctx, err)
		}
	}
}

// rollback ends a transaction that is to leave nothing, and gives the connection back. The pool destroys a connection
// that could not roll back.
func (s *Store) rollback(conn *pgxpool.Conn) {
	if !conn.Conn().IsClosed() && conn.Conn().PgConn().TxStatus() != 'I' {
		ctx, cancel := context.WithTimeout(context.Background(), s.c.ConnectTimeout)
		defer cancel()
		if _, err := conn.Exec(ctx, `ROLLBACK`); err != nil {
			s.log.Debug("rolling back", "err", err)
		}
	}
	conn.Release()
}

// Times and texts at the door.

// cut brings a time to what the database holds.
func cut(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// orNull turns the zero time into NULL.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = cut(t)
	return &t
}

// fromNull turns NULL into the zero time.
func fromNull(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// text makes a string fit for TEXT, which holds neither NUL nor broken UTF-8. Subjects of imported certificates may have
// both; their DER says what they really are.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// setHash copies a hash from the database and refuses one of the wrong length.
func setHash(to, from []byte, column string) error {
	if len(to) != len(from) {
		return fmt.Errorf("%s holds %d octets, want %d", column, len(from), len(to))
	}
	copy(to, from)
	return nil
}

// isNoRows reports whether a query for one row found none.
func isNoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }
