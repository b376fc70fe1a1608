package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/keys"
)

// The files of a data folder.
const (
	storeFile  = "certwright.db"
	tokenFile  = "admin.token"
	rootFile   = "root.pem"
	clientFile = "client.yaml"
)

// prepareData makes the data folder or checks the one that is there: ours alone, since whoever can write into it can
// replace the store, and whoever can read it has the key file.
func prepareData(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return fault.Wrap(fault.Internal, err, "making the data folder").
			WithHint("name a folder that you may write to with --data")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if !info.IsDir() {
		return fault.New(fault.Conflict, "the data folder %s is not a folder", dir)
	}
	if owner, ok := ownerOf(info); ok && owner != os.Geteuid() {
		return fault.New(fault.Conflict, "the data folder %s belongs to user %d, and this is user %d", dir, owner, os.Geteuid()).
			WithHint("run as the folder's owner, or name another folder with --data")
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		// An empty folder holds nothing that others could have planted or read.
		if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 {
			return os.Chmod(dir, 0o700)
		}
		open := fault.New(fault.Conflict, "the data folder %s is open to others (mode %04o)", dir, mode)
		if _, err := os.Lstat(filepath.Join(dir, storeFile)); err == nil {
			return open.WithHint("chmod 0700 %s", dir)
		}
		return open.WithHint("name a folder of its own, as in %s", filepath.Join(dir, "certwright"))
	}
	return nil
}

// replaceFile writes a file of the data folder whole: the old contents or the new, never half. Nothing is written when
// the contents are the same.
func replaceFile(path string, data []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	return keys.WriteFile(path, data, true)
}

// readSecretLine returns the first line of a file that holds a secret.
func readSecretLine(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return nil, fmt.Errorf("the first line of %s is empty", path)
	}
	return []byte(line), nil
}
