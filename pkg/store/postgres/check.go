package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/certwright/certwright/migrations"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// partitionYears is how far ahead of the newest record there must be partitions.
const partitionYears = 5

// Check implements store.Store. It sees one state of the database, and reads every row of some tables.
func (s *Store) Check(ctx context.Context) ([]store.Finding, error) {
	const doing = "checking the store"
	conn, release, err := s.snapshot(ctx)
	if err != nil {
		return nil, fail(err, doing)
	}
	defer release()
	var found findings
	for _, check := range []func(context.Context, *pgxpool.Conn, *findings) error{
		checkSettings, checkSchema, checkState, checkOwner, checkChain, checkStatuses, checkIssuers, checkPartitions,
	} {
		if err := check(ctx, conn, &found); err != nil {
			return nil, fail(withContext(ctx, err), doing)
		}
	}
	return found, nil
}

type findings []store.Finding

func (f *findings) serious(what, mend string) {
	*f = append(*f, store.Finding{Serious: true, What: what, Mend: mend})
}

func (f *findings) advice(what, mend string) { *f = append(*f, store.Finding{What: what, Mend: mend}) }

// count reports a query that counts wrong rows.
func (f *findings) count(ctx context.Context, conn *pgxpool.Conn, what, mend, sql string, args ...any) error {
	var n int64
	if err := conn.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		f.serious(fmt.Sprintf(what, n), mend)
	}
	return nil
}

