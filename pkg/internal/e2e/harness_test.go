// Package e2e tests the program as its users have it: the binary runs as a process of its own, and OpenSSL, nginx,
// Apache, curl and Chromium judge what it does. What a package promises by itself is tested in that package.
//
// The binary is built once for each test process. CERTWRIGHT_TEST_BINARY names another one to test, as of a release;
// CERTWRIGHT_TEST_RACE=1 builds it with the race detector, whose reports then fail the tests. A test whose programs are
// missing is skipped; with CI=true or CERTWRIGHT_TEST_REQUIRE=1 it fails.
package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/internal/pgtest"
)

// How long things may take before a test gives up. None of them is a promise of speed.
const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second
	callTimeout  = 60 * time.Second
	pollInterval = 10 * time.Millisecond
)

// maxShownLog is how much of a process's output a failed test shows.
const maxShownLog = 16 << 10

func TestMain(m *testing.M) {
	code := m.Run()
	if program.dir != "" {
		// Leftovers in the system's temporary folder hurt nobody.
		_ = os.RemoveAll(program.dir)
	}
	os.Exit(code)
}

// program is the binary under test.
var program struct {
	once sync.Once
	dir  string // where it was built; empty if it was not
	path string
	err  error
}

// Program returns the path of the binary.
func Program(t testing.TB) string {
	t.Helper()
	p := &program
	p.once.Do(func() {
		if p.path = os.Getenv("CERTWRIGHT_TEST_BINARY"); p.path != "" {
			p.path, p.err = filepath.Abs(p.path)
			return
		}
		if p.dir, p.err = os.MkdirTemp("", "certwright-e2e-"); p.err != nil {
			return
		}
		p.path = filepath.Join(p.dir, "certwright")
		args, cgo := []string{"build", "-trimpath", "-o", p.path}, "0"
		if os.Getenv("CERTWRIGHT_TEST_RACE") == "1" {
			args, cgo = append(args, "-race"), "1"
		}
		cmd := exec.Command("go", append(args, "github.com/certwright/certwright/cmd/certwright")...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			p.err = fmt.Errorf("building the program: %w\n%s", err, out)
		}
	})
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p.path
}

// Need returns the paths of programs of the system. Where one is missing the test is skipped, or fails if everything is
// required.
func Need(t testing.TB, programs ...string) []string {
	t.Helper()
	var paths []string
	for _, name := range programs {
		path, err := exec.LookPath(name)
		for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} { // not on everybody's PATH
			if err == nil {
				break
			}
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
		if err != nil {
			if os.Getenv("CI") == "true" || os.Getenv("CERTWRIGHT_TEST_REQUIRE") == "1" {
				t.Fatalf("%s is missing: scripts/test installs what the tests need", name)
			}
			fmt.Fprintf(os.Stderr, "\n*** SKIPPED %s: %s is missing\n\n", t.Name(), name)
			t.Skipf("%s is missing", name)
		}
		paths = append(paths, path)
	}
	return paths
}

// Options say what server to start. The zero value is a new one with the embedded store.
type Options struct {
	Database  string   // Postgres connection string; empty is the embedded store
	Data      string   // data folder; empty is a new one
	PublicURL string   // empty is the address of the plain listener
	ReplicaOf *Server  // whose key file and token are copied into the new data folder
	Config    string   // contents of certwright.yaml
	Flags     []string // more flags of serve
	Env       []string // more of the environment, as in CERTWRIGHT_KEY_PASSPHRASE=...; for commands, too
}

// Server is a server that runs as a process. Its methods are for the test's own goroutine, save those of Client.
type Server struct {
	Data      string
	HTTP      string // http://127.0.0.1:PORT
	HTTPS     string // https://127.0.0.1:PORT
	MTLS      string // https://127.0.0.1:PORT
	PublicURL string // as it stands in certificates
	Token     string // the first administrator's
	Root      *x509.Certificate
	Roots     *x509.CertPool
	Client    *client.Client // of the administrator

	Ready time.Duration // how long the last start took until /readyz said ok

	t       testing.TB
	options Options
	ports   [3]int
	process *Process
}

// Start starts a server and waits until it is ready. It is killed when the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := newServer(t, o)
	for try := 1; ; try++ {
		s.choosePorts()
		err := s.start()
		if err == nil {
			return s
		}
		// Somebody else may take a port between our choice and the server's listening.
		if try == 3 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
}

