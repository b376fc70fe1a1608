package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

const selectNewestSettings = `
	SELECT s.issuer_id, s.version, s.config, s.created_at, s.created_by FROM issuer_settings s
	WHERE s.version = (SELECT max(version) FROM issuer_settings WHERE issuer_id = s.issuer_id) ORDER BY s.issuer_id`

func readSettings(ctx context.Context, q querier, query string, args ...any) (vs []pki.SettingsVersion, err error) {
	err = each(ctx, q, query, args, func(scan func(...any) error) error {
		var v pki.SettingsVersion
		var created int64
		err := scan(&v.IssuerID, &v.Version, &v.Config, &created, &v.CreatedBy)
		v.CreatedAt = timeOf(created)
		vs = append(vs, v)
		return err
	})
	return vs, err
}

func readAddresses(ctx context.Context, q querier) (as []pki.CRLAddress, err error) {
	err = each(ctx, q, `
		SELECT issuer_key_id, crl_set, url, recorded_at, until, listed_at
		FROM crl_address ORDER BY issuer_key_id, recorded_at, crl_set, url`, nil, func(scan func(...any) error) error {
		var a pki.CRLAddress
		var recorded, until int64
		var listed sql.NullInt64
		err := scan(&a.IssuerKeyID, &a.Set, &a.URL, &recorded, &until, &listed)
		a.RecordedAt, a.Until, a.ListedAt = timeOf(recorded), timeOf(until), optionalTime(listed)
		as = append(as, a)
		return err
	})
	return as, err
}

// IssuerSettingsHistory returns every version of an issuer's settings.
func (s *Store) IssuerSettingsHistory(ctx context.Context, issuerID int64) ([]pki.SettingsVersion, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	vs, err := readSettings(ctx, s.read, `
		SELECT issuer_id, version, config, created_at, created_by FROM issuer_settings WHERE issuer_id = ? ORDER BY version DESC`, issuerID)
	if err != nil {
		return nil, s.asFault(ctx, err, "reading the settings of an issuer")
	}
	return vs, nil
}

// errUnchanged refuses an operation that would change nothing, so that nothing of it is written.
var errUnchanged = fault.New(fault.Conflict, "there is nothing to change")

// PutIssuerSettings writes a new version of an issuer's settings.
func (s *Store) PutIssuerSettings(ctx context.Context, v pki.SettingsVersion, addresses []pki.CRLAddress, r audit.Record) error {
	return s.write(ctx, &op{whole: true, records: sealed(r), apply: func(t *tx) error {
		var issuers, newest int
		err := t.row(`SELECT count(*) FROM issuer WHERE id = ?`, []any{v.IssuerID}, func(scan func(...any) error) error { return scan(&issuers) })
		if err != nil {
			return err
		}
		if issuers == 0 {
			return fault.New(fault.NotFound, "there is no such issuer")
		}
		err = t.row(`SELECT coalesce(max(version), 0) FROM issuer_settings WHERE issuer_id = ?`, []any{v.IssuerID},
			func(scan func(...any) error) error { return scan(&newest) })
		if err != nil {
			return err
		}
		if v.Version != newest+1 {
			return fault.Wrap(fault.Conflict, store.ErrStale, "the newest version of the issuer's settings is %d", newest)
		}
		err = t.exec(`INSERT INTO issuer_settings (issuer_id, version, config, created_at, created_by) VALUES (?, ?, ?, ?, ?)`,
			v.IssuerID, v.Version, blob(v.Config), micros(v.CreatedAt), v.CreatedBy)
		if err != nil {
			return err
		}
		for _, a := range addresses {
			if _, err := t.putAddress(a); err != nil {
				return err
			}
		}
		t.config = true
		return nil
	}})
}

// putAddress records an address, or that certificates which carry it end later than was known. It reports whether that is
// a change.
func (t *tx) putAddress(a pki.CRLAddress) (changed bool, err error) {
	if _, err := t.issuerOf(a.IssuerKeyID); err != nil {
		return false, err
	}
	res, err := t.execResult(`
		INSERT INTO crl_address (issuer_key_id, crl_set, url, recorded_at, until, listed_at) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (issuer_key_id, crl_set, url) DO UPDATE SET
			until = excluded.until, listed_at = CASE WHEN until < excluded.recorded_at THEN excluded.listed_at ELSE listed_at END
		WHERE excluded.until > until`,
		a.IssuerKeyID, a.Set, a.URL, micros(a.RecordedAt), micros(a.Until), optionalMicros(a.ListedAt))
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// RecordCRLAddress records an address before certificates carry it.
func (s *Store) RecordCRLAddress(ctx context.Context, a pki.CRLAddress, r audit.Record) error {
	err := s.write(ctx, &op{records: sealed(r), apply: func(t *tx) error {
		changed, err := t.putAddress(a)
		if err == nil && !changed {
			return errUnchanged
		}
		t.config = true
		return err
	}})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// ListCRLAddress notes that certificates may carry an address.
func (s *Store) ListCRLAddress(ctx context.Context, issuerKeyID int64, set, url string, at time.Time) error {
	err := s.write(ctx, &op{apply: func(t *tx) error {
		key := []any{issuerKeyID, set, url}
		var listed sql.NullInt64
		err := t.row(`SELECT listed_at FROM crl_address WHERE issuer_key_id = ? AND crl_set = ? AND url = ?`, key,
			func(scan func(...any) error) error { return scan(&listed) })
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return fault.New(fault.NotFound, "the address of the CRL has not been recorded")
		case err != nil:
			return err
		case listed.Valid:
			return errUnchanged
		}
		t.config = true
		return t.exec(`UPDATE crl_address SET listed_at = ?4 WHERE issuer_key_id = ?1 AND crl_set = ?2 AND url = ?3`, append(key, micros(at))...)
	}})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}
