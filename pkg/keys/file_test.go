//go:build unix

package keys_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/keys"
)

func TestWriteFile(t *testing.T) {
	for _, tc := range []struct {
		name      string
		prepare   func(t *testing.T, dir, path string)
		overwrite bool
		want      error
	}{
		{"new", nil, false, nil},
		{"new, overwrite", nil, true, nil},
		{"exists", oldFile, false, fs.ErrExist},
		{"exists, overwrite", oldFile, true, nil},
		{"link", link, false, fs.ErrExist},
		{"link, overwrite", link, true, keys.ErrUnsafeFile},
		{"dangling link", danglingLink, false, fs.ErrExist},
		{"dangling link, overwrite", danglingLink, true, keys.ErrUnsafeFile},
		{"folder", subfolder, false, fs.ErrExist},
		{"folder, overwrite", subfolder, true, keys.ErrUnsafeFile},
		{"group may write", func(t *testing.T, dir, _ string) { chmod(t, dir, 0o770) }, false, keys.ErrUnsafeFile},
		{"world may write", func(t *testing.T, dir, _ string) { chmod(t, dir, 0o707) }, true, keys.ErrUnsafeFile},
		{"sticky", func(t *testing.T, dir, _ string) { chmod(t, dir, 0o777|fs.ModeSticky) }, false, nil},
		{"world may write above", func(t *testing.T, dir, _ string) { chmod(t, filepath.Dir(dir), 0o777) }, false, keys.ErrUnsafeFile},
		{"group may write above", func(t *testing.T, dir, _ string) { chmod(t, filepath.Dir(dir), 0o770) }, false, nil},
		{"no folder", func(t *testing.T, dir, _ string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
		}, false, fs.ErrNotExist},
		{"folder is a file", func(t *testing.T, dir, _ string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, false, keys.ErrUnsafeFile},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(folder(t), "dir")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			chmod(t, dir, 0o700)
			path := filepath.Join(dir, "key.pem")
			if tc.prepare != nil {
				tc.prepare(t, dir, path)
			}
			old := syscall.Umask(0o277) // would take the owner's right to write
			err := keys.WriteFile(path, []byte("secret"), tc.overwrite)
			syscall.Umask(old)
			if !errors.Is(err, tc.want) {
				t.Fatalf("WriteFile = %v, want %v", err, tc.want)
			}
			if err != nil {
				if data, _ := os.ReadFile(path); string(data) == "secret" {
					t.Error("WriteFile failed, and wrote")
				}
				return
			}
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil || string(data) != "secret" || info.Mode() != 0o600 {
				t.Errorf("file is %q, %v with mode %v", data, err, info.Mode())
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("folder holds %v, %v, want the file only", entries, err)
			}
		})
	}
}

func oldFile(t *testing.T, _, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("old and longer"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, dir, path string) {
	t.Helper()
	target := filepath.Join(filepath.Dir(dir), "target")
	oldFile(t, "", target)
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func danglingLink(t *testing.T, dir, path string) {
	t.Helper()
	if err := os.Symlink(filepath.Join(dir, "nowhere"), path); err != nil {
		t.Fatal(err)
	}
}

func subfolder(t *testing.T, _, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

// Opening a FIFO that nobody writes to must not wait.
func TestFIFO(t *testing.T) {
	path := filepath.Join(folder(t), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := keys.FromKeyFile(path)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, keys.ErrUnsafeFile) {
			t.Errorf("FromKeyFile of a FIFO = %v, want ErrUnsafeFile", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("FromKeyFile waits for a writer")
	}
}
