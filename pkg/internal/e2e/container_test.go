package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/internal/pgtest"
)

// containerUser is who the image's program runs as.
const containerUser = 65532

// repository is the top folder, seen from this package's.
const repository = "../../.."

// composeFile is what the test looks at in docker-compose.yml.
type composeFile struct {
	Services map[string]struct {
		Image       string
		User        string
		Command     []string
		Environment map[string]string
		ReadOnly    bool     `yaml:"read_only"`
		Privileged  bool     `yaml:"privileged"`
		CapDrop     []string `yaml:"cap_drop"`
		SecurityOpt []string `yaml:"security_opt"`
		Ports       []any
		Restart     string
		Volumes     []any
		HealthCheck struct{ Test []string }               `yaml:"healthcheck"`
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	}
	Networks map[string]struct{ Internal bool }
	Secrets  map[string]struct{ File string }
}

// compose returns docker-compose.yml as docker-compose understands it.
func compose(t *testing.T) composeFile {
	t.Helper()
	r := try(t, "docker-compose", "--project-directory", repository, "--file", filepath.Join(repository, "docker-compose.yml"), "config")
	if r.Code != 0 || r.Err != "" {
		t.Fatalf("docker-compose config: code %d\n%s", r.Code, r.Err)
	}
	var c composeFile
	if err := yaml.Unmarshal([]byte(r.Out), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestComposeFile has docker-compose judge docker-compose.yml, and looks at what must not get lost in it.
func TestComposeFile(t *testing.T) {
	c := compose(t)
	for name, s := range c.Services {
		if s.Image == "" || strings.HasSuffix(s.Image, ":latest") && !strings.HasPrefix(s.Image, "localhost/") {
			t.Errorf("%s: image %q, want a version", name, s.Image)
		}
		if s.Privileged || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s has more rights than it needs", name)
		}
		if len(s.HealthCheck.Test) == 0 {
			t.Errorf("%s has no health check", name)
		}
		if (len(s.Ports) > 0) != (name == "proxy") {
			t.Errorf("%s publishes ports %v; the proxy alone should", name, s.Ports)
		}
		for variable, value := range s.Environment {
			if strings.Contains(variable, "PASSWORD") && !strings.HasSuffix(variable, "_FILE") {
				t.Errorf("%s has a password in its environment: %s=%s", name, variable, value)
			}
		}
	}
	for _, name := range []string{"migrate", "replica-1", "replica-2"} {
		s := c.Services[name]
		if !s.ReadOnly || s.User != fmt.Sprintf("%d:%d", containerUser, containerUser) {
			t.Errorf("%s: read-only %t, user %q", name, s.ReadOnly, s.User)
		}
		// What the server makes of its environment.
		environ := []string{"CERTWRIGHT_DATA=" + t.TempDir()}
		for variable, value := range s.Environment {
			environ = append(environ, variable+"="+value)
		}
		cfg, err := config.Load("", environ, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if *cfg.Migrate || cfg.KEKFile() != "/run/secrets/kek" || cfg.PublicURL != "http://localhost" || len(cfg.Names) != 0 {
			t.Errorf("%s: settings %+v", name, cfg)
		}
		u, err := url.Parse(cfg.Database)
		if err != nil || u.Host != "postgres:5432" || u.Query().Get("passfile") != "/run/secrets/pgpass" {
			t.Errorf("%s: database %s, %v", name, cfg.Database, err)
		}
		if _, given := u.User.Password(); given {
			t.Errorf("%s: the database's password stands in its address", name)
		}
		if name != "migrate" {
			if s.DependsOn["migrate"].Condition != "service_completed_successfully" || len(s.Volumes) != 1 || s.Restart != "unless-stopped" {
				t.Errorf("%s: depends on %v, volumes %v, restart %s", name, s.DependsOn, s.Volumes, s.Restart)
			}
		}
	}
	if !c.Networks["database"].Internal {
		t.Error("the database's network has a way out")
	}
	for name, s := range c.Secrets {
		if !strings.HasSuffix(filepath.Dir(s.File), "/secrets") {
			t.Errorf("secret %s is %s", name, s.File)
		}
	}
}

// imageConfig is what the test looks at in an image's configuration.
type imageConfig struct {
	Architecture string
	Config       struct {
		User         string
		Env          []string
		Entrypoint   []string
		Cmd          []string
		WorkingDir   string
		Volumes      map[string]struct{}
		ExposedPorts map[string]struct{}
		Healthcheck  struct{ Test []string }
	}
}

// image is a built image.
type image struct {
	imageConfig
	files map[string][]byte
}

// buildImage runs scripts/image.
func buildImage(t *testing.T) image {
	t.Helper()
	Need(t, "buildah")
	archive := filepath.Join(t.TempDir(), "image.tar")
	build := exec.CommandContext(t.Context(), filepath.Join(repository, "scripts", "image"), "--with", "buildah", "--archive", archive)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("scripts/image: %v\n%s", err, out)
	}
	i := image{files: untar(t, readFile(t, archive), nil)}
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(i.files["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("manifest.json: %v: %s", err, i.files["manifest.json"])
	}
	if err := json.Unmarshal(i.files[manifest[0].Config], &i.imageConfig); err != nil {
		t.Fatal(err)
	}
	layers := map[string][]byte{}
	for _, name := range manifest[0].Layers {
		layers[name] = i.files[name]
	}
	i.files = layers
	return i
}

// untar returns the regular files of an archive, and calls each for every entry.
func untar(t *testing.T, archive []byte, each func(h *tar.Header, data []byte)) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files[h.Name] = data
		}
		if each != nil {
			each(h, data)
		}
	}
}

