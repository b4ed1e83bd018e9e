// Package middleware holds tests of Sojourn among other people's middlewares and
// upgraders. It is a module of its own, so that nothing of what it needs
// becomes a dependency of the library.
package middleware
