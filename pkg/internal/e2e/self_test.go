package e2e

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/client"
)

// TestSelf has curl do what a device does with its certificate, and with certificates that it must not use.
func TestSelf(t *testing.T) {
	Need(t, "openssl", "curl")
	everywhere(t, func(t *testing.T, d deployment) {
		device := issue(t, d.A, "device", "sensor-17", "DNS:sensor-17.e2e.example")

		t.Run("show", func(t *testing.T) {
			got := d.B.curlSelf(t, device, "GET", "/api/v1/self", nil).certificate(t, 200)
			if got.ID != device.ID || got.Status != "valid" || got.Profile != "device" {
				t.Errorf("got %+v", got)
			}
		})

		t.Run("renew with the same key", func(t *testing.T) {
			got := d.A.curlSelf(t, device, "POST", "/api/v1/self/renew", []byte("{}")).certificate(t, 201)
			checkRenewal(t, device.Certificate, got)
			if got.SPKISHA256 != device.SPKISHA256 {
				t.Error("the key is another one")
			}
			next := &identity{CertFile: filepath.Join(t.TempDir(), "cert.pem"), ChainFile: filepath.Join(t.TempDir(), "chain.pem"), KeyFile: device.KeyFile}
			next.take(t, got)
			// What A issued B accepts at once.
			if got := d.B.curlSelf(t, next, "GET", "/api/v1/self", nil).certificate(t, 200); got.ID != next.ID {
				t.Errorf("got %s, want %s", got.ID, next.ID)
			}
		})

		t.Run("renew with a new key", func(t *testing.T) {
			dir := t.TempDir()
			next := &identity{CertFile: filepath.Join(dir, "cert.pem"), ChainFile: filepath.Join(dir, "chain.pem"), KeyFile: filepath.Join(dir, "key.pem")}
			writeFile(t, next.KeyFile, []byte(newOpensslKey(t, "EC")))
			body, err := json.Marshal(map[string]string{"csr": opensslCSR(t, next.KeyFile, "/CN=sensor-17", "DNS:sensor-17.e2e.example")})
			if err != nil {
				t.Fatal(err)
			}
			got := d.B.curlSelf(t, device, "POST", "/api/v1/self/renew", body).certificate(t, 201)
			checkRenewal(t, device.Certificate, got)
			if got.SPKISHA256 == device.SPKISHA256 {
				t.Error("the key is the old one")
			}
			next.take(t, got)
			if got := d.A.curlSelf(t, next, "GET", "/api/v1/self", nil).certificate(t, 200); got.ID != next.ID {
				t.Errorf("got %s, want %s", got.ID, next.ID)
			}
		})

		t.Run("renew with names of somebody else", func(t *testing.T) {
			body, err := json.Marshal(map[string]string{"csr": opensslCSR(t, opensslKey(t, "EC"), "/CN=admin", "DNS:admin.e2e.example")})
			if err != nil {
				t.Fatal(err)
			}
			a := d.A.curlSelf(t, device, "POST", "/api/v1/self/renew", body)
			if a.status == 201 {
				if got := a.certificate(t, 201); strings.Contains(got.Subject+strings.Join(got.SANs, " "), "admin") {
					t.Errorf("got a certificate for %s, %v", got.Subject, got.SANs)
				}
			}
		})

		t.Run("no certificate", func(t *testing.T) {
			r := try(t, "curl", "-sS", "--cacert", filepath.Join(d.A.Data, "root.pem"), d.A.MTLS+"/api/v1/self")
			if r.Code == 0 {
				t.Errorf("curl without a certificate: %s", r.Out)
			}
		})

		t.Run("serverAuth only", func(t *testing.T) {
			server := issue(t, d.A, "server", "www.e2e.example", "DNS:www.e2e.example")
			d.B.curlSelf(t, server, "GET", "/api/v1/self", nil).problem(t, 403, "not for client authentication")
		})

		t.Run("a stranger's", func(t *testing.T) {
			d.A.curlSelf(t, stranger(t), "GET", "/api/v1/self", nil).problem(t, 401, "not issued here")
		})

		t.Run("routes for tokens", func(t *testing.T) {
			for _, path := range []string{"/api/v1/certificates", "/api/v1/issuers", "/api/v1/tokens", "/api/v1/selfish"} {
				d.A.curlSelf(t, device, "GET", path, nil).problem(t, 404, "/api/v1/self")
			}
			for _, path := range []string{"/", "/crls/issuing.pem", "/roots.pem"} {
				if a := d.A.curlSelf(t, device, "GET", path, nil); a.status != 404 {
					t.Errorf("%s: got %d", path, a.status)
				}
			}
			// And the other way round: no certificate opens the routes of the HTTPS listener.
			a := d.A.curl(t, device, d.A.HTTPS+"/api/v1/self", "GET", nil)
			a.problem(t, 401, "certificate")
		})

		t.Run("on hold", func(t *testing.T) {
			d.A.MustCLI("cert", "hold", device.ID)
			for _, s := range []*Server{d.A, d.B} {
				s.curlSelf(t, device, "GET", "/api/v1/self", nil).problem(t, 403, "on hold")
				s.curlSelf(t, device, "POST", "/api/v1/self/renew", []byte("{}")).problem(t, 403, "on hold")
			}
			d.A.MustCLI("cert", "release", device.ID)
			d.B.curlSelf(t, device, "GET", "/api/v1/self", nil).certificate(t, 200)
		})

		t.Run("revoked by itself", func(t *testing.T) {
			lost := issue(t, d.A, "client", "ada", "email:ada@e2e.example")
			d.A.curlSelf(t, lost, "POST", "/api/v1/self/revoke", []byte(`{"reason":"certificateHold"}`)).problem(t, 400, "certificateHold")
			got := d.A.curlSelf(t, lost, "POST", "/api/v1/self/revoke", []byte(`{"reason":"superseded"}`)).certificate(t, 200)
			if got.Status != "revoked" || got.Revocation == nil || got.Revocation.Reason != "superseded" {
				t.Errorf("got %+v", got)
			}
			d.B.curlSelf(t, lost, "GET", "/api/v1/self", nil).problem(t, 403, "revoked")
		})

		t.Run("reported by itself", func(t *testing.T) {
			// Its own certificate goes and its key is blocked; who else has one for this key speaks for himself.
			other := issue(t, d.A, "client", "eve", "email:eve@e2e.example")
			twin := &identity{CertFile: filepath.Join(t.TempDir(), "cert.pem"), ChainFile: filepath.Join(t.TempDir(), "chain.pem"), KeyFile: other.KeyFile}
			twin.take(t, d.A.curlSelf(t, other, "POST", "/api/v1/self/renew", []byte("{}")).certificate(t, 201))
			d.A.curlSelf(t, twin, "POST", "/api/v1/self/revoke", []byte(`{"reason":"keyCompromise"}`)).certificate(t, 200)
			d.A.curlSelf(t, twin, "GET", "/api/v1/self", nil).problem(t, 403, "revoked")
			d.A.curlSelf(t, other, "GET", "/api/v1/self", nil).certificate(t, 200)
			if a := d.A.curlSelf(t, other, "POST", "/api/v1/self/renew", []byte("{}")); a.status != 400 {
				t.Errorf("a renewal with a key that was reported: got %d, want 400", a.status)
			}
		})

		t.Run("revoked", func(t *testing.T) {
			d.A.MustCLI("cert", "revoke", device.ID, "--reason", "keyCompromise")
			for _, s := range []*Server{d.A, d.B} {
				s.curlSelf(t, device, "GET", "/api/v1/self", nil).problem(t, 403, "revoked")
				s.curlSelf(t, device, "POST", "/api/v1/self/renew", []byte("{}")).problem(t, 403, "revoked")
			}
		})
	})
}

