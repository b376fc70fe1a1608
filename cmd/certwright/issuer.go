package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/keys"
)

func newIssuerCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "issuer",
		GroupID: groupAuthority,
		Short:   "Show the issuers, the root and those below it, and change their settings",
		Example: "  certwright issuer list\n  certwright issuer show root\n  certwright issuer set issuing --crl-form sharded --dry-run",
	}
	conn := connect(env, cmd)
	return group(cmd,
		newIssuerListCommand(env, conn), newIssuerShowCommand(env, conn), newIssuerSettingsCommand(env, conn),
		newIssuerSetCommand(env, conn), newIssuerHistoryCommand(env, conn), newIssuerRotateRACommand(env, conn),
	)
}

func newIssuerListCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the issuers, roots first",
		Long:    "List the issuers, roots first. It takes no token.",
		Example: "  certwright issuer list",
		Args:    takes(),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.callOpen(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		issuers, err := api.Issuers(cmd.Context())
		if err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, struct {
				Issuers []client.Issuer `json:"issuers"`
			}{issuers}, namesOf(issuers, func(i client.Issuer) string { return i.Name })...)
		}
		var rows [][]string
		for _, i := range issuers {
			parent := i.Parent
			if i.Root {
				parent = "(root)"
			}
			crl := "-"
			if i.CRL != nil {
				crl = stamp(i.CRL.NextUpdate)
			}
			rows = append(rows, []string{i.Name, clip(i.Subject, 60), parent, keys.Title(i.KeyAlgorithm), i.Status, stamp(i.NotAfter), crl, formOf(i)})
		}
		return table(env.out, []string{"NAME", "SUBJECT", "BELOW", "KEY", "STATUS", "NOT AFTER (UTC)", "CRL GOOD UNTIL", "FORM"}, rows)
	})
	return cmd
}

// formOf names the form of an issuer's CRLs in a word or two.
func formOf(i client.Issuer) string {
	form := i.Settings.CRL.Form
	if i.Settings.CRL.Shards > 0 {
		form = fmt.Sprintf("%d shards", i.Settings.CRL.Shards)
	}
	if i.Settings.CRL.Delta {
		form += ", delta"
	}
	return form
}

func newIssuerShowCommand(env *environment, conn *connection) *cobra.Command {
	var asPEM, asChain bool
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show an issuer",
		Long: `Show an issuer, with its certificate's fingerprint and the addresses of its CRL and OCSP responder. It takes no token.

Compare a root's fingerprint, as this command prints it on the server's machine, with what others were told before they
trust it.`,
		Example: `  certwright issuer show root
  certwright issuer show root --pem > root.pem
  certwright issuer show issuing --chain > chain.pem`,
		Args: takes("NAME"),
	}
	cmd.Flags().BoolVar(&asPEM, "pem", false, "print the certificate as PEM and nothing else")
	cmd.Flags().BoolVar(&asChain, "chain", false, "print the certificates up to the root as PEM and nothing else")
	output := outputFlag(cmd)
	show := conn.callOpen(func(cmd *cobra.Command, api *client.Client, args []string) error {
		i, err := api.Issuer(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		switch {
		case !output.forPeople():
			return output.write(env.out, i, i.Name)
		case asPEM, asChain:
			certs, err := parsePEM(i.PEM)
			if asChain && err == nil {
				var text []byte
				if text, err = api.File(cmd.Context(), "issuers/"+i.Name+"/chain.pem"); err == nil {
					certs, err = parsePEM(string(text))
				}
			}
			if err == nil {
				_, err = env.out.Write(encodePEM(certs))
			}
			return err
		}
		server, err := api.Server(cmd.Context())
		if err != nil {
			return err
		}
		now := env.now()
		var f fields
		f.add("Name", i.Name)
		f.add("Subject", i.Subject)
		parent := i.Parent
		if i.Root {
			parent = "nobody: it is a root"
		}
		f.add("Below", parent)
		f.add("Status", i.Status)
		f.add("Not before", stampFor(i.NotBefore, now))
		f.add("Not after", stampFor(i.NotAfter, now))
		f.add("Key", keys.Title(i.KeyAlgorithm)+", id "+i.KeyID)
		f.add("Serial", i.Serial)
		if i.CRL != nil {
			f.add("CRL", i.CRL.URL, fmt.Sprintf("number %d, %d revoked, good until %s", i.CRL.Number, i.CRL.Entries, stampFor(i.CRL.NextUpdate, now)))
		}
		if in := i.Settings; in.CRL.Form != "" {
			f.add("Revocation", inForceLines(in)...)
		}
		if server.PublicURL != "" {
			f.add("OCSP", server.PublicURL+"/ocsp/"+i.KeyID)
		}
		f.add("SHA-256", fingerprintOf(i.Fingerprint))
		return f.write(env.out)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if asPEM && asChain {
			return misuse(cmd, "", "--pem and --chain exclude each other")
		}
		return show(cmd, args)
	}
	return cmd
}

// The two files for verifiers, as the server calls them.
const (
	rootsFile     = "roots.pem"
	clientCAsFile = "client-ca.pem"
)

func newTrustCommand(env *environment) *cobra.Command {
	var dir string
	var force bool
	cmd := &cobra.Command{
		Use:     "trust",
		GroupID: groupAuthority,
		Short:   "Write the certificates that verifiers need",
		Long: `Write the certificates that verifiers need, into a folder:

  roots.pem      the trust anchors, for whoever checks certificates
  client-ca.pem  the roots and the live intermediates, for servers that ask clients for certificates

It takes no token.`,
		Example: "  certwright trust -o /etc/certwright\n  curl --cacert roots.pem https://www.example.com",
		Args:    takes(),
	}
	conn := connect(env, cmd)
	cmd.Flags().StringVarP(&dir, "out", "o", ".", "`folder` to write to; made if it does not exist")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite files that exist")
	cmd.RunE = conn.callOpen(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		names := []string{rootsFile, clientCAsFile}
		for _, name := range names {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil && !force {
				return failure("-o writes to another folder, --force overwrites", "%s exists already", filepath.Join(dir, name))
			}
		}
		var bundles [][]*x509.Certificate
		for _, name := range names {
			text, err := api.File(cmd.Context(), name)
			if err != nil {
				return err
			}
			certs, err := parsePEM(string(text))
			if err != nil {
				return fmt.Errorf("reading %s from the server: %w", name, err)
			}
			bundles = append(bundles, certs)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for i, name := range names {
			path, certs := filepath.Join(dir, name), bundles[i]
			if err := writePublic(path, encodePEM(certs), force); err != nil {
				return err
			}
			var f fields
			fmt.Fprintln(env.out, visible(path))
			for _, c := range certs {
				in := contentsOf(c)
				f.add("  "+in.Subject, fingerprintOf(in.SHA256))
			}
			if err := f.write(env.out); err != nil {
				return err
			}
		}
		return nil
	})
	return cmd
}

func newIssuerRotateRACommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate-ra NAME", Short: "Give the registration authority of an issuer a new key", Args: takes("NAME"),
		Long: `Give the registration authority (RA) of an issuer a new key. Its certificate is renewed by itself, with the key it has:
a new one is for when the old may be known to others. The old key still decrypts for a time (scep.ra_key_age), since
devices keep the certificate that they know.`,
		Example: "  certwright issuer rotate-ra issuing",
	}
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		ra, err := api.RotateRA(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(env.out, "the RA of issuer %s has a new key; its certificate ends %s\n", visible(args[0]), stampFor(ra.NotAfter, env.now()))
		return nil
	})
	return cmd
}
