package e2e

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
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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
			for _, story := range []struct {
				name string
				walk func(t *testing.T, s *fleetStories)
			}{
				{"a one-time challenge is used once", storyOnce},
				{"a challenge for another subject", storyBound},
				{"pending, approved", storyApproved},
				{"pending, denied", storyDenied},
				{"pending, forgotten", storyForgotten},
				{"wiped", storyWiped},
				{"blocked", storyBlocked},
				{"ended, within grace", storyGrace},
				{"ended, beyond grace", storyBeyond},
				{"ended, and refused", storyRefused},
				{"webhook", storyWebhook},
				{"certmonger", storyCertmonger},
			} {
				t.Run(story.name, func(t *testing.T) {
					t.Parallel()
					story.walk(t, stories)
				})
			}
		})
	}
}

// fleetStories is what the stories of one server share.
type fleetStories struct {
	s    *Server
	dir  string // what GetCACert brings, as strongSwan writes it
	hook *hookServer
	keys scepraw.Keys
}

func newStories(t *testing.T, s *Server) *fleetStories {
	t.Helper()
	Need(t, "pki", "openssl", "dbus-run-session", "certmonger", "getcert")
	f := &fleetStories{s: s, dir: t.TempDir(), hook: newHookServer(t)}
	for _, name := range []string{"brief", "changing"} {
		if _, err := s.Client.CreateProfile(t.Context(), json.RawMessage(`{"name":"`+name+`","kind":"device","validity":{"default":"2s","max":"1d"}}`)); err != nil {
			t.Fatal(err)
		}
	}
	for name, settings := range map[string]string{
		"plain":    `{"device":{"registered":true}}`,
		"careful":  `{"approval":true}`,
		"hasty":    `{"approval":true,"pendingLife":"1s"}`,
		"replaced": `{"replacement":"revoke"}`,
		"grace":    `{"profile":"brief","return":{"policy":"grace","grace":"30d","validity":"1m"}}`,
		"beyond":   `{"profile":"changing","return":{"policy":"grace","grace":"1ms"}}`,
		"off":      `{"profile":"brief","return":{"policy":"refuse"}}`,
	} {
		f.point(t, name, settings)
	}
	f.hook.points(t, f)
	run(t, f.dir, true, "pki", "--scepca", "--url", s.HTTP+"/scep/plain", "--caout", "ca.der", "--raout", "ra.der")
	return f
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

// run runs a program in a folder. Whether it worked must be as wanted.
func run(t *testing.T, dir string, works bool, name string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*callTimeout)
	defer cancel()
	r := Run(ctx, t, Command{Path: Need(t, name)[0], Args: args, Dir: dir})
	if (r.Code == 0) != works {
		t.Fatalf("%s %s ended with %d:\n%s", name, strings.Join(args, " "), r.Code, r.Err)
	}
	return r
}

// swan is a device that runs strongSwan's pki.
type swan struct {
	*fleetStories
	t                *testing.T
	dir, point, name string
}

// device returns a device with a key. name is its id, and its common name.
func (f *fleetStories) device(t *testing.T, point, name string) *swan {
	t.Helper()
	d := &swan{fleetStories: f, t: t, dir: t.TempDir(), point: point, name: name}
	d.newKey()
	return d
}

func (d *swan) newKey() {
	d.t.Helper()
	writeFile(d.t, filepath.Join(d.dir, "key.der"), x509.MarshalPKCS1PrivateKey(d.keys.Next()))
}

func (d *swan) challenge(edit ...func(*client.CreateChallengeRequest)) string {
	d.t.Helper()
	r := client.CreateChallengeRequest{Point: d.point, Device: d.name}
	for _, e := range edit {
		e(&r)
	}
	c, err := d.s.Client.CreateChallenge(d.t.Context(), r)
	if err != nil {
		d.t.Fatal(err)
	}
	return c.Challenge
}

// ask runs pki --scep. A --dn among the arguments is in place of the device's name.
func (d *swan) ask(works bool, more ...string) Result {
	d.t.Helper()
	ca := func(name string) string { return filepath.Join(d.fleetStories.dir, name) }
	args := []string{
		"--scep", "--url", d.s.HTTP + "/scep/" + d.point, "--in", "key.der", "--cacert-enc", ca("ra.der"), "--cacert-sig", ca("ra.der"),
		"--cacert", ca("ca.der"), "--cacert", ca("ca-1.der"), "--interval", "1",
	}
	if !strings.Contains(strings.Join(more, " "), "--dn") {
		args = append(args, "--dn", "CN="+d.name)
	}
	return run(d.t, d.dir, works, "pki", append(args, more...)...)
}

