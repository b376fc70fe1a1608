package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/server"
	"github.com/certwright/certwright/pkg/store"
)

// settings are the flags that lie over the configuration file and the environment.
type settings struct {
	cmd *cobra.Command

	file, data, database, keyFile, passphraseFile, credential string
}

func (f *settings) add(cmd *cobra.Command) {
	f.cmd = cmd
	cmd.Flags().StringVar(&f.file, "config", "", "configuration file (default certwright.yaml in the data folder, if it is there)")
	cmd.Flags().StringVar(&f.data, "data", "", "data folder (default certwright in the user's data folder)")
	cmd.Flags().StringVar(&f.database, "database", "", "Postgres connection string (default: the embedded store in the data folder)")
	cmd.Flags().StringVar(&f.keyFile, "key-file", "", "key-encryption key, 32 random bytes (default kek.key in the data folder)")
	cmd.Flags().StringVar(&f.passphraseFile, "passphrase-file", "", "file whose first line is the passphrase, in place of a key file")
	cmd.Flags().StringVar(&f.credential, "credential", "", "systemd credential with the key, in place of a key file")
}

// settingFlags are the flags that stand for a setting and do not have its name.
var settingFlags = map[string]string{
	"public_url": "public-url", "log.format": "log-format", "log.level": "log-level", "names": "name",
	"init.name": "organization", "init.key_algorithm": "ca-key-type",
	"key.file": "key-file", "key.passphrase_file": "passphrase-file", "key.credential": "credential",
}

// load reads the settings; more lays further flags over them. A wrong flag is a wrong command line, and a wrong setting
// in the file or the environment is not.
func (f *settings) load(env *environment, more func(*config.Config)) (config.Config, error) {
	sources := 0
	for _, s := range []string{f.keyFile, f.passphraseFile, f.credential} {
		if s != "" {
			sources++
		}
	}
	if sources > 1 {
		return config.Config{}, misuse(f.cmd, "", "--key-file, --passphrase-file and --credential exclude each other")
	}
	cfg, err := config.Load(f.file, env.environ, func(c *config.Config) {
		set(&c.Data, f.data)
		set(&c.Database, f.database)
		if sources > 0 {
			c.Key = config.Key{File: f.keyFile, PassphraseFile: f.passphraseFile, Credential: f.credential}
		}
		if more != nil {
			more(c)
		}
	})
	if e, ok := errors.AsType[*config.Error](err); ok && e.Flag {
		return cfg, misuse(f.cmd, e.Hint, "--%s: %s", cmp.Or(settingFlags[e.Key], e.Key), e.Detail)
	}
	return cfg, err
}

func set(s *string, v string) {
	if v != "" {
		*s = v
	}
}

