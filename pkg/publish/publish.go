// Package publish is the front-end for relying parties: CRLs, OCSP and CA certificates over plain HTTP (RFC 5280,
// Sections 4.2.1.13 and 4.2.2.1; RFC 6960, Appendix A; RFC 9919). Everything it serves is signed or public, nobody is
// asked who he is, and nothing it does changes anything.
//
// What is in a CRL or an answer is decided in packages crl and ocsp; here is only what HTTP adds: addresses, encodings,
// caching, limits.
package publish

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/ocsp"
	"github.com/certwright/certwright/pkg/pki"
)

// What Config's zero values stand for.
const (
	DefaultCRLMaxAge         = time.Minute
	DefaultCertificateMaxAge = 5 * time.Minute
	DefaultReadTimeout       = 5 * time.Second
)

// Media types.
const (
	typeCRL         = "application/pkix-crl"                  // RFC 2585, Section 4.2
	typeCertificate = "application/pkix-cert"                 // RFC 2585, Section 4.1
	typeOCSP        = "application/ocsp-response"             // RFC 6960, Appendix C.2
	typePEMChain    = "application/pem-certificate-chain"     // RFC 8555, Section 9.1
	typePEM         = "application/x-pem-file"                // CRLs in PEM have no registered type
	cachePublic     = "public, no-transform, must-revalidate" // RFC 9919, Section 7.2
)

// Config is what a Handler needs. Issuers, CRLs and OCSP are required.
type Config struct {
	Issuers *issuer.Set
	CRLs    *crl.Publisher
	OCSP    *ocsp.Responder

	CRLMaxAge         time.Duration // how long HTTP caches may keep a CRL; 0 means DefaultCRLMaxAge
	CertificateMaxAge time.Duration // how long they may keep a CA certificate; 0 means DefaultCertificateMaxAge
	ReadTimeout       time.Duration // for the body of an OCSP request; 0 means DefaultReadTimeout

	// Aliases are more addresses of CRLs: those in certificates that another CA software has issued, or that were right
	// before something changed.
	Aliases []Alias

	Now func() time.Time // nil means time.Now
}

// Alias is a path that a CRL is served at besides its own: in PEM when it ends in .pem, else in DER.
type Alias struct {
	Path   string // begins with a slash
	Issuer string // by name, or an issuer key by its key id
	Scope  string // of the CRL; see pki.CRL
}

// Handler serves what relying parties need. It is safe for concurrent use.
type Handler struct {
	cfg Config
	mux *chi.Mux
}

// New returns a handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Issuers == nil || cfg.CRLs == nil || cfg.OCSP == nil {
		return nil, errors.New("publish: incomplete config")
	}
	if cfg.CRLMaxAge <= 0 {
		cfg.CRLMaxAge = DefaultCRLMaxAge
	}
	if cfg.CertificateMaxAge <= 0 {
		cfg.CertificateMaxAge = DefaultCertificateMaxAge
	}
	if cfg.ReadTimeout <= 0 {
		cfg.ReadTimeout = DefaultReadTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h := &Handler{cfg: cfg, mux: chi.NewMux()}
	h.Routes(h.mux)
	return h, nil
}

// ServeHTTP serves the routes, and 404 for everything else.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Routes adds the routes to a router, so that they can stand beside others on one listener. The router must not clean
// paths or redirect: a base64 path with "//" in it is right as it is.
func (h *Handler) Routes(r chi.Router) {
	type route struct {
		pattern   string
		get, post http.HandlerFunc
	}
	routes := []route{
		{"/crl/*", h.crl, nil},             // KEYID.crl, KEYID.pem: the complete one; KEYID/SCOPE.crl, KEYID/SCOPE.pem
		{"/crls/{file}", h.crlBundle, nil}, // ISSUER.pem: the CRLs of the issuer's whole chain
		{"/ca/{keyid}.cer", h.caDER, nil},
		{"/ca/{keyid}.pem", h.caPEM, nil},
		{"/chain/{file}", h.chain, nil}, // ISSUER.pem: the issuer's certificate and those above it, without the root
		{"/roots.pem", h.roots, nil},
		{IndexPath, h.index, nil}, // the paths of all of the above, for whoever copies them
		{"/client-ca.pem", h.clientCAs, nil},
		{"/ocsp", h.ocspHelp, h.ocspPost},
		{"/ocsp/*", h.ocspGet, h.ocspPost}, // [KEYID/]BASE64, or KEYID for POST
	}
	for _, a := range h.cfg.Aliases {
		routes = append(routes, route{a.Path, h.alias(a), nil})
	}
	for _, route := range routes {
		r.Handle(route.pattern, notAllowed(route.post != nil))
		r.Get(route.pattern, plain(route.get))
		r.Head(route.pattern, plain(route.get))
		if route.post != nil {
			r.Post(route.pattern, plain(route.post))
		}
	}
}

// plain forbids browsers to guess a type.
func plain(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next(w, r)
	}
}

