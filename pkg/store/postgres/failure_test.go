package postgres_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
)

// TestKilled kills the server twice under load. What was acknowledged is there, what failed is not, nothing is doubled,
// and the store goes on by itself.
func TestKilled(t *testing.T) {
	server := pgtest.Start(t)
	dsn := server.DSN()
	if _, _, err := postgres.Migrate(t.Context(), dsn); err != nil {
		t.Fatalf("Migrate: %v", err)
	}
	s, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, ResolveTimeout: 20 * time.Second})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer s.Close()
	issuerID, keyID := setUp(t, s)

	const workers = 32
	type result struct {
		certificate     pki.Certificate
		issued, revoked error
	}
	var (
		results [workers][]result
		good    atomic.Int64
		stop    atomic.Bool
		done    sync.WaitGroup
	)
	for w := range workers {
		done.Go(func() {
			for !stop.Load() {
				i := issuance(issuerID, keyID)
				r := result{certificate: i.Certificate, issued: s.RecordIssuance(t.Context(), i), revoked: errors.New("not tried")}
				if r.issued == nil {
					good.Add(1)
					_, r.revoked = s.ChangeStatus(t.Context(), revoke(i.Certificate))
				} else {
					time.Sleep(5 * time.Millisecond)
				}
				results[w] = append(results[w], r)
			}
		})
	}
	more := func(n int64) {
		t.Helper()
		for want, deadline := good.Load()+n, time.Now().Add(time.Minute); good.Load() < want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				stop.Store(true)
				done.Wait()
				t.Fatalf("after %d certificates no more are issued: %v", good.Load(), results[0][len(results[0])-1].issued)
			}
		}
	}
	for range 2 {
		more(300)
		server.Kill()
		time.Sleep(50 * time.Millisecond)
		server.Start()
	}
	more(300)
	stop.Store(true)
	done.Wait()

	issued, unknown := 1, 0 // setUp's
	for _, r := range results {
		for _, r := range r {
			got, err := s.Certificate(t.Context(), r.certificate.Fingerprint)
			there := err == nil
			switch {
			case errors.Is(r.issued, store.ErrUnknownOutcome):
				unknown++
			case r.issued == nil != there:
				t.Errorf("RecordIssuance: %v; the certificate is there: %v", r.issued, there)
			case r.issued != nil && !fault.Is(r.issued, fault.Unavailable):
				t.Errorf("RecordIssuance while the server was away: %v, want Unavailable", r.issued)
			}
			if there {
				issued++
			}
			if there && !errors.Is(r.revoked, store.ErrUnknownOutcome) && (r.revoked == nil) != (got.Revocation != nil) {
				t.Errorf("ChangeStatus: %v; the certificate's status: %v", r.revoked, got.Revocation)
			}
		}
	}
	if n, err := s.CountCertificates(t.Context(), store.CertificateFilter{}, 1<<30); err != nil || n != issued {
		t.Errorf("there are %d certificates, %v; want %d", n, err, issued)
	}
	verifyChain(t, s)
	findings, err := s.Check(t.Context())
	for _, f := range findings {
		if f.Serious {
			t.Errorf("Check finds: %s", f.What)
		}
	}
	t.Logf("%d certificates, %d with an unknown outcome (%v)", issued, unknown, err)
}

// commitProxy stands between the store and the server and knows where the COMMIT passes.
type commitProxy struct {
	net.Listener
	server string
	plan   atomic.Pointer[cutPlan]
	closed atomic.Bool // new connections are refused
	conns  sync.WaitGroup
}

// cutPlan is what happens to the next COMMIT.
type cutPlan struct {
	before bool          // the server never gets it
	hold   time.Duration // the server gets it so much later than the client is cut off
	refuse bool          // and nobody can connect again
}

func newProxy(t *testing.T, dsn string) (p *commitProxy, through string) {
	t.Helper()
	u, err := url.Parse(pgtest.TCP(dsn))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p = &commitProxy{Listener: l, server: u.Host}
	p.conns.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			if p.closed.Load() {
				client.Close()
				continue
			}
			p.conns.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.conns.Wait()
	})
	u.Host = l.Addr().String()
	q := u.Query()
	q.Set("sslmode", "disable")
	u.RawQuery = q.Encode()
	return p, u.String()
}

