package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

const deviceColumns = `id, version, status, group_name, owner, labels, subject, sans, note, reason, created_at, created_by, changed_at, changed_by,
	first_seen_at, last_seen_at, last_source, last_point, protocol, certificate, issuer_key_id, serial, not_after,
	failures, renewal_failures, failed_at, failure, returns, revoke_reason, revoke_until, revoke_profile`

// sqlInsertDevices inserts in the order of its arguments, and holds the rows that stand in its way in the same order:
// who gives them in the order of ids waits for others, but never in a circle.
const sqlInsertDevices = `
	INSERT INTO device AS d (` + deviceColumns + `, search_text)
	SELECT u.id, u.version, u.status, u.group_name, u.owner, u.labels, u.subject, u.sans::text[], u.note, u.reason, u.created_at, u.created_by, u.changed_at, u.changed_by,
		u.first_seen_at, u.last_seen_at, u.last_source, u.last_point, u.protocol, u.certificate, u.issuer_key_id, u.serial, u.not_after,
		u.failures, u.renewal_failures, u.failed_at, u.failure, u.returns, u.revoke_reason, u.revoke_until, u.revoke_profile, u.search_text
	FROM unnest($1::text[], $2::integer[], $3::smallint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
		$11::timestamptz[], $12::text[], $13::timestamptz[], $14::text[], $15::timestamptz[], $16::timestamptz[], $17::text[], $18::text[], $19::text[],
		$20::bytea[], $21::bigint[], $22::bytea[], $23::timestamptz[], $24::integer[], $25::integer[], $26::timestamptz[], $27::text[], $28::integer[],
		$29::smallint[], $30::timestamptz[], $31::text[], $32::text[])
		AS u (` + deviceColumns + `, search_text)`

// deviceArgs are the arguments of sqlInsertDevices.
func deviceArgs(ds []pki.Device) ([]any, error) {
	n := len(ds)
	var (
		strs     = make([]string, 16*n)
		column   = func(i int) []string { return strs[i*n : (i+1)*n : (i+1)*n] }
		times    = make([]*time.Time, 5*n)
		moment   = func(i int) []*time.Time { return times[i*n : (i+1)*n : (i+1)*n] }
		int32s   = make([]int32, 4*n)
		number   = func(i int) []int32 { return int32s[i*n : (i+1)*n : (i+1)*n] }
		created  = make([]time.Time, n)
		changed  = make([]time.Time, n)
		statuses = make([]int16, n)
		revokes  = make([]int16, n)
		prints   = make([][]byte, n)
		serials  = make([][]byte, n)
		keys     = make([]*int64, n)

		ids, groups, owners, labels, subjects, sans    = column(0), column(1), column(2), column(3), column(4), column(5)
		notes, reasons, creators, changers, sources    = column(6), column(7), column(8), column(9), column(10)
		points, protocols, failure, profiles, searches = column(11), column(12), column(13), column(14), column(15)
		first, last, notAfter, failed, until           = moment(0), moment(1), moment(2), moment(3), moment(4)
		versions, failures, renewals, returns          = number(0), number(1), number(2), number(3)
	)
	for i := range ds {
		d := &ds[i]
		var err error
		if labels[i], err = encodeLabels(d.Labels); err != nil {
			return nil, err
		}
		if protocols[i], err = encodeObject(d.Protocol); err != nil {
			return nil, err
		}
		ids[i], groups[i], owners[i], subjects[i], sans[i] = text(d.ID), text(d.Group), text(d.Owner), text(d.Subject), text(arrayLiteral(d.SANs))
		notes[i], reasons[i], creators[i], changers[i] = text(d.Note), text(d.Reason), text(d.CreatedBy), text(d.ChangedBy)
		sources[i], points[i], failure[i], profiles[i], searches[i] = text(d.LastSource), text(d.LastPoint), text(d.Failure), text(d.RevokeProfile), text(store.DeviceText(d))
		versions[i], failures[i], renewals[i], returns[i] = int32(d.Version), int32(d.Failures), int32(d.RenewalFailures), int32(d.Returns)
		statuses[i], revokes[i], created[i], changed[i] = int16(d.Status), int16(d.RevokeReason), cut(d.CreatedAt), cut(d.ChangedAt)
		first[i], last[i], failed[i], until[i], notAfter[i] = orNull(d.FirstSeenAt), orNull(d.LastSeenAt), orNull(d.FailedAt), orNull(d.RevokeUntil), orNull(d.NotAfter)
		if d.Certificate != (pki.Fingerprint{}) {
			prints[i], keys[i], serials[i] = d.Certificate[:], &d.IssuerKeyID, d.Serial.Bytes()
		}
	}
	return []any{
		ids, versions, statuses, groups, owners, labels, subjects, sans, notes, reasons, created, creators, changed, changers,
		first, last, sources, points, protocols, prints, keys, serials, notAfter,
		failures, renewals, failed, failure, returns, revokes, until, profiles, searches,
	}, nil
}

