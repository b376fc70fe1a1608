package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestStartPage has Chromium show the start page, over both listeners.
func TestStartPage(t *testing.T) {
	Need(t, "chromium")
	everywhere(t, func(t *testing.T, d deployment) {
		sum := sha256.Sum256(d.B.Root.Raw)
		want := strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
		// What the command line has printed people compare with what the page shows.
		if !strings.Contains(strings.ReplaceAll(d.A.Log(), " ", ""), want) {
			t.Errorf("serve has not printed the root's fingerprint:\n%s", d.A.Log())
		}

		for _, address := range []string{d.B.HTTP, d.B.HTTPS} {
			t.Run(address[:strings.Index(address, ":")], func(t *testing.T) {
				dom := dumpDOM(t, address+"/")
				text := tags.ReplaceAllString(dom, "")
				if !strings.Contains(text, want) {
					t.Errorf("the page does not show the root's fingerprint %s:\n%s", want, text)
				}
				for _, part := range []string{d.B.PublicURL, "/roots.pem", "/crls/issuing.pem", "/crl/", "/ocsp/"} {
					if !strings.Contains(dom, part) {
						t.Errorf("the page does not name %s", part)
					}
				}
				if strings.Contains(dom, "<script") || strings.Contains(dom, "style=") {
					t.Error("the page has scripts or styles inside")
				}
			})
		}

		t.Run("headers", func(t *testing.T) {
			for client, address := range map[*http.Client]string{plainHTTP: d.B.HTTP, d.B.Browser(nil): d.B.HTTPS} {
				for path, status := range map[string]int{"/": 200, "/nothing": 404} {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+path, nil)
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Accept", "text/html")
					res, err := client.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					res.Body.Close()
					policy := res.Header.Get("Content-Security-Policy")
					if res.StatusCode != status || !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") ||
						strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
						t.Errorf("%s%s: %s, %v", address, path, res.Status, res.Header)
					}
				}
			}
		})
	})
}

// tags are those of HTML, and comments.
var tags = regexp.MustCompile(`(?s)<!--.*?-->|<[^>]*>`)

// dumpDOM returns the page as Chromium has it after loading.
func dumpDOM(t testing.TB, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	// Its helpers may still write when it has ended; the test's own folder must be empty then.
	home, err := os.MkdirTemp("", "certwright-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	r := Run(ctx, t, Command{
		Path: Need(t, "chromium")[0],
		Args: []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--ignore-certificate-errors",
			"--user-data-dir=" + filepath.Join(home, "profile"), "--dump-dom", address,
		},
		Env: append(bareEnv(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home),
	})
	if r.Code != 0 || !strings.Contains(r.Out, "</html>") {
		t.Fatalf("chromium: code %d\n%s\n%.4000s", r.Code, r.Out, r.Err)
	}
	return r.Out
}
