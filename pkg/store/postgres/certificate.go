package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// certificateColumns are what scanCertificate reads, but for the DER.
const certificateColumns = `
	c.issuer_id, c.issuer_key_id, c.serial, c.fingerprint, c.spki_hash, c.subject, c.sans, c.profile, c.profile_version,
	c.requester, c.protocol, c.device, c.source, c.transaction_id, c.replaces, c.crl_scope, c.crl_shard, c.not_before,
	c.not_after, c.issued_at, r.status, r.reason, r.revoked_at, r.invalidity_date,
	r.first_crl_at, r.first_ocsp_at`

const certificateTables = `
	FROM certificate c
	LEFT JOIN revocation r ON r.issuer_key_id = c.issuer_key_id AND r.serial = c.serial`

// scanCertificate reads certificateColumns and what more the query selects after them.
func scanCertificate(row pgx.Row, more ...any) (c pki.Certificate, err error) {
	var serial, fingerprint, spki, replaces []byte
	var status, reason *int16
	var revokedAt, invalidity, firstCRL, firstOCSP *time.Time
	err = row.Scan(append([]any{
		&c.IssuerID, &c.IssuerKeyID, &serial, &fingerprint, &spki, &c.Subject, &c.SANs, &c.Profile, &c.ProfileVersion,
		&c.Requester, &c.Protocol, &c.Device, &c.Source, &c.TransactionID, &replaces, &c.CRLScope, &c.CRLShard, &c.NotBefore,
		&c.NotAfter, &c.IssuedAt, &status, &reason, &revokedAt, &invalidity, &firstCRL, &firstOCSP,
	}, more...)...)
	if err != nil {
		return c, err
	}
	c.Serial = pki.SerialNumber(serial)
	if err := setHash(c.Fingerprint[:], fingerprint, "certificate.fingerprint"); err != nil {
		return c, err
	}
	if err := setHash(c.SPKIHash[:], spki, "certificate.spki_hash"); err != nil {
		return c, err
	}
	if replaces != nil {
		if err := setHash(c.Replaces[:], replaces, "certificate.replaces"); err != nil {
			return c, err
		}
	}
	if len(c.SANs) == 0 {
		c.SANs = nil
	}
	c.NotBefore, c.NotAfter, c.IssuedAt = c.NotBefore.UTC(), c.NotAfter.UTC(), c.IssuedAt.UTC()
	c.Revocation = revocationOf(status, reason, revokedAt, invalidity)
	c.FirstCRLAt, c.FirstOCSPAt = fromNull(firstCRL), fromNull(firstOCSP)
	return c, nil
}

// revocationOf makes a revocation of nullable columns: nil when there is none, or when the status is good.
func revocationOf(status, reason *int16, revokedAt, invalidity *time.Time) *pki.Revocation {
	if status == nil || reason == nil || pki.Status(*status) == pki.Good {
		return nil
	}
	return &pki.Revocation{
		Status: pki.Status(*status), Reason: pki.Reason(*reason), RevokedAt: fromNull(revokedAt), InvalidityDate: fromNull(invalidity),
	}
}

func noCertificate() error { return fault.New(fault.NotFound, "there is no such certificate") }

// Certificate implements store.Certificates. A fingerprint does not tell the partition, so every partition's index is
// asked; setting that up is most of what it costs, and is shared by the look-ups that wait at the same time.
func (s *Store) Certificate(ctx context.Context, f pki.Fingerprint) (pki.Certificate, error) {
	c, found, err := s.lookups.get(ctx, f)
	switch {
	case err != nil:
		return pki.Certificate{}, fail(err, "reading a certificate")
	case !found:
		return pki.Certificate{}, noCertificate()
	}
	return c, nil
}

// sqlCertificates looks up one by one: see sqlLockCertificates.
const sqlCertificates = `SELECT ` + certificateColumns + `, c.der
	FROM unnest($1::bytea[]) AS u (fingerprint)
	CROSS JOIN LATERAL (SELECT * FROM certificate c WHERE c.fingerprint = u.fingerprint OFFSET 0) AS c
	LEFT JOIN LATERAL (
		SELECT * FROM revocation r WHERE r.issuer_key_id = c.issuer_key_id AND r.serial = c.serial OFFSET 0
	) AS r ON true`

// certificatesOf returns those of these fingerprints that there are.
func (s *Store) certificatesOf(ctx context.Context, all []pki.Fingerprint) (map[pki.Fingerprint]pki.Certificate, error) {
	octets := make([][]byte, len(all))
	for i := range all {
		octets[i] = all[i][:]
	}
	return read(ctx, s, "reading a certificate", func(conn *pgxpool.Conn) (map[pki.Fingerprint]pki.Certificate, error) {
		rows, err := conn.Query(ctx, sqlCertificates, octets)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		found := make(map[pki.Fingerprint]pki.Certificate, len(all))
		for rows.Next() {
			var der []byte
			c, err := scanCertificate(rows, &der)
			if err != nil {
				return nil, err
			}
			c.DER = der
			found[c.Fingerprint] = c
		}
		return found, rows.Err()
	})
}

