package crl

import (
	"bytes"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

var none = func([32]byte) []byte { return nil }

// simple is the plainest keeper of entries: a map.
type simple map[pki.SerialNumber]store.RevokedEntry

func (s simple) rows(yield func(store.RevokedEntry, error) bool) {
	for _, serial := range slices.Sorted(maps.Keys(s)) {
		if !yield(s[serial], nil) {
			return
		}
	}
}

// TestEntriesFollow compares entries that follow events with those that are read anew: whatever the order of events, they
// are the same octets in the same leaves.
func TestEntriesFollow(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
			rows := simple{}
			es, err := load(0, rows.rows, leaving{}, start, none)
			if err != nil {
				t.Fatal(err)
			}
			serials := make([]pki.SerialNumber, 200+r.IntN(3000))
			for i := range serials {
				b := randomOctets(r, 16)
				b[0] = 0x41
				if seed == 3 { // an import's: counted up
					b = []byte{byte(1 + i>>8), byte(i)}
				}
				serials[i] = pki.SerialNumber(b)
			}
			now, number := start, int64(0)
			for range 25 {
				var events []store.StatusEvent
				for range 1 + r.IntN(len(serials)/4) {
					number++
					e := store.StatusEvent{Change: number, Serial: serials[r.IntN(len(serials))], NotAfter: start.AddDate(1, 0, 0)}
					if r.IntN(3) == 0 {
						if _, ok := rows[e.Serial]; !ok {
							continue
						}
						delete(rows, e.Serial)
					} else {
						e.Revocation = &pki.Revocation{Status: pki.Revoked, Reason: []pki.Reason{0, 1, 4}[r.IntN(3)], RevokedAt: now.Add(-time.Duration(r.IntN(600)) * time.Second)}
						rows[e.Serial] = store.RevokedEntry{Serial: e.Serial, Revocation: *e.Revocation, NotAfter: e.NotAfter, Change: number}
					}
					events = append(events, e)
				}
				if r.IntN(4) > 0 && len(events) > 0 { // some are told twice
					events = append(slices.Clone(events[:1]), events...)
				}
				now = now.Add(time.Duration(r.IntN(10)) * time.Minute)
				if err := es.apply(events, number, leaving{}, now.Add(-5*time.Minute), none); err != nil {
					t.Fatal(err)
				}
			}
			now = now.Add(time.Hour) // every entry can have its true date
			if err := es.apply(nil, number, leaving{}, now, none); err != nil {
				t.Fatal(err)
			}
			want, err := load(number, rows.rows, leaving{}, now, none)
			if err != nil {
				t.Fatal(err)
			}
			got, wanted := es.share(pki.ScopeFull), want.share(pki.ScopeFull)
			if es.change != number || got.count != len(rows) || got.count != wanted.count || len(got.leaves) != len(wanted.leaves) || len(got.early) != 0 {
				t.Fatalf("change %d, %d entries in %d leaves, %d to be dated; want %d, %d in %d leaves", es.change, got.count, len(got.leaves), len(got.early), number, len(rows), len(wanted.leaves))
			}
			for i, l := range got.leaves {
				w := wanted.leaves[i]
				if !bytes.Equal(l.part.Data, w.part.Data) || l.part.Hash != w.part.Hash || l.first != w.first || !slices.Equal(l.ends, w.ends) || !slices.Equal(l.before, w.before) ||
					l.soonest != w.soonest || l.newest != w.newest {
					t.Fatalf("leaf %d differs", i)
				}
			}
		})
	}
}

// TestEntriesLeave: entries go when both the list of their scope and the full one have carried them after their end.
func TestEntriesLeave(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	rows := simple{}
	for i := range 3000 {
		b := big.NewInt(int64(i) + 1<<40).Bytes()
		rows[pki.SerialNumber(b)] = store.RevokedEntry{
			Serial: pki.SerialNumber(b), Change: int64(i), NotAfter: at.Add(time.Duration(i%10) * time.Hour),
			Revocation: pki.Revocation{Status: pki.Revoked, RevokedAt: at.Add(-time.Hour)},
		}
	}
	es, err := load(5000, rows.rows, leaving{}, at, none)
	if err != nil {
		t.Fatal(err)
	}
	leave := leaving{full: carried{at.Add(4 * time.Hour), 1499}}
	if err := es.apply(nil, 5000, leave, at, none); err != nil {
		t.Fatal(err)
	}
	fresh, err := load(5000, rows.rows, leave, at, none)
	if err != nil {
		t.Fatal(err)
	}
	// Ends at 0, 1, 2 and 3 hours lie before thisUpdate; half of the changes are shown.
	if got := es.share(pki.ScopeFull).count; got != 3000-600 || fresh.share(pki.ScopeFull).count != got {
		t.Errorf("%d entries stay, and %d when read anew; want %d", got, fresh.share(pki.ScopeFull).count, 3000-600)
	}
	for what, l := range map[string]leaving{
		"nothing carried":                    {},
		"not carried by the list of its own": {full: carried{at.AddDate(1, 0, 0), 5000}, scopes: map[string]carried{pki.ScopeFull: {}}},
	} {
		es, _ := load(5000, rows.rows, l, at, none)
		if got := es.share(pki.ScopeFull).count; got != 3000 {
			t.Errorf("%s: %d entries stay, want all", what, got)
		}
	}
}

