package server

import (
	"context"
	"math"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// Metrics come from two places. What happens too often to be asked for later, requests and the store's verbs, is counted
// as it happens; everything else the parts know by themselves (their Metrics, State and Stats), and they are asked when
// somebody scrapes. Labels have few values, all of them ours: no client can make a series by what it sends.
// docs/metrics.md describes each, and a test holds the two against each other.

// scrapeLimits bound what scraping may cost: a scrape reads memory only, and takes a few milliseconds.
const (
	maxScrapes    = 4
	scrapeTimeout = 10 * time.Second
)

// metrics is the registry of one server with what counts into it.
type metrics struct {
	registry *prometheus.Registry
	handler  http.Handler

	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	verbs     *prometheus.HistogramVec
	failures  *prometheus.CounterVec
	visibles  *prometheus.HistogramVec
}

// newMetrics makes the registry. The facts about a server are registered when it is built.
func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewPedanticRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "certwright_http_requests_total", Help: "Answered requests.",
		}, []string{"listener", "route", "method", "status"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "certwright_http_request_duration_seconds", Help: "From a request's headers to the end of its answer.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"listener", "route", "method"}),
		verbs: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "certwright_store_verb_duration_seconds", Help: "How long the store's verbs took, their commits and waiting for them included.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15},
		}, []string{"verb"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "certwright_store_errors_total", Help: "Verbs of the store that returned an error; what is absent or in conflict is among them.",
		}, []string{"verb", "kind"}),
		visibles: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "certwright_revocation_visible_seconds", Help: "From the decision of a revocation, by any replica, to when this replica's CRL or OCSP answers said so.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2, 3, 5, 10, 30, 60, 300},
		}, []string{"where"}),
	}
	m.registry.MustRegister(m.requests, m.durations, m.verbs, m.failures, m.visibles,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout, EnableOpenMetrics: true,
	})
	return m
}

// observe is told of every verb of the store (see store.Measured).
func (m *metrics) observe(verb string, took time.Duration, err error) {
	m.verbs.WithLabelValues(verb).Observe(took.Seconds())
	if err != nil {
		m.failures.WithLabelValues(verb, fault.KindOf(err).String()).Inc()
	}
}

// visible returns what is told how long revocations took to be seen.
func (m *metrics) visible(where string) func(time.Duration) {
	h := m.visibles.WithLabelValues(where)
	return func(took time.Duration) { h.Observe(took.Seconds()) }
}

// request counts an answered request.
func (m *metrics) request(listener string, r *http.Request, status int, took time.Duration) {
	route := routeOf(r)
	method := methodOf(r.Method)
	m.requests.WithLabelValues(listener, route, method, strconv.Itoa(status)).Inc()
	m.durations.WithLabelValues(listener, route, method).Observe(took.Seconds())
}

// served returns what counts a request that the listener answered before net/http saw it.
func (m *metrics) served(listener string) func(post bool) {
	get := m.requests.WithLabelValues(listener, "/ocsp/*", http.MethodGet, "200")
	post := m.requests.WithLabelValues(listener, "/ocsp", http.MethodPost, "200")
	return func(isPost bool) {
		if isPost {
			post.Inc()
		} else {
			get.Inc()
		}
	}
}

// routeOf returns the pattern of the route that took a request, "none" if there was none.
func routeOf(r *http.Request) string {
	if c := chi.RouteContext(r.Context()); c != nil {
		if p := c.RoutePattern(); p != "" && p != "/*" && p[len(p)-1] != '*' || p == "/ocsp/*" {
			return p
		}
	}
	return "none"
}

// methodOf returns a request's method, "other" for those that clients make up.
func methodOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

// connections counts the open connections of a listener; its method is an http.Server's ConnState.
type connections struct{ open atomic.Int64 }

func (c *connections) changed(_ net.Conn, to http.ConnState) {
	switch to {
	case http.StateNew:
		c.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		c.open.Add(-1)
	}
}

