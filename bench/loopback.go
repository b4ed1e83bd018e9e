package main

import (
	"context"
	"net"
	"net/http"
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
			c, err := dial(ctx, addr, mixed)
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
