package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What honest clients do while others attack: as many requests a second whatever happens, which is far below what the
// server can, on connections of which each is used for a few requests.
const (
	honestPerSecond   = 1000
	honestConnections = 16
	honestRenew       = 16
	goalAttacked      = 2 // times p99 of when nobody attacks
)

// Where honest clients and attackers are in the loopback network.
var honestSource = netip.AddrFrom4([4]byte{127, 0, 7, 7})

// attack is what one kind of attackers does. Each connection is opened anew when it has ended.
type attack struct {
	Name        string
	Connections int
	Sources     int
	// on is what is done with one connection, until it ends. It counts requests that were answered.
	on func(ctx context.Context, c net.Conn, r *attackRequests, answered *atomic.Int64)
}

// attackRequests are requests as the server likes them, for floods.
type attackRequests struct {
	Get   []byte `json:"get"`
	Nonce []byte `json:"nonce"`
}

var attacks = []attack{
	{"silent connections", 10_000, 10, func(_ context.Context, c net.Conn, _ *attackRequests, _ *atomic.Int64) {
		_, _ = io.Copy(io.Discard, c)
	}},
	{"an octet a second", 2000, 10, func(ctx context.Context, c net.Conn, r *attackRequests, _ *atomic.Int64) {
		second := time.NewTicker(time.Second)
		defer second.Stop()
		for _, octet := range r.Get {
			if _, err := c.Write([]byte{octet}); err != nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-second.C:
			}
		}
	}},
	{"endless heads", 64, 1, func(_ context.Context, c net.Conn, r *attackRequests, _ *atomic.Int64) {
		line := []byte("A: " + strings.Repeat("b", 1000) + "\r\n")
		_, err := c.Write(r.Get[:len(r.Get)-2])
		for err == nil {
			_, err = c.Write(line)
		}
	}},
	{"garbage", 64, 1, func(_ context.Context, c net.Conn, _ *attackRequests, _ *atomic.Int64) {
		b := make([]byte, 5000)
		_, _ = rand.Read(b)
		for i, start := range []string{"GET /ocsp/", "POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n"} {
			if int(b[0])%3 == i {
				copy(b, start)
			}
		}
		_, _ = c.Write(b)
		_, _ = io.Copy(io.Discard, c)
	}},
	{"flood of GET, one source", 64, 1, func(_ context.Context, c net.Conn, r *attackRequests, answered *atomic.Int64) {
		flood(c, r.Get, answered)
	}},
	{"flood of POST with a nonce, one source", 64, 1, func(_ context.Context, c net.Conn, r *attackRequests, answered *atomic.Int64) {
		flood(c, r.Nonce, answered)
	}},
	{"flood of pipelined GET, one source", 64, 1, func(_ context.Context, c net.Conn, r *attackRequests, answered *atomic.Int64) {
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(io.Discard, c) })
		many := bytes.Repeat(r.Get, 64)
		for {
			if _, err := c.Write(many); err != nil {
				break
			}
			answered.Add(64)
		}
		reading.Wait()
	}},
	{"flood of other documents, one source", 64, 1, func(_ context.Context, c net.Conn, r *attackRequests, answered *atomic.Int64) {
		flood(c, []byte("GET /roots.pem HTTP/1.1\r\nHost: x\r\n\r\n"), answered)
	}},
	{"flood of connections, one source", 64, 1, func(_ context.Context, c net.Conn, r *attackRequests, answered *atomic.Int64) {
		if once(c, r.Get, make([]byte, 16<<10)) {
			answered.Add(1)
		}
	}},
}

// once sends a request and reads an answer, which is shorter than a buffer.
func once(c net.Conn, request, buffer []byte) bool {
	if _, err := c.Write(request); err != nil {
		return false
	}
	_, err := c.Read(buffer)
	return err == nil
}

func flood(c net.Conn, request []byte, answered *atomic.Int64) {
	buffer := make([]byte, 16<<10)
	for once(c, request, buffer) {
		answered.Add(1)
	}
}

// attacking is the command line of the process that attacks, so that it can be made to give way to everybody else.
const attacking = "attack"

