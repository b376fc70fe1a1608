package sqlite

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

const (
	// indexAfter is how many certificates may wait for the text index. A search reads them one by one, which takes
	// about a millisecond.
	indexAfter = 1024
	// indexStep is how many go into the index in one transaction, so that no write waits long for it.
	indexStep = 512
	// selective is how many rows an index may name and still be worth following; above it, reading in the order of
	// the list meets enough of them.
	selective = 5000

	defaultLimit, maxLimit = 100, 1000
)

// searchText is what the text filter looks at. Lines keep a match from running from one name into the next.
func searchText(c *pki.Certificate) string {
	var b strings.Builder
	b.WriteString(strings.ToLower(c.Subject))
	for _, san := range c.SANs {
		b.WriteByte('\n')
		b.WriteString(strings.ToLower(san))
	}
	return b.String()
}

// maintainIndex fills the text index whenever enough rows wait, until ctx ends.
func (s *Store) maintainIndex(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.unindexed:
		}
		for s.pending.Load() >= indexAfter {
			n, err := s.extendIndex(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				s.log.Warn("the text index was not extended", "err", err)
				break // the next certificates bring it here again
			}
			s.pending.Add(-int64(n))
		}
	}
}

// await counts rows that wait for the text index and wakes maintainIndex when there are enough.
func (s *Store) await(rows int) {
	if s.pending.Add(int64(rows)) >= indexAfter {
		select {
		case s.unindexed <- struct{}{}:
		default:
		}
	}
}

// extendIndex puts the next rows into the text index and returns how many there were.
func (s *Store) extendIndex(ctx context.Context) (int, error) {
	var n int
	err := s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		n = 0
		var done, last int64
		err := t.row(`SELECT certificate_id FROM search_progress WHERE strand = 0`, nil, func(scan func(...any) error) error { return scan(&done) })
		if err != nil {
			return err
		}
		err = t.row(`SELECT count(*), coalesce(max(id), 0) FROM (SELECT id FROM certificate WHERE id > ? ORDER BY id LIMIT ?)`, []any{done, indexStep},
			func(scan func(...any) error) error { return scan(&n, &last) })
		if err != nil || n == 0 {
			return err
		}
		// The tokenizer stops at a NUL.
		err = t.exec(`
			INSERT INTO certificate_search (rowid, search_text)
			SELECT id, replace(search_text, char(0), ' ') FROM certificate WHERE id > ? AND id <= ? ORDER BY id`, done, last)
		if err != nil {
			return err
		}
		return t.exec(`UPDATE search_progress SET certificate_id = ? WHERE strand = 0`, last)
	}})
	return n, err
}

// trigrams returns the query for the text index that every row with this text answers, or false when the text is too
// short for one, or holds what the tokenizer would not see as it is.
func trigrams(text string) (string, bool) {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) || strings.ContainsRune(text, utf8.RuneError) {
		return "", false
	}
	const most = 12 // more narrow it no further
	runes := []rune(text)
	if len(runes) < 3 {
		return "", false
	}
	var terms []string
	seen := map[string]bool{}
	step := max(1, (len(runes)-2)/most)
	for i := 0; i+3 <= len(runes) && len(terms) < most; i += step {
		g := string(runes[i : i+3])
		if !seen[g] {
			seen[g] = true
			terms = append(terms, `"`+strings.ReplaceAll(g, `"`, `""`)+`"`)
		}
	}
	return strings.Join(terms, " AND "), true
}

// clauses gathers the conditions of a list.
type clauses struct {
	from  string
	where []string
	args  []any
}

func (c *clauses) add(condition string, args ...any) {
	c.where = append(c.where, condition)
	c.args = append(c.args, args...)
}

// in adds "column is any of these".
func in[T any](c *clauses, column string, values []T) {
	if len(values) == 0 {
		return
	}
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	c.add(column+` IN (`+strings.TrimSuffix(strings.Repeat("?, ", len(values)), ", ")+`)`, args...)
}

