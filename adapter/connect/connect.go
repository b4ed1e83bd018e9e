// Package sojournconnect is Sojourn for connect-go, for each of its protocols:
// Connect, gRPC and gRPC-Web.
//
//	mux := http.NewServeMux()
//	mux.Handle(shopconnect.NewShopHandler(shop, connect.WithInterceptors(sojournconnect.Interceptor())))
//	http.ListenAndServe(":8080", sessions.Wrap(mux))
//
//	func (s *shop) Add(ctx context.Context, in *connect.Request[pb.Item]) (*connect.Response[pb.Cart], error) {
//		session, err := sessions.Get(ctx)
//		if err != nil {
//			return nil, err
//		}
//		…
//	}
//
// [sojourn.Manager.Wrap] loads the session and sets the cookies, as for other
// handlers of net/http. Wrap only sees HTTP statuses, and a failed call may
// have status 200. The interceptor adds the rules for calls: after a handler's
// error or panic, only a Logout is kept, and a failed commit is the call's
// error.
package sojournconnect

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"connectrpc.com/connect"

	"github.com/sojourn-go/sojourn"
)

// Interceptor returns the interceptor for handlers, for the sessions of all
// managers that are wrapped around them. Put it first in
// [connect.WithInterceptors], so that it sees the errors of the others. The
// answer "not modified" to a GET does not count as a failure. Clients are not
// intercepted.
func Interceptor() connect.Interceptor { return interceptor{} }

type interceptor struct{}

// WrapUnary implements [connect.Interceptor].
func (interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (response connect.AnyResponse, err error) {
		if request.Spec().IsClient {
			return next(ctx, request)
		}
		var unmodified error
		err = run(ctx, func() error {
			response, err = next(ctx, request)
			if request.HTTPMethod() == http.MethodGet && connect.IsNotModifiedError(err) {
				unmodified, err = err, nil
			}
			return err
		})
		if err == nil {
			err = unmodified
		}
		if err != nil {
			return nil, err
		}
		return response, nil
	}
}

// WrapStreamingClient implements [connect.Interceptor].
func (interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements [connect.Interceptor].
func (interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		s := &stream{StreamingHandlerConn: conn, ctx: ctx}
		return run(ctx, func() error {
			if err := next(ctx, s); err != nil {
				return err
			}
			return s.result // even if the handler dropped it
		})
	}
}

// run runs a handler and keeps its changes.
func run(ctx context.Context, handle func() error) error {
	returned := false // false if the handler panics
	defer func() {
		if !returned {
			sojourn.Fail(ctx) // an outer handler may answer 200
		}
	}()
	err := handle()
	returned = true
	if err != nil {
		sojourn.Fail(ctx)
		return Error(err)
	}
	return commit(ctx)
}

func commit(ctx context.Context) error {
	if err := sojourn.Commit(ctx); err != nil {
		return newError(err)
	}
	return nil
}

// stream commits before its first message.
type stream struct {
	connect.StreamingHandlerConn
	ctx    context.Context
	once   sync.Once
	result error
}

// Send implements [connect.StreamingHandlerConn].
func (s *stream) Send(message any) error {
	s.once.Do(func() { s.result = commit(s.ctx) })
	if s.result != nil {
		return s.result
	}
	return s.StreamingHandlerConn.Send(message)
}

// Error returns the [connect.Error] for an error of sojourn, such as one of
// [sojourn.Manager.Get]. Its code is Unauthenticated, Aborted,
// ResourceExhausted, NotFound, Unavailable or Internal, and its text that of
// [sojourn.ErrorStatus]. It wraps err, which is not sent to clients. Other
// errors, and a connect.Error, are returned unchanged. The interceptor calls
// Error for the errors of handlers.
func Error(err error) error {
	if already := (*connect.Error)(nil); errors.As(err, &already) || !sojourn.IsError(err) {
		return err
	}
	return newError(err)
}

func newError(err error) error {
	status, text := sojourn.ErrorStatus(err)
	code := connect.CodeInternal
	switch status {
	case http.StatusUnauthorized:
		code = connect.CodeUnauthenticated
	case http.StatusNotFound:
		code = connect.CodeNotFound
	case http.StatusConflict:
		code = connect.CodeAborted
	case http.StatusRequestEntityTooLarge:
		code = connect.CodeResourceExhausted
	case http.StatusServiceUnavailable:
		code = connect.CodeUnavailable
	}
	return connect.NewError(code, &public{text, err})
}

// public is an error with a text for clients.
type public struct {
	text  string
	cause error
}

func (p *public) Error() string { return p.text }
func (p *public) Unwrap() error { return p.cause }
