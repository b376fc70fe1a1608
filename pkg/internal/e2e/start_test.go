package e2e

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/internal/pgtest"
)

// startLimit is what a first start to a first certificate may take; a tenth is usual.
const startLimit = 5 * time.Second

// databases make connection strings for stories about one server.
var databases = map[string]func(testing.TB) string{"SQLite": func(testing.TB) string { return "" }, "Postgres": pgtest.DSN}

// TestFirstStart goes from nothing to a certificate.
func TestFirstStart(t *testing.T) {
	Need(t, "openssl")
	Program(t)
	csr := opensslCSR(t, opensslKey(t, "EC"), "/CN=localhost", "DNS:localhost")
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			dsn := database(t)
			began := time.Now()
			s := Start(t, Options{Database: dsn})
			if _, err := s.Client.Issue(t.Context(), client.IssueRequest{CSR: csr, Profile: "server"}); err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			s.Restart()
			t.Logf("first certificate after %s; ready again after %s", took.Round(time.Millisecond), s.Ready.Round(time.Millisecond))
			if took > startLimit || s.Ready > startLimit {
				t.Errorf("that is longer than %s", startLimit)
			}
		})
	}
}

// TestRestart stops and kills servers. Everything that was promised is still there.
func TestRestart(t *testing.T) {
	Need(t, "openssl")
	everywhere(t, func(t *testing.T, d deployment) {
		root := d.A.Root.Raw
		kept := strings.TrimSpace(d.A.MustCLI("token", "create", "kept", "--role", "operator"))
		ended := strings.TrimSpace(d.A.MustCLI("token", "create", "ended", "--role", "operator"))
		d.A.MustCLI("token", "revoke", "ended")
		good, bad := issue(t, d.A, "server", "good.e2e.example", "DNS:good.e2e.example"), issue(t, d.A, "client", "bad", "email:bad@e2e.example")
		d.A.MustCLI("cert", "revoke", bad.ID, "--reason", "superseded")
		events, err := d.A.Client.VerifyAudit(t.Context())
		if err != nil || !events.Whole {
			t.Fatalf("audit chain: %+v, %v", events, err)
		}

		for _, restart := range []struct {
			name string
			do   func(s *Server)
		}{
			{"stopped", (*Server).Stop},
			{"killed", (*Server).Kill},
		} {
			t.Run(restart.name, func(t *testing.T) {
				servers := []*Server{d.A}
				if d.Replicas() {
					servers = append(servers, d.B)
				}
				for _, s := range servers {
					restart.do(s)
				}
				for _, s := range servers {
					s.Again()
				}
				for _, s := range servers {
					if !bytes.Equal(s.Root.Raw, root) {
						t.Fatal("there is another root")
					}
					if strings.Contains(s.Log(), "has been set up") {
						t.Error("it says that a new authority has been set up")
					}
					if _, err := s.ClientFor(kept).Certificate(t.Context(), good.ID); err != nil {
						t.Errorf("with a token of before: %v", err)
					}
					if _, err := s.ClientFor(ended).Certificate(t.Context(), good.ID); err == nil {
						t.Error("a revoked token works again")
					}
					for i, want := range map[*identity]string{good: "valid", bad: "revoked"} {
						if c, err := s.Client.Certificate(t.Context(), i.ID); err != nil || c.Status != want || c.PEM != i.PEM {
							t.Errorf("certificate %s: %s, %v; want %s", i.Serial, c.Status, err, want)
						}
					}
					verified, err := s.Client.VerifyAudit(t.Context())
					if err != nil || !verified.Whole || verified.Records < events.Records {
						t.Errorf("audit chain: %+v, %v", verified, err)
					}
					events = verified
				}
			})
		}
	})
}

// TestSecondProcess starts a server where one runs.
func TestSecondProcess(t *testing.T) {
	s := Start(t, Options{})
	wantRefused(t, StartRefused(t, Options{Data: s.Data}), "another process has the database open", "Postgres")
	for _, args := range [][]string{{"check"}, {"store", "check"}} { // they only look
		s.MustCLI(args...)
	}
	for _, args := range [][]string{{"store", "migrate"}, {"key", "rewrap", "--new-key-file", filepath.Join(t.TempDir(), "kek.key")}} {
		wantRefused(t, s.CLI(args...), "another process has the database open", "running server")
	}
	if !s.IsReady() {
		t.Error("the first one is not ready any more")
	}
	if _, err := s.Client.Tokens(t.Context()); err != nil {
		t.Error(err)
	}
	s.Stop()
}

