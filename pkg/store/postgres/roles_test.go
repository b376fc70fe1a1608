package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/certwright/certwright/migrations"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
	"github.com/certwright/certwright/pkg/store/storetest"
)

// serverRole makes a role that servers run as, with its rights in this database, and returns the address for it.
func serverRole(t testing.TB, owner string) (role, dsn string) {
	t.Helper()
	role, dsn = makeRole(t, owner)
	if _, err := postgres.Grant(t.Context(), owner, role, false); err != nil {
		t.Fatalf("Grant: %v", err)
	}
	return role, dsn
}

// makeRole makes a role without rights.
func makeRole(t testing.TB, owner string) (role, dsn string) {
	t.Helper()
	u, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	role = "cwtest server " + fmt.Sprintf("%x", octets(4)) // a name that must be quoted
	execute(t, owner, `CREATE ROLE `+pgx.Identifier{role}.Sanitize()+` LOGIN PASSWORD 'test'`)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), owner)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		for _, end := range []string{`DROP OWNED BY `, `DROP ROLE `} {
			if _, err := conn.Exec(context.Background(), end+pgx.Identifier{role}.Sanitize()); err != nil {
				t.Error(err)
			}
		}
	})
	u.User = url.UserPassword(role, "test")
	return role, u.String()
}

// TestStoreAsServerRole runs the suite as the role that servers have.
func TestStoreAsServerRole(t *testing.T) {
	if testing.Short() {
		t.Skip("the whole suite, again")
	}
	var addresses sync.Map
	opened := func(t *testing.T, dsn string) store.Store {
		s := open(t, dsn)
		addresses.Store(store.Store(s), dsn)
		return s
	}
	address := func(s store.Store) string {
		dsn, _ := addresses.Load(s)
		return dsn.(string)
	}
	storetest.Run(t, storetest.Harness{
		Open: func(t *testing.T) store.Store {
			_, dsn := serverRole(t, migrated(t))
			return opened(t, dsn)
		},
		Reopen: func(t *testing.T, s store.Store) store.Store {
			if err := s.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			return opened(t, address(s))
		},
		Second: func(t *testing.T, s store.Store) store.Store { return opened(t, address(s)) },
	})
}

