package sojourngrpc_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adapter/adaptertest"
	sojourngrpc "github.com/sojourn-go/sojourn/adapter/grpc"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// service is a gRPC service without generated code: a call gets parameters, and
// answers with text, or with a stream of it.
type service struct {
	do    func(ctx context.Context, params map[string]string) (string, error)
	watch func(params map[string]string, stream grpc.ServerStream) error
}

const (
	doMethod    = "/test.Shop/Do"
	watchMethod = "/test.Shop/Watch"
)

var description = grpc.ServiceDesc{
	ServiceName: "test.Shop",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Do",
		Handler: func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			in := &structpb.Struct{}
			if err := decode(in); err != nil {
				return nil, err
			}
			handle := func(ctx context.Context, in any) (any, error) {
				text, err := srv.(*service).do(ctx, paramsOf(in.(*structpb.Struct)))
				return wrapperspb.String(text), err
			}
			if interceptor == nil {
				return handle(ctx, in)
			}
			return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: doMethod}, handle)
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName:    "Watch",
		ServerStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error {
			in := &structpb.Struct{}
			if err := stream.RecvMsg(in); err != nil {
				return err
			}
			return srv.(*service).watch(paramsOf(in), stream)
		},
	}},
}

func paramsOf(in *structpb.Struct) map[string]string {
	params := map[string]string{}
	for name, value := range in.GetFields() {
		params[name] = value.GetStringValue()
	}
	return params
}

func structOf(params map[string]string) *structpb.Struct {
	in := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for name, value := range params {
		in.Fields[name] = structpb.NewStringValue(value)
	}
	return in
}

// serve starts a server on loopback, with these interceptors outside and inside
// of those of the managers, and returns a connection to it.
func serve(t testing.TB, s *service, managers []*sojourn.Manager, options ...grpc.ServerOption) string {
	t.Helper()
	for _, m := range managers {
		options = append(options, grpc.ChainUnaryInterceptor(sojourngrpc.Unary(m)), grpc.ChainStreamInterceptor(sojourngrpc.Stream(m)))
	}
	server := grpc.NewServer(options...)
	server.RegisterService(&description, s)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// dial returns a connection with these options.
func dial(t testing.TB, address string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// recovery answers panics.
func recovery() []grpc.ServerOption {
	answer := func(err *error) {
		if p := recover(); p != nil {
			*err = status.Error(codes.Internal, "panic")
		}
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
			defer answer(&err)
			return handler(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
			defer answer(&err)
			return handler(srv, ss)
		}),
	}
}

func TestSuite(t *testing.T) {
	adaptertest.Run(t, adaptertest.Wiring{
		Start: func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
			address := serve(t, appService(app), []*sojourn.Manager{sessions}, recovery()...)
			return client{dial(t, address)}
		},
		Cannot: map[adaptertest.Ability]string{
			adaptertest.Statuses: "a call fails or not", adaptertest.Caching: "every call is a POST",
			adaptertest.WebSockets: "gRPC has streams", adaptertest.Hijacking: "gRPC has streams",
			adaptertest.Files: "answers are messages", adaptertest.BodyLimits: "grpc.MaxRecvMsgSize is outside of interceptors",
		},
	})
}

// appService runs an application of the suite.
func appService(app adaptertest.App) *service {
	answer := func(err error) error {
		var own adaptertest.StatusError
		switch {
		case err == nil || !errors.As(err, &own):
			return err
		case own.Status == http.StatusNotFound:
			return status.Error(codes.NotFound, own.Error())
		default:
			return status.Error(codes.FailedPrecondition, own.Error())
		}
	}
	return &service{
		do: func(ctx context.Context, params map[string]string) (text string, err error) {
			err = app(&adaptertest.Call{
				Context: ctx,
				Param:   func(name string) string { return params[name] },
				Respond: func(_ int, t string) error { text = t; return nil },
				Stream:  func(func(func(string) error) error) error { return errors.New("the call is unary") },
			})
			return text, answer(err)
		},
		watch: func(params map[string]string, stream grpc.ServerStream) error {
			return answer(app(&adaptertest.Call{
				Context: stream.Context(),
				Param:   func(name string) string { return params[name] },
				Respond: func(_ int, t string) error { return stream.SendMsg(wrapperspb.String(t)) },
				Stream: func(body func(func(string) error) error) error {
					return body(func(line string) error { return stream.SendMsg(wrapperspb.String(line)) })
				},
			}))
		},
	}
}

