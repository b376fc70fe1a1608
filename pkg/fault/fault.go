// Package fault is the one taxonomy of errors that cross a package border in Certwright.
//
// A fault says two things to two readers: the client learns the kind, a detail and perhaps a hint; the log learns
// the whole chain of causes. Only the front-ends translate a kind into their protocol's word (HTTP status, SCEP
// failInfo, OCSP responseStatus). Whatever is not a fault is Internal, and a client never sees its cause.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what went wrong, in the few words that matter to whoever asked. The zero value is Internal, so that an
// error nobody classified is never blamed on the client.
type Kind int

// The kinds. A front-end holds one table that covers all of them.
const (
	Internal            Kind = iota // we are broken
	BadRequest                      // the request cannot be read or lacks something
	BadCSR                          // the PKCS#10 request is malformed or its signature is wrong
	BadPublicKey                    // the key is too weak, of a refused kind, or blocked
	PolicyRefused                   // readable, but the profile or the issuer's policy forbids it
	Unauthenticated                 // nobody has said who asks, or not credibly
	Forbidden                       // known, and not allowed to
	NotFound                        // there is no such thing
	Conflict                        // the thing is not in a state that allows this, or already exists
	AlreadyRevoked                  // the certificate is revoked for good
	BadRevocationReason             // the reason does not exist or cannot be asked for
	RateLimited                     // too many requests; later is fine
	Unavailable                     // the store or a key is away; later is fine
)

var kindNames = [...]string{
	Internal: "internal", BadRequest: "bad_request", BadCSR: "bad_csr", BadPublicKey: "bad_public_key",
	PolicyRefused: "policy_refused", Unauthenticated: "unauthenticated", Forbidden: "forbidden",
	NotFound: "not_found", Conflict: "conflict", AlreadyRevoked: "already_revoked",
	BadRevocationReason: "bad_revocation_reason", RateLimited: "rate_limited", Unavailable: "unavailable",
}

// String returns the kind's stable name, as it appears in problem documents, metrics and logs.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return "internal"
	}
	return kindNames[k]
}

// Kinds returns every kind, for the tests that check a protocol's table has no hole.
func Kinds() []Kind {
	all := make([]Kind, len(kindNames))
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// Error is a classified error. Detail and Hint may be shown to the client and must therefore hold no secret and no
// cause from below; Err is for the log alone.
type Error struct {
	Kind       Kind
	Field      string        // the input's field at fault, as the client named it; empty if it is not about one
	Detail     string        // what is wrong, for the client
	Hint       string        // what the client can do about it; may be empty
	RetryAfter time.Duration // for RateLimited and Unavailable; zero means that nothing is known
	Err        error         // the cause, for the log; may be nil
}

// New returns a fault with a detail for the client and no cause.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// Wrap returns a fault that shows the client the detail and keeps err for the log.
func Wrap(kind Kind, err error, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...), Err: err}
}

// WithHint returns a copy of e that tells the client what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithField returns a copy of e that names the input's field at fault.
func (e *Error) WithField(field string) *Error {
	c := *e
	c.Field = field
	return &c
}

// WithRetryAfter returns a copy of e that tells the client when to come back.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Error returns the whole chain, for the log. A front-end shows Detail instead.
func (e *Error) Error() string {
	s := e.Kind.String()
	if e.Detail != "" {
		s = e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the outermost fault in err's chain; Internal if there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is a fault of the given kind. A nil error is of no kind.
func Is(err error, kind Kind) bool {
	return err != nil && KindOf(err) == kind
}

// Public returns what a client may see of err: the outermost fault without its cause, and for Internal nothing but
// the kind. It returns nil for nil.
func Public(err error) *Error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Kind == Internal {
		return &Error{Kind: Internal, Detail: "the server failed to do this; its log knows why"}
	}
	c := *e
	c.Err = nil
	return &c
}
