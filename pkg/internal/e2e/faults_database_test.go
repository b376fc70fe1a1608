package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/internal/pgtest"
)

// staleEnv has OCSP answer tryLater soon after the database has gone.
const (
	maxStale = 3 * time.Second
	staleEnv = "CERTWRIGHT_OCSP_MAX_STALE=3s"
)

// outage is a server whose database is away, with what was issued before.
type outage struct {
	s             *Server
	ids           []string
	issuing       faultCA
	good, revoked client.Certificate
	fresh         client.Certificate // good; nobody has asked OCSP for it yet
	request       string
	secrets       []string // what no answer may contain
}

func beforeOutage(t *testing.T, s *Server, dsn string) *outage {
	t.Helper()
	o := &outage{s: s, ids: listsOfForms(t, s), issuing: faultIssuer(t, s, "issuing"), request: newFaultCSR(t, "outage.example.com")}
	for _, c := range []*client.Certificate{&o.good, &o.revoked, &o.fresh} {
		var err error
		if *c, err = s.Client.Issue(t.Context(), client.IssueRequest{CSR: o.request, Profile: "server"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Client.Revoke(t.Context(), o.revoked.ID, client.RevokeRequest{}); err != nil {
		t.Fatal(err)
	}
	o.expectOCSP(t, o.good, ocsp.Good)
	o.expectOCSP(t, o.revoked, ocsp.Revoked)
	o.inCRL(t, 1)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	o.secrets = []string{dsn, password, strings.Trim(u.Path, "/"), "postgres:", "SELECT", "INSERT", "dial ", "connection refused", "no such file", "SQLSTATE", "pgx", "pgconn"}
	for _, more := range []string{u.Host, u.Query().Get("host"), u.Query().Get("port")} {
		if more != "" {
			o.secrets = append(o.secrets, more)
		}
	}
	return o
}

func (o *outage) expectOCSP(t testing.TB, c client.Certificate, want int) {
	t.Helper()
	if got, err := askOCSP(o.s, o.issuing, serialOfPEM(t, c)); err != nil || got != want {
		t.Errorf("OCSP = %d, %v; want %d", got, err, want)
	}
}

// call sends a request to the API and returns the answer with its body, and how long it took; nil if there was none,
// which fails the test.
func (o *outage) call(t testing.TB, method, path string, body any) (*http.Response, []byte, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, o.s.HTTPS+"/api/v1"+path, content)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+o.s.Token)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	began := time.Now()
	res, err := o.s.Browser(nil).Do(r)
	if err != nil {
		t.Errorf("%s %s: no answer: %v", method, path, err)
		return nil, nil, 0
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
		return nil, nil, 0
	}
	return res, answer, time.Since(began)
}

// unavailable expects that everything that needs the database says 503, within the limit and without telling why.
func (o *outage) unavailable(t *testing.T, limit time.Duration, skip ...string) {
	t.Helper()
	rows := []struct {
		method, path string
		body         any
	}{
		{"POST", "/certificates", client.IssueRequest{CSR: o.request, Profile: "server"}},
		{"POST", "/certificates/" + o.good.ID + "/revoke", client.RevokeRequest{Reason: "superseded"}},
		{"POST", "/certificates/" + o.good.ID + "/hold", nil},
		{"POST", "/certificates/" + o.good.ID + "/renew", client.RenewRequest{}},
		{"GET", "/certificates", nil},
		{"GET", "/certificates?count=true&text=outage", nil},
		{"GET", "/certificates/" + o.good.ID, nil},
		{"GET", "/issuers/issuing/certificates/" + o.good.Serial, nil},
		{"GET", "/tokens", nil},
		{"POST", "/tokens", client.CreateTokenRequest{Name: "outage", Role: "auditor"}},
		{"DELETE", "/tokens/admin", nil},
		{"GET", "/audit", nil},
		{"GET", "/audit/verify", nil},
	}
	var wg sync.WaitGroup
	for _, row := range rows {
		if slices.Contains(skip, row.path) {
			continue
		}
		wg.Go(func() {
			res, body, took := o.call(t, row.method, row.path, row.body)
			name := row.method + " " + row.path
			if res == nil {
				return
			}
			var d client.Error
			if err := json.Unmarshal(body, &d); err != nil || res.StatusCode != 503 || d.Kind() != "unavailable" || d.Detail == "" ||
				res.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: want a problem document of 503, got %s: %.300s", name, res.Status, body)
			}
			if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || n < 1 || n > 60 {
				t.Errorf("%s: Retry-After is %q", name, res.Header.Get("Retry-After"))
			}
			if took > limit+busy {
				t.Errorf("%s: answered after %s", name, took)
			}
			o.tellsNothing(t, name, body)
		})
	}
	wg.Wait()
}

