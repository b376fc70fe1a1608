package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
)

const (
	// loginFileName is in the folder certwright of the user's configuration.
	loginFileName = "login.yaml"
	// defaultContext is what a login is called that nobody names.
	defaultContext = "default"
)

// logins is the file that «login» writes: servers, and who one is there.
type logins struct {
	Current  string           `yaml:"current"`
	Contexts map[string]login `yaml:"contexts"`
}

// login is one of them.
type login struct {
	Server string `yaml:"server"`
	Token  string `yaml:"token"`
	// Roots are the certificates, PEM, that the server's own is checked with. Empty means those of the system.
	Roots string `yaml:"roots,omitempty"`
}

// loginFile returns the file's path: in $XDG_CONFIG_HOME, else ~/.config. It is empty when there is no home folder.
func loginFile(env *environment) string {
	if dir, ok := env.lookup("XDG_CONFIG_HOME"); ok && filepath.IsAbs(dir) {
		return filepath.Join(dir, "certwright", loginFileName)
	}
	if home, ok := env.lookup("HOME"); ok && home != "" {
		return filepath.Join(home, ".config", "certwright", loginFileName)
	}
	return ""
}

// readLogins returns what is in the file; nothing if there is none.
func readLogins(env *environment) (logins, error) {
	all := logins{Contexts: map[string]login{}}
	path := loginFile(env)
	if path == "" {
		return all, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		warn(env, "others can read the tokens in %s (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	if err == nil {
		err = readYAML(path, &all)
	}
	if err != nil {
		return all, &hintError{err: fmt.Errorf("%s: %w", path, err), hint: "mend it or remove it; «certwright login» makes it anew"}
	}
	if all.Contexts == nil {
		all.Contexts = map[string]login{}
	}
	return all, nil
}

// write replaces the file in one step.
func (l logins) write(env *environment) error {
	path := loginFile(env)
	if path == "" {
		return failure("set HOME or XDG_CONFIG_HOME", "there is no home folder to keep the login in")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	text, err := yaml.Marshal(l)
	if err != nil {
		return err
	}
	defer clear(text)
	if err := keys.WriteFile(path, text, true); err != nil {
		return fmt.Errorf("writing the login: %w", err)
	}
	return nil
}

// names are those of the contexts, in order.
func (l logins) names() []string { return slices.Sorted(maps.Keys(l.Contexts)) }

// get returns a context by its name.
func (l logins) get(name string) (login, error) {
	found, ok := l.Contexts[name]
	if !ok {
		hint := "«certwright login URL --context " + name + "» makes one"
		if len(l.Contexts) > 0 {
			hint = "there are " + strings.Join(l.names(), ", ") + "; " + hint
		}
		return login{}, failure(hint, "there is no context %q", name)
	}
	return found, nil
}

func newLoginCommand(env *environment) *cobra.Command {
	var name, pin, caFile, tokenFile string
	cmd := &cobra.Command{
		Use:     "login URL",
		GroupID: groupHere,
		Short:   "Keep a server's address, root certificate and token for later commands",
		Long: `Keep a server's address, root certificate and token for later commands, which then need no flags. It is written to
certwright/login.yaml in $XDG_CONFIG_HOME or ~/.config, which nobody else can read.

The token is asked for, or read from the first line of --token-file or of the standard input; it never stands on a
command line. The root is fetched from the server and must be the one that you know: name its SHA-256 with
--fingerprint, or compare it when you are asked. «certwright issuer show root» prints it on the server's machine.
--ca-file takes the root from a file instead. A server that the system's own roots vouch for, or that runs on this
machine, needs neither.

Nothing is kept before the server has accepted the token. With --context several logins are kept, each under a name:
the newest is in use, «certwright context use» changes that, and --context on any command takes another once.`,
		Example: `  certwright login https://ca.example.com:8443
  certwright login https://ca.example.com:8443 --ca-file root.pem --token-file deploy.token
  certwright login https://ca.example.org --context lab --token-file - < lab.token`,
		Args: takes("URL"),
	}
	f := cmd.Flags()
	f.StringVar(&name, "context", defaultContext, "keep it under this `name`")
	f.StringVar(&pin, "fingerprint", "", "`SHA-256` of the root certificate, hexadecimal")
	f.StringVar(&caFile, "ca-file", "", "`file` with the root certificate")
	f.StringVar(&tokenFile, "token-file", "", "`file` with the API token in its first line; - reads the standard input")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		address, err := url.Parse(strings.TrimRight(args[0], "/"))
		switch {
		case err != nil || address.Host == "" || address.Scheme != "https" || address.User != nil || strings.Trim(address.Path, "/") != "":
			return misuse(cmd, "as in https://ca.example.com:8443", "%q is not the address of a server", args[0])
		case pin != "" && caFile != "":
			return misuse(cmd, "", "--fingerprint and --ca-file exclude each other")
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return r == ' ' || !shown(r) }):
			return misuse(cmd, "", "--context %q is not a name", name)
		}
		var fingerprint pki.Fingerprint
		if pin != "" {
			if fingerprint, err = pki.ParseFingerprint(pin); err != nil {
				return misuse(cmd, "", "--fingerprint: %s", err)
			}
		}
		all, err := readLogins(env)
		if err != nil {
			return err
		}
		l := login{Server: address.String()}
		switch {
		case caFile != "":
			certs, err := readCertificates(env, caFile)
			if err != nil {
				return err
			}
			l.Roots = string(encodePEM(certs))
		case pin == "" && trusts(cmd.Context(), l.Server, nil):
		case pin == "" && l.known(cmd.Context(), env):
		default:
			if l.Roots, err = fetchRoots(cmd.Context(), env, l.Server, pin != "", fingerprint); err != nil {
				return err
			}
		}
		if l.Token, err = loginToken(cmd.Context(), env, tokenFile); err != nil {
			return err
		}
		t := target{server: l.Server, token: l.Token, roots: l.pool()}
		h, err := t.holder(cmd.Context())
		if err != nil {
			return t.explain(err)
		}
		all.Contexts[name], all.Current = l, name
		if err := all.write(env); err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, h, h.Name)
		}
		var f fields
		f.add("Server", l.Server)
		f.add("Name", h.Name)
		f.add("Role", h.Role)
		f.add("Context", name)
		f.add("Kept in", loginFile(env))
		return f.write(env.out)
	}
	return cmd
}

