// Package transfer moves what a store holds: it copies one store into another, of the same kind or not, verifies chains
// of audit records against heads that were kept elsewhere, and finishes the restoration of a backup.
package transfer

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// Actions of the audit records that this package writes, beside those of package audit.
const (
	ActionFence   = "store.fence"
	ActionUnfence = "store.unfence"
	ActionRestore = "store.restore"
	ActionImport  = "certificate.import"
)

// pageRows is how many rows go in one transaction. A page is what is held in memory, and the next one with it.
const pageRows = 1000

// CopyConfig says what Copy copies. From, To, FromName, ToName and Now are required.
type CopyConfig struct {
	From, To store.Movable
	// The names are for people and stand in the stores, without a password.
	FromName, ToName string
	Now              func() time.Time
	// Progress, if not nil, is told how far each step is. It is called after every page, by one goroutine at a time.
	Progress func(Step)
}

// Step is how far a copy is.
type Step struct {
	Phase string // "copying", "comparing" or "verifying the audit chain"
	Table string
	Done  int64
	Total int64
}

// CopyResult is what a copy came to.
type CopyResult struct {
	Resumed  bool // rows of an earlier try were there
	Finished bool // everything was done by an earlier try
	Rows     map[string]int64
	Head     store.Head // of the copy
}

// Copy fences From, fills To with everything that it holds but for leases, compares every row, verifies the audit chain
// in To, and puts To into use. It may be broken off at any point and called again with the same stores: it goes on where
// the rows end. To is not in use before all is verified, and From is never again, unless Unfence gives the copy up.
func Copy(ctx context.Context, c CopyConfig) (CopyResult, error) {
	if c.Progress == nil {
		c.Progress = func(Step) {}
	}
	result := CopyResult{Rows: map[string]int64{}}
	id, finished, err := c.begin(ctx)
	if err != nil {
		return result, err
	}
	if finished {
		result.Finished = true
		if result.Head, err = c.To.Head(ctx); err != nil {
			return result, err
		}
		return result, c.From.Leave(ctx, id, c.Now())
	}
	if err := c.To.BeginImport(ctx, id, c.FromName, c.Now()); err != nil {
		return result, err
	}
	head, err := c.From.Head(ctx)
	if err != nil {
		return result, err
	}
	for _, table := range store.Tables() {
		resumed, err := c.fill(ctx, id, table)
		if err != nil {
			return result, err
		}
		result.Resumed = result.Resumed || resumed
	}
	for _, table := range store.Tables() {
		if result.Rows[table.Name], err = c.compare(ctx, table); err != nil {
			return result, err
		}
	}
	if err := c.verify(ctx, head); err != nil {
		return result, err
	}
	head.Closed = false
	if err := c.To.FinishImport(ctx, id, head, c.Now()); err != nil {
		return result, err
	}
	result.Head = head
	return result, c.From.Leave(ctx, id, c.Now())
}

// begin fences the source, unless that was done, after a look at the target. finished says that an earlier try has put
// the target into use.
func (c *CopyConfig) begin(ctx context.Context) (id store.CopyID, finished bool, err error) {
	from, err := c.From.State(ctx)
	if err != nil {
		return id, false, err
	}
	to, err := c.To.State(ctx)
	if err != nil {
		return id, false, err
	}
	switch from.Use {
	case store.InUse:
	case store.Fenced, store.Left:
		if to.Use == store.InUse && to.Copy == from.Copy {
			return from.Copy, true, nil
		}
		if from.Use == store.Left {
			return id, false, from.Err()
		}
		if from.Peer != c.ToName {
			return id, false, fault.Wrap(fault.Conflict, store.ErrNotInUse, "the source has been fenced for a copy to %s, which is another store than %s", from.Peer, c.ToName).
				WithHint("go on with --to %s, or give that copy up with «certwright store unfence»", from.Peer)
		}
		return from.Copy, false, nil
	default:
		return id, false, from.Err()
	}

	head, err := c.From.Head(ctx)
	if err != nil {
		return id, false, err
	}
	if head.Change == 0 {
		return id, false, fault.New(fault.Conflict, "the store to be copied is empty").WithHint("name the one in use with --from")
	}
	switch to.Use {
	case store.InUse:
		target, err := c.To.Head(ctx)
		if err != nil {
			return id, false, err
		}
		if target.Change > 0 {
			return id, false, fault.Wrap(fault.Conflict, store.ErrNotEmpty, "the store to be filled is not empty").
				WithHint("name a folder or a database that no Certwright has used")
		}
	case store.Filling: // a copy that was given up: BeginImport throws it away
	default:
		return id, false, to.Err()
	}
	rand.Read(id[:])
	at := c.Now()
	record := audit.Record{
		Time: at, Action: ActionFence, Actor: "host", Role: pki.RoleAdministrator.String(), Target: "store",
		Detail: map[string]string{"copy": id.String(), "from": c.FromName, "to": c.ToName},
	}
	return id, false, c.From.Fence(ctx, id, c.ToName, at, record)
}

