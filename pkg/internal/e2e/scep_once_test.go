package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/internal/scepraw"
)

// simulatedDevices is how many devices a simulation has: CERTWRIGHT_TEST_DEVICES, if it is set.
func simulatedDevices(t testing.TB, otherwise int) int {
	t.Helper()
	text := os.Getenv("CERTWRIGHT_TEST_DEVICES")
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("CERTWRIGHT_TEST_DEVICES=%q is no number of devices", text)
	}
	return n
}

// swarm is a crowd of simulated devices that enroll at two replicas, of which one goes away. Each has a challenge of its
// own. Some are twins: two keys with one challenge, at the same time, each at another replica.
type swarm struct {
	t        *testing.T
	a, b     *Server
	http     *http.Client
	ra       *x509.Certificate
	keys     *scepraw.Keys
	done     atomic.Int64 // answers that are final
	tries    atomic.Int64 // attempts that brought no answer
	away     atomic.Int64 // answers of 503 among them
	lost     atomic.Int64 // certificates whose first answer was lost
	mu       sync.Mutex
	latency  []time.Duration // guarded by mu: of attempts that were answered
	waited   []time.Duration // guarded by mu: of devices, with their retries
	deadline time.Time
}

// contender is one key that asks with a challenge.
type contender struct {
	challenge client.Challenge
	first     int // which replica it asks first
	answer    scepraw.Answer
	err       error
}

