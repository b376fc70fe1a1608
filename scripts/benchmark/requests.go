package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"runtime"
	"sync"
)

// Kinds of keys in CSRs.
const (
	keyP256    = "p-256"
	keyRSA2048 = "rsa-2048"
)

// distinctKeys is how many keys the CSRs share. A CA that looks at each CSR by itself does not gain by it, and generating
// a key is dear.
const distinctKeys = 64

// request is a CSR with a name of its own.
type request struct {
	name string
	key  crypto.PublicKey
	der  []byte
	body []byte // that is posted
	path string // where; empty: the load's
}

func (r *request) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.der}))
}

// makeRequests makes n CSRs, without bodies. The names begin with prefix, so that no two runs have one in common.
func makeRequests(n int, kind, prefix string) ([]request, error) {
	keys := make([]crypto.Signer, distinctKeys)
	err := parallel(len(keys), func(i int) (err error) {
		if kind == keyRSA2048 {
			keys[i], err = rsa.GenerateKey(rand.Reader, 2048)
		} else {
			keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	requests := make([]request, n)
	err = parallel(n, func(i int) error {
		r, key := &requests[i], keys[i%len(keys)]
		r.name, r.key = fmt.Sprintf("%s%06d.bench.example", prefix, i), key.Public()
		t := &x509.CertificateRequest{Subject: pkix.Name{CommonName: r.name}, DNSNames: []string{r.name}}
		var err error
		r.der, err = x509.CreateCertificateRequest(rand.Reader, t, key)
		return err
	})
	return requests, err
}

// parallel calls f for each number below n, on all cores.
func parallel(n int, f func(int) error) error {
	workers := runtime.GOMAXPROCS(0)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				errs[w] = f(i)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// samePublicKey compares keys as certificates carry them.
func samePublicKey(a, b crypto.PublicKey) bool {
	x, errX := x509.MarshalPKIXPublicKey(a)
	y, errY := x509.MarshalPKIXPublicKey(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