// fact is a metric whose values are asked for at each scrape.
type fact struct {
	name, help string
	labels     []string
	read       func(put func(value float64, labels ...string))
}

// facts is a collector of facts. Those whose names end in _total are counters, the others gauges.
type facts struct {
	list  []fact
	descs []*prometheus.Desc
	kinds []prometheus.ValueType
}

func newFacts(list []fact) *facts {
	f := &facts{list: list}
	for _, one := range list {
		kind := prometheus.GaugeValue
		if n := len(one.name) - len("_total"); n > 0 && one.name[n:] == "_total" {
			kind = prometheus.CounterValue
		}
		f.descs = append(f.descs, prometheus.NewDesc(one.name, one.help, one.labels, nil))
		f.kinds = append(f.kinds, kind)
	}
	return f
}

// Describe implements prometheus.Collector.
func (f *facts) Describe(out chan<- *prometheus.Desc) {
	for _, d := range f.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (f *facts) Collect(out chan<- prometheus.Metric) {
	for i, one := range f.list {
		one.read(func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(f.descs[i], f.kinds[i], value, labels...)
		})
	}
}

// batches is the histogram of the store's group commits.
type batches struct {
	desc  *prometheus.Desc
	stats func() store.Stats
}

// Describe implements prometheus.Collector.
func (b *batches) Describe(out chan<- *prometheus.Desc) { out <- b.desc }

// Collect implements prometheus.Collector.
func (b *batches) Collect(out chan<- prometheus.Metric) {
	s := b.stats()
	buckets, below := map[float64]uint64{}, uint64(0)
	for i, n := range s.BatchSizes {
		below += uint64(n)
		buckets[math.Exp2(float64(i))] = below
	}
	out <- prometheus.MustNewConstHistogram(b.desc, max(uint64(s.Batches), below), float64(s.BatchedOps), buckets)
}

// registerFacts registers what the server's parts know of themselves.
func (s *Server) registerFacts() {
	s.metrics.registry.MustRegister(newFacts(s.facts()), &batches{
		desc:  prometheus.NewDesc("certwright_store_batch_size", "Writes that were committed together.", nil, nil),
		stats: s.store.Stats,
	})
}

