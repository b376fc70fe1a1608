package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

const settingsColumns = `issuer_id, version, config, created_at, created_by`

func scanSettings(row pgx.CollectableRow) (v pki.SettingsVersion, err error) {
	err = row.Scan(&v.IssuerID, &v.Version, &v.Config, &v.CreatedAt, &v.CreatedBy)
	v.CreatedAt = v.CreatedAt.UTC()
	return v, err
}

// queueSettings reads the settings and addresses of a set of issuers.
func queueSettings(b *pgx.Batch, set *store.IssuerSet) {
	b.Queue(`
		SELECT DISTINCT ON (issuer_id) ` + settingsColumns + `
		FROM issuer_settings
		ORDER BY issuer_id, version DESC`).Query(func(rows pgx.Rows) (err error) {
		set.Settings, err = pgx.CollectRows(rows, scanSettings)
		return err
	})
	b.Queue(`
		SELECT issuer_key_id, crl_set, url, recorded_at, until, listed_at
		FROM crl_address
		ORDER BY issuer_key_id, recorded_at, crl_set, url`).Query(func(rows pgx.Rows) (err error) {
		set.Addresses, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a pki.CRLAddress, err error) {
			var listed *time.Time
			err = row.Scan(&a.IssuerKeyID, &a.Set, &a.URL, &a.RecordedAt, &a.Until, &listed)
			a.RecordedAt, a.Until, a.ListedAt = a.RecordedAt.UTC(), a.Until.UTC(), fromNull(listed)
			return a, err
		})
		return err
	})
}

// sqlPutAddress takes nothing back, but of addresses that have lapsed.
const sqlPutAddress = `
	INSERT INTO crl_address (issuer_key_id, crl_set, url, recorded_at, until, listed_at) VALUES ($1, $2, $3, $4, $5, $6)
	ON CONFLICT (issuer_key_id, crl_set, url) DO UPDATE SET
		until = greatest(crl_address.until, excluded.until),
		listed_at = CASE WHEN crl_address.until < excluded.recorded_at THEN excluded.listed_at ELSE crl_address.listed_at END`

func addressArgs(a pki.CRLAddress) []any {
	return []any{a.IssuerKeyID, text(a.Set), text(a.URL), cut(a.RecordedAt), cut(a.Until), orNull(a.ListedAt)}
}

// PutIssuerSettings implements store.IssuerSettings.
func (s *Store) PutIssuerSettings(ctx context.Context, v pki.SettingsVersion, addresses []pki.CRLAddress, record audit.Record) error {
	stale := func(newest int) error {
		return fault.Wrap(fault.Conflict, store.ErrStale, "version %d of an issuer's settings must follow version %d", v.Version, newest)
	}
	newest := 0
	first := func(b *pgx.Batch) {
		b.Queue(`SELECT coalesce(max(version), 0) FROM issuer_settings WHERE issuer_id = $1`, v.IssuerID).QueryRow(func(row pgx.Row) error {
			return row.Scan(&newest)
		})
	}
	err := s.write(ctx, "writing the settings of an issuer", first, func(t *tx) error {
		if v.Version != newest+1 {
			return stale(newest)
		}
		b := &pgx.Batch{}
		b.Queue(`
			INSERT INTO issuer_settings (issuer_id, version, config, created_at, created_by) VALUES ($1, $2, $3, $4, $5)`,
			v.IssuerID, v.Version, notNull(v.Config), cut(v.CreatedAt), text(v.CreatedBy))
		for _, a := range addresses {
			b.Queue(sqlPutAddress, addressArgs(a)...)
		}
		t.seals = sealing{config: true, records: []audit.Record{record}}
		err := t.SendBatch(ctx, b).Close()
		if isCode(err, codeUniqueViolation) { // another was faster
			return stale(newest + 1)
		}
		return noIssuer(err)
	})
	return err
}

// noIssuer says what a foreign key that is violated means.
func noIssuer(err error) error {
	if isCode(err, codeForeignKey) {
		return fault.Wrap(fault.NotFound, err, "there is no such issuer, or no such key of it")
	}
	return err
}

// IssuerSettingsHistory implements store.IssuerSettings.
func (s *Store) IssuerSettingsHistory(ctx context.Context, issuerID int64) ([]pki.SettingsVersion, error) {
	return read(ctx, s, "reading the settings of an issuer", func(conn *pgxpool.Conn) ([]pki.SettingsVersion, error) {
		rows, err := conn.Query(ctx, `
			SELECT `+settingsColumns+`
			FROM issuer_settings
			WHERE issuer_id = $1
			ORDER BY version DESC`, issuerID)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, scanSettings)
	})
}

// RecordCRLAddress implements store.IssuerSettings.
func (s *Store) RecordCRLAddress(ctx context.Context, a pki.CRLAddress, record audit.Record) error {
	covered := false
	first := func(b *pgx.Batch) {
		b.Queue(`
			SELECT EXISTS (SELECT 1 FROM crl_address WHERE issuer_key_id = $1 AND crl_set = $2 AND url = $3 AND until >= $4)`,
			a.IssuerKeyID, text(a.Set), text(a.URL), cut(a.Until)).QueryRow(func(row pgx.Row) error { return row.Scan(&covered) })
	}
	err := s.write(ctx, "recording the address of a CRL", first, func(t *tx) error {
		if covered {
			return errNothing
		}
		t.seals = sealing{config: true, records: []audit.Record{record}}
		_, err := t.Exec(ctx, sqlPutAddress, addressArgs(a)...)
		return noIssuer(err)
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// ListCRLAddress implements store.IssuerSettings.
func (s *Store) ListCRLAddress(ctx context.Context, issuerKeyID int64, set, url string, at time.Time) error {
	err := s.write(ctx, "noting that the address of a CRL is listed", nil, func(t *tx) error {
		tag, err := t.Exec(ctx, `
			UPDATE crl_address SET listed_at = $4
			WHERE issuer_key_id = $1 AND crl_set = $2 AND url = $3 AND listed_at IS NULL`,
			issuerKeyID, text(set), text(url), cut(at))
		if err != nil {
			return err
		}
		if tag.RowsAffected() > 0 {
			t.seals = sealing{config: true}
			return nil
		}
		known := false
		err = t.QueryRow(ctx, `
			SELECT EXISTS (SELECT 1 FROM crl_address WHERE issuer_key_id = $1 AND crl_set = $2 AND url = $3)`,
			issuerKeyID, text(set), text(url)).Scan(&known)
		switch {
		case err != nil:
			return err
		case !known:
			return fault.New(fault.NotFound, "the address of the CRL has not been recorded")
		}
		return errNothing
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}
