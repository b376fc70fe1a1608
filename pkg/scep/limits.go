package scep

import (
	"context"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
)

// What a network address may fail: a fleet behind one address whose devices all have a wrong challenge is slowed down, and
// goes on when that is mended. Requests that succeed cost nothing.
const (
	failuresPerSecond = 2
	failuresBurst     = 200
	maxSources        = 10_000
)

// failures remembers how often each address has failed. When the young map is full it becomes the old one, and the old one
// is forgotten. It is safe for concurrent use.
type failures struct {
	now        func() time.Time
	mu         sync.Mutex
	young, old map[string]*rate.Limiter // guarded by mu
}

func newFailures(now func() time.Time) *failures {
	return &failures{now: now, young: map[string]*rate.Limiter{}}
}

// network is what an address counts as: an IPv6 network that one host commonly has to itself. Loopback addresses are
// exempt: a proxy on this machine is one address for all.
func network(source string) (key string, counts bool) {
	ip, err := netip.ParseAddr(source)
	switch {
	case err != nil:
		return source, true
	case ip.IsLoopback():
		return "", false
	case ip.Is6():
		if p, err := ip.Prefix(64); err == nil {
			return p.String(), true
		}
	}
	return source, true
}

func (f *failures) limiter(key string) *rate.Limiter {
	l, ok := f.young[key]
	if !ok {
		if l, ok = f.old[key]; !ok {
			l = rate.NewLimiter(failuresPerSecond, failuresBurst)
		}
		if len(f.young) >= maxSources {
			f.young, f.old = make(map[string]*rate.Limiter, maxSources), f.young
		}
		f.young[key] = l
	}
	return l
}

// spend counts a failure.
func (f *failures) spend(source string) {
	key, counts := network(source)
	if !counts {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limiter(key).AllowN(f.now(), 1)
}

// wait returns 0 if an address may ask, and else how long until it may.
func (f *failures) wait(source string) time.Duration {
	key, counts := network(source)
	if !counts {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.young[key]
	if !ok {
		if l, ok = f.old[key]; !ok {
			return 0
		}
	}
	if missing := 1 - l.TokensAt(f.now()); missing > 0 {
		return time.Duration(missing / failuresPerSecond * float64(time.Second))
	}
	return 0
}

// auditor writes refusals into the audit trail, at a rate at which a stranger cannot fill the store. What it leaves out it
// counts, and the next record says how many there were. It is safe for concurrent use.
type auditor struct {
	now     func() time.Time
	limit   *rate.Limiter
	mu      sync.Mutex
	dropped int // guarded by mu
}

// How many records of refusals there are at most: one in ten seconds, and a hundred at once.
const (
	auditEvery = 10 * time.Second
	auditBurst = 100
)

func newAuditor(now func() time.Time) *auditor {
	return &auditor{now: now, limit: rate.NewLimiter(rate.Every(auditEvery), auditBurst)}
}

// admit reports whether a record may be written, and how many were left out before it.
func (a *auditor) admit() (dropped int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.limit.AllowN(a.now(), 1) {
		a.dropped++
		return 0, false
	}
	dropped, a.dropped = a.dropped, 0
	return dropped, true
}

func (t *transaction) refusalRecord(why string, dropped int) audit.Record {
	p := t.principal()
	r := audit.Record{
		Time: t.now, Action: audit.ActionRefuse, Actor: p.Name, Role: p.Role.String(), Source: t.source, RequestID: t.id,
		Target: "enrollment_point/" + t.point.Name(),
		Detail: map[string]string{"why": clean(why), "type": known(t.request.MessageType), "transaction_id": t.request.TransactionID},
	}
	if t.own != nil {
		r.Target = "certificate/" + t.own.Fingerprint.String()
		r.Detail["enrollment_point"] = t.point.Name()
	}
	if dropped > 0 {
		r.Detail["left_out_before"] = strconv.Itoa(dropped)
	}
	return r
}

// record notes a refusal. That it cannot be written is no reason to answer otherwise.
func (a *auditor) record(ctx context.Context, h *Handler, t *transaction, why *refusal) {
	dropped, ok := a.admit()
	if !ok {
		return
	}
	if err := h.cfg.Store.RecordAudit(ctx, t.refusalRecord(why.Error(), dropped)); err != nil {
		h.log.Warn("a refusal was not audited", "request_id", t.id, "err", err)
	}
}

// failChallenge counts a wrong secret for a challenge that exists.
func (a *auditor) failChallenge(ctx context.Context, h *Handler, t *transaction, id string) {
	dropped, ok := a.admit()
	if !ok {
		return
	}
	r := t.refusalRecord("the challenge has another secret", dropped)
	r.Action, r.Target = audit.ActionChallengeFail, "challenge/"+id
	if err := h.cfg.Store.FailChallenge(ctx, id, r); err != nil && !fault.Is(err, fault.NotFound) {
		h.log.Warn("a wrong challenge was not counted", "request_id", t.id, "err", err)
	}
}

// legacy notes that a switch was used: counted, and in the log, with the day on which it ends.
func (h *Handler) legacy(t *transaction, s enrollment.Switch) {
	h.counts.add("legacy", string(s))
	h.log.Warn("a device was served by a legacy switch", "point", t.point.Name(), "switch", string(s), "until", t.point.Config().Legacy[s].Time.Format(time.DateOnly),
		"transaction_id", t.request.TransactionID, "source", t.source, "request_id", t.id)
}

// Count is how often an operation ended in an outcome.
type Count struct {
	Operation string // GetCACaps, GetCACert, PKCSReq, ...; "legacy" with the switch as outcome
	Outcome   string // SUCCESS, FAILURE, PENDING, refused, throttled, unavailable, unsupported
	Number    int64
}

// counts are figures since the process started. The zero value is ready.
type counts struct {
	mu sync.Mutex
	n  map[[2]string]int64 // guarded by mu
}

func (c *counts) add(operation, outcome string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[[2]string]int64{}
	}
	c.n[[2]string{operation, outcome}]++
}

// Counts returns how often each operation ended in each outcome since the process started, in no order.
func (h *Handler) Counts() []Count {
	h.counts.mu.Lock()
	defer h.counts.mu.Unlock()
	list := make([]Count, 0, len(h.counts.n))
	for k, n := range h.counts.n {
		list = append(list, Count{k[0], k[1], n})
	}
	return list
}
