package migrations_test

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/certwright/certwright/migrations"
)

// Both databases have the same migrations, and every up has its down.
func TestSameNames(t *testing.T) {
	names := func(folder string) (list []string) {
		files, err := fs.ReadDir(migrations.FS, folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			list = append(list, f.Name())
		}
		return list
	}
	postgres, sqlite := names("postgres"), names("sqlite")
	if !slices.Equal(postgres, sqlite) {
		t.Errorf("postgres has %v, sqlite has %v", postgres, sqlite)
	}
	for _, name := range postgres {
		if up, ok := strings.CutSuffix(name, ".up.sql"); ok && !slices.Contains(postgres, up+".down.sql") {
			t.Errorf("%s has no way back", name)
		}
	}
}

// What store/postgres relies on to mend a migration that was broken off.
func TestPostgresIsOneTransaction(t *testing.T) {
	latest, err := migrations.Latest(migrations.FS, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Glob(migrations.FS, "postgres/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		b, err := migrations.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
				lines = append(lines, line)
			}
		}
		if lines[0] != "BEGIN;" || lines[len(lines)-1] != "COMMIT;" || slices.Contains(lines[1:], "BEGIN;") || slices.Contains(lines[:len(lines)-1], "COMMIT;") {
			t.Errorf("%s is not one transaction from BEGIN; to COMMIT;", name)
		}
		var n uint
		if _, err := fmt.Sscanf(name, "postgres/%d_", &n); err != nil || n == 0 || n > latest {
			t.Errorf("%s: number %d, %v", name, n, err)
		}
		if step := fmt.Sprintf("INSERT INTO schema_step (version) VALUES (%d);", n); strings.HasSuffix(name, ".up.sql") && !slices.Contains(lines, step) {
			t.Errorf("%s lacks the line %s", name, step)
		}
	}
}

func TestLatest(t *testing.T) {
	file := &fstest.MapFile{}
	fsys := fstest.MapFS{"a/0001_x.up.sql": file, "a/0010_y.up.sql": file, "a/0011_z.down.sql": file, "b/x.up.sql": file, "c/readme": file}
	if n, err := migrations.Latest(fsys, "a"); err != nil || n != 10 {
		t.Errorf("Latest = %d, %v; want 10", n, err)
	}
	for _, folder := range []string{"b", "c", "d"} {
		if n, err := migrations.Latest(fsys, folder); err == nil {
			t.Errorf("Latest of %s = %d, want an error", folder, n)
		}
	}
}
