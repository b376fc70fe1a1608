package publish

import (
	"bytes"
	"hash/maphash"
	"sync/atomic"

	"github.com/certwright/certwright/pkg/ocsp"
)

// Bounds of what repeats holds, 2 MiB beside the answers.
const (
	maxRepeats = 4 << 10
	maxRepeat  = 512 // octets
)

// repeats remembers whole requests, head and all, to which an answer is kept: a relying server asks with the same octets each
// time. Reading them again costs more than finding them here. The zero value remembers nothing; it is made by newRepeats.
// Safe for concurrent use.
type repeats struct {
	seed  maphash.Seed
	slots [maxRepeats]atomic.Pointer[repeat] // a request is in one of two neighbours
}

// repeat is a request that was answered from memory. It never changes.
type repeat struct {
	request []byte
	head    head // without its target
	kept    *ocsp.Kept
}

func newRepeats() *repeats { return &repeats{seed: maphash.MakeSeed()} }

// find returns the request that b is, and nothing behind it; nil when it is not remembered.
func (m *repeats) find(b []byte) *repeat {
	if len(b) > maxRepeat {
		return nil
	}
	slot := maphash.Bytes(m.seed, b) % maxRepeats
	for _, i := range [...]uint64{slot, slot ^ 1} {
		if r := m.slots[i].Load(); r != nil && bytes.Equal(r.request, b) {
			return r
		}
	}
	return nil
}

// remember keeps a copy of a request and what is kept for it, in place of another if need be.
func (m *repeats) remember(request []byte, h head, kept *ocsp.Kept) {
	if len(request) > maxRepeat {
		return
	}
	h.target, h.repeat = nil, nil
	slot := maphash.Bytes(m.seed, request) % maxRepeats
	if m.slots[slot].Load() != nil && m.slots[slot^1].Load() == nil {
		slot ^= 1
	}
	m.slots[slot].Store(&repeat{bytes.Clone(request), h, kept})
}

// forget makes room of a request whose answer is not kept any more, so that it is not held here for nothing.
func (m *repeats) forget(r *repeat) {
	slot := maphash.Bytes(m.seed, r.request) % maxRepeats
	if !m.slots[slot].CompareAndSwap(r, nil) {
		m.slots[slot^1].CompareAndSwap(r, nil)
	}
}
