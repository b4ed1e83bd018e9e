package sojourn

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
	// that loaded the session before it and ask for Done only afterwards.
	feedMemory = 2 * time.Minute

	// feedIdle is how long the feed is read after the last stream has ended.
	feedIdle = 30 * time.Second

	// feedFailures is after how many failed readings in a row the feed starts
	// anew: its place may be gone with the server's data.
	feedFailures = 5

	// looksAtOnce is how many sessions are loaded at the same time, where the
	// feed cannot say what has happened to them.
	looksAtOnce = 16
)

// A feed hears which stored sessions end in other processes, while somebody
// here waits for the end of any. One poll serves all of them.
type feed struct {
	mu      sync.Mutex
	running bool
	since   time.Time // every end since then is heard; zero = not listening yet
	heard   map[store.ID]time.Time
	quiet   time.Time // since when nobody waits; zero = somebody does
}

// start starts the reader unless it is at work. The caller holds mu.
func (f *feed) start(m *Manager) {
	if f.running {
		return
	}
	f.running = true
	f.heard = map[store.ID]time.Time{}
	go m.readFeed()
}

// follow makes sure that the end of w's session is heard, which was loaded at
// the given time.
func (m *Manager) follow(w *watch, loaded time.Time) {
	f := &m.feed
	f.mu.Lock()
	f.start(m)
	f.quiet = time.Time{}
	_, over := f.heard[w.who.id]
	_, caches := m.cfg.Store.(store.FloorLoader)
	missed := f.since.IsZero() || loaded.Before(f.since) || caches || m.now().Sub(loaded) > feedMemory/2
	listening := !f.since.IsZero()
	f.mu.Unlock()
	switch {
	case over, missed && listening:
		go w.look()
	}
	// Otherwise readFeed looks at it once it listens.
}

// readFeed polls the store's feed of ends until nobody waits any more.
func (m *Manager) readFeed() {
	reader, ok := m.cfg.Store.(store.EndFeed)
	failures := 0
	cursor, began := store.FeedFromNow, time.Time{} // of the pages that belong together
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-m.stop.Done():
			return
		}
		timer.Reset(feedInterval)
		if m.feedDone() {
			return
		}
		if !ok { // each one has to be asked for
			timer.Reset(2 * feedInterval)
			m.lookAtAll()
			continue
		}
		asked := m.now()
		page, err := m.readEnds(reader, cursor)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			ok = false
			continue
		case err != nil:
			if failures++; failures >= feedFailures {
				cursor, began = store.FeedFromNow, time.Time{}
				m.feed.lost()
			}
			continue
		}
		failures, cursor = 0, page.Cursor
		if began.IsZero() {
			began = asked
		}
		m.hear(page.Ends)
		if page.More {
			timer.Reset(0)
			continue
		}
		if m.feed.listens(began) {
			m.lookAtAll()
		}
		began = time.Time{}
	}
}

func (m *Manager) readEnds(reader store.EndFeed, cursor string) (store.EndPage, error) {
	ctx, cancel := context.WithTimeout(m.stop, m.cfg.Timeout)
	defer cancel()
	page, err := reader.Ends(ctx, cursor, feedPage)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		err = m.storeFailed(ctx, "read which sessions have ended", err)
	}
	return page, err
}

// hear ends the streams of sessions that have ended. The feed only says where to
// look: an end is that of a session if its own record says so.
func (m *Manager) hear(ends []store.End) {
	now := time.Now()
	f := &m.feed
	f.mu.Lock()
	for id, at := range f.heard {
		if now.Sub(at) > feedMemory {
			delete(f.heard, id)
		}
	}
	for _, e := range ends {
		if f.running && !f.since.IsZero() { // else it is from some time before
			f.heard[e.ID] = now
		}
	}
	f.mu.Unlock()
	m.look(m.watches.oneOfEach(ends))
}

// listens notes that every end until then is heard, and reports whether it
// starts with it.
func (f *feed) listens(since time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.since.IsZero() {
		return false
	}
	f.since = since
	return true
}

// lost notes that ends may be missed from now on.
func (f *feed) lost() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since = time.Time{}
}

// feedDone stops the feed when nobody has waited for a while.
func (m *Manager) feedDone() bool {
	f := &m.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	switch {
	case !m.watches.empty():
		f.quiet = time.Time{}
		return false
	case f.quiet.IsZero():
		f.quiet = now
		return false
	case now.Sub(f.quiet) < feedIdle:
		return false
	}
	f.running, f.since, f.heard = false, time.Time{}, nil
	return true
}

// lookAtAll asks the store about each session that somebody waits for.
func (m *Manager) lookAtAll() { m.look(m.watches.oneOfAll()) }

// look asks the store about sessions that somebody waits for.
func (m *Manager) look(watches []*watch) {
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
