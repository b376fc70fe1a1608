package ca

import (
	"maps"
	"sync"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

// Metrics are figures since the process started. The maps are the caller's.
type Metrics struct {
	Issued         map[IssuedBy]int64
	Refused        map[RefusedBy]int64
	Changed        map[pki.Action]int64
	ChangesRefused map[ChangeRefusedBy]int64
}

// IssuedBy tells which certificates were counted together, renewals among them.
type IssuedBy struct {
	Profile  string // internal ones too
	Protocol string // as in Request
}

// RefusedBy tells which requests for certificates were counted together.
type RefusedBy struct {
	Profile string // empty when the request named none that is in force: what clients write is no label
	Kind    fault.Kind
}

// ChangeRefusedBy tells which requests for a change of status were counted together.
type ChangeRefusedBy struct {
	Action pki.Action
	Kind   fault.Kind
}

// figures counts. The zero value is ready.
type figures struct {
	mu sync.Mutex
	at Metrics // guarded by mu
}

// Metrics returns the authority's figures.
func (a *Authority) Metrics() Metrics {
	a.figures.mu.Lock()
	defer a.figures.mu.Unlock()
	at := a.figures.at
	return Metrics{
		Issued: maps.Clone(at.Issued), Refused: maps.Clone(at.Refused),
		Changed: maps.Clone(at.Changed), ChangesRefused: maps.Clone(at.ChangesRefused),
	}
}

// countIssue counts a certificate that was issued, or a request that was refused.
func (a *Authority) countIssue(profile, protocol string, err error) {
	if err != nil {
		a.Refused(profile, err)
		return
	}
	f := &a.figures
	f.mu.Lock()
	defer f.mu.Unlock()
	count(&f.at.Issued, IssuedBy{profile, protocol})
}

// Refused counts a request for a certificate that a front-end has refused with err, before it came to Issue.
func (a *Authority) Refused(profile string, err error) {
	f := &a.figures
	if _, known := a.policy.Load().profiles[profile]; !known {
		if _, e := internalProfile(profile); e != nil {
			profile = ""
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	count(&f.at.Refused, RefusedBy{profile, fault.KindOf(err)})
}

// countChange counts a change of a status, or a request for one that was refused.
func (a *Authority) countChange(action pki.Action, err error) {
	f := &a.figures
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		count(&f.at.Changed, action)
		return
	}
	count(&f.at.ChangesRefused, ChangeRefusedBy{action, fault.KindOf(err)})
}

func count[K comparable](m *map[K]int64, key K) {
	if *m == nil {
		*m = map[K]int64{}
	}
	(*m)[key]++
}
