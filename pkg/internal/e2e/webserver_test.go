package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// relyingServer is an nginx or Apache that asks for client certificates.
type relyingServer struct {
	name    string
	port    int
	dir     string
	process *Process
	cacert  string // root certificate, for curl
	logFile string
}

// The way in which a server learns of revocations.
const (
	byCRL         = "CRL"
	byOCSPLeaf    = "OCSP, leaf"
	byOCSP        = "OCSP, whole chain"
	byOCSPNoNonce = "OCSP, whole chain, no nonce"
)

// relyingFolder returns a folder with a page in it, which workers may read that have dropped what root may do.
func relyingFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mkdir(t, filepath.Join(dir, "html"))
	writeFile(t, filepath.Join(dir, "html", "index.html"), []byte("welcome\n"))
	return dir
}

// relyingFiles are what relying servers are configured with, as an administrator would fetch it.
func relyingFiles(t testing.TB, s *Server) string {
	t.Helper()
	dir := relyingFolder(t)
	own := issue(t, s, "server", "relying.e2e.example", "DNS:relying.e2e.example,DNS:localhost,IP:127.0.0.1")
	writeFile(t, filepath.Join(dir, "server.pem"), readFile(t, own.ChainFile))
	writeFile(t, filepath.Join(dir, "server.key"), readFile(t, own.KeyFile))
	writeFile(t, filepath.Join(dir, "client-ca.pem"), fetch(t, s.HTTP+"/client-ca.pem"))
	writeFile(t, filepath.Join(dir, "crls.pem"), fetch(t, s.HTTP+"/crls/issuing.pem"))
	return dir
}

func startNginx(t testing.TB, s *Server, by string) *relyingServer {
	t.Helper()
	return startNginxes(t, s, by)[0]
}

// startNginxes starts one nginx with a port for each way.
func startNginxes(t testing.TB, s *Server, by ...string) []*relyingServer {
	t.Helper()
	revocation := map[string]string{
		byCRL: "ssl_crl crls.pem;",
		// The responder's address has an IP address in it, so that no resolver is asked; nginx wants none then. The cache is
		// off, since nginx keeps a good answer until its nextUpdate.
		byOCSPLeaf: "ssl_ocsp leaf; ssl_ocsp_cache off;",
		byOCSP:     "ssl_ocsp on; ssl_ocsp_cache off;",
	}
	dir := relyingFiles(t, s)
	var all []*relyingServer
	var blocks strings.Builder
	for _, by := range by {
		r := &relyingServer{name: "nginx", dir: dir, port: FreePort(t), cacert: filepath.Join(s.Data, "root.pem"), logFile: filepath.Join(dir, "error.log")}
		all = append(all, r)
		fmt.Fprintf(&blocks, `
	server {
		listen %[1]s ssl;
		root html;
		ssl_certificate server.pem;
		ssl_certificate_key server.key;
		ssl_protocols TLSv1.2 TLSv1.3;
		ssl_session_cache shared:tls:1m;
		ssl_session_timeout 5m;
		ssl_client_certificate client-ca.pem;
		ssl_verify_client on;
		ssl_verify_depth 2;
		%[2]s
		add_header X-Client-Subject "$ssl_client_s_dn" always;
	}
`, loopback(r.port), revocation[by])
	}
	process := spawnNginx(t, dir, blocks.String())
	waitAll(t, process, all)
	return all
}

// spawnNginx starts an nginx with these server blocks, in which paths are relative to the folder. Its log is error.log
// there.
func spawnNginx(t testing.TB, dir, blocks string) *Process {
	t.Helper()
	path := Need(t, "nginx")[0]
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	conf := fmt.Sprintf(`
%[2]s
daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log info;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path %[1]s/tmp; proxy_temp_path %[1]s/tmp; fastcgi_temp_path %[1]s/tmp; uwsgi_temp_path %[1]s/tmp; scgi_temp_path %[1]s/tmp;
%[3]s
}
`, dir, user, blocks)
	writeFile(t, filepath.Join(dir, "nginx.conf"), []byte(conf))
	args := []string{"-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", filepath.Join(dir, "nginx.conf")}
	tool(t, path, append(args, "-t")...)
	return Spawn(t, syscall.SIGTERM, bareEnv(), path, args...)
}