// notAllowed answers the methods that a route does not have (RFC 9110, Section 15.5.6).
func notAllowed(post bool) http.HandlerFunc {
	allow := "GET, HEAD"
	if post {
		allow += ", POST"
	}
	return plain(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", allow)
		fail(w, http.StatusMethodNotAllowed, "this address takes "+allow)
	})
}

// fail answers with an error for people. It is kept by no cache.
func fail(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, text, code)
}

// document is what can be fetched again and again: it has a date, a tag, and ranges (RFC 9110, Sections 8.8, 13, 14).
type document struct {
	mediaType string
	content   crl.Content
	etag      string    // strong, with quotes; empty: made from the content
	modified  time.Time // zero: unknown; in whole seconds
	expires   time.Time // zero: never; after it caches must ask each time
	maxAge    time.Duration
	gzip      func() crl.Content // the content in gzip's form, nil where that does not pay; nil: it never does
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, d document) {
	now := h.cfg.Now()
	if d.etag == "" {
		sum := sha256.Sum256(crl.Bytes(d.content))
		d.etag = `"` + hex.EncodeToString(sum[:16]) + `"`
	}
	if !d.expires.IsZero() {
		d.maxAge = max(0, min(d.maxAge, d.expires.Sub(now)-time.Second))
	}
	header := w.Header()
	if d.gzip != nil {
		header.Set("Vary", "Accept-Encoding")
		// A range is one of the content as it is; what was fetched in part before goes on.
		if r.Header.Get("Range") == "" && acceptsGzip(r) {
			if z := d.gzip(); z != nil {
				d.content, d.etag = z, strings.TrimSuffix(d.etag, `"`)+`-gzip"`
				header.Set("Content-Encoding", "gzip")
				header.Set("Content-Length", strconv.FormatInt(z.Size(), 10)) // net/http leaves it out
			}
		}
	}
	header.Set("Content-Type", d.mediaType)
	header.Set("ETag", d.etag)
	header.Set("Cache-Control", maxAge(d.maxAge))
	// For caches that know no max-age. Not nextUpdate: they would keep a CRL for days.
	header.Set("Expires", now.Add(d.maxAge).UTC().Format(http.TimeFormat))
	if d.modified.After(now) {
		d.modified = time.Time{} // RFC 9110, Section 8.8.2.1: no date is told that lies ahead
	}
	// Only who has the very date that is told here has this content. Many send the time of their download in its place
	// («curl -z FILE -o FILE»): a list could have been made before it, and have arrived here after it.
	if r.Header.Get("If-Modified-Since") != d.modified.Format(http.TimeFormat) {
		r.Header.Del("If-Modified-Since")
	}
	// RFC 9110, Section 14.2: a range in another unit is passed over; net/http would refuse it.
	if !strings.HasPrefix(r.Header.Get("Range"), "bytes=") {
		r.Header.Del("Range")
	}
	http.ServeContent(w, r, "", d.modified, crl.Reader(d.content))
}

// acceptsGzip reads Accept-Encoding (RFC 9110, Section 12.5.3).
func acceptsGzip(r *http.Request) bool {
	for _, line := range r.Header["Accept-Encoding"] {
		for coding := range strings.SplitSeq(line, ",") {
			name, weight, _ := strings.Cut(coding, ";")
			if name = strings.TrimSpace(name); !strings.EqualFold(name, "gzip") && name != "*" {
				continue
			}
			q, has := strings.CutPrefix(strings.ReplaceAll(strings.ToLower(weight), " ", ""), "q=")
			v, err := strconv.ParseFloat(q, 64)
			return !has || err == nil && v > 0
		}
	}
	return false
}

func maxAge(d time.Duration) string {
	return "max-age=" + strconv.FormatInt(int64(d/time.Second), 10) + ", " + cachePublic
}

// crl serves the addresses in certificates' cRLDistributionPoints (RFC 5280, Section 4.2.1.13), and those of delta lists,
// in DER and in PEM; see pki.CRLPath.
func (h *Handler) crl(w http.ResponseWriter, r *http.Request) {
	name, pem := strings.CutSuffix(chi.URLParam(r, "*"), ".pem")
	name, der := strings.CutSuffix(name, ".crl")
	keyID, scope, narrow := strings.Cut(name, "/")
	key := h.cfg.Issuers.Current().Key(keyID)
	switch {
	case pem == der || narrow && (scope == "" || scope == pki.ScopeFull):
		fail(w, http.StatusNotFound, "there is no such CRL here: the names are /crl/KEYID.crl and /crl/KEYID.pem")
		return
	case key == nil:
		fail(w, http.StatusNotFound, "no issuer here has this key")
		return
	case !narrow:
		scope = pki.ScopeFull
	}
	h.list(w, r, key, scope, pem)
}

// alias serves a CRL at an address that is not its own.
func (h *Handler) alias(a Alias) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		snap := h.cfg.Issuers.Current()
		key := snap.Key(a.Issuer)
		if i, err := snap.Issuer(a.Issuer); key == nil && err == nil {
			key = i.Current
		}
		if key == nil {
			fail(w, http.StatusNotFound, "there is no such issuer here")
			return
		}
		h.list(w, r, key, a.Scope, strings.HasSuffix(a.Path, ".pem"))
	}
}

