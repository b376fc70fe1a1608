package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// RecordIssuance writes the certificate and its audit record.
func (s *Store) RecordIssuance(ctx context.Context, i store.Issuance) error {
	row, err := newCertificateRow(&i.Certificate)
	if err != nil {
		return err
	}
	return s.write(ctx, &op{
		records: sealed(i.Record),
		apply: func(t *tx) error {
			if err := t.mayIssue(&i); err != nil {
				return err
			}
			if i.Enrollment != nil {
				if err := t.admitEnrollment(i.Enrollment); err != nil {
					return err
				}
			}
			if i.Certificate.Device != "" {
				if err := t.admitDevice(&i); err != nil {
					return err
				}
			}
			if err := t.insertCertificate(row); err != nil {
				return err
			}
			if i.Certificate.Device != "" {
				if err := t.noteIssuance(&i); err != nil {
					return err
				}
			}
			if err := t.claimIdempotency(&i); err != nil {
				return err
			}
			if i.Enrollment != nil {
				if err := t.putEnrollment(i.Enrollment); err != nil {
					return err
				}
			}
			if i.ReserveKey {
				return t.reserveKey(i.Certificate.SPKIHash)
			}
			return nil
		},
	})
}

// mayIssue refuses what must not be issued as the transaction finds things. It writes nothing.
func (t *tx) mayIssue(i *store.Issuance) error {
	if err := t.checkIdempotency(i); err != nil {
		return err
	}
	if p := i.Predecessor; p != nil {
		if err := t.checkPredecessor(p); err != nil {
			return err
		}
	}
	var own, compromised int
	err := t.row(`SELECT own, compromised FROM blocked_key WHERE spki_hash = ?`, []any{i.Certificate.SPKIHash[:]},
		func(scan func(...any) error) error { return scan(&own, &compromised) })
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return store.BlockedKey{Own: own != 0, Compromised: compromised != 0}.Refuse(i.ReserveKey)
}

// checkPredecessor refuses to renew a certificate that is not good.
func (t *tx) checkPredecessor(p *store.Predecessor) error {
	var status sql.NullInt64
	err := t.row(`
		SELECT r.status FROM certificate c `+joinRevocation+`
		WHERE c.issuer_id = ? AND c.bucket = ? AND c.serial = ? AND c.issuer_key_id = ?`,
		[]any{p.IssuerID, p.Serial.Bucket(), p.Serial.Bytes(), p.IssuerKeyID},
		func(scan func(...any) error) error { return scan(&status) })
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fault.New(fault.NotFound, "the certificate to renew is not there")
	case err != nil:
		return err
	}
	return store.RefusePredecessor(pki.Status(status.Int64))
}

// certificateRow is a record with what is derived from it, made outside the writer.
type certificateRow struct {
	*pki.Certificate
	sans       string
	searchText string
}

func newCertificateRow(c *pki.Certificate) (certificateRow, error) {
	sans, err := encodeStrings(c.SANs)
	if err != nil {
		return certificateRow{}, fault.Wrap(fault.Internal, err, "encoding the SANs")
	}
	return certificateRow{c, sans, searchText(c)}, nil
}

