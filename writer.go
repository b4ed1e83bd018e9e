package sojourn

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// Unwrap is for [http.ResponseController].
func (q *exchange) Unwrap() http.ResponseWriter { return q.inner }

// Header returns the response's header.
func (q *exchange) Header() http.Header { return q.inner.Header() }

// WriteHeader commits the session, unless status is informational.
func (q *exchange) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		if q.failed == nil {
			q.inner.WriteHeader(status)
		}
		return
	}
	if q.started && status >= http.StatusInternalServerError {
		q.discard() // the handler failed halfway
	}
	if q.start(status) == nil {
		q.inner.WriteHeader(status)
	}
}

// Write commits the session before the first byte.
func (q *exchange) Write(b []byte) (int, error) {
	if err := q.start(http.StatusOK); err != nil {
		return 0, err
	}
	return q.inner.Write(b)
}

// WriteString is Write for a string.
func (q *exchange) WriteString(s string) (int, error) {
	if err := q.start(http.StatusOK); err != nil {
		return 0, err
	}
	return io.WriteString(q.inner, s)
}

// ReadFrom lets the connection use sendfile.
func (q *exchange) ReadFrom(src io.Reader) (int64, error) {
	if err := q.start(http.StatusOK); err != nil {
		return 0, err
	}
	return io.Copy(q.inner, src)
}

// Flush commits the session and sends what was written.
func (q *exchange) Flush() { _ = q.FlushError() }

// FlushError is Flush for [http.ResponseController].
func (q *exchange) FlushError() error {
	err := q.start(http.StatusOK)
	if q.flushed.CompareAndSwap(false, true) {
		if s := q.ready(); s != nil {
			s.stream.Store(true)
		}
	}
	// Also if that was answered with an error: who calls Flush may go on for long.
	flushed := http.NewResponseController(q.inner).Flush()
	if err != nil {
		return err
	}
	return flushed
}

// Hijack commits the session and hands over the connection. The cookies are in
// Header then, for whoever writes the response by hand.
func (q *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	// Committing first and failing then would leave nothing to answer with.
	if !canHijack(q.inner) {
		return nil, nil, http.ErrNotSupported
	}
	if err := q.start(http.StatusSwitchingProtocols); err != nil {
		return nil, nil, err
	}
	conn, rw, err := http.NewResponseController(q.inner).Hijack()
	if err == nil {
		q.hijacked.Store(true)
	}
	return conn, rw, err
}

func canHijack(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case *exchange: // is a Hijacker whatever is below
			w = t.inner
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}
