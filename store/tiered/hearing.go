package tiered

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

const (
	pollInterval = 400 * time.Millisecond
	pollPage     = 1000

	// pollTimeout bounds a poll that nobody asked for.
	pollTimeout = 2 * time.Second

	// pollFailures is after how many failed polls in a row the feed starts anew:
	// its place may be gone with the server's data.
	pollFailures = 5

	// pollIdle is how long the feed's place is good without a poll.
	pollIdle = 30 * time.Second

	// maxRemembered is how many ends are kept in mind.
	maxRemembered = 1 << 16
)

// hearing reads the origin's feed of ends, and deletes what the caches in the
// process have of a session that has ended. One place reads the feed for all in
// the process: [Store.Ends] gives the ends to others.
type hearing struct {
	feed   store.EndFeed
	drop   func(ctx context.Context, id store.ID)
	keep   time.Duration // how long an end is kept in mind
	now    func() time.Time
	manual bool // tests poll

	polling  chan struct{} // holds a token while nobody polls
	cursor   string        // of the origin; the poller's
	failures int           // likewise

	mu          sync.Mutex
	unsupported bool
	// Every end that was reported after since, and before until, was heard.
	// since is zero while that is not so.
	since, until time.Time
	epoch        int       // grows when since does
	ends         []heard   // oldest first
	first        uint64    // number of the first of ends
	recent       ends      // the same, by ID
	began        time.Time // when the last poll was begun
	running      bool      // a poll that nobody waits for is under way
}

type heard struct {
	store.End
	at time.Time
}

type ends map[store.ID]int // how many of hearing.ends are of that session

func newHearing(feed store.EndFeed, keep time.Duration, drop func(context.Context, store.ID)) *hearing {
	h := &hearing{feed: feed, drop: drop, keep: max(keep, pollIdle), now: time.Now, polling: make(chan struct{}, 1), recent: ends{}}
	h.polling <- struct{}{}
	return h
}

// listen polls the feed, unless that was done a moment ago. It does not wait.
func (h *hearing) listen() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running || h.manual || h.unsupported || h.now().Sub(h.began) < pollInterval {
		return
	}
	h.running = true
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), pollTimeout)
		defer cancel()
		_ = h.poll(ctx) // the copies are not used after a while
		h.mu.Lock()
		defer h.mu.Unlock()
		h.running = false
	}()
}

// poll reads the feed up to what was reported before the call.
func (h *hearing) poll(ctx context.Context) error {
	select {
	case <-h.polling:
		defer func() { h.polling <- struct{}{} }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	began := h.now()
	h.mu.Lock()
	h.began = began
	if began.Sub(h.until) > pollIdle {
		h.lose()
	}
	h.mu.Unlock()
	for more := true; more; {
		page, err := h.feed.Ends(ctx, h.cursor, pollPage)
		if err != nil {
			return h.failed(ctx, err)
		}
		h.hear(ctx, page.Ends)
		h.cursor, more = page.Cursor, page.More
	}
	h.failures = 0
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() {
		h.since = began
	}
	h.until = began
	return nil
}

func (h *hearing) failed(ctx context.Context, err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		h.unsupported = true
		h.lose()
	case !errors.Is(ctx.Err(), context.Canceled): // else the caller gave up
		if h.failures++; h.failures >= pollFailures {
			h.lose()
		}
	}
	return err
}

// lose starts the feed anew: what ends until the next poll is not heard. It is
// called with mu held, by the poller.
func (h *hearing) lose() {
	h.cursor, h.failures, h.since, h.ends, h.recent = store.FeedFromNow, 0, time.Time{}, nil, ends{}
	h.epoch++
}

// hear notes ends, and then deletes the copies: who finds one later, in a farther
// cache, knows that it is none any more.
func (h *hearing) hear(ctx context.Context, page []store.End) {
	now := h.now()
	h.mu.Lock()
	if len(h.ends) > maxRemembered {
		h.lose()
	}
	for len(h.ends) > 0 && now.Sub(h.ends[0].at) > h.keep {
		id := h.ends[0].ID
		if h.recent[id]--; h.recent[id] == 0 {
			delete(h.recent, id)
		}
		h.ends = h.ends[1:]
		h.first++
	}
	for _, e := range page {
		h.ends = append(h.ends, heard{e, now})
		h.recent[e.ID]++
	}
	h.mu.Unlock()
	for _, e := range page {
		h.drop(ctx, e.ID)
	}
}

// confirmed returns until when it is known that a session had not ended. The copy
// shows what the origin had at asked or later; the zero time = not known.
func (h *hearing) confirmed(asked time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() || !asked.After(h.since) {
		return time.Time{}
	}
	return h.until
}

// ended reports whether the session is known to have ended.
func (h *hearing) ended(id store.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.recent[id] > 0
}

// page is [Store.Ends].
func (h *hearing) page(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	h.mu.Lock()
	next := h.first + uint64(len(h.ends)) // FeedFromNow: after those that are known
	epoch := h.epoch
	h.mu.Unlock()
	if cursor != store.FeedFromNow {
		var err error
		if epoch, next, err = parseCursor(cursor); err != nil {
			return store.EndPage{}, err
		}
	}
	if err := h.poll(ctx); err != nil {
		return store.EndPage{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if cursor == store.FeedFromNow && epoch != h.epoch {
		epoch, next = h.epoch, h.first
	}
	if epoch != h.epoch || next < h.first {
		return store.EndPage{}, errLostPlace
	}
	var out store.EndPage
	for _, e := range h.ends[min(next-h.first, uint64(len(h.ends))):] {
		if len(out.Ends) >= limit {
			out.More = true
			break
		}
		out.Ends = append(out.Ends, e.End)
	}
	out.Cursor = fmt.Sprintf("%s%d.%d", cursorPrefix, epoch, next+uint64(len(out.Ends)))
	return out, nil
}

const cursorPrefix = "tiered."

var errLostPlace = errors.New("tiered: the feed of ends was interrupted, and cannot go on from that cursor")

func parseCursor(cursor string) (epoch int, next uint64, err error) {
	a, b, _ := strings.Cut(strings.TrimPrefix(cursor, cursorPrefix), ".")
	epoch, err = strconv.Atoi(a)
	if err == nil {
		next, err = strconv.ParseUint(b, 10, 64)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("tiered: the cursor %.40q is none of this feed: %w", cursor, err)
	}
	return epoch, next, nil
}
