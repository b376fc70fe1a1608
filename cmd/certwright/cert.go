package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/pki"
)

func newCertCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cert",
		GroupID: groupCertificates,
		Short:   "Issue, find, show, renew and revoke certificates",
		Long: `Issue, find, show, renew and revoke certificates.

Where a command takes a certificate, name it by its id (the SHA-256 fingerprint), by its serial number, both in
hexadecimal, or give a file that holds it, PEM or DER; of several in the file the first counts.`,
		Example: `  certwright cert issue --profile server --dns www.example.com
  certwright cert list --expires-in 30d
  certwright cert show www.example.com.crt
  certwright cert revoke www.example.com.crt --reason keyCompromise`,
	}
	conn := connect(env, cmd)
	return group(cmd,
		newCertIssueCommand(env, conn), newCertRenewCommand(env, conn), newCertListCommand(env, conn), newCertShowCommand(env, conn),
		newCertRevokeCommand(env, conn), newCertHoldCommand(env, conn), newCertReleaseCommand(env, conn),
		newCertExportCommand(env), newCertReportCommand(env, conn),
	)
}

// isFile reports whether an argument names a file rather than a certificate on the server.
func isFile(arg string) bool {
	if arg == "-" {
		return true
	}
	if _, err := pki.ParseFingerprint(arg); err == nil {
		return false
	}
	info, err := os.Stat(arg)
	return err == nil && !info.IsDir()
}

// find returns the certificate that an argument names, from the server.
func find(ctx context.Context, env *environment, api *client.Client, arg string) (client.Certificate, error) {
	if f, err := pki.ParseFingerprint(arg); err == nil {
		return api.Certificate(ctx, f.String())
	}
	if isFile(arg) {
		certs, err := readCertificates(env, arg)
		if err != nil {
			return client.Certificate{}, err
		}
		sum := sha256.Sum256(certs[0].Raw)
		c, err := api.Certificate(ctx, hex.EncodeToString(sum[:]))
		if e, ok := errors.AsType[*client.Error](err); ok && e.Kind() == "not_found" {
			return c, failure("«certwright cert show "+arg+"» explains it without a server", "the certificate in %s is not one of this server's", arg)
		}
		return c, err
	}
	serial, err := pki.ParseSerialNumber(arg)
	if err != nil {
		return client.Certificate{}, failure("«certwright cert list» shows serial numbers",
			"%q is neither a file nor a certificate's id or serial number", arg)
	}
	page, err := api.ListCertificates(ctx, client.CertificateQuery{Serial: serial.String(), Limit: 20})
	switch {
	case err != nil:
		return client.Certificate{}, err
	case len(page.Certificates) == 0:
		return client.Certificate{}, failure("«certwright cert list» shows those that you may see", "there is no certificate with the serial number %s", serial)
	case len(page.Certificates) > 1:
		var ids []string
		for _, c := range page.Certificates {
			ids = append(ids, c.ID+" ("+c.Issuer+")")
		}
		return client.Certificate{}, failure("name one by its id: "+strings.Join(ids, ", "),
			"%d certificates have the serial number %s", len(ids), serial)
	}
	return api.Certificate(ctx, page.Certificates[0].ID)
}

// title names a certificate in a line of text: CN, else the first name, else the serial number.
func title(c client.Certificate) string {
	if cn := commonName(c.Subject); cn != "" {
		return cn
	}
	if len(c.SANs) > 0 {
		return strings.TrimPrefix(c.SANs[0], "DNS:")
	}
	if c.Subject != "" {
		return c.Subject
	}
	return c.Serial
}

// commonName cuts CN out of a distinguished name in the form of RFC 4514; empty if there is none.
func commonName(subject string) string {
	for rest := subject; rest != ""; {
		end, escaped := len(rest), false
		for i, c := range []byte(rest) {
			if !escaped && (c == ',' || c == '+') {
				end = i
				break
			}
			escaped = c == '\\' && !escaped
		}
		if value, ok := strings.CutPrefix(rest[:end], "CN="); ok {
			return unescapeValue(value)
		}
		if end == len(rest) {
			return ""
		}
		rest = rest[end+1:]
	}
	return ""
}

// unescapeValue is the reverse of escapeValue.
func unescapeValue(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		if i+2 < len(s) {
			if octet, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				b.WriteByte(octet[0])
				i += 2
				continue
			}
		}
		i++
		b.WriteByte(s[i])
	}
	return b.String()
}

// statusText says a certificate's status with what is known of its revocation.
func statusText(c client.Certificate) string {
	if c.Revocation == nil {
		return c.Status
	}
	s := fmt.Sprintf("%s since %s UTC", c.Status, stamp(c.Revocation.RevokedAt))
	if c.Status == "revoked" {
		s += ", reason " + c.Revocation.Reason
	}
	if d := c.Revocation.InvalidityDate; d != nil {
		s += ", not to be trusted since " + stamp(*d) + " UTC"
	}
	return s
}
