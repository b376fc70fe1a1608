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

// poller is a closed loop over many plain connections in one thread, with epoll(7): a generator that takes little of the
// cores which it shares with the server. Each connection has one request on its way.
type poller struct {
	address netip.AddrPort
	// next returns the n-th request. The octets are used until the next call for the same connection.
	next func(conn, n int) []byte
	// check looks at the whole body of the n-th answer. It is called for one answer in sampleEvery.
	check       func(n int, body []byte) error
	connections int
	duration    time.Duration
	edge        func() error // called when the measured phase begins, and when it ends
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
	fd    int
	n     int // number of the request on its way
	out   []byte
	in    []byte
	began time.Time
}

const pollTimeout = 10 * time.Second

func (p *poller) run(ctx context.Context) (out *polled, err error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	defer unix.Close(ep)
	conns := make([]*pollConn, p.connections)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = unix.Close(c.fd)
			}
		}
	}()
	out = &polled{}
	serial := 0
	begin := func(i int, now time.Time) error {
		c := conns[i]
		c.n, c.out, c.in, c.began = serial, p.next(i, serial), c.in[:0], now
		serial++
		return c.write()
	}
	now := time.Now()
	for i := range conns {
		if conns[i], err = p.dial(ep, i); err != nil {
			return nil, fmt.Errorf("connection %d of %d: %w", i+1, p.connections, err)
		}
		if err := begin(i, now); err != nil {
			return nil, err
		}
	}
	measureFrom, heard := now.Add(warmUp), now
	measuring := false
	var measured time.Time
	events := make([]unix.EpollEvent, p.connections)
	for {
		n, err := unix.EpollWait(ep, events, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("epoll_wait: %w", err)
		}
		now = time.Now()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case n > 0:
			heard = now
		case now.Sub(heard) > pollTimeout:
			return nil, fmt.Errorf("no answer for %s", pollTimeout)
		}
		if !measuring && now.After(measureFrom) {
			if err := p.edge(); err != nil {
				return nil, err
			}
			now = time.Now()
			measuring, measured = true, now
		}
		if measuring && now.Sub(measured) >= p.duration {
			out.took = now.Sub(measured)
			return out, p.edge()
		}
		for _, e := range events[:max(n, 0)] {
			i := int(e.Fd)
			c := conns[i]
			body, ended, err := c.read()
			switch {
			case err != nil:
				return nil, fmt.Errorf("answer %d: %w", c.n, err)
			case body == nil && !ended:
				continue // more to come
			case body == nil:
				return nil, fmt.Errorf("answer %d: the connection ended after %d octets", c.n, len(c.in))
			}
			out.all++
			if measuring {
				out.latency.add(time.Since(c.began))
			}
			if c.n%sampleEvery == 0 {
				if err := p.check(c.n, body); err != nil {
					return nil, fmt.Errorf("answer %d: %w", c.n, err)
				}
				out.checked++
			}
			if ended {
				out.redials++
				_ = unix.Close(c.fd)
				if conns[i], err = p.dial(ep, i); err != nil {
					return nil, err
				}
				conns[i].in = c.in
			}
			if err := begin(i, time.Now()); err != nil {
				return nil, err
			}
		}
	}
}

func (p *poller) dial(ep, i int) (*pollConn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	fail := func(what string, err error) (*pollConn, error) {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(p.address.Port()), Addr: p.address.Addr().As4()}); err != nil {
		return fail("connect", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fail("TCP_NODELAY", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return fail("O_NONBLOCK", err)
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(i)}); err != nil {
		return fail("epoll_ctl", err)
	}
	return &pollConn{fd: fd, in: make([]byte, 0, 16<<10)}, nil
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