// client is one of the suite.
type client struct{ conn *grpc.ClientConn }

func (c client) Send(ctx context.Context, r adaptertest.Request) (*adaptertest.Answer, error) {
	md := metadata.MD{}
	for name, values := range r.Header {
		name = strings.ToLower(name)
		if name == "user-agent" { // that of grpc-go is added to whatever is here
			name = "grpcgateway-user-agent"
		}
		md[name] = values
	}
	ctx = metadata.NewOutgoingContext(ctx, md)
	if r.Params["do"] == "stream" {
		return c.watch(ctx, r.Params)
	}
	out := &wrapperspb.StringValue{}
	var header metadata.MD
	err := c.conn.Invoke(ctx, doMethod, structOf(r.Params), out, grpc.Header(&header))
	if ctx.Err() != nil {
		return nil, err
	}
	return answerOf(header, err, io.NopCloser(strings.NewReader(out.Value))), nil
}

func answerOf(md metadata.MD, err error, body io.ReadCloser) *adaptertest.Answer {
	h := http.Header{}
	for name, values := range md {
		h[http.CanonicalHeaderKey(name)] = values
	}
	if err != nil {
		body = io.NopCloser(strings.NewReader(status.Convert(err).Message()))
	}
	return &adaptertest.Answer{Failed: err != nil, Header: h, Body: body}
}

// watch returns when the first message has come, or the end.
func (c client) watch(ctx context.Context, params map[string]string) (*adaptertest.Answer, error) {
	stream, err := c.conn.NewStream(ctx, &description.Streams[0], watchMethod)
	if err == nil {
		err = errors.Join(stream.SendMsg(structOf(params)), stream.CloseSend())
	}
	if err != nil {
		return nil, err
	}
	first := &wrapperspb.StringValue{}
	err = stream.RecvMsg(first)
	header, _ := stream.Header()
	if err != nil && !errors.Is(err, io.EOF) {
		return answerOf(header, err, nil), nil
	}
	read, write := io.Pipe()
	go func() {
		for err == nil {
			if _, err = fmt.Fprintln(write, first.Value); err == nil {
				err = stream.RecvMsg(first)
			}
		}
		_ = write.CloseWithError(err)
	}()
	return answerOf(header, nil, read), nil
}

func code(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("the call's status is %v (%v), want %v", got, err, want)
	}
}

// shop is a service whose calls each count up and then run the test's function.
type shop struct {
	*sitetest.Lab
	address string
}

func newShop(t *testing.T, do func(ctx context.Context, session *sojourn.Session) (string, error), watch func(session *sojourn.Session, stream grpc.ServerStream) error, configure ...func(*sojourn.Config)) *shop {
	t.Helper()
	s := &shop{Lab: sitetest.NewLab(t, configure...)}
	s.address = serve(t, &service{
		do: func(ctx context.Context, _ map[string]string) (string, error) {
			session, err := s.Get(ctx)
			if err != nil {
				return "", err
			}
			return do(ctx, session)
		},
		watch: func(_ map[string]string, stream grpc.ServerStream) error {
			session, err := s.Get(stream.Context())
			if err != nil {
				return err
			}
			return watch(session, stream)
		},
	}, []*sojourn.Manager{s.Manager}, recovery()...)
	return s
}

