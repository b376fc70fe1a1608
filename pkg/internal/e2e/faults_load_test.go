package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/client"
)

// newFaultCSR returns a request with a key of its own, PEM.
func newFaultCSR(t testing.TB, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw}))
}

// ledger is what clients were told. What stands in it must be true for ever after.
type ledger struct {
	mu      sync.Mutex
	certs   map[string][]byte // DER by id: answered with 201
	order   []string          // the ids, as the answers came
	revoked map[string]bool   // answered with 200
	asked   map[string]bool   // revocation was asked for, whatever came of it
}

func newLedger() *ledger {
	return &ledger{certs: map[string][]byte{}, revoked: map[string]bool{}, asked: map[string]bool{}}
}

func (l *ledger) issued(c client.Certificate) error {
	block, rest := pem.Decode([]byte(c.PEM))
	if block == nil || len(bytes.TrimSpace(rest)) != 0 {
		return fmt.Errorf("answer without a certificate: %.200q", c.PEM)
	}
	if sum := sha256.Sum256(block.Bytes); hex.EncodeToString(sum[:]) != c.ID {
		return fmt.Errorf("id %s is not the certificate's fingerprint", c.ID)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, twice := l.certs[c.ID]; twice {
		return fmt.Errorf("certificate %s was issued twice", c.ID)
	}
	l.certs[c.ID] = block.Bytes
	l.order = append(l.order, c.ID)
	return nil
}

func (l *ledger) counts() (issued, revoked int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.certs), len(l.revoked)
}

// faultLoad is clients that issue, and revoke every third certificate, until they are stopped.
type faultLoad struct {
	*ledger
	cancel context.CancelFunc
	done   sync.WaitGroup
	away   atomic.Int64 // answers of 503
	broken atomic.Int64 // connections that ended without an answer
}

