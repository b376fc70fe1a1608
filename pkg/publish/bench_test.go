package publish_test

import (
	"crypto"
	"encoding/base64"
	"io"
	"net"
	"net/url"
	"testing"

	"github.com/certwright/certwright/pkg/publish"
)

// BenchmarkListener is one connection's requests, the client's part included.
func BenchmarkListener(b *testing.B) {
	e := setup(b)
	f := e.fast()
	request := "GET /ocsp/" + url.QueryEscape(base64.StdEncoding.EncodeToString(e.request(e.good, crypto.SHA1))) + " HTTP/1.1\r\nHost: ocsp.test\r\n\r\n"
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 8<<10)
	n := 0
	for b.Loop() {
		if _, err := io.WriteString(c, request); err != nil {
			b.Fatal(err)
		}
		if n, err = c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(n))
}

// BenchmarkAnswer is what a request costs without its connection.
func BenchmarkAnswer(b *testing.B) {
	e := setup(b)
	request := []byte("GET /ocsp/" + url.QueryEscape(base64.StdEncoding.EncodeToString(e.request(e.good, crypto.SHA1))) + " HTTP/1.1\r\nHost: ocsp.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	b.ReportAllocs()
	answer := publish.Answer(b, e.handler, request)
	for b.Loop() {
		answer()
	}
}
