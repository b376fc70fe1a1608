package rest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/store"
)

// reader gives the lines of a stream one by one.
type reader struct {
	t     *testing.T
	lines chan string // closed at the stream's end
}

func newReader(t *testing.T, res *http.Response) *reader {
	t.Helper()
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/jsonl" || res.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s, %v", res.Status, res.Header)
	}
	r := &reader{t: t, lines: make(chan string, 100_000)}
	go func() {
		defer close(r.lines)
		for scan := bufio.NewScanner(res.Body); scan.Scan(); {
			r.lines <- scan.Text()
		}
	}()
	return r
}

// line returns the next one; false at the end of the stream.
func (r *reader) line() (string, bool) {
	r.t.Helper()
	select {
	case l, ok := <-r.lines:
		return l, ok
	case <-time.After(20 * time.Second):
		r.t.Fatal("the stream says nothing")
		return "", false
	}
}

// event returns the next event, past heartbeats.
func (r *reader) event() Event {
	r.t.Helper()
	for {
		l, ok := r.line()
		if !ok {
			r.t.Fatal("the stream has ended")
		}
		if l == "" {
			continue
		}
		var e Event
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			r.t.Fatal(err)
		}
		return e
	}
}

func (r *rig) head() store.Head {
	r.t.Helper()
	h, err := r.store.Head(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

func (r *rig) record(n int, action string) {
	r.t.Helper()
	for i := range n {
		if err := r.store.RecordAudit(r.t.Context(), audit.Record{Time: time.Now(), Action: action, Actor: "test", Target: fmt.Sprint("n/", i)}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestFollow(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	began := r.head().AuditSeq
	all := newReader(t, r.get(t.Context(), s, "auditor", "/audit/follow?after=0"))
	onward := newReader(t, r.get(t.Context(), s, "auditor", "/audit/follow"))
	issues := newReader(t, r.get(t.Context(), s, "auditor", "/audit/follow?after=0&action=certificate.issue&actor=token:operator"))
	c := r.issue("operator", "someone")
	r.must("operator", "POST", "/certificates/"+c.ID+"/hold", nil, nil)
	second := r.issue("operator", "another")

	for want := int64(1); want <= began+3; want++ {
		if e := all.event(); e.Seq != want {
			t.Fatalf("event %d of the whole trail has seq %d", want, e.Seq)
		}
	}
	for i, want := range []string{"certificate.issue", "certificate.hold", "certificate.issue"} {
		if e := onward.event(); e.Seq != began+1+int64(i) || e.Action != want || e.Actor != "token:operator" {
			t.Errorf("from now on: %+v, want seq %d %s", e, began+1+int64(i), want)
		}
	}
	for _, want := range []string{c.ID, second.ID} {
		if e := issues.event(); e.Target != "certificate/"+want {
			t.Errorf("what is filtered has %+v, want %s", e, want)
		}
	}
}

// TestFollowFromFarBack begins pages behind the head, which moves on meanwhile.
func TestFollowFromFarBack(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	const n = 3*followPage + 17
	records := make([]audit.Record, n)
	for i := range records {
		records[i] = audit.Record{Time: time.Now(), Action: []string{"test.even", "test.odd"}[i%2], Actor: "test", Target: fmt.Sprint("n/", i)}
	}
	began := r.head().AuditSeq
	for chunk := range slices.Chunk(records, 500) {
		if err := r.store.RecordAudit(t.Context(), chunk...); err != nil {
			t.Fatal(err)
		}
	}
	for _, after := range []int64{0, began, began + 1, began + followPage - 1, began + followPage, began + followPage + 1, began + n - 1} {
		stream := newReader(t, r.get(t.Context(), s, "auditor", fmt.Sprint("/audit/follow?after=", after)))
		r.record(1, "test.more")
		head := r.head().AuditSeq
		for want := after + 1; want <= head; want++ {
			if e := stream.event(); e.Seq != want {
				t.Fatalf("after %d: seq %d, want %d", after, e.Seq, want)
			}
		}
	}
	odd := newReader(t, r.get(t.Context(), s, "auditor", fmt.Sprint("/audit/follow?action=test.odd&after=", began)))
	for i := 1; i < n; i += 2 {
		if e := odd.event(); e.Target != fmt.Sprint("n/", i) {
			t.Fatalf("filtered: %s, want n/%d", e.Target, i)
		}
	}
}

func TestFollowHasAPulse(t *testing.T) {
	r := newRig(t).with(func(c *Config) { c.heartbeat = time.Millisecond })
	s := r.serve()
	r.newToken("ending", map[string]any{"role": "auditor"})
	stream := newReader(t, r.get(t.Context(), s, "ending", "/audit/follow"))
	for range 2 {
		if l, ok := stream.line(); l != "" || !ok {
			t.Errorf("got %q, %v, want an empty line", l, ok)
		}
	}
	// When the token is revoked the stream ends.
	r.must("administrator", "DELETE", "/tokens/ending", nil, nil)
	for {
		if l, ok := stream.line(); !ok {
			break
		} else if l != "" && !strings.Contains(l, `"token.revoke"`) {
			t.Errorf("got %q", l)
		}
	}
}

func TestFollowRefuses(t *testing.T) {
	r := newRig(t)
	r.newToken("servers", map[string]any{"role": "auditor", "profiles": []string{"server"}})
	for _, tt := range []struct {
		who, query string
		status     int
		want       string
	}{
		{"enroller", "", 403, "may not"},
		{"servers", "", 403, "tells of all"},
		{"auditor", "after=1000000", 409, "older state"},
		{"auditor", "after=-2", 422, "after"},
		{"auditor", "after=x", 422, "after"},
	} {
		if status, answer := r.call(tt.who, "GET", "/audit/follow?"+tt.query, nil); status != tt.status || !strings.Contains(string(answer), tt.want) {
			t.Errorf("%s %s: %d %s, want %d with %q", tt.who, tt.query, status, answer, tt.status, tt.want)
		}
	}
}

func TestFollowersAreBoundedAndEnd(t *testing.T) {
	r := newRig(t)
	s := r.serve()
	gone, leave := context.WithCancel(t.Context())
	var streams []*reader
	for i := range r.limits().Followers {
		ctx := t.Context()
		if i == 0 {
			ctx = gone
		}
		streams = append(streams, newReader(t, r.get(ctx, s, "auditor", "/audit/follow")))
	}
	res := r.get(t.Context(), s, "auditor", "/audit/follow")
	if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
		t.Errorf("one follower more: %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
	}
	// One goes: there is room again.
	leave()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if res := r.get(t.Context(), s, "auditor", "/audit/follow"); res.StatusCode == http.StatusOK {
			break
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal("a client that went keeps its place")
		}
	}
	// The server ends: so does every stream, properly, and Shutdown does not wait for them.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Config.Shutdown(ctx); err != nil {
		t.Errorf("shutting down with followers: %v", err)
	}
	for _, stream := range streams[1:] {
		for ok := true; ok; {
			_, ok = stream.line()
		}
	}
}
