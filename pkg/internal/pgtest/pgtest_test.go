package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

func query1[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestDSN(t *testing.T) {
	t.Parallel()
	a, b := Connect(t, DSN(t)), Connect(t, DSN(t))
	Exec(t, a, "CREATE TABLE device (name text)")
	if query1[bool](t, b, "SELECT to_regclass('device') IS NOT NULL") {
		t.Error("two databases of one test share a table")
	}
	for setting, want := range map[string]string{"fsync": "on", "full_page_writes": "on", "server_encoding": "UTF8"} {
		if got := query1[string](t, b, "SELECT current_setting($1)", setting); got != want {
			t.Errorf("%s = %s, want %s", setting, got, want)
		}
	}
	if got := query1[string](t, b, "SELECT lower('GERÄT')"); got != "gerät" {
		t.Errorf("lower('GERÄT') = %q: the locale knows only ASCII", got)
	}
}

func TestDatabaseIsDroppedWithTheTest(t *testing.T) {
	t.Parallel()
	var dsn string
	t.Run("inner", func(t *testing.T) {
		dsn = DSN(t)
		// Left open: the drop must not wait for it.
		if _, err := pgx.Connect(context.Background(), dsn); err != nil {
			t.Fatal(err)
		}
	})
	if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
		conn.Close(t.Context())
		t.Error("the database outlived its test")
	}
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	var fills atomic.Int32
	fill := func(dsn string) error {
		fills.Add(1)
		conn, err := pgx.Connect(context.Background(), dsn)
		if err != nil {
			return err
		}
		_, err = conn.Exec(context.Background(), "CREATE TABLE device AS SELECT 1 AS n")
		return errors.Join(err, conn.Close(context.Background()))
	}
	t.Run("copies", func(t *testing.T) {
		for i := range 4 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				conn := Connect(t, Template(t, "devices", fill))
				Exec(t, conn, "INSERT INTO device VALUES (2)")
				if got := query1[int](t, conn, "SELECT count(*) FROM device"); got != 2 {
					t.Errorf("%d rows, want 2: copies are not separate", got)
				}
			})
		}
	})
	if got := fills.Load(); got != 1 {
		t.Errorf("the template was filled %d times, want 1", got)
	}
}

func TestKillKeepsCommittedRows(t *testing.T) {
	t.Parallel()
	s := Start(t)
	dsn, addr := s.DSN(), s.Addr()
	for round := 1; round <= 2; round++ {
		conn := Connect(t, dsn)
		Exec(t, conn, "CREATE TABLE IF NOT EXISTS device (n int)")
		Exec(t, conn, "INSERT INTO device VALUES (1)")

		// A busy backend does not look whether its postmaster is alive.
		busy := Connect(t, dsn)
		pid := int(busy.PgConn().PID())
		ended := make(chan error, 1)
		go func() {
			_, err := busy.Exec(context.Background(), "SELECT count(*) FROM generate_series(1, 1e12)")
			ended <- err
		}()
		s.Kill()
		if err := <-ended; err == nil {
			t.Error("a query ended well on a killed server")
		}
		if running(pid) {
			t.Error("a backend outlived Kill")
		}
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			c.Close()
			t.Error("the killed server still listens")
		}

		s.Start()
		if got := query1[int](t, Connect(t, dsn), "SELECT count(*) FROM device"); got != round {
			t.Errorf("after kill %d: %d rows, want %d", round, got, round)
		}
	}
	s.Stop()
	s.Start()
	if got := query1[int](t, Connect(t, dsn), "SELECT count(*) FROM device"); got != 2 {
		t.Errorf("after Stop: %d rows, want 2", got)
	}
	if s.Addr() != addr {
		t.Errorf("Addr changed from %s to %s", addr, s.Addr())
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	s := Start(t, "fsync=off")
	dsn := TCP(s.DSN())
	conn := Connect(t, dsn)
	if got, want := conn.PgConn().Conn().RemoteAddr().String(), s.Addr(); got != want {
		t.Errorf("connected to %s, want %s", got, want)
	}
	if got := query1[string](t, conn, "SELECT current_setting('fsync')"); got != "off" {
		t.Errorf("fsync = %s, want off as asked for", got)
	}
	if again := TCP(dsn); again != dsn {
		t.Errorf("TCP(%q) = %q, want it unchanged", dsn, again)
	}
	// The port is open to every user of the machine.
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("postgres", "wrong")
	if conn, err := pgx.Connect(t.Context(), u.String()); err == nil {
		conn.Close(t.Context())
		t.Error("a wrong password opened the port")
	}
}

func TestNoGoroutineStays(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := Start(t)
	s.DSN()
	DSN(t)
	goleak.VerifyNone(t, before)
}

func TestForeignServer(t *testing.T) {
	t.Parallel()
	s := Start(t)
	dead, err := foreign(s.admin.String())
	if err != nil {
		t.Fatal(err)
	}
	alive, err := foreign(s.admin.String())
	if err != nil {
		t.Fatal(err)
	}
	defer alive.lock.Close(t.Context())
	left, used := dead.name("left"), alive.name("used")
	for _, err := range []error{dead.create(left, "template0"), alive.create(used, "template0"), dead.lock.Close(t.Context())} {
		if err != nil {
			t.Fatal(err)
		}
	}

	// The server notices a moment later that the lock's holder has gone.
	conn := Connect(t, s.admin.String())
	exists := func(database string) bool {
		return query1[bool](t, conn, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database)
	}
	for deadline := time.Now().Add(10 * time.Second); exists(left); time.Sleep(poll) {
		if time.Now().After(deadline) {
			t.Fatal("the database of a process that has ended was not dropped")
		}
		next, err := foreign(s.admin.String())
		if err != nil {
			t.Fatal(err)
		}
		if err := next.lock.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !exists(used) {
		t.Error("the database of a living process was dropped")
	}

	for _, dsn := range []string{"host=/tmp user=postgres", "mysql://root@/"} {
		if _, err := foreign(dsn); err == nil {
			t.Errorf("foreign(%q) is accepted", dsn)
		}
	}
}

// TestEndsWithTheProcess runs this test binary again, lets it start a server, and
// kills it.
func TestEndsWithTheProcess(t *testing.T) {
	const variable = "PGTEST_HOLD"
	if os.Getenv(variable) != "" {
		s, err := newServer(nil)
		if err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Println("server", s.postmaster, s.dir)
		time.Sleep(time.Hour)
		s.close()
	}
	if _, err := findPrograms(); err != nil {
		fail(t, err)
	}
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestEndsWithTheProcess$")
	cmd.Env = append(os.Environ(), variable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var pid int
	var dir string
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		if n, _ := fmt.Sscanf(lines.Text(), "server %d %s", &pid, &dir); n != 2 && strings.HasPrefix(lines.Text(), "error") {
			t.Fatal(lines.Text())
		}
	}
	if dir == "" || !running(pid) {
		t.Fatalf("no server was started (pid %d, folder %q)", pid, dir)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone := func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, fs.ErrNotExist) && !running(pid)
	}
	for deadline := time.Now().Add(20 * time.Second); !gone(); time.Sleep(poll) {
		if time.Now().After(deadline) {
			t.Fatalf("20 s after the process was killed, its server (running: %t) or folder %s is still there", running(pid), dir)
		}
	}
}
