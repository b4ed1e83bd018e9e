package adaptertest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
)

// socket is the client's side of a WebSocket (RFC 6455), as far as the checks
// need one: short messages of text, in one frame each.
type socket struct {
	conn net.Conn
	read *bufio.Reader
}

// handshake is the header of a request for a WebSocket.
func handshake(h http.Header) http.Header {
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	h.Set("Sec-WebSocket-Version", "13")
	h.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==") // that of the RFC
	return h
}

// Send sends a message of less than 126 bytes, masked with zeros (section 5.3).
func (s *socket) Send(text string) error {
	frame := append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
	_, err := s.conn.Write(frame)
	return err
}

// Receive returns the next message, and io.EOF when the server has closed.
func (s *socket) Receive() (string, error) {
	for {
		var head [2]byte
		if _, err := io.ReadFull(s.read, head[:]); err != nil {
			return "", fmt.Errorf("%w: %w", io.EOF, err)
		}
		length := uint64(head[1] & 0x7f)
		if length == 126 {
			var long [2]byte
			if _, err := io.ReadFull(s.read, long[:]); err != nil {
				return "", err
			}
			length = uint64(binary.BigEndian.Uint16(long[:]))
		}
		if head[1]&0x80 != 0 || length > 1<<16 {
			return "", fmt.Errorf("adaptertest: an unexpected WebSocket frame: % x", head)
		}
		payload := make([]byte, length)
		if _, err := io.ReadFull(s.read, payload); err != nil {
			return "", err
		}
		switch head[0] & 0x0f {
		case 1, 2: // text, binary
			return string(payload), nil
		case 8: // close
			return "", io.EOF
		}
	}
}
