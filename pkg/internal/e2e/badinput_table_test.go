package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certwright/certwright/pkg/client"
)

// badCSR is a request of which every part may be wrong. The zero value is a good one for bad.example.com.
type badCSR struct {
	key        crypto.Signer // nil is a new P-256 key
	subject    func(*cryptobyte.Builder)
	extensions func(*cryptobyte.Builder) // contents of the extension request; nil has none
	attributes func(*cryptobyte.Builder) // more attributes
	spoil      func(der []byte) []byte   // the whole request, after it was signed
}

var (
	oidCN        = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSAN       = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasic     = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidPurposes  = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidExtReq    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidChallenge = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
)

// der returns the request.
func (c badCSR) der(t testing.TB) []byte {
	t.Helper()
	key := c.key
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	subject := c.subject
	if subject == nil {
		subject = cn(cbasn1.UTF8String, "bad.example.com")
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddASN1(cbasn1.SEQUENCE, subject)
		b.AddBytes(spki)
		b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			if c.extensions != nil {
				attribute(b, oidExtReq, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, c.extensions) })
			}
			if c.attributes != nil {
				c.attributes(b)
			}
		})
	})
	tbs := b.BytesOrPanic()
	digest := sha256.Sum256(tbs)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	algorithm := asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	_, isRSA := key.(*rsa.PrivateKey)
	if isRSA {
		algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	}
	var whole cryptobyte.Builder
	whole.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(algorithm)
			if isRSA {
				b.AddASN1NULL()
			}
		})
		b.AddASN1BitString(signature)
	})
	out := whole.BytesOrPanic()
	if c.spoil != nil {
		out = c.spoil(out)
	}
	return out
}

func (c badCSR) text(t testing.TB) string { return csrText(c.der(t)) }

func csrText(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func cn(tag cbasn1.Tag, value string) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidCN)
				b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
			})
		})
	}
}

func noSubject(*cryptobyte.Builder) {}

func attribute(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, value func(*cryptobyte.Builder)) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(cbasn1.SET, value)
	})
}

func extension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, value func(*cryptobyte.Builder)) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, value) })
	})
}

// sanOf asks for one alternative name: 2 is a DNS name, 7 an IP address (RFC 5280, Section 4.2.1.6).
func sanOf(tag uint8, value string) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		extension(b, oidSAN, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.Tag(tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
		})
	}
}

func challenge(secret string) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		attribute(b, oidChallenge, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(secret)) })
		})
	}
}

// badInput is a server with somebody of each kind, and certificates in each state.
type badInput struct {
	*Server
	http    *http.Client
	http1   *http.Client // speaks HTTP/1.1 only: over HTTP/2 Go's client tries refused paths again for a minute
	tokens  map[string]string
	certs   map[string]client.Certificate // by what is special about them
	request string                        // good
	secrets []string                      // never to be seen in an answer or in the log
}

const badMarker = "Hunter2Zx9Secret" // in values that are nobody's business

