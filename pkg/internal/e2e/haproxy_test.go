package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

func startHAProxy(t testing.TB, s *Server, by string) *relyingServer {
	t.Helper()
	if by != byCRL {
		t.Fatalf("HAProxy does not ask OCSP about clients")
	}
	path := Need(t, "haproxy")[0]
	r := &relyingServer{name: "HAProxy", dir: relyingFiles(t, s), port: FreePort(t), cacert: filepath.Join(s.Data, "root.pem")}
	r.logFile = filepath.Join(r.dir, "none") // what it says is the process's output
	writeFile(t, filepath.Join(r.dir, "haproxy.pem"), slices.Concat(readFile(t, filepath.Join(r.dir, "server.pem")), readFile(t, filepath.Join(r.dir, "server.key"))))
	writeFile(t, filepath.Join(r.dir, "haproxy.cfg"), fmt.Appendf(nil, `
global
	maxconn 50
defaults
	mode http
	timeout connect 5s
	timeout client 10s
	timeout server 10s
frontend tls
	bind %[2]s ssl crt %[1]s/haproxy.pem ca-file %[1]s/client-ca.pem crl-file %[1]s/crls.pem verify required
	http-request return status 200 content-type text/plain string welcome
`, r.dir, loopback(r.port)))
	// A master that starts new workers at SIGUSR2, as under systemd.
	r.process = Spawn(t, syscall.SIGTERM, bareEnv(), path, "-W", "-db", "-f", filepath.Join(r.dir, "haproxy.cfg"))
	r.wait(t)
	return r
}

// TestHAProxy lets clients in, and refuses them after a refresh of the CRL.
func TestHAProxy(t *testing.T) {
	Need(t, "haproxy", "curl", "openssl")
	s := Start(t, Options{})
	r := startHAProxy(t, s, byCRL)
	good, bad := issue(t, s, "client", "good", "email:good@e2e.example"), issue(t, s, "client", "bad", "email:bad@e2e.example")
	for _, i := range []*identity{good, bad} {
		if status := r.visit(t, i); status != 200 {
			t.Fatalf("a client with a good certificate gets %d", status)
		}
	}
	for name, i := range map[string]*identity{"nobody": nil, "a stranger": stranger(t), "a server": issue(t, s, "server", "www.e2e.example", "DNS:www.e2e.example")} {
		if status := r.visit(t, i); status != 0 {
			t.Errorf("%s gets %d, want a broken handshake", name, status)
		}
	}
	s.MustCLI("cert", "revoke", bad.ID, "--reason", "superseded")
	eventually(t, crlLimit, "the CRL bundle", func() error {
		text := fetch(t, s.HTTP+"/crls/issuing.pem")
		if listed(firstCRL(t, text), bad) == nil {
			return errors.New("the certificate is not listed")
		}
		writeFile(t, filepath.Join(r.dir, "crls.pem"), text)
		return nil
	})
	if err := r.process.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the refusal", func() error {
		if status := r.visit(t, bad); status != 0 {
			return fmt.Errorf("a revoked client gets %d", status)
		}
		return nil
	})
	if status := r.visit(t, good); status != 200 {
		t.Errorf("the other client gets %d", status)
	}
}
