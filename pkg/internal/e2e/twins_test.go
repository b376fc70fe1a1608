package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/certwright/certwright/pkg/client"
)

// TestTwins has 64 requests with one Idempotency-Key come at once, to every replica: they make one certificate, and get
// one answer. Later repetitions, another replica's start between them, get it too.
func TestTwins(t *testing.T) {
	everywhere(t, func(t *testing.T, d deployment) {
		csr := opensslCSR(t, opensslKey(t, "EC"), "/CN=twins.example.com", "DNS:twins.example.com")
		body, err := json.Marshal(client.IssueRequest{CSR: csr, Profile: "server"})
		if err != nil {
			t.Fatal(err)
		}
		type answer struct {
			status         int
			location, body string
		}
		browsers := map[*Server]*http.Client{d.A: d.A.Browser(nil), d.B: d.B.Browser(nil)}
		ask := func(s *Server, path, key, body string) (answer, error) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.HTTPS+"/api/v1"+path, strings.NewReader(body))
			if err != nil {
				return answer{}, err
			}
			req.Header.Set("Authorization", "Bearer "+d.A.Token)
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Idempotency-Key", key)
			res, err := browsers[s].Do(req)
			if err != nil {
				return answer{}, err
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			return answer{res.StatusCode, res.Header.Get("Location"), string(b)}, err
		}
		const twins = 64
		together := func(path, key, body string) answer {
			t.Helper()
			var answers [twins]answer
			var errs [twins]error
			var wg sync.WaitGroup
			start := make(chan struct{})
			for i := range twins {
				wg.Go(func() {
					<-start
					answers[i], errs[i] = ask([]*Server{d.A, d.B}[i%2], path, key, body)
				})
			}
			close(start)
			wg.Wait()
			for i, a := range answers {
				if errs[i] != nil || a != answers[0] {
					t.Fatalf("twin %d: %+v, %v; the first got %+v", i, a, errs[i], answers[0])
				}
			}
			if answers[0].status != http.StatusCreated {
				t.Fatalf("the twins got %+v", answers[0])
			}
			return answers[0]
		}
		count := func(q client.CertificateQuery) (n int) {
			t.Helper()
			for _, err := range d.B.Client.Certificates(t.Context(), q) {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			return n
		}
		first := together("/certificates", "one", string(body))
		if n := count(client.CertificateQuery{Text: "twins.example.com"}); n != 1 {
			t.Fatalf("%d twins got %d certificates, want 1", twins, n)
		}
		var issued client.Certificate
		if err := json.Unmarshal([]byte(first.body), &issued); err != nil {
			t.Fatal(err)
		}
		renewed := together("/certificates/"+issued.ID+"/renew", "two", `{}`)
		if n := count(client.CertificateQuery{Text: "twins.example.com"}); n != 2 || renewed == first {
			t.Fatalf("%d twins renewed: %d certificates, want 2", twins, n)
		}
		d.A.Restart()
		browsers[d.A] = d.A.Browser(nil)
		if again, err := ask(d.A, "/certificates", "one", string(body)); err != nil || again != first {
			t.Errorf("after a restart: %+v, %v; want %+v", again, err, first)
		}
		if other, err := ask(d.B, "/certificates", "one", string(body)+" "); err != nil || other.status != http.StatusUnprocessableEntity {
			t.Errorf("another body under the same key: %+v, %v; want 422", other, err)
		}
	})
}
