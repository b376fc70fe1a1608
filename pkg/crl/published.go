package crl

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
)

// Published is a list that the store holds. It never changes.
type Published struct {
	KeyID      string // of the issuer key
	Scope      string // pki.ScopeFull and so on; a delta list has that of the complete one with "/delta" behind it
	Number     int64  // cRLNumber (RFC 5280, Section 5.2.3)
	ThisUpdate time.Time
	NextUpdate time.Time
	CreatedAt  time.Time
	Scheduled  bool  // made by the timer
	Change     int64 // the store's change whose state it shows
	Entries    int
	DER, PEM   Content // PEM is encoded while it is read (RFC 7468, Section 6)

	// ETag is a strong entity tag with its quotes, for the DER (RFC 9110, Section 8.8.3). PEMTag is that of the PEM.
	ETag, PEMTag string
	// LastModified grows with every list of the scope, in whole seconds. It lies ahead of the clock while lists are made
	// more often than once in a second: whoever serves the list tells no date then (RFC 9110, Section 8.8.2.1).
	LastModified time.Time

	parts      []pki.CRLPart
	base       bool // delta lists build on it
	derZ, pemZ gzipped
}

// DERGzip returns the DER in gzip's form (RFC 1952), made when it is first asked for; nil when it is so small that this
// saves nothing, or so large that it would cost too much.
func (p *Published) DERGzip() Content { return p.derZ.of(p.DER) }

// PEMGzip is DERGzip for the PEM.
func (p *Published) PEMGzip() Content { return p.pemZ.of(p.PEM) }

func newPublished(keyID string, c pki.CRL) *Published {
	der := ropeOf(c.Parts)
	p := &Published{
		KeyID: keyID, Scope: c.Scope, Number: c.Number, ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate, CreatedAt: c.CreatedAt,
		Scheduled: c.Scheduled, Change: c.Change, Entries: c.Entries, DER: der, PEM: pemOf(der), parts: c.Parts, base: c.Base,
	}
	// The end of a list is its signature, which stands for all of it.
	var signature [64]byte
	n, _ := der.ReadAt(signature[:], max(0, der.Size()-int64(len(signature))))
	sum := sha256.Sum256(append(strconv.AppendInt(nil, c.Number, 10), signature[:n]...))
	tag := hex.EncodeToString(sum[:16])
	p.ETag, p.PEMTag = `"`+tag+`"`, `"`+tag+`-pem"`
	// Several lists can be made within one second, and with thisUpdate as the date a client that asks by date only would
	// keep the first of them; thisUpdate lies back besides, behind the time at which a client has fetched the list before.
	// The number is the time or just ahead of it, never the same twice, and the same in every replica.
	p.LastModified = time.Unix(c.Number, 0).UTC()
	return p
}

// Latest returns the newest complete list of an issuer key, by its key id; false when there is none yet, or no such key.
// It does not touch the store.
func (p *Publisher) Latest(keyID string) (*Published, bool) { return p.List(keyID, pki.ScopeFull) }

// List returns the newest list of a scope of an issuer key, as Latest does.
func (p *Publisher) List(keyID, scope string) (*Published, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.keys[keyID]
	if k == nil {
		return nil, false
	}
	l := k.lists[scope]
	if l == nil || l.latest == nil {
		return nil, false
	}
	return l.latest, true
}

// Has reports whether an issuer key has lists of a scope, made or still to be made.
func (p *Publisher) Has(key *issuer.Key, scope string) bool {
	return p.plan(key).makes(scope)
}

// Bundle is the lists of whole chains in one PEM file, which is how nginx, HAProxy and others want them. It never
// changes.
type Bundle struct {
	PEM        Content
	ETag       string    // strong, with quotes
	NextUpdate time.Time // of the list that ends first
	newest     time.Time // LastModified of the list that has the greatest
	lists      []*Published
	pemZ       gzipped
}

// bundleSettles is by how much the clocks of replicas may differ before two bundles could have one date.
const bundleSettles = 10 * time.Second

// LastModified returns the date of the newest list; zero for as long as another list may come with this date or one
// before it, which would not change the bundle's: dates grow within a scope, and a bundle has several.
func (b *Bundle) LastModified(now time.Time) time.Time {
	if now.Sub(b.newest) < bundleSettles {
		return time.Time{}
	}
	return b.newest
}

// PEMGzip is Published.DERGzip for the PEM.
func (b *Bundle) PEMGzip() Content { return b.pemZ.of(b.PEM) }

