// Package sojourngrpc is Sojourn for servers of grpc-go:
//
//	server := grpc.NewServer(
//		grpc.ChainUnaryInterceptor(sojourngrpc.Unary(sessions)),
//		grpc.ChainStreamInterceptor(sojourngrpc.Stream(sessions)),
//	)
//
//	func (s *shop) Add(ctx context.Context, in *pb.Item) (*pb.Cart, error) {
//		session, err := sessions.Get(ctx)
//		if err != nil {
//			return nil, err
//		}
//		…
//	}
//
// The session's cookies travel as metadata: "cookie" to the server, "set-cookie"
// in the header of the answer. A client in Go can use [Jar]. A client that has a
// token (see [sojourn.Session.Token]) sends it as "authorization", and gets a
// renewed one as "sojourn-token".
//
// A call's changes are kept once: before its header is sent, or after the
// handler has returned. If the handler returns an error, only a Logout is kept.
// A failed commit is the call's error. Later changes of a stored session, in a
// stream, are kept when the handler returns without an error.
package sojourngrpc

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sojourn-go/sojourn"
)

// Unary returns the interceptor for unary calls. Several managers each need
// one. If the gRPC server is a handler inside [sojourn.Manager.Wrap], the
// session is that of Wrap.
//
// In a handler's context, grpc.SendHeader commits first. grpc.SetSendCompressor
// and grpc.ClientSupportedCompressors do not work with that context; call them
// in an outer interceptor.
func Unary(m *sojourn.Manager) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		err = serve(m, ctx, func(ctx context.Context, _ *call) error {
			resp, err = handler(ctx, req)
			return err
		})
		if err != nil {
			return nil, err
		}
		return resp, nil
	}
}

// Stream returns the interceptor for calls with streams. It commits before the
// first message or header that the handler sends. A long stream should end with
// the session:
//
//	select {
//	case <-session.Done():
//		return status.Error(codes.Unauthenticated, "signed out")
//	case event := <-events:
//		…
//	}
func Stream(m *sojourn.Manager) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return serve(m, ss.Context(), func(ctx context.Context, c *call) error {
			return handler(srv, &stream{ss, ctx, c})
		})
	}
}

// serve runs a call's handler and keeps its changes.
func serve(m *sojourn.Manager, ctx context.Context, handle func(context.Context, *call) error) (err error) {
	c := &call{}
	if ctx.Value(m) == nil { // else Wrap or this interceptor is outside
		incoming := ctx
		ctx, c.exchange = m.Attach(ctx, func() sojourn.RequestInfo { return infoOf(incoming) })
		if c.transport = grpc.ServerTransportStreamFromContext(ctx); c.transport != nil {
			ctx = grpc.NewContextWithServerTransportStream(ctx, &transportStream{c.transport, c})
		}
	}
	c.ctx = ctx
	returned := false // false if the handler panics
	defer func() {
		if !returned {
			sojourn.Fail(ctx)
			_ = c.finish()
		}
	}()
	err = handle(ctx, c)
	returned = true
	if err != nil {
		sojourn.Fail(ctx)
		err = Error(err)
	}
	if failed := c.commit(err == nil); failed != nil {
		err = failed
	}
	if failed := c.finish(); failed != nil && err == nil {
		err = failed // the call's status is not sent yet
	}
	return err
}

// call is a call with the session of one manager.
type call struct {
	ctx       context.Context            // of the handler
	exchange  *sojourn.Exchange          // nil: an outer Wrap or interceptor has it
	transport grpc.ServerTransportStream // nil in a test without a server

	once   sync.Once
	result error
}

// commit keeps the session's changes, or only a Logout if the call has failed,
// and sets the cookies. Later calls return the first result.
func (c *call) commit(ok bool) error {
	c.once.Do(func() {
		if err := c.start(ok); err != nil {
			c.result = newFailure(err)
			sojourn.Fail(c.ctx)
		}
	})
	return c.result
}

