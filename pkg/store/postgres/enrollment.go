package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// AllPoints implements store.Points.
func (s *Store) AllPoints(ctx context.Context) ([]pki.PointVersion, error) {
	return s.points(ctx, `
		SELECT DISTINCT ON (name COLLATE "C") name, version, config, created_at, created_by
		FROM enrollment_point
		ORDER BY name COLLATE "C", version DESC`)
}

// PointHistory implements store.Points.
func (s *Store) PointHistory(ctx context.Context, name string) ([]pki.PointVersion, error) {
	list, err := s.points(ctx, `
		SELECT name, version, config, created_at, created_by
		FROM enrollment_point
		WHERE name = $1
		ORDER BY version DESC`, text(name))
	if err == nil && len(list) == 0 {
		return nil, fault.New(fault.NotFound, "there is no enrollment point of this name")
	}
	return list, err
}

func (s *Store) points(ctx context.Context, sql string, args ...any) ([]pki.PointVersion, error) {
	return read(ctx, s, "reading enrollment points", func(conn *pgxpool.Conn) ([]pki.PointVersion, error) {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p pki.PointVersion, err error) {
			err = row.Scan(&p.Name, &p.Version, &p.Config, &p.CreatedAt, &p.CreatedBy)
			p.CreatedAt = p.CreatedAt.UTC()
			return p, err
		})
	})
}

// PutPoint implements store.Points.
func (s *Store) PutPoint(ctx context.Context, c store.PointChange) error {
	p := c.Point
	stale := func(newest int, cause error) error {
		return fault.Wrap(fault.Conflict, cause, "version %d of enrollment point %q must follow version %d", p.Version, p.Name, newest)
	}
	newest := 0
	first := func(b *pgx.Batch) {
		b.Queue(`SELECT coalesce(max(version), 0) FROM enrollment_point WHERE name = $1`, text(p.Name)).QueryRow(func(row pgx.Row) error {
			return row.Scan(&newest)
		})
	}
	return s.write(ctx, "writing an enrollment point", first, func(t *tx) error {
		if p.Version != newest+1 {
			return stale(newest, store.ErrStale)
		}
		b := &pgx.Batch{}
		b.Queue(`INSERT INTO enrollment_point (name, version, config, created_at, created_by) VALUES ($1, $2, $3, $4, $5)`,
			text(p.Name), p.Version, notNull(p.Config), cut(p.CreatedAt), text(p.CreatedBy))
		if c.Secret != nil {
			queueSecret(b, pki.SecretPoint(p.Name), c.Secret)
		}
		if c.WebhookSecret != nil {
			queueSecret(b, pki.SecretWebhook(p.Name), c.WebhookSecret)
		}
		t.seals = sealing{config: true, records: []audit.Record{c.Record}}
		err := t.SendBatch(ctx, b).Close()
		if isCode(err, codeUniqueViolation) { // another was faster
			return stale(newest+1, store.ErrStale)
		}
		return err
	})
}

// queueSecret keeps what is sealed under a name; nothing takes the name away.
func queueSecret(b *pgx.Batch, name string, sealed []byte) {
	if len(sealed) == 0 {
		b.Queue(`DELETE FROM sealed_secret WHERE name = $1`, text(name))
		return
	}
	b.Queue(`INSERT INTO sealed_secret (name, sealed) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed`, text(name), sealed)
}

// challengesAtOnce is how many challenges one statement inserts: a hundred thousand at once are to be no single message.
const challengesAtOnce = 1000

// CreateChallenges implements store.Challenges.
func (s *Store) CreateChallenges(ctx context.Context, cs []pki.Challenge, record audit.Record) error {
	devices := store.ExpectedDevices(cs)
	return s.write(ctx, "creating challenges", nil, func(t *tx) error {
		t.seals = sealing{records: []audit.Record{record}}
		if err := expectDevices(ctx, t, devices); err != nil {
			return err
		}
		for some := range slices.Chunk(cs, challengesAtOnce) {
			if err := insertChallenges(ctx, t, some); err != nil {
				return err
			}
		}
		return nil
	})
}

