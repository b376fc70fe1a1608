package ocsp

import (
	"crypto"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/pki"
)

const shards = 64

// cache keeps answers to requests for one certificate without a nonce. See the package comment for its generations.
type cache struct {
	seed   maphash.Seed
	shards [shards]shard
}

type shard struct {
	mu         sync.Mutex
	limit      int
	generation uint64           // guarded by mu; counted up by each change of a status in this shard
	entries    map[name]*entry  // guarded by mu
	statuses   map[issued]known // guarded by mu; for answers that are not kept
	flights    map[name]*flight // guarded by mu; answers in the making
}

// name is what tells kept answers apart: the certificate, and the form of the CertID that they repeat.
type name struct {
	issuerKeyID int64
	serial      pki.SerialNumber
	hash        crypto.Hash
	noParams    bool
}

// issued is a certificate.
type issued struct {
	issuerKeyID int64
	serial      pki.SerialNumber
}

// known is what the store has said of a certificate that was issued. Like a kept answer it holds until its generation ends,
// and is asked for anew after a while.
type known struct {
	status         der.CertStatus
	revocationTime time.Time
	reason         int
	from, until    time.Time
}

// entry is a kept answer. It never changes, but for its end.
type entry struct {
	answer  Answer
	refresh time.Time   // from when on it is made anew
	ended   atomic.Bool // it is not kept any more; set before anybody learns why
}

// flight is an answer in the making, for all who ask for it meanwhile.
type flight struct {
	done   chan struct{} // closed when answer is set
	answer Answer
	kept   *entry // what the answer was kept as; the leader's alone
}

// fresh reports whether the entry may be given.
func (e *entry) fresh(now time.Time) bool {
	return !e.ended.Load() && now.Before(e.refresh) && !now.Before(e.answer.ThisUpdate)
}

func newCache(entries int) *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].limit = max(1, entries/shards)
		c.shards[i].entries = map[name]*entry{}
		c.shards[i].flights = map[name]*flight{}
		c.shards[i].statuses = map[issued]known{}
	}
	return c
}

func nameOf(issuerKeyID int64, id *CertID) name {
	return name{issuerKeyID: issuerKeyID, serial: id.SerialNumber, hash: id.Hash, noParams: id.noParams}
}

// shard returns where everything about a certificate stands.
func (c *cache) shard(issuerKeyID int64, s pki.SerialNumber) *shard {
	h := maphash.String(c.seed, string(s)) ^ uint64(issuerKeyID)*0x9e3779b97f4a7c15
	return &c.shards[h%shards]
}

// generations notes the generation of each certificate's shard.
func (c *cache) generations(issuerKeyID int64, ids []CertID, gens []uint64) {
	for i := range ids {
		s := c.shard(issuerKeyID, ids[i].SerialNumber)
		s.mu.Lock()
		gens[i] = s.generation
		s.mu.Unlock()
	}
}

// unchanged tells whether no status has changed since the generations were noted.
func (c *cache) unchanged(issuerKeyID int64, ids []CertID, gens []uint64) bool {
	for i := range ids {
		s := c.shard(issuerKeyID, ids[i].SerialNumber)
		s.mu.Lock()
		same := s.generation == gens[i]
		s.mu.Unlock()
		if !same {
			return false
		}
	}
	return true
}

// forget drops everything about a certificate, in all forms of the CertID.
func (c *cache) forget(issuerKeyID int64, serial pki.SerialNumber) {
	s := c.shard(issuerKeyID, serial)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
	delete(s.statuses, issued{issuerKeyID, serial})
	for _, hash := range [...]crypto.Hash{crypto.SHA1, crypto.SHA256} {
		for _, noParams := range [...]bool{false, true} {
			s.drop(name{issuerKeyID, serial, hash, noParams})
		}
	}
}

func (c *cache) forgetAll() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.generation++
		for n := range s.entries {
			s.drop(n)
		}
		clear(s.statuses)
		s.mu.Unlock()
	}
}

// known returns what the store has said of a certificate, if that still holds.
func (c *cache) known(issuerKeyID int64, serial pki.SerialNumber, now time.Time) (known, bool) {
	s := c.shard(issuerKeyID, serial)
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.statuses[issued{issuerKeyID, serial}]
	return k, ok && now.Before(k.until) && !now.Before(k.from)
}

// learn keeps what the store has said of a certificate, unless its generation has ended.
func (c *cache) learn(issuerKeyID int64, serial pki.SerialNumber, generation uint64, k known) {
	s := c.shard(issuerKeyID, serial)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation != generation {
		return
	}
	if len(s.statuses) >= s.limit {
		for victim := range s.statuses { // any
			delete(s.statuses, victim)
			break
		}
	}
	s.statuses[issued{issuerKeyID, serial}] = k
}

func (c *cache) len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.entries)
		s.mu.Unlock()
	}
	return n
}

// peek returns the entry, nil when there is none that may be given.
func (s *shard) peek(n name, now time.Time) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[n]; e != nil && e.fresh(now) {
		return e
	}
	return nil
}

// get returns the entry, or else the flight to wait for, which the caller must make when it is the leader.
func (s *shard) get(n name, now time.Time) (e *entry, f *flight, leader bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[n]; e != nil {
		if e.fresh(now) {
			return e, nil, false
		}
		s.drop(n)
	}
	if f := s.flights[n]; f != nil {
		return nil, f, false
	}
	f = &flight{done: make(chan struct{}), answer: unsigned[InternalError]}
	s.flights[n] = f
	return nil, f, true
}

// put keeps an entry when no status changed since the generation was noted, and tells whether that is so. In the same
// moment the flight ends: who comes after it does not wait for an answer that was checked before.
func (s *shard) put(n name, f *flight, generation uint64, e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation != generation {
		return false
	}
	f.kept = e
	delete(s.flights, n)
	if e.answer.NextUpdate.IsZero() {
		f.kept = nil // a signed unknown is given once
		return true
	}
	s.drop(n)
	if len(s.entries) >= s.limit {
		s.evict()
	}
	s.entries[n] = e
	return true
}

// drop keeps an entry no longer, if there is one. The caller holds mu.
func (s *shard) drop(n name) {
	if e := s.entries[n]; e != nil {
		e.ended.Store(true)
		delete(s.entries, n)
	}
}

// evict makes room: of a few entries, as the map gives them, the one that is made anew the soonest goes.
func (s *shard) evict() {
	var victim name
	var soonest time.Time
	looked := 0
	for n, e := range s.entries {
		if looked == 0 || e.refresh.Before(soonest) {
			victim, soonest = n, e.refresh
		}
		if looked++; looked == 4 {
			break
		}
	}
	s.drop(victim)
}

// end lets those go on who wait for a flight.
func (s *shard) end(n name, f *flight) {
	s.mu.Lock()
	if s.flights[n] == f {
		delete(s.flights, n)
	}
	s.mu.Unlock()
	close(f.done)
}
