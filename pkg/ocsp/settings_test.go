package ocsp_test

import (
	"crypto"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
)

// TestIssuerSettings has an issuer's own settings stand over the process's, for answers that were kept before as well.
func TestIssuerSettings(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	e := setup(t, now)
	follow := func() {
		t.Helper()
		head, err := e.store.Head(t.Context())
		if err == nil {
			err = e.issuers.Reload(t.Context())
		}
		if err == nil {
			err = e.responder.Follow(t.Context(), head)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	follow()
	leaf := e.Issuing.Issue(t, e.store, now, nil)
	request := ask(t, e.Issuing, leaf.Certificate.SerialNumber, crypto.SHA1)
	check := func(nextUpdate, maxAge time.Duration) {
		t.Helper()
		for range 2 { // made, and kept
			a := e.responder.Respond(t.Context(), request)
			read(t, e.Issuing, a)
			if got := a.NextUpdate.Sub(now); got != nextUpdate || a.MaxAge != maxAge {
				t.Errorf("good for %s, kept by caches for %s; want %s and %s", got, a.MaxAge, nextUpdate, maxAge)
			}
		}
	}
	put := func(version int, config string) {
		t.Helper()
		v := pki.SettingsVersion{IssuerID: e.Issuing.IssuerID, Version: version, Config: []byte(config), CreatedAt: now, CreatedBy: "test"}
		if err := e.store.PutIssuerSettings(t.Context(), v, nil, audit.Record{Time: now, Action: audit.ActionIssuer, Actor: "test"}); err != nil {
			t.Fatal(err)
		}
		follow()
	}
	check(10*time.Minute, time.Minute)
	put(1, `{"ocsp":{"nextUpdate":"2m","maxAge":"5s"}}`)
	check(2*time.Minute, 5*time.Second)
	put(2, `{"ocsp":{"nextUpdate":"1h"}}`)
	check(time.Hour, time.Minute)
	put(3, `{}`)
	check(10*time.Minute, time.Minute)
}
