// Package operation tests stores that fail and keys that change while a site runs.
package operation
