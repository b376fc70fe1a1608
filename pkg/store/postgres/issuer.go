package postgres

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// Bootstrap implements store.Store. It holds the head from its beginning: there is nothing else to wait for in an empty
// store, and of several replicas the others then find it set up.
func (s *Store) Bootstrap(ctx context.Context, boot store.Bootstrap) error {
	for _, n := range boot.Issuers {
		if n.Parent < 0 || n.Parent >= len(boot.Issuers) {
			return fault.New(fault.BadRequest, "setting up the store: issuer %q has no parent at index %d", n.Issuer.Name, n.Parent)
		}
	}
	var change int64
	var issuers bool
	first := func(b *pgx.Batch) {
		b.Queue(`SELECT change FROM head WHERE strand = 0 FOR UPDATE`).QueryRow(func(row pgx.Row) error { return row.Scan(&change) })
		b.Queue(`SELECT EXISTS (SELECT 1 FROM issuer)`).QueryRow(func(row pgx.Row) error { return row.Scan(&issuers) })
	}
	return s.write(ctx, "setting up the store", first, func(t *tx) error {
		if change > 0 || issuers {
			return fault.Wrap(fault.Conflict, store.ErrNotEmpty, "the store has been set up before")
		}
		if err := insertIssuers(ctx, t, boot.Issuers); err != nil {
			return err
		}
		b := &pgx.Batch{}
		b.Queue(`INSERT INTO kek (id, info) VALUES (0, $1)`, notNull(boot.KEKInfo))
		for _, p := range boot.Profiles {
			queueProfile(b, p)
		}
		for _, token := range boot.Tokens {
			queueToken(b, token)
		}
		t.seals = sealing{config: true, records: boot.Records}
		return t.SendBatch(ctx, b).Close()
	})
}

func insertIssuers(ctx context.Context, t *tx, issuers []store.NewIssuer) error {
	issuerIDs, keyIDs := make([]int64, len(issuers)), make([]int64, len(issuers))
	for i, n := range issuers {
		err := t.QueryRow(ctx, `
			INSERT INTO issuer (name, root, created) VALUES ($1, $2, $3) RETURNING id`,
			n.Issuer.Name, n.Issuer.Root, cut(n.Issuer.Created)).Scan(&issuerIDs[i])
		if err != nil {
			return err
		}
		err = t.QueryRow(ctx, `
			INSERT INTO issuer_key (issuer_id, key_id, current, created) VALUES ($1, $2, $3, $4) RETURNING id`,
			issuerIDs[i], n.Key.KeyID, n.Key.Current, cut(n.Key.Created)).Scan(&keyIDs[i])
		if err != nil {
			return err
		}
	}
	b := &pgx.Batch{}
	records, own := make([]*pki.Certificate, len(issuers)), make([][]byte, len(issuers))
	for i, n := range issuers {
		if len(n.Key.SealedKey) > 0 {
			b.Queue(`INSERT INTO sealed_key (issuer_key_id, sealed) VALUES ($1, $2)`, keyIDs[i], n.Key.SealedKey)
		}
		b.Queue(`
			INSERT INTO issuer_certificate (issuer_key_id, parent_key_id, fingerprint, current, der) VALUES ($1, $2, $3, $4, $5)`,
			keyIDs[i], keyIDs[n.Parent], n.Certificate.Fingerprint[:], n.Certificate.Current, notNull(n.Certificate.DER))
		for _, a := range n.Addresses {
			a.IssuerKeyID = keyIDs[i]
			b.Queue(sqlPutAddress, addressArgs(a)...)
		}
		n.Record.IssuerID, n.Record.IssuerKeyID = issuerIDs[n.Parent], keyIDs[n.Parent]
		records[i], own[i] = &n.Record, n.Record.SPKIHash[:]
	}
	if len(records) > 0 {
		queueCertificates(b, records)
	}
	sortKeys(own)
	b.Queue(sqlReserveKeys, slices.CompactFunc(own, slices.Equal))
	return t.SendBatch(ctx, b).Close()
}

