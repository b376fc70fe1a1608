package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/config"
)

// Names in the data folder.
const (
	clientFileName = "client.yaml" // written by the server at its start
	tokenFileName  = "admin.token" // written by the server at its first start
	rootFileName   = "root.pem"
)

// defaultServer is where a server with the default settings listens.
const defaultServer = "https://127.0.0.1:8443"

// connection finds the server, the token and the root certificate. Its fields are flags; the environment, the login, the
// data folder's client.yaml and the defaults follow.
type connection struct {
	env                                          *environment
	server, tokenFile, caFile, data, contextName string
}

// connect adds the flags to a command and everything below it.
func connect(env *environment, cmd *cobra.Command) *connection {
	c := &connection{env: env}
	f := cmd.PersistentFlags()
	f.StringVar(&c.server, "server", "", "`URL` of the server (default: that of the login, else of client.yaml in the data folder, else "+defaultServer+")")
	f.StringVar(&c.tokenFile, "token-file", "", "`file` with the API token in its first line (default: that of the login, else admin.token in the data folder)")
	f.StringVar(&c.caFile, "ca-file", "", "`file` with the root certificate that the server's own certificate is checked with (default: that of the login, else root.pem in the data folder)")
	f.StringVar(&c.data, "data", "", "data `folder` of the server on this machine (default: certwright in $XDG_DATA_HOME or ~/.local/share)")
	f.StringVar(&c.contextName, "context", "", "the login of this `name`, as «certwright login» keeps them (default: the one in use)")
	completeContexts(env, cmd)
	return c
}

// clientFile is client.yaml.
type clientFile struct {
	Server    string `yaml:"server"`
	TokenFile string `yaml:"token_file"`
	CAFile    string `yaml:"ca_file"`
}

// origin is a server that is known here, with what belongs to it.
type origin struct {
	what                        string // for messages
	server, tokenFile, rootFile string
	login                       *login // in place of the files
}

// target is what a connection comes to.
type target struct {
	context   string // of the login that it comes from; empty if from none
	server    string
	token     string
	tokenHint string // why there is no token, and what to do; empty if there is one
	roots     *x509.CertPool
}

// dataFolder is found as the server finds its own. It is empty when there is no home folder.
func (c *connection) dataFolder() string {
	var environ []string
	for _, entry := range c.env.environ {
		switch name, _, _ := strings.Cut(entry, "="); name {
		case config.EnvPrefix + "DATA", "XDG_DATA_HOME", "HOME":
			environ = append(environ, entry)
		}
	}
	cfg, err := config.Load(os.DevNull, environ, func(cfg *config.Config) { cfg.Data = cmp.Or(c.data, cfg.Data) })
	if err != nil {
		return ""
	}
	return cfg.Data
}

// setting reads an environment variable of ours.
func (c *connection) setting(name string) string {
	v, _ := c.env.lookup(config.EnvPrefix + name)
	return v
}

func (c *connection) target(withToken bool) (target, error) {
	// What is no slip may be somebody else's, as a Compose file's: only a server must know all of its settings.
	if e, ok := errors.AsType[*config.Error](config.CheckEnvironment(c.env.environ)); ok && e.Hint != "" {
		return target{}, e
	}
	own, err := c.origin()
	if err != nil {
		return target{}, err
	}
	t := target{server: strings.TrimRight(cmp.Or(c.server, c.setting("SERVER"), own.server), "/")}
	foreign := !strings.EqualFold(t.server, strings.TrimRight(own.server, "/"))
	if own.login != nil && !foreign {
		t.context = own.what
	}
	if t.roots, err = c.roots(own, foreign); err != nil || !withToken {
		return t, err
	}
	t.token, t.tokenHint, err = c.token(own, foreign)
	return t, err
}

// origin returns the login, or the server of the data folder. A data folder that is named goes before a login that is not.
func (c *connection) origin() (origin, error) {
	name := cmp.Or(c.contextName, c.setting("CONTEXT"))
	if name != "" || c.data == "" && c.setting("DATA") == "" {
		all, err := readLogins(c.env)
		if err != nil {
			return origin{}, err
		}
		if name = cmp.Or(name, all.Current); name != "" {
			l, err := all.get(name)
			return origin{what: name, server: l.Server, login: &l}, err
		}
	}
	own := origin{what: "data folder", server: defaultServer}
	data := c.dataFolder()
	if data == "" {
		return own, nil
	}
	var file clientFile
	path := filepath.Join(data, clientFileName)
	switch err := readYAML(path, &file); {
	case errors.Is(err, fs.ErrNotExist) && c.data != "" && cmp.Or(c.server, c.setting("SERVER")) == "":
		return own, failure("start one with «certwright serve --data "+quote(c.data)+"», or say where it is with --server",
			"no server has run with the data folder %s: there is no %s", c.data, clientFileName)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
	case err != nil:
		return own, fmt.Errorf("%s: %w", path, err)
	}
	own.server = cmp.Or(file.Server, defaultServer)
	own.tokenFile = cmp.Or(file.TokenFile, filepath.Join(data, tokenFileName))
	own.rootFile = cmp.Or(file.CAFile, filepath.Join(data, rootFileName))
	return own, nil
}

// roots returns the trust anchors: those of the named file, else of the origin, to which a foreign server adds the
// system's. nil means the system's.
func (c *connection) roots(own origin, foreign bool) (*x509.CertPool, error) {
	named := cmp.Or(c.caFile, c.setting("CA_FILE"))
	path := cmp.Or(named, own.rootFile)
	var text []byte
	if named == "" && own.login != nil {
		text = []byte(own.login.Roots)
		path = "the login " + own.what
	} else if path != "" {
		var err error
		text, err = os.ReadFile(path)
		switch {
		case err != nil && named == "":
			return nil, nil // no server has run here, or it is not ours to read
		case err != nil:
			return nil, fmt.Errorf("reading the root certificate: %w", err)
		}
	}
	if len(text) == 0 && named == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if named == "" && foreign {
		if system, err := x509.SystemCertPool(); err == nil {
			pool = system
		}
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, failure("it begins with -----BEGIN CERTIFICATE-----; «certwright issuer show root --pem» prints one", "%s holds no certificate in PEM", path)
	}
	return pool, nil
}

