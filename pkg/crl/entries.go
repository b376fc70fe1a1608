package crl

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// entries are the revoked and held certificates of one issuer key, encoded as lists have them, and kept between lists:
// after one revocation among a million, some fifty kilobytes are encoded anew. They are divided by the narrowest scope
// that speaks of them (pki.Certificate.CRLScope); the full list has them all. They are not safe for concurrent use.
type entries struct {
	change int64 // the state they show
	shares map[string]*share
	// spread is the share of pki.ScopeUnknown, divided among the shards of each set by its size; nil: not yet.
	spread map[int][]*share
}

// share is the entries of one scope, in the order of serial numbers, in leaves of about a thousand. Where a leaf begins is
// a matter of the serial number alone: the same entries make the same leaves in every replica, whatever came first, so
// that they are written, kept and sent once.
type share struct {
	leaves []*leaf
	count  int
	// early have not got their true revocationDate yet, since it lies after the thisUpdate of the list that they were
	// encoded for.
	early []redate
	// released are the certificates that were released since the oldest base in use, by the change that did it.
	released map[pki.SerialNumber]int64
}

// redate says that an entry can have its true date once lists are of that time.
type redate struct {
	serial pki.SerialNumber
	at     int64 // Unix seconds
}

// leaf is a run of entries. It never changes: its data is part of lists that are served.
type leaf struct {
	part    pki.CRLPart // the entries in DER
	first   pki.SerialNumber
	ends    []uint32 // notAfter of each entry; see end
	before  []uint32 // how much older than newest the change of each entry is; see change
	soonest uint32   // of ends
	newest  int64    // change of any entry
}

// change returns the change of an entry; a later one when it is older than 32 bits can say, which keeps the entry longer.
func (l *leaf) change(i int) int64 { return l.newest - int64(l.before[i]) }

// never stands for every end that 32 bits of Unix seconds cannot hold, in 2106 and later: such an entry stays. It is one
// second more than any end that is kept.
const never = math.MaxUint32

func end(notAfter time.Time) uint32 {
	s := notAfter.Unix()
	switch {
	case s < 0:
		return 0
	case s >= never:
		return never
	}
	return uint32(s)
}

// opens tells whether a leaf begins with this serial number: one in a thousand.
func opens(serial []byte) bool { return crc32.ChecksumIEEE(serial)&1023 == 0 }

// compareSerials orders serial numbers as the store does: by octets.
func compareSerials(a, b pki.SerialNumber) int { return cmp.Compare(a, b) }

// edit is what becomes of one certificate's entry.
type edit struct {
	serial     pki.SerialNumber
	revocation *pki.Revocation // nil: the entry goes
	notAfter   time.Time
	change     int64
	redate     bool // the entry that is there gets its true date; nothing else of it changes
	at         int64
}

// leafMaker puts entries that come in order into leaves.
type leafMaker struct {
	share *share
	// known returns the octets of a hash that are in memory already; nil when there are none.
	known func([32]byte) []byte
	open  bool // the newest leaf is still being filled, below

	data    []byte
	first   pki.SerialNumber
	ends    []uint32
	changes []int64
}

// add adds an encoded entry, whose serial number is higher than all before.
func (m *leafMaker) add(encoded, serial []byte, end uint32, change int64) {
	if opens(serial) {
		m.close()
	}
	if !m.open {
		m.open = true
		m.data, m.ends, m.changes = m.data[:0], m.ends[:0], m.changes[:0]
		// Entries follow the last leaf without a beginning of their own when the entry that had one is gone.
		if n := len(m.share.leaves); n > 0 && !opens(serial) {
			last := m.share.leaves[n-1]
			m.share.leaves = m.share.leaves[:n-1]
			m.share.count -= len(last.ends)
			m.first = last.first
			m.data, m.ends = append(m.data, last.part.Data...), append(m.ends, last.ends...)
			for i := range last.ends {
				m.changes = append(m.changes, last.change(i))
			}
		} else {
			m.first = pki.SerialNumber(serial)
		}
	}
	m.data, m.ends, m.changes = append(m.data, encoded...), append(m.ends, end), append(m.changes, change)
}

// keep adds a whole leaf of before. It begins with an entry that opens one, unless it is the first.
func (m *leafMaker) keep(l *leaf) {
	m.close()
	m.share.leaves = append(m.share.leaves, l)
	m.share.count += len(l.ends)
}