func checkRenewal(t *testing.T, old, next client.Certificate) {
	t.Helper()
	if next.ID == old.ID || next.Serial == old.Serial || next.Replaces != old.ID || next.Profile != old.Profile ||
		next.Subject != old.Subject || !sameSet(next.SANs, old.SANs) || next.NotAfter.Before(old.NotAfter) {
		t.Errorf("got %+v, as the renewal of %+v", next, old)
	}
}

// stranger returns a client certificate of another CA.
func stranger(t testing.TB) *identity {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	tool(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN=Other CA", "-keyout", file("ca.key"), "-out", file("ca.pem"))
	tool(t, "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=sensor-17",
		"-keyout", file("key.pem"), "-out", file("csr.pem"))
	writeFile(t, file("ext"), []byte("extendedKeyUsage=clientAuth\nkeyUsage=critical,digitalSignature\nsubjectAltName=DNS:sensor-17.e2e.example\n"))
	tool(t, "openssl", "x509", "-req", "-in", file("csr.pem"), "-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-CAcreateserial",
		"-days", "1", "-extfile", file("ext"), "-out", file("cert.pem"))
	return &identity{CertFile: file("cert.pem"), ChainFile: file("cert.pem"), KeyFile: file("key.pem")}
}

// curlAnswer is what curl got.
type curlAnswer struct {
	status      int
	contentType string
	body        []byte
}

func (s *Server) curlSelf(t testing.TB, i *identity, method, path string, body []byte) curlAnswer {
	t.Helper()
	return s.curl(t, i, s.MTLS+path, method, body)
}

// curl asks with a client certificate, trusting the root only.
func (s *Server) curl(t testing.TB, i *identity, address, method string, body []byte) curlAnswer {
	t.Helper()
	out := filepath.Join(t.TempDir(), "body")
	args := []string{
		"-sS", "--cacert", filepath.Join(s.Data, "root.pem"), "--cert", i.ChainFile, "--key", i.KeyFile, "-X", method,
		"-o", out, "-w", "%{http_code} %{content_type}",
	}
	if body != nil {
		file := filepath.Join(t.TempDir(), "request")
		writeFile(t, file, body)
		args = append(args, "-H", "Content-Type: application/json", "--data-binary", "@"+file)
	}
	code, contentType, _ := strings.Cut(tool(t, "curl", append(args, address)...), " ")
	status, err := strconv.Atoi(code)
	if err != nil {
		t.Fatal(err)
	}
	return curlAnswer{status, contentType, readFile(t, out)}
}

func (a curlAnswer) certificate(t testing.TB, status int) (c client.Certificate) {
	t.Helper()
	if a.status != status {
		t.Fatalf("got %d, want %d: %s", a.status, status, a.body)
	}
	if err := json.Unmarshal(a.body, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// problem checks that the answer is a problem document (RFC 9457) that says why.
func (a curlAnswer) problem(t testing.TB, status int, why string) {
	t.Helper()
	var e client.Error
	if err := json.Unmarshal(a.body, &e); err != nil || a.contentType != "application/problem+json" {
		t.Errorf("got %d %s %s: want a problem document", a.status, a.contentType, a.body)
		return
	}
	if a.status != status || e.Status != status || e.Kind() == "" || !strings.Contains(e.Detail, why) {
		t.Errorf("got %d %s, want %d and %q", a.status, a.body, status, why)
	}
}
