package sojourngqlgen_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adapter/adaptertest"
	sojourngqlgen "github.com/sojourn-go/sojourn/adapter/gqlgen"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// resolvers are those of a schema without generated code. An operation gets its
// variable p.
type resolvers struct {
	query    func(ctx context.Context, params map[string]any) (string, error)
	mutation func(ctx context.Context, params map[string]any) (string, error)
	watch    func(ctx context.Context, params map[string]any) (<-chan string, error)
}

var schema = gqlparser.MustLoadSchema(&ast.Source{Input: `
	scalar Map
	type Query { do(p: Map): String }
	type Mutation { do(p: Map): String }
	type Subscription { watch(p: Map): String }
`})

const (
	query        = `query($p: Map) { do(p: $p) }`
	mutation     = `mutation($p: Map) { do(p: $p) }`
	subscription = `subscription($p: Map) { watch(p: $p) }`
)

// Schema implements [graphql.ExecutableSchema].
func (r *resolvers) Schema() *ast.Schema { return schema }

// Complexity implements [graphql.ExecutableSchema].
func (r *resolvers) Complexity(context.Context, string, string, int, map[string]any) (int, bool) {
	return 0, false
}

// Exec implements [graphql.ExecutableSchema], as generated code does.
func (r *resolvers) Exec(ctx context.Context) graphql.ResponseHandler {
	op := graphql.GetOperationContext(ctx)
	params, _ := op.Variables["p"].(map[string]any)
	resolve := r.query
	switch op.Operation.Operation {
	case ast.Subscription:
		return r.subscribe(ctx, params)
	case ast.Mutation:
		resolve = r.mutation
	}
	ran := false
	return func(ctx context.Context) *graphql.Response {
		if ran {
			return nil
		}
		ran = true
		var text *string
		func() {
			defer func() {
				if p := recover(); p != nil {
					graphql.AddError(ctx, op.Recover(ctx, p))
				}
			}()
			answer, err := resolve(ctx, params)
			if err != nil {
				graphql.AddError(ctx, err)
				return
			}
			text = &answer
		}()
		return data("do", text)
	}
}

func (r *resolvers) subscribe(ctx context.Context, params map[string]any) graphql.ResponseHandler {
	events, err := r.watch(ctx, params)
	if err != nil {
		graphql.AddError(ctx, err)
		return nil
	}
	return func(context.Context) *graphql.Response {
		select {
		case event, ok := <-events:
			if !ok {
				return nil
			}
			return data("watch", &event)
		case <-ctx.Done():
			return nil
		}
	}
}

func data(field string, text *string) *graphql.Response {
	b, err := json.Marshal(map[string]*string{field: text})
	if err != nil {
		panic(err)
	}
	return &graphql.Response{Data: b}
}

func newServer(r *resolvers, extensions ...graphql.HandlerExtension) *handler.Server {
	server := handler.New(r)
	server.AddTransport(transport.Websocket{})
	server.AddTransport(transport.SSE{})
	server.AddTransport(transport.POST{})
	for _, e := range extensions {
		server.Use(e)
	}
	server.SetRecoverFunc(func(context.Context, any) error { return errors.New("panic") })
	return server
}

