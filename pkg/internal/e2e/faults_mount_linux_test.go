package e2e

import "syscall"

func mountTmpfs(dir, options string) error { return syscall.Mount("tmpfs", dir, "tmpfs", 0, options) }

func unmount(dir string) error { return syscall.Unmount(dir, syscall.MNT_DETACH) }
