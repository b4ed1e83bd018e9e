//go:build race

package logins_test

// The model sends one request after the other. Under the race detector it takes
// ten times as long and finds nothing else, so its sequences are shorter there.
func init() { *moreEvents-- }
