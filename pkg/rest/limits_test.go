package rest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/store"
)

// fakeClock is moved by hand.
type fakeClock struct{ t time.Time }

func (c *fakeClock) now() time.Time { return c.t }

func TestBuckets(t *testing.T) {
	clock := &fakeClock{time.Unix(1_000_000, 0)}
	b := newBuckets(Limit{PerSecond: 2, Burst: 3}, Limit{}, clock.now)
	take := func(key string, want time.Duration) {
		t.Helper()
		if got := b.take(key).Round(time.Millisecond); got != want {
			t.Errorf("at %s, %s waits for %s, want %s", clock.t.Format("05.000"), key, got, want)
		}
	}
	for range 3 {
		take("a", 0)
	}
	for range 5 { // refusals cost nothing
		take("a", 500*time.Millisecond)
	}
	take("b", 0)
	clock.t = clock.t.Add(400 * time.Millisecond)
	take("a", 100*time.Millisecond)
	clock.t = clock.t.Add(100 * time.Millisecond)
	take("a", 0)
	take("a", 500*time.Millisecond)
	clock.t = clock.t.Add(time.Hour) // the bucket holds no more than the burst
	for range 3 {
		take("a", 0)
	}
	take("a", 500*time.Millisecond)
	clock.t = clock.t.Add(-time.Hour) // a clock that is set back is not an hour of refusals
	if wait := b.take("a"); wait > time.Second {
		t.Errorf("after the clock was set back: %s", wait)
	}
}

func TestBucketsForgetTheIdle(t *testing.T) {
	clock := &fakeClock{time.Unix(1_000_000, 0)}
	b := newBuckets(Limit{PerSecond: 1, Burst: 1}, Limit{}, clock.now)
	b.take("busy")
	for i := range 5 * maxBuckets {
		b.take(fmt.Sprint(i))
		if i%1000 == 0 && b.take("busy") == 0 {
			t.Fatalf("a flood of %d others has filled a bucket that is in use", i)
		}
		if n := len(b.young) + len(b.old); n > 2*maxBuckets {
			t.Fatalf("%d buckets are remembered", n)
		}
	}
}

func TestLimitsByPrincipal(t *testing.T) {
	clock := &fakeClock{time.Unix(1_000_000, 0)}
	one := Limit{PerSecond: 1, Burst: 1}
	alice, bob := pki.Principal{Name: "token:alice", Role: pki.RoleOperator}, pki.Principal{Name: "token:bob", Role: pki.RoleOperator}
	holder := pki.Principal{Name: "certificate:ab"}
	unauthenticated := fault.New(fault.Unauthenticated, "")
	type request struct {
		acc     access
		p       pki.Principal
		source  string
		err     error
		refused bool
	}
	for name, requests := range map[string][]request{
		"tokens each have their own": {
			{operate, alice, "192.0.2.1", nil, false},
			{operate, alice, "192.0.2.2", nil, true},
			{readAll, alice, "192.0.2.1", nil, true},
			{operate, bob, "192.0.2.1", nil, false},
			{operate, bob, "192.0.2.1", fault.New(fault.Forbidden, ""), true},
		},
		"holders": {{self, holder, "192.0.2.1", nil, false}, {self, holder, "192.0.2.1", nil, true}, {operate, alice, "192.0.2.1", nil, false}},
		"open routes by address": {
			{open, pki.Principal{}, "192.0.2.1", nil, false},
			{open, pki.Principal{}, "192.0.2.1", nil, true},
			{open, pki.Principal{}, "192.0.2.2", nil, false},
			{operate, alice, "192.0.2.1", nil, false},
		},
		"wrong credentials by address": {
			{operate, pki.Principal{}, "192.0.2.1", unauthenticated, false}, {self, pki.Principal{}, "192.0.2.1", unauthenticated, true},
		},
		"IPv6 by network": {
			{open, pki.Principal{}, "2001:db8::1", nil, false},
			{open, pki.Principal{}, "2001:db8::2", nil, true},
			{open, pki.Principal{}, "2001:db8:0:1::1", nil, false},
			{open, pki.Principal{}, "fe80::1%eth0", nil, false},
			{open, pki.Principal{}, "fe80::2%eth1", nil, true},
		},
		"IPv4 in IPv6": {{open, pki.Principal{}, "::ffff:192.0.2.1", nil, false}, {open, pki.Principal{}, "192.0.2.1", nil, true}},
		"loopback": {
			{open, pki.Principal{}, "127.0.0.1", nil, false},
			{open, pki.Principal{}, "127.0.0.1", nil, false},
			{open, pki.Principal{}, "::1", nil, false},
			{open, pki.Principal{}, "::1", nil, false},
			{operate, pki.Principal{}, "::ffff:127.0.0.1", unauthenticated, false},
		},
		"no address at all": {{open, pki.Principal{}, "@", nil, false}, {open, pki.Principal{}, "@", nil, true}},
	} {
		l := newLimits(Limits{Token: one, Holder: one, Source: one}, clock.now)
		for i, q := range requests {
			err := l.spend(q.acc, q.p, q.source, q.err)
			if fault.Is(err, fault.RateLimited) != q.refused {
				t.Errorf("%s: request %d: %v, want refused = %v", name, i, err, q.refused)
			}
		}
	}
	// By default tokens are not bounded, the others are; a negative rate bounds nobody.
	l := newLimits(Limits{}, clock.now)
	refused := func(acc access, p pki.Principal) (n int) {
		for range 1000 {
			if l.spend(acc, p, "192.0.2.1", nil) != nil {
				n++
			}
		}
		return n
	}
	if tokens, holders, sources := refused(operate, alice), refused(self, holder), refused(open, pki.Principal{}); tokens != 0 || holders != 900 || sources != 500 {
		t.Errorf("by default, of 1000 at once, %d, %d and %d are refused; want 0, 900 and 500", tokens, holders, sources)
	}
	none := Limit{PerSecond: -1}
	l = newLimits(Limits{Token: none, Holder: none, Source: none}, clock.now)
	if n := refused(operate, alice) + refused(self, holder) + refused(open, pki.Principal{}); n != 0 {
		t.Errorf("without limits %d are refused", n)
	}
}

