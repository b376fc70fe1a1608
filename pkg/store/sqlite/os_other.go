//go:build !linux && !darwin

package sqlite

import (
	"errors"
	"os"

	"github.com/certwright/certwright/pkg/fault"
)

const noFollow = 0

var errPlatform = errors.New("this operating system is not one that the SQLite store was made for")

func lockFile(string) (*os.File, error) {
	return nil, fault.Wrap(fault.Unavailable, errPlatform, "the SQLite store needs Linux or macOS").WithHint("use Postgres")
}

func freeSpace(string) (int64, error) { return 0, errPlatform }
