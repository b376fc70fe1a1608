package pgtest

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// errNoPostgres says that the programs are not installed.
var errNoPostgres = errors.New("no Postgres found on PATH or under /usr/lib/postgresql " +
	"(Debian: apt-get install postgresql; it need not be running)")

const (
	startTimeout = time.Minute
	stopTimeout  = time.Minute
	poll         = 10 * time.Millisecond
)

// settings of every server: small, and as durable as production, because the store
// refuses a server that is not.
var settings = []string{
	"fsync=on",
	"full_page_writes=on",
	"synchronous_commit=on",
	"shared_buffers=64MB",
	"max_connections=200",
	"max_wal_size=256MB",
	"jit=off",
	"logging_collector=off",
	"timezone=UTC",
	"log_timezone=UTC",
}

// watcher is the shell program that outlives the test process. Each line it reads is
// the current postmaster's process id, or empty for none. Its input ends when we close
// it or die; then it stops the postmaster and removes the folder. PR_SET_PDEATHSIG
// would be tied to one thread, would leave the folder, and exists on Linux only.
const watcher = `
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
	kill -QUIT "$pid"
	tries=0
	while [ $tries -lt 100 ] && kill -0 "$pid"; do
		sleep 0.1
		tries=$((tries + 1))
	done
fi
rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; }
`

// Server is a Postgres of one test. Its methods are for the test's own goroutine and
// end the test when they fail.
type Server struct {
	cluster
	t testing.TB // nil for the shared server

	bin      string              // folder of the programs
	dir      string              // data, log and socket
	owner    *syscall.Credential // nil: the user who runs the tests
	port     int
	settings []string

	postmaster int // process id; 0 when not running
	watch      *exec.Cmd
	pipe       *os.File // to watch
}

// Start starts a server of the test's own, which ends with the test. More settings
// are given as "name=value" and come after the usual ones.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := newServer(settings)
	if err != nil {
		fail(t, err)
	}
	s.t = t
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return s
}

// DSN returns a connection URL for a new, empty database of this server. It stays
// valid over Kill, Stop and Start.
func (s *Server) DSN() string {
	s.t.Helper()
	database := s.name(s.t.Name())
	if err := s.create(database, "template0"); err != nil {
		s.t.Fatalf("pgtest: creating a database: %v", err)
	}
	return s.dsn(database)
}

// Addr is the server's address on TCP, 127.0.0.1:port. It stays the same over Kill,
// Stop and Start.
func (s *Server) Addr() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
}

// Kill ends the server and every backend at once with SIGKILL, as a crash would. What
// was committed must be there after Start. The machine does not crash: what Postgres
// wrote without fsync survives too.
func (s *Server) Kill() {
	s.t.Helper()
	if err := s.kill(); err != nil {
		s.t.Fatalf("pgtest: killing the server: %v", err)
	}
}

// Stop ends the server in good order and breaks off open connections.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.stop(); err != nil {
		s.t.Fatalf("pgtest: stopping the server: %v", err)
	}
}

// Start starts the server again after Kill or Stop, with the same data and the same
// port, and returns when it answers.
func (s *Server) Start() {
	s.t.Helper()
	if s.postmaster != 0 {
		s.t.Fatal("pgtest: the server is running")
	}
	if err := s.start(); err != nil {
		s.t.Fatalf("pgtest: starting the server: %v", err)
	}
}

func newServer(more []string) (*Server, error) {
	bin, err := findPrograms()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cluster:  cluster{key: newKey()},
		bin:      bin,
		settings: append(settings[:len(settings):len(settings)], more...),
	}
	if s.owner, err = ordinaryUser(); err != nil {
		return nil, err
	}
	// Not TMPDIR: it may be closed to the other user, and too long for a socket's path.
	if s.dir, err = os.MkdirTemp("/tmp", "certwright-pg-"); err != nil {
		return nil, err
	}
	if err := s.guard(); err != nil {
		os.RemoveAll(s.dir)
		return nil, fmt.Errorf("starting the watcher: %w", err)
	}
	if err := s.initialize(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// initialize makes the data folder and starts the server for the first time.
func (s *Server) initialize() error {
	password := crand.Text()
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		return err
	}
	if s.owner != nil {
		for _, path := range []string{s.dir, secret} {
			if err := os.Chown(path, int(s.owner.Uid), int(s.owner.Gid)); err != nil {
				return err
			}
		}
	}
	// The socket is inside a folder that is closed to others; the port is open to
	// everyone on this machine and so asks for the password.
	initdb := s.command("initdb", "--pgdata="+s.data(), "--username=postgres", "--pwfile="+secret,
		"--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale="+locale(), "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := os.Remove(secret); err != nil {
		return err
	}

	var err error
	for range 5 {
		if s.port, err = freePort(); err != nil {
			return err
		}
		s.admin = &url.URL{
			Scheme:   "postgres",
			User:     url.UserPassword("postgres", password),
			Path:     "/postgres",
			RawQuery: url.Values{"host": {s.dir}, "port": {strconv.Itoa(s.port)}}.Encode(),
		}
		// Another process may have taken the port since.
		if err = s.start(); err == nil || !strings.Contains(err.Error(), "Address already in use") {
			return err
		}
	}
	return err
}

