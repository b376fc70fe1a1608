package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/certwright/certwright/pkg/client"
)

const (
	day      = 24 * time.Hour
	backdate = 5 * time.Minute // of certificates
)

// profiles are the built-in profiles that requests can name, and what must come of them.
var profiles = []struct {
	name     string
	san      string // as OpenSSL writes it, in the CSR
	want     []string
	usageRSA x509.KeyUsage
	usageEC  x509.KeyUsage
	extended []x509.ExtKeyUsage
	life     time.Duration
	purposes []string // that OpenSSL must find it good for
	never    []string // and those that it must not
}{
	{
		"server", "DNS:www.e2e.example,DNS:e2e.example,IP:192.0.2.7",
		[]string{"DNS:www.e2e.example", "DNS:e2e.example", "IP:192.0.2.7"},
		x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, x509.KeyUsageDigitalSignature,
		[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		90 * day,
		[]string{"sslserver"},
		[]string{"sslclient", "smimesign"},
	},
	{
		"client", "email:ada@e2e.example",
		[]string{"email:ada@e2e.example"},
		x509.KeyUsageDigitalSignature, x509.KeyUsageDigitalSignature,
		[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		365 * day,
		[]string{"sslclient"},
		[]string{"sslserver", "smimesign"},
	},
	{
		"device", "DNS:sensor-17.e2e.example,URI:urn:dev:sensor-17",
		[]string{"DNS:sensor-17.e2e.example", "URI:urn:dev:sensor-17"},
		x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, x509.KeyUsageDigitalSignature,
		[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		365 * day,
		[]string{"sslclient"},
		[]string{"sslserver", "smimesign"},
	},
	{
		"peer", "DNS:node1.e2e.example",
		[]string{"DNS:node1.e2e.example"},
		x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, x509.KeyUsageDigitalSignature,
		[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		90 * day,
		[]string{"sslserver", "sslclient"},
		[]string{"smimesign"},
	},
	{
		"email", "email:ada@e2e.example",
		[]string{"email:ada@e2e.example"},
		x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
		[]x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		365 * day,
		[]string{"smimesign"},
		[]string{"sslserver", "sslclient"},
	},
}

// TestIssue has OpenSSL make requests, and OpenSSL, zlint and Go judge what comes back.
func TestIssue(t *testing.T) {
	Need(t, "openssl")
	everywhere(t, func(t *testing.T, d deployment) {
		h := chainOf(t, d.A)
		dir := t.TempDir()
		for _, alg := range []string{"RSA", "EC"} {
			key := opensslKey(t, alg)
			for _, p := range profiles {
				t.Run(p.name+" "+alg, func(t *testing.T) {
					usage := p.usageEC
					if alg == "RSA" {
						usage = p.usageRSA
					}
					// The request asks for more than it may have. Nothing of it may come through.
					csr := opensslCSR(t, key, "/CN=e2e "+p.name, p.san, "keyUsage=keyCertSign,cRLSign", "certificatePolicies=1.2.3.4", "nsComment=no")
					before := time.Now()
					issued, err := d.A.Client.Issue(t.Context(), client.IssueRequest{CSR: csr, Profile: p.name})
					if err != nil {
						t.Fatal(err)
					}
					c := parseCertificate(t, []byte(issued.PEM))
					var except []string
					if p.name == "device" && alg == "RSA" {
						// SCEP encrypts its answers to the key of the request (RFC 8894, Section 3.2.2), for which it needs
						// keyEncipherment. RFC 5280, Section 4.2.1.12, lists it for servers only.
						except = append(except, "e_key_usage_and_extended_key_usage_inconsistent")
					}
					checkLeaf(t, d.A, h, c, except...)
					if c.KeyUsage != usage {
						t.Errorf("key usage: got %b, want %b", c.KeyUsage, usage)
					}
					if !slices.Equal(c.ExtKeyUsage, p.extended) || len(c.UnknownExtKeyUsage) > 0 {
						t.Errorf("extended key usage: got %v %v, want %v", c.ExtKeyUsage, c.UnknownExtKeyUsage, p.extended)
					}
					if got := names(c); !sameSet(got, p.want) {
						t.Errorf("names: got %v, want %v", got, p.want)
					}
					// notAfter is the last second (RFC 5280, Section 4.1.2.5).
					if got, want := c.NotAfter.Sub(c.NotBefore), p.life+backdate-time.Second; got != want {
						t.Errorf("life: got %v, want %v", got, want)
					}
					if off := c.NotBefore.Add(backdate).Sub(before); off < -2*time.Second || off > time.Minute {
						t.Errorf("notBefore is %s, the request was made at %s", c.NotBefore, before)
					}

					file := filepath.Join(dir, p.name+alg+".pem")
					writeFile(t, file, []byte(issued.PEM))
					for _, purpose := range p.purposes {
						if r := h.opensslVerify(t, file, purpose); r.Code != 0 {
							t.Errorf("openssl verify -purpose %s: %s%s", purpose, r.Out, r.Err)
						}
					}
					for _, purpose := range p.never {
						if r := h.opensslVerify(t, file, purpose); r.Code == 0 || !strings.Contains(r.Out+r.Err, "purpose") {
							t.Errorf("openssl verify -purpose %s: code %d, %s%s", purpose, r.Code, r.Out, r.Err)
						}
					}
					if p.name == "email" && alg == "RSA" {
						if r := h.opensslVerify(t, file, "smimeencrypt"); r.Code != 0 {
							t.Errorf("openssl verify -purpose smimeencrypt: %s%s", r.Out, r.Err)
						}
					}
					_, err = c.Verify(x509.VerifyOptions{Roots: d.A.Roots, Intermediates: h.pool, KeyUsages: p.extended})
					if err != nil {
						t.Error(err)
					}

					// The other replica knows it, byte for byte.
					same, err := d.B.Client.Certificate(t.Context(), issued.ID)
					if err != nil || same.PEM != issued.PEM || same.Chain != issued.Chain || same.Status != "valid" {
						t.Errorf("the other replica has another certificate: %v, status %s", err, same.Status)
					}
				})
			}
		}
		for _, asked := range []string{"basicConstraints=critical,CA:TRUE", "extendedKeyUsage=OCSPSigning"} {
			t.Run("a request for "+asked, func(t *testing.T) {
				csr := opensslCSR(t, opensslKey(t, "EC"), "/CN=ca", "DNS:ca.e2e.example", asked)
				_, err := d.A.Client.Issue(t.Context(), client.IssueRequest{CSR: csr, Profile: "server"})
				if e, ok := errors.AsType[*client.Error](err); !ok || e.Kind() != "policy_refused" {
					t.Errorf("got %v, want a refusal by policy", err)
				}
			})
		}
		t.Run("the CA's own", func(t *testing.T) { checkOwn(t, d.A, h) })
		if d.Replicas() {
			t.Run("the CA's own, other replica", func(t *testing.T) { checkOwn(t, d.B, h) })
		}
		t.Run("CRLs", func(t *testing.T) {
			for _, raw := range h.crls {
				lintCRL(t, raw)
			}
		})
	})
}

// hierarchy is a server's CA certificates and CRLs, as verifiers find them: each through the addresses in the
// certificate below.
type hierarchy struct {
	root, issuing *x509.Certificate
	pool          *x509.CertPool
	crls          [][]byte // of the issuing CA and the root, DER
	dir           string   // holds root.pem, issuing.pem, crls.pem
}

func chainOf(t testing.TB, s *Server) *hierarchy {
	t.Helper()
	issuer, err := s.Client.Issuer(t.Context(), "issuing")
	if err != nil {
		t.Fatal(err)
	}
	h := &hierarchy{root: s.Root, issuing: parseCertificate(t, []byte(issuer.PEM)), pool: x509.NewCertPool(), dir: t.TempDir()}
	h.pool.AddCert(h.issuing)
	writeFile(t, filepath.Join(h.dir, "root.pem"), pemOf(h.root))
	writeFile(t, filepath.Join(h.dir, "issuing.pem"), pemOf(h.issuing))
	// The address in certificates of the issuing CA; the root's is in the issuing CA's own.
	h.refresh(t, s.PublicURL+"/crl/"+issuer.KeyID+".crl")
	return h
}

// refresh fetches the CRLs. leafCDP is the address of the issuing CA's.
func (h *hierarchy) refresh(t testing.TB, leafCDP string) {
	t.Helper()
	h.crls = nil
	var text []byte
	for _, address := range append([]string{leafCDP}, h.issuing.CRLDistributionPoints...) {
		raw := fetch(t, address)
		h.crls = append(h.crls, raw)
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: raw})...)
	}
	if len(h.crls) != 2 {
		t.Fatalf("got %d CRLs, want one of each CA", len(h.crls))
	}
	writeFile(t, filepath.Join(h.dir, "crls.pem"), text)
}

// opensslVerify checks a certificate by the letter of RFC 5280, with the CRL of every CA.
func (h *hierarchy) opensslVerify(t testing.TB, file, purpose string) Result {
	t.Helper()
	return try(t, "openssl", "verify", "-x509_strict", "-crl_check_all", "-policy_check", "-purpose", purpose,
		"-CAfile", filepath.Join(h.dir, "root.pem"), "-untrusted", filepath.Join(h.dir, "issuing.pem"),
		"-CRLfile", filepath.Join(h.dir, "crls.pem"), file)
}

// checkLeaf checks what all certificates that requests can have carry alike.
func checkLeaf(t *testing.T, s *Server, h *hierarchy, c *x509.Certificate, except ...string) {
	t.Helper()
	if c.Version != 3 || !c.BasicConstraintsValid || c.IsCA {
		t.Errorf("version %d, basicConstraints %v, CA %v: want 3, true, false", c.Version, c.BasicConstraintsValid, c.IsCA)
	}
	if !bytes.Equal(c.RawIssuer, h.issuing.RawSubject) {
		t.Error("the issuer's name is not the issuing CA's, octet for octet")
	}
	if len(c.SubjectKeyId) != 20 || !bytes.Equal(c.AuthorityKeyId, h.issuing.SubjectKeyId) {
		t.Errorf("SKI %x, AKI %x: want 20 octets, and %x", c.SubjectKeyId, c.AuthorityKeyId, h.issuing.SubjectKeyId)
	}
	if n := len(c.SerialNumber.Bytes()); c.SerialNumber.Sign() <= 0 || n < 9 || n > 20 {
		t.Errorf("serial number %x", c.SerialNumber)
	}
	checkAddresses(t, s, c, h.issuing)
	got := make([]string, 0, len(c.Extensions))
	for _, e := range c.Extensions {
		got = append(got, e.Id.String())
	}
	// keyUsage, extKeyUsage, basicConstraints, AKI, AIA, SKI, subjectAltName, cRLDistributionPoints; each once.
	want := []string{"2.5.29.15", "2.5.29.37", "2.5.29.19", "2.5.29.35", "1.3.6.1.5.5.7.1.1", "2.5.29.14", "2.5.29.17", "2.5.29.31"}
	if !sameSet(got, want) {
		t.Errorf("extensions: got %v, want %v", got, want)
	}
	lintCertificate(t, c.Raw, except...)
}

// checkAddresses checks that the addresses in a certificate lead to what they promise.
func checkAddresses(t *testing.T, s *Server, c, issuer *x509.Certificate) {
	t.Helper()
	if len(c.CRLDistributionPoints) != 1 || len(c.OCSPServer) != 1 || len(c.IssuingCertificateURL) != 1 {
		t.Fatalf("CDP %v, OCSP %v, caIssuers %v: want one of each", c.CRLDistributionPoints, c.OCSPServer, c.IssuingCertificateURL)
	}
	for _, address := range slices.Concat(c.CRLDistributionPoints, c.OCSPServer, c.IssuingCertificateURL) {
		if !strings.HasPrefix(address, s.PublicURL+"/") || !strings.HasPrefix(address, "http://") {
			t.Errorf("address %s: want plain http below %s", address, s.PublicURL)
		}
	}
	if got := fetch(t, c.IssuingCertificateURL[0]); !bytes.Equal(got, issuer.Raw) {
		t.Errorf("%s is not the issuer's certificate in DER", c.IssuingCertificateURL[0])
	}
	list, err := x509.ParseRevocationList(fetch(t, c.CRLDistributionPoints[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(list.AuthorityKeyId, issuer.SubjectKeyId) || !bytes.Equal(list.RawIssuer, issuer.RawSubject) {
		t.Errorf("the CRL at %s names another issuer", c.CRLDistributionPoints[0])
	}
}

// checkOwn checks the certificates that nobody asked for: the CA's, the OCSP responders', the listeners'.
func checkOwn(t *testing.T, s *Server, h *hierarchy) {
	root, issuing := h.root, h.issuing
	if err := root.CheckSignatureFrom(root); err != nil {
		t.Error(err)
	}
	const caUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if !root.IsCA || root.KeyUsage != caUsage || root.MaxPathLen > 0 || len(root.CRLDistributionPoints)+len(root.OCSPServer) > 0 || len(root.ExtKeyUsage) > 0 {
		t.Errorf("root: CA %v, usage %b, path length %d, CDP %v, OCSP %v, EKU %v",
			root.IsCA, root.KeyUsage, root.MaxPathLen, root.CRLDistributionPoints, root.OCSPServer, root.ExtKeyUsage)
	}
	if !issuing.IsCA || issuing.KeyUsage != caUsage || !issuing.MaxPathLenZero || len(issuing.ExtKeyUsage) > 0 {
		t.Errorf("issuing: CA %v, usage %b, path length %d, EKU %v", issuing.IsCA, issuing.KeyUsage, issuing.MaxPathLen, issuing.ExtKeyUsage)
	}
	if !bytes.Equal(issuing.AuthorityKeyId, root.SubjectKeyId) || !bytes.Equal(issuing.RawIssuer, root.RawSubject) {
		t.Error("the issuing CA's certificate does not name the root")
	}
	if issuing.NotAfter.After(root.NotAfter) || issuing.NotBefore.Before(root.NotBefore) {
		t.Error("the issuing CA's certificate outlives the root's")
	}
	checkAddresses(t, s, issuing, root)
	lintCertificate(t, root.Raw)
	lintCertificate(t, issuing.Raw)

	for _, pair := range []struct{ subject, issuer *x509.Certificate }{{parseHTTPS(t, s), issuing}, {issuing, root}} {
		a := ocspAbout(t, s, pair.subject, pair.issuer, ocspQuery{})
		c := a.Certificate
		if c == nil {
			t.Fatal("the OCSP answer has no certificate inside")
		}
		if err := c.CheckSignatureFrom(pair.issuer); err != nil {
			t.Error(err)
		}
		if c.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}) || c.IsCA {
			t.Errorf("OCSP responder: usage %b, EKU %v, CA %v", c.KeyUsage, c.ExtKeyUsage, c.IsCA)
		}
		if !slices.ContainsFunc(c.Extensions, func(e pkixExtension) bool { return e.Id.String() == "1.3.6.1.5.5.7.48.1.5" }) {
			t.Error("OCSP responder: id-pkix-ocsp-nocheck is missing")
		}
		if life := c.NotAfter.Sub(c.NotBefore); life > 31*day {
			t.Errorf("OCSP responder: lives %s", life)
		}
		lintCertificate(t, c.Raw)
	}

	https := parseHTTPS(t, s)
	checkLeaf(t, s, h, https)
	if _, err := https.Verify(x509.VerifyOptions{Roots: s.Roots, Intermediates: h.pool, DNSName: "localhost"}); err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "https.pem")
	writeFile(t, file, pemOf(https))
	if r := h.opensslVerify(t, file, "sslserver"); r.Code != 0 {
		t.Errorf("openssl verify: %s%s", r.Out, r.Err)
	}
}

// parseHTTPS returns the certificate of the HTTPS listener.
func parseHTTPS(t testing.TB, s *Server) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.HTTPS, "https://"), &tls.Config{RootCAs: s.Roots})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// rfcLints are zlint's sources that are RFCs. The CA/Browser Forum's are left out: they are rules for public CAs and
// refuse private names.
var rfcLints = sync.OnceValues(func() (lint.Registry, error) {
	return lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{
		lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC6960, lint.RFC6962, lint.RFC8813,
	}})
})

