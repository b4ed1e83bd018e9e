package adaptertest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/ops"
)

// check is one promise that a wiring can break.
type check struct {
	name  string
	needs []Ability
	run   func(t *suite)
}

var checks = []check{
	{"a request that does not ask for its session is free", nil, untouched},
	{"a session is there in the next request", nil, kept},
	{"visitors who share connections are not mixed up", nil, manyVisitors},
	{"64 parallel updates of one session are exact", nil, parallel},
	{"what a session notes of its request stays as it was", nil, noted},
	{"a response that depends on its session limits caching", []Ability{Caching}, cached},
	{"a commit that fails is answered with an error", nil, commitFails},
	{"a session that cannot be loaded is an error", nil, loadFails},
	{"a logout is final against a slower request", nil, logoutIsFinal},
	{"an answer of 500 or above keeps nothing but a logout", []Ability{Statuses}, serverErrors},
	{"an answer below 500 keeps what the handler changed", []Ability{Statuses}, otherStatuses},
	{"an error that the handler returns keeps nothing but a logout", []Ability{Errors}, returnedErrors},
	{"a panic keeps nothing but a logout, and ends no other request", []Ability{Panics}, panics},
	{"what a handler changes is kept although the client has gone", nil, clientGone},
	{"a stream sends the cookie first and each line at once", []Ability{Streams}, streamAtOnce},
	{"a stream whose session cannot be kept is an error", []Ability{Streams}, streamFails},
	{"a stream keeps what it saves on the way and at its end", []Ability{Streams}, streamSaves},
	{"a stream ends with its session", []Ability{Streams}, streamEnds},
	{"a stream whose client has gone leaves nothing behind", []Ability{Streams}, streamLeft},
	{"a WebSocket handshake carries the cookie", []Ability{WebSockets}, socketCookie},
	{"a WebSocket whose session cannot be kept is refused", []Ability{WebSockets}, socketFails},
	{"a WebSocket ends with its session", []Ability{WebSockets}, socketEnds},
	{"a connection that is taken over has the cookie", []Ability{Hijacking, Statuses}, hijacked},
	{"a big file arrives whole", []Ability{Files}, bigFile},
	{"a body that is too long is answered 413 and ends the connection", []Ability{BodyLimits, Statuses}, longBody},
}

func untouched(t *suite) {
	s := t.start(func(s *site, call *Call) error {
		if call.Param("do") == "begin" {
			session, err := s.sessions.Get(call.Context)
			if err != nil {
				return err
			}
			cart.Set(session, 1)
		}
		return call.Respond(http.StatusOK, "ok")
	})
	stranger, customer := s.visitor(), s.visitor()
	customer.does("begin")
	before := s.store.Calls()
	for _, v := range []*visitor{stranger, customer} {
		a := v.does("")
		if a.cookies > 0 {
			t.Errorf("the answer sets %d cookies", a.cookies)
		}
		if vary := strings.Join(a.header.Values("Vary"), ","); strings.Contains(strings.ToLower(vary), "cookie") {
			t.Errorf("the answer has Vary: %s", vary)
		}
		if cc := strings.Join(a.header.Values("Cache-Control"), ","); strings.Contains(cc, "private") {
			t.Errorf("the answer has Cache-Control: %s", cc)
		}
	}
	if n := s.store.Calls() - before; n > 0 {
		t.Errorf("the store was asked %d times", n)
	}
}

func kept(t *suite) {
	s := t.serve(map[string]visit{
		"theme": func(call *Call, session *sojourn.Session) error {
			theme.Set(session, "dark")
			return call.Respond(http.StatusOK, "ok")
		},
		"cart": func(call *Call, session *sojourn.Session) error {
			cart.Update(session, func(n int) int { return n + 1 })
			return call.Respond(http.StatusOK, "ok")
		},
	})
	v := s.visitor()
	if v.does("theme").cookies == 0 {
		t.Error("the first value sets no cookie")
	}
	v.has(state{theme: "dark"}, "after a value that is in the cookie")
	v.does("cart")
	v.does("cart")
	v.has(state{cart: 2, theme: "dark"}, "after values that are in the store")
	before := v.copy()
	v.does("login", "user", "ada")
	v.has(state{"ada", 1, "dark"}, "after a login")
	before.has(state{}, "with the cookies from before the login")
	v.does("logout")
	if len(v.cookies) > 0 {
		t.Error("the logout leaves a cookie in the browser")
	}
}

