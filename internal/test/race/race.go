// Package race reports whether the race detector is on. It makes long
// computations many times slower and does not help sequential models, so such
// tests do less under it. scripts/test runs them without it and lists them.
package race