// pool returns the trust anchors; nil means the system's.
func (l login) pool() *x509.CertPool {
	if l.Roots == "" {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(l.Roots))
	return pool
}

// holder asks the server who the token says one is.
func (t target) holder(ctx context.Context) (h client.WhoAmI, err error) {
	api, err := client.New(client.Config{URL: t.server, Token: t.token, Roots: t.roots, UserAgent: userAgent()})
	if err != nil {
		return h, err
	}
	return api.WhoAmI(ctx)
}

func sha256Of(c *x509.Certificate) []byte {
	sum := sha256.Sum256(c.Raw)
	return sum[:]
}

// known takes the root of the data folder on this machine, if that vouches for the server.
func (l *login) known(ctx context.Context, env *environment) bool {
	data := (&connection{env: env}).dataFolder()
	if data == "" {
		return false
	}
	certs, err := readCertificates(env, filepath.Join(data, rootFileName))
	if err != nil {
		return false // no server has run here, or it is not ours to read
	}
	own := login{Roots: string(encodePEM(certs))}
	if !trusts(ctx, l.Server, own.pool()) {
		return false
	}
	l.Roots = own.Roots
	return true
}

// trusts reports whether roots, those of the system if nil, vouch for a server. Nothing is sent to it but a question that
// is open to everybody.
func trusts(ctx context.Context, server string, roots *x509.CertPool) bool {
	api, err := client.New(client.Config{URL: server, Roots: roots, UserAgent: userAgent()})
	if err != nil {
		return false
	}
	_, err = api.Server(ctx)
	return err == nil
}

// fetchRoots asks a server that is not trusted yet for its roots, and keeps the one with the fingerprint, or those that
// somebody has compared. Nothing secret is sent.
func fetchRoots(ctx context.Context, env *environment, server string, pinned bool, pin pki.Fingerprint) (string, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// The root is what the server is to be checked with; it is compared below, and checked by the next request.
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/api/v1/roots.pem", nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("User-Agent", userAgent())
	answer, err := c.Do(request)
	if err != nil {
		return "", target{server: server}.explain(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxFileBytes))
	if err != nil {
		return "", err
	}
	certs, err := parsePEM(string(text))
	if answer.StatusCode != http.StatusOK || err != nil || len(certs) == 0 {
		return "", failure("is "+server+" a Certwright server's HTTPS address?", "%s has no root certificates to give (status %d)", server, answer.StatusCode)
	}
	if pinned {
		for _, cert := range certs {
			if sum := sha256Of(cert); bytes.Equal(sum, pin[:]) {
				return string(encodePEM([]*x509.Certificate{cert})), nil
			}
		}
		return "", failure("compare with «certwright issuer show root» on the server's machine; somebody else may be answering",
			"the root of %s has another fingerprint: %s", server, fingerprint(sha256Of(certs[0])))
	}
	if !interactive(env.in) {
		return "", failure("name the root's SHA-256 with --fingerprint, as «certwright issuer show root» prints it on the server's machine, or its file with --ca-file",
			"the root of %s is not known here, and nobody can be asked", server)
	}
	for _, cert := range certs {
		fmt.Fprintf(env.err, "%s says that its root is %s, with the SHA-256\n  %s\n", visible(server), visible(nameOf(cert)), fingerprint(sha256Of(cert)))
	}
	yes, err := confirm(ctx, env, "Is that what «certwright issuer show root» prints on the server's machine?")
	if err != nil {
		return "", err
	}
	if !yes {
		return "", failure("", "not confirmed, nothing was kept")
	}
	return string(encodePEM(certs)), nil
}

