package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
	"github.com/certwright/certwright/pkg/store/sqlite"
)

const (
	fewRevoked   = 1000
	manyRevoked  = 1_000_000
	singles      = 20          // revocations that come one by one
	singlePause  = time.Second // between them: each has lists of its own
	bodyOfRevoke = `{"reason":"superseded"}`
)

// crlReport is the whole run. Times are in seconds, save where the name says milliseconds.
type crlReport struct {
	Machine machine      `json:"machine"`
	Runs    []*crlRun    `json:"runs"`
	Peers   []*crlMaking `json:"peers"`
}

// crlMaking is what making one list costs somebody else.
type crlMaking struct {
	Who     string  `json:"who"`
	Entries int     `json:"entries"`
	CPU     float64 `json:"cpu"`
	Peak    int64   `json:"peak_bytes"`
}

// crlRun is our server with one number of revoked certificates.
type crlRun struct {
	Store   string `json:"store"`
	Revoked int    `json:"revoked"`
	// Loaded is the time from the process's start until a list with all of them is served.
	Loaded            float64 `json:"loaded"`
	LoadedCPU         float64 `json:"loaded_cpu"`
	Idle              int64   `json:"idle_bytes"`      // resident, when it is served and nothing happens
	LoadPeak          int64   `json:"load_peak_bytes"` // resident at most until then
	Peak              int64   `json:"peak_bytes"`      // resident at most while lists are made after single revocations
	Size              int64   `json:"list_bytes"`
	SingleMS          float64 `json:"single_ms"`     // answer to a single revocation, median
	SingleCPU         float64 `json:"single_cpu_ms"` // the server's processor time of one, with its lists and all that goes on meanwhile
	SingleDatabaseCPU float64 `json:"single_database_cpu_ms"`
	Visible           float64 `json:"visible_ms"`  // from the answer until the list is served, median
	Rate              float64 `json:"rate"`        // revocations a second, with all callers
	RateCPU           float64 `json:"rate_cpu_ms"` // the server's processor time of each
	RateDatabaseCPU   float64 `json:"rate_database_cpu_ms"`
	RateP99           float64 `json:"rate_p99_ms"`
	RateOthers        float64 `json:"machine_used_by_others"`
}

func measureCRL(ctx context.Context, o options) (*crlReport, error) {
	report := &crlReport{Machine: thisMachine()}
	m := report.Machine
	fmt.Printf("machine     %d CPUs (%s), Linux %s, %s\n", m.CPUs, m.Model, m.Kernel, m.Go)
	for _, store := range o.stores {
		runs, err := crlOurs(ctx, o, store)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", store, err)
		}
		report.Runs = append(report.Runs, runs...)
	}
	for _, peer := range []func(context.Context, options) (*crlMaking, error){crlX509, crlOpenSSL} {
		made, err := peer(ctx, o)
		if err != nil {
			return nil, err
		}
		if made != nil {
			report.Peers = append(report.Peers, made)
			fmt.Printf("%-11s one list of %d entries: %.2f s of processor time, at most %.0f MB\n", made.Who, made.Entries, made.CPU, float64(made.Peak)/1e6)
		}
	}
	return report, nil
}

