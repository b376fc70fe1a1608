package pki_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/pki"
)

func TestShardScope(t *testing.T) {
	for _, n := range []int{2, 64, pki.MaxShards} {
		set := pki.ShardSet(n)
		for _, shard := range []int{0, 1, n - 1} {
			gotSet, got, ok := pki.ParseShardScope(pki.ShardScope(set, shard))
			if gotSet != set || got != shard || !ok || pki.ShardSetSize(gotSet) != n {
				t.Errorf("shard %d of %d comes back as %d of %q, %v", shard, n, got, gotSet, ok)
			}
		}
	}
	for _, scope := range []string{
		"", "full", "ca", "s64", "s64/", "/3", "s64/64", "s64/-1", "s64/+1", "s64/01", "s64/1/2", "64/1", "s1/0", "s064/1", "s1025/1", "s64/1 ",
	} {
		if set, shard, ok := pki.ParseShardScope(scope); ok {
			t.Errorf("%q is taken for shard %d of %q", scope, shard, set)
		}
	}
}

// What is in certificates stays right only as long as these do.
func TestShardOf(t *testing.T) {
	for _, tt := range []struct {
		serial pki.SerialNumber
		n      int
		want   int
	}{
		{"\x41\x01\x5f\x0d\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02", 64, 2},
		{"\x41\x01\x5f\x0d\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff", 1000, 935},
		{"\x05", 4, 1},
		{"\x01\x00", 7, 4},
	} {
		if got := pki.ShardOf(tt.serial, tt.n); got != tt.want {
			t.Errorf("ShardOf(%s, %d) = %d, want %d", tt.serial, tt.n, got, tt.want)
		}
	}
}

func TestShardsAreOfOneSize(t *testing.T) {
	const n, each = 64, 500
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var count [n]int
	for range n * each {
		s, err := pki.NewSerialNumber(rand.Reader, now.AddDate(1, 0, 0), now)
		if err != nil {
			t.Fatal(err)
		}
		count[pki.ShardOf(s, n)]++
	}
	for shard, got := range count {
		// Ten standard deviations of a binomial distribution: never by chance.
		if got < each-223 || got > each+223 {
			t.Errorf("shard %d has %d of %d certificates, want about %d", shard, got, n*each, each)
		}
	}
}

func TestCRLAddressOf(t *testing.T) {
	full := pki.CRLAddressOf("http://pki.example.com", "0123456789abcdef", pki.ScopeFull)
	if want := "http://pki.example.com/crl/0123456789abcdef.crl"; full.Of(5) != want || full.URL != want {
		t.Errorf("the complete CRL is at %s, want %s", full.Of(5), want)
	}
	shard := pki.CRLAddressOf("http://pki.example.com", "0123456789abcdef", pki.ShardSet(64))
	if want := "http://pki.example.com/crl/0123456789abcdef/s64/17.crl"; shard.Of(17) != want {
		t.Errorf("shard 17 is at %s, want %s", shard.Of(17), want)
	}
}