// serve passes messages on and carries the plan out.
func (p *commitProxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		client.Close()
		return
	}
	var deaf atomic.Bool // the client hears nothing more
	var pumps sync.WaitGroup
	pumps.Go(func() {
		defer client.Close()
		b := make([]byte, 1<<16)
		for {
			n, err := server.Read(b)
			if deaf.Load() {
				client.Close()
			}
			if err != nil {
				return
			}
			client.Write(b[:n]) // fails when it is closed, which does not end the reading
		}
	})
	pumps.Go(func() {
		defer server.Close()
		if err := passStartup(server, client); err != nil {
			return
		}
		commits := make(map[string]bool) // prepared statements that are COMMIT
		for {
			kind, message, err := readMessage(client)
			if err != nil {
				return
			}
			switch kind {
			case 'P': // Parse: name of the statement, its text
				f := bytes.SplitN(message[5:], []byte{0}, 3)
				commits[string(f[0])] = string(f[1]) == "COMMIT"
			case 'B': // Bind: name of the portal, of the statement
				f := bytes.SplitN(message[5:], []byte{0}, 3)
				if !commits[string(f[1])] {
					break
				}
				plan := p.plan.Swap(nil)
				if plan == nil {
					break
				}
				p.closed.Store(plan.refuse)
				if plan.before {
					client.Close()
					return
				}
				rest := message // up to Sync
				for kind != 'S' {
					if kind, message, err = readMessage(client); err != nil {
						return
					}
					rest = append(rest, message...)
				}
				deaf.Store(true)
				if plan.hold > 0 {
					client.Close()
					time.Sleep(plan.hold)
				}
				server.Write(rest)
				time.Sleep(200 * time.Millisecond) // a server that loses its client may drop what it has not read
				return
			}
			if _, err := server.Write(message); err != nil {
				return
			}
		}
	})
	pumps.Wait()
}

// passStartup passes on the first message, which has no kind.
func passStartup(to io.Writer, from io.Reader) error {
	var length [4]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return err
	}
	if _, err := to.Write(length[:]); err != nil {
		return err
	}
	_, err := io.CopyN(to, from, int64(binary.BigEndian.Uint32(length[:]))-4)
	return err
}

// readMessage reads a message of the frontend: its kind, and the whole of it.
func readMessage(from io.Reader) (kind byte, message []byte, err error) {
	message = make([]byte, 5)
	if _, err := io.ReadFull(from, message); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(message[1:])-4)
	_, err = io.ReadFull(from, body)
	return message[0], append(message, body...), err
}

func TestCutDuringCommit(t *testing.T) {
	tests := map[string]struct {
		plan cutPlan
		want func(error) bool
		is   string
		// there: whether the certificate must be in the store
		there bool
	}{
		"after the server got it":       {cutPlan{}, func(err error) bool { return err == nil }, "nil", true},
		"while the server waits for it": {cutPlan{hold: 300 * time.Millisecond}, func(err error) bool { return err == nil }, "nil", true},
		"before the server got it": {cutPlan{before: true}, func(err error) bool {
			return fault.Is(err, fault.Unavailable) && !errors.Is(err, store.ErrUnknownOutcome)
		}, "Unavailable", false},
		"and the server stays away": {cutPlan{refuse: true}, func(err error) bool {
			e, ok := errors.AsType[*fault.Error](err)
			return ok && e.Kind == fault.Unavailable && e.RetryAfter > 0 && errors.Is(err, store.ErrUnknownOutcome)
		}, "Unavailable with ErrUnknownOutcome", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := migrated(t)
			proxy, through := newProxy(t, dsn)
			direct := open(t, dsn)
			issuerID, keyID := setUp(t, direct)
			resolve := 20 * time.Second
			if test.plan.refuse {
				resolve = 300 * time.Millisecond
			}
			s, err := postgres.Open(t.Context(), postgres.Config{DSN: through, ResolveTimeout: resolve})
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			defer s.Close()
			if err := s.RecordIssuance(t.Context(), issuance(issuerID, keyID)); err != nil {
				t.Fatalf("RecordIssuance before: %v", err)
			}
			before, _ := direct.Head(t.Context())
			proxy.plan.Store(&test.plan)
			i := issuance(issuerID, keyID)
			err = s.RecordIssuance(t.Context(), i)
			if !test.want(err) {
				t.Errorf("RecordIssuance: got %v, want %s", err, test.is)
			}
			if proxy.plan.Load() != nil {
				t.Fatal("no COMMIT passed the proxy")
			}
			proxy.closed.Store(false)
			// Whoever gave up waiting for the outcome may have done so before the server had committed.
			for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
				_, err = direct.Certificate(t.Context(), i.Certificate.Fingerprint)
				if !test.there || err == nil || time.Now().After(end) {
					break
				}
			}
			if (err == nil) != test.there {
				t.Errorf("the certificate: %v", err)
			}
			after, _ := direct.Head(t.Context())
			if added := after.AuditSeq - before.AuditSeq; added != map[bool]int64{true: 1, false: 0}[test.there] {
				t.Errorf("%d audit records were written", added)
			}
			if err := s.RecordIssuance(t.Context(), issuance(issuerID, keyID)); err != nil {
				t.Errorf("RecordIssuance after: %v", err)
			}
			verifyChain(t, direct)
		})
	}
}

