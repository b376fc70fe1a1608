package publish_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/ocsp"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/publish"
	"github.com/certwright/certwright/pkg/store"
)

// env is a real listener over a real store, with one good and one revoked certificate.
type env struct {
	*certtest.Hierarchy
	t         testing.TB
	store     store.Store
	issuers   *issuer.Set
	crls      *crl.Publisher
	responder *ocsp.Responder
	handler   *publish.Handler
	server    *httptest.Server
	good, bad *certtest.Issued
}

type delegates map[string]*ocsp.Delegate

func (d delegates) Delegate(_ context.Context, key *issuer.Key) (*ocsp.Delegate, error) {
	if found := d[key.KeyID]; found != nil {
		return found, nil
	}
	return nil, errors.New("no delegate")
}

func setup(t testing.TB) *env {
	t.Helper()
	now := time.Now()
	e := &env{t: t, store: certtest.SQLite(t)}
	e.Hierarchy = certtest.Setup(t, e.store, now)
	var err error
	if e.issuers, err = issuer.Load(t.Context(), issuer.Config{Store: e.store, Open: certtest.Open}); err != nil {
		t.Fatal(err)
	}
	e.good, e.bad = e.Issuing.Issue(t, e.store, now, nil), e.Issuing.Issue(t, e.store, now, nil)
	certtest.Change(t, e.store, e.bad.Record, pki.ActionRevoke, pki.KeyCompromise, now)

	guard := clock.New(nil, nil)
	e.crls, err = crl.New(crl.Config{Store: e.store, Issuers: e.issuers, Clock: guard, Leases: e.store, Holder: "test", PublicURL: "http://pki.test"})
	if err != nil {
		t.Fatal(err)
	}
	signer, certificate := e.Issuing.Delegate(t, now, now.AddDate(0, 0, 30))
	e.responder, err = ocsp.New(ocsp.Config{
		Store: e.store, Issuers: e.issuers, Clock: guard, Age: func() time.Duration { return 0 },
		Delegates: delegates{
			e.Root.KeyID:    {Signer: e.Root.Signer},
			e.Issuing.KeyID: {Signer: signer, Certificate: certificate.Raw, NotAfter: certificate.NotAfter},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := publish.New(publish.Config{Issuers: e.issuers, CRLs: e.crls, OCSP: e.responder, ReadTimeout: 300 * time.Millisecond, Aliases: []publish.Alias{
		{Path: "/old/ca", Issuer: "issuing", Scope: "full"},
		{Path: "/old/root.pem", Issuer: e.Root.KeyID, Scope: "full"},
		{Path: "/old/3.crl", Issuer: "issuing", Scope: "s2/1"},
		{Path: "/old/nobody.crl", Issuer: "nobody", Scope: "full"},
		{Path: "/old/none.crl", Issuer: "issuing", Scope: "s9/1"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	e.handler, e.server = h, httptest.NewServer(h)
	t.Cleanup(e.server.Close)
	return e
}

// publishCRLs has the CRLs made.
func (e *env) publishCRLs() {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.crls.Run(ctx)
	}()
	e.t.Cleanup(func() {
		cancel()
		<-done
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		if _, ok := e.crls.Bundle(e.issuers.Current().Keys()...); ok {
			return
		}
		if time.Now().After(end) {
			e.t.Fatal("no CRLs")
		}
	}
}

// do sends a request as it is, and follows no redirect.
func (e *env) do(method, path string, body []byte, header ...string) (*http.Response, []byte) {
	e.t.Helper()
	r, err := http.NewRequestWithContext(e.t.Context(), method, e.server.URL, bytes.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	r.URL.Opaque = "//" + r.URL.Host + path // sent as it stands here
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	if resp.Header.Get("X-Content-Type-Options") != "nosniff" && resp.StatusCode != http.StatusNotFound {
		e.t.Errorf("%s %s: without nosniff", method, path)
	}
	return resp, b
}

func (e *env) request(c *certtest.Issued, hash crypto.Hash) []byte {
	e.t.Helper()
	b, err := xocsp.CreateRequest(c.Certificate, c.CA.Certificate, &xocsp.RequestOptions{Hash: hash})
	if err != nil {
		e.t.Fatal(err)
	}
	return b
}

func keyOf(e *env) *issuer.Key { return e.issuers.Current().Key(e.Issuing.KeyID) }

// TestDates has CRLs asked for by date alone: nobody may keep a list that another has taken the place of.
func TestDates(t *testing.T) {
	e := setup(t)
	e.publishCRLs()
	list, ok := e.crls.Latest(e.Issuing.KeyID)
	if !ok {
		t.Fatal("no list")
	}
	made := list.LastModified
	later := made.Add(time.Hour).Format(http.TimeFormat) // the time of a download, as «curl -z» sends it
	told := made.Format(http.TimeFormat)
	paths := []string{"/crl/" + e.Issuing.KeyID + ".crl", "/crl/" + e.Issuing.KeyID + ".pem", "/crls/issuing.pem"}
	for _, test := range []struct {
		after time.Duration // since the list was made
		date  [3]bool       // whether one is told
	}{
		{-time.Second, [3]bool{}},       // a list before it was made within the same second
		{0, [3]bool{true, true, false}}, // the root's list, too, may still get this date
		{time.Minute, [3]bool{true, true, true}},
	} {
		h, err := publish.New(publish.Config{
			Issuers: e.issuers, CRLs: e.crls, OCSP: e.responder, Now: func() time.Time { return made.Add(test.after) },
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, path := range paths {
			ask := func(since string) *httptest.ResponseRecorder {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
				r.Header.Set("If-Modified-Since", since)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				return w
			}
			w := ask(later)
			date := w.Header().Get("Last-Modified")
			if w.Code != 200 || (date != "") != test.date[i] || date != "" && i < 2 && date != told {
				t.Errorf("%s %v after: %d with date %q, list of %q", path, test.after, w.Code, date, told)
			}
			want := 200
			if test.date[i] {
				want = 304
			}
			if w := ask(cmp.Or(date, told)); w.Code != want {
				t.Errorf("%s %v after, with its date: %d, want %d", path, test.after, w.Code, want)
			}
		}
	}
}

func bigInt(s pki.SerialNumber) *big.Int { return new(big.Int).SetBytes(s.Bytes()) }

func TestDocuments(t *testing.T) {
	e := setup(t)
	for _, path := range []string{"/crl/" + e.Issuing.KeyID + ".crl", "/crl/" + e.Root.KeyID + ".pem", "/crls/issuing.pem"} {
		resp, _ := e.do("GET", path, nil)
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s before the first CRL: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
	e.publishCRLs()
	tests := []struct {
		path, mediaType string
		pem             string // block type, or "" for DER
		blocks          int
	}{
		{"/crl/" + e.Issuing.KeyID + ".crl", "application/pkix-crl", "", 0},
		{"/crl/" + e.Root.KeyID + ".crl", "application/pkix-crl", "", 0},
		{"/crl/" + e.Issuing.KeyID + ".pem", "application/x-pem-file", "X509 CRL", 1},
		{"/crls/issuing.pem", "application/x-pem-file", "X509 CRL", 2},
		{"/crls/root.pem", "application/x-pem-file", "X509 CRL", 1},
		{"/crls/%69ssuing.pem", "application/x-pem-file", "X509 CRL", 2},
		{"/ca/" + e.Issuing.KeyID + ".cer", "application/pkix-cert", "", 0},
		{"/ca/" + e.Root.KeyID + ".pem", "application/pem-certificate-chain", "CERTIFICATE", 1},
		{"/chain/issuing.pem", "application/pem-certificate-chain", "CERTIFICATE", 1},
		{"/chain/root.pem", "application/pem-certificate-chain", "CERTIFICATE", 1},
		{"/roots.pem", "application/pem-certificate-chain", "CERTIFICATE", 1},
		{"/client-ca.pem", "application/pem-certificate-chain", "CERTIFICATE", 2},
	}
	for _, test := range tests {
		t.Run(test.path, func(t *testing.T) {
			resp, body := e.do("GET", test.path, nil)
			h := resp.Header
			if resp.StatusCode != 200 || h.Get("Content-Type") != test.mediaType || h.Get("ETag") == "" || len(body) == 0 ||
				!strings.Contains(h.Get("Cache-Control"), "max-age=") || !strings.HasSuffix(h.Get("Expires"), "GMT") {
				t.Fatalf("GET: %d %v", resp.StatusCode, h)
			}
			blocks := 0
			for rest := body; test.pem != ""; blocks++ {
				var block *pem.Block
				if block, rest = pem.Decode(rest); block == nil {
					break
				}
				if block.Type != test.pem {
					t.Errorf("a block of type %q, want %q", block.Type, test.pem)
				}
			}
			if blocks != test.blocks {
				t.Errorf("%d PEM blocks, want %d", blocks, test.blocks)
			}
			if resp, b := e.do("HEAD", test.path, nil); resp.StatusCode != 200 || len(b) != 0 || resp.ContentLength != int64(len(body)) || resp.Header.Get("ETag") != h.Get("ETag") {
				t.Errorf("HEAD: %d, length %d, %v", resp.StatusCode, resp.ContentLength, resp.Header)
			}
			if resp, b := e.do("GET", test.path, nil, "If-None-Match", h.Get("ETag")); resp.StatusCode != 304 || len(b) != 0 {
				t.Errorf("If-None-Match: %d", resp.StatusCode)
			}
			if resp, b := e.do("GET", test.path, nil, "Range", "bytes=5-9"); resp.StatusCode != 206 || !bytes.Equal(b, body[5:10]) {
				t.Errorf("Range: %d %x", resp.StatusCode, b)
			}
			if resp, b := e.do("GET", test.path, nil, "Range", "lines=1-2"); resp.StatusCode != 200 || !bytes.Equal(b, body) {
				t.Errorf("Range in a foreign unit: %d", resp.StatusCode)
			}
			if resp, _ := e.do("POST", test.path, nil); resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("POST: %d, Allow %q", resp.StatusCode, resp.Header.Get("Allow"))
			}
		})
	}
	for _, path := range []string{
		"/crl/0123456789abcdef.crl", "/crl/x.pem", "/crls/nobody.pem", "/crls/.pem", "/chain/issuing", "/chain/nobody.pem",
		"/ca/0123456789abcdef.cer", "/", "/crl/", "/nothing", "/chain/..%2fissuing.pem",
	} {
		if resp, _ := e.do("GET", path, nil); resp.StatusCode != 404 {
			t.Errorf("%s: %d, want 404", path, resp.StatusCode)
		}
	}
	_, body := e.do("GET", "/crl/"+e.Issuing.KeyID+".crl", nil)
	if l, err := x509.ParseRevocationList(body); err != nil || l.CheckSignatureFrom(e.Issuing.Certificate) != nil || len(l.RevokedCertificateEntries) != 1 {
		t.Errorf("the CRL: %v", err)
	}
	if _, body := e.do("GET", "/ca/"+e.Issuing.KeyID+".cer", nil); !bytes.Equal(body, e.Issuing.Certificate.Raw) {
		t.Error("caIssuers does not serve the CA's certificate")
	}
}

// settle gives the issuing CA settings, and certificates of it addresses of shards.
func (e *env) settle(config string, shards int) {
	e.t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	a := pki.CRLAddressOf("http://pki.test", e.Issuing.KeyID, pki.ShardSet(shards))
	a.IssuerKeyID, a.RecordedAt, a.Until = e.Issuing.IssuerKeyID, now, now.AddDate(1, 0, 0)
	if err := e.store.PutIssuerSettings(e.t.Context(), pki.SettingsVersion{
		IssuerID: e.Issuing.IssuerID, Version: 1, Config: []byte(config), CreatedAt: now, CreatedBy: "test",
	}, []pki.CRLAddress{a}, audit.Record{Time: now, Action: "issuer.settings", Actor: "test"}); err != nil {
		e.t.Fatal(err)
	}
	if err := e.issuers.Reload(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
}

// TestForms serves shards, the list of CA certificates, delta lists, and lists at addresses that are not their own.
func TestForms(t *testing.T) {
	e := setup(t)
	e.settle(`{"crl":{"form":"sharded","shards":2,"delta":{},"maxAge":"30s"}}`, 2)
	own := "/crl/" + e.Issuing.KeyID
	tests := []struct{ path, scope string }{
		{own + ".crl", "full"},
		{own + "/full/delta.crl", "full/delta"},
		{own + "/ca.crl", "ca"},
		{own + "/ca/delta.crl", "ca/delta"},
		{own + "/s2/0.crl", "s2/0"},
		{own + "/s2/1.crl", "s2/1"},
		{own + "/s2/1/delta.crl", "s2/1/delta"},
		{"/old/ca", "full"},
		{"/old/3.crl", "s2/1"},
	}
	for _, test := range tests {
		if resp, _ := e.do("GET", test.path, nil); resp.StatusCode != 503 {
			t.Errorf("%s before the first CRL: %d", test.path, resp.StatusCode)
		}
	}
	e.publishCRLs()
	for _, test := range tests {
		at, ok := e.crls.List(e.Issuing.KeyID, test.scope)
		if !ok {
			t.Fatalf("no list of %s", test.scope)
		}
		resp, body := e.do("GET", test.path, nil)
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/pkix-crl" || !strings.HasPrefix(resp.Header.Get("Cache-Control"), "max-age=30,") || !bytes.Equal(body, crl.Bytes(at.DER)) {
			t.Errorf("%s: %d %v", test.path, resp.StatusCode, resp.Header)
		}
		l, err := x509.ParseRevocationList(body)
		if err != nil || l.CheckSignatureFrom(e.Issuing.Certificate) != nil {
			t.Errorf("%s: %v", test.path, err)
		}
		name, crlName := strings.CutSuffix(test.path, ".crl")
		if !crlName || strings.HasPrefix(name, "/old/") {
			continue
		}
		resp, text := e.do("GET", name+".pem", nil)
		if block, _ := pem.Decode(text); resp.StatusCode != 200 || block == nil || !bytes.Equal(block.Bytes, body) || resp.Header.Get("ETag") == resp.Request.Header.Get("ETag") {
			t.Errorf("%s.pem: %d %.80q", name, resp.StatusCode, text)
		}
	}
	if resp, text := e.do("GET", "/old/root.pem", nil); resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-pem-file" || !bytes.HasPrefix(text, []byte("-----BEGIN X509 CRL")) {
		t.Errorf("alias in PEM: %d", resp.StatusCode)
	}
	for _, path := range []string{
		own + "/full.crl", own + "/s2/2.crl", own + "/s2/-1.crl", own + "/s2/00.crl", own + "/s2.crl", own + "/s2/.crl", own + "/s3/0.crl", own + "/.crl", own + "/s2/0", own + "/s2/0.crl.pem",
		own + "/delta.crl", own + "/ca/delta/delta.crl", "/crl/" + e.Root.KeyID + "/ca.crl", "/crl/" + e.Root.KeyID + "/full/delta.crl", "/old/nobody.crl", "/old/none.crl",
	} {
		if resp, _ := e.do("GET", path, nil); resp.StatusCode != 404 {
			t.Errorf("%s: %d, want 404", path, resp.StatusCode)
		}
	}
}

// TestGzip: lists are sent compressed to those who ask for it, each form under a tag of its own.
func TestGzip(t *testing.T) {
	e := setup(t)
	for range 30 {
		c := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
		certtest.Change(t, e.store, c, pki.ActionRevoke, pki.KeyCompromise, time.Now())
	}
	e.publishCRLs()
	for _, path := range []string{"/crl/" + e.Issuing.KeyID + ".crl", "/crl/" + e.Issuing.KeyID + ".pem", "/crls/issuing.pem"} {
		plain, body := e.do("GET", path, nil, "Accept-Encoding", "identity")
		if plain.Header.Get("Content-Encoding") != "" || plain.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %v", path, plain.Header)
		}
		for _, accept := range []string{"gzip", "deflate, GZIP;q=0.5", "*", "br, gzip; q=1.0"} {
			resp, z := e.do("GET", path, nil, "Accept-Encoding", accept)
			if resp.Header.Get("Content-Encoding") != "gzip" || resp.ContentLength != int64(len(z)) || len(z) >= len(body) || resp.Header.Get("ETag") == plain.Header.Get("ETag") ||
				resp.Header.Get("Content-Type") != plain.Header.Get("Content-Type") {
				t.Errorf("%s, %s: %d octets of %d, %v", path, accept, len(z), len(body), resp.Header)
				continue
			}
			r, err := gzip.NewReader(bytes.NewReader(z))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%s: another content: %v", path, err)
			}
			if resp, b := e.do("GET", path, nil, "Accept-Encoding", accept, "If-None-Match", resp.Header.Get("ETag")); resp.StatusCode != 304 || len(b) > 0 {
				t.Errorf("%s: If-None-Match: %d", path, resp.StatusCode)
			}
			if resp, b := e.do("GET", path, nil, "Accept-Encoding", accept, "If-None-Match", plain.Header.Get("ETag")); resp.StatusCode != 200 || len(b) == 0 {
				t.Errorf("%s: If-None-Match with the tag of the other form: %d", path, resp.StatusCode)
			}
			if resp, b := e.do("GET", path, nil, "Accept-Encoding", accept, "Range", "bytes=0-9"); resp.StatusCode != 206 || !bytes.Equal(b, body[:10]) || resp.Header.Get("Content-Encoding") != "" {
				t.Errorf("%s: range: %d %v", path, resp.StatusCode, resp.Header)
			}
		}
		for _, accept := range []string{"gzip;q=0", "br", "x-gzipped"} {
			if resp, _ := e.do("GET", path, nil, "Accept-Encoding", accept); resp.Header.Get("Content-Encoding") != "" {
				t.Errorf("%s: compressed for %q", path, accept)
			}
		}
	}
}

func TestRevokedIntermediateLeavesClientCAs(t *testing.T) {
	e := setup(t)
	all, err := e.store.CertificateBySerial(t.Context(), e.Root.IssuerID, pki.SerialNumber(e.Issuing.Certificate.SerialNumber.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	certtest.Change(t, e.store, all, pki.ActionRevoke, pki.CACompromise, time.Now())
	if err := e.issuers.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, body := e.do("GET", "/client-ca.pem", nil); !bytes.Equal(body, issuer.EncodePEM(e.Root.Certificate)) {
		t.Errorf("got %s, want the root alone", body)
	}
}

func TestOCSPPaths(t *testing.T) {
	e := setup(t)
	// Certificates until the base64 has all that routers and clients get wrong.
	var der []byte
	var text string
	for range 2000 {
		c := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
		x, err := (&xocsp.Request{
			HashAlgorithm: crypto.SHA1, IssuerNameHash: keyOf(e).NameHashSHA1[:], IssuerKeyHash: keyOf(e).KeyHashSHA1[:], SerialNumber: bigInt(c.Serial),
		}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		text = base64.StdEncoding.EncodeToString(x)
		if der = x; strings.Contains(text, "+") && strings.Contains(text, "/") {
			break
		}
	}
	escaped := url.QueryEscape(text)
	tests := map[string]string{
		"raw":              "/ocsp/" + text,
		"escaped":          "/ocsp/" + escaped,
		"escaped twice":    "/ocsp/" + url.QueryEscape(escaped),
		"lower-case hex":   "/ocsp/" + strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3D", "%3d").Replace(escaped),
		"only = escaped":   "/ocsp/" + strings.ReplaceAll(text, "=", "%3D"),
		"no padding":       "/ocsp/" + strings.TrimRight(text, "="),
		"base64url":        "/ocsp/" + base64.URLEncoding.EncodeToString(der),
		"raw base64url":    "/ocsp/" + base64.RawURLEncoding.EncodeToString(der),
		"slash too many":   "/ocsp//" + text,
		"key id":           "/ocsp/" + e.Issuing.KeyID + "/" + text,
		"key id, escaped":  "/ocsp/" + e.Issuing.KeyID + "/" + escaped,
		"key id, slash":    "/ocsp/" + e.Issuing.KeyID + "//" + text,
		"escaped M":        "/ocsp/%4D" + text[1:],
		"another's key id": "/ocsp/0123456789abcdef/" + text,
	}
	for name, path := range tests {
		for _, method := range []string{"GET", "HEAD"} {
			resp, body := e.do(method, path, nil)
			h := resp.Header
			if resp.StatusCode != 200 || h.Get("Content-Type") != "application/ocsp-response" {
				t.Errorf("%s, %s: %d %v", name, method, resp.StatusCode, h)
				continue
			}
			if method == "GET" {
				if r, err := xocsp.ParseResponse(body, e.Issuing.Certificate); err != nil || r.Status != xocsp.Good {
					t.Errorf("%s: %v", name, err)
				}
			} else if len(body) != 0 || resp.ContentLength < 100 {
				t.Errorf("%s, HEAD: %d octets, length %d", name, len(body), resp.ContentLength)
			}
		}
	}
	// Every path above is the same answer; "//" within one occurs too.
	slashes := "/ocsp/" + strings.Replace(text, "/", "//", 1)
	if resp, _ := e.do("GET", slashes, nil); resp.StatusCode != 200 {
		t.Errorf("// in the path: %d, want an OCSPResponse and no redirect", resp.StatusCode)
	}
	for path, want := range map[string]int{
		"/ocsp": 400, "/ocsp/": 400, "/ocsp/" + e.Issuing.KeyID: 400, "/ocsp/" + e.Issuing.KeyID + "/": 400,
	} {
		if resp, _ := e.do("GET", path, nil); resp.StatusCode != want || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestOCSPHeaders(t *testing.T) {
	e := setup(t)
	good := "/ocsp/" + url.PathEscape(base64.StdEncoding.EncodeToString(e.request(e.good, crypto.SHA1)))
	resp, body := e.do("GET", good, nil)
	r, err := xocsp.ParseResponse(body, e.Issuing.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	h := resp.Header
	for name, want := range map[string]string{
		"Last-Modified": r.ThisUpdate.Format(http.TimeFormat),
		"Expires":       r.NextUpdate.Format(http.TimeFormat),
		"Cache-Control": "max-age=60, public, no-transform, must-revalidate",
	} {
		if h.Get(name) != want {
			t.Errorf("%s: got %q, want %q", name, h.Get(name), want)
		}
	}
	if h.Get("Date") == "" || !strings.HasSuffix(h.Get("Last-Modified"), " GMT") || resp.ContentLength != int64(len(body)) {
		t.Errorf("headers: %v", h)
	}
	etag := h.Get("ETag")
	for header, want := range map[string]int{etag: 304, "W/" + etag: 304, `"other", ` + etag: 304, "*": 304, `"other"`: 200} {
		if resp, b := e.do("GET", good, nil, "If-None-Match", header); resp.StatusCode != want || want == 304 && (len(b) != 0 || resp.Header.Get("ETag") != etag) {
			t.Errorf("If-None-Match %s: %d, want %d", header, resp.StatusCode, want)
		}
	}
	for name, path := range map[string]string{
		"never issued": base64.StdEncoding.EncodeToString(e.request(&certtest.Issued{CA: e.Issuing, Certificate: e.Root.Certificate}, crypto.SHA1)),
		"garbage":      "Mgarbage", "no base64": "M!!!", "too long": "M" + strings.Repeat("A", 6000),
	} {
		resp, b := e.do("GET", "/ocsp/"+url.PathEscape(path), nil)
		if resp.StatusCode != 200 || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("ETag") != "" || resp.Header.Get("Expires") != "" || len(b) != 5 {
			t.Errorf("%s: %d %v %x", name, resp.StatusCode, resp.Header, b)
		}
	}
	for _, path := range []string{"/ocsp", "/ocsp/", "/ocsp/" + e.Issuing.KeyID} {
		for _, mediaType := range []string{"application/ocsp-request", "text/plain", ""} {
			resp, b := e.do("POST", path, e.request(e.bad, crypto.SHA256), "Content-Type", mediaType)
			if r, err := xocsp.ParseResponse(b, e.Issuing.Certificate); err != nil || r.Status != xocsp.Revoked || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("POST %s as %q: %v, %v", path, mediaType, err, resp.Header)
			}
		}
	}
	if resp, _ := e.do("POST", "/ocsp", make([]byte, 5000)); resp.StatusCode != 413 {
		t.Errorf("a body that is too long: %d, want 413", resp.StatusCode)
	}
	if resp, _ := e.do("DELETE", "/ocsp", nil); resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("DELETE: %d, Allow %q", resp.StatusCode, resp.Header.Get("Allow"))
	}

	// A client that sends no body does not hold a connection for long.
	conn, err := net.Dial("tcp", e.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil || !bytes.HasPrefix(b, []byte("HTTP/1.1 400")) {
		t.Errorf("a silent client got %q, %v", b, err)
	}
}

func TestOpenSSLAndCurl(t *testing.T) {
	e := setup(t)
	e.publishCRLs()
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	roots := file("roots.pem", issuer.EncodePEM(e.Root.Certificate))
	chain := file("chain.pem", issuer.EncodePEM(e.Issuing.Certificate))
	certs := map[string]string{
		file("good.pem", issuer.EncodePEM(e.good.Certificate)): "good.pem: good",
		file("bad.pem", issuer.EncodePEM(e.bad.Certificate)):   "bad.pem: revoked",
	}
	for cert, want := range certs {
		for _, hash := range []string{"-sha1", "-sha256"} {
			for _, nonce := range []string{"-nonce", "-no_nonce"} {
				reqFile := filepath.Join(dir, "request.der")
				base := []string{"ocsp", hash, "-issuer", chain, "-cert", cert, nonce}
				out := run("openssl", append(base, "-reqout", reqFile, "-url", e.server.URL+"/ocsp/"+e.Issuing.KeyID, "-CAfile", roots, "-verify_other", chain)...)
				if !strings.Contains(out, want) || !strings.Contains(out, "Response verify OK") || strings.Contains(out, "WARNING") {
					t.Errorf("openssl ocsp %s %s: %s", hash, nonce, out)
				}
				// GET, which the command line of OpenSSL does not know: by curl, over HTTP/1.0 too.
				req, err := os.ReadFile(reqFile)
				if err != nil {
					t.Fatal(err)
				}
				for _, version := range []string{"--http1.0", "--http1.1"} {
					answer := filepath.Join(dir, "answer.der")
					run("curl", "-sSf", version, "-o", answer, e.server.URL+"/ocsp/"+base64.StdEncoding.EncodeToString(req))
					out := run("openssl", append(base[:len(base)-1], "-respin", answer, "-CAfile", roots, "-verify_other", chain, "-no_nonce")...)
					if !strings.Contains(out, want) || !strings.Contains(out, "Response verify OK") {
						t.Errorf("GET %s %s %s: %s", version, hash, nonce, out)
					}
				}
			}
		}
	}
	// The issuing CA's own certificate, by the root's own key.
	out := run("openssl", "ocsp", "-issuer", roots, "-cert", chain, "-url", e.server.URL+"/ocsp", "-CAfile", roots)
	if !strings.Contains(out, "chain.pem: good") || !strings.Contains(out, "Response verify OK") {
		t.Errorf("openssl ocsp on the issuing CA: %s", out)
	}
	crls := filepath.Join(dir, "crls.pem")
	run("curl", "-sSf", "--http1.0", "-o", crls, e.server.URL+"/crls/issuing.pem")
	run("openssl", "verify", "-crl_check_all", "-CAfile", roots, "-untrusted", chain, "-CRLfile", crls, filepath.Join(dir, "good.pem"))
	der := filepath.Join(dir, "issuing.crl")
	run("curl", "-sSf", "-o", der, e.server.URL+"/crl/"+e.Issuing.KeyID+".crl")
	run("openssl", "crl", "-inform", "DER", "-in", der, "-CAfile", chain, "-noout")
}
