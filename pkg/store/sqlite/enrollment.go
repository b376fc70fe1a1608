package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"

	"github.com/certwright/certwright/pkg/audit"
)

// AllPoints returns the newest version of each point, by name.
func (s *Store) AllPoints(ctx context.Context) ([]pki.PointVersion, error) {
	return s.points(ctx, `
		SELECT p.name, p.version, p.config, p.created_at, p.created_by FROM enrollment_point p
		WHERE p.version = (SELECT max(version) FROM enrollment_point WHERE name = p.name) ORDER BY p.name`)
}

// PointHistory returns every version of a point.
func (s *Store) PointHistory(ctx context.Context, name string) ([]pki.PointVersion, error) {
	ps, err := s.points(ctx, `SELECT name, version, config, created_at, created_by FROM enrollment_point WHERE name = ? ORDER BY version DESC`, name)
	if err == nil && len(ps) == 0 {
		return nil, fault.New(fault.NotFound, "there is no enrollment point of this name")
	}
	return ps, err
}

func (s *Store) points(ctx context.Context, query string, args ...any) ([]pki.PointVersion, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	var ps []pki.PointVersion
	err := each(ctx, s.read, query, args, func(scan func(...any) error) error {
		var p pki.PointVersion
		var created int64
		err := scan(&p.Name, &p.Version, &p.Config, &created, &p.CreatedBy)
		p.CreatedAt = timeOf(created)
		ps = append(ps, p)
		return err
	})
	if err != nil {
		return nil, s.asFault(ctx, err, "reading enrollment points")
	}
	return ps, nil
}

// PutPoint writes a new version of a point.
func (s *Store) PutPoint(ctx context.Context, c store.PointChange) error {
	p := c.Point
	return s.write(ctx, &op{records: sealed(c.Record), apply: func(t *tx) error {
		var newest int
		err := t.row(`SELECT coalesce(max(version), 0) FROM enrollment_point WHERE name = ?`, []any{p.Name}, func(scan func(...any) error) error { return scan(&newest) })
		if err != nil {
			return err
		}
		if p.Version != newest+1 {
			return fault.Wrap(fault.Conflict, store.ErrStale, "the newest version of enrollment point %q is %d", p.Name, newest)
		}
		t.config = true
		if c.Secret != nil {
			if err := t.putSecret(pki.SecretPoint(p.Name), c.Secret); err != nil {
				return err
			}
		}
		if c.WebhookSecret != nil {
			if err := t.putSecret(pki.SecretWebhook(p.Name), c.WebhookSecret); err != nil {
				return err
			}
		}
		return t.exec(`INSERT INTO enrollment_point (name, version, config, created_at, created_by) VALUES (?, ?, ?, ?, ?)`,
			p.Name, p.Version, blob(p.Config), micros(p.CreatedAt), p.CreatedBy)
	}})
}

// putSecret keeps what is sealed under a name; nothing takes the name away.
func (t *tx) putSecret(name string, sealed []byte) error {
	if len(sealed) == 0 {
		return t.exec(`DELETE FROM sealed_secret WHERE name = ?`, name)
	}
	return t.exec(`INSERT INTO sealed_secret (name, sealed) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed`, name, sealed)
}