func startApache(t testing.TB, s *Server, by string) *relyingServer {
	t.Helper()
	return startApaches(t, s, by)[0]
}

// startApaches starts one Apache with a port for each way.
func startApaches(t testing.TB, s *Server, by ...string) []*relyingServer {
	t.Helper()
	path := Need(t, "apache2")[0]
	revocation := map[string]string{
		byCRL: "SSLCARevocationFile crls.pem\nSSLCARevocationCheck chain",
		// It sends a nonce by default, and wants it back.
		byOCSPLeaf:    "SSLOCSPEnable leaf",
		byOCSP:        "SSLOCSPEnable on",
		byOCSPNoNonce: "SSLOCSPEnable on\nSSLOCSPUseRequestNonce off",
	}
	dir := relyingFiles(t, s)
	var all []*relyingServer
	var hosts strings.Builder
	for _, by := range by {
		r := &relyingServer{name: "Apache", dir: dir, port: FreePort(t), cacert: filepath.Join(s.Data, "root.pem"), logFile: filepath.Join(dir, "error.log")}
		all = append(all, r)
		fmt.Fprintf(&hosts, `
Listen %[1]s
<VirtualHost %[1]s>
	SSLEngine on
	SSLProtocol -all +TLSv1.2 +TLSv1.3
	SSLCertificateFile server.pem
	SSLCertificateKeyFile server.key
	SSLCACertificateFile client-ca.pem
	SSLVerifyClient require
	SSLVerifyDepth 2
	%[2]s
</VirtualHost>
`, loopback(r.port), revocation[by])
	}
	const modules = "/usr/lib/apache2/modules"
	conf := fmt.Sprintf(`
ServerRoot %[1]s
ServerName localhost
PidFile %[1]s/apache.pid
ErrorLog %[1]s/error.log
LogLevel info ssl:info
Mutex file:%[1]s default
LoadModule mpm_event_module %[2]s/mod_mpm_event.so
LoadModule authz_core_module %[2]s/mod_authz_core.so
LoadModule socache_shmcb_module %[2]s/mod_socache_shmcb.so
LoadModule ssl_module %[2]s/mod_ssl.so
User www-data
Group www-data
StartServers 1
ThreadsPerChild 8
MaxRequestWorkers 8
MinSpareThreads 1
MaxSpareThreads 8
SSLSessionCache shmcb:%[1]s/sessions(512000)
SSLSessionCacheTimeout 300
DocumentRoot %[1]s/html
<Directory %[1]s/html>
	Require all granted
</Directory>
%[3]s
`, dir, modules, hosts.String())
	writeFile(t, filepath.Join(dir, "apache.conf"), []byte(conf))
	for _, name := range []string{"html", "html/index.html"} { // its workers are not root
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	process := Spawn(t, syscall.SIGTERM, bareEnv(), path, "-d", dir, "-f", filepath.Join(dir, "apache.conf"), "-DFOREGROUND")
	waitAll(t, process, all)
	return all
}

// waitAll is wait for the ports of one process.
func waitAll(t testing.TB, process *Process, all []*relyingServer) {
	t.Helper()
	for i, r := range all {
		if r.process = process; i == 0 {
			r.wait(t)
		} else {
			r.listening(t)
		}
	}
}

// wait waits until the server takes connections, and ends it when the test has ended.
func (r *relyingServer) wait(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		// SIGTERM, so that workers end with their master.
		select {
		case <-r.process.Done():
		default:
			r.process.Signal(syscall.SIGTERM, stopTimeout)
		}
		if t.Failed() {
			log, _ := os.ReadFile(r.logFile)
			t.Logf("%s's log:\n%s", r.name, log[max(0, len(log)-maxShownLog):])
		}
	})
	r.listening(t)
}

