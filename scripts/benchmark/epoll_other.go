//go:build !linux

package main

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

type poller struct {
	address     netip.AddrPort
	source      netip.Addr
	next        func(conn, n int) []byte
	check       func(n int, body []byte) error
	connections int
	warmUp      time.Duration
	duration    time.Duration
	least       int
	edge        func() error
	perSecond   int
	renew       int
}

type polled struct {
	latency histogram
	took    time.Duration
	all     int
	checked int
	redials int
}

func (p *poller) run(context.Context) (*polled, error) {
	return nil, errors.New("this benchmark runs on Linux only")
}
