package ocsp_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/ocsp"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

var base = time.Date(2026, 5, 4, 3, 2, 1, 500e6, time.UTC)

// ask makes a request for a serial number of the CA's, without a nonce.
func ask(t testing.TB, ca *certtest.CA, serial *big.Int, hash crypto.Hash) []byte {
	t.Helper()
	b, err := xocsp.CreateRequest(&x509.Certificate{SerialNumber: serial}, ca.Certificate, &xocsp.RequestOptions{Hash: hash})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parts takes a request of ask's apart.
func parts(t testing.TB, der []byte) certID {
	t.Helper()
	x, err := xocsp.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	oid := map[crypto.Hash]asn1.ObjectIdentifier{crypto.SHA1: oidSHA1, crypto.SHA256: oidSHA256}[x.HashAlgorithm]
	return certID{Hash: algorithm{OID: oid, Params: asn1.NullRawValue}, Name: x.IssuerNameHash, Key: x.IssuerKeyHash, Serial: x.SerialNumber}
}

// withNonce adds a nonce to a request.
func withNonce(t testing.TB, der []byte, n extension) []byte {
	t.Helper()
	r := of(parts(t, der))
	r.TBS.Extensions = []extension{n}
	return marshal(t, r)
}

// read checks an answer's signature as verifiers do, and reads it.
func read(t testing.TB, ca *certtest.CA, a ocsp.Answer) *xocsp.Response {
	t.Helper()
	if a.Status != ocsp.Successful {
		t.Fatalf("got %s, want an answer", a.Status)
	}
	r, err := xocsp.ParseResponse(a.DER(), ca.Certificate)
	if err != nil {
		t.Fatalf("ParseResponse(%x): %v", a.DER(), err)
	}
	return r
}

func TestStatuses(t *testing.T) {
	e := setup(t, base)
	good := e.Issuing.Issue(t, e.store, base, nil)
	ended := e.Issuing.Issue(t, e.store, base, &x509.Certificate{NotBefore: base.AddDate(-1, 0, 0), NotAfter: base.Add(-time.Hour)})
	compromised := e.Issuing.Issue(t, e.store, base, nil)
	certtest.Change(t, e.store, compromised.Record, pki.ActionRevoke, pki.KeyCompromise, base.Add(-time.Minute))
	unspecified := e.Issuing.Issue(t, e.store, base, nil)
	certtest.Change(t, e.store, unspecified.Record, pki.ActionRevoke, pki.Unspecified, base)
	held := e.Issuing.Issue(t, e.store, base, nil)
	certtest.Change(t, e.store, held.Record, pki.ActionHold, pki.Unspecified, base)
	released := e.Issuing.Issue(t, e.store, base, nil)
	certtest.Change(t, e.store, released.Record, pki.ActionHold, pki.Unspecified, base)
	certtest.Change(t, e.store, released.Record, pki.ActionRelease, pki.Unspecified, base)

	tests := []struct {
		name   string
		ca     *certtest.CA
		serial *big.Int
		status int
		reason int
	}{
		{"good", e.Issuing, good.Certificate.SerialNumber, xocsp.Good, 0},
		{"ended", e.Issuing, ended.Certificate.SerialNumber, xocsp.Good, 0},
		{"revoked", e.Issuing, compromised.Certificate.SerialNumber, xocsp.Revoked, xocsp.KeyCompromise},
		{"unspecified", e.Issuing, unspecified.Certificate.SerialNumber, xocsp.Revoked, 0},
		{"held", e.Issuing, held.Certificate.SerialNumber, xocsp.Revoked, xocsp.CertificateHold},
		{"released", e.Issuing, released.Certificate.SerialNumber, xocsp.Good, 0},
		{"issuing CA's own certificate, by the root", e.Root, e.Issuing.Certificate.SerialNumber, xocsp.Good, 0},
		{"root's own certificate", e.Root, e.Root.Certificate.SerialNumber, xocsp.Good, 0},
	}
	for _, test := range tests {
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			t.Run(fmt.Sprint(test.name, " ", hash), func(t *testing.T) {
				der := ask(t, test.ca, test.serial, hash)
				for _, again := range []bool{false, true} {
					a := e.responder.Respond(t.Context(), der)
					r := read(t, test.ca, a)
					if r.Status != test.status || r.RevocationReason != test.reason || r.SerialNumber.Cmp(test.serial) != 0 || r.IssuerHash != hash {
						t.Errorf("got status %d, reason %d, hash %v; want %d, %d, %v", r.Status, r.RevocationReason, r.IssuerHash, test.status, test.reason, hash)
					}
					if want := base.Add(-5 * time.Minute).Truncate(time.Second); !r.ThisUpdate.Equal(want) || !a.ThisUpdate.Equal(want) {
						t.Errorf("thisUpdate: got %v and %v, want %v", r.ThisUpdate, a.ThisUpdate, want)
					}
					if want := base.Add(10 * time.Minute).Truncate(time.Second); !r.NextUpdate.Equal(want) || !a.NextUpdate.Equal(want) {
						t.Errorf("nextUpdate: got %v and %v, want %v", r.NextUpdate, a.NextUpdate, want)
					}
					if !a.Cacheable || a.ETag == "" || a.MaxAge != time.Minute {
						t.Errorf("again %v: got %+v, want a minute in caches", again, a)
					}
					if r.Certificate == nil || len(r.ResponderKeyHash) != 20 {
						t.Errorf("the answer has no certificate or its responderID is not byKey")
					}
					if test.ca == e.Root && !r.Certificate.Equal(e.Root.Certificate) {
						t.Error("the root's own certificate is not in its answer")
					}
				}
			})
		}
	}
	if m := e.responder.Metrics(); m.Cached != int64(2*len(tests)) || m.Signed != int64(2*len(tests)) || m.Kept != 2*len(tests) {
		t.Errorf("got %+v, want each answer signed once and then given from memory", m)
	}
}

