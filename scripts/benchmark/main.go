// Command benchmark measures a Certwright server end to end, as its clients see it: over TLS, with a durable store, and
// with every answer checked. It starts the server that it measures. Run it by scripts/bench, which builds the server and
// starts a database.
//
// It takes CPU times from /proc, so it runs on Linux only.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errUsage says that the command line is wrong, which has been told.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
	case interrupted:
		fmt.Fprintln(os.Stderr, "error: interrupted")
		os.Exit(1)
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	server      string // the server's program
	folder      string // for its data; ours alone
	stores      []string
	connections int
	duration    time.Duration
	key         string
	database    string // Postgres connection string
	postmaster  int    // its process
	json        string
	profile     string
	stepCA      string
	serials     int // of ocsp
	nginx       string
	cfssl       string
	openssl     string
	revoked     int // of crl
	challenge   string
	attack      bool // ocsp: beside attacks
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("benchmark", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprintln(os.Stderr, "hint: scripts/bench --help") }
	store := ""
	flags.StringVar(&o.server, "server", "", "program of the server, `FILE`")
	flags.StringVar(&o.folder, "folder", "", "empty `FOLDER` for data")
	flags.StringVar(&store, "store", "sqlite", "sqlite, postgres or both")
	flags.IntVar(&o.connections, "connections", 64, "how many clients ask at once")
	flags.DurationVar(&o.duration, "duration", 20*time.Second, "how long is measured")
	flags.StringVar(&o.key, "key", keyP256, "keys in the CSRs: "+keyP256+" or "+keyRSA2048)
	flags.StringVar(&o.database, "database", "", "connection string of an empty Postgres database")
	flags.IntVar(&o.postmaster, "postmaster", 0, "process id of its Postgres")
	flags.StringVar(&o.json, "json", "", "write the figures to `FILE` too")
	flags.StringVar(&o.profile, "profile", "", "have perf write a profile of the server to `FILE`")
	flags.StringVar(&o.stepCA, "step-ca", "", "measure this step-ca program too, `FILE`")
	flags.IntVar(&o.serials, "serials", kept, "how many certificates ocsp asks for in turn")
	flags.StringVar(&o.nginx, "nginx", "", "have ocsp measure this nginx too, `FILE`")
	flags.StringVar(&o.cfssl, "cfssl", "", "have ocsp measure this cfssl too, `FILE`")
	flags.StringVar(&o.openssl, "openssl", "", "have ocsp measure this openssl too, `FILE`")
	flags.IntVar(&o.revoked, "revoked", manyRevoked, "how many certificates are revoked, for crl")
	flags.StringVar(&o.challenge, "challenge", staticChallenge, "what scep enrolls with: "+staticChallenge+" or "+oneTimeChallenge)
	flags.BoolVar(&o.attack, "attack", false, "have ocsp measure honest clients beside attacks")
	operations := map[string]func() (any, error){
		"issue": func() (any, error) { return issue(ctx, o) },
		"ocsp": func() (any, error) {
			if o.attack {
				return measureAttacks(ctx, o)
			}
			return measureOCSP(ctx, o)
		},
		"crl":  func() (any, error) { return measureCRL(ctx, o) },
		"scep": func() (any, error) { return measureSCEP(ctx, o) },
	}
	if len(args) == 2 && args[0] == making { // a process of crl
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return makeX509(n)
	}
	if len(args) == 1 && args[0] == attacking { // a process of ocsp --attack
		return doAttack()
	}
	if len(args) == 2 && args[0] == plotting {
		return plotFolder(args[1])
	}
	operation := func() (any, error) { return nil, nil }
	if len(args) > 0 {
		operation = operations[args[0]]
	}
	if len(args) == 0 || operation == nil {
		fmt.Fprintln(os.Stderr, "error: say what to measure: "+strings.Join(slices.Sorted(maps.Keys(operations)), ", "))
		flags.Usage()
		return errUsage
	}
	if err := flags.Parse(args[1:]); err != nil {
		return errUsage
	}
	wrong := func(format string, a ...any) error {
		fmt.Fprintf(os.Stderr, "error: "+format+"\n", a...)
		flags.Usage()
		return errUsage
	}
	switch store {
	case "sqlite", "postgres":
		o.stores = []string{store}
	case "both":
		o.stores = []string{"sqlite", "postgres"}
	default:
		return wrong("--store is sqlite, postgres or both, not %q", store)
	}
	switch {
	case flags.NArg() > 0:
		return wrong("unexpected %q", flags.Arg(0))
	case o.server == "" || o.folder == "":
		return wrong("--server and --folder are required")
	case o.connections < 1 || o.connections > 4096:
		return wrong("--connections is 1 to 4096, not %d", o.connections)
	case o.duration < time.Second:
		return wrong("--duration is a second or more, not %s", o.duration)
	case o.serials < 1:
		return wrong("--serials is 1 or more, not %d", o.serials)
	case o.revoked < 10*fewRevoked:
		return wrong("--revoked is %d or more, not %d", 10*fewRevoked, o.revoked)
	case o.key != keyP256 && o.key != keyRSA2048:
		return wrong("--key is %s or %s, not %q", keyP256, keyRSA2048, o.key)
	case o.challenge != staticChallenge && o.challenge != oneTimeChallenge:
		return wrong("--challenge is %s or %s, not %q", staticChallenge, oneTimeChallenge, o.challenge)
	case store != "sqlite" && (o.database == "" || o.postmaster == 0):
		return wrong("--store %s takes --database and --postmaster", store)
	}
	r, err := operation()
	if err != nil {
		return err
	}
	if o.json == "" {
		return nil
	}
	out, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(out, '\n'), 0o644)
}

// machine tells on what was measured.
type machine struct {
	CPUs   int    `json:"cpus"`
	Model  string `json:"model"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

func thisMachine() machine {
	m := machine{CPUs: runtime.NumCPU(), Model: "unknown", Kernel: "unknown", Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
				m.Model = strings.TrimSpace(value)
				break
			}
		}
	}
	return m
}
