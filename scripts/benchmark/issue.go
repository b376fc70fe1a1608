package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	profileName  = "server"
	certificates = "/api/v1/certificates"
	idleWait     = 4 * time.Second
)

// goals are the CPU times of a certificate, server and database together, in milliseconds, that we want to reach for keys
// of P-256, on a machine whose floor is that of reference. hardware is what signatures and one durable commit take.
var goals = map[string]float64{"sqlite": 0.25, "postgres": 0.26}

const hardware = 0.16

var reference = floor{CheckCSR: 76, Sign: 33}

// issueReport is everything that «issue» measures.
type issueReport struct {
	Machine     machine    `json:"machine"`
	BinaryBytes int64      `json:"binary_bytes"`
	Key         string     `json:"key"`
	Connections int        `json:"connections"`
	Runs        []issueRun `json:"runs"`
}

// issueRun is one server under load.
type issueRun struct {
	Server  string  `json:"server"`
	Store   string  `json:"store"`
	Seconds float64 `json:"seconds"`
	// Answers of the measured phase, all of them 201.
	Answers   int64   `json:"answers"`
	PerSecond float64 `json:"per_second"`
	// All counts the warm-up too; Rows of them were listed in the end, Verified were looked at in full.
	All      int                `json:"all"`
	Rows     int                `json:"rows,omitempty"`
	Verified int                `json:"verified"`
	Latency  map[string]float64 `json:"latency_ms"`
	CPU      cpuReport          `json:"cpu"`
	Starts   *startReport       `json:"starts"`
	IdleRSS  int64              `json:"idle_rss_bytes"`
	PeakRSS  int64              `json:"peak_rss_bytes"`
}

// cpuReport is in milliseconds for each certificate, save Floor and the shares of the machine's time.
type cpuReport struct {
	Server    float64 `json:"server_ms"`
	Database  float64 `json:"database_ms"`
	Together  float64 `json:"together_ms"`
	Generator float64 `json:"generator_ms"`
	Floor     floor   `json:"floor"`
	// PerFloor is Together as a multiple of the floor.
	PerFloor float64 `json:"per_floor"`
	Used     float64 `json:"machine_used_by_run"`
	Others   float64 `json:"machine_used_by_others"`
	Stolen   float64 `json:"machine_stolen"`
}

// startReport is the time from exec to the first answer, in milliseconds.
type startReport struct {
	First  float64 `json:"first_ms"`            // everything is set up
	Second float64 `json:"second_ms,omitempty"` // with an empty store
	Full   float64 `json:"full_ms,omitempty"`   // with all the certificates of the run
}

func issue(ctx context.Context, o options) (*issueReport, error) {
	info, err := os.Stat(o.server)
	if err != nil {
		return nil, err
	}
	report := &issueReport{Machine: thisMachine(), BinaryBytes: info.Size(), Key: o.key, Connections: o.connections}
	m := report.Machine
	fmt.Printf("machine     %d CPUs (%s), Linux %s, %s\n", m.CPUs, m.Model, m.Kernel, m.Go)
	fmt.Printf("binary      %.1f MB\n", float64(info.Size())/1e6)
	requests, err := issueRequests(o)
	if err != nil {
		return nil, fmt.Errorf("making CSRs: %w", err)
	}
	for _, store := range o.stores {
		run, err := issueOurs(ctx, o, store, requests)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", store, err)
		}
		run.print(o)
		report.Runs = append(report.Runs, *run)
	}
	if o.stepCA != "" {
		run, err := issueStepCA(ctx, o, requests)
		if err != nil {
			return nil, fmt.Errorf("step-ca: %w", err)
		}
		run.print(o)
		report.Runs = append(report.Runs, *run)
		report.compare()
	}
	return report, nil
}

// issueRequests makes as many CSRs as a fast machine uses up. RSA's are dear: they are used again when all are done.
func issueRequests(o options) ([]request, error) {
	n := int((warmUp + o.duration).Seconds() * 4000)
	if o.key == keyRSA2048 {
		n = min(n, 8000)
	}
	n = max(min(n, 200_000), o.connections)
	fmt.Printf("requests    %d CSRs of %d keys, %s\n", n, distinctKeys, o.key)
	requests, err := makeRequests(n, o.key, "h")
	if err != nil {
		return nil, err
	}
	for i := range requests {
		r := &requests[i]
		if r.body, err = json.Marshal(map[string]string{"csr": r.pem(), "profile": profileName}); err != nil {
			return nil, err
		}
	}
	return requests, nil
}

