package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

const deviceColumns = `id, version, status, group_name, owner, labels, subject, sans, note, reason, created_at, created_by, changed_at, changed_by,
	first_seen_at, last_seen_at, last_source, last_point, protocol, certificate, issuer_key_id, serial, not_after,
	failures, renewal_failures, failed_at, failure, returns, revoke_reason, revoke_until, revoke_profile`

const sqlInsertDevice = `
	INSERT INTO device (` + deviceColumns + `, search_text)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

// deviceArgs are the arguments of sqlInsertDevice.
func deviceArgs(d *pki.Device) ([]any, error) {
	labels, err := encodeObject(d.Labels)
	if err != nil {
		return nil, err
	}
	protocol, err := encodeObject(d.Protocol)
	if err != nil {
		return nil, err
	}
	sans, err := encodeStrings(d.SANs)
	if err != nil {
		return nil, err
	}
	var key, serial, until any
	if d.Certificate != (pki.Fingerprint{}) {
		key, serial = d.IssuerKeyID, d.Serial.Bytes()
	}
	until = optionalMicros(d.RevokeUntil)
	return []any{
		d.ID, d.Version, int(d.Status), d.Group, d.Owner, labels, d.Subject, sans, d.Note, d.Reason, micros(d.CreatedAt), d.CreatedBy, micros(d.ChangedAt), d.ChangedBy,
		optionalMicros(d.FirstSeenAt), optionalMicros(d.LastSeenAt), d.LastSource, d.LastPoint, protocol, optionalFingerprint(d.Certificate), key, serial, optionalMicros(d.NotAfter),
		d.Failures, d.RenewalFailures, optionalMicros(d.FailedAt), d.Failure, d.Returns, int(d.RevokeReason), until, d.RevokeProfile, store.DeviceText(d),
	}, nil
}

// encodeObject writes a JSON object; a map's keys are in order. Nil is the empty object.
func encodeObject(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	s := strings.TrimSuffix(b.String(), "\n")
	if s == "null" {
		s = "{}"
	}
	return s, err
}

func scanDevice(scan func(...any) error) (pki.Device, error) {
	var (
		d                                         pki.Device
		status, reason                            int
		labels, sans, protocol                    string
		created, changed                          int64
		first, last, key, notAfter, failed, until sql.NullInt64
		certificate, serial                       []byte
	)
	err := scan(&d.ID, &d.Version, &status, &d.Group, &d.Owner, &labels, &d.Subject, &sans, &d.Note, &d.Reason, &created, &d.CreatedBy, &changed, &d.ChangedBy,
		&first, &last, &d.LastSource, &d.LastPoint, &protocol, &certificate, &key, &serial, &notAfter,
		&d.Failures, &d.RenewalFailures, &failed, &d.Failure, &d.Returns, &reason, &until, &d.RevokeProfile)
	if err != nil {
		return d, err
	}
	d.Status, d.RevokeReason, d.CreatedAt, d.ChangedAt = pki.DeviceStatus(status), pki.Reason(reason), timeOf(created), timeOf(changed)
	d.FirstSeenAt, d.LastSeenAt, d.NotAfter, d.FailedAt, d.RevokeUntil = optionalTime(first), optionalTime(last), optionalTime(notAfter), optionalTime(failed), optionalTime(until)
	d.Certificate, d.IssuerKeyID, d.Serial = hash32(certificate), key.Int64, pki.SerialNumber(serial)
	if labels != "{}" {
		if err := json.Unmarshal([]byte(labels), &d.Labels); err != nil {
			return d, fmt.Errorf("labels of device %q: %w", d.ID, err)
		}
	}
	if protocol != "{}" {
		if err := json.Unmarshal([]byte(protocol), &d.Protocol); err != nil {
			return d, fmt.Errorf("protocol of device %q: %w", d.ID, err)
		}
	}
	d.SANs, err = decodeStrings(sans)
	return d, err
}

// CreateDevices writes new devices.
func (s *Store) CreateDevices(ctx context.Context, ds []pki.Device, r audit.Record) error {
	rows := make([][]any, len(ds))
	for i := range ds {
		var err error
		if rows[i], err = deviceArgs(&ds[i]); err != nil {
			return fault.Wrap(fault.Internal, err, "encoding a device")
		}
	}
	return s.write(ctx, &op{whole: true, records: sealed(r), apply: func(t *tx) error {
		for i, row := range rows {
			if err := t.exec(sqlInsertDevice, row...); err != nil {
				return conflict(err, fmt.Sprintf("there is a device with the id %q", ds[i].ID))
			}
		}
		return nil
	}})
}

// servesDevice refuses a device that is blocked or retired. One that is not in the registry may come.
func (t *tx) servesDevice(id string) error {
	var status int
	err := t.row(`SELECT status FROM device WHERE id = ?`, []any{id}, func(scan func(...any) error) error { return scan(&status) })
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	case !pki.DeviceStatus(status).Served():
		return store.RefuseDevice(id)
	}
	return nil
}

// admitDevice refuses an issuance for the sake of its device. It writes nothing.
func (t *tx) admitDevice(i *store.Issuance) error {
	if err := t.servesDevice(i.Certificate.Device); err != nil {
		return err
	}
	if i.DeviceCertificate != nil {
		var newest []byte
		err := t.row(`SELECT certificate FROM device WHERE id = ?`, []any{i.Certificate.Device}, func(scan func(...any) error) error { return scan(&newest) })
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if pki.Fingerprint(hash32(newest)) != *i.DeviceCertificate {
			return store.StaleDevice(i.Certificate.Device)
		}
	}
	if !i.SupersedeDevice {
		return nil
	}
	var other int
	err := t.row(`SELECT count(*) FROM device WHERE id = ? AND revoke_until IS NOT NULL AND revoke_profile <> ?`, []any{i.Certificate.Device, i.Certificate.Profile},
		func(scan func(...any) error) error { return scan(&other) })
	if err == nil && other > 0 {
		return store.DeviceBusy(i.Certificate.Device)
	}
	return err
}

// noteIssuance writes what an issuance says of its device.
func (t *tx) noteIssuance(i *store.Issuance) error {
	d := i.Device()
	args, err := deviceArgs(&d)
	if err != nil {
		return err
	}
	return t.exec(sqlInsertDevice+`
		ON CONFLICT (id) DO UPDATE SET
			version = version + (status = 1), status = excluded.status,
			changed_at = iif(status = 1, excluded.changed_at, changed_at), changed_by = iif(status = 1, excluded.changed_by, changed_by),
			first_seen_at = coalesce(first_seen_at, excluded.first_seen_at), last_seen_at = max(coalesce(last_seen_at, 0), excluded.last_seen_at),
			last_source = iif(excluded.last_source = '' OR last_seen_at > excluded.last_seen_at, last_source, excluded.last_source),
			last_point = iif(excluded.last_point = '' OR last_seen_at > excluded.last_seen_at, last_point, excluded.last_point),
			certificate = excluded.certificate, issuer_key_id = excluded.issuer_key_id, serial = excluded.serial, not_after = excluded.not_after,
			failures = 0, renewal_failures = 0, failed_at = NULL, failure = '', returns = 0,
			revoke_reason = iif(excluded.revoke_until IS NULL, revoke_reason, excluded.revoke_reason),
			revoke_profile = iif(excluded.revoke_until IS NULL, revoke_profile, excluded.revoke_profile),
			revoke_until = coalesce(excluded.revoke_until, revoke_until)`, args...)
}

// expectDevices registers the devices of challenges.
func (t *tx) expectDevices(ds []pki.Device) error {
	for i := range ds {
		if err := t.servesDevice(ds[i].ID); err != nil {
			return err
		}
		args, err := deviceArgs(&ds[i])
		if err != nil {
			return err
		}
		if err := t.exec(sqlInsertDevice+` ON CONFLICT (id) DO NOTHING`, args...); err != nil {
			return err
		}
	}
	return nil
}

// Device returns a device by its id.
func (s *Store) Device(ctx context.Context, id string) (pki.Device, error) {
	if err := s.begin(ctx); err != nil {
		return pki.Device{}, err
	}
	d, err := scanDevice(s.read.QueryRowContext(ctx, `SELECT `+deviceColumns+` FROM device WHERE id = ?`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return d, errNoDevice()
	}
	return d, s.asFault(ctx, err, "reading a device")
}

// devicesAtOnce is how many devices one statement looks up.
const devicesAtOnce = 500

// DevicesByID returns devices by their ids.
func (s *Store) DevicesByID(ctx context.Context, ids []string) (map[string]pki.Device, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	found := make(map[string]pki.Device, len(ids))
	for some := range slices.Chunk(ids, devicesAtOnce) {
		c := &clauses{from: `SELECT ` + deviceColumns + ` FROM device`}
		in(c, `id`, some)
		err := each(ctx, s.read, c.String(), c.args, func(scan func(...any) error) error {
			d, err := scanDevice(scan)
			found[d.ID] = d
			return err
		})
		if err != nil {
			return nil, s.asFault(ctx, err, "reading devices")
		}
	}
	return found, nil
}

func errNoDevice() error { return fault.New(fault.NotFound, "there is no such device") }

// devicesMatching returns the FROM and WHERE of a filter.
func devicesMatching(f store.DeviceFilter) *clauses {
	c := &clauses{from: `FROM device d`}
	in(c, `d.status`, f.Status)
	for _, e := range []struct{ condition, value string }{
		{`d.group_name = ?`, f.Group}, {`d.owner = ?`, f.Owner}, {`d.last_point = ?`, f.Point}, {`instr(d.search_text, ?) > 0`, strings.ToLower(f.Text)},
	} {
		if e.value != "" {
			c.add(e.condition, e.value)
		}
	}
	for name, value := range f.Labels {
		c.add(`EXISTS (SELECT 1 FROM json_each(d.labels) l WHERE l.key = ? AND l.value = ?)`, name, value)
	}
	for _, e := range []struct {
		condition string
		at        time.Time
	}{
		{`d.not_after >= ?`, f.NotAfterFrom}, {`d.not_after < ?`, f.NotAfterTo}, {`d.last_seen_at >= ?`, f.SeenFrom}, {`d.last_seen_at < ?`, f.SeenTo},
	} {
		if !e.at.IsZero() {
			c.add(e.condition, micros(e.at.Add(time.Microsecond-1))) // a bound between two microseconds is the upper one
		}
	}
	if !f.NotAfterFrom.IsZero() || !f.NotAfterTo.IsZero() {
		c.add(`NOT EXISTS (SELECT 1 FROM revocation r WHERE r.issuer_key_id = d.issuer_key_id AND r.serial = d.serial)`)
	}
	if f.Failing {
		c.add(`d.failures > 0`)
	}
	return c
}

// ListDevices returns a page of devices.
func (s *Store) ListDevices(ctx context.Context, f store.DeviceFilter, p store.Page) (page []pki.Device, next string, err error) {
	limit, c := pageLimit(p), devicesMatching(f)
	if p.Cursor != "" {
		after, err := parseCursor('d', p.Cursor)
		if err != nil {
			return nil, "", err
		}
		c.add(`d.id > ?`, string(after))
	}
	if err := s.begin(ctx); err != nil {
		return nil, "", err
	}
	err = each(ctx, s.read, `SELECT `+deviceColumns+` `+c.String()+` ORDER BY d.id LIMIT ?`, append(c.args, limit+1), func(scan func(...any) error) error {
		d, err := scanDevice(scan)
		page = append(page, d)
		return err
	})
	if err != nil {
		return nil, "", s.asFault(ctx, err, "listing devices")
	}
	if len(page) > limit {
		page = page[:limit]
		next = newCursor('d', []byte(page[limit-1].ID))
	}
	return page, next, nil
}

// CountDevices counts up to limit.
func (s *Store) CountDevices(ctx context.Context, f store.DeviceFilter, limit int) (n int, err error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	c := devicesMatching(f)
	err = s.read.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 `+c.String()+` LIMIT ?)`, append(c.args, max(limit, 0))...).Scan(&n)
	return n, s.asFault(ctx, err, "counting devices")
}