// facts lists what the server's parts know of themselves.
func (s *Server) facts() []fact {
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	// An instant that has not come about has no sample.
	instant := func(put func(float64, ...string), t time.Time, labels ...string) {
		if !t.IsZero() {
			put(float64(t.UnixMicro())/1e6, labels...)
		}
	}
	one := func(name, help string, value func() float64) fact {
		return fact{name, help, nil, func(put func(float64, ...string)) { put(value()) }}
	}
	stats := func(name, help string, value func(store.Stats) float64) fact {
		return one(name, help, func() float64 { return value(s.store.Stats()) })
	}
	clockRight := func() bool { _, err := s.clock.Check(); return err == nil }
	kind := s.storeKind()

	fleet := func(each func(g store.GroupFigures)) {
		ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout/2)
		defer cancel()
		// Counted once in a while, however often somebody scrapes; what cannot be counted now has no sample.
		if figures, _, err := s.devices.Fleet(ctx); err == nil {
			for _, g := range device.Largest(figures) {
				each(g)
			}
		}
	}

	list := []fact{
		{"certwright_fleet_devices", "Devices in the registry.", []string{"group", "status"}, func(put func(float64, ...string)) {
			fleet(func(g store.GroupFigures) {
				for _, status := range pki.DeviceStatuses() {
					put(float64(g.Status[status]), g.Group, status.String())
				}
			})
		}},
		{"certwright_fleet_certificates", "Enrolled devices by the state of their newest certificate: revoked, ended, or ending within so many days.", []string{"group", "state"}, func(put func(float64, ...string)) {
			fleet(func(g store.GroupFigures) {
				for state, n := range map[string]int{"revoked": g.Revoked, "ended": g.Ended, "7d": g.In7, "30d": g.In30, "90d": g.In90} {
					put(float64(n), g.Group, state)
				}
			})
		}},
		{"certwright_fleet_failing", "Devices of which a request, or a renewal, was refused since their newest certificate.", []string{"group", "request"}, func(put func(float64, ...string)) {
			fleet(func(g store.GroupFigures) {
				put(float64(g.Failing), g.Group, "any")
				put(float64(g.FailingRenewals), g.Group, "renewal")
			})
		}},
		{"certwright_scep_operations_total", "SCEP messages by operation and outcome; operation legacy counts messages that a legacy switch let in.", []string{"operation", "outcome"}, func(put func(float64, ...string)) {
			for _, c := range s.scep.Counts() {
				put(float64(c.Number), c.Operation, c.Outcome)
			}
		}},
		{"certwright_enrollment_refusals_total", "Requests of devices that were refused, by enrollment point, kind (enroll, renew, poll, get) and reason.", []string{"point", "kind", "reason"}, func(put func(float64, ...string)) {
			for k, n := range s.scep.Refusals() {
				put(float64(n), k.Point, k.Kind, string(k.Reason))
			}
		}},
		{"certwright_build_info", "1, with what is running.", []string{"version", "goversion", "store"}, func(put func(float64, ...string)) {
			put(1, s.Version, runtime.Version(), kind)
		}},
		{"certwright_health_status", "1 for the state of each check of /readyz, 0 for its other states.", []string{"check", "status"}, func(put func(float64, ...string)) {
			h := s.health()
			for check := range h.Checks {
				for _, state := range []string{healthOK, healthDegraded, healthFailing} {
					put(truth(h.states[check] == state), check, state)
				}
			}
		}},
		{"certwright_http_connections", "Open connections.", []string{"listener"}, func(put func(float64, ...string)) {
			for _, l := range s.serving {
				open := l.conns.open.Load()
				if l.plain != nil {
					open = int64(l.plain.Metrics().Open)
				}
				put(float64(open), l.name)
			}
		}},
		{"certwright_http_connections_evicted_total", "Silent connections of the plain listener that gave way to new ones.", nil, func(put func(float64, ...string)) {
			for _, l := range s.serving {
				if l.plain != nil {
					put(float64(l.plain.Metrics().Evicted))
				}
			}
		}},
		{"certwright_http_connections_slow_total", "Connections of the plain listener that were cut off in the middle of an OCSP request that took too long.", nil, func(put func(float64, ...string)) {
			for _, l := range s.serving {
				if l.plain != nil {
					put(float64(l.plain.Metrics().Slow))
				}
			}
		}},
		{"certwright_http_connections_max", "How many connections may be open; more wait, or take the place of silent ones.", []string{"listener"}, func(put func(float64, ...string)) {
			for _, l := range s.serving {
				if l.plain != nil {
					put(float64(maxPlainConns()), l.name)
				} else {
					put(float64(maxConns[l.name]), l.name)
				}
			}
		}},

		stats("certwright_store_batch_fallbacks_total", "Batches that were taken apart because of one write in them.", func(st store.Stats) float64 { return float64(st.Fallbacks) }),
		{"certwright_store_connections", "Open connections to the database.", []string{"state"}, func(put func(float64, ...string)) {
			p := s.store.Stats().Pool
			put(float64(p.InUse), "in_use")
			put(float64(p.Idle), "idle")
		}},
		stats("certwright_store_connections_max", "How many connections to the database may be open.", func(st store.Stats) float64 { return float64(st.Pool.Max) }),
		stats("certwright_store_connection_waits_total", "How often a verb waited for a connection.", func(st store.Stats) float64 { return float64(st.Pool.Waits) }),
		stats("certwright_store_connection_wait_seconds_total", "How long verbs waited for connections.", func(st store.Stats) float64 { return st.Pool.Waited.Seconds() }),
		one("certwright_store_heard_seconds_ago", "How old what this replica knows of the store is.", func() float64 { return s.watcher.Age().Seconds() }),
		one("certwright_store_last_change", "Number of the newest change this replica has seen.", func() float64 { return float64(s.watcher.Head().Change) }),
		one("certwright_audit_last_sequence", "Number of the newest audit record this replica has seen.", func() float64 { return float64(s.watcher.Head().AuditSeq) }),
		{"certwright_audit_newest_timestamp_seconds", "Time of the newest audit record this replica has seen.", nil, func(put func(float64, ...string)) {
			instant(put, s.watcher.Head().NewestTime)
		}},
		one("certwright_clock_trusted", "1 while the clock may be signed with, 0 when it is behind the store or has jumped.", func() float64 { return truth(clockRight()) }),
	}
	list = append(list, s.authorityFacts()...)
	list = append(list, s.webhookFacts()...)
	list = append(list, s.crlFacts(truth, instant)...)
	list = append(list, s.exportFacts(truth, instant)...)
	return append(list, s.ocspFacts(instant)...)
}