// close ends the leaf that is being filled.
func (m *leafMaker) close() {
	if !m.open {
		return
	}
	m.open = false
	l := &leaf{part: pki.NewCRLPart(m.data), first: m.first, ends: slices.Clone(m.ends), before: make([]uint32, len(m.changes)), soonest: slices.Min(m.ends), newest: slices.Max(m.changes)}
	if there := m.known(l.part.Hash); there != nil {
		l.part.Data = there
	} else {
		l.part.Data = append(make([]byte, 0, len(m.data)), m.data...)
	}
	for i, change := range m.changes {
		l.before[i] = uint32(min(l.newest-change, math.MaxUint32))
	}
	m.share.leaves = append(m.share.leaves, l)
	m.share.count += len(l.ends)
}

// each calls do for every entry of a leaf: the whole entry, and the content octets of its serial number.
func (l *leaf) each(do func(i int, entry, serial []byte)) {
	for i, rest := 0, l.part.Data; len(rest) > 0; i++ {
		n := 2 + int(rest[1]) // an entry has 88 octets at most; see der.AppendCRLEntry
		do(i, rest[:n:n], rest[4:4+int(rest[3])])
		rest = rest[n:]
	}
}

// encode encodes an entry for a list of thisUpdate.
//
// A list cannot know of what was after its thisUpdate, and checkers say so of a revocationDate that is later. Since
// thisUpdate is backdated, such an entry has the date of the list until a later one can have the true date; thereby a
// certificate is never said to be revoked later than it was. early tells that it is so.
func encode(dst []byte, serial pki.SerialNumber, r *pki.Revocation, thisUpdate time.Time) (_ []byte, early bool, err error) {
	date := r.RevokedAt.Truncate(time.Second)
	if early = date.After(thisUpdate); early {
		date = thisUpdate
	}
	dst, err = der.AppendCRLEntry(dst, &der.CRLEntry{
		SerialNumber:   serial.Bytes(),
		RevocationDate: date,
		Reason:         int(reason(*r)),
		InvalidityDate: r.InvalidityDate.Truncate(time.Second),
	})
	if err != nil {
		return nil, false, fmt.Errorf("entry of serial number %s: %w", serial, err)
	}
	return dst, early, nil
}

// reason returns the reasonCode of an entry. der leaves unspecified out (RFC 5280, Section 5.3.1).
func reason(r pki.Revocation) pki.Reason {
	if r.Status == pki.OnHold {
		return pki.CertificateHold
	}
	return r.Reason
}

// load reads entries from the store's stream, which comes in the order of serial numbers. Those that may leave are left
// out.
func load(change int64, rows iterEntries, leave leaving, thisUpdate time.Time, known func([32]byte) []byte) (*entries, error) {
	es := &entries{change: change, shares: map[string]*share{}}
	makers := map[string]*leafMaker{}
	buffer := make([]byte, 0, 128)
	for e, err := range rows {
		if err != nil {
			return nil, fmt.Errorf("reading revocations: %w", err)
		}
		scope := cmp.Or(e.Scope, pki.ScopeFull)
		if leave.of(scope).may(end(e.NotAfter), e.Change) {
			continue
		}
		m := makers[scope]
		if m == nil {
			m = &leafMaker{share: es.share(scope), known: known}
			makers[scope] = m
		}
		encoded, early, err := encode(buffer, e.Serial, &e.Revocation, thisUpdate)
		if err != nil {
			return nil, err
		}
		if early {
			m.share.early = append(m.share.early, redate{e.Serial, e.Revocation.RevokedAt.Unix()})
		}
		m.add(encoded, e.Serial.Bytes(), end(e.NotAfter), e.Change)
	}
	for _, m := range makers {
		m.close()
	}
	return es, nil
}

func (es *entries) share(scope string) *share {
	s := es.shares[scope]
	if s == nil {
		s = &share{released: map[pki.SerialNumber]int64{}}
		es.shares[scope] = s
	}
	return s
}

// apply brings the entries to the state after the events, for lists of thisUpdate, and drops those that may leave. Events
// that they show already are passed over. known is as in leafMaker. When it fails, the entries are of no use any more.
func (es *entries) apply(events []store.StatusEvent, change int64, leave leaving, thisUpdate time.Time, known func([32]byte) []byte) error {
	es.spread = nil
	latest := map[string]map[pki.SerialNumber]store.StatusEvent{}
	for _, e := range events {
		if e.Change <= es.change {
			continue
		}
		scope := cmp.Or(e.Scope, pki.ScopeFull)
		if latest[scope] == nil {
			latest[scope] = map[pki.SerialNumber]store.StatusEvent{}
		}
		s := es.share(scope)
		// A certificate that was released and is held again has an entry, not a removal, in a delta CRL.
		if e.Revocation == nil {
			s.released[e.Serial] = e.Change
		} else {
			delete(s.released, e.Serial)
		}
		latest[scope][e.Serial] = e
	}
	for scope, s := range es.shares {
		changes := make([]edit, 0, len(latest[scope]))
		for _, e := range latest[scope] {
			changes = append(changes, edit{serial: e.Serial, revocation: e.Revocation, notAfter: e.NotAfter, change: e.Change})
		}
		later := s.early[:0]
		for _, r := range s.early {
			_, anew := latest[scope][r.serial]
			switch {
			case anew: // encoded below, with the date that it can have
			case r.at <= thisUpdate.Unix():
				changes = append(changes, edit{serial: r.serial, redate: true, at: r.at})
			default:
				later = append(later, r)
			}
		}
		s.early = later
		if err := s.merge(changes, leave.of(scope), thisUpdate, known); err != nil {
			return err
		}
	}
	es.change = max(es.change, change)
	if len(events) > 0 {
		es.change = max(es.change, events[len(events)-1].Change) // they come in order
	}
	return nil
}

