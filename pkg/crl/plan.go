package crl

import (
	"cmp"
	"slices"
	"strings"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/settings"
)

// deltaSuffix makes the scope of a delta list from that of the complete one.
const deltaSuffix = "/delta"

// plan says which lists an issuer key has, and when they are made.
type plan struct {
	settings.CRL
	scopes []planned // the full one first
	// unlisted are addresses that certificates are to carry once every list of their set names them.
	unlisted []pki.CRLAddress
}

// planned is one complete list.
type planned struct {
	scope string
	shard int
	idp   *der.IssuingDistributionPoint // nil: it covers everything
	// freshest are the addresses of its delta list.
	freshest []string
	// anew has it made although nothing changed: it must name an address that is unlisted.
	anew bool
}

// covers reports whether the scope has a list.
func (pl plan) covers(scope string) bool {
	return slices.ContainsFunc(pl.scopes, func(s planned) bool { return s.scope == scope })
}

// makes reports whether lists of a scope are made, delta lists included.
func (pl plan) makes(scope string) bool {
	complete, delta := strings.CutSuffix(scope, deltaSuffix)
	return (!delta || pl.Delta) && pl.covers(complete)
}

// plan returns the lists of a key by its issuer's settings, and by the addresses in certificates that have not ended: a
// set that new certificates are not spread over any more is made until the last of the old ones has ended, and its entries
// have been carried.
func (p *Publisher) plan(key *issuer.Key) plan {
	pl := plan{CRL: key.Issuer.Settings.Over(settings.InForce{CRL: settings.CRL{
		Interval: p.cfg.Interval, NextUpdate: p.cfg.NextUpdate, Coalesce: p.cfg.Coalesce,
	}}).CRL}
	add := func(s planned) {
		if pl.Delta && p.cfg.PublicURL != "" {
			s.freshest = []string{p.cfg.PublicURL + pki.CRLPath(key.KeyID, s.scope+deltaSuffix)}
		}
		pl.scopes = append(pl.scopes, s)
	}
	add(planned{scope: pki.ScopeFull})

	now := p.cfg.Clock.Now()
	sets := map[string][]pki.CRLAddress{}
	inUse := map[string]bool{}
	for _, a := range key.Addresses {
		if pki.ShardSetSize(a.Set) == 0 {
			continue
		}
		sets[a.Set] = append(sets[a.Set], a)
		if a.Set == pl.Set() || now.Before(a.Until.Add(2*pl.Interval+p.cfg.Backdate)) {
			inUse[a.Set] = true
		}
	}
	if len(inUse) == 0 {
		return pl
	}
	add(planned{scope: pki.ScopeCA, idp: &der.IssuingDistributionPoint{OnlyContainsCACerts: true}})
	names := make([]string, 0, len(inUse))
	for set := range inUse {
		names = append(names, set)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(pki.ShardSetSize(a), pki.ShardSetSize(b)) })
	for _, set := range names {
		anew := false
		for _, a := range sets[set] {
			if a.ListedAt.IsZero() && !p.isListed(key, a) {
				anew, pl.unlisted = true, append(pl.unlisted, a)
			}
		}
		for shard := range pki.ShardSetSize(set) {
			idp := &der.IssuingDistributionPoint{}
			for _, a := range sets[set] {
				idp.URLs = append(idp.URLs, a.Of(shard))
			}
			add(planned{scope: pki.ShardScope(set, shard), shard: shard, idp: idp, anew: anew})
		}
	}
	return pl
}

// isListed tells whether this replica has noted in the store that lists name an address, and the issuers here do not know
// of it yet.
func (p *Publisher) isListed(key *issuer.Key, a pki.CRLAddress) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key(key.KeyID).listed[a.URL]
}
