package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// caller is one visitor who calls a handler in-process, without a server, to
// measure the handler alone. It reuses one request and one response writer for
// all calls, so that they cost nothing.
type caller struct {
	h       http.Handler
	jar     jar
	request http.Request // copied for each call: gorilla/sessions changes it
	current http.Request
	w       writer
}

// newCaller returns a visitor without cookies. Like a server's, ctx can be
// canceled.
func newCaller(ctx context.Context, h http.Handler) *caller {
	c := &caller{h: h, jar: jar{}}
	c.request = *(&http.Request{
		Method:     http.MethodGet,
		URL:        &url.URL{},
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Header:     requestHeader(),
		Body:       http.NoBody,
		Host:       "shop.example",
		RemoteAddr: "203.0.113.7:51234",
	}).WithContext(ctx)
	c.w.header = http.Header{}
	return c
}

// requestHeader is a browser's header, through a proxy that terminates TLS.
func requestHeader() http.Header {
	return http.Header{
		"Accept":            {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
		"Accept-Encoding":   {"gzip, deflate, br, zstd"},
		"Accept-Language":   {"en-GB,en;q=0.8"},
		"User-Agent":        {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"},
		"X-Forwarded-Proto": {"https"},
	}
}

// call requests path with the visitor's cookies. remember keeps those of the
// response.
func (c *caller) call(path string) error {
	c.request.URL.Path = path
	c.current = c.request
	c.w.reset()
	c.h.ServeHTTP(&c.w, &c.current)
	if c.w.status != http.StatusOK {
		return fmt.Errorf("%s: status %d: %s", path, c.w.status, c.w.body)
	}
	return nil
}

// remember keeps the last response's cookies for later calls, like a browser.
func (c *caller) remember() {
	c.jar.update(c.w.header)
	c.request.Header["Cookie"] = c.jar.header()
}

// visit is call and remember.
func (c *caller) visit(path string) error {
	err := c.call(path)
	c.remember()
	return err
}

// writer keeps one small response.
type writer struct {
	header http.Header
	status int
	body   []byte
}

func (w *writer) reset() {
	clear(w.header)
	w.status, w.body = 0, w.body[:0]
}

func (w *writer) Header() http.Header { return w.header }

func (w *writer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *writer) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, b...)
	return len(b), nil
}

// jar is a browser's cookies, by name.
type jar map[string]string

func (j jar) update(response http.Header) {
	for _, line := range response["Set-Cookie"] {
		j.keep(line)
	}
}

// keep applies a Set-Cookie line.
func (j jar) keep(line string) {
	pair, attributes, _ := strings.Cut(line, ";")
	name, value, _ := strings.Cut(pair, "=")
	if strings.Contains(attributes, "Max-Age=0") {
		delete(j, name)
	} else {
		j[name] = value
	}
}

// header returns the values of the Cookie header: one line, or none.
func (j jar) header() []string {
	var pairs []string
	for name, value := range j {
		pairs = append(pairs, name+"="+value)
	}
	if pairs == nil {
		return nil
	}
	return []string{strings.Join(pairs, "; ")}
}
