package crl

import (
	"context"

	"github.com/certwright/certwright/pkg/issuer"
)

// Build makes and records a list, whether or not one is due.
func (p *Publisher) Build(ctx context.Context, key *issuer.Key, scheduled bool) (*Published, error) {
	return p.build(ctx, key, scheduled)
}
