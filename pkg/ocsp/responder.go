package ocsp

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/settings"
	"github.com/certwright/certwright/pkg/store"
)

// What Config's zero values stand for.
const (
	DefaultNextUpdate   = 10 * time.Minute
	DefaultMaxAge       = time.Minute
	DefaultBackdate     = 5 * time.Minute
	DefaultMaxStale     = time.Minute
	DefaultCacheEntries = 12 << 10 // about 1.5 kB each
	DefaultUnknownRate  = 10
)

const (
	// maxTries is how often an answer is made anew because a status changed meanwhile.
	maxTries = 8
	// makeTimeout ends the making of an answer whose store or delegate does not come back. Apache waits for 10 seconds by
	// default, and should hear tryLater before.
	makeTimeout = 5 * time.Second
	// eventPage is how many status events are read at a time.
	eventPage = 1000
)

// ResponseStatus is an OCSPResponseStatus with the numbers of RFC 6960, Section 4.2.1. The number 4 is not used.
type ResponseStatus int

// The states of RFC 6960, Section 4.2.1.
const (
	Successful       ResponseStatus = 0
	MalformedRequest ResponseStatus = 1
	InternalError    ResponseStatus = 2
	TryLater         ResponseStatus = 3
	SigRequired      ResponseStatus = 5
	Unauthorized     ResponseStatus = 6
)

var statusNames = map[ResponseStatus]string{
	Successful: "successful", MalformedRequest: "malformedRequest", InternalError: "internalError",
	TryLater: "tryLater", SigRequired: "sigRequired", Unauthorized: "unauthorized",
}

// String returns the name the RFC gives the status.
func (s ResponseStatus) String() string {
	if name, ok := statusNames[s]; ok {
		return name
	}
	return fmt.Sprintf("responseStatus(%d)", int(s))
}

// Answer is an OCSPResponse and what HTTP must know of it. What its slices point to is shared and must not be written to.
type Answer struct {
	Status ResponseStatus
	// The OCSPResponse is head and then tail, which all answers of a delegate have in common: the embedded certificates, two
	// thirds of it.
	head, tail []byte
	// Cacheable says that others may get the same answer until MaxAge from now has passed. The fields below are set
	// for such answers only.
	Cacheable  bool
	ThisUpdate time.Time
	NextUpdate time.Time
	MaxAge     time.Duration // ends before NextUpdate; whole seconds
	ETag       string        // strong, with quotes
	// Fields are Last-Modified, Expires and ETag as lines of an HTTP header (RFC 9919, Section 7.2), made once for all who
	// get the answer.
	Fields []byte
}

// Size returns the OCSPResponse's octets.
func (a *Answer) Size() int { return len(a.head) + len(a.tail) }

// AppendDER appends the OCSPResponse.
func (a *Answer) AppendDER(dst []byte) []byte { return append(append(dst, a.head...), a.tail...) }

// DER returns a copy of the OCSPResponse.
func (a *Answer) DER() []byte { return a.AppendDER(make([]byte, 0, a.Size())) }

// unsigned are the answers that need no key (RFC 6960, Section 2.3).
var unsigned = map[ResponseStatus]Answer{
	MalformedRequest: {Status: MalformedRequest, head: []byte(der.OCSPMalformedRequest)},
	InternalError:    {Status: InternalError, head: []byte(der.OCSPInternalError)},
	TryLater:         {Status: TryLater, head: []byte(der.OCSPTryLater)},
	Unauthorized:     {Status: Unauthorized, head: []byte(der.OCSPUnauthorized)},
}

// Malformed is the answer to what cannot even be read as a request.
func Malformed() Answer { return unsigned[MalformedRequest] }

// Delegate is what signs the answers about one issuer key's certificates: a responder to which that CA delegated it
// (RFC 6960, Section 4.2.2.2), or the issuer key itself.
type Delegate struct {
	Signer crypto.Signer
	// Certificate is the signer's certificate in DER, embedded in each answer: the delegate's, issued by the issuer key
	// itself; or the CA's own, which Apache needs in the answer too. Empty means the CA's own.
	Certificate []byte
	// NotAfter is the certificate's end. No answer's nextUpdate lies after it; zero means no limit.
	NotAfter time.Time
}

