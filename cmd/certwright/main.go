// Command certwright is a private certificate authority and the client of one.
//
// «certwright serve» runs the server; every other command talks to a server through its REST API, or works on files
// alone. Exit codes: 0 it worked, 1 it did not, 2 the command line is wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	os.Exit(run(&environment{
		program: programName(), args: os.Args[1:], in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ(), now: time.Now,
	}))
}

// environment is all that a command sees of the world outside, apart from files and the network.
type environment struct {
	program string   // how a shell calls this program
	args    []string // without the program's name
	in      io.Reader
	out     io.Writer // what was asked for
	err     io.Writer // everything else: errors, hints, warnings, notes
	environ []string  // as os.Environ
	now     func() time.Time
}

// lookup is os.LookupEnv for this environment.
func (e *environment) lookup(name string) (string, bool) {
	for _, entry := range e.environ {
		if n, v, ok := strings.Cut(entry, "="); ok && n == name {
			return v, true
		}
	}
	return "", false
}

// programName is how to call this program again from another terminal in the same folder.
func programName() string {
	path, err := os.Executable()
	if err != nil {
		path = ""
	}
	called := "certwright"
	if len(os.Args) > 0 && os.Args[0] != "" {
		called = os.Args[0]
	}
	return callOf(path, called)
}

// cached matches the folders into which «go run» puts a program: one below its temporary folder, and from the second
// time on one in the build cache, wherever that is.
var cached = regexp.MustCompile(`/go-build[0-9]*/|/[0-9a-f]{2}/[0-9a-f]{64}-d/[^/]+$`)

// callOf is programName for the executable at path that was called by the name called.
func callOf(path, called string) string {
	if cached.MatchString(filepath.ToSlash(path)) {
		return "go run ./cmd/certwright"
	}
	return quote(called)
}

// run runs one command line and returns the exit code. The first interrupt cancels the command's context, the second
// ends the process as usual.
func run(env *environment) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRootCommand(env)
	root.SetArgs(env.args)
	root.SetIn(env.in)
	root.SetOut(env.out)
	root.SetErr(env.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	report(env.err, err)
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// report writes an error as every command does: what went wrong, then what to do about it.
func report(w io.Writer, err error) {
	message, hint := explain(err)
	fmt.Fprintf(w, "error: %s\n", visible(message))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", visible(hint))
	}
}

// hintError is an error that knows what to do next.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// failure returns an error without a cause, and a hint.
func failure(hint, format string, args ...any) error {
	return &hintError{err: fmt.Errorf(format, args...), hint: hint}
}

// usageError says that the command line is wrong.
type usageError struct {
	message, hint string
}

func (e *usageError) Error() string { return e.message }

// misuse returns a usageError of this command. Without a hint it points to the command's help.
func misuse(cmd *cobra.Command, hint, format string, args ...any) error {
	if hint == "" {
		hint = "«" + cmd.CommandPath() + " --help» shows how"
	}
	return &usageError{message: fmt.Sprintf(format, args...), hint: hint}
}
