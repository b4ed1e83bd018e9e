package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// workload is a visitor's sequence of requests.
type workload struct {
	name    string
	prepare string // once, before
	path    string
	every   int // every such request counts up instead; 0 = never
	size    int // of a page
}

var (
	reads  = workload{"read one value", write, read, 0, 0}
	writes = workload{"change one value", write, read, 1, 0}
	mixed  = workload{"80 % reads, 20 % writes", "", read, 5, 0}
	pages  = workload{"20 KB: read one of 20 values, 1 in 50 requests changes one", fill, readPage, 50, pageSize}
	huge   = workload{"1 MB: read one of 20 values, 1 in 50 requests changes one", fillHuge, readPage, 50, hugeSize}
)

// client is a visitor over HTTP. It does little more than a benchmark needs,
// because it shares the processor with the server.
type client struct {
	workload
	conn  net.Conn
	in    *bufio.Reader
	jar   jar
	count int  // the number that this visitor's session should hold
	keeps bool // whether the server must return that number

	headers []byte // the header of every request, after its first line
	out     []byte
	body    []byte
}

func dial(ctx context.Context, addr string, w workload) (*client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &client{workload: w, conn: conn, in: bufio.NewReader(conn), jar: jar{}}
	return c, c.putHeaders()
}

// start prepares the session.
func (c *client) start() error {
	if c.prepare == "" {
		return nil
	}
	body, err := c.get(c.prepare)
	if err != nil {
		return err
	}
	c.count, err = strconv.Atoi(string(body))
	return err
}

// next sends the workload's next request and checks the session's content.
func (c *client) next(i int) error {
	path, want := c.path, c.count
	if c.every > 0 && i%c.every == 0 || c.count == 0 && path == read {
		path = count
		c.count++
		want = c.count
	} else if path == readPage {
		want = c.size
	}
	body, err := c.get(path)
	if err != nil {
		return err
	}
	if c.keeps && string(body) != strconv.Itoa(want) {
		return fmt.Errorf("%s: the session holds %s, and should hold %d", path, body, want)
	}
	return nil
}

// get returns the body, until the next call.
func (c *client) get(path string) ([]byte, error) {
	c.out = append(append(append(c.out[:0], "GET "...), path...), " HTTP/1.1\r\n"...)
	c.out = append(c.out, c.headers...)
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, err
	}
	status, length, err := c.readHead()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	if _, err := io.ReadFull(c.in, c.body); err != nil {
		return nil, err
	}
	if status != "200" {
		return nil, fmt.Errorf("%s: status %s: %s", path, status, c.body)
	}
	return c.body, nil
}

// readHead reads a response's first line and its headers.
func (c *client) readHead() (status string, length int, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return "", 0, err
	}
	if _, after, ok := bytes.Cut(line, []byte(" ")); ok && len(after) > 3 {
		status = statusText(after[:3])
	}
	length = -1
	newCookies := false
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return "", 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch string(name) {
		case "Content-Length":
			if length, err = strconv.Atoi(string(value)); err != nil {
				return "", 0, err
			}
		case "Set-Cookie":
			c.jar.keep(string(value))
			newCookies = true
		}
	}
	if length < 0 {
		return "", 0, errors.New("a response without Content-Length")
	}
	if newCookies {
		return status, length, c.putHeaders()
	}
	return status, length, nil
}

func statusText(b []byte) string {
	if string(b) == "200" {
		return "200" // no allocation
	}
	return string(b)
}

// putHeaders makes the header of later requests.
func (c *client) putHeaders() error {
	h := requestHeader()
	if pairs := c.jar.header(); pairs != nil {
		h["Cookie"] = pairs
	}
	var b strings.Builder
	b.WriteString("Host: shop.example\r\n")
	if err := h.Write(&b); err != nil {
		return err
	}
	b.WriteString("\r\n")
	c.headers = []byte(b.String())
	return nil
}
