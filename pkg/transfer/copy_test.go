package transfer_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/storetest"
	"github.com/certwright/certwright/pkg/transfer"
)

func config(from, to store.Movable, a, b place) transfer.CopyConfig {
	return transfer.CopyConfig{From: from, To: to, FromName: a.String(), ToName: b.String(), Now: time.Now}
}

// copyAll copies, and returns the result.
func copyAll(t testing.TB, a, b place, progress func(transfer.Step)) (result transfer.CopyResult, err error) {
	t.Helper()
	use(t, a, true, func(from store.Movable) {
		use(t, b, true, func(to store.Movable) {
			c := config(from, to, a, b)
			c.Progress = progress
			result, err = transfer.Copy(t.Context(), c)
		})
	})
	return result, err
}

func dump(t *testing.T, p place) (rows map[string][]store.Row) {
	t.Helper()
	use(t, p, true, func(s store.Movable) { rows = storetest.Dump(t, s, 1000) })
	return rows
}

// withoutEnd leaves out what a fence has added.
func withoutEnd(rows map[string][]store.Row, other map[string][]store.Row) {
	for _, name := range []string{"audit_batch", "audit_record"} {
		if n := len(other[name]); len(rows[name]) > n {
			rows[name] = rows[name][:n]
		}
	}
}

func sameRows(t *testing.T, what string, got, want map[string][]store.Row) {
	t.Helper()
	for _, table := range store.Tables() {
		g, w := got[table.Name], want[table.Name]
		if len(g) != len(w) {
			t.Errorf("%s: table %s has %d rows, want %d", what, table.Name, len(g), len(w))
			continue
		}
		for i := range w {
			if !reflect.DeepEqual(g[i], w[i]) { // go-cmp takes minutes for these
				t.Errorf("%s: row %d of table %s (-want +got):\n%s", what, i, table.Name, cmp.Diff(w[i], g[i]))
				break
			}
		}
	}
}

func wantConflict(t *testing.T, what string, err error, sentinel error) {
	t.Helper()
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind != fault.Conflict || f.Hint == "" || sentinel != nil && !errors.Is(err, sentinel) {
		t.Errorf("%s: got %v, want a Conflict with a hint that wraps %v", what, err, sentinel)
	}
}

// A store goes round through every kind, with every kind of row, and is the same afterwards but for the fences.
func TestCopy(t *testing.T) {
	places := []place{newSQLite(t), newPostgres(t), newPostgres(t), newSQLite(t), newSQLite(t)}
	var first map[string][]store.Row
	use(t, places[0], false, func(s store.Movable) {
		storetest.Fill(t, s)
		first = storetest.Dump(t, s, 1000)
	})
	for i, from := range places[:len(places)-1] {
		to := places[i+1]
		phases := map[string]int{}
		result, err := copyAll(t, from, to, func(s transfer.Step) {
			phases[s.Phase]++
			if s.Done > s.Total {
				t.Errorf("progress of %s is %d of %d", s.Table, s.Done, s.Total)
			}
		})
		if err != nil {
			t.Fatalf("copying %s to %s: %v", from, to, err)
		}
		if result.Resumed || result.Finished || result.Rows["certificate"] != int64(len(first["certificate"])) || len(phases) != 3 {
			t.Errorf("Copy = %+v, phases %v", result, phases)
		}
		sameRows(t, "the copy and its source", dump(t, to), dump(t, from))

		_, err = from.open(t.Context(), false)
		wantConflict(t, "opening the source for use", err, store.ErrNotInUse)
		if !strings.Contains(err.Error(), to.String()) {
			t.Errorf("the source says %q, and not where the copy is", err)
		}
		again, err := copyAll(t, from, to, nil)
		if err != nil || !again.Finished {
			t.Errorf("copying again: %+v, %v", again, err)
		}
		use(t, from, true, func(s store.Movable) {
			wantConflict(t, "Unfence after the copy", transfer.Unfence(t.Context(), s, false, time.Now()), store.ErrNotInUse)
		})
	}
	last := dump(t, places[len(places)-1])
	withoutEnd(last, first)
	sameRows(t, "after the way round", last, first)
	use(t, places[len(places)-1], false, func(s store.Movable) {
		if v, err := transfer.VerifyChain(t.Context(), s); err != nil || v.Problem != "" {
			t.Errorf("VerifyChain = %+v, %v", v, err)
		}
		found, err := s.Check(t.Context())
		for _, f := range found {
			if f.Serious && !strings.Contains(f.What, "disk") {
				t.Errorf("Check: %+v", f)
			}
		}
		if err != nil {
			t.Error(err)
		}
		grow(t, s, 20)
	})
	use(t, places[0], true, func(s store.Movable) {
		if err := transfer.Unfence(t.Context(), s, true, time.Now()); err != nil {
			t.Errorf("Unfence by force: %v", err)
		}
	})
	use(t, places[0], false, func(s store.Movable) { grow(t, s, 40) })
}

