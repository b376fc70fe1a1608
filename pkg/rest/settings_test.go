package rest

import (
	"slices"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/problem"
)

func TestIssuerSettings(t *testing.T) {
	r := newRig(t)
	const path = "/issuers/issuing/settings"
	sharded := `{"crl":{"form":"sharded","shards":16}}`
	for _, s := range []struct {
		name, who, method, path, body, ifMatch string
		status                                 int
		etag, field                            string
	}{
		{"before anybody settled anything", "auditor", "GET", path, "", "", 200, `"0"`, ""},
		{"not for enrollers", "enroller", "GET", path, "", "", 403, "", ""},
		{"not for operators", "operator", "PUT", path, sharded, `"0"`, 403, "", ""},
		{"no such issuer", "administrator", "PUT", "/issuers/nobody/settings", sharded, `"0"`, 404, "", "issuer"},
		{"check", "auditor", "POST", path + "/check", sharded, "", 200, "", ""},
		{"without precondition", "administrator", "PUT", path, sharded, "", 428, "", "If-Match"},
		{"a precondition that is none", "administrator", "PUT", path, sharded, "0", 400, "", "If-Match"},
		{"on what is to come", "administrator", "PUT", path, sharded, `"1"`, 412, "", ""},
		{"change", "administrator", "PUT", path, sharded, `"0"`, 200, `"1"`, ""},
		{"on what is gone", "administrator", "PUT", path, `{}`, `"0"`, 412, "", ""},
		{"nothing to change", "administrator", "PUT", path, `{"name":"issuing","crl":{"shards":16,"form":"sharded"}}`, `"1"`, 200, `"1"`, ""},
		{"whatever is there", "administrator", "PUT", path, `{"crl":{"nextUpdate":"3d"}}`, "*", 200, `"2"`, ""},
		{"another issuer's", "administrator", "PUT", path, `{"name":"root"}`, `"2"`, 400, "", "name"},
		{"an unknown field", "administrator", "PUT", path, `{"crl":{"shard":3}}`, `"2"`, 400, "", "crl.shard"},
		{"out of bounds", "administrator", "PUT", path, `{"crl":{"form":"sharded","shards":5000}}`, `"2"`, 403, "", "crl.shards"},
		{"lists with a gap between them", "auditor", "POST", path + "/check", `{"crl":{"interval":"10d"}}`, "", 403, "", "crl.interval"},
		{"not JSON", "administrator", "PUT", path, `crl`, `"2"`, 422, "", ""},
		{"a sharded root", "administrator", "PUT", "/issuers/root/settings", sharded, `"0"`, 403, "", "crl.form"},
		{"history", "auditor", "GET", path + "/history", "", "", 200, "", ""},
		{"a version", "auditor", "GET", path + "/versions/1", "", "", 200, `"1"`, ""},
		{"a version that is not", "auditor", "GET", path + "/versions/3", "", "", 404, "", "version"},
	} {
		var headers []string
		if s.ifMatch != "" {
			headers = []string{"If-Match", s.ifMatch}
		}
		w := r.send(s.who, s.method, s.path, s.body, headers...)
		var p problem.Document
		if w.Code >= 300 {
			p = decode[problem.Document](t, w)
		}
		if w.Code != s.status && (s.status != 403 || w.Code != 422) || w.Header().Get("ETag") != s.etag || p.Field != s.field {
			t.Errorf("%s: %d, ETag %s, field %q: %s; want %d, %s, %q", s.name, w.Code, w.Header().Get("ETag"), p.Field, w.Body, s.status, s.etag, s.field)
		}
	}

	var history struct{ Versions []SettingsVersion }
	r.must("auditor", "GET", path+"/history", nil, &history)
	if len(history.Versions) != 2 || history.Versions[0].ChangedBy != "token:admin" || !slices.Equal(history.Versions[0].Fields, []string{"crl.form", "crl.nextUpdate", "crl.shards"}) {
		t.Errorf("the history: %+v", history.Versions)
	}
	var first, now IssuerSettings
	r.must("auditor", "GET", path+"/versions/1", nil, &first)
	if string(first.Config) != `{"crl":{"form":"sharded","shards":16}}` {
		t.Errorf("version 1 is %s", first.Config)
	}
	r.must("auditor", "GET", path, nil, &now)
	if now.InForce == nil || now.InForce.CRL.NextUpdate != "3d" || now.InForce.CRL.Interval != "1h0m0s" || now.InForce.CRL.Form != "full" || len(now.Addresses) != 2 || now.Addresses[1].Listed != nil {
		t.Errorf("in force: %+v, addresses %+v", now.InForce, now.Addresses)
	}
	if w := r.send("administrator", "PUT", path, sharded, "If-Match", `"2"`); !strings.Contains(w.Body.String(), "keep their CRL") {
		t.Errorf("a change of the form says nothing of what follows: %s", w.Body)
	}
	var shown Issuer
	r.must("", "GET", "/issuers/issuing", nil, &shown)
	if in := shown.Settings; in.Version != 3 || in.CRL.Form != "sharded" || in.CRL.Shards != 16 || in.Pending == nil || in.Pending.Set != "s16" {
		t.Errorf("the issuer shows %+v", in)
	}

	// A token for other issuers changes nothing here.
	r.newToken("elsewhere", map[string]any{"role": "administrator", "issuers": []string{"root"}})
	for _, method := range []string{"GET", "PUT"} {
		if w := r.send("elsewhere", method, path, sharded, "If-Match", "*"); w.Code != 403 {
			t.Errorf("%s with a token for another issuer: %d %s", method, w.Code, w.Body)
		}
	}
}
