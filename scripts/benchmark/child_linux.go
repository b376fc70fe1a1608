package main

import "syscall"

// tied returns attributes that have a child end when this process does, however that happens.
func tied() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
