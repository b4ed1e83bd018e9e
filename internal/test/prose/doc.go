// Package prose checks the texts of all modules (pages, comments, error and help
// texts, templates, translations) for the patterns of
// docs/style.md.
package prose
