package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// asker is a program that decides by OCSP.
type asker struct {
	name  string
	whole bool // it asks for the status of the issuing CA, too
	// admits tells whether it takes the certificate for good, and if not, why.
	admits func(t *testing.T, i *identity) (bool, string)
}

// TestAskers has every kind of program that asks OCSP ask in its own way, one server all of them, through the life of a
// certificate: good, held, released, revoked; never issued; and at the end with a revoked issuing CA.
func TestAskers(t *testing.T) {
	t.Parallel()
	Need(t, "openssl", "curl", "ocsptool", "nginx", "apache2", "stunnel4", "freeradius", "eapol_test", "java")
	s := Start(t, Options{})
	other := twinOf(t, s)
	h := chainOf(t, s)

	askers := []asker{opensslAsker(h, s), ocsptoolAsker(h), goAsker(t, s)}
	for i, r := range startNginxes(t, s, byOCSPLeaf, byOCSP) {
		askers = append(askers, r.asker([]string{byOCSPLeaf, byOCSP}[i]))
	}
	apaches := []string{byOCSPLeaf, byOCSP, byOCSPNoNonce}
	for i, r := range startApaches(t, s, apaches...) {
		askers = append(askers, r.asker(apaches[i]))
	}
	for i, r := range startStunnels(t, s, "no", "yes") {
		a := r.asker(byOCSP + ", nonce " + []string{"no", "yes"}[i])
		askers = append(askers, a)
	}
	askers = append(askers, staplingAsker(t, s), startRadius(t, s), javaAsker(t, s, "plain"), javaAsker(t, s, "nonce"))

	subject := func(s *Server, name string) *identity {
		// For both ends of a connection, because stapling is about the server's certificate.
		return issue(t, s, "peer", name+".askers.example", "DNS:"+name+".askers.example,DNS:localhost,IP:127.0.0.1")
	}
	phase := func(name string, i *identity, want func(asker) bool) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			for _, a := range askers {
				t.Run(a.name, func(t *testing.T) {
					t.Parallel()
					if got, why := a.admits(t, i); got != want(a) {
						t.Errorf("%s: admitted %v: %s", name, got, why)
					}
				})
			}
		})
	}
	always := func(asker) bool { return true }
	never := func(asker) bool { return false }
	one := subject(s, "one")
	phase("good", one, always)
	s.MustCLI("cert", "hold", one.ID)
	phase("held", one, never)
	s.MustCLI("cert", "release", one.ID)
	phase("released", one, always)
	s.MustCLI("cert", "revoke", "--reason", "keyCompromise", one.ID)
	phase("revoked", one, never)
	// Signed by the very same CA, and nothing that this server has issued.
	phase("never issued", subject(other, "unknown"), never)

	last := subject(s, "last")
	phase("another is good", last, always)
	issuer, err := s.Client.Issuer(t.Context(), "issuing")
	if err != nil {
		t.Fatal(err)
	}
	s.MustCLI("cert", "revoke", "--reason", "cACompromise", issuer.Serial)
	phase("issuing CA revoked", last, func(a asker) bool { return !a.whole })
}

