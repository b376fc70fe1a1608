package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/pkg/ocsp"
)

// What ListenerConfig's zero values stand for.
const (
	DefaultMaxConns          = 16 << 10
	DefaultMaxConnsPerSource = 4 << 10
	DefaultHeadTimeout       = 5 * time.Second
	DefaultIdleTimeout       = 30 * time.Second
)

// maxBody is the longest body that is read here. It fits four digits.
const maxBody = ocsp.MaxRequestBytes

// ListenerConfig is what a Listener needs. Listener and Handler are required.
type ListenerConfig struct {
	Listener net.Listener
	Handler  *Handler

	// MaxConns and MaxConnsPerSource bound the connections that are open, in all and from one address (IPv6: one /64).
	// Who comes when there is no more room takes the place of a connection that has been silent for long, of the same
	// source first: silent ones cannot lock others out. 0 means DefaultMaxConns and DefaultMaxConnsPerSource.
	MaxConns          int
	MaxConnsPerSource int
	HeadTimeout       time.Duration // for a whole request, from its first octet, or the connection's begin; 0 means DefaultHeadTimeout
	IdleTimeout       time.Duration // at most, between requests; 0 means DefaultIdleTimeout

	// Served is called for each request that is answered here, from many goroutines; nil means nobody counts.
	Served func(post bool)
	Logger *slog.Logger // nil discards
}

// Listener serves OCSP requests on the connections that it accepts, and hands every other connection on to whoever
// calls Accept, which is a net/http server: with all octets that were read, so that it never learns of the difference.
// A net/http server spends twice as much on a request as OCSP does.
//
// Only the plain form of a request is served here (see parseHead); a connection that was handed on stays there. Each
// connection has a goroutine of its own, which ends with Drain.
type Listener struct {
	cfg     ListenerConfig
	accept  chan acceptResult
	ctx     context.Context // of answers; ends when Drain gives up
	cancel  context.CancelFunc
	start   sync.Once
	closed  atomic.Bool
	done    chan struct{} // closed with closed
	loops   sync.WaitGroup
	date    atomic.Pointer[dateField]
	repeats *repeats

	mu      sync.Mutex
	conns   map[*conn]struct{}       // guarded by mu
	sources map[netip.Prefix]*source // guarded by mu

	patience time.Duration // see patience; longer in tests

	last  atomic.Pointer[source] // who asked last
	mixed atomic.Int64           // until so many requests are asked, several sources are taken to ask

	accepted, served, handed, evicted, slow atomic.Int64
	others                                  atomic.Int64 // requests on connections that were handed on
}

type acceptResult struct {
	c   net.Conn
	err error
}

// source is an address that has connections.
type source struct {
	conns map[*conn]struct{} // guarded by Listener.mu
	// signing is held while an answer is made that is not kept: a flood from one source, each with a nonce of its own,
	// leaves processors to the others.
	signing chan struct{}
	// pipelining is held by the connection whose pipelined requests are answered.
	pipelining chan struct{}
	// share is held while a request is answered, when others ask, too: one processor is always left to them.
	share chan struct{}
}

// patience is how long a request waits for its source's share, and how long it may hold it: whoever has it may come to wait
// for a client that reads nothing or sends no more, or for the store, and the others of the source are not to wait for that.
const patience = 50 * time.Millisecond

// longWrite is how much is written without holding the share: the system's buffers may not take it all.
const longWrite = 64 << 10

// mixedFor is for how many requests another source is remembered.
const mixedFor = 1000

// pipelinePause is how long a source's pipelined requests are apart.
const pipelinePause = 200 * time.Microsecond