// ChangeDevice writes what people say of a device.
func (s *Store) ChangeDevice(ctx context.Context, c store.DeviceChange) error {
	d := &c.Device
	labels, err := encodeObject(d.Labels)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encoding the labels")
	}
	sans, err := encodeStrings(d.SANs)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encoding the SANs")
	}
	return s.write(ctx, &op{whole: true, records: sealed(c.Record), apply: func(t *tx) error {
		var version int
		err := t.row(`SELECT version FROM device WHERE id = ?`, []any{d.ID}, func(scan func(...any) error) error { return scan(&version) })
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return errNoDevice()
		case err != nil:
			return err
		case d.Version != version+1:
			return fault.Wrap(fault.Conflict, store.ErrStale, "the device has changed in between")
		}
		err = t.exec(`
			UPDATE device SET version = ?, status = ?, group_name = ?, owner = ?, labels = ?, subject = ?, sans = ?, note = ?, reason = ?,
				changed_at = ?, changed_by = ?, search_text = ? WHERE id = ?`,
			d.Version, int(d.Status), d.Group, d.Owner, labels, d.Subject, sans, d.Note, d.Reason, micros(d.ChangedAt), d.ChangedBy, store.DeviceText(d), d.ID)
		if err == nil && !d.RevokeUntil.IsZero() {
			err = t.exec(`UPDATE device SET revoke_reason = ?, revoke_until = ?, revoke_profile = ? WHERE id = ?`,
				int(d.RevokeReason), micros(d.RevokeUntil), d.RevokeProfile, d.ID)
		}
		if err == nil && c.EndChallenges {
			err = t.exec(`UPDATE challenge SET revoked_at = ? WHERE device = ? AND used_at IS NULL AND revoked_at IS NULL`, micros(d.ChangedAt), d.ID)
		}
		return err
	}})
}

