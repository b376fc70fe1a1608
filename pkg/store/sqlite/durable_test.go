package sqlite_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/certwright/certwright/migrations"
	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/sqlite"
)

// writerPath names the environment variable that makes this program the child of TestKilled.
const writerPath = "CERTWRIGHT_TEST_SQLITE_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerPath); path != "" {
		if err := writeUntilKilled(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// writeUntilKilled writes from many goroutines and prints the fingerprint of every write that was acknowledged.
func writeUntilKilled(path string) error {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	if err != nil {
		return err
	}
	set, err := s.AllIssuers(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var g sync.WaitGroup
	for range 16 {
		g.Go(func() {
			for {
				i := newIssuance(set.Issuers[0].ID, set.Keys[0].ID, rand.IntN(1e6))
				if err := s.RecordIssuance(ctx, i); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				line := fmt.Sprintf("%x\n", i.Certificate.Fingerprint)
				if rand.IntN(3) == 0 {
					_, err := s.ChangeStatus(ctx, store.StatusChange{
						IssuerID: i.Certificate.IssuerID, Serial: i.Certificate.Serial, Action: pki.ActionRevoke,
						Revocation: pki.Revocation{Reason: pki.KeyCompromise, RevokedAt: start}, Record: audit.Record{Time: start, Action: audit.ActionRevoke},
					})
					if err != nil {
						fmt.Fprintln(os.Stderr, err)
						os.Exit(1)
					}
					line += fmt.Sprintf("%x revoked\n", i.Certificate.Fingerprint)
				}
				mu.Lock()
				os.Stdout.WriteString(line)
				mu.Unlock()
			}
		})
	}
	g.Wait()
	return nil
}

// verify walks the chain and compares it with the head.
func verify(t *testing.T, s *sqlite.Store) {
	t.Helper()
	var v audit.Verifier
	for b, err := range s.AuditChain(t.Context()) {
		if err != nil {
			t.Fatalf("AuditChain: %v", err)
		}
		if err := v.Add(b.Batch, b.Records); err != nil {
			t.Fatalf("AuditChain: %v", err)
		}
	}
	h, err := s.Head(t.Context())
	if err != nil || h.Change != v.Change || h.Hash != v.Head || h.AuditSeq != v.Records {
		t.Fatalf("the chain ends with %+v, the head is %+v, %v", v, h, err)
	}
}

func noFindings(t *testing.T, s *sqlite.Store) {
	t.Helper()
	found, err := s.Check(t.Context())
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	for _, f := range found {
		if f.Serious && !strings.HasPrefix(f.What, "The disk that holds the database has") { // TestDiskFull's is small
			t.Errorf("Check finds: %s", f.What)
		}
	}
}

func TestKilled(t *testing.T) {
	path := fresh(t)
	s := open(t, path)
	setUp(t, s)
	s.Close()
	acknowledged := map[string]bool{}
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerPath+"="+path)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == 0 { // it runs: its hour will come
				time.AfterFunc(time.Duration(rand.Int64N(int64(150*time.Millisecond))), func() { cmd.Process.Kill() })
			}
			acknowledged[lines.Text()] = true
		}
		if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
			t.Fatalf("round %d: the writer ended by itself: %v, %s", round, err, stderr.String())
		}
		s := open(t, path)
		for line := range acknowledged {
			text, revoked := strings.CutSuffix(line, " revoked")
			var f pki.Fingerprint
			if len(text) != hex.EncodedLen(len(f)) {
				continue // the last line was cut off
			}
			if _, err := hex.Decode(f[:], []byte(text)); err != nil {
				t.Fatal(err)
			}
			c, err := s.Certificate(t.Context(), f)
			if err != nil {
				t.Errorf("round %d: an acknowledged certificate is missing: %v", round, err)
			}
			if revoked && c.Revocation == nil {
				t.Errorf("round %d: an acknowledged revocation is missing", round)
			}
		}
		verify(t, s)
		if round == rounds-1 {
			noFindings(t, s)
		}
		s.Close()
	}
	if len(acknowledged) < rounds*10 {
		t.Errorf("%d acknowledged writes in %d rounds: too few to tell", len(acknowledged), rounds)
	}
}