// NewListener returns a listener that begins to accept connections with the first call of Accept.
func NewListener(cfg ListenerConfig) (*Listener, error) {
	if cfg.Listener == nil || cfg.Handler == nil {
		return nil, errors.New("publish: incomplete listener config")
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.MaxConnsPerSource <= 0 {
		cfg.MaxConnsPerSource = DefaultMaxConnsPerSource
	}
	if cfg.HeadTimeout <= 0 {
		cfg.HeadTimeout = DefaultHeadTimeout
	}
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = DefaultIdleTimeout
	}
	if cfg.Served == nil {
		cfg.Served = func(bool) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Listener{
		cfg: cfg, accept: make(chan acceptResult), done: make(chan struct{}),
		repeats: newRepeats(), conns: map[*conn]struct{}{}, sources: map[netip.Prefix]*source{}, patience: patience,
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

// Accept returns the next connection that is not OCSP's. See net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	l.start.Do(func() { l.loops.Go(l.acceptLoop) })
	select {
	case r := <-l.accept:
		return r.c, r.err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Addr returns the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.cfg.Listener.Addr() }

// Close stops accepting and ends the connections that wait for a request. Those in the middle of one are answered first;
// Drain waits for them.
func (l *Listener) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	close(l.done)
	err := l.cfg.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if !c.handed.Load() {
			// Wakes who waits for octets. Who is answering is not disturbed, and looks at closed afterwards.
			_ = c.SetReadDeadline(time.Unix(1, 0))
		}
	}
	return err
}

// Drain waits until no goroutine of the listener runs. When the context ends first, connections are cut off. It must
// come after Close.
func (l *Listener) Drain(ctx context.Context) {
	ended := make(chan struct{})
	go func() { l.loops.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		l.cancel()
		l.mu.Lock()
		for c := range l.conns {
			if !c.handed.Load() {
				_ = c.Conn.Close() // its goroutine does the rest
			}
		}
		l.mu.Unlock()
		<-ended
	}
	l.cancel()
}

// acceptLoop accepts until the listener is closed.
func (l *Listener) acceptLoop() {
	const longestPause = time.Second
	pause := time.Duration(0)
	for {
		nc, err := l.cfg.Listener.Accept()
		if err != nil {
			if l.closed.Load() {
				return
			}
			if temporary(err) {
				// Out of file descriptors, most likely. One of them can be had back at once.
				l.evictAny()
				pause = min(longestPause, max(5*time.Millisecond, 2*pause))
				l.cfg.Logger.Warn("cannot accept a connection; trying again", "err", err, "in", pause)
				select {
				case <-l.done:
					return
				case <-time.After(pause):
				}
				continue
			}
			select {
			case l.accept <- acceptResult{err: err}:
			case <-l.done:
			}
			return
		}
		pause = 0
		l.accepted.Add(1)
		if c := l.admit(nc); c != nil {
			l.loops.Go(c.serve)
		}
	}
}

// temporary reports whether accepting may work again later.
func temporary(err error) bool {
	var e interface{ Temporary() bool } // deprecated for what it says of reading; of Accept it is what net/http asks
	return errors.As(err, &e) && e.Temporary()
}

// admit takes a connection in, at the cost of a silent one when there is no room. It returns nil when the listener is
// closed.
func (l *Listener) admit(nc net.Conn) *conn {
	from := sourceOf(nc.RemoteAddr())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		_ = nc.Close()
		return nil
	}
	s := l.sources[from]
	if s == nil {
		processors := runtime.GOMAXPROCS(0)
		s = &source{
			conns: map[*conn]struct{}{}, signing: make(chan struct{}, 2*processors), pipelining: make(chan struct{}, 1),
			share: make(chan struct{}, max(1, processors-1)),
		}
		l.sources[from] = s
	}
	switch {
	case len(s.conns) >= l.cfg.MaxConnsPerSource:
		l.evict(s.conns)
	case len(l.conns) >= l.cfg.MaxConns:
		l.evict(l.conns)
	}
	c := &conn{Conn: nc, socket: newSocket(nc), l: l, from: from, source: s, gone: make(chan struct{})}
	c.heard.Store(time.Now().UnixNano())
	s.conns[c], l.conns[c] = struct{}{}, struct{}{}
	return c
}

func (l *Listener) evictAny() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.evict(l.conns)
}

