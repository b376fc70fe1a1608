package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
)

func newTokenCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "token",
		GroupID: groupAuthority,
		Short:   "Create, list and revoke API tokens",
		Example: "  certwright token create deploy --role enroller --profile server --out deploy.token\n  certwright token list",
	}
	conn := connect(env, cmd)
	return group(cmd, newTokenCreateCommand(env, conn), newTokenListCommand(env, conn), newTokenRevokeCommand(env, conn))
}

func newTokenCreateCommand(env *environment, conn *connection) *cobra.Command {
	var r client.CreateTokenRequest
	var out string
	role := &choice{}
	for i := pki.RoleAuditor; i <= pki.RoleAdministrator; i++ {
		role.allowed = append(role.allowed, i.String())
	}
	cmd := &cobra.Command{
		Use:   "create NAME --role ROLE",
		Short: "Create an API token, whose text is shown once",
		Long: `Create an API token. Its text is printed alone on the standard output, once: it cannot be had again.

  auditor        reads everything, changes nothing
  enroller       has certificates issued, and sees those
  operator       also renews, revokes, holds and releases, and looks after devices, challenges and requests that wait
  administrator  everything: tokens, profiles, issuers' settings and enrollment points included

NAME says who or what uses it, and stands in the audit trail as token:NAME. Without --validity it ends in a year.

--names takes rules KIND:PATTERN. Each alternative name and each attribute of the subject must be allowed by one, beside
what the profile demands; a CN that repeats an alternative name needs none of its own. A star stands for any characters,
dots included: DNS:*.dev.example.com, email:*@example.com, CN:sensor-*, O:Example; IP takes a network: IP:10.0.0.0/8.`,
		Example: `  certwright token create deploy --role enroller --profile server --out deploy.token
  certwright token create dev --role enroller --profile server --names DNS:*.dev.example.com --rate 60
  certwright token create grafana --role auditor --validity 90d > grafana.token
  CERTWRIGHT_TOKEN=$(certwright token create ci --role operator --validity 1h) ./deploy.sh`,
		Args: takes("NAME"),
	}
	f := cmd.Flags()
	f.Var(role, "role", "what it may do (required)")
	complete(cmd, "role", role.allowed...)
	f.StringSliceVar(&r.Issuers, "issuer", nil, "limit it to the issuer with this `name`; may be given several times")
	f.StringSliceVar(&r.Profiles, "profile", nil, "limit it to the profile with this `name`; may be given several times")
	f.StringSliceVar(&r.Names, "names", nil, "limit what its certificates may name to this `rule`, as in DNS:*.dev.example.com")
	f.IntVar(&r.Rate, "rate", 0, "limit it to this `number` of requests a minute (default: as many as the server allows)")
	f.StringVar(&r.Validity, "validity", "", "how long it lives, a `time` as in 90d; 0 never ends (default 365d)")
	f.StringVar(&out, "out", "", "write the token to this new `file`, mode 0600, instead of printing it")
	output := outputFlag(cmd)
	create := conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		r.Name, r.Role = args[0], role.value
		t, err := api.CreateToken(cmd.Context(), r)
		if err != nil {
			return err
		}
		secret := t.Token
		if out != "" {
			if err := keys.WriteFile(out, []byte(secret+"\n"), false); err != nil {
				return &hintError{
					err:  fmt.Errorf("the token was created, but not written: %w", err),
					hint: "nobody has its text now: «certwright token revoke " + t.ID + "», and create another",
				}
			}
			t.Token = ""
		}
		switch {
		case !output.forPeople():
			return output.write(env.out, t, t.ID)
		case out == "":
			fmt.Fprintln(env.out, visible(secret))
		}
		var f fields
		f.add("File", out)
		f.add("Name", t.Name)
		f.add("Role", t.Role)
		f.add("Issuers", strings.Join(t.Issuers, ", "))
		f.add("Profiles", strings.Join(t.Profiles, ", "))
		f.add("Names", strings.Join(t.Names, ", "))
		if t.Rate > 0 {
			f.add("Rate", perMinute(t.Rate))
		}
		end := "never"
		if t.ExpiresAt != nil {
			end = stampFor(*t.ExpiresAt, env.now())
		}
		f.add("Ends", end)
		f.add("Id", t.ID)
		return f.write(env.err)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if role.value == "" {
			return misuse(cmd, "it is one of "+strings.Join(role.allowed, ", "), "--role is missing")
		}
		if r.Validity != "" && r.Validity != "0" {
			if err := new(span).Set(r.Validity); err != nil {
				return misuse(cmd, "", "--validity: %s", err)
			}
		}
		if err := newOut(out); err != nil {
			return err
		}
		return create(cmd, args)
	}
	return cmd
}

func perMinute(rate int) string { return fmt.Sprintf("%d requests a minute", rate) }

func newTokenListCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the API tokens, newest first",
		Example: "  certwright token list",
		Args:    takes(),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		tokens, err := api.Tokens(cmd.Context())
		if err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, struct {
				Tokens []client.Token `json:"tokens"`
			}{tokens}, namesOf(tokens, func(t client.Token) string { return t.ID })...)
		}
		var rows [][]string
		for _, t := range tokens {
			end := "never"
			if t.ExpiresAt != nil {
				end = stamp(*t.ExpiresAt)
			}
			var limits []string
			for _, n := range t.Issuers {
				limits = append(limits, "issuer "+n)
			}
			for _, n := range t.Profiles {
				limits = append(limits, "profile "+n)
			}
			limits = append(limits, t.Names...)
			if t.Rate > 0 {
				limits = append(limits, perMinute(t.Rate))
			}
			rows = append(rows, []string{t.ID, t.Name, t.Role, t.Status, end, strings.Join(limits, ", ")})
		}
		return table(env.out, []string{"ID", "NAME", "ROLE", "STATUS", "ENDS (UTC)", "LIMITED TO"}, rows)
	})
	return cmd
}

func newTokenRevokeCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "revoke ID|NAME",
		Short:   "Revoke an API token",
		Long:    "Revoke an API token: no request with it is answered from then on. A name stands for the one of that name in force.",
		Example: "  certwright token revoke deploy",
		Args:    takes("ID or NAME"),
	}
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		if err := api.RevokeToken(cmd.Context(), args[0]); err != nil {
			return err
		}
		fmt.Fprintf(env.out, "token %s is revoked\n", visible(args[0]))
		return nil
	})
	return cmd
}
