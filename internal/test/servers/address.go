//go:build linux

package servers

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Address forwards connections to one server and later to another, like a DNS
// name or a proxy that keeps existing connections.
type Address struct {
	Addr string // host:port, on loopback
	to   atomic.Value
}

// NewAddress returns an address that forwards to that one. The test's end
// closes it and all its connections.
func NewAddress(t testing.TB, to string) *Address {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &Address{Addr: l.Addr().String()}
	a.Move(to)
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		if open == nil {
			c.Close()
		} else {
			open[c] = true
		}
	}
	drop := func(c net.Conn) {
		c.Close()
		mu.Lock()
		defer mu.Unlock()
		delete(open, c)
	}
	join := func(in net.Conn) {
		keep(in)
		defer drop(in)
		out, err := net.Dial("tcp", a.to.Load().(string))
		if err != nil {
			return // the client sees a server that closes the connection at once
		}
		keep(out)
		all.Go(func() {
			_, _ = io.Copy(out, in)
			drop(out)
		})
		_, _ = io.Copy(in, out)
	}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { join(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		open = nil
		mu.Unlock()
		all.Wait()
	})
	return a
}

// Move forwards new connections to another server.
func (a *Address) Move(to string) { a.to.Store(to) }
