package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/client"
)

func TestExportThatBreaksOff(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   int
		ok     bool
	}{
		"whole":                 {func(w http.ResponseWriter) { io.WriteString(w, "{\"id\":\"1\"}\n{\"id\":\"2\"}\n") }, 2, true},
		"none":                  {func(http.ResponseWriter) {}, 0, true},
		"a line cut off":        {func(w http.ResponseWriter) { io.WriteString(w, "{\"id\":\"1\"}\n{\"id\"") }, 1, false},
		"a number cut off":      {func(w http.ResponseWriter) { io.WriteString(w, "{\"id\":\"1\"}\n12") }, 1, false},
		"no JSON":               {func(w http.ResponseWriter) { io.WriteString(w, "<html>\n") }, 0, false},
		"a refusal":             {func(w http.ResponseWriter) { w.WriteHeader(403) }, 0, false},
		"broken between lines":  {func(w http.ResponseWriter) { io.WriteString(w, "{\"id\":\"1\"}\n"); broken(w) }, 1, false},
		"broken before a line":  {func(w http.ResponseWriter) { broken(w) }, 0, false},
		"refused when too many": {func(w http.ResponseWriter) { w.WriteHeader(429) }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if q := r.URL.Query(); q.Get("profile") != "server" || q.Has("limit") || q.Has("cursor") || q.Has("count") {
					t.Errorf("query %s", r.URL.RawQuery)
				}
				tt.answer(w)
			})
			q := client.CertificateQuery{Profile: "server", Limit: 5, Cursor: "x", Count: true}
			var ids []string
			var last error
			for cert, err := range c.ExportCertificates(t.Context(), q) {
				if err != nil {
					last = err
					continue
				}
				ids = append(ids, cert.ID)
			}
			if len(ids) != tt.want || (last == nil) != tt.ok {
				t.Errorf("got %v, %v; want %d, ok = %v", ids, last, tt.want, tt.ok)
			}
			if name == "no JSON" || name == "a line cut off" || name == "a number cut off" {
				return // Export passes on what comes
			}
			var b bytes.Buffer
			if err := c.Export(t.Context(), "jsonl", q, &b); (err == nil) != tt.ok {
				t.Errorf("copying: %v, want ok = %v", err, tt.ok)
			}
		})
	}
}

// broken sends what there is and breaks the connection.
func broken(w http.ResponseWriter) {
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestFollowGoesOnWhereItWas(t *testing.T) {
	var asked []string
	calls := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/audit" {
			io.WriteString(w, `{"events":[{"seq":7}]}`)
			return
		}
		asked = append(asked, r.URL.Query().Get("after"))
		calls++
		switch calls {
		case 1: // ends properly, as when the server does
			io.WriteString(w, "\n{\"seq\":8}\n\n{\"seq\":9}\n")
		case 2: // breaks in the middle of a line
			io.WriteString(w, "{\"seq\":10}\n{\"seq\":1")
			broken(w)
		default:
			io.WriteString(w, "{\"seq\":11}\n")
		}
	})
	var seqs []int64
	lost := 0
	q := client.FollowQuery{After: client.FromNow, Action: "certificate.", Lost: func(error) { lost++ }}
	for e, err := range c.FollowAudit(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		if seqs = append(seqs, e.Seq); e.Seq == 11 {
			break
		}
	}
	if !slices.Equal(seqs, []int64{8, 9, 10, 11}) || !slices.Equal(asked, []string{"7", "9", "10"}) || lost != 2 {
		t.Errorf("events %v, asked after %v, lost %d times", seqs, asked, lost)
	}
}

func TestFollowEnds(t *testing.T) {
	for _, tt := range []struct {
		status int
		calls  int
	}{{401, 1}, {409, 1}, {503, 1}} { // of the first connection
		calls := 0
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.WriteHeader(tt.status)
		})
		for _, err := range c.FollowAudit(t.Context(), client.FollowQuery{}) {
			if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != tt.status {
				t.Errorf("%d: got %v", tt.status, err)
			}
		}
		if calls != tt.calls {
			t.Errorf("%d: %d calls, want %d", tt.status, calls, tt.calls)
		}
	}
	// The context ends while nothing happens.
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var last error
	for _, err := range c.FollowAudit(ctx, client.FollowQuery{}) {
		last = err
	}
	if !errors.Is(last, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", last)
	}
}