// enroll has the device get a certificate by a challenge, or refused with a failInfo.
func (d *swan) enroll(challenge string, more ...string) *x509.Certificate {
	d.t.Helper()
	return d.has(d.ask(true, append(more, "--password", challenge)...))
}

// has reads what pki has written, and keeps it as the device's certificate.
func (d *swan) has(r Result) *x509.Certificate {
	d.t.Helper()
	c, err := x509.ParseCertificate([]byte(r.Out))
	if err != nil {
		d.t.Fatalf("the device has no certificate: %v\n%s", err, r.Err)
	}
	if c.Subject.CommonName != d.name {
		d.t.Errorf("the device %s has a certificate for %s", d.name, c.Subject)
	}
	writeFile(d.t, filepath.Join(d.dir, "cert.der"), c.Raw)
	known, err := d.s.Client.Certificate(d.t.Context(), idOf(c))
	if err != nil || known.Protocol != "scep" || known.Requester != "scep:"+d.point && !strings.Contains(known.Requester, "admin") {
		d.t.Errorf("the server knows the certificate as %+v, %v", known, err)
	}
	return c
}

// renewal are pki's arguments for a renewal.
func renewal() []string { return []string{"--cert", "cert.der", "--key", "key.der"} }

// saved copies the device's key and certificate, as a thief does, and returns his arguments.
func (d *swan) saved(name string) []string {
	d.t.Helper()
	for _, file := range []string{"key", "cert"} {
		writeFile(d.t, filepath.Join(d.dir, name+"-"+file+".der"), readFile(d.t, filepath.Join(d.dir, file+".der")))
	}
	return []string{"--in", name + "-key.der", "--cert", name + "-cert.der", "--key", name + "-key.der"}
}

// refusedWith checks that pki was refused with a failInfo.
func refusedWith(t *testing.T, r Result, failInfo string) {
	t.Helper()
	if r.Out != "" || !strings.Contains(r.Err, failInfo) {
		t.Errorf("pki should have been refused with %s:\n%s", failInfo, r.Err)
	}
}

// ended waits until a certificate has ended.
func ended(c *x509.Certificate) { time.Sleep(time.Until(c.NotAfter.Add(1100 * time.Millisecond))) }

