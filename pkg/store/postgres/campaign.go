package postgres

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

const campaignColumns = `
	id, state, selection, query, spki_hash, reason, invalidity_date, change_reasons, expected, created_at, created_by, role,
	source, request_id, revoked, skipped, step, at_issued, at_serial, at_issuer, look_back, changed_at, ended_at`

func scanCampaign(row pgx.Row) (c store.Campaign, err error) {
	var selection string
	var spki, serial []byte
	var invalid, atIssued, ended *time.Time
	err = row.Scan(&c.ID, (*int)(&c.State), &selection, &c.Query, &spki, (*int)(&c.Reason), &invalid, &c.ChangeReasons, &c.Expected, &c.CreatedAt,
		&c.CreatedBy, &c.Role, &c.Source, &c.RequestID, &c.Revoked, &c.Skipped, &c.Step, &atIssued, &serial, &c.Position.IssuerID, &c.LookBack,
		&c.ChangedAt, &ended)
	if err != nil {
		return c, err
	}
	if c.Selection, err = store.DecodeSelection([]byte(selection)); err != nil {
		c.Selection, c.Foreign = store.CertificateFilter{}, true
	}
	if spki != nil {
		c.Key = new([32]byte)
		if err := setHash(c.Key[:], spki, "campaign.spki_hash"); err != nil {
			return c, err
		}
	}
	c.InvalidityDate, c.EndedAt, c.Position.IssuedAt = fromNull(invalid), fromNull(ended), fromNull(atIssued)
	c.CreatedAt, c.ChangedAt, c.Position.Serial = c.CreatedAt.UTC(), c.ChangedAt.UTC(), pki.SerialNumber(serial)
	return c, nil
}

func noCampaign() error {
	return fault.New(fault.NotFound, "there is no such campaign").WithHint("«certwright revocation list» shows them")
}

func errOwnKey() error {
	return fault.New(fault.PolicyRefused, "this public key is one of the CA's own")
}

// sqlReportKeys refuses keys as compromised. The first report stays, and a key of ours stays ours.
const sqlReportKeys = `
	INSERT INTO blocked_key (spki_hash, own, compromised, blocked_at, blocked_by, campaign)
	SELECT u.spki_hash, false, true, u.at, u.by, u.campaign
	FROM unnest($1::bytea[], $2::timestamptz[], $3::text[], $4::text[]) AS u (spki_hash, at, by, campaign)
	ON CONFLICT (spki_hash) DO UPDATE SET
		compromised = true, blocked_at = excluded.blocked_at, blocked_by = excluded.blocked_by, campaign = excluded.campaign
	WHERE NOT blocked_key.compromised`

// CreateCampaign implements store.Campaigns.
func (s *Store) CreateCampaign(ctx context.Context, c store.Campaign, records ...audit.Record) error {
	selection, err := store.EncodeSelection(c.Selection)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encoding a campaign's selection")
	}
	return s.write(ctx, "beginning a campaign", nil, func(t *tx) error {
		var spki []byte
		if c.Key != nil {
			spki = c.Key[:]
			if _, err := t.Exec(ctx, sqlReportKeys, [][]byte{spki}, []time.Time{cut(c.CreatedAt)}, []string{text(c.CreatedBy)}, []string{c.ID}); err != nil {
				return err
			}
			var own bool // the row is held since the statement before, whatever that did
			if err := t.QueryRow(ctx, `SELECT own FROM blocked_key WHERE spki_hash = $1`, spki).Scan(&own); err != nil {
				return err
			}
			if own {
				return errOwnKey()
			}
		}
		_, err := t.Exec(ctx, `
			INSERT INTO campaign (`+campaignColumns+`)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, 0, 0, NULL, '', 0, false, $10, NULL)`,
			c.ID, int16(store.CampaignRunning), string(selection), text(c.Query), spki, int16(c.Reason), orNull(c.InvalidityDate), c.ChangeReasons, c.Expected,
			cut(c.CreatedAt), text(c.CreatedBy), text(c.Role), text(c.Source), text(c.RequestID))
		if violates(err, "campaign_pkey") {
			return fault.Wrap(fault.Conflict, err, "there is a campaign with this id")
		}
		if err != nil {
			return err
		}
		t.seals = sealing{config: true, records: records}
		return nil
	})
}

// Campaign implements store.Campaigns.
func (s *Store) Campaign(ctx context.Context, id string) (store.Campaign, error) {
	return read(ctx, s, "reading a campaign", func(conn *pgxpool.Conn) (store.Campaign, error) {
		c, err := scanCampaign(conn.QueryRow(ctx, `SELECT `+campaignColumns+` FROM campaign WHERE id = $1`, text(id)))
		if isNoRows(err) {
			return c, noCampaign()
		}
		return c, err
	})
}

// ListCampaigns implements store.Campaigns.
func (s *Store) ListCampaigns(ctx context.Context, limit int) ([]store.Campaign, error) {
	return s.campaigns(ctx, `ORDER BY created_at DESC, id COLLATE "C" DESC LIMIT $1`, max(limit, 0))
}