// AllIssuers implements store.Issuers. One statement for each table, in one snapshot.
func (s *Store) AllIssuers(ctx context.Context) (store.IssuerSet, error) {
	const doing = "reading the issuers"
	conn, release, err := s.snapshot(ctx)
	if err != nil {
		return store.IssuerSet{}, fail(err, doing)
	}
	defer release()
	var set store.IssuerSet
	b := &pgx.Batch{}
	b.Queue(`SELECT id, name, root, created FROM issuer ORDER BY id`).Query(func(rows pgx.Rows) (err error) {
		set.Issuers, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (i pki.Issuer, err error) {
			err = row.Scan(&i.ID, &i.Name, &i.Root, &i.Created)
			i.Created = i.Created.UTC()
			return i, err
		})
		return err
	})
	b.Queue(`
		SELECT k.id, k.issuer_id, k.key_id, k.current, k.created, s.sealed
		FROM issuer_key k
		LEFT JOIN sealed_key s ON s.issuer_key_id = k.id
		ORDER BY k.id`).Query(func(rows pgx.Rows) (err error) {
		set.Keys, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (k pki.IssuerKey, err error) {
			err = row.Scan(&k.ID, &k.IssuerID, &k.KeyID, &k.Current, &k.Created, &k.SealedKey)
			k.Created = k.Created.UTC()
			return k, err
		})
		return err
	})
	b.Queue(`
		SELECT id, issuer_key_id, coalesce(parent_key_id, 0), fingerprint, current, der
		FROM issuer_certificate
		ORDER BY id`).Query(func(rows pgx.Rows) (err error) {
		set.Certificates, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c pki.IssuerCertificate, err error) {
			var fingerprint []byte
			if err := row.Scan(&c.ID, &c.IssuerKeyID, &c.ParentKeyID, &fingerprint, &c.Current, &c.DER); err != nil {
				return c, err
			}
			return c, setHash(c.Fingerprint[:], fingerprint, "issuer_certificate.fingerprint")
		})
		return err
	})
	queueSettings(b, &set)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return store.IssuerSet{}, fail(withContext(ctx, err), doing)
	}
	return set, nil
}

// KEKInfo implements store.Issuers.
func (s *Store) KEKInfo(ctx context.Context) ([]byte, error) {
	return read(ctx, s, "reading the description of the key encryption key", func(conn *pgxpool.Conn) (info []byte, err error) {
		err = conn.QueryRow(ctx, `SELECT info FROM kek WHERE id = 0`).Scan(&info)
		if isNoRows(err) {
			return nil, fault.New(fault.NotFound, "the store has not been set up")
		}
		return info, err
	})
}

// ReplaceSealedKeys implements store.Issuers.
func (s *Store) ReplaceSealedKeys(ctx context.Context, oldKEKInfo, newKEKInfo []byte, sealed store.Sealed, record audit.Record) error {
	var info []byte
	have, secrets := make(map[int64]bool), make(map[string]bool)
	first := func(b *pgx.Batch) {
		info = nil
		clear(have)
		clear(secrets)
		b.Queue(`SELECT info FROM kek WHERE id = 0 FOR UPDATE`).QueryRow(func(row pgx.Row) error {
			if err := row.Scan(&info); !isNoRows(err) {
				return err
			}
			return nil
		})
		b.Queue(`SELECT issuer_key_id FROM sealed_key ORDER BY issuer_key_id FOR UPDATE`).Query(func(rows pgx.Rows) error {
			ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
			for _, id := range ids {
				have[id] = true
			}
			return err
		})
		// Others must neither add a secret nor take one away meanwhile.
		b.Queue(`LOCK TABLE sealed_secret IN SHARE ROW EXCLUSIVE MODE`)
		b.Queue(`SELECT name FROM sealed_secret`).Query(func(rows pgx.Rows) error {
			names, err := pgx.CollectRows(rows, pgx.RowTo[string])
			for _, name := range names {
				secrets[name] = true
			}
			return err
		})
	}
	return s.write(ctx, "replacing the sealed keys", first, func(t *tx) error {
		if info == nil || !bytes.Equal(info, oldKEKInfo) {
			return fault.Wrap(fault.Conflict, store.ErrStale, "the key encryption key has been changed in between")
		}
		ids := slices.Sorted(maps.Keys(sealed.Keys))
		keys := make([][]byte, len(ids))
		for i, id := range ids {
			if !have[id] {
				return fault.Wrap(fault.Conflict, store.ErrStale, "one of the rewrapped keys is not in the store")
			}
			keys[i] = notNull(sealed.Keys[id])
		}
		if len(ids) != len(have) {
			return fault.Wrap(fault.Conflict, store.ErrStale, "the store has %d private keys, %d were rewrapped", len(have), len(ids))
		}
		names := slices.Sorted(maps.Keys(sealed.Secrets))
		values := make([][]byte, len(names))
		for i, name := range names {
			if !secrets[name] {
				return fault.Wrap(fault.Conflict, store.ErrStale, "one of the rewrapped secrets is not in the store")
			}
			values[i] = notNull(sealed.Secrets[name])
		}
		if len(names) != len(secrets) {
			return fault.Wrap(fault.Conflict, store.ErrStale, "the store has %d secrets, %d were rewrapped", len(secrets), len(names))
		}
		b := &pgx.Batch{}
		b.Queue(`
			UPDATE sealed_key s SET sealed = u.sealed
			FROM unnest($1::bigint[], $2::bytea[]) AS u (issuer_key_id, sealed)
			WHERE s.issuer_key_id = u.issuer_key_id`, ids, keys)
		if len(names) > 0 {
			b.Queue(`
				UPDATE sealed_secret s SET sealed = u.sealed
				FROM unnest($1::text[], $2::bytea[]) AS u (name, sealed)
				WHERE s.name = u.name`, names, values)
		}
		b.Queue(`UPDATE kek SET info = $1 WHERE id = 0`, notNull(newKEKInfo))
		t.seals = sealing{config: true, records: []audit.Record{record}}
		return t.SendBatch(ctx, b).Close()
	})
}