// TestRestart: the store connects again by itself, and callers do not notice a restart between their calls.
func TestRestart(t *testing.T) {
	server := pgtest.Start(t)
	dsn := server.DSN()
	if _, _, err := postgres.Migrate(t.Context(), dsn); err != nil {
		t.Fatalf("Migrate: %v", err)
	}
	s := open(t, dsn)
	issuerID, keyID := setUp(t, s)
	var wg sync.WaitGroup
	for range 20 { // fill both pools
		wg.Go(func() { s.Head(t.Context()) })
		wg.Go(func() { s.RecordIssuance(t.Context(), issuance(issuerID, keyID)) })
	}
	wg.Wait()
	server.Stop()
	for name, err := range map[string]error{
		"Head":           func() error { _, err := s.Head(t.Context()); return err }(),
		"RecordIssuance": s.RecordIssuance(t.Context(), issuance(issuerID, keyID)),
	} {
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.Unavailable || e.RetryAfter == 0 {
			t.Errorf("%s while the server is down: %v, want Unavailable with RetryAfter", name, err)
		}
	}
	if _, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Open while the server is down: %v, want Unavailable", err)
	}
	server.Start()
	for range 20 {
		wg.Go(func() {
			if _, err := s.Head(t.Context()); err != nil {
				t.Errorf("Head after the restart: %v", err)
			}
		})
		wg.Go(func() {
			if err := s.RecordIssuance(t.Context(), issuance(issuerID, keyID)); err != nil {
				t.Errorf("RecordIssuance after the restart: %v", err)
			}
		})
	}
	wg.Wait()
	verifyChain(t, s)
}