// guard starts the watcher.
func (s *Server) guard() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	s.watch = exec.Command("/bin/sh", "-c", watcher, "sh", s.dir)
	s.watch.Dir = "/"
	s.watch.Stdin = r
	// A session of its own: an interrupt from the keyboard must not reach it.
	s.watch.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.watch.Start(); err != nil {
		w.Close()
		return err
	}
	s.pipe = w
	return nil
}

// setPostmaster remembers the process here and with the watcher; 0 is none.
func (s *Server) setPostmaster(pid int) error {
	s.postmaster = pid
	line := "\n"
	if pid != 0 {
		line = strconv.Itoa(pid) + "\n"
	}
	_, err := s.pipe.WriteString(line)
	return err
}

func (s *Server) start() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"-D", s.data(), "-k", s.dir, "-h", "127.0.0.1", "-p", strconv.Itoa(s.port)}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	cmd := s.command("postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := s.setPostmaster(cmd.Process.Pid); err != nil {
		return err
	}

	deadline := time.Now().Add(startTimeout)
	for {
		err := s.ping()
		if err == nil {
			return nil
		}
		if s.exited() {
			if err := s.setPostmaster(0); err != nil {
				return err
			}
			return fmt.Errorf("postgres ended at its start:\n%s", s.log())
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("postgres does not answer after %v: %w\n%s", startTimeout, err, s.log())
		}
		time.Sleep(poll)
	}
}

func (s *Server) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.admin.String())
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// stop is Postgres' fast shutdown.
func (s *Server) stop() error {
	if s.postmaster == 0 {
		return nil
	}
	if err := syscall.Kill(s.postmaster, syscall.SIGINT); err != nil {
		return err
	}
	for deadline := time.Now().Add(stopTimeout); !s.exited(); time.Sleep(poll) {
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("postgres is still there after %v\n%s", stopTimeout, s.log()), s.kill())
		}
	}
	return s.setPostmaster(0)
}

func (s *Server) kill() error {
	if s.postmaster == 0 {
		return nil
	}
	// A stopped postmaster makes no more children while we count them. They are not
	// in its process group: each is its own leader.
	if err := syscall.Kill(s.postmaster, syscall.SIGSTOP); err != nil {
		return err
	}
	backends, err := children(s.postmaster)
	if err != nil {
		return err
	}
	for _, pid := range append([]int{s.postmaster}, backends...) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			return err
		}
	}
	for !s.exited() {
		time.Sleep(poll)
	}
	if err := s.setPostmaster(0); err != nil {
		return err
	}
	// The next postmaster refuses to start while an old backend holds the memory.
	for deadline := time.Now().Add(stopTimeout); ; time.Sleep(poll) {
		alive := false
		for _, pid := range backends {
			alive = alive || running(pid)
		}
		if !alive {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("backends are still there after %v", stopTimeout)
		}
	}
}

// close ends the server and waits until the watcher has removed the folder.
func (s *Server) close() error {
	err := s.kill() // nobody needs the data any more
	return errors.Join(err, s.pipe.Close(), s.watch.Wait())
}

// exited reports whether the postmaster has ended. It reaps without a goroutine that
// would wait for the server's whole life.
func (s *Server) exited() bool {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(s.postmaster, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		return err != nil || pid == s.postmaster
	}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	const most = 4096
	return string(b[max(0, len(b)-most):])
}

// command runs a program of Postgres as the ordinary user, with nothing of our
// environment: PGPORT and the like would change what it does.
func (s *Server) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + s.bin + ":/usr/bin:/bin", "HOME=" + s.dir, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner, Setsid: true}
	return cmd
}

// findPrograms returns the folder with initdb and postgres: that of PATH, else the
// newest of Debian's.
func findPrograms() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		if dir := filepath.Dir(path); isProgram(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	newest, found := -1, ""
	for _, dir := range dirs {
		version, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err != nil || version <= newest || !isProgram(filepath.Join(dir, "initdb")) || !isProgram(filepath.Join(dir, "postgres")) {
			continue
		}
		newest, found = version, dir
	}
	if found == "" {
		return "", errNoPostgres
	}
	return found, nil
}

func isProgram(path string) bool {
	_, err := exec.LookPath(path)
	return err == nil
}

// ordinaryUser is whom to run Postgres as when we are root; nil when we are not.
func ordinaryUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("running as root, and there is no user postgres or nobody to run Postgres as")
}

// locale is one that knows all letters, not only those of ASCII.
func locale() string {
	if runtime.GOOS == "darwin" {
		return "en_US.UTF-8"
	}
	return "C.UTF-8"
}

// freePort looks below the ports that the system gives to outgoing connections, so
// that the port is still free when a stopped server starts again.
func freePort() (int, error) {
	for range 100 {
		port := 15000 + rand.IntN(17000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no free port between 15000 and 31999")
}