// waiting returns the request of a device that waits, once there is one.
func (d *swan) waiting() client.Enrollment {
	d.t.Helper()
	var found client.Enrollment
	eventually(d.t, callTimeout, "a request waits", func() error {
		list, _, err := d.s.Client.Enrollments(d.t.Context(), client.EnrollmentQuery{Point: d.point, State: "pending"})
		for _, e := range list {
			if strings.Contains(e.Subject, "CN="+d.name) {
				found = e
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("%d requests wait, and none of %s", len(list), d.name))
	})
	return found
}

// meanwhile runs f while the device polls, and returns what pki says in the end.
func (d *swan) meanwhile(works bool, args []string, f func()) Result {
	d.t.Helper()
	var background sync.WaitGroup
	var r Result
	ctx, cancel := context.WithTimeout(d.t.Context(), 2*callTimeout)
	defer cancel()
	ca := func(name string) string { return filepath.Join(d.fleetStories.dir, name) }
	args = append([]string{
		"--scep", "--url", d.s.HTTP + "/scep/" + d.point, "--in", "key.der", "--cacert-enc", ca("ra.der"), "--cacert-sig", ca("ra.der"),
		"--cacert", ca("ca.der"), "--cacert", ca("ca-1.der"), "--interval", "1", "--dn", "CN=" + d.name, "--maxpolltime", "100",
	}, args...)
	path := Need(d.t, "pki")[0]
	background.Go(func() { r = Run(ctx, d.t, Command{Path: path, Args: args, Dir: d.dir}) })
	f()
	background.Wait()
	if (r.Code == 0) != works {
		d.t.Fatalf("pki ended with %d:\n%s", r.Code, r.Err)
	}
	return r
}

func storyOnce(t *testing.T, f *fleetStories) {
	d := f.device(t, "plain", "once-1")
	text := d.challenge()
	d.enroll(text)
	d.newKey()
	refusedWith(t, d.ask(false, "--password", text), "badRequest")
	all, _, err := f.s.Client.Challenges(t.Context(), client.ChallengeQuery{Device: d.name})
	if err != nil || len(all) != 1 || all[0].Status != "used" {
		t.Errorf("its challenges are %+v, %v", all, err)
	}
}

func storyBound(t *testing.T, f *fleetStories) {
	d := f.device(t, "plain", "bound-1")
	text := d.challenge(func(r *client.CreateChallengeRequest) {
		r.Subject, r.SANs = "CN=bound-1", []string{"DNS:bound-1.example.com"}
	})
	refusedWith(t, d.ask(false, "--dn", "CN=bound-2", "--password", text), "badRequest")
	refusedWith(t, d.ask(false, "--san", "bound-2.example.com", "--password", text), "badRequest")
	if c := d.enroll(text); len(c.DNSNames) != 1 || c.DNSNames[0] != "bound-1.example.com" {
		t.Errorf("names %v, want those of the challenge", c.DNSNames)
	}
}

func storyApproved(t *testing.T, f *fleetStories) {
	d := f.device(t, "careful", "approved-1")
	d.has(d.meanwhile(true, []string{"--password", d.challenge()}, func() {
		if _, err := f.s.Client.ApproveEnrollment(t.Context(), d.waiting().ID); err != nil {
			t.Error(err)
		}
	}))
}

func storyDenied(t *testing.T, f *fleetStories) {
	d := f.device(t, "careful", "denied-1")
	refusedWith(t, d.meanwhile(false, []string{"--password", d.challenge()}, func() {
		if _, err := f.s.Client.DenyEnrollment(t.Context(), d.waiting().ID, "not one of ours"); err != nil {
			t.Error(err)
		}
	}), "badRequest")
}

func storyForgotten(t *testing.T, f *fleetStories) {
	d := f.device(t, "hasty", "forgotten-1")
	refusedWith(t, d.ask(false, "--password", d.challenge(), "--maxpolltime", "100"), "badRequest")
	list, _, err := f.s.Client.Enrollments(t.Context(), client.EnrollmentQuery{Point: "hasty"})
	if err != nil || len(list) != 1 || list[0].State != "expired" {
		t.Fatalf("the point's requests: %+v, %v", list, err)
	}
	if _, err := f.s.Client.ApproveEnrollment(t.Context(), list[0].ID); !isStatus(err, http.StatusConflict) {
		t.Errorf("approving it: %v, want 409", err)
	}
}

func isStatus(err error, status int) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Status == status
}

// status waits until the server says of a certificate that it is so.
func (d *swan) status(c *x509.Certificate, want string) {
	d.t.Helper()
	eventually(d.t, callTimeout, "the certificate is "+want, func() error {
		got, err := d.s.Client.Certificate(d.t.Context(), idOf(c))
		if err == nil && got.Status != want {
			err = errors.New("it is " + got.Status)
		}
		return err
	})
}

func storyWiped(t *testing.T, f *fleetStories) {
	for _, point := range []string{"plain", "replaced"} {
		d := f.device(t, point, "wiped-"+point)
		old := d.enroll(d.challenge())
		thief := d.saved("thief")
		d.newKey() // the rest is gone
		fresh := d.enroll(d.challenge())
		if known, err := f.s.Client.Certificate(t.Context(), idOf(fresh)); err != nil || known.Device != d.name || known.Replaces != "" {
			t.Errorf("%s: the new certificate: %+v, %v", point, known, err)
		}
		if point == "replaced" {
			d.status(old, "revoked")
			refusedWith(t, d.ask(false, thief...), "badRequest")
		} else {
			// It stays good, and is not the newest any more. It would be too early, too.
			d.status(old, "valid")
			refusedWith(t, d.ask(false, thief...), "badRequest")
		}
		d.status(fresh, "valid")
	}
}