func TestUnsafeServer(t *testing.T) {
	for _, setting := range []string{"fsync", "full_page_writes"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			server := pgtest.Start(t, setting+"=off")
			dsn := server.DSN()
			if _, _, err := postgres.Migrate(t.Context(), dsn); err != nil {
				t.Fatalf("Migrate: %v", err)
			}
			_, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
			e, ok := errors.AsType[*fault.Error](err)
			if !ok || !strings.Contains(e.Detail, setting) || !strings.Contains(e.Hint, "ALTER SYSTEM SET "+setting) {
				t.Errorf("Open: got %v, want a refusal that names %s and says how to mend it", err, setting)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	dsn := migrated(t)
	s := open(t, dsn+"&synchronous_commit=off&timezone=Asia/Tokyo")
	issuerID, keyID := setUp(t, s)
	i := issuance(issuerID, keyID)
	if err := s.RecordIssuance(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	findings, err := s.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if strings.Contains(f.What, "synchronous_commit") {
			t.Errorf("the address may switch off durability: %s", f.What)
		}
	}
}

// TestCheck breaks a store in every way that Check knows.
func TestCheck(t *testing.T) {
	tests := map[string]struct{ sql, want string }{
		"a record is gone":       {`DELETE FROM audit_record WHERE seq = 2`, "audit records"},
		"a record is added":      {`INSERT INTO audit_record (seq, change, record, time, actor, action, target) VALUES (99, 2, '', now(), '', '', '')`, "audit records"},
		"a batch is gone":        {`DELETE FROM audit_batch WHERE change = 2`, "batches"},
		"another head":           {`UPDATE head SET hash = sha256('x')`, "head's hash"},
		"a revocation is gone":   {`DELETE FROM revocation`, "status of 1 certificates"},
		"a revocation is milder": {`UPDATE revocation SET reason = 5`, "status of 1 certificates"},
		"a certificate is gone":  {`DELETE FROM certificate WHERE serial = (SELECT serial FROM revocation)`, "no certificate"},
		"an unknown key":         {`UPDATE certificate SET issuer_key_id = 99 WHERE serial <> (SELECT serial FROM revocation)`, "issuer keys"},
		"no partition":           {`DROP TABLE certificate_2030`, "no partition"},
		"an invalid index":       {`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'audit_record_target'::regclass`, "not valid"},
		"a newer schema":         {`UPDATE schema_migrations SET version = 99`, "schema version 99"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := migrated(t)
			s := open(t, dsn)
			issuerID, keyID := setUp(t, s)
			i := issuance(issuerID, keyID)
			if err := s.RecordIssuance(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			if _, err := s.ChangeStatus(t.Context(), revoke(i.Certificate)); err != nil {
				t.Fatal(err)
			}
			check := func() string {
				t.Helper()
				findings, err := s.Check(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var all []string
				for _, f := range findings {
					if f.What == "" || f.Mend == "" {
						t.Errorf("half a finding: %+v", f)
					}
					if f.Serious || strings.Contains(f.What, "partition") {
						all = append(all, f.What)
					}
				}
				return strings.Join(all, " ")
			}
			if got := check(); got != "" {
				t.Errorf("Check of a sound store finds: %s", got)
			}
			execute(t, dsn, test.sql)
			if got := check(); !strings.Contains(got, test.want) {
				t.Errorf("Check finds %q, want something about %q", got, test.want)
			}
		})
	}
}

func execute(t testing.TB, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func TestFail(t *testing.T) {
	pg := func(code string) error {
		return fmt.Errorf("query: %w", &pgconn.PgError{Code: code, Severity: "ERROR"})
	}
	for name, test := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"disk full":            {pg("53100"), fault.Unavailable},
		"too many connections": {pg("53300"), fault.Unavailable},
		"shutting down":        {pg("57P01"), fault.Unavailable},
		"starting up":          {pg("57P03"), fault.Unavailable},
		"deadlock":             {pg("40P01"), fault.Unavailable},
		"statement timeout":    {pg("57014"), fault.Unavailable},
		"lock timeout":         {pg("55P03"), fault.Unavailable},
		"standby":              {pg("25006"), fault.Unavailable},
		"I/O error":            {pg("58030"), fault.Unavailable},
		"wrong password":       {pg("28P01"), fault.Unavailable},
		"unique":               {pg("23505"), fault.Conflict},
		"syntax":               {pg("42601"), fault.Internal},
		"corrupted":            {pg("XX001"), fault.Internal},
		"connection closed":    {io.ErrUnexpectedEOF, fault.Unavailable},
		"connection refused":   {&net.OpError{Op: "dial", Err: errors.New("connection refused")}, fault.Unavailable},
		"cancelled":            {context.Canceled, fault.Unavailable},
		"decided before":       {fault.New(fault.NotFound, "no"), fault.NotFound},
		"anything":             {errors.New("anything"), fault.Internal},
	} {
		err := postgres.Fail(test.err, "testing")
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || e.Kind != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		} else if e.Kind == fault.Unavailable && e.RetryAfter == 0 {
			t.Errorf("%s: no RetryAfter", name)
		}
	}
	if postgres.Fail(nil, "testing") != nil {
		t.Error("a fault was made of nothing")
	}
}
