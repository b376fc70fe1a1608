package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// IssueWithKeyRequest asks for a certificate whose key the server makes. Profile and a name are required.
type IssueWithKeyRequest struct {
	Profile      string     `json:"profile"`
	Issuer       string     `json:"issuer,omitempty"`
	Subject      string     `json:"subject,omitempty"`
	SANs         []string   `json:"sans,omitempty"`
	Validity     string     `json:"validity,omitempty"` // as in 90d
	NotAfter     *time.Time `json:"not_after,omitempty"`
	Device       string     `json:"device,omitempty"`
	KeyAlgorithm string     `json:"key_algorithm,omitempty"` // as in rsa-2048; empty is p-256
	Format       string     `json:"format,omitempty"`        // pem (if empty), pkcs12 or pkcs12-compat
	Password     string     `json:"password,omitempty"`      // of PKCS #12; the server makes one if empty
	FriendlyName string     `json:"friendly_name,omitempty"` // of PKCS #12
	// IdempotencyKey is as in IssueRequest, save that a repetition does not get the key again.
	IdempotencyKey string `json:"-"`
}

// CertificateWithKey is a new certificate with its private key. The server keeps no copy of the key.
type CertificateWithKey struct {
	Certificate
	PrivateKey string `json:"private_key"` // PEM (PKCS #8), not encrypted; empty with PKCS #12
	PKCS12     []byte `json:"pkcs12"`      // the file; nil with PEM
	Password   string `json:"password"`    // of the file, if the server made it
}

// IssueWithKey has the server make a key and a certificate for it. When the answer of a try that succeeded is lost, so is
// the key: the next try gets a conflict, and Location of the *Error is where the certificate is, to be revoked.
func (c *Client) IssueWithKey(ctx context.Context, r IssueWithKeyRequest) (cert CertificateWithKey, err error) {
	return cert, c.issue(ctx, r.IdempotencyKey, "/certificates/with-key", r, &cert)
}

// stallTime is how long a stream may be silent. The server has a sign of life every 15 seconds, and pages of exports
// take less than a minute.
const stallTime = 90 * time.Second

// errStalled is why a stream was given up.
var errStalled = errors.New("the server has gone silent")

// open begins to read an answer of any length and duration. The body must be closed.
func (c *Client) open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &streamBody{ctx: ctx, cancel: cancel, stall: time.AfterFunc(stallTime, func() { cancel(errStalled) })}
	address := c.base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		b.end()
		return nil, err
	}
	req.Header.Set("User-Agent", c.userAgent)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	endless := *c.http
	endless.Timeout = 0
	res, err := endless.Do(req)
	if err != nil {
		err = b.cause(err)
		b.end()
		return nil, err
	}
	b.body = res.Body
	if res.StatusCode < 300 {
		return b, nil
	}
	defer b.Close()
	answer, err := io.ReadAll(io.LimitReader(b, maxAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return nil, problemOf(res, answer)
}

// streamBody is the body of an answer that may take any time as long as something arrives.
type streamBody struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  *time.Timer
	body   io.ReadCloser
}

func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.stall.Reset(stallTime)
	if err != nil && err != io.EOF {
		err = b.cause(err)
	}
	return n, err
}

func (b *streamBody) Close() error {
	b.end()
	return b.body.Close()
}

func (b *streamBody) end() {
	b.stall.Stop()
	b.cancel(nil)
}

// cause tells a silence from other failures, which both look like a cancelled request.
func (b *streamBody) cause(err error) error {
	if errors.Is(context.Cause(b.ctx), errStalled) {
		return errStalled
	}
	return err
}

// Export copies every certificate that matches to w, in the format csv or jsonl, newest first. When it fails, w has a part.
// The query's Limit, Cursor and Count are ignored.
func (c *Client) Export(ctx context.Context, format string, q CertificateQuery, w io.Writer) error {
	body, err := c.openExport(ctx, format, q)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("the export was broken off: %w", err)
	}
	return nil
}

