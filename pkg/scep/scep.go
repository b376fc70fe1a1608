package scep

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"golang.org/x/time/rate"

	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/cms"
	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/store"
)

// Limits on foreign bytes.
const (
	maxBodyBytes = 64 << 10
	// requestTimeout is how long a request may take: its body, its turn, the store.
	requestTimeout = 20 * time.Second
)

// replyQuantum is the tick at which failures leave: how long the work took is not seen from outside.
const replyQuantum = 10 * time.Millisecond

// capabilities is the answer to GetCACaps, with the keywords of RFC 8894, Section 3.5.2, in their letter case. strongSwan
// 5.9 sees AES, SHA-256 and Renewal only in a list that has DES3 and SHA-384 (strongswan/strongswan#1607).
const capabilities = "AES\nDES3\nPOSTPKIOperation\nRenewal\nSCEPStandard\nSHA-1\nSHA-256\nSHA-384\nSHA-512\n"

// Media types (RFC 8894, Section 4).
const (
	typeCA      = "application/x-x509-ca-cert"
	typeRA      = "application/x-x509-ca-ra-cert"
	typeMessage = "application/x-pki-message"
)

// Store is the part of a store that the front-end uses.
type Store interface {
	store.Certificates
	store.Enrollments
	store.Challenges
	store.Requests
	store.Devices
	store.Notifications
	Secret(ctx context.Context, name string) ([]byte, error)
	store.Audit
}

// Config is what a Handler is made of. All but CSRParser, Notifier and Logger are required.
type Config struct {
	Store   Store
	CA      *ca.Authority
	Issuers *issuer.Set
	Points  *enrollment.Points
	RA      *RA
	CRLs    *crl.Publisher
	Sealer  enrollment.Sealer
	Clock   *clock.Guard
	// CSRParser has the rules for keys. Whether it takes SHA-1 is up to the point.
	CSRParser csr.Parser
	// Notifier is told that there is something to deliver; without one another replica delivers it.
	Notifier *enrollment.Notifier
	// Registry is told that there are superseded certificates to revoke; without one another replica revokes them.
	Registry *device.Registry
	Logger   *slog.Logger // nil discards
}

// Handler serves SCEP. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	log     *slog.Logger
	limits  *limits
	auditor *auditor
	turns   chan struct{} // bounds how many messages are processed at a time
	counts  counts
	notes   notes
	hooks   hooks
}

// messagesPerCPU is how many messages are processed at a time. Most wait for the store, which commits together what comes
// together: few at a time make small and dear commits.
const messagesPerCPU = 32

// New returns a handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Store == nil || cfg.CA == nil || cfg.Issuers == nil || cfg.Points == nil || cfg.RA == nil || cfg.CRLs == nil || cfg.Sealer == nil || cfg.Clock == nil {
		return nil, errors.New("scep: incomplete config")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Handler{cfg: cfg, log: cfg.Logger, turns: make(chan struct{}, messagesPerCPU*runtime.GOMAXPROCS(0)), limits: newLimits(cfg.Clock.Now)}
	h.auditor = newAuditor(cfg.Clock.Now)
	h.hooks.limit = rate.NewLimiter(failureNotesPerSecond, failureNotesBurst)
	return h, nil
}

// Routes adds the routes to a router: each point, with what clients put behind it, and the addresses that old clients
// have built in for the default one (RFC 8894, Section 4.1). The listener must not ask for client certificates: macOS and
// Windows break.
func (h *Handler) Routes(r chi.Router) {
	r.HandleFunc("/scep", h.serve)
	r.HandleFunc("/scep/*", h.serve)
	for _, path := range []string{"/pkiclient.exe", "/cgi-bin/pkiclient.exe", "/certsrv/mscep/mscep.dll", "/certsrv/mscep/mscep.dll/pkiclient.exe"} {
		r.HandleFunc(path, h.serve)
		r.HandleFunc(path+"/", h.serve)
	}
}

