//go:build !race

package tiered_test

const raceDetector = false
