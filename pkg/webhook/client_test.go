package webhook_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/webhook"
)

// authority issues certificates for receivers.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key, a.cert = a.make(&x509.Certificate{
		Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	return a
}

func (a *authority) make(template, issuer *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	if issuer == nil {
		issuer, by = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), by)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

// leaf returns a server's certificate for a name, which ends at the given time.
func (a *authority) leaf(name string, notAfter time.Time) tls.Certificate {
	a.t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	key, cert := a.make(template, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// serve serves TLS on loopback with a certificate for its address, unless another is given.
func (a *authority) serve(h http.HandlerFunc, other ...tls.Certificate) *httptest.Server {
	a.t.Helper()
	if len(other) == 0 {
		other = []tls.Certificate{a.leaf("127.0.0.1", time.Now().Add(time.Hour))}
	}
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: other, MinVersion: tls.VersionTLS12}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s
}

var secret = []byte("a secret of the receiver and ours")

func (a *authority) client(address string, edit ...func(*webhook.Config)) *webhook.Client {
	a.t.Helper()
	cfg := webhook.Config{
		URL: address, Anchors: []*x509.Certificate{a.cert}, Secrets: []webhook.Secret{{Key: secret}}, Timeout: time.Minute, Retries: 2,
		Allows: func(host string, _ netip.Addr) bool { return host == "127.0.0.1" },
	}
	for _, f := range edit {
		f(&cfg)
	}
	c, err := webhook.New(cfg)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(c.Close)
	return c
}

func write(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const allow = `{"decision":"allow"}`

// verified checks a message as a receiver does, in words of its own.
func verified(header string, body, key []byte, now time.Time) bool {
	stamp, good := "", false
	for part := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "t":
			stamp = value
		case "v1":
			mac := hmac.New(sha256.New, key)
			mac.Write([]byte(stamp))
			mac.Write([]byte("."))
			mac.Write(body)
			sum, err := hex.DecodeString(value)
			good = good || err == nil && hmac.Equal(sum, mac.Sum(nil))
		}
	}
	var seconds big.Int
	if _, ok := seconds.SetString(stamp, 10); !ok {
		return false
	}
	return good && now.Sub(time.Unix(seconds.Int64(), 0)).Abs() < 5*time.Minute
}

func TestAsk(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	var seen webhook.Event
	var header http.Header
	s := a.serve(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &seen) != nil {
			t.Errorf("the receiver reads %q, %v", body, err)
		}
		header = r.Header
		for _, key := range []string{string(secret), "the older"} {
			if !verified(r.Header.Get("Certwright-Signature"), body, []byte(key), now) {
				t.Errorf("the message is not authenticated by the secret %q", key)
			}
		}
		if verified(r.Header.Get("Certwright-Signature"), body, []byte("the oldest"), now) {
			t.Error("a secret that has ended is used")
		}
		if body[0]++; verified(r.Header.Get("Certwright-Signature"), body, secret, now) {
			t.Error("a message that was changed is authenticated")
		}
		_, _ = io.WriteString(w, `{"decision":"allow","device":"d1","group":"g","subject":"CN=d1","sans":["DNS:d1.example.com"],"validity":"30d","reason":"a\u001b[2J\u202e b"}`)
	})
	c := a.client(s.URL+"/hook?x=1", func(cfg *webhook.Config) {
		cfg.Now = func() time.Time { return now }
		cfg.Secrets = []webhook.Secret{{Key: secret}, {Key: []byte("the older"), Until: now.Add(time.Second)}, {Key: []byte("the oldest"), Until: now}}
	})
	event := webhook.Event{ID: "E1", Time: now, Point: "default", Protocol: "scep", Request: &webhook.Request{Message: "PKCSReq", Subject: "CN=d1", SANs: []string{}, Challenge: "c"}}
	answer, err := c.Ask(t.Context(), event)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Decision != webhook.Allow || answer.Device != "d1" || answer.Group != "g" || answer.Subject != "CN=d1" || len(answer.SANs) != 1 ||
		answer.Validity != 30*document.Day || answer.Reason != "a?[2J? b" {
		t.Errorf("the answer is %+v", answer)
	}
	if seen.Version != 1 || seen.Type != "request" || seen.ID != "E1" || seen.Request == nil || seen.Request.Challenge != "c" || !seen.Time.Equal(now) {
		t.Errorf("the receiver has seen %+v", seen)
	}
	if header.Get("Content-Type") != "application/json" || header.Get("Accept-Encoding") != "" {
		t.Errorf("the headers are %v", header)
	}
}

