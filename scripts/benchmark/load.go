package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	warmUp         = 2 * time.Second
	requestTimeout = 30 * time.Second
	sampleEvery    = 64 // answers of which one is kept for verification
)

// load is a closed loop: each client has one connection, of TLS if the URL says so, and posts the next request when the
// last has been answered. The clients speak HTTP/1.1 by hand, so that the generator takes little of the cores that it shares with the server.
type load struct {
	url      string // that is posted to
	headers  string // further header lines
	media    string // Content-Type; empty is JSON's
	status   int    // of a good answer; 0 is 201
	once     bool   // no request may be used twice
	roots    *x509.CertPool
	requests []request
	clients  int
	duration time.Duration
	// identify finds the certificate's name of its own in an answer: all are compared in the end.
	identify func(r *request, header http.Header, body []byte) (string, error)
	// edge is called when the measured phase begins, and when it ends.
	edge func() error
}

// outcome is what a load saw.
type outcome struct {
	latency histogram     // of the measured phase
	took    time.Duration // the measured phase
	ids     []string      // of all answers, warm-up included
	samples []sample
	rounds  int // how often the requests were used, at most
}

// sample is an answer that is verified when the clock has stopped.
type sample struct {
	request *request
	body    []byte
}

const (
	phaseWarm int32 = iota
	phaseMeasured
	phaseOver
)

func (l *load) run(ctx context.Context) (*outcome, error) {
	u, err := url.Parse(l.url)
	if err != nil {
		return nil, err
	}
	clients := make([]*client, l.clients)
	defer func() {
		for _, c := range clients {
			if c != nil {
				c.conn.Close()
			}
		}
	}()
	for i := range clients {
		if clients[i], err = l.connect(ctx, u); err != nil {
			return nil, fmt.Errorf("connection %d of %d: %w", i+1, l.clients, err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var phase atomic.Int32
	var running sync.WaitGroup
	for i, c := range clients {
		running.Go(func() {
			if err := c.loop(ctx, i, &phase); err != nil {
				cancel(err)
			}
		})
	}
	out := &outcome{}
	err = l.keepTime(ctx, &phase, out)
	phase.Store(phaseOver)
	running.Wait()
	if err := errors.Join(err, context.Cause(ctx)); err != nil {
		return nil, err
	}
	for _, c := range clients {
		out.latency.merge(&c.latency)
		out.ids = append(out.ids, c.ids...)
		out.samples = append(out.samples, c.samples...)
		out.rounds = max(out.rounds, c.rounds)
	}
	return out, nil
}

func (l *load) keepTime(ctx context.Context, phase *atomic.Int32, out *outcome) error {
	wait := func(d time.Duration) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(d):
			return nil
		}
	}
	if err := wait(warmUp); err != nil {
		return err
	}
	if err := l.edge(); err != nil {
		return err
	}
	began := time.Now()
	phase.Store(phaseMeasured)
	if err := wait(l.duration); err != nil {
		return err
	}
	phase.Store(phaseOver)
	out.took = time.Since(began)
	return l.edge()
}

// client is one connection and what it saw.
type client struct {
	load   *load
	conn   net.Conn
	in     *bufio.Reader
	path   string // of requests that have none
	head   []byte // of each request, behind the path and up to the value of Content-Length
	out    []byte // the request that is sent
	answer bytes.Buffer

	latency histogram
	ids     []string
	samples []sample
	rounds  int
}

func (l *load) connect(ctx context.Context, u *url.URL) (*client, error) {
	plain := &net.Dialer{Timeout: requestTimeout}
	dial := plain.DialContext
	if u.Scheme == "https" {
		dial = (&tls.Dialer{
			NetDialer: plain,
			Config:    &tls.Config{RootCAs: l.roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		}).DialContext
	}
	conn, err := dial(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	c := &client{load: l, conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}
	c.path = u.RequestURI()
	c.head = fmt.Appendf(nil, " HTTP/1.1\r\nHost: %s\r\n%sContent-Type: %s\r\nContent-Length: ", u.Host, l.headers, cmp.Or(l.media, "application/json"))
	return c, nil
}

// loop posts every n-th request, beginning at the client's own number, until the phase is over.
func (c *client) loop(ctx context.Context, number int, phase *atomic.Int32) error {
	requests := c.load.requests
	for n := number; ; n += c.load.clients {
		if phase.Load() == phaseOver || ctx.Err() != nil {
			return nil
		}
		if c.load.once && n >= len(requests) {
			return fmt.Errorf("the %d requests are used up: this machine is faster than was foreseen; take a shorter --duration", len(requests))
		}
		r := &requests[n%len(requests)]
		c.rounds = n/len(requests) + 1
		began := time.Now()
		header, err := c.post(began, cmp.Or(r.path, c.path), r.body)
		took := time.Since(began)
		if err != nil {
			return fmt.Errorf("request for %s: %w", r.name, err)
		}
		if phase.Load() == phaseMeasured {
			c.latency.add(took)
		}
		id, err := c.load.identify(r, header, c.answer.Bytes())
		if err != nil {
			return fmt.Errorf("answer for %s: %w", r.name, err)
		}
		if len(c.ids)%sampleEvery == 0 {
			c.samples = append(c.samples, sample{request: r, body: bytes.Clone(c.answer.Bytes())})
		}
		c.ids = append(c.ids, id)
	}
}

// post sends a body and reads the whole answer, which must be a good one.
func (c *client) post(now time.Time, path string, body []byte) (http.Header, error) {
	if err := c.conn.SetDeadline(now.Add(requestTimeout)); err != nil {
		return nil, err
	}
	c.out = append(append(append(c.out[:0], "POST "...), path...), c.head...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(append(c.out, "\r\n\r\n"...), body...)
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	c.answer.Reset()
	if _, err := io.Copy(&c.answer, answer.Body); err != nil {
		return nil, err
	}
	if answer.StatusCode != cmp.Or(c.load.status, http.StatusCreated) {
		return nil, fmt.Errorf("%s: %s", answer.Status, bytes.TrimSpace(c.answer.Bytes()))
	}
	return answer.Header, nil
}
