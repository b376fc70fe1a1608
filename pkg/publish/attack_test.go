//go:build unix

package publish_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	xocsp "golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/publish"
)

// attacked is a listener, and an honest client that asks all the while from an address of its own.
type attacked struct {
	*env
	*publish.Listener
	request string       // an honest one, on a connection that is kept
	handled atomic.Int64 // requests that net/http has handled
}

// done returns how many requests have been answered, whoever did it.
func (a *attacked) done() int64 { return a.Metrics().Served + a.handled.Load() }

// honest is where the honest client is; attackers have other addresses of the loopback network.
const honest = "127.0.7.7"

// dialFrom connects from an address of the loopback network.
func (a *attacked) dialFrom(from string) (*net.TCPConn, error) {
	c, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP(from)}, a.Addr().(*net.TCPAddr))
	if err != nil {
		return nil, fmt.Errorf("from %s: %w", from, err)
	}
	return c, c.SetDeadline(time.Now().Add(time.Minute))
}

// served asks n times, on a new connection each time, and then as often on one, and checks every answer. It returns how many
// requests of others were answered while each of the latter waited.
func (a *attacked) served(t *testing.T, n int) (others []int64) {
	t.Helper()
	ask := func(c net.Conn, in *bufio.Reader) {
		t.Helper()
		before := a.done()
		if _, err := io.WriteString(c, a.request); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("an honest client got no answer: %v; %+v", err, a.Metrics())
		}
		others = append(others, a.done()-before-1)
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := xocsp.ParseResponse(b, a.Issuing.Certificate); err != nil || answer.Status != xocsp.Good {
			t.Fatalf("an honest client got %s, %v", r.Status, err)
		}
	}
	dial := func() net.Conn {
		c, err := a.dialFrom(honest)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for range n {
		c := dial()
		ask(c, bufio.NewReader(c))
		c.Close()
	}
	others = nil
	c := dial()
	defer c.Close()
	in := bufio.NewReader(c)
	for range n {
		ask(c, in)
	}
	return others
}

// attackers opens connections from addresses by turns, and does with each what do says, in a goroutine of its own if it
// says anything. All of them have ended when the returned function has.
func (a *attacked) attackers(t *testing.T, n int, from []string, do func(i int, c *net.TCPConn)) (stop func()) {
	t.Helper()
	var all sync.WaitGroup
	conns := make([]*net.TCPConn, 0, n)
	stop = func() {
		for _, c := range conns {
			c.Close()
		}
		all.Wait()
	}
	for i := range n {
		c, err := a.dialFrom(from[i%len(from)])
		if err != nil {
			stop()
			t.Fatal(err)
		}
		conns = append(conns, c)
		if do != nil {
			all.Go(func() { do(i, c) })
		}
	}
	return stop
}

// descriptors returns how many connections, with both ends, this process may have.
func descriptors(t *testing.T) int {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	return int(min(l.Cur, 1<<20)/2) - 200
}

