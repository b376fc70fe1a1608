// Package migrations embeds the schema of both databases, each in its own SQL (folders postgres and sqlite), under the
// same numbers and names: NNNN_name.up.sql and NNNN_name.down.sql. Packages store/postgres and store/sqlite apply them.
//
// A shipped migration never changes. What both sides rely on: every Postgres file is one transaction of its own (BEGIN
// first, COMMIT last) that also writes its number to schema_step, so that whether a file took effect can be read from
// the database after any failure.
package migrations

import (
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// FS holds the folders postgres and sqlite.
//
//go:embed postgres/*.sql sqlite/*.sql
var FS embed.FS

// Latest returns the highest number of an up migration in a folder of fsys.
func Latest(fsys fs.FS, folder string) (uint, error) {
	files, err := fs.Glob(fsys, folder+"/*.up.sql")
	if err != nil {
		return 0, err
	}
	var latest uint
	for _, file := range files {
		digits, _, _ := strings.Cut(strings.TrimPrefix(file, folder+"/"), "_")
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("migration %s: the name does not begin with a number from 1", file)
		}
		latest = max(latest, uint(n))
	}
	if latest == 0 {
		return 0, fmt.Errorf("no migrations in folder %q", folder)
	}
	return latest, nil
}
