package rest

import (
	"bytes"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// TestNameRulesHoldEverywhere goes every way to a certificate.
func TestNameRulesHoldEverywhere(t *testing.T) { onBothStores(t, nameRulesHoldEverywhere) }

func nameRulesHoldEverywhere(t *testing.T, r *rig) {
	r.newToken("dev", map[string]any{"role": "administrator", "names": []string{"DNS:*.dev.example.com", "CN:sensor-*", "URI:urn:certwright:client:sensor-*"}})
	server := func(san string) map[string]any {
		return map[string]any{"csr": newCSR(t, ""), "profile": "server", "sans": []string{san}}
	}
	var mine Certificate
	r.must("dev", "POST", "/certificates", server("DNS:a.dev.example.com"), &mine)
	r.must("dev", "POST", "/certificates/"+mine.ID+"/renew", map[string]any{}, nil)
	r.must("dev", "POST", "/certificates", map[string]any{"csr": newCSR(t, "sensor-1"), "profile": "client"}, nil)
	var theirs Certificate
	r.must("operator", "POST", "/certificates", server("DNS:www.example.com"), &theirs)
	for name, c := range map[string]struct {
		path string
		body map[string]any
	}{
		"issue":                {"/certificates", server("DNS:www.example.com")},
		"issue by the CSR":     {"/certificates", map[string]any{"csr": newCSR(t, "ada"), "profile": "client"}},
		"with another subject": {"/certificates", map[string]any{"csr": newCSR(t, ""), "profile": "client", "subject": "CN=sensor-1,O=Admins"}},
		"renew":                {"/certificates/" + theirs.ID + "/renew", map[string]any{}},
		"dry run":              {"/profiles/server/dry-run", map[string]any{"csr": newCSR(t, ""), "sans": []string{"DNS:www.example.com"}}},
		"a CA":                 {"/certificates", map[string]any{"csr": newCSR(t, "sensor-ca"), "profile": "sub-ca", "issuer": "root"}},
		"a wider token":        {"/tokens", map[string]any{"name": "x", "role": "enroller"}},
		"a token of other names": {"/tokens", map[string]any{
			"name": "x", "role": "enroller", "names": []string{"DNS:*.example.com"},
		}},
	} {
		if status, answer := r.call("dev", "POST", c.path, c.body); status != http.StatusForbidden {
			t.Errorf("%s: %d %s, want 403", name, status, answer)
		}
	}
	if w := r.withTLS("dev", "/certificates/with-key", `{"profile":"server","sans":["DNS:www.example.com"]}`, "k"); w.Code != http.StatusForbidden {
		t.Errorf("with a key: %d %s, want 403", w.Code, w.Body)
	}
	r.tokens["narrower"] = ""
	var narrower Token
	r.must("dev", "POST", "/tokens", map[string]any{"name": "narrower", "role": "enroller", "names": []string{"DNS:*.x.dev.example.com"}}, &narrower)
	if status, answer := r.call("dev", "DELETE", "/tokens/operator", nil); status != http.StatusForbidden {
		t.Errorf("revoking a token without rules: %d %s, want 403", status, answer)
	}
	r.must("dev", "DELETE", "/tokens/narrower", nil, nil)
	var who WhoAmI
	r.must("dev", "GET", "/whoami", nil, &who)
	if len(who.Names) != 3 || len(narrower.Names) != 1 {
		t.Errorf("whoami: %+v; the narrower token: %+v", who, narrower)
	}
	for _, bad := range []any{[]string{"example.com"}, []string{"IP:10.*"}, []string{""}, "DNS:*"} {
		if status, answer := r.call("administrator", "POST", "/tokens", map[string]any{"name": "bad", "role": "enroller", "names": bad}); status != http.StatusBadRequest && status != http.StatusUnprocessableEntity || !bytes.Contains(answer, []byte("names")) {
			t.Errorf("rules %v: %d %s, want 400 or 422 that names the field", bad, status, answer)
		}
	}
	// One that nothing limits remains, whoever else is an administrator.
	if status, answer := r.call("administrator", "DELETE", "/tokens/admin", nil); status != http.StatusConflict {
		t.Errorf("revoking the last administrator without limits: %d %s, want 409", status, answer)
	}
}

func TestRateOfToken(t *testing.T) {
	clock := &fakeClock{time.Now()}
	r := newRig(t)
	r.newToken("slow", map[string]any{"role": "auditor", "rate": 30})
	r = r.with(func(c *Config) { c.Now = clock.now })
	for i := range 30 {
		if status, answer := r.call("slow", "GET", "/whoami", nil); status != http.StatusOK {
			t.Fatalf("request %d: %d %s", i, status, answer)
		}
	}
	w := r.send("slow", "GET", "/whoami", "")
	if after, _ := strconv.Atoi(w.Header().Get("Retry-After")); w.Code != http.StatusTooManyRequests || after < 1 || after > 2 {
		t.Errorf("request 31: %d, Retry-After %q, want 429 and 2", w.Code, w.Header().Get("Retry-After"))
	}
	r.must("operator", "GET", "/whoami", nil, nil)
	clock.t = clock.t.Add(2 * time.Second)
	r.must("slow", "GET", "/whoami", nil, nil)
	if w := r.send("slow", "GET", "/whoami", ""); w.Code != http.StatusTooManyRequests {
		t.Errorf("after two seconds two requests were let in")
	}
	if status, _ := r.call("administrator", "POST", "/tokens", map[string]any{"name": "bad", "role": "auditor", "rate": -1}); status != http.StatusUnprocessableEntity {
		t.Errorf("a negative rate: %d, want 422", status)
	}
}
