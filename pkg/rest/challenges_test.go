package rest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/profile"
	"github.com/certwright/certwright/pkg/store"
)

// Many challenges are made or none, and what cannot work is refused before anybody types it into a device.
func TestChallengesInBulk(t *testing.T) {
	r := newRig(t)
	point := func(name, settings string) {
		if w := r.send("administrator", "PUT", "/scep/points/"+name, `{"settings":`+settings+`}`); w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	point("named", `{"subject":"CN={device},O=Example"}`)
	point("grouped", `{"subject":"CN={device},OU={group}"}`)
	point("static", `{"challenges":["static"]}`)
	for _, tt := range []struct {
		name, who, body string
		status          int
		field           string
	}{
		{"nothing", "operator", `{"challenges":[]}`, 422, ""},
		{"not for auditors", "auditor", `{"challenges":[{}]}`, 403, ""},
		{"a batch with a space", "operator", `{"batch":"a b","challenges":[{}]}`, 400, "batch"},
		{"no such point", "operator", `{"point":"none","challenges":[{}]}`, 404, "point"},
		{"a point without one-time challenges", "operator", `{"point":"static","challenges":[{}]}`, 409, "point"},
		{"a name that the profile refuses", "operator", `{"challenges":[{},{"sans":["DNS:a_b*.example.com"]}]}`, 0, "challenges[1].sans"},
		{"a name that cannot be", "operator", `{"challenges":[{"sans":["URI:http://x/\u0000"]}]}`, 400, "challenges[0].sans"},
		{"no name", "operator", `{"challenges":[{"subject":"nonsense"}]}`, 400, "challenges[0].subject"},
		{"no device", "operator", `{"challenges":[{"device":" a"}]}`, 400, "challenges[0].device"},
		{"another subject than the point's", "operator", `{"point":"named","challenges":[{"device":"a","subject":"CN=a"}]}`, 0, "challenges[0].subject"},
		{"a point that needs a device", "operator", `{"point":"named","challenges":[{}]}`, 0, "challenges[0].device"},
		{"a device of which too little is known", "operator", `{"point":"grouped","challenges":[{"device":"a"}]}`, 0, "challenges[0].device"},
		{"too long", "operator", `{"challenges":[{"validity":"2y"}]}`, 400, "challenges[0].validity"},
	} {
		w := r.withTLS(tt.who, "/challenges/bulk", tt.body, "")
		p := decode[problem.Document](t, w)
		if tt.status != 0 && w.Code != tt.status || w.Code < 400 || w.Code >= 500 || p.Field != tt.field {
			t.Errorf("%s: %d, field %q: %s; want %d, %q", tt.name, w.Code, p.Field, w.Body, tt.status, tt.field)
		}
	}
	// All rows that are wrong are named, up to a number.
	for n, want := range map[int]int{1: 0, 2: 2, maxWrongRows: maxWrongRows, maxWrongRows + 1: maxWrongRows} {
		body := `{"challenges":[{}` + strings.Repeat(`,{"device":" a"},{}`, n) + `]}`
		p := decode[problem.Document](t, r.withTLS("operator", "/challenges/bulk", body, ""))
		if p.Status != 400 || p.Field != "challenges[1].device" || len(p.Errors) != want || want > 0 && p.Errors[want-1].Location != fmt.Sprintf("challenges[%d].device", 2*want-1) {
			t.Errorf("%d wrong rows: %+v", n, p)
		}
	}
	// A device that may have nothing is told of with its row, and in a dry run: not when half of a file is done.
	deviceIn(t, r.ask("operator", "POST", "/devices", map[string]any{"id": "stolen"}), http.StatusCreated)
	deviceIn(t, r.ask("operator", "POST", "/devices/stolen/block", map[string]any{}), http.StatusOK)
	for _, dry := range []bool{true, false} {
		w := r.withTLS("operator", "/challenges/bulk", fmt.Sprintf(`{"dry_run":%t,"challenges":[{},{"device":"stolen"}]}`, dry), "")
		if p := decode[problem.Document](t, w); w.Code < 400 || w.Code >= 500 || p.Field != "challenges[1].device" || !strings.Contains(p.Detail, "blocked") {
			t.Errorf("a blocked device, dry run %t: %d %s", dry, w.Code, w.Body)
		}
	}
	var list struct{ Challenges []Challenge }
	if r.must("auditor", "GET", "/challenges", nil, &list); len(list.Challenges) != 0 {
		t.Fatalf("%d challenges were made of requests that were refused", len(list.Challenges))
	}

	var rows []string
	for i := range maxChallenges {
		rows = append(rows, fmt.Sprintf(`{"device":"d%d","subject":"O=Example,CN=d%d"}`, i, i))
	}
	body := `{"point":"named","batch":"hall-3","dry_run":%t,"challenges":[` + strings.Join(rows, ",") + `]}`
	var made struct {
		Batch      string
		Challenges []MadeChallenge
	}
	w := r.withTLS("operator", "/challenges/bulk", fmt.Sprintf(body, true), "")
	if made = decode[struct {
		Batch      string
		Challenges []MadeChallenge
	}](t, w); w.Code != http.StatusOK || len(made.Challenges) != 0 {
		t.Fatalf("a dry run: %d, %d challenges", w.Code, len(made.Challenges))
	}
	w = r.withTLS("operator", "/challenges/bulk", fmt.Sprintf(body, false), "")
	if w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%d, %v: %s", w.Code, w.Header(), w.Body)
	}
	if made = decode[struct {
		Batch      string
		Challenges []MadeChallenge
	}](t, w); len(made.Challenges) != maxChallenges || made.Batch != "hall-3" || made.Challenges[7].Device != "d7" || made.Challenges[7].Challenge == "" {
		t.Fatalf("%d challenges of batch %q", len(made.Challenges), made.Batch)
	}
	r.must("auditor", "GET", "/challenges?batch=hall-3&limit=1000", nil, &list)
	if len(list.Challenges) != maxChallenges || strings.Contains(fmt.Sprint(list), made.Challenges[7].Challenge) {
		t.Errorf("%d challenges are listed, or a text among them", len(list.Challenges))
	}
	if w := r.send("auditor", "GET", "/audit?action=challenge.create", ""); strings.Count(w.Body.String(), `"challenge_batch/hall-3"`) != 1 || strings.Contains(w.Body.String(), made.Challenges[7].Challenge) {
		t.Errorf("audited as %s", w.Body)
	}

	for _, tt := range []struct {
		who, body string
		status    int
		revoked   int
	}{
		{"operator", `{}`, 400, 0},
		{"auditor", `{"batch":"hall-3"}`, 403, 0},
		{"operator", `{"batch":"hall-3","point":"default"}`, 200, 0},
		{"operator", `{"batch":"hall-3","device":"d7"}`, 200, 1},
		{"operator", `{"batch":"hall-3"}`, 200, maxChallenges - 1},
		{"operator", `{"point":"named"}`, 200, 0},
	} {
		w := r.send(tt.who, "POST", "/challenges/revoke", tt.body)
		if w.Code != tt.status || w.Code == 200 && !strings.Contains(w.Body.String(), fmt.Sprintf(`"revoked":%d}`, tt.revoked)) {
			t.Errorf("revoke %s: %d %s; want %d, %d", tt.body, w.Code, w.Body, tt.status, tt.revoked)
		}
	}
}