func TestUnsignedAnswers(t *testing.T) {
	e := setup(t, base)
	leaf := e.Issuing.Issue(t, e.store, base, nil)
	foreign := setup(t, base)
	revoked := e.Issuing.Stub(t, e.store, base, base.AddDate(1, 0, 0))
	certtest.Change(t, e.store, revoked, pki.ActionRevoke, pki.Unspecified, base)

	two := func(a, b []byte) []byte { return marshal(t, of(parts(t, a), parts(t, b))) }
	good := ask(t, e.Issuing, leaf.Certificate.SerialNumber, crypto.SHA1)
	unknown := ask(t, e.Issuing, big.NewInt(0x4101), crypto.SHA1)
	tests := []struct {
		name string
		der  []byte
		want ocsp.ResponseStatus
	}{
		{"never issued", unknown, ocsp.Unauthorized},
		{"never issued, with a nonce", withNonce(t, unknown, nonce(16)), ocsp.Unauthorized},
		{"one of two never issued", two(good, unknown), ocsp.Unauthorized},
		{"the other key's serial", ask(t, e.Root, leaf.Certificate.SerialNumber, crypto.SHA256), ocsp.Unauthorized},
		{"foreign issuer", ask(t, foreign.Issuing, leaf.Certificate.SerialNumber, crypto.SHA1), ocsp.Unauthorized},
		{"SHA-512", ask(t, e.Issuing, leaf.Certificate.SerialNumber, crypto.SHA512), ocsp.Unauthorized},
		{"two issuers", two(good, ask(t, e.Root, e.Issuing.Certificate.SerialNumber, crypto.SHA1)), ocsp.Unauthorized},
		{"nine", marshal(t, of(many(9)...)), ocsp.Unauthorized},
		{"serial that cannot be", ask(t, e.Issuing, new(big.Int).Lsh(big.NewInt(1), 170), crypto.SHA1), ocsp.Unauthorized},
		{"garbage", []byte("garbage"), ocsp.MalformedRequest},
		{"nothing", nil, ocsp.MalformedRequest},
		{"long nonce", withNonce(t, good, nonce(129)), ocsp.MalformedRequest},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := e.responder.Respond(t.Context(), test.der)
			if a.Status != test.want || a.Cacheable || a.ETag != "" {
				t.Errorf("got %+v, want %v and not to be kept", a, test.want)
			}
			_, err := xocsp.ParseResponse(a.DER(), e.Issuing.Certificate)
			var re xocsp.ResponseError
			if !errors.As(err, &re) || int(re.Status) != int(test.want) {
				t.Errorf("x/crypto reads %v, want %v", err, test.want)
			}
		})
	}
	if m := e.responder.Metrics(); m.Signed != 0 || m.Kept != 0 {
		t.Errorf("got %+v, want nothing signed or kept", m)
	}

	// Issued a second later: nobody remembers that it was not.
	late := e.Issuing.Stub(t, e.store, base, base.AddDate(1, 0, 0))
	if r := read(t, e.Issuing, e.responder.Respond(t.Context(), ask(t, e.Issuing, new(big.Int).SetBytes(late.Serial.Bytes()), crypto.SHA1))); r.Status != xocsp.Good {
		t.Errorf("a certificate issued just now: got %d, want good", r.Status)
	}
	// Two of one issuer get one answer, which is not kept.
	a := e.responder.Respond(t.Context(), two(good, ask(t, e.Issuing, new(big.Int).SetBytes(revoked.Serial.Bytes()), crypto.SHA256)))
	if a.Status != ocsp.Successful || a.Cacheable {
		t.Fatalf("two certificates of one issuer: got %+v", a)
	}
	for serial, want := range map[*big.Int]int{leaf.Certificate.SerialNumber: xocsp.Good, new(big.Int).SetBytes(revoked.Serial.Bytes()): xocsp.Revoked} {
		r, err := xocsp.ParseResponseForCert(a.DER(), &x509.Certificate{SerialNumber: serial}, e.Issuing.Certificate)
		if err != nil || r.Status != want {
			t.Errorf("%x in an answer for two: got %+v, %v; want status %d", serial, r, err, want)
		}
	}
}

