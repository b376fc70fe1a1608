package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/groupcommit"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// issuance is one issuance on its way to the database.
type issuance struct {
	store.Issuance
	bucket    int
	canonical []byte // of the record
}

// RecordIssuance implements store.Certificates.
func (s *Store) RecordIssuance(ctx context.Context, i store.Issuance) error {
	if len(i.Certificate.Serial) == 0 || len(i.Certificate.Serial) > 20 {
		return fault.Wrap(fault.BadRequest, pki.ErrSerialNumber, "recording a certificate: the serial number has %d octets", len(i.Certificate.Serial))
	}
	if err := s.knowKey(ctx, i.Certificate.IssuerID, i.Certificate.IssuerKeyID); err != nil {
		return err
	}
	// What can be prepared is prepared here, outside the writers.
	return s.issuances.Do(ctx, &issuance{i, i.Certificate.Serial.Bucket(), i.Record.Canonical()})
}

// issuerKey names a key as certificates do.
type issuerKey struct{ issuer, key int64 }

// knowKey refuses certificates of issuers and keys that are not there. Keys are never taken away or given to another
// issuer, so each is looked up once; a foreign key would look it up for every row.
func (s *Store) knowKey(ctx context.Context, issuerID, keyID int64) error {
	k := issuerKey{issuerID, keyID}
	if _, ok := s.keys.Load(k); ok {
		return nil
	}
	set, err := s.AllIssuers(ctx)
	if err != nil {
		return err
	}
	for _, known := range set.Keys {
		s.keys.Store(issuerKey{known.IssuerID, known.ID}, true)
	}
	if _, ok := s.keys.Load(k); !ok {
		return fault.New(fault.NotFound, "there is no such issuer key")
	}
	return nil
}

// flushIssuances writes a batch, and takes it apart when one of its operations is at fault.
func (s *Store) flushIssuances(ctx context.Context, ops []*issuance) []error {
	errs, fallbacks := groupcommit.Bisect(ops, func(ops []*issuance) error { return s.writeIssuances(ctx, ops) }, ofOneOperation)
	s.fallbacks.Add(int64(fallbacks))
	for i, err := range errs {
		switch {
		case violates(err, "_pkey"):
			errs[i] = fault.Wrap(fault.Conflict, errors.Join(store.ErrSerialTaken, err), "the issuer has used this serial number before")
		case violates(err, "_fingerprint_bucket_key"):
			errs[i] = fault.Wrap(fault.Conflict, err, "this certificate has been recorded before")
		}
	}
	return errs
}

// ofOneOperation reports whether an error may be the fault of one operation of a batch, so that the others would succeed
// without it. When the database is away, all are in the same boat.
func ofOneOperation(err error) bool { return !fault.Is(err, fault.Unavailable) }

const sqlInsertCertificates = `
	INSERT INTO certificate (
		issuer_id, issuer_key_id, not_before, not_after, issued_at, bucket, profile_version, crl_shard, serial,
		fingerprint, spki_hash, replaces, subject, sans, profile, requester, protocol, device, source, transaction_id,
		crl_scope, search_text, der)
	SELECT
		u.issuer_id, u.issuer_key_id, u.not_before, u.not_after, u.issued_at, u.bucket, u.profile_version, u.crl_shard, u.serial,
		u.fingerprint, u.spki_hash, u.replaces, u.subject, u.sans::text[], u.profile, u.requester, u.protocol, u.device, u.source, u.transaction_id,
		u.crl_scope, u.search_text, u.der
	FROM unnest(
		$1::bigint[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::integer[], $7::integer[], $8::integer[], $9::bytea[],
		$10::bytea[], $11::bytea[], $12::bytea[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[],
		$21::text[], $22::text[], $23::bytea[]
	) AS u (
		issuer_id, issuer_key_id, not_before, not_after, issued_at, bucket, profile_version, crl_shard, serial,
		fingerprint, spki_hash, replaces, subject, sans, profile, requester, protocol, device, source, transaction_id,
		crl_scope, search_text, der)`

// A key that was reported compromised stays so when it is reserved.
const sqlReserveKeys = `
	INSERT INTO blocked_key (spki_hash, own)
	SELECT u.spki_hash, true FROM unnest($1::bytea[]) AS u (spki_hash)
	ON CONFLICT (spki_hash) DO NOTHING`