func newServeCommand(env *environment) *cobra.Command {
	var f settings
	var http, https, mtls, metrics, publicURL, logFormat, logLevel, name, algorithm string
	var names []string
	var confirmClock bool
	cmd := &cobra.Command{
		Use: "serve", GroupID: groupServer, Short: "Start the server",
		Long: `Start the server. The first start makes everything in the data folder: the embedded store, a root and an issuing CA,
profiles, a key that seals their private keys, and the first administrator's token. Later starts serve what is there.

Settings come from flags, else from CERTWRIGHT_* in the environment, else from the configuration file, else they have
their defaults. docs/configuration.md lists them all.`,
		Example: `  certwright serve
  certwright serve --data /var/lib/certwright --http :80 --https :8443 --public-url http://pki.example.com
  certwright serve --database postgres://certwright@db.example.com/certwright --key-file /etc/certwright/kek.key`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var alg keys.Algorithm
			if algorithm != "" {
				var err error
				if alg, err = keys.ParseAlgorithm(algorithm); err != nil {
					return misuse(cmd, "", "--ca-key-type: %s", err)
				}
			}
			cfg, err := f.load(env, func(c *config.Config) {
				set(&c.HTTP, http)
				set(&c.HTTPS, https)
				set(&c.MTLS, mtls)
				set(&c.Metrics, metrics)
				set(&c.PublicURL, publicURL)
				set(&c.Log.Format, logFormat)
				set(&c.Log.Level, logLevel)
				set(&c.Init.Name, name)
				if algorithm != "" {
					c.Init.KeyAlgorithm = alg
				}
				c.Names = append(c.Names, names...)
			})
			if err != nil {
				return err
			}
			hardenProcess()
			tuneCollector(env)
			s, err := server.New(cmd.Context(), cfg, server.Options{Version: readBuild().Version, Log: logger(env.err, cfg.Log), ConfirmClock: confirmClock})
			if err != nil {
				return err
			}
			announce(env, s, cfg)
			debug.FreeOSMemory() // what starting took, and serving does not: half of an idle server's own memory
			return s.Run(cmd.Context())
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&http, "http", "", "plain HTTP: CRLs, OCSP, CA certificates, start page; «off» serves none (default 127.0.0.1:8080)")
	cmd.Flags().StringVar(&https, "https", "", "HTTPS: REST API, start page (default 127.0.0.1:8443)")
	cmd.Flags().StringVar(&mtls, "mtls", "", "mTLS: self-service for holders of certificates; «off» serves none (default 127.0.0.1:8444)")
	cmd.Flags().StringVar(&metrics, "metrics", "", "/metrics for Prometheus, without a token, as in 127.0.0.1:9090 (default off; HTTPS has it with a token)")
	cmd.Flags().StringVar(&publicURL, "public-url", "", "where verifiers reach the plain HTTP listener; goes into certificates, as in http://pki.example.com")
	cmd.Flags().StringArrayVar(&names, "name", nil, "another host name or IP address for the server's own certificate (repeatable)")
	cmd.Flags().StringVar(&name, "organization", "", "first start: organization in the CA certificates (default Certwright)")
	cmd.Flags().StringVar(&algorithm, "ca-key-type", "", "first start: p-256, p-384, p-521, rsa-2048, rsa-3072, rsa-4096 or ed25519 (default p-256)")
	cmd.Flags().BoolVar(&confirmClock, "confirm-clock", false, "the clock is right, though the newest record in the store is far from it")
	cmd.Flags().StringVar(&logFormat, "log-format", "", "text or json (default text)")
	cmd.Flags().StringVar(&logLevel, "log-level", "", "debug, info, warn or error (default info)")
	return cmd
}

// Bounds of what tuneCollector lets the heap grow by, in octets and as parts of a hundred.
const (
	usualHeap      = 38 << 20 // in use and garbage, as long as there is not much in use
	mostGarbage    = 32 << 20
	leastGarbage   = 16 << 20
	mostGCPercent  = 400
	leastGCPercent = 50
)

// tuneCollector has the garbage collector wait until the heap has grown to five times what is in use, but not by more than
// mostGarbage. In use is little, some 10 MB, and each request makes much garbage: with Go's default a busy server collected
// a hundred times a second. With many OCSP answers or long CRLs in memory, five times would be hundreds of megabytes: the more
// is in use, the less garbage is waited for, down to leastGarbage or leastGCPercent, whichever is more.
// GOGC in the environment overrules it.
func tuneCollector(env *environment) {
	if _, set := env.lookup("GOGC"); set {
		return
	}
	now := mostGCPercent
	debug.SetGCPercent(now)
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	// An object that nobody holds is found by each collection: its finalizer is called after each.
	type sentinel struct{ _ *byte }
	var after func(*sentinel)
	after = func(*sentinel) {
		metrics.Read(sample)
		live := max(sample[0].Value.Uint64(), 1)
		garbage := uint64(min(max(usualHeap-int64(live), leastGarbage), mostGarbage))
		want := int(min(max(garbage*100/live, leastGCPercent), mostGCPercent))
		if want < now*9/10 || want > now*10/9 { // setting it stops the world for a moment
			now = want
			debug.SetGCPercent(now)
		}
		runtime.SetFinalizer(&sentinel{}, after)
	}
	runtime.SetFinalizer(&sentinel{}, after)
}