func manyVisitors(t *suite) {
	s := t.serve(nil)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			v, name := s.visitor(), fmt.Sprintf("user %d", i)
			if a := v.ask(params("login", "user", name)); a.failed {
				t.Errorf("the login of %s failed: %d %s", name, a.status, a.text)
				return
			}
			for range 8 {
				want := state{user: name, cart: 1}.text()
				if a := v.ask(nil); a.failed || !strings.Contains(a.text, want) {
					t.Errorf("%s was answered %d %s", name, a.status, a.text)
				}
			}
		})
	}
	all.Wait()
}

func parallel(t *suite) {
	s := t.serve(map[string]visit{"add": func(call *Call, session *sojourn.Session) error {
		cart.Update(session, func(n int) int { return n + 1 })
		return call.Respond(http.StatusOK, "ok")
	}})
	v := s.newCustomer()
	var all sync.WaitGroup
	for range 64 {
		tab := v.copy()
		all.Go(func() {
			if a := tab.ask(params("add")); a.failed {
				t.Errorf("an update failed: %d %s", a.status, a.text)
			}
		})
	}
	all.Wait()
	v.has(state{user: "ada", cart: 65}, "after 64 updates of 1")
}

// noted finds servers that reuse the memory of a request's header while the
// session still points to it.
func noted(t *suite) {
	s := t.serve(nil)
	for i := range 8 {
		v := s.visitor()
		v.agent = "agent " + strconv.Itoa(i)
		v.does("login", "user", "user"+strconv.Itoa(i))
	}
	for i := range 8 {
		list, err := s.sessions.Sessions(t.ctx, "user"+strconv.Itoa(i))
		if err != nil || len(list) != 1 {
			t.Fatalf("user %d has %d sessions, %v", i, len(list), err)
		}
		if got, want := list[0].UserAgent, "agent "+strconv.Itoa(i); !strings.Contains(got, want) {
			t.Errorf("the session of %q has the user agent %q", want, got)
		}
	}
}

func cached(t *suite) {
	s := t.serve(nil)
	for _, v := range []*visitor{s.visitor(), s.newCustomer()} {
		a := v.does("")
		if vary := a.header.Values("Vary"); len(vary) != 1 || !strings.Contains(strings.ToLower(vary[0]), "cookie") {
			t.Errorf("the answer has the Vary lines %q, want one, with Cookie", vary)
		}
		if cc := strings.Join(a.header.Values("Cache-Control"), ","); !strings.Contains(cc, "private") && !strings.Contains(cc, "no-store") {
			t.Errorf("the answer has Cache-Control: %q, want private", cc)
		}
	}
}

func commitFails(t *suite) {
	const page = "this page says that all is well"
	s := t.serve(map[string]visit{"change": func(call *Call, session *sojourn.Session) error {
		cart.Set(session, 7)
		return call.Respond(http.StatusOK, page)
	}})
	customer := s.newCustomer()
	for _, v := range []*visitor{s.visitor(), customer} {
		s.store.SaveDown.Store(true)
		a := v.ask(params("change"))
		s.store.SaveDown.Store(false)
		t.wants(a, http.StatusServiceUnavailable)
		if strings.Contains(a.text, page) {
			t.Errorf("the handler's own answer is in it: %s", a.text)
		}
		if a.cookies > 0 {
			t.Error("the answer sets a cookie")
		}
	}
	customer.has(state{user: "ada", cart: 1}, "after a commit that failed")
}

func loadFails(t *suite) {
	s := t.serve(nil)
	v := s.newCustomer()
	s.store.Down.Store(true)
	a := v.ask(nil)
	s.store.Down.Store(false)
	t.wants(a, http.StatusServiceUnavailable)
	if a.cookies > 0 {
		t.Error("the answer sets a cookie")
	}
	v.has(state{user: "ada", cart: 1}, "when the store is back")
}