// visitor returns a guest who has 1 in the cart, and a connection that sends the
// guest's cookies.
func (s *shop) visitor() (*sitetest.Guest, context.Context, *grpc.ClientConn) {
	v := sitetest.NewGuest(s.T)
	s.Do(v, func(session *sojourn.Session) {
		session.Login("bert")
		sitetest.CartKey.Set(session, 1)
	})
	return v, metadata.AppendToOutgoingContext(s.T.Context(), "cookie", v.Header()), dial(s.T, s.address)
}

func (s *shop) cart(v *sitetest.Guest) (n int) {
	s.T.Helper()
	s.Do(v, func(session *sojourn.Session) { n = sitetest.CartKey.Get(session) })
	return n
}

func do(ctx context.Context, conn *grpc.ClientConn) (string, metadata.MD, error) {
	out := &wrapperspb.StringValue{}
	var header metadata.MD
	err := conn.Invoke(ctx, doMethod, &structpb.Struct{}, out, grpc.Header(&header))
	return out.Value, header, err
}

// watch reads a stream to its end.
func watch(ctx context.Context, conn *grpc.ClientConn) (lines []string, header metadata.MD, err error) {
	stream, err := conn.NewStream(ctx, &description.Streams[0], watchMethod)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(stream.SendMsg(&structpb.Struct{}), stream.CloseSend()); err != nil {
		return nil, nil, err
	}
	for {
		m := &wrapperspb.StringValue{}
		if err = stream.RecvMsg(m); err != nil {
			break
		}
		lines = append(lines, m.Value)
	}
	header, _ = stream.Header()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return lines, header, err
}

func TestWhatACallKeeps(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(context.Context) error
		code codes.Code
		kept bool
	}{
		"no error":              {func(context.Context) error { return nil }, codes.OK, true},
		"a status":              {func(context.Context) error { return status.Error(codes.NotFound, "none") }, codes.NotFound, false},
		"an error":              {func(context.Context) error { return errors.New("broken") }, codes.Unknown, false},
		"an error of the store": {func(context.Context) error { return sojourngrpc.Error(sojourn.ErrUnavailable) }, codes.Unavailable, false},
		"a panic":               {func(context.Context) error { panic("broken") }, codes.Internal, false},
		"Fail":                  {func(ctx context.Context) error { sojourn.Fail(ctx); return nil }, codes.OK, false},
		"Commit, then an error": {func(ctx context.Context) error {
			return errors.Join(sojourn.Commit(ctx), status.Error(codes.Aborted, ""))
		}, codes.Aborted, true},
		"SendHeader, then an error": {func(ctx context.Context) error {
			return errors.Join(grpc.SendHeader(ctx, nil), status.Error(codes.Aborted, ""))
		}, codes.Aborted, true},
	} {
		leaves := false
		change := func(session *sojourn.Session) {
			if leaves {
				session.Logout()
			} else {
				sitetest.CartKey.Set(session, 2)
			}
		}
		s := newShop(t, func(ctx context.Context, session *sojourn.Session) (string, error) {
			change(session)
			return "done", test.end(ctx)
		}, func(session *sojourn.Session, stream grpc.ServerStream) error {
			change(session)
			return test.end(stream.Context())
		})
		for kind, run := range map[string]func(context.Context, *grpc.ClientConn) (metadata.MD, error){
			"unary": func(ctx context.Context, conn *grpc.ClientConn) (metadata.MD, error) {
				_, h, err := do(ctx, conn)
				return h, err
			},
			"stream": func(ctx context.Context, conn *grpc.ClientConn) (metadata.MD, error) {
				_, h, err := watch(ctx, conn)
				return h, err
			},
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				leaves = false
				v, ctx, conn := s.visitor()
				_, err := run(ctx, conn)
				code(t, err, test.code)
				if got := s.cart(v); (got == 2) != test.kept {
					t.Errorf("the cart is %d", got)
				}
				leaves = true
				header, err := run(ctx, conn)
				code(t, err, test.code)
				if name == "a panic" {
					return // the header has nothing
				}
				if live := sitetest.Rows(t, s.Store); live != 0 || len(header["set-cookie"]) != 1 {
					t.Errorf("after a logout %d sessions are live, and the header is %v", live, header)
				}
			})
		}
	}
}