// pages returns a table's rows behind a key, page by page, and reads the next page while one is being worked on.
func pages(ctx context.Context, from store.Exporter, t store.Table, after store.Row) iter.Seq2[[]store.Row, error] {
	limit := pageRows
	if t.Large {
		limit = 1
	}
	return func(yield func([]store.Row, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		type page struct {
			rows []store.Row
			err  error
		}
		next := make(chan page)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer close(next)
			for {
				rows, err := from.ExportRows(ctx, t, after, limit)
				if len(rows) == 0 && err == nil {
					return
				}
				select {
				case next <- page{rows, err}:
				case <-ctx.Done():
					return
				}
				if err != nil || len(rows) < limit {
					return
				}
				after = t.KeyOf(rows[len(rows)-1])
			}
		}()
		defer func() { <-ended }()
		defer cancel()
		for p := range next {
			if !yield(p.rows, p.err) || p.err != nil {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// fill copies the rows of a table that the target does not have yet.
func (c *CopyConfig) fill(ctx context.Context, id store.CopyID, t store.Table) (resumed bool, err error) {
	total, err := c.From.CountRows(ctx, t)
	if err != nil {
		return false, err
	}
	after, err := c.To.LastKey(ctx, t)
	if err != nil {
		return false, err
	}
	done := int64(0)
	if after != nil {
		if done, err = c.To.CountRows(ctx, t); err != nil {
			return false, err
		}
	}
	c.Progress(Step{"copying", t.Name, done, total})
	for rows, err := range pages(ctx, c.From, t, after) {
		if err == nil {
			err = c.To.ImportRows(ctx, id, t, rows)
		}
		if err != nil {
			return false, err
		}
		done += int64(len(rows))
		c.Progress(Step{"copying", t.Name, done, total})
	}
	return after != nil, nil
}

// compare reads a table from both stores and returns how many rows it has.
func (c *CopyConfig) compare(ctx context.Context, t store.Table) (n int64, err error) {
	differ := func(what string, args ...any) error {
		return fault.New(fault.Internal, "the copy differs from its source in table %s: %s", t.Name, fmt.Sprintf(what, args...)).
			WithHint("the copy has not been put into use; «certwright store unfence» puts the source back, and the next copy begins anew")
	}
	want, err := c.From.CountRows(ctx, t)
	if err != nil {
		return 0, err
	}
	got, err := c.To.CountRows(ctx, t)
	if err != nil {
		return 0, err
	}
	if got != want {
		return 0, differ("%d rows, want %d", got, want)
	}
	next, stop := iter.Pull2(pages(ctx, c.To, t, nil))
	defer stop()
	for rows, err := range pages(ctx, c.From, t, nil) {
		if err != nil {
			return n, err
		}
		copied, err, ok := next()
		if err != nil {
			return n, err
		}
		if !ok || len(copied) != len(rows) {
			return n, differ("%d rows follow row %d, want %d", len(copied), n, len(rows))
		}
		for i := range rows {
			if column := difference(t, rows[i], copied[i]); column != "" {
				return n, differ("column %s of the row with the key %v", column, describe(t.KeyOf(rows[i])))
			}
		}
		n += int64(len(rows))
		c.Progress(Step{"comparing", t.Name, n, want})
	}
	if n != want {
		return n, differ("%d rows were read, want %d", n, want)
	}
	return n, nil
}

// describe shows a key without what could be long or secret: a key never is.
func describe(key store.Row) string {
	parts := make([]string, len(key))
	for i, v := range key {
		if b, ok := v.([]byte); ok {
			v = fmt.Sprintf("%x", b)
		}
		parts[i] = fmt.Sprint(v)
	}
	return strings.Join(parts, ", ")
}

// difference names the first column in which two rows differ, empty if there is none.
func difference(t store.Table, a, b store.Row) string {
	if len(a) != len(t.Columns) || len(b) != len(t.Columns) {
		return "(all)"
	}
	for i, c := range t.Columns {
		if !same(a[i], b[i]) {
			return c.Name
		}
	}
	return ""
}

func same(a, b any) bool {
	switch a := a.(type) {
	case []byte:
		b, ok := b.([]byte)
		return ok && bytes.Equal(a, b)
	case time.Time:
		b, ok := b.(time.Time)
		return ok && a.Equal(b)
	case string:
		b, ok := b.(string)
		return ok && portable(a) == portable(b)
	case []string:
		b, ok := b.([]string)
		return ok && slices.EqualFunc(a, b, func(a, b string) bool { return portable(a) == portable(b) })
	}
	return a == b
}

// portable is a text as Postgres keeps it, which has neither NUL nor broken UTF-8. Subjects may have both; the DER says
// what they really are, and what is sealed is octets.
func portable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// verify walks the audit chain of the target, to the head of the source.
func (c *CopyConfig) verify(ctx context.Context, head store.Head) error {
	var v audit.Verifier
	broken := func(err error) error {
		return fault.Wrap(fault.Conflict, err, "the audit chain in the copy is broken: %v", err).
			WithHint("look at the source with «certwright audit verify --store»; if it is broken there, it was before the copy")
	}
	for b, err := range c.To.AuditChain(ctx) {
		if err != nil {
			return err
		}
		if err := v.Add(b.Batch, b.Records); err != nil {
			return broken(err)
		}
		if v.Change%pageRows == 0 || v.Change == head.Change {
			c.Progress(Step{"verifying the audit chain", "audit_batch", v.Change, head.Change})
		}
	}
	if v.Change != head.Change || v.Records != head.AuditSeq || v.Head != head.Hash {
		return broken(errors.New("it does not end in the head of the source"))
	}
	return nil
}

// Unfence gives a copy up and puts its source back into use. It refuses a store whose copy is finished unless force is
// set: two live stores of one CA contradict each other.
func Unfence(ctx context.Context, s store.Movable, force bool, now time.Time) error {
	st, err := s.State(ctx)
	if err != nil {
		return err
	}
	if st.Use == store.Left && !force {
		return fault.Wrap(fault.Conflict, store.ErrNotInUse, "the copy of this store to %s was finished on %s, and may be in use", st.Peer, st.Since.Format(time.RFC3339)).
			WithHint("if that copy was never served, and never will be: --force")
	}
	return s.Unfence(ctx, now, audit.Record{
		Time: now, Action: ActionUnfence, Actor: "host", Role: pki.RoleAdministrator.String(), Target: "store",
		Detail: map[string]string{"copy": st.Copy.String(), "to": st.Peer, "was": st.Use.String()},
	})
}
