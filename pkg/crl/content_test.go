package crl

import (
	"bytes"
	"encoding/pem"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"github.com/certwright/certwright/pkg/pki"
)

func randomOctets(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestContent compares what is read of content in pieces with the octets in one piece, wherever reading begins.
func TestContent(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, sizes := range [][]int{{}, {0}, {1}, {47}, {48}, {49}, {96}, {10, 0, 38, 1}, {100, 5000, 0, 3072, 77}, {48 * 64}, {48*64 + 1}} {
		var whole []byte
		var parts []pki.CRLPart
		for _, n := range sizes {
			b := randomOctets(r, n)
			whole, parts = append(whole, b...), append(parts, pki.NewCRLPart(b))
		}
		armored := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: whole})
		list := ropeOf(parts)
		for what, c := range map[string]struct {
			content Content
			want    []byte
		}{
			"DER":    {list, whole},
			"PEM":    {pemOf(list), armored},
			"bundle": {newRope(pemOf(list), pemOf(Octets("another")), pemOf(list)), slices.Concat(armored, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("another")}), armored)},
		} {
			if got := c.content.Size(); got != int64(len(c.want)) {
				t.Errorf("%s of %v: size %d, want %d", what, sizes, got, len(c.want))
				continue
			}
			if err := iotest.TestReader(Reader(c.content), c.want); err != nil {
				t.Errorf("%s of %v: %v", what, sizes, err)
			}
			for range 200 {
				from := r.IntN(len(c.want) + 1)
				b := make([]byte, r.IntN(len(c.want)-from+3))
				n, err := c.content.ReadAt(b, int64(from))
				if want := min(len(b), len(c.want)-from); n != want || n < len(b) != (err == io.EOF) || !bytes.Equal(b[:n], c.want[from:from+n]) {
					t.Fatalf("%s of %v: ReadAt of %d from %d: %d, %v", what, sizes, len(b), from, n, err)
				}
			}
		}
	}
}

// TestContentServed has net/http serve ranges of it.
func TestContentServed(t *testing.T) {
	list := ropeOf([]pki.CRLPart{pki.NewCRLPart([]byte("0123456789")), pki.NewCRLPart([]byte("abcdefghij"))})
	w := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set("Range", "bytes=8-12")
	http.ServeContent(w, req, "", time.Time{}, Reader(list))
	if w.Code != http.StatusPartialContent || w.Body.String() != "89abc" {
		t.Errorf("got %d, %q", w.Code, w.Body)
	}
}