func issueOurs(ctx context.Context, o options, store string, requests []request) (run *issueRun, err error) {
	database, postmaster := "", 0
	if store == "postgres" {
		database, postmaster = o.database, o.postmaster
	}
	data := filepath.Join(o.folder, store)
	starts := &startReport{}
	start := func(took *float64) (*server, error) {
		s, d, err := startServer(ctx, o.server, data, database)
		*took = milliseconds(d)
		return s, err
	}
	s, err := start(&starts.First)
	if err != nil {
		return nil, err
	}
	if err := s.stop(); err != nil {
		return nil, err
	}
	if s, err = start(&starts.Second); err != nil {
		return nil, err
	}
	defer func() {
		if s != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	l := &load{
		url: s.url + certificates, headers: "Authorization: Bearer " + s.token + "\r\n", roots: s.roots,
		requests: requests, clients: o.connections, duration: o.duration, identify: identifyOurs,
	}
	run, out, err := measure(ctx, l, l.requests[0].floor, s.pid(), postmaster, o.profile)
	if err != nil {
		return nil, s.failure(err)
	}
	run.Server, run.Store, run.Starts = "certwright", store, starts

	for _, sample := range out.samples {
		if err := verifyOurs(sample, s.roots); err != nil {
			return nil, fmt.Errorf("certificate for %s: %w", sample.request.name, err)
		}
	}
	listed, err := s.list(ctx, profileName)
	if err != nil {
		return nil, fmt.Errorf("listing: %w", err)
	}
	if err := sameIDs(out.ids, listed); err != nil {
		return nil, err
	}
	run.Rows = len(listed)
	if err := s.stop(); err != nil {
		return nil, err
	}
	s, err = start(&starts.Full)
	return run, err
}

// measure puts a server under load and says what it cost, beside a floor that is measured before and after.
func measure(ctx context.Context, l *load, measureFloor func() (floor, error), pid, postmaster int, profile string) (*issueRun, *outcome, error) {
	select {
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-time.After(idleWait):
	}
	run := &issueRun{}
	var err error
	if run.IdleRSS, err = memory(pid, "VmRSS"); err != nil {
		return nil, nil, err
	}
	before, err := measureFloor()
	if err != nil {
		return nil, nil, err
	}
	var edges []usage
	var perf *process
	l.edge = func() error {
		u, err := usageOf(pid, postmaster)
		if edges = append(edges, u); err != nil || profile == "" {
			return err
		}
		if len(edges) == 1 {
			perf, err = startPerf(profile, pid, postmaster)
			return err
		}
		return perf.stopPerf()
	}
	out, err := l.run(ctx)
	if err != nil {
		return nil, nil, err
	}
	after, err := measureFloor()
	if err != nil {
		return nil, nil, err
	}
	if run.PeakRSS, err = memory(pid, "VmHWM"); err != nil {
		return nil, nil, err
	}
	if slices.Sort(out.ids); len(slices.Compact(slices.Clone(out.ids))) != len(out.ids) {
		return nil, nil, errors.New("two answers name the same certificate")
	}
	run.All, run.Verified = len(out.ids), len(out.samples)
	run.Answers, run.Seconds = out.latency.n, out.took.Seconds()
	run.PerSecond = float64(run.Answers) / run.Seconds
	run.Latency = map[string]float64{"max": milliseconds(out.latency.max)}
	for name, q := range map[string]float64{"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999} {
		run.Latency[name] = milliseconds(out.latency.quantile(q))
	}
	if run.Answers == 0 {
		return nil, nil, errors.New("nothing was answered in time")
	}
	run.CPU = edges[0].until(edges[1], run.Answers)
	run.CPU.Floor = before.mean(after)
	run.CPU.PerFloor = run.CPU.Together / run.CPU.Floor.sum()
	if out.rounds > 1 {
		fmt.Printf("note        CSRs ran out and were used again: %d times at most\n", out.rounds)
	}
	return run, out, nil
}

// usage is CPU time spent so far.
type usage struct {
	server, database, generator time.Duration
	machine                     cores
}

func usageOf(pid, postmaster int) (u usage, err error) {
	if u.server, err = treeCPU(pid); err != nil {
		return u, err
	}
	if postmaster != 0 {
		if u.database, err = treeCPU(postmaster); err != nil {
			return u, err
		}
	}
	if u.generator, err = ownCPU(); err != nil {
		return u, err
	}
	u.machine, err = coreTimes()
	return u, err
}

// until returns what was spent from u to v for each of n certificates.
func (u usage) until(v usage, n int64) cpuReport {
	each := func(d time.Duration) float64 { return milliseconds(d) / float64(n) }
	r := cpuReport{Server: each(v.server - u.server), Database: each(v.database - u.database), Generator: each(v.generator - u.generator)}
	r.Together = r.Server + r.Database
	all := (v.machine.all - u.machine.all).Seconds()
	stolen := (v.machine.stolen - u.machine.stolen).Seconds()
	ours := (v.server - u.server + v.database - u.database + v.generator - u.generator).Seconds()
	busy := all - (v.machine.idle - u.machine.idle).Seconds()
	r.Used, r.Stolen = ours/all, stolen/all
	r.Others = max((busy-stolen-ours)/all, 0)
	return r
}

// identifyOurs takes the id from the Location of the new certificate.
func identifyOurs(_ *request, header http.Header, _ []byte) (string, error) {
	location := header.Get("Location")
	id, ok := strings.CutPrefix(location, certificates+"/")
	if !ok || len(id) != 2*sha256.Size {
		return "", fmt.Errorf("the Location is %q", location)
	}
	return id, nil
}

// verifyOurs looks at a certificate as a client would who trusts nobody.
func verifyOurs(s sample, roots *x509.CertPool) error {
	var answer struct {
		ID          string `json:"id"`
		Serial      string `json:"serial"`
		Status      string `json:"status"`
		Certificate string `json:"certificate"`
		Chain       string `json:"chain"`
	}
	if err := json.Unmarshal(s.body, &answer); err != nil {
		return err
	}
	c, err := verifyCertificate(s.request, answer.Certificate, answer.Chain, roots)
	if err != nil {
		return err
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(c.Raw)); answer.ID != got {
		return fmt.Errorf("its id is %s, its fingerprint %s", answer.ID, got)
	}
	serial := hex.EncodeToString(c.SerialNumber.Bytes())
	if !strings.EqualFold(strings.TrimLeft(answer.Serial, "0"), strings.TrimLeft(serial, "0")) {
		return fmt.Errorf("its serial number is %s, and %s in the answer", serial, answer.Serial)
	}
	if !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) || len(c.UnknownExtKeyUsage) > 0 {
		return fmt.Errorf("its purposes are %v %v", c.ExtKeyUsage, c.UnknownExtKeyUsage)
	}
	if answer.Status != "valid" {
		return fmt.Errorf("its status is %q", answer.Status)
	}
	return nil
}