func crlOurs(ctx context.Context, o options, kind string) (runs []*crlRun, err error) {
	data := filepath.Join(o.folder, "crl-"+kind)
	database, postmaster := "", 0
	if kind == "postgres" {
		database, postmaster = o.database, o.postmaster
	}
	s, _, err := startServer(ctx, o.server, data, database)
	if err != nil {
		return nil, err
	}
	if err := s.stop(); err != nil {
		return nil, err
	}
	// Certificates to be revoked in both rounds.
	perRound := singles + int((warmUp+o.duration).Seconds()*6000)
	began := time.Now()
	var serials []*big.Int
	var db store.Store
	if database != "" {
		db, err = postgres.Open(ctx, postgres.Config{DSN: database, Logger: slog.New(slog.DiscardHandler)})
	} else {
		db, err = sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(data, "certwright.db"), Logger: slog.New(slog.DiscardHandler)})
	}
	if err != nil {
		return nil, err
	}
	key, err := issuingKey(ctx, db)
	if err == nil {
		serials, err = fillCertificates(ctx, db, key, 2*perRound)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return nil, fmt.Errorf("filling the store: %w", err)
	}
	if database != "" { // as the database does by itself, some time after so many rows
		if err := analyze(ctx, database); err != nil {
			return nil, err
		}
	}
	fmt.Printf("%s\n  prepared  %d certificates (%.1f s)\n", kind, len(serials), time.Since(began).Seconds())
	there := 0
	for round, revoked := range []int{fewRevoked, o.revoked} {
		began := time.Now()
		if err := fillRevocations(ctx, data, database, key, revoked-there); err != nil {
			return nil, fmt.Errorf("filling the store: %w", err)
		}
		fmt.Printf("  prepared  %d revocations (%.1f s)\n", revoked-there, time.Since(began).Seconds())
		run, err := crlRound(ctx, o, data, database, postmaster, key, serials[round*perRound:(round+1)*perRound], revoked)
		if err != nil {
			return nil, err
		}
		run.Store = kind
		there = revoked + run.done
		run.print()
		runs = append(runs, &run.crlRun)
	}
	return runs, nil
}

type crlFigures struct {
	crlRun
	done int // revocations
}

func (r *crlFigures) print() {
	fmt.Printf("  %d revoked: list of %.1f MB served after %.2f s (%.2f s of processor time), memory at most %.0f MB then, %.0f MB idle, at most %.0f MB with single revocations\n",
		r.Revoked, float64(r.Size)/1e6, r.Loaded, r.LoadedCPU, float64(r.LoadPeak)/1e6, float64(r.Idle)/1e6, float64(r.Peak)/1e6)
	fmt.Printf("    one revocation        %.2f ms, its lists %.0f ms later, %.1f + %.1f ms of processor time with them (server + database)\n", r.SingleMS, r.Visible, r.SingleCPU, r.SingleDatabaseCPU)
	fmt.Printf("    as many as possible   %.0f a second, p99 %.0f ms, %.3f + %.3f ms of processor time each with lists (others used %.0f %% of the machine)\n",
		r.Rate, r.RateP99, r.RateCPU, r.RateDatabaseCPU, 100*r.RateOthers)
}

