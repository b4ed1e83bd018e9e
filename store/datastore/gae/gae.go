// Package gae keeps sessions in App Engine's bundled services: the records in
// its datastore, and copies of them in its memcache.
//
//	db, err := gae.New(gae.Options{})
//	copies, err := gae.NewCache(gae.CacheOptions{})
//	sessions, err := tiered.New(db, tiered.Layer{Cache: copies, MaxStale: 30 * time.Second})
//	…
//	http.Handle("/tasks/sweep", gae.Cron(db, 0))
//	http.ListenAndServe(":"+os.Getenv("PORT"), appengine.Middleware(manager.Wrap(http.DefaultServeMux)))
//
// The bundled services belong to a request: App Engine answers calls only while
// the request is being served whose context they carry. So appengine.Middleware
// (or appengine.Main) goes around [sojourn.Manager.Wrap], and the contexts that
// the session manager derives from the request's do. Every other context gives
// [ErrNoRequest].
//
// The App Engine library heeds a context's deadline during a call, and its
// cancellation only between calls.
//
// An app that does not depend on the bundled services uses package
// cloud beside this one instead. Both keep the same entities in the same place, so
// changing over is a change of the program alone.
//
// [sojourn.Manager.Wrap]: https://pkg.go.dev/github.com/sojourn-go/sojourn#Manager.Wrap
package gae

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/appengine/v2"

	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

// ErrNoRequest says that a context does not come from a request that App
// Engine's middleware has seen. The bundled services cannot be called with it.
var ErrNoRequest = errors.New("not in an App Engine request: appengine.Middleware has to be around the handler and around the session manager's Wrap, and the context has to be the request's")

// begin checks a call's context before anything is sent, and puts the call into
// the namespace.
func begin(ctx context.Context, namespace, doing string) (context.Context, error) {
	if err := ctx.Err(); err != nil {
		return nil, failed(ctx, doing, err)
	}
	if !inRequest(ctx) {
		return nil, failed(ctx, doing, ErrNoRequest)
	}
	ctx, err := appengine.Namespace(ctx, namespace)
	return ctx, failed(ctx, doing, err)
}

// inBackground makes ErrNoRequest say, that something is not supported: the
// session manager, which asks for it in the background, then does without.
func inBackground(err error) error {
	if errors.Is(err, ErrNoRequest) {
		return fmt.Errorf("%w: %w", err, errors.ErrUnsupported)
	}
	return err
}

// inRequest reports whether the App Engine library finds a request in ctx. The
// library has no such question, but it looks for the request, by a key that
// only it has, when it is asked for the request's name.
func inRequest(ctx context.Context) bool {
	w := &watched{Context: ctx}
	_ = appengine.RequestID(w)
	return w.found
}

// watched is a context that notes whether something was found in it.
type watched struct {
	context.Context
	found bool
}

func (w *watched) Value(key any) any {
	v := w.Context.Value(key)
	w.found = w.found || v != nil
	return v
}

// failed says what was being done when err came back, unless it is nil.
func failed(ctx context.Context, doing string, err error) error {
	if ctx.Err() == nil && appengine.IsTimeoutError(err) {
		// The library's clock runs a little ahead of the context's.
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return entity.Failed(ctx, "gae: "+doing, err)
}