// Bundle returns the newest lists of the keys and of all keys above them, up to the roots', each once: the keys' own
// first. It returns false when one of them has no list yet, since verifiers that check whole chains refuse everybody
// when one is missing.
func (p *Publisher) Bundle(keys ...*issuer.Key) (*Bundle, bool) {
	var ids []string
	for _, key := range keys {
		for at := key; at != nil && !slices.Contains(ids, at.KeyID); at = at.Parent {
			ids = append(ids, at.KeyID)
		}
	}
	p.mu.Lock()
	lists := make([]*Published, 0, len(ids))
	for _, id := range ids {
		if k := p.keys[id]; k != nil && k.list(pki.ScopeFull).latest != nil {
			lists = append(lists, k.list(pki.ScopeFull).latest)
		}
	}
	name := strings.Join(ids, " ")
	before := p.bundles[name]
	p.mu.Unlock()
	if len(lists) == 0 || len(lists) < len(ids) {
		return nil, false
	}
	if before != nil && slices.Equal(before.lists, lists) {
		return before, true
	}

	b := &Bundle{lists: lists, NextUpdate: lists[0].NextUpdate}
	tags := sha256.New()
	pieces := make([]Content, 0, len(lists))
	for _, l := range lists {
		pieces = append(pieces, l.PEM)
		tags.Write([]byte(l.ETag))
		if l.LastModified.After(b.newest) {
			b.newest = l.LastModified
		}
		if l.NextUpdate.Before(b.NextUpdate) {
			b.NextUpdate = l.NextUpdate
		}
	}
	b.PEM = newRope(pieces...)
	b.ETag = `"` + hex.EncodeToString(tags.Sum(nil)[:16]) + `"`
	p.mu.Lock()
	p.bundles[name] = b
	p.mu.Unlock()
	return b, true
}

// State is what health checks and the start page show of one list.
type State struct {
	Issuer     string
	KeyID      string
	Scope      string
	Number     int64     // 0 when there is none yet
	Entries    int       // of the list that is served
	Size       int       // of its DER, in octets
	ThisUpdate time.Time // zero when there is none yet
	NextUpdate time.Time
	CreatedAt  time.Time
	Age        time.Duration // since CreatedAt
	Pending    bool          // a change of a status is not in the list yet
	Err        error         // why the last try to make one failed; nil when it did not, or another replica makes them
}

// Expired reports whether there is no list that verifiers accept.
func (s State) Expired(now time.Time) bool { return !now.Before(s.NextUpdate) }

// State returns the state of every list, in the order of the issuers' snapshot; of each key the complete list first.
func (p *Publisher) State() []State {
	now := p.cfg.Clock.Now()
	var states []State
	for _, key := range p.cfg.Issuers.Current().Keys() {
		pl := p.plan(key)
		p.mu.Lock()
		k := p.key(key.KeyID)
		for _, planned := range pl.scopes {
			l := k.list(planned.scope)
			s := State{Issuer: key.Issuer.Name, KeyID: key.KeyID, Scope: planned.scope, Pending: k.marks > k.shown || k.behind(l), Err: k.err}
			for _, l := range []*list{l, k.lists[planned.scope+deltaSuffix]} {
				if l == nil || l.latest == nil && l != k.lists[planned.scope] {
					continue
				}
				if at := l.latest; at != nil {
					s.Scope, s.Number, s.Entries, s.Size = at.Scope, at.Number, at.Entries, int(at.DER.Size())
					s.ThisUpdate, s.NextUpdate, s.CreatedAt = at.ThisUpdate, at.NextUpdate, at.CreatedAt
					s.Age = now.Sub(at.CreatedAt)
				}
				states = append(states, s)
			}
		}
		p.mu.Unlock()
	}
	return states
}

// Metrics are figures since the process started.
type Metrics struct {
	Built  int64 // lists made, recorded and published
	Failed int64 // tries that failed
	Stale  int64 // lists thrown away because another replica was faster
	Leader bool  // this replica holds the lease
	// Maker is the Holder of the replica that makes the lists, as this one has last heard; empty when it has not.
	Maker string
}

// Metrics returns the publisher's figures.
func (p *Publisher) Metrics() Metrics {
	p.mu.Lock()
	maker := p.maker
	p.mu.Unlock()
	return Metrics{Built: p.built.Load(), Failed: p.failed.Load(), Stale: p.stale.Load(), Leader: p.holds(), Maker: maker}
}
