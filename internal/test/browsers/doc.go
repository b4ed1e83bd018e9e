// Package browsers tests what a browser holds: which cookies a response sets, their
// sizes and attributes, which credential counts, where a session lives, and
// responses that arrive in any order.
package browsers
