package web_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/certwright/certwright/web"
)

var update = flag.Bool("update", false, "write the golden files anew")

var now = time.Date(2027, 3, 14, 9, 26, 53, 0, time.UTC)

// samplePage has one of everything: two roots in a rollover, a certificate near its end, fresh, ageing, stale and
// missing CRLs.
func samplePage() web.StartPage {
	day := func(n int) time.Time { return now.AddDate(0, 0, n) }
	return web.StartPage{
		Name: "Example Private CA", Organization: "Example Engineering GmbH", Version: "1.4.0", Now: now,
		HTTPURL: "http://ca.example.org:8080", HTTPSURL: "https://ca.example.org:8443",
		Certificates: []web.Certificate{{
			Role: web.RoleRoot, Issuer: "root", Subject: "CN=Example Root CA,O=Example Engineering GmbH,C=DE",
			NotBefore: day(-401), NotAfter: day(6904), KeyAlgorithm: "p-384", SignatureAlgorithm: "ECDSA with SHA-384",
			Serial: "41ffff0b3d5a2c91e07f4466d8a10b9c", SHA256: sha256.Sum256([]byte("root")),
			PEMPath: "/ca/3f1c9a7e5b2d8046.pem", DERPath: "/ca/3f1c9a7e5b2d8046.cer",
		}, {
			Role: web.RoleRoot, Issuer: "root-2", Subject: "CN=Example Root CA G2,O=Example Engineering GmbH,C=DE",
			NotBefore: day(-1), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), KeyAlgorithm: "ECDSA P-384",
			Serial: "41ffff0d9b6e0012aa9d31c07751e2f4", SHA256: sha256.Sum256([]byte("root 2")),
			PEMPath: "/ca/aa07b1c2d3e4f506.pem", DERPath: "/ca/aa07b1c2d3e4f506.cer",
		}, {
			Role: web.RoleIssuing, Issuer: "devices", Subject: "CN=Example Devices CA G1,O=Example Engineering GmbH,C=DE",
			IssuedBy:  "CN=Example Root CA,O=Example Engineering GmbH,C=DE",
			NotBefore: day(-1700), NotAfter: day(125), KeyAlgorithm: "ECDSA P-256", SignatureAlgorithm: "ECDSA with SHA-384",
			Serial: "4101490b3d5b0077c0ffee3141592653", SHA256: sha256.Sum256([]byte("devices")),
			PEMPath: "/ca/7b64e0d1c2a39f58.pem", DERPath: "/ca/7b64e0d1c2a39f58.cer",
		}},
		RootsPath: "/roots.pem", ClientCAPath: "/client-ca.pem",
		Chains: []web.Chain{{Issuer: "devices", PEMPath: "/chain/devices.pem", CRLPath: "/chain/devices.crls.pem"}},
		CRLs: []web.CRL{{
			Issuer: "root", Number: "1804996013", ThisUpdate: day(-2), NextUpdate: day(28), Entries: 1, SizeBytes: 412,
			URL:     "http://ca.example.org:8080/crl/3f1c9a7e5b2d8046.crl",
			DERPath: "/crl/3f1c9a7e5b2d8046.crl", PEMPath: "/crl/3f1c9a7e5b2d8046.pem",
		}, {
			Issuer: "devices", Scope: "full", Number: "1805015813", ThisUpdate: now.Add(-42 * time.Minute), NextUpdate: day(7),
			CreatedAt: now.Add(-2 * time.Minute),
			Entries:   18204, SizeBytes: 684_032, URL: "http://ca.example.org:8080/crl/7b64e0d1c2a39f58.crl",
			DERPath: "/crl/7b64e0d1c2a39f58.crl", PEMPath: "/crl/7b64e0d1c2a39f58.pem",
		}, {
			Issuer: "devices", Scope: "shard 3", Number: "1804400000", ThisUpdate: day(-8), NextUpdate: day(-1), Entries: 977,
			URL: "http://ca.example.org:8080/crl/7b64e0d1c2a39f58/2/3.crl", DERPath: "/crl/7b64e0d1c2a39f58/2/3.crl",
		}, {
			Issuer: "root-2", URL: "http://ca.example.org:8080/crl/aa07b1c2d3e4f506.crl",
		}},
		Responders:  []web.Responder{{Issuer: "devices", URL: "http://ca.example.org:8080/ocsp/7b64e0d1c2a39f58"}},
		OpenAPIPath: "/api/v1/openapi.yaml",
	}
}

