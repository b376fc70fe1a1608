package store

import (
	"context"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
)

// Notifications keeps what webhooks are still to be told. What tells of an issuance or of a decision is written with it: see
// EnrollmentChange. Each is delivered at least once.
//
// All but DropNotifications are no change in the sense of the contract: they are no part of the audit chain and move no
// change number. A store that is out of use takes none: Unavailable with ErrNotInUse.
type Notifications interface {
	// PutNotifications writes notifications of what has changed nothing, all or none. One whose ID exists stays as it is.
	PutNotifications(ctx context.Context, ns []pki.Notification) error
	// ClaimNotifications takes notifications of a point whose NextAt is not after now, the first due first, at most limit:
	// it counts an attempt and sets their NextAt to until, so that no other replica takes them before. Who has claimed them
	// settles them; if he dies they are due again.
	ClaimNotifications(ctx context.Context, point string, now, until time.Time, limit int) ([]pki.Notification, error)
	// SettleNotifications forgets those that were delivered, and writes Error and NextAt of those that were not. One that
	// is not there is passed over.
	SettleNotifications(ctx context.Context, delivered []string, failed []pki.Notification) error
	// DropNotifications forgets those that nobody will be told. One that is not there is passed over.
	DropNotifications(ctx context.Context, ids []string, record audit.Record) error
	// NotificationBacklogs returns what waits at each point, in the order of names. Points at which nothing waits are not
	// among them.
	NotificationBacklogs(ctx context.Context) ([]NotificationBacklog, error)
}

// NotificationBacklog is what waits to be delivered to the webhook of one point.
type NotificationBacklog struct {
	Point    string
	Waiting  int
	Oldest   time.Time // when the oldest was made
	Attempts int       // at the oldest
	Error    string    // of the last attempt at the oldest; empty if there was none, or none has failed
}
