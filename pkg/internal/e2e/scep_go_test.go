package e2e

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/kit/log"
	scepclient "github.com/micromdm/scep/v2/client"
	"github.com/smallstep/pkcs7"
	"github.com/smallstep/scep"
	"github.com/smallstep/scep/x509util"

	"github.com/certwright/certwright/pkg/client"
)

// scepTransport carries the messages of a Go client. micromdm's client is one: it posts.
type scepTransport interface {
	GetCACaps(ctx context.Context) ([]byte, error)
	GetCACert(ctx context.Context, message string) ([]byte, int, error)
	PKIOperation(ctx context.Context, message []byte) ([]byte, error)
}

// scepByGET asks by GET alone (RFC 8894, Section 4.1), for smallstep's library, which has messages and no transport.
type scepByGET struct {
	t   *testing.T
	url string
}

func (g scepByGET) get(ctx context.Context, operation, message string) ([]byte, string, error) {
	q := url.Values{"operation": {operation}}
	if message != "" {
		q.Set("message", message)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+"?"+q.Encode(), http.NoBody)
	if err != nil {
		return nil, "", err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK {
		g.t.Errorf("%s: %s: %s", operation, answer.Status, body)
	}
	return body, answer.Header.Get("Content-Type"), err
}

func (g scepByGET) GetCACaps(ctx context.Context) ([]byte, error) {
	b, _, err := g.get(ctx, "GetCACaps", "")
	return b, err
}

func (g scepByGET) GetCACert(ctx context.Context, message string) ([]byte, int, error) {
	b, mediaType, err := g.get(ctx, "GetCACert", message)
	if mediaType == "application/x-x509-ca-ra-cert" {
		return b, 2, err
	}
	return b, 1, err
}

func (g scepByGET) PKIOperation(ctx context.Context, message []byte) ([]byte, error) {
	b, _, err := g.get(ctx, "PKIOperation", base64.StdEncoding.EncodeToString(message))
	return b, err
}

// goSCEP is a device made of a Go client library.
type goSCEP struct {
	t      *testing.T
	s      *Server
	wire   scepTransport
	known  []*x509.Certificate // what GetCACert answers
	key    *rsa.PrivateKey     // of the certificate to be
	signer *x509.Certificate   // whose key signs messages
	sign   *rsa.PrivateKey
}

func newGoSCEP(t *testing.T, s *Server, wire scepTransport) *goSCEP {
	t.Helper()
	raw, n, err := wire.GetCACert(t.Context(), "")
	if err != nil || n != 2 {
		t.Fatalf("GetCACert: %d certificates, %v", n, err)
	}
	d := &goSCEP{t: t, s: s, wire: wire}
	if d.known, err = scep.CACerts(raw); err != nil {
		t.Fatal(err)
	}
	d.fresh()
	return d
}

// fresh gives the device a new key, and a certificate signed by itself.
func (d *goSCEP) fresh() {
	d.t.Helper()
	var err error
	if d.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		d.t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "SCEP SIGNER"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, d.key.Public(), d.key)
	if err != nil {
		d.t.Fatal(err)
	}
	if d.signer, err = x509.ParseCertificate(raw); err != nil {
		d.t.Fatal(err)
	}
	d.sign = d.key
}

// message makes a request. Without anything in the template it is for CN=sensor-3.
func (d *goSCEP) message(kind scep.MessageType, template x509util.CertificateRequest) *scep.PKIMessage {
	d.t.Helper()
	if template.Subject.CommonName == "" {
		template.Subject.CommonName = "sensor-3"
	}
	template.SignatureAlgorithm = x509.SHA256WithRSA
	raw, err := x509util.CreateCertificateRequest(rand.Reader, &template, d.key)
	if err != nil {
		d.t.Fatal(err)
	}
	request, err := x509.ParseCertificateRequest(raw)
	if err != nil {
		d.t.Fatal(err)
	}
	m, err := scep.NewCSRRequest(request, &scep.PKIMessage{
		MessageType: kind, Recipients: d.known, SignerKey: d.sign, SignerCert: d.signer,
	}, scep.WithCertsSelector(scep.EnciphermentCertsSelector()))
	if err != nil {
		d.t.Fatal(err)
	}
	return m
}

