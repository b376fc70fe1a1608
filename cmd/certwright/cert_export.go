package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/rest"
)

func newCertExportCommand(env *environment) *cobra.Command {
	var out, passwordFile, name string
	var chain []string
	var compat, force bool
	cmd := &cobra.Command{
		Use:   "export CERTIFICATE KEY",
		Short: "Put a certificate and its private key into a PKCS #12 file",
		Long: `Put a certificate and its private key into a PKCS #12 file (.p12, .pfx), as Windows, macOS, Android, browsers and Java
take them. This happens on this machine: no server is asked, and nothing leaves.

CERTIFICATE is a file with the certificate first and its issuers' behind it, as «certwright cert issue» writes NAME.crt;
KEY is its private key, NAME.key. --chain adds certificates of issuers, such as the root's.

The file is encrypted with AES-256 under a password of 12 to 128 characters, which is asked for, or read from the first
line of --password-file. --compat encrypts with 3DES and SHA-1 instead: macOS before 12, Windows before Server 2019 and
Android up to 13 take nothing better. Such a file is only as safe as its password is long.`,
		Example: `  certwright cert export ada.crt ada.key
  certwright cert export ada.crt ada.key --chain roots.pem --compat -o ada-old.p12
  certwright cert export www.crt www.key --password-file /run/secrets/p12 --name www`,
		Args: takes("CERTIFICATE", "KEY"),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&out, "out", "o", "", "write this `file` (default: CERTIFICATE with the ending .p12)")
	f.BoolVar(&force, "force", false, "overwrite a file that exists")
	f.BoolVar(&compat, "compat", false, "for old systems: 3DES and SHA-1 in place of AES-256 and SHA-256")
	f.StringVar(&passwordFile, "password-file", "", "`file` whose first line is the password; - reads the standard input")
	f.StringArrayVar(&chain, "chain", nil, "also put the issuers' certificates of this `file` in, such as roots.pem; may be given several times")
	f.StringVar(&name, "name", "", "friendly `name` that stores of certificates show (default: the certificate's first name)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if out == "" {
			if args[0] == "-" {
				return misuse(cmd, "", "--out is missing: the standard input has no name")
			}
			out = strings.TrimSuffix(args[0], filepath.Ext(args[0])) + ".p12"
		}
		if args[0] == "-" && passwordFile == "-" {
			return misuse(cmd, "", "the certificate and the password cannot both come from the standard input")
		}
		if _, err := os.Lstat(out); !force && !errors.Is(err, fs.ErrNotExist) {
			return exists(out)
		}
		p := rest.PKCS12{FriendlyName: name, Compat: compat}
		var err error
		if p.Key, err = readKey(env, args[1]); err != nil {
			return err
		}
		if p.Chain, err = exportChain(env, p.Key, args, chain); err != nil {
			return err
		}
		if p.FriendlyName == "" {
			p.FriendlyName = firstName(p.Chain[0])
		}
		if p.Password, err = exportPassword(cmd, env, passwordFile); err != nil {
			return err
		}
		file, err := p.Encode()
		if err != nil {
			return err
		}
		switch err := keys.WriteFile(out, file, force); {
		case errors.Is(err, fs.ErrExist):
			return exists(out)
		case errors.Is(err, keys.ErrUnsafeFile):
			return &hintError{err: fmt.Errorf("writing the private key: %w", err), hint: "or write to a folder that only you can change: -o FOLDER/NAME.p12"}
		case err != nil:
			return fmt.Errorf("writing the private key: %w", err)
		}
		var all fields
		all.add("PKCS #12 file", out)
		all.add("Friendly name", p.FriendlyName)
		for i, c := range p.Chain {
			all.add([]string{"Certificate", "Issued by", "", ""}[min(i, 2)], nameOf(c))
		}
		all.add("Encrypted with", map[bool]string{false: "AES-256-CBC, PBKDF2 with HMAC-SHA-256", true: "3DES, SHA-1"}[compat])
		if last := p.Chain[len(p.Chain)-1]; !selfIssued(last) {
			note(env, "the root %s is not inside: --chain roots.pem adds it", nameText(last.RawIssuer))
		}
		return all.write(env.out)
	}
	return cmd
}

func nameOf(c *x509.Certificate) string {
	if s := nameText(c.RawSubject); s != "" {
		return s
	}
	return firstName(c)
}

// firstName is how people call a certificate.
func firstName(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.EmailAddresses) > 0:
		return c.EmailAddresses[0]
	}
	return serialText(c)
}

// exportChain returns the key's certificate and those of its issuers, as far up as the files go, in their order.
func exportChain(env *environment, key crypto.Signer, args, more []string) ([]*x509.Certificate, error) {
	pool, err := readCertificates(env, args[0])
	if err != nil {
		return nil, err
	}
	leaf := pool[0]
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(leaf.PublicKey) {
		return nil, failure("give the certificate first, then the private key that was made for it", "the private key in %s is not that of the certificate in %s", args[1], args[0])
	}
	for _, file := range more {
		certs, err := readCertificates(env, file)
		if err != nil {
			return nil, err
		}
		pool = append(pool, certs...)
	}
	chain := []*x509.Certificate{leaf}
	for c := leaf; !selfIssued(c); {
		var parent *x509.Certificate
		for _, candidate := range pool {
			if bytes.Equal(candidate.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(candidate) == nil {
				parent = candidate
				break
			}
		}
		if parent == nil || len(chain) > 10 {
			break
		}
		chain, c = append(chain, parent), parent
	}
	return chain, nil
}

// exportPassword reads the password from a file, else asks for it twice.
func exportPassword(cmd *cobra.Command, env *environment, file string) (string, error) {
	if file != "" {
		text, err := readInput(env, file)
		if err != nil {
			return "", err
		}
		defer clear(text)
		line, _, _ := strings.Cut(string(text), "\n")
		line = strings.TrimSuffix(line, "\r")
		if err := rest.CheckPKCS12Password(line); err != nil {
			return "", &hintError{err: fmt.Errorf("%s: %w", file, err), hint: "the password is the file's first line; «openssl rand -hex 16» makes a good one"}
		}
		return line, nil
	}
	if !interactive(env.in) {
		return "", misuse(cmd, "«openssl rand -hex 16» makes a good one", "nobody can be asked for the password: give it with --password-file")
	}
	password, err := ask(cmd.Context(), env, "Password for the file: ")
	if err != nil {
		return "", err
	}
	if err := rest.CheckPKCS12Password(password); err != nil {
		return "", err
	}
	again, err := ask(cmd.Context(), env, "Once more: ")
	if err != nil {
		return "", err
	}
	if again != password {
		return "", errors.New("the two are not the same, nothing was written")
	}
	return password, nil
}

// ask reads a secret from the terminal, without showing it.
func ask(ctx context.Context, env *environment, question string) (string, error) {
	f, ok := env.in.(*os.File)
	if !ok {
		return "", errors.New("there is no terminal")
	}
	fd := int(f.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprint(env.err, question)
	type line struct {
		text []byte
		err  error
	}
	lines := make(chan line, 1)
	// Reading a terminal cannot be cancelled: after an interrupt this goroutine ends with the process.
	go func() {
		text, err := term.ReadPassword(fd)
		lines <- line{text, err}
	}()
	defer fmt.Fprintln(env.err)
	select {
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), term.Restore(fd, state))
	case l := <-lines:
		defer clear(l.text)
		if errors.Is(l.err, io.EOF) {
			l.err = errors.New("no password was given, nothing was written")
		}
		return string(l.text), l.err
	}
}