// instantFunc puts an instant's Unix time.
type instantFunc = func(put func(float64, ...string), t time.Time, labels ...string)

// authorityFacts are of the certificate authority.
func (s *Server) authorityFacts() []fact {
	return []fact{
		{"certwright_certificates_issued_total", "Certificates issued, renewals and the server's own among them.", []string{"profile", "protocol"}, func(put func(float64, ...string)) {
			for by, n := range s.ca.Metrics().Issued {
				put(float64(n), by.Profile, by.Protocol)
			}
		}},
		{"certwright_issuance_refused_total", "Requests for certificates that were not met; without a profile when none in force was named.", []string{"profile", "kind"}, func(put func(float64, ...string)) {
			for by, n := range s.ca.Metrics().Refused {
				put(float64(n), by.Profile, by.Kind.String())
			}
		}},
		{"certwright_status_changes_total", "Certificates revoked, put on hold and released.", []string{"action"}, func(put func(float64, ...string)) {
			for by, n := range s.ca.Metrics().Changed {
				put(float64(n), by.String())
			}
		}},
		{"certwright_status_changes_refused_total", "Requests to revoke, hold and release that were not met.", []string{"action", "kind"}, func(put func(float64, ...string)) {
			for by, n := range s.ca.Metrics().ChangesRefused {
				put(float64(n), by.Action.String(), by.Kind.String())
			}
		}},
	}
}

// webhookFacts are of the webhooks of enrollment points.
func (s *Server) webhookFacts() []fact {
	return []fact{
		{"certwright_webhook_decisions_total", "What webhooks said of requests, or why they said nothing.", []string{"point", "outcome"}, func(put func(float64, ...string)) {
			for by, n := range s.scep.Webhooks() {
				put(float64(n), by.Point, by.Outcome)
			}
		}},
		{"certwright_webhook_notifications_total", "Attempts to tell webhooks what became of requests.", []string{"point", "outcome"}, func(put func(float64, ...string)) {
			for by, n := range s.notifier.Counts() {
				put(float64(n), by.Point, by.Outcome)
			}
		}},
		{"certwright_webhook_notifications_waiting", "Notifications that wait for their webhook.", []string{"point"}, func(put func(float64, ...string)) {
			for _, b := range s.notifier.Backlogs() {
				put(float64(b.Waiting), b.Point)
			}
		}},
		{"certwright_webhook_notifications_oldest_seconds", "How old the oldest of them is.", []string{"point"}, func(put func(float64, ...string)) {
			for _, b := range s.notifier.Backlogs() {
				put(max(0, s.clock.Now().Sub(b.Oldest).Seconds()), b.Point)
			}
		}},
	}
}