// evict cuts off a connection: of a few, as the map gives them, the one that has been silent for the longest. The caller
// holds mu.
func (l *Listener) evict(among map[*conn]struct{}) {
	const looks = 32
	var victim *conn
	var since int64
	looked := 0
	for c := range among {
		if heard := c.heard.Load(); victim == nil || heard < since {
			victim, since = c, heard
		}
		if looked++; looked == looks {
			break
		}
	}
	if victim != nil {
		l.evicted.Add(1)
		l.forget(victim)
		_ = victim.Conn.Close()
	}
}

// forget takes a connection off the books. The caller holds mu.
func (l *Listener) forget(c *conn) {
	if _, ok := l.conns[c]; !ok {
		return
	}
	close(c.gone)
	delete(l.conns, c)
	delete(c.source.conns, c)
	if len(c.source.conns) == 0 && l.sources[c.from] == c.source {
		delete(l.sources, c.from)
	}
}

// sourceOf returns whom limits are for: an IPv4 address, or the /64 that a host of IPv6 has for itself.
func sourceOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// ListenerMetrics are figures since the listener began.
type ListenerMetrics struct {
	Accepted int64 // connections
	Handed   int64 // connections that were handed on
	Evicted  int64 // connections cut off to make room
	Slow     int64 // connections cut off in the middle of a request that took too long
	Served   int64 // requests answered here
	Open     int   // connections now, those handed on included
}

// Metrics returns the listener's figures.
func (l *Listener) Metrics() ListenerMetrics {
	l.mu.Lock()
	open := len(l.conns)
	l.mu.Unlock()
	return ListenerMetrics{
		Accepted: l.accepted.Load(), Handed: l.handed.Load(), Evicted: l.evicted.Load(), Slow: l.slow.Load(),
		Served: l.served.Load(), Open: open,
	}
}

// conn is an accepted connection. Handed on, its Read begins with what was read before.
type conn struct {
	net.Conn
	l      *Listener
	from   netip.Prefix
	source *source
	heard  atomic.Int64 // when it last did something, in Unix nanoseconds
	handed atomic.Bool
	gone   chan struct{} // closed when it is off the books: cut off, or ended

	socket io.ReadWriter // of Conn; serve's
	buf    []byte        // read and not yet served; owned by serve, then by Read
	out    []byte        // owned by serve
	armed  time.Time     // the deadline that is set; owned by serve
	eof    bool          // the client has sent its last octet; owned by serve
	full   bool          // the last Read filled its buffer; owned by Read
	wrote  atomic.Bool   // something was written since the last Read
	turn   atomic.Bool   // it holds source.pipelining, for Read
	share  atomic.Bool   // it holds source.share, until the answer is written or patience ends
	expiry *time.Timer   // gives the share back when it was held for too long; owned by serve, then by Read
}

type connKey struct{}

// ConnContext has handlers know their connection, for OwnTime: it is for http.Server.
func (l *Listener) ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// OwnTime is for handlers that wait, or see to it themselves that all sources have their turn: others of the same source need
// not wait until they have answered. The listener's handlers answer from memory, by turns.
func OwnTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*conn); ok {
			c.giveShare()
		}
		next.ServeHTTP(w, r)
	})
}

// Read is net/http's, once the connection was handed on.
func (c *conn) Read(b []byte) (int, error) {
	c.heard.Store(time.Now().UnixNano())
	if len(c.buf) > 0 {
		n := copy(b, c.buf)
		if c.buf = c.buf[n:]; len(c.buf) == 0 {
			c.buf = nil
		}
		if len(b) > 1 {
			c.takeShare()
		}
		return n, nil
	}
	if len(b) == 1 { // it looks for an octet while it makes a response, to hear of a client that goes away
		return c.Conn.Read(b)
	}
	c.endTurn()
	c.giveShare()
	answered := c.wrote.Swap(false)
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.l.others.Add(1)
		defer c.takeShare()
	}
	// The second buffer in a row that is full, with an answer between them: no long request, but several.
	full := n == len(b)
	if full && c.full && answered && c.takeTurn() {
		c.turn.Store(true) // until all of them are answered
	}
	c.full = full
	return n, err
}

