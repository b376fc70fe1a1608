package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.yaml.in/yaml/v3"

	"github.com/certwright/certwright/pkg/config"
)

// running is a server that serves until the test ends.
type running struct {
	*Server
	t     *testing.T
	https *http.Client
	token string
}

func runServer(t *testing.T, edit func(*config.Config)) *running {
	t.Helper()
	cfg := config.Config{
		Data: filepath.Join(t.TempDir(), "data"), HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", MTLS: config.Off, Metrics: "127.0.0.1:0",
	}
	if edit != nil {
		edit(&cfg)
	}
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), cfg, Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	token, err := os.ReadFile(s.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Root.Current.Certificate)
	r := &running{Server: s, t: t, token: strings.TrimSpace(string(token)), https: &http.Client{
		Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}}
	t.Cleanup(r.https.CloseIdleConnections)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if status, _, _ := r.ask("GET", s.HTTPSURL+"/readyz", "", nil); status == http.StatusOK {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not get ready")
		}
	}
}

// ask sends a request, with a token unless it is empty, and a body in JSON unless it is nil.
func (r *running) ask(method, address, token string, body any) (int, http.Header, []byte) {
	r.t.Helper()
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			r.t.Fatal(err)
		}
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, address, reader)
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := r.https.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, res.Header, answer
}

// api calls the REST API as the first administrator.
func (r *running) api(method, path string, body any) (int, []byte) {
	r.t.Helper()
	status, _, answer := r.ask(method, r.HTTPSURL+"/api/v1"+path, r.token, body)
	return status, answer
}

// issue returns the id of a new certificate.
func (r *running) issue() string {
	r.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	raw, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "someone"}}, k)
	if err != nil {
		r.t.Fatal(err)
	}
	csr := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw}))
	status, answer := r.api("POST", "/certificates", map[string]any{"csr": csr, "profile": "client"})
	var c struct{ ID string }
	if err := json.Unmarshal(answer, &c); err != nil || status != http.StatusCreated {
		r.t.Fatalf("issuing: %d %s", status, answer)
	}
	return c.ID
}

func TestMetrics(t *testing.T) {
	s := runServer(t, nil)
	id := s.issue()
	s.api("POST", "/certificates", map[string]any{"csr": "nothing", "profile": "client"})
	s.api("POST", "/certificates", map[string]any{"csr": "nothing", "profile": "xyzzy"})
	s.api("POST", "/certificates/"+id+"/revoke", map[string]any{"reason": "superseded"})
	s.api("POST", "/certificates/"+id+"/release", nil)
	s.ask("GET", s.HTTPURL+"/xyzzy/1", "", nil)
	s.ask("BREW", s.HTTPURL+"/crl/xyzzy.crl", "", nil)
	s.ask("GET", s.HTTPURL+"/ocsp/MAAA", "", nil)

	status, header, scrape := s.ask("GET", s.MetricsURL, "", nil)
	if status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
		t.Fatalf("scraping: %d %v", status, header)
	}
	problems, err := promlint.New(bytes.NewReader(scrape)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "certwright_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	issuing, err := s.issuers.Current().Issuer("issuing")
	if err != nil {
		t.Fatal(err)
	}
	key := issuing.Current.KeyID
	for _, want := range []string{
		`certwright_build_info{goversion="go[^"]*",store="sqlite",version="test"} 1`,
		`certwright_certificates_issued_total{profile="client",protocol="rest"} 1`,
		`certwright_certificates_issued_total{profile="https",protocol="internal"} 1`,
		`certwright_issuance_refused_total{kind="bad_csr",profile="client"} 1`,
		`certwright_issuance_refused_total{kind="[a-z_]+",profile=""} 1`,
		`certwright_status_changes_total{action="revoke"} 1`,
		`certwright_status_changes_refused_total{action="release",kind="[a-z_]+"} 1`,
		`certwright_http_requests_total{listener="https",method="POST",route="/api/v1/certificates",status="201"} 1`,
		`certwright_http_requests_total{listener="https",method="POST",route="/api/v1/certificates/{id}/revoke",status="200"} 1`,
		`certwright_http_requests_total{listener="http",method="GET",route="none",status="404"} 1`,
		`certwright_http_requests_total{listener="http",method="other",route="[^"]+",status="405"} 1`,
		`certwright_http_requests_total{listener="http",method="GET",route="/ocsp/\*",status="200"} 1`,
		`certwright_http_connections{listener="https"} [1-9]`,
		`certwright_store_verb_duration_seconds_count{verb="RecordIssuance"} [1-9]`,
		`certwright_store_batch_size_count [1-9]`,
		`certwright_store_batch_size_bucket{le="1"} [1-9]`,
		`certwright_crl_number{issuer="issuing",key="` + key + `",scope="full"} [1-9]`,
		`certwright_crl_next_update_timestamp_seconds{issuer="root",.*} [1-9]`,
		`certwright_crl_builds_total{result="published"} [1-9]`,
		`certwright_crl_leader 1`,
		`certwright_ocsp_responses_total{status="malformedRequest"} 1`,
		`certwright_own_certificate_not_after_timestamp_seconds{issuer="issuing",key="` + key + `",use="ocsp"} [1-9]`,
		`certwright_own_certificate_not_after_timestamp_seconds{issuer="",key="",use="https"} [1-9]`,
		`certwright_health_status{check="crl",status="ok"} 1`,
		`certwright_health_status{check="crl",status="failing"} 0`,
		`certwright_clock_trusted 1`,
		`certwright_audit_last_sequence [1-9]`,
		`go_goroutines [1-9]`,
	} {
		if !regexp.MustCompile(`(?m)^` + want).Match(scrape) {
			t.Errorf("no sample like %s", want)
		}
	}
	if bytes.Contains(scrape, []byte("xyzzy")) {
		t.Error("what a client sent has become a label")
	}
	if t.Failed() {
		t.Logf("%s", regexp.MustCompile(`(?m)^(#|.*_bucket|go_).*\n`).ReplaceAll(scrape, nil))
	}

	// Over HTTPS it takes a token, at both addresses; nobody has it from the plain listener.
	for path, who := range map[string][2]int{"/metrics": {401, 200}, "/api/v1/metrics": {401, 200}} {
		for i, token := range []string{"", s.token} {
			status, _, answer := s.ask("GET", s.HTTPSURL+path, token, nil)
			if status != who[i] || status == 200 && !bytes.Contains(answer, []byte("certwright_build_info")) {
				t.Errorf("%s with token %v: %d", path, token != "", status)
			}
		}
	}
	for _, address := range []string{s.HTTPURL + "/metrics", strings.TrimSuffix(s.MetricsURL, "/metrics") + "/api/v1/server"} {
		if status, _, _ := s.ask("GET", address, s.token, nil); status != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", address, status)
		}
	}
	testMetricsDocs(t, s)
}

