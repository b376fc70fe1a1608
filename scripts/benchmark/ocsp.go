package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/sqlite"
)

// What the figures are compared with: server CPU for each answer, in microseconds, answers a second, and bytes.
const (
	goalCached    = 9
	goalNonce     = 45
	goalPerSecond = 100_000
	goalMemory    = 100e6
	kept          = 1000 // certificates that are asked for again and again
	fillers       = 512  // how many rows wait to be written at once
	ocspMediaType = "application/ocsp-response"
	nonceOctets   = 16
	responderName = "OCSP responder"
	ours          = "certwright"
)

// ocspReport is everything that «ocsp» measures.
type ocspReport struct {
	Machine     machine   `json:"machine"`
	Connections int       `json:"connections"`
	Serials     int       `json:"serials"`
	Runs        []ocspRun `json:"runs"`
}

// ocspRun is one server under one load.
type ocspRun struct {
	Server    string             `json:"server"`
	Load      string             `json:"load"`
	Seconds   float64            `json:"seconds"`
	Answers   int64              `json:"answers"`
	PerSecond float64            `json:"per_second"`
	Verified  int                `json:"verified"`
	Latency   map[string]float64 `json:"latency_ms"`
	// CPU times in microseconds for each answer.
	CPU       float64 `json:"cpu_us"`
	Generator float64 `json:"generator_us"`
	Used      float64 `json:"machine_used_by_run"`
	Others    float64 `json:"machine_used_by_others"`
	Stolen    float64 `json:"machine_stolen"`
	PeakRSS   int64   `json:"peak_rss_bytes"`
}

// asked is a CA with serial numbers to ask for, and what requests to it look like.
type asked struct {
	issuer  *x509.Certificate
	serials []*big.Int
	gets    [][]byte // whole HTTP requests
	base64  []string // their OCSP requests, escaped
}

func ask(issuer *x509.Certificate, serials []*big.Int, path string) (*asked, error) {
	a := &asked{issuer: issuer, serials: serials}
	for _, s := range serials {
		der, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: s}, issuer, nil)
		if err != nil {
			return nil, err
		}
		text := url.QueryEscape(base64.StdEncoding.EncodeToString(der))
		a.base64 = append(a.base64, text)
		a.gets = append(a.gets, fmt.Appendf(nil, "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: %s\r\n\r\n", path, text, ocspMediaType))
	}
	return a, nil
}

func (a *asked) get(_, n int) []byte { return a.gets[n%len(a.gets)] }

// good checks an answer as a verifier does.
func (a *asked) good(n int, body []byte) error {
	r, err := ocsp.ParseResponse(body, a.issuer)
	if err != nil {
		return err
	}
	now := time.Now()
	if want := a.serials[n%len(a.serials)]; r.Status != ocsp.Good || r.SerialNumber.Cmp(want) != 0 || now.Before(r.ThisUpdate) || now.After(r.NextUpdate) {
		return fmt.Errorf("status %d of %x from %s to %s, want good of %x", r.Status, r.SerialNumber, r.ThisUpdate, r.NextUpdate, want)
	}
	return nil
}

// withNonces returns requests that each carry a nonce of their own: a counter, so that an answer can be told from the
// others.
func (a *asked) withNonces(connections int) (next func(conn, n int) []byte, check func(n int, body []byte) error, err error) {
	nonce := make([]byte, nonceOctets)
	marker := bytes.Repeat([]byte{0xa5}, nonceOctets)
	copy(nonce, marker)
	buffers := make([][]byte, connections)
	templates := make([][]byte, len(a.serials))
	at := make([]int, len(a.serials))
	for i, s := range a.serials {
		body, err := nonceRequest(a.issuer, s, nonce)
		if err != nil {
			return nil, nil, err
		}
		templates[i] = fmt.Appendf(nil, "POST /ocsp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		at[i] = bytes.Index(templates[i], marker)
	}
	next = func(conn, n int) []byte {
		i := n % len(templates)
		b := append(buffers[conn][:0], templates[i]...)
		binary.BigEndian.PutUint64(b[at[i]:], uint64(n))
		buffers[conn] = b
		return b
	}
	check = func(n int, body []byte) error {
		want := bytes.Clone(marker)
		binary.BigEndian.PutUint64(want, uint64(n))
		if !bytes.Contains(body, want) {
			return errors.New("the nonce is not in the answer")
		}
		return a.good(n, body)
	}
	return next, check, nil
}

// nonceRequest is an OCSPRequest with a nonce (RFC 9654), which x/crypto/ocsp cannot make.
func nonceRequest(issuer *x509.Certificate, serial *big.Int, nonce []byte) ([]byte, error) {
	plain, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: serial}, issuer, nil)
	if err != nil {
		return nil, err
	}
	var outer struct {
		TBS struct{ List asn1.RawValue }
	}
	if _, err := asn1.Unmarshal(plain, &outer); err != nil {
		return nil, err
	}
	value, err := asn1.Marshal(nonce)
	if err != nil {
		return nil, err
	}
	type request struct {
		TBS struct {
			List       asn1.RawValue
			Extensions []pkix.Extension `asn1:"explicit,tag:2"`
		}
	}
	var out request
	out.TBS.List = asn1.RawValue{FullBytes: outer.TBS.List.FullBytes}
	out.TBS.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}, Value: value}}
	return asn1.Marshal(out)
}

