package store

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

// ErrDeviceRefused says that the device is blocked or retired.
var ErrDeviceRefused = errors.New("the device is blocked or retired")

// Devices keeps the registry of devices.
//
// A device comes into it by CreateDevices, by CreateChallenges with its id, or by RecordIssuance with its id; the last two
// leave a record that exists as it is, save that RecordIssuance notes the certificate as the newest and when and where the
// device has asked for it, makes an expected device enrolled (its next version), and sets what counts refusals to zero.
// RecordIssuance refuses a device that is
// blocked or retired, with a PolicyRefused that wraps ErrDeviceRefused, and so do CreateChallenges and, for a request that
// is to wait, PutEnrollment. They look in their own transaction: once ChangeDevice has returned, nothing is written for
// the device that its new status forbids.
type Devices interface {
	// CreateDevices writes new devices, all or none. Conflict, with the first id that exists.
	CreateDevices(ctx context.Context, ds []pki.Device, record audit.Record) error
	// Device returns one by its id; NotFound if there is none.
	Device(ctx context.Context, id string) (pki.Device, error)
	// DevicesByID returns those of the given ids that exist, by their ids.
	DevicesByID(ctx context.Context, ids []string) (map[string]pki.Device, error)
	// ListDevices returns a page in the order of ids (as octets).
	ListDevices(ctx context.Context, f DeviceFilter, p Page) ([]pki.Device, string, error)
	// CountDevices counts up to limit and then stops: a result of limit means "that many or more".
	CountDevices(ctx context.Context, f DeviceFilter, limit int) (int, error)
	// ChangeDevice writes what people say of a device, in place of what they said before. NotFound; ErrStale when the
	// device's version is not one less than the given one.
	ChangeDevice(ctx context.Context, c DeviceChange) error
	// DevicesToRevoke returns devices whose RevokeUntil is set, in the order of ids, at most limit.
	DevicesToRevoke(ctx context.Context, limit int) ([]pki.Device, error)
	// DeviceRevoked notes that every certificate that was to be revoked up to this time is. It is no change in the sense
	// of the contract, and nothing happens when the device was told to revoke later ones in between.
	DeviceRevoked(ctx context.Context, id string, until time.Time) error
	// NoteContacts writes sightings of devices, and adds to the counts of refusals. Devices that do not exist are left out.
	// A sighting may be noted late: a failure counts for nothing when the device's newest certificate was issued after it. It
	// is no change in the sense of the contract.
	NoteContacts(ctx context.Context, contacts []Contact, refusals []Refusal) error
	// Fleet returns figures about all devices, as of now.
	Fleet(ctx context.Context, now time.Time) (Fleet, error)
	// Refusals returns the counts of the days from (since 1970-01-01, UTC) on, in the order of day, point, kind, reason.
	Refusals(ctx context.Context, from int) ([]Refusal, error)
	// PruneRefusals forgets counts of days before the given one (since 1970-01-01, UTC), at most limit, the oldest first, and
	// tells how many. It is no change in the sense of the contract. Unavailable with ErrNotInUse when the store is out of use.
	PruneRefusals(ctx context.Context, before, limit int) (int, error)
}

// KeepRefusals is for how many days refusals stay counted: a year, and a while to compare it with the one before.
const KeepRefusals = 400

// DeviceChange is what people say of a device.
type DeviceChange struct {
	// Device's ID names it, and Version is one more than the one that was read. Written are Status, Group, Owner, Labels,
	// Subject, SANs, Note, Reason, ChangedAt, ChangedBy, and, unless RevokeUntil is zero, it, RevokeReason and
	// RevokeProfile.
	Device pki.Device
	// EndChallenges revokes the device's challenges that are open.
	EndChallenges bool
	Record        audit.Record
}

// DeviceFilter narrows a list. The zero value matches everything; several fields must all match.
type DeviceFilter struct {
	Status []pki.DeviceStatus // any of
	Group  string
	Owner  string
	Labels map[string]string // all of
	Text   string            // substring of id, group, owner, labels, subject or SANs, letter case ignored
	Point  string            // where it was seen last
	// Of the newest certificate, the first inclusive and the second exclusive; zero: no bound. One that is revoked or on
	// hold does not match.
	NotAfterFrom, NotAfterTo time.Time
	SeenFrom, SeenTo         time.Time // last seen, likewise
	Failing                  bool      // some request was refused since the newest certificate
}

// Contact is a sighting of a device. Of several in one call, the last that is not empty in a field counts.
type Contact struct {
	Device   string
	At       time.Time
	Source   string
	Point    string
	Protocol pki.DeviceProtocol
	Failure  string // why its request was refused; empty if it was not
	Renewal  bool   // the request was a renewal
	Return   bool   // with a certificate that has ended
}

// Refusal counts requests that were refused.
type Refusal struct {
	Day    int    // since 1970-01-01, in UTC
	Point  string // enrollment point
	Kind   string // "enroll", "renew", "poll" or "get"
	Reason string // one of few
	Number int64
}

// Fleet are figures about devices.
type Fleet struct {
	Groups []GroupFigures // in the order of names
}

// GroupFigures are those of one group.
type GroupFigures struct {
	Group  string // empty: those without one
	Status map[pki.DeviceStatus]int
	// Of the enrolled ones: the newest certificate has ended, ends within so many days (each counts those before), is
	// revoked or on hold.
	Ended, In7, In30, In90, Revoked int
	// Enrolled or expected ones with a request that was refused since the newest certificate, and with a renewal among them.
	Failing, FailingRenewals int
}

// StaleDevice returns the refusal of an issuance that was decided by a certificate which is not the device's newest any more.
func StaleDevice(id string) error {
	return fault.Wrap(fault.Conflict, ErrStale, "the device %q has another certificate in between", id)
}

