package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// poller asks over many plain connections in one thread, with epoll(7): a generator that takes little of the cores which it
// shares with the server. Each connection has one request on its way, and sends the next as soon as it is answered, or when
// its time has come.
type poller struct {
	address netip.AddrPort
	source  netip.Addr // whom the connections come from; zero: whom the system takes
	// next returns the n-th request. The octets are used until the next call for the same connection.
	next func(conn, n int) []byte
	// check looks at the whole body of the n-th answer. It is called for one answer in sampleEvery.
	check       func(n int, body []byte) error
	connections int
	warmUp      time.Duration // before it is measured
	duration    time.Duration
	least       int          // it goes on until so many answers have come, warm-up included
	edge        func() error // called when the measured phase begins, and when it ends
	// perSecond is how many requests are sent a second, whatever becomes of those before; 0: as many as are answered.
	// Latency counts from when a request was to be sent: one that finds no connection free has waited, too.
	perSecond int
	renew     int // how many requests a connection sends; 0: any number
}

// polled is what a poller saw.
type polled struct {
	latency histogram
	took    time.Duration
	all     int // answers, warm-up included
	checked int
	redials int // connections that the server ended after an answer
}

// pollConn is one connection.
type pollConn struct {
	fd    int // 0: it is to be opened
	n     int // number of the request on its way
	sent  int // on this connection
	busy  bool
	out   []byte
	in    []byte
	began time.Time
}

const (
	pollTimeout = 10 * time.Second
	pollClock   = -1 // the timer's event
)

// polling is a poller at work.
type polling struct {
	*poller
	ep      int
	conns   []*pollConn
	serial  int
	idle    []int       // connections that wait for their time
	waiting []time.Time // when requests were to be sent that no connection is free for
	due     time.Time   // when the next is to be sent
	clock   int         // wakes the loop for each
	polled
}

func (p *poller) run(ctx context.Context) (out *polled, err error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	defer unix.Close(ep)
	r := &polling{poller: p, ep: ep, conns: make([]*pollConn, p.connections)}
	for i := range r.conns {
		r.conns[i] = &pollConn{in: make([]byte, 0, 16<<10)}
	}
	defer func() {
		for _, c := range r.conns {
			c.close()
		}
	}()
	now := time.Now()
	for i := range r.conns {
		if err := r.dial(i); err != nil {
			return nil, fmt.Errorf("connection %d of %d: %w", i+1, p.connections, err)
		}
		if p.perSecond > 0 {
			r.idle = append(r.idle, i)
		} else if err := r.begin(i, now); err != nil {
			return nil, err
		}
	}
	if p.perSecond > 0 {
		stop, err := r.startClock()
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	return &r.polled, r.loop(ctx)
}

// startClock has the loop woken for each request.
func (r *polling) startClock() (stop func(), err error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	every := unix.NsecToTimespec(int64(time.Second) / int64(r.perSecond))
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("timerfd_settime: %w", err)
	}
	if err := unix.EpollCtl(r.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: pollClock}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	r.clock, r.due = fd, time.Now()
	return func() { _ = unix.Close(fd) }, nil
}

// ticked sends what is due.
func (r *polling) ticked(now time.Time) error {
	for every := time.Second / time.Duration(r.perSecond); !r.due.After(now); r.due = r.due.Add(every) {
		r.waiting = append(r.waiting, r.due)
	}
	for len(r.waiting) > 0 && len(r.idle) > 0 {
		i, at := r.idle[0], r.waiting[0]
		r.idle, r.waiting = r.idle[1:], r.waiting[1:]
		if err := r.begin(i, at); err != nil {
			return err
		}
	}
	return nil
}

// begin sends the next request, which was to be sent at some time.
func (r *polling) begin(i int, at time.Time) error {
	c := r.conns[i]
	if c.fd == 0 {
		if err := r.dial(i); err != nil {
			return err
		}
	}
	c.n, c.out, c.in, c.began = r.serial, r.next(i, r.serial), c.in[:0], at
	c.sent, c.busy = c.sent+1, true
	r.serial++
	return c.write()
}

func (r *polling) loop(ctx context.Context) error {
	now := time.Now()
	measureFrom, heard := now.Add(r.warmUp), now
	measuring := false
	var measured time.Time
	events := make([]unix.EpollEvent, r.connections+1)
	for {
		n, err := unix.EpollWait(r.ep, events, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		now = time.Now()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case now.Sub(heard) > pollTimeout:
			return fmt.Errorf("no answer for %s", pollTimeout)
		}
		if !measuring && now.After(measureFrom) {
			if err := r.edge(); err != nil {
				return err
			}
			now = time.Now()
			measuring, measured = true, now
		}
		if measuring && now.Sub(measured) >= r.duration && r.all >= r.least {
			r.took = now.Sub(measured)
			return r.edge()
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == pollClock {
				var expired [8]byte
				_, _ = unix.Read(r.clock, expired[:]) // how often does not matter: ticked looks at the time
				continue
			}
			heard = now
			if err := r.answered(int(e.Fd), measuring); err != nil {
				return err
			}
		}
		if r.perSecond > 0 {
			if err := r.ticked(time.Now()); err != nil {
				return err
			}
		}
	}
}

