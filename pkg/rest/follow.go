package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
)

const (
	// followEvery is how often a follower looks at the store's head.
	followEvery = 500 * time.Millisecond
	// heartbeatEvery is how often a follower hears of us when nothing happens. The token is looked at as often.
	heartbeatEvery = 15 * time.Second
	// followPage is how many events a follower holds in memory, twice over.
	followPage = 1000
)

type followInput struct {
	After  int64  `query:"after" minimum:"-1" default:"-1" doc:"Begin after this seq, with what is there already; 0 is the whole trail. From now on if absent"`
	Actor  string `query:"actor" doc:"As in token:NAME" maxLength:"200"`
	Action string `query:"action" doc:"Exact, or a group as in certificate." maxLength:"100"`
	Target string `query:"target" doc:"As in certificate/ID" maxLength:"200"`
}

// followAudit streams events in the order of their numbers, without gaps, until the client goes, its token ends or the
// server does. An empty line is a sign of life.
func (a *api) followAudit(ctx context.Context, in *followInput) (*huma.StreamResponse, error) {
	if err := unlimited(principal(ctx)); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	head, err := a.Store.Head(bounded)
	if err != nil {
		return nil, err
	}
	t := &trail{api: a, filter: store.AuditFilter{Actor: in.Actor, Action: in.Action, Target: in.Target}, after: in.After, change: -1}
	switch {
	case in.After > head.AuditSeq:
		return nil, fault.New(fault.Conflict, "the audit trail ends at %d, before %d", head.AuditSeq, in.After).WithField("after").
			WithHint("this is another store, or an older state of it was restored: compare with GET %s/audit/verify", Root)
	case in.After < 0:
		t.after, t.change = head.AuditSeq, head.Change
	}
	done, err := a.followers.tryTake()
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer done()
		a.follow(ctx, t)
	}}, nil
}

func (a *api) follow(ctx huma.Context, t *trail) {
	s := newStream(ctx)
	s.header("Content-Type", mediaLines)
	ending := a.endings.of(ctx.Context())
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	if s.write(nil) != nil {
		return
	}
	for heard := time.Now(); ; {
		err := t.next(ctx.Context(), func(lines []byte) error {
			heard = time.Now()
			return s.write(lines)
		})
		switch {
		case ctx.Context().Err() != nil:
			return
		case err != nil && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.RateLimited):
			// The client has seen all up to its last line, and can come back for the rest.
			a.breakOff(ctx, err)
		}
		if time.Since(heard) >= a.heartbeat {
			if _, err := a.admit(ctx, readAll); err != nil || s.write([]byte("\n")) != nil {
				return
			}
			heard = time.Now()
		}
		select {
		case <-ctx.Context().Done():
			return
		case <-ending:
			return
		case <-tick.C:
		}
	}
}

// trail is a follower's place in the audit trail.
type trail struct {
	api    *api
	filter store.AuditFilter
	after  int64 // every event up to this number is sent, or does not match
	change int64 // the head's change when that was found
}

// next sends what is new. When it fails, what was sent counts as sent.
//
// The store reads the trail backwards only, so the cursors of pages are gathered from the head to where the follower
// stands, and the pages read again from there on. The page at the head is kept, since it is another when read again.
func (t *trail) next(ctx context.Context, send func(lines []byte) error) error {
	bounded, cancel := context.WithTimeout(ctx, requestTimeout)
	head, err := t.api.Store.Head(bounded)
	cancel()
	if err != nil {
		return err
	}
	if head.Change == t.change {
		return nil
	}
	newest, cursor, err := t.page(ctx, "")
	if err != nil {
		return err
	}
	var cursors []string
	for page := newest; cursor != "" && page[len(page)-1].Seq > t.after+1; {
		cursors = append(cursors, cursor)
		if page, cursor, err = t.page(ctx, cursor); err != nil {
			return err
		}
	}
	for _, cursor := range slices.Backward(cursors) {
		page, _, err := t.page(ctx, cursor)
		if err != nil {
			return err
		}
		if err := t.send(page, send); err != nil {
			return err
		}
	}
	if err := t.send(newest, send); err != nil {
		return err
	}
	t.after, t.change = max(t.after, head.AuditSeq), head.Change
	return nil
}

func (t *trail) page(ctx context.Context, cursor string) ([]audit.Event, string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	done, err := t.api.searches.take(ctx)
	if err != nil {
		return nil, "", err
	}
	defer done()
	return t.api.Store.AuditEvents(ctx, t.filter, store.Page{Limit: followPage, Cursor: cursor})
}

// send sends the events of a page, which has the newest first, that are new to the follower.
func (t *trail) send(page []audit.Event, send func([]byte) error) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	last := t.after
	for _, e := range slices.Backward(page) {
		if e.Seq <= last {
			continue
		}
		r, err := audit.Parse(e.Bytes)
		if err != nil {
			return err
		}
		if err := enc.Encode(Event{
			Seq: e.Seq, Change: e.Change, Time: r.Time, Action: r.Action, Actor: r.Actor, Role: r.Role, Source: r.Source,
			RequestID: r.RequestID, Target: r.Target, Detail: r.Detail,
		}); err != nil {
			return err
		}
		last = e.Seq
	}
	if b.Len() == 0 {
		return nil
	}
	if err := send(b.Bytes()); err != nil {
		return err
	}
	t.after = last
	return nil
}

// endings tells streams when the server that serves them shuts down, which waits for answers in progress: these have no
// end of their own. The zero value is ready, and safe for concurrent use.
type endings struct {
	mu sync.Mutex
	m  map[*http.Server]chan struct{} // guarded by mu
}

// of returns a channel that is closed when the server of this request begins to shut down; nil, which never is, when the
// request came without one.
func (e *endings) of(ctx context.Context) <-chan struct{} {
	server, ok := ctx.Value(http.ServerContextKey).(*http.Server)
	if !ok {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if c, ok := e.m[server]; ok {
		return c
	}
	c := make(chan struct{})
	server.RegisterOnShutdown(sync.OnceFunc(func() { close(c) }))
	if e.m == nil {
		e.m = map[*http.Server]chan struct{}{}
	}
	e.m[server] = c
	return c
}
