package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/certwright/certwright/migrations"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

const (
	folder = "postgres" // in package migrations

	// migrateLockTimeout bounds the wait for another migration, and for each table that running servers use. It is short
	// enough that a migration which cannot get its locks does not hold up those who queue behind it for long.
	migrateLockTimeout = 20 * time.Second
)

// Migrate brings the schema up to this program's version and returns the version before and after. The DSN must reach
// the server itself, not a pooler that hands out a connection per transaction, and its user must own the schema. Several
// at once wait for each other. A migration that fails leaves the schema as it was; the error says what failed and how to
// go on. A context that ends stops it between two migrations. Roles that Grant has given rights to get what they lack.
func Migrate(ctx context.Context, dsn string) (from, to uint, err error) {
	return migrateFrom(ctx, dsn, migrations.FS, migrateLockTimeout)
}

// Version returns the schema's version, 0 when there is none. dirty says that a migration to it was broken off; the next
// Migrate mends that.
func Version(ctx context.Context, dsn string) (version uint, dirty bool, err error) {
	c, err := parseDSN(dsn)
	if err != nil {
		return 0, false, err
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return 0, false, fail(err, "connecting to the database")
	}
	defer conn.Close(context.WithoutCancel(ctx))
	version, dirty, err = schemaVersion(ctx, conn)
	return version, dirty, fail(err, "reading the schema's version")
}

func parseDSN(dsn string) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fault.Wrap(fault.BadRequest, err, "the database's address cannot be read").
			WithHint("it looks like postgres://USER:PASSWORD@HOST:5432/DATABASE")
	}
	return c, nil
}

// schemaVersion reads golang-migrate's table; without the table the version is 0.
func schemaVersion(ctx context.Context, q querier) (version uint, dirty bool, err error) {
	var v int64 // golang-migrate writes -1 for "before the first"
	err = q.QueryRow(ctx, `SELECT version, dirty FROM schema_migrations`).Scan(&v, &dirty)
	if isNoRows(err) || isCode(err, codeUndefinedTable) || isCode(err, codeUndefinedSchema) {
		return 0, false, nil
	}
	return uint(max(v, 0)), dirty, err
}

func migrateFrom(ctx context.Context, dsn string, files fs.FS, lockTimeout time.Duration) (from, to uint, err error) {
	latest, err := migrations.Latest(files, folder)
	if err != nil {
		return 0, 0, err
	}
	c, err := parseDSN(dsn)
	if err != nil {
		return 0, 0, err
	}
	c.RuntimeParams["lock_timeout"] = milliseconds(lockTimeout)
	c.RuntimeParams["statement_timeout"] = "0"
	c.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	c.RuntimeParams["synchronous_commit"] = "on"
	c.RuntimeParams["TimeZone"] = "UTC"
	c.RuntimeParams["application_name"] = "certwright store migrate"
	db := stdlib.OpenDB(*c)
	defer db.Close()
	if err := db.PingContext(ctx); err != nil {
		return 0, 0, fail(err, "connecting to the database")
	}

	// A second look at the version, after the lock, is golang-migrate's own.
	driver, err := migratepgx.WithInstance(db, &migratepgx.Config{})
	if err != nil {
		return 0, 0, migrateFault(err, "preparing to migrate")
	}
	defer driver.Close()
	from, err = mend(ctx, db, driver)
	if err != nil {
		return 0, 0, err
	}
	if from > latest {
		return from, from, judgeSchema(from, false, latest)
	}
	if from == latest {
		// A release may need other rights on the same tables.
		if _, err := db.ExecContext(ctx, sqlRegrant); err != nil {
			return from, from, migrateFault(err, "giving the servers' roles their rights")
		}
		return from, from, nil
	}
	source, err := iofs.New(regranting{files}, folder)
	if err != nil {
		return from, from, fmt.Errorf("reading the migrations: %w", err)
	}
	m, err := migrate.NewWithInstance("embedded", source, folder, driver)
	if err != nil {
		return from, from, fmt.Errorf("preparing to migrate: %w", err)
	}
	defer source.Close()
	defer context.AfterFunc(ctx, func() {
		select {
		case m.GracefulStop <- true:
		default:
		}
	})()
	err = m.Up()
	if errors.Is(err, migrate.ErrNoChange) { // another process was faster
		err = nil
	}
	if err != nil {
		// The lock goes with the connection, which sits in the failed transaction and can do nothing else.
		driver.Close()
		db.Close()
		return afterFailure(ctx, dsn, from, err)
	}
	to, dirty, err := Version(context.WithoutCancel(ctx), dsn)
	if err == nil && to < latest {
		err = fault.Wrap(fault.Unavailable, ctx.Err(), "the migration was stopped at version %d of %d", to, latest).
			WithHint("run: certwright store migrate")
	}
	if err == nil {
		err = judgeSchema(to, dirty, to)
	}
	return from, to, err
}