// startLoad starts n clients, spread over the servers. Refusals other than 503 fail the test.
func startLoad(t *testing.T, l *ledger, n int, servers ...*Server) *faultLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &faultLoad{ledger: l, cancel: cancel}
	for i := range n {
		// A server's client changes with a restart; its own is safe to keep, since ports and root stay.
		s := servers[i%len(servers)]
		c, request := s.ClientFor(s.Token), newFaultCSR(t, fmt.Sprintf("client-%d.example.com", i))
		f.done.Go(func() {
			for turn := 0; ctx.Err() == nil; turn++ {
				if err := f.once(ctx, c, request, turn%3 == 2); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	t.Cleanup(f.stop)
	return f
}

func (f *faultLoad) stop() {
	f.cancel()
	f.done.Wait()
}

func (f *faultLoad) once(ctx context.Context, c *client.Client, request string, revoke bool) error {
	cert, err := c.Issue(ctx, client.IssueRequest{CSR: request, Profile: "server"})
	if err != nil {
		return f.failed(ctx, "issuing", err)
	}
	if err := f.issued(cert); err != nil || !revoke {
		return err
	}
	f.mu.Lock()
	f.asked[cert.ID] = true
	f.mu.Unlock()
	after, err := c.Revoke(ctx, cert.ID, client.RevokeRequest{Reason: "superseded"})
	if err != nil {
		return f.failed(ctx, "revoking", err)
	}
	if after.Status != "revoked" {
		return fmt.Errorf("revoked certificate %s has the status %q", cert.ID, after.Status)
	}
	f.mu.Lock()
	f.revoked[cert.ID] = true
	f.mu.Unlock()
	return nil
}

// failed judges an error: a server that is away may end connections or answer 503, and nothing else.
func (f *faultLoad) failed(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		if e.Status != http.StatusServiceUnavailable || e.Kind() != "unavailable" {
			return fmt.Errorf("%s: want success or 503, got %d %s: %s", doing, e.Status, e.Type, e.Detail)
		}
		f.away.Add(1)
	} else {
		f.broken.Add(1)
	}
	select { // not a busy loop against a server that is away
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
	return nil
}

// reach waits until this many more certificates have been answered for.
func (f *faultLoad) reach(t testing.TB, limit time.Duration, more int) {
	t.Helper()
	before, _ := f.counts()
	eventually(t, limit, fmt.Sprintf("%d more certificates", more), func() error {
		if n, _ := f.counts(); n < before+more {
			return fmt.Errorf("%d (503: %d, broken connections: %d)", n-before, f.away.Load(), f.broken.Load())
		}
		return nil
	})
}

// How long a CRL may take: crlSoon after any revocation, and crlLease where the replica that made the CRLs was killed, so
// that its lease must end first.
const (
	crlSoon  = 2 * time.Second
	crlLease = 3*time.Second + crlSoon
)

// verify checks that everything in the ledger is so. The server must be ready, and nothing may be changing.
func (l *ledger) verify(t *testing.T, s *Server, w *crlWatch, crlLimit time.Duration) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	issuing := faultIssuer(t, s, "issuing")

	// Every certificate, byte for byte, and every revocation.
	inParallel(t, l.order, func(id string) error {
		got, err := s.Client.Certificate(t.Context(), id)
		if err != nil {
			return fmt.Errorf("certificate %s, which a client has: %w", id, err)
		}
		block, _ := pem.Decode([]byte(got.PEM))
		if block == nil || !bytes.Equal(block.Bytes, l.certs[id]) {
			return fmt.Errorf("certificate %s differs from what its client got", id)
		}
		switch {
		case l.revoked[id] && (got.Status != "revoked" || got.Revocation == nil || got.Revocation.Reason != "superseded"):
			return fmt.Errorf("certificate %s was revoked, and is %s", id, got.Status)
		case !l.asked[id] && got.Status != "valid":
			return fmt.Errorf("certificate %s is %s; nobody asked for that", id, got.Status)
		}
		return nil
	})

	// No serial number twice, among all that the store has.
	serials, total := map[string]bool{}, 0
	for c, err := range s.Client.Certificates(t.Context(), client.CertificateQuery{Limit: 1000}) {
		if err != nil {
			t.Fatal(err)
		}
		if name := c.Issuer + " " + c.Serial; serials[name] {
			t.Errorf("serial number %s twice", name)
		} else {
			serials[name] = true
		}
		total++
	}

	// The CRL has every revocation soon, and no other that nobody asked for.
	var list *x509.RevocationList
	took := eventually(t, crlLimit, "every revocation in the CRL", func() error {
		list = w.fetch(s, issuing.keyID)
		if list == nil {
			return errors.New("no CRL")
		}
		in := map[string]bool{}
		for _, e := range list.RevokedCertificateEntries {
			in[e.SerialNumber.String()] = true
		}
		missing := 0
		for id := range l.revoked {
			if !in[serialOf(t, l.certs[id]).String()] {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d are missing", missing, len(l.revoked))
		}
		return nil
	})
	if err := list.CheckSignatureFrom(issuing.cert); err != nil {
		t.Errorf("the CRL's signature: %v", err)
	}
	asked := map[string]bool{}
	for id := range l.asked {
		asked[serialOf(t, l.certs[id]).String()] = true
	}
	for _, e := range list.RevokedCertificateEntries {
		if !asked[e.SerialNumber.String()] {
			t.Errorf("the CRL has %x, whose revocation nobody asked for", e.SerialNumber)
		}
	}

	// So has the list that each certificate names.
	byList := map[string][]*big.Int{}
	for id := range l.revoked {
		c, err := x509.ParseCertificate(l.certs[id])
		if err != nil {
			t.Fatal(err)
		}
		name := listOf(c)
		byList[name] = append(byList[name], c.SerialNumber)
	}
	for name, serials := range byList {
		eventually(t, crlLimit, "every revocation in the CRL "+name, func() error {
			list := w.fetch(s, name)
			if list == nil {
				return errors.New("no CRL")
			}
			in := map[string]bool{}
			for _, e := range list.RevokedCertificateEntries {
				in[e.SerialNumber.String()] = true
			}
			for _, n := range serials {
				if !in[n.String()] {
					return fmt.Errorf("%x is missing", n)
				}
			}
			return nil
		})
	}

	// OCSP, of the newest.
	sample := l.order[max(0, len(l.order)-300):]
	inParallel(t, sample, func(id string) error {
		switch status, err := askOCSP(s, issuing, serialOf(t, l.certs[id])); {
		case err != nil:
			return err
		case l.revoked[id] && status != ocsp.Revoked:
			return fmt.Errorf("OCSP says %d of certificate %s, which is revoked", status, id)
		case !l.asked[id] && status != ocsp.Good:
			return fmt.Errorf("OCSP says %d of certificate %s, which is good", status, id)
		}
		return nil
	})

	v, err := s.Client.VerifyAudit(t.Context())
	if err != nil || !v.Whole {
		t.Errorf("the audit chain: %+v, %v", v, err)
	}
	if int(v.Records) < total {
		t.Errorf("%d audit records for %d certificates", v.Records, total)
	}
	t.Logf("%d certificates and %d revocations answered for, %d in the store; in the CRL after %s", len(l.certs), len(l.revoked), total, took)
}

// inParallel calls check for each id, a few at a time, and reports the first errors.
func inParallel(t testing.TB, ids []string, check func(id string) error) {
	t.Helper()
	var wg sync.WaitGroup
	work, wrong := make(chan string), make(chan error, len(ids))
	for range 8 {
		wg.Go(func() {
			for id := range work {
				if err := check(id); err != nil {
					wrong <- err
				}
			}
		})
	}
	for _, id := range ids {
		work <- id
	}
	close(work)
	wg.Wait()
	close(wrong)
	shown := 0
	for err := range wrong {
		if shown++; shown <= 5 {
			t.Error(err)
		}
	}
	if shown > 5 {
		t.Errorf("... and %d more", shown-5)
	}
}

func serialOf(t testing.TB, der []byte) *big.Int {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Errorf("a certificate cannot be read: %v", err)
		return new(big.Int)
	}
	return c.SerialNumber
}

func serialOfPEM(t testing.TB, c client.Certificate) *big.Int {
	t.Helper()
	return parseCertificate(t, []byte(c.PEM)).SerialNumber
}

// faultCA is an issuer as verifiers know it.
type faultCA struct {
	cert  *x509.Certificate
	keyID string
}

func faultIssuer(t testing.TB, s *Server, name string) faultCA {
	t.Helper()
	i, err := s.Client.Issuer(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return faultCA{parseCertificate(t, []byte(i.PEM)), i.KeyID}
}

// errTryLater is OCSP's tryLater, and errUnauthorized its unauthorized.
var (
	errTryLater     = errors.New("OCSP: tryLater")
	errUnauthorized = errors.New("OCSP: unauthorized")
)

// askOCSP returns the status of a serial number: ocsp.Good, ocsp.Revoked or ocsp.Unknown. The answer's signature, and
// its times by this machine's clock, have been checked.
func askOCSP(s *Server, by faultCA, serial *big.Int) (int, error) {
	request, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: serial}, by.cert, nil)
	if err != nil {
		return 0, err
	}
	res, err := plainHTTP.Get(s.HTTP + "/ocsp/" + by.keyID + "/" + strings.ReplaceAll(base64.StdEncoding.EncodeToString(request), "/", "%2F"))
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("OCSP answers %s", res.Status)
	}
	answer, err := ocsp.ParseResponseForCert(body, &x509.Certificate{SerialNumber: serial}, by.cert)
	if e, ok := errors.AsType[ocsp.ResponseError](err); ok {
		switch e.Status {
		case ocsp.TryLater:
			return 0, errTryLater
		case ocsp.Unauthorized:
			return 0, errUnauthorized
		}
	}
	if err != nil {
		return 0, err
	}
	if now := time.Now(); now.Before(answer.ThisUpdate) || now.After(answer.NextUpdate) {
		return 0, fmt.Errorf("OCSP answer is good from %s to %s, and it is %s", answer.ThisUpdate, answer.NextUpdate, now)
	}
	return answer.Status, nil
}