func (o *outage) tellsNothing(t testing.TB, name string, body []byte) {
	t.Helper()
	for block, rest := pem.Decode(body); block != nil; block, rest = pem.Decode(body) {
		body = rest // three letters can stand in any base64
	}
	for _, secret := range o.secrets {
		if bytes.Contains(bytes.ToLower(body), []byte(strings.ToLower(secret))) {
			t.Errorf("%s: the answer tells %q: %.500s", name, secret, body)
		}
	}
}

// served expects that everything goes on that needs no database.
func (o *outage) served(t *testing.T) {
	t.Helper()
	for _, path := range []string{"/healthz", "/", "/roots.pem", "/client-ca.pem", "/crls/issuing.pem", "/chain/issuing.pem"} {
		o.tellsNothing(t, path, fetch(t, o.s.HTTP+path))
	}
	for _, id := range o.ids {
		list, err := x509.ParseRevocationList(fetch(t, o.s.HTTP+"/crl/"+id+".crl"))
		if err != nil {
			t.Error(err)
		} else if (id == o.issuing.keyID || id == listOf(parseCertificate(t, []byte(o.revoked.PEM)))) && !slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
			return e.SerialNumber.Cmp(serialOfPEM(t, o.revoked)) == 0
		}) {
			t.Error("the CRL lacks what was revoked before")
		}
		if !bytes.HasPrefix(fetch(t, o.s.HTTP+"/crl/"+id+".pem"), []byte("-----BEGIN X509 CRL-----")) {
			t.Error("no CRL in PEM")
		}
	}
	for _, path := range []string{"/issuers", "/server", "/whoami", "/profiles"} {
		if res, body, _ := o.call(t, "GET", path, nil); res != nil && res.StatusCode != 200 {
			t.Errorf("GET %s: %s: %.300s", path, res.Status, body)
		}
	}
	res, err := o.s.Browser(nil).Get(o.s.HTTPS + "/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("the start page over HTTPS: %s", res.Status)
	}
}

// ocspEnds expects that OCSP says tryLater from some moment within the limit on, and nothing wrong before.
func (o *outage) ocspEnds(t *testing.T, limit time.Duration) {
	t.Helper()
	want := map[string]int{o.good.ID: ocsp.Good, o.revoked.ID: ocsp.Revoked, o.fresh.ID: ocsp.Good}
	ask := func() (later int) {
		for _, c := range []client.Certificate{o.good, o.revoked, o.fresh} {
			switch got, err := askOCSP(o.s, o.issuing, serialOfPEM(t, c)); {
			case errors.Is(err, errTryLater):
				later++
			case err != nil:
				t.Errorf("OCSP: %v", err)
			case got != want[c.ID]:
				t.Errorf("OCSP says %d of a certificate whose status is %d", got, want[c.ID])
			}
		}
		return later
	}
	took := eventually(t, limit, "tryLater for all", func() error {
		if n := ask(); n < 3 {
			return fmt.Errorf("for %d of 3", n)
		}
		return nil
	})
	for range 20 { // and it stays so
		if n := ask(); n != 3 {
			t.Errorf("OCSP answers %d of 3 again, while the database is away", 3-n)
		}
	}
	t.Logf("OCSP says tryLater after %s", took)
}

// recovers expects that everything works again within the limit.
func (o *outage) recovers(t *testing.T, limit time.Duration) {
	t.Helper()
	began := time.Now()
	left := func() time.Duration { return limit - time.Since(began) }
	eventually(t, left(), "issuing again", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := o.s.Client.Issue(ctx, client.IssueRequest{CSR: o.request, Profile: "server"})
		return err
	})
	eventually(t, left(), "ready again", func() error {
		if !o.s.IsReady() {
			return errors.New("not ready")
		}
		return nil
	})
	for _, c := range []client.Certificate{o.good, o.revoked, o.fresh} {
		eventually(t, left(), "OCSP again", func() error {
			_, err := askOCSP(o.s, o.issuing, serialOfPEM(t, c))
			return err
		})
	}
	o.expectOCSP(t, o.good, ocsp.Good)
	o.expectOCSP(t, o.revoked, ocsp.Revoked)
	o.expectOCSP(t, o.fresh, ocsp.Good)
	t.Logf("everything works again after %s", time.Since(began))
	if v, err := o.s.Client.VerifyAudit(t.Context()); err != nil || !v.Whole {
		t.Errorf("the audit chain: %+v, %v", v, err)
	}
	// CRLs are made again.
	if _, err := o.s.Client.Revoke(t.Context(), o.fresh.ID, client.RevokeRequest{}); err != nil {
		t.Fatal(err)
	}
	o.inCRL(t, 2)
	shard := o.s.HTTP + "/crl/" + listOf(parseCertificate(t, []byte(o.fresh.PEM))) + ".crl"
	eventually(t, crlLease, "the revocation on the list of its shard", func() error {
		list, err := x509.ParseRevocationList(fetch(t, shard))
		if err == nil && !slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(serialOfPEM(t, o.fresh)) == 0 }) {
			err = errors.New("not there")
		}
		return err
	})
}

