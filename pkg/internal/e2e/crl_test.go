package e2e

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
)

// crlLimit is how soon a revocation has to be on the list at the address in certificates.
const crlLimit = 2 * time.Second

// leaseLimit is how long a replica that was killed may keep the others from making lists: its lease, and the time until
// they try again.
const leaseLimit = 4 * time.Second

// TestCRL follows revocations to the lists that verifiers fetch.
func TestCRL(t *testing.T) {
	Need(t, "openssl")
	everywhere(t, func(t *testing.T, d deployment) {
		h := chainOf(t, d.A)
		first := issue(t, d.A, "client", "first", "email:first@e2e.example")
		second := issue(t, d.A, "server", "second.e2e.example", "DNS:second.e2e.example")
		cdp := first.X509.CRLDistributionPoints[0]
		empty := readCRL(t, cdp, h.issuing)
		if len(empty.RevokedCertificateEntries) > 0 {
			t.Fatalf("the first list has %d entries", len(empty.RevokedCertificateEntries))
		}

		since := time.Now().Add(-48 * time.Hour).UTC().Truncate(time.Second)
		d.A.MustCLI("cert", "revoke", first.ID, "--reason", "keyCompromise", "--invalidity-date", since.Format(time.RFC3339))
		took := waitListed(t, crlLimit, cdp, h.issuing, first, func(e *x509.RevocationListEntry) error {
			if e.ReasonCode != 1 {
				return fmt.Errorf("reason %d, want keyCompromise", e.ReasonCode)
			}
			if got := invalidityDate(t, e); !got.Equal(since) {
				return fmt.Errorf("invalidityDate %s, want %s", got, since)
			}
			return nil
		})
		t.Logf("on the list after %s", took)
		afterFirst := readCRL(t, cdp, h.issuing)

		d.A.MustCLI("cert", "hold", second.ID)
		waitListed(t, crlLimit, cdp, h.issuing, second, wantReason(6))
		d.A.MustCLI("cert", "release", second.ID)
		eventually(t, crlLimit, "the release", func() error {
			if listed(readCRL(t, cdp, h.issuing), second) != nil {
				return errors.New("it is still listed")
			}
			return nil
		})
		// A reason that says nothing has no entry (RFC 5280, Section 5.3.1).
		d.A.MustCLI("cert", "revoke", second.ID)
		waitListed(t, crlLimit, cdp, h.issuing, second, func(e *x509.RevocationListEntry) error {
			if len(e.Extensions) > 0 {
				return fmt.Errorf("extensions %v, want none", e.Extensions)
			}
			return nil
		})
		last := readCRL(t, cdp, h.issuing)
		if len(last.RevokedCertificateEntries) != 2 {
			t.Errorf("%d entries, want 2", len(last.RevokedCertificateEntries))
		}
		for _, pair := range [][2]*x509.RevocationList{{empty, afterFirst}, {afterFirst, last}} {
			if pair[0].Number.Cmp(pair[1].Number) >= 0 || pair[1].ThisUpdate.Before(pair[0].ThisUpdate) {
				t.Errorf("number %d of %s came after %d of %s", pair[1].Number, pair[1].ThisUpdate, pair[0].Number, pair[0].ThisUpdate)
			}
		}
		lintCRL(t, last.Raw)

		// Every server refuses clients when a CRL of the chain is missing, the root's, too.
		root := readCRL(t, h.issuing.CRLDistributionPoints[0], h.root)
		if len(root.RevokedCertificateEntries) > 0 {
			t.Errorf("the root's list has %d entries", len(root.RevokedCertificateEntries))
		}
		h.refresh(t, cdp)
		for _, i := range []*identity{first, second} {
			if r := h.opensslVerify(t, i.CertFile, "any"); r.Code == 0 || !strings.Contains(r.Out+r.Err, "revoked") {
				t.Errorf("openssl verify: code %d, %s%s", r.Code, r.Out, r.Err)
			}
		}

		servers := map[string]*Server{"A": d.A}
		if d.Replicas() {
			servers["B"] = d.B
		}
		for name, s := range servers {
			t.Run("over HTTP from "+name, func(t *testing.T) {
				eventually(t, crlLimit, "the same list", func() error {
					if got := readCRL(t, at(t, s, cdp), h.issuing); got.Number.Cmp(last.Number) != 0 {
						return fmt.Errorf("number %d, want %d", got.Number, last.Number)
					}
					return nil
				})
				checkCRLForms(t, s, h, at(t, s, cdp), last)
			})
		}

		for _, restart := range []struct {
			name  string
			do    func()
			limit time.Duration
		}{
			{"after a restart", d.A.Restart, crlLimit},
			// A dead process keeps the right to make lists until its lease has ended.
			{"after a kill", func() { d.A.Kill(); d.A.Again() }, crlLimit + leaseLimit},
		} {
			t.Run(restart.name, func(t *testing.T) {
				before := readCRL(t, cdp, h.issuing)
				restart.do()
				again := readCRL(t, cdp, h.issuing)
				if again.Number.Cmp(before.Number) < 0 || len(again.RevokedCertificateEntries) != len(before.RevokedCertificateEntries) {
					t.Errorf("number %d with %d entries, before number %d with %d",
						again.Number, len(again.RevokedCertificateEntries), before.Number, len(before.RevokedCertificateEntries))
				}
				next := issue(t, d.A, "client", "next", "email:next@e2e.example")
				d.B.MustCLI("cert", "revoke", next.ID, "--reason", "cessationOfOperation")
				took := waitListed(t, restart.limit, cdp, h.issuing, next, wantReason(5))
				t.Logf("on the list after %s", took)
				if got := readCRL(t, cdp, h.issuing); got.Number.Cmp(before.Number) <= 0 {
					t.Errorf("number %d, want more than %d", got.Number, before.Number)
				}
			})
		}
	})
}

