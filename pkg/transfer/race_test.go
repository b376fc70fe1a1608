//go:build race

package transfer_test

// raceDetector makes everything some ten times slower.
const raceDetector = true
