package main

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/keys"
)

// files says where a command that gets a certificate writes what it made.
type files struct {
	out            string // NAME, "-", or empty for one that is made of the names
	force          bool
	chain, noChain bool
}

func (o *files) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.out, "out", "o", "", "write `NAME`.key and NAME.crt; - prints the certificate (default: made of the first name)")
	f.BoolVar(&o.force, "force", false, "overwrite files that exist")
	f.BoolVar(&o.chain, "chain", true, "write the issuers' certificates, without the root, behind the certificate, as TLS servers want them")
	f.BoolVar(&o.noChain, "no-chain", false, "write the certificate alone; the same as --chain=false")
}

func (o *files) certificate() string { return o.out + ".crt" }
func (o *files) key() string         { return o.out + ".key" }

// free refuses to overwrite a file, and a folder that does not exist: both before a certificate is asked for.
func (o *files) free(path string) error {
	if o.out == "-" {
		return nil
	}
	if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
		return failure("make the folder first", "there is no folder %s", filepath.Dir(path))
	}
	if o.force {
		return nil
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return exists(path)
	}
	return nil
}

func exists(path string) error {
	return failure("-o writes to another name, --force overwrites", "%s exists already", path)
}

// write writes the certificate, or prints it.
func (o *files) write(env *environment, c client.Certificate) error {
	text, err := pemOf(c, o.chain && !o.noChain)
	if err != nil {
		return err
	}
	if o.out == "-" {
		_, err := env.out.Write(text)
		return err
	}
	if err := writePublic(o.certificate(), text, o.force); err != nil {
		return &hintError{
			err:  fmt.Errorf("the certificate was issued, but not written: %w", err),
			hint: "get it with: certwright cert show " + c.ID + " --chain",
		}
	}
	return nil
}

