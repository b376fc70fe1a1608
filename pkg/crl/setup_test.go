package crl_test

import (
	"context"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// env is a store with a root and an issuing CA, for any number of publishers, which stand for replicas.
type env struct {
	*certtest.Hierarchy
	t       testing.TB
	store   store.Store
	issuers *issuer.Set
}

func setup(t testing.TB) *env {
	t.Helper()
	e := &env{t: t, store: certtest.SQLite(t)}
	e.Hierarchy = certtest.Setup(t, e.store, time.Now())
	var err error
	if e.issuers, err = issuer.Load(t.Context(), issuer.Config{Store: e.store, Open: certtest.Open}); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *env) publisher(holder string, edit ...func(*crl.Config)) *crl.Publisher {
	e.t.Helper()
	start := time.Now()
	cfg := crl.Config{
		Store: e.store, Issuers: e.issuers, Leases: e.store, Holder: holder,
		LeaseTTL: 10 * time.Minute, // renewed in real time, while the tests' days pass in milliseconds
		Clock:    clock.New(time.Now, func() time.Duration { return time.Since(start) }),
	}
	for _, f := range edit {
		f(&cfg)
	}
	p, err := crl.New(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	return p
}

// run runs a publisher until the returned function is called, which returns when Run has.
func run(t testing.TB, p *crl.Publisher) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (e *env) follow(p *crl.Publisher) {
	e.t.Helper()
	head, err := e.store.Head(e.t.Context())
	if err == nil {
		err = p.Follow(e.t.Context(), head)
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

// list returns what the publisher serves for a CA, checked as a verifier checks it.
func list(t testing.TB, p *crl.Publisher, ca *certtest.CA) (*crl.Published, *x509.RevocationList) {
	t.Helper()
	at, ok := p.Latest(ca.KeyID)
	if !ok {
		t.Fatalf("no CRL of %s", ca.Name)
	}
	l, err := x509.ParseRevocationList(crl.Bytes(at.DER))
	if err != nil {
		t.Fatalf("ParseRevocationList: %v", err)
	}
	if err := l.CheckSignatureFrom(ca.Certificate); err != nil {
		t.Fatalf("the CRL's signature: %v", err)
	}
	if l.Number.Cmp(big.NewInt(at.Number)) != 0 || !l.ThisUpdate.Equal(at.ThisUpdate) || !l.NextUpdate.Equal(at.NextUpdate) ||
		len(l.RevokedCertificateEntries) != at.Entries {
		t.Fatalf("what is said of the CRL %+v is not what it says: number %v, %v to %v, %d entries",
			at, l.Number, l.ThisUpdate, l.NextUpdate, len(l.RevokedCertificateEntries))
	}
	return at, l
}

// entry returns a certificate's entry, nil when there is none.
func entry(l *x509.RevocationList, c pki.Certificate) *x509.RevocationListEntry {
	for i := range l.RevokedCertificateEntries {
		if e := &l.RevokedCertificateEntries[i]; e.SerialNumber.Cmp(new(big.Int).SetBytes(c.Serial.Bytes())) == 0 {
			return e
		}
	}
	return nil
}
