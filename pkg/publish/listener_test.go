package publish_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	xocsp "golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/publish"
)

// fast is a listener of ours before a net/http server that serves the same handler as env.server.
type fast struct {
	*publish.Listener
	addr string
}

func (e *env) listener(edit ...func(*publish.ListenerConfig)) *publish.Listener {
	e.t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	cfg := publish.ListenerConfig{Listener: inner, Handler: e.handler}
	for _, f := range edit {
		f(&cfg)
	}
	l, err := publish.NewListener(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	return l
}

func (e *env) fast(edit ...func(*publish.ListenerConfig)) *fast {
	e.t.Helper()
	l := e.listener(edit...)
	server := &http.Server{Handler: e.handler, ReadHeaderTimeout: 5 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			e.t.Error(err)
		}
	})
	e.t.Cleanup(func() {
		_ = server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		l.Drain(ctx)
		serving.Wait()
		if n := l.Metrics().Open; n != 0 {
			e.t.Errorf("%d connections are left", n)
		}
	})
	return &fast{l, l.Addr().String()}
}

func (e *env) dial(addr string) net.Conn {
	e.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		e.t.Fatal(err)
	}
	return c
}

// response is one HTTP response, without what differs from one second to the next.
type response struct {
	Status string
	Proto  string
	Header http.Header
	Body   string
}

// exchange sends pieces on one connection, ends its own side, and returns all responses.
func (e *env) exchange(addr string, pieces ...string) []response {
	e.t.Helper()
	c := e.dial(addr).(*net.TCPConn)
	for _, p := range pieces {
		if _, err := io.WriteString(c, p); err != nil {
			break // the server has heard enough
		}
	}
	_ = c.CloseWrite()
	defer c.Close()
	in := bufio.NewReader(c)
	var all []response
	for {
		r, err := http.ReadResponse(in, nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			e.t.Errorf("neither a response nor an end, after %.300q", pieces)
		}
		if err != nil {
			return all
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return all
		}
		if r.Header.Get("Date") != "" {
			r.Header.Set("Date", "now")
		}
		if r.Header.Get("Expires") != "" && r.Header.Get("Content-Type") != "application/ocsp-response" {
			r.Header.Set("Expires", "so long after now") // of documents; of an answer it is nextUpdate
		}
		if r.Close {
			r.Header.Set("Connection", "close")
		}
		all = append(all, response{r.Status, r.Proto, r.Header, string(body)})
	}
}

// same tells whether two servers have said the same. What one said last may be missing from the other if it is a refusal:
// net/http closes the connection after it, and who has sent more than was read by then may lose it.
func same(got, want []response) bool {
	refusal := func(longer, shorter []response) bool {
		return len(longer) == len(shorter)+1 && longer[len(shorter)].Status != "200 OK"
	}
	switch {
	case refusal(want, got):
		want = want[:len(got)]
	case refusal(got, want):
		got = got[:len(want)]
	}
	return len(got) == len(want) && (len(got) == 0 || reflect.DeepEqual(got, want))
}

