package rest

import (
	"slices"
	"testing"

	"github.com/certwright/certwright/pkg/problem"
)

func TestEnrollmentPoints(t *testing.T) {
	r := newRig(t)
	const path = "/scep/points/phones"
	for _, s := range []struct {
		name, who, method, path, body string
		header, value                 string
		status                        int
		etag, field                   string
	}{
		{name: "none yet", who: "auditor", method: "GET", path: path, status: 404, field: "point"},
		{name: "check", who: "auditor", method: "POST", path: "/scep/points/check", body: `{"settings":{"name":"phones","approval":true}}`, status: 200},
		{name: "check of no name", who: "auditor", method: "POST", path: "/scep/points/check", body: `{"settings":{}}`, status: 400, field: "name"},
		{name: "not for operators", who: "operator", method: "PUT", path: path, body: `{"settings":{}}`, status: 403},
		{name: "create", who: "administrator", method: "PUT", path: path, body: `{"settings":{"subject":"CN={device}"},"static_challenge":"open sesame"}`, header: "If-None-Match", value: "*", status: 200, etag: `"1"`},
		{name: "only if absent", who: "administrator", method: "PUT", path: path, body: `{"settings":{}}`, header: "If-None-Match", value: "*", status: 412},
		{name: "without precondition", who: "administrator", method: "PUT", path: path, body: `{"settings":{}}`, status: 428, field: "If-Match"},
		{name: "a precondition that is none", who: "administrator", method: "PUT", path: path, body: `{"settings":{}}`, header: "If-Match", value: "1", status: 400, field: "If-Match"},
		{name: "on what is to come", who: "administrator", method: "PUT", path: path, body: `{"settings":{}}`, header: "If-Match", value: `"2"`, status: 412},
		{name: "nothing to change", who: "administrator", method: "PUT", path: path, body: `{"settings":{"name":"phones","subject":"CN={device}"}}`, header: "If-Match", value: `"1"`, status: 200, etag: `"1"`},
		{name: "change", who: "administrator", method: "PUT", path: path, body: `{"settings":{"subject":"CN={device}","disabled":true,"legacy":{"des":"2026-12-31"}}}`, header: "If-Match", value: `"1"`, status: 200, etag: `"2"`},
		{name: "on what is gone", who: "administrator", method: "PUT", path: path, body: `{"settings":{}}`, header: "If-Match", value: `"1"`, status: 412},
		{name: "whatever is there", who: "administrator", method: "PUT", path: path, body: `{"settings":{"replacement":"revoke"}}`, header: "If-Match", value: "*", status: 200, etag: `"3"`},
		{name: "another point's", who: "administrator", method: "PUT", path: path, body: `{"settings":{"name":"default"}}`, header: "If-Match", value: "*", status: 400, field: "name"},
		{name: "an unknown field", who: "administrator", method: "PUT", path: path, body: `{"settings":{"renewal":{"per":3}}}`, header: "If-Match", value: "*", status: 400, field: "renewal.per"},
		{name: "a root", who: "administrator", method: "PUT", path: path, body: `{"settings":{"issuer":"root"}}`, header: "If-Match", value: "*", status: 422, field: "issuer"},
		{name: "no profile", who: "administrator", method: "PUT", path: path, body: `{"settings":{"profile":"none"}}`, header: "If-Match", value: "*", status: 404, field: "profile"},
		{name: "no delete", who: "administrator", method: "DELETE", path: path, status: 405},
		{name: "history", who: "auditor", method: "GET", path: path + "/history", status: 200},
		{name: "no history", who: "auditor", method: "GET", path: "/scep/points/none/history", status: 404, field: "point"},
		{name: "a version", who: "auditor", method: "GET", path: path + "/versions/1", status: 200},
		{name: "no version", who: "auditor", method: "GET", path: path + "/versions/4", status: 404, field: "version"},
		{name: "not for enrollers", who: "enroller", method: "GET", path: path, status: 403},
	} {
		var headers []string
		if s.header != "" {
			headers = []string{s.header, s.value}
		}
		w := r.send(s.who, s.method, s.path, s.body, headers...)
		var p problem.Document
		if w.Code >= 300 {
			p = decode[problem.Document](t, w)
		}
		if w.Code != s.status || w.Header().Get("ETag") != s.etag || p.Field != s.field {
			t.Errorf("%s: %d, ETag %s, field %q: %s; want %d, %s, %q", s.name, w.Code, w.Header().Get("ETag"), p.Field, w.Body, s.status, s.etag, s.field)
		}
	}
	var history struct{ Versions []SettingsVersion }
	r.must("auditor", "GET", path+"/history", nil, &history)
	if len(history.Versions) != 3 || !slices.Equal(history.Versions[1].Fields, []string{"disabled", "legacy.des"}) {
		t.Errorf("the history: %+v", history.Versions)
	}
	var p EnrollmentPoint
	r.must("auditor", "GET", path, nil, &p)
	if !p.StaticChallenge || p.Disabled || p.Settings["replacement"] != "revoke" {
		t.Errorf("the static challenge or a setting is lost: %+v", p)
	}
	var check PointCheck
	r.must("auditor", "POST", "/scep/points/check", map[string]any{"settings": map[string]any{"name": "phones"}}, &check)
	if check.Version != 3 || len(check.Changes) != 1 || check.Changes[0].Field != "replacement" || len(check.Warnings) != 1 {
		t.Errorf("the check: %+v", check)
	}
}
