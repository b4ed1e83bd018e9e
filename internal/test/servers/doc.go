// Package servers starts the real servers that tests talk to, on free loopback
// ports, in temporary folders, and stops them by their own process ids. A
// program that is not installed fails the test: what a missing server would
// have shown must not pass unnoticed.
//
// It needs Linux: there the servers end with the test binary, whatever happens
// to it.
package servers
