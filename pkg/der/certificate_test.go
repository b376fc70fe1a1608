package der_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/der"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var (
	oidServerAuth  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	oidClientAuth  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	oidOCSPSigning = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}

	start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
)

func newTemplate(t testing.TB, c der.CertificateConfig) *der.CertificateTemplate {
	t.Helper()
	template, err := der.NewCertificateTemplate(c)
	if err != nil {
		t.Fatal(err)
	}
	return template
}

// serverTemplate is an everyday server certificate, issued by this signer.
func serverTemplate(t testing.TB, signer crypto.Signer) (*der.CertificateTemplate, *der.CertificateFields) {
	t.Helper()
	template := newTemplate(t, serverConfig(t, signer))
	subject := p256(t).Public()
	return template, &der.CertificateFields{
		SerialNumber:         append([]byte{0x41}, make([]byte, 15)...),
		NotBefore:            start,
		NotAfter:             start.AddDate(0, 0, 90).Add(-time.Second),
		Subject:              name(t, cn("www.example.com")),
		SubjectPublicKeyInfo: spkiOf(t, subject),
		SubjectKeyID:         der.SubjectKeyID(spkiOf(t, subject)),
		SubjectAltName:       generalNames(t, der.DNSName("www.example.com"), der.DNSName("example.com")),
	}
}

func serverConfig(t testing.TB, signer crypto.Signer) der.CertificateConfig {
	return der.CertificateConfig{
		SignatureAlgorithm:    algorithmOf(t, signer),
		Issuer:                name(t, cn("Example Issuing CA")),
		AuthorityKeyID:        der.SubjectKeyID(spkiOf(t, signer.Public())),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []asn1.ObjectIdentifier{oidServerAuth},
		CRLDistributionPoints: []string{"http://ca.example.com/crl/0123456789abcdef.crl"},
		OCSPServers:           []string{"http://ca.example.com/ocsp/0123456789abcdef"},
		CAIssuers:             []string{"http://ca.example.com/ca/0123456789abcdef.cer"},
	}
}

