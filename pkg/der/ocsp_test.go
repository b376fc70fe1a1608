package der_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/crypto/ocsp"
	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/der"
)

// responder is an issuing CA, a delegate of it and the delegate's template.
type responder struct {
	ca, delegate *x509.Certificate
	key          crypto.Signer
	template     *der.OCSPTemplate
}

func newResponder(t testing.TB) *responder {
	t.Helper()
	raw := goldens(t)
	ca, err := x509.ParseCertificate(raw["issuing-ca"])
	if err != nil {
		t.Fatal(err)
	}
	delegate, err := x509.ParseCertificate(raw["ocsp-delegate"])
	if err != nil {
		t.Fatal(err)
	}
	key := p256(t)
	template, err := der.NewOCSPTemplate(der.OCSPConfig{
		SignatureAlgorithm:     algorithmOf(t, key),
		ResponderPublicKeyInfo: delegate.RawSubjectPublicKeyInfo,
		Certificates:           [][]byte{delegate.Raw},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &responder{ca, delegate, key, template}
}

func (r *responder) certID(t testing.TB, hash crypto.Hash, serial []byte) []byte {
	t.Helper()
	keyHash, err := der.PublicKeyHash(hash, r.ca.RawSubjectPublicKeyInfo)
	if err != nil {
		t.Fatal(err)
	}
	h := hash.New()
	h.Write(r.ca.RawSubject)
	id, err := der.AppendCertID(nil, &der.CertID{Hash: hash, IssuerNameHash: h.Sum(nil), IssuerKeyHash: keyHash, SerialNumber: serial})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (r *responder) answer(t testing.TB, d *der.ResponseData) []byte {
	t.Helper()
	data, err := r.template.AppendResponseData(nil, d)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := r.template.SignatureAlgorithm().Sign(rand.Reader, r.key, data)
	if err != nil {
		t.Fatal(err)
	}
	return r.template.AppendOCSPResponse(nil, data, signature)
}

// responseExtensions digs out what x/crypto/ocsp does not return.
func responseExtensions(t testing.TB, raw []byte) []pkix.Extension {
	t.Helper()
	var response struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type  asn1.ObjectIdentifier
			Basic []byte
		} `asn1:"explicit,tag:0"`
	}
	var basic struct {
		Data struct {
			ResponderID asn1.RawValue
			ProducedAt  time.Time `asn1:"generalized"`
			Responses   []asn1.RawValue
			Extensions  []pkix.Extension `asn1:"explicit,tag:1,optional"`
		}
		Algorithm    pkix.AlgorithmIdentifier
		Signature    asn1.BitString
		Certificates []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	if rest, err := asn1.Unmarshal(raw, &response); err != nil || len(rest) > 0 {
		t.Fatalf("OCSPResponse: %v, %d octets left", err, len(rest))
	}
	if rest, err := asn1.Unmarshal(response.Bytes.Basic, &basic); err != nil || len(rest) > 0 {
		t.Fatalf("BasicOCSPResponse: %v, %d octets left", err, len(rest))
	}
	return basic.Data.Extensions
}

// TestOCSPAgainstXCrypto compares what x/crypto/ocsp reads from our encoding
// and from its own of the same answer, but for producedAt, where it takes the
// clock, the responderID, which it writes by name and we by key, and raw octets. Its parser also checks the signatures of answer and
// delegate.
func TestOCSPAgainstXCrypto(t *testing.T) {
	r := newResponder(t)
	keyHash, err := der.PublicKeyHash(crypto.SHA1, r.delegate.RawSubjectPublicKeyInfo)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		hash := rapid.SampledFrom([]crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512}).Draw(rt, "hash")
		single := func(serial []byte) (der.SingleResponse, ocsp.Response) {
			s := der.SingleResponse{
				CertID:     r.certID(t, hash, serial),
				Status:     rapid.SampledFrom([]der.CertStatus{der.CertStatusGood, der.CertStatusRevoked, der.CertStatusUnknown}).Draw(rt, "status"),
				ThisUpdate: start.Add(time.Duration(rapid.IntRange(-1e9, 1e9).Draw(rt, "thisUpdate")) * time.Second),
			}
			s.NextUpdate = s.ThisUpdate.Add(time.Duration(rapid.IntRange(1, 1e6).Draw(rt, "period")) * time.Second)
			x := ocsp.Response{
				SerialNumber: new(big.Int).SetBytes(serial), IssuerHash: hash,
				ThisUpdate: s.ThisUpdate, NextUpdate: s.NextUpdate, Certificate: r.delegate,
				Status: map[der.CertStatus]int{der.CertStatusGood: ocsp.Good, der.CertStatusRevoked: ocsp.Revoked, der.CertStatusUnknown: ocsp.Unknown}[s.Status],
			}
			if s.Status == der.CertStatusRevoked {
				s.RevocationTime = start.Add(time.Duration(rapid.IntRange(-1e9, 1e9).Draw(rt, "revoked")) * time.Second)
				s.Reason = rapid.SampledFrom([]int{0, 1, 2, 3, 4, 5, 6, 8, 9, 10}).Draw(rt, "reason")
				x.RevokedAt, x.RevocationReason = s.RevocationTime, s.Reason
			}
			return s, x
		}
		d := der.ResponseData{ProducedAt: start}
		var templates []ocsp.Response
		for i := range rapid.IntRange(1, 4).Draw(rt, "responses") {
			s, x := single([]byte{0x41, byte(i + 1)})
			d.Responses, templates = append(d.Responses, s), append(templates, x)
		}
		if rapid.Bool().Draw(rt, "with nonce") {
			d.Nonce = der.AppendOctetString(nil, rapid.SliceOfN(rapid.Byte(), 1, 128).Draw(rt, "nonce"))
		}
		raw := r.answer(t, &d)

		extensions := responseExtensions(t, raw)
		if d.Nonce == nil && len(extensions) != 0 {
			rt.Fatalf("got extensions %v, want none", extensions)
		}
		if d.Nonce != nil && (len(extensions) != 1 || extensions[0].Id.String() != "1.3.6.1.5.5.7.48.1.2" || !bytes.Equal(extensions[0].Value, d.Nonce)) {
			rt.Fatalf("got extensions %v, want the nonce %x", extensions, d.Nonce)
		}
		for _, x := range templates {
			// Serial is all ParseResponseForCert looks at.
			got, err := ocsp.ParseResponseForCert(raw, &x509.Certificate{SerialNumber: x.SerialNumber}, r.ca)
			if err != nil {
				rt.Fatalf("ours does not parse: %v\n%x", err, raw)
			}
			if !got.ProducedAt.Equal(start) {
				rt.Fatalf("ProducedAt: got %v, want %v", got.ProducedAt, start)
			}
			theirs, err := ocsp.CreateResponse(r.ca, r.delegate, x, r.key)
			if err != nil {
				rt.Fatal(err)
			}
			want, err := ocsp.ParseResponseForCert(theirs, nil, r.ca)
			if err != nil {
				rt.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(ocsp.Response{}, "Raw", "ProducedAt", "TBSResponseData", "Signature", "Certificate",
				"RawResponderName", "ResponderKeyHash"),
				cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 })); diff != "" {
				rt.Fatalf("x/crypto/ocsp (-) and ours (+):\n%s", diff)
			}
			if !bytes.Equal(got.ResponderKeyHash, keyHash) {
				rt.Fatalf("responderID: got %x, want %x", got.ResponderKeyHash, keyHash)
			}
			if !got.Certificate.Equal(r.delegate) {
				rt.Fatal("the delegate's certificate is not embedded")
			}
		}
	})
}

