package postgres

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/certwright/certwright/pkg/fault"
)

// Two roles are supported: one that owns the schema, migrates and copies, and one that the servers run as. The second
// adds to the audit tables and to the history of statuses, and can neither change nor delete there what stands.

// rights are what the servers' role may do with each table, and nothing else. Holding a row (FOR UPDATE) takes the right
// to update some column of it.
var rights = []struct{ table, privileges string }{
	{"schema_migrations", "SELECT"},
	{"schema_step", "SELECT"},
	{"store_state", "SELECT"},
	{"head", "SELECT, UPDATE"},
	{"audit_batch", "SELECT, INSERT"},
	{"audit_record", "SELECT, INSERT"},
	{"issuer", "SELECT, INSERT, UPDATE"},
	{"issuer_key", "SELECT, INSERT, UPDATE"},
	{"issuer_certificate", "SELECT, INSERT, UPDATE"},
	{"issuer_settings", "SELECT, INSERT"},
	{"crl_address", "SELECT, INSERT, UPDATE"},
	{"sealed_key", "SELECT, INSERT, UPDATE"},
	{"kek", "SELECT, INSERT, UPDATE"},
	{"blocked_key", "SELECT, INSERT, UPDATE, DELETE"},
	{"campaign", "SELECT, INSERT, UPDATE"},
	{"profile", "SELECT, INSERT"},
	{"api_token", "SELECT, INSERT, UPDATE"},
	{"certificate", "SELECT, INSERT, UPDATE (search_text)"}, // held while its status changes, or a successor is issued
	{"certificate_default", "SELECT"},                       // Check looks at it
	{"idempotency", "SELECT, INSERT, UPDATE, DELETE"},
	{"revocation", "SELECT, INSERT, UPDATE, DELETE"},
	{"status_event", "SELECT, INSERT"},
	{"crl", "SELECT, INSERT, DELETE"},
	{"sealed_secret", "SELECT, INSERT, UPDATE, DELETE"},
	{"ra_certificate", "SELECT, INSERT"},
	{"enrollment_point", "SELECT, INSERT"},
	{"challenge", "SELECT, INSERT, UPDATE"},
	{"enrollment", "SELECT, INSERT, UPDATE, DELETE"},
	{"notification", "SELECT, INSERT, UPDATE, DELETE"},
	{"device", "SELECT, INSERT, UPDATE"},
	{"refusal", "SELECT, INSERT, UPDATE, DELETE"},
	{"crl_part", "SELECT, INSERT, DELETE"},
	{"lease", "SELECT, INSERT, UPDATE"},
}

// Postgres itself keeps which roles servers run as: those that were given the right to add to the audit trail and to move
// the head. A migration gives them, in its own transaction, what the new schema needs, so that nobody has to think of it
// before the servers of the new release start. It takes nothing away: servers of the release before are still running.

// sqlWanted are the tables that are there, with what servers may do with them.
var sqlWanted = func() string {
	var rows []string
	for _, r := range rights {
		for privilege := range strings.SplitSeq(r.privileges, ", ") {
			privilege, column, _ := strings.Cut(strings.TrimSuffix(privilege, ")"), " (")
			rows = append(rows, fmt.Sprintf("('%s', '%s', '%s')", r.table, privilege, column))
		}
	}
	return `
		SELECT c.oid, c.relowner, n.nspname, c.relname, w.privilege, w.col,
		       w.privilege || CASE WHEN w.col <> '' THEN ' (' || quote_ident(w.col) || ')' ELSE '' END AS what
		FROM (VALUES ` + strings.Join(rows, ", ") + `) AS w (name, privilege, col)
		JOIN pg_class c ON c.oid = to_regclass(w.name)
		JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE w.col = '' OR EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = w.col AND NOT a.attisdropped)`
}()

// sqlLacking are the rights that servers' roles lack.
var sqlLacking = `
	WITH wanted AS (` + sqlWanted + `
	), server AS (
		SELECT r.oid, r.rolname FROM pg_roles r
		WHERE NOT r.rolsuper AND 2 = (
			SELECT count(DISTINCT c.oid) FROM pg_class c, aclexplode(c.relacl) a
			WHERE (c.oid, a.privilege_type) IN ((to_regclass('audit_batch'), 'INSERT'), (to_regclass('head'), 'UPDATE'))
			  AND a.grantee = r.oid AND a.grantee <> c.relowner)
	)
	SELECT s.rolname, w.nspname, w.relname, w.what, w.relowner
	FROM server s, wanted w
	WHERE NOT has_table_privilege(s.oid, w.oid, w.privilege)
	  AND NOT CASE WHEN w.col <> '' THEN has_column_privilege(s.oid, w.oid, w.col, w.privilege) ELSE false END`