func TestTooManyRequests(t *testing.T) {
	r := newRig(t)
	clock := &fakeClock{time.Now()}
	l := r.with(func(c *Config) {
		c.Now, c.Limits = clock.now, Limits{Token: Limit{PerSecond: 0.1, Burst: 2}, Source: Limit{PerSecond: 1, Burst: 1}}
	})
	for _, tt := range []struct {
		who, path string
		status    int
		retry     string
	}{
		{"operator", "/whoami", 200, ""},
		{"operator", "/certificates", 200, ""},
		{"operator", "/whoami", 429, "10"},
		{"operator", "/audit/follow", 429, "10"},
		{"auditor", "/whoami", 200, ""},
		{"", "/server", 200, ""},
		{"", "/whoami", 429, "1"}, // not 401: guessing is what is bounded
		{"operator", "/server", 429, "1"},
	} {
		req := httptest.NewRequestWithContext(t.Context(), "GET", Root+tt.path, nil)
		if tt.who != "" {
			req.Header.Set("Authorization", "Bearer "+r.tokens[tt.who])
		}
		w := httptest.NewRecorder()
		l.handler.ServeHTTP(w, req)
		if w.Code != tt.status || w.Header().Get("Retry-After") != tt.retry {
			t.Errorf("%s as %q: %d, Retry-After %q; want %d, %q", tt.path, tt.who, w.Code, w.Header().Get("Retry-After"), tt.status, tt.retry)
		}
		if tt.status == 429 && w.Header().Get("Content-Type") != problem.ContentType {
			t.Errorf("%s as %q: not a problem document", tt.path, tt.who)
		}
	}
	clock.t = clock.t.Add(10 * time.Second)
	if status, answer := l.call("operator", "GET", "/whoami", nil); status != http.StatusOK {
		t.Errorf("after the pause: %d %s", status, answer)
	}
}

func TestLimitsOfWhatIsExpensive(t *testing.T) {
	r := newRig(t).with(func(c *Config) {
		c.Limits.Searches, c.Limits.Wait, c.Limits.BodyBytes = 1, time.Millisecond, 1000
	})
	body := map[string]any{"csr": strings.Repeat("a", 1000), "profile": "client"}
	if status, answer := r.call("operator", "POST", "/certificates", body); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body above the limit: %d %s, want 413", status, answer)
	}
	body["csr"] = "a"
	if status, answer := r.call("operator", "POST", "/certificates", body); status != http.StatusBadRequest {
		t.Errorf("a body below the limit: %d %s, want 400", status, answer)
	}
	// The only turn is taken: the next is told when to come back.
	has, hold := make(chan struct{}), make(chan struct{})
	busy := r.with(func(c *Config) {
		c.Store = &pace{Store: r.store, list: func(int, store.Page) error { close(has); <-hold; return nil }}
	})
	first := make(chan int)
	go func() {
		status, _ := busy.call("auditor", "GET", "/certificates", nil)
		first <- status
	}()
	select {
	case <-has:
	case status := <-first:
		t.Fatalf("whoever comes first: %d before the list is read", status)
	}
	if status, answer := busy.call("auditor", "GET", "/audit", nil); status != http.StatusTooManyRequests {
		t.Errorf("while another has the turn: %d %s, want 429", status, answer)
	}
	close(hold)
	if status := <-first; status != http.StatusOK {
		t.Errorf("whoever has the turn: %d, want 200", status)
	}
	for _, bad := range []Limits{{Searches: -1}, {Wait: MaxWait}, {Wait: -1}, {BodyBytes: -1}} {
		c := r.config
		c.Limits = bad
		if _, _, err := New(c); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