// StartRefused runs serve where it must refuse to start, and returns how it ended.
func StartRefused(t testing.TB, o Options) Result {
	t.Helper()
	s := newServer(t, o)
	s.choosePorts()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	r := s.run(ctx, s.serveArgs()...)
	if ctx.Err() != nil {
		t.Fatalf("serve went on, and should have been refused:\n%s%s", r.Out, r.Err)
	}
	return r
}

func newServer(t testing.TB, o Options) *Server {
	t.Helper()
	Program(t)
	s := &Server{Data: o.Data, t: t, options: o}
	if s.Data == "" {
		s.Data = filepath.Join(t.TempDir(), "data")
	}
	if from := o.ReplicaOf; from != nil {
		mkdir(t, s.Data)
		for _, name := range []string{"kek.key", "admin.token"} {
			writeFile(t, filepath.Join(s.Data, name), readFile(t, filepath.Join(from.Data, name)))
		}
	}
	if o.Config != "" {
		mkdir(t, s.Data)
		writeFile(t, filepath.Join(s.Data, "certwright.yaml"), []byte(o.Config))
	}
	return s
}

func (s *Server) choosePorts() {
	for i := range s.ports {
		s.ports[i] = FreePort(s.t)
	}
	s.HTTP = "http://" + loopback(s.ports[0])
	s.HTTPS, s.MTLS = "https://"+loopback(s.ports[1]), "https://"+loopback(s.ports[2])
	s.PublicURL = cmp.Or(s.options.PublicURL, s.HTTP)
}

func (s *Server) serveArgs() []string {
	args := []string{
		"serve", "--data", s.Data, "--http", loopback(s.ports[0]), "--https", loopback(s.ports[1]), "--mtls", loopback(s.ports[2]),
		"--public-url", s.PublicURL,
	}
	if s.options.Database != "" {
		args = append(args, "--database", s.options.Database)
	}
	return append(args, s.options.Flags...)
}

// env is the environment of the server and of commands: little of ours, so that nothing of the machine leaks in.
func (s *Server) env() []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.t.TempDir(), "TZ=UTC", "LC_ALL=C.UTF-8", "GORACE=halt_on_error=1 exitcode=66"}
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		env = append(env, "GOCOVERDIR="+dir)
	}
	// What serve is told with flags, commands on the host have to know, too.
	env = append(env, "CERTWRIGHT_PUBLIC_URL="+s.PublicURL)
	if s.options.Database != "" {
		env = append(env, "CERTWRIGHT_DATABASE="+s.options.Database)
	}
	return append(env, s.options.Env...)
}

// start starts the process and waits until it is ready.
func (s *Server) start() error {
	s.t.Helper()
	began := time.Now()
	s.process = Spawn(s.t, syscall.SIGKILL, s.env(), Program(s.t), s.serveArgs()...)
	if err := s.waitReady(); err != nil {
		return err
	}
	s.Ready = time.Since(began)

	// What a later start finds as it was is left alone: others may be using it.
	token := s.Token
	if text, err := os.ReadFile(filepath.Join(s.Data, "admin.token")); err == nil {
		token = strings.TrimSpace(string(text))
	}
	root := parseCertificate(s.t, readFile(s.t, filepath.Join(s.Data, "root.pem")))
	if s.Client != nil && token == s.Token && root.Equal(s.Root) {
		return nil
	}
	s.Token, s.Root, s.Roots = token, root, x509.NewCertPool()
	s.Roots.AddCert(s.Root)
	s.Client = s.ClientFor(s.Token)
	return nil
}

// waitReady waits until /readyz says ok, on the plain listener.
func (s *Server) waitReady() error {
	deadline := time.Now().Add(readyTimeout)
	last := errors.New("not asked yet")
	for time.Now().Before(deadline) {
		select {
		case <-s.process.Done():
			return fmt.Errorf("serve ended with code %d at its start:\n%s", s.process.Code(), s.process.Log())
		case <-time.After(pollInterval):
		}
		res, err := plainHTTP.Get(s.HTTP + "/readyz")
		if err != nil {
			last = err
			continue
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return nil
		}
		last = fmt.Errorf("/readyz answers %s: %s", res.Status, body)
	}
	return fmt.Errorf("not ready after %s: %w\n%s", readyTimeout, last, s.process.Log())
}

