package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/groupcommit"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// statusOp is one change of status on its way to the database. The flush that has it writes result and refusal, which
// its caller reads afterwards.
type statusOp struct {
	store.StatusChange
	canonical []byte
	result    pki.Certificate
	refusal   error // of this operation alone; nothing of it is written
}

// certificateKey is the primary key of a certificate.
type certificateKey struct {
	issuer int64
	serial pki.SerialNumber
}

// certificateState is a certificate in a batch of changes.
type certificateState struct {
	certificate pki.Certificate
	was         *pki.Revocation // as read
	changed     bool
}

// ChangeStatus implements store.Statuses.
func (s *Store) ChangeStatus(ctx context.Context, c store.StatusChange) (pki.Certificate, error) {
	op := newStatusOp(c)
	if err := s.statuses.Do(ctx, op); err != nil {
		return pki.Certificate{}, err
	}
	return op.result, nil
}

func newStatusOp(c store.StatusChange) *statusOp {
	c.Revocation.RevokedAt = cut(c.Revocation.RevokedAt)
	if !c.Revocation.InvalidityDate.IsZero() {
		c.Revocation.InvalidityDate = cut(c.Revocation.InvalidityDate)
	}
	return &statusOp{StatusChange: c, canonical: c.Record.Canonical()}
}

func (s *Store) flushStatuses(ctx context.Context, ops []*statusOp) []error {
	errs, fallbacks := groupcommit.Bisect(ops, func(ops []*statusOp) error { return s.writeStatuses(ctx, ops) }, ofOneOperation)
	s.fallbacks.Add(int64(fallbacks))
	for i, op := range ops {
		if errs[i] == nil {
			errs[i] = op.refusal
		}
	}
	return errs
}

// errNothing ends a transaction in which every operation was refused.
var errNothing = errors.New("nothing to write")

// Holding the certificate's row keeps its status, which is read by the next statement: one that waited for the lock
// itself would still show what it saw before it waited. The rows are held in the order of the arrays.
//
// The least and the greatest bucket leave the partitions between them: to set every one up for each batch would cost more
// than reading the certificates. What is LATERAL is looked up one by one: no plan can begin with these two, nor read a whole
// table that was empty when it was vacuumed.
const sqlLockCertificates = `
	SELECT 1
	FROM unnest($1::bigint[], $2::integer[], $3::bytea[]) AS u (issuer_id, bucket, serial),
	LATERAL (
		SELECT 1 FROM certificate c
		WHERE c.issuer_id = u.issuer_id AND c.bucket = u.bucket AND c.serial = u.serial AND c.bucket BETWEEN $4 AND $5
		FOR NO KEY UPDATE
	) AS held`

const sqlReadCertificates = `
	SELECT ` + certificateColumns + `
	FROM unnest($1::bigint[], $2::integer[], $3::bytea[]) AS u (issuer_id, bucket, serial)
	CROSS JOIN LATERAL (
		SELECT * FROM certificate c
		WHERE c.issuer_id = u.issuer_id AND c.bucket = u.bucket AND c.serial = u.serial AND c.bucket BETWEEN $4 AND $5
		OFFSET 0
	) AS c
	LEFT JOIN LATERAL (
		SELECT * FROM revocation r WHERE r.issuer_key_id = c.issuer_key_id AND r.serial = c.serial OFFSET 0
	) AS r ON true`

// sqlSealStatus also writes the events and the new states, all with the change number of the head.
const sqlSealStatus = sqlSeal + `, e AS (
		INSERT INTO status_event (change, ord, issuer_key_id, serial, status, reason, revoked_at, invalidity_date, not_after, crl_scope)
		SELECT h.change, u.ord, u.issuer_key_id, u.serial, u.status, u.reason, u.revoked_at, u.invalidity_date, u.not_after, u.crl_scope
		FROM h, unnest($13::bigint[], $14::bytea[], $15::smallint[], $16::smallint[], $17::timestamptz[], $18::timestamptz[], $19::timestamptz[], $20::text[])
			WITH ORDINALITY AS u (issuer_key_id, serial, status, reason, revoked_at, invalidity_date, not_after, crl_scope, ord)
	), w AS (
		INSERT INTO revocation (issuer_key_id, serial, issuer_id, bucket, status, reason, revoked_at, invalidity_date, not_after, change, crl_scope)
		SELECT u.issuer_key_id, u.serial, u.issuer_id, u.bucket, u.status, u.reason, u.revoked_at, u.invalidity_date, u.not_after, h.change, u.crl_scope
		FROM h, unnest($21::bigint[], $22::bytea[], $23::bigint[], $24::integer[], $25::smallint[], $26::smallint[], $27::timestamptz[], $28::timestamptz[], $29::timestamptz[], $30::text[])
			AS u (issuer_key_id, serial, issuer_id, bucket, status, reason, revoked_at, invalidity_date, not_after, crl_scope)
		ON CONFLICT (issuer_key_id, serial) DO UPDATE SET
			status = excluded.status, reason = excluded.reason, revoked_at = excluded.revoked_at,
			invalidity_date = excluded.invalidity_date, change = excluded.change
	), d AS (
		DELETE FROM revocation r
		USING h, unnest($31::bigint[], $32::bytea[]) AS u (issuer_key_id, serial)
		WHERE r.issuer_key_id = u.issuer_key_id AND r.serial = u.serial
	)
	SELECT change FROM h`

