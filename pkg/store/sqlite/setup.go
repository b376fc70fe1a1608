package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// conflict turns a violated constraint into a Conflict with a detail for the client, and leaves the rest alone.
func conflict(err error, detail string) error {
	if primary, _ := code(err); primary == sqlite3.SQLITE_CONSTRAINT {
		return fault.Wrap(fault.Conflict, err, "%s", detail)
	}
	return err
}

// Bootstrap sets an empty store up.
func (s *Store) Bootstrap(ctx context.Context, b store.Bootstrap) error {
	for _, n := range b.Issuers {
		if n.Parent < 0 || n.Parent >= len(b.Issuers) {
			return fault.New(fault.BadRequest, "issuer %q names a parent that is not there", n.Issuer.Name)
		}
	}
	return s.write(ctx, &op{whole: true, records: sealed(b.Records...), apply: func(t *tx) error {
		if t.head.Change != 1 {
			return fault.Wrap(fault.Conflict, store.ErrNotEmpty, "the store has been set up before")
		}
		t.config = true
		return t.bootstrap(b)
	}})
}

func (t *tx) bootstrap(b store.Bootstrap) error {
	if err := t.exec(`INSERT INTO kek (id, info) VALUES (0, ?)`, blob(b.KEKInfo)); err != nil {
		if primary, _ := code(err); primary == sqlite3.SQLITE_CONSTRAINT { // a twin in the same batch
			return fault.Wrap(fault.Conflict, store.ErrNotEmpty, "the store has been set up before")
		}
		return err
	}
	issuers, keys := make([]int64, len(b.Issuers)), make([]int64, len(b.Issuers))
	for i, n := range b.Issuers {
		res, err := t.execResult(`INSERT INTO issuer (name, root, created) VALUES (?, ?, ?)`, n.Issuer.Name, n.Issuer.Root, micros(n.Issuer.Created))
		if err != nil {
			return conflict(err, "two issuers have one name")
		}
		if issuers[i], err = res.LastInsertId(); err != nil {
			return err
		}
		res, err = t.execResult(`INSERT INTO issuer_key (issuer_id, key_id, current, created) VALUES (?, ?, ?, ?)`,
			issuers[i], n.Key.KeyID, n.Key.Current, micros(n.Key.Created))
		if err != nil {
			return conflict(err, "two issuers have one key")
		}
		if keys[i], err = res.LastInsertId(); err != nil {
			return err
		}
		if err := t.exec(`INSERT INTO sealed_key (issuer_key_id, sealed) VALUES (?, ?)`, keys[i], blob(n.Key.SealedKey)); err != nil {
			return err
		}
	}
	for i, n := range b.Issuers {
		err := t.exec(`INSERT INTO issuer_certificate (issuer_key_id, parent_key_id, fingerprint, current, der) VALUES (?, ?, ?, ?, ?)`,
			keys[i], keys[n.Parent], n.Certificate.Fingerprint[:], n.Certificate.Current, blob(n.Certificate.DER))
		if err != nil {
			return conflict(err, "two issuers have one certificate")
		}
		for _, a := range n.Addresses {
			a.IssuerKeyID = keys[i]
			if _, err := t.putAddress(a); err != nil {
				return err
			}
		}
		record := n.Record
		record.IssuerID, record.IssuerKeyID = issuers[n.Parent], keys[n.Parent]
		row, err := newCertificateRow(&record)
		if err != nil {
			return err
		}
		if err := t.insertCertificate(row); err != nil {
			return err
		}
		if err := t.reserveKey(record.SPKIHash); err != nil {
			return err
		}
	}
	for _, p := range b.Profiles {
		if err := t.insertProfile(p); err != nil {
			return conflict(err, "two profiles have one name and version")
		}
	}
	for _, token := range b.Tokens {
		if err := t.insertToken(token); err != nil {
			return conflict(err, "two tokens have one name or id")
		}
	}
	return nil
}

// AllIssuers returns everything about issuers.
func (s *Store) AllIssuers(ctx context.Context) (store.IssuerSet, error) {
	set, err := s.allIssuers(ctx)
	if err != nil {
		return store.IssuerSet{}, s.asFault(ctx, err, "reading the issuers")
	}
	return set, nil
}

