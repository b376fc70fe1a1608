//go:build unix

package export

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockExclusively waits until no other process has the file locked. Closing the file ends the lock.
func lockExclusively(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}
