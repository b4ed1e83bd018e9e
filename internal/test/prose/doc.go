// Package prose checks the English of the guide against docs/style.md.
package prose