// merge puts the changes, one for each certificate, among the entries. Leaves without any stay as they are.
func (s *share) merge(changes []edit, leave carried, thisUpdate time.Time, known func([32]byte) []byte) error {
	dropping := func(l *leaf) bool { return leave.may(l.soonest, math.MinInt64) }
	if len(changes) == 0 && !slices.ContainsFunc(s.leaves, dropping) {
		return nil
	}
	slices.SortFunc(changes, func(a, b edit) int { return compareSerials(a.serial, b.serial) })
	before := s.leaves
	s.leaves, s.count = make([]*leaf, 0, len(before)+1), 0
	m := &leafMaker{share: s, known: known}
	buffer := make([]byte, 0, 128)
	var err error
	// put adds what a change makes of an entry, which is nil when there is none.
	put := func(c *edit, entry []byte, ends uint32, changed int64) {
		switch {
		case c.redate:
			if entry == nil {
				return
			}
			var dated []byte
			if dated, err = der.RedateCRLEntry(buffer, entry, time.Unix(c.at, 0).UTC()); err == nil {
				m.add(dated, c.serial.Bytes(), ends, changed)
			}
		case c.revocation != nil:
			var encoded []byte
			var early bool
			if encoded, early, err = encode(buffer, c.serial, c.revocation, thisUpdate); err == nil {
				if early {
					s.early = append(s.early, redate{c.serial, c.revocation.RevokedAt.Unix()})
				}
				m.add(encoded, c.serial.Bytes(), end(c.notAfter), c.change)
			}
		}
	}
	for i, l := range before {
		mine := len(changes)
		if i+1 < len(before) {
			mine, _ = slices.BinarySearchFunc(changes, before[i+1].first, func(c edit, first pki.SerialNumber) int { return compareSerials(c.serial, first) })
		}
		here := changes[:mine]
		changes = changes[mine:]
		if len(here) == 0 && !dropping(l) {
			m.keep(l)
			continue
		}
		l.each(func(i int, entry, serial []byte) {
			for len(here) > 0 && string(here[0].serial) < string(serial) && err == nil {
				put(&here[0], nil, 0, 0)
				here = here[1:]
			}
			switch {
			case err != nil:
			case len(here) > 0 && string(here[0].serial) == string(serial):
				put(&here[0], entry, l.ends[i], l.change(i))
				here = here[1:]
			case leave.may(l.ends[i], l.change(i)):
			default:
				m.add(entry, serial, l.ends[i], l.change(i))
			}
		})
		for ; len(here) > 0 && err == nil; here = here[1:] {
			put(&here[0], nil, 0, 0)
		}
	}
	for ; len(changes) > 0 && err == nil; changes = changes[1:] {
		put(&changes[0], nil, 0, 0)
	}
	m.close()
	return err
}

// forget drops the releases up to a change, which no delta CRL needs any more.
func (s *share) forget(upTo int64) {
	for serial, at := range s.released {
		if at <= upTo {
			delete(s.released, serial)
		}
	}
}

// of returns the shares that a list of the scope has, in the order of their names.
func (es *entries) of(scope string) (list []*share) {
	if scope == pki.ScopeFull {
		for _, name := range slices.Sorted(maps.Keys(es.shares)) {
			list = append(list, es.shares[name])
		}
		return list
	}
	if s := es.shares[scope]; s != nil {
		list = append(list, s)
	}
	unknown := es.shares[pki.ScopeUnknown]
	set, shard, sharded := pki.ParseShardScope(scope)
	switch {
	case unknown == nil:
	case sharded:
		list = append(list, es.spreadOver(unknown, pki.ShardSetSize(set))[shard])
	default:
		list = append(list, unknown)
	}
	return list
}

