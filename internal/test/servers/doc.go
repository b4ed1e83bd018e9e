// Package servers starts real servers for tests, on free loopback ports, in
// temporary folders, and stops them by their process IDs. A program that is not
// installed fails the test, so that tests are not skipped silently.
//
// It needs Linux, where the servers always end with the test binary.
package servers
