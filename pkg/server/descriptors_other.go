//go:build !unix

package server

import "math"

// maxDescriptors returns how many files and connections this process may have open: here no limit is known.
func maxDescriptors() int { return math.MaxInt32 }
