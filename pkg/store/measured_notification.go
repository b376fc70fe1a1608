package store

import (
	"context"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
)

// PutNotifications implements Store.
func (m *measured) PutNotifications(ctx context.Context, ns []pki.Notification) (err error) {
	defer m.done("PutNotifications", time.Now(), &err)
	return m.Store.PutNotifications(ctx, ns)
}

// ClaimNotifications implements Store.
func (m *measured) ClaimNotifications(ctx context.Context, point string, now, until time.Time, limit int) (_ []pki.Notification, err error) {
	defer m.done("ClaimNotifications", time.Now(), &err)
	return m.Store.ClaimNotifications(ctx, point, now, until, limit)
}

// SettleNotifications implements Store.
func (m *measured) SettleNotifications(ctx context.Context, delivered []string, failed []pki.Notification) (err error) {
	defer m.done("SettleNotifications", time.Now(), &err)
	return m.Store.SettleNotifications(ctx, delivered, failed)
}

// DropNotifications implements Store.
func (m *measured) DropNotifications(ctx context.Context, ids []string, record audit.Record) (err error) {
	defer m.done("DropNotifications", time.Now(), &err)
	return m.Store.DropNotifications(ctx, ids, record)
}

// NotificationBacklogs implements Store.
func (m *measured) NotificationBacklogs(ctx context.Context) (_ []NotificationBacklog, err error) {
	defer m.done("NotificationBacklogs", time.Now(), &err)
	return m.Store.NotificationBacklogs(ctx)
}
