//go:build race

package rest

// raceDetector makes everything some ten times slower.
const raceDetector = true