func insertChallenges(ctx context.Context, t *tx, cs []pki.Challenge) error {
	n := len(cs)
	var (
		strs     = make([]string, 9*n)
		column   = func(i int) []string { return strs[i*n : (i+1)*n : (i+1)*n] }
		hashes   = make([][]byte, n)
		usedBy   = make([][]byte, n)
		created  = make([]time.Time, n)
		expires  = make([]time.Time, n)
		used     = make([]*time.Time, n)
		revoked  = make([]*time.Time, n)
		failures = make([]int32, n)
	)
	ids, points, profiles, subjects := column(0), column(1), column(2), column(3)
	sans, devices, notes, creators, batches := column(4), column(5), column(6), column(7), column(8)
	for i, c := range cs {
		ids[i], points[i], profiles[i], subjects[i] = text(c.ID), text(c.Point), text(c.Profile), text(c.Subject)
		sans[i], devices[i], notes[i], creators[i], batches[i] = text(arrayLiteral(c.SANs)), text(c.Device), text(c.Note), text(c.CreatedBy), text(c.Batch)
		hashes[i], usedBy[i], created[i], expires[i] = c.Hash[:], orNullFingerprint(c.UsedBy), cut(c.CreatedAt), cut(c.ExpiresAt)
		used[i], revoked[i], failures[i] = orNull(c.UsedAt), orNull(c.RevokedAt), int32(c.Failures)
	}
	_, err := t.Exec(ctx, `
		INSERT INTO challenge (id, hash, point, profile, subject, sans, device, note, created_at, created_by, expires_at, used_at, used_by, revoked_at, failures, batch)
		SELECT u.id, u.hash, u.point, u.profile, u.subject, u.sans::text[], u.device, u.note, u.created_at, u.created_by, u.expires_at, u.used_at, u.used_by, u.revoked_at, u.failures, u.batch
		FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::timestamptz[], $10::text[],
			$11::timestamptz[], $12::timestamptz[], $13::bytea[], $14::timestamptz[], $15::integer[], $16::text[])
			AS u (id, hash, point, profile, subject, sans, device, note, created_at, created_by, expires_at, used_at, used_by, revoked_at, failures, batch)`,
		ids, hashes, points, profiles, subjects, sans, devices, notes, created, creators, expires, used, usedBy, revoked, failures, batches)
	return err
}

func orNullFingerprint(f pki.Fingerprint) []byte {
	if f == (pki.Fingerprint{}) {
		return nil
	}
	return f[:]
}

const challengeColumns = `id, hash, point, profile, subject, sans, device, note, created_at, created_by, expires_at, used_at, used_by, revoked_at, failures, batch`

func scanChallenge(row pgx.CollectableRow) (c pki.Challenge, err error) {
	var hash, usedBy []byte
	var used, revoked *time.Time
	err = row.Scan(&c.ID, &hash, &c.Point, &c.Profile, &c.Subject, &c.SANs, &c.Device, &c.Note, &c.CreatedAt, &c.CreatedBy, &c.ExpiresAt,
		&used, &usedBy, &revoked, &c.Failures, &c.Batch)
	if err != nil {
		return c, err
	}
	if len(c.SANs) == 0 {
		c.SANs = nil
	}
	c.CreatedAt, c.ExpiresAt, c.UsedAt, c.RevokedAt = c.CreatedAt.UTC(), c.ExpiresAt.UTC(), fromNull(used), fromNull(revoked)
	return c, errors.Join(setHash(c.Hash[:], hash, "challenge.hash"), setOrNull(c.UsedBy[:], usedBy, "challenge.used_by"))
}

// setOrNull copies a hash that may be NULL.
func setOrNull(to, from []byte, column string) error {
	if from == nil {
		return nil
	}
	return setHash(to, from, column)
}

