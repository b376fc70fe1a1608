// Package client is the Go client of Certwright's REST API.
//
//	c, err := client.New(client.Config{URL: "https://pki.example.com:8443", Token: token, Roots: roots})
//	issued, err := c.Issue(ctx, client.IssueRequest{CSR: csrPEM, Profile: "server"})
//
// A Client is safe for concurrent use. Errors that the server reported are *Error. Reads, and requests that issue, are
// tried again when the connection fails, when the server says 503, and when it says 429 with a Retry-After that is short;
// requests that issue carry an Idempotency-Key, so that several tries make one certificate. Other writes are tried once,
// since the first try may have had its effect.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxAnswerBytes is the longest answer that is read.
const maxAnswerBytes = 16 << 20

// Config says which server to talk to, and as whom. URL is required.
type Config struct {
	URL   string // as in https://127.0.0.1:8443
	Token string // API token; empty for the open routes only
	// Roots are the trust anchors for the server's certificate; nil means the system's.
	Roots *x509.CertPool
	// Certificate is presented on the mTLS listener, for the self-service routes.
	Certificate *tls.Certificate
	// Timeout is for a whole request; 0 means 30 seconds.
	Timeout time.Duration
	// UserAgent names the program; empty means certwright-client.
	UserAgent string
}

// Client talks to one server.
type Client struct {
	base      string
	token     string
	userAgent string
	http      *http.Client
}

