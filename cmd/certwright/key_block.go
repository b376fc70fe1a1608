package main

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
)

// keyCommands are those of the command key that speak to a server.
func keyCommands(env *environment) []*cobra.Command {
	var all []*cobra.Command
	for _, build := range []func(*environment, *connection, *cobra.Command){keyBlock, keyUnblock, keyBlocked} {
		cmd := &cobra.Command{}
		build(env, connect(env, cmd), cmd)
		all = append(all, cmd)
	}
	return all
}

const keyArgument = `Name the key with a file, PEM or DER, that holds it, a certificate for it or a request, or with the SHA-256 of its
SubjectPublicKeyInfo in hexadecimal, as «cert show» shows it. Of a private key's file, nothing but that hash leaves this
machine.`

func keyBlock(env *environment, conn *connection, cmd *cobra.Command) {
	cmd.Use = "block FILE|HASH"
	cmd.Short = "Block a stolen key, and revoke every certificate for it"
	cmd.Long = `Block a key that is in wrong hands: from the moment that the server has taken it, no certificate is issued for it,
whoever asks and over whatever protocol. Then every certificate for it is revoked, whatever its issuer and profile, also
those that have ended, and those that were revoked for another reason get this one.

` + keyArgument + `

On a terminal the number of certificates has to be typed; a script names it with --expect. A key without certificates is
blocked all the same.`
	cmd.Example = `  certwright key block stolen.key
  certwright key block www.example.com.crt --invalidity-date 2026-11-20 --expect 3`
	cmd.Args = takes("FILE or HASH")
	b := beginFlags(env, cmd, pki.KeyCompromise.String())
	var hash string
	block := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		ctx := cmd.Context()
		return b.run(ctx, api,
			func() (client.RevocationPlan, error) { return api.PlanKeyBlock(ctx, hash, b.request) },
			func(confirm string) (client.RevocationCampaign, error) {
				c, err := api.BlockKey(ctx, hash, b.request, confirm)
				if err == nil {
					note(env, "the key %s is blocked", hash)
				}
				return c, err
			})
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := b.check(cmd); err != nil {
			return err
		}
		if hash, err = keyHash(env, args[0]); err != nil {
			return err
		}
		return block(cmd, args)
	}
}

func keyUnblock(env *environment, conn *connection, cmd *cobra.Command) {
	var yes bool
	cmd.Use = "unblock FILE|HASH"
	cmd.Short = "Admit a blocked key again"
	cmd.Long = `Admit a key again that was blocked by mistake. Certificates that were revoked with it stay revoked. It takes an
administrator's token, and the CA's own keys stay blocked for everybody else.

` + keyArgument
	cmd.Example = "  certwright key unblock mine.key"
	cmd.Args = takes("FILE or HASH")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		hash, err := keyHash(env, args[0])
		if err != nil {
			return err
		}
		if !yes && interactive(env.in) {
			ok, err := confirm(cmd.Context(), env, "Have certificates issued again for the key "+hash+"?")
			if err != nil {
				return err
			}
			if !ok {
				return failure("", "not confirmed, nothing was changed")
			}
		}
		if err := api.UnblockKey(cmd.Context(), hash); err != nil {
			return err
		}
		fmt.Fprintf(env.out, "the key %s is not blocked any more\n", hash)
		return nil
	})
}

func keyBlocked(env *environment, conn *connection, cmd *cobra.Command) {
	var own bool
	var limit int
	cmd.Use = "blocked"
	cmd.Short = "List the blocked keys, newest first"
	cmd.Example = "  certwright key blocked"
	cmd.Args = takes()
	cmd.Flags().BoolVar(&own, "own", false, "also the CA's own keys, which nobody else gets a certificate for")
	limitFlag(cmd, &limit, 1000, "show at most this `number`, up to 10000")
	output := outputFlag(cmd)
	list := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		all, more, err := api.BlockedKeys(cmd.Context(), own, limit)
		if err != nil {
			return err
		}
		switch {
		case !output.forPeople():
			err = output.write(env.out, struct {
				Keys []client.BlockedKey `json:"keys"`
			}{all}, namesOf(all, func(k client.BlockedKey) string { return k.SPKISHA256 })...)
		case len(all) == 0:
			note(env, "no key is blocked")
		default:
			var rows [][]string
			for _, k := range all {
				why, at := "the CA's own", ""
				if k.Compromised {
					why = "reported"
				}
				if k.BlockedAt != nil {
					at = stamp(*k.BlockedAt)
				}
				rows = append(rows, []string{k.SPKISHA256, why, at, k.BlockedBy, k.Revocation})
			}
			err = table(env.out, []string{"SHA-256 OF THE KEY", "WHY", "SINCE (UTC)", "BY", "CAMPAIGN"}, rows)
		}
		if err == nil && more {
			note(env, "there are more: --limit shows up to 10000")
		}
		return err
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 || limit > 10000 {
			return misuse(cmd, "", "--limit is 1 to 10000")
		}
		return list(cmd, args)
	}
}

// keyHash returns the SHA-256 of the SubjectPublicKeyInfo that an argument names, in hexadecimal.
func keyHash(env *environment, arg string) (string, error) {
	if f, err := pki.ParseFingerprint(arg); err == nil {
		return f.String(), nil
	}
	b, err := readInput(env, arg)
	if err != nil {
		return "", err
	}
	pub := publicKeyOf(b)
	if pub == nil {
		return "", failure("it takes PEM or DER: a private or public key that is not encrypted, a certificate, or a request", "%s holds no key", arg)
	}
	// One key, one encoding: certificates are known by the hash of this one.
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("the key in %s: %w", arg, err)
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:]), nil
}

// publicKeyOf finds the first key in a file, of whatever kind; nil if there is none.
func publicKeyOf(b []byte) crypto.PublicKey {
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return publicKeyIn(b)
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			if signer, err := keys.ParsePrivateKeyPEM(pem.EncodeToMemory(block)); err == nil {
				return signer.Public()
			}
		}
		if pub := publicKeyIn(block.Bytes); pub != nil {
			return pub
		}
	}
}

// publicKeyIn reads a key in DER.
func publicKeyIn(der []byte) crypto.PublicKey {
	if c, err := x509.ParseCertificate(der); err == nil {
		return c.PublicKey
	}
	if r, err := x509.ParseCertificateRequest(der); err == nil {
		return r.PublicKey
	}
	if pub, err := x509.ParsePKIXPublicKey(der); err == nil {
		return pub
	}
	for _, parse := range []func([]byte) (any, error){
		x509.ParsePKCS8PrivateKey,
		func(b []byte) (any, error) { return x509.ParseECPrivateKey(b) },
		func(b []byte) (any, error) { return x509.ParsePKCS1PrivateKey(b) },
	} {
		key, err := parse(der)
		if signer, ok := key.(crypto.Signer); err == nil && ok {
			return signer.Public()
		}
	}
	if pub, err := x509.ParsePKCS1PublicKey(der); err == nil {
		return pub
	}
	return nil
}
