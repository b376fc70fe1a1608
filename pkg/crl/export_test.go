package crl

import (
	"context"

	"github.com/certwright/certwright/pkg/issuer"
)

// Build makes and records a list, whether or not one is due.
func (p *Publisher) Build(ctx context.Context, key *issuer.Key, scheduled bool) (*Published, error) {
	p.work.Lock()
	defer p.work.Unlock()
	pl := p.plan(key)
	made, err := p.build(ctx, key, pl, func() ([]planned, bool) { return pl.scopes, scheduled }, nil)
	if err != nil {
		return nil, err
	}
	return made[0], nil
}
