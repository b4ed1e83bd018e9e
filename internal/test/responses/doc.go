// Package responses tests the writer that commits a session before the first byte:
// with streams, files, HTTP/2 and caches, and after the handler has returned.
package responses
