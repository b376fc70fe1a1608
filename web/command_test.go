package web_test

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certwright/certwright/web"
)

// TestCommands runs the shell blocks of the page as a visitor would, with everything replaced that fetches or installs.
// Whatever installs may run for the right fingerprint only.
func TestCommands(t *testing.T) {
	for _, tool := range []string{"sh", "sha256sum", "cut"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	der := []byte("the root, as its DER")
	page := func(tls bool) []string {
		p := samplePage()
		p.TLS = tls
		p.Certificates[0].SHA256 = sha256.Sum256(der)
		return commands(t, renderStart(t, p))
	}
	lower := hexOf(sha256.Sum256(der))
	colons := ""
	for pair := range slices.Chunk([]byte(strings.ToUpper(lower)), 2) {
		colons += ":" + string(pair)
	}
	colons = colons[1:]

	tests := []struct {
		name    string
		tls     bool
		paste   string
		served  []byte
		install bool
	}{
		{"https, right", true, "", der, true},
		{"https, forged", true, "", []byte("forged"), false},
		{"http, nothing pasted", false, "paste the fingerprint here", der, false},
		{"http, empty", false, "", der, false},
		{"http, as OpenSSL writes it", false, colons, der, true},
		{"http, as sha256sum writes it", false, lower, der, true},
		{"http, in groups", false, strings.ReplaceAll(colons, ":", " "), der, true},
		{"http, half of it", false, lower[:32], der, false},
		{"http, forged", false, colons, []byte("forged"), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ran := 0
			for _, block := range page(test.tls) {
				if !strings.Contains(block, " -c - &&") {
					continue // not a block that checks: Windows, Firefox's policy, OCSP
				}
				ran++
				installed := runBlock(t, strings.ReplaceAll(block, "paste the fingerprint here", test.paste), test.served)
				if installed != test.install {
					t.Errorf("installed: %t, want %t, by\n%s", installed, test.install, block)
				}
			}
			if ran != 10 {
				t.Errorf("ran %d blocks, want 10", ran)
			}
		})
	}
}

// runBlock runs one block in a folder of its own and tells whether anything that installs was started.
func runBlock(t *testing.T, block string, served []byte) (installed bool) {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	tool := func(name, script string) {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "served"), served, 0o644); err != nil {
		t.Fatal(err)
	}
	tool("curl", `[ "$1" = -fsSo ] && cp served "$2" || echo curl "$@" >>installed`)
	tool("wget", `[ "$1" = -O ] && cp served "$2"`)
	tool("apk", "")
	tool("shasum", `[ "$1 $2 $3 $4" = "-a 256 -c -" ] && exec sha256sum -c -`)
	for _, name := range []string{"sudo", "openssl", "certutil", "update-ca-certificates", "python3"} {
		tool(name, "echo "+name+` "$@" >>installed`)
	}
	cmd := exec.Command("sh", "-c", block)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir}
	out, err := cmd.CombinedOutput()
	_, statErr := os.Stat(filepath.Join(dir, "installed"))
	if installed = statErr == nil; installed && err != nil {
		t.Errorf("block failed after its check: %v\n%s\n%s", err, out, block)
	}
	return installed
}

// TestRootOfTheCommands: an expired or revoked root is not offered for trust.
func TestRootOfTheCommands(t *testing.T) {
	p := samplePage()
	p.Certificates[0].NotAfter = now.AddDate(0, 0, -1)
	if got := strings.Join(commands(t, renderStart(t, p)), ""); !strings.Contains(got, p.Certificates[1].DERPath) || strings.Contains(got, p.Certificates[0].DERPath) {
		t.Error("commands do not fetch the root that is still valid")
	}
	p.Certificates[1].Revoked = now
	if got := renderStart(t, p); strings.Contains(got, `id="trust"`) || strings.Contains(got, `href="#trust"`) {
		t.Error("page tells how to trust a root that is not good")
	}
	if got := renderStart(t, web.StartPage{Now: now, HTTPURL: "http://[::1]:8080"}); strings.Contains(got, `id="trust"`) {
		t.Error("page without certificates tells how to trust one")
	}
}