// insertCertificate writes a record. What it refuses has left nothing behind.
func (t *tx) insertCertificate(c certificateRow) error {
	issuer, err := t.issuerOf(c.IssuerKeyID)
	if err != nil {
		return err
	}
	if issuer != c.IssuerID {
		return fault.New(fault.NotFound, "the issuer has no such key")
	}
	var replaces any
	if c.Replaces != (pki.Fingerprint{}) {
		replaces = c.Replaces[:]
	}
	res, err := t.execResult(`
		INSERT INTO certificate (issuer_id, issuer_key_id, not_before, not_after, issued_at, bucket, profile_version, crl_shard,
			serial, fingerprint, spki_hash, replaces, subject, sans, profile, requester, protocol, device, source,
			transaction_id, crl_scope, search_text)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		c.IssuerID, c.IssuerKeyID, micros(c.NotBefore), micros(c.NotAfter), micros(c.IssuedAt), c.Serial.Bucket(), c.ProfileVersion, c.CRLShard,
		c.Serial.Bytes(), c.Fingerprint[:], c.SPKIHash[:], replaces, c.Subject, c.sans, c.Profile, c.Requester, c.Protocol, c.Device, c.Source,
		c.TransactionID, c.CRLScope, c.searchText)
	if err != nil {
		if _, extended := code(err); extended == sqlite3.SQLITE_CONSTRAINT_UNIQUE {
			if strings.Contains(err.Error(), "certificate.fingerprint") {
				return fault.Wrap(fault.Conflict, err, "this certificate has been recorded before")
			}
			return fault.Wrap(fault.Conflict, store.ErrSerialTaken, "the issuer has used the serial number %s before", c.Serial)
		}
		return err
	}
	t.added++
	if len(c.DER) == 0 {
		return nil
	}
	id, err := res.LastInsertId()
	if err != nil {
		return err
	}
	return t.exec(`INSERT INTO certificate_der (id, der) VALUES (?, ?)`, id, c.DER)
}

// reserveKey keeps a public key for ourselves. One that was reported compromised stays so.
func (t *tx) reserveKey(spki [32]byte) error {
	t.config = true
	return t.exec(`INSERT INTO blocked_key (spki_hash, own) VALUES (?, 1) ON CONFLICT (spki_hash) DO UPDATE SET own = 1, compromised = max(compromised, 1 - own)`, spki[:])
}

// certificateColumns are what scanCertificate reads, of certificate c and its revocation r.
const certificateColumns = `c.issuer_id, c.issuer_key_id, c.not_before, c.not_after, c.issued_at, c.profile_version, c.crl_shard,
	c.serial, c.fingerprint, c.spki_hash, c.replaces, c.subject, c.sans, c.profile, c.requester, c.protocol, c.device, c.source,
	c.transaction_id, c.crl_scope, r.status, r.reason, r.revoked_at, r.invalidity_date, r.first_crl_at, r.first_ocsp_at`

// joinRevocation finds a certificate's revocation, if it has one.
const joinRevocation = `LEFT JOIN revocation r ON r.issuer_key_id = c.issuer_key_id AND r.serial = c.serial`

// scanCertificate reads certificateColumns, and what the query selects after them into more.
func scanCertificate(scan func(...any) error, more ...any) (pki.Certificate, error) {
	var (
		c                                      pki.Certificate
		notBefore, notAfter, issuedAt          int64
		serial, fingerprint, spki, replaces    []byte
		sans                                   string
		status, reason, revokedAt, invalidDate sql.NullInt64
		firstCRL, firstOCSP                    sql.NullInt64
	)
	err := scan(append([]any{
		&c.IssuerID, &c.IssuerKeyID, &notBefore, &notAfter, &issuedAt, &c.ProfileVersion, &c.CRLShard,
		&serial, &fingerprint, &spki, &replaces, &c.Subject, &sans, &c.Profile, &c.Requester, &c.Protocol, &c.Device, &c.Source,
		&c.TransactionID, &c.CRLScope, &status, &reason, &revokedAt, &invalidDate, &firstCRL, &firstOCSP,
	}, more...)...)
	if err != nil {
		return pki.Certificate{}, err
	}
	c.NotBefore, c.NotAfter, c.IssuedAt = timeOf(notBefore), timeOf(notAfter), timeOf(issuedAt)
	c.Serial, c.Fingerprint, c.SPKIHash, c.Replaces = pki.SerialNumber(serial), hash32(fingerprint), hash32(spki), hash32(replaces)
	if c.SANs, err = decodeStrings(sans); err != nil {
		return pki.Certificate{}, fmt.Errorf("SANs of certificate %v: %w", c.Serial, err)
	}
	c.Revocation = revocationOf(status, reason, revokedAt, invalidDate)
	c.FirstCRLAt, c.FirstOCSPAt = optionalTime(firstCRL), optionalTime(firstOCSP)
	return c, nil
}

// revocationOf makes a revocation of its columns. Without a status, or with that of a good certificate, there is none.
func revocationOf(status, reason, revokedAt, invalidDate sql.NullInt64) *pki.Revocation {
	if !status.Valid || pki.Status(status.Int64) == pki.Good {
		return nil
	}
	return &pki.Revocation{
		Status: pki.Status(status.Int64), Reason: pki.Reason(reason.Int64),
		RevokedAt: timeOf(revokedAt.Int64), InvalidityDate: optionalTime(invalidDate),
	}
}

// encodeStrings returns a JSON array.
func encodeStrings(ss []string) (string, error) {
	if len(ss) == 0 {
		return "[]", nil
	}
	b, err := json.Marshal(ss)
	return string(b), err
}

func decodeStrings(s string) (ss []string, err error) {
	if s == "[]" {
		return nil, nil
	}
	err = json.Unmarshal([]byte(s), &ss)
	return ss, err
}

// Certificate returns the record with this fingerprint.
func (s *Store) Certificate(ctx context.Context, f pki.Fingerprint) (pki.Certificate, error) {
	return s.oneCertificate(ctx, `
		SELECT `+certificateColumns+`, d.der
		FROM certificate c `+joinRevocation+` LEFT JOIN certificate_der d ON d.id = c.id
		WHERE c.fingerprint = ?`, f[:])
}

// CertificateBySerial returns the record of this issuer and serial number.
func (s *Store) CertificateBySerial(ctx context.Context, issuerID int64, n pki.SerialNumber) (pki.Certificate, error) {
	return s.oneCertificate(ctx, `
		SELECT `+certificateColumns+`, d.der
		FROM certificate c `+joinRevocation+` LEFT JOIN certificate_der d ON d.id = c.id
		WHERE c.issuer_id = ? AND c.bucket = ? AND c.serial = ?`, issuerID, n.Bucket(), n.Bytes())
}

func (s *Store) oneCertificate(ctx context.Context, query string, args ...any) (pki.Certificate, error) {
	if err := s.begin(ctx); err != nil {
		return pki.Certificate{}, err
	}
	var der []byte
	c, err := scanCertificate(s.read.QueryRowContext(ctx, query, args...).Scan, &der)
	if errors.Is(err, sql.ErrNoRows) {
		return pki.Certificate{}, fault.New(fault.NotFound, "there is no such certificate")
	}
	if len(der) > 0 {
		c.DER = der
	}
	return c, s.asFault(ctx, err, "reading a certificate")
}