func TestAnUntouchedCallCostsNothing(t *testing.T) {
	s := sitetest.NewLab(t)
	address := serve(t, &service{do: func(context.Context, map[string]string) (string, error) { return "public", nil }}, []*sojourn.Manager{s.Manager})
	_, header, err := do(metadata.AppendToOutgoingContext(t.Context(), "cookie", sitetest.RefCookie+"=x"), dial(t, address))
	if err != nil || s.Calls() > 0 || len(header) > 1 {
		t.Errorf("%v, %d calls, the header is %v", err, s.Calls(), header)
	}
}

func TestTheHeaderHasCookiesAndNothingForCaches(t *testing.T) {
	s := newShop(t, func(_ context.Context, session *sojourn.Session) (string, error) {
		sitetest.ThemeKey.Set(session, "dark")
		session.Login("anna")
		return "", nil
	}, nil)
	_, ctx, conn := s.visitor()
	_, header, err := do(ctx, conn)
	if err != nil || len(header["set-cookie"]) == 0 || len(header["vary"])+len(header["cache-control"]) > 0 {
		t.Errorf("%v, the header is %v", err, header)
	}
}

func TestACommitThatFailsIsTheStatusOfTheCall(t *testing.T) {
	goesOn := func(session *sojourn.Session, stream grpc.ServerStream) error {
		for range 2 {
			if err := stream.SendMsg(wrapperspb.String("all is well")); err == nil {
				return errors.New("a message was sent")
			}
		}
		return nil // even if the handler returns nil
	}
	for name, test := range map[string]struct {
		change func(*shop, *sojourn.Session)
		code   codes.Code
		watch  func(*sojourn.Session, grpc.ServerStream) error
	}{
		"the store is down": {func(s *shop, session *sojourn.Session) {
			sitetest.CartKey.Set(session, 2)
			s.Store.SaveDown.Store(true)
		}, codes.Unavailable, goesOn},
		"too large": {func(_ *shop, session *sojourn.Session) {
			sitetest.Essay.Set(session, strings.Repeat("x", 4<<20))
		}, codes.ResourceExhausted, goesOn},
		"a header": {func(_ *shop, session *sojourn.Session) {
			sitetest.Essay.Set(session, strings.Repeat("x", 4<<20))
		}, codes.ResourceExhausted, func(_ *sojourn.Session, stream grpc.ServerStream) error {
			if stream.SendHeader(nil) == nil {
				return errors.New("the header was sent")
			}
			return nil
		}},
		"a header of the context": {func(_ *shop, session *sojourn.Session) {
			sitetest.Essay.Set(session, strings.Repeat("x", 4<<20))
		}, codes.ResourceExhausted, func(_ *sojourn.Session, stream grpc.ServerStream) error {
			if grpc.SendHeader(stream.Context(), nil) == nil {
				return errors.New("the header was sent")
			}
			return nil
		}},
		"ended meanwhile": {func(s *shop, session *sojourn.Session) {
			if _, err := s.RevokeUser(t.Context(), "bert"); err != nil {
				t.Error(err)
			}
			sitetest.CartKey.Set(session, 2)
		}, codes.Aborted, goesOn},
	} {
		t.Run(name, func(t *testing.T) {
			var s *shop
			s = newShop(t, func(_ context.Context, session *sojourn.Session) (string, error) {
				test.change(s, session)
				return "all is well", nil
			}, func(session *sojourn.Session, stream grpc.ServerStream) error {
				test.change(s, session)
				return test.watch(session, stream)
			})
			for kind, stream := range map[string]bool{"unary": false, "stream": true} {
				v, ctx, conn := s.visitor()
				var text string
				var err error
				if stream {
					_, _, err = watch(ctx, conn)
				} else {
					text, _, err = do(ctx, conn)
				}
				code(t, err, test.code)
				if _, public := sojourn.ErrorStatus(sojourn.ErrTooLarge); text != "" || test.code == codes.ResourceExhausted && status.Convert(err).Message() != public {
					t.Errorf("%s: %q, %v", kind, text, err)
				}
				s.Store.SaveDown.Store(false)
				if got := s.cart(v); got > 1 {
					t.Errorf("%s: the cart is %d", kind, got)
				}
			}
		})
	}
}