// rows is how many certificates the tests copy. CERTWRIGHT_TEST_COPY=100000 is the figure that is published.
func rows(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("CERTWRIGHT_TEST_COPY")); err == nil {
		return n
	}
	if testing.Short() || raceDetector {
		return 2000
	}
	return 20000
}

// Many certificates go from SQLite to Postgres and back. Memory does not grow with them.
func TestCopyMany(t *testing.T) {
	a, b, c := newSQLite(t), newPostgres(t), newSQLite(t)
	n := rows(t)
	start := time.Now()
	use(t, a, false, func(s store.Movable) {
		storetest.Fill(t, s)
		grow(t, s, n)
	})
	t.Logf("%d certificates were made in %v", n, time.Since(start).Round(time.Millisecond))
	for _, step := range []struct{ from, to place }{{a, b}, {b, c}} {
		start, peak := time.Now(), uint64(0)
		var m runtime.MemStats
		pages := 0
		result, err := copyAll(t, step.from, step.to, func(transfer.Step) {
			if pages++; pages%20 == 0 {
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
		})
		if err != nil || result.Rows["certificate"] < int64(n) {
			t.Fatalf("Copy = %+v, %v", result, err)
		}
		took := time.Since(start)
		t.Logf("%s to %s: %d certificates, %d audit records in %v (%.0f certificates/s), heap %d MiB at the most",
			step.from, step.to, result.Rows["certificate"], result.Rows["audit_record"], took.Round(time.Millisecond), float64(n)/took.Seconds(), peak>>20)
		if peak > 200<<20 {
			t.Errorf("the heap grew to %d MiB", peak>>20)
		}
	}
	before, after := dump(t, a), dump(t, c)
	withoutEnd(after, before)
	sameRows(t, "after the way there and back", after, before)
	use(t, c, false, func(s store.Movable) {
		if v, err := transfer.VerifyChain(t.Context(), s); err != nil || v.Problem != "" {
			t.Errorf("VerifyChain = %+v, %v", v, err)
		}
		all, err := s.CountCertificates(t.Context(), store.CertificateFilter{Text: "fleet.example"}, n+1)
		if err != nil || all != n {
			t.Errorf("a search finds %d certificates, %v; want %d", all, err, n)
		}
	})
}

// flaky breaks off at a random call: before it, or after it was done and nobody was told.
type flaky struct {
	store.Movable
	left *int
	stop context.CancelFunc
}

var errBroken = errors.New("broken off")

func (f flaky) breaks() bool {
	*f.left--
	return *f.left < 0
}

func (f flaky) ImportRows(ctx context.Context, id store.CopyID, t store.Table, rows []store.Row) error {
	if f.breaks() {
		if rand.IntN(2) == 0 {
			return errBroken
		}
		return errors.Join(f.Movable.ImportRows(ctx, id, t, rows[:1+rand.IntN(len(rows))]), errBroken)
	}
	return f.Movable.ImportRows(ctx, id, t, rows)
}

func (f flaky) FinishImport(ctx context.Context, id store.CopyID, h store.Head, at time.Time) error {
	if f.breaks() {
		if rand.IntN(2) == 0 {
			return errBroken
		}
		return errors.Join(f.Movable.FinishImport(ctx, id, h, at), errBroken)
	}
	return f.Movable.FinishImport(ctx, id, h, at)
}

func (f flaky) CountRows(ctx context.Context, t store.Table) (int64, error) {
	if f.breaks() {
		f.stop()
	}
	return f.Movable.CountRows(ctx, t)
}

// Broken off anywhere and called again, a copy comes out as if it had never been; until it is finished nobody can use
// either store.
func TestCopyBrokenOff(t *testing.T) {
	for name, pair := range map[string]func() (place, place){
		"to postgres":   func() (place, place) { return newSQLite(t), newPostgres(t) },
		"from postgres": func() (place, place) { return newPostgres(t), newSQLite(t) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair()
			use(t, a, false, func(s store.Movable) {
				storetest.Fill(t, s)
				grow(t, s, 3000)
			})
			tries := 0
			for done := false; !done; tries++ {
				if tries > 60 {
					t.Fatal("the copy does not get on")
				}
				use(t, a, true, func(from store.Movable) {
					use(t, b, true, func(to store.Movable) {
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						left := rand.IntN(60)
						c := config(from, flaky{to, &left, cancel}, a, b)
						_, err := transfer.Copy(ctx, c)
						done = err == nil
						if err != nil && !errors.Is(err, errBroken) && !errors.Is(err, context.Canceled) {
							t.Fatalf("try %d: %v", tries, err)
						}
					})
				})
				if _, err := a.open(t.Context(), false); !errors.Is(err, store.ErrNotInUse) {
					t.Fatalf("try %d: the source can be used: %v", tries, err)
				}
				var st store.State
				use(t, b, true, func(s store.Movable) {
					var err error
					if st, err = s.State(t.Context()); err != nil {
						t.Fatal(err)
					}
				})
				if st.Use == store.Filling {
					if _, err := b.open(t.Context(), false); !errors.Is(err, store.ErrNotInUse) {
						t.Fatalf("try %d: the unfinished copy can be used: %v", tries, err)
					}
				}
			}
			t.Logf("%d tries", tries)
			sameRows(t, "the copy and its source", dump(t, b), dump(t, a))
		})
	}
}