// inCRL waits until the CRL has n revocations.
func (o *outage) inCRL(t testing.TB, n int) {
	t.Helper()
	eventually(t, crlLease, fmt.Sprintf("%d revocations in the CRL", n), func() error {
		list, err := x509.ParseRevocationList(fetch(t, o.s.HTTP+"/crl/"+o.issuing.keyID+".crl"))
		if err == nil && len(list.RevokedCertificateEntries) < n {
			err = errors.New("not there")
		}
		return err
	})
}

// notReady expects that /readyz says why, and no more than that.
func (o *outage) notReady(t *testing.T) {
	t.Helper()
	eventually(t, 10*time.Second, "/readyz says 503", func() error {
		res, err := plainHTTP.Get(o.s.HTTP + "/readyz")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		o.tellsNothing(t, "/readyz", body)
		if res.StatusCode != 503 {
			return fmt.Errorf("%s", res.Status)
		}
		var h struct {
			Status string
			Checks map[string]string
		}
		if err := json.Unmarshal(body, &h); err != nil || h.Status != "failing" || h.Checks["store"] == "ok" || h.Checks["crl"] != "ok" {
			t.Errorf("/readyz: %s", body)
		}
		return nil
	})
}

// TestDatabaseAway stops Postgres while the server runs.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	dsn := pg.DSN()
	s := Start(t, Options{Database: dsn, Env: []string{staleEnv}})
	o := beforeOutage(t, s, dsn)
	pg.Stop()
	o.unavailable(t, 6*time.Second)
	o.served(t)
	o.ocspEnds(t, maxStale+3*time.Second)
	o.notReady(t)
	o.served(t)
	o.unavailable(t, 6*time.Second)
	pg.Start()
	o.recovers(t, 10*time.Second)
}

// TestDatabaseSilent cuts the network to Postgres in the way that is worst: packets vanish, connections stay open, and
// nobody says so.
func TestDatabaseSilent(t *testing.T) {
	t.Parallel()
	dsn := pgtest.TCP(pgtest.DSN(t))
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, u.Host)
	u.Host = p.addr
	s := Start(t, Options{Database: u.String(), Env: []string{staleEnv}})
	o := beforeOutage(t, s, u.String())
	p.silence()
	// A write that has begun when the network falls silent waits for its outcome longer than reads do.
	o.unavailable(t, 35*time.Second, "/audit/verify")
	o.served(t)
	o.ocspEnds(t, 20*time.Second)
	o.notReady(t)
	p.speak()
	o.recovers(t, 20*time.Second)
}

// proxy passes connections on until it is silenced: then it takes bytes and connections, and passes nothing on. What was
// silenced once stays so; connections made after speak work.
type proxy struct {
	addr, to string
	mu       sync.Mutex
	mute     chan struct{} // closed when silenced
	conns    []net.Conn
}

func startProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), to: to, mute: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			mute := p.mute
			p.conns = append(p.conns, in)
			p.mu.Unlock()
			wg.Go(func() { p.pass(in, mute) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		wg.Wait()
	})
	return p
}

func (p *proxy) pass(in net.Conn, mute <-chan struct{}) {
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		in.Close()
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, out)
	p.mu.Unlock()
	copyTo := func(to, from net.Conn) {
		b := make([]byte, 32<<10)
		for {
			n, err := from.Read(b)
			select {
			case <-mute: // taken, and dropped; the other end learns nothing, not even of an end
				if err != nil {
					return
				}
				continue
			default:
			}
			if n > 0 {
				if _, err := to.Write(b[:n]); err != nil {
					return
				}
			}
			if err != nil {
				to.Close()
				return
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { copyTo(out, in) })
	wg.Go(func() { copyTo(in, out) })
	wg.Wait()
}

func (p *proxy) silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.mute)
}

func (p *proxy) speak() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = make(chan struct{})
}