// twinOf starts another server with a copy of the first one's data: the same CAs, whose certificates the first one does not
// know.
func twinOf(t *testing.T, s *Server) *Server {
	t.Helper()
	s.Stop()
	data := filepath.Join(t.TempDir(), "twin")
	if err := os.CopyFS(data, os.DirFS(s.Data)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".", "kek.key", "admin.token"} { // CopyFS gives the group what it likes
		mode := os.FileMode(0o600)
		if name == "." {
			mode = 0o700
		}
		if err := os.Chmod(filepath.Join(data, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	s.Again()
	return Start(t, Options{Data: data, PublicURL: s.PublicURL})
}

// asker makes a web server that asks for client certificates one.
func (r *relyingServer) asker(way string) asker {
	return asker{name: r.name + ", " + way, whole: way != byOCSPLeaf, admits: func(t *testing.T, i *identity) (bool, string) {
		if status := r.visit(t, i); status != 200 {
			return false, fmt.Sprintf("status %d", status)
		}
		return true, ""
	}}
}

// opensslAsker is openssl ocsp, about the certificate and the CA above it, in the four ways that it knows.
func opensslAsker(h *hierarchy, s *Server) asker {
	return asker{name: "openssl ocsp", whole: true, admits: func(t *testing.T, i *identity) (bool, string) {
		for _, file := range []string{i.CertFile, filepath.Join(h.dir, "issuing.pem")} {
			good := 0
			var out string
			for _, args := range [][]string{{"-sha1", "-nonce"}, {"-sha1", "-no_nonce"}, {"-sha256", "-nonce"}, {"-sha256", "-no_nonce"}} {
				r := h.openssl(t, s, append([]string{"-cert", file}, args...)...)
				out = r.Out + r.Err
				if strings.Contains(r.Out, file+": good") && strings.Contains(out, "Response verify OK") && !strings.Contains(out, "WARNING") {
					good++
				} else if !strings.Contains(out, "unauthorized") && !strings.Contains(r.Out, file+": revoked") {
					t.Errorf("openssl ocsp %v: %s", args, out)
				}
			}
			if good != 0 && good != 4 {
				t.Errorf("%d of 4 ways say good", good)
			}
			if good != 4 {
				return false, out
			}
		}
		return true, ""
	}}
}

// ocsptoolAsker is GnuTLS's, which sends a nonce, and asks at the address in the certificate.
func ocsptoolAsker(h *hierarchy) asker {
	return asker{name: "ocsptool", whole: true, admits: func(t *testing.T, i *identity) (bool, string) {
		issuing, root := filepath.Join(h.dir, "issuing.pem"), filepath.Join(h.dir, "root.pem")
		for _, c := range []struct{ cert, issuer string }{{i.CertFile, issuing}, {issuing, root}} {
			r := try(t, "ocsptool", "--ask", "--nonce", "--load-cert", c.cert, "--load-issuer", c.issuer, "--load-trust", c.issuer)
			out := r.Out + r.Err
			if r.Code != 0 || !strings.Contains(out, "Verifying OCSP Response: Success") || !strings.Contains(out, "Certificate Status: good") {
				return false, out
			}
		}
		return true, ""
	}}
}

// goAsker is a TLS server in Go, with what docs/relying-servers.md gives it: Go itself asks nobody.
func goAsker(t *testing.T, s *Server) asker {
	pair := issue(t, s, "server", "go.askers.example", "DNS:go.askers.example,IP:127.0.0.1")
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	web.TLS = &tls.Config{
		// The roots alone: a chain ends at the first certificate that is trusted by itself, and the last one's status is
		// not asked for.
		Certificates: []tls.Certificate{*pair.TLS}, ClientCAs: s.Roots, ClientAuth: tls.RequireAndVerifyClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			chain := state.VerifiedChains[0]
			for i, c := range chain[:len(chain)-1] {
				answer, err := askInCertificate(c, chain[i+1])
				if err != nil {
					return err
				}
				if answer.Status != ocsp.Good {
					return errors.New("revoked")
				}
			}
			return nil
		},
	}
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	t.Cleanup(web.Close)
	return asker{name: "Go", whole: true, admits: func(t *testing.T, i *identity) (bool, string) {
		res, err := s.Browser(i.TLS).Get(web.URL)
		if err != nil {
			return false, err.Error()
		}
		res.Body.Close()
		return res.StatusCode == 200, res.Status
	}}
}

// askInCertificate asks at the address in the certificate.
func askInCertificate(c, issuer *x509.Certificate) (*ocsp.Response, error) {
	request, err := ocsp.CreateRequest(c, issuer, nil)
	if err != nil {
		return nil, err
	}
	res, err := plainHTTP.Post(c.OCSPServer[0], "application/ocsp-request", bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	return ocsp.ParseResponseForCert(answer, c, issuer)
}

// startStunnels starts one stunnel with a service for each value of OCSPnonce, before a web server that lets all in.
func startStunnels(t *testing.T, s *Server, nonces ...string) []*relyingServer {
	t.Helper()
	behind := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(behind.Close)
	dir := relyingFiles(t, s)
	conf := "foreground = yes\npid =\nsyslog = no\ndebug = 6\n"
	var all []*relyingServer
	for _, nonce := range nonces {
		r := &relyingServer{name: "stunnel", dir: dir, port: FreePort(t), cacert: filepath.Join(s.Data, "root.pem"), logFile: filepath.Join(dir, "none")}
		conf += fmt.Sprintf(`
[nonce %[1]s]
accept = %[2]s
connect = %[3]s
cert = %[4]s/server.pem
key = %[4]s/server.key
CAfile = %[4]s/client-ca.pem
verifyChain = yes
requireCert = yes
OCSPaia = yes
OCSPnonce = %[1]s
`, nonce, loopback(r.port), behind.Listener.Addr(), dir)
		all = append(all, r)
	}
	file := filepath.Join(dir, "stunnel.conf")
	writeFile(t, file, []byte(conf))
	process := Spawn(t, syscall.SIGTERM, bareEnv(), Need(t, "stunnel4")[0], file)
	waitAll(t, process, all)
	return all
}

// staplingAsker is curl --cert-status and openssl s_client -status, before an nginx that staples. Each certificate gets an
// nginx of its own, whose certificate it is.
func staplingAsker(t *testing.T, s *Server) asker {
	clientCA := fetch(t, s.HTTP+"/client-ca.pem")
	root := filepath.Join(s.Data, "root.pem")
	return asker{name: "curl --cert-status, nginx ssl_stapling", admits: func(t *testing.T, i *identity) (bool, string) {
		dir := relyingFolder(t)
		writeFile(t, filepath.Join(dir, "server.pem"), readFile(t, i.ChainFile))
		writeFile(t, filepath.Join(dir, "server.key"), readFile(t, i.KeyFile))
		writeFile(t, filepath.Join(dir, "client-ca.pem"), clientCA)
		r := &relyingServer{name: "nginx", dir: dir, port: FreePort(t), cacert: root, logFile: filepath.Join(dir, "error.log")}
		r.process = spawnNginx(t, dir, fmt.Sprintf(`
	server {
		listen %s ssl;
		root html;
		ssl_certificate server.pem;
		ssl_certificate_key server.key;
		ssl_trusted_certificate client-ca.pem;
		ssl_stapling on;
		ssl_stapling_verify on;
	}`, loopback(r.port)))
		r.wait(t)
		// It fetches the first answer when it is first asked for one, and does not wait for it.
		var admitted bool
		var why string
		eventually(t, 20*time.Second, "an answer, or nginx's word that it has none", func() error {
			if r.visit(t, nil, "--cert-status") == 200 {
				admitted = true
				return nil
			}
			why = string(readFile(t, r.logFile))
			if strings.Contains(why, "in the OCSP response") || strings.Contains(why, "OCSP response not successful") {
				return nil
			}
			return errors.New("neither: " + why)
		})
		if !admitted && r.visit(t, nil, "--cert-status") != 0 {
			t.Error("curl is content with a certificate that nginx has no good answer for")
		}
		if r.visit(t, nil) != 200 {
			t.Error("without --cert-status curl should not care")
		}
		seen := try(t, "openssl", "s_client", "-connect", loopback(r.port), "-status", "-CAfile", root, "-verify_return_error")
		if strings.Contains(seen.Out, "OCSP Response Status: successful") != admitted {
			t.Errorf("openssl s_client -status: %s", seen.Out)
		}
		return admitted, why
	}}
}

// startRadius starts FreeRADIUS, which authenticates with EAP-TLS and asks OCSP with a nonce about the client's certificate
// alone. eapol_test is the client.
func startRadius(t *testing.T, s *Server) asker {
	t.Helper()
	dir, port := relyingFiles(t, s), FreePort(t)
	writeFile(t, filepath.Join(dir, "dictionary"), nil)
	writeFile(t, filepath.Join(dir, "radiusd.conf"), fmt.Appendf(nil, `
prefix = /usr
libdir = /usr/lib/freeradius
raddbdir = %[1]s
logdir = %[1]s
run_dir = %[1]s
radacctdir = %[1]s
pidfile = %[1]s/radiusd.pid
log {
	destination = stdout
}
security {
	allow_vulnerable_openssl = yes
}
proxy_requests = no
modules {
	eap {
		default_eap_type = tls
		tls-config common {
			private_key_file = %[1]s/server.key
			certificate_file = %[1]s/server.pem
			ca_file = %[1]s/client-ca.pem
			tls_min_version = "1.2"
			tls_max_version = "1.2"
			ocsp {
				enable = yes
				override_cert_url = no
				use_nonce = yes
				timeout = 10
				softfail = no
			}
		}
		tls {
			tls = common
		}
	}
}
client localhost {
	ipaddr = 127.0.0.1
	secret = testing123
}
server default {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %[2]d
	}
	authorize {
		eap
	}
	authenticate {
		eap
	}
}
`, dir, port))
	process := Spawn(t, syscall.SIGKILL, bareEnv(), Need(t, "freeradius")[0], "-f", "-x", "-x", "-d", dir)
	eventually(t, readyTimeout, "FreeRADIUS to be ready", func() error {
		select {
		case <-process.Done():
			t.Fatalf("FreeRADIUS ended with code %d:\n%s", process.Code(), process.Log())
		default:
		}
		if !strings.Contains(process.Log(), "Ready to process requests") {
			return errors.New("not yet")
		}
		return nil
	})
	root := filepath.Join(s.Data, "root.pem")
	return asker{name: "FreeRADIUS", admits: func(t *testing.T, i *identity) (bool, string) {
		conf := filepath.Join(t.TempDir(), "eapol.conf")
		writeFile(t, conf, fmt.Appendf(nil, `network={
	key_mgmt=WPA-EAP
	eap=TLS
	identity="asker"
	ca_cert=%q
	client_cert=%q
	private_key=%q
}
`, root, i.ChainFile, i.KeyFile))
		r := try(t, "eapol_test", "-c", conf, "-a", "127.0.0.1", "-p", fmt.Sprint(port), "-s", "testing123", "-t", "20")
		switch {
		case strings.HasSuffix(strings.TrimSpace(r.Out), "SUCCESS"):
			return true, ""
		case strings.Contains(r.Out, "CTRL-EVENT-EAP-FAILURE"):
			return false, process.Log()
		}
		t.Errorf("eapol_test: code %d: %s", r.Code, r.Out[max(0, len(r.Out)-2000):])
		return false, ""
	}}
}

// javaAsker is Java's PKIX. One process answers for all certificates, because starting one takes a second.
func javaAsker(t *testing.T, s *Server, nonce string) asker {
	t.Helper()
	cmd := exec.Command(Need(t, "java")[0], "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", filepath.Join("testdata", "Asker.java"), filepath.Join(s.Data, "root.pem"), nonce)
	cmd.Env = bareEnv()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints logBuffer
	cmd.Stderr, cmd.SysProcAttr = &complaints, processAttributes(syscall.SIGKILL)
	if err := onOwnThread(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("java: %v\n%s", err, complaints.String())
		}
	})
	lines := bufio.NewScanner(out)
	var turn sync.Mutex
	return asker{name: "Java, " + nonce, whole: true, admits: func(t *testing.T, i *identity) (bool, string) {
		turn.Lock()
		defer turn.Unlock()
		if _, err := fmt.Fprintln(in, i.ChainFile); err != nil {
			t.Fatalf("java: %v\n%s", err, complaints.String())
		}
		if !lines.Scan() {
			t.Fatalf("java: %v\n%s", lines.Err(), complaints.String())
		}
		return lines.Text() == "good", lines.Text()
	}}
}
