package main

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

const repository = "../.."

// eachFile calls f for the repository's files with this ending, apart from test data.
func eachFile(t *testing.T, folder, ending string, f func(path string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != folder && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".github"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ending):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f(path, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// mentions are the places in a text that stand for a command line: in «», after «run», or a text that begins with it.
// The last is a mend that is a command and nothing else.
var mentions = regexp.MustCompile(`(«|\brun:? |^)certwright ([a-z][^»]*)`)

// notCommands are texts of the program that begin with its name and stand for no command.
var notCommands = regexp.MustCompile(`^certwright (kek (info )?v1|stub |cms )`)

// planned are commands that hints name and that are being written.
var planned = regexp.MustCompile(`^(store (copy|fence|unfence|grant)\b|audit verify --store)`)

// TestMentionsAreCommandLines: what a message tells the reader to type must work when it is typed.
func TestMentionsAreCommandLines(t *testing.T) {
	seen := 0
	for _, folder := range []string{"pkg", "cmd", "web"} {
		eachFile(t, filepath.Join(repository, folder), ".go", func(path string, text []byte) {
			if strings.HasSuffix(path, "_test.go") {
				return
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, text, parser.SkipObjectResolution)
			if err != nil {
				t.Error(err)
				return
			}
			ast.Inspect(file, func(n ast.Node) bool {
				e, ok := n.(ast.Expr)
				if !ok {
					return true
				}
				s, ok := literal(e)
				if !ok {
					return true
				}
				for _, m := range mentions.FindAllStringSubmatch(s, -1) {
					if notCommands.MatchString(s) || planned.MatchString(m[2]) {
						continue
					}
					seen++
					if problem := mentionProblem(m[2], m[1] == "«"); problem != "" {
						t.Errorf("%s: %q: %s", set.Position(n.Pos()), s, problem)
					}
				}
				return false
			})
		})
	}
	if seen < 30 {
		t.Errorf("found %d mentions of command lines: does the test still see them?", seen)
	}
}

// literal returns a text with what is only known at run time replaced by a word.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(e.Value)
		return s, err == nil
	case *ast.BinaryExpr:
		left, ok := literal(e.X)
		right, also := literal(e.Y)
		switch {
		case e.Op != token.ADD || !ok && !also:
			return "", false
		case !ok:
			left = "X"
		case !also:
			right = "X"
		}
		return left + right, true
	}
	return "", false
}

// mentionProblem says what is wrong with a command line; whole says that it ends where the text does.
func mentionProblem(line string, whole bool) string {
	args, err := shellWords(strings.ReplaceAll(line, "\n", " "))
	if err != nil {
		args = strings.Fields(line)
	}
	if !whole { // a sentence may go on behind it
		root := newRootCommand(testEnvironment())
		for i, arg := range args {
			args[i] = strings.TrimRight(arg, ".,;:")
		}
		target, _, err := root.Find(args)
		switch {
		case err != nil:
			return err.Error()
		case !target.HasParent() || target.HasSubCommands():
			return "it names no command"
		}
		return ""
	}
	if _, err := commandOf(args); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return err.Error()
	}
	return ""
}

func TestMentionProblem(t *testing.T) {
	for line, want := range map[string]bool{
		"store migrate": true, "store migrate as the user that owns the database": true, "store check; then go on": true,
		"migrate": false, "store migrat": false, "store": false,
	} {
		if got := mentionProblem(line, false); (got == "") != want {
			t.Errorf("%s: %q, want it to be a command: %t", line, got, want)
		}
	}
	for line, want := range map[string]bool{"token create": true, "cert list --spki %s": true, "cert list --spko X": false, "cert isue": false} {
		if got := mentionProblem(line, true); (got == "") != want {
			t.Errorf("«%s»: %q, want it to be a command line: %t", line, got, want)
		}
	}
}

var (
	inlineLink    = regexp.MustCompile(`\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)`)
	referenceLink = regexp.MustCompile(`(?m)^\s*\[[^\]]+\]:\s*<?([^\s>]+)`)
	code          = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	heading       = regexp.MustCompile(`(?m)^#{1,6}\s+(.+?)\s*$`)
)

// TestLinksInDocuments: every relative link leads to a file, and its anchor to a heading there.
func TestLinksInDocuments(t *testing.T) {
	links := 0
	eachFile(t, repository, ".md", func(path string, text []byte) {
		plain := code.ReplaceAllString(string(text), "")
		for _, m := range append(inlineLink.FindAllStringSubmatch(plain, -1), referenceLink.FindAllStringSubmatch(plain, -1)...) {
			u, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: link %q: %v", path, m[1], err)
				continue
			}
			if u.IsAbs() || u.Host != "" {
				continue
			}
			links++
			target := path
			if u.Path != "" {
				target = filepath.Join(filepath.Dir(path), filepath.FromSlash(u.Path))
			}
			contents, err := os.ReadFile(target)
			if info, statErr := os.Stat(target); statErr == nil && info.IsDir() {
				continue
			}
			if err != nil {
				t.Errorf("%s: link %q leads to no file: %v", path, m[1], err)
				continue
			}
			if u.Fragment != "" && strings.HasSuffix(target, ".md") && !anchors(string(contents))[u.Fragment] {
				t.Errorf("%s: link %q leads to no heading", path, m[1])
			}
		}
	})
	if links == 0 {
		t.Error("found no link: does the test still see them?")
	}
}

// anchors are the names that GitHub gives to the headings of a document.
func anchors(text string) map[string]bool {
	all := make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		var b strings.Builder
		for _, r := range strings.ToLower(m[1]) {
			switch {
			case r == ' ' || r == '-':
				b.WriteRune('-')
			case r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r > 0x7f:
				b.WriteRune(r)
			}
		}
		all[b.String()] = true
	}
	return all
}