func serve(t testing.TB, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// answer is a response.
type answer struct {
	Data   struct{ Do, Watch string }
	Errors gqlerror.List
	header http.Header
}

func (a *answer) code() string {
	if len(a.Errors) == 0 {
		return ""
	}
	code, _ := a.Errors[0].Extensions["code"].(string)
	return code + ": " + a.Errors[0].Message
}

func post(ctx context.Context, url, operation string, params map[string]string, header http.Header, accept string) (*http.Response, error) {
	body, err := json.Marshal(map[string]any{"query": operation, "variables": map[string]any{"p": params}})
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if header != nil {
		r.Header = header.Clone()
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", accept)
	return http.DefaultClient.Do(r)
}

func call(ctx context.Context, url, operation string, params map[string]string, header http.Header) (*answer, error) {
	resp, err := post(ctx, url, operation, params, header, "application/json")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	a := &answer{header: resp.Header}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return a, json.NewDecoder(resp.Body).Decode(a)
}

func TestSuite(t *testing.T) {
	for name, operation := range map[string]string{"queries": query, "mutations": mutation} {
		t.Run(name, func(t *testing.T) {
			adaptertest.Run(t, adaptertest.Wiring{
				Start: func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
					do := func(ctx context.Context, params map[string]any) (text string, err error) {
						err = app(&adaptertest.Call{
							Context: ctx,
							Param:   func(name string) string { s, _ := params[name].(string); return s },
							Respond: func(_ int, t string) error { text = t; return nil },
						})
						return text, err
					}
					server := newServer(&resolvers{query: do, mutation: do}, sojourngqlgen.New(sessions))
					return client{serve(t, sessions.Wrap(server)), operation}
				},
				Cannot: map[adaptertest.Ability]string{
					adaptertest.Statuses: "every answer is 200", adaptertest.Files: "answers are JSON",
					adaptertest.Streams:    "the header of a subscription is out before its resolver runs",
					adaptertest.WebSockets: "subscriptions have their own", adaptertest.Hijacking: "subscriptions have their own",
					adaptertest.BodyLimits: "bodies are those of operations",
				},
			})
		})
	}
}

type client struct{ url, operation string }

func (c client) Send(ctx context.Context, r adaptertest.Request) (*adaptertest.Answer, error) {
	a, err := call(ctx, c.url, c.operation, r.Params, r.Header)
	if err != nil {
		return nil, err
	}
	return &adaptertest.Answer{
		Failed: len(a.Errors) > 0,
		Header: a.header,
		Body:   io.NopCloser(strings.NewReader(a.Data.Do + a.code())),
	}, nil
}

// shop is a site with a schema. Operations put 2 into the cart, or carry out p,
// and then the test's function.
type shop struct {
	*sitetest.Lab
	url string
	end func(ctx context.Context, session *sojourn.Session) error
	// events are those of subscriptions.
	events chan string
}

func newShop(t *testing.T, end func(ctx context.Context, session *sojourn.Session) error, more ...graphql.HandlerExtension) *shop {
	t.Helper()
	s := &shop{Lab: sitetest.NewLab(t), end: end, events: make(chan string)}
	do := func(ctx context.Context, params map[string]any) (string, error) {
		session, err := s.Get(ctx)
		if err != nil {
			return "", err
		}
		switch params["do"] {
		case "logout":
			session.Logout()
		case "login":
			session.Login("anna")
		case "count":
			sitetest.CartKey.Update(session, sitetest.AddOne)
		default:
			sitetest.CartKey.Set(session, 2)
		}
		if params["fail"] != nil {
			return "", errors.New("broken")
		}
		if s.end != nil {
			err = s.end(ctx, session)
		}
		return "all is well", err
	}
	r := &resolvers{query: do, mutation: do, watch: func(context.Context, map[string]any) (<-chan string, error) { return s.events, nil }}
	s.url = serve(t, s.Wrap(newServer(r, append([]graphql.HandlerExtension{sojourngqlgen.New(s.Manager)}, more...)...)))
	return s
}

// visitor returns a guest who has 1 in the cart, and the header that sends the
// guest's cookies.
func (s *shop) visitor() (*sitetest.Guest, http.Header) {
	v := sitetest.NewGuest(s.T)
	s.Do(v, func(session *sojourn.Session) {
		session.Login("bert")
		sitetest.CartKey.Set(session, 1)
	})
	return v, http.Header{"Cookie": {v.Header()}}
}

func (s *shop) cart(v *sitetest.Guest) (n int) {
	s.T.Helper()
	s.Do(v, func(session *sojourn.Session) { n = sitetest.CartKey.Get(session) })
	return n
}

func (s *shop) call(operation string, params map[string]string, header http.Header) *answer {
	s.T.Helper()
	a, err := call(s.T.Context(), s.url, operation, params, header)
	if err != nil {
		s.T.Fatal(err)
	}
	return a
}

// later is an extension that adds an error to every response.
type later struct{}

func (later) ExtensionName() string                   { return "Later" }
func (later) Validate(graphql.ExecutableSchema) error { return nil }
func (later) InterceptResponse(ctx context.Context, next graphql.ResponseHandler) *graphql.Response {
	resp := next(ctx)
	resp.Errors = append(resp.Errors, gqlerror.Errorf("too complex"))
	return resp
}

func TestWhatAnOperationKeeps(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(context.Context, *sojourn.Session) error
		more []graphql.HandlerExtension
		fail bool
		kept bool
	}{
		"no errors": {nil, nil, false, true},
		"an error":  {func(context.Context, *sojourn.Session) error { return errors.New("broken") }, nil, true, false},
		"an error beside data": {func(ctx context.Context, _ *sojourn.Session) error {
			graphql.AddErrorf(ctx, "half broken")
			return nil
		}, nil, true, false},
		"a panic":                  {func(context.Context, *sojourn.Session) error { panic("broken") }, nil, true, false},
		"an error of an extension": {nil, []graphql.HandlerExtension{later{}}, true, false},
		"Fail":                     {func(ctx context.Context, _ *sojourn.Session) error { sojourn.Fail(ctx); return nil }, nil, false, false},
		"Save, then an error": {func(ctx context.Context, s *sojourn.Session) error {
			return errors.Join(s.Save(ctx), errors.New("broken"))
		}, nil, true, true},
	} {
		s := newShop(t, test.end, test.more...)
		for _, operation := range []string{query, mutation} {
			v, h := s.visitor()
			if a := s.call(operation, nil, h); len(a.Errors) > 0 != test.fail {
				t.Errorf("%s: the errors are %v", name, a.Errors)
			}
			if got := s.cart(v); (got == 2) != test.kept {
				t.Errorf("%s: the cart is %d", name, got)
			}
			a := s.call(operation, map[string]string{"do": "logout"}, h)
			if live := sitetest.Rows(t, s.Store); live != 0 || len(a.header["Set-Cookie"]) != 1 {
				t.Errorf("%s: after a logout %d sessions are live, and the header is %v", name, live, a.header)
			}
		}
	}
}

