package crl_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
)

// forms is an issuing CA whose lists change their form while its certificates live.
type forms struct {
	*env
	t       *testing.T
	p       *crl.Publisher
	dir     string
	version int
	public  string
	set     string
}

func newForms(t *testing.T) *forms {
	f := &forms{env: setup(t), t: t, dir: t.TempDir(), public: "http://one.test", set: pki.ScopeFull}
	f.p = f.publisher("a", func(c *crl.Config) { c.PublicURL, c.Coalesce = f.public, 10*time.Millisecond })
	snap := f.issuers.Current()
	f.file("roots.pem", issuer.EncodePEM(snap.Roots()...))
	f.file("ca.pem", issuer.EncodePEM(snap.ClientCAs()...))
	stop := run(t, f.p)
	t.Cleanup(stop)
	return f
}

func (f *forms) file(name string, content []byte) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// settle changes the issuing CA's settings, and waits until certificates may name the addresses.
func (f *forms) settle(config, set string) {
	f.t.Helper()
	f.version++
	f.set = set
	now := time.Now().UTC().Truncate(time.Microsecond)
	a := pki.CRLAddressOf(f.public, f.Issuing.KeyID, set)
	a.IssuerKeyID, a.RecordedAt, a.Until = f.Issuing.IssuerKeyID, now, now.AddDate(2, 0, 0)
	err := f.store.PutIssuerSettings(f.t.Context(), pki.SettingsVersion{
		IssuerID: f.Issuing.IssuerID, Version: f.version, Config: []byte(config), CreatedAt: now, CreatedBy: "test",
	}, []pki.CRLAddress{a}, audit.Record{Time: now, Action: "issuer.settings", Actor: "test"})
	if err != nil {
		f.t.Fatal(err)
	}
	f.reload()
	f.wait("the address is listed", func() error {
		f.reload()
		if at, _ := f.key().Address(set, a.URL); set != pki.ScopeFull && at.ListedAt.IsZero() {
			return errors.New("it is not")
		}
		return nil
	})
}

func (f *forms) key() *issuer.Key { return f.issuers.Current().Key(f.Issuing.KeyID) }

func (f *forms) reload() {
	f.t.Helper()
	if err := f.issuers.Reload(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	f.follow(f.p)
}

func (f *forms) wait(what string, done func() error) {
	f.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leaf is a certificate with the scope of its list.
type leaf struct {
	*certtest.Issued
	scope, file string
}

func (f *forms) issue() *leaf {
	f.t.Helper()
	l := &leaf{}
	l.Issued = f.Issuing.IssueIn(f.t, f.store, time.Now(), nil, func(s pki.SerialNumber) (string, string) {
		a := pki.CRLAddressOf(f.public, f.Issuing.KeyID, f.set)
		if l.scope = f.set; f.set != pki.ScopeFull {
			shard := pki.ShardOf(s, pki.ShardSetSize(f.set))
			l.scope = pki.ShardScope(f.set, shard)
			return l.scope, a.Of(shard)
		}
		return l.scope, a.URL
	})
	l.file = f.file(l.Record.Serial.String()+".pem", issuer.EncodePEM(l.Certificate))
	return l
}

// change changes the status, and waits until the lists that speak of the certificate show it.
func (f *forms) change(l *leaf, action pki.Action, reason pki.Reason) {
	f.t.Helper()
	before := f.at(pki.ScopeFull).Number
	certtest.Change(f.t, f.store, l.Record, action, reason, time.Now())
	f.p.Dirty(l.Record.IssuerKeyID)
	f.wait("the change is on the lists", func() error {
		for _, scope := range []string{pki.ScopeFull, l.scope} {
			at, ok := f.p.List(f.Issuing.KeyID, scope)
			if !ok || at.Number <= before {
				return fmt.Errorf("no new list of %s", scope)
			}
			list, err := x509.ParseRevocationList(crl.Bytes(at.DER))
			if err != nil {
				return err
			}
			if got := entry(list, l.Record); (got == nil) != (action == pki.ActionRelease) {
				return fmt.Errorf("entry on list of %s: %v", scope, got)
			}
		}
		return nil
	})
}

func (f *forms) at(scope string) *crl.Published {
	f.t.Helper()
	var at *crl.Published
	f.wait("a list of "+scope, func() error {
		var ok bool
		if at, ok = f.p.List(f.Issuing.KeyID, scope); !ok {
			return errors.New("there is none")
		}
		return nil
	})
	return at
}

// verify has OpenSSL judge a certificate by the root's list and those given.
func (f *forms) verify(l *leaf, want string, args []string, lists ...*crl.Published) {
	f.t.Helper()
	root, ok := f.p.Latest(f.Root.KeyID)
	if !ok {
		f.t.Fatal("no list of the root")
	}
	text := crl.Bytes(root.PEM)
	for _, at := range lists {
		text = append(text, crl.Bytes(at.PEM)...)
	}
	crls := f.file("crls.pem", text)
	args = append([]string{"verify", "-crl_check_all", "-CAfile", filepath.Join(f.dir, "roots.pem"), "-untrusted", filepath.Join(f.dir, "ca.pem"), "-CRLfile", crls}, args...)
	out, err := exec.Command("openssl", append(args, l.file)...).CombinedOutput()
	if !bytes.Contains(out, []byte(want)) || (want == ok0) != (err == nil) {
		f.t.Errorf("openssl %s: %v\n%s\nwant %q", strings.Join(args, " "), err, out, want)
	}
}

// What OpenSSL says.
const (
	ok0        = ": OK"
	revoked    = "certificate revoked"
	otherScope = "ifferent CRL scope"
)

// lint checks what a list says of itself, and has zlint look at it.
func (f *forms) lint(at *crl.Published) *x509.RevocationList {
	f.t.Helper()
	raw := crl.Bytes(at.DER)
	l, err := x509.ParseRevocationList(raw)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := l.CheckSignatureFrom(f.Issuing.Certificate); err != nil {
		f.t.Errorf("%s: %v", at.Scope, err)
	}
	if l.Number.Int64() != at.Number || len(l.RevokedCertificateEntries) != at.Entries || !l.ThisUpdate.Equal(at.ThisUpdate) || !l.NextUpdate.Equal(at.NextUpdate) {
		f.t.Errorf("%s: what is said of it is not what it says", at.Scope)
	}
	z, err := zx509.ParseRevocationList(raw)
	if err != nil {
		f.t.Fatalf("zcrypto: %v", err)
	}
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{lint.RFC5280}})
	if err != nil {
		f.t.Fatal(err)
	}
	for name, result := range zlint.LintRevocationListEx(z, registry).Results {
		if result.Status > lint.Pass {
			f.t.Errorf("zlint on %s: %s is %v: %s", at.Scope, name, result.Status, result.Details)
		}
	}
	return l
}

