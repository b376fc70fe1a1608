package crl

import (
	"context"
	"fmt"
	"iter"
	"math/big"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// iterEntries is what the store streams.
type iterEntries = iter.Seq2[store.RevokedEntry, error]

// maxPending is how many events wait at the most, in a replica that makes no lists, until its entries take them in.
const maxPending = 1000

// muchMemory is a size of entries after whose reading, and first recording, it pays to give memory back.
const muchMemory = 8 << 20

// build makes the lists of the key that choose returns, once all that happened is known, and records them, all or none: under
// a lease, if there is one. It returns store.ErrStale when another replica was faster. The caller holds work.
func (p *Publisher) build(ctx context.Context, key *issuer.Key, pl plan, choose func() (due []planned, scheduled bool), under *store.Lease) ([]*Published, error) {
	now, err := p.cfg.Clock.Check()
	if err != nil {
		return nil, err
	}
	// The numbers come first: whatever another replica publishes from here on takes them, and then RecordCRL refuses.
	numbers, err := p.cfg.Store.CRLNumbers(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.refreshKey(ctx, key, numbers[key.ID]); err != nil {
		return nil, err
	}
	thisUpdate := p.thisUpdate(key, now)
	reading := p.state(key).entries == nil
	if err := p.current(ctx, key, pl, thisUpdate); err != nil {
		return nil, err
	}
	due, scheduled := choose()

	// Unix seconds stay ahead of what was published after a backup that is now restored. Lists that are made together have
	// one number: a complete one and its delta must (RFC 5280, Section 5.2.3), the others may.
	number := now.Unix()
	for _, s := range due {
		number = max(number, numbers[key.ID][s.scope]+1, numbers[key.ID][s.scope+deltaSuffix]+1)
	}
	var lists []pki.CRL
	for _, s := range due {
		made, err := p.lists(key, pl, s, pki.CRL{
			IssuerKeyID: key.ID, Scope: s.scope, Shard: s.shard, Number: number, ThisUpdate: thisUpdate, Scheduled: scheduled, CreatedAt: now,
		})
		if err != nil {
			return nil, err
		}
		lists = append(lists, made...)
	}
	if err := p.cfg.Store.RecordCRL(ctx, under, lists...); err != nil {
		return nil, err
	}
	if _, size, _ := p.state(key).entries.complete(pki.ScopeFull); reading && size > muchMemory {
		debug.FreeOSMemory() // rows by the million, read and written, leave behind more than the entries take
	}
	made := make([]*Published, len(lists))
	for i, c := range lists {
		made[i] = newPublished(key.KeyID, c)
	}
	p.publish(key, made)
	return made, p.list(ctx, key, pl, due, now)
}

// list notes that the lists of a set, which were all made, name its addresses: certificates may carry them from now on.
func (p *Publisher) list(ctx context.Context, key *issuer.Key, pl plan, made []planned, now time.Time) error {
	for _, a := range pl.unlisted {
		if !slices.ContainsFunc(made, func(s planned) bool { return s.anew && strings.HasPrefix(s.scope, a.Set+"/") }) {
			continue
		}
		if err := p.cfg.Store.ListCRLAddress(ctx, key.ID, a.Set, a.URL, now); err != nil {
			return err
		}
		p.mu.Lock()
		p.key(key.KeyID).listed[a.URL] = true
		p.mu.Unlock()
	}
	return nil
}

// thisUpdate returns the thisUpdate of what is made now. For verifiers time does not go back.
func (p *Publisher) thisUpdate(key *issuer.Key, now time.Time) time.Time {
	at := now.Add(-p.cfg.Backdate).Truncate(time.Second)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.key(key.KeyID).lists {
		if l.latest != nil && l.latest.ThisUpdate.After(at) {
			at = l.latest.ThisUpdate
		}
	}
	return at
}

// lists returns the complete list of a scope and, by the plan, its delta list. c has what they have in common.
func (p *Publisher) lists(key *issuer.Key, pl plan, s planned, c pki.CRL) ([]pki.CRL, error) {
	es := p.state(key).entries
	ends := func(life time.Duration) time.Time {
		end := c.CreatedAt.Add(life).Truncate(time.Second)
		if !end.After(c.ThisUpdate) {
			end = c.ThisUpdate.Add(life)
		}
		return end
	}
	c.Change = es.change
	parts, size, count := es.complete(s.scope)
	c.Entries, c.NextUpdate = count, ends(pl.NextUpdate)
	base, changed := p.base(key, s.scope)
	if pl.Delta {
		c.Base = base == 0 || c.Scheduled && c.CreatedAt.Sub(changed.at) >= pl.BaseInterval
	}
	config := der.CRLConfig{Number: big.NewInt(c.Number), ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate, IssuingDistributionPoint: s.idp}
	full := config
	if pl.Delta {
		full.FreshestCRL = s.freshest
	}
	var err error
	if c.Parts, err = sign(key, full, parts, size); err != nil || !pl.Delta {
		return []pki.CRL{c}, err
	}

	// The delta goes on from the base before, when this list is one: verifiers have that.
	d := c
	d.Scope, d.Base, d.NextUpdate = s.scope+deltaSuffix, false, ends(pl.DeltaNextUpdate)
	config.NextUpdate, config.DeltaBase = d.NextUpdate, big.NewInt(base)
	since := changed.change
	if base == 0 {
		config.DeltaBase, since = config.Number, c.Change
	}
	if parts, size, d.Entries, err = es.delta(s.scope, since, c.ThisUpdate); err != nil {
		return nil, err
	}
	d.Parts, err = sign(key, config, parts, size)
	return []pki.CRL{c, d}, err
}

// sign signs a list of entries that are encoded, and returns its parts. It is of version 2, with authorityKeyIdentifier
// and cRLNumber (RFC 5280, Section 5.2).
func sign(key *issuer.Key, c der.CRLConfig, entries []pki.CRLPart, size int64) ([]pki.CRLPart, error) {
	var err error
	if c.SignatureAlgorithm, err = der.SignatureAlgorithmFor(key.Signer.Public()); err != nil {
		return nil, err
	}
	c.Issuer, c.AuthorityKeyID = key.Certificate.RawSubject, key.Certificate.SubjectKeyId
	if len(c.AuthorityKeyID) == 0 { // imported: RFC 5280, Section 5.2.1 wants the extension in any case
		c.AuthorityKeyID = der.SubjectKeyID(key.Certificate.RawSubjectPublicKeyInfo)
	}
	before, after, err := der.SignCRL(&c, der.CRLEntries{Size: size, All: func(yield func([]byte, error) bool) {
		for _, p := range entries {
			if !yield(p.Data, nil) {
				return
			}
		}
	}}, key.Signer)
	if err != nil {
		return nil, fmt.Errorf("signing the CRL: %w", err)
	}
	parts := make([]pki.CRLPart, 0, len(entries)+2)
	parts = append(append(parts, pki.NewCRLPart(before)), entries...)
	return append(parts, pki.NewCRLPart(after)), nil
}

// current brings the key's entries to the state that the store has now, for lists of thisUpdate. The caller holds work.
func (p *Publisher) current(ctx context.Context, key *issuer.Key, pl plan, thisUpdate time.Time) error {
	k := p.state(key)
	p.mu.Lock()
	marks := k.marks
	p.mu.Unlock()
	if k.entries == nil {
		if err := p.loadEntries(ctx, key, pl, thisUpdate); err != nil {
			return err
		}
	}
	// Whoever has read the events that are there after the head has seen every change up to the head.
	head, err := p.cfg.Store.Head(ctx)
	if err != nil {
		return err
	}
	p.turn.Lock()
	err = p.readEvents(ctx)
	seen := p.seenStatus
	p.turn.Unlock()
	if err != nil {
		return err
	}
	p.mu.Lock()
	k.shown = max(k.shown, marks)
	p.mu.Unlock()
	return p.applyPending(key, pl, max(head.Change, seen), thisUpdate)
}

// applyPending has the key's entries take in what Follow has read.
func (p *Publisher) applyPending(key *issuer.Key, pl plan, change int64, thisUpdate time.Time) error {
	p.mu.Lock()
	k := p.key(key.KeyID)
	events, leave := k.pending, p.leaving(k, pl)
	k.pending = nil
	oldest := int64(-1) // the change of the oldest base in use
	for scope, l := range k.lists {
		if pl.Delta && l.base.number > 0 && (oldest < 0 || l.base.change < oldest) && !isDelta(scope) {
			oldest = l.base.change
		}
	}
	p.mu.Unlock()
	if oldest < 0 {
		oldest = change
	}
	if err := k.entries.apply(events, change, leave, thisUpdate, p.known(key)); err != nil {
		p.mu.Lock()
		k.entries, k.following = nil, false // read anew
		p.mu.Unlock()
		return err
	}
	for _, s := range k.entries.shares {
		s.forget(oldest)
	}
	return nil
}

// loadEntries reads the key's entries from the store.
func (p *Publisher) loadEntries(ctx context.Context, key *issuer.Key, pl plan, thisUpdate time.Time) error {
	p.mu.Lock()
	k := p.key(key.KeyID)
	k.following, k.pending = true, nil // what happens from here on waits
	leave := p.leaving(k, pl)
	p.mu.Unlock()
	change, rows, err := p.cfg.Store.Revocations(ctx, key.ID, pki.ScopeFull)
	if err != nil {
		return err
	}
	es, err := load(change, rows, leave, thisUpdate, p.known(key))
	if err != nil {
		return err
	}
	if pl.Delta {
		if err := p.loadReleased(ctx, key, es); err != nil {
			return err
		}
	}
	p.mu.Lock()
	k.entries = es
	p.mu.Unlock()
	return nil
}

// loadReleased reads which certificates were released since the bases that delta lists build on.
func (p *Publisher) loadReleased(ctx context.Context, key *issuer.Key, es *entries) error {
	p.mu.Lock()
	after := es.change
	for scope, l := range p.key(key.KeyID).lists {
		if l.base.number > 0 && !isDelta(scope) {
			after = min(after, l.base.change)
		}
	}
	p.mu.Unlock()
	for after < es.change {
		events, err := p.cfg.Store.StatusEvents(ctx, after, eventPage)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			after = max(after, e.Change)
			if e.IssuerKeyID != key.ID || e.Change > es.change {
				continue
			}
			s := es.share(e.Scope)
			delete(s.released, e.Serial)
			if e.Revocation == nil {
				s.released[e.Serial] = e.Change
			}
		}
	}
	return nil
}

// leaving returns what may leave each share: what the full list has carried, and that of its scope if there is one. The
// caller holds mu.
func (p *Publisher) leaving(k *keyState, pl plan) leaving {
	out := leaving{full: k.list(pki.ScopeFull).scheduled.carried, scopes: map[string]carried{}}
	all := out.full
	for _, s := range pl.scopes[1:] {
		c := k.list(s.scope).scheduled.carried
		out.scopes[s.scope] = c.and(out.full)
		all = all.and(c)
	}
	out.scopes[pki.ScopeUnknown] = all
	return out
}

// known returns a look-up of parts by their hashes: of the lists that are served, and of the key's entries.
func (p *Publisher) known(key *issuer.Key) func([32]byte) []byte {
	p.mu.Lock()
	k := p.key(key.KeyID)
	served := make([]*Published, 0, len(k.lists))
	for _, l := range k.lists {
		if l.latest != nil {
			served = append(served, l.latest)
		}
	}
	p.mu.Unlock()
	var index map[[32]byte][]byte
	return func(h [32]byte) []byte {
		if index == nil {
			index = map[[32]byte][]byte{}
			for _, s := range served {
				for _, part := range s.parts {
					index[part.Hash] = part.Data
				}
			}
		}
		return index[h]
	}
}

// refreshKey takes over from the store what another replica has published, given the numbers of the newest lists.
func (p *Publisher) refreshKey(ctx context.Context, key *issuer.Key, numbers map[string]int64) error {
	for scope, number := range numbers {
		p.mu.Lock()
		l := p.key(key.KeyID).list(scope)
		behind := !p.key(key.KeyID).loaded || l.latest == nil || l.latest.Number < number
		p.mu.Unlock()
		if behind {
			if err := p.loadList(ctx, key, scope); err != nil {
				return err
			}
		}
	}
	pl := p.plan(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.key(key.KeyID)
	for scope, l := range k.lists {
		if _, there := numbers[scope]; !there && l.latest != nil && !pl.makes(scope) { // dropped
			delete(k.lists, scope)
		}
	}
	k.loaded = true
	return nil
}

// dropEnded has the store drop lists that are not made any more and have ended, as those of a set of shards whose last
// certificate has ended: they would be kept, read at each start and served for ever.
func (p *Publisher) dropEnded(ctx context.Context, key *issuer.Key, pl plan, under *store.Lease) error {
	at := p.cfg.Clock.Now().Add(-p.cfg.Backdate) // for verifiers whose clock is slow
	var ended []string
	p.mu.Lock()
	k := p.key(key.KeyID)
	for scope, l := range k.lists {
		if l.latest != nil && !pl.makes(scope) && !l.latest.NextUpdate.After(at) {
			ended = append(ended, scope)
		}
	}
	p.mu.Unlock()
	if len(ended) == 0 {
		return nil
	}
	dropped, err := p.cfg.Store.DropCRLs(ctx, under, key.ID, ended, at)
	if err != nil || len(dropped) == 0 {
		return err
	}
	p.mu.Lock()
	for _, scope := range dropped {
		delete(k.lists, scope)
	}
	p.mu.Unlock()
	p.cfg.Logger.Info("CRLs that have ended and are not made any more were dropped", "issuer", key.Issuer.Name, "key", key.KeyID, "scopes", len(dropped))
	return nil
}

// loadList reads the newest lists of a scope and serves them.
func (p *Publisher) loadList(ctx context.Context, key *issuer.Key, scope string) error {
	c, err := p.cfg.Store.LatestCRL(ctx, key.ID, scope, p.known(key))
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	older := make([]pki.CRL, 0, 2)
	for _, read := range []func(context.Context, int64, string) (pki.CRL, error){p.cfg.Store.LatestScheduledCRL, p.cfg.Store.BaseCRL} {
		switch o, err := read(ctx, key.ID, scope); {
		case err == nil:
			older = append(older, o)
		case !fault.Is(err, fault.NotFound):
			return err
		}
	}
	made := newPublished(key.KeyID, c)
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.key(key.KeyID).list(scope)
	for _, o := range older {
		l.note(o.Number, o.Change, o.CreatedAt, o.ThisUpdate, o.Scheduled, o.Base)
	}
	p.serve(key, l, made, false)
	return nil
}

// base returns the number of the newest list of the scope that delta lists build on, 0 when there is none, and what it
// shows.
func (p *Publisher) base(key *issuer.Key, scope string) (int64, milestone) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.key(key.KeyID).list(scope)
	return l.base.number, l.base
}

func isDelta(scope string) bool {
	return len(scope) > len(deltaSuffix) && scope[len(scope)-len(deltaSuffix):] == deltaSuffix
}

// due returns the lists of the key that must be made now, and whether the timer asks for them.
func (p *Publisher) due(key *issuer.Key, pl plan) (due []planned, scheduled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.key(key.KeyID)
	now := p.cfg.Clock.Now()
	for _, s := range pl.scopes {
		l := k.list(s.scope)
		if l.latest == nil || now.Sub(l.scheduled.at) >= pl.Interval {
			return pl.scopes, true // together, so that entries leave all lists at the same time
		}
		if k.behind(l) || s.anew || pl.Delta && k.list(s.scope+deltaSuffix).latest == nil {
			due = append(due, s)
		}
	}
	return due, false
}

// wait returns how long nothing of the key is due.
func (p *Publisher) wait(key *issuer.Key, pl plan) time.Duration {
	due, _ := p.due(key, pl)
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.key(key.KeyID)
	if len(due) > 0 || k.marks > k.shown {
		return time.Until(k.notFor)
	}
	wait := pl.Interval
	now := p.cfg.Clock.Now()
	for _, s := range pl.scopes {
		wait = min(wait, pl.Interval-now.Sub(k.list(s.scope).scheduled.at))
	}
	return wait
}
