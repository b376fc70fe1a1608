package main

import (
	"os"
	"runtime"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const line = "4242 (postgres: (a) b) S 17 4242 4242 0 -1 4194560 100 200 0 0 12 3 400 5 20 0 1 0 99 1000 50"
	got, err := parseStat([]byte(line))
	want := stat{pid: 4242, parent: 17, own: 150 * time.Millisecond, reaped: 4050 * time.Millisecond}
	if err != nil || got != want {
		t.Errorf("parseStat(%q) = %+v, %v; want %+v", line, got, err, want)
	}
	for _, bad := range []string{"", "x", "1 (a", "1 (a) S 2 3", "x (a) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "1 (a) S 1 1 1 1 1 1 1 1 1 1 x 1 1 1 1"} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestTreeCPU(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no /proc")
	}
	for began := time.Now(); time.Since(began) < 50*time.Millisecond; {
	}
	own, err := treeCPU(os.Getpid())
	if err != nil || own <= 0 {
		t.Errorf("CPU time of this process = %s, %v; want some", own, err)
	}
	if _, err := treeCPU(1 << 30); err == nil {
		t.Error("a process that does not exist has a CPU time")
	}
	if rss, err := memory(os.Getpid(), "VmRSS"); err != nil || rss < 1<<20 {
		t.Errorf("memory of this process = %d, %v; want more than a MiB", rss, err)
	}
	if c, err := coreTimes(); err != nil || c.all <= c.idle {
		t.Errorf("CPU times of the machine = %+v, %v", c, err)
	}
}
