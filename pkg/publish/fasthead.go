package publish

import "bytes"

// verdict is what a connection's first octets are.
type verdict int

const (
	incomplete verdict = iota // more octets are needed to tell
	ours                      // an OCSP request in a form that needs no second look
	theirs                    // everything else: net/http reads it
)

// maxHead bounds a request's head here. net/http has a limit of its own for what is longer.
const maxHead = 4 << 10

// head is an OCSP request's request line and header, as far as they matter.
type head struct {
	post   bool
	http10 bool
	close  bool    // the client wants the connection to end
	target []byte  // points into the octets that were parsed
	length int     // of the body; 0 for GET
	size   int     // octets up to the body
	repeat *repeat // what is remembered of the whole request; nil: nothing, or it was not looked for
}

// parseHead reads the head of an HTTP/1.x request (RFC 9112) when it is one that OCSP clients send: GET or POST to
// /ocsp, Host as it should be, nothing that asks for more than an answer. It is no judge: whatever is unusual, odd or
// wrong in any way is theirs, so that there is one reading of such requests. It keeps nothing of b.
func parseHead(b []byte) (head, verdict) {
	var h head
	switch {
	case bytes.HasPrefix(b, prefixGet):
	case bytes.HasPrefix(b, prefixPost):
		h.post = true
	case bytes.HasPrefix(prefixGet, b), bytes.HasPrefix(prefixPost, b):
		return h, incomplete
	default:
		return h, theirs
	}
	end := bytes.Index(b, blankLine)
	if end < 0 {
		if len(b) >= maxHead || isOdd(b) {
			return h, theirs
		}
		return h, incomplete
	}
	h.size = end + len(blankLine)
	if h.size > maxHead {
		return h, theirs
	}

	line, fields, _ := bytes.Cut(b[:end+2], crlf)
	if !h.readRequestLine(line) || !h.readFields(fields) {
		return h, theirs
	}
	return h, ours
}

// isOdd reports whether the begin of a head tells that its end will not come, or not as it is looked for: a line ends with a
// bare LF, or the first one without a version.
func isOdd(b []byte) bool {
	for first := true; ; first = false {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return false
		}
		line, ok := bytes.CutSuffix(b[:i+1], crlf)
		if !ok || first && !bytes.HasSuffix(line, version11) && !bytes.HasSuffix(line, version10) {
			return true
		}
		b = b[i+1:]
	}
}

var (
	prefixGet  = []byte("GET /ocsp/")
	prefixPost = []byte("POST /ocsp")
	blankLine  = []byte("\r\n\r\n")
	crlf       = []byte("\r\n")
	version10  = []byte(" HTTP/1.0")
	version11  = []byte(" HTTP/1.1")
)

// readRequestLine reads the request line, which begins with one of the prefixes.
func (h *head) readRequestLine(line []byte) bool {
	target, ok := bytes.CutSuffix(line, version11)
	if !ok {
		if target, h.http10 = bytes.CutSuffix(line, version10); !h.http10 {
			return false
		}
	}
	h.target = target[bytes.IndexByte(target, ' ')+1:]
	const root = len("/ocsp")
	if h.post && len(h.target) > root && h.target[root] != '/' {
		return false
	}
	for i, c := range h.target {
		if inTarget[c] {
			continue
		}
		if c != '%' || i+2 >= len(h.target) || !isHex(h.target[i+1]) || !isHex(h.target[i+2]) {
			return false
		}
	}
	return true
}

// readFields reads the header fields, each with its line end.
func (h *head) readFields(fields []byte) bool {
	hosts, lengths := 0, 0
	for len(fields) > 0 {
		line, rest, _ := bytes.Cut(fields, crlf)
		fields = rest
		name, value, ok := bytes.Cut(line, colon)
		if !ok || !all(name, &inToken) || len(name) == 0 {
			return false
		}
		value = bytes.Trim(value, " \t")
		if !all(value, &inValue) {
			return false
		}
		switch len(name) {
		case len("Host"):
			if bytes.EqualFold(name, fieldHost) {
				if hosts++; !all(value, &inHost) || len(value) == 0 {
					return false
				}
			}
		case len("Expect"):
			if bytes.EqualFold(name, fieldExpect) {
				return false
			}
		case len("Trailer"), len("Content-Length"):
			if bytes.EqualFold(name, fieldTrailer) || bytes.EqualFold(name, fieldUpgrade) {
				return false
			}
			if bytes.EqualFold(name, fieldLength) {
				if lengths++; !h.readLength(value) {
					return false
				}
			}
		case len("Connection"):
			if bytes.EqualFold(name, fieldConnection) && !h.readConnection(value) {
				return false
			}
		case len("If-None-Match"):
			if bytes.EqualFold(name, fieldIfNoneMatch) {
				return false
			}
		case len("Transfer-Encoding"):
			if bytes.EqualFold(name, fieldTransferEncoding) {
				return false
			}
		}
	}
	if h.post != (lengths == 1) || lengths > 1 {
		return false
	}
	// RFC 9112, Section 3.2: exactly one, save for HTTP/1.0.
	return hosts == 1 || hosts == 0 && h.http10
}

// readLength reads a Content-Length of at most what an OCSP request may have.
func (h *head) readLength(value []byte) bool {
	if len(value) == 0 || len(value) > 4 {
		return false
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return false
		}
		h.length = h.length*10 + int(c-'0')
	}
	return h.length <= maxBody
}

func (h *head) readConnection(value []byte) bool {
	switch {
	case bytes.EqualFold(value, optionClose):
		h.close = true
		return true
	case bytes.EqualFold(value, optionKeepAlive):
		return !h.http10 // an HTTP/1.0 client's wish must be answered
	}
	return false
}

var (
	colon                 = []byte(":")
	fieldHost             = []byte("Host")
	fieldExpect           = []byte("Expect")
	fieldTrailer          = []byte("Trailer")
	fieldUpgrade          = []byte("Upgrade")
	fieldLength           = []byte("Content-Length")
	fieldConnection       = []byte("Connection")
	fieldIfNoneMatch      = []byte("If-None-Match")
	fieldTransferEncoding = []byte("Transfer-Encoding")
	optionClose           = []byte("close")
	optionKeepAlive       = []byte("keep-alive")
)

// octets is a set of octets.
type octets [256]bool

func setOf(text string, more func(c byte) bool) (s octets) {
	for i := range s {
		s[i] = more(byte(i))
	}
	for i := range len(text) {
		s[text[i]] = true
	}
	return s
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

var (
	inTarget = setOf("+/=-_", isAlphanumeric)                                 // base64 in both alphabets, and key ids
	inToken  = setOf("!#$%&'*+-.^_`|~", isAlphanumeric)                       // RFC 9110, Section 5.6.2
	inHost   = setOf(".:-[]", isAlphanumeric)                                 // of the usual names and addresses
	inValue  = setOf("\t", func(c byte) bool { return c >= ' ' && c < 0x7f }) // RFC 9110, Section 5.5, ASCII only
)

func all(b []byte, in *octets) bool {
	for _, c := range b {
		if !in[c] {
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
