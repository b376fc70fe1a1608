package client_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"

	"github.com/certwright/certwright/pkg/client"
)

func TestPutProfileSendsItsPrecondition(t *testing.T) {
	var got []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method+" "+r.URL.Path+" "+r.Header.Get("If-Match")+r.Header.Get("If-None-Match"))
		if r.Header.Get("If-Match") == `"3"` {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusPreconditionFailed)
			w.Write([]byte(`{"type":"urn:certwright:problem:conflict","status":412,"detail":"somebody else"}`))
			return
		}
		w.Write([]byte(`{"version":1}`))
	})
	if p, err := c.PutProfile(t.Context(), "web", 0, json.RawMessage(`{}`)); err != nil || p.Version != 1 {
		t.Errorf("created: %+v, %v", p, err)
	}
	_, err := c.PutProfile(t.Context(), "a/b", 3, json.RawMessage(`{}`))
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != http.StatusPreconditionFailed {
		t.Errorf("stale: %v", err)
	}
	if len(got) != 2 || got[0] != `PUT /api/v1/profiles/web *` || got[1] != `PUT /api/v1/profiles/a/b "3"` {
		t.Errorf("requests: %q", got)
	}
}
