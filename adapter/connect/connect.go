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
// handlers of net/http. It sees HTTP statuses only, and a call that fails may be
// answered 200. The interceptor says what has failed: an error that a handler
// returns keeps nothing but a Logout, a panic likewise, and a commit that fails is
// the call's error.
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
// managers that are wrapped around them. Give it to [connect.WithInterceptors]
// as the first one, so that it sees the errors of the others. The answer "not
// modified" to a GET is no failure. Clients are not intercepted.
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
			return s.result // whatever the handler made of it
		})
	}
}

// run runs a handler, and keeps what it has changed.
func run(ctx context.Context, handle func() error) error {
	returned := false // or the handler panics
	defer func() {
		if !returned {
			sojourn.Fail(ctx) // somebody outside may answer 200
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

// Error returns the [connect.Error] that answers an error of sojourn, such as one
// of [sojourn.Manager.Get]: it has the code Unauthenticated, Aborted,
// ResourceExhausted, NotFound, Unavailable or Internal, and the text of
// [sojourn.ErrorStatus]. It wraps err, which clients do not see. Other errors, and
// what is a connect.Error already, are returned as they are. The interceptor calls
// it for the errors that handlers return.
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
