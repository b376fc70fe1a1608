// Package server builds a Certwright server from its settings, by hand and in one place: store, keys, authority,
// publisher, responder, front-ends, listeners. It runs them, and ends them in order.
package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"go.yaml.in/yaml/v3"
	"golang.org/x/net/netutil"

	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/campaign"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/export"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/ocsp"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/publication"
	"github.com/certwright/certwright/pkg/publish"
	"github.com/certwright/certwright/pkg/rest"
	"github.com/certwright/certwright/pkg/scep"
	"github.com/certwright/certwright/pkg/settings"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/watch"
	"github.com/certwright/certwright/web"
)

// shutdownWait is how long requests in progress may take to end. Container runtimes kill after 10 seconds.
const shutdownWait = 8 * time.Second

// maxConns bounds the connections of each listener, so that idle ones of one cannot take the descriptors that the others and
// the database need. What is beyond waits in the system's queue.
//
// The plain listener makes room by itself (publish.Listener), and may have as many as the system lets it, up to maxPlain.
var maxConns = map[string]int{"https": 1024, "mtls": 1024, "metrics": 64}

const (
	maxPlain = 16 << 10
	// otherFiles is what the store, outgoing connections and everything else may need of a process's descriptors.
	otherFiles = 512
)

// maxPlainConns returns how many connections the plain listener may have.
func maxPlainConns() int {
	free := maxDescriptors() - otherFiles
	for _, n := range maxConns {
		free -= n
	}
	return max(64, min(maxPlain, free))
}

// Options are what a Server takes besides its settings.
type Options struct {
	Version string
	Log     *slog.Logger     // nil discards
	Now     func() time.Time // nil means time.Now
	Random  io.Reader        // of serial numbers; nil means crypto/rand
	// ConfirmClock is a person's word that the clock is right, however old the newest record in the store is.
	ConfirmClock bool
}

// Server is a server whose listeners are open. Close or Run ends it.
type Server struct {
	Version   string
	First     bool   // this start has set the store up
	PublicURL string // where verifiers reach it
	HTTPURL   string // of the plain listener; empty when it is off
	HTTPSURL  string
	MTLSURL   string // empty when it is off
	// MetricsURL is where metrics are had without a token; empty when that is off.
	MetricsURL string
	TokenFile  string // the first administrator's token; set when First
	RootFile   string // the root certificate, PEM
	StoreName  string // where the store is, for people, without a password
	Root       *issuer.Issuer

	cfg       config.Config
	log       *slog.Logger
	clock     *clock.Guard
	started   time.Time
	store     store.Store
	watcher   *watch.Watcher
	issuers   *issuer.Set
	ca        *ca.Authority
	crls      *crl.Publisher
	campaigns *campaign.Runner
	devices   *device.Registry
	tokens    *auth.Tokens
	ocsp      *ocsp.Responder
	own       *listenerCert
	signers   *delegates
	serving   []*listening
	metrics   *metrics
	export    *export.Exporter // nil: nothing is exported
	seen      *publication.Tracker

	sealer   sealer
	points   *enrollment.Points
	ra       *scep.RA
	scep     *scep.Handler
	notifier *enrollment.Notifier
}

// listening is an open listener with what serves it.
type listening struct {
	name   string
	l      net.Listener
	server *http.Server
	tls    bool
	conns  connections
	plain  *publish.Listener // the same as l for the plain listener; else nil
}

