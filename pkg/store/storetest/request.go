package storetest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// testRequests: one look finds what the single ones find.
func testRequests(t *testing.T, h Harness) {
	e := open(t, h)
	ctx := t.Context()
	named, other := device(), device()
	e.create(named, other)
	free := e.challenge()
	bound := e.challenge(func(c *pki.Challenge) { c.Device = named.ID })
	row := enrollment()
	if err := e.PutEnrollment(ctx, store.EnrollmentChange{Enrollment: row, Record: record("enrollment.pending", base)}); err != nil {
		t.Fatal(err)
	}
	key := [32]byte(randomBytes(32))
	shared := [32]byte(randomBytes(32))
	issue := func(key [32]byte, device string) {
		t.Helper()
		c := certificate(e.issuing, func(c *pki.Certificate) { c.SPKIHash, c.Device = key, device })
		if err := e.RecordIssuance(ctx, store.Issuance{Certificate: c, Record: record("certificate.issue", base)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"", other.ID, other.ID, ""} {
		issue(key, id)
	}
	for _, id := range []string{"dev-é", "dev-Z", "dev-a", "dev-B", ""} {
		issue(shared, id)
	}
	named, other = e.device(named.ID), e.device(other.ID)
	q := store.RequestQuery{Point: row.Point, TransactionID: row.TransactionID, SPKIHash: row.SPKIHash}
	for name, c := range map[string]struct {
		edit func(*store.RequestQuery)
		want store.RequestFacts
	}{
		"a row alone":        {func(*store.RequestQuery) {}, store.RequestFacts{Enrollment: &row}},
		"nothing":            {func(q *store.RequestQuery) { q.TransactionID, q.Challenge, q.Device = "none", "NONE", "none" }, store.RequestFacts{}},
		"no key's devices":   {func(q *store.RequestQuery) { q.Point, q.KeyDevices = "none", true }, store.RequestFacts{KeyDevices: []string{}}},
		"a device":           {func(q *store.RequestQuery) { q.Device = other.ID }, store.RequestFacts{Enrollment: &row, Device: &other}},
		"challenge":          {func(q *store.RequestQuery) { q.Challenge = free.ID }, store.RequestFacts{Enrollment: &row, Challenge: &free}},
		"challenge, device":  {func(q *store.RequestQuery) { q.Challenge, q.Device = free.ID, other.ID }, store.RequestFacts{Enrollment: &row, Challenge: &free, Device: &other}},
		"challenge's device": {func(q *store.RequestQuery) { q.Challenge, q.Device = bound.ID, other.ID }, store.RequestFacts{Enrollment: &row, Challenge: &bound, Device: &named}},
		"of a key":           {func(q *store.RequestQuery) { q.SPKIHash, q.KeyDevices = key, true }, store.RequestFacts{KeyDevices: []string{other.ID}}},
		"of a shared key":    {func(q *store.RequestQuery) { q.SPKIHash, q.KeyDevices = shared, true }, store.RequestFacts{KeyDevices: []string{"dev-B", "dev-Z"}}},
	} {
		own := q
		c.edit(&own)
		got, err := e.Request(ctx, own)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	for key, want := range map[[32]byte][]string{key: {other.ID}, shared: {"dev-B", "dev-Z"}, {}: {}} {
		if got, err := e.KeyDevices(ctx, key); err != nil || got == nil || !slices.Equal(got, want) {
			t.Errorf("KeyDevices: %q, %v; want %q", got, err, want)
		}
	}
}

func (e *env) requestVerbs() []verb {
	return []verb{
		{"Request", func(ctx context.Context) error {
			_, err := e.Request(ctx, store.RequestQuery{Point: "default", TransactionID: "x", Challenge: "x", Device: "x", KeyDevices: true})
			return err
		}},
		{"KeyDevices", func(ctx context.Context) error { _, err := e.KeyDevices(ctx, [32]byte{}); return err }},
	}
}

// testDeviceNewest: who decided by the newest certificate of a device comes too late when there is another one, also when
// both come at once.
func testDeviceNewest(t *testing.T, h Harness) {
	e := open(t, h)
	device := ""
	issue := func(expected pki.Fingerprint) (pki.Certificate, error) {
		c := certificate(e.issuing, func(c *pki.Certificate) { c.Device = device })
		i := issuance(c)
		i.DeviceCertificate = &expected
		return c, e.RecordIssuance(t.Context(), i)
	}
	// The first ones of a device come at once, too.
	var newest pki.Fingerprint
	for round := range 14 {
		if round < 12 {
			device, newest = fmt.Sprintf("d%d", round), pki.Fingerprint{}
		}
		const n = 8
		type result struct {
			certificate pki.Certificate
			err         error
		}
		results := make(chan result, n)
		for i := range n {
			go func() {
				expected := newest
				if i%4 == 3 {
					expected = pki.Fingerprint{1}
				}
				c, err := issue(expected)
				results <- result{c, err}
			}()
		}
		var won []pki.Certificate
		for range n {
			switch r := <-results; {
			case r.err == nil:
				won = append(won, r.certificate)
			default:
				wantFault(t, "RecordIssuance", r.err, fault.Conflict, store.ErrStale)
			}
		}
		if len(won) != 1 {
			t.Fatalf("%d were issued at once, want 1", len(won))
		}
		if newest = won[0].Fingerprint; e.device(device).Certificate != newest {
			t.Fatal("the registry has another one")
		}
	}
	e.issue(e.issuing, func(c *pki.Certificate) { c.Device = device }) // which does not ask
	if _, err := issue(newest); err == nil {
		t.Error("an overtaken one was issued")
	}
	e.verifyChain()
}