// Delegates tells who signs for an issuer key. It is asked for every answer that is signed, so it must keep the delegate,
// and return the same pointer as long as nothing changed. It is called concurrently.
type Delegates interface {
	Delegate(ctx context.Context, key *issuer.Key) (*Delegate, error)
}

// Store is the part of a store that answers rest on.
type Store interface {
	Status(ctx context.Context, issuerKeyID int64, s pki.SerialNumber) (*pki.Revocation, error)
	StatusEvents(ctx context.Context, after int64, limit int) ([]store.StatusEvent, error)
}

// Config is what a Responder needs. Store, Issuers, Delegates, Clock and Age are required.
type Config struct {
	Store     Store
	Issuers   *issuer.Set
	Delegates Delegates
	Clock     *clock.Guard
	// Age tells how long ago this replica last heard of the store: watch.Watcher.Age.
	Age func() time.Duration

	NextUpdate time.Duration // how long verifiers may use an answer; 0 means DefaultNextUpdate
	MaxAge     time.Duration // how long HTTP caches may keep it; 0 means DefaultMaxAge
	Backdate   time.Duration // how far thisUpdate lies back; 0 means DefaultBackdate
	MaxStale   time.Duration // the Age from which on nothing but tryLater is said; 0 means DefaultMaxStale

	// SignUnknown answers serial numbers that were never issued with a signed unknown, instead of unauthorized. Whoever
	// asks makes us sign, so there are at most UnknownRate such answers a second; 0 means DefaultUnknownRate.
	SignUnknown bool
	UnknownRate int

	CacheEntries int // how many answers are kept at the most; 0 means DefaultCacheEntries

	Logger *slog.Logger // nil discards
}

// Responder answers OCSP requests. It is safe for concurrent use, owns no goroutine and needs no end. Its owner has
// Follow told of the store's heads.
type Responder struct {
	cfg       Config
	unknown   *rate.Limiter
	cache     *cache
	signers   sync.Map    // of *signer by the issuer key's internal id
	failing   atomic.Bool // the last answer that needed store, clock or delegate did not get them
	turn      sync.Mutex  // held by Follow
	following bool        // guarded by turn
	// settled are the rules of the issuers, by id, that have some. Guarded by turn.
	settled map[int64]settings.OCSPRules
	seen    int64 // guarded by turn: all status events up to this change have been taken over

	successful, cached, signed, malformed, internal, tryLater, unauthorized atomic.Int64
}

// signer is a delegate with what its answers have in common.
type signer struct {
	delegate *Delegate
	template *der.OCSPTemplate
}