// list serves a CRL of a key.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, key *issuer.Key, scope string, pem bool) {
	c, ok := h.cfg.CRLs.List(key.KeyID, scope)
	switch {
	case !ok && h.cfg.CRLs.Has(key, scope):
		notYet(w)
	case !ok:
		fail(w, http.StatusNotFound, "the issuer has no CRL of this scope")
	case pem:
		h.serve(w, r, document{typePEM, c.PEM, c.PEMTag, c.LastModified, c.NextUpdate, h.crlMaxAge(key), c.PEMGzip})
	default:
		h.serve(w, r, document{typeCRL, c.DER, c.ETag, c.LastModified, c.NextUpdate, h.crlMaxAge(key), c.DERGzip})
	}
}

// crlMaxAge returns how long caches may keep the CRLs of the keys.
func (h *Handler) crlMaxAge(keys ...*issuer.Key) time.Duration {
	var age time.Duration
	for _, k := range keys {
		if a := cmp.Or(time.Duration(k.Issuer.Settings.CRL.MaxAge), h.cfg.CRLMaxAge); age == 0 || a < age {
			age = a
		}
	}
	return age
}

func (h *Handler) crlBundle(w http.ResponseWriter, r *http.Request) {
	i := h.issuer(w, r)
	if i == nil {
		return
	}
	b, ok := h.cfg.CRLs.Bundle(i.Keys...)
	if !ok {
		notYet(w)
		return
	}
	h.serve(w, r, document{typePEM, b.PEM, b.ETag, b.LastModified(h.cfg.Now()), b.NextUpdate, h.crlMaxAge(i.Keys...), b.PEMGzip})
}

// notYet says that the first CRL is still being made.
func notYet(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	fail(w, http.StatusServiceUnavailable, "there is no CRL yet; it is being made")
}

// caDER serves the address in certificates' caIssuers (RFC 5280, Section 4.2.2.1).
func (h *Handler) caDER(w http.ResponseWriter, r *http.Request) {
	if key := h.key(w, r); key != nil {
		h.serve(w, r, document{mediaType: typeCertificate, content: crl.Octets(key.Certificate.Raw), maxAge: h.cfg.CertificateMaxAge})
	}
}

func (h *Handler) caPEM(w http.ResponseWriter, r *http.Request) {
	if key := h.key(w, r); key != nil {
		h.certificates(w, r, h.cfg.CertificateMaxAge, key.Certificate)
	}
}

// chain serves what a server sends behind its own certificate: the root is left out (RFC 8446, Section 4.4.2), unless
// the issuer is one.
func (h *Handler) chain(w http.ResponseWriter, r *http.Request) {
	i := h.issuer(w, r)
	if i == nil {
		return
	}
	chain := i.Current.Chain()
	if n := len(chain); n > 1 && bytes.Equal(chain[n-1].RawIssuer, chain[n-1].RawSubject) {
		chain = chain[:n-1]
	}
	h.certificates(w, r, h.cfg.CertificateMaxAge, chain...)
}

func (h *Handler) roots(w http.ResponseWriter, r *http.Request) {
	h.certificates(w, r, h.cfg.CertificateMaxAge, h.cfg.Issuers.Current().Roots()...)
}

// clientCAs is kept as shortly as a CRL: a revoked intermediate leaves it at once.
func (h *Handler) clientCAs(w http.ResponseWriter, r *http.Request) {
	h.certificates(w, r, h.cfg.CRLMaxAge, h.cfg.Issuers.Current().ClientCAs()...)
}

func (h *Handler) certificates(w http.ResponseWriter, r *http.Request, maxAge time.Duration, certs ...*x509.Certificate) {
	h.serve(w, r, document{mediaType: typePEMChain, content: crl.Octets(issuer.EncodePEM(certs...)), maxAge: maxAge})
}

// key returns the issuer key that the path names; nil when it has answered that there is none.
func (h *Handler) key(w http.ResponseWriter, r *http.Request) *issuer.Key {
	key := h.cfg.Issuers.Current().Key(chi.URLParam(r, "keyid"))
	if key == nil {
		fail(w, http.StatusNotFound, "no issuer here has this key")
	}
	return key
}

// issuer returns the issuer of a path that ends in ISSUER.pem; nil when it has answered that there is none.
func (h *Handler) issuer(w http.ResponseWriter, r *http.Request) *issuer.Issuer {
	name, ok := strings.CutSuffix(chi.URLParam(r, "file"), ".pem")
	if r.URL.RawPath != "" { // chi has cut the escaped path
		var err error
		if name, err = url.PathUnescape(name); err != nil {
			ok = false
		}
	}
	if ok && name != "" {
		if i, err := h.cfg.Issuers.Current().Issuer(name); err == nil {
			return i
		}
	}
	fail(w, http.StatusNotFound, "there is no such issuer here")
	return nil
}