// New opens the listeners and the store, sets an empty store up, and builds everything. Nothing is served yet, save that
// connections are accepted into the listeners' queues.
func New(ctx context.Context, cfg config.Config, o Options) (_ *Server, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{Version: o.Version, cfg: cfg, log: o.Log, clock: clock.New(o.Now, nil), metrics: newMetrics()}
	s.started = s.clock.Now()
	if o.ConfirmClock {
		s.clock.Confirm()
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.listen(); err != nil {
		return nil, err
	}
	if err := prepareData(s.cfg.Data); err != nil {
		return nil, err
	}
	if s.store, err = openStore(ctx, &s.cfg, s.log, storeWait); err != nil {
		return nil, err
	}
	s.store = store.Measured(s.store, s.metrics.observe)
	s.StoreName = storeName(&s.cfg)
	kek, err := s.setUp(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.build(ctx, kek, o); err != nil {
		return nil, err
	}
	return s, s.writeFiles()
}

// listen opens the listeners, so that ports which are in use fail before anything is written, and so that addresses with
// port 0 are known before they go into certificates.
func (s *Server) listen() error {
	open := func(name, addr string, isTLS bool) (string, error) {
		if addr == config.Off {
			return "", nil
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return "", fault.Wrap(fault.Conflict, err, "listening on %s for %s", addr, name).
				WithHint("is another server running? Choose another address with --%s", name)
		}
		if name != "http" {
			l = netutil.LimitListener(l, maxConns[name])
		}
		s.serving = append(s.serving, &listening{name: name, l: l, tls: isTLS})
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return "", err
		}
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return "", err
		}
		scheme := "http"
		if isTLS {
			scheme = "https"
		}
		return scheme + "://" + net.JoinHostPort(reachable(host), port), nil
	}
	var err error
	if s.HTTPURL, err = open("http", s.cfg.HTTP, false); err != nil {
		return err
	}
	if s.HTTPSURL, err = open("https", s.cfg.HTTPS, true); err != nil {
		return err
	}
	if s.MTLSURL, err = open("mtls", s.cfg.MTLS, true); err != nil {
		return err
	}
	if s.MetricsURL, err = open("metrics", s.cfg.Metrics, false); err != nil {
		return err
	}
	if s.MetricsURL != "" {
		s.MetricsURL += metricsPath
	}
	s.PublicURL = s.cfg.PublicURL
	if s.PublicURL == "" {
		if s.HTTPURL == "" {
			return fault.New(fault.BadRequest, "the http listener is off, and no public URL is set: verifiers could not be told where CRLs are").
				WithHint("set --public-url to where another replica or a proxy publishes them")
		}
		s.PublicURL = s.HTTPURL
	}
	return nil
}

// reachable returns a host that this machine's clients can use for a listener on the given one.
func reachable(host string) string {
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		return host
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		return strings.ToLower(name)
	}
	return "localhost"
}

// storeName tells where the store is, without a password.
func storeName(cfg *config.Config) string {
	if cfg.Database == "" {
		return filepath.Join(cfg.Data, storeFile)
	}
	if u, err := url.Parse(cfg.Database); err == nil && u.Host != "" {
		return u.Scheme + "://" + u.Host + u.Path
	}
	return "postgres"
}

// names returns the names of our own listeners. reserved are those that only this server may have certificates for:
// loopback names belong to every program of the machine.
func (s *Server) names() (all, reserved []string) {
	add := func(name string) {
		name = strings.ToLower(strings.Trim(name, "[]"))
		if ip, err := netip.ParseAddr(name); err == nil {
			name = ip.String()
		}
		if name == "" || slices.Contains(all, name) {
			return
		}
		all = append(all, name)
		if ip, err := netip.ParseAddr(name); err == nil && ip.IsLoopback() || name == "localhost" {
			return
		}
		reserved = append(reserved, name)
	}
	for _, u := range []string{s.HTTPSURL, s.MTLSURL, s.PublicURL} {
		if parsed, err := url.Parse(u); err == nil {
			add(parsed.Hostname())
		}
	}
	for _, n := range s.cfg.Names {
		add(n)
	}
	add("localhost")
	add("127.0.0.1")
	add("::1")
	return all, reserved
}

