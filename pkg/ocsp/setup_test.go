package ocsp_test

import (
	"context"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/ocsp"
	"github.com/certwright/certwright/pkg/store"
)

// env is a responder over a real store with a root and an issuing CA.
type env struct {
	*certtest.Hierarchy
	t         testing.TB
	store     store.Store
	issuers   *issuer.Set
	delegates *delegates
	responder *ocsp.Responder

	mu  sync.Mutex
	now time.Time     // guarded by mu
	age time.Duration // guarded by mu
}

// delegates signs with a delegate for the issuing CA, and with the root's own key for the root.
type delegates struct {
	mu   sync.Mutex
	byID map[string]*ocsp.Delegate // guarded by mu
	err  error                     // guarded by mu
}

func (d *delegates) Delegate(_ context.Context, key *issuer.Key) (*ocsp.Delegate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return nil, d.err
	}
	if found := d.byID[key.KeyID]; found != nil {
		return found, nil
	}
	return nil, errors.New("no delegate")
}

func (d *delegates) set(keyID string, to *ocsp.Delegate, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byID[keyID], d.err = to, err
}

func setup(t testing.TB, now time.Time, edit ...func(*ocsp.Config)) *env {
	t.Helper()
	e := &env{t: t, now: now, store: certtest.SQLite(t), delegates: &delegates{byID: map[string]*ocsp.Delegate{}}}
	e.Hierarchy = certtest.Setup(t, e.store, now)
	var err error
	if e.issuers, err = issuer.Load(t.Context(), issuer.Config{Store: e.store, Open: certtest.Open}); err != nil {
		t.Fatal(err)
	}
	e.delegate(now.AddDate(0, 0, 30))
	e.delegates.set(e.Root.KeyID, &ocsp.Delegate{Signer: e.Root.Signer}, nil)
	cfg := ocsp.Config{
		Store: e.store, Issuers: e.issuers, Delegates: e.delegates,
		Clock: clock.New(e.time, func() time.Duration { return e.time().Sub(now) }),
		Age: func() time.Duration {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.age
		},
	}
	for _, f := range edit {
		f(&cfg)
	}
	if e.responder, err = ocsp.New(cfg); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *env) time() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now
}

func (e *env) set(now time.Time, age time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now, e.age = now, age
}

// delegate gives the issuing CA a new delegate.
func (e *env) delegate(notAfter time.Time) {
	signer, c := e.Issuing.Delegate(e.t, e.time(), notAfter)
	e.delegates.set(e.Issuing.KeyID, &ocsp.Delegate{Signer: signer, Certificate: c.Raw, NotAfter: c.NotAfter}, nil)
}

func writePEM(t testing.TB, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
