package middleware

import (
	"net/http"
	"strings"
	"testing"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/sojourn-go/sojourn"
)

// echo is a WebSocket server that sets a cookie with its handshake, keeps each
// message in a stored session, and sends it back.
type echo struct {
	t *testing.T
	m *sojourn.Manager
	// upgrade returns functions that receive and send one message.
	upgrade func(http.ResponseWriter, *http.Request) (receive func() (string, error), send func(string) error, err error)
}

func (e echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	session, err := e.m.Get(r.Context())
	if err != nil {
		e.m.ServeError(w, r, err)
		return
	}
	cart.Set(session, 1)
	receive, send, err := e.upgrade(w, r)
	if err != nil {
		return
	}
	for {
		text, err := receive()
		if err != nil {
			return
		}
		cart.Update(session, func(n int) int { return n + len(text) })
		if err := session.Save(r.Context()); err != nil {
			e.t.Errorf("Save: %v", err)
		}
		if err := send(text); err != nil {
			return
		}
	}
}

func withCoder(w http.ResponseWriter, r *http.Request) (func() (string, error), func(string) error, error) {
	conn, err := coder.Accept(w, r, nil)
	if err != nil {
		return nil, nil, err
	}
	return func() (string, error) {
			_, b, err := conn.Read(r.Context())
			return string(b), err
		}, func(text string) error {
			return conn.Write(r.Context(), coder.MessageText, []byte(text))
		}, nil
}

// withGorilla passes the header: gorilla/websocket writes the response itself,
// after Hijack, and ignores w.Header(), where Hijack has put the cookies.
func withGorilla(w http.ResponseWriter, r *http.Request) (func() (string, error), func(string) error, error) {
	var upgrader gorilla.Upgrader
	conn, err := upgrader.Upgrade(w, r, w.Header())
	if err != nil {
		return nil, nil, err
	}
	return func() (string, error) {
			_, b, err := conn.ReadMessage()
			return string(b), err
		}, func(text string) error {
			return conn.WriteMessage(gorilla.TextMessage, []byte(text))
		}, nil
}

func TestWebSocketHandshakesCarryTheCookie(t *testing.T) {
	for name, upgrade := range map[string]func(http.ResponseWriter, *http.Request) (func() (string, error), func(string) error, error){
		"coder": withCoder, "gorilla": withGorilla,
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := newManager(t)
			address := listen(t, m.Wrap(echo{t, m, upgrade}))
			conn, resp, err := gorilla.DefaultDialer.DialContext(t.Context(), strings.Replace(address, "http", "ws", 1), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			wantStatus(t, resp, http.StatusSwitchingProtocols)
			if c := resp.Cookies(); len(c) != 1 || c[0].Name != "__Host-session" {
				t.Errorf("cookies %v", c)
			}
			for _, text := range []string{"hello", "again"} {
				if err := conn.WriteMessage(gorilla.TextMessage, []byte(text)); err != nil {
					t.Fatal(err)
				}
				if _, b, err := conn.ReadMessage(); err != nil || string(b) != text {
					t.Fatalf("read %q, %v", b, err)
				}
			}
			// Other requests see the changes that were saved during the connection.
			check := listen(t, m.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				if got := cart.Get(session); got != 1+len("hello")+len("again") {
					t.Errorf("the cart is %d", got)
				}
			}))
			wantStatus(t, get(t, check, resp), http.StatusOK)
		})
	}
}

func TestAHandshakeWhoseSessionCannotBeKeptFails(t *testing.T) {
	for name, upgrade := range map[string]func(http.ResponseWriter, *http.Request) (func() (string, error), func(string) error, error){
		"coder": withCoder, "gorilla": withGorilla,
	} {
		t.Run(name, func(t *testing.T) {
			m, db := newManager(t)
			db.full.Store(true)
			address := listen(t, m.Wrap(echo{t, m, upgrade}))
			conn, resp, err := gorilla.DefaultDialer.DialContext(t.Context(), strings.Replace(address, "http", "ws", 1), nil)
			if err == nil {
				conn.Close()
				t.Fatal("the handshake succeeded")
			}
			wantStatus(t, resp, http.StatusRequestEntityTooLarge)
			if len(resp.Cookies()) > 0 || resp.Header.Get("Upgrade") != "" {
				t.Errorf("header %v", resp.Header)
			}
		})
	}
}
