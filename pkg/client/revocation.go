package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// RevocationRequest says which certificates to revoke, and why. Query needs a condition; its Limit, Cursor and Count are
// left out, and without a Status it stands for valid and hold.
type RevocationRequest struct {
	Query          CertificateQuery
	Reason         string // RFC 5280, Section 5.3.1; empty is unspecified, and keyCompromise for a key
	InvalidityDate *time.Time
}

// RevocationPlan is what a dry run says.
type RevocationPlan struct {
	AsOf          time.Time     `json:"as_of"` // what is issued later is not revoked, unless a key is blocked
	Count         int64         `json:"count"`
	Revoked       int64         `json:"revoked"` // of them already; they would at most get another reason
	Sample        []Certificate `json:"sample"`
	Administrator bool          `json:"administrator"` // so many take one
	Confirm       string        `json:"confirm"`       // for who begins
}

// RevocationCampaign revokes many certificates, in the background.
type RevocationCampaign struct {
	ID             string         `json:"id"`
	State          string         `json:"state"`           // running, paused, done, cancelled
	Query          map[string]any `json:"query,omitempty"` // nil for a key
	SPKISHA256     string         `json:"spki_sha256,omitempty"`
	Reason         string         `json:"reason"`
	InvalidityDate *time.Time     `json:"invalidity_date,omitempty"`
	Expected       int64          `json:"expected"`
	Revoked        int64          `json:"revoked"`
	Skipped        int64          `json:"skipped"` // had been revoked when their turn came
	CreatedAt      time.Time      `json:"created_at"`
	CreatedBy      string         `json:"created_by"`
	ChangedAt      time.Time      `json:"changed_at"`
	EndedAt        *time.Time     `json:"ended_at,omitempty"`
}

// BlockedKey is a public key that is refused.
type BlockedKey struct {
	SPKISHA256  string     `json:"spki_sha256"`
	Own         bool       `json:"own"` // of the CA itself
	Compromised bool       `json:"compromised"`
	BlockedAt   *time.Time `json:"blocked_at,omitempty"`
	BlockedBy   string     `json:"blocked_by,omitempty"`
	Revocation  string     `json:"revocation,omitempty"` // id of the campaign that began with it
}

// body is the query as the body of a request has it.
func (q CertificateQuery) body() map[string]any {
	b := map[string]any{}
	for name, s := range map[string]string{
		"issuer": q.Issuer, "profile": q.Profile, "text": q.Text, "serial": q.Serial, "fingerprint": q.Fingerprint, "spki_sha256": q.SPKISHA256,
		"requester": q.Requester, "protocol": q.Protocol, "device": q.Device,
	} {
		if s != "" {
			b[name] = s
		}
	}
	for name, t := range map[string]time.Time{
		"not_after_from": q.NotAfterFrom, "not_after_to": q.NotAfterTo, "issued_from": q.IssuedFrom, "issued_to": q.IssuedTo,
	} {
		if !t.IsZero() {
			b[name] = t.UTC()
		}
	}
	if len(q.Status) > 0 {
		b["status"] = q.Status
	}
	return b
}

// body adds what every request has.
func (r RevocationRequest) body(confirm string, more map[string]any) map[string]any {
	if r.Reason != "" {
		more["reason"] = r.Reason
	}
	if r.InvalidityDate != nil {
		more["invalidity_date"] = r.InvalidityDate.UTC()
	}
	if confirm != "" {
		more["confirm"] = confirm
	}
	return more
}

// PlanRevocation counts and shows what a request would revoke. It changes nothing.
func (c *Client) PlanRevocation(ctx context.Context, r RevocationRequest) (p RevocationPlan, err error) {
	return p, c.do(ctx, http.MethodPost, "/revocations/dry-run", nil, r.body("", map[string]any{"query": r.Query.body()}), &p)
}

// BeginRevocation begins what was planned; confirm is the plan's, and the request the same. The campaign goes on in the
// background.
func (c *Client) BeginRevocation(ctx context.Context, r RevocationRequest, confirm string) (campaign RevocationCampaign, err error) {
	return campaign, c.do(ctx, http.MethodPost, "/revocations", nil, r.body(confirm, map[string]any{"query": r.Query.body()}), &campaign)
}

// Revocations returns campaigns, newest first, at most limit; 0 means the server's default.
func (c *Client) Revocations(ctx context.Context, limit int) ([]RevocationCampaign, error) {
	var out struct {
		Revocations []RevocationCampaign `json:"revocations"`
	}
	v := url.Values{}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	return out.Revocations, c.do(ctx, http.MethodGet, "/revocations", v, nil, &out)
}

// Revocation returns the campaign with this id.
func (c *Client) Revocation(ctx context.Context, id string) (campaign RevocationCampaign, err error) {
	return campaign, c.do(ctx, http.MethodGet, "/revocations/"+url.PathEscape(id), nil, nil, &campaign)
}

// PauseRevocation has a campaign rest.
func (c *Client) PauseRevocation(ctx context.Context, id string) (RevocationCampaign, error) {
	return c.setRevocation(ctx, id, "pause")
}

// ResumeRevocation has a campaign go on that was paused.
func (c *Client) ResumeRevocation(ctx context.Context, id string) (RevocationCampaign, error) {
	return c.setRevocation(ctx, id, "resume")
}

// CancelRevocation ends a campaign. What it has revoked stays revoked.
func (c *Client) CancelRevocation(ctx context.Context, id string) (RevocationCampaign, error) {
	return c.setRevocation(ctx, id, "cancel")
}

func (c *Client) setRevocation(ctx context.Context, id, act string) (campaign RevocationCampaign, err error) {
	return campaign, c.do(ctx, http.MethodPost, "/revocations/"+url.PathEscape(id)+"/"+act, nil, nil, &campaign)
}

// PlanKeyBlock counts and shows what blocking a key would revoke. It changes nothing. The hash is the SHA-256 of the key's
// SubjectPublicKeyInfo in hexadecimal; the request's query is not used.
func (c *Client) PlanKeyBlock(ctx context.Context, spkiSHA256 string, r RevocationRequest) (p RevocationPlan, err error) {
	return p, c.do(ctx, http.MethodPost, "/blocked-keys/dry-run", nil, r.body("", map[string]any{"spki_sha256": spkiSHA256}), &p)
}

// BlockKey blocks a key as planned, which is durable when it returns, and revokes its certificates in the background.
func (c *Client) BlockKey(ctx context.Context, spkiSHA256 string, r RevocationRequest, confirm string) (campaign RevocationCampaign, err error) {
	return campaign, c.do(ctx, http.MethodPost, "/blocked-keys", nil, r.body(confirm, map[string]any{"spki_sha256": spkiSHA256}), &campaign)
}

// BlockedKeys returns the keys that are refused, newest reports first, at most limit; own adds the CA's own. more says that
// there are others.
func (c *Client) BlockedKeys(ctx context.Context, own bool, limit int) (keys []BlockedKey, more bool, err error) {
	var out struct {
		Keys []BlockedKey `json:"keys"`
		More bool         `json:"more"`
	}
	v := url.Values{}
	if own {
		v.Set("own", "true")
	}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	err = c.do(ctx, http.MethodGet, "/blocked-keys", v, nil, &out)
	return out.Keys, out.More, err
}

// UnblockKey admits a public key again. It takes an administrator.
func (c *Client) UnblockKey(ctx context.Context, spkiSHA256 string) error {
	return c.do(ctx, http.MethodDelete, "/blocked-keys/"+url.PathEscape(spkiSHA256), nil, nil, nil)
}
