package sqlite_test

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
	"github.com/certwright/certwright/pkg/store/sqlite"
)

var start = time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC)

// setUp makes a store with one issuer and returns its ids.
func setUp(t testing.TB, s *sqlite.Store) (issuer, key int64) {
	t.Helper()
	ca := newIssuance(1, 1, 0).Certificate
	err := s.Bootstrap(t.Context(), store.Bootstrap{
		KEKInfo: []byte("kek"),
		Issuers: []store.NewIssuer{{
			Issuer: pki.Issuer{Name: "root", Root: true, Created: start},
			Key:    pki.IssuerKey{KeyID: "0123456789abcdef", Current: true, SealedKey: []byte("sealed"), Created: start},
			Certificate: pki.IssuerCertificate{
				Fingerprint: ca.Fingerprint, Current: true, DER: ca.DER,
			},
			Record: ca,
		}},
		Records: []audit.Record{{Time: start, Action: audit.ActionBootstrap, Actor: "system"}},
	})
	if err != nil {
		t.Fatalf("Bootstrap: %v", err)
	}
	set, err := s.AllIssuers(t.Context())
	if err != nil {
		t.Fatalf("AllIssuers: %v", err)
	}
	return set.Issuers[0].ID, set.Keys[0].ID
}

// newIssuance is what an enrolled device leads to.
func newIssuance(issuer, key int64, n int) store.Issuance {
	at := start.Add(time.Duration(n) * time.Millisecond)
	der := make([]byte, 700)
	rand.Read(der)
	c := pki.Certificate{
		IssuerID: issuer, IssuerKeyID: key, Fingerprint: sha256.Sum256(der), SPKIHash: sha256.Sum256(der[:32]),
		Subject: fmt.Sprintf("CN=device-%08d.plant-%d.example.com,O=Example Corporation", n, n%40),
		SANs:    []string{fmt.Sprintf("DNS:device-%08d.plant-%d.example.com", n, n%40), fmt.Sprintf("IP:10.%d.%d.%d", n>>16&255, n>>8&255, n&255)},
		Profile: "device", ProfileVersion: 1, Requester: "token:enroller", Protocol: "scep", Device: fmt.Sprintf("device-%08d", n), Source: "10.0.0.1",
		TransactionID: fmt.Sprintf("%x", der[:16]), CRLScope: pki.ScopeFull,
		NotBefore: at.Truncate(time.Second), NotAfter: at.Truncate(time.Second).AddDate(1, 0, 0), IssuedAt: at, DER: der,
	}
	c.Serial, _ = pki.NewSerialNumber(rand.Reader, c.NotAfter, at)
	return store.Issuance{Certificate: c, Record: audit.Record{
		Time: at, Action: audit.ActionIssue, Actor: "token:enroller", Role: "enroller", Source: "10.0.0.1", RequestID: fmt.Sprintf("%x", der[:8]),
		Target: fmt.Sprintf("certificate/%x", c.Fingerprint), Detail: map[string]string{"profile": "device", "serial": c.Serial.String()},
	}}
}

// cpuTime returns what the process has used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRecordIssuance has 64 callers issue at the same time. cpu-us/op is the processor time of the whole process,
// which tells more on a busy machine.
func BenchmarkRecordIssuance(b *testing.B) {
	for _, callers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := open(b, fresh(b))
			issuer, key := setUp(b, s)
			issuances := make([]store.Issuance, b.N)
			for i := range issuances {
				issuances[i] = newIssuance(issuer, key, i+1)
			}
			next := make(chan store.Issuance, len(issuances))
			for _, i := range issuances {
				next <- i
			}
			close(next)
			runtime.GC()
			before, stats := cpuTime(), s.Stats()
			b.ResetTimer()
			done := make(chan error, callers)
			for range callers {
				go func() {
					var err error
					for i := range next {
						if err = s.RecordIssuance(b.Context(), i); err != nil {
							break
						}
					}
					done <- err
				}()
			}
			for range callers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			after := s.Stats()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-us/op")
			b.ReportMetric(float64(after.BatchedOps-stats.BatchedOps)/float64(after.Batches-stats.Batches), "ops/batch")
		})
	}
}
