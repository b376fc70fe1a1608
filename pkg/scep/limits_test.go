package scep_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
)

// A source that fails is held up at that point, and nobody else is: other sources go on, and so does who has a good
// certificate behind the same address.
func TestThrottling(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	mux := chi.NewRouter()
	r.handler.Routes(mux)
	from := func(source string, message []byte) int {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/scep/default?operation=PKIOperation", bytes.NewReader(message))
		req.RemoteAddr = source + ":4711"
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, req)
		if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") == "" {
			t.Error("nobody is told when to come back")
		}
		return w.Code
	}
	bytesOf := func(m scepraw.Message) []byte {
		m.SenderNonce = scepraw.Random(16)
		return m.Bytes()
	}
	good := r.device(deviceKey())
	first := good.enrolled()
	good.signer, good.id = first, "renewal"
	calm := r.device(otherKey())
	calm.signer, calm.id = calm.enrolled(), "calm"
	r.later(first.NotAfter.Sub(first.NotBefore) * 2 / 3)
	renewal := func() []byte { return bytesOf(good.message("17", good.envelope(good.csr()).Bytes())) }
	stranger := r.device(otherKey())
	wrong := func() []byte {
		return bytesOf(stranger.message("19", stranger.envelope(stranger.csr("no challenge")).Bytes()))
	}

	r.configure("", func(c *enrollment.Config) { c.Limits = enrollment.LimitRules{FailuresPerMinute: 3} })
	// One a machine can be too slow for only if a message takes it 20 seconds.
	exhaust := func(what string, send func() int) {
		t.Helper()
		for range 200 {
			if send() == http.StatusTooManyRequests {
				return
			}
		}
		t.Errorf("%s was never held up", what)
	}
	exhaust("a source that fails", func() int { return from("192.0.2.1", wrong()) })
	exhaust("a source that sends garbage", func() int { return from("192.0.2.2", []byte("garbage")) })
	if code := from("192.0.2.3", wrong()); code != http.StatusOK {
		t.Errorf("another source got %d", code)
	}
	if code := from("192.0.2.1", renewal()); code != http.StatusOK {
		t.Errorf("a renewal behind the address that is held up got %d", code)
	}
	// A copy of its certificate opens nothing to who has not its key.
	thief := *good
	thief.sign = otherKey()
	exhaust("who shows another's certificate", func() int {
		return from("192.0.2.1", bytesOf(thief.message("17", thief.envelope(thief.csr()).Bytes())))
	})
	// What the device itself is refused counts for it alone.
	exhaust("a device that is refused", func() int { return from("192.0.2.1", bytesOf(good.message("19", []byte("no envelope")))) })

	// Messages of a point, wherever they come from.
	r.configure("", func(c *enrollment.Config) { c.Limits = enrollment.LimitRules{PerMinute: 3, Burst: 2} })
	n := 0
	exhaust("a point", func() int { n++; return from(fmt.Sprintf("198.51.100.%d", n%200), wrong()) })
	if code := from("203.0.113.1", bytesOf(calm.message("17", calm.envelope(calm.csr()).Bytes()))); code != http.StatusOK {
		t.Errorf("a renewal at a busy point got %d", code)
	}
	r.later(time.Hour)
	if code := from("203.0.113.2", wrong()); code != http.StatusOK {
		t.Errorf("an hour later the point answers %d", code)
	}
}