// Challenge implements store.Challenges.
func (s *Store) Challenge(ctx context.Context, id string) (pki.Challenge, error) {
	return read(ctx, s, "reading a challenge", func(conn *pgxpool.Conn) (pki.Challenge, error) {
		rows, err := conn.Query(ctx, `SELECT `+challengeColumns+` FROM challenge WHERE id = $1`, text(id))
		if err != nil {
			return pki.Challenge{}, err
		}
		c, err := pgx.CollectExactlyOneRow(rows, scanChallenge)
		if isNoRows(err) {
			return c, errNoChallenge()
		}
		return c, err
	})
}

func errNoChallenge() error { return fault.New(fault.NotFound, "there is no such challenge") }

const (
	challengeList  = "challenges"
	enrollmentList = "enrollments"
)

// createdCursor is the place of a row in a list by creation and id, the newest first.
func createdCursor(list string, created time.Time, id string) string {
	return cursor(list, append(binary.BigEndian.AppendUint64(nil, uint64(created.UnixMicro())), id...))
}

// afterCreated adds what is behind a cursor of createdCursor.
func (w *where) afterCreated(list, cursor string) error {
	if cursor == "" {
		return nil
	}
	place, err := parseCursor(list, cursor)
	if err != nil {
		return err
	}
	if len(place) < 8 {
		return fault.New(fault.BadRequest, "the cursor is not one of this list").WithField("cursor")
	}
	w.and(`(created_at, id COLLATE "C") < (?, ?)`, time.UnixMicro(int64(binary.BigEndian.Uint64(place))).UTC(), string(place[8:]))
	return nil
}

// ListChallenges implements store.Challenges.
func (s *Store) ListChallenges(ctx context.Context, f store.ChallengeFilter, p store.Page) ([]pki.Challenge, string, error) {
	limit, err := limitOf(p.Limit)
	if err != nil {
		return nil, "", err
	}
	w := whereChallenge(f)
	if err := w.afterCreated(challengeList, p.Cursor); err != nil {
		return nil, "", err
	}
	sql := `SELECT ` + challengeColumns + ` FROM challenge` + w.String() + ` ORDER BY created_at DESC, id COLLATE "C" DESC LIMIT ` + strconv.Itoa(limit+1)
	list, err := readOn(ctx, s, s.lists, "listing challenges", func(conn *pgxpool.Conn) ([]pki.Challenge, error) {
		rows, err := conn.Query(ctx, sql, append([]any{pgx.QueryExecModeDescribeExec}, w.args...)...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, scanChallenge)
	})
	if err != nil || len(list) <= limit {
		return list, "", err
	}
	return list[:limit], createdCursor(challengeList, list[limit-1].CreatedAt, list[limit-1].ID), nil
}

func whereChallenge(f store.ChallengeFilter) (w where) {
	if f.Point != "" {
		w.and(`point = ?`, text(f.Point))
	}
	if f.Device != "" {
		w.and(`device = ?`, text(f.Device))
	}
	if f.Batch != "" {
		w.and(`batch = ?`, text(f.Batch))
	}
	if !f.OpenAt.IsZero() {
		w.and(`used_at IS NULL AND revoked_at IS NULL AND expires_at > ?`, cut(f.OpenAt))
	}
	return w
}

// RevokeChallenge implements store.Challenges.
func (s *Store) RevokeChallenge(ctx context.Context, id string, at time.Time, record audit.Record) error {
	var used, revoked *time.Time
	found := false
	first := func(b *pgx.Batch) {
		found = false
		b.Queue(`SELECT used_at, revoked_at FROM challenge WHERE id = $1 FOR UPDATE`, text(id)).QueryRow(func(row pgx.Row) error {
			err := row.Scan(&used, &revoked)
			found = err == nil
			if isNoRows(err) {
				return nil
			}
			return err
		})
	}
	return s.write(ctx, "revoking a challenge", first, func(t *tx) error {
		switch {
		case !found:
			return errNoChallenge()
		case used != nil:
			return fault.New(fault.Conflict, "the challenge was used on %s", used.UTC().Format(time.RFC3339))
		case revoked != nil:
			return fault.New(fault.Conflict, "the challenge has been revoked since %s", revoked.UTC().Format(time.RFC3339))
		}
		t.seals = sealing{records: []audit.Record{record}}
		_, err := t.Exec(ctx, `UPDATE challenge SET revoked_at = $2 WHERE id = $1`, text(id), cut(at))
		return err
	})
}

