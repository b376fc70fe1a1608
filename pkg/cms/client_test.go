package cms_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/cms"
)

// What real clients send. testdata/clients holds their messages, recorded by -update with the server below, which is
// made of this package and nothing else; testdata/ra.pem is the key they are encrypted to, and its certificate.

var update = flag.Bool("update", false, "record messages of strongSwan and certmonger in testdata/clients")

// authority is a CA with an RA, just enough for a client to go through with an enrollment.
type authority struct {
	t     testing.TB
	ca    identity
	ra    identity
	url   string
	mu    sync.Mutex
	state struct {
		caps    string
		pending int // answers PENDING so many times
		fail    bool
		csr     *x509.CertificateRequest
		serial  int64
		heard   []heard
	}
}

// heard is a message that came in.
type heard struct {
	raw     []byte
	message *cms.PKIMessage
}

// loadRA reads the RA's key and certificate.
func loadRA(t testing.TB) identity {
	t.Helper()
	b, err := os.ReadFile("testdata/ra.pem")
	if err != nil {
		t.Fatal(err)
	}
	var id identity
	for {
		var p *pem.Block
		if p, b = pem.Decode(b); p == nil {
			return id
		}
		switch p.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(p.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			id.key = key.(crypto.Signer)
		case "CERTIFICATE":
			if id.certificate, err = x509.ParseCertificate(p.Bytes); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.ca = selfSigned(t, key, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "Example CA"}
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		c.SubjectKeyId = []byte{1, 2, 3}
		c.NotBefore, c.NotAfter = time.Now().Add(-24*time.Hour), time.Now().AddDate(10, 0, 0)
	})
	_, err = os.Stat("testdata/ra.pem")
	isNew := errors.Is(err, os.ErrNotExist)
	a.ra.key = rsaKey()
	if !isNew {
		a.ra.key = loadRA(t).key
	}
	// Its issuer and serial number are the same in every run.
	a.ra.certificate = a.issue(a.ra.key.Public(), pkix.Name{CommonName: "Example RA"}, nil)
	if isNew {
		pkcs8, err := x509.MarshalPKCS8PrivateKey(a.ra.key)
		if err != nil {
			t.Fatal(err)
		}
		b := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.ra.certificate.Raw})...)
		if err := os.WriteFile("testdata/ra.pem", b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.url = server.URL + "/scep"
	return a
}

func (a *authority) issue(public crypto.PublicKey, subject pkix.Name, dnsNames []string) *x509.Certificate {
	a.t.Helper()
	a.state.serial++
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1000 + a.state.serial), Subject: subject, DNSNames: dnsNames,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, SubjectKeyId: []byte{byte(a.state.serial)},
	}, a.ca.certificate, public, a.ca.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch r.URL.Query().Get("operation") {
	case "GetCACaps":
		_, _ = io.WriteString(w, a.state.caps)
	case "GetCACert":
		w.Header().Set("Content-Type", "application/x-x509-ca-ra-cert")
		_, _ = w.Write(cms.CertificatesOnly(a.ra.certificate.Raw, a.ca.certificate.Raw))
	case "PKIOperation":
		raw, err := io.ReadAll(r.Body)
		if r.Method == http.MethodGet {
			raw, err = base64.StdEncoding.DecodeString(r.URL.Query().Get("message"))
		}
		var answer []byte
		if err == nil {
			answer, err = a.answer(raw)
		}
		if err != nil {
			a.t.Errorf("%s %s: %v", r.Method, r.URL, err)
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-pki-message")
		_, _ = w.Write(answer)
	default:
		http.NotFound(w, r)
	}
}

func (a *authority) answer(raw []byte) ([]byte, error) {
	m, err := cms.ParsePKIMessage(raw, cms.Limits{})
	if err != nil {
		return nil, err
	}
	device, err := m.Verify(cms.VerifyOptions{})
	if err != nil {
		return nil, err
	}
	a.state.heard = append(a.state.heard, heard{raw, m})
	r, err := cms.NewRecipient(a.ra.certificate, a.ra.key.(crypto.Decrypter))
	if err != nil {
		return nil, err
	}
	e, err := cms.ParseEnvelopedData(m.Signed.Content, cms.Limits{})
	if err != nil {
		return nil, err
	}
	content, err := e.Decrypt(r, cms.DecryptOptions{})
	if err != nil {
		return nil, err
	}
	rep := cms.PKIMessageConfig{
		TransactionID: m.TransactionID, MessageType: cms.CertRep, RecipientNonce: m.SenderNonce, Digest: m.Digest(),
	}
	switch m.MessageType {
	case cms.PKCSReq, cms.RenewalReq:
		if a.state.csr, err = x509.ParseCertificateRequest(content); err != nil {
			return nil, err
		}
	case cms.CertPoll:
	default:
		return nil, fmt.Errorf("message type %v", m.MessageType)
	}
	switch {
	case a.state.fail:
		rep.PKIStatus, rep.FailInfo, rep.FailInfoText = cms.Failure, cms.BadRequest, "no"
	case a.state.pending > 0:
		a.state.pending--
		rep.PKIStatus = cms.Pending
	default:
		c := a.issue(a.state.csr.PublicKey, a.state.csr.Subject, a.state.csr.DNSNames)
		rep.Envelope, err = cms.Encrypt(cms.CertificatesOnly(c.Raw), device, cms.Encryption{Cipher: e.Cipher, KeyTransport: e.KeyTransport(r)})
		if err != nil {
			return nil, err
		}
	}
	signer, err := cms.NewSigner(a.ra.certificate, a.ra.key)
	if err != nil {
		return nil, err
	}
	return signer.SignPKIMessage(rep)
}

