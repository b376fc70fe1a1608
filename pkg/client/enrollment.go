package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// EnrollmentPoint is an address at which devices enroll.
type EnrollmentPoint struct {
	Name            string          `json:"name"`
	Version         int             `json:"version"`
	URL             string          `json:"url"`
	Disabled        bool            `json:"disabled"`
	Issuer          string          `json:"issuer"`
	Profile         string          `json:"profile"`
	StaticChallenge bool            `json:"static_challenge"` // whether there is one
	Settings        json.RawMessage `json:"settings"`
	Webhook         *PointWebhook   `json:"webhook,omitempty"` // nil without one
	RA              *RACertificate  `json:"ra,omitempty"`      // nil before the first device has asked
	ChangedAt       time.Time       `json:"changed_at"`
	ChangedBy       string          `json:"changed_by"`
}

// PointWebhook is what there is to say of a point's webhook beside its settings.
type PointWebhook struct {
	Secret  bool       `json:"secret"`           // whether there is one
	Waiting int        `json:"waiting"`          // notifications that wait to be delivered
	Oldest  *time.Time `json:"oldest,omitempty"` // when the oldest of them was made
	Error   string     `json:"error,omitempty"`  // why that could not be delivered
}

// WebhookSecret is the key with which messages to a webhook are authenticated.
type WebhookSecret struct {
	Point   string `json:"point"`
	Version int    `json:"version"` // of the point
	Secret  string `json:"secret"`
}

// NewWebhookSecret makes a new secret for the webhook of a point. The one before it signs messages along for the time given
// in overlap, as in "1d"; empty: not at all.
func (c *Client) NewWebhookSecret(ctx context.Context, point, overlap string) (s WebhookSecret, err error) {
	body := struct {
		Overlap string `json:"overlap,omitempty"`
	}{overlap}
	return s, c.do(ctx, http.MethodPost, "/scep/points/"+url.PathEscape(point)+"/webhook-secret", nil, body, &s)
}

// RACertificate is what devices encrypt to.
type RACertificate struct {
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	PEM      string    `json:"certificate"`
}

// EnrollmentPoints returns every point, by name.
func (c *Client) EnrollmentPoints(ctx context.Context) ([]EnrollmentPoint, error) {
	var out struct {
		Points []EnrollmentPoint `json:"points"`
	}
	return out.Points, c.do(ctx, http.MethodGet, "/scep/points", nil, nil, &out)
}

// EnrollmentPoint returns a point by its name.
func (c *Client) EnrollmentPoint(ctx context.Context, name string) (p EnrollmentPoint, err error) {
	return p, c.do(ctx, http.MethodGet, "/scep/points/"+url.PathEscape(name), nil, nil, &p)
}

// EnrollmentPointHistory returns the versions of a point, newest first.
func (c *Client) EnrollmentPointHistory(ctx context.Context, name string) ([]ProfileVersion, error) {
	var out struct {
		Versions []ProfileVersion `json:"versions"`
	}
	return out.Versions, c.do(ctx, http.MethodGet, "/scep/points/"+url.PathEscape(name)+"/history", nil, nil, &out)
}

// PointVersion is a version of a point's settings.
type PointVersion struct {
	Name      string          `json:"name"`
	Version   int             `json:"version"`
	Changed   time.Time       `json:"changed"`
	ChangedBy string          `json:"changed_by"`
	Settings  json.RawMessage `json:"settings"`
}

// EnrollmentPointVersion returns a version of a point.
func (c *Client) EnrollmentPointVersion(ctx context.Context, name string, version int) (v PointVersion, err error) {
	return v, c.do(ctx, http.MethodGet, "/scep/points/"+url.PathEscape(name)+"/versions/"+strconv.Itoa(version), nil, nil, &v)
}

// PointCheck is what settings of a point would change.
type PointCheck struct {
	Name     string          `json:"name"`
	Version  int             `json:"version"` // in force; 0 for a new point
	Changes  []ProfileChange `json:"changes"`
	Warnings []string        `json:"warnings,omitempty"`
}

// CheckEnrollmentPoint has settings checked and compared with those in force; nothing changes. The Field of an *Error names
// the field at fault.
func (c *Client) CheckEnrollmentPoint(ctx context.Context, settings json.RawMessage) (check PointCheck, err error) {
	body := struct {
		Settings json.RawMessage `json:"settings"`
	}{settings}
	return check, c.do(ctx, http.MethodPost, "/scep/points/check", nil, body, &check)
}

// PutPointRequest changes an enrollment point, or makes one.
type PutPointRequest struct {
	Version  int             `json:"-"` // that the change was made on; 0 for a new point
	Settings json.RawMessage `json:"settings"`
	// StaticChallenge, when not nil, is the new one; empty takes it away.
	StaticChallenge *string `json:"static_challenge,omitempty"`
}