func logoutIsFinal(t *suite) {
	begun, leave := make(chan struct{}), make(chan struct{})
	s := t.serve(map[string]visit{"slow": func(call *Call, session *sojourn.Session) error {
		close(begun)
		if err := t.await("the logout beside a slow request", leave); err != nil {
			return err
		}
		cart.Set(session, 7)
		return call.Respond(http.StatusOK, "kept")
	}})
	v := s.newCustomer()
	old, slow := v.copy(), v.copy()
	done := make(chan answer, 1)
	go func() { done <- slow.ask(params("slow")) }()
	t.wait("the slow request's beginning", begun)
	v.does("logout")
	close(leave)
	select {
	case a := <-done:
		t.wants(a, http.StatusConflict, http.StatusUnauthorized)
	case <-t.ctx.Done():
		t.Fatal("the slow request is not answered")
	}
	for why, v := range map[string]*visitor{
		"the browser after its logout": v, "the previous cookies": old, "the cookies of the slow answer": slow,
	} {
		v.has(state{}, why)
	}
}

// keepsOnlyLogout checks a failing request: its changes are not kept, but a
// logout is.
func (s *site) keepsOnlyLogout(do string, status int) {
	s.Helper()
	v := s.newCustomer()
	p := params(do, "status", strconv.Itoa(status))
	a := v.ask(p)
	s.wants(a, status)
	v.has(state{user: "ada", cart: 1}, fmt.Sprintf("after a change in a call that failed with %d", status))

	stranger := s.visitor()
	s.wants(stranger.ask(p), status)
	if len(stranger.cookies) > 0 {
		s.Error("a new visitor gets a cookie from a call that failed")
	}

	old := v.copy()
	p["leave"] = "yes"
	s.wants(v.ask(p), status)
	if len(v.cookies) > 0 {
		s.Errorf("a logout in a call that failed with %d leaves the cookie", status)
	}
	old.has(state{}, "after a logout in a call that failed")
}

// change changes the session in a way that must be lost, or logs out.
func change(call *Call, session *sojourn.Session) {
	cart.Set(session, 7)
	theme.Set(session, "dark")
	if call.Param("leave") != "" {
		session.Logout()
	}
}

func serverErrors(t *suite) {
	s := t.serve(map[string]visit{"answer": func(call *Call, session *sojourn.Session) error {
		change(call, session)
		status, err := strconv.Atoi(call.Param("status"))
		if err != nil {
			return err
		}
		return call.Respond(status, "the handler's own page")
	}})
	for _, status := range []int{500, 503} {
		s.keepsOnlyLogout("answer", status)
	}
}

func otherStatuses(t *suite) {
	s := t.serve(map[string]visit{"answer": func(call *Call, session *sojourn.Session) error {
		cart.Update(session, func(n int) int { return n + 1 })
		status, err := strconv.Atoi(call.Param("status"))
		if err != nil {
			return err
		}
		return call.Respond(status, "the handler's own page")
	}})
	v := s.newCustomer()
	for i, status := range []int{201, 303, 404, 422, 499} {
		if a := v.ask(params("answer", "status", strconv.Itoa(status))); a.status != status {
			t.Errorf("the status is %d, want %d", a.status, status)
		}
		v.has(state{user: "ada", cart: 2 + i}, fmt.Sprintf("after an answer %d", status))
	}
}

func returnedErrors(t *suite) {
	s := t.serve(map[string]visit{"fail": func(call *Call, session *sojourn.Session) error {
		change(call, session)
		if status, err := strconv.Atoi(call.Param("status")); err == nil && status != 500 {
			return StatusError{status}
		}
		return errApp
	}})
	for _, status := range []int{500, 404, 422, 503} {
		s.keepsOnlyLogout("fail", status)
	}
}

func panics(t *suite) {
	s := t.serve(map[string]visit{"panic": func(call *Call, session *sojourn.Session) error {
		change(call, session)
		if call.Param("abort") != "" {
			panic(http.ErrAbortHandler)
		}
		panic("adaptertest: a panic on purpose")
	}})
	v := s.newCustomer()
	for _, p := range []map[string]string{params("panic"), params("panic", "abort", "yes")} {
		t.wants(v.ask(p))
		v.has(state{user: "ada", cart: 1}, "after a panic")
	}
	// Its cookies may or may not have reached the client.
	t.wants(v.ask(params("panic", "leave", "yes")))
	v.has(state{}, "after a logout and a panic")
}

