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
// A call to the bundled services needs the context of a request that is being
// served. So put appengine.Middleware (or appengine.Main) around
// [sojourn.Manager.Wrap]. The contexts that the session manager derives from
// the request's work; any other context gives [ErrNoRequest].
//
// The App Engine library observes a context's deadline during a call, but its
// cancellation only between calls.
//
// An app that does not depend on the bundled services uses package cloud
// instead. Both packages keep the same entities in the same place, so switching
// needs no migration.
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

// ErrNoRequest means that a context does not come from a request inside App
// Engine's middleware. The bundled services cannot be called with it.
var ErrNoRequest = errors.New("not in an App Engine request: appengine.Middleware has to be around the handler and around the session manager's Wrap, and the context has to be the request's")

// begin checks a call's context before anything is sent, and sets the
// namespace.
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

// inBackground adds errors.ErrUnsupported to ErrNoRequest, so that the session
// manager's background tasks do without the feature.
func inBackground(err error) error {
	if errors.Is(err, ErrNoRequest) {
		return fmt.Errorf("%w: %w", err, errors.ErrUnsupported)
	}
	return err
}

// inRequest reports whether the App Engine library finds a request in ctx. The
// library has no function for this, but looks up the request, under a private
// key, to return the request's name.
func inRequest(ctx context.Context) bool {
	w := &watched{Context: ctx}
	_ = appengine.RequestID(w)
	return w.found
}

// watched is a context that records whether a value was found in it.
type watched struct {
	context.Context
	found bool
}

func (w *watched) Value(key any) any {
	v := w.Context.Value(key)
	w.found = w.found || v != nil
	return v
}

// failed adds the operation to err, unless it is nil.
func failed(ctx context.Context, doing string, err error) error {
	if ctx.Err() == nil && appengine.IsTimeoutError(err) {
		// The library's clock runs a little ahead of the context's.
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return entity.Failed(ctx, "gae: "+doing, err)
}