// crlWatch fetches CRLs and holds against them what verifiers rely on: one number has one content, wherever it is
// fetched, and neither number nor thisUpdate ever goes back on a server.
type crlWatch struct {
	t       testing.TB
	mu      sync.Mutex
	content map[string][32]byte             // of key id and number
	newest  map[string]*x509.RevocationList // by server and key id
	highest map[string]*big.Int             // by key id, on any server
	seen    int
}

func newCRLWatch(t testing.TB) *crlWatch {
	return &crlWatch{t: t, content: map[string][32]byte{}, newest: map[string]*x509.RevocationList{}, highest: map[string]*big.Int{}}
}

// fetch returns the CRL that the server serves, DER; nil if it cannot be reached or has none.
func (w *crlWatch) fetch(s *Server, keyID string) *x509.RevocationList {
	// In two steps, so that what is held against it is in the order in which it was asked for.
	w.mu.Lock()
	before := w.newest[s.HTTP+keyID]
	w.mu.Unlock()
	res, err := plainHTTP.Get(s.HTTP + "/crl/" + keyID + ".crl")
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode == http.StatusServiceUnavailable {
		return nil
	}
	if before == nil && res.StatusCode == http.StatusNotFound {
		return nil // a list of another replica, which this one has not heard of yet
	}
	if res.StatusCode != http.StatusOK {
		w.t.Errorf("GET CRL: %s", res.Status)
		return nil
	}
	list, err := x509.ParseRevocationList(body)
	if err != nil {
		w.t.Errorf("a CRL that cannot be read: %v", err)
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen++
	name, sum := keyID+" "+list.Number.String(), sha256.Sum256(body)
	if other, known := w.content[name]; known && other != sum {
		w.t.Errorf("two CRLs of key %s have the number %s", keyID, list.Number)
	}
	w.content[name] = sum
	if before != nil && list.Number.Cmp(before.Number) < 0 {
		w.t.Errorf("%s: CRL number went back from %s to %s", s.HTTP, before.Number, list.Number)
	}
	if before != nil && list.ThisUpdate.Before(before.ThisUpdate) {
		w.t.Errorf("%s: thisUpdate went back from %s to %s", s.HTTP, before.ThisUpdate, list.ThisUpdate)
	}
	if at := w.newest[s.HTTP+keyID]; at == nil || at.Number.Cmp(list.Number) < 0 {
		w.newest[s.HTTP+keyID] = list
	}
	if at := w.highest[keyID]; at == nil || at.Cmp(list.Number) < 0 {
		w.highest[keyID] = list.Number
	}
	return list
}

// number returns the highest number of a key's CRL that has been seen.
func (w *crlWatch) number(keyID string) *big.Int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.highest[keyID]; n != nil {
		return n
	}
	return new(big.Int)
}

