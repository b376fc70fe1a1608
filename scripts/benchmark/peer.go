package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// issueStepCA puts smallstep's step-ca under the same load: its embedded store, and one-time tokens of a JWK provisioner,
// which is how its own client asks. The tokens are signed before the clock runs.
func issueStepCA(ctx context.Context, o options, requests []request) (run *issueRun, err error) {
	folder := filepath.Join(o.folder, "step-ca")
	config, url, provisioner, roots, err := stepCAFiles(folder)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	p, err := startProcess(filepath.Join(folder, "log"), os.Environ(), o.stepCA, config)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = p.failure(err)
		}
		err = errors.Join(err, p.stop())
	}()
	client := &http.Client{
		Timeout:   requestTimeout,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
	}
	defer client.CloseIdleConnections()
	err = p.until(ctx, func() error {
		answer, err := client.Get(url + "/health")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
			return fmt.Errorf("health: %s: %w", answer.Status, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	started := time.Since(began)

	// Tokens from before the start are refused. The bodies are in place of ours, which has been measured.
	theirs := make([]request, len(requests))
	err = parallel(len(requests), func(i int) error {
		theirs[i] = requests[i]
		token, err := provisioner.token(url+"/1.0/sign", theirs[i].name)
		if err != nil {
			return err
		}
		theirs[i].body, err = json.Marshal(map[string]string{"csr": theirs[i].pem(), "ott": token})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("signing tokens: %w", err)
	}
	l := &load{
		url: url + "/1.0/sign", roots: roots, requests: theirs, clients: o.connections, duration: o.duration,
		identify: func(_ *request, _ http.Header, body []byte) (string, error) {
			digest := sha256.Sum256(body)
			return hex.EncodeToString(digest[:]), nil
		},
	}
	run, out, err := measure(ctx, l, l.requests[0].floor, p.pid(), 0, "")
	if err != nil {
		return nil, err
	}
	run.Server, run.Store = "step-ca", "embedded"
	run.Starts = &startReport{First: milliseconds(started)}
	for _, s := range out.samples {
		var answer struct {
			Certificate string `json:"crt"`
			Issuer      string `json:"ca"`
		}
		if err := json.Unmarshal(s.body, &answer); err != nil {
			return nil, err
		}
		if _, err := verifyCertificate(s.request, answer.Certificate, answer.Issuer, roots); err != nil {
			return nil, fmt.Errorf("certificate for %s: %w", s.request.name, err)
		}
	}
	return run, nil
}

// stepCAFiles makes a CA for step-ca, and its configuration.
func stepCAFiles(folder string) (config, url string, p *provisioner, roots *x509.CertPool, err error) {
	fail := func(err error) (string, string, *provisioner, *x509.CertPool, error) { return "", "", nil, nil, err }
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fail(err)
	}
	in := func(name string) string { return filepath.Join(folder, name) }
	write := func(name, kind string, der []byte) error {
		return os.WriteFile(in(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	certificate := func(name string, pathLen int, parent *x509.Certificate, signer crypto.Signer) (*x509.Certificate, *ecdsa.PrivateKey, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		t := &x509.Certificate{
			SerialNumber: big.NewInt(int64(2 + pathLen)), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			MaxPathLen: pathLen, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		}
		if parent == nil {
			parent, signer = t, key
		}
		der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
		if err != nil {
			return nil, nil, err
		}
		c, err := x509.ParseCertificate(der)
		return c, key, err
	}
	root, rootKey, err := certificate("Root", 1, nil, nil)
	if err != nil {
		return fail(err)
	}
	issuing, issuingKey, err := certificate("Issuing", 0, root, rootKey)
	if err != nil {
		return fail(err)
	}
	issuingDER, err := x509.MarshalECPrivateKey(issuingKey)
	if err != nil {
		return fail(err)
	}
	if err := errors.Join(write("root.pem", "CERTIFICATE", root.Raw), write("issuing.pem", "CERTIFICATE", issuing.Raw),
		write("issuing.key", "EC PRIVATE KEY", issuingDER)); err != nil {
		return fail(err)
	}
	if p, err = newProvisioner(); err != nil {
		return fail(err)
	}
	// It cannot be asked for any free port.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fail(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return fail(err)
	}
	type object = map[string]any
	settings, err := json.Marshal(object{
		"root": in("root.pem"), "crt": in("issuing.pem"), "key": in("issuing.key"),
		"address": address, "dnsNames": []string{"127.0.0.1"},
		"db":        object{"type": "badgerv2", "dataSource": in("db")},
		"authority": object{"provisioners": []object{{"type": "JWK", "name": provisionerName, "key": p.jwk}}},
	})
	if err != nil {
		return fail(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(root)
	return in("ca.json"), "https://" + address, p, roots, os.WriteFile(in("ca.json"), settings, 0o600)
}

const provisionerName = "bench"

// provisioner signs the tokens with which step-ca is asked (RFC 7519, ES256).
type provisioner struct {
	key    *ecdsa.PrivateKey
	jwk    map[string]string // RFC 7517
	header string
}

func newProvisioner() (*provisioner, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	point, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return nil, err
	}
	p := &provisioner{key: key, jwk: map[string]string{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "bench",
		"x": encode(point[1:33]), "y": encode(point[33:]),
	}}
	header, err := json.Marshal(map[string]string{"alg": "ES256", "kid": "bench", "typ": "JWT"})
	p.header = encode(header)
	return p, err
}

func (p *provisioner) token(audience, name string) (string, error) {
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{
		"aud": audience, "iss": provisionerName, "sub": name, "sans": []string{name}, "jti": rand.Text(),
		"iat": now, "nbf": now - 60, "exp": now + 3600,
	})
	if err != nil {
		return "", err
	}
	text := p.header + "." + encode(claims)
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, p.key, digest[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64) // RFC 7518, Section 3.4
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + encode(signature), nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
