package e2e

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/internal/scepraw"
)

// TestFleetStories has strongSwan and certmonger walk through what happens to devices, on both stores: challenges, approval,
// wiped and blocked devices, certificates that have ended, and webhooks of every temper.
func TestFleetStories(t *testing.T) {
	t.Parallel()
	for _, database := range []bool{false, true} {
		name, o := "SQLite", Options{}
		if database {
			name = "Postgres"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if database {
				o.Database = pgtest.DSN(t)
			}
			s := Start(t, o)
			stories := newStories(t, s)
			for _, program := range []sceper{newSwan(t, s), newMonger(t, s)} {
				for _, story := range []struct {
					name string
					walk func(*walk)
				}{
					{"a one-time challenge is used once", (*walk).once},
					{"a challenge for another subject", (*walk).bound},
					{"pending, approved", (*walk).approved},
					{"pending, denied", (*walk).denied},
					{"pending, forgotten", (*walk).forgotten},
					{"wiped", (*walk).wiped},
					{"blocked", (*walk).blocked},
					{"ended, within grace", (*walk).grace},
					{"ended, beyond grace", (*walk).beyond},
					{"ended, and refused", (*walk).off},
					{"webhook", (*walk).webhook},
				} {
					t.Run(program.String()+"/"+story.name, func(t *testing.T) {
						t.Parallel()
						story.walk(&walk{fleetStories: stories, t: t, program: program})
					})
				}
			}
		})
	}
}

// fleetStories is what the stories of one server share.
type fleetStories struct {
	s    *Server
	hook *hookServer
	keys scepraw.Keys
}

func newStories(t *testing.T, s *Server) *fleetStories {
	t.Helper()
	f := &fleetStories{s: s, hook: newHookServer(t)}
	f.profile(t, "brief", 0, "2s")
	for name, settings := range map[string]string{
		"plain":    `{"device":{"registered":true}}`,
		"careful":  `{"approval":true}`,
		"hasty":    `{"approval":true,"pendingLife":"1s"}`,
		"replaced": `{"replacement":"revoke"}`,
		"grace":    `{"profile":"brief","return":{"policy":"grace","grace":"30d","validity":"1m"}}`,
		"off":      `{"profile":"brief","return":{"policy":"refuse"}}`,
	} {
		f.point(t, name, settings)
	}
	f.hook.points(t, f)
	return f
}

// profile makes a profile whose certificates live so long, or changes its version.
func (f *fleetStories) profile(t *testing.T, name string, version int, life string) {
	t.Helper()
	text := json.RawMessage(`{"name":"` + name + `","kind":"device","validity":{"default":"` + life + `","max":"1d"}}`)
	var err error
	if version == 0 {
		_, err = f.s.Client.CreateProfile(t.Context(), text)
	} else {
		_, err = f.s.Client.PutProfile(t.Context(), name, version, text)
	}
	if err != nil {
		t.Fatalf("profile %s: %v", name, err)
	}
}

// point makes an enrollment point.
func (f *fleetStories) point(t *testing.T, name, settings string) {
	t.Helper()
	var r client.PutPointRequest
	var fields map[string]any
	if err := json.Unmarshal([]byte(settings), &fields); err != nil {
		t.Fatal(err)
	}
	fields["name"] = name
	text, err := json.Marshal(fields)
	if err == nil {
		err = json.Unmarshal(text, &r.Settings)
	}
	if err == nil {
		_, err = f.s.Client.PutEnrollmentPoint(t.Context(), name, r)
	}
	if err != nil {
		t.Fatalf("point %s: %v", name, err)
	}
}

// walk is one story with one program.
type walk struct {
	*fleetStories
	t       *testing.T
	program sceper
}

// device returns a device with a key. Its id, which is its common name, begins with the program's.
func (w *walk) device(point, name string) *device {
	w.t.Helper()
	d := &device{fleetStories: w.fleetStories, t: w.t, program: w.program, dir: w.t.TempDir(), point: point, name: w.program.String() + "-" + name}
	d.newKey()
	return d
}

// ended waits until a certificate has ended.
func ended(c *x509.Certificate) { time.Sleep(time.Until(c.NotAfter.Add(1100 * time.Millisecond))) }

func (w *walk) once() {
	d := w.device("plain", "once")
	text := d.challenge()
	d.enroll(text)
	d.newKey()
	d.refused(asking{challenge: text})
	all, _, err := w.s.Client.Challenges(w.t.Context(), client.ChallengeQuery{Device: d.name})
	if err != nil || len(all) != 1 || all[0].Status != "used" {
		w.t.Errorf("its challenges are %+v, %v", all, err)
	}
}

func (w *walk) bound() {
	d := w.device("plain", "bound")
	text := d.challenge(func(r *client.CreateChallengeRequest) {
		r.Subject, r.SANs = "CN="+d.name, []string{"DNS:bound-1.example.com"}
	})
	d.refused(asking{subject: "CN=another", challenge: text})
	d.refused(asking{san: "bound-2.example.com", challenge: text})
	if c := d.enroll(text); len(c.DNSNames) != 1 || c.DNSNames[0] != "bound-1.example.com" {
		w.t.Errorf("names %v, want those of the challenge", c.DNSNames)
	}
}

func (w *walk) approved() {
	d := w.device("careful", "approved")
	d.gets(asking{challenge: d.challenge()}, func() {
		if _, err := w.s.Client.ApproveEnrollment(w.t.Context(), d.waiting().ID); err != nil {
			w.t.Error(err)
		}
	})
}