// oddRequests are requests that are right, odd and wrong.
func (e *env) oddRequests() map[string]string {
	der := e.request(e.good, crypto.SHA1)
	b64 := base64.StdEncoding.EncodeToString(der)
	path := "/ocsp/" + url.QueryEscape(b64)
	never := url.QueryEscape(base64.StdEncoding.EncodeToString(e.request(&certtest.Issued{CA: e.Issuing, Certificate: e.Root.Certificate}, crypto.SHA1)))
	get := func(target string, fields ...string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: ocsp.test\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
	}
	post := func(body string, fields ...string) string {
		return "POST /ocsp HTTP/1.1\r\nHost: ocsp.test\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n" + body
	}
	length := fmt.Sprintf("Content-Length: %d", len(der))
	body := string(der)
	all := map[string]string{
		"get": get(path), "raw base64": get("/ocsp/" + b64), "slash too many": get("/ocsp//" + b64),
		"key id": get("/ocsp/" + e.Issuing.KeyID + "/" + b64), "only a key id": get("/ocsp/" + e.Issuing.KeyID), "no request": get("/ocsp/"), "no slash": get("/ocsp"),
		"never issued": get("/ocsp/" + never), "garbage": get("/ocsp/Mgarbage"), "no base64": get("/ocsp/M!!!"), "bad escape": get("/ocsp/M%4"), "bad escape 2": get("/ocsp/M%zz"),
		"escaped twice": get("/ocsp/" + url.QueryEscape(url.QueryEscape(b64))), "escaped M": get("/ocsp/%4D" + b64[1:]), "dots": get("/ocsp/../roots.pem"), "dot": get("/ocsp/./" + b64),
		"query": get(path + "?a=b"), "fragment": get(path + "#a"), "absolute form": get("http://ocsp.test" + path), "space": get(path + " x"), "two spaces": "GET  " + path + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"other path": get("/ocspx"), "roots": get("/roots.pem"), "head": strings.Replace(get(path), "GET", "HEAD", 1), "delete": strings.Replace(get(path), "GET", "DELETE", 1),
		"lower-case method": strings.Replace(get(path), "GET", "get", 1), "options": "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"close": get(path, "Connection: close"), "keep-alive": get(path, "Connection: Keep-Alive"), "close in a list": get(path, "Connection: foo, close"), "upgrade": get(path, "Connection: upgrade", "Upgrade: h2c"),
		"none match": get(path, `If-None-Match: "x"`), "match all": get(path, "If-None-Match: *"), "modified since": get(path, "If-Modified-Since: Mon, 02 Jan 2045 15:04:05 GMT"), "range": get(path, "Range: bytes=0-3"),
		"get with a body": get(path, "Content-Length: 3") + "abc", "get with an empty body": get(path, "Content-Length: 0"), "chunked get": get(path, "Transfer-Encoding: chunked") + "0\r\n\r\n",
		"two hosts": get(path, "Host: b"), "no host": "GET " + path + " HTTP/1.1\r\n\r\n", "empty host": "GET " + path + " HTTP/1.1\r\nHost:\r\n\r\n", "odd host": "GET " + path + " HTTP/1.1\r\nHost: a/b\r\n\r\n", "worse host": "GET " + path + " HTTP/1.1\r\nHost: a b\r\n\r\n",
		"1.0": "GET " + path + " HTTP/1.0\r\n\r\n", "1.0 with host": "GET " + path + " HTTP/1.0\r\nHost: x\r\n\r\n", "1.0 keep-alive": "GET " + path + " HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "1.0 close": "GET " + path + " HTTP/1.0\r\nConnection: close\r\n\r\n",
		"1.0 post": "POST /ocsp HTTP/1.0\r\nContent-Type: application/ocsp-request\r\n" + length + "\r\n\r\n" + body,
		"1.2":      "GET " + path + " HTTP/1.2\r\nHost: x\r\n\r\n", "2.0": "GET " + path + " HTTP/2.0\r\nHost: x\r\n\r\n", "0.9": "GET " + path + "\r\n\r\n", "lower-case version": "GET " + path + " http/1.1\r\nHost: x\r\n\r\n",
		"bare LF": strings.ReplaceAll(get(path), "\r\n", "\n"), "LF in the end": "GET " + path + " HTTP/1.1\r\nHost: x\n\r\n", "bare CR": get(path, "A: b\rc"), "folded": get(path, "A: b", " c"), "no colon": get(path, "abc"), "space before colon": get(path, "Accept : x"),
		"empty name": get(path, ": x"), "empty value": get(path, "A:"), "tab": get(path, "A:\tb\t"), "control": get(path, "A: \x01"), "NUL": get(path, "A: \x00"), "high octet": get(path, "A: \xff"), "name with a space": get(path, "A b: c"), "high octet in the path": get("/ocsp/\xff"),
		"huge head": get(path, "A: "+strings.Repeat("a", 5000)), "huger head": get(path, "A: "+strings.Repeat("a", 2<<20)), "many fields": get(path, strings.Split(strings.Repeat("A: b\n", 300)+"B: c", "\n")...), "long path": get("/ocsp/M" + strings.Repeat("A", 6000)), "long path that fits": get("/ocsp/M" + strings.Repeat("A", 3000)),
		"post": post(body, length), "post typed": post(body, "Content-Type: application/ocsp-request", length), "post expects": post(body, length, "Expect: 100-continue"), "post expects more": post(body, length, "Expect: 200-ok"),
		"post without length": post(body), "post to a key id": strings.Replace(post(body, length), "/ocsp", "/ocsp/"+e.Issuing.KeyID, 1), "post to a path": strings.Replace(post(body, length), "/ocsp", "/ocsp/", 1), "post elsewhere": strings.Replace(post(body, length), "/ocsp", "/ocsps", 1),
		"post of nothing": post("", "Content-Length: 0"), "post of garbage": post("garbage", "Content-Length: 7"), "post too short": post(body[:10], length), "post too long": post(strings.Repeat("a", 5000), "Content-Length: 5000"), "length 4096": post(strings.Repeat("a", 4096), "Content-Length: 4096"), "length 4097": post(strings.Repeat("a", 4097), "Content-Length: 4097"),
		"length twice": post(body, length, length), "two lengths": post(body, length, "Content-Length: 1"), "list of lengths": post(body, length+", "+length[16:]), "length +1": post(body, "Content-Length: +1"), "length -1": post(body, "Content-Length: -1"), "length 0x1": post(body, "Content-Length: 0x1"), "no length": post(body, "Content-Length:"), "huge length": post(body, "Content-Length: 99999999999999999999"), "zeros": post(body, "Content-Length: 00000"+length[16:]),
		"chunked": post(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(der), body), "Transfer-Encoding: chunked"), "chunked and length": post(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(der), body), "Transfer-Encoding: chunked", length), "gzip": post(body, "Transfer-Encoding: gzip", length), "trailer": post(body, length, "Trailer: A"),
		"several":                 get(path) + post(body, length) + get("/ocsp/"+never) + get("/roots.pem") + get(path, "Connection: close") + get(path),
		"little behind a request": post(body+"abc", length), "more behind a request": post(body+"abcd", length), "half a method behind a request": get(path) + "GE",
		"bare LF first": "\n" + get(path), "bare CR first": "\r" + get(path), "unfinished with bare LF": "GET " + path + " HTTP/1.1\nHost: x\n", "bare LF later": "GET " + path + " HTTP/1.1\r\nHost: x\nA: b\r\n", "0.9 with CRLF": "GET " + path + "\r\n", "0.9 with LF": "GET " + path + "\n", "line end in base64": get("/ocsp/" + b64[:40] + "%0A" + b64[40:]), "line end behind base64": get(path + "%0D%0A"),
		"nothing": "", "a letter": "G", "half a head": "GET " + path + " HTTP/1.1\r\nHo", "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	}
	return all
}

