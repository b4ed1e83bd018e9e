// Package sojourngqlgen is Sojourn for gqlgen servers:
//
//	server := handler.New(graph.NewExecutableSchema(graph.Config{Resolvers: resolvers}))
//	server.AddTransport(transport.POST{})
//	server.Use(sojourngqlgen.New(sessions)) // before other extensions
//	http.Handle("/query", sessions.Wrap(server))
//
//	func (r *mutationResolver) Add(ctx context.Context, item string) (*Cart, error) {
//		session, err := sessions.Get(ctx)
//		if err != nil {
//			return nil, err
//		}
//		…
//	}
//
// [sojourn.Manager.Wrap] loads the session and sets the cookies, as for other
// handlers of net/http. Wrap only sees HTTP statuses, and GraphQL answers 200
// with errors inside. The extension adds the rules for operations: if the
// response has errors, only a Logout is kept, and a failed commit is an error
// of the response. Subscriptions end with the session.
//
// Errors of sojourn, also from resolvers, have the text of
// [sojourn.ErrorStatus] as the message, and the extension "code":
// UNAUTHENTICATED, CONFLICT, TOO_LARGE, NOT_FOUND, UNAVAILABLE or INTERNAL.
package sojourngqlgen

import (
	"context"
	"net/http"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/sojourn-go/sojourn"
)

// Extension is an extension of a gqlgen server. Make one with [New].
type Extension struct {
	managers []*sojourn.Manager

	mu    sync.Mutex
	turns map[*sojourn.Session]*turn
}

// New returns the extension for the sessions of these managers, which are
// wrapped around the server. Pass it to Use before any other extension, so that
// it sees their errors.
//
// The changes of a query or a mutation by HTTP are kept before its response is
// written; the extension itself loads no session. A subscription loads its
// session and ends with it: the last response has the reason.
//
// A WebSocket has one session for all of its operations, and its cookies are
// already sent. Mutations of one connection run one after the other. If one
// fails, its changes are dropped, including a Logout. Changes that need a
// cookie, such as a login, are an error. Queries do not save changes.
func New(managers ...*sojourn.Manager) *Extension {
	return &Extension{managers: managers, turns: map[*sojourn.Session]*turn{}}
}

// ExtensionName implements [graphql.HandlerExtension].
func (e *Extension) ExtensionName() string { return "SojournSessions" }

// Validate implements [graphql.HandlerExtension].
func (e *Extension) Validate(graphql.ExecutableSchema) error { return nil }

// InterceptOperation implements [graphql.OperationInterceptor].
func (e *Extension) InterceptOperation(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	responses := e.intercept(ctx, next)
	return func(ctx context.Context) *graphql.Response {
		resp := responses(ctx)
		if resp != nil {
			translate(resp.Errors)
		}
		return resp
	}
}

func (e *Extension) intercept(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	op := graphql.GetOperationContext(ctx)
	socket := op.Headers.Get("Upgrade") != "" // by the transport's own rule
	switch {
	case op.Operation.Operation == ast.Subscription:
		return e.subscription(ctx, next)
	case !socket:
		return operation(next(ctx))
	case op.Operation.Operation == ast.Mutation:
		return e.socketMutation(ctx, next)
	default:
		return next(ctx)
	}
}

// operation keeps the changes of a query or a mutation. With @defer there are
// several responses.
func operation(responses graphql.ResponseHandler) graphql.ResponseHandler {
	return func(ctx context.Context) *graphql.Response {
		resp := responses(ctx)
		switch {
		case resp == nil:
			return nil
		case len(resp.Errors) > 0:
			sojourn.Fail(ctx)
			return resp
		}
		if err := sojourn.Commit(ctx); err != nil {
			return failed(err)
		}
		return resp
	}
}

// socketMutation runs a mutation after the previous ones.
func (e *Extension) socketMutation(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	sessions, err := e.sessions(ctx)
	if err != nil {
		return graphql.OneShot(failed(err))
	}
	responses := next(ctx)
	return func(ctx context.Context) *graphql.Response {
		for _, s := range sessions {
			defer e.turn(s)()
		}
		drop := true // also after a panic
		defer func() {
			if drop {
				for _, s := range sessions {
					s.Discard()
				}
			}
		}()
		resp := responses(ctx)
		if resp == nil { // there is no other
			drop = false
			return nil
		}
		if len(resp.Errors) > 0 {
			return resp
		}
		for _, s := range sessions {
			if err := s.Save(ctx); err != nil {
				return failed(err)
			}
		}
		drop = false
		return resp
	}
}

// subscription ends when one of the sessions does.
func (e *Extension) subscription(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	sessions, err := e.sessions(ctx)
	if err != nil {
		return graphql.OneShot(failed(err))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	for _, s := range sessions {
		done := s.Done()
		go func() {
			select {
			case <-done:
				cancel(&ended{s.Err()})
			case <-ctx.Done():
			}
		}()
	}
	responses := next(ctx)
	over := false
	return func(by context.Context) *graphql.Response {
		if over {
			return nil
		}
		if resp := responses(by); resp != nil {
			return resp
		}
		over = true
		cancel(nil)
		if end, ok := context.Cause(ctx).(*ended); ok { //nolint:errorlint // it is the argument of cancel
			return failed(end.error)
		}
		return nil
	}
}

// ended is the reason for the end of a subscription.
type ended struct{ error }

func (e *Extension) sessions(ctx context.Context) (sessions []*sojourn.Session, err error) {
	for _, m := range e.managers {
		s, err := m.Get(ctx)
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, s)
	}
	return sessions, nil
}

// turn serializes the changes of a connection's session.
type turn struct {
	sync.Mutex
	users int // guarded by the extension's mu
}

// turn waits for the turn with a session, and returns the function that ends it.
func (e *Extension) turn(s *sojourn.Session) (end func()) {
	e.mu.Lock()
	t := e.turns[s]
	if t == nil {
		t = &turn{}
		e.turns[s] = t
	}
	t.users++
	e.mu.Unlock()
	t.Lock()
	return func() {
		t.Unlock()
		e.mu.Lock()
		defer e.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(e.turns, s)
		}
	}
}

func failed(err error) *graphql.Response {
	return &graphql.Response{Errors: gqlerror.List{newError(err)}}
}

// translate makes resolvers' errors of sojourn public, unless an error
// presenter has done so.
func translate(list gqlerror.List) {
	for _, e := range list {
		if e.Err == nil || e.Message != e.Err.Error() || !sojourn.IsError(e.Err) {
			continue
		}
		public := newError(e.Err)
		e.Message = public.Message
		if e.Extensions == nil {
			e.Extensions = map[string]any{}
		}
		if e.Extensions["code"] == nil {
			e.Extensions["code"] = public.Extensions["code"]
		}
	}
}

// newError returns the public error, with a code, for an error of sojourn. It
// wraps err, which is not sent to clients.
func newError(err error) *gqlerror.Error {
	status, text := sojourn.ErrorStatus(err)
	code := "INTERNAL"
	switch status {
	case http.StatusUnauthorized:
		code = "UNAUTHENTICATED"
	case http.StatusNotFound:
		code = "NOT_FOUND"
	case http.StatusConflict:
		code = "CONFLICT"
	case http.StatusRequestEntityTooLarge:
		code = "TOO_LARGE"
	case http.StatusServiceUnavailable:
		code = "UNAVAILABLE"
	}
	return &gqlerror.Error{Err: err, Message: text, Extensions: map[string]any{"code": code}}
}