// What the servers' role must not be able to do, however it tries.
func TestServerRoleCannot(t *testing.T) {
	owner := migrated(t)
	role, dsn := serverRole(t, owner)
	s := open(t, dsn)
	setUp(t, s)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	forbidden := []string{
		`UPDATE audit_record SET actor = 'nobody'`, `DELETE FROM audit_record`, `UPDATE audit_batch SET hash = root`, `DELETE FROM audit_batch`,
		`INSERT INTO audit_record SELECT * FROM audit_record ON CONFLICT (seq) DO UPDATE SET actor = 'nobody'`,
		`UPDATE status_event SET status = 0`, `DELETE FROM status_event`, `UPDATE store_state SET state = 0`,
		`UPDATE certificate SET subject = 'CN=another'`, `DELETE FROM certificate`, `UPDATE profile SET config = ''`, `DELETE FROM profile`, `DELETE FROM api_token`,
		`UPDATE schema_migrations SET version = 1`, `INSERT INTO schema_step VALUES (99)`, `UPDATE crl SET der = ''`,
		`ALTER TABLE audit_record DISABLE TRIGGER ALL`, `ALTER TABLE audit_record ADD COLUMN x int`, `ALTER TABLE head DROP CONSTRAINT head_closed`,
		`CREATE RULE r AS ON INSERT TO audit_record DO INSTEAD NOTHING`, `CREATE TRIGGER t BEFORE INSERT ON audit_record EXECUTE FUNCTION suppress_redundant_updates_trigger()`,
		`GRANT ALL ON audit_record TO CURRENT_USER`, `ALTER TABLE audit_record OWNER TO CURRENT_USER`, `SET session_replication_role = replica`,
		`DROP INDEX audit_record_target`, `DROP SCHEMA public CASCADE`,
	}
	rows, err := conn.Query(t.Context(), `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 20 {
		t.Fatalf("%v, %v", tables, err)
	}
	for _, name := range tables {
		forbidden = append(forbidden, `DROP TABLE `+name+` CASCADE`, `TRUNCATE `+name+` CASCADE`)
	}
	for _, sql := range forbidden {
		if tag, err := conn.Exec(t.Context(), sql); err == nil {
			// A GRANT of what one does not have is a warning.
			if strings.HasPrefix(sql, "GRANT") {
				continue
			}
			t.Errorf("the servers' role may: %s (%s)", sql, tag)
		}
	}
	verifyChain(t, s)

	found := func(s store.Store) (advice int) {
		list, err := s.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if strings.Contains(f.What, "owns the tables") || strings.Contains(f.What, "can change or delete audit records") {
				advice++
			}
		}
		return advice
	}
	if n := found(s); n != 0 {
		t.Errorf("Check as the servers' role gives %d findings about roles", n)
	}
	execute(t, owner, `GRANT DELETE ON audit_record TO `+pgx.Identifier{role}.Sanitize())
	if n := found(s); n != 1 {
		t.Errorf("Check of a role that may delete audit records gives %d findings", n)
	}
	if n := found(open(t, owner)); n != 1 {
		t.Errorf("Check as the owner gives %d findings about roles, want 1", n)
	}
	if _, err := postgres.Grant(t.Context(), owner, role, false); err != nil { // takes it away again
		t.Errorf("Grant again: %v", err)
	}
	if n := found(s); n != 0 {
		t.Errorf("Check after Grant gives %d findings about roles", n)
	}
	if err := s.Fence(t.Context(), store.CopyID{1}, "x", base, issuance(1, 1).Record); !fault.Is(err, fault.Forbidden) {
		t.Errorf("Fence as the servers' role: %v, want Forbidden", err)
	}

	for what, refused := range map[string]struct {
		role string
		kind fault.Kind
	}{"no such role": {"cwtest nobody", fault.NotFound}, "the owner": {"postgres", fault.BadRequest}, "no name": {"", fault.BadRequest}} {
		if _, err := postgres.Grant(t.Context(), owner, refused.role, false); !fault.Is(err, refused.kind) && !fault.Is(err, fault.Conflict) {
			t.Errorf("Grant to %s: %v, want %v", what, err, refused.kind)
		}
	}
	if _, err := postgres.Grant(t.Context(), pgtest.DSN(t), role, true); err == nil {
		t.Error("Grant in a database without a schema succeeds")
	}
	if list, err := postgres.Grant(t.Context(), owner, role, true); err != nil || len(list) < 20 {
		t.Errorf("Grant, dry: %v, %v", list, err)
	}
}

// A replica waits for what another one is writing, though that one has another role, as while servers are given one of
// their own.
func TestSettleAcrossRoles(t *testing.T) {
	owner := migrated(t)
	_, dsn := serverRole(t, owner)
	old, fresh := openPatient(t, owner), openPatient(t, dsn)
	issuerID, keyID := setUp(t, old)
	first := issuance(issuerID, keyID)
	if err := old.RecordIssuance(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	holder, watcher := pgtest.Connect(t, owner), pgtest.Connect(t, owner) // in a transaction, pg_stat_activity stays as it was
	pgtest.Exec(t, holder, `BEGIN`)
	pgtest.Exec(t, holder, `SELECT 1 FROM device WHERE id = '`+first.Certificate.Device+`' FOR UPDATE`)
	late := issuance(issuerID, keyID)
	late.Certificate.Device, late.Certificate.SPKIHash = first.Certificate.Device, first.Certificate.SPKIHash
	issued, settled := make(chan error, 1), make(chan error, 1)
	go func() { issued <- old.RecordIssuance(t.Context(), late) }()
	until := func(what, sql string, early chan error) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			var met bool
			if err := watcher.QueryRow(t.Context(), sql).Scan(&met); err != nil {
				t.Fatal(err)
			}
			if met {
				return
			}
			if len(early) > 0 || time.Now().After(deadline) {
				t.Fatalf("%s: it does not", what)
			}
		}
	}
	until("the issuance waits", `SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`, issued)
	report := revoke(first.Certificate)
	report.BlockKey, report.Revocation.Reason = true, pki.KeyCompromise
	if _, err := fresh.ChangeStatus(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	go func() { settled <- fresh.Settle(t.Context()) }()
	looks := ` FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%backend_xid%'`
	until("Settle looks", `SELECT EXISTS (SELECT 1`+looks+`)`, nil)
	for range 8 { // one look is up to two statements
		var look time.Time
		if err := watcher.QueryRow(t.Context(), `SELECT max(query_start)`+looks).Scan(&look); err != nil {
			t.Fatal(err)
		}
		until("Settle waits for a transaction of another role, and looks again", `SELECT max(query_start) > '`+look.Format(time.RFC3339Nano)+`'`+looks, settled)
	}
	pgtest.Exec(t, holder, `ROLLBACK`)
	if err := <-settled; err != nil {
		t.Errorf("Settle: %v", err)
	}
	if n, err := fresh.CountCertificates(t.Context(), store.CertificateFilter{SPKIHash: &first.Certificate.SPKIHash}, 10); err != nil || n != 2 {
		t.Errorf("after Settle there are %d certificates for the key, %v; want both", n, err)
	}
	if err := <-issued; err != nil {
		t.Errorf("RecordIssuance: %v", err)
	}
}

// upTo returns the migrations up to a version.
func upTo(t *testing.T, version uint) fs.FS {
	t.Helper()
	files := fstest.MapFS{}
	names, err := fs.Glob(migrations.FS, "postgres/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		var n uint
		if _, err := fmt.Sscanf(strings.TrimPrefix(name, "postgres/"), "%d", &n); err != nil {
			t.Fatal(err)
		}
		if n > version {
			continue
		}
		b, err := migrations.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: b}
	}
	return files
}

