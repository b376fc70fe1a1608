package crl_test

import (
	"bytes"
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/internal/certtest"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

func TestFirstAndTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := setup(t)
		p := e.publisher("a")
		if _, ok := p.Latest(e.Issuing.KeyID); ok {
			t.Error("a CRL before the first")
		}
		if _, ok := p.Bundle(e.issuers.Current().Keys()...); ok {
			t.Error("a bundle before the first CRL")
		}
		defer run(t, p)()
		time.Sleep(time.Millisecond)
		began := time.Now()
		for _, ca := range []*certtest.CA{e.Issuing, e.Root} {
			at, l := list(t, p, ca)
			if want := began.Add(-5 * time.Minute).Truncate(time.Second); !at.ThisUpdate.Equal(want) {
				t.Errorf("thisUpdate: got %v, want %v", at.ThisUpdate, want)
			}
			if want := began.Add(7 * 24 * time.Hour).Truncate(time.Second); !at.NextUpdate.Equal(want) {
				t.Errorf("nextUpdate: got %v, want %v", at.NextUpdate, want)
			}
			if at.Number < began.Unix()-1 || !at.Scheduled || at.Entries != 0 {
				t.Errorf("got %+v, want the Unix time as number, made by the timer, empty", at)
			}
			if !bytes.Equal(l.AuthorityKeyId, ca.Certificate.SubjectKeyId) || len(l.Extensions) != 2 {
				t.Errorf("extensions: %v", l.Extensions)
			}
		}
		numbers := map[int64]bool{}
		for range 50 {
			at, _ := list(t, p, e.Issuing)
			numbers[at.Number] = true
			time.Sleep(30 * time.Minute)
		}
		if n := len(numbers); n != 25 && n != 26 {
			t.Errorf("%d CRLs in 25 hours, want one an hour", n)
		}
	})
}

func TestPublishedAfterRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := setup(t)
		p := e.publisher("a")
		defer run(t, p)()
		time.Sleep(time.Second)
		root, _ := list(t, p, e.Root)

		// One change: at once.
		one := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
		certtest.Change(t, e.store, one, pki.ActionRevoke, pki.Unspecified, time.Now())
		p.Dirty(one.IssuerKeyID)
		time.Sleep(time.Millisecond)
		_, l := list(t, p, e.Issuing)
		if got := entry(l, one); got == nil || len(got.Extensions) != 0 {
			t.Errorf("unspecified: got %+v, want an entry without extensions", got)
		}

		// A storm: a few lists a second, and the last one within half a second of the last revocation.
		before := p.Metrics().Built
		var last pki.Certificate
		for range 100 {
			last = e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
			certtest.Change(t, e.store, last, pki.ActionRevoke, pki.KeyCompromise, time.Now())
			p.Dirty(last.IssuerKeyID)
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond)
		_, l = list(t, p, e.Issuing)
		if got := entry(l, last); got == nil || got.ReasonCode != int(pki.KeyCompromise) || len(l.RevokedCertificateEntries) != 101 {
			t.Errorf("after the storm: %d entries, want 101; the last is %+v", len(l.RevokedCertificateEntries), got)
		}
		if built := p.Metrics().Built - before; built < 4 || built > 6 {
			t.Errorf("%d lists for 100 revocations in two seconds, want about two a second", built)
		}

		// Only the head tells: another replica has revoked.
		certtest.Change(t, e.store, one, pki.ActionRevoke, pki.Superseded, time.Now())
		held := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
		certtest.Change(t, e.store, held, pki.ActionHold, pki.Unspecified, time.Now())
		e.follow(p)
		time.Sleep(time.Millisecond)
		at, l := list(t, p, e.Issuing)
		if got := entry(l, held); got == nil || got.ReasonCode != int(pki.CertificateHold) {
			t.Errorf("held: got %+v, want certificateHold", got)
		}
		if got := entry(l, one); got == nil || got.ReasonCode != int(pki.Superseded) {
			t.Errorf("changed reason: got %+v, want superseded", got)
		}
		e.follow(p)
		time.Sleep(time.Second)
		if again, _ := list(t, p, e.Issuing); again != at {
			t.Error("another list although nothing changed")
		}
		certtest.Change(t, e.store, held, pki.ActionRelease, pki.Unspecified, time.Now())
		p.Dirty(held.IssuerKeyID)
		time.Sleep(time.Millisecond)
		if _, l = list(t, p, e.Issuing); entry(l, held) != nil {
			t.Error("a released certificate is on the list")
		}
		if again, _ := list(t, p, e.Root); again != root {
			t.Error("the root's list was made anew for nothing of its own")
		}
		for _, s := range p.State() {
			if s.Pending || s.Err != nil || s.Number == 0 || s.Expired(time.Now()) {
				t.Errorf("state: %+v", s)
			}
		}
	})
}

