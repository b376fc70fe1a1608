package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"github.com/certwright/certwright/pkg/fault"
)

// Config is what a Client is made of. URL, Secrets and Timeout are required.
type Config struct {
	URL string // https
	// Anchors are the trust anchors of the receiver's certificate; none: those of the system.
	Anchors []*x509.Certificate
	// Allows reports whether an address that is not public may be dialled for a host; nil allows none.
	Allows func(host string, address netip.Addr) bool
	// Secrets are the keys of the HMAC.
	Secrets []Secret
	// Timeout is how long an Ask may take, with all its retries, and a Tell.
	Timeout time.Duration
	// Retries is how often an Ask is sent again after the connection has failed, or the receiver has (HTTP 5xx).
	Retries int
	// Together is how many requests may be on their way at a time. Default: 32. Sixteen times as many wait for their turn.
	Together int
	// Now is the time of signatures. Default: time.Now.
	Now func() time.Time
	// Resolver finds addresses. Default: the system's.
	Resolver *net.Resolver
}

// Secret is a key of the HMAC.
type Secret struct {
	Key   []byte
	Until time.Time // when it is not used any more; zero: never
}

// Client calls one receiver. It is safe for concurrent use.
type Client struct {
	cfg   Config
	host  string
	http  *http.Client
	queue chan struct{} // whoever has a turn or waits for one
	turns chan struct{}
}

const (
	defaultTogether = 32
	waitTogether    = 16
	maxHeaderBytes  = 16 << 10
	firstPause      = 100 * time.Millisecond // before the first retry; it doubles
	idleTimeout     = 90 * time.Second
	keptConnections = 4
)

// Cause is why there is no answer, in one of few words.
type Cause string

// The causes.
const (
	CauseTimeout    Cause = "timeout"    // there was no answer in time
	CauseConnection Cause = "connection" // there was no connection, or it was cut
	CauseTLS        Cause = "tls"        // the receiver's certificate is not that of its name, or not trusted
	CauseAddress    Cause = "address"    // its address is not public, and was not named
	CauseStatus     Cause = "status"     // the HTTP status is none of success
	CauseAnswer     Cause = "answer"     // the answer is not one
	CauseBusy       Cause = "busy"       // too many requests are on their way
)

// Error says why there is no answer. For people it has Error; nothing of it is the receiver's own words.
type Error struct {
	Cause Cause
	text  string
	err   error
	again bool // another try may succeed at once
}

// Error returns a sentence.
func (e *Error) Error() string { return e.text }

// Unwrap returns what is behind it, for the log.
func (e *Error) Unwrap() error { return e.err }

func failure(cause Cause, err error, format string, args ...any) *Error {
	return &Error{Cause: cause, err: err, text: "the webhook " + fmt.Sprintf(format, args...)}
}

// errRefused is what the dialler says of an address.
var errRefused = errors.New("the address is not public and is not listed")

// New returns a client. No connection is made.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, errors.New("webhook: the address must begin with https:// and name no user")
	}
	if len(cfg.Secrets) == 0 || cfg.Timeout <= 0 {
		return nil, errors.New("webhook: incomplete config")
	}
	for _, s := range cfg.Secrets {
		if len(s.Key) == 0 {
			return nil, errors.New("webhook: an empty secret")
		}
	}
	if cfg.Together <= 0 {
		cfg.Together = defaultTogether
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Client{cfg: cfg, host: u.Hostname(), turns: make(chan struct{}, cfg.Together), queue: make(chan struct{}, (1+waitTogether)*cfg.Together)}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(cfg.Anchors) > 0 {
		config.RootCAs = x509.NewCertPool()
		for _, a := range cfg.Anchors {
			config.RootCAs.AddCert(a)
		}
	}
	dialer := &net.Dialer{Resolver: cfg.Resolver, ControlContext: c.check}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: config, DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes,
			MaxIdleConnsPerHost: keptConnections, IdleConnTimeout: idleTimeout,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close gives up idle connections. Events on their way go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// check looks at the address that is about to be dialled: a name may mean another one each time that it is resolved.
func (c *Client) check(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", errRefused, address)
	}
	a := to.Addr().Unmap().WithZone("")
	if Public(a) || c.cfg.Allows != nil && c.cfg.Allows(c.host, a) {
		return nil
	}
	return fmt.Errorf("%w: %s", errRefused, a)
}