// stateRows are columns of certificates' states.
type stateRows struct {
	keys, issuers    []int64
	serials          [][]byte
	buckets          []int32
	status, reasons  []int16
	revoked, invalid []*time.Time
	notAfter         []time.Time
	scopes           []string
}

func (r *stateRows) add(c *pki.Certificate, v *pki.Revocation) {
	status, reason, revoked, invalid := int16(0), int16(0), (*time.Time)(nil), (*time.Time)(nil)
	if v != nil {
		status, reason, invalid = int16(v.Status), int16(v.Reason), orNull(v.InvalidityDate)
		at := cut(v.RevokedAt)
		revoked = &at
	}
	r.keys, r.issuers = append(r.keys, c.IssuerKeyID), append(r.issuers, c.IssuerID)
	r.serials, r.buckets = append(r.serials, c.Serial.Bytes()), append(r.buckets, int32(c.Serial.Bucket()))
	r.status, r.reasons = append(r.status, status), append(r.reasons, reason)
	r.revoked, r.invalid = append(r.revoked, revoked), append(r.invalid, invalid)
	r.notAfter, r.scopes = append(r.notAfter, c.NotAfter), append(r.scopes, c.CRLScope)
}

// statusEvents are what a batch of changes leaves behind.
type statusEvents struct {
	events   stateRows // every change, in order
	states   stateRows // the certificates that are not good after it
	released stateRows // those that are good again
}

func (e *statusEvents) args() []any {
	v, w, d := &e.events, &e.states, &e.released
	return []any{
		v.keys, v.serials, v.status, v.reasons, v.revoked, v.invalid, v.notAfter, v.scopes,
		w.keys, w.serials, w.issuers, w.buckets, w.status, w.reasons, w.revoked, w.invalid, w.notAfter, w.scopes,
		d.keys, d.serials,
	}
}

// writeStatuses decides and writes a batch of changes. Operations on one certificate are decided one after the other.
// The refused ones leave nothing.
func (s *Store) writeStatuses(ctx context.Context, ops []*statusOp) error {
	order := orderOf(ops)
	var states map[certificateKey]*certificateState
	first := func(b *pgx.Batch) { states = queueStates(b, order) }
	err := s.write(ctx, "changing a certificate's status", first, func(t *tx) error {
		done := t.decideAll(ops, order, states)
		if len(done) == 0 {
			return errNothing
		}
		return t.reportKeys(ctx, done)
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// orderOf returns the certificates of operations in the order in which every transaction holds them.
func orderOf(ops []*statusOp) []certificateKey {
	var order []certificateKey
	seen := make(map[certificateKey]bool, len(ops))
	for _, op := range ops {
		if k := (certificateKey{op.IssuerID, op.Serial}); !seen[k] {
			seen[k] = true
			order = append(order, k)
		}
	}
	slices.SortFunc(order, func(a, b certificateKey) int {
		return cmp.Or(cmp.Compare(a.issuer, b.issuer), cmp.Compare(a.serial.Bucket(), b.serial.Bucket()), cmp.Compare(a.serial, b.serial))
	})
	return order
}

// queueStates queues the statements that hold certificates and read their states, which are in the map when the batch is
// through.
func queueStates(b *pgx.Batch, order []certificateKey) map[certificateKey]*certificateState {
	states := make(map[certificateKey]*certificateState, len(order))
	issuers, buckets, serials := make([]int64, len(order)), make([]int32, len(order)), make([][]byte, len(order))
	for i, k := range order {
		issuers[i], buckets[i], serials[i] = k.issuer, int32(k.serial.Bucket()), k.serial.Bytes()
	}
	var least, greatest int32
	if len(buckets) > 0 {
		least, greatest = slices.Min(buckets), slices.Max(buckets)
	}
	b.Queue(sqlLockCertificates, issuers, buckets, serials, least, greatest)
	b.Queue(sqlReadCertificates, issuers, buckets, serials, least, greatest).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			c, err := scanCertificate(rows)
			if err != nil {
				return err
			}
			states[certificateKey{c.IssuerID, c.Serial}] = &certificateState{certificate: c, was: c.Revocation}
		}
		return rows.Err()
	})
	return states
}

