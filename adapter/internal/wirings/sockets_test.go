package wirings

import (
	"context"
	"net/http"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/sojourn-go/sojourn/adapter/adaptertest"
)

// upgrader makes what Call.WebSocket is.
type upgrader func(w http.ResponseWriter, r *http.Request) func(serve func(adaptertest.Socket)) error

// withGorilla passes the header: gorilla/websocket writes the response itself
// and ignores w.Header(), where Hijack has put the cookies.
func withGorilla(w http.ResponseWriter, r *http.Request) func(func(adaptertest.Socket)) error {
	return func(serve func(adaptertest.Socket)) error {
		var upgrader gorilla.Upgrader
		conn, err := upgrader.Upgrade(w, r, w.Header())
		if err != nil {
			return nil // it has answered
		}
		defer conn.Close()
		serve(gorillaSocket{conn})
		return nil
	}
}

type gorillaSocket struct{ *gorilla.Conn }

func (s gorillaSocket) Send(text string) error {
	return s.WriteMessage(gorilla.TextMessage, []byte(text))
}

func (s gorillaSocket) Receive() (string, error) {
	_, b, err := s.ReadMessage()
	return string(b), err
}

func withCoder(w http.ResponseWriter, r *http.Request) func(func(adaptertest.Socket)) error {
	return func(serve func(adaptertest.Socket)) error {
		conn, err := coder.Accept(w, r, nil)
		if err != nil {
			return nil // it has answered
		}
		defer func() { _ = conn.CloseNow() }()
		serve(coderSocket{conn, r.Context()})
		return nil
	}
}

type coderSocket struct {
	conn *coder.Conn
	ctx  context.Context
}

func (s coderSocket) Send(text string) error {
	return s.conn.Write(s.ctx, coder.MessageText, []byte(text))
}

func (s coderSocket) Receive() (string, error) {
	_, b, err := s.conn.Read(s.ctx)
	return string(b), err
}

func (s coderSocket) Close() error { return s.conn.CloseNow() }