// RunningCampaigns implements store.Campaigns.
func (s *Store) RunningCampaigns(ctx context.Context) ([]store.Campaign, error) {
	return s.campaigns(ctx, `WHERE state = 1 ORDER BY created_at, id COLLATE "C"`)
}

func (s *Store) campaigns(ctx context.Context, which string, args ...any) ([]store.Campaign, error) {
	return read(ctx, s, "reading campaigns", func(conn *pgxpool.Conn) ([]store.Campaign, error) {
		rows, err := conn.Query(ctx, `SELECT `+campaignColumns+` FROM campaign `+which, args...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (store.Campaign, error) { return scanCampaign(row) })
	})
}

const sqlHoldCampaign = `SELECT ` + campaignColumns + ` FROM campaign WHERE id = $1 FOR UPDATE`

// SetCampaignState implements store.Campaigns.
func (s *Store) SetCampaignState(ctx context.Context, id string, to store.CampaignState, at time.Time, record audit.Record) (store.Campaign, error) {
	var after store.Campaign
	err := s.write(ctx, "changing a campaign", nil, func(t *tx) error {
		c, err := scanCampaign(t.QueryRow(ctx, sqlHoldCampaign, text(id)))
		if isNoRows(err) {
			return noCampaign()
		}
		if err != nil {
			return err
		}
		if err := store.CampaignTransition(c.State, to); err != nil {
			return err
		}
		c.State, c.ChangedAt = to, cut(at)
		if to.Ended() {
			c.EndedAt = c.ChangedAt
		}
		if _, err := t.Exec(ctx, `UPDATE campaign SET state = $2, changed_at = $3, ended_at = $4 WHERE id = $1`, c.ID, int16(to), c.ChangedAt, orNull(c.EndedAt)); err != nil {
			return err
		}
		after = c
		t.seals = sealing{config: true, records: []audit.Record{record}}
		return nil
	})
	if err != nil {
		return store.Campaign{}, err
	}
	return after, nil
}

// mostNext is how many certificates NextCertificates looks at in one query.
const mostNext = 10_000

// NextCertificates implements store.Campaigns.
//
// The next certificates are read first, and then which of them have the status that is asked for: the planner cannot know
// how many have, and believing that it is next to none would read and sort the whole table for each page. Status alone is
// another matter when good ones are not asked for; then the few that are not are where to begin.
func (s *Store) NextCertificates(ctx context.Context, f store.CertificateFilter, after store.CertificatePosition, limit int) ([]pki.Certificate, error) {
	first := len(f.Status) == 0 || slices.Contains(f.Status, pki.Good)
	list := []pki.Certificate{}
	for n := limit; ; n = min(2*n, mostNext) {
		page, seen, last, err := s.nextCertificates(ctx, f, after, n, first)
		if err != nil {
			return nil, err
		}
		list, after = append(list, page...), last
		if len(list) >= limit || !first || seen < n {
			return list[:min(len(list), max(limit, 0))], nil
		}
	}
}

// nextCertificates returns which of the next n certificates match, how many there were, and the place of the last.
func (s *Store) nextCertificates(ctx context.Context, f store.CertificateFilter, after store.CertificatePosition, n int, first bool) (page []pki.Certificate, seen int, last store.CertificatePosition, err error) {
	var w where
	w.records(f)
	if !after.IssuedAt.IsZero() {
		w.and(`(c.issued_at, c.serial, c.issuer_id) > (?, ?, ?)`, cut(after.IssuedAt), after.Serial.Bytes(), after.IssuerID)
	}
	const order = `
		ORDER BY c.issued_at, c.serial, c.issuer_id
		LIMIT `
	sql := `SELECT ` + certificateColumns + `, true` + certificateTables
	if first {
		next := `(SELECT * FROM certificate c` + w.String() + order + strconv.Itoa(n) + `) AS c`
		states := where{args: w.args}
		states.states(f)
		sql = `SELECT ` + certificateColumns + `, ` + cmp.Or(strings.Join(states.conditions, ` AND `), `true`) + `
			FROM ` + next + `
			LEFT JOIN revocation r ON r.issuer_key_id = c.issuer_key_id AND r.serial = c.serial`
		w = where{args: states.args}
	} else {
		w.states(f)
	}
	sql += w.String() + order + strconv.Itoa(n)
	type row struct {
		certificate pki.Certificate
		matches     bool
	}
	rows, err := readOn(ctx, s, s.lists, "reading certificates", func(conn *pgxpool.Conn) ([]row, error) {
		// Planned anew with the values at hand, as lists are.
		rows, err := conn.Query(ctx, sql, append([]any{pgx.QueryExecModeDescribeExec}, w.args...)...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(r pgx.CollectableRow) (at row, err error) {
			at.certificate, err = scanCertificate(r, &at.matches)
			return at, err
		})
	})
	for _, r := range rows {
		if r.matches {
			page = append(page, r.certificate)
		}
		last = store.PositionOf(r.certificate)
	}
	return page, len(rows), last, err
}

