package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/groupcommit"
	"github.com/certwright/certwright/pkg/store"
)

const (
	// readers is how many connections read at the same time. A CRL or an audit export in progress holds one.
	readers = 8
	// The page caches: 16 MiB in all, which take nearly twice that, since a page with its head takes the allocator's next larger
	// size. A reader needs the inner pages of the indexes, of a million certificates about half a megabyte each; what it
	// reads beyond stands in the system's cache.
	writerCacheKiB = 12 << 10
	readerCacheKiB = (16<<10 - writerCacheKiB) / readers
)

// Config is what a Store is made of.
type Config struct {
	// Path is the database file, made by Migrate. Its folder also takes PATH-wal, PATH-shm and PATH.lock.
	Path string
	// ReadOnly opens the database beside a process that has it, for verbs that read; those that write are a Conflict. It
	// opens every store, whether in use or not.
	ReadOnly bool
	// Closed opens also a store that is not in use: one that is fenced or was left, or that is being filled.
	Closed bool
	// Logger is told what happens in the background; slog.Default() if nil.
	Logger *slog.Logger
	// MaxBatch is how many operations share a transaction at the most; 256 if zero.
	MaxBatch int
	// MaxQueue is how many operations may wait before callers are held back; 4096 if zero.
	MaxQueue int
}

// Store is a store.Store in one SQLite file. It is safe for concurrent use.
type Store struct {
	path   string
	log    *slog.Logger
	lock   *os.File
	pool   *sql.DB // of the writer's one connection
	read   *sql.DB
	writer *writer
	group  *groupcommit.Committer[*op]

	statusQuery *sql.Stmt // asked for every OCSP answer that is not ready

	closed    atomic.Bool
	closeOnce sync.Once
	closeErr  error

	stopIndexer context.CancelFunc
	indexer     sync.WaitGroup
	unindexed   chan struct{} // holds one token when rows wait for the text index
	pending     atomic.Int64  // how many rows wait
}

var _ store.Store = (*Store)(nil)

// Open opens the database that Migrate has made and locks it for this process. It is a Conflict when another process
// has it, when its schema is not this program's (store.ErrSchemaOld, store.ErrSchemaNew, store.ErrSchemaDirty), or when
// it is not in use (store.ErrNotInUse). Close the store when done.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Path == "" {
		return nil, errors.New("sqlite: Config.Path is empty")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if _, err := os.Lstat(c.Path); errors.Is(err, fs.ErrNotExist) {
		return nil, errNoSchema()
	}
	s := &Store{path: c.Path, log: c.Logger, unindexed: make(chan struct{}, 1)}
	if c.ReadOnly {
		if err := s.openReaders(ctx); err != nil {
			s.release()
			return nil, err
		}
		return s, nil
	}
	var err error
	if s.lock, err = lockDatabase(c.Path); err != nil {
		return nil, err
	}
	if err := s.open(ctx, c); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

// lockDatabase locks the database for this process, and makes sure that nobody but its owner reads the file.
func lockDatabase(path string) (*os.File, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	// SQLite would make the file with the permissions of the umask; -wal and -shm take after the file. The descriptor is
	// closed again before SQLite opens the file: closing it later would drop SQLite's locks.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err == nil {
		err = f.Chmod(0o600)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		lock.Close()
		return nil, fault.Wrap(fault.Unavailable, err, "the database file cannot be opened").
			WithHint("it must belong to the user that the server runs as, and be no symbolic link")
	}
	return lock, nil
}

// dsn names the file and the settings of a connection.
func dsn(path string, cacheKiB int, more ...string) string {
	settings := append([]string{
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "mmap_size(0)", "temp_store(MEMORY)",
		fmt.Sprintf("cache_size(-%d)", cacheKiB),
	}, more...)
	q := url.Values{"_pragma": settings, "_txlock": {"immediate"}, "_dqs": {"0"}}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}).String()
}

func (s *Store) open(ctx context.Context, c Config) error {
	var err error
	// The log is folded into the database every 16 MiB: hot pages are written once for many commits.
	if s.pool, err = sql.Open("sqlite", dsn(s.path, writerCacheKiB, "wal_autocheckpoint(4096)", "journal_size_limit(67108864)")); err != nil {
		return fmt.Errorf("opening the writer: %w", err)
	}
	s.pool.SetMaxOpenConns(1)
	conn, err := s.pool.Conn(ctx)
	if err != nil {
		return classify(err, s.path, "opening the database")
	}
	s.writer = &writer{conn: conn, path: s.path}
	if err := checkSettings(ctx, conn); err != nil {
		return classifyOpen(err, s.path)
	}
	if err := s.openReaders(ctx); err != nil {
		return err
	}
	if !c.Closed {
		state, err := s.State(ctx)
		if err == nil {
			err = state.Err()
		}
		if err != nil {
			return err
		}
	}
	var unindexed int // by the last process
	err = s.read.QueryRowContext(ctx, `
		SELECT count(*) FROM certificate WHERE id > (SELECT certificate_id FROM search_progress WHERE strand = 0)`).Scan(&unindexed)
	if err != nil {
		return classify(err, s.path, "opening the database")
	}
	s.await(unindexed)
	s.writer.added = s.await
	if s.group, err = groupcommit.New(groupcommit.Config[*op]{
		Writers: 1, MaxBatch: c.MaxBatch, MaxQueue: c.MaxQueue, FlushTimeout: time.Hour, Flush: s.flush,
	}); err != nil {
		return err
	}
	indexCtx, cancel := context.WithCancel(context.Background())
	s.stopIndexer = cancel
	s.indexer.Go(func() { s.maintainIndex(indexCtx) })
	return nil
}