// TestNothingIsForgotten: the process ends between a revocation and its list.
func TestNothingIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := setup(t)
		p := e.publisher("a")
		stop := run(t, p)
		time.Sleep(time.Second)
		stop()
		c := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
		certtest.Change(t, e.store, c, pki.ActionRevoke, pki.Unspecified, time.Now())

		p = e.publisher("a")
		e.follow(p)
		if _, l := list(t, p, e.Issuing); entry(l, c) != nil {
			t.Fatal("the list of before has what was revoked after")
		}
		defer run(t, p)()
		time.Sleep(time.Millisecond)
		if _, l := list(t, p, e.Issuing); entry(l, c) == nil {
			t.Error("a revocation without a list was forgotten")
		}
	})
}

// faulty is a real store that fails when it is told to, and remembers what was recorded.
type faulty struct {
	store.Store
	mu       sync.Mutex
	err      error     // guarded by mu
	before   func()    // guarded by mu; called once, before a list is recorded
	recorded []pki.CRL // guarded by mu
}

func (f *faulty) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *faulty) RecordCRL(ctx context.Context, under *store.Lease, cs ...pki.CRL) error {
	f.mu.Lock()
	err, before := f.err, f.before
	f.before = nil
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if before != nil {
		before()
	}
	if err := f.Store.RecordCRL(ctx, under, cs...); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recorded = append(f.recorded, cs...)
	return nil
}

func TestFailuresAreRetriedAndLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := setup(t)
		f := &faulty{Store: e.store}
		log := new(bytes.Buffer)
		p := e.publisher("a", func(c *crl.Config) {
			c.Store, c.Logger = f, slog.New(slog.NewTextHandler(log, nil))
		})
		stop := run(t, p)
		time.Sleep(time.Second)
		at, _ := list(t, p, e.Issuing)

		f.fail(errors.New("disk full"))
		c := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
		certtest.Change(t, e.store, c, pki.ActionRevoke, pki.Unspecified, time.Now())
		p.Dirty(c.IssuerKeyID)
		time.Sleep(20 * time.Minute)
		if again, _ := list(t, p, e.Issuing); again != at {
			t.Error("another list than the last one is served")
		}
		s := p.State()
		i := slices.IndexFunc(s, func(s crl.State) bool { return s.KeyID == e.Issuing.KeyID })
		if s[i].Err == nil || !s[i].Pending || s[i].Age < 20*time.Minute {
			t.Errorf("state: %+v", s[i])
		}
		if n := p.Metrics().Failed; n < 200 || n > 400 {
			t.Errorf("%d tries in 20 minutes, want one every five seconds", n)
		}
		f.fail(nil)
		time.Sleep(6 * time.Second)
		if _, l := list(t, p, e.Issuing); entry(l, c) == nil {
			t.Error("the revocation was forgotten with the failure")
		}
		stop()
		if n := strings.Count(log.String(), "disk full"); n != 1 {
			t.Errorf("the failure is logged %d times, want once:\n%s", n, log)
		}
	})
}

func TestAnotherReplicaWasFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := setup(t)
		f := &faulty{Store: e.store}
		p := e.publisher("a", func(c *crl.Config) { c.Store = f })
		other := e.publisher("b")
		defer run(t, p)()
		time.Sleep(time.Second)
		key := e.issuers.Current().Key(e.Issuing.KeyID)
		var theirs *crl.Published
		f.mu.Lock()
		f.before = func() {
			var err error
			if theirs, err = other.Build(t.Context(), key, false); err != nil {
				t.Errorf("the other replica: %v", err)
			}
		}
		f.mu.Unlock()
		c := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
		certtest.Change(t, e.store, c, pki.ActionRevoke, pki.Unspecified, time.Now())
		p.Dirty(c.IssuerKeyID)
		time.Sleep(time.Second)
		at, l := list(t, p, e.Issuing)
		if m := p.Metrics(); m.Stale != 1 || at.Number < theirs.Number || entry(l, c) == nil {
			t.Errorf("got %+v and number %d after theirs, %d", m, at.Number, theirs.Number)
		}
	})
}

func TestOneReplicaMakesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := setup(t)
		short := func(c *crl.Config) { c.LeaseTTL = 5 * time.Second }
		a, b := e.publisher("a", short), e.publisher("b", short)
		stopA := run(t, a)
		time.Sleep(time.Second)
		stopB := run(t, b)
		defer stopB()
		for range 20 {
			c := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
			certtest.Change(t, e.store, c, pki.ActionRevoke, pki.Unspecified, time.Now())
			b.Dirty(c.IssuerKeyID) // revoked there
			e.follow(a)
			e.follow(b)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		e.follow(b)
		atA, l := list(t, a, e.Issuing)
		atB, _ := list(t, b, e.Issuing)
		if atA.Number != atB.Number || len(l.RevokedCertificateEntries) != 20 || !bytes.Equal(crl.Bytes(atA.DER), crl.Bytes(atB.DER)) ||
			atA.ETag != atB.ETag || !atA.LastModified.Equal(atB.LastModified) {
			t.Errorf("replicas serve %d with %d entries and %d", atA.Number, atA.Entries, atB.Number)
		}
		if m := b.Metrics(); m.Built != 0 || m.Stale != 0 || m.Leader || !a.Metrics().Leader || m.Maker != "a" || a.Metrics().Maker != "a" {
			t.Errorf("the replica without the lease: %+v", m)
		}
		stopA()
		time.Sleep(3 * time.Second)
		if m := b.Metrics(); !m.Leader || m.Maker != "b" {
			t.Fatal("the lease did not pass on when its holder ended")
		}
		c := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
		certtest.Change(t, e.store, c, pki.ActionRevoke, pki.Unspecified, time.Now())
		b.Dirty(c.IssuerKeyID)
		time.Sleep(time.Second)
		if at, l := list(t, b, e.Issuing); at.Number <= atA.Number || entry(l, c) == nil {
			t.Errorf("the next holder's list: %+v", at)
		}
	})
}

func TestWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := setup(t)
		var mu sync.Mutex
		var off time.Duration
		shift := func(d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			off = d
		}
		start := time.Now()
		guard := clock.New(func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(off)
		}, func() time.Duration { return time.Since(start) })
		p := e.publisher("a", func(c *crl.Config) { c.Clock = guard })
		defer run(t, p)()
		time.Sleep(time.Second)
		at, _ := list(t, p, e.Issuing)

		shift(5 * time.Hour)
		time.Sleep(10 * time.Minute)
		if again, _ := list(t, p, e.Issuing); again != at {
			t.Error("signed with a clock that jumped ahead")
		}
		if s := p.State(); s[0].Err == nil {
			t.Error("the state does not tell of the clock")
		}
		shift(-2 * time.Minute) // a little back: signed, and thisUpdate does not go back
		c := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
		certtest.Change(t, e.store, c, pki.ActionRevoke, pki.Unspecified, time.Now())
		p.Dirty(c.IssuerKeyID)
		time.Sleep(time.Minute)
		again, l := list(t, p, e.Issuing)
		if entry(l, c) == nil || again.ThisUpdate.Before(at.ThisUpdate) || again.Number <= at.Number {
			t.Errorf("after the clock was set right: %+v, before %+v", again, at)
		}
	})
}

