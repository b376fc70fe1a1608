package e2e

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/internal/pgtest"
	"github.com/certwright/certwright/pkg/internal/scepraw"
)

// sampleReceiver is docs/samples/webhook/receiver.py at work.
type sampleReceiver struct {
	t       *testing.T
	url     string
	ca      string // PEM
	secrets string // file
	lines   chan map[string]any
	http    *http.Client
}

func startSampleReceiver(t *testing.T) *sampleReceiver {
	t.Helper()
	dir := t.TempDir()
	r := &sampleReceiver{t: t, secrets: filepath.Join(dir, "secret"), lines: make(chan map[string]any, 1000)}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "receiver"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	r.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
	certFile, keyFile := filepath.Join(dir, "receiver.pem"), filepath.Join(dir, "receiver.key")
	for name, text := range map[string]string{
		certFile: r.ca, keyFile: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), r.secrets: "",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	samples, err := filepath.Abs("../../../docs/samples/webhook")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", filepath.Join(samples, "receiver.py"), "--secret-file", r.secrets, "--devices", filepath.Join(samples, "devices.csv"),
		"--cert", certFile, "--key", keyFile, "--listen", "127.0.0.1:0")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var line map[string]any
			if json.Unmarshal(lines.Bytes(), &line) == nil {
				r.lines <- line
			}
		}
	}()
	errors := bufio.NewReader(stderr)
	first, err := errors.ReadString('\n')
	port, found := strings.CutPrefix(strings.TrimSpace(first), "listening on ")
	if err != nil || !found {
		rest, _ := io.ReadAll(errors)
		t.Fatalf("the receiver does not start: %v %s%s", err, first, rest)
	}
	go func() { _, _ = io.Copy(io.Discard, errors) }()
	r.url = "https://127.0.0.1:" + port + "/certwright"
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(r.ca))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	r.http = &http.Client{Transport: transport, Timeout: callTimeout}
	return r
}

