package publish

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/ocsp"
)

// ocspHelp answers people who open the address in a browser.
func (h *Handler) ocspHelp(w http.ResponseWriter, _ *http.Request) {
	fail(w, http.StatusBadRequest, "this is an OCSP responder (RFC 6960): POST a request here, or GET this address followed by / and the request in base64")
}

// ocspGet answers a request in the path (RFC 6960, Appendix A.1).
func (h *Handler) ocspGet(w http.ResponseWriter, r *http.Request) {
	text := requestText(r.URL.EscapedPath())
	if text == "" {
		h.ocspHelp(w, r)
		return
	}
	request, ok := decodeRequest(text)
	if !ok {
		writeAnswer(w, r, ocsp.Malformed())
		return
	}
	writeAnswer(w, r, h.cfg.OCSP.Respond(r.Context(), request))
}

// ocspPost answers a request in the body. Its Content-Type is not looked at: some clients send none.
func (h *Handler) ocspPost(w http.ResponseWriter, r *http.Request) {
	// The error says that the connection knows no deadlines; the server's own timeouts hold then.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.cfg.ReadTimeout))
	request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, ocsp.MaxRequestBytes))
	if err != nil {
		a := ocsp.Malformed()
		w.Header().Set("Content-Type", typeOCSP)
		w.Header().Set("Cache-Control", "no-store")
		code := http.StatusBadRequest
		if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
			code = http.StatusRequestEntityTooLarge
		}
		w.WriteHeader(code)
		_, _ = w.Write(a.DER)
		return
	}
	writeAnswer(w, r, h.cfg.OCSP.Respond(r.Context(), request))
}

// requestText cuts the base64 out of an escaped path: what stands behind /ocsp/ and, if there is one, a key id. It is
// empty when there is only a key id, or nothing.
//
// The two cannot be mistaken for each other: a request is a SEQUENCE, 0x30, so its base64 begins with M, which is no
// hexadecimal digit.
func requestText(escaped string) string {
	_, text, _ := strings.Cut(escaped, "/ocsp/")
	// Unescaped twice, because some proxies and clients escape what is escaped already; base64 has no percent sign.
	for range 2 {
		if plain, err := url.PathUnescape(text); err == nil {
			text = plain
		}
	}
	text = strings.TrimLeft(text, "/") // of clients that add a slash to an address that ends in one
	if first, rest, _ := strings.Cut(text, "/"); isKeyID(first) {
		text = strings.TrimLeft(rest, "/")
	}
	return text
}

// isKeyID reports whether s has the form of pki.IssuerKey's KeyID. It need not be one of ours: the CertID tells whose
// certificate is meant.
func isKeyID(s string) bool {
	if len(s) != 16 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// toStandard turns the URL's alphabet of base64 (RFC 4648, Section 5) into the standard one, and a space, which is what
// became of an unescaped + somewhere, back into it.
var toStandard = strings.NewReplacer("-", "+", "_", "/", " ", "+")

// decodeRequest reads base64 in either alphabet, with or without padding.
func decodeRequest(text string) ([]byte, bool) {
	if base64.RawStdEncoding.DecodedLen(len(text)) > ocsp.MaxRequestBytes+2 {
		return nil, false
	}
	b, err := base64.RawStdEncoding.DecodeString(toStandard.Replace(strings.TrimRight(text, "=")))
	return b, err == nil
}

// writeAnswer writes an answer with the headers of RFC 9919, Section 7.2. An OCSPResponse is always 200: what failed
// stands in it. Only answers to GET that hold for others too may be kept.
func writeAnswer(w http.ResponseWriter, r *http.Request, a ocsp.Answer) {
	header := w.Header()
	if !a.Cacheable || r.Method == http.MethodPost {
		header.Set("Cache-Control", "no-store")
	} else {
		header.Set("Last-Modified", a.ThisUpdate.Format(http.TimeFormat))
		header.Set("Expires", a.NextUpdate.Format(http.TimeFormat))
		header.Set("ETag", a.ETag)
		header.Set("Cache-Control", maxAge(a.MaxAge))
		if matches(r.Header.Values("If-None-Match"), a.ETag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	header.Set("Content-Type", typeOCSP)
	header.Set("Content-Length", strconv.Itoa(len(a.DER)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(a.DER) // the client may have gone
	}
}

// matches reports whether If-None-Match names the tag (RFC 9110, Section 13.1.2). Our tags have no comma in them.
func matches(header []string, etag string) bool {
	for _, line := range header {
		for tag := range strings.SplitSeq(line, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}