// DevicesToRevoke returns devices with certificates that are to be revoked.
func (s *Store) DevicesToRevoke(ctx context.Context, limit int) (ds []pki.Device, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	err = each(ctx, s.read, `SELECT `+deviceColumns+` FROM device WHERE revoke_until IS NOT NULL ORDER BY id LIMIT ?`, []any{max(limit, 0)}, func(scan func(...any) error) error {
		d, err := scanDevice(scan)
		ds = append(ds, d)
		return err
	})
	return ds, s.asFault(ctx, err, "reading devices")
}

// DeviceRevoked notes that a device's certificates are revoked.
func (s *Store) DeviceRevoked(ctx context.Context, id string, until time.Time) error {
	return s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		if t.head.Closed {
			return errNotInUse()
		}
		return t.exec(`UPDATE device SET revoke_until = NULL, revoke_reason = 0, revoke_profile = '' WHERE id = ? AND revoke_until <= ?`, id, micros(until))
	}})
}

// NoteContacts writes sightings of devices and adds to the counts of refusals.
func (s *Store) NoteContacts(ctx context.Context, contacts []store.Contact, refusals []store.Refusal) error {
	sightings, refusals := store.Sightings(contacts), store.SumRefusals(refusals)
	if len(sightings)+len(refusals) == 0 {
		return nil
	}
	return s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		if t.head.Closed {
			return errNotInUse()
		}
		for _, c := range sightings {
			if c.Failures > 0 {
				before, err := t.failedBefore(c)
				if err != nil {
					return err
				}
				if before {
					c.Failures, c.RenewalFailures, c.FailedAt, c.Failure = 0, 0, time.Time{}, ""
				}
			}
			protocol := ""
			if c.Protocol != (pki.DeviceProtocol{}) {
				var err error
				if protocol, err = encodeObject(c.Protocol); err != nil {
					return err
				}
			}
			err := t.exec(`
				UPDATE device SET
					first_seen_at = coalesce(first_seen_at, ?2), last_seen_at = max(coalesce(last_seen_at, 0), ?3),
					last_source = iif(?4 = '', last_source, ?4), last_point = iif(?5 = '', last_point, ?5), protocol = iif(?6 = '', protocol, ?6),
					failures = failures + ?7, renewal_failures = renewal_failures + ?8, returns = returns + ?9,
					failed_at = coalesce(?10, failed_at), failure = iif(?11 = '', failure, ?11)
				WHERE id = ?1`,
				c.Device, micros(c.First), micros(c.At), c.Source, c.Point, protocol, c.Failures, c.RenewalFailures, c.Returns, optionalMicros(c.FailedAt), c.Failure)
			if err != nil {
				return err
			}
		}
		for _, r := range refusals {
			err := t.exec(`
				INSERT INTO refusal (day, point, kind, reason, number) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (day, point, kind, reason) DO UPDATE SET number = number + excluded.number`, r.Day, r.Point, r.Kind, r.Reason, r.Number)
			if err != nil {
				return err
			}
		}
		return nil
	}})
}

