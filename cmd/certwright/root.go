package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

const overview = `Certwright is a private certificate authority.

The first three things to try:

  certwright serve                       start the server; the first start makes a root and an issuing CA
  certwright cert issue --profile server --dns www.example.com
                                         make a key, and a certificate for it
  certwright cert list                   see what was issued

Every command explains itself: «certwright COMMAND --help».
`

// Headings of the commands in the help text.
const (
	groupCertificates = "certificates"
	groupAuthority    = "authority"
	groupDevices      = "devices"
	groupServer       = "server"
	groupHere         = "here"
)

func newRootCommand(env *environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "certwright",
		Short: "Private certificate authority",
		Long: `Certwright is a private certificate authority: a server, and the commands to work with it.

Commands find the server by themselves when it runs on this machine under the same user. For another one, «certwright
login URL» once. Or name it with --server, its token with --token-file and its root certificate with --ca-file, or set
CERTWRIGHT_SERVER, CERTWRIGHT_TOKEN or CERTWRIGHT_TOKEN_FILE, and CERTWRIGHT_CA_FILE.

Exit codes: 0 it worked, 1 it did not, 2 the command line is wrong.`,
		Example: `  certwright serve
  certwright cert issue --profile server --dns www.example.com
  certwright cert list`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			_, err := cmd.OutOrStdout().Write([]byte(overview))
			return err
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return misuse(cmd, "", "%s", err) })
	root.AddGroup(
		&cobra.Group{ID: groupCertificates, Title: "Certificates:"},
		&cobra.Group{ID: groupAuthority, Title: "The authority:"},
		&cobra.Group{ID: groupDevices, Title: "Devices:"},
		&cobra.Group{ID: groupServer, Title: "The server:"},
		&cobra.Group{ID: groupHere, Title: "You and this program:"},
	)
	root.SetHelpCommandGroupID(groupHere)
	root.SetCompletionCommandGroupID(groupHere)
	root.AddCommand(
		newCertCommand(env), newRevocationCommand(env),
		newIssuerCommand(env), newCRLCommand(env), newTrustCommand(env), newProfileCommand(env), newApplyCommand(env), newTokenCommand(env), newAuditCommand(env),
		newDeviceCommand(env), newFleetCommand(env), newPointCommand(env), newChallengeCommand(env), newRequestCommand(env),
		newServeCommand(env), newStoreCommand(env), newCheckCommand(env), newHealthCheckCommand(env), newKeyCommand(env), newAdminCommand(env),
		newLoginCommand(env), newLogoutCommand(env), newContextCommand(env), newWhoAmICommand(env),
		newVersionCommand(env), newManCommand(),
	)
	return root
}

// group makes a command that only holds others.
func group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return cmd.Help()
	}
	cmd.AddCommand(children...)
	return cmd
}

func unknownCommand(cmd *cobra.Command, name string) error {
	hint := ""
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(name); len(s) > 0 {
		hint = "did you mean «" + cmd.CommandPath() + " " + strings.Join(s, "», «"+cmd.CommandPath()+" ") + "»?"
	}
	return misuse(cmd, hint, "%s has no command %q", cmd.CommandPath(), name)
}

// takes checks the arguments that a command wants, named as in its usage line; the last may be in brackets, or
// end with ..., for one and more.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		for i, name := range names {
			if i >= len(args) && !strings.HasPrefix(name, "[") {
				return misuse(cmd, "", "%s is missing", name)
			}
		}
		if i := slices.Index(args, ""); i >= 0 && len(names) > 0 {
			return misuse(cmd, "", "%s is empty", names[min(i, len(names)-1)])
		}
		if len(args) > len(names) && (len(names) == 0 || !strings.HasSuffix(names[len(names)-1], "...")) {
			return misuse(cmd, "", "%q is one argument too many", args[len(names)])
		}
		return nil
	}
}