// afterFailure goes over what a failed migration left behind, on a new connection. It returns what Migrate returns.
func afterFailure(ctx context.Context, dsn string, from uint, cause error) (uint, uint, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	failed, _, err := Version(ctx, dsn)
	if err != nil {
		return from, from, fault.Wrap(fault.Unavailable, errors.Join(cause, err), "migrating the database failed, and it cannot be reached any more").
			WithHint("when the database is back, run: certwright store migrate; it begins by mending what was broken off")
	}
	to, err := mendAlone(ctx, dsn)
	if err != nil {
		return from, from, fault.Wrap(fault.Conflict, errors.Join(cause, err, store.ErrSchemaDirty), "migration %d of the database was broken off", failed).
			WithHint("run: certwright store migrate; it begins by mending what was broken off")
	}
	return from, to, migrateFault(cause, fmt.Sprintf("migration %d of the database failed; nothing of it was kept, the schema has version %d", failed, to))
}

// migrateFault adds a hint to what a migration died of.
func migrateFault(err error, what string) error {
	var inner error = err
	if e, ok := errors.AsType[database.Error](err); ok {
		inner = e.OrigErr
	}
	switch {
	case isCode(inner, codeLockTimeout):
		return fault.Wrap(fault.Unavailable, err, "%s: another process holds a lock on it", what).
			WithHint("wait until the other migration or backup has ended, then run: certwright store migrate").WithRetryAfter(retryAfter)
	case isCode(inner, "42501"):
		return fault.Wrap(fault.Forbidden, err, "%s: the user may not do that", what).
			WithHint("run certwright store migrate as the user that owns the database")
	case connectionLost(inner):
		return fault.Wrap(fault.Unavailable, err, "%s: the connection was lost", what).
			WithHint("when the database is back, run: certwright store migrate").WithRetryAfter(retryAfter)
	}
	return fault.Wrap(fault.Conflict, err, "%s", what).
		WithHint("the servers of the release before can go on; when the cause is mended, run: certwright store migrate")
}

// mendAlone is mend on a connection of its own.
func mendAlone(ctx context.Context, dsn string) (uint, error) {
	c, err := parseDSN(dsn)
	if err != nil {
		return 0, err
	}
	c.RuntimeParams["lock_timeout"] = milliseconds(migrateLockTimeout)
	db := stdlib.OpenDB(*c)
	defer db.Close()
	driver, err := migratepgx.WithInstance(db, &migratepgx.Config{})
	if err != nil {
		return 0, err
	}
	defer driver.Close()
	return mend(ctx, db, driver)
}

// mend clears the mark of a migration that was broken off, and returns the version that the schema really has. Every
// migration is one transaction that writes its own number to schema_step, so there is no half: the number is there or it
// is not. The lock makes sure that nobody is still at it.
func mend(ctx context.Context, db *sql.DB, driver database.Driver) (version uint, err error) {
	if err := driver.Lock(); err != nil {
		return 0, migrateFault(err, "waiting for another migration")
	}
	defer func() {
		if e := driver.Unlock(); e != nil && err == nil {
			err = fmt.Errorf("releasing the lock on migrations: %w", e)
		}
	}()
	marked, dirty, err := driver.Version()
	if err != nil {
		return 0, fmt.Errorf("reading the schema's version: %w", err)
	}
	if !dirty {
		return uint(max(marked, 0)), nil
	}
	var done int
	err = db.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_step`).Scan(&done)
	if isCode(err, codeUndefinedTable) { // not even the first one
		done, err = 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading which migrations took effect: %w", err)
	}
	set := done
	if set == 0 {
		set = database.NilVersion
	}
	if err := driver.SetVersion(set, false); err != nil {
		return 0, fmt.Errorf("clearing the mark of a migration that was broken off: %w", err)
	}
	return uint(done), nil
}
