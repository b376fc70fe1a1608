package postgres_test

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/pki"
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

// BenchmarkLookups are the look-ups of one certificate: the first is behind every OCSP answer, the last asks the index of
// every partition.
func BenchmarkLookups(b *testing.B) {
	s := open(b, migrated(b))
	issuerID, keyID := setUp(b, s)
	issued := make([]store.Issuance, 2000)
	done := make(chan error, len(issued))
	for i := range issued {
		issued[i] = issuance(issuerID, keyID)
		go func() { done <- s.RecordIssuance(b.Context(), issued[i]) }()
	}
	for range issued {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	for _, lookup := range []struct {
		name string
		do   func(pki.Certificate) error
	}{
		{"Status", func(c pki.Certificate) error { _, err := s.Status(b.Context(), keyID, c.Serial); return err }},
		{"BySerial", func(c pki.Certificate) error {
			_, err := s.CertificateBySerial(b.Context(), issuerID, c.Serial)
			return err
		}},
		{"ByFingerprint", func(c pki.Certificate) error { _, err := s.Certificate(b.Context(), c.Fingerprint); return err }},
	} {
		b.Run(lookup.name, func(b *testing.B) {
			for i := range b.N {
				if err := lookup.do(issued[i%len(issued)].Certificate); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
