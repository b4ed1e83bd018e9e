// Package programs builds programs of this repository for tests, and runs
// servers in separate processes.
//
// It needs Linux, where they always end with the test binary.
package programs