func storyBlocked(t *testing.T, f *fleetStories) {
	d := f.device(t, "plain", "blocked-1")
	c := d.enroll(d.challenge())
	open := d.challenge() // made before
	f.tell(t, d.name, "block")
	refusedWith(t, d.ask(false, renewal()...), "badRequest")
	thief := d.saved("thief")
	d.newKey()
	refusedWith(t, d.ask(false, "--password", open), "badRequest")
	if _, err := f.s.Client.CreateChallenge(t.Context(), client.CreateChallengeRequest{Point: "plain", Device: d.name}); err == nil {
		t.Error("a blocked device got a challenge")
	}
	d.status(c, "revoked")
	f.tell(t, d.name, "unblock")
	d.enroll(d.challenge())
	refusedWith(t, d.ask(false, thief...), "badRequest")
}

func storyGrace(t *testing.T, f *fleetStories) {
	d := f.device(t, "grace", "grace-1")
	old := d.enroll(d.challenge())
	ended(old)
	c := d.has(d.ask(true, renewal()...))
	if known, err := f.s.Client.Certificate(t.Context(), idOf(c)); err != nil || known.Replaces != idOf(old) || known.NotAfter.Sub(known.IssuedAt) > time.Minute {
		t.Errorf("the certificate: %+v, %v; want one that lives for a minute at most and replaces the old one", known, err)
	}
	page, err := f.s.Client.Audit(t.Context(), client.AuditQuery{Action: "enrollment.return"})
	if err != nil || len(page.Events) == 0 {
		t.Errorf("the audit trail has %d offline returns, %v", len(page.Events), err)
	}
}

func storyBeyond(t *testing.T, f *fleetStories) {
	d := f.device(t, "beyond", "beyond-1")
	old := d.enroll(d.challenge())
	ended(old)
	// The next one must live until the device asks for it.
	if _, err := f.s.Client.PutProfile(t.Context(), "changing", 1, json.RawMessage(`{"name":"changing","kind":"device","validity":{"default":"1d","max":"1d"}}`)); err != nil {
		t.Fatal(err)
	}
	c := d.has(d.meanwhile(true, renewal(), func() {
		if _, err := f.s.Client.ApproveEnrollment(t.Context(), d.waiting().ID); err != nil {
			t.Error(err)
		}
	}))
	if c.Equal(old) {
		t.Error("it has the old certificate")
	}
}

func storyRefused(t *testing.T, f *fleetStories) {
	d := f.device(t, "off", "off-1")
	ended(d.enroll(d.challenge()))
	refusedWith(t, d.ask(false, renewal()...), "badRequest")
	// What always helps.
	d.enroll(d.challenge())
}

// hookServer is a webhook's receivers: each has a path, and a point of the same name.
type hookServer struct {
	good, lying *httptest.Server
	anchors     string // PEM of what the good one's certificate is from
	asked       atomic.Int64
	done        chan struct{} // ends what is slow
}

func newHookServer(t *testing.T) *hookServer {
	h := &hookServer{done: make(chan struct{})}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, body string) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
	note := func(r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		h.asked.Add(1)
	}
	mux.HandleFunc("/allow", func(w http.ResponseWriter, r *http.Request) { note(r); answer(w, `{"decision":"allow"}`) })
	mux.HandleFunc("/deny", func(w http.ResponseWriter, r *http.Request) {
		note(r)
		answer(w, `{"decision":"deny","text":"not one of ours"}`)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		note(r)
		select {
		case <-h.done:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, r *http.Request) {
		note(r)
		http.Error(w, "it is broken", http.StatusInternalServerError)
	})
	mux.HandleFunc("/garbage", func(w http.ResponseWriter, r *http.Request) { note(r); answer(w, `{"decision":"allow"`) })
	ca, caKey, anchors := hookCA(t)
	h.anchors = anchors
	quiet := func(c tls.Certificate) *httptest.Server {
		s := httptest.NewUnstartedServer(mux)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{c}}
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // who is not trusted is hung up on
		s.StartTLS()
		return s
	}
	h.good = quiet(hookLeaf(t, ca, caKey, net.IPv4(127, 0, 0, 1)))
	// The right authority, and another's address: whoever has a certificate from there would do otherwise.
	h.lying = quiet(hookLeaf(t, ca, caKey, net.IPv4(192, 0, 2, 1)))
	t.Cleanup(func() {
		close(h.done)
		h.good.Close()
		h.lying.Close()
	})
	return h
}

