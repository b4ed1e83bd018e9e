package ends

import (
	"errors"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/store"
)

// watches are the sessions for which requests wait, by row key.
type watches struct {
	mu   sync.Mutex
	byID map[store.ID]map[*Watch]struct{}
	over error // why all watches have ended; nil = they have not
}

// Watch is one wait for the end of a session.
type Watch struct {
	feed *Feed
	id   store.ID
	ask  Look // nil = the session is not stored
	done chan struct{}

	mu       sync.Mutex
	err      error
	timer    *time.Timer
	released bool // the request no longer waits
}

// Over returns a watch that has already ended, for that reason.
func Over(why error) *Watch {
	w := &Watch{done: make(chan struct{})}
	w.end(why)
	return w
}

// Done returns the channel that is closed at the end.
func (w *Watch) Done() <-chan struct{} { return w.done }

// Err returns why the channel is closed, or nil while it is not.
func (w *Watch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Release ends the wait. It does not close the channel.
func (w *Watch) Release() {
	if w.feed != nil {
		w.feed.watches.remove(w)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.released = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (ws *watches) add(w *Watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.over != nil {
		w.end(ws.over)
		return
	}
	if ws.byID == nil {
		ws.byID = map[store.ID]map[*Watch]struct{}{}
	}
	if ws.byID[w.id] == nil {
		ws.byID[w.id] = map[*Watch]struct{}{}
	}
	ws.byID[w.id][w] = struct{}{}
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
func (ws *watches) oneOfAll() []*Watch {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	all := make([]*Watch, 0, len(ws.byID))
	for _, some := range ws.byID {
		for w := range some {
			all = append(all, w)
			break
		}
	}
	return all
}

// oneOfEach returns a watch of each of these sessions that has one.
func (ws *watches) oneOfEach(ends []store.End) (some []*Watch) {
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

func (ws *watches) remove(w *Watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.byID[w.id], w)
	if len(ws.byID[w.id]) == 0 {
		delete(ws.byID, w.id)
	}
}

// wakeAt makes every watch of that session check at a deadline that has become
// earlier.
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

func (ws *watches) endAll(why error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.over = why
	for _, all := range ws.byID {
		for w := range all {
			w.end(why)
		}
	}
}

func (w *Watch) end(why error) {
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

// wakeAt checks the session again after its deadline: other requests may have
// used it since.
func (w *Watch) wakeAt(deadline time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.err == nil && !w.released {
		// One millisecond later, because at its exact deadline a session is still valid.
		w.timer = time.AfterFunc(time.Until(deadline)+time.Millisecond, w.look)
	}
}

// look checks the session, and ends its watches if it has ended.
func (w *Watch) look() {
	f := w.feed
	if w.ask == nil {
		w.end(fault.Expired)
		return
	}
	deadline, err := w.ask(f.stop, w.id)
	switch {
	case err == nil:
		w.wakeAt(deadline)
	case errors.Is(err, fault.Closed):
	case errors.Is(err, fault.Ended):
		f.watches.end(w.id, fault.Ended)
	case errors.Is(err, fault.Expired):
		f.watches.end(w.id, fault.Expired)
	default: // the store is unavailable: check again soon
		w.wakeAt(f.o.Now().Add(time.Second))
	}
}