// encodeLabels writes labels that the database can look into.
func encodeLabels(labels map[string]string) (string, error) {
	fit := make(map[string]string, len(labels))
	for name, value := range labels {
		fit[text(name)] = text(value)
	}
	return encodeObject(fit)
}

// encodeObject writes a JSON object; a map's keys are in order.
func encodeObject(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return text(strings.TrimSuffix(b.String(), "\n")), err
}

func scanDevice(row pgx.CollectableRow) (d pki.Device, err error) {
	var (
		certificate, serial                  []byte
		first, last, notAfter, failed, until *time.Time
		key                                  *int64
		labels, protocol                     string
	)
	err = row.Scan(&d.ID, &d.Version, (*int)(&d.Status), &d.Group, &d.Owner, &labels, &d.Subject, &d.SANs, &d.Note, &d.Reason, &d.CreatedAt, &d.CreatedBy, &d.ChangedAt, &d.ChangedBy,
		&first, &last, &d.LastSource, &d.LastPoint, &protocol, &certificate, &key, &serial, &notAfter,
		&d.Failures, &d.RenewalFailures, &failed, &d.Failure, &d.Returns, (*int)(&d.RevokeReason), &until, &d.RevokeProfile)
	if err != nil {
		return d, err
	}
	d.CreatedAt, d.ChangedAt = d.CreatedAt.UTC(), d.ChangedAt.UTC()
	d.FirstSeenAt, d.LastSeenAt, d.NotAfter, d.FailedAt, d.RevokeUntil = fromNull(first), fromNull(last), fromNull(notAfter), fromNull(failed), fromNull(until)
	d.Serial = pki.SerialNumber(serial)
	if key != nil {
		d.IssuerKeyID = *key
	}
	if len(d.SANs) == 0 {
		d.SANs = nil
	}
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
	return d, setOrNull(d.Certificate[:], certificate, "device.certificate")
}

// devicesAtOnce is how many devices one statement inserts, as challengesAtOnce.
const devicesAtOnce = 1000

// CreateDevices implements store.Devices.
func (s *Store) CreateDevices(ctx context.Context, ds []pki.Device, record audit.Record) error {
	sorted := slices.Clone(ds)
	sortDevices(sorted)
	return s.write(ctx, "creating devices", nil, func(t *tx) error {
		t.seals = sealing{records: []audit.Record{record}}
		for some := range slices.Chunk(sorted, devicesAtOnce) {
			args, err := deviceArgs(some)
			if err != nil {
				return err
			}
			rows, err := t.Query(ctx, sqlInsertDevices+` ON CONFLICT (id) DO NOTHING RETURNING d.id`, args...)
			if err != nil {
				return err
			}
			written, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return err
			}
			if len(written) == len(some) {
				continue
			}
			for _, d := range some {
				i := slices.Index(written, text(d.ID))
				if i < 0 {
					return fault.New(fault.Conflict, "there is a device with the id %q", d.ID)
				}
				written[i] = "" // a second of the same id was not written
			}
		}
		return nil
	})
}

func sortDevices(ds []pki.Device) {
	slices.SortStableFunc(ds, func(a, b pki.Device) int { return strings.Compare(text(a.ID), text(b.ID)) })
}

