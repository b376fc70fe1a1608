package server

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
	"github.com/certwright/certwright/pkg/store/sqlite"
)

// storeWait is how long a start waits for a database that does not answer: containers of one stack start together.
const storeWait = 60 * time.Second

func nowUTC() time.Time { return time.Now().UTC() }

// openStore opens the store of the settings, brought up to date if they say so. It waits for a database that does not
// answer as long as wait says.
func openStore(ctx context.Context, cfg *config.Config, log *slog.Logger, wait time.Duration) (store.Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.Database == "" {
		if err := prepareData(cfg.Data); err != nil {
			return nil, err
		}
		path := filepath.Join(cfg.Data, storeFile)
		if *cfg.Migrate {
			if _, _, err := sqlite.Migrate(ctx, path); err != nil {
				return nil, err
			}
		}
		return asStore(sqlite.Open(ctx, sqlite.Config{Path: path, Logger: log}))
	}
	deadline := time.Now().Add(wait)
	for {
		s, err := openPostgres(ctx, cfg, log)
		if err == nil || !fault.Is(err, fault.Unavailable) || time.Now().After(deadline) || ctx.Err() != nil {
			return asStore(s, err)
		}
		log.Warn("waiting for the database", "err", err)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(2 * time.Second):
		}
	}
}

func openPostgres(ctx context.Context, cfg *config.Config, log *slog.Logger) (*postgres.Store, error) {
	if *cfg.Migrate {
		from, to, err := postgres.Migrate(ctx, cfg.Database)
		if err != nil {
			return nil, err
		}
		if from != to {
			log.Info("the database's schema was brought up to date", "from", from, "to", to)
		}
	}
	return postgres.Open(ctx, postgres.Config{DSN: cfg.Database, Logger: log})
}

// asStore keeps a nil pointer from becoming an interface that is not nil.
func asStore[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// MigrateStore brings the store's schema up to date and returns the versions before and after.
func MigrateStore(ctx context.Context, cfg config.Config) (from, to uint, err error) {
	if cfg.Database != "" {
		return postgres.Migrate(ctx, cfg.Database)
	}
	if err := prepareData(cfg.Data); err != nil {
		return 0, 0, err
	}
	return sqlite.Migrate(ctx, filepath.Join(cfg.Data, storeFile))
}