// takeTurn waits until no other connection of the source has pipelined requests answered, and lets some time pass. It
// returns false when the listener is closed, or the connection was cut off meanwhile.
//
// A goroutine that never waits for its client runs for as long as the scheduler lets it, 10 ms at a time, and nobody else is
// heard meanwhile: a few connections that always have a next request there would stop everybody else. No OCSP client
// pipelines.
func (c *conn) takeTurn() bool {
	select {
	case c.source.pipelining <- struct{}{}:
		time.Sleep(pipelinePause)
		return true
	case <-c.gone:
		return false
	case <-c.l.done:
		return false
	}
}

// endTurn ends the turn that Read took.
func (c *conn) endTurn() {
	if c.turn.CompareAndSwap(true, false) {
		<-c.source.pipelining
	}
}

// takeShare waits, for some time, until the source may have a request answered. Without that a flood of requests of one
// source would keep every processor busy, the more so with requests that net/http answers, which take far longer: whoever
// else asks waits until all of them had their turn.
func (c *conn) takeShare() {
	if c.share.Load() || !c.othersAsk() || !c.waitShare() {
		return
	}
	c.share.Store(true)
	if c.expiry == nil {
		c.expiry = time.AfterFunc(c.l.patience, c.giveShare)
	} else {
		c.expiry.Reset(c.l.patience)
	}
}

// waitShare returns false when the source has no share to give for too long.
func (c *conn) waitShare() bool {
	select {
	case c.source.share <- struct{}{}:
		return true
	default:
	}
	limit := time.NewTimer(c.l.patience)
	defer limit.Stop()
	select {
	case c.source.share <- struct{}{}:
		return true
	case <-limit.C:
	case <-c.gone:
	case <-c.l.done:
	}
	return false
}

// giveShare gives back what takeShare took, unless that was done already.
func (c *conn) giveShare() {
	if c.share.CompareAndSwap(true, false) {
		<-c.source.share
	}
}

// Write is net/http's, once the connection was handed on.
func (c *conn) Write(b []byte) (int, error) {
	c.heard.Store(time.Now().UnixNano())
	c.wrote.Store(true)
	if len(b) < longWrite {
		defer c.giveShare()
	} else {
		c.giveShare()
	}
	return c.Conn.Write(b)
}

