package scep_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/crl"
	devices "github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/scep"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/postgres"
	"github.com/certwright/certwright/pkg/store/sqlite"
	"github.com/certwright/certwright/pkg/watch"
)

// newRSAKey makes a key of 2048 bits. Keys are dear: tests share these.
var (
	deviceKey = sync.OnceValue(func() *rsa.PrivateKey { return newRSAKey(2048) })
	otherKey  = sync.OnceValue(func() *rsa.PrivateKey { return newRSAKey(2048) })
)

func newRSAKey(bits int) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return k
}

func newECKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

// plainSealer keeps secrets as they are, under their names.
type plainSealer struct{}

func (plainSealer) Seal(name string, secret []byte) ([]byte, error) {
	return slices.Concat([]byte(name+"\x00"), secret), nil
}

func (plainSealer) Open(name string, sealed []byte) ([]byte, error) {
	secret, ok := bytes.CutPrefix(sealed, []byte(name+"\x00"))
	if !ok {
		return nil, keys.ErrWrongPurpose
	}
	return bytes.Clone(secret), nil
}

// rig is the front-end on a real store, with everything that it stands on.
type rig struct {
	t       testing.TB
	store   store.Store
	points  *enrollment.Points
	ra      *scep.RA
	handler *scep.Handler
	// registry revokes nothing by itself unless a test has it run; each certificate that it has revoked is told to revoked.
	registry *devices.Registry
	revoked  chan pki.Fingerprint
	ca       *ca.Authority
	issuers  *issuer.Set
	server   *httptest.Server
	sync     func(context.Context) error
	log      *bytes.Buffer
	shift    atomic.Int64 // of the clock
	base     time.Time    // where a clock starts that stands still but for later; zero: it goes
}

func (r *rig) now() time.Time {
	if !r.base.IsZero() {
		return r.base.Add(time.Duration(r.shift.Load()))
	}
	return time.Now().Add(time.Duration(r.shift.Load())).UTC()
}

// later moves the clock.
func (r *rig) later(d time.Duration) { r.shift.Add(int64(d)) }

func newRig(t testing.TB, algorithm keys.Algorithm) *rig {
	t.Helper()
	return newRigAt(t, algorithm, time.Time{})
}

// newRigAt is newRig with a clock that stands still at a time, unless that is zero.
func newRigAt(t testing.TB, algorithm keys.Algorithm, base time.Time) *rig {
	t.Helper()
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "certwright.db")
	if _, _, err := sqlite.Migrate(ctx, path); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return newRigOn(t, s, algorithm, base)
}

// onBothStores runs a test on each kind of store.
func onBothStores(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, newRig(t, keys.P256))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		dsn := pgtest.Template(t, "certwright", func(dsn string) error {
			_, _, err := postgres.Migrate(t.Context(), dsn)
			return err
		})
		s, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		test(t, newRigOn(t, s, keys.P256, time.Time{}))
	})
}

