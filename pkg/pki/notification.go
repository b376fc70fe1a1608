package pki

import "time"

// Notification is a message that the webhook of an enrollment point is to be told.
type Notification struct {
	ID        string // the event's; the receiver knows a repetition by it
	Point     string
	Body      []byte // JSON; see package enrollment
	CreatedAt time.Time
	NextAt    time.Time // not delivered before
	Attempts  int       // how often it was tried
	Error     string    // why the last attempt failed; empty before
}
