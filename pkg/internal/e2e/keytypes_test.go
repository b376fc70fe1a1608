package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/client"
)

// TestCAKeyTypes sets a CA up with each kind of key, and has OpenSSL judge a certificate, the CRLs and OCSP.
func TestCAKeyTypes(t *testing.T) {
	Need(t, "openssl")
	for _, alg := range []string{"rsa-2048", "rsa-3072", "p-384", "p-521", "ed25519"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			s := Start(t, Options{Flags: []string{"--ca-key-type", alg, "--organization", "Key Test"}})
			h := chainOf(t, s)
			for _, c := range []string{s.Root.Subject.String(), h.issuing.Subject.String()} {
				if !strings.Contains(c, "O=Key Test") {
					t.Errorf("subject %s, want the organization in it", c)
				}
			}
			i := issue(t, s, "client", "alice", "email:alice@e2e.example")
			if r := h.opensslVerify(t, i.CertFile, "sslclient"); r.Code != 0 {
				t.Errorf("openssl verify: %s%s", r.Out, r.Err)
			}
			lintCertificate(t, i.X509.Raw)
			for _, c := range h.crls {
				lintCRL(t, c)
			}
			ask := func(want string) {
				t.Helper()
				out := tool(t, "openssl", "ocsp", "-issuer", filepath.Join(h.dir, "issuing.pem"), "-cert", i.CertFile, "-url", i.X509.OCSPServer[0],
					"-CAfile", filepath.Join(h.dir, "root.pem"), "-verify_other", filepath.Join(h.dir, "issuing.pem"))
				if !strings.Contains(out, ": "+want) {
					t.Errorf("OCSP says %s, want %s", out, want)
				}
			}
			ask("good")
			s.MustCLI("cert", "revoke", i.ID, "--reason", "superseded")
			ask("revoked")
		})
	}
}

// TestCredential keeps the key-encryption key in a systemd credential.
func TestCredential(t *testing.T) {
	Need(t, "openssl")
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "kek")
	writeFile(t, path, bytes.Repeat([]byte{3, 141, 59, 26}, 8))
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	s := Start(t, Options{Flags: []string{"--credential", "kek"}, Env: []string{"CREDENTIALS_DIRECTORY=" + dir}})
	if _, err := os.Stat(filepath.Join(s.Data, "kek.key")); err == nil {
		t.Error("a key file was made beside the data, though there is a credential")
	}
	s.Restart()
	csr := opensslCSR(t, opensslKey(t, "EC"), "/CN=localhost", "DNS:localhost")
	if _, err := s.Client.Issue(t.Context(), client.IssueRequest{CSR: csr, Profile: "server"}); err != nil {
		t.Error(err)
	}
	s.Stop()
	r := StartRefused(t, Options{Data: s.Data, Flags: []string{"--credential", "absent"}, Env: []string{"CREDENTIALS_DIRECTORY=" + dir}})
	wantRefused(t, r, "credential")
	// A key file with the same octets opens what the credential sealed.
	s.Set(func(o *Options) { o.Flags, o.Env = []string{"--key-file", path}, nil })
	s.Again()
}
