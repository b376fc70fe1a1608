package e2e

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

type pkixExtension = pkix.Extension

// ocspQuery says how to ask. The zero value asks the address in the certificate, with GET and SHA-1.
type ocspQuery struct {
	At   *Server // ask this server, whatever address the certificate has
	Hash crypto.Hash
	POST bool
}

// ocspBody returns the DER of an answer.
func ocspBody(t testing.TB, subject, issuer *x509.Certificate, q ocspQuery) []byte {
	t.Helper()
	if q.Hash == 0 {
		q.Hash = crypto.SHA1
	}
	request, err := ocsp.CreateRequest(subject, issuer, &ocsp.RequestOptions{Hash: q.Hash})
	if err != nil {
		t.Fatal(err)
	}
	address := subject.OCSPServer[0]
	if q.At != nil {
		address = at(t, q.At, address)
	}
	var res *http.Response
	if q.POST {
		res, err = plainHTTP.Post(address, "application/ocsp-request", bytes.NewReader(request))
	} else {
		res, err = plainHTTP.Get(address + "/" + url.PathEscape(base64.StdEncoding.EncodeToString(request)))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/ocsp-response" {
		t.Fatalf("OCSP: %s, %s, %v: %.200q", res.Status, res.Header.Get("Content-Type"), err, body)
	}
	return body
}

// ocspAbout asks for a certificate's status, and checks the answer's signature and times.
func ocspAbout(t testing.TB, s *Server, subject, issuer *x509.Certificate, q ocspQuery) *ocsp.Response {
	t.Helper()
	if q.At == nil {
		q.At = s
	}
	a, err := ocsp.ParseResponseForCert(ocspBody(t, subject, issuer, q), subject, issuer)
	if err != nil {
		t.Fatal(err)
	}
	if now := time.Now(); a.ThisUpdate.After(now) || !a.NextUpdate.After(now) {
		t.Errorf("the answer holds from %s to %s, and it is %s", a.ThisUpdate, a.NextUpdate, now)
	}
	return a
}

// at returns a certificate's address with another server in it.
func at(t testing.TB, s *Server, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return s.HTTP + u.EscapedPath()
}

// TestOCSP asks as OpenSSL does, in every way that it knows, before and after the status changes.
func TestOCSP(t *testing.T) {
	Need(t, "openssl", "curl")
	everywhere(t, func(t *testing.T, d deployment) {
		h := chainOf(t, d.A)
		leaf := issue(t, d.A, "client", "ocsp", "email:ocsp@e2e.example")
		serial := leaf.Serial

		for _, hash := range []string{"sha1", "sha256"} {
			for _, nonce := range []string{"-nonce", "-no_nonce"} {
				t.Run(hash+" "+nonce, func(t *testing.T) {
					for _, s := range []*Server{d.A, d.B} {
						h.wantOCSP(t, s, leaf.CertFile, "good", "-"+hash, nonce)
						h.wantOCSP(t, s, filepath.Join(h.dir, "issuing.pem"), "good", "-"+hash, nonce)
					}
				})
			}
		}
		t.Run("GET as curl does it", func(t *testing.T) {
			request := filepath.Join(t.TempDir(), "request.der")
			tool(t, "openssl", "ocsp", "-issuer", filepath.Join(h.dir, "issuing.pem"), "-cert", leaf.CertFile, "-no_nonce", "-reqout", request)
			text := base64.StdEncoding.EncodeToString(readFile(t, request))
			// Both forms occur: base64 as it is, and escaped as RFC 6960, Appendix A.1 wants it.
			for _, path := range []string{text, url.QueryEscape(text)} {
				for _, version := range []string{"--http1.0", "--http1.1"} {
					answer := filepath.Join(t.TempDir(), "answer.der")
					tool(t, "curl", "-sSf", version, "--path-as-is", "-o", answer, leaf.X509.OCSPServer[0]+"/"+path)
					out := tool(t, "openssl", "ocsp", "-issuer", filepath.Join(h.dir, "issuing.pem"), "-cert", leaf.CertFile, "-no_nonce",
						"-respin", answer, "-CAfile", filepath.Join(h.dir, "root.pem"))
					if !strings.Contains(out, ": good") {
						t.Errorf("%s: %s", version, out)
					}
				}
			}
		})
		t.Run("by Go, GET and POST", func(t *testing.T) {
			for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
				for _, post := range []bool{false, true} {
					a := ocspAbout(t, d.B, leaf.X509, h.issuing, ocspQuery{Hash: hash, POST: post})
					if a.Status != ocsp.Good {
						t.Errorf("%s, POST %v: got %d", hash, post, a.Status)
					}
				}
			}
		})
		t.Run("a serial number that was never issued", func(t *testing.T) {
			for _, s := range []*Server{d.A, d.B} {
				r := h.openssl(t, s, "-serial", "0x"+randomSerial(t), "-no_nonce")
				if r.Code == 0 || !strings.Contains(r.Out+r.Err, "unauthorized") {
					t.Errorf("code %d: %s%s", r.Code, r.Out, r.Err)
				}
			}
		})
		t.Run("garbage", func(t *testing.T) {
			res, err := plainHTTP.Post(d.A.HTTP+"/ocsp", "application/ocsp-request", strings.NewReader("nonsense"))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || !bytes.Equal(body, ocsp.MalformedRequestErrorResponse) {
				t.Errorf("got %s %x, %v; want malformedRequest", res.Status, body, err)
			}
		})

		// Every status is asked for before it changes, so that what is cached is seen to be dropped.
		change := func(reason string, want string, args ...string) {
			t.Helper()
			d.A.MustCLI(append([]string{"cert"}, append(args, serial)...)...)
			// At once where the change was made, as soon as the command has ended.
			h.wantOCSP(t, d.A, leaf.CertFile, want, "-no_nonce")
			h.wantOCSP(t, d.A, leaf.CertFile, want, "-nonce")
			if a := ocspAbout(t, d.A, leaf.X509, h.issuing, ocspQuery{}); want == "revoked" && ocspReason(a) != reason {
				t.Errorf("got reason %s, want %s", ocspReason(a), reason)
			}
			if !d.Replicas() {
				return
			}
			took := eventually(t, time.Second, "the other replica's OCSP answer", func() error {
				a := ocspAbout(t, d.B, leaf.X509, h.issuing, ocspQuery{})
				if got := ocspStatus(a); got != want || want == "revoked" && ocspReason(a) != reason {
					return fmt.Errorf("it says %s, %s", got, ocspReason(a))
				}
				return nil
			})
			h.wantOCSP(t, d.B, leaf.CertFile, want, "-nonce")
			t.Logf("%s: seen by the other replica after %s", args[0], took)
		}
		change("certificateHold", "revoked", "hold")
		change("", "good", "release")
		change("certificateHold", "revoked", "hold")
		change("superseded", "revoked", "revoke", "--reason", "superseded")

		if r := h.openssl(t, d.A, "-cert", leaf.CertFile, "-no_nonce"); !strings.Contains(r.Out, "Reason: superseded") || !strings.Contains(r.Out, "Revocation Time:") {
			t.Errorf("openssl does not show the reason: %s%s", r.Out, r.Err)
		}
		// Final: nothing leads back.
		if r := d.A.CLI("cert", "release", serial); r.Code != 1 {
			t.Errorf("release of a revoked certificate: code %d, %s%s", r.Code, r.Out, r.Err)
		}
		h.wantOCSP(t, d.A, leaf.CertFile, "revoked", "-no_nonce")
	})
}