func TestWhatAHandlerSendsFirstHasTheCookie(t *testing.T) {
	for name, send := range map[string]func(grpc.ServerStream) error{
		"a message": func(s grpc.ServerStream) error { return s.SendMsg(wrapperspb.String("hello")) },
		"a header":  func(s grpc.ServerStream) error { return s.SendHeader(metadata.Pairs("own", "1")) },
		"a header by its context": func(s grpc.ServerStream) error {
			return grpc.SendHeader(s.Context(), metadata.Pairs("own", "1"))
		},
		"nothing": func(s grpc.ServerStream) error { return s.SetHeader(metadata.Pairs("own", "1")) },
	} {
		s := newShop(t, nil, func(session *sojourn.Session, stream grpc.ServerStream) error {
			session.Login("anna")
			return send(stream)
		})
		_, ctx, conn := s.visitor()
		_, header, err := watch(ctx, conn)
		if err != nil || len(header["set-cookie"]) == 0 || name != "a message" && len(header["own"]) != 1 {
			t.Errorf("%s: %v, the header is %v", name, err, header)
		}
	}
}

func TestWhatAStreamChangesLate(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*shop, *sojourn.Session)
		end    error
		code   codes.Code
		cart   int
	}{
		"is kept":                          {func(_ *shop, s *sojourn.Session) { sitetest.CartKey.Set(s, 2) }, nil, codes.OK, 2},
		"is not kept after an error":       {func(_ *shop, s *sojourn.Session) { sitetest.CartKey.Set(s, 2) }, errors.New("broken"), codes.Unknown, 1},
		"is an error if it needs a cookie": {func(_ *shop, s *sojourn.Session) { s.Login("anna") }, nil, codes.Internal, 1},
		"is an error if it is lost": {func(shop *shop, s *sojourn.Session) {
			sitetest.CartKey.Set(s, 2)
			shop.Store.SaveDown.Store(true)
		}, nil, codes.Unavailable, 1},
	} {
		var s *shop
		s = newShop(t, nil, func(session *sojourn.Session, stream grpc.ServerStream) error {
			if err := stream.SendMsg(wrapperspb.String("hello")); err != nil {
				return err
			}
			test.change(s, session)
			return test.end
		})
		v, ctx, conn := s.visitor()
		_, _, err := watch(ctx, conn)
		code(t, err, test.code)
		s.Store.SaveDown.Store(false)
		if got := s.cart(v); got != test.cart {
			t.Errorf("what a stream changes late %s: the cart is %d", name, got)
		}
	}
}

func TestAPanicInAStreamThatHasBegunKeepsNothingSince(t *testing.T) {
	s := newShop(t, nil, func(session *sojourn.Session, stream grpc.ServerStream) error {
		if err := stream.SendMsg(wrapperspb.String("hello")); err != nil {
			return err
		}
		sitetest.CartKey.Set(session, 2)
		panic("broken")
	})
	v, ctx, conn := s.visitor()
	_, _, err := watch(ctx, conn)
	code(t, err, codes.Internal)
	if got := s.cart(v); got != 1 {
		t.Errorf("the cart is %d", got)
	}
}