func measureOCSP(ctx context.Context, o options) (*ocspReport, error) {
	report := &ocspReport{Machine: thisMachine(), Connections: o.connections, Serials: o.serials}
	m := report.Machine
	fmt.Printf("machine     %d CPUs (%s), Linux %s, %s\n", m.CPUs, m.Model, m.Kernel, m.Go)
	answers, err := ocspOurs(ctx, o, report)
	if err != nil {
		return nil, err
	}
	if o.nginx != "" {
		if err := ocspNginx(ctx, o, report, answers); err != nil {
			return nil, fmt.Errorf("nginx: %w", err)
		}
	}
	if o.cfssl != "" {
		if err := ocspCfssl(ctx, o, report, answers); err != nil {
			return nil, fmt.Errorf("cfssl: %w", err)
		}
	}
	if o.openssl != "" {
		if err := ocspOpenSSL(ctx, o, report); err != nil {
			return nil, fmt.Errorf("openssl: %w", err)
		}
	}
	report.compare()
	return report, nil
}

// answered is requests with the answers that our server gave, for servers that only repeat answers.
type answered struct {
	*asked
	ders [][]byte
}

// ocspTarget is a server of ours with certificates to ask for.
type ocspTarget struct {
	server  *server
	address netip.AddrPort
	public  string // the URL of address
	issuer  *x509.Certificate
	serials []*big.Int
}

// startOCSP starts a server whose store has n good certificates.
func startOCSP(ctx context.Context, o options, n int) (t *ocspTarget, err error) {
	data := filepath.Join(o.folder, "ocsp")
	s, _, err := startServer(ctx, o.server, data, "")
	if err != nil {
		return nil, err
	}
	if err := s.stop(); err != nil {
		return nil, err
	}
	began := time.Now()
	t = &ocspTarget{}
	if t.serials, err = fillStore(ctx, filepath.Join(data, "certwright.db"), n); err != nil {
		return nil, fmt.Errorf("filling the store: %w", err)
	}
	fmt.Printf("serials     %d in the store (%.1f s)\n", n, time.Since(began).Seconds())
	if t.server, _, err = startServer(ctx, o.server, data, ""); err != nil {
		return nil, err
	}
	if t.public, err = t.server.publicURL(ctx); err != nil {
		return nil, t.end(err)
	}
	if t.issuer, err = fetchCertificate(t.public + "/chain/issuing.pem"); err != nil {
		return nil, t.end(err)
	}
	if t.address, err = netip.ParseAddrPort(strings.TrimPrefix(t.public, "http://")); err != nil {
		return nil, t.end(err)
	}
	return t, nil
}

// end stops the server, whose last words are added to an error.
func (t *ocspTarget) end(err error) error {
	if err != nil {
		err = t.server.failure(err)
	}
	return errors.Join(err, t.server.stop())
}