// sqlEnrollDevices notes new certificates. What it does not return may have none; and a device whose revoke_until it
// returns as it was has other certificates to be revoked first.
const sqlEnrollDevices = sqlInsertDevices + `
	ON CONFLICT (id) DO UPDATE SET
		version = d.version + (d.status = 1)::integer, status = excluded.status,
		changed_at = CASE WHEN d.status = 1 THEN excluded.changed_at ELSE d.changed_at END,
		changed_by = CASE WHEN d.status = 1 THEN excluded.changed_by ELSE d.changed_by END,
		first_seen_at = coalesce(d.first_seen_at, excluded.first_seen_at), last_seen_at = greatest(d.last_seen_at, excluded.last_seen_at),
		last_source = CASE WHEN excluded.last_source = '' OR d.last_seen_at > excluded.last_seen_at THEN d.last_source ELSE excluded.last_source END,
		last_point = CASE WHEN excluded.last_point = '' OR d.last_seen_at > excluded.last_seen_at THEN d.last_point ELSE excluded.last_point END,
		certificate = excluded.certificate, issuer_key_id = excluded.issuer_key_id, serial = excluded.serial, not_after = excluded.not_after,
		failures = 0, renewal_failures = 0, failed_at = NULL, failure = '', returns = 0,
		revoke_reason = CASE WHEN excluded.revoke_until IS NULL THEN d.revoke_reason ELSE excluded.revoke_reason END,
		revoke_profile = CASE WHEN excluded.revoke_until IS NULL OR d.revoke_until IS NOT NULL THEN d.revoke_profile ELSE excluded.revoke_profile END,
		revoke_until = CASE WHEN d.revoke_until IS NULL OR d.revoke_profile = excluded.revoke_profile THEN coalesce(excluded.revoke_until, d.revoke_until) ELSE d.revoke_until END
	WHERE d.status IN (1, 2)
	RETURNING d.id, d.revoke_until`

// deviceRows are what issuances write of their devices.
type deviceRows struct {
	args []any
	ops  map[string][]*issuance // by the device's id
}

// newDeviceRows prepares the rows of issuances, which are in the order of arrival. Of several of a device the last is
// noted; none of these supersedes others: see apart.
func newDeviceRows(ops []*issuance) (r deviceRows, err error) {
	var ds []pki.Device
	for _, op := range ops {
		if op.Certificate.Device == "" {
			continue
		}
		if r.ops == nil {
			r.ops = make(map[string][]*issuance)
		}
		d := op.Device()
		ds, r.ops[text(d.ID)] = append(ds, d), append(r.ops[text(d.ID)], op)
	}
	if len(ds) == 0 {
		return r, nil
	}
	slices.Reverse(ds)
	sortDevices(ds)
	ds = slices.CompactFunc(ds, func(a, b pki.Device) bool { return text(a.ID) == text(b.ID) })
	r.args, err = deviceArgs(ds)
	return r, err
}

