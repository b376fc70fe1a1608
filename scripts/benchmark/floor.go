package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
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
	// What SCEP cannot do without either: one decryption and one signature with the RA's key, RSA-2048.
	Decrypt float64 `json:"rsa_decrypt_us,omitempty"`
	SignRSA float64 `json:"rsa_sign_us,omitempty"`
}

// sum is in milliseconds.
func (f floor) sum() float64 { return (f.CheckCSR + f.Sign + f.Decrypt + f.SignRSA) / 1000 }

func (f floor) mean(g floor) floor {
	return floor{
		CheckCSR: (f.CheckCSR + g.CheckCSR) / 2, Sign: (f.Sign + g.Sign) / 2,
		Decrypt: (f.Decrypt + g.Decrypt) / 2, SignRSA: (f.SignRSA + g.SignRSA) / 2,
	}
}

// How often each core does it: about 0.2 s for each operation.
const (
	floorOps    = 2400
	floorRSAOps = 240
)

// floor measures it with the request's CSR. It keeps all cores busy, as a loaded server does: two threads of one core slow each other down.
func (r *request) floor() (floor, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return floor{}, err
	}
	check := func() error {
		csr, err := x509.ParseCertificateRequest(r.der)
		if err != nil {
			return err
		}
		return csr.CheckSignature()
	}
	tbs := make([]byte, 700) // the length of a server's certificate
	sign := func() error {
		digest := sha256.Sum256(tbs)
		_, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		return err
	}
	var f floor
	if f.CheckCSR, err = cpuPerOp(floorOps, check); err != nil {
		return f, err
	}
	f.Sign, err = cpuPerOp(floorOps, sign)
	return f, err
}

// floorRSA is floor with the operations of SCEP.
func (r *request) floorRSA() (floor, error) {
	f, err := r.floor()
	if err != nil {
		return f, err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return f, err
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, make([]byte, 16), nil)
	if err != nil {
		return f, err
	}
	decrypt := func() error {
		_, err := rsa.DecryptOAEP(sha256.New(), nil, key, wrapped, nil)
		return err
	}
	sign := func() error {
		digest := sha256.Sum256(wrapped)
		_, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
		return err
	}
	if f.Decrypt, err = cpuPerOp(floorRSAOps, decrypt); err != nil {
		return f, err
	}
	f.SignRSA, err = cpuPerOp(floorRSAOps, sign)
	return f, err
}

// cpuPerOp returns the CPU time of f in microseconds, which each core calls so many times.
func cpuPerOp(times int, f func() error) (float64, error) {
	workers := runtime.NumCPU()
	spent, errs := make([]time.Duration, workers), make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			before, err := threadCPU()
			for i := 0; i < times && err == nil; i++ {
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
	return float64(sum.Nanoseconds()) / 1000 / float64(workers*times), errors.Join(errs...)
}

func threadCPU() (time.Duration, error) {
	const rusageThread = 1 // Linux; syscall has no name for it
	var u syscall.Rusage
	if err := syscall.Getrusage(rusageThread, &u); err != nil {
		return 0, fmt.Errorf("CPU time of a thread: %w", err)
	}
	return cpuOf(&u), nil
}
