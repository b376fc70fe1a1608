package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// TestTour types the README's tour, to the letter, into a shell in a copy of the repository. It uses the default ports.
func TestTour(t *testing.T) {
	paths := Need(t, "nginx", "curl", "git", "bash")
	for _, addr := range []string{"127.0.0.1:8080", "127.0.0.1:8443", "127.0.0.1:8444", "127.0.0.1:9443"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("the tour uses the default ports: %v", err)
			}
			t.Skipf("the tour uses the default ports: %v", err)
		}
		l.Close()
	}
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tour, found := strings.Cut(string(readme), "## Five-minute tour")
	if !found {
		t.Fatal("the README has no tour")
	}
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	for _, block := range shellBlock.FindAllStringSubmatch(tour, -1) {
		script.WriteString(block[1])
	}

	dir := t.TempDir()
	files, err := exec.Command(paths[2], "-C", "../../..", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatalf("listing the repository's files: %v", err)
	}
	for _, name := range strings.Split(strings.TrimRight(string(files), "\x00"), "\x00") {
		b, err := os.ReadFile(filepath.Join("../../..", name))
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	home := t.TempDir()
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "XDG_DATA_HOME="+home, "GOFLAGS=-buildvcs=false")
	serve := exec.Command(Program(t), "serve")
	serve.Env, serve.Stderr = env, &strings.Builder{}
	serve.SysProcAttr = &syscall.SysProcAttr{}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// It may have ended already.
		_ = serve.Process.Signal(syscall.SIGTERM)
		if err := serve.Wait(); err != nil {
			t.Errorf("the server: %v\n%s", err, serve.Stderr)
		}
	})
	for deadline := time.Now().Add(readyTimeout); ; time.Sleep(pollInterval) {
		if c, err := net.Dial("tcp", "127.0.0.1:8443"); err == nil {
			c.Close()
			if _, err := os.Stat(filepath.Join(home, "certwright", "client.yaml")); err == nil {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not answer\n%s", serve.Stderr)
		}
	}
	shell := exec.Command(paths[3])
	shell.Dir, shell.Env, shell.Stdin = dir, env, strings.NewReader(script.String())
	out, err := shell.CombinedOutput()
	t.Cleanup(func() {
		// The tour ends nginx itself; a tour that broke off has left it.
		_ = exec.Command(paths[0], "-p", filepath.Join(dir, "tour"), "-c", "nginx.conf", "-s", "quit").Run()
	})
	if err != nil {
		t.Fatalf("the tour: %v\n%s", err, out)
	}
	for _, want := range []string{"hello CN=alice", "The SSL certificate error", "keyCompromise", "Whole:       yes"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the tour does not show %q:\n%s", want, out)
		}
	}
}