func newBadInput(t *testing.T) *badInput {
	t.Helper()
	s := Start(t, Options{PublicURL: "http://pki.example.net", Flags: []string{"--log-level", "debug", "--name", "ca.example.net"}})
	in := &badInput{Server: s, tokens: map[string]string{"": "", "administrator": s.Token}, certs: map[string]client.Certificate{}, request: badCSR{}.text(t)}
	in.http = s.Browser(nil)
	in.http.Transport.(*http.Transport).DisableKeepAlives = false
	in.http1 = s.Browser(nil)
	only1 := in.http1.Transport.(*http.Transport)
	only1.DisableKeepAlives, only1.ForceAttemptHTTP2, only1.MaxIdleConnsPerHost = false, false, 16
	t.Cleanup(in.http.CloseIdleConnections)
	t.Cleanup(in.http1.CloseIdleConnections)
	ctx := t.Context()
	for _, r := range []client.CreateTokenRequest{
		{Name: "operator", Role: "operator"},
		{Name: "enroller", Role: "enroller"},
		{Name: "stranger", Role: "enroller"},
		{Name: "auditor", Role: "auditor"},
		{Name: "clients-only", Role: "enroller", Profiles: []string{"client"}},
		{Name: "root-only", Role: "operator", Issuers: []string{"root"}},
		{Name: "short", Role: "operator", Validity: "1s"},
		{Name: "gone", Role: "operator"},
	} {
		token, err := s.Client.CreateToken(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		in.tokens[r.Name] = token.Token
	}
	if err := s.Client.RevokeToken(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	for _, token := range in.tokens {
		if token != "" {
			in.secrets = append(in.secrets, token[len(token)-43:])
		}
	}
	in.secrets = append(in.secrets, badMarker)
	eventually(t, 10*time.Second, "the short token's end", func() error {
		if _, err := s.ClientFor(in.tokens["short"]).Profiles(ctx); err == nil {
			return errors.New("still valid")
		}
		return nil
	})
	enroller := s.ClientFor(in.tokens["enroller"])
	for _, name := range []string{"good", "revoked", "held", "compromised"} {
		c, err := enroller.Issue(ctx, client.IssueRequest{CSR: newFaultCSR(t, name+".example.com"), Profile: "server"})
		if err != nil {
			t.Fatal(err)
		}
		in.certs[name] = c
	}
	compromised := newFaultCSR(t, "stolen.example.com")
	c, err := enroller.Issue(ctx, client.IssueRequest{CSR: compromised, Profile: "server"})
	if err != nil {
		t.Fatal(err)
	}
	in.certs["stolen"] = client.Certificate{ID: c.ID, PEM: compromised}
	if _, err := s.Client.Revoke(ctx, c.ID, client.RevokeRequest{Reason: "keyCompromise"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.Revoke(ctx, in.certs["revoked"].ID, client.RevokeRequest{Reason: "superseded"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.Hold(ctx, in.certs["held"].ID); err != nil {
		t.Fatal(err)
	}
	return in
}

// send sends a request as the holder of the named token and returns status, header and body.
func (in *badInput) send(t testing.TB, who, method, path string, body []byte) (int, http.Header, []byte) {
	t.Helper()
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, in.HTTPS+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	if token, known := in.tokens[who]; known && token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	} else if !known {
		r.Header.Set("Authorization", who)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := in.http.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, res.Header, answer
}

// count returns how many certificates, tokens and audit events there are, which a refused request must not change.
func (in *badInput) count(t testing.TB) string {
	t.Helper()
	one := 1
	page, err := in.Client.ListCertificates(t.Context(), client.CertificateQuery{Count: true, Limit: one})
	if err != nil || page.Count == nil {
		t.Fatalf("counting: %v", err)
	}
	events, err := in.Client.Audit(t.Context(), client.AuditQuery{Limit: one})
	if err != nil || len(events.Events) != 1 {
		t.Fatalf("counting: %v", err)
	}
	return fmt.Sprintf("%d certificates, audit record %d", *page.Count, events.Events[0].Seq)
}

// leaks reports what of the secrets is in a text.
func (in *badInput) leaks(text string) string {
	for _, s := range in.secrets {
		if strings.Contains(text, s) {
			return s
		}
	}
	return ""
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	in := newBadInput(t)
	good, revoked, held := in.certs["good"].ID, in.certs["revoked"].ID, in.certs["held"].ID
	root, err := in.Client.Issuer(t.Context(), "root")
	if err != nil {
		t.Fatal(err)
	}
	type fields = map[string]any
	// issue is a request for a certificate of the profile server, with some fields changed; nil takes one away.
	issue := func(changes fields) []byte {
		body := fields{"csr": in.request, "profile": "server"}
		for k, v := range changes {
			if body[k] = v; v == nil {
				delete(body, k)
			}
		}
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	csr := func(c badCSR) []byte { return issue(fields{"csr": c.text(t)}) }
	old := func(name string) []byte {
		return issue(fields{"csr": string(readFile(t, filepath.Join("..", "..", "csr", "testdata", name)))})
	}
	rsaKey := func(bits int) crypto.Signer {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	smallExponent := tool(t, "openssl", "req", "-new", "-newkey", "rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=bad.example.com")
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	privateKey := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	in.secrets = append(in.secrets, strings.Split(privateKey, "\n")[1], base64.StdEncoding.EncodeToString(pkcs8)[:40])
	whole := badCSR{}.der(t)
	flipped := func(at int) func([]byte) []byte {
		return func(b []byte) []byte {
			b[(at+len(b))%len(b)] ^= 1
			return b
		}
	}
	san := func(names ...string) []byte { return issue(fields{"sans": names, "subject": ""}) }
	caRequest := badCSR{subject: cn(cbasn1.UTF8String, "Rogue CA"), extensions: func(b *cryptobyte.Builder) {
		extension(b, oidBasic, func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
	}}
	far := time.Now().AddDate(40, 0, 0).UTC().Format(time.RFC3339)

	const certs, op = "/api/v1/certificates", "operator"
	for _, row := range []struct {
		name, who, method, path string
		body                    []byte
		status                  int
		kind, text              string // text is part of the answer
	}{
		// JSON.
		{"malformed JSON", op, "POST", certs, []byte(`{"csr": "` + badMarker), 400, "bad_request", ""},
		{"no JSON", op, "POST", certs, []byte(`csr=` + badMarker), 400, "bad_request", ""},
		{"two documents", op, "POST", certs, append(issue(nil), `{"a":1}`...), 400, "bad_request", ""},
		{"an array", op, "POST", certs, []byte(`["` + badMarker + `"]`), 422, "bad_request", "object"},
		{"a string", op, "POST", certs, []byte(`"` + badMarker + `"`), 422, "bad_request", "object"},
		{"null", op, "POST", certs, []byte(`null`), 422, "bad_request", ""},
		{"nothing", op, "POST", certs, []byte(``), 400, "bad_request", "body"},
		{"invalid UTF-8", op, "POST", certs, []byte("{\"csr\": \"\xff\xfe\", \"profile\": \"server\"}"), 400, "bad_csr", ""},
		{"very deep JSON", op, "POST", certs, []byte(strings.Repeat("[", 100000)), 400, "bad_request", ""},
		{"an unknown field", op, "POST", certs, issue(fields{"sansx": badMarker}), 422, "bad_request", "body.sansx"},
		{"a misspelt case", op, "POST", certs, issue(fields{"Profile": badMarker}), 422, "bad_request", ""},
		{"csr of the wrong type", op, "POST", certs, issue(fields{"csr": []string{badMarker}}), 422, "bad_request", "body.csr"},
		{"sans of the wrong type", op, "POST", certs, issue(fields{"sans": badMarker}), 422, "bad_request", "body.sans"},
		{"validity of the wrong type", op, "POST", certs, issue(fields{"validity": 90}), 422, "bad_request", "body.validity"},
		{"a time that is none", op, "POST", certs, issue(fields{"not_after": badMarker}), 422, "bad_request", "body.not_after"},
		{"no csr", op, "POST", certs, issue(fields{"csr": nil}), 422, "bad_request", "csr"},
		{"no profile", op, "POST", certs, issue(fields{"profile": nil}), 422, "bad_request", "profile"},
		{"an empty profile", op, "POST", certs, issue(fields{"profile": ""}), 404, "not_found", "profile"},
		{"an empty csr", op, "POST", certs, issue(fields{"csr": ""}), 400, "bad_csr", "openssl req"},
		{"too many names", op, "POST", certs, issue(fields{"sans": strings.Split(strings.Repeat("a.example.com ", 501), " ")}), 422, "bad_request", "body.sans"},

		// The request for a certificate.
		{"garbage", op, "POST", certs, issue(fields{"csr": "?" + badMarker}), 400, "bad_csr", "neither PEM nor DER"},
		{"garbage in base64", op, "POST", certs, issue(fields{"csr": "AAAA"}), 400, "bad_csr", "neither DER nor PEM"},
		{"a certificate", op, "POST", certs, issue(fields{"csr": in.certs["good"].PEM}), 400, "bad_csr", "this is a certificate"},
		{"a private key", op, "POST", certs, issue(fields{"csr": privateKey}), 400, "bad_csr", "a private key came"},
		{"a private key and a request", op, "POST", certs, issue(fields{"csr": in.request + privateKey}), 400, "bad_csr", "a private key came"},
		{"two requests", op, "POST", certs, issue(fields{"csr": in.request + in.request}), 400, "bad_csr", "2 PEM blocks"},
		{"damaged PEM", op, "POST", certs, issue(fields{"csr": strings.Replace(in.request, "M", "?", 3)}), 400, "bad_csr", "damaged"},
		{"PEM without an end", op, "POST", certs, issue(fields{"csr": in.request[:len(in.request)-20]}), 400, "bad_csr", ""},
		{"truncated DER", op, "POST", certs, issue(fields{"csr": base64.StdEncoding.EncodeToString(whole[:len(whole)-9])}), 400, "bad_csr", "cut off"},
		{"DER with something behind", op, "POST", certs, issue(fields{"csr": base64.StdEncoding.EncodeToString(append(bytes.Clone(whole), 0, 0))}), 400, "bad_csr", "follow"},
		{"a broken signature", op, "POST", certs, csr(badCSR{spoil: flipped(-1)}), 400, "bad_csr", "signature"},
		{"a tampered subject", op, "POST", certs, csr(badCSR{spoil: func(b []byte) []byte { return bytes.Replace(b, []byte("bad."), []byte("bed."), 1) }}), 400, "bad_csr", "signature"},
		{"RSA-1024", op, "POST", certs, old("rsa1024.pem"), 400, "bad_public_key", "2048"},
		{"RSA with exponent 3", op, "POST", certs, issue(fields{"csr": smallExponent}), 400, "bad_public_key", "exponent"},
		{"RSA-1536", op, "POST", certs, csr(badCSR{key: rsaKey(1536)}), 400, "bad_public_key", "2048"},
		{"P-224", op, "POST", certs, csr(badCSR{key: p224}), 400, "bad_public_key", "P-256"},
		{"secp256k1", op, "POST", certs, old("secp256k1.pem"), 400, "bad_public_key", "P-256"},
		{"DSA", op, "POST", certs, old("dsa.pem"), 400, "bad_public_key", ""},
		{"an MD5 signature", op, "POST", certs, old("rsa-md5.pem"), 400, "bad_csr", "MD5"},
		{"a SHA-1 signature", op, "POST", certs, old("rsa-sha1.pem"), 400, "bad_csr", "SHA-1"},
		{"a CA's key", op, "POST", certs, csr(badCSR{spoil: func(b []byte) []byte {
			pub := parseCertificate(t, []byte(root.PEM)).RawSubjectPublicKeyInfo
			i := bytes.Index(b, pub[:26]) // the same algorithm and length
			return append(append(bytes.Clone(b[:i]), pub...), b[i+len(pub):]...)
		}}), 400, "bad_csr", "signature"},
		{"a key that was reported compromised", op, "POST", certs, issue(fields{"csr": in.certs["stolen"].PEM, "sans": []string{"new.example.com"}, "subject": ""}), 400, "bad_public_key", "blocked"},
		{"two challenge passwords", op, "POST", certs, csr(badCSR{attributes: func(b *cryptobyte.Builder) { challenge(badMarker)(b); challenge(badMarker)(b) }}), 400, "bad_csr", "two challengePassword"},
		{"two extension requests", op, "POST", certs, csr(badCSR{extensions: sanOf(2, "a.example.com"), attributes: func(b *cryptobyte.Builder) {
			attribute(b, oidExtReq, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, sanOf(2, "b.example.com")) })
		}}), 400, "bad_csr", "two extension requests"},
		{"one extension twice", op, "POST", certs, csr(badCSR{extensions: func(b *cryptobyte.Builder) {
			sanOf(2, "a.example.com")(b)
			sanOf(2, "b.example.com")(b)
		}}), 400, "bad_csr", "twice"},
		{"CA:TRUE", op, "POST", certs, csr(badCSR{extensions: caRequest.extensions}), 422, "policy_refused", "CA:TRUE"},
		{"OCSPSigning", op, "POST", certs, csr(badCSR{extensions: func(b *cryptobyte.Builder) {
			extension(b, oidPurposes, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9})
			})
		}}), 422, "policy_refused", "OCSPSigning"},
		{"NUL in the CN", op, "POST", certs, csr(badCSR{subject: cn(cbasn1.UTF8String, "good.example.com\x00.evil.example")}), 400, "bad_csr", "NUL"},
		{"an escape in the CN", op, "POST", certs, csr(badCSR{subject: cn(cbasn1.UTF8String, "a\x1b[2J"), extensions: sanOf(2, "a.example.com")}), 400, "bad_csr", "control"},
		{"text that turns around in the CN", op, "POST", certs, csr(badCSR{subject: cn(cbasn1.UTF8String, "bank\u202egpj.exe"), extensions: sanOf(2, "a.example.com")}), 400, "bad_csr", "invisible"},
		{"invalid UTF-8 in the CN", op, "POST", certs, csr(badCSR{subject: cn(cbasn1.UTF8String, "a\xff")}), 400, "bad_csr", "UTF-8"},
		{"a CN that is too long", op, "POST", certs, csr(badCSR{subject: cn(cbasn1.UTF8String, strings.Repeat("long name ", 7)), extensions: sanOf(2, "a.example.com")}), 400, "bad_csr", "64"},
		{"a CN that none of the names is", op, "POST", certs, csr(badCSR{subject: cn(cbasn1.UTF8String, "evil.example.com"), extensions: sanOf(2, "a.example.com")}), 422, "policy_refused", "none of the alternative names"},
		{"neither subject nor names", op, "POST", certs, csr(badCSR{subject: noSubject}), 422, "policy_refused", "dns or ip"},
		{"an IP address of 5 octets", op, "POST", certs, csr(badCSR{extensions: sanOf(7, "12345")}), 400, "bad_csr", "IP"},
		{"an IP address as DNS name", op, "POST", certs, csr(badCSR{subject: noSubject, extensions: sanOf(2, "192.0.2.1")}), 400, "bad_csr", "IP address"},

		// Names.
		{"a wildcard", op, "POST", certs, san("DNS:*.example.com"), 422, "policy_refused", "wildcard"},
		{"an underscore", op, "POST", certs, san("DNS:a_b.example.com"), 400, "bad_request", "_"},
		{"an address as DNS name", op, "POST", certs, san("DNS:192.0.2.1"), 400, "bad_request", "IP address"},
		{"a name with a space", op, "POST", certs, san("DNS:a b.example.com"), 400, "bad_request", ""},
		{"a name with NUL", op, "POST", certs, san("DNS:a.example.com\x00.evil"), 400, "bad_request", ""},
		{"a name with a right-to-left override", op, "POST", certs, san("DNS:a\u202eb.example.com"), 400, "bad_request", ""},
		{"a name of 300 characters", op, "POST", certs, san("DNS:" + strings.Repeat("a.", 148) + "com"), 400, "bad_request", ""},
		{"no address", op, "POST", certs, san("IP:192.0.2.256"), 400, "bad_request", "not an IP address"},
		{"an address with a zone", op, "POST", certs, san("IP:fe80::1%eth0"), 400, "bad_request", "zone"},
		{"a network", op, "POST", certs, san("IP:192.0.2.0/24"), 400, "bad_request", "not an IP address"},
		{"an unknown kind of name", op, "POST", certs, san("RID:1.2.3"), 400, "bad_request", "no kind of name"},
		{"an email address for a server", op, "POST", certs, san("email:a@example.com"), 422, "policy_refused", "email"},
		{"an empty name", op, "POST", certs, san(""), 400, "bad_request", "empty"},
		{"a name of this server", op, "POST", certs, san("DNS:pki.example.net"), 422, "policy_refused", "this server itself"},
		{"a name of this server in capitals", op, "POST", certs, san("DNS:PKI.Example.NET"), 422, "policy_refused", "this server itself"},
		{"another name of this server", op, "POST", certs, san("DNS:ca.example.net"), 422, "policy_refused", "this server itself"},
		{"a name of this server as CN of a client", op, "POST", certs, issue(fields{"profile": "client", "csr": badCSR{subject: cn(cbasn1.UTF8String, "pki.example.net")}.text(t)}), 422, "policy_refused", "this server itself"},
		{"a subject that cannot be read", op, "POST", certs, issue(fields{"subject": "nonsense"}), 400, "bad_request", "type=value"},
		{"a subject of an unknown type", op, "POST", certs, issue(fields{"subject": "XYZ=1"}), 400, "bad_request", ""},

		// Profiles and issuers.
		{"an unknown profile", op, "POST", certs, issue(fields{"profile": "nosuch"}), 404, "not_found", "there are"},
		{"an unknown issuer", op, "POST", certs, issue(fields{"issuer": "nosuch"}), 404, "not_found", "issuer"},
		{"the profile ocsp", "administrator", "POST", certs, issue(fields{"profile": "ocsp"}), 404, "not_found", "ocsp"},
		{"the profile https", "administrator", "POST", certs, issue(fields{"profile": "https"}), 404, "not_found", "https"},
		{"the profile root", "administrator", "POST", certs, issue(fields{"profile": "root"}), 404, "not_found", "root"},
		{"the profile issuing", "administrator", "POST", certs, issue(fields{"profile": "issuing"}), 404, "not_found", "issuing"},
		{"the profile ra", "administrator", "POST", certs, issue(fields{"profile": "ra"}), 404, "not_found", "ra"},
		{"a profile with a path", "administrator", "POST", certs, issue(fields{"profile": "../server"}), 404, "not_found", ""},
		{"a CA as operator", op, "POST", certs, issue(fields{"profile": "sub-ca", "issuer": "root", "csr": caRequest.text(t)}), 403, "forbidden", "administrator"},
		{"a CA below the issuing CA", "administrator", "POST", certs, issue(fields{"profile": "sub-ca", "issuer": "issuing", "csr": caRequest.text(t)}), 422, "policy_refused", "path length"},
		{"a leaf from the root", "administrator", "POST", certs, issue(fields{"issuer": "root"}), 422, "policy_refused", "CA certificates only"},

		// Validity.
		{"too long a life", op, "POST", certs, issue(fields{"validity": "10y"}), 422, "policy_refused", "at the most"},
		{"a negative life", op, "POST", certs, issue(fields{"validity": "-5h"}), 400, "bad_request", "90d"},
		{"no life", op, "POST", certs, issue(fields{"validity": "0s"}), 400, "bad_request", "90d"},
		{"nonsense for a life", op, "POST", certs, issue(fields{"validity": "soon"}), 400, "bad_request", "90d"},
		{"a life that overflows", op, "POST", certs, issue(fields{"validity": "99999999999999999999y"}), 400, "bad_request", "90d"},
		{"a life that nearly overflows", op, "POST", certs, issue(fields{"validity": "292y"}), 422, "policy_refused", "at the most"},
		{"half a second", op, "POST", certs, issue(fields{"validity": "500ms"}), 400, "bad_request", "second"},
		{"an end in the past", op, "POST", certs, issue(fields{"not_after": "2020-01-01T00:00:00Z"}), 400, "bad_request", "end before"},
		{"an end after the issuer's", op, "POST", certs, issue(fields{"not_after": far}), 422, "policy_refused", ""},
		{"an end in the year 9999", op, "POST", certs, issue(fields{"not_after": "9999-12-31T23:59:59Z"}), 422, "policy_refused", ""},
		{"a CA that outlives the root", "administrator", "POST", certs, issue(fields{"profile": "sub-ca", "issuer": "root", "not_after": far, "csr": caRequest.text(t)}), 422, "policy_refused", ""},
		{"a life and an end", op, "POST", certs, issue(fields{"validity": "1d", "not_after": far}), 400, "bad_request", "exclude"},

		// Who asks.
		{"nobody", "", "POST", certs, issue(nil), 401, "unauthenticated", "Bearer"},
		{"a made-up token", "Bearer cwt_0123456789abcdef_" + strings.Repeat("A", 43), "POST", certs, issue(nil), 401, "unauthenticated", "not valid"},
		{"a token with a wrong secret", "Bearer " + in.tokens[op][:21] + strings.Repeat("A", 43), "GET", certs, nil, 401, "unauthenticated", "not valid"},
		{"half a token", "Bearer " + in.tokens[op][:30], "GET", certs, nil, 401, "unauthenticated", "not valid"},
		{"a token with more behind", "Bearer " + in.tokens[op] + "x", "GET", certs, nil, 401, "unauthenticated", "not valid"},
		{"a password", "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:"+badMarker)), "GET", certs, nil, 401, "unauthenticated", "not understood"},
		{"an expired token", "short", "POST", certs, issue(nil), 401, "unauthenticated", "expired"},
		{"a revoked token", "gone", "POST", certs, issue(nil), 401, "unauthenticated", "revoked"},
		{"an auditor issues", "auditor", "POST", certs, issue(nil), 403, "forbidden", "enroller"},
		{"an auditor revokes", "auditor", "POST", certs + "/" + good + "/revoke", []byte(`{}`), 403, "forbidden", "operator"},
		{"an enroller revokes", "enroller", "POST", certs + "/" + good + "/revoke", []byte(`{}`), 403, "forbidden", "operator"},
		{"an enroller reads the audit", "enroller", "GET", "/api/v1/audit", nil, 403, "forbidden", "auditor"},
		{"an enroller reads another's", "stranger", "GET", certs + "/" + good, nil, 404, "not_found", "no such certificate"},
		{"an enroller downloads another's", "stranger", "GET", certs + "/" + good + "/download", nil, 404, "not_found", "no such certificate"},
		{"an enroller reads another's by serial", "stranger", "GET", "/api/v1/issuers/issuing/certificates/" + in.certs["good"].Serial, nil, 404, "not_found", "no such certificate"},
		{"a profile beyond the token", "clients-only", "POST", certs, issue(nil), 403, "forbidden", "client"},
		{"reading a profile beyond the token", "clients-only", "GET", "/api/v1/profiles/server", nil, 403, "forbidden", "client"},
		{"an issuer beyond the token", "root-only", "POST", certs, issue(nil), 403, "forbidden", "root"},
		{"a certificate beyond the token", "root-only", "POST", certs + "/" + good + "/revoke", []byte(`{}`), 404, "not_found", "no such certificate"},
		{"an operator lists tokens", op, "GET", "/api/v1/tokens", nil, 403, "forbidden", "administrator"},
		{"an operator makes a token", op, "POST", "/api/v1/tokens", []byte(`{"name":"x","role":"administrator"}`), 403, "forbidden", "administrator"},
		{"self-service with a token", op, "GET", "/api/v1/self", nil, 401, "unauthenticated", "client certificate"},

		// Ids, pages and filters.
		{"an id that is none", op, "GET", certs + "/nonsense", nil, 400, "bad_request", "64 hexadecimal"},
		{"an id that is too long", op, "GET", certs + "/" + strings.Repeat("a", 4000), nil, 422, "bad_request", "path.id"},
		{"an unknown id", op, "GET", certs + "/" + strings.Repeat("ab", 32), nil, 404, "not_found", ""},
		{"a serial that is none", op, "GET", "/api/v1/issuers/issuing/certificates/xyz", nil, 400, "bad_request", ""},
		{"an unknown serial", op, "GET", "/api/v1/issuers/issuing/certificates/4101", nil, 404, "not_found", ""},
		{"a serial of an unknown issuer", op, "GET", "/api/v1/issuers/nosuch/certificates/4101", nil, 404, "not_found", "issuer"},
		{"an unknown filter", op, "GET", certs + "?colour=" + badMarker, nil, 422, "bad_request", "colour"},
		{"an unknown status", op, "GET", certs + "?status=" + badMarker, nil, 422, "bad_request", "query.status"},
		{"an unknown issuer in a list", op, "GET", certs + "?issuer=nosuch", nil, 404, "not_found", "issuer"},
		{"a page of 0", op, "GET", certs + "?limit=0", nil, 422, "bad_request", "query.limit"},
		{"a page of a million", op, "GET", certs + "?limit=1000000", nil, 422, "bad_request", "query.limit"},
		{"a page of nonsense", op, "GET", certs + "?limit=" + badMarker, nil, 422, "bad_request", "query.limit"},
		{"a time of nonsense", op, "GET", certs + "?issued_from=" + badMarker, nil, 422, "bad_request", "query.issued_from"},
		{"a made-up cursor", op, "GET", certs + "?cursor=bWFkZS11cA", nil, 400, "bad_request", "cursor"},
		{"a cursor of nonsense", op, "GET", certs + "?cursor=%00%ff", nil, 400, "bad_request", ""},
		{"a made-up cursor of the audit", "auditor", "GET", "/api/v1/audit?cursor=bWFkZS11cA", nil, 400, "bad_request", "cursor"},
		{"SQL in a cursor", op, "GET", certs + "?cursor=%27%20OR%201%3D1--", nil, 400, "bad_request", "cursor"},
		{"a download in an unknown format", op, "GET", certs + "/" + good + "/download?format=exe", nil, 422, "bad_request", "query.format"},

		// Status.
		{"revoking what was never issued", op, "POST", certs + "/" + strings.Repeat("ab", 32) + "/revoke", []byte(`{}`), 404, "not_found", ""},
		{"revoking twice", op, "POST", certs + "/" + revoked + "/revoke", []byte(`{"reason":"superseded"}`), 409, "already_revoked", "superseded"},
		{"revoking again without a reason", op, "POST", certs + "/" + revoked + "/revoke", []byte(`{}`), 409, "already_revoked", "name the new one"},
		{"holding what is revoked", op, "POST", certs + "/" + revoked + "/hold", nil, 409, "already_revoked", "final"},
		{"holding twice", op, "POST", certs + "/" + held + "/hold", nil, 409, "conflict", "on hold since"},
		{"releasing what is good", op, "POST", certs + "/" + good + "/release", nil, 409, "conflict", "not on hold"},
		{"releasing what is revoked", op, "POST", certs + "/" + revoked + "/release", nil, 409, "already_revoked", "final"},
		{"renewing what is revoked", op, "POST", certs + "/" + revoked + "/renew", []byte(`{}`), 422, "policy_refused", "revoked"},
		{"renewing what is on hold", op, "POST", certs + "/" + held + "/renew", []byte(`{}`), 422, "policy_refused", "on hold"},
		{"renewing a CA", "administrator", "POST", certs + "/" + root.Fingerprint + "/renew", []byte(`{}`), 422, "policy_refused", ""},
		{"the reason certificateHold", op, "POST", certs + "/" + good + "/revoke", []byte(`{"reason":"certificateHold"}`), 400, "bad_revocation_reason", "on hold"},
		{"the reason removeFromCRL", op, "POST", certs + "/" + good + "/revoke", []byte(`{"reason":"removeFromCRL"}`), 400, "bad_revocation_reason", "release"},
		{"the reason cACompromise for a leaf", op, "POST", certs + "/" + good + "/revoke", []byte(`{"reason":"cACompromise"}`), 400, "bad_revocation_reason", "keyCompromise"},
		{"a reason of nonsense", op, "POST", certs + "/" + good + "/revoke", []byte(`{"reason":"boredom"}`), 400, "bad_revocation_reason", "keyCompromise"},
		{"a reason by number", op, "POST", certs + "/" + good + "/revoke", []byte(`{"reason":1}`), 422, "bad_request", "body.reason"},
		{"an invalidity date in the future", op, "POST", certs + "/" + good + "/revoke", []byte(`{"reason":"keyCompromise","invalidity_date":"` + far + `"}`), 400, "bad_request", "future"},
		{"revoking the root", "administrator", "POST", certs + "/" + root.Fingerprint + "/revoke", []byte(`{}`), 422, "policy_refused", "root"},
		{"revoking a CA as operator", op, "POST", certs + "/" + root.Fingerprint + "/revoke", []byte(`{}`), 403, "forbidden", "administrator"},

		// Tokens.
		{"the last administrator", "administrator", "DELETE", "/api/v1/tokens/admin", nil, 409, "conflict", "administrator"},
		{"a token that was revoked", "administrator", "DELETE", "/api/v1/tokens/gone", nil, 404, "not_found", ""},
		{"an unknown token", "administrator", "DELETE", "/api/v1/tokens/nosuch", nil, 404, "not_found", "token list"},
		{"a token's text in place of its name", "administrator", "DELETE", "/api/v1/tokens/" + in.tokens["auditor"], nil, 404, "not_found", "token list"},
		{"a token of an unknown role", "administrator", "POST", "/api/v1/tokens", []byte(`{"name":"x","role":"god"}`), 422, "bad_request", "body.role"},
		{"a token without a name", "administrator", "POST", "/api/v1/tokens", []byte(`{"name":"","role":"auditor"}`), 422, "bad_request", "body.name"},
		{"a token with a name like a path", "administrator", "POST", "/api/v1/tokens", []byte(`{"name":"a/b","role":"auditor"}`), 400, "bad_request", "name"},
		{"a token with a name like a log line", "administrator", "POST", "/api/v1/tokens", []byte(`{"name":"a\nlevel=ERROR","role":"auditor"}`), 400, "bad_request", "name"},
		{"a token whose name is taken", "administrator", "POST", "/api/v1/tokens", []byte(`{"name":"auditor","role":"auditor"}`), 409, "conflict", ""},
		{"a token for an unknown profile", "administrator", "POST", "/api/v1/tokens", []byte(`{"name":"x","role":"auditor","profiles":["nosuch"]}`), 404, "not_found", "profile"},
		{"a token for an unknown issuer", "administrator", "POST", "/api/v1/tokens", []byte(`{"name":"x","role":"auditor","issuers":["nosuch"]}`), 404, "not_found", "issuer"},
		{"a token for a negative time", "administrator", "POST", "/api/v1/tokens", []byte(`{"name":"x","role":"auditor","validity":"-1d"}`), 400, "bad_request", "90d"},

		// Addresses.
		{"an unknown route", op, "GET", "/api/v1/nosuch", nil, 404, "not_found", "openapi.yaml"},
		{"an unknown version", op, "GET", "/api/v2/certificates", nil, 404, "not_found", ""},
		{"an unknown method", op, "PATCH", certs, nil, 405, "bad_request", "PATCH"},
		{"a method of another route", op, "DELETE", certs + "/" + good, nil, 405, "bad_request", "DELETE"},
		{"reading what is written", op, "GET", certs + "/" + good + "/revoke", nil, 405, "bad_request", "GET"},
		{"an odd method", op, "BREW", certs, nil, 405, "bad_request", ""},
		{"nothing at the root", op, "GET", "/nosuch", nil, 404, "not_found", ""},
		{"an unknown issuer", op, "GET", "/api/v1/issuers/nosuch", nil, 404, "not_found", "issuer"},
		{"an unknown profile", op, "GET", "/api/v1/profiles/nosuch", nil, 404, "not_found", "profile"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := in.count(t)
			status, header, body := in.send(t, row.who, row.method, row.path, row.body)
			var d client.Error
			if err := json.Unmarshal(body, &d); err != nil || header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("want a problem document, got %d %s: %.500s", status, header.Get("Content-Type"), body)
			}
			if status != row.status || d.Status != status || d.Kind() != row.kind {
				t.Errorf("got %d %s, want %d %s: %.500s", status, d.Kind(), row.status, row.kind, body)
			}
			if !strings.Contains(strings.ToLower(string(body)), strings.ToLower(row.text)) {
				t.Errorf("the answer does not speak of %q: %.500s", row.text, body)
			}
			if d.Detail == "" || d.RequestID == "" || d.RequestID != header.Get("X-Request-Id") {
				t.Errorf("an answer without a detail or the request's id: %.500s", body)
			}
			if status == 405 && header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if secret := in.leaks(string(body)); secret != "" {
				t.Errorf("the answer tells %q: %.500s", secret, body)
			}
			if strings.ContainsAny(d.Detail+d.Hint, "\x00\x1b\n\u202e") {
				t.Errorf("the answer repeats control characters: %.500q", body)
			}
			if secret := in.leaks(in.Log()); secret != "" {
				t.Fatalf("the log tells %q", secret)
			}
			if after := in.count(t); after != before {
				t.Errorf("a refused request changed the store: %s before, %s after", before, after)
			}
		})
	}
	if log := in.Log(); strings.Contains(log, "panicked") || strings.Contains(log, "level=ERROR") {
		t.Errorf("the log has errors:\n%s", log)
	}
}
