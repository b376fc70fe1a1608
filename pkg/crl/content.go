package crl

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io"
	"sort"
	"sync"

	"github.com/certwright/certwright/pkg/pki"
)

// Content is the octets of a list, or of several, as they are served. It never changes, may be read by many at the same
// time, and costs no memory for each who reads it: a list of millions of entries can go to slow clients.
type Content interface {
	io.ReaderAt
	Size() int64
}

// Reader returns a reader of content from its beginning.
func Reader(c Content) io.ReadSeeker { return io.NewSectionReader(c, 0, c.Size()) }

// Bytes returns content in one piece. It is for small lists, and for tests.
func Bytes(c Content) []byte {
	b := make([]byte, c.Size())
	if _, err := c.ReadAt(b, 0); err != nil && err != io.EOF {
		panic("crl: " + err.Error()) // content is in memory
	}
	return b
}

// rope is content in pieces.
type rope struct {
	pieces []Content
	ends   []int64 // where each piece ends
}

// Octets is content in one piece.
type Octets []byte

// Size implements Content.
func (p Octets) Size() int64 { return int64(len(p)) }

// ReadAt implements io.ReaderAt.
func (p Octets) ReadAt(b []byte, off int64) (int, error) {
	if off > int64(len(p)) {
		return 0, io.EOF
	}
	n := copy(b, p[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func newRope(pieces ...Content) *rope {
	r := &rope{pieces: pieces, ends: make([]int64, len(pieces))}
	var end int64
	for i, p := range pieces {
		end += p.Size()
		r.ends[i] = end
	}
	return r
}

func ropeOf(parts []pki.CRLPart) *rope {
	pieces := make([]Content, len(parts))
	for i, p := range parts {
		pieces[i] = Octets(p.Data)
	}
	return newRope(pieces...)
}

func (r *rope) Size() int64 {
	if len(r.ends) == 0 {
		return 0
	}
	return r.ends[len(r.ends)-1]
}

// ReadAt implements io.ReaderAt.
func (r *rope) ReadAt(b []byte, off int64) (n int, err error) {
	for i := sort.Search(len(r.ends), func(i int) bool { return r.ends[i] > off }); i < len(r.pieces) && n < len(b); i++ {
		begin := r.ends[i] - r.pieces[i].Size()
		m, err := r.pieces[i].ReadAt(b[n:], off+int64(n)-begin)
		n += m
		if err != nil && err != io.EOF {
			return n, err
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// The lines of PEM (RFC 7468, Section 2): 48 octets make 64 characters, and a newline.
const (
	lineOctets = 48
	lineChars  = 65
)

// pemOf returns content as PEM, encoded while it is read.
func pemOf(c Content) Content {
	return newRope(Octets("-----BEGIN X509 CRL-----\n"), armor{c}, Octets("-----END X509 CRL-----\n"))
}

// armor is the lines of PEM between its boundaries.
type armor struct{ of Content }

func (a armor) Size() int64 {
	full, rest := a.of.Size()/lineOctets, a.of.Size()%lineOctets
	n := full * lineChars
	if rest > 0 {
		n += int64(base64.StdEncoding.EncodedLen(int(rest))) + 1
	}
	return n
}

// ReadAt implements io.ReaderAt.
func (a armor) ReadAt(b []byte, off int64) (n int, err error) {
	const atOnce = 64 // lines
	var in [atOnce * lineOctets]byte
	var out [atOnce * lineChars]byte
	for n < len(b) {
		line, skip := (off+int64(n))/lineChars, (off+int64(n))%lineChars
		got, err := a.of.ReadAt(in[:], line*lineOctets)
		if err != nil && err != io.EOF {
			return n, err
		}
		if got == 0 {
			return n, io.EOF
		}
		text := out[:0]
		for rest := in[:got]; len(rest) > 0; {
			m := min(lineOctets, len(rest))
			text = append(base64.StdEncoding.AppendEncode(text, rest[:m]), '\n')
			rest = rest[m:]
		}
		if skip >= int64(len(text)) {
			return n, io.EOF
		}
		n += copy(b[n:], text[skip:])
	}
	return n, nil
}

// What is compressed: an entry is a third random octets, so lists shrink to a third. Beyond the limit it costs a tenth of a
// second for each list and each format, and such lists are new twice a second at times.
const (
	minGzip = 1 << 10
	maxGzip = 8 << 20
)

// gzipped is content in gzip's form, made once.
type gzipped struct {
	once    sync.Once
	content Content
}

func (z *gzipped) of(c Content) Content {
	if n := c.Size(); n < minGzip || n > maxGzip {
		return nil
	}
	z.once.Do(func() {
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		if err == nil {
			_, err = io.Copy(w, Reader(c))
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			panic("crl: " + err.Error()) // all of it is in memory
		}
		z.content = Octets(bytes.Clone(b.Bytes()))
	})
	return z.content
}