// openReaders opens the connections that only read, on a database of this program's schema.
func (s *Store) openReaders(ctx context.Context) error {
	var err error
	if s.read, err = sql.Open("sqlite", dsn(s.path, readerCacheKiB, "query_only(ON)")); err != nil {
		return fmt.Errorf("opening the readers: %w", err)
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	if err := checkSchema(ctx, s.read); err != nil {
		return classifyOpen(err, s.path)
	}
	if s.statusQuery, err = s.read.PrepareContext(ctx, selectStatus); err != nil {
		return classify(err, s.path, "opening the database")
	}
	_, err = s.Head(ctx)
	return err
}

// classifyOpen leaves faults alone and classifies the rest.
func classifyOpen(err error, path string) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return classify(err, path, "opening the database")
}

// checkSettings makes sure that the connection does what was asked: a file system without shared memory, for example,
// silently keeps the rollback journal.
func checkSettings(ctx context.Context, q querier) error {
	var mode string
	var sync int
	if err := q.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode); err != nil {
		return err
	}
	if err := q.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&sync); err != nil {
		return err
	}
	if !strings.EqualFold(mode, "wal") || sync != 2 {
		return fault.New(fault.Unavailable, "the database cannot be opened safely: journal_mode is %s and synchronous %d, not wal and 2", mode, sync).
			WithHint("put the data folder on a local file system")
	}
	return nil
}

// querier is what a pool, a connection and a transaction have in common.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Close lets what waits be written, folds the log into the database and gives the lock back. Calling it again does no
// harm. Verbs that still run end with Unavailable.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.closed.Store(true)
		s.closeErr = s.release()
	})
	return s.closeErr
}

// release gives back whatever open has taken.
func (s *Store) release() error {
	var err error
	if s.stopIndexer != nil {
		s.stopIndexer()
		s.indexer.Wait()
	}
	if s.group != nil {
		s.group.Close()
	}
	for _, c := range []io.Closer{closer(s.read), s.writer, closer(s.pool)} {
		err = errors.Join(err, c.Close())
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// closer makes a pool that was never opened harmless.
func closer(db *sql.DB) io.Closer {
	if db == nil {
		return io.NopCloser(nil)
	}
	return db
}

// begin is the first line of every verb that reads.
func (s *Store) begin(ctx context.Context) error {
	if s.closed.Load() {
		return errClosed()
	}
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the request ended before it was answered")
	}
	return nil
}

// snapshot begins a transaction that reads one consistent state. The caller must roll it back; the end of ctx does so
// too.
func (s *Store) snapshot(ctx context.Context) (*sql.Tx, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
}

// Head returns the newest change.
func (s *Store) Head(ctx context.Context) (store.Head, error) {
	if err := s.begin(ctx); err != nil {
		return store.Head{}, err
	}
	h, err := readHead(s.read.QueryRowContext(ctx, selectHead).Scan)
	return h, s.asFault(ctx, err, "reading the head")
}

const selectHead = `SELECT change, config_change, status_change, crl_change, audit_seq, hash, newest_time, closed_at FROM head WHERE strand = 0`

func readHead(scan func(...any) error) (store.Head, error) {
	var h store.Head
	var hash []byte
	var newest, closedAt sql.NullInt64
	if err := scan(&h.Change, &h.ConfigChange, &h.StatusChange, &h.CRLChange, &h.AuditSeq, &hash, &newest, &closedAt); err != nil {
		return store.Head{}, err
	}
	h.Hash = audit.Hash(hash32(hash))
	h.NewestTime, h.Closed = optionalTime(newest), closedAt.Valid
	return h, nil
}

// Stats returns figures since the store was opened.
func (s *Store) Stats() store.Stats {
	if s.group == nil {
		return store.Stats{Connections: s.read.Stats().OpenConnections, Pool: pool(s.read)}
	}
	batches, ops := s.group.Stats()
	return store.Stats{
		Batches: batches, BatchedOps: ops, Fallbacks: s.writer.fallbacks.Load(),
		Connections: s.read.Stats().OpenConnections + s.pool.Stats().OpenConnections,
		BatchSizes:  s.group.Sizes(), Pool: pool(s.read, s.pool),
	}
}

func pool(all ...*sql.DB) (p store.Pool) {
	for _, db := range all {
		at := db.Stats()
		p.Max += at.MaxOpenConnections
		p.InUse += at.InUse
		p.Idle += at.Idle
		p.Waits += at.WaitCount
		p.Waited += at.WaitDuration
	}
	return p
}

// Times are kept as microseconds since 1970.

func micros(t time.Time) int64 { return t.UnixMicro() }

func optionalMicros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func timeOf(us int64) time.Time { return time.UnixMicro(us).UTC() }

func optionalTime(us sql.NullInt64) time.Time {
	if !us.Valid {
		return time.Time{}
	}
	return timeOf(us.Int64)
}

// hash32 copies a hash out of a row. A row that holds another length gives zeros, which no hash is.
func hash32(b []byte) (h [32]byte) {
	if len(b) == len(h) {
		copy(h[:], b)
	}
	return h
}

// blob makes a column that is NOT NULL take an empty slice.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