// TestEntriesLeaveOnlyAfterTheyWereCarried lives through days of random issuing, revoking, holding and releasing, of
// certificates that live for hours, and checks every list that was made.
func TestEntriesLeaveOnlyAfterTheyWereCarried(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { live(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func live(t *testing.T, r *rand.Rand) {
	e := setup(t)
	f := &faulty{Store: e.store}
	p := e.publisher("a", func(c *crl.Config) { c.Store = f })
	stop := run(t, p)
	type subject struct {
		pki.Certificate
		status pki.Status
	}
	var all []*subject
	changed := map[pki.SerialNumber]time.Time{}  // when the status last changed
	released := map[pki.SerialNumber]time.Time{} // when it was last released
	for range 100 {
		if len(all) < 5 || r.IntN(3) == 0 {
			life := time.Duration(r.IntN(6*60)+1) * time.Minute
			all = append(all, &subject{Certificate: e.Issuing.Stub(t, e.store, time.Now(), time.Now().Add(life))})
		}
		s := all[r.IntN(len(all))]
		actions := map[pki.Status][]pki.Action{
			pki.Good: {pki.ActionRevoke, pki.ActionHold}, pki.OnHold: {pki.ActionRevoke, pki.ActionRelease}, pki.Revoked: nil,
		}[s.status]
		if len(actions) > 0 {
			a := actions[r.IntN(len(actions))]
			certtest.Change(t, e.store, s.Certificate, a, pki.Superseded, time.Now())
			changed[s.Serial] = time.Now()
			s.status = map[pki.Action]pki.Status{pki.ActionRevoke: pki.Revoked, pki.ActionHold: pki.OnHold, pki.ActionRelease: pki.Good}[a]
			if a == pki.ActionRelease {
				released[s.Serial] = time.Now()
			}
			p.Dirty(s.IssuerKeyID)
		}
		time.Sleep(time.Duration(r.IntN(int(25 * time.Minute))))
	}
	time.Sleep(24 * time.Hour)
	stop()

	lists := slices.DeleteFunc(f.recorded, func(c pki.CRL) bool { return c.IssuerKeyID != e.Issuing.IssuerKeyID })
	carried := map[pki.SerialNumber]time.Time{} // when a scheduled list after its end last had it
	before := map[pki.SerialNumber]bool{}
	left := 0
	for i, c := range lists {
		if i > 0 && (c.Number <= lists[i-1].Number || c.ThisUpdate.Before(lists[i-1].ThisUpdate)) {
			t.Errorf("list %d of %v follows list %d of %v", c.Number, c.ThisUpdate, lists[i-1].Number, lists[i-1].ThisUpdate)
		}
		l, err := x509.ParseRevocationList(c.DER())
		if err != nil {
			t.Fatal(err)
		}
		now := map[pki.SerialNumber]bool{}
		for _, r := range l.RevokedCertificateEntries {
			now[pki.SerialNumber(r.SerialNumber.Bytes())] = true
		}
		for serial := range before {
			if now[serial] {
				continue
			}
			left++
			if carried[serial].IsZero() && !released[serial].After(lists[i-1].CreatedAt.Add(-time.Millisecond)) {
				t.Errorf("%s left list %d without having been carried after its end", serial, c.Number)
			}
		}
		if c.Scheduled {
			for _, s := range all {
				if now[s.Serial] && c.ThisUpdate.After(s.NotAfter) {
					carried[s.Serial] = c.CreatedAt
				}
			}
		}
		before = now
	}
	for _, s := range all {
		if s.status == pki.Good {
			continue
		}
		if before[s.Serial] {
			t.Errorf("%s is still there a day after its end", s.Serial)
		}
		if carried[s.Serial].Before(changed[s.Serial]) {
			t.Errorf("%s, changed at %v, was carried at %v for the last time", s.Serial, changed[s.Serial], carried[s.Serial])
		}
	}
	if left < 5 || len(lists) < 50 {
		t.Errorf("%d lists, %d entries left: the test proves little", len(lists), left)
	}
}

// TestVerifiers has OpenSSL and zlint judge what is published.
func TestVerifiers(t *testing.T) {
	e := setup(t)
	p := e.publisher("a")
	good, bad := e.Issuing.Issue(t, e.store, time.Now(), nil), e.Issuing.Issue(t, e.store, time.Now(), nil)
	certtest.Change(t, e.store, bad.Record, pki.ActionRevoke, pki.KeyCompromise, time.Now())
	held := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
	certtest.Change(t, e.store, held, pki.ActionHold, pki.Unspecified, time.Now())
	invalid := e.Issuing.Stub(t, e.store, time.Now(), time.Now().AddDate(1, 0, 0))
	if _, err := e.store.ChangeStatus(t.Context(), store.StatusChange{
		IssuerID: invalid.IssuerID, Serial: invalid.Serial, Action: pki.ActionRevoke,
		Revocation: pki.Revocation{Reason: pki.Superseded, RevokedAt: time.Now().UTC().Truncate(time.Second), InvalidityDate: time.Now().Add(-time.Hour)},
	}); err != nil {
		t.Fatal(err)
	}
	defer run(t, p)()
	deadline := time.Now().Add(20 * time.Second)
	issuing := e.issuers.Current().Key(e.Issuing.KeyID)
	var bundle *crl.Bundle
	for ok := false; !ok; bundle, ok = p.Bundle(issuing) {
		if time.Now().After(deadline) {
			t.Fatal("no CRLs")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if again, _ := p.Bundle(issuing); again != bundle {
		t.Error("the bundle is made anew although its CRLs are the same")
	}

	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	snap := e.issuers.Current()
	roots, cas := file("roots.pem", issuer.EncodePEM(snap.Roots()...)), file("ca.pem", issuer.EncodePEM(snap.ClientCAs()...))
	crls := file("crls.pem", crl.Bytes(bundle.PEM))
	openssl := func(want string, args ...string) {
		t.Helper()
		out, err := exec.Command("openssl", args...).CombinedOutput()
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("openssl %s: %v\n%s\nwant %q", strings.Join(args, " "), err, out, want)
		}
	}
	for _, ca := range []*certtest.CA{e.Issuing, e.Root} {
		at, l := list(t, p, ca)
		openssl("verify OK", "crl", "-inform", "DER", "-in", file(ca.Name+".crl", crl.Bytes(at.DER)), "-CAfile", cas, "-noout")
		openssl("verify OK", "crl", "-in", file(ca.Name+".crl.pem", crl.Bytes(at.PEM)), "-CAfile", cas, "-noout")
		if ca == e.Issuing {
			openssl("Invalidity Date", "crl", "-in", filepath.Join(dir, "issuing.crl"), "-inform", "DER", "-text", "-noout")
			if len(l.RevokedCertificateEntries) != 3 {
				t.Errorf("%d entries, want 3", len(l.RevokedCertificateEntries))
			}
		}
		z, err := zx509.ParseRevocationList(crl.Bytes(at.DER))
		if err != nil {
			t.Fatalf("zcrypto: %v", err)
		}
		registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{lint.RFC5280}})
		if err != nil {
			t.Fatal(err)
		}
		for name, result := range zlint.LintRevocationListEx(z, registry).Results {
			if result.Status > lint.Pass {
				t.Errorf("zlint on %s: %s is %v: %s", ca.Name, name, result.Status, result.Details)
			}
		}
	}
	goodFile := file("good.pem", issuer.EncodePEM(good.Certificate))
	badFile := file("bad.pem", issuer.EncodePEM(bad.Certificate))
	check := []string{"verify", "-crl_check_all", "-CAfile", roots, "-untrusted", cas, "-CRLfile", crls}
	openssl("good.pem: OK", append(check, goodFile)...)
	openssl("certificate revoked", append(check, badFile)...)
}

// crowded is a real store under whose revocations there are many more, of nothing else.
type crowded struct {
	store.Store
	rows []store.RevokedEntry // in the order of serial numbers
}

func (c *crowded) Revocations(ctx context.Context, key int64, scope string) (int64, iter.Seq2[store.RevokedEntry, error], error) {
	head, err := c.Head(ctx)
	return head.Change, func(yield func(store.RevokedEntry, error) bool) {
		for _, e := range c.rows {
			if !yield(e, nil) {
				return
			}
		}
	}, err
}

// BenchmarkBuild is the list after one revocation more, recorded in a real store.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := setup(b)
			rows := make([]store.RevokedEntry, n)
			end := time.Now().AddDate(1, 0, 0)
			for i := range rows {
				serial, err := pki.NewSerialNumber(crand.Reader, end, time.Now())
				if err != nil {
					b.Fatal(err)
				}
				rows[i] = store.RevokedEntry{
					Serial: serial, Scope: pki.ScopeFull, NotAfter: end,
					Revocation: pki.Revocation{Status: pki.Revoked, Reason: pki.KeyCompromise, RevokedAt: time.Now().Add(-time.Hour)},
				}
			}
			slices.SortFunc(rows, func(a, b store.RevokedEntry) int { return cmp.Compare(a.Serial, b.Serial) })
			p := e.publisher("a", func(c *crl.Config) { c.Store = &crowded{e.store, rows} })
			key := e.issuers.Current().Key(e.Issuing.KeyID)
			if _, err := p.Build(b.Context(), key, true); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				c := e.Issuing.Stub(b, e.store, time.Now(), end)
				certtest.Change(b, e.store, c, pki.ActionRevoke, pki.KeyCompromise, time.Now())
				b.StartTimer()
				if _, err := p.Build(b.Context(), key, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
