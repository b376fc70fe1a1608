package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
)

func newCertShowCommand(env *environment, conn *connection) *cobra.Command {
	var asPEM, asChain bool
	cmd := &cobra.Command{
		Use:   "show ID|SERIAL|FILE|-",
		Short: "Show a certificate",
		Long: `Show a certificate.

By id or serial number it comes from the server, with its status and where it came from. A file or - (the standard
input) is explained on this machine without asking anybody, so whether it is revoked is not known then.`,
		Example: `  certwright cert show 41013f0b1c2d5f6a7e8091a2b3c4d5e6
  certwright cert show www.example.com.crt
  openssl s_client -connect www.example.com:443 </dev/null | certwright cert show -
  certwright cert show 41013f0b1c2d5f6a7e8091a2b3c4d5e6 --pem > www.example.com.crt`,
		Args: takes("ID, SERIAL or FILE"),
	}
	f := cmd.Flags()
	f.BoolVar(&asPEM, "pem", false, "print the certificate as PEM and nothing else")
	f.BoolVar(&asChain, "chain", false, "print the certificate and its issuers' without the root, as TLS servers send them, as PEM")
	output := outputFlag(cmd)
	fromServer := conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		c, err := find(cmd.Context(), env, api, args[0])
		if err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, c, c.ID)
		}
		if (asPEM || asChain) && c.PEM == "" {
			return failure("", "certificate %s was imported without its contents", c.Serial)
		}
		if asPEM || asChain {
			text, err := pemOf(c, asChain)
			if err == nil {
				_, err = env.out.Write(text)
			}
			return err
		}
		return writeRecord(env, c)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if asPEM && asChain {
			return misuse(cmd, "", "--pem and --chain exclude each other")
		}
		if !isFile(args[0]) {
			return fromServer(cmd, args)
		}
		certs, err := readCertificates(env, args[0])
		if err != nil {
			return err
		}
		if asPEM {
			certs = certs[:1]
		}
		if asPEM || asChain {
			_, err := env.out.Write(encodePEM(certs))
			return err
		}
		if !output.forPeople() {
			var document struct {
				Certificates []contents `json:"certificates"`
			}
			for _, c := range certs {
				document.Certificates = append(document.Certificates, contentsOf(c))
			}
			return output.write(env.out, document, namesOf(document.Certificates, func(c contents) string { return c.SHA256 })...)
		}
		for i, c := range certs {
			if i > 0 {
				fmt.Fprintln(env.out)
			}
			if err := contentsOf(c).fields(env.now()).write(env.out); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// writeRecord shows what the server knows of a certificate, then what stands in it.
func writeRecord(env *environment, c client.Certificate) error {
	now := env.now()
	var f fields
	f.add("Status", statusText(c))
	if r := c.Revocation; r != nil && !r.DecidedAt.IsZero() {
		f.add("Decided", r.DecidedAt.UTC().Format(preciseStamp)+" UTC")
		f.add("In OCSP", sinceDecision(r.FirstOCSPAt, r.DecidedAt))
		f.add("On a CRL", sinceDecision(r.FirstCRLAt, r.DecidedAt))
	}
	f.add("Profile", fmt.Sprintf("%s, version %d", c.Profile, c.ProfileVersion))
	f.add("Issued", stampFor(c.IssuedAt, now))
	f.add("Issued by", c.Issuer)
	f.add("Requested by", c.Requester+" over "+c.Protocol)
	f.add("Requested from", c.Source)
	f.add("Device", c.Device)
	f.add("Renews", c.Replaces)
	certs, err := parsePEM(c.PEM)
	if err != nil || len(certs) == 0 { // imported: only the record is known
		f.add("Subject", c.Subject)
		f.add("Names", c.SANs...)
		f.add("Not before", stampFor(c.NotBefore, now))
		f.add("Not after", stampFor(c.NotAfter, now))
		f.add("Serial", c.Serial)
		f.add("Id", c.ID)
		return f.write(env.out)
	}
	f.add("Id", c.ID)
	return append(f, contentsOf(certs[0]).fields(now)...).write(env.out)
}

// preciseStamp is for instants that lie close to each other.
const preciseStamp = "2006-01-02 15:04:05.000"

// sinceDecision says when a revocation was first seen, and how long that was after the decision.
func sinceDecision(at *time.Time, decided time.Time) string {
	if at == nil {
		return "not known yet"
	}
	after := at.Sub(decided)
	if after >= time.Second {
		after = after.Round(100 * time.Millisecond)
	} else {
		after = after.Round(time.Millisecond)
	}
	return fmt.Sprintf("%s UTC, %s after the decision", at.UTC().Format(preciseStamp), after)
}

// pemOf returns the certificate alone, or with its issuers' without the root: the order in which TLS sends them
// (RFC 8446, Section 4.4.2).
func pemOf(c client.Certificate, chain bool) ([]byte, error) {
	text := c.PEM
	if chain {
		text += c.Chain
	}
	certs, err := parsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("reading the server's answer: %w", err)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("the server's answer holds no certificate")
	}
	kept := certs[:1]
	for _, c := range certs[1:] {
		if !selfIssued(c) {
			kept = append(kept, c)
		}
	}
	return encodePEM(kept), nil
}