// Whatever is wrong, there is no answer, and the cause says why.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	a, strange := newAuthority(t), newAuthority(t)
	released := make(chan struct{})
	t.Cleanup(func() { close(released) })
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else nobody hears that the client has gone
		select {
		case <-r.Context().Done():
		case <-released:
		}
	}
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, allow)
		panic(http.ErrAbortHandler)
	}
	plain := httptest.NewServer(write(200, allow))
	t.Cleanup(plain.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := silent.Close(); err != nil {
		t.Fatal(err)
	}
	hour := time.Now().Add(time.Hour)
	target := a.serve(write(200, allow))
	for name, tt := range map[string]struct {
		url   string
		want  webhook.Cause
		tries int32 // how often the receiver is asked; -1: it cannot count
		edit  func(*webhook.Config)
		h     http.HandlerFunc
		cert  []tls.Certificate
	}{
		"slow":             {h: hang, want: webhook.CauseTimeout, tries: -1, edit: func(c *webhook.Config) { c.Timeout = 200 * time.Millisecond }},
		"500":              {h: write(500, allow), want: webhook.CauseStatus, tries: 3},
		"404":              {h: write(404, allow), want: webhook.CauseStatus, tries: 1},
		"a status of 204":  {h: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, want: webhook.CauseAnswer, tries: 1},
		"garbage":          {h: write(200, "<html>"), want: webhook.CauseAnswer, tries: 1},
		"nothing":          {h: write(200, ""), want: webhook.CauseAnswer, tries: 1},
		"no decision":      {h: write(200, "{}"), want: webhook.CauseAnswer, tries: 1},
		"an unknown field": {h: write(200, `{"decision":"allow","sbject":"CN=x"}`), want: webhook.CauseAnswer, tries: 1},
		"two decisions":    {h: write(200, `{"decision":"deny","Decision":"allow"}`), want: webhook.CauseAnswer, tries: 1},
		"too large":        {h: write(200, `{"decision":"allow","reason":"`+strings.Repeat("x", 70<<10)+`"}`), want: webhook.CauseAnswer, tries: 1},
		"cut":              {h: cut, want: webhook.CauseConnection, tries: 3},
		"a redirect":       {h: http.RedirectHandler(target.URL, http.StatusTemporaryRedirect).ServeHTTP, want: webhook.CauseStatus, tries: 1},
		"another name":     {h: write(200, allow), cert: []tls.Certificate{a.leaf("192.0.2.1", hour)}, want: webhook.CauseTLS, tries: 0},
		"ended":            {h: write(200, allow), cert: []tls.Certificate{a.leaf("127.0.0.1", time.Now().Add(-time.Hour))}, want: webhook.CauseTLS, tries: 0},
		"an unknown CA":    {h: write(200, allow), cert: []tls.Certificate{strange.leaf("127.0.0.1", hour)}, want: webhook.CauseTLS, tries: 0},
		"plain HTTP":       {url: strings.Replace(plain.URL, "http://", "https://", 1), want: webhook.CauseTLS, tries: -1},
		"nobody there":     {url: "https://" + silent.Addr().String(), want: webhook.CauseConnection, tries: -1},
		"a private address": {
			h: write(200, allow), want: webhook.CauseAddress, tries: 0, edit: func(c *webhook.Config) { c.Allows = nil },
		},
		"a private address by name": {
			h: write(200, allow), want: webhook.CauseAddress, tries: 0, edit: func(c *webhook.Config) { c.URL = strings.Replace(c.URL, "127.0.0.1", "localhost", 1) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int32
			url := tt.url
			if tt.h != nil {
				url = a.serve(func(w http.ResponseWriter, r *http.Request) { tries.Add(1); tt.h(w, r) }, tt.cert...).URL
			}
			c := a.client(url, func(cfg *webhook.Config) {
				if tt.edit != nil {
					cfg.URL = url
					tt.edit(cfg)
				}
			})
			answer, err := c.Ask(t.Context(), webhook.Event{ID: "E"})
			failure, ok := errors.AsType[*webhook.Error](err)
			if !ok || failure.Cause != tt.want || answer.Decision != "" {
				t.Fatalf("Ask = %+v, %v; want the cause %s", answer, err, tt.want)
			}
			if n := tries.Load(); tt.tries >= 0 && n != tt.tries {
				t.Errorf("the receiver was asked %d times, want %d", n, tt.tries)
			}
			if strings.ContainsAny(failure.Error(), "<\n\x1b") {
				t.Errorf("the receiver's words are in %q", failure.Error())
			}
		})
	}
	if _, err := a.client(target.URL).Ask(t.Context(), webhook.Event{ID: "E"}); err != nil {
		t.Errorf("where nothing is wrong: %v", err)
	}
}