// clientGone checks that a commit continues after the client has disconnected.
func clientGone(t *suite) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	s := t.serve(map[string]visit{"slow": func(call *Call, session *sojourn.Session) error {
		close(begun)
		if err := t.await("the client's going", goOn); err != nil {
			return err
		}
		cart.Set(session, 7)
		_ = call.Respond(http.StatusOK, "nobody reads this")
		return nil
	}})
	v := s.newCustomer()
	ctx, hangUp := context.WithCancel(t.ctx)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		a, err := s.client.Send(ctx, Request{Header: v.header(), Params: params("slow")})
		if err == nil {
			a.Body.Close()
		}
	}()
	t.wait("the request's beginning", begun)
	hangUp()
	t.wait("the end of the client's call", gone)
	close(goOn)
	want := state{user: "ada", cart: 7}.text()
	t.eventually("what the handler changed is kept", func() bool {
		a := v.ask(nil)
		return !a.failed && strings.Contains(a.text, want)
	})
}

func streamAtOnce(t *suite) {
	more := make(chan struct{})
	s := t.serve(map[string]visit{"stream": func(call *Call, session *sojourn.Session) error {
		theme.Set(session, "dark")
		return call.Stream(func(send func(string) error) error {
			if err := send("first line"); err != nil {
				return err
			}
			if err := t.await("that the client has read the first line", more); err != nil {
				return err
			}
			return send("second line")
		})
	}})
	v := s.visitor()
	events := v.open(params("stream"))
	if events.answer.Failed || len(v.cookies) == 0 {
		t.Errorf("the header has status %d and %d cookies", events.answer.Status, len(v.cookies))
	}
	events.expect("first line")
	v.has(state{theme: "dark"}, "while the stream goes on")
	close(more)
	events.expect("second line")
	events.rest()
}

func streamFails(t *suite) {
	s := t.serve(map[string]visit{"stream": func(call *Call, session *sojourn.Session) error {
		cart.Set(session, 7)
		return call.Stream(func(send func(string) error) error { return send("all is well") })
	}})
	v := s.newCustomer()
	s.store.SaveDown.Store(true)
	a := v.ask(params("stream"))
	s.store.SaveDown.Store(false)
	t.wants(a, http.StatusServiceUnavailable)
	if strings.Contains(a.text, "all is well") {
		t.Errorf("a line of the stream is in it: %q", a.text)
	}
	v.has(state{user: "ada", cart: 1}, "after a stream that could not begin")
}

func streamSaves(t *suite) {
	more := make(chan struct{})
	s := t.serve(map[string]visit{"stream": func(call *Call, session *sojourn.Session) error {
		return call.Stream(func(send func(string) error) error {
			if err := send("begun"); err != nil {
				return err
			}
			cart.Set(session, 5)
			if err := session.Save(context.WithoutCancel(call.Context)); err != nil {
				t.Errorf("Save in a stream: %v", err)
			}
			if err := send("saved"); err != nil {
				return err
			}
			if err := t.await("that the client has looked", more); err != nil {
				return err
			}
			cart.Set(session, 6)
			return nil
		})
	}})
	v := s.newCustomer()
	events := v.open(params("stream"))
	events.expect("saved")
	v.has(state{user: "ada", cart: 5}, "after a Save in a stream")
	close(more)
	events.rest()
	want := state{user: "ada", cart: 6}.text()
	t.eventually("what the stream changed last is kept", func() bool {
		return strings.Contains(v.does("").text, want)
	})
}

