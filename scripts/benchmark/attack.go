package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
		reading.Go(func() {
			buffer := make([]byte, 16<<10)
			for n, err := c.Read(buffer); err == nil; n, err = c.Read(buffer) {
				answered.Add(int64(bytes.Count(buffer[:n], []byte("HTTP/1.1 200 ")))) // all but those that two reads have parts of
			}
		})
		many := bytes.Repeat(r.Get, 64)
		for {
			if _, err := c.Write(many); err != nil {
				break
			}
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
	Window    float64     `json:"window_seconds"`
	Runs      []attackRun `json:"runs"`
}

// attackRun is what honest clients saw while others attacked, and while nobody did, by turns: what the machine does
// meanwhile, such as a pause, meets both alike.
type attackRun struct {
	Attack   string `json:"attack"`
	Rounds   int    `json:"rounds"` // of two windows each
	Answers  int64  `json:"answers"`
	Verified int    `json:"verified"`
	// Latency and Alone are those of all windows with the attack, and of all without.
	Latency map[string]float64 `json:"latency_ms"`
	Alone   map[string]float64 `json:"latency_alone_ms"`
	// Ratio is Latency in multiples of Alone. Range is where nine of ten of p99's ratios are when the rounds are drawn
	// anew (bootstrap): how far chance may have moved it.
	Ratio       map[string]float64 `json:"ratio"`
	Range       [2]float64         `json:"p99_ratio_range"`
	Connections int64              `json:"attackers_connections"`
	Opened      float64            `json:"attackers_opened_per_second"`
	Answered    float64            `json:"attackers_answered_per_second"`
	Server      float64            `json:"machine_used_by_server"`
	Others      float64            `json:"machine_used_by_others"`
	RSS         int64              `json:"rss_bytes"`
}

// Each attack is measured in windows: long enough to be at work, short enough for many.
const (
	attackWindow = time.Second
	attackWarmUp = 300 * time.Millisecond // before each, also for what is left of the attack before
)

// attackWindows measures in windows.
type attackWindows struct {
	o        options
	t        *ocspTarget
	few      *asked
	requests attackRequests
}

func measureAttacks(ctx context.Context, o options) (report *attackReport, err error) {
	report = &attackReport{Machine: thisMachine(), PerSecond: honestPerSecond, Window: attackWindow.Seconds()}
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
	rounds := max(1, int(o.duration/attackWindow))
	fmt.Printf("honest      %d requests a second from %s, GET, %d connections, each for %d requests; all answers must be good\n",
		honestPerSecond, honestSource, honestConnections, honestRenew)
	fmt.Printf("windows     %d for each attack, of %s, and as many without, by turns\n\n", rounds, attackWindow)
	fmt.Printf("%-36s %15s %15s   %s\n", "p50, p99 of honest clients, ms", "alone", "beside", "p50 x, p99 x (nine of ten)")
	w := &attackWindows{o, t, few, attackRequests{Get: few.get(0, 0), Nonce: bytes.Clone(next(0, 0))}}
	for i := range attacks {
		run, err := w.measure(ctx, &attacks[i], rounds)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", attacks[i].Name, err)
		}
		run.print()
		report.Runs = append(report.Runs, *run)
	}
	fmt.Printf("\ngoal        p99 at most %d x\n", goalAttacked)
	return report, nil
}

// measure has honest clients ask beside an attack and without it, by turns.
func (w *attackWindows) measure(ctx context.Context, a *attack, rounds int) (*attackRun, error) {
	run := &attackRun{Attack: a.Name, Rounds: rounds}
	var beside, alone []histogram
	var attacked time.Duration
	for range rounds {
		out, err := w.window(ctx, nil)
		if err != nil {
			return nil, err
		}
		alone = append(alone, out.latency)
		run.Verified += out.checked
		took, out, err := w.attack(ctx, a, run)
		if err != nil {
			return nil, err
		}
		attacked += took
		beside = append(beside, out.latency)
		run.Verified += out.checked
	}
	for _, share := range []*float64{&run.Opened, &run.Answered} {
		*share /= attacked.Seconds()
	}
	run.Server, run.Others = run.Server/float64(rounds), run.Others/float64(rounds)
	run.compare(alone, beside)
	return run, nil
}

