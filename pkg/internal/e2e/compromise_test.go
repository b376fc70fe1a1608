package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/client"
)

// TestIssuingCACompromised revokes the issuing CA. Everybody is told, nothing is issued any more, and the server goes on
// and starts again: its CRLs, its OCSP answers and further revocations are needed more than before.
func TestIssuingCACompromised(t *testing.T) {
	Need(t, "openssl")
	everywhere(t, func(t *testing.T, d deployment) {
		h := chainOf(t, d.A)
		leaf := issue(t, d.A, "client", "ada", "email:ada@e2e.example")
		if r := h.opensslVerify(t, leaf.CertFile, "sslclient"); r.Code != 0 {
			t.Fatalf("openssl verify: %s%s", r.Out, r.Err)
		}
		issuer, err := d.A.Client.Issuer(t.Context(), "issuing")
		if err != nil {
			t.Fatal(err)
		}
		if r := d.A.CLI("cert", "revoke", leaf.ID, "--reason", "cACompromise"); r.Code != 1 || !strings.Contains(r.Err, "keyCompromise") {
			t.Errorf("cACompromise for a leaf: code %d, %s", r.Code, r.Err)
		}
		d.A.MustCLI("cert", "revoke", issuer.Serial, "--reason", "cACompromise")

		h.wantOCSP(t, d.A, filepath.Join(h.dir, "issuing.pem"), "revoked", "-no_nonce")
		rootCDP := h.issuing.CRLDistributionPoints[0]
		waitListed(t, crlLimit, rootCDP, h.root, &identity{X509: h.issuing, Certificate: client.Certificate{Serial: issuer.Serial}}, wantReason(2))
		h.refresh(t, leaf.X509.CRLDistributionPoints[0])
		if r := h.opensslVerify(t, leaf.CertFile, "sslclient"); r.Code == 0 || !strings.Contains(r.Out+r.Err, "revoked") {
			t.Errorf("openssl verify: code %d, %s%s", r.Code, r.Out, r.Err)
		}

		servers := []*Server{d.A}
		if d.Replicas() {
			servers = append(servers, d.B)
		}
		check := func(t *testing.T, s *Server) {
			t.Helper()
			// The trust file for servers has the root only.
			eventually(t, crlLimit, "the trust file", func() error {
				if bundle := fetch(t, s.HTTP+"/client-ca.pem"); !bytes.Equal(bundle, pemOf(h.root)) {
					return fmt.Errorf("it holds %d certificates", bytes.Count(bundle, []byte("BEGIN CERTIFICATE")))
				}
				return nil
			})
			csr := opensslCSR(t, opensslKey(t, "EC"), "/CN=next.e2e.example", "DNS:next.e2e.example")
			_, err := s.Client.Issue(t.Context(), client.IssueRequest{CSR: csr, Profile: "server"})
			if e, ok := errors.AsType[*client.Error](err); !ok || e.Kind() != "policy_refused" || !strings.Contains(e.Detail, "revoked") {
				t.Errorf("issuing: got %v, want a refusal that says why", err)
			}
			if !s.IsReady() {
				t.Error("it is not ready")
			}
		}
		for _, s := range servers {
			check(t, s)
		}
		for _, s := range servers {
			s.Restart()
		}
		for _, s := range servers {
			check(t, s)
			h.wantOCSP(t, s, leaf.CertFile, "good", "-nonce")
			h.wantOCSP(t, s, filepath.Join(h.dir, "issuing.pem"), "revoked", "-nonce")
		}
		d.A.MustCLI("cert", "revoke", leaf.ID, "--reason", "superseded")
		h.wantOCSP(t, d.A, leaf.CertFile, "revoked", "-no_nonce")
		waitListed(t, crlLimit, leaf.X509.CRLDistributionPoints[0], h.issuing, leaf, wantReason(4))
	})
}
