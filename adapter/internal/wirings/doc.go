// Package wirings holds tests of Sojourn in frameworks and middlewares that
// need no adapter, because sessions.Wrap around the handler is enough. It is a
// separate module, so that its dependencies are not those of the library.
package wirings