// Ask sends an event of the type request and returns the answer. Version and Type of e are set here. When there is no answer
// the error is an *Error, and nothing may be issued.
func (c *Client) Ask(ctx context.Context, e Event) (Answer, error) {
	e.Version, e.Type = Version, TypeRequest
	body, err := json.Marshal(e)
	if err != nil {
		return Answer{}, fmt.Errorf("encoding an event: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	select {
	case c.queue <- struct{}{}:
		defer func() { <-c.queue }()
	default:
		return Answer{}, failure(CauseBusy, nil, "is asked about too many requests at the same time already")
	}
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-ctx.Done():
		return Answer{}, failure(CauseBusy, ctx.Err(), "has answered too few of the requests before this one within %s", c.cfg.Timeout)
	}
	for pause, left := firstPause, c.cfg.Retries; ; pause, left = 2*pause, left-1 {
		answer, err := c.ask(ctx, body)
		if err == nil {
			return answer, nil
		}
		if deadline, _ := ctx.Deadline(); left <= 0 || !err.again || time.Until(deadline) <= pause {
			return Answer{}, err
		}
		select {
		case <-ctx.Done():
			return Answer{}, err
		case <-time.After(pause):
		}
	}
}

func (c *Client) ask(ctx context.Context, body []byte) (Answer, *Error) {
	b, failed := c.send(ctx, body)
	if failed != nil {
		return Answer{}, failed
	}
	answer, err := ParseAnswer(b)
	if err != nil {
		if field := fault.Public(err).Field; field != "" {
			return Answer{}, failure(CauseAnswer, err, "gave an answer that is not one: the field %q is wrong", field)
		}
		return Answer{}, failure(CauseAnswer, err, "gave an answer that is not one")
	}
	return answer, nil
}

// Tell sends an event whose answer does not matter, as Encode has made it, once. When the receiver did not take it, which it
// says with a status of success, the error is an *Error.
func (c *Client) Tell(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	if _, failed := c.send(ctx, body); failed != nil {
		return failed
	}
	return nil
}

// Encode returns the body of an event that is not of the type request.
func Encode(e Event) ([]byte, error) {
	e.Version = Version
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding an event: %w", err)
	}
	return b, nil
}

// send posts a body and returns that of the answer.
func (c *Client) send(ctx context.Context, body []byte) ([]byte, *Error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return nil, failure(CauseConnection, err, "has an address that cannot be called")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "certwright")
	now := c.cfg.Now()
	var keys [][]byte
	for _, s := range c.cfg.Secrets {
		if s.Until.IsZero() || now.Before(s.Until) {
			keys = append(keys, s.Key)
		}
	}
	r.Header.Set(SignatureHeader, Sign(keys, now, body))
	response, err := c.http.Do(r)
	if err != nil {
		return nil, c.broken(ctx, err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	switch status := response.StatusCode; {
	case status >= 500:
		f := failure(CauseStatus, nil, "answered with the HTTP status %d", status)
		f.again = true
		return nil, f
	case status >= 300 && status < 400:
		return nil, failure(CauseStatus, nil, "answered with the HTTP status %d: redirects are not followed", status)
	case status < 200 || status > 299:
		return nil, failure(CauseStatus, nil, "answered with the HTTP status %d", status)
	case err != nil:
		return nil, c.broken(ctx, err)
	case len(b) > maxAnswerBytes:
		return nil, failure(CauseAnswer, nil, "gave an answer of more than %d octets", maxAnswerBytes)
	}
	return b, nil
}

// broken words what is wrong with a connection.
func (c *Client) broken(ctx context.Context, err error) *Error {
	verification, wrong := errors.AsType[*tls.CertificateVerificationError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	alert, alerted := errors.AsType[tls.AlertError](err)
	switch {
	case errors.Is(err, errRefused):
		return failure(CauseAddress, err, "has an address that is neither public nor listed: see webhook.allow")
	case wrong:
		return failure(CauseTLS, err, "has a certificate that %s", distrust(verification.Err))
	case plain || errors.Is(err, http.ErrSchemeMismatch):
		return failure(CauseTLS, err, "does not speak TLS")
	case alerted:
		return failure(CauseTLS, err, "ended the TLS handshake: %v", alert)
	case ctx.Err() != nil:
		return failure(CauseTimeout, err, "did not answer within %s", c.cfg.Timeout)
	}
	f := failure(CauseConnection, err, "cannot be reached, or has cut the connection")
	f.again = true
	return f
}

// distrust words why a certificate is not trusted. What stands in it is a stranger's.
func distrust(err error) string {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, other := errors.AsType[x509.HostnameError](err)
	switch {
	case ok && invalid.Reason == x509.Expired:
		return "has ended, or does not hold yet"
	case unknown:
		return "no trust anchor has issued: see webhook.ca"
	case other:
		return "is for another name"
	}
	return "is not trusted"
}
