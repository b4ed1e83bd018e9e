package sojournconnect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adapter/adaptertest"
	sojournconnect "github.com/sojourn-go/sojourn/adapter/connect"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

const (
	doProcedure    = "/test.Shop/Do"
	watchProcedure = "/test.Shop/Watch"
)

type (
	params = structpb.Struct
	text   = wrapperspb.StringValue
)

// service is a service without generated code: a call gets parameters, and answers
// with text, or with a stream of it.
type service struct {
	do    func(ctx context.Context, in *connect.Request[params]) (string, error)
	watch func(ctx context.Context, in *params, send func(string) error) error
}

// handler serves it, like generated code.
func (s *service) handler(options ...connect.HandlerOption) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(doProcedure, connect.NewUnaryHandler(doProcedure, func(ctx context.Context, in *connect.Request[params]) (*connect.Response[text], error) {
		answer, err := s.do(ctx, in)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(wrapperspb.String(answer)), nil
	}, append(options, connect.WithIdempotency(connect.IdempotencyNoSideEffects))...))
	mux.Handle(watchProcedure, connect.NewServerStreamHandler(watchProcedure, func(ctx context.Context, in *connect.Request[params], stream *connect.ServerStream[text]) error {
		return s.watch(ctx, in.Msg, func(line string) error { return stream.Send(wrapperspb.String(line)) })
	}, options...))
	return mux
}

// answering recovers panics outside of the interceptor, as WithRecover does.
func answering() connect.HandlerOption {
	return connect.WithRecover(func(context.Context, connect.Spec, http.Header, any) error {
		return connect.NewError(connect.CodeInternal, errors.New("panic"))
	})
}

func intercepted() connect.HandlerOption {
	return connect.WithInterceptors(sojournconnect.Interceptor())
}

// serve starts a server on loopback and returns its URL.
func serve(t testing.TB, handler http.Handler) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = protocols()
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// protocols are those of a server and a client: gRPC needs HTTP/2.
func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// client uses one of the three protocols.
type client struct {
	do    *connect.Client[params, text]
	watch *connect.Client[params, text]
}

func newClient(t testing.TB, url string, options ...connect.ClientOption) *client {
	t.Helper()
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: p}
	t.Cleanup(transport.CloseIdleConnections)
	over := &http.Client{Transport: transport}
	return &client{
		connect.NewClient[params, text](over, url+doProcedure, options...),
		connect.NewClient[params, text](over, url+watchProcedure, options...),
	}
}

var wires = map[string][]connect.ClientOption{
	"Connect": nil, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()},
}

func structOf(values map[string]string) *params {
	in := &params{Fields: map[string]*structpb.Value{}}
	for name, value := range values {
		in.Fields[name] = structpb.NewStringValue(value)
	}
	return in
}

func request(values map[string]string, header http.Header) *connect.Request[params] {
	r := connect.NewRequest(structOf(values))
	for name, lines := range header {
		r.Header()[name] = lines
	}
	return r
}

// call makes a unary call and returns the header of the answer or of the error.
func (c *client) call(ctx context.Context, values map[string]string, header http.Header) (string, http.Header, error) {
	answer, err := c.do.CallUnary(ctx, request(values, header))
	if err != nil {
		return "", meta(err), err
	}
	return answer.Msg.Value, answer.Header(), nil
}

// stream reads a stream to its end.
func (c *client) stream(ctx context.Context, values map[string]string, header http.Header) (lines []string, h http.Header, err error) {
	s, err := c.watch.CallServerStream(ctx, request(values, header))
	if err != nil {
		return nil, meta(err), err
	}
	defer func() { _ = s.Close() }()
	for s.Receive() {
		lines = append(lines, s.Msg().Value)
	}
	h = s.ResponseHeader().Clone()
	if h["Set-Cookie"] == nil && s.Err() != nil {
		h = meta(s.Err())
	}
	return lines, h, s.Err()
}

func meta(err error) http.Header {
	var failed *connect.Error
	if errors.As(err, &failed) {
		return failed.Meta()
	}
	return nil
}

