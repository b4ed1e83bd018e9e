// Package ends tells who waits for the end of a session that it has come: in
// this process at once, and in others by the store's feed of ends, which one
// goroutine reads while anybody waits. It knows no session: what has become of
// one it asks by a callback.
package ends

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

const (
	// feedInterval leaves room for a slow answer within the second in which a
	// stream is to end.
	feedInterval = 400 * time.Millisecond
	feedPage     = 1000

	// feedMemory is how long an end that was heard is kept in mind, for requests
	// that loaded the session before it and ask for its end only afterwards.
	feedMemory = 2 * time.Minute

	// idlePolls is how often the feed is read on after the last stream has ended:
	// for half a minute.
	idlePolls = int(30 * time.Second / feedInterval)

	// feedFailures is after how many failed readings in a row the feed starts
	// again: its place may be gone with the server's data.
	feedFailures = 5

	// looksAtOnce is how many sessions are loaded at the same time, where the
	// feed cannot say what has happened to them.
	looksAtOnce = 16
)

// Options are what a Feed stands on.
type Options struct {
	Store store.Store // nil = sessions end by their deadlines only
	Now   func() time.Time
	// Read reads a page of the feed, bounded in time, and reports its failures.
	Read func(ctx context.Context, feed store.EndFeed, cursor string, limit int) (store.EndPage, error)
}

// Look asks what has become of a session. It returns when that is over unless it
// is used, or fault.Ended, fault.Expired, fault.Closed (nobody needs to know any
// more), or another error if that is not known now.
type Look func(ctx context.Context, id store.ID) (deadline time.Time, err error)

// Feed hears which sessions end. It is safe for concurrent use.
type Feed struct {
	o       Options
	stop    context.Context
	watches watches

	mu      sync.Mutex
	reading bool
	// listening is when the feed began to hear every end; zero = it does not yet.
	listening time.Time
	heard     map[store.ID]time.Time
	idle      int // polls in a row at which nobody was waiting
}

// New returns a Feed that reads nothing until somebody waits, and nothing any
// more once stop is over.
func New(stop context.Context, o Options) *Feed { return &Feed{o: o, stop: stop} }

// Watch waits for the end of a session that was loaded at the given time and is
// over at the deadline if nothing happens. One that is not stored has no other end,
// and a nil look.
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

// Tell says that a session has ended in this process.
func (f *Feed) Tell(id store.ID, why error) { f.watches.end(id, why) }

// Moved says that a session's deadline has become an earlier one.
func (f *Feed) Moved(id store.ID, deadline time.Time) { f.watches.wakeAt(id, deadline) }

// Close ends every watch, and those to come.
func (f *Feed) Close(why error) { f.watches.endAll(why) }

// Waiting returns how many wait.
func (f *Feed) Waiting() int { return f.watches.len() }

// follow makes sure that the end of w's session is heard.
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
	// A feed that does not listen yet looks at everybody once it does.
}

// mayHaveMissed reports whether a session that was loaded then may have ended
// without anybody having heard of it.
func (f *Feed) mayHaveMissed(loaded time.Time) bool {
	if _, caches := f.o.Store.(store.FloorLoader); caches {
		return true // the copy that was loaded may be older than its loading
	}
	return loaded.Before(f.listening) || f.o.Now().Sub(loaded) > feedMemory/2
}

// read polls the store's feed of ends until nobody waits any more. A store without
// a feed is asked for each session.
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
		if !ok { // each one has to be asked for
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

// hear ends the streams of sessions that have ended. The feed only says where to
// look: an end is that of a session if its own record says so.
func (f *Feed) hear(ends []store.End) {
	now := time.Now()
	f.mu.Lock()
	for id, at := range f.heard {
		if now.Sub(at) > feedMemory {
			delete(f.heard, id)
		}
	}
	for _, e := range ends {
		if !f.listening.IsZero() { // else it is from some time before
			f.heard[e.ID] = now
		}
	}
	f.mu.Unlock()
	f.look(f.watches.oneOfEach(ends))
}

// listens notes that every end until then is heard, and reports whether it
// starts with it.
func (f *Feed) listens(since time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.listening.IsZero() {
		return false
	}
	f.listening = since
	return true
}

// lost notes that ends may be missed from now on.
func (f *Feed) lost() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listening = time.Time{}
}

// done stops the feed when nobody has waited for a while.
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

// look asks about sessions that somebody waits for.
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
