//go:build race

package tiered_test

// raceDetector makes each interleaving many times slower. It looks for other
// mistakes than the model does, so a few thousand are enough for it.
const raceDetector = true