// goldens are certificates of each kind the product issues, with fixed keys
// and deterministic signatures.
func goldens(t testing.TB) map[string][]byte {
	rootKey, caKey := fixedKey(t, elliptic.P384(), 3), fixedKey(t, elliptic.P256(), 4)
	organization := der.Attribute{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Beispiel GmbH"}
	rootName := name(t, der.Attribute{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "DE"}, organization, cn("Beispiel Root CA"))
	caName := name(t, organization, cn("Beispiel Issuing CA G2"))
	rootID, caID := der.SubjectKeyID(spkiOf(t, rootKey.Public())), der.SubjectKeyID(spkiOf(t, caKey.Public()))
	leafSPKI := spkiOf(t, p256(t).Public())

	leaf := func(change func(*der.CertificateConfig, *der.CertificateFields)) []byte {
		c := serverConfig(t, caKey)
		c.Issuer, c.AuthorityKeyID = caName, caID
		f := der.CertificateFields{
			SerialNumber: append([]byte{0x41, 0x01, 0x43}, make([]byte, 13)...),
			NotBefore:    start, NotAfter: start.AddDate(1, 0, 0).Add(-time.Second),
			Subject: name(t, organization, cn("www.example.com")), SubjectPublicKeyInfo: leafSPKI,
			SubjectKeyID:   der.SubjectKeyID(leafSPKI),
			SubjectAltName: generalNames(t, der.DNSName("www.example.com")),
		}
		change(&c, &f)
		return sign(t, newTemplate(t, c), &f, caKey)
	}
	ca := func(change func(*der.CertificateConfig, *der.CertificateFields)) []byte {
		c := der.CertificateConfig{
			SignatureAlgorithm: algorithmOf(t, rootKey), Issuer: rootName, AuthorityKeyID: rootID,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true,
		}
		f := der.CertificateFields{
			SerialNumber: append([]byte{0x41, 0x02}, make([]byte, 14)...),
			NotBefore:    start.AddDate(0, 0, -1), NotAfter: start.AddDate(30, 0, 0),
			Subject: rootName, SubjectPublicKeyInfo: spkiOf(t, rootKey.Public()), SubjectKeyID: rootID,
		}
		change(&c, &f)
		return sign(t, newTemplate(t, c), &f, rootKey)
	}
	return map[string][]byte{
		"root": ca(func(*der.CertificateConfig, *der.CertificateFields) {}),
		"issuing-ca": ca(func(c *der.CertificateConfig, f *der.CertificateFields) {
			c.PathLen = new(int)
			c.CRLDistributionPoints = []string{"http://ca.example.com/crl/root.crl"}
			c.OCSPServers = []string{"http://ca.example.com/ocsp/root"}
			c.CAIssuers = []string{"http://ca.example.com/ca/root.cer"}
			c.Policies = []der.PolicyInformation{{Identifier: asn1.ObjectIdentifier{2, 5, 29, 32, 0}}}
			c.NameConstraints = &der.NameConstraints{
				Permitted: der.Subtrees{
					DNS: []string{"example.com"}, Email: []string{"example.com", ".example.com"}, URI: []string{"example.com", ".example.com"},
					IP:        []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
					Directory: [][]byte{name(t, organization)},
				},
				Excluded: der.Subtrees{DNS: []string{"secret.example.com"}, IP: []netip.Prefix{netip.MustParsePrefix("::/0")}},
			}
			f.Subject, f.SubjectPublicKeyInfo, f.SubjectKeyID = caName, spkiOf(t, caKey.Public()), caID
		}),
		"server": leaf(func(*der.CertificateConfig, *der.CertificateFields) {}),
		"server-must-staple-sharded": leaf(func(c *der.CertificateConfig, f *der.CertificateFields) {
			c.MustStaple = true
			c.FreshestCRL = []string{"http://ca.example.com/crl/delta.crl"}
			c.Policies = []der.PolicyInformation{{Identifier: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555, 1}}}
			f.CRLDistributionPoint = "http://ca.example.com/crl/0123456789abcdef/1/17.crl"
		}),
		"client-without-subject": leaf(func(c *der.CertificateConfig, f *der.CertificateFields) {
			c.ExtKeyUsage = []asn1.ObjectIdentifier{oidClientAuth}
			f.Subject = []byte{0x30, 0}
			f.SubjectAltName = generalNames(t, der.EmailAddress("alice@example.com"), der.UPN("alice@corp.example.com"),
				der.URI("spiffe://example.com/alice"), der.IPAddress(netip.MustParseAddr("10.1.2.3")))
		}),
		"device-without-end": leaf(func(c *der.CertificateConfig, f *der.CertificateFields) {
			c.CRLDistributionPoints, c.OCSPServers = nil, nil
			c.NoRevAvail = true
			c.ExtKeyUsage = []asn1.ObjectIdentifier{oidClientAuth}
			f.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
			f.Subject = name(t, organization, der.Attribute{Type: asn1.ObjectIdentifier{2, 5, 4, 5}, Value: "SN-0001"})
			f.SubjectAltName = generalNames(t, der.HardwareModuleName([]byte{0x30, 6, 6, 1, 0x2a, 4, 1, 9}))
		}),
		"ocsp-delegate": leaf(func(c *der.CertificateConfig, f *der.CertificateFields) {
			c.ExtKeyUsage = []asn1.ObjectIdentifier{oidOCSPSigning}
			c.OCSPNoCheck = true
			c.CRLDistributionPoints, c.OCSPServers = nil, nil
			f.Subject, f.SubjectAltName = name(t, organization, cn("OCSP 1")), nil
		}),
	}
}

func TestGolden(t *testing.T) {
	for file, raw := range goldens(t) {
		t.Run(file, func(t *testing.T) {
			if _, err := x509.ParseCertificate(raw); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "golden", file+".pem")
			got := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s (go test -update rewrites it):\n%s", path, got)
			}
		})
	}
}