// decideAll decides operations, prepares the seal for those that are not refused, and returns them.
func (t *tx) decideAll(ops []*statusOp, order []certificateKey, states map[certificateKey]*certificateState) (done []*statusOp) {
	z := sealing{records: make([]audit.Record, 0, len(ops))}
	events := &statusEvents{}
	for _, op := range ops {
		if op.refusal = decide(op, states[certificateKey{op.IssuerID, op.Serial}]); op.refusal != nil {
			continue
		}
		z.records, z.canonical = append(z.records, op.Record), append(z.canonical, op.canonical)
		events.events.add(&op.result, op.result.Revocation)
		done = append(done, op)
	}
	for _, k := range order {
		switch st := states[k]; {
		case st == nil || !st.changed:
		case st.certificate.Revocation != nil:
			events.states.add(&st.certificate, st.certificate.Revocation)
		case st.was != nil:
			events.released.add(&st.certificate, nil)
		}
	}
	if len(done) > 0 {
		z.status, z.events = true, events
	}
	t.seals = z
	return done
}

// reportKeys blocks the keys of changes that ask for it.
func (t *tx) reportKeys(ctx context.Context, done []*statusOp) error {
	var report []*statusOp
	for _, op := range done {
		if op.BlockKey {
			report = append(report, op)
		}
	}
	if len(report) == 0 {
		return nil
	}
	// In the one order in which all transactions hold keys, and each once: the first report counts.
	slices.SortStableFunc(report, func(a, b *statusOp) int { return bytes.Compare(a.result.SPKIHash[:], b.result.SPKIHash[:]) })
	report = slices.CompactFunc(report, func(a, b *statusOp) bool { return a.result.SPKIHash == b.result.SPKIHash })
	keys, times, by, campaigns := make([][]byte, len(report)), make([]time.Time, len(report)), make([]string, len(report)), make([]string, len(report))
	for i, op := range report {
		keys[i], times[i], by[i] = op.result.SPKIHash[:], cut(op.Record.Time), text(op.Record.Actor)
	}
	t.seals.config = true
	_, err := t.Exec(ctx, sqlReportKeys, keys, times, by, campaigns)
	return err
}

// decide applies one operation to a certificate's state, which is nil when there is no such certificate.
func decide(op *statusOp, st *certificateState) error {
	if st == nil {
		return noCertificate()
	}
	if err := op.Refuse(st.certificate.Revocation); err != nil {
		return err
	}
	next, err := pki.Transition(st.certificate.Revocation, op.Action, op.Revocation)
	if err != nil {
		return err
	}
	st.certificate.Revocation, st.changed = next, true
	if next == nil {
		st.certificate.FirstCRLAt, st.certificate.FirstOCSPAt = time.Time{}, time.Time{}
	}
	op.result = st.certificate
	if next != nil { // the caller gets one of its own
		own := *next
		op.result.Revocation = &own
	}
	return nil
}

const sqlStatus = `
	SELECT r.status, r.reason, r.revoked_at, r.invalidity_date
	FROM certificate c
	LEFT JOIN revocation r ON r.issuer_key_id = $1 AND r.serial = $3
	WHERE c.issuer_id = (SELECT k.issuer_id FROM issuer_key k WHERE k.id = $1)
	  AND c.bucket = $2 AND c.serial = $3 AND c.issuer_key_id = $1`

// Status implements store.Statuses. Of certificate it reads the primary key's index alone, which holds the issuer key.
func (s *Store) Status(ctx context.Context, issuerKeyID int64, n pki.SerialNumber) (*pki.Revocation, error) {
	return read(ctx, s, "reading a certificate's status", func(conn *pgxpool.Conn) (*pki.Revocation, error) {
		var status, reason *int16
		var revokedAt, invalidity *time.Time
		err := conn.QueryRow(ctx, sqlStatus, issuerKeyID, n.Bucket(), n.Bytes()).Scan(&status, &reason, &revokedAt, &invalidity)
		if isNoRows(err) {
			return nil, noCertificate()
		}
		return revocationOf(status, reason, revokedAt, invalidity), err
	})
}