func tlsPage() web.StartPage {
	p := samplePage()
	p.TLS = true
	p.Certificates = slices.Delete(p.Certificates, 1, 2)
	p.Certificates[1].NotAfter = now.AddDate(3, 0, 0)
	p.CRLs = p.CRLs[:2]
	return p
}

func renderStart(t testing.TB, p web.StartPage) string {
	t.Helper()
	var b bytes.Buffer
	if err := web.RenderStart(&b, p); err != nil {
		t.Fatalf("RenderStart: %v", err)
	}
	return b.String()
}

func renderError(t testing.TB, p web.ErrorPage) string {
	t.Helper()
	var b bytes.Buffer
	if err := web.RenderError(&b, p); err != nil {
		t.Fatalf("RenderError: %v", err)
	}
	return b.String()
}

// pages are all the pages that the structural tests look at.
func pages(t testing.TB) map[string]string {
	t.Helper()
	var notFound bytes.Buffer
	if err := web.RenderNotFound(&notFound); err != nil {
		t.Fatalf("RenderNotFound: %v", err)
	}
	return map[string]string{
		"start_http":  renderStart(t, samplePage()),
		"start_https": renderStart(t, tlsPage()),
		"start_empty": renderStart(t, web.StartPage{Now: now, HTTPURL: "http://127.0.0.1:8080"}),
		"error_404":   notFound.String(),
		"error_503": renderError(t, web.ErrorPage{
			Status: 503, Detail: "The store cannot be reached.", Hint: "Try again in a minute.", RequestID: "c0ffee42",
		}),
	}
}

// The addresses of static files change with their content; the golden files leave the hash out.
var hashRE = regexp.MustCompile(`(/static/[a-z]+)\.[0-9a-f]{16}\.`)

func TestGolden(t *testing.T) {
	for name, got := range pages(t) {
		t.Run(name, func(t *testing.T) {
			got := hashRE.ReplaceAllString(got, "$1.HASH.")
			file := filepath.Join("testdata", name+".golden.html")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("page differs from %s (-want +got), -update writes it anew:\n%s", file, diff)
			}
		})
	}
}

func parse(t testing.TB, page string) *html.Node {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatalf("page does not parse: %v", err)
	}
	return doc
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

// TestStructure checks what the CSP demands and what a screen reader needs, and that every tag is closed: a page that
// is written as it is meant has the same tags before and after the parser's repairs.
func TestStructure(t *testing.T) {
	void := []string{"meta", "link", "img", "br"}
	for name, page := range pages(t) {
		t.Run(name, func(t *testing.T) {
			var open []string
			z := html.NewTokenizer(strings.NewReader(page))
			for z.Next() != html.ErrorToken {
				switch tok := z.Token(); {
				case tok.Type == html.StartTagToken && !slices.Contains(void, tok.Data):
					open = append(open, tok.Data)
				case tok.Type == html.EndTagToken:
					if len(open) == 0 || open[len(open)-1] != tok.Data {
						t.Fatalf("</%s> closes %v", tok.Data, open)
					}
					open = open[:len(open)-1]
				}
			}
			if !errors.Is(z.Err(), io.EOF) || len(open) > 0 {
				t.Errorf("page ends with %v, open tags %v", z.Err(), open)
			}

			count := map[string]int{}
			ids := map[string]int{}
			var level int
			for n := range parse(t, page).Descendants() {
				if n.Type != html.ElementNode {
					continue
				}
				count[n.Data]++
				for _, a := range n.Attr {
					if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
						t.Errorf("<%s> has attribute %s=%q", n.Data, a.Key, a.Val)
					}
					if strings.Contains(a.Val, "ZgotmplZ") || strings.HasPrefix(strings.ToLower(a.Val), "javascript:") {
						t.Errorf("<%s> has a refused address: %s=%q", n.Data, a.Key, a.Val)
					}
					if a.Key == "id" {
						ids[a.Val]++
					}
				}
				switch n.Data {
				case "script", "style", "iframe", "object", "embed", "form", "base", "svg":
					t.Errorf("page holds <%s>", n.Data)
				case "img":
					if !slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == "alt" }) {
						t.Errorf("image %q has no alt", attr(n, "src"))
					}
				case "h1", "h2", "h3":
					if l := int(n.Data[1] - '0'); l > level+1 {
						t.Errorf("heading %q is <%s> after level %d", text(n), n.Data, level)
					} else {
						level = l
					}
				case "a":
					if strings.TrimSpace(text(n)) == "" {
						t.Errorf("link to %q has no text", attr(n, "href"))
					}
				}
			}
			for id, n := range ids {
				if n > 1 {
					t.Errorf("id %q occurs %d times", id, n)
				}
			}
			for _, tag := range []string{"title", "main", "h1"} {
				if count[tag] != 1 {
					t.Errorf("page has %d <%s>, want 1", count[tag], tag)
				}
			}
			if !strings.Contains(page, `<html lang="en">`) {
				t.Error("page names no language")
			}
		})
	}
}

