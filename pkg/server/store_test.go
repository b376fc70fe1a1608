package server

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/transfer"
)

// storeSettings are those of a server with this store.
func storeSettings(t *testing.T, data, database string, migrate bool) config.Config {
	t.Helper()
	c := config.Config{Data: data, Database: database, Migrate: &migrate, HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", MTLS: config.Off}
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	return c
}

// started starts a server and ends it again.
func started(t *testing.T, c config.Config) error {
	t.Helper()
	s, err := New(t.Context(), c, Options{})
	if err != nil {
		return err
	}
	s.Close()
	return nil
}

// A server under «migrate: false» needs no more than the role that «store grant» makes: it sets the store up, issues, and
// publishes.
func TestServeAsServerRole(t *testing.T) {
	owner := pgtest.DSN(t)
	if _, _, err := MigrateStore(t.Context(), config.Config{Database: owner}); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	role := fmt.Sprintf("cwtest_server_%d", time.Now().UnixNano())
	if _, err := conn.Exec(t.Context(), `CREATE ROLE `+role+` LOGIN PASSWORD 'test'`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), `DROP OWNED BY `+role+`; DROP ROLE `+role); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "test")
	c := storeSettings(t, t.TempDir(), u.String(), false)
	if err := os.Chmod(c.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := started(t, c); err == nil {
		t.Error("a role without rights can serve")
	}
	asOwner := c
	asOwner.Database = owner
	if list, err := GrantStore(t.Context(), asOwner, role, false); err != nil || len(list) == 0 {
		t.Fatalf("GrantStore = %v, %v", list, err)
	}
	s, err := New(t.Context(), c, Options{})
	if err != nil {
		t.Fatalf("serving as the servers' role: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	published := s.store
	go func() { ended <- s.Run(ctx) }()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if h, err := published.Head(ctx); err == nil && h.CRLChange > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Error("no CRL was published")
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := RescueAdmin(t.Context(), c, "", 0, filepath.Join(c.Data, "rescue.token")); err != nil {
		t.Errorf("RescueAdmin as the servers' role: %v", err)
	}
	if v, err := VerifyAudit(t.Context(), c, nil); err != nil || v.Problem != "" {
		t.Errorf("VerifyAudit = %+v, %v", v, err)
	}
}

// From the embedded store to Postgres and back, with servers that are told no and yes at the right places.
func TestCopyStoreAndServe(t *testing.T) {
	base := t.TempDir()
	folder := func(name string) string { return filepath.Join(base, name) }
	dsn := pgtest.DSN(t)
	first, second := storeSettings(t, folder("first"), "", true), storeSettings(t, folder("second"), "", true)
	onPostgres := storeSettings(t, folder("replica"), dsn, true)
	onPostgres.Key.File, second.Key.File = folder("first/kek.key"), folder("first/kek.key")
	if err := started(t, first); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ from, to config.Config }{{first, onPostgres}, {onPostgres, second}} {
		steps := 0
		result, err := CopyStore(t.Context(), step.from, step.to, func(transfer.Step) { steps++ })
		if err != nil || result.Rows["certificate"] < 2 || steps == 0 {
			t.Fatalf("CopyStore = %+v, %v", result, err)
		}
		if err := started(t, step.from); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), StoreName(step.to)) {
			t.Errorf("the source starts, or does not say where its copy is: %v", err)
		}
		if err := started(t, step.to); err != nil {
			t.Errorf("serving the copy: %v", err)
		}
		if st, err := StoreState(t.Context(), step.from); err != nil || st.Use != store.Left {
			t.Errorf("StoreState = %+v, %v", st, err)
		}
		if err := UnfenceStore(t.Context(), step.from, false); !fault.Is(err, fault.Conflict) {
			t.Errorf("UnfenceStore = %v, want Conflict", err)
		}
		for name, check := range map[string]func(context.Context, config.Config) ([]store.Finding, error){"Check": Check, "CheckStore": CheckStore} {
			found, err := check(t.Context(), step.from)
			if err != nil || !slices.ContainsFunc(found, func(f store.Finding) bool { return f.Serious && strings.Contains(f.What, "was copied to") }) {
				t.Errorf("%s of the source = %+v, %v, want the finding that it was left", name, found, err)
			}
		}
		if v, err := VerifyAudit(t.Context(), step.from, nil); err != nil || v.Problem != "" {
			t.Errorf("VerifyAudit of the source = %+v, %v", v, err)
		}
	}
	if strings.Contains(StoreName(onPostgres), "postgres@") {
		t.Errorf("StoreName = %q has a user in it", StoreName(onPostgres))
	}
}

func TestAtStore(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := keys.WriteFile(file, []byte("x"), false); err != nil {
		t.Fatal(err)
	}
	was := config.Config{Data: "/data", Database: "postgres://db/ca"}
	for where, want := range map[string][2]string{
		"postgres://u:p@host/db": {"/data", "postgres://u:p@host/db"}, "postgresql:///db": {"/data", "postgresql:///db"}, "host=/tmp dbname=x": {"/data", "host=/tmp dbname=x"},
		dir: {dir, ""}, dir + "/none/": {dir + "/none", ""},
	} {
		if c, err := AtStore(was, where); err != nil || c.Data != want[0] || c.Database != want[1] {
			t.Errorf("AtStore(%q) = %q, %q, %v; want %q", where, c.Data, c.Database, err, want)
		}
	}
	if _, err := AtStore(was, file); !fault.Is(err, fault.BadRequest) {
		t.Errorf("AtStore of a file: %v", err)
	}
}