// RevokeChallenges implements store.Challenges.
func (s *Store) RevokeChallenges(ctx context.Context, f store.ChallengeFilter, at time.Time, record audit.Record) (n int, err error) {
	w := whereChallenge(f)
	w.and(`used_at IS NULL AND revoked_at IS NULL`)
	w.args = append(w.args, cut(at))
	sql := `UPDATE challenge SET revoked_at = $` + strconv.Itoa(len(w.args)) + w.String()
	err = s.write(ctx, "revoking challenges", nil, func(t *tx) error {
		tag, err := t.Exec(ctx, sql, w.args...)
		n = int(tag.RowsAffected())
		t.seals = sealing{records: []audit.Record{store.CountedChallenges(record, n)}}
		return err
	})
	return n, err
}

// FailChallenge implements store.Challenges.
func (s *Store) FailChallenge(ctx context.Context, id string, record audit.Record) error {
	return s.write(ctx, "counting a wrong challenge", nil, func(t *tx) error {
		t.seals = sealing{records: []audit.Record{record}}
		tag, err := t.Exec(ctx, `UPDATE challenge SET failures = failures + 1 WHERE id = $1`, text(id))
		if err == nil && tag.RowsAffected() == 0 {
			return errNoChallenge()
		}
		return err
	})
}

const enrollmentColumns = `point, transaction_id, spki_hash, version, id, state, csr_hash, signer_hash, challenge, issued, replaces, subject, sans,
	profile, device, source, reason, decided_by, created_at, updated_at, expires_at, overrides`

func scanEnrollment(row pgx.CollectableRow) (e pki.Enrollment, err error) {
	var spki, csr, signer, issued, replaces []byte
	err = row.Scan(&e.Point, &e.TransactionID, &spki, &e.Version, &e.ID, (*int)(&e.State), &csr, &signer, &e.Challenge, &issued, &replaces, &e.Subject, &e.SANs,
		&e.Profile, &e.Device, &e.Source, &e.Reason, &e.DecidedBy, &e.CreatedAt, &e.UpdatedAt, &e.ExpiresAt, &e.Overrides)
	if err != nil {
		return e, err
	}
	if len(e.SANs) == 0 {
		e.SANs = nil
	}
	e.CreatedAt, e.UpdatedAt, e.ExpiresAt = e.CreatedAt.UTC(), e.UpdatedAt.UTC(), e.ExpiresAt.UTC()
	return e, errors.Join(
		setHash(e.SPKIHash[:], spki, "enrollment.spki_hash"), setHash(e.CSRHash[:], csr, "enrollment.csr_hash"), setHash(e.SignerHash[:], signer, "enrollment.signer_hash"),
		setOrNull(e.Issued[:], issued, "enrollment.issued"), setOrNull(e.Replaces[:], replaces, "enrollment.replaces"))
}

// Enrollment implements store.Enrollments.
func (s *Store) Enrollment(ctx context.Context, point, transactionID string, spkiHash [32]byte) (pki.Enrollment, error) {
	return s.enrollment(ctx, `SELECT `+enrollmentColumns+` FROM enrollment WHERE point = $1 AND transaction_id = $2 AND spki_hash = $3`,
		text(point), text(transactionID), spkiHash[:])
}

// EnrollmentBySigner implements store.Enrollments.
func (s *Store) EnrollmentBySigner(ctx context.Context, point, transactionID string, signerHash [32]byte) (pki.Enrollment, error) {
	return s.enrollment(ctx, `
		SELECT `+enrollmentColumns+` FROM enrollment WHERE point = $1 AND transaction_id = $2 AND signer_hash = $3
		ORDER BY updated_at DESC LIMIT 1`, text(point), text(transactionID), signerHash[:])
}

