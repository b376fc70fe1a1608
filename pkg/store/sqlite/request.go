package sqlite

import (
	"context"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// Request reads what is known of a request. A look is no round trip here: they follow one another.
func (s *Store) Request(ctx context.Context, q store.RequestQuery) (f store.RequestFacts, err error) {
	if f.Enrollment, err = orNone(s.Enrollment(ctx, q.Point, q.TransactionID, q.SPKIHash)); err != nil {
		return f, err
	}
	if q.Challenge != "" {
		if f.Challenge, err = orNone(s.Challenge(ctx, q.Challenge)); err != nil {
			return f, err
		}
		if f.Challenge != nil && f.Challenge.Device != "" {
			q.Device = f.Challenge.Device
		}
	}
	if q.Device != "" {
		if f.Device, err = orNone(s.Device(ctx, q.Device)); err != nil {
			return f, err
		}
	}
	if q.KeyDevices {
		f.KeyDevices, err = s.KeyDevices(ctx, q.SPKIHash)
	}
	return f, err
}

// orNone turns what is not there into nil.
func orNone[T any](v T, err error) (*T, error) {
	switch {
	case fault.Is(err, fault.NotFound):
		return nil, nil //nolint:nilnil // absence is an answer here
	case err != nil:
		return nil, err
	}
	return &v, nil
}

// KeyDevices returns devices with a certificate of a key.
func (s *Store) KeyDevices(ctx context.Context, spkiHash [32]byte) ([]string, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	ids := []string{}
	err := each(ctx, s.read, `
		SELECT DISTINCT device FROM certificate WHERE substr(spki_hash, 1, 8) = ? AND spki_hash = ? AND device <> '' ORDER BY device LIMIT 2`,
		[]any{spkiHash[:8], spkiHash[:]}, func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			ids = append(ids, id)
			return err
		})
	return ids, s.asFault(ctx, err, "reading the devices of a key")
}