// extensions returns the extensions of a list as OpenSSL shows them.
func (f *forms) extensions(at *crl.Published) string {
	f.t.Helper()
	out, err := exec.Command("openssl", "crl", "-inform", "DER", "-in", f.file("one.crl", crl.Bytes(at.DER)), "-noout", "-text").CombinedOutput()
	if err != nil {
		f.t.Fatalf("openssl crl: %v\n%s", err, out)
	}
	text, _, _ := strings.Cut(string(out), "Revoked Certificates")
	return strings.Join(strings.Fields(text), " ")
}

func (f *forms) want(at *crl.Published, has []string, lacks []string) {
	f.t.Helper()
	text := f.extensions(at)
	for _, s := range has {
		if !strings.Contains(text, s) {
			f.t.Errorf("list of %s: no %q in\n%s", at.Scope, s, text)
		}
	}
	for _, s := range lacks {
		if strings.Contains(text, s) {
			f.t.Errorf("list of %s: %q in\n%s", at.Scope, s, text)
		}
	}
}

// Extensions in OpenSSL's words.
const (
	idp      = "X509v3 Issuing Distribution Point: critical"
	onlyCA   = "Only CA Certificates"
	isDelta  = "X509v3 Delta CRL Indicator: critical"
	freshest = "X509v3 Freshest CRL:"
)

