// Package wirings holds tests of Sojourn in frameworks and middlewares that need
// no adapter, because sessions.Wrap around the handler is all of it. It is a module
// of its own, so that nothing of what it needs becomes a dependency of the
// library.
package wirings
