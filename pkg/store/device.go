package store

import (
	"context"
	"errors"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
)

// ErrDeviceRefused says that the device is blocked or retired.
var ErrDeviceRefused = errors.New("the device is blocked or retired")

// Devices keeps the registry of devices.
//
// A device comes into it by CreateDevices, by CreateChallenges with its id, or by RecordIssuance with its id; the last two
// leave a record that exists as it is, save that RecordIssuance notes the certificate as the newest, makes an expected
// device enrolled, and sets what counts refusals to zero. RecordIssuance refuses a device that is blocked or retired,
// with a PolicyRefused that wraps ErrDeviceRefused, and so do PutEnrollment and CreateChallenges.
type Devices interface {
	// CreateDevices writes new devices, all or none. Conflict, with the first id that exists.
	CreateDevices(ctx context.Context, ds []pki.Device, record audit.Record) error
	// Device returns one by its id; NotFound if there is none.
	Device(ctx context.Context, id string) (pki.Device, error)
	// ListDevices returns a page in the order of ids (as octets).
	ListDevices(ctx context.Context, f DeviceFilter, p Page) ([]pki.Device, string, error)
	// CountDevices counts up to limit and then stops.
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
	// It is no change in the sense of the contract.
	NoteContacts(ctx context.Context, contacts []Contact, refusals []Refusal) error
	// Fleet returns figures about all devices, as of now.
	Fleet(ctx context.Context, now time.Time) (Fleet, error)
	// Refusals returns the counts of the days from (since 1970-01-01, UTC) on, in the order of day, point, kind, reason.
	Refusals(ctx context.Context, from int) ([]Refusal, error)
}

// DeviceChange is what people say of a device.
type DeviceChange struct {
	// Device's ID names it, and Version is one more than the one that was read. Written are Status, Group, Owner, Labels,
	// Subject, SANs, Note, Reason, ChangedAt, ChangedBy, and RevokeReason and RevokeUntil unless the latter is zero.
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
	// Of the newest certificate, the first inclusive and the second exclusive; zero: no bound. One that is revoked does not
	// match.
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