// PutEnrollmentPoint writes a point's settings, if the given version is still the one in force; otherwise the error's Status
// is 412. What changes nothing makes no new version.
func (c *Client) PutEnrollmentPoint(ctx context.Context, name string, r PutPointRequest) (p EnrollmentPoint, err error) {
	header := http.Header{"If-Match": {strconv.Quote(strconv.Itoa(r.Version))}}
	if r.Version == 0 {
		header = http.Header{"If-None-Match": {"*"}}
	}
	return p, c.doWith(ctx, header, http.MethodPut, "/scep/points/"+url.PathEscape(name), nil, r, &p)
}

// RotateRA gives the RA of an issuer a new key. The old one still decrypts for a time.
func (c *Client) RotateRA(ctx context.Context, issuer string) (ra RACertificate, err error) {
	return ra, c.do(ctx, http.MethodPost, "/issuers/"+url.PathEscape(issuer)+"/ra/rotate", nil, nil, &ra)
}

// Challenge is a one-time enrollment challenge.
type Challenge struct {
	ID        string     `json:"id"`
	Point     string     `json:"point"`
	Profile   string     `json:"profile,omitempty"`
	Subject   string     `json:"subject,omitempty"`
	SANs      []string   `json:"sans,omitempty"`
	Device    string     `json:"device,omitempty"`
	Note      string     `json:"note,omitempty"`
	Batch     string     `json:"batch,omitempty"`
	Status    string     `json:"status"` // open, used, expired or revoked
	CreatedAt time.Time  `json:"created_at"`
	CreatedBy string     `json:"created_by"`
	ExpiresAt time.Time  `json:"expires_at"`
	UsedAt    *time.Time `json:"used_at,omitempty"`
	UsedBy    string     `json:"used_by,omitempty"` // id of the certificate
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
	Failures  int        `json:"failures"`
	Challenge string     `json:"challenge,omitempty"` // the challenge itself, from CreateChallenge only
}

// CreateChallengeRequest asks for a challenge. The zero value is one for the point default and any subject that its
// profile allows.
type CreateChallengeRequest struct {
	Point    string   `json:"point,omitempty"`
	Profile  string   `json:"profile,omitempty"`
	Subject  string   `json:"subject,omitempty"`
	SANs     []string `json:"sans,omitempty"`
	Device   string   `json:"device,omitempty"`
	Note     string   `json:"note,omitempty"`
	Validity string   `json:"validity,omitempty"` // as in 7d; empty is 24h
}

// CreateChallenge makes a one-time challenge. Its text is in the answer, and nowhere else afterwards.
func (c *Client) CreateChallenge(ctx context.Context, r CreateChallengeRequest) (out Challenge, err error) {
	return out, c.do(ctx, http.MethodPost, "/challenges", nil, r, &out)
}

// ChallengeQuery narrows a list of challenges. The zero value asks for everything.
type ChallengeQuery struct {
	Point, Device, Batch string
	Open                 bool // only those that can be used
	Limit                int  // 0 means 100
	Cursor               string
}

// Challenges returns a page, newest first, and the cursor of the next one, empty on the last.
func (c *Client) Challenges(ctx context.Context, q ChallengeQuery) ([]Challenge, string, error) {
	v := pageQuery(q.Limit, q.Cursor)
	set(v, "point", q.Point)
	set(v, "device", q.Device)
	set(v, "batch", q.Batch)
	if q.Open {
		v.Set("open", "true")
	}
	var out struct {
		Challenges []Challenge `json:"challenges"`
		Next       string      `json:"next"`
	}
	err := c.do(ctx, http.MethodGet, "/challenges", v, nil, &out)
	return out.Challenges, out.Next, err
}

func pageQuery(limit int, cursor string) url.Values {
	v := url.Values{}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	set(v, "cursor", cursor)
	return v
}

func set(v url.Values, name, value string) {
	if value != "" {
		v.Set(name, value)
	}
}

// BulkChallengesRequest asks for up to 1000 challenges.
type BulkChallengesRequest struct {
	Point      string                   `json:"point,omitempty"`
	Batch      string                   `json:"batch,omitempty"`   // empty: the server draws one
	DryRun     bool                     `json:"dry_run,omitempty"` // check everything, make nothing
	Challenges []CreateChallengeRequest `json:"challenges"`        // without Point
}

// MadeChallenge is a challenge of many.
type MadeChallenge struct {
	ID        string    `json:"id"`
	Device    string    `json:"device,omitempty"`
	Subject   string    `json:"subject,omitempty"`
	ExpiresAt time.Time `json:"expires_at"`
	Challenge string    `json:"challenge"`
}

// CreateChallenges makes many challenges, or none. The Field of an *Error names the row, as in challenges[3].subject.
func (c *Client) CreateChallenges(ctx context.Context, r BulkChallengesRequest) (batch string, made []MadeChallenge, err error) {
	var out struct {
		Batch      string          `json:"batch"`
		Challenges []MadeChallenge `json:"challenges"`
	}
	err = c.do(ctx, http.MethodPost, "/challenges/bulk", nil, r, &out)
	return out.Batch, out.Challenges, err
}

