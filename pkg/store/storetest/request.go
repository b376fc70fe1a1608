package storetest

import (
	"context"
	"reflect"
	"slices"
	"testing"

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
