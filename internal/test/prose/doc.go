// Package prose holds the pages and comments of all modules to the patterns of
// docs/style.md.
package prose
