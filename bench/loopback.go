package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
)

const parallelVisitors = 64

var loopbackSides = []side{
	bareSide, oursInline, gorillaCookie, oursMemory, scsMemory, oursSQLite, scsSQLite,
}

// runLoopback lets 64 visitors do a mix of 80 % reads and 20 % writes over
// HTTP/1.1 on the loopback interface, each on its own connection.
func runLoopback(ctx context.Context, temp string, o options) ([]loadResult, error) {
	var crowds [][]visitor
	for _, s := range loopbackSides {
		lib, err := s.start(temp)
		if err != nil {
			return nil, err
		}
		defer lib.close()
		addr, stop, err := serve(ctx, handlers(lib))
		if err != nil {
			return nil, err
		}
		defer stop()
		var visitors []visitor
		for range parallelVisitors {
			c, err := dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			defer c.conn.Close()
			c.keeps = s.name != bare
			visitors = append(visitors, c)
		}
		crowds = append(crowds, visitors)
	}
	loads, err := crowd(ctx, crowds, o.loadRounds, o.loadTurn)
	if err != nil {
		return nil, err
	}
	return loadResults(loopbackSides, loads), nil
}

// serve serves h on a free port until stop is called.
func serve(ctx context.Context, h http.Handler) (addr string, stop func(), err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(l) }()
	return l.Addr().String(), func() { _ = server.Close() }, nil
}

// client is a visitor over HTTP. It does little more than a benchmark needs,
// because it shares the processor with the server.
type client struct {
	conn    net.Conn
	in      *bufio.Reader
	jar     jar
	count   int  // how often this visitor has counted up
	keeps   bool // whether the server is expected to know that number
	request bytes.Buffer
}

func dial(ctx context.Context, addr string) (*client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReader(conn), jar: jar{}}, nil
}

// next counts up with every fifth request and checks with all others that the
// number is still what it should be.
func (c *client) next(i int) error {
	path := read
	if i%5 == 0 || c.count == 0 {
		path = count
		c.count++
	}
	body, err := c.get(path)
	if err != nil {
		return err
	}
	if c.keeps && string(body) != strconv.Itoa(c.count) {
		return fmt.Errorf("%s: the session holds %s, and should hold %d", path, body, c.count)
	}
	return nil
}

func (c *client) get(path string) ([]byte, error) {
	c.request.Reset()
	fmt.Fprintf(&c.request, "GET %s HTTP/1.1\r\nHost: shop.example\r\n", path)
	h := requestHeader()
	h["Cookie"] = c.jar.header()
	if err := h.Write(&c.request); err != nil {
		return nil, err
	}
	c.request.WriteString("\r\n")
	if _, err := c.conn.Write(c.request.Bytes()); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", path, response.Status, body)
	}
	c.jar.update(response.Header)
	return body, nil
}
