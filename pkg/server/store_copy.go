package server

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
	"github.com/certwright/certwright/pkg/store/sqlite"
	"github.com/certwright/certwright/pkg/transfer"
)

// AtStore returns the settings with another store in them: a Postgres connection string, or a data folder.
func AtStore(cfg config.Config, where string) (config.Config, error) {
	if strings.HasPrefix(where, "postgres://") || strings.HasPrefix(where, "postgresql://") || strings.Contains(where, "=") {
		cfg.Database = where
		return cfg, nil
	}
	folder, err := filepath.Abs(where)
	if err != nil {
		return cfg, err
	}
	if info, err := os.Stat(folder); err == nil && !info.IsDir() {
		return cfg, fault.New(fault.BadRequest, "%s is a file", where).WithHint("name the data folder that holds the store, or a postgres:// address")
	}
	cfg.Data, cfg.Database = folder, ""
	return cfg, nil
}

// StoreName tells people which store the settings name, without a password. It is what AtStore takes, but for user and
// password.
func StoreName(cfg config.Config) string {
	if cfg.Database != "" {
		return postgres.Name(cfg.Database)
	}
	return cfg.Data
}

// storeThere refuses a data folder without a store, so that none is made by looking for one.
func storeThere(cfg *config.Config) error {
	if cfg.Database != "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, storeFile)); errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "there is no store in %s", cfg.Data).WithHint("«certwright serve» makes one; name another folder with --data")
	}
	return nil
}

// openMovable opens a store for a copy, in use or not, after its schema was brought up to date.
func openMovable(ctx context.Context, cfg *config.Config) (store.Movable, error) {
	if cfg.Database != "" {
		if _, _, err := postgres.Migrate(ctx, cfg.Database); err != nil {
			return nil, err
		}
		return asMovable(postgres.Open(ctx, postgres.Config{DSN: cfg.Database, ApplicationName: "certwright-host", Closed: true}))
	}
	if err := prepareData(cfg.Data); err != nil {
		return nil, err
	}
	path := filepath.Join(cfg.Data, storeFile)
	if _, _, err := sqlite.Migrate(ctx, path); err != nil {
		return nil, err
	}
	return asMovable(sqlite.Open(ctx, sqlite.Config{Path: path, Closed: true}))
}

func asMovable[S store.Movable](s S, err error) (store.Movable, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// openToRead opens a store as it is, in use or not: the embedded one also beside a server that has it.
func openToRead(ctx context.Context, cfg *config.Config) (store.Movable, error) {
	if err := storeThere(cfg); err != nil {
		return nil, err
	}
	if cfg.Database != "" {
		return asMovable(postgres.Open(ctx, postgres.Config{DSN: cfg.Database, ApplicationName: "certwright-host", Closed: true}))
	}
	return asMovable(sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(cfg.Data, storeFile), ReadOnly: true}))
}

// CopyStore copies the store of one configuration into that of another; see transfer.Copy.
func CopyStore(ctx context.Context, from, to config.Config, progress func(transfer.Step)) (result transfer.CopyResult, err error) {
	if err := storeThere(&from); err != nil {
		return result, err
	}
	if StoreName(from) == StoreName(to) {
		return result, fault.New(fault.BadRequest, "the store cannot be copied into itself")
	}
	source, err := openMovable(ctx, &from)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target, err := openMovable(ctx, &to)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	return transfer.Copy(ctx, transfer.CopyConfig{
		From: source, To: target, FromName: StoreName(from), ToName: StoreName(to), Now: nowUTC, Progress: progress,
	})
}

// StoreState tells what the store of the settings may be used for.
func StoreState(ctx context.Context, cfg config.Config) (store.State, error) {
	s, err := openToRead(ctx, &cfg)
	if err != nil {
		return store.State{}, err
	}
	defer s.Close()
	return s.State(ctx)
}

// UnfenceStore gives a copy up and puts its source back into use; see transfer.Unfence.
func UnfenceStore(ctx context.Context, cfg config.Config, force bool) (err error) {
	if err := storeThere(&cfg); err != nil {
		return err
	}
	s, err := openMovable(ctx, &cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return transfer.Unfence(ctx, s, force, nowUTC())
}

// VerifyAudit walks the audit chain of the settings' store; see transfer.VerifyChain.
func VerifyAudit(ctx context.Context, cfg config.Config, checkpoints []transfer.Checkpoint) (transfer.Verification, error) {
	s, err := openToRead(ctx, &cfg)
	if err != nil {
		return transfer.Verification{}, err
	}
	defer s.Close()
	return transfer.VerifyChain(ctx, s, checkpoints...)
}

// GrantStore gives a Postgres role what servers need, and nothing else. It returns the statements; with dry set they are
// not executed.
func GrantStore(ctx context.Context, cfg config.Config, role string, dry bool) ([]string, error) {
	if cfg.Database == "" {
		return nil, fault.New(fault.BadRequest, "the embedded store has no roles: its file belongs to one user").
			WithHint("name a Postgres database, as its owner, with --database")
	}
	return postgres.Grant(ctx, cfg.Database, role, dry)
}
