// Package browsers tests a browser's cookies: which ones a response sets, their
// sizes and attributes, which credential counts, where a session lives, and
// responses that arrive in any order.
package browsers