func (s *Server) build(ctx context.Context, kek *keys.KEK, o Options) (err error) {
	if s.issuers, err = issuer.Load(ctx, issuer.Config{Store: s.store, Open: opener(kek), Logger: s.log}); err != nil {
		return err
	}
	for _, i := range s.issuers.Current().Issuers {
		if i.Root && s.Root == nil {
			s.Root = i
		}
	}
	if s.tokens, err = auth.NewTokens(s.store, s.clock.Now); err != nil {
		return err
	}
	names, reserved := s.names()
	if s.ca, err = ca.New(ca.Config{
		Store: s.store, Issuers: s.issuers, Clock: s.clock, PublicURL: s.PublicURL, Process: s.process(), Reserved: reserved,
		StatusChanged: s.statusChanged, Random: o.Random, Logger: s.log,
	}); err != nil {
		return err
	}
	if err := s.buildEnrollment(ctx, kek); err != nil {
		return err
	}
	if s.watcher, err = watch.New(watch.Config{Store: s.store, Logger: s.log}); err != nil {
		return err
	}
	s.signers = &delegates{ca: s.ca, issuers: s.issuers, now: s.clock.Now, log: s.log}
	s.own = &listenerCert{ca: s.ca, issuers: s.issuers, names: names, now: s.clock.Now, log: s.log}
	if s.seen, err = publication.New(publication.Config{
		Store: s.store, Now: s.clock.Now, OCSP: s.metrics.visible("ocsp"), CRL: s.metrics.visible("crl"), Logger: s.log,
	}); err != nil {
		return err
	}
	holder, ttl := s.leaseTerms()
	if s.crls, err = crl.New(crl.Config{
		Store: s.store, Issuers: s.issuers, Clock: s.clock, Leases: s.store, Holder: holder, LeaseTTL: ttl, PublicURL: s.PublicURL,
		Interval: time.Duration(s.cfg.CRL.Interval), NextUpdate: time.Duration(s.cfg.CRL.NextUpdate), Coalesce: time.Duration(s.cfg.CRL.Coalesce),
		Served: func(key *issuer.Key, l *crl.Published, made bool) { s.seen.Served(key.ID, l.Scope, l.Change, made) },
		Logger: s.log,
	}); err != nil {
		return err
	}
	if s.ocsp, err = ocsp.New(ocsp.Config{
		Store: s.store, Issuers: s.issuers, Delegates: s.signers, Clock: s.clock, Age: s.watcher.Age,
		NextUpdate: time.Duration(s.cfg.OCSP.NextUpdate), MaxAge: time.Duration(s.cfg.OCSP.MaxAge),
		MaxStale: time.Duration(s.cfg.OCSP.MaxStale), SignUnknown: s.cfg.OCSP.Unknown == "unknown", Logger: s.log,
	}); err != nil {
		return err
	}
	if s.campaigns, err = campaign.New(campaign.Config{
		Store: s.store, Issuers: s.issuers, Clock: s.clock, Leases: s.store, Holder: holder, LeaseTTL: ttl, Changed: s.statusesChanged,
		Batch: int(s.cfg.Limits.RevocationStep), Logger: s.log,
	}); err != nil {
		return err
	}
	if s.devices, err = device.New(device.Config{Store: s.store, Clock: s.clock, Revoke: s.revokeOf, Logger: s.log}); err != nil {
		return err
	}
	// In this order: who comes later relies on what those before have learned.
	s.watcher.Follow("clock", func(_ context.Context, h store.Head) error { s.clock.Saw(h.NewestTime); return nil })
	s.watcher.Follow("issuers", s.followIssuers())
	s.watcher.Follow("authority", s.ca.Follow)
	s.watcher.Follow("tokens", s.tokens.Follow)
	s.watcher.Follow("enrollment points", s.points.Follow)
	s.watcher.Follow("registration authorities", s.ra.Follow)
	s.watcher.Follow("ocsp", s.ocsp.Follow)
	s.watcher.Follow("crl", s.crls.Follow)
	s.watcher.Follow("publication", s.seen.Follow)
	s.watcher.Follow("campaigns", s.campaigns.Follow())
	if err := s.watcher.Sync(ctx); err != nil {
		return err
	}
	if err := s.ca.RecordAddresses(ctx); err != nil {
		s.log.Warn("the addresses of sharded CRLs are not recorded yet; that is done when certificates are issued", "err", err)
	}
	// What cannot be signed now, because of the clock or the store, is tried again while the server runs: CRLs, the start page
	// and OCSP answers that need nothing new are served meanwhile, and readyz says what is missing.
	s.renewOwn(ctx)
	return s.handlers()
}

// followIssuers reloads the issuers when they have changed, and when a status has: an issuer's own certificate may be
// the one.
func (s *Server) followIssuers() watch.Follower {
	var config, status int64 = -1, -1
	return func(ctx context.Context, h store.Head) error {
		if h.ConfigChange == config && h.StatusChange == status {
			return nil
		}
		if err := s.issuers.Reload(ctx); err != nil {
			return err
		}
		config, status = h.ConfigChange, h.StatusChange
		return nil
	}
}