// pointOf returns the name of the enrollment point that a path is of. Clients put slashes and a program's name behind the
// address that they were given.
func pointOf(path string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/scep")
	if !ok {
		return enrollment.DefaultPoint, true
	}
	parts := strings.FieldsFunc(rest, func(r rune) bool { return r == '/' })
	if n := len(parts); n > 0 && strings.EqualFold(parts[n-1], "pkiclient.exe") {
		if parts = parts[:n-1]; n > 1 && parts[n-2] == "cgi-bin" {
			parts = parts[:n-2]
		}
	}
	switch len(parts) {
	case 0:
		return enrollment.DefaultPoint, true
	case 1:
		return parts[0], true
	}
	return "", false
}

// serve answers a request of any operation.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	switch r.Method {
	case http.MethodGet, http.MethodPost, http.MethodHead:
	default:
		header.Set("Allow", "GET, HEAD, POST")
		http.Error(w, "SCEP takes GET and POST", http.StatusMethodNotAllowed)
		return
	}
	name, ok := pointOf(r.URL.Path)
	point, err := h.cfg.Points.Point(name)
	if !ok || err != nil || point.Config().Disabled {
		http.Error(w, "there is no enrollment point of this name", http.StatusNotFound)
		return
	}
	timeout := requestTimeout
	if w := point.Webhook(); w != nil {
		timeout += time.Duration(w.Timeout)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	operation, message := query(r.URL.RawQuery)
	switch operation {
	case "GetCACaps": // whatever message= says: some send a CA identifier, some nothing (RFC 8894, Section 3.5.1)
		h.counts.add(operation, "SUCCESS")
		header.Set("Content-Type", "text/plain")
		header.Set("Content-Length", strconv.Itoa(len(capabilities)))
		write(w, []byte(capabilities))
	case "GetCACert":
		h.getCACert(ctx, w, point)
	case "GetNextCACert":
		h.counts.add(operation, "unsupported")
		http.Error(w, "GetNextCACert is not served: no successor of the CA has been announced", http.StatusNotFound)
	case "PKIOperation":
		if r.Method == http.MethodHead { // nobody would get what it issued
			header.Set("Allow", "GET, POST")
			http.Error(w, "PKIOperation takes GET and POST", http.StatusMethodNotAllowed)
			return
		}
		h.pkiOperation(ctx, w, r, point, message)
	default:
		h.counts.add("unknown", "refused")
		http.Error(w, "unknown operation: SCEP has GetCACaps, GetCACert, GetNextCACert and PKIOperation", http.StatusBadRequest)
	}
}

// write sends an answer. The client may be gone; there is nobody else to tell.
func write(w http.ResponseWriter, b []byte) { _, _ = w.Write(b) }

// operations has the names of RFC 8894, Section 4, by what they are in lower case.
var operations = map[string]string{"getcacaps": "GetCACaps", "getcacert": "GetCACert", "getnextcacert": "GetNextCACert", "pkioperation": "PKIOperation"}

// query reads the two parameters of a request. It is no form: a plus sign is one, since clients do not escape those of
// base64 (smallstep/certificates#916), and what is not escaped right stays as it is. The letter case of names does not
// count.
func query(raw string) (operation, message string) {
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		if v, err := url.PathUnescape(value); err == nil {
			value = v
		}
		switch {
		case strings.EqualFold(name, "operation") && operation == "":
			operation = strings.TrimSpace(value)
		case strings.EqualFold(name, "message") && message == "":
			message = value
		}
	}
	if known, ok := operations[strings.ToLower(operation)]; ok {
		operation = known
	}
	return operation, message
}

// decodeMessage reads base64 as clients write it: with line breaks, without padding, with spaces where plus signs were,
// in either alphabet (RFC 8894, Section 4.1, asks for the first one).
func decodeMessage(text string) ([]byte, error) {
	clean := strings.Map(func(r rune) rune {
		switch r {
		case '\r', '\n', '\t', '=':
			return -1
		case ' ', '-':
			return '+'
		case '_':
			return '/'
		}
		return r
	}, text)
	return base64.RawStdEncoding.DecodeString(clean)
}

