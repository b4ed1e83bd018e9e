// Package lifetimes tests when sessions end, what counts as activity, and the
// end of a stream with its session.
package lifetimes
