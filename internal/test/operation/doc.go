// Package operation tests events in a running site: its store fails, its keys
// change or are lost, its manager is closed.
package operation
