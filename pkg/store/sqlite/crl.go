package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// crlGenerations is how many CRLs of a scope are kept, beside the newest that the timer made and the newest base.
const crlGenerations = 3

// maxPartsAtOnce bounds the octets of parts that are written in one transaction: others wait for it.
const maxPartsAtOnce = 1 << 20

// NextCRLNumber returns the lowest number that the next CRL may carry.
func (s *Store) NextCRLNumber(ctx context.Context, issuerKeyID int64, scope string, unixSeconds int64) (int64, error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	var newest int64
	err := s.read.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) FROM crl WHERE issuer_key_id = ? AND scope = ?`, issuerKeyID, scope).Scan(&newest)
	if err != nil {
		return 0, s.asFault(ctx, err, "reading the newest CRL number")
	}
	return max(newest+1, unixSeconds), nil
}

// CRLNumbers returns the numbers of the newest CRLs.
func (s *Store) CRLNumbers(ctx context.Context) (map[int64]map[string]int64, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	rows, err := s.read.QueryContext(ctx, `SELECT issuer_key_id, scope, max(number) FROM crl GROUP BY issuer_key_id, scope`)
	if err != nil {
		return nil, s.asFault(ctx, err, "reading CRL numbers")
	}
	defer rows.Close()
	numbers := map[int64]map[string]int64{}
	for rows.Next() {
		var key, number int64
		var scope string
		if err := rows.Scan(&key, &scope, &number); err != nil {
			return nil, s.asFault(ctx, err, "reading CRL numbers")
		}
		if numbers[key] == nil {
			numbers[key] = map[string]int64{}
		}
		numbers[key][scope] = number
	}
	if err := rows.Err(); err != nil {
		return nil, s.asFault(ctx, err, "reading CRL numbers")
	}
	return numbers, nil
}

// packedCRL is a CRL as its rows hold it, and what the transaction finds of its scope.
type packedCRL struct {
	pki.CRL
	der, layout []byte
	apart       []pki.CRLPart
	there       map[[32]byte]bool // parts that are in the database
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

// RecordCRL publishes CRLs of one issuer key.
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
		err := s.write(ctx, &op{apply: func(t *tx) error { return t.recordCRLs(under, packed) }})
		if !errors.Is(err, errManyParts) || try == 3 {
			return err
		}
		// Large lists are written bit by bit, so that no transaction takes long. Should somebody tidy up in between, or the
		// process end, then these parts belong to no list and are dropped.
		for _, p := range packed {
			missing, _ := p.missing()
			for len(missing) > 0 {
				n, size := 0, 0
				for n < len(missing) && (n == 0 || size+len(missing[n].Data) <= maxPartsAtOnce) {
					size += len(missing[n].Data)
					n++
				}
				some := missing[:n]
				if err := s.write(ctx, &op{apply: func(t *tx) error { return t.insertParts(p, some) }}); err != nil {
					return err
				}
				missing = missing[n:]
			}
		}
	}
}

func (t *tx) insertParts(p *packedCRL, parts []pki.CRLPart) error {
	for _, part := range parts {
		err := t.exec(`INSERT INTO crl_part (issuer_key_id, scope, hash, data) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			p.IssuerKeyID, p.Scope, part.Hash[:], blob(part.Data))
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) recordCRLs(under *store.Lease, packed []*packedCRL) error {
	if _, err := t.issuerOf(packed[0].IssuerKeyID); err != nil {
		return err
	}
	if err := t.underLease(under); err != nil {
		return err
	}
	size := 0
	for _, p := range packed {
		var number, change int64
		err := t.row(`SELECT number, change FROM crl WHERE issuer_key_id = ? AND scope = ? ORDER BY number DESC LIMIT 1`, []any{p.IssuerKeyID, p.Scope},
			func(scan func(...any) error) error { return scan(&number, &change) })
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return err
		case p.Number <= number || p.Change < change:
			return fault.Wrap(fault.Conflict, store.ErrStale, "a newer CRL has been published: number %d of change %d", number, change)
		}
		p.there = map[[32]byte]bool{}
		err = t.rows(`SELECT hash FROM crl_part WHERE issuer_key_id = ? AND scope = ?`, []any{p.IssuerKeyID, p.Scope}, func(scan func(...any) error) error {
			var h []byte
			if err := scan(&h); err != nil {
				return err
			}
			if len(h) != 32 {
				return fmt.Errorf("a hash has %d octets", len(h))
			}
			p.there[[32]byte(h)] = true
			return nil
		})
		if err != nil {
			return err
		}
		_, n := p.missing()
		size += n
	}
	if size > maxPartsAtOnce {
		return fault.Wrap(fault.Unavailable, errManyParts, "the CRL is being written")
	}
	for _, p := range packed {
		if err := t.recordCRL(p); err != nil {
			return err
		}
	}
	t.crl = true
	return nil
}

