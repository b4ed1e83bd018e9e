// Package responses tests the writer that commits a session before the first byte:
// with streams, files, HTTP/2 and caches, for readers who see the response or do
// not, and after the handler has returned. So does Open, which has no writer.
package responses