func TestAHeaderThatWasSentOutside(t *testing.T) {
	early := grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if err := grpc.SendHeader(ctx, nil); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	})
	s := sitetest.NewLab(t)
	address := serve(t, &service{do: func(ctx context.Context, params map[string]string) (string, error) {
		session, err := s.Get(ctx)
		if err != nil {
			return "", err
		}
		sitetest.CartKey.Set(session, 2)
		if params["login"] != "" {
			session.Login("anna")
		}
		return "", nil
	}}, []*sojourn.Manager{s.Manager}, early)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	ctx, conn := metadata.AppendToOutgoingContext(t.Context(), "cookie", v.Header()), dial(t, address)
	out := &wrapperspb.StringValue{}
	code(t, conn.Invoke(ctx, doMethod, structOf(map[string]string{"login": "yes"}), out), codes.Internal)
	code(t, conn.Invoke(ctx, doMethod, structOf(nil), out), codes.OK)
	s.Do(v, func(session *sojourn.Session) {
		if sitetest.CartKey.Get(session) != 2 || session.User() != "" {
			t.Error("a change of a stored session is lost, or one that needs a cookie is kept")
		}
	})
}

func TestSeveralManagers(t *testing.T) {
	one, two := sitetest.NewLab(t), sitetest.NewLab(t, func(c *sojourn.Config) { c.Name = "other" })
	address := serve(t, &service{do: func(ctx context.Context, params map[string]string) (string, error) {
		for _, s := range []*sitetest.Lab{one, two} {
			session, err := s.Get(ctx)
			if err != nil {
				return "", err
			}
			sitetest.CartKey.Set(session, 1)
		}
		if params["fail"] != "" {
			return "", errors.New("broken")
		}
		return "", nil
	}}, []*sojourn.Manager{one.Manager, two.Manager, one.Manager}) // and one of them twice
	conn := dial(t, address)
	for fail, want := range map[string]int{"": 2, "yes": 0} {
		var header metadata.MD
		_ = conn.Invoke(t.Context(), doMethod, structOf(map[string]string{"fail": fail}), &wrapperspb.StringValue{}, grpc.Header(&header))
		if got := len(header["set-cookie"]); got != want {
			t.Errorf("fail=%q: %d cookies were set", fail, got)
		}
	}
	two.Store.SaveDown.Store(true) // the inner one; the outer one keeps nothing either
	var header metadata.MD
	err := conn.Invoke(t.Context(), doMethod, structOf(nil), &wrapperspb.StringValue{}, grpc.Header(&header))
	code(t, err, codes.Unavailable)
	if len(header["set-cookie"]) > 0 {
		t.Errorf("the header is %v", header)
	}
}

func TestInsideWrapTheSessionIsThatOfWrap(t *testing.T) {
	s := sitetest.NewLab(t)
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(sojourngrpc.Unary(s.Manager)), grpc.ChainStreamInterceptor(sojourngrpc.Stream(s.Manager)))
	get := func(ctx context.Context, params map[string]string) error {
		session, err := s.Get(ctx)
		if err != nil {
			return err
		}
		sitetest.CartKey.Update(session, sitetest.AddOne)
		if params["fail"] != "" {
			return status.Error(codes.NotFound, "none")
		}
		return nil
	}
	server.RegisterService(&description, &service{
		do: func(ctx context.Context, params map[string]string) (string, error) { return "", get(ctx, params) },
		watch: func(params map[string]string, stream grpc.ServerStream) error {
			return errors.Join(get(stream.Context(), params), stream.SendMsg(wrapperspb.String("")))
		},
	})
	web := httptest.NewUnstartedServer(s.Wrap(server))
	web.Config.Protocols = new(http.Protocols)
	web.Config.Protocols.SetUnencryptedHTTP2(true)
	web.Start()
	t.Cleanup(web.Close)
	conn := dial(t, web.Listener.Addr().String())
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "cookie", v.Header())
	out := &wrapperspb.StringValue{}
	code(t, conn.Invoke(ctx, doMethod, structOf(nil), out), codes.OK)
	code(t, conn.Invoke(ctx, doMethod, structOf(map[string]string{"fail": "yes"}), out), codes.NotFound)
	_, _, err := watch(ctx, conn)
	code(t, err, codes.OK)
	s.Store.SaveDown.Store(true)
	code(t, conn.Invoke(ctx, doMethod, structOf(nil), out), codes.Unavailable)
	_, _, err = watch(ctx, conn)
	code(t, err, codes.Unavailable)
	if _, text := sojourn.ErrorStatus(sojourn.ErrUnavailable); status.Convert(err).Message() != text {
		t.Errorf("the error is that of HTTP: %v", err)
	}
	s.Store.SaveDown.Store(false)
	s.Do(v, func(session *sojourn.Session) {
		if n := sitetest.CartKey.Get(session); n != 3 {
			t.Errorf("the cart is %d", n)
		}
	})
}

