package store

import (
	"context"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
)

// CreateDevices implements Store.
func (m *measured) CreateDevices(ctx context.Context, ds []pki.Device, record audit.Record) (err error) {
	defer m.done("CreateDevices", time.Now(), &err)
	return m.Store.CreateDevices(ctx, ds, record)
}

// Device implements Store.
func (m *measured) Device(ctx context.Context, id string) (_ pki.Device, err error) {
	defer m.done("Device", time.Now(), &err)
	return m.Store.Device(ctx, id)
}

// DevicesByID implements Store.
func (m *measured) DevicesByID(ctx context.Context, ids []string) (_ map[string]pki.Device, err error) {
	defer m.done("DevicesByID", time.Now(), &err)
	return m.Store.DevicesByID(ctx, ids)
}

// ListDevices implements Store.
func (m *measured) ListDevices(ctx context.Context, f DeviceFilter, p Page) (_ []pki.Device, _ string, err error) {
	defer m.done("ListDevices", time.Now(), &err)
	return m.Store.ListDevices(ctx, f, p)
}

// CountDevices implements Store.
func (m *measured) CountDevices(ctx context.Context, f DeviceFilter, limit int) (_ int, err error) {
	defer m.done("CountDevices", time.Now(), &err)
	return m.Store.CountDevices(ctx, f, limit)
}

// ChangeDevice implements Store.
func (m *measured) ChangeDevice(ctx context.Context, c DeviceChange) (err error) {
	defer m.done("ChangeDevice", time.Now(), &err)
	return m.Store.ChangeDevice(ctx, c)
}

// DevicesToRevoke implements Store.
func (m *measured) DevicesToRevoke(ctx context.Context, limit int) (_ []pki.Device, err error) {
	defer m.done("DevicesToRevoke", time.Now(), &err)
	return m.Store.DevicesToRevoke(ctx, limit)
}

// DeviceRevoked implements Store.
func (m *measured) DeviceRevoked(ctx context.Context, id string, until time.Time) (err error) {
	defer m.done("DeviceRevoked", time.Now(), &err)
	return m.Store.DeviceRevoked(ctx, id, until)
}

// NoteContacts implements Store.
func (m *measured) NoteContacts(ctx context.Context, contacts []Contact, refusals []Refusal) (err error) {
	defer m.done("NoteContacts", time.Now(), &err)
	return m.Store.NoteContacts(ctx, contacts, refusals)
}

// Fleet implements Store.
func (m *measured) Fleet(ctx context.Context, now time.Time) (_ Fleet, err error) {
	defer m.done("Fleet", time.Now(), &err)
	return m.Store.Fleet(ctx, now)
}

// Refusals implements Store.
func (m *measured) Refusals(ctx context.Context, from int) (_ []Refusal, err error) {
	defer m.done("Refusals", time.Now(), &err)
	return m.Store.Refusals(ctx, from)
}

// PruneRefusals implements Store.
func (m *measured) PruneRefusals(ctx context.Context, before, limit int) (_ int, err error) {
	defer m.done("PruneRefusals", time.Now(), &err)
	return m.Store.PruneRefusals(ctx, before, limit)
}