func checkSettings(ctx context.Context, conn *pgxpool.Conn, f *findings) error {
	var version, standbys, wraparound int
	var fsync, pages, commit, autovacuum, names, checksums string
	err := conn.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('fsync'), current_setting('full_page_writes'),
		       current_setting('synchronous_commit'), current_setting('autovacuum'), current_setting('synchronous_standby_names'),
		       current_setting('data_checksums'), (SELECT count(*) FROM pg_stat_replication),
		       (SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database())`,
	).Scan(&version, &fsync, &pages, &commit, &autovacuum, &names, &checksums, &standbys, &wraparound)
	if err != nil {
		return err
	}
	if version < 140000 {
		f.serious(fmt.Sprintf("The server is PostgreSQL %d, which gets no corrections any more.", version/10000), "upgrade to PostgreSQL 14 or newer")
	}
	if fsync != "on" {
		f.serious("fsync is off: a crash loses acknowledged certificates and revocations.", "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();")
	}
	if pages != "on" {
		f.serious("full_page_writes is off: a crash may leave tables unreadable.", "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();")
	}
	if commit != "on" && commit != "remote_apply" {
		f.serious("synchronous_commit is "+commit+" although every connection asks for on: a pooler in between drops our settings.",
			"connect to the server without the pooler, or let it pass synchronous_commit on")
	}
	if autovacuum != "on" {
		f.advice("autovacuum is off: tables bloat, and look-ups of a certificate's status read more than an index.",
			"ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf();")
	}
	if standbys > 0 && names == "" {
		f.serious("There are standbys, and COMMIT does not wait for any: when one takes over, the newest certificates and revocations are lost.",
			"ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'; SELECT pg_reload_conf();")
	}
	if checksums != "on" {
		f.advice("Data checksums are off: pages that the disk damages are not noticed.", "stop the server and run: pg_checksums --enable")
	}
	if wraparound > 1_500_000_000 {
		f.serious("The server is about to run out of transaction numbers and will then refuse to write.", "vacuumdb --freeze")
	}
	return nil
}

func checkSchema(ctx context.Context, conn *pgxpool.Conn, f *findings) error {
	want, err := migrations.Latest(migrations.FS, folder)
	if err != nil {
		return err
	}
	have, dirty, err := schemaVersion(ctx, conn)
	if err != nil {
		return err
	}
	if err := judgeSchema(have, dirty, want); err != nil {
		f.serious(err.Error()+".", "certwright store migrate")
	}
	rows, err := conn.Query(ctx, `
		SELECT i.indexrelid::regclass::text
		FROM pg_index i
		JOIN pg_class c ON c.oid = i.indexrelid
		WHERE c.relnamespace = current_schema()::regnamespace AND NOT (i.indisvalid AND i.indisready)`)
	if err != nil {
		return err
	}
	broken, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if len(broken) > 0 {
		f.serious("These indexes are not valid: "+strings.Join(broken, ", ")+".", "REINDEX INDEX NAME;")
	}
	return err
}

// checkState tells when the store is not in use.
func checkState(ctx context.Context, conn *pgxpool.Conn, f *findings) error {
	st, err := readState(ctx, conn, sqlState)
	if err != nil {
		return err
	}
	if e, ok := errors.AsType[*fault.Error](st.Err()); ok {
		f.serious(e.Detail+".", e.Hint)
	}
	return nil
}

// checkOwner tells when the role could rewrite what is meant to stand, and when servers' roles cannot do what they must.
func checkOwner(ctx context.Context, conn *pgxpool.Conn, f *findings) error {
	var role string
	var owner, edits bool
	err := conn.QueryRow(ctx, `
		SELECT current_user, pg_has_role(c.relowner, 'USAGE'),
		       has_table_privilege(c.oid, 'UPDATE') OR has_table_privilege(c.oid, 'DELETE') OR has_table_privilege(c.oid, 'TRUNCATE')
		FROM pg_class c
		WHERE c.oid = 'audit_record'::regclass`).Scan(&role, &owner, &edits)
	switch {
	case err != nil:
		return err
	case owner:
		f.advice("The role "+role+", with which the store is reached, owns the tables: whoever takes a server over can rewrite the audit trail.",
			"give the servers a role of their own with «certwright store grant --role NAME», and set «migrate: false»")
	case edits:
		f.advice("The role "+role+", with which the store is reached, can change or delete audit records.", "as the owner of the tables: certwright store grant --role "+role)
	}
	rows, err := conn.Query(ctx, `SELECT DISTINCT rolname FROM (`+sqlLacking+`) AS lacking ORDER BY rolname`)
	if err != nil {
		return err
	}
	lacking, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if len(lacking) > 0 {
		f.serious("These roles of servers lack rights that this release needs: "+strings.Join(lacking, ", ")+".", "as the owner of the tables: certwright store migrate")
	}
	return err
}

// checkChain compares the head with the ends and the sizes of the tables it counts. It does not verify hashes: that is
// what AuditChain is for.
func checkChain(ctx context.Context, conn *pgxpool.Conn, f *findings) error {
	const restore = "find out who wrote to the audit tables; certwright audit verify says from where on; restore a backup"
	head, err := readHead(ctx, conn)
	if err != nil {
		return err
	}
	var maxSeq, records, batches, sum, maxChange int64
	err = conn.QueryRow(ctx, `
		SELECT (SELECT coalesce(max(seq), 0) FROM audit_record), (SELECT count(*) FROM audit_record),
		       count(*), coalesce(sum(count), 0)::bigint, coalesce(max(change), 0)
		FROM audit_batch`).Scan(&maxSeq, &records, &batches, &sum, &maxChange)
	if err != nil {
		return err
	}
	if maxSeq != head.AuditSeq || records != head.AuditSeq || sum != head.AuditSeq {
		f.serious(fmt.Sprintf("The head counts %d audit records; there are %d, the newest has number %d, and the batches sealed %d.",
			head.AuditSeq, records, maxSeq, sum), restore)
	}
	if batches != head.Change || maxChange != head.Change {
		f.serious(fmt.Sprintf("The head counts %d changes; there are %d batches, the newest has number %d.", head.Change, batches, maxChange), restore)
	}
	if max(head.ConfigChange, head.StatusChange, head.CRLChange) > head.Change {
		f.serious("The head names a change that has not been made.", restore)
	}
	if head.Change > 0 {
		var same bool
		err := conn.QueryRow(ctx, `SELECT coalesce(bool_and(hash = $2), false) FROM audit_batch WHERE change = $1`,
			head.Change, head.Hash[:]).Scan(&same)
		if err != nil {
			return err
		}
		if !same {
			f.serious("The newest batch of the audit chain does not have the head's hash.", restore)
		}
	}
	return f.count(ctx, conn, "%d audit records do not have the change number of their batch.", restore, `
		SELECT count(*)
		FROM audit_record r
		LEFT JOIN audit_batch b ON b.change = r.change
		WHERE b.change IS NULL OR r.seq < b.first_seq OR r.seq >= b.first_seq + b.count`)
}

func checkStatuses(ctx context.Context, conn *pgxpool.Conn, f *findings) error {
	const restore = "compare with the audit records of these certificates and restore a backup"
	if err := f.count(ctx, conn, "%d revocations are of no certificate that was issued.", restore, `
		SELECT count(*)
		FROM revocation r
		WHERE NOT EXISTS (
			SELECT 1 FROM certificate c
			WHERE c.issuer_id = r.issuer_id AND c.bucket = r.bucket AND c.serial = r.serial AND c.issuer_key_id = r.issuer_key_id)`,
	); err != nil {
		return err
	}
	return f.count(ctx, conn, "The status of %d certificates is not what the newest change of it says.", restore, `
		SELECT count(*)
		FROM (
			SELECT DISTINCT ON (issuer_key_id, serial) issuer_key_id, serial, status, reason, revoked_at, invalidity_date, change
			FROM status_event
			ORDER BY issuer_key_id, serial, change DESC, ord DESC
		) e
		FULL JOIN revocation r ON r.issuer_key_id = e.issuer_key_id AND r.serial = e.serial
		WHERE e.serial IS NULL
		   OR r.serial IS NULL AND e.status <> 0
		   OR (r.status, r.reason, r.revoked_at, r.change) <> (e.status, e.reason, e.revoked_at, e.change)
		   OR r.serial IS NOT NULL AND e.status = 0
		   OR r.serial IS NOT NULL AND r.invalidity_date IS DISTINCT FROM e.invalidity_date`)
}

func checkIssuers(ctx context.Context, conn *pgxpool.Conn, f *findings) error {
	if err := f.count(ctx, conn, "%d issuer keys have signed certificates and are not in the store.", "restore a backup", `
		SELECT count(*)
		FROM (SELECT DISTINCT issuer_id, issuer_key_id FROM certificate) c
		WHERE NOT EXISTS (SELECT 1 FROM issuer_key k WHERE k.id = c.issuer_key_id AND k.issuer_id = c.issuer_id)`,
	); err != nil {
		return err
	}
	return f.count(ctx, conn, "%d issuers have more than one current key.", "restore a backup", `
		SELECT count(*) FROM (SELECT 1 FROM issuer_key WHERE current GROUP BY issuer_id HAVING count(*) > 1) AS several`)
}

func checkPartitions(ctx context.Context, conn *pgxpool.Conn, f *findings) error {
	head, err := readHead(ctx, conn)
	if err != nil || head.NewestTime.IsZero() {
		return err
	}
	from, to := pki.BucketOf(head.NewestTime), pki.BucketOf(head.NewestTime.AddDate(partitionYears, 0, 0))
	var missing, inDefault int64
	err = conn.QueryRow(ctx, `
		WITH bounds AS (
			SELECT regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''?(\d+)''?\) TO \(''?(\d+)''?\)') AS b
			FROM pg_inherits i
			JOIN pg_class c ON c.oid = i.inhrelid
			WHERE i.inhparent = 'certificate'::regclass
		)
		SELECT (SELECT count(*) FROM generate_series($1::int, $2::int) AS month
		        WHERE NOT EXISTS (SELECT 1 FROM bounds WHERE b IS NOT NULL AND month >= b[1]::int AND month < b[2]::int)),
		       (SELECT count(*) FROM certificate_default WHERE bucket BETWEEN $1 AND $2)`, from, to).Scan(&missing, &inDefault)
	if err != nil {
		return err
	}
	if missing > 0 {
		f.advice(fmt.Sprintf("%d of the next %d months have no partition of the certificate table; what ends in them goes to the default one.", missing, to-from+1),
			"upgrade certwright and run: certwright store migrate")
	}
	if inDefault > 0 {
		f.advice(fmt.Sprintf("%d certificates that end within %d years are in the default partition and cannot be dropped with their year.", inDefault, partitionYears),
			"move them into a partition of their own")
	}
	return nil
}