// send returns the answer, whose signature the library has verified with the certificates of GetCACert.
func (d *goSCEP) send(m *scep.PKIMessage) *scep.PKIMessage {
	d.t.Helper()
	raw, err := d.wire.PKIOperation(d.t.Context(), m.Raw)
	if err != nil {
		d.t.Fatal(err)
	}
	answer, err := scep.ParsePKIMessage(raw, scep.WithCACerts(d.known))
	if err != nil {
		d.t.Fatal(err)
	}
	if answer.TransactionID != m.TransactionID || string(answer.RecipientNonce) != string(m.SenderNonce) {
		d.t.Error("the answer is for another request")
	}
	return answer
}

func (d *goSCEP) ask(kind scep.MessageType, template x509util.CertificateRequest) *scep.PKIMessage {
	d.t.Helper()
	return d.send(d.message(kind, template))
}

// outcome is for people. The library's String of a failInfo that is not there panics.
func outcome(answer *scep.PKIMessage) string {
	return fmt.Sprintf("status %s, failInfo %q", string(answer.PKIStatus), string(answer.FailInfo))
}

// success opens an answer that brings a certificate.
func (d *goSCEP) success(answer *scep.PKIMessage) *x509.Certificate {
	d.t.Helper()
	if answer.PKIStatus != scep.SUCCESS {
		d.t.Fatalf("%s; want SUCCESS", outcome(answer))
	}
	if err := answer.DecryptPKIEnvelope(d.signer, d.sign); err != nil {
		d.t.Fatal(err)
	}
	if !d.key.PublicKey.Equal(answer.Certificate.PublicKey) {
		d.t.Error("the certificate is for another key")
	}
	return answer.Certificate
}

func (d *goSCEP) failure(answer *scep.PKIMessage, info scep.FailInfo) {
	d.t.Helper()
	if answer.PKIStatus != scep.FAILURE || answer.FailInfo != info {
		d.t.Errorf("%s; want FAILURE with failInfo %s", outcome(answer), string(info))
	}
}

func withChallenge(text string) x509util.CertificateRequest {
	return x509util.CertificateRequest{ChallengePassword: text}
}

// encrypting has the libraries encrypt with this cipher until the test ends. The choice is the process's: tests that
// call it do not run beside each other.
func encrypting(t *testing.T, cipher int) {
	old := pkcs7.ContentEncryptionAlgorithm
	pkcs7.ContentEncryptionAlgorithm = cipher
	t.Cleanup(func() { pkcs7.ContentEncryptionAlgorithm = old })
}

