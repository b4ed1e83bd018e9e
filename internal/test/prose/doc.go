// Package prose checks the pages and comments of all modules for the patterns
// of docs/style.md.
package prose