// Successor implements store.Enrollments.
func (s *Store) Successor(ctx context.Context, f pki.Fingerprint) (pki.Certificate, error) {
	return read(ctx, s, "reading a certificate's successor", func(conn *pgxpool.Conn) (pki.Certificate, error) {
		rows, err := conn.Query(ctx, `SELECT `+certificateColumns+` `+certificateTables+`
			WHERE c.replaces = $1 ORDER BY c.issued_at DESC, c.serial DESC LIMIT 1`, f[:])
		if err != nil {
			return pki.Certificate{}, err
		}
		c, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (pki.Certificate, error) { return scanCertificate(row) })
		if isNoRows(err) {
			return c, fault.New(fault.NotFound, "the certificate was not renewed")
		}
		return c, err
	})
}

// EnrollmentByID implements store.Enrollments.
func (s *Store) EnrollmentByID(ctx context.Context, id string) (pki.Enrollment, error) {
	return s.enrollment(ctx, `SELECT `+enrollmentColumns+` FROM enrollment WHERE id = $1 AND id <> ''`, text(id))
}

func (s *Store) enrollment(ctx context.Context, sql string, args ...any) (pki.Enrollment, error) {
	return read(ctx, s, "reading an enrollment", func(conn *pgxpool.Conn) (pki.Enrollment, error) {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return pki.Enrollment{}, err
		}
		e, err := pgx.CollectExactlyOneRow(rows, scanEnrollment)
		if isNoRows(err) {
			return e, fault.New(fault.NotFound, "there is no such request")
		}
		return e, err
	})
}

// ListEnrollments implements store.Enrollments.
func (s *Store) ListEnrollments(ctx context.Context, f store.EnrollmentFilter, p store.Page) ([]pki.Enrollment, string, error) {
	limit, err := limitOf(p.Limit)
	if err != nil {
		return nil, "", err
	}
	var w where
	w.and(`id <> ''`)
	if f.Point != "" {
		w.and(`point = ?`, text(f.Point))
	}
	if f.Device != "" {
		w.and(`device = ?`, text(f.Device))
	}
	if !f.OpenAt.IsZero() {
		w.and(`expires_at > ?`, cut(f.OpenAt))
	}
	if !f.OverAt.IsZero() {
		w.and(`expires_at <= ?`, cut(f.OverAt))
	}
	if len(f.States) > 0 {
		states := make([]int16, len(f.States))
		for i, state := range f.States {
			states[i] = int16(state)
		}
		w.and(`state = ANY(?::smallint[])`, states)
	}
	if err := w.afterCreated(enrollmentList, p.Cursor); err != nil {
		return nil, "", err
	}
	sql := `SELECT ` + enrollmentColumns + ` FROM enrollment` + w.String() + ` ORDER BY created_at DESC, id COLLATE "C" DESC LIMIT ` + strconv.Itoa(limit+1)
	list, err := readOn(ctx, s, s.lists, "listing enrollments", func(conn *pgxpool.Conn) ([]pki.Enrollment, error) {
		rows, err := conn.Query(ctx, sql, append([]any{pgx.QueryExecModeDescribeExec}, w.args...)...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, scanEnrollment)
	})
	if err != nil || len(list) <= limit {
		return list, "", err
	}
	return list[:limit], createdCursor(enrollmentList, list[limit-1].CreatedAt, list[limit-1].ID), nil
}

// PutEnrollment implements store.Enrollments.
func (s *Store) PutEnrollment(ctx context.Context, c store.EnrollmentChange) error {
	first := func(b *pgx.Batch) {
		if c.Enrollment.State == pki.EnrollmentPending && c.Enrollment.Device != "" {
			queueServed(b, c.Enrollment.Device)
		}
		queueEnrollments(b, []*store.EnrollmentChange{&c})
	}
	return s.write(ctx, "writing an enrollment", first, func(t *tx) error {
		t.seals = sealing{records: []audit.Record{c.Record}}
		return nil
	})
}

