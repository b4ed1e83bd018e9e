// Package responses tests the writer that commits a session before the first
// byte: with streams, files, HTTP/2 and caches, for responses that are shown or
// not, and after the handler has returned. It also tests Open, which has no
// writer.
package responses