func TestSuite(t *testing.T) {
	for wire, options := range wires {
		t.Run(wire, func(t *testing.T) {
			adaptertest.Run(t, adaptertest.Wiring{
				Start: func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
					return suiteClient{newClient(t, serve(t, sessions.Wrap(appService(app).handler(intercepted(), answering()))), options...)}
				},
				Cannot: map[adaptertest.Ability]string{
					adaptertest.Statuses: "a call fails or not", adaptertest.WebSockets: "calls have streams",
					adaptertest.Hijacking: "calls have streams", adaptertest.Files: "answers are messages",
					adaptertest.BodyLimits: "a message that is too long is no business of handlers",
				},
			})
		})
	}
}

// appService runs an application of the suite.
func appService(app adaptertest.App) *service {
	answer := func(err error) error {
		var own adaptertest.StatusError
		switch {
		case err == nil || !errors.As(err, &own):
			return err
		case own.Status == http.StatusNotFound:
			return connect.NewError(connect.CodeNotFound, own)
		default:
			return connect.NewError(connect.CodeFailedPrecondition, own)
		}
	}
	return &service{
		do: func(ctx context.Context, in *connect.Request[params]) (text string, err error) {
			err = app(&adaptertest.Call{
				Context: ctx,
				Param:   func(name string) string { return in.Msg.GetFields()[name].GetStringValue() },
				Respond: func(_ int, t string) error { text = t; return nil },
				Stream:  func(func(func(string) error) error) error { return errors.New("the call is unary") },
			})
			return text, answer(err)
		},
		watch: func(ctx context.Context, in *params, send func(string) error) error {
			return answer(app(&adaptertest.Call{
				Context: ctx,
				Param:   func(name string) string { return in.GetFields()[name].GetStringValue() },
				Respond: func(_ int, t string) error { return send(t) },
				Stream:  func(body func(func(string) error) error) error { return body(send) },
			}))
		},
	}
}

// suiteClient is one of the suite.
type suiteClient struct{ *client }

func (c suiteClient) Send(ctx context.Context, r adaptertest.Request) (*adaptertest.Answer, error) {
	if r.Params["do"] == "stream" {
		return c.open(ctx, r)
	}
	answer, header, err := c.call(ctx, r.Params, r.Header)
	if ctx.Err() != nil {
		return nil, err
	}
	return answerOf(header, err, io.NopCloser(strings.NewReader(answer))), nil
}

func answerOf(h http.Header, err error, body io.ReadCloser) *adaptertest.Answer {
	if err != nil {
		body = io.NopCloser(strings.NewReader(err.Error()))
	}
	return &adaptertest.Answer{Failed: err != nil, Header: h, Body: body}
}

// open returns when the first message has come, or the end.
func (c suiteClient) open(ctx context.Context, r adaptertest.Request) (*adaptertest.Answer, error) {
	stream, err := c.watch.CallServerStream(ctx, request(r.Params, r.Header))
	if err != nil {
		return answerOf(meta(err), err, nil), nil
	}
	more := stream.Receive()
	if err = stream.Err(); err != nil {
		return answerOf(meta(err), err, nil), nil
	}
	read, write := io.Pipe()
	go func() {
		for ; more; more = stream.Receive() {
			if _, err := fmt.Fprintln(write, stream.Msg().Value); err != nil {
				break
			}
		}
		_ = write.CloseWithError(stream.Err())
		_ = stream.Close()
	}()
	return answerOf(stream.ResponseHeader(), nil, read), nil
}

// shop is a site with a service.
type shop struct {
	*sitetest.Lab
	url string
}

