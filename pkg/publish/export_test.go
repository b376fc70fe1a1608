package publish

import (
	"net"
	"testing"
	"time"
)

// Head is what parseHead makes of octets that are an OCSP request in plain form.
type Head struct {
	Method, Target, Proto string
	Close                 bool
	Length, Size          int
}

// ParseHead returns nil when the octets are net/http's, or more are needed.
func ParseHead(b []byte) *Head {
	h, v := parseHead(b)
	if v != ours {
		return nil
	}
	out := &Head{Method: "GET", Target: string(h.target), Proto: "HTTP/1.1", Close: h.close || h.http10, Length: h.length, Size: h.size}
	if h.post {
		out.Method = "POST"
	}
	if h.http10 {
		out.Proto = "HTTP/1.0"
	}
	return out
}

// Answer returns what answers a request whose octets are there, up to writing.
func Answer(t testing.TB, h *Handler, request []byte) func() {
	l, err := NewListener(ListenerConfig{Listener: noListener{}, Handler: h})
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{Conn: noConn{}, socket: noConn{}, l: l, source: &source{signing: make(chan struct{}, 1), share: make(chan struct{}, 1)}}
	return func() {
		c.buf = append(c.buf[:0], request...)
		h, v := c.readHead(false)
		if v != ours || c.answer(h) != ours {
			t.Fatal("not answered")
		}
	}
}

type noListener struct{ net.Listener }

type noConn struct{ net.Conn }

func (noConn) Read([]byte) (int, error)    { return 0, net.ErrClosed }
func (noConn) Write(b []byte) (int, error) { return len(b), nil }

// Patient has requests hold their source's share, and wait for it, for as long as it takes. Call it before Accept.
func (l *Listener) Patient() { l.patience = time.Hour }

// HoldTurns takes all sources' turns of pipelined requests, as connections do whose clients read nothing.
func (l *Listener) HoldTurns() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var held []*source
	for _, s := range l.sources {
		s.pipelining <- struct{}{}
		held = append(held, s)
	}
	return func() {
		for _, s := range held {
			<-s.pipelining
		}
	}
}

// Others returns how often something was read from connections that were handed on.
func (l *Listener) Others() int64 { return l.others.Load() }

// Turns returns how many connections have a turn of their source.
func (l *Listener) Turns() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sources {
		n += len(s.pipelining)
	}
	return n
}

// Shares returns how many requests hold a share of their source.
func (l *Listener) Shares() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sources {
		n += len(s.share)
	}
	return n
}

// Repeats returns how many requests are remembered.
func (l *Listener) Repeats() (n int) {
	for i := range l.repeats.slots {
		if l.repeats.slots[i].Load() != nil {
			n++
		}
	}
	return n
}
