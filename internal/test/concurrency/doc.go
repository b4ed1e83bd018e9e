// Package concurrency tests requests of one session at the same time: no update
// is lost, and a one-time value is taken by one request.
package concurrency
