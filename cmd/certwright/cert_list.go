package main

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
)

// statuses are those that the server knows.
var statuses = []string{"valid", "revoked", "hold", "expired"}

// maxPage is the longest page that the server gives.
const maxPage = 1000

func newCertListCommand(env *environment, conn *connection) *cobra.Command {
	var q client.CertificateQuery
	var expiresIn span
	var limit int
	cmd := &cobra.Command{
		Use:   "list [TEXT]",
		Short: "List certificates, newest first",
		Long: `List certificates, newest first.

TEXT is a part of the subject or of an alternative name, in any letter case. All filters have to match.`,
		Example: `  certwright cert list
  certwright cert list example.com --status valid
  certwright cert list --expires-in 30d --status valid
  certwright cert list --profile server --issued-since 7d --limit 0 --output json`,
		Args: takes("[TEXT]"),
	}
	f := cmd.Flags()
	f.StringVar(&q.Issuer, "issuer", "", "of the issuer with this `name`")
	f.StringVar(&q.Profile, "profile", "", "of the profile with this `name`")
	f.StringSliceVar(&q.Status, "status", nil, "with one of these `states`: valid, revoked, hold, expired")
	complete(cmd, "status", statuses...)
	f.Var(&expiresIn, "expires-in", "that end within this time from now, as in 30d")
	expiresAfter := instantFlag(env, cmd, "expires-after", "that end at this moment or later, as in 2026-11-22")
	expiresBefore := instantFlag(env, cmd, "expires-before", "that end before this moment")
	issuedSince := instantFlag(env, cmd, "issued-since", "issued at this moment or later; 24h is a day ago")
	issuedBefore := instantFlag(env, cmd, "issued-before", "issued before this moment")
	f.StringVar(&q.Serial, "serial", "", "with this serial `number`, hexadecimal")
	f.StringVar(&q.SPKISHA256, "spki", "", "for this key: `SHA-256` of its SubjectPublicKeyInfo, hexadecimal")
	f.StringVar(&q.Requester, "requester", "", "asked for by this `actor`, as in token:NAME")
	f.StringVar(&q.Protocol, "protocol", "", "asked for over this `protocol`, as in rest")
	f.StringVar(&q.Device, "device", "", "of the device with this `identity`")
	f.IntVar(&limit, "limit", 50, "show at most this `many`; 0 shows all")
	output := outputFlag(cmd)
	list := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		certs, more := []client.Certificate{}, false
		for c, err := range api.Certificates(cmd.Context(), q) {
			if err != nil {
				return err
			}
			if more = limit > 0 && len(certs) == limit; more {
				break
			}
			certs = append(certs, c)
		}
		if output.json() {
			err := writeJSON(env.out, struct {
				Certificates []client.Certificate `json:"certificates"`
			}{certs})
			if err != nil {
				return err
			}
		} else if err := writeCertificates(env, certs); err != nil {
			return err
		}
		if more {
			note(env, "there are more: --limit 0 shows all")
		}
		return nil
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return misuse(cmd, "", "--limit cannot be negative")
		}
		for _, s := range q.Status {
			if !slices.Contains(statuses, s) {
				return misuse(cmd, "", "--status %q is none of %s", s, strings.Join(statuses, ", "))
			}
		}
		if expiresIn != 0 && !expiresBefore.IsZero() {
			return misuse(cmd, "", "--expires-in and --expires-before exclude each other")
		}
		for _, text := range args {
			q.Text = text
		}
		q.NotAfterFrom, q.NotAfterTo, q.IssuedFrom, q.IssuedTo = expiresAfter.Time, expiresBefore.Time, issuedSince.Time, issuedBefore.Time
		if expiresIn != 0 {
			q.NotAfterTo = env.now().UTC().Add(time.Duration(expiresIn))
			if q.NotAfterFrom.IsZero() {
				q.NotAfterFrom = env.now().UTC()
			}
		}
		if q.Limit = maxPage; limit > 0 {
			q.Limit = min(limit+1, maxPage)
		}
		return list(cmd, args)
	}
	return cmd
}

func writeCertificates(env *environment, certs []client.Certificate) error {
	if len(certs) == 0 {
		note(env, "no certificate matches")
		return nil
	}
	now := env.now()
	var rows [][]string
	for _, c := range certs {
		end := stamp(c.NotAfter)
		if c.Status == "valid" || c.Status == "hold" {
			end = strings.Replace(stampFor(c.NotAfter, now), " UTC", "", 1)
		}
		rows = append(rows, []string{c.Serial, clip(title(c), 48), c.Profile, c.Status, end})
	}
	return table(env.out, []string{"SERIAL", "NAME", "PROFILE", "STATUS", "NOT AFTER (UTC)"}, rows)
}