// New returns a client. It does not connect yet.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%q is not a server's address such as https://127.0.0.1:8443", cfg.URL)
	}
	if cfg.Token != "" && u.Scheme != "https" {
		return nil, errors.New("a token is only sent over https")
	}
	if strings.ContainsAny(cfg.Token, " \r\n\t") {
		return nil, errors.New("the token contains white space: is it the whole of its file's first line?")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "certwright-client"
	}
	conf := &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12}
	if cfg.Certificate != nil {
		conf.Certificates = []tls.Certificate{*cfg.Certificate}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig, transport.ForceAttemptHTTP2 = conf, true
	return &Client{
		base: strings.TrimRight(cfg.URL, "/") + "/api/v1", token: cfg.Token, userAgent: cfg.UserAgent,
		http: &http.Client{
			Transport: transport, Timeout: cfg.Timeout,
			// A redirect would carry the token to another address.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Error is a problem document (RFC 9457) that the server answered with.
type Error struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Hint      string `json:"hint"`
	Field     string `json:"field"`
	Location  string `json:"location"` // address of what exists already, without the server's name
	RequestID string `json:"request_id"`
	Errors    []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
	// RetryAfter is how long the server asks to wait before the next try; 0 if it did not say.
	RetryAfter time.Duration `json:"-"`
}

// Kind returns the last part of the type, as in "policy_refused"; empty if the answer was no problem document.
func (e *Error) Kind() string {
	kind, ok := strings.CutPrefix(e.Type, "urn:certwright:problem:")
	if !ok {
		return ""
	}
	return kind
}

// Error returns the detail, with what is wrong with each field.
func (e *Error) Error() string {
	s := e.Detail
	if s == "" {
		s = e.Title
	}
	for _, f := range e.Errors {
		s += "; " + strings.TrimPrefix(f.Location, "body.") + ": " + f.Message
	}
	return s
}

// maxTries is how often a request is tried that may be; the pause doubles from firstPause. What the server asks for in a
// Retry-After with 429 is waited for, up to longestPause.
const (
	maxTries     = 3
	firstPause   = 200 * time.Millisecond
	longestPause = 15 * time.Second
)

// idempotencyKey is the header that names a request, so that its repetition is known for one.
const idempotencyKey = "Idempotency-Key"

// issue is do for the requests that issue. An empty key stands for one of the client's own.
func (c *Client) issue(ctx context.Context, key, path string, in, out any) error {
	if key == "" {
		key = rand.Text()
	}
	return c.doWith(ctx, http.Header{idempotencyKey: {key}}, http.MethodPost, path, nil, in, out)
}

// do sends a request and decodes the answer into out: a pointer for JSON, a *[]byte for raw bytes, nil for none.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	return c.doWith(ctx, nil, method, path, query, in, out)
}

// doWith is do with headers of its own.
func (c *Client) doWith(ctx context.Context, header http.Header, method, path string, query url.Values, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encoding the request: %w", err)
		}
	}
	address := c.base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	repeatable := method == http.MethodGet || header.Get(idempotencyKey) != ""
	for try, pause := 1, firstPause; ; try, pause = try+1, pause*2 {
		again, err := c.once(ctx, header, method, address, body, out)
		if err == nil || !again || !repeatable || try == maxTries {
			return err
		}
		wait := pause
		if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusTooManyRequests {
			wait = max(wait, e.RetryAfter)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// once is one try. again says that another might succeed.
func (c *Client) once(ctx context.Context, header http.Header, method, address string, body []byte, out any) (again bool, err error) {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, reader)
	if err != nil {
		return false, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", c.userAgent)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return ctx.Err() == nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes+1))
	if err != nil {
		return true, fmt.Errorf("reading the answer: %w", err)
	}
	if len(answer) > maxAnswerBytes {
		return false, fmt.Errorf("the answer is longer than %d bytes", maxAnswerBytes)
	}
	if res.StatusCode >= 300 {
		e := problemOf(res, answer)
		limited := res.StatusCode == http.StatusTooManyRequests && e.RetryAfter > 0 && e.RetryAfter <= longestPause
		return limited || res.StatusCode == http.StatusServiceUnavailable, e
	}
	switch out := out.(type) {
	case nil:
	case *[]byte:
		*out = answer
	default:
		if err := json.Unmarshal(answer, out); err != nil {
			return false, fmt.Errorf("the answer is not what this client understands; is %s a Certwright server? %w", req.URL.Host, err)
		}
	}
	return false, nil
}

func problemOf(res *http.Response, answer []byte) *Error {
	e := &Error{Status: res.StatusCode}
	if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && seconds > 0 && seconds < 1<<20 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	if t, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); t == "application/problem+json" && json.Unmarshal(answer, e) == nil {
		return e
	}
	e.Title, e.Detail = http.StatusText(res.StatusCode), fmt.Sprintf("the server answered %s", res.Status)
	return e
}

// Server is what the server tells about itself.
type Server struct {
	Version   string    `json:"version"`
	PublicURL string    `json:"public_url"`
	Store     string    `json:"store"`
	Started   time.Time `json:"started"`
	Time      time.Time `json:"time"`
}

// Server asks what server this is. It takes no token.
func (c *Client) Server(ctx context.Context) (s Server, err error) {
	return s, c.do(ctx, http.MethodGet, "/server", nil, nil, &s)
}

// Revocation is the state of a certificate that is not good.
type Revocation struct {
	Reason         string     `json:"reason"`
	RevokedAt      time.Time  `json:"revoked_at"` // revocationDate in CRLs and OCSP, whole seconds
	InvalidityDate *time.Time `json:"invalidity_date,omitempty"`
	DecidedAt      time.Time  `json:"decided_at"`
	FirstCRLAt     *time.Time `json:"first_crl_at,omitempty"`  // nil: on none yet, or not known
	FirstOCSPAt    *time.Time `json:"first_ocsp_at,omitempty"` // nil: not known
}

// Certificate is a certificate's record.
type Certificate struct {
	ID             string      `json:"id"` // SHA-256 fingerprint, hexadecimal
	Serial         string      `json:"serial"`
	Issuer         string      `json:"issuer"`
	Subject        string      `json:"subject"`
	SANs           []string    `json:"sans"`
	Profile        string      `json:"profile"`
	ProfileVersion int         `json:"profile_version"`
	Status         string      `json:"status"` // valid, revoked, hold, expired
	NotBefore      time.Time   `json:"not_before"`
	NotAfter       time.Time   `json:"not_after"`
	IssuedAt       time.Time   `json:"issued_at"`
	Requester      string      `json:"requester"`
	Protocol       string      `json:"protocol"`
	Device         string      `json:"device,omitempty"`
	Source         string      `json:"source,omitempty"`
	SPKISHA256     string      `json:"spki_sha256"`
	Replaces       string      `json:"replaces,omitempty"`
	Revocation     *Revocation `json:"revocation,omitempty"`
	PEM            string      `json:"certificate,omitempty"` // empty in lists
	Chain          string      `json:"chain,omitempty"`       // the issuers up to the root, PEM; empty in lists
	Warnings       []string    `json:"warnings,omitempty"`    // of issuing only
}

// IssueRequest asks for a certificate. CSR and Profile are required.
type IssueRequest struct {
	CSR      string     `json:"csr"` // PEM, or DER in base64
	Profile  string     `json:"profile"`
	Issuer   string     `json:"issuer,omitempty"`
	Subject  *string    `json:"subject,omitempty"`  // in place of the CSR's
	SANs     []string   `json:"sans,omitempty"`     // in place of the CSR's
	Validity string     `json:"validity,omitempty"` // as in 90d
	NotAfter *time.Time `json:"not_after,omitempty"`
	Device   string     `json:"device,omitempty"`
	// IdempotencyKey names the request for 24 hours: sent again, by this program or by another run of it, it gets the
	// same certificate. Empty: a random one for this call.
	IdempotencyKey string `json:"-"`
}

// Issue asks for a certificate.
func (c *Client) Issue(ctx context.Context, r IssueRequest) (cert Certificate, err error) {
	return cert, c.issue(ctx, r.IdempotencyKey, "/certificates", r, &cert)
}

// RenewRequest says how to renew. The zero value keeps the key and takes the profile's default life.
type RenewRequest struct {
	CSR      string `json:"csr,omitempty"` // with a new key
	Validity string `json:"validity,omitempty"`
	// IdempotencyKey is as in IssueRequest.
	IdempotencyKey string `json:"-"`
}

// Renew renews the certificate with this id.
func (c *Client) Renew(ctx context.Context, id string, r RenewRequest) (cert Certificate, err error) {
	return cert, c.issue(ctx, r.IdempotencyKey, "/certificates/"+url.PathEscape(id)+"/renew", r, &cert)
}

// Certificate returns the certificate with this id.
func (c *Client) Certificate(ctx context.Context, id string) (cert Certificate, err error) {
	return cert, c.do(ctx, http.MethodGet, "/certificates/"+url.PathEscape(id), nil, nil, &cert)
}

// CertificateBySerial returns the certificate of this issuer and serial number in hexadecimal.
func (c *Client) CertificateBySerial(ctx context.Context, issuer, serial string) (cert Certificate, err error) {
	return cert, c.do(ctx, http.MethodGet, "/issuers/"+url.PathEscape(issuer)+"/certificates/"+url.PathEscape(serial), nil, nil, &cert)
}

// CertificateQuery narrows a list. The zero value asks for everything.
type CertificateQuery struct {
	Issuer, Profile, Text, Serial, Fingerprint, SPKISHA256, Requester, Protocol, Device string

	Status                                         []string // any of valid, revoked, hold, expired
	NotAfterFrom, NotAfterTo, IssuedFrom, IssuedTo time.Time
	Limit                                          int    // a page's length; 0 means the server's default
	Cursor                                         string // as the page before gave it
	Count                                          bool   // also count all that match, up to 10,000
}

func (q CertificateQuery) values() url.Values {
	v := url.Values{}
	for name, s := range map[string]string{
		"issuer": q.Issuer, "profile": q.Profile, "text": q.Text, "serial": q.Serial, "fingerprint": q.Fingerprint, "spki_sha256": q.SPKISHA256,
		"requester": q.Requester, "protocol": q.Protocol, "device": q.Device, "cursor": q.Cursor,
		"status": strings.Join(q.Status, ","),
	} {
		if s != "" {
			v.Set(name, s)
		}
	}
	for name, t := range map[string]time.Time{
		"not_after_from": q.NotAfterFrom, "not_after_to": q.NotAfterTo, "issued_from": q.IssuedFrom, "issued_to": q.IssuedTo,
	} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Count {
		v.Set("count", "true")
	}
	return v
}

// CertificatePage is a part of a list.
type CertificatePage struct {
	Certificates []Certificate `json:"certificates"`
	Next         string        `json:"next"`  // cursor of the next page; empty on the last
	Count        *int          `json:"count"` // if asked for; 10,000 means that many or more
}

// ListCertificates returns one page, newest first.
func (c *Client) ListCertificates(ctx context.Context, q CertificateQuery) (page CertificatePage, err error) {
	return page, c.do(ctx, http.MethodGet, "/certificates", q.values(), nil, &page)
}

// Certificates ranges over all pages of a list, newest first. It ends with the first error.
func (c *Client) Certificates(ctx context.Context, q CertificateQuery) iter.Seq2[Certificate, error] {
	return func(yield func(Certificate, error) bool) {
		for {
			page, err := c.ListCertificates(ctx, q)
			if err != nil {
				yield(Certificate{}, err)
				return
			}
			for _, cert := range page.Certificates {
				if !yield(cert, nil) {
					return
				}
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				return
			}
		}
	}
}

// RevokeRequest says why. The zero value is unspecified.
type RevokeRequest struct {
	Reason         string     `json:"reason,omitempty"` // RFC 5280, Section 5.3.1, as in keyCompromise
	InvalidityDate *time.Time `json:"invalidity_date,omitempty"`
}

// Revoke revokes a certificate for good. It is durable when Revoke returns. The reason keyCompromise also blocks the key, and
// revokes every other certificate for it; when there are more than 1000, that takes an administrator.
func (c *Client) Revoke(ctx context.Context, id string, r RevokeRequest) (cert Certificate, err error) {
	return cert, c.do(ctx, http.MethodPost, "/certificates/"+url.PathEscape(id)+"/revoke", nil, r, &cert)
}

// Hold puts a certificate on hold.
func (c *Client) Hold(ctx context.Context, id string) (cert Certificate, err error) {
	return cert, c.do(ctx, http.MethodPost, "/certificates/"+url.PathEscape(id)+"/hold", nil, nil, &cert)
}

// Release releases a certificate from hold.
func (c *Client) Release(ctx context.Context, id string) (cert Certificate, err error) {
	return cert, c.do(ctx, http.MethodPost, "/certificates/"+url.PathEscape(id)+"/release", nil, nil, &cert)
}

// CRL tells how fresh an issuer's CRL is.
type CRL struct {
	Number     int64     `json:"number"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Entries    int       `json:"entries"`
	URL        string    `json:"url"`
}

// Issuer is an issuer's record.
type Issuer struct {
	Name         string    `json:"name"`
	Root         bool      `json:"root"`
	Subject      string    `json:"subject"`
	Parent       string    `json:"parent,omitempty"`
	KeyID        string    `json:"key_id"`
	KeyAlgorithm string    `json:"key_algorithm"`
	Serial       string    `json:"serial"`
	Fingerprint  string    `json:"fingerprint"`
	NotBefore    time.Time `json:"not_before"`
	NotAfter     time.Time `json:"not_after"`
	Status       string    `json:"status"`
	PEM          string    `json:"certificate"`
	CRL          *CRL      `json:"crl,omitempty"`

	Settings SettingsInForce `json:"settings"`
}

// CRLState tells how the publication of one CRL stands.
type CRLState struct {
	Issuer     string     `json:"issuer"`
	KeyID      string     `json:"key_id"`
	Scope      string     `json:"scope"`  // full, ca, SET/SHARD, and SCOPE/delta
	Status     string     `json:"status"` // none, current, old, expired
	Number     int64      `json:"number,omitempty"`
	Entries    int        `json:"entries"`
	Size       int        `json:"size"` // in octets, DER
	ThisUpdate *time.Time `json:"this_update,omitempty"`
	NextUpdate *time.Time `json:"next_update,omitempty"`
	CreatedAt  *time.Time `json:"created_at,omitempty"`
	AgeSeconds int64      `json:"age_seconds"`
	Pending    bool       `json:"pending"` // a change of a status is not on it yet
	Error      string     `json:"error,omitempty"`
	URL        string     `json:"url"`
	PEMURL     string     `json:"pem_url"`
}

// CRLs are the states of all CRLs, as one replica serves them.
type CRLs struct {
	MadeHere bool       `json:"made_here"` // the replica that answered makes them
	MadeBy   string     `json:"made_by"`   // name of the replica that makes them; empty: not known now
	CRLs     []CRLState `json:"crls"`
}

// CRLs returns how the publication of CRLs stands: of all issuers, or of the one with this name.
func (c *Client) CRLs(ctx context.Context, issuer string) (all CRLs, err error) {
	path := "/crls"
	if issuer != "" {
		path += "?issuer=" + url.QueryEscape(issuer)
	}
	return all, c.do(ctx, http.MethodGet, path, nil, nil, &all)
}

// Issuers returns every issuer, roots first. It takes no token.
func (c *Client) Issuers(ctx context.Context) ([]Issuer, error) {
	var out struct {
		Issuers []Issuer `json:"issuers"`
	}
	return out.Issuers, c.do(ctx, http.MethodGet, "/issuers", nil, nil, &out)
}

// Issuer returns an issuer by name. It takes no token.
func (c *Client) Issuer(ctx context.Context, name string) (i Issuer, err error) {
	return i, c.do(ctx, http.MethodGet, "/issuers/"+url.PathEscape(name), nil, nil, &i)
}

// File returns one of the files below the API's root, as in "roots.pem", "client-ca.pem" or
// "issuers/issuing/chain.pem".
func (c *Client) File(ctx context.Context, name string) (b []byte, err error) {
	return b, c.do(ctx, http.MethodGet, "/"+name, nil, nil, &b)
}

// Token is an API token's record.
type Token struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Role      string     `json:"role"`
	Issuers   []string   `json:"issuers,omitempty"`
	Profiles  []string   `json:"profiles,omitempty"`
	Names     []string   `json:"names,omitempty"` // rules for what its certificates may name
	Rate      int        `json:"rate,omitempty"`  // requests a minute; 0: as many as the server allows
	Status    string     `json:"status"`
	CreatedAt time.Time  `json:"created_at"`
	CreatedBy string     `json:"created_by"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
	Token     string     `json:"token,omitempty"` // the token itself, from CreateToken only
}

// CreateTokenRequest asks for a token. Name and Role are required.
type CreateTokenRequest struct {
	Name     string   `json:"name"`
	Role     string   `json:"role"`
	Issuers  []string `json:"issuers,omitempty"`
	Profiles []string `json:"profiles,omitempty"`
	Names    []string `json:"names,omitempty"`    // rules, as in DNS:*.dev.example.com
	Rate     int      `json:"rate,omitempty"`     // requests a minute
	Validity string   `json:"validity,omitempty"` // as in 90d; "0" never ends; empty is 365d
}

// CreateToken makes an API token. Its text is in the answer, and nowhere else afterwards.
func (c *Client) CreateToken(ctx context.Context, r CreateTokenRequest) (t Token, err error) {
	return t, c.do(ctx, http.MethodPost, "/tokens", nil, r, &t)
}

// Tokens returns every token, newest first.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	var out struct {
		Tokens []Token `json:"tokens"`
	}
	return out.Tokens, c.do(ctx, http.MethodGet, "/tokens", nil, nil, &out)
}