// TestAttacks has an honest client be served while others do what they can against it: in time, without a wrong or a lost
// answer, and nothing of the attack stays. Speed is what scripts/bench measures.
func TestAttacks(t *testing.T) {
	e := setup(t)
	e.do("GET", "/ocsp/"+url.QueryEscape(base64.StdEncoding.EncodeToString(e.request(e.good, crypto.SHA1))), nil) // kept from here on
	many := make([]string, 10)
	for i := range many {
		many[i] = fmt.Sprintf("127.0.1.%d", i+1)
	}
	if c, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP(honest)}, e.server.Listener.Addr().(*net.TCPAddr)); err != nil {
		t.Skipf("this system's loopback network has one address: %v", err)
	} else {
		c.Close()
	}
	leaks := goleak.IgnoreCurrent()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := publish.NewListener(publish.ListenerConfig{Listener: inner, Handler: e.handler})
	if err != nil {
		t.Fatal(err)
	}
	all := e.oddRequests()
	a := &attacked{env: e, Listener: l, request: all["get"]}
	counting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.handler.ServeHTTP(w, r)
		a.handled.Add(1)
	})
	server := &http.Server{Handler: counting, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	n := min(10000, descriptors(t))
	const asks = 20

	t.Run("silent, many sources", func(t *testing.T) {
		before := memory()
		stop := a.attackers(t, n, many, nil)
		a.served(t, asks)
		m := l.Metrics()
		if grown := memory() - before; grown > uint64(n)*(24<<10) {
			t.Errorf("%d silent connections cost %d octets each", n, grown/uint64(n))
		}
		stop()
		if m.Evicted != 0 {
			t.Errorf("%d were cut off, though there was room: %+v", m.Evicted, m)
		}
	})
	t.Run("silent, one source", func(t *testing.T) {
		stop := a.attackers(t, n, many[:1], nil)
		a.served(t, asks)
		// Whether anybody had to be cut off depends on how fast this machine connects: TestSilentConnections sees to that.
		if m := l.Metrics(); m.Open > publish.DefaultMaxConnsPerSource+asks+1 { // the honest ones may not have ended yet
			t.Errorf("one source has as many connections as it likes: %+v", m)
		}
		stop()
	})
	t.Run("an octet at a time", func(t *testing.T) {
		texts := []string{all["get"], all["post"], "GET /oc", strings.Repeat("x", 100), "GET / HTTP/1.1\r\nA: " + strings.Repeat("b", 100)}
		stop := a.attackers(t, 500, many, func(i int, c *net.TCPConn) {
			for _, octet := range []byte(texts[i%len(texts)]) {
				if _, err := c.Write([]byte{octet}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
		a.served(t, asks)
		stop()
	})
	t.Run("huge heads", func(t *testing.T) {
		stop := a.attackers(t, 200, many, func(i int, c *net.TCPConn) {
			line := []string{"A: " + strings.Repeat("b", 1000) + "\r\n", strings.Repeat("c", 1000)}[i%2]
			_, _ = io.WriteString(c, "GET /ocsp/M HTTP/1.1\r\nHost: x\r\n")
			for {
				if _, err := io.WriteString(c, line); err != nil {
					return
				}
			}
		})
		a.served(t, asks)
		stop()
	})
	t.Run("garbage", func(t *testing.T) {
		starts := []string{"", "GET /ocsp/", "POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n", "POST /ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "\x16\x03\x01\x02\x00"}
		stop := a.attackers(t, 500, many, func(i int, c *net.TCPConn) {
			b := make([]byte, 5000)
			rand.Read(b)
			_, _ = io.WriteString(c, starts[i%len(starts)])
			_, _ = c.Write(b)
			_, _ = io.Copy(io.Discard, c)
		})
		a.served(t, asks)
		stop()
	})
	t.Run("who reads nothing", func(t *testing.T) {
		stop := a.attackers(t, 50, many[:1], func(_ int, c *net.TCPConn) {
			pipelined := strings.Repeat(all["get"], 100)
			for range 100 {
				if _, err := io.WriteString(c, pipelined); err != nil {
					return
				}
			}
		})
		a.served(t, asks)
		stop()
	})

	// Floods. While one request waits, no more of others should be answered than there are connections, some times over:
	// everybody has his turn.
	const flooding = 32
	fair := func(t *testing.T, others []int64) {
		t.Helper()
		slices.Sort(others)
		median := others[len(others)/2]
		t.Logf("while an honest request waited, %d others were answered; at most %d", median, others[len(others)-1])
		if median > 10*flooding {
			t.Errorf("%d requests of %d flooding connections were answered while an honest one waited", median, flooding)
		}
	}
	flood := func(request string) func() {
		return a.attackers(t, flooding, many[:1], func(_ int, c *net.TCPConn) {
			b := make([]byte, 16<<10)
			for {
				if _, err := io.WriteString(c, request); err != nil {
					return
				}
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		})
	}
	for name, request := range map[string]string{"cached answers": all["get"], "documents": all["roots"]} {
		t.Run("flood of "+name, func(t *testing.T) {
			stop := flood(request)
			fair(t, a.served(t, asks))
			stop()
		})
	}
	for name, request := range map[string]string{"cached answers": all["get"], "documents": all["roots"]} {
		t.Run("flood of "+name+", pipelined", func(t *testing.T) {
			pipelined := strings.Repeat(request, 64)
			stop := a.attackers(t, flooding, many[:1], func(_ int, c *net.TCPConn) {
				var reader sync.WaitGroup
				reader.Go(func() { _, _ = io.Copy(io.Discard, c) })
				for {
					if _, err := io.WriteString(c, pipelined); err != nil {
						break
					}
				}
				reader.Wait()
			})
			fair(t, a.served(t, asks))
			stop()
		})
	}
	t.Run("flood of nonces", func(t *testing.T) {
		body := nonced(t, e.request(e.good, crypto.SHA1))
		request := fmt.Sprintf("POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		stop := flood(request)
		fair(t, a.served(t, asks))
		stop()
	})

	_ = server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	l.Drain(ctx)
	serving.Wait()
	if m := l.Metrics(); m.Open != 0 {
		t.Errorf("%d connections are left: %+v", m.Open, m)
	}
	goleak.VerifyNone(t, leaks)
}

// memory returns what the process has in use.
func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// nonced adds a nonce to a request of x/crypto's, which knows of none.
func nonced(t *testing.T, request []byte) []byte {
	t.Helper()
	// requestExtensions [2] EXPLICIT SEQUENCE of the nonce, 16 octets.
	ext := append([]byte{0xa2, 0x23, 0x30, 0x21, 0x30, 0x1f, 6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2, 4, 0x12, 4, 0x10}, make([]byte, 16)...)
	// SEQUENCE, SEQUENCE: both lengths are below 128 before and after.
	if request[1]+byte(len(ext)) > 0x7f || request[1] != request[3]+2 {
		t.Fatalf("unexpected form %x", request)
	}
	out := bytes.Clone(request)
	out[1] += byte(len(ext))
	out[3] += byte(len(ext))
	return append(out, ext...)
}
