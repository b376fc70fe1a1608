package keys

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrUnsafeFile says that others can read or replace a file, or that it is
// not a regular file; the message says what to change.
var ErrUnsafeFile = errors.New("unsafe file")

// WriteFile writes a secret to a file of mode 0600, durable on return: file
// and folder are synced. Without overwrite an existing path of any kind is
// fs.ErrExist. With it the new file replaces the old one in one step, and a
// reader sees either; a path that is no regular file (a symbolic link, a
// device) is ErrUnsafeFile.
//
// ErrUnsafeFile is also the answer to a folder that group or others can write
// to, unless it is sticky as /tmp, and to a world-writable one above it. On
// systems without Unix rights only the kind of file is checked.
func WriteFile(path string, data []byte, overwrite bool) error {
	dir := filepath.Dir(path)
	if err := checkFolder(dir); err != nil {
		return err
	}
	if !overwrite {
		if err := writeNew(path, data); err != nil {
			return err
		}
		return syncFolder(dir)
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s is not a regular file", ErrUnsafeFile, path)
	}
	temp := filepath.Join(dir, "."+filepath.Base(path)+"."+rand.Text())
	if err := writeNew(temp, data); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return syncFolder(dir)
}

// writeNew writes and syncs a file that must not exist, and removes it again
// if that fails.
func writeNew(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	if err := f.Chmod(0o600); err != nil && unixRights { // whatever the umask
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// readFile reads a regular file of at most limit octets. With a check it does
// not follow a symbolic link, and runs the check on the opened file.
func readFile(path string, limit int64, check func(path string, info fs.FileInfo) error) ([]byte, error) {
	flags := os.O_RDONLY | nonBlock // do not wait for the writer of a FIFO
	if check != nil {
		flags |= noFollow
	}
	f, err := os.OpenFile(path, flags, 0)
	if isLinkError(err) {
		return nil, fmt.Errorf("%w: %s is a symbolic link", ErrUnsafeFile, path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrUnsafeFile, path)
	}
	if check != nil {
		if err := check(path, info); err != nil {
			return nil, err
		}
	}
	// One buffer, one more octet than allowed: growing would leave copies.
	data := make([]byte, min(info.Size(), limit)+1)
	n, err := io.ReadFull(f, data)
	switch {
	case err == nil:
		clear(data)
		return nil, fmt.Errorf("%s is longer than %d octets, or it grows", path, limit)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return data[:n], nil
	}
	clear(data)
	return nil, err
}

// checkKeyFile allows a file to its owner only, who must be us.
func checkKeyFile(path string, info fs.FileInfo) error {
	if !unixRights {
		return nil
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%w: %s has mode %04o, make it 0600", ErrUnsafeFile, path, mode)
	}
	if owner := ownerOf(info); owner != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %d instead of %d", ErrUnsafeFile, path, owner, os.Geteuid())
	}
	return nil
}

// checkCredential allows what systemd makes: owner root or us, access by ACL,
// which the mode shows as rights of the group.
func checkCredential(path string, info fs.FileInfo) error {
	if !unixRights {
		return nil
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return fmt.Errorf("%w: %s has mode %04o, make it 0400", ErrUnsafeFile, path, mode)
	}
	if owner := ownerOf(info); owner != 0 && owner != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %d instead of %d", ErrUnsafeFile, path, owner, os.Geteuid())
	}
	return nil
}

// checkFolder refuses a folder in which others could replace a file. Folders
// above it may be writable for a group, as is usual where each user has one
// of his own (umask 002).
func checkFolder(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return err
	}
	forbidden := fs.FileMode(0o022)
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%w: %s is not a folder", ErrUnsafeFile, dir)
		}
		if unixRights && info.Mode()&forbidden != 0 && info.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("%w: others can write to folder %s (mode %04o), take that right away",
				ErrUnsafeFile, dir, info.Mode().Perm())
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir, forbidden = parent, 0o002
	}
}