// record takes the messages heard since the last call; with -update it keeps them.
func (a *authority) record(name string, want ...cms.MessageType) []heard {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	got := a.state.heard
	a.state.heard = nil
	var types []cms.MessageType
	for _, h := range got {
		types = append(types, h.message.MessageType)
	}
	if fmt.Sprint(types) != fmt.Sprint(want) {
		a.t.Errorf("%s: the client sent %v, want %v", name, types, want)
	}
	if *update {
		for i, h := range got {
			file := fmt.Sprintf("testdata/clients/%s-%d-%v.der", name, i+1, h.message.MessageType)
			if err := os.WriteFile(file, h.raw, 0o600); err != nil {
				a.t.Fatal(err)
			}
		}
	}
	return got
}

const goodCaps = "AES\nDES3\nPOSTPKIOperation\nRenewal\nSCEPStandard\nSHA-1\nSHA-256\nSHA-384\nSHA-512\n"

// clientMessages returns the recorded messages by the names of their files.
func clientMessages(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/clients/*.der")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded messages: %v", err)
	}
	messages := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		messages[strings.TrimSuffix(filepath.Base(f), ".der")] = b
	}
	return messages
}

// TestClientMessages reads what real clients have sent.
func TestClientMessages(t *testing.T) {
	t.Parallel()
	r := loadRA(t).recipient(t)
	for name, b := range clientMessages(t) {
		m, err := cms.ParsePKIMessage(b, cms.Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c, err := m.Verify(cms.VerifyOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := name[strings.LastIndex(name, "-")+1:]; m.MessageType.String() != want || !strings.Contains(c.Subject.String(), "CN=device") {
			t.Errorf("%s: %v from %v", name, m.MessageType, c.Subject)
		}
		e, err := cms.ParseEnvelopedData(m.Signed.Content, cms.Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		content, err := e.Decrypt(r, cms.DecryptOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.MessageType == cms.CertPoll {
			continue
		}
		csr, err := x509.ParseCertificateRequest(content)
		if err != nil || csr.Subject.CommonName != "device" {
			t.Errorf("%s: %+v, %v", name, csr, err)
			continue
		}
		// RFC 8894, Section 2.3: a self-signed certificate has the key of the request.
		sameKey := csr.PublicKey.(*rsa.PublicKey).Equal(c.PublicKey)
		if cms.IsSelfSigned(c) != sameKey {
			t.Errorf("%s: self-signed: %v, the request's key: %v", name, cms.IsSelfSigned(c), sameKey)
		}
	}
}

func TestStrongSwan(t *testing.T) {
	if _, err := exec.LookPath("pki"); err != nil {
		t.Skip("strongSwan's pki is not installed")
	}
	a := newAuthority(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, c := range map[string]*x509.Certificate{"ca.crt": a.ca.certificate, "ra.crt": a.ra.certificate} {
		if err := os.WriteFile(path(name), c.Raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(out, line string) error {
		cmd := exec.Command("pki", strings.Fields(line)...)
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		b, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("pki %s: %w\n%s", line, err, stderr.Bytes())
		}
		return os.WriteFile(path(out), b, 0o600)
	}
	for _, key := range []string{"device.key", "new.key"} {
		if err := run(key, "--gen --type rsa --size 2048"); err != nil {
			t.Fatal(err)
		}
	}
	scep := "--scep --url " + a.url + " --cacert-enc ra.crt --cacert-sig ra.crt --cacert ca.crt --interval 1 --maxpolltime 10 --dn CN=device,O=Example --san device.example.com "
	tests := []struct {
		name, flags, caps string
		pending           int
		want              []cms.MessageType
		transport         cms.KeyTransport
		cipher            cms.Cipher
		digest            crypto.Hash
	}{
		{"enroll", "--in device.key --password secret", goodCaps, 1, []cms.MessageType{cms.PKCSReq, cms.CertPoll}, cms.KeyTransport{}, cms.AES128CBC, crypto.SHA256},
		{"renew", "--in new.key --cert device.crt --key device.key", goodCaps, 0, []cms.MessageType{cms.RenewalReq}, cms.KeyTransport{}, cms.AES128CBC, crypto.SHA256},
		{"get", "--in device.key --password secret", "AES\nDES3\nSHA-256\nSHA-384\n", 0, []cms.MessageType{cms.PKCSReq}, cms.KeyTransport{}, cms.AES128CBC, crypto.SHA256},
		{"old", "--in device.key --password secret --cipher des3 --digest sha1", goodCaps, 0, []cms.MessageType{cms.PKCSReq}, cms.KeyTransport{}, cms.DES3CBC, crypto.SHA1},
		{"sha384", "--in device.key --password secret --digest sha384", goodCaps, 0, []cms.MessageType{cms.PKCSReq}, cms.KeyTransport{}, cms.AES128CBC, crypto.SHA384},
		{"sha512", "--in device.key --password secret --digest sha512", goodCaps, 0, []cms.MessageType{cms.PKCSReq}, cms.KeyTransport{}, cms.AES128CBC, crypto.SHA512},
		{"pss", "--in device.key --password secret --rsa-padding pss", goodCaps, 0, []cms.MessageType{cms.PKCSReq}, cms.KeyTransport{}, cms.AES128CBC, crypto.SHA256},
	}
	for _, tt := range tests {
		a.mu.Lock()
		a.state.caps, a.state.pending = tt.caps, tt.pending
		a.mu.Unlock()
		if err := run("device.crt", scep+tt.flags); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		b, err := os.ReadFile(path("device.crt"))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := x509.ParseCertificate(b); err != nil || c.Subject.CommonName != "device" {
			t.Errorf("%s: strongSwan wrote %x, %v", tt.name, b, err)
		}
		for _, h := range a.record("strongswan-"+tt.name, tt.want...) {
			e, err := cms.ParseEnvelopedData(h.message.Signed.Content, cms.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if h.message.Digest() != tt.digest || e.Cipher != tt.cipher {
				t.Errorf("%s: %v, %v, want %v, %v", tt.name, h.message.Digest(), e.Cipher, tt.digest, tt.cipher)
			}
		}
	}
	a.mu.Lock()
	a.state.fail = true
	a.mu.Unlock()
	if err := run("device.crt", scep+"--in device.key --password wrong"); err == nil || !strings.Contains(err.Error(), "badRequest") {
		t.Errorf("a failure: %v, want badRequest in it", err)
	}
	a.record("strongswan-failure", cms.PKCSReq)
}

func TestCertmonger(t *testing.T) {
	if !*update {
		t.Skip("takes 16 seconds, to record messages with -update; pkg/scep enrolls certmonger in every run")
	}
	for _, program := range []string{"certmonger", "getcert", "dbus-run-session"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	a := newAuthority(t)
	a.state.caps = goodCaps
	dir := t.TempDir()
	for _, d := range []string{"config", "requests", "cas", "local"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.ca.certificate.Raw}))
	write("ra.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.ra.certificate.Raw}))
	write("challenge", []byte("secret"))
	write("config/certmonger.conf", []byte("[defaults]\nnotification_method = stdout\n"))
	write("run", []byte(`set -e
certmonger -s -n -d 3 >certmonger.log 2>&1 &
daemon=$!
trap 'kill $daemon; wait $daemon || true' EXIT
for i in $(seq 100); do getcert list -s >/dev/null 2>&1 && break; sleep 0.1; done
getcert add-scep-ca -s -c scep -u "$URL" -N "$PWD/ca.pem" -r "$PWD/ra.pem"
for i in $(seq 100); do getcert list-cas -s -c scep | grep -q 'SCEP CA' && break; sleep 0.1; done
getcert request -s -w -I device -c scep -f "$PWD/device.crt" -k "$PWD/device.key" -N CN=device -D device.example.com -l "$PWD/challenge"
getcert list -s
getcert rekey -s -w -i device || getcert resubmit -s -w -i device
getcert list -s
`))
	cmd := exec.Command("timeout", "60", "dbus-run-session", "--", "bash", "-x", "run")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "URL="+a.url,
		"CERTMONGER_CONFIG_DIR="+filepath.Join(dir, "config"), "CERTMONGER_REQUESTS_DIR="+filepath.Join(dir, "requests"),
		"CERTMONGER_CAS_DIR="+filepath.Join(dir, "cas"), "CERTMONGER_LOCAL_CA_DIR="+filepath.Join(dir, "local"))
	out, err := cmd.CombinedOutput()
	log, _ := os.ReadFile(filepath.Join(dir, "certmonger.log"))
	if err != nil {
		t.Fatalf("certmonger: %v\n%s\n%s", err, out, log)
	}
	a.record("certmonger", cms.PKCSReq, cms.PKCSReq) // it renews with PKCSReq
}
