// Package lifetimes tests when sessions end, what counts as activity, and how a
// stream learns of the end of its session.
package lifetimes