// attack has honest clients ask for a window beside an attack, and adds to run what else was seen.
func (w *attackWindows) attack(ctx context.Context, a *attack, run *attackRun) (took time.Duration, out *polled, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.CommandContext(ctx, self, attacking)
	cmd.SysProcAttr = tied()
	log, err := os.OpenFile(filepath.Join(w.o.folder, "attack.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	end := func() error { return errors.Join(in.Close(), cmd.Wait()) }
	// Only what nobody else wants of the processors is the attackers': what others notice of them is the server's doing.
	if err := giveWay(cmd.Process.Pid); err != nil {
		return 0, nil, errors.Join(err, end())
	}
	result := json.NewDecoder(stdout)
	var begun struct{}
	err = json.NewEncoder(in).Encode(attackOrder{a.Name, w.t.address.String(), w.requests})
	if err == nil {
		err = result.Decode(&begun)
	}
	if err != nil {
		return 0, nil, errors.Join(err, end())
	}
	began := time.Now()
	out, err = w.window(ctx, run)
	took = time.Since(began)
	err = errors.Join(err, in.Close())
	var did attackResult
	if err == nil {
		err = result.Decode(&did)
	}
	if err = errors.Join(err, cmd.Wait()); err != nil {
		return 0, nil, err
	}
	run.Connections = did.Open
	run.Opened += float64(did.Opened)
	run.Answered += float64(did.Answered)
	return took, out, nil
}

// window has the honest clients ask. It adds to run, unless that is nil, what the server and others used.
func (w *attackWindows) window(ctx context.Context, run *attackRun) (*polled, error) {
	var edges []usage
	p := &poller{
		address: w.t.address, source: honestSource, next: w.few.get, check: w.few.good, connections: honestConnections,
		warmUp: attackWarmUp, duration: attackWindow, perSecond: honestPerSecond, renew: honestRenew,
		edge: func() error {
			u, err := usageOf(w.t.server.pid(), 0)
			edges = append(edges, u)
			return err
		},
	}
	out, err := p.run(ctx)
	if err != nil || run == nil {
		return out, err
	}
	all := (edges[1].machine.all - edges[0].machine.all).Seconds()
	run.Server += (edges[1].server - edges[0].server).Seconds() / all
	run.Others += edges[0].until(edges[1], max(out.latency.n, 1)).Others
	rss, err := memory(w.t.server.pid(), "VmRSS")
	run.RSS = max(run.RSS, rss)
	return out, err
}

// compare sets what was seen beside an attack against what was seen without.
func (r *attackRun) compare(alone, beside []histogram) {
	sum := func(of []histogram) (all histogram) {
		for i := range of {
			all.merge(&of[i])
		}
		return all
	}
	percentiles := func(h *histogram) map[string]float64 {
		return map[string]float64{
			"p50": milliseconds(h.quantile(0.5)), "p99": milliseconds(h.quantile(0.99)), "p99.9": milliseconds(h.quantile(0.999)),
			"max": milliseconds(h.max),
		}
	}
	without, with := sum(alone), sum(beside)
	r.Answers = with.n
	r.Alone, r.Latency = percentiles(&without), percentiles(&with)
	r.Ratio = map[string]float64{}
	for _, q := range []string{"p50", "p99"} {
		r.Ratio[q] = r.Latency[q] / r.Alone[q]
	}
	const draws = 1000
	ratios := make([]float64, draws)
	for i := range ratios {
		var without, with histogram
		for range alone {
			n := mathrand.IntN(len(alone))
			without.merge(&alone[n])
			with.merge(&beside[n])
		}
		ratios[i] = float64(with.quantile(0.99)) / float64(without.quantile(0.99))
	}
	slices.Sort(ratios)
	r.Range = [2]float64{ratios[draws/20], ratios[draws-draws/20]}
}

func (r *attackRun) print() {
	fmt.Printf("%-36s %7.3f %7.3f %7.3f %7.3f   %.2f, %.2f (%.2f to %.2f)\n%36s %d open, %.0f opened/s, %.0f answers/s; server %.0f %% of the cores, others %.0f %%, %.0f MB\n",
		r.Attack, r.Alone["p50"], r.Alone["p99"], r.Latency["p50"], r.Latency["p99"], r.Ratio["p50"], r.Ratio["p99"], r.Range[0], r.Range[1],
		"", r.Connections, r.Opened, r.Answered, 100*r.Server, 100*r.Others, float64(r.RSS)/1e6)
}