// spreadOver divides entries among the shards of a set.
func (es *entries) spreadOver(from *share, n int) []*share {
	if there := es.spread[n]; there != nil {
		return there
	}
	shares, makers := make([]*share, n), make([]*leafMaker, n)
	for i := range shares {
		shares[i] = &share{released: map[pki.SerialNumber]int64{}}
		makers[i] = &leafMaker{share: shares[i], known: func([32]byte) []byte { return nil }}
	}
	for _, l := range from.leaves {
		l.each(func(i int, entry, serial []byte) {
			makers[pki.ShardOf(pki.SerialNumber(serial), n)].add(entry, serial, l.ends[i], l.change(i))
		})
	}
	for _, m := range makers {
		m.close()
	}
	for serial, at := range from.released {
		shares[pki.ShardOf(serial, n)].released[serial] = at
	}
	if es.spread == nil {
		es.spread = map[int][]*share{}
	}
	es.spread[n] = shares
	return shares
}

// complete returns the parts of the complete list of a scope, their size and how many entries they have.
func (es *entries) complete(scope string) (parts []pki.CRLPart, size int64, count int) {
	for _, s := range es.of(scope) {
		for _, l := range s.leaves {
			parts = append(parts, l.part)
			size += int64(len(l.part.Data))
		}
		count += s.count
	}
	return parts, size, count
}

// delta returns the parts of the delta list of a scope: what has changed after the base, and what was released after it,
// whether it was on hold in the base or has been since (RFC 5280, Section 5.2.4).
func (es *entries) delta(scope string, base int64, thisUpdate time.Time) (parts []pki.CRLPart, size int64, count int, err error) {
	none := func([32]byte) []byte { return nil }
	for _, from := range es.of(scope) {
		changed := &share{}
		m := &leafMaker{share: changed, known: none}
		for _, l := range from.leaves {
			if l.newest <= base {
				continue
			}
			l.each(func(i int, entry, serial []byte) {
				if l.change(i) > base {
					m.add(entry, serial, l.ends[i], l.change(i))
				}
			})
		}
		m.close()
		var gone []pki.SerialNumber
		for serial, at := range from.released {
			if at > base {
				gone = append(gone, serial)
			}
		}
		slices.Sort(gone)
		removed := &share{}
		m = &leafMaker{share: removed, known: none}
		buffer := make([]byte, 0, 128)
		for _, serial := range gone {
			encoded, err := der.AppendCRLEntry(buffer, &der.CRLEntry{SerialNumber: serial.Bytes(), RevocationDate: thisUpdate, Reason: removeFromCRL})
			if err != nil {
				return nil, 0, 0, err
			}
			m.add(encoded, serial.Bytes(), never, 0)
		}
		m.close()
		for _, s := range []*share{changed, removed} {
			for _, l := range s.leaves {
				parts = append(parts, l.part)
				size += int64(len(l.part.Data))
			}
			count += s.count
		}
	}
	return parts, size, count, nil
}

// removeFromCRL is a reasonCode that only entries of delta CRLs have (RFC 5280, Section 5.3.1).
const removeFromCRL = 8

// leaving tells which entries may be left out, by the newest lists that the timer made.
//
// "An entry MUST NOT be removed from the CRL until it appears on one regularly scheduled CRL issued beyond the revoked
// certificate's validity period" (RFC 5280, Section 3.3). The scheduled list was issued beyond it when its thisUpdate
// lies after notAfter, which is inclusive. The entry appeared on it, or on a scheduled one before that, when the list
// shows a state as late as the entry's last change: at that state the certificate was what it is now, and lists leave
// nothing out but by this very rule. A certificate that is revoked after its end, or whose hold becomes a revocation
// then, has a later change and so appears once more.
//
// An entry is on the full list and on that of its scope, and both must have carried it; one of pki.ScopeUnknown may be on
// every list, and all of them must have carried it.
type leaving struct {
	full   carried
	scopes map[string]carried // of those that have a list besides the full one
}

func (l leaving) of(scope string) carried {
	if c, ok := l.scopes[scope]; ok {
		return c
	}
	return l.full
}

// carried is what is known of a scope's newest scheduled list; the zero value lets nothing leave.
type carried struct {
	thisUpdate time.Time
	change     int64
}

// and returns what both lists have carried.
func (c carried) and(other carried) carried {
	if other.thisUpdate.Before(c.thisUpdate) {
		c.thisUpdate = other.thisUpdate
	}
	c.change = min(c.change, other.change)
	return c
}

func (c carried) may(end uint32, change int64) bool {
	return end < never && int64(end) < c.thisUpdate.Unix() && change <= c.change
}