// TestDeltaEntries: a delta has what was changed after the base, and removals of what was released after it.
func TestDeltaEntries(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	serial := func(i byte) pki.SerialNumber { return pki.SerialNumber([]byte{0x41, i}) }
	event := func(change int64, i byte, status pki.Status) store.StatusEvent {
		e := store.StatusEvent{Change: change, Serial: serial(i), NotAfter: at.AddDate(1, 0, 0)}
		if status != pki.Good {
			e.Revocation = &pki.Revocation{Status: status, RevokedAt: at.Add(-time.Hour)}
		}
		return e
	}
	es, _ := load(0, simple{}.rows, leaving{}, at, none)
	for _, e := range []store.StatusEvent{
		event(1, 1, pki.Revoked), event(2, 2, pki.OnHold), event(3, 3, pki.OnHold), event(4, 9, pki.OnHold), event(5, 9, pki.Good), // the base shows 5
		event(6, 2, pki.Good),                          // held in the base, released
		event(7, 4, pki.OnHold), event(8, 4, pki.Good), // held and released since
		event(9, 3, pki.Revoked),                                                   // held in the base, revoked
		event(10, 5, pki.OnHold), event(11, 5, pki.Good), event(12, 5, pki.OnHold), // in the end held
		event(13, 6, pki.Revoked),
	} {
		if err := es.apply([]store.StatusEvent{e}, e.Change, leaving{}, at, none); err != nil {
			t.Fatal(err)
		}
	}
	parts, size, count, err := es.delta(pki.ScopeFull, 5, at)
	if err != nil {
		t.Fatal(err)
	}
	got := map[byte]int{}
	var n int64
	for _, p := range parts {
		n += int64(len(p.Data))
		(&leaf{part: p}).each(func(_ int, entry, serial []byte) {
			got[serial[1]] = int(entry[len(entry)-1])
			if len(entry) == 2+4+15 {
				got[serial[1]] = 0 // no reason
			}
		})
	}
	want := map[byte]int{2: removeFromCRL, 4: removeFromCRL, 3: 0, 5: int(pki.CertificateHold), 6: 0}
	if !maps.Equal(got, want) || count != len(want) || n != size {
		t.Errorf("got %v, %d entries, %d octets of %d; want %v", got, count, n, size, want)
	}
	es.share(pki.ScopeFull).forget(7)
	if _, _, count, _ = es.delta(pki.ScopeFull, 7, at); count != 4 {
		t.Errorf("after a later base: %d entries, want 4", count)
	}
}

// million is what a CA with a million revoked certificates keeps. The state of a thousand is there for comparison.
func million(b *testing.B, n int) *entries {
	r := rand.New(rand.NewPCG(1, 1))
	rows := make([]store.RevokedEntry, n)
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for i := range rows {
		s := randomOctets(r, 16)
		s[0] = 0x41
		rows[i] = store.RevokedEntry{
			Serial: pki.SerialNumber(s), Change: int64(i), NotAfter: at.AddDate(1, 0, 0),
			Revocation: pki.Revocation{Status: pki.Revoked, Reason: pki.KeyCompromise, RevokedAt: at.Add(-time.Hour)},
		}
	}
	slices.SortFunc(rows, func(a, b store.RevokedEntry) int { return compareSerials(a.Serial, b.Serial) })
	es, err := load(int64(n), func(yield func(store.RevokedEntry, error) bool) {
		for _, e := range rows {
			if !yield(e, nil) {
				return
			}
		}
	}, leaving{}, at, none)
	if err != nil {
		b.Fatal(err)
	}
	return es
}