func streamEnds(t *suite) {
	s := t.serve(map[string]visit{"stream": func(call *Call, session *sojourn.Session) error {
		return call.Stream(func(send func(string) error) error {
			if err := send("begun"); err != nil {
				return err
			}
			select {
			case <-session.Done():
				return send(fmt.Sprintf("ended: %v", session.Err()))
			case <-t.ctx.Done():
				return t.ctx.Err()
			}
		})
	}})
	revoked, left := s.newCustomer(), s.newCustomer()
	first, second := revoked.open(params("stream")), left.open(params("stream"))
	first.expect("begun")
	second.expect("begun")
	left.does("logout")
	second.expect("ended: " + sojourn.ErrEnded.Error())
	second.rest()
	if _, err := s.sessions.RevokeUser(t.ctx, "ada"); err != nil {
		t.Fatal(err)
	}
	first.expect("ended: " + sojourn.ErrEnded.Error())
	first.rest()
}

func streamLeft(t *suite) {
	ended := make(chan struct{})
	s := t.serve(map[string]visit{"stream": func(call *Call, session *sojourn.Session) error {
		return call.Stream(func(send func(string) error) error {
			defer close(ended)
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				if err := send("still here"); err != nil {
					return err
				}
				select {
				case <-tick.C:
				case <-call.Context.Done():
					return call.Context.Err()
				case <-session.Done():
					t.Error("the session has ended")
					return session.Err()
				}
			}
		})
	}})
	v := s.newCustomer()
	events := v.open(params("stream"))
	events.expect("still here")
	events.expect("still here")
	if n := ops.For(s.sessions).Streams(); n != 1 {
		t.Errorf("%d streams wait for the end of their session, want 1", n)
	}
	events.hangUp()
	t.wait("the end of a stream whose client has gone", ended)
	t.eventually("the stream's watch of its session is released", func() bool {
		return ops.For(s.sessions).Streams() == 0
	})
	v.has(state{user: "ada", cart: 1}, "after the stream")
}

// dial requests a WebSocket, keeps the answer's cookies, and returns its status.
func (v *visitor) dial(p map[string]string) (status int, opened *socket) {
	v.s.Helper()
	client, ok := v.s.client.(*httpClient)
	if !ok {
		v.s.Fatal("the client is not that of the function HTTP, so there are no WebSockets, and Wiring.Cannot does not say so")
	}
	header, opened, err := client.upgrade(v.s.ctx, Request{Header: v.header(), Params: p})
	if err != nil {
		v.s.Fatalf("asking for a WebSocket: %v", err)
	}
	v.s.Cleanup(func() { opened.conn.Close() })
	v.keep(header)
	return opened.status, opened
}

// chat is a WebSocket: it adds up the lengths of the messages, and ends with
// the session.
func chat(call *Call, session *sojourn.Session) error {
	theme.Set(session, "dark")
	return call.WebSocket(func(socket Socket) {
		over, left := make(chan struct{}), make(chan struct{})
		defer func() { close(over); <-left }() // return the connection to the server
		go func() {
			defer close(left)
			select {
			case <-session.Done():
				_ = socket.Close() // so that Receive returns
			case <-over:
			}
		}()
		for {
			text, err := socket.Receive()
			if err != nil {
				return
			}
			answer := "kept " + text
			cart.Update(session, func(n int) int { return n + len(text) })
			if err := session.Save(context.WithoutCancel(call.Context)); err != nil {
				answer = err.Error()
			}
			if err := socket.Send(answer); err != nil {
				return
			}
		}
	})
}

func (s *socket) says(t *suite, text, want string) {
	t.Helper()
	if err := s.Send(text); err != nil {
		t.Fatalf("sending a message: %v", err)
	}
	if got, err := s.Receive(); err != nil || got != want {
		t.Fatalf("the message %q is answered %q, %v", text, got, err)
	}
}

func socketCookie(t *suite) {
	s := t.serve(map[string]visit{"chat": chat})
	v := s.visitor()
	status, socket := v.dial(params("chat"))
	if status != http.StatusSwitchingProtocols || len(v.cookies) == 0 {
		t.Fatalf("the handshake is answered %d, with %d cookies", status, len(v.cookies))
	}
	v.has(state{theme: "dark"}, "while the connection is open")
	socket.conn.Close()

	v = s.newCustomer()
	_, socket = v.dial(params("chat"))
	socket.says(t, "hello", "kept hello")
	v.has(state{"ada", 6, "dark"}, "after a message that was saved")
}