// described matches what a description of client_golang shows; it has no other way to ask for it.
var described = regexp.MustCompile(`fqName: "([^"]*)", help: "(.*)", unit: "[^"]*", constLabels: \{.*\}, variableLabels: \{([^}]*)\}`)

// testMetricsDocs compares docs/metrics.md with what is registered, both ways, and the sample rules with both.
func testMetricsDocs(t *testing.T, s *running) {
	registered := map[string][]string{} // labels by name
	descs := make(chan *prometheus.Desc)
	go func() {
		s.metrics.registry.Describe(descs)
		close(descs)
	}()
	for d := range descs {
		m := described.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("cannot read %s", d)
		}
		if strings.HasPrefix(m[1], "certwright_") {
			labels := strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' || r == ' ' })
			slices.Sort(labels)
			registered[m[1]] = labels
		}
	}
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(certwright_[a-z_]+)` \\|([^|]*)\\|")
	inDocs := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		labels := regexp.MustCompile("[a-z_]+").FindAllString(m[2], -1)
		slices.Sort(labels)
		inDocs[m[1]] = true
		if have, ok := registered[m[1]]; !ok {
			t.Errorf("docs/metrics.md has %s, which there is not", m[1])
		} else if !slices.Equal(labels, have) {
			t.Errorf("docs/metrics.md gives %s the labels %v, it has %v", m[1], labels, have)
		}
	}
	for name := range registered {
		if !inDocs[name] {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
	}

	const rules = "../../docs/certwright.rules.yml"
	text, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr string
				For         string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			count++
			if r.Alert == "" || r.Expr == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" {
				t.Errorf("%s: incomplete: %+v", rules, r)
			}
			for _, name := range regexp.MustCompile(`certwright_[a-z_]+`).FindAllString(r.Expr, -1) {
				name = regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
				if _, ok := registered[name]; !ok {
					t.Errorf("%s: %s speaks of %s, which there is not", rules, r.Alert, name)
				}
			}
		}
	}
	if count < 5 {
		t.Errorf("%s has %d rules", rules, count)
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		if out, err := exec.Command(promtool, "check", "rules", rules).CombinedOutput(); err != nil {
			t.Errorf("promtool check rules: %v\n%s", err, out)
		}
	}
}

// TestHealth: what is wrong with one replica alone is failing; what is wrong with all is degraded, or a proxy would take
// every replica out.
func TestHealth(t *testing.T) {
	h := health{Status: healthOK, Checks: map[string]string{}, states: map[string]string{}}
	var got []string
	for _, step := range [][2]string{{"crl", healthDegraded}, {"store", healthFailing}, {"store", healthDegraded}, {"keys", healthDegraded}} {
		h.note(step[0], step[1], "%s", step[1])
		got = append(got, h.Status)
	}
	if want := []string{healthDegraded, healthFailing, healthFailing, healthFailing}; !slices.Equal(got, want) {
		t.Errorf("Status = %v, want %v", got, want)
	}
	if want := (map[string]string{"crl": healthDegraded, "store": healthFailing, "keys": healthDegraded}); fmt.Sprint(h.Checks) != fmt.Sprint(want) {
		t.Errorf("Checks = %v, want %v", h.Checks, want)
	}
}