// TestChainVerifies checks the golden certificates with Go's path validation.
func TestChainVerifies(t *testing.T) {
	raw := goldens(t)
	parse := func(file string) *x509.Certificate {
		c, err := x509.ParseCertificate(raw[file])
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(parse("root"))
	ca := parse("issuing-ca")
	// Go does not implement directoryName constraints, and so counts the critical
	// extension as unhandled; its other constraints are checked.
	ca.UnhandledCriticalExtensions = nil
	intermediates.AddCert(ca)
	if err := ca.CheckSignatureFrom(parse("root")); err != nil {
		t.Error(err)
	}
	for file := range raw {
		if file == "root" || file == "issuing-ca" {
			continue
		}
		if _, err := parse(file).Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, CurrentTime: start.Add(time.Hour),
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		}); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestChainVerifiesOpenSSL does it with OpenSSL, by the letter of RFC 5280.
func TestChainVerifiesOpenSSL(t *testing.T) {
	golden := func(file string) string { return filepath.Join("testdata", "golden", file+".pem") }
	for leaf, raw := range goldens(t) {
		out := openssl(t, raw, "verify", "-x509_strict", "-policy_check", "-attime", strconv.FormatInt(start.Add(time.Hour).Unix(), 10),
			"-CAfile", golden("root"), "-untrusted", golden("issuing-ca"), "INPUT")
		if !strings.Contains(out, ": OK") {
			t.Errorf("%s: %s", leaf, out)
		}
	}
}

// rfcLints are zlint's sources that are RFCs. The CA/Browser Forum's are left
// out: they are rules for public CAs and refuse private names.
func rfcLints(t testing.TB) lint.Registry {
	t.Helper()
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{
		lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC6960, lint.RFC6962, lint.RFC8813,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

func reportLints(t *testing.T, results *zlint.ResultSet, except ...string) {
	t.Helper()
	ran := 0
	for id, result := range results.Results {
		if result.Status > lint.NE {
			ran++
		}
		if result.Status > lint.Pass && !slices.Contains(except, id) {
			t.Errorf("%s: %s %s", id, result.Status, result.Details)
		}
	}
	if ran < 5 {
		t.Errorf("only %d lints applied", ran)
	}
}

func TestGoldenZlint(t *testing.T) {
	registry := rfcLints(t)
	for file, raw := range goldens(t) {
		t.Run(file, func(t *testing.T) {
			certificate, err := zx509.ParseCertificate(raw)
			if err != nil {
				t.Fatal(err)
			}
			reportLints(t, zlint.LintCertificateEx(certificate, registry))
		})
	}
}

func TestGoldenOpenSSL(t *testing.T) {
	wants := map[string][]string{
		"root":                       {"CA:TRUE", "Certificate Sign, CRL Sign", "ecdsa-with-SHA384"},
		"issuing-ca":                 {"CA:TRUE, pathlen:0", "X509v3 Name Constraints: critical", "DNS:example.com", "IP:10.0.0.0/255.0.0.0", "DirName:O = Beispiel GmbH"},
		"server":                     {"X509v3 Basic Constraints: critical", "CA:FALSE", "DNS:www.example.com", "URI:http://ca.example.com/crl/"},
		"server-must-staple-sharded": {"status_request", "1/17.crl", "X509v3 Freshest CRL"},
		"client-without-subject":     {"X509v3 Subject Alternative Name: critical", "UPN", "email:alice@example.com", "IP Address:10.1.2.3"},
		"device-without-end":         {"Dec 31 23:59:59 9999 GMT"},
		"ocsp-delegate":              {"OCSP Signing", "OCSP No Check"},
	}
	for file, raw := range goldens(t) {
		t.Run(file, func(t *testing.T) {
			out := openssl(t, raw, "x509", "-inform", "DER", "-in", "INPUT", "-noout", "-text")
			for _, want := range wants[file] {
				if !strings.Contains(out, want) {
					t.Errorf("openssl does not print %q:\n%s", want, out)
				}
			}
		})
	}
}

// drawn is one random certificate, as our configuration and as Go's template.
type drawn struct {
	config   der.CertificateConfig
	fields   der.CertificateFields
	template x509.Certificate
}

func someOf[T any](t *rapid.T, label string, g *rapid.Generator[T]) []T {
	return rapid.SliceOfN(g, 0, 3).Draw(t, label)
}

var (
	hosts = rapid.StringMatching(`[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]{1,12}){0,3}`)
	urls  = rapid.Custom(func(t *rapid.T) string {
		return "http://" + hosts.Draw(t, "host") + rapid.StringMatching(`(/[a-z0-9._~-]{1,80}){0,4}`).Draw(t, "path")
	})
	emails = rapid.Custom(func(t *rapid.T) string {
		return rapid.StringMatching(`[a-z0-9+]{1,20}`).Draw(t, "local") + "@" + hosts.Draw(t, "domain")
	})
	addresses = rapid.Custom(func(t *rapid.T) netip.Addr {
		n := rapid.SampledFrom([]int{4, 16}).Draw(t, "octets")
		addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "address"))
		return addr
	})
	prefixes = rapid.Custom(func(t *rapid.T) netip.Prefix {
		addr := addresses.Filter(func(a netip.Addr) bool { return !a.Is4In6() }).Draw(t, "address")
		prefix, _ := addr.Prefix(rapid.IntRange(0, addr.BitLen()).Draw(t, "bits"))
		return prefix
	})
	oids = rapid.Custom(func(t *rapid.T) asn1.ObjectIdentifier {
		return append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1}, rapid.SliceOfN(rapid.IntRange(0, 1<<31-1), 1, 4).Draw(t, "arcs")...)
	})
	serials = rapid.Custom(func(t *rapid.T) []byte {
		return new(big.Int).SetBytes(append([]byte{rapid.ByteRange(1, 0x7f).Draw(t, "first")},
			rapid.SliceOfN(rapid.Byte(), 0, 19).Draw(t, "serial")...)).Bytes()
	})
	validTimes = rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(-631152000, 253402300799).Draw(t, "second"), 0).UTC()
	})
)

