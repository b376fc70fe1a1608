package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// floor is the CPU time of what no CA can do without: read a CSR and check its signature, and sign with P-256. Figures of
// two machines, or of one machine on two days, compare as multiples of it.
type floor struct {
	CheckCSR float64 `json:"check_csr_us"`
	Sign     float64 `json:"sign_us"`
}

// sum is in milliseconds.
func (f floor) sum() float64 { return (f.CheckCSR + f.Sign) / 1000 }

// floorOps is how often each core does it: about 0.2 s.
const floorOps = 2400

// measureFloor keeps all cores busy, as a loaded server does: two threads of one core slow each other down.
func measureFloor(csr []byte) (floor, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return floor{}, err
	}
	check := func() error {
		r, err := x509.ParseCertificateRequest(csr)
		if err != nil {
			return err
		}
		return r.CheckSignature()
	}
	tbs := make([]byte, 700) // the length of a server's certificate
	sign := func() error {
		digest := sha256.Sum256(tbs)
		_, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		return err
	}
	var f floor
	if f.CheckCSR, err = cpuPerOp(check); err != nil {
		return f, err
	}
	f.Sign, err = cpuPerOp(sign)
	return f, err
}

// cpuPerOp returns the CPU time of f in microseconds.
func cpuPerOp(f func() error) (float64, error) {
	workers := runtime.NumCPU()
	spent, errs := make([]time.Duration, workers), make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			before, err := threadCPU()
			for i := 0; i < floorOps && err == nil; i++ {
				err = f()
			}
			after, err2 := threadCPU()
			spent[w], errs[w] = after-before, errors.Join(err, err2)
		})
	}
	wg.Wait()
	sum := time.Duration(0)
	for _, d := range spent {
		sum += d
	}
	return float64(sum.Nanoseconds()) / 1000 / float64(workers*floorOps), errors.Join(errs...)
}

func threadCPU() (time.Duration, error) {
	const rusageThread = 1 // Linux; syscall has no name for it
	var u syscall.Rusage
	if err := syscall.Getrusage(rusageThread, &u); err != nil {
		return 0, fmt.Errorf("CPU time of a thread: %w", err)
	}
	return cpuOf(&u), nil
}
