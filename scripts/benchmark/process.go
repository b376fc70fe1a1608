package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of CPU times in /proc: the kernel has told programs 100 Hz since long ago, whatever it uses itself.
const tick = 10 * time.Millisecond

// stat is what is used of /proc/PID/stat (proc(5)).
type stat struct {
	pid, parent int
	own         time.Duration // user and system
	reaped      time.Duration // of children that have ended, and theirs
}

func parseStat(line []byte) (s stat, err error) {
	// The program's name is in parentheses, and may hold any character.
	end := bytes.LastIndexByte(line, ')')
	if end < 0 {
		return s, errors.New("no name in stat")
	}
	if s.pid, err = strconv.Atoi(string(line[:max(bytes.IndexByte(line, ' '), 0)])); err != nil {
		return s, fmt.Errorf("stat: %w", err)
	}
	fields := strings.Fields(string(line[end+1:])) // from field 3, state
	if len(fields) < 15 {
		return s, fmt.Errorf("stat has %d fields after the name", len(fields))
	}
	number := func(field int) int64 {
		n, e := strconv.ParseInt(fields[field-3], 10, 64)
		err = errors.Join(err, e)
		return n
	}
	s.parent = int(number(4))
	s.own = time.Duration(number(14)+number(15)) * tick
	s.reaped = time.Duration(number(16)+number(17)) * tick
	return s, err
}

// treeCPU returns the CPU time of a process, its descendants, and those of them that have ended and been waited for.
func treeCPU(root int) (time.Duration, error) {
	tree, err := processTree(root)
	if err != nil {
		return 0, err
	}
	sum := time.Duration(0)
	for _, s := range tree {
		sum += s.own + s.reaped
	}
	return sum, nil
}

// processTree returns a process and its descendants.
func processTree(root int) ([]stat, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children, found := make(map[int][]stat), []stat(nil)
	for _, f := range files {
		line, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended since
		}
		if err != nil {
			return nil, err
		}
		s, err := parseStat(line)
		if err != nil {
			return nil, err
		}
		if s.pid == root {
			found = append(found, s)
		}
		children[s.parent] = append(children[s.parent], s)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is no process %d", root)
	}
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}
	return found, nil
}

// ownCPU returns this process's CPU time.
func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return cpuOf(&u), nil
}

func cpuOf(u *syscall.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memory returns a figure of /proc/PID/status, as VmRSS, in bytes.
func memory(pid int, key string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, key)
}

// cores is how the machine's CPUs have spent their time.
type cores struct {
	all, idle, stolen time.Duration
}

func coreTimes() (c cores, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return c, err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(first)
	if len(fields) < 9 || fields[0] != "cpu" {
		return c, fmt.Errorf("/proc/stat begins with %q", first)
	}
	// user, nice, system, idle, iowait, irq, softirq, steal; what follows is within user and nice.
	for i, f := range fields[1:9] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return c, fmt.Errorf("/proc/stat: %w", err)
		}
		d := time.Duration(n) * tick
		c.all += d
		switch i {
		case 3, 4:
			c.idle += d
		case 7:
			c.stolen += d
		}
	}
	return c, nil
}
