// Package ends signals the end of a session to requests that wait for it:
// within this process at once, and for other processes through the store's feed
// of ends, which one goroutine reads while any request waits. A callback checks
// a session's state.
package ends

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

const (
	// feedInterval allows for a slow answer within the second in which a stream
	// should end.
	feedInterval = 400 * time.Millisecond
	feedPage     = 1000

	// feedMemory is how long a received end is remembered, for requests that
	// loaded the session before it and start to wait afterwards.
	feedMemory = 2 * time.Minute

	// idlePolls is how many more polls follow the end of the last stream: for
	// half a minute.
	idlePolls = int(30 * time.Second / feedInterval)

	// feedFailures is the number of consecutive failed polls after which the
	// feed restarts: the server may have lost the data for the cursor.
	feedFailures = 5

	// looksAtOnce is how many sessions are loaded in parallel when the feed has
	// missed ends.
	looksAtOnce = 16
)

// Options are the dependencies of a Feed.
type Options struct {
	Store store.Store // nil = sessions end by their deadlines only
	Now   func() time.Time
	// Read reads a page of the feed, bounded in time, and reports its failures.
	Read func(ctx context.Context, feed store.EndFeed, cursor string, limit int) (store.EndPage, error)
}

// Look checks a session. It returns when the session expires unless it is used,
// or fault.Ended, fault.Expired, fault.Closed (no request waits any more), or
// another error if the state is unknown.
type Look func(ctx context.Context, id store.ID) (deadline time.Time, err error)

// Feed receives the ends of sessions. It is safe for concurrent use.
type Feed struct {
	o       Options
	stop    context.Context
	watches watches

	mu      sync.Mutex
	reading bool
	// listening is the time from which the feed has every end; zero = not yet.
	listening time.Time
	heard     map[store.ID]time.Time
	idle      int // consecutive polls without a waiting request
}

// New returns a Feed that starts to read when a request waits, and stops when
// stop ends.
func New(stop context.Context, o Options) *Feed { return &Feed{o: o, stop: stop} }

// Watch waits for the end of a session that was loaded at the given time and
// expires at the deadline. For a session that is not stored, look is nil and
// only the deadline counts.
func (f *Feed) Watch(id store.ID, look Look, loaded, deadline time.Time) *Watch {
	w := &Watch{feed: f, id: id, ask: look, done: make(chan struct{})}
	f.watches.add(w)
	if !deadline.IsZero() {
		w.wakeAt(deadline)
	}
	if look != nil {
		f.follow(w, loaded)
	}
	return w
}

// Tell reports that this process has ended a session.
func (f *Feed) Tell(id store.ID, why error) { f.watches.end(id, why) }

// Moved reports that a session's deadline has become earlier.
func (f *Feed) Moved(id store.ID, deadline time.Time) { f.watches.wakeAt(id, deadline) }

// Close ends all watches, including later ones.
func (f *Feed) Close(why error) { f.watches.endAll(why) }

// Waiting returns the number of waiting requests.
func (f *Feed) Waiting() int { return f.watches.len() }

// follow makes sure that the feed is read for w's session.
func (f *Feed) follow(w *Watch, loaded time.Time) {
	f.mu.Lock()
	if !f.reading {
		f.reading, f.heard = true, map[store.ID]time.Time{}
		go f.read()
	}
	f.idle = 0
	_, over := f.heard[w.id]
	look := over || !f.listening.IsZero() && f.mayHaveMissed(loaded)
	f.mu.Unlock()
	if look {
		go w.look()
	}
	// A feed that does not have every end yet checks all sessions once it does.
}

// mayHaveMissed reports whether the feed may have missed the end of a session
// that was loaded then.
func (f *Feed) mayHaveMissed(loaded time.Time) bool {
	if _, caches := f.o.Store.(store.FloorLoader); caches {
		return true // the loaded copy may be older than the load
	}
	return loaded.Before(f.listening) || f.o.Now().Sub(loaded) > feedMemory/2
}

// read polls the store's feed of ends until no request waits any more. Without
// a feed, it loads each session.
func (f *Feed) read() {
	feed, ok := f.o.Store.(store.EndFeed)
	failures := 0
	cursor, began := store.FeedFromNow, time.Time{} // of the pages that belong together
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-f.stop.Done():
			return
		}
		timer.Reset(feedInterval)
		if f.done() {
			return
		}
		if !ok { // load each session
			timer.Reset(2 * feedInterval)
			f.look(f.watches.oneOfAll())
			continue
		}
		asked := f.o.Now()
		page, err := f.o.Read(f.stop, feed, cursor, feedPage)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			ok = false
			continue
		case err != nil:
			if failures++; failures >= feedFailures {
				cursor, began = store.FeedFromNow, time.Time{}
				f.lost()
			}
			continue
		}
		failures, cursor = 0, page.Cursor
		if began.IsZero() {
			began = asked
		}
		f.hear(page.Ends)
		if page.More {
			timer.Reset(0)
			continue
		}
		if f.listens(began) {
			f.look(f.watches.oneOfAll())
		}
		began = time.Time{}
	}
}

// hear ends the streams of sessions that have ended. The feed is only a hint:
// the session's own record decides.
func (f *Feed) hear(ends []store.End) {
	now := time.Now()
	f.mu.Lock()
	for id, at := range f.heard {
		if now.Sub(at) > feedMemory {
			delete(f.heard, id)
		}
	}
	for _, e := range ends {
		if !f.listening.IsZero() { // otherwise it is from an earlier time
			f.heard[e.ID] = now
		}
	}
	f.mu.Unlock()
	f.look(f.watches.oneOfEach(ends))
}

// listens records that the feed has every end from then on, and reports whether
// that is new.
func (f *Feed) listens(since time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.listening.IsZero() {
		return false
	}
	f.listening = since
	return true
}

// lost records that ends may be missed from now on.
func (f *Feed) lost() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listening = time.Time{}
}

// done stops the feed when no request has waited for a while.
func (f *Feed) done() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.idle++; !f.watches.empty() {
		f.idle = 0
	}
	if f.idle <= idlePolls {
		return false
	}
	f.reading, f.listening, f.heard = false, time.Time{}, nil
	return true
}

// look checks sessions for which requests wait.
func (f *Feed) look(watches []*Watch) {
	slots := make(chan struct{}, looksAtOnce)
	var wg sync.WaitGroup
	for _, w := range watches {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			w.look()
		})
	}
	wg.Wait()
}