// TestSameAsNetHTTP: a client cannot tell the listener from net/http, whatever it sends and however it is cut.
func TestSameAsNetHTTP(t *testing.T) {
	e := setup(t)
	f := e.fast()
	plain := e.server.Listener.Addr().String()
	e.exchange(plain, e.oddRequests()["get"]) // kept from here on
	for name, text := range e.oddRequests() {
		want := e.exchange(plain, text)
		cuts := map[string][]string{"whole": {text}}
		if n := len(text); n > 40 && n < 10000 {
			cuts["in two"] = []string{text[:n/2], text[n/2:]}
			cuts["at the end"] = []string{text[:n-1], text[n-1:]}
		}
		for cut, pieces := range cuts {
			got := e.exchange(f.addr, pieces...)
			if !reflect.DeepEqual(got, want) && (cut == "whole" || !same(got, want)) {
				t.Errorf("%s, %s:\ngot  %.1500q\nwant %.1500q", name, cut, fmt.Sprint(got), fmt.Sprint(want))
			}
		}
	}
	// What OCSP clients send must not come out right only because it was handed on.
	before := f.Metrics()
	for _, name := range []string{"get", "raw base64", "key id", "never issued", "close", "1.0", "1.0 post", "post", "post typed", "length 4096"} {
		e.exchange(f.addr, e.oddRequests()[name])
	}
	if m := f.Metrics(); m.Served-before.Served != 10 || m.Handed != before.Handed {
		t.Errorf("of ten plain requests %d were served and %d handed on", m.Served-before.Served, m.Handed-before.Handed)
	}
}