// RefuseDevice returns what is said of a device that may have nothing.
func RefuseDevice(id string) error {
	return fault.Wrap(fault.PolicyRefused, ErrDeviceRefused, "the device %q is blocked or retired", id)
}

// DeviceBusy returns what is said of a device for which SupersedeDevice comes too early.
func DeviceBusy(id string) error {
	return fault.New(fault.Unavailable, "other certificates of the device %q are still to be revoked", id).WithRetryAfter(2 * time.Second)
}

// Device returns the record that the issuance makes of a device that is not in the registry.
func (i *Issuance) Device() pki.Device {
	c := &i.Certificate
	seen := c.IssuedAt
	if i.Enrollment != nil && !i.Enrollment.Enrollment.CreatedAt.IsZero() { // when the device asked; a person may have decided later
		seen = i.Enrollment.Enrollment.CreatedAt
	}
	d := pki.Device{
		ID: c.Device, Version: 1, Status: pki.DeviceEnrolled, CreatedAt: c.IssuedAt, CreatedBy: c.Requester, ChangedAt: c.IssuedAt, ChangedBy: c.Requester,
		FirstSeenAt: seen, LastSeenAt: seen, LastSource: c.Source,
		Certificate: c.Fingerprint, IssuerKeyID: c.IssuerKeyID, Serial: c.Serial, NotAfter: c.NotAfter,
	}
	if i.Enrollment != nil {
		d.LastPoint = i.Enrollment.Enrollment.Point
	}
	if i.SupersedeDevice {
		d.RevokeReason, d.RevokeProfile = pki.Superseded, c.Profile
		d.RevokeUntil = c.IssuedAt.Truncate(time.Microsecond).Add(-time.Microsecond)
	}
	return d
}

// ExpectedDevices returns the records that challenges make of devices that are not in the registry, in the order of ids.
func ExpectedDevices(cs []pki.Challenge) []pki.Device {
	var ds []pki.Device
	for _, c := range cs {
		if c.Device != "" {
			ds = append(ds, pki.Device{
				ID: c.Device, Version: 1, Status: pki.DeviceExpected, CreatedAt: c.CreatedAt, CreatedBy: c.CreatedBy, ChangedAt: c.CreatedAt, ChangedBy: c.CreatedBy,
			})
		}
	}
	byID := func(a, b pki.Device) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortStableFunc(ds, byID)
	return slices.CompactFunc(ds, func(a, b pki.Device) bool { return a.ID == b.ID })
}

// DeviceText is what DeviceFilter.Text is looked for in, in lower case.
func DeviceText(d *pki.Device) string {
	parts := []string{d.ID, d.Group, d.Owner}
	for _, name := range slices.Sorted(maps.Keys(d.Labels)) {
		parts = append(parts, name+"="+d.Labels[name])
	}
	const seam = "\x1f" // keeps a match from running from one part into the next
	return strings.ToLower(strings.Join(append(append(parts, d.Subject), d.SANs...), seam))
}

// Sighting is all that is to be noted of one device: the fields as Contact has them, and counts.
type Sighting struct {
	Contact
	First    time.Time
	FailedAt time.Time

	Failures, RenewalFailures, Returns int
}

// Sightings gathers contacts by device, in the order of ids.
func Sightings(contacts []Contact) []Sighting {
	byID := map[string]*Sighting{}
	for _, c := range contacts {
		s := byID[c.Device]
		if s == nil {
			s = &Sighting{Contact: Contact{Device: c.Device}, First: c.At}
			byID[c.Device] = s
		}
		if c.At.Before(s.First) {
			s.First = c.At
		}
		if c.At.After(s.At) {
			s.At = c.At
		}
		s.Source, s.Point, s.Failure = cmp.Or(c.Source, s.Source), cmp.Or(c.Point, s.Point), cmp.Or(c.Failure, s.Failure)
		s.Protocol = cmp.Or(c.Protocol, s.Protocol)
		if c.Return {
			s.Returns++
		}
		if c.Failure == "" {
			continue
		}
		s.FailedAt = c.At
		s.Failures++
		if c.Renewal {
			s.RenewalFailures++
		}
	}
	all := make([]Sighting, 0, len(byID))
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		all = append(all, *byID[id])
	}
	return all
}

// SumRefusals adds up those that are alike, in the order of day, point, kind, reason.
func SumRefusals(refusals []Refusal) []Refusal {
	sums := map[Refusal]int64{}
	for _, r := range refusals {
		n := r.Number
		r.Number = 0
		sums[r] += n
	}
	all := make([]Refusal, 0, len(sums))
	for r, n := range sums {
		r.Number = n
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Point, b.Point), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Reason, b.Reason))
	})
	return all
}

// FleetFigures gathers figures of groups, in the order of names. Several of one group and status are added up.
type FleetFigures map[string]*GroupFigures

// Add adds n devices of a group and a status.
func (m FleetFigures) Add(group string, status pki.DeviceStatus, n int, f GroupFigures) {
	g := m[group]
	if g == nil {
		g = &GroupFigures{Group: group, Status: map[pki.DeviceStatus]int{}}
		m[group] = g
	}
	g.Status[status] += n
	g.Ended, g.In7, g.In30, g.In90, g.Revoked = g.Ended+f.Ended, g.In7+f.In7, g.In30+f.In30, g.In90+f.In90, g.Revoked+f.Revoked
	g.Failing, g.FailingRenewals = g.Failing+f.Failing, g.FailingRenewals+f.FailingRenewals
}

// Fleet returns the figures.
func (m FleetFigures) Fleet() Fleet {
	var f Fleet
	for _, name := range slices.Sorted(maps.Keys(m)) {
		f.Groups = append(f.Groups, *m[name])
	}
	return f
}
