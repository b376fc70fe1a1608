package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/export"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/server"
)

func newCRLCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use: "crl", GroupID: groupAuthority, Short: "See how CRLs are published, and export them",
		Example: "  certwright crl list\n  certwright crl export --to /var/www/pki",
	}
	conn := connect(env, cmd)
	return group(cmd, newCRLListCommand(env, conn), newCRLExportCommand(env, conn))
}

func newCRLListCommand(env *environment, conn *connection) *cobra.Command {
	var issuer string
	cmd := &cobra.Command{
		Use: "list", Short: "List the CRLs that are published, and how fresh they are",
		Long: `List the CRLs that are published: number, entries, size, when they were made and until when they are good. It takes the
token of an auditor or a higher role.

A status other than current says that the CA has not renewed a CRL for long, or that a revocation waits to be on it.`,
		Example: "  certwright crl list\n  certwright crl list --issuer issuing --output json",
		Args:    takes(),
	}
	cmd.Flags().StringVar(&issuer, "issuer", "", "those of the issuer with this `name`")
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		all, err := api.CRLs(cmd.Context(), issuer)
		if err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, all, namesOf(all.CRLs, func(c client.CRLState) string { return c.URL })...)
		}
		now := env.now()
		var rows [][]string
		for _, c := range all.CRLs {
			status := c.Status
			if c.Pending {
				status += ", a revocation waits"
			}
			if c.Error != "" {
				status += ", fails: " + clip(c.Error, 80)
			}
			row := []string{c.Issuer, c.Scope, "-", "-", "-", "-", "-", status}
			if c.NextUpdate != nil && c.CreatedAt != nil {
				row = []string{
					c.Issuer, c.Scope, fmt.Sprint(c.Number), fmt.Sprint(c.Entries), fmt.Sprint(c.Size), stamp(*c.CreatedAt), stampFor(*c.NextUpdate, now), status,
				}
			}
			rows = append(rows, row)
		}
		if err := table(env.out, []string{"ISSUER", "SCOPE", "NUMBER", "ENTRIES", "OCTETS", "MADE (UTC)", "GOOD UNTIL", "STATUS"}, rows); err != nil {
			return err
		}
		if !all.MadeHere && all.MadeBy != "" {
			note(env, "the replica %s makes them", visible(all.MadeBy))
		}
		return nil
	})
	return cmd
}

func newCRLExportCommand(env *environment, conn *connection) *cobra.Command {
	var to config.Export
	var from string
	var watch, quiet bool
	every := span(2 * time.Second)
	cmd := &cobra.Command{
		Use: "export", Short: "Copy CRLs and CA certificates to where a web server or a CDN serves them",
		Long: `Copy all that verifiers fetch, CRLs in DER and PEM, bundles, CA certificates, chains and roots, into a folder or a
bucket of S3-compatible storage: for CDNs, and for sites that are cut off from the server. The layout is
that of the addresses in certificates: serve it as it is, in place of the plain HTTP listener. OCSP needs the server.

Files are replaced whole, and only when they changed. Nothing is removed. A CRL never takes the place of a newer one.
With --watch it goes on until you interrupt it; the server does the same by itself with export.to in its settings.

Keys for S3 come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, else from ~/.aws/credentials or
the file that --credentials-file names, else from the role of the machine.

It takes no token. By default everything comes from the server's HTTPS listener; --from names another address, such as
that of a replica's plain HTTP listener.`,
		Example: `  certwright crl export --to /var/www/pki
  certwright crl export --to s3://pki-example-com/public --s3-region eu-central-1 --watch
  certwright crl export --to /media/usb/pki --from http://pki.example.com`,
		Args: takes(),
	}
	f := cmd.Flags()
	f.StringVar(&to.To, "to", "", "a `folder`, or s3://BUCKET/PREFIX")
	f.StringVar(&from, "from", "", "`URL` of the server's plain HTTP listener (default: the server's HTTPS listener)")
	f.BoolVar(&watch, "watch", false, "go on, and copy what changes")
	f.Var(&every, "every", "with --watch: how long to wait between looks")
	f.BoolVarP(&quiet, "quiet", "q", false, "do not name the files that are written")
	f.StringVar(&to.Endpoint, "s3-endpoint", "", "`URL` of the storage, as in https://s3.example.com (default: AWS, or AWS_ENDPOINT_URL)")
	f.StringVar(&to.Region, "s3-region", "", "`region` of the bucket (default: AWS_REGION, else it is found out)")
	f.StringVar(&to.CredentialsFile, "credentials-file", "", "`file` in the form of ~/.aws/credentials")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case to.To == "":
			return misuse(cmd, "", "name a folder, or s3://BUCKET/PREFIX, with --to")
		case every <= 0:
			return misuse(cmd, "", "--every must be above zero")
		case cmd.Flags().Changed("every") && !watch:
			return misuse(cmd, "", "--every is for --watch")
		case !strings.HasPrefix(to.To, "s3://") && (to.Endpoint != "" || to.Region != "" || to.CredentialsFile != ""):
			return misuse(cmd, "", "--s3-endpoint, --s3-region and --credentials-file are for s3://BUCKET/PREFIX")
		}
		target, err := server.ExportTarget(to)
		if fault.Is(err, fault.BadRequest) {
			return misuse(cmd, "", "--to: %s", fault.Public(err).Detail)
		}
		if err != nil {
			return err
		}
		source, explain, err := exportSource(cmd, conn, from)
		if err != nil {
			return err
		}
		e, err := export.New(export.Config{
			Source: source, Target: target, Every: time.Duration(every), Logger: logger(env.err, config.Log{Format: "text", Level: "info"}),
			Done: func(name string, o export.Outcome) {
				if !quiet && o != export.Unchanged {
					fmt.Fprintf(env.out, "%-8s %s\n", o, visible(name))
				}
			},
		})
		if err != nil {
			return err
		}
		// The first round fails loudly also with --watch: a wrong address does not mend itself.
		if err := e.Once(cmd.Context()); err != nil {
			return explain(err)
		}
		if watch {
			e.Run(cmd.Context())
			return nil
		}
		if !quiet {
			st := e.State()
			fmt.Fprintf(env.out, "%s: %d written, %d unchanged, %d kept because they are newer.\n", visible(target.String()),
				st.Files[export.Written], st.Files[export.Unchanged], st.Files[export.Kept])
		}
		return nil
	}
	return cmd
}

// exportSource returns the server to copy from, and what explains errors of talking to it.
func exportSource(cmd *cobra.Command, conn *connection, from string) (export.Source, func(error) error, error) {
	t, err := conn.target(false)
	if err != nil {
		return export.Source{}, nil, err
	}
	if from != "" {
		u, err := url.Parse(from)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
			return export.Source{}, nil, misuse(cmd, "", "--from: %q is not an address such as http://pki.example.com", from)
		}
		t.server = strings.TrimRight(from, "/")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: t.roots, MinVersion: tls.VersionTLS12}
	transport.ResponseHeaderTimeout = 30 * time.Second
	explain := func(err error) error {
		// Those of the storage are told as they are.
		if _, ok := errors.AsType[*url.Error](err); ok && !fault.Is(err, fault.Unavailable) {
			return t.explain(err)
		}
		return err
	}
	fetch := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // a server of ours does not redirect
	}}
	return export.Source{Base: t.server, Client: fetch}, explain, nil
}
