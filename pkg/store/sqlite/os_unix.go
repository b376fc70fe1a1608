//go:build linux || darwin

package sqlite

import (
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/certwright/certwright/pkg/fault"
)

// noFollow refuses a symbolic link in place of a file.
const noFollow = syscall.O_NOFOLLOW

// lockWait is how long lockFile waits. A child of the process that had the store keeps the lock from its fork to its exec,
// although the store is closed.
const lockWait = time.Second

// lockFile takes the lock that says "this process has the store". The kernel gives it back when the process ends,
// however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the lock beside the database cannot be opened")
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(lockWait / 50) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(end) {
			break
		}
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return nil, fault.New(fault.Conflict, "another process has the database open").
			WithHint("ask the running server through its REST API, or stop it; for several servers use Postgres")
	}
	if err != nil {
		f.Close()
		return nil, fault.Wrap(fault.Unavailable, err, "the lock beside the database cannot be taken").
			WithHint("the data folder must be on a local file system")
	}
	return f, nil
}

// freeSpace returns how many octets the file system of path can still take.
func freeSpace(path string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