func TestOCSPErrors(t *testing.T) {
	for raw, want := range map[string]ocsp.ResponseStatus{
		der.OCSPMalformedRequest: ocsp.Malformed,
		der.OCSPInternalError:    ocsp.InternalError,
		der.OCSPTryLater:         ocsp.TryLater,
		der.OCSPSigRequired:      ocsp.SignatureRequired,
		der.OCSPUnauthorized:     ocsp.Unauthorized,
	} {
		_, err := ocsp.ParseResponse([]byte(raw), nil)
		if got, ok := err.(ocsp.ResponseError); !ok || got.Status != want {
			t.Errorf("%x: got %v, want %v", raw, err, want)
		}
	}
}

// TestOCSPOpenSSL answers a request that OpenSSL made, nonce and all, and lets
// it verify the answer against the chain.
func TestOCSPOpenSSL(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	r := newResponder(t)
	dir := t.TempDir()
	golden := func(file string) string { return filepath.Join("testdata", "golden", file+".pem") }
	requestFile, answerFile := filepath.Join(dir, "request.der"), filepath.Join(dir, "answer.der")
	if out, err := exec.Command(path, "ocsp", "-sha256", "-issuer", golden("issuing-ca"), "-cert", golden("server"),
		"-reqout", requestFile).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rawRequest, err := os.ReadFile(requestFile)
	if err != nil {
		t.Fatal(err)
	}
	var request struct {
		TBS struct {
			Requests   []struct{ CertID asn1.RawValue }
			Extensions []pkix.Extension `asn1:"explicit,tag:2,optional"`
		}
	}
	if _, err := asn1.Unmarshal(rawRequest, &request); err != nil {
		t.Fatal(err)
	}
	answer := r.answer(t, &der.ResponseData{
		ProducedAt: start,
		Responses: []der.SingleResponse{{
			CertID: request.TBS.Requests[0].CertID.FullBytes, Status: der.CertStatusRevoked,
			RevocationTime: start.Add(-time.Hour), Reason: 1, ThisUpdate: start, NextUpdate: start.AddDate(50, 0, 0),
		}},
		Nonce: request.TBS.Extensions[0].Value,
	})
	if err := os.WriteFile(answerFile, answer, 0o600); err != nil {
		t.Fatal(err)
	}
	chain := filepath.Join(dir, "chain.pem")
	var pems []byte
	for _, file := range []string{"root", "issuing-ca"} {
		pems = append(pems, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: goldens(t)[file]})...)
	}
	if err := os.WriteFile(chain, pems, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "ocsp", "-issuer", golden("issuing-ca"), "-cert", golden("server"), "-reqin", requestFile,
		"-respin", answerFile, "-CAfile", chain, "-attime", strconv.FormatInt(start.Add(time.Hour).Unix(), 10), "-resp_text", "-no_nonce",
		"-validity_period", "3153600000").CombinedOutput()
	text := string(out)
	for _, want := range []string{"Response verify OK", "revoked", "Reason: keyCompromise", "Responder Id: ", "OCSP Nonce"} {
		if !strings.Contains(text, want) {
			t.Errorf("openssl does not print %q (%v):\n%s", want, err, text)
		}
	}
	if strings.Contains(text, "Nonce Verify error") || strings.Contains(text, "no nonce in response") {
		t.Errorf("openssl refuses the nonce:\n%s", text)
	}
}

