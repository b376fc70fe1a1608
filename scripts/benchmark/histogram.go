package main

import (
	"math/bits"
	"time"
)

// A bucket is as wide as a 32nd of its octave, so that a quantile is at most 3 % too high.
const (
	perOctave = 32
	buckets   = perOctave * 60
)

// histogram counts durations in buckets whose width grows with them. Not safe for concurrent use: each client has its
// own.
type histogram struct {
	counts [buckets]int64
	n      int64
	max    time.Duration
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile returns a duration that the share q of all does not exceed; 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank, seen := int64(q*float64(h.n)), int64(0)
	for i, c := range h.counts {
		if seen += c; c > 0 && seen >= rank {
			return min(endOf(i), h.max)
		}
	}
	return h.max
}

// bucketOf returns the bucket of a duration: its nanoseconds if they are few, else its highest six bits and how far they
// were shifted.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	shift := max(bits.Len64(n)-6, 0)
	return perOctave*shift + int(n>>shift)
}

// endOf returns the longest duration in a bucket.
func endOf(bucket int) time.Duration {
	shift := max(bucket/perOctave-1, 0)
	return time.Duration((bucket-perOctave*shift+1)<<shift - 1)
}
