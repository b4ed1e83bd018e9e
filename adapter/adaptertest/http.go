package adaptertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// Serve starts a server of net/http for [Wiring.Start], and returns a client of
// it. Panics in handlers, which are part of the checks, are not logged.
func Serve(t testing.TB, handler http.Handler) Client {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	return HTTP(server.URL)
}

// HTTP returns a [Client] for a server with HTTP/1.1 without TLS. Params are in
// the query. A request with a body is a POST, any other a GET of baseURL.
func HTTP(baseURL string) Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	return &httpClient{baseURL, &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

type httpClient struct {
	url    string
	client *http.Client
}

func (c *httpClient) request(ctx context.Context, r Request) (*http.Request, error) {
	method := http.MethodGet
	if r.Body != nil {
		method = http.MethodPost
	}
	query := url.Values{}
	for name, value := range r.Params {
		query.Set(name, value)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url+"?"+query.Encode(), r.Body)
	if err == nil && r.Header != nil {
		request.Header = r.Header
	}
	return request, err
}

// Send implements [Client].
func (c *httpClient) Send(ctx context.Context, r Request) (*Answer, error) {
	request, err := c.request(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(request) //nolint:bodyclose // the caller closes it
	if err != nil {
		return nil, err
	}
	return &Answer{
		Failed: resp.StatusCode >= http.StatusBadRequest,
		Status: resp.StatusCode,
		Header: resp.Header,
		Closes: resp.Close,
		Body:   resp.Body,
	}, nil
}

// HTTPCall returns the [Call] of a handler of net/http. It has no WebSocket,
// because net/http does not support it.
func HTTPCall(w http.ResponseWriter, r *http.Request) *Call {
	control := http.NewResponseController(w)
	return &Call{
		Context: r.Context(),
		Param:   r.URL.Query().Get,
		Respond: func(status int, text string) error {
			w.WriteHeader(status)
			_, err := io.WriteString(w, text)
			return err
		},
		Stream: func(body func(func(string) error) error) error {
			w.Header().Set("Content-Type", "text/event-stream")
			return body(func(line string) error {
				if _, err := fmt.Fprintf(w, "data: %s\n\n", line); err != nil {
					return err
				}
				return control.Flush()
			})
		},
		Hijack: func() (net.Conn, *bufio.ReadWriter, http.Header, error) {
			conn, rw, err := control.Hijack()
			return conn, rw, w.Header(), err
		},
		File: func(path string) error {
			http.ServeFile(w, r, path)
			return nil
		},
		Body: func(limit int64) ([]byte, error) {
			return io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
		},
	}
}

// lineReader reads lines.
type lineReader struct{ *bufio.Reader }

func newLineReader(r io.Reader) lineReader { return lineReader{bufio.NewReader(r)} }

func (r lineReader) next() (string, error) { return r.ReadString('\n') }
