package issuer_test

import (
	"crypto"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

func load(t *testing.T) (*issuer.Set, store.Store) {
	t.Helper()
	s := certtest.SQLite(t)
	certtest.Setup(t, s, time.Now().UTC())
	set, err := issuer.Load(t.Context(), issuer.Config{Store: s, Open: certtest.Open})
	if err != nil {
		t.Fatal(err)
	}
	return set, s
}

func TestLoad(t *testing.T) {
	set, _ := load(t)
	snap := set.Current()
	if len(snap.Issuers) != 2 || !snap.Issuers[0].Root || snap.Issuers[1].Root {
		t.Fatalf("issuers: %+v, want the root first", snap.Issuers)
	}
	root, issuing := snap.Issuers[0].Current, snap.Issuers[1].Current
	if !root.SelfSigned() || issuing.SelfSigned() || issuing.Parent != root {
		t.Error("who signed whom is wrong")
	}
	if chain := issuing.Chain(); len(chain) != 2 || chain[0] != issuing.Certificate || chain[1] != root.Certificate {
		t.Errorf("the chain has %d certificates", len(chain))
	}
	if strings.Count(issuing.ChainPEM, "BEGIN CERTIFICATE") != 2 {
		t.Errorf("chain as PEM: %s", issuing.ChainPEM)
	}
	for name, want := range map[string]*issuer.Issuer{"": snap.Issuers[1], "root": snap.Issuers[0], "issuing": snap.Issuers[1]} {
		if got, err := snap.Issuer(name); err != nil || got != want {
			t.Errorf("Issuer(%q) = %v, %v", name, got, err)
		}
	}
	if _, err := snap.Issuer("nobody"); !fault.Is(err, fault.NotFound) {
		t.Errorf("Issuer(nobody): %v, want NotFound", err)
	}
	if snap.Key(issuing.KeyID) != issuing || snap.KeyByInternalID(root.ID) != root || snap.ByID(issuing.IssuerID) != snap.Issuers[1] || snap.Key("x") != nil {
		t.Error("a look-up by id finds the wrong thing")
	}
}

func TestByCertID(t *testing.T) {
	set, _ := load(t)
	snap := set.Current()
	root, issuing := snap.Issuers[0].Current, snap.Issuers[1].Current
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		raw, err := ocsp.CreateRequest(issuing.Certificate, root.Certificate, &ocsp.RequestOptions{Hash: hash})
		if err != nil {
			t.Fatal(err)
		}
		r, err := ocsp.ParseRequest(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := snap.ByCertID(r.IssuerNameHash, r.IssuerKeyHash); got != root {
			t.Errorf("%v: found %v, want the root", hash, got)
		}
		r.IssuerKeyHash[0] ^= 1
		if snap.ByCertID(r.IssuerNameHash, r.IssuerKeyHash) != nil {
			t.Errorf("%v: another key under the same name is taken for ours", hash)
		}
	}
	if snap.ByCertID(nil, nil) != nil {
		t.Error("no hashes find a key")
	}
}

func TestRevokedIntermediateLeavesTheTrustFile(t *testing.T) {
	set, s := load(t)
	issuing := set.Current().Issuers[1].Current
	if n := len(set.Current().ClientCAs()); n != 2 {
		t.Fatalf("%d certificates, want intermediate and root", n)
	}
	if _, err := s.ChangeStatus(t.Context(), store.StatusChange{
		IssuerID: issuing.Parent.IssuerID, Serial: issuing.SerialNumber(), Action: pki.ActionRevoke,
		Revocation: pki.Revocation{Reason: pki.CACompromise, RevokedAt: time.Now().UTC().Truncate(time.Second)},
	}); err != nil {
		t.Fatal(err)
	}
	before := set.Current()
	if err := set.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(set.Current().ClientCAs()); n != 1 {
		t.Errorf("%d certificates after the revocation, want the root alone", n)
	}
	if len(before.ClientCAs()) != 2 {
		t.Error("a snapshot that somebody holds has changed")
	}
}

func TestLoadRefusesTheWrongKey(t *testing.T) {
	s := certtest.SQLite(t)
	certtest.Setup(t, s, time.Now().UTC())
	for name, open := range map[string]func([]byte) (crypto.Signer, error){
		"another key": func([]byte) (crypto.Signer, error) { return certtest.NewKey(t), nil },
		"no key":      func([]byte) (crypto.Signer, error) { return nil, errors.New("sealed") },
	} {
		if _, err := issuer.Load(t.Context(), issuer.Config{Store: s, Open: open}); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}