// writePublic writes a file that everybody may read, in one step.
func writePublic(path string, text []byte, overwrite bool) error {
	if !overwrite {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return exists(path)
		}
		if err != nil {
			return err
		}
		_, err = f.Write(text)
		return errors.Join(err, f.Sync(), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// newKey is a key that was made for a certificate which is not there yet.
type newKey struct {
	signer crypto.Signer
	path   string // where it belongs
	at     string // where it is: path, or beside a file at path that it will replace
}

// makeKey makes a key and writes it, so that no certificate is ever issued for a key that is lost.
func makeKey(alg keys.Algorithm, path string, force bool) (*newKey, error) {
	signer, err := keys.Generate(alg)
	if err != nil {
		return nil, err
	}
	text, err := keys.MarshalPrivateKeyPEM(signer)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	k := &newKey{signer: signer, path: path, at: path}
	if force {
		if _, err := os.Lstat(path); err == nil {
			k.at = path + ".new"
		}
	}
	err = keys.WriteFile(k.at, text, false)
	switch {
	case errors.Is(err, fs.ErrExist) && k.at == path:
		return nil, exists(path)
	case errors.Is(err, fs.ErrExist):
		return nil, failure("it was kept when the outcome of an earlier command was not known: move it away, or use it with --key", "%s exists already", k.at)
	case errors.Is(err, fs.ErrNotExist):
		return nil, failure("make the folder first", "there is no folder %s", filepath.Dir(path))
	case errors.Is(err, keys.ErrUnsafeFile):
		return nil, &hintError{
			err:  fmt.Errorf("writing the private key: %w", err),
			hint: "or write to a folder that only you can change: -o FOLDER/NAME",
		}
	case err != nil:
		return nil, fmt.Errorf("writing the private key: %w", err)
	}
	return k, nil
}

// settle puts the key where it belongs once there is a certificate for it. Otherwise it removes the key, unless the
// server may have issued a certificate that the answer did not get through.
func (k *newKey) settle(env *environment, err error) error {
	switch {
	case k == nil:
		return err
	case err == nil && k.at != k.path:
		if err := os.Rename(k.at, k.path); err != nil {
			return fmt.Errorf("the certificate was issued; its private key is in %s: %w", k.at, err)
		}
		return nil
	case err == nil:
		return nil
	case neverSent(err):
		if err := os.Remove(k.at); err != nil {
			warn(env, "the private key could not be removed: %s", err)
		}
		return err
	}
	hash := spkiHash(k.signer)
	note(env, "the private key stays in %s: the server may have issued a certificate for it; «certwright cert list --spki %s» tells", k.at, hash)
	return err
}

func spkiHash(signer crypto.Signer) string {
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// request makes a CSR that proves possession of the key. It holds no names: they are sent beside it.
func request(signer crypto.Signer) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, signer)
	if err != nil {
		return "", fmt.Errorf("making the CSR: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// readRequest reads a CSR, and decodes it as far as this machine can for the sake of a file name.
func readRequest(env *environment, name string) (text string, parsed *x509.CertificateRequest, err error) {
	b, err := readInput(env, name)
	if err != nil {
		return "", nil, err
	}
	der := b
	if block, _ := pem.Decode(b); block != nil {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return "", nil, failure("a private key stays with its owner: --key uses it without sending it", "%s holds a private key", name)
		}
		text, der = string(b), block.Bytes
	} else {
		text = base64.StdEncoding.EncodeToString(b)
	}
	parsed, err = x509.ParseCertificateRequest(der)
	if err != nil {
		parsed = nil // the server reads it with more care, and says what is wrong
	}
	return text, parsed, nil
}

// readKey reads a private key that the user brings.
func readKey(env *environment, path string) (crypto.Signer, error) {
	signer, err := keys.ReadPrivateKeyPEM(path)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		warn(env, "others can read the private key %s (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	return signer, nil
}

// made is what issuing and renewing print.
type made struct {
	client.Certificate
	Files madeFiles `json:"files"`
}

type madeFiles struct {
	Key         string `json:"key,omitempty"`
	Certificate string `json:"certificate,omitempty"`
}

// report tells what was made: on the standard output, unless the certificate itself went there.
func (m made) report(env *environment, o *files, output *records) error {
	for _, w := range m.Warnings {
		warn(env, "%s", w)
	}
	out := env.out
	if o.out == "-" {
		out = env.err
	}
	if !output.forPeople() {
		return output.write(out, m, m.ID)
	}
	var f fields
	if m.Files.Key != "" {
		f.add("Private key", m.Files.Key)
	}
	if m.Files.Certificate != "" {
		what := ""
		if certs, err := parsePEM(m.Chain); err == nil && o.chain && !o.noChain && len(certs) > 1 {
			what = ", with its issuers' behind it"
		}
		f.add("Certificate", m.Files.Certificate+what)
	}
	f.add("Subject", m.Subject)
	f.add("Names", m.SANs...)
	f.add("Profile", m.Profile)
	f.add("Issued by", m.Issuer)
	f.add("Not before", stamp(m.NotBefore)+" UTC")
	f.add("Not after", stampFor(m.NotAfter, env.now()))
	f.add("Serial", m.Serial)
	f.add("Id", m.ID)
	return f.write(out)
}

func newCertIssueCommand(env *environment, conn *connection) *cobra.Command {
	var (
		o                           files
		r                           client.IssueRequest
		cn, subject, keyFile, csr   string
		sans, dns, ips, emails, url []string
		validity                    span
	)
	keyType := &choice{value: keys.P256.String()}
	for _, a := range keys.Algorithms() {
		keyType.allowed = append(keyType.allowed, a.String())
	}
	cmd := &cobra.Command{
		Use:   "issue --profile NAME",
		Short: "Make a key, and have a certificate issued for it",
		Long: `Make a key, and have a certificate issued for it.

The private key is made on this machine and never leaves it: the server gets a CSR. It is written first, to NAME.key
with mode 0600, so that there is no certificate for a lost key; when the server refuses, it is removed again. NAME.crt
gets the certificate and those of its issuers without the root, in the order in which TLS servers send them.

The profile decides what the certificate is for, which names it may have and how long it lives:
«certwright profile list» shows them. --key uses a key that exists; --csr sends a CSR that exists, whose names are
taken unless others are given.`,
		Example: `  certwright cert issue --profile server --dns www.example.com --dns example.com
  certwright cert issue --profile server --dns db1.example.com --ip 192.0.2.7 --validity 30d -o /etc/db/tls
  certwright cert issue --profile client --cn "Ada Lovelace" --email ada@example.com
  certwright cert issue --profile device --cn sensor-17 --device sensor-17 --key-type p-384
  certwright cert issue --profile server --csr request.pem -o - > www.example.com.crt`,
		Args: takes(),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&r.Profile, "profile", "", "`name` of what the certificate is for, as in server, client or device (required)")
	f.StringVar(&cn, "cn", "", "common `name`")
	f.StringVar(&subject, "subject", "", "whole `subject` (RFC 4514), as in \"CN=www.example.com,O=Example Corp\"")
	f.StringArrayVar(&dns, "dns", nil, "DNS `name`; may be given several times, as all names may")
	f.StringArrayVar(&ips, "ip", nil, "IP `address`")
	f.StringArrayVar(&emails, "email", nil, "email `address`")
	f.StringArrayVar(&url, "uri", nil, "`URI`")
	f.StringArrayVar(&sans, "san", nil, "`name` of any kind: DNS:, IP:, email:, URI:, UPN: or HMN: and the name, or the name alone")
	f.Var(&validity, "validity", "how long, as in 90d or 12h (default: the profile's)")
	f.StringVar(&r.Issuer, "issuer", "", "`name` of the issuer (default: the only one)")
	f.StringVar(&r.Device, "device", "", "`identity` of the device that will use it")
	f.Var(keyType, "key-type", "`type` of the new key: "+strings.Join(keyType.allowed, ", "))
	complete(cmd, "key-type", keyType.allowed...)
	f.StringVar(&keyFile, "key", "", "use the private key in this `file`, PEM, instead of a new one")
	f.StringVar(&csr, "csr", "", "send the CSR in this `file`, PEM or DER; - reads the standard input")
	o.flags(cmd)
	output := outputFlag(cmd)

	issue := conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		var m made
		var key *newKey
		var parsed *x509.CertificateRequest
		var signer crypto.Signer
		var err error
		switch {
		case csr != "":
			if r.CSR, parsed, err = readRequest(env, csr); err != nil {
				return err
			}
		case keyFile != "":
			if signer, err = readKey(env, keyFile); err != nil {
				return err
			}
		}
		if o.out == "" {
			o.out = fileName(names(r, parsed))
		}
		if err := o.free(o.certificate()); err != nil {
			return err
		}
		if csr == "" && keyFile == "" {
			alg, err := keys.ParseAlgorithm(keyType.value)
			if err != nil {
				return err
			}
			if key, err = makeKey(alg, o.key(), o.force); err != nil {
				return err
			}
			signer, m.Files.Key = key.signer, o.key()
		}
		if signer != nil {
			if r.CSR, err = request(signer); err != nil {
				return err
			}
		}
		m.Certificate, err = api.Issue(cmd.Context(), r)
		if err := key.settle(env, err); err != nil {
			return err
		}
		if err := o.write(env, m.Certificate); err != nil {
			return err
		}
		if o.out != "-" {
			m.Files.Certificate = o.certificate()
		}
		return m.report(env, &o, output)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, group := range []struct {
			prefix string
			names  []string
		}{{"", sans}, {"DNS:", dns}, {"IP:", ips}, {"email:", emails}, {"URI:", url}} {
			for _, n := range group.names {
				if n = strings.TrimSpace(n); n == "" {
					return misuse(cmd, "", "an empty name")
				}
				if group.prefix == "" {
					r.SANs = append(r.SANs, sanOf(n))
				} else {
					r.SANs = append(r.SANs, group.prefix+n)
				}
			}
		}
		if cn != "" {
			subject = "CN=" + escapeValue(cn)
		}
		if subject != "" {
			r.Subject = &subject
		}
		r.Validity = validity.String()
		flags := cmd.Flags()
		switch {
		case r.Profile == "":
			return misuse(cmd, "for a TLS server it is --profile server; «certwright profile list» shows all", "--profile is missing")
		case cn != "" && flags.Changed("subject"):
			return misuse(cmd, "put CN into the subject: --subject \""+"CN="+escapeValue(cn)+","+"...\"", "--cn and --subject exclude each other")
		case keyFile != "" && csr != "", flags.Changed("key-type") && (csr != "" || keyFile != ""):
			return misuse(cmd, "", "--key, --csr and --key-type exclude each other")
		case csr == "" && r.Subject == nil && len(r.SANs) == 0:
			return misuse(cmd, "as in --dns www.example.com, or --cn \"Ada Lovelace\"", "the certificate has no name")
		case csr == "" && keyFile == "" && o.out == "-":
			return misuse(cmd, "-o NAME writes NAME.key and NAME.crt", "-o - has no place for a new private key")
		case !output.forPeople() && o.out == "-":
			return misuse(cmd, "the document of --output json holds the certificate as well", "-o - and --output %s exclude each other", output.value)
		}
		return issue(cmd, args)
	}
	return cmd
}

func newCertRenewCommand(env *environment, conn *connection) *cobra.Command {
	var o files
	var csr string
	var validity span
	key := &choice{value: "same", allowed: []string{"same", "new"}}
	cmd := &cobra.Command{
		Use:   "renew ID|SERIAL|FILE",
		Short: "Renew a certificate",
		Long: `Renew a certificate: the server issues another with the same names under the same profile. The old one stays good
until it ends; revoke it if it should not.

With --key same the new certificate is for the old key, and only NAME.crt is written. With --key new a key of the same
kind is made, and NAME.key is written as well. --csr sends a CSR with a new key, whose names do not count.`,
		Example: `  certwright cert renew www.example.com.crt --force
  certwright cert renew 41013f0b1c2d5f6a7e8091a2b3c4d5e6 --key new -o www.example.com
  certwright cert renew www.example.com.crt --validity 30d -o - > renewed.crt`,
		Args: takes("ID, SERIAL or FILE"),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(key, "key", "keep the key, or make a new one")
	complete(cmd, "key", key.allowed...)
	f.StringVar(&csr, "csr", "", "send the CSR in this `file`, PEM or DER; - reads the standard input")
	f.Var(&validity, "validity", "how long, as in 90d or 12h (default: the profile's)")
	o.flags(cmd)
	f.Lookup("out").Usage = "write `NAME`.crt, and NAME.key if it is new; - prints the certificate (default: FILE without its ending, else made of the first name)"
	output := outputFlag(cmd)
	renew := conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		old, err := find(cmd.Context(), env, api, args[0])
		if err != nil {
			return err
		}
		if o.out == "" {
			if o.out = fileName(append([]string{commonName(old.Subject)}, old.SANs...)); isFile(args[0]) && args[0] != "-" {
				o.out = strings.TrimSuffix(args[0], filepath.Ext(args[0]))
			}
		}
		if err := o.free(o.certificate()); err != nil {
			return err
		}
		var m made
		var made *newKey
		r := client.RenewRequest{Validity: validity.String()}
		switch {
		case csr != "":
			if r.CSR, _, err = readRequest(env, csr); err != nil {
				return err
			}
		case key.value == "new":
			alg := keys.P256
			if certs, err := parsePEM(old.PEM); err == nil && len(certs) > 0 {
				if a, err := keys.AlgorithmOf(certs[0].PublicKey); err == nil {
					alg = a
				}
			}
			if made, err = makeKey(alg, o.key(), o.force); err != nil {
				return err
			}
			m.Files.Key = o.key()
			if r.CSR, err = request(made.signer); err != nil {
				return err
			}
		}
		m.Certificate, err = api.Renew(cmd.Context(), old.ID, r)
		if err := made.settle(env, err); err != nil {
			return err
		}
		if err := o.write(env, m.Certificate); err != nil {
			return err
		}
		if o.out != "-" {
			m.Files.Certificate = o.certificate()
		}
		return m.report(env, &o, output)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case csr != "" && cmd.Flags().Changed("key"):
			return misuse(cmd, "", "--key and --csr exclude each other")
		case key.value == "new" && o.out == "-":
			return misuse(cmd, "-o NAME writes NAME.key and NAME.crt", "-o - has no place for a new private key")
		case !output.forPeople() && o.out == "-":
			return misuse(cmd, "the document of --output json holds the certificate as well", "-o - and --output %s exclude each other", output.value)
		}
		return renew(cmd, args)
	}
	return cmd
}

// sanOf gives a name its kind, unless it has one.
func sanOf(name string) string {
	kind, _, found := strings.Cut(name, ":")
	if found {
		switch strings.ToLower(kind) {
		case "dns", "ip", "email", "uri", "upn", "hmn":
			return name
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "IP:" + name
	}
	switch {
	case strings.Contains(name, "://"), strings.HasPrefix(strings.ToLower(name), "urn:"):
		return "URI:" + name
	case strings.Contains(name, "@"):
		return "email:" + name
	}
	return "DNS:" + name
}

// names are what a file can be called after: CN, then the alternative names.
func names(r client.IssueRequest, parsed *x509.CertificateRequest) []string {
	var all []string
	if r.Subject != nil {
		all = append(all, commonName(*r.Subject))
	}
	all = append(all, r.SANs...)
	if parsed != nil {
		all = append(all, parsed.Subject.CommonName)
		all = append(all, parsed.DNSNames...)
		all = append(all, parsed.EmailAddresses...)
	}
	return all
}

// maxFileName leaves room for an ending on every file system.
const maxFileName = 100

// fileName makes a file's name, without ending, of the first of the names that something is left of: letters, digits
// and . _ @ -, beginning with a letter, a digit or _. A name may come from a stranger's CSR.
func fileName(names []string) string {
	for _, name := range names {
		for _, kind := range []string{"DNS:", "IP:", "email:", "URI:", "UPN:", "HMN:"} {
			if len(name) > len(kind) && strings.EqualFold(name[:len(kind)], kind) {
				name = name[len(kind):]
			}
		}
		name = strings.Replace(name, "*.", "_.", 1)
		var b strings.Builder
		for _, r := range name {
			plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
			switch {
			case b.Len() >= maxFileName:
			case plain, b.Len() > 0 && (r == '.' || r == '@'):
				b.WriteRune(r)
			case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
				b.WriteByte('-')
			}
		}
		if s := strings.TrimRight(b.String(), "-."); s != "" {
			return s
		}
	}
	return "certificate"
}