func oidKey(o asn1.ObjectIdentifier) string { return o.String() }

func draw(t *rapid.T, issuer []byte, a *der.SignatureAlgorithm, spki []byte) *drawn {
	must := func(raw []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	d := new(drawn)
	c, f, x := &d.config, &d.fields, &d.template

	c.SignatureAlgorithm, c.Issuer = a, issuer
	c.AuthorityKeyID = rapid.SliceOfN(rapid.Byte(), 1, 32).Draw(t, "aki")

	c.IsCA = rapid.Bool().Draw(t, "isCA")
	c.KeyUsage = x509.KeyUsage(rapid.IntRange(0, 0x1ff).Draw(t, "keyUsage")) &^ x509.KeyUsageCertSign
	x.BasicConstraintsValid, x.IsCA, x.MaxPathLen = true, c.IsCA, -1
	if c.IsCA {
		c.KeyUsage |= x509.KeyUsageCertSign
		if rapid.Bool().Draw(t, "pathLen") {
			n := rapid.IntRange(0, 300).Draw(t, "pathLenConstraint")
			c.PathLen = &n
			x.MaxPathLen, x.MaxPathLenZero = n, n == 0
		}
		drawNameConstraints(t, c, x)
	}
	x.KeyUsage = c.KeyUsage

	c.ExtKeyUsage = rapid.SliceOfNDistinct(oids, 0, 4, oidKey).Draw(t, "eku")
	x.UnknownExtKeyUsage = c.ExtKeyUsage
	for _, id := range rapid.SliceOfNDistinct(oids, 0, 3, oidKey).Draw(t, "policies") {
		c.Policies = append(c.Policies, der.PolicyInformation{Identifier: id})
		arcs := make([]uint64, len(id))
		for i, arc := range id {
			arcs[i] = uint64(arc)
		}
		oid, err := x509.OIDFromInts(arcs)
		if err != nil {
			t.Fatal(err)
		}
		x.Policies = append(x.Policies, oid)
	}
	c.NoRevAvail = !c.IsCA && rapid.Bool().Draw(t, "noRevAvail")
	c.CAIssuers = someOf(t, "caIssuers", urls)
	x.IssuingCertificateURL = c.CAIssuers
	if !c.NoRevAvail {
		c.OCSPServers = someOf(t, "ocsp", urls)
		x.OCSPServer = c.OCSPServers
		c.CRLDistributionPoints = someOf(t, "cdp", urls)
		x.CRLDistributionPoints = c.CRLDistributionPoints
		if rapid.Bool().Draw(t, "own CDP") {
			f.CRLDistributionPoint = urls.Draw(t, "shard")
			x.CRLDistributionPoints = []string{f.CRLDistributionPoint}
		}
		if c.MustStaple = rapid.Bool().Draw(t, "mustStaple"); c.MustStaple {
			x.ExtraExtensions = append(x.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}})
		}
	} else {
		x.ExtraExtensions = append(x.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 56}, Value: []byte{5, 0}})
	}
	if c.OCSPNoCheck = rapid.Bool().Draw(t, "nocheck"); c.OCSPNoCheck {
		x.ExtraExtensions = append(x.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}})
	}
	for _, id := range rapid.SliceOfNDistinct(oids, 0, 2, oidKey).Draw(t, "extra") {
		e := pkix.Extension{
			Id: id, Critical: rapid.Bool().Draw(t, "critical"),
			Value: der.AppendOctetString(nil, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")),
		}
		c.ExtraExtensions = append(c.ExtraExtensions, e)
		x.ExtraExtensions = append(x.ExtraExtensions, e)
	}

	f.SerialNumber = serials.Draw(t, "serial")
	if f.SerialNumber[0] >= 0x80 {
		f.SerialNumber = append([]byte{0}, f.SerialNumber...)
	}
	x.SerialNumber = new(big.Int).SetBytes(f.SerialNumber)
	f.NotBefore, f.NotAfter = validTimes.Draw(t, "notBefore"), validTimes.Draw(t, "notAfter")
	if f.NotAfter.Before(f.NotBefore) {
		f.NotBefore, f.NotAfter = f.NotAfter, f.NotBefore
	}
	x.NotBefore, x.NotAfter = f.NotBefore, f.NotAfter
	f.SubjectPublicKeyInfo = spki
	f.SubjectKeyID = rapid.SliceOfN(rapid.Byte(), 1, 32).Draw(t, "ski")
	x.SubjectKeyId = f.SubjectKeyID // explicit: Go's own choice is by GODEBUG

	var names []der.GeneralName
	for _, host := range someOf(t, "dns", hosts) {
		names = append(names, der.DNSName(host))
		x.DNSNames = append(x.DNSNames, host)
	}
	for _, email := range someOf(t, "email", emails) {
		names = append(names, der.EmailAddress(email))
		x.EmailAddresses = append(x.EmailAddresses, email)
	}
	for _, addr := range someOf(t, "ip", addresses) {
		names = append(names, der.IPAddress(addr))
		x.IPAddresses = append(x.IPAddresses, addr.AsSlice())
	}
	for _, u := range someOf(t, "uri", urls) {
		names = append(names, der.URI(u))
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		x.URIs = append(x.URIs, parsed)
	}
	if len(names) > 0 {
		f.SubjectAltName = must(der.AppendGeneralNames(nil, names))
	}
	rdns := drawRDNs(t)
	if len(rdns) == 0 && (c.IsCA || len(names) == 0) {
		rdns = [][]der.Attribute{{cn("x")}}
	}
	f.Subject = must(der.AppendName(nil, rdns))
	x.RawSubject = f.Subject
	return d
}

