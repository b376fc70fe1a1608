package e2e

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/internal/pgtest"
)

// neverWrongTime is how long TestNeverWrong tries. CERTWRIGHT_TEST_LONG, as in 1m, is for releases.
func neverWrongTime(t testing.TB) (d time.Duration, long bool) {
	t.Helper()
	text := os.Getenv("CERTWRIGHT_TEST_LONG")
	if text == "" {
		return 6 * time.Second, false
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("CERTWRIGHT_TEST_LONG: %v", err)
	}
	return d, true
}

// TestNeverWrong has many ask OCSP in all forms while certificates are issued, held, released and revoked, and while the
// database falls silent for one replica or for both. It holds every answer against what is known to be true when the
// question was asked. Without an answer nobody is let in; a wrong one lets somebody in who must not be.
//
//   - Never good for a serial number that was not issued, nor for another CA's.
//   - Never other than what the last change said, after its 2xx, from the replica that made it.
//   - Nor from the other one, once max_stale has passed since: normally within a second.
//   - Nothing but tryLater once the store has not been heard of for max_stale.
func TestNeverWrong(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		s := Start(t, Options{Env: []string{staleEnv}})
		w := newWrongs(t, &wrongServer{Server: s})
		w.run(func() {
			time.Sleep(time.Duration(1+mathrand.IntN(3)) * time.Second)
			s.Kill()
			s.Again()
		})
	})
	t.Run("replicas", func(t *testing.T) {
		t.Parallel()
		u, err := url.Parse(pgtest.TCP(pgtest.DSN(t)))
		if err != nil {
			t.Fatal(err)
		}
		to := u.Host
		behind := func() (string, *proxy) {
			p := startProxy(t, to)
			u.Host = p.addr
			return u.String(), p
		}
		var a, b wrongServer
		var dsn string
		dsn, a.database = behind()
		a.Server = Start(t, Options{Database: dsn, Env: []string{staleEnv}})
		dsn, b.database = behind()
		b.Server = Start(t, Options{Database: dsn, ReplicaOf: a.Server, PublicURL: a.PublicURL, Env: []string{staleEnv}})
		w := newWrongs(t, &a, &b)
		w.run(func() {
			// A while in which nothing is wrong, then long enough for tryLater.
			time.Sleep(time.Duration(500+mathrand.IntN(1500)) * time.Millisecond)
			victims := [][]*wrongServer{{&b}, {&a}, {&a, &b}}[w.round%3]
			for _, v := range victims {
				v.silence()
			}
			time.Sleep(maxStale + time.Duration(1000+mathrand.IntN(1500))*time.Millisecond)
			for _, v := range victims {
				v.speak()
			}
			if w.long {
				// Its connections are dead, and it has to find that out. One of them may hold a lock that others wait for.
				eventually(t, time.Minute, "all are well again", func() error {
					for _, s := range w.servers {
						ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
						_, err := s.Client.Issue(ctx, client.IssueRequest{CSR: w.request, Profile: "server"})
						cancel()
						if err != nil || !s.IsReady() {
							return fmt.Errorf("not yet: %w", err)
						}
					}
					return nil
				})
				time.Sleep(3 * maxStale)
			}
			w.round++
		})
	})
}

// wrongServer is a server whose database can fall silent.
type wrongServer struct {
	*Server
	database *proxy // nil on SQLite

	mu    sync.Mutex
	since time.Time // guarded by mu: when the database fell silent; zero while it speaks
	spoke time.Time // guarded by mu: when it last began to speak again
}

func (s *wrongServer) silence() {
	s.database.silence()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Now()
}

func (s *wrongServer) speak() {
	s.mu.Lock()
	s.since, s.spoke = time.Time{}, time.Now()
	s.mu.Unlock()
	s.database.speak()
}

// silentSince returns when the database fell silent, zero if it speaks, and whether it did so all the time of late.
func (s *wrongServer) silentSince() (since time.Time, well bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since, s.since.IsZero() && time.Since(s.spoke) > 2*maxStale
}

// subject is a certificate whose status changes.
type subject struct {
	id     string
	serial *big.Int

	mu    sync.Mutex
	state subjectState // guarded by mu
}

type subjectState struct {
	version  int
	changing bool         // somebody is changing it, or nobody knows what became of a change
	final    bool         // revoked, for ever
	status   int          // ocsp.Good or ocsp.Revoked
	by       *wrongServer // which answered with 2xx
	since    time.Time
}

func (s *subject) now() subjectState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// wrongs tries to find wrong answers.
type wrongs struct {
	t       *testing.T
	servers []*wrongServer
	root    faultCA
	issuing faultCA
	request string
	http    *http.Client
	long    bool
	round   int

	mu       sync.Mutex
	subjects []*subject // guarded by mu

	answers, laters, broken, unknowns, changes atomic.Int64
	slowest                                    atomic.Int64 // until the other replica noticed, while nothing was silent
}

