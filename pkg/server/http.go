package server

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/rest"
	"github.com/certwright/certwright/web"
)

// tokenText finds what looks like a token: in an address only by somebody's mistake, which must not end in a log.
var tokenText = regexp.MustCompile(`cwt_[0-9a-f]{16}_[A-Za-z0-9_-]+`)

// loggedPath is the path of a request as the log has it.
func loggedPath(r *http.Request) string { return tokenText.ReplaceAllString(r.URL.Path, "cwt_...") }

// trace gives each request an id, logs it, and keeps a panic from costing more than the request.
func (s *Server) trace(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := rand.Text()[:16]
		w.Header().Set("X-Request-Id", id)
		r = r.WithContext(problem.WithRequestID(r.Context(), id))
		out := &statusWriter{ResponseWriter: w}
		began := time.Now()
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.log.Error("a request panicked", "request_id", id, "method", r.Method, "path", loggedPath(r), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				if out.status == 0 {
					d := problem.Of(fault.New(fault.Internal, ""))
					d.RequestID = id
					d.Write(out)
				}
			}
			s.log.DebugContext(r.Context(), "request", "request_id", id, "method", r.Method, "path", loggedPath(r),
				"status", out.status, "source", r.RemoteAddr, "took", time.Since(began))
		}()
		next.ServeHTTP(out, r)
	})
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// secure adds what every answer over TLS carries. Strict-Transport-Security is not among it: it holds for a host, not a
// port, and CRLs and the root certificate of the same host are fetched over plain HTTP.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// selfOnly lets only the self-service routes through: the mTLS listener is for certificate holders.
func selfOnly(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := strings.TrimPrefix(r.URL.Path, rest.Root); path != "/self" && !strings.HasPrefix(path, "/self/") {
			d := problem.Of(fault.New(fault.NotFound, "this listener serves holders of certificates, under %s/self", rest.Root).
				WithHint("everything else is on the HTTPS listener"))
			d.RequestID = problem.RequestID(r.Context())
			d.Write(w)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// notFound answers people with a page and programs with a problem document.
func notFound(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		web.SetHeaders(w.Header())
		w.WriteHeader(http.StatusNotFound)
		// The client may be gone; there is nobody else to tell.
		_ = web.RenderNotFound(w)
		return
	}
	d := problem.Of(fault.New(fault.NotFound, "there is nothing at this address"))
	d.RequestID = problem.RequestID(r.Context())
	d.Write(w)
}

// methodNotAllowed answers methods that an address does not take, with those that it does (RFC 9110, Section 15.5.6).
func methodNotAllowed(routes chi.Routes) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", rest.AllowedMethods(routes, r.URL.Path))
		d := problem.Of(fault.New(fault.BadRequest, "this address does not take %s", r.Method))
		d.Status, d.RequestID = http.StatusMethodNotAllowed, problem.RequestID(r.Context())
		d.Write(w)
	}
}

// healthz says that the process runs. It asks nothing else, so that a database's outage does not have every replica
// restarted.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	writeHealth(w, http.StatusOK, health{Status: "ok"})
}

// health is what the health addresses answer.
type health struct {
	Status string            `json:"status"` // ok or failing
	Checks map[string]string `json:"checks,omitempty"`
}

// maxStoreAge is how long the store may not have been heard of before this replica says that it is not ready.
const maxStoreAge = 5 * time.Second

// readyz says whether requests should be sent here: the store answers, the keys are open, and every CRL is fresh. CRLs and
// OCSP answers are served even while it says no.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	now := s.clock.Now()
	h := health{Status: "ok", Checks: map[string]string{"store": "ok", "keys": "ok", "crl": "ok", "clock": "ok"}}
	fail := func(check, format string, args ...any) {
		h.Status, h.Checks[check] = "failing", fmt.Sprintf(format, args...)
	}
	if age := s.watcher.Age(); age > maxStoreAge {
		fail("store", "not heard of for %s", age.Round(time.Second))
	}
	if _, err := s.clock.Check(); err != nil {
		fail("clock", "%s", fault.Public(err).Detail)
	}
	if s.own.current.Load() == nil {
		fail("keys", "the server has no certificate of its own")
	}
	if name := s.signers.missing(); name != "" {
		fail("keys", "issuer %s has no OCSP responder in force", name)
	}
	for _, k := range s.issuers.Current().Keys() {
		switch l, ok := s.crls.Latest(k.KeyID); {
		case !ok:
			fail("crl", "issuer %s has not published one yet", k.Issuer.Name)
		// Half its life is long before the end: there is time to mend.
		case now.After(l.ThisUpdate.Add(l.NextUpdate.Sub(l.ThisUpdate) / 2)):
			fail("crl", "issuer %s: number %d is from %s and ends at %s", k.Issuer.Name, l.Number, l.ThisUpdate.Format(time.RFC3339), l.NextUpdate.Format(time.RFC3339))
		}
	}
	status := http.StatusOK
	if h.Status != "ok" {
		status = http.StatusServiceUnavailable
	}
	writeHealth(w, status, h)
}

func writeHealth(w http.ResponseWriter, status int, h health) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(h)
}