// BlockedKeys implements store.Issuers.
func (s *Store) BlockedKeys(ctx context.Context) (map[[32]byte]store.BlockedKey, error) {
	return read(ctx, s, "reading the blocked keys", func(conn *pgxpool.Conn) (map[[32]byte]store.BlockedKey, error) {
		rows, err := conn.Query(ctx, `SELECT spki_hash, own, compromised, blocked_at, blocked_by, campaign FROM blocked_key`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		blocked := make(map[[32]byte]store.BlockedKey)
		for rows.Next() {
			var hash []byte
			var key [32]byte
			var b store.BlockedKey
			var at *time.Time
			if err := rows.Scan(&hash, &b.Own, &b.Compromised, &at, &b.By, &b.Campaign); err != nil {
				return nil, err
			}
			if err := setHash(key[:], hash, "blocked_key.spki_hash"); err != nil {
				return nil, err
			}
			b.At, b.Compromised = fromNull(at), b.Compromised || !b.Own
			blocked[key] = b
		}
		return blocked, rows.Err()
	})
}

// AllProfiles implements store.Profiles.
func (s *Store) AllProfiles(ctx context.Context) ([]pki.ProfileVersion, error) {
	return s.profiles(ctx, `
		SELECT DISTINCT ON (name) name, version, config, builtin, created_at, created_by
		FROM profile
		ORDER BY name, version DESC`)
}

// ProfileHistory implements store.Profiles.
func (s *Store) ProfileHistory(ctx context.Context, name string) ([]pki.ProfileVersion, error) {
	list, err := s.profiles(ctx, `
		SELECT name, version, config, builtin, created_at, created_by
		FROM profile
		WHERE name = $1
		ORDER BY version DESC`, text(name))
	if err == nil && len(list) == 0 {
		return nil, fault.New(fault.NotFound, "there is no profile of this name")
	}
	return list, err
}

func (s *Store) profiles(ctx context.Context, sql string, args ...any) ([]pki.ProfileVersion, error) {
	return read(ctx, s, "reading profiles", func(conn *pgxpool.Conn) ([]pki.ProfileVersion, error) {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p pki.ProfileVersion, err error) {
			err = row.Scan(&p.Name, &p.Version, &p.Config, &p.Builtin, &p.CreatedAt, &p.CreatedBy)
			p.CreatedAt = p.CreatedAt.UTC()
			return p, err
		})
	})
}

// PutProfile implements store.Profiles.
func (s *Store) PutProfile(ctx context.Context, p pki.ProfileVersion, record audit.Record) error {
	stale := func(newest int, cause error) error {
		return fault.Wrap(fault.Conflict, cause, "version %d of profile %q must follow version %d", p.Version, p.Name, newest)
	}
	newest := 0
	first := func(b *pgx.Batch) {
		b.Queue(`SELECT coalesce(max(version), 0) FROM profile WHERE name = $1`, p.Name).QueryRow(func(row pgx.Row) error {
			return row.Scan(&newest)
		})
	}
	return s.write(ctx, "writing a profile", first, func(t *tx) error {
		if p.Version != newest+1 {
			return stale(newest, store.ErrStale)
		}
		b := &pgx.Batch{}
		queueProfile(b, p)
		t.seals = sealing{config: true, records: []audit.Record{record}}
		err := t.SendBatch(ctx, b).Close()
		if isCode(err, codeUniqueViolation) { // another was faster
			return stale(newest+1, store.ErrStale)
		}
		return err
	})
}

