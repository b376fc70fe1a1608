package publish

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
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
	request, found, ok := requestIn(nil, []byte(r.URL.EscapedPath()))
	if !found {
		h.ocspHelp(w, r)
		return
	}
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
		_, _ = w.Write(a.DER())
		return
	}
	writeAnswer(w, r, h.cfg.OCSP.Respond(r.Context(), request))
}

// requestIn appends to dst the OCSPRequest that stands in an escaped path, behind /ocsp/ and, if there is one, a key id.
// found is false when there is only a key id, or nothing; ok is false when what is there is no base64.
//
// A key id and a request cannot be mistaken for each other: a request is a SEQUENCE, 0x30, so its base64 begins with M,
// which is no hexadecimal digit. Base64 may be in either alphabet (RFC 4648, Sections 4 and 5), with or without padding.
func requestIn(dst, escaped []byte) (request []byte, found, ok bool) {
	_, text, _ := bytes.Cut(escaped, ocspRoot)
	// Unescaped twice, because some proxies and clients escape what is escaped already; base64 has no percent sign.
	for range 2 {
		if bytes.IndexByte(text, '%') < 0 {
			break
		}
		if plain, ok := unescape(text); ok {
			text = plain
		}
	}
	text = bytes.TrimLeft(text, "/") // of clients that add a slash to an address that ends in one
	if first, rest, _ := bytes.Cut(text, slash); isKeyID(first) {
		text = bytes.TrimLeft(rest, "/")
	}
	if len(text) == 0 {
		return dst, false, false
	}
	text = bytes.TrimRight(text, "=\r\n") // line ends within are let pass, too
	if base64.RawStdEncoding.DecodedLen(len(text)) > ocsp.MaxRequestBytes+2 {
		return dst, true, false
	}
	for i, c := range text {
		if to := toStandard[c]; to != 0 {
			text = bytes.Clone(text)
			for ; i < len(text); i++ {
				if to := toStandard[text[i]]; to != 0 {
					text[i] = to
				}
			}
			break
		}
	}
	request, err := base64.RawStdEncoding.AppendDecode(dst, text)
	return request, true, err == nil
}

var (
	ocspRoot = []byte("/ocsp/")
	slash    = []byte("/")
)

// toStandard turns the URL's alphabet of base64 into the standard one, and a space, which is what became of an unescaped
// + somewhere, back into it.
var toStandard = [256]byte{'-': '+', '_': '/', ' ': '+'}

// unescape is url.PathUnescape for octets.
func unescape(text []byte) ([]byte, bool) {
	plain := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '%' {
			if i+2 >= len(text) || !isHex(text[i+1]) || !isHex(text[i+2]) {
				return nil, false
			}
			c = unhex(text[i+1])<<4 | unhex(text[i+2])
			i += 2
		}
		plain = append(plain, c)
	}
	return plain, true
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&0x0f + 9
}

// isKeyID reports whether s has the form of pki.IssuerKey's KeyID. It need not be one of ours: the CertID tells whose
// certificate is meant.
func isKeyID(s []byte) bool {
	if len(s) != 16 {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
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
	header.Set("Content-Length", strconv.Itoa(a.Size()))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(a.DER()) // the client may have gone
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