func TestListenerAnswers(t *testing.T) {
	e := setup(t)
	f := e.fast()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for range 3 { // on one connection, kept from the second on
		for c, want := range map[*certtest.Issued]int{e.good: xocsp.Good, e.bad: xocsp.Revoked} {
			resp, err := client.Get("http://" + f.addr + "/ocsp/" + url.PathEscape(base64.StdEncoding.EncodeToString(e.request(c, crypto.SHA256))))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			if r, err := xocsp.ParseResponse(b, e.Issuing.Certificate); err != nil || r.Status != want {
				t.Errorf("%v, %v, want %d", r, err, want)
			}
		}
	}
	if m := f.Metrics(); m.Served != 6 || m.Accepted != 1 || m.Handed != 0 {
		t.Errorf("%+v", m)
	}
}

// TestRepeats: who asks the same again is answered without a look into the request, and still hears of a change at once.
func TestRepeats(t *testing.T) {
	e := setup(t)
	f := e.fast()
	odd := e.oddRequests()
	c := e.dial(f.addr)
	in := bufio.NewReader(c)
	status := func(request string) int {
		t.Helper()
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		a, err := xocsp.ParseResponse(b, e.Issuing.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		return a.Status
	}
	for n, request := range []string{odd["get"], odd["post"], odd["raw base64"]} {
		for range 4 { // made, kept, remembered, repeated
			if got := status(request); got != xocsp.Good {
				t.Fatalf("status %d", got)
			}
		}
		if got := f.Repeats(); got != n+1 {
			t.Errorf("%d requests are remembered, want %d", got, n+1)
		}
	}
	certtest.Change(t, e.store, e.good.Record, pki.ActionRevoke, pki.Superseded, time.Now())
	e.responder.Forget(e.good.Record.IssuerKeyID, e.good.Record.Serial)
	for range 3 {
		for _, request := range []string{odd["get"], odd["post"], odd["raw base64"]} {
			if got := status(request); got != xocsp.Revoked {
				t.Errorf("status %d after the certificate was revoked", got)
			}
		}
	}
	if m := f.Metrics(); m.Served != 21 || m.Accepted != 1 || m.Handed != 0 {
		t.Errorf("%+v", m)
	}
	// Long requests, and those with more behind them, are not remembered.
	before := f.Repeats()
	for range 3 {
		e.exchange(f.addr, strings.Replace(odd["get"], "Host:", "A: "+strings.Repeat("a", 512)+"\r\nHost:", 1))
		e.exchange(f.addr, odd["get"]+odd["close"])
	}
	if got := f.Repeats(); got != before+1 { // the last of two has nothing behind it
		t.Errorf("%d requests are remembered, want %d", got, before+1)
	}
	// There is room for so many.
	for i := range 5000 {
		status(strings.Replace(odd["get"], "Host:", fmt.Sprintf("A: %d\r\nHost:", i), 1))
	}
	if got := f.Repeats(); got > 4096 || got < 2048 {
		t.Errorf("%d requests are remembered, want about 4096", got)
	}
}

// TestOddLineEnds: one line end before a request is of no matter, and who ends lines in his own way need not wait for an answer.
func TestOddLineEnds(t *testing.T) {
	e := setup(t)
	f := e.fast(func(c *publish.ListenerConfig) { c.HeadTimeout = time.Hour })
	odd := e.oddRequests()
	for what, c := range map[string]struct {
		send string
		want []int
	}{
		"before a request":      {"\r\n" + odd["get"], []int{200}},
		"between two":           {odd["post"] + "\r\n" + odd["get"] + "\r\n", []int{200, 200}},
		"two before a request":  {"\r\n\r\n" + odd["get"], []int{400}},
		"bare LF":               {odd["bare LF"], []int{200}},
		"bare LF after a while": {strings.Replace(odd["get"], "\r\n\r\n", "\r\nA: b\n\n", 1), []int{200}},
		"no version":            {strings.Replace(odd["get"], " HTTP/1.1\r\nHost: ocsp.test\r\n", "\r\n", 1), []int{400}},
	} {
		conn := e.dial(f.addr) // whose own side stays open
		if _, err := io.WriteString(conn, c.send); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		var got []int
		for range c.want {
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				break
			}
			_, _ = io.Copy(io.Discard, r.Body)
			got = append(got, r.StatusCode)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

// TestSilentConnections: connections that say nothing, or too little, make room for those that ask.
func TestSilentConnections(t *testing.T) {
	e := setup(t)
	const limit = 16
	f := e.fast(func(c *publish.ListenerConfig) { c.MaxConnsPerSource = limit; c.HeadTimeout = time.Minute })
	request := e.oddRequests()["close"]
	for i := range 5 * limit {
		c := e.dial(f.addr)
		if i%2 == 0 {
			if _, err := io.WriteString(c, request[:i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 10 {
		if got := e.exchange(f.addr, request); len(got) != 1 || got[0].Status != "200 OK" {
			t.Fatalf("got %v among silent connections", got)
		}
	}
	if m := f.Metrics(); m.Open > limit || m.Evicted < 4*limit {
		t.Errorf("%+v, with a limit of %d", m, limit)
	}
}

// TestSlowRequests: a request has its time as a whole, however it trickles in.
func TestSlowRequests(t *testing.T) {
	e := setup(t)
	f := e.fast(func(c *publish.ListenerConfig) { c.HeadTimeout = 200 * time.Millisecond })
	all := e.oddRequests()
	for _, text := range []string{all["get"], all["post"], "GET /oc"} {
		c := e.dial(f.addr)
		stop := make(chan struct{})
		go func() {
			for i := range len(text) - 1 {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				if _, err := io.WriteString(c, text[i:i+1]); err != nil {
					return
				}
			}
		}()
		if b, err := io.ReadAll(c); len(b) != 0 || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %q, %v", b, err)
		}
		close(stop)
	}
	// A connection that is silent after its first request has IdleTimeout, not forever.
	idle := e.fast(func(c *publish.ListenerConfig) { c.IdleTimeout = 200 * time.Millisecond })
	c := e.dial(idle.addr)
	if _, err := io.WriteString(c, all["get"]); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); !bytes.HasPrefix(b, []byte("HTTP/1.1 200")) || err != nil {
		t.Errorf("got %.30q, %v", b, err)
	}
}

// TestDrain: who is waiting for a request is let go, nobody's goroutine stays.
func TestDrain(t *testing.T) {
	e := setup(t)
	leaks := goleak.IgnoreCurrent()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := publish.NewListener(publish.ListenerConfig{Listener: inner, Handler: e.handler})
	if err != nil {
		t.Fatal(err)
	}
	handed := make(chan error)
	go func() {
		_, err := l.Accept()
		handed <- err
	}()
	all := e.oddRequests()
	var conns []net.Conn
	for i := range 40 {
		c := e.dial(inner.Addr().String())
		if _, err := io.WriteString(c, all["get"]); err != nil {
			t.Fatal(err)
		}
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if _, err := io.WriteString(c, "POST /ocsp HTTP/1.1\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		conns = append(conns, c)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-handed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l.Drain(ctx)
	if ctx.Err() != nil {
		t.Error("connections had to be cut off")
	}
	for _, c := range conns {
		c.Close()
	}
	goleak.VerifyNone(t, leaks)
}

// before is a listener before a net/http server with a handler of the test's own at each path; at /own it takes its own time.
func (e *env) before(patient bool, handler func(*publish.Listener, *http.Request), edit ...func(*publish.ListenerConfig)) *publish.Listener {
	e.t.Helper()
	l := e.listener(edit...)
	if patient {
		l.Patient()
	}
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { handler(l, r) })
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.Handle("/own", publish.OwnTime(h))
	server := &http.Server{Handler: mux, ConnContext: l.ConnContext}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	e.t.Cleanup(func() {
		_ = server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		l.Drain(ctx)
		serving.Wait()
	})
	return l
}

// asker is a client on one connection.
type asker struct {
	t testing.TB
	net.Conn
	in *bufio.Reader
}

func (e *env) asker(l *publish.Listener) *asker {
	e.t.Helper()
	c := e.dial(l.Addr().String())
	return &asker{e.t, c, bufio.NewReader(c)}
}

func (a *asker) send(text string) {
	a.t.Helper()
	if _, err := io.WriteString(a, text); err != nil {
		a.t.Fatal(err)
	}
}

func (a *asker) answered() {
	a.t.Helper()
	r, err := http.ReadResponse(a.in, nil)
	if err != nil {
		a.t.Fatalf("no answer: %v", err)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		a.t.Fatal(err)
	}
	r.Body.Close()
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal(what)
		}
	}
}

// A request that net/http answers holds its source's share until its answer is written, unless its handler has said that it
// takes its own time.
func TestShares(t *testing.T) {
	e := setup(t)
	held := make(chan int, 1)
	l := e.before(true, func(l *publish.Listener, _ *http.Request) { held <- l.Shares() })
	c := e.asker(l)
	for _, want := range []struct {
		path   string
		shares int
	}{{"/turns", 1}, {"/own", 0}, {"/turns", 1}} {
		c.send("GET " + want.path + " HTTP/1.1\r\nHost: x\r\n\r\n")
		c.answered()
		if n := <-held; n != want.shares {
			t.Errorf("%s holds %d shares while it is answered, want %d", want.path, n, want.shares)
		}
		eventually(t, want.path+" was answered, and its source's share is still held", func() bool { return l.Shares() == 0 })
	}
	// A head that needs several readings: whoever waits for the rest of one holds nothing.
	before := l.Others()
	c.send("GET /turns HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 3500))
	eventually(t, "nobody reads", func() bool { return l.Others() > before })
	eventually(t, "a share is held while a client does not send the rest of its request", func() bool { return l.Shares() == 0 })
}

// A request that is not answered for long does not hold up its neighbours: others behind the same address.
func TestStuckNeighbours(t *testing.T) {
	e := setup(t)
	processors := runtime.GOMAXPROCS(0)
	began, release := make(chan struct{}, processors), make(chan struct{})
	l := e.before(false, func(*publish.Listener, *http.Request) {
		began <- struct{}{}
		<-release
	})
	stuck := make([]*asker, processors)
	for i := range stuck {
		stuck[i] = e.asker(l)
		stuck[i].send("GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
		<-began
	}
	all := e.oddRequests()
	c := e.asker(l)
	for range 3 {
		c.send(all["get"])
		c.answered()
	}
	close(release)
	for _, s := range stuck {
		s.answered()
	}
	eventually(t, "shares are still held", func() bool { return l.Shares() == 0 })
}

// A request that fills several buffers is no pipelining, and waits for nobody's turn.
func TestLongRequest(t *testing.T) {
	e := setup(t)
	turns := make(chan int, 1)
	l := e.before(false, func(l *publish.Listener, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		turns <- l.Turns()
	})
	c := e.asker(l)
	for range 3 {
		c.send("POST /scep HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n" + strings.Repeat("a", 65536))
		c.answered()
		if n := <-turns; n != 0 {
			t.Fatal("one request has taken the turn of pipelined ones")
		}
	}
}

// Connections that wait for their turn and are cut off to make room end at once, however long the turn takes.
func TestCutOffWhileWaiting(t *testing.T) {
	e := setup(t)
	const limit = 8
	l := e.before(false, func(*publish.Listener, *http.Request) {}, func(c *publish.ListenerConfig) { c.MaxConnsPerSource = limit })
	first := e.asker(l)
	request := e.oddRequests()["get"]
	first.send(request)
	first.answered()
	release := l.HoldTurns()
	defer release()
	for range 5 * limit {
		c := e.asker(l)
		c.send(request + request)
		c.answered() // the first; the second has to wait
	}
	waiting := func() int {
		b := make([]byte, 1<<20)
		return strings.Count(string(b[:runtime.Stack(b, true)]), ".takeTurn(")
	}
	eventually(t, "connections that were cut off still wait for their turn", func() bool { return waiting() <= limit })
	if m := l.Metrics(); m.Evicted < 4*limit {
		t.Errorf("%+v", m)
	}
}

// FuzzParseHead: what the listener takes for a request, net/http reads in the same way.
func FuzzParseHead(f *testing.F) {
	for _, seed := range []string{
		"GET /ocsp/MFQ= HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "POST /ocsp HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\n\r\nabc",
		"POST /ocsp/0123456789abcdef HTTP/1.0\r\ncontent-LENGTH: 0\r\n\r\n", "GET /ocsp/%4dFQ%3D HTTP/1.0\r\n\r\n", "GET /ocsp/M HTTP/1.1\r\nHost: [::1]\r\nA:b\r\nA: \t\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h := publish.ParseHead(b)
		if h == nil {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			t.Fatalf("%q: net/http says %v", b, err)
		}
		length := r.ContentLength
		if r.Method != h.Method || r.RequestURI != h.Target || r.Proto != h.Proto || r.Close != h.Close || length != int64(h.Length) || r.URL.EscapedPath() != h.Target || r.URL.RawQuery != "" || len(r.TransferEncoding) > 0 {
			t.Fatalf("%q: got %+v, net/http %s %s %s close %v length %d", b, h, r.Method, r.RequestURI, r.Proto, r.Close, length)
		}
	})
}

// FuzzConnection: whatever octets a connection brings, and however they are cut, what comes back is what net/http says.
// sameWithout tells whether a server says the same to a text without some of its line ends, so many at the most: one before a
// request is of no matter on the listener, which net/http refuses.
func (e *env) sameWithout(got []response, addr, text string, most int) bool {
	const tries = 40
	for i, tried := 0, 0; i < len(text) && tried < tries; i++ {
		if !strings.HasPrefix(text[i:], "\r\n") {
			continue
		}
		tried++
		without := text[:i] + text[i+2:]
		if same(got, e.exchange(addr, without)) || most > 1 && e.sameWithout(got, addr, without, most-1) {
			return true
		}
	}
	return false
}

func FuzzConnection(f *testing.F) {
	e := setup(f)
	l := e.fast()
	plain := e.server.Listener.Addr().String()
	for name, text := range e.oddRequests() {
		if len(text) < 2000 {
			f.Add([]byte(text), uint16(len(name)))
		}
	}
	get := e.oddRequests()["get"]
	f.Add([]byte("\r\n"+get+"\r\n"+get), uint16(1))
	// A request line that is refused, and a little more behind it than net/http reads at a time: whether the refusal arrives
	// depends on what was read before the end.
	f.Add([]byte("GET /ocsp/M\rM HTTP/1.1\r\nHost: ocsp.test\r\n"+strings.Repeat("A: b\r\n", 690)+"\r\n"), uint16(30))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		if len(b) > 20<<10 {
			return
		}
		text := string(b)
		at := min(int(cut), len(text))
		e := &env{t: t}
		want := e.exchange(plain, text)
		got := e.exchange(l.addr, text[:at], text[at:])
		if !same(got, want) && !e.sameWithout(got, plain, text, 2) {
			t.Errorf("%q, cut at %d:\ngot  %.1500q\nwant %.1500q", b, at, fmt.Sprint(got), fmt.Sprint(want))
		}
	})
}
