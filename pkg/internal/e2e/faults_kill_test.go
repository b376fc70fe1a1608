package e2e

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/internal/pgtest"
)

// killRounds is how often each test of sudden death kills.
const killRounds = 3

// killMoment is when: anywhere in the first second of load.
func killMoment() time.Duration { return time.Duration(50+rand.IntN(900)) * time.Millisecond }

// TestKillServer kills the server under load. What clients were told must be so after the restart.
func TestKillServer(t *testing.T) {
	for _, kind := range []string{"SQLite", "Postgres"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var o Options
			limit := crlSoon
			if kind == "Postgres" {
				o.Database, limit = pgtest.DSN(t), crlLease
			}
			s := Start(t, o)
			book, watch := newLedger(), newCRLWatch(t)
			ids := listsOfForms(t, s)
			for range killRounds {
				stopWatching := watch.follow(t, ids, s)
				load := startLoad(t, book, 32, s)
				load.reach(t, 20*time.Second, 20)
				<-time.After(killMoment())
				s.Kill()
				load.stop()
				stopWatching()
				s.Again()
				book.verify(t, s, watch, limit)
				t.Logf("killed: %d connections broke, %d answers of 503; ready again after %s", load.broken.Load(), load.away.Load(), s.Ready)
				if t.Failed() {
					return
				}
			}
			// A CRL after the last death has a number that nobody has seen.
			issuing := faultIssuer(t, s, "issuing")
			before := watch.number(issuing.keyID)
			load := startLoad(t, book, 1, s)
			eventually(t, limit, "a CRL with a higher number", func() error {
				if l := watch.fetch(s, issuing.keyID); l == nil || l.Number.Cmp(before) <= 0 {
					return errors.New("none yet")
				}
				return nil
			})
			load.stop()
			s.Stop()
			checkStore(t, s)
		})
	}
}

// TestKillDatabase kills the whole Postgres under load while the server goes on. It must find its way back by itself.
func TestKillDatabase(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	s := Start(t, Options{Database: pg.DSN()})
	pid := s.PID()
	book, watch := newLedger(), newCRLWatch(t)
	ids := listsOfForms(t, s)
	watch.follow(t, ids, s)
	for range killRounds {
		load := startLoad(t, book, 32, s)
		load.reach(t, 20*time.Second, 20)
		<-time.After(killMoment())
		pg.Kill()
		eventually(t, 10*time.Second, "an answer of 503", func() error {
			if load.away.Load() == 0 {
				return errors.New("none yet")
			}
			return nil
		})
		pg.Start()
		load.reach(t, 15*time.Second, 20)
		load.stop()
		eventually(t, 10*time.Second, "ready again", func() error {
			if !s.IsReady() {
				return errors.New("not ready")
			}
			return nil
		})
		book.verify(t, s, watch, crlSoon)
		t.Logf("database killed: %d answers of 503, %d connections broke", load.away.Load(), load.broken.Load())
		if load.broken.Load() > 0 {
			t.Errorf("%d requests got no answer at all, though the server lives", load.broken.Load())
		}
		if t.Failed() {
			return
		}
	}
	if s.PID() != pid {
		t.Error("the server was restarted")
	}
	checkStore(t, s)
}
