package rest

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/store"
)

// Device is a device as the API shows it.
type Device struct {
	ID      string `json:"id" doc:"As certificates and challenges name it"`
	Version int    `json:"version" doc:"Counts what people and changes of status write, from 1"`
	Status  string `json:"status" enum:"expected,enrolled,blocked,retired"`
	Group   string `json:"group,omitempty"`
	Owner   string `json:"owner,omitempty"`
	// Labels are never null.
	Labels          map[string]string   `json:"labels"`
	Subject         string              `json:"subject,omitempty" doc:"The only subject that its certificates may have; absent: what its enrollment point says"`
	SANs            []string            `json:"sans,omitempty" doc:"Likewise, its subject alternative names"`
	Note            string              `json:"note,omitempty" doc:"For people"`
	Reason          string              `json:"reason,omitempty" doc:"Why it is blocked or retired"`
	CreatedAt       time.Time           `json:"created_at"`
	CreatedBy       string              `json:"created_by"`
	ChangedAt       time.Time           `json:"changed_at"`
	ChangedBy       string              `json:"changed_by"`
	FirstSeenAt     *time.Time          `json:"first_seen_at,omitempty"`
	LastSeenAt      *time.Time          `json:"last_seen_at,omitempty"`
	LastSource      string              `json:"last_source,omitempty" doc:"Network address of its last request"`
	LastPoint       string              `json:"last_point,omitempty" doc:"Enrollment point of its last request"`
	Protocol        *pki.DeviceProtocol `json:"protocol,omitempty" doc:"What its client was seen to use last"`
	Certificate     string              `json:"certificate,omitempty" doc:"Id of its newest certificate"`
	Serial          string              `json:"serial,omitempty" doc:"Of its newest certificate"`
	NotAfter        *time.Time          `json:"not_after,omitempty" doc:"When its newest certificate ends"`
	Failures        int                 `json:"failures" doc:"Requests that were refused since the newest certificate"`
	RenewalFailures int                 `json:"renewal_failures" doc:"Those of them that were renewals"`
	FailedAt        *time.Time          `json:"failed_at,omitempty"`
	Failure         string              `json:"failure,omitempty" doc:"Why the last of them was refused"`
	Returns         int                 `json:"returns" doc:"Tries to come back with a certificate that has ended, since the newest one"`
	Revoking        bool                `json:"revoking,omitempty" doc:"Certificates of it are still to be revoked: that goes on by itself"`
	Certificates    string              `json:"certificates_url" doc:"Where its certificates are listed"`
	Challenges      string              `json:"challenges_url" doc:"Where its challenges are listed"`
}

