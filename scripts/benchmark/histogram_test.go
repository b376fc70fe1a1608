package main

import (
	"math"
	"testing"
	"time"
)

func TestHistogramBuckets(t *testing.T) {
	last := -1
	for _, d := range []time.Duration{0, 1, 31, 32, 63, 64, 65, 66, 127, 128, 1000, time.Microsecond, 21 * time.Millisecond, time.Hour, math.MaxInt64} {
		b := bucketOf(d)
		if b < last {
			t.Errorf("bucket of %d is %d, below that of a shorter duration (%d)", d, b, last)
		}
		last = b
		if b >= buckets {
			t.Errorf("bucket of %d is %d, of %d", d, b, buckets)
			continue
		}
		end := endOf(b)
		if end < d || bucketOf(end) != b || end < math.MaxInt64 && bucketOf(end+1) != b+1 {
			t.Errorf("bucket %d of %d ends at %d, which is not its end", b, d, end)
		}
		if float64(end-d) > float64(d)/perOctave {
			t.Errorf("%d becomes %d: more than a 32nd too high", d, end)
		}
	}
	if got := bucketOf(-time.Second); got != 0 {
		t.Errorf("bucket of a negative duration = %d, want 0", got)
	}
}

func TestHistogramQuantile(t *testing.T) {
	var h, other histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("median of nothing = %s, want 0", got)
	}
	for i := range 500 {
		h.add(time.Duration(i+1) * time.Millisecond)
		other.add(time.Duration(i+501) * time.Millisecond)
	}
	h.merge(&other)
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0.5, 500 * time.Millisecond}, {0.9, 900 * time.Millisecond}, {0.99, 990 * time.Millisecond}, {1, time.Second}} {
		if got := h.quantile(c.q); got < c.want || got > c.want+c.want/perOctave {
			t.Errorf("quantile %g = %s, want %s or up to a 32nd more", c.q, got, c.want)
		}
	}
	if h.n != 1000 || h.max != time.Second {
		t.Errorf("count %d, longest %s; want 1000, 1s", h.n, h.max)
	}
}