func newShop(t *testing.T, do func(context.Context, *sojourn.Session) error, watch func(context.Context, *sojourn.Session, func(string) error) error, options ...connect.HandlerOption) *shop {
	t.Helper()
	s := &shop{Lab: sitetest.NewLab(t)}
	service := &service{
		do: func(ctx context.Context, _ *connect.Request[params]) (string, error) {
			session, err := s.Get(ctx)
			if err != nil {
				return "", err
			}
			return "all is well", do(ctx, session)
		},
		watch: func(ctx context.Context, _ *params, send func(string) error) error {
			session, err := s.Get(ctx)
			if err != nil {
				return err
			}
			return watch(ctx, session, send)
		},
	}
	if options == nil {
		options = []connect.HandlerOption{intercepted(), answering()}
	}
	s.url = serve(t, s.Wrap(service.handler(options...)))
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

// kinds makes a call of each kind.
var kinds = map[string]func(context.Context, *client, http.Header) (http.Header, error){
	"unary": func(ctx context.Context, c *client, h http.Header) (http.Header, error) {
		_, header, err := c.call(ctx, nil, h)
		return header, err
	},
	"stream": func(ctx context.Context, c *client, h http.Header) (http.Header, error) {
		_, header, err := c.stream(ctx, nil, h)
		return header, err
	},
}

// each runs a test for each protocol and each kind of call.
func each(t *testing.T, url string, test func(t *testing.T, name string, call func(http.Header) (http.Header, error))) {
	t.Helper()
	for wire, options := range wires {
		c := newClient(t, url, options...)
		for kind, call := range kinds {
			test(t, wire+", "+kind, func(h http.Header) (http.Header, error) { return call(t.Context(), c, h) })
		}
	}
}

func wantCode(t *testing.T, name string, err error, want connect.Code) {
	t.Helper()
	if want == 0 && err != nil || want != 0 && connect.CodeOf(err) != want {
		t.Errorf("%s: the call's error is %v, want %v", name, err, want)
	}
}

func TestWhatACallKeeps(t *testing.T) {
	for ending, test := range map[string]struct {
		end  func(context.Context) error
		code connect.Code // 0: no error
		kept bool
	}{
		"no error":     {func(context.Context) error { return nil }, 0, true},
		"not found":    {func(context.Context) error { return connect.NewError(connect.CodeNotFound, errors.New("none")) }, connect.CodeNotFound, false},
		"an error":     {func(context.Context) error { return errors.New("broken") }, connect.CodeUnknown, false},
		"of the store": {func(context.Context) error { return sojourn.ErrUnavailable }, connect.CodeUnavailable, false},
		"a panic":      {func(context.Context) error { panic("broken") }, connect.CodeInternal, false},
		"Fail":         {func(ctx context.Context) error { sojourn.Fail(ctx); return nil }, 0, false},
		"Commit, then an error": {func(ctx context.Context) error {
			return errors.Join(sojourn.Commit(ctx), connect.NewError(connect.CodeAborted, errors.New("late")))
		}, connect.CodeAborted, true},
	} {
		t.Run(ending, func(t *testing.T) {
			leaves := false
			do := func(ctx context.Context, session *sojourn.Session) error {
				if leaves {
					session.Logout()
				} else {
					sitetest.CartKey.Set(session, 2)
				}
				return test.end(ctx)
			}
			s := newShop(t, do, func(ctx context.Context, session *sojourn.Session, _ func(string) error) error {
				return do(ctx, session)
			})
			each(t, s.url, func(t *testing.T, name string, call func(http.Header) (http.Header, error)) {
				leaves = false
				v, h := s.visitor()
				_, err := call(h)
				wantCode(t, name, err, test.code)
				if got := s.cart(v); (got == 2) != test.kept {
					t.Errorf("%s: the cart is %d", name, got)
				}
				leaves = true
				header, err := call(h)
				wantCode(t, name, err, test.code)
				if live := sitetest.Rows(t, s.Store); live != 0 || len(header["Set-Cookie"]) != 1 {
					t.Errorf("%s: after a logout %d sessions are live, and the header is %v", name, live, header)
				}
			})
		})
	}
}

// The behavior of Wrap alone, to show that the interceptor is needed.
func TestWithoutTheInterceptorACallThatFailsIsKept(t *testing.T) {
	do := func(_ context.Context, session *sojourn.Session) error {
		sitetest.CartKey.Set(session, 2)
		return connect.NewError(connect.CodeNotFound, errors.New("none"))
	}
	s := newShop(t, do, func(ctx context.Context, session *sojourn.Session, _ func(string) error) error {
		return do(ctx, session)
	}, answering())
	each(t, s.url, func(t *testing.T, name string, call func(http.Header) (http.Header, error)) {
		v, h := s.visitor()
		_, err := call(h)
		wantCode(t, name, err, connect.CodeNotFound)
		if got := s.cart(v); got != 2 {
			t.Errorf("%s: the cart is %d", name, got)
		}
	})
}

func TestACommitThatFailsIsTheErrorOfTheCall(t *testing.T) {
	large := func(_ *shop, session *sojourn.Session) { sitetest.Essay.Set(session, strings.Repeat("x", 4<<20)) }
	for cause, test := range map[string]struct {
		change func(*shop, *sojourn.Session)
		err    error
		code   connect.Code
	}{
		"the store is down": {func(s *shop, session *sojourn.Session) {
			sitetest.CartKey.Set(session, 2)
			s.Store.SaveDown.Store(true)
		}, sojourn.ErrUnavailable, connect.CodeUnavailable},
		"too large": {large, sojourn.ErrTooLarge, connect.CodeResourceExhausted},
		"ended meanwhile": {func(s *shop, session *sojourn.Session) {
			if _, err := s.RevokeUser(t.Context(), "bert"); err != nil {
				t.Error(err)
			}
			sitetest.CartKey.Set(session, 2)
		}, sojourn.ErrEnded, connect.CodeAborted},
	} {
		t.Run(cause, func(t *testing.T) {
			var s *shop
			s = newShop(t, func(_ context.Context, session *sojourn.Session) error {
				test.change(s, session)
				return nil
			}, func(_ context.Context, session *sojourn.Session, send func(string) error) error {
				test.change(s, session)
				for range 2 {
					if err := send("all is well"); !errors.Is(err, test.err) {
						t.Errorf("sending: %v", err)
					}
				}
				return nil // even if the handler returns nil
			})
			_, text := sojourn.ErrorStatus(test.err)
			each(t, s.url, func(t *testing.T, name string, call func(http.Header) (http.Header, error)) {
				v, h := s.visitor()
				_, err := call(h)
				wantCode(t, name, err, test.code)
				var failed *connect.Error
				if !errors.As(err, &failed) || failed.Message() != text {
					t.Errorf("%s: the error is %v", name, err)
				}
				s.Store.SaveDown.Store(false)
				if got := s.cart(v); got > 1 {
					t.Errorf("%s: the cart is %d", name, got)
				}
			})
		})
	}
}

func TestWhatAStreamChangesLate(t *testing.T) {
	for what, test := range map[string]struct {
		change func(*shop, *sojourn.Session)
		end    error
		code   connect.Code
		cart   int
	}{
		"is kept":                          {func(_ *shop, s *sojourn.Session) { sitetest.CartKey.Set(s, 2) }, nil, 0, 2},
		"is not kept after an error":       {func(_ *shop, s *sojourn.Session) { sitetest.CartKey.Set(s, 2) }, errors.New("broken"), connect.CodeUnknown, 1},
		"is an error if it needs a cookie": {func(_ *shop, s *sojourn.Session) { s.Login("anna") }, nil, connect.CodeInternal, 1},
		"is an error if it is lost": {func(shop *shop, s *sojourn.Session) {
			sitetest.CartKey.Set(s, 2)
			shop.Store.SaveDown.Store(true)
		}, nil, connect.CodeUnavailable, 1},
	} {
		var s *shop
		s = newShop(t, nil, func(_ context.Context, session *sojourn.Session, send func(string) error) error {
			if err := send("hello"); err != nil {
				return err
			}
			test.change(s, session)
			return test.end
		})
		for wire, options := range wires {
			v, h := s.visitor()
			lines, _, err := newClient(t, s.url, options...).stream(t.Context(), nil, h)
			wantCode(t, wire+": what a stream changes late "+what, err, test.code)
			s.Store.SaveDown.Store(false)
			if got := s.cart(v); got != test.cart || len(lines) != 1 {
				t.Errorf("%s: what a stream changes late %s: the cart is %d", wire, what, got)
			}
		}
	}
}

func TestSeveralManagers(t *testing.T) {
	one, two := sitetest.NewLab(t), sitetest.NewLab(t, func(c *sojourn.Config) { c.Name = "other" })
	service := &service{do: func(ctx context.Context, in *connect.Request[params]) (string, error) {
		for _, s := range []*sitetest.Lab{one, two} {
			session, err := s.Get(ctx)
			if err != nil {
				return "", err
			}
			sitetest.CartKey.Set(session, 1)
		}
		if len(in.Msg.GetFields()) > 0 {
			return "", errors.New("broken")
		}
		return "", nil
	}}
	url := serve(t, one.Wrap(two.Wrap(service.handler(intercepted()))))
	for wire, options := range wires {
		c := newClient(t, url, options...)
		_, header, err := c.call(t.Context(), nil, nil)
		if err != nil || len(header["Set-Cookie"]) != 2 {
			t.Errorf("%s: %v, the header is %v", wire, err, header)
		}
		_, header, err = c.call(t.Context(), map[string]string{"fail": "yes"}, nil)
		if err == nil || len(header["Set-Cookie"]) != 0 {
			t.Errorf("%s: %v, the header is %v", wire, err, header)
		}
		one.Store.SaveDown.Store(true) // of two commits the second fails
		_, _, err = c.call(t.Context(), nil, nil)
		one.Store.SaveDown.Store(false)
		wantCode(t, wire, err, connect.CodeUnavailable)
	}
}

// The answer "not modified" to a GET is not a failure.
func TestNotModifiedKeepsWhatTheHandlerChanged(t *testing.T) {
	s := newShop(t, func(_ context.Context, session *sojourn.Session) error {
		sitetest.CartKey.Set(session, 2)
		return connect.NewNotModifiedError(nil)
	}, nil)
	for get, options := range map[bool][]connect.ClientOption{
		true: {connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects)}, false: {connect.WithGRPC()},
	} {
		v, h := s.visitor()
		_, _, err := newClient(t, s.url, options...).call(t.Context(), nil, h)
		if err == nil || connect.IsNotModifiedError(err) != get {
			t.Errorf("the call's error is %v", err)
		}
		if got := s.cart(v); (got == 2) != get {
			t.Errorf("the cart is %d", got)
		}
	}
}