// A challenge that would open nothing is not made: one by one, many at once, or in a dry run.
func TestChallengesThatOpenNothing(t *testing.T) {
	r := newRig(t)
	i, err := r.config.Issuers.Current().Issuer("")
	if err != nil {
		t.Fatal(err)
	}
	set := func(name string, change func(context.Context, ca.StatusRequest) (pki.Certificate, error)) {
		t.Helper()
		if _, err := change(t.Context(), ca.StatusRequest{Principal: pki.System(), Certificate: i.Current.Fingerprint, Reason: pki.CACompromise}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := r.config.Issuers.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(name string, status int, field, detail string) {
		t.Helper()
		for _, path := range []string{"/challenges", "/challenges/bulk"} {
			for body, field := range map[string]string{
				`{}`: field, `{"challenges":[{}]}`: strings.Replace(field, "profile", "challenges[0].profile", 1), `{"dry_run":true,"challenges":[{}]}`: strings.Replace(field, "profile", "challenges[0].profile", 1),
			} {
				if (path == "/challenges") != (body == `{}`) {
					continue
				}
				w := r.withTLS("operator", path, body, "")
				if p := decode[problem.Document](t, w); w.Code != status || p.Field != field || !strings.Contains(p.Detail, detail) {
					t.Errorf("%s, %s %s: %d %s; want %d, %q, %q", name, path, body, w.Code, w.Body, status, field, detail)
				}
			}
		}
	}
	set("hold", r.config.CA.Hold)
	ask("an issuer on hold", http.StatusConflict, "point", "on hold since")
	set("release", r.config.CA.Release)
	disable := func(off bool) {
		t.Helper()
		p, err := r.config.CA.Profile(profile.Device)
		if err != nil {
			t.Fatal(err)
		}
		c := p.Config()
		c.Disabled = off
		if _, _, err := r.config.CA.PutProfile(t.Context(), ca.ProfileChange{Principal: pki.System(), Config: c, Version: ca.AnyVersion}); err != nil {
			t.Fatal(err)
		}
		if err := r.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	disable(true)
	ask("a profile that is disabled", http.StatusConflict, "profile", "the profile device is disabled")
	disable(false)
	var list struct{ Challenges []Challenge }
	if r.must("auditor", "GET", "/challenges", nil, &list); len(list.Challenges) != 0 {
		t.Errorf("%d challenges were made", len(list.Challenges))
	}
	if w := r.withTLS("operator", "/challenges", `{}`, ""); w.Code >= 300 {
		t.Errorf("when all is well again: %d %s", w.Code, w.Body)
	}
	set("revoke", r.config.CA.Revoke)
	ask("an issuer that is revoked", http.StatusConflict, "point", "revoked since")
}

// BenchmarkBulkChallenges checks, and then makes, a thousand challenges at once for devices that nobody knows, as
// «certwright challenge import» does.
func BenchmarkBulkChallenges(b *testing.B) {
	for name, open := range map[string]func(testing.TB) store.Store{"sqlite": newSQLite, "postgres": newPostgres} {
		b.Run(name, func(b *testing.B) {
			r := newRigOn(b, open(b))
			made := 0
			request := func(dryRun bool) {
				rows := make([]string, maxChallenges)
				for i := range rows {
					rows[i] = fmt.Sprintf(`{"device":"pump-%d","subject":"CN=pump-%[1]d"}`, made+i)
				}
				body := fmt.Sprintf(`{"dry_run":%t,"challenges":[%s]}`, dryRun, strings.Join(rows, ","))
				if w := r.withTLS("operator", "/challenges/bulk", body, ""); w.Code != http.StatusOK {
					b.Fatalf("%d %s", w.Code, w.Body)
				}
			}
			for b.Loop() {
				request(true)
				request(false)
				made += maxChallenges
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(made), "µs/challenge")
		})
	}
}

// Reasons go to devices, logs and terminals: they are one line.
func TestDenyReason(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for path, body := range map[string]string{
		"/enrollments/none/deny": `{"reason":"a\u0007b"}`, "/enrollments/decide": `{"decision":"deny","ids":["none"],"reason":"a\nb"}`,
	} {
		w := r.withTLS("operator", path, body, "")
		if p := decode[problem.Document](t, w); w.Code != 400 || p.Field != "reason" {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