// TestForms changes the form of an issuer's lists, the number of shards and the public address: certificates of before
// are judged rightly all the while.
func TestForms(t *testing.T) {
	f := newForms(t)
	var all []*leaf
	// check judges every certificate by the full list, and by the list that it names.
	check := func() {
		t.Helper()
		full := f.at(pki.ScopeFull)
		for _, l := range all {
			want := ok0
			r, err := f.store.Status(t.Context(), l.Record.IssuerKeyID, l.Record.Serial)
			if err != nil {
				t.Fatal(err)
			}
			if r != nil {
				want = revoked
			}
			f.verify(l, want, nil, full)
			if l.scope != pki.ScopeFull {
				f.verify(l, want, nil, f.at(l.scope))
			}
		}
		bundle, ok := f.p.Bundle(f.key())
		if !ok || bundle.PEM.Size() != full.PEM.Size()+f.rootList().PEM.Size() {
			t.Error("the bundle is not the full list and the root's")
		}
		for _, s := range f.p.State() {
			if s.KeyID == f.Issuing.KeyID {
				if at, ok := f.p.List(s.KeyID, s.Scope); !ok || s.Number != at.Number {
					t.Errorf("state: %+v", s)
				} else {
					f.lint(at)
				}
			}
		}
	}
	pair := func() {
		t.Helper()
		good, bad, held := f.issue(), f.issue(), f.issue()
		all = append(all, good, bad, held)
		f.change(bad, pki.ActionRevoke, pki.KeyCompromise)
		f.change(held, pki.ActionHold, pki.Unspecified)
	}
	f.follow(f.p)
	f.at(pki.ScopeFull)
	pair()
	check()
	f.want(f.at(pki.ScopeFull), nil, []string{idp, isDelta, freshest})
	if f.p.Has(f.key(), pki.ScopeCA) || f.p.Has(f.key(), "s3/0") {
		t.Error("a full issuer has other lists")
	}

	f.settle(`{"crl":{"form":"sharded","shards":3}}`, "s3")
	pair()
	pair()
	check()
	ca := f.at(pki.ScopeCA)
	f.want(ca, []string{idp, onlyCA}, []string{"URI:"})
	f.want(f.at(pki.ScopeFull), nil, []string{idp})
	for shard := range 3 {
		at := f.at(pki.ShardScope("s3", shard))
		f.want(at, []string{idp, fmt.Sprintf("URI:http://one.test/crl/%s/s3/%d.crl", f.Issuing.KeyID, shard)}, []string{onlyCA, isDelta, freshest})
	}
	last := all[len(all)-1]
	_, shard, _ := pki.ParseShardScope(last.scope)
	f.verify(last, otherScope, nil, f.at(pki.ShardScope("s3", (shard+1)%3)))
	f.verify(all[0], otherScope, nil, f.at("s3/0")) // it names the full list
	if n := ca.Entries; n != 0 {
		t.Errorf("%d entries on the list of CA certificates", n)
	}

	// Another number of shards, another address, and back: the lists of before are there.
	f.settle(`{"crl":{"form":"sharded","shards":2}}`, "s2")
	pair()
	f.public = "https://two.test:8080"
	f.settle(`{"crl":{"form":"sharded","shards":2}}`, "s2")
	pair()
	check()
	f.want(f.at("s2/1"), []string{"URI:http://one.test/crl/" + f.Issuing.KeyID + "/s2/1.crl", "URI:https://two.test:8080/crl/" + f.Issuing.KeyID + "/s2/1.crl"}, nil)
	f.settle(`{}`, pki.ScopeFull)
	pair()
	f.change(all[3], pki.ActionRevoke, pki.Superseded) // of the first set
	check()
	if all[3].scope[:3] != "s3/" {
		t.Fatalf("scope %s", all[3].scope)
	}
}