// BenchmarkApplyOne is what one revocation costs among those that are there already, without signing.
func BenchmarkApplyOne(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			es := million(b, n)
			r := rand.New(rand.NewPCG(2, 2))
			at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
			b.ReportAllocs()
			for b.Loop() {
				s := randomOctets(r, 16)
				s[0] = 0x41
				e := store.StatusEvent{Change: es.change + 1, Serial: pki.SerialNumber(s), NotAfter: at.AddDate(1, 0, 0), Revocation: &pki.Revocation{Status: pki.Revoked, RevokedAt: at.Add(-time.Minute)}}
				if err := es.apply([]store.StatusEvent{e}, e.Change, leaving{}, at, none); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// serialsOf returns what stands on the list of a scope, complete or delta.
func serialsOf(t *testing.T, parts []pki.CRLPart, count int) []pki.SerialNumber {
	t.Helper()
	var all []pki.SerialNumber
	for _, p := range parts {
		(&leaf{part: p}).each(func(_ int, _, serial []byte) { all = append(all, pki.SerialNumber(serial)) })
	}
	if len(all) != count {
		t.Errorf("%d entries, and the list says %d", len(all), count)
	}
	slices.Sort(all)
	return all
}

// TestEntriesOfUnknownScope: a certificate of which nobody knows what it names is on every list that it may name, goes from
// all of them when it is released, and stays until all of them have carried it.
func TestEntriesOfUnknownScope(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	rows := simple{}
	for i := range 3000 {
		serial := randomOctets(r, 16)
		serial[0] = 0x41
		e := store.RevokedEntry{Serial: pki.SerialNumber(serial), Change: 1, NotAfter: at, Revocation: pki.Revocation{Status: pki.OnHold, RevokedAt: at}}
		e.Scope = []string{pki.ScopeFull, pki.ScopeCA, pki.ScopeUnknown, pki.ShardScope("s4", pki.ShardOf(e.Serial, 4)), pki.ShardScope("s7", pki.ShardOf(e.Serial, 7))}[i%5]
		rows[e.Serial] = e
	}
	es, err := load(1, rows.rows, leaving{}, at, none)
	if err != nil {
		t.Fatal(err)
	}
	speaks := func(scope string, e store.RevokedEntry) bool {
		set, shard, sharded := pki.ParseShardScope(scope)
		return scope == pki.ScopeFull || e.Scope == scope || e.Scope == pki.ScopeUnknown && (!sharded || pki.ShardOf(e.Serial, pki.ShardSetSize(set)) == shard)
	}
	scopes := []string{pki.ScopeFull, pki.ScopeCA, "s4/0", "s4/3", "s7/0", "s7/6", "s9/2"}
	check := func(what string) {
		t.Helper()
		for _, scope := range scopes {
			var want []pki.SerialNumber
			for serial, e := range rows {
				if speaks(scope, e) {
					want = append(want, serial)
				}
			}
			slices.Sort(want)
			parts, _, count := es.complete(scope)
			if got := serialsOf(t, parts, count); !slices.Equal(got, want) {
				t.Errorf("%s: the list of %s has %d entries, want %d", what, scope, len(got), len(want))
			}
		}
	}
	check("read")

	// Each third is released: off the complete lists, and as removed on the delta lists.
	var events []store.StatusEvent
	gone := map[string][]pki.SerialNumber{}
	for i, serial := range slices.Sorted(maps.Keys(rows)) {
		if i%3 > 0 {
			continue
		}
		e := rows[serial]
		events = append(events, store.StatusEvent{Change: 2, Serial: serial, Scope: e.Scope, NotAfter: e.NotAfter})
		delete(rows, serial)
		for _, scope := range scopes {
			if speaks(scope, e) {
				gone[scope] = append(gone[scope], serial)
			}
		}
	}
	if err := es.apply(events, 2, leaving{}, at, none); err != nil {
		t.Fatal(err)
	}
	check("after releases")
	for _, scope := range scopes {
		parts, _, count, err := es.delta(scope, 1, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := serialsOf(t, parts, count); !slices.Equal(got, gone[scope]) {
			t.Errorf("the delta list of %s has %d entries, want %d", scope, len(got), len(gone[scope]))
		}
	}

	// Ended, and carried by all lists but one.
	late := carried{at.Add(time.Hour), 2}
	leave := leaving{full: late, scopes: map[string]carried{pki.ScopeUnknown: late.and(carried{})}}
	for _, scope := range scopes[1:] {
		leave.scopes[scope] = late
	}
	if err := es.apply(nil, 2, leave, at, none); err != nil {
		t.Fatal(err)
	}
	for serial, e := range rows {
		if e.Scope != pki.ScopeUnknown && (e.Scope == pki.ScopeFull || leave.of(e.Scope) == late) {
			delete(rows, serial)
		}
	}
	check("some have ended")
}