// newRigOn is newRigAt on a store that is empty.
func newRigOn(t testing.TB, opened store.Store, algorithm keys.Algorithm, base time.Time) *rig {
	t.Helper()
	ctx := t.Context()
	s := &tap{Store: opened}
	r := &rig{t: t, store: s, base: base, log: new(bytes.Buffer)}
	logger := slog.New(slog.DiscardHandler)
	var err error
	kept := map[string]*keys.Key{}
	var mu sync.Mutex
	seal := func(purpose keys.Purpose) func(crypto.Signer) ([]byte, error) {
		return func(k crypto.Signer) ([]byte, error) {
			key, err := keys.New(purpose, k)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			kept[key.KeyID()] = key
			return []byte(key.KeyID()), nil
		}
	}
	open := func(id []byte) (*keys.Key, error) {
		mu.Lock()
		defer mu.Unlock()
		return kept[string(id)], nil
	}
	if err := ca.Bootstrap(ctx, s, ca.Hierarchy{
		Organization: "Example", PublicURL: "http://pki.example.com", Now: r.now().Truncate(time.Microsecond), KEKInfo: []byte("{}"), Algorithm: algorithm,
		Seal: seal(keys.PurposeIssuer),
	}); err != nil {
		t.Fatal(err)
	}
	if r.issuers, err = issuer.Load(ctx, issuer.Config{Store: s, Open: func(id []byte) (crypto.Signer, error) { return open(id) }}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	guard := clock.New(r.now, func() time.Duration {
		if !r.base.IsZero() {
			return time.Duration(r.shift.Load())
		}
		return time.Since(began) + time.Duration(r.shift.Load())
	})
	if r.ca, err = ca.New(ca.Config{Store: s, Issuers: r.issuers, Clock: guard, PublicURL: "http://pki.example.com", Reserved: []string{"pki.example.com"}}); err != nil {
		t.Fatal(err)
	}
	crls, err := crl.New(crl.Config{Store: s, Issuers: r.issuers, Clock: guard, Leases: s, Holder: "test"})
	if err != nil {
		t.Fatal(err)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { defer close(done); crls.Run(background) }()
	t.Cleanup(func() { stop(); <-done })
	if r.points, err = enrollment.NewPoints(enrollment.PointsConfig{Store: s, Sealer: plainSealer{}}); err != nil {
		t.Fatal(err)
	}
	if err := r.points.EnsureDefault(ctx, r.now()); err != nil {
		t.Fatal(err)
	}
	if r.ra, err = scep.NewRA(scep.RAConfig{
		Store: s, Issuers: r.issuers, CA: r.ca, Seal: seal(keys.PurposeRA), Open: open, Holder: "test", Now: r.now, KeyAge: 100 * 24 * time.Hour,
	}); err != nil {
		t.Fatal(err)
	}
	w, err := watch.New(watch.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	w.Follow("authority", r.ca.Follow)
	w.Follow("points", r.points.Follow)
	w.Follow("ra", r.ra.Follow)
	w.Follow("crl", crls.Follow)
	r.sync = w.Sync
	if err := w.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	r.revoked = make(chan pki.Fingerprint, 100)
	if r.registry, err = devices.New(devices.Config{Store: s, Clock: guard, Every: time.Hour, Revoke: func(ctx context.Context, ask devices.Revocation) error {
		_, err := r.ca.Revoke(ctx, ca.StatusRequest{Principal: ask.Principal, Certificate: ask.Certificate, Reason: ask.Reason})
		if err == nil {
			r.revoked <- ask.Certificate
		}
		return err
	}}); err != nil {
		t.Fatal(err)
	}
	if r.handler, err = scep.New(scep.Config{
		Registry: r.registry,
		Store:    s, CA: r.ca, Issuers: r.issuers, Points: r.points, RA: r.ra, CRLs: crls, Sealer: plainSealer{}, Clock: guard, Logger: logger,
	}); err != nil {
		t.Fatal(err)
	}
	mux := chi.NewRouter()
	r.handler.Routes(mux)
	r.server = httptest.NewServer(mux)
	t.Cleanup(r.server.Close)
	return r
}

// configure changes the default point.
func (r *rig) configure(static string, edit func(*enrollment.Config)) {
	r.t.Helper()
	p, err := r.points.Point(enrollment.DefaultPoint)
	if err != nil {
		r.t.Fatal(err)
	}
	c := p.Config()
	if edit != nil {
		edit(&c)
	}
	if _, err := r.points.Put(r.t.Context(), enrollment.Change{Principal: pki.System(), Now: r.now(), Config: c, Version: p.Version(), Static: &static}); err != nil {
		r.t.Fatal(err)
	}
	if err := r.sync(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// challenge makes a one-time challenge.
func (r *rig) challenge(edit ...func(*pki.Challenge)) string {
	r.t.Helper()
	text, c := enrollment.NewChallenge()
	c.Point, c.CreatedAt, c.ExpiresAt = enrollment.DefaultPoint, r.now(), r.now().Add(24*time.Hour)
	for _, f := range edit {
		f(&c)
	}
	record := audit.Record{Time: r.now(), Action: audit.ActionChallenge}
	if err := r.store.CreateChallenges(r.t.Context(), []pki.Challenge{c}, record); err != nil {
		r.t.Fatal(err)
	}
	return text
}

// certificates are those of GetCACert: the RA's first.
func (r *rig) certificates() []*x509.Certificate {
	r.t.Helper()
	status, header, body := r.get("?operation=GetCACert")
	if status != http.StatusOK || header.Get("Content-Type") != "application/x-x509-ca-ra-cert" {
		r.t.Fatalf("GetCACert: %d %s %s", status, header.Get("Content-Type"), body)
	}
	list, _, err := scepraw.Degenerate(body)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []*x509.Certificate
	for _, e := range list {
		c, err := x509.ParseCertificate(e.Full)
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func (r *rig) get(query string) (int, http.Header, []byte) {
	r.t.Helper()
	answer, err := r.server.Client().Get(r.server.URL + "/scep/default" + query)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.read(answer)
}

func (r *rig) read(answer *http.Response) (int, http.Header, []byte) {
	r.t.Helper()
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, body
}

// post sends a message and returns the HTTP answer.
func (r *rig) post(message []byte) (int, http.Header, []byte) {
	r.t.Helper()
	answer, err := r.server.Client().Post(r.server.URL+"/scep/default?operation=PKIOperation", "application/x-pki-message", bytes.NewReader(message))
	if err != nil {
		r.t.Fatal(err)
	}
	return r.read(answer)
}

// device is a client made of raw octets.
type device struct {
	*rig
	ra     *x509.Certificate
	issuer *x509.Certificate
	key    crypto.Signer
	signer *x509.Certificate // whose key signs
	sign   crypto.Signer
	id     string // transactionID
	digest crypto.Hash
	cipher string
	oaep   crypto.Hash
	ber    bool
}

// selfSigned makes what a client signs its first request with.
func selfSigned(key crypto.Signer, cn string) *x509.Certificate {
	t := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		panic(err)
	}
	return c
}

func (r *rig) device(key crypto.Signer) *device {
	r.t.Helper()
	all := r.certificates()
	return &device{rig: r, ra: all[0], issuer: all[1], key: key, signer: selfSigned(key, "device"), sign: key, id: rand.Text()}
}

// rep is what a device made of an answer.
type rep struct {
	*scepraw.CertRep
	status, info, text string
	certificates       []*x509.Certificate
	crls               [][]byte
	opened             *scepraw.Opened
}

// csr returns a request of the device's key for CN=device.
func (d *device) csr(challenges ...string) []byte {
	return scepraw.CSR{Key: d.key, Challenges: challenges}.Bytes()
}

func (d *device) envelope(plaintext []byte) scepraw.Envelope {
	return scepraw.Envelope{To: d.ra, Plaintext: plaintext, Cipher: d.cipher, OAEP: d.oaep, MGF: d.oaep, BER: d.ber}
}

func (d *device) message(messageType string, content []byte) scepraw.Message {
	return scepraw.Message{Signer: d.signer, Key: d.sign, Digest: d.digest, Content: content, TransactionID: d.id, MessageType: messageType, BER: d.ber}
}

// ask sends a message whose content is encrypted as the device does.
func (d *device) ask(messageType string, plaintext []byte) *rep {
	d.t.Helper()
	return d.send(d.message(messageType, d.envelope(plaintext).Bytes()))
}

func (d *device) send(m scepraw.Message) *rep {
	d.t.Helper()
	if m.SenderNonce == nil {
		m.SenderNonce = scepraw.Random(16)
	}
	status, header, body := d.post(m.Bytes())
	if status != http.StatusOK || header.Get("Content-Type") != "application/x-pki-message" {
		d.t.Fatalf("PKIOperation: %d %q", status, body)
	}
	return d.open(m, body)
}

// open reads an answer, and checks what every CertRep has (RFC 8894, Section 3.2.1).
func (d *device) open(m scepraw.Message, body []byte) *rep {
	d.t.Helper()
	answer, err := scepraw.ReadCertRep(body, d.ra, d.issuer)
	if err != nil {
		d.t.Fatalf("reading the CertRep: %v", err)
	}
	out := &rep{CertRep: answer}
	out.status, out.info, out.text = answer.Status()
	if got := answer.Text(scepraw.TransactionID, 0x13); got != m.TransactionID {
		d.t.Errorf("transactionID %q, want %q (RFC 8894, Section 3.2.1.1)", got, m.TransactionID)
	}
	if got := answer.Attributes[scepraw.RecipientNonce].Body; !bytes.Equal(got, m.SenderNonce) {
		d.t.Errorf("recipientNonce %x, want the senderNonce %x (RFC 8894, Section 3.2.1.5)", got, m.SenderNonce)
	}
	if got := answer.Text(scepraw.MessageType, 0x13); got != "3" {
		d.t.Errorf("messageType %q, want 3", got)
	}
	switch out.status {
	case "0":
		key, ok := d.sign.(*rsa.PrivateKey)
		if !ok {
			return out
		}
		opened, err := scepraw.Open(answer.Content, d.signer, key)
		if err != nil {
			d.t.Fatalf("opening the answer: %v", err)
		}
		out.opened = opened
		out.take(d.t, opened.Plaintext)
	case "2", "3":
		if !answer.HasContent || len(answer.Content) != 0 {
			d.t.Errorf("a CertRep of status %s has a content of %d octets, want an empty OCTET STRING", out.status, len(answer.Content))
		}
		if (out.info == "") != (out.status == "3") {
			d.t.Errorf("a CertRep of status %s has failInfo %q", out.status, out.info)
		}
	default:
		d.t.Errorf("pkiStatus %q", out.status)
	}
	return out
}

func (p *rep) take(t testing.TB, plaintext []byte) {
	t.Helper()
	certificates, crls, err := scepraw.Degenerate(plaintext)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range certificates {
		c, err := x509.ParseCertificate(e.Full)
		if err != nil {
			t.Fatal(err)
		}
		p.certificates = append(p.certificates, c)
	}
	for _, e := range crls {
		p.crls = append(p.crls, e.Full)
	}
}

// success returns the one certificate of an answer.
func (p *rep) success(t testing.TB) *x509.Certificate {
	t.Helper()
	if p.status != "0" {
		t.Fatalf("status %s, failInfo %s, %q; want SUCCESS", p.status, p.info, p.text)
	}
	if len(p.certificates) != 1 {
		t.Fatalf("%d certificates in the answer, want the issued one alone", len(p.certificates))
	}
	return p.certificates[0]
}

// failure checks that an answer is a FAILURE with this failInfo.
func (p *rep) failure(t testing.TB, info string, parts ...string) {
	t.Helper()
	if p.status != "2" || p.info != info {
		t.Errorf("status %s, failInfo %s, %q; want FAILURE %s", p.status, p.info, p.text, info)
	}
	for _, part := range parts {
		if !strings.Contains(p.text, part) {
			t.Errorf("failInfoText %q does not say %q", p.text, part)
		}
	}
}

// enrolled gives the device a certificate by a one-time challenge, and has it sign with that from then on.
func (d *device) enrolled() *x509.Certificate {
	d.t.Helper()
	c := d.ask("19", d.csr(d.challenge())).success(d.t)
	d.signer = c
	return c
}

func (r *rig) count() int {
	r.t.Helper()
	n, err := r.store.CountCertificates(r.t.Context(), store.CertificateFilter{Protocol: "scep"}, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func fingerprint(c *x509.Certificate) pki.Fingerprint { return sha256.Sum256(c.Raw) }

func serialOf(c *x509.Certificate) pki.SerialNumber {
	s, err := pki.SerialNumberFromBytes(c.SerialNumber.Bytes())
	if err != nil {
		panic(err)
	}
	return s
}
