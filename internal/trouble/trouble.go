// Package trouble logs repeated problems, with at most one line a minute for
// each kind, and problems that need only one line.
package trouble

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Log is a logger that limits repeated lines. Set Logger before its first use.
type Log struct {
	*slog.Logger

	mu    sync.Mutex
	kinds map[string]*recent
	said  sync.Map // what was logged once
}

type recent struct {
	began  time.Time // of the minute
	count  int       // occurrences in it
	logged int       // of those, up to the one that was logged
	before int       // in the minute before, not logged
}

const (
	interval = time.Minute
	// many is the number of occurrences within that time that one visitor alone
	// does not cause.
	many = 4
)

// Report logs text, unless it did so within the last minute; the next line then
// has the number of occurrences. text is the kind.
func (l *Log) Report(level slog.Level, text string, attrs ...slog.Attr) {
	l.reportAfter(1, level, text, attrs)
}

// ReportMany is Report for problems that matter only if they are frequent: it
// logs from the fourth time within a minute.
func (l *Log) ReportMany(level slog.Level, text string, attrs ...slog.Attr) {
	l.reportAfter(many, level, text, attrs)
}

func (l *Log) reportAfter(times int, level slog.Level, text string, attrs []slog.Attr) {
	now := time.Now()
	l.mu.Lock()
	r := l.kinds[text]
	if r == nil {
		if l.kinds == nil {
			l.kinds = map[string]*recent{}
		}
		r = &recent{}
		l.kinds[text] = r
	}
	if now.Sub(r.began) >= interval {
		*r = recent{began: now, before: r.count - r.logged}
	}
	r.count++
	speak := r.count == times
	before := r.before
	if speak {
		r.logged = r.count
	}
	l.mu.Unlock()
	if !speak {
		return
	}
	if before > 0 {
		attrs = append(attrs, slog.Int("not_logged_before", before))
	}
	l.LogAttrs(context.Background(), level, text, attrs...)
}

// Once logs text the first time only.
func (l *Log) Once(level slog.Level, text string, args ...any) {
	if l.First(text) {
		l.Log(context.Background(), level, text, args...)
	}
}

// First reports whether what is new, and remembers it.
func (l *Log) First(what string) bool {
	_, again := l.said.LoadOrStore(what, true)
	return !again
}
