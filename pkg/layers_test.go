package pkg

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/certwright/certwright"
	root   = ".." // the module's folder, seen from here
)

// floors is the plan of the house: floors[n] are the packages on floor n. A package
// imports only packages on lower floors, never a neighbour. Some rooms are reserved for
// packages still to come.
var floors = [][]string{
	0: {"api", "migrations", "web", "pkg", "pkg/fault", "pkg/internal/pgtest", "pkg/internal/scepraw"},
	1: {"pkg/pki", "pkg/der", "pkg/keys", "pkg/groupcommit", "pkg/clock", "pkg/document"},
	2: {"pkg/webhook", "pkg/profile", "pkg/settings", "pkg/csr", "pkg/cms", "pkg/audit", "pkg/problem"},
	3: {"pkg/store"},
	4: {"pkg/store/postgres", "pkg/store/sqlite", "pkg/store/storetest"},
	5: {"pkg/issuer", "pkg/auth", "pkg/lease", "pkg/device", "pkg/enrollment", "pkg/watch", "pkg/transfer"},
	6: {"pkg/ca", "pkg/crl", "pkg/ocsp", "pkg/campaign", "pkg/export", "pkg/publication", "pkg/internal/certtest"},
	7: {
		"pkg/rest", "pkg/scep", "pkg/publish", "pkg/console", "pkg/est", "pkg/acme", "pkg/cmp",
		"pkg/client", "pkg/relying",
	},
	8:  {"pkg/config"},
	9:  {"pkg/server"},
	10: {"cmd/...", "scripts/..."},
	11: {"pkg/internal/e2e"},
}

// helpers serve tests: any test file may import them, and no other code but helpers.
var helpers = []string{"pkg/internal/...", "pkg/store/storetest"}

// sqlUsers may import database/sql: SQLite has no other interface, and the migration
// drivers ask for one. On Postgres everything else is pgx's native interface. The
// benchmark of CRLs puts a million rows under its server.
var sqlUsers = []string{"pkg/store/sqlite/*.go", "pkg/store/postgres/migrat*.go", "scripts/benchmark/crl.go"}

// sourceFile is a Go file of the module.
type sourceFile struct {
	path    string // from the module's root, with slashes
	imports []string
	syntax  *ast.File // nil for tests
}

func (f sourceFile) pkg() string  { return path.Dir(f.path) }
func (f sourceFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

func TestLayers(t *testing.T) {
	for _, v := range layerViolations(floors, sourceFiles(t)) {
		t.Error(v)
	}
}

// layerViolations names each wrong import once, in the order of files.
func layerViolations(floors [][]string, files []sourceFile) []string {
	var violations []string
	report := func(format string, args ...any) {
		if v := fmt.Sprintf(format, args...); !slices.Contains(violations, v) {
			violations = append(violations, v)
		}
	}
	for _, f := range files {
		from := f.pkg()
		if from == "." {
			report("%s: the module's root holds no package; code lives in pkg/", f.path)
			continue
		}
		floor, ok := floorOf(floors, from)
		if !ok {
			report("%s has no floor: add it to the table in pkg/layers_test.go, "+
				"one floor above the highest package of this module that it imports", from)
			continue
		}
		for _, imported := range f.imports {
			to, inModule := strings.CutPrefix(imported, module+"/")
			if !inModule || to == from {
				continue
			}
			isHelper := matches(helpers, to)
			if f.isTest() && isHelper {
				continue
			}
			if isHelper && !matches(helpers, from) {
				report("%s imports %s, which is for tests only", from, to)
				continue
			}
			toFloor, ok := floorOf(floors, to)
			switch {
			case !ok:
				report("%s imports %s, which has no floor in pkg/layers_test.go", from, to)
			case toFloor < floor:
			case f.isTest():
				report("%s (floor %d) imports %s (floor %d) in %s: a test that needs a package which is not below "+
					"its own belongs higher up, or to pkg/internal/e2e", from, floor, to, toFloor, path.Base(f.path))
			default:
				report("%s (floor %d) imports %s (floor %d)", from, floor, to, toFloor)
			}
		}
	}
	return violations
}

func floorOf(floors [][]string, pkg string) (int, bool) {
	for n, packages := range floors {
		if matches(packages, pkg) {
			return n, true
		}
	}
	return 0, false
}

// matches reports whether pkg is in the list, where "a/..." stands for a and all below.
func matches(list []string, pkg string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		parent, all := strings.CutSuffix(entry, "/...")
		return pkg == parent || all && strings.HasPrefix(pkg, parent+"/")
	})
}

