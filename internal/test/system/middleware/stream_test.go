package middleware

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/sojourntest"
)

// chat is the WebSocket handler that the guide shows.
func chat(sessions *sojourn.Manager) http.Handler {
	return sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		conn, err := coder.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go func() {
			select {
			case <-session.Done():
				_ = conn.Close(coder.StatusPolicyViolation, "signed out")
			case <-ctx.Done():
			}
		}()
		for {
			kind, message, err := conn.Read(ctx)
			if err != nil {
				return
			}
			if err := conn.Write(ctx, kind, message); err != nil {
				return
			}
		}
	})
}

func TestAWebSocketEndsWithItsSession(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{Cookie: sojourn.Cookie{Insecure: true}})
	server := httptest.NewServer(chat(sessions))
	defer server.Close()
	login := sojourntest.LoggedIn(t, sessions, "ada", "GET", server.URL, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, _, err := coder.Dial(ctx, strings.Replace(server.URL, "http", "ws", 1), &coder.DialOptions{HTTPHeader: login.Header})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	if err := conn.Write(ctx, coder.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(ctx); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := sessions.RevokeUser(ctx, "ada"); err != nil {
		t.Fatal(err)
	}
	_, _, err = conn.Read(ctx)
	var closed coder.CloseError
	if !errors.As(err, &closed) || closed.Code != coder.StatusPolicyViolation || closed.Reason != "signed out" {
		t.Errorf("after the revocation: %v", err)
	}
}
