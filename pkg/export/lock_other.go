//go:build !unix

package export

import "os"

// lockExclusively does nothing here: of two exporters into one folder, the last writes.
func lockExclusively(*os.File) error { return nil }
