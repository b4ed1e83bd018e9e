// Package concurrency tests requests of one session at the same time: no update is
// lost, and a value that is taken once is taken by one.
package concurrency
