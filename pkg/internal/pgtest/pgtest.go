// Package pgtest gives tests a real Postgres that nobody has to set up, and each
// test an empty database of its own in it.
//
// DSN and Template use one server for the whole test process. It is the server
// named by CERTWRIGHT_TEST_POSTGRES (a superuser's connection URL; scripts/test
// sets it, so that all test binaries share one), or else one that is started at
// the first call and ends with the process, however the process ends. Start
// gives a test a server of its own, which it may kill and start again.
//
// Servers run with fsync on, as the store demands, and as an ordinary user when
// the tests run as root, because Postgres refuses root. Where there is no Postgres
// the test is skipped; with CI=true or CERTWRIGHT_TEST_REQUIRE=1 it fails.
//
// No goroutine is left running, so tests may look for leaks. Unix only.
package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	serverVariable  = "CERTWRIGHT_TEST_POSTGRES"
	requireVariable = "CERTWRIGHT_TEST_REQUIRE"

	// namePrefix begins the name of every database made here: prefix, process key
	// in eight hex digits, name of the test.
	namePrefix = "cwtest_"

	// lockClass is the first half of the advisory lock that each process holds for
	// as long as its databases are in use; the second half is the process key.
	lockClass = 0x6377

	// callTimeout bounds one administrative statement.
	callTimeout = time.Minute
)

// DSN returns a connection URL for a new, empty database of the shared server. It
// is dropped when the test ends, with whatever is still connected to it. Safe for
// concurrent use by tests that run in parallel.
func DSN(t testing.TB) string {
	t.Helper()
	c := shared(t)
	return c.clone(t, "template0")
}

// Template returns a connection URL for a new copy of the template called name. The
// first call of the process makes the template: it calls fill with the URL of an
// empty database, which fill must leave without open connections. When fill fails,
// every test that asks for this template fails. Copies are dropped as those of DSN.
func Template(t testing.TB, name string, fill func(dsn string) error) string {
	t.Helper()
	c := shared(t)

	templates.mu.Lock()
	tmpl := templates.byName[name]
	if tmpl == nil {
		// The error stands when fill never returns, as after t.Fatal inside it.
		tmpl = &template{err: errors.New("filling it was broken off")}
		templates.byName[name] = tmpl
	}
	templates.mu.Unlock()

	tmpl.once.Do(func() { tmpl.database, tmpl.err = c.makeTemplate(name, fill) })
	if tmpl.err != nil {
		t.Fatalf("pgtest: making template %q: %v", name, tmpl.err)
	}
	return c.clone(t, tmpl.database)
}

// Copy returns a connection URL for a copy of a database of the shared server, as it is now. Nobody may be connected to it.
// The copy is dropped when the test ends.
func Copy(t testing.TB, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return shared(t).clone(t, strings.TrimPrefix(u.Path, "/"))
}

// Connect returns a connection that is closed when the test ends.
func Connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatalf("pgtest: connecting to %s: %v", dsn, err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the database goes anyway
	return conn
}

// Exec executes a statement, and ends the test when that fails.
func Exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("pgtest: %s: %v", sql, err)
	}
}

// TCP returns the URL of the same database over 127.0.0.1, for tests that put a
// proxy in between. URLs of this package name a Unix socket, which is faster; every
// server started here listens on both. Another URL is returned as it is.
func TCP(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		return dsn
	}
	q := u.Query()
	if !strings.HasPrefix(q.Get("host"), "/") {
		return dsn
	}
	u.Host = net.JoinHostPort("127.0.0.1", q.Get("port"))
	q.Del("host")
	q.Del("port")
	u.RawQuery = q.Encode()
	return u.String()
}

var templates = struct {
	mu     sync.Mutex
	byName map[string]*template
}{byName: make(map[string]*template)}

type template struct {
	once     sync.Once
	database string
	err      error
}

// cluster is a server seen through SQL.
type cluster struct {
	admin *url.URL // superuser, maintenance database
	key   uint32   // marks this process's databases
	made  atomic.Int64

	// lock holds the advisory lock of key; nil on a server of our own.
	lock *pgx.Conn
}

var sharedServer struct {
	once    sync.Once
	cluster *cluster
	// server is kept for its pipe: its closing ends the server.
	server *Server
	err    error
}

