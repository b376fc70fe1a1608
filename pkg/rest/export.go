package rest

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	documents "github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

const (
	// exportPage is how many certificates an export holds in memory.
	exportPage = 250
	// chunkTimeout is how long a client may take to accept a chunk of a stream, and, with what is read in between, how
	// far one chunk may be from the next.
	chunkTimeout = time.Minute
)

type exportInput struct {
	Format string `query:"format" enum:"csv,jsonl" default:"csv" doc:"csv: RFC 4180 with a heading; a cell that a spreadsheet could take for a formula has an apostrophe before it. jsonl: a certificate of the list in each line"`
	CertificateQuery
}

// exportCertificates streams what a list would show.
func (a *api) exportCertificates(ctx context.Context, in *exportInput) (*huma.StreamResponse, error) {
	f, some, err := a.filter(principal(ctx), &in.CertificateQuery)
	if err != nil {
		return nil, err
	}
	x := export[pki.Certificate]{
		name: "certificates", access: readOwn, heading: csvHeading,
		row:  func(c pki.Certificate) []string { return csvRow(a.certificate(c)) },
		line: func(c pki.Certificate) any { return a.certificate(c) },
	}
	if some {
		x.list = func(ctx context.Context, p store.Page) ([]pki.Certificate, string, error) {
			return a.Store.ListCertificates(ctx, f, p)
		}
	}
	return x.answer(ctx, a, in.Format)
}

// export is a list that is streamed, page after page of the store: memory does not grow with what is listed. What comes
// into being after the beginning is not in it. One that fails in the middle breaks the connection off, so that nobody
// takes a part for the whole; nothing of it stays on the server.
type export[T any] struct {
	name    string // of the file, without its end
	access  access // that who exports must have to the end
	heading []string
	row     func(T) []string                                       // as many cells as the heading has
	line    func(T) any                                            // what the list shows
	list    func(context.Context, store.Page) ([]T, string, error) // nil: there is nothing
}

func (x *export[T]) answer(ctx context.Context, a *api, format string) (*huma.StreamResponse, error) {
	done, err := a.exports.take(ctx)
	if err != nil {
		return nil, err
	}
	// The first page comes before the status, so that what is wrong with the request or the store is said properly.
	page, cursor, err := x.page(ctx, a, "")
	if err != nil {
		done()
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer done()
		encode, contentType := x.rows(), mediaCSV+"; charset=utf-8; header=present"
		if format == "jsonl" {
			encode, contentType = x.lines, mediaLines
		}
		s := newStream(ctx)
		s.header("Content-Type", contentType)
		s.header("Content-Disposition", `attachment; filename="`+x.name+"."+format+`"`)
		for {
			chunk, err := encode(page)
			if err != nil {
				a.breakOff(ctx, err)
			}
			if s.write(chunk) != nil {
				a.breakOff(ctx, nil) // the client is gone
			}
			if cursor == "" {
				return
			}
			// A token that ends while it exports takes the export with it.
			if _, err := a.admit(ctx, x.access); err != nil {
				a.breakOff(ctx, err)
			}
			if page, cursor, err = x.page(ctx.Context(), a, cursor); err != nil {
				a.breakOff(ctx, err)
			}
		}
	}}, nil
}

// page reads a page. Exports wait for searches more patiently than people do.
func (x *export[T]) page(ctx context.Context, a *api, cursor string) ([]T, string, error) {
	if x.list == nil {
		return nil, "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, chunkTimeout-requestTimeout)
	defer cancel()
	for {
		done, err := a.searches.take(ctx)
		if err != nil && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		defer done()
		return x.list(ctx, store.Page{Limit: exportPage, Cursor: cursor})
	}
}

// lines encodes a page as the list shows it, one thing a line.
func (x *export[T]) lines(page []T) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, v := range page {
		if err := enc.Encode(x.line(v)); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// rows returns an encoder of pages whose first is preceded by the heading. Lines end in LF alone, against RFC 4180: all
// readers take it, and line tools take a CR for a part of the last cell.
func (x *export[T]) rows() func([]T) ([]byte, error) {
	begun := false
	return func(page []T) ([]byte, error) {
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		if !begun {
			begun = true
			if err := w.Write(x.heading); err != nil {
				return nil, err
			}
		}
		for _, v := range page {
			row := x.row(v)
			for i := range row {
				row[i] = documents.Cell(row[i])
			}
			if err := w.Write(row); err != nil {
				return nil, err
			}
		}
		w.Flush()
		return b.Bytes(), w.Error()
	}
}

// breakOff ends an answer that was begun and cannot be finished: the client sees the connection break. This panic is what
// package net/http has for it; it is not logged.
func (a *api) breakOff(ctx huma.Context, err error) {
	if err != nil {
		a.fail(ctx.Context(), err)
	}
	panic(http.ErrAbortHandler)
}

// csvHeading are the columns. New ones come at the end.
var csvHeading = []string{
	"id", "serial", "issuer", "subject", "sans", "profile", "profile_version", "status", "not_before", "not_after", "issued_at",
	"requester", "protocol", "device", "source", "spki_sha256", "replaces", "revocation_reason", "revoked_at", "invalidity_date",
}

func csvRow(c Certificate) []string {
	row := []string{
		c.ID, c.Serial, c.Issuer, c.Subject, strings.Join(c.SANs, " "), c.Profile, strconv.Itoa(c.ProfileVersion), c.Status,
		csvTime(&c.NotBefore), csvTime(&c.NotAfter), csvTime(&c.IssuedAt), c.Requester, c.Protocol, c.Device, c.Source, c.SPKISHA256, c.Replaces,
		"", "", "",
	}
	if r := c.Revocation; r != nil {
		row[len(row)-3], row[len(row)-2], row[len(row)-1] = r.Reason, csvTime(&r.RevokedAt), csvTime(r.InvalidityDate)
	}
	return row
}

func csvTime(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// stream is an answer of unknown length. Each chunk has a deadline of its own, since the listener's is for whole answers.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newStream(ctx huma.Context) *stream {
	_, w := humachi.Unwrap(ctx)
	s := &stream{w: w, rc: http.NewResponseController(w)}
	s.header("Cache-Control", "no-store")
	s.header("X-Accel-Buffering", "no") // nginx would keep lines back
	// The listener's time for reading a request would end the request's context while the answer goes on. Writers that
	// know no deadlines have none to extend.
	_ = s.rc.SetReadDeadline(time.Time{})
	return s
}

func (s *stream) header(name, value string) { s.w.Header().Set(name, value) }

// write sends a chunk at once. An empty one sends the headers.
func (s *stream) write(chunk []byte) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(2 * chunkTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if len(chunk) > 0 {
		if _, err := s.w.Write(chunk); err != nil {
			return err
		}
	}
	return s.rc.Flush()
}