// statusChanged has this replica's answers change before the caller of the change is told that it is done.
func (s *Server) statusChanged(c pki.Certificate) {
	s.ocsp.Forget(c.IssuerKeyID, c.Serial)
	s.seen.Decided(c.IssuerKeyID, c.Serial)
	s.crls.Dirty(c.IssuerKeyID)
	for _, k := range s.issuers.Current().Keys() {
		if k.Fingerprint != c.Fingerprint {
			continue
		}
		// One of our own CAs: it must not issue any more, nor stand in the trust file.
		ctx, cancel := context.WithTimeout(context.Background(), shutdownWait)
		defer cancel()
		if err := s.issuers.Reload(ctx); err != nil {
			s.log.Error("an issuer's status has changed, and the issuers cannot be reloaded now", "issuer", k.Issuer.Name, "err", err)
		}
	}
}

// revokeOf revokes a certificate of a device that is blocked, retired or replaced.
func (s *Server) revokeOf(ctx context.Context, r device.Revocation) error {
	_, err := s.ca.Revoke(ctx, ca.StatusRequest{Principal: r.Principal, RequestID: r.RequestID, Certificate: r.Certificate, Reason: r.Reason})
	return err
}

// statusesChanged is statusChanged for a step of a campaign, which never has certificates of our own CAs.
func (s *Server) statusesChanged(certs []pki.Certificate) {
	keys := map[int64]bool{}
	for _, c := range certs {
		s.ocsp.Forget(c.IssuerKeyID, c.Serial)
		s.seen.Decided(c.IssuerKeyID, c.Serial)
		keys[c.IssuerKeyID] = true
	}
	for key := range keys {
		s.crls.Dirty(key)
	}
}

// leaseTerms returns under which name, and for how long at a time, this process takes leases. The embedded store belongs to
// one process at a time: it takes the lease over from the process before, however that ended, and seldom renews it, since
// each renewal is a write to the disk.
func (s *Server) leaseTerms() (holder string, ttl time.Duration) {
	if s.cfg.Database == "" {
		return "the only process", time.Hour
	}
	return replicaName(), crl.DefaultLeaseTTL
}

// replicaName names this process among those that share a store: the machine, for people, and a random part.
func replicaName() string {
	var b [6]byte
	rand.Read(b[:])
	host, err := os.Hostname()
	if err != nil {
		host = "replica"
	}
	return host + "-" + hex.EncodeToString(b[:])
}

// storeKind names the kind of the store.
func (s *Server) storeKind() string {
	if s.cfg.Database != "" {
		return "postgres"
	}
	return "sqlite"
}

// metricsPath is where monitoring systems look for metrics unless they are told otherwise.
const metricsPath = "/metrics"

