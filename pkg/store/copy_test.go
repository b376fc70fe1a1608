package store_test

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/certwright/certwright/migrations"
	"github.com/certwright/certwright/pkg/store"
)

// apart are the tables that are not copied, or not row by row.
var apart = map[string]string{
	"head":               "set when everything else is there",
	"store_state":        "each store has its own",
	"lease":              "ends by itself; the copy has its own holders",
	"schema_step":        "made by the migrations",
	"certificate_der":    "comes with table certificate",
	"certificate_search": "an index",
	"search_progress":    "of an index",
}

// TestEveryTableIsCopied fails when a migration makes a table or a column that copies leave out.
func TestEveryTableIsCopied(t *testing.T) {
	create := regexp.MustCompile(`(?ms)^CREATE (?:VIRTUAL )?TABLE (\w+)( PARTITION OF)?.*?;\n`)
	alter := regexp.MustCompile(`(?ms)^ALTER TABLE (\w+)\n.*?;\n`)
	for _, folder := range []string{"postgres", "sqlite"} {
		found, added := map[string]string{}, map[string]string{}
		files, err := fs.Glob(migrations.FS, folder+"/*.up.sql")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := migrations.FS.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range alter.FindAllStringSubmatch(string(b), -1) {
				added[m[1]] += m[0]
			}
			for _, m := range create.FindAllStringSubmatch(string(b), -1) {
				if m[2] == "" {
					found[m[1]] = m[0]
				}
			}
		}
		for _, table := range store.Tables() {
			definition, ok := found[table.Name]
			if !ok {
				t.Errorf("%s: there is no table %s", folder, table.Name)
				continue
			}
			delete(found, table.Name)
			var names []string
			for _, c := range table.Columns {
				names = append(names, c.Name)
			}
			for line := range strings.Lines(definition + added[table.Name]) {
				line = strings.Replace(line, "ADD COLUMN ", "", 1)
				word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
				if !strings.HasPrefix(line, "    ") || word == "" || word == "--" || word == strings.ToUpper(word) || word == "id" && table.Name == "certificate" {
					continue
				}
				if derived := []string{"bucket", "search_text", "nonce"}; !slices.Contains(names, word) && !slices.Contains(derived, word) {
					t.Errorf("%s: column %s of table %s is not copied", folder, word, table.Name)
				}
			}
		}
		for name := range found {
			if apart[name] == "" {
				t.Errorf("%s: table %s is not copied: add it to Tables, or here with the reason", folder, name)
			}
		}
	}
}