// A role that was given its rights by an earlier release gets what it lacks with the migration, and by each migration in
// its own transaction; others get nothing.
func TestMigrationGivesRights(t *testing.T) {
	owner := pgtest.DSN(t)
	if _, to, err := postgres.MigrateFrom(t.Context(), owner, upTo(t, 8), time.Second); err != nil || to != 8 {
		t.Fatalf("Migrate = %d, %v", to, err)
	}
	server, dsn := makeRole(t, owner)
	reader, _ := makeRole(t, owner)
	conn, err := pgx.Connect(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, statement := range postgres.GrantStatements("public", server) {
		// That release knew no tables that came later.
		if name := regexp.MustCompile(`ON "public"\."(\w+)"`).FindStringSubmatch(statement); name != nil {
			var exists bool
			if err := conn.QueryRow(t.Context(), `SELECT to_regclass($1) IS NOT NULL`, name[1]).Scan(&exists); err != nil {
				t.Fatal(err)
			}
			if !exists {
				continue
			}
		}
		execute(t, owner, statement)
	}
	execute(t, owner, `GRANT SELECT ON audit_record, certificate TO `+pgx.Identifier{reader}.Sanitize())
	may := func(role, table, privilege string) (yes bool) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), `SELECT has_table_privilege($1, $2, $3)`, role, table, privilege).Scan(&yes); err != nil {
			t.Fatal(err)
		}
		return yes
	}
	if _, to, err := postgres.MigrateFrom(t.Context(), owner, upTo(t, 9), time.Second); err != nil || to != 9 {
		t.Fatalf("Migrate = %d, %v", to, err)
	}
	if !may(server, "device", "INSERT") || may(server, "device", "DELETE") {
		t.Error("migration 9 has not given the servers' role its rights, or more")
	}
	for range 2 { // two that start together
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, _, err := postgres.Migrate(t.Context(), owner); err != nil {
					t.Errorf("Migrate: %v", err)
				}
			})
		}
		wg.Wait()
		s := open(t, dsn)
		if head := mustHead(t, s); head.Change == 0 {
			setUp(t, s)
		}
		issuerID, keyID := ids(t, s)
		if err := s.RecordIssuance(t.Context(), issuance(issuerID, keyID)); err != nil {
			t.Errorf("RecordIssuance as the servers' role: %v", err)
		}
		if may(reader, "device", "SELECT") || may(reader, "head", "SELECT") {
			t.Error("a role that only reads was given rights")
		}

		// What a release needs beyond what the one before needed, on the same tables.
		execute(t, owner, `REVOKE DELETE ON refusal FROM `+pgx.Identifier{server}.Sanitize())
		execute(t, owner, `REVOKE UPDATE (search_text) ON certificate FROM `+pgx.Identifier{server}.Sanitize())
		_, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.Forbidden || !strings.Contains(e.Detail, "DELETE on refusal") ||
			!strings.Contains(e.Detail, "UPDATE (search_text) on certificate") || !strings.Contains(e.Hint, "store migrate") {
			t.Errorf("Open of a role that lacks rights: %v", err)
		}
		list, err := open(t, owner).Check(t.Context())
		if err != nil || !slices.ContainsFunc(list, func(f store.Finding) bool { return f.Serious && strings.Contains(f.What, server) }) {
			t.Errorf("Check as the owner: %+v, %v; want the role that lacks rights", list, err)
		}
	}
	// The servers' role itself gives nothing, and does not fail over it.
	if _, _, err := postgres.Migrate(t.Context(), dsn); err != nil {
		t.Errorf("Migrate as the servers' role, with nothing to do: %v", err)
	}
}