// sqlPutEnrollments writes rows whose version is the next one. A row that is not there counts as version 0.
const sqlPutEnrollments = `
	INSERT INTO enrollment (` + enrollmentColumns + `)
	SELECT u.point, u.transaction_id, u.spki_hash, u.version, u.id, u.state, u.csr_hash, u.signer_hash, u.challenge, u.issued, u.replaces, u.subject, u.sans::text[],
		u.profile, u.device, u.source, u.reason, u.decided_by, u.created_at, u.updated_at, u.expires_at, u.overrides
	FROM unnest($1::text[], $2::text[], $3::bytea[], $4::integer[], $5::text[], $6::smallint[], $7::bytea[], $8::bytea[], $9::text[], $10::bytea[], $11::bytea[],
		$12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::timestamptz[], $20::timestamptz[], $21::timestamptz[], $22::text[])
		AS u (` + enrollmentColumns + `)
	LEFT JOIN enrollment e ON e.point = u.point AND e.transaction_id = u.transaction_id AND e.spki_hash = u.spki_hash
	WHERE u.version = 1 OR e.version = u.version - 1
	ON CONFLICT (point, transaction_id, spki_hash) DO UPDATE SET
		version = excluded.version, id = excluded.id, state = excluded.state, csr_hash = excluded.csr_hash, signer_hash = excluded.signer_hash,
		challenge = excluded.challenge, issued = excluded.issued, replaces = excluded.replaces, subject = excluded.subject, sans = excluded.sans,
		profile = excluded.profile, device = excluded.device, source = excluded.source, reason = excluded.reason, decided_by = excluded.decided_by,
		created_at = excluded.created_at, updated_at = excluded.updated_at, expires_at = excluded.expires_at, overrides = excluded.overrides
	WHERE enrollment.version = excluded.version - 1`

// sqlDropReplaced forgets the secrets of requests that others take the place of: nobody could find them any more.
const sqlDropReplaced = `
	DELETE FROM sealed_secret WHERE name IN (
		SELECT 'enrollment/' || e.id FROM enrollment e
		JOIN unnest($1::text[], $2::text[], $3::bytea[], $4::text[]) AS u (point, transaction_id, spki_hash, id)
			ON e.point = u.point AND e.transaction_id = u.transaction_id AND e.spki_hash = u.spki_hash
		WHERE e.id <> '' AND e.id <> u.id)`

// sqlUseChallenges locks in the order of ids, so that two batches do not wait for each other in a circle.
const sqlUseChallenges = `
	WITH u AS (
		SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::bytea[]) AS u (id, used_at, used_by)
	), held AS (
		SELECT c.id FROM challenge c JOIN u ON u.id = c.id ORDER BY c.id FOR UPDATE OF c
	)
	UPDATE challenge c SET used_at = u.used_at, used_by = u.used_by
	FROM u, held
	WHERE c.id = u.id AND c.id = held.id AND c.used_at IS NULL AND c.revoked_at IS NULL AND c.expires_at > u.used_at`

