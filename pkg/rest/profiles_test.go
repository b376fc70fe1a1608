package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/profile"
)

// send is call with headers; it returns the whole answer.
func (r *rig) send(who, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequestWithContext(r.t.Context(), method, Root+path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+r.tokens[who])
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) (out T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return out
}

func TestProfilesAreVersioned(t *testing.T) {
	r := newRig(t)
	steps := []struct {
		name, method, path, body, header, value string
		status                                  int
		etag, field                             string
	}{
		{"create", "POST", "/profiles", `{"name":"web","kind":"server"}`, "", "", 201, `"1"`, ""},
		{"create again", "POST", "/profiles", `{"name":"web","kind":"server"}`, "", "", 409, "", "name"},
		{"read", "GET", "/profiles/web", "", "", "", 200, `"1"`, ""},
		{"change without precondition", "PUT", "/profiles/web", `{"kind":"server","validity":{"max":"30d"}}`, "", "", 428, "", "If-Match"},
		{"change", "PUT", "/profiles/web", `{"kind":"server","validity":{"max":"30d"}}`, "If-Match", `"1"`, 200, `"2"`, ""},
		{"change of what is gone", "PUT", "/profiles/web", `{"kind":"server"}`, "If-Match", `"1"`, 412, "", ""},
		{"change of what is to come", "PUT", "/profiles/web", `{"kind":"server"}`, "If-Match", `"3"`, 412, "", ""},
		{"nothing to change", "PUT", "/profiles/web", `{"kind":"server","validity":{"max":"30d"}}`, "If-Match", `"2"`, 200, `"2"`, ""},
		{"nothing to change, spelled otherwise", "PUT", "/profiles/web", `{"validity":{"max":"720h"},"name":"web","kind":"server"}`, "If-Match", `"2"`, 200, `"2"`, ""},
		{"only if absent", "PUT", "/profiles/web", `{"kind":"server"}`, "If-None-Match", "*", 412, "", "name"},
		{"whatever is there", "PUT", "/profiles/web", `{"kind":"server","disabled":true}`, "If-Match", "*", 200, `"3"`, ""},
		{"a condition that is none", "PUT", "/profiles/web", `{"kind":"server"}`, "If-Match", "3", 400, "", "If-Match"},
		{"a weak condition", "PUT", "/profiles/web", `{"kind":"server"}`, "If-Match", `W/"3"`, 400, "", "If-Match"},
		{"another name", "PUT", "/profiles/web", `{"name":"www","kind":"server"}`, "If-Match", `"3"`, 400, "", "name"},
		{"a mistake", "PUT", "/profiles/web", `{"kind":"server","validity":{"default":"2d","max":"1d"}}`, "If-Match", `"3"`, 400, "", "validity.default"},
		{"an unknown field", "PUT", "/profiles/web", `{"kind":"server","validity":{"maximum":"1d"}}`, "If-Match", `"3"`, 400, "", "validity.maximum"},
		{"a field twice", "PUT", "/profiles/web", `{"kind":"server","kind":"client"}`, "If-Match", `"3"`, 400, "", "kind"},
		{"no JSON", "PUT", "/profiles/web", `kind: server`, "If-Match", `"3"`, 422, "", ""},
		{"create by PUT", "PUT", "/profiles/mail", `{"kind":"email"}`, "", "", 201, `"1"`, ""},
		{"create by PUT only if absent", "PUT", "/profiles/code", `{"kind":"other","extKeyUsage":["codeSigning"]}`, "If-None-Match", "*", 201, `"1"`, ""},
		{"change of nothing", "PUT", "/profiles/none", `{"kind":"server"}`, "If-Match", `"1"`, 404, "", "profile"},
		{"a built-in profile", "PUT", "/profiles/server", `{"kind":"server","validity":{"max":"30d"}}`, "If-Match", `"1"`, 200, `"2"`, ""},
		{"beyond a built-in profile", "PUT", "/profiles/server", `{"kind":"client"}`, "If-Match", `"2"`, 422, "", "kind"},
		{"an internal profile", "PUT", "/profiles/ocsp", `{"kind":"ocsp","internal":true,"ocspNoCheck":true}`, "", "", 422, "", "kind"},
		{"a CA", "POST", "/profiles", `{"name":"evil","kind":"other","extKeyUsage":["codeSigning"],"ca":{}}`, "", "", 422, "", "ca"},
		{"keyCertSign", "POST", "/profiles", `{"name":"evil","kind":"server","keyUsage":["keyCertSign"]}`, "", "", 422, "", "keyUsage"},
		{"no deleting", "DELETE", "/profiles/web", "", "", "", 405, "", ""},
	}
	for _, s := range steps {
		w := r.send("administrator", s.method, s.path, s.body, s.header, s.value)
		if w.Code != s.status || w.Header().Get("ETag") != s.etag {
			t.Errorf("%s: %d, ETag %s: %s; want %d, %s", s.name, w.Code, w.Header().Get("ETag"), w.Body, s.status, s.etag)
		}
		if w.Code >= 300 {
			if d := decode[problem.Document](t, w); d.Status != s.status || d.Field != s.field || d.Detail == "" {
				t.Errorf("%s: %+v; want the field %q", s.name, d, s.field)
			}
		}
	}

	var p Profile
	r.must("enroller", "GET", "/profiles/web", nil, &p)
	if p.Version != 3 || !p.Disabled || p.ChangedBy != "token:admin" {
		t.Errorf("%+v", p)
	}
	var history struct{ Versions []ProfileVersion }
	r.must("auditor", "GET", "/profiles/web/history", nil, &history)
	if len(history.Versions) != 3 || !slices.Equal(history.Versions[1].Fields, []string{"validity.max"}) || !slices.Equal(history.Versions[0].Fields, []string{"disabled", "validity.max"}) || len(history.Versions[2].Fields) != 0 {
		t.Errorf("history %+v", history)
	}
	p = Profile{}
	r.must("auditor", "GET", "/profiles/web/versions/2", nil, &p)
	if p.Version != 2 || p.Disabled || !bytes.Contains(p.Config, []byte(`"30d"`)) {
		t.Errorf("version 2: %+v", p)
	}
	for _, path := range []string{"/profiles/web/versions/4", "/profiles/none/versions/1", "/profiles/none/history"} {
		if status, _ := r.call("auditor", "GET", path, nil); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}

	// Every change is in the audit trail, and nothing else is.
	var events struct{ Events []Event }
	r.must("auditor", "GET", "/audit?action=profile.put", nil, &events)
	var trail []string
	for _, e := range slices.Backward(events.Events) {
		trail = append(trail, e.Target+" "+e.Detail["version"]+" "+e.Detail["fields"]+" "+e.Actor)
	}
	want := []string{
		"profile/web 1 kind, name token:admin", "profile/web 2 validity.max token:admin", "profile/web 3 disabled, validity.max token:admin",
		"profile/mail 1 kind, name token:admin", "profile/code 1 extKeyUsage, kind, name token:admin",
		"profile/server 2 description, validity.max token:admin",
	}
	if !slices.Equal(trail, want) {
		t.Errorf("audit trail:\n%s\nwant:\n%s", strings.Join(trail, "\n"), strings.Join(want, "\n"))
	}
	if status, answer := r.call("operator", "POST", "/certificates", map[string]any{"csr": newCSR(t, "a.example.com"), "profile": "web"}); status != 422 || !bytes.Contains(answer, []byte("disabled")) {
		t.Errorf("issuing with a disabled profile: %d %s", status, answer)
	}
}