const sqlStatusEvents = `
	SELECT change, issuer_key_id, serial, status, reason, revoked_at, invalidity_date, not_after, crl_scope
	FROM status_event`

// StatusEvents implements store.Statuses.
func (s *Store) StatusEvents(ctx context.Context, after int64, limit int) ([]store.StatusEvent, error) {
	if limit <= 0 {
		return nil, fault.New(fault.BadRequest, "a page of status events needs a limit above 0")
	}
	query := func(sql string, args ...any) ([]store.StatusEvent, error) {
		return read(ctx, s, "reading status events", func(conn *pgxpool.Conn) ([]store.StatusEvent, error) {
			rows, err := conn.Query(ctx, sql, args...)
			if err != nil {
				return nil, err
			}
			return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e store.StatusEvent, err error) {
				var serial []byte
				var status, reason int16
				var revokedAt, invalidity *time.Time
				err = row.Scan(&e.Change, &e.IssuerKeyID, &serial, &status, &reason, &revokedAt, &invalidity, &e.NotAfter, &e.Scope)
				e.Serial, e.NotAfter = pki.SerialNumber(serial), e.NotAfter.UTC()
				e.Revocation = revocationOf(&status, &reason, revokedAt, invalidity)
				return e, err
			})
		})
	}
	list, err := query(sqlStatusEvents+` WHERE change > $1 ORDER BY change, ord LIMIT $2`, after, int64(limit)+1)
	if err != nil || len(list) <= limit {
		return list, err
	}
	// The last change may go on behind the limit: it is left to the next page, unless it is all there is.
	last := list[limit].Change
	if whole := slices.IndexFunc(list, func(e store.StatusEvent) bool { return e.Change == last }); whole > 0 {
		return list[:whole], nil
	}
	return query(sqlStatusEvents+` WHERE change = $1 ORDER BY ord`, last)
}

const sqlRevocations = `
	SELECT serial, status, reason, revoked_at, invalidity_date, not_after, change, crl_scope
	FROM revocation
	WHERE issuer_key_id = $1
	ORDER BY serial`

// sqlRevocationsOfScope reads the partial index, hence its second condition on the scope.
const sqlRevocationsOfScope = `
	SELECT serial, status, reason, revoked_at, invalidity_date, not_after, change, crl_scope
	FROM revocation
	WHERE issuer_key_id = $1 AND crl_scope = $2 AND crl_scope <> 'full'
	ORDER BY serial`

// Revocations implements store.Statuses. When the context ends before the sequence is ranged over, the connection is given
// back all the same.
func (s *Store) Revocations(ctx context.Context, issuerKeyID int64, scope string) (int64, iter.Seq2[store.RevokedEntry, error], error) {
	const doing = "reading revocations"
	conn, release, err := s.snapshot(ctx)
	if err != nil {
		return 0, nil, fail(err, doing)
	}
	head, err := readHead(ctx, conn)
	if err != nil {
		release()
		return 0, nil, fail(err, doing)
	}
	var once sync.Once
	stop := context.AfterFunc(ctx, func() { once.Do(release) })
	return head.Change, func(yield func(store.RevokedEntry, error) bool) {
		ours := false
		once.Do(func() { ours = true })
		if !ours {
			err := ctx.Err()
			if err == nil {
				err = errors.New("the sequence was ranged over before")
			}
			yield(store.RevokedEntry{}, fail(err, doing))
			return
		}
		defer release()
		defer stop()
		sql, args := sqlRevocations, []any{issuerKeyID}
		if scope != pki.ScopeFull {
			sql, args = sqlRevocationsOfScope, append(args, text(scope))
		}
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			yield(store.RevokedEntry{}, fail(err, doing))
			return
		}
		defer rows.Close()
		var serial, scope []byte
		scopes := store.Scopes{}
		for rows.Next() {
			var e store.RevokedEntry
			var invalidity *time.Time
			err := rows.Scan(&serial, (*int)(&e.Revocation.Status), (*int)(&e.Revocation.Reason), &e.Revocation.RevokedAt, &invalidity, &e.NotAfter, &e.Change, &scope)
			if err != nil {
				yield(store.RevokedEntry{}, fail(err, doing))
				return
			}
			e.Serial, e.Scope = pki.SerialNumber(serial), scopes.Of(scope)
			e.Revocation.RevokedAt, e.Revocation.InvalidityDate, e.NotAfter = e.Revocation.RevokedAt.UTC(), fromNull(invalidity), e.NotAfter.UTC()
			if !yield(e, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(store.RevokedEntry{}, fail(err, doing))
		}
	}, nil
}