func hookCA(t *testing.T) (*x509.Certificate, *ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Webhooks"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err == nil {
		c, err = x509.ParseCertificate(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
}

func hookLeaf(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey, ip net.IP) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "webhook"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		IPAddresses: []net.IP{ip}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// points makes a point for each temper.
func (h *hookServer) points(t *testing.T, f *fleetStories) {
	t.Helper()
	_, _, strange := hookCA(t)
	for name, c := range map[string]struct{ url, anchors string }{
		"hook-allow":   {h.good.URL + "/allow", h.anchors},
		"hook-deny":    {h.good.URL + "/deny", h.anchors},
		"hook-slow":    {h.good.URL + "/slow", h.anchors},
		"hook-broken":  {h.good.URL + "/broken", h.anchors},
		"hook-garbage": {h.good.URL + "/garbage", h.anchors},
		"hook-away":    {"https://" + loopback(FreePort(t)) + "/allow", h.anchors},
		"hook-name":    {h.lying.URL + "/allow", h.anchors}, // another's certificate
		"hook-anchor":  {h.good.URL + "/allow", strange},    // of an authority that nobody knows
	} {
		anchors, err := json.Marshal(c.anchors)
		if err != nil {
			t.Fatal(err)
		}
		f.point(t, name, fmt.Sprintf(`{"challenges":["webhook"],"webhook":{"url":%q,"timeout":"1s","retries":1,"allow":["127.0.0.0/8"],"ca":%s}}`, c.url, anchors))
		if _, err := f.s.Client.NewWebhookSecret(t.Context(), name, ""); err != nil {
			t.Fatal(err)
		}
	}
}

func storyWebhook(t *testing.T, f *fleetStories) {
	for _, temper := range []string{"allow", "deny", "slow", "broken", "garbage", "away", "name", "anchor"} {
		d := f.device(t, "hook-"+temper, "hook-"+temper+"-1")
		if temper == "allow" {
			d.enroll("what the broker knows")
			continue
		}
		before := f.hook.asked.Load()
		refusedWith(t, d.ask(false, "--password", "what the broker knows"), "badRequest")
		if trusted := temper != "name" && temper != "anchor" && temper != "away"; trusted != (f.hook.asked.Load() > before) {
			t.Errorf("%s: the request was sent: %v", temper, !trusted)
		}
	}
	list, err := f.s.Client.ListCertificates(t.Context(), client.CertificateQuery{Text: "hook-"})
	if err != nil || len(list.Certificates) != 1 {
		t.Errorf("%d certificates by webhook, %v; want the one that was allowed", len(list.Certificates), err)
	}
}

// storyCertmonger is where certmonger goes its own ways: it waits, and asks when it is told to; and it renews what it has,
// be it old or new.
func storyCertmonger(t *testing.T, f *fleetStories) {
	dir := t.TempDir()
	for _, folder := range []string{"config", "requests", "cas", "local"} {
		mkdir(t, filepath.Join(dir, folder))
	}
	challenge := func(file, point, device string) {
		c, err := f.s.Client.CreateChallenge(t.Context(), client.CreateChallengeRequest{Point: point, Device: device})
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, file), []byte(c.Challenge+"\n"))
	}
	challenge("wait.txt", "careful", "monger-wait")
	challenge("wiped.txt", "replaced", "monger-wiped")
	challenge("again.txt", "replaced", "monger-wiped")
	challenge("grace.txt", "grace", "monger-grace")
	challenge("off.txt", "off", "monger-off")
	// The session tells what it has come to by files, and goes on when the test has done its part.
	script := `
		certmonger -s -n 2>/dev/null & CM=$!
		trap 'kill $CM' EXIT
		within() { for i in $(seq 1 600); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "not within 60 s: $*"; getcert list -s; exit 1; }
		is() { getcert list -s -i "$1" | grep -q "status: $2"; }
		rejected() { getcert list -s -i "$1" | grep -q 'ca-error: '; }
		changed() { ! cmp -s "$1" "$2"; }
		there() { [ -e "$1" ]; }
		refreshed() { getcert refresh -s -i "$1"; sleep 0.3; is "$1" "$2"; }
		request() { getcert request -s -R -I "$1" -c "$2" -f "$PWD/$1.crt" -k "$PWD/$1.key" -N "CN=$3" -l "$PWD/$4" || exit 1; }
		within getcert list-cas -s
		/usr/lib/certmonger/scep-submit -u "$URL/plain" -C > all.pem || exit 1
		awk '/BEGIN/{n++} {print > ("ca" n ".pem")}' all.pem
		for p in careful replaced grace off; do
			getcert add-scep-ca -s -c $p -u "$URL/$p" -N $PWD/ca2.pem -r $PWD/ca1.pem -I $PWD/ca3.pem || exit 1
		done
		request grace grace monger-grace grace.txt
		request off off monger-off off.txt
		request wait careful monger-wait wait.txt
		request wiped replaced monger-wiped wiped.txt
		within there grace.crt && cp grace.crt grace-1.crt
		within there off.crt && cp off.crt off-1.crt
		within is wiped MONITORING
		cp wiped.crt wiped-1.crt
		getcert stop-tracking -s -i wiped >/dev/null || exit 1
		rm wiped.crt wiped.key
		request again replaced monger-wiped again.txt
		within is again MONITORING
		touch waits
		within there approved
		within refreshed wait MONITORING
		within there ended
		getcert resubmit -s -i grace || exit 1
		within changed grace.crt grace-1.crt
		getcert resubmit -s -i off || exit 1
		within rejected off
		cmp off.crt off-1.crt || exit 1`
	ctx, cancel := context.WithTimeout(t.Context(), 4*callTimeout)
	defer cancel()
	var session sync.WaitGroup
	var r Result
	dbus := Need(t, "dbus-run-session")[0]
	session.Go(func() {
		r = Run(ctx, t, Command{Path: dbus, Args: []string{"bash", "-c", script}, Dir: dir, Env: append(os.Environ(),
			"URL="+f.s.HTTP+"/scep", "CERTMONGER_CONFIG_DIR="+filepath.Join(dir, "config"), "CERTMONGER_REQUESTS_DIR="+filepath.Join(dir, "requests"),
			"CERTMONGER_CAS_DIR="+filepath.Join(dir, "cas"), "CERTMONGER_LOCAL_CA_DIR="+filepath.Join(dir, "local"))})
	})
	defer session.Wait()
	over := make(chan struct{})
	go func() { session.Wait(); close(over) }()
	// until waits for the session to come to something.
	until := func(what string, there func() bool) bool {
		for !there() {
			select {
			case <-over:
				t.Errorf("certmonger's session ended with %d before %s:\n%s\n%s", r.Code, what, r.Out, r.Err)
				return false
			case <-time.After(pollInterval):
			}
		}
		return true
	}
	exists := func(name string) func() bool {
		return func() bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
	}
	tell := func(name string) { writeFile(t, filepath.Join(dir, name), nil) }
	if !until("a request waits", exists("waits")) {
		return
	}
	d := &swan{fleetStories: f, t: t, point: "careful", name: "monger-wait"}
	if _, err := f.s.Client.ApproveEnrollment(t.Context(), d.waiting().ID); err != nil {
		t.Error(err)
	}
	tell("approved")
	for _, name := range []string{"grace-1.crt", "off-1.crt"} {
		ended(parseCertificate(t, readFile(t, filepath.Join(dir, name))))
	}
	tell("ended")
	<-over
	if r.Code != 0 {
		t.Fatalf("certmonger's session ended with %d:\n%s\n%s", r.Code, r.Out, r.Err)
	}
	(&swan{fleetStories: f, t: t, name: "monger-wiped"}).status(parseCertificate(t, readFile(t, filepath.Join(dir, "wiped-1.crt"))), "revoked")
	if issued := parseCertificate(t, readFile(t, filepath.Join(dir, "wait.crt"))); issued.Subject.CommonName != "monger-wait" {
		t.Errorf("certmonger waited for a certificate of %s", issued.Subject)
	}
	if bytes.Equal(readFile(t, filepath.Join(dir, "again.crt")), readFile(t, filepath.Join(dir, "wiped-1.crt"))) {
		t.Error("the wiped device has its old certificate")
	}
}

// tell tells the registry of a device something: block, unblock or retire.
func (f *fleetStories) tell(t *testing.T, id, what string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.s.HTTPS+"/api/v1/devices/"+id+"/"+what, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+f.s.Token)
	r.Header.Set("Content-Type", "application/json")
	answer, err := f.s.Browser(nil).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s, %v: %s", what, id, answer.Status, err, body)
	}
}
