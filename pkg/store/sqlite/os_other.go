//go:build !linux && !darwin

package sqlite

import (
	"errors"
	"os"

	"github.com/certwright/certwright/pkg/fault"
)

const noFollow = 0

var errPlatform = errors.New("not implemented on this operating system")

func lockFile(string) (*os.File, error) {
	return nil, fault.Wrap(fault.Unavailable, errPlatform, "the SQLite store needs Linux or macOS").WithHint("use Postgres")
}

func freeSpace(string) (int64, error) { return 0, errPlatform }