func (s *Store) allIssuers(ctx context.Context) (set store.IssuerSet, err error) {
	tx, err := s.snapshot(ctx)
	if err != nil {
		return set, err
	}
	defer tx.Rollback()
	err = each(ctx, tx, `SELECT id, name, root, created FROM issuer ORDER BY id`, nil, func(scan func(...any) error) error {
		var i pki.Issuer
		var created int64
		err := scan(&i.ID, &i.Name, &i.Root, &created)
		i.Created = timeOf(created)
		set.Issuers = append(set.Issuers, i)
		return err
	})
	if err != nil {
		return set, err
	}
	err = each(ctx, tx, `
		SELECT k.id, k.issuer_id, k.key_id, k.current, k.created, s.sealed
		FROM issuer_key k LEFT JOIN sealed_key s ON s.issuer_key_id = k.id ORDER BY k.id`, nil, func(scan func(...any) error) error {
		var k pki.IssuerKey
		var created int64
		err := scan(&k.ID, &k.IssuerID, &k.KeyID, &k.Current, &created, &k.SealedKey)
		k.Created = timeOf(created)
		set.Keys = append(set.Keys, k)
		return err
	})
	if err != nil {
		return set, err
	}
	err = each(ctx, tx, `SELECT id, issuer_key_id, parent_key_id, fingerprint, current, der FROM issuer_certificate ORDER BY id`, nil, func(scan func(...any) error) error {
		var c pki.IssuerCertificate
		var parent sql.NullInt64
		var fingerprint []byte
		err := scan(&c.ID, &c.IssuerKeyID, &parent, &fingerprint, &c.Current, &c.DER)
		c.ParentKeyID, c.Fingerprint = parent.Int64, hash32(fingerprint)
		set.Certificates = append(set.Certificates, c)
		return err
	})
	if err != nil {
		return set, err
	}
	if set.Settings, err = readSettings(ctx, tx, selectNewestSettings); err != nil {
		return set, err
	}
	set.Addresses, err = readAddresses(ctx, tx)
	return set, err
}

// each calls f for every row.
func each(ctx context.Context, q querier, query string, args []any, f func(scan func(...any) error) error) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// KEKInfo returns the description of the key encryption key.
func (s *Store) KEKInfo(ctx context.Context) ([]byte, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	var info []byte
	err := s.read.QueryRowContext(ctx, `SELECT info FROM kek WHERE id = 0`).Scan(&info)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "the store is empty")
	}
	return info, s.asFault(ctx, err, "reading the description of the key encryption key")
}

// ReplaceSealedKeys puts rewrapped keys in place of the old.
func (s *Store) ReplaceSealedKeys(ctx context.Context, oldKEKInfo, newKEKInfo []byte, rewrapped store.Sealed, r audit.Record) error {
	return s.write(ctx, &op{whole: true, records: sealed(r), apply: func(t *tx) error {
		var current []byte
		err := t.row(`SELECT info FROM kek WHERE id = 0`, nil, func(scan func(...any) error) error { return scan(&current) })
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err != nil || !bytes.Equal(current, oldKEKInfo) {
			return fault.Wrap(fault.Conflict, store.ErrStale, "the key encryption key has been changed in between")
		}
		count := 0
		err = t.row(`SELECT count(*) FROM sealed_key`, nil, func(scan func(...any) error) error { return scan(&count) })
		if err != nil {
			return err
		}
		if count != len(rewrapped.Keys) {
			return fault.Wrap(fault.Conflict, store.ErrStale, "there are %d private keys in the store and %d rewrapped ones", count, len(rewrapped.Keys))
		}
		err = t.row(`SELECT count(*) FROM sealed_secret`, nil, func(scan func(...any) error) error { return scan(&count) })
		if err != nil {
			return err
		}
		if count != len(rewrapped.Secrets) {
			return fault.Wrap(fault.Conflict, store.ErrStale, "there are %d secrets in the store and %d rewrapped ones", count, len(rewrapped.Secrets))
		}
		for _, name := range slices.Sorted(maps.Keys(rewrapped.Secrets)) {
			res, err := t.execResult(`UPDATE sealed_secret SET sealed = ? WHERE name = ?`, blob(rewrapped.Secrets[name]), name)
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil {
				return err
			} else if n != 1 {
				return fault.Wrap(fault.Conflict, store.ErrStale, "one of the rewrapped secrets is not in the store")
			}
		}
		for _, id := range sortedKeys(rewrapped.Keys) {
			res, err := t.execResult(`UPDATE sealed_key SET sealed = ? WHERE issuer_key_id = ?`, blob(rewrapped.Keys[id]), id)
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil {
				return err
			} else if n != 1 {
				return fault.Wrap(fault.Conflict, store.ErrStale, "one of the rewrapped keys is not in the store")
			}
		}
		t.config = true
		return t.exec(`UPDATE kek SET info = ? WHERE id = 0`, blob(newKEKInfo))
	}})
}