// container is an image unpacked, and what runs in it: as the image's user, and with nothing of this machine but its
// network. All but the data folder belongs to root, so that it cannot be written to.
type container struct {
	t    *testing.T
	root string
	env  []string
}

// unpack makes a container. The image must have nothing in it but the program and an empty data folder.
func (i image) unpack(t *testing.T) *container {
	t.Helper()
	c := &container{t: t, root: filepath.Join(t.TempDir(), "root"), env: i.Config.Env}
	// t.TempDir is closed to others.
	for dir := filepath.Dir(c.root); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(c.root, 0o755))
	// Every runtime gives a container a /dev.
	must(os.Mkdir(filepath.Join(c.root, "dev"), 0o755))
	must(os.WriteFile(filepath.Join(c.root, "dev", "null"), nil, 0o644))
	must(os.Chmod(filepath.Join(c.root, "dev", "null"), 0o644))
	var names []string
	for _, layer := range i.files {
		untar(t, layer, func(h *tar.Header, data []byte) {
			path := filepath.Join(c.root, h.Name)
			mode := fs.FileMode(h.Mode).Perm()
			switch h.Typeflag {
			case tar.TypeDir:
				must(os.MkdirAll(path, mode))
			case tar.TypeReg:
				must(os.WriteFile(path, data, mode))
			default:
				t.Fatalf("%s is neither a file nor a folder", h.Name)
			}
			must(os.Chown(path, h.Uid, h.Gid))
			must(os.Chmod(path, mode))
			name := strings.TrimSuffix(h.Name, "/")
			names = append(names, name)
			owner := 0
			if name == "data" {
				owner = containerUser
			}
			if h.Uid != owner || h.Gid != owner || mode&0o022 != 0 {
				t.Errorf("%s belongs to %d:%d and has mode %04o", h.Name, h.Uid, h.Gid, mode)
			}
		})
	}
	if want := []string{"data", "usr", "usr/local", "usr/local/bin", "usr/local/bin/certwright"}; !sameSet(names, want) {
		t.Errorf("the image has %v, want %v", names, want)
	}
	return c
}

// secret puts a file where compose mounts it, as docs/containers.md has it made.
func (c *container) secret(name string, data []byte) {
	c.t.Helper()
	path := filepath.Join(c.root, "run", "secrets", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, data, 0o400), os.Chown(path, containerUser, containerUser)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/usr/local/bin/certwright", args...)
	cmd.Dir, cmd.Env = "/data", c.env
	cmd.SysProcAttr = processAttributes(syscall.SIGKILL)
	cmd.SysProcAttr.Chroot = c.root
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: containerUser, Gid: containerUser}
	return cmd
}

