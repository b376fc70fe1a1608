package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// print tells of a run.
func (r *issueRun) print(o options) {
	name := r.Server + ", " + r.Store
	fmt.Printf("\n== %s: %.0f certificates/s (%d connections, %s, %.1f s)\n", name, r.PerSecond, o.connections, o.key, r.Seconds)
	checked := fmt.Sprintf("%d, all 201; %d verified", r.All, r.Verified)
	if r.Rows > 0 {
		checked += fmt.Sprintf("; %d rows in the store, the same", r.Rows)
	}
	fmt.Printf("answers     %s\n", checked)
	r.printLatency()
	c := r.CPU
	fmt.Printf("CPU         server %.3f + database %.3f = %.3f ms a certificate (generator %.3f)\n", c.Server, c.Database, c.Together, c.Generator)
	fmt.Printf("            %.2f x floor: here %.1f us for checking a CSR + %.1f us for signing\n", c.PerFloor, c.Floor.CheckCSR, c.Floor.Sign)
	if goal, ok := goals[r.Store]; ok && r.Server == "certwright" && o.key == keyP256 {
		fmt.Printf("            %.2f x the goal of %.2f ms, %.2f x the hardware's %.2f ms; in floors %.2f x the goal of %.2f\n",
			c.Together/goal, goal, c.Together/hardware, hardware, c.PerFloor/(goal/reference.sum()), goal/reference.sum())
	}
	r.printCores()
	if s := r.Starts; s.Second == 0 {
		fmt.Printf("start       %.0f ms\n", s.First)
	} else {
		fmt.Printf("start       first %.0f ms, second %.0f ms, with the %d certificates %.0f ms\n", s.First, s.Second, r.All, s.Full)
	}
	r.printMemory()
}

func (r *issueRun) printLatency() {
	fmt.Printf("latency     ")
	for _, q := range []string{"p50", "p90", "p99", "p99.9", "max"} {
		fmt.Printf("%s %.1f   ", q, r.Latency[q])
	}
	fmt.Println("ms")
}

func (r *issueRun) printCores() {
	c := r.CPU
	fmt.Printf("cores       %.0f %% this run, %.0f %% others, %.0f %% stolen\n", 100*c.Used, 100*c.Others, 100*c.Stolen)
}

func (r *issueRun) printMemory() {
	fmt.Printf("memory      idle %.1f MB, at most %.1f MB\n", float64(r.IdleRSS)/1e6, float64(r.PeakRSS)/1e6)
}

// compare tells how the last run, a peer's, stands to ours.
func (r *issueReport) compare() {
	peer := r.Runs[len(r.Runs)-1]
	fmt.Println()
	for _, ours := range r.Runs[:len(r.Runs)-1] {
		fmt.Printf("certwright, %s : %s, %s   requests/s %.1f x, CPU %.2f x, p99 %.2f x, idle memory %.2f x\n",
			ours.Store, peer.Server, peer.Store, ours.PerSecond/peer.PerSecond, ours.CPU.Together/peer.CPU.Together,
			ours.Latency["p99"]/peer.Latency["p99"], float64(ours.IdleRSS)/float64(peer.IdleRSS))
	}
}

// startPerf has perf sample the server, and the database if there is one, until stopPerf.
func startPerf(file string, pid, postmaster int) (*process, error) {
	perf, err := exec.LookPath("perf")
	if err != nil {
		return nil, fmt.Errorf("a profile takes perf (Debian: apt-get install linux-perf): %w", err)
	}
	pids := []string{strconv.Itoa(pid)}
	if postmaster != 0 {
		tree, err := processTree(postmaster)
		if err != nil {
			return nil, err
		}
		for _, s := range tree {
			pids = append(pids, strconv.Itoa(s.pid))
		}
	}
	return startProcess(file+".log", os.Environ(), perf, "record", "-F", "499", "-g", "-o", file, "-p", strings.Join(pids, ","))
}

func (p *process) stopPerf() error {
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return p.failure(fmt.Errorf("perf: %w", err))
	}
	<-p.done // which it calls a failure, being interrupted
	return nil
}