func newWrongs(t *testing.T, servers ...*wrongServer) *wrongs {
	s := servers[0].Server
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	t.Cleanup(transport.CloseIdleConnections)
	return &wrongs{
		t: t, servers: servers, root: faultIssuer(t, s, "root"), issuing: faultIssuer(t, s, "issuing"), request: newFaultCSR(t, "wrong.example.com"),
		http: &http.Client{Transport: transport, Timeout: time.Second},
	}
}

// run asks and changes, and calls fault again and again.
func (w *wrongs) run(fault func()) {
	d, long := neverWrongTime(w.t)
	w.long = long
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	defer func() { cancel(); all.Wait() }()
	for range 8 {
		all.Go(func() {
			for ctx.Err() == nil && !w.t.Failed() {
				w.change(ctx)
			}
		})
	}
	for range 10 {
		all.Go(func() {
			for ctx.Err() == nil && !w.t.Failed() {
				w.ask(ctx)
			}
		})
	}
	// A busy machine needs longer for what proves something.
	little := func() bool { return w.answers.Load() < 100 || w.unknowns.Load() < 20 || w.changes.Load() < 5 }
	for end := time.Now().Add(d); (time.Now().Before(end) || little() && time.Now().Before(end.Add(busy))) && !w.t.Failed(); {
		fault()
	}
	cancel()
	all.Wait()
	w.t.Logf("%d answers about what was issued, %d about what was not, %d tryLater, %d without an answer; %d changes; the other replica noticed within %s",
		w.answers.Load(), w.unknowns.Load(), w.laters.Load(), w.broken.Load(), w.changes.Load(), time.Duration(w.slowest.Load()))
	if little() {
		w.t.Error("that is too little to prove anything")
	}
}

func (w *wrongs) server() *wrongServer { return w.servers[mathrand.IntN(len(w.servers))] }

// pick returns a certificate, one of the newest mostly; nil if there is none yet.
func (w *wrongs) pick() *subject {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.subjects)
	switch {
	case n == 0:
		return nil
	case mathrand.IntN(4) > 0:
		return w.subjects[max(0, n-1-mathrand.IntN(12))]
	}
	return w.subjects[mathrand.IntN(n)]
}

// change issues a certificate, or changes the status of one.
func (w *wrongs) change(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	by := w.server()
	x := w.pick()
	if x == nil || mathrand.IntN(4) == 0 {
		c, err := by.Client.Issue(ctx, client.IssueRequest{CSR: w.request, Profile: "server"})
		if err != nil {
			w.pause(ctx)
			return
		}
		serial, ok := new(big.Int).SetString(c.Serial, 16)
		if !ok {
			w.t.Errorf("serial number %q", c.Serial)
			return
		}
		w.mu.Lock()
		w.subjects = append(w.subjects, &subject{id: c.ID, serial: serial, state: subjectState{status: ocsp.Good, by: by, since: time.Now()}})
		w.mu.Unlock()
		return
	}
	x.mu.Lock()
	if x.state.changing || x.state.final {
		x.mu.Unlock()
		return
	}
	x.state.changing = true
	x.state.version++
	held := x.state.status == ocsp.Revoked
	x.mu.Unlock()
	time.Sleep(time.Duration(mathrand.IntN(3)) * time.Millisecond)

	status, err := ocsp.Revoked, error(nil)
	final := mathrand.IntN(4) == 0
	switch {
	case final:
		_, err = by.Client.Revoke(ctx, x.id, client.RevokeRequest{Reason: "superseded"})
	case held:
		_, err = by.Client.Release(ctx, x.id)
		status = ocsp.Good
	default:
		_, err = by.Client.Hold(ctx, x.id)
	}
	if err != nil {
		w.forget(x) // nobody knows what became of it
		w.pause(ctx)
		return
	}
	w.changes.Add(1)
	x.mu.Lock()
	x.state = subjectState{version: x.state.version, status: status, by: by, since: time.Now(), final: final}
	x.mu.Unlock()
}

// forget takes a certificate off the list.
func (w *wrongs) forget(x *subject) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subjects = slices.DeleteFunc(w.subjects, func(s *subject) bool { return s == x })
}

// pause keeps clients of a server that is away from running in circles.
func (w *wrongs) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
}