// ChallengeSelection says which challenges. All that is not empty must match.
type ChallengeSelection struct {
	Batch  string `json:"batch,omitempty"`
	Device string `json:"device,omitempty"`
	Point  string `json:"point,omitempty"`
}

// String says which they are, for people.
func (s ChallengeSelection) String() string {
	var words []string
	for _, w := range [][2]string{{"batch", s.Batch}, {"device", s.Device}, {"enrollment point", s.Point}} {
		if w[1] != "" {
			words = append(words, w[0]+" "+w[1])
		}
	}
	return strings.Join(words, ", ")
}

// RevokeChallenges ends every challenge of a selection that can be used, and tells how many.
func (c *Client) RevokeChallenges(ctx context.Context, s ChallengeSelection) (int, error) {
	var out struct {
		Revoked int `json:"revoked"`
	}
	err := c.do(ctx, http.MethodPost, "/challenges/revoke", nil, s, &out)
	return out.Revoked, err
}

// RevokeChallenge ends a challenge.
func (c *Client) RevokeChallenge(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/challenges/"+url.PathEscape(id), nil, nil, nil)
}

// Enrollment is a device's request that waits, or has waited, for a person.
type Enrollment struct {
	ID            string    `json:"id"`
	Point         string    `json:"point"`
	State         string    `json:"state"` // pending, issued, denied or expired
	Subject       string    `json:"subject"`
	SANs          []string  `json:"sans"`
	Profile       string    `json:"profile"`
	Device        string    `json:"device,omitempty"`
	Source        string    `json:"source,omitempty"`
	TransactionID string    `json:"transaction_id"`
	SPKISHA256    string    `json:"spki_sha256"`
	Challenge     string    `json:"challenge,omitempty"`
	Replaces      string    `json:"replaces,omitempty"`
	Certificate   string    `json:"certificate,omitempty"`
	Reason        string    `json:"reason,omitempty"`
	DecidedBy     string    `json:"decided_by,omitempty"`
	CreatedAt     time.Time `json:"created_at"`
	UpdatedAt     time.Time `json:"updated_at"`
	ExpiresAt     time.Time `json:"expires_at"`
}

// EnrollmentQuery narrows a list of enrollments. The zero value asks for everything.
type EnrollmentQuery struct {
	Point  string
	Device string
	State  string // pending, expired, issued or denied
	Limit  int    // 0 means 100
	Cursor string
}

// Enrollments returns a page, newest first, and the cursor of the next one, empty on the last.
func (c *Client) Enrollments(ctx context.Context, q EnrollmentQuery) ([]Enrollment, string, error) {
	v := pageQuery(q.Limit, q.Cursor)
	set(v, "point", q.Point)
	set(v, "device", q.Device)
	set(v, "state", q.State)
	var out struct {
		Enrollments []Enrollment `json:"enrollments"`
		Next        string       `json:"next"`
	}
	err := c.do(ctx, http.MethodGet, "/enrollments", v, nil, &out)
	return out.Enrollments, out.Next, err
}

// Enrollment returns a request by its id.
func (c *Client) Enrollment(ctx context.Context, id string) (e Enrollment, err error) {
	return e, c.do(ctx, http.MethodGet, "/enrollments/"+url.PathEscape(id), nil, nil, &e)
}

// ApproveEnrollment issues the certificate that a request waits for.
func (c *Client) ApproveEnrollment(ctx context.Context, id string) (e Enrollment, err error) {
	return e, c.do(ctx, http.MethodPost, "/enrollments/"+url.PathEscape(id)+"/approve", nil, nil, &e)
}

// DecidedEnrollment is what became of one of several requests that were decided at once.
type DecidedEnrollment struct {
	ID         string      `json:"id"`
	Enrollment *Enrollment `json:"enrollment"` // nil if it was not decided
	Problem    *Error      `json:"problem"`    // why it was not; nil if it was
}

// MaxDecisions is how many requests DecideEnrollments takes.
const MaxDecisions = 500

// DecideEnrollments approves or denies requests that wait, each by itself, at most MaxDecisions; the reason is for the
// devices that are denied. The results are in the order of ids.
func (c *Client) DecideEnrollments(ctx context.Context, approve bool, reason string, ids ...string) ([]DecidedEnrollment, error) {
	body := struct {
		Decision string   `json:"decision"`
		IDs      []string `json:"ids"`
		Reason   string   `json:"reason,omitempty"`
	}{"deny", ids, reason}
	if approve {
		body.Decision = "approve"
	}
	var out struct {
		Results []DecidedEnrollment `json:"results"`
	}
	err := c.do(ctx, http.MethodPost, "/enrollments/decide", nil, body, &out)
	return out.Results, err
}

// DenyEnrollment refuses a request that waits; the reason is for the device.
func (c *Client) DenyEnrollment(ctx context.Context, id, reason string) (e Enrollment, err error) {
	body := struct {
		Reason string `json:"reason,omitempty"`
	}{reason}
	return e, c.do(ctx, http.MethodPost, "/enrollments/"+url.PathEscape(id)+"/deny", nil, body, &e)
}
