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
	refusal   error  // of this operation alone; nothing of it is written
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
	return s.issuances.Do(ctx, &issuance{Issuance: i, bucket: i.Certificate.Serial.Bucket(), canonical: i.Record.Canonical()})
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
	outcome := make(map[*issuance]error)
	for first, twins := apart(ops); len(first) > 0; first, twins = apart(twins) {
		errs, fallbacks := groupcommit.Bisect(first, func(ops []*issuance) error { return s.writeIssuances(ctx, ops) }, ofOneOperation)
		s.fallbacks.Add(int64(fallbacks))
		for i, err := range errs {
			switch {
			case violates(err, "_pkey"):
				err = fault.Wrap(fault.Conflict, errors.Join(store.ErrSerialTaken, err), "the issuer has used this serial number before")
			case violates(err, "_fingerprint_bucket_key"):
				err = fault.Wrap(fault.Conflict, err, "this certificate has been recorded before")
			case err == nil:
				err = first[i].refusal
			}
			if err != nil {
				outcome[first[i]] = err
			}
		}
	}
	if len(outcome) == 0 {
		return nil
	}
	errs := make([]error, len(ops))
	for i, op := range ops {
		errs[i] = outcome[op]
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
	ON CONFLICT (spki_hash) DO UPDATE SET own = true, compromised = blocked_key.compromised OR NOT blocked_key.own
	WHERE NOT blocked_key.own`

// errRefused ends a transaction in which operations were refused that had a part in it.
var errRefused = errors.New("some were refused")

// writeIssuances writes all that are not refused, or nothing. A transaction in which one is refused leaves nothing, and
// the others are written by the next: refusals here are rare, since who issues has looked before.
func (s *Store) writeIssuances(ctx context.Context, ops []*issuance) error {
	for {
		admitted := slices.DeleteFunc(slices.Clone(ops), func(op *issuance) bool { return op.refusal != nil })
		if len(admitted) == 0 {
			return nil
		}
		if err := s.tryIssuances(ctx, admitted); !errors.Is(err, errRefused) {
			return err
		}
	}
}

// tryIssuances writes all or nothing, in one transaction of two round trips. It is errRefused when some were refused.
func (s *Store) tryIssuances(ctx context.Context, ops []*issuance) error {
	// In the order of the primary key, neighbours on a page are written together, and two batches that hold the same
	// serial numbers wait for each other instead of in a circle. The audit records keep the order of arrival.
	sorted := slices.Clone(ops)
	slices.SortFunc(sorted, func(a, b *issuance) int {
		return cmp.Or(cmp.Compare(a.Certificate.IssuerID, b.Certificate.IssuerID), cmp.Compare(a.bucket, b.bucket),
			cmp.Compare(a.Certificate.Serial, b.Certificate.Serial))
	})
	certificates := make([]*pki.Certificate, len(ops))
	var reserve [][]byte
	var enrollments []*store.EnrollmentChange
	enroll, err := newDeviceRows(ops)
	if err != nil {
		return err
	}
	for i, op := range sorted {
		certificates[i] = &op.Certificate
		if op.Enrollment != nil {
			enrollments = append(enrollments, op.Enrollment)
		}
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
		// What may refuse comes first, and holds rows in this order: those of requests, of certificates, of keys, of devices.
		queueIdempotency(b, sorted)
		queuePredecessors(b, sorted)
		queueBlockedKeys(b, sorted)
		queueNewest(b, sorted)
		enroll.queue(b)
		queueCertificates(b, certificates)
		queueEnrollments(b, enrollments)
		if len(reserve) > 0 {
			b.Queue(sqlReserveKeys, slices.CompactFunc(reserve, slices.Equal))
		}
	}
	return s.write(ctx, "recording a certificate", first, func(t *tx) error {
		if slices.ContainsFunc(ops, func(op *issuance) bool { return op.refusal != nil }) {
			return errRefused
		}
		t.seals = sealing{config: len(reserve) > 0, records: records, canonical: canonical}
		return nil
	})
}

// A status that changes waits for the end of this transaction, or has changed before it.
const sqlHoldPredecessors = `
	SELECT 1
	FROM unnest($1::bigint[], $2::integer[], $3::bytea[]) AS u (issuer_id, bucket, serial)
	JOIN certificate c ON c.issuer_id = u.issuer_id AND c.bucket = u.bucket AND c.serial = u.serial
	ORDER BY c.issuer_id, c.bucket, c.serial
	FOR SHARE OF c`

const sqlReadPredecessors = `
	SELECT u.ord, r.status
	FROM unnest($1::bigint[], $2::integer[], $3::bytea[], $4::bigint[]) WITH ORDINALITY AS u (issuer_id, bucket, serial, issuer_key_id, ord)
	JOIN certificate c ON c.issuer_id = u.issuer_id AND c.bucket = u.bucket AND c.serial = u.serial AND c.issuer_key_id = u.issuer_key_id
	LEFT JOIN revocation r ON r.issuer_key_id = c.issuer_key_id AND r.serial = c.serial`

// queuePredecessors queues the statements that refuse to renew what is not good.
func queuePredecessors(b *pgx.Batch, ops []*issuance) {
	var renewals []*issuance
	var issuers, keys []int64
	var buckets []int32
	var serials [][]byte
	for _, op := range ops {
		if p := op.Predecessor; p != nil {
			renewals = append(renewals, op)
			issuers, keys = append(issuers, p.IssuerID), append(keys, p.IssuerKeyID)
			buckets, serials = append(buckets, int32(p.Serial.Bucket())), append(serials, p.Serial.Bytes())
		}
	}
	if len(renewals) == 0 {
		return
	}
	b.Queue(sqlHoldPredecessors, issuers, buckets, serials)
	b.Queue(sqlReadPredecessors, issuers, buckets, serials, keys).Query(func(rows pgx.Rows) error {
		found := make([]bool, len(renewals))
		var ord int64
		var status *int16
		_, err := pgx.ForEachRow(rows, []any{&ord, &status}, func() error {
			found[ord-1] = true
			if status != nil {
				renewals[ord-1].refuse(store.RefusePredecessor(pki.Status(*status)))
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i, ok := range found {
			if !ok {
				renewals[i].refuse(fault.New(fault.NotFound, "the certificate to renew is not there"))
			}
		}
		return nil
	})
}

const sqlFindBlockedKeys = `
	SELECT spki_hash, own, compromised
	FROM blocked_key
	WHERE spki_hash = ANY($1::bytea[])`

// queueBlockedKeys queues the statement that refuses blocked keys. It holds nothing: who asked after a key was blocked
// finds it, and who asked at the same time may have been first.
func queueBlockedKeys(b *pgx.Batch, ops []*issuance) {
	hashes := make([][]byte, len(ops))
	for i, op := range ops {
		hashes[i] = op.Certificate.SPKIHash[:]
	}
	b.Queue(sqlFindBlockedKeys, hashes).Query(func(rows pgx.Rows) error {
		var hash []byte
		var key store.BlockedKey
		_, err := pgx.ForEachRow(rows, []any{&hash, &key.Own, &key.Compromised}, func() error {
			for _, op := range ops {
				if bytes.Equal(hash, op.Certificate.SPKIHash[:]) {
					op.refuse(key.Refuse(op.ReserveKey))
				}
			}
			return nil
		})
		return err
	})
}

// refuse notes why an operation is not done: the first reason, of several. A nil reason changes nothing.
func (op *issuance) refuse(why error) {
	if op.refusal == nil {
		op.refusal = why
	}
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