// killedCopy is the process that TestCopyKilled kills.
func killedCopy() bool {
	from, to := os.Getenv("TEST_COPY_FROM"), os.Getenv("TEST_COPY_TO")
	if from == "" {
		return false
	}
	at := func(s string) place {
		if strings.HasPrefix(s, "postgres") {
			return place{dsn: s}
		}
		return place{path: s}
	}
	a, b := at(from), at(to)
	ctx := context.Background()
	source, err := a.open(ctx, true)
	if err == nil {
		var target store.Movable
		if target, err = b.open(ctx, true); err == nil {
			_, err = transfer.Copy(ctx, config(source, target, a, b))
			target.Close()
		}
		source.Close()
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	return true
}

// Killed by the system at random moments, again and again.
func TestCopyKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for name, pair := range map[string]func() (place, place){
		"to postgres":   func() (place, place) { return newSQLite(t), newPostgres(t) },
		"from postgres": func() (place, place) { return newPostgres(t), newSQLite(t) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair()
			use(t, a, false, func(s store.Movable) {
				storetest.Fill(t, s)
				grow(t, s, min(rows(t), 8000))
			})
			run := func(wait time.Duration) bool {
				cmd := exec.Command(os.Args[0])
				text := func(p place) string { return p.path + p.dsn }
				cmd.Env = append(os.Environ(), "TEST_COPY_FROM="+text(a), "TEST_COPY_TO="+text(b))
				var out strings.Builder
				cmd.Stderr = &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if wait > 0 {
					timer := time.AfterFunc(wait, func() { cmd.Process.Kill() })
					defer timer.Stop()
				}
				err := cmd.Wait()
				if err != nil && cmd.ProcessState.Exited() {
					t.Fatalf("%v\n%s", err, out.String())
				}
				return err == nil
			}
			kills := 0
			for ; kills < 12; kills++ {
				if run(time.Duration(50+rand.IntN(700)) * time.Millisecond) {
					break
				}
			}
			if !run(0) {
				t.Fatal("the last try was killed by another")
			}
			t.Logf("%d kills", kills)
			sameRows(t, "the copy and its source", dump(t, b), dump(t, a))
			use(t, b, false, func(s store.Movable) { grow(t, s, 5) })
		})
	}
}

