package crl

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"math/big"
	"time"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// iterEntries is what the store streams.
type iterEntries = iter.Seq2[store.RevokedEntry, error]

// chunkSize is how much memory entries are encoded into at a time. One slice for all would be copied as it grows.
const chunkSize = 256 << 10

// build makes the key's complete list and records it. It returns store.ErrStale when another replica was faster.
func (p *Publisher) build(ctx context.Context, key *issuer.Key, scheduled bool) (*Published, error) {
	now, err := p.cfg.Clock.Check()
	if err != nil {
		return nil, err
	}
	// The number comes first: whatever another replica publishes from here on takes it, and then RecordCRL refuses.
	number, err := p.nextNumber(ctx, key)
	if err != nil {
		return nil, err
	}
	previous := p.latest(key)
	if previous == nil || previous.Number+1 != number {
		if previous, err = p.load(ctx, key); err != nil {
			return nil, err
		}
	}
	carried, err := p.cfg.Store.LatestScheduledCRL(ctx, key.ID, pki.ScopeFull)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}

	c := pki.CRL{
		IssuerKeyID: key.ID,
		Scope:       pki.ScopeFull,
		// Unix seconds stay ahead of what was published after a backup that is now restored.
		Number:    max(number, now.Unix()),
		Scheduled: scheduled,
		CreatedAt: now,
	}
	c.ThisUpdate = now.Add(-p.cfg.Backdate).Truncate(time.Second)
	if previous != nil && c.ThisUpdate.Before(previous.ThisUpdate) {
		c.ThisUpdate = previous.ThisUpdate // time does not go back for verifiers
	}
	c.NextUpdate = now.Add(p.cfg.NextUpdate).Truncate(time.Second)
	if !c.NextUpdate.After(c.ThisUpdate) {
		c.NextUpdate = c.ThisUpdate.Add(p.cfg.NextUpdate)
	}

	change, rows, err := p.cfg.Store.Revocations(ctx, key.ID, pki.ScopeFull)
	if err != nil {
		return nil, err
	}
	c.Change = change
	var encoded der.CRLEntries
	if encoded, c.Entries, err = encodeEntries(rows, carried, c.ThisUpdate); err != nil {
		return nil, err
	}
	if c.DER, err = sign(key, c, encoded); err != nil {
		return nil, err
	}
	if err := p.cfg.Store.RecordCRL(ctx, c); err != nil {
		return nil, err
	}
	return newPublished(key.KeyID, c, p.cfg.Backdate), nil
}

// nextNumber returns one more than the number of the newest list in the store, which thereby tells whether a known list
// is still the newest without reading it.
func (p *Publisher) nextNumber(ctx context.Context, key *issuer.Key) (int64, error) {
	return p.cfg.Store.NextCRLNumber(ctx, key.ID, pki.ScopeFull, 0)
}

// mayLeave tells whether an entry may be left out, given the newest list that the timer made.
//
// "An entry MUST NOT be removed from the CRL until it appears on one regularly scheduled CRL issued beyond the revoked
// certificate's validity period" (RFC 5280, Section 3.3). The scheduled list was issued beyond it when its thisUpdate
// lies after notAfter, which is inclusive. The entry appeared on it, or on a scheduled one before that, when the list
// shows a state as late as the entry's last change: at that state the certificate was what it is now, and lists leave
// nothing out but by this very rule. A certificate that is revoked after its end, or whose hold becomes a revocation
// then, has a later change and so appears once more.
func mayLeave(e store.RevokedEntry, scheduled pki.CRL) bool {
	return e.NotAfter.Before(scheduled.ThisUpdate) && e.Change <= scheduled.Change
}

// encodeEntries encodes the entries that the list must have, and counts them.
//
// A list cannot know of what was after its thisUpdate, and checkers say so of a revocationDate that is later. Since
// thisUpdate is backdated, such an entry has the date of the list until a later one can have the true date; thereby a
// certificate is never said to be revoked later than it was.
func encodeEntries(rows iterEntries, scheduled pki.CRL, thisUpdate time.Time) (der.CRLEntries, int, error) {
	var chunks [][]byte
	var chunk []byte
	count := 0
	for e, err := range rows {
		if err != nil {
			return der.CRLEntries{}, 0, fmt.Errorf("reading revocations: %w", err)
		}
		if mayLeave(e, scheduled) {
			continue
		}
		if cap(chunk)-len(chunk) < 128 { // an entry has 88 octets at most
			if chunk != nil {
				chunks = append(chunks, chunk)
			}
			chunk = make([]byte, 0, chunkSize)
		}
		date := e.Revocation.RevokedAt.Truncate(time.Second)
		if date.After(thisUpdate) {
			date = thisUpdate
		}
		chunk, err = der.AppendCRLEntry(chunk, &der.CRLEntry{
			SerialNumber:   e.Serial.Bytes(),
			RevocationDate: date,
			Reason:         int(reason(e.Revocation)),
			InvalidityDate: e.Revocation.InvalidityDate.Truncate(time.Second),
		})
		if err != nil {
			return der.CRLEntries{}, 0, fmt.Errorf("entry of serial number %s: %w", e.Serial, err)
		}
		count++
	}
	if chunk != nil {
		chunks = append(chunks, chunk)
	}
	return der.EncodedEntries(chunks...), count, nil
}

// reason returns the reasonCode of an entry. der leaves unspecified out (RFC 5280, Section 5.3.1).
func reason(r pki.Revocation) pki.Reason {
	if r.Status == pki.OnHold {
		return pki.CertificateHold
	}
	return r.Reason
}

// sign encodes and signs the list. It is of version 2, with authorityKeyIdentifier and cRLNumber (RFC 5280, Section
// 5.2), and without issuingDistributionPoint, since it covers everything.
func sign(key *issuer.Key, c pki.CRL, entries der.CRLEntries) ([]byte, error) {
	algorithm, err := der.SignatureAlgorithmFor(key.Signer.Public())
	if err != nil {
		return nil, err
	}
	keyID := key.Certificate.SubjectKeyId
	if len(keyID) == 0 { // imported: RFC 5280, Section 5.2.1 wants the extension in any case
		keyID = der.SubjectKeyID(key.Certificate.RawSubjectPublicKeyInfo)
	}
	const besidesEntries = 2048
	out := bytes.NewBuffer(make([]byte, 0, int(entries.Size)+len(key.Certificate.RawSubject)+besidesEntries))
	err = der.WriteCRL(out, &der.CRLConfig{
		SignatureAlgorithm: algorithm,
		Issuer:             key.Certificate.RawSubject,
		AuthorityKeyID:     keyID,
		Number:             big.NewInt(c.Number),
		ThisUpdate:         c.ThisUpdate,
		NextUpdate:         c.NextUpdate,
	}, entries, key.Signer)
	if err != nil {
		return nil, fmt.Errorf("signing the CRL: %w", err)
	}
	return out.Bytes(), nil
}
