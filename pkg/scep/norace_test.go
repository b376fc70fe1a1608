//go:build !race

package scep_test

const raceDetector = false