// fetched returns how many CRLs have been looked at.
func (w *crlWatch) fetched() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

// follow fetches the CRLs of the servers again and again until the test ends or stop is called.
func (w *crlWatch) follow(t *testing.T, keyIDs []string, servers ...*Server) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	for _, s := range servers {
		done.Go(func() {
			for ctx.Err() == nil {
				for _, id := range keyIDs {
					w.fetch(s, id)
				}
				select {
				case <-ctx.Done():
				case <-time.After(30 * time.Millisecond):
				}
			}
		})
	}
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return stop
}

func issuerKeyIDs(t testing.TB, s *Server) (ids []string) {
	t.Helper()
	issuers, err := s.Client.Issuers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range issuers {
		ids = append(ids, i.KeyID)
	}
	return ids
}

// listOf names the list that a certificate names, as crlWatch does.
func listOf(c *x509.Certificate) string {
	_, name, _ := strings.Cut(c.CRLDistributionPoints[0], "/crl/")
	return strings.TrimSuffix(name, ".crl")
}

// listsOfForms has the issuing CA make lists of every form, and returns the names of the lists that there are.
func listsOfForms(t testing.TB, s *Server) []string {
	t.Helper()
	if _, err := s.Client.PutIssuerSettings(t.Context(), "issuing", 0, json.RawMessage(`{"crl":{"form":"sharded","shards":2,"delta":{}}}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the lists of a sharded issuer", func() error {
		now, err := s.Client.IssuerSettings(t.Context(), "issuing")
		if err == nil && now.InForce.Pending != nil {
			err = errors.New("they are being made")
		}
		return err
	})
	key := faultIssuer(t, s, "issuing").keyID
	names := issuerKeyIDs(t, s)
	for _, scope := range []string{"full/delta", "ca", "s2/0", "s2/0/delta", "s2/1"} {
		names = append(names, key+"/"+scope)
	}
	return names
}

// checkStore runs the store's own check. On SQLite the server must have ended.
func checkStore(t testing.TB, s *Server) {
	t.Helper()
	if r := s.CLI("store", "check"); r.Code != 0 {
		t.Errorf("store check: code %d\n%s%s", r.Code, r.Out, r.Err)
	}
}