func TestCopyRefuses(t *testing.T) {
	full, other, empty, target := newSQLite(t), newSQLite(t), newSQLite(t), newPostgres(t)
	for _, p := range []place{full, other} {
		use(t, p, false, func(s store.Movable) { storetest.Fill(t, s) })
	}
	_, err := copyAll(t, empty, target, nil)
	wantConflict(t, "an empty source", err, nil)
	_, err = copyAll(t, full, other, nil)
	wantConflict(t, "a target that is in use", err, store.ErrNotEmpty)
	use(t, full, false, func(s store.Movable) {}) // was not fenced for nothing
	use(t, other, false, func(s store.Movable) {})

	// A copy that was begun, and is now to go somewhere else.
	use(t, full, false, func(s store.Movable) {
		if err := s.Fence(t.Context(), store.CopyID{1}, "elsewhere", time.Now(), audit.Record{Time: time.Now(), Action: "test"}); err != nil {
			t.Fatal(err)
		}
	})
	_, err = copyAll(t, full, target, nil)
	wantConflict(t, "another target", err, store.ErrNotInUse)
	use(t, full, true, func(s store.Movable) {
		if err := transfer.Unfence(t.Context(), s, false, time.Now()); err != nil {
			t.Errorf("Unfence: %v", err)
		}
		wantFault := transfer.Unfence(t.Context(), s, false, time.Now())
		if !fault.Is(wantFault, fault.Conflict) {
			t.Errorf("Unfence of a store in use: %v", wantFault)
		}
	})

	// What a copy that was given up has left in the target is thrown away by the next.
	use(t, full, true, func(from store.Movable) {
		use(t, target, true, func(to store.Movable) {
			left := 25
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if _, err := transfer.Copy(ctx, config(from, flaky{to, &left, cancel}, full, target)); err == nil {
				t.Fatal("the copy was not broken off")
			}
		})
		if err := transfer.Unfence(t.Context(), from, false, time.Now()); err != nil {
			t.Fatalf("Unfence: %v", err)
		}
		grow(t, from, 50)
	})
	if _, err := copyAll(t, full, target, nil); err != nil {
		t.Errorf("copying anew: %v", err)
	}
	sameRows(t, "the copy and its source", dump(t, target), dump(t, full))
	_, err = copyAll(t, target, full, nil)
	wantConflict(t, "the way back into a store that was left", err, store.ErrNotInUse)
}

// A chain that is broken in the source is found, and the copy is not put into use.
func TestCopyOfBrokenChain(t *testing.T) {
	a, b := newSQLite(t), newPostgres(t)
	use(t, a, false, func(s store.Movable) { storetest.Fill(t, s) })
	db, err := sql.Open("sqlite", a.path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(`UPDATE audit_record SET record = CAST(replace(CAST(record AS TEXT), 'token:test', 'token:best') AS BLOB) WHERE seq = 5`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = copyAll(t, a, b, nil)
	wantConflict(t, "a broken chain", err, nil)
	if _, err := b.open(t.Context(), false); !errors.Is(err, store.ErrNotInUse) {
		t.Errorf("the copy of a broken chain can be used: %v", err)
	}
}