func drawNameConstraints(t *rapid.T, c *der.CertificateConfig, x *x509.Certificate) {
	if !rapid.Bool().Draw(t, "nameConstraints") {
		return
	}
	subtrees := func(side string) (s der.Subtrees, ips []*net.IPNet) {
		s.DNS = append(someOf(t, side+" dns", hosts), "always.example")
		s.IP = someOf(t, side+" ip", prefixes)
		s.Email = append(someOf(t, side+" email", emails), someOf(t, side+" host", hosts)...)
		for _, host := range someOf(t, side+" uri", hosts) {
			s.URI = append(s.URI, rapid.SampledFrom([]string{"", "."}).Draw(t, "dot")+host)
		}
		for _, p := range s.IP {
			ips = append(ips, &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
		}
		return s, ips
	}
	c.NameConstraints = new(der.NameConstraints)
	x.PermittedDNSDomainsCritical = true
	if rapid.Bool().Draw(t, "permitted") {
		s, ips := subtrees("permitted")
		c.NameConstraints.Permitted = s
		x.PermittedDNSDomains, x.PermittedIPRanges, x.PermittedEmailAddresses, x.PermittedURIDomains = s.DNS, ips, s.Email, s.URI
	}
	if x.PermittedDNSDomains == nil || rapid.Bool().Draw(t, "excluded") {
		s, ips := subtrees("excluded")
		c.NameConstraints.Excluded = s
		x.ExcludedDNSDomains, x.ExcludedIPRanges, x.ExcludedEmailAddresses, x.ExcludedURIDomains = s.DNS, ips, s.Email, s.URI
	}
}

// TestCertificateAgainstX509 compares what crypto/x509 reads from our encoding
// and from its own of the same certificate: every parsed field, and every
// extension octet for octet, with these differences:
//   - the order of extensions, which says nothing;
//   - several CRL addresses: we name them in one DistributionPoint, since they
//     lead to the same CRL, Go writes one DistributionPoint each; the parsed
//     lists are compared.
func TestCertificateAgainstX509(t *testing.T) {
	signers := []crypto.Signer{ed25519Key(), p256(t), fixedKey(t, elliptic.P384(), 1)}
	subjectKey := ed25519Key().Public()
	spki := spkiOf(t, subjectKey)
	issuer := name(t, cn("Example CA"))
	rapid.Check(t, func(t *rapid.T) {
		signer := rapid.SampledFrom(signers).Draw(t, "signer")
		a, err := der.SignatureAlgorithmFor(signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		d := draw(t, issuer, a, spki)
		template, err := der.NewCertificateTemplate(d.config)
		if err != nil {
			t.Fatal(err)
		}
		tbs, err := template.AppendTBS([]byte("before"), &d.fields)
		if err != nil {
			t.Fatal(err)
		}
		tbs = tbs[len("before"):]
		signature, err := a.Sign(rand.Reader, signer, tbs)
		if err != nil {
			t.Fatal(err)
		}
		got, err := x509.ParseCertificate(der.AppendSigned(nil, tbs, a, signature))
		if err != nil {
			t.Fatalf("ours does not parse: %v\n%x", err, tbs)
		}
		parent := &x509.Certificate{RawSubject: issuer, SubjectKeyId: d.config.AuthorityKeyID, PublicKey: signer.Public()}
		raw, err := x509.CreateCertificate(rand.Reader, &d.template, parent, subjectKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		want, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*x509.Certificate{got, want} {
			c.Raw, c.RawTBSCertificate, c.Signature = nil, nil, nil
			c.Extensions = slices.DeleteFunc(c.Extensions, func(e pkix.Extension) bool {
				return e.Id.String() == "2.5.29.31" && len(c.CRLDistributionPoints) > 1
			})
			slices.SortFunc(c.Extensions, func(a, b pkix.Extension) int { return strings.Compare(a.Id.String(), b.Id.String()) })
			slices.SortFunc(c.UnhandledCriticalExtensions, func(a, b asn1.ObjectIdentifier) int { return strings.Compare(a.String(), b.String()) })
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 }), cmp.Comparer(func(a, b x509.OID) bool { return a.Equal(b) })); diff != "" {
			t.Fatalf("crypto/x509 (-) and ours (+):\n%s", diff)
		}
	})
}

func TestCertificateTemplateRefuses(t *testing.T) {
	signer := p256(t)
	for _, test := range []struct {
		name   string
		change func(*der.CertificateConfig)
	}{
		{"no algorithm", func(c *der.CertificateConfig) { c.SignatureAlgorithm = nil }},
		{"no issuer", func(c *der.CertificateConfig) { c.Issuer = nil }},
		{"empty issuer", func(c *der.CertificateConfig) { c.Issuer = []byte{0x30, 0} }},
		{"issuer with trailing octet", func(c *der.CertificateConfig) { c.Issuer = append(c.Issuer, 0) }},
		{"CA without keyCertSign", func(c *der.CertificateConfig) { c.IsCA = true }},
		{"keyCertSign without CA", func(c *der.CertificateConfig) { c.KeyUsage |= x509.KeyUsageCertSign }},
		{"undefined key usage", func(c *der.CertificateConfig) { c.KeyUsage = 1 << 9 }},
		{"negative key usage", func(c *der.CertificateConfig) { c.KeyUsage = -1 &^ x509.KeyUsageCertSign }},
		{"pathLen without CA", func(c *der.CertificateConfig) { c.PathLen = new(int) }},
		{"negative pathLen", func(c *der.CertificateConfig) {
			n := -1
			c.IsCA, c.KeyUsage, c.PathLen = true, x509.KeyUsageCertSign, &n
		}},
		{"name constraints without CA", func(c *der.CertificateConfig) {
			c.NameConstraints = &der.NameConstraints{Permitted: der.Subtrees{DNS: []string{"a"}}}
		}},
		{"empty name constraints", func(c *der.CertificateConfig) {
			c.IsCA, c.KeyUsage, c.NameConstraints = true, x509.KeyUsageCertSign, &der.NameConstraints{}
		}},
		{"purpose twice", func(c *der.CertificateConfig) { c.ExtKeyUsage = append(c.ExtKeyUsage, oidServerAuth) }},
		{"bad purpose", func(c *der.CertificateConfig) { c.ExtKeyUsage = []asn1.ObjectIdentifier{{1}} }},
		{"critical without purposes", func(c *der.CertificateConfig) { c.ExtKeyUsage, c.ExtKeyUsageCritical = nil, true }},
		{"CRL address", func(c *der.CertificateConfig) { c.CRLDistributionPoints = []string{"ca.crl"} }},
		{"freshest CRL address", func(c *der.CertificateConfig) { c.FreshestCRL = []string{""} }},
		{"OCSP address", func(c *der.CertificateConfig) { c.OCSPServers = []string{"http://ä"} }},
		{"policy twice", func(c *der.CertificateConfig) {
			p := der.PolicyInformation{Identifier: asn1.ObjectIdentifier{1, 2, 3}}
			c.Policies = []der.PolicyInformation{p, p}
		}},
		{"CPS", func(c *der.CertificateConfig) {
			c.Policies = []der.PolicyInformation{{Identifier: asn1.ObjectIdentifier{1, 2, 3}, CPS: "x"}}
		}},
		{"noRevAvail and CDP", func(c *der.CertificateConfig) { c.NoRevAvail = true }},
		{"noRevAvail and must-staple", func(c *der.CertificateConfig) {
			c.NoRevAvail, c.MustStaple, c.CRLDistributionPoints, c.OCSPServers = true, true, nil, nil
		}},
		{"extra SAN", func(c *der.CertificateConfig) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 0}}}
		}},
		{"extra twice", func(c *der.CertificateConfig) {
			e := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}
			c.ExtraExtensions = []pkix.Extension{e, e}
		}},
		{"extra not DER", func(c *der.CertificateConfig) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte("text")}}
		}},
	} {
		c := serverConfig(t, signer)
		test.change(&c)
		_, err := der.NewCertificateTemplate(c)
		wantValueError(t, err, test.name)
	}
	for _, s := range []der.Subtrees{
		{DNS: []string{".example.com"}},
		{DNS: []string{"*.example.com"}},
		{IP: []netip.Prefix{{}}},
		{IP: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}},
		{IP: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}},
		{Email: []string{""}},
		{Email: []string{"a@"}},
		{URI: []string{""}},
		{URI: []string{"10.0.0.1"}},
		{URI: []string{"http://a"}},
		{Directory: [][]byte{nil}},
	} {
		c := serverConfig(t, signer)
		c.IsCA, c.KeyUsage, c.NameConstraints = true, x509.KeyUsageCertSign, &der.NameConstraints{Excluded: s}
		_, err := der.NewCertificateTemplate(c)
		wantValueError(t, err, fmt.Sprintf("subtrees %+v", s))
	}
}