func logger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	// The configuration has been checked: the level is one of slog's.
	_ = level.UnmarshalText([]byte(c.Level))
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// announce tells where everything is, and after the first start what to try.
func announce(env *environment, s *server.Server, cfg config.Config) {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if s.First {
		p("A new certificate authority has been set up.")
		p("")
	}
	p("Start page    %s/", s.HTTPSURL)
	p("REST API      %s/api/v1", s.HTTPSURL)
	if s.HTTPURL != "" {
		p("CRL and OCSP  %s   (in certificates as %s)", s.HTTPURL, s.PublicURL)
	}
	if s.MTLSURL != "" {
		p("Self-service  %s/api/v1/self   (with a client certificate)", s.MTLSURL)
	}
	if s.MetricsURL != "" {
		p("Metrics       %s   (without a token)", s.MetricsURL)
	}
	p("Store         %s", s.StoreName)
	p("Data folder   %s", cfg.Data)
	p("Root          %s", s.RootFile)
	p("  SHA-256     %s", fingerprint(s.Root.Current.Fingerprint[:]))
	if s.TokenFile != "" {
		p("Admin token   %s", s.TokenFile)
	}
	if config.Loopback(s.PublicURL) {
		p("")
		p("warning: the certificates will tell verifiers to fetch CRLs and ask OCSP at %s, which only this", s.PublicURL)
		p("machine can reach. Set --public-url before certificates go to other machines.")
	}
	if s.First {
		p("")
		p("Try next, in another terminal:")
		for _, line := range firstSteps(env, cfg.Data) {
			p("  %s", line)
		}
	}
	// A reader who has gone away is no reason not to serve.
	_, _ = io.WriteString(env.out, b.String())
}

// firstSteps are commands to try, as another terminal takes them: it has this one's folder, and none of its CERTWRIGHT_*
// variables.
func firstSteps(env *environment, data string) []string {
	at := ""
	if data != defaultDataFolder(env) {
		at = " --data " + quote(data)
	}
	return []string{
		env.program + " cert issue" + at + " --profile server --dns localhost --out localhost",
		env.program + " cert list" + at,
		env.program + " cert revoke" + at + " localhost.crt --reason superseded",
	}
}

// quote makes a path safe to be pasted into a shell.
func quote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// defaultDataFolder is the data folder that commands use when nobody names one, not even the environment.
func defaultDataFolder(env *environment) string {
	environ := slices.DeleteFunc(slices.Clone(env.environ), func(entry string) bool { return strings.HasPrefix(entry, config.EnvPrefix) })
	c, err := config.Load(os.DevNull, environ, nil)
	if err != nil {
		return ""
	}
	return c.Data
}

func newStoreCommand(env *environment) *cobra.Command {
	return group(&cobra.Command{
		Use: "store", GroupID: groupServer, Short: "Look after the store itself",
		Long:    "Commands that open the store directly, on the host, with the server's own settings.",
		Example: "  certwright store check\n  certwright store migrate",
	}, newStoreMigrateCommand(env), newStoreCheckCommand(env), newStoreBackupCommand(env), newStoreRestoreFinishCommand(env),
		newStoreCopyCommand(env), newStoreUnfenceCommand(env), newStoreGrantCommand(env))
}

