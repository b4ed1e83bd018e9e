//go:build linux

package servers

import (
	"net"
	"testing"
)

// The kernel never chooses a port that a test has reserved, even while the
// test's server is down, and the server can use it again.
func TestAReservedPortIsNobodyElses(t *testing.T) {
	const many = 400
	mine := map[int]bool{}
	for range many {
		port := Port(t)
		if mine[port] {
			t.Fatalf("port %d is reserved twice", port)
		}
		mine[port] = true
	}
	for range many {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if port := l.Addr().(*net.TCPAddr).Port; mine[port] {
			t.Fatalf("port %d is given to somebody else", port)
		}
	}
	n := 0
	for port := range mine {
		for range 2 {
			l, err := net.Listen("tcp", addr(port))
			if err != nil {
				t.Fatalf("a server cannot have its port: %v", err)
			}
			go func() {
				if c, err := l.Accept(); err == nil {
					c.Close() // the port's end of the connection stays in TIME-WAIT
				}
			}()
			c, err := net.Dial("tcp", addr(port))
			if err != nil {
				t.Fatal(err)
			}
			if from := c.LocalAddr().(*net.TCPAddr).Port; mine[from] {
				t.Errorf("port %d is given to a connection", from)
			}
			_, _ = c.Read(make([]byte, 1))
			c.Close()
			l.Close()
		}
		if n++; n == 100 {
			break
		}
	}
}

// A server can be restarted in a test that runs in parallel with others.
func TestAServerThatWasDownGetsItsPortBack(t *testing.T) {
	for _, s := range []*Server{Redis(t), Memcached(t, 64)} {
		for range 3 {
			s.Kill()
			for range 50 {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
			}
			s.Start()
		}
	}
}
