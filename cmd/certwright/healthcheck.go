package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/config"
)

// The addresses that answer about health, and how long an answer may take and be.
const (
	livePath      = "/healthz"
	readyPath     = "/readyz"
	healthTimeout = 3 * time.Second
	maxHealth     = 64 << 10
)

func newHealthCheckCommand(env *environment) *cobra.Command {
	var f settings
	var address string
	var ready bool
	timeout := span(healthTimeout)
	cmd := &cobra.Command{
		Use: "healthcheck", GroupID: groupServer, Short: "Ask the server on this machine whether it is well",
		Long: `Ask the server on this machine whether it is well: for containers, whose images have no shell and no curl.

Without flags it asks /healthz, which says that the process runs; with --ready it asks /readyz, which says whether
requests should be sent here: whether the store answers, the keys are open, the CRLs are fresh and the clock is right.
Have a server started again only because of /healthz: a database that is away is not mended by starting servers again.

The server is found by its settings in the configuration file and the environment (CERTWRIGHT_HTTP); if it was given
other addresses by flags, name one with --url. The exit code is 0 if all is well, 1 if not.`,
		Example: "  certwright healthcheck\n  certwright healthcheck --ready\n  certwright healthcheck --url http://127.0.0.1:8080/readyz",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if address != "" && ready {
				return misuse(cmd, "--url names the whole address, as in http://127.0.0.1:8080"+readyPath, "--url and --ready exclude each other")
			}
			cfg, err := f.load(env, nil)
			if err != nil {
				return failure("docs/configuration.md lists the settings", "%w", err)
			}
			target, dial, err := healthTarget(&cfg, address, ready)
			if err != nil {
				return misuse(cmd, "", "--url: %s", err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Duration(timeout))
			defer cancel()
			if err := askHealth(ctx, &cfg, target, dial); err != nil {
				return err
			}
			fmt.Fprintln(env.out, "ok")
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "url", "", "whole `address` to ask (default: "+livePath+" of the plain HTTP listener, or of the HTTPS one if that is off)")
	cmd.Flags().BoolVar(&ready, "ready", false, "ask "+readyPath+" in place of "+livePath)
	cmd.Flags().Var(&timeout, "timeout", "how long the answer may take")
	cmd.Flags().StringVar(&f.file, "config", "", "configuration file (default certwright.yaml in the data folder, if it is there)")
	cmd.Flags().StringVar(&f.data, "data", "", "data folder (default certwright in the user's data folder)")
	return cmd
}

// healthTarget returns the address to ask. dial is the listener to connect to, whatever host the address has; empty means
// that host.
func healthTarget(cfg *config.Config, address string, ready bool) (target *url.URL, dial string, err error) {
	if address != "" {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, "", fmt.Errorf("%q is not an address such as http://127.0.0.1:8080%s", address, livePath)
		}
		return u, "", nil
	}
	// The server's own certificate has localhost, whatever else it has. A listener without a host, or on 0.0.0.0 or ::, is
	// reached on this machine's loopback: that is how Go dials such an address.
	u := &url.URL{Scheme: "http", Host: "localhost", Path: livePath}
	if ready {
		u.Path = readyPath
	}
	if dial = cfg.HTTP; dial == config.Off {
		u.Scheme, dial = "https", cfg.HTTPS
	}
	return u, dial, nil
}

// askHealth returns nil if the server says that it is well.
func askHealth(ctx context.Context, cfg *config.Config, target *url.URL, dial string) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: ownRoots(cfg.Data)},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, cmp.Or(dial, addr))
		},
	}
	client := &http.Client{
		Transport: transport,
		// An answer that points elsewhere is not this server's.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	where := target.Redacted()
	if dial != "" {
		where = target.Path + " at " + dial
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			if failed.Timeout() {
				return failure("it is stuck or overloaded: see its log, or give it longer with --timeout", "%s did not answer in time", where)
			}
			err = failed.Err
		}
		return failure("see whether the server runs; if it was given other addresses by flags, name one with --url", "asking %s: %w", where, err)
	}
	defer res.Body.Close()
	// What cannot be read is not what a healthy server says; the status alone would do.
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxHealth))
	if res.StatusCode == http.StatusOK {
		return nil
	}
	var said struct {
		Checks map[string]string `json:"checks"`
	}
	var failing []string
	if json.Unmarshal(body, &said) == nil {
		for name, state := range said.Checks {
			if state != "ok" {
				failing = append(failing, name+": "+state)
			}
		}
	}
	slices.Sort(failing)
	if len(failing) == 0 {
		return failure("is it a Certwright server's address?", "%s answers %s", where, res.Status)
	}
	return failure("the server's log has more; «certwright check» says how to mend it", "not ready: %s", strings.Join(failing, "; "))
}

// ownRoots returns the root certificates in the data folder; nil, the system's, if there are none.
func ownRoots(data string) *x509.CertPool {
	text, err := os.ReadFile(filepath.Join(data, rootFileName))
	if err != nil {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil
	}
	return pool
}
