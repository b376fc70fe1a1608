package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// raw sends bytes over a connection of its own and returns the answer; nil if the server closed the connection without
// one.
func raw(t testing.TB, s *Server, https bool, text string) *http.Response {
	t.Helper()
	var c net.Conn
	var err error
	if https {
		c, err = tls.Dial("tcp", strings.TrimPrefix(s.HTTPS, "https://"), &tls.Config{RootCAs: s.Roots, NextProtos: []string{"http/1.1"}})
	} else {
		c, err = net.Dial("tcp", strings.TrimPrefix(s.HTTP, "http://"))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// The server may answer, and close, before it has read everything.
	_, _ = io.WriteString(c, text)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			t.Errorf("%.60q: no answer, and the connection stays open", text)
		}
		return nil
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res
}

// TestBadHTTP sends what no HTTP client would.
func TestBadHTTP(t *testing.T) {
	t.Parallel()
	in := newBadInput(t)
	head := "Host: x\r\nAuthorization: Bearer " + in.tokens["operator"] + "\r\nContent-Type: application/json\r\n"
	before := in.count(t)
	for _, row := range []struct {
		name, text string
		status     int // 0: whatever is below 500, or a closed connection
	}{
		{"a body that is too long", "POST /api/v1/certificates HTTP/1.1\r\n" + head + "Content-Length: 10485760\r\n\r\n" + strings.Repeat("x", 1<<20), 413},
		{"a body that is too long, in chunks", "POST /api/v1/certificates HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("10000\r\n"+strings.Repeat("x", 1<<16)+"\r\n", 8) + "0\r\n\r\n", 413},
		{"chunks of garbage", "POST /api/v1/certificates HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\nzz\r\nnothing\r\n", 400},
		{"chunks that end early", "POST /api/v1/certificates HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\n{\"cs", 0},
		{"two lengths", "POST /api/v1/certificates HTTP/1.1\r\n" + head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
		{"a negative length", "POST /api/v1/certificates HTTP/1.1\r\n" + head + "Content-Length: -1\r\n\r\n{}", 400},
		{"no host", "GET /api/v1/server HTTP/1.1\r\n\r\n", 400},
		{"no HTTP", "\x16\x03\x01 hello\r\n\r\n", 400},
		{"a header that is too long", "GET /api/v1/server HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<17) + "\r\n\r\n", 431},
		{"an address that is too long", "GET /api/v1/certificates?text=" + strings.Repeat("x", 1<<17) + " HTTP/1.1\r\n" + head + "\r\n", 431},
		{"dots", "GET /api/v1/../../etc/passwd HTTP/1.1\r\n" + head + "\r\n", 404},
		{"escaped dots", "GET /api/v1/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n" + head + "\r\n", 404},
		{"dots to a route", "GET /api/v1/certificates/../tokens HTTP/1.1\r\n" + head + "\r\n", 404},
		{"escaped dots to a route", "GET /api/v1/certificates/..%2ftokens HTTP/1.1\r\n" + head + "\r\n", 400},
		{"two slashes", "GET //api/v1/tokens HTTP/1.1\r\n" + head + "\r\n", 404},
		{"two slashes within", "GET /api/v1//tokens HTTP/1.1\r\n" + head + "\r\n", 404},
		{"NUL", "GET /api/v1/certificates/%00 HTTP/1.1\r\n" + head + "\r\n", 400},
		{"a bad escape", "GET /api/v1/certificates/%zz HTTP/1.1\r\n" + head + "\r\n", 400},
		{"a slash at the end", "GET /api/v1/certificates/ HTTP/1.1\r\n" + head + "\r\n", 0},
		{"an absolute address", "GET http://evil.example/api/v1/tokens HTTP/1.1\r\n" + head + "\r\n", 403},
		{"CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 0},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 0},
		{"TRACE", "TRACE / HTTP/1.1\r\n" + head + "\r\n", 405},
		{"XML", "POST /api/v1/certificates HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + in.tokens["operator"] + "\r\nContent-Type: text/xml\r\nContent-Length: 4\r\n\r\n<a/>", 415},
		{"a form", "POST /api/v1/certificates HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + in.tokens["operator"] + "\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 5\r\n\r\na=b&c", 415},
	} {
		t.Run(row.name, func(t *testing.T) {
			res := raw(t, in.Server, true, row.text)
			if res == nil {
				if row.status != 0 {
					t.Errorf("the connection was closed without an answer; want %d", row.status)
				}
				return
			}
			body, _ := io.ReadAll(res.Body)
			if row.status != 0 && res.StatusCode != row.status || res.StatusCode >= 500 || res.StatusCode >= 300 && res.StatusCode < 400 {
				t.Errorf("got %s, want %d: %.300s", res.Status, row.status, body)
			}
			if secret := in.leaks(string(body)); secret != "" {
				t.Errorf("the answer tells %q: %.300s", secret, body)
			}
		})
	}
	t.Run("a body that comes slowly", func(t *testing.T) {
		began := time.Now()
		res := raw(t, in.Server, true, "POST /api/v1/certificates HTTP/1.1\r\n"+head+"Content-Length: 100\r\n\r\n{\"csr\"")
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the server waited %s", took)
		}
		if res != nil && res.StatusCode != http.StatusRequestTimeout {
			t.Errorf("got %s, want 408", res.Status)
		}
	})
	t.Run("a header that comes slowly", func(t *testing.T) {
		began := time.Now()
		raw(t, in.Server, false, "GET / HTTP/1.1\r\nHost: x\r\n")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the server waited %s", took)
		}
	})
	t.Run("many long bodies at once", func(t *testing.T) {
		peakBefore := residentPeak(t, in.Server)
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				raw(t, in.Server, true, "POST /api/v1/certificates HTTP/1.1\r\n"+head+"Content-Length: 104857600\r\n\r\n"+strings.Repeat("x", 4<<20))
			})
		}
		wg.Wait()
		if grown := residentPeak(t, in.Server) - peakBefore; grown > 128<<20 {
			t.Errorf("256 MiB of bodies took %d MiB", grown>>20)
		}
	})
	t.Run("OCSP", func(t *testing.T) {
		issuing := faultIssuer(t, in.Server, "issuing")
		r := rand.New(rand.NewPCG(1, 2))
		valid := func() []byte {
			b, err := ocsp.CreateRequest(parseCertificate(t, []byte(in.certs["good"].PEM)), issuing.cert, nil)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}()
		bad := [][]byte{nil, {0}, {0x30}, {0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, []byte("hello"), bytes.Repeat([]byte{0x30, 0x80}, 1000), valid[:len(valid)-1], append(bytes.Clone(valid), 0)}
		for range 300 {
			b := bytes.Clone(valid)
			for range 1 + r.IntN(3) {
				b[r.IntN(len(b))] = byte(r.IntN(256))
			}
			bad = append(bad, b)
		}
		for _, b := range bad {
			post, err := plainHTTP.Post(in.HTTP+"/ocsp", "application/ocsp-request", bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			get, err := plainHTTP.Get(in.HTTP + "/ocsp/" + issuing.keyID + "/" + strings.ReplaceAll(base64.StdEncoding.EncodeToString(b), "/", "%2F"))
			if err != nil {
				t.Fatal(err)
			}
			for _, res := range []*http.Response{post, get} {
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode >= 500 {
					t.Errorf("OCSP request %x: %s", b, res.Status)
				}
				if a, err := ocsp.ParseResponse(body, issuing.cert); err == nil && a.Status == ocsp.Good && a.SerialNumber.Cmp(parseCertificate(t, []byte(in.certs["good"].PEM)).SerialNumber) != 0 {
					t.Errorf("OCSP request %x: good, of serial number %x", b, a.SerialNumber)
				}
			}
		}
		res, err := plainHTTP.Post(in.HTTP+"/ocsp", "application/ocsp-request", bytes.NewReader(make([]byte, 1<<20)))
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("an OCSP request of 1 MiB: %s", res.Status)
			}
		}
		for _, path := range []string{"/ocsp/", "/ocsp/%", "/ocsp/%25%25", "/ocsp/" + strings.Repeat("A", 10000), "/ocsp/../crl", "/crl/nosuch.crl", "/crl/..%2f..%2fetc%2fpasswd.crl", "/crl/.crl", "/ca/0.cer", "/crls/nosuch.pem", "/crls/..pem", "/chain/%00.pem", "/chain/root", "/roots.pem/x", "/etc/passwd", "/%2e%2e/data/kek.key"} {
			res := raw(t, in.Server, false, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if res == nil {
				t.Errorf("GET %s: no answer", path)
			} else if body, _ := io.ReadAll(res.Body); res.StatusCode >= 500 || res.StatusCode < 400 && !strings.HasPrefix(path, "/ocsp/") {
				t.Errorf("GET %s: %s: %.200s", path, res.Status, body)
			}
		}
	})
	if after := in.count(t); after != before {
		t.Errorf("refused requests changed the store: %s before, %s after", before, after)
	}
	in.unhurt(t)
}

// residentPeak is the most memory that the server has had, in bytes. Linux only.
func residentPeak(t testing.TB, s *Server) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		t.Skip("no /proc here")
	}
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("/proc has no VmHWM")
	return 0
}