func shared(t testing.TB) *cluster {
	t.Helper()
	s := &sharedServer
	s.once.Do(func() {
		if dsn := os.Getenv(serverVariable); dsn != "" {
			s.cluster, s.err = foreign(dsn)
			return
		}
		if s.server, s.err = newServer(nil); s.err == nil {
			s.cluster = &s.server.cluster
		}
	})
	if s.err != nil {
		fail(t, s.err)
	}
	return s.cluster
}

// fail ends the test: a missing Postgres is a skip at home, anything else a failure.
func fail(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, errNoPostgres) || os.Getenv("CI") == "true" || os.Getenv(requireVariable) == "1" {
		t.Fatalf("pgtest: %v", err)
	}
	fmt.Fprintf(os.Stderr, "\n*** SKIPPED %s: %v\n\n", t.Name(), err)
	t.Skipf("pgtest: %v", err)
}

// foreign is the server that CERTWRIGHT_TEST_POSTGRES names.
func foreign(dsn string) (*cluster, error) {
	u, err := url.Parse(dsn)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return nil, fmt.Errorf("%s: want a URL that begins with postgres://", serverVariable)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/postgres"
	}
	c := &cluster{admin: u, key: newKey()}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	c.lock, err = pgx.Connect(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", serverVariable, err)
	}
	if _, err := c.lock.Exec(ctx, "SELECT pg_advisory_lock($1, $2)", lockClass, int32(c.key)); err != nil {
		return nil, fmt.Errorf("marking the databases as in use: %w", err)
	}
	if err := c.sweep(ctx); err != nil {
		return nil, fmt.Errorf("dropping databases that earlier tests left: %w", err)
	}
	return c, nil
}

func newKey() uint32 {
	var key [4]byte
	rand.Read(key[:]) // never fails
	return binary.BigEndian.Uint32(key[:])
}

// sweep drops the databases of processes that are gone: templates, and what killed
// tests left.
func (c *cluster) sweep(ctx context.Context) error {
	rows, err := c.lock.Query(ctx, "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", namePrefix)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		digits, _, _ := strings.Cut(strings.TrimPrefix(name, namePrefix), "_")
		key, err := strconv.ParseUint(digits, 16, 32)
		if err != nil || uint32(key) == c.key {
			continue
		}
		var gone bool
		err = c.lock.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", lockClass, int32(key)).Scan(&gone)
		if err != nil {
			return err
		}
		if !gone {
			continue
		}
		if err := c.drop(name); err != nil {
			return err
		}
		if _, err := c.lock.Exec(ctx, "SELECT pg_advisory_unlock($1, $2)", lockClass, int32(key)); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) makeTemplate(name string, fill func(dsn string) error) (string, error) {
	database := c.name("template_" + name)
	if err := c.create(database, "template0"); err != nil {
		return "", err
	}
	if err := fill(c.dsn(database)); err != nil {
		return "", err
	}
	// A database with a connection cannot be copied.
	err := c.exec("ALTER DATABASE " + pgx.Identifier{database}.Sanitize() + " ALLOW_CONNECTIONS false")
	return database, err
}

// clone makes a database for the test and drops it when the test ends.
func (c *cluster) clone(t testing.TB, template string) string {
	t.Helper()
	database := c.name(t.Name())
	if err := c.create(database, template); err != nil {
		t.Fatalf("pgtest: creating a database: %v", err)
	}
	t.Cleanup(func() {
		if err := c.drop(database); err != nil {
			t.Errorf("pgtest: dropping the database: %v", err)
		}
	})
	return c.dsn(database)
}

func (c *cluster) create(database, template string) error {
	return c.exec("CREATE DATABASE " + pgx.Identifier{database}.Sanitize() +
		" TEMPLATE " + pgx.Identifier{template}.Sanitize())
}

func (c *cluster) drop(database string) error {
	return c.exec("DROP DATABASE IF EXISTS " + pgx.Identifier{database}.Sanitize() + " WITH (FORCE)")
}

// exec runs one statement on a connection of its own, so that tests in parallel do
// not wait for each other.
func (c *cluster) exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.admin.String())
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// name makes a database name out of a test's, within Postgres' 63 octets.
func (c *cluster) name(test string) string {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(test))
	return fmt.Sprintf("%s%08x_%.30s_%d", namePrefix, c.key, plain, c.made.Add(1))
}

func (c *cluster) dsn(database string) string {
	u := *c.admin
	u.Path = "/" + database
	return u.String()
}
