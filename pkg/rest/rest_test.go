package rest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	openapi "github.com/certwright/certwright/api"
	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/campaign"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
	"github.com/certwright/certwright/pkg/store/sqlite"
	"github.com/certwright/certwright/pkg/watch"
)

var update = flag.Bool("update", false, "rewrite api/openapi.yaml")

// rig is the API on a real store.
type rig struct {
	t       testing.TB
	handler http.Handler
	doc     []byte
	store   store.Store
	tokens  map[string]string // text by name
	sync    func(context.Context) error
	config  Config
	idle    func() // has campaigns rest for the remainder of the test
}

// openSealer seals nothing.
type openSealer struct{}

func (openSealer) Seal(_ string, secret []byte) ([]byte, error) { return secret, nil }
func (openSealer) Open(_ string, sealed []byte) ([]byte, error) { return sealed, nil }

// noDevices stands where the SCEP front-end is, which is a neighbour of this package: no device has asked for anything.
// What it decides is tested there, and with this API in front of it in pkg/internal/e2e.
type noDevices struct {
	store   store.Store
	issuers *issuer.Set
}

func (d noDevices) Approve(ctx context.Context, _ pki.Principal, _, id string) (pki.Enrollment, error) {
	return d.store.EnrollmentByID(ctx, id)
}

func (d noDevices) Deny(ctx context.Context, _ pki.Principal, _, id, _ string) (pki.Enrollment, error) {
	return d.store.EnrollmentByID(ctx, id)
}

func (d noDevices) Certificate(id int64) *x509.Certificate {
	return d.issuers.Current().ByID(id).Current.Certificate
}

func (noDevices) Rotate(context.Context, *issuer.Issuer, pki.Principal) error {
	return nil
}

func newRig(t testing.TB) *rig {
	t.Helper()
	return newRigOn(t, newSQLite(t))
}