// attackOrder is what the process that attacks reads, and attackResult what it writes in the end.
type (
	attackOrder struct {
		Name     string         `json:"name"`
		Address  string         `json:"address"`
		Requests attackRequests `json:"requests"`
	}
	attackResult struct {
		Open     int64 `json:"open"`     // connections
		Opened   int64 `json:"opened"`   // connections, in all
		Answered int64 `json:"answered"` // requests
	}
)

// doAttack attacks until its standard input ends.
func doAttack() error {
	in := json.NewDecoder(os.Stdin)
	var order attackOrder
	if err := in.Decode(&order); err != nil {
		return err
	}
	for _, a := range attacks {
		if a.Name == order.Name {
			return a.do(&order)
		}
	}
	return fmt.Errorf("there is no attack called %q", order.Name)
}

func (a *attack) do(order *attackOrder) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var open, opened, answered atomic.Int64
	var all sync.WaitGroup
	full := make(chan struct{}) // closed when all have connected once
	var first atomic.Int64
	for i := range a.Connections {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%a.Sources))}, Timeout: requestTimeout}
		all.Go(func() {
			for again := false; ctx.Err() == nil; again = true {
				c, err := dialer.DialContext(ctx, "tcp", order.Address)
				if !again && first.Add(1) == int64(a.Connections) {
					close(full)
				}
				if err != nil {
					time.Sleep(time.Millisecond)
					continue
				}
				opened.Add(1)
				open.Add(1)
				_ = c.(*net.TCPConn).SetLinger(0) // else the addresses run out
				done := context.AfterFunc(ctx, func() { _ = c.Close() })
				a.on(ctx, c, &order.Requests, &answered)
				done()
				_ = c.Close()
				open.Add(-1)
			}
		})
	}
	<-full
	if _, err := fmt.Println("{}"); err != nil { // it has begun
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	result := attackResult{Open: open.Load(), Opened: opened.Load(), Answered: answered.Load()}
	stop()
	all.Wait()
	return json.NewEncoder(os.Stdout).Encode(result)
}

// attackReport is everything that «ocsp --attack» measures.
type attackReport struct {
	Machine   machine     `json:"machine"`
	PerSecond int         `json:"honest_per_second"`
	Runs      []attackRun `json:"runs"`
}

// attackRun is what honest clients saw while others attacked.
type attackRun struct {
	Attack   string             `json:"attack"` // empty: none
	Answers  int64              `json:"answers"`
	Verified int                `json:"verified"`
	Latency  map[string]float64 `json:"latency_ms"`
	// Ratio is p50 and p99 as multiples of those without an attack, before and after this one.
	Ratio       map[string]float64 `json:"ratio"`
	Connections int64              `json:"attackers_connections"`
	Opened      float64            `json:"attackers_opened_per_second"`
	Answered    float64            `json:"attackers_answered_per_second"`
	Server      float64            `json:"machine_used_by_server"`
	Others      float64            `json:"machine_used_by_others"`
	RSS         int64              `json:"rss_bytes"`
}

func measureAttacks(ctx context.Context, o options) (report *attackReport, err error) {
	report = &attackReport{Machine: thisMachine(), PerSecond: honestPerSecond}
	m := report.Machine
	fmt.Printf("machine     %d CPUs (%s), Linux %s, %s\n", m.CPUs, m.Model, m.Kernel, m.Go)
	t, err := startOCSP(ctx, o, kept)
	if err != nil {
		return nil, err
	}
	defer func() { err = t.end(err) }()
	if err := goFirst(); err != nil {
		return nil, err
	}
	few, err := ask(t.issuer, t.serials[:kept], "/ocsp/")
	if err != nil {
		return nil, err
	}
	next, _, err := few.withNonces(1)
	if err != nil {
		return nil, err
	}
	requests := attackRequests{Get: few.get(0, 0), Nonce: bytes.Clone(next(0, 0))}
	fmt.Printf("honest      %d requests a second from %s, GET, %d connections, each for %d requests; all answers must be good\n\n",
		honestPerSecond, honestSource, honestConnections, honestRenew)
	fmt.Printf("%-40s %9s %9s   %-13s %s\n", "", "p50 ms", "p99 ms", "ratios", "attackers")
	quiet := func() error {
		run, err := report.run(ctx, o, t, few)
		if err == nil {
			run.print()
			report.Runs = append(report.Runs, *run)
		}
		return err
	}
	if err := quiet(); err != nil {
		return nil, err
	}
	for i := range attacks {
		if err := report.attack(ctx, o, t, few, &attacks[i], requests); err != nil {
			return nil, fmt.Errorf("%s: %w", attacks[i].Name, err)
		}
		if err := quiet(); err != nil {
			return nil, err
		}
		n := len(report.Runs)
		report.Runs[n-2].compare(&report.Runs[n-3], &report.Runs[n-1])
	}
	fmt.Println()
	for _, run := range report.Runs {
		if run.Attack != "" {
			fmt.Printf("%-40s p50 %5.2f x, p99 %5.2f x, goal %d x\n", run.Attack, run.Ratio["p50"], run.Ratio["p99"], goalAttacked)
		}
	}
	return report, nil
}