// sqlRegrant gives servers' roles what they lack of the tables that the user owns. Several at once would fail over each
// other's changes of one table: they take turns.
var sqlRegrant = `
DO $certwright$
DECLARE lacking record;
BEGIN
	PERFORM ` + sqlGrantTurn + `;
	FOR lacking IN ` + sqlLacking + ` AND pg_has_role(w.relowner, 'USAGE') LOOP
		EXECUTE format('GRANT %s ON %I.%I TO %I', lacking.what, lacking.nspname, lacking.relname, lacking.rolname);
	END LOOP;
END
$certwright$;
`

// sqlGrantTurn waits for others who change rights. The number is «certgran» in octets.
const sqlGrantTurn = `pg_advisory_xact_lock(7162256626679964014)`

// regranting has each migration give the servers' roles their rights before it commits.
type regranting struct{ fs.FS }

// Open implements fs.FS.
func (r regranting) Open(name string) (fs.File, error) {
	f, err := r.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".up.sql") {
		return f, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	if at := bytes.LastIndex(b, []byte("COMMIT;")); at >= 0 {
		b = append(append(append([]byte{}, b[:at]...), sqlRegrant...), b[at:]...)
	}
	return &textFile{bytes.NewReader(b), info}, nil
}

// textFile is a file in memory. Its size is told wrong, which nobody asks for.
type textFile struct {
	*bytes.Reader
	info fs.FileInfo
}

// Stat implements fs.File.
func (f *textFile) Stat() (fs.FileInfo, error) { return f.info, nil }

// Close implements fs.File.
func (f *textFile) Close() error { return nil }

// judgeRights refuses a server's role that lacks rights: it would fail later, in the middle of something.
func judgeRights(ctx context.Context, q querier) error {
	var role, lacks string
	err := q.QueryRow(ctx, `
		WITH wanted AS (`+sqlWanted+`
		)
		SELECT current_user, coalesce(string_agg(w.what || ' on ' || w.relname, ', ' ORDER BY w.relname, w.what), '')
		FROM wanted w
		WHERE has_table_privilege(to_regclass('audit_batch'), 'INSERT') AND NOT has_table_privilege(w.oid, w.privilege)
		  AND NOT CASE WHEN w.col <> '' THEN has_column_privilege(w.oid, w.col, w.privilege) ELSE false END`).Scan(&role, &lacks)
	if err != nil || lacks == "" {
		return fail(err, "looking at the role's rights")
	}
	return fault.New(fault.Forbidden, "the database's role %q lacks rights that this release needs: %s", role, lacks).
		WithHint("as the owner of the tables, run: certwright store migrate")
}

// GrantStatements returns the statements that give a role what servers need, and take from it what they do not. schema
// is the one that holds the tables.
func GrantStatements(schema, role string) []string {
	in, to := quoted(schema), quoted(role)
	list := []string{
		`REVOKE ALL ON ALL TABLES IN SCHEMA ` + in + ` FROM ` + to,
		`GRANT USAGE ON SCHEMA ` + in + ` TO ` + to,
	}
	for _, r := range rights {
		list = append(list, `GRANT `+r.privileges+` ON `+in+`.`+quoted(r.table)+` TO `+to)
	}
	return list
}

// Grant gives a role that exists what servers need, and takes from it what they do not, all or nothing. It returns the
// statements. dsn must be the owner's. With dry set nothing is executed.
func Grant(ctx context.Context, dsn, role string, dry bool) ([]string, error) {
	c, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	if role == "" || role == c.User {
		return nil, fault.New(fault.BadRequest, "the servers' role must be another than the owner, who needs no rights").
			WithHint("CREATE ROLE certwright_server LOGIN; and name that one")
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, fail(err, "connecting to the database")
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var schema string
	var exists, powerful bool
	err = conn.QueryRow(ctx, `
		SELECT coalesce((SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass('audit_record')), ''),
		       EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1),
		       EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1 AND rolsuper)
		       OR EXISTS (SELECT 1 FROM pg_class c, pg_roles r WHERE c.oid = to_regclass('audit_record') AND r.rolname = $1 AND pg_has_role(r.oid, c.relowner, 'MEMBER'))`,
		role).Scan(&schema, &exists, &powerful)
	switch {
	case err != nil:
		return nil, fail(err, "looking at the roles")
	case schema == "":
		return nil, judgeSchema(0, false, 1)
	case !exists:
		return nil, fault.New(fault.NotFound, "there is no role %q", role).WithHint("create it first: CREATE ROLE %s LOGIN;", quoted(role))
	case powerful:
		return nil, fault.New(fault.Conflict, "the role %q is a superuser, or may act as the owner of the tables: rights cannot limit it", role).
			WithHint("create another: CREATE ROLE certwright_server LOGIN;")
	}
	statements := GrantStatements(schema, role)
	if dry {
		return statements, nil
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, fail(err, "granting rights")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for _, statement := range append([]string{`SELECT ` + sqlGrantTurn}, statements...) {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return nil, fail(err, "granting rights")
		}
	}
	return statements, fail(tx.Commit(ctx), "granting rights")
}