// onBothStores runs a test on SQLite and on Postgres: who may do what must not depend on the store.
func onBothStores(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Run("sqlite", func(t *testing.T) { test(t, newRig(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, newRigOn(t, newPostgres(t))) })
}

func newSQLite(t testing.TB) store.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "certwright.db")
	if _, _, err := sqlite.Migrate(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newPostgres(t testing.TB) store.Store {
	t.Helper()
	dsn := pgtest.Template(t, "rest", func(dsn string) error {
		_, _, err := postgres.Migrate(context.Background(), dsn)
		return err
	})
	s, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newRigOn(t testing.TB, s store.Store) *rig {
	t.Helper()
	ctx := t.Context()
	r := &rig{t: t, store: s, tokens: map[string]string{}}
	sealed := map[string]crypto.Signer{}
	now := time.Now().UTC().Truncate(time.Microsecond)
	text, admin := auth.NewToken()
	admin.Name, admin.Role, admin.CreatedAt, admin.CreatedBy = "admin", pki.RoleAdministrator, now, "test"
	r.tokens["administrator"] = text
	if err := ca.Bootstrap(ctx, s, ca.Hierarchy{
		Organization: "Example", PublicURL: "http://pki.example.com", Now: now, KEKInfo: []byte("{}"), Token: admin,
		Seal: func(k crypto.Signer) ([]byte, error) {
			spki, err := x509.MarshalPKIXPublicKey(k.Public())
			sealed[keys.KeyID(spki)] = k
			return []byte(keys.KeyID(spki)), err
		},
	}); err != nil {
		t.Fatal(err)
	}
	issuers, err := issuer.Load(ctx, issuer.Config{Store: s, Open: func(id []byte) (crypto.Signer, error) { return sealed[string(id)], nil }})
	if err != nil {
		t.Fatal(err)
	}
	guard := clock.New(nil, nil)
	authority, err := ca.New(ca.Config{Store: s, Issuers: issuers, Clock: guard, PublicURL: "http://pki.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	crls, err := crl.New(crl.Config{Store: s, Issuers: issuers, Clock: guard, Leases: s, Holder: "test"})
	if err != nil {
		t.Fatal(err)
	}
	campaigns, err := campaign.New(campaign.Config{Store: s, Issuers: issuers, Clock: guard, Leases: s, Holder: "test", LeaseTTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	var jobs sync.WaitGroup
	jobs.Go(func() { campaigns.Run(running) })
	r.idle = func() {
		stop()
		jobs.Wait()
	}
	t.Cleanup(r.idle)
	tokens, err := auth.NewTokens(s, guard.Now)
	if err != nil {
		t.Fatal(err)
	}
	w, err := watch.New(watch.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	w.Follow("issuers", func(ctx context.Context, _ store.Head) error { return issuers.Reload(ctx) })
	w.Follow("authority", authority.Follow)
	w.Follow("tokens", tokens.Follow)
	points, err := enrollment.NewPoints(enrollment.PointsConfig{Store: s, Sealer: openSealer{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := points.EnsureDefault(ctx, now); err != nil {
		t.Fatal(err)
	}
	w.Follow("points", points.Follow)
	r.sync = w.Sync
	if err := w.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	devices, err := device.New(device.Config{Store: s, Clock: guard, Revoke: func(ctx context.Context, v device.Revocation) error {
		_, err := authority.Revoke(ctx, ca.StatusRequest{Principal: v.Principal, RequestID: v.RequestID, Certificate: v.Certificate, Reason: v.Reason})
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.config = Config{
		Devices: devices,
		Store:   s, CA: authority, Issuers: issuers, CRLs: crls, Campaigns: campaigns, Tokens: tokens, Sync: w.Sync, Now: guard.Now, Clock: guard, Age: func() time.Duration { return 0 },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "certwright_test 1\n") }),
		Points:  points, Enrollments: s, Decisions: noDevices{s, issuers}, RAs: noDevices{s, issuers},
		Server: Server{Version: "test", PublicURL: "http://pki.example.com", Store: "sqlite"},
	}
	h, doc, err := New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	r.handler, r.doc = http.StripPrefix(Root, h), doc
	for _, role := range []string{"auditor", "enroller", "operator"} {
		r.newToken(role, map[string]any{"role": role})
	}
	return r
}

// limits are those in force.
func (r *rig) limits() Limits {
	r.t.Helper()
	l := r.config.Limits
	if err := l.complete(); err != nil {
		r.t.Fatal(err)
	}
	return l
}

// with returns a rig on the same store whose API has another configuration.
func (r *rig) with(change func(*Config)) *rig {
	r.t.Helper()
	c := *r
	change(&c.config)
	h, _, err := New(c.config)
	if err != nil {
		r.t.Fatal(err)
	}
	c.handler = http.StripPrefix(Root, h)
	return &c
}

func (r *rig) newToken(name string, body map[string]any) {
	r.t.Helper()
	body["name"] = name
	var out Token
	r.must("administrator", "POST", "/tokens", body, &out)
	r.tokens[name] = out.Token
}

// call sends a request as the holder of a named token; "" is nobody. It returns the status and the body.
func (r *rig) call(who, method, path string, body any) (int, []byte) {
	r.t.Helper()
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			r.t.Fatal(err)
		}
		reader = bytes.NewReader(b)
	}
	req := httptest.NewRequestWithContext(r.t.Context(), method, Root+path, reader)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if who != "" {
		req.Header.Set("Authorization", "Bearer "+r.tokens[who])
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w.Code, w.Body.Bytes()
}

func (r *rig) must(who, method, path string, body, out any) {
	r.t.Helper()
	status, answer := r.call(who, method, path, body)
	if status >= 300 {
		r.t.Fatalf("%s %s as %s: %d %s", method, path, who, status, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			r.t.Fatal(err)
		}
	}
}

func newCSR(t testing.TB, cn string) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw}))
}

func (r *rig) issue(who, cn string) Certificate {
	r.t.Helper()
	var c Certificate
	r.must(who, "POST", "/certificates", map[string]any{"csr": newCSR(r.t, cn), "profile": "client"}, &c)
	return c
}

func TestOpenAPIIsCommitted(t *testing.T) {
	r := newRig(t)
	if *update {
		if err := os.WriteFile("../../api/openapi.yaml", r.doc, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(r.doc, openapi.OpenAPI) {
		t.Error("api/openapi.yaml is not what the routes say: go test ./pkg/rest -run OpenAPI -update")
	}
	var doc struct {
		Tags  []struct{ Name, Description string }
		Paths map[string]map[string]struct{ Tags []string }
	}
	decodeYAML(t, r.doc, &doc)
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if len(op.Tags) != 1 || !slices.ContainsFunc(doc.Tags, func(tag struct{ Name, Description string }) bool {
				return tag.Name == op.Tags[0] && tag.Description != ""
			}) {
				t.Errorf("%s %s has the tags %q: openapi.go describes none such", method, path, op.Tags)
			}
		}
	}
	if !bytes.Contains(r.doc, []byte("openapi: 3.1")) {
		t.Error("the description is not OpenAPI 3.1")
	}
}

// matrix says for every route which roles are let in. It is written down independently of the table in rest.go; a route
// without a row fails.
var matrix = map[string]string{ // nobody, auditor, enroller, operator, administrator
	"GET /server":                                       "naeoA",
	"GET /metrics":                                      "aoA",
	"GET /issuers":                                      "naeoA",
	"GET /issuers/{issuer}":                             "naeoA",
	"GET /issuers/{issuer}/certificate.pem":             "naeoA",
	"GET /issuers/{issuer}/certificate.cer":             "naeoA",
	"GET /issuers/{issuer}/chain.pem":                   "naeoA",
	"GET /crls":                                         "aoA",
	"GET /roots.pem":                                    "naeoA",
	"GET /client-ca.pem":                                "naeoA",
	"GET /issuers/{issuer}/certificates/{serial}":       "aeoA",
	"POST /certificates":                                "eoA",
	"POST /certificates/with-key":                       "oA",
	"GET /certificates/export":                          "aeoA",
	"GET /certificates":                                 "aeoA",
	"GET /certificates/{id}":                            "aeoA",
	"GET /certificates/{id}/download":                   "aeoA",
	"POST /certificates/{id}/renew":                     "oA",
	"POST /certificates/{id}/revoke":                    "oA",
	"POST /certificates/{id}/hold":                      "oA",
	"POST /certificates/{id}/release":                   "oA",
	"POST /revocations/dry-run":                         "oA",
	"POST /revocations":                                 "oA",
	"GET /revocations":                                  "aoA",
	"GET /revocations/{id}":                             "aoA",
	"POST /revocations/{id}/pause":                      "oA",
	"POST /revocations/{id}/resume":                     "oA",
	"POST /revocations/{id}/cancel":                     "oA",
	"GET /blocked-keys":                                 "aoA",
	"POST /blocked-keys/dry-run":                        "oA",
	"POST /blocked-keys":                                "oA",
	"DELETE /blocked-keys/{spki_sha256}":                "A",
	"GET /profiles":                                     "aeoA",
	"GET /profiles/{profile}":                           "aeoA",
	"GET /profiles/{profile}/history":                   "aoA",
	"GET /profiles/{profile}/versions/{version}":        "aoA",
	"POST /profiles":                                    "A",
	"PUT /profiles/{profile}":                           "A",
	"POST /profiles/check":                              "aoA",
	"POST /profiles/{profile}/dry-run":                  "eoA",
	"GET /tokens":                                       "A",
	"POST /tokens":                                      "A",
	"DELETE /tokens/{id}":                               "A",
	"GET /whoami":                                       "aeoA",
	"GET /audit":                                        "aoA",
	"GET /audit/follow":                                 "aoA",
	"GET /audit/verify":                                 "aoA",
	"GET /self":                                         "",
	"POST /self/renew":                                  "",
	"POST /self/revoke":                                 "",
	"GET /issuers/{issuer}/settings":                    "aoA",
	"PUT /issuers/{issuer}/settings":                    "A",
	"POST /issuers/{issuer}/settings/check":             "aoA",
	"GET /issuers/{issuer}/settings/history":            "aoA",
	"GET /issuers/{issuer}/settings/versions/{version}": "aoA",
	"GET /scep/points":                                  "aoA",
	"GET /scep/points/{point}":                          "aoA",
	"GET /scep/points/{point}/history":                  "aoA",
	"GET /scep/points/{point}/versions/{version}":       "aoA",
	"POST /scep/points/check":                           "aoA",
	"PUT /scep/points/{point}":                          "A",
	"POST /scep/points/{point}/webhook-secret":          "A",
	"POST /issuers/{issuer}/ra/rotate":                  "A",
	"GET /challenges":                                   "aoA",
	"POST /challenges":                                  "oA",
	"POST /challenges/bulk":                             "oA",
	"POST /challenges/revoke":                           "oA",
	"DELETE /challenges/{id}":                           "oA",
	"GET /enrollments":                                  "aoA",
	"GET /enrollments/{id}":                             "aoA",
	"POST /enrollments/decide":                          "oA",
	"POST /enrollments/{id}/approve":                    "oA",
	"POST /enrollments/{id}/deny":                       "oA",
	"GET /devices":                                      "aoA",
	"POST /devices":                                     "oA",
	"GET /devices/{id}":                                 "aoA",
	"PUT /devices/{id}":                                 "oA",
	"POST /devices/{id}/block":                          "oA",
	"POST /devices/{id}/unblock":                        "oA",
	"POST /devices/{id}/retire":                         "oA",
	"GET /fleet":                                        "aoA",
	"GET /fleet/export":                                 "aoA",
	"POST /fleet/import":                                "oA",
}

func TestRolesByRoutes(t *testing.T) { onBothStores(t, rolesByRoutes) }

func rolesByRoutes(t *testing.T, r *rig) {
	var doc struct {
		Paths map[string]map[string]any
	}
	decodeYAML(t, r.doc, &doc)
	fill := strings.NewReplacer("{issuer}", "issuing", "{serial}", "01", "{id}", strings.Repeat("ab", 32), "{spki_sha256}", strings.Repeat("cd", 32), "{profile}", "server", "{point}", "default", "{version}", "1",
		"/audit/follow", "/audit/follow?after=1000000000") // else its answer has no end
	seen := 0
	for path, methods := range doc.Paths {
		for method := range methods {
			route := strings.ToUpper(method) + " " + path
			allowed, ok := matrix[route]
			if !ok {
				t.Errorf("%s has no row in the matrix", route)
				continue
			}
			seen++
			for letter, who := range map[string]string{"n": "", "a": "auditor", "e": "enroller", "o": "operator", "A": "administrator"} {
				var body any
				if method == "post" {
					body = map[string]any{}
				}
				status, answer := r.call(who, strings.ToUpper(method), fill.Replace(path), body)
				refused := status == http.StatusUnauthorized || status == http.StatusForbidden
				if want := !strings.Contains(allowed, letter); refused != want {
					t.Errorf("%s as %q: %d %s, want refused = %v", route, who, status, answer, want)
				}
				if who == "" && refused && status != http.StatusUnauthorized {
					t.Errorf("%s as nobody: %d, want 401", route, status)
				}
				if status >= 500 {
					t.Errorf("%s as %q: %d %s", route, who, status, answer)
				}
			}
		}
	}
	if seen != len(matrix) {
		t.Errorf("%d routes, the matrix has %d rows", seen, len(matrix))
	}
}

func TestEnrollerSeesWhatItIssued(t *testing.T) { onBothStores(t, enrollerSeesWhatItIssued) }

func enrollerSeesWhatItIssued(t *testing.T, r *rig) {
	mine, others := r.issue("enroller", "mine"), r.issue("operator", "other")
	var list struct{ Certificates []Certificate }
	r.must("enroller", "GET", "/certificates", nil, &list)
	if len(list.Certificates) != 1 || list.Certificates[0].ID != mine.ID {
		t.Errorf("the enroller lists %d certificates, want its own", len(list.Certificates))
	}
	for _, path := range []string{"/certificates/" + others.ID, "/certificates/" + others.ID + "/download", "/issuers/issuing/certificates/" + others.Serial} {
		if status, _ := r.call("enroller", "GET", path, nil); status != http.StatusNotFound {
			t.Errorf("GET %s as the enroller: %d, want 404", path, status)
		}
		if status, _ := r.call("auditor", "GET", path, nil); status != http.StatusOK {
			t.Errorf("GET %s as the auditor: %d, want 200", path, status)
		}
	}
	r.must("enroller", "GET", "/certificates?requester=token:operator", nil, &list)
	if len(list.Certificates) != 0 {
		t.Error("naming another requester shows an enroller what is not its own")
	}
}

func TestTokenLimitsHoldEverywhere(t *testing.T) { onBothStores(t, tokenLimitsHoldEverywhere) }

func tokenLimitsHoldEverywhere(t *testing.T, r *rig) {
	c := r.issue("operator", "someone")
	r.newToken("servers", map[string]any{"role": "operator", "profiles": []string{"server"}})
	r.newToken("root-only", map[string]any{"role": "operator", "issuers": []string{"root"}})
	for _, who := range []string{"servers", "root-only"} {
		status, answer := r.call(who, "POST", "/certificates", map[string]any{"csr": newCSR(t, "x"), "profile": "client"})
		if status != http.StatusForbidden {
			t.Errorf("issuing as %s: %d %s, want 403", who, status, answer)
		}
		for _, act := range []string{"/revoke", "/hold", "/renew"} {
			if status, _ := r.call(who, "POST", "/certificates/"+c.ID+act, map[string]any{}); status != http.StatusNotFound {
				t.Errorf("%s as %s: %d, want 404", act, who, status)
			}
		}
		var list struct{ Certificates []Certificate }
		r.must(who, "GET", "/certificates?profile=client", nil, &list)
		if len(list.Certificates) != 0 && who == "servers" {
			t.Errorf("%s lists %d client certificates", who, len(list.Certificates))
		}
	}
}

func TestStatusFilters(t *testing.T) {
	r := newRig(t)
	valid, revoked, held := r.issue("operator", "valid"), r.issue("operator", "revoked"), r.issue("operator", "held")
	r.must("operator", "POST", "/certificates/"+revoked.ID+"/revoke", map[string]any{"reason": "superseded"}, nil)
	r.must("operator", "POST", "/certificates/"+held.ID+"/hold", nil, nil)
	for query, want := range map[string][]string{
		"status=valid":                            {valid.ID},
		"status=revoked":                          {revoked.ID},
		"status=hold":                             {held.ID},
		"status=revoked,hold":                     {held.ID, revoked.ID},
		"status=valid,revoked":                    {revoked.ID, valid.ID},
		"status=expired,hold":                     {held.ID},
		"status=valid,expired,hold":               {held.ID, valid.ID},
		"fingerprint=" + held.ID:                  {held.ID},
		"fingerprint=" + strings.Repeat("ab", 32): nil,
		"status=revoked&fingerprint=" + held.ID:   nil,
		"status=expired":                          nil,
		"text=VALID":                              {valid.ID},
		"serial=" + held.Serial:                   {held.ID},
		"spki_sha256=" + revoked.SPKISHA256:       {revoked.ID},
	} {
		var list struct {
			Certificates []Certificate
			Count        int
		}
		r.must("operator", "GET", "/certificates?count=true&profile=client&"+query, nil, &list)
		var got []string
		for _, c := range list.Certificates {
			got = append(got, c.ID)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") || list.Count != len(want) {
			t.Errorf("%s: got %v, count %d; want %v", query, got, list.Count, want)
		}
	}
	// The clock goes on: what was valid has ended, what was revoked stays so.
	later := r.with(func(c *Config) {
		now := c.Now
		c.Now = func() time.Time { return now().AddDate(10, 0, 0) }
	})
	for query, want := range map[string]int{"status=expired": 1, "status=expired,revoked": 2, "status=valid,revoked": 1, "status=valid,hold": 1, "status=valid": 0} {
		var list struct{ Certificates []Certificate }
		later.must("administrator", "GET", "/certificates?profile=client&"+query, nil, &list)
		if len(list.Certificates) != want {
			t.Errorf("%s after ten years: %d certificates, want %d", query, len(list.Certificates), want)
		}
	}
	for _, query := range []string{"fingerprint=ab", "fingerprint=x", "spki_sha256=1", "serial=x"} {
		if status, answer := r.call("operator", "GET", "/certificates?"+query, nil); status != http.StatusBadRequest || !bytes.Contains(answer, []byte(`"field"`)) {
			t.Errorf("%s: %d %s, want 400 and the field", query, status, answer)
		}
	}
}

func TestAnswersNeverRepeatSecrets(t *testing.T) {
	r := newRig(t)
	const secret = "hunter2-hunter2"
	for _, body := range []any{
		map[string]any{"csr": secret, "profile": secret},
		map[string]any{"csr": 1, "profile": []string{secret}},
		map[string]any{"csr": "x", "profile": "server", secret: secret},
		map[string]any{"csr": "x", "profile": "server", "validity": secret + strings.Repeat("x", 100)},
	} {
		status, answer := r.call("operator", "POST", "/certificates", body)
		if status < 400 || status >= 500 {
			t.Errorf("%v: %d", body, status)
		}
		if bytes.Contains(answer, []byte(secret)) && !strings.Contains(string(answer), "unexpected property") {
			t.Errorf("%v: the answer repeats the value: %s", body, answer)
		}
		var d problem.Document
		if json.Unmarshal(answer, &d) != nil || d.Status != status || !strings.HasPrefix(d.Type, "urn:certwright:problem:") {
			t.Errorf("%v: not a problem document: %s", body, answer)
		}
	}
}

func TestTokens(t *testing.T) {
	r := newRig(t)
	r.newToken("short", map[string]any{"role": "auditor", "validity": "1h"})
	r.must("short", "GET", "/whoami", nil, nil)
	if status, _ := r.call("administrator", "POST", "/tokens", map[string]any{"name": "short", "role": "auditor"}); status != http.StatusConflict {
		t.Errorf("a second token of one name: %d, want 409", status)
	}
	r.must("administrator", "DELETE", "/tokens/short", nil, nil)
	if status, answer := r.call("short", "GET", "/whoami", nil); status != http.StatusUnauthorized || !bytes.Contains(answer, []byte("revoked")) {
		t.Errorf("a revoked token: %d %s, want 401 at once", status, answer)
	}
	if status, _ := r.call("administrator", "DELETE", "/tokens/admin", nil); status != http.StatusConflict {
		t.Errorf("revoking the last administrator: %d, want 409", status)
	}
	_, answer := r.call("administrator", "GET", "/tokens", nil)
	for name, text := range r.tokens {
		if bytes.Contains(answer, []byte(text[len(text)-43:])) {
			t.Errorf("the list of tokens shows the secret of %s", name)
		}
	}
	for _, bad := range []map[string]any{
		{"name": "x y", "role": "auditor"},
		{"name": "x", "role": "god"},
		{"name": "x", "role": "auditor", "validity": "soon"},
		{"name": "x", "role": "auditor", "profiles": []string{"nope"}},
		{"name": "x", "role": "auditor", "issuers": []string{"nope"}},
	} {
		if status, answer := r.call("administrator", "POST", "/tokens", bad); status < 400 || status >= 500 {
			t.Errorf("%v: %d %s", bad, status, answer)
		}
	}
}

func TestAuditTellsWhoDidWhat(t *testing.T) {
	r := newRig(t)
	c := r.issue("enroller", "someone")
	r.must("operator", "POST", "/certificates/"+c.ID+"/revoke", map[string]any{"reason": "keyCompromise"}, nil)
	var out struct{ Events []Event }
	r.must("auditor", "GET", "/audit?target=certificate/"+c.ID, nil, &out)
	if len(out.Events) != 2 || out.Events[0].Action != "certificate.revoke" || out.Events[0].Actor != "token:operator" || out.Events[0].Detail["reason"] != "keyCompromise" || out.Events[1].Actor != "token:enroller" {
		t.Errorf("events: %+v", out.Events)
	}
	var v Verification
	r.must("auditor", "GET", "/audit/verify", nil, &v)
	if !v.Whole || v.Records < 5 {
		t.Errorf("verification: %+v", v)
	}
	known := fmt.Sprintf("%d:%s", v.Changes, v.Head)
	r.issue("enroller", "another")
	for query, want := range map[string]string{
		known: "", known + "," + known: "",
		fmt.Sprintf("%d:%s", v.Changes, strings.Repeat("ab", 32)): "is not that of the checkpoint",
		fmt.Sprintf("%d:%s", v.Changes-1, v.Head):                 "not that of the checkpoint",
		fmt.Sprintf("%d:%s", v.Changes+100, v.Head):               "cut off",
	} {
		var v Verification
		r.must("auditor", "GET", "/audit/verify?checkpoint="+query, nil, &v)
		if v.Whole != (want == "") || !strings.Contains(v.Problem, strings.TrimPrefix(want, "is ")) {
			t.Errorf("checkpoint %s: %+v, want a problem with %q", query, v, want)
		}
	}
	for _, query := range []string{"x", "1", "1:ab", "0:" + v.Head, "-1:" + v.Head} {
		if status, answer := r.call("auditor", "GET", "/audit/verify?checkpoint="+query, nil); status != http.StatusBadRequest {
			t.Errorf("checkpoint %s: %d %s, want 400", query, status, answer)
		}
	}
}
