package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
)

// backupPages is how many pages are copied between two looks at the context: 16 MiB.
const backupPages = 4096

// Backup writes the whole database, as it is at this moment, into a new file of mode 0600, which is one file and needs
// nothing beside it. It works while this process or another writes. The file is looked through before it gets its
// name: when Backup returns nil it is durable, its pages are sound, and its audit chain is whole; otherwise there is no
// such file. Conflict when it exists. progress may be nil.
func (s *Store) Backup(ctx context.Context, path string, progress func(done, total int)) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return errBackupExists(path)
	}
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:8]+".partial")
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	if err == nil {
		err = errors.Join(f.Chmod(0o600), f.Close())
	}
	if err != nil {
		return fault.Wrap(fault.Conflict, err, "the backup cannot be written").WithHint("name a folder that you may write to")
	}
	defer func() {
		for _, end := range []string{"", "-wal", "-shm", "-journal"} {
			_ = os.Remove(temp + end) // what is left after a failure
		}
	}()
	if err := s.copyPages(ctx, temp, progress); err != nil {
		return s.asFault(ctx, err, "copying the database")
	}
	if err := examine(ctx, temp); err != nil {
		return s.asFault(ctx, err, "looking through the backup")
	}
	if err := publish(temp, path); err != nil {
		return fault.Wrap(fault.Conflict, err, "the backup cannot be written")
	}
	return nil
}

func errBackupExists(path string) error {
	return fault.New(fault.Conflict, "%s exists already", path).WithHint("name a file that does not exist")
}

// backer is a connection of the driver that can copy its database.
type backer interface {
	NewBackup(to string) (*sqlite.Backup, error)
}

// copyPages copies the database page by page under one read transaction, so that no writer makes it begin anew.
func (s *Store) copyPages(ctx context.Context, to string, progress func(done, total int)) error {
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, `BEGIN`); err != nil {
		return err
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`)
	var change int64
	if err := conn.QueryRowContext(ctx, `SELECT change FROM head WHERE strand = 0`).Scan(&change); err != nil { // takes the snapshot
		return err
	}
	return conn.Raw(func(dc any) error {
		source, ok := dc.(backer)
		if !ok {
			return errors.New("the driver makes no backups")
		}
		b, err := source.NewBackup(plain(to))
		if err != nil {
			return err
		}
		for more := true; more && err == nil; {
			if more, err = b.Step(backupPages); err == nil {
				err = ctx.Err()
			}
			if err == nil && progress != nil {
				progress(b.PageCount()-b.Remaining(), b.PageCount())
			}
		}
		return errors.Join(err, b.Finish())
	})
}

// plain names a database without any settings.
func plain(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path}).String()
}

// examine looks through a copy, and makes it one file.
func examine(ctx context.Context, path string) (err error) {
	db, err := sql.Open("sqlite", plain(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	bad := func(what string) error {
		return fault.New(fault.Conflict, "the backup is damaged, and so is the store: %s", what).
			WithHint("run: certwright store check")
	}
	for _, p := range []struct{ query, good string }{
		{`PRAGMA journal_mode = DELETE`, "delete"}, // the log beside the file is folded into it and goes
		{`PRAGMA integrity_check(1)`, "ok"},
		{`SELECT count(*) FROM pragma_foreign_key_check`, "0"},
	} {
		var line string
		if err := db.QueryRowContext(ctx, p.query).Scan(&line); err != nil {
			return err
		}
		if line != p.good {
			return bad(line)
		}
	}
	copied := &Store{path: path, read: db}
	head, err := readHead(db.QueryRowContext(ctx, selectHead).Scan)
	if err != nil {
		return err
	}
	var v audit.Verifier
	for b, err := range copied.AuditChain(ctx) {
		if err != nil {
			return err
		}
		if err := v.Add(b.Batch, b.Records); err != nil {
			return bad(err.Error())
		}
	}
	if v.Change != head.Change || v.Head != head.Hash || v.Records != head.AuditSeq {
		return bad(fmt.Sprintf("the audit chain ends at change %d, the head is of change %d", v.Change, head.Change))
	}
	return nil
}

// publish gives a file that is complete its name, durably, and never in place of another.
func publish(temp, path string) error {
	f, err := os.OpenFile(temp, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	switch err := os.Link(temp, path); {
	case errors.Is(err, fs.ErrExist):
		return errBackupExists(path)
	case err != nil: // file systems for exchange have no links
		if err := os.Rename(temp, path); err != nil {
			return err
		}
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
