package sqlite

import (
	"context"
	"errors"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

// retryAfter is what callers are told when the store is away for a while.
const retryAfter = 2 * time.Second

// errClosed is what every verb returns after Close.
func errClosed() error {
	return fault.New(fault.Unavailable, "the store is closed").WithRetryAfter(retryAfter)
}

// errNotInUse refuses a change to a store that is not in use.
func errNotInUse() error {
	return fault.Wrap(fault.Unavailable, store.ErrNotInUse, "the store is fenced: nothing is written to it any more").WithRetryAfter(retryAfter)
}

// code returns SQLite's primary and extended result codes of err, or zeros.
func code(err error) (primary, extended int) {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff, e.Code()
	}
	return 0, 0
}

// isDiskTrouble says that an error is about the disk, or about locks, and hence not one operation's fault.
func isDiskTrouble(err error) bool {
	switch primary, _ := code(err); primary {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN,
		sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_NOMEM:
		return true
	}
	return false
}

// asFault classifies what the database said. doing is in the form "reading the head", for the log.
func (s *Store) asFault(ctx context.Context, err error, doing string) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if ctx.Err() != nil {
		return fault.Wrap(fault.Unavailable, ctx.Err(), "the request ended before it was answered")
	}
	if s.closed.Load() {
		return errClosed()
	}
	return classify(err, s.path, doing)
}

// classify is asFault without a store.
func classify(err error, path, doing string) error {
	primary, extended := code(err)
	if primary == sqlite3.SQLITE_IOERR {
		// A full disk does not always say so: growing the index of the log, or an fsync, fails as an I/O error.
		if n, statErr := freeSpace(path); statErr == nil && n < 1<<20 {
			primary = sqlite3.SQLITE_FULL
		}
	}
	switch primary {
	case sqlite3.SQLITE_FULL:
		return fault.Wrap(fault.Unavailable, err, "the disk that holds the database is full").
			WithHint("free some space on it; nothing has been lost, and the server goes on by itself").WithRetryAfter(30 * time.Second)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL:
		return fault.Wrap(fault.Unavailable, err, "the database is locked by another program").WithRetryAfter(retryAfter)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fault.Wrap(fault.Internal, err, "the database file is damaged, or is no SQLite database").
			WithHint("stop the server, keep the file and its -wal as they are, and restore the newest backup")
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY:
		f := fault.Wrap(fault.Unavailable, err, "the database file cannot be read or written").WithRetryAfter(retryAfter)
		if extended == sqlite3.SQLITE_IOERR_CORRUPTFS {
			f = f.WithHint("the file system is damaged; restore the newest backup on another disk")
		}
		return f
	}
	return fault.Wrap(fault.Internal, err, "%s", doing)
}
