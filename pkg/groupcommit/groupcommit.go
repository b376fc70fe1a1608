// Package groupcommit gathers operations that wait at the same time into one flush, so that many callers share the
// cost of a commit.
//
// There is no timer. A writer that is free takes what waits, at most a batch full, and flushes it; while it does, the
// next operations gather. Alone, an operation is flushed at once; under load, the flush before is the delay. The package
// knows neither stores nor SQL: what a flush does is the caller's.
package groupcommit

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/pkg/fault"
)

// retryAfter is what callers are told who were turned away.
const retryAfter = time.Second

// Config is what a Committer is made of. Zero values stand for the defaults, but for Flush, which is required.
type Config[Op any] struct {
	// Writers is how many flushes may run at once; 2 by default, so that one gathers while the other waits for the disk.
	Writers int
	// MaxBatch is how many operations one flush gets at the most; 256 by default.
	MaxBatch int
	// MaxQueue is how many operations may wait for a flush before callers are held back; 4096 by default.
	MaxQueue int
	// FlushTimeout ends the context of a flush; 30 seconds by default.
	FlushTimeout time.Duration
	// Flush does the operations and returns one error for each, in their order, or nil when all were done. It must not
	// keep the slice. Its context ends at FlushTimeout and at nothing else: not with a caller's, and not at Close.
	Flush func(ctx context.Context, ops []Op) []error
}

// Committer flushes operations in groups. It is safe for concurrent use. Make one with New, end it with Close.
type Committer[Op any] struct {
	c       Config[Op]
	queue   chan *waiting[Op]
	closing chan struct{} // closed by Close: nobody may begin to wait any more

	mu     sync.Mutex // guards closed and calls.Add against calls.Wait
	closed bool

	calls   sync.WaitGroup // calls of Do
	writers sync.WaitGroup

	batches, ops atomic.Int64
	sizes        [sizeBuckets]atomic.Int64
}

// sizeBuckets is how many counters Sizes has: for batches of at most 1, 2, 4, ... 4096 operations.
const sizeBuckets = 13

// waiting is an operation on its way.
type waiting[Op any] struct {
	op    Op
	state atomic.Int32 // one of the states below; leaves stateWaiting once
	err   error        // set before done is closed
	done  chan struct{}
}

const (
	stateWaiting   = iota
	stateTaken     // a flush has it: the caller waits for the outcome
	stateAbandoned // the caller has left: no flush may take it
)

// New returns a Committer whose writers run until Close.
func New[Op any](c Config[Op]) (*Committer[Op], error) {
	if c.Flush == nil {
		return nil, errors.New("groupcommit: Config.Flush is missing")
	}
	if c.Writers < 0 || c.MaxBatch < 0 || c.MaxQueue < 0 || c.FlushTimeout < 0 {
		return nil, errors.New("groupcommit: a number in Config is negative")
	}
	c.Writers = orDefault(c.Writers, 2)
	c.MaxBatch = orDefault(c.MaxBatch, 256)
	c.MaxQueue = orDefault(c.MaxQueue, 4096)
	c.FlushTimeout = orDefault(c.FlushTimeout, 30*time.Second)
	g := &Committer[Op]{c: c, queue: make(chan *waiting[Op], c.MaxQueue), closing: make(chan struct{})}
	for range c.Writers {
		g.writers.Go(g.write)
	}
	return g, nil
}

func orDefault[N int | time.Duration](n, otherwise N) N {
	if n == 0 {
		return otherwise
	}
	return n
}

// Do waits until the operation has been flushed and returns its error. When ctx ends before the flush has begun the
// operation is not done, and the error is Unavailable and wraps ctx's; once it has begun, Do waits for the outcome
// whatever becomes of ctx. When the queue is full Do waits for room until ctx ends, then it is Unavailable with a
// RetryAfter. After Close it is Unavailable too.
func (g *Committer[Op]) Do(ctx context.Context, op Op) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the request ended before it was written")
	}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errClosed()
	}
	g.calls.Add(1)
	g.mu.Unlock()
	defer g.calls.Done()

	w := &waiting[Op]{op: op, done: make(chan struct{})}
	select {
	case g.queue <- w:
	default:
		select {
		case g.queue <- w:
		case <-g.closing:
			return errClosed()
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, ctx.Err(), "too many writes are waiting").WithRetryAfter(retryAfter)
		}
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		if w.state.CompareAndSwap(stateWaiting, stateAbandoned) {
			return fault.Wrap(fault.Unavailable, ctx.Err(), "the request ended before it was written").WithRetryAfter(retryAfter)
		}
		<-w.done
	}
	return w.err
}