func (w *walk) denied() {
	d := w.device("careful", "denied")
	d.refused(asking{challenge: d.challenge()}, func() {
		if _, err := w.s.Client.DenyEnrollment(w.t.Context(), d.waiting().ID, "not one of ours"); err != nil {
			w.t.Error(err)
		}
	})
}

func (w *walk) forgotten() {
	d := w.device("hasty", "forgotten")
	d.refused(asking{challenge: d.challenge()})
	list, _, err := w.s.Client.Enrollments(w.t.Context(), client.EnrollmentQuery{Point: d.point})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range list {
		if !strings.Contains(e.Subject, d.name) {
			continue
		}
		if e.State != "expired" {
			w.t.Errorf("its request: %+v", e)
		}
		if _, err := w.s.Client.ApproveEnrollment(w.t.Context(), e.ID); !isStatus(err, http.StatusConflict) {
			w.t.Errorf("approving it: %v, want 409", err)
		}
		return
	}
	w.t.Errorf("%d requests, and none of %s", len(list), d.name)
}

func isStatus(err error, status int) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Status == status
}

func (w *walk) wiped() {
	for _, point := range []string{"plain", "replaced"} {
		d := w.device(point, "wiped-"+point)
		old := d.enroll(d.challenge())
		thief := d.stolen()
		d.newKey() // the rest is gone
		fresh := d.enroll(d.challenge())
		if known, err := w.s.Client.Certificate(w.t.Context(), idOf(fresh)); err != nil || known.Device != d.name || known.Replaces != "" {
			w.t.Errorf("%s: the new certificate: %+v, %v", point, known, err)
		}
		if point == "replaced" {
			d.status(old, "revoked")
		} else {
			// It stays good, and is not the newest any more. It would be too early, too.
			d.status(old, "valid")
		}
		thief.refused(asking{renewal: true})
		d.status(fresh, "valid")
	}
}

func (w *walk) blocked() {
	d := w.device("plain", "blocked")
	c := d.enroll(d.challenge())
	open := d.challenge() // made before
	w.tell(d, "block")
	d.refused(asking{renewal: true})
	thief := d.stolen()
	d.newKey()
	d.refused(asking{challenge: open})
	if _, err := w.s.Client.CreateChallenge(w.t.Context(), client.CreateChallengeRequest{Point: d.point, Device: d.name}); err == nil {
		w.t.Error("a blocked device got a challenge")
	}
	d.status(c, "revoked")
	w.tell(d, "unblock")
	d.enroll(d.challenge())
	thief.refused(asking{renewal: true})
}

// tell tells the registry of a device something: block or unblock.
func (w *walk) tell(d *device, what string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.s.HTTPS+"/api/v1/devices/"+d.name+"/"+what, strings.NewReader("{}"))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.s.Token)
	r.Header.Set("Content-Type", "application/json")
	answer, err := w.s.Browser(nil).Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		w.t.Fatalf("%s %s: %s, %v: %s", what, d.name, answer.Status, err, body)
	}
}

func (w *walk) grace() {
	d := w.device("grace", "grace")
	old := d.enroll(d.challenge())
	ended(old)
	c := d.renew()
	if known, err := w.s.Client.Certificate(w.t.Context(), idOf(c)); err != nil || known.Replaces != idOf(old) || known.NotAfter.Sub(known.IssuedAt) > time.Minute {
		w.t.Errorf("the certificate: %+v, %v; want one that lives for a minute at most and replaces the old one", known, err)
	}
	page, err := w.s.Client.Audit(w.t.Context(), client.AuditQuery{Action: "enrollment.return"})
	if err != nil || len(page.Events) == 0 {
		w.t.Errorf("the audit trail has %d offline returns, %v", len(page.Events), err)
	}
}

func (w *walk) beyond() {
	name := "beyond-" + strings.ToLower(w.program.String())
	w.profile(w.t, name, 0, "2s")
	w.point(w.t, name, `{"profile":"`+name+`","return":{"policy":"grace","grace":"1ms"}}`)
	d := w.device(name, "beyond")
	old := d.enroll(d.challenge())
	ended(old)
	// The next one must live until the device asks for it.
	w.profile(w.t, name, 1, "1d")
	c := d.gets(asking{renewal: true}, func() {
		if _, err := w.s.Client.ApproveEnrollment(w.t.Context(), d.waiting().ID); err != nil {
			w.t.Error(err)
		}
	})
	if c.Equal(old) {
		w.t.Error("it has the old certificate")
	}
}

func (w *walk) off() {
	d := w.device("off", "off")
	ended(d.enroll(d.challenge()))
	d.refused(asking{renewal: true})
	// What always helps.
	d.newKey()
	d.enroll(d.challenge())
}

func (w *walk) webhook() {
	for _, temper := range []string{"allow", "deny", "slow", "broken", "garbage", "away", "name", "anchor"} {
		d := w.device("hook-"+temper, "hook-"+temper)
		if temper == "allow" {
			d.enroll("what the broker knows")
			continue
		}
		d.refused(asking{challenge: "what the broker knows"})
		if trusted := temper != "name" && temper != "anchor" && temper != "away"; trusted != w.hook.wasAsked(d.name) {
			w.t.Errorf("%s: the request was sent: %v", temper, !trusted)
		}
	}
	list, err := w.s.Client.ListCertificates(w.t.Context(), client.CertificateQuery{Text: w.program.String() + "-hook-"})
	if err != nil || len(list.Certificates) != 1 {
		w.t.Errorf("%d certificates by webhook, %v; want the one that was allowed", len(list.Certificates), err)
	}
}