// listening waits until the server takes connections.
func (r *relyingServer) listening(t testing.TB) {
	t.Helper()
	eventually(t, readyTimeout, r.name+" to listen", func() error {
		select {
		case <-r.process.Done():
			log, _ := os.ReadFile(r.logFile)
			t.Fatalf("%s ended with code %d:\n%s%s", r.name, r.process.Code(), r.process.Log(), log)
		default:
		}
		conn, err := net.DialTimeout("tcp", loopback(r.port), time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// reload has the server read its files again, as its administrator's timer does.
func (r *relyingServer) reload(t testing.TB) {
	t.Helper()
	signal := syscall.SIGHUP
	if r.name == "Apache" {
		signal = syscall.SIGUSR1
	}
	if err := r.process.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// visit asks for a page with curl. cert may be nil. It returns the status; 0 if the connection was refused.
func (r *relyingServer) visit(t testing.TB, i *identity, more ...string) int {
	t.Helper()
	args := []string{"-sS", "--max-time", "20", "--cacert", r.cacert, "-o", "/dev/null", "-w", "%{http_code}"}
	if i != nil {
		args = append(args, "--cert", i.ChainFile, "--key", i.KeyFile)
	}
	res := try(t, "curl", append(append(args, more...), "https://"+loopback(r.port)+"/index.html")...)
	status, err := strconv.Atoi(strings.TrimSpace(res.Out))
	if err != nil {
		t.Fatalf("curl: code %d, %s%s", res.Code, res.Out, res.Err)
	}
	return status
}

// refuses says what a refusal looks like: nginx answers 400, Apache breaks the handshake off.
func (r *relyingServer) refuses(t testing.TB, i *identity) error {
	t.Helper()
	for _, version := range []string{"--tlsv1.3", "--tls-max=1.2"} {
		args := []string{version}
		if name, value, ok := strings.Cut(version, "="); ok {
			args = []string{name, value}
		}
		switch status := r.visit(t, i, args...); {
		case status == 200:
			return errors.New("it lets the client in")
		case status == 400 && r.name == "nginx", status == 0 && r.name == "Apache", status == 403 && r.name == "Apache":
		default:
			return fmt.Errorf("status %d", status)
		}
	}
	return nil
}

// TestRelyingServers has nginx and Apache let clients in, and refuse them once they are revoked: after a refresh of the
// CRL, or at once with OCSP.
func TestRelyingServers(t *testing.T) {
	Need(t, "nginx", "apache2", "curl", "openssl")
	everywhere(t, func(t *testing.T, d deployment) {
		for _, kind := range []struct {
			name  string
			start func(testing.TB, *Server, string) *relyingServer
		}{{"nginx", startNginx}, {"Apache", startApache}} {
			for _, by := range []string{byCRL, byOCSP} { // leaf: TestAskers
				t.Run(kind.name+" "+by, func(t *testing.T) {
					// Files and addresses are B's; what changes, changes on A.
					r := kind.start(t, d.B, by)
					good := issue(t, d.A, "client", "good", "email:good@e2e.example")
					bad := issue(t, d.A, "client", "bad", "email:bad@e2e.example")
					for _, i := range []*identity{good, bad} {
						if status := r.visit(t, i); status != 200 {
							t.Fatalf("a client with a good certificate gets %d", status)
						}
					}
					if err := r.refuses(t, nil); err != nil {
						t.Errorf("a client without a certificate: %v", err)
					}
					if err := r.refuses(t, stranger(t)); err != nil {
						t.Errorf("a stranger: %v", err)
					}
					if err := r.refuses(t, issue(t, d.A, "server", "www.e2e.example", "DNS:www.e2e.example")); err != nil {
						t.Errorf("a certificate for servers: %v", err)
					}

					d.A.MustCLI("cert", "revoke", bad.ID, "--reason", "superseded")
					if by == byCRL {
						eventually(t, crlLimit, "the CRL bundle", func() error {
							text := fetch(t, d.B.HTTP+"/crls/issuing.pem")
							h := firstCRL(t, text)
							if listed(h, bad) == nil {
								return errors.New("the certificate is not listed")
							}
							writeFile(t, filepath.Join(r.dir, "crls.pem"), text)
							return nil
						})
						r.reload(t)
						eventually(t, 10*time.Second, "the refusal", func() error { return r.refuses(t, bad) })
					} else if err := r.refuses(t, bad); err != nil {
						// The address in the certificate is A's, which the command has told.
						t.Errorf("a revoked client: %v", err)
					}
					if status := r.visit(t, good); status != 200 {
						t.Errorf("the other client gets %d", status)
					}
				})
			}
		}
	})
}