func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	path := filepath.Join(dir, "ca.db")
	if _, _, err := sqlite.Migrate(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	issuer, key := setUp(t, s)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var (
		mu       sync.Mutex
		written  []store.Issuance
		refused  []store.Issuance
		g        sync.WaitGroup
		deadline = time.Now().Add(30 * time.Second)
	)
	for w := range 16 {
		g.Go(func() {
			for n := 0; time.Now().Before(deadline); n++ {
				i := newIssuance(issuer, key, w*1e6+n)
				err := s.RecordIssuance(t.Context(), i)
				mu.Lock()
				if err == nil {
					written = append(written, i)
				} else {
					refused = append(refused, i)
				}
				mu.Unlock()
				if err != nil {
					if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.Unavailable || !strings.Contains(f.Hint, "space") || f.RetryAfter == 0 {
						t.Errorf("RecordIssuance on a full disk: got error %#v, want unavailable with a hint about space", err)
					}
					return
				}
			}
		})
	}
	g.Wait()
	if len(refused) != 16 || len(written) == 0 {
		t.Fatalf("%d writes were refused and %d done, want 16 and some", len(refused), len(written))
	}
	present := func() {
		t.Helper()
		for _, i := range written {
			if _, err := s.Certificate(t.Context(), i.Certificate.Fingerprint); err != nil {
				t.Errorf("an acknowledged certificate is missing: %v", err)
			}
		}
		verify(t, s)
	}
	present()
	for _, i := range refused {
		if _, err := s.Certificate(t.Context(), i.Certificate.Fingerprint); !fault.Is(err, fault.NotFound) {
			t.Errorf("a refused certificate: got error %v, want not_found", err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for _, i := range refused {
		if err := s.RecordIssuance(t.Context(), i); err != nil {
			t.Errorf("RecordIssuance with space again: %v", err)
		}
	}
	written = append(written, refused...)
	present()
	s.Close()
	s = open(t, path)
	present()
	if h, err := s.Head(t.Context()); err != nil || h.AuditSeq != int64(1+len(written)) {
		t.Errorf("there are %d audit records, %v; want %d", h.AuditSeq, err, 1+len(written))
	}
	noFindings(t, s)
}

func TestSecondProcess(t *testing.T) {
	path := fresh(t)
	s := open(t, path)
	_, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.Conflict || !strings.Contains(f.Hint, "REST") || !strings.Contains(f.Hint, "Postgres") {
		t.Errorf("Open twice: got error %#v, want a conflict whose hint names REST and Postgres", err)
	}
	if _, _, err := sqlite.Migrate(t.Context(), path); !fault.Is(err, fault.Conflict) {
		t.Errorf("Migrate of an open database: got error %v, want a conflict", err)
	}
	if v, dirty, err := sqlite.Version(t.Context(), path); err != nil || v == 0 || dirty {
		t.Errorf("Version of an open database = %d, %v, %v", v, dirty, err)
	}
	s.Close()
	open(t, path)
}

func TestPermissions(t *testing.T) {
	path := fresh(t)
	if err := os.Chmod(path, 0o644); err != nil { // as a careless restore leaves it
		t.Fatal(err)
	}
	s := open(t, path)
	setUp(t, s)
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the permissions %o, want 600", filepath.Base(path)+suffix, info.Mode().Perm())
		}
	}
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: link}); err == nil {
		t.Error("Open follows a symbolic link")
	}
}