// loginToken reads the token from where it may come from, or asks for it.
func loginToken(ctx context.Context, env *environment, file string) (string, error) {
	if token, ok := env.lookup("CERTWRIGHT_TOKEN"); ok && file == "" && strings.TrimSpace(token) != "" {
		return strings.TrimSpace(token), nil
	}
	if file == "" && interactive(env.in) {
		token, err := ask(ctx, env, "API token: ")
		if token = strings.TrimSpace(token); err == nil && token == "" {
			err = failure("«certwright token create» makes one", "no token was given, nothing was kept")
		}
		return token, err
	}
	name := cmp.Or(file, "-")
	text, err := readInput(env, name)
	if err != nil {
		return "", err
	}
	defer clear(text)
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSpace(line); line == "" {
		if name == "-" {
			name = "the standard input"
		}
		return "", failure("«certwright token create» makes one", "the first line of %s is empty: want a token there", name)
	}
	return line, nil
}

func newLogoutCommand(env *environment) *cobra.Command {
	var name string
	var everything bool
	cmd := &cobra.Command{
		Use:     "logout",
		GroupID: groupHere,
		Short:   "Forget a login",
		Long: `Forget a login: the one in use, or the one that --context names. The token itself stays good elsewhere:
«certwright token revoke» ends it.`,
		Example: "  certwright logout\n  certwright logout --context lab\n  certwright logout --all",
		Args:    takes(),
	}
	cmd.Flags().StringVar(&name, "context", "", "the login of this `name` (default: the one in use)")
	cmd.Flags().BoolVar(&everything, "all", false, "forget every login")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if everything && name != "" {
			return misuse(cmd, "", "--context and --all exclude each other")
		}
		all, err := readLogins(env)
		if err != nil && !everything { // a broken file goes as well
			return err
		}
		if len(all.Contexts) == 0 && err == nil || !everything && name == "" && all.Current == "" {
			return failure("«certwright context list» shows those that are kept", "nobody is logged in")
		}
		if everything {
			if err := os.Remove(loginFile(env)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			fmt.Fprintln(env.out, "Every login is forgotten.")
			return nil
		}
		if name = cmp.Or(name, all.Current); name != "" {
			if _, err := all.get(name); err != nil {
				return err
			}
		}
		delete(all.Contexts, name)
		if all.Current == name {
			all.Current = ""
		}
		if err := all.write(env); err != nil {
			return err
		}
		fmt.Fprintf(env.out, "The login %s is forgotten.\n", visible(name))
		if all.Current == "" && len(all.Contexts) > 0 {
			note(env, "none is in use now: «certwright context use %s»", all.names()[0])
		}
		return nil
	}
	completeContexts(env, cmd)
	return cmd
}

func newContextCommand(env *environment) *cobra.Command {
	return group(&cobra.Command{
		Use:     "context",
		GroupID: groupHere,
		Short:   "List the logins that are kept, and choose the one in use",
		Example: "  certwright context list\n  certwright context use lab",
	}, newContextListCommand(env), newContextUseCommand(env))
}

func newContextListCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the logins that are kept",
		Long:    "List the logins that are kept; a star marks the one in use. Tokens are not shown.",
		Example: "  certwright context list",
		Args:    takes(),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		all, err := readLogins(env)
		if err != nil {
			return err
		}
		type row struct {
			Name    string `json:"name"`
			Server  string `json:"server"`
			Current bool   `json:"current"`
		}
		rows := []row{}
		for _, name := range all.names() {
			rows = append(rows, row{name, all.Contexts[name].Server, name == all.Current})
		}
		if !output.forPeople() {
			return output.write(env.out, struct {
				Contexts []row `json:"contexts"`
			}{rows}, all.names()...)
		}
		if len(rows) == 0 {
			note(env, "nobody is logged in: «certwright login URL»")
			return nil
		}
		var cells [][]string
		for _, r := range rows {
			cells = append(cells, []string{map[bool]string{true: "*"}[r.Current], r.Name, r.Server})
		}
		return table(env.out, []string{"IN USE", "NAME", "SERVER"}, cells)
	}
	return cmd
}

func newContextUseCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "use NAME",
		Short:   "Choose the login that commands use",
		Example: "  certwright context use lab",
		Args:    takes("NAME"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			all, err := readLogins(env)
			if err != nil || len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return all.names(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		all, err := readLogins(env)
		if err != nil {
			return err
		}
		l, err := all.get(args[0])
		if err != nil {
			return err
		}
		all.Current = args[0]
		if err := all.write(env); err != nil {
			return err
		}
		fmt.Fprintf(env.out, "Commands use %s now: %s\n", visible(args[0]), visible(l.Server))
		return nil
	}
	return cmd
}

// completeContexts has shells complete --context with the names of the logins.
func completeContexts(env *environment, cmd *cobra.Command) {
	err := cmd.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		all, err := readLogins(env)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return all.names(), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // for a flag that does not exist
	}
}