// CertificateBySerial implements store.Certificates.
func (s *Store) CertificateBySerial(ctx context.Context, issuerID int64, n pki.SerialNumber) (pki.Certificate, error) {
	return s.certificate(ctx, `SELECT `+certificateColumns+`, c.der `+certificateTables+`
		WHERE c.issuer_id = $1 AND c.bucket = $2 AND c.serial = $3`, issuerID, n.Bucket(), n.Bytes())
}

func (s *Store) certificate(ctx context.Context, sql string, args ...any) (pki.Certificate, error) {
	return read(ctx, s, "reading a certificate", func(conn *pgxpool.Conn) (pki.Certificate, error) {
		var der []byte
		c, err := scanCertificate(conn.QueryRow(ctx, sql, args...), &der)
		if isNoRows(err) {
			return c, noCertificate()
		}
		c.DER = der
		return c, err
	})
}

// ListCertificates implements store.Certificates.
func (s *Store) ListCertificates(ctx context.Context, f store.CertificateFilter, p store.Page) ([]pki.Certificate, string, error) {
	limit, err := limitOf(p.Limit)
	if err != nil {
		return nil, "", err
	}
	var w where
	w.certificates(f)
	if p.Cursor != "" {
		at, issuerID, serial, err := parseCertificateCursor(p.Cursor)
		if err != nil {
			return nil, "", err
		}
		w.and(`(c.issued_at, c.serial, c.issuer_id) < (?, ?, ?)`, at, serial, issuerID)
	}
	sql := `SELECT ` + certificateColumns + certificateTables + w.String() + `
		ORDER BY c.issued_at DESC, c.serial DESC, c.issuer_id DESC
		LIMIT ` + strconv.Itoa(limit+1)
	list, err := readOn(ctx, s, s.lists, "listing certificates", func(conn *pgxpool.Conn) ([]pki.Certificate, error) {
		// Planned anew with the values at hand: the best plan depends on how rare they are.
		rows, err := conn.Query(ctx, sql, append([]any{pgx.QueryExecModeDescribeExec}, w.args...)...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (pki.Certificate, error) { return scanCertificate(row) })
	})
	if err != nil || len(list) <= limit {
		return list, "", err
	}
	last := list[limit-1]
	return list[:limit], certificateCursor(last.IssuedAt, last.IssuerID, last.Serial), nil
}

// CountCertificates implements store.Certificates.
func (s *Store) CountCertificates(ctx context.Context, f store.CertificateFilter, limit int) (int, error) {
	if limit <= 0 {
		return 0, nil
	}
	var w where
	w.certificates(f)
	sql := `SELECT count(*) FROM (SELECT 1 ` + certificateTables + w.String() + ` LIMIT ` + strconv.Itoa(limit) + `) AS matches`
	return readOn(ctx, s, s.lists, "counting certificates", func(conn *pgxpool.Conn) (n int, err error) {
		err = conn.QueryRow(ctx, sql, append([]any{pgx.QueryExecModeDescribeExec}, w.args...)...).Scan(&n)
		return n, err
	})
}

// where gathers the conditions of a list.
type where struct {
	conditions []string
	args       []any
}

// and adds a condition, in which each ? stands for the next value.
func (w *where) and(condition string, values ...any) {
	var b strings.Builder
	for part := range strings.SplitSeq(condition, "?") {
		if b.Len() > 0 {
			w.args = append(w.args, values[0])
			values = values[1:]
			b.WriteString("$" + strconv.Itoa(len(w.args)))
		}
		b.WriteString(part)
	}
	w.conditions = append(w.conditions, b.String())
}

// String returns the clause, empty if there is no condition.
func (w *where) String() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return "\n\t\tWHERE " + strings.Join(w.conditions, "\n\t\t  AND ")
}

var escapeLike = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func (w *where) certificates(f store.CertificateFilter) {
	w.states(f)
	w.records(f)
}

// states adds what a filter says of certificates' states.
func (w *where) states(f store.CertificateFilter) {
	if len(f.Status) > 0 {
		good, bad := false, []int16{}
		for _, status := range f.Status {
			if status == pki.Good {
				good = true
			} else {
				bad = append(bad, int16(status))
			}
		}
		switch {
		case !good: // lets the planner begin with the few that are not good
			w.and(`r.status = ANY(?::smallint[])`, bad)
		case len(bad) == 0:
			w.and(`r.serial IS NULL`)
		default:
			w.and(`(r.serial IS NULL OR r.status = ANY(?::smallint[]))`, bad)
		}
	}
	if !f.GoodFrom.IsZero() {
		w.and(`(r.serial IS NOT NULL OR c.not_after >= ?)`, ceil(f.GoodFrom))
	}
	if !f.GoodTo.IsZero() {
		w.and(`(r.serial IS NOT NULL OR c.not_after < ?)`, ceil(f.GoodTo))
	}
}

