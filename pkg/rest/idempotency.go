package rest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// A request for a certificate may carry an Idempotency-Key: a text of the client's own that names the request. However
// often it is sent, and to whichever replica, one certificate is issued, and every answer is about that one. The store
// keeps the key in the transaction that records the certificate, so that there is never one without the other; a request
// that was refused leaves its key free. Changes of status need no key: a second revocation, hold or release is a conflict
// that tells how things are.

const (
	// idempotencyLife is how long an Idempotency-Key is remembered.
	idempotencyLife = 24 * time.Hour
	// waitForTwin is how long a request waits for one with the same key that has come before.
	waitForTwin = 15 * time.Second
)

// IdempotencyInput is the header of routes that issue. It is exported so that the library can fill it in where it is
// embedded. What is used of a request is in asked.
type IdempotencyInput struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"Names this request, best at random, as a UUID does: sent again within 24 hours, with the same body, it gets the same certificate and not another. The same key with another request is 422." maxLength:"255"`
}

// issuedOutput answers with a new certificate, or with the one that an earlier request got.
type issuedOutput struct {
	Location string `header:"Location" doc:"Address of the certificate"`
	Replayed string `header:"Idempotency-Replayed" doc:"true when the certificate was issued for an earlier request with the same Idempotency-Key"`
	Body     Certificate
}

// asked is what an Idempotency-Key holds for.
type asked struct {
	keys  []string // of the headers
	route string
	body  hash.Hash // of what has been read
}

type askedKey struct{}

// withAsked has the request's body hashed while it is read.
func withAsked(ctx context.Context, r *http.Request) context.Context {
	a := &asked{keys: r.Header.Values("Idempotency-Key"), route: r.Method + " " + r.URL.Path, body: sha256.New()}
	if len(a.keys) == 0 {
		return ctx
	}
	if r.Body != nil {
		r.Body = &hashedBody{r.Body, a.body}
	}
	return context.WithValue(ctx, askedKey{}, a)
}

type hashedBody struct {
	io.ReadCloser
	hash hash.Hash
}

func (b *hashedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.hash.Write(p[:n])
	return n, err
}

// idempotency returns what the request's key stands for; nil when it has none.
func (a *asked) idempotency(p pki.Principal, now time.Time) (*store.Idempotency, error) {
	if a == nil {
		return nil, nil
	}
	refuse := func(format string, args ...any) (*store.Idempotency, error) {
		return nil, fault.New(fault.BadRequest, format, args...).WithField("Idempotency-Key").
			WithHint("send a new random text with each request that is not a repetition, as a UUID")
	}
	if len(a.keys) > 1 {
		return refuse("there are %d Idempotency-Keys", len(a.keys))
	}
	key := a.keys[0]
	if key == "" || len(key) > 255 {
		return refuse("an Idempotency-Key has 1 to 255 characters")
	}
	for _, c := range []byte(key) {
		if c < 0x20 || c > 0x7e {
			return refuse("an Idempotency-Key has printable characters of ASCII")
		}
	}
	return &store.Idempotency{
		ID: hashOf("id", p.Name, key), Request: hashOf("request", a.route, string(a.body.Sum(nil))), ExpiresAt: now.Add(idempotencyLife),
	}, nil
}

// hashOf hashes texts so that no two lists of them are alike.
func hashOf(texts ...string) (sum [32]byte) {
	h := sha256.New()
	var length [8]byte
	for _, t := range texts {
		binary.BigEndian.PutUint64(length[:], uint64(len(t)))
		h.Write(length[:])
		io.WriteString(h, t)
	}
	h.Sum(sum[:0])
	return sum
}

// once has issue called for the first of all requests that are the same by their Idempotency-Key; the others learn what
// that one got. A request without a key is always the first.
func (a *api) once(ctx context.Context, issue func(*store.Idempotency) (*ca.Issued, error)) (issued *ca.Issued, replayed bool, err error) {
	p := principal(ctx)
	of, _ := ctx.Value(askedKey{}).(*asked)
	now := a.Now()
	key, err := of.idempotency(p, now)
	if err != nil {
		return nil, false, err
	}
	if key == nil {
		issued, err = issue(nil)
		return issued, false, err
	}
	leave, err := a.twins.enter(ctx, key.ID)
	if err != nil {
		return nil, false, err
	}
	defer leave()
	first, err := a.Store.Idempotency(ctx, key.ID, now)
	switch {
	case fault.Is(err, fault.NotFound):
		issued, err = issue(key)
		before, ok := errors.AsType[*store.IssuedBeforeError](err)
		if !ok {
			return issued, false, err
		}
		first = before.First // a twin was faster, on another replica
	case err != nil:
		return nil, false, err
	}
	if first.Request != key.Request {
		return nil, false, &precondition{status: http.StatusUnprocessableEntity, error: fault.New(fault.BadRequest, "this Idempotency-Key was used for another request").
			WithField("Idempotency-Key").WithHint("a repetition has the same address and the same body, octet by octet; a new request takes a new key")}
	}
	c, err := a.Store.Certificate(ctx, first.Fingerprint)
	if err == nil {
		err = a.visible(p, c)
	}
	if err != nil {
		return nil, false, err
	}
	return &ca.Issued{Record: c, Warnings: first.Warnings}, true, nil
}

// issueOnce is once for the routes that answer with the certificate alone.
func (a *api) issueOnce(ctx context.Context, issue func(*store.Idempotency) (*ca.Issued, error)) (*issuedOutput, error) {
	issued, replayed, err := a.once(ctx, issue)
	if err != nil {
		return nil, err
	}
	out := a.issued(issued)
	if replayed {
		out.Replayed = "true"
	}
	return out, nil
}

// twins lets one of the requests with the same ID work at a time, in this replica; the store sees to the others. The zero
// value is ready, and is safe for concurrent use.
type twins struct {
	mu   sync.Mutex
	work map[[32]byte]*turn // guarded by mu
}

// turn is one ID's.
type turn struct {
	free    chan struct{} // holds a token while nobody works
	present int           // who work or wait; guarded by twins.mu
}

// enter waits until no other request with the ID works. Unavailable when that takes too long.
func (t *twins) enter(ctx context.Context, id [32]byte) (leave func(), err error) {
	t.mu.Lock()
	mine := t.work[id]
	if mine == nil {
		mine = &turn{free: make(chan struct{}, 1)}
		mine.free <- struct{}{}
		if t.work == nil {
			t.work = map[[32]byte]*turn{}
		}
		t.work[id] = mine
	}
	mine.present++
	t.mu.Unlock()
	gone := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if mine.present--; mine.present == 0 {
			delete(t.work, id)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, waitForTwin)
	defer cancel()
	select {
	case <-mine.free:
		return func() { mine.free <- struct{}{}; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "the first request with this Idempotency-Key is still being worked on").WithRetryAfter(time.Second)
	}
}
