package watch_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/watch"
)

// source is a store's head that the test moves, and a follower that fails when it is told to.
type source struct {
	mu   sync.Mutex
	head store.Head
	err  error
	fail bool
	told []int64
}

func (s *source) Head(context.Context) (store.Head, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head, s.err
}

func (s *source) follow(_ context.Context, h store.Head) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail {
		return errors.New("not now")
	}
	s.told = append(s.told, h.Change)
	return nil
}

func (s *source) set(change int64, fail bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head.Change, s.fail, s.err = change, fail, err
}

func TestWatcherTellsFollowersOnceAndRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{}
		w, err := watch.New(watch.Config{Store: src, Interval: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		w.Follow("test", src.follow)
		if w.Age() < time.Hour {
			t.Errorf("Age before the first poll = %v, want very large", w.Age())
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.Run(ctx); close(done) }()
		synctest.Wait()

		src.set(1, false, nil)
		time.Sleep(3 * time.Second)
		src.set(2, true, nil)
		time.Sleep(3 * time.Second)
		if w.Head().Change != 1 {
			t.Errorf("Head = %d while a follower fails, want 1", w.Head().Change)
		}
		if age := w.Age(); age < 2*time.Second {
			t.Errorf("Age = %v while a follower fails, want it to grow", age)
		}
		src.set(2, false, nil)
		time.Sleep(3 * time.Second)
		src.set(2, false, errors.New("away"))
		time.Sleep(5 * time.Second)
		if age := w.Age(); age < 4*time.Second {
			t.Errorf("Age = %v while the store is away, want at least 4s", age)
		}
		src.set(7, false, nil)
		if err := w.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-done
		if want := []int64{0, 1, 2, 7}; !slices.Equal(src.told, want) {
			t.Fatalf("told of %v, want %v", src.told, want)
		}
	})
}

// silent is a store that does not answer until it is told to.
type silent struct {
	mu     sync.Mutex
	speaks bool
}

func (s *silent) Head(ctx context.Context) (store.Head, error) {
	s.mu.Lock()
	speaks := s.speaks
	s.mu.Unlock()
	if !speaks {
		<-ctx.Done()
		return store.Head{}, ctx.Err()
	}
	return store.Head{Change: 1}, nil
}

func TestWatcherGivesASilentStoreUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &silent{}
		w, err := watch.New(watch.Config{Store: src})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.Run(ctx); close(done) }()
		time.Sleep(time.Minute)
		src.mu.Lock()
		src.speaks = true
		src.mu.Unlock()
		time.Sleep(20 * time.Second)
		if got := w.Head().Change; got != 1 {
			t.Errorf("Head = %d after the store has answered again, want 1", got)
		}
		cancel()
		<-done
	})
}
