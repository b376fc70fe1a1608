package postgres_test

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/store"
)

// cpu is what this process has used, without the server.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRecordIssuance has 64 callers at once. Run it with -benchtime=200000x: the first batches fill caches.
func BenchmarkRecordIssuance(b *testing.B) {
	s := open(b, migrated(b))
	issuerID, keyID := setUp(b, s)
	ready := make([]store.Issuance, b.N)
	for i := range ready { // not measured: what the caller does
		ready[i] = issuance(issuerID, keyID)
	}
	var next atomic.Int64
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	began, used := time.Now(), cpu()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.RecordIssuance(b.Context(), ready[next.Add(1)-1]); err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "rows/s")
	b.ReportMetric(float64((cpu()-used).Microseconds())/float64(b.N), "client-us/op")
	stats := s.Stats()
	b.ReportMetric(float64(stats.BatchedOps)/float64(stats.Batches), "rows/batch")
}

// BenchmarkStatus is the look-up behind an OCSP answer.
func BenchmarkStatus(b *testing.B) {
	s := open(b, migrated(b))
	issuerID, keyID := setUp(b, s)
	serials := make([]store.Issuance, 2000)
	done := make(chan error, len(serials))
	for i := range serials {
		serials[i] = issuance(issuerID, keyID)
		go func() { done <- s.RecordIssuance(b.Context(), serials[i]) }()
	}
	for range serials {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.SetParallelism(4)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := s.Status(b.Context(), keyID, serials[i%len(serials)].Certificate.Serial); err != nil {
				b.Error(err)
			}
		}
	})
}