// knows has the receiver know these secrets, and no others.
func (r *sampleReceiver) knows(secrets ...string) {
	r.t.Helper()
	if err := os.WriteFile(r.secrets, []byte(strings.Join(secrets, "\n")), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// line returns the next line of the receiver's log that is of a type and a transaction.
func (r *sampleReceiver) line(kind, transaction string) map[string]any {
	r.t.Helper()
	end := time.After(2 * time.Minute)
	for {
		select {
		case line := <-r.lines:
			if line["type"] == kind && line["transaction_id"] == transaction {
				return line
			}
		case <-end:
			r.t.Fatalf("the receiver has heard of no %s of %s", kind, transaction)
		}
	}
}

// The sample receiver of docs/webhook.md decides on devices from its list, hears what became of them, and takes nothing
// that is not authenticated.
func TestSampleReceiver(t *testing.T) {
	Need(t, "/usr/bin/python3")
	t.Parallel()
	for _, kind := range []string{"SQLite", "Postgres"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			o := Options{}
			if kind == "Postgres" {
				o.Database = pgtest.DSN(t)
			}
			s, r := Start(t, o), startSampleReceiver(t)
			p, err := s.Client.EnrollmentPoint(t.Context(), "default")
			if err != nil {
				t.Fatal(err)
			}
			settings, err := json.Marshal(map[string]any{
				"name": "default", "challenges": []string{"webhook"}, "device": map[string]any{"identity": "commonName"},
				"webhook": map[string]any{"url": r.url, "ca": r.ca, "allow": []string{"127.0.0.1"}, "timeout": "30s", "notify": []string{"success", "failure"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Client.PutEnrollmentPoint(t.Context(), "default", client.PutPointRequest{Version: p.Version, Settings: settings}); err != nil {
				t.Fatal(err)
			}
			secret, err := s.Client.NewWebhookSecret(t.Context(), "default", "")
			if err != nil {
				t.Fatal(err)
			}
			ra, _, err := scepraw.CACertificates(fetch(t, s.HTTP+"/scep/default?operation=GetCACert"))
			if err != nil {
				t.Fatal(err)
			}
			keys := new(scepraw.Keys)
			enroll := func(device, challenge string) (answer scepraw.Answer, transaction string) {
				t.Helper()
				request := scepraw.Request{RA: ra, TransactionID: rand.Text(), Key: keys.Next(), CommonName: device, Challenge: challenge}
				sent := request.Send()
				res, err := plainHTTP.Post(s.HTTP+"/scep/default?operation=PKIOperation", "application/x-pki-message", bytes.NewReader(sent.Body))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				if err == nil {
					answer, err = sent.Read(body, ra)
				}
				if err != nil {
					t.Fatalf("%s: %s, %v", device, res.Status, err)
				}
				return answer, request.TransactionID
			}
			const challenge17, challenge18, challenge19 = "J3K9-QX7P-20TV", "R8LM-44ZD-W1NA", "T5YC-0BHE-66KU"

			// It does not know the secret yet, and takes nothing.
			if answer, _ := enroll("sensor-17", challenge17); answer.Status != "2" {
				t.Errorf("before the receiver knows the secret: %s", answer)
			}
			r.knows("cwh_WRONG")
			if answer, _ := enroll("sensor-17", challenge17); answer.Status != "2" {
				t.Errorf("the receiver knows another secret: %s", answer)
			}
			r.knows("cwh_OLDER", secret.Secret)
			answer, transaction := enroll("sensor-17", challenge17)
			if answer.Status != "0" {
				t.Fatalf("sensor-17: %s", answer)
			}
			asked := r.line("request", transaction)
			told := r.line("success", transaction)
			if told["decision"] != asked["id"] || told["serial"] != hex.EncodeToString(answer.Certificate.SerialNumber.Bytes()) {
				t.Errorf("the receiver was told %v after %v, of %x", told, asked, answer.Certificate.SerialNumber)
			}
			for device, challenge := range map[string]string{"sensor-19": challenge19, "sensor-20": "nobody", "sensor-21": challenge17} {
				if answer, _ := enroll(device, challenge); answer.Status != "2" {
					t.Errorf("%s: %s", device, answer)
				}
			}
			answer, transaction = enroll("sensor-18", challenge18)
			if answer.Status != "3" {
				t.Fatalf("sensor-18: %s", answer)
			}
			waiting, _, err := s.Client.Enrollments(t.Context(), client.EnrollmentQuery{State: "pending"})
			if err != nil || len(waiting) != 1 || waiting[0].Device != "sensor-18" || !strings.Contains(waiting[0].Reason, "the list says pending") {
				t.Fatalf("waiting: %+v, %v", waiting, err)
			}
			if _, err := s.Client.ApproveEnrollment(t.Context(), waiting[0].ID); err != nil {
				t.Fatal(err)
			}
			r.line("success", transaction)

			// What is not from the server is refused: another key, another body, an old message.
			now := strconv.FormatInt(time.Now().Unix(), 10)
			old := strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 10)
			body := fmt.Sprintf(`{"version":1,"type":"success","id":"E","point":"default","transaction_id":%q}`, rand.Text())
			sign := func(key, stamp, body string) string {
				mac := hmac.New(sha256.New, []byte(key))
				_, _ = io.WriteString(mac, stamp+"."+body)
				return "t=" + stamp + ",v1=" + hex.EncodeToString(mac.Sum(nil))
			}
			for name, tt := range map[string]struct {
				header string
				status int
			}{
				"right": {sign(secret.Secret, now, body), 204}, "another key": {sign("cwh_OTHER", now, body), 401}, "another body": {sign(secret.Secret, now, body+" "), 401},
				"an old message": {sign(secret.Secret, old, body), 401}, "no signature": {"t=" + now, 401}, "nothing": {"", 401}, "an empty key": {sign("", now, body), 401},
			} {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Certwright-Signature", tt.header)
				res, err := r.http.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				if res.StatusCode != tt.status {
					t.Errorf("%s: %d, want %d", name, res.StatusCode, tt.status)
				}
			}
		})
	}
}