// writeIssuances writes all or nothing, in one transaction of two round trips.
func (s *Store) writeIssuances(ctx context.Context, ops []*issuance) error {
	// In the order of the primary key, neighbours on a page are written together, and two batches that hold the same
	// serial numbers wait for each other instead of in a circle. The audit records keep the order of arrival.
	sorted := slices.Clone(ops)
	slices.SortFunc(sorted, func(a, b *issuance) int {
		return cmp.Or(cmp.Compare(a.Certificate.IssuerID, b.Certificate.IssuerID), cmp.Compare(a.bucket, b.bucket),
			cmp.Compare(a.Certificate.Serial, b.Certificate.Serial))
	})
	certificates := make([]*pki.Certificate, len(ops))
	var reserve [][]byte
	for i, op := range sorted {
		certificates[i] = &op.Certificate
		if op.ReserveKey {
			reserve = append(reserve, op.Certificate.SPKIHash[:])
		}
	}
	sortKeys(reserve)
	records, canonical := make([]audit.Record, len(ops)), make([][]byte, len(ops))
	for i, op := range ops {
		records[i], canonical[i] = op.Record, op.canonical
	}
	first := func(b *pgx.Batch) {
		queueCertificates(b, certificates)
		if len(reserve) > 0 {
			b.Queue(sqlReserveKeys, reserve)
		}
	}
	return s.write(ctx, "recording a certificate", first, func(t *tx) error {
		t.seals = sealing{config: len(reserve) > 0, records: records, canonical: canonical}
		return nil
	})
}

// sortKeys puts keys in the one order in which all transactions lock them.
func sortKeys(keys [][]byte) { slices.SortFunc(keys, bytes.Compare) }

// queueCertificates queues the statement that inserts certificates.
func queueCertificates(b *pgx.Batch, certificates []*pki.Certificate) {
	n := len(certificates)
	var (
		int64s  = make([]int64, 2*n)
		int32s  = make([]int32, 3*n)
		times   = make([]time.Time, 3*n)
		octets  = make([][]byte, 5*n)
		strs    = make([]string, 10*n)
		column  = func(i int) []string { return strs[i*n : (i+1)*n : (i+1)*n] }
		issuers = int64s[:n:n]
		keys    = int64s[n:]

		notBefore, notAfter, issuedAt                     = times[:n:n], times[n : 2*n : 2*n], times[2*n:]
		buckets, versions, shards                         = int32s[:n:n], int32s[n : 2*n : 2*n], int32s[2*n:]
		serials, fingerprints, spkis                      = octets[:n:n], octets[n : 2*n : 2*n], octets[2*n : 3*n : 3*n]
		replaces, ders                                    = octets[3*n : 4*n : 4*n], octets[4*n:]
		subjects, sans, profiles, requesters              = column(0), column(1), column(2), column(3)
		protocols, devices, sources, transactions, scopes = column(4), column(5), column(6), column(7), column(8)
		search                                            = column(9)
	)
	for i, c := range certificates {
		issuers[i], keys[i] = c.IssuerID, c.IssuerKeyID
		notBefore[i], notAfter[i], issuedAt[i] = cut(c.NotBefore), cut(c.NotAfter), cut(c.IssuedAt)
		buckets[i], versions[i], shards[i] = int32(c.Serial.Bucket()), int32(c.ProfileVersion), int32(c.CRLShard)
		serials[i], fingerprints[i], spkis[i] = c.Serial.Bytes(), c.Fingerprint[:], c.SPKIHash[:]
		if c.Replaces != (pki.Fingerprint{}) {
			replaces[i] = c.Replaces[:]
		}
		if len(c.DER) > 0 {
			ders[i] = c.DER
		}
		subjects[i], profiles[i], requesters[i] = text(c.Subject), text(c.Profile), text(c.Requester)
		protocols[i], devices[i], sources[i] = text(c.Protocol), text(c.Device), text(c.Source)
		transactions[i], scopes[i] = text(c.TransactionID), text(c.CRLScope)
		sans[i] = text(arrayLiteral(c.SANs))
		search[i] = searchText(c)
	}
	b.Queue(sqlInsertCertificates, issuers, keys, notBefore, notAfter, issuedAt, buckets, versions, shards, serials,
		fingerprints, spkis, replaces, subjects, sans, profiles, requesters, protocols, devices, sources, transactions,
		scopes, search, ders).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != int64(n) {
			return errors.New("the server inserted another number of certificates than it was given")
		}
		return nil
	})
}

// searchSeam stands between the parts of search_text.
const searchSeam = "\x1f"

// searchText is what the text filter searches.
func searchText(c *pki.Certificate) string {
	return text(strings.ToLower(c.Subject + searchSeam + strings.Join(c.SANs, searchSeam)))
}
