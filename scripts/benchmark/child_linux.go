package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// tied returns attributes that have a child end when this process does, however that happens.
func tied() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// adopt makes this process the parent of its descendants whose own parent has ended, so that end can wait for them.
func adopt() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// end ends a process that was adopted, or has ended already.
func end(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	_, _ = unix.Wait4(pid, nil, 0, nil)
}

// giveWay leaves the processors to whoever else wants them, of all threads of a process. Those that come later take after
// the one that makes them.
func giveWay(pid int) error {
	return schedule(pid, func(a *unix.SchedAttr) {
		// Who is only nice still has a processor for as long as a slice of time lasts, and others wait for that.
		a.Policy, a.Priority, a.Nice = unix.SCHED_IDLE, 0, 0
	})
}

// goFirst takes the processors before the server does, as if this program had processors of its own. If that is not allowed,
// nothing changes.
func goFirst() error {
	err := schedule(os.Getpid(), func(a *unix.SchedAttr) {
		if a.Policy == unix.SCHED_NORMAL {
			a.Nice = -10
		} else {
			a.Priority++
		}
	})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil
	}
	return err
}

// schedule changes how all threads of a process are scheduled (sched_setattr(2)).
func schedule(pid int, change func(*unix.SchedAttr)) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		a, err := unix.SchedGetAttr(id, 0)
		if err == nil {
			change(a)
			err = unix.SchedSetAttr(id, a, 0)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("scheduling a process: %w", err)
		}
	}
	return nil
}