// run runs a command in the container to its end.
func (c *container) run(args ...string) Result {
	c.t.Helper()
	cmd := c.command(args...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := onOwnThread(cmd.Run); e != nil && cmd.ProcessState == nil {
		c.t.Fatal(e)
	}
	return Result{Code: cmd.ProcessState.ExitCode(), Out: out.String(), Err: err.String()}
}

// serve starts the container's server.
func (c *container) serve(args ...string) *Process {
	c.t.Helper()
	cmd := c.command(args...)
	p := &Process{t: c.t, cmd: cmd, log: &logBuffer{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := onOwnThread(cmd.Start); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		// The code is looked at by whoever cares.
		_ = cmd.Wait()
		close(p.done)
	}()
	c.t.Cleanup(func() {
		p.Kill()
		if c.t.Failed() {
			c.t.Logf("output of the container %s:\n%s", filepath.Base(filepath.Dir(c.root)), p.Log())
		}
	})
	return p
}

// TestContainers builds the image and runs docker-compose.yml without Docker: its migration and both replicas, with its
// settings and the image's own, each alone in its root, and its proxy. Replicas are stopped, and then the database.
func TestContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("building an image takes long")
	}
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		fmt.Fprintf(os.Stderr, "\n*** SKIPPED %s: only root can change to another root folder\n\n", t.Name())
		t.Skip("only root can change to another root folder")
	}
	file := compose(t)
	built := buildImage(t)
	user := fmt.Sprintf("%d:%d", containerUser, containerUser)
	if c := built.Config; c.User != user || !slices.Equal(c.Entrypoint, []string{"/usr/local/bin/certwright"}) ||
		!slices.Equal(c.Cmd, []string{"serve"}) || c.WorkingDir != "/data" || len(c.Volumes) != 1 || len(c.ExposedPorts) != 3 {
		t.Errorf("the image is configured as %+v", c)
	}
	health := built.Config.Healthcheck.Test
	if !slices.Equal(health, []string{"CMD", "/usr/local/bin/certwright", "healthcheck"}) || !slices.Equal(health, file.Services["replica-1"].HealthCheck.Test) {
		t.Errorf("health checks: %v in the image, %v in docker-compose.yml", health, file.Services["replica-1"].HealthCheck.Test)
	}

	pg := pgtest.Start(t)
	dsn, err := url.Parse(pgtest.TCP(pg.DSN()))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := dsn.User.Password()
	pass := fmt.Sprintf("%s:%s:%s:%s\n", dsn.Host, strings.TrimPrefix(dsn.Path, "/"), dsn.User.Username(), password)
	key := make([]byte, 32)
	rand.Read(key)

	// The proxy's address is known before the first start: it goes into certificates.
	ports := map[string]int{}
	for _, name := range []string{"proxy:8080", "proxy:8443", "proxy:8444", "proxy:8404", "replica-1:8080", "replica-1:8443", "replica-1:8444", "replica-2:8080", "replica-2:8443", "replica-2:8444"} {
		ports[name] = FreePort(t)
	}
	// in makes a container of a service.
	in := func(service string) *container {
		c := built.unpack(t)
		for name, value := range file.Services[service].Environment {
			switch name {
			case "CERTWRIGHT_DATABASE":
				u, err := url.Parse(value)
				if err != nil {
					t.Fatal(err)
				}
				u.Host, u.Path, u.User = dsn.Host, dsn.Path, url.User(dsn.User.Username())
				value = u.String()
			case "CERTWRIGHT_PUBLIC_URL":
				value = "http://" + loopback(ports["proxy:8080"])
			}
			c.env = append(c.env, name+"="+value)
		}
		for name, port := range map[string]string{"HTTP": ":8080", "HTTPS": ":8443", "MTLS": ":8444"} {
			c.env = append(c.env, "CERTWRIGHT_"+name+"="+loopback(ports[service+port]))
		}
		c.secret("pgpass", []byte(pass))
		return c
	}

	migration := in("migrate")
	if r := migration.run(file.Services["migrate"].Command...); r.Code != 0 {
		t.Fatalf("migrate: code %d\n%s%s", r.Code, r.Out, r.Err)
	}

	replicas, processes := map[string]*container{}, map[string]*Process{}
	for _, name := range []string{"replica-1", "replica-2"} {
		c := in(name)
		c.secret("kek", key)
		if r := c.run(health[2:]...); r.Code != 1 {
			t.Errorf("before the start the health check ends with code %d:\n%s%s", r.Code, r.Out, r.Err)
		}
		p := c.serve(built.Config.Cmd...)
		for _, args := range [][]string{health[2:], {"healthcheck", "--ready"}} {
			eventually(t, readyTimeout, "health of "+name, func() error {
				select {
				case <-p.Done():
					t.Fatalf("%s ended with code %d:\n%s", name, p.Code(), p.Log())
				default:
				}
				if r := c.run(args...); r.Code != 0 || r.Out != "ok\n" {
					return fmt.Errorf("code %d: %s%s", r.Code, r.Out, r.Err)
				}
				return nil
			})
		}
		status := string(readFile(t, fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)))
		if !regexp.MustCompile(`(?m)^Uid:\t65532\t65532\t65532\t65532$`).MatchString(status) || !regexp.MustCompile(`(?m)^CapEff:\t0+$`).MatchString(status) {
			t.Errorf("%s runs with other rights than meant:\n%s", name, status)
		}
		replicas[name], processes[name] = c, p
	}

	// What docs/containers.md has people fetch is in the first replica's data folder; nothing is anywhere else.
	first, second := replicas["replica-1"], replicas["replica-2"]
	token := strings.TrimSpace(string(readFile(t, filepath.Join(first.root, "data", "admin.token"))))
	if _, err := os.Stat(filepath.Join(second.root, "data", "admin.token")); err == nil {
		t.Error("the second replica has a first token, too")
	}
	for _, c := range replicas {
		var found []string
		if err := filepath.WalkDir(c.root, func(path string, d fs.DirEntry, err error) error {
			if d != nil && d.Type().IsRegular() {
				found = append(found, strings.TrimPrefix(path, c.root))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		found = slices.DeleteFunc(found, func(name string) bool { return name == "/data/admin.token" })
		if want := []string{"/data/client.yaml", "/data/root.pem", "/dev/null", "/run/secrets/kek", "/run/secrets/pgpass", "/usr/local/bin/certwright"}; !sameSet(found, want) {
			t.Errorf("the container has %v, want %v", found, want)
		}
		if info, err := os.Stat(filepath.Join(c.root, "data")); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the data folder: %v, %v", info, err)
		}
	}
	// Commands in a replica find it, as with «docker compose exec».
	if r := first.run("cert", "issue", "--profile", "server", "--dns", "www.e2e.example"); r.Code != 0 {
		t.Errorf("issuing inside: code %d\n%s%s", r.Code, r.Out, r.Err)
	}

	proxy := startComposeProxy(t, Need(t, "haproxy")[0], file.Services["proxy"].Environment["PROXY_CONFIGURATION"], ports)
	eventually(t, readyTimeout, "the proxy", func() error {
		for _, u := range []string{loopback(ports["proxy:8404"]) + "/healthz", loopback(ports["proxy:8080"]) + "/readyz"} {
			res, err := plainHTTP.Get("http://" + u)
			if err != nil {
				return err
			}
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s\n%s", u, res.Status, proxy.Log())
			}
		}
		return nil
	})
	s := &Server{
		t: t, HTTP: "http://" + loopback(ports["proxy:8080"]), HTTPS: "https://" + loopback(ports["proxy:8443"]), MTLS: "https://" + loopback(ports["proxy:8444"]),
		Token: token, Root: parseCertificate(t, readFile(t, filepath.Join(first.root, "data", "root.pem"))),
	}
	s.PublicURL, s.Roots = s.HTTP, x509.NewCertPool()
	s.Roots.AddCert(s.Root)
	s.Client = s.ClientFor(token)

	// The whole of a client's day, through the proxy.
	device := issue(t, s, "device", "sensor-1", "DNS:sensor-1.e2e.example")
	res, err := s.Browser(device.TLS).Get(s.MTLS + "/api/v1/self")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("self-service through the proxy: %s", res.Status)
	}
	crl := device.X509.CRLDistributionPoints[0]
	if !strings.HasPrefix(crl, s.HTTP+"/") {
		t.Errorf("the certificate sends verifiers to %s", crl)
	}
	fetch(t, crl)
	issuing := parseCertificate(t, []byte(device.Chain))
	for _, post := range []bool{false, true} {
		if a := ocspAbout(t, s, device.X509, issuing, ocspQuery{POST: post}); ocspStatus(a) != "good" {
			t.Errorf("OCSP through the proxy: %s", ocspStatus(a))
		}
	}
	if got := untidy(t, ports["proxy:8080"]); got != "HTTP/1.1 404 Not Found" {
		t.Errorf("a path that a proxy might clean up to /healthz: %s", got)
	}

	// One replica is stopped: requests go on, and so they do when it is back and the other is gone.
	for _, gone := range []string{"replica-1", "replica-2"} {
		if code := processes[gone].Signal(syscall.SIGTERM, stopTimeout); code != 0 {
			t.Errorf("%s ended with code %d", gone, code)
		}
		for range 4 {
			fetch(t, crl)
			if _, err := s.Client.Certificate(t.Context(), device.ID); err != nil {
				t.Errorf("while %s is stopped: %v", gone, err)
			}
		}
		processes[gone] = replicas[gone].serve(built.Config.Cmd...)
		eventually(t, readyTimeout, gone+" again", func() error {
			if r := replicas[gone].run("healthcheck", "--ready"); r.Code != 0 {
				return errors.New(r.Err)
			}
			return nil
		})
	}

	// Without a database no replica is ready. The process is well all the same, and verifiers notice nothing.
	pg.Stop()
	for name, c := range replicas {
		eventually(t, readyTimeout, name+" is not ready", func() error {
			if r := c.run("healthcheck", "--ready"); r.Code != 1 || !strings.Contains(r.Err, "not ready: store: not heard of for ") {
				return fmt.Errorf("code %d: %s", r.Code, r.Err)
			}
			return nil
		})
		if r := c.run(health[2:]...); r.Code != 0 {
			t.Errorf("%s: the health check fails because the database is away: %s", name, r.Err)
		}
	}
	eventually(t, readyTimeout, "the proxy has no ready replica", func() error {
		down := map[string]bool{}
		for _, m := range regexp.MustCompile(`Server (\S+) is (UP|DOWN)`).FindAllStringSubmatch(proxy.Log(), -1) {
			down[m[1]] = m[2] == "DOWN"
		}
		for _, listener := range []string{"http", "https", "mtls"} {
			for name := range replicas {
				if !down[listener+"/"+name] {
					return fmt.Errorf("it takes %s for ready at %s", name, listener)
				}
			}
		}
		return nil
	})
	fetch(t, crl)
	_, err = s.Client.Issue(t.Context(), client.IssueRequest{CSR: opensslCSR(t, device.KeyFile, "/CN=late.e2e.example", "DNS:late.e2e.example"), Profile: "server"})
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != http.StatusServiceUnavailable {
		t.Errorf("issuing without a database: %v, want 503", err)
	}
}