// crlRound measures a server with so many revoked certificates in its store.
func crlRound(ctx context.Context, o options, data, database string, postmaster int, key pki.IssuerKey, serials []*big.Int, revoked int) (r *crlFigures, err error) {
	r = &crlFigures{crlRun: crlRun{Revoked: revoked}}
	began := time.Now()
	s, _, err := startServer(ctx, o.server, data, database)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = s.failure(err)
		}
		err = errors.Join(err, s.stop())
	}()
	public, err := s.publicURL(ctx)
	if err != nil {
		return nil, err
	}
	address := public + "/crl/" + key.KeyID + ".crl"
	number := func() (tag string, size int64, err error) {
		answer, err := http.Head(address)
		if err != nil {
			return "", 0, err
		}
		answer.Body.Close()
		return answer.Header.Get("ETag"), answer.ContentLength, nil
	}
	for {
		if _, r.Size, err = number(); err != nil {
			return nil, err
		}
		if r.Size > int64(revoked)*35 {
			break
		}
		// Nothing but a revocation tells the server of rows that were put under it.
		if err := revokeOne(ctx, s, serials[0]); err != nil && !strings.Contains(err.Error(), "409") {
			return nil, err
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.Loaded = time.Since(began).Seconds()
	cpu, err := treeCPU(s.pid())
	if err != nil {
		return nil, err
	}
	r.LoadedCPU = cpu.Seconds()
	if r.LoadPeak, err = memory(s.pid(), "VmHWM"); err != nil {
		return nil, err
	}
	time.Sleep(3 * time.Second)
	if r.Idle, err = memory(s.pid(), "VmRSS"); err != nil {
		return nil, err
	}

	// One by one.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.pid()), []byte("5"), 0); err != nil { // VmHWM begins anew
		return nil, err
	}
	var answers, visible histogram
	before, err := usageOf(s.pid(), postmaster)
	if err != nil {
		return nil, err
	}
	for _, n := range serials[1:singles] {
		tag, _, err := number()
		if err != nil {
			return nil, err
		}
		began := time.Now()
		if err := revokeOne(ctx, s, n); err != nil {
			return nil, err
		}
		answered := time.Now()
		answers.add(answered.Sub(began))
		for {
			now, _, err := number()
			if err != nil {
				return nil, err
			}
			if now != tag {
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
		visible.add(time.Since(answered))
		time.Sleep(singlePause)
	}
	after, err := usageOf(s.pid(), postmaster)
	if err != nil {
		return nil, err
	}
	r.SingleMS, r.Visible = milliseconds(answers.quantile(0.5)), milliseconds(visible.quantile(0.5))
	single := before.until(after, singles-1)
	r.SingleCPU, r.SingleDatabaseCPU = single.Server, single.Database
	if r.Peak, err = memory(s.pid(), "VmHWM"); err != nil {
		return nil, err
	}

	// All at once.
	requests := make([]request, len(serials)-singles)
	for i, n := range serials[singles:] {
		requests[i] = request{name: n.Text(16), path: revokePath(n), body: []byte(bodyOfRevoke)}
	}
	var edges []usage
	l := &load{
		url: s.url + "/api/v1", headers: "Authorization: Bearer " + s.token + "\r\n", roots: s.roots, status: http.StatusOK,
		requests: requests, clients: o.connections, duration: o.duration,
		identify: func(_ *request, _ http.Header, body []byte) (string, error) {
			if !bytes.Contains(body, []byte(`"status":"revoked"`)) {
				return "", fmt.Errorf("the answer is %.200q", body)
			}
			return "", nil
		},
		edge: func() error {
			u, err := usageOf(s.pid(), postmaster)
			edges = append(edges, u)
			return err
		},
	}
	out, err := l.run(ctx)
	if err != nil {
		return nil, err
	}
	if out.rounds > 1 {
		return nil, errors.New("there were not enough certificates: the machine is faster than expected")
	}
	n := out.latency.n
	costs := edges[0].until(edges[1], n)
	r.Rate, r.RateCPU, r.RateDatabaseCPU = float64(n)/out.took.Seconds(), costs.Server, costs.Database
	r.RateP99, r.RateOthers = milliseconds(out.latency.quantile(0.99)), costs.Others
	r.done = singles + len(out.ids)
	return r, nil
}

func revokePath(serial *big.Int) string {
	return "/api/v1/certificates/" + fingerprintOf(serial).String() + "/revoke"
}

func revokeOne(ctx context.Context, s *server, serial *big.Int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+revokePath(serial), strings.NewReader(bodyOfRevoke))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	answer, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", answer.Status, b.String())
	}
	return nil
}