// A receiver that is up again in time is asked again, with the same event.
func TestRetry(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	var ids []string
	s := a.serve(func(w http.ResponseWriter, r *http.Request) {
		var e webhook.Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		if ids = append(ids, e.ID); len(ids) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, `{"decision":"deny","reason":"no"}`)
	})
	answer, err := a.client(s.URL).Ask(t.Context(), webhook.Event{ID: "E"})
	if err != nil || answer.Decision != webhook.Deny || answer.Reason != "no" {
		t.Fatalf("Ask = %+v, %v", answer, err)
	}
	if strings.Join(ids, " ") != "E E E" {
		t.Errorf("the receiver was asked with %q", ids)
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	began, release := make(chan struct{}), make(chan struct{})
	s := a.serve(func(w http.ResponseWriter, _ *http.Request) {
		began <- struct{}{}
		<-release
		_, _ = io.WriteString(w, allow)
	})
	c := a.client(s.URL, func(cfg *webhook.Config) { cfg.Together = 1 })
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Ask(context.WithoutCancel(t.Context()), webhook.Event{}); err != nil {
			t.Errorf("Ask: %v", err)
		}
	})
	<-began
	// The others wait for their turn, all but the one for whom there is no room.
	waiting, cancel := context.WithCancel(t.Context())
	outcomes := make(chan error)
	for range 17 {
		wg.Go(func() {
			_, err := c.Ask(waiting, webhook.Event{})
			outcomes <- err
		})
	}
	if f, ok := errors.AsType[*webhook.Error](<-outcomes); !ok || f.Cause != webhook.CauseBusy {
		t.Errorf("the one too many: %v, want that it is busy", f)
	}
	cancel()
	for range 16 {
		if f, ok := errors.AsType[*webhook.Error](<-outcomes); !ok || f.Cause != webhook.CauseBusy {
			t.Errorf("one whose turn did not come: %v, want that it is busy", f)
		}
	}
	close(release)
	wg.Wait()
}

