package tiered

import (
	"context"
	"sync"

	"github.com/sojourn-go/sojourn/store"
)

// flights makes parallel loads of one session share one load from the origin. A
// load can be joined only until it is sent: later, its result may miss a change
// that the joiner must see.
type flights struct {
	mu   sync.Mutex
	byID map[store.ID]*flight
}

type flight struct {
	done chan struct{}
	rec  store.Record
	err  error
	// cancelled: the leader's context ended, so the joiners have no result.
	cancelled bool
}

// do runs load, or joins one that was not sent yet. load calls sent right
// before it calls the origin. A joiner whose leader was canceled loads for
// itself.
func (fs *flights) do(ctx context.Context, id store.ID, load func(ctx context.Context, sent func()) (store.Record, error)) (store.Record, error) {
	fs.mu.Lock()
	f := fs.byID[id]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		if fs.byID == nil {
			fs.byID = map[store.ID]*flight{}
		}
		fs.byID[id] = f
		fs.mu.Unlock()
		return fs.lead(ctx, id, f, load)
	}
	fs.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		return store.Record{}, context.Cause(ctx)
	}
	if f.cancelled {
		return load(ctx, func() {})
	}
	return f.rec, f.err
}

func (fs *flights) lead(ctx context.Context, id store.ID, f *flight, load func(ctx context.Context, sent func()) (store.Record, error)) (store.Record, error) {
	defer close(f.done)
	defer fs.leave(id, f)
	f.rec, f.err = load(ctx, func() { fs.leave(id, f) })
	f.cancelled = f.err != nil && ctx.Err() != nil
	return f.rec, f.err
}

// leave stops further calls from joining f.
func (fs *flights) leave(id store.ID, f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.byID[id] == f {
		delete(fs.byID, id)
	}
}
