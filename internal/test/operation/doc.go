// Package operation tests what happens to a site while it runs: its store fails, its
// keys change or are lost, its manager is closed.
package operation
