package clock_test

import (
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/fault"
)

func TestGuard(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name    string
		wall    time.Duration // how far the wall clock moved since the guard began
		elapsed time.Duration // how far the machine's count did
		confirm bool
		newest  time.Duration // the newest record, relative to the start
		refused bool
		want    time.Duration
	}{
		{name: "quiet hours", wall: 30 * time.Hour, elapsed: 30 * time.Hour, want: 30 * time.Hour},
		{name: "a little behind the newest record", wall: time.Minute, elapsed: time.Minute, newest: 4 * time.Minute, want: 4 * time.Minute},
		{name: "far behind the newest record", wall: 0, elapsed: time.Minute, newest: 6 * time.Minute, refused: true},
		{name: "set back below the start", wall: -time.Hour, elapsed: time.Minute, newest: 0, refused: true},
		{name: "set ahead by minutes", wall: 50 * time.Minute, elapsed: time.Minute, want: 50 * time.Minute},
		{name: "off for a holiday", newest: -20 * 24 * time.Hour},
		{name: "newest record years ago", newest: -3 * 365 * 24 * time.Hour, refused: true},
		{name: "newest record years ago, confirmed", newest: -3 * 365 * 24 * time.Hour, confirm: true},
		{name: "newest record in the future, confirmed", newest: 365 * 24 * time.Hour, confirm: true},
		{name: "set ahead by hours", wall: 3 * time.Hour, elapsed: time.Minute, refused: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wall, count := start, time.Duration(0)
			g := clock.New(func() time.Time { return wall }, func() time.Duration { return count })
			g.Saw(start.Add(tt.newest))
			if tt.confirm {
				g.Confirm()
			}
			g.Saw(start.Add(tt.newest - time.Hour)) // older ones change nothing
			wall, count = start.Add(tt.wall), tt.elapsed
			got, err := g.Check()
			if refused := err != nil; refused != tt.refused {
				t.Fatalf("Check: %v, want refused = %v", err, tt.refused)
			}
			if tt.refused {
				if !fault.Is(err, fault.Unavailable) {
					t.Errorf("kind %v, want Unavailable", fault.KindOf(err))
				}
				return
			}
			if want := start.Add(tt.want); !got.Equal(want) {
				t.Errorf("Check = %v, want %v", got, want)
			}
		})
	}
}

func TestRealCount(t *testing.T) {
	if _, err := clock.New(nil, nil).Check(); err != nil {
		t.Error(err)
	}
}