// handlers builds what each listener serves.
func (s *Server) handlers() error {
	named, err := s.cfg.CRL.ParseAliases()
	if err != nil {
		return err
	}
	aliases := make([]publish.Alias, len(named))
	for i, a := range named {
		aliases[i] = publish.Alias{Path: a.Path, Issuer: a.Issuer, Scope: cmp.Or(a.Scope, pki.ScopeFull)}
	}
	pub, err := publish.New(publish.Config{Aliases: aliases, Issuers: s.issuers, CRLs: s.crls, OCSP: s.ocsp, Now: s.clock.Now})
	if err != nil {
		return err
	}
	if err := s.buildExport(pub); err != nil {
		return err
	}
	s.registerFacts()
	rules, err := keyRules(s.cfg.WeakKeys)
	if err != nil {
		return err
	}
	if err := s.buildSCEP(csr.Parser{KeyRules: rules}); err != nil {
		return err
	}
	api, _, err := rest.New(rest.Config{
		CSRParser: csr.Parser{KeyRules: rules},
		Store:     s.store, CA: s.ca, Issuers: s.issuers, CRLs: s.crls, Campaigns: s.campaigns, Tokens: s.tokens, Sync: s.watcher.Sync, Now: s.clock.Now, Clock: s.clock, Age: s.watcher.Age,
		Metrics: s.metrics.handler,
		Points:  s.points, Enrollments: s.store, Decisions: s.scep, RAs: s.ra, Devices: s.devices,
		Server: rest.Server{Version: s.Version, PublicURL: s.PublicURL, Store: s.storeKind(), Started: s.started.Truncate(time.Second)},
		Limits: limitsOf(s.cfg.Limits),
		Logger: s.log,
	})
	if err != nil {
		return err
	}
	pages := func(name string, tls bool) *chi.Mux {
		r := chi.NewRouter()
		r.Use(s.trace(name))
		r.Get("/", s.startPage(tls))
		r.Head("/", s.startPage(tls))
		r.Get("/healthz", s.healthz)
		r.Get("/readyz", s.readyz)
		for path, h := range web.Static() {
			r.Method(http.MethodGet, path, h)
			r.Method(http.MethodHead, path, h)
		}
		pub.Routes(r)
		r.NotFound(notFound)
		r.MethodNotAllowed(methodNotAllowed(r))
		return r
	}
	for _, l := range s.serving {
		l.server = &http.Server{
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute,
			MaxHeaderBytes: 16 << 10, ConnState: l.conns.changed, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		}
		switch l.name {
		case "http":
			r := pages(l.name, false)
			r.Group(func(r chi.Router) {
				r.Use(publish.OwnTime) // it has limits of its own, and waits for the store and for webhooks
				s.scep.Routes(r)
			})
			l.server.Handler = r
			l.server.IdleTimeout = 30 * time.Second
			if l.plain, err = publish.NewListener(publish.ListenerConfig{Listener: l.l, Handler: pub, MaxConns: maxPlainConns(), Served: s.metrics.served(l.name), Logger: s.log}); err != nil {
				return err
			}
			l.l, l.server.ConnContext = l.plain, l.plain.ConnContext
		case "https":
			r := pages(l.name, true)
			r.Mount(rest.Root, api)
			// The same as below rest.Root, with a token: at the address that monitoring systems take by themselves.
			r.Get(metricsPath, again(metricsPath, api))
			l.server.Handler = secure(r)
			l.server.TLSConfig = s.tlsConfig()
		case "metrics":
			r := chi.NewRouter()
			r.Use(s.trace(l.name))
			r.Get("/healthz", s.healthz)
			r.Get("/readyz", s.readyz)
			r.Method(http.MethodGet, metricsPath, s.metrics.handler)
			r.NotFound(notFound)
			r.MethodNotAllowed(methodNotAllowed(r))
			l.server.Handler = secure(r)
			l.server.IdleTimeout = 5 * time.Minute // scrapes come once a minute, or less
		case "mtls":
			r := chi.NewRouter()
			r.Use(s.trace(l.name))
			r.Get("/healthz", s.healthz)
			r.Mount(rest.Root, selfOnly(api))
			r.NotFound(notFound)
			r.MethodNotAllowed(methodNotAllowed(r))
			l.server.Handler = secure(r)
			l.server.TLSConfig = s.tlsConfig()
			// Any certificate is let in as far as the handshake goes, so that a holder whose certificate is refused is told why; who
			// it is, and whether it is in force, is settled for each request.
			l.server.TLSConfig.ClientAuth = tls.RequireAnyClientCert
		}
	}
	return nil
}

// again serves a path below rest.Root at an address of its own.
func again(path string, api http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := chi.RouteContext(r.Context())
		c.RoutePath, c.RoutePatterns = path, nil
		api.ServeHTTP(w, r)
	}
}

// keyRules reads the list of weak keys, if there is one.
func keyRules(path string) (keys.Rules, error) {
	if path == "" {
		return keys.Rules{}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return keys.Rules{}, fault.Wrap(fault.Conflict, err, "opening the list of weak keys")
	}
	defer f.Close()
	weak, err := keys.ReadWeakList(f)
	if err != nil {
		return keys.Rules{}, fault.Wrap(fault.Conflict, err, "reading the list of weak keys, %s", path)
	}
	return keys.Rules{Weak: weak}, nil
}

func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{GetCertificate: s.own.get, MinVersion: tls.VersionTLS12, Time: s.clock.Now, NextProtos: []string{"h2", "http/1.1"}}
}

