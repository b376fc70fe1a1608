package e2e

import "syscall"

// processAttributes has a process die with the test process, however that ends.
func processAttributes(death syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death}
}