// BlockedKeys returns the keys that are refused.
func (s *Store) BlockedKeys(ctx context.Context) (map[[32]byte]store.BlockedKey, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	blocked := map[[32]byte]store.BlockedKey{}
	err := each(ctx, s.read, `SELECT spki_hash, own, compromised, blocked_at, blocked_by, campaign FROM blocked_key`, nil, func(scan func(...any) error) error {
		var spki []byte
		var b store.BlockedKey
		var at sql.NullInt64
		err := scan(&spki, &b.Own, &b.Compromised, &at, &b.By, &b.Campaign)
		b.At, b.Compromised = optionalTime(at), b.Compromised || !b.Own
		blocked[hash32(spki)] = b
		return err
	})
	if err != nil {
		return nil, s.asFault(ctx, err, "reading the blocked keys")
	}
	return blocked, nil
}

// AllProfiles returns the newest version of each profile, by name.
func (s *Store) AllProfiles(ctx context.Context) ([]pki.ProfileVersion, error) {
	return s.profiles(ctx, `
		SELECT p.name, p.version, p.config, p.builtin, p.created_at, p.created_by FROM profile p
		WHERE p.version = (SELECT max(version) FROM profile WHERE name = p.name) ORDER BY p.name`)
}

// ProfileHistory returns every version of a profile.
func (s *Store) ProfileHistory(ctx context.Context, name string) ([]pki.ProfileVersion, error) {
	ps, err := s.profiles(ctx, `SELECT name, version, config, builtin, created_at, created_by FROM profile WHERE name = ? ORDER BY version DESC`, name)
	if err == nil && len(ps) == 0 {
		return nil, fault.New(fault.NotFound, "there is no profile %q", name)
	}
	return ps, err
}

func (s *Store) profiles(ctx context.Context, query string, args ...any) ([]pki.ProfileVersion, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	var ps []pki.ProfileVersion
	err := each(ctx, s.read, query, args, func(scan func(...any) error) error {
		var p pki.ProfileVersion
		var created int64
		err := scan(&p.Name, &p.Version, &p.Config, &p.Builtin, &created, &p.CreatedBy)
		p.CreatedAt = timeOf(created)
		ps = append(ps, p)
		return err
	})
	if err != nil {
		return nil, s.asFault(ctx, err, "reading profiles")
	}
	return ps, nil
}

// PutProfile writes a new version of a profile.
func (s *Store) PutProfile(ctx context.Context, p pki.ProfileVersion, r audit.Record) error {
	return s.write(ctx, &op{records: sealed(r), apply: func(t *tx) error {
		var newest int
		err := t.row(`SELECT coalesce(max(version), 0) FROM profile WHERE name = ?`, []any{p.Name}, func(scan func(...any) error) error { return scan(&newest) })
		if err != nil {
			return err
		}
		if p.Version != newest+1 {
			return fault.Wrap(fault.Conflict, store.ErrStale, "the newest version of profile %q is %d", p.Name, newest)
		}
		t.config = true
		return t.insertProfile(p)
	}})
}

func (t *tx) insertProfile(p pki.ProfileVersion) error {
	return t.exec(`INSERT INTO profile (name, version, config, builtin, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?)`,
		p.Name, p.Version, blob(p.Config), p.Builtin, micros(p.CreatedAt), p.CreatedBy)
}