// checkCRLForms fetches the list as DER, PEM and in the bundle, in all ways that HTTP has.
func checkCRLForms(t *testing.T, s *Server, h *hierarchy, cdp string, want *x509.RevocationList) {
	t.Helper()
	res := get(t, http.MethodGet, cdp, nil)
	if res.status != http.StatusOK || res.header.Get("Content-Type") != "application/pkix-crl" || !bytes.Equal(res.body, want.Raw) {
		t.Fatalf("GET: %d %v", res.status, res.header)
	}
	etag := res.header.Get("ETag")
	if etag == "" || res.header.Get("Cache-Control") == "" {
		t.Errorf("GET: headers %v", res.header)
	}
	head := get(t, http.MethodHead, cdp, nil)
	if head.status != http.StatusOK || len(head.body) > 0 || head.header.Get("Content-Length") != fmt.Sprint(len(want.Raw)) || head.header.Get("ETag") != etag {
		t.Errorf("HEAD: %d %v", head.status, head.header)
	}
	same := get(t, http.MethodGet, cdp, http.Header{"If-None-Match": {etag}})
	if same.status != http.StatusNotModified || len(same.body) > 0 {
		t.Errorf("If-None-Match: %d with %d octets", same.status, len(same.body))
	}
	if other := get(t, http.MethodGet, cdp, http.Header{"If-None-Match": {`"other"`}}); other.status != http.StatusOK {
		t.Errorf("If-None-Match with another tag: %d", other.status)
	}
	part := get(t, http.MethodGet, cdp, http.Header{"Range": {"bytes=10-29"}, "If-Range": {etag}})
	if part.status != http.StatusPartialContent || !bytes.Equal(part.body, want.Raw[10:30]) {
		t.Errorf("Range: %d with %d octets, %v", part.status, len(part.body), part.header)
	}
	text := get(t, http.MethodGet, strings.TrimSuffix(cdp, ".crl")+".pem", nil)
	block, rest := pem.Decode(text.body)
	if block == nil || block.Type != "X509 CRL" || !bytes.Equal(block.Bytes, want.Raw) || len(rest) > 0 {
		t.Errorf("PEM: %d %.100q", text.status, text.body)
	}
	bundle := fetch(t, s.HTTP+"/crls/issuing.pem")
	var issuers [][]byte
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		issuers = append(issuers, list.RawIssuer)
	}
	if len(issuers) != 2 || !bytes.Equal(issuers[0], h.issuing.RawSubject) || !bytes.Equal(issuers[1], h.root.RawSubject) {
		t.Errorf("the bundle has %d lists, want the issuing CA's and the root's", len(issuers))
	}
	if res := get(t, http.MethodPost, cdp, nil); res.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", res.status)
	}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func get(t testing.TB, method, address string, header http.Header) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	res, err := plainHTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, body}
}

// readCRL fetches a list and checks its signature and times.
func readCRL(t testing.TB, address string, issuer *x509.Certificate) *x509.RevocationList {
	t.Helper()
	list, err := x509.ParseRevocationList(fetch(t, address))
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		t.Fatal(err)
	}
	if now := time.Now(); list.ThisUpdate.After(now) || list.NextUpdate.Before(now.Add(24*time.Hour)) || list.Number == nil || list.Number.Cmp(big.NewInt(0)) <= 0 {
		t.Fatalf("the list has number %v and holds from %s to %s", list.Number, list.ThisUpdate, list.NextUpdate)
	}
	return list
}

// firstCRL reads the first list of a PEM text.
func firstCRL(t testing.TB, text []byte) *x509.RevocationList {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no CRL in %.100q", text)
	}
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// listed returns the certificate's entry, nil if it has none.
func listed(list *x509.RevocationList, i *identity) *x509.RevocationListEntry {
	for n := range list.RevokedCertificateEntries {
		if e := &list.RevokedCertificateEntries[n]; e.SerialNumber.Cmp(i.X509.SerialNumber) == 0 {
			return e
		}
	}
	return nil
}

// waitListed waits until the certificate is on the list, as check wants it.
func waitListed(t testing.TB, limit time.Duration, cdp string, issuer *x509.Certificate, i *identity, check func(*x509.RevocationListEntry) error) time.Duration {
	t.Helper()
	return eventually(t, limit, "serial number "+i.Serial+" on the CRL", func() error {
		e := listed(readCRL(t, cdp, issuer), i)
		if e == nil {
			return errors.New("it is not listed")
		}
		if e.RevocationTime.After(time.Now()) {
			return fmt.Errorf("revoked in the future: %s", e.RevocationTime)
		}
		return check(e)
	})
}

func wantReason(code int) func(*x509.RevocationListEntry) error {
	return func(e *x509.RevocationListEntry) error {
		if e.ReasonCode != code {
			return fmt.Errorf("reason %d, want %d", e.ReasonCode, code)
		}
		return nil
	}
}

// invalidityDate returns the entry extension of RFC 5280, Section 5.3.2; the zero time if there is none.
func invalidityDate(t testing.TB, e *x509.RevocationListEntry) time.Time {
	t.Helper()
	for _, ext := range e.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 24}) {
			continue
		}
		var at time.Time
		if rest, err := asn1.UnmarshalWithParams(ext.Value, &at, "generalized"); err != nil || len(rest) > 0 || ext.Critical {
			t.Fatalf("invalidityDate %x, critical %v: %v", ext.Value, ext.Critical, err)
		}
		return at
	}
	return time.Time{}
}