// unhurt expects that the server works, has told no secret, and had no error.
func (in *badInput) unhurt(t *testing.T) {
	t.Helper()
	select {
	case <-in.process.Done():
		t.Fatalf("the server ended with code %d", in.process.Code())
	default:
	}
	if log := in.Log(); strings.Contains(log, "panic") || strings.Contains(log, "level=ERROR") || in.leaks(log) != "" {
		t.Errorf("the log has errors or secrets (%q):\n%s", in.leaks(log), log)
	}
	if !in.IsReady() {
		t.Error("the server is not ready any more")
	}
	if v, err := in.Client.VerifyAudit(t.Context()); err != nil || !v.Whole {
		t.Errorf("the audit chain: %+v, %v", v, err)
	}
}

// sweepSeed makes the same requests each time; sweepRequests is how many.
const (
	sweepSeed     = 20250711
	sweepRequests = 3000
)

// TestBadInputSweep changes valid requests at random. Whatever comes of it is no fault of the server's.
func TestBadInputSweep(t *testing.T) {
	t.Parallel()
	in := newBadInput(t)
	type request struct{ method, path, body string }
	good := in.certs["good"].ID
	quoted := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	der := base64.StdEncoding.EncodeToString(badCSR{extensions: sanOf(2, "a.example.com"), attributes: challenge(badMarker)}.der(t))
	valid := []request{
		{"POST", "/certificates", `{"csr":` + quoted(in.request) + `,"profile":"server"}`},
		{"POST", "/certificates", `{"csr":"` + der + `","profile":"server","issuer":"issuing","validity":"1d"}`},
		{"POST", "/certificates", `{"csr":"` + der + `","profile":"client","subject":"CN=Jane Doe,O=Example","sans":["email:jane@example.com","URI:spiffe://example.com/jane","IP:192.0.2.7"],"device":"d1"}`},
		{"POST", "/certificates", `{"csr":"` + der + `","profile":"device","not_after":"` + time.Now().AddDate(0, 1, 0).UTC().Format(time.RFC3339) + `"}`},
		{"POST", "/certificates/" + good + "/renew", `{"validity":"30d"}`},
		{"POST", "/certificates/" + good + "/revoke", `{"reason":"superseded","invalidity_date":"2025-01-01T00:00:00Z"}`},
		{"POST", "/certificates/" + good + "/hold", ``},
		{"POST", "/certificates/" + good + "/release", ``},
		{"GET", "/certificates/" + good + "/download?format=chain", ``},
		{"GET", "/certificates?status=valid,expired&text=example&limit=10&count=true&issued_from=2025-01-01T00:00:00Z&serial=4101", ``},
		{"GET", "/issuers/issuing/certificates/" + in.certs["good"].Serial, ``},
		{"GET", "/audit?actor=token:enroller&action=certificate.&limit=5", ``},
		{"GET", "/profiles/server", ``},
		{"POST", "/tokens", `{"name":"sweep","role":"auditor","profiles":["server"],"issuers":["issuing"],"validity":"1d"}`},
		{"DELETE", "/tokens/nosuch", ``},
	}
	var mu sync.Mutex
	statuses := map[int]int{}
	var wg sync.WaitGroup
	const workers = 8
	for w := range workers {
		r := rand.New(rand.NewPCG(sweepSeed, uint64(w)))
		wg.Go(func() {
			for range sweepRequests / workers {
				q := valid[r.IntN(len(valid))]
				path, body := q.path, q.body
				if body == "" || r.IntN(4) == 0 {
					path = mutate(r, path)
				}
				if body != "" {
					body = mutate(r, body)
				}
				who := []string{"administrator", "operator", "enroller"}[r.IntN(3)]
				status, answer, err := in.wild(who, q.method, "/api/v1/"+strings.TrimPrefix(path, "/"), body)
				mu.Lock()
				statuses[status]++
				mu.Unlock()
				switch {
				case err != nil:
					t.Errorf("%s %q %q: %v", q.method, path, body, err)
				case status >= 500:
					t.Errorf("%s %q %q: %d: %.300s", q.method, path, body, status, answer)
				case status >= 400 && in.leaks(string(answer)) != "":
					t.Errorf("%s %q %q: the answer tells %q: %.300s", q.method, path, body, in.leaks(string(answer)), answer)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("answers by status: %v", statuses)
	in.unhurt(t)
}

// wild sends a request whose path need not be one.
func (in *badInput) wild(who, method, path, body string) (int, []byte, error) {
	r, err := http.NewRequest(method, in.HTTPS+"/", strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	path = strings.Map(func(c rune) rune { // what no client could send in a line
		if c <= ' ' || c == 0x7f {
			return '+'
		}
		return c
	}, path)
	// As it is, in the request's line.
	r.URL.Opaque = "//" + r.URL.Host + path
	r.Header.Set("Authorization", "Bearer "+in.tokens[who])
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := in.http1.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// mutate changes a text in one to three places.
func mutate(r *rand.Rand, s string) string {
	odd := []string{`"`, `\`, `{`, `}`, `[`, `]`, `,`, `:`, "null", "true", "-1", "1e999", `""`, "\x00", "\x1b", "\u202e", "\xff", "%00", "%", "..", "/", "'", ";", "=", "&", "?", "#", "\ud7ff", "\U0010ffff", "99999999999999999999", strings.Repeat("A", 300), `\u0000`, `\ud800`, "*.", "@", "xn--", "a_b"}
	b := []byte(s)
	for range 1 + r.IntN(3) {
		if len(b) == 0 {
			b = []byte{byte(r.IntN(256))}
		}
		at := r.IntN(len(b))
		switch r.IntN(6) {
		case 0: // one octet
			b[at] = byte(r.IntN(256))
		case 1: // one bit
			b[at] ^= 1 << r.IntN(8)
		case 2: // cut
			b = append(b[:at:at], b[min(len(b), at+1+r.IntN(20)):]...)
		case 3: // double
			end := min(len(b), at+1+r.IntN(40))
			b = append(b[:end:end], b[at:]...)
		case 4: // insert
			b = append(b[:at:at], append([]byte(odd[r.IntN(len(odd))]), b[at:]...)...)
		case 5: // replace a value
			if i := bytes.IndexByte(b[at:], '"'); i >= 0 {
				if j := bytes.IndexByte(b[at+i+1:], '"'); j >= 0 {
					tail := bytes.Clone(b[at+i+1+j:])
					b = append(append(b[:at+i+1:at+i+1], odd[r.IntN(len(odd))]...), tail...)
				}
			}
		}
	}
	return string(b)
}
