package export

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/pkg/fault"
)

// Names in a folder that are ours and none of the files. Web servers pass over what begins with a dot.
const (
	lockName   = ".certwright-export.lock"
	tempPrefix = ".certwright-"
	tempSuffix = ".tmp"
)

// leftover is how old a temporary file is that a process has left which did not come to its end.
const leftover = time.Hour

// Folder is a folder of the file system. Files and folders below it can be read by everybody.
type Folder struct {
	path string
	root *os.Root // nothing in the folder, such as a symbolic link, leads out of it

	mu    sync.Mutex
	swept map[string]bool // guarded by mu: folders in which leftovers were looked for
}

// NewFolder opens a folder, and makes it if it is not there.
func NewFolder(path string) (*Folder, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fault.Wrap(fault.Conflict, err, "the folder %s cannot be made: %v", path, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fault.Wrap(fault.Conflict, err, "the folder %s cannot be used: %v", path, err)
	}
	return &Folder{path: path, root: root, swept: map[string]bool{}}, nil
}

// String returns the path.
func (d *Folder) String() string { return d.path }

// Close gives the folder back.
func (d *Folder) Close() error { return d.root.Close() }

// Put implements Target. A file gets its name when it is complete and on the disk. Exporters of several processes take
// turns.
func (d *Folder) Put(_ context.Context, f File) (Outcome, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lock, err := d.root.OpenFile(lockName, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return 0, fmt.Errorf("taking the folder's lock: %w", err)
	}
	defer lock.Close()
	if err := lockExclusively(lock); err != nil {
		return 0, fmt.Errorf("taking the folder's lock: %w", err)
	}

	there, err := d.root.ReadFile(f.Name)
	switch {
	case err == nil && bytes.Equal(there, f.Content):
		return Unchanged, nil
	case err == nil && numbersOf(f.Content).olderThan(numbersOf(there)):
		return Kept, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return 0, err
	}
	dir := path.Dir(f.Name)
	if err := d.root.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	d.sweep(dir)
	temp := path.Join(dir, tempPrefix+rand.Text()+tempSuffix)
	if err := d.write(temp, f); err != nil {
		_ = d.root.Remove(temp)
		return 0, err
	}
	if err := d.root.Rename(temp, f.Name); err != nil {
		_ = d.root.Remove(temp)
		return 0, err
	}
	// The names of a new folder are durable when the folder above is, too.
	for at := dir; ; at = path.Dir(at) {
		if err := d.sync(at); err != nil {
			return 0, err
		}
		if at == "." {
			return Written, nil
		}
	}
}

func (d *Folder) write(name string, f File) error {
	out, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = out.Write(f.Content)
	// Whatever the umask says: what is exported is public.
	err = errors.Join(err, out.Chmod(0o644), out.Sync(), out.Close())
	if err == nil && !f.LastModified.IsZero() {
		// Static web servers tell it, and make entity tags of it.
		err = d.root.Chtimes(name, f.LastModified, f.LastModified)
	}
	return err
}

func (d *Folder) sync(dir string) error {
	f, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// sweep removes, once, the temporary files that were left behind.
func (d *Folder) sweep(dir string) {
	if d.swept[dir] {
		return
	}
	d.swept[dir] = true
	f, err := d.root.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	for {
		// What cannot be read or removed does no harm.
		entries, err := f.ReadDir(1000)
		for _, e := range entries {
			info, err := e.Info()
			if err == nil && strings.HasPrefix(e.Name(), tempPrefix) && strings.HasSuffix(e.Name(), tempSuffix) &&
				info.Mode().IsRegular() && time.Since(info.ModTime()) > leftover {
				_ = d.root.Remove(path.Join(dir, e.Name()))
			}
		}
		if err != nil || len(entries) == 0 {
			return
		}
	}
}