func TestCertificateFieldsRefuse(t *testing.T) {
	signer := p256(t)
	template, good := serverTemplate(t, signer)
	caConfig := serverConfig(t, signer)
	caConfig.IsCA, caConfig.KeyUsage = true, x509.KeyUsageCertSign
	ca := newTemplate(t, caConfig)
	noRevConfig := serverConfig(t, signer)
	noRevConfig.NoRevAvail, noRevConfig.CRLDistributionPoints, noRevConfig.OCSPServers = true, nil, nil
	noRev := newTemplate(t, noRevConfig)

	for _, test := range []struct {
		name     string
		template *der.CertificateTemplate
		change   func(*der.CertificateFields)
	}{
		{"zero serial", template, func(f *der.CertificateFields) { f.SerialNumber = []byte{0} }},
		{"21 octets of serial", template, func(f *der.CertificateFields) { f.SerialNumber = append([]byte{1}, make([]byte, 20)...) }},
		{"times swapped", template, func(f *der.CertificateFields) { f.NotBefore, f.NotAfter = f.NotAfter, f.NotBefore }},
		{"fraction of a second", template, func(f *der.CertificateFields) { f.NotAfter = f.NotAfter.Add(1) }},
		{"fraction in notBefore", template, func(f *der.CertificateFields) { f.NotBefore = f.NotBefore.Add(1) }},
		{"zero times", template, func(f *der.CertificateFields) { f.NotBefore, f.NotAfter = time.Time{}, time.Time{} }},
		{"no subject", template, func(f *der.CertificateFields) { f.Subject = nil }},
		{"empty subject and no SAN", template, func(f *der.CertificateFields) { f.Subject, f.SubjectAltName = []byte{0x30, 0}, nil }},
		{"empty subject of a CA", ca, func(f *der.CertificateFields) { f.Subject = []byte{0x30, 0} }},
		{"CA without key identifier", ca, func(f *der.CertificateFields) { f.SubjectKeyID = nil }},
		{"no key", template, func(f *der.CertificateFields) { f.SubjectPublicKeyInfo = nil }},
		{"empty SAN", template, func(f *der.CertificateFields) { f.SubjectAltName = []byte{0x30, 0} }},
		{"SAN of bytes", template, func(f *der.CertificateFields) { f.SubjectAltName = []byte{} }},
		{"SAN of strings", template, func(f *der.CertificateFields) { f.SubjectAltName = []byte{0x30, 3, 0x0c, 1, 'a'} }},
		{"CDP not a URI", template, func(f *der.CertificateFields) { f.CRLDistributionPoint = "x" }},
		{"CDP beside noRevAvail", noRev, func(f *der.CertificateFields) { f.CRLDistributionPoint = "http://a/b" }},
	} {
		f := *good
		test.change(&f)
		_, err := test.template.AppendTBS(nil, &f)
		wantValueError(t, err, test.name)
	}
}

func TestAppendTBSDoesNotAllocate(t *testing.T) {
	template, fields := serverTemplate(t, p256(t))
	fields.CRLDistributionPoint = ""
	buffer := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := template.AppendTBS(buffer, fields); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("AppendTBS into a large enough slice: got %v allocations, want 0", n)
	}
}
