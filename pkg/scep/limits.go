package scep

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/cms"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
)

// maxSources is how many network addresses and certificates are remembered in each of two maps.
const maxSources = 10_000

// limits bound what a point takes. Each network address may fail so often at a point: a fleet behind one address whose
// devices all have a wrong challenge is slowed down, and goes on when that is mended; requests that succeed cost nothing.
// And a point may take so many messages. When the young map is full it becomes the old one, and the old one is forgotten.
// It is safe for concurrent use.
type limits struct {
	now        func() time.Time
	mu         sync.Mutex
	young, old map[string]*rate.Limiter // of failures; guarded by mu
	messages   map[string]*rate.Limiter // by point, of those that have a bound; guarded by mu
}

func newLimits(now func() time.Time) *limits {
	return &limits{now: now, young: map[string]*rate.Limiter{}, messages: map[string]*rate.Limiter{}}
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

// sourceKey names the failures of an address at a point. counts is false for addresses that are exempt.
func sourceKey(point *enrollment.Point, source string) (key string, counts bool) {
	address, counts := network(source)
	return point.Name() + " " + address, counts
}

// signerKey names the failures of a certificate of ours at a point.
func signerKey(point *enrollment.Point, f pki.Fingerprint) string {
	return point.Name() + " " + f.String()
}

// known returns the failures of a key; nil if there were none. The caller holds mu.
func (l *limits) known(key string) *rate.Limiter {
	if f, ok := l.young[key]; ok {
		return f
	}
	return l.old[key]
}

// spend counts a failure.
func (l *limits) spend(point *enrollment.Point, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.known(key)
	perMinute := point.Limits().FailuresPerMinute
	if f == nil {
		f = rate.NewLimiter(rate.Limit(float64(perMinute)/60), perMinute)
	}
	if _, young := l.young[key]; !young {
		if len(l.young) >= maxSources {
			l.young, l.old = make(map[string]*rate.Limiter, maxSources), l.young
		}
		l.young[key] = f
	}
	now := l.now()
	adjust(f, now, perMinute, perMinute)
	f.AllowN(now, 1)
}

// adjust follows a point's settings when they have changed.
func adjust(f *rate.Limiter, now time.Time, perMinute, burst int) {
	if limit := rate.Limit(float64(perMinute) / 60); f.Limit() != limit {
		f.SetLimitAt(now, limit)
	}
	if f.Burst() != burst {
		f.SetBurstAt(now, burst)
	}
}

// wait returns 0 if a key may ask, and else how long until it may.
func (l *limits) wait(key string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return missing(l.known(key), l.now())
}

// missing returns how long it takes until a limiter has one to give. A nil one always has.
func missing(f *rate.Limiter, now time.Time) time.Duration {
	if f == nil {
		return 0
	}
	if m := 1 - f.TokensAt(now); m > 0 {
		return time.Duration(m / float64(f.Limit()) * float64(time.Second))
	}
	return 0
}

// take counts a message at a point. It returns 0 if the point takes it, and else how long until it takes one.
func (l *limits) take(point *enrollment.Point) time.Duration {
	in := point.Limits()
	l.mu.Lock()
	defer l.mu.Unlock()
	if in.PerMinute == 0 {
		delete(l.messages, point.Name())
		return 0
	}
	f, ok := l.messages[point.Name()]
	if !ok {
		f = rate.NewLimiter(rate.Limit(float64(in.PerMinute)/60), in.Burst)
		l.messages[point.Name()] = f
	}
	now := l.now()
	adjust(f, now, in.PerMinute, in.Burst)
	if f.AllowN(now, 1) {
		return 0
	}
	return missing(f, now)
}

// signer returns the certificate of ours that a message is signed with, if it is good: who has one is not held up by what
// others do. It is looked for only in messages that would be held up, and the store is asked only about signatures that hold.
func (h *Handler) signer(ctx context.Context, point *enrollment.Point, request *cms.PKIMessage) (f pki.Fingerprint, ok bool) {
	i, err := h.cfg.Issuers.Current().Issuer(point.Issuer())
	if err != nil {
		return f, false
	}
	signer, err := request.Verify(cms.VerifyOptions{})
	if err != nil || !bytes.Equal(signer.RawIssuer, i.Current.Certificate.RawSubject) || bytes.Equal(signer.RawIssuer, signer.RawSubject) {
		return f, false
	}
	f = sha256.Sum256(signer.Raw)
	record, err := h.cfg.Store.Certificate(ctx, f)
	return f, err == nil && record.Revocation == nil && !h.cfg.Clock.Now().After(record.NotAfter)
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
