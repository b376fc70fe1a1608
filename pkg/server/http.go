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

// trace gives each request of a listener an id, counts and logs it, and keeps a panic from costing more than the request.
func (s *Server) trace(listener string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler { return s.traced(listener, next) }
}

func (s *Server) traced(listener string, next http.Handler) http.Handler {
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
			took := time.Since(began)
			s.metrics.request(listener, r, out.status, took)
			s.log.DebugContext(r.Context(), "request", "request_id", id, "method", r.Method, "path", loggedPath(r),
				"status", out.status, "source", r.RemoteAddr, "took", took)
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
	writeHealth(w, http.StatusOK, health{Status: healthOK})
}

// The states of a check, and of all of them together.
const (
	healthOK       = "ok"
	healthDegraded = "degraded" // a person is needed, and sending requests elsewhere would not help
	healthFailing  = "failing"  // another replica would serve better
)

// health is what the health addresses answer.
type health struct {
	Status string            `json:"status"`
	Checks map[string]string `json:"checks,omitempty"` // ok, or what is wrong

	states map[string]string // of each check
}

// note takes a finding over. What is worse stays.
func (h *health) note(check, state, format string, args ...any) {
	if h.states[check] == healthFailing || h.states[check] == healthDegraded && state == healthDegraded {
		return
	}
	h.states[check], h.Checks[check] = state, fmt.Sprintf(format, args...)
	if state == healthFailing || h.Status == healthOK {
		h.Status = state
	}
}

// maxStoreAge is how long the store may not have been heard of before this replica says that it is not ready.
const maxStoreAge = 5 * time.Second

// maxExportFailing is how long exporting may fail before readyz tells.
const maxExportFailing = 30 * time.Second

// health looks at everything that requests need. What is wrong with this replica alone is failing. What is the same on
// all of them, since they serve what the store holds, such as a CRL that nobody can renew, is degraded: a proxy that took
// all replicas out would turn one trouble into several.
func (s *Server) health() health {
	now := s.clock.Now()
	h := health{Status: healthOK, Checks: map[string]string{}, states: map[string]string{}}
	for _, check := range []string{"store", "keys", "crl", "clock"} {
		h.Checks[check], h.states[check] = healthOK, healthOK
	}
	if age := s.watcher.Age(); age > maxStoreAge {
		h.note("store", healthFailing, "not heard of for %s", age.Round(time.Second))
	}
	if _, err := s.clock.Check(); err != nil {
		h.note("clock", healthFailing, "%s", fault.Public(err).Detail)
	}
	if s.own.current.Load() == nil {
		h.note("keys", healthFailing, "the server has no certificate of its own")
	}
	if name := s.signers.missing(); name != "" {
		h.note("keys", healthFailing, "issuer %s has no OCSP responder in force", name)
	}
	if s.export != nil {
		h.Checks["export"], h.states["export"] = healthOK, healthOK
		if st := s.export.State(); st.Err != nil && time.Since(st.Since) > maxExportFailing {
			h.note("export", healthDegraded, "fails since %s; the log says why", st.Since.UTC().Format(time.RFC3339))
		}
	}
	for _, c := range s.crls.State() {
		switch {
		case c.Number == 0:
			h.note("crl", healthFailing, "issuer %s has not published one yet", c.Issuer)
		case c.Expired(now):
			h.note("crl", healthDegraded, "issuer %s: number %d ended at %s; verifiers refuse everybody", c.Issuer, c.Number, c.NextUpdate.Format(time.RFC3339))
		// Half its life is long before the end: there is time to mend.
		case now.After(c.ThisUpdate.Add(c.NextUpdate.Sub(c.ThisUpdate) / 2)):
			h.note("crl", healthDegraded, "issuer %s: number %d is from %s and ends at %s", c.Issuer, c.Number, c.ThisUpdate.Format(time.RFC3339), c.NextUpdate.Format(time.RFC3339))
		}
	}
	return h
}

// readyz says whether requests should be sent here: 200 when all is well or degraded, 503 when failing. CRLs and OCSP
// answers are served even then.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	h := s.health()
	status := http.StatusOK
	if h.Status == healthFailing {
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