func TestACommitThatFailsIsAnErrorOfTheResponse(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*shop, *sojourn.Session)
		err  error
		code string
	}{
		"the store is down": {func(s *shop, _ *sojourn.Session) { s.Store.SaveDown.Store(true) }, sojourn.ErrUnavailable, "UNAVAILABLE"},
		"too large": {func(_ *shop, session *sojourn.Session) {
			sitetest.Essay.Set(session, strings.Repeat("x", 4<<20))
		}, sojourn.ErrTooLarge, "TOO_LARGE"},
		"ended meanwhile": {func(s *shop, _ *sojourn.Session) {
			if _, err := s.RevokeUser(t.Context(), "bert"); err != nil {
				t.Error(err)
			}
		}, sojourn.ErrEnded, "CONFLICT"},
	} {
		s := newShop(t, nil)
		s.end = func(_ context.Context, session *sojourn.Session) error { test.end(s, session); return nil }
		_, text := sojourn.ErrorStatus(test.err)
		for _, operation := range []string{query, mutation} {
			v, h := s.visitor()
			a := s.call(operation, nil, h)
			if a.code() != test.code+": "+text || a.Data.Do != "" {
				t.Errorf("%s: %q, the errors are %v", name, a.Data.Do, a.Errors)
			}
			s.Store.SaveDown.Store(false)
			if got := s.cart(v); got > 1 {
				t.Errorf("%s: the cart is %d", name, got)
			}
		}
	}
}

func TestAnOperationThatDoesNotAskLoadsNothing(t *testing.T) {
	s := sitetest.NewLab(t)
	r := &resolvers{query: func(context.Context, map[string]any) (string, error) { return "public", nil }}
	url := serve(t, s.Wrap(newServer(r, sojourngqlgen.New(s.Manager))))
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	calls := s.Calls()
	a, err := call(t.Context(), url, query, nil, http.Header{"Cookie": {v.Header()}})
	if err != nil || s.Calls() > calls || a.header.Get("Vary") != "" {
		t.Errorf("%v, %d calls, the header is %v", err, s.Calls()-calls, a.header)
	}
}

// events reads a stream of server-sent events until one that contains text.
func expect(t *testing.T, lines *bufio.Scanner, text string) {
	t.Helper()
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			return
		}
	}
	t.Errorf("the stream ended before %q: %v", text, lines.Err())
}

func TestASubscriptionByEventsEndsWithItsSession(t *testing.T) {
	s := newShop(t, nil)
	_, h := s.visitor()
	resp, err := post(t.Context(), s.url, subscription, nil, h, "text/event-stream")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	s.events <- "hello"
	expect(t, lines, `{"watch":"hello"}`)
	if n := s.Streams(); n != 1 {
		t.Errorf("%d streams wait for their session", n)
	}
	s.call(mutation, map[string]string{"do": "logout"}, h)
	expect(t, lines, `"code":"CONFLICT"`)
	expect(t, lines, "event: complete")
	if lines.Scan(); lines.Scan() {
		t.Errorf("after the end comes %q", lines.Text())
	}
}