// enroll asks until there is an answer: at the other replica, with the same transactionID, when one does not give any.
func (w *swarm) enroll(c *contender) {
	device := c.challenge.Device
	r := scepraw.Request{RA: w.ra, TransactionID: rand.Text(), Key: w.keys.Next(), CommonName: device, DNSNames: []string{device + ".example.com"}, Challenge: c.challenge.Challenge}
	r.Signer = scepraw.SelfSigned(r.Key, device)
	began := time.Now()
	for try := 0; time.Now().Before(w.deadline); try++ {
		s := []*Server{w.a, w.b}[(c.first+try)%2]
		sent, asked := r.Send(), time.Now()
		body, err := w.post(s, sent.Body)
		if err != nil {
			w.tries.Add(1)
			continue
		}
		took := time.Since(asked)
		c.answer, c.err = sent.Read(body, w.ra)
		if c.err == nil && c.answer.Status == "0" && try > 0 {
			if issued, err := w.a.Client.Certificate(w.t.Context(), idOf(c.answer.Certificate)); err == nil && issued.IssuedAt.Before(asked) {
				w.lost.Add(1)
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.latency, w.waited = append(w.latency, took), append(w.waited, time.Since(began))
		return
	}
	c.err = errors.New("no answer")
}

func (w *swarm) post(s *Server, message []byte) ([]byte, error) {
	answer, err := w.http.Post(s.HTTP+"/scep/default?operation=PKIOperation", "application/x-pki-message", bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		if answer.StatusCode == http.StatusServiceUnavailable {
			w.away.Add(1)
			return nil, errors.New("503")
		}
		w.t.Errorf("a device is told %s: %s", answer.Status, body)
	}
	return body, err
}

func idOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// TestChallengesOnce has devices enroll with one-time challenges, 64 at a time at two replicas, and kills one of them in
// the middle. Each device gets one certificate, each challenge is used once and by the device that has the certificate,
// and nobody else gets any. CERTWRIGHT_TEST_DEVICES=10000 is the full number.
func TestChallengesOnce(t *testing.T) {
	t.Parallel()
	const together, twinEvery = 64, 10
	n := simulatedDevices(t, 300)
	a, b := StartReplicas(t, pgtest.DSN(t))
	w := &swarm{t: t, a: a, b: b, keys: new(scepraw.Keys), deadline: time.Now().Add(time.Minute + time.Duration(n)*100*time.Millisecond)}
	transport := &http.Transport{MaxIdleConnsPerHost: together}
	defer transport.CloseIdleConnections()
	w.http = &http.Client{Transport: transport, Timeout: callTimeout}
	var cas []*x509.Certificate
	var err error
	if w.ra, cas, err = scepraw.CACertificates(fetch(t, a.HTTP+"/scep/default?operation=GetCACert")); err != nil {
		t.Fatal(err)
	}
	challenges := oneTimeChallenges(t, a, n)

	// Twins stand at places of their own in the queue, so that they are asked for by two at a time.
	var all []*contender
	for i, c := range challenges {
		all = append(all, &contender{challenge: c, first: i % 2})
		if i%twinEvery == 0 {
			all = append(all, &contender{challenge: c, first: (i + 1) % 2})
		}
	}
	half := make(chan struct{})
	queue := make(chan *contender)
	var crowd sync.WaitGroup
	began := time.Now()
	for range together {
		crowd.Go(func() {
			for c := range queue {
				w.enroll(c)
				if w.done.Add(1) == int64(len(all)/2) {
					close(half)
				}
			}
		})
	}
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		<-half
		b.process.Kill()
	}()
	for _, c := range all {
		queue <- c
	}
	close(queue)
	crowd.Wait()
	<-killed
	took := time.Since(began)

	// What devices have been told.
	winner := map[string]*x509.Certificate{} // by challenge
	refused := 0
	opts := x509.VerifyOptions{Roots: a.Roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range cas {
		opts.Intermediates.AddCert(c)
	}
	for _, c := range all {
		switch {
		case c.err != nil:
			t.Errorf("device %s: %v", c.challenge.Device, c.err)
		case c.answer.Status == "2" && c.answer.FailInfo == "2":
			refused++
		case c.answer.Status != "0":
			t.Errorf("device %s: %v", c.challenge.Device, c.answer)
		default:
			if other := winner[c.challenge.ID]; other != nil {
				t.Errorf("challenge %s brought two certificates: %s and %s", c.challenge.ID, idOf(other), idOf(c.answer.Certificate))
			}
			winner[c.challenge.ID] = c.answer.Certificate
			if _, err := c.answer.Certificate.Verify(opts); err != nil || c.answer.Certificate.Subject.CommonName != c.challenge.Device {
				t.Errorf("device %s has a certificate for %s: %v", c.challenge.Device, c.answer.Certificate.Subject, err)
			}
		}
	}
	// What the store knows.
	certificates, byID := 0, map[string]string{}
	serials := map[string]bool{}
	for c, err := range a.Client.Certificates(t.Context(), client.CertificateQuery{Protocol: "scep", Limit: 1000}) {
		if err != nil {
			t.Fatal(err)
		}
		if certificates++; serials[c.Serial] {
			t.Errorf("serial number %s twice", c.Serial)
		}
		serials[c.Serial], byID[c.ID] = true, c.Device
	}
	if certificates != n || len(winner) != n {
		t.Errorf("%d challenges, %d devices with a certificate, %d certificates in the store", n, len(winner), certificates)
	}
	for cursor, more := "", true; more; more = cursor != "" {
		var page []client.Challenge
		if page, cursor, err = a.Client.Challenges(t.Context(), client.ChallengeQuery{Limit: 1000, Cursor: cursor}); err != nil {
			t.Fatal(err)
		}
		for _, c := range page {
			has := winner[c.ID]
			if has == nil || c.Status != "used" || c.UsedBy != idOf(has) || byID[c.UsedBy] != c.Device {
				t.Errorf("challenge %s of %s is %s, by %s, which is of %q", c.ID, c.Device, c.Status, c.UsedBy, byID[c.UsedBy])
			}
		}
	}
	if got, want := refused, len(all)-n; got != want {
		t.Errorf("%d twins were refused, want %d", got, want)
	}
	if v, err := a.Client.VerifyAudit(t.Context()); err != nil || !v.Whole {
		t.Errorf("the audit chain: %+v, %v", v, err)
	}
	slices.Sort(w.latency)
	slices.Sort(w.waited)
	at := func(d []time.Duration, percent int) time.Duration {
		return d[min(len(d)-1, len(d)*percent/100)].Round(time.Millisecond)
	}
	t.Logf("%d devices and %d twins in %s, %.0f enrollments/s; an answer took %s (half), %s (99 %%), %s (longest); a device with its retries %s, %s, %s; %d attempts without an answer, %d of them 503; %d answers were lost after the certificate was made, and were given again",
		n, len(all)-n, took.Round(time.Millisecond), float64(n)/took.Seconds(), at(w.latency, 50), at(w.latency, 99), at(w.latency, 100),
		at(w.waited, 50), at(w.waited, 99), at(w.waited, 100), w.tries.Load(), w.away.Load(), w.lost.Load())
	checkStore(t, a)
}

// oneTimeChallenges makes a challenge for each of n devices.
func oneTimeChallenges(t *testing.T, s *Server, n int) []client.Challenge {
	t.Helper()
	all := make([]client.Challenge, n)
	var next atomic.Int64
	var makers sync.WaitGroup
	for range 16 {
		makers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				c, err := s.Client.CreateChallenge(context.WithoutCancel(t.Context()), client.CreateChallengeRequest{Device: fmt.Sprintf("device-%05d", i)})
				if err != nil {
					t.Error(err)
					return
				}
				all[i] = c
			}
		})
	}
	makers.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return all
}