// queue queues the statement that notes the certificates of devices, and refuses those that may have none. It holds the
// devices, so that whoever blocks one waits for the end of this transaction, or has blocked it before.
func (r deviceRows) queue(b *pgx.Batch) {
	if r.args == nil {
		return
	}
	b.Queue(sqlEnrollDevices, r.args...).Query(func(rows pgx.Rows) error {
		var id string
		var until *time.Time
		served := make(map[string]bool, len(r.ops))
		_, err := pgx.ForEachRow(rows, []any{&id, &until}, func() error {
			served[id] = true
			for _, op := range r.ops[id] {
				if op.SupersedeDevice && !fromNull(until).Equal(cut(op.Device().RevokeUntil)) {
					op.refuse(store.DeviceBusy(op.Certificate.Device))
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for id, ops := range r.ops {
			for _, op := range ops {
				if !served[id] {
					op.refuse(store.RefuseDevice(op.Certificate.Device))
				}
			}
		}
		return nil
	})
}

// newDeviceLock is the class of advisory locks by which those who would be a device's first are held apart.
const newDeviceLock int32 = 0x64657669

// queueNewest queues the statement that refuses what was decided by a certificate which is not its device's newest any more,
// and holds the devices.
func queueNewest(b *pgx.Batch, ops []*issuance) {
	waiting := make(map[string][]*issuance)
	for _, op := range ops {
		if op.DeviceCertificate != nil && op.Certificate.Device != "" {
			id := text(op.Certificate.Device)
			waiting[id] = append(waiting[id], op)
		}
	}
	if len(waiting) == 0 {
		return
	}
	ids := slices.Sorted(maps.Keys(waiting))
	// A device that is not in the registry yet has no row to be held by.
	unknown := slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		return !slices.ContainsFunc(waiting[id], func(op *issuance) bool { return *op.DeviceCertificate == pki.Fingerprint{} })
	})
	if len(unknown) > 0 {
		b.Queue(`SELECT pg_advisory_xact_lock($2, hashtext(id)) FROM unnest($1::text[]) AS id`, unknown, newDeviceLock)
	}
	b.Queue(`SELECT id, certificate FROM device WHERE id = ANY($1::text[]) ORDER BY id COLLATE "C" FOR UPDATE`, ids).Query(func(rows pgx.Rows) error {
		newest := make(map[string]pki.Fingerprint, len(waiting))
		var id string
		var certificate []byte
		_, err := pgx.ForEachRow(rows, []any{&id, &certificate}, func() error {
			var f pki.Fingerprint
			err := setOrNull(f[:], certificate, "device.certificate")
			newest[id] = f
			return err
		})
		if err != nil {
			return err
		}
		for id, ops := range waiting {
			for _, op := range ops {
				if newest[id] != *op.DeviceCertificate {
					op.refuse(store.StaleDevice(op.Certificate.Device))
				}
			}
		}
		return nil
	})
}

// queueServed queues the statement that refuses a device which is blocked or retired, and holds it as it is. One that is
// not in the registry may come.
func queueServed(b *pgx.Batch, id string) {
	b.Queue(`SELECT status FROM device WHERE id = $1 FOR SHARE`, text(id)).QueryRow(func(row pgx.Row) error {
		var status pki.DeviceStatus
		switch err := row.Scan((*int)(&status)); {
		case isNoRows(err):
			return nil
		case err != nil:
			return err
		case !status.Served():
			return store.RefuseDevice(id)
		}
		return nil
	})
}

// expectDevices registers the devices of challenges, and holds them all: DO UPDATE does, whether or not its condition is
// met.
func expectDevices(ctx context.Context, t *tx, ds []pki.Device) error {
	sortDevices(ds)
	ds = slices.CompactFunc(ds, func(a, b pki.Device) bool { return text(a.ID) == text(b.ID) })
	for some := range slices.Chunk(ds, devicesAtOnce) {
		args, err := deviceArgs(some)
		if err != nil {
			return err
		}
		rows, err := t.Query(ctx, sqlInsertDevices+`
			ON CONFLICT (id) DO UPDATE SET status = d.status WHERE d.status NOT IN (1, 2)
			RETURNING d.id, d.status`, args...)
		if err != nil {
			return err
		}
		var id string
		var status pki.DeviceStatus
		refused := ""
		_, err = pgx.ForEachRow(rows, []any{&id, (*int)(&status)}, func() error {
			if !status.Served() && refused == "" {
				refused = id
			}
			return nil
		})
		if err != nil {
			return err
		}
		if refused != "" {
			return store.RefuseDevice(refused)
		}
	}
	return nil
}

// Device implements store.Devices.
func (s *Store) Device(ctx context.Context, id string) (pki.Device, error) {
	return read(ctx, s, "reading a device", func(conn *pgxpool.Conn) (pki.Device, error) {
		rows, err := conn.Query(ctx, `SELECT `+deviceColumns+` FROM device WHERE id = $1`, text(id))
		if err != nil {
			return pki.Device{}, err
		}
		d, err := pgx.CollectExactlyOneRow(rows, scanDevice)
		if isNoRows(err) {
			return d, errNoDevice()
		}
		return d, err
	})
}

// DevicesByID implements store.Devices.
func (s *Store) DevicesByID(ctx context.Context, ids []string) (map[string]pki.Device, error) {
	if len(ids) == 0 {
		return map[string]pki.Device{}, nil
	}
	return read(ctx, s, "reading devices", func(conn *pgxpool.Conn) (map[string]pki.Device, error) {
		fit := make([]string, len(ids))
		for i, id := range ids {
			fit[i] = text(id)
		}
		rows, err := conn.Query(ctx, `SELECT `+deviceColumns+` FROM device WHERE id = ANY($1::text[])`, fit)
		if err != nil {
			return nil, err
		}
		ds, err := pgx.CollectRows(rows, scanDevice)
		if err != nil {
			return nil, err
		}
		found := make(map[string]pki.Device, len(ds))
		for _, d := range ds {
			found[d.ID] = d
		}
		return found, nil
	})
}

func errNoDevice() error { return fault.New(fault.NotFound, "there is no such device") }

const deviceList = "devices"

func (w *where) devices(f store.DeviceFilter) error {
	if len(f.Status) > 0 {
		statuses := make([]int16, len(f.Status))
		for i, status := range f.Status {
			statuses[i] = int16(status)
		}
		w.and(`d.status = ANY(?::smallint[])`, statuses)
	}
	for _, e := range []struct{ condition, value string }{{`d.group_name = ?`, f.Group}, {`d.owner = ?`, f.Owner}, {`d.last_point = ?`, f.Point}} {
		if e.value != "" {
			w.and(e.condition, text(e.value))
		}
	}
	if f.Text != "" {
		w.and(`d.search_text LIKE ?`, "%"+escapeLike.Replace(text(strings.ToLower(f.Text)))+"%")
	}
	if len(f.Labels) > 0 {
		labels, err := encodeLabels(f.Labels)
		if err != nil {
			return err
		}
		w.and(`d.labels::jsonb @> ?::text::jsonb`, labels)
	}
	for _, e := range []struct {
		condition string
		at        time.Time
	}{
		{`d.not_after >= ?`, f.NotAfterFrom},
		{`d.not_after < ?`, f.NotAfterTo},
		{`d.last_seen_at >= ?`, f.SeenFrom},
		{`d.last_seen_at < ?`, f.SeenTo},
	} {
		if !e.at.IsZero() {
			w.and(e.condition, ceil(e.at))
		}
	}
	if !f.NotAfterFrom.IsZero() || !f.NotAfterTo.IsZero() {
		w.and(`NOT EXISTS (SELECT 1 FROM revocation r WHERE r.issuer_key_id = d.issuer_key_id AND r.serial = d.serial)`)
	}
	if f.Failing {
		w.and(`d.failures > 0`)
	}
	return nil
}

// ListDevices implements store.Devices.
func (s *Store) ListDevices(ctx context.Context, f store.DeviceFilter, p store.Page) ([]pki.Device, string, error) {
	limit, err := limitOf(p.Limit)
	if err != nil {
		return nil, "", err
	}
	var w where
	if err := w.devices(f); err != nil {
		return nil, "", fault.Wrap(fault.BadRequest, err, "the labels cannot be read")
	}
	if p.Cursor != "" {
		after, err := parseCursor(deviceList, p.Cursor)
		if err != nil {
			return nil, "", err
		}
		w.and(`d.id > ?`, string(after))
	}
	sql := `SELECT ` + deviceColumns + ` FROM device d` + w.String() + ` ORDER BY d.id LIMIT ` + strconv.Itoa(limit+1)
	list, err := readOn(ctx, s, s.lists, "listing devices", func(conn *pgxpool.Conn) ([]pki.Device, error) {
		rows, err := conn.Query(ctx, sql, append([]any{pgx.QueryExecModeDescribeExec}, w.args...)...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, scanDevice)
	})
	if err != nil || len(list) <= limit {
		return list, "", err
	}
	return list[:limit], cursor(deviceList, []byte(list[limit-1].ID)), nil
}

// CountDevices implements store.Devices.
func (s *Store) CountDevices(ctx context.Context, f store.DeviceFilter, limit int) (int, error) {
	if limit <= 0 {
		return 0, nil
	}
	var w where
	if err := w.devices(f); err != nil {
		return 0, fault.Wrap(fault.BadRequest, err, "the labels cannot be read")
	}
	sql := `SELECT count(*) FROM (SELECT 1 FROM device d` + w.String() + ` LIMIT ` + strconv.Itoa(limit) + `) AS n`
	return readOn(ctx, s, s.lists, "counting devices", func(conn *pgxpool.Conn) (n int, err error) {
		err = conn.QueryRow(ctx, sql, append([]any{pgx.QueryExecModeDescribeExec}, w.args...)...).Scan(&n)
		return n, err
	})
}

// ChangeDevice implements store.Devices.
func (s *Store) ChangeDevice(ctx context.Context, c store.DeviceChange) error {
	d := &c.Device
	labels, err := encodeLabels(d.Labels)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encoding the labels")
	}
	version := 0
	first := func(b *pgx.Batch) {
		version = 0
		b.Queue(`SELECT version FROM device WHERE id = $1 FOR UPDATE`, text(d.ID)).QueryRow(func(row pgx.Row) error {
			err := row.Scan(&version)
			if isNoRows(err) {
				return nil
			}
			return err
		})
	}
	return s.write(ctx, "changing a device", first, func(t *tx) error {
		switch {
		case version == 0:
			return errNoDevice()
		case d.Version != version+1:
			return fault.Wrap(fault.Conflict, store.ErrStale, "the device has changed in between")
		}
		b := &pgx.Batch{}
		b.Queue(`
			UPDATE device SET version = $2, status = $3, group_name = $4, owner = $5, labels = $6, subject = $7, sans = $8, note = $9, reason = $10,
				changed_at = $11, changed_by = $12, search_text = $13 WHERE id = $1`,
			text(d.ID), d.Version, int16(d.Status), text(d.Group), text(d.Owner), labels, text(d.Subject), texts(d.SANs), text(d.Note), text(d.Reason),
			cut(d.ChangedAt), text(d.ChangedBy), text(store.DeviceText(d)))
		if !d.RevokeUntil.IsZero() {
			b.Queue(`UPDATE device SET revoke_reason = $2, revoke_until = $3, revoke_profile = $4 WHERE id = $1`,
				text(d.ID), int16(d.RevokeReason), cut(d.RevokeUntil), text(d.RevokeProfile))
		}
		if c.EndChallenges {
			// Held in the order of ids, as by those who use them.
			b.Queue(`
				WITH held AS (
					SELECT id FROM challenge WHERE device = $1 AND used_at IS NULL AND revoked_at IS NULL ORDER BY id FOR UPDATE
				)
				UPDATE challenge c SET revoked_at = $2 FROM held WHERE c.id = held.id AND c.used_at IS NULL AND c.revoked_at IS NULL`, text(d.ID), cut(d.ChangedAt))
		}
		t.seals = sealing{records: []audit.Record{c.Record}}
		return t.SendBatch(ctx, b).Close()
	})
}

// DevicesToRevoke implements store.Devices.
func (s *Store) DevicesToRevoke(ctx context.Context, limit int) ([]pki.Device, error) {
	return read(ctx, s, "reading devices", func(conn *pgxpool.Conn) ([]pki.Device, error) {
		rows, err := conn.Query(ctx, `SELECT `+deviceColumns+` FROM device WHERE revoke_until IS NOT NULL ORDER BY id LIMIT $1`, max(limit, 0))
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, scanDevice)
	})
}