func TestASubscriptionThatEndsByItself(t *testing.T) {
	s := newShop(t, nil)
	_, h := s.visitor()
	close(s.events)
	resp, err := post(t.Context(), s.url, subscription, nil, h, "text/event-stream")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body := sitetest.Body(t, resp); strings.Contains(body, "errors") || !strings.Contains(body, "event: complete") {
		t.Errorf("the stream is %q", body)
	}
	for s.Streams() > 0 { // released at the end of the request
		if t.Context().Err() != nil {
			t.Fatal("the stream still waits for its session")
		}
	}
}

func TestASubscriptionWhoseSessionCannotBeLoadedIsAnError(t *testing.T) {
	s := newShop(t, nil)
	_, h := s.visitor()
	s.Store.Down.Store(true)
	resp, err := post(t.Context(), s.url, subscription, nil, h, "text/event-stream")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body := sitetest.Body(t, resp); !strings.Contains(body, `"code":"UNAVAILABLE"`) {
		t.Errorf("the stream is %q", body)
	}
}

// The header of such an answer is sent before the resolver runs.
func TestAMutationByEventsCanDoWhatNeedsNoCookie(t *testing.T) {
	s := newShop(t, nil)
	for do, want := range map[string]string{"set": "all is well", "login": `"code":"INTERNAL"`} {
		v, h := s.visitor()
		resp, err := post(t.Context(), s.url, mutation, map[string]string{"do": do}, h, "text/event-stream")
		if err != nil {
			t.Fatal(err)
		}
		body := sitetest.Body(t, resp)
		_ = resp.Body.Close()
		if !strings.Contains(body, want) {
			t.Errorf("%s: the stream is %q", do, body)
		}
		if got := s.cart(v); (got == 2) != (do == "set") {
			t.Errorf("%s: the cart is %d", do, got)
		}
	}
}

// socket is a connection with the protocol graphql-transport-ws.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
}

type frame struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

func (s *shop) connect(h http.Header) *socket {
	s.T.Helper()
	conn, _, err := websocket.Dial(s.T.Context(), s.url, &websocket.DialOptions{HTTPHeader: h, Subprotocols: []string{"graphql-transport-ws"}}) //nolint:bodyclose // it has none
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { _ = conn.CloseNow() })
	c := &socket{s.T, conn}
	c.send(frame{Type: "connection_init"})
	if f := c.receive(); f.Type != "connection_ack" {
		s.T.Fatalf("the connection is answered with %s", f.Type)
	}
	return c
}

func (c *socket) send(f frame) {
	c.t.Helper()
	if err := wsjson.Write(c.t.Context(), c.conn, f); err != nil {
		c.t.Fatal(err)
	}
}

func (c *socket) receive() (f frame) {
	c.t.Helper()
	if err := wsjson.Read(c.t.Context(), c.conn, &f); err != nil {
		c.t.Fatal(err)
	}
	return f
}

