package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// process is a server that we have started.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // then, how
}

func startProcess(logFile string, env []string, program string, args ...string) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{cmd: exec.Command(program, args...), log: logFile, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr, p.cmd.Env = log, log, tied(), env
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process and waits until it has.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		// It is waited for below; that it may just have ended does not matter.
		_ = p.cmd.Process.Kill()
		<-p.done
		return p.failure(fmt.Errorf("the server did not end in %s", stopTimeout))
	}
	if p.err != nil {
		return p.failure(fmt.Errorf("the server ended badly: %w", p.err))
	}
	return nil
}

// failure adds what the server last said.
func (p *process) failure(err error) error {
	const most = 4000
	said, readErr := os.ReadFile(p.log)
	if readErr != nil || len(said) == 0 {
		return err
	}
	return fmt.Errorf("%w\n--- the server said:\n%s", err, said[max(len(said)-most, 0):])
}

// until tries often, until there is no error, the process has ended, or it takes too long.
func (p *process) until(ctx context.Context, try func() error) error {
	deadline := time.After(startTimeout)
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return p.failure(fmt.Errorf("the server ended: %w", p.err))
		case <-deadline:
			return p.failure(fmt.Errorf("the server did not start in %s: %w", startTimeout, err))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// server is a Certwright server that answers.
type server struct {
	*process
	url   string
	token string
	roots *x509.CertPool
	http  *http.Client
}

// startServer starts a server and returns how long it took until it was ready.
func startServer(ctx context.Context, program, data, database string) (*server, time.Duration, error) {
	// The one of an earlier start names another port.
	settings := filepath.Join(data, "client.yaml")
	if err := os.Remove(settings); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	args := []string{"serve", "--data", data, "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--mtls", "off", "--log-level", "warn"}
	if database != "" {
		args = append(args, "--database", database)
	}
	// The caller's settings are not those that are measured.
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "CERTWRIGHT_") {
			env = append(env, e)
		}
	}
	began := time.Now()
	p, err := startProcess(data+".log", env, program, args...)
	if err != nil {
		return nil, 0, err
	}
	s := &server{process: p}
	fail := func(err error) (*server, time.Duration, error) {
		return nil, 0, errors.Join(err, s.stop())
	}
	if err := s.until(ctx, func() error { return s.readSettings(settings) }); err != nil {
		return fail(err)
	}
	s.http = &http.Client{
		Timeout:   requestTimeout,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12}},
	}
	if err := s.until(ctx, func() error { return s.get(ctx, "/readyz", nil) }); err != nil {
		return fail(err)
	}
	return s, time.Since(began), nil
}

// readSettings reads what the server leaves for the command line.
func (s *server) readSettings(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c struct {
		Server    string `yaml:"server"`
		TokenFile string `yaml:"token_file"`
		CAFile    string `yaml:"ca_file"`
	}
	if err := yaml.Unmarshal(b, &c); err != nil {
		return err
	}
	token, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(c.CAFile)
	if err != nil {
		return err
	}
	s.url, s.roots = c.Server, x509.NewCertPool()
	s.token, _, _ = strings.Cut(string(token), "\n")
	if !s.roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("there is no certificate in %s", c.CAFile)
	}
	return nil
}

// get reads JSON; into nothing if out is nil.
func (s *server) get(ctx context.Context, path string, out any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	answer, err := s.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, answer.Status, body)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

// publicURL returns the address of the plain listener, as it stands in certificates.
func (s *server) publicURL(ctx context.Context) (string, error) {
	var about struct {
		PublicURL string `json:"public_url"`
	}
	err := s.get(ctx, "/api/v1/server", &about)
	return about.PublicURL, err
}

// list returns the ids of all certificates of a profile that are in the store. That two have the same serial number is an
// error: our servers have one issuer.
func (s *server) list(ctx context.Context, profile string) ([]string, error) {
	var ids []string
	serials := map[string]bool{}
	query := url.Values{"profile": {profile}, "limit": {"1000"}}
	for {
		var page struct {
			Certificates []struct {
				ID     string `json:"id"`
				Serial string `json:"serial"`
			} `json:"certificates"`
			Next string `json:"next"`
		}
		if err := s.get(ctx, "/api/v1/certificates?"+query.Encode(), &page); err != nil {
			return nil, err
		}
		for _, c := range page.Certificates {
			if serials[c.Serial] {
				return nil, fmt.Errorf("two certificates have the serial number %s", c.Serial)
			}
			ids, serials[c.Serial] = append(ids, c.ID), true
		}
		if page.Next == "" {
			return ids, nil
		}
		query.Set("cursor", page.Next)
	}
}