func TestNonceIsEchoed(t *testing.T) {
	e := setup(t, base)
	leaf := e.Issuing.Issue(t, e.store, base, nil)
	plain := ask(t, e.Issuing, leaf.Certificate.SerialNumber, crypto.SHA1)
	for _, n := range []extension{nonce(1), nonce(32), nonce(128), {OID: oidNonce, Value: []byte("unwrapped")}} {
		a := e.responder.Respond(t.Context(), withNonce(t, plain, n))
		read(t, e.Issuing, a)
		want, _ := asn1.Marshal(extension{OID: oidNonce, Value: n.Value})
		if a.Cacheable || !bytes.Contains(a.DER(), want) {
			t.Errorf("nonce %x: not echoed byte for byte, or cacheable: %+v", n.Value, a)
		}
	}
	if m := e.responder.Metrics(); m.Kept != 0 || m.Signed != 4 {
		t.Errorf("got %+v, want four answers and none kept", m)
	}
}

func TestSignedUnknown(t *testing.T) {
	e := setup(t, base, func(c *ocsp.Config) { c.SignUnknown, c.UnknownRate = true, 3 })
	der := ask(t, e.Issuing, big.NewInt(0x4101), crypto.SHA256)
	for range 3 {
		a := e.responder.Respond(t.Context(), der)
		if r := read(t, e.Issuing, a); r.Status != xocsp.Unknown || a.Cacheable {
			t.Fatalf("got status %d, cacheable %v; want unknown, and not to be kept", r.Status, a.Cacheable)
		}
	}
	if a := e.responder.Respond(t.Context(), der); a.Status != ocsp.Unauthorized {
		t.Errorf("beyond the rate: got %v, want unauthorized", a.Status)
	}
	if m := e.responder.Metrics(); m.Kept != 0 {
		t.Errorf("%d answers are kept, want none", m.Kept)
	}
}

