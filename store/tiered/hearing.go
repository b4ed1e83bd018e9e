package tiered

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

const (
	pollInterval = 400 * time.Millisecond
	pollPage     = 1000

	// pollTimeout bounds a background poll.
	pollTimeout = 2 * time.Second

	// pollFailures is the number of consecutive failed polls after which the
	// feed restarts: the server may have lost the data for the cursor.
	pollFailures = 5

	// pollIdle is how long the cursor is valid without a poll. Some feeds read
	// tombstones, which are kept for at least two minutes.
	pollIdle = 30 * time.Second

	// maxRemembered is how many ends are remembered, in addition to those of a page.
	maxRemembered = 1 << 16
)

// hearing polls the origin's feed of ends, and deletes ended sessions from the
// caches in the process. The process polls only once: [Store.Ends] returns the
// ends that hearing has read.
type hearing struct {
	feed   store.EndFeed
	drop   func(ctx context.Context, id store.ID)
	keep   time.Duration // how long an end is remembered
	manual bool          // tests poll

	// Fields that every load reads, without a lock.
	heard   atomic.Pointer[span] // the time covered; nil = none
	due     atomic.Int64         // when the next poll is, in nanoseconds since began
	running atomic.Bool          // a background poll is under way
	failing atomic.Bool          // the last poll has failed

	polling  chan struct{} // holds a token while no poll runs; guards the next five
	cursor   string        // of the origin
	since    time.Time     // every later end was read; zero = none
	until    time.Time     // start of the last successful poll
	forgot   time.Time     // when the latest end that ends no longer has was read
	failures int           // in a row

	mu    sync.Mutex
	epoch uint64           // names a period without gaps; only the poller changes it
	first uint64           // number of the first of ends
	ends  []end            // oldest first
	of    map[store.ID]int // how many of ends are of that session
}

// span is a period: every end reported after since and before until was read.
type span struct{ since, until time.Time }

type end struct {
	store.End
	heard time.Time
}

func newHearing(feed store.EndFeed, keep time.Duration, drop func(context.Context, store.ID)) *hearing {
	h := &hearing{feed: feed, drop: drop, keep: max(keep, pollIdle), polling: make(chan struct{}, 1), of: map[store.ID]int{}}
	h.polling <- struct{}{}
	h.due.Store(int64(time.Since(began)))
	h.lose()
	return h
}

// listen starts a poll of the feed, unless the last one was recent. It does not wait.
func (h *hearing) listen() {
	if h.manual || int64(time.Since(began)) < h.due.Load() || !h.running.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer h.running.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), pollTimeout)
		defer cancel()
		_, _ = h.poll(ctx) // on failure the copies soon expire
	}()
}

// poll reads the feed up to the ends reported before the call. Ends read from
// then on belong to epoch.
func (h *hearing) poll(ctx context.Context) (epoch uint64, err error) {
	select {
	case <-h.polling:
		defer func() { h.polling <- struct{}{} }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	asked := time.Now()
	h.due.Store(int64(asked.Add(pollInterval).Sub(began)))
	if asked.Sub(h.until) > pollIdle {
		h.lose()
	}
	for more := true; more; {
		page, err := h.feed.Ends(ctx, h.cursor, pollPage)
		if err != nil {
			h.failed(ctx, err)
			return 0, err
		}
		h.hear(ctx, page.Ends)
		h.cursor, more = page.Cursor, page.More
	}
	h.failures = 0
	h.failing.Store(false)
	if h.since.IsZero() {
		h.since = asked
	}
	if h.since.Before(h.forgot) {
		h.since = h.forgot // a cache that missed an invalidation may return a session that ended before
	}
	h.until = asked
	h.heard.Store(&span{h.since, h.until})
	return h.epoch, nil
}

func (h *hearing) failed(ctx context.Context, err error) {
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		h.failing.Store(true)
		h.due.Store(never)
		h.lose()
	case !errors.Is(ctx.Err(), context.Canceled): // else the caller gave up
		h.failing.Store(true)
		if h.failures++; h.failures >= pollFailures {
			h.lose()
		}
	}
}

const never = int64(^uint64(0) >> 1)

// lose restarts the feed: ends until the next poll are missed. Remembered ends
// stay.
func (h *hearing) lose() {
	h.cursor, h.since, h.failures = store.FeedFromNow, time.Time{}, 0
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epoch = newNonce() // invalidates all earlier cursors
}

// hear remembers ends, and then deletes the copies. A reader that later finds a
// copy in a farther cache can then detect that the session has ended.
func (h *hearing) hear(ctx context.Context, page []store.End) {
	now := time.Now()
	h.mu.Lock()
	for len(h.ends) > maxRemembered || len(h.ends) > 0 && now.Sub(h.ends[0].heard) > h.keep {
		id := h.ends[0].ID
		if h.of[id]--; h.of[id] == 0 {
			delete(h.of, id)
		}
		h.forgot = h.ends[0].heard
		h.ends = h.ends[1:]
		h.first++
	}
	for _, e := range page {
		h.ends = append(h.ends, end{e, now})
		h.of[e.ID]++
	}
	h.mu.Unlock()
	for _, e := range page {
		h.drop(ctx, e.ID)
	}
}

// confirmed returns until when a session is known not to have ended, given a
// copy of it that is as of asked or later. The zero time = unknown.
func (h *hearing) confirmed(asked time.Time) time.Time {
	if s := h.heard.Load(); s != nil && asked.After(s.since) {
		return s.until
	}
	return time.Time{}
}

// ended reports whether a session is known to have ended. A cache that missed
// the invalidation may still have a copy.
func (h *hearing) ended(id store.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.of[id] > 0
}

// page is [Store.Ends].
func (h *hearing) page(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	h.mu.Lock()
	epoch, next := h.epoch, h.first+uint64(len(h.ends))
	h.mu.Unlock()
	fromNow := cursor == store.FeedFromNow
	if !fromNow {
		var err error
		if epoch, next, err = parseCursor(cursor); err != nil {
			return store.EndPage{}, err
		}
		if page, err := h.after(epoch, next, limit); err != nil || page.More {
			return page, err
		}
	}
	heard, err := h.poll(ctx)
	if err != nil {
		return store.EndPage{}, err
	}
	if fromNow {
		epoch = heard // this may have been the first poll
	}
	return h.after(epoch, next, limit)
}

// after returns the ends from number next on.
func (h *hearing) after(epoch, next uint64, limit int) (page store.EndPage, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if epoch != h.epoch || next < h.first || next > h.first+uint64(len(h.ends)) {
		return page, errLostPlace
	}
	rest := h.ends[next-h.first:]
	if limit = max(limit, 1); len(rest) > limit {
		rest, page.More = rest[:limit], true
	}
	for _, e := range rest {
		page.Ends = append(page.Ends, e.End)
	}
	page.Cursor = fmt.Sprintf("%s%d.%d", cursorPrefix, epoch, next+uint64(len(rest)))
	return page, nil
}

const cursorPrefix = "tiered."

var errLostPlace = errors.New("tiered: the feed of ends was interrupted, and cannot go on from that cursor")

func parseCursor(cursor string) (epoch, next uint64, err error) {
	a, b, _ := strings.Cut(strings.TrimPrefix(cursor, cursorPrefix), ".")
	epoch, err = strconv.ParseUint(a, 10, 64)
	if err == nil {
		next, err = strconv.ParseUint(b, 10, 64)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("tiered: the cursor %.40q is none of this feed: %w", cursor, err)
	}
	return epoch, next, nil
}
