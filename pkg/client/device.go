package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Device is a device of the registry.
type Device struct {
	ID              string            `json:"id"`
	Version         int               `json:"version"`
	Status          string            `json:"status"` // expected, enrolled, blocked or retired
	Group           string            `json:"group,omitempty"`
	Owner           string            `json:"owner,omitempty"`
	Labels          map[string]string `json:"labels"`
	Subject         string            `json:"subject,omitempty"` // the only one that its certificates may have
	SANs            []string          `json:"sans,omitempty"`
	Note            string            `json:"note,omitempty"`
	Reason          string            `json:"reason,omitempty"` // why it is blocked or retired
	CreatedAt       time.Time         `json:"created_at"`
	CreatedBy       string            `json:"created_by"`
	ChangedAt       time.Time         `json:"changed_at"`
	ChangedBy       string            `json:"changed_by"`
	FirstSeenAt     *time.Time        `json:"first_seen_at,omitempty"`
	LastSeenAt      *time.Time        `json:"last_seen_at,omitempty"`
	LastSource      string            `json:"last_source,omitempty"`
	LastPoint       string            `json:"last_point,omitempty"`
	Protocol        map[string]string `json:"protocol,omitempty"`
	Certificate     string            `json:"certificate,omitempty"` // id of the newest one
	Serial          string            `json:"serial,omitempty"`
	NotAfter        *time.Time        `json:"not_after,omitempty"`
	Failures        int               `json:"failures"` // since the newest certificate
	RenewalFailures int               `json:"renewal_failures"`
	FailedAt        *time.Time        `json:"failed_at,omitempty"`
	Failure         string            `json:"failure,omitempty"`
	Returns         int               `json:"returns"`
	Revoking        bool              `json:"revoking,omitempty"` // certificates are still to be revoked; that goes on by itself
}