// AllTokens returns every token.
func (s *Store) AllTokens(ctx context.Context) ([]pki.Token, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	var ts []pki.Token
	err := each(ctx, s.read, `
		SELECT id, name, hash, role, issuers, profiles, names, rate, created_at, created_by, expires_at, revoked_at
		FROM api_token ORDER BY created_at DESC, id DESC`, nil, func(scan func(...any) error) error {
		var t pki.Token
		var hash []byte
		var role int
		var issuers, profiles, names string
		var created int64
		var expires, revoked sql.NullInt64
		if err := scan(&t.ID, &t.Name, &hash, &role, &issuers, &profiles, &names, &t.Rate, &created, &t.CreatedBy, &expires, &revoked); err != nil {
			return err
		}
		t.Hash, t.Role, t.CreatedAt, t.ExpiresAt, t.RevokedAt = hash32(hash), pki.Role(role), timeOf(created), optionalTime(expires), optionalTime(revoked)
		var err1, err2, err3 error
		t.Issuers, err1 = decodeStrings(issuers)
		t.Profiles, err2 = decodeStrings(profiles)
		t.Names, err3 = decodeStrings(names)
		ts = append(ts, t)
		return errors.Join(err1, err2, err3)
	})
	if err != nil {
		return nil, s.asFault(ctx, err, "reading tokens")
	}
	return ts, nil
}

// CreateToken writes a token.
func (s *Store) CreateToken(ctx context.Context, token pki.Token, r audit.Record) error {
	return s.write(ctx, &op{records: sealed(r), apply: func(t *tx) error {
		t.config = true
		err := t.insertToken(token)
		if err != nil && strings.Contains(err.Error(), "api_token.id") {
			return conflict(err, "there is a token with this id")
		}
		return conflict(err, "there is a token of this name that has not been revoked")
	}})
}

func (t *tx) insertToken(token pki.Token) error {
	issuers, err := encodeStrings(token.Issuers)
	if err != nil {
		return err
	}
	profiles, err := encodeStrings(token.Profiles)
	if err != nil {
		return err
	}
	names, err := encodeStrings(token.Names)
	if err != nil {
		return err
	}
	return t.exec(`
		INSERT INTO api_token (id, name, hash, role, issuers, profiles, names, rate, created_at, created_by, expires_at, revoked_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		token.ID, token.Name, token.Hash[:], int(token.Role), issuers, profiles, names, token.Rate, micros(token.CreatedAt), token.CreatedBy,
		optionalMicros(token.ExpiresAt), optionalMicros(token.RevokedAt))
}

// RevokeToken ends a token.
func (s *Store) RevokeToken(ctx context.Context, id string, at time.Time, r audit.Record) error {
	return s.write(ctx, &op{records: sealed(r), apply: func(t *tx) error {
		var whole, others int
		var expires, revoked sql.NullInt64
		const isWhole = `role = ? AND issuers = '[]' AND profiles = '[]' AND names = '[]'` // an administrator whom nothing limits
		role := int(pki.RoleAdministrator)
		err := t.row(`SELECT `+isWhole+`, expires_at, revoked_at FROM api_token WHERE id = ?`, []any{role, id}, func(scan func(...any) error) error {
			return scan(&whole, &expires, &revoked)
		})
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return fault.New(fault.NotFound, "there is no such token")
		case err != nil:
			return err
		case revoked.Valid:
			return fault.New(fault.Conflict, "the token has been revoked since %s", timeOf(revoked.Int64).Format(time.RFC3339))
		}
		if whole != 0 && (!expires.Valid || expires.Int64 > micros(at)) {
			err := t.row(`
				SELECT count(*) FROM api_token
				WHERE `+isWhole+` AND id <> ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)`,
				[]any{role, id, micros(at.Add(store.AdministratorRemains))}, func(scan func(...any) error) error { return scan(&others) })
			if err != nil {
				return err
			}
			if others == 0 {
				return store.LastAdministrator()
			}
		}
		t.config = true
		return t.exec(`UPDATE api_token SET revoked_at = ? WHERE id = ?`, micros(at), id)
	}})
}