func (c *socket) subscribe(id, operation string, params map[string]string) {
	c.t.Helper()
	payload, err := json.Marshal(map[string]any{"query": operation, "variables": map[string]any{"p": params}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(frame{ID: id, Type: "subscribe", Payload: payload})
}

// run runs an operation with one response.
func (c *socket) run(operation string, params map[string]string) *answer {
	c.t.Helper()
	c.subscribe("run", operation, params)
	a := &answer{}
	for {
		switch f := c.receive(); f.Type {
		case "next":
			if err := json.Unmarshal(f.Payload, a); err != nil {
				c.t.Fatal(err)
			}
		case "complete":
			return a
		default:
			c.t.Fatalf("got %s: %s", f.Type, f.Payload)
		}
	}
}

func TestASubscriptionOnAWebSocketEndsWithItsSession(t *testing.T) {
	s := newShop(t, nil)
	_, h := s.visitor()
	c := s.connect(h)
	c.subscribe("1", subscription, nil)
	s.events <- "hello"
	if f := c.receive(); f.Type != "next" || !strings.Contains(string(f.Payload), "hello") {
		t.Errorf("got %s: %s", f.Type, f.Payload)
	}
	s.call(mutation, map[string]string{"do": "logout"}, h)
	if f := c.receive(); f.Type != "next" || !strings.Contains(string(f.Payload), `"code":"CONFLICT"`) {
		t.Errorf("got %s: %s", f.Type, f.Payload)
	}
	if f := c.receive(); f.Type != "complete" {
		t.Errorf("got %s: %s", f.Type, f.Payload)
	}
}

func TestEachMutationOnAWebSocketIsKeptOrNot(t *testing.T) {
	s := newShop(t, nil)
	v, h := s.visitor()
	c := s.connect(h)
	wants := func(a *answer, code string, cart int) {
		t.Helper()
		if got := a.code(); (got == "") != (code == "") || !strings.Contains(got, code) {
			t.Errorf("the error is %q", got)
		}
		if got := s.cart(v); got != cart {
			t.Errorf("the cart is %d, want %d", got, cart)
		}
	}
	wants(c.run(mutation, map[string]string{"do": "count"}), "", 2)
	wants(c.run(mutation, map[string]string{"do": "count", "fail": "yes"}), "broken", 2)
	wants(c.run(mutation, map[string]string{"do": "count"}), "", 3)
	s.Store.SaveDown.Store(true)
	a := c.run(mutation, map[string]string{"do": "count"})
	s.Store.SaveDown.Store(false)
	wants(a, "UNAVAILABLE", 3)
	wants(c.run(mutation, map[string]string{"do": "login"}), "INTERNAL", 3)
	wants(c.run(mutation, map[string]string{"do": "count"}), "", 4)
	wants(c.run(query, nil), "", 4) // kept with what comes next
	if a := c.run(mutation, map[string]string{"do": "logout"}); len(a.Errors) > 0 {
		t.Error(a.Errors)
	}
	if live := sitetest.Rows(t, s.Store); live != 0 {
		t.Errorf("after a logout %d sessions are live", live)
	}
}

func TestMutationsOfOneConnectionDoNotDropEachOthersChanges(t *testing.T) {
	var running atomic.Int32
	s := newShop(t, func(context.Context, *sojourn.Session) error {
		if running.Add(1) > 1 {
			t.Error("two mutations run at once")
		}
		for range 1000 {
			runtime.Gosched()
		}
		running.Add(-1)
		return nil
	})
	v, h := s.visitor()
	c := s.connect(h)
	const n = 40
	for i := range n {
		params := map[string]string{"do": "count"}
		if i%2 == 1 {
			params["fail"] = "yes"
		}
		c.subscribe(fmt.Sprint(i), mutation, params)
	}
	for done := 0; done < n; {
		if f := c.receive(); f.Type == "complete" {
			done++
		}
	}
	if got := s.cart(v); got != 1+n/2 {
		t.Errorf("the cart is %d, want %d", got, 1+n/2)
	}
}

func TestSeveralManagers(t *testing.T) {
	one, two := sitetest.NewLab(t), sitetest.NewLab(t, func(c *sojourn.Config) { c.Name = "other" })
	do := func(ctx context.Context, params map[string]any) (string, error) {
		for _, s := range []*sitetest.Lab{one, two} {
			session, err := s.Get(ctx)
			if err != nil {
				return "", err
			}
			sitetest.CartKey.Set(session, 1)
		}
		if params["fail"] != nil {
			return "", errors.New("broken")
		}
		return "", nil
	}
	url := serve(t, one.Wrap(two.Wrap(newServer(&resolvers{mutation: do}, sojourngqlgen.New(one.Manager, two.Manager)))))
	for want, params := range map[int]map[string]string{2: nil, 0: {"fail": "yes"}} {
		a, err := call(t.Context(), url, mutation, params, nil)
		if err != nil || len(a.header["Set-Cookie"]) != want {
			t.Errorf("%v, the header is %v", err, a)
		}
	}
}

func TestErrorsOfSojournHaveACodeAndAPublicText(t *testing.T) {
	for err, want := range map[error]string{
		sojourn.ErrUnavailable: "UNAVAILABLE", sojourn.ErrEnded: "CONFLICT", sojourn.ErrTaken: "CONFLICT", sojourn.ErrTooLarge: "TOO_LARGE",
		sojourn.ErrNotFound: "NOT_FOUND", sojourn.ErrTooLate: "INTERNAL", sojourn.ErrNoMiddleware: "INTERNAL",
	} {
		s := newShop(t, func(context.Context, *sojourn.Session) error { return fmt.Errorf("secret: %w", err) })
		_, h := s.visitor()
		_, text := sojourn.ErrorStatus(err)
		if got := s.call(mutation, nil, h).code(); got != want+": "+text {
			t.Errorf("%v became %s", err, got)
		}
	}
	for _, err := range []error{
		errors.New("ours"), &gqlerror.Error{Err: sojourn.ErrEnded, Message: "presented", Extensions: map[string]any{"code": "OWN"}},
	} {
		s := newShop(t, func(context.Context, *sojourn.Session) error { return err })
		_, h := s.visitor()
		if got := s.call(mutation, nil, h).code(); got != ": ours" && got != "OWN: presented" {
			t.Errorf("%v became %s", err, got)
		}
	}
}