func ocspOurs(ctx context.Context, o options, report *ocspReport) (a *answered, err error) {
	t, err := startOCSP(ctx, o, max(o.serials, kept))
	if err != nil {
		return nil, err
	}
	defer func() { err = t.end(err) }()
	few, err := ask(t.issuer, t.serials[:kept], "/ocsp/")
	if err != nil {
		return nil, err
	}
	run := func(name string, least int, next func(int, int) []byte, check func(int, []byte) error) error {
		return report.run(ctx, o, ours, name, least, t.address, t.server.pid(), next, check)
	}
	if err := run("cached GET", 0, few.get, few.good); err != nil {
		return nil, err
	}
	next, check, err := few.withNonces(o.connections)
	if err != nil {
		return nil, err
	}
	if err := run("POST with nonce", 0, next, check); err != nil {
		return nil, err
	}
	if len(t.serials) > kept {
		many, err := ask(t.issuer, t.serials, "/ocsp/")
		if err != nil {
			return nil, err
		}
		if err := run(fmt.Sprintf("GET of %d in turn", len(t.serials)), len(t.serials), many.get, many.good); err != nil {
			return nil, err
		}
	}
	a = &answered{asked: few}
	for _, text := range few.base64 {
		der, err := fetch(t.public + "/ocsp/" + text)
		if err != nil {
			return nil, err
		}
		a.ders = append(a.ders, der)
	}
	return a, nil
}

// fillStore writes rows of good certificates of the issuing CA, without the certificates, which OCSP does not need.
func fillStore(ctx context.Context, path string, n int) (serials []*big.Int, err error) {
	s, err := sqlite.Open(ctx, sqlite.Config{Path: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	key, err := issuingKey(ctx, s)
	if err != nil {
		return nil, err
	}
	return fillCertificates(ctx, s, key, n)
}

// issuingKey returns the key of the issuing CA.
func issuingKey(ctx context.Context, s store.Issuers) (pki.IssuerKey, error) {
	set, err := s.AllIssuers(ctx)
	if err != nil {
		return pki.IssuerKey{}, err
	}
	for _, i := range set.Issuers {
		for _, k := range set.Keys {
			if k.IssuerID == i.ID && !i.Root {
				return k, nil
			}
		}
	}
	return pki.IssuerKey{}, errors.New("there is no issuing CA")
}

// fingerprintOf is what fillCertificates gives the certificate of a serial number.
func fingerprintOf(serial *big.Int) pki.Fingerprint { return sha256.Sum256(serial.Bytes()) }

// fillCertificates writes rows of good certificates, and returns their serial numbers.
func fillCertificates(ctx context.Context, s store.Certificates, key pki.IssuerKey, n int) (serials []*big.Int, err error) {
	now := time.Now().UTC().Truncate(time.Second)
	serials = make([]*big.Int, n)
	var next atomic.Int64
	return serials, concurrently(fillers, func() error {
		for {
			i := int(next.Add(1) - 1)
			if i >= n {
				return nil
			}
			end := now.AddDate(1, 0, 0)
			serial, err := pki.NewSerialNumber(rand.Reader, end, now)
			if err != nil {
				return err
			}
			serials[i] = new(big.Int).SetBytes(serial.Bytes())
			f := fingerprintOf(serials[i])
			c := pki.Certificate{
				IssuerID: key.IssuerID, IssuerKeyID: key.ID, Serial: serial, Fingerprint: f, SPKIHash: f, CRLScope: pki.ScopeFull,
				Subject: "CN=" + strconv.Itoa(i), Profile: "client", ProfileVersion: 1, Requester: "system", Protocol: "import",
				NotBefore: now, NotAfter: end, IssuedAt: now,
			}
			record := audit.Record{Time: now, Actor: "system", Action: audit.ActionIssue, Target: f.String()}
			if err := s.RecordIssuance(ctx, store.Issuance{Certificate: c, Record: record}); err != nil {
				return err
			}
		}
	})
}

// concurrently calls f n times at once.
func concurrently(n int, f func() error) error {
	errs := make(chan error, n)
	for range n {
		go func() { errs <- f() }()
	}
	var err error
	for range n {
		err = errors.Join(err, <-errs)
	}
	return err
}

func fetch(address string) ([]byte, error) {
	client := http.Client{Timeout: requestTimeout}
	r, err := client.Get(address)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", address, r.Status)
	}
	return body, nil
}

func fetchCertificate(address string) (*x509.Certificate, error) {
	b, err := fetch(address)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", address)
	}
	return x509.ParseCertificate(block.Bytes)
}

