package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

const campaignColumns = `id, state, selection, query, spki_hash, reason, invalidity_date, change_reasons, expected,
	created_at, created_by, role, source, request_id, revoked, skipped, step, at_issued, at_serial, at_issuer, look_back, changed_at, ended_at`

func scanCampaign(scan func(...any) error) (c store.Campaign, err error) {
	var selection string
	var spki, serial []byte
	var state, reason, changeReasons, lookBack int
	var invalid, atIssued, ended sql.NullInt64
	var created, changed int64
	err = scan(&c.ID, &state, &selection, &c.Query, &spki, &reason, &invalid, &changeReasons, &c.Expected,
		&created, &c.CreatedBy, &c.Role, &c.Source, &c.RequestID, &c.Revoked, &c.Skipped, &c.Step, &atIssued, &serial, &c.Position.IssuerID,
		&lookBack, &changed, &ended)
	if err != nil {
		return c, err
	}
	if c.Selection, err = store.DecodeSelection([]byte(selection)); err != nil {
		c.Selection, c.Foreign = store.CertificateFilter{}, true
	}
	if spki != nil {
		hash := hash32(spki)
		c.Key = &hash
	}
	c.State, c.Reason, c.ChangeReasons, c.LookBack = store.CampaignState(state), pki.Reason(reason), changeReasons != 0, lookBack != 0
	c.InvalidityDate, c.EndedAt = optionalTime(invalid), optionalTime(ended)
	c.CreatedAt, c.ChangedAt = timeOf(created), timeOf(changed)
	c.Position.IssuedAt, c.Position.Serial = optionalTime(atIssued), pki.SerialNumber(serial)
	return c, nil
}

func noCampaign() error {
	return fault.New(fault.NotFound, "there is no such campaign").WithHint("«certwright revocation list» shows them")
}

