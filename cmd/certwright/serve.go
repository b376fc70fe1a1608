package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/server"
	"github.com/certwright/certwright/pkg/store"
)

// settings are the flags that lie over the configuration file and the environment.
type settings struct {
	file, data, database, keyFile, passphraseFile, credential string
}

func (f *settings) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "config", "", "configuration file (default certwright.yaml in the data folder, if it is there)")
	cmd.Flags().StringVar(&f.data, "data", "", "data folder (default certwright in the user's data folder)")
	cmd.Flags().StringVar(&f.database, "database", "", "Postgres connection string (default: the embedded store in the data folder)")
	cmd.Flags().StringVar(&f.keyFile, "key-file", "", "key-encryption key, 32 random bytes (default kek.key in the data folder)")
	cmd.Flags().StringVar(&f.passphraseFile, "passphrase-file", "", "file whose first line is the passphrase, in place of a key file")
	cmd.Flags().StringVar(&f.credential, "credential", "", "systemd credential with the key, in place of a key file")
}

// load reads the settings; more lays further flags over them.
func (f *settings) load(env *environment, more func(*config.Config)) (config.Config, error) {
	return config.Load(f.file, env.lookup, func(c *config.Config) {
		set(&c.Data, f.data)
		set(&c.Database, f.database)
		if f.keyFile != "" || f.passphraseFile != "" || f.credential != "" {
			c.Key = config.Key{File: f.keyFile, PassphraseFile: f.passphraseFile, Credential: f.credential}
		}
		if more != nil {
			more(c)
		}
	})
}

func set(s *string, v string) {
	if v != "" {
		*s = v
	}
}

func newServeCommand(env *environment) *cobra.Command {
	var f settings
	var http, https, mtls, publicURL, logFormat, logLevel, name, algorithm string
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
				return failure("docs/configuration.md lists the settings", "%w", err)
			}
			hardenProcess()
			tuneCollector(env)
			s, err := server.New(cmd.Context(), cfg, server.Options{Version: readBuild().Version, Log: logger(env.err, cfg.Log), ConfirmClock: confirmClock})
			if err != nil {
				return err
			}
			announce(env.out, s, cfg)
			return s.Run(cmd.Context())
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&http, "http", "", "plain HTTP: CRLs, OCSP, CA certificates, start page; «off» serves none (default 127.0.0.1:8080)")
	cmd.Flags().StringVar(&https, "https", "", "HTTPS: REST API, start page (default 127.0.0.1:8443)")
	cmd.Flags().StringVar(&mtls, "mtls", "", "mTLS: self-service for holders of certificates; «off» serves none (default 127.0.0.1:8444)")
	cmd.Flags().StringVar(&publicURL, "public-url", "", "where verifiers reach the plain HTTP listener; goes into certificates, as in http://pki.example.com")
	cmd.Flags().StringArrayVar(&names, "name", nil, "another host name or IP address for the server's own certificate (repeatable)")
	cmd.Flags().StringVar(&name, "organization", "", "first start: organization in the CA certificates (default Certwright)")
	cmd.Flags().StringVar(&algorithm, "ca-key-type", "", "first start: p-256, p-384, p-521, rsa-2048, rsa-3072, rsa-4096 or ed25519 (default p-256)")
	cmd.Flags().BoolVar(&confirmClock, "confirm-clock", false, "the clock is right, though the newest record in the store is far from it")
	cmd.Flags().StringVar(&logFormat, "log-format", "", "text or json (default text)")
	cmd.Flags().StringVar(&logLevel, "log-level", "", "debug, info, warn or error (default info)")
	return cmd
}

// tuneCollector has the garbage collector wait until the heap has grown to five times what is in use. That is little, some
// 10 MB, and each request makes much garbage: with Go's default a busy server collected a hundred times a second.
// GOGC in the environment overrules it.
func tuneCollector(env *environment) {
	if _, set := env.lookup("GOGC"); !set {
		debug.SetGCPercent(400)
	}
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
func announce(w io.Writer, s *server.Server, cfg config.Config) {
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
		at := ""
		if flag := cfg.Data; flag != defaultDataFolder() {
			at = " --data " + quote(flag)
		}
		p("")
		p("Try next, in another terminal:")
		p("  certwright cert issue%s --profile server --dns localhost --out localhost", at)
		p("  certwright cert list%s", at)
		p("  certwright cert revoke%s localhost.crt --reason superseded", at)
	}
	// A reader who has gone away is no reason not to serve.
	_, _ = io.WriteString(w, b.String())
}

// quote makes a path safe to be pasted into a shell.
func quote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// defaultDataFolder is the data folder that commands use when nobody names one.
func defaultDataFolder() string {
	c, err := config.Load("", os.LookupEnv, nil)
	if err != nil {
		return ""
	}
	return c.Data
}

func newStoreCommand(env *environment) *cobra.Command {
	return group(&cobra.Command{
		Use: "store", GroupID: groupServer, Short: "Look after the store itself",
		Long: "Commands that open the store directly, on the host, with the server's own settings.",
	}, newStoreMigrateCommand(env), newStoreCheckCommand(env))
}

func newStoreMigrateCommand(env *environment) *cobra.Command {
	var f settings
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring the store's schema up to date",
		Long:    "Bring the store's schema up to date. «serve» does this by itself unless «migrate: false» is set, as it should be with\nseveral replicas. A migration that fails leaves the schema as it was. With the embedded store, stop the server first.",
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
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: takes(), Example: example,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.load(env, nil)
			if err != nil {
				return err
			}
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
				fmt.Fprintf(env.out, "%s  %s\n         mend: %s\n", mark, visible(finding.What), visible(finding.Mend))
			}
			switch {
			case len(found) == 0:
				fmt.Fprintln(env.out, "Nothing found.")
			case serious > 0:
				return failure("each finding above says how to mend it", "%d of %d findings are serious", serious, len(found))
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
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
			n, err := server.Rewrap(cmd.Context(), cfg, to)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.out, "%d private keys are sealed under the new key-encryption key.\n", n)
			return nil
		},
	}
	f.add(rewrap)
	rewrap.Flags().StringVar(&to.File, "new-key-file", "", "the new key's file; made if it does not exist")
	rewrap.Flags().StringVar(&to.PassphraseFile, "new-passphrase-file", "", "file whose first line is the new passphrase")
	rewrap.Flags().StringVar(&to.Credential, "new-credential", "", "systemd credential with the new key")
	return group(&cobra.Command{Use: "key", GroupID: groupServer, Short: "Look after the key that seals the private keys"}, rewrap)
}
