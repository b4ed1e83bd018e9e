// Package race says whether the race detector is on. It makes what computes for
// long many times slower, and looks for other mistakes than a model of one
// goroutine after the other does, so such tests do less under it. scripts/test
// runs them without it; see there for their names.
package race