// getCACert answers GetCACert (RFC 8894, Section 4.2).
func (h *Handler) getCACert(ctx context.Context, w http.ResponseWriter, point *enrollment.Point) {
	i, all, err := h.authorities(ctx, point)
	if err != nil {
		h.counts.add("GetCACert", "unavailable")
		h.unavailable(ctx, w, err)
		return
	}
	h.counts.add("GetCACert", "SUCCESS")
	mediaType, body := typeRA, []byte(nil)
	if point.CACertificates() == enrollment.Single && point.Legacy(enrollment.LegacyIssuerKey, h.cfg.Clock.Now()) {
		mediaType, body = typeCA, i.Current.Certificate.Raw
	} else {
		list := [][]byte{all[0].certificate.Raw} // the RA first: Apple pairs what comes first
		for _, c := range i.Current.Chain() {
			root := bytes.Equal(c.RawSubject, c.RawIssuer)
			if !root || point.CACertificates() == enrollment.ChainWithRoot {
				list = append(list, c.Raw)
			}
		}
		body = cms.CertificatesOnly(list...)
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	write(w, body)
}

// authorities returns a point's issuer, and who signs and decrypts for it: the RA's certificate in use first, then older
// ones, and the issuer's own key where the point lets it.
func (h *Handler) authorities(ctx context.Context, point *enrollment.Point) (*issuer.Issuer, []*authority, error) {
	i, err := h.cfg.Issuers.Current().Issuer(point.Issuer())
	if err != nil {
		return nil, nil, fault.Wrap(fault.Unavailable, err, "the enrollment point has no issuer")
	}
	all, err := h.cfg.RA.ensure(ctx, i)
	if err != nil {
		return nil, nil, err
	}
	if point.Legacy(enrollment.LegacyIssuerKey, h.cfg.Clock.Now()) {
		own, err := h.cfg.RA.issuerKey(i.Current)
		switch {
		case err != nil:
			h.log.Warn("the issuer's key cannot serve SCEP, though the point lets it", "point", point.Name(), "issuer", i.Name, "err", err)
		case point.CACertificates() == enrollment.Single:
			all = append([]*authority{own}, all...)
		default:
			all = append(all[:len(all):len(all)], own)
		}
	}
	return i, all, nil
}

// unavailable answers what is our fault, or the store's.
func (h *Handler) unavailable(ctx context.Context, w http.ResponseWriter, err error) {
	f := fault.Public(err)
	status := http.StatusServiceUnavailable
	switch f.Kind {
	case fault.Unavailable:
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(f.RetryAfter/time.Second))))
		h.log.Warn("a SCEP request was not answered", "request_id", problem.RequestID(ctx), "err", err)
	default:
		status = http.StatusInternalServerError
		h.log.Error("a SCEP request failed", "request_id", problem.RequestID(ctx), "err", err)
	}
	http.Error(w, "the server cannot answer this now; try again", status)
}