// startComposeProxy runs HAProxy with the configuration of docker-compose.yml: the replicas' names become ports of this machine.
func startComposeProxy(t *testing.T, haproxy, configuration string, ports map[string]int) *Process {
	t.Helper()
	at := func(name string) string {
		if ports[name] == 0 {
			t.Fatalf("the proxy's configuration names %s", name)
		}
		return strconv.Itoa(ports[name])
	}
	text := strings.Replace(configuration, "check port 8080 ", "check ", 1)
	text = regexp.MustCompile(`(replica-\d):(\d+)`).ReplaceAllStringFunc(text, func(server string) string {
		return "127.0.0.1:" + at(server) + " port " + at(server[:strings.Index(server, ":")]+":8080")
	})
	text = regexp.MustCompile(`bind \S*:(\d+)`).ReplaceAllStringFunc(text, func(bind string) string {
		return "bind 127.0.0.1:" + at("proxy:"+bind[strings.LastIndex(bind, ":")+1:])
	})
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	writeFile(t, file, []byte(text))
	if r := try(t, haproxy, "-c", "-f", file); r.Code != 0 || strings.Contains(r.Out+r.Err, "WARNING") {
		t.Fatalf("HAProxy refuses the configuration:\n%s%s", r.Out, r.Err)
	}
	return Spawn(t, syscall.SIGTERM, bareEnv(), haproxy, "-db", "-f", file)
}

// untidy asks for a path that would be another one if somebody cleaned it up, and returns the status line.
func untidy(t *testing.T, port int) string {
	t.Helper()
	conn, err := net.Dial("tcp", loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /x/..//%2Fhealthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(answer), "\r\n")
	return line
}