func TestTell(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	var body atomic.Pointer[string]
	status := atomic.Int32{}
	status.Store(204)
	s := a.serve(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || !verified(r.Header.Get(webhook.SignatureHeader), b, secret, time.Now()) {
			t.Errorf("the message is not authenticated: %v", err)
		}
		text := string(b)
		body.Store(&text)
		w.WriteHeader(int(status.Load()))
	})
	message, err := webhook.Encode(webhook.Event{Type: webhook.TypeSuccess, ID: "E"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.client(s.URL).Tell(t.Context(), message); err != nil || *body.Load() != string(message) {
		t.Errorf("Tell: %v, the receiver has %q", err, *body.Load())
	}
	for _, code := range []int32{302, 400, 503} {
		status.Store(code)
		if err := a.client(s.URL).Tell(t.Context(), message); err == nil {
			t.Errorf("Tell of a receiver that answers %d: no error", code)
		}
	}
}

// answers is a DNS server that gives the next of its addresses each time that it is asked for one.
func answers(t *testing.T, addresses ...string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		b := make([]byte, 1500)
		for n := 0; ; {
			size, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			// The header and the question are repeated; RFC 1035, Section 4.1.
			end := 12
			for b[end] != 0 {
				end += int(b[end]) + 1
			}
			end += 5
			if end > size {
				return
			}
			reply := append([]byte{}, b[:end]...)
			reply[2], reply[3] = 0x81, 0x80
			binary.BigEndian.PutUint16(reply[6:], 0)
			binary.BigEndian.PutUint32(reply[8:], 0)
			if binary.BigEndian.Uint16(b[end-4:]) == 1 { // A
				a := netip.MustParseAddr(addresses[min(n, len(addresses)-1)]).As4()
				n++
				binary.BigEndian.PutUint16(reply[6:], 1)
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, a[0], a[1], a[2], a[3])
			}
			_, _ = conn.WriteTo(reply, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// A name that turns private between a look and the call is refused where it counts, and one that is listed is called.
func TestDNSAnswerTurnsPrivate(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	var asked atomic.Int32
	s := a.serve(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); write(200, allow)(w, r) }, a.leaf("hook.example.com", time.Now().Add(time.Hour)))
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resolver := answers(t, "198.51.100.7", "127.0.0.1")
	look, err := resolver.LookupNetIP(t.Context(), "ip4", "hook.example.com")
	if err != nil || len(look) != 1 || !webhook.Public(look[0]) {
		t.Fatalf("the first look finds %v, %v; want a public address", look, err)
	}
	client := func(listed bool) *webhook.Client {
		return a.client("https://hook.example.com:"+port, func(cfg *webhook.Config) {
			cfg.Resolver, cfg.Allows = resolver, func(host string, _ netip.Addr) bool { return listed && host == "hook.example.com" }
		})
	}
	_, err = client(false).Ask(t.Context(), webhook.Event{})
	if f, ok := errors.AsType[*webhook.Error](err); !ok || f.Cause != webhook.CauseAddress || asked.Load() != 0 {
		t.Errorf("Ask = %v, and the receiver was asked %d times; want that the address is refused", err, asked.Load())
	}
	if _, err := client(true).Ask(t.Context(), webhook.Event{}); err != nil {
		t.Errorf("a name that is listed: %v", err)
	}
}

// What the environment says of proxies is not heeded: a proxy would do the dialling.
func TestNoProxy(t *testing.T) {
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	var called atomic.Bool
	go func() {
		if c, err := proxy.Accept(); err == nil {
			called.Store(true)
			_, _ = bufio.NewReader(c).ReadString('\n')
			_ = c.Close()
		}
	}()
	t.Setenv("HTTPS_PROXY", "http://"+proxy.Addr().String())
	t.Setenv("https_proxy", "http://"+proxy.Addr().String())
	a := newAuthority(t)
	if _, err := a.client(a.serve(write(200, allow)).URL).Ask(t.Context(), webhook.Event{}); err != nil || called.Load() {
		t.Errorf("Ask: %v; the proxy was called: %v", err, called.Load())
	}
}

func TestPublic(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"8.8.8.8": true, "198.51.100.7": true, "2606:4700::1": true, "64:ff9b::808:808": true, "2002:808:808::1": true, "::ffff:8.8.8.8": true,
		"0.0.0.0": false, "10.1.2.3": false, "100.64.0.1": false, "127.0.0.1": false, "127.255.255.254": false, "169.254.169.254": false, "172.31.0.1": false,
		"192.168.1.1": false, "198.18.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "::": false, "::1": false, "fc00::1": false, "fd12::1": false,
		"fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "ff02::1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false,
		"64:ff9b::a00:1": false, "64:ff9b::7f00:1": false, "64:ff9b:1::1": false, "2002:7f00:1::1": false, "2002:a00:1::": false, "::127.0.0.1": false, "::a00:1": false,
	} {
		if got := webhook.Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("Public(%s) = %v, want %v", text, got, want)
		}
	}
	if webhook.Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := webhook.Config{URL: "https://hook.example.com", Secrets: []webhook.Secret{{Key: secret}}, Timeout: time.Second}
	for name, edit := range map[string]func(*webhook.Config){
		"plain HTTP": func(c *webhook.Config) { c.URL = "http://hook.example.com" }, "a user": func(c *webhook.Config) { c.URL = "https://u:p@hook.example.com" },
		"no host": func(c *webhook.Config) { c.URL = "https:///x" }, "no secret": func(c *webhook.Config) { c.Secrets = nil },
		"an empty secret": func(c *webhook.Config) { c.Secrets = []webhook.Secret{{}} }, "no time": func(c *webhook.Config) { c.Timeout = 0 },
	} {
		cfg := good
		edit(&cfg)
		if _, err := webhook.New(cfg); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
