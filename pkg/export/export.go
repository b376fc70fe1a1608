// Package export copies what verifiers need, CRLs in DER and PEM, bundles, CA certificates, chains and roots, to where a
// static web server or a CDN serves it: a folder, or S3-compatible object storage. The layout equals the paths of the
// addresses in certificates, so that whoever serves it needs no rules for rewriting.
//
// It asks a server's plain HTTP front-end (package publish) as any client would, over the network or within the process,
// so that what is exported is what is served, headers included. Files are replaced whole and only when they changed;
// nothing is ever removed, and a CRL never takes the place of a newer one.
package export

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// What Config's zero values stand for.
const (
	DefaultEvery  = time.Second
	DefaultVerify = 10 * time.Minute
)

// Failures of a whole round are retried after firstRetry, then twice as long each time, up to lastRetry.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// fileTimeout ends the copying of one file whose source or target neither answers nor fails.
const fileTimeout = 5 * time.Minute

// File is what is put into a target.
type File struct {
	Name         string // with slashes, without one at the beginning: crl/0011223344556677.crl
	MediaType    string
	CacheControl string
	LastModified time.Time // zero: unknown
	Content      []byte
}

// Outcome says what became of a file.
type Outcome int

// The outcomes.
const (
	Written   Outcome = iota // it was not there, or another was
	Unchanged                // it was there as it is
	Kept                     // a newer CRL is there, and stays
)

// String returns "written", "unchanged" or "kept".
func (o Outcome) String() string {
	return [...]string{"written", "unchanged", "kept"}[min(max(o, 0), 2)]
}

// Target is where files go. Its methods are safe for concurrent use, also by several processes.
type Target interface {
	// Put makes the target have the file. On Written it is durable, and no reader ever sees a part of it. A file that holds
	// a CRL whose number is higher than that of the same scope in f stays as it is.
	Put(ctx context.Context, f File) (Outcome, error)
	// String names the target for people, without credentials.
	String() string
}

// Config is what an Exporter needs. Source and Target are required.
type Config struct {
	Source Source
	Target Target
	Every  time.Duration // between looks at the source; 0 means DefaultEvery
	// Verify is how often everything is compared with the target again, for what others have changed there; 0 means
	// DefaultVerify.
	Verify time.Duration
	Logger *slog.Logger // nil discards
	// Done, if not nil, is told of every file that was compared with the target.
	Done func(name string, o Outcome)
}

// Exporter copies a source to a target. It is safe for concurrent use.
type Exporter struct {
	cfg Config

	turn     sync.Mutex        // held during a round
	tags     map[string]string // guarded by turn: entity tag of what the target has, by path
	verified time.Time         // guarded by turn: when the last round without tags began

	mu    sync.Mutex
	state State // guarded by mu
}

// State are figures since the exporter was made.
type State struct {
	Err     error     // of the newest round; nil when it succeeded
	Since   time.Time // of the first round in a row that failed; zero when Err is nil
	Success time.Time // end of the newest round that succeeded; zero before the first
	Files   map[Outcome]int64
	Failed  int64 // files, and rounds that did not come as far
}

// New returns an exporter that has done nothing yet.
func New(cfg Config) (*Exporter, error) {
	if cfg.Source == (Source{}) || cfg.Target == nil {
		return nil, errors.New("export: incomplete config")
	}
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Verify <= 0 {
		cfg.Verify = DefaultVerify
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Exporter{cfg: cfg, tags: map[string]string{}}, nil
}

// State returns the exporter's figures. The map is the caller's.
func (e *Exporter) State() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state
	s.Files = maps.Clone(s.Files)
	return s
}

// Once copies what changed since the last call, everything on the first. A file that fails does not keep the others
// from being copied; the error joins all of them.
func (e *Exporter) Once(ctx context.Context) error {
	e.turn.Lock()
	defer e.turn.Unlock()
	err := e.round(ctx)
	if err != nil && ctx.Err() != nil {
		return err // it was ended, and has not failed
	}
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil:
		e.state.Err, e.state.Since, e.state.Success = nil, time.Time{}, now
	case e.state.Err == nil:
		e.state.Since = now
		fallthrough
	default:
		e.state.Err = err
	}
	return err
}

func (e *Exporter) round(ctx context.Context) error {
	if now := time.Now(); now.Sub(e.verified) >= e.cfg.Verify {
		clear(e.tags)
		e.verified = now
	}
	paths, err := e.cfg.Source.Paths(ctx)
	if err != nil {
		e.count(func(s *State) { s.Failed++ })
		return err
	}
	var all []error
	for _, path := range paths {
		if err := e.copy(ctx, path); err != nil {
			if ctx.Err() != nil {
				return err
			}
			e.count(func(s *State) { s.Failed++ })
			all = append(all, fmt.Errorf("exporting %s: %w", path, err))
			if len(all) == maxErrors {
				break // the target is away; the others will not do better
			}
		}
	}
	return errors.Join(all...)
}

// maxErrors is how many files of one round may fail before the rest is left for the next.
const maxErrors = 3

func (e *Exporter) copy(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, fileTimeout)
	defer cancel()
	f, tag, err := e.cfg.Source.Get(ctx, path, e.tags[path])
	if errors.Is(err, errNotModified) {
		return nil
	}
	if err != nil {
		return err
	}
	outcome, err := e.cfg.Target.Put(ctx, f)
	if err != nil {
		return err
	}
	e.tags[path] = tag
	e.count(func(s *State) {
		if s.Files == nil {
			s.Files = map[Outcome]int64{}
		}
		s.Files[outcome]++
	})
	if outcome == Kept {
		e.cfg.Logger.Warn("a newer CRL is there and stays", "name", f.Name, "target", e.cfg.Target.String())
	}
	if e.cfg.Done != nil {
		e.cfg.Done(f.Name, outcome)
	}
	return nil
}

func (e *Exporter) count(add func(*State)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	add(&e.state)
}

// Run copies what changes until the context ends. Failures are logged when they begin and when they are over.
func (e *Exporter) Run(ctx context.Context) {
	failures := 0
	for {
		err := e.Once(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := e.cfg.Every
		switch {
		case err != nil:
			if failures == 0 {
				e.cfg.Logger.Error("exporting fails; it is tried again", "target", e.cfg.Target.String(), "err", err)
			}
			wait = max(wait, min(firstRetry<<min(failures, 10), lastRetry))
			failures++
		case failures > 0:
			e.cfg.Logger.Info("exporting works again", "target", e.cfg.Target.String())
			failures = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