// RevokeToken ends a token, by id or by name.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/tokens/"+url.PathEscape(id), nil, nil, nil)
}

// AuditQuery narrows a list of audit events. The zero value asks for everything.
type AuditQuery struct {
	Actor, Action, Target string // Action may end in "." for a group, as in "certificate."
	From, To              time.Time
	Limit                 int
	Cursor                string
}

// Event is an audit event.
type Event struct {
	Seq       int64             `json:"seq"`
	Change    int64             `json:"change"`
	Time      time.Time         `json:"time"`
	Action    string            `json:"action"`
	Actor     string            `json:"actor"`
	Role      string            `json:"role,omitempty"`
	Source    string            `json:"source,omitempty"`
	RequestID string            `json:"request_id,omitempty"`
	Target    string            `json:"target,omitempty"`
	Detail    map[string]string `json:"detail,omitempty"`
}

// EventPage is a part of a list of events.
type EventPage struct {
	Events []Event `json:"events"`
	Next   string  `json:"next"`
}

// Audit returns one page of audit events, newest first.
func (c *Client) Audit(ctx context.Context, q AuditQuery) (page EventPage, err error) {
	v := url.Values{}
	for name, s := range map[string]string{"actor": q.Actor, "action": q.Action, "target": q.Target, "cursor": q.Cursor} {
		if s != "" {
			v.Set(name, s)
		}
	}
	for name, t := range map[string]time.Time{"from": q.From, "to": q.To} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return page, c.do(ctx, http.MethodGet, "/audit", v, nil, &page)
}