func errClosed() error {
	return fault.New(fault.Unavailable, "the server is shutting down").WithRetryAfter(retryAfter)
}

// Close lets everything that waits be flushed, refuses what comes, and returns when the writers have ended. Calling it
// again does no harm.
func (g *Committer[Op]) Close() {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	if first {
		close(g.closing)
		g.calls.Wait()
		close(g.queue)
	}
	g.writers.Wait()
}

// Stats returns how many flushes have begun and how many operations were in them.
func (g *Committer[Op]) Stats() (batches, ops int64) { return g.batches.Load(), g.ops.Load() }

// Sizes returns how many flushes had at most 1, 2, 4, 8, ... operations, each counted at the least of these bounds. Those
// beyond the last are in none.
func (g *Committer[Op]) Sizes() []int64 {
	sizes := make([]int64, sizeBuckets)
	for i := range sizes {
		sizes[i] = g.sizes[i].Load()
	}
	return sizes
}

// write is one writer.
func (g *Committer[Op]) write() {
	batch := make([]*waiting[Op], 0, g.c.MaxBatch)
	ops := make([]Op, 0, g.c.MaxBatch)
	for first := range g.queue {
		// Callers that the last flush woke are about to come back: let them run before we look at what waits. It
		// doubles the batches of a busy store and costs an idle one nothing.
		runtime.Gosched()
		batch, ops = batch[:0], ops[:0]
		for w, more := first, true; more; {
			if w.state.CompareAndSwap(stateWaiting, stateTaken) {
				batch, ops = append(batch, w), append(ops, w.op)
			}
			if len(batch) == g.c.MaxBatch {
				break
			}
			select {
			case w, more = <-g.queue:
			default:
				more = false
			}
		}
		if len(batch) == 0 {
			continue
		}
		g.batches.Add(1)
		g.ops.Add(int64(len(batch)))
		if i := bits.Len(uint(len(batch) - 1)); i < sizeBuckets {
			g.sizes[i].Add(1)
		}
		for i, err := range g.flush(ops) {
			batch[i].err = err
			close(batch[i].done)
		}
		clear(batch)
		clear(ops)
	}
}

// flush calls Flush and always returns one error for each operation.
func (g *Committer[Op]) flush(ops []Op) (errs []error) {
	ctx, cancel := context.WithTimeout(context.Background(), g.c.FlushTimeout)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			errs = all(len(ops), fmt.Errorf("panic while writing: %v\n%s", r, debug.Stack()))
		}
	}()
	errs = g.c.Flush(ctx, ops)
	switch {
	case errs == nil:
		errs = make([]error, len(ops))
	case len(errs) != len(ops):
		errs = all(len(ops), fmt.Errorf("flush returned %d errors for %d operations", len(errs), len(ops)))
	}
	return errs
}

// all returns n times the same Internal fault.
func all(n int, err error) []error {
	err = fault.Wrap(fault.Internal, err, "writing failed")
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// Bisect is the way back for a Flush that does all or nothing. It does the operations with flush; when that fails with an
// error that split calls the fault of one operation, it does the two halves on their own, down to single operations. One
// bad operation in n costs 2*log2(n) flushes, and no good one fails with it. The order of operations is kept. fallbacks
// counts the groups that were taken apart.
func Bisect[Op any](ops []Op, flush func([]Op) error, split func(error) bool) (errs []error, fallbacks int) {
	errs = make([]error, len(ops))
	var do func(from, to int)
	do = func(from, to int) {
		if from == to {
			return
		}
		err := flush(ops[from:to:to])
		if err != nil && to-from > 1 && split(err) {
			fallbacks++
			middle := from + (to-from)/2
			do(from, middle)
			do(middle, to)
			return
		}
		for i := from; i < to; i++ {
			errs[i] = err
		}
	}
	do(0, len(ops))
	return errs, fallbacks
}
