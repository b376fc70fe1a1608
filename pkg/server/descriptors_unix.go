//go:build unix

package server

import (
	"math"

	"golang.org/x/sys/unix"
)

// maxDescriptors returns how many files and connections this process may have open. The runtime has raised the soft limit
// to the hard one.
func maxDescriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // the customary least
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}
