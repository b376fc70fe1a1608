package store

import (
	"context"
	"time"
)

// Request implements Store.
func (m *measured) Request(ctx context.Context, q RequestQuery) (_ RequestFacts, err error) {
	defer m.done("Request", time.Now(), &err)
	return m.Store.Request(ctx, q)
}

// KeyDevices implements Store.
func (m *measured) KeyDevices(ctx context.Context, spkiHash [32]byte) (_ []string, err error) {
	defer m.done("KeyDevices", time.Now(), &err)
	return m.Store.KeyDevices(ctx, spkiHash)
}
