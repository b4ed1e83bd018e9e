package sojourn

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
)

// trouble logs what may go wrong with every request, at most one line a minute
// for each kind.
type trouble struct {
	mu    sync.Mutex
	kinds map[string]*recentTrouble
}

type recentTrouble struct {
	began  time.Time // of the minute
	count  int       // occurrences in it
	logged int       // of those, up to the one that was logged
	before int       // in the minute before, not logged
}

const (
	troubleInterval = time.Minute
	// manyTroubles is how many occurrences within that time are more than what one
	// visitor brings along.
	manyTroubles = 4
)

// report logs text, unless it did so within the last minute; the next line then
// says how often that was. text is the kind.
func (m *Manager) report(level slog.Level, text string, attrs ...slog.Attr) {
	m.reportAfter(1, level, text, attrs)
}

// reportMany is report for what is a fault only if it happens often: not before
// the fourth time within a minute.
func (m *Manager) reportMany(level slog.Level, text string, attrs ...slog.Attr) {
	m.reportAfter(manyTroubles, level, text, attrs)
}

func (m *Manager) reportAfter(many int, level slog.Level, text string, attrs []slog.Attr) {
	t, now := &m.trouble, time.Now()
	t.mu.Lock()
	recent := t.kinds[text]
	if recent == nil {
		if t.kinds == nil {
			t.kinds = map[string]*recentTrouble{}
		}
		recent = &recentTrouble{}
		t.kinds[text] = recent
	}
	if now.Sub(recent.began) >= troubleInterval {
		*recent = recentTrouble{began: now, before: recent.count - recent.logged}
	}
	recent.count++
	speak := recent.count == many
	before := recent.before
	if speak {
		recent.logged = recent.count
	}
	t.mu.Unlock()
	if !speak {
		return
	}
	if before > 0 {
		attrs = append(attrs, slog.Int("not_logged_before", before))
	}
	m.log.LogAttrs(context.Background(), level, text, attrs...)
}

// gaveUp reports whether a call failed because its caller waits no longer: a
// client that left, or Close.
func gaveUp(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// storeFailed counts and logs that the store could not do something, and returns
// the error for it. A caller that gave up says nothing about the store; one
// whose deadline has passed does.
func (m *Manager) storeFailed(ctx context.Context, doing string, err error) error {
	if !gaveUp(ctx) {
		m.count.storeErrors.Add(1)
		m.report(slog.LevelError, "the session store failed: could not "+doing, slog.Any("error", err))
	}
	return fault.Away(doing, err)
}