func TestErrorsHaveACodeAndAPublicText(t *testing.T) {
	for err, want := range map[error]connect.Code{
		sojourn.ErrUnavailable: connect.CodeUnavailable, sojourn.ErrClosed: connect.CodeUnavailable, sojourn.ErrEnded: connect.CodeAborted,
		sojourn.ErrTaken: connect.CodeAborted, sojourn.ErrTooManySessions: connect.CodeAborted, sojourn.ErrTooLarge: connect.CodeResourceExhausted,
		sojourn.ErrNotFound: connect.CodeNotFound, sojourn.ErrTooLate: connect.CodeInternal, sojourn.ErrNoMiddleware: connect.CodeInternal,
	} {
		got := sojournconnect.Error(fmt.Errorf("secret: %w", err))
		if connect.CodeOf(got) != want || !errors.Is(got, err) || strings.Contains(got.Error(), "secret") {
			t.Errorf("%v became %v", err, got)
		}
	}
	already := connect.NewError(connect.CodeNotFound, sojourn.ErrEnded)
	for _, other := range []error{nil, io.EOF, already, fmt.Errorf("adding: %w", already)} {
		if got := sojournconnect.Error(other); !errors.Is(got, other) || got != nil && connect.CodeOf(got) != connect.CodeOf(other) {
			t.Errorf("%v became %v", other, got)
		}
	}
}

func TestAPanicThatIsRecoveredOutsideKeepsNothing(t *testing.T) {
	do := func(_ context.Context, session *sojourn.Session) error {
		sitetest.CartKey.Set(session, 2)
		panic("broken")
	}
	s := newShop(t, do, func(ctx context.Context, session *sojourn.Session, _ func(string) error) error {
		return do(ctx, session)
	},
		answering(), intercepted())
	each(t, s.url, func(t *testing.T, name string, call func(http.Header) (http.Header, error)) {
		v, h := s.visitor()
		_, err := call(h)
		wantCode(t, name, err, connect.CodeInternal)
		if got := s.cart(v); got != 1 {
			t.Errorf("%s: the cart is %d", name, got)
		}
	})
}