// IsReady reports whether /readyz says ok now.
func (s *Server) IsReady() bool {
	res, err := plainHTTP.Get(s.HTTP + "/readyz")
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// PID is the server's process id.
func (s *Server) PID() int { return s.process.cmd.Process.Pid }

// Log is what the server has written so far, to both outputs.
func (s *Server) Log() string { return s.process.Log() }

// Kill ends the server as a power cut would.
func (s *Server) Kill() {
	s.t.Helper()
	s.process.Kill()
}

// Stop ends the server as an init system does, and checks that it ends well and in time.
func (s *Server) Stop() {
	s.t.Helper()
	if code := s.process.Signal(syscall.SIGTERM, stopTimeout); code != 0 {
		s.t.Fatalf("serve ended with code %d after SIGTERM:\n%s", code, s.process.Log())
	}
}

// Again starts an ended server on the same data and the same ports, with the same settings.
func (s *Server) Again() {
	s.t.Helper()
	if err := s.TryAgain(); err != nil {
		s.t.Fatal(err)
	}
}

// TryAgain is Again for starts that may fail.
func (s *Server) TryAgain() error {
	s.t.Helper()
	return s.start()
}

// Restart is Stop and Again.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.Again()
}

// Set changes the settings of the next start.
func (s *Server) Set(change func(*Options)) { change(&s.options) }

// ClientFor returns a client with another token; empty has none.
func (s *Server) ClientFor(token string) *client.Client {
	s.t.Helper()
	c, err := client.New(client.Config{URL: s.HTTPS, Token: token, Roots: s.Roots})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// Browser returns an HTTP client that trusts the root, for the TLS listeners. cert may be nil.
func (s *Server) Browser(cert *tls.Certificate) *http.Client {
	conf := &tls.Config{RootCAs: s.Roots, MinVersion: tls.VersionTLS12}
	if cert != nil {
		// Whatever the server says it accepts: refusing is its part.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	transport := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	return &http.Client{Transport: transport, Timeout: callTimeout}
}

// Result is how a command ended.
type Result struct {
	Code     int
	Out, Err string
}

// CLI runs a command of the same program on the server's data folder.
func (s *Server) CLI(args ...string) Result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), callTimeout)
	defer cancel()
	return s.run(ctx, append(slices.Clone(args), "--data", s.Data)...)
}

// MustCLI is CLI for commands that must work. It returns their output.
func (s *Server) MustCLI(args ...string) string {
	s.t.Helper()
	r := s.CLI(args...)
	if r.Code != 0 {
		s.t.Fatalf("certwright %s: code %d\n%s%s", strings.Join(args, " "), r.Code, r.Out, r.Err)
	}
	return r.Out
}

func (s *Server) run(ctx context.Context, args ...string) Result {
	s.t.Helper()
	return Run(ctx, s.t, Command{Env: s.env(), Path: Program(s.t), Args: args})
}

// Command is a program that runs to its end.
type Command struct {
	Path  string
	Args  []string
	Env   []string // nil is a bare environment
	Dir   string
	Stdin []byte
}

// Run runs a command and returns how it ended.
func Run(ctx context.Context, t testing.TB, c Command) Result {
	t.Helper()
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Dir, cmd.Env, cmd.Stdin = c.Dir, c.Env, bytes.NewReader(c.Stdin)
	if cmd.Env == nil {
		cmd.Env = bareEnv()
	}
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	cmd.WaitDelay = stopTimeout // for children that live on and hold the outputs
	e := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](e); e != nil && !exited && !errors.Is(e, exec.ErrWaitDelay) {
		t.Fatalf("running %s: %v", c.Path, e)
	}
	return Result{Code: cmd.ProcessState.ExitCode(), Out: out.String(), Err: err.String()}
}

func bareEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(), "TZ=UTC", "LC_ALL=C.UTF-8"}
}

// tool runs a program of the system that must work, and returns its output.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	r := try(t, name, args...)
	if r.Code != 0 {
		t.Fatalf("%s %s: code %d\n%s%s", name, strings.Join(args, " "), r.Code, r.Out, r.Err)
	}
	return r.Out
}

// try is tool for programs that may fail.
func try(t testing.TB, name string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	return Run(ctx, t, Command{Path: Need(t, name)[0], Args: args})
}

// Process is a program that runs beside the test. It is killed when the test ends, and with the test process.
type Process struct {
	t    testing.TB
	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{} // closed when it has ended
}