// openssl asks a server about a certificate of the issuing CA, or about that CA itself.
func (h *hierarchy) openssl(t testing.TB, s *Server, args ...string) Result {
	t.Helper()
	issuer := "issuing.pem"
	for _, a := range args {
		if filepath.Base(a) == "issuing.pem" {
			issuer = "root.pem"
		}
	}
	// The responder's certificate is in the answer; only the root is trusted.
	base := []string{
		"ocsp", "-issuer", filepath.Join(h.dir, issuer), "-url", s.HTTP + "/ocsp", "-CAfile", filepath.Join(h.dir, "root.pem"), "-timeout", "10",
	}
	var hash []string
	for i, a := range args {
		if a == "-sha1" || a == "-sha256" { // it holds for the certificates behind it
			hash, args = []string{a}, append(append([]string(nil), args[:i]...), args[i+1:]...)
			break
		}
	}
	base = append(base[:1:1], append(hash, base[1:]...)...)
	return try(t, "openssl", append(base, args...)...)
}

// wantOCSP checks that OpenSSL trusts the answer about the certificate in the file, and that it is the wanted one.
func (h *hierarchy) wantOCSP(t testing.TB, s *Server, file, want string, args ...string) {
	t.Helper()
	r := h.openssl(t, s, append([]string{"-cert", file}, args...)...)
	all := r.Out + r.Err
	if r.Code != 0 || !strings.Contains(all, "Response verify OK") || !strings.Contains(r.Out, file+": "+want) {
		t.Errorf("openssl ocsp %v: code %d, want %s:\n%s", args, r.Code, want, all)
	}
	if strings.Contains(all, "WARNING") {
		t.Errorf("openssl ocsp %v warns: %s", args, all)
	}
}

func ocspStatus(a *ocsp.Response) string {
	switch a.Status {
	case ocsp.Good:
		return "good"
	case ocsp.Revoked:
		return "revoked"
	}
	return "unknown"
}

// ocspReason names a CRLReason (RFC 5280, Section 5.3.1).
func ocspReason(a *ocsp.Response) string {
	if a.Status != ocsp.Revoked {
		return ""
	}
	return reasonNames[a.RevocationReason]
}

var reasonNames = map[int]string{
	0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
	5: "cessationOfOperation", 6: "certificateHold", 9: "privilegeWithdrawn", 10: "aACompromise",
}

// randomSerial returns a serial number that nobody has issued, in hexadecimal.
func randomSerial(t testing.TB) string {
	t.Helper()
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	b[0] &= 0x7f
	return hex.EncodeToString(new(big.Int).SetBytes(b).Bytes())
}