func TestConcurrentEditors(t *testing.T) {
	r := newRig(t)
	r.must("administrator", "POST", "/profiles", map[string]any{"name": "web", "kind": "server"}, nil)
	codes := make([]int, 12)
	var wg sync.WaitGroup
	for i := range codes {
		wg.Go(func() {
			codes[i] = r.send("administrator", "PUT", "/profiles/web", fmt.Sprintf(`{"kind":"server","description":"editor %d"}`, i), "If-Match", `"1"`).Code
		})
	}
	wg.Wait()
	slices.Sort(codes)
	if codes[0] != 200 || codes[1] != 412 || codes[len(codes)-1] != 412 {
		t.Errorf("%v, want one 200 and the rest 412", codes)
	}
}

func TestProfileLimitsOfTokens(t *testing.T) { onBothStores(t, profileLimitsOfTokens) }

func profileLimitsOfTokens(t *testing.T, r *rig) {
	r.newToken("limited", map[string]any{"role": "administrator", "profiles": []string{"client"}})
	for _, s := range [][3]string{
		{"POST", "/profiles", `{"name":"wide","kind":"server"}`},
		{"PUT", "/profiles/server", `{"kind":"server"}`},
		{"POST", "/profiles/check", `{"name":"server","kind":"server"}`},
		{"GET", "/profiles/server/history", ""},
		{"GET", "/profiles/server/versions/1", ""},
		{"POST", "/profiles/server/dry-run", `{"csr":` + quote(newCSR(t, "a.example.com")) + `}`},
	} {
		if w := r.send("limited", s[0], s[1], s[2], "If-Match", `"1"`); w.Code != http.StatusForbidden {
			t.Errorf("%s %s: %d %s", s[0], s[1], w.Code, w.Body)
		}
	}
	if w := r.send("limited", "PUT", "/profiles/client", `{"kind":"client","validity":{"max":"30d"}}`, "If-Match", `"1"`); w.Code != http.StatusOK {
		t.Errorf("its own: %d %s", w.Code, w.Body)
	}
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestCheckProfile(t *testing.T) {
	r := newRig(t)
	w := r.send("auditor", "POST", "/profiles/check", `{"name":"web","kind":"server","noCRLAddress":true,"noOCSPAddress":true}`)
	c := decode[ProfileCheck](t, w)
	if w.Code != 200 || c.Version != 0 || len(c.Changes) != 4 || len(c.Warnings) != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	effective, err := profile.ParseConfig(c.Config)
	if err != nil || effective.Validity.Max.String() != "397d" || !slices.Equal(effective.ExtKeyUsage, []string{"serverAuth"}) {
		t.Errorf("%v: %s", err, c.Config)
	}
	w = r.send("auditor", "POST", "/profiles/check", `{"name":"server","kind":"server","description":"TLS servers: web, mail, database, message broker","validity":{"max":"50y"}}`)
	c = decode[ProfileCheck](t, w)
	if c.Version != 1 || len(c.Changes) != 1 || c.Changes[0].Field != "validity.max" || c.Changes[0].Old != nil || string(c.Changes[0].New) != `"50y"` || !strings.Contains(strings.Join(c.Warnings, " "), "cannot be reached") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = r.send("auditor", "POST", "/profiles/check", `{"name":"web","kind":"server","conditions":[{"expr":"sans.uri.all(a, sans.uri.all(b, a == b))"}]}`)
	if d := decode[problem.Document](t, w); w.Code != 400 || d.Field != "conditions[0].expr" || !strings.Contains(d.Detail, "costs too much") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if _, answer := r.call("auditor", "GET", "/profiles", nil); bytes.Contains(answer, []byte("web\"")) {
		t.Errorf("a check has changed something: %s", answer)
	}
}

func TestDryRun(t *testing.T) {
	r := newRig(t)
	csr := quote(newCSR(t, "a.example.com"))
	w := r.send("enroller", "POST", "/profiles/server/dry-run", `{"csr":`+csr+`,"sans":["a.example.com","IP:192.0.2.1"],"validity":"1h"}`)
	d := decode[DryRun](t, w)
	if w.Code != 200 || d.Subject != "CN=a.example.com" || !slices.Equal(d.SANs, []string{"DNS:a.example.com", "IP:192.0.2.1"}) ||
		!slices.Equal(d.KeyUsage, []string{"digitalSignature"}) || !slices.Equal(d.ExtKeyUsage, []string{"serverAuth"}) || d.CA || d.ProfileVersion != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	values := map[string]string{}
	for _, e := range d.Extensions {
		values[e.Name] = e.Value
	}
	for name, want := range map[string]string{
		"basicConstraints": "CA:FALSE", "keyUsage": "digitalSignature", "extKeyUsage": "serverAuth", "subjectAltName": "DNS:a.example.com, IP:192.0.2.1",
		"cRLDistributionPoints": "http://pki.example.com/crl/", "authorityInfoAccess": "OCSP http://pki.example.com/ocsp/",
	} {
		if !strings.HasPrefix(values[name], want) {
			t.Errorf("%s is %q, want %q", name, values[name], want)
		}
	}
	for _, s := range []struct {
		who, path, body string
		status          int
		field           string
	}{
		{"enroller", "/profiles/server/dry-run", `{"csr":"x"}`, 400, "csr"},
		{"enroller", "/profiles/server/dry-run", `{"csr":` + csr + `,"sans":["user@example.com"]}`, 422, "sans"},
		{"enroller", "/profiles/server/dry-run", `{"csr":` + csr + `,"validity":"10y"}`, 422, "validity"},
		{"enroller", "/profiles/none/dry-run", `{"csr":` + csr + `}`, 404, "profile"},
		{"enroller", "/profiles/sub-ca/dry-run", `{"csr":` + csr + `,"issuer":"root"}`, 403, "profile"},
		{"operator", "/profiles/web/dry-run", `{"csr":` + csr + `,"config":{"kind":"server"}}`, 403, "config"},
		{"administrator", "/profiles/web/dry-run", `{"csr":` + csr + `,"config":{"kind":"server","mustStaple":true,"noRevAvail":true}}`, 400, "mustStaple"},
		{"administrator", "/profiles/web/dry-run", `{"csr":` + csr + `,"config":{"kind":"server","conditions":[{"expr":"cn == 'b'","message":"b"}]}}`, 422, "profile"},
		{"administrator", "/profiles/web/dry-run", `{"csr":` + csr + `,"config":{"name":"www","kind":"server"}}`, 400, "name"},
		{"administrator", "/profiles/sub-ca/dry-run", `{"csr":` + csr + `,"issuer":"root"}`, 200, ""},
		{"administrator", "/profiles/web/dry-run", `{"csr":` + csr + `,"config":{"kind":"server","mustStaple":true,"policies":["1.2.3"]}}`, 200, ""},
		{"administrator", "/profiles/web/dry-run", `{"csr":` + csr + `,"config":{"kind":"server","noRevAvail":true}}`, 200, ""},
	} {
		w := r.send(s.who, "POST", s.path, s.body)
		if w.Code != s.status || s.field != "" && decode[problem.Document](t, w).Field != s.field {
			t.Errorf("%s %s as %s: %d %s; want %d of %s", s.path, s.body[len(csr):], s.who, w.Code, w.Body, s.status, s.field)
		}
	}
	var list struct{ Certificates []Certificate }
	r.must("auditor", "GET", "/certificates?profile=server", nil, &list)
	if len(list.Certificates) != 0 {
		t.Errorf("dry runs were recorded: %+v", list.Certificates)
	}
}
