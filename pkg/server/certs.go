package server

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/ocsp"
)

// The server's own certificates never stop it: their keys live in memory only and are made when the process starts, the
// certificates are issued by our own issuers inside the process, and renewed when two thirds of their life have passed.
// A server that was off until all of them had ended starts like any other.

// renewCheck is how often own certificates are looked at.
const renewCheck = time.Minute

// renewCheckSoon is how often they are looked at when the start could not make them.
const renewCheckSoon = 5 * time.Second

// due reports whether a certificate should be renewed: two thirds of its life have passed.
func due(now, notBefore, notAfter time.Time) bool {
	return now.After(notBefore.Add(notAfter.Sub(notBefore) * 2 / 3))
}

// listenerCert keeps the certificate of the HTTPS and mTLS listeners.
type listenerCert struct {
	ca      *ca.Authority
	issuers *issuer.Set
	names   []string
	now     func() time.Time
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]
}

// get is tls.Config.GetCertificate.
func (l *listenerCert) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := l.current.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("the server has no certificate of its own yet")
}

// by returns the key that certifies the listeners: an issuing CA's if it may issue, else a root's. When the issuing CA is
// revoked, or has ended, the server must still start and take revocations. It is nil when no CA may issue any more.
func (l *listenerCert) by() *issuer.Key {
	var root *issuer.Key
	for _, i := range l.issuers.Current().Issuers {
		switch k := i.Current; {
		case !usableAt(k, l.now()):
		case !i.Root:
			return k
		case root == nil:
			root = k
		}
	}
	return root
}

// renew issues a certificate if there is none, if it is due, or if its issuer is no longer the one that signs.
func (l *listenerCert) renew(ctx context.Context) error {
	by := l.by()
	if by == nil {
		// CRLs and OCSP answers are served in the clear, and go on.
		l.log.Error("no CA may certify the HTTPS listeners any more: each has ended or is revoked")
		return nil
	}
	if c := l.current.Load(); c != nil && !due(l.now(), c.Leaf.NotBefore, c.Leaf.NotAfter) && string(c.Leaf.RawIssuer) == string(by.Certificate.RawSubject) {
		return nil
	}
	key, err := keys.Generate(keys.P256)
	if err != nil {
		return err
	}
	c, err := l.ca.IssueInternal(ctx, ca.InternalRequest{Profile: ca.ProfileHTTPS, Key: by, PublicKey: key.Public(), Names: l.names})
	if err != nil {
		return fmt.Errorf("issuing the server's own certificate: %w", err)
	}
	next := &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
	for _, above := range by.Chain() {
		if string(above.RawSubject) != string(above.RawIssuer) {
			next.Certificate = append(next.Certificate, above.Raw)
		}
	}
	l.current.Store(next)
	l.log.Info("the server has a new certificate of its own", "serial", fmt.Sprintf("%x", c.SerialNumber), "not_after", c.NotAfter)
	return nil
}

// delegates keeps the OCSP responder certificates of this replica, one per issuer key (RFC 6960, Section 4.2.2.2).
type delegates struct {
	ca      *ca.Authority
	issuers *issuer.Set
	now     func() time.Time
	log     *slog.Logger

	mu    sync.Mutex // held while one is issued
	known sync.Map   // of *delegate by the issuer key's internal id
}

type delegate struct {
	ocsp.Delegate
	notBefore time.Time
}

// Delegate returns who signs for the issuer key. When the CA cannot certify a responder, because its own certificate has
// ended or is revoked, the key itself signs: its certificates' statuses are asked for still.
func (d *delegates) Delegate(ctx context.Context, key *issuer.Key) (*ocsp.Delegate, error) {
	if v, ok := d.known.Load(key.ID); ok {
		found := v.(*delegate)
		if found.NotAfter.IsZero() || d.now().Before(found.NotAfter) {
			return &found.Delegate, nil
		}
	}
	return d.renew(ctx, key)
}

// renewAll renews every delegate that is due.
func (d *delegates) renewAll(ctx context.Context) error {
	var first error
	for _, key := range d.issuers.Current().Keys() {
		if v, ok := d.known.Load(key.ID); ok {
			found := v.(*delegate)
			if !found.NotAfter.IsZero() && !due(d.now(), found.notBefore, found.NotAfter) {
				continue
			}
			if found.NotAfter.IsZero() && !usableAt(key, d.now()) {
				continue
			}
		}
		if _, err := d.renew(ctx, key); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// missing returns the name of an issuer for whose key nobody can sign OCSP answers now, empty if there is none.
func (d *delegates) missing() string {
	for _, key := range d.issuers.Current().Keys() {
		v, ok := d.known.Load(key.ID)
		if !ok {
			return key.Issuer.Name
		}
		if end := v.(*delegate).NotAfter; !end.IsZero() && d.now().After(end) {
			return key.Issuer.Name
		}
	}
	return ""
}

func usableAt(key *issuer.Key, now time.Time) bool {
	return key.Revocation == nil && !now.After(key.Certificate.NotAfter)
}

func (d *delegates) renew(ctx context.Context, key *issuer.Key) (*ocsp.Delegate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v, ok := d.known.Load(key.ID); ok { // somebody else was faster
		found := v.(*delegate)
		if !found.NotAfter.IsZero() && !due(d.now(), found.notBefore, found.NotAfter) {
			return &found.Delegate, nil
		}
	}
	if !usableAt(key, d.now()) {
		made := &delegate{Delegate: ocsp.Delegate{Signer: key.Signer, Certificate: key.Certificate.Raw}}
		d.known.Store(key.ID, made)
		return &made.Delegate, nil
	}
	signer, err := keys.Generate(keys.P256)
	if err != nil {
		return nil, err
	}
	c, err := d.ca.IssueInternal(ctx, ca.InternalRequest{Profile: ca.ProfileOCSP, Key: key, PublicKey: crypto.PublicKey(signer.Public()), CommonName: key.Issuer.Name + " OCSP"})
	if err != nil {
		return nil, fmt.Errorf("issuing an OCSP responder certificate for %q: %w", key.Issuer.Name, err)
	}
	made := &delegate{Delegate: ocsp.Delegate{Signer: signer, Certificate: c.Raw, NotAfter: c.NotAfter}, notBefore: c.NotBefore}
	d.known.Store(key.ID, made)
	d.log.Info("new OCSP responder certificate", "issuer", key.Issuer.Name, "serial", fmt.Sprintf("%x", c.SerialNumber), "not_after", c.NotAfter)
	return &made.Delegate, nil
}
