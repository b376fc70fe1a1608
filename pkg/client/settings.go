package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// SettingsInForce is how an issuer's CRLs and OCSP answers are made. Durations are text, as in "7d" or "1h0m0s".
type SettingsInForce struct {
	Version int `json:"version"` // of the issuer's own settings; 0 when there are none
	CRL     struct {
		Form            string `json:"form"` // "full" or "sharded"
		Shards          int    `json:"shards,omitempty"`
		Delta           bool   `json:"delta"`
		BaseInterval    string `json:"base_interval,omitempty"`
		DeltaNextUpdate string `json:"delta_next_update,omitempty"`
		Interval        string `json:"interval"`
		NextUpdate      string `json:"next_update"`
		Coalesce        string `json:"coalesce"`
		MaxAge          string `json:"max_age"`
	} `json:"crl"`
	OCSP struct {
		NextUpdate string `json:"next_update"`
		MaxAge     string `json:"max_age"`
	} `json:"ocsp"`
	// Pending is the set of shards that certificates do not name yet, because its CRLs are being made; nil when there is none.
	Pending *struct {
		Set string `json:"set"`
	} `json:"pending,omitempty"`
}

// IssuerSettings are an issuer's own settings.
type IssuerSettings struct {
	Issuer    string           `json:"issuer"`
	Version   int              `json:"version"` // 0 when there are none
	Changed   *time.Time       `json:"changed,omitempty"`
	ChangedBy string           `json:"changed_by,omitempty"`
	Config    json.RawMessage  `json:"config"`
	InForce   *SettingsInForce `json:"in_force,omitempty"` // nil for older versions
	Addresses []CRLAddress     `json:"addresses,omitempty"`
	Warnings  []string         `json:"warnings,omitempty"` // of a change
}

// CRLAddress is an address of a CRL that certificates carry.
type CRLAddress struct {
	KeyID    string     `json:"key_id"`
	Set      string     `json:"set"` // "full", or the name of a set of shards
	URL      string     `json:"url"` // {shard} stands for the number of the shard
	Recorded time.Time  `json:"recorded"`
	Until    time.Time  `json:"until"`            // no certificate that carries it ends later
	Listed   *time.Time `json:"listed,omitempty"` // nil while its CRLs are being made
}

func settingsPath(issuer string) string { return "/issuers/" + url.PathEscape(issuer) + "/settings" }

// IssuerSettings returns an issuer's settings.
func (c *Client) IssuerSettings(ctx context.Context, issuer string) (s IssuerSettings, err error) {
	return s, c.do(ctx, http.MethodGet, settingsPath(issuer), nil, nil, &s)
}

// IssuerSettingsVersion returns a version of an issuer's settings.
func (c *Client) IssuerSettingsVersion(ctx context.Context, issuer string, version int) (s IssuerSettings, err error) {
	return s, c.do(ctx, http.MethodGet, settingsPath(issuer)+"/versions/"+strconv.Itoa(version), nil, nil, &s)
}

// IssuerSettingsHistory returns the versions of an issuer's settings, newest first.
func (c *Client) IssuerSettingsHistory(ctx context.Context, issuer string) ([]ProfileVersion, error) {
	var out struct {
		Versions []ProfileVersion `json:"versions"`
	}
	return out.Versions, c.do(ctx, http.MethodGet, settingsPath(issuer)+"/history", nil, nil, &out)
}

// SettingsCheck is what settings would change.
type SettingsCheck struct {
	Issuer   string          `json:"issuer"`
	Version  int             `json:"version"` // in force; 0 when there is none
	Changes  []ProfileChange `json:"changes"`
	Warnings []string        `json:"warnings,omitempty"` // what follows from the changes
}

// CheckIssuerSettings has settings checked and compared with those in force; nothing changes. The Field of an *Error names
// the field at fault.
func (c *Client) CheckIssuerSettings(ctx context.Context, issuer string, config json.RawMessage) (check SettingsCheck, err error) {
	return check, c.do(ctx, http.MethodPost, settingsPath(issuer)+"/check", nil, config, &check)
}

// PutIssuerSettings changes an issuer's settings, if the given version is still the one in force, 0 when there is none;
// otherwise the error's Status is 412. What changes nothing makes no new version.
func (c *Client) PutIssuerSettings(ctx context.Context, issuer string, version int, config json.RawMessage) (s IssuerSettings, err error) {
	header := http.Header{"If-Match": {strconv.Quote(strconv.Itoa(version))}}
	return s, c.doWith(ctx, header, http.MethodPut, settingsPath(issuer), nil, config, &s)
}