// Spawn starts a process. death is the signal that it gets when the test process dies (Linux).
func Spawn(t testing.TB, death syscall.Signal, env []string, path string, args ...string) *Process {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.SysProcAttr = env, processAttributes(death)
	p := &Process{t: t, cmd: cmd, log: &logBuffer{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := onOwnThread(cmd.Start); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	go func() {
		// The code is looked at by whoever cares; a killed process is none of the reader's errors.
		_ = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if strings.Contains(p.Log(), "WARNING: DATA RACE") {
			t.Errorf("%s has a data race", filepath.Base(path))
		}
		if t.Failed() {
			t.Logf("output of %s %s (process %d):\n%s", filepath.Base(path), strings.Join(args, " "), cmd.Process.Pid, p.Log())
		}
	})
	return p
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Code is the exit code of a process that has ended; -1 if a signal ended it.
func (p *Process) Code() int { return p.cmd.ProcessState.ExitCode() }

// Log is what it has written so far: the end of it, if it is long.
func (p *Process) Log() string { return p.log.String() }

// Kill ends the process at once and waits until it is gone.
func (p *Process) Kill() {
	select {
	case <-p.done:
		return
	default:
	}
	// It may have ended meanwhile.
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Signal sends a signal, waits for the process's end and returns its exit code.
func (p *Process) Signal(signal syscall.Signal, wait time.Duration) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatalf("sending %s: %v\n%s", signal, err, p.Log())
	}
	select {
	case <-p.done:
	case <-time.After(wait):
		p.t.Fatalf("process %d is still there %s after %s:\n%s", p.cmd.Process.Pid, wait, signal, p.Log())
	}
	return p.Code()
}

// logBuffer keeps the end of what is written to it.
type logBuffer struct {
	mu  sync.Mutex
	b   []byte
	cut bool
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, b...)
	if len(l.b) > 4*maxShownLog {
		l.b, l.cut = append([]byte(nil), l.b[len(l.b)-maxShownLog:]...), true
	}
	return len(b), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return "[...]" + string(l.b)
	}
	return string(l.b)
}

// spawner starts processes on one thread that never ends: the kernel sends the death signal when the parent's thread,
// not the process, is gone.
var spawner = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
})

func onOwnThread(f func() error) error {
	done := make(chan error)
	spawner() <- func() { done <- f() }
	return <-done
}

// deployment is one way to run the program. Changes are made on A; B must show them, too. With one server both are the
// same.
type deployment struct {
	Name string
	A, B *Server
}

// Replicas reports whether A and B are two.
func (d deployment) Replicas() bool { return d.A != d.B }

// everywhere runs a story on each deployment.
func everywhere(t *testing.T, story func(t *testing.T, d deployment)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		s := Start(t, Options{})
		story(t, deployment{"SQLite", s, s})
	})
	t.Run("Postgres", func(t *testing.T) {
		t.Parallel()
		s := Start(t, Options{Database: pgtest.DSN(t)})
		story(t, deployment{"Postgres", s, s})
	})
	t.Run("replicas", func(t *testing.T) {
		t.Parallel()
		a, b := StartReplicas(t, pgtest.DSN(t))
		story(t, deployment{"replicas", a, b})
	})
}

// StartReplicas starts two servers on one database, which share one public URL: the first one's.
func StartReplicas(t testing.TB, database string) (a, b *Server) {
	t.Helper()
	a = Start(t, Options{Database: database})
	b = Start(t, Options{Database: database, ReplicaOf: a, PublicURL: a.PublicURL})
	return a, b
}

// busy is what a machine that has other things to do may add to a limit. How fast something is on a quiet one is for
// benchmarks to say.
const busy = time.Minute

// eventually polls until check returns nil, and fails the test with its last error when that is not so long after the
// limit. Between limit and busy it notes that it was late. It returns how long it took.
func eventually(t testing.TB, limit time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := check()
		took := time.Since(began)
		if err == nil {
			if took > limit {
				t.Logf("%s: late, after %s instead of %s", what, took, limit)
			}
			return took
		}
		if took > limit+busy {
			t.Fatalf("%s: not within %s: %v", what, limit+busy, err)
		}
		time.Sleep(pollInterval)
	}
}

// plainHTTP follows no redirect: none is right on the plain listener.
var plainHTTP = &http.Client{
	Timeout:       10 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// fetch gets a document that must be there.
func fetch(t testing.TB, url string) []byte {
	t.Helper()
	res, err := plainHTTP.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v: %.300s", url, res.Status, err, body)
	}
	return body
}

// givenPorts are those that FreePort has returned.
var givenPorts sync.Map

// FreePort returns a port below those that the system gives to outgoing connections, and another one at each call, so
// that it is still free when a server comes back to it.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 15000 + rand.IntN(17000)
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no free port between 15000 and 31999")
	return 0
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parseCertificate reads the first certificate of a PEM text.
func parseCertificate(t testing.TB, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		t.Fatalf("no certificate in %.100q", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