// token returns the API token. That of the origin goes to the origin's own server only.
func (c *connection) token(own origin, foreign bool) (token, hint string, err error) {
	path := c.tokenFile
	if path == "" {
		if token := strings.TrimSpace(c.setting("TOKEN")); token != "" {
			return token, "", nil
		}
		path = c.setting("TOKEN_FILE")
	}
	const name = "name one with --token-file or CERTWRIGHT_TOKEN, or «certwright login»; «certwright token create» makes them"
	named := path != ""
	switch {
	case named:
	case foreign && own.login != nil:
		return "", "the token of the login " + own.what + " is for " + own.server + " alone: " + name, nil
	case foreign:
		return "", "the token in the data folder is for " + own.server + " alone: " + name, nil
	case own.login != nil:
		return own.login.Token, "", nil
	case own.tokenFile == "":
		return "", name, nil
	default:
		path = own.tokenFile
	}
	token, err = c.readToken(path)
	switch {
	case err != nil && !named:
		return "", err.Error() + "; " + name, nil
	case err != nil:
		return "", "", fmt.Errorf("reading the token: %w", err)
	}
	return token, "", nil
}

func (c *connection) readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err // names the path
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.IsRegular() && mode.Perm()&0o077 != 0 {
		warn(c.env, "others can read the token file %s (mode %04o): chmod 600 it", path, mode.Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("the first line of %s is empty: want a token there", path)
	}
	return line, nil
}

// userAgent is what this program calls itself before a server.
func userAgent() string { return "certwright/" + readBuild().Version }

// call makes a command's RunE that has a client with a token.
func (c *connection) call(do func(cmd *cobra.Command, api *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return c.with(true, do)
}

// callOpen is call for routes that are open to everybody: no token leaves the machine.
func (c *connection) callOpen(do func(cmd *cobra.Command, api *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return c.with(false, do)
}

func (c *connection) with(token bool, do func(*cobra.Command, *client.Client, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		t, err := c.target(token)
		if err != nil {
			return err
		}
		api, err := client.New(client.Config{URL: t.server, Token: t.token, Roots: t.roots, UserAgent: userAgent()})
		if err != nil {
			return &hintError{err: err, hint: "an address is given with --server or CERTWRIGHT_SERVER, a token with --token-file or CERTWRIGHT_TOKEN"}
		}
		return t.explain(do(cmd, api, args))
	}
}

// explain adds to a failed call what this side knows about it.
func (t target) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		switch {
		case e.Status == http.StatusUnauthorized && t.token == "" && t.tokenHint != "":
			return failure(t.tokenHint, "%s wants an API token", t.server)
		case e.Status == http.StatusUnauthorized && t.token != "":
			return failure("it has ended or was revoked, or is for another server: name another with --token-file or CERTWRIGHT_TOKEN",
				"%s does not accept the API token", t.server)
		case e.Status == http.StatusNotFound && strings.HasPrefix(t.server, "http:"):
			return &hintError{err: err, hint: "the API is on the HTTPS listener, such as " + defaultServer}
		case e.Hint == "" && e.Status >= 500 && e.RequestID != "":
			return &hintError{err: err, hint: "the server's log has more under request id " + e.RequestID}
		case e.Kind() == "" && e.Status != http.StatusServiceUnavailable:
			return &hintError{err: err, hint: "is " + t.server + " a Certwright server's HTTPS address?"}
		}
		return err
	}
	failed, ok := errors.AsType[*url.Error](err)
	if !ok {
		return err
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return failure("give its root certificate with --ca-file or CERTWRIGHT_CA_FILE; «certwright issuer show root --pem» prints it on the server's machine",
			"the certificate of %s is from an authority that is not trusted here", t.server)
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return failure("use a name that it has, or add this one to names in the server's configuration and start it again",
			"the certificate of %s is for another name: %s", t.server, e.Error())
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return failure("compare the clocks of this machine and the server", "the certificate of %s is refused: %s", t.server, e.Err)
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return failure("that is the plain HTTP listener; the API is on the HTTPS one, such as "+defaultServer, "%s does not speak TLS", t.server)
	}
	const start = "start it with «certwright serve», or say where it is with --server or CERTWRIGHT_SERVER"
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		reason := op.Err.Error()
		if errno, ok := errors.AsType[syscall.Errno](op.Err); ok {
			reason = errno.Error()
		}
		return failure(start, "no Certwright server answers at %s: %s", t.server, reason)
	}
	if failed.Timeout() {
		return failure("see whether it runs and is not overloaded: «curl "+t.server+"/api/v1/server»", "%s did not answer in time", t.server)
	}
	return fmt.Errorf("talking to %s: %w", t.server, failed.Err)
}

// neverSent reports whether err says for certain that the server did nothing: it refused, or was never asked.
func neverSent(err error) bool {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Status < 500
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" || errors.Is(err, http.ErrSchemeMismatch)
}

func readYAML(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return err
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	err = dec.Decode(into)
	if wrong, ok := errors.AsType[*yaml.TypeError](err); ok && len(wrong.Errors) > 0 {
		first, _, _ := strings.Cut(wrong.Errors[0], " in type ") // a Go type says nothing to the reader
		return errors.New(first)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