func showDevice(d pki.Device) Device {
	out := Device{
		ID: d.ID, Version: d.Version, Status: d.Status.String(), Group: d.Group, Owner: d.Owner, Labels: d.Labels, Subject: d.Subject, SANs: d.SANs, Note: d.Note, Reason: d.Reason,
		CreatedAt: d.CreatedAt, CreatedBy: d.CreatedBy, ChangedAt: d.ChangedAt, ChangedBy: d.ChangedBy, FirstSeenAt: orAbsent(d.FirstSeenAt), LastSeenAt: orAbsent(d.LastSeenAt),
		LastSource: d.LastSource, LastPoint: d.LastPoint, NotAfter: orAbsent(d.NotAfter), Failures: d.Failures, RenewalFailures: d.RenewalFailures,
		FailedAt: orAbsent(d.FailedAt), Failure: d.Failure, Returns: d.Returns, Revoking: !d.RevokeUntil.IsZero(),
		Certificates: Root + "/certificates?device=" + url.QueryEscape(d.ID), Challenges: Root + "/challenges?device=" + url.QueryEscape(d.ID),
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	if d.Protocol != (pki.DeviceProtocol{}) {
		out.Protocol = &d.Protocol
	}
	if d.Certificate != (pki.Fingerprint{}) {
		out.Certificate, out.Serial = d.Certificate.String(), d.Serial.String()
	}
	return out
}

func orAbsent(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// DeviceIDInput names a device.
type DeviceIDInput struct {
	ID string `path:"id" doc:"The device's id, percent-encoded as a path segment: a slash in it is %2F" maxLength:"600"`
}

// Resolve reads the id from the address as it was sent: the router gives a segment sometimes decoded and sometimes not,
// and "a%252Fb" would become "a/b".
func (in *DeviceIDInput) Resolve(ctx huma.Context) []error {
	r, _ := humachi.Unwrap(ctx)
	_, rest, _ := strings.Cut(r.URL.EscapedPath(), "/devices/")
	segment, _, _ := strings.Cut(rest, "/")
	id, err := url.PathUnescape(segment)
	if err != nil || pki.CheckDeviceID(id) != nil {
		return []error{&huma.ErrorDetail{Location: "path.id", Message: pki.ErrDeviceID.Error()}}
	}
	in.ID = id
	return nil
}

// DeviceQuery says which devices a list or an export has.
type DeviceQuery struct {
	Status       []string  `query:"status" enum:"expected,enrolled,blocked,retired" doc:"Any of these, separated by commas"`
	Group        string    `query:"group" doc:"Of this group" maxLength:"100"`
	Owner        string    `query:"owner" doc:"Of this owner" maxLength:"200"`
	Label        []string  `query:"label,explode" doc:"With this label, as in site=B; may be given several times, and all must match" maxItems:"32"`
	Text         string    `query:"text" doc:"Part of the id, group, owner, labels, subject or a SAN, letter case ignored" maxLength:"256"`
	Point        string    `query:"point" doc:"Seen last at this enrollment point" maxLength:"63"`
	NotAfterFrom time.Time `query:"not_after_from" doc:"Whose newest certificate ends at this time or later, and is not revoked"`
	NotAfterTo   time.Time `query:"not_after_to" doc:"Whose newest certificate ends before this time, and is not revoked"`
	SeenFrom     time.Time `query:"seen_from" doc:"Seen at this time or later"`
	SeenTo       time.Time `query:"seen_to" doc:"Not seen since before this time; one that was never seen does not match"`
	Failing      bool      `query:"failing" doc:"Only those of which a request was refused since the newest certificate"`
}

func (q *DeviceQuery) filter() (store.DeviceFilter, error) {
	f := store.DeviceFilter{
		Group: q.Group, Owner: q.Owner, Text: q.Text, Point: q.Point, NotAfterFrom: q.NotAfterFrom, NotAfterTo: q.NotAfterTo, SeenFrom: q.SeenFrom, SeenTo: q.SeenTo, Failing: q.Failing,
	}
	for _, status := range pki.DeviceStatuses() {
		for _, text := range q.Status {
			if text == status.String() {
				f.Status = append(f.Status, status)
			}
		}
	}
	for _, text := range q.Label {
		name, value, ok := strings.Cut(text, "=")
		if other, twice := f.Labels[name]; !ok || name == "" || twice && other != value {
			return f, fault.New(fault.BadRequest, "labels are written as in site=B, each name once").WithField("label")
		}
		if f.Labels == nil {
			f.Labels = map[string]string{}
		}
		f.Labels[name] = value
	}
	return f, nil
}

type listDevicesInput struct {
	DeviceQuery
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Devices on a page"`
	Cursor string `query:"cursor" doc:"As the page before gave it in next" maxLength:"512"`
	Count  bool   `query:"count" doc:"Also count all that match, up to 10000"`
}

type listDevicesOutput struct {
	Body struct {
		Devices []Device `json:"devices"`
		Next    string   `json:"next,omitempty" doc:"Cursor of the next page; absent on the last"`
		Count   *int     `json:"count,omitempty" doc:"How many match, if asked for; 10000 means that many or more"`
	}
}

func (a *api) listDevices(ctx context.Context, in *listDevicesInput) (*listDevicesOutput, error) {
	if err := wholly(principal(ctx)); err != nil {
		return nil, err
	}
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	done, err := a.searches.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	page, next, err := a.Store.ListDevices(ctx, f, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, err
	}
	out := &listDevicesOutput{}
	out.Body.Devices, out.Body.Next = shown(page, showDevice), next
	if in.Count {
		n, err := a.Store.CountDevices(ctx, f, maxCount)
		if err != nil {
			return nil, err
		}
		out.Body.Count = &n
	}
	return out, nil
}

type deviceOutput struct {
	ETag string `header:"ETag" doc:"The version in quotation marks, for If-Match"`
	Body Device
}

func showOne(d pki.Device) *deviceOutput {
	return &deviceOutput{ETag: etag(d.Version), Body: showDevice(d)}
}

func (a *api) getDevice(ctx context.Context, in *DeviceIDInput) (*deviceOutput, error) {
	if err := wholly(principal(ctx)); err != nil {
		return nil, err
	}
	d, err := a.Store.Device(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return showOne(d), nil
}

// by is who changes a device. A token that is limited to some issuers or profiles may not: a device has certificates of all.
func by(ctx context.Context) (device.By, error) {
	p := principal(ctx)
	return device.By{Principal: p, RequestID: problem.RequestID(ctx)}, wholly(p)
}

// DeviceBody is what people say of a device.
type DeviceBody struct {
	Group   string            `json:"group,omitempty" maxLength:"100"`
	Owner   string            `json:"owner,omitempty" maxLength:"200"`
	Labels  map[string]string `json:"labels,omitempty" doc:"At most 32; names of letters, digits and . _ - /, values of at most 200 octets"`
	Subject string            `json:"subject,omitempty" doc:"The only subject that its certificates may have, as in CN=sensor-17,O=Example; absent: what its enrollment point says" maxLength:"1000"`
	SANs    []string          `json:"sans,omitempty" doc:"Likewise, its names, as in DNS:sensor-17.example.com" maxItems:"100"`
	Note    string            `json:"note,omitempty" doc:"For people" maxLength:"1000"`
}

func (b *DeviceBody) entry(id string) device.Entry {
	return device.Entry{ID: id, Group: b.Group, Owner: b.Owner, Labels: b.Labels, Subject: b.Subject, SANs: b.SANs, Note: b.Note}
}

// NewDevice is a device that is to be registered.
type NewDevice struct {
	ID string `json:"id" doc:"As certificates and challenges name it: 1 to 200 octets" minLength:"1" maxLength:"200"`
	DeviceBody
}

type createDeviceInput struct{ Body NewDevice }

type createdDeviceOutput struct {
	Location string `header:"Location" doc:"Address of the device"`
	ETag     string `header:"ETag" doc:"The version in quotation marks, for If-Match"`
	Body     Device
}

func (a *api) createDevice(ctx context.Context, in *createDeviceInput) (*createdDeviceOutput, error) {
	who, err := by(ctx)
	if err != nil {
		return nil, err
	}
	created, _, err := a.Devices.Create(ctx, who, []device.Entry{in.Body.entry(in.Body.ID)}, false)
	if err != nil {
		return nil, err
	}
	d := created[0]
	return &createdDeviceOutput{Location: Root + "/devices/" + url.PathEscape(d.ID), ETag: etag(d.Version), Body: showDevice(d)}, nil
}

type importDevicesInput struct {
	Body struct {
		Devices  []NewDevice `json:"devices" minItems:"1" maxItems:"1000"`
		Existing string      `json:"existing,omitempty" enum:"refuse,skip" default:"refuse" doc:"What becomes of a device whose id exists: refuse the whole request, or leave it as it is"`
	}
}

type importDevicesOutput struct {
	Body struct {
		Created int `json:"created" doc:"Devices that were registered"`
		Skipped int `json:"skipped" doc:"Devices that were there, and are as they were"`
	}
}

func (a *api) importDevices(ctx context.Context, in *importDevicesInput) (*importDevicesOutput, error) {
	who, err := by(ctx)
	if err != nil {
		return nil, err
	}
	entries := make([]device.Entry, len(in.Body.Devices))
	for i := range in.Body.Devices {
		entries[i] = in.Body.Devices[i].entry(in.Body.Devices[i].ID)
	}
	created, skipped, err := a.Devices.Create(ctx, who, entries, in.Body.Existing == "skip")
	if err != nil {
		return nil, err
	}
	out := &importDevicesOutput{}
	out.Body.Created, out.Body.Skipped = len(created), skipped
	return out, nil
}

// deviceVersion reads If-Match: 0 is whichever version.
func deviceVersion(ifMatch string, required bool) (int, error) {
	switch {
	case ifMatch == "" && required:
		return 0, needsMatch(fault.New(fault.Conflict, "If-Match is missing"))
	case ifMatch == "" || ifMatch == "*":
		return 0, nil
	}
	return matchVersion(ifMatch, "a device", 1)
}

// changedDevice answers a change.
func changedDevice(d pki.Device, err error) (*deviceOutput, error) {
	switch {
	case errors.Is(err, store.ErrStale):
		return nil, &precondition{status: http.StatusPreconditionFailed, error: err}
	case err != nil:
		return nil, err
	}
	return showOne(d), nil
}

type putDeviceInput struct {
	DeviceIDInput
	IfMatch string `header:"If-Match" doc:"ETag of the version that the change was made on; * for whichever. Required." maxLength:"100"`
	Body    DeviceBody
}

func (a *api) putDevice(ctx context.Context, in *putDeviceInput) (*deviceOutput, error) {
	who, err := by(ctx)
	if err != nil {
		return nil, err
	}
	version, err := deviceVersion(in.IfMatch, true)
	if err != nil {
		return nil, err
	}
	return changedDevice(a.Devices.Change(ctx, who, version, in.Body.entry(in.ID)))
}

type endDeviceInput struct {
	DeviceIDInput
	IfMatch string `header:"If-Match" doc:"ETag of the version that is meant; whichever if absent" maxLength:"100"`
	Body    struct {
		Reason           string `json:"reason,omitempty" doc:"For people" maxLength:"200"`
		RevocationReason string `json:"revocation_reason,omitempty" enum:"keyCompromise,affiliationChanged,superseded,cessationOfOperation,privilegeWithdrawn" doc:"With which its certificates are revoked. If absent: keyCompromise, which also blocks its keys, when it is blocked; cessationOfOperation when it is retired"`
	}
}

func (in *endDeviceInput) end() (end device.End, err error) {
	end.Why = in.Body.Reason
	if in.Body.RevocationReason != "" {
		if end.Revoke, err = pki.ParseReason(in.Body.RevocationReason); err != nil {
			return end, err
		}
	}
	end.Version, err = deviceVersion(in.IfMatch, false)
	return end, err
}

func (a *api) blockDevice(ctx context.Context, in *endDeviceInput) (*deviceOutput, error) {
	return endDevice(ctx, in, a.Devices.Block)
}

func (a *api) retireDevice(ctx context.Context, in *endDeviceInput) (*deviceOutput, error) {
	return endDevice(ctx, in, a.Devices.Retire)
}

func endDevice(ctx context.Context, in *endDeviceInput, verb func(context.Context, device.By, string, device.End) (pki.Device, error)) (*deviceOutput, error) {
	who, err := by(ctx)
	if err != nil {
		return nil, err
	}
	end, err := in.end()
	if err != nil {
		return nil, err
	}
	return changedDevice(verb(ctx, who, in.ID, end))
}

type unblockDeviceInput struct {
	DeviceIDInput
	IfMatch string `header:"If-Match" doc:"ETag of the version that is meant; whichever if absent" maxLength:"100"`
}

func (a *api) unblockDevice(ctx context.Context, in *unblockDeviceInput) (*deviceOutput, error) {
	who, err := by(ctx)
	if err != nil {
		return nil, err
	}
	version, err := deviceVersion(in.IfMatch, false)
	if err != nil {
		return nil, err
	}
	return changedDevice(a.Devices.Unblock(ctx, who, in.ID, version))
}

type exportDevicesInput struct {
	Format string `query:"format" enum:"csv,jsonl" default:"csv" doc:"csv: RFC 4180 with a heading; a cell that a spreadsheet could take for a formula has an apostrophe before it. jsonl: a device of the list in each line"`
	DeviceQuery
}

// exportDevices streams what a list would show.
func (a *api) exportDevices(ctx context.Context, in *exportDevicesInput) (*huma.StreamResponse, error) {
	if err := wholly(principal(ctx)); err != nil {
		return nil, err
	}
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	x := export[pki.Device]{
		name: "devices", access: readAll, heading: device.Columns(),
		row:  func(d pki.Device) []string { return deviceRow(showDevice(d)) },
		line: func(d pki.Device) any { return showDevice(d) },
		list: func(ctx context.Context, p store.Page) ([]pki.Device, string, error) {
			return a.Store.ListDevices(ctx, f, p)
		},
	}
	return x.answer(ctx, a, in.Format)
}

func deviceRow(d Device) []string {
	return []string{
		d.ID, d.Group, d.Owner, device.FormatLabels(d.Labels), d.Subject, strings.Join(d.SANs, " "), d.Note, d.Status, d.Reason,
		csvTime(&d.CreatedAt), d.CreatedBy, csvTime(&d.ChangedAt), d.ChangedBy, csvTime(d.FirstSeenAt), csvTime(d.LastSeenAt), d.LastSource, d.LastPoint,
		d.Certificate, d.Serial, csvTime(d.NotAfter), strconv.Itoa(d.Failures), strconv.Itoa(d.RenewalFailures), csvTime(d.FailedAt), d.Failure, strconv.Itoa(d.Returns),
	}
}

// FleetGroup are figures about the devices of a group.
type FleetGroup struct {
	Group           string         `json:"group" doc:"Empty: those without one"`
	Status          map[string]int `json:"status" doc:"How many there are, by status"`
	Ended           int            `json:"ended" doc:"Enrolled ones whose newest certificate has ended"`
	In7             int            `json:"ends_in_7_days" doc:"Enrolled ones whose newest certificate ends within 7 days"`
	In30            int            `json:"ends_in_30_days" doc:"Within 30 days, those above among them"`
	In90            int            `json:"ends_in_90_days" doc:"Within 90 days, those above among them"`
	Revoked         int            `json:"revoked" doc:"Enrolled ones whose newest certificate is revoked or on hold"`
	Failing         int            `json:"failing" doc:"Enrolled or expected ones of which a request was refused since the newest certificate"`
	FailingRenewals int            `json:"failing_renewals" doc:"Those of them of which a renewal was refused"`
}

// FleetRefusals are refused requests of one kind on one day.
type FleetRefusals struct {
	Day    string `json:"day" doc:"In UTC" format:"date"`
	Point  string `json:"point" doc:"Enrollment point"`
	Kind   string `json:"kind" doc:"What was asked for: enroll, renew, poll or get"`
	Reason string `json:"reason"`
	Number int64  `json:"number"`
}

type fleetInput struct {
	Days int `query:"days" minimum:"1" maximum:"366" default:"7" doc:"How many days of refusals, today among them"`
}

type fleetOutput struct {
	Body struct {
		CountedAt time.Time       `json:"counted_at" doc:"The groups' figures are some seconds old at the most"`
		Groups    []FleetGroup    `json:"groups" doc:"In the order of names"`
		Refusals  []FleetRefusals `json:"refusals" doc:"In the order of days"`
	}
}

func (a *api) getFleet(ctx context.Context, in *fleetInput) (*fleetOutput, error) {
	if err := wholly(principal(ctx)); err != nil {
		return nil, err
	}
	done, err := a.searches.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	fleet, at, err := a.Devices.Fleet(ctx)
	if err != nil {
		return nil, err
	}
	refusals, err := a.Devices.Refusals(ctx, in.Days)
	if err != nil {
		return nil, err
	}
	out := &fleetOutput{}
	out.Body.CountedAt, out.Body.Groups, out.Body.Refusals = at.UTC(), make([]FleetGroup, len(fleet.Groups)), make([]FleetRefusals, len(refusals))
	for i, g := range fleet.Groups {
		status := map[string]int{}
		for _, s := range pki.DeviceStatuses() {
			status[s.String()] = g.Status[s]
		}
		out.Body.Groups[i] = FleetGroup{
			Group: g.Group, Status: status, Ended: g.Ended, In7: g.In7, In30: g.In30, In90: g.In90, Revoked: g.Revoked, Failing: g.Failing, FailingRenewals: g.FailingRenewals,
		}
	}
	for i, r := range refusals {
		day := time.Unix(int64(r.Day)*24*60*60, 0).UTC().Format(time.DateOnly)
		out.Body.Refusals[i] = FleetRefusals{Day: day, Point: r.Point, Kind: r.Kind, Reason: r.Reason, Number: r.Number}
	}
	return out, nil
}