// New returns a responder that keeps no answers yet.
func New(cfg Config) (*Responder, error) {
	if cfg.Store == nil || cfg.Issuers == nil || cfg.Delegates == nil || cfg.Clock == nil || cfg.Age == nil {
		return nil, errors.New("ocsp: incomplete config")
	}
	for _, d := range []struct {
		value *time.Duration
		zero  time.Duration
	}{
		{&cfg.NextUpdate, DefaultNextUpdate},
		{&cfg.MaxAge, DefaultMaxAge},
		{&cfg.Backdate, DefaultBackdate},
		{&cfg.MaxStale, DefaultMaxStale},
	} {
		if *d.value == 0 {
			*d.value = d.zero
		}
		if *d.value < 0 {
			return nil, errors.New("ocsp: negative duration in config")
		}
	}
	if cfg.NextUpdate < 10*time.Second {
		return nil, errors.New("ocsp: NextUpdate is shorter than 10 seconds")
	}
	if cfg.UnknownRate <= 0 {
		cfg.UnknownRate = DefaultUnknownRate
	}
	if cfg.CacheEntries <= 0 {
		cfg.CacheEntries = DefaultCacheEntries
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Responder{
		cfg:     cfg,
		unknown: rate.NewLimiter(rate.Limit(cfg.UnknownRate), cfg.UnknownRate),
		cache:   newCache(cfg.CacheEntries),
	}, nil
}

// Respond answers a request in DER. Whatever goes wrong is an answer too: the client learns the responseStatus, the log
// the cause.
func (r *Responder) Respond(ctx context.Context, request []byte) Answer {
	a := r.respond(ctx, request)
	switch a.Status {
	case Successful:
		r.successful.Add(1)
	case MalformedRequest:
		r.malformed.Add(1)
	case InternalError:
		r.internal.Add(1)
	case TryLater:
		r.tryLater.Add(1)
	case Unauthorized:
		r.unauthorized.Add(1)
	}
	return a
}

func (r *Responder) respond(ctx context.Context, request []byte) Answer {
	req, err := ParseRequest(request)
	switch {
	case errors.Is(err, ErrTooManyCertIDs):
		return unsigned[Unauthorized]
	case err != nil:
		return unsigned[MalformedRequest]
	}
	key := issuerOf(r.cfg.Issuers.Current(), req)
	if key == nil {
		return unsigned[Unauthorized]
	}
	if r.cfg.Age() > r.cfg.MaxStale {
		// What is kept may have been revoked by another replica since.
		return unsigned[TryLater]
	}
	if len(req.CertIDs) == 1 && req.Nonce == nil {
		return r.kept(ctx, key, req)
	}
	return r.alone(ctx, key, req)
}

// alone makes an answer for this one request. Nobody waits longer than makeTimeout for it.
func (r *Responder) alone(ctx context.Context, key *issuer.Key, req *Request) Answer {
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	return r.fresh(ctx, key, req, r.unchanged(key, req))
}

// unchanged is the commit of answers that are not kept.
func (r *Responder) unchanged(key *issuer.Key, req *Request) func(time.Time, []uint64, Answer) bool {
	return func(_ time.Time, gens []uint64, _ Answer) bool {
		return r.cache.unchanged(key.ID, req.CertIDs, gens)
	}
}

// issuerOf returns the issuer key that all CertIDs name, nil when there is no such one: a stranger's certificate, or
// several issuers in one request, which no delegate can sign for.
func issuerOf(issuers *issuer.Snapshot, req *Request) *issuer.Key {
	var key *issuer.Key
	for i := range req.CertIDs {
		id := &req.CertIDs[i]
		if id.Hash == 0 {
			return nil
		}
		k := issuers.ByCertID(id.IssuerNameHash, id.IssuerKeyHash)
		if k == nil || key != nil && k != key {
			return nil
		}
		key = k
	}
	return key
}

// kept returns the answer that is kept, or makes and keeps one. Those who ask for the same meanwhile wait for it.
func (r *Responder) kept(ctx context.Context, key *issuer.Key, req *Request) Answer {
	name := nameOf(key.ID, &req.CertIDs[0])
	shard := r.cache.shard(key.ID, name.serial)
	e, f, leader := shard.get(name, r.cfg.Clock.Now())
	if e != nil {
		r.cached.Add(1)
		return r.dated(key, e.answer, r.cfg.Clock.Now())
	}
	if !leader {
		select {
		case <-f.done:
		case <-ctx.Done():
			return unsigned[TryLater]
		}
		if f.answer.Cacheable || f.answer.Status == TryLater || f.answer.Status == InternalError {
			return f.answer
		}
		// Never issued, as far as the one who asked first was told; it may have been since.
		return r.alone(ctx, key, req)
	}
	defer shard.end(name, f)
	// The others must not fail because this client went away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), makeTimeout)
	defer cancel()
	f.answer = r.fresh(ctx, key, req, func(now time.Time, gens []uint64, a Answer) bool {
		a.Cacheable = true
		a.ETag, a.Fields = fields(&a)
		// Made anew at half its time, so that whoever gets it can use it for long enough.
		refresh := now.Add(a.NextUpdate.Sub(now) / 2)
		return shard.put(name, f, gens[0], &entry{answer: a, refresh: refresh})
	})
	if e := f.kept; e != nil {
		f.answer = r.dated(key, e.answer, r.cfg.Clock.Now())
	}
	return f.answer
}

// fields writes what every HTTP response with the answer says of it.
func fields(a *Answer) (etag string, lines []byte) {
	hash := sha256.New()
	hash.Write(a.head)
	hash.Write(a.tail)
	etag = `"` + hex.EncodeToString(hash.Sum(nil)[:16]) + `"`
	lines = make([]byte, 0, len("Last-Modified: \r\nExpires: \r\nETag: \r\n")+2*len(http.TimeFormat)+len(etag))
	lines = a.ThisUpdate.UTC().AppendFormat(append(lines, "Last-Modified: "...), http.TimeFormat)
	lines = a.NextUpdate.UTC().AppendFormat(append(lines, "\r\nExpires: "...), http.TimeFormat)
	lines = append(append(lines, "\r\nETag: "...), etag...)
	return etag, append(lines, "\r\n"...)
}

// requests is where Kept has its Requests from.
var requests = sync.Pool{New: func() any { return new(Request) }}

// Kept is an answer that is kept. It is safe for concurrent use, and holds its memory for as long as it is held itself.
type Kept struct {
	responder *Responder
	issuers   *issuer.Snapshot // among which the request's issuer was found
	key       *issuer.Key
	entry     *entry
}

// Kept returns what is kept for a request. It never waits, asks nobody and signs nothing; nil says that Respond must be
// called.
func (r *Responder) Kept(request []byte) *Kept {
	req := requests.Get().(*Request)
	defer requests.Put(req)
	if err := req.parse(request); err != nil || len(req.CertIDs) != 1 || req.Nonce != nil {
		return nil
	}
	issuers := r.cfg.Issuers.Current()
	key := issuerOf(issuers, req)
	if key == nil {
		return nil
	}
	name := nameOf(key.ID, &req.CertIDs[0])
	e := r.cache.shard(key.ID, name.serial).peek(name, r.cfg.Clock.Now())
	if e == nil {
		return nil
	}
	return &Kept{r, issuers, key, e}
}

// Answer returns the answer, as Respond would to the same request now. False says that it may not be given any more, not even
// later, or not while the store is away: Respond knows.
func (k *Kept) Answer() (Answer, bool) {
	r := k.responder
	now := r.cfg.Clock.Now()
	if r.cfg.Issuers.Current() != k.issuers || r.cfg.Age() > r.cfg.MaxStale || !k.entry.fresh(now) {
		return Answer{}, false
	}
	r.cached.Add(1)
	r.successful.Add(1)
	return r.dated(k.key, k.entry.answer, now), true
}

// lives returns how long answers about an issuer key's certificates may be used, and kept by caches: as the issuer's settings
// say, and the process where they say nothing.
func (r *Responder) lives(key *issuer.Key) (nextUpdate, maxAge time.Duration) {
	own := &key.Issuer.Settings.OCSP
	return cmp.Or(time.Duration(own.NextUpdate), r.cfg.NextUpdate), cmp.Or(time.Duration(own.MaxAge), r.cfg.MaxAge)
}

// dated sets how long an answer may be kept from now on.
func (r *Responder) dated(key *issuer.Key, a Answer, now time.Time) Answer {
	_, maxAge := r.lives(key)
	a.MaxAge = max(0, min(maxAge, a.NextUpdate.Sub(now)-time.Second)).Truncate(time.Second)
	return a
}

// fresh makes an answer from what the store says now. A signed answer is given only when commit finds the generations
// that were noted before the store was asked unchanged; else it is made anew.
func (r *Responder) fresh(ctx context.Context, key *issuer.Key, req *Request, commit func(now time.Time, gens []uint64, a Answer) bool) Answer {
	gens := make([]uint64, len(req.CertIDs))
	for range maxTries {
		r.cache.generations(key.ID, req.CertIDs, gens)
		now, a, err := r.sign(ctx, key, req, gens)
		r.note(ctx, key, err)
		if a.Status != Successful {
			return a
		}
		if commit(now, gens, a) {
			r.signed.Add(1)
			return a
		}
	}
	return unsigned[TryLater]
}

// sign asks the store and signs. The error is why the answer is neither signed nor the client's fault.
func (r *Responder) sign(ctx context.Context, key *issuer.Key, req *Request, gens []uint64) (time.Time, Answer, error) {
	now, err := r.cfg.Clock.Check()
	if err != nil {
		return now, unsigned[TryLater], err
	}
	nextUpdate, _ := r.lives(key)
	a := Answer{
		Status:     Successful,
		ThisUpdate: now.Add(-r.cfg.Backdate).Truncate(time.Second),
		NextUpdate: now.Add(nextUpdate).Truncate(time.Second),
	}
	data := der.ResponseData{
		ProducedAt: now.Truncate(time.Second),
		Responses:  make([]der.SingleResponse, len(req.CertIDs)),
		Nonce:      req.Nonce, // byte for byte (RFC 9654, Section 2.1)
	}
	unknown := false
	for i := range req.CertIDs {
		single := &data.Responses[i]
		single.CertID = req.CertIDs[i].Raw // RFC 6960, Section 4.2.1: the answer's CertID is the request's
		serial := req.CertIDs[i].SerialNumber
		if known, ok := r.cache.known(key.ID, serial, now); ok {
			single.Status, single.RevocationTime, single.Reason = known.status, known.revocationTime, known.reason
			continue
		}
		single.Status, err = r.status(ctx, key, serial, single)
		if err != nil {
			return now, unsigned[TryLater], fmt.Errorf("asking the store for a certificate's status: %w", err)
		}
		if req.Nonce != nil && single.Status != der.CertStatusUnknown {
			// Who asks with nonces gets no answers that are kept; but what the store says holds until it is forgotten, as for those.
			r.cache.learn(key.ID, serial, gens[i], known{
				status: single.Status, revocationTime: single.RevocationTime, reason: single.Reason, from: now, until: now.Add(nextUpdate / 2),
			})
		}
		unknown = unknown || single.Status == der.CertStatusUnknown
	}
	if unknown && (!r.cfg.SignUnknown || !r.unknown.AllowN(now, 1)) {
		return now, unsigned[Unauthorized], nil
	}

	s, err := r.signer(ctx, key)
	if err != nil {
		return now, unsigned[TryLater], err
	}
	if end := s.delegate.NotAfter; !end.IsZero() && end.Before(a.NextUpdate) {
		a.NextUpdate = end.Truncate(time.Second)
		if !a.NextUpdate.After(now.Add(time.Second)) {
			return now, unsigned[TryLater], errors.New("the certificate of the OCSP responder has ended")
		}
	}
	for i := range data.Responses {
		data.Responses[i].ThisUpdate, data.Responses[i].NextUpdate = a.ThisUpdate, a.NextUpdate
	}
	tbs, err := s.template.AppendResponseData(nil, &data)
	if err != nil {
		return now, unsigned[InternalError], err
	}
	signature, err := s.template.SignatureAlgorithm().Sign(rand.Reader, s.delegate.Signer, tbs)
	if err != nil {
		return now, unsigned[InternalError], err
	}
	a.head, a.tail = s.template.AppendOCSPResponseHead(nil, tbs, signature), s.template.Certificates()
	if unknown {
		// It may be issued the next second: not to be kept, by nobody.
		return now, Answer{Status: Successful, head: a.head, tail: a.tail}, nil
	}
	return now, a, nil
}

// status asks the store. A certificate that has ended keeps its true status; a hold is revoked with certificateHold.
func (r *Responder) status(ctx context.Context, key *issuer.Key, serial pki.SerialNumber, into *der.SingleResponse) (der.CertStatus, error) {
	if serial == "" {
		return der.CertStatusUnknown, nil
	}
	rev, err := r.cfg.Store.Status(ctx, key.ID, serial)
	switch {
	case fault.Is(err, fault.NotFound):
		return der.CertStatusUnknown, nil
	case err != nil:
		return 0, err
	case rev == nil:
		return der.CertStatusGood, nil
	}
	into.RevocationTime, into.Reason = rev.RevokedAt.Truncate(time.Second), int(rev.Reason)
	if rev.Status == pki.OnHold {
		into.Reason = int(pki.CertificateHold)
	}
	return der.CertStatusRevoked, nil
}

// signer returns the delegate of an issuer key with its template, which is made once.
func (r *Responder) signer(ctx context.Context, key *issuer.Key) (*signer, error) {
	d, err := r.cfg.Delegates.Delegate(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("who signs OCSP answers: %w", err)
	}
	if s, ok := r.signers.Load(key.ID); ok && s.(*signer).delegate == d {
		return s.(*signer), nil
	}
	algorithm, err := der.SignatureAlgorithmFor(d.Signer.Public())
	if err != nil {
		return nil, fmt.Errorf("the OCSP responder's key: %w", err)
	}
	certificate := key.Certificate
	if len(d.Certificate) > 0 {
		if certificate, err = x509.ParseCertificate(d.Certificate); err != nil {
			return nil, fmt.Errorf("the OCSP responder's certificate: %w", err)
		}
	}
	if pub, ok := d.Signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(certificate.PublicKey) {
		return nil, errors.New("the OCSP responder's certificate is not that of its key")
	}
	template, err := der.NewOCSPTemplate(der.OCSPConfig{
		SignatureAlgorithm:     algorithm,
		ResponderPublicKeyInfo: certificate.RawSubjectPublicKeyInfo,
		Certificates:           [][]byte{certificate.Raw},
	})
	if err != nil {
		return nil, fmt.Errorf("the OCSP responder's certificate: %w", err)
	}
	s := &signer{delegate: d, template: template}
	r.signers.Store(key.ID, s)
	return s, nil
}

// note logs when answers begin to fail and when they are right again, not each of them.
func (r *Responder) note(ctx context.Context, key *issuer.Key, err error) {
	if err == nil {
		if r.failing.Load() && r.failing.Swap(false) {
			r.cfg.Logger.Info("OCSP answers are signed again", "issuer", key.Issuer.Name)
		}
		return
	}
	if ctx.Err() == nil && !r.failing.Swap(true) {
		r.cfg.Logger.Error("cannot sign OCSP answers; clients are told to try later",
			"issuer", key.Issuer.Name, "key", key.KeyID, "err", err)
	}
}

// Forget drops what is kept about a certificate, and every answer about it in the making. Call it when its status has
// changed in the store: from then on no answer rests on what the store said before. The id is the store's internal one.
func (r *Responder) Forget(issuerKeyID int64, s pki.SerialNumber) { r.cache.forget(issuerKeyID, s) }

// Follow drops what is kept about certificates whose status changed, here or in another replica. It is a watch.Follower.
func (r *Responder) Follow(ctx context.Context, head store.Head) error {
	r.turn.Lock()
	defer r.turn.Unlock()
	settled := map[int64]settings.OCSPRules{}
	for _, i := range r.cfg.Issuers.Current().Issuers {
		if i.Settings.OCSP != (settings.OCSPRules{}) {
			settled[i.ID] = i.Settings.OCSP
		}
	}
	if r.following && !maps.Equal(settled, r.settled) {
		r.cache.forgetAll() // answers may be good for longer than they are to be from now on
	}
	r.settled = settled
	if !r.following || head.StatusChange < r.seen {
		// What changed before is in the store that answers from now on rest on.
		r.cache.forgetAll()
		r.following, r.seen = true, head.StatusChange
		return nil
	}
	for r.seen < head.StatusChange {
		events, err := r.cfg.Store.StatusEvents(ctx, r.seen, eventPage)
		if err != nil {
			return err
		}
		for _, e := range events {
			r.cache.forget(e.IssuerKeyID, e.Serial)
			r.seen = max(r.seen, e.Change)
		}
		if len(events) == 0 {
			r.cache.forgetAll() // the head speaks of changes that are not there: whatever they were
			r.seen = head.StatusChange
		}
	}
	return nil
}

// Metrics are figures since the process started.
type Metrics struct {
	Cached       int64 // answers from memory
	Signed       int64
	Successful   int64 // answers that say what a certificate's status is: from memory, signed, or shared by who asked at once
	Malformed    int64 // unsigned answers, by responseStatus
	Internal     int64
	TryLater     int64
	Unauthorized int64
	Kept         int // answers in memory now
}

// Metrics returns the responder's figures.
func (r *Responder) Metrics() Metrics {
	return Metrics{
		Cached: r.cached.Load(), Signed: r.signed.Load(), Successful: r.successful.Load(), Malformed: r.malformed.Load(), Internal: r.internal.Load(),
		TryLater: r.tryLater.Load(), Unauthorized: r.unauthorized.Load(), Kept: r.cache.len(),
	}
}
