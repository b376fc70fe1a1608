package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// keptCRLs is how many generations of a scope stay, beside the newest scheduled one and the newest base.
const keptCRLs = 3

// maxPartsAtOnce bounds the octets of parts that are on their way in one transaction or answer.
const maxPartsAtOnce = 1 << 20

// NextCRLNumber implements store.CRLs.
func (s *Store) NextCRLNumber(ctx context.Context, issuerKeyID int64, scope string, unixSeconds int64) (int64, error) {
	return read(ctx, s, "reading the newest CRL number", func(conn *pgxpool.Conn) (n int64, err error) {
		err = conn.QueryRow(ctx, `
			SELECT greatest(max(number) + 1, $3::bigint)
			FROM crl
			WHERE issuer_key_id = $1 AND scope = $2`, issuerKeyID, text(scope), unixSeconds).Scan(&n)
		return n, err
	})
}

// CRLNumbers implements store.CRLs.
func (s *Store) CRLNumbers(ctx context.Context) (map[int64]map[string]int64, error) {
	return read(ctx, s, "reading CRL numbers", func(conn *pgxpool.Conn) (map[int64]map[string]int64, error) {
		rows, err := conn.Query(ctx, `SELECT issuer_key_id, scope, max(number) FROM crl GROUP BY issuer_key_id, scope`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		numbers := map[int64]map[string]int64{}
		for rows.Next() {
			var key, number int64
			var scope string
			if err := rows.Scan(&key, &scope, &number); err != nil {
				return nil, err
			}
			if numbers[key] == nil {
				numbers[key] = map[string]int64{}
			}
			numbers[key][scope] = number
		}
		return numbers, rows.Err()
	})
}

// packedCRL is a CRL as its rows hold it, and what the transaction finds of its scope.
type packedCRL struct {
	pki.CRL
	der, layout    []byte
	apart          []pki.CRLPart
	number, change int64             // of the newest list before it; -1: none
	there          map[[32]byte]bool // parts that are in the database
}

func (p *packedCRL) missing() (parts []pki.CRLPart, size int) {
	for _, part := range p.apart {
		if !p.there[part.Hash] {
			parts = append(parts, part)
			size += len(part.Data)
		}
	}
	return parts, size
}

// errManyParts says that parts are missing that are too large for one transaction.
var errManyParts = errors.New("parts must be written beforehand")

// RecordCRL implements store.CRLs. The issuer key's row is held, so that of several replicas one publishes at a time.
func (s *Store) RecordCRL(ctx context.Context, under *store.Lease, cs ...pki.CRL) error {
	if len(cs) == 0 {
		return nil
	}
	packed := make([]*packedCRL, len(cs))
	for i, c := range cs {
		if c.IssuerKeyID != cs[0].IssuerKeyID {
			return fault.New(fault.BadRequest, "CRLs of several issuer keys cannot be published together")
		}
		packed[i] = &packedCRL{CRL: c}
		packed[i].der, packed[i].layout, packed[i].apart = store.PackCRL(c.Parts)
	}
	for try := 1; ; try++ {
		err := s.recordCRLs(ctx, under, packed)
		if !errors.Is(err, errManyParts) || try == 3 {
			return err
		}
		// Large lists are written bit by bit, so that no transaction takes long and no list is held twice in memory. Should
		// somebody tidy up in between, or the process end, then these parts belong to no list and are dropped.
		for _, p := range packed {
			if err := s.writeParts(ctx, p); err != nil {
				return err
			}
		}
	}
}

const sqlNewestCRL = `
	SELECT number, change
	FROM crl
	WHERE issuer_key_id = $1 AND scope = $2
	ORDER BY number DESC
	LIMIT 1`

const sqlPartHashes = `SELECT hash FROM crl_part WHERE issuer_key_id = $1 AND scope = $2`

const sqlInsertParts = `
	INSERT INTO crl_part (issuer_key_id, scope, hash, data)
	SELECT $1, $2, u.hash, u.data FROM unnest($3::bytea[], $4::bytea[]) AS u (hash, data)
	ON CONFLICT DO NOTHING`

func partRows(parts []pki.CRLPart) (hashes, data [][]byte) {
	for _, p := range parts {
		hashes, data = append(hashes, p.Hash[:]), append(data, notNull(p.Data))
	}
	return hashes, data
}

func (s *Store) recordCRLs(ctx context.Context, under *store.Lease, packed []*packedCRL) error {
	key := packed[0].IssuerKeyID
	known, leased := false, false
	first := func(b *pgx.Batch) {
		known, leased = false, under == nil
		b.Queue(`SELECT 1 FROM issuer_key WHERE id = $1 FOR NO KEY UPDATE`, key).Query(func(rows pgx.Rows) error {
			known = rows.Next()
			return nil
		})
		if under != nil {
			b.Queue(`SELECT 1 FROM lease WHERE name = $1 AND holder = $2 AND token = $3`, under.Name, under.Holder, under.Token).Query(func(rows pgx.Rows) error {
				leased = rows.Next()
				return nil
			})
		}
		for _, p := range packed {
			p.number, p.change, p.there = -1, -1, map[[32]byte]bool{}
			b.Queue(sqlNewestCRL, key, text(p.Scope)).QueryRow(func(row pgx.Row) error {
				if err := row.Scan(&p.number, &p.change); !isNoRows(err) {
					return err
				}
				return nil
			})
			b.Queue(sqlPartHashes, key, text(p.Scope)).Query(func(rows pgx.Rows) error {
				return eachHash(rows, func(h [32]byte) { p.there[h] = true })
			})
		}
	}
	return s.write(ctx, "publishing a CRL", first, func(t *tx) error {
		switch {
		case !known:
			return fault.New(fault.NotFound, "there is no such issuer key")
		case !leased:
			return fault.Wrap(fault.Conflict, store.ErrLeaseLost, "another replica makes the CRLs now")
		}
		size := 0
		for _, p := range packed {
			switch {
			case p.number >= p.Number:
				return fault.Wrap(fault.Conflict, store.ErrStale, "CRL number %d has been published, %d comes too late", p.number, p.Number)
			case p.change > p.Change:
				return fault.Wrap(fault.Conflict, store.ErrStale, "a CRL that shows change %d has been published, this one shows %d", p.change, p.Change)
			}
			_, n := p.missing()
			size += n
		}
		if size > maxPartsAtOnce {
			return fault.Wrap(fault.Unavailable, errManyParts, "the CRL is being written")
		}
		b := &pgx.Batch{}
		garbage := make([][][]byte, len(packed))
		for i, p := range packed {
			scope := text(p.Scope)
			if parts, _ := p.missing(); len(parts) > 0 {
				hashes, data := partRows(parts)
				b.Queue(sqlInsertParts, key, scope, hashes, data)
			}
			b.Queue(`
				INSERT INTO crl (issuer_key_id, scope, number, shard, this_update, next_update, scheduled, change, entries, created_at, der, parts, base)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
				key, scope, p.Number, p.Shard, cut(p.ThisUpdate), cut(p.NextUpdate), p.Scheduled, p.Change, p.Entries,
				cut(p.CreatedAt), p.der, p.layout, p.Base)
			b.Queue(`
				DELETE FROM crl
				WHERE issuer_key_id = $1 AND scope = $2
				  AND number <= (SELECT number FROM crl WHERE issuer_key_id = $1 AND scope = $2 ORDER BY number DESC OFFSET $3 LIMIT 1)
				  AND number IS DISTINCT FROM (SELECT max(number) FROM crl WHERE issuer_key_id = $1 AND scope = $2 AND scheduled)
				  AND number IS DISTINCT FROM (SELECT max(number) FROM crl WHERE issuer_key_id = $1 AND scope = $2 AND base)`,
				key, scope, keptCRLs)
			if len(p.there) == 0 {
				continue // nothing that could be of no use any more
			}
			b.Queue(`SELECT parts FROM crl WHERE issuer_key_id = $1 AND scope = $2 AND parts IS NOT NULL`, key, scope).Query(func(rows pgx.Rows) error {
				used := map[[32]byte]bool{}
				for rows.Next() {
					var layout []byte
					if err := rows.Scan(&layout); err != nil {
						return err
					}
					hashes, err := store.Apart(layout)
					if err != nil {
						return err
					}
					for _, h := range hashes {
						used[h] = true
					}
				}
				for h := range p.there {
					if !used[h] {
						garbage[i] = append(garbage[i], h[:])
					}
				}
				return rows.Err()
			})
		}
		t.seals = sealing{crl: true}
		if err := t.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		for i, p := range packed {
			if len(garbage[i]) == 0 {
				continue
			}
			if _, err := t.Exec(ctx, `DELETE FROM crl_part WHERE issuer_key_id = $1 AND scope = $2 AND hash = ANY($3::bytea[])`, key, text(p.Scope), garbage[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func eachHash(rows pgx.Rows, do func([32]byte)) error {
	for rows.Next() {
		var h []byte
		if err := rows.Scan(&h); err != nil {
			return err
		}
		if len(h) != 32 {
			return fmt.Errorf("a hash has %d octets", len(h))
		}
		do([32]byte(h))
	}
	return rows.Err()
}

// writeParts writes the parts of a list that are missing, in transactions of bounded size. Each is a change, so that
// nothing is written to a store that is not in use.
func (s *Store) writeParts(ctx context.Context, p *packedCRL) error {
	missing, _ := p.missing()
	for len(missing) > 0 {
		n, size := 0, 0
		for n < len(missing) && (n == 0 || size+len(missing[n].Data) <= maxPartsAtOnce) {
			size += len(missing[n].Data)
			n++
		}
		hashes, data := partRows(missing[:n])
		err := s.write(ctx, "writing parts of a CRL", nil, func(t *tx) error {
			_, err := t.Exec(ctx, sqlInsertParts, p.IssuerKeyID, text(p.Scope), hashes, data)
			return err
		})
		if err != nil {
			return err
		}
		missing = missing[n:]
	}
	return nil
}

// sqlDropCRLs removes whole scopes. Who publishes holds the issuer key's row.
const sqlDropCRLs = `
	WITH dead AS (
		SELECT u.scope
		FROM unnest($2::text[], $3::text[]) AS u (scope, crl_set)
		WHERE NOT EXISTS (SELECT 1 FROM crl c WHERE c.issuer_key_id = $1 AND c.scope = u.scope AND (c.next_update > $4 OR c.number > $5))
		  AND NOT EXISTS (SELECT 1 FROM crl_address a WHERE a.issuer_key_id = $1 AND u.crl_set <> '' AND a.crl_set = u.crl_set AND a.until > $4)
	), lists AS (
		DELETE FROM crl c USING dead d WHERE c.issuer_key_id = $1 AND c.scope = d.scope
		RETURNING c.scope
	), parts AS (
		DELETE FROM crl_part p USING dead d WHERE p.issuer_key_id = $1 AND p.scope = d.scope
	)
	SELECT DISTINCT scope COLLATE "C" FROM lists ORDER BY 1`

// DropCRLs implements store.CRLs.
func (s *Store) DropCRLs(ctx context.Context, under *store.Lease, issuerKeyID int64, scopes []string, at time.Time) (dropped []string, err error) {
	texts := make([]string, len(scopes))
	for i, scope := range scopes {
		texts[i] = text(scope)
	}
	err = s.note(ctx, "dropping CRLs that have ended", func(b *pgx.Batch) {
		b.Queue(`SELECT 1 FROM issuer_key WHERE id = $1 FOR NO KEY UPDATE`, issuerKeyID)
		if under != nil {
			b.Queue(`SELECT 1 FROM lease WHERE name = $1 AND holder = $2 AND token = $3`, under.Name, under.Holder, under.Token).Query(func(rows pgx.Rows) error {
				if !rows.Next() && rows.Err() == nil {
					return fault.Wrap(fault.Conflict, store.ErrLeaseLost, "another replica makes the CRLs now")
				}
				return rows.Err()
			})
		}
		b.Queue(sqlDropCRLs, issuerKeyID, texts, store.ShardSets(texts), cut(at), at.Unix()).Query(func(rows pgx.Rows) (err error) {
			dropped, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return dropped, nil
}

const crlColumns = `shard, number, this_update, next_update, scheduled, change, entries, created_at, base`

func crlFields(c *pki.CRL) []any {
	return []any{&c.Shard, &c.Number, &c.ThisUpdate, &c.NextUpdate, &c.Scheduled, &c.Change, &c.Entries, &c.CreatedAt, &c.Base}
}

func asUTC(c *pki.CRL) {
	for _, t := range []*time.Time{&c.ThisUpdate, &c.NextUpdate, &c.CreatedAt} {
		*t = t.UTC()
	}
}

func noCRL() error { return fault.New(fault.NotFound, "no such CRL of this scope has been published") }

// LatestCRL implements store.CRLs.
func (s *Store) LatestCRL(ctx context.Context, issuerKeyID int64, scope string, known func([32]byte) []byte) (pki.CRL, error) {
	return read(ctx, s, "reading a CRL", func(conn *pgxpool.Conn) (pki.CRL, error) {
		for try := 1; ; try++ {
			c := pki.CRL{IssuerKeyID: issuerKeyID, Scope: scope}
			var der, layout []byte
			err := conn.QueryRow(ctx, `
				SELECT `+crlColumns+`, der, parts
				FROM crl
				WHERE issuer_key_id = $1 AND scope = $2
				ORDER BY number DESC
				LIMIT 1`, issuerKeyID, text(scope)).Scan(append(crlFields(&c), &der, &layout)...)
			if isNoRows(err) {
				return pki.CRL{}, noCRL()
			}
			if err != nil {
				return pki.CRL{}, err
			}
			asUTC(&c)
			if c.Parts, err = store.UnpackCRL(der, layout); err != nil {
				return pki.CRL{}, err
			}
			err = fillParts(ctx, conn, &c, known)
			if errors.Is(err, store.ErrStale) && try < 5 {
				continue // newer lists were published meanwhile, and its parts dropped
			}
			return c, err
		}
	})
}

// fillParts reads the parts of a list that are not known.
func fillParts(ctx context.Context, conn *pgxpool.Conn, c *pki.CRL, known func([32]byte) []byte) error {
	places := map[[32]byte][]int{}
	var wanted [][]byte
	for i := range c.Parts {
		p := &c.Parts[i]
		if p.Data != nil {
			continue
		}
		if known != nil {
			if p.Data = known(p.Hash); p.Data != nil {
				continue
			}
		}
		if places[p.Hash] == nil {
			wanted = append(wanted, p.Hash[:])
		}
		places[p.Hash] = append(places[p.Hash], i)
	}
	const atOnce = 32 // parts have some 50 kB each
	for len(wanted) > 0 {
		n := min(atOnce, len(wanted))
		rows, err := conn.Query(ctx, `SELECT data FROM crl_part WHERE issuer_key_id = $1 AND scope = $2 AND hash = ANY($3::bytea[])`, c.IssuerKeyID, text(c.Scope), wanted[:n])
		if err != nil {
			return err
		}
		got := 0
		for rows.Next() {
			var data []byte
			if err := rows.Scan(&data); err != nil {
				rows.Close()
				return err
			}
			p := pki.NewCRLPart(data)
			for _, i := range places[p.Hash] {
				c.Parts[i].Data = data
			}
			if places[p.Hash] != nil {
				got++
			}
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return err
		}
		if got < n {
			return fault.Wrap(fault.Internal, store.ErrStale, "parts of CRL %d are missing or damaged", c.Number)
		}
		wanted = wanted[n:]
	}
	return nil
}

// LatestScheduledCRL implements store.CRLs.
func (s *Store) LatestScheduledCRL(ctx context.Context, issuerKeyID int64, scope string) (pki.CRL, error) {
	return s.aboutCRL(ctx, issuerKeyID, scope, `SELECT `+crlColumns+`
		FROM crl
		WHERE issuer_key_id = $1 AND scope = $2 AND scheduled
		ORDER BY number DESC
		LIMIT 1`)
}

// BaseCRL implements store.CRLs.
func (s *Store) BaseCRL(ctx context.Context, issuerKeyID int64, scope string) (pki.CRL, error) {
	return s.aboutCRL(ctx, issuerKeyID, scope, `SELECT `+crlColumns+`
		FROM crl
		WHERE issuer_key_id = $1 AND scope = $2 AND base
		ORDER BY number DESC
		LIMIT 1`)
}

func (s *Store) aboutCRL(ctx context.Context, issuerKeyID int64, scope, sql string) (pki.CRL, error) {
	return read(ctx, s, "reading a CRL", func(conn *pgxpool.Conn) (pki.CRL, error) {
		c := pki.CRL{IssuerKeyID: issuerKeyID, Scope: scope}
		err := conn.QueryRow(ctx, sql, issuerKeyID, text(scope)).Scan(crlFields(&c)...)
		if isNoRows(err) {
			return pki.CRL{}, noCRL()
		}
		asUTC(&c)
		return c, err
	})
}

// notNull turns nil into no octets.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