// collect gathers every string that a page's data holds.
func collect(v reflect.Value, into map[string]bool) {
	switch v.Kind() {
	case reflect.String:
		into[v.String()] = true
	case reflect.Slice:
		for i := range v.Len() {
			collect(v.Index(i), into)
		}
	case reflect.Struct:
		if _, ok := v.Interface().(time.Time); ok {
			return
		}
		for i := range v.NumField() {
			collect(v.Field(i), into)
		}
	}
}

func TestLinksResolve(t *testing.T) {
	for name, p := range map[string]web.StartPage{"http": samplePage(), "https": tlsPage()} {
		t.Run(name, func(t *testing.T) {
			known := map[string]bool{"/": true, p.HTTPSURL + "/": true, p.HTTPSURL + p.OpenAPIPath: true}
			collect(reflect.ValueOf(p), known)
			for path := range web.Static() {
				known[path] = true
			}
			doc := parse(t, renderStart(t, p))
			linked := map[string]bool{}
			var hrefs []string
			for n := range doc.Descendants() {
				if id := attr(n, "id"); id != "" {
					known["#"+id] = true
				}
				for _, key := range []string{"href", "src"} {
					if a := attr(n, key); a != "" {
						hrefs = append(hrefs, a)
						linked[a] = true
					}
				}
			}
			for _, h := range hrefs {
				if !known[h] {
					t.Errorf("link %q leads to nothing in the data", h)
				}
			}
			for s := range known {
				if strings.HasPrefix(s, "/") && s != "/" && s != p.OpenAPIPath && !linked[s] {
					t.Errorf("nothing links to %q", s)
				}
			}
		})
	}
}

// hostile fills every text of a value, except the addresses, with the payload.
func hostile(v reflect.Value, payload string) {
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			hostile(v.Index(i), payload)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			f := v.Field(i)
			if f.Kind() == reflect.String && f.CanSet() && name != "Role" && !strings.HasSuffix(name, "Path") && !strings.HasSuffix(name, "URL") {
				f.SetString(payload)
			} else if f.Kind() == reflect.Slice || f.Kind() == reflect.Struct && name != "Now" {
				hostile(f, payload)
			}
		}
	}
}

func TestHostileText(t *testing.T) {
	tests := []struct{ name, payload, shown string }{
		{"script", `"'><script>alert(1)</script>`, `"'><script>alert(1)</script>`},
		{"attribute", `x" onmouseover="alert(1)`, `x" onmouseover="alert(1)`},
		{"template", `{{.Secret}} $(id) ` + "`id`", `{{.Secret}} $(id) ` + "`id`"},
		{"bidi", "good\u202eelive\u2066x", "good⟨U+202E⟩elive⟨U+2066⟩x"},
		{"escape", "a\x1b[2Jb\x07\x00\r\n\tc", "a⟨U+001B⟩[2Jb⟨U+0007⟩⟨U+0000⟩⟨U+000D⟩⟨U+000A⟩⟨U+0009⟩c"},
		{"invisible", "a\u200bb\u00adc\ufeffd\u00a0e\u3164f\U000e0041", "a⟨U+200B⟩b⟨U+00AD⟩c⟨U+FEFF⟩d⟨U+00A0⟩e⟨U+3164⟩f⟨U+E0041⟩"},
		{"invalid UTF-8", "a\xff\xc3b", "a⟨xFF⟩⟨xC3⟩b"},
		{"separators", "a\u2028b\u2029c\u0085d", "a⟨U+2028⟩b⟨U+2029⟩c⟨U+0085⟩d"},
		{"honest", "Zürich 東京 Ψ ‘quoted’ 🔑", "Zürich 東京 Ψ ‘quoted’ 🔑"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			clean := samplePage()
			p := samplePage()
			hostile(reflect.ValueOf(&p).Elem(), test.payload)
			ep := web.ErrorPage{Status: 400, Detail: test.payload, Hint: test.payload, RequestID: test.payload}
			for name, page := range map[string]string{"start": renderStart(t, p), "error": renderError(t, ep)} {
				for _, r := range page {
					if r != '\n' && (r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff || r == 0xfffd) {
						t.Fatalf("%s page holds %U for payload %q", name, r, test.payload)
					}
				}
				doc := parse(t, page)
				if !strings.Contains(text(doc), test.shown) {
					t.Errorf("%s page does not show %q for payload %q", name, test.shown, test.payload)
				}
				for n := range doc.Descendants() {
					if n.Data == "script" && n.Type == html.ElementNode {
						t.Errorf("payload %q became an element", test.payload)
					}
					for _, a := range n.Attr {
						if strings.HasPrefix(a.Key, "on") {
							t.Errorf("payload %q became attribute %s", test.payload, a.Key)
						}
					}
				}
			}
			// No text reaches the commands that a visitor copies, except the name, cut down to a file name.
			clean.Name = test.payload
			if got, want := commands(t, renderStart(t, p)), commands(t, renderStart(t, clean)); !slices.Equal(got, want) {
				t.Errorf("payload %q changes a command:\n%s", test.payload, cmp.Diff(want, got))
			}
		})
	}
}