func TestWhatASessionKnowsOfACall(t *testing.T) {
	var info sojourn.RequestInfo
	s := &service{do: func(ctx context.Context, _ map[string]string) (string, error) {
		info = sojourngrpc.InfoOf(ctx)
		return "", nil
	}}
	certified := httptest.NewTLSServer(nil)
	t.Cleanup(certified.Close)
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	for name, test := range map[string]struct {
		server []grpc.ServerOption
		client credentials.TransportCredentials
	}{
		"plain": {nil, insecure.NewCredentials()},
		"TLS": {
			[]grpc.ServerOption{grpc.Creds(credentials.NewServerTLSFromCert(&certified.TLS.Certificates[0]))},
			credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "example.com"}),
		},
	} {
		conn, err := grpc.NewClient(serve(t, s, nil, test.server...), grpc.WithTransportCredentials(test.client), grpc.WithAuthority("example.com"), grpc.WithUserAgent("shop/1"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		ctx := metadata.AppendToOutgoingContext(t.Context(), "cookie", "a=1", "cookie", "b=2", "authorization", "Bearer x",
			"sojourn-background", "1", "x-forwarded-for", "192.0.2.1", "trace-bin", "\x00\x01")
		if _, _, err := do(ctx, conn); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"Cookie": "a=1; b=2", "Authorization": "Bearer x", "Sojourn-Background": "1",
			"X-Forwarded-For": "192.0.2.1", "User-Agent": "shop/1 grpc-go/" + grpc.Version, "Trace-Bin": "", ":authority": "",
		} {
			if got := strings.Join(info.Header[name], "; "); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if info.Method != "" || info.Host != "example.com" || !strings.HasPrefix(info.RemoteAddr, "127.0.0.1:") || info.Encrypted != (name == "TLS") {
			t.Errorf("%s: host %q, address %q, encrypted: %t", name, info.Host, info.RemoteAddr, info.Encrypted)
		}
	}
}

func TestAStreamEndsWithItsSession(t *testing.T) {
	s := newShop(t, func(_ context.Context, session *sojourn.Session) (string, error) {
		session.Logout()
		return "", nil
	}, func(session *sojourn.Session, stream grpc.ServerStream) error {
		if err := stream.SendMsg(wrapperspb.String("hello")); err != nil {
			return err
		}
		<-session.Done()
		return session.Err()
	})
	_, ctx, conn := s.visitor()
	stream, err := conn.NewStream(ctx, &description.Streams[0], watchMethod)
	if err == nil {
		err = errors.Join(stream.SendMsg(&structpb.Struct{}), stream.CloseSend(), stream.RecvMsg(&wrapperspb.StringValue{}))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := do(ctx, conn); err != nil {
		t.Fatal(err)
	}
	code(t, stream.RecvMsg(&wrapperspb.StringValue{}), codes.Aborted)
}

func TestErrorsHaveACodeAndAPublicText(t *testing.T) {
	for err, want := range map[error]codes.Code{
		sojourn.ErrUnavailable: codes.Unavailable, sojourn.ErrClosed: codes.Unavailable, sojourn.ErrEnded: codes.Aborted,
		sojourn.ErrTaken: codes.Aborted, sojourn.ErrTooManySessions: codes.Aborted, sojourn.ErrTooLarge: codes.ResourceExhausted,
		sojourn.ErrNotFound: codes.NotFound, sojourn.ErrTooLate: codes.Internal, sojourn.ErrNoMiddleware: codes.Internal,
	} {
		got := fmt.Errorf("adding: %w", sojourngrpc.Error(fmt.Errorf("secret: %w", err)))
		if code(t, got, want); !errors.Is(got, err) || strings.Contains(status.Convert(got).Message(), "secret") {
			t.Errorf("%v became %v", err, got)
		}
	}
	for _, other := range []error{nil, io.EOF, status.Error(codes.NotFound, "none"), errors.Join(status.Error(codes.NotFound, "none"), sojourn.ErrEnded)} {
		if got := sojourngrpc.Error(other); !errors.Is(got, other) || status.Code(got) != status.Code(other) {
			t.Errorf("%v became %v", other, got)
		}
	}
}

func TestAJarIsAVisitor(t *testing.T) {
	s := newShop(t, func(_ context.Context, session *sojourn.Session) (string, error) {
		if sitetest.CartKey.Update(session, sitetest.AddOne) == 3 {
			session.Logout()
		}
		return fmt.Sprint(sitetest.CartKey.Get(session)), nil
	}, func(session *sojourn.Session, stream grpc.ServerStream) error {
		return stream.SendMsg(wrapperspb.String(fmt.Sprint(sitetest.CartKey.Update(session, sitetest.AddOne))))
	})
	var anna, bert sojourngrpc.Jar
	one, two := dial(t, s.address, anna.DialOptions()...), dial(t, s.address, bert.DialOptions()...)
	var got []string
	for _, call := range []struct {
		conn   *grpc.ClientConn
		stream bool
	}{{one, true}, {one, false}, {two, false}, {two, true}, {one, false}, {one, true}} {
		if call.stream {
			lines, _, err := watch(t.Context(), call.conn)
			if err != nil {
				t.Error(err)
			}
			got = append(got, lines...)
			continue
		}
		text, _, err := do(t.Context(), call.conn)
		if err != nil {
			t.Error(err)
		}
		got = append(got, text)
	}
	if text := strings.Join(got, " "); text != "1 2 1 2 0 1" {
		t.Errorf("the counts are %s", text)
	}
	if text := fmt.Sprintf("%v %+v", &anna, struct{ jar *sojourngrpc.Jar }{&anna}); strings.Contains(text, "session") {
		t.Errorf("a jar prints %s", text)
	}
}

// A client with a token receives the next one only in this header.
func TestARenewedTokenIsInTheHeaderOfTheAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		then func(*sojourn.Session)
		over bool
	}{
		"Rotate": {(*sojourn.Session).Rotate, false},
		"Login":  {func(session *sojourn.Session) { session.Login("ada", "otp") }, false},
		"Logout": {(*sojourn.Session).Logout, true},
	} {
		t.Run(name, func(t *testing.T) {
			call := func(ctx context.Context, session *sojourn.Session) (string, error) {
				session.Login("ada")
				return session.Token(ctx)
			}
			s := newShop(t, func(ctx context.Context, session *sojourn.Session) (string, error) { return call(ctx, session) }, nil,
				func(c *sojourn.Config) { c.Bearer = true })
			conn := dial(t, s.address)
			token, _, err := do(t.Context(), conn)
			if err != nil {
				t.Fatal(err)
			}
			with := func(token string) context.Context {
				return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
			}
			call = func(_ context.Context, session *sojourn.Session) (string, error) {
				test.then(session)
				return "", nil
			}
			_, header, err := do(with(token), conn)
			renewed := header.Get("sojourn-token")
			if err != nil || len(renewed) != 1 || (renewed[0] == "") != test.over || renewed[0] == token || len(header.Get("set-cookie")) > 0 {
				t.Fatalf("%d tokens, %v", len(renewed), err)
			}
			call = func(_ context.Context, session *sojourn.Session) (string, error) { return session.User(), nil }
			if user, _, err := do(with(renewed[0]), conn); err != nil || (user == "ada") == test.over {
				t.Errorf("with the new token: %q, %v", user, err)
			}
		})
	}
}