func raw(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", (&fileURL{path}).String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// fileURL is a path in the form that SQLite takes.
type fileURL struct{ path string }

func (u *fileURL) String() string {
	return "file:" + strings.NewReplacer("%", "%25", "#", "%23", "?", "%3f", " ", "%20").Replace(u.path)
}

func TestSchema(t *testing.T) {
	ctx := t.Context()
	wantOpen := func(path string, sentinel error) {
		t.Helper()
		s, err := sqlite.Open(ctx, sqlite.Config{Path: path})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, sentinel) || !fault.Is(err, fault.Conflict) {
			t.Errorf("Open: got error %v, want a conflict that wraps %q", err, sentinel)
		}
	}
	path := filepath.Join(t.TempDir(), "ca.db")
	wantOpen(path, store.ErrSchemaOld)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open made a file: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantOpen(path, store.ErrSchemaOld)
	if v, dirty, err := sqlite.Version(ctx, path); v != 0 || dirty || err != nil {
		t.Errorf("Version of an empty file = %d, %v, %v", v, dirty, err)
	}
	latest, err := migrations.Latest(migrations.FS, "sqlite")
	if err != nil {
		t.Fatal(err)
	}
	if from, to, err := sqlite.Migrate(ctx, path); from != 0 || to != latest || err != nil {
		t.Errorf("Migrate = %d, %d, %v; want 0, %d", from, to, err, latest)
	}
	if from, to, err := sqlite.Migrate(ctx, path); from != latest || to != latest || err != nil {
		t.Errorf("Migrate again = %d, %d, %v; want %d twice", from, to, err, latest)
	}
	raw(t, path, `UPDATE schema_migrations SET dirty = 1`)
	wantOpen(path, store.ErrSchemaDirty)
	if v, dirty, err := sqlite.Version(ctx, path); v != latest || !dirty || err != nil {
		t.Errorf("Version = %d, %v, %v; want %d, dirty", v, dirty, err, latest)
	}
	if _, to, err := sqlite.Migrate(ctx, path); to != latest || err != nil {
		t.Errorf("Migrate of a dirty database = %d, %v", to, err)
	}
	s := open(t, path)
	setUp(t, s)
	s.Close()
	raw(t, path, `PRAGMA user_version = 99`)
	wantOpen(path, store.ErrSchemaNew)
	if _, _, err := sqlite.Migrate(ctx, path); !errors.Is(err, store.ErrSchemaNew) {
		t.Errorf("Migrate of a newer database: got error %v, want one that wraps %q", err, store.ErrSchemaNew)
	}
}

func TestDownAndUp(t *testing.T) {
	path := fresh(t)
	latest, err := migrations.Latest(migrations.FS, "sqlite")
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Glob(migrations.FS, "sqlite/*.down.sql")
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(files)
	for _, file := range files {
		down, err := migrations.FS.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		raw(t, path, string(down))
	}
	raw(t, path, `CREATE TABLE none_left AS SELECT name FROM sqlite_master WHERE name NOT LIKE 'schema_migrations' AND name NOT LIKE 'version_unique'`)
	db, err := sql.Open("sqlite", (&fileURL{path}).String())
	if err != nil {
		t.Fatal(err)
	}
	var left int
	if err := db.QueryRow(`SELECT count(*) FROM none_left`).Scan(&left); err != nil || left != 0 {
		t.Errorf("the down migration leaves %d tables behind, %v", left, err)
	}
	db.Close()
	raw(t, path, `DROP TABLE none_left`)
	if from, to, err := sqlite.Migrate(t.Context(), path); from != 0 || to != latest || err != nil {
		t.Errorf("Migrate after down = %d, %d, %v; want 0, %d", from, to, err, latest)
	}
	open(t, path)
}

func TestMigrationFails(t *testing.T) {
	const next = 9001
	latest, err := migrations.Latest(migrations.FS, "sqlite")
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(migrations.FS, "sqlite/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	files := func(more string) fstest.MapFS {
		all := fstest.MapFS{"sqlite/9001_more.up.sql": {Data: []byte(more)}, "sqlite/9001_more.down.sql": {Data: []byte("")}}
		for _, name := range names {
			b, err := migrations.FS.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = &fstest.MapFile{Data: b}
		}
		return all
	}
	path := filepath.Join(t.TempDir(), "ca.db")
	for name, bad := range map[string]string{
		"a statement that fails": `CREATE TABLE more (x INTEGER) STRICT; PRAGMA user_version = 9001; CREATE TABLE head (x INTEGER);`,
		"no SQL":                 `CREATE TABLE more (x INTEGER) STRICT; PRAGMA user_version = 9001; nonsense;`,
	} {
		_, to, err := sqlite.MigrateFS(t.Context(), path, files(bad))
		f, ok := errors.AsType[*fault.Error](err)
		if !ok || to != latest || !strings.Contains(f.Detail, "migration ") || !strings.Contains(f.Hint, "certwright store migrate") {
			t.Errorf("%s: Migrate = %d, %#v; want %d and what to do", name, to, err, latest)
		}
		if v, dirty, err := sqlite.Version(t.Context(), path); v != latest || dirty || err != nil {
			t.Errorf("%s: Version = %d, %v, %v; want %d, clean", name, v, dirty, err, latest)
		}
		s := open(t, path) // the schema is as it was
		s.Close()
	}
	if from, to, err := sqlite.MigrateFS(t.Context(), path, files(`CREATE TABLE more (x INTEGER) STRICT; PRAGMA user_version = 9001;`)); from != latest || to != next || err != nil {
		t.Errorf("Migrate with the file mended = %d, %d, %v; want %d, %d", from, to, err, latest, next)
	}
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}); !errors.Is(err, store.ErrSchemaNew) {
		t.Errorf("Open: got error %v, want one that wraps %q", err, store.ErrSchemaNew)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := sqlite.Migrate(ctx, filepath.Join(t.TempDir(), "x.db")); !errors.Is(err, context.Canceled) {
		t.Errorf("Migrate under a cancelled context: got error %v", err)
	}
}

