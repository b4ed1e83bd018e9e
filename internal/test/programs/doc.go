// Package programs builds programs of this repository for tests, and runs those
// that serve in processes of their own.
//
// It needs Linux: there they end with the test binary, whatever happens to it.
package programs