// goClients walks through what micromdm's and smallstep's libraries can do. They poll by asking again.
func goClients(t *testing.T, s *Server) {
	address := s.HTTP + "/scep/default"
	posts, err := scepclient.New(address, log.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	for _, library := range []struct {
		name string
		wire scepTransport
	}{{"micromdm", posts}, {"smallstep", scepByGET{t, address}}} {
		t.Run(library.name, func(t *testing.T) {
			encrypting(t, pkcs7.EncryptionAlgorithmAES128CBC)
			goClient(t, s, library.wire)
		})
	}
	t.Run("DES only", func(t *testing.T) { // what both do unless they are told better
		encrypting(t, pkcs7.EncryptionAlgorithmDESCBC)
		d := newGoSCEP(t, s, posts)
		text := oneTime(t, s)
		d.failure(d.ask(scep.PKCSReq, withChallenge(text)), scep.BadAlg)
		s.MustCLI("point", "set", "--legacy", "des="+nextMonth())
		defer s.MustCLI("point", "set", "--legacy", "des=off")
		issuedBySCEP(t, s, t.TempDir(), d.success(d.ask(scep.PKCSReq, withChallenge(text))).Raw, "sensor-3")
	})
	t.Run("policy", func(t *testing.T) {
		encrypting(t, pkcs7.EncryptionAlgorithmAES128CBC)
		greedySCEP(t, s, newGoSCEP(t, s, posts))
	})
}

// nextMonth is a day on which a legacy switch may end.
func nextMonth() string { return time.Now().UTC().AddDate(0, 1, 0).Format(time.DateOnly) }

func goClient(t *testing.T, s *Server, wire scepTransport) {
	dir := t.TempDir()
	caps, err := wire.GetCACaps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"AES", "POSTPKIOperation", "Renewal", "SCEPStandard", "SHA-256"} {
		if !slices.Contains(strings.Fields(string(caps)), want) {
			t.Errorf("GetCACaps lacks %s: %q", want, caps)
		}
	}
	d := newGoSCEP(t, s, wire)
	if !slices.ContainsFunc(d.known, s.Root.Equal) {
		t.Errorf("GetCACert brings %d certificates, and not the root", len(d.known))
	}
	d.failure(d.ask(scep.PKCSReq, withChallenge("wrong")), scep.BadRequest)
	d.failure(d.ask(scep.PKCSReq, withChallenge("")), scep.BadRequest)
	text := oneTime(t, s)
	first := issuedBySCEP(t, s, dir, d.success(d.ask(scep.PKCSReq, withChallenge(text))).Raw, "sensor-3")

	// Once is once.
	thief := newGoSCEP(t, s, wire)
	thief.failure(thief.ask(scep.PKCSReq, withChallenge(text)), scep.BadRequest)
	// Without its certificate's signature a device renews nothing.
	d.failure(d.ask(scep.RenewalReq, withChallenge("")), scep.BadRequest)

	// The libraries sign with SHA-1, which authorises a renewal only where a switch says so. The same key, then a new one.
	d.signer = first
	d.failure(d.ask(scep.RenewalReq, withChallenge("")), scep.BadAlg)
	s.MustCLI("point", "set", "--legacy", "sha1Renewal="+nextMonth())
	defer s.MustCLI("point", "set", "--legacy", "sha1Renewal=off")
	second := issuedBySCEP(t, s, dir, d.success(d.ask(scep.RenewalReq, withChallenge(""))).Raw, "sensor-3")
	d.signer, d.sign = second, d.key
	d.key = newGoSCEP(t, s, wire).key
	third := issuedBySCEP(t, s, dir, d.success(d.ask(scep.RenewalReq, withChallenge(""))).Raw, "sensor-3")
	if first.SerialNumber.Cmp(second.SerialNumber) == 0 || second.SerialNumber.Cmp(third.SerialNumber) == 0 {
		t.Error("a renewal brought the same certificate")
	}

	// A request that waits.
	s.MustCLI("point", "set", "--approval")
	defer s.MustCLI("point", "set", "--approval=false")
	for _, approve := range []bool{true, false} {
		d.fresh()
		m := d.message(scep.PKCSReq, withChallenge(oneTime(t, s)))
		for range 2 {
			if got := d.send(m); got.PKIStatus != scep.PENDING {
				t.Fatalf("%s; want PENDING", outcome(got))
			}
		}
		list, _, err := s.Client.Enrollments(t.Context(), client.EnrollmentQuery{State: "pending"})
		if err != nil || len(list) != 1 {
			t.Fatalf("waiting: %v, %v", list, err)
		}
		if !approve {
			if _, err := s.Client.DenyEnrollment(t.Context(), list[0].ID, "not one of ours"); err != nil {
				t.Fatal(err)
			}
			d.failure(d.send(m), scep.BadRequest)
			continue
		}
		if _, err := s.Client.ApproveEnrollment(t.Context(), list[0].ID); err != nil {
			t.Fatal(err)
		}
		issuedBySCEP(t, s, dir, d.success(d.send(m)).Raw, "sensor-3")
	}
}

func scepExtension(id asn1.ObjectIdentifier, value any) pkix.Extension {
	raw, err := asn1.Marshal(value)
	if err != nil {
		panic(err)
	}
	return pkix.Extension{Id: id, Value: raw}
}