func lintCertificate(t *testing.T, der []byte, except ...string) {
	t.Helper()
	registry, err := rfcLints()
	if err != nil {
		t.Fatal(err)
	}
	c, err := zx509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	reportLints(t, zlint.LintCertificateEx(c, registry), 20, except...)
}

func lintCRL(t *testing.T, der []byte) {
	t.Helper()
	registry, err := rfcLints()
	if err != nil {
		t.Fatal(err)
	}
	list, err := zx509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	reportLints(t, zlint.LintRevocationListEx(list, registry), 5)
}

// reportLints fails the test for every finding, however small. atLeast guards against a linter that looks at nothing.
func reportLints(t *testing.T, results *zlint.ResultSet, atLeast int, except ...string) {
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
	if ran < atLeast {
		t.Errorf("only %d lints applied, want %d", ran, atLeast)
	}
}

// opensslKeys are made once: RSA keys cost time.
var opensslKeys = struct {
	sync.Mutex
	byAlgorithm map[string]string // PEM
}{byAlgorithm: make(map[string]string)}

// opensslKey returns the path of a private key, RSA-2048 or P-256, that all tests share.
func opensslKey(t testing.TB, alg string) string {
	t.Helper()
	opensslKeys.Lock()
	defer opensslKeys.Unlock()
	text, ok := opensslKeys.byAlgorithm[alg]
	if !ok {
		text = newOpensslKey(t, alg)
		opensslKeys.byAlgorithm[alg] = text
	}
	path := filepath.Join(t.TempDir(), alg+".key")
	writeFile(t, path, []byte(text))
	return path
}

