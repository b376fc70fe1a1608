package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/internal/pgtest"
)

// TestSCEPClients has real clients get, renew and wait for certificates: on both stores, under issuers with ECDSA and with
// RSA keys.
func TestSCEPClients(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, config string
		database     bool
	}{
		{"SQLite, ECDSA", "init:\n  key_algorithm: p-256\n", false},
		{"Postgres, RSA", "init:\n  key_algorithm: rsa-2048\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Options{Config: c.config}
			if c.database {
				o.Database = pgtest.DSN(t)
			}
			s := Start(t, o)
			s.MustCLI("point", "set", "--renewal-percent", "100")
			t.Run("strongSwan", func(t *testing.T) { strongSwan(t, s) })
			t.Run("certmonger", func(t *testing.T) { certmonger(t, s) })
			goClients(t, s)
		})
	}
}

// oneTime makes a one-time challenge.
func oneTime(t *testing.T, s *Server) string {
	t.Helper()
	c, err := s.Client.CreateChallenge(t.Context(), client.CreateChallengeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Challenge
}

// issuedBySCEP reads a certificate that a client has got, and has OpenSSL verify it.
func issuedBySCEP(t *testing.T, s *Server, dir string, raw []byte, commonName string) *x509.Certificate {
	t.Helper()
	if b, _ := pem.Decode(raw); b != nil {
		raw = b.Bytes
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatalf("the client has no certificate: %v", err)
	}
	if c.Subject.CommonName != commonName || c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment ||
		len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("the certificate is for %v, key usage %b, EKU %v", c.Subject, c.KeyUsage, c.ExtKeyUsage)
	}
	file := filepath.Join(dir, fmt.Sprintf("%x.pem", c.SerialNumber))
	writeFile(t, file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	chain := filepath.Join(dir, "chain.pem")
	writeFile(t, chain, fetch(t, s.HTTP+"/chain/issuing.pem"))
	tool(t, "openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", filepath.Join(s.Data, "root.pem"), "-untrusted", chain, file)
	return c
}

// strongSwan walks through what its pki command can do.
func strongSwan(t *testing.T, s *Server) {
	pki := Need(t, "pki", "openssl")[0]
	dir := t.TempDir()
	url := s.HTTP + "/scep/default"
	// run returns what pki writes to its standard output.
	run := func(want int, args ...string) Result {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
		defer cancel()
		r := Run(ctx, t, Command{Path: pki, Args: args, Dir: dir})
		if (r.Code == 0) != (want == 0) {
			t.Fatalf("pki %s ended with %d:\n%s", strings.Join(args, " "), r.Code, r.Err)
		}
		return r
	}
	run(0, "--scepca", "--url", url, "--caout", "ca.der", "--raout", "ra.der")
	writeFile(t, filepath.Join(dir, "key.der"), []byte(run(0, "--gen", "--type", "rsa", "--size", "2048").Out))
	ask := func(more ...string) []string {
		return append([]string{
			"--scep", "--url", url, "--in", "key.der", "--dn", "CN=sensor-1", "--cacert-enc", "ra.der", "--cacert-sig", "ra.der",
			"--cacert", "ca.der", "--cacert", "ca-1.der", "--interval", "1",
		}, more...)
	}
	refused := run(1, ask("--password", "wrong")...)
	if !strings.Contains(refused.Err+refused.Out, "badRequest") {
		t.Errorf("a wrong challenge: %s", refused.Err)
	}
	once := oneTime(t, s)
	first := issuedBySCEP(t, s, dir, []byte(run(0, ask("--password", once, "--san", "sensor-1.example.com")...).Out), "sensor-1")
	if len(first.DNSNames) != 1 || first.DNSNames[0] != "sensor-1.example.com" {
		t.Errorf("names %v", first.DNSNames)
	}
	writeFile(t, filepath.Join(dir, "cert.der"), first.Raw)
	second := issuedBySCEP(t, s, dir, []byte(run(0, ask("--cert", "cert.der", "--key", "key.der")...).Out), "sensor-1")
	if second.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("the renewal brought the same certificate")
	}

	// A request that waits, and is approved while the client polls.
	s.MustCLI("point", "set", "--approval")
	defer s.MustCLI("point", "set", "--approval=false")
	writeFile(t, filepath.Join(dir, "key.der"), []byte(run(0, "--gen", "--type", "rsa", "--size", "2048").Out))
	approved := make(chan error, 1)
	go func() {
		for began := time.Now(); time.Since(began) < callTimeout; time.Sleep(pollInterval) {
			list, _, err := s.Client.Enrollments(t.Context(), client.EnrollmentQuery{State: "pending"})
			if err == nil && len(list) == 0 {
				continue
			}
			if err == nil {
				_, err = s.Client.ApproveEnrollment(t.Context(), list[0].ID)
			}
			approved <- err
			return
		}
		approved <- fmt.Errorf("no request waits")
	}()
	waited := run(0, ask("--password", oneTime(t, s), "--maxpolltime", "40")...)
	if err := <-approved; err != nil {
		t.Fatal(err)
	}
	issuedBySCEP(t, s, dir, []byte(waited.Out), "sensor-1")
}

