package ca

import (
	"context"
	"fmt"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
)

// distribution is the CRL that speaks of a certificate, and where the certificate says it is.
//
// Certificates do not name delta CRLs (freshestCRL, RFC 5280, Section 4.2.1.15): complete CRLs do, and a certificate would
// go on naming them when there are none any more.
type distribution struct {
	scope   string         // of the CRL, unless the address is that of a set of shards
	address pki.CRLAddress // the zero value when the certificate names none
}

// of returns what a certificate with this serial number gets.
func (d distribution) of(s pki.SerialNumber) (scope string, shard int, url string) {
	n := pki.ShardSetSize(d.address.Set)
	if n == 0 {
		return d.scope, 0, d.address.URL
	}
	shard = pki.ShardOf(s, n)
	return pki.ShardScope(d.address.Set, shard), shard, d.address.Of(shard)
}

// distributionOf returns the CRL for new certificates of a profile. A set of shards whose CRLs do not name the address yet
// is returned as pending: a verifier would find a CRL there that does not name where it came from, and refuse it (RFC
// 5280, Section 6.3.3). Until then the complete CRL does, which speaks of every certificate.
func (a *Authority) distributionOf(key *issuer.Key, p *Profile) (d distribution, pending *pki.CRLAddress) {
	set := key.Issuer.Settings.CRL.Set()
	d.scope = pki.ScopeFull
	if p.IsCA() {
		d.scope, set = pki.ScopeCA, pki.ScopeFull // few, and in the complete CRL of their issuer
	}
	if !p.CRLAddress() {
		return d, nil
	}
	d.address = a.address(key, set)
	if set != pki.ScopeFull && d.address.ListedAt.IsZero() {
		wanted := d.address
		d.address, pending = a.address(key, pki.ScopeFull), &wanted
	}
	return d, pending
}

// address returns this replica's address of a set of CRLs, with its times when it has been recorded.
func (a *Authority) address(key *issuer.Key, set string) pki.CRLAddress {
	address := pki.CRLAddressOf(a.cfg.PublicURL, key.KeyID, set)
	if known, ok := key.Address(set, address.URL); ok {
		return known
	}
	address.IssuerKeyID = key.ID
	return address
}

// distribute is distributionOf for a certificate that is going to be issued: its address is in the store when it returns.
func (a *Authority) distribute(ctx context.Context, key *issuer.Key, p *Profile, notAfter, now time.Time) (distribution, error) {
	d, pending := a.distributionOf(key, p)
	if pending != nil {
		if err := a.carry(ctx, key, *pending, notAfter, now); err != nil {
			return d, err
		}
	}
	if d.address.URL == "" {
		return d, nil
	}
	return d, a.carry(ctx, key, d.address, notAfter, now)
}

// addressKey names an address of a key.
type addressKey struct {
	key      int64
	set, url string
}

// carry makes sure that the store knows that certificates with this end carry the address. Most of the time it does.
func (a *Authority) carry(ctx context.Context, key *issuer.Key, address pki.CRLAddress, notAfter, now time.Time) error {
	known := func(until time.Time) bool { return !until.Before(notAfter) }
	id := addressKey{address.IssuerKeyID, address.Set, address.URL}
	recorded := func() bool {
		until, ok := a.carried.Load(id)
		return ok && known(until.(time.Time))
	}
	if !address.RecordedAt.IsZero() && known(address.Until) || recorded() {
		return nil
	}
	a.carrying.Lock() // of many at once, one asks the store
	defer a.carrying.Unlock()
	if recorded() {
		return nil
	}
	address.RecordedAt, address.Until = now, carriedUntil(notAfter)
	if address.Set == pki.ScopeFull {
		// The complete CRL is made as long as the key lives, so nothing is gained by knowing a nearer end.
		address.ListedAt, address.Until = now, carriedUntil(key.Certificate.NotAfter)
	}
	if err := a.cfg.Store.RecordCRLAddress(ctx, address, addressRecord(key, address, now)); err != nil {
		return fmt.Errorf("recording the address of a CRL: %w", err)
	}
	a.carried.Store(id, address.Until)
	return nil
}

func addressRecord(key *issuer.Key, address pki.CRLAddress, now time.Time) audit.Record {
	return audit.Record{
		Time: now, Action: audit.ActionCRLAddress, Actor: pki.System().Name, Role: pki.System().Role.String(), Target: "issuer/" + key.Issuer.Name,
		Detail: map[string]string{"set": address.Set, "url": address.URL, "until": address.Until.Format(time.RFC3339)},
	}
}

// RecordAddresses records this replica's addresses of sharded CRLs, so that the CRLs are made which the certificates are
// going to name. It is called when the process starts, perhaps under another public address than before. What fails here
// is done when the first certificate is issued.
func (a *Authority) RecordAddresses(ctx context.Context) error {
	for _, i := range a.cfg.Issuers.Current().Issuers {
		set := i.Settings.CRL.Set()
		if set == pki.ScopeFull || i.Root {
			continue
		}
		now, err := a.cfg.Clock.Check()
		if err != nil {
			return err
		}
		if address := a.address(i.Current, set); address.RecordedAt.IsZero() {
			if err := a.carry(ctx, i.Current, address, now, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// carriedUntil returns the Until of an address that is in a certificate which ends at the given time: the beginning of the
// month after the next, so that not every certificate that ends a little later asks for a new record.
func carriedUntil(notAfter time.Time) time.Time {
	y, m, _ := notAfter.UTC().Date()
	next := time.Date(y, m+2, 1, 0, 0, 0, 0, time.UTC)
	if last := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC); next.After(last) {
		return last // no certificate ends later (RFC 5280, Section 4.1.2.5)
	}
	return next
}