func TestOCSPRefuses(t *testing.T) {
	r := newResponder(t)
	spki := r.delegate.RawSubjectPublicKeyInfo
	for name, c := range map[string]der.OCSPConfig{
		"no algorithm":    {ResponderPublicKeyInfo: spki},
		"no key":          {SignatureAlgorithm: algorithmOf(t, r.key)},
		"bad certificate": {SignatureAlgorithm: algorithmOf(t, r.key), ResponderPublicKeyInfo: spki, Certificates: [][]byte{{1}}},
	} {
		_, err := der.NewOCSPTemplate(c)
		wantValueError(t, err, name)
	}
	for name, id := range map[string]der.CertID{
		"no hash":    {SerialNumber: []byte{1}},
		"MD5":        {Hash: crypto.MD5, IssuerNameHash: make([]byte, 16), IssuerKeyHash: make([]byte, 16), SerialNumber: []byte{1}},
		"short hash": {Hash: crypto.SHA1, IssuerNameHash: make([]byte, 20), IssuerKeyHash: make([]byte, 19), SerialNumber: []byte{1}},
		"no serial":  {Hash: crypto.SHA1, IssuerNameHash: make([]byte, 20), IssuerKeyHash: make([]byte, 20)},
	} {
		_, err := der.AppendCertID(nil, &id)
		wantValueError(t, err, name)
	}
	_, err := der.PublicKeyHash(crypto.MD5, spki)
	wantValueError(t, err, "MD5 of a key")
	_, err = der.PublicKeyHash(crypto.SHA1, nil)
	wantValueError(t, err, "hash of no key")

	for name, change := range map[string]func(*der.ResponseData){
		"no responses":       func(d *der.ResponseData) { d.Responses = nil },
		"no producedAt year": func(d *der.ResponseData) { d.ProducedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"empty nonce":        func(d *der.ResponseData) { d.Nonce = []byte{} },
		"long nonce":         func(d *der.ResponseData) { d.Nonce = make([]byte, 132) },
		"no status":          func(d *der.ResponseData) { d.Responses[0].Status = 0 },
		"no CertID":          func(d *der.ResponseData) { d.Responses[0].CertID = nil },
		"CertID and more":    func(d *der.ResponseData) { d.Responses[0].CertID = append(d.Responses[0].CertID, 0) },
		"reason 7":           func(d *der.ResponseData) { d.Responses[0].Reason = 7 },
		"revocationTime":     func(d *der.ResponseData) { d.Responses[0].RevocationTime = start.Add(1) },
		"thisUpdate":         func(d *der.ResponseData) { d.Responses[0].ThisUpdate = start.Add(1) },
		"nextUpdate":         func(d *der.ResponseData) { d.Responses[0].NextUpdate = start.Add(time.Hour + 1) },
		"updates swapped":    func(d *der.ResponseData) { d.Responses[0].NextUpdate = start.Add(-time.Hour) },
	} {
		d := der.ResponseData{ProducedAt: start, Responses: []der.SingleResponse{{
			CertID: r.certID(t, crypto.SHA1, []byte{1}), Status: der.CertStatusRevoked, RevocationTime: start,
			Reason: 1, ThisUpdate: start, NextUpdate: start.Add(time.Hour),
		}}}
		change(&d)
		_, err := r.template.AppendResponseData(nil, &d)
		wantValueError(t, err, name)
	}
}

// TestOCSPWithoutCertificates leaves certs out, as RFC 6960 allows when the
// client knows the responder.
func TestOCSPWithoutCertificates(t *testing.T) {
	r := newResponder(t)
	key := fixedKey(t, elliptic.P256(), 4) // the issuing CA itself
	template, err := der.NewOCSPTemplate(der.OCSPConfig{SignatureAlgorithm: algorithmOf(t, key), ResponderPublicKeyInfo: r.ca.RawSubjectPublicKeyInfo})
	if err != nil {
		t.Fatal(err)
	}
	own := &responder{ca: r.ca, key: key, template: template}
	raw := own.answer(t, &der.ResponseData{ProducedAt: start, Responses: []der.SingleResponse{{
		CertID: r.certID(t, crypto.SHA1, []byte{1}), Status: der.CertStatusGood, ThisUpdate: start,
	}}})
	got, err := ocsp.ParseResponse(raw, r.ca)
	if err != nil {
		t.Fatal(err)
	}
	if got.Certificate != nil || got.Status != ocsp.Good || !got.NextUpdate.IsZero() {
		t.Errorf("got certificate %v, status %d, nextUpdate %v; want none, good, none", got.Certificate, got.Status, got.NextUpdate)
	}
	if s := der.CertStatusGood.String() + der.CertStatusRevoked.String() + der.CertStatusUnknown.String(); s != "goodrevokedunknown" {
		t.Errorf("String: got %s", s)
	}
}

func FuzzOCSP(f *testing.F) {
	r := newResponder(f)
	f.Add(r.certID(f, 3, []byte{0x41}), uint8(0xa1), int64(1793534400), 1, int64(1793534400), int64(1793538000), []byte{4, 1, 9})
	f.Add([]byte{0x30, 0}, uint8(0), int64(-1<<62), 7, int64(1<<62), int64(0), []byte(nil))
	f.Fuzz(func(t *testing.T, certID []byte, status uint8, revoked int64, reason int, this, next int64, nonce []byte) {
		id := r.certID(t, 3, []byte{0x41})
		d := der.ResponseData{ProducedAt: start, Nonce: nonce, Responses: []der.SingleResponse{{
			CertID: certID, Status: der.CertStatus(status), RevocationTime: time.Unix(revoked, 0), Reason: reason,
			ThisUpdate: time.Unix(this, 0), NextUpdate: time.Unix(next, 0),
		}}}
		data, err := r.template.AppendResponseData(nil, &d)
		if refused(t, err) {
			return
		}
		// What is inside a CertID is the requester's; with a known one the whole
		// must parse.
		if !bytes.Equal(certID, id) {
			var whole asn1.RawValue
			if rest, err := asn1.Unmarshal(data, &whole); err != nil || len(rest) != 0 {
				t.Fatalf("accepted, but does not parse: %v\n%x", err, data)
			}
			return
		}
		signature, err := r.template.SignatureAlgorithm().Sign(nil, r.key, data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ocsp.ParseResponse(r.template.AppendOCSPResponse(nil, data, signature), r.ca)
		if err != nil {
			t.Fatalf("accepted, but does not parse: %v\n%x", err, data)
		}
		if got.ThisUpdate.Unix() != this || got.NextUpdate.Unix() != next {
			t.Fatalf("reads differently: %x", data)
		}
	})
}

func ocspAnswer(b *testing.B, r *responder) *der.ResponseData {
	return &der.ResponseData{
		ProducedAt: start,
		Responses: []der.SingleResponse{{
			CertID: r.certID(b, crypto.SHA1, bytes.Repeat([]byte{0x41}, 16)), Status: der.CertStatusRevoked,
			RevocationTime: start.Add(-time.Hour), Reason: 1, ThisUpdate: start, NextUpdate: start.Add(10 * time.Minute),
		}},
		Nonce: der.AppendOctetString(nil, make([]byte, 32)),
	}
}

func BenchmarkOCSPResponseData(b *testing.B) {
	r := newResponder(b)
	d := ocspAnswer(b, r)
	buffer := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.template.AppendResponseData(buffer, d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOCSPResponse(b *testing.B) {
	r := newResponder(b)
	d := ocspAnswer(b, r)
	b.ReportAllocs()
	for b.Loop() {
		r.answer(b, d)
	}
}

func BenchmarkOCSPResponseXCrypto(b *testing.B) {
	r := newResponder(b)
	x := ocsp.Response{
		Status: ocsp.Revoked, SerialNumber: new(big.Int).SetBytes(bytes.Repeat([]byte{0x41}, 16)), Certificate: r.delegate,
		ThisUpdate: start, NextUpdate: start.Add(10 * time.Minute), RevokedAt: start.Add(-time.Hour), RevocationReason: 1, IssuerHash: crypto.SHA1,
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ocsp.CreateResponse(r.ca, r.delegate, x, r.key); err != nil {
			b.Fatal(err)
		}
	}
}