// queueEnrollments queues what writes enrollments with the challenges that they use. When one of them comes too late, all
// fail with the fault that a single one would get.
func queueEnrollments(b *pgx.Batch, changes []*store.EnrollmentChange) {
	if len(changes) == 0 {
		return
	}
	changes = slices.Clone(changes)
	slices.SortFunc(changes, func(x, y *store.EnrollmentChange) int {
		a, c := &x.Enrollment, &y.Enrollment
		if d := strings.Compare(a.Point+"\x00"+a.TransactionID, c.Point+"\x00"+c.TransactionID); d != 0 {
			return d
		}
		return slices.Compare(a.SPKIHash[:], c.SPKIHash[:])
	})
	n := len(changes)
	var (
		strs   = make([]string, 12*n)
		column = func(i int) []string { return strs[i*n : (i+1)*n : (i+1)*n] }
		octets = make([][]byte, 5*n)
		bytea  = func(i int) [][]byte { return octets[i*n : (i+1)*n : (i+1)*n] }

		points, transactions, ids, challenges, subjects, sans = column(0), column(1), column(2), column(3), column(4), column(5)
		profiles, devices, sources, reasons, deciders         = column(6), column(7), column(8), column(9), column(10)
		overrides                                             = column(11)
		spkis, csrs, signers, issued, replaces                = bytea(0), bytea(1), bytea(2), bytea(3), bytea(4)
		versions, states                                      = make([]int32, n), make([]int16, n)
		created, updated, expires                             = make([]time.Time, n), make([]time.Time, n), make([]time.Time, n)

		using, fulfilled    []string
		usedBy, fulfilledBy [][]byte
		usedAt              []time.Time
	)
	for i, c := range changes {
		e := &c.Enrollment
		points[i], transactions[i], ids[i], challenges[i] = text(e.Point), text(e.TransactionID), text(e.ID), text(e.Challenge)
		subjects[i], sans[i], profiles[i], devices[i] = text(e.Subject), text(arrayLiteral(e.SANs)), text(e.Profile), text(e.Device)
		sources[i], reasons[i], deciders[i], overrides[i] = text(e.Source), text(e.Reason), text(e.DecidedBy), text(e.Overrides)
		spkis[i], csrs[i], signers[i], issued[i], replaces[i] = e.SPKIHash[:], e.CSRHash[:], e.SignerHash[:], orNullFingerprint(e.Issued), orNullFingerprint(e.Replaces)
		versions[i], states[i], created[i], updated[i], expires[i] = int32(e.Version), int16(e.State), cut(e.CreatedAt), cut(e.UpdatedAt), cut(e.ExpiresAt)
		switch {
		case c.UseChallenge:
			using, usedBy, usedAt = append(using, e.Challenge), append(usedBy, issued[i]), append(usedAt, updated[i])
		case e.Challenge != "" && issued[i] != nil:
			fulfilled, fulfilledBy = append(fulfilled, e.Challenge), append(fulfilledBy, issued[i])
		}
	}
	if slices.Max(versions) > 1 {
		b.Queue(sqlDropReplaced, points, transactions, spkis, ids)
	}
	b.Queue(sqlPutEnrollments, points, transactions, spkis, versions, ids, states, csrs, signers, challenges, issued, replaces, subjects, sans,
		profiles, devices, sources, reasons, deciders, created, updated, expires, overrides).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != int64(n) {
			return fault.Wrap(fault.Conflict, store.ErrStale, "the enrollment has changed in between")
		}
		return nil
	})
	if len(using) > 0 {
		b.Queue(sqlUseChallenges, using, usedAt, usedBy).Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() != int64(len(using)) {
				return fault.Wrap(fault.Conflict, store.ErrChallengeUsed, "the challenge was used, was revoked or has ended")
			}
			return nil
		})
	}
	if len(fulfilled) > 0 { // what waited has its certificate now
		b.Queue(`
			UPDATE challenge c SET used_by = u.used_by
			FROM unnest($1::text[], $2::bytea[]) AS u (id, used_by)
			WHERE c.id = u.id AND c.used_at IS NOT NULL AND c.used_by IS NULL`, fulfilled, fulfilledBy)
	}
	for _, c := range changes {
		if len(c.Request) > 0 {
			queueSecret(b, pki.SecretEnrollment(c.Enrollment.ID), c.Request)
		}
	}
	queueNotifications(b, changes)
}

