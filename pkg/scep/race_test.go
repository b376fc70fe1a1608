//go:build race

package scep_test

// raceDetector makes everything some ten times slower.
const raceDetector = true