// CreateCampaign writes a campaign, and blocks its key.
func (s *Store) CreateCampaign(ctx context.Context, c store.Campaign, records ...audit.Record) error {
	selection, err := store.EncodeSelection(c.Selection)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encoding a campaign's selection")
	}
	return s.write(ctx, &op{records: sealed(records...), apply: func(t *tx) error {
		var spki any
		if c.Key != nil {
			spki = c.Key[:]
			own, _, err := t.blocked(*c.Key)
			if err != nil {
				return err
			}
			if own {
				return errOwnKey()
			}
		}
		err := t.exec(`
			INSERT INTO campaign (`+campaignColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, NULL, x'', 0, 0, ?, NULL)`,
			c.ID, int(store.CampaignRunning), string(selection), c.Query, spki, int(c.Reason), optionalMicros(c.InvalidityDate), c.ChangeReasons, c.Expected,
			micros(c.CreatedAt), c.CreatedBy, c.Role, c.Source, c.RequestID, micros(c.CreatedAt))
		if primary, _ := code(err); primary == sqlite3.SQLITE_CONSTRAINT {
			return fault.Wrap(fault.Conflict, err, "there is a campaign with this id")
		}
		if err != nil {
			return err
		}
		t.config = true
		if c.Key != nil {
			return t.reportKey(*c.Key, c.CreatedAt, c.CreatedBy, c.ID)
		}
		return nil
	}})
}

func errOwnKey() error {
	return fault.New(fault.PolicyRefused, "this public key is one of the CA's own")
}

// blocked tells whether a key is one of ours, and whether it is refused at all.
func (t *tx) blocked(spki [32]byte) (own, found bool, err error) {
	var n int
	err = t.row(`SELECT own FROM blocked_key WHERE spki_hash = ?`, []any{spki[:]}, func(scan func(...any) error) error { return scan(&n) })
	if errors.Is(err, sql.ErrNoRows) {
		return false, false, nil
	}
	return n != 0, err == nil, err
}

// reportKey refuses a public key as compromised from now on. The first report stays.
func (t *tx) reportKey(spki [32]byte, at time.Time, by, campaign string) error {
	t.config = true
	return t.exec(`
		INSERT INTO blocked_key (spki_hash, own, compromised, blocked_at, blocked_by, campaign) VALUES (?, 0, 1, ?, ?, ?)
		ON CONFLICT (spki_hash) DO UPDATE SET compromised = 1, blocked_at = excluded.blocked_at, blocked_by = excluded.blocked_by, campaign = excluded.campaign
			WHERE compromised = 0`,
		spki[:], micros(at), by, campaign)
}

// Campaign returns a campaign.
func (s *Store) Campaign(ctx context.Context, id string) (store.Campaign, error) {
	if err := s.begin(ctx); err != nil {
		return store.Campaign{}, err
	}
	c, err := scanCampaign(s.read.QueryRowContext(ctx, `SELECT `+campaignColumns+` FROM campaign WHERE id = ?`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return c, noCampaign()
	}
	return c, s.asFault(ctx, err, "reading a campaign")
}

// ListCampaigns returns campaigns, newest first.
func (s *Store) ListCampaigns(ctx context.Context, limit int) ([]store.Campaign, error) {
	return s.campaigns(ctx, `ORDER BY created_at DESC, id DESC LIMIT ?`, max(limit, 0))
}

// RunningCampaigns returns those that are running, oldest first.
func (s *Store) RunningCampaigns(ctx context.Context) ([]store.Campaign, error) {
	return s.campaigns(ctx, `WHERE state = 1 ORDER BY created_at, id`)
}

func (s *Store) campaigns(ctx context.Context, which string, args ...any) (list []store.Campaign, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	err = each(ctx, s.read, `SELECT `+campaignColumns+` FROM campaign `+which, args, func(scan func(...any) error) error {
		c, err := scanCampaign(scan)
		list = append(list, c)
		return err
	})
	if err != nil {
		return nil, s.asFault(ctx, err, "reading campaigns")
	}
	return list, nil
}

// campaign reads a campaign inside a transaction.
func (t *tx) campaign(id string) (c store.Campaign, err error) {
	err = t.row(`SELECT `+campaignColumns+` FROM campaign WHERE id = ?`, []any{id}, func(scan func(...any) error) error {
		c, err = scanCampaign(scan)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return c, noCampaign()
	}
	return c, err
}

// SetCampaignState pauses, resumes or cancels.
func (s *Store) SetCampaignState(ctx context.Context, id string, to store.CampaignState, at time.Time, r audit.Record) (store.Campaign, error) {
	var after store.Campaign
	err := s.write(ctx, &op{records: sealed(r), apply: func(t *tx) error {
		c, err := t.campaign(id)
		if err != nil {
			return err
		}
		if err := store.CampaignTransition(c.State, to); err != nil {
			return err
		}
		c.State, c.ChangedAt = to, timeOf(micros(at))
		if to.Ended() {
			c.EndedAt = c.ChangedAt
		}
		after, t.config = c, true
		return t.exec(`UPDATE campaign SET state = ?, changed_at = ?, ended_at = ? WHERE id = ?`, int(to), micros(c.ChangedAt), optionalMicros(c.EndedAt), id)
	}})
	if err != nil {
		return store.Campaign{}, err
	}
	return after, nil
}

// NextCertificates returns certificates of a filter, oldest first.
func (s *Store) NextCertificates(ctx context.Context, f store.CertificateFilter, after store.CertificatePosition, limit int) (list []pki.Certificate, err error) {
	const doing = "reading certificates"
	tx, err := s.snapshot(ctx)
	if err != nil {
		return nil, s.asFault(ctx, err, doing)
	}
	defer tx.Rollback()
	c, err := matching(ctx, tx, f)
	if err != nil {
		return nil, s.asFault(ctx, err, doing)
	}
	if !after.IssuedAt.IsZero() {
		c.add(`(c.issued_at, c.serial, c.issuer_id) > (?, ?, ?)`, micros(after.IssuedAt), after.Serial.Bytes(), after.IssuerID)
	}
	err = each(ctx, tx, `SELECT `+certificateColumns+` `+c.String()+` ORDER BY c.issued_at, c.serial, c.issuer_id LIMIT ?`, append(c.args, max(limit, 0)),
		func(scan func(...any) error) error {
			cert, err := scanCertificate(scan)
			list = append(list, cert)
			return err
		})
	if err != nil {
		return nil, s.asFault(ctx, err, doing)
	}
	return list, nil
}

// StepCampaign changes the status of certificates and moves the campaign on.
func (s *Store) StepCampaign(ctx context.Context, step store.CampaignStep) (store.CampaignOutcome, error) {
	var out store.CampaignOutcome
	step.At = timeOf(micros(step.At))
	records := make([]record, len(step.Changes))
	for i, c := range step.Changes {
		records[i] = sealed(c.Record)[0]
	}
	o := &op{}
	o.apply = func(t *tx) error {
		out, o.records = store.CampaignOutcome{}, nil
		c, err := t.campaign(step.ID)
		if err != nil {
			return err
		}
		if err := c.CheckStep(step); err != nil {
			return err
		}
		// What is refused here comes before that certificate's first row.
		for i, change := range step.Changes {
			cert, err := t.changeStatus(change)
			if _, refused := errors.AsType[*fault.Error](err); refused {
				continue
			}
			if err != nil {
				return err
			}
			out.Changed, o.records = append(out.Changed, cert), append(o.records, records[i])
		}
		if step.End != nil {
			o.records, t.config = sealed(*step.End), true
		}
		out.Campaign = c.After(step, len(out.Changed))
		p := out.Campaign.Position
		return t.exec(`
			UPDATE campaign SET state = ?, revoked = ?, skipped = ?, step = ?, at_issued = ?, at_serial = ?, at_issuer = ?, look_back = ?, changed_at = ?, ended_at = ?
			WHERE id = ?`,
			int(out.Campaign.State), out.Campaign.Revoked, out.Campaign.Skipped, out.Campaign.Step, optionalMicros(p.IssuedAt), blob(p.Serial.Bytes()), p.IssuerID,
			out.Campaign.LookBack, micros(step.At), optionalMicros(out.Campaign.EndedAt), step.ID)
	}
	if err := s.write(ctx, o); err != nil {
		return store.CampaignOutcome{}, err
	}
	return out, nil
}

// Settle waits for its turn: one connection writes.
func (s *Store) Settle(ctx context.Context) error {
	return s.write(ctx, &op{quiet: true, apply: func(*tx) error { return nil }})
}

// UnblockKey admits a public key again.
func (s *Store) UnblockKey(ctx context.Context, spki [32]byte, r audit.Record) error {
	return s.write(ctx, &op{records: sealed(r), apply: func(t *tx) error {
		own, found, err := t.blocked(spki)
		switch {
		case err != nil:
			return err
		case !found:
			return fault.New(fault.NotFound, "this public key is not blocked")
		case own:
			return errOwnKey()
		}
		var open int
		err = t.row(`SELECT count(*) FROM campaign WHERE state IN (1, 2) AND spki_hash = ?`, []any{spki[:]}, func(scan func(...any) error) error { return scan(&open) })
		if err != nil {
			return err
		}
		if open > 0 {
			return fault.New(fault.Conflict, "a campaign that revokes the certificates of this key has not ended").
				WithHint("cancel it first, or wait until it is done")
		}
		t.config = true
		return t.exec(`DELETE FROM blocked_key WHERE spki_hash = ?`, spki[:])
	}})
}
