package postgres

import (
	"context"

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
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return nil, fail(err, "granting rights")
		}
	}
	return statements, fail(tx.Commit(ctx), "granting rights")
}
