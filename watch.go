package sojourn

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// watches are the sessions that somebody waits for, by row key.
type watches struct {
	mu     sync.Mutex
	byID   map[store.ID]map[*watch]struct{}
	closed bool
}

// watch is one session's Done channel.
type watch struct {
	m    *Manager
	who  identity
	done chan struct{}

	mu       sync.Mutex
	err      error
	timer    *time.Timer
	released bool // nobody waits any more
}

// Done returns a channel that is closed when the session ends: by a logout, a
// login, a revocation or its expiry, on this replica or, within a second, on any
// other one that has the same store, or by [Manager.Close]. [Session.Err]
// says why. Waiting does not count as activity. The channel is released when
// the request ends, or with the context that [Manager.Open] was given; asked
// for only then, it is closed from the start, and Err returns [ErrTooLate].
//
// An anonymous session in the cookie has no end that could be waited for: its
// channel is closed by its absolute expiry and by Close only.
func (s *Session) Done() <-chan struct{} {
	s.lock()
	defer s.mu.Unlock()
	if s.watch == nil {
		if s.phase == phaseOver || s.phase == phaseDraft {
			s.watch = &watch{done: make(chan struct{})}
			s.watch.end(ErrTooLate)
			return s.watch.done
		}
		w := s.m.watches.add(s.m, s.last)
		if s.last.placement == PlacementStored {
			s.m.follow(w, s.loaded)
		}
		if s.ctx != nil {
			context.AfterFunc(s.ctx, func() { s.m.watches.remove(w) })
		}
		s.watch = w
	}
	return s.watch.done
}

// Err returns nil while the channel of [Session.Done] is open, and then
// [ErrEnded], [ErrExpired] or [ErrClosed].
func (s *Session) Err() error {
	s.lock()
	w := s.watch
	s.mu.Unlock()
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (s *Session) unwatch() {
	if s.watch != nil {
		s.m.watches.remove(s.watch)
	}
}

func (ws *watches) add(m *Manager, st *state) *watch {
	w := &watch{m: m, who: st.identity, done: make(chan struct{})}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.closed {
		w.end(ErrClosed)
		return w
	}
	if ws.byID == nil {
		ws.byID = map[store.ID]map[*watch]struct{}{}
	}
	if ws.byID[w.who.id] == nil {
		ws.byID[w.who.id] = map[*watch]struct{}{}
	}
	ws.byID[w.who.id][w] = struct{}{}
	switch st.placement {
	case PlacementStored:
		w.wakeAt(st.stored.Deadline)
	case PlacementInline:
		w.wakeAt(m.lifetimeEnd(&st.rec.Header))
	}
	return w
}

func (ws *watches) empty() bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return len(ws.byID) == 0
}

func (ws *watches) len() (n int) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, some := range ws.byID {
		n += len(some)
	}
	return n
}

// oneOfAll returns a watch of each session.
func (ws *watches) oneOfAll() []*watch {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	all := make([]*watch, 0, len(ws.byID))
	for _, some := range ws.byID {
		for w := range some {
			all = append(all, w)
			break
		}
	}
	return all
}

// oneOfEach returns a watch of each of these sessions that somebody waits for.
func (ws *watches) oneOfEach(ends []store.End) (some []*watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, e := range ends {
		for w := range ws.byID[e.ID] {
			some = append(some, w)
			break
		}
	}
	return some
}

func (ws *watches) remove(w *watch) {
	ws.mu.Lock()
	delete(ws.byID[w.who.id], w)
	if len(ws.byID[w.who.id]) == 0 {
		delete(ws.byID, w.who.id)
	}
	ws.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.released = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// wakeAt lets every watch of that session look at a deadline that has become
// an earlier one.
func (ws *watches) wakeAt(id store.ID, deadline time.Time) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.byID[id] {
		w.wakeAt(deadline)
	}
}

// end closes the channels of every watch of that session.
func (ws *watches) end(id store.ID, why error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.byID[id] {
		w.end(why)
	}
}

func (ws *watches) closeAll() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.closed = true
	for _, all := range ws.byID {
		for w := range all {
			w.end(ErrClosed)
		}
	}
}

func (w *watch) end(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	w.err = why
	close(w.done)
	if w.timer != nil {
		w.timer.Stop()
	}
}

// wakeAt looks at the session again when its deadline has passed: it may have
// been used by other requests since.
func (w *watch) wakeAt(deadline time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.err == nil && !w.released {
		// One millisecond later: at its very deadline a session is still valid.
		w.timer = time.AfterFunc(time.Until(deadline)+time.Millisecond, w.look)
	}
}

func (w *watch) look() {
	m := w.m
	if m.begin() != nil {
		return
	}
	defer m.end()
	if m.cfg.Store == nil {
		w.end(ErrExpired)
		return
	}
	ctx, cancel := context.WithTimeout(m.stop, m.cfg.Timeout)
	defer cancel()
	st, err := m.fetch(ctx, w.who, 0)
	var gone *goneError
	switch {
	case err == nil:
		w.wakeAt(st.stored.Deadline)
	case errors.As(err, &gone) && !gone.ended.IsZero():
		m.watches.end(w.who.id, ErrEnded)
	case errors.As(err, &gone):
		m.watches.end(w.who.id, ErrExpired)
	default: // the store is away: ask again soon
		w.wakeAt(m.now().Add(time.Second))
	}
}