// ask asks one question, and judges the answer.
func (w *wrongs) ask(ctx context.Context) {
	x, s := w.pick(), w.server()
	if x == nil {
		time.Sleep(time.Millisecond)
		return
	}
	ca, serial, issued := w.issuing, x.serial, true
	if mathrand.IntN(8) == 0 {
		issued = false
		if mathrand.IntN(4) == 0 {
			ca = w.root // issued, and not by this one
		} else {
			serial = new(big.Int).Xor(serial, big.NewInt(1+mathrand.Int64()))
		}
	}
	before := x.now()
	began := time.Now()
	status, err := w.query(ctx, s, ca, serial)
	after := x.now()
	silent, well := s.silentSince()
	if !silent.IsZero() && began.Sub(silent) > maxStale && !errors.Is(err, errTryLater) && !isBroken(err) {
		w.t.Errorf("%s after the store fell silent the answer is %d, %v; want tryLater", began.Sub(silent), status, err)
	}
	switch {
	case errors.Is(err, errTryLater):
		w.laters.Add(1)
	case isBroken(err):
		w.broken.Add(1) // it was killed, or is starting
		w.pause(ctx)
	case !issued:
		w.unknowns.Add(1)
		if !errors.Is(err, errUnauthorized) {
			w.t.Errorf("a serial number that was not issued: got %d, %v; want unauthorized", status, err)
		}
	case before.changing || before.version != after.version:
	case s == before.by || began.Sub(before.since) > maxStale:
		w.answers.Add(1)
		if err != nil || status != before.status {
			w.t.Errorf("got %d, %v; it has been %d for %s, by the 2xx of the same replica: %v", status, err, before.status, began.Sub(before.since), s == before.by)
		}
	case err != nil || status != before.status: // the other replica, which has time for it
		late := began.Sub(before.since)
		if well {
			w.slowest.Store(max(w.slowest.Load(), int64(late)))
		}
		if w.long && well && late > time.Second {
			w.t.Errorf("got %d, %v, %s after the other replica's change to %d", status, err, late, before.status)
		}
	default:
		w.answers.Add(1)
	}
}

// brokenError is of a question that got no answer of OCSP.
type brokenError struct{ error }

func isBroken(err error) bool {
	_, ok := errors.AsType[brokenError](err)
	return ok
}

// query asks in one of the forms there are: GET or POST, either hash, with or without a nonce.
func (w *wrongs) query(ctx context.Context, s *wrongServer, ca faultCA, serial *big.Int) (int, error) {
	hash := []crypto.Hash{crypto.SHA1, crypto.SHA256}[mathrand.IntN(2)]
	subject := &x509.Certificate{SerialNumber: serial}
	request, err := ocsp.CreateRequest(subject, ca.cert, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		return 0, err
	}
	var nonce []byte
	if mathrand.IntN(3) == 0 {
		if request, nonce, err = withNonce(request); err != nil {
			return 0, err
		}
	}
	address, method, content := s.HTTP+"/ocsp", http.MethodPost, io.Reader(bytes.NewReader(request))
	if mathrand.IntN(2) == 0 {
		address, method, content = address+"/"+url.PathEscape(base64.StdEncoding.EncodeToString(request)), http.MethodGet, nil
	}
	r, err := http.NewRequestWithContext(ctx, method, address, content)
	if err != nil {
		return 0, err
	}
	res, err := w.http.Do(r)
	if err != nil {
		return 0, brokenError{err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, brokenError{err}
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("OCSP answers %s", res.Status)
	}
	answer, err := ocsp.ParseResponseForCert(body, subject, ca.cert)
	if e, ok := errors.AsType[ocsp.ResponseError](err); ok {
		switch e.Status {
		case ocsp.TryLater:
			return 0, errTryLater
		case ocsp.Unauthorized:
			return 0, errUnauthorized
		}
	}
	if err != nil {
		return 0, err
	}
	if !bytes.Contains(body, nonce) {
		return 0, errors.New("the nonce is not in the answer")
	}
	if now := time.Now(); now.Before(answer.ThisUpdate) || now.After(answer.NextUpdate) {
		return 0, fmt.Errorf("an answer from %s to %s, and it is %s", answer.ThisUpdate, answer.NextUpdate, now)
	}
	return answer.Status, nil
}

// withNonce adds a nonce to a request, and returns the octets of its extension's value.
func withNonce(request []byte) (with, value []byte, err error) {
	var r struct {
		TBS struct {
			List       []asn1.RawValue
			Extensions []pkix.Extension `asn1:"optional,explicit,tag:2"`
		}
	}
	if _, err := asn1.Unmarshal(request, &r); err != nil {
		return nil, nil, err
	}
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return nil, nil, err
	}
	if value, err = asn1.Marshal(nonce); err != nil {
		return nil, nil, err
	}
	r.TBS.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}, Value: value}}
	with, err = asn1.Marshal(r)
	return with, value, err
}
