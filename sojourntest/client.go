package sojourntest

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/sojourn-go/sojourn"
)

// A Client is a program that keeps its session's token itself, such as a mobile
// app; see [sojourn.Config].Bearer. It sends requests to a handler, without a
// network, with the field "Authorization: Bearer" once it has a token, and takes a
// renewed token from each response. Make one with [NewClient]. It is safe for
// concurrent use.
type Client struct {
	t       testing.TB
	handler http.Handler
	held    *held
}

// held is behind a pointer, so that printing a struct with a Client does not print it.
type held struct {
	sync.Mutex
	token string
}

// NewClient returns a client without a token of the API that handler serves.
func NewClient(t testing.TB, handler http.Handler) *Client { return &Client{t, handler, new(held)} }

// UseToken sets the token that the client sends, such as the API's answer to a
// login. With "" it sends none.
func (c *Client) UseToken(token string) {
	c.held.Lock()
	defer c.held.Unlock()
	c.held.token = token
}

// Get requests target, a path or an absolute URL, and returns the response.
func (c *Client) Get(target string) *http.Response {
	return c.Do(c.Request(http.MethodGet, target, nil))
}

// Post sends a body to target, such as one of [JSON].
func (c *Client) Post(target string, body io.Reader) *http.Response {
	return c.Do(c.Request(http.MethodPost, target, body))
}

// Request returns a request with the client's token as it is now, for [Client.Do]
// after changing it, or for sending it later.
func (c *Client) Request(method, target string, body io.Reader) *http.Request {
	r := newRequest(method, target, body)
	c.held.Lock()
	defer c.held.Unlock()
	setToken(r.Header, c.held.token)
	return r
}

// Do sends a request, and keeps the token that the response renews. The request is
// sent as it is: it has the client's token if it comes from [Client.Request].
func (c *Client) Do(r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	res := w.Result()
	c.keep(r, res.Header)
	return res
}

func (c *Client) keep(r *http.Request, response http.Header) {
	c.held.Lock()
	defer c.held.Unlock()
	if renewed, ok := response[tokenField]; ok && tokenOf(r.Header) == c.held.token {
		c.held.token = renewed[0] // else another request has renewed it
	}
}

// Prepare lets f change the client's session as a request could, and keeps the
// resulting token: a shortcut past the login of the API. If the session cannot
// be saved, the test fails at once.
func (c *Client) Prepare(m *sojourn.Manager, f func(*sojourn.Session)) {
	c.t.Helper()
	r := c.Request(http.MethodGet, "/", nil)
	out := save(c.t, m, sojourn.InfoOf(r), func(s *sojourn.Session) {
		f(s)
		switch token, err := s.Token(c.t.Context()); {
		case err == nil:
			c.UseToken(token)
		case !errors.Is(err, sojourn.ErrNoValue): // there is none after a Logout
			c.t.Fatalf("sojourntest: the session's token: %v", err)
		}
	})
	c.keep(c.Request(http.MethodGet, "/", nil), out)
}

// Session returns the client's session as its next request would find it. It is
// for inspection, like the result of the function [Session].
func (c *Client) Session(m *sojourn.Manager) *sojourn.Session {
	c.t.Helper()
	return look(c.t, m, sojourn.InfoOf(c.Request(http.MethodGet, "/", nil)))
}