// StepCampaign implements store.Campaigns. The campaign's row is held first, then the certificates' in the order in which
// every change of status holds them.
func (s *Store) StepCampaign(ctx context.Context, step store.CampaignStep) (store.CampaignOutcome, error) {
	step.At = cut(step.At)
	ops := make([]*statusOp, len(step.Changes))
	for i, c := range step.Changes {
		ops[i] = newStatusOp(c)
	}
	order := orderOf(ops)
	var out store.CampaignOutcome
	var states map[certificateKey]*certificateState
	var c store.Campaign
	first := func(b *pgx.Batch) {
		b.Queue(sqlHoldCampaign, text(step.ID)).QueryRow(func(row pgx.Row) (err error) {
			c, err = scanCampaign(row)
			return err
		})
		states = queueStates(b, order)
	}
	err := s.write(ctx, "revoking certificates", first, func(t *tx) error {
		if err := c.CheckStep(step); err != nil {
			return err
		}
		out = store.CampaignOutcome{}
		if step.End != nil {
			t.seals = sealing{config: true, records: []audit.Record{*step.End}}
		} else {
			done := t.decideAll(ops, order, states)
			for _, op := range done {
				out.Changed = append(out.Changed, op.result)
			}
			if err := t.reportKeys(ctx, done); err != nil {
				return err
			}
		}
		after := c.After(step, len(out.Changed))
		p := after.Position
		if _, err := t.Exec(ctx, `
			UPDATE campaign SET
				state = $2, revoked = $3, skipped = $4, step = $5, at_issued = $6, at_serial = $7, at_issuer = $8, look_back = $9, changed_at = $10,
				ended_at = $11
			WHERE id = $1`,
			c.ID, int16(after.State), after.Revoked, after.Skipped, after.Step, orNull(p.IssuedAt), notNull(p.Serial.Bytes()), p.IssuerID, after.LookBack,
			step.At, orNull(after.EndedAt)); err != nil {
			return err
		}
		out.Campaign = after
		return nil
	})
	if isNoRows(err) {
		return store.CampaignOutcome{}, noCampaign()
	}
	if err != nil {
		return store.CampaignOutcome{}, err
	}
	return out, nil
}

// settleEvery is how often Settle looks.
const settleEvery = 20 * time.Millisecond

// Settle implements store.Campaigns. Every transaction that writes has its number from its first statement on (writeOnce),
// and the server shows the numbers of those that run to the role that runs them, as those of replicas mostly do. Of others,
// as while servers are given a role of their own, it shows the locks: whoever has looked whether a key is blocked, and
// writes, is waited for too. A dump has no number, and holds nobody up.
func (s *Store) Settle(ctx context.Context) error {
	const doing = "waiting for transactions to end"
	const sql = `
		WITH running AS (
			SELECT pid || '/' || backend_xid::text AS id
			FROM pg_stat_activity
			WHERE datname = current_database() AND usename = current_user AND backend_xid IS NOT NULL
			UNION
			SELECT r.pid || '/' || x.transactionid::text
			FROM pg_locks r
			JOIN pg_locks x ON x.pid = r.pid AND x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' AND x.granted
			WHERE r.locktype = 'relation' AND r.relation = 'blocked_key'::regclass
			  AND r.database = (SELECT oid FROM pg_database WHERE datname = current_database())
		)
		SELECT coalesce(array_agg(id), '{}') FROM running
		WHERE $1::text[] IS NULL OR id = ANY($1::text[])`
	var running []string
	for first := true; ; first = false {
		var among []string
		if !first {
			among = running
		}
		var err error
		running, err = read(ctx, s, doing, func(conn *pgxpool.Conn) (left []string, err error) {
			err = conn.QueryRow(ctx, sql, among).Scan(&left)
			return left, err
		})
		if err != nil || len(running) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fail(ctx.Err(), doing)
		case <-time.After(settleEvery):
		}
	}
}

// UnblockKey implements store.Campaigns.
func (s *Store) UnblockKey(ctx context.Context, spki [32]byte, record audit.Record) error {
	return s.write(ctx, "unblocking a key", nil, func(t *tx) error {
		var own, open bool
		err := t.QueryRow(ctx, `SELECT own FROM blocked_key WHERE spki_hash = $1 FOR UPDATE`, spki[:]).Scan(&own)
		switch {
		case isNoRows(err):
			return fault.New(fault.NotFound, "this public key is not blocked")
		case err != nil:
			return err
		case own:
			return errOwnKey()
		}
		// A campaign that begins holds the key's row before it has one of its own, so that it is seen here or comes after.
		if err := t.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM campaign WHERE state IN (1, 2) AND spki_hash = $1)`, spki[:]).Scan(&open); err != nil {
			return err
		}
		if open {
			return fault.New(fault.Conflict, "a campaign that revokes the certificates of this key has not ended").
				WithHint("cancel it first, or wait until it is done")
		}
		if _, err := t.Exec(ctx, `DELETE FROM blocked_key WHERE spki_hash = $1`, spki[:]); err != nil {
			return err
		}
		t.seals = sealing{config: true, records: []audit.Record{record}}
		return nil
	})
}
