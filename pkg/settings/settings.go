// Package settings is what an administrator settles for one issuer: which form its CRLs have (RFC 5280, Section 5), how
// often they are made and how long they and its OCSP answers may be used. Settings live in the store, version after
// version, and reach every replica within a second. What they leave open is the process's to say: see package config.
//
// This package reads, checks and completes settings; packages crl, ocsp and ca do what they say.
package settings

import (
	"cmp"
	"time"

	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

// Duration is a duration in text form, as in "7d", "36h" or "500ms".
type Duration = document.Duration

// Change is a difference between two configurations.
type Change = document.Change

// Form is how the revoked certificates of an issuer are spread over CRLs.
type Form string

// The forms. The empty one is Full.
const (
	// Full is one CRL that speaks of every certificate.
	Full Form = "full"
	// Sharded is a set of CRLs, each of which speaks of its share of the certificates, one for CA certificates alone, and
	// the full one beside them, for verifiers that read CRLs from a file.
	Sharded Form = "sharded"
)

// DefaultShards is how many shards a sharded issuer has whose settings say none.
const DefaultShards = 64

// What the zero values of DeltaRules stand for.
const (
	DefaultBaseInterval    = document.Day
	DefaultDeltaNextUpdate = document.Day
)

// Config is what an administrator writes. The zero value leaves everything as the process has it: one full CRL.
type Config struct {
	// Name is the issuer's, for files that speak of several. It is not kept with the rest.
	Name string    `json:"name,omitempty"`
	CRL  CRLRules  `json:"crl,omitzero"`
	OCSP OCSPRules `json:"ocsp,omitzero"`
}

// CRLRules say how the issuer's CRLs are made.
type CRLRules struct {
	// Form is "full" (default) or "sharded". Certificates keep the CRL that they were issued with: a change is for new
	// ones, and the others' lists are made until the last of them has ended.
	Form Form `json:"form,omitempty"`
	// Shards is how many CRLs a sharded issuer's certificates are spread over: 2 to 1024. Default: 64.
	Shards int `json:"shards,omitempty"`
	// Delta, if it is there, has delta CRLs made (RFC 5280, Section 5.2.4), for verifiers that ask for them.
	Delta *DeltaRules `json:"delta,omitempty"`
	// Interval is how often every CRL is made anew: 1m to 30d. Default: crl.interval of the process.
	Interval Duration `json:"interval,omitempty"`
	// NextUpdate is how long verifiers may use a CRL: longer than Interval, up to 1y. Default: crl.next_update.
	NextUpdate Duration `json:"nextUpdate,omitempty"`
	// Coalesce is how long a revocation waits for others, so that a storm costs one CRL: 10ms to 1m. Default: crl.coalesce.
	Coalesce Duration `json:"coalesce,omitempty"`
	// MaxAge is how long HTTP caches may keep a CRL: 1s to 1d. Default: 1m.
	MaxAge Duration `json:"maxAge,omitempty"`
}

// DeltaRules say how delta CRLs are made. An empty object has them made with the defaults.
type DeltaRules struct {
	// BaseInterval is how often they begin anew from a complete CRL: not more often than that is made, and before it ends.
	// Default: 1d, or as near to it as that allows.
	BaseInterval Duration `json:"baseInterval,omitempty"`
	// NextUpdate is how long verifiers may use a delta CRL: longer than crl.interval, and not longer than a complete one.
	// Default: 1d, or as near to it as that allows.
	NextUpdate Duration `json:"nextUpdate,omitempty"`
}

// OCSPRules say how status requests are answered (RFC 6960).
type OCSPRules struct {
	// NextUpdate is how long verifiers may use an answer: 1m to 30d. Default: ocsp.next_update of the process.
	NextUpdate Duration `json:"nextUpdate,omitempty"`
	// MaxAge is how long HTTP caches may keep one: 1s up to NextUpdate. Default: ocsp.max_age.
	MaxAge Duration `json:"maxAge,omitempty"`
}

// Parse reads the JSON of settings. Unknown and repeated fields, and anything after the object, are refused. The result
// has not been checked. Errors are faults of the kind BadRequest.
func Parse(b []byte) (Config, error) { return document.Parse[Config](b, "issuer") }

// Diff returns the fields in which two configurations differ; see [document.Diff].
func Diff(before, after Config) ([]Change, error) { return document.Diff(before, after) }

// Set returns the set of CRLs that new certificates are spread over: pki.ScopeFull when there is one for all, else the
// name of a set of shards.
func (r CRLRules) Set() string {
	if r.Form != Sharded {
		return pki.ScopeFull
	}
	return pki.ShardSet(cmp.Or(r.Shards, DefaultShards))
}

// InForce is settings with everything filled in that they left open.
type InForce struct {
	CRL  CRL
	OCSP OCSP
}

// CRL is how an issuer's CRLs are made.
type CRL struct {
	Shards          int // 0: the form is Full
	Interval        time.Duration
	NextUpdate      time.Duration
	Coalesce        time.Duration
	MaxAge          time.Duration
	Delta           bool
	BaseInterval    time.Duration // 0 without Delta
	DeltaNextUpdate time.Duration // 0 without Delta
}

// Set is CRLRules.Set.
func (c CRL) Set() string {
	if c.Shards == 0 {
		return pki.ScopeFull
	}
	return pki.ShardSet(c.Shards)
}

// Default is what a process has settled that was told nothing.
func Default() InForce {
	return InForce{
		CRL:  CRL{Interval: time.Hour, NextUpdate: 7 * 24 * time.Hour, Coalesce: 500 * time.Millisecond, MaxAge: time.Minute},
		OCSP: OCSP{NextUpdate: 10 * time.Minute, MaxAge: time.Minute},
	}
}

// OCSP is how an issuer's certificates are answered for.
type OCSP struct {
	NextUpdate time.Duration
	MaxAge     time.Duration
}

// Over fills in what the settings leave open from those of the process. What then does not fit, because the process has
// other settings than when Check was asked, is made to fit: lists never end before the next ones are made.
func (c Config) Over(process InForce) InForce {
	or := func(d Duration, process time.Duration) time.Duration { return cmp.Or(time.Duration(d), process) }
	r := c.CRL
	out := InForce{
		CRL: CRL{
			Interval: or(r.Interval, process.CRL.Interval), NextUpdate: or(r.NextUpdate, process.CRL.NextUpdate),
			Coalesce: or(r.Coalesce, process.CRL.Coalesce), MaxAge: or(r.MaxAge, process.CRL.MaxAge),
		},
		OCSP: OCSP{NextUpdate: or(c.OCSP.NextUpdate, process.OCSP.NextUpdate), MaxAge: or(c.OCSP.MaxAge, process.OCSP.MaxAge)},
	}
	l := &out.CRL
	if l.NextUpdate <= l.Interval {
		l.NextUpdate = 2 * l.Interval
	}
	if r.Form == Sharded {
		l.Shards = cmp.Or(r.Shards, DefaultShards)
	}
	if r.Delta != nil {
		l.Delta = true
		l.BaseInterval = min(max(or(r.Delta.BaseInterval, time.Duration(DefaultBaseInterval)), l.Interval), l.NextUpdate)
		l.DeltaNextUpdate = or(r.Delta.NextUpdate, time.Duration(DefaultDeltaNextUpdate))
		if l.DeltaNextUpdate <= l.Interval || l.DeltaNextUpdate > l.NextUpdate {
			l.DeltaNextUpdate = min(2*l.Interval, l.NextUpdate)
		}
	}
	out.OCSP.MaxAge = min(out.OCSP.MaxAge, out.OCSP.NextUpdate)
	return out
}

// Check refuses settings that are out of bounds, or that do not fit together with those of the process. Errors are faults
// of the kind PolicyRefused that name the field.
func (c Config) Check(process InForce) error {
	refuse := func(field, format string, args ...any) *fault.Error {
		return fault.New(fault.PolicyRefused, format, args...).WithField(field)
	}
	r := c.CRL
	switch {
	case r.Form != "" && r.Form != Full && r.Form != Sharded:
		return refuse("crl.form", "there is no such form of CRLs").WithHint("there are full and sharded")
	case r.Shards != 0 && r.Form != Sharded:
		return refuse("crl.shards", "a full CRL has no shards").WithHint("set crl.form to sharded as well")
	case r.Shards != 0 && (r.Shards < 2 || r.Shards > pki.MaxShards):
		return refuse("crl.shards", "%d shards: there can be 2 to %d", r.Shards, pki.MaxShards)
	}
	var delta DeltaRules
	if r.Delta != nil {
		delta = *r.Delta
	}
	const second, minute = Duration(time.Second), Duration(time.Minute)
	for _, b := range []struct {
		field       string
		value       Duration
		least, most Duration
	}{
		{"crl.interval", r.Interval, minute, 30 * document.Day},
		{"crl.nextUpdate", r.NextUpdate, 2 * minute, document.Year},
		{"crl.coalesce", r.Coalesce, Duration(10 * time.Millisecond), minute},
		{"crl.maxAge", r.MaxAge, second, document.Day},
		{"crl.delta.baseInterval", delta.BaseInterval, minute, document.Year},
		{"crl.delta.nextUpdate", delta.NextUpdate, 2 * minute, document.Year},
		{"ocsp.nextUpdate", c.OCSP.NextUpdate, minute, 30 * document.Day},
		{"ocsp.maxAge", c.OCSP.MaxAge, second, 30 * document.Day},
	} {
		if b.value != 0 && (b.value < b.least || b.value > b.most) {
			return refuse(b.field, "%s is out of bounds: %s to %s", b.value, b.least, b.most)
		}
	}
	in := c.Over(process)
	interval, nextUpdate := Duration(in.CRL.Interval), cmp.Or(r.NextUpdate, Duration(process.CRL.NextUpdate))
	if nextUpdate <= interval {
		field := "crl.nextUpdate"
		if r.NextUpdate == 0 {
			field = "crl.interval"
		}
		return refuse(field, "lists that may be used for %s would end before the next ones are made, every %s", nextUpdate, interval).
			WithHint("a longer nextUpdate also lets verifiers outlive an outage of the CA: several intervals, 7d by default")
	}
	switch {
	case delta.BaseInterval != 0 && (delta.BaseInterval < interval || delta.BaseInterval > nextUpdate):
		return refuse("crl.delta.baseInterval", "delta CRLs cannot begin anew every %s, from complete ones that are made every %s and may be used for %s",
			delta.BaseInterval, interval, nextUpdate)
	case delta.NextUpdate != 0 && (delta.NextUpdate <= interval || delta.NextUpdate > nextUpdate):
		return refuse("crl.delta.nextUpdate", "delta CRLs that may be used for %s do not fit: they are made every %s, and complete ones may be used for %s",
			delta.NextUpdate, interval, nextUpdate)
	}
	if age, life := c.OCSP.MaxAge, cmp.Or(c.OCSP.NextUpdate, Duration(process.OCSP.NextUpdate)); age > life {
		return refuse("ocsp.maxAge", "caches cannot keep an answer for %s that may be used for %s", age, life)
	}
	return nil
}