// crlFacts are of the CRLs that this replica serves, and of their making.
func (s *Server) crlFacts(truth func(bool) float64, instant instantFunc) []fact {
	labels := []string{"issuer", "key", "scope"}
	state := func(name, help string, put func(put func(float64, ...string), st crl.State)) fact {
		return fact{name, help, labels, func(out func(float64, ...string)) {
			for _, st := range s.crls.State() {
				put(func(v float64, _ ...string) { out(v, st.Issuer, st.KeyID, st.Scope) }, st)
			}
		}}
	}
	published := func(name, help string, value func(st crl.State) float64) fact {
		return state(name, help, func(put func(float64, ...string), st crl.State) {
			if st.Number != 0 {
				put(value(st))
			}
		})
	}
	return []fact{
		published("certwright_crl_number", "cRLNumber of the CRL that is served.", func(st crl.State) float64 { return float64(st.Number) }),
		published("certwright_crl_entries", "Entries of the CRL that is served.", func(st crl.State) float64 { return float64(st.Entries) }),
		published("certwright_crl_size_bytes", "Size of the CRL that is served, in DER.", func(st crl.State) float64 { return float64(st.Size) }),
		state("certwright_crl_this_update_timestamp_seconds", "thisUpdate of the CRL that is served.", func(put func(float64, ...string), st crl.State) { instant(put, st.ThisUpdate) }),
		state("certwright_crl_next_update_timestamp_seconds", "nextUpdate of the CRL that is served: when verifiers refuse everybody.", func(put func(float64, ...string), st crl.State) { instant(put, st.NextUpdate) }),
		state("certwright_crl_created_timestamp_seconds", "When the CRL that is served was made.", func(put func(float64, ...string), st crl.State) { instant(put, st.CreatedAt) }),
		state("certwright_crl_pending", "1 while a change of a status is not in the CRL yet.", func(put func(float64, ...string), st crl.State) { put(truth(st.Pending)) }),
		state("certwright_crl_failing", "1 while this replica cannot make the CRL.", func(put func(float64, ...string), st crl.State) { put(truth(st.Err != nil)) }),
		{"certwright_crl_builds_total", "CRLs that this replica tried to make: published, failed, or discarded because another replica was faster.", []string{"result"}, func(put func(float64, ...string)) {
			m := s.crls.Metrics()
			put(float64(m.Built), "published")
			put(float64(m.Failed), "failed")
			put(float64(m.Stale), "discarded")
		}},
		{"certwright_crl_leader", "1 on the replica that makes the CRLs.", nil, func(put func(float64, ...string)) { put(truth(s.crls.Metrics().Leader)) }},
	}
}

// ocspFacts are of the OCSP responder, and of what certificates the server lives by.
func (s *Server) ocspFacts(instant instantFunc) []fact {
	return []fact{
		{"certwright_ocsp_responses_total", "OCSP answers by responseStatus (RFC 6960).", []string{"status"}, func(put func(float64, ...string)) {
			m := s.ocsp.Metrics()
			put(float64(m.Successful), "successful")
			put(float64(m.Malformed), "malformedRequest")
			put(float64(m.Internal), "internalError")
			put(float64(m.TryLater), "tryLater")
			put(float64(m.Unauthorized), "unauthorized")
		}},
		{"certwright_ocsp_cache_hits_total", "Successful answers that were ready.", nil, func(put func(float64, ...string)) { put(float64(s.ocsp.Metrics().Cached)) }},
		{"certwright_ocsp_signatures_total", "Answers that were signed.", nil, func(put func(float64, ...string)) { put(float64(s.ocsp.Metrics().Signed)) }},
		{"certwright_ocsp_cache_entries", "Answers that are ready.", nil, func(put func(float64, ...string)) { put(float64(s.ocsp.Metrics().Kept)) }},
		{"certwright_own_certificate_not_after_timestamp_seconds", "When a certificate that the server lives by ends: issuers', the OCSP responders' and the HTTPS listeners'.", []string{"use", "issuer", "key"}, func(put func(float64, ...string)) {
			for _, k := range s.issuers.Current().Keys() {
				instant(put, k.Certificate.NotAfter, "issuer", k.Issuer.Name, k.KeyID)
				if v, ok := s.signers.known.Load(k.ID); ok {
					instant(put, v.(*delegate).NotAfter, "ocsp", k.Issuer.Name, k.KeyID)
				}
			}
			if c := s.own.current.Load(); c != nil {
				instant(put, c.Leaf.NotAfter, ca.ProfileHTTPS, "", "")
			}
		}},
	}
}
