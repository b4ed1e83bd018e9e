package sojourn_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/sojourn-go/sojourn"
)

// A stream of server-sent events ends when its session ends, on any replica.
func ExampleSession_Done() {
	sessions := manager(sojourn.Config{Cookie: sojourn.Cookie{Insecure: true}})
	prices := make(chan int, 1)
	mux := http.NewServeMux()
	mux.Handle("/login", sessions.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		session.Login("anna")
	}))
	mux.Handle("/prices", sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Accel-Buffering", "no") // nginx would buffer the events
		alive := time.NewTicker(15 * time.Second)
		defer alive.Stop()
		flush := http.NewResponseController(w).Flush
		if err := flush(); err != nil { // the browser learns that it is connected
			return
		}
		for {
			select {
			case p := <-prices:
				fmt.Fprintf(w, "data: %d\n\n", p)
			case <-alive.C: // proxies close idle connections
				fmt.Fprint(w, ": still here\n\n")
			case <-session.Done():
				fmt.Fprintf(w, "event: ended\ndata: %v\n\n", session.Err())
				return
			case <-r.Context().Done(): // the visitor has disconnected
				return
			}
			if err := flush(); err != nil {
				return
			}
		}
	}))
	server := httptest.NewServer(mux)
	defer server.Close()

	in, err := http.Get(server.URL + "/login")
	if err != nil {
		panic(err)
	}
	in.Body.Close()
	request, err := http.NewRequest(http.MethodGet, server.URL+"/prices", nil)
	if err != nil {
		panic(err)
	}
	request.AddCookie(in.Cookies()[0])
	prices <- 42
	stream, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer stream.Body.Close()
	events := bufio.NewReader(stream.Body)
	first, err := events.ReadString('\n')
	if err != nil {
		panic(err)
	}
	fmt.Print(first)
	if _, err := sessions.RevokeUser(request.Context(), "anna"); err != nil {
		panic(err)
	}
	text, err := io.ReadAll(events)
	fmt.Print(string(text), err)
	// Output:
	// data: 42
	//
	// event: ended
	// data: sojourn: the session has ended
	//
	// <nil>
}
