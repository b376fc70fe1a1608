package rest

import (
	"slices"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/store"
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

// A webhook's secret is shown once, and the point tells what waits for it.
func TestWebhookSecret(t *testing.T) {
	r := newRig(t)
	const path, secretPath = "/scep/points/hooked", "/scep/points/hooked/webhook-secret"
	put := func(settings string) {
		t.Helper()
		if w := r.send("administrator", "PUT", path, `{"settings":`+settings+`}`, "If-Match", "*"); w.Code != 200 {
			t.Fatalf("PUT: %d %s", w.Code, w.Body)
		}
	}
	put(`{}`)
	for _, s := range []struct {
		who, path, body string
		status          int
	}{
		{"administrator", secretPath, `{}`, 409},
		{"administrator", "/scep/points/none/webhook-secret", `{}`, 404},
		{"operator", secretPath, `{}`, 403},
		{"administrator", secretPath, `{"overlap":"31d"}`, 400},
		{"administrator", secretPath, `{"overlap":"-1h"}`, 400},
	} {
		if w := r.send(s.who, "POST", s.path, s.body); w.Code != s.status {
			t.Errorf("%s, %s %s: %d %s, want %d", s.who, s.path, s.body, w.Code, w.Body, s.status)
		}
	}
	put(`{"webhook":{"url":"https://hook.example.com","notify":["success"]}}`)
	var p EnrollmentPoint
	r.must("auditor", "GET", path, nil, &p)
	if p.Webhook == nil || p.Webhook.Secret || p.Webhook.Waiting != 0 {
		t.Errorf("before it has a secret: %+v", p.Webhook)
	}
	w := r.send("administrator", "POST", secretPath, `{"overlap":"1d"}`)
	s := decode[WebhookSecret](t, w)
	if w.Code != 200 || w.Header().Get("Cache-Control") != "no-store" || len(s.Secret) < 30 || s.Point != "hooked" || s.Version != 3 {
		t.Fatalf("the secret: %d %v %+v", w.Code, w.Header(), s)
	}
	at := r.config.Now()
	n := pki.Notification{ID: "E", Point: "hooked", Body: []byte("{}"), CreatedAt: at, NextAt: at, Attempts: 3, Error: "the webhook is away"}
	if err := r.config.Enrollments.(store.Notifications).PutNotifications(t.Context(), []pki.Notification{n}); err != nil {
		t.Fatal(err)
	}
	w = r.send("auditor", "GET", path, "")
	if p = decode[EnrollmentPoint](t, w); !p.Webhook.Secret || p.Webhook.Waiting != 1 || p.Webhook.Oldest == nil || p.Webhook.Error != n.Error || strings.Contains(w.Body.String(), s.Secret) {
		t.Errorf("the point is shown as %s", w.Body)
	}
	var list struct{ Points []EnrollmentPoint }
	r.must("auditor", "GET", "/scep/points", nil, &list)
	if i := slices.IndexFunc(list.Points, func(p EnrollmentPoint) bool { return p.Name == "hooked" }); i < 0 || list.Points[i].Webhook == nil || list.Points[i].Webhook.Waiting != 1 {
		t.Errorf("the points are listed as %+v", list.Points)
	}
}