// CreateChallenges writes challenges.
func (s *Store) CreateChallenges(ctx context.Context, cs []pki.Challenge, r audit.Record) error {
	sans := make([]string, len(cs))
	for i, c := range cs {
		var err error
		if sans[i], err = encodeStrings(c.SANs); err != nil {
			return fault.Wrap(fault.Internal, err, "encoding the SANs")
		}
	}
	devices := store.ExpectedDevices(cs)
	return s.write(ctx, &op{whole: true, records: sealed(r), apply: func(t *tx) error {
		if err := t.expectDevices(devices); err != nil {
			return err
		}
		for i, c := range cs {
			err := t.exec(`
				INSERT INTO challenge (id, hash, point, profile, subject, sans, device, note, created_at, created_by, expires_at, used_at, used_by, revoked_at, failures, batch)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				c.ID, c.Hash[:], c.Point, c.Profile, c.Subject, sans[i], c.Device, c.Note, micros(c.CreatedAt), c.CreatedBy, micros(c.ExpiresAt),
				optionalMicros(c.UsedAt), optionalFingerprint(c.UsedBy), optionalMicros(c.RevokedAt), c.Failures, c.Batch)
			if err != nil {
				return conflict(err, "there is a challenge with this id")
			}
		}
		return nil
	}})
}

func optionalFingerprint(f pki.Fingerprint) any {
	if f == (pki.Fingerprint{}) {
		return nil
	}
	return f[:]
}

const challengeColumns = `id, hash, point, profile, subject, sans, device, note, created_at, created_by, expires_at, used_at, used_by, revoked_at, failures, batch`

func scanChallenge(scan func(...any) error) (pki.Challenge, error) {
	var (
		c                pki.Challenge
		hash, usedBy     []byte
		sans             string
		created, expires int64
		used, revoked    sql.NullInt64
	)
	err := scan(&c.ID, &hash, &c.Point, &c.Profile, &c.Subject, &sans, &c.Device, &c.Note, &created, &c.CreatedBy, &expires, &used, &usedBy, &revoked, &c.Failures, &c.Batch)
	if err != nil {
		return c, err
	}
	c.Hash, c.UsedBy, c.CreatedAt, c.ExpiresAt = hash32(hash), hash32(usedBy), timeOf(created), timeOf(expires)
	c.UsedAt, c.RevokedAt = optionalTime(used), optionalTime(revoked)
	c.SANs, err = decodeStrings(sans)
	return c, err
}

// Challenge returns a challenge by its id.
func (s *Store) Challenge(ctx context.Context, id string) (pki.Challenge, error) {
	if err := s.begin(ctx); err != nil {
		return pki.Challenge{}, err
	}
	c, err := scanChallenge(s.read.QueryRowContext(ctx, `SELECT `+challengeColumns+` FROM challenge WHERE id = ?`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return c, errNoChallenge()
	}
	return c, s.asFault(ctx, err, "reading a challenge")
}

func errNoChallenge() error { return fault.New(fault.NotFound, "there is no such challenge") }

// createdCursor is the place of a row in a list by creation and id, the newest first.
func createdCursor(kind byte, created time.Time, id string) string {
	return newCursor(kind, append(binary.BigEndian.AppendUint64(nil, uint64(micros(created))), id...))
}

// afterCreated adds what is behind a cursor of createdCursor.
func (c *clauses) afterCreated(kind byte, cursor string) error {
	if cursor == "" {
		return nil
	}
	b, err := parseCursor(kind, cursor)
	if err != nil {
		return err
	}
	if len(b) < 8 {
		return errCursor()
	}
	c.add(`(created_at, id) < (?, ?)`, int64(binary.BigEndian.Uint64(b)), string(b[8:]))
	return nil
}

// ListChallenges returns a page of challenges.
func (s *Store) ListChallenges(ctx context.Context, f store.ChallengeFilter, p store.Page) (page []pki.Challenge, next string, err error) {
	limit := pageLimit(p)
	c := &clauses{from: `FROM challenge`}
	if err := c.afterCreated('h', p.Cursor); err != nil {
		return nil, "", err
	}
	if err := s.begin(ctx); err != nil {
		return nil, "", err
	}
	c.challenge(f)
	err = each(ctx, s.read, `SELECT `+challengeColumns+` `+c.String()+` ORDER BY created_at DESC, id DESC LIMIT ?`, append(c.args, limit+1), func(scan func(...any) error) error {
		challenge, err := scanChallenge(scan)
		page = append(page, challenge)
		return err
	})
	if err != nil {
		return nil, "", s.asFault(ctx, err, "listing challenges")
	}
	if len(page) > limit {
		page = page[:limit]
		next = createdCursor('h', page[limit-1].CreatedAt, page[limit-1].ID)
	}
	return page, next, nil
}

func (c *clauses) challenge(f store.ChallengeFilter) {
	if f.Point != "" {
		c.add(`point = ?`, f.Point)
	}
	if f.Device != "" {
		c.add(`device = ?`, f.Device)
	}
	if f.Batch != "" {
		c.add(`batch = ?`, f.Batch)
	}
	if !f.OpenAt.IsZero() {
		c.add(`used_at IS NULL AND revoked_at IS NULL AND expires_at > ?`, micros(f.OpenAt))
	}
}

// RevokeChallenge ends a challenge.
func (s *Store) RevokeChallenge(ctx context.Context, id string, at time.Time, r audit.Record) error {
	return s.write(ctx, &op{records: sealed(r), apply: func(t *tx) error {
		var used, revoked sql.NullInt64
		err := t.row(`SELECT used_at, revoked_at FROM challenge WHERE id = ?`, []any{id}, func(scan func(...any) error) error { return scan(&used, &revoked) })
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return errNoChallenge()
		case err != nil:
			return err
		case used.Valid:
			return fault.New(fault.Conflict, "the challenge was used on %s", timeOf(used.Int64).Format(time.RFC3339))
		case revoked.Valid:
			return fault.New(fault.Conflict, "the challenge has been revoked since %s", timeOf(revoked.Int64).Format(time.RFC3339))
		}
		return t.exec(`UPDATE challenge SET revoked_at = ? WHERE id = ?`, micros(at), id)
	}})
}

// RevokeChallenges ends every challenge that matches.
func (s *Store) RevokeChallenges(ctx context.Context, f store.ChallengeFilter, at time.Time, r audit.Record) (n int, err error) {
	c := &clauses{from: `UPDATE challenge SET revoked_at = ?`, args: []any{micros(at)}}
	c.challenge(f)
	c.add(`used_at IS NULL AND revoked_at IS NULL`)
	o := &op{}
	o.apply = func(t *tx) error {
		res, err := t.execResult(c.String(), c.args...)
		if err != nil {
			return err
		}
		rows, err := res.RowsAffected()
		n, o.records = int(rows), sealed(store.CountedChallenges(r, int(rows)))
		return err
	}
	err = s.write(ctx, o)
	return n, err
}

// FailChallenge counts a wrong secret.
func (s *Store) FailChallenge(ctx context.Context, id string, r audit.Record) error {
	return s.write(ctx, &op{records: sealed(r), apply: func(t *tx) error {
		res, err := t.execResult(`UPDATE challenge SET failures = failures + 1 WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return errNoChallenge()
	}})
}

const enrollmentColumns = `point, transaction_id, spki_hash, version, id, state, csr_hash, signer_hash, challenge, issued, replaces, subject, sans,
	profile, device, source, reason, decided_by, created_at, updated_at, expires_at, overrides`

func scanEnrollment(scan func(...any) error) (pki.Enrollment, error) {
	var (
		e                                   pki.Enrollment
		spki, csr, signer, issued, replaces []byte
		state                               int
		sans                                string
		created, updated, expires           int64
	)
	err := scan(&e.Point, &e.TransactionID, &spki, &e.Version, &e.ID, &state, &csr, &signer, &e.Challenge, &issued, &replaces, &e.Subject, &sans,
		&e.Profile, &e.Device, &e.Source, &e.Reason, &e.DecidedBy, &created, &updated, &expires, &e.Overrides)
	if err != nil {
		return e, err
	}
	e.SPKIHash, e.CSRHash, e.SignerHash, e.Issued, e.Replaces = hash32(spki), hash32(csr), hash32(signer), hash32(issued), hash32(replaces)
	e.State, e.CreatedAt, e.UpdatedAt, e.ExpiresAt = pki.EnrollmentState(state), timeOf(created), timeOf(updated), timeOf(expires)
	e.SANs, err = decodeStrings(sans)
	return e, err
}

// Enrollment returns the row of a key.
func (s *Store) Enrollment(ctx context.Context, point, transactionID string, spkiHash [32]byte) (pki.Enrollment, error) {
	return s.enrollment(ctx, `SELECT `+enrollmentColumns+` FROM enrollment WHERE point = ? AND transaction_id = ? AND spki_hash = ?`, point, transactionID, spkiHash[:])
}

// EnrollmentBySigner returns the newest row of a transactionID and a signer.
func (s *Store) EnrollmentBySigner(ctx context.Context, point, transactionID string, signerHash [32]byte) (pki.Enrollment, error) {
	return s.enrollment(ctx, `
		SELECT `+enrollmentColumns+` FROM enrollment WHERE point = ? AND transaction_id = ? AND signer_hash = ?
		ORDER BY updated_at DESC LIMIT 1`, point, transactionID, signerHash[:])
}

// Successor returns the newest certificate that renews another.
func (s *Store) Successor(ctx context.Context, f pki.Fingerprint) (pki.Certificate, error) {
	if err := s.begin(ctx); err != nil {
		return pki.Certificate{}, err
	}
	c, err := scanCertificate(s.read.QueryRowContext(ctx, `
		SELECT `+certificateColumns+` FROM certificate c `+joinRevocation+`
		WHERE c.replaces = ? ORDER BY c.issued_at DESC, c.serial DESC LIMIT 1`, f[:]).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return c, fault.New(fault.NotFound, "the certificate was not renewed")
	}
	return c, s.asFault(ctx, err, "reading a certificate's successor")
}

// EnrollmentByID returns a request that waits or has waited.
func (s *Store) EnrollmentByID(ctx context.Context, id string) (pki.Enrollment, error) {
	return s.enrollment(ctx, `SELECT `+enrollmentColumns+` FROM enrollment WHERE id = ? AND id <> ''`, id)
}

func (s *Store) enrollment(ctx context.Context, query string, args ...any) (pki.Enrollment, error) {
	if err := s.begin(ctx); err != nil {
		return pki.Enrollment{}, err
	}
	e, err := scanEnrollment(s.read.QueryRowContext(ctx, query, args...).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return e, fault.New(fault.NotFound, "there is no such request")
	}
	return e, s.asFault(ctx, err, "reading an enrollment")
}

// ListEnrollments returns a page of requests that wait or have waited.
func (s *Store) ListEnrollments(ctx context.Context, f store.EnrollmentFilter, p store.Page) (page []pki.Enrollment, next string, err error) {
	limit := pageLimit(p)
	c := &clauses{from: `FROM enrollment`}
	if err := c.afterCreated('e', p.Cursor); err != nil {
		return nil, "", err
	}
	if err := s.begin(ctx); err != nil {
		return nil, "", err
	}
	c.add(`id <> ''`)
	if f.Point != "" {
		c.add(`point = ?`, f.Point)
	}
	if f.Device != "" {
		c.add(`device = ?`, f.Device)
	}
	if !f.OpenAt.IsZero() {
		c.add(`expires_at > ?`, micros(f.OpenAt))
	}
	if !f.OverAt.IsZero() {
		c.add(`expires_at <= ?`, micros(f.OverAt))
	}
	in(c, `state`, f.States)
	err = each(ctx, s.read, `SELECT `+enrollmentColumns+` `+c.String()+` ORDER BY created_at DESC, id DESC LIMIT ?`, append(c.args, limit+1), func(scan func(...any) error) error {
		e, err := scanEnrollment(scan)
		page = append(page, e)
		return err
	})
	if err != nil {
		return nil, "", s.asFault(ctx, err, "listing enrollments")
	}
	if len(page) > limit {
		page = page[:limit]
		next = createdCursor('e', page[limit-1].CreatedAt, page[limit-1].ID)
	}
	return page, next, nil
}

// PutEnrollment writes a request that is to wait, or a decision.
func (s *Store) PutEnrollment(ctx context.Context, c store.EnrollmentChange) error {
	return s.write(ctx, &op{records: sealed(c.Record), apply: func(t *tx) error {
		if c.Enrollment.State == pki.EnrollmentPending && c.Enrollment.Device != "" {
			if err := t.servesDevice(c.Enrollment.Device); err != nil {
				return err
			}
		}
		if err := t.admitEnrollment(&c); err != nil {
			return err
		}
		return t.putEnrollment(&c)
	}})
}

// admitEnrollment refuses a change that comes too late. Nothing is written.
func (t *tx) admitEnrollment(c *store.EnrollmentChange) error {
	e := &c.Enrollment
	var version int
	err := t.row(`SELECT version FROM enrollment WHERE point = ? AND transaction_id = ? AND spki_hash = ?`, []any{e.Point, e.TransactionID, e.SPKIHash[:]},
		func(scan func(...any) error) error { return scan(&version) })
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if e.Version != version+1 {
		return fault.Wrap(fault.Conflict, store.ErrStale, "the enrollment has changed in between")
	}
	if !c.UseChallenge {
		return nil
	}
	var used, revoked sql.NullInt64
	var expires int64
	err = t.row(`SELECT used_at, revoked_at, expires_at FROM challenge WHERE id = ?`, []any{e.Challenge}, func(scan func(...any) error) error {
		return scan(&used, &revoked, &expires)
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err != nil || used.Valid || revoked.Valid || expires <= micros(e.UpdatedAt) {
		return fault.Wrap(fault.Conflict, store.ErrChallengeUsed, "the challenge was used, was revoked or has ended")
	}
	return nil
}

// putEnrollment writes what admitEnrollment let through.
func (t *tx) putEnrollment(c *store.EnrollmentChange) error {
	e := &c.Enrollment
	sans, err := encodeStrings(e.SANs)
	if err != nil {
		return err
	}
	if e.Version > 1 {
		// Of a request that another one takes the place of nobody could find the secret any more.
		err := t.exec(`
			DELETE FROM sealed_secret WHERE name IN (
				SELECT ? || id FROM enrollment WHERE point = ? AND transaction_id = ? AND spki_hash = ? AND id NOT IN ('', ?))`,
			pki.SecretEnrollment(""), e.Point, e.TransactionID, e.SPKIHash[:], e.ID)
		if err != nil {
			return err
		}
	}
	err = t.exec(`
		INSERT INTO enrollment (`+enrollmentColumns+`)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (point, transaction_id, spki_hash) DO UPDATE SET
			version = excluded.version, id = excluded.id, state = excluded.state, csr_hash = excluded.csr_hash, signer_hash = excluded.signer_hash,
			challenge = excluded.challenge, issued = excluded.issued, replaces = excluded.replaces, subject = excluded.subject, sans = excluded.sans,
			profile = excluded.profile, device = excluded.device, source = excluded.source, reason = excluded.reason, decided_by = excluded.decided_by,
			created_at = excluded.created_at, updated_at = excluded.updated_at, expires_at = excluded.expires_at, overrides = excluded.overrides`,
		e.Point, e.TransactionID, e.SPKIHash[:], e.Version, e.ID, int(e.State), e.CSRHash[:], e.SignerHash[:], e.Challenge, optionalFingerprint(e.Issued),
		optionalFingerprint(e.Replaces), e.Subject, sans, e.Profile, e.Device, e.Source, e.Reason, e.DecidedBy, micros(e.CreatedAt), micros(e.UpdatedAt), micros(e.ExpiresAt), e.Overrides)
	if err != nil {
		return err
	}
	if c.UseChallenge {
		err := t.exec(`UPDATE challenge SET used_at = ?, used_by = ? WHERE id = ?`, micros(e.UpdatedAt), optionalFingerprint(e.Issued), e.Challenge)
		if err != nil {
			return err
		}
	} else if e.Challenge != "" && e.Issued != (pki.Fingerprint{}) {
		// What waited has its certificate now.
		if err := t.exec(`UPDATE challenge SET used_by = ? WHERE id = ? AND used_by IS NULL AND used_at IS NOT NULL`, e.Issued[:], e.Challenge); err != nil {
			return err
		}
	}
	if len(c.Request) > 0 {
		if err := t.putSecret(pki.SecretEnrollment(e.ID), c.Request); err != nil {
			return err
		}
	}
	return t.putNotifications(c.Notifications)
}

// PruneEnrollments forgets rows that have ended.
func (s *Store) PruneEnrollments(ctx context.Context, before time.Time, limit int) (n int, err error) {
	err = s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		if t.head.Closed {
			return errNotInUse()
		}
		var rows []int64
		var ids []string
		args := []any{micros(before), int(pki.EnrollmentPending), int(pki.EnrollmentExpired), micros(before.Add(-store.KeepExpired)), limit}
		err := t.rows(`
			SELECT rowid, id FROM enrollment WHERE expires_at < ? AND state <> ? AND (state <> ? OR expires_at < ?)
			ORDER BY expires_at LIMIT ?`, args, func(scan func(...any) error) error {
			var row int64
			var id string
			err := scan(&row, &id)
			rows, ids = append(rows, row), append(ids, id)
			return err
		})
		if err != nil {
			return err
		}
		for i, row := range rows {
			if err := t.exec(`DELETE FROM enrollment WHERE rowid = ?`, row); err != nil {
				return err
			}
			if ids[i] != "" {
				if err := t.putSecret(pki.SecretEnrollment(ids[i]), nil); err != nil {
					return err
				}
			}
		}
		n = len(rows)
		return nil
	}})
	return n, err
}

// AllRACertificates returns every RA certificate.
func (s *Store) AllRACertificates(ctx context.Context) ([]pki.RACertificate, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	var cs []pki.RACertificate
	err := each(ctx, s.read, `SELECT issuer_id, number, key_id, fingerprint, der, created_at FROM ra_certificate ORDER BY issuer_id, number`, nil, func(scan func(...any) error) error {
		var c pki.RACertificate
		var fingerprint []byte
		var created int64
		err := scan(&c.IssuerID, &c.Number, &c.KeyID, &fingerprint, &c.DER, &created)
		c.Fingerprint, c.CreatedAt = hash32(fingerprint), timeOf(created)
		cs = append(cs, c)
		return err
	})
	if err != nil {
		return nil, s.asFault(ctx, err, "reading RA certificates")
	}
	return cs, nil
}

// PutRACertificate puts an RA certificate into use.
func (s *Store) PutRACertificate(ctx context.Context, r store.RAChange) error {
	c := r.Certificate
	return s.write(ctx, &op{whole: true, records: sealed(r.Record), apply: func(t *tx) error {
		var newest int
		err := t.row(`SELECT coalesce(max(number), 0) FROM ra_certificate WHERE issuer_id = ?`, []any{c.IssuerID}, func(scan func(...any) error) error { return scan(&newest) })
		if err != nil {
			return err
		}
		if c.Number != newest+1 {
			return fault.Wrap(fault.Conflict, store.ErrStale, "the newest RA certificate of the issuer has number %d", newest)
		}
		err = t.exec(`INSERT INTO ra_certificate (issuer_id, number, key_id, fingerprint, der, created_at) VALUES (?, ?, ?, ?, ?, ?)`,
			c.IssuerID, c.Number, c.KeyID, c.Fingerprint[:], blob(c.DER), micros(c.CreatedAt))
		if err != nil {
			return conflict(err, "there is no such issuer, or the certificate has been recorded before")
		}
		if r.Key != nil {
			if err := t.putSecret(pki.SecretRA(c.KeyID), r.Key); err != nil {
				return err
			}
		}
		for _, keyID := range r.Drop {
			if err := t.putSecret(pki.SecretRA(keyID), nil); err != nil {
				return err
			}
		}
		t.config = true
		return nil
	}})
}

// Secret returns what is sealed under a name.
func (s *Store) Secret(ctx context.Context, name string) ([]byte, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	var b []byte
	err := s.read.QueryRowContext(ctx, `SELECT sealed FROM sealed_secret WHERE name = ?`, name).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "there is no such secret")
	}
	return b, s.asFault(ctx, err, "reading a sealed secret")
}

// AllSecrets returns everything that is sealed under a name.
func (s *Store) AllSecrets(ctx context.Context) (map[string][]byte, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	all := map[string][]byte{}
	err := each(ctx, s.read, `SELECT name, sealed FROM sealed_secret`, nil, func(scan func(...any) error) error {
		var name string
		var b []byte
		err := scan(&name, &b)
		all[name] = b
		return err
	})
	if err != nil {
		return nil, s.asFault(ctx, err, "reading the sealed secrets")
	}
	return all, nil
}