// run puts a server under one load, of as many answers at least, reports it, and keeps the report.
func (r *ocspReport) run(ctx context.Context, o options, server, name string, least int, address netip.AddrPort, pid int, next func(int, int) []byte, check func(int, []byte) error) error {
	var edges []usage
	var perf *process
	p := &poller{
		address: address, next: next, check: check, connections: o.connections, warmUp: warmUp, duration: o.duration, least: least,
		edge: func() error {
			u, err := usageOf(pid, 0)
			if edges = append(edges, u); err != nil || o.profile == "" || server != ours {
				return err
			}
			if len(edges) == 1 {
				perf, err = startPerf(fmt.Sprintf("%s.%d", o.profile, len(r.Runs)+1), pid, 0)
				return err
			}
			return perf.stopPerf()
		},
	}
	out, err := p.run(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	run := ocspRun{Server: server, Load: name, Seconds: out.took.Seconds(), Answers: out.latency.n, Verified: out.checked, Latency: map[string]float64{"max": milliseconds(out.latency.max)}}
	run.PerSecond = float64(run.Answers) / run.Seconds
	for name, q := range map[string]float64{"p50": 0.5, "p99": 0.99, "p99.9": 0.999} {
		run.Latency[name] = milliseconds(out.latency.quantile(q))
	}
	cpu := edges[0].until(edges[1], run.Answers)
	run.CPU, run.Generator, run.Used, run.Others, run.Stolen = 1000*cpu.Server, 1000*cpu.Generator, cpu.Used, cpu.Others, cpu.Stolen
	if run.PeakRSS, err = memory(pid, "VmHWM"); err != nil {
		return err
	}
	r.Runs = append(r.Runs, run)
	fmt.Printf("\n== %s, %s: %.0f answers/s (%d connections, %.1f s)\n", server, name, run.PerSecond, o.connections, run.Seconds)
	fmt.Printf("answers     %d, all 200; %d verified; %d connections ended by the server\n", out.all, out.checked, out.redials)
	fmt.Printf("latency     p50 %.2f   p99 %.2f   p99.9 %.2f   max %.2f ms\n", run.Latency["p50"], run.Latency["p99"], run.Latency["p99.9"], run.Latency["max"])
	fmt.Printf("CPU         server %.2f us an answer (generator %.2f)\n", run.CPU, run.Generator)
	fmt.Printf("cores       %.0f %% this run, %.0f %% others, %.0f %% stolen\n", 100*run.Used, 100*run.Others, 100*run.Stolen)
	fmt.Printf("memory      at most %.1f MB\n", float64(run.PeakRSS)/1e6)
	return nil
}

// compare tells how the others stand to our answers from the cache, and ours to the goals.
func (r *ocspReport) compare() {
	first := r.Runs[0]
	fmt.Println()
	for _, run := range r.Runs {
		if run.Server != first.Server {
			fmt.Printf("certwright, %s : %s, %s   answers/s %.2f x, CPU %.2f x\n", first.Load, run.Server, run.Load, first.PerSecond/run.PerSecond, first.CPU/run.CPU)
		}
	}
	fmt.Printf("goals       cached GET %.2f x %d us, %.2f x %d/s; with a nonce %.2f x %d us", first.CPU/goalCached, goalCached, first.PerSecond/goalPerSecond, goalPerSecond, r.Runs[1].CPU/goalNonce, goalNonce)
	if r.Serials > kept {
		fmt.Printf("; memory %.2f x %.0f MB", float64(r.Runs[2].PeakRSS)/goalMemory, goalMemory/1e6)
	}
	fmt.Println()
}

// freeAddress returns a loopback address that nobody listens on.
func freeAddress() (netip.AddrPort, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer l.Close()
	return netip.ParseAddrPort(l.Addr().String())
}

// peer starts another server and puts it under load.
func (r *ocspReport) peer(ctx context.Context, o options, name, load string, address netip.AddrPort, a *asked, program string, args ...string) error {
	if err := adopt(); err != nil {
		return err
	}
	p, err := startProcess(filepath.Join(o.folder, name+".log"), os.Environ(), program, args...)
	if err != nil {
		return err
	}
	err = p.until(ctx, func() error {
		c, err := net.Dial("tcp", address.String())
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err == nil {
		err = r.run(ctx, o, name, load, 0, address, p.pid(), a.get, a.good)
	}
	if err != nil {
		err = p.failure(err)
	}
	tree, treeErr := processTree(p.pid())
	// Some of them call it an error to be ended, and openssl leaves its children behind, which spin.
	_ = p.stop()
	for _, s := range tree[min(1, len(tree)):] {
		end(s.pid) // most have ended
	}
	return errors.Join(err, treeErr)
}

// ocspNginx has nginx give one answer from a file: what a server costs that does nothing but HTTP.
func ocspNginx(ctx context.Context, o options, report *ocspReport, a *answered) error {
	folder := filepath.Join(o.folder, "nginx")
	if err := os.Mkdir(folder, 0o755); err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	one := &asked{issuer: a.issuer, serials: a.serials[:1], gets: [][]byte{[]byte("GET /answer HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: " + ocspMediaType + "\r\n\r\n")}}
	config := fmt.Sprintf(`daemon off; master_process on; worker_processes auto; pid %[1]s/pid; error_log stderr warn;
events { worker_connections 4096; }
http {
	access_log off; keepalive_requests 100000000; default_type %[2]s; open_file_cache max=10; tcp_nodelay on;
	client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server { listen %[3]s; root %[1]s; }
}
`, folder, ocspMediaType, address)
	// nginx's workers are of another user when it is started by root, to whom our folder is closed.
	if os.Geteuid() == 0 {
		config = "user root;\n" + config
	}
	if err := errors.Join(os.WriteFile(filepath.Join(folder, "conf"), []byte(config), 0o644), os.WriteFile(filepath.Join(folder, "answer"), a.ders[0], 0o644)); err != nil {
		return err
	}
	return report.peer(ctx, o, "nginx", "static file", address, one, o.nginx, "-c", filepath.Join(folder, "conf"), "-p", folder)
}

// ocspCfssl has cfssl repeat our answers, which it takes from a file.
func ocspCfssl(ctx context.Context, o options, report *ocspReport, a *answered) error {
	file := filepath.Join(o.folder, "cfssl.responses")
	var lines bytes.Buffer
	for _, der := range a.ders {
		fmt.Fprintln(&lines, base64.StdEncoding.EncodeToString(der))
	}
	if err := os.WriteFile(file, lines.Bytes(), 0o644); err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	theirs := &asked{issuer: a.issuer}
	for i, text := range a.base64 {
		if strings.Contains(text, "%2F%2F") {
			continue // cfssl redirects such requests to another path
		}
		theirs.serials = append(theirs.serials, a.serials[i])
		theirs.gets = append(theirs.gets, fmt.Appendf(nil, "GET /%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: %s\r\n\r\n", text, ocspMediaType))
	}
	return report.peer(ctx, o, "cfssl", "cached GET", address, theirs, o.cfssl, "ocspserve", "-address", address.Addr().String(), "-port", strconv.Itoa(int(address.Port())), "-responses", file, "-path", "/", "-loglevel", "3")
}

// ocspOpenSSL has openssl ocsp sign each answer, for a CA of its own.
func ocspOpenSSL(ctx context.Context, o options, report *ocspReport) error {
	folder := filepath.Join(o.folder, "openssl")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(folder, name) }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	responderKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return err
	}
	skid := sha1.Sum(point) // RFC 5280, Section 4.2.1.2, method 1
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Bench"}, IsCA: true, BasicConstraintsValid: true, SubjectKeyId: skid[:],
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
	}
	caDER, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		return err
	}
	rt := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: responderName}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, NotBefore: t.NotBefore, NotAfter: t.NotAfter,
	}
	responder, err := x509.CreateCertificate(rand.Reader, rt, ca, responderKey.Public(), key)
	if err != nil {
		return err
	}
	responderDER, err := x509.MarshalPKCS8PrivateKey(crypto.PrivateKey(responderKey))
	if err != nil {
		return err
	}
	var index bytes.Buffer
	var serials []*big.Int
	for i := range kept {
		s := big.NewInt(int64(0x4100000000 + i))
		serials = append(serials, s)
		fmt.Fprintf(&index, "V\t%s\t\t%X\tunknown\t/CN=%d\n", now.AddDate(1, 0, 0).UTC().Format("060102150405Z"), s, i)
	}
	write := func(name, kind string, der []byte) error {
		return os.WriteFile(in(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	if err := errors.Join(write("ca.pem", "CERTIFICATE", caDER), write("responder.pem", "CERTIFICATE", responder),
		write("responder.key", "PRIVATE KEY", responderDER), os.WriteFile(in("index.txt"), index.Bytes(), 0o600)); err != nil {
		return err
	}
	a, err := ask(ca, serials, "/")
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	return report.peer(ctx, o, "openssl", "GET, signs each", address, a, o.openssl, "ocsp", "-index", in("index.txt"), "-port", strconv.Itoa(int(address.Port())),
		"-CA", in("ca.pem"), "-rsigner", in("responder.pem"), "-rkey", in("responder.key"), "-ndays", "1", "-ignore_err", "-multi", "2")
}