func (c *call) start(ok bool) error {
	if c.exchange == nil {
		return sojourn.Commit(c.ctx) // does nothing if the call has failed
	}
	code := http.StatusOK
	if !ok {
		code = http.StatusInternalServerError
	}
	// It fails if an outer interceptor has sent the header: then no cookie can be set.
	if c.transport == nil || c.transport.SetHeader(metadata.MD{setCookie: nil}) != nil {
		return c.exchange.Commit(code, nil)
	}
	h := http.Header{}
	err := c.exchange.Commit(code, h)
	for _, name := range [...]string{setCookie, "sojourn-token"} {
		if lines := h[http.CanonicalHeaderKey(name)]; len(lines) > 0 {
			if sent := c.transport.SetHeader(metadata.MD{name: lines}); err == nil {
				err = sent
			}
		}
	}
	return err
}

func (c *call) finish() error {
	if c.exchange == nil {
		return nil
	}
	if err := c.exchange.Finish(); err != nil {
		return newFailure(err)
	}
	return nil
}

const setCookie = "set-cookie"

// transportStream is the stream of a handler's context, for grpc.SendHeader.
type transportStream struct {
	grpc.ServerTransportStream
	call *call
}

// SendHeader implements [grpc.ServerTransportStream].
func (s *transportStream) SendHeader(md metadata.MD) error {
	if err := s.call.commit(true); err != nil {
		return err
	}
	return s.ServerTransportStream.SendHeader(md)
}

type stream struct {
	grpc.ServerStream
	ctx  context.Context
	call *call
}

// Context implements [grpc.ServerStream].
func (s *stream) Context() context.Context { return s.ctx }

// SendHeader implements [grpc.ServerStream].
func (s *stream) SendHeader(md metadata.MD) error {
	if err := s.call.commit(true); err != nil {
		return err
	}
	return s.ServerStream.SendHeader(md)
}

// SendMsg implements [grpc.ServerStream].
func (s *stream) SendMsg(message any) error {
	if err := s.call.commit(true); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(message)
}

// infoOf returns the request information for a session.
func infoOf(ctx context.Context) sojourn.RequestInfo {
	info := sojourn.RequestInfo{Header: http.Header{}}
	md, _ := metadata.FromIncomingContext(ctx) // a copy
	for name, values := range md {
		switch {
		case name == ":authority" && len(values) > 0:
			info.Host = values[0]
		case !strings.HasPrefix(name, ":") && !strings.HasSuffix(name, "-bin"):
			info.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	// The browser's fields from a grpc-gateway, whose own User-Agent is above.
	for name, values := range md {
		if name, ok := strings.CutPrefix(name, "grpcgateway-"); ok {
			info.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	if p, ok := peer.FromContext(ctx); ok {
		if p.Addr != nil {
			info.RemoteAddr = p.Addr.String()
		}
		_, info.Encrypted = p.AuthInfo.(credentials.TLSInfo)
	}
	return info
}

// Error returns the status error for an error of sojourn, such as one of
// [sojourn.Manager.Get]: Unauthenticated, Aborted, ResourceExhausted, NotFound,
// Unavailable or Internal, with the text of [sojourn.ErrorStatus]. It wraps
// err, which is not sent to clients. Other errors, and status errors, are
// returned unchanged. The interceptors call Error for the errors of handlers.
func Error(err error) error {
	if _, already := status.FromError(err); already || !sojourn.IsError(err) {
		return err
	}
	return newFailure(err)
}

func newFailure(err error) error {
	httpStatus, text := sojourn.ErrorStatus(err)
	code := codes.Internal
	switch httpStatus {
	case http.StatusUnauthorized:
		code = codes.Unauthenticated
	case http.StatusNotFound:
		code = codes.NotFound
	case http.StatusConflict:
		code = codes.Aborted
	case http.StatusRequestEntityTooLarge:
		code = codes.ResourceExhausted
	case http.StatusServiceUnavailable:
		code = codes.Unavailable
	}
	return &failure{status.New(code, text), err}
}

type failure struct {
	status *status.Status
	cause  error
}

func (f *failure) Error() string              { return f.status.Message() }
func (f *failure) Unwrap() error              { return f.cause }
func (f *failure) GRPCStatus() *status.Status { return f.status }