func queueProfile(b *pgx.Batch, p pki.ProfileVersion) {
	b.Queue(`
		INSERT INTO profile (name, version, config, builtin, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6)`,
		p.Name, p.Version, notNull(p.Config), p.Builtin, cut(p.CreatedAt), text(p.CreatedBy))
}

// AllTokens implements store.Tokens.
func (s *Store) AllTokens(ctx context.Context) ([]pki.Token, error) {
	return read(ctx, s, "reading the tokens", func(conn *pgxpool.Conn) ([]pki.Token, error) {
		rows, err := conn.Query(ctx, `
			SELECT id, name, hash, role, issuers, profiles, names, rate, created_at, created_by, expires_at, revoked_at
			FROM api_token
			ORDER BY created_at DESC, id DESC`)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (t pki.Token, err error) {
			var hash []byte
			var expires, revoked *time.Time
			err = row.Scan(&t.ID, &t.Name, &hash, (*int)(&t.Role), &t.Issuers, &t.Profiles, &t.Names, &t.Rate, &t.CreatedAt, &t.CreatedBy, &expires, &revoked)
			if err != nil {
				return t, err
			}
			t.CreatedAt, t.ExpiresAt, t.RevokedAt = t.CreatedAt.UTC(), fromNull(expires), fromNull(revoked)
			return t, setHash(t.Hash[:], hash, "api_token.hash")
		})
	})
}

// CreateToken implements store.Tokens.
func (s *Store) CreateToken(ctx context.Context, token pki.Token, record audit.Record) error {
	return s.write(ctx, "creating a token", func(b *pgx.Batch) { queueToken(b, token) }, func(t *tx) error {
		t.seals = sealing{config: true, records: []audit.Record{record}}
		return nil
	})
}

func queueToken(b *pgx.Batch, t pki.Token) {
	b.Queue(`
		INSERT INTO api_token (id, name, hash, role, issuers, profiles, names, rate, created_at, created_by, expires_at, revoked_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		t.ID, t.Name, t.Hash[:], int16(t.Role), texts(t.Issuers), texts(t.Profiles), texts(t.Names), t.Rate, cut(t.CreatedAt), text(t.CreatedBy),
		orNull(t.ExpiresAt), orNull(t.RevokedAt))
}

// RevokeToken implements store.Tokens. It holds every administrator's token that is not revoked, so that of the last two
// one remains.
func (s *Store) RevokeToken(ctx context.Context, id string, at time.Time, record audit.Record) error {
	at = cut(at)
	type row struct {
		admin   bool // whom nothing limits
		expires *time.Time
	}
	var held map[string]row
	var exists bool
	first := func(b *pgx.Batch) {
		held, exists = make(map[string]row), false
		b.Queue(`
			SELECT id, role = $2 AND issuers = '{}' AND profiles = '{}' AND names = '{}', expires_at
			FROM api_token
			WHERE revoked_at IS NULL AND (id = $1 OR role = $2)
			ORDER BY id
			FOR UPDATE`, text(id), int16(pki.RoleAdministrator)).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				var id string
				var r row
				if err := rows.Scan(&id, &r.admin, &r.expires); err != nil {
					return err
				}
				held[id] = r
			}
			return rows.Err()
		})
		b.Queue(`SELECT EXISTS (SELECT 1 FROM api_token WHERE id = $1)`, text(id)).QueryRow(func(row pgx.Row) error {
			return row.Scan(&exists)
		})
	}
	return s.write(ctx, "revoking a token", first, func(t *tx) error {
		inForce := func(r row, at time.Time) bool { return r.admin && (r.expires == nil || r.expires.After(at)) }
		this, ok := held[id]
		switch {
		case !exists:
			return fault.New(fault.NotFound, "there is no such token")
		case !ok:
			return fault.New(fault.Conflict, "the token has been revoked before")
		case inForce(this, at):
			others := 0
			for other, r := range held {
				if other != id && inForce(r, at.Add(store.AdministratorRemains)) {
					others++
				}
			}
			if others == 0 {
				return store.LastAdministrator()
			}
		}
		t.seals = sealing{config: true, records: []audit.Record{record}}
		_, err := t.Exec(ctx, `UPDATE api_token SET revoked_at = $2 WHERE id = $1`, id, at)
		return err
	})
}
