//go:build race

package tiered_test

// raceDetector makes each interleaving many times slower. It looks for other
// mistakes than the model does, so a few hundred of each are enough for it.
const raceDetector = true