// TestEndedListsAreDropped: the lists of a set of shards are made for as long as certificates name it, and then go, from the
// store, from the replica that makes lists and from the others.
func TestEndedListsAreDropped(t *testing.T) {
	f := &forms{env: setup(t), t: t, dir: t.TempDir(), public: "http://one.test", set: pki.ScopeFull}
	start := time.Now()
	var ahead atomic.Int64
	now := func() time.Time { return start.Add(time.Duration(ahead.Load())) }
	replica := func(name string) *crl.Publisher {
		return f.publisher(name, func(c *crl.Config) {
			c.PublicURL, c.Coalesce = f.public, 10*time.Millisecond
			c.Clock = clock.New(now, func() time.Duration { return now().Sub(start) })
		})
	}
	f.p = replica("a")
	other := replica("b") // only follows
	t.Cleanup(run(t, f.p))
	f.follow(f.p)
	f.at(pki.ScopeFull)
	f.settle(`{"crl":{"form":"sharded","shards":3,"delta":{}}}`, "s3")
	f.settle(`{"crl":{"form":"sharded","shards":2}}`, "s2")
	until := start.AddDate(2, 0, 0).Add(time.Hour) // of settle's addresses
	all := []string{"ca", "ca/delta", "full", "full/delta", "s2/0", "s2/1", "s3/0", "s3/0/delta", "s3/1", "s3/1/delta", "s3/2", "s3/2/delta"}
	for _, step := range []struct {
		at   time.Time
		have []string
	}{
		{start, all},
		{start.Add(12 * time.Hour), all},
		// Delta lists have ended, and nobody makes them any more.
		{start.AddDate(0, 0, 9), []string{"ca", "full", "s2/0", "s2/1", "s3/0", "s3/1", "s3/2"}},
		{until.Add(-2 * time.Hour), []string{"ca", "full", "s2/0", "s2/1", "s3/0", "s3/1", "s3/2"}},
		// The set is not made any more, and its last lists have not ended: those of the day before.
		{until.AddDate(0, 0, 1), []string{"ca", "full", "s2/0", "s2/1", "s3/0", "s3/1", "s3/2"}},
		{until.AddDate(0, 0, 8), []string{"ca", "full", "s2/0", "s2/1"}},
	} {
		ahead.Store(int64(step.at.Sub(start)))
		f.wait("the lists of "+step.at.String(), func() error {
			f.follow(f.p)
			if at, ok := f.p.Latest(f.Issuing.KeyID); !ok || now().Sub(at.CreatedAt) > time.Minute {
				return errors.New("no new list")
			}
			numbers, err := f.store.CRLNumbers(t.Context())
			if err != nil {
				return err
			}
			have := slices.Sorted(maps.Keys(numbers[f.Issuing.IssuerKeyID]))
			if !slices.Equal(have, step.have) {
				return fmt.Errorf("the store has lists of %q, want %q", have, step.have)
			}
			f.follow(other)
			for _, scope := range all {
				_, ours := f.p.List(f.Issuing.KeyID, scope)
				_, theirs := other.List(f.Issuing.KeyID, scope)
				if want := slices.Contains(have, scope); ours != want || theirs != want {
					return fmt.Errorf("%s is served: %v by who makes lists, %v by the other; want %v", scope, ours, theirs, want)
				}
			}
			return nil
		})
	}
}

func (f *forms) rootList() *crl.Published {
	at, _ := f.p.Latest(f.Root.KeyID)
	return at
}

// TestDelta checks delta lists against complete lists that verifiers have had for a while.
func TestDelta(t *testing.T) {
	for _, form := range []struct{ config, set string }{
		{`{"crl":{"delta":{}}}`, pki.ScopeFull},
		{`{"crl":{"form":"sharded","shards":2,"delta":{}}}`, "s2"},
	} {
		t.Run(form.set, func(t *testing.T) {
			f := newForms(t)
			f.follow(f.p)
			f.settle(form.config, form.set)
			good, bad, held, released, both := f.issue(), f.issue(), f.issue(), f.issue(), f.issue()
			for _, l := range []*leaf{good, bad, held, released, both} {
				f.at(l.scope + "/delta")
			}
			f.change(released, pki.ActionHold, pki.Unspecified)
			f.change(both, pki.ActionHold, pki.Unspecified)
			old := map[string]*crl.Published{}
			for _, l := range []*leaf{good, bad, held, released, both} {
				old[l.scope] = f.at(l.scope)
			}
			f.change(bad, pki.ActionRevoke, pki.KeyCompromise)
			f.change(held, pki.ActionHold, pki.Unspecified)
			f.change(released, pki.ActionRelease, pki.Unspecified)
			f.change(both, pki.ActionRevoke, pki.KeyCompromise)
			for _, l := range []*leaf{good, bad, held, released, both} {
				complete, delta := f.at(l.scope), f.at(l.scope+"/delta")
				f.want(complete, []string{freshest, "/crl/" + f.Issuing.KeyID + "/" + l.scope + "/delta.crl"}, []string{isDelta})
				f.want(delta, []string{isDelta}, []string{freshest})
				if (l.scope == pki.ScopeFull) == strings.Contains(f.extensions(delta), idp) {
					t.Errorf("delta of %s: issuing distribution point: %s", l.scope, f.extensions(delta))
				}
				if complete.Number != delta.Number || !complete.ThisUpdate.Equal(delta.ThisUpdate) {
					t.Errorf("complete list %d of %v, delta %d of %v", complete.Number, complete.ThisUpdate, delta.Number, delta.ThisUpdate)
				}
				f.lint(complete)
				f.lint(delta)
				want := map[*leaf]string{good: ok0, bad: revoked, held: revoked, released: ok0, both: revoked}[l]
				f.verify(l, want, []string{"-use_deltas"}, old[l.scope], delta)
				f.verify(l, want, []string{"-use_deltas"}, complete, delta)
				f.verify(l, want, nil, complete)
			}
			list := f.lint(f.at(released.scope + "/delta"))
			if got := entry(list, released.Record); got == nil || got.ReasonCode != 8 {
				t.Errorf("released: %+v, want removeFromCRL", got)
			}
		})
	}
}