// Verification is the outcome of a walk over the chain of audit records.
type Verification struct {
	Whole   bool   `json:"whole"`
	Problem string `json:"problem,omitempty"`
	Changes int64  `json:"changes"`
	Records int64  `json:"records"`
	Head    string `json:"head"`
}

// VerifyAudit has the server walk the whole chain, which must pass through the checkpoints, CHANGE:HEAD each.
func (c *Client) VerifyAudit(ctx context.Context, checkpoints ...string) (v Verification, err error) {
	q := url.Values{}
	if len(checkpoints) > 0 {
		q.Set("checkpoint", strings.Join(checkpoints, ","))
	}
	return v, c.do(ctx, http.MethodGet, "/audit/verify", q, nil, &v)
}

// WhoAmI is what a token stands for.
type WhoAmI struct {
	Name     string   `json:"name"` // as it stands in the audit trail
	Role     string   `json:"role"`
	Issuers  []string `json:"issuers,omitempty"`  // that it may use; empty: all
	Profiles []string `json:"profiles,omitempty"` // that it may use; empty: all
	Names    []string `json:"names,omitempty"`    // rules for what its certificates may name; empty: what the profile allows
	Rate     int      `json:"rate,omitempty"`     // requests a minute; 0: as many as the server allows
}

// WhoAmI returns what the client's token stands for.
func (c *Client) WhoAmI(ctx context.Context) (w WhoAmI, err error) {
	return w, c.do(ctx, http.MethodGet, "/whoami", nil, nil, &w)
}

// Self returns the certificate that the client presents. It takes Config.Certificate and the mTLS listener.
func (c *Client) Self(ctx context.Context) (cert Certificate, err error) {
	return cert, c.do(ctx, http.MethodGet, "/self", nil, nil, &cert)
}

// RenewSelf renews the certificate that the client presents.
func (c *Client) RenewSelf(ctx context.Context, r RenewRequest) (cert Certificate, err error) {
	return cert, c.issue(ctx, r.IdempotencyKey, "/self/renew", r, &cert)
}

// RevokeSelf revokes the certificate that the client presents.
func (c *Client) RevokeSelf(ctx context.Context, reason string) (cert Certificate, err error) {
	return cert, c.do(ctx, http.MethodPost, "/self/revoke", nil, RevokeRequest{Reason: reason}, &cert)
}