// failedBefore reports whether a device has its newest certificate since its request was refused.
func (t *tx) failedBefore(c store.Sighting) (bool, error) {
	var issued int64
	err := t.row(`SELECT c.issued_at FROM device d JOIN certificate c ON c.fingerprint = d.certificate WHERE d.id = ?`, []any{c.Device},
		func(scan func(...any) error) error { return scan(&issued) })
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return micros(c.FailedAt) < issued, err
}

// Fleet returns figures about all devices.
func (s *Store) Fleet(ctx context.Context, now time.Time) (store.Fleet, error) {
	if err := s.begin(ctx); err != nil {
		return store.Fleet{}, err
	}
	at := micros(now)
	day := (24 * time.Hour).Microseconds()
	figures := store.FleetFigures{}
	err := each(ctx, s.read, `
		SELECT d.group_name, d.status, count(*),
			total(d.status = 2 AND r.serial IS NULL AND d.not_after < ?1), total(d.status = 2 AND r.serial IS NULL AND d.not_after BETWEEN ?1 AND ?2 - 1),
			total(d.status = 2 AND r.serial IS NULL AND d.not_after BETWEEN ?1 AND ?3 - 1), total(d.status = 2 AND r.serial IS NULL AND d.not_after BETWEEN ?1 AND ?4 - 1),
			total(d.status = 2 AND r.serial IS NOT NULL), total(d.status <= 2 AND d.failures > 0), total(d.status <= 2 AND d.renewal_failures > 0)
		FROM device d LEFT JOIN revocation r ON r.issuer_key_id = d.issuer_key_id AND r.serial = d.serial
		GROUP BY d.group_name, d.status`, []any{at, at + 7*day, at + 30*day, at + 90*day}, func(scan func(...any) error) error {
		var group string
		var status, n int
		var f [7]float64
		if err := scan(&group, &status, &n, &f[0], &f[1], &f[2], &f[3], &f[4], &f[5], &f[6]); err != nil {
			return err
		}
		figures.Add(group, pki.DeviceStatus(status), n, store.GroupFigures{
			Ended: int(f[0]), In7: int(f[1]), In30: int(f[2]), In90: int(f[3]), Revoked: int(f[4]), Failing: int(f[5]), FailingRenewals: int(f[6]),
		})
		return nil
	})
	if err != nil {
		return store.Fleet{}, s.asFault(ctx, err, "counting the fleet")
	}
	return figures.Fleet(), nil
}

// Refusals returns the counts of days.
func (s *Store) Refusals(ctx context.Context, from int) (rs []store.Refusal, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	err = each(ctx, s.read, `SELECT day, point, kind, reason, number FROM refusal WHERE day >= ? ORDER BY day, point, kind, reason`, []any{from}, func(scan func(...any) error) error {
		var r store.Refusal
		err := scan(&r.Day, &r.Point, &r.Kind, &r.Reason, &r.Number)
		rs = append(rs, r)
		return err
	})
	return rs, s.asFault(ctx, err, "reading refusals")
}

// PruneRefusals forgets the counts of days that are long past.
func (s *Store) PruneRefusals(ctx context.Context, before, limit int) (int, error) {
	return s.forget(ctx, `
		DELETE FROM refusal WHERE (day, point, kind, reason) IN (
			SELECT day, point, kind, reason FROM refusal WHERE day < ? ORDER BY day LIMIT ?)`, before, max(limit, 0))
}