func (c *clauses) String() string {
	if len(c.where) == 0 {
		return c.from
	}
	return c.from + ` WHERE ` + strings.Join(c.where, " AND ")
}

// matching returns the FROM and WHERE of a filter. It looks at how many rows an index would name before it follows it.
func matching(ctx context.Context, q querier, f store.CertificateFilter) (*clauses, error) {
	c := &clauses{from: `FROM certificate c ` + joinRevocation}
	in(c, `c.issuer_id`, f.IssuerIDs)
	in(c, `c.profile`, f.Profiles)
	if len(f.Status) > 0 {
		good := false
		for _, s := range f.Status {
			good = good || s == pki.Good
		}
		if !good {
			var n int
			if err := q.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM revocation LIMIT ?)`, selective+1).Scan(&n); err != nil {
				return nil, err
			}
			if n <= selective { // begin with the revocations; CROSS keeps the order
				c.from = `FROM revocation r CROSS JOIN certificate c ON c.issuer_id = r.issuer_id AND c.bucket = r.bucket AND c.serial = r.serial`
			}
		}
		in(c, `coalesce(r.status, 0)`, f.Status)
	}
	if f.Serial != "" {
		c.add(`c.issuer_id IN (SELECT id FROM issuer) AND c.bucket = ? AND c.serial = ?`, f.Serial.Bucket(), f.Serial.Bytes())
	}
	if f.Fingerprint != nil {
		c.add(`c.fingerprint = ?`, f.Fingerprint[:])
	}
	if f.SPKIHash != nil {
		c.add(`substr(c.spki_hash, 1, 8) = ? AND c.spki_hash = ?`, f.SPKIHash[:8], f.SPKIHash[:])
	}
	for _, e := range []struct{ condition, value string }{
		{`c.requester = ?`, f.Requester}, {`c.protocol = ?`, f.Protocol}, {`c.device = ? AND c.device <> ''`, f.Device},
	} {
		if e.value != "" {
			c.add(e.condition, e.value)
		}
	}
	for _, e := range []struct {
		condition string
		at        time.Time
	}{
		{`c.not_after >= ?`, f.NotAfterFrom},
		{`c.not_after < ?`, f.NotAfterTo},
		{`c.issued_at >= ?`, f.IssuedFrom},
		{`c.issued_at < ?`, f.IssuedTo},
		{`(r.serial IS NOT NULL OR c.not_after >= ?)`, f.GoodFrom},
		{`(r.serial IS NOT NULL OR c.not_after < ?)`, f.GoodTo},
	} {
		if !e.at.IsZero() {
			c.add(e.condition, micros(e.at.Add(time.Microsecond-1))) // a bound between two microseconds is the upper one
		}
	}
	if f.WithoutReserved {
		c.add(`NOT EXISTS (SELECT 1 FROM blocked_key b WHERE b.spki_hash = c.spki_hash AND b.own)`)
	}
	if f.Text != "" {
		text := strings.ToLower(f.Text)
		if query, ok := trigrams(text); ok {
			var n int
			err := q.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM certificate_search WHERE certificate_search MATCH ? LIMIT ?)`, query, selective+1).Scan(&n)
			if err != nil {
				return nil, err
			}
			if n <= selective {
				c.add(`c.id IN (
					SELECT rowid FROM certificate_search WHERE certificate_search MATCH ?
					UNION ALL SELECT id FROM certificate WHERE id > (SELECT certificate_id FROM search_progress WHERE strand = 0))`, query)
			}
		}
		c.add(`instr(c.search_text, ?) > 0`, text)
	}
	return c, nil
}