// DropCRLs removes the lists of scopes that nobody can use any more.
func (s *Store) DropCRLs(ctx context.Context, under *store.Lease, issuerKeyID int64, scopes []string, at time.Time) (dropped []string, err error) {
	sets := store.ShardSets(scopes)
	err = s.write(ctx, &op{quiet: true, apply: func(t *tx) error {
		if t.head.Closed {
			return errNotInUse()
		}
		if err := t.underLease(under); err != nil {
			return err
		}
		dropped = nil
		for i, scope := range scopes {
			var lists, needed int
			err := t.row(`
				SELECT count(*), count(CASE WHEN next_update > ?3 OR number > ?4 THEN 1 END) +
					(SELECT count(*) FROM crl_address WHERE issuer_key_id = ?1 AND ?5 <> '' AND crl_set = ?5 AND until > ?3)
				FROM crl WHERE issuer_key_id = ?1 AND scope = ?2`, []any{issuerKeyID, scope, micros(at), at.Unix(), sets[i]},
				func(scan func(...any) error) error { return scan(&lists, &needed) })
			if err != nil {
				return err
			}
			if needed > 0 {
				continue
			}
			if lists > 0 {
				dropped = append(dropped, scope)
			}
			for _, table := range []string{`DELETE FROM crl`, `DELETE FROM crl_part`} {
				if err := t.exec(table+` WHERE issuer_key_id = ? AND scope = ?`, issuerKeyID, scope); err != nil {
					return err
				}
			}
		}
		slices.Sort(dropped)
		dropped = slices.Compact(dropped)
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return dropped, nil
}

// underLease refuses what is done under a lease that another has taken. A nil lease is none.
func (t *tx) underLease(under *store.Lease) error {
	if under == nil {
		return nil
	}
	err := t.row(`SELECT 1 FROM lease WHERE name = ? AND holder = ? AND token = ?`, []any{under.Name, under.Holder, under.Token},
		func(func(...any) error) error { return nil })
	if errors.Is(err, sql.ErrNoRows) {
		return fault.Wrap(fault.Conflict, store.ErrLeaseLost, "another process makes the CRLs now")
	}
	return err
}

func (t *tx) recordCRL(p *packedCRL) error {
	missing, _ := p.missing()
	if err := t.insertParts(p, missing); err != nil {
		return err
	}
	var layout any
	if p.layout != nil {
		layout = p.layout
	}
	err := t.exec(`
		INSERT INTO crl (issuer_key_id, scope, number, shard, this_update, next_update, scheduled, change, entries, created_at, der, parts, base)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		p.IssuerKeyID, p.Scope, p.Number, p.Shard, micros(p.ThisUpdate), micros(p.NextUpdate), p.Scheduled, p.Change, p.Entries, micros(p.CreatedAt),
		blob(p.der), layout, p.Base)
	if err != nil {
		return err
	}
	err = t.exec(`
		DELETE FROM crl WHERE issuer_key_id = ?1 AND scope = ?2
			AND number <= (SELECT number FROM crl WHERE issuer_key_id = ?1 AND scope = ?2 ORDER BY number DESC LIMIT 1 OFFSET ?3)
			AND number <> coalesce((SELECT max(number) FROM crl WHERE issuer_key_id = ?1 AND scope = ?2 AND scheduled), -1)
			AND number <> coalesce((SELECT max(number) FROM crl WHERE issuer_key_id = ?1 AND scope = ?2 AND base), -1)`,
		p.IssuerKeyID, p.Scope, crlGenerations)
	if err != nil || len(p.there) == 0 {
		return err
	}
	err = t.rows(`SELECT parts FROM crl WHERE issuer_key_id = ? AND scope = ? AND parts IS NOT NULL`, []any{p.IssuerKeyID, p.Scope}, func(scan func(...any) error) error {
		var layout []byte
		if err := scan(&layout); err != nil {
			return err
		}
		used, err := store.Apart(layout)
		for _, h := range used {
			delete(p.there, h)
		}
		return err
	})
	if err != nil {
		return err
	}
	for h := range p.there {
		if err := t.exec(`DELETE FROM crl_part WHERE issuer_key_id = ? AND scope = ? AND hash = ?`, p.IssuerKeyID, p.Scope, h[:]); err != nil {
			return err
		}
	}
	return nil
}

const crlColumns = `issuer_key_id, scope, number, shard, this_update, next_update, scheduled, change, entries, created_at, base`

// LatestCRL returns the newest CRL.
func (s *Store) LatestCRL(ctx context.Context, issuerKeyID int64, scope string, known func([32]byte) []byte) (pki.CRL, error) {
	tx, err := s.snapshot(ctx)
	if err != nil {
		return pki.CRL{}, s.asFault(ctx, err, "reading a CRL")
	}
	defer tx.Rollback()
	var der, layout []byte
	c, err := s.crlOf(ctx, tx, `
		SELECT `+crlColumns+`, der, parts
		FROM crl WHERE issuer_key_id = ? AND scope = ? ORDER BY number DESC LIMIT 1`, issuerKeyID, scope, &der, &layout)
	if err != nil {
		return pki.CRL{}, err
	}
	if c.Parts, err = store.UnpackCRL(der, layout); err != nil {
		return pki.CRL{}, err
	}
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
		err := tx.QueryRowContext(ctx, `SELECT data FROM crl_part WHERE issuer_key_id = ? AND scope = ? AND hash = ?`, issuerKeyID, scope, p.Hash[:]).Scan(&p.Data)
		if err != nil {
			return pki.CRL{}, s.asFault(ctx, err, "reading a part of a CRL")
		}
		if pki.NewCRLPart(p.Data).Hash != p.Hash {
			return pki.CRL{}, fault.New(fault.Internal, "a part of CRL %d is damaged", c.Number)
		}
	}
	return c, nil
}

// LatestScheduledCRL returns the newest CRL that the timer made, without its parts.
func (s *Store) LatestScheduledCRL(ctx context.Context, issuerKeyID int64, scope string) (pki.CRL, error) {
	if err := s.begin(ctx); err != nil {
		return pki.CRL{}, err
	}
	return s.crlOf(ctx, s.read, `
		SELECT `+crlColumns+`
		FROM crl WHERE issuer_key_id = ? AND scope = ? AND scheduled ORDER BY number DESC LIMIT 1`, issuerKeyID, scope)
}

// BaseCRL returns the newest CRL that delta CRLs build on, without its parts.
func (s *Store) BaseCRL(ctx context.Context, issuerKeyID int64, scope string) (pki.CRL, error) {
	if err := s.begin(ctx); err != nil {
		return pki.CRL{}, err
	}
	return s.crlOf(ctx, s.read, `
		SELECT `+crlColumns+`
		FROM crl WHERE issuer_key_id = ? AND scope = ? AND base ORDER BY number DESC LIMIT 1`, issuerKeyID, scope)
}

type rowQuerier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (s *Store) crlOf(ctx context.Context, q rowQuerier, query string, issuerKeyID int64, scope string, also ...any) (pki.CRL, error) {
	var c pki.CRL
	var thisUpdate, nextUpdate, createdAt int64
	err := q.QueryRowContext(ctx, query, issuerKeyID, scope).Scan(append([]any{
		&c.IssuerKeyID, &c.Scope, &c.Number, &c.Shard, &thisUpdate, &nextUpdate, &c.Scheduled, &c.Change, &c.Entries, &createdAt, &c.Base,
	}, also...)...)
	if errors.Is(err, sql.ErrNoRows) {
		return pki.CRL{}, fault.New(fault.NotFound, "no such CRL has been published yet")
	}
	if err != nil {
		return pki.CRL{}, s.asFault(ctx, err, "reading a CRL")
	}
	c.ThisUpdate, c.NextUpdate, c.CreatedAt = timeOf(thisUpdate), timeOf(nextUpdate), timeOf(createdAt)
	return c, nil
}
