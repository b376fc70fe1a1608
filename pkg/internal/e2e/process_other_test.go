//go:build !linux

package e2e

import "syscall"

// processAttributes has nothing to offer here: a killed test process leaves its servers behind.
func processAttributes(syscall.Signal) *syscall.SysProcAttr { return nil }
