//go:build unix

package keys

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

const (
	unixRights = true
	noFollow   = syscall.O_NOFOLLOW
	nonBlock   = syscall.O_NONBLOCK
)

// isLinkError tells whether open refused a symbolic link: ELOOP by POSIX,
// EMLINK on FreeBSD.
func isLinkError(err error) bool {
	return errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EMLINK)
}

// ownerOf returns the user id, or -1 if the system does not tell.
func ownerOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}

// syncFolder makes the names in a folder durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
