package rest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	gopkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// withKey asks for a certificate with a key, as over TLS.
func (r *rig) withKey(who string, body map[string]any) *httptest.ResponseRecorder {
	r.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	req := httptest.NewRequestWithContext(r.t.Context(), "POST", Root+"/certificates/with-key", bytes.NewReader(b))
	req.TLS = &tls.ConnectionState{HandshakeComplete: true}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+r.tokens[who])
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w
}

func (r *rig) mustHaveKey(body map[string]any) CertificateWithKey {
	r.t.Helper()
	w := r.withKey("operator", body)
	var c CertificateWithKey
	if err := json.Unmarshal(w.Body.Bytes(), &c); w.Code != http.StatusCreated || err != nil {
		r.t.Fatalf("%v: %d %s", body, w.Code, w.Body)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		r.t.Errorf("Cache-Control is %q: an answer with a key must not be kept", got)
	}
	if got, want := w.Header().Get("Location"), Root+"/certificates/"+c.ID; got != want {
		r.t.Errorf("Location is %q, want %q", got, want)
	}
	return c
}

func TestIssueWithKey(t *testing.T) {
	r := newRig(t)
	// PEM, and what the key may be.
	for _, alg := range keys.Algorithms()[:5] {
		c := r.mustHaveKey(map[string]any{"profile": "server", "sans": []string{"DNS:www.example.com"}, "key_algorithm": alg.String(), "validity": "7d"})
		key, err := keys.ParsePrivateKeyPEM([]byte(c.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(c.PEM))
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(leaf.PublicKey) {
			t.Errorf("%s: the key is not the certificate's", alg)
		}
		if got, err := keys.AlgorithmOf(key.Public()); err != nil || got != alg {
			t.Errorf("asked for %s, got %s, %v", alg, got, err)
		}
		if c.PKCS12 != nil || c.Password != "" || c.Protocol != "rest-key" || c.Requester != "token:operator" || c.SANs[0] != "DNS:www.example.com" {
			t.Errorf("%s: %+v", alg, c)
		}
	}
	// PKCS #12: the whole chain, under the given password or under one of the server's.
	for _, format := range []string{"pkcs12", "pkcs12-compat"} {
		for _, given := range []string{"", "correct horse"} {
			body := map[string]any{"profile": "client", "subject": "CN=Ada Lovelace", "format": format}
			if given != "" {
				body["password"] = given
			}
			c := r.mustHaveKey(body)
			password := given
			if given == "" {
				if password = c.Password; len(password) < 20 {
					t.Errorf("%s: the server's password has %d characters", format, len(password))
				}
			} else if c.Password != "" {
				t.Errorf("%s: the answer repeats the password", format)
			}
			_, leaf, issuers, err := gopkcs12.DecodeChain(c.PKCS12, password)
			if err != nil {
				t.Fatal(err)
			}
			if f := fingerprint(leaf.Raw); f.String() != c.ID || c.PrivateKey != "" {
				t.Errorf("%s: the file has the certificate %s, want %s", format, f, c.ID)
			}
			if len(issuers) != 2 || leaf.CheckSignatureFrom(issuers[0]) != nil || issuers[0].CheckSignatureFrom(issuers[1]) != nil || issuers[1].CheckSignatureFrom(issuers[1]) != nil {
				t.Errorf("%s: the file does not have the whole chain, up to the root", format)
			}
			if des := bytes.Contains(c.PKCS12, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 0x03}); des != (format == "pkcs12-compat") {
				t.Errorf("%s: 3DES: %v", format, des)
			}
		}
	}
}

