package sqlite

import (
	"context"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// NoteVisible writes when revocations were first seen.
func (s *Store) NoteVisible(ctx context.Context, all []store.Visible) error {
	if len(all) == 0 {
		return nil
	}
	if len(all) > store.MaxVisible {
		return fault.New(fault.BadRequest, "at most %d certificates at once", store.MaxVisible)
	}
	return s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		if t.head.Closed {
			return errNotInUse()
		}
		for _, v := range all {
			err := t.exec(`
				UPDATE revocation SET
					first_crl_at = coalesce(first_crl_at, CASE WHEN ?3 >= revoked_at THEN ?3 END),
					first_ocsp_at = coalesce(first_ocsp_at, CASE WHEN ?4 >= revoked_at THEN ?4 END)
				WHERE issuer_key_id = ?1 AND serial = ?2
				  AND (first_crl_at IS NULL AND ?3 >= revoked_at OR first_ocsp_at IS NULL AND ?4 >= revoked_at)`,
				v.IssuerKeyID, v.Serial.Bytes(), optionalMicros(v.CRLAt), optionalMicros(v.OCSPAt))
			if err != nil {
				return err
			}
		}
		return nil
	}})
}
