package main

import "golang.org/x/sys/unix"

// hardenProcess keeps private keys out of core dumps and out of the reach of other processes of the same user. Both fail
// only where the kernel forbids them; the server serves all the same.
func hardenProcess() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