// Every table that a migration makes has its rights.
func TestEveryTableHasRights(t *testing.T) {
	files, err := fs.Glob(migrations.FS, "postgres/*.up.sql")
	if err != nil {
		t.Fatal(err)
	}
	granted := strings.Join(postgres.GrantStatements("public", "x"), "\n")
	for _, file := range files {
		b, err := migrations.FS.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^CREATE TABLE (\w+)( PARTITION OF)?`).FindAllStringSubmatch(string(b), -1) {
			if m[2] == "" && !strings.Contains(granted, `"`+m[1]+`"`) {
				t.Errorf("table %s of %s is not in rights: the servers' role could not use it", m[1], file)
			}
		}
	}
}

// program finds one of Postgres' own.
func program(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	list, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(list) == 0 {
		t.Skipf("there is no %s", name)
	}
	slices.Sort(list)
	return list[len(list)-1]
}

// The commands of docs/operations.md: what they dump and restore is the store, as it was.
func TestDumpAndRestore(t *testing.T) {
	from, to := migrated(t), pgtest.DSN(t)
	dump := filepath.Join(t.TempDir(), "certwright.dump")
	s := open(t, from)
	role, _ := serverRole(t, from)
	storetest.Fill(t, s)
	want, head := storetest.Dump(t, s, 100), mustHead(t, s)
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(program(t, name), args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	run("pg_dump", "--format=custom", "--file="+dump, from)
	run("pg_restore", "--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges", "--dbname="+to, dump)
	restored := open(t, to)
	if got := storetest.Dump(t, restored, 100); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Error("the restored store has other rows")
	}
	if got := mustHead(t, restored); got != head {
		t.Errorf("Head = %+v, want %+v", got, head)
	}
	verifyChain(t, restored)
	found, err := restored.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Serious {
			t.Errorf("Check: %s", f.What)
		}
	}
	set, err := restored.AllIssuers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := restored.RecordIssuance(t.Context(), issuance(set.Keys[0].IssuerID, set.Keys[0].ID)); err != nil {
		t.Errorf("issuing after the restoration: %v", err)
	}
	if _, _, err := postgres.Migrate(t.Context(), to); err != nil {
		t.Errorf("Migrate after the restoration: %v", err)
	}
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "test")
	if _, err := postgres.Open(t.Context(), postgres.Config{DSN: u.String()}); !fault.Is(err, fault.Forbidden) {
		t.Errorf("Open as the servers' role, which has no rights in the restored database: %v", err)
	}
	if _, err := postgres.Grant(t.Context(), to, role, false); err != nil {
		t.Fatalf("Grant after the restoration: %v", err)
	}
	t.Cleanup(func() { // before the role is dropped
		conn, err := pgx.Connect(context.Background(), to)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), `DROP OWNED BY `+pgx.Identifier{role}.Sanitize()); err != nil {
			t.Error(err)
		}
	})
	if err := open(t, u.String()).RecordIssuance(t.Context(), issuance(set.Keys[0].IssuerID, set.Keys[0].ID)); err != nil {
		t.Errorf("issuing as the servers' role after the restoration: %v", err)
	}
}

func mustHead(t *testing.T, s store.Store) store.Head {
	t.Helper()
	h, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}