// certmonger runs it on a message bus of its own, with folders of its own.
func certmonger(t *testing.T, s *Server) {
	dbus := Need(t, "dbus-run-session", "certmonger", "getcert", "openssl")[0]
	dir := t.TempDir()
	for _, folder := range []string{"config", "requests", "cas", "local"} {
		mkdir(t, filepath.Join(dir, folder))
	}
	writeFile(t, filepath.Join(dir, "challenge.txt"), []byte(oneTime(t, s)+"\n"))
	script := `
		certmonger -s -n & CM=$!
		trap 'kill $CM' EXIT
		within() { for i in $(seq 1 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "not within 30 s: $*"; getcert list -s; exit 1; }
		monitored() { getcert list -s | grep -q 'status: MONITORING'; }
		renewed() { ! cmp -s dev.crt first.crt; }
		within getcert list-cas -s
		/usr/lib/certmonger/scep-submit -u "$URL" -c
		/usr/lib/certmonger/scep-submit -u "$URL" -C > all.pem || exit 1
		awk '/BEGIN/{n++} {print > ("ca" n ".pem")}' all.pem
		getcert add-scep-ca -s -c cw -u "$URL" -N $PWD/ca2.pem -r $PWD/ca1.pem -I $PWD/ca3.pem || exit 1
		getcert request -s -I dev -c cw -f $PWD/dev.crt -k $PWD/dev.key -N CN=sensor-2 -l $PWD/challenge.txt || exit 1
		within monitored
		cp dev.crt first.crt
		getcert resubmit -s -i dev || exit 1
		within renewed
		within monitored`
	ctx, cancel := context.WithTimeout(t.Context(), 2*callTimeout)
	defer cancel()
	r := Run(ctx, t, Command{Path: dbus, Args: []string{"bash", "-c", script}, Dir: dir, Env: append(os.Environ(),
		"URL="+s.HTTP+"/scep/default", "CERTMONGER_CONFIG_DIR="+filepath.Join(dir, "config"), "CERTMONGER_REQUESTS_DIR="+filepath.Join(dir, "requests"),
		"CERTMONGER_CAS_DIR="+filepath.Join(dir, "cas"), "CERTMONGER_LOCAL_CA_DIR="+filepath.Join(dir, "local"))})
	if r.Code != 0 {
		t.Fatalf("certmonger's session ended with %d:\n%s\n%s", r.Code, r.Out, r.Err)
	}
	if !strings.Contains(r.Out, "SCEPStandard") {
		t.Errorf("capabilities: %s", r.Out)
	}
	first := issuedBySCEP(t, s, dir, readFile(t, filepath.Join(dir, "first.crt")), "sensor-2")
	second := issuedBySCEP(t, s, dir, readFile(t, filepath.Join(dir, "dev.crt")), "sensor-2")
	if bytes.Equal(first.Raw, second.Raw) {
		t.Error("certmonger has the same certificate after it renewed")
	}
}