// TestPortInUse starts a server on another one's port. Nothing of its data folder must be made for nothing.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data := filepath.Join(t.TempDir(), "data")
	r := StartRefused(t, Options{Data: data, Flags: []string{"--mtls", l.Addr().String()}})
	wantRefused(t, r, "address already in use", "--mtls")
	if _, err := os.Stat(filepath.Join(data, "certwright.db")); err == nil {
		t.Error("a store was set up for a server that cannot listen")
	}
}

// TestKeyEncryptionKey starts servers with the right and with wrong keys, and changes keys.
func TestKeyEncryptionKey(t *testing.T) {
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := func(name string) string { return filepath.Join(dir, name) }
			writeFile(t, file("passphrase"), []byte("correct horse battery staple\n"))
			writeFile(t, file("wrong passphrase"), []byte("correct horse battery stapler\n"))
			writeFile(t, file("wrong.key"), bytes.Repeat([]byte{7, 77}, 16))

			s := Start(t, Options{Database: database(t)})
			key := filepath.Join(s.Data, "kek.key")
			// refused starts it with other flags and wants it refused.
			refused := func(what, hint string, flags ...string) {
				t.Helper()
				r := StartRefused(t, Options{Database: s.options.Database, Data: s.Data, Flags: flags})
				wantRefused(t, r, what, hint)
			}
			starts := func(flags ...string) {
				t.Helper()
				s.Set(func(o *Options) { o.Flags = flags })
				root := s.Root.Raw
				s.Again()
				if !bytes.Equal(s.Root.Raw, root) {
					t.Fatal("there is another root")
				}
				// It signs: the keys are open.
				if s.CLI("cert", "issue", "--profile", "server", "--dns", "localhost", "--out", filepath.Join(t.TempDir(), "x")).Code != 0 {
					t.Error("it does not issue")
				}
				s.Stop()
			}
			s.Stop()

			refused("not the key", "replica", "--key-file", file("wrong.key"))
			refused("not there", "--key-file", "--key-file", file("absent.key"))
			if _, err := os.Stat(file("absent.key")); err == nil {
				t.Error("a key file was made for a store that has another key")
			}

			s.MustCLI("key", "rewrap", "--new-passphrase-file", file("passphrase"))
			starts("--passphrase-file", file("passphrase"))
			refused("passphrase", "KEY_PASSPHRASE", "--key-file", key)
			refused("passphrase", "KEY_PASSPHRASE")
			refused("not the key", "passphrase", "--passphrase-file", file("wrong passphrase"))

			s.MustCLI("key", "rewrap", "--passphrase-file", file("passphrase"), "--new-key-file", file("new.key"))
			starts("--key-file", file("new.key"))
			refused("not the key", "replica") // the old one, in its old place
			if info, err := os.Stat(file("new.key")); err != nil || info.Mode().Perm() != 0o600 || info.Size() != 32 {
				t.Errorf("the new key file: %v, %v", info, err)
			}
		})
	}
}

// TestPassphrase sets a server up with a passphrase, which leaves no key file.
func TestPassphrase(t *testing.T) {
	s := Start(t, Options{Env: []string{"CERTWRIGHT_KEY_PASSPHRASE=correct horse battery staple"}})
	if _, err := os.Stat(filepath.Join(s.Data, "kek.key")); err == nil {
		t.Error("there is a key file")
	}
	root := s.Root.Raw
	s.Restart()
	if !bytes.Equal(s.Root.Raw, root) {
		t.Error("there is another root")
	}
	s.Stop()
	if out := s.MustCLI("check"); strings.Contains(out, "beside the data") {
		t.Errorf("check speaks of a key file:\n%s", out)
	}
	wantRefused(t, StartRefused(t, Options{Data: s.Data}), "passphrase", "KEY_PASSPHRASE")
}

// TestCheck has «certwright check» look at a fresh server, which is safe to try out and not yet to rely on.
func TestCheck(t *testing.T) {
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			s := Start(t, Options{Database: database(t)})
			s.Stop()
			out := s.MustCLI("check")
			for _, want := range []string{filepath.Join(s.Data, "kek.key") + " lies beside the data", "the public URL is one that only this machine can reach", "mend: "} {
				if !strings.Contains(out, want) {
					t.Errorf("check does not say %q:\n%s", want, out)
				}
			}
			if strings.Contains(out, "SERIOUS") {
				t.Errorf("check finds something serious in a fresh server:\n%s", out)
			}
			if err := os.Chmod(filepath.Join(s.Data, "admin.token"), 0o644); err != nil {
				t.Fatal(err)
			}
			if r := s.CLI("check"); r.Code != 1 || !strings.Contains(r.Out, "SERIOUS") || !strings.Contains(r.Out, "chmod 0600") {
				t.Errorf("a token that others can read: code %d\n%s%s", r.Code, r.Out, r.Err)
			}
		})
	}
}