// ExportCertificates ranges over every certificate that matches, newest first, in one request. It ends with the first
// error. The query's Limit, Cursor and Count are ignored.
func (c *Client) ExportCertificates(ctx context.Context, q CertificateQuery) iter.Seq2[Certificate, error] {
	return func(yield func(Certificate, error) bool) {
		body, err := c.openExport(ctx, "jsonl", q)
		if err != nil {
			yield(Certificate{}, err)
			return
		}
		defer body.Close()
		for line, err := range jsonLines(body) {
			var cert Certificate
			if err == nil {
				err = json.Unmarshal(line, &cert)
			}
			if err != nil {
				yield(Certificate{}, fmt.Errorf("the export was broken off: %w", err))
				return
			}
			if !yield(cert, nil) {
				return
			}
		}
	}
}

func (c *Client) openExport(ctx context.Context, format string, q CertificateQuery) (io.ReadCloser, error) {
	q.Limit, q.Cursor, q.Count = 0, "", false
	v := q.values()
	v.Set("format", format)
	return c.open(ctx, "/certificates/export", v)
}

// jsonLines ranges over the lines of r, empty ones too. A last line that does not end is an error: it is a part.
func jsonLines(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		cut := false
		scan := bufio.NewScanner(r)
		scan.Buffer(nil, maxAnswerBytes)
		scan.Split(func(data []byte, atEOF bool) (int, []byte, error) {
			advance, line, err := bufio.ScanLines(data, false)
			if atEOF && advance == 0 && len(data) > 0 {
				cut = true
				return len(data), nil, err
			}
			return advance, line, err
		})
		for scan.Scan() {
			if !yield(scan.Bytes(), nil) {
				return
			}
		}
		err := scan.Err()
		if err == nil && cut {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// FromNow is a FollowQuery's After for events that have not happened yet.
const FromNow = -1

// FollowQuery says which audit events to follow. The zero value is all of them, from the first.
type FollowQuery struct {
	After                 int64  // begin behind the event with this Seq, or FromNow
	Actor, Action, Target string // Action may end in "." for a group, as in "certificate."
	// Lost, if not nil, is told when the connection is lost, before it is made anew.
	Lost func(err error)
}

// Pauses before a lost stream is opened again: the first, which doubles up to the longest.
const (
	firstFollowPause = time.Second
	maxFollowPause   = 30 * time.Second
)

// FollowAudit ranges over audit events as they happen, in order and without gaps, until the context ends, which is its
// last error. A connection that is lost is made anew; the first must succeed. Refusals by the server end it.
func (c *Client) FollowAudit(ctx context.Context, q FollowQuery) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if q.After < 0 {
			// By its number, so that nothing is missed when the first connection does not last.
			page, err := c.Audit(ctx, AuditQuery{Limit: 1})
			if err != nil {
				yield(Event{}, err)
				return
			}
			if q.After = 0; len(page.Events) > 0 {
				q.After = page.Events[0].Seq
			}
		}
		began, pause := false, firstFollowPause
		for {
			heard, done, err := c.followOnce(ctx, &q, yield)
			if done {
				return
			}
			if heard {
				began, pause = true, firstFollowPause
			}
			if ctx.Err() != nil {
				yield(Event{}, ctx.Err()) // whatever the connection says
				return
			}
			if e, ok := errors.AsType[*Error](err); !began || ok && e.Status < 500 && e.Status != http.StatusTooManyRequests {
				yield(Event{}, err)
				return
			}
			if q.Lost != nil {
				q.Lost(err)
			}
			select {
			case <-ctx.Done():
				yield(Event{}, ctx.Err())
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, maxFollowPause)
		}
	}
}

// followOnce follows over one connection and moves q.After on. heard says that the server accepted; done that the caller
// wants no more. A stream that has ended is an error like one that broke.
func (c *Client) followOnce(ctx context.Context, q *FollowQuery, yield func(Event, error) bool) (heard, done bool, err error) {
	v := url.Values{"after": {strconv.FormatInt(q.After, 10)}}
	for name, s := range map[string]string{"actor": q.Actor, "action": q.Action, "target": q.Target} {
		if s != "" {
			v.Set(name, s)
		}
	}
	body, err := c.open(ctx, "/audit/follow", v)
	if err != nil {
		return false, false, err
	}
	defer body.Close()
	for line, err := range jsonLines(body) {
		if err != nil {
			return true, false, err
		}
		if len(line) == 0 {
			continue
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return true, false, fmt.Errorf("the server sent what is no audit event: %w", err)
		}
		q.After = e.Seq
		if !yield(e, nil) {
			return true, true, nil
		}
	}
	return true, false, io.ErrUnexpectedEOF
}