// verifyCertificate checks that a certificate is what the request asked for, under a root.
func verifyCertificate(r *request, leaf, chain string, roots *x509.CertPool) (*x509.Certificate, error) {
	block, rest := pem.Decode([]byte(leaf))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("the answer holds no certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	intermediates := x509.NewCertPool()
	intermediates.AppendCertsFromPEM(append(rest, chain...))
	if _, err := c.Verify(x509.VerifyOptions{DNSName: r.name, Roots: roots, Intermediates: intermediates}); err != nil {
		return nil, err
	}
	switch {
	case !samePublicKey(c.PublicKey, r.key):
		return nil, errors.New("it has another public key than the CSR")
	case !slices.Equal(c.DNSNames, []string{r.name}) || len(c.IPAddresses)+len(c.EmailAddresses)+len(c.URIs) > 0:
		return nil, fmt.Errorf("its names are %q %q %q %q", c.DNSNames, c.IPAddresses, c.EmailAddresses, c.URIs)
	case c.IsCA:
		return nil, errors.New("it is a CA certificate")
	}
	return c, nil
}

// sameIDs compares what was answered, sorted, with what the store lists.
func sameIDs(answered, listed []string) error {
	listed = slices.Sorted(slices.Values(listed))
	for _, id := range answered {
		if _, found := slices.BinarySearch(listed, id); !found {
			return fmt.Errorf("certificate %s was answered and is not in the store", id)
		}
	}
	if len(listed) != len(answered) {
		return fmt.Errorf("the store lists %d certificates, and %d were answered", len(listed), len(answered))
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