func TestLayerViolations(t *testing.T) {
	floors := [][]string{0: {"api"}, 1: {"pkg/pki"}, 2: {"pkg/der", "pkg/csr", "pkg/internal/certtest"}, 10: {"cmd/..."}}
	tests := []struct {
		name    string
		path    string
		imports string
		want    string
	}{
		{"downwards", "pkg/der/der.go", "pkg/pki", ""},
		{"upwards", "pkg/pki/pki.go", "pkg/der", "pkg/pki (floor 1) imports pkg/der (floor 2)"},
		{"neighbour", "pkg/der/der.go", "pkg/csr", "pkg/der (floor 2) imports pkg/csr (floor 2)"},
		{"program", "cmd/certwright/main.go", "pkg/der", ""},
		{"package without a floor", "pkg/new/new.go", "pkg/pki", "pkg/new has no floor"},
		{"import without a floor", "pkg/der/der.go", "pkg/new", "pkg/der imports pkg/new, which has no floor"},
		{"module's root", "util.go", "pkg/pki", "util.go: the module's root holds no package"},
		{"a longer name is another package", "pkg/pki2/pki.go", "api", "pkg/pki2 has no floor"},
		{"external test of its own package", "pkg/der/der_test.go", "pkg/der", ""},
		{"test, downwards", "pkg/der/der_test.go", "pkg/pki", ""},
		{"test, neighbour", "pkg/der/der_test.go", "pkg/csr", "pkg/der (floor 2) imports pkg/csr (floor 2) in der_test.go"},
		{"test, helper above", "pkg/pki/pki_test.go", "pkg/internal/certtest", ""},
		{"helper in a program", "cmd/certwright/main.go", "pkg/internal/certtest", "is for tests only"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := sourceFile{path: test.path, imports: []string{"fmt", module + "/" + test.imports}}
			got := strings.Join(layerViolations(floors, []sourceFile{f}), "\n")
			if test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("%s importing %s: got %q, want %q", test.path, test.imports, got, test.want)
			}
		})
	}
}

func TestEveryPackageHasOneFloor(t *testing.T) {
	seen := make(map[string]int)
	for n, packages := range floors {
		for _, pkg := range packages {
			if other, ok := seen[pkg]; ok {
				t.Errorf("%s is on floor %d and on floor %d", pkg, other, n)
			}
			seen[pkg] = n
		}
	}
}

// TestNoInit: main builds everything by hand; nothing happens because of an import.
func TestNoInit(t *testing.T) {
	for _, f := range sourceFiles(t) {
		if f.isTest() {
			continue
		}
		for _, decl := range f.syntax.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function: do it in New, or where main builds things", f.path)
			}
		}
	}
}

func TestSQLStaysInItsStore(t *testing.T) {
	for _, f := range sourceFiles(t) {
		allowed := slices.ContainsFunc(sqlUsers, func(pattern string) bool {
			ok, err := path.Match(pattern, f.path)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		})
		if !f.isTest() && !allowed && slices.Contains(f.imports, "database/sql") {
			t.Errorf("%s imports database/sql: ask through pkg/store", f.path)
		}
	}
}

// TestLibrariesAreQuiet: only programs print and exit; a library returns errors and logs
// to the logger it was given.
func TestLibrariesAreQuiet(t *testing.T) {
	forbidden := map[string][]string{
		"fmt": {"Print", "Printf", "Println"},
		"log": {"Print", "Printf", "Println", "Fatal", "Fatalf", "Fatalln"},
		"os":  {"Exit"},
	}
	for _, f := range sourceFiles(t) {
		if f.isTest() || !strings.HasPrefix(f.path, "pkg/") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(f.imports, x.Name) &&
				slices.Contains(forbidden[x.Name], sel.Sel.Name) {
				t.Errorf("%s calls %s.%s: a library returns an error, or logs to the logger it was given",
					f.path, x.Name, sel.Sel.Name)
			}
			return true
		})
	}
}

// sourceFiles reads the module's Go files, whatever their build constraints.
func sourceFiles(t *testing.T) []sourceFile {
	t.Helper()
	fset := token.NewFileSet()
	var files []sourceFile
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // an editor's or a tool's temporary file
		case err != nil:
			return err
		case d.IsDir():
			return skipFolder(name, d)
		case !strings.HasSuffix(name, ".go"):
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		f := sourceFile{path: filepath.ToSlash(rel)}
		mode := parser.SkipObjectResolution
		if f.isTest() {
			mode |= parser.ImportsOnly
		}
		syntax, err := parser.ParseFile(fset, name, nil, mode)
		if err != nil {
			return err
		}
		if !f.isTest() {
			f.syntax = syntax
		}
		for _, spec := range syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, imported)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no Go files found")
	}
	return files
}

// skipFolder leaves out what the go command leaves out of ./...: hidden folders, test
// data, and other modules.
func skipFolder(name string, d fs.DirEntry) error {
	if name == root {
		return nil
	}
	if strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") ||
		slices.Contains([]string{"testdata", "vendor", "node_modules"}, d.Name()) {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}