// commands gives the text of every <pre>.
func commands(t testing.TB, page string) []string {
	var all []string
	for n := range parse(t, page).Descendants() {
		if n.Type == html.ElementNode && n.Data == "pre" {
			all = append(all, text(n))
		}
	}
	return all
}

func TestShowCommandIsQuoted(t *testing.T) {
	p := samplePage()
	p.Certificates[0].Issuer = `it's; rm -rf $HOME`
	if want := `certwright issuer show 'it'\''s; rm -rf $HOME'`; !strings.Contains(text(parse(t, renderStart(t, p))), want) {
		t.Errorf("page lacks %q", want)
	}
}

// TestRootsAreNoChains: what the server hands over of its root is left out where it would mislead.
func TestRootsAreNoChains(t *testing.T) {
	p := samplePage()
	p.Chains = append([]web.Chain{{Issuer: "root", PEMPath: "/chain/root.pem", CRLPath: "/chain/root.crls.pem"}}, p.Chains...)
	p.Responders = append([]web.Responder{{Issuer: "root", URL: "http://ca.example.org:8080/ocsp/3f1c9a7e5b2d8046"}}, p.Responders...)
	page := renderStart(t, p)
	if strings.Contains(page, "/chain/root") {
		t.Error("the page offers the root as a chain")
	}
	if !strings.Contains(page, "<dd><code class=\"any\">"+p.Responders[0].URL) {
		t.Error("the page does not name the root's responder")
	}
	asks := func(page, url string) bool {
		return slices.ContainsFunc(commands(t, page), func(c string) bool {
			return strings.Contains(c, "openssl ocsp -issuer chain.pem") && strings.Contains(c, "'"+url+"'")
		})
	}
	if !asks(page, p.Responders[1].URL) || asks(page, p.Responders[0].URL) {
		t.Error("the example does not ask the responder of the issuing CA")
	}
	p.Responders = p.Responders[:1]
	if page := renderStart(t, p); strings.Contains(page, "openssl ocsp") {
		t.Error("the example asks a root's responder")
	}
}

func TestOrganizationIsNotSaidTwice(t *testing.T) {
	for organization, want := range map[string]string{
		"Certwright": "Certwright", "certwright": "Certwright", "": "Certwright", "Example Corp": "Certwright · Example Corp",
	} {
		page := renderStart(t, web.StartPage{Name: "Certwright", Organization: organization, Now: now, HTTPURL: "http://127.0.0.1:8080"})
		for n := range parse(t, page).Descendants() {
			if n.Data == "title" && n.Type == html.ElementNode && text(n) != want {
				t.Errorf("title is %q, want %q, for %q", text(n), want, organization)
			}
		}
		if organization != "Example Corp" && strings.Contains(page, "authority of") {
			t.Errorf("the page says whose authority it is, for %q", organization)
		}
	}
}

func TestWarningFitsTheTransport(t *testing.T) {
	root := samplePage().Certificates[0].SHA256
	whole := strings.ToUpper(regexp.MustCompile(`..`).ReplaceAllString(hexOf(root), "$0:"))
	whole = strings.TrimSuffix(whole, ":")
	for name, p := range map[string]web.StartPage{"http": samplePage(), "https": tlsPage()} {
		page := renderStart(t, p)
		body := text(parse(t, page))
		for _, want := range []string{"certwright issuer show root", whole} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: page lacks %q", name, want)
			}
		}
		if got, want := strings.Contains(body, "plain HTTP: anyone on the way could have forged it"), !p.TLS; got != want {
			t.Errorf("%s: warning of plain HTTP is %t, want %t", name, got, want)
		}
		all := strings.Join(commands(t, page), "\n")
		if got, want := strings.Contains(strings.ToLower(all), hexOf(root)), p.TLS; got != want {
			t.Errorf("%s: commands carry the fingerprint: %t, want %t", name, got, want)
		}
		if got, want := strings.Contains(all, "paste the fingerprint here"), !p.TLS; got != want {
			t.Errorf("%s: commands ask for the fingerprint: %t, want %t", name, got, want)
		}
	}
}

func TestRenderStartRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*web.StartPage)
	}{
		{"no time", func(p *web.StartPage) { p.Now = time.Time{} }},
		{"no address", func(p *web.StartPage) { p.HTTPURL = "" }},
		{"https for http", func(p *web.StartPage) { p.HTTPURL = "https://ca.example.org" }},
		{"address with a path", func(p *web.StartPage) { p.HTTPURL = "http://ca.example.org/" }},
		{"address with a command", func(p *web.StartPage) { p.HTTPURL = "http://ca.example.org;id" }},
		{"address with a password", func(p *web.StartPage) { p.HTTPSURL = "https://me:secret@ca.example.org" }},
		{"foreign host as path", func(p *web.StartPage) { p.RootsPath = "//evil.example/roots.pem" }},
		{"script as path", func(p *web.StartPage) { p.ClientCAPath = "javascript:alert(1)" }},
		{"command in a path", func(p *web.StartPage) { p.Certificates[0].DERPath = "/ca/$(id).cer" }},
		{"quote in a path", func(p *web.StartPage) { p.Chains[0].CRLPath = "/chain/'x.pem" }},
		{"script as CRL address", func(p *web.StartPage) { p.CRLs[0].URL = "javascript:alert(1)" }},
		{"quote in OCSP address", func(p *web.StartPage) { p.Responders[0].URL = "http://ca.example.org/'$(id)" }},
		{"no fingerprint", func(p *web.StartPage) { p.Certificates[2].SHA256 = [32]byte{} }},
		{"no role", func(p *web.StartPage) { p.Certificates[0].Role = "" }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := samplePage()
			test.change(&p)
			var b bytes.Buffer
			if err := web.RenderStart(&b, p); err == nil {
				t.Error("RenderStart succeeded, want an error")
			}
			if b.Len() > 0 {
				t.Errorf("RenderStart wrote %d bytes in spite of its error", b.Len())
			}
		})
	}
	if err := web.RenderError(io.Discard, web.ErrorPage{Status: 200}); err == nil {
		t.Error("RenderError(200) succeeded, want an error")
	}
}

func TestStatic(t *testing.T) {
	handlers := web.Static()
	if len(handlers) != 2 {
		t.Errorf("got %d static files, want the style sheet and the logo", len(handlers))
	}
	for path, h := range handlers {
		if !hashRE.MatchString(path) {
			t.Errorf("address %q carries no hash", path)
		}
		do := func(method, etag string) *http.Response {
			r := httptest.NewRequest(method, path, nil)
			if etag != "" {
				r.Header.Set("If-None-Match", etag)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Result()
		}
		get := do("GET", "")
		body, _ := io.ReadAll(get.Body)
		if get.StatusCode != 200 || len(body) == 0 {
			t.Errorf("GET %s: status %d, %d bytes", path, get.StatusCode, len(body))
		}
		wantType := "text/css; charset=utf-8"
		if strings.HasSuffix(path, ".svg") {
			wantType = "image/svg+xml"
		}
		for key, want := range map[string]string{
			"Content-Type": wantType, "X-Content-Type-Options": "nosniff", "Content-Security-Policy": web.CSP,
			"Cache-Control": "public, max-age=31536000, immutable",
		} {
			if got := get.Header.Get(key); got != want {
				t.Errorf("GET %s: %s is %q, want %q", path, key, got, want)
			}
		}
		if got := do("GET", get.Header.Get("ETag")).StatusCode; got != 304 {
			t.Errorf("GET %s with its ETag: status %d, want 304", path, got)
		}
		if got := do("HEAD", "").StatusCode; got != 200 {
			t.Errorf("HEAD %s: status %d, want 200", path, got)
		}
		if got := do("POST", ""); got.StatusCode != 405 || got.Header.Get("Allow") == "" || got.Header.Get("Cache-Control") != "" {
			t.Errorf("POST %s: status %d, headers %v", path, got.StatusCode, got.Header)
		}
	}
}

func TestSetHeaders(t *testing.T) {
	h := http.Header{}
	web.SetHeaders(h)
	for key, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": web.CSP, "X-Content-Type-Options": "nosniff",
		"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache",
	} {
		if got := h.Get(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}