// attack has honest clients ask beside an attack.
func (r *attackReport) attack(ctx context.Context, o options, t *ocspTarget, few *asked, a *attack, requests attackRequests) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, attacking)
	cmd.SysProcAttr = tied()
	log, err := os.Create(filepath.Join(o.folder, "attack.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	end := func() error { return errors.Join(in.Close(), cmd.Wait()) }
	// Only what nobody else wants of the processors is the attackers': what others notice of them is the server's doing.
	if err := giveWay(cmd.Process.Pid); err != nil {
		return errors.Join(err, end())
	}
	out := json.NewDecoder(stdout)
	var begun struct{}
	err = json.NewEncoder(in).Encode(attackOrder{a.Name, t.address.String(), requests})
	if err == nil {
		err = out.Decode(&begun)
	}
	if err != nil {
		return errors.Join(err, end())
	}
	began := time.Now()
	run, err := r.run(ctx, o, t, few)
	seconds := time.Since(began).Seconds()
	err = errors.Join(err, in.Close())
	var result attackResult
	if err == nil {
		err = out.Decode(&result)
	}
	if err = errors.Join(err, cmd.Wait()); err != nil {
		return err
	}
	run.Attack, run.Connections = a.Name, result.Open
	run.Opened, run.Answered = float64(result.Opened)/seconds, float64(result.Answered)/seconds
	run.print()
	r.Runs = append(r.Runs, *run)
	return nil
}

// run has the honest clients ask.
func (r *attackReport) run(ctx context.Context, o options, t *ocspTarget, few *asked) (*attackRun, error) {
	var edges []usage
	p := &poller{
		address: t.address, source: honestSource, next: few.get, check: few.good, connections: honestConnections, duration: o.duration,
		perSecond: honestPerSecond, renew: honestRenew,
		edge: func() error {
			u, err := usageOf(t.server.pid(), 0)
			edges = append(edges, u)
			return err
		},
	}
	out, err := p.run(ctx)
	if err != nil {
		return nil, err
	}
	run := &attackRun{Answers: out.latency.n, Verified: out.checked, Latency: map[string]float64{"max": milliseconds(out.latency.max)}}
	for name, q := range map[string]float64{"p50": 0.5, "p99": 0.99, "p99.9": 0.999} {
		run.Latency[name] = milliseconds(out.latency.quantile(q))
	}
	all := (edges[1].machine.all - edges[0].machine.all).Seconds()
	run.Server = (edges[1].server - edges[0].server).Seconds() / all
	run.Others = edges[0].until(edges[1], max(run.Answers, 1)).Others
	run.RSS, err = memory(t.server.pid(), "VmRSS")
	return run, err
}

func (r *attackRun) print() {
	name := r.Attack
	if name == "" {
		name = "nobody attacks"
	}
	fmt.Printf("%-40s %9.3f %9.3f   max %-8.2f", name, r.Latency["p50"], r.Latency["p99"], r.Latency["max"])
	if r.Attack != "" {
		fmt.Printf("%d open, %.0f opened/s, %.0f answers/s;", r.Connections, r.Opened, r.Answered)
	}
	fmt.Printf(" server %.0f %% of the cores, others %.0f %%, %.0f MB\n", 100*r.Server, 100*r.Others, float64(r.RSS)/1e6)
}

// compare sets what was seen during an attack against before and after.
func (r *attackRun) compare(before, after *attackRun) {
	r.Ratio = map[string]float64{}
	for _, q := range []string{"p50", "p99"} {
		r.Ratio[q] = 2 * r.Latency[q] / (before.Latency[q] + after.Latency[q])
	}
}