func newStoreMigrateCommand(env *environment) *cobra.Command {
	var f settings
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring the store's schema up to date",
		Long:    "Bring the store's schema up to date. «serve» does this by itself unless «migrate: false» is set, as it should be with\nseveral replicas. A migration that fails leaves the schema as it was. With the embedded store, stop the server first.\n\nOn Postgres, roles that «store grant» was run for get the rights that the new schema takes.",
		Example: "  certwright store migrate\n  certwright store migrate --database postgres://owner@db.example.com/certwright",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.load(env, nil)
			if err != nil {
				return err
			}
			from, to, err := server.MigrateStore(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if from == to {
				fmt.Fprintf(env.out, "The schema is up to date: version %d.\n", to)
			} else {
				fmt.Fprintf(env.out, "The schema was brought from version %d to %d.\n", from, to)
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func newStoreCheckCommand(env *environment) *cobra.Command {
	return findingsCommand(env, "check", "Look for damage and unsafe settings in the store", `Look for damage and unsafe settings in the store: settings that lose data, rows that contradict each other, schema
versions. Nothing is changed, and the server may run. It may take long on a large store. «certwright check» looks at
more than the store.`,
		"  certwright store check\n  certwright store check --database postgres://certwright@db.example.com/certwright",
		func(cmd *cobra.Command, cfg config.Config) ([]store.Finding, error) {
			return server.CheckStore(cmd.Context(), cfg)
		})
}

func newCheckCommand(env *environment) *cobra.Command {
	cmd := findingsCommand(env, "check", "Look for everything that is unsafe or soon to break", `Look for everything that is unsafe or soon to break: in the settings, the data folder, the store, the keys, the CA
certificates and the CRLs. Nothing is changed, and the server may run. Each finding comes with its mend. The exit code
is 1 when one is serious.`,
		"  certwright check\n  certwright check --data /var/lib/certwright",
		func(cmd *cobra.Command, cfg config.Config) ([]store.Finding, error) {
			return server.Check(cmd.Context(), cfg)
		})
	cmd.GroupID = groupServer
	return cmd
}

func findingsCommand(env *environment, use, short, long, example string, check func(*cobra.Command, config.Config) ([]store.Finding, error)) *cobra.Command {
	var f settings
	var output *records
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: takes(), Example: example,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.load(env, nil)
			if err != nil {
				return err
			}
			hardenProcess() // it opens every private key
			found, err := check(cmd, cfg)
			if err != nil {
				return err
			}
			serious := 0
			for _, finding := range found {
				mark := "advice "
				if finding.Serious {
					mark, serious = "SERIOUS", serious+1
				}
				if !output.forPeople() {
					continue
				}
				fmt.Fprintf(env.out, "%s  %s\n         mend: %s\n", mark, visible(finding.What), visible(finding.Mend))
			}
			if !output.forPeople() {
				if err := output.write(env.out, findingsDocument(found)); err != nil {
					return err
				}
			}
			switch {
			case len(found) == 0 && output.forPeople():
				fmt.Fprintln(env.out, "Nothing found.")
			case serious > 0:
				return failure("each finding above says how to mend it", "%d of %d findings are serious", serious, len(found))
			}
			return nil
		},
	}
	f.add(cmd)
	output = documentFlag(cmd)
	return cmd
}

// findingsDocument lays findings out for programs.
func findingsDocument(found []store.Finding) any {
	type finding struct {
		Serious bool   `json:"serious"`
		What    string `json:"what"`
		Mend    string `json:"mend"`
	}
	document := struct {
		Findings []finding `json:"findings"`
	}{[]finding{}}
	for _, f := range found {
		document.Findings = append(document.Findings, finding(f))
	}
	return document
}

func newKeyCommand(env *environment) *cobra.Command {
	var f settings
	var to config.Key
	rewrap := &cobra.Command{
		Use: "rewrap", Short: "Seal the private keys under another key-encryption key",
		Long: `Seal every private key in the store under another key-encryption key: a key file (made if it does not exist), a
passphrase, or a systemd credential. Every key is opened under the new one before anything is replaced, and all are
replaced at once or none. Afterwards start the server with the new key, and keep the old one as long as backups need it.

With the embedded store, stop the server first. With Postgres, replicas that run go on, and need the new key when they
are next started.

This does not cure a leak: whoever has the old key and an old backup has the private keys.`,
		Example: "  certwright key rewrap --new-key-file /etc/certwright/kek.key\n  certwright key rewrap --new-passphrase-file /run/secrets/passphrase",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == (config.Key{}) {
				return misuse(cmd, "", "name the new key with --new-key-file, --new-passphrase-file or --new-credential")
			}
			cfg, err := f.load(env, nil)
			if err != nil {
				return err
			}
			hardenProcess()
			n, err := server.Rewrap(cmd.Context(), cfg, to)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.out, "%d private keys are sealed under the new key-encryption key.\n%s\n", n, afterRewrap(to))
			return nil
		},
	}
	f.add(rewrap)
	rewrap.Flags().StringVar(&to.File, "new-key-file", "", "the new key's file; made if it does not exist")
	rewrap.Flags().StringVar(&to.PassphraseFile, "new-passphrase-file", "", "file whose first line is the new passphrase")
	rewrap.Flags().StringVar(&to.Credential, "new-credential", "", "systemd credential with the new key")
	return group(&cobra.Command{
		Use: "key", GroupID: groupServer, Short: "Block stolen keys, and look after the key that seals the private keys",
		Example: "  certwright key block stolen.key\n  certwright key rewrap --new-key-file /etc/certwright/kek.key",
	}, append(keyCommands(env), rewrap)...)
}

// afterRewrap says how the server is started with the new key.
func afterRewrap(to config.Key) string {
	flag, key, value := "--key-file", "key.file", to.File
	switch {
	case to.PassphraseFile != "":
		flag, key, value = "--passphrase-file", "key.passphrase_file", to.PassphraseFile
	case to.Credential != "":
		flag, key, value = "--credential", "key.credential", to.Credential
	}
	if to.Credential == "" {
		if path, err := filepath.Abs(value); err == nil { // the server is started elsewhere
			value = path
		}
	}
	return "Start the server with " + flag + " " + quote(value) + " from now on (or set " + key + "); keep the old key only as long as\nbackups need it."
}
