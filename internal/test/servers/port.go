//go:build linux

package servers

import (
	"net"
	"strconv"
	"syscall"
)

// Port returns a TCP port of 127.0.0.1 that the kernel has chosen, and keeps it
// for the test: as long as a socket is bound to it, the kernel does not choose
// it for another program or a connection. A server may listen there, stop, and
// listen again, because that socket does not listen, and both set SO_REUSEADDR,
// as servers do.
func Port(t TB) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("reserve a port: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatalf("reserve a port: %v", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatalf("reserve a port: %v", err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatalf("reserve a port: %v", err)
	}
	return at.(*syscall.SockaddrInet4).Port
}

// addr is the address of a port.
func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