func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.db")
	if err := os.WriteFile(path, bytes.Repeat([]byte("this is no database\n"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"Open":    func() error { _, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}); return err }(),
		"Migrate": func() error { _, _, err := sqlite.Migrate(t.Context(), path); return err }(),
		"Version": func() error { _, _, err := sqlite.Version(t.Context(), path); return err }(),
	} {
		if f, ok := errors.AsType[*fault.Error](err); !ok || !strings.Contains(f.Detail, "damaged") || !strings.Contains(f.Hint, "backup") {
			t.Errorf("%s of a file that is no database: got error %#v", what, err)
		}
	}

	path = fresh(t)
	s := open(t, path)
	issuer, key := setUp(t, s)
	for n := range 300 {
		if err := s.RecordIssuance(t.Context(), newIssuance(issuer, key, n)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := len(b) / 4; at < len(b)*3/4; at += 4096 { // pages of every table
		copy(b[at:], bytes.Repeat([]byte{0xa5}, 512))
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err = sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		defer s.Close()
		var found []store.Finding
		if found, err = s.Check(t.Context()); err == nil {
			if len(found) == 0 || !found[0].Serious || !strings.Contains(found[0].What, "damaged") {
				t.Errorf("Check of a damaged file finds %v", found)
			}
			return
		}
	}
	if f, ok := errors.AsType[*fault.Error](err); !ok || !strings.Contains(f.Detail, "damaged") {
		t.Errorf("a damaged file: got error %#v", err)
	}
}

func TestCheckFinds(t *testing.T) {
	for name, tc := range map[string]struct{ statement, want string }{
		"record dropped":     {`DELETE FROM audit_record WHERE seq = 3`, "audit"},
		"record edited":      {`UPDATE audit_record SET record = CAST(replace(record, 'enroller', 'operator') AS BLOB) WHERE seq = 3`, "chain"},
		"record forged":      {`UPDATE audit_record SET record = CAST('{}' AS BLOB) WHERE seq = 3`, "chain"},
		"batch dropped":      {`DELETE FROM audit_batch WHERE change = 2`, "batch"},
		"head moved":         {`UPDATE head SET change = change + 1`, "head"},
		"head's hash":        {`UPDATE head SET hash = zeroblob(32)`, "hash"},
		"orphan revocation":  {`DELETE FROM certificate WHERE id = (SELECT c.id FROM certificate c JOIN revocation r ON r.serial = c.serial)`, "of no certificate"},
		"unrevoked in place": {`UPDATE revocation SET status = 2`, "reason"},
		"history dropped":    {`DELETE FROM status_event`, "history"},
		"key dropped":        {`DELETE FROM sealed_key`, "private key"},
		"foreign key":        {`UPDATE issuer_certificate SET issuer_key_id = 77`, "refers"},
	} {
		t.Run(name, func(t *testing.T) {
			path := fresh(t)
			s := open(t, path)
			issuer, key := setUp(t, s)
			for n := range 5 {
				if err := s.RecordIssuance(t.Context(), newIssuance(issuer, key, n)); err != nil {
					t.Fatal(err)
				}
			}
			i := newIssuance(issuer, key, 9)
			if err := s.RecordIssuance(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			_, err := s.ChangeStatus(t.Context(), store.StatusChange{
				IssuerID: issuer, Serial: i.Certificate.Serial, Action: pki.ActionRevoke,
				Revocation: pki.Revocation{Reason: pki.KeyCompromise, RevokedAt: start}, Record: audit.Record{Time: start, Action: audit.ActionRevoke},
			})
			if err != nil {
				t.Fatal(err)
			}
			noFindings(t, s)
			s.Close()
			raw(t, path, tc.statement)
			s = open(t, path)
			found, err := s.Check(t.Context())
			if err != nil {
				t.Fatalf("Check: %v", err)
			}
			for _, f := range found {
				if f.Serious && f.Mend != "" && strings.Contains(f.What, tc.want) {
					return
				}
			}
			t.Errorf("Check finds %v, want something about %q", found, tc.want)
		})
	}
}

func TestBrokenBatch(t *testing.T) {
	s := open(t, fresh(t))
	issuer, key := setUp(t, s)
	var g sync.WaitGroup
	var mu sync.Mutex
	good := 0
	for n := range 200 {
		g.Go(func() {
			switch n % 20 {
			case 0:
				if err := s.BreakBatch(t.Context()); !fault.Is(err, fault.Internal) {
					t.Errorf("a statement that fails: got error %v, want internal", err)
				}
			case 1:
				if err := s.Panic(t.Context()); !fault.Is(err, fault.Internal) {
					t.Errorf("a panic: got error %v, want internal", err)
				}
			default:
				err := s.RecordIssuance(t.Context(), newIssuance(issuer, key, n+1))
				if err == nil {
					mu.Lock()
					good++
					mu.Unlock()
				} else {
					t.Errorf("RecordIssuance beside operations that break the batch: %v", err)
				}
			}
		})
	}
	g.Wait()
	if n, err := s.CountCertificates(t.Context(), store.CertificateFilter{}, 1000); err != nil || n != good+1 {
		t.Errorf("there are %d certificates, %v; want %d", n, err, good+1)
	}
	if blocked, err := s.BlockedKeys(t.Context()); err != nil || len(blocked) != 1 {
		t.Errorf("BlockedKeys = %v, %v; want that of the CA alone", blocked, err)
	}
	verify(t, s)
}

func TestStatusPlan(t *testing.T) {
	s := open(t, fresh(t))
	plan, err := s.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range plan {
		if strings.HasPrefix(line, "SCAN") {
			t.Errorf("a status look-up reads a whole table: %q", plan)
		}
	}
}

// TestTextIndex compares searches before and after rows enter the text index.
func TestTextIndex(t *testing.T) {
	s := open(t, fresh(t))
	issuer, key := setUp(t, s)
	add := func(n int, edit func(*pki.Certificate)) {
		i := newIssuance(issuer, key, n)
		if edit != nil {
			edit(&i.Certificate)
		}
		if err := s.RecordIssuance(t.Context(), i); err != nil {
			t.Error(err)
		}
	}
	add(1, func(c *pki.Certificate) { c.Subject = "CN=A\x00Behind-NUL" })
	add(2, func(c *pki.Certificate) { c.Subject = "CN=\"Quoted\" AND 100%" })
	add(3, func(c *pki.Certificate) { c.SANs = []string{"DNS:Größe.example", "DNS:ДОМ.example"} })
	needles := map[string]int{
		"behind-nul": 1, "A\x00B": 1, `"quoted"`: 1, "100%": 1, "GRÖSSE": 0, "größe": 1, "GRÖßE": 1, "дом": 1, "ом": 1, "n=a": 1, "nope": 0, "\xff": 0,
		"device-00000777.plant": 1, "ed-00000777": 0, "DNS:device-0000077": 10,
	}
	check := func(when string) {
		t.Helper()
		for needle, want := range needles {
			found, _, err := s.ListCertificates(t.Context(), store.CertificateFilter{Text: needle}, store.Page{})
			if err != nil || len(found) != want {
				t.Errorf("%s: %d records with %q, %v; want %d", when, len(found), needle, err, want)
			}
		}
	}
	const rows = 3 * sqlite.IndexAfter
	var g sync.WaitGroup
	for w := range 16 {
		g.Go(func() {
			for n := w; n < rows; n += 16 {
				if n > 3 {
					add(n, nil)
				}
			}
		})
	}
	g.Wait()
	needles["DNS:device-0000077"] = 10
	needles["plant-7."] = 77
	check("while the index fills")
	for deadline := time.Now().Add(30 * time.Second); ; {
		indexed, all, err := s.Indexed(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if all-indexed < sqlite.IndexAfter {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d certificates are in the text index after 30 s", indexed, all)
		}
		time.Sleep(10 * time.Millisecond)
	}
	check("when the index is filled")
	verify(t, s)
}
