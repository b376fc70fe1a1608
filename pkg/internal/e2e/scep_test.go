package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

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
			for _, p := range []sceper{newSwan(t, s), newMonger(t, s)} {
				t.Run(p.String(), func(t *testing.T) { enrollsAndRenews(t, s, p) })
			}
			r := try(t, "/usr/lib/certmonger/scep-submit", "-u", s.HTTP+"/scep/default", "-c")
			if r.Code != 0 || !strings.Contains(r.Out, "SCEPStandard") {
				t.Errorf("the capabilities, as certmonger reads them: %+v", r)
			}
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

// enrollsAndRenews is what every SCEP client does.
func enrollsAndRenews(t *testing.T, s *Server, p sceper) {
	w := &walk{fleetStories: &fleetStories{s: s}, t: t, program: p}
	d := w.device("default", "sensor")
	d.refused(asking{challenge: "wrong"})
	first := d.gets(asking{challenge: oneTime(t, s), san: "sensor-1.example.com"})
	if len(first.DNSNames) != 1 || first.DNSNames[0] != "sensor-1.example.com" {
		t.Errorf("names %v", first.DNSNames)
	}
	second := d.renew()
	if second.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("the renewal brought the same certificate")
	}

	// A request that waits, and is approved while the client polls.
	s.MustCLI("point", "set", "--approval")
	defer s.MustCLI("point", "set", "--approval=false")
	d.newKey()
	third := d.gets(asking{challenge: oneTime(t, s)}, func() { s.MustCLI("request", "approve", d.waiting().ID) })
	for _, c := range []*x509.Certificate{first, second, third} {
		issuedBySCEP(t, s, d.dir, c.Raw, d.name)
	}
}