// DeviceRevoked implements store.Devices.
func (s *Store) DeviceRevoked(ctx context.Context, id string, until time.Time) error {
	return s.note(ctx, "noting that a device's certificates are revoked", func(b *pgx.Batch) {
		b.Queue(`UPDATE device SET revoke_until = NULL, revoke_reason = 0, revoke_profile = '' WHERE id = $1 AND revoke_until <= $2`, text(id), cut(until))
	})
}

// note runs statements that are no change in the sense of the contract, as one transaction. The head is held last, as in
// every transaction, and here only so that a store which is being fenced is left alone.
func (s *Store) note(ctx context.Context, doing string, queue func(*pgx.Batch)) error {
	for try := 1; ; try++ {
		err := s.noteOnce(ctx, queue)
		if err == nil {
			return nil
		}
		if _, decided := errors.AsType[*fault.Error](err); decided || ctx.Err() != nil || !isCodeClass(err, "40") || try == 5 {
			return fail(withContext(ctx, err), doing)
		}
	}
}

// forget is note for one statement that deletes rows. It returns how many there were.
func (s *Store) forget(ctx context.Context, doing, deletion string, args ...any) (n int, err error) {
	err = s.note(ctx, doing, func(b *pgx.Batch) {
		b.Queue(deletion, args...).Exec(func(tag pgconn.CommandTag) error {
			n = int(tag.RowsAffected())
			return nil
		})
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (s *Store) noteOnce(ctx context.Context, queue func(*pgx.Batch)) error {
	conn, err := s.writers.Acquire(ctx)
	if err != nil {
		return err
	}
	defer s.rollback(conn)
	b := &pgx.Batch{}
	b.Queue(`BEGIN ISOLATION LEVEL READ COMMITTED`)
	queue(b)
	b.Queue(`SELECT closed_at IS NOT NULL FROM head WHERE strand = 0 FOR SHARE`).QueryRow(func(row pgx.Row) error {
		var closed bool
		if err := row.Scan(&closed); err != nil || !closed {
			return err
		}
		return fault.Wrap(fault.Unavailable, store.ErrNotInUse, "the store is fenced: nothing is written to it any more").WithRetryAfter(retryAfter)
	})
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `COMMIT`)
	return err
}

// NoteContacts implements store.Devices.
func (s *Store) NoteContacts(ctx context.Context, contacts []store.Contact, refusals []store.Refusal) error {
	sightings, refusals := store.Sightings(contacts), store.SumRefusals(refusals)
	if len(sightings)+len(refusals) == 0 {
		return nil
	}
	protocols := make([]string, len(sightings))
	for i, c := range sightings {
		if c.Protocol == (pki.DeviceProtocol{}) {
			continue
		}
		var err error
		if protocols[i], err = encodeObject(c.Protocol); err != nil {
			return fault.Wrap(fault.Internal, err, "encoding what a device was seen to do")
		}
	}
	return s.note(ctx, "noting contacts of devices", func(b *pgx.Batch) {
		queueSightings(b, sightings, protocols)
		queueRefusals(b, refusals)
	})
}

func queueSightings(b *pgx.Batch, sightings []store.Sighting, protocols []string) {
	n := len(sightings)
	if n == 0 {
		return
	}
	ids, sources, points, reasons := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	first, last, failed := make([]time.Time, n), make([]time.Time, n), make([]*time.Time, n)
	failures, renewals, returns := make([]int32, n), make([]int32, n), make([]int32, n)
	for i, c := range sightings {
		ids[i], sources[i], points[i], reasons[i] = text(c.Device), text(c.Source), text(c.Point), text(c.Failure)
		first[i], last[i], failed[i] = cut(c.First), cut(c.At), orNull(c.FailedAt)
		failures[i], renewals[i], returns[i] = int32(c.Failures), int32(c.RenewalFailures), int32(c.Returns)
	}
	b.Queue(`SELECT 1 FROM device WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE`, ids)
	b.Queue(`
		UPDATE device d SET
			first_seen_at = coalesce(d.first_seen_at, u.first), last_seen_at = greatest(d.last_seen_at, u.last),
			last_source = coalesce(nullif(u.source, ''), d.last_source), last_point = coalesce(nullif(u.point, ''), d.last_point),
			protocol = coalesce(nullif(u.protocol, ''), d.protocol), returns = d.returns + u.returns,
			failures = d.failures + CASE WHEN u.before THEN 0 ELSE u.failures END,
			renewal_failures = d.renewal_failures + CASE WHEN u.before THEN 0 ELSE u.renewals END,
			failed_at = CASE WHEN u.before THEN d.failed_at ELSE coalesce(u.failed, d.failed_at) END,
			failure = CASE WHEN u.before THEN d.failure ELSE coalesce(nullif(u.failure, ''), d.failure) END
		FROM (
			SELECT u.*, -- whether it has its newest certificate since it was refused
				u.failures > 0 AND EXISTS (SELECT 1 FROM device x JOIN certificate c ON c.fingerprint = x.certificate WHERE x.id = u.id AND c.issued_at > u.failed) AS before
			FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::integer[], $8::integer[], $9::integer[],
				$10::timestamptz[], $11::text[])
				AS u (id, first, last, source, point, protocol, failures, renewals, returns, failed, failure)
		) u
		WHERE d.id = u.id`, ids, first, last, sources, points, protocols, failures, renewals, returns, failed, reasons)
}

func queueRefusals(b *pgx.Batch, refusals []store.Refusal) {
	n := len(refusals)
	if n == 0 {
		return
	}
	days, points, kinds, reasons, numbers := make([]int32, n), make([]string, n), make([]string, n), make([]string, n), make([]int64, n)
	for i, r := range refusals {
		days[i], points[i], kinds[i], reasons[i], numbers[i] = int32(r.Day), text(r.Point), text(r.Kind), text(r.Reason), r.Number
	}
	b.Queue(`
		INSERT INTO refusal AS r (day, point, kind, reason, number)
		SELECT u.day, u.point, u.kind, u.reason, u.number
		FROM unnest($1::integer[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS u (day, point, kind, reason, number)
		ON CONFLICT (day, point, kind, reason) DO UPDATE SET number = r.number + excluded.number`, days, points, kinds, reasons, numbers)
}

// Fleet implements store.Devices.
func (s *Store) Fleet(ctx context.Context, now time.Time) (store.Fleet, error) {
	at := cut(now)
	const day = 24 * time.Hour
	return readOn(ctx, s, s.lists, "counting the fleet", func(conn *pgxpool.Conn) (store.Fleet, error) {
		rows, err := conn.Query(ctx, `
			SELECT d.group_name, d.status, count(*),
				count(*) FILTER (WHERE d.status = 2 AND r.serial IS NULL AND d.not_after < $1),
				count(*) FILTER (WHERE d.status = 2 AND r.serial IS NULL AND d.not_after >= $1 AND d.not_after < $2),
				count(*) FILTER (WHERE d.status = 2 AND r.serial IS NULL AND d.not_after >= $1 AND d.not_after < $3),
				count(*) FILTER (WHERE d.status = 2 AND r.serial IS NULL AND d.not_after >= $1 AND d.not_after < $4),
				count(*) FILTER (WHERE d.status = 2 AND r.serial IS NOT NULL),
				count(*) FILTER (WHERE d.status <= 2 AND d.failures > 0), count(*) FILTER (WHERE d.status <= 2 AND d.renewal_failures > 0)
			FROM device d LEFT JOIN revocation r ON r.issuer_key_id = d.issuer_key_id AND r.serial = d.serial
			GROUP BY d.group_name, d.status`, at, at.Add(7*day), at.Add(30*day), at.Add(90*day))
		if err != nil {
			return store.Fleet{}, err
		}
		figures := store.FleetFigures{}
		var group string
		var status pki.DeviceStatus
		var n int
		var f store.GroupFigures
		_, err = pgx.ForEachRow(rows, []any{&group, (*int)(&status), &n, &f.Ended, &f.In7, &f.In30, &f.In90, &f.Revoked, &f.Failing, &f.FailingRenewals}, func() error {
			figures.Add(group, status, n, f)
			return nil
		})
		return figures.Fleet(), err
	})
}

// Refusals implements store.Devices.
func (s *Store) Refusals(ctx context.Context, from int) ([]store.Refusal, error) {
	return readOn(ctx, s, s.lists, "reading refusals", func(conn *pgxpool.Conn) ([]store.Refusal, error) {
		rows, err := conn.Query(ctx, `
			SELECT day, point, kind, reason, number FROM refusal WHERE day >= $1
			ORDER BY day, point COLLATE "C", kind COLLATE "C", reason COLLATE "C"`, from)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r store.Refusal, err error) {
			err = row.Scan(&r.Day, &r.Point, &r.Kind, &r.Reason, &r.Number)
			return r, err
		})
	})
}

// PruneRefusals implements store.Devices. Several replicas may do it at once: each takes rows of its own.
func (s *Store) PruneRefusals(ctx context.Context, before, limit int) (int, error) {
	return s.forget(ctx, "forgetting counts of refusals", `
		DELETE FROM refusal
		WHERE (day, point, kind, reason) IN (
			SELECT day, point, kind, reason FROM refusal WHERE day < $1 ORDER BY day LIMIT $2 FOR UPDATE SKIP LOCKED)`, before, max(limit, 0))
}
