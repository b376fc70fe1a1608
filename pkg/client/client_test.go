package client_test

import (
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/client"
)

// What the server answers rightly is tested with the real one, end to end; here it misbehaves in ways the real one does
// not on demand.
func serve(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c, err := client.New(client.Config{URL: s.URL, Token: "cwt_x", Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]client.Config{
		"no address":            {},
		"no scheme":             {URL: "pki.example.com"},
		"token over http":       {URL: "http://pki.example.com", Token: "cwt_x"},
		"token with a newline":  {URL: "https://pki.example.com", Token: "cwt_x\n"},
		"token with two fields": {URL: "https://pki.example.com", Token: "cwt_x y"},
	} {
		if _, err := client.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestReadsAreTriedAgainWritesAreNot(t *testing.T) {
	calls := map[string]int{}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls[r.Method]++
		if calls[r.Method] < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte(`{}`))
	})
	if _, err := c.Server(t.Context()); err != nil || calls["GET"] != 3 {
		t.Errorf("a read: %v after %d calls, want success after 3", err, calls["GET"])
	}
	if _, err := c.Hold(t.Context(), "x"); err == nil || calls["POST"] != 1 {
		t.Errorf("a write: %v after %d calls, want an error after 1", err, calls["POST"])
	}
}

// TestIssuingIsTriedAgain has tries fail in each way that may be tried again: they all carry one key and one body.
func TestIssuingIsTriedAgain(t *testing.T) {
	type try struct{ key, body string }
	var tries []try
	failures := []func(http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		},
	}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		tries = append(tries, try{r.Header.Get("Idempotency-Key"), string(body)})
		if len(tries) <= len(failures) {
			failures[len(tries)-1](w)
			return
		}
		w.Write([]byte(`{"id":"a"}`))
	})
	for name, issue := range map[string]func(key string) error{
		"Issue": func(key string) error {
			_, err := c.Issue(t.Context(), client.IssueRequest{CSR: "x", IdempotencyKey: key})
			return err
		},
		"Renew": func(key string) error {
			_, err := c.Renew(t.Context(), "x", client.RenewRequest{IdempotencyKey: key})
			return err
		},
		"RenewSelf": func(key string) error {
			_, err := c.RenewSelf(t.Context(), client.RenewRequest{IdempotencyKey: key})
			return err
		},
		"IssueWithKey": func(key string) error {
			_, err := c.IssueWithKey(t.Context(), client.IssueWithKeyRequest{IdempotencyKey: key})
			return err
		},
	} {
		tries = nil
		if err := issue(""); err != nil || len(tries) != 3 {
			t.Fatalf("%s: %v after %d tries, want success after 3", name, err, len(tries))
		}
		own := tries[0]
		if len(own.key) < 20 || tries[1] != own || tries[2] != own {
			t.Errorf("%s: the tries differ, or have no key: %q", name, tries)
		}
		if err := issue("mine"); err != nil || tries[3].key != "mine" || tries[3].body != own.body {
			t.Errorf("%s: %v; a key of the caller's was sent as %q", name, err, tries[3])
		}
	}
	// A pause that is too long is the caller's to decide.
	tries, failures = nil, []func(http.ResponseWriter){func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	}}
	_, err := c.Issue(t.Context(), client.IssueRequest{})
	if e, ok := errors.AsType[*client.Error](err); !ok || e.RetryAfter != time.Hour || len(tries) != 1 {
		t.Errorf("a long Retry-After: %v after %d tries, want it told after 1", err, len(tries))
	}
}

func TestErrors(t *testing.T) {
	answers := map[string]func(http.ResponseWriter){
		"/api/v1/certificates/problem": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
			w.WriteHeader(http.StatusNotFound)
			w.Write([]byte(`{"type":"urn:certwright:problem:not_found","title":"Not found","status":404,"detail":"there is none","hint":"look again","errors":[{"location":"body.csr","message":"expected string"}]}`))
		},
		"/api/v1/certificates/html": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadGateway)
			w.Write([]byte("<html>a proxy's words</html>"))
		},
		"/api/v1/certificates/redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://elsewhere.example/")
			w.WriteHeader(http.StatusFound)
		},
		"/api/v1/certificates/garbage": func(w http.ResponseWriter) { w.Write([]byte("not JSON")) },
	}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { answers[r.URL.Path](w) })
	_, err := c.Certificate(t.Context(), "problem")
	p, ok := errors.AsType[*client.Error](err)
	if !ok || p.Kind() != "not_found" || p.Hint != "look again" || p.Error() != "there is none; csr: expected string" {
		t.Errorf("a problem document: %v", err)
	}
	for id, want := range map[string]string{"html": "502", "redirect": "302", "garbage": "not what this client understands"} {
		if _, err := c.Certificate(t.Context(), id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error that says %q", id, err, want)
		}
	}
}

func TestCertificatesFollowsPages(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("cursor") {
		case "":
			w.Write([]byte(`{"certificates":[{"id":"a"},{"id":"b"}],"next":"2"}`))
		case "2":
			w.Write([]byte(`{"certificates":[{"id":"c"}]}`))
		}
	})
	var got string
	for cert, err := range c.Certificates(t.Context(), client.CertificateQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		got += cert.ID
	}
	if got != "abc" {
		t.Errorf("got %q, want abc", got)
	}
}