// pkiOperation answers PKIOperation (RFC 8894, Section 4.3).
func (h *Handler) pkiOperation(ctx context.Context, w http.ResponseWriter, r *http.Request, point *enrollment.Point, message string) {
	source := sourceOf(r)
	key, counts := sourceKey(point, source)
	var wait time.Duration
	if counts {
		wait = h.limits.wait(key)
	}
	throttle := func() {
		h.counts.add("PKIOperation", "throttled")
		h.refuse(point, enrollment.ReasonThrottled)
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		http.Error(w, "too many requests; try again later", http.StatusTooManyRequests)
	}
	refuse := func(status int, text string) {
		if wait > 0 {
			throttle()
			return
		}
		h.counts.add("PKIOperation", "refused")
		h.refuse(point, enrollment.ReasonMalformed)
		if counts {
			h.limits.spend(point, key)
		}
		http.Error(w, text, status)
	}
	var body []byte
	var err error
	if r.Method == http.MethodPost {
		tooLong := "the message has more than " + strconv.Itoa(maxBodyBytes) + " octets"
		if r.ContentLength > maxBodyBytes { // it is not waited for
			refuse(http.StatusRequestEntityTooLarge, tooLong)
			return
		}
		// A front-end that hangs in the middle of its body must not hold a connection for long.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(requestTimeout))
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			refuse(http.StatusRequestEntityTooLarge, tooLong)
			return
		}
		if err == nil && len(body) == 0 && message != "" {
			body, err = decodeMessage(message)
		}
	} else {
		body, err = decodeMessage(message)
	}
	if err != nil || len(body) == 0 {
		refuse(http.StatusBadRequest, "the message cannot be read: it is the body of a POST, or base64 in the parameter message")
		return
	}
	request, err := cms.ParsePKIMessage(body, cms.Limits{MaxBytes: maxBodyBytes})
	if err != nil {
		h.log.DebugContext(ctx, "not a pkiMessage", "point", point.Name(), "source", source, "err", err)
		refuse(http.StatusBadRequest, "this is not a SCEP message: "+fault.Public(err).Detail)
		return
	}
	if request.SenderNonce == nil {
		// An answer must repeat it (RFC 8894, Section 3.2.1.5).
		refuse(http.StatusBadRequest, "the SCEP message has no senderNonce of 16 octets, which the answer would have to repeat")
		return
	}
	if wait = max(wait, h.limits.take(point)); wait > 0 {
		f, ok := h.signer(ctx, point, request)
		if !ok {
			throttle()
			return
		}
		// It answers for itself alone.
		key, counts = signerKey(point, f), true
		if wait = h.limits.wait(key); wait > 0 {
			throttle()
			return
		}
	}
	arrived := time.Now()
	answer, err := h.answer(ctx, point, request, source, r.UserAgent())
	if answer.failed() {
		if counts {
			h.limits.spend(point, key)
		}
		wait := replyQuantum - time.Since(arrived)%replyQuantum
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	if err != nil {
		if fault.Is(err, fault.BadRequest) {
			refuse(http.StatusBadRequest, "the message cannot be processed")
			return
		}
		h.counts.add(known(request.MessageType), "unavailable")
		h.unavailable(ctx, w, err)
		return
	}
	h.counts.add(known(request.MessageType), answer.status.String())
	w.Header().Set("Content-Type", typeMessage)
	w.Header().Set("Content-Length", strconv.Itoa(len(answer.message)))
	write(w, answer.message)
}

// known names a message type for metrics, which must not have one label for each number that somebody sends.
func known(t cms.MessageType) string {
	switch t {
	case cms.PKCSReq, cms.RenewalReq, cms.CertPoll, cms.GetCert, cms.GetCRL:
		return t.String()
	}
	return "unknown"
}

// answer processes a message. A panic costs this message and no other: a peer of ours dies of messageType 99.
func (h *Handler) answer(ctx context.Context, point *enrollment.Point, request *cms.PKIMessage, source, userAgent string) (out reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("a SCEP message caused a panic", "request_id", problem.RequestID(ctx), "point", point.Name(), "source", source,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fault.New(fault.BadRequest, "the message cannot be processed")
		}
	}()
	turn := &turn{turns: h.turns}
	if turn.take(ctx) {
		defer turn.give()
	} else {
		return out, fault.New(fault.Unavailable, "too many requests at a time").WithRetryAfter(5 * time.Second)
	}
	i, all, err := h.authorities(ctx, point)
	if err != nil {
		return out, err
	}
	t := &transaction{
		h: h, ctx: ctx, point: point, issuer: i, authorities: all, by: all[0], request: request, source: source, now: h.cfg.Clock.Now(),
		id: problem.RequestID(ctx), contact: contact{userAgent: userAgent}, turn: turn,
	}
	return t.run()
}

// sourceOf returns the network address of a client, without port.
func sourceOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().WithZone("").String()
	}
	return host
}
