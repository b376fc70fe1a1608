package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
)

// maxPage is the longest page that the server gives.
const maxPage = 1000

func newCertListCommand(env *environment, conn *connection) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "list [TEXT]",
		Short: "List certificates, newest first",
		Long: `List certificates, newest first.

TEXT is a part of the subject or of an alternative name, in any letter case. All filters have to match.`,
		Example: `  certwright cert list
  certwright cert list example.com --status valid
  certwright cert list --expires-in 30d --status valid
  certwright cert list --profile server --issued-since 7d --limit 0 --output json
  for id in $(certwright cert list --device sensor-17 --limit 0 --output name); do certwright cert revoke $id --yes; done`,
		Args: takes("[TEXT]"),
	}
	s := selectionFlags(env, cmd)
	limitFlag(cmd, &limit, 50, "show at most this `number`; 0 shows all")
	output := outputFlag(cmd)
	var q client.CertificateQuery
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
		var err error
		if output.forPeople() {
			err = writeCertificates(env, certs)
		} else {
			err = output.write(env.out, struct {
				Certificates []client.Certificate `json:"certificates"`
			}{certs}, namesOf(certs, func(c client.Certificate) string { return c.ID })...)
		}
		if err == nil && more {
			note(env, "there are more: --limit 0 shows all")
		}
		return err
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return misuse(cmd, "", "--limit cannot be negative")
		}
		var err error
		if q, err = s.query(cmd, args); err != nil {
			return err
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
