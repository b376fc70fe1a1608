package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/pki"
)

func newCertRevokeCommand(env *environment, conn *connection) *cobra.Command {
	var request client.RevokeRequest
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke ID|SERIAL|FILE",
		Short: "Revoke a certificate for good",
		Long: `Revoke a certificate for good. There is no way back; «cert hold» is the one that has a way back.

On a terminal it asks first; in a script it does not. The revocation is durable when the command ends; verifiers see it
with the next CRL or OCSP answer. The reason keyCompromise speaks of the key: it is blocked, no certificate is issued
for it any more, and every other certificate for it is revoked too. «certwright key block --dry-run» shows which those
are.

Reasons:
  ` + strings.Join(pki.ReasonNames(), "\n  "),
		Example: `  certwright cert revoke www.example.com.crt --reason superseded
  certwright cert revoke 41013f0b1c2d5f6a7e8091a2b3c4d5e6 --reason keyCompromise --invalidity-date 2026-11-20 --yes`,
		Args: takes("ID, SERIAL or FILE"),
	}
	cmd.Flags().StringVar(&request.Reason, "reason", "unspecified", "`why` (RFC 5280, Section 5.3.1)")
	complete(cmd, "reason", pki.ReasonNames()...)
	since := instantFlag(env, cmd, "invalidity-date", "since when the key is thought to be in wrong hands, as in 2026-11-20")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	output := outputFlag(cmd)
	revoke := conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		c, err := find(cmd.Context(), env, api, args[0])
		if err != nil {
			return err
		}
		if !yes && args[0] != "-" && interactive(env.in) && c.Status != "revoked" {
			ok, err := confirm(cmd.Context(), env, fmt.Sprintf("Revoke %s (serial %s, profile %s) for good, reason %s?", title(c), c.Serial, c.Profile, request.Reason))
			if err != nil {
				return err
			}
			if !ok {
				return failure("", "not confirmed, nothing was changed")
			}
		}
		after, err := api.Revoke(cmd.Context(), c.ID, request)
		if err != nil {
			return err
		}
		return writeStatus(env, after, output)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		reason, err := pki.ParseReason(request.Reason)
		if err != nil {
			return misuse(cmd, "", "--reason: %s", err)
		}
		if request.Reason = reason.String(); !since.IsZero() {
			request.InvalidityDate = &since.Time
		}
		return revoke(cmd, args)
	}
	return cmd
}

func newCertHoldCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hold ID|SERIAL|FILE",
		Short: "Put a certificate on hold",
		Long: `Put a certificate on hold: verifiers refuse it as if it were revoked, until «cert release» takes that back.
Use it while it is not known yet whether a key is lost.`,
		Example: "  certwright cert hold www.example.com.crt",
		Args:    takes("ID, SERIAL or FILE"),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		return changeStatus(cmd.Context(), env, api, args[0], output, api.Hold)
	})
	return cmd
}

func newCertReleaseCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "release ID|SERIAL|FILE",
		Short:   "Release a certificate from hold",
		Long:    "Release a certificate from hold: it is good again, if it has not ended meanwhile.",
		Example: "  certwright cert release www.example.com.crt",
		Args:    takes("ID, SERIAL or FILE"),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		return changeStatus(cmd.Context(), env, api, args[0], output, api.Release)
	})
	return cmd
}

func changeStatus(ctx context.Context, env *environment, api *client.Client, arg string, output *records, change func(context.Context, string) (client.Certificate, error)) error {
	c, err := find(ctx, env, api, arg)
	if err != nil {
		return err
	}
	after, err := change(ctx, c.ID)
	if err != nil {
		return err
	}
	return writeStatus(env, after, output)
}

func writeStatus(env *environment, c client.Certificate, output *records) error {
	if !output.forPeople() {
		return output.write(env.out, c, c.ID)
	}
	var f fields
	f.add("Certificate", title(c))
	f.add("Serial", c.Serial)
	f.add("Status", statusText(c))
	return f.write(env.out)
}
