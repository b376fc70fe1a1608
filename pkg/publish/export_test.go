package publish

// Head is what parseHead makes of octets that are an OCSP request in plain form.
type Head struct {
	Method, Target, Proto string
	Close                 bool
	Length, Size          int
}

// ParseHead returns nil when the octets are net/http's, or more are needed.
func ParseHead(b []byte) *Head {
	h, v := parseHead(b)
	if v != ours {
		return nil
	}
	out := &Head{Method: "GET", Target: string(h.target), Proto: "HTTP/1.1", Close: h.close || h.http10, Length: h.length, Size: h.size}
	if h.post {
		out.Method = "POST"
	}
	if h.http10 {
		out.Proto = "HTTP/1.0"
	}
	return out
}
