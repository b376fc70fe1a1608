package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Profile is a profile's record.
type Profile struct {
	Name        string          `json:"name"`
	Version     int             `json:"version"`
	Description string          `json:"description"`
	Builtin     bool            `json:"builtin"`
	CA          bool            `json:"ca"`
	Disabled    bool            `json:"disabled,omitempty"`
	Changed     time.Time       `json:"changed"`
	ChangedBy   string          `json:"changed_by"`
	Config      json.RawMessage `json:"config,omitempty"` // left out of lists
}

// Profiles returns the profiles that the token may use.
func (c *Client) Profiles(ctx context.Context) ([]Profile, error) {
	var out struct {
		Profiles []Profile `json:"profiles"`
	}
	return out.Profiles, c.do(ctx, http.MethodGet, "/profiles", nil, nil, &out)
}

func profilePath(name string) string { return "/profiles/" + url.PathEscape(name) }

// Profile returns a profile with its configuration.
func (c *Client) Profile(ctx context.Context, name string) (p Profile, err error) {
	return p, c.do(ctx, http.MethodGet, profilePath(name), nil, nil, &p)
}

// ProfileVersion returns a version of a profile with its configuration.
func (c *Client) ProfileVersion(ctx context.Context, name string, version int) (p Profile, err error) {
	return p, c.do(ctx, http.MethodGet, profilePath(name)+"/versions/"+strconv.Itoa(version), nil, nil, &p)
}

// ProfileVersion is a version of a profile in its history.
type ProfileVersion struct {
	Version   int       `json:"version"`
	Changed   time.Time `json:"changed"`
	ChangedBy string    `json:"changed_by"`
	Fields    []string  `json:"fields"` // that differ from the version before
}

// ProfileHistory returns the versions of a profile, newest first.
func (c *Client) ProfileHistory(ctx context.Context, name string) ([]ProfileVersion, error) {
	var out struct {
		Versions []ProfileVersion `json:"versions"`
	}
	return out.Versions, c.do(ctx, http.MethodGet, profilePath(name)+"/history", nil, nil, &out)
}

// ProfileCheck is what a configuration would change.
type ProfileCheck struct {
	Name     string          `json:"name"`
	Version  int             `json:"version"` // in force; 0 for a new profile
	Builtin  bool            `json:"builtin"`
	Changes  []ProfileChange `json:"changes"`
	Warnings []string        `json:"warnings,omitempty"`
	Config   json.RawMessage `json:"config"` // with the defaults written out
}

// ProfileChange is a field that differs. Old is nil for a new field, New for one that is gone.
type ProfileChange struct {
	Field string          `json:"field"` // as in validity.max
	Old   json.RawMessage `json:"old,omitempty"`
	New   json.RawMessage `json:"new,omitempty"`
}

// CheckProfile has a configuration checked and compared with the profile in force; nothing changes. The Field of an
// *Error names the configuration's field at fault.
func (c *Client) CheckProfile(ctx context.Context, config json.RawMessage) (check ProfileCheck, err error) {
	return check, c.do(ctx, http.MethodPost, "/profiles/check", nil, config, &check)
}

// CreateProfile makes a new profile. Conflict (409) when there is one of this name.
func (c *Client) CreateProfile(ctx context.Context, config json.RawMessage) (p Profile, err error) {
	return p, c.do(ctx, http.MethodPost, "/profiles", nil, config, &p)
}

// PutProfile changes the profile, if the given version is still the one in force; otherwise the error's Status is 412.
// Version 0 creates it, if there is none. A configuration that changes nothing makes no new version.
func (c *Client) PutProfile(ctx context.Context, name string, version int, config json.RawMessage) (p Profile, err error) {
	header := http.Header{"If-Match": {strconv.Quote(strconv.Itoa(version))}}
	if version == 0 {
		header = http.Header{"If-None-Match": {"*"}}
	}
	return p, c.doWith(ctx, header, http.MethodPut, profilePath(name), nil, config, &p)
}

// DryRunRequest says what certificate to try. CSR is required.
type DryRunRequest struct {
	CSR      string          `json:"csr"` // PEM, or DER in base64
	Issuer   string          `json:"issuer,omitempty"`
	Subject  *string         `json:"subject,omitempty"`
	SANs     []string        `json:"sans,omitempty"`
	Validity string          `json:"validity,omitempty"`
	NotAfter *time.Time      `json:"not_after,omitempty"`
	Device   string          `json:"device,omitempty"`
	Config   json.RawMessage `json:"config,omitempty"` // in place of the profile in force
}

// DryRun is a certificate that was not issued.
type DryRun struct {
	Profile        string      `json:"profile"`
	ProfileVersion int         `json:"profile_version"` // 0 for a configuration that is not in force
	Issuer         string      `json:"issuer"`
	Subject        string      `json:"subject"`
	SANs           []string    `json:"sans"`
	NotBefore      time.Time   `json:"not_before"`
	NotAfter       time.Time   `json:"not_after"`
	KeyAlgorithm   string      `json:"key_algorithm"`
	KeyUsage       []string    `json:"key_usage"`
	ExtKeyUsage    []string    `json:"ext_key_usage"`
	CA             bool        `json:"ca"`
	Extensions     []Extension `json:"extensions"`
	Warnings       []string    `json:"warnings,omitempty"`
	PEM            string      `json:"certificate"` // signed by nobody's key
}

// Extension is an extension of a certificate.
type Extension struct {
	OID      string `json:"oid"`
	Name     string `json:"name,omitempty"`
	Critical bool   `json:"critical"`
	Value    string `json:"value"`
}

// DryRunProfile shows the certificate that a request would get, with the refusals of Issue. Nothing is issued.
func (c *Client) DryRunProfile(ctx context.Context, name string, r DryRunRequest) (d DryRun, err error) {
	return d, c.do(ctx, http.MethodPost, profilePath(name)+"/dry-run", nil, r, &d)
}