// DeviceRequest is what people say of a device. The id is needed to register one.
type DeviceRequest struct {
	ID      string            `json:"id,omitempty"`
	Group   string            `json:"group,omitempty"`
	Owner   string            `json:"owner,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Subject string            `json:"subject,omitempty"`
	SANs    []string          `json:"sans,omitempty"`
	Note    string            `json:"note,omitempty"`
}

// DeviceQuery narrows a list of devices. The zero value asks for everything.
type DeviceQuery struct {
	Status                                         []string
	Group, Owner, Text, Point                      string
	Labels                                         []string // as in "site=B"
	NotAfterFrom, NotAfterTo, SeenFrom, SeenBefore time.Time
	Failing                                        bool
	Limit                                          int // 0 means 100
	Cursor                                         string
}

func (q DeviceQuery) values() url.Values {
	v := pageQuery(q.Limit, q.Cursor)
	for i, status := range q.Status {
		if i > 0 {
			status = v.Get("status") + "," + status
		}
		v.Set("status", status)
	}
	set(v, "group", q.Group)
	set(v, "owner", q.Owner)
	set(v, "text", q.Text)
	set(v, "point", q.Point)
	for _, label := range q.Labels {
		v.Add("label", label)
	}
	for name, at := range map[string]time.Time{"not_after_from": q.NotAfterFrom, "not_after_to": q.NotAfterTo, "seen_from": q.SeenFrom, "seen_to": q.SeenBefore} {
		if !at.IsZero() {
			v.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.Failing {
		v.Set("failing", "true")
	}
	return v
}

func devicePath(id string) string { return "/devices/" + url.PathEscape(id) }

// Devices returns a page, in the order of ids, and the cursor of the next one, empty on the last.
func (c *Client) Devices(ctx context.Context, q DeviceQuery) ([]Device, string, error) {
	var out struct {
		Devices []Device `json:"devices"`
		Next    string   `json:"next"`
	}
	err := c.do(ctx, http.MethodGet, "/devices", q.values(), nil, &out)
	return out.Devices, out.Next, err
}

// Device returns a device by its id.
func (c *Client) Device(ctx context.Context, id string) (d Device, err error) {
	return d, c.do(ctx, http.MethodGet, devicePath(id), nil, nil, &d)
}

// CreateDevice registers a device.
func (c *Client) CreateDevice(ctx context.Context, r DeviceRequest) (d Device, err error) {
	return d, c.do(ctx, http.MethodPost, "/devices", nil, r, &d)
}

// ImportDevices registers up to 1000 devices, all or none. With skip, those whose ids exist are left as they are.
func (c *Client) ImportDevices(ctx context.Context, rs []DeviceRequest, skip bool) (created, skipped int, err error) {
	in := struct {
		Devices  []DeviceRequest `json:"devices"`
		Existing string          `json:"existing,omitempty"`
	}{Devices: rs}
	if skip {
		in.Existing = "skip"
	}
	var out struct {
		Created int `json:"created"`
		Skipped int `json:"skipped"`
	}
	err = c.do(ctx, http.MethodPost, "/fleet/import", nil, in, &out)
	return out.Created, out.Skipped, err
}

// PutDevice writes what is said of a device, if the given version is still the newest; otherwise the error's Status is 412.
func (c *Client) PutDevice(ctx context.Context, id string, version int, r DeviceRequest) (d Device, err error) {
	r.ID = ""
	header := http.Header{"If-Match": {strconv.Quote(strconv.Itoa(version))}}
	return d, c.doWith(ctx, header, http.MethodPut, devicePath(id), nil, r, &d)
}

// EndDeviceRequest says why a device is blocked or retired.
type EndDeviceRequest struct {
	Reason           string `json:"reason,omitempty"`            // for people
	RevocationReason string `json:"revocation_reason,omitempty"` // keyCompromise if empty for a block, cessationOfOperation for a retirement
}

// BlockDevice refuses everything that a device asks for, and revokes its certificates.
func (c *Client) BlockDevice(ctx context.Context, id string, r EndDeviceRequest) (d Device, err error) {
	return d, c.do(ctx, http.MethodPost, devicePath(id)+"/block", nil, r, &d)
}

// RetireDevice takes a device out of use, and revokes its certificates.
func (c *Client) RetireDevice(ctx context.Context, id string, r EndDeviceRequest) (d Device, err error) {
	return d, c.do(ctx, http.MethodPost, devicePath(id)+"/retire", nil, r, &d)
}

// UnblockDevice puts a device back into use. Its certificates stay revoked.
func (c *Client) UnblockDevice(ctx context.Context, id string) (d Device, err error) {
	return d, c.do(ctx, http.MethodPost, devicePath(id)+"/unblock", nil, nil, &d)
}

// ExportDevices copies every device that matches to w, in the format csv or jsonl. When it fails, w has a part. The
// query's Limit and Cursor are ignored.
func (c *Client) ExportDevices(ctx context.Context, format string, q DeviceQuery, w io.Writer) error {
	q.Limit, q.Cursor = 0, ""
	v := q.values()
	v.Set("format", format)
	body, err := c.open(ctx, "/fleet/export", v)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("the export was broken off: %w", err)
	}
	return nil
}

// Fleet are figures about all devices.
type Fleet struct {
	CountedAt time.Time       `json:"counted_at"`
	Groups    []FleetGroup    `json:"groups"`
	Refusals  []FleetRefusals `json:"refusals"`
}

// FleetGroup are figures about the devices of a group.
type FleetGroup struct {
	Group           string         `json:"group"` // empty: those without one
	Status          map[string]int `json:"status"`
	Ended           int            `json:"ended"`
	In7             int            `json:"ends_in_7_days"`
	In30            int            `json:"ends_in_30_days"`
	In90            int            `json:"ends_in_90_days"`
	Revoked         int            `json:"revoked"`
	Failing         int            `json:"failing"`
	FailingRenewals int            `json:"failing_renewals"`
}

// FleetRefusals are refused requests of one kind on one day.
type FleetRefusals struct {
	Day    string `json:"day"` // in UTC
	Point  string `json:"point"`
	Kind   string `json:"kind"`
	Reason string `json:"reason"`
	Number int64  `json:"number"`
}

// Fleet returns figures, with the refusals of so many days; 0 means 7.
func (c *Client) Fleet(ctx context.Context, days int) (f Fleet, err error) {
	v := url.Values{}
	if days > 0 {
		v.Set("days", strconv.Itoa(days))
	}
	return f, c.do(ctx, http.MethodGet, "/fleet", v, nil, &f)
}