func TestKeysAreHandedOutOnce(t *testing.T) {
	r := newRig(t)
	c := r.mustHaveKey(map[string]any{"profile": "client", "subject": "CN=Ada"})
	p := r.mustHaveKey(map[string]any{"profile": "client", "subject": "CN=Eve", "format": "pkcs12"})
	for _, path := range []string{"/certificates/" + c.ID, "/certificates/" + p.ID, "/certificates", "/certificates/" + c.ID + "/download?format=chain", "/audit"} {
		_, answer := r.call("administrator", "GET", path, nil)
		if bytes.Contains(answer, []byte("PRIVATE KEY")) || bytes.Contains(answer, []byte("pkcs12")) || bytes.Contains(answer, []byte(p.Password)) {
			t.Errorf("%s tells a secret", path)
		}
	}
	events, _, err := r.store.AuditEvents(t.Context(), store.AuditFilter{Action: audit.ActionIssue}, store.Page{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if !bytes.Contains(e.Bytes, []byte(`"protocol":"rest-key"`)) {
			t.Errorf("the trail does not tell that the server made the key: %s", e.Bytes)
		}
	}
}

func TestIssueWithKeyRefuses(t *testing.T) {
	r := newRig(t)
	r.newToken("servers", map[string]any{"role": "operator", "profiles": []string{"server"}})
	good := func(change map[string]any) map[string]any {
		body := map[string]any{"profile": "client", "subject": "CN=Ada"}
		for k, v := range change {
			body[k] = v
		}
		return body
	}
	before, err := r.store.CountCertificates(t.Context(), store.CertificateFilter{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, who string
		body      map[string]any
		status    int
		want      string
	}{
		{"an enroller", "enroller", good(nil), 403, "takes operator"},
		{"an auditor", "auditor", good(nil), 403, "takes operator"},
		{"another profile than the token's", "servers", good(nil), 403, "may not use the profile"},
		{"a CA, as an administrator", "administrator", good(map[string]any{"profile": "sub-ca"}), 422, "never handed out"},
		{"no such profile", "operator", good(map[string]any{"profile": "nope"}), 404, "there is no profile"},
		{"no name", "operator", map[string]any{"profile": "server"}, 400, "has no name"},
		{"an unknown algorithm", "operator", good(map[string]any{"key_algorithm": "rsa-1024"}), 422, "key_algorithm"},
		{"an unknown format", "operator", good(map[string]any{"format": "pkcs12-rc2"}), 422, "format"},
		{"a short password", "operator", good(map[string]any{"format": "pkcs12", "password": "hunter2-hun"}), 400, "want 12 to 128"},
		{"a password beyond ASCII", "operator", good(map[string]any{"format": "pkcs12", "password": "hunter2-hunter2-ü"}), 400, "ASCII"},
		{"a password without a file", "operator", good(map[string]any{"password": "hunter2-hunter2"}), 400, "for PKCS #12"},
		{"two ends", "operator", good(map[string]any{"validity": "1d", "not_after": "2040-01-01T00:00:00Z"}), 400, "exclude each other"},
		{"a longer life than the profile's", "operator", good(map[string]any{"validity": "9000d"}), 422, ""},
		{"a CSR", "operator", good(map[string]any{"csr": "x"}), 422, "unexpected property"},
	} {
		w := r.withKey(tt.who, tt.body)
		answer := w.Body.String()
		if w.Code != tt.status || !strings.Contains(answer, tt.want) {
			t.Errorf("%s: %d %s, want %d with %q", tt.name, w.Code, answer, tt.status, tt.want)
		}
		if strings.Contains(answer, "hunter2") || strings.Contains(answer, "PRIVATE") {
			t.Errorf("%s: the answer tells a secret: %s", tt.name, answer)
		}
	}
	if status, answer := r.call("operator", "POST", "/certificates/with-key", good(nil)); status != http.StatusBadRequest || !bytes.Contains(answer, []byte("over TLS only")) {
		t.Errorf("without TLS: %d %s", status, answer)
	}
	if after, err := r.store.CountCertificates(t.Context(), store.CertificateFilter{}, 100); err != nil || after != before {
		t.Errorf("refusals have issued %d certificates, %v", after-before, err)
	}
}

func TestNoCertificateForAKeyThatNobodyGets(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequestWithContext(ctx, "POST", Root+"/certificates/with-key", strings.NewReader(`{"profile":"client","subject":"CN=gone"}`))
	req.TLS = &tls.ConnectionState{HandshakeComplete: true}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+r.tokens["operator"])
	r.handler.ServeHTTP(httptest.NewRecorder(), req)
	if n, err := r.store.CountCertificates(t.Context(), store.CertificateFilter{Text: "gone", Status: []pki.Status{pki.Good}}, 1); err != nil || n != 0 {
		t.Errorf("%d certificates, %v, want none", n, err)
	}
}
