package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/golang-migrate/migrate/v4"
	migratesqlite "github.com/golang-migrate/migrate/v4/database/sqlite"
	"github.com/golang-migrate/migrate/v4/source/iofs"

	"github.com/certwright/certwright/migrations"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// folder is where this store's migrations are.
const folder = "sqlite"

func errNoSchema() error {
	return fault.Wrap(fault.Conflict, store.ErrSchemaOld, "the database has no Certwright schema").WithHint("run: certwright store migrate")
}

// Migrate makes the database if there is none, brings its schema to this program's version, and returns the versions
// before and after; 0 is an empty database. A file that fails changes nothing, and a migration that was cut off is taken
// up again. It is a Conflict while another process has the database open, or when its schema is newer (store.ErrSchemaNew).
func Migrate(ctx context.Context, path string) (from, to uint, err error) {
	return migrateFS(ctx, path, migrations.FS)
}

func migrateFS(ctx context.Context, path string, files fs.FS) (from, to uint, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, fault.Wrap(fault.Unavailable, err, "the migration was cancelled before it began")
	}
	latest, err := migrations.Latest(files, folder)
	if err != nil {
		return 0, 0, fmt.Errorf("reading the migrations: %w", err)
	}
	lock, err := lockDatabase(path)
	if err != nil {
		return 0, 0, err
	}
	defer lock.Close()
	db, err := sql.Open("sqlite", dsn(path, writerCacheKiB))
	if err != nil {
		return 0, 0, fmt.Errorf("opening the database: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if err := checkSettings(ctx, db); err != nil {
		return 0, 0, classifyOpen(err, path)
	}
	done, err := took(ctx, db)
	if err != nil {
		return 0, 0, classifyOpen(err, path)
	}
	if done > latest {
		return done, done, errNewer(done, latest)
	}
	if done == latest {
		// Every start comes here, also one on a full disk: nothing is written when there is nothing to do.
		if _, dirty, err := readVersion(ctx, db); err == nil && !dirty {
			return done, done, nil
		}
	}
	source, err := iofs.New(files, folder)
	if err != nil {
		return done, done, fmt.Errorf("reading the migrations: %w", err)
	}
	driver, err := migratesqlite.WithInstance(db, &migratesqlite.Config{})
	if err != nil {
		return done, done, classify(err, path, "preparing the migration")
	}
	m, err := migrate.NewWithInstance("iofs", source, "sqlite", driver)
	if err != nil {
		return done, done, fmt.Errorf("preparing the migration: %w", err)
	}
	from = done
	// Each file is one transaction that writes its number to user_version. Whatever happened to the last migration, that
	// number says which files took effect, and golang-migrate's own note is put right before it is used.
	if err := m.Force(noted(done)); err != nil {
		return from, done, classify(err, path, "noting the schema version")
	}
	for done < latest {
		if err := ctx.Err(); err != nil {
			return from, done, fault.Wrap(fault.Unavailable, err, "the migration was cancelled after version %d", done).WithHint("run: certwright store migrate")
		}
		stepErr := m.Steps(1)
		now, err := took(ctx, db)
		if err != nil {
			return from, done, classify(errors.Join(stepErr, err), path, "reading the schema version")
		}
		if stepErr != nil || now == done {
			forceErr := m.Force(noted(now))
			failed := errors.Join(stepErr, forceErr)
			if failed == nil {
				failed = fmt.Errorf("the file does not set user_version")
			}
			f := fault.Wrap(fault.Internal, failed, "migration %d of the database failed; its schema is version %d as before", done+1, now)
			if fault.Is(classify(stepErr, path, ""), fault.Unavailable) {
				f = fault.Wrap(fault.Unavailable, failed, "migration %d of the database failed; its schema is version %d as before", done+1, now)
			}
			return from, now, f.WithHint("nothing was changed; remove the cause that the log names and run: certwright store migrate")
		}
		done = now
	}
	return from, done, nil
}

// noted is a version in golang-migrate's form.
func noted(version uint) int {
	if version == 0 {
		return -1
	}
	return int(version)
}

// took returns the number of the newest migration that took effect.
func took(ctx context.Context, q querier) (uint, error) {
	var version int64
	if err := q.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return 0, err
	}
	if version < 0 {
		return 0, fault.New(fault.Conflict, "this is not a database of Certwright")
	}
	return uint(version), nil
}

// Version returns the version of the database's schema, 0 when there is no database or an empty one, and whether a
// migration was cut off. It takes no lock.
func Version(ctx context.Context, path string) (version uint, dirty bool, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	db, err := sql.Open("sqlite", dsn(path, 1024, "query_only(ON)"))
	if err != nil {
		return 0, false, fmt.Errorf("opening the database: %w", err)
	}
	defer db.Close()
	version, dirty, err = readVersion(ctx, db)
	if err != nil {
		return 0, false, classifyOpen(err, path)
	}
	return version, dirty, nil
}

func readVersion(ctx context.Context, q querier) (version uint, dirty bool, err error) {
	if version, err = took(ctx, q); err != nil {
		return 0, false, err
	}
	var tables int
	if err := q.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'`).Scan(&tables); err != nil || tables == 0 {
		return version, false, err
	}
	err = q.QueryRowContext(ctx, `SELECT dirty FROM schema_migrations LIMIT 1`).Scan(&dirty)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return version, dirty, err
}

// checkSchema refuses a schema that is not this program's.
func checkSchema(ctx context.Context, q querier) error {
	want, err := migrations.Latest(migrations.FS, folder)
	if err != nil {
		return err
	}
	have, dirty, err := readVersion(ctx, q)
	switch {
	case err != nil:
		return err
	case dirty:
		return fault.Wrap(fault.Conflict, store.ErrSchemaDirty, "a migration of the database was cut off after version %d", have).WithHint("run: certwright store migrate")
	case have == 0:
		return errNoSchema()
	case have < want:
		return fault.Wrap(fault.Conflict, store.ErrSchemaOld, "the database has schema version %d, this program needs %d", have, want).WithHint("run: certwright store migrate")
	case have > want:
		return errNewer(have, want)
	}
	return nil
}

func errNewer(have, want uint) error {
	return fault.Wrap(fault.Conflict, store.ErrSchemaNew, "the database has schema version %d, this program knows %d", have, want).
		WithHint("run the newer certwright that migrated it, or restore a backup from before")
}