// answered reads what has come for a connection, and goes on if that is all of an answer.
func (r *polling) answered(i int, measuring bool) error {
	c := r.conns[i]
	if c.fd == 0 {
		return nil // it was closed after this event
	}
	body, ended, err := c.read()
	switch {
	case ended && !c.busy && len(c.in) == 0: // between two requests, as servers may
		r.redials++
		c.close()
		return nil
	case err != nil:
		return fmt.Errorf("answer %d: %w", c.n, err)
	case body == nil && !ended:
		return nil // more to come
	case body == nil:
		return fmt.Errorf("answer %d: the connection ended after %d octets", c.n, len(c.in))
	}
	r.all++
	if measuring {
		r.latency.add(time.Since(c.began))
	}
	if c.n%sampleEvery == 0 {
		if err := r.check(c.n, body); err != nil {
			return fmt.Errorf("answer %d: %w", c.n, err)
		}
		r.checked++
	}
	if ended {
		r.redials++
	}
	if ended || r.renew > 0 && c.sent >= r.renew {
		c.close()
	}
	if c.in, c.busy = c.in[:0], false; r.perSecond > 0 {
		r.idle = append(r.idle, i)
		return nil
	}
	return r.begin(i, time.Now())
}

func (r *polling) dial(i int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	fail := func(what string, err error) error {
		_ = unix.Close(fd)
		return fmt.Errorf("%s: %w", what, err)
	}
	if r.source.IsValid() {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: r.source.As4()}); err != nil {
			return fail("bind", err)
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(r.address.Port()), Addr: r.address.Addr().As4()}); err != nil {
		return fail("connect", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fail("TCP_NODELAY", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return fail("O_NONBLOCK", err)
	}
	if err := unix.EpollCtl(r.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(i)}); err != nil {
		return fail("epoll_ctl", err)
	}
	r.conns[i].fd, r.conns[i].sent = fd, 0
	return nil
}

func (c *pollConn) close() {
	if c.fd != 0 {
		_ = unix.Close(c.fd)
		c.fd = 0
	}
}

// write sends the request. It fits the socket's buffer: there is only one.
func (c *pollConn) write() error {
	n, err := unix.Write(c.fd, c.out)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if n < len(c.out) {
		return errors.New("write: the socket's buffer is full")
	}
	return nil
}

// read reads what is there. The body is nil until the answer is complete, which must be 200; ended says that the
// connection is.
func (c *pollConn) read() (body []byte, ended bool, err error) {
	for {
		if cap(c.in)-len(c.in) < 4096 {
			c.in = append(make([]byte, 0, 2*cap(c.in)), c.in...)
		}
		n, err := unix.Read(c.fd, c.in[len(c.in):cap(c.in)])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil, ended, nil
		case err != nil:
			return nil, true, fmt.Errorf("read: %w", err)
		case n == 0:
			ended = true
		}
		c.in = c.in[:len(c.in)+n]
		body, closes, err := response(c.in, ended)
		if body != nil || err != nil || ended {
			return body, ended || closes, err
		}
	}
}

var (
	http11     = []byte("HTTP/1.1 200 ")
	http10     = []byte("HTTP/1.0 200 ")
	endOfHead  = []byte("\r\n\r\n")
	lengthLine = []byte("\r\ncontent-length: ")
	closeLine  = []byte("\r\nconnection: close")

	canonicalLength = []byte("\r\nContent-Length: ")
	canonicalClose  = []byte("\r\nConnection: close")
)

// response returns the body of a complete answer, nil when more must come, and whether the connection ends with it.
func response(in []byte, ended bool) (body []byte, closes bool, err error) {
	end := bytes.Index(in, endOfHead)
	if end < 0 {
		if len(in) > 16<<10 {
			return nil, false, errors.New("an endless head")
		}
		return nil, false, nil
	}
	head := in[:end+2]
	if !bytes.HasPrefix(head, http11) && !bytes.HasPrefix(head, http10) {
		line, _, _ := bytes.Cut(head, endOfHead[:2])
		return nil, false, fmt.Errorf("%q", line)
	}
	if !bytes.Contains(head, canonicalLength) { // as nginx and Go write it; lower case costs
		head = bytes.ToLower(head)
	}
	closes = head[7] == '0' || bytes.Contains(head, canonicalClose) || bytes.Contains(head, closeLine)
	_, text, found := bytes.Cut(head, canonicalLength)
	if !found {
		_, text, found = bytes.Cut(head, lengthLine)
	}
	if !found {
		if closes {
			if ended {
				return in[end+4:], true, nil
			}
			return nil, true, nil
		}
		return nil, false, errors.New("an answer without Content-Length")
	}
	text, _, _ = bytes.Cut(text, endOfHead[:2])
	length, err := strconv.Atoi(string(text))
	if err != nil {
		return nil, false, err
	}
	if len(in) < end+4+length {
		return nil, closes, nil
	}
	return in[end+4 : end+4+length], closes, nil
}
