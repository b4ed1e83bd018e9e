package memory

import (
	"strconv"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// A feed is the latest ends, oldest first.
type feed struct {
	mu    sync.Mutex
	first uint64 // how many earlier ends are no longer kept
	ends  []store.End
}

// feedLength is how many ends are kept. A cursor before them gets every
// tombstone.
const feedLength = 1 << 14

func (f *feed) add(id store.ID, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ends) == feedLength {
		half := feedLength / 2
		f.first += uint64(half)
		f.ends = append(make([]store.End, 0, feedLength), f.ends[half:]...)
	}
	f.ends = append(f.ends, store.End{ID: id, Until: until.Truncate(time.Millisecond).UTC()})
}

// page returns the ends after the cursor. If ok is false, the caller must add
// every tombstone.
func (f *feed) page(cursor string, limit int) (page store.EndPage, ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.first + uint64(len(f.ends))
	at := last
	switch cursor {
	case store.FeedFromNow:
	case store.FeedFromStart:
		at = 0
	default:
		if at, err = strconv.ParseUint(cursor, 10, 64); err != nil || at > last {
			return page, false, errCursor
		}
	}
	if at < f.first || cursor == store.FeedFromStart {
		return store.EndPage{Cursor: strconv.FormatUint(last, 10)}, false, nil
	}
	end := min(last, at+uint64(max(limit, 1)))
	page.Ends = append(page.Ends, f.ends[at-f.first:end-f.first]...)
	page.Cursor, page.More = strconv.FormatUint(end, 10), end < last
	return page, true, nil
}