// fillRevocations writes rows of revoked certificates, of which there is nothing else: lists are made of these rows.
func fillRevocations(ctx context.Context, data, database string, key pki.IssuerKey, n int) error {
	now := time.Now().UTC().Truncate(time.Second)
	end, at := now.AddDate(1, 0, 0), now.Add(-time.Hour)
	next := func() ([]byte, int, error) {
		serial, err := pki.NewSerialNumber(rand.Reader, end, now)
		return serial.Bytes(), int(serial.Bucket()), err
	}
	columns := []string{"issuer_key_id", "serial", "issuer_id", "bucket", "status", "reason", "revoked_at", "not_after", "change", "crl_scope"}
	if database != "" {
		conn, err := pgx.Connect(ctx, database)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		i := 0
		_, err = conn.CopyFrom(ctx, pgx.Identifier{"revocation"}, columns, pgx.CopyFromFunc(func() ([]any, error) {
			if i++; i > n {
				return nil, nil
			}
			serial, bucket, err := next()
			return []any{key.ID, serial, key.IssuerID, int32(bucket), int16(pki.Revoked), int16(pki.KeyCompromise), at, end, int64(1), pki.ScopeFull}, err
		}))
		return errors.Join(err, analyze(ctx, database))
	}
	db, err := sql.Open("sqlite", filepath.Join(data, "certwright.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	insert, err := tx.PrepareContext(ctx, "INSERT INTO revocation ("+strings.Join(columns, ", ")+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	for range n {
		serial, bucket, err := next()
		if err != nil {
			return err
		}
		if _, err := insert.ExecContext(ctx, key.ID, serial, key.IssuerID, bucket, int(pki.Revoked), int(pki.KeyCompromise), at.UnixMicro(), end.UnixMicro(), 1, pki.ScopeFull); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func analyze(ctx context.Context, database string) error {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "VACUUM (ANALYZE)")
	return errors.Join(err, conn.Close(ctx))
}

// making is the command line of the process in which crypto/x509 makes a list, so that its memory is its own.
const making = "crl-x509"

// crlX509 has Go's standard library make a list.
func crlX509(ctx context.Context, o options) (*crlMaking, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, making, strconv.Itoa(o.revoked))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("crypto/x509: %w", err)
	}
	made := &crlMaking{Who: "crypto/x509", Entries: o.revoked}
	return made, json.Unmarshal(out, made)
}

// makeX509 makes a list and tells what it has cost, without what it is made of.
func makeX509(entries int) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	list := x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, 7), RevokedCertificateEntries: make([]x509.RevocationListEntry, entries)}
	for i := range list.RevokedCertificateEntries {
		serial, err := pki.NewSerialNumber(rand.Reader, now.AddDate(1, 0, 0), now)
		if err != nil {
			return err
		}
		list.RevokedCertificateEntries[i] = x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(serial.Bytes()), RevocationTime: now, ReasonCode: 1}
	}
	before, err := ownCPU()
	if err != nil {
		return err
	}
	der, err := x509.CreateRevocationList(rand.Reader, &list, &x509.Certificate{RawSubject: []byte{0x30, 0}, SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCRLSign, PublicKey: key.Public()}, key)
	if err != nil || len(der) < entries*35 {
		return fmt.Errorf("a list of %d octets: %w", len(der), err)
	}
	after, err := ownCPU()
	if err != nil {
		return err
	}
	peak, err := memory(os.Getpid(), "VmHWM")
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"cpu": (after - before).Seconds(), "peak_bytes": peak})
}

// crlOpenSSL has openssl ca make a list of its index.
func crlOpenSSL(ctx context.Context, o options) (*crlMaking, error) {
	if o.openssl == "" {
		return nil, nil
	}
	dir := filepath.Join(o.folder, "openssl-ca")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	index, err := os.Create(filepath.Join(dir, "index.txt"))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	now := time.Now().UTC()
	for i := range o.revoked {
		serial, err := pki.NewSerialNumber(rand.Reader, now.AddDate(1, 0, 0), now)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "R\t%s\t%s,keyCompromise\t%X\tunknown\t/CN=%d\n", now.AddDate(1, 0, 0).Format("060102150405Z"), now.Format("060102150405Z"), serial.Bytes(), i)
	}
	_, err = index.Write(b.Bytes())
	if err := errors.Join(err, index.Close()); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("[ca]\ndefault_ca=c\n[c]\ndatabase=%s/index.txt\ncrlnumber=%s/crlnumber\ndefault_md=sha256\ndefault_crl_days=7\n[req]\ndistinguished_name=d\n[d]\n", dir, dir)
	for name, text := range map[string]string{"ca.cnf": config, "crlnumber": "01\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	run := func(args ...string) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, o.openssl, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("openssl %s: %w\n%s", args[0], err, out)
		}
		return cmd, nil
	}
	if _, err := run("req", "-x509", "-config", "ca.cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA", "-days", "30"); err != nil {
		return nil, err
	}
	cmd, err := run("ca", "-gencrl", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem", "-out", "list.pem")
	if err != nil {
		return nil, err
	}
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return &crlMaking{Who: "openssl ca", Entries: o.revoked, CPU: cpuOf(u).Seconds(), Peak: u.Maxrss << 10}, nil
}