// Run serves until the context ends, and then ends everything: requests in progress first, the store last.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var jobs sync.WaitGroup
	jobs.Go(func() { s.watcher.Run(background) })
	jobs.Go(func() { s.crls.Run(background) })
	jobs.Go(func() { s.seen.Run(background) })
	jobs.Go(func() { s.campaigns.Run(background) })
	jobs.Go(func() { s.scep.Run(background) })
	jobs.Go(func() { s.devices.Run(background) })
	jobs.Go(func() { s.maintain(background) })
	jobs.Go(func() { s.forgetRequests(background) })
	jobs.Go(func() { s.notifier.Run(background) })
	if s.export != nil {
		jobs.Go(func() { s.export.Run(background) })
	}
	defer jobs.Wait()
	defer stop()

	failed := make(chan error, len(s.serving))
	var servers sync.WaitGroup
	for _, l := range s.serving {
		servers.Go(func() {
			var err error
			if l.tls {
				err = l.server.ServeTLS(l.l, "", "")
			} else {
				err = l.server.Serve(l.l)
			}
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serving %s: %w", l.name, err)
			}
		})
	}
	defer servers.Wait()
	var err error
	select {
	case <-ctx.Done():
		s.log.Info("ending")
	case err = <-failed:
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer cancel()
	for _, l := range s.serving {
		if e := l.server.Shutdown(end); e != nil {
			// What is still there after the wait is cut off.
			_ = l.server.Close()
		}
		if l.plain != nil {
			l.plain.Drain(end)
		}
	}
	return err
}

// maintain renews the server's own certificates and leaves a checkpoint of the audit chain in the log: whoever collects
// logs elsewhere can later prove that nothing before it was changed.
func (s *Server) maintain(ctx context.Context) {
	every := renewCheck
	if s.own.current.Load() == nil {
		every = renewCheckSoon
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var logged int64 = -1
	for {
		if h := s.watcher.Head(); h.AuditSeq != logged {
			s.log.Info("audit checkpoint", "change", h.Change, "records", h.AuditSeq, "head", hex.EncodeToString(h.Hash[:]))
			logged = h.AuditSeq
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.renewOwn(ctx)
	}
}

// renewOwn renews what of the server's own certificates is due.
func (s *Server) renewOwn(ctx context.Context) {
	if err := s.own.renew(ctx); err != nil {
		s.log.Error("the server's own certificate cannot be renewed", "err", err)
	}
	if err := s.ra.Renew(ctx); err != nil {
		s.log.Error("RA certificates cannot be renewed", "err", err)
	}
	if err := s.signers.renewAll(ctx); err != nil {
		s.log.Error("OCSP responder certificates cannot be renewed", "err", err)
	}
}

// Close ends a server that was never run, or has been. It may be called twice.
func (s *Server) Close() {
	for _, l := range s.serving {
		// A listener that its server has closed says so again; nobody needs to know.
		_ = l.l.Close()
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Error("closing the store", "err", err)
		}
		s.store = nil
	}
}

// clientConfig is what the command line reads from the data folder to find the server.
type clientConfig struct {
	Server    string `yaml:"server"`
	TokenFile string `yaml:"token_file"`
	CAFile    string `yaml:"ca_file"`
}

// writeFiles leaves the root certificate and the command line's settings in the data folder.
func (s *Server) writeFiles() error {
	s.RootFile = filepath.Join(s.cfg.Data, rootFile)
	if err := replaceFile(s.RootFile, issuer.EncodePEM(s.issuers.Current().Roots()...)); err != nil {
		return fmt.Errorf("writing the root certificate: %w", err)
	}
	settings, err := yaml.Marshal(clientConfig{Server: s.HTTPSURL, TokenFile: filepath.Join(s.cfg.Data, tokenFile), CAFile: s.RootFile})
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(s.cfg.Data, clientFile), settings); err != nil {
		return fmt.Errorf("writing the command line's settings: %w", err)
	}
	return nil
}

// process is what this process's configuration says where an issuer's settings say nothing.
func (s *Server) process() settings.InForce {
	in := settings.Default()
	in.CRL.Interval, in.CRL.NextUpdate, in.CRL.Coalesce = time.Duration(s.cfg.CRL.Interval), time.Duration(s.cfg.CRL.NextUpdate), time.Duration(s.cfg.CRL.Coalesce)
	in.OCSP.NextUpdate, in.OCSP.MaxAge = time.Duration(s.cfg.OCSP.NextUpdate), time.Duration(s.cfg.OCSP.MaxAge)
	return in
}
