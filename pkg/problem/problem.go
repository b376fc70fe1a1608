// Package problem turns a fault into the document that HTTP clients read: application/problem+json, RFC 9457.
package problem

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/certwright/certwright/pkg/fault"
)

// ContentType is the media type of a Document.
const ContentType = "application/problem+json"

// Document is a problem document. Type is a URN of the fault's kind, so that programs need not read the prose.
type Document struct {
	Type      string  `json:"type" doc:"urn:certwright:problem: and the kind, as in urn:certwright:problem:policy_refused"`
	Title     string  `json:"title" doc:"The kind, for people"`
	Status    int     `json:"status" doc:"HTTP status code"`
	Detail    string  `json:"detail,omitempty" doc:"What is wrong"`
	Hint      string  `json:"hint,omitempty" doc:"What to do about it"`
	Field     string  `json:"field,omitempty" doc:"The input's field at fault"`
	Location  string  `json:"location,omitempty" doc:"Address of what exists already"`
	RequestID string  `json:"request_id,omitempty" doc:"Names this request in the server's log"`
	Errors    []Error `json:"errors,omitempty" doc:"Each field that does not have the documented form"`

	retryAfter time.Duration
}

// Error is one of several things wrong with a request. It never repeats the offending value, which may be a secret.
type Error struct {
	Location string `json:"location,omitempty" doc:"Where, as in body.profile"`
	Message  string `json:"message" doc:"What is wrong"`
}

// table gives each kind its HTTP status and its title.
var table = map[fault.Kind]struct {
	status int
	title  string
}{
	fault.Internal:            {http.StatusInternalServerError, "Internal error"},
	fault.BadRequest:          {http.StatusBadRequest, "Bad request"},
	fault.BadCSR:              {http.StatusBadRequest, "Bad certificate signing request"},
	fault.BadPublicKey:        {http.StatusBadRequest, "Bad public key"},
	fault.PolicyRefused:       {http.StatusUnprocessableEntity, "Refused by policy"},
	fault.Unauthenticated:     {http.StatusUnauthorized, "Not authenticated"},
	fault.Forbidden:           {http.StatusForbidden, "Not allowed"},
	fault.NotFound:            {http.StatusNotFound, "Not found"},
	fault.Conflict:            {http.StatusConflict, "Conflict"},
	fault.AlreadyRevoked:      {http.StatusConflict, "Already revoked"},
	fault.BadRevocationReason: {http.StatusBadRequest, "Bad revocation reason"},
	fault.RateLimited:         {http.StatusTooManyRequests, "Too many requests"},
	fault.Unavailable:         {http.StatusServiceUnavailable, "Unavailable"},
}

// Of returns the document of an error: what the client may see of it, and nothing of its causes.
func Of(err error) *Document {
	f := fault.Public(err)
	t := table[f.Kind]
	return &Document{
		Type: "urn:certwright:problem:" + f.Kind.String(), Title: t.title, Status: t.status,
		Detail: f.Detail, Hint: f.Hint, Field: f.Field, retryAfter: f.RetryAfter,
	}
}

// Header returns the headers that belong to the document: Location when there is one, Retry-After when the fault says
// when to come back, and always for 503.
func (d *Document) Header() http.Header {
	h := http.Header{}
	seconds := int((d.retryAfter + time.Second - 1) / time.Second)
	if seconds == 0 && d.Status == http.StatusServiceUnavailable {
		seconds = 5
	}
	if seconds > 0 {
		h.Set("Retry-After", strconv.Itoa(seconds))
	}
	if d.Location != "" {
		h.Set("Location", d.Location)
	}
	if d.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="certwright"`)
	}
	return h
}

// GetStatus, GetHeaders, ContentType and Error let a document be returned as an error where a library renders errors by
// asking them.
func (d *Document) GetStatus() int { return d.Status }

// GetHeaders returns Header.
func (d *Document) GetHeaders() http.Header { return d.Header() }

// ContentType returns the media type of a document, whatever was negotiated.
func (d *Document) ContentType(string) string { return ContentType }

// Error returns the title and the detail.
func (d *Document) Error() string { return d.Title + ": " + d.Detail }

type requestIDKey struct{}

// WithRequestID returns a context that carries the id under which the log knows a request.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the id that the context carries, empty if none.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// Write answers the request with the document. The request's answer must not have been begun.
func (d *Document) Write(w http.ResponseWriter) {
	for k, v := range d.Header() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", ContentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(d.Status)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(d)
}