// newOpensslKey returns a new private key, PEM.
func newOpensslKey(t testing.TB, alg string) string {
	t.Helper()
	args := []string{"genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"}
	if alg == "RSA" {
		args = []string{"genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}
	}
	return tool(t, "openssl", args...)
}

// opensslCSR returns a request for names, PEM. san and the further extensions are in the form of OpenSSL's
// configuration.
func opensslCSR(t testing.TB, key, subject, san string, extensions ...string) string {
	t.Helper()
	args := []string{"req", "-new", "-sha256", "-key", key, "-subj", subject}
	if san != "" {
		extensions = append(extensions, "subjectAltName="+san)
	}
	for _, e := range extensions {
		args = append(args, "-addext", e)
	}
	return tool(t, "openssl", args...)
}

// identity is a certificate with its key, in files.
type identity struct {
	client.Certificate
	X509      *x509.Certificate
	CertFile  string // the certificate alone, PEM
	ChainFile string // with the issuing CA's behind it
	KeyFile   string
	TLS       *tls.Certificate
}

// issue has a certificate issued for a new P-256 key.
func issue(t testing.TB, s *Server, profile, name, san string) *identity {
	t.Helper()
	dir := t.TempDir()
	i := &identity{CertFile: filepath.Join(dir, "cert.pem"), ChainFile: filepath.Join(dir, "chain.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	writeFile(t, i.KeyFile, []byte(newOpensslKey(t, "EC")))
	issued, err := s.Client.Issue(t.Context(), client.IssueRequest{CSR: opensslCSR(t, i.KeyFile, "/CN="+name, san), Profile: profile})
	if err != nil {
		t.Fatal(err)
	}
	i.take(t, issued)
	return i
}

// take fills in the certificate.
func (i *identity) take(t testing.TB, c client.Certificate) {
	t.Helper()
	i.Certificate, i.X509 = c, parseCertificate(t, []byte(c.PEM))
	writeFile(t, i.CertFile, []byte(c.PEM))
	above := parseCertificate(t, []byte(c.Chain))
	writeFile(t, i.ChainFile, slices.Concat(pemOf(i.X509), pemOf(above)))
	pair, err := tls.LoadX509KeyPair(i.ChainFile, i.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	i.TLS = &pair
}

// names writes the alternative names as the API does.
func names(c *x509.Certificate) []string {
	var out []string
	for _, n := range c.DNSNames {
		out = append(out, "DNS:"+n)
	}
	for _, ip := range c.IPAddresses {
		out = append(out, "IP:"+ip.String())
	}
	for _, a := range c.EmailAddresses {
		out = append(out, "email:"+a)
	}
	for _, u := range c.URIs {
		out = append(out, "URI:"+u.String())
	}
	return out
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
