// Package middleware tests Sojourn with third-party middlewares and upgraders.
// It is in a separate module, so that its dependencies are not those of the
// library.
package middleware