// greedySCEP asks for more than it may have: it is refused, or gets what the profile says and nothing else. OpenSSL and
// zlint are silent about what comes out.
func greedySCEP(t *testing.T, s *Server, d *goSCEP) {
	Need(t, "openssl")
	h := chainOf(t, s)
	dir := t.TempDir()
	var (
		oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}
		oidBasic    = asn1.ObjectIdentifier{2, 5, 29, 19}
		oidPolicies = asn1.ObjectIdentifier{2, 5, 29, 32}
		oidEKU      = asn1.ObjectIdentifier{2, 5, 29, 37}
		oidComment  = asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 13}
		clientAuth  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
		serverAuth  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
		ocspSigning = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}
	)
	greedy := func(text string, extensions ...pkix.Extension) x509util.CertificateRequest {
		r := withChallenge(text)
		r.Subject.CommonName, r.DNSNames, r.ExtraExtensions = "sensor-4", []string{"sensor-4.example.com"}, extensions
		return r
	}
	text := oneTime(t, s)
	for name, e := range map[string]pkix.Extension{
		"a CA":               scepExtension(oidBasic, struct{ CA bool }{true}),
		"a server":           scepExtension(oidEKU, []asn1.ObjectIdentifier{clientAuth, serverAuth}),
		"an OCSP responder":  scepExtension(oidEKU, []asn1.ObjectIdentifier{ocspSigning}),
		"everything, by EKU": scepExtension(oidEKU, []asn1.ObjectIdentifier{{2, 5, 29, 37, 0}}),
	} {
		t.Run(name, func(t *testing.T) {
			own := *d
			own.t = t
			own.failure(own.ask(scep.PKCSReq, greedy(text, e)), scep.BadRequest)
		})
	}
	check := func(raw []byte, want ...string) {
		t.Helper()
		c := issuedBySCEP(t, s, dir, raw, "sensor-4")
		// An RSA device needs keyEncipherment, to which SCEP encrypts its answers. RFC 5280, Section 4.2.1.12, lists it for
		// servers only.
		checkLeaf(t, s, h, c, "e_key_usage_and_extended_key_usage_inconsistent")
		if got := names(c); !sameSet(got, want) {
			t.Errorf("names: got %v, want %v", got, want)
		}
		if len(c.Subject.Names) != 1 {
			t.Errorf("subject %v, want the common name alone", c.Subject)
		}
		file := filepath.Join(dir, "greedy.pem")
		writeFile(t, file, pemOf(c))
		if r := try(t, "openssl", "x509", "-in", file, "-noout", "-text"); r.Code != 0 || r.Err != "" {
			t.Errorf("openssl x509: %s", r.Err)
		}
		if r := h.opensslVerify(t, file, "sslclient"); r.Code != 0 || r.Err != "" {
			t.Errorf("openssl verify: %s%s", r.Out, r.Err)
		}
		for _, purpose := range []string{"sslserver", "smimesign"} {
			if r := h.opensslVerify(t, file, purpose); r.Code == 0 {
				t.Errorf("openssl finds it good for %s", purpose)
			}
		}
	}
	more := []pkix.Extension{
		scepExtension(oidKeyUsage, asn1.BitString{Bytes: []byte{0x06}, BitLength: 7}), // keyCertSign, cRLSign
		scepExtension(oidPolicies, []struct{ ID asn1.ObjectIdentifier }{{asn1.ObjectIdentifier{1, 2, 3, 4}}}),
		{Id: oidComment, Value: []byte{0x16, 2, 'n', 'o'}},
	}
	check(d.success(d.ask(scep.PKCSReq, greedy(text, more...))).Raw, "DNS:sensor-4.example.com")

	// A challenge that is for one device brings its names, and no others.
	bound, err := s.Client.CreateChallenge(t.Context(), client.CreateChallengeRequest{Subject: "CN=sensor-4", SANs: []string{"DNS:sensor-4.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	d.fresh()
	r := greedy(bound.Challenge, more...)
	r.DNSNames = append(r.DNSNames, "www.example.com")
	d.failure(d.ask(scep.PKCSReq, r), scep.BadRequest)
	r = greedy(bound.Challenge, more...)
	r.Subject.Organization = []string{"Somebody"}
	d.failure(d.ask(scep.PKCSReq, r), scep.BadRequest)
	check(d.success(d.ask(scep.PKCSReq, greedy(bound.Challenge, more...))).Raw, "DNS:sensor-4.example.com")
}