// TestBadSettings starts servers with settings that must be refused, before anything is made.
func TestBadSettings(t *testing.T) {
	for _, c := range []struct {
		name    string
		options Options
		want    []string
	}{
		{"public URL with TLS", Options{PublicURL: "https://pki.example.com"}, []string{"CERTWRIGHT_PUBLIC_URL", "plain http"}},
		{"unknown key", Options{Config: "crl:\n  intervall: 2h\n"}, []string{"certwright.yaml: line 2", "intervall", "did you mean crl.interval?"}},
		{"unknown variable", Options{Env: []string{"CERTWRIGHT_CRL_INTERVALL=2h"}}, []string{"CERTWRIGHT_CRL_INTERVALL", "did you mean CERTWRIGHT_CRL_INTERVAL?"}},
		{"two keys", Options{Config: "key:\n  file: a\n  passphrase_file: b\n"}, []string{"key:", "not several"}},
		{"next_update too short", Options{Env: []string{"CERTWRIGHT_CRL_NEXT_UPDATE=90m"}}, []string{"CERTWRIGHT_CRL_NEXT_UPDATE"}},
		{"no duration", Options{Env: []string{"CERTWRIGHT_OCSP_MAX_AGE=soon"}}, []string{"CERTWRIGHT_OCSP_MAX_AGE", "soon"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.options.Data = filepath.Join(t.TempDir(), "data")
			r := StartRefused(t, c.options)
			wantRefused(t, r, c.want...)
			if _, err := os.Stat(filepath.Join(c.options.Data, "certwright.db")); err == nil {
				t.Error("a store was set up")
			}
		})
	}
	t.Run("unknown flag", func(t *testing.T) {
		r := StartRefused(t, Options{Flags: []string{"--htttp", "x"}})
		if r.Code != 2 || !strings.Contains(r.Err, "--htttp") || !strings.Contains(r.Err, "hint: ") {
			t.Errorf("code %d: %s%s", r.Code, r.Out, r.Err)
		}
	})
	t.Run("wrong flags", func(t *testing.T) {
		for _, flags := range [][]string{{"--http", "8080"}, {"--log-format", "xml"}, {"--key-file", "a", "--passphrase-file", "b"}} {
			r := StartRefused(t, Options{Flags: flags})
			if r.Code != 2 || !strings.Contains(r.Err, flags[0]) || !strings.Contains(r.Err, "hint: ") {
				t.Errorf("%v: code %d: %s%s", flags, r.Code, r.Out, r.Err)
			}
		}
	})
	t.Run("data folder open to others", func(t *testing.T) {
		s := Start(t, Options{})
		s.Stop()
		if err := os.Chmod(s.Data, 0o755); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, StartRefused(t, Options{Data: s.Data}), "open to others", "chmod 0700")
	})
	t.Run("no database", func(t *testing.T) {
		// Containers of one stack start together: it waits, says so, and ends when it is told to meanwhile.
		s := newServer(t, Options{Database: "postgres://nobody@" + loopback(FreePort(t)) + "/nothing?sslmode=disable"})
		s.choosePorts()
		s.process = Spawn(t, syscall.SIGKILL, s.env(), Program(t), s.serveArgs()...)
		eventually(t, startLimit, "a word about the wait", func() error {
			if !strings.Contains(s.Log(), "waiting for the database") {
				return errors.New(s.Log())
			}
			return nil
		})
		if code := s.process.Signal(syscall.SIGTERM, stopTimeout); code < 0 {
			t.Errorf("it did not end by itself: code %d\n%s", code, s.Log())
		}
	})
}

// wantRefused checks that a command ended with code 1, an error and a hint, and says what it should.
func wantRefused(t testing.TB, r Result, want ...string) {
	t.Helper()
	if r.Code != 1 || !strings.Contains(r.Err, "error: ") || !strings.Contains(r.Err, "hint: ") {
		t.Errorf("code %d, want 1, an error and a hint:\n%s%s", r.Code, r.Out, r.Err)
	}
	for _, w := range want {
		if !strings.Contains(r.Err, w) {
			t.Errorf("it does not say %q:\n%s", w, r.Err)
		}
	}
}
