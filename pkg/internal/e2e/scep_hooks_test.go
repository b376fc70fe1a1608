package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// hookServer is a webhook's receivers: each has a path, and a point of the same name.
type hookServer struct {
	good, lying *httptest.Server
	anchors     string        // PEM of what the good one's certificate is from
	done        chan struct{} // ends what is slow

	mu    sync.Mutex
	asked map[string]bool // the subjects of the requests that it was sent
}

func newHookServer(t *testing.T) *hookServer {
	h := &hookServer{done: make(chan struct{}), asked: make(map[string]bool)}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, body string) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
	note := func(r *http.Request) {
		var sent struct {
			Request struct {
				Subject string `json:"subject"`
			} `json:"request"`
		}
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Errorf("the webhook was sent what is no document: %v", err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.asked[sent.Request.Subject] = true
	}
	mux.HandleFunc("/allow", func(w http.ResponseWriter, r *http.Request) { note(r); answer(w, `{"decision":"allow"}`) })
	mux.HandleFunc("/deny", func(w http.ResponseWriter, r *http.Request) {
		note(r)
		answer(w, `{"decision":"deny","reason":"not one of ours"}`)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		note(r)
		select {
		case <-h.done:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, r *http.Request) {
		note(r)
		http.Error(w, "it is broken", http.StatusInternalServerError)
	})
	mux.HandleFunc("/garbage", func(w http.ResponseWriter, r *http.Request) { note(r); answer(w, `{"decision":"allow"`) })
	ca, caKey, anchors := hookCA(t)
	h.anchors = anchors
	quiet := func(c tls.Certificate) *httptest.Server {
		s := httptest.NewUnstartedServer(mux)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{c}}
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // who is not trusted is hung up on
		s.StartTLS()
		return s
	}
	h.good = quiet(hookLeaf(t, ca, caKey, net.IPv4(127, 0, 0, 1)))
	// The right authority, and another's address: whoever has a certificate from there would do otherwise.
	h.lying = quiet(hookLeaf(t, ca, caKey, net.IPv4(192, 0, 2, 1)))
	t.Cleanup(func() {
		close(h.done)
		h.good.Close()
		h.lying.Close()
	})
	return h
}

// wasAsked reports whether it was asked about a device.
func (h *hookServer) wasAsked(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked["CN="+name]
}

func hookCA(t *testing.T) (*x509.Certificate, *ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Webhooks"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err == nil {
		c, err = x509.ParseCertificate(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
}

func hookLeaf(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey, ip net.IP) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "webhook"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		IPAddresses: []net.IP{ip}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// points makes a point for each temper.
func (h *hookServer) points(t *testing.T, f *fleetStories) {
	t.Helper()
	_, _, strange := hookCA(t)
	for name, c := range map[string]struct{ url, anchors string }{
		"hook-allow":   {h.good.URL + "/allow", h.anchors},
		"hook-deny":    {h.good.URL + "/deny", h.anchors},
		"hook-slow":    {h.good.URL + "/slow", h.anchors},
		"hook-broken":  {h.good.URL + "/broken", h.anchors},
		"hook-garbage": {h.good.URL + "/garbage", h.anchors},
		"hook-away":    {"https://" + loopback(FreePort(t)) + "/allow", h.anchors},
		"hook-name":    {h.lying.URL + "/allow", h.anchors}, // another's certificate
		"hook-anchor":  {h.good.URL + "/allow", strange},    // of an authority that nobody knows
	} {
		anchors, err := json.Marshal(c.anchors)
		if err != nil {
			t.Fatal(err)
		}
		f.point(t, name, fmt.Sprintf(`{"challenges":["webhook"],"webhook":{"url":%q,"timeout":"1s","retries":1,"allow":["127.0.0.0/8"],"ca":%s}}`, c.url, anchors))
		if _, err := f.s.Client.NewWebhookSecret(t.Context(), name, ""); err != nil {
			t.Fatal(err)
		}
	}
}