// ListCertificates returns a page of records.
func (s *Store) ListCertificates(ctx context.Context, f store.CertificateFilter, p store.Page) (page []pki.Certificate, next string, err error) {
	limit := pageLimit(p)
	var after *listPosition
	if p.Cursor != "" {
		if after, err = parseListPosition(p.Cursor); err != nil {
			return nil, "", err
		}
	}
	tx, err := s.snapshot(ctx)
	if err != nil {
		return nil, "", s.asFault(ctx, err, "listing certificates")
	}
	defer tx.Rollback()
	c, err := matching(ctx, tx, f)
	if err != nil {
		return nil, "", s.asFault(ctx, err, "listing certificates")
	}
	if after != nil {
		c.add(`(c.issued_at, c.serial, c.issuer_id) < (?, ?, ?)`, after.issuedAt, []byte(after.serial), after.issuer)
	}
	rows, err := tx.QueryContext(ctx, `SELECT `+certificateColumns+` `+c.String()+` ORDER BY c.issued_at DESC, c.serial DESC, c.issuer_id DESC LIMIT ?`, append(c.args, limit+1)...)
	if err != nil {
		return nil, "", s.asFault(ctx, err, "listing certificates")
	}
	defer rows.Close()
	for rows.Next() {
		if len(page) == limit { // there is one more
			last := page[limit-1]
			next = listPosition{micros(last.IssuedAt), last.IssuerID, last.Serial}.cursor()
			return page, next, nil
		}
		cert, err := scanCertificate(rows.Scan)
		if err != nil {
			return nil, "", s.asFault(ctx, err, "listing certificates")
		}
		page = append(page, cert)
	}
	if err := rows.Err(); err != nil {
		return nil, "", s.asFault(ctx, err, "listing certificates")
	}
	return page, "", nil
}

// CountCertificates counts up to limit.
func (s *Store) CountCertificates(ctx context.Context, f store.CertificateFilter, limit int) (int, error) {
	tx, err := s.snapshot(ctx)
	if err != nil {
		return 0, s.asFault(ctx, err, "counting certificates")
	}
	defer tx.Rollback()
	c, err := matching(ctx, tx, f)
	if err != nil {
		return 0, s.asFault(ctx, err, "counting certificates")
	}
	var n int
	err = tx.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 `+c.String()+` LIMIT ?)`, append(c.args, max(limit, 0))...).Scan(&n)
	return n, s.asFault(ctx, err, "counting certificates")
}

func pageLimit(p store.Page) int {
	if p.Limit <= 0 {
		return defaultLimit
	}
	return min(p.Limit, maxLimit)
}

// listPosition is the place of a record in the order of lists.
type listPosition struct {
	issuedAt, issuer int64
	serial           pki.SerialNumber
}

func (p listPosition) cursor() string {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.issuedAt))
	b = binary.BigEndian.AppendUint64(b, uint64(p.issuer))
	return newCursor('c', append(b, p.serial...))
}

func parseListPosition(cursor string) (*listPosition, error) {
	b, err := parseCursor('c', cursor)
	if err != nil {
		return nil, err
	}
	if len(b) < 17 || len(b) > 36 {
		return nil, errCursor()
	}
	return &listPosition{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:])), pki.SerialNumber(b[16:])}, nil
}

// newCursor packs a position. The checksum is against mistakes, not against people: a cursor gives access to nothing.
func newCursor(kind byte, position []byte) string {
	b := append([]byte{kind}, position...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

// maxCursor bounds what is looked at: the longest place is the id of a device.
const maxCursor = 1000

func parseCursor(kind byte, cursor string) ([]byte, error) {
	if len(cursor) > maxCursor {
		return nil, errCursor()
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || strings.ContainsAny(cursor, "\r\n") || len(b) < 5 || b[0] != kind {
		return nil, errCursor()
	}
	body, sum := b[:len(b)-4], b[len(b)-4:]
	if binary.BigEndian.Uint32(sum) != crc32.ChecksumIEEE(body) {
		return nil, errCursor()
	}
	return body[1:], nil
}

var errNotACursor = errors.New("not a cursor of this list")

func errCursor() error {
	return fault.Wrap(fault.BadRequest, errNotACursor, "this is not a cursor that the list has returned").WithField("cursor").
		WithHint("leave it out to begin with the first page")
}