func TestTryLater(t *testing.T) {
	e := setup(t, base)
	leaf := e.Issuing.Issue(t, e.store, base, nil)
	other := e.Issuing.Issue(t, e.store, base, nil)
	kept := ask(t, e.Issuing, leaf.Certificate.SerialNumber, crypto.SHA1)
	cold := ask(t, e.Issuing, other.Certificate.SerialNumber, crypto.SHA1)
	read(t, e.Issuing, e.responder.Respond(t.Context(), kept))

	e.set(base, 61*time.Second)
	for name, der := range map[string][]byte{"kept": kept, "cold": cold, "nonce": withNonce(t, kept, nonce(8))} {
		if a := e.responder.Respond(t.Context(), der); a.Status != ocsp.TryLater || a.Cacheable {
			t.Errorf("%s, when nothing was heard of the store for a minute: got %v, want tryLater", name, a.Status)
		}
	}
	e.set(base, 0)
	e.delegates.set(e.Issuing.KeyID, nil, errors.New("no delegate today"))
	if a := e.responder.Respond(t.Context(), cold); a.Status != ocsp.TryLater {
		t.Errorf("without a delegate: got %v, want tryLater", a.Status)
	}
	read(t, e.Issuing, e.responder.Respond(t.Context(), kept))
	e.delegates.set(e.Issuing.KeyID, nil, nil)
	e.delegate(base.Add(500 * time.Millisecond))
	if a := e.responder.Respond(t.Context(), cold); a.Status != ocsp.TryLater {
		t.Errorf("with a delegate that has ended: got %v, want tryLater", a.Status)
	}
	e.delegate(base.Add(time.Minute))
	a := e.responder.Respond(t.Context(), cold)
	if r := read(t, e.Issuing, a); r.NextUpdate.After(base.Add(time.Minute)) || a.MaxAge >= time.Minute {
		t.Errorf("nextUpdate %v or max-age %v lie beyond the delegate's end", r.NextUpdate, a.MaxAge)
	}
	// A clock that jumped ahead signs nothing, and what is kept has ended by it.
	jumped := clock.New(e.time, func() time.Duration { return 0 })
	e2 := setup(t, base, func(c *ocsp.Config) { c.Clock = jumped })
	leaf2 := e2.Issuing.Issue(t, e2.store, base, nil)
	e.set(base.Add(3*time.Hour), 0)
	if a := e2.responder.Respond(t.Context(), ask(t, e2.Issuing, leaf2.Certificate.SerialNumber, crypto.SHA1)); a.Status != ocsp.TryLater {
		t.Errorf("with a clock that jumped: got %v, want tryLater", a.Status)
	}
	// The store is away.
	e3 := setup(t, base)
	leaf3 := e3.Issuing.Issue(t, e3.store, base, nil)
	if err := e3.store.Close(); err != nil {
		t.Fatal(err)
	}
	if a := e3.responder.Respond(t.Context(), ask(t, e3.Issuing, leaf3.Certificate.SerialNumber, crypto.SHA1)); a.Status != ocsp.TryLater {
		t.Errorf("with a closed store: got %v, want tryLater", a.Status)
	}
}

