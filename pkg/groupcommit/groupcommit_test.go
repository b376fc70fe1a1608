package groupcommit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/groupcommit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newCommitter(t *testing.T, c groupcommit.Config[int]) *groupcommit.Committer[int] {
	t.Helper()
	g, err := groupcommit.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestNewRefuses(t *testing.T) {
	if _, err := groupcommit.New(groupcommit.Config[int]{}); err == nil {
		t.Error("New without Flush: no error")
	}
	flush := func(context.Context, []int) []error { return nil }
	if _, err := groupcommit.New(groupcommit.Config[int]{Flush: flush, Writers: -1}); err == nil {
		t.Error("New with -1 writers: no error")
	}
}

// What waits goes together, the flush before is the only delay, and each operation gets its own error.
func TestGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		odd := errors.New("odd")
		g := newCommitter(t, groupcommit.Config[int]{Writers: 1, MaxBatch: 8, Flush: func(_ context.Context, ops []int) []error {
			time.Sleep(time.Second)
			sizes = append(sizes, len(ops))
			errs := make([]error, len(ops))
			for i, op := range ops {
				if op%2 == 1 {
					errs[i] = fmt.Errorf("%d: %w", op, odd)
				}
			}
			return errs
		}})
		began := time.Now()
		var done sync.WaitGroup
		do := func(op int) {
			done.Go(func() {
				err := g.Do(t.Context(), op)
				if want := op%2 == 1; errors.Is(err, odd) != want || want && !strings.HasPrefix(err.Error(), fmt.Sprint(op, ":")) {
					t.Errorf("operation %d: got %v", op, err)
				}
			})
		}
		do(0)
		synctest.Wait()
		if waited := time.Since(began); waited != 0 {
			t.Errorf("the first operation was held back for %v", waited)
		}
		for op := 1; op <= 10; op++ {
			do(op)
		}
		done.Wait()
		if got, want := time.Since(began), 3*time.Second; got != want {
			t.Errorf("took %v, want %v", got, want)
		}
		if want := []int{1, 8, 2}; !slices.Equal(sizes, want) {
			t.Errorf("batches of %v, want %v", sizes, want)
		}
		if batches, ops := g.Stats(); batches != 3 || ops != 11 {
			t.Errorf("Stats: got %d batches with %d operations, want 3 with 11", batches, ops)
		}
		g.Close()
	})
}

// An operation whose caller left before its flush began is not done; one whose flush has begun is waited for.
func TestCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var flushed []int
		g := newCommitter(t, groupcommit.Config[int]{Writers: 1, Flush: func(ctx context.Context, ops []int) []error {
			time.Sleep(time.Minute / 4)
			if err := ctx.Err(); err != nil {
				t.Errorf("the flush was ended by a caller: %v", err)
			}
			flushed = append(flushed, ops...)
			return nil
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var done sync.WaitGroup
		done.Go(func() {
			if err := g.Do(ctx, 1); err != nil {
				t.Errorf("the operation in the flush: %v", err)
			}
		})
		synctest.Wait()
		done.Go(func() {
			err := g.Do(ctx, 2)
			if !fault.Is(err, fault.Unavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the operation that waited: got %v, want Unavailable for the deadline", err)
			}
		})
		done.Wait()
		if err := g.Do(ctx, 3); !fault.Is(err, fault.Unavailable) {
			t.Errorf("an operation that came too late: got %v", err)
		}
		if err := g.Do(t.Context(), 4); err != nil {
			t.Error(err)
		}
		if want := []int{1, 4}; !slices.Equal(flushed, want) {
			t.Errorf("flushed %v, want %v", flushed, want)
		}
		g.Close()
	})
}

func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		g := newCommitter(t, groupcommit.Config[int]{Writers: 1, MaxBatch: 1, MaxQueue: 2, Flush: func(context.Context, []int) []error {
			<-release
			return nil
		}})
		var done sync.WaitGroup
		for op := range 3 { // one in the flush, two in the queue
			done.Go(func() {
				if err := g.Do(t.Context(), op); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := g.Do(ctx, 3)
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.Unavailable || e.RetryAfter == 0 {
			t.Errorf("full queue: got %v, want Unavailable with RetryAfter", err)
		}
		done.Go(func() {
			if err := g.Do(t.Context(), 4); err != nil { // waits for room and gets it
				t.Error(err)
			}
		})
		synctest.Wait()
		close(release)
		done.Wait()
		g.Close()
	})
}

func TestFlushTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newCommitter(t, groupcommit.Config[int]{FlushTimeout: time.Second, Flush: func(ctx context.Context, ops []int) []error {
			<-ctx.Done()
			return []error{ctx.Err()}
		}})
		if err := g.Do(t.Context(), 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the flush's deadline", err)
		}
		g.Close()
	})
}

func TestBrokenFlush(t *testing.T) {
	for name, flush := range map[string]func(context.Context, []int) []error{
		"panics":          func(context.Context, []int) []error { panic("no") },
		"too few errors":  func(context.Context, []int) []error { return []error{} },
		"too many errors": func(_ context.Context, ops []int) []error { return make([]error, len(ops)+1) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newCommitter(t, groupcommit.Config[int]{Flush: flush})
			defer g.Close()
			for op := range 3 { // the writer survives
				if err := g.Do(t.Context(), op); err == nil || fault.KindOf(err) != fault.Internal {
					t.Errorf("got %v, want Internal", err)
				}
			}
		})
	}
}

// Close flushes what waits, turns away what stands at the door, and ends once.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var flushed atomic.Int32
		g := newCommitter(t, groupcommit.Config[int]{Writers: 1, MaxBatch: 2, MaxQueue: 2, Flush: func(_ context.Context, ops []int) []error {
			time.Sleep(time.Second)
			flushed.Add(int32(len(ops)))
			return nil
		}})
		var done sync.WaitGroup
		var turnedAway atomic.Int32
		for op := range 4 { // one in the flush, two in the queue, one at the door
			done.Go(func() {
				if err := g.Do(t.Context(), op); fault.Is(err, fault.Unavailable) {
					turnedAway.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		done.Go(g.Close)
		g.Close()
		done.Wait()
		if flushed.Load() != 3 || turnedAway.Load() != 1 {
			t.Errorf("flushed %d and turned %d away, want 3 and 1", flushed.Load(), turnedAway.Load())
		}
		if err := g.Do(t.Context(), 9); !fault.Is(err, fault.Unavailable) {
			t.Errorf("after Close: got %v", err)
		}
	})
}

// Under load, with callers that leave at random, every operation that returned nil was flushed once, and no other was.
func TestLoad(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[int]int)
	g := newCommitter(t, groupcommit.Config[int]{MaxBatch: 16, MaxQueue: 8, Flush: func(_ context.Context, ops []int) []error {
		mu.Lock()
		for _, op := range ops {
			seen[op]++
		}
		mu.Unlock()
		time.Sleep(time.Duration(rand.IntN(50)) * time.Microsecond)
		return nil
	}})
	var acknowledged sync.Map
	var done sync.WaitGroup
	for worker := range 32 {
		done.Go(func() {
			for i := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(400))*time.Microsecond)
				if g.Do(ctx, worker*1000+i) == nil {
					acknowledged.Store(worker*1000+i, true)
				}
				cancel()
			}
		})
	}
	done.Wait()
	g.Close()
	acknowledged.Range(func(op, _ any) bool {
		if seen[op.(int)] != 1 {
			t.Errorf("operation %d was acknowledged and flushed %d times", op, seen[op.(int)])
		}
		delete(seen, op.(int))
		return true
	})
	if len(seen) != 0 {
		t.Errorf("%d operations were flushed and not acknowledged", len(seen))
	}
}

func TestBisect(t *testing.T) {
	bad, away := errors.New("bad"), errors.New("away")
	tests := map[string]struct {
		bad, away int // the operation that fails so; -1 for none
		want      []error
		fallbacks int
	}{
		"all good": {-1, -1, make([]error, 5), 0},
		"one bad":  {3, -1, []error{nil, nil, nil, bad, nil}, 3},
		"away":     {-1, 2, []error{away, away, away, away, away}, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var done []int
			errs, fallbacks := groupcommit.Bisect([]int{0, 1, 2, 3, 4}, func(ops []int) error {
				if slices.Contains(ops, test.bad) {
					return bad
				}
				if slices.Contains(ops, test.away) {
					return away
				}
				done = append(done, ops...)
				return nil
			}, func(err error) bool { return err == bad })
			if !slices.Equal(errs, test.want) || fallbacks != test.fallbacks || !slices.IsSorted(done) {
				t.Errorf("got %v after %d fallbacks, did %v; want %v after %d", errs, fallbacks, done, test.want, test.fallbacks)
			}
		})
	}
	if errs, _ := groupcommit.Bisect(nil, func([]int) error { return bad }, nil); len(errs) != 0 {
		t.Errorf("nothing to do: got %v", errs)
	}
}