// PruneEnrollments implements store.Enrollments. Several replicas may do it at once: each takes rows of its own.
func (s *Store) PruneEnrollments(ctx context.Context, before time.Time, limit int) (n int, err error) {
	err = s.note(ctx, "forgetting enrollments", func(b *pgx.Batch) {
		b.Queue(`
			WITH gone AS (
				DELETE FROM enrollment
				WHERE (point, transaction_id, spki_hash) IN (
					SELECT point, transaction_id, spki_hash FROM enrollment WHERE expires_at < $1 AND state <> $3 AND (state <> $4 OR expires_at < $5)
					ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
				RETURNING id
			), secrets AS (
				DELETE FROM sealed_secret WHERE name IN (SELECT 'enrollment/' || id FROM gone WHERE id <> '')
			)
			SELECT count(*) FROM gone`, cut(before), max(limit, 0), int16(pki.EnrollmentPending), int16(pki.EnrollmentExpired), cut(before.Add(-store.KeepExpired)),
		).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// AllRACertificates implements store.RACertificates.
func (s *Store) AllRACertificates(ctx context.Context) ([]pki.RACertificate, error) {
	return read(ctx, s, "reading RA certificates", func(conn *pgxpool.Conn) ([]pki.RACertificate, error) {
		rows, err := conn.Query(ctx, `SELECT issuer_id, number, key_id, fingerprint, der, created_at FROM ra_certificate ORDER BY issuer_id, number`)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c pki.RACertificate, err error) {
			var fingerprint []byte
			if err := row.Scan(&c.IssuerID, &c.Number, &c.KeyID, &fingerprint, &c.DER, &c.CreatedAt); err != nil {
				return c, err
			}
			c.CreatedAt = c.CreatedAt.UTC()
			return c, setHash(c.Fingerprint[:], fingerprint, "ra_certificate.fingerprint")
		})
	})
}

// PutRACertificate implements store.RACertificates.
func (s *Store) PutRACertificate(ctx context.Context, r store.RAChange) error {
	c := r.Certificate
	newest := 0
	first := func(b *pgx.Batch) {
		b.Queue(`SELECT coalesce(max(number), 0) FROM ra_certificate WHERE issuer_id = $1`, c.IssuerID).QueryRow(func(row pgx.Row) error {
			return row.Scan(&newest)
		})
	}
	return s.write(ctx, "writing an RA certificate", first, func(t *tx) error {
		stale := fault.Wrap(fault.Conflict, store.ErrStale, "the newest RA certificate of the issuer has number %d", newest)
		if c.Number != newest+1 {
			return stale
		}
		b := &pgx.Batch{}
		b.Queue(`INSERT INTO ra_certificate (issuer_id, number, key_id, fingerprint, der, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			c.IssuerID, c.Number, text(c.KeyID), c.Fingerprint[:], notNull(c.DER), cut(c.CreatedAt))
		if r.Key != nil {
			queueSecret(b, pki.SecretRA(c.KeyID), r.Key)
		}
		for _, keyID := range r.Drop {
			queueSecret(b, pki.SecretRA(keyID), nil)
		}
		t.seals = sealing{config: true, records: []audit.Record{r.Record}}
		err := t.SendBatch(ctx, b).Close()
		if violates(err, "_pkey") { // another was faster
			return stale
		}
		if isCode(err, codeForeignKey) {
			return fault.Wrap(fault.Conflict, err, "there is no such issuer")
		}
		return err
	})
}

// Secret implements store.Secrets.
func (s *Store) Secret(ctx context.Context, name string) ([]byte, error) {
	return read(ctx, s, "reading a sealed secret", func(conn *pgxpool.Conn) (b []byte, err error) {
		err = conn.QueryRow(ctx, `SELECT sealed FROM sealed_secret WHERE name = $1`, text(name)).Scan(&b)
		if isNoRows(err) {
			return nil, fault.New(fault.NotFound, "there is no such secret")
		}
		return b, err
	})
}

// AllSecrets implements store.Secrets.
func (s *Store) AllSecrets(ctx context.Context) (map[string][]byte, error) {
	return readOn(ctx, s, s.lists, "reading the sealed secrets", func(conn *pgxpool.Conn) (map[string][]byte, error) {
		rows, err := conn.Query(ctx, `SELECT name, sealed FROM sealed_secret`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		all := map[string][]byte{}
		for rows.Next() {
			var name string
			var b []byte
			if err := rows.Scan(&name, &b); err != nil {
				return nil, err
			}
			all[name] = b
		}
		return all, rows.Err()
	})
}