// Close is net/http's, once the connection was handed on.
func (c *conn) Close() error {
	c.endTurn()
	c.giveShare()
	c.l.mu.Lock()
	c.l.forget(c)
	c.l.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite is net/http's: it ends its own side first, so that a client which is still sending gets the last response.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// firstBuffer holds the requests that OCSP clients send: 200 to 500 octets.
const firstBuffer = 768

// serve answers requests until one is not OCSP's, or the connection ends.
func (c *conn) serve() {
	defer func() {
		if p := recover(); p != nil {
			c.l.cfg.Logger.Error("an OCSP request panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			_ = c.Close()
		}
	}()
	for first := true; ; first = false {
		h, v := c.readHead(first)
		if v == ours {
			v = c.answer(h)
		}
		switch {
		case v == theirs:
			c.handOn()
			return
		case v == incomplete || h.close || h.http10 || c.l.closed.Load():
			_ = c.Close()
			return
		case len(c.buf) > 0:
			if c.takeTurn() {
				<-c.source.pipelining
			}
		}
	}
}

// readHead reads until it can tell what the next request is. It returns incomplete when the connection ended before.
func (c *conn) readHead(first bool) (head, verdict) {
	whole := time.Time{} // when the head must be there; zero before its first octet
	skipped := false     // a line end before it
	for {
		// RFC 9112, Section 2.2: some clients send a line end behind what they post, which is not of its length.
		if !skipped && bytes.HasPrefix(c.buf, crlf) {
			c.buf, skipped = c.buf[:copy(c.buf, c.buf[len(crlf):])], true
		}
		half := !skipped && len(c.buf) == 1 && c.buf[0] == '\r' // of a line end
		if !half && len(c.buf) > c.few(first) {
			if r := c.l.repeats.find(c.buf); r != nil {
				h := r.head
				h.repeat = r
				return h, ours
			}
			h, v := parseHead(c.buf)
			if v == ours && len(c.buf) < h.size+h.length {
				v = c.readBody(h, whole)
			}
			if v != incomplete || c.l.closed.Load() {
				return h, v
			}
		}
		switch {
		case len(c.buf) > 0 && whole.IsZero():
			whole = time.Now().Add(c.l.cfg.HeadTimeout)
			c.arm(whole)
		case len(c.buf) == 0:
			c.armIdle(first)
		}
		if !c.fill(!whole.IsZero()) {
			return head{}, c.broken(c.few(first))
		}
	}
}

// readBody reads what is missing of a request whose head is there.
func (c *conn) readBody(h head, whole time.Time) verdict {
	if whole.IsZero() {
		whole = time.Now().Add(c.l.cfg.HeadTimeout)
	}
	c.arm(whole)
	for len(c.buf) < h.size+h.length {
		if !c.fill(true) {
			return c.broken(0)
		}
	}
	return ours // the head's target, which stays behind when the buffer grows, is of no use to a POST
}

// few returns how many octets are too few for a request: behind an answer net/http does not look at less than four.
func (c *conn) few(first bool) int {
	if first {
		return 0
	}
	return 3
}

// broken tells what becomes of a connection from which no more can be read. Who ended in the middle of a request may
// still listen for what is wrong with it, and net/http knows what to say, unless there are too few octets.
func (c *conn) broken(few int) verdict {
	if c.eof && len(c.buf) > few {
		return theirs
	}
	return incomplete
}

// fill reads more octets behind those that are there. It returns false when there are none to come.
func (c *conn) fill(begun bool) bool {
	if free := cap(c.buf) - len(c.buf); free == 0 {
		grown := make([]byte, len(c.buf), max(firstBuffer, min(2*cap(c.buf), maxHead+maxBody)))
		copy(grown, c.buf)
		c.buf = grown
	}
	n, err := c.socket.Read(c.buf[len(c.buf):cap(c.buf)])
	if n > 0 {
		c.buf = c.buf[:len(c.buf)+n]
		return true
	}
	if begun && errors.Is(err, os.ErrDeadlineExceeded) {
		c.l.slow.Add(1)
	}
	c.eof = errors.Is(err, io.EOF)
	return false
}

// arm sets the deadline for reading and writing.
func (c *conn) arm(at time.Time) {
	c.armed = at
	_ = c.SetDeadline(at)
	if c.l.closed.Load() {
		_ = c.SetReadDeadline(time.Unix(1, 0)) // Close may have come before us
	}
}

// armIdle sets the deadline for the time between requests, and thereby for writing the next answer. Setting one costs,
// so it is set anew only when half of it has gone.
func (c *conn) armIdle(first bool) {
	now := time.Now()
	c.heard.Store(now.UnixNano())
	if first {
		c.arm(now.Add(c.l.cfg.HeadTimeout))
		return
	}
	if rest := c.armed.Sub(now); rest < c.l.cfg.IdleTimeout/2 || rest > c.l.cfg.IdleTimeout {
		c.arm(now.Add(c.l.cfg.IdleTimeout))
	}
}

// handOn gives the connection to whoever accepts from the listener.
func (c *conn) handOn() {
	c.handed.Store(true)
	c.socket, c.out = nil, nil
	_ = c.SetDeadline(time.Time{})
	c.l.handed.Add(1)
	select {
	case c.l.accept <- acceptResult{c: c}:
	case <-c.l.done:
		_ = c.Close()
	}
}

// answer answers the request at the begin of the buffer and takes it out. It returns incomplete when the client is gone,
// and theirs, with nothing done, when it asks for no certificate.
func (c *conn) answer(h head) verdict {
	c.takeShare()
	defer c.giveShare()
	a, again := c.repeated(&h)
	switch {
	case again:
	case h.post:
		a = c.respond(h, c.buf[h.size:h.size+h.length])
	default:
		request, found, ok := requestIn(c.out[:0], h.target)
		if !found {
			return theirs // the page for people
		}
		if c.out = request; ok { // the buffer is free until the answer is written
			a = c.respond(h, request)
		} else {
			a = ocsp.Malformed()
		}
	}
	c.out = c.appendAnswer(c.out[:0], h, a)
	c.buf = c.buf[:copy(c.buf, c.buf[h.size+h.length:])]
	c.l.served.Add(1)
	c.l.cfg.Served(h.post)
	if _, err := c.socket.Write(c.out); err != nil {
		return incomplete
	}
	return ours
}

// othersAsk reports whether, of late, requests have come from other sources than this one.
func (c *conn) othersAsk() bool {
	l := c.l
	asked := l.served.Load() + l.others.Load()
	if l.last.Load() != c.source {
		l.last.Store(c.source)
		l.mixed.Store(asked + mixedFor)
		return true
	}
	return asked < l.mixed.Load()
}

// repeated returns the answer to a request that is remembered, if it may be given again. Else it reads the head as if the
// request were new.
func (c *conn) repeated(h *head) (a ocsp.Answer, ok bool) {
	if h.repeat == nil {
		return a, false
	}
	if a, ok = h.repeat.kept.Answer(); !ok {
		c.l.repeats.forget(h.repeat)
		*h, _ = parseHead(c.buf)
	}
	return a, ok
}

// respond answers a request. Kept answers are given at once; for one that must be made, the source waits for its turn.
func (c *conn) respond(h head, request []byte) ocsp.Answer {
	if kept := c.l.cfg.Handler.cfg.OCSP.Kept(request); kept != nil {
		if a, ok := kept.Answer(); ok {
			if len(c.buf) == h.size+h.length {
				c.l.repeats.remember(c.buf, h, kept)
			}
			return a
		}
	}
	select {
	case c.source.signing <- struct{}{}:
	case <-c.gone:
		return ocsp.Malformed() // to nobody
	case <-c.l.ctx.Done():
		return c.l.cfg.Handler.cfg.OCSP.Respond(c.l.ctx, request)
	}
	defer func() { <-c.source.signing }()
	return c.l.cfg.Handler.cfg.OCSP.Respond(c.l.ctx, request)
}

// appendAnswer appends the HTTP response that writeAnswer gives, octet for octet but for the order of fields.
func (c *conn) appendAnswer(b []byte, h head, a ocsp.Answer) []byte {
	if h.http10 {
		b = append(b, "HTTP/1.0 200 OK\r\n"...)
	} else {
		b = append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	if h.close && !h.http10 {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "Content-Type: "+typeOCSP+"\r\nX-Content-Type-Options: nosniff\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(a.Size()), 10)
	b = append(b, "\r\n"...)
	b = append(b, c.l.dateNow()...)
	if !a.Cacheable || h.post {
		b = append(b, "Cache-Control: no-store\r\n\r\n"...)
	} else {
		b = append(b, a.Fields...)
		b = append(b, "Cache-Control: max-age="...)
		b = strconv.AppendInt(b, int64(a.MaxAge/time.Second), 10)
		b = append(b, ", "+cachePublic+"\r\n\r\n"...)
	}
	return a.AppendDER(b)
}

// dateField is the Date field of one second.
type dateField struct {
	second int64
	line   []byte
}

// dateNow returns the Date field with its line end (RFC 9110, Section 6.6.1).
func (l *Listener) dateNow() []byte {
	now := time.Now()
	if d := l.date.Load(); d != nil && d.second == now.Unix() {
		return d.line
	}
	d := &dateField{second: now.Unix()}
	d.line = append(d.line, "Date: "...)
	d.line = now.UTC().AppendFormat(d.line, http.TimeFormat)
	d.line = append(d.line, "\r\n"...)
	l.date.Store(d)
	return d.line
}