// records adds what a filter says of certificates whatever their state.
func (w *where) records(f store.CertificateFilter) {
	if len(f.IssuerIDs) > 0 {
		w.and(`c.issuer_id = ANY(?::bigint[])`, f.IssuerIDs)
	}
	if len(f.Profiles) > 0 {
		w.and(`c.profile = ANY(?::text[])`, texts(f.Profiles))
	}
	if f.Text != "" {
		w.and(`c.search_text LIKE ?`, "%"+escapeLike.Replace(text(strings.ToLower(f.Text)))+"%")
	}
	if f.Serial != "" {
		// The bucket leaves one partition; all issuers, because the primary key begins with them.
		w.and(`c.bucket = ? AND c.serial = ?`, f.Serial.Bucket(), f.Serial.Bytes())
		if len(f.IssuerIDs) == 0 {
			w.and(`c.issuer_id = ANY(ARRAY(SELECT id FROM issuer))`)
		}
	}
	if f.Fingerprint != nil {
		w.and(`c.fingerprint = ?`, f.Fingerprint[:])
	}
	if f.SPKIHash != nil {
		w.and(`c.spki_hash = ?`, f.SPKIHash[:])
	}
	if f.WithoutReserved {
		w.and(`NOT EXISTS (SELECT 1 FROM blocked_key b WHERE b.spki_hash = c.spki_hash AND b.own)`)
	}
	if f.Requester != "" {
		w.and(`c.requester = ?`, text(f.Requester))
	}
	if f.Protocol != "" {
		w.and(`c.protocol = ?`, text(f.Protocol))
	}
	if f.Device != "" {
		w.and(`c.device = ? AND c.device <> ''`, text(f.Device))
	}
	if !f.NotAfterFrom.IsZero() {
		w.and(`c.not_after >= ?`, ceil(f.NotAfterFrom))
	}
	if !f.NotAfterTo.IsZero() {
		w.and(`c.not_after < ?`, ceil(f.NotAfterTo))
	}
	if !f.IssuedFrom.IsZero() {
		w.and(`c.issued_at >= ?`, ceil(f.IssuedFrom))
	}
	if !f.IssuedTo.IsZero() {
		w.and(`c.issued_at < ?`, ceil(f.IssuedTo))
	}
}

func texts(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = text(s)
	}
	return out
}

// ceil rounds a bound up to what the database holds: rows are whole microseconds, so that >= and < stay exact.
func ceil(t time.Time) time.Time {
	c := cut(t)
	if c.Before(t) {
		c = c.Add(time.Microsecond)
	}
	return c
}

// Cursors are the last row's place in the order, and a few octets of its hash, so that a cursor of another list or one
// that was made up is told apart. They protect nothing.
const (
	certificateList = "certificates"
	auditList       = "audit"
	cursorCheck     = 6
)

func cursor(list string, place []byte) string {
	check := sha256.Sum256(append([]byte(list+":"), place...))
	return base64.RawURLEncoding.EncodeToString(append(place, check[:cursorCheck]...))
}

// maxCursor bounds what is looked at: the longest place is the id of a device.
const maxCursor = 1000

func parseCursor(list, text string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err == nil && len(text) <= maxCursor && len(b) > cursorCheck {
		place := b[: len(b)-cursorCheck : len(b)-cursorCheck]
		if cursor(list, place) == text {
			return place, nil
		}
	}
	return nil, fault.New(fault.BadRequest, "the cursor is not one of this list").WithField("cursor").
		WithHint("use the cursor as the page before returned it, or begin without one")
}

func certificateCursor(at time.Time, issuerID int64, n pki.SerialNumber) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMicro()))
	b = binary.BigEndian.AppendUint64(b, uint64(issuerID))
	return cursor(certificateList, append(b, n...))
}

func parseCertificateCursor(text string) (at time.Time, issuerID int64, serial []byte, err error) {
	b, err := parseCursor(certificateList, text)
	if err != nil {
		return at, 0, nil, err
	}
	if len(b) < 17 || len(b) > 36 {
		return at, 0, nil, fault.New(fault.BadRequest, "the cursor is not one of this list").WithField("cursor")
	}
	at = time.UnixMicro(int64(binary.BigEndian.Uint64(b))).UTC()
	return at, int64(binary.BigEndian.Uint64(b[8:])), b[16:], nil
}