func socketFails(t *suite) {
	s := t.serve(map[string]visit{"chat": chat})
	v := s.newCustomer()
	s.store.SaveDown.Store(true)
	status, _ := v.dial(params("chat"))
	s.store.SaveDown.Store(false)
	if status != http.StatusServiceUnavailable {
		t.Errorf("the handshake is answered %d", status)
	}
	v.has(state{user: "ada", cart: 1}, "after a handshake that failed")
}

func socketEnds(t *suite) {
	s := t.serve(map[string]visit{"chat": chat})
	v := s.newCustomer()
	_, socket := v.dial(params("chat"))
	socket.says(t, "hello", "kept hello")
	v.does("logout")
	if text, err := socket.Receive(); err == nil {
		t.Errorf("after the logout a message comes: %q", text)
	} else if t.ctx.Err() != nil {
		t.Errorf("after the logout the connection stays open: %v", err)
	}
	t.eventually("the connection's watch of its session is released", func() bool {
		return ops.For(s.sessions).Streams() == 0
	})
}

func hijacked(t *suite) {
	s := t.serve(map[string]visit{"hijack": func(call *Call, session *sojourn.Session) error {
		theme.Set(session, "dark")
		conn, rw, header, err := call.Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		header = header.Clone()
		header.Set("Connection", "close")
		header.Set("Content-Length", "2")
		fmt.Fprint(rw, "HTTP/1.1 200 OK\r\n")
		_ = header.Write(rw)
		fmt.Fprint(rw, "\r\nok")
		_ = rw.Flush()
		return nil
	}})
	v := s.visitor()
	if a := v.ask(params("hijack")); a.status != http.StatusOK || a.text != "ok" || a.cookies == 0 {
		t.Errorf("the answer is %d %q, with %d cookies", a.status, a.text, a.cookies)
	}
	v.has(state{theme: "dark"}, "after the connection was taken over")

	v = s.newCustomer()
	s.store.SaveDown.Store(true)
	a := v.ask(params("hijack"))
	s.store.SaveDown.Store(false)
	t.wants(a, http.StatusServiceUnavailable)
	v.has(state{user: "ada", cart: 1}, "after a connection that could not be taken over")
}

func bigFile(t *suite) {
	content := bytes.Repeat([]byte("sixteen letters\n"), 1<<18) // 4 MiB
	path := filepath.Join(t.TempDir(), "big.bin")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s := t.start(func(s *site, call *Call) error {
		if call.Param("do") == "session" {
			session, err := s.sessions.Get(call.Context)
			if err != nil {
				return err
			}
			theme.Set(session, "dark")
		}
		return call.File(path)
	})
	for _, do := range []string{"", "session"} {
		a := s.visitor().does(do)
		if sha256.Sum256([]byte(a.text)) != sha256.Sum256(content) {
			t.Errorf("the file arrives with %d bytes, want %d, or others", len(a.text), len(content))
		}
		if (a.cookies > 0) != (do == "session") {
			t.Errorf("with a session %v the answer sets %d cookies", do == "session", a.cookies)
		}
	}
}

func longBody(t *suite) {
	s := t.serve(map[string]visit{"upload": func(call *Call, session *sojourn.Session) error {
		cart.Update(session, func(n int) int { return n + 1 })
		body, err := call.Body(1000)
		if err != nil {
			return call.Respond(http.StatusRequestEntityTooLarge, "too long")
		}
		return call.Respond(http.StatusOK, strconv.Itoa(len(body)))
	}})
	v := s.newCustomer()
	short := v.send(Request{Header: v.header(), Params: params("upload"), Body: strings.NewReader(strings.Repeat("x", 1000))})
	if short.failed || !strings.Contains(short.text, "1000") || short.closes {
		t.Errorf("a body of 1000 bytes is answered %d %s", short.status, short.text)
	}
	long := v.send(Request{Header: v.header(), Params: params("upload"), Body: strings.NewReader(strings.Repeat("x", 2000))})
	if long.status != http.StatusRequestEntityTooLarge || !long.closes {
		t.Errorf("a body of 2000 bytes is answered %d %s, connection closed: %v", long.status, long.text, long.closes)
	}
	v.has(state{user: "ada", cart: 3}, "after both")
}
