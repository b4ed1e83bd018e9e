package adaptertest

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
)

// socket is the client's side of a WebSocket (RFC 6455), with only the features
// that the checks need: short text messages, in one frame each.
type socket struct {
	status int // of the handshake
	conn   net.Conn
	read   *bufio.Reader
}

// upgrade requests a WebSocket, on a new connection, and returns the answer's
// header, whatever its status.
func (c *httpClient) upgrade(ctx context.Context, r Request) (http.Header, *socket, error) {
	request, err := c.request(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "websocket")
	request.Header.Set("Sec-WebSocket-Version", "13")
	request.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==") // the example of the RFC
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", request.URL.Host)
	if err != nil {
		return nil, nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(deadline)
	}
	if err == nil {
		err = request.Write(conn)
	}
	read := bufio.NewReader(conn)
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(read, request) //nolint:bodyclose // it is the connection
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return resp.Header, &socket{resp.StatusCode, conn, read}, nil
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