// What is kept is given without asking anybody, under the rules that Respond has, and counted as there.
func TestKept(t *testing.T) {
	e := setup(t, base)
	leaf := e.Issuing.Issue(t, e.store, base, nil)
	der := ask(t, e.Issuing, leaf.Certificate.SerialNumber, crypto.SHA1)
	find := func() *ocsp.Kept {
		t.Helper()
		e.responder.Respond(t.Context(), der)
		kept := e.responder.Kept(der)
		if kept == nil {
			t.Fatal("nothing is kept")
		}
		return kept
	}
	none := func(when string, request []byte) {
		t.Helper()
		if kept := e.responder.Kept(request); kept != nil {
			t.Errorf("%s: something is kept", when)
		}
	}
	none("before anybody has asked", der)
	first := e.responder.Respond(t.Context(), der)
	kept := find()
	for range 2 {
		if a, ok := kept.Answer(); !ok || !bytes.Equal(a.DER(), first.DER()) || a.MaxAge != first.MaxAge {
			t.Errorf("got %+v, %v; want %+v", a, ok, first)
		}
	}
	if m := e.responder.Metrics(); m.Successful != 4 || m.Cached != 3 || m.Signed != 1 {
		t.Errorf("got %+v, want four answers, three of them from memory", m)
	}
	none("in another form", ask(t, e.Issuing, leaf.Certificate.SerialNumber, crypto.SHA256))
	none("with a nonce", withNonce(t, der, nonce(16)))
	none("of a stranger's", ask(t, setup(t, base).Issuing, leaf.Certificate.SerialNumber, crypto.SHA1))
	none("garbage", []byte("garbage"))

	ends := func(when string, do func()) {
		t.Helper()
		kept := find()
		do()
		if a, ok := kept.Answer(); ok {
			t.Errorf("%s: got %+v, want nothing", when, a)
		}
	}
	ends("when nothing was heard of the store for a minute", func() { e.set(base, 61*time.Second) })
	e.set(base, 0)
	if _, ok := kept.Answer(); !ok {
		t.Error("it was lost")
	}
	ends("before thisUpdate", func() { e.set(base.Add(-6*time.Minute), 0) })
	e.set(base, 0)
	ends("after a change", func() { e.responder.Forget(leaf.Record.IssuerKeyID, leaf.Record.Serial) })
	none("after a change", der)
	ends("when there are other issuers", func() {
		if err := e.issuers.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	ends("when all is forgotten", func() {
		if err := e.responder.Follow(t.Context(), store.Head{}); err != nil {
			t.Fatal(err)
		}
	})
	ends("after half of its time", func() { e.set(base.Add(301*time.Second), 0) })
}

func TestKeptAnswersAreMadeAnewAtHalfTheirTime(t *testing.T) {
	e := setup(t, base, func(c *ocsp.Config) { c.CacheEntries = 64 })
	leaf := e.Issuing.Issue(t, e.store, base, nil)
	der := ask(t, e.Issuing, leaf.Certificate.SerialNumber, crypto.SHA1)
	first := e.responder.Respond(t.Context(), der)
	e.set(base.Add(299*time.Second), 0)
	if again := e.responder.Respond(t.Context(), der); !bytes.Equal(again.DER(), first.DER()) || again.ETag != first.ETag {
		t.Error("another answer before half of its time")
	}
	e.set(base.Add(301*time.Second), 0)
	if again := e.responder.Respond(t.Context(), der); bytes.Equal(again.DER(), first.DER()) || again.ETag == first.ETag {
		t.Error("the same answer after half of its time")
	}
	for range 300 {
		c := e.Issuing.Stub(t, e.store, base, base.AddDate(1, 0, 0))
		read(t, e.Issuing, e.responder.Respond(t.Context(), ask(t, e.Issuing, new(big.Int).SetBytes(c.Serial.Bytes()), crypto.SHA1)))
	}
	if m := e.responder.Metrics(); m.Kept > 64 {
		t.Errorf("%d answers are kept, want 64 at the most", m.Kept)
	}
}

func TestFollow(t *testing.T) {
	e := setup(t, base)
	leaf := e.Issuing.Issue(t, e.store, base, nil)
	der := ask(t, e.Issuing, leaf.Certificate.SerialNumber, crypto.SHA1)
	follow := func() {
		t.Helper()
		head, err := e.store.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := e.responder.Follow(t.Context(), head); err != nil {
			t.Fatal(err)
		}
	}
	status := func(want int) {
		t.Helper()
		if r := read(t, e.Issuing, e.responder.Respond(t.Context(), der)); r.Status != want {
			t.Errorf("got status %d, want %d", r.Status, want)
		}
	}
	status(xocsp.Good)
	certtest.Change(t, e.store, leaf.Record, pki.ActionHold, pki.Unspecified, base)
	follow() // the first head drops whatever is kept
	status(xocsp.Revoked)
	certtest.Change(t, e.store, leaf.Record, pki.ActionRelease, pki.Unspecified, base)
	status(xocsp.Revoked) // nobody has said so yet
	follow()
	status(xocsp.Good)
	for range 3 {
		c := e.Issuing.Stub(t, e.store, base, base.AddDate(1, 0, 0))
		certtest.Change(t, e.store, c, pki.ActionRevoke, pki.Superseded, base)
	}
	certtest.Change(t, e.store, leaf.Record, pki.ActionRevoke, pki.KeyCompromise, base)
	follow()
	status(xocsp.Revoked)
	signed := e.responder.Metrics().Signed
	follow()
	status(xocsp.Revoked)
	if m := e.responder.Metrics(); m.Signed != signed {
		t.Error("a head without news dropped an answer")
	}
}

// countingStore counts how often it is asked for a status.
type countingStore struct {
	store.Store
	asked atomic.Int64
}

func (c *countingStore) Status(ctx context.Context, issuerKeyID int64, n pki.SerialNumber) (*pki.Revocation, error) {
	c.asked.Add(1)
	return c.Store.Status(ctx, issuerKeyID, n)
}

// TestNoncesAskTheStoreOnce: answers with a nonce are signed each, on a status that is known until it changes, for at most half
// of what an answer is good for, and of no more certificates than there is room for. What was never issued is not remembered.
func TestNoncesAskTheStoreOnce(t *testing.T) {
	var counting countingStore
	e := setup(t, base, func(c *ocsp.Config) {
		counting.Store = c.Store.(store.Store)
		c.Store, c.CacheEntries, c.SignUnknown = &counting, 64, true
	})
	asks := func(serial pki.SerialNumber, want int, times int64) {
		t.Helper()
		before := counting.asked.Load()
		for i := range 3 {
			der := withNonce(t, ask(t, e.Issuing, new(big.Int).SetBytes(serial.Bytes()), []crypto.Hash{crypto.SHA1, crypto.SHA256}[i%2]), nonce(8+i))
			if r := read(t, e.Issuing, e.responder.Respond(t.Context(), der)); r.Status != want {
				t.Errorf("got status %d, want %d", r.Status, want)
			}
		}
		if n := counting.asked.Load() - before; n != times {
			t.Errorf("the store was asked %d times for three answers, want %d", n, times)
		}
	}
	c := e.Issuing.Stub(t, e.store, base, base.AddDate(1, 0, 0))
	asks(c.Serial, xocsp.Good, 1)
	asks(c.Serial, xocsp.Good, 0)
	certtest.Change(t, counting.Store, c, pki.ActionHold, pki.Unspecified, base)
	e.responder.Forget(c.IssuerKeyID, c.Serial)
	asks(c.Serial, xocsp.Revoked, 1)
	certtest.Change(t, counting.Store, c, pki.ActionRelease, pki.Unspecified, base)
	head, err := counting.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := e.responder.Follow(t.Context(), head); err != nil {
		t.Fatal(err)
	}
	asks(c.Serial, xocsp.Good, 1)
	e.set(base.Add(299*time.Second), 0)
	asks(c.Serial, xocsp.Good, 0)
	e.set(base.Add(301*time.Second), 0)
	asks(c.Serial, xocsp.Good, 1)
	never, err := pki.SerialNumberFromBytes([]byte{0x41, 1})
	if err != nil {
		t.Fatal(err)
	}
	asks(never, xocsp.Unknown, 3)
	for range 300 {
		asks(e.Issuing.Stub(t, counting.Store, base, base.AddDate(1, 0, 0)).Serial, xocsp.Good, 1)
	}
	if n := ocsp.Known(e.responder); n > 64 {
		t.Errorf("%d statuses are known, want 64 at the most", n)
	}
}

// slowStore holds answers of Status back for a while, so that changes happen between the reading and the signing.
type slowStore struct{ store.Store }

func (s slowStore) Status(ctx context.Context, issuerKeyID int64, n pki.SerialNumber) (*pki.Revocation, error) {
	r, err := s.Store.Status(ctx, issuerKeyID, n)
	time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
	return r, err
}

// meddlingStore calls a function after it has read a status and before it returns it.
type meddlingStore struct {
	store.Store
	meddle func()
}

func (m *meddlingStore) Status(ctx context.Context, issuerKeyID int64, n pki.SerialNumber) (*pki.Revocation, error) {
	r, err := m.Store.Status(ctx, issuerKeyID, n)
	if f := m.meddle; f != nil {
		m.meddle = nil
		f()
	}
	return r, err
}

func TestRevokedWhileAnswering(t *testing.T) {
	m := &meddlingStore{}
	e := setup(t, base, func(c *ocsp.Config) {
		m.Store = c.Store.(store.Store)
		c.Store = m
	})
	for _, with := range []string{"no nonce", "nonce"} {
		t.Run(with, func(t *testing.T) {
			c := e.Issuing.Stub(t, e.store, base, base.AddDate(1, 0, 0))
			der := ask(t, e.Issuing, new(big.Int).SetBytes(c.Serial.Bytes()), crypto.SHA1)
			if with == "nonce" {
				der = withNonce(t, der, nonce(8))
			}
			m.meddle = func() {
				certtest.Change(t, m.Store, c, pki.ActionRevoke, pki.KeyCompromise, base)
				e.responder.Forget(c.IssuerKeyID, c.Serial)
			}
			for _, when := range []string{"the question that was being answered", "the next question"} {
				if r := read(t, e.Issuing, e.responder.Respond(t.Context(), der)); r.Status != xocsp.Revoked {
					t.Errorf("%s: got status %d, want revoked", when, r.Status)
				}
			}
		})
	}
}

// TestNeverGoodAfterForget revokes while many ask, with and without nonces and in all forms, and checks every answer to a
// question that began after Forget had returned.
func TestNeverGoodAfterForget(t *testing.T) {
	const certificates, clients = 40, 8
	var slow slowStore
	e := setup(t, base, func(c *ocsp.Config) {
		slow.Store = c.Store.(store.Store)
		c.Store, c.CacheEntries = slow, 256
	})
	type subject struct {
		record  pki.Certificate
		forms   [][]byte
		revoked atomic.Bool
	}
	subjects := make([]*subject, certificates)
	for i := range subjects {
		s := &subject{record: e.Issuing.Stub(t, e.store, base, base.AddDate(1, 0, 0))}
		n := new(big.Int).SetBytes(s.record.Serial.Bytes())
		s.forms = [][]byte{ask(t, e.Issuing, n, crypto.SHA1), ask(t, e.Issuing, n, crypto.SHA256)}
		s.forms = append(s.forms, withNonce(t, s.forms[0], nonce(16)))
		subjects[i] = s
	}
	ctx, stop := context.WithCancel(t.Context())
	var asking, answered, current atomic.Int64
	var clientsDone sync.WaitGroup
	for range clients {
		clientsDone.Go(func() {
			for ctx.Err() == nil {
				s := subjects[min(int(current.Load())+rand.IntN(3), len(subjects)-1)]
				before := s.revoked.Load()
				asking.Add(1)
				a := e.responder.Respond(t.Context(), s.forms[rand.IntN(len(s.forms))])
				if a.Status == ocsp.TryLater {
					continue // too many changes at once; never wrong
				}
				r, err := xocsp.ParseResponse(a.DER(), e.Issuing.Certificate)
				if err != nil {
					t.Errorf("answer: %v", err)
					return
				}
				answered.Add(1)
				if before && r.Status != xocsp.Revoked {
					t.Errorf("%s is %d after Forget returned, want revoked", s.record.Serial, r.Status)
				}
			}
		})
	}
	for i, s := range subjects {
		current.Store(int64(max(i-1, 0)))
		e.responder.Forget(s.record.IssuerKeyID, s.record.Serial) // so that answers are in the making when it is revoked
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
		certtest.Change(t, e.store, s.record, pki.ActionRevoke, pki.KeyCompromise, base)
		e.responder.Forget(s.record.IssuerKeyID, s.record.Serial)
		s.revoked.Store(true)
		time.Sleep(time.Duration(rand.IntN(6)) * time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	stop()
	clientsDone.Wait()
	if answered.Load() < asking.Load()/2 {
		t.Errorf("%d questions, only %d answers", asking.Load(), answered.Load())
	}
	t.Logf("%d answers, %+v", answered.Load(), e.responder.Metrics())
}

func TestColdAnswersAreSignedOnce(t *testing.T) {
	var slow slowStore
	e := setup(t, base, func(c *ocsp.Config) {
		slow.Store = c.Store.(store.Store)
		c.Store = slow
	})
	leaf := e.Issuing.Issue(t, e.store, base, nil)
	der := ask(t, e.Issuing, leaf.Certificate.SerialNumber, crypto.SHA1)
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%4 == 0 {
				cancel() // a client that goes away must not spoil it for the others
			}
			if a := e.responder.Respond(ctx, der); a.Status != ocsp.Successful && i%4 != 0 {
				t.Errorf("got %v", a.Status)
			}
		})
	}
	all.Wait()
	if m := e.responder.Metrics(); m.Signed != 1 {
		t.Errorf("%d signatures for one answer", m.Signed)
	}
}

func BenchmarkRespond(b *testing.B) {
	e := setup(b, time.Now())
	leaf := e.Issuing.Issue(b, e.store, time.Now(), nil)
	der := ask(b, e.Issuing, leaf.Certificate.SerialNumber, crypto.SHA1)
	for name, request := range map[string][]byte{"cached": der, "cold": withNonce(b, der, nonce(16))} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if a := e.responder.Respond(b.Context(), request); a.Status != ocsp.Successful {
					b.Fatal(a.Status)
				}
			}
		})
	}
}
